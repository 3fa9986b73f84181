"""Newton steps on the device, for many rows of a batch at once: each row has its own tangents, all share one pattern.

Copies side by side (stack.py) are such rows too, each with its own conductances and laws. A row's linear network is
eliminated node by node in one thread, without a subtraction, as in linear/elimination.py; neighbouring threads work on
the same entry of neighbouring rows. Arrays are (entries, rows), (units, rows) and (legs, rows), float64. Whether a row
has converged in the end - KCL is met, and one more correction would hardly move a voltage - is decided by bounds: a row
for which they are too coarse has not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.backends.arrange import Junctions, junctions_by_unit
from circuitsim.backends.device import Device
from circuitsim.backends.gpu_check import DriveOnDevice, figures
from circuitsim.drive import Drive
from circuitsim.law_kernels import N_PARAMS
from circuitsim.laws import branch_current
from circuitsim.linear.elimination import Elimination
from circuitsim.problem import Problem
from circuitsim.residual import NO_RESIDUALS, Residuals
from circuitsim.stack import copies_as_rows, units_in_copies, unstacked

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Array = Any

_LEG_ARRAYS = 10  # float64 numbers for each leg in one row, at the most
_FAINT = 1e-12  # times the largest current of a row: smaller ones count as 0, as in limiting.near
_MOST_UNITS = 2000  # unknowns of a small circuit
_MOST_UPDATES = 5_000_000  # of entries, in one elimination: read by every row


def refusal(problem: Problem) -> str:
    """Why a problem's rows cannot be solved like this; empty where they can."""
    problem = problem.one
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
    t, copies = problem.one.topology, problem.circuit.copies
    e = t.solver
    assert isinstance(e, Elimination)
    own = e.row.size + 2 * t.edges[0].size + N_PARAMS * t.legs.a.size if copies > 1 else 0  # values of a copy
    return 4 * e.updates + 40 * e.row.size, 8 * copies * (e.row.size + _LEG_ARRAYS * t.legs.a.size + own)


@dataclass(frozen=True)
class Pattern:
    """The pattern that the kernels `eliminate` and `substitute` follow. Column j has the entries ptr[j]:ptr[j + 1], the
    conductances that join its unit to others and to ground.

    There are `sets` of conductances and laws: one, or one for each row.
    """

    unit: Ints  # (columns,) the unit of each column
    ptr: Ints  # (columns + 1,)
    end: Ints  # (entries,) unit at the other end, -1: ground, always the last of its column
    target: NDArray[np.int32]  # (updates,) entry that each pair of entries of a column adds to
    linear: Floats  # (entries, sets) S
    leg_ptr: Ints  # (entries + 1,) entry e has the legs leg_ptr[e]:leg_ptr[e + 1] on top
    legs: Ints
    a: Ints  # (n_legs,) unit at the anode, -1: known
    k: Ints
    law: Ints
    params: Floats  # (sets, n_legs, N_PARAMS)
    g_ptr: Ints  # (n_free + 1,) linear conductances at unit u: g_ptr[u]:g_ptr[u + 1]
    near: Ints  # unit at the other end
    g: Floats  # (ends, sets) S
    to_fixed: Floats  # (n_free, sets) S

    @property
    def sets(self) -> int:
        return int(self.linear.shape[1])


def pattern_of(problem: Problem) -> Pattern:
    """The pattern of a problem that is not refused."""
    t, sets = problem.one.topology, problem.circuit.copies
    e = t.solver
    assert isinstance(e, Elimination)
    of_edge = e.entry_of_edge
    to_ground = np.empty(e.n, np.int64)
    to_ground[e.perm] = e.ptr[1:] - 1
    edge_g, to_fixed = _conductances(problem)
    linear = _sums(of_edge, np.arange(of_edge.size), e.row.size, of_edge.size) @ edge_g
    linear[to_ground] += to_fixed
    # Legs that join two units are the last edges; others join their one unit to ground.
    where = to_ground[np.where(t.legs.a >= 0, t.legs.a, t.legs.k)]
    where[t.leg_edges] = of_edge[of_edge.size - t.leg_edges.size :]
    legs = np.argsort(where, kind="stable")
    leg_ptr = np.searchsorted(where[legs], np.arange(e.row.size + 1))
    end = np.append(e.perm, -1)[e.row]
    law = problem.one.circuit.junctions.law[t.junctions].astype(np.int64)
    params = problem.circuit.junctions.params.reshape(sets, -1, N_PARAMS)[:, t.junctions]
    one, other = t.edges
    own, near, g = np.r_[one, other], np.r_[other, one], np.tile(edge_g, (2, 1))
    at = np.argsort(own, kind="stable")
    at = at[(g[at] > 0).any(axis=1)]
    g_ptr = np.searchsorted(own[at], np.arange(e.n + 1))
    return Pattern(
        e.perm, e.ptr, end, e.targets, linear, leg_ptr, legs, t.legs.a, t.legs.k, law, params, g_ptr, near[at], g[at],
        to_fixed,
    )  # fmt: skip


def _conductances(problem: Problem) -> tuple[Floats, Floats]:
    """Linear conductances of Topology.edges, (edges, sets), and to known potentials, (n_free, sets), S."""
    if problem.circuit.copies == 1:
        return problem.edge_conductances()[:, None], problem.values.to_fixed[:, None]
    t = problem.one.topology
    g = problem.circuit.conductors.g.reshape(problem.circuit.copies, -1).T
    c, known = t.couplings, t.known_ends
    couplings = _sums(c.position, c.branch, c.indices.size, len(g), c.sign) @ g
    to_fixed = _sums(t.diag_units[known], t.diag_branches[known], t.n_free, len(g)) @ g
    return np.concatenate([couplings[t.upper], np.zeros((t.leg_edges.size, g.shape[1]))]), to_fixed


def _sums(row: Ints, col: Ints, rows: int, cols: int, values: Floats | float = 1.0) -> sparse.csr_array:
    """The matrix that adds values[k] times row col[k] to row row[k]."""
    return sparse.csr_array((np.broadcast_to(values, row.shape), (row, col)), shape=(rows, cols))


class GpuNewton:
    """See base.RowSteps. The pattern is made when work begins."""

    def __init__(self, problem: Problem, device: Device, tile: int) -> None:
        self.problem, self.device, self.tile = problem, device, tile

    @cached_property
    def pattern(self) -> Pattern:
        """On the device."""
        return put(self.device, pattern_of(self.problem))

    @cached_property
    def junctions(self) -> Junctions:
        """On the device."""
        return put(self.device, junctions_by_unit(self.problem.one))

    def start(self, drive: Drive, w: Floats) -> None:
        xp, t, j = self.device.xp, self.problem.topology, self.problem.circuit.junctions
        found = w, *branch_current(j.law[t.junctions], j.params[t.junctions], w)
        w, current, slope = (unstacked(values, self.problem.circuit.copies) for values in found)
        with self.device.guard():
            self.drive = DriveOnDevice(self.device, copies_as_rows(self.problem, drive))
            self.w, self.current, self.slope = (
                xp.ascontiguousarray(self.device.to_device(a).T) for a in (w, current, slope)
            )
            self.amps, self.miss = xp.empty_like(self.w), xp.empty_like(self.w)
            rows = w.shape[0]
            self.x, self.value = xp.empty((self.problem.one.n_free, rows)), xp.empty((self.pattern.end.size, rows))
            self.pivot = xp.empty_like(self.x)

    def step(self, near: float) -> bool:
        d, j, p = self.drive, self.junctions, self.pattern
        n, rows = self.x.shape
        with self.device.guard():
            self.device.launch(
                "eliminate", rows,
                rows, n, p.ptr, p.target, p.linear, p.sets, p.leg_ptr, p.legs, self.slope, self.value, self.pivot,
            )  # fmt: skip
            self.device.launch(
                "inject", n * rows,
                rows, n, j.ptr, j.sign, j.number, self.w, self.current, self.slope,
                d.junction_offset, d.junction_offset.shape[1], d.injection, d.injection.shape[1], self.x,
            )  # fmt: skip
            self._substitute(self.x)
            self.device.launch(
                "tangents", self.w.size,
                rows, self.w.shape[0], self.x, p.a, p.k, p.law, p.params, p.sets,
                d.junction_offset, d.junction_offset.shape[1], self.w, self.current, self.slope, self.amps, self.miss,
            )  # fmt: skip
            allowed = near * self.amps + _FAINT * self.amps.max(axis=0)
            return bool(self.device.to_host((self.miss <= allowed).all()))

    def found(self, tolerance: float, moves: float) -> tuple[Floats, Bools, Residuals]:
        with self.device.guard():
            x, (rho, most, upper) = self.x, self._kcl()
            correction = most.copy()  # becomes its bound: an inverse conductance matrix has no negative entry
            self._substitute(correction)
            largest = self.device.xp.abs(x).max(axis=0)
            arrived = (upper <= tolerance).all(axis=0) & (correction <= moves * largest).all(axis=0)
            arrived &= (self.pivot > 0).all(axis=0)
            found: Bools = self.device.to_host(arrived)
            residuals = NO_RESIDUALS
            if found.any():  # without ideal diodes the net current out of a unit is its violation
                of_these = [a[:, arrived] for a in (x, rho, rho, upper)]
                residuals = figures(self.device, self.drive, *of_these)
                residuals = replace(residuals, worst_row=int(np.flatnonzero(found)[residuals.worst_row]))
            host: Floats = self.device.to_host(self.device.xp.ascontiguousarray(x.T))
        if self.problem.circuit.copies == 1:
            return host, found, residuals
        units = units_in_copies(self.problem)
        whole = np.empty((1, self.problem.n_free))
        whole[0, units] = host
        if not found.all():
            return whole, np.array([False]), NO_RESIDUALS
        worst = int(units[residuals.worst_row, residuals.worst_unit]) if residuals.worst_unit >= 0 else -1
        return whole, np.array([True]), replace(residuals, worst_row=0, worst_unit=worst)

    def _kcl(self) -> tuple[Array, Array, Array]:
        """The KCL violations (A), bounds of their sizes that include rounding (A), bounds of the relative violations;
        (n_free, rows) each.
        """
        d, j, p = self.drive, self.junctions, self.pattern
        rho, most, upper = (self.device.xp.empty_like(self.x) for _ in range(3))
        n, rows = self.x.shape
        self.device.launch(
            "kcl", n * rows,
            rows, n, self.x, p.g_ptr, p.near, p.g, p.to_fixed, j.ptr, j.other, j.sign, j.number,
            self.w.shape[0], p.law, p.params, p.sets, d.junction_offset, d.junction_offset.shape[1],
            d.injection, d.injection.shape[1], d.source_flow, d.source_abs, d.source_abs.shape[1],
            d.fixed_abs, d.fixed_rows, self.problem.one.most_terms, rho, most, upper,
        )  # fmt: skip
        return rho, most, upper

    def _substitute(self, x: Array) -> None:
        p, (n, rows) = self.pattern, x.shape
        self.device.launch("substitute", rows, rows, n, p.unit, p.ptr, p.end, self.value, self.pivot, x)


def put(device: Device, arrays: Any) -> Any:
    """The same arrays on the device; whole numbers as int64, but for int32."""

    def copied(a: NDArray[Any]) -> Array:
        wide = a.astype(np.int64) if a.dtype.kind == "i" and a.dtype != np.int32 else a
        return device.to_device(wide)

    return replace(arrays, **{f.name: copied(getattr(arrays, f.name)) for f in fields(arrays)})
