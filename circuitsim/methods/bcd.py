"""Exact block coordinate descent: every colour block in turn takes the step that satisfies its own KCL.

B. Scellier, "A fast algorithm to simulate nonlinear resistive networks", ICML 2024 (arXiv 2402.11674).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import Engine, Look
from circuitsim.drive import Drive
from circuitsim.kcl import shift
from circuitsim.laws import branch_current
from circuitsim.linear.fill import costs_more
from circuitsim.methods.held import Held
from circuitsim.methods.outcome import Outcome, all_rows
from circuitsim.problem import Problem
from circuitsim.residual import FULL_WORK, Residuals
from circuitsim.solution import Settings, Status

Floats = NDArray[np.float64]

_SETTLED = 10  # sweeps before which it is not worth asking whether only rounding is left
# Sweeps before which the rate of convergence says nothing; and how many more sweeps, predicted from this rate, are too
# many where another method is available. With nonlinear branches a sweep solves an equation at each unit: it takes ten
# times as long.
_PATIENCE, _MOST_AHEAD = 200, 1000
_PATIENCE_CURVED, _MOST_AHEAD_CURVED = 40, 100
# About how long it takes, in ns: an exact step at each end of a nonlinear branch, once a sweep, 500, and ten times that
# because circuits that is_in_vain says need 40 sweeps need 400 to 8,000; and a Newton step, for each unit, and
# for each update of its elimination (linear/fill.py). A row needs about so many Newton steps.
_NS_END, _NS_UNIT, _NS_UPDATE = 5000, 4000, 2
_NEWTON_STEPS = 5
_STILL = 1e-14  # of the largest voltage: rounding
_MOST_ON_TRIAL = 150  # sweeps that a row may seem to need, for takes_few_sweeps
_TIGHTER = 1e-2  # factor of the tolerance, while KCL is met but voltages are not held (held.py)
_SURE = 0.8  # share of the predicted sweeps that are taken without a check
_MAX_SHIFTS = 3  # of kcl.shift: one gives twice the digits; more help when the first voltages were not the nearest ones


def refusal(problem: Problem) -> str:
    """Why block coordinate descent cannot guarantee the answer, and the remedy; empty if it can."""
    reason = unfit(problem)
    return f"method bcd refuses: {reason}; use newton" if reason else ""


def unfit(problem: Problem) -> str:
    """The reason alone, without the remedy.

    An ideal diode between two free units ties them by an inequality; steps of one unit at a time can stop short of
    the minimum, at a point where neither may move alone.
    """
    t, c = problem.topology, problem.circuit
    if not c.reciprocal:
        source = f"{c.element(c.controlled, 0)} ({c.at(c.controlled, 0)})"
        return f"with the controlled source {source} there is no co-content to minimise"
    if not t.links.size:
        return ""
    k = int(t.links[0])
    diode, at = c.element(c.ideal_diodes, k), c.at(c.ideal_diodes, k)
    ends = f"{c.nodes[c.ideal_diodes.a[k]]} and {c.nodes[c.ideal_diodes.b[k]]}"
    return (
        f"ideal diode {diode} ({at}) joins two nodes that can both move, {ends}; steps of one node at a time may stop "
        "at a wrong point"
    )


def is_in_vain(problem: Problem, tolerance: float) -> bool:
    """Whether more than `_PATIENCE_CURVED` sweeps are needed, and newton takes less time than these.

    Sweeps are the Gauss-Seidel iteration of an M-matrix: each reduces errors at most by its spectral radius, which is
    no less than that of any two units alone (from P. Stein, R. L. Rosenberg 1948): g^2 / (d_i d_j), for g between units
    i and j, and d all conductances at each. Diodes that conduct add to d; here they count as at 0 V: it is enough that
    one row of the batch has two such units whose diodes do not conduct. Where none has, newton may take longer than
    bcd, but no longer than these sweeps.

    Circuits without nonlinear branches, whose sweeps take little time, are not judged, nor are the many small
    conductances of dense blocks.
    """
    t, v = problem.topology, problem.values
    if not t.junctions.size or not t.upper.size:
        return False
    law, params = problem.circuit.junctions.law[t.junctions], problem.circuit.junctions.params[t.junctions]
    _, slope = branch_current(law, params, np.zeros(law.size))
    diag = v.diag.copy()
    for unit in (t.junction_a, t.junction_k):
        diag += np.bincount(unit[unit >= 0], slope[unit >= 0], t.n_free)
    g = v.couplings.data[t.upper]
    i, j = (units[g > 0] for units in t.coupled)
    g = g[g > 0]
    factor = float((g / diag[i] * (g / diag[j])).max(initial=0.0))
    return factor**_PATIENCE_CURVED > tolerance and _newton_takes_less(problem)


def _newton_takes_less(problem: Problem) -> bool:
    """Whether newton takes less time for a row than `_PATIENCE_CURVED` sweeps."""
    t = problem.topology
    ends = np.count_nonzero(t.junction_a >= 0) + np.count_nonzero(t.junction_k >= 0)
    a_step = _PATIENCE_CURVED * _NS_END * ends / _NEWTON_STEPS
    updates = int((a_step - _NS_UNIT * t.n_free) / _NS_UPDATE)
    return updates > 0 and not costs_more(t.n_free, *t.edges, updates)


def takes_few_sweeps(drive: Drive, engine: Engine, x: Floats | None, tolerance: float) -> bool:
    """Whether some rows seem to need no more than `_MOST_ON_TRIAL` sweeps from x (None: 0), by how fast they come to
    rest.

    An error that falls by rho a sweep moves voltages by a part of rho^10 (1 - rho^10) of it in sweeps 11 to 20, and of
    rho^20 (1 - rho^20) in sweeps 21 to 40: their quotient is r (1 + r) with r = rho^10.
    """
    engine.start(drive, x)
    at = []
    for count in (10, 10, 20):
        engine.sweep(count)
        at.append(engine.voltages().copy())
    before, after = np.abs(at[1] - at[0]).max(), np.abs(at[2] - at[1]).max()
    if before <= _STILL * np.abs(at[0]).max():
        return True
    r = 0.5 * (np.sqrt(1 + 4 * after / before) - 1)
    return bool(r ** (_MOST_ON_TRIAL / 10) <= tolerance)


def solve_tile(
    problem: Problem,
    drive: Drive,
    engine: Engine,
    settings: Settings,
    x: Floats | None,
    *,
    held: Held | None = None,
    patient: bool = True,
) -> Outcome:
    """Sweep one tile of the batch from x (None: 0) until the relative KCL violation meets the tolerance in every row.

    Where only the rounding of the voltages themselves remains, the sweeps continue on a correction to them. With `held`
    they continue, to smaller violations, while the remaining ones still move voltages; rounding then ends them. With
    `patient` False they stop, with MAX_SWEEPS, once the measured rate of convergence shows that it will take long, or
    when voltages are not held.
    """
    tolerance, eps = settings.tolerance, float(np.finfo(settings.dtype).eps)
    given, shifts, sweeps = drive, 0, 0
    rows = drive.rows.stop - drive.rows.start
    pace = _Pace(problem, rows, hasty=not patient)

    def at_rounding(check: Look) -> bool:
        return sweeps > _SETTLED and check.at_rounding(tolerance, eps)

    def reached(residuals: Residuals, unsolved: dict[int, Status]) -> Outcome:
        x = engine.voltages()
        if not drive.base:
            return Outcome(x, sweeps, residuals, unsolved)
        return Outcome(drive.base[0], sweeps, residuals, unsolved, low=x[None])

    engine.start(drive, x)
    while True:
        count = min(pace.before_a_look(sweeps), settings.max_sweeps - sweeps)
        moved = engine.sweep(count)
        sweeps += count
        check = engine.check()
        pace.looked(sweeps, check, tolerance)
        residuals = check.certificate() if check.finite() and check.meets(tolerance) else None
        met = residuals is not None and residuals.kcl_relative <= tolerance
        if met:
            tolerance, pace.hasty = tolerance * _TIGHTER, True  # for further sweeps, if voltages are not held
        if not check.finite():
            status = Status.NONFINITE
        elif met and (held is None or held.settled(check, settings.tolerance)):
            status = Status.SOLVED
        elif met and not patient:
            status = Status.MAX_SWEEPS
        elif shifts < _MAX_SHIFTS and sweeps < settings.max_sweeps and (not moved or at_rounding(check)):
            x = engine.voltages()
            drive = shift(problem, given, x if not drive.base else drive.base[0] + x)
            engine.start(drive, None)
            pace.begin_again()
            shifts += 1
            continue
        elif not moved:
            status = Status.STALLED
        elif sweeps >= settings.max_sweeps or pace.slow(sweeps, check, tolerance):
            status = Status.MAX_SWEEPS
        else:
            pace.keep(sweeps, check)
            continue
        if status is Status.SOLVED or (status is not Status.NONFINITE and not patient):
            return reached(residuals or check.certificate(), all_rows(rows, status))
        full = check.full()  # no other method goes on from here, so the failing rows are needed
        failing = full.failing(settings.tolerance)
        if held and full.finite():
            failing = sorted({*failing, *held.unsettled(full, settings.tolerance)})
        return reached(residuals or full.certificate(), dict.fromkeys(failing, status))


class _Pace:
    """How many sweeps to take before the next check, and whether they converge in time.

    `hasty`: another method is available if they do not.
    """

    def __init__(self, problem: Problem, rows: int, hasty: bool) -> None:
        curved = problem.topology.junctions.size > 0
        self.patience, self.most_ahead = (_PATIENCE_CURVED, _MOST_AHEAD_CURVED) if curved else (_PATIENCE, _MOST_AHEAD)
        self.costly = rows * problem.n_free * problem.mean_degree > FULL_WORK  # whether checks are
        self.hasty = hasty
        self.earlier: tuple[int, float] | None = None  # sweeps and largest violation at an earlier check
        self.last: tuple[int, float] | None = None  # sweeps and `certain` violation at the last check, where costly
        self.ahead = 0  # sweeps to take before the next check

    def before_a_look(self, sweeps: int) -> int:
        """How many sweeps to take before the next check, after so many in all."""
        return max(1, sweeps // 8, self.ahead) if sweeps else 2

    def looked(self, sweeps: int, check: Look, tolerance: float) -> None:
        """Take note of a check: how many sweeps the next one can wait."""
        if not self.costly:
            return
        now = sweeps, check.certain
        self.ahead, self.last = _still_ahead(self.last, now, tolerance), now
        if self.hasty:  # a check when `slow` can first answer
            self.ahead = min(self.ahead, max(self.patience - sweeps, 0))

    def keep(self, sweeps: int, check: Look) -> None:
        """Measure the rate of convergence from this check on, if the sweeps have doubled since the last such check."""
        if self.earlier is None or sweeps >= 2 * self.earlier[0]:
            self.earlier = sweeps, check.worst

    def begin_again(self) -> None:
        """Start again: the unknowns are now corrections."""
        self.ahead, self.last = 0, None

    def slow(self, sweeps: int, check: Look, tolerance: float) -> bool:
        """Whether too many sweeps would still be needed, at the rate since the earlier check."""
        earlier = self.earlier
        if not self.hasty or earlier is None or sweeps < self.patience:
            return False
        if not np.isfinite(check.worst):  # a violation at a unit through which nothing flows: there is no rate
            return True
        fall = np.log(earlier[1] / check.worst) / (sweeps - earlier[0]) if 0 < check.worst < earlier[1] else 0.0
        return bool(np.log(check.worst / tolerance) > self.most_ahead * fall)


def _still_ahead(last: tuple[int, float] | None, now: tuple[int, float], tolerance: float) -> int:
    """Sweeps before which a check would not find the tolerance met, at the rate since the last check.

    At most half of those taken. `last` and `now` are (sweeps, relative violation that some unit certainly has).
    """
    if last is None or not tolerance < now[1] < last[1]:
        return 0
    fall = np.log(last[1] / now[1]) / (now[0] - last[0])
    return min(int(_SURE * np.log(now[1] / tolerance) / fall), now[0] // 2)
