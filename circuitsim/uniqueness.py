"""What is not unique in a solution: voltages of islands that can shift, currents that can circulate.

Resistor currents are always unique, and with them all voltages within a part. A part's potential may shift as far as
the diodes around it allow with all currents unchanged: difference constraints again, whose shortest paths from and to
ground give the interval. Where the equations of controlled sources allow no shift, there is none. Currents can
circulate only in loops of sources and of ideal diodes that conduct, or are about to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import Branches, take_rows
from circuitsim.currents import ideal_currents, tiles, with_digits
from circuitsim.feasibility import relax_rows
from circuitsim.graphs import strong_components
from circuitsim.kcl import active_laws, carried_sums
from circuitsim.laws import flat_room
from circuitsim.linear.lu import NO_PIVOT, OPEN
from circuitsim.residual import ROUNDING, Check
from circuitsim.units import bridges, on_loops_with

if TYPE_CHECKING:
    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_CLOSED = 1e-9  # of the voltages at a diode: a gap to its forward voltage that is none
_ROUNDING = float(np.finfo(np.float64).eps)  # of the largest voltage: a gap that is none
_MOST_DRIVEN = 500  # shifts and currents that are looked at together
_MOST_NUMBERS = 20_000_000  # these times the unknowns


def _states(solution: Solution, rows: slice) -> tuple[Floats, Bools]:
    """Gaps of the ideal diodes to their forward voltages, V, 0 where closed; and which conduct; (rows, n_ideal).

    Either the gap or the current is 0 within rounding: the one that is the smaller fraction of the largest voltage, or
    current, of the row, in its copy (stack.py). A current counts as 0 if it does not exceed the KCL violation that the
    certificate leaves, or is only rounding of others (_idle).
    """
    d, problem = solution.circuit.ideal_diodes, solution.problem
    copies = problem.copies
    gap, current = d.vf - solution.drops(d.a, d.b, rows), ideal_currents(solution, rows)
    current = np.where(current > copies.at_branches(_violation(solution, rows), len(d)), current, 0.0)
    v = solution.voltages(rows=rows)
    amps = np.maximum(*map(copies.largest_of_branches, (current, problem.given_currents(rows))))
    steepest = copies.largest(problem.values.diag[None])
    volts = copies.largest(v, np.arange(v.shape[1]))
    volts = np.maximum(volts, amps / np.where(steepest > 0, steepest, np.inf))
    amps, volts = (copies.at_branches(x, len(d)) for x in (amps, volts))
    with np.errstate(over="ignore", invalid="ignore"):
        carries = (current > 0) & (current * volts > gap * amps)
    gap = np.where(carries | (gap <= _rounding(solution, d, rows) + _CLOSED * d.vf), 0.0, gap)
    closed = gap == 0
    return gap, (current > 0) & closed & ~_idle(solution, closed, rows)


def _violation(solution: Solution, rows: slice) -> Floats:
    """The KCL violation that the certificate leaves, (1, 1), or in each copy (stack.py), (rows, copies), A."""
    problem = solution.problem
    if problem.circuit.copies == 1:
        return np.full((1, 1), solution.residuals.kcl_amps)
    check = Check(problem, *with_digits(solution, problem.drive(rows)), exact=True)
    return problem.copies.largest(check.rho)


def _idle(solution: Solution, closed: Bools, rows: slice) -> Bools:
    """Ideal diodes between islands that carry nothing, whatever rounding of currents within leaves; (rows, n_ideal).

    Where no source brings a current into a group of islands, what enters an island by one branch leaves it by another:
    a current flows in a directed cycle of diodes that are `closed` and of nonlinear branches between islands, or none.
    """
    c, islands = solution.circuit, solution.problem.topology.islands
    part, d, j = islands.part, c.ideal_diodes, c.junctions
    a, b = part[d.a], part[d.b]
    if (a == b).all():
        return np.zeros(closed.shape, bool)
    one, other = part[j.a], part[j.b]
    states, which = np.unique(closed, axis=0, return_inverse=True)
    idle = np.empty(states.shape, bool)
    for k, state in enumerate(states):
        tail, head = np.concatenate([a[state], one, other]), np.concatenate([b[state], other, one])
        label = strong_components(islands.n_parts, tail, head)
        idle[k] = label[a] != label[b]
    return idle[which.ravel()] & ~islands.fed(c, solution.problem.given_currents(rows))[:, np.maximum(a, b)]


def _rounding(solution: Solution, branches: Branches, rows: slice) -> Floats:
    """Voltages across branches that count as 0, (rows, n), V."""
    v, copies = np.abs(solution.voltages(rows=rows)), solution.problem.copies
    largest = copies.at_branches(copies.largest(v, np.arange(v.shape[1])), len(branches))
    return _CLOSED * (v[:, branches.a] + v[:, branches.b]) + _ROUNDING * largest


def part_room(solution: Solution) -> tuple[Floats, Floats]:
    """How far each part's potential may fall, and rise, (batch, n_parts) each, V; 0 where it is unique."""
    islands, c = solution.problem.topology.islands, solution.circuit
    fall, rise = (np.full((solution.batch, islands.n_parts), np.inf) for _ in range(2))
    fall[:, 0] = rise[:, 0] = 0.0
    still = _held_by_sources(solution)
    fall[:, still] = rise[:, still] = 0.0
    arcs, d, j = islands.arcs, c.ideal_diodes, c.junctions
    if not len(arcs):
        return fall, rise
    ideal, other = arcs.branch[arcs.ideal], arcs.others
    a = islands.part[np.concatenate([d.a[ideal], j.a[other]])]
    b = islands.part[np.concatenate([d.b[ideal], j.b[other]])]
    tail, head = np.concatenate([b, a]), np.concatenate([a, b])
    for rows in tiles(solution.batch, len(d) + len(j)):
        gap, conducts = (x[:, ideal] for x in _states(solution, rows))
        down, up = (np.where(x <= _rounding(solution, j, rows)[:, other], 0.0, x) for x in _flat(solution, other, rows))
        ideal_down = np.where(conducts, 0.0, np.inf)
        length = np.concatenate([gap, up, ideal_down, down], axis=1)
        relax_rows(tail, head, length, rise[rows])
        relax_rows(head, tail, length, fall[rows])
    return fall, rise


def _held_by_sources(solution: Solution) -> Bools:
    """Parts whose potential the equations of controlled sources fix, (n_parts,): resistor currents do not show it.

    Unknowns are shifts of the parts and changes of the currents of E, H and controlling sources; F and G follow. None
    may change what flows out of a unit, or violate a law: a part that is 0 in all such directions is fixed. Diodes may
    absorb any change: units where one ends, perfect or between parts, are skipped. In doubt a part is not fixed.
    """
    problem, s = solution.problem, solution.circuit.active
    t, part = problem.topology, problem.topology.islands.part
    held, given = np.zeros(t.islands.n_parts, bool), solution.circuit.active_voltages
    ends = np.concatenate([s.a, s.b, s.ca, s.cb])
    parts = np.setdiff1d(part[ends], 0)  # another part shifts as it likes
    m, n = parts.size, parts.size + given.size
    if not m or n > _MOST_DRIVEN or n * problem.n_free > _MOST_NUMBERS:
        return held
    x, carried = np.zeros((n, problem.n_free)), np.zeros((n, t.carrier_a.size))
    fixed = np.zeros((n, t.fixed_nodes.size))
    pins = np.flatnonzero(t.index_of_node[t.fixed_nodes] < 0)  # what is known on an island is so for want of ground
    for array, columns, of in ((x, np.arange(problem.n_free), t.root_of_unit), (fixed, pins, t.fixed_nodes[pins])):
        place = np.searchsorted(parts, part[of]).clip(max=m - 1)
        moves = parts[place] == part[of]
        array[place[moves], columns[moves]] = 1.0
    active = carried[:, t.links.size :]
    active[np.arange(m, n), given] = 1.0
    ties = solution.circuit.ties
    still = replace(problem, circuit=replace(solution.circuit, ties=replace(ties, e=np.zeros_like(ties.e[:1]))))
    drive = replace(problem.drive(slice(0, 1)), fixed=fixed, carried=carried, base=())
    miss = active_laws(still, drive, x)[0]
    active[:, s.gives_current] = -miss[:, s.gives_current]
    out = carried_sums(problem, carried)[0]
    out[:, _diode_units(solution)] = 0.0
    equations = np.concatenate([out[:, out.any(axis=0)], miss[:, given]], axis=1).T
    for axis in (1, 0):
        largest = np.abs(equations).max(axis=axis, keepdims=True, initial=0.0)
        equations = equations / np.where(largest > 0, largest, 1.0)
    if not np.isfinite(equations).all():
        return held
    _, singular, directions = np.linalg.svd(equations, full_matrices=equations.shape[0] < n)
    kept = int((singular > NO_PIVOT * singular.max(initial=0.0)).sum())
    held[parts] = (np.abs(directions[kept:, :m]) <= OPEN).all(axis=0)
    return held


def _diode_units(solution: Solution) -> Ints:
    """Free units where a perfect diode ends, or a nonlinear branch between parts."""
    c, t = solution.circuit, solution.problem.topology
    d, j, part = c.ideal_diodes, c.junctions, t.islands.part
    across = part[j.a] != part[j.b]
    units = t.index_of_node[np.concatenate([d.a, d.b, j.a[across], j.b[across]])]
    return units[units >= 0]


def _flat(solution: Solution, other: Ints, rows: slice) -> tuple[Floats, Floats]:
    """How far the voltages of these nonlinear branches may fall, and rise, without a change of current, V.

    A current within the rounding of its branch's voltage may be 0: the branch then counts as being at the end of the
    adjacent flat piece. Not so where a source pushes a current into its group of islands, as that may be all that flows
    there. Elsewhere, what enters an island by one branch leaves it by another, and one of the two limits each shift.
    """
    c = solution.circuit
    law, params, a, b = c.junctions.law[other], c.junctions.params[other], c.junctions.a[other], c.junctions.b[other]
    islands, i = solution.problem.topology.islands, c.current_sources.i
    fed = islands.fed(c, take_rows(i, rows))
    v = np.abs(solution.voltages(rows=rows))
    inner = np.maximum(islands.part[a], islands.part[b])  # 0: ground's part, no island
    noise = np.where(fed[:, inner], 0.0, ROUNDING * (v[:, a] + v[:, b]))
    drops = solution.drops(a, b, rows)
    rooms = [flat_room(law, params, drops + sign * noise) for sign in (-1.0, 0.0, 1.0)]
    fall, rise = (np.max(room, axis=0) for room in zip(*rooms, strict=True))
    return fall, rise


def open_currents(solution: Solution) -> tuple[Bools, Bools]:
    """Ties, and controlled sources, whose currents the equations of controlled sources leave open.

    F and G follow what controls them. For the others and the controlling sources, the method reported it
    (Solution.loose). By KCL a tie's current can change only in a loop of ties and of branches whose currents can.
    """
    c = solution.circuit
    s, ties = c.active, c.ties
    marks = np.zeros(len(s), bool)
    marks[c.active_voltages] = solution.loose[solution.problem.n_free :]
    follows = np.where(s.control >= 0, np.append(marks, False)[c.active_control], solution.open_between(s.ca, s.cb))
    marks |= s.gives_current & (s.gain != 0) & follows
    others: list[tuple[Branches, Bools]] = [(s, marks), (c.conductors, c.conductors.g > 0)]
    others += [(x, np.ones(len(x), bool)) for x in (c.junctions, c.ideal_diodes)]
    kept = np.setdiff1d(np.arange(len(ties)), c.probes)
    a, b = [ties.a[kept]], [ties.b[kept]]
    for k, (branches, chosen) in enumerate(others):
        chosen = chosen if k == 0 else chosen & solution.open_between(branches.a, branches.b)
        a.append(branches.a[chosen])
        b.append(branches.b[chosen])
    for x in c.crossbars:
        i, j = np.nonzero(x.g)
        chosen = solution.open_between(x.rows[i], x.cols[j])
        a.append(x.rows[i[chosen]])
        b.append(x.cols[j[chosen]])
    tail, head = np.concatenate(a), np.concatenate(b)
    across = np.flatnonzero(tail != head)
    in_loop = np.zeros(tail.size, bool)
    in_loop[across] = ~bridges(tail[across], head[across])
    of_ties = np.zeros(len(ties), bool)
    own, of_ties[c.probes] = np.split(marks, [len(c.controlled)])
    of_ties[kept] = in_loop[: kept.size]
    return of_ties, own


def ambiguous(solution: Solution) -> tuple[Bools, Bools, Bools]:
    """Ties, ideal diodes, and controlled sources, whose currents are not unique in some row of the batch.

    A current can change when it lies on a directed cycle of ties, E and H (either way), conducting ideal diodes (either
    way) and ideal diodes at their forward voltage (forward). In a strongly connected part that is every branch except
    bridges. Whether a current in such a cycle controls one of its sources is not examined. Cycles without a diode are
    treated elsewhere: those of ties in units.unique_ties, those of controlled sources in open_currents.
    """
    c = solution.circuit
    s, d = c.sources, c.ideal_diodes
    marks = np.zeros(len(s) + len(d), bool)
    nodes, local = np.unique(np.concatenate([s.a, d.a, s.b, d.b]), return_inverse=True)
    a, b = np.split(local, 2)
    for rows in tiles(solution.batch, marks.size):
        gap, conducts = _states(solution, rows)
        for state in np.unique(np.concatenate([gap == 0, conducts], axis=1), axis=0):
            closed, both = (np.concatenate([np.ones(len(s), bool), x]) for x in np.split(state, 2))
            tail, head = np.concatenate([a[closed], b[both]]), np.concatenate([b[closed], a[both]])
            label = strong_components(nodes.size, tail, head)
            within = np.flatnonzero(closed & (label[a] == label[b]))
            loops = within[a[within] == b[within]]
            within = within[a[within] != b[within]]
            marks[loops] = True
            ends, diodes = np.unique([a[within], b[within]]), within >= len(s)
            if within.size > ends.size - np.unique(label[ends]).size and diodes.any():  # else trees, without loops
                marks[within[on_loops_with(a[within], b[within], diodes)]] = True
    of_controlled = np.zeros(len(c.controlled), bool)
    ties, of_controlled[c.fixing_voltage], diodes = np.split(marks, [len(c.ties), len(s)])
    return ties, diodes, of_controlled
