// Steps of equilibrium propagation on a layered netlist: many in one launch, with everything they need on the GPU.
// The twin, layers.py, has the equations; kernels.py is their arrangement for the CPU.
//
// - Each block owns some units of every hidden layer, and keeps in its shared memory a `slab` of the conductances that
//   join them to the hidden layers before and after: (neighbours, own units). A conductance between two hidden layers is
//   kept by the owners of both its ends, and both make the same update of it, bit by bit.
// - The few outputs belong to no block: each block sums its own units' currents into them, and all blocks add up these
//   sums in the same order, so that each has the output voltages. So one hidden layer needs one barrier per sweep.
// - The input crossbar is also kept in shared memory if it fits (`resident`); otherwise it is streamed once per step:
//   update, clip, column sums and the next drive while a row is in registers. As the inputs' voltages are known,
//   nothing else reads it.
// - Voltages are in `volts` (unit, STRIDE): rows 0 .. B-1 the state v1, rows B .. 2B-1 delta (or v2 in the plain form).
// - The update of a step is left pending and joins the next step's pass over the conductances.
//
// - Back-propagation replaces the nudged phases by as many further sweeps and keeps every voltage (`tape_v`); then
//   the adjoints mu of all these exact steps (`tape_mu`) are computed backwards, by the same sums over neighbours.
//
// Each file in steps/ builds on the one before: threads.cuh (what threads do together), net.cuh (where things are),
// sweeps.cuh, back.cuh (back-propagation), update.cuh. This file has the steps themselves, and the kernels.
//
// Compile with REAL (float, double), FEATURE (a type), FEATURES (per sample), BATCH (samples per step), SIZES (of the
// layers), HIDDEN (number of hidden layers), WIDTHS (most units of each that a block owns), RESIDENT (1: the input
// crossbar is resident), SWEEPS, THREADS (per block, a multiple of 32), PLAIN (1: the nudged phases are v1 and v2; 0: in
// difference form), BACK (1: back-propagation). Launch cooperatively: blocks wait for each other. Every argument is a
// pointer or a long long.

#include "steps/update.cuh"

enum { OK, NOT_CONVEX, NOT_FINITE, CUT_OFF, WRONG_PLAN };  // those of kernels.py, and a defect of gpu_steps.py

struct Steps : Update {
    // Computes the sums of conductances at the outputs. Returns OK, or why the step cannot be taken, the same in all
    // blocks; `which` is then the unit.
    __device__ int trouble(integer* which) {
        const int cut = *(volatile int*)cut_off;
        const REAL least = beta1 < beta2 ? beta1 : beta2;
        collect<CURRENTS, OUTPUTS>(a_out);
        bool some = cut >= 0;
        for (int o = threadIdx.x; o < OUTPUTS; o += THREADS) some |= !(a_out[o] > 0 && a_out[o] + least > 0);
        if (!__syncthreads_or(some)) return OK;
        int code = OK;
        if (cut >= 0) {
            code = CUT_OFF;
            *which = cut;
        }
        for (int o = 0; o < OUTPUTS; ++o)
            if (a_out[o] <= 0) {
                code = CUT_OFF;
                *which = first_unit(HIDDEN) + o;
            }
        for (int o = 0; o < OUTPUTS && code != CUT_OFF; ++o)
            if (a_out[o] + least <= 0) {
                code = NOT_CONVEX;
                *which = o;
            }
        return code;
    }

    // Adds cost and error of the free state to those of this thread's sample; returns whether all costs are finite.
    __device__ bool measure(double* costs, double* errors) const {
        bool wild = false;
        for (int i = threadIdx.x; i < BATCH * OUTPUTS; i += THREADS) {
            const double miss = (double)y[i] - (double)t[i];
            wild |= !(miss * miss <= 1.7976931348623157e308);
        }
        const bool finite = !__syncthreads_or(wild);
        if (blockIdx.x || threadIdx.x >= BATCH) return finite;
        const REAL *found = y + threadIdx.x * OUTPUTS, *wanted = t + threadIdx.x * OUTPUTS;
        REAL most = found[0], most_wanted = wanted[0];
        int best = 0, right = 0;
        double cost = 0.0;
#pragma unroll 5
        for (int o = 0; o < OUTPUTS; ++o) {
            const double miss = (double)found[o] - (double)wanted[o];
            cost += 0.5 * miss * miss;
            if (found[o] > most) {
                most = found[o];
                best = o;
            }
            if (wanted[o] > most_wanted) {
                most_wanted = wanted[o];
                right = o;
            }
        }
        *costs += cost;
        *errors += best != right;
        return finite;
    }

    __device__ void keep_free_state() {
        each_layer<0, 1>([&](auto which) {
            constexpr int k = decltype(which)::value;
            const Layer<k> l;
            for (int i = threadIdx.x; i < BATCH * l.count; i += THREADS)
                kept(free_state, k, BATCH, i / l.count)[l.first + i % l.count] = own(l, i % l.count)[i / l.count];
        });
        if (blockIdx.x == 0)
            for (int i = threadIdx.x; i < BATCH * OUTPUTS; i += THREADS) kept(free_state, HIDDEN, BATCH, 0)[i] = y[i];
    }

    __device__ void read_samples(const FEATURE* data, const float* targets, const integer* rows) {
        constexpr int AHEAD = 2;
        REAL* const x = x_new();
        integer row[BATCH];
        for (int b = 0; b < BATCH; ++b) row[b] = rows[b];
        for (int first = threadIdx.x; first < FEATURES; first += AHEAD * THREADS) {
            FEATURE found[AHEAD][BATCH];
#pragma unroll
            for (int k = 0; k < AHEAD; ++k) {  // all on their way before any is needed
                const int i = first + k * THREADS < FEATURES ? first + k * THREADS : first;
#pragma unroll
                for (int b = 0; b < BATCH; ++b) found[k][b] = data[row[b] * FEATURES + i];
            }
#pragma unroll
            for (int k = 0; k < AHEAD; ++k)
                if (first + k * THREADS < FEATURES)
#pragma unroll
                    for (int b = 0; b < BATCH; ++b)
                        x[(first + k * THREADS) * BATCH + b] = (REAL)found[k][b] * unit_volts;
        }
        for (int i = threadIdx.x; i < OUTPUTS * BATCH; i += THREADS)
            t[i] = targets[rows[i / OUTPUTS] * OUTPUTS + i % OUTPUTS];
    }

    __device__ void run(const FEATURE* data, const float* targets, const integer* order, integer count, double* tally,
                        integer* status) {
        bool pending = false;
        int code = OK;
        integer which = 0;
        double costs = 0.0, errors = 0.0;
        load();
        for (int step = 0; step <= count; ++step) {
            newer ^= 1;
            if (step < count) read_samples(data, targets, order + step * BATCH);
            __syncthreads();
            prepare(pending);
            if (step == count) break;
            pending = false;
            if (HIDDEN % 2 == 0) {  // the outputs step first, by the last hidden layer's voltages
                recall(BATCH);
                share<BATCH>();
            }
            share_conductances();
            barrier();
            code = trouble(&which);
            if (code != OK) break;
            for (int k = 0; k < SWEEPS; ++k) {
                half_sweep<false, 0>();
                half_sweep<false, 1>();
            }
            if (!measure(&costs, &errors)) {
                code = NOT_FINITE;
                break;
            }
            if (step == count - 1) keep_free_state();
            if (BACK) back_propagate();
            else nudge();
            pending = true;
        }
        store();
        if (blockIdx.x == 0 && threadIdx.x < 32) {
            costs = warp_sum(costs);
            errors = warp_sum(errors);
        }
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            tally[0] += costs;
            tally[1] += errors;
            status[0] = code;
            status[1] = which;
        }
    }
};

// plan: numbers in shared memory, blocks. numbers: volts of a feature of 1, beta1, beta2; rates, bias_rates, g_min,
// g_max (DEPTH each).
extern "C" __global__ void __launch_bounds__(THREADS, 1) steps(
    const integer* plan, const REAL* numbers, const FEATURE* data, const float* targets, const integer* order,
    integer count, REAL* g, REAL* bias, const REAL* lo, const REAL* hi, REAL* v, REAL* free_state, REAL* delta,
    REAL* total, REAL* volts, REAL* partials, REAL* tape_v, REAL* tape_mu, unsigned* arrived, int* cut_off,
    double* tally, integer* status) {
    Steps net;
    net.unit_volts = numbers[0];
    net.beta1 = numbers[1];
    net.beta2 = numbers[2];
    net.rates = numbers + 3;
    net.bias_rates = net.rates + DEPTH;
    net.g_min = net.bias_rates + DEPTH;
    net.g_max = net.g_min + DEPTH;
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
    net.newer = 0;
    if (Net::NUMBERS != plan[0] || gridDim.x != plan[1]) {
        status[0] = WRONG_PLAN;
        return;
    }
    net.run(data, targets, order, count, tally, status);
}

// Only this many barriers of all blocks, to measure what one costs.
extern "C" __global__ void __launch_bounds__(THREADS, 1) meetings(integer count, unsigned* arrived) {
    for (integer k = 0; k < count; ++k) meet(arrived);
}
