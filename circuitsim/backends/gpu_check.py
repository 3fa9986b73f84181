"""The certificate's figures on the device, in float64: only the bounds of residual.Check from matrix products.

A few numbers cross to the host. Where the bounds do not decide a question, or summing all rows branch by branch is
cheap, the voltages cross too and residual.Check decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.device import Device
from circuitsim.drive import Drive
from circuitsim.problem import Problem
from circuitsim.residual import EPS, FULL_WORK, OWN_DIGITS, Check, Residuals

if TYPE_CHECKING:
    from circuitsim.backends.gpu import GpuEngine

Floats = NDArray[np.float64]
Array = Any


def index_on(xp: Any, units: slice | NDArray[np.int64]) -> Any:
    """Units, or columns, for an array on the device."""
    return units if isinstance(units, slice) else xp.asarray(units)


class DriveOnDevice:
    """The arrays of a drive, each (n, rows or 1), float64."""

    def __init__(self, device: Device, drive: Drive) -> None:
        self.device = device
        xp = self.xp = device.xp

        def put(values: Floats) -> Array:
            return xp.ascontiguousarray(device.to_device(values).T)

        self.injection, self.source_flow, self.source_abs = map(
            put, (drive.injection, drive.source_flow, drive.source_abs)
        )
        self.fixed_abs = put(drive.fixed_abs)
        self.fixed_rows = self.fixed_abs.shape[1] if drive.fixed_abs.shape[1] else 0  # 0: not known
        self.lo, self.hi, self.junction_offset = map(put, (drive.lo, drive.hi, drive.junction_offset))
        self.drive = drive

    def add_dense(self, problem: Problem, dense: Sequence[Array]) -> None:
        """What Problem.completed adds to a partial drive; `dense`: the blocks that fixed potentials drive through."""
        xp, drive = self.xp, self.drive
        fixed = self.device.to_device(drive.fixed)
        if fixed.size:
            low, high = self.device.to_host(xp.stack([fixed.min(), fixed.max()])).tolist()
            self.fixed_range = min(low, 0.0), max(high, 0.0)
        nothing = xp.zeros((problem.n_free, fixed.shape[0]))
        self.injection = self.injection + nothing
        if problem.untied:
            self.fixed_abs = self.fixed_abs + nothing
            self.fixed_rows = fixed.shape[0]
        for spec, g in zip(problem.topology.dense, dense, strict=True):
            if spec.row.fixed is None and spec.col.fixed is None:
                continue
            for own, other, into in ((spec.col, spec.row, g.T), (spec.row, spec.col, g)):
                if own.units is None:
                    continue
                units = index_on(xp, own.units)
                if other.fixed is not None:
                    potential = fixed[:, index_on(xp, other.fixed)].T
                    self.injection[units] += into @ potential
                    if problem.untied:
                        self.fixed_abs[units] += into @ xp.abs(potential)
                if own.fixed is not None:
                    self.injection[units] -= fixed[:, index_on(xp, own.fixed)].T * into.sum(axis=1)[:, None]
        if drive.source_abs.any():
            self.injection = self.injection + self.source_flow

    @cached_property
    def fixed_range(self) -> tuple[float, float]:
        """The lowest and the highest of the fixed potentials and 0, V."""
        fixed = self.drive.fixed
        return float(fixed.min(initial=0.0)), float(fixed.max(initial=0.0))


class GpuCheck:
    """See base.Look. Arrays are (n_free, rows) on the device."""

    def __init__(self, engine: GpuEngine) -> None:
        self.engine, self.device, self.xp = engine, engine.device, engine.device.xp
        self.of_drive = engine.of_drive
        self.on_host: Check | None = None  # made when it is first needed
        self.x = engine.x.astype(np.float64)
        xp, rows = self.xp, engine.rows
        both = xp.concatenate([self.x, xp.abs(self.x)], axis=1)
        dense = xp.zeros_like(both)
        for pulls in engine.pulls:
            for pull in pulls:
                g = engine.exact.dense[pull.which]
                engine.add_pull(dense, pull.target, g.T if pull.transposed else g, both[pull.source])
        self.flow, self.slope, self.rho, self.upper, self.most, certain = (xp.empty_like(self.x) for _ in range(6))
        g, j, d = engine.exact, engine.junctions, self.of_drive
        self.device.launch(
            "violations", self.x.size,
            rows, self.x.shape[0], self.x, dense, g.diag, engine.to_fixed, g.ptr, g.indices, g.data,
            j.ptr, j.other, j.sign, j.number, j.law, j.params, d.junction_offset, d.junction_offset.shape[1],
            d.injection, d.injection.shape[1], d.source_flow, d.source_abs, d.source_abs.shape[1],
            d.fixed_abs, d.fixed_rows, d.lo, d.hi, d.lo.shape[1], engine.problem.most_terms,
            self.flow, self.slope, self.rho, self.upper, self.most, certain,
        )  # fmt: skip
        summary = xp.stack([xp.abs(self.rho).max(), self.upper.max(), certain.max()])
        self.largest, self.bound, self.certain = self.device.to_host(summary).tolist()

    def finite(self) -> bool:
        return bool(np.isfinite(self.largest))  # max keeps NaN

    @property
    def worst(self) -> float:
        return self.bound if self.on_host is None else self.on_host.worst

    def full(self) -> Check:
        if self.on_host is None:
            with self.device.guard():
                x = self.device.to_host(self.xp.ascontiguousarray(self.x.T))
            self.on_host = self.engine.on_host(x)
        return self.on_host

    def meets(self, tolerance: float) -> bool:
        if self.certain > tolerance:
            return False
        if self.bound > tolerance and self.on_host is None and self.engine.problem.untied and any(self.engine.pulls):
            self._bound_by_dense(tolerance)
        return self.bound <= tolerance or self.full().meets(tolerance)

    def _bound_by_dense(self, tolerance: float) -> None:
        """See residual.Check."""
        xp, engine, rows = self.xp, self.engine, self.x.shape[1]
        total = xp.zeros_like(self.x)
        with self.device.guard():
            unit, limit = xp.arange(self.x.shape[0]), xp.full(1, tolerance, np.float64)
            for pulls in engine.pulls:
                for pull in pulls:
                    g, targets, sources = engine.exact.dense[pull.which], unit[pull.target], unit[pull.source]
                    steps = (1, targets.size) if pull.transposed else (sources.size, 1)
                    self.device.launch(
                        "dense_sums", rows * targets.size,
                        rows, targets.size, targets, sources.size, sources, g, *steps, self.x, self.upper, limit, total,
                    )  # fmt: skip
            least = total * (1.0 - EPS * engine.problem.most_terms)
            some = least > 0
            self.upper = xp.where(some, xp.minimum(self.upper, self.most / xp.where(some, least, 1.0)), self.upper)
            self.bound = float(self.device.to_host(self.upper.max()))

    def at_rounding(self, tolerance: float, eps: float) -> bool:
        if self.on_host is not None:
            return self.on_host.at_rounding(tolerance, eps)
        xp = self.xp
        with self.device.guard():
            scale = xp.maximum(xp.abs(self.x), max(map(abs, self.of_drive.fixed_range)))
            small = (xp.abs(self.rho) <= OWN_DIGITS * eps * self.slope * scale) | (self.upper <= tolerance)
            return bool(self.device.to_host(small.all()))

    def reach(self, paths: Floats) -> tuple[Floats, Floats]:
        if self.on_host is not None:
            return self.on_host.reach(paths)
        xp = self.xp
        with self.device.guard():
            largest = xp.abs(self.x).max(axis=0)
            rounding = EPS * self.engine.problem.most_terms * self.slope * largest
            rho = xp.where(self.upper > 0, xp.abs(self.rho), 0.0) + rounding
            bound = xp.where(rho > 0, rho * xp.asarray(paths)[:, None], 0.0).sum(axis=0)
            return self.device.to_host(bound), self.device.to_host(largest)

    def certificate(self) -> Residuals:
        problem = self.engine.problem
        if self.on_host is not None or self.x.size * problem.mean_degree <= FULL_WORK:
            return self.full().certificate()
        with self.device.guard():
            return figures(self.device, self.of_drive, self.x, self.flow, self.rho, self.upper)


def figures(device: Device, drive: DriveOnDevice, x: Array, flow: Array, rho: Array, upper: Array) -> Residuals:
    """Those of branch_sums.figures, of arrays (n_free, rows); kcl_relative is a bound, larger than the exact figure."""
    xp, lo, hi = device.xp, drive.lo, drive.hi
    low, high = drive.fixed_range
    span = xp.maximum(x.max(), high) - xp.minimum(x.min(), low)
    supplied = flow - rho
    gap = xp.where(supplied > 0, x - lo, xp.where(supplied < 0, hi - x, 0.0))
    watts = xp.abs(supplied * gap)
    found = xp.stack([
        xp.abs(rho).max(), upper.max(), xp.maximum(xp.maximum((lo - x).max(), (x - hi).max()), 0.0), watts.max(),
        xp.abs((x * rho).sum(axis=0)).max(), (watts + xp.abs(rho) * span).sum(axis=0).max(),
        upper.argmax().astype(np.float64),
    ])  # fmt: skip
    amps, relative, clamp, complementarity, balance, most_gap, place = device.to_host(found).tolist()
    unit, row = divmod(int(place), x.shape[1])
    return Residuals(amps, relative, clamp, complementarity, balance, most_gap, row, unit if relative > 0 else -1)
