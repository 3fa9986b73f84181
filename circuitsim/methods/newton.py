"""Semismooth Newton: replace every nonlinear branch by its tangent, solve the linear network, and repeat.

A leg (topology.Legs) at voltage w carries i(w); its tangent there is a conductance g = i'(w) in parallel with a current
source. All tangents together make a linear network. Its solution gives each leg a new voltage and, on the old tangent,
a current, from which the next tangents are taken (limiting.py).

An ideal diode conducts or not. When it does, it is the stiff line i = lam + rho (v - vf), with lam the current of the
previous solution (augmented Lagrangian, R. T. Rockafellar 1976): v = vf and the current follow exactly, for any rho.

Full steps are not guaranteed to converge. When they cycle, interior.py takes over where all legs are ideal or PWL, and
line_search.py elsewhere, or where interior.py fails. Where there is no co-content, the fallbacks are states.py for few
legs of straight pieces, damped steps, other starts, and then continuation.py. The result is refined to all digits by
polish.py.

The unknowns are u = (x, j): the voltages of the free units, and in non-reciprocal circuits the currents that
mna.MnaNetwork adds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.law_kernels import Law
from circuitsim.laws import branch_current
from circuitsim.methods.continuation import follow
from circuitsim.methods.interior import follow_inside
from circuitsim.methods.limiting import NO_DROP, first_voltages, largest_voltages, limited, near
from circuitsim.methods.line_search import minimise
from circuitsim.methods.network import Network, Tangents
from circuitsim.methods.outcome import Outcome
from circuitsim.methods.polish import polished
from circuitsim.methods.states import states
from circuitsim.solution import Settings, Status

Floats = NDArray[np.float64]

FULL_STEPS = 60  # full steps before the slower fallbacks
_PATIENCE = 5  # of them without a new minimum of diodes that change state, where interior.py comes next
_FINISHING, _KEEPS = 6, (1.0, 0.0)  # full steps from states that a fallback found, with each `keep` (_advance)
_DAMPING = range(1, -10, -1)  # damping conductances, as powers of ten times the largest conductance
_DAMPED_STEPS = 10  # with each of them
_OTHER_STARTS, _STEPS_THERE = 12, 20  # random starts where damped steps fail, and full steps from each
_MOST_STATES_TRIED = 16  # candidates from states.py
_ABSURD = 1e9  # times the largest source voltage: answers from random starts that exceed it are taken for overflows
_MOST_RETURNS = 2  # to the same states of the legs: with more the steps cycle
_MOST_CLOSING = 8  # solutions with one factorisation, until the gaps of conducting ideal diodes are rounding
_MOST_SETTLED = 6  # steps that change no state and yet do not meet the certificate
_MOST_TO_BE_SURE = 60  # steps of a fallback, where a solution is known whose voltages a correction still moves


def solve_row(network: Network, drive: Drive, settings: Settings, x: Floats, at: Drive | None) -> Outcome:
    """Solve one row of the batch, from the states and tangents that the legs have at x (n_free,) with the drive `at`:
    this row's, or that of the row which x solves. Without `at`, start where the legs begin to conduct.
    """
    return _Row(network, drive, settings).solve(x, at)


class _Row:
    """One row of the batch."""

    def __init__(self, network: Network, drive: Drive, settings: Settings) -> None:
        self.network, self.drive, self.settings = network, drive, settings
        self.offset = network.offset(drive)
        self.steps = 0
        self.unsure: Outcome | None = None  # the last that met the certificate, but not for sure

    def solve(self, x: Floats, at: Drive | None) -> Outcome:
        """See `solve_row`. If no solution is certain, the last one that met the certificate (`unsure`)."""
        found = self._search(x, at)
        return found if found.status is Status.SOLVED or self.unsure is None else self.unsure

    def _search(self, x: Floats, at: Drive | None) -> Outcome:
        """Full steps from x (n_free,), then the fallbacks (see the module's description)."""
        net, reciprocal = self.network, self.network.problem.circuit.reciprocal
        if reciprocal and (at_rest := self._at_rest()) is not None:  # controlled sources: there may be other solutions
            return at_rest
        u, tangents = self._begin(x, at)
        inside = reciprocal and bool((net.law == Law.PWL).all())  # all other legs are ideal diodes
        outcome = self._full_steps(u, tangents, FULL_STEPS, patience=_PATIENCE if inside else FULL_STEPS)
        if outcome.status is Status.SOLVED:
            return outcome
        if not reciprocal:
            outcome, ended = self._without_energy(outcome)
            if ended:
                return outcome
        return self._sure_ways(u, tangents, inside) or self._given_up(outcome)

    def _at_rest(self) -> Outcome | None:
        """The outcome with all voltages 0, if no source drives the circuit and this is a solution; else None."""
        net = self.network
        if self.drive.injection.any() or self.offset[: net.legs.n_junctions].any():
            return None
        outcome = self._outcome(np.zeros(net.size), _tangents(net, np.zeros(net.ideal.size)))
        return outcome if outcome.status is Status.SOLVED else None

    def _begin(self, x: Floats, at: Drive | None) -> tuple[Floats, Tangents]:
        """Unknowns and tangents from which full steps start; see `solve_row`."""
        net = self.network
        u = np.zeros(net.size)
        if at is not None:
            u[: x.size] = x
            v = net.across(u) + net.offset(at)
            if at is self.drive:  # x is a guess for this row, not the solution of another
                v[: net.law.size] = first_voltages(net, v[: net.law.size], warm=True)
            on = net.ideal & (v >= -self._rounding(u))
            tangents = _tangents(net, np.where(net.ideal, 0.0, v))
            tangents = replace(tangents, slope=np.where(on, net.rho, tangents.slope))
        else:
            first = first_voltages(net, self.offset[: net.law.size], warm=False)
            tangents = _tangents(net, np.concatenate([first, np.zeros(net.ideal.sum())]))
            if net.problem.circuit.reciprocal and self._enters_islands():
                tangents = replace(tangents, slope=np.where(net.ideal, net.rho, tangents.slope))
        return u, tangents

    def _without_energy(self, outcome: Outcome) -> tuple[Outcome, bool]:
        """The first fallbacks for circuits with controlled sources, which have no co-content: all states of the diodes,
        then damped steps, then random starts. Returns the outcome and whether it is final: solved, or without solution.
        """
        net = self.network
        if outcome.loose is not None and outcome.loose.any():
            net.check_consistent(self.drive)  # before much time is spent in vain
        if outcome.status is not Status.MAX_SWEEPS:
            candidates, no_others = states(net, self.drive, self.offset)
            for candidate in candidates[:_MOST_STATES_TRIED]:
                if (solution := self._finish(*candidate)) is not None:
                    return solution, True
            if no_others and not candidates:
                return outcome.ended(Status.INFEASIBLE, self.steps), True
        outcome = self._damped_steps(np.zeros(net.size), _tangents(net, np.where(net.ideal, 0.0, self.offset)))
        outcome = outcome if outcome.status is Status.SOLVED else self._elsewhere(outcome)
        return outcome, outcome.status is Status.SOLVED

    def _finish(self, u: Floats, tangents: Tangents) -> Outcome | None:
        """A few full steps from near a solution; None if they do not solve the row."""
        for keep in _KEEPS if self.network.ideal.any() else _KEEPS[:1]:
            found = self._full_steps(u, tangents, self.steps + _FINISHING, keep=keep, last=True)
            if found.status is Status.SOLVED:
                return found
        return None

    def _sure_ways(self, u: Floats, tangents: Tangents, inside: bool) -> Outcome | None:
        """The slow fallbacks in turn, None if all fail; with a co-content they converge for sure, but for rounding.

        `inside`: all legs are piecewise linear, so the interior-point method comes first.
        """
        net = self.network

        def go_on(*_: object) -> Iterator[tuple[int, Outcome | None]]:
            """Full steps once more, with a larger patience."""
            found = self._full_steps(u, tangents, self.steps + FULL_STEPS, keep=_KEEPS[0])
            yield 0, found if found.status is Status.SOLVED else None

        ways = (follow_inside, go_on, minimise) if inside else (minimise if net.problem.circuit.reciprocal else follow,)
        for way in ways:
            before = self.steps
            most = self.settings.max_sweeps - before
            most = most if self.unsure is None else min(most, _MOST_TO_BE_SURE)
            for steps, found in way(net, self.drive, self.offset, self._finish, most):
                self.steps = max(self.steps, before + steps)
                if found is not None:
                    return found
        return None

    def _enters_islands(self) -> bool:
        """Whether current sources drive a net current into an island. With all perfect diodes open, it could only leave
        by the tiny conductance that holds a floating unit (network._SOFTLY), at voltages like 1e12 V.
        """
        problem = self.network.problem
        islands, i = problem.topology.islands, problem.given_currents(self.drive.rows)
        return bool(islands.arcs) and bool(islands.pushed(problem.circuit, i)[0].any())

    def _full_steps(
        self,
        u: Floats,
        tangents: Tangents,
        most: int,
        *,
        patience: int = FULL_STEPS,
        keep: float | None = None,
        last: bool = False,
    ) -> Outcome:
        """Full Newton steps with limiting, until the row is solved, the steps cycle, or a limit is reached.

        most       limit of self.steps, which counts all steps taken in this row
        patience   how many steps may pass without a new minimum of diodes that change state
        keep       see _advance; costs steps in crossbars
        last       when the steps cycle, also try the solution of the next tangents
        """
        net, ideal = self.network, self.network.ideal
        seen: Counter[bytes] = Counter()
        settled, fewest, idle = 0, ideal.size + 1, 0
        while self.steps < min(most, self.settings.max_sweeps) and idle <= patience:
            self.steps += 1
            u, tangents = self._closing_step(u, tangents)
            if not np.isfinite(u).all():
                break
            v = net.across(u) + self.offset
            new = self._advance(tangents, v, self._rounding(u), keep=keep)
            changed = (new.slope > 0) != (tangents.slope > 0)
            changes, same = int(np.count_nonzero(changed)), not changed[ideal].any()
            fewest, idle = min(changes, fewest), idle + 1 if changes >= fewest else 0
            if same and self._near(tangents, v, self._rounding(u)):
                settled += 1
                outcome = self._outcome(u, replace(new, slope=tangents.slope))
                if outcome.status is Status.SOLVED or settled > _MOST_SETTLED:
                    return outcome
                new = self._corrected(new, outcome)
            elif not same:
                state = new.slope.tobytes() if net.law.size else (new.slope > 0).tobytes()
                seen[state] += 1
                if seen[state] > _MOST_RETURNS:
                    if last and (other := self._outcome(*self._closing_step(u, new))).status is Status.SOLVED:
                        return other
                    break
            tangents = new
        outcome = self._outcome(u, tangents)
        return outcome if outcome.status is Status.SOLVED else self._given_up(outcome)

    def _given_up(self, outcome: Outcome) -> Outcome:
        """The outcome with the status that says why the search ended: too many steps, overflow, or no progress."""
        if self.steps >= self.settings.max_sweeps:
            return outcome.ended(Status.MAX_SWEEPS, self.steps)
        overflown = not np.isfinite(outcome.x).all()
        return outcome.ended(Status.NONFINITE if overflown else Status.STALLED, self.steps)

    def _damped_steps(self, u: Floats, tangents: Tangents) -> Outcome:
        """Damped steps (Network.damp), short at first, then longer and longer; full steps at the end."""
        try:
            for exponent in _DAMPING:
                self.network.damp(self.network.largest * 10.0**exponent)
                for _ in range(_DAMPED_STEPS):
                    if self.steps >= self.settings.max_sweeps:
                        break
                    self.steps += 1
                    u, tangents = self._closing_step(u, tangents)
                    if not np.isfinite(u).all():
                        return self._outcome(u, tangents).ended(Status.NONFINITE, self.steps)
                    v = self.network.across(u) + self.offset
                    tangents = self._advance(tangents, v, self._rounding(u))
        finally:
            self.network.damp(0.0)
        return self._full_steps(u, tangents, self.steps + FULL_STEPS)

    def _elsewhere(self, outcome: Outcome) -> Outcome:
        """Full steps from random voltages and states of the legs; if all fail, `outcome`, with a reason (_given_up)."""
        net, rng = self.network, np.random.default_rng(0)
        largest = max(float(np.abs(self.drive.fixed).max(initial=0.0)), 1.0)
        for _ in range(_OTHER_STARTS):
            if self.steps >= self.settings.max_sweeps:
                break
            v = rng.normal(size=net.ideal.size) * largest * 10.0 ** rng.uniform(-1.0, 2.0)
            tangents = _tangents(net, np.where(net.ideal, 0.0, v))
            on = net.ideal & (rng.random(net.ideal.size) < 0.5)
            tangents = replace(tangents, slope=np.where(on, net.rho, tangents.slope))
            found = self._full_steps(np.zeros(net.size), tangents, self.steps + _STEPS_THERE)
            if found.status is Status.SOLVED and np.abs(found.x).max(initial=0.0) <= _ABSURD * largest:
                return found
        return self._given_up(outcome)

    def _closing_step(self, u: Floats, tangents: Tangents) -> tuple[Floats, Tangents]:
        """The solution of the linear network, repeated with one factorisation until conducting ideal diodes are closed.

        Returns the unknowns, and the tangents with the currents that these diodes then have.
        """
        net = self.network
        closed = net.ideal & (tangents.slope > 0)
        current, before = tangents.current.copy(), np.inf
        for _ in range(_MOST_CLOSING):
            u = net.linear_step(self.drive, u, self.offset, replace(tangents, current=current))
            gap = net.across(u)[closed] + self.offset[closed]
            current[closed] += tangents.slope[closed] * gap
            largest = float(np.abs(gap).max(initial=0.0))
            if largest == 0.0 or not largest <= 0.1 * before:
                break
            before = largest
        return u, replace(tangents, current=current)

    def _advance(self, old: Tangents, v: Floats, rounding: float, *, keep: float | None = None) -> Tangents:
        """The next tangents, from the voltages v (legs,) that the linear network gave; `rounding`: their error, V.

        An ideal diode that conducts stays on while its current is above 0; with `keep`, while it is not below 0 by more
        than `keep` times the current that rounding can cause, or else two diodes at a dead end may conduct by turns.
        """
        net, n = self.network, self.network.legs.n_junctions
        line = old.current[:n] + old.slope[:n] * (v[:n] - old.voltage[:n])
        w = np.zeros(v.size)
        w[:n] = limited(net.law, net.params, old.voltage[:n], old.current[:n], v[:n], line)
        new = _tangents(net, w)
        current = old.current[n:]
        was_on = old.slope[n:] > 0
        on = np.where(
            was_on, current > 0 if keep is None else current >= -keep * rounding * net.rho[n:], v[n:] > rounding
        )
        new.current[n:] = np.where(on & was_on, current, 0.0)
        new.slope[n:] = np.where(on, net.rho[n:], 0.0)
        return new

    def _near(self, tangents: Tangents, v: Floats, rounding: float) -> bool:
        """Whether at v (legs,) the tangents give nearly the currents of the laws; `rounding`: the error of v, V."""
        net, n = self.network, self.network.legs.n_junctions
        if not n:
            return True
        i, slope = branch_current(net.law, net.params, v[:n])
        line = tangents.current[:n] + tangents.slope[:n] * (v[:n] - tangents.voltage[:n])
        return bool(near(i, line, np.maximum(slope, tangents.slope[:n]) * rounding))

    def _rounding(self, u: Floats) -> float:
        """How far rounding alone may move a difference of voltages from 0, V."""
        return NO_DROP * float(largest_voltages(u[None, : self.network.problem.n_free], self.drive.fixed)[0, 0])

    def _corrected(self, tangents: Tangents, outcome: Outcome) -> Tangents:
        """The tangents, with the states of ideal diodes that the further digits of a refined outcome show."""
        net, n = self.network, self.network.legs.n_junctions
        if outcome.low is None or outcome.carried is None:
            return tangents
        current, slope = tangents.current.copy(), tangents.slope.copy()
        bounds = slice(n + net.legs.n_links, None)
        current[n : bounds.start] = outcome.carried[0, : net.legs.n_links]
        low = outcome.low.sum(axis=0)[0]
        v = (net.across(outcome.x[0]) + self.offset) + net.across(low)
        was_on = slope > 0
        current[bounds] += slope[bounds] * np.where(was_on, v, 0.0)[bounds]
        off, on = was_on & (current <= 0.0), ~was_on & (v > NO_DROP * np.abs(low).max(initial=0.0))
        current[net.ideal & (off | on)] = 0.0
        slope[net.ideal & off], slope[net.ideal & on] = 0.0, net.rho[net.ideal & on]
        return Tangents(tangents.voltage, current, slope)

    def _outcome(self, u: Floats, tangents: Tangents) -> Outcome:
        """The outcome of polishing u, which is clipped to the bounds first.

        Without controlled sources, a solution that a further correction would move is kept as `unsure`, and STALLED.
        """
        net, n = self.network, self.network.legs.n_junctions
        u = u.copy()
        x = u[: net.problem.n_free]
        x[:] = np.clip(x, self.drive.lo[0], self.drive.hi[0])
        links = tangents.current[None, n : n + net.legs.n_links]
        found = polished(net, self.drive, self.settings, u[None], links, tangents.slope, self.steps)
        if found.status is not Status.SOLVED or found.sure or not net.problem.circuit.reciprocal:
            return found
        self.unsure = found
        return found.ended(Status.STALLED, self.steps)


def _tangents(network: Network, v: Floats) -> Tangents:
    """Tangents at these voltages; ideal diodes open."""
    n = network.legs.n_junctions
    current, slope = np.zeros(v.size), np.zeros(v.size)
    current[:n], slope[:n] = branch_current(network.law, network.params, v[:n])
    return Tangents(v, current, slope)
