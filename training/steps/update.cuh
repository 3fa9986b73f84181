// The update of a step together with the sums of the next, in one pass over the conductances; and the update of biases.

#include "back.cuh"

struct Update : BackPropagation {
    // The inputs of a step's samples at one feature.
    __device__ void samples_of(const REAL* x, int feature, REAL (&found)[BATCH]) const {
        if constexpr (BATCH % 4 == 0) {
#pragma unroll
            for (int b = 0; b < BATCH; b += 4) spread(quad(x + feature * BATCH + b), found + b);
        } else {
            for (int b = 0; b < BATCH; ++b) found[b] = x[feature * BATCH + b];
        }
    }

    // The input crossbar: g <- within(g - c + x_old e, g_min, g_max); its column sums; drive = x_new g. See
    // kernels._input_columns.
    __device__ void pass_inputs(bool pending) {
        constexpr int SIZE = 4 * (BATCH + 1), N = power_of_two(SIZE);
        const Layer<0> l;
        const REAL low = g_min[0], high = g_max[0];
        constexpr bool mirrored = size_of(0) == 2 * FEATURES;
        REAL* const matrix = RESIDENT ? (REAL*)inputs : g + l.first;
        constexpr int columns = RESIDENT ? l.width : l.units;
        constexpr int quads = l.width / 4, down = 32 / l.across, step = down * WARPS;
        const int filled = RESIDENT ? quads : (l.count + 3) / 4;
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        constexpr int AHEAD = 2;  // rows loaded in advance: more are slower on an H200
        for (int group = 0; group < quads; group += l.across) {
            const int place = group + lane % l.across;
            REAL sum[N] = {};
            if (place < filled) {
                const Quad fall = quad(c + 4 * place);
                Quad turn[BATCH], p[AHEAD + 1] = {}, q[AHEAD + 1] = {};
#pragma unroll
                for (int b = 0; b < BATCH; ++b) turn[b] = quad(e + b * l.width + 4 * place);
                const int first = warp * down + lane / l.across;
                auto fetch = [&](int i, Quad& one, Quad& two) {
                    if (i >= FEATURES) return;
                    one = quad(matrix + i * columns + 4 * place);
                    if (mirrored) two = quad(matrix + (FEATURES + i) * columns + 4 * place);
                };
                auto put_back = [&](int i, const Quad& of) {
                    REAL* const at = matrix + i * columns + 4 * place;
                    if constexpr (RESIDENT) *(Quad*)at = of;
                    else put(at, of);
                };
#pragma unroll
                for (int k = 0; k < AHEAD; ++k) fetch(first + k * step, p[k], q[k]);
                for (int i = first; i < FEATURES; i += step) {
                    fetch(i + AHEAD * step, p[AHEAD], q[AHEAD]);
                    REAL old[BATCH], lit[BATCH];
                    samples_of(x_old(), i, old);
                    samples_of(x_new(), i, lit);
                    if (pending) {
                        Quad slope = {};
#pragma unroll
                        for (int b = 0; b < BATCH; ++b)
#pragma unroll
                            for (int column = 0; column < 4; ++column) slope.at[column] += old[b] * turn[b].at[column];
#pragma unroll
                        for (int column = 0; column < 4; ++column) {
                            const REAL one = p[0].at[column] - fall.at[column] + slope.at[column];
                            p[0].at[column] = within(one, low, high);
                            const REAL two = q[0].at[column] - fall.at[column] - slope.at[column];
                            q[0].at[column] = mirrored ? within(two, low, high) : (REAL)0;
                        }
                        put_back(i, p[0]);
                        if (mirrored) put_back(FEATURES + i, q[0]);
                    }
#pragma unroll
                    for (int column = 0; column < 4; ++column) {
                        const REAL both = p[0].at[column] - q[0].at[column];
                        sum[column * (BATCH + 1) + BATCH] += p[0].at[column] + q[0].at[column];
#pragma unroll
                        for (int b = 0; b < BATCH; ++b) sum[column * (BATCH + 1) + b] += lit[b] * both;
                    }
#pragma unroll
                    for (int k = 0; k < AHEAD; ++k) {
                        p[k] = p[k + 1];
                        q[k] = q[k + 1];
                    }
                }
            }
            sum_rows<SIZE, 0>(sum, group, drive);
        }
    }

    // sum_b (d_j - d_u) (t_j - t_u) for a neighbour j and a quad of own units u; d: delta, t: total.
    __device__ void state_slopes(const REAL (&other)[STRIDE], int place, REAL* slope) const {
#pragma unroll
        for (int column = 0; column < 4; ++column) {
            const REAL* const d = mine_d + (4 * place + column) * BATCH;
            const REAL* const both = mine_t + (4 * place + column) * BATCH;
#pragma unroll
            for (int b = 0; b < BATCH; ++b)
                slope[column] = fma(delta_of(other, b, 1) - d[b], total_of(other, b, 1) - both[b], slope[column]);
        }
    }

    // The slab of a layer: g <- within(g - factor sum_b (d_j - d_u) (t_j - t_u), g_min, g_max), or by the tapes; its
    // column sums into a_part.
    template <int K>
    __device__ void pass_slab(bool pending) const {
        const Layer<K> l;
        constexpr int quads = l.width / 4, down = 32 / l.across, step = down * WARPS;
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const REAL scale = (REAL)(1.0 / BATCH), factor_before = (REAL)0.5 * rates[K] * scale;
        const REAL factor_after = (REAL)0.5 * rates[K + 1] * scale;
        const REAL low_before = g_min[K], high_before = g_max[K], low_after = g_min[K + 1], high_after = g_max[K + 1];
        for (int group = 0; group < quads; group += l.across) {
            const int place = group + lane % l.across;
            REAL sum[4] = {};
            constexpr int AHEAD = BACK ? 1 : 4;
            const int rows = place < quads ? l.near : 0;
            for (int first = warp * down + lane / l.across; first < rows; first += AHEAD * step) {
                REAL other[AHEAD][STRIDE];
#pragma unroll
                for (int ahead = 0; ahead < AHEAD && pending && !BACK; ++ahead) {  // all on their way before any is needed
                    const int j = first + ahead * step < rows ? first + ahead * step : first;
#pragma unroll
                    for (int q = 0; q < STRIDE / 4; ++q)
                        spread(fetched(volts + l.neighbour(j) * STRIDE + 4 * q), other[ahead] + 4 * q);
                }
#pragma unroll
                for (int ahead = 0; ahead < AHEAD; ++ahead) {
                    const int j = first + ahead * step;
                    if (j >= rows) break;
                    Quad* const at = (Quad*)(l.slab + j * l.width + 4 * place);
                    Quad of = *at;
                    if (pending) {
                        const bool before = j < l.before;
                        const REAL factor = (BACK ? 2 : 1) * (before ? factor_before : factor_after);
                        const REAL low = before ? low_before : low_after, high = before ? high_before : high_after;
                        REAL slope[4] = {};
                        if (BACK)
                            slab_slopes<K>(j, place, slope);
                        else
                            state_slopes(other[ahead], place, slope);
#pragma unroll
                        for (int column = 0; column < 4; ++column) {
                            const REAL value = fma(-factor, slope[column], of.at[column]);
                            of.at[column] = 4 * place + column < l.count ? within(value, low, high) : (REAL)0;
                        }
                        *at = of;
                    }
#pragma unroll
                    for (int column = 0; column < 4; ++column) sum[column] += of.at[column];
                }
            }
            sum_rows<4, K>(sum, group, a_part);
        }
    }

    __device__ void pass_outputs(bool pending) {
        const Last l;
        const REAL factor = (REAL)0.5 * rates[HIDDEN] * (REAL)(1.0 / BATCH);
        const REAL low = g_min[HIDDEN], high = g_max[HIDDEN];
        for (int i = threadIdx.x; pending && i < OUTPUTS * l.width; i += THREADS) {
            const int o = i / l.width, u = i % l.width;
            if (u >= l.count) continue;
            REAL slope = 0;
            for (int b = 0; !BACK && b < BATCH; ++b)
                slope = fma(delta_of(y + o, b, OUTPUTS) - mine_d[u * BATCH + b],
                            total_of(y + o, b, OUTPUTS) - mine_t[u * BATCH + b], slope);
            if (BACK) slope = 2 * output_slope(l, o, u);
            const REAL value = out_slab[i] - factor * slope;
            out_slab[i] = within(value, low, high);
        }
        __syncthreads();
    }

    // The field delta (gradient.py) of an own unit in one sample; in back-propagation minus the sum of its adjoints.
    template <int K>
    __device__ REAL pull(const Layer<K>& l, int u, int b, bool pending) const {
        return BACK ? less_adjoints(l, u, b, pending) : delta_of(own(l, u), b, 1);
    }

    // Finish the update that is pending, biases too; compute the sums a of all own units and the drive of the inputs.
    __device__ void prepare(bool pending) {
        if (pending) learn_output_biases();
        each_layer<0, 1>([&](auto which) {
            constexpr int k = decltype(which)::value;
            const Layer<k> l;
            const REAL factor = pending ? rates[k] * (REAL)(1.0 / BATCH) : (REAL)0;
            if (BACK && pending) recall_tapes(l);
            for (int i = threadIdx.x; i < l.width * BATCH; i += THREADS) {
                const int u = i / BATCH, b = i % BATCH;
                mine_d[i] = u < l.count ? pull(l, u, b, pending) : (REAL)0;
                mine_t[i] = u < l.count && !BACK ? total_of(own(l, u), b, 1) : (REAL)0;
            }
            __syncthreads();
            const REAL bias_rate = bias_rates[k] * (REAL)(1.0 / BATCH);
            for (int u = threadIdx.x; pending && u < l.count; u += THREADS) {
                REAL learned = l.bias[u];
                for (int b = 0; b < BATCH; ++b) learned += bias_rate * mine_d[u * BATCH + b];
                l.bias[u] = learned;
            }
            if (k == 0) {
                for (int u = threadIdx.x; u < l.width; u += THREADS) {
                    c[u] = 0;
                    for (int b = 0; b < BATCH; ++b) {
                        e[b * l.width + u] = factor * mine_d[u * BATCH + b];
                        if (!BACK) c[u] += factor * (REAL)0.5 * mine_d[u * BATCH + b] * mine_t[u * BATCH + b];
                        for (int time = 1; BACK && pending && u < l.count && time <= SWEEPS; ++time)
                            c[u] -= factor * mine_mu[((time - 1) * l.width + u) * BATCH + b] *
                                    mine_v[(time * l.width + u) * BATCH + b];
                    }
                }
                __syncthreads();
                pass_inputs(pending);
            }
            if (l.near) pass_slab<k>(pending);
            if (k == HIDDEN - 1) pass_outputs(pending);
            for (int u = threadIdx.x; u < l.count; u += THREADS) {
                REAL sum = (k ? (REAL)0 : drive[u * (BATCH + 1) + BATCH]) + (l.near ? a_part[u] : (REAL)0);
                if (k == HIDDEN - 1)
#pragma unroll 16
                    for (int o = 0; o < OUTPUTS; ++o) sum += out_slab[o * l.width + u];
                l.a[u] = sum;
                if (sum <= 0) atomicMax(cut_off, l.unit + l.first + u);
            }
            __syncthreads();
        });
    }

    __device__ void learn_output_biases() {
        const REAL rate = bias_rates[HIDDEN] * (REAL)(1.0 / BATCH);
        for (int o = threadIdx.x; o < OUTPUTS; o += THREADS) {
            REAL learned = bias_out[o];
            for (int b = 0; b < BATCH; ++b)
                learned += rate * (BACK ? less_output_adjoints(o, b) : delta_of(y + o, b, OUTPUTS));
            bias_out[o] = learned;
        }
    }
};
