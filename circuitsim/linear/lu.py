"""Networks with controlled sources: LU factors of all their equations, by LAPACK if few, otherwise by SuperLU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]

SINGULAR = 1e15  # condition number of an equilibrated matrix: its solutions are rounding
NO_PIVOT = 1e-14  # times the largest singular value of an equilibrated matrix: smaller ones count as 0
OPEN = 1e-12  # an unknown whose component of a null vector is larger is open; smaller ones are rounding
MOST_SINGULAR = 2000  # unknowns up to which a singular network is solved, by its singular value decomposition
_SMALLEST = float(np.finfo(np.float64).tiny)  # some smaller numbers have no finite reciprocal


class Lu:
    """Solves equations with an equilibrated matrix: an array by LAPACK, factored anew for each call (for so few
    unknowns that costs less than keeping factors), a sparse matrix by SuperLU, which keeps its factors.

    A singular one of more than `most_singular` unknowns raises LinAlgError. With infinities in the matrix all solutions
    are nan.
    """

    floating = np.zeros(0, np.int64)
    solver: Callable[[Floats], Floats]

    def __init__(self, matrix: Floats | sparse.csc_array, most_singular: int = MOST_SINGULAR) -> None:
        self.loose = np.zeros(matrix.shape[0], bool)
        if not np.isfinite(matrix if isinstance(matrix, np.ndarray) else matrix.data).all():
            self.row = self.col = np.ones(matrix.shape[0])
            self.solver = lambda sides: np.full_like(sides, np.nan)
            return
        self.row = _reciprocal(_largest(matrix, axis=1))
        scaled = _times(self.row, matrix)
        self.col = _reciprocal(_largest(scaled, axis=0))
        scaled = _times(self.col, scaled.T).T
        solver = _dense(scaled) if isinstance(scaled, np.ndarray) else _sparse(scaled)
        self.solver = solver or self._least_norm(scaled, most_singular)

    def _least_norm(self, matrix: Floats | sparse.csc_array, most: int) -> Callable[[Floats], Floats]:
        """Solve by the pseudoinverse: unknowns that the equations leave open, marked in `loose`, get the least norm."""
        if matrix.shape[0] > most:
            raise np.linalg.LinAlgError
        u, s, vt = np.linalg.svd(matrix if isinstance(matrix, np.ndarray) else matrix.toarray())
        kept = s > NO_PIVOT * s.max(initial=0.0)
        self.loose = (np.abs(vt[~kept]) > OPEN).any(axis=0)
        inverse = vt[kept].T @ ((1.0 / s[kept])[:, None] * u[:, kept].T)
        return lambda sides: np.asarray(inverse @ sides)

    def solve(self, injected: Floats) -> Floats:
        """The unknowns for these right-hand sides, (rows, size)."""
        out: Floats = (self.col[:, None] * self.solver(self.row[:, None] * injected.T)).T
        return out


def _largest(matrix: Floats | sparse.csc_array, axis: int) -> Floats:
    """The largest absolute value of each row (axis 1) or column (0)."""
    size = abs(matrix)
    return size.max(axis=axis, initial=0.0) if isinstance(size, np.ndarray) else size.max(axis=axis).toarray().ravel()


def _times(scale: Floats, matrix: Floats | sparse.sparray) -> Floats | sparse.sparray:
    """Each row times its scale."""
    return scale[:, None] * matrix if isinstance(matrix, np.ndarray) else sparse.diags_array(scale) @ matrix


def _dense(matrix: Floats) -> Callable[[Floats], Floats] | None:
    """A function that solves equations with this matrix; None if it is singular."""
    with np.errstate(all="ignore"):
        try:
            condition = _norm(matrix) * _norm(np.asarray(np.linalg.inv(matrix), np.float64))
        except np.linalg.LinAlgError:  # exactly
            return None
    return None if condition > SINGULAR else lambda sides: np.asarray(np.linalg.solve(matrix, sides), np.float64)


def _norm(matrix: Floats) -> float:
    """The 1-norm."""
    return float(np.abs(matrix).sum(axis=0).max(initial=0.0))


def _sparse(matrix: sparse.csc_array) -> Callable[[Floats], Floats] | None:
    """As _dense; the condition number is estimated (W. W. Hager 1984), in the 1-norm."""
    matrix = sparse.csc_array(matrix)
    matrix.eliminate_zeros()
    if sparse.csgraph.structural_rank(matrix) < matrix.shape[0]:  # SuperLU may overwrite memory
        return None
    try:
        lu = sparse.linalg.splu(matrix)
    except RuntimeError:  # exactly singular
        return None
    inverse = sparse.linalg.LinearOperator(
        matrix.shape, matvec=lu.solve, rmatvec=lambda y: lu.solve(y, trans="T"), dtype=np.float64
    )
    with np.errstate(all="ignore"):
        condition = float(sparse.linalg.norm(matrix, 1) * sparse.linalg.onenormest(inverse))
    return None if condition > SINGULAR else lu.solve


def _reciprocal(scale: Floats) -> Floats:
    """1 / scale, or 1 where scale is 0; where 1 / scale would overflow, a finite number."""
    return np.where(scale > 0, 1.0 / np.where(scale > 0, np.maximum(scale, _SMALLEST), 1.0), 1.0)
