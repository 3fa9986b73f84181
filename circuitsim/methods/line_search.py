"""Newton directions with an exact line search of the co-content: slow, but it converges without controlled sources.

The co-content of the linear network and the legs, with ideal diodes as max(0, lam + rho v)^2 / (2 rho), is convex with
a continuous slope. At its minimum, lam is set to the currents found (augmented Lagrangian), until they no longer
change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.laws import branch_current
from circuitsim.methods.limiting import NO_DROP
from circuitsim.methods.network import Network, Tangents
from circuitsim.methods.outcome import Outcome

Floats = NDArray[np.float64]

_MOST_STEPS = 2000  # where rounding hides the minimum the steps would go on for ever
_FEWEST, _A_LEG = 100, 10  # with few legs at most so many steps, and so many more for each leg
_MOST_STILL = 20  # steps in a row in which nothing but lam moves
_RARER = 10  # after a failure at step n, `finish` is called again n / _RARER steps later
_STEEPEST = 1e12  # largest slope of a tangent, in units of the largest conductance


def minimise(
    network: Network,
    drive: Drive,
    offset: Floats,
    finish: Callable[[Floats, Tangents], Outcome | None],
    most: int,
) -> Iterator[tuple[int, Outcome | None]]:
    """Steps from 0; after each: their number, and what `finish` makes of a minimum once there is one."""
    u = np.zeros(network.size)
    n_free = network.problem.n_free
    u[:n_free] = np.clip(u[:n_free], drive.lo[0], drive.hi[0])
    lam = np.zeros(network.legs.a.size)
    state, next_try, rests = b"", 1, 0
    last = min(most, _MOST_STEPS, _FEWEST + _A_LEG * lam.size)
    for step in range(1, last + 1):
        v = network.across(u) + offset
        i, g = _legs(network, v, lam)
        g = np.minimum(g, _STEEPEST * network.largest)
        d = network.linear_step(drive, u, offset, Tangents(np.where(g > 0, v, 0.0), i, g)) - u
        t = _minimum(_along(network, drive, u, d, v, lam))
        still = bool((np.abs(t * d) <= NO_DROP * np.abs(u).max(initial=0.0)).all())
        u = u + t * d
        v = network.across(u) + offset
        i, g = _legs(network, v, lam)
        new_state = (i > 0).tobytes()
        found, before = None, lam
        rests = rests + 1 if still else 0
        minimal = still or (abs(t - 1.0) < 1e-3 and new_state == state)
        if minimal:
            lam = np.where(network.ideal, i, 0.0)
        ends = (still and np.array_equal(lam, before)) or rests > _MOST_STILL or step == last
        if minimal and (ends or step >= next_try):  # what fails again and again is tried ever more rarely
            next_try = step + max(1, step // _RARER)
            slope = np.where(network.ideal & (i > 0), network.rho, g)
            found = finish(u, Tangents(np.where(network.ideal, 0.0, v), i, slope))
        yield step, found
        if ends:
            return
        state = new_state


def _legs(network: Network, v: Floats, lam: Floats) -> tuple[Floats, Floats]:
    """Currents and slopes of the legs; an ideal one is the line lam + rho v, where that is positive."""
    n = network.legs.n_junctions
    line = lam[n:] + network.rho[n:] * v[n:]
    i, g = branch_current(network.law, network.params, v[:n])
    return np.concatenate([i, np.maximum(line, 0.0)]), np.concatenate([g, np.where(line > 0, network.rho[n:], 0.0)])


def _along(network: Network, drive: Drive, u: Floats, d: Floats, v: Floats, lam: Floats) -> Callable[[float], float]:
    """The derivative of the co-content along d, as a function of the step, in W per volt of the largest entry of d."""
    largest = float(np.abs(d).max(initial=0.0)) or 1.0
    unit = d / largest  # d itself may be so long that its square overflows
    dv = network.across(unit)
    constant = -float(unit @ network.violations(drive, u[None])[0])
    slope = float(unit @ network.flow(unit[None])[0])
    moving = dv != 0.0

    def derivative(t: float) -> float:
        volts = t * largest
        i, _ = _legs(network, v + volts * np.where(moving, dv, 0.0), lam)
        found = constant + volts * slope + float(i[moving] @ dv[moving])
        return np.inf if np.isnan(found) else found  # overflown, far beyond the minimum

    return derivative


def _minimum(derivative: Callable[[float], float]) -> float:
    """The step at which an increasing derivative crosses 0; 0 when it is not negative at 0.

    By Brent's method, to rounding where it is smooth, else as near as a hundred evaluations lead.
    """
    at = cache(derivative)
    low, high = 0.0, 1.0
    if not at(0.0) < 0.0:
        return 0.0
    while at(high) < 0.0 and high < 1e30:
        low, high = high, 2.0 * high
    while low == 0.0 and high > 1e-300 and not at(1e-3 * high) < 0.0:
        high *= 1e-3
    if high == 1.0 and abs(at(1.0)) <= 1e-9 * abs(at(0.0)) < np.inf:
        return 1.0
    if at(high) < 0.0:
        return high
    from scipy.optimize import brentq  # takes 0.1 s to load

    return float(brentq(at, low, high, xtol=1e-300, rtol=4 * np.finfo(np.float64).eps, disp=False))
