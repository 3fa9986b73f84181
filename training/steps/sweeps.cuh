// Sweeps: layers of one parity, then of the other, take their exact step, until they have settled; free or nudged.

#include "net.cuh"

struct Sweeps : Net {
    using Last = Layer<HIDDEN - 1>;

    // -- all blocks ----------------------------------------------------------------------------------------------------

    __device__ void barrier() const { meet(arrived); }

    // What a block shared last: its parts of the currents into the outputs, and of the sums of conductances there.
    __device__ REAL* shared_by(int block) const { return partials + (side * (int)gridDim.x + block) * SHARED_SUMS; }

    // This block's part of the currents into the outputs, from the own units' voltages `now`: (output, row), of
    // power_of_two(ROWS) rows. Lanes side by side sum up quads of units.
    template <int ROWS>
    __device__ void share() {
        constexpr int N = power_of_two(ROWS), quads = LAST / 4, across = Last::across;
        const int lane = threadIdx.x % across;
        side ^= 1;
        for (int whole = threadIdx.x / 32 * 32; whole / across < OUTPUTS; whole += THREADS) {  // by whole warps
            const int o = (whole + (int)threadIdx.x % 32) / across;
            REAL sum[N] = {}, spare[N];
            if (o < OUTPUTS)
#pragma unroll
                for (int first = 0; first < quads; first += across) {
                    if (first + lane >= quads) break;
                    const Quad g = quad(out_slab + o * LAST + 4 * (first + lane));
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const Quad x = quad(now + r * LAST + 4 * (first + lane));
#pragma unroll
                        for (int i = 0; i < 4; ++i) sum[r] += g.at[i] * x.at[i];
                    }
                }
            sum_lanes<N>(sum, across / 2, 1, o < OUTPUTS ? shared_by(blockIdx.x) + o * N : spare);
        }
    }

    // This block's part of the sums of conductances at the outputs, put beside the currents of the last `share`.
    __device__ void share_conductances() const {
        for (int o = threadIdx.x; o < OUTPUTS; o += THREADS) {
            REAL sum = 0;
            for (int q = 0; q < LAST; q += 4) {
                const Quad g = quad(out_slab + o * LAST + q);
                sum += (g.at[0] + g.at[1]) + (g.at[2] + g.at[3]);
            }
            shared_by(blockIdx.x)[CURRENTS + o] = sum;
        }
    }

    // The sums over all blocks of COUNT of the numbers that they have shared, from FROM on.
    template <int FROM, int COUNT>
    __device__ void collect(REAL* sum) const {
        constexpr int AHEAD = 6, QUADS = (COUNT + 3) / 4;
        const int blocks = (int)gridDim.x;
#pragma unroll
        for (int start = 0; start < QUADS; start += THREADS) {
            const int across = QUADS - start < THREADS ? QUADS - start : THREADS, down = THREADS / across;
            const int place = 4 * (start + (int)threadIdx.x % across), group = (int)threadIdx.x / across;
            Quad total = {};
            for (int block = group; group < down && block < blocks; block += AHEAD * down) {
                Quad found[AHEAD];
#pragma unroll
                for (int k = 0; k < AHEAD; ++k)  // all on their way before the first is needed
                    found[k] = block + k * down < blocks ? fetched(shared_by(block + k * down) + FROM + place) : Quad{};
#pragma unroll
                for (int k = 0; k < AHEAD; ++k)
#pragma unroll
                    for (int i = 0; i < 4; ++i) total.at[i] += found[k].at[i];
            }
            *(Quad*)(scratch + 4 * threadIdx.x) = total;
            __syncthreads();
            for (int i = threadIdx.x; i < 4 * across && 4 * start + i < COUNT; i += THREADS) {
                REAL all = 0;
#pragma unroll 8
                for (int k = 0; k < down; ++k) all += scratch[4 * k * across + i];
                sum[4 * start + i] = all;
            }
            __syncthreads();
        }
    }

    __device__ void recall(int rows) const {  // the voltages of the own units of the last hidden layer
        const Last l;
        for (int i = threadIdx.x; i < rows * l.count; i += THREADS) {
            const int u = i / rows, r = i % rows;
            now[r * l.width + u] = own(l, u)[r];
        }
        __syncthreads();
    }

    // -- sums over neighbours ------------------------------------------------------------------------------------------

    // The sums of `part` over the threads, each of which has been through other rows, for a group's quads of columns.
    template <int SIZE, int K, int N>
    __device__ void sum_rows(const REAL (&part)[N], int group, REAL* out) const {
        constexpr int across = across_of(K), quads = width_of(K) / 4;
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        sum_lanes<N>(part, 16, across, scratch + (warp * across + lane % across) * (N + 1));
        __syncthreads();
        for (int i = threadIdx.x; i < across * SIZE; i += THREADS) {
            if (group + i / SIZE >= quads) continue;
            REAL sum = 0;
#pragma unroll
            for (int w = 0; w < WARPS; ++w) sum += scratch[(w * across + i / SIZE) * (N + 1) + i % SIZE];
            out[(group + i / SIZE) * SIZE + i % SIZE] = sum;
        }
        __syncthreads();
    }

    // sums[u * ROWS + r] = sum over the neighbours j of slab[j, u] field[j, r]; the field has `stride` numbers a unit.
    template <int ROWS, int K>
    __device__ void product(const REAL* field, int stride) const {
        const Layer<K> l;
        constexpr int SIZE = 4 * ROWS, N = power_of_two(SIZE), QUADS = (ROWS + 3) / 4, AHEAD = 4;
        constexpr int quads = l.width / 4, down = 32 / l.across, step = down * WARPS;
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        for (int group = 0; group < quads; group += l.across) {
            const int place = group + lane % l.across;
            REAL sum[N] = {};
            const int rows = place < quads ? l.near : 0;
            for (int first = warp * down + lane / l.across; first < rows; first += AHEAD * step) {
                Quad of[AHEAD];
                REAL x[AHEAD][4 * QUADS];
#pragma unroll
                for (int k = 0; k < AHEAD; ++k) {  // all on their way before the first is needed
                    const int j = first + k * step < rows ? first + k * step : first;
                    of[k] = quad(l.slab + j * l.width + 4 * place);
#pragma unroll
                    for (int q = 0; q < QUADS; ++q) spread(fetched(field + l.neighbour(j) * stride + 4 * q), x[k] + 4 * q);
                }
#pragma unroll
                for (int k = 0; k < AHEAD; ++k)
                    if (first + k * step < rows)
#pragma unroll
                        for (int column = 0; column < 4; ++column)
#pragma unroll
                            for (int r = 0; r < ROWS; ++r) sum[column * ROWS + r] += of[k].at[column] * x[k][r];
            }
            sum_rows<SIZE, K>(sum, group, sums);
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

    template <bool NUDGED, int K>
    __device__ void settle(int time) {
        constexpr int ROWS = NUDGED ? BOTH : BATCH;
        const Layer<K> l;
        constexpr bool last = K == HIDDEN - 1;
        for (int i = threadIdx.x; i < l.count * BATCH; i += THREADS) {
            const int u = i / BATCH, b = i % BATCH;
            REAL s1 = l.bias[u] + (K ? (REAL)0 : drive[u * (BATCH + 1) + b]), s2 = PLAIN ? s1 : (REAL)0;
            if (l.near) {
                s1 += sums[u * ROWS + b];
                if (NUDGED) s2 += sums[u * ROWS + BATCH + b];
            }
            if (last)
#pragma unroll 16
                for (int o = 0; o < OUTPUTS; ++o) {
                    s1 += out_slab[o * l.width + u] * y[b * OUTPUTS + o];
                    if (NUDGED) s2 += out_slab[o * l.width + u] * y[(BATCH + b) * OUTPUTS + o];
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
        constexpr int N = power_of_two(NUDGED ? BOTH : BATCH);
        collect<0, N * OUTPUTS>(s_out);
        for (int i = threadIdx.x; i < BATCH * OUTPUTS; i += THREADS) {
            const int o = i % OUTPUTS, b = i / OUTPUTS;
            const REAL s1 = bias_out[o] + s_out[o * N + b];
            const REAL s2 = NUDGED ? s_out[o * N + BATCH + b] + (PLAIN ? bias_out[o] : (REAL)0) : (REAL)0;
            exact_step<NUDGED, NUDGED>(s1, s2, a_out[o], lo_out[o], hi_out[o], t[i], NUDGED ? beta1 : (REAL)0,
                                       NUDGED ? beta2 : (REAL)0, y + i, y + BATCH * OUTPUTS + i);
            if (BACK && time) y_v[time * BATCH * OUTPUTS + i] = y[i];
        }
        __syncthreads();
    }

    // The layers 0, 2, ... or 1, 3, ... at once; with a `time`, their voltages are also put on the tapes at that time.
    template <bool NUDGED, int PARITY>
    __device__ void half_sweep(int time = 0) {
        constexpr int ROWS = NUDGED ? BOTH : BATCH;
        each_layer<PARITY, 2>([&](auto which) {
            constexpr int k = decltype(which)::value;
            if (near_of(k)) product<ROWS, k>(volts, STRIDE);
            settle<NUDGED, k>(time);
            if (k == HIDDEN - 1) share<ROWS>();
        });
        if (HIDDEN % 2 == PARITY) settle_outputs<NUDGED>(time);
        if (PARITY < HIDDEN) barrier();
    }

    // -- the nudged phases ---------------------------------------------------------------------------------------------

    // Both nudged phases begin at the free state: delta is 0, v2 is v1.
    __device__ void begin_nudging() {
        each_layer<0, 1>([&](auto which) {
            const Layer<decltype(which)::value> l;
            for (int i = threadIdx.x; i < BATCH * l.count; i += THREADS) {
                REAL* const at = own(l, i / BATCH) + i % BATCH;
                at[BATCH] = PLAIN ? at[0] : (REAL)0;
            }
        });
        for (int i = threadIdx.x; i < BATCH * OUTPUTS; i += THREADS)
            y[BATCH * OUTPUTS + i] = PLAIN ? y[i] : (REAL)0;
        __syncthreads();
        if (HIDDEN == 1) return;  // no other block reads these
        if (HIDDEN % 2 == 0) {    // the outputs step first, by the last hidden layer's voltages
            recall(BOTH);
            share<BOTH>();
        }
        barrier();
    }

    __device__ void nudge() {
        begin_nudging();
        for (int k = 0; k < SWEEPS; ++k) {
            half_sweep<true, 0>();
            half_sweep<true, 1>();
        }
    }
};
