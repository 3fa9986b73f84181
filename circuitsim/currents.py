"""Currents and powers of elements, from the voltages: Ohm's law where there is one, KCL where there is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import KINDS, Branches, Crossbar
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


def table_currents(solution: Solution, kind: str, members: Ints, rows: slice | None = None) -> Floats:
    """Currents through elements of one kind (rows `members` of its table) from first to second node, (rows, n), A.

    Ohm's law where there is one, KCL for voltage sources, shorts and ideal diodes. Open elements carry 0 A.
    """
    c = solution.circuit
    rows = rows or slice(0, solution.batch)
    wanted, position = np.unique(members, return_inverse=True)
    place = np.full(len(c.netlist.tables[kind]), -1)
    place[wanted] = np.arange(wanted.size)
    total = np.zeros((wanted.size, rows.stop - rows.start))
    groups: list[Branches] = [c.conductors, c.ties, c.current_sources, c.junctions, c.ideal_diodes]
    for branches in groups:
        chosen = np.flatnonzero(branches.kind == KINDS.index(kind))
        chosen = chosen[place[branches.row[chosen]] >= 0]
        if chosen.size:
            np.add.at(total, place[branches.row[chosen]], _branch_currents(solution, branches, chosen, rows).T)
    return total[position].T


def all_currents(solution: Solution) -> dict[str, Floats]:
    """The currents of all elements of each kind, from first to second node, (batch, n), A."""
    tables = solution.circuit.netlist.tables
    return {kind: table_currents(solution, kind, np.arange(len(table))) for kind, table in tables.items()}


def ambiguous_elements(solution: Solution, kind: str) -> NDArray[np.bool_]:
    """For each element of a kind: whether its current is not unique, as sources and shorts in a loop share it."""
    ties = solution.circuit.ties
    found = np.zeros(len(solution.circuit.netlist.tables[kind]), bool)
    mine = ties.kind == KINDS.index(kind)
    if mine.any():
        found[ties.row[mine]] = ~solution.tie_currents[1][mine]
    return found


def element_current(solution: Solution, name: str) -> Floats:
    """See Solution.current."""
    return _of_element(solution, name, power=False)


def element_power(solution: Solution, name: str) -> Floats:
    """See Solution.power."""
    return _of_element(solution, name, power=True)


def _of_element(solution: Solution, name: str, power: bool) -> Floats:
    """Current or power of an element, (batch,), or of an array, (batch, members)."""
    c = solution.circuit
    for x in c.crossbars:
        if x.name.lower() == name.lower():
            v = _crossbar_drops(solution, x, slice(0, solution.batch))
            return x.g * v * v if power else x.g * v
    kind, start, stop = c.rows_of(name)
    members = np.arange(start, stop)
    found = table_currents(solution, kind, members)
    if power:
        table = c.netlist.tables[kind]
        found = found * solution.drops(table.a[members], table.b[members])
    return found if name.lower() in c.netlist.arrays else found[:, 0]


def _branch_currents(solution: Solution, branches: Branches, chosen: Ints, rows: slice) -> Floats:
    """Currents of some branches of one kind, from their element's first node to its second, (rows, n) or (1, n)."""
    c = solution.circuit
    if branches is c.ties:
        return solution.tie_currents[0][rows][:, chosen]
    if branches is c.current_sources:
        return solution.problem.source_currents(rows)[:, chosen]
    if branches is c.ideal_diodes:
        table = c.netlist.tables["D"]  # a PWL diode's reverse knee is an ideal diode that runs from cathode to anode
        forward = np.where(branches.a[chosen] == table.a[branches.row[chosen]], 1.0, -1.0)
        return forward * ideal_currents(solution, rows)[:, chosen]
    v = solution.drops(branches.a[chosen], branches.b[chosen], rows)
    if branches is c.conductors:
        return c.conductors.g[chosen] * v
    return branch_current(c.junctions.law[chosen], c.junctions.params[chosen], v)[0]


def determined_nodes(solution: Solution) -> NDArray[np.bool_]:
    """Nodes whose voltage is unique: joined to ground by resistors, ties, and diodes that hold them there.

    A Shockley diode always does (its law is strictly monotone), a piecewise-linear or ideal one when it conducts.
    """
    t, c = solution.problem.topology, solution.circuit
    islands = t.islands
    if not islands.arcs:
        return islands.part == 0
    holds = np.zeros(islands.n_parts, bool)
    reached = np.ones(islands.n_parts, bool)
    for row in range(solution.batch):
        rows = slice(row, row + 1)
        ideal = ideal_currents(solution, rows)[0]
        j = c.junctions
        slope = branch_current(j.law, j.params, solution.drops(j.a, j.b, rows)[0])[1]
        holds[:] = False
        holds[0] = True
        pairs = [
            (a, b) for a, b, _, group, k in islands.arcs if (ideal[k] if group == "ideal_diodes" else slope[k]) > 0
        ]
        growing = True
        while growing:
            growing = False
            for a, b in pairs:
                if holds[a] != holds[b]:
                    holds[a] = holds[b] = growing = True
        reached &= holds
    return reached[islands.part]
