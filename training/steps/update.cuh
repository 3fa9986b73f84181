// The update of a step joined to the sums of the next: conductances are passed through once, biases are learned.

#include "back.cuh"

struct Update : BackPropagation {
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
                        slab_slopes(k, j, quad, slope);
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
            for (int b = 0; !BACK && b < BATCH; ++b)
                slope = fma(delta_of(y + o, b, outputs) - mine_d[u * BATCH + b],
                            total_of(y + o, b, outputs) - mine_t[u * BATCH + b], slope);
            if (BACK) slope = 2 * output_slope(l, o, u);
            const REAL value = out_slab[i] - factor * slope;
            out_slab[i] = clipped(value);
        }
        __syncthreads();
    }

    // How a unit moves for a pull along -dC/dv, in one sample: delta, or less the sum of its adjoints.
    __device__ REAL pull(const Layer& l, int u, int b, bool pending) const {
        return BACK ? less_adjoints(l, u, b, pending) : delta_of(own(l, u), b, 1);
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
                const REAL moved = BACK ? less_output_adjoints(o, b) : delta_of(y + o, b, outputs);
                bias_out[o] += bias_rates[hidden] * scale * moved;
            }
        __syncthreads();
    }
};
