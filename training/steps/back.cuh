// Back-propagation: SWEEPS sweeps with their voltages kept on a tape, then the adjoints of all exact steps, backwards.

#include "sweeps.cuh"

struct BackPropagation : Sweeps {
    // -- the tapes -----------------------------------------------------------------------------------------------------

    // The time at which layer k's neighbours had the voltages that its step at `time` (1 .. SWEEPS) used: odd layers
    // come after even ones.
    __device__ int before(int k, int time) const { return k % 2 ? time : time - 1; }

    __device__ void begin_tape() {  // time 0: the free state
        each_layer<0, 1>([&](auto which) {
            const Layer<decltype(which)::value> l;
            for (int i = threadIdx.x; i < BATCH * l.count; i += THREADS)
                taped(tape_v, 0, l.unit + l.first + i / BATCH)[i % BATCH] = own(l, i / BATCH)[i % BATCH];
        });
        for (int i = threadIdx.x; i < BATCH * OUTPUTS; i += THREADS) y_v[i] = y[i];
        __syncthreads();
    }

    // The layers of a parity, backwards: mu = lambda / a inside the bounds, with lambda the sum of the neighbours' mu
    // times conductances; tape_mu has time t at t - 1. The neighbours' are those of this time for even layers, of the
    // next one for odd layers.
    template <int PARITY>
    __device__ void half_back(int time) {
        const int from = PARITY ? time + 1 : time;
        const bool some = from <= SWEEPS;
        each_layer<PARITY, 2>([&](auto which) {
            constexpr int k = decltype(which)::value;
            const Layer<k> l;
            constexpr bool last = k == HIDDEN - 1;
            if (l.near && some) product<BATCH, k>(taped(tape_mu, from - 1, 0), TAPED);
            for (int i = threadIdx.x; i < l.count * BATCH; i += THREADS) {
                const int u = i / BATCH, b = i % BATCH, unit_of = l.unit + l.first + u;
                REAL lambda = l.near && some ? sums[i] : (REAL)0;
                for (int o = 0; last && some && o < OUTPUTS; ++o)
                    lambda += out_slab[o * l.width + u] * y_mu[((from - 1) * BATCH + b) * OUTPUTS + o];
                const REAL at = taped(tape_v, time, unit_of)[b];
                const REAL mu = at > l.lo[u] && at < l.hi[u] ? lambda / l.a[u] : (REAL)0;
                taped(tape_mu, time - 1, unit_of)[b] = mu;
                if (last) now[b * l.width + u] = mu;
            }
            __syncthreads();
            if (last) share<BATCH>();
        });
        if (HIDDEN % 2 == PARITY) {
            const bool shared = PARITY == 0 || time < SWEEPS;  // anything, in the backward sweeps
            constexpr int N = power_of_two(BATCH);
            if (shared) collect<0, N * OUTPUTS>(s_out);
            for (int i = threadIdx.x; i < BATCH * OUTPUTS; i += THREADS) {
                const int o = i % OUTPUTS, b = i / OUTPUTS, at = time * BATCH * OUTPUTS + i;
                const REAL lambda = (shared ? s_out[o * N + b] : (REAL)0) + (time == SWEEPS ? y[i] - t[i] : (REAL)0);
                const bool inside = y_v[at] > lo_out[o] && y_v[at] < hi_out[o];
                y_mu[at - BATCH * OUTPUTS] = inside ? lambda / a_out[o] : (REAL)0;
            }
            __syncthreads();
        }
        if (PARITY < HIDDEN) barrier();
    }

    __device__ void back_propagate() {
        begin_tape();
        for (int time = 1; time <= SWEEPS; ++time) {
            half_sweep<false, 0>(time);
            half_sweep<false, 1>(time);
        }
        for (int time = SWEEPS; time > 0; --time) {
            half_back<1>(time);
            half_back<0>(time);
        }
    }

    // -- slopes of the cost --------------------------------------------------------------------------------------------

    // The own units of a layer, from the tapes into shared memory.
    template <int K>
    __device__ void recall_tapes(const Layer<K>& l) const {
        for (int i = threadIdx.x; i < (SWEEPS + 1) * l.count * BATCH; i += THREADS) {
            const int time = i / (l.count * BATCH), u = i / BATCH % l.count, b = i % BATCH;
            const int to = (time * l.width + u) * BATCH + b;
            mine_v[to] = taped(tape_v, time, l.unit + l.first + u)[b];
            if (time < SWEEPS) mine_mu[to] = taped(tape_mu, time, l.unit + l.first + u)[b];
        }
        __syncthreads();
    }

    // The slope of the cost by a conductance, from the voltages and adjoints of its ends at one time: at the exact step of
    // the lower layer, then at that of the upper one. Both owners of a conductance come to the same bits.
    __device__ REAL add_slope(REAL slope, REAL mu_low, REAL seen_by_low, REAL v_low, REAL mu_high, REAL seen_by_high,
                              REAL v_high) const {
        return fma(mu_high, seen_by_high - v_high, fma(mu_low, seen_by_low - v_low, slope));
    }

    // What one time of the tapes adds to the slopes of row j of a slab, in a quad of columns.
    template <int K>
    __device__ void add_slopes(int time, int j, int place, REAL* slope) const {
        const Layer<K> l;
        const int of_near = l.neighbour(j), seen_here = before(K, time), seen_there = before(K + 1, time);
#pragma unroll
        for (int q = 0; q < TAPED / 4; ++q) {
            const Quad seen = fetched(taped(tape_v, seen_here, of_near) + 4 * q);
            const Quad theirs = fetched(taped(tape_v, time, of_near) + 4 * q);
            const Quad mu = fetched(taped(tape_mu, time - 1, of_near) + 4 * q);
#pragma unroll
            for (int column = 0; column < 4; ++column)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const int b = 4 * q + i, at = (4 * place + column) * BATCH + b, times = l.width * BATCH;
                    if (b >= BATCH || 4 * place + column >= l.count) continue;
                    const REAL my_v = mine_v[time * times + at], my_mu = mine_mu[(time - 1) * times + at];
                    const REAL my_seen = mine_v[seen_there * times + at];
                    slope[column] = j < l.before
                        ? add_slope(slope[column], mu.at[i], my_seen, theirs.at[i], my_mu, seen.at[i], my_v)
                        : add_slope(slope[column], my_mu, seen.at[i], my_v, mu.at[i], my_seen, theirs.at[i]);
                }
        }
    }

    // The slopes of row j of a slab, in a quad of columns. The tapes of the layer have been recalled, here and below.
    template <int K>
    __device__ void slab_slopes(int j, int place, REAL* slope) const {
        for (int time = 1; time <= SWEEPS; ++time) add_slopes<K>(time, j, place, slope);
    }

    // The slope of the conductance between output o and the own unit u of the last hidden layer, l.
    __device__ REAL output_slope(const Last& l, int o, int u) const {
        REAL slope = 0;
        for (int time = 1; time <= SWEEPS; ++time)
            for (int b = 0; b < BATCH; ++b) {
                const int at = u * BATCH + b, times = l.width * BATCH;
                const REAL* const theirs = y_v + b * OUTPUTS + o;
                slope = add_slope(
                    slope, mine_mu[(time - 1) * times + at], theirs[before(HIDDEN - 1, time) * BATCH * OUTPUTS],
                    mine_v[time * times + at], y_mu[((time - 1) * BATCH + b) * OUTPUTS + o],
                    mine_v[before(HIDDEN, time) * times + at], theirs[time * BATCH * OUTPUTS]);
            }
        return slope;
    }

    // Minus the sum of the adjoints of an own unit, or of an output, in one sample: -dC/di for a current i into it. 0
    // when no update is pending.
    template <int K>
    __device__ REAL less_adjoints(const Layer<K>& l, int u, int b, bool pending) const {
        REAL sum = 0;
        for (int time = 1; pending && time <= SWEEPS; ++time) sum -= mine_mu[((time - 1) * l.width + u) * BATCH + b];
        return sum;
    }

    __device__ REAL less_output_adjoints(int o, int b) const {
        REAL sum = 0;
        for (int time = 0; time < SWEEPS; ++time) sum -= y_mu[(time * BATCH + b) * OUTPUTS + o];
        return sum;
    }
};
