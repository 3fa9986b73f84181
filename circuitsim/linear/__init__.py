"""Linear resistive networks: given conductances between nodes and to ground and currents into nodes, find voltages."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim.linear.elimination import Elimination
from circuitsim.linear.fill import costs_more, most_updates, widest
from circuitsim.linear.gradients import Gradients
from circuitsim.linear.multigrid import Multigrid
from circuitsim.linear.wires import Wires, by_updates

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FEW_NODES = 5_000  # of a mesh: elimination takes some milliseconds
_MANY_NODES = 150_000  # above, a mesh is faster by multigrid; below, elimination is, and exact
_IN_A_CHAIN = 2  # edges at a node, up to which its elimination causes no fill-in
_WIDE = 4.0  # times n^(2/3): about the most nodes of a three-dimensional mesh that are equally far from one node


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
    """Solves networks with one pattern of edges."""

    def factor(self, g: Floats, to_ground: Floats, before: object = None, rows: int = 1) -> Solved:
        """The network with conductances g (edges,), and to ground (n,), all >= 0, S.

        `before`: what this returned for earlier conductances; `rows`: how many rows of currents will be solved.
        """


def is_mesh(n: int, i: Ints, j: Ints) -> bool:
    """Whether a graph, n nodes, edges i[k] - j[k], is as narrow as one in space."""
    return widest(n, i, j) <= _WIDE * n ** (2 / 3)


def choose_solver(n: int, i: Ints, j: Ints, alone: bool = True) -> LinearSolver:
    """Elimination where it costs little, what suits wires or large meshes, else gradients; n nodes, edges i[k] - j[k].

    Not `alone`: it is many networks side by side, each to be solved to its own last digits.
    """
    degree = np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    branching = int((degree > _IN_A_CHAIN).sum())
    most = most_updates(i.size)
    if branching <= _MANY_NODES and branching**3 <= 6 * most:  # enough even if all branching nodes are joined
        return Elimination(n, i, j)
    if not is_mesh(n, i, j):  # costs first: to find an order takes long, and it may be of no use
        return Gradients(n, i, j) if costs_more(n, i, j, most) else Elimination(n, i, j)
    if branching > _MANY_NODES:
        return Multigrid(n, i, j)
    return Wires(n, i, j) if alone and n > FEW_NODES else by_updates(n, i, j)
