// A layered netlist on a GPU: where its conductances, voltages and currents are, in shared memory and outside. All sizes
// are known at compile time, so that addresses in shared memory are constants.

#include "threads.cuh"

#define BOTH (2 * BATCH)
#define STRIDE whole_quads(BOTH)
#define TAPED whole_quads(BATCH)  // numbers of a unit at one time of a tape: voltages, or adjoints
#define WIDE power_of_two(BOTH)   // numbers that a block shares for an output in a nudged phase

#ifndef SHARED_MEMORY
#define SHARED_MEMORY(name) extern __shared__ __align__(32) unsigned char name[];
#endif

// -- sizes -------------------------------------------------------------------------------------------------------------

constexpr int DEPTH = HIDDEN + 1;  // crossbars

__device__ constexpr int size_of(int layer) {  // units: inputs, hidden layers, outputs
    constexpr int all[] = {SIZES};
    return all[layer];
}
__device__ constexpr int width_of(int k) {  // units of hidden layer k that a block owns at the most, a multiple of 4
    constexpr int all[] = {WIDTHS};
    return all[k];
}
__device__ constexpr int first_unit(int k) {  // of layer k + 1
    int first = 0;
    for (int before = 1; before <= k; ++before) first += size_of(before);
    return first;
}
__device__ constexpr integer first_entry(int k) {  // of crossbar k
    integer first = 0;
    for (int before = 0; before < k; ++before) first += (integer)size_of(before) * size_of(before + 1);
    return first;
}
__device__ constexpr int larger(int a, int b) { return a > b ? a : b; }
__device__ constexpr int across_of(int k) {  // lanes of a warp side by side in a row of a slab
    int across = 1;
    while (across < 32 && across * 8 <= width_of(k)) across *= 2;
    return across;
}
__device__ constexpr int widest() {
    int found = 0;
    for (int k = 0; k < HIDDEN; ++k) found = larger(found, width_of(k));
    return found;
}
__device__ constexpr int most_across() {
    int found = 0;
    for (int k = 0; k < HIDDEN; ++k) found = larger(found, across_of(k));
    return found;
}
__device__ constexpr int before_of(int k) { return k ? size_of(k) : 0; }
__device__ constexpr int near_of(int k) { return before_of(k) + (k + 1 < HIDDEN ? size_of(k + 2) : 0); }

constexpr int OUTPUTS = size_of(DEPTH), ALL_UNITS = first_unit(HIDDEN) + OUTPUTS, WIDEST = widest();
constexpr int FIRST = width_of(0), LAST = width_of(HIDDEN - 1);
constexpr int CURRENTS = whole_quads(WIDE * OUTPUTS);         // numbers that a block shares: up to WIDE for each output
constexpr int SHARED_SUMS = CURRENTS + whole_quads(OUTPUTS);  // and, after them, the sums of conductances there

// -- shared memory -----------------------------------------------------------------------------------------------------

__device__ inline REAL* in_shared(int place) {
    SHARED_MEMORY(shared)
    return (REAL*)shared + place;
}

// Numbers in shared memory, one after the other's end.
template <int START, int COUNT>
struct Place {
    static constexpr int end = START + whole_quads(COUNT);
    __device__ operator REAL*() const { return in_shared(START); }
};

__device__ constexpr int size_of_slabs(int k) {  // of all arrays of the hidden layers before k: slab, a, bias, lo, hi
    int size = 0;
    for (int before = 0; before < k; ++before) size += (near_of(before) + 4) * width_of(before);
    return size;
}

template <int K>
struct Layer {  // a hidden layer, and what a block owns of it
    static constexpr int units = size_of(K + 1), unit = first_unit(K);  // of the whole layer, and the number of its first
    static constexpr int width = width_of(K), across = across_of(K);
    static constexpr int before = before_of(K), near = near_of(K);  // rows of the slab: of the hidden layer before, and all
    static constexpr int unit_before = K ? first_unit(K ? K - 1 : 0) : 0, unit_after = first_unit(K + 1);
    Place<size_of_slabs(K), near * width> slab;
    Place<decltype(slab)::end, width> a;
    Place<decltype(a)::end, width> bias;
    Place<decltype(bias)::end, width> lo;
    Place<decltype(lo)::end, width> hi;
    int first, count;  // the block's own
    __device__ Layer() {
        first = (int)blockIdx.x * width < units ? (int)blockIdx.x * width : units;
        count = units - first < width ? units - first : width;
    }
    __device__ static int neighbour(int j) { return j + (j < before ? unit_before : unit_after - before); }  // of row j
};

template <int K>
struct Number {
    static constexpr int value = K;
};

// Calls body(Number<K>()) for the hidden layers K = FROM, FROM + STEP, ...
template <int FROM, int STEP, class Body>
__device__ inline void each_layer(const Body& body) {
    if constexpr (FROM < HIDDEN) {
        body(Number<FROM>());
        each_layer<FROM + STEP, STEP>(body);
    }
}

struct Net {  // all that the kernel is given, and what a block keeps of it
    const REAL *rates, *bias_rates, *g_min, *g_max;  // of each crossbar
    REAL unit_volts, beta1, beta2;
    REAL *g, *bias, *v, *free_state, *delta, *total, *volts, *partials, *tape_v, *tape_mu;
    const REAL *lo, *hi;
    unsigned* arrived;  // at barriers, by all blocks
    int* cut_off;       // the last unit without conductance, or -1
    int side;           // which half of `partials` has the last sums
    int newer;          // which half of both_x has the inputs of this step

    Place<size_of_slabs(HIDDEN), RESIDENT ? size_of(0) * FIRST : 0> inputs;
    Place<decltype(inputs)::end, OUTPUTS * LAST> out_slab;
    Place<decltype(out_slab)::end, 2 * FEATURES * BATCH> both_x;
    Place<decltype(both_x)::end, BATCH * FIRST> e;
    Place<decltype(e)::end, FIRST> c;
    Place<decltype(c)::end, (BATCH + 1) * FIRST> drive;
    Place<decltype(drive)::end, BOTH * WIDEST> sums;
    Place<decltype(sums)::end, BOTH * LAST> now;
    Place<decltype(now)::end, BATCH * WIDEST> mine_d;
    Place<decltype(mine_d)::end, BATCH * WIDEST> mine_t;
    Place<decltype(mine_t)::end, BOTH * OUTPUTS> y;
    Place<decltype(y)::end, WIDE * OUTPUTS> s_out;
    Place<decltype(s_out)::end, BATCH * OUTPUTS> t;
    Place<decltype(t)::end, OUTPUTS> a_out;
    Place<decltype(a_out)::end, OUTPUTS> bias_out;
    Place<decltype(bias_out)::end, OUTPUTS> lo_out;
    Place<decltype(lo_out)::end, OUTPUTS> hi_out;
    Place<decltype(hi_out)::end, WIDEST> a_part;
    static constexpr int OF_WARPS = WARPS * most_across() * (power_of_two(larger(4 * BOTH, 4 * BATCH + 4)) + 1);
    Place<decltype(a_part)::end, larger(OF_WARPS, 4 * THREADS)> scratch;
    // Back-propagation: of the own units of one layer, (time, unit, sample); of the outputs, (time, sample, output).
    Place<decltype(scratch)::end, BACK ? (SWEEPS + 1) * WIDEST * BATCH : 0> mine_v;
    Place<decltype(mine_v)::end, BACK ? SWEEPS * WIDEST * BATCH : 0> mine_mu;
    Place<decltype(mine_mu)::end, BACK ? (SWEEPS + 1) * OUTPUTS * BATCH : 0> y_v;
    Place<decltype(y_v)::end, BACK ? SWEEPS * OUTPUTS * BATCH : 0> y_mu;
    static constexpr int NUMBERS = decltype(y_mu)::end;  // in all; gpu_steps.py counts them too

    // -- where things are ----------------------------------------------------------------------------------------------

    __device__ REAL* x_new() const { return both_x + newer * FEATURES * BATCH; }
    __device__ REAL* x_old() const { return both_x + (1 - newer) * FEATURES * BATCH; }

    template <int K>
    __device__ REAL* own(const Layer<K>& l, int u) const {
        return volts + (l.unit + l.first + u) * STRIDE;
    }
    __device__ REAL* taped(REAL* tape, int time, int u) const { return tape + (time * ALL_UNITS + u) * TAPED; }
    // Row b (of `rows`) of a layer's block in an array of all layers, as the host keeps them.
    __device__ REAL* kept(REAL* array, int k, int rows, int b) const {
        return array + rows * first_unit(k) + b * size_of(k + 1);
    }
    __device__ REAL delta_of(const REAL* at, int b, int step) const {
        return PLAIN ? (at[b * step] - at[(BATCH + b) * step]) / (beta1 - beta2) : at[(BATCH + b) * step];
    }
    __device__ REAL total_of(const REAL* at, int b, int step) const {
        const REAL one = at[b * step], other = at[(BATCH + b) * step];
        return PLAIN ? one + other : fma(beta2 - beta1, other, one + one);
    }

    __device__ void load() {
        each_layer<0, 1>([&](auto which) {
            constexpr int k = decltype(which)::value;
            const Layer<k> l;
            for (int i = threadIdx.x; i < l.width; i += THREADS) {
                const bool mine = i < l.count;
                const int u = l.unit + l.first + i;
                l.bias[i] = mine ? bias[u] : 0;
                l.lo[i] = mine ? lo[u] : 0;
                l.hi[i] = mine ? hi[u] : 0;
            }
            for (int i = threadIdx.x; i < l.near * l.width; i += THREADS) {
                const int j = i / l.width, u = i % l.width;
                const int behind = l.first + u;  // the unit's column in crossbar k, and its row in crossbar k + 1
                l.slab[i] = u >= l.count   ? 0
                            : j < l.before ? g[first_entry(k) + j * l.units + behind]
                                           : g[first_entry(k + 1) + behind * size_of(k + 2) + j - l.before];
            }
            for (int i = threadIdx.x; i < BOTH * l.count; i += THREADS)
                own(l, i % l.count)[i / l.count] = kept(v, k, BOTH, i / l.count)[l.first + i % l.count];
        });
        const Layer<0> front;
        const Layer<HIDDEN - 1> rear;
        if (RESIDENT)
            for (int i = threadIdx.x; i < size_of(0) * front.width; i += THREADS) {
                const int u = i % front.width;
                inputs[i] = u < front.count ? g[i / front.width * front.units + front.first + u] : 0;
            }
        for (int i = threadIdx.x; i < OUTPUTS * rear.width; i += THREADS) {
            const int o = i / rear.width, u = i % rear.width;
            out_slab[i] = u < rear.count ? g[first_entry(HIDDEN) + o * rear.units + rear.first + u] : 0;
        }
        for (int i = threadIdx.x; i < BOTH * OUTPUTS; i += THREADS) y[i] = kept(v, HIDDEN, BOTH, 0)[i];
        for (int o = threadIdx.x; o < OUTPUTS; o += THREADS) {
            bias_out[o] = bias[first_unit(HIDDEN) + o];
            lo_out[o] = lo[first_unit(HIDDEN) + o];
            hi_out[o] = hi[first_unit(HIDDEN) + o];
        }
        for (int i = threadIdx.x; i < 2 * FEATURES * BATCH; i += THREADS) both_x[i] = 0;
        for (int i = threadIdx.x; i < BOTH * LAST; i += THREADS) now[i] = 0;  // beyond the block's own units, for good
        __syncthreads();
    }

    __device__ void store() {
        __syncthreads();
        each_layer<0, 1>([&](auto which) {
            constexpr int k = decltype(which)::value;
            const Layer<k> l;
            for (int i = threadIdx.x; i < l.before * l.width; i += THREADS)
                if (i % l.width < l.count) g[first_entry(k) + i / l.width * l.units + l.first + i % l.width] = l.slab[i];
            for (int u = threadIdx.x; u < l.count; u += THREADS) bias[l.unit + l.first + u] = l.bias[u];
            for (int i = threadIdx.x; i < BOTH * l.count; i += THREADS)
                kept(v, k, BOTH, i / l.count)[l.first + i % l.count] = own(l, i % l.count)[i / l.count];
            for (int i = threadIdx.x; !BACK && i < BATCH * l.count; i += THREADS) {
                const int b = i / l.count, u = i % l.count;
                kept(delta, k, BATCH, b)[l.first + u] = delta_of(own(l, u), b, 1);
                kept(total, k, BATCH, b)[l.first + u] = total_of(own(l, u), b, 1);
            }
        });
        const Layer<0> front;
        const Layer<HIDDEN - 1> rear;
        if (RESIDENT)
            for (int i = threadIdx.x; i < size_of(0) * front.width; i += THREADS)
                if (i % front.width < front.count)
                    g[i / front.width * front.units + front.first + i % front.width] = inputs[i];
        for (int i = threadIdx.x; i < OUTPUTS * rear.width; i += THREADS)
            if (i % rear.width < rear.count)
                g[first_entry(HIDDEN) + i / rear.width * rear.units + rear.first + i % rear.width] = out_slab[i];
        if (blockIdx.x) return;
        for (int i = threadIdx.x; i < BOTH * OUTPUTS; i += THREADS) kept(v, HIDDEN, BOTH, 0)[i] = y[i];
        for (int i = threadIdx.x; !BACK && i < BATCH * OUTPUTS; i += THREADS) {
            const int b = i / OUTPUTS, o = i % OUTPUTS;
            kept(delta, HIDDEN, BATCH, b)[o] = delta_of(y + o, b, OUTPUTS);
            kept(total, HIDDEN, BATCH, b)[o] = total_of(y + o, b, OUTPUTS);
        }
        for (int o = threadIdx.x; o < OUTPUTS; o += THREADS) bias[first_unit(HIDDEN) + o] = bias_out[o];
    }
};
