"""The certificate: how well given voltages satisfy a problem. Computed from problem and voltages alone.

For a free unit u let F[u] be the sum of its branch currents, ideal diodes left out (A, positive: more flows out than
in). KCL asks the ideal diodes at u to supply F[u]; the one to `lo` can only when F >= 0 and x = lo, the one to `hi`
only when F <= 0 and x = hi. What is left is the violation

    rho = s (x - clip(x - F / s, lo, hi)),   s = dF/dx:

F itself inside the bounds, 0 at a bound whose diode may carry F, and s times the distance to the bound where a diode
would conduct but its gap is not closed (the KKT natural residual, in amperes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.laws import branch_current
from circuitsim.problem import Drive, Problem

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_FULL_WORK = 4_000_000  # branch currents in one go: below, all of them are summed; above, only where it can matter
_EPS = float(np.finfo(np.float64).eps)
_MAX_CHUNKS = 4  # of _FULL_WORK branch currents that one certificate sums
_PROBE = 64  # units that a check looks at before it looks at all that could fail


@dataclass(frozen=True)
class Residuals:
    """The certificate of one solution; each figure is the worst over all units and all rows of the batch.

    kcl_amps             largest KCL violation rho, A
    kcl_relative         largest rho / (sum of the absolute branch currents at the unit), 0/0 = 0
    clamp_volts          largest violation of an ideal diode's voltage bound, V
    complementarity_watts  largest (ideal diode's current) x (its gap), W
    power_balance_watts  |power of the sources - power absorbed| = |sum of x rho| (Tellegen), W
    gap_watts            bound on E(v) - E(v*), half the excess power, for v* within the span of voltages seen, W
    """

    kcl_amps: float
    kcl_relative: float
    clamp_volts: float
    complementarity_watts: float
    power_balance_watts: float
    gap_watts: float
    worst_row: int = 0
    worst_unit: int = -1

    def merge(self, other: Residuals, first_row: int) -> Residuals:
        """The worst of two parts of a batch; `other` starts at row `first_row`."""
        worse = other.kcl_relative > self.kcl_relative or self.worst_unit < 0
        return Residuals(
            **{name: max(getattr(self, name), getattr(other, name)) for name in FIGURES},
            worst_row=first_row + other.worst_row if worse else self.worst_row,
            worst_unit=other.worst_unit if worse else self.worst_unit,
        )


FIGURES = (
    "kcl_amps", "kcl_relative", "clamp_volts", "complementarity_watts", "power_balance_watts", "gap_watts",
)  # fmt: skip


@dataclass(frozen=True)
class Outflow:
    """Branch sums at every free unit by matrix products; each (rows, n_free)."""

    flow: Floats  # F, A
    slope: Floats  # s = dF/dx, S
    absolute: Floats  # A: at most the sum of absolute branch currents (absolute net currents of groups of branches)
    rounding: Floats  # A: how far `flow` may be off; products cancel where conductances differ a lot


def outflow(problem: Problem, drive: Drive, x: Floats) -> Outflow:
    """Sum the branch currents out of every free unit, ideal diodes left out."""
    t, v = problem.topology, problem.values
    neighbours = np.ascontiguousarray((v.couplings @ x.T).T)
    for spec, g in zip(t.dense, v.dense, strict=True):
        if spec.row.units is not None and spec.col.units is not None:
            neighbours[:, spec.col.units] += x[:, spec.row.units] @ g
            neighbours[:, spec.row.units] += x[:, spec.col.units] @ g.T
    flow = v.diag * x - drive.injection - neighbours
    nonlinear, slope, absolute = _junction_sums(problem, drive.junction_offset, x)
    to_sources = (t.source_incidence @ problem.source_currents(drive.rows).T).T
    inner = v.diag - v.to_fixed
    bound = np.zeros((1, 1))
    if drive.base is None:
        bound = np.abs(inner * x - neighbours) + np.abs(v.to_fixed * x - (drive.injection - to_sources))
    rounding = _EPS * problem.mean_degree * (v.diag * np.abs(x) + np.abs(drive.injection) + np.abs(neighbours))
    return Outflow(flow + nonlinear, v.diag + slope, bound + drive.source_abs + absolute, rounding)


def _junction_sums(problem: Problem, offset: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Net and absolute currents, and slopes, of the nonlinear branches at each unit."""
    t = problem.topology
    if not t.junctions.size:
        zero = np.zeros((1, 1))
        return zero, zero, zero
    padded = np.concatenate([x, np.zeros((x.shape[0], 1))], axis=1)  # index -1: known, its potential is in the offset
    voltage = padded[:, t.junction_a] - padded[:, t.junction_k] + offset
    j = problem.circuit.junctions
    current, slope = branch_current(j.law[t.junctions], j.params[t.junctions], voltage)
    net, total, slopes = (np.zeros((t.n_free + 1, x.shape[0])) for _ in range(3))
    for unit, sign in ((t.junction_a, 1.0), (t.junction_k, -1.0)):
        np.add.at(net, unit, sign * current.T)
        np.add.at(total, unit, np.abs(current).T)
        np.add.at(slopes, unit, slope.T)
    return net[:-1].T, slopes[:-1].T, total[:-1].T


def violation(flow: Floats, slope: Floats, x: Floats, lo: Floats, hi: Floats) -> Floats:
    """rho of the module's equation; where s = 0 only the sign of F counts."""
    with np.errstate(divide="ignore", invalid="ignore"):
        target = x - flow / slope
    low, high = (flow > 0) & ~(target > lo), (flow < 0) & ~(target < hi)  # also where s = 0: target is infinite
    with np.errstate(invalid="ignore"):  # inf - inf where there is no bound: not chosen
        rho = np.where(low & (lo > -np.inf), slope * (x - lo), np.where(high & (hi < np.inf), slope * (x - hi), flow))
    return np.where((slope == 0) & ((flow > 0) & (x > lo) | (flow < 0) & (x < hi)), flow, rho)


def exact_sums(problem: Problem, drive: Drive, x: Floats, rows: Ints, units: Ints) -> tuple[Floats, Floats]:
    """F and the sum of absolute branch currents of chosen (row, unit) pairs, from each branch's own voltage.

    Branch by branch, as the circuit has them: nothing of the couplings that a solver uses enters here.
    """
    t, c = problem.topology, problem.circuit
    nodes = np.arange(len(c.nodes))
    used, row_of = np.unique(rows, return_inverse=True)
    fixed = drive.fixed[used] if drive.fixed.shape[0] > 1 else drive.fixed
    if drive.base is None:
        v, low = problem.node_voltages(x[used], fixed, nodes), np.zeros((1, nodes.size))
    else:
        v = problem.node_voltages(drive.base[used], fixed, nodes)
        low = problem.node_voltages(x[used], np.zeros((1, fixed.shape[1])), nodes)
    flat = problem.flat
    g = t.flat_conductances(c)
    flow, total = np.zeros(rows.size), np.zeros(rows.size)
    pair, entry = _ragged(flat.ptr, units)
    branch = flat.branch[entry]
    a, b, row, low_row = flat.a[branch], flat.b[branch], row_of[pair], row_of[pair] if low.shape[0] > 1 else 0
    current = flat.sign[entry] * g[branch] * ((v[row, a] - v[row, b]) + (low[low_row, a] - low[low_row, b]))
    flow += np.bincount(pair, current, rows.size)
    total += np.bincount(pair, np.abs(current), rows.size)
    for k, crossbar in enumerate(c.crossbars):
        if k not in t.expanded:
            for own, other, matrix in (
                (crossbar.rows, crossbar.cols, crossbar.g),
                (crossbar.cols, crossbar.rows, crossbar.g.T),
            ):
                _crossbar_sums(problem, own, other, matrix, v, low, row_of, units, flow, total)
    incidence = t.source_incidence
    i = problem.source_currents(drive.rows)
    i = i[rows] if i.shape[0] > 1 else i
    pair, entry = _ragged(incidence.indptr.astype(np.int64), units)
    source = incidence.indices[entry]
    current = -incidence.data[entry] * (i[pair, source] if i.shape[0] > 1 else i[0, source])
    flow += np.bincount(pair, current, rows.size)
    total += np.bincount(pair, np.abs(current), rows.size)
    if t.junctions.size:
        offset = drive.junction_offset[used] if drive.junction_offset.shape[0] > 1 else drive.junction_offset
        nonlinear, _, absolute = _junction_sums(problem, offset, x[used])
        flow += nonlinear[row_of, units]
        total += absolute[row_of, units]
    return flow, total


def _crossbar_sums(
    problem: Problem,
    own: Ints,
    other: Ints,
    g: Floats,
    v: Floats,
    low: Floats,
    row_of: Ints,
    units: Ints,
    flow: Floats,
    total: Floats,
) -> None:
    """Add the currents of a crossbar's resistors that leave each chosen unit by its nodes among `own`."""
    at_unit = problem.topology.index_of_node[own]
    order = np.argsort(at_unit, kind="stable")
    start = np.searchsorted(at_unit[order], units)
    stop = np.searchsorted(at_unit[order], units, side="right")
    for p in np.flatnonzero(stop > start):
        for k in order[start[p] : stop[p]]:
            row, small = v[row_of[p]], low[row_of[p] if low.shape[0] > 1 else 0]
            current = g[k] * ((row[own[k]] - row[other]) + (small[own[k]] - small[other]))
            current[problem.topology.index_of_node[other] == units[p]] = 0.0  # both ends on the unit
            flow[p] += current.sum()
            total[p] += np.abs(current).sum()


def _ragged(indptr: Ints, units: Ints) -> tuple[Ints, Ints]:
    """(which of `units`, which CSR entry) for all entries of the rows `units`."""
    counts = indptr[units + 1] - indptr[units]
    pair = np.repeat(np.arange(units.size), counts)
    before = np.cumsum(counts) - counts
    return pair, np.arange(pair.size) - before[pair] + indptr[units][pair]


def shift(problem: Problem, drive: Drive, x: Floats) -> Drive:
    """The same problem for a correction d to x: unknowns are then x + d, with twice the digits.

    Rounding of x itself no longer limits KCL: branch voltages are (x_a - x_b) + (d_a - d_b), and the linear branch
    currents at x, summed branch by branch, become injections.
    """
    rows, units = np.divmod(np.arange(x.size), max(problem.n_free, 1))
    flow = exact_sums(problem, drive, x, rows, units)[0].reshape(x.shape)
    nonlinear, _, _ = _junction_sums(problem, drive.junction_offset, x)
    t = problem.topology
    padded = np.concatenate([x, np.zeros((x.shape[0], 1))], axis=1)
    across = padded[:, t.junction_a] - padded[:, t.junction_k]
    return replace(
        drive,
        base=x,
        injection=nonlinear - flow,
        lo=drive.lo - x,
        hi=drive.hi - x,
        junction_offset=drive.junction_offset + across,
    )


class Check:
    """KCL of one tile of the batch at given unknowns: `relative(tolerance)` for the stop rule, `certificate()`."""

    def __init__(self, problem: Problem, drive: Drive, x: Floats) -> None:
        self.problem, self.drive, self.x = problem, drive, x
        sums = outflow(problem, drive, x)
        self.flow, self.slope = sums.flow, sums.slope
        self.rho = violation(self.flow, self.slope, x, drive.lo, drive.hi)
        # Held by an ideal diode beyond doubt: no violation, and no rounding of F can make one.
        held = (self.rho == 0) & (np.abs(self.flow) > sums.rounding)
        most = np.where(held, 0.0, np.abs(self.rho) + sums.rounding)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.upper = np.where(most == 0, 0.0, most / sums.absolute)  # at least the relative violation

    def finite(self) -> bool:
        """Whether every violation is a number."""
        return bool(np.isfinite(self.rho).all())

    def at_rounding(self, tolerance: float, eps: float) -> bool:
        """Whether each violation above the tolerance is one that the rounding of the unit's own voltage can make."""
        if self.drive.base is not None:
            return False
        scale = np.maximum(np.abs(self.x), np.abs(self.drive.fixed).max(initial=0.0))
        return bool(((np.abs(self.rho) <= 8 * eps * self.slope * scale) | (self.upper <= tolerance)).all())

    def relative(self, tolerance: float) -> tuple[float, int, int]:
        """(relative violation, row, unit) of the worst unit; exact when at most `tolerance`, else a lower bound.

        Units whose upper bound is within the tolerance need no exact sum; a few of the worst are looked at first,
        and one that fails settles the question.
        """
        doubtful = np.flatnonzero(self.upper.ravel() > tolerance)
        doubtful = doubtful[np.argsort(-self.upper.ravel()[doubtful], kind="stable")]
        worst = (0.0, 0, -1)
        for chunk in self._chunks(doubtful):
            worst = max(worst, self._exact(chunk))
            if worst[0] > tolerance:
                return worst
        if self.upper.size and doubtful.size < self.upper.size:
            rest = np.where(self.upper <= tolerance, self.upper, 0.0)
            k = int(rest.argmax())
            if rest.ravel()[k] > worst[0]:
                worst = max(worst, self._exact(np.array([k])))
        return worst

    def exact(self) -> tuple[float, int, int]:
        """The largest relative violation: bounds in falling order, until no bound exceeds what was found.

        On large batches of dense circuits only the most doubtful units are summed branch by branch; where a bound of
        the others is larger, that bound is the (pessimistic) answer.
        """
        order = np.argsort(-self.upper.ravel(), kind="stable")
        worst = (0.0, 0, -1)
        for k, chunk in enumerate(self._chunks(order)):
            most = float(self.upper.ravel()[chunk[0]])
            if most <= worst[0]:
                break
            if k == _MAX_CHUNKS:
                row, unit = divmod(int(chunk[0]), self.problem.n_free)
                return most, row, unit
            worst = max(worst, self._exact(chunk))
        return worst

    def _chunks(self, pairs: Ints) -> list[Ints]:
        size = max(_PROBE, _FULL_WORK // self.problem.mean_degree)
        cuts = [0, *range(min(_PROBE, pairs.size), pairs.size, size), pairs.size]
        return [pairs[i:j] for i, j in zip(cuts[:-1], cuts[1:], strict=True) if j > i]

    def _exact(self, pairs: Ints) -> tuple[float, int, int]:
        rows, units = np.divmod(pairs, self.problem.n_free)
        flow, total = exact_sums(self.problem, self.drive, self.x, rows, units)
        lo, hi = (np.broadcast_to(bound, self.x.shape)[rows, units] for bound in (self.drive.lo, self.drive.hi))
        slope = np.broadcast_to(self.slope, self.x.shape)[rows, units]
        rho = np.abs(violation(flow, slope, self.x[rows, units], lo, hi))
        relative = np.divide(rho, total, out=np.where(rho > 0, np.inf, 0.0), where=total > 0)
        k = int(relative.argmax())
        return float(relative[k]), int(rows[k]), int(units[k])

    def certificate(self) -> Residuals:
        """All figures for this tile."""
        x, drive, rho = self.x, self.drive, self.rho
        if not x.size:
            return Residuals(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        relative, row, unit = self.exact()
        supplied = self.flow - rho  # what ideal diodes carry into the unit
        with np.errstate(invalid="ignore"):
            gap = np.where(supplied > 0, x - drive.lo, np.where(supplied < 0, drive.hi - x, 0.0))
        watts = np.where(supplied != 0, np.abs(supplied * gap), 0.0)
        v = x if drive.base is None else drive.base + x
        span = max(v.max(), drive.fixed.max(initial=0.0)) - min(v.min(), drive.fixed.min(initial=0.0))
        return Residuals(
            kcl_amps=float(np.abs(rho).max()),
            kcl_relative=relative,
            clamp_volts=float(max((drive.lo - x).max(), (x - drive.hi).max(), 0.0)),
            complementarity_watts=float(watts.max()),
            power_balance_watts=float(np.abs((v * rho).sum(axis=1)).max()),
            gap_watts=float((watts + np.abs(rho) * span).sum(axis=1).max()),
            worst_row=row,
            worst_unit=unit,
        )
