// Sweeps: layers of one parity, then of the other, take their exact step, until they have settled; free or nudged.

#include "net.cuh"

struct Sweeps : Net {
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

    // -- the nudged phases ---------------------------------------------------------------------------------------------

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
};
