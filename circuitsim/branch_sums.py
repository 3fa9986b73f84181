"""Net and absolute sums of branch currents at units, branch by branch: Numba kernels of the certificate.

`flat_sums`, `end_sums` and `crossbar_sums` use the circuit's own branches and node voltages, none of the couplings that
solvers use; `violations` and `dense_sums` bound their results by products with the couplings. Voltages come in parts,
so that a difference keeps its digits: (v_a - v_b) + (low_a - low_b). So do sums: flow + low, where low gathers what
each addition rounds away (D. E. Knuth's TwoSum), so that currents between units cancel in the sum over these units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.compiled import jit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def ufunc_at(ufunc: np.ufunc, out: Floats, where: Ints, values: Floats) -> None:
    """ufunc.at(out, where, values) for out (n, rows) and values (m, rows or 1): the same bits, about six times faster.

    NumPy is fast for vectors only: it is called row by row, or, where there are more rows than values, value by value.

    >>> out = np.zeros((3, 1))
    >>> ufunc_at(np.add, out, np.array([0, 2, 0]), np.array([[1.0], [2.0], [3.0]]))
    >>> out.ravel()
    array([4., 0., 2.])
    """
    if out.shape[1] == 1:
        ufunc.at(out[:, 0], where, values[:, 0])
        return
    values = np.broadcast_to(values, (len(values), out.shape[1]))
    if len(values) < out.shape[1]:
        for n, place in enumerate(where.tolist()):
            ufunc(out[place], values[n], out=out[place])
    else:
        for row in range(out.shape[1]):
            ufunc.at(out[:, row], where, values[:, row])


@jit()
def flat_sums(ptr, branch, sign, a, b, g, v, flow, low, total):
    """Add the flat branches to flow + low (A, out of the unit) and total (A, absolute); unit u has ptr[u]:ptr[u+1].

    v (parts, rows, nodes): voltages are the sums of their parts; flow, low, total (rows, units).
    """
    for row in range(v.shape[1]):
        for u in range(ptr.size - 1):
            net, rest = flow[row, u], low[row, u]
            for k in range(ptr[u], ptr[u + 1]):
                n = branch[k]
                va, vb = v[0, row, a[n]], v[0, row, b[n]]
                drop = va - vb
                lost = _lost_in_sum(va, -vb, drop)
                for part in range(1, v.shape[0]):
                    va, vb = v[part, row, a[n]], v[part, row, b[n]]
                    more = va - vb
                    old = drop
                    drop = old + more
                    lost += _lost_in_sum(va, -vb, more) + _lost_in_sum(old, more, drop)
                conductance = sign[k] * g[n]
                current = conductance * drop
                lost = conductance * lost + _lost_in_product(conductance, drop, current)
                new = net + current
                rest += _lost_in_sum(net, current, new) + lost
                net = new
                total[row, u] += abs(current)
            flow[row, u], low[row, u] = net, rest


@jit()
def _lost_in_sum(x, y, total):
    """x + y - total, what rounding x + y to `total` lost, exactly (TwoSum)."""
    back = total - x
    return (x - (total - back)) + (y - back)


@jit()
def _lost_in_product(x, y, product):
    """x y - product, what rounding x y to `product` lost (T. J. Dekker 1971); 0 where splitting would overflow."""
    wide = 134217729.0  # 2^27 + 1
    p, q = wide * x, wide * y
    x_high, y_high = p - (p - x), q - (q - y)
    x_low, y_low = x - x_high, y - y_high
    lost = ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low
    return lost if abs(lost) <= abs(product) else 0.0


@jit()
def end_sums(unit, sign, current, flow, low, total):
    """Add currents (rows or 1, branches) at one of their ends: `unit` (-1: known), `sign` 1 where they leave it."""
    for row in range(flow.shape[0]):
        of = row if current.shape[0] > 1 else 0
        for k in range(unit.size):
            u = unit[k]
            if u >= 0:
                amps = sign * current[of, k]
                new = flow[row, u] + amps
                low[row, u] += _lost_in_sum(flow[row, u], amps, new)
                flow[row, u] = new
                total[row, u] += abs(amps)


@jit()
def crossbar_sums(rows, cols, g, unit_of_node, overlap, v, low, flow, total):
    """Add the currents of a crossbar at its free ends (unit -1 is known) to flow and total, (batch, units).

    v, low (batch, nodes): voltages are their sums. `overlap`: some unit is on both sides.

    Sums of a line add its halves to each other: vectors without fastmath, so that a row of a batch has the same bits
    alone, where Python runs this.
    """
    nc = cols.size
    amps, size = np.empty(nc), np.empty(nc)
    for row in range(flow.shape[0]):
        v_col, low_col = v[row][cols], low[row][cols]
        net, absolute = np.zeros(nc), np.zeros(nc)  # at the columns, out of the unit
        for i in range(rows.size):
            v_row, low_row, u, line = v[row, rows[i]], low[row, rows[i]], unit_of_node[rows[i]], g[i]
            for j in range(nc):
                amps[j] = line[j] * ((v_row - v_col[j]) + (low_row - low_col[j]))
            if overlap and u >= 0:
                for j in range(nc):
                    if u == unit_of_node[cols[j]]:
                        amps[j] = 0.0
            for j in range(nc):
                size[j] = abs(amps[j])
                net[j] -= amps[j]
                absolute[j] += size[j]
            if u >= 0 and nc:
                width = nc
                while width > 1:
                    half = (width + 1) // 2
                    for j in range(width - half):
                        amps[j] += amps[half + j]
                        size[j] += size[half + j]
                    width = half
                flow[row, u] += amps[0]
                total[row, u] += size[0]
        for j in range(nc):
            u = unit_of_node[cols[j]]
            if u >= 0:
                flow[row, u] += net[j]
                total[row, u] += absolute[j]


@jit()
def violations(
    x, neighbours, neighbours_abs, diag, to_fixed, injection, source_flow, source_abs, fixed_abs,
    nonlinear, slope, nonlinear_abs, lo, hi, rounding, groups, flow, rho, upper, most,
):  # fmt: skip
    """Fill flow (F), rho, most (of |rho|, with rounding) and upper (a bound on the relative violation), (rows or 1, n).

    `fixed_abs` of shape (rows, 0) means that free nodes have offsets. Returns a relative violation that some unit has
    for certain (0.0 if none is certain).

    The sum of absolute branch currents is at least what groups of branches give (only with `groups`): for the free
    neighbours |sum W (x - x_j)| and |sum W |x_j| - sum W |x||, likewise for the fixed potentials. F may be off by
    `rounding` times the size of its terms.
    """
    rows, n = x.shape
    certain = 0.0
    for b in range(rows):
        s = b if source_abs.shape[0] > 1 else 0
        f = b if fixed_abs.shape[0] > 1 else 0
        i = b if injection.shape[0] > 1 else 0
        k = b if nonlinear.shape[0] > 1 else 0
        d = b if lo.shape[0] > 1 else 0
        for u in range(n):  # values are computed and chosen, not branched to: then several units are done at once
            v, own = x[b, u], diag[u] * x[b, u]
            out = own - injection[i, u] - neighbours[b, u] + nonlinear[k, u]
            steep = diag[u] + slope[k, u]
            to_lo, to_hi = steep * (v - lo[d, u]), steep * (v - hi[d, u])  # without a bound inf and -inf, or NaN
            below, above = to_lo <= out, to_hi >= out
            violation = to_lo if below else (to_hi if above else out)
            loose = (steep == 0.0) & (((out > 0.0) & (v > lo[d, u])) | ((out < 0.0) & (v < hi[d, u])))
            violation = out if loose else violation
            flow[b, u], rho[b, u] = out, violation
            size = rounding * (abs(own) + abs(injection[i, u]) + abs(neighbours[b, u]))
            carried = (violation == 0.0) & (abs(out) > size)  # by an ideal diode
            largest = 0.0 if carried else abs(violation) + size
            least = source_abs[s, u] + nonlinear_abs[k, u]
            by_sources = injection[i, u] - source_flow[s, u]
            if groups and fixed_abs.shape[1] == 0:  # offsets tie the groups together: only their sum is one
                least += abs(own - by_sources - neighbours[b, u])
            elif groups:
                inner = diag[u] - to_fixed[u]
                net, absolute = abs(inner * v - neighbours[b, u]), abs(neighbours_abs[b, u] - inner * abs(v))
                least += net if net > absolute else absolute
                net, absolute = abs(to_fixed[u] * v - by_sources), abs(fixed_abs[f, u] - to_fixed[u] * abs(v))
                least += net if net > absolute else absolute
                at_most = source_abs[s, u] + nonlinear_abs[k, u] + fixed_abs[f, u] + neighbours_abs[b, u] + abs(own)
                sure = abs(violation) - size
                if sure > certain * at_most:
                    certain = sure / at_most
            bound = largest / least if least > 0.0 else np.inf
            most[b, u], upper[b, u] = largest, bound if largest != 0.0 else 0.0
    return certain


@jit()
def dense_sums(rows, cols, g, x, upper, tolerance, doubtful, total):
    """Add sum_j |g (x_u - x_j)| over a block g (rows, cols) to total (batch, n), for the doubtful rows of the batch.

    Rows where `upper` exceeds the tolerance at no unit of the block are skipped.
    """
    of_cols = np.empty(cols.size)
    across = np.empty(cols.size)
    for b in doubtful:
        if not ((upper[b][rows] > tolerance).any() or (upper[b][cols] > tolerance).any()):
            continue
        across[:] = x[b][cols]
        of_cols[:] = 0.0
        for i in range(rows.size):
            v, of_row = x[b, rows[i]], 0.0
            for j in range(cols.size):
                amps = g[i, j] * abs(v - across[j])
                of_row += amps
                of_cols[j] += amps
            total[b, rows[i]] += of_row
        for j in range(cols.size):
            total[b, cols[j]] += of_cols[j]


@jit()
def figures(x, base, flow, rho, lo, hi, span):
    """(kcl_amps, clamp_volts, complementarity_watts, power_balance_watts, gap_watts) of residual.Residuals.

    x, flow, rho (rows, n); lo, hi (rows or 1, n); base (rows or 0, n) is added to x. Each is the worst over the rows.
    """
    amps, clamp, complementarity, balance, worst_gap = 0.0, 0.0, 0.0, 0.0, 0.0
    for b in range(x.shape[0]):
        d = b if lo.shape[0] > 1 else 0
        power, gap = 0.0, 0.0
        for u in range(x.shape[1]):
            v = x[b, u] + (base[b, u] if base.shape[0] > 0 else 0.0)
            amps = max(amps, abs(rho[b, u]))
            below, above = lo[d, u] - x[b, u], x[b, u] - hi[d, u]
            clamp = max(clamp, below, above)
            supplied = flow[b, u] - rho[b, u]  # what ideal diodes carry into the unit
            watts = abs(supplied * (below if supplied > 0.0 else above))
            watts = watts if abs(supplied) > 0.0 else 0.0  # chosen, not branched to: four times as fast
            complementarity = max(complementarity, watts)
            power += v * rho[b, u]
            gap += watts + abs(rho[b, u]) * span
        balance = max(balance, abs(power))
        worst_gap = max(worst_gap, gap)
    return amps, clamp, complementarity, balance, worst_gap
