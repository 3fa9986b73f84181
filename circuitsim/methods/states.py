"""All states of few piecewise-linear legs: the solutions of a circuit with controlled sources, or that it has none.

A leg has a state for each straight piece of its law. For a given state of each leg all equations are linear, and their
solution is one of the circuit if every leg is within its piece. Circuits with controlled sources have no co-content to
lead there; with few legs, all states are tried. The unknowns are those of the network and the currents of the legs:

    flow(u) + incidence' i = sides,    p (incidence u + offset) + q i = r    for each leg.

Where these equations are singular, a linear program (HiGHS) shows whether any of their solutions is within its pieces.
A state is ruled out only if it fails by more than rounding can explain.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.law_kernels import Law
from circuitsim.methods.network import Network, Tangents

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_STATES, _MOST_SIZE = 4096, 120  # states of a circuit, and equations of each
_AT_ONCE = 256  # states solved together
_MOST_PROGRAMS = 512  # linear programs, some 2 ms each
_SINGULAR = 1e10  # condition number of scaled equations
_BEYOND = 1e-6  # times the largest voltage or current: a leg is certainly outside its piece if by more than this
_ERRORS = 1e3  # and this many times the rounding error
_RANK, _UNCLEAR = 1e-12, 1e-7  # times the largest singular value: up to the first one is 0, between them it is unclear
_CONTRADICTS = 1e-6  # times the largest terms of an equation: what it may be violated by
_EPS = float(np.finfo(np.float64).eps)


class _Piece(NamedTuple):
    """A straight piece of a law, p v + q i = r, from lo to hi; v (V) and i (A) as the leg has them."""

    p: float
    q: float
    r: float
    v_lo: float
    v_hi: float
    i_lo: float = -np.inf
    slope: float = 0.0  # of the tangent, S


_P, _Q, _R, _V_LO, _V_HI, _I_LO, _SLOPE = range(len(_Piece._fields))  # columns of these in an array


def states(network: Network, drive: Drive, offset: Floats) -> tuple[list[tuple[Floats, Tangents]], bool]:
    """The solutions (u, tangents) of those states, in one row of a batch, in which all legs may be within their pieces.

    And whether there are certainly no others: False if there are too many states to examine, or laws are curved.
    """
    pieces = [_pieces(network, leg, bool(np.isfinite(offset[leg]))) for leg in range(offset.size)]
    size = network.size + offset.size
    few = offset.size > 0 and size <= _MOST_SIZE and np.prod([float(len(of_leg)) for of_leg in pieces]) <= _MOST_STATES
    if not few or not all(pieces):
        return [], False
    equations = _Equations(network, drive, np.where(np.isfinite(offset), offset, 0.0))
    found: list[tuple[Floats, Tangents]] = []
    sure, programs = True, 0
    for some in _shares(product(*pieces)):
        y, possible, singular = equations.solved(some)
        found += [equations.tangents(some[k], y[k]) for k in np.flatnonzero(possible)]
        for k in np.flatnonzero(singular):
            programs += 1
            at, certain = equations.program(some[k]) if programs <= _MOST_PROGRAMS else (None, False)
            found += [] if at is None else [equations.tangents(some[k], at)]
            sure = sure and certain
    return found, sure


def _shares(every: Iterator[tuple[_Piece, ...]]) -> Iterator[Floats]:
    """The states, some at a time, (some, legs, 7): the fields of each leg's _Piece."""
    while some := [state for state, _ in zip(every, range(_AT_ONCE), strict=False)]:
        yield np.array(some, float).reshape(len(some), len(some[0]), len(_Piece._fields))


def _pieces(network: Network, leg: int, there: bool) -> list[_Piece]:
    """The pieces of a leg's law; none if it is curved. `there` is False for an absent bound, which never conducts."""
    inf = np.inf
    if leg >= network.law.size:
        off = _Piece(0.0, 1.0, 0.0, -inf, 0.0 if there else inf)
        return [off, _Piece(1.0, 0.0, 0.0, -inf, inf, 0.0, network.rho[leg])] if there else [off]
    law, (a, b, c, d, *_) = network.law[leg], network.params[leg].tolist()
    if law == Law.PWL:
        high, low = b if a > 0 else inf, -d if c > 0 else -inf
        middle = _Piece(0.0, 1.0, 0.0, low, high)
        above = [_Piece(-a, 1.0, -a * high, high, inf, slope=a)] if high < inf else []
        below = [_Piece(-c, 1.0, -c * low, -inf, low, slope=c)] if low > -inf else []
        return [middle, *above, *below]
    if law == Law.SEGMENT:
        zero = min(max(0.0, b), c)
        above = [_Piece(0.0, 1.0, a * (c - zero), c, inf)] if c < inf else []
        below = [_Piece(0.0, 1.0, a * (b - zero), -inf, b)] if b > -inf else []
        return [_Piece(-a, 1.0, -a * zero, b, c, slope=a), *above, *below]
    return []


class _Equations:
    """The equations of a network (see the module's description): `n` unknowns, then the currents of the legs."""

    def __init__(self, network: Network, drive: Drive, offset: Floats) -> None:
        self.network, self.offset, self.n, legs = network, offset, network.size, offset.size
        self.incidence = network.incidence
        self.matrix = np.zeros((self.n + legs, self.n + legs))
        self.matrix[: self.n, : self.n] = network.matrices(np.zeros((1, legs)))[0]
        self.matrix[: self.n, self.n :] = self.incidence.T
        self.sides = network.sides(drive)[0]
        self.fixed = float(np.abs(drive.fixed).max(initial=0.0))

    def of(self, some: Floats) -> tuple[Floats, Floats]:
        """Matrices and right-hand sides of states (some, legs, 7), each equation scaled to 1 at most."""
        p, q, r = some[..., _P], some[..., _Q], some[..., _R]
        matrix = np.repeat(self.matrix[None], len(some), axis=0)
        legs = np.arange(self.n, len(self.matrix))
        matrix[:, legs, : self.n] = p[..., None] * self.incidence
        matrix[:, legs, legs] = q
        sides = np.concatenate([np.broadcast_to(self.sides, (len(some), self.n)), r - p * self.offset], axis=1)
        scale = np.abs(matrix).max(axis=2)
        scale[scale == 0.0] = 1.0
        return matrix / scale[..., None], sides / scale

    def solved(self, some: Floats) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Solutions, (some, unknowns), which of them may be within their pieces, and which equations are singular."""
        matrix, sides = self.of(some)
        column = np.abs(matrix).max(axis=1)
        column[column == 0.0] = 1.0
        matrix = matrix / column[:, None]
        singular = np.linalg.slogdet(matrix).sign == 0
        matrix[singular] = np.eye(matrix.shape[1])
        inverse = np.linalg.inv(matrix)
        condition = np.abs(matrix).sum(axis=1).max(axis=1) * np.abs(inverse).sum(axis=1).max(axis=1)
        singular |= ~(condition <= _SINGULAR)
        scaled = _times(inverse, sides)
        terms = _times(np.abs(matrix), np.abs(scaled)) + np.abs(sides)
        error = _EPS * _times(np.abs(inverse), terms)
        y, error = scaled / column, error / column
        return y, ~singular & self._possible(some, y, error), singular

    def _possible(self, some: Floats, y: Floats, error: Floats) -> NDArray[np.bool_]:
        """In which states no leg is certainly outside its piece, (some,), at y (some, unknowns) with these errors."""
        v, i = y[:, : self.n] @ self.incidence.T + self.offset, y[:, self.n :]
        of_v, of_i = error[:, : self.n] @ np.abs(self.incidence.T) + _EPS * np.abs(self.offset), error[:, self.n :]
        x = np.abs(y[:, : self.network.problem.n_free]).max(axis=1, initial=0.0, keepdims=True)
        volts = np.maximum(x, self.fixed)
        amperes = np.maximum(np.abs(i).max(axis=1, initial=0.0, keepdims=True), _EPS * self.network.largest * volts)
        beyond = np.maximum(some[..., _V_LO] - v, v - some[..., _V_HI]) > _BEYOND * volts + _ERRORS * of_v
        reversed_ = some[..., _I_LO] - i > _BEYOND * amperes + _ERRORS * of_i
        return np.asarray(~(beyond | reversed_).any(axis=1))

    def program(self, state: Floats) -> tuple[Floats | None, bool]:
        """A solution of one state's singular equations in which all legs may be within their pieces, or None; and
        whether this is certain. `state` is (legs, 7). The linear program minimises t >= 0, the most by which a leg is
        outside its piece, relative to the largest voltage or current.
        """
        from scipy.optimize import linprog

        matrix, sides = (x[0] for x in self.of(state[None]))
        left, values, right = np.linalg.svd(matrix)
        unclear = ((values > _RANK * values[0]) & (values < _UNCLEAR * values[0])).any()
        rank = int(np.count_nonzero(values > _RANK * values[0]))
        at = right[:rank].T @ ((left[:, :rank].T @ sides) / values[:rank])
        terms = np.abs(matrix) @ np.abs(at) + np.abs(sides)
        if (np.abs(matrix @ at - sides) > _CONTRADICTS * terms.max()).any():
            return None, not unclear
        free, legs = right[rank:].T, len(state)
        v, i = self.incidence @ at[: self.n] + self.offset, at[self.n :]
        across, through = self.incidence @ free[: self.n], free[self.n :]
        volts = max(self.fixed, float(np.abs(v).max()), _EPS)
        amperes = max(float(np.abs(i).max()), volts * self.network.largest)
        limits = [
            (-across, v - state[:, _V_LO], volts),
            (across, state[:, _V_HI] - v, volts),
            (-through, i - state[:, _I_LO], amperes),
        ]
        rows = np.vstack([np.hstack([part, np.full((legs, 1), -size)]) / size for part, _, size in limits])
        most = np.concatenate([limit / size for _, limit, size in limits])
        finite = np.isfinite(most)
        found = linprog(
            np.append(np.zeros(free.shape[1]), 1.0), A_ub=rows[finite], b_ub=most[finite],
            bounds=[*[(None, None)] * free.shape[1], (0.0, None)],
        )  # fmt: skip
        if found.status == 0 and found.x[-1] > 10.0 * _BEYOND:
            return None, not unclear
        return (at + free @ found.x[:-1], True) if found.status == 0 else (None, False)

    def tangents(self, state: Floats, y: Floats) -> tuple[Floats, Tangents]:
        """The unknowns of the network, and the tangents of the legs there."""
        u, i = y[: self.n], y[self.n :]
        v = self.incidence @ u + self.offset
        v[self.network.ideal] = 0.0
        return u, Tangents(v, i.copy(), state[:, _SLOPE].copy())


def _times(matrices: Floats, x: Floats) -> Floats:
    """The products of matrices (some, m, n) with vectors (some, n)."""
    return np.asarray((matrices @ x[..., None])[..., 0])
