"""The CPU backend: BLAS for dense couplings, Numba kernels (kernels.py) for everything else."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends import kernels
from circuitsim.backends.arrange import junctions_by_unit, pulls_by_color
from circuitsim.drive import Drive
from circuitsim.problem import Problem
from circuitsim.residual import Check

Floats = NDArray[np.float64]

TILE = 256  # rows of a batch that are solved together: their voltages stay in the caches


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CpuBackend:
    """Numba and BLAS."""

    name = "cpu"

    def __init__(self) -> None:
        self.workers = cores()

    def engine(self, problem: Problem, dtype: str) -> CpuEngine:
        return CpuEngine(problem, dtype)

    def tile(self, problem: Problem, dtype: str) -> int:
        return TILE

    def row_steps(self, problem: Problem) -> None:
        return None

    def solver(self, problem: Problem) -> None:
        return None

    def drive(self, problem: Problem, rows: slice) -> Drive:
        return problem.drive(rows)


class CpuEngine:
    """See base.Engine."""

    def __init__(self, problem: Problem, dtype: str) -> None:
        t, v = problem.topology, problem.values
        self.problem = problem
        self.dtype = np.dtype(dtype)
        self.color_ptr = t.color_ptr
        self.diag = v.diag.astype(dtype)
        self.csr = (
            v.couplings.indptr.astype(np.int64), v.couplings.indices.astype(np.int64), v.couplings.data.astype(dtype),
        )  # fmt: skip
        dense = [g.astype(dtype, copy=False) if spec.inner else g for spec, g in zip(t.dense, v.dense, strict=True)]
        self.pulls = [
            [(p.target, p.source, dense[p.which] if p.transposed else dense[p.which].T) for p in pulls]
            for pulls in pulls_by_color(problem)
        ]
        j = junctions_by_unit(problem)
        self.junctions = (j.ptr, j.other, j.sign, j.number, j.law, j.params)
        self.zeros = np.zeros(self.junctions[1].size)
        self.linear_only = (self.diag > 0) & (np.diff(self.csr[0]) == 0) & (np.diff(self.junctions[0]) == 0)

    def start(self, drive: Drive, x: Floats | None) -> None:
        self.drive = drive
        shape = drive.rows.stop - drive.rows.start, self.problem.n_free
        self.x = np.zeros(shape, self.dtype) if x is None else np.array(x, self.dtype, order="C")
        self.injection = np.ascontiguousarray(np.broadcast_to(drive.injection, shape), self.dtype)
        self.lo, self.hi = drive.lo.astype(self.dtype), drive.hi.astype(self.dtype)
        self.offset = drive.junction_offset
        self.current = np.empty_like(self.injection) if any(self.pulls) else self.injection

    def sweep(self, count: int) -> bool:
        moved = False
        for _ in range(count):
            if not any(self.pulls):  # without dense couplings one pass takes all units, colour after colour
                moved = self._relax(0, self.x.shape[1])
                continue
            moved = False
            for c, pulls in enumerate(self.pulls):
                start, stop = int(self.color_ptr[c]), int(self.color_ptr[c + 1])
                self.current[:, start:stop] = self.injection[:, start:stop]
                with np.errstate(invalid="ignore"):  # single rows: OpenBLAS's lanes beyond them may raise this flag
                    for target, source, matrix in pulls:
                        self.current[:, target] += self.x[:, source] @ matrix
                moved = self._relax(start, stop) or moved
        return moved

    def _relax(self, start: int, stop: int) -> bool:
        if self.linear_only[start:stop].all():
            return bool(kernels.relax_plain(self.x, self.current, start, stop, self.diag, self.lo, self.hi))
        arguments: tuple = (
            self.x, self.current, start, stop, *self.csr, self.diag, self.lo, self.hi,
            *self.junctions, self.offset, self.zeros,
        )  # fmt: skip
        return bool(kernels.relax(*arguments))

    def voltages(self) -> Floats:
        return self.x.astype(np.float64)

    def check(self) -> Check:
        return Check(self.problem, self.drive, self.voltages())
