"""The GPU backend: dense couplings by matrix products, everything else by the kernels of kernels.cu.

Arrays on the device are (units, rows): a colour block is a contiguous part, and neighbouring threads work on
neighbouring rows. Within the loop of a method only what it needs crosses to the host: whether anything moved, and a few
figures of the certificate (gpu_check.py). The computing is done by a `Device` (device.py).

Where there is so little to multiply, and not much at any unit, that launches would take most of the time, a sweep is
one kernel for each colour, with dense couplings among the sparse ones. Sweeps that consist of kernels only are recorded
once and then launched in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.backends import gpu_newton
from circuitsim.backends.arrange import Pull, dense_among_sparse, junctions_by_unit, pulls_by_color
from circuitsim.backends.device import Device
from circuitsim.backends.gpu_check import DriveOnDevice, GpuCheck, index_on
from circuitsim.backends.gpu_mesh import GpuMesh
from circuitsim.backends.gpu_mesh import refusal as mesh_refusal
from circuitsim.backends.gpu_newton import GpuNewton
from circuitsim.drive import Drive
from circuitsim.errors import BackendUnavailable
from circuitsim.linear.multigrid import Multigrid
from circuitsim.problem import Problem
from circuitsim.residual import Check

Floats = NDArray[np.float64]
Array = Any  # of the device's array module

_USABLE = 0.8  # of the free memory
_ARRAYS = 28  # float64 numbers for each unit in one row, at the most: state, drive, figures of the check, temporaries
_MOST_VOLTAGES = 50_000_000  # in a tile: the host keeps several arrays of them
_FEW_ROWS = 64  # for fewer rows the host computes what dense blocks inject: sending their conductances takes longer
# Up to these limits, a sweep by kernels alone takes less time than one with cuBLAS, whose launches take some 100 us a
# sweep on an H200: dense conductances times rows; conductances; and conductances at a unit, of which a thread sums
# 4,096 in that time. To arrange dense conductances as sparse ones takes the host some 60 ns each: 3 ms for 50,000,
# which 20 or 30 sweeps gain.
_FEW_PRODUCTS, _FEW_CONDUCTANCES, _SHORT = 20_000_000, 50_000, 4096
_RECORD_AFTER = 4  # sweeps: recording one costs a few


class GpuBackend:
    """One GPU."""

    name = "gpu"
    workers = 1

    def __init__(self, device: Device) -> None:
        self.device = device

    def engine(self, problem: Problem, dtype: str) -> GpuEngine:
        with self.device.guard():
            return GpuEngine(problem, dtype, self.device)

    def tile(self, problem: Problem, dtype: str) -> int:
        return self._rows(problem, dtype, 0, 0)

    def row_steps(self, problem: Problem) -> GpuNewton | None:
        if gpu_newton.refusal(problem):
            return None
        fixed, a_row = gpu_newton.memory(problem)
        return GpuNewton(problem, self.device, self._rows(problem, "float64", fixed, a_row))

    def solver(self, problem: Problem) -> GpuMesh | None:
        pattern = problem.topology.solver
        return GpuMesh(pattern, self.device) if isinstance(pattern, Multigrid) and not mesh_refusal(problem) else None

    def _rows(self, problem: Problem, dtype: str, fixed: int, a_row: int) -> int:
        """How many rows fit into memory; `fixed` and `a_row` are bytes beside those of an engine, in all and a row."""
        t, v = problem.topology, problem.values
        dense = 8 + (4 if dtype == "float32" else 0)
        inner = problem.inner_dense
        fixed += dense * inner + (32 * inner if few_products(problem, 1) else 0)
        outer = [g for spec, g in zip(t.dense, v.dense, strict=True) if not spec.inner]  # for the drive
        fixed += 8 * sum(g.size for g in outer)
        a_row += 8 * max((sum(g.shape) for g in outer), default=0)
        fixed += 24 * v.couplings.nnz + 240 * t.junctions.size
        a_row += 8 * (_ARRAYS * problem.n_free + 2 * t.junctions.size + 2 * t.fixed_nodes.size)
        free = int(_USABLE * self.device.free_bytes())
        if fixed + a_row > free:
            raise BackendUnavailable(
                f"backend gpu: {self.device.name} has {_bytes(free)} free, this circuit needs "
                f"{_bytes(fixed + a_row)} for one row of the batch; use --backend cpu"
            )
        return max(1, min((free - fixed) // max(a_row, 1), _MOST_VOLTAGES // max(problem.n_free, 1)))

    def drive(self, problem: Problem, rows: slice) -> Drive:
        return problem.drive(rows, whole=rows.stop - rows.start < _FEW_ROWS)


def few_products(problem: Problem, rows: int) -> bool:
    """Whether a sweep takes less time without matrix products: by kernels in which a thread sums all at a unit."""
    longest = max((max(g.shape) for _, g in problem.inner_blocks), default=0)
    inner = problem.inner_dense
    return inner <= _FEW_CONDUCTANCES and rows * inner <= _FEW_PRODUCTS and longest <= _SHORT


def _bytes(count: int) -> str:
    """A number of bytes with three digits."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"


@dataclass(frozen=True)
class Conductances:
    """A problem's linear conductances in one dtype."""

    diag: Array  # (n_free,)
    ptr: Array  # (n_free + 1,) sparse couplings: row u has the entries ptr[u]:ptr[u + 1]
    indices: Array  # int32
    data: Array
    dense: tuple[Array, ...]  # (rows, columns) of each dense block between free units; empty for others

    def astype(self, dtype: str) -> Conductances:
        """The same in another dtype."""
        dense = tuple(g.astype(dtype, copy=False) for g in self.dense)
        diag, data = (x.astype(dtype, copy=False) for x in (self.diag, self.data))
        return Conductances(diag, self.ptr, self.indices, data, dense)


class GpuEngine:
    """See base.Engine."""

    def __init__(self, problem: Problem, dtype: str, device: Device) -> None:
        t, v, xp = problem.topology, problem.values, device.xp
        self.problem, self.dtype, self.device = problem, dtype, device
        self.color_ptr = t.color_ptr.tolist()
        self.pulls = [
            [replace(p, target=index_on(xp, p.target), source=index_on(xp, p.source)) for p in pulls]
            for pulls in pulls_by_color(problem)
        ]
        inner = (g if spec.inner else g[:0] for spec, g in zip(t.dense, v.dense, strict=True))
        self.exact = _conductances(device, v.diag, v.couplings, tuple(map(device.to_device, inner)))
        self.to_fixed = device.to_device(v.to_fixed)
        self.junctions = gpu_newton.put(device, junctions_by_unit(problem))
        self.moved = xp.zeros(1, np.int32)

    @cached_property
    def driven(self) -> tuple[Array, ...]:
        """The dense blocks that fixed potentials drive through, (rows, columns); empty for others. Sent there once."""
        t, v = self.problem.topology, self.problem.values
        fixed = [spec.row.fixed is not None or spec.col.fixed is not None for spec in t.dense]
        return tuple(
            there if spec.inner or not has else self.device.to_device(g)
            for spec, has, g, there in zip(t.dense, fixed, v.dense, self.exact.dense, strict=True)
        )

    @cached_property
    def with_products(self) -> tuple[Conductances, list[list[Pull]]]:
        """The conductances of a sweep, and its matrix products for each colour."""
        return self.exact.astype(self.dtype), self.pulls

    @cached_property
    def without_products(self) -> tuple[Conductances, list[list[Pull]]]:
        """The same without products: the dense couplings are among the sparse ones."""
        if not any(self.pulls):
            return self.with_products
        couplings = dense_among_sparse(self.problem)
        g = _conductances(self.device, self.problem.values.diag, couplings, ())
        return g.astype(self.dtype), [[] for _ in self.pulls]

    def start(self, drive: Drive, x: Floats | None) -> None:
        xp = self.device.xp
        with self.device.guard():
            self.again: Callable[[], None] | None = None  # an earlier recording has the arrays of an earlier start
            self.unrecorded = 0  # sweeps taken without a recording
            self.drive, self.rows = drive, drive.rows.stop - drive.rows.start
            self.g, self.products = (
                self.without_products if few_products(self.problem, self.rows) else self.with_products
            )
            self.of_drive = DriveOnDevice(self.device, drive)
            if drive.partial:
                self.of_drive.add_dense(self.problem, self.driven)
            if x is None:
                self.x = xp.zeros((self.problem.n_free, self.rows), self.dtype)
            else:
                self.x = xp.ascontiguousarray(self.device.to_device(x).T.astype(self.dtype))
            self.lo, self.hi, self.injection = (
                a.astype(self.dtype, copy=False) for a in (self.of_drive.lo, self.of_drive.hi, self.of_drive.injection)
            )
            self.current = xp.empty_like(self.x) if any(self.products) else self.injection

    def sweep(self, count: int) -> bool:
        if not self.x.size:
            return False
        with self.device.guard():
            for k in range(count):
                if k == count - 1:
                    self.moved.fill(0)
                if self.again:
                    self.again()
                    continue
                self._sweep()
                self.unrecorded += 1
                if self.unrecorded == _RECORD_AFTER and self.current is self.injection:
                    self.again = self.device.recorded(self._sweep)
            return bool(self.device.to_host(self.moved)[0])

    def _sweep(self) -> None:
        for color, pulls in enumerate(self.products):
            start, stop = self.color_ptr[color], self.color_ptr[color + 1]
            if self.current is not self.injection:
                self.current[start:stop] = self.injection[start:stop]
            for pull in pulls:
                g = self.g.dense[pull.which]
                self.add_pull(self.current, pull.target, g.T if pull.transposed else g, self.x[pull.source])
            self._relax(start, stop)

    def add_pull(self, out: Array, target: slice | Array, matrix: Array, x: Array) -> None:
        """out[target] += matrix @ x."""
        if isinstance(target, slice):
            self.device.add_product(out[target], matrix, x)
            return
        part = self.device.xp.zeros((target.size, x.shape[1]), x.dtype)
        self.device.add_product(part, matrix, x)
        out[target] += part

    def _relax(self, start: int, stop: int) -> None:
        g, j = self.g, self.junctions
        offset = self.of_drive.junction_offset
        self.device.launch(
            f"relax_{self.dtype}", self.rows * (stop - start),
            self.rows, start, stop, self.x, self.current, self.current.shape[1], self.lo, self.hi, self.lo.shape[1],
            g.diag, g.ptr, g.indices, g.data, j.ptr, j.other, j.sign, j.number, j.law, j.params,
            offset, offset.shape[1], self.moved,
        )  # fmt: skip

    def voltages(self) -> Floats:
        with self.device.guard():
            turned = self.device.xp.ascontiguousarray(self.x.T)  # on the device: the host takes ten times as long
            return self.device.to_host(turned, "float64")

    def check(self) -> GpuCheck | Check:
        t = self.problem.topology
        plain = self.problem.circuit.reciprocal and not (t.links.size or t.islands.arcs or self.drive.base)
        if not plain or not self.x.size:
            return self.on_host(self.voltages())
        with self.device.guard():
            return GpuCheck(self)

    def on_host(self, x: Floats) -> Check:
        """The check with an array for every figure, at these unknowns."""
        self.drive = self.problem.completed(self.drive)
        return Check(self.problem, self.drive, x)


def _conductances(device: Device, diag: Floats, couplings: sparse.csr_array, dense: tuple[Array, ...]) -> Conductances:
    """A problem's conductances, sent to the device."""
    ptr, indices = couplings.indptr.astype(np.int64), couplings.indices.astype(np.int32)
    put = device.to_device
    return Conductances(put(diag), put(ptr), put(indices), put(couplings.data), dense)
