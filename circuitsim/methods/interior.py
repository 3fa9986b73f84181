"""Perfect diodes by an interior-point method: the number of its steps hardly grows with that of the diodes.

A perfect diode with the gap s = vf - v and the current i has s >= 0, i >= 0 and s i = 0. Here s i = m, which falls from
step to step. Each step is Newton's, for s and i as unknowns of their own: the diode's tangent is a conductance i / s. A
step to m = 0 tells how far m may fall, a second one, with the same factors, goes there and makes up for the product of
the changes that a tangent leaves out (S. Mehrotra, SIAM J. Optim. 2 (1992) 575-601).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from circuitsim.methods.network import Network, Tangents
from circuitsim.methods.outcome import Outcome
from circuitsim.problem import Drive

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_MOST_STEPS = 80
_FAR_INSIDE = 10.0  # times the voltages with all diodes conducting: the gaps at the start
_LESS = 0.995  # of the step at which a gap or a current would be 0
_TELLING = 1e-2  # of m at the start: below, states mean something
_LEAST = 1e-28  # of it: below, nothing more comes to light
_RARER = 5
_FAR = 10.0  # times the largest voltage with all diodes conducting
_HELD = 1e-10  # of the conductances at a unit: what hangs on less stays where it is, rounding moves it nowhere


def follow_inside(
    network: Network, drive: Drive, offset: Floats, finish: Callable[[Floats, Tangents], Outcome | None], most: int
) -> Iterator[tuple[int, Outcome | None]]:
    """Steps of a network all of whose legs are ideal; after each: their number, and what `finish` makes of the states.

    It is asked when they stay, and mean something.
    """
    way, states, next_try = _Inside(network, drive, offset), b"", 1
    for step in range(1, min(most, _MOST_STEPS) + 1):
        way.step()
        before, states, found = states, way.conducts.tobytes(), None
        if way.left < _TELLING and step >= next_try and states == before:
            next_try = step + max(1, step // _RARER)  # what fails again and again is tried ever more rarely
            found = finish(way.voltages, way.tangents)
        yield step, found
        if not way.left > _LEAST or not np.isfinite(way.u).all():
            return


class _Inside:
    """Voltages u (size,), gaps and currents of the diodes (legs,), V and A, all of them > 0.

    A leg is not there where its offset is -inf: it has a gap, and no current.
    """

    def __init__(self, network: Network, drive: Drive, offset: Floats) -> None:
        self.network, self.drive, self.there = network, drive, np.isfinite(offset)
        self.offset, self.none = np.where(self.there, offset, 0.0), np.zeros(offset.size)
        self.around = np.where(self.there, network.conductance_around(), 0.0)
        closed = Tangents(self.none, self.none, self.around)
        self.u = self.start = network.linear_step(drive, np.zeros(network.size), self.offset, closed)
        volts = _FAR_INSIDE * float(np.abs(self._across(self.u)[self.there]).max(initial=0.0)) or 1.0
        self.gap = np.full(offset.size, volts)
        self.current = self.around * self.gap
        self.power = self.current * self.gap  # W, at the start
        self.ohms = 1.0 / network.rho
        self.left = 1.0  # the mean share of it

    @property
    def conducts(self) -> Bools:
        """The diodes that rather have a current than a gap."""
        found: Bools = self.current > self.around * self.gap
        return found

    @property
    def voltages(self) -> Floats:
        """u, where nothing has pushed it far away: islands that diodes alone bound on one side go there."""
        return np.where(np.abs(self.u) <= _FAR * np.abs(self.start).max(initial=0.0), self.u, self.start)

    @property
    def tangents(self) -> Tangents:
        """Those of perfect diodes in these states."""
        on = self.conducts
        return Tangents(self.none, np.where(on, self.current, 0.0), np.where(on, self.network.rho, 0.0))

    def step(self) -> None:
        """The next voltages, gaps and currents."""
        self.network.damp(_HELD * self.network.problem.values.diag)
        try:
            self._step()
        finally:
            self.network.damp(0.0)

    def _step(self) -> None:
        _, gap, current, t = self._towards(self.none)
        might_be_left = self._left(self.gap + t * gap, self.current + t * current)
        aim = self.left * min((might_be_left / self.left) ** 3, 1.0)
        u, gap, current, t = self._towards(aim * self.power - gap * current)
        t = min(1.0, _LESS * t)
        self.u = self.u + t * (u - self.u)
        self.gap, self.current = self.gap + t * gap, self.current + t * current
        self.left = self._left(self.gap, self.current)

    def _towards(self, power: Floats) -> tuple[Floats, Floats, Floats, float]:
        """Newton's step to gap x current = power, W: u there, changes of gaps and currents, and how far it may go."""
        through = self.gap + self.ohms * self.current
        tangents = Tangents(-self.gap, np.where(self.there, power / through, 0.0), self.current / through)
        u = self.network.linear_step(self.drive, self.u, self.offset, tangents)
        past = np.where(self.there, self._across(u) + self.gap, 0.0)
        current = tangents.current + tangents.slope * past
        gap = self.ohms * current - past
        current -= self.current
        return u, gap, current, min(_longest(self.gap, gap), _longest(self.current, current))

    def _across(self, u: Floats) -> Floats:
        return self.network.across(u) + self.offset

    def _left(self, gap: Floats, current: Floats) -> float:
        shares = gap[self.there] * current[self.there] / self.power[self.there]
        return float(shares.mean()) if shares.size else 0.0


def _longest(value: Floats, change: Floats) -> float:
    """The step, at most 1, at which the first value comes to 0."""
    falls = change < 0
    return float(np.min(value[falls] / -change[falls], initial=1.0))
