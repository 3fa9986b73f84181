"""Piecewise-linear diodes by an interior-point method, which needs hardly more steps for more diodes.

A diode that conducts above vf, with R in series, has the gap s = vf + R i - v and the current i: s >= 0, i >= 0 and
s i = 0. Here s i = m, which falls from step to step. Each step is Newton's, with s and i as separate unknowns: the
diode's tangent is a conductance i / (s + R i). A step to m = 0 shows how far m may fall; a second one, with the same
factors, goes there and corrects for the product of the changes, which a tangent leaves out (S. Mehrotra, SIAM J. Optim.
2 (1992) 575-601). m is the same for all diodes.

Units that diodes bound on one side only would be pushed away without limit by m / s. So every unit is drawn to where it
started, by a conductance that falls as m does: m / s = pull x way then holds such islands within some 30 times the
voltages there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.methods.network import Network, Tangents
from circuitsim.methods.outcome import Outcome

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MOST_STEPS = 80
_FAR_INSIDE = 10.0  # initial gaps, times the largest voltage from a knee in the first solution
_ROUNDING = 1e-12  # times the largest voltage: if that voltage is smaller, the largest voltage itself is taken
_LESS = 0.995  # share taken of the step at which a gap or a current would be 0
_TELLING = 1e-2  # m, relative to the start, below which the states of the knees are tried
_LEAST = 1e-28  # m, relative to the start, below which the method ends
_RARER = 5  # states that failed at step n are tried again n / _RARER steps later
_MOST_TRIES = 6  # calls of `finish` for each guess
_PULL, _LEAST_PULL = 0.1, 1e-12  # conductances that draw units to their starts, relative to those there: first; least


def follow_inside(
    network: Network, drive: Drive, offset: Floats, finish: Callable[[Floats, Tangents], Outcome | None], most: int
) -> Iterator[tuple[int, Outcome | None]]:
    """Steps of a network all of whose legs are piecewise linear; yields after each their number, and what `finish`
    makes of the states of the knees, called when a step has not changed them and m is small enough (_TELLING).
    """
    way, vain = _Inside(network, drive, offset), set[bytes]()
    only_states = not network.ideal.any()  # of ideal diodes the currents matter, too: the same states may succeed later
    guesses = _Guess(lambda: way.conducts), _Guess(lambda: way.begins)
    for step in range(1, min(most, _MOST_STEPS) + 1):
        way.step()
        found = None
        for guess in guesses:
            before, states = guess.states, guess.made()
            guess.states = states.tobytes()
            asked = way.left < _TELLING and step >= guess.next_try and guess.tries < _MOST_TRIES
            if found is None and asked and guess.states == before and not (only_states and before in vain):
                guess.tries += 1
                guess.next_try = step + max(1, step // _RARER)  # what fails again and again is tried ever more rarely
                vain.add(before)
                found = finish(way.u, way.tangents(states))
        yield step, found
        if guesses[0].tries == _MOST_TRIES or not way.left > _LEAST or not np.isfinite(way.u).all():
            return


@dataclass
class _Guess:
    """One of the indicators of which knees conduct, and how often its states were tried."""

    made: Callable[[], Bools]
    states: bytes = b""  # after the last step
    next_try: int = 1  # not before this step
    tries: int = 0


class _Knees(NamedTuple):
    """Perfect diodes, each in series with a resistance, that make up the legs: one an ideal diode, two a PWL branch."""

    leg: Ints  # (n,) the leg that each is part of
    sign: Floats  # 1: conducts from the leg's first end to its second; -1: the reverse
    volts: Floats  # V, forward voltage
    ohms: Floats  # the resistance; of an ideal diode 1 / rho


def _knees(network: Network, there: Bools) -> _Knees:
    """The knees of a network; `there` is False for absent bounds, ideal legs that never conduct."""
    forward, volts, reverse, reverse_volts = network.params.T[:4]
    ahead = np.flatnonzero((forward > 0) & np.isfinite(volts))
    back = np.flatnonzero((reverse > 0) & np.isfinite(reverse_volts))
    ideal = np.flatnonzero(network.ideal & there)
    return _Knees(
        np.concatenate([ahead, back, ideal]),
        np.concatenate([np.ones(ahead.size), -np.ones(back.size), np.ones(ideal.size)]),
        np.concatenate([volts[ahead], reverse_volts[back], np.zeros(ideal.size)]),
        1.0 / np.concatenate([forward[ahead], reverse[back], network.rho[ideal]]),
    )


class _Inside:
    """The iterates: unknowns u (size,); gaps (V) and currents (A) of the knees (n,), all of them > 0."""

    def __init__(self, network: Network, drive: Drive, offset: Floats) -> None:
        self.network, self.drive = network, drive
        self.knees = k = _knees(network, np.isfinite(offset))
        self.offset = np.where(np.isfinite(offset), offset, 0.0)
        around, diag = network.conductance_around()[k.leg], network.problem.values.diag
        self.conductances = np.where(diag > 0, diag, diag[diag > 0].mean() if diag.any() else network.largest)
        self.pull = np.zeros_like(diag)
        some = np.isfinite(around)
        around[~some] = around[some].mean() if some.any() else network.largest
        self.around = 1.0 / (1.0 / around + k.ohms)
        closed = self.around * (k.sign > 0)
        self.u = self.start = np.zeros(network.size)
        self.u = self.start = self._stepped(closed, closed * self._past(self.u))
        past, size = (float(np.abs(x).max(initial=0.0)) for x in (self._past(self.u), np.append(self.u, drive.fixed)))
        volts = _FAR_INSIDE * (past if past > _ROUNDING * size else size) or 1.0
        usual = float(self.around.mean()) if k.leg.size else 0.0
        self.gap, self.current = np.full(k.leg.size, volts), np.full(k.leg.size, volts * usual)
        self.before = self.gap, self.current  # those before the last step
        self.power = volts * volts * usual  # W, gap x current of each knee at the start
        self.left = 1.0  # the present mean of gap x current, relative to `power`

    @property
    def conducts(self) -> Bools:
        """The knees whose current exceeds their gap times the conductance around them, (n,)."""
        found: Bools = self.current > self.around * self.gap
        return found

    @property
    def begins(self) -> Bools:
        """The knees whose ratio of current to gap grew in the last step, (n,): the indicators of R. A. Tapia (1980).

        They work where the conductances around mislead: behind a large one there may be a small one in series.
        """
        found: Bools = self.current * self.before[0] > self.gap * self.before[1]
        return found

    def tangents(self, on: Bools) -> Tangents:
        """The tangents of the legs when the knees `on` (n,) conduct."""
        k, legs, n = self.knees, self.offset.size, self.network.law.size
        v = self.network.across(self.u) + self.offset
        v[n:] = 0.0
        current = np.where(k.leg < n, k.sign * self._past(self.u) / k.ohms, self.current)
        return Tangents(
            v,
            np.bincount(k.leg[on], current[on], legs).astype(np.float64),
            np.bincount(k.leg[on], 1.0 / k.ohms[on], legs).astype(np.float64),
        )

    def step(self) -> None:
        """The next voltages, gaps and currents."""
        self.pull = max(_PULL * self.left, _LEAST_PULL) * self.conductances
        self.network.damp(self.pull)
        try:
            self._step()
        finally:
            self.network.damp(0.0)

    def _step(self) -> None:
        """Mehrotra's predictor, a step to m = 0, and corrector, which aims at the m that this suggests."""
        _, gap, current, t = self._towards(0.0)
        might_be_left = self._left(self.gap + t * gap, self.current + t * current)
        aim = self.left * min((might_be_left / self.left) ** 3, 1.0)
        u, gap, current, t = self._towards(aim * self.power - gap * current)
        t = min(1.0, _LESS * t)
        self.u, self.before = self.u + t * (u - self.u), (self.gap, self.current)
        self.gap, self.current = self.gap + t * gap, self.current + t * current
        self.left = self._left(self.gap, self.current)

    def _towards(self, power: Floats | float) -> tuple[Floats, Floats, Floats, float]:
        """Newton's step to gap x current = power, W: u there, changes of gaps and currents, and the longest share of
        the step, at most 1, at which all are >= 0.
        """
        through = self.gap + self.knees.ohms * self.current
        slope, at_gap = self.current / through, power / through
        u = self._stepped(slope, at_gap + slope * (self._past(self.u) + self.gap))
        beyond = self._past(u) + self.gap
        new = at_gap + slope * beyond
        gap, current = self.knees.ohms * new - beyond, new - self.current
        return u, gap, current, min(_longest(self.gap, gap), _longest(self.current, current))

    def _stepped(self, slope: Floats, current: Floats) -> Floats:
        """The solution of the linear network of the knees' tangents: `slope` (n,), S, with `current` (n,), A, at u."""
        u, leg, legs = self.u, self.knees.leg, self.offset.size
        v = self.network.across(u) + self.offset
        tangents = Tangents(
            v,
            np.bincount(leg, self.knees.sign * current, legs).astype(np.float64),
            np.bincount(leg, slope, legs).astype(np.float64),
        )
        drive = replace(self.drive, injection=self.drive.injection + self.pull * (self.start - u))
        return self.network.linear_step(drive, u, self.offset, tangents)

    def _past(self, u: Floats) -> Floats:
        """By how many volts each knee is exceeded, (n,), V."""
        v = self.network.across(u) + self.offset
        return self.knees.sign * v[self.knees.leg] - self.knees.volts

    def _left(self, gap: Floats, current: Floats) -> float:
        """The mean of gap x current, relative to that at the start."""
        shares = gap * current / self.power
        return float(shares.mean()) if shares.size else 0.0


def _longest(value: Floats, change: Floats) -> float:
    """The largest t <= 1 for which value + t change >= 0 everywhere."""
    falls = change < 0
    return float(np.min(value[falls] / -change[falls], initial=1.0))
