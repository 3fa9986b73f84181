"""Newton's steps on the device, for many rows of a batch at once: each row has tangents of its own, one pattern all.

A row's linear network is eliminated node by node in one thread, as linear/elimination.py does it, without a
subtraction; neighbouring threads work on neighbouring rows, entry by entry the same. Arrays are (entries, rows),
(units, rows) and (legs, rows), float64. What is asked of the rows in the end - whether KCL is met, and how far one more
correction would move a voltage - is answered by bounds: a row that they do not settle has not arrived.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.arrange import Junctions, junctions_by_unit
from circuitsim.backends.gpu_check import DriveOnDevice, figures
from circuitsim.laws import branch_current
from circuitsim.linear.elimination import Elimination
from circuitsim.problem import Drive, Problem
from circuitsim.residual import NO_RESIDUALS, Residuals

if TYPE_CHECKING:
    from circuitsim.backends.gpu import Device

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Array = Any

_LEG_ARRAYS = 10  # float64 numbers for each leg in one row, at the most
_MOST_UNITS = 2000  # unknowns of a small circuit
_MOST_UPDATES = 5_000_000  # of entries, in one elimination: read by every row


def refusal(problem: Problem) -> str:
    """Why a problem's rows cannot be solved like this; empty where they can."""
    t = problem.topology
    if not problem.circuit.reciprocal:
        return "the circuit has controlled sources"
    if t.legs.a.size > t.legs.n_junctions:
        return "the circuit has ideal diodes"
    if not t.legs.a.size:
        return "nothing in the circuit is nonlinear"
    if t.islands.arcs:
        return "only nonlinear elements join some of its parts"
    if problem.n_free > _MOST_UNITS:
        return f"it has {problem.n_free:,} unknowns, more than {_MOST_UNITS:,}"
    updates = t.solver.updates if isinstance(t.solver, Elimination) else _MOST_UPDATES + 1
    return f"its elimination has more than {_MOST_UPDATES:,} updates" if updates > _MOST_UPDATES else ""


def memory(problem: Problem) -> tuple[int, int]:
    """Bytes on the device besides those of an engine: for the pattern, and for each row."""
    e = problem.topology.solver
    assert isinstance(e, Elimination)
    return 4 * e.updates + 40 * e.row.size, 8 * (e.row.size + _LEG_ARRAYS * problem.topology.legs.a.size)


@dataclass(frozen=True)
class Pattern:
    """What the kernels `eliminate` and `substitute` go by. Entry e of column j, ptr[j] <= e < ptr[j + 1], joins two."""

    unit: Ints  # (columns,) the unit of each column
    ptr: Ints  # (columns + 1,)
    end: Ints  # (entries,) unit at the other end, -1: ground, always the last of its column
    target: NDArray[np.int32]  # (updates,) entry that each pair of entries of a column adds to
    linear: Floats  # (entries,) S
    leg_ptr: Ints  # (entries + 1,) entry e has the legs leg_ptr[e]:leg_ptr[e + 1] on top
    legs: Ints
    a: Ints  # (n_legs,) unit at the anode, -1: known
    k: Ints
    law: Ints
    params: Floats  # (n_legs, N_PARAMS)
    g_ptr: Ints  # (n_free + 1,) linear conductances at unit u: g_ptr[u]:g_ptr[u + 1]
    near: Ints  # unit at the other end
    g: Floats  # S
    to_fixed: Floats  # (n_free,) S


def pattern_of(problem: Problem) -> Pattern:
    """The pattern of a problem that is not refused."""
    t = problem.topology
    e = t.solver
    assert isinstance(e, Elimination)
    n, row = e.n, e.row.astype(np.int64)
    key = np.repeat(np.arange(n), np.diff(e.ptr)) * (n + 1) + row  # of each entry; ascending
    of_edge = np.searchsorted(key, e.column * (n + 1) + e.entry_row)[e.position]
    to_ground = np.empty(n, np.int64)
    to_ground[e.perm] = e.ptr[1:] - 1
    linear = np.bincount(of_edge, problem.edge_conductances(), key.size).astype(np.float64, copy=False)
    linear[to_ground] += problem.values.to_fixed
    # Legs that join two units are the last edges; others join their one unit to ground.
    where = to_ground[np.where(t.legs.a >= 0, t.legs.a, t.legs.k)]
    where[t.leg_edges] = of_edge[of_edge.size - t.leg_edges.size :]
    legs = np.argsort(where, kind="stable")
    leg_ptr = np.searchsorted(where[legs], np.arange(key.size + 1))
    target = [np.zeros(0, np.int32)]
    for first, stop in zip(e.ptr[:-1].tolist(), e.ptr[1:].tolist(), strict=True):
        one, other = np.triu_indices(stop - first, 1)
        target.append(np.searchsorted(key, row[first:stop][one] * (n + 1) + row[first:stop][other]).astype(np.int32))
    end = np.append(e.perm, -1)[row]
    j, (one, other) = problem.circuit.junctions, t.edges
    law, params = j.law[t.junctions].astype(np.int64), j.params[t.junctions]
    own, near, g = np.r_[one, other], np.r_[other, one], np.tile(problem.edge_conductances(), 2)
    at = np.argsort(own, kind="stable")
    at = at[g[at] > 0]
    g_ptr = np.searchsorted(own[at], np.arange(n + 1))
    return Pattern(
        e.perm, e.ptr, end, np.concatenate(target), linear, leg_ptr, legs, t.legs.a, t.legs.k, law, params,
        g_ptr, near[at], g[at], problem.values.to_fixed,
    )  # fmt: skip


class GpuNewton:
    """See base.RowSteps. The pattern is made when work begins."""

    def __init__(self, problem: Problem, device: Device, tile: int) -> None:
        self.problem, self.device, self.tile = problem, device, tile

    @cached_property
    def pattern(self) -> Pattern:
        """On the device."""
        return _put(self.device, pattern_of(self.problem))

    @cached_property
    def junctions(self) -> Junctions:
        """On the device."""
        return _put(self.device, junctions_by_unit(self.problem))

    def start(self, drive: Drive, w: Floats) -> None:
        xp, n, t = self.device.xp, self.problem.n_free, self.problem.topology
        j = self.problem.circuit.junctions
        current, slope = branch_current(j.law[t.junctions], j.params[t.junctions], w)
        rows = w.shape[0]
        with self.device.guard():
            self.drive = DriveOnDevice(self.device, drive)
            self.w, self.current, self.slope = (xp.ascontiguousarray(xp.asarray(a).T) for a in (w, current, slope))
            self.amps, self.miss = xp.empty_like(self.w), xp.empty_like(self.w)
            self.x, self.value = xp.empty((n, rows)), xp.empty((self.pattern.end.size, rows))
            self.pivot = xp.empty_like(self.x)

    def step(self, near: float) -> bool:
        d, j, p = self.drive, self.junctions, self.pattern
        n, rows = self.x.shape
        with self.device.guard():
            self.device.launch(
                "eliminate", rows,
                rows, n, p.ptr, p.target, p.linear, p.leg_ptr, p.legs, self.slope, self.value, self.pivot,
            )  # fmt: skip
            self.device.launch(
                "inject", n * rows,
                rows, n, j.ptr, j.sign, j.number, self.w, self.current, self.slope,
                d.junction_offset, d.junction_offset.shape[1], d.injection, d.injection.shape[1], self.x,
            )  # fmt: skip
            self._substitute(self.x)
            self.device.launch(
                "tangents", self.w.size,
                rows, self.w.shape[0], self.x, p.a, p.k, p.law, p.params, d.junction_offset, d.junction_offset.shape[1],
                self.w, self.current, self.slope, self.amps, self.miss,
            )  # fmt: skip
            allowed = near * self.amps + 1e-12 * self.amps.max(axis=0)
            return bool(self.device.to_host((self.miss <= allowed).all()))

    def found(self, tolerance: float, moves: float) -> tuple[Floats, Bools, Residuals]:
        with self.device.guard():
            x, (rho, most, upper) = self.x, self._kcl()
            correction = most.copy()  # bounds it: an inverse conductance matrix has no negative entry
            self._substitute(correction)
            largest = self.device.xp.abs(x).max(axis=0)
            arrived = (upper <= tolerance).all(axis=0) & (correction <= moves * largest).all(axis=0)
            arrived &= (self.pivot > 0).all(axis=0)
            found: Bools = self.device.to_host(arrived)
            residuals = NO_RESIDUALS
            if found.any():  # no ideal diode supplies anything: what flows is what violates
                of_these = [a[:, arrived] for a in (x, rho, rho, upper)]
                residuals = figures(self.device, self.drive, *of_these)
                residuals = replace(residuals, worst_row=int(np.flatnonzero(found)[residuals.worst_row]))
            turned = self.device.xp.ascontiguousarray(x.T)
            return self.device.to_host(turned), found, residuals

    def _kcl(self) -> tuple[Array, Array, Array]:
        """The violations, the most that they are but for rounding, and bounds of the relative ones, (n_free, rows)."""
        d, j, p = self.drive, self.junctions, self.pattern
        rho, most, upper = (self.device.xp.empty_like(self.x) for _ in range(3))
        n, rows = self.x.shape
        self.device.launch(
            "kcl", n * rows,
            rows, n, self.x, p.g_ptr, p.near, p.g, p.to_fixed, j.ptr, j.other, j.sign, j.number, j.law, j.params,
            d.junction_offset, d.junction_offset.shape[1], d.injection, d.injection.shape[1],
            d.source_flow, d.source_abs, d.source_abs.shape[1], d.fixed_abs, d.fixed_rows, self.problem.most_terms,
            rho, most, upper,
        )  # fmt: skip
        return rho, most, upper

    def _substitute(self, x: Array) -> None:
        p, (n, rows) = self.pattern, x.shape
        self.device.launch("substitute", rows, rows, n, p.unit, p.ptr, p.end, self.value, self.pivot, x)


def _put(device: Device, arrays: Any) -> Any:
    """The same arrays on the device; whole numbers as int64, but for int32."""

    def put(a: NDArray[Any]) -> Array:
        wide = a.astype(np.int64) if a.dtype.kind == "i" and a.dtype != np.int32 else a
        return device.xp.ascontiguousarray(device.xp.asarray(wide))

    return replace(arrays, **{f.name: put(getattr(arrays, f.name)) for f in fields(arrays)})
