"""Semismooth Newton: every nonlinear branch is replaced by its tangent, the linear network solved, again and again.

A leg (topology.Legs) at voltage w carries i(w); its tangent there is a conductance g = i'(w) beside a current source.
All tangents at once make a linear network. Its solution gives each leg a new voltage and, on the old tangent, a
current. An exponential leg whose voltage rose goes on from the current, not the voltage, where that is less (the
limiting of L. W. Nagel, SPICE2, 1975): then exponentials cost no more steps than their logarithms.

An ideal diode conducts or not. When it does, it is the stiff line i = lam + rho (v - vf), and lam the current of the
step before (augmented Lagrangian, R. T. Rockafellar 1976): v = vf and the current follow exactly, for any rho.

Full steps have no guarantee. When they go round in circles, steps on the convex co-content take over: the Newton
direction, and along it the exact minimum. Without controlled sources they always arrive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.laws import Law, branch_current
from circuitsim.linear import Solved
from circuitsim.linear.elimination import Elimination
from circuitsim.methods.outcome import Outcome
from circuitsim.problem import Drive, Problem
from circuitsim.residual import Check, Residuals, shift
from circuitsim.solution import Settings, Status

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_STIFFNESS = 1e4  # rho of a conducting ideal diode, in units of the conductances at its ends
_FULL_STEPS = 60  # before the slow and sure way
_MOVES = 1e-9  # of the largest voltage: a solution that a correction moves by more is corrected
_MOST_PARTS = 3  # of the voltages, each the rounding of the one before
_MOST_REFINED = 8  # corrections of a correction
_MOST_RETURNS = 2  # to a state that was there before
_MOST_CLOSING = 8  # solutions with one factorisation, until conducting ideal diodes are closed to rounding
_MOST_SETTLED = 6  # steps that change no state and meet no certificate
_NEAR = 1e-4  # of N Vt: tangents closer to their legs than this are worth a certificate
_ROUNDING = 64 * float(np.finfo(np.float64).eps)
_STEEPEST = 1e12  # tangents of the sure steps, in units of the largest conductance


@dataclass(frozen=True)
class Tangents:
    """Where each leg is replaced by its tangent: i = current + slope (v - voltage)."""

    voltage: Floats  # (legs,) V
    current: Floats  # (legs,) A
    slope: Floats  # (legs,) S


class Engine:
    """One problem's legs and linear network."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        t, v = problem.topology, problem.values
        self.legs = legs = t.legs
        self.edge_g, self.to_fixed = problem.edge_conductances(), v.to_fixed
        self.first_leg_edge = self.edge_g.size - t.leg_edges.size
        j = problem.circuit.junctions
        self.law, self.params = j.law[t.junctions], j.params[t.junctions]
        self.exponential = self.law == Law.SHOCKLEY
        self.ideal = np.arange(legs.a.size) >= legs.n_junctions
        largest = np.maximum(self._at(v.diag, legs.a), self._at(v.diag, legs.k))
        everywhere = float(v.diag.max(initial=0.0)) or 1.0
        self.largest = everywhere
        self.rho = _STIFFNESS * np.where(largest > 0, largest, everywhere)
        self.exact = isinstance(t.solver, Elimination)
        self.ends = [(has := np.flatnonzero(unit >= 0), unit[has]) for unit in (legs.a, legs.k)]
        self.factored: Solved | None = None
        self.factored_slope = np.full(legs.a.size, np.nan)
        self.held = np.zeros(0, np.int64)

    @staticmethod
    def _at(values: Floats, unit: Ints) -> Floats:
        """Values of units, 0 for known ends."""
        return np.where(unit >= 0, values[unit] if values.size else 0.0, 0.0)

    def factor(self, slope: Floats) -> Solved:
        """The linear network with these conductances of the legs. Floating parts are held, softly, where they are."""
        if self.factored is None or not np.array_equal(slope, self.factored_slope):
            t, legs = self.problem.topology, self.legs
            g = self.edge_g.copy()
            g[self.first_leg_edge :] = slope[t.leg_edges]
            to_ground = self.to_fixed.copy()
            for own, other in ((legs.a, legs.k), (legs.k, legs.a)):
                single = (own >= 0) & (other < 0)
                np.add.at(to_ground, own[single], slope[single])
            self.factored = t.solver.factor(g, to_ground)
            self.held = self.factored.floating
            if self.held.size:
                to_ground[self.held] += self.hold
                self.factored = t.solver.factor(g, to_ground)
            self.factored_slope = slope
        return self.factored

    @property
    def hold(self) -> float:
        """The conductance that holds a floating part to where it was; it carries nothing once the part stays there."""
        return 1e-12 * self.largest

    def across(self, x: Floats) -> Floats:
        """Voltages of the legs without their offsets."""
        return self._at(x, self.legs.a) - self._at(x, self.legs.k)

    def into_units(self, current: Floats) -> Floats:
        """Currents of the legs, a to k, as injections into the units."""
        ends, n = self.ends, self.problem.n_free
        return np.bincount(ends[1][1], current[ends[1][0]], n) - np.bincount(ends[0][1], current[ends[0][0]], n)

    def linear_flow(self, x: Floats) -> Floats:
        """Currents out of the units through the linear branches between them and to ground, (n_free,), A."""
        i, j = self.problem.topology.edges
        current = self.edge_g * (x[i] - x[j])
        n = self.problem.n_free
        flow: Floats = self.to_fixed * x + np.bincount(i, current, n) - np.bincount(j, current, n)
        return flow

    def offset(self, drive: Drive) -> Floats:
        """The fixed part of each leg's voltage; -inf for a bound that is not there. Ideal legs conduct at 0 V."""
        return np.concatenate([
            drive.junction_offset[0], drive.link_offset[0], drive.lo[0, self.legs.lower], -drive.hi[0, self.legs.upper],
        ])  # fmt: skip

    def currents(self, v: Floats, lam: Floats) -> tuple[Floats, Floats]:
        """Currents and slopes of the legs; an ideal one is the line lam + rho v, where that is positive."""
        n = self.legs.n_junctions
        line = lam[n:] + self.rho[n:] * v[n:]
        i, g = branch_current(self.law, self.params, v[:n])
        return np.concatenate([i, np.maximum(line, 0.0)]), np.concatenate([g, np.where(line > 0, self.rho[n:], 0.0)])

    def tangents(self, v: Floats) -> Tangents:
        """Tangents at these voltages; ideal diodes open."""
        current, slope = self.currents(v, np.zeros(v.size))
        current[self.ideal] = slope[self.ideal] = 0.0
        return Tangents(v, current, slope)

    def begin(self, offset: Floats) -> Tangents:
        """Where nothing is known: exponential junctions at their knee, everything else at 0 V of the unknowns."""
        v = offset.copy()
        n = self.legs.n_junctions
        v[:n] = np.where(self.exponential, _knee(self.params), v[:n])
        return self.tangents(v)

    def advance(self, old: Tangents, v: Floats, rounding: float) -> Tangents:
        """The next tangents, from the voltages that the linear network gave; `rounding`: what v may be off by."""
        n = self.legs.n_junctions
        line = old.current.copy()  # of closed ideal diodes, already
        line[:n] += old.slope[:n] * (v[:n] - old.voltage[:n])
        w = v.copy()
        w[:n] = _limited(self.law, self.params, old.voltage[:n], v[:n], line[:n])
        current, slope = self.currents(w, np.zeros(w.size))
        was_on = old.slope[n:] > 0
        on = np.where(was_on, line[n:] > 0, v[n:] > rounding)
        current[n:] = np.where(on & was_on, line[n:], 0.0)
        slope[n:] = np.where(on, self.rho[n:], 0.0)
        w[n:] = 0.0
        return Tangents(w, current, slope)


def _knee(params: Floats) -> Floats:
    """Where a junction's current is N Vt / (sqrt(2) x 1 ohm): SPICE's critical voltage."""
    with np.errstate(divide="ignore", invalid="ignore"):
        knee = params[:, 1] * np.log(params[:, 1] / (np.sqrt(2.0) * params[:, 0]))
    return np.where(np.isfinite(knee), np.maximum(knee, 0.0), 0.0)


def _limited(law: NDArray[np.int8], params: Floats, old: Floats, v: Floats, line: Floats) -> Floats:
    """Voltages to go on from: beyond the knee of an exponential, that of the current on the old tangent where nearer."""
    w = v.copy()
    chosen = law == Law.SHOCKLEY
    p, i, inner, was = params[chosen], line[chosen], v[chosen], old[chosen]
    knee = _knee(p)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        forward = p[:, 1] * np.log1p(np.maximum(i, 0.0) / p[:, 0]) + p[:, 2] * np.maximum(i, 0.0)
        decades = np.log(np.maximum(-i / p[:, 0], 1.0))
        reverse = -(p[:, 3] + p[:, 4] * decades + p[:, 2] * np.maximum(-i, 0.0))
        broken = -(p[:, 3] + knee)
    up, down = inner > np.maximum(was, knee), inner < np.minimum(was, broken)
    inner = np.where(up, np.minimum(inner, np.maximum(np.maximum(forward, knee), was)), inner)
    w[chosen] = np.where(down, np.maximum(inner, np.minimum(np.minimum(reverse, broken), was)), inner)
    return w


def solve_tile(engine: Engine, drive: Drive, settings: Settings, x: Floats, warm: bool) -> Outcome:
    """Solve one tile of the batch; x (rows, n_free) is where to start when `warm`."""
    if not engine.legs.a.size:
        return _linear(engine, drive, settings, x)
    low, links = np.zeros((_MOST_PARTS, *x.shape)), np.zeros((x.shape[0], engine.legs.n_links))
    x = x.copy()
    status, steps, residuals = Status.SOLVED, 0, Residuals(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for row in range(x.shape[0]):
        one = drive.part(slice(row, row + 1))
        outcome = _Row(engine, one, settings).solve(x[row] if warm or row == 0 else x[row - 1], warm or row > 0)
        x[row] = outcome.x[0]
        if outcome.low is not None:
            low[: len(outcome.low), row] = outcome.low[:, 0]
        links[row] = 0.0 if outcome.link_current is None else outcome.link_current[0]
        steps = max(steps, outcome.steps)
        residuals = residuals.merge(outcome.residuals, row)
        status = outcome.status if status is Status.SOLVED else status
    used = int(low.any(axis=(1, 2)).sum())
    return Outcome(x, status, steps, residuals, low[:used] if used else None, links)


def _linear(engine: Engine, drive: Drive, settings: Settings, x: Floats) -> Outcome:
    """All rows at once: one network, several right-hand sides."""
    network = engine.factor(np.zeros(0))
    injected = np.broadcast_to(drive.injection, x.shape).copy()
    injected[:, engine.held] += engine.hold * x[:, engine.held]
    x = np.clip(network.solve(injected), drive.lo, drive.hi)
    return _polished(engine, drive, settings, x, np.zeros(0), np.zeros(0), 1)


def _polished(
    engine: Engine, drive: Drive, settings: Settings, x: Floats, link_current: Floats, slope: Floats, steps: int
) -> Outcome:
    """The outcome at x (rows, n_free), refined while its certificate is not met and refining helps.

    A correction d is kept apart from x (residual.shift), and d itself is corrected from the KCL violations that are
    left: every branch voltage then has all its digits, however close its ends are. `link_current` (links,) and `slope`
    (legs,) are those of the tangents at x; they are of a single row when there are any.
    """
    tolerance, parts = settings.tolerance, [x]
    legs = engine.legs
    links = slice(legs.n_junctions, legs.n_junctions + legs.n_links)
    a, k = legs.a[links], legs.k[links]
    conducting = np.where(slope[links] > 0, engine.rho[links], 0.0)

    def check(low: Floats | None) -> Check:
        at = replace(drive, link_current=np.maximum(link_current, 0.0)[None])
        if low is None:
            return Check(engine.problem, at, x)
        return Check(engine.problem, shift(engine.problem, at, *parts), low)

    found = check(None)
    for refined in range(_MOST_REFINED + 1):
        if not found.finite():
            return Outcome(x, Status.NONFINITE, steps, found.certificate())
        met = found.meets(tolerance) and found.certificate().kcl_relative <= tolerance
        if refined == _MOST_REFINED:
            break
        if met and (not engine.exact or _small(engine.factor(slope).solve(-found.exact_violation()), x)):
            break
        if not found.drive.base:
            found = check(np.zeros_like(x))
        gap = found.x[:, a] - found.x[:, k] + found.drive.link_offset
        injected = -found.exact_violation()
        for unit, sign in ((a, -1.0), (k, 1.0)):
            np.add.at(injected.T, unit, sign * (conducting * gap).T)
        step = engine.factor(slope).solve(injected)
        low = np.clip(found.x + step, found.drive.lo, found.drive.hi)
        if legs.n_links:
            link_current = link_current + conducting * (gap + step[:, a] - step[:, k])[0]
        parts, low = _spread(parts, low)
        if refined == _MOST_REFINED // 2 and len(parts) < _MOST_PARTS:
            parts, low = [*parts, low], np.zeros_like(low)
        found = check(low)
    status = Status.SOLVED if met else Status.STALLED
    carried = np.broadcast_to(link_current, (x.shape[0], link_current.size))
    first, *rest = (*parts, found.x) if found.drive.base else parts
    return Outcome(first, status, steps, found.certificate(), np.stack(rest) if rest else None, carried)


def _small(step: Floats, x: Floats) -> bool:
    """Whether a correction is far below the largest voltage of its row."""
    return bool((np.abs(step) <= _MOVES * np.abs(x).max(axis=1, initial=0.0, keepdims=True)).all())


def _spread(parts: list[Floats], low: Floats) -> tuple[list[Floats], Floats]:
    """The same sum, with those digits of `low` that reach into the part before it moved there."""
    total = parts[-1] + low
    return [*parts[:-1], total], low - (total - parts[-1])


class _Row:
    """One row of the batch."""

    def __init__(self, engine: Engine, drive: Drive, settings: Settings) -> None:
        self.engine, self.drive, self.settings = engine, drive, settings
        self.steps = 0

    def solve(self, x: Floats, warm: bool) -> Outcome:
        e = self.engine
        offset = e.offset(self.drive)
        tangents = e.tangents(e.across(x) + offset) if warm else e.begin(offset)
        if warm:
            on = e.ideal & (e.across(x) + offset >= -self._rounding(x))
            tangents = replace(tangents, slope=np.where(on, e.rho, tangents.slope), voltage=np.where(e.ideal, 0.0, tangents.voltage))
        outcome = self._full_steps(x, tangents)
        if outcome.status is Status.SOLVED:
            return outcome
        return self._sure_steps(np.clip(np.zeros_like(x), self.drive.lo[0], self.drive.hi[0]))

    def _linear_step(self, x: Floats, offset: Floats, tangents: Tangents) -> Floats:
        """The solution of the linear network of the tangents, as a correction to x: nothing large cancels near it.

        Floating parts stay where they are in x.
        """
        e = self.engine
        live = tangents.slope > 0
        past = np.where(live, e.across(x) + np.where(live, offset, 0.0) - tangents.voltage, 0.0)
        current = tangents.current + tangents.slope * past
        violation = self.drive.injection[0] - e.linear_flow(x) + e.into_units(current)
        correction: Floats = e.factor(tangents.slope).solve(violation[None])[0]
        return x + correction

    def _closing_step(self, x: Floats, offset: Floats, tangents: Tangents) -> tuple[Floats, Tangents]:
        """The same with the conducting ideal diodes closed: the tangents returned have their currents."""
        e = self.engine
        closed = e.ideal & (tangents.slope > 0)
        current, before = tangents.current.copy(), np.inf
        for _ in range(_MOST_CLOSING):
            x = self._linear_step(x, offset, replace(tangents, current=current))
            gap = e.across(x)[closed] + offset[closed]
            current[closed] += tangents.slope[closed] * gap
            largest = float(np.abs(gap).max(initial=0.0))
            if largest == 0.0 or largest > 0.1 * before:
                break
            before = largest
        return x, replace(tangents, current=current)

    def _full_steps(self, x: Floats, tangents: Tangents) -> Outcome:
        """Newton with limiting, while it makes its way."""
        e = self.engine
        offset = e.offset(self.drive)
        seen: Counter[bytes] = Counter()
        settled = 0
        while self.steps < min(_FULL_STEPS, self.settings.max_sweeps):
            self.steps += 1
            x, tangents = self._closing_step(x, offset, tangents)
            if not np.isfinite(x).all():
                break
            v = e.across(x) + offset
            new = e.advance(tangents, v, self._rounding(x))
            same = np.array_equal(new.slope[e.ideal] > 0, tangents.slope[e.ideal] > 0)
            near = self._near(tangents, v)
            if same and near:
                outcome = self._outcome(x, new)
                settled += 1
                if outcome.status is Status.SOLVED or settled > _MOST_SETTLED:
                    return outcome
                new = self._corrected(new, outcome, offset)
            elif not same:
                state = (new.slope > 0).tobytes() if not e.exponential.any() else new.slope.tobytes()
                seen[state] += 1
                if seen[state] > _MOST_RETURNS:
                    break
            tangents = new
        return replace(self._outcome(x, tangents), status=Status.MAX_SWEEPS)

    def _near(self, tangents: Tangents, v: Floats) -> bool:
        """Whether the tangents were taken close to where the legs are."""
        e = self.engine
        n = e.legs.n_junctions
        if not n:
            return True
        i, _ = branch_current(e.law, e.params, v[:n])
        line = tangents.current[:n] + tangents.slope[:n] * (v[:n] - tangents.voltage[:n])
        return bool((np.abs(i - line) <= _NEAR * np.abs(i) + 1e-12 * np.abs(i).max(initial=0.0)).all())

    def _rounding(self, x: Floats) -> float:
        """How far a difference of voltages may be from 0 for no other reason than rounding, V."""
        return _ROUNDING * float(max(np.abs(x).max(initial=0.0), np.abs(self.drive.fixed).max(initial=0.0)))

    def _corrected(self, tangents: Tangents, outcome: Outcome, offset: Floats) -> Tangents:
        """The tangents with the states of the ideal diodes that the digits of a refined solution show."""
        e, n = self.engine, self.engine.legs.n_junctions
        if outcome.low is None or outcome.link_current is None:
            return tangents
        current, slope = tangents.current.copy(), tangents.slope.copy()
        current[n : n + e.legs.n_links] = outcome.link_current[0]
        low = outcome.low.sum(axis=0)[0]
        v = (e.across(outcome.x[0]) + offset) + e.across(low)
        was_on = slope > 0
        bounds = slice(n + e.legs.n_links, None)
        current[bounds] += slope[bounds] * np.where(was_on, v, 0.0)[bounds]
        off = was_on & (current <= 0.0)
        on = ~was_on & (v > _ROUNDING * np.abs(low).max(initial=0.0))
        current[e.ideal & (off | on)] = 0.0
        slope[e.ideal & off], slope[e.ideal & on] = 0.0, e.rho[e.ideal & on]
        return Tangents(tangents.voltage, current, slope)

    def _outcome(self, x: Floats, tangents: Tangents) -> Outcome:
        """The certificate at x, exactly at the bounds whose diodes conduct and beyond none."""
        n = self.engine.legs.n_junctions
        links = tangents.current[n : n + self.engine.legs.n_links]
        x = np.clip(x, self.drive.lo[0], self.drive.hi[0])
        return _polished(self.engine, self.drive, self.settings, x[None], links, tangents.slope, self.steps)

    # -- the slow and sure way -------------------------------------------------------------------------------------

    def _sure_steps(self, x: Floats) -> Outcome:
        """Newton directions, exact minima of the co-content along them; multipliers of the ideal diodes between."""
        e = self.engine
        lam = np.zeros(e.legs.a.size)
        offset = e.offset(self.drive)
        none = Tangents(lam, lam, lam)
        outcome = replace(self._outcome(x, none), status=Status.MAX_SWEEPS)
        state = b""
        while self.steps < self.settings.max_sweeps:
            self.steps += 1
            v = e.across(x) + offset
            i, g = e.currents(v, lam)
            g = np.minimum(g, _STEEPEST * e.largest)
            live = g > 0
            tangents = Tangents(np.where(live, v, 0.0), i, g)
            d = self._linear_step(x, offset, tangents) - x
            dv = e.across(d)
            t = _minimum(self._along(x, d, v, dv, lam))
            x = x + t * d
            v = e.across(x) + offset
            i, g = e.currents(v, lam)
            new_state = (i > 0).tobytes()
            if t == 0.0 or (abs(t - 1.0) < 1e-3 and new_state == state):
                lam = np.where(e.ideal, i, 0.0)
                near = Tangents(np.where(e.ideal, 0.0, v), i, np.where(e.ideal & (i > 0), e.rho, g))
                outcome = self._outcome(x, near)
                if outcome.status is Status.SOLVED:
                    return outcome
                finish = _Row(e, self.drive, self.settings)
                finish.steps = max(self.steps, _FULL_STEPS - 8)
                finished = finish._full_steps(x, near)
                if finished.status is Status.SOLVED:
                    return finished
                if t == 0.0:
                    return outcome
            state = new_state
        return outcome

    def _along(self, x: Floats, d: Floats, v: Floats, dv: Floats, lam: Floats) -> Callable[[float], float]:
        """The derivative of the co-content along d, A V, as a function of the step."""
        e = self.engine
        at_x, at_d = e.linear_flow(x), e.linear_flow(d)
        constant, slope = float(d @ (at_x - self.drive.injection[0])), float(d @ at_d)
        moving = dv != 0.0

        def derivative(t: float) -> float:
            i, _ = e.currents(v + t * np.where(moving, dv, 0.0), lam)
            return constant + t * slope + float(i[moving] @ dv[moving])

        return derivative


def _minimum(derivative: Callable[[float], float]) -> float:
    """The step at which an increasing derivative crosses 0; 0 when the direction leads nowhere."""
    low, high = 0.0, 1.0
    if not derivative(0.0) < 0.0:
        return 0.0
    while derivative(high) < 0.0 and high < 1e30:
        low, high = high, 2.0 * high
    while low == 0.0 and high > 1e-300 and not derivative(1e-3 * high) < 0.0:
        high *= 1e-3
    at_one = derivative(1.0) if high == 1.0 else np.inf
    if abs(at_one) <= 1e-9 * abs(derivative(0.0)):
        return 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if derivative(middle) < 0.0:
            low = middle
        else:
            high = middle
    return high
