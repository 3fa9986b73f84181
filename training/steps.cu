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
// Each file in steps/ adds to what the one before it has: threads.cuh (what threads do together), net.cuh (where things
// are), sweeps.cuh, back.cuh (back-propagation), update.cuh. Here are the steps themselves, and the kernels.
//
// To be compiled with REAL (float, double), FEATURE (a type), BATCH (samples of a step), THREADS (of a block, a multiple
// of 32), LAYER_BYTES (a Layer's room in shared memory), PLAIN (1: the nudged phases are v1 and v2; 0: in difference
// form), BACK (1: back-propagation). Launched cooperatively: blocks wait for each other. Every argument is a pointer or
// a long long.

#include "steps/update.cuh"

#ifndef SHARED_MEMORY
#define SHARED_MEMORY(name) extern __shared__ __align__(32) unsigned char name[];
#endif

enum { OK, NOT_CONVEX, NOT_FINITE, CUT_OFF, WRONG_PLAN };  // those of kernels.py, and a defect of gpu_steps.py

struct Steps : Update {
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
    Steps net;
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
