"""Networks with controlled sources: a sparse LU factorisation of their equations (SuperLU), as a whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]

SINGULAR = 1e15  # condition number of an equilibrated matrix: its solutions are rounding
NO_PIVOT = 1e-14  # of the largest singular value of an equilibrated matrix: 0
OPEN = 1e-12  # of a direction that no equation fixes: a part of an unknown in it, and not rounding
MOST_SINGULAR = 2000  # unknowns of a singular network that is looked into
_SMALLEST = float(np.finfo(np.float64).tiny)  # of all below some have no reciprocal


class Lu:
    """A sparse LU factorisation of an equilibrated matrix (SuperLU).

    A singular one of more than `most_singular` unknowns raises LinAlgError.
    """

    floating = np.zeros(0, np.int64)
    solver: Callable[[Floats], Floats]

    def __init__(self, matrix: sparse.csc_array, most_singular: int = MOST_SINGULAR) -> None:
        if not matrix.shape[0]:
            self.row = self.col = np.zeros(0)
            self.loose, self.solver = np.zeros(0, bool), lambda sides: sides
            return
        size = abs(matrix)
        self.row = _reciprocal(np.asarray(size.max(axis=1).todense()).ravel())
        scaled = sparse.diags_array(self.row) @ matrix
        self.col = _reciprocal(np.asarray(abs(scaled).max(axis=0).todense()).ravel())
        scaled = sparse.csc_array(scaled @ sparse.diags_array(self.col))
        self.loose = np.zeros(self.col.size, bool)
        scaled.eliminate_zeros()
        singular = sparse.csgraph.structural_rank(scaled) < scaled.shape[0]  # SuperLU may overwrite memory
        if not singular:
            try:
                lu = sparse.linalg.splu(scaled)
                self.solver, singular = lu.solve, self._condition(scaled, lu) > SINGULAR
            except RuntimeError:  # exactly
                singular = True
        if singular:
            self.solver = self._least_norm(scaled, most_singular)

    def _condition(self, matrix: sparse.csc_array, lu: sparse.linalg.SuperLU) -> float:
        """The condition number, estimated (W. W. Hager 1984), in the 1-norm."""
        inverse = sparse.linalg.LinearOperator(
            matrix.shape, matvec=lu.solve, rmatvec=lambda y: lu.solve(y, trans="T"), dtype=np.float64
        )
        with np.errstate(all="ignore"):
            return float(sparse.linalg.norm(matrix, 1) * sparse.linalg.onenormest(inverse))

    def _least_norm(self, matrix: sparse.csc_array, most: int) -> Callable[[Floats], Floats]:
        """What is determined, exactly; of the rest, marked in `loose`, the least-norm choice."""
        if matrix.shape[0] > most or not np.isfinite(matrix.data).all():  # LAPACK would never end
            raise np.linalg.LinAlgError
        u, s, vt = np.linalg.svd(matrix.toarray())
        kept = s > NO_PIVOT * s.max(initial=0.0)
        self.loose = (np.abs(vt[~kept]) > OPEN).any(axis=0)
        inverse = vt[kept].T @ ((1.0 / s[kept])[:, None] * u[:, kept].T)
        return lambda sides: np.asarray(inverse @ sides)

    def solve(self, injected: Floats) -> Floats:
        """The unknowns for these right-hand sides, (rows, size)."""
        out: Floats = (self.col[:, None] * self.solver(self.row[:, None] * injected.T)).T
        return out


def _reciprocal(scale: Floats) -> Floats:
    """1 / scale, 1 where that is 0; of what is too small for it, a number all the same."""
    return np.where(scale > 0, 1.0 / np.where(scale > 0, np.maximum(scale, _SMALLEST), 1.0), 1.0)
