"""Linear resistive networks: conductances between nodes and to ground, currents into nodes, voltages wanted."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim.linear.elimination import Elimination
from circuitsim.linear.fill import costs_more, widest
from circuitsim.linear.gradients import Gradients
from circuitsim.linear.multigrid import Multigrid

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MANY_NODES = 150_000  # above, a mesh is faster by multigrid; below, elimination is, and exact
_IN_A_CHAIN = 2  # edges at a node: up to here its elimination fills nothing in
_WIDE = 4.0  # times n^(2/3), in a mesh of three dimensions about the most nodes that are equally far from one
_UPDATES, _UPDATES_AN_EDGE = 200_000_000, 3_000  # of an elimination: beyond their sum gradients take less time


class Solved(Protocol):
    """A network with its conductances."""

    @property
    def floating(self) -> Ints:
        """A node of each part that nothing joins to ground."""

    @property
    def loose(self) -> NDArray[np.bool_]:
        """Unknowns, (n,), that are not determined for other reasons."""

    def solve(self, injected: Floats) -> Floats:
        """Voltages, (rows, n), V, for currents (rows, n), A, injected into the nodes."""


class LinearSolver(Protocol):
    """A pattern of edges."""

    def factor(self, g: Floats, to_ground: Floats) -> Solved:
        """With conductances g (edges,) and to ground (n,), all >= 0, S."""


def choose_solver(n: int, i: Ints, j: Ints) -> LinearSolver:
    """Elimination where it costs little, multigrid for large meshes, else gradients; edges i[k] - j[k] join n nodes."""
    degree = np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    branching = int((degree > _IN_A_CHAIN).sum())
    most = _UPDATES + _UPDATES_AN_EDGE * i.size
    if branching <= _MANY_NODES and branching**3 <= 6 * most:  # even where all nodes are joined
        return Elimination(n, i, j)
    if widest(n, i, j) > _WIDE * n ** (2 / 3):  # no mesh: to find the best order takes long where it is of no use
        return Gradients(n, i, j) if costs_more(n, i, j, most) else Elimination(n, i, j)
    if branching > _MANY_NODES:
        return Multigrid(n, i, j)
    elimination = Elimination(n, i, j)
    return elimination if elimination.updates <= most else Gradients(n, i, j)
