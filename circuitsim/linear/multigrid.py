"""Large meshes: conjugate gradients with an algebraic multigrid preconditioner (Ruge and Stueben 1987), by pyamg."""

from __future__ import annotations

import warnings
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from circuitsim.linear.elimination import Elimination, Factors

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_REDUCTION = 1e-9  # of the residual in one solve; what is left is corrected in another (newton)
_MOST_STEPS = 60  # of conjugate gradients; more say that multigrid does not suit the network


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
    """A network and its coarser and coarser images. Where conjugate gradients do not converge it is eliminated."""

    def __init__(self, pattern: Multigrid, g: Floats, to_ground: Floats) -> None:
        self.pattern, self.g, self.to_ground = pattern, g, to_ground
        i, j, n = pattern.i, pattern.j, pattern.n
        live = g > 0
        i, j, g = i[live].astype(np.int32), j[live].astype(np.int32), g[live]
        diag = np.bincount(i, g, n) + np.bincount(j, g, n) + to_ground
        every = np.arange(n, dtype=np.int32)
        entries = np.concatenate([-g, -g, np.where(diag > 0, diag, 1.0)])
        at = np.concatenate([i, j, every]), np.concatenate([j, i, every])
        self.matrix = sparse.csr_matrix((entries, at), shape=(n, n))
        _, part = csgraph.connected_components(self.matrix, directed=False)
        grounded = np.zeros(int(part.max(initial=-1)) + 1, bool)
        grounded[part[to_ground > 0]] = True
        self.loose = np.zeros(n, bool)
        self.floating = np.unique(part, return_index=True)[1][~grounded]

    @cached_property
    def levels(self):  # type: ignore[no-untyped-def]  # pyamg has no types
        from pyamg import ruge_stuben_solver

        return ruge_stuben_solver(
            self.matrix,
            strength=("classical", {"theta": 0.1}),
            presmoother=("gauss_seidel", {"sweep": "forward"}),
            postsmoother=("gauss_seidel", {"sweep": "backward"}),
            max_coarse=500,
        )

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
            if not current.any():
                out[row] = 0.0
                continue
            with warnings.catch_warnings(record=True):  # `failed` says it all
                out[row], failed = self.levels.solve(
                    current, tol=_REDUCTION, maxiter=_MOST_STEPS, accel="cg", return_info=True
                )
            if failed or not np.isfinite(out[row]).all():
                return self.factors.solve(injected)
        return out
