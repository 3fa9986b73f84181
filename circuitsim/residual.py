"""The certificate: how well given voltages satisfy a problem. Computed from the problem and the voltages alone.

Its measure is the violation rho of each free unit (kcl.py), relative to the currents that meet there; amounts within
rounding do not count (`Check._nothing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circuitsim.branch_sums import dense_sums, figures, ufunc_at, violations
from circuitsim.branches import Branches, take_rows
from circuitsim.drive import Drive
from circuitsim.kcl import (
    active_laws,
    carried_sums,
    exact_sums,
    from_neighbours,
    junction_sums,
    junction_volts,
    violation,
)  # fmt: skip
from circuitsim.laws import beyond_law, branch_current
from circuitsim.problem import Problem

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_NO_VOLTAGE = 2.0**-140  # of the largest: what is left of 0 with three float64 parts
_NO_VOLTAGE_ACTIVE = 2.0**-96  # the same where currents of controlled sources, of one float64 each, round
_NO_CURRENT_ACTIVE = 1e-60  # A: at nodes of controlled sources alone no conductance tells what is none
_MOST = 1e12  # A, and V, of a circuit: beside more not all else is nothing
NOTHING = 2.0**-106  # of the largest current, or voltage in a law of a controlled source: none
ROUNDING = 4.0 * float(np.finfo(np.float64).eps)  # of the voltage of a nonlinear branch, or of a carried current
OWN_DIGITS = 8.0  # roundings of a unit's own voltage, which are no violation that sweeps could make smaller
FULL_WORK = 4_000_000  # branch currents in one go: below, all rows are summed exactly; above, those that may matter
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Residuals:
    """The certificate of one solution; each figure is the worst over all units and all rows of the batch.

    kcl_amps             largest KCL violation rho, A
    kcl_relative         largest rho / (sum of the absolute branch currents at the unit), 0/0 = 0, and 0 where rounding
                         can produce rho; or, if larger, the error in the law of a controlled source / (sum of the
                         absolute terms of the law)
    clamp_volts          largest violation of an ideal diode's voltage bound, V
    complementarity_watts  largest (ideal diode's current) x (its gap), W
    power_balance_watts  |power of the sources - power absorbed| = |sum of x rho| (Tellegen), W
    gap_watts            bound on E(v) - E(v*), half the excess power, for v* within the span of voltages seen, W
    worst_row, worst_unit  where kcl_relative occurs; unit -1: nowhere, or in the law of a controlled source
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
        """The worst figures of two parts of a batch; `other` starts at row `first_row`."""
        worse = not (other.kcl_relative <= self.kcl_relative or np.isnan(self.kcl_relative))
        return Residuals(
            **{name: float(np.maximum(getattr(self, name), getattr(other, name))) for name in FIGURES},  # keeps NaN
            worst_row=first_row + other.worst_row if worse else self.worst_row,
            worst_unit=other.worst_unit if worse else self.worst_unit,
        )


FIGURES = (
    "kcl_amps", "kcl_relative", "clamp_volts", "complementarity_watts", "power_balance_watts", "gap_watts",
)  # fmt: skip
NO_RESIDUALS = Residuals(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # of no rows
UNKNOWN = Residuals(*6 * (float("nan"),))  # of voltages that are no numbers


@dataclass(frozen=True)
class _Nonlinear:
    """The nonlinear branches at the voltages of a check, (rows, n_junctions) each."""

    current: Floats  # A
    slope: Floats  # S
    less: Floats  # A: by how much the current falls with the rounding of its voltage
    more: Floats  # A: by how much it rises
    beyond: NDArray[np.bool_]  # where exponentials overflow: no law is followed there


class Check:
    """KCL of one tile of the batch at given unknowns.

    `upper` (rows, n_free) is the relative violation of each unit: exact in rows that were summed branch by branch,
    otherwise an upper bound from matrix products, including their rounding. `certain` is a violation that some unit
    certainly has, which is enough to say that a tolerance is not met. With `exact`, or where bounds say nothing, all
    rows are summed immediately.
    """

    def __init__(self, problem: Problem, drive: Drive, x: Floats, *, exact: bool = False) -> None:
        self.problem, self.drive, self.x = problem, drive, x
        v = problem.values
        nonlinear, slope, nonlinear_abs = junction_sums(problem, drive.junction_offset, x)
        self.slope = v.diag + slope  # (rows or 1, n_free) S
        self.flow, self.rho, self.upper, self.most = (np.empty(x.shape) for _ in range(4))
        self.summed = np.zeros(x.shape[0], bool)  # rows whose figures are exact
        self.largest = np.zeros(x.shape[0])  # the largest current (_largest_amps), A; 0 in rows that are not summed
        self.certain = 0.0
        self.linked = drive.carried[:, : problem.topology.links.size]
        self.link_volts = self._link_violation()
        self.active_error = self._active_violation()
        exact = exact or bool(self.link_volts.any() or (self.linked < 0).any() or problem.topology.islands.arcs)
        if exact or not problem.circuit.reciprocal:
            self._sum_exactly(np.arange(x.shape[0]))
            return
        linked, linked_abs = carried_sums(problem, drive.carried)
        neighbours, neighbours_abs = np.split(from_neighbours(problem, np.concatenate([x, np.abs(x)])), 2)
        self.certain = violations(
            x, neighbours, neighbours_abs, v.diag, v.to_fixed,
            drive.injection - linked, drive.source_flow - linked, drive.source_abs + linked_abs, drive.fixed_abs,
            nonlinear, slope, nonlinear_abs, drive.lo, drive.hi, EPS * problem.most_terms, not drive.base,
            self.flow, self.rho, self.upper, self.most,
        )  # fmt: skip

    def _link_violation(self) -> Floats:
        """By how many volts each ideal diode between free units misses its law, (rows, n_links), at its current."""
        t, drive = self.problem.topology, self.drive
        across = self.x[:, t.legs.link_a] - self.x[:, t.legs.link_k] + drive.link_offset
        return np.where(self.linked > 0, np.abs(across), np.maximum(across, 0.0))

    def _active_violation(self) -> Floats:
        """The worst error in the laws of the controlled sources, relative to their terms, (rows,).

        Amounts within rounding of the largest voltage, or current, do not count; where only currents flow in sources,
        within rounding of the voltage that the largest would cause in the largest conductance. Both count as 1e12 at
        most.
        """
        if self.problem.circuit.reciprocal:
            return np.zeros(self.x.shape[0])
        miss, size, _ = active_laws(self.problem, self.drive, self.x)
        problem, c = self.problem, self.problem.circuit
        links = problem.topology.links.size
        groups = np.split(self.drive.carried, [links, links + len(c.controlled)], axis=1)
        amperes = np.minimum(np.max([problem.copies.largest_of_branches(group) for group in groups], axis=0), _MOST)
        steepest = problem.copies.largest(self.slope)
        by_current = amperes / np.where(steepest > 0, steepest, np.inf)
        volts = np.minimum(np.maximum(self.largest_volts, by_current), _MOST)
        amperes, volts = (
            np.concatenate([problem.copies.at_branches(x, group.shape[1]) for group in groups[1:]], axis=1)
            for x in (amperes, volts)
        )
        miss[np.abs(miss) <= NOTHING * np.where(self.problem.circuit.active.gives_current, amperes, volts)] = 0.0
        relative = np.divide(np.abs(miss), size, out=np.where(miss != 0, np.inf, 0.0), where=size > 0)
        worst: Floats = relative.max(axis=1, initial=0.0)
        return worst

    @cached_property
    def largest_volts(self) -> Floats:
        """The largest absolute voltage of each row, in each of its copies (stack.py), (rows, copies)."""
        largest = self.problem.copies.largest
        parts = [largest(part) for part in (*self.drive.base, self.x)]
        fixed = largest(self.drive.fixed, self.problem.topology.fixed_nodes)
        return np.asarray(np.maximum(np.max(parts, axis=0), fixed))

    def _link_amps(self, rows: Ints) -> Floats:
        """The same in amperes at both ends, slope times volts; and currents of the wrong sign; (len(rows), n_free)."""
        t = self.problem.topology
        wrong = np.maximum(-take_rows(self.linked, rows), 0.0)
        out = np.zeros((rows.size, t.n_free))
        for unit in (t.legs.link_a, t.legs.link_k):
            amps = take_rows(self.slope, rows)[:, unit] * self.link_volts[rows] + wrong
            ufunc_at(np.maximum, out.T, unit, amps.T)
        return out

    def _link_relative(self, rows: Ints, total: Floats) -> Floats:
        """And relative to the largest voltage of the copy: of nodes that have no slope; (len(rows), n_free).

        With no voltages at all it is that of the largest current (`total` are the absolute ones at each unit) in the
        largest conductance. What perfect diodes and controlled sources carry does not count there: a current that
        circulates in them may be of any size.
        """
        t = self.problem.topology
        _, carried = carried_sums(self.problem, take_rows(self.drive.carried, rows))
        others = np.where(carried < 0.999 * total, total - carried, 0.0)  # else what is left may be rounding
        steepest, most = map(self.problem.copies.largest, (take_rows(self.slope, rows), others))
        by_current = most / np.where(steepest > 0, steepest, np.inf)
        largest = self.problem.copies.at_branches(np.maximum(self.largest_volts[rows], by_current), t.links.size)
        volts = np.broadcast_to(self.link_volts, (self.x.shape[0], t.links.size))[rows]
        relative = np.divide(volts, largest, out=np.where(volts > 0, np.inf, 0.0), where=largest > 0)
        out = np.zeros((rows.size, t.n_free))
        for unit in (t.legs.link_a, t.legs.link_k):
            ufunc_at(np.maximum, out.T, unit, relative.T)
        return out

    def finite(self) -> bool:
        """Whether every violation is a number."""
        return bool(np.isfinite(self.rho).all() and np.isfinite(self.active_error).all())

    @property
    def worst(self) -> float:
        """The largest relative violation, or a bound on it."""
        return float(self.upper.max(initial=0.0))

    def meets(self, tolerance: float) -> bool:
        """Whether the relative violation is at most `tolerance` everywhere.

        Rows whose upper bounds show this need no exact sum; of the others the worst is summed first, and one that fails
        decides.
        """
        if self.certain > tolerance or (self.active_error > tolerance).any():
            return False
        doubtful = self._doubtful(tolerance)
        self._sum_exactly(doubtful[:1])
        if self.upper[doubtful[:1]].max(initial=0.0) > tolerance:
            return False
        if doubtful.size > 1:
            self._bound_by_dense(tolerance, doubtful[1:])
            doubtful = self._doubtful(tolerance)
        few = max(1, FULL_WORK // (self.problem.mean_degree * max(self.problem.n_free, 1)))
        for first in range(0, doubtful.size, few):
            chosen = doubtful[first : first + few]
            self._sum_exactly(chosen)
            if self.upper[chosen].max(initial=0.0) > tolerance:
                return False
        return True

    def _doubtful(self, tolerance: float) -> Ints:
        """Rows whose bounds exceed the tolerance, the worst first."""
        worst = self.upper.max(axis=1, initial=0.0)
        doubtful = np.flatnonzero(~(worst <= tolerance))  # NaN is
        return doubtful[np.argsort(-worst[doubtful], kind="stable")]

    def _bound_by_dense(self, tolerance: float, rows: Ints) -> None:
        """Smaller bounds for rows that are not summed: units whose neighbours are all above 0 V have none at all."""
        dense, rows = self.problem.inner_blocks, rows[~self.summed[rows]]
        if not (dense and rows.size and self.problem.untied) or self.drive.base:
            return
        unit, total = np.arange(self.problem.n_free), np.zeros(self.x.shape)
        for spec, g in dense:
            ends = unit[spec.row.units], unit[spec.col.units]
            dense_sums(*ends, np.ascontiguousarray(g), self.x, self.upper, tolerance, rows, total)
        least = total * (1.0 - EPS * self.problem.most_terms)
        some = least > 0
        self.upper[some] = np.minimum(self.upper[some], self.most[some] / least[some])

    def at_rounding(self, tolerance: float, eps: float) -> bool:
        """Whether each violation above the tolerance can be caused by the rounding of the unit's own voltage."""
        return not self.drive.base and bool((self.by_rounding(eps) | (self.upper <= tolerance)).all())

    def by_rounding(self, eps: float) -> NDArray[np.bool_]:
        """Which violations that rounding can cause, (rows, n_free); `eps` is that of the voltages' type."""
        scale = np.maximum(np.abs(self.x), np.abs(self.drive.fixed).max(initial=0.0))
        return np.asarray(np.abs(self.rho) <= OWN_DIGITS * eps * self.slope * scale)

    def reach(self, paths: Floats) -> tuple[Floats, Floats]:
        """For each row sum |rho| R over its units, R of `paths` (n_free,), Ohm, and its largest voltage; (rows,), V.

        Violations from matrix products include their rounding.
        """
        x = self.drive.base[0] if self.drive.base else self.x
        largest: Floats = np.abs(x).max(axis=1, initial=0.0)
        rho, rounded = np.where(self.upper > 0, np.abs(self.rho), 0.0), ~self.summed
        rho[rounded] += EPS * self.problem.most_terms * (self.slope * largest[:, None])[rounded]
        with np.errstate(invalid="ignore", over="ignore"):
            return np.where(rho > 0, rho * paths, 0.0).sum(axis=1), largest

    def full(self) -> Check:
        """This check (backends.base.Look)."""
        return self

    def by_row(self, tolerance: float) -> Floats:
        """The largest relative violation of each row, in each of its copies (stack.py), (rows, copies).

        Exact where its bound exceeds the tolerance.
        """
        self.sum_above(tolerance)
        return np.maximum(self.problem.copies.largest(self.upper), self.active_error[:, None])

    def failing(self, tolerance: float) -> list[int]:
        """The rows whose relative violation is not at most `tolerance`."""
        worst = self.by_row(tolerance).max(axis=1, initial=0.0)
        return np.flatnonzero(~(worst <= tolerance)).tolist()

    def sum_above(self, tolerance: float) -> None:
        """Replace the bounds that exceed the tolerance by exact figures."""
        self._sum_exactly(np.flatnonzero(self.upper.max(axis=1, initial=0.0) > tolerance))

    def _sum_exactly(self, rows: Ints) -> None:
        """Replace the bounds of some rows by exact figures, once."""
        rows = rows[~self.summed[rows]]
        if not rows.size:
            return
        self.summed[rows] = True
        x, drive, slope = self.x[rows], self.drive, take_rows(self.slope, rows)
        flow, total = exact_sums(self.problem, drive, self.x, rows)
        rho = violation(flow, slope, x, take_rows(drive.lo, rows), take_rows(drive.hi, rows))
        self.flow[rows], self.rho[rows] = flow, rho
        links = bool(self.problem.topology.links.size)
        size = np.abs(rho) + (self._link_amps(rows) if links else 0.0)
        branches = self._nonlinear(rows)
        largest = self._largest_amps(rows, total)
        self.largest[rows] = largest.max(axis=1)
        fall, rise = self._nothing(rows, largest, branches)
        size[size <= (fall if fall is rise else np.where(rho > 0, fall, rise))] = 0.0
        upper = np.divide(size, total, out=np.where(size > 0, np.inf, 0.0), where=total > 0)
        upper[np.isnan(size) | np.isnan(total)] = np.inf
        if branches.beyond.any():
            at_ends = branches.beyond.T.astype(float)
            upper[self._at_units(at_ends, at_ends) > 0] = np.inf
        if links:
            upper = np.maximum(upper, self._link_relative(rows, total))
        if self.problem.topology.islands.arcs:
            across = self._nothing(rows, largest, branches, across_islands=True)
            upper = np.maximum(upper, self._island_violation(rows, branches, *across))
        self.upper[rows] = upper

    def _largest_amps(self, rows: Ints, total: Floats) -> Floats:
        """The largest current in each copy: at a unit (`total`, absolute ones), of a source, of a resistor that sources
        fix; (len(rows), copies), A.
        """
        problem, copies, s = self.problem, self.problem.copies, self.problem.circuit.current_sources
        given = np.where(s.a != s.b, np.abs(take_rows(problem.given_currents(self.drive.rows), rows)), 0.0)
        closed, drops = problem.closed_drops(take_rows(self.drive.fixed, rows))
        through = problem.circuit.conductors.g[closed] * drops
        sources = np.maximum(copies.largest_of_branches(given), copies.largest_of_branches(through))
        return np.asarray(np.maximum(sources, copies.largest(total)))

    def _nothing(
        self, rows: Ints, largest: Floats, branches: _Nonlinear, across_islands: bool = False
    ) -> tuple[Floats, Floats]:
        """Currents out of a unit, and into it, that count as zero, (len(rows), n_free) each, A.

        No voltages in float64 can make them smaller: they are beyond the last digit of the `largest` currents, or of
        the largest voltage; or the currents of nonlinear branches would fall, or rise, by as much if their voltages
        changed in the last digits; or they are the last digits of carried currents. Here no voltage counts as more than
        1e12 V, no current as more than 1e12 A: islands that nothing holds may end up anywhere, and the last digits of
        -1e58 V would excuse any current.

        `across_islands`: for branches between islands only. What rounds within an island cancels in its sum, except
        where perfect diodes carry it.
        """
        t, c, of_carriers = self.problem.topology, self.problem.circuit, self.drive.carried
        less, more = branches.less, branches.more
        digits, least = (_NO_VOLTAGE, 0.0) if c.reciprocal else (_NO_VOLTAGE_ACTIVE, _NO_CURRENT_ACTIVE)
        at_ends = digits * take_rows(self.slope, rows)
        if across_islands:
            j, d, part = c.junctions, c.ideal_diodes, t.islands.part
            crossing = (part[j.a] != part[j.b])[t.junctions]
            carriers = np.concatenate([(part[d.a] != part[d.b])[t.links], part[c.active.a] != part[c.active.b]])
            less, more, of_carriers = less * crossing, more * crossing, of_carriers * carriers
            across = (branches.slope * crossing).T
            of_links = carriers[: t.links.size]
            at_links = np.isin(np.arange(t.n_free), np.concatenate([t.legs.link_a[of_links], t.legs.link_k[of_links]]))
            # What crosses by conductances has two parts; what perfect diodes carry is left of all at their ends.
            at_ends = NOTHING * self._at_units(across, across) + at_ends * at_links
        _, carried = carried_sums(self.problem, take_rows(of_carriers, rows))
        of_unit = self.problem.copies.of_unit
        volts, amps = (np.minimum(x, _MOST)[:, of_unit] for x in (self.largest_volts[rows], largest))
        beyond = at_ends * volts
        for amperes in (NOTHING * amps, ROUNDING * np.minimum(carried, _MOST), least):
            beyond += amperes
        if not t.junctions.size:
            return beyond, beyond  # one array: what it is compared with need not be chosen
        return beyond + self._at_units(less.T, more.T), beyond + self._at_units(more.T, less.T)

    def _at_units(self, at_a: Floats, at_k: Floats) -> Floats:
        """Sums at the free units, (rows, n_free), of what nonlinear branches have at their ends, (branches, rows)."""
        t = self.problem.topology
        out = np.zeros((t.n_free + 1, at_a.shape[1]))  # the last: known ends
        ufunc_at(np.add, out, t.junction_a, at_a)
        ufunc_at(np.add, out, t.junction_k, at_k)
        return out[:-1].T

    def _nonlinear(self, rows: Ints) -> _Nonlinear:
        """The nonlinear branches in some rows, each (len(rows), n_junctions)."""
        t, j = self.problem.topology, self.problem.circuit.junctions
        law, params = j.law[t.junctions], j.params[t.junctions]
        v = junction_volts(self.problem, self.drive, self.x, rows)
        rounding = ROUNDING * np.abs(v)
        currents, slopes = branch_current(law, params, np.stack([v - rounding, v, v + rounding]))
        below, at, above = currents
        return _Nonlinear(at, slopes[1], at - below, above - at, beyond_law(law, params, v))

    def _island_violation(self, rows: Ints, branches: _Nonlinear, fall: Floats, rise: Floats) -> Floats:
        """KCL of each island as a whole: its net current relative to what crosses its border, (len(rows), n_free).

        The nodes of an island may each meet a tolerance with errors that add up to more than all that leaves it. What
        counts as zero at its units in the currents across its border, `fall` out of them and `rise` into them
        (len(rows), n_free), is not counted in the sum.
        """
        t = self.problem.topology
        part = t.islands.part
        net, total = self._crossing(rows, branches)
        held = np.zeros(net.shape, bool)  # a diode to a known potential takes what is left
        at_bound = (self.flow[rows] - self.rho[rows] != 0.0).T
        np.logical_or.at(held, part[t.root_of_unit], at_bound)
        out_of, into = np.zeros(net.shape), np.zeros(net.shape)
        ufunc_at(np.add, out_of, part[t.root_of_unit], fall.T)
        ufunc_at(np.add, into, part[t.root_of_unit], rise.T)
        size = np.where(held | ((-into <= net) & (net <= out_of)), 0.0, np.abs(net))
        worst = np.divide(size, total, out=np.where(size > 0, np.inf, 0.0), where=total > 0)
        worst[[0, *part[t.islands.pins]]] = 0.0  # what is known takes what the others leave
        spread: Floats = worst[part[t.root_of_unit]].T
        return spread

    def _crossing(self, rows: Ints, branches: _Nonlinear) -> tuple[Floats, Floats]:
        """The net current out of each island through all that crosses its border, and the absolute one, A.

        (parts, len(rows)) each. Currents within an island, and what rounds in them, are in neither.
        """
        t, c = self.problem.topology, self.problem.circuit
        part = t.islands.part
        net, total = (np.zeros((t.islands.n_parts, rows.size)) for _ in range(2))
        j, s = c.junctions, c.current_sources
        sources = np.broadcast_to(take_rows(self.problem.given_currents(self.drive.rows), rows), (rows.size, len(s)))
        linked = np.broadcast_to(take_rows(self.linked, rows), (rows.size, t.links.size))
        of_active = np.broadcast_to(take_rows(self.drive.carried[:, t.links.size :], rows), (rows.size, len(c.active)))
        groups: list[tuple[Branches, Ints | None, Floats]] = [
            (j, t.junctions, branches.current), (s, None, sources), (c.ideal_diodes, t.links, linked),
            (c.active, None, of_active),
        ]  # fmt: skip
        for ends_of, some, amps in groups:
            a, b = (part[ends if some is None else ends[some]] for ends in (ends_of.a, ends_of.b))
            crossing = a != b
            for ends, sign in ((a, 1.0), (b, -1.0)):
                ufunc_at(np.add, net, ends[crossing], sign * amps.T[crossing])
                ufunc_at(np.add, total, ends[crossing], np.abs(amps.T[crossing]))
        return net, total

    def crossing(self, row: int) -> tuple[Floats, Floats, Floats]:
        """What crosses the border of each island in a row, net and absolute, (parts,), A.

        And the slope of each nonlinear branch, (n_junctions,), S.
        """
        rows = np.array([row])
        branches = self._nonlinear(rows)
        net, total = self._crossing(rows, branches)
        return net[:, 0], total[:, 0], branches.slope[0]

    def exact_violation(self) -> Floats:
        """rho, (rows, n_free), A, from each branch's own voltage."""
        self._sum_exactly(np.arange(self.x.shape[0]))
        return self.rho

    def certificate(self) -> Residuals:
        """All figures for this tile. On large batches kcl_relative may be a bound, larger than the exact figure."""
        x, drive = self.x, self.drive
        if not x.size:
            return Residuals(0.0, float(self.active_error.max(initial=0.0)), 0.0, 0.0, 0.0, 0.0)
        if x.size * self.problem.mean_degree <= FULL_WORK or x.shape[0] == 1:
            self._sum_exactly(np.arange(x.shape[0]))
        if not self.finite():
            return UNKNOWN
        row, unit = (int(k) for k in np.unravel_index(self.upper.argmax(), self.upper.shape))
        worst, of_laws = float(self.upper[row, unit]), int(self.active_error.argmax())
        if worst == 0.0 or self.active_error[of_laws] > worst:
            row, unit, worst = of_laws, -1, float(self.active_error[of_laws])
        base = sum(drive.base[1:], drive.base[0]) if drive.base else np.zeros((0, x.shape[1]))
        v = base + x if drive.base else x
        span = max(v.max(), drive.fixed.max(initial=0.0)) - min(v.min(), drive.fixed.min(initial=0.0))
        amps, clamp, complementarity, balance, gap = figures(x, base, self.flow, self.rho, drive.lo, drive.hi, span)
        if self.link_volts.size:
            clamp = max(clamp, float(self.link_volts.max()))
            watts = np.abs(self.linked * self.link_volts)
            complementarity, gap = max(complementarity, float(watts.max())), gap + float(watts.sum(axis=1).max())
        return Residuals(
            kcl_amps=amps,
            kcl_relative=worst,
            clamp_volts=clamp,
            complementarity_watts=complementarity,
            power_balance_watts=balance,
            gap_watts=gap,
            worst_row=row,
            worst_unit=unit,
        )
