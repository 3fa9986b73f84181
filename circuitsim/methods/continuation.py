"""Continuation: the solutions of a circuit with modified sources, followed until the sources are the actual ones.

For circuits with both controlled sources and nonlinear branches, where Newton's steps fail. Each leg moves along its
curve (v(s), i(s)), s an unbounded voltage (G. J. Minty 1962: s = v + r i), and the linear network around it follows:

    M u + A' i = b,  v = A u + offset   <=>   v = c + Z t,  t = v - r i,  Z = A (M + A' r^-1 A)^-1 A' r^-1

so that G(s) = c + Z t(s) - v(s) = 0 is the circuit. From any s0 the curve G(s) = (1 - q) G(s0) is followed by its
arc length from q = 0, forwards and backwards in q where it turns, until q = 1 (Newton homotopy, H. B. Keller 1977; for
operating points: R. C. Melville, L. Trajkovic, S.-C. Fang, L. T. Watson 1993), where all sources, and their errors, are
those of the circuit. If these curves lead nowhere, that of the circuit with q times its gains is followed in the same
way. Kinks are rounded on the way, but not in Newton's own steps from the end of the curve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.law_kernels import RS, Law
from circuitsim.laws import branch_current, exponential_voltage
from circuitsim.methods.network import Network, Tangents
from circuitsim.methods.outcome import Outcome

Floats = NDArray[np.float64]

_MOST_LEGS, _MOST_UNKNOWNS = 200, 20_000  # their matrices are dense
_PATHS = 6  # starts of curves in the sources, before the curve in the gains
_POINTS = 200  # of a curve
_ROUNDED = 1e-3  # kinks are rounded within this distance, in units of _Curve.volts
_CORRECTIONS = 5  # Newton steps from the predicted point to the curve
_NEAR = 1e-9  # relative size of the correction after which a point is on the curve
_STRAIGHT = 0.7  # cosine of the angle between the directions at two points: below, the step was too long
_SHORTEST, _FIRST = 1e-7, 0.1  # arc lengths of a step
_GAIN_STEP = 1e-6  # finite difference in q, for the derivative of _GainCurve
_OUTSIDE = 1e8  # a curve that has gone so far does not come back


def follow(
    network: Network, drive: Drive, offset: Floats, finish: Callable[[Floats, Tangents], Outcome | None], most: int
) -> Iterator[tuple[int, Outcome | None]]:
    """Follow such curves from several starts; yields, point by point, their number so far and what `finish` makes of a
    solution.
    """
    count, rng = 0, np.random.default_rng(0)
    if not 0 < offset.size <= _MOST_LEGS or network.size > _MOST_UNKNOWNS:
        return
    for path in range(_PATHS + 1):
        by_gains = path == _PATHS
        curve = (_GainCurve if by_gains else _Curve)(network, drive, offset, rng)
        start = rng.normal(size=offset.size) * curve.scale * 10.0 ** rng.uniform(-1.0, 1.0) * (path > 0)
        for s in curve.points(np.zeros_like(start) if by_gains else start):
            count += 1
            yield count, None if s is None else finish(*curve.at(s))
            if count >= most:
                return


class _Curve:
    """The equations G of a circuit, and the curves that lead to their solutions. All s and G in units of `volts`."""

    def __init__(self, network: Network, drive: Drive, offset: Floats, rng: np.random.Generator) -> None:
        self.network = network
        self.live = np.isfinite(offset)
        self.offset = np.where(self.live, offset, 0.0)
        self.volts = max(float(np.abs(drive.fixed).max(initial=0.0)), float(np.abs(self.offset).max()), 1.0)
        self.r = _resistances(network) * 10.0 ** rng.uniform(-0.5, 0.5, offset.size)
        self.prepare(drive)
        self.scale = 1.0 + np.abs(self.c) / self.volts

    def prepare(self, drive: Drive) -> None:
        """Compute c and Z of the module's equations, and what `_around` needs."""
        network = self.network
        self.solved = network.factor(1.0 / self.r)
        self.sides = network.sides(drive)[0]
        self.c = self.offset + network.across(self._around(np.zeros(self.offset.size)))
        currents = np.array([network.into(row) for row in -np.diag(1.0 / self.r)])
        self.z = np.array([network.across(u) for u in self.solved.solve(currents)]).T

    def _around(self, t: Floats) -> Floats:
        """The unknowns (size,) of the linear network for legs with t = v - r i, (legs,), V."""
        injected = self.sides + self.network.into((self.offset - t) / self.r)
        out: Floats = self.solved.solve(injected[None])[0]
        return out

    def at(self, s: Floats) -> tuple[Floats, Tangents]:
        """The unknowns of the network at s (legs,), and the tangents of its legs there."""
        net, n = self.network, self.network.legs.n_junctions
        i, _, v, _ = self._legs(s)
        current, slope = np.where(s > 0, i, 0.0), np.where(self.live & (s > 0), net.rho, 0.0)
        current[:n], slope[:n] = branch_current(net.law, net.params, v[:n])
        return self._around(v - self.r * i), Tangents(np.where(net.ideal, 0.0, v), current, slope)

    def _legs(self, s: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """i (A), di/ds (S), v (V), dv/ds of all legs, kinks rounded."""
        net, width, s = self.network, _ROUNDED * self.volts, s * self.volts
        i, di = (np.where(self.live, x / self.r, 0.0) for x in _beyond(s, width))  # ideal diodes, up to 0 V
        v, dv = s - self.r * i, 1.0 - self.r * di
        for kind in np.unique(net.law).tolist():
            chosen = np.flatnonzero(net.law == kind)
            found = _leg(Law(kind), net.params[chosen], s[chosen], self.r[chosen], width)
            for values, some in zip((i, di, v, dv), found, strict=True):
                values[chosen] = some
        return i, di, v, dv

    def _equations(self, s: Floats) -> tuple[Floats, Floats]:
        """G, and its Jacobian (legs, legs)."""
        i, di, v, dv = self._legs(s)
        return (self.c + self.z @ (v - self.r * i) - v) / self.volts, self.z * (dv - self.r * di) - np.diag(dv)

    def points(self, start: Floats) -> Iterator[Floats | None]:
        """One item for each step along the curve from s = start: s near a solution where it passes q = 1, else None."""
        self.g0 = self._equations(start)[0]
        return self._followed(start)

    def _at(self, z: Floats) -> tuple[Floats, Floats]:
        """The function that is 0 on the curve, at z = (s, q), (legs,), and its Jacobian, (legs, legs + 1)."""
        g, jacobian = self._equations(z[:-1])
        return g - (1.0 - z[-1]) * self.g0, np.column_stack([jacobian, self.g0])

    def _followed(self, start: Floats) -> Iterator[Floats | None]:
        """The items of `points`: predictions along the tangent, each corrected to the curve; step lengths adapt."""
        z, length, upwards = np.append(start, 0.0), _FIRST, np.append(np.zeros(start.size), 1.0)
        tangent = self._tangent(z, upwards)
        for _ in range(_POINTS):
            if length < _SHORTEST or not np.abs(z).max() < _OUTSIDE:
                return
            new = self._corrected(z + length * tangent, tangent)
            ahead = None if new is None else self._tangent(new, tangent)
            if new is None or ahead is None or not ahead @ tangent > _STRAIGHT:
                length /= 4.0
                yield None
                continue
            found, (before, after) = None, (z[-1] - 1.0, new[-1] - 1.0)
            if before * after < 0.0:
                found = self._corrected(z + before / (before - after) * (new - z), upwards)
                if found is None:  # the curve turns on the way to q = 1
                    length /= 4.0
                    yield None
                    continue
            elif abs(after) <= _NEAR < abs(before):  # the curve goes on within q = 1: its points are solutions
                found = new
            yield None if found is None else found[:-1]
            z, tangent, length = new, ahead, 2.0 * length

    def _corrected(self, z: Floats, row: Floats) -> Floats | None:
        """The point of the curve near z in the plane normal to `row`; None if Newton's steps find none."""
        for _ in range(_CORRECTIONS):
            missed, jacobian = self._at(z)
            step = _solution(jacobian, row, np.append(-missed, 0.0))
            z = z + step
            if not np.isfinite(z).all():
                return None
            if np.abs(step).max() <= _NEAR * (1.0 + np.abs(z).max()):
                return z
        return None

    def _tangent(self, z: Floats, before: Floats) -> Floats:
        """The unit tangent of the curve at z, the one in the direction of `before`; NaN where there is none."""
        found = _solution(self._at(z)[1], before, np.append(np.zeros(z.size - 1), 1.0))
        return found / np.linalg.norm(found)


class _GainCurve(_Curve):
    """The curve G_q(s) = 0 of solutions of the circuit with q times its gains, from q = 0, without any gain."""

    def __init__(self, network: Network, drive: Drive, offset: Floats, rng: np.random.Generator) -> None:
        super().__init__(network, drive, offset, rng)
        self.drive = drive

    def _with_gains(self, q: float) -> _Curve:
        """The equations of the circuit with q times its gains, in the same units."""
        problem, c = self.network.problem, self.network.problem.circuit
        scaled = replace(problem, circuit=replace(c, controlled=replace(c.controlled, gain=q * c.controlled.gain)))
        curve = copy(self)
        curve.network = type(self.network)(scaled)
        curve.prepare(self.drive)
        return curve

    def points(self, start: Floats) -> Iterator[Floats | None]:
        """See _Curve.points; the curve begins at a solution without gains, found as by _Curve."""
        first = _Curve.points(self._with_gains(0.0), start)
        at_rest = next((s for s in first if s is not None), None)
        return iter(()) if at_rest is None else self._followed(at_rest)

    def _at(self, z: Floats) -> tuple[Floats, Floats]:
        s, q = z[:-1], float(z[-1])
        g, jacobian = self._with_gains(q)._equations(s)
        further, _ = self._with_gains(q + _GAIN_STEP)._equations(s)
        return g, np.column_stack([jacobian, (further - g) / _GAIN_STEP])


def _solution(jacobian: Floats, row: Floats, sides: Floats) -> Floats:
    """The solution (s, q) of the equations with the matrix `jacobian` (legs, legs + 1) above `row`; NaN on overflow.

    Where it is singular, as when a loop of sources leaves currents open, the least-squares one of least norm.
    """
    matrix = np.vstack([jacobian, row])
    out = np.full(sides.size, np.nan)
    if not (np.isfinite(matrix).all() and np.isfinite(sides).all()):
        return out
    for solve in (np.linalg.solve, lambda a, b: np.linalg.lstsq(a, b)[0]):
        with suppress(np.linalg.LinAlgError):
            out[:] = solve(matrix, sides)
            break
    return out


def _resistances(network: Network) -> Floats:
    """About the resistance of the linear network between the ends of each leg, (legs,), ohm: 1/g of its free ends.

    g is a unit's linear conductance; where it has none, the median of the others', or 1 S.
    """
    diag = network.problem.values.diag
    usual = 1.0 / np.median(diag[diag > 0]) if (diag > 0).any() else 1.0
    padded = np.append(np.where(diag > 0, 1.0 / np.where(diag > 0, diag, 1.0), usual), 0.0)
    found: Floats = padded[network.legs.a] + padded[network.legs.k]
    return found


def _leg(law: Law, p: Floats, s: Floats, r: Floats, width: float) -> tuple[Floats, Floats, Floats, Floats]:
    """i (A), di/ds (S), v (V), dv/ds of nonlinear branches at s (V); s = v + r i, but v for tanh and r i for sinh."""
    if law is Law.TANH:
        i, di = branch_current(np.full(s.size, law), p, s)
        return i, di, s, np.ones(s.size)
    if law is Law.SINH:
        v = exponential_voltage(np.full(s.size, law), p, s / r)
        return s / r, 1.0 / r, v, 1.0 / (r * branch_current(np.full(s.size, law), p, v)[1])
    if law is Law.SHOCKLEY:
        q = p.copy()
        q[:, RS] += r
        i, di = branch_current(np.full(s.size, law), q, s)
    elif law is Law.PWL:
        g_f, v_f, g_r, v_r, *_ = p.T
        (x, dx), (y, dy) = _beyond(s - v_f, width), _beyond(-s - v_r, width)
        g_f, g_r = g_f / (1.0 + r * g_f), g_r / (1.0 + r * g_r)
        i, di = g_f * x - g_r * y, g_f * dx + g_r * dy
    else:
        g, lo, hi, *_ = p.T
        at_zero = np.clip(0.0, lo, hi)
        low, high = (np.where(np.isfinite(end), end + r * g * (end - at_zero), end) for end in (lo, hi))
        (x, dx), (y, dy) = _beyond(s - high, width), _beyond(low - s, width)
        g = g / (1.0 + r * g)
        i, di = g * (s - x + y - at_zero), g * (1.0 - dx - dy)
    return i, di, s - r * i, 1.0 - r * di


def _beyond(x: Floats, width: float) -> tuple[Floats, Floats]:
    """max(x, 0), rounded within +-width, and its slope."""
    slope = np.clip(0.5 * (x / width + 1.0), 0.0, 1.0)
    return np.where(np.abs(x) < width, width * slope**2, np.maximum(x, 0.0)), slope
