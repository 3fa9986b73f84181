// The GPU's kernels: one thread for each unit in one row of the batch, flat arrays only.
// Twins: law_kernels.py (branch), kernels.py (relax), branch_sums.py (violations, dense_sums), linear/elimination.py
// (eliminate, substitute), laws.py and methods/tiles.py (tangents), residual.py (kcl), scipy.sparse.linalg.cg (cg_*).
//
// Arrays of units are (units, rows), the row varying fastest: the threads of a warp follow the same law and read
// neighbouring voltages. The row count given with an array is 1 if its single column applies to all rows. Every
// argument is a pointer or a long long.

typedef long long integer;

#define SHOCKLEY 0
#define PWL 1
#define TANH 2
#define SINH 3
#define SEGMENT 4
// Columns of parameters, by law (law_kernels.py).
enum { IS, NVT, RS, BV, NBV_VT, GMIN, PER_IKF, ISR, NR_VT, PER_VJ, HALF_M, N_PARAMS };
enum { G_FORWARD, V_FORWARD, G_REVERSE, V_REVERSE };
enum { SCALE, V0 };
enum { G, LO, HI };
#define MAX_EXPONENT 700.0
#define STRAIGHT 500.0
#define LEAST_SQUARE 0.005
#define RECOMBINING 600.0
#define SPENT 1e-2
#define MOST_SPENT 1e12
#define BEYOND (1.0 + 1e-15)
#define FAR 1e150
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

// Current and slope of the bare junction at voltage w; p as in law_kernels.Law.
__device__ inline double shockley(const double* p, double w, double* slope) {
    double i, g;
    if (w < -3.0 * p[NVT] && w < -p[BV]) {
        i = -p[IS] * exp(fmin(-(w + p[BV]) / p[NBV_VT], MAX_EXPONENT));
        g = -i / p[NBV_VT];
    } else if (w < -3.0 * p[NVT]) {
        const double arg = 3.0 * p[NVT] / (w * 2.718281828459045);
        const double cube = arg * arg * arg;
        i = -p[IS] * (1.0 + cube);
        g = p[IS] * 3.0 * cube / w;
    } else {
        const double z = fmin(w / p[NVT], MAX_EXPONENT);
        i = p[IS] * expm1(z);
        g = p[IS] * exp(z) / p[NVT];
    }
    if (p[ISR] > 0.0) {
        const double at = fmin(w, RECOMBINING * p[NR_VT]), z = at / p[NR_VT], depleted = fmin(1.0 - at * p[PER_VJ], FAR);
        const double square = depleted * depleted + LEAST_SQUARE, factor = pow(square, p[HALF_M]);
        const double current = p[ISR] * expm1(z);
        i += current * factor;
        g += factor * (p[ISR] * exp(z) / p[NR_VT] - current * (2.0 * p[HALF_M] * p[PER_VJ] * depleted / square));
    }
    if (p[PER_IKF] > 0.0 && i > 0.0) {
        const double root = sqrt(i) * sqrt(p[PER_IKF]);
        i /= 1.0 + root;
        g = g / (1.0 + root) * ((1.0 + 0.5 * root) / (1.0 + root));
    }
    *slope = g + p[GMIN];
    return i + p[GMIN] * w;
}

// The factor by which a current i of the junction would be larger without IKF.
__device__ inline double before_knee(const double* p, double i) {
    if (p[PER_IKF] == 0.0 || i <= 0.0) return 1.0;
    const double ratio = i * p[PER_IKF];
    return 1.0 + 0.5 * (ratio + sqrt(ratio) * sqrt(ratio + 4.0));
}

// A voltage at which ISR alone carries i > 0 at least.
__device__ inline double recombination_voltage(const double* p, double i) {
    return p[ISR] > 0.0 ? p[NR_VT] * log1p(i / (p[ISR] * pow(LEAST_SQUARE, p[HALF_M]))) : INF;
}

// The root w of w + RS i(w) = v.
__device__ inline double junction_voltage(const double* p, double v) {
    const double rs = p[RS];
    if (rs == 0.0) return v;
    double low = fmin(v, 0.0), high = fmax(v, 0.0), w = v, g;
    if (rs * p[IS] > 0.0) {  // where an exponential alone would carry all of v / RS: beyond the root
        const double before = before_knee(p, v / rs), decades = log1p(fabs(v) / (rs * p[IS]) * before);
        w = v > 0.0 ? fmin(v, p[NVT] * decades) : fmax(v, fmin(-(p[BV] + p[NBV_VT] * decades), -3.0 * p[NVT] * BEYOND));
        if (v > 0.0) w = fmin(w, recombination_voltage(p, v / rs * before));
    }
    for (int step = 0; step < STEPS; ++step) {
        const double error = w + rs * shockley(p, w, &g) - v;
        if (error < 0.0) low = w;
        else if (error > 0.0) high = w;
        else break;
        double next = w - error / (1.0 + rs * g);
        if (next != w && !(low < next && next < high)) next = 0.5 * (low + high);
        if (next == w) break;  // also where low and high are neighbours: halfway is one of them
        w = next;
    }
    return w;
}

// Current and slope of a nonlinear branch at voltage v.
__device__ inline double branch(integer law, const double* p, double v, double* slope) {
    if (v != v) {
        *slope = law == PWL || law == SEGMENT ? 0.0 : v;
        return v;  // NaN, which fmin and fmax would lose
    }
    if (law == PWL) {
        double i = 0.0, g = 0.0;
        if (v > p[V_FORWARD]) {
            i += p[G_FORWARD] * (v - p[V_FORWARD]);
            g += p[G_FORWARD];
        }
        if (-v > p[V_REVERSE]) {
            i -= p[G_REVERSE] * (-v - p[V_REVERSE]);
            g += p[G_REVERSE];
        }
        *slope = g;
        return i;
    }
    if (law == SEGMENT) {
        *slope = p[LO] <= v && v < p[HI] ? p[G] : 0.0;
        return p[G] * (within(v, p[LO], p[HI]) - within(0.0, p[LO], p[HI]));
    }
    if (law == TANH || law == SINH) {
        const double z = within(v / p[V0], -STRAIGHT, STRAIGHT);
        if (law == SINH) {
            *slope = p[SCALE] / p[V0] * cosh(z);
            return p[SCALE] * sinh(z) + *slope * (v - z * p[V0]);
        }
        const double e = exp(-2.0 * fabs(z));
        *slope = p[SCALE] / p[V0] * (4.0 * e / ((1.0 + e) * (1.0 + e)));
        return p[SCALE] * tanh(z);
    }
    const double w = junction_voltage(p, v);
    double g;
    const double i = shockley(p, w, &g);
    *slope = g / (1.0 + p[RS] * g);
    return i;
}

// The fixed part of a junction's anode minus cathode voltage.
__device__ inline double offset_of(const Junctions& j, integer k, integer row) {
    return j.offset[j.number[k] * j.offset_rows + (j.offset_rows > 1 ? row : 0)];
}

// The voltage of a unit at which there is none across its junction k.
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

// The root of unit_kcl near v: Newton, kept in a bracket (a bit wider, for roots at its ends), bisecting after a step
// that gained too little, until only rounding is left.
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
    double best = v, best_h = fabs(h), before = INF;  // the last step, if it was one of Newton
    const double wider = 4.0 * EPS * fmax(fabs(low), fabs(high));
    low -= wider;
    high += wider;
    for (int n = 0; n < STEPS && fabs(h) > EPS * (fabs(current) + slope * fabs(v)); ++n) {
        if (h > 0.0) high = v;
        else low = v;
        const double step = slope > 0.0 ? h / slope : INF;
        double next = v - step;
        if (low < next && next < high && fabs(step) <= 0.5 * before) {
            before = fabs(step);
        } else {
            next = 0.5 * (low + high);
            before = INF;
        }
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

// The certificate's figures of every unit (residual.Check): flow (F), slope, rho, upper (a bound of the relative
// violation), most (a bound of |rho|), certain (a relative violation that it certainly has, 0: none). `dense` (units,
// 2 rows) holds the products of the dense couplings with x, then with |x|; fixed_rows 0 says that free nodes have
// offsets; F may be off by terms EPS times the size of its terms.
extern "C" __global__ void violations(
    integer rows, integer units, const double* x, const double* dense, const double* diag, const double* to_fixed,
    const integer* ptr, const int* indices, const double* data, const integer* j_ptr, const integer* j_other,
    const double* j_sign, const integer* j_number, const integer* j_law, const double* j_params, const double* offset,
    integer offset_rows, const double* injection, integer injection_rows, const double* source_flow,
    const double* source_abs, integer source_rows, const double* fixed_abs, integer fixed_rows, const double* lo,
    const double* hi, integer bound_rows, integer terms, double* flow, double* slope, double* rho, double* upper,
    double* most, double* certain) {
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
    if (low > -INF && steep * (v - low) <= out) violation = steep * (v - low);
    else if (high < INF && steep * (v - high) >= out) violation = steep * (v - high);
    if (steep == 0.0 && ((out > 0.0 && v > low) || (out < 0.0 && v < high))) violation = out;
    flow[at] = out;
    slope[at] = steep;
    rho[at] = violation;
    certain[at] = 0.0;
    const double size = (double)terms * EPS * (fabs(own) + fabs(injected) + fabs(neighbours));
    const double largest = violation == 0.0 && fabs(out) > size ? 0.0 : fabs(violation) + size;  // a diode carries F
    most[at] = largest;
    if (largest == 0.0) {
        upper[at] = 0.0;
        return;
    }
    double least = source_size + nonlinear_abs;
    const double by_sources = injected - by_current_sources;
    if (fixed_rows == 0) {  // with offsets only the sum of all terms, not of each group, bounds the currents from below
        least += fabs(own - by_sources - neighbours);
    } else {
        const double inner = diag[unit] - to_fixed[unit];
        const double fixed_size = fixed_abs[unit * fixed_rows + (fixed_rows > 1 ? row : 0)];
        least += fmax(fabs(inner * v - neighbours), fabs(neighbours_abs - inner * fabs(v)));
        least += fmax(fabs(to_fixed[unit] * v - by_sources), fabs(fixed_size - to_fixed[unit] * fabs(v)));
        const double at_most = source_size + nonlinear_abs + fixed_size + neighbours_abs + fabs(own);
        if (fabs(violation) - size > 0.0) certain[at] = (fabs(violation) - size) / at_most;
    }
    upper[at] = least > 0.0 ? largest / least : INF;
}

// Adds sum_j |g (x_u - x_j)| over a dense block to `total` at the targets u whose `upper` exceeds the tolerance. g has
// `by_target` numbers from one target to the next, `by_source` from one source j to the next.
extern "C" __global__ void dense_sums(integer rows, integer count, const integer* targets, integer sources_count,
                                      const integer* sources, const double* g, integer by_target, integer by_source,
                                      const double* x, const double* upper, const double* tolerance, double* total) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= rows * count) return;
    const integer target = thread / rows, row = thread % rows, at = targets[target] * rows + row;
    if (!(upper[at] > *tolerance)) return;
    const double v = x[at];
    double sum = 0.0;
    for (integer k = 0; k < sources_count; ++k)
        sum += g[target * by_target + k * by_source] * fabs(v - x[sources[k] * rows + row]);
    total[at] += sum;
}

// -- Newton's steps of many rows: methods/tiles.py, backends/gpu_newton.py -------------------------------------------

// a / b; 0 / b = 0.
__device__ inline double ratio(double a, double b) { return a == 0.0 ? 0.0 : a / b; }

// The voltage at which the exponentials of a Shockley diode, that of IS or that of ISR, carry i.
__device__ inline double shockley_voltage(const double* p, double i) {
    const double before = i * before_knee(p, i);
    const double times = ratio(before, p[IS]), least = expm1(-3.0), exponent = log(fmax(-times, 1.0));
    const double edge = -fmax(p[BV], 3.0 * p[NVT]);  // of breakdown
    double w;
    if (times > expm1(MAX_EXPONENT)) w = INF;
    else if (exponent > MAX_EXPONENT) w = -INF;
    else if (times <= -1.0) w = fmin(-(p[BV] + p[NBV_VT] * exponent), edge);
    else if (times < least) w = fmax(-3.0 * p[NVT] / (2.718281828459045 * cbrt(1.0 + times)), edge);
    else w = fmax(p[NVT] * log1p(times), edge);
    if (i > 0.0) w = fmin(w, recombination_voltage(p, before));
    return w + p[RS] * i;
}

// SPICE's critical voltage of an exponential; INF where it carries nothing.
__device__ inline double critical(double saturation, double nvt) {
    return nvt * log(nvt / (1.4142135623730951 * saturation));
}

// The voltage at which a sinh branch carries i.
__device__ inline double sinh_voltage(const double* p, double i) {
    const double z = within(asinh(ratio(i, p[SCALE])), -STRAIGHT, STRAIGHT);
    return p[V0] * z + ratio(i - p[SCALE] * sinh(z), p[SCALE] / p[V0] * cosh(z));
}

// The voltage at which the exponential of a branch carries i.
__device__ inline double exponential_voltage(integer law, const double* p, double i) {
    return law == SHOCKLEY ? shockley_voltage(p, i) : sinh_voltage(p, i);
}

// The voltage of the next tangent (limiting.limited): the old one, at the voltage `was` with the current `had`, led to
// the voltage v and gives the current `line` there.
__device__ inline double limited(integer law, const double* p, double was, double had, double v, double line) {
    if (law != SHOCKLEY && law != SINH) return v;
    double knee = 0.0, broken = 0.0;
    if (law == SHOCKLEY) {
        knee = critical(p[IS], p[NVT]);
        if (p[ISR] > 0.0) knee = fmin(knee, critical(p[ISR], p[NR_VT]));
        knee = knee > 0.0 && knee < INF ? knee : 0.0;
        broken = -(fmax(p[BV], 3.0 * p[NVT]) + knee);
    }
    const double out = fmax(line, 0.0), in = fmin(line, 0.0), highest = fmax(was, knee), lowest = fmin(was, broken);
    if (v > highest) return fmin(v, fmax(exponential_voltage(law, p, out), highest));
    if (v < lowest) return fmax(v, fmin(exponential_voltage(law, p, in), lowest));
    if (fabs(line) > SPENT * fabs(had) || fabs(had) > MOST_SPENT) return v;
    if (had > 0.0 && v < was) return fmin(v, exponential_voltage(law, p, out));
    if (had < 0.0 && v > was) return fmax(v, exponential_voltage(law, p, in));
    return v;
}

// into[to[k]] += part * from[k], both of stride `rows`, for distinct to[k] that are not among the from[k]. Several at a
// time: no load waits for a store before it.
#define TOGETHER 8
template <typename Place>
__device__ inline void add_multiples(
    integer count, const Place* to, double* into, const double* from, integer rows, double part) {
    integer k = 0;
    for (; k + TOGETHER <= count; k += TOGETHER) {
        integer place[TOGETHER];
        double sum[TOGETHER];
        for (int i = 0; i < TOGETHER; ++i) {
            place[i] = (integer)to[k + i] * rows;
            sum[i] = into[place[i]] + part * from[(k + i) * rows];
        }
        for (int i = 0; i < TOGETHER; ++i) into[place[i]] = sum[i];
    }
    for (; k < count; ++k) into[(integer)to[k] * rows] += part * from[k * rows];
}

// In each row, eliminate one network node by node (star-mesh transformation). Column j of the pattern has the entries
// ptr[j]:ptr[j + 1], the last of them to ground; `target` lists, pair after pair of a column's entries, the entry that
// each pair adds to. An entry is its linear conductance, linear (entries, sets), plus the slopes of the legs
// leg_ptr[e]:leg_ptr[e + 1]. There is one set for all rows, or one for each. value (entries, rows); pivot (columns,
// rows) is 1 / d, 0 where nothing joins the node to ground.
extern "C" __global__ void eliminate(
    integer rows, integer columns, const integer* ptr, const int* target, const double* linear, integer sets,
    const integer* leg_ptr, const integer* legs, const double* slope, double* value, double* pivot) {
    const integer row = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    const integer entries = ptr[columns];
    for (integer e = 0; e < entries; ++e) {
        double g = linear[e * sets + (sets > 1 ? row : 0)];
        for (integer k = leg_ptr[e]; k < leg_ptr[e + 1]; ++k) g += slope[legs[k] * rows + row];
        value[e * rows + row] = g;
    }
    for (integer j = 0; j < columns; ++j) {
        const integer first = ptr[j], end = ptr[j + 1];
        double d = 0.0;
        for (integer e = first; e < end; ++e) d += value[e * rows + row];
        const double inverse = d > 0.0 ? 1.0 / d : 0.0;
        pivot[j * rows + row] = inverse;
        for (integer e = first; e < end; ++e) {
            const integer others = end - e - 1;
            const double part = value[e * rows + row] * inverse;
            add_multiples(others, target, value + row, value + (e + 1) * rows + row, rows, part);
            target += others;
        }
    }
}

// In each row, currents into the nodes, x (units, rows), become voltages. Column j stands for unit[j], entry e joins it
// to end[e], -1: ground.
extern "C" __global__ void substitute(
    integer rows, integer columns, const integer* unit, const integer* ptr, const integer* end, const double* value,
    const double* pivot, double* x) {
    const integer row = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    for (integer j = 0; j < columns; ++j) {
        const integer first = ptr[j], others = ptr[j + 1] - 1 - first;
        const double part = x[unit[j] * rows + row] * pivot[j * rows + row];
        x[unit[j] * rows + row] = part;
        add_multiples(others, end + first, x + row, value + first * rows + row, rows, part);
    }
    for (integer j = columns - 1; j >= 0; --j) {
        const integer first = ptr[j], last = ptr[j + 1] - 1;
        double total = 0.0;
        for (integer e = first; e < last; ++e) total += value[e * rows + row] * x[end[e] * rows + row];
        x[unit[j] * rows + row] += total * pivot[j * rows + row];
    }
}

// The currents into every unit of the linear network of the tangents: its injection, less what the tangents carry out
// of it where all unknowns are 0.
extern "C" __global__ void inject(
    integer rows, integer units, const integer* j_ptr, const double* j_sign, const integer* j_number, const double* w,
    const double* current, const double* slope, const double* offset, integer offset_rows, const double* injection,
    integer injection_rows, double* x) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= rows * units) return;
    const integer unit = thread / rows, row = thread % rows;
    double total = injection[unit * injection_rows + (injection_rows > 1 ? row : 0)];
    for (integer k = j_ptr[unit]; k < j_ptr[unit + 1]; ++k) {
        const integer leg = j_number[k], at = leg * rows + row;
        const double zero = offset[leg * offset_rows + (offset_rows > 1 ? row : 0)];
        total -= j_sign[k] * (current[at] + slope[at] * (zero - w[at]));
    }
    x[unit * rows + row] = total;
}

// New tangents (w, current, slope) of all legs from their voltages at the unknowns x; amps is the size of a leg's
// current at that voltage, miss the error of its old tangent there; all (legs, rows). a and k are units, -1: known.
// params is (sets, legs, N_PARAMS).
extern "C" __global__ void tangents(
    integer rows, integer legs, const double* x, const integer* a, const integer* k, const integer* law,
    const double* params, integer sets, const double* offset, integer offset_rows, double* w, double* current,
    double* slope, double* amps, double* miss) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= rows * legs) return;
    const integer leg = thread / rows, row = thread % rows, at = leg * rows + row;
    const double* p = params + ((sets > 1 ? row : 0) * legs + leg) * N_PARAMS;
    const double high = a[leg] >= 0 ? x[a[leg] * rows + row] : 0.0, low = k[leg] >= 0 ? x[k[leg] * rows + row] : 0.0;
    const double v = high - low + offset[leg * offset_rows + (offset_rows > 1 ? row : 0)];
    const double line = current[at] + slope[at] * (v - w[at]);
    double g, i = branch(law[leg], p, v, &g);
    amps[at] = fabs(i);
    miss[at] = fabs(i - line);
    const double from = limited(law[leg], p, w[at], current[at], v, line);
    if (from != v) i = branch(law[leg], p, from, &g);
    w[at] = from;
    current[at] = i;
    slope[at] = g;
}

// The certificate of a network without ideal diodes and controlled sources, branch by branch: each unit's KCL violation
// rho (A), a bound of its size that includes rounding, and a bound of the relative violation. Entries
// g_ptr[u]:g_ptr[u + 1] are the conductances g from unit u to unit `near`; g and to_fixed are (..., sets), params (sets,
// legs, N_PARAMS). fixed_rows 0: free nodes have offsets.
extern "C" __global__ void kcl(
    integer rows, integer units, const double* x, const integer* g_ptr, const integer* near, const double* g,
    const double* to_fixed, const integer* j_ptr, const integer* j_other, const double* j_sign, const integer* j_number,
    integer legs, const integer* law, const double* params, integer sets, const double* offset, integer offset_rows,
    const double* injection, integer injection_rows, const double* source_flow, const double* source_abs,
    integer source_rows, const double* fixed_abs, integer fixed_rows, integer terms, double* rho, double* most,
    double* upper) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= rows * units) return;
    const integer unit = thread / rows, row = thread % rows, at = unit * rows + row, set = sets > 1 ? row : 0;
    const double v = x[at], known = to_fixed[unit * sets + set] * v;
    double out = 0.0, size = 0.0, nonlinear = 0.0, nonlinear_abs = 0.0, inexact = 0.0;
    for (integer k = g_ptr[unit]; k < g_ptr[unit + 1]; ++k) {
        const double amps = g[k * sets + set] * (v - x[near[k] * rows + row]);
        out += amps;
        size += fabs(amps);
    }
    for (integer k = j_ptr[unit]; k < j_ptr[unit + 1]; ++k) {
        double slope;
        const integer leg = j_number[k];
        const double other = j_other[k] >= 0 ? x[j_other[k] * rows + row] : 0.0;
        const double across = j_sign[k] * (v - other) + offset[leg * offset_rows + (offset_rows > 1 ? row : 0)];
        const double amps = branch(law[leg], params + (set * legs + leg) * N_PARAMS, across, &slope);
        nonlinear += j_sign[k] * amps;
        nonlinear_abs += fabs(amps);
        inexact += slope * (fabs(v) + fabs(across));
    }
    const double injected = injection[unit * injection_rows + (injection_rows > 1 ? row : 0)];
    const integer source = unit * source_rows + (source_rows > 1 ? row : 0);
    const double by_sources = injected - source_flow[source];
    const double fixed_size = fixed_rows ? fixed_abs[unit * fixed_rows + (fixed_rows > 1 ? row : 0)] : fabs(by_sources);
    double least = source_abs[source] + nonlinear_abs;
    if (fixed_rows) least += size + fmax(fabs(known - by_sources), fabs(fixed_size - fabs(known)));
    else least += fabs(out + known - by_sources);
    size += fabs(known) + fixed_size + source_abs[source] + nonlinear_abs;
    out += known - injected + nonlinear;
    rho[at] = out;
    most[at] = fabs(out) + EPS * ((double)terms * size + 2.0 * inexact);
    upper[at] = most[at] == 0.0 ? 0.0 : least > 0.0 ? most[at] / least : INF;
}

// -- Conjugate gradients: linear/multigrid.py, backends/gpu_mesh.py ---------------------------------------------------

#define SUMS 256  // partial sums of a dot product
#define AT_ONCE 8  // loads of a thread that do not wait for each other

__device__ inline double total(const double* sums) {
    double all = 0.0;
    for (int k = 0; k < SUMS; ++k) all += sums[k];
    return all;
}

// q = A p; row u of A has the entries ptr[u]:ptr[u + 1]. Each thread takes every threads-th unknown; parts (threads,)
// are their shares of the dot product p q. `before` takes the value that `after` had from the last step.
extern "C" __global__ void cg_multiply(
    integer n, integer threads, const integer* ptr, const int* indices, const double* data, const double* p, double* q,
    double* parts, const double* after, double* before) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= threads) return;
    double part = 0.0;
    for (integer u = thread; u < n; u += threads) {
        double out = 0.0;
        for (integer k = ptr[u]; k < ptr[u + 1]; ++k) out += data[k] * p[indices[k]];
        q[u] = out;
        part += p[u] * out;
    }
    parts[thread] = part;
    if (thread < SUMS) before[thread] = after[thread];
}

// Add up parts (threads,) to SUMS sums; threads is a multiple of AT_ONCE SUMS.
extern "C" __global__ void cg_sum(integer threads, const double* parts, double* sums) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= SUMS) return;
    double several[AT_ONCE] = {};
    for (integer k = thread; k < threads; k += AT_ONCE * SUMS)
        for (int m = 0; m < AT_ONCE; ++m) several[m] += parts[k + m * SUMS];
    double sum = 0.0;
    for (int m = 0; m < AT_ONCE; ++m) sum += several[m];
    sums[thread] = sum;
}

// The step along p: new x and residual r; parts (threads,) are the threads' shares of r r / diag.
extern "C" __global__ void cg_advance(
    integer n, integer threads, const double* diag, const double* p, const double* q, const double* before,
    const double* energy, double* x, double* r, double* parts) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= threads) return;
    const double step = ratio(total(before), total(energy));
    double part = 0.0;
    for (integer u = thread; u < n; u += threads) {
        x[u] += step * p[u];
        const double left = r[u] - step * q[u];
        r[u] = left;
        part += left * left / diag[u];
    }
    parts[thread] = part;
}

// The next direction, p = r / diag + (after / before) p.
extern "C" __global__ void cg_turn(
    integer n, integer threads, const double* diag, const double* r, const double* after, const double* before,
    double* p) {
    const integer thread = (integer)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= threads) return;
    const double kept = ratio(total(after), total(before));
    for (integer u = thread; u < n; u += threads) p[u] = r[u] / diag[u] + kept * p[u];
}
