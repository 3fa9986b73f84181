"""Currents and powers of elements, from the voltages: by the element's law where it has one, otherwise by KCL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.branch_sums import ufunc_at
from circuitsim.branches import Branches, Crossbar
from circuitsim.drive import Drive
from circuitsim.kcl import outflow, shift, violation
from circuitsim.laws import branch_current
from circuitsim.netlist.model import CROSSBAR, KINDS
from circuitsim.residual import Check
from circuitsim.units import tie_currents as currents_of_ties
from circuitsim.units import unique_ties

if TYPE_CHECKING:
    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_WORK = 4_000_000  # branch currents held at once
_ENORMOUS = 1e6  # A
_TILE = 250_000  # voltages whose certificates are computed together


def tiles(rows: int, branches: int) -> list[slice]:
    """Slices of the rows of a batch, small enough that a number for each branch and row needs little memory."""
    size = max(1, _WORK // max(branches, 1))
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


def with_digits(solution: Solution, drive: Drive) -> tuple[Drive, Floats]:
    """A drive with all digits of the solution in its rows: carried currents, and separate corrections to the unknowns.

    Returns it and the last correction, (rows, n_free), V: the unknowns of the drive returned (kcl.shift).
    """
    x, drive = solution.x[drive.rows], replace(drive, carried=solution.carried[drive.rows])
    if solution.low is None:
        return drive, x
    *parts, last = x, *solution.low[:, drive.rows]
    return shift(solution.problem, drive, *parts), last


def row_violations(solution: Solution) -> Floats:
    """The largest relative KCL error of each row of the batch, in each copy of a stack, (batch, copies).

    Below the solution's tolerance it may be a bound. NaN in rows without voltages.
    """
    out = np.full((solution.batch, solution.circuit.copies), np.nan)
    reached = np.asarray(np.isfinite(solution.x).all(axis=1))
    size = 1 + _TILE // len(solution.circuit.nodes) if reached.all() else 1
    for first in range(0, solution.batch, size):
        rows = slice(first, min(first + size, solution.batch))
        if reached[rows].all():
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # of rows that are not solved
                check = Check(solution.problem, *with_digits(solution, solution.problem.drive(rows)))
                out[rows] = check.by_row(solution.tolerance)
    return out


def ideal_currents(solution: Solution, rows: slice) -> Floats:
    """Currents of the ideal diodes, (rows, n_ideal), A: at each unit what KCL asks of the diodes that bound it.

    Diodes whose bounds coincide share the current equally, the least-norm choice.
    """
    problem = solution.problem
    t, ideal = problem.topology, problem.circuit.ideal_diodes
    if not len(ideal):
        return np.zeros((rows.stop - rows.start, 0))
    drive, x = problem.drive(rows), solution.x[rows]
    lo, hi = np.broadcast_to(drive.lo, x.shape), np.broadcast_to(drive.hi, x.shape)
    fine, correction = with_digits(solution, drive)
    with np.errstate(over="ignore", invalid="ignore"):  # inf, or no number, as it is
        flow, slope = outflow(problem, fine, correction)
        supplied = flow - violation(flow, slope, correction, fine.lo, fine.hi)
    out = np.zeros((x.shape[0], len(ideal)))
    room = ideal.vf - drive.fixed @ t.ideal_fixed.T
    for diodes, units, bound, sign in (
        (t.lower_diodes, t.lower_units, -lo, 1.0),
        (t.upper_diodes, t.upper_units, hi, -1.0),
    ):
        active = np.broadcast_to(room[:, diodes] <= bound[:, units], (x.shape[0], diodes.size))
        share = np.zeros((t.n_free, x.shape[0]))
        ufunc_at(np.add, share, units, active.T.astype(float))
        wanted = np.maximum(sign * supplied, 0.0)[:, units]
        out[:, diodes] = np.where(active, wanted / np.maximum(share.T[:, units], 1.0), 0.0)
    out[:, t.links] = fine.carried[:, : t.links.size]
    return out


def active_currents(solution: Solution, rows: slice) -> Floats:
    """Currents of the branches of Circuit.active, (rows, n_active), A."""
    return solution.carried[rows, solution.problem.topology.links.size :]


def _out_of_nodes(solution: Solution, rows: slice) -> Floats:
    """Current that all elements but ties carry away from each node, (rows, n_nodes), A."""
    c = solution.circuit
    j = c.junctions
    n_rows = rows.stop - rows.start
    out = np.zeros((len(c.nodes), n_rows))
    given = solution.problem.given_currents(rows)
    currents: list[tuple[Branches, Floats]] = [
        (c.conductors, c.conductors.g * solution.drops(c.conductors.a, c.conductors.b, rows)),
        (c.current_sources, np.broadcast_to(given, (n_rows, given.shape[1]))),
        (j, branch_current(j.law, j.params, solution.drops(j.a, j.b, rows))[0]),
        (c.ideal_diodes, ideal_currents(solution, rows)),
        (c.active, active_currents(solution, rows)),
    ]
    for branches, current in currents:
        current = np.where(branches.a == branches.b, 0.0, current)  # to itself: nothing, not even rounding
        ufunc_at(np.add, out, branches.a, current.T)
        ufunc_at(np.subtract, out, branches.b, current.T)
    v = solution.voltages(rows=rows)
    for x in c.crossbars:
        if solution.low is not None:  # differences first, for their digits
            current = x.g * _crossbar_drops(solution, x, rows)
            ufunc_at(np.add, out, x.rows, current.sum(axis=2).T)
            ufunc_at(np.subtract, out, x.cols, current.sum(axis=1).T)
            continue
        row, col = v[:, x.rows], v[:, x.cols]
        ufunc_at(np.add, out, x.rows, (row * x.g.sum(axis=1) - col @ x.g.T).T)
        ufunc_at(np.add, out, x.cols, (col * x.g.sum(axis=0) - row @ x.g).T)
    return out.T


def _crossbar_drops(solution: Solution, x: Crossbar, rows: slice) -> Floats:
    """Voltages from the row nodes to the column nodes, (rows, nr, nc)."""
    a, b = np.repeat(x.rows, x.cols.size), np.tile(x.cols, x.rows.size)
    return solution.drops(a, b, rows).reshape(-1, *x.g.shape)


def _known_drops(solution: Solution, x: Crossbar) -> Floats:
    """The same for all rows of the batch; NaN at lines that are left out."""
    left_out = solution.circuit.left_out
    gone = left_out[x.rows][:, None] | left_out[x.cols]
    return np.where(gone, np.nan, _crossbar_drops(solution, x, slice(0, solution.batch)))


def tie_currents(solution: Solution) -> tuple[Floats, NDArray[np.bool_]]:
    """Currents of the voltage sources and shorts by KCL, (batch, n_ties), and which are unique."""
    c, forest = solution.circuit, solution.problem.topology.forest
    pieces = []
    branches = len(c.conductors) + len(c.junctions) + len(c.nodes)
    if solution.low is not None:  # then the conductances of crossbars are gone through one by one
        branches += sum(x.g.size for x in c.crossbars)
    for rows in tiles(solution.batch, branches):
        with np.errstate(over="ignore", invalid="ignore"):  # inf, as it is
            out = _out_of_nodes(solution, rows)[:, forest.nodes]
        current = currents_of_ties(c, forest, out)
        current[:, c.probes] = active_currents(solution, rows)[:, len(c.controlled) :]
        pieces.append(current)
    return np.concatenate(pieces), unique_ties(c, forest)


def table_currents(solution: Solution, kind: str, members: Ints, rows: slice | None = None) -> Floats:
    """Currents through elements of one kind (rows `members` of its table) from first to second node, (rows, n), A.

    Ohm's law where there is one, KCL for voltage sources, shorts and ideal diodes. Open elements carry 0 A.
    """
    c = solution.circuit
    rows = rows or slice(0, solution.batch)
    wanted, position = np.unique(members, return_inverse=True)
    total = np.zeros((wanted.size, rows.stop - rows.start))
    for branches in c.groups.values():
        chosen, place = branches.of_rows(kind, wanted)
        if chosen.size:
            ufunc_at(np.add, total, place, _branch_currents(solution, branches, chosen, rows).T)
    table = c.netlist.tables[kind]
    found: Floats = total[position].T
    found[:, c.left_out[table.a[members]] | c.left_out[table.b[members]]] = np.nan
    return found


def ambiguous_elements(solution: Solution, kind: str, powers: bool = False) -> NDArray[np.bool_]:
    """For each element of a kind: whether its current is not unique: sources, shorts and diodes in a loop share it,
    controlled sources leave it open.

    powers: whether its power is not; it is 0 where the branch has no voltage by its own law, however much it carries.
    """
    c = solution.circuit
    found = np.zeros(len(c.netlist.tables[kind]), bool)
    _, diodes, controlled = solution.ambiguous
    unsure = [(c.ties, ~solution.tie_currents[1]), (c.ideal_diodes, diodes), (c.controlled, controlled)]
    if powers:
        volts = c.ties.e, c.ideal_diodes.vf[None], solution.drops(c.controlled.a, c.controlled.b)
        unsure = [(x, marks & (v != 0).any(axis=0)) for (x, marks), v in zip(unsure, volts, strict=True)]
    for branches, marks in unsure:
        found[branches.row[marks & (branches.kind == KINDS.index(kind))]] = True
    return found


def enormous_currents(solution: Solution) -> list[tuple[int, float, float]]:
    """Nonlinear branches of a voltage that the sources fix and of more than 1e6 A: (branch, V, A) in the worst row."""
    j, closed = solution.circuit.junctions, solution.problem.topology.closed_junctions
    if not closed.size:
        return []
    v = solution.drops(j.a[closed], j.b[closed])
    amperes = branch_current(j.law[closed], j.params[closed], v)[0]
    worst = np.abs(amperes).argmax(axis=0)
    pairs = [(int(k), float(v[r, n]), float(amperes[r, n])) for n, (k, r) in enumerate(zip(closed, worst, strict=True))]
    return [found for found in pairs if abs(found[2]) > _ENORMOUS]


def of_element(solution: Solution, name: str, power: bool) -> Floats:
    """Current or power of an element, (batch,), or of an array: (batch, members), or (batch, rows, columns)."""
    c = solution.circuit
    kind, start, stop = c.rows_of(name)
    if kind == CROSSBAR:
        x = c.crossbars[start]
        v = _known_drops(solution, x)
        with np.errstate(over="ignore"):  # inf, as it is
            return x.g * v * v if power else x.g * v
    members = np.arange(start, stop)
    found = table_currents(solution, kind, members)
    if power:
        table = c.netlist.tables[kind]
        with np.errstate(over="ignore"):  # inf, as it is
            found = found * solution.drops(table.a[members], table.b[members])
    ref = c.netlist.arrays.get(name.lower())
    return found[:, 0] if ref is None else found.reshape(-1, *map(len, ref.indices))


def _branch_currents(solution: Solution, branches: Branches, chosen: Ints, rows: slice) -> Floats:
    """Currents of some branches of one kind, from their element's first node to its second, (rows, n) or (1, n)."""
    c = solution.circuit
    if branches is c.ties:
        return solution.tie_currents[0][rows][:, chosen]
    if branches is c.current_sources:
        return solution.problem.given_currents(rows)[:, chosen]
    if branches is c.controlled:
        return active_currents(solution, rows)[:, chosen]
    if branches is c.ideal_diodes:
        table = c.netlist.tables["D"]  # a PWL diode's reverse knee is an ideal diode that runs from cathode to anode
        forward = np.where(branches.a[chosen] == table.a[branches.row[chosen]], 1.0, -1.0)
        return forward * ideal_currents(solution, rows)[:, chosen]
    v = solution.drops(branches.a[chosen], branches.b[chosen], rows)
    if branches is c.conductors:
        return c.conductors.g[chosen] * v
    return branch_current(c.junctions.law[chosen], c.junctions.params[chosen], v)[0]
