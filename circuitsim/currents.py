"""Currents and powers of single elements, from the voltages: Ohm's law where there is one, KCL where there is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import KINDS, Branches, Crossbar
from circuitsim.errors import SettingsError
from circuitsim.islands import Islands
from circuitsim.laws import branch_current
from circuitsim.residual import outflow, shift, violation
from circuitsim.units import tie_currents as currents_of_ties

if TYPE_CHECKING:
    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_WORK = 4_000_000  # branch currents held at once


def _tiles(rows: int, branches: int) -> list[slice]:
    size = max(1, _WORK // max(branches, 1))
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


def ideal_currents(solution: Solution, rows: slice) -> Floats:
    """Currents of the ideal diodes, (rows, n_ideal), A: at each unit what KCL asks of the diodes that bound it.

    Diodes whose bounds coincide share the current equally, the least-norm choice.
    """
    problem = solution.problem
    t = problem.topology
    drive = problem.drive(rows)
    x = solution.x[rows]
    lo, hi = np.broadcast_to(drive.lo, x.shape), np.broadcast_to(drive.hi, x.shape)
    fine, correction = (drive, x) if solution.low is None else (shift(problem, drive, x), solution.low[rows])
    flow, slope = outflow(problem, fine, correction)
    supplied = flow - violation(flow, slope, correction, fine.lo, fine.hi)
    ideal = problem.circuit.ideal_diodes
    out = np.zeros((x.shape[0], len(ideal)))
    if not len(ideal):
        return out
    room = ideal.vf - drive.fixed @ t.ideal_fixed.T
    for diodes, units, bound, sign in (
        (t.lower_diodes, t.lower_units, -lo, 1.0),
        (t.upper_diodes, t.upper_units, hi, -1.0),
    ):
        active = np.broadcast_to(room[:, diodes] <= bound[:, units], (x.shape[0], diodes.size))
        share = np.zeros((t.n_free, x.shape[0]))
        np.add.at(share, units, active.T.astype(float))
        wanted = np.maximum(sign * supplied, 0.0)[:, units]
        out[:, diodes] = np.where(active, wanted / np.maximum(share.T[:, units], 1.0), 0.0)
    return out


def _out_of_nodes(solution: Solution, rows: slice) -> Floats:
    """Current that all elements but ties carry away from each node, (rows, n_nodes), A."""
    c = solution.circuit
    j = c.junctions
    n_rows = rows.stop - rows.start
    out = np.zeros((len(c.nodes), n_rows))
    given = solution.problem.source_currents(rows)
    currents: list[tuple[Branches, Floats]] = [
        (c.conductors, c.conductors.g * solution.drops(c.conductors.a, c.conductors.b, rows)),
        (c.current_sources, np.broadcast_to(given, (n_rows, given.shape[1]))),
        (j, branch_current(j.law, j.params, solution.drops(j.a, j.b, rows))[0]),
        (c.ideal_diodes, ideal_currents(solution, rows)),
    ]
    for branches, current in currents:
        np.add.at(out, branches.a, current.T)
        np.subtract.at(out, branches.b, current.T)
    v = solution.voltages(rows=rows)
    for x in c.crossbars:
        if solution.low is not None:  # differences first, for their digits
            current = x.g * _crossbar_drops(solution, x, rows)
            np.add.at(out, x.rows, current.sum(axis=2).T)
            np.subtract.at(out, x.cols, current.sum(axis=1).T)
            continue
        row, col = v[:, x.rows], v[:, x.cols]
        np.add.at(out, x.rows, (row * x.g.sum(axis=1) - col @ x.g.T).T)
        np.add.at(out, x.cols, (col * x.g.sum(axis=0) - row @ x.g).T)
    return out.T


def _crossbar_drops(solution: Solution, x: Crossbar, rows: slice) -> Floats:
    """Voltages from the row nodes to the column nodes, (rows, nr, nc)."""
    a, b = np.repeat(x.rows, x.cols.size), np.tile(x.cols, x.rows.size)
    return solution.drops(a, b, rows).reshape(-1, *x.g.shape)


def tie_currents(solution: Solution) -> tuple[Floats, NDArray[np.bool_]]:
    """Currents of the voltage sources and shorts by KCL, (batch, n_ties), and which are unique."""
    c, forest = solution.circuit, solution.problem.topology.forest
    pieces = []
    unique = np.ones(len(c.ties), bool)
    branches = len(c.conductors) + len(c.junctions) + len(c.nodes)
    for rows in _tiles(solution.batch, branches):
        out = _out_of_nodes(solution, rows)[:, forest.nodes]
        current, unique = currents_of_ties(c, forest, out)
        pieces.append(current)
    return np.concatenate(pieces), unique


def element_current(solution: Solution, name: str) -> Floats:
    """See Solution.current."""
    c = solution.circuit
    for x in c.crossbars:
        if x.name.lower() == name.lower():
            v = _crossbar_drops(solution, x, slice(0, solution.batch))
            return x.g * v
    kind, start, stop = c.rows_of(name)
    total = np.zeros((solution.batch, stop - start))
    groups: list[Branches] = [c.conductors, c.ties, c.current_sources, c.junctions, c.ideal_diodes]
    for branches in groups:
        chosen = np.flatnonzero((branches.kind == KINDS.index(kind)) & (branches.row >= start) & (branches.row < stop))
        if chosen.size:
            current, forward = _branch_currents(solution, branches, chosen)
            np.add.at(total.T, branches.row[chosen] - start, (current * forward).T)
    return total if name.lower() in c.netlist.arrays else total[:, 0]


def _branch_currents(solution: Solution, branches: Branches, chosen: Ints) -> tuple[Floats, Floats]:
    """Currents of some branches and +-1: whether the branch runs from the element's first node to its second."""
    c = solution.circuit
    forward = np.ones(chosen.size)
    v = solution.drops(branches.a[chosen], branches.b[chosen])
    if branches is c.conductors:
        return c.conductors.g[chosen] * v, forward
    if branches is c.ties:
        return solution.tie_currents[0][:, chosen], forward
    if branches is c.current_sources:
        return np.broadcast_to(c.current_sources.i[:, chosen], v.shape), forward
    if branches is c.junctions:
        return branch_current(c.junctions.law[chosen], c.junctions.params[chosen], v)[0], forward
    table = c.netlist.tables["D"]  # a PWL diode's reverse knee is an ideal diode that runs from cathode to anode
    forward = np.where(branches.a[chosen] == table.a[branches.row[chosen]], 1.0, -1.0)
    return ideal_currents(solution, slice(0, solution.batch))[:, chosen], forward


def element_power(solution: Solution, name: str) -> Floats:
    """See Solution.power."""
    c = solution.circuit
    for x in c.crossbars:
        if x.name.lower() == name.lower():
            v = _crossbar_drops(solution, x, slice(0, solution.batch))
            return x.g * v * v
    kind, start, stop = c.rows_of(name)
    if kind == "C":
        raise SettingsError(f"{name}: a capacitor carries no DC current and absorbs no power")
    table = c.netlist.tables[kind]
    v = solution.drops(table.a[start:stop], table.b[start:stop])
    return element_current(solution, name) * (v if name.lower() in c.netlist.arrays else v[:, 0])


def determined_nodes(solution: Solution) -> NDArray[np.bool_]:
    """Nodes whose voltage is unique: joined to ground by resistors, ties, and diodes that hold them there.

    A Shockley diode always does (its law is strictly monotone), a piecewise-linear or ideal one when it conducts.
    """
    t, c = solution.problem.topology, solution.circuit
    islands = t.islands
    if not islands.arcs:
        return islands.part == 0
    reached = np.ones(islands.n_parts, bool)
    for rows in _tiles(solution.batch, len(c.junctions) + len(c.ideal_diodes)):
        j = c.junctions
        conducts = {
            "ideal_diodes": ideal_currents(solution, rows) > 0,
            "junctions": branch_current(j.law, j.params, solution.drops(j.a, j.b, rows))[1] > 0,
        }
        held = np.stack([conducts[group][:, k] for _, _, _, group, k in islands.arcs], axis=1)
        for pattern in np.unique(held, axis=0).tolist():
            reached &= _held(islands, pattern)
    return reached[islands.part]


def _held(islands: Islands, pattern: list[bool]) -> NDArray[np.bool_]:
    """The parts that conducting diodes hold to ground; `pattern` says which of the arcs conduct."""
    holds = np.zeros(islands.n_parts, bool)
    holds[0] = True
    pairs = [(a, b) for (a, b, *_), conducts in zip(islands.arcs, pattern, strict=True) if conducts]
    growing = True
    while growing:
        growing = False
        for a, b in pairs:
            if holds[a] != holds[b]:
                holds[a] = holds[b] = growing = True
    return holds
