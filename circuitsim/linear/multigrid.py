"""Large meshes: conjugate gradients, preconditioned by the strong edges alone where these are a forest (forest.py),
else by algebraic multigrid (Ruge and Stueben 1987; pyamg)."""

from __future__ import annotations

import warnings
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.linear.elimination import Elimination, Factors
from circuitsim.linear.forest import Forest, strong_forest

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

REDUCTION = 1e-9  # of the residual in one solve; what is left is corrected in another (newton)
_MOST_STEPS = 60  # of conjugate gradients; more say that the preconditioner does not suit the network


class Multigrid:
    """Edges i - j between n nodes."""

    def __init__(self, n: int, i: Ints, j: Ints) -> None:
        self.n, self.i, self.j = n, i, j

    @cached_property
    def elimination(self) -> Elimination:
        """The exact way, for networks that multigrid cannot do."""
        return Elimination(self.n, self.i, self.j)

    def factor(self, g: Floats, to_ground: Floats) -> Hierarchy:
        return Hierarchy(self, g, to_ground)


class Hierarchy:
    """A network and what preconditions it. Where conjugate gradients do not converge it is eliminated."""

    def __init__(self, pattern: Multigrid, g: Floats, to_ground: Floats) -> None:
        self.pattern, self.g, self.to_ground = pattern, g, to_ground
        i, j, n = pattern.i, pattern.j, pattern.n
        live = g > 0
        self.live = i, j, g = i[live].astype(np.int32), j[live].astype(np.int32), g[live]
        diag = np.bincount(i, g, n) + np.bincount(j, g, n) + to_ground
        every = np.arange(n, dtype=np.int32)
        entries = np.concatenate([-g, -g, np.where(diag > 0, diag, 1.0)])
        at = np.concatenate([i, j, every]), np.concatenate([j, i, every])
        self.matrix = sparse.csr_matrix((entries, at), shape=(n, n))
        _, part = sparse.csgraph.connected_components(self.matrix, directed=False)
        grounded = np.zeros(int(part.max(initial=-1)) + 1, bool)
        grounded[part[to_ground > 0]] = True
        self.loose = np.zeros(n, bool)
        self.floating = np.unique(part, return_index=True)[1][~grounded]

    @cached_property
    def forest(self) -> Forest | None:
        """The strong edges, where they close no loop."""
        return strong_forest(*self.live, self.to_ground)

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

    @cached_property
    def factors(self) -> Factors:
        """The network, eliminated."""
        return self.pattern.elimination.factor(self.g, self.to_ground)

    def solve(self, injected: Floats) -> Floats:
        """Voltages, (rows, n), for injected currents, (rows, n), A."""
        if self.floating.size or "factors" in self.__dict__:
            return self.factors.solve(injected)
        out = np.empty_like(injected)
        for row, current in enumerate(injected):
            found = self._iterated(current)
            if found is None:
                return self.factors.solve(injected)
            out[row] = found
        return out

    def _iterated(self, current: Floats) -> Floats | None:
        """One row by conjugate gradients; None where neither preconditioner suits the network."""
        if "levels" not in self.__dict__ and self.forest is not None:
            found, failed = self._gradients(current, sparse.linalg.LinearOperator(self.matrix.shape, self.forest.solve))
            if not failed:
                return found
        found, failed = self._gradients(current, self.levels)
        return None if failed else found

    def _gradients(self, current: Floats, preconditioner: sparse.linalg.LinearOperator) -> tuple[Floats, bool]:
        """Voltages, and whether they are wrong."""
        with warnings.catch_warnings(record=True):  # what is returned says it all
            found, left = sparse.linalg.cg(self.matrix, current, rtol=REDUCTION, maxiter=_MOST_STEPS, M=preconditioner)
        return found, bool(left or not np.isfinite(found).all())
