// Steps of equilibrium propagation on a layered netlist: many in one launch, everything they need within the GPU.
// Twin: layers.py, whose equations these are; kernels.py is the CPU's arrangement of them.
//
// - Each block owns some units of every hidden layer, and keeps in its shared memory a `slab` of the conductances that
//   join them to the hidden layers before and after: (neighbours, own units). A conductance between two hidden layers is
//   kept by the owners of both its ends, and both make the same update of it, bit by bit.
// - The outputs are few and nobody's: each block sums up its own units' currents into them, and all blocks add up these
//   sums in the same order, so that each has the output voltages. So one hidden layer needs one barrier a sweep.
// - The input crossbar is kept in shared memory as well where it fits (`resident`); else it passes through once a step:
//   update, clip, column sums and the next drive while a row is in registers. What leads into the inputs' voltages is
//   known, so nothing else reads it.
// - Voltages are in `volts` (unit, STRIDE): rows 0 .. B-1 the state v1, rows B .. 2B-1 delta (or v2 in the plain form).
// - The update of a step is left pending and joins the next step's pass over the conductances.
//
// - Back-propagation takes as many sweeps more in the place of the nudged phases and keeps every voltage (`tape_v`); then
//   the adjoints mu of all these exact steps (`tape_mu`) settle backwards, by the same sums over neighbours.
//
// To be compiled with REAL (float, double), FEATURE (a type), BATCH (samples of a step), THREADS (of a block, a multiple
// of 32), MODE (0: the nudged phases in difference form; 1: v1 and v2; 2: back-propagation). Launched cooperatively:
// blocks wait for each other. Every argument is a pointer or a long long.

typedef long long integer;

#ifndef SHARED_MEMORY
#define SHARED_MEMORY(name) extern __shared__ __align__(32) unsigned char name[];
#endif
#define WARPS (THREADS / 32)
#define BOTH (2 * BATCH)
#define STRIDE ((BOTH + 3) / 4 * 4)
#define TAPED ((BATCH + 3) / 4 * 4)  // of a unit's voltages, or adjoints, on a tape
#define PLAIN (MODE == 1)
#define BACK (MODE == 2)

#define LAYER_BYTES 96

enum { OK, NOT_CONVEX, NOT_FINITE, CUT_OFF, WRONG_PLAN };  // those of kernels.py, and a defect of gpu_steps.py

struct alignas(4 * sizeof(REAL)) Quad {
    REAL at[4];
};

struct Layer {              // a hidden one; what a block owns of it
    int units, unit;        // of the whole layer, and the number of its first
    int first, count;       // the block's own
    int width, across;      // columns of the slab, a multiple of 4; lanes of a warp side by side in a row of it
    int before, near;       // rows of the slab: those of the hidden layer before, and all
    int unit_before, unit_after;
    REAL *slab, *a, *bias, *lo, *hi;
};

static_assert(sizeof(Layer) <= LAYER_BYTES, "gpu_steps.py counts LAYER_BYTES for each");

__device__ constexpr int power_of_two(int n) {
    int power = 1;
    while (power < n) power *= 2;
    return power;
}

__device__ inline REAL within(REAL x, REAL low, REAL high) {  // NaN stays
    x = x < low ? low : x;
    return x > high ? high : x;
}

__device__ inline REAL clipped(REAL g) { return g < 0 ? (REAL)0 : g; }  // NaN stays, for `measure` to see

// Four numbers that another block may have written: past this multiprocessor's own cache.
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

__device__ inline REAL warp_sum(REAL x) {
    for (int offset = 16; offset > 0; offset /= 2) x += whole_warp(x, offset);
    return x;
}

// Sums of N numbers over the lanes that differ in the bits from 16 down to `across`, into slot: each step halves what a
// lane is left with, so that N numbers take N exchanges, not 5 N.
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

// All blocks wait for each other; `arrived` counts them, from 0 on.
__device__ inline void meet(unsigned* arrived) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        const unsigned ticket = atomicAdd(arrived, 1u);
        const unsigned goal = (ticket / gridDim.x + 1) * gridDim.x;
        while (*(volatile unsigned*)arrived < goal) __nanosleep(20);
        __threadfence();
    }
    __syncthreads();
}

struct Net {
    int depth, hidden, sweeps, features, resident, outputs;
    const integer *n, *unit, *where, *widths;
    const REAL *rates, *bias_rates;
    REAL unit_volts, beta1, beta2;
    REAL *g, *bias, *v, *free_state, *delta, *total, *volts, *partials, *tape_v, *tape_mu;
    const REAL *lo, *hi;
    unsigned* arrived;  // at barriers, by all blocks
    int* cut_off;       // the last unit without conductance, or -1
    int side;           // of the two halves of `partials`: where the last sums are
    int all_units;      // of all layers: a time of a tape has TAPED numbers for each

    Layer* layers;
    REAL *inputs, *out_slab, *x_old, *x_new, *e, *c, *drive, *sums, *now, *mine_d, *mine_t, *y, *s_out, *t, *a_out,
        *bias_out, *lo_out, *hi_out, *a_part, *scratch, *mine_v, *mine_mu, *y_v, *y_mu;

    // -- where things are ----------------------------------------------------------------------------------------------

    // Lays out shared memory; the numbers that it takes. gpu_steps.py counts them too.
    __device__ integer lay_out(unsigned char* shared) {
        layers = (Layer*)shared;
        REAL* next = (REAL*)(shared + hidden * LAYER_BYTES);
        REAL* const start = next;
        auto take = [&](integer size) {
            REAL* taken = next;
            next += (size + 3) / 4 * 4;
            return taken;
        };
        int widest = 0, most_across = 1;
        outputs = n[depth];
        for (int k = 0; k < hidden; ++k) {
            Layer l;
            l.units = n[k + 1];
            l.unit = unit[k];
            l.width = widths[k];
            l.first = (int)blockIdx.x * l.width < l.units ? (int)blockIdx.x * l.width : l.units;
            l.count = l.units - l.first < l.width ? l.units - l.first : l.width;
            l.across = 1;
            while (l.across < 32 && l.across * 8 <= l.width) l.across *= 2;
            l.before = k ? n[k] : 0;
            l.near = l.before + (k + 1 < hidden ? n[k + 2] : 0);
            l.unit_before = k ? unit[k - 1] : 0;
            l.unit_after = unit[k + 1];
            l.slab = take(l.near * l.width);
            l.a = take(l.width);
            l.bias = take(l.width);
            l.lo = take(l.width);
            l.hi = take(l.width);
            widest = l.width > widest ? l.width : widest;
            most_across = l.across > most_across ? l.across : most_across;
            if (threadIdx.x == 0) layers[k] = l;
        }
        const int first = (int)widths[0], last = widths[hidden - 1];
        inputs = take(resident ? n[0] * first : 0);
        out_slab = take(outputs * last);
        x_old = take(features * BATCH);
        x_new = take(features * BATCH);
        e = take(BATCH * first);
        c = take(first);
        drive = take((BATCH + 1) * first);
        sums = take(BOTH * widest);
        now = take(BOTH * last);
        mine_d = take(BATCH * widest);
        mine_t = take(BATCH * widest);
        y = take(BOTH * outputs);
        s_out = take((BOTH + 1) * outputs);
        t = take(BATCH * outputs);
        a_out = take(outputs);
        bias_out = take(outputs);
        lo_out = take(outputs);
        hi_out = take(outputs);
        a_part = take(widest);
        scratch = take(WARPS * most_across * (power_of_two(4 * BOTH > 4 * BATCH + 4 ? 4 * BOTH : 4 * BATCH + 4) + 1));
        if (BACK) {  // of the own units of one layer, and of the outputs: (time, unit, sample)
            mine_v = take((sweeps + 1) * widest * BATCH);
            mine_mu = take(sweeps * widest * BATCH);
            y_v = take((sweeps + 1) * outputs * BATCH);
            y_mu = take(sweeps * outputs * BATCH);
        }
        return next - start;
    }

    __device__ REAL* own(const Layer& l, int u) const { return volts + (l.unit + l.first + u) * STRIDE; }
    __device__ int near(const Layer& l, int j) const {  // the unit that row j of a slab stands for
        return j + (j < l.before ? l.unit_before : l.unit_after - l.before);
    }
    __device__ REAL* taped(REAL* tape, int time, int u) const { return tape + (time * all_units + u) * TAPED; }
    // Row b (of `rows`) of a layer's block in an array of all layers, as the host keeps them.
    __device__ REAL* kept(REAL* array, int k, int rows, int b) const {
        return array + rows * unit[k] + b * n[k + 1];
    }
    __device__ REAL delta_of(const REAL* at, int b, int step) const {
        return PLAIN ? (at[b * step] - at[(BATCH + b) * step]) / (beta1 - beta2) : at[(BATCH + b) * step];
    }
    __device__ REAL total_of(const REAL* at, int b, int step) const {
        const REAL one = at[b * step], other = at[(BATCH + b) * step];
        return PLAIN ? one + other : fma(beta2 - beta1, other, one + one);
    }

    __device__ void load() {
        for (int k = 0; k < hidden; ++k) {
            const Layer& l = layers[k];
            for (int i = threadIdx.x; i < l.width; i += THREADS) {
                const bool mine = i < l.count;
                const int u = l.unit + l.first + i;
                l.bias[i] = mine ? bias[u] : 0;
                l.lo[i] = mine ? lo[u] : 0;
                l.hi[i] = mine ? hi[u] : 0;
            }
            for (int i = threadIdx.x; i < l.near * l.width; i += THREADS) {
                const int j = i / l.width, u = i % l.width;
                const int behind = l.first + u;  // its column before, its row after
                l.slab[i] = u >= l.count      ? 0
                            : j < l.before ? g[where[k] + j * l.units + behind]
                                           : g[where[k + 1] + behind * n[k + 2] + j - l.before];
            }
            for (int i = threadIdx.x; i < BOTH * l.count; i += THREADS)
                own(l, i % l.count)[i / l.count] = kept(v, k, BOTH, i / l.count)[l.first + i % l.count];
        }
        const Layer &front = layers[0], &rear = layers[hidden - 1];
        if (resident)
            for (int i = threadIdx.x; i < n[0] * front.width; i += THREADS) {
                const int u = i % front.width;
                inputs[i] = u < front.count ? g[where[0] + i / front.width * front.units + front.first + u] : 0;
            }
        for (int i = threadIdx.x; i < outputs * rear.width; i += THREADS) {
            const int o = i / rear.width, u = i % rear.width;
            out_slab[i] = u < rear.count ? g[where[hidden] + o * rear.units + rear.first + u] : 0;
        }
        for (int i = threadIdx.x; i < BOTH * outputs; i += THREADS) y[i] = kept(v, hidden, BOTH, 0)[i];
        for (int o = threadIdx.x; o < outputs; o += THREADS) {
            bias_out[o] = bias[unit[hidden] + o];
            lo_out[o] = lo[unit[hidden] + o];
            hi_out[o] = hi[unit[hidden] + o];
        }
        for (int i = threadIdx.x; i < features * BATCH; i += THREADS) x_old[i] = x_new[i] = 0;
        __syncthreads();
    }

    __device__ void store() {
        __syncthreads();
        for (int k = 0; k < hidden; ++k) {
            const Layer& l = layers[k];
            for (int i = threadIdx.x; i < l.before * l.width; i += THREADS)
                if (i % l.width < l.count) g[where[k] + i / l.width * l.units + l.first + i % l.width] = l.slab[i];
            for (int u = threadIdx.x; u < l.count; u += THREADS) bias[l.unit + l.first + u] = l.bias[u];
            for (int i = threadIdx.x; i < BOTH * l.count; i += THREADS)
                kept(v, k, BOTH, i / l.count)[l.first + i % l.count] = own(l, i % l.count)[i / l.count];
            for (int i = threadIdx.x; !BACK && i < BATCH * l.count; i += THREADS) {
                const int b = i / l.count, u = i % l.count;
                kept(delta, k, BATCH, b)[l.first + u] = delta_of(own(l, u), b, 1);
                kept(total, k, BATCH, b)[l.first + u] = total_of(own(l, u), b, 1);
            }
        }
        const Layer &front = layers[0], &rear = layers[hidden - 1];
        if (resident)
            for (int i = threadIdx.x; i < n[0] * front.width; i += THREADS)
                if (i % front.width < front.count)
                    g[where[0] + i / front.width * front.units + front.first + i % front.width] = inputs[i];
        for (int i = threadIdx.x; i < outputs * rear.width; i += THREADS)
            if (i % rear.width < rear.count)
                g[where[hidden] + i / rear.width * rear.units + rear.first + i % rear.width] = out_slab[i];
        if (blockIdx.x) return;
        for (int i = threadIdx.x; i < BOTH * outputs; i += THREADS) kept(v, hidden, BOTH, 0)[i] = y[i];
        for (int i = threadIdx.x; !BACK && i < BATCH * outputs; i += THREADS) {
            const int b = i / outputs, o = i % outputs;
            kept(delta, hidden, BATCH, b)[o] = delta_of(y + o, b, outputs);
            kept(total, hidden, BATCH, b)[o] = total_of(y + o, b, outputs);
        }
        for (int o = threadIdx.x; o < outputs; o += THREADS) bias[unit[hidden] + o] = bias_out[o];
    }

    // -- all blocks ----------------------------------------------------------------------------------------------------

    __device__ void barrier() const { meet(arrived); }

    // This block's part of the currents into the outputs, from the own units' voltages `now`.
    template <int ROWS>
    __device__ void share() {
        const Layer& l = layers[hidden - 1];
        side ^= 1;
        for (int pair = threadIdx.x / 32; pair < outputs * ROWS; pair += WARPS) {
            const int r = pair / outputs, o = pair % outputs;
            REAL sum = 0;
            for (int u = threadIdx.x % 32; u < l.count; u += 32) sum += out_slab[o * l.width + u] * now[r * l.width + u];
            sum = warp_sum(sum);
            if (threadIdx.x % 32 == 0) part(pair)[blockIdx.x] = sum;
        }
    }

    // This block's part of the sums of conductances at the outputs; goes with the last share.
    __device__ void share_conductances() {
        const Layer& l = layers[hidden - 1];
        for (int o = threadIdx.x / 32; o < outputs; o += WARPS) {
            REAL sum = 0;
            for (int u = threadIdx.x % 32; u < l.count; u += 32) sum += out_slab[o * l.width + u];
            sum = warp_sum(sum);
            if (threadIdx.x % 32 == 0) part(BOTH * outputs + o)[blockIdx.x] = sum;
        }
    }

    __device__ REAL* part(int of) const {
        return partials + (side * (BOTH + 1) * outputs + of) * gridDim.x;
    }

    // What all blocks have shared, first:stop of it, into `sum`.
    __device__ void collect(int first, int stop, REAL* sum) const {
        constexpr int AHEAD = 4;
        for (int pair = first + threadIdx.x / 32; pair < stop; pair += AHEAD * WARPS) {
            REAL found[AHEAD] = {};
            for (int k = threadIdx.x % 32; k < (int)gridDim.x; k += 32)
#pragma unroll
                for (int i = 0; i < AHEAD; ++i)
                    if (pair + i * WARPS < stop) found[i] += __ldcg(part(pair + i * WARPS) + k);
#pragma unroll
            for (int i = 0; i < AHEAD; ++i) {
                found[i] = warp_sum(found[i]);
                if (threadIdx.x % 32 == 0 && pair + i * WARPS < stop) sum[pair + i * WARPS - first] = found[i];
            }
        }
        __syncthreads();
    }

    __device__ void recall(int rows) {  // the voltages of the own units of the last hidden layer
        const Layer& l = layers[hidden - 1];
        for (int i = threadIdx.x; i < rows * l.count; i += THREADS) {
            const int u = i / rows, r = i % rows;
            now[r * l.width + u] = own(l, u)[r];
        }
        __syncthreads();
    }

    // -- sums over neighbours ------------------------------------------------------------------------------------------

    // The sums of `part` over the rows that the threads have been through, for the quads of columns of a group.
    template <int SIZE, int N>
    __device__ void sum_rows(const REAL (&part)[N], int group, int across, int quads, REAL* out) const {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        sum_lanes<N>(part, 16, across, scratch + (warp * across + lane % across) * (N + 1));
        __syncthreads();
        for (int i = threadIdx.x; i < across * SIZE; i += THREADS) {
            if (group + i / SIZE >= quads) continue;
            REAL sum = 0;
            for (int w = 0; w < WARPS; ++w) sum += scratch[(w * across + i / SIZE) * (N + 1) + i % SIZE];
            out[(group + i / SIZE) * SIZE + i % SIZE] = sum;
        }
        __syncthreads();
    }

    // sums[u * ROWS + r] = sum over the neighbours j of slab[j, u] field[j, r]; the field has `stride` numbers a unit.
    template <int ROWS>
    __device__ void product(const Layer& kept_there, const REAL* field, int stride) const {
        const Layer l = kept_there;
        constexpr int SIZE = 4 * ROWS, N = power_of_two(SIZE), QUADS = (ROWS + 3) / 4, AHEAD = ROWS > 4 ? 2 : 4;
        const int quads = l.width / 4, down = 32 / l.across;
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        for (int group = 0; group < quads; group += l.across) {
            const int quad = group + lane % l.across;
            REAL sum[N] = {};
            const int step = down * WARPS, rows = quad < quads ? l.near : 0;
            for (int first = warp * down + lane / l.across; first < rows; first += AHEAD * step) {
                Quad of[AHEAD];
                REAL x[AHEAD][4 * QUADS];
#pragma unroll
                for (int k = 0; k < AHEAD; ++k) {  // all on their way before the first is needed
                    const int j = first + k * step < rows ? first + k * step : first;
                    of[k] = *(const Quad*)(l.slab + j * l.width + 4 * quad);
#pragma unroll
                    for (int q = 0; q < QUADS; ++q) spread(fetched(field + near(l, j) * stride + 4 * q), x[k] + 4 * q);
                }
#pragma unroll
                for (int k = 0; k < AHEAD; ++k)
                    if (first + k * step < rows)
#pragma unroll
                        for (int column = 0; column < 4; ++column)
#pragma unroll
                            for (int r = 0; r < ROWS; ++r) sum[column * ROWS + r] += of[k].at[column] * x[k][r];
            }
            sum_rows<SIZE>(sum, group, l.across, quads, sums);
        }
    }

    // -- settling ------------------------------------------------------------------------------------------------------

    // The exact step of a unit with currents s1, and s2 of the field delta (or of v2); an output is nudged by b1 and b2.
    template <bool NUDGED, bool OUTPUT>
    __device__ void exact_step(REAL s1, REAL s2, REAL a, REAL low, REAL high, REAL target, REAL b1, REAL b2, REAL* v1,
                               REAL* other) const {
        const REAL p1 = (s1 + b1 * target) / (a + b1);
        *v1 = within(p1, low, high);
        if (!NUDGED) return;
        if (PLAIN) {
            *other = within((s2 + b2 * target) / (a + b2), low, high);
            return;
        }
        REAL dp = s2 / (a + b2);
        if (OUTPUT) dp += (a * target - s1) / ((a + b1) * (a + b2));
        const REAL gap = beta1 - beta2, p2 = p1 - gap * dp, v2 = within(p2, low, high);
        *other = *v1 == p1 && v2 == p2 ? dp : gap != 0 ? (*v1 - v2) / gap : (REAL)0;
    }

    template <bool NUDGED>
    __device__ void settle(int k, int time) {
        constexpr int ROWS = NUDGED ? BOTH : BATCH;
        const Layer& l = layers[k];
        const bool last = k == hidden - 1;
        for (int i = threadIdx.x; i < l.count * BATCH; i += THREADS) {
            const int u = i / BATCH, b = i % BATCH;
            REAL s1 = l.bias[u] + (k ? (REAL)0 : drive[u * (BATCH + 1) + b]), s2 = PLAIN ? s1 : (REAL)0;
            if (l.near) {
                s1 += sums[u * ROWS + b];
                if (NUDGED) s2 += sums[u * ROWS + BATCH + b];
            }
            if (last)
                for (int o = 0; o < outputs; ++o) {
                    s1 += out_slab[o * l.width + u] * y[b * outputs + o];
                    if (NUDGED) s2 += out_slab[o * l.width + u] * y[(BATCH + b) * outputs + o];
                }
            REAL v1, other;
            exact_step<NUDGED, false>(s1, s2, l.a[u], l.lo[u], l.hi[u], 0, 0, 0, &v1, &other);
            own(l, u)[b] = v1;
            if (BACK && time) taped(tape_v, time, l.unit + l.first + u)[b] = v1;
            if (NUDGED) own(l, u)[BATCH + b] = other;
            if (last) {
                now[b * l.width + u] = v1;
                if (NUDGED) now[(BATCH + b) * l.width + u] = other;
            }
        }
        __syncthreads();
    }

    template <bool NUDGED>
    __device__ void settle_outputs(int time) {
        collect(0, (NUDGED ? BOTH : BATCH) * outputs, s_out);
        for (int i = threadIdx.x; i < BATCH * outputs; i += THREADS) {
            const int o = i % outputs;
            const REAL s1 = bias_out[o] + s_out[i];
            const REAL s2 = NUDGED ? s_out[BATCH * outputs + i] + (PLAIN ? bias_out[o] : (REAL)0) : (REAL)0;
            exact_step<NUDGED, NUDGED>(s1, s2, a_out[o], lo_out[o], hi_out[o], t[i], NUDGED ? beta1 : (REAL)0,
                                       NUDGED ? beta2 : (REAL)0, y + i, y + BATCH * outputs + i);
            if (BACK && time) y_v[time * BATCH * outputs + i] = y[i];
        }
        __syncthreads();
    }

    // The layers 0, 2, ... or 1, 3, ... at once; what they come to is the tapes' at `time`, when that is not 0.
    template <bool NUDGED>
    __device__ void half_sweep(int parity, int time = 0) {
        constexpr int ROWS = NUDGED ? BOTH : BATCH;
        for (int k = parity; k < hidden; k += 2) {
            if (layers[k].near) product<ROWS>(layers[k], volts, STRIDE);
            settle<NUDGED>(k, time);
            if (k == hidden - 1) share<ROWS>();
        }
        if (hidden % 2 == parity) settle_outputs<NUDGED>(time);
        if (parity < hidden) barrier();
    }

    // -- back-propagation ----------------------------------------------------------------------------------------------

    // What a layer does at a time of the tapes (1 .. sweeps), and its neighbours did before: odd layers come after even.
    __device__ int before(int k, int time) const { return k % 2 ? time : time - 1; }

    __device__ void begin_tape() {  // time 0: the free state
        for (int k = 0; k < hidden; ++k) {
            const Layer& l = layers[k];
            for (int i = threadIdx.x; i < BATCH * l.count; i += THREADS)
                taped(tape_v, 0, l.unit + l.first + i / BATCH)[i % BATCH] = own(l, i / BATCH)[i % BATCH];
        }
        for (int i = threadIdx.x; i < BATCH * outputs; i += THREADS) y_v[i] = y[i];
        __syncthreads();
    }

    // The layers of a parity, backwards: mu = lambda / a inside the bounds, with lambda the sum of the neighbours' mu
    // times conductances; tape_mu has time t at t - 1. The neighbours' are those of this time for even layers, of the
    // next one for odd layers.
    __device__ void half_back(int parity, int time) {
        const int from = parity ? time + 1 : time;
        const bool some = from <= sweeps;
        for (int k = parity; k < hidden; k += 2) {
            const Layer& l = layers[k];
            const bool last = k == hidden - 1;
            if (l.near && some) product<BATCH>(l, taped(tape_mu, from - 1, 0), TAPED);
            for (int i = threadIdx.x; i < l.count * BATCH; i += THREADS) {
                const int u = i / BATCH, b = i % BATCH, unit_of = l.unit + l.first + u;
                REAL lambda = l.near && some ? sums[i] : (REAL)0;
                for (int o = 0; last && some && o < outputs; ++o)
                    lambda += out_slab[o * l.width + u] * y_mu[((from - 1) * BATCH + b) * outputs + o];
                const REAL at = taped(tape_v, time, unit_of)[b];
                const REAL mu = at > l.lo[u] && at < l.hi[u] ? lambda / l.a[u] : (REAL)0;
                taped(tape_mu, time - 1, unit_of)[b] = mu;
                if (last) now[b * l.width + u] = mu;
            }
            __syncthreads();
            if (last) share<BATCH>();
        }
        if (hidden % 2 == parity) {
            const bool shared = parity == 0 || time < sweeps;  // something, since the backward sweeps began
            if (shared) collect(0, BATCH * outputs, s_out);
            for (int i = threadIdx.x; i < BATCH * outputs; i += THREADS) {
                const int o = i % outputs, at = time * BATCH * outputs + i;
                const REAL lambda = (shared ? s_out[i] : (REAL)0) + (time == sweeps ? y[i] - t[i] : (REAL)0);
                const bool inside = y_v[at] > lo_out[o] && y_v[at] < hi_out[o];
                y_mu[at - BATCH * outputs] = inside ? lambda / a_out[o] : (REAL)0;
            }
            __syncthreads();
        }
        if (parity < hidden) barrier();
    }

    // The own units of a layer, from the tapes into shared memory.
    __device__ void recall_tapes(const Layer& l) {
        for (int i = threadIdx.x; i < (sweeps + 1) * l.count * BATCH; i += THREADS) {
            const int time = i / (l.count * BATCH), u = i / BATCH % l.count, b = i % BATCH;
            const int to = (time * l.width + u) * BATCH + b;
            mine_v[to] = taped(tape_v, time, l.unit + l.first + u)[b];
            if (time < sweeps) mine_mu[to] = taped(tape_mu, time, l.unit + l.first + u)[b];
        }
        __syncthreads();
    }

    // The slope of the cost by a conductance, from the voltages and adjoints of its ends at one time: at the exact step of
    // the lower layer, then at that of the upper one. Both owners of a conductance come to the same bits.
    __device__ REAL add_slope(REAL slope, REAL mu_low, REAL seen_by_low, REAL v_low, REAL mu_high, REAL seen_by_high,
                              REAL v_high) const {
        return fma(mu_high, seen_by_high - v_high, fma(mu_low, seen_by_low - v_low, slope));
    }

    // -- the update of a step, and the sums of the next ----------------------------------------------------------------

    // The input crossbar: g <- max(0, g - c + x_old e); its column sums; drive = x_new g. See kernels._input_columns.
    __device__ void pass_inputs(bool pending) {
        constexpr int SIZE = 4 * (BATCH + 1), N = power_of_two(SIZE);
        const Layer& l = layers[0];
        const bool mirrored = n[0] == 2 * features;
        REAL* const matrix = resident ? inputs : g + where[0] + l.first;
        const int columns = resident ? l.width : l.units;
        const int quads = l.width / 4, down = 32 / l.across, filled = resident ? quads : (l.count + 3) / 4;
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        for (int group = 0; group < quads; group += l.across) {
            const int quad = group + lane % l.across;
            REAL sum[N] = {};
            if (quad < filled) {
                const Quad fall = *(const Quad*)(c + 4 * quad);
                const int first = warp * down + lane / l.across, step = down * WARPS;
                Quad p = {}, q = {};
                if (first < features) {
                    p = *(const Quad*)(matrix + first * columns + 4 * quad);
                    if (mirrored) q = *(const Quad*)(matrix + (features + first) * columns + 4 * quad);
                }
                for (int i = first; i < features; i += step) {
                    Quad next_p = {}, next_q = {};  // on their way while these are at work
                    if (i + step < features) {
                        next_p = *(const Quad*)(matrix + (i + step) * columns + 4 * quad);
                        if (mirrored) next_q = *(const Quad*)(matrix + (features + i + step) * columns + 4 * quad);
                    }
                    const REAL *old = x_old + i * BATCH, *lit = x_new + i * BATCH;
                    if (pending) {
                        Quad slope = {};
#pragma unroll
                        for (int b = 0; b < BATCH; ++b)
                            if (old[b] != 0) {
                                const Quad turn = *(const Quad*)(e + b * l.width + 4 * quad);
#pragma unroll
                                for (int column = 0; column < 4; ++column) slope.at[column] += old[b] * turn.at[column];
                            }
#pragma unroll
                        for (int column = 0; column < 4; ++column) {
                            const REAL one = p.at[column] - fall.at[column] + slope.at[column];
                            p.at[column] = clipped(one);
                            const REAL two = q.at[column] - fall.at[column] - slope.at[column];
                            q.at[column] = mirrored ? clipped(two) : (REAL)0;
                        }
                        *(Quad*)(matrix + i * columns + 4 * quad) = p;
                        if (mirrored) *(Quad*)(matrix + (features + i) * columns + 4 * quad) = q;
                    }
#pragma unroll
                    for (int column = 0; column < 4; ++column) {
                        const REAL both = p.at[column] - q.at[column];
                        sum[column * (BATCH + 1) + BATCH] += p.at[column] + q.at[column];
#pragma unroll
                        for (int b = 0; b < BATCH; ++b) sum[column * (BATCH + 1) + b] += lit[b] * both;
                    }
                    p = next_p;
                    q = next_q;
                }
            }
            sum_rows<SIZE>(sum, group, l.across, quads, drive);
        }
    }

    // What one time of the tapes adds to the slopes of row j of a slab, in a quad of columns.
    __device__ void add_slopes(int k, int time, int j, int quad, REAL* slope) const {
        const Layer& l = layers[k];
        const int of_near = near(l, j), seen_here = before(k, time), seen_there = before(k + 1, time);
#pragma unroll
        for (int q = 0; q < TAPED / 4; ++q) {
            const Quad seen = fetched(taped(tape_v, seen_here, of_near) + 4 * q);
            const Quad theirs = fetched(taped(tape_v, time, of_near) + 4 * q);
            const Quad mu = fetched(taped(tape_mu, time - 1, of_near) + 4 * q);
#pragma unroll
            for (int column = 0; column < 4; ++column)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int b = 4 * q + i, at = (4 * quad + column) * BATCH + b, times = l.width * BATCH;
                    if (b >= BATCH || 4 * quad + column >= l.count) continue;
                    const REAL my_v = mine_v[time * times + at], my_mu = mine_mu[(time - 1) * times + at];
                    const REAL my_seen = mine_v[seen_there * times + at];
                    slope[column] = j < l.before
                        ? add_slope(slope[column], mu.at[i], my_seen, theirs.at[i], my_mu, seen.at[i], my_v)
                        : add_slope(slope[column], my_mu, seen.at[i], my_v, mu.at[i], my_seen, theirs.at[i]);
                }
        }
    }

    // The slab of a layer: g <- max(0, g - factor sum_b (d_j - d_u) (t_j - t_u)); its column sums into a_part.
    __device__ void pass_slab(int k, bool pending) {
        const Layer& l = layers[k];
        const int quads = l.width / 4, down = 32 / l.across;
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const REAL scale = (REAL)(1.0 / BATCH), factor_before = (REAL)0.5 * rates[k] * scale;
        const REAL factor_after = (REAL)0.5 * rates[k + 1] * scale;
        for (int group = 0; group < quads; group += l.across) {
            const int quad = group + lane % l.across;
            REAL sum[4] = {};
            if (quad < quads)
                for (int j = warp * down + lane / l.across; j < l.near; j += down * WARPS) {
                    Quad* const at = (Quad*)(l.slab + j * l.width + 4 * quad);
                    Quad of = *at;
                    if (pending && BACK) {
                        const REAL factor = 2 * (j < l.before ? factor_before : factor_after);
                        REAL slope[4] = {};
                        for (int time = 1; time <= sweeps; ++time) add_slopes(k, time, j, quad, slope);
#pragma unroll
                        for (int column = 0; column < 4; ++column) {
                            const REAL value = fma(-factor, slope[column], of.at[column]);
                            of.at[column] = 4 * quad + column < l.count ? clipped(value) : (REAL)0;
                        }
                        *at = of;
                    } else if (pending) {
                        REAL other[STRIDE];
#pragma unroll
                        for (int q = 0; q < STRIDE / 4; ++q)
                            spread(fetched(volts + near(l, j) * STRIDE + 4 * q), other + 4 * q);
                        const REAL factor = j < l.before ? factor_before : factor_after;
#pragma unroll
                        for (int column = 0; column < 4; ++column) {
                            const REAL* const d = mine_d + (4 * quad + column) * BATCH;
                            const REAL* const both = mine_t + (4 * quad + column) * BATCH;
                            REAL slope = 0;
#pragma unroll
                            for (int b = 0; b < BATCH; ++b)
                                slope = fma(delta_of(other, b, 1) - d[b], total_of(other, b, 1) - both[b], slope);
                            const REAL value = fma(-factor, slope, of.at[column]);
                            of.at[column] = 4 * quad + column < l.count ? clipped(value) : (REAL)0;
                        }
                        *at = of;
                    }
#pragma unroll
                    for (int column = 0; column < 4; ++column) sum[column] += of.at[column];
                }
            sum_rows<4>(sum, group, l.across, quads, a_part);
        }
    }

    __device__ void pass_outputs(bool pending) {
        const Layer& l = layers[hidden - 1];
        const REAL factor = (REAL)0.5 * rates[hidden] * (REAL)(1.0 / BATCH);
        for (int i = threadIdx.x; pending && i < outputs * l.width; i += THREADS) {
            const int o = i / l.width, u = i % l.width;
            if (u >= l.count) continue;
            REAL slope = 0;
            if (BACK) {
                for (int time = 1; time <= sweeps; ++time)
                    for (int b = 0; b < BATCH; ++b) {
                        const int at = u * BATCH + b, times = l.width * BATCH;
                        const REAL* const theirs = y_v + b * outputs + o;
                        slope = add_slope(
                            slope, mine_mu[(time - 1) * times + at], theirs[before(hidden - 1, time) * BATCH * outputs],
                            mine_v[time * times + at], y_mu[((time - 1) * BATCH + b) * outputs + o],
                            mine_v[before(hidden, time) * times + at], theirs[time * BATCH * outputs]);
                    }
                slope *= 2;
            } else {
                for (int b = 0; b < BATCH; ++b)
                    slope = fma(delta_of(y + o, b, outputs) - mine_d[u * BATCH + b],
                                total_of(y + o, b, outputs) - mine_t[u * BATCH + b], slope);
            }
            const REAL value = out_slab[i] - factor * slope;
            out_slab[i] = clipped(value);
        }
        __syncthreads();
    }

    // How a unit moves for a pull along -dC/dv, in one sample: delta, or less the sum of its adjoints.
    __device__ REAL pull(const Layer& l, int u, int b, bool pending) const {
        if (!BACK) return delta_of(own(l, u), b, 1);
        REAL sum = 0;
        for (int time = 1; pending && time <= sweeps; ++time) sum -= mine_mu[((time - 1) * l.width + u) * BATCH + b];
        return sum;
    }

    // Finish the update that is pending; sums a of all own units, the drive of the inputs.
    __device__ void prepare(bool pending) {
        for (int k = 0; k < hidden; ++k) {
            const Layer& l = layers[k];
            const REAL factor = pending ? rates[k] * (REAL)(1.0 / BATCH) : (REAL)0;
            if (BACK && pending) recall_tapes(l);
            for (int i = threadIdx.x; i < l.width * BATCH; i += THREADS) {
                const int u = i / BATCH, b = i % BATCH;
                mine_d[i] = u < l.count ? pull(l, u, b, pending) : (REAL)0;
                mine_t[i] = u < l.count && !BACK ? total_of(own(l, u), b, 1) : (REAL)0;
            }
            __syncthreads();
            if (k == 0) {
                for (int u = threadIdx.x; u < l.width; u += THREADS) {
                    c[u] = 0;
                    for (int b = 0; b < BATCH; ++b) {
                        e[b * l.width + u] = factor * mine_d[u * BATCH + b];
                        if (!BACK) c[u] += factor * (REAL)0.5 * mine_d[u * BATCH + b] * mine_t[u * BATCH + b];
                        for (int time = 1; BACK && pending && u < l.count && time <= sweeps; ++time)
                            c[u] -= factor * mine_mu[((time - 1) * l.width + u) * BATCH + b] *
                                    mine_v[(time * l.width + u) * BATCH + b];
                    }
                }
                __syncthreads();
                pass_inputs(pending);
            }
            if (l.near) pass_slab(k, pending);
            if (k == hidden - 1) pass_outputs(pending);
            for (int u = threadIdx.x; u < l.count; u += THREADS) {
                REAL sum = (k ? (REAL)0 : drive[u * (BATCH + 1) + BATCH]) + (l.near ? a_part[u] : (REAL)0);
                if (k == hidden - 1)
                    for (int o = 0; o < outputs; ++o) sum += out_slab[o * l.width + u];
                l.a[u] = sum;
                if (sum <= 0) atomicMax(cut_off, (int)(l.unit + l.first + u));
            }
            __syncthreads();
        }
    }

    __device__ void learn_biases() {
        const REAL scale = (REAL)(1.0 / BATCH);
        for (int k = 0; k < hidden; ++k) {
            const Layer& l = layers[k];
            if (BACK) recall_tapes(l);
            for (int u = threadIdx.x; u < l.count; u += THREADS)
                for (int b = 0; b < BATCH; ++b) l.bias[u] += bias_rates[k] * scale * pull(l, u, b, true);
            __syncthreads();
        }
        for (int o = threadIdx.x; o < outputs; o += THREADS)
            for (int b = 0; b < BATCH; ++b) {
                REAL moved = BACK ? (REAL)0 : delta_of(y + o, b, outputs);
                for (int time = 0; BACK && time < sweeps; ++time) moved -= y_mu[(time * BATCH + b) * outputs + o];
                bias_out[o] += bias_rates[hidden] * scale * moved;
            }
        __syncthreads();
    }

    // -- a step --------------------------------------------------------------------------------------------------------

    // The sums of conductances at the outputs; why the step cannot be taken, the same for all blocks, and the unit.
    __device__ int trouble(integer* which) {
        collect(BOTH * outputs, (BOTH + 1) * outputs, a_out);
        int code = OK;
        const int cut = *(volatile int*)cut_off;
        if (cut >= 0) {
            code = CUT_OFF;
            *which = cut;
        }
        for (int o = 0; o < outputs; ++o)
            if (a_out[o] <= 0) {
                code = CUT_OFF;
                *which = unit[hidden] + o;
            }
        const REAL least = beta1 < beta2 ? beta1 : beta2;
        for (int o = 0; o < outputs && code != CUT_OFF; ++o)
            if (a_out[o] + least <= 0) {
                code = NOT_CONVEX;
                *which = o;
            }
        return code;
    }

    // Cost and errors of the free state; whether the cost is a number.
    __device__ bool measure(double* tally) const {
        bool wild = false;
        for (int i = threadIdx.x; i < BATCH * outputs; i += THREADS) {
            const double miss = (double)y[i] - (double)t[i];
            wild |= !(miss * miss <= 1.7976931348623157e308);
        }
        const bool finite = !__syncthreads_or(wild);
        if (blockIdx.x || threadIdx.x >= 32) return finite;
        double cost = 0.0, wrong = 0.0;  // of the sample of this lane
        if (threadIdx.x < BATCH) {
            const REAL *found = y + threadIdx.x * outputs, *wanted = t + threadIdx.x * outputs;
            int best = 0, right = 0;
            for (int o = 0; o < outputs; ++o) {
                const double miss = (double)found[o] - (double)wanted[o];
                cost += 0.5 * miss * miss;
                if (found[o] > found[best]) best = o;
                if (wanted[o] > wanted[right]) right = o;
            }
            wrong = best != right;
        }
        for (int offset = 16; offset > 0; offset /= 2) {
            cost += whole_warp(cost, offset);
            wrong += whole_warp(wrong, offset);
        }
        if (threadIdx.x == 0) {
            tally[0] += cost;
            tally[1] += wrong;
        }
        return finite;
    }

    __device__ void keep_free_state() {
        for (int k = 0; k < hidden; ++k) {
            const Layer& l = layers[k];
            for (int i = threadIdx.x; i < BATCH * l.count; i += THREADS)
                kept(free_state, k, BATCH, i / l.count)[l.first + i % l.count] = own(l, i % l.count)[i / l.count];
        }
        if (blockIdx.x == 0)
            for (int i = threadIdx.x; i < BATCH * outputs; i += THREADS) kept(free_state, hidden, BATCH, 0)[i] = y[i];
    }

    // Both nudged phases begin at the free state: delta is 0, v2 is v1.
    __device__ void begin_nudging() {
        for (int k = 0; k < hidden; ++k) {
            const Layer& l = layers[k];
            for (int i = threadIdx.x; i < BATCH * l.count; i += THREADS) {
                REAL* const at = own(l, i / BATCH) + i % BATCH;
                at[BATCH] = PLAIN ? at[0] : (REAL)0;
            }
        }
        for (int i = threadIdx.x; i < BATCH * outputs; i += THREADS)
            y[BATCH * outputs + i] = PLAIN ? y[i] : (REAL)0;
        __syncthreads();
        if (hidden == 1) return;  // nobody else reads these
        if (hidden % 2 == 0) {    // the outputs go first, with what the last hidden layer gave
            recall(BOTH);
            share<BOTH>();
        }
        barrier();
    }

    __device__ void nudge() {
        begin_nudging();
        for (int k = 0; k < sweeps; ++k) {
            half_sweep<true>(0);
            half_sweep<true>(1);
        }
    }

    __device__ void back_propagate() {
        begin_tape();
        for (int time = 1; time <= sweeps; ++time) {
            half_sweep<false>(0, time);
            half_sweep<false>(1, time);
        }
        for (int time = sweeps; time > 0; --time) {
            half_back(1, time);
            half_back(0, time);
        }
    }

    __device__ void read_samples(const FEATURE* data, const float* targets, const integer* rows) {
        for (int i = threadIdx.x; i < features * BATCH; i += THREADS)
            x_new[i] = (REAL)data[rows[i % BATCH] * features + i / BATCH] * unit_volts;
        for (int i = threadIdx.x; i < outputs * BATCH; i += THREADS)
            t[i] = targets[rows[i / outputs] * outputs + i % outputs];
    }

    __device__ void run(const FEATURE* data, const float* targets, const integer* order, integer count, double* tally,
                        integer* status) {
        bool pending = false;
        int code = OK;
        integer which = 0;
        load();
        for (int step = 0; step <= count; ++step) {
            REAL* const swapped = x_old;
            x_old = x_new;
            x_new = swapped;
            if (step < count) read_samples(data, targets, order + step * BATCH);
            __syncthreads();
            prepare(pending);
            if (step == count) break;
            pending = false;
            recall(BATCH);
            share<BATCH>();
            share_conductances();
            barrier();
            code = trouble(&which);
            if (code != OK) break;
            for (int k = 0; k < sweeps; ++k) {
                half_sweep<false>(0);
                half_sweep<false>(1);
            }
            if (!measure(tally)) {
                code = NOT_FINITE;
                break;
            }
            if (step == count - 1) keep_free_state();
            if (BACK) back_propagate();
            else nudge();
            learn_biases();
            pending = true;
        }
        store();
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            status[0] = code;
            status[1] = which;
        }
    }
};

// plan: depth, sweeps, features, resident, numbers in shared memory, blocks; n (depth + 1), first unit of each layer (depth),
// first entry of each crossbar (depth), width of each hidden layer's slab (depth - 1).
// numbers: volts of a feature of 1, beta1, beta2; rates (depth), bias_rates (depth).
extern "C" __global__ void __launch_bounds__(THREADS, 1) steps(
    const integer* plan, const REAL* numbers, const FEATURE* data, const float* targets, const integer* order,
    integer count, REAL* g, REAL* bias, const REAL* lo, const REAL* hi, REAL* v, REAL* free_state, REAL* delta,
    REAL* total, REAL* volts, REAL* partials, REAL* tape_v, REAL* tape_mu, unsigned* arrived, int* cut_off,
    double* tally, integer* status) {
    SHARED_MEMORY(shared)
    Net net;
    net.depth = plan[0];
    net.hidden = net.depth - 1;
    net.sweeps = plan[1];
    net.features = plan[2];
    net.resident = plan[3];
    net.n = plan + 6;
    net.unit = net.n + net.depth + 1;
    net.where = net.unit + net.depth;
    net.widths = net.where + net.depth;
    net.unit_volts = numbers[0];
    net.beta1 = numbers[1];
    net.beta2 = numbers[2];
    net.rates = numbers + 3;
    net.bias_rates = net.rates + net.depth;
    net.g = g;
    net.bias = bias;
    net.lo = lo;
    net.hi = hi;
    net.v = v;
    net.free_state = free_state;
    net.delta = delta;
    net.total = total;
    net.volts = volts;
    net.partials = partials;
    net.tape_v = tape_v;
    net.tape_mu = tape_mu;
    net.arrived = arrived;
    net.cut_off = cut_off;
    net.side = 0;
    net.all_units = (int)(net.unit[net.hidden] + net.n[net.depth]);
    if (net.lay_out(shared) != plan[4] || gridDim.x != plan[5]) {
        status[0] = WRONG_PLAN;
        return;
    }
    __syncthreads();
    net.run(data, targets, order, count, tally, status);
}

// As many meetings of all blocks, and nothing else: what one costs.
extern "C" __global__ void __launch_bounds__(THREADS, 1) meetings(integer count, unsigned* arrived) {
    for (integer k = 0; k < count; ++k) meet(arrived);
}
