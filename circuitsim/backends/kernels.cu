// The GPU's kernels: one thread for each unit in one row of the batch, flat arrays only.
// Twins: kernels.py (relax), branch_sums.py (violations).
//
// Arrays of units are (units, rows), the row varying fastest: the threads of a warp follow the same law and read
// neighbouring voltages. A count of rows beside an array is 1 where its one column stands for all rows. Every argument
// is a pointer or a long long.

typedef long long integer;

#define PWL 1
#define TANH 2
#define SINH 3
#define SEGMENT 4
#define N_PARAMS 6
#define MAX_EXPONENT 700.0
#define STRAIGHT 500.0
#define STEPS 200  // of a safeguarded Newton iteration
#define INF __longlong_as_double(0x7ff0000000000000LL)
#define EPS 2.220446049250313e-16

// The junctions of a unit: entries first:last of these arrays, as in backends/arrange.py.
struct Junctions {
    const integer* other;   // unit at the other end, -1: known
    const double* sign;     // +1: the unit is the anode
    const integer* number;  // of the junction, a row of `offset`
    const integer* law;
    const double* params;
    const double* offset;  // (junctions, offset_rows)
    integer offset_rows;
    integer first, last;
};

__device__ inline double within(double x, double low, double high) {  // NaN stays
    x = x < low ? low : x;
    return x > high ? high : x;
}

// Current and slope of the bare junction at voltage w; p: is, nvt, rs, bv, nbv_vt, gmin.
__device__ inline double shockley(const double* p, double w, double* slope) {
    double i, g;
    if (w < -p[3]) {
        i = -p[0] * exp(fmin(-(w + p[3]) / p[4], MAX_EXPONENT));
        g = -i / p[4];
    } else if (w < -3.0 * p[1]) {
        const double arg = 3.0 * p[1] / (w * 2.718281828459045);
        const double cube = arg * arg * arg;
        i = -p[0] * (1.0 + cube);
        g = p[0] * 3.0 * cube / w;
    } else {
        const double z = fmin(w / p[1], MAX_EXPONENT);
        i = p[0] * expm1(z);
        g = p[0] * exp(z) / p[1];
    }
    *slope = g + p[5];
    return i + p[5] * w;
}

// Current and slope of a nonlinear branch at voltage v.
__device__ inline double branch(integer law, const double* p, double v, double* slope) {
    if (law == PWL) {
        double i = 0.0, g = 0.0;
        if (v > p[1]) {
            i += p[0] * (v - p[1]);
            g += p[0];
        }
        if (-v > p[3]) {
            i -= p[2] * (-v - p[3]);
            g += p[2];
        }
        *slope = g;
        return i;
    }
    if (law == SEGMENT) {
        *slope = p[1] <= v && v < p[2] ? p[0] : 0.0;
        return p[0] * (within(v, p[1], p[2]) - within(0.0, p[1], p[2]));
    }
    if (law == TANH || law == SINH) {
        const double z = within(v / p[1], -STRAIGHT, STRAIGHT);
        if (law == SINH) {
            *slope = p[0] / p[1] * cosh(z);
            return p[0] * sinh(z) + *slope * (v - z * p[1]);
        }
        const double e = exp(-2.0 * fabs(z));
        *slope = p[0] / p[1] * (4.0 * e / ((1.0 + e) * (1.0 + e)));
        return p[0] * tanh(z);
    }
    const double rs = p[2];
    if (rs == 0.0) return shockley(p, v, slope);
    double low = fmin(v, 0.0), high = fmax(v, 0.0), w = v, g;
    if (rs * p[0] > 0.0) {  // where the exponential alone would carry all of v / RS: beyond the root
        const double decades = log1p(fabs(v) / (rs * p[0]));
        w = v > 0.0 ? fmin(v, p[1] * decades) : fmax(v, -(p[3] + p[4] * decades));
    }
    for (int step = 0; step < STEPS; ++step) {
        const double error = w + rs * shockley(p, w, &g) - v;
        if (error < 0.0) low = w;
        else if (error > 0.0) high = w;
        else break;
        double next = w - error / (1.0 + rs * g);
        if (next == w) break;
        if (!(low < next && next < high)) next = 0.5 * (low + high);
        w = next;
    }
    const double i = shockley(p, w, &g);
    *slope = g / (1.0 + rs * g);
    return i;
}

// The fixed part of a junction's anode minus cathode voltage.
__device__ inline double offset_of(const Junctions& j, integer k, integer row) {
    return j.offset[j.number[k] * j.offset_rows + (j.offset_rows > 1 ? row : 0)];
}

// Where a unit must be for no voltage across its junction k.
template <typename Real>
__device__ inline double zero_of(const Junctions& j, integer k, const Real* x, integer rows, integer row) {
    const double other = j.other[k] >= 0 ? (double)x[j.other[k] * rows + row] : 0.0;
    return other - j.sign[k] * offset_of(j, k, row);
}

// diag v - current + junction currents out of the unit, and its slope.
template <typename Real>
__device__ inline double unit_kcl(
    double v, double diag, double current, const Junctions& j, const Real* x, integer rows, integer row, double* slope) {
    double h = diag * v - current, g;
    *slope = diag;
    for (integer k = j.first; k < j.last; ++k) {
        h += j.sign[k] * branch(j.law[k], j.params + k * N_PARAMS, j.sign[k] * (v - zero_of(j, k, x, rows, row)), &g);
        *slope += g;
    }
    return h;
}

// The root of unit_kcl near v: Newton, kept in a bracket, bisecting where Newton gains too little.
template <typename Real>
__device__ inline double unit_root(
    double v, double diag, double current, const Junctions& j, const Real* x, integer rows, integer row) {
    double low = INF, high = -INF, slope;
    if (diag > 0.0) low = high = current / diag;
    for (integer k = j.first; k < j.last; ++k) {
        const double zero = zero_of(j, k, x, rows, row);
        low = fmin(low, zero);
        high = fmax(high, zero);
    }
    if (diag == 0.0)
        for (double reach = 0.1; reach < 1e12; reach *= 2.0) {
            const double below = unit_kcl(low, diag, current, j, x, rows, row, &slope);
            const double above = unit_kcl(high, diag, current, j, x, rows, row, &slope);
            if (below <= 0.0 && 0.0 <= above) break;
            low -= reach;
            high += reach;
        }
    v = within(v, low, high);
    double h = unit_kcl(v, diag, current, j, x, rows, row, &slope);
    double best = v, best_h = fabs(h), before = high - low;
    for (int n = 0; n < STEPS && h != 0.0; ++n) {
        if (h > 0.0) high = v;
        else low = v;
        const double step = slope > 0.0 ? h / slope : INF;
        double next = v - step;
        if (!(low < next && next < high) || fabs(step) > 0.5 * before) next = 0.5 * (low + high);
        before = fabs(next - v);
        if (next == v || next == low || next == high) break;
        v = next;
        h = unit_kcl(v, diag, current, j, x, rows, row, &slope);
        if (fabs(h) < best_h) {
            best = v;
            best_h = fabs(h);
        }
    }
    return best;
}

// Exact steps of units start:stop in every row; *moved = 1 if any unit moved. `current` holds injections and dense
// couplings; the sparse ones are added here.
template <typename Real>
__device__ inline void relax(
    integer rows, integer start, integer stop, Real* x, const Real* current, integer current_rows, const Real* lo,
    const Real* hi, integer bound_rows, const Real* diag, const integer* ptr, const int* indices, const Real* data,
    const integer* j_ptr, const integer* j_other, const double* j_sign, const integer* j_number, const integer* j_law,
    const double* j_params, const double* offset, integer offset_rows, int* moved) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= rows * (stop - start)) return;
    const integer unit = start + thread / rows, row = thread % rows;
    Real total = current[unit * current_rows + (current_rows > 1 ? row : 0)];
    for (integer k = ptr[unit]; k < ptr[unit + 1]; ++k) total += data[k] * x[indices[k] * rows + row];
    const Real old = x[unit * rows + row];
    Real target = old;
    if (j_ptr[unit + 1] > j_ptr[unit]) {
        const Junctions j = {j_other, j_sign, j_number, j_law, j_params, offset, offset_rows, j_ptr[unit],
                             j_ptr[unit + 1]};
        target = (Real)unit_root((double)old, (double)diag[unit], (double)total, j, x, rows, row);
    } else if (diag[unit] > 0) {
        target = total / diag[unit];
    } else if (total > 0) {
        target = (Real)INF;
    } else if (total < 0) {
        target = (Real)-INF;
    }
    const integer bound = unit * bound_rows + (bound_rows > 1 ? row : 0);
    target = target < lo[bound] ? lo[bound] : target;
    target = target > hi[bound] ? hi[bound] : target;
    x[unit * rows + row] = target;
    if (target != old) *moved = 1;
}

#define RELAX(name, Real)                                                                                              \
    extern "C" __global__ void name(                                                                                   \
        integer rows, integer start, integer stop, Real* x, const Real* current, integer current_rows, const Real* lo, \
        const Real* hi, integer bound_rows, const Real* diag, const integer* ptr, const int* indices,                  \
        const Real* data, const integer* j_ptr, const integer* j_other, const double* j_sign, const integer* j_number, \
        const integer* j_law, const double* j_params, const double* offset, integer offset_rows, int* moved) {         \
        relax<Real>(rows, start, stop, x, current, current_rows, lo, hi, bound_rows, diag, ptr, indices, data, j_ptr,  \
                    j_other, j_sign, j_number, j_law, j_params, offset, offset_rows, moved);                           \
    }

RELAX(relax_float64, double)
RELAX(relax_float32, float)

// The certificate's figures of every unit: flow (F), slope, rho, upper (a bound of the relative violation), certain (a
// relative violation that it has for sure, 0: none). `dense` (units, 2 rows) holds what dense couplings make of x, then
// of |x|; fixed_rows 0 says that free nodes have offsets; F may be off by terms EPS times the size of its terms.
extern "C" __global__ void violations(
    integer rows, integer units, const double* x, const double* dense, const double* diag, const double* to_fixed,
    const integer* ptr, const int* indices, const double* data, const integer* j_ptr, const integer* j_other,
    const double* j_sign, const integer* j_number, const integer* j_law, const double* j_params, const double* offset,
    integer offset_rows, const double* injection, integer injection_rows, const double* source_flow,
    const double* source_abs, integer source_rows, const double* fixed_abs, integer fixed_rows, const double* lo,
    const double* hi, integer bound_rows, integer terms, double* flow, double* slope, double* rho, double* upper,
    double* certain) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= rows * units) return;
    const integer unit = thread / rows, row = thread % rows, at = unit * rows + row;
    const double v = x[at], own = diag[unit] * v;
    double neighbours = dense[unit * 2 * rows + row], neighbours_abs = dense[unit * 2 * rows + rows + row];
    for (integer k = ptr[unit]; k < ptr[unit + 1]; ++k) {
        const double other = x[indices[k] * rows + row];
        neighbours += data[k] * other;
        neighbours_abs += data[k] * fabs(other);
    }
    const Junctions j = {j_other, j_sign, j_number, j_law, j_params, offset, offset_rows, j_ptr[unit], j_ptr[unit + 1]};
    double nonlinear = 0.0, nonlinear_abs = 0.0, steep = diag[unit], g;
    for (integer k = j.first; k < j.last; ++k) {
        const double other = j.other[k] >= 0 ? x[j.other[k] * rows + row] : 0.0;  // differences first: nothing is lost
        const double across = j.sign[k] * (v - other) + offset_of(j, k, row);
        const double amps = branch(j.law[k], j.params + k * N_PARAMS, across, &g);
        nonlinear += j.sign[k] * amps;
        nonlinear_abs += fabs(amps);
        steep += g;
    }
    const double injected = injection[unit * injection_rows + (injection_rows > 1 ? row : 0)];
    const double by_current_sources = source_flow[unit * source_rows + (source_rows > 1 ? row : 0)];
    const double source_size = source_abs[unit * source_rows + (source_rows > 1 ? row : 0)];
    const integer bound = unit * bound_rows + (bound_rows > 1 ? row : 0);
    const double low = lo[bound], high = hi[bound];
    const double out = own - injected - neighbours + nonlinear;
    double violation = out;
    bool held = false;
    if (low > -INF && steep * (v - low) <= out) {
        violation = steep * (v - low);
        held = violation == 0.0;
    } else if (high < INF && steep * (v - high) >= out) {
        violation = steep * (v - high);
        held = violation == 0.0;
    }
    if (steep == 0.0 && ((out > 0.0 && v > low) || (out < 0.0 && v < high))) violation = out;
    flow[at] = out;
    slope[at] = steep;
    rho[at] = violation;
    certain[at] = 0.0;
    const double size = (double)terms * EPS * (fabs(own) + fabs(injected) + fabs(neighbours));
    const double most = held && fabs(out) > size ? 0.0 : fabs(violation) + size;
    if (most == 0.0) {
        upper[at] = 0.0;
        return;
    }
    double least = source_size + nonlinear_abs;
    const double by_sources = injected - by_current_sources;
    if (fixed_rows == 0) {  // offsets tie the groups together: only their sum is one
        least += fabs(own - by_sources - neighbours);
    } else {
        const double inner = diag[unit] - to_fixed[unit];
        const double fixed_size = fixed_abs[unit * fixed_rows + (fixed_rows > 1 ? row : 0)];
        least += fmax(fabs(inner * v - neighbours), fabs(neighbours_abs - inner * fabs(v)));
        least += fmax(fabs(to_fixed[unit] * v - by_sources), fabs(fixed_size - to_fixed[unit] * fabs(v)));
        const double at_most = source_size + nonlinear_abs + fixed_size + neighbours_abs + fabs(own);
        if (fabs(violation) - size > 0.0) certain[at] = (fabs(violation) - size) / at_most;
    }
    upper[at] = least > 0.0 ? most / least : INF;
}
