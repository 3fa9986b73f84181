"""Linear resistive networks: conductances between nodes and to ground, currents into nodes, voltages wanted."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim.linear.elimination import Elimination
from circuitsim.linear.multigrid import Multigrid

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MANY_NODES = 150_000  # above, a mesh is faster by multigrid; below, elimination is, and exact
_IN_A_CHAIN = 2  # edges at a node: up to here its elimination fills nothing in


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
    """Elimination, or multigrid for large meshes; edges i[k] - j[k] join n nodes."""
    degree = np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    if int((degree > _IN_A_CHAIN).sum()) <= _MANY_NODES:
        return Elimination(n, i, j)
    return Multigrid(n, i, j)
