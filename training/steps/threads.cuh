// What threads do together: numbers in fours, sums over the lanes of a warp, barriers of all blocks.

typedef long long integer;

#define WARPS (THREADS / 32)

struct alignas(4 * sizeof(REAL)) Quad {
    REAL at[4];
};

__device__ inline Quad quad(const REAL* p) { return *(const Quad*)p; }

__device__ constexpr int power_of_two(int n) {
    int power = 1;
    while (power < n) power *= 2;
    return power;
}

__device__ constexpr int whole_quads(int count) { return (count + 3) / 4 * 4; }

__device__ inline REAL within(REAL x, REAL low, REAL high) {  // NaN stays, for `measure` to see
    x = x < low ? low : x;
    return x > high ? high : x;
}

// Four numbers that another block may have written, read past this multiprocessor's own cache.
__device__ inline Quad fetched(const float* p) {
    const float4 found = __ldcg((const float4*)p);
    return {{(REAL)found.x, (REAL)found.y, (REAL)found.z, (REAL)found.w}};
}

__device__ inline Quad fetched(const double* p) {
    const double2 first = __ldcg((const double2*)p), second = __ldcg((const double2*)p + 1);
    return {{(REAL)first.x, (REAL)first.y, (REAL)second.x, (REAL)second.y}};
}

__device__ inline void spread(const Quad& of, REAL* x) {
    for (int i = 0; i < 4; ++i) x[i] = of.at[i];
}

__device__ inline float whole_warp(float x, int offset) { return __shfl_xor_sync(0xffffffffu, x, offset); }
__device__ inline double whole_warp(double x, int offset) { return __shfl_xor_sync(0xffffffffu, x, offset); }

template <class T>
__device__ inline T warp_sum(T x) {
    for (int offset = 16; offset > 0; offset /= 2) x += whole_warp(x, offset);
    return x;
}

// Sums of N numbers over the lanes that differ in the bits from `offset` down to `across`, into slot: each step halves
// the numbers that a lane is left with, so that N numbers over 32 lanes take about N exchanges, not 5 N.
template <int N>
__device__ inline void sum_lanes(const REAL (&part)[N], int offset, int across, REAL* slot) {
    if (offset < across) {
#pragma unroll
        for (int i = 0; i < N; ++i) slot[i] = part[i];
        return;
    }
    if constexpr (N == 1) {
        REAL sum = part[0];
        for (; offset >= across; offset /= 2) sum += whole_warp(sum, offset);
        slot[0] = sum;
    } else {
        const bool upper = threadIdx.x & offset;
        REAL half[N / 2];
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
            const REAL given = upper ? part[i] : part[N / 2 + i], kept = upper ? part[N / 2 + i] : part[i];
            half[i] = kept + whole_warp(given, offset);
        }
        sum_lanes<N / 2>(half, offset / 2, across, slot + (upper ? N / 2 : 0));
    }
}

// The counter of a barrier: what a block wrote before it counted is visible to every block that has seen that count.
#ifdef __CUDA_ARCH__
__device__ inline unsigned counted(unsigned* arrived) {
    unsigned before;
    asm volatile("atom.add.release.gpu.global.u32 %0, [%1], 1;" : "=r"(before) : "l"(arrived) : "memory");
    return before;
}
__device__ inline unsigned seen(const unsigned* arrived) {
    unsigned now;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(arrived) : "memory");
    return now;
}
#else
__device__ inline unsigned counted(unsigned* arrived) { return atomicAdd(arrived, 1u); }
__device__ inline unsigned seen(const unsigned* arrived) {
    __nanosleep(20);
    return *(const volatile unsigned*)arrived;
}
#endif

// Four numbers into global memory, by vector stores: an assignment becomes a store for each number, each of
// only a part of a sector.
#ifdef __CUDA_ARCH__
__device__ inline void put(float* p, const Quad& of) {
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"((float)of.at[0]), "f"((float)of.at[1]),
                 "f"((float)of.at[2]), "f"((float)of.at[3])
                 : "memory");
}
__device__ inline void put(double* p, const Quad& of) {
    for (int i = 0; i < 4; i += 2)
        asm volatile("st.global.v2.f64 [%0], {%1, %2};" ::"l"(p + i), "d"((double)of.at[i]), "d"((double)of.at[i + 1])
                     : "memory");
}
#else
__device__ inline void put(REAL* p, const Quad& of) { *(Quad*)p = of; }
#endif

// All blocks wait for each other; `arrived` counts them, from 0 on.
__device__ inline void meet(unsigned* arrived) {
    __syncthreads();
    if (threadIdx.x == 0) {
        const unsigned goal = (counted(arrived) / gridDim.x + 1) * gridDim.x;
        while (seen(arrived) < goal) {
        }
    }
    __syncthreads();
}
