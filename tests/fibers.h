// Runs a CUDA kernel on the host whose threads wait for each other: every thread of every block is a fiber, and what
// makes threads wait lets another one run, on one processor. Which one is drawn by lot (the same ones every time), for
// a while among all, or those of one block or one warp only: who does not wait where he should is soon far ahead.
//
// For kernels whose arguments are pointers or long longs. A kernel that waits for ever is seen: launch gives 1.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define SHARED_MEMORY(name) unsigned char* const name = current->of->shared;

struct Index {
    unsigned x;
};
struct float4 {
    float x, y, z, w;
};
struct double2 {
    double x, y;
};

struct Meeting {  // of a number of fibers; the last one lets all go
    int waiting = 0;
    long round = 0;
};

struct Block {
    Index index;
    unsigned char* shared;
    int threads, either = 0, answer = 0;
    Meeting all;
    std::vector<Meeting> warps;
    std::vector<double> given;  // by the threads of a warp to each other
};

struct Fiber {
    Block* of;
    Index index;
    jmp_buf at;
    ucontext_t start;
    std::vector<char> stack;
    bool begun = false, done = false;
};

static Fiber* current;
static Index gridDim, blockDim;
static std::vector<Fiber*> fibers;
static jmp_buf scheduler;
static long idle;  // turns that ended in waiting, one after the other

#define threadIdx (current->index)
#define blockIdx (current->of->index)

static void yield() {
    if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

static void meet(Meeting& meeting, int members) {
    const long round = meeting.round;
    if (++meeting.waiting == members) {
        meeting.waiting = 0;
        ++meeting.round;
        idle = 0;
    }
    while (meeting.round == round) yield();
}

static void __syncthreads() { meet(current->of->all, current->of->threads); }

static int __syncthreads_or(int value) {
    Block& block = *current->of;
    block.either |= value;
    __syncthreads();
    block.answer = block.either;
    __syncthreads();
    block.either = 0;
    __syncthreads();
    return block.answer;
}

template <class T>
static T __shfl_xor_sync(unsigned, T value, int offset) {
    Block& block = *current->of;
    const unsigned thread = threadIdx.x;
    Meeting& warp = block.warps[thread / 32];
    block.given[thread] = value;
    meet(warp, 32);
    const T found = (T)block.given[thread ^ offset];
    meet(warp, 32);
    return found;
}

template <class T>
static T __ldcg(const T* p) {
    return *p;
}
static void __nanosleep(unsigned) { yield(); }
static unsigned atomicAdd(unsigned* p, unsigned x) {
    const unsigned old = *p;
    *p += x;
    return old;
}
static int atomicMax(int* p, int x) {
    const int old = *p;
    *p = x > old ? x : old;
    return old;
}

typedef void (*Kernel)(long long, long long, long long, long long, long long, long long, long long, long long, long long,
                       long long, long long, long long, long long, long long, long long, long long, long long, long long,
                       long long, long long, long long, long long, long long, long long);
static Kernel kernel;
static const long long* words;

static void body() {
    const long long* a = words;
    kernel(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16],
           a[17], a[18], a[19], a[20], a[21], a[22], a[23]);
    current->done = true;
    idle = 0;
    _longjmp(scheduler, 1);
}

extern "C" int launch(void* address, long long blocks, long long threads, long long shared_bytes, const long long* a) {
    kernel = (Kernel)address;
    words = a;
    gridDim.x = (unsigned)blocks;
    blockDim.x = (unsigned)threads;
    std::vector<Block> all(blocks);
    for (int k = 0; k < blocks; ++k) {
        Block& block = all[k];
        block.index.x = k;
        block.threads = (int)threads;
        block.shared = (unsigned char*)aligned_alloc(64, (shared_bytes + 63) / 64 * 64);
        memset(block.shared, 0xff, shared_bytes);  // not a number: what is read must have been written
        block.warps.resize(threads / 32);
        block.given.resize(threads);
        for (int thread = 0; thread < threads; ++thread) {
            Fiber* fiber = new Fiber;
            fiber->of = &block;
            fiber->index.x = thread;
            fiber->stack.resize(64 * 1024);
            getcontext(&fiber->start);
            fiber->start.uc_stack.ss_sp = fiber->stack.data();
            fiber->start.uc_stack.ss_size = fiber->stack.size();
            fiber->start.uc_link = nullptr;
            makecontext(&fiber->start, body, 0);
            fibers.push_back(fiber);
        }
    }
    static size_t left, first, size, turns;
    static unsigned long long lot;
    idle = 0;
    for (left = fibers.size(), turns = 0, lot = 1; left && idle < 1000L * (long)fibers.size();) {
        lot = lot * 6364136223846793005ULL + 1442695040888963407ULL;
        if (turns-- == 0) {
            const size_t sizes[] = {fibers.size(), (size_t)threads, 32};
            size = sizes[(lot >> 33) % 3];
            first = (lot >> 35) % (fibers.size() / size) * size;
            turns = (lot >> 33) % (20 * size);
        }
        current = fibers[first + (lot >> 33) % size];
        if (current->done) {
            ++idle;
            continue;
        }
        ++idle;
        if (!_setjmp(scheduler)) {
            if (current->begun) _longjmp(current->at, 1);
            current->begun = true;
            setcontext(&current->start);
        }
        if (current->done) --left;
    }
    const int stuck = left > 0;
    for (Fiber* fiber : fibers) delete fiber;
    fibers.clear();
    for (Block& block : all) free(block.shared);
    return stuck;
}
