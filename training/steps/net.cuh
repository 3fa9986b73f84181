// A layered netlist on a GPU: where its conductances, voltages and currents are, in shared memory and outside.

#include "threads.cuh"

#define BOTH (2 * BATCH)
#define STRIDE ((BOTH + 3) / 4 * 4)
#define TAPED ((BATCH + 3) / 4 * 4)  // of a unit's voltages, or adjoints, on a tape

struct Layer {              // a hidden one; what a block owns of it
    int units, unit;        // of the whole layer, and the number of its first
    int first, count;       // the block's own
    int width, across;      // columns of the slab, a multiple of 4; lanes of a warp side by side in a row of it
    int before, near;       // rows of the slab: those of the hidden layer before, and all
    int unit_before, unit_after;
    REAL *slab, *a, *bias, *lo, *hi;
};

static_assert(sizeof(Layer) <= LAYER_BYTES, "gpu_steps.py counts LAYER_BYTES for each");

struct Net {  // all that the kernel is given, and what a block keeps of it
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
};
