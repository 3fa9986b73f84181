"""Large meshes: conjugate gradients, preconditioned by the strong edges alone where these are a forest (forest.py),
else by algebraic multigrid (Ruge and Stueben 1987; pyamg)."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circuitsim.linear.gradients import Gradients, Iterated

Floats = NDArray[np.float64]

_MOST_STEPS = 60  # of conjugate gradients; more say that the preconditioner does not suit the network
_BY_WIDTH = 0.25  # times sqrt(n): the same with the forest, whose steps are cheaper; longer wires need more of them


class Multigrid(Gradients):
    """Edges i - j between n nodes."""

    def factor(self, g: Floats, to_ground: Floats, before: object = None, rows: int = 1) -> Hierarchy:
        """Where the forest did not suit the network with the conductances of `before` it is not tried again."""
        network = self.hierarchy(g, to_ground)
        if isinstance(before, Hierarchy) and before.given_up:
            network.given_up = True
        return network

    def hierarchy(self, g: Floats, to_ground: Floats) -> Hierarchy:
        """The network with these conductances, without regard to earlier ones."""
        return Hierarchy(self, g, to_ground)


class Hierarchy(Iterated):
    """A network and its preconditioners. Where they do not converge: elimination or, if too costly, as Iterated."""

    @cached_property
    def levels(self):  # type: ignore[no-untyped-def]  # pyamg has no types
        from pyamg import ruge_stuben_solver

        return ruge_stuben_solver(
            self.matrix,
            strength=("classical", {"theta": 0.1}),
            presmoother=("gauss_seidel", {"sweep": "forward"}),
            postsmoother=("gauss_seidel", {"sweep": "backward"}),
            max_coarse=500,
        ).aspreconditioner(cycle="V")

    def iterated(self, current: Floats) -> tuple[Floats, bool]:
        """See Iterated; with the forest, then (where that does not converge) multigrid, then as for other graphs."""
        if not self.given_up and self.forest is not None:
            most = max(_MOST_STEPS, int(_BY_WIDTH * current.size**0.5))
            found, solved = self.gradients(current, self.forest.solve, most)
            if solved:
                return found, True
            self.given_up = True
        found, solved = self.gradients(current, self.levels.matvec, _MOST_STEPS)
        return (found, solved) if solved or self.pattern.elimination else super().iterated(current)
