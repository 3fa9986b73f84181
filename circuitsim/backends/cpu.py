"""The CPU backend: BLAS for dense couplings, Numba kernels (kernels.py) for everything else."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends import kernels
from circuitsim.problem import Drive, Problem

Floats = NDArray[np.float64]


class CpuBackend:
    """Numba and BLAS."""

    name = "cpu"

    def __init__(self) -> None:
        self.workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def engine(self, problem: Problem, dtype: str) -> CpuEngine:
        return CpuEngine(problem, dtype)


@dataclass(frozen=True)
class _Pull:
    """current[:, target] += x[:, source] @ matrix, with target and source of different colours."""

    target: slice | NDArray[np.int64]
    source: slice | NDArray[np.int64]
    matrix: Floats  # (sources, targets)


class CpuEngine:
    """See base.Engine."""

    def __init__(self, problem: Problem, dtype: str) -> None:
        t, v = problem.topology, problem.values
        self.dtype = np.dtype(dtype)
        self.color_ptr = t.color_ptr
        self.diag = v.diag.astype(dtype)
        self.csr = (
            v.couplings.indptr.astype(np.int64), v.couplings.indices.astype(np.int64), v.couplings.data.astype(dtype),
        )  # fmt: skip
        self.pulls: list[list[_Pull]] = [[] for _ in range(t.n_colors)]
        unit = np.arange(problem.n_free)
        for spec, g in zip(t.dense, v.dense, strict=True):
            row, col = spec.row.units, spec.col.units
            if row is None or col is None:
                continue
            matrix = g.astype(dtype, copy=False)
            for target, source, m in ((col, row, matrix), (row, col, matrix.T)):
                color = int(np.searchsorted(t.color_ptr, unit[target][0], side="right")) - 1
                self.pulls[color].append(_Pull(target, source, m))
        self.junctions = _junction_entries(problem)
        self.zeros = np.zeros(self.junctions[1].size)
        self.plain = (self.diag > 0) & (np.diff(self.csr[0]) == 0) & (np.diff(self.junctions[0]) == 0)

    def start(self, drive: Drive, x: Floats) -> None:
        self.x = np.ascontiguousarray(x, self.dtype)
        if self.x is x:
            self.x = x.copy()
        self.injection = np.ascontiguousarray(np.broadcast_to(drive.injection, x.shape), self.dtype)
        self.lo, self.hi = drive.lo.astype(self.dtype), drive.hi.astype(self.dtype)
        self.offset = drive.junction_offset
        self.current = np.empty_like(self.injection) if any(self.pulls) else self.injection

    def sweep(self, count: int) -> bool:
        moved = False
        for _ in range(count):
            if not any(self.pulls):  # units of one colour do not see each other: all colours in one pass
                moved = self._relax(0, self.x.shape[1])
                continue
            moved = False
            for c, pulls in enumerate(self.pulls):
                start, stop = int(self.color_ptr[c]), int(self.color_ptr[c + 1])
                self.current[:, start:stop] = self.injection[:, start:stop]
                for pull in pulls:
                    self.current[:, pull.target] += self.x[:, pull.source] @ pull.matrix
                moved = self._relax(start, stop) or moved
        return moved

    def _relax(self, start: int, stop: int) -> bool:
        if self.plain[start:stop].all():
            return bool(kernels.relax_plain(self.x, self.current, start, stop, self.diag, self.lo, self.hi))
        arguments: tuple = (
            self.x, self.current, start, stop, *self.csr, self.diag, self.lo, self.hi,
            *self.junctions, self.offset, self.zeros,
        )  # fmt: skip
        return bool(kernels.relax(*arguments))

    def voltages(self) -> Floats:
        return self.x.astype(np.float64)


def _junction_entries(problem: Problem) -> tuple[NDArray, ...]:
    """Junctions by unit: ptr, other unit, sign (+1: anode), number, law, parameters."""
    t = problem.topology
    units = np.concatenate([t.junction_a, t.junction_k])
    others = np.concatenate([t.junction_k, t.junction_a])
    number = np.tile(np.arange(t.junctions.size), 2)
    sign = np.repeat([1.0, -1.0], t.junctions.size)
    order = np.argsort(units, kind="stable")
    order = order[units[order] >= 0]
    ptr = np.searchsorted(units[order], np.arange(problem.n_free + 1))
    j = problem.circuit.junctions
    rows = t.junctions[number[order]]
    return ptr, others[order], sign[order], number[order], j.law[rows], np.ascontiguousarray(j.params[rows])
