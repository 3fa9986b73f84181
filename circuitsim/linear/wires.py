"""Meshes that may consist of wires: solved by the forest of their strong edges while that converges (forest.py).

Whether it converges depends on the conductances, so it is tried with each new set of them, until it has failed once;
after that the mesh is solved without the forest.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circuitsim.linear.elimination import Elimination, Factors
from circuitsim.linear.fill import most_updates
from circuitsim.linear.gradients import Gradients, Iterated

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MOST_STEPS, _BY_WIDTH = 30, 0.125  # of conjugate gradients, or times sqrt(n); then elimination takes less time
_FEW_ROWS = 4  # of currents: for more, elimination, which is done once, takes less time


def by_updates(n: int, i: Ints, j: Ints) -> Elimination | Gradients:
    """Elimination, unless it takes many updates; edges i - j between n nodes."""
    elimination = Elimination(n, i, j)
    return elimination if elimination.updates <= most_updates(i.size) else Gradients(n, i, j)


class Wires:
    """Edges i - j between n nodes."""

    def __init__(self, n: int, i: Ints, j: Ints) -> None:
        self.edges = Gradients(n, i, j)

    @cached_property
    def without_forest(self) -> Elimination | Gradients:
        """The solver where there are no wires; finding its ordering takes as long as many solutions by the forest."""
        return by_updates(self.edges.n, self.edges.i, self.edges.j)

    def factor(self, g: Floats, to_ground: Floats, before: object = None, rows: int = 1) -> Factors | Iterated:
        """A method that failed with the conductances of `before` is not tried again."""
        if rows <= _FEW_ROWS and (before is None or (isinstance(before, Wired) and not before.given_up)):
            network = Wired(self, g, to_ground)
            if not network.floating.size and network.forest is not None:
                return network
        return self.without_forest.factor(g, to_ground)


class Wired(Iterated):
    """A network that may consist of wires."""

    def __init__(self, wires: Wires, g: Floats, to_ground: Floats) -> None:
        super().__init__(wires.edges, g, to_ground)
        self.wires = wires

    @cached_property
    def solved_without_forest(self) -> Factors | Iterated:
        """The network, solved without the forest."""
        return self.wires.without_forest.factor(self.g, self.to_ground)

    def solve(self, injected: Floats) -> Floats:
        """Voltages, (rows, n), V, for injected currents, (rows, n), A."""
        if self.given_up or self.forest is None:
            return self.solved_without_forest.solve(injected)
        out = np.empty_like(injected)
        most = max(_MOST_STEPS, int(_BY_WIDTH * injected.shape[1] ** 0.5))
        for row, current in enumerate(injected):
            out[row], found = self.corrected(current, self.forest.solve, most)
            if not found:
                self.given_up = True
                return self.solved_without_forest.solve(injected)
        return out
