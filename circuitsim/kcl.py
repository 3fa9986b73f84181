"""The equations at given voltages: what flows out of every free unit, and how far a law is violated.

For a free unit u let F[u] be the sum of its branch currents, ideal diodes left out (A, positive: more flows out than
in). KCL requires the ideal diodes at u to supply F[u]; the one to `lo` can do so only when F >= 0 and x = lo, the one
to `hi` only when F <= 0 and x = hi. What remains is the violation

    rho = s (x - clip(x - F / s, lo, hi)),   s = dF/dx:

F itself inside the bounds, 0 at a bound whose diode may carry F, and s times the distance to the bound where a diode
would conduct but its gap is not closed (the KKT natural residual, in amperes).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.branch_sums import crossbar_sums, end_sums, flat_sums, ufunc_at
from circuitsim.branches import take_rows
from circuitsim.drive import Drive
from circuitsim.laws import branch_current
from circuitsim.problem import Problem

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def outflow(problem: Problem, drive: Drive, x: Floats) -> tuple[Floats, Floats]:
    """F (A) and s = dF/dx (S) of every free unit, (rows, n_free), by matrix products."""
    nonlinear, slope, _ = junction_sums(problem, drive.junction_offset, x)
    linked, _ = carried_sums(problem, drive.carried)
    flow = problem.values.diag * x - drive.injection - from_neighbours(problem, x) + nonlinear + linked
    return flow, np.broadcast_to(problem.values.diag + slope, x.shape)


def from_neighbours(problem: Problem, x: Floats) -> Floats:
    """sum_j W[u, j] x[j], (rows, n_free)."""
    sparse = problem.values.couplings
    out = np.ascontiguousarray((sparse @ x.T).T) if sparse.nnz else np.zeros(x.shape)
    for spec, g in problem.inner_blocks:
        out[:, spec.col.units] += x[:, spec.row.units] @ g
        out[:, spec.row.units] += x[:, spec.col.units] @ g.T
    return out


def junction_sums(problem: Problem, offset: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Net and absolute currents, and slopes, of the nonlinear branches at each unit."""
    t = problem.topology
    if not t.junctions.size:
        zero = np.zeros((1, t.n_free))
        return zero, zero, zero
    voltage = across_junctions(problem, x) + offset
    j = problem.circuit.junctions
    current, slope = branch_current(j.law[t.junctions], j.params[t.junctions], voltage)
    net, total, slopes = (np.zeros((t.n_free + 1, x.shape[0])) for _ in range(3))
    for unit, sign in ((t.junction_a, 1.0), (t.junction_k, -1.0)):
        ufunc_at(np.add, net, unit, sign * current.T)
        ufunc_at(np.add, total, unit, np.abs(current).T)
        ufunc_at(np.add, slopes, unit, slope.T)
    return net[:-1].T, slopes[:-1].T, total[:-1].T


def junction_volts(problem: Problem, drive: Drive, x: Floats, rows: Ints) -> Floats:
    """Voltages across the nonlinear branches in some rows, with all their digits, (len(rows), n_junctions), V."""
    t, j = problem.topology, problem.circuit.junctions
    if not t.junctions.size:
        return np.zeros((rows.size, 0))
    parts = [part[rows] for part in (*drive.base, x)]
    return problem.drops(parts, take_rows(drive.fixed, rows), j.a[t.junctions], j.b[t.junctions])


def across_junctions(problem: Problem, x: Floats) -> Floats:
    """The unknown part of the voltages across the nonlinear branches, (rows, n_junctions), V."""
    t = problem.topology
    padded = np.concatenate([x, np.zeros((x.shape[0], 1))], axis=1)  # index -1: known, its potential is in the offset
    return padded[:, t.junction_a] - padded[:, t.junction_k]


def carried_sums(problem: Problem, current: Floats) -> tuple[Floats, Floats]:
    """Net (out of the unit) and absolute currents of the carriers at each free unit, (rows or 1, n_free), A."""
    t = problem.topology
    current = np.where(t.carrier_a == t.carrier_k, 0.0, current)  # within a unit: nothing, not even rounding
    net, total = (np.zeros((t.n_free + 1, current.shape[0])) for _ in range(2))  # the last: known ends
    with np.errstate(over="ignore"):
        for unit, sign in ((t.carrier_a, 1.0), (t.carrier_k, -1.0)):
            ufunc_at(np.add, net, unit, sign * current.T)
            ufunc_at(np.add, total, unit, np.abs(current).T)
    return net[:-1].T, total[:-1].T


def active_laws(problem: Problem, drive: Drive, x: Floats) -> tuple[Floats, Floats, Floats]:
    """The error in the law of each branch of Circuit.active, and two sizes of the law's terms, (rows, n_active).

    V for E, H and the sources that control; A for F and G. Branch voltages from the parts of the unknowns, differences
    first. The first size has the node voltages in it, the second only their differences: what rounds.
    """
    c = problem.circuit
    s, parts = c.active, (*drive.base, x)

    def drop(a: Ints, b: Ints) -> tuple[Floats, Floats]:
        first = (problem.node_voltages(parts[0], drive.fixed, ends) for ends in (a, b))
        size = np.where(a == b, 0.0, np.asarray(sum(np.abs(v) for v in first)))  # of nothing, between one node
        return problem.drops(parts, drive.fixed, a, b), size

    carried = np.broadcast_to(drive.carried[:, problem.topology.links.size :], (x.shape[0], len(s)))
    own, own_size = drop(s.a, s.b)
    voltage, voltage_size = drop(s.ca, s.cb)
    n = len(c.controlled)
    current = np.append(carried, np.zeros((len(carried), 1)), axis=1)[:, c.active_control]  # -1: of none
    e = np.zeros((x.shape[0], len(s)))
    e[:, n:] = take_rows(c.ties.e, drive.rows)[:, c.probes]
    by_control = s.gain * np.where(s.control >= 0, current, voltage)
    size = np.abs(s.gain) * np.where(s.control >= 0, np.abs(current), voltage_size) + np.abs(e)
    gives_current = s.gives_current
    have, have_size = np.where(gives_current, carried, own), np.where(gives_current, np.abs(carried), own_size)
    return have - (by_control + e), have_size + size, np.abs(have) + np.abs(by_control) + np.abs(e)


def violation(flow: Floats, slope: Floats, x: Floats, lo: Floats, hi: Floats) -> Floats:
    """rho of the module's equation; where s = 0 only the sign of F counts. Without any bounds F itself."""
    if (lo == -np.inf).all() and (hi == np.inf).all():
        return flow
    with np.errstate(divide="ignore", invalid="ignore"):
        target = x - flow / slope
    low = ~(target > lo)  # also where s = 0: target is infinite
    high = ~low & ~(target < hi)
    with np.errstate(invalid="ignore"):  # inf - inf where there is no bound: not chosen
        rho = np.where(low & (lo > -np.inf), slope * (x - lo), np.where(high & (hi < np.inf), slope * (x - hi), flow))
    return np.where((slope == 0) & ((flow > 0) & (x > lo) | (flow < 0) & (x < hi)), flow, rho)


def exact_sums(problem: Problem, drive: Drive, x: Floats, rows: Ints) -> tuple[Floats, Floats]:
    """F and the sum of absolute branch currents (A) of some rows, (len(rows), n_free), from each branch's own voltage.

    Branch by branch, as the circuit has them: nothing of the couplings that a solver uses enters here.
    """
    t, c, flat, j = problem.topology, problem.circuit, problem.topology.flat_ends, problem.circuit.junctions
    nodes = np.arange(len(c.nodes))
    fixed = take_rows(drive.fixed, rows)
    parts = [part[rows] for part in (*drive.base, x)]
    # Where an unknown has an offset their sum would lose digits: known potentials are then a part of their own.
    first, *others = parts if problem.untied else [np.zeros_like(parts[0]), *parts]
    v = np.stack([problem.node_voltages(first, fixed, nodes), *(problem.unknowns(part, nodes) for part in others)])
    voltage = junction_volts(problem, drive, x, rows)
    nonlinear, _ = branch_current(j.law[t.junctions], j.params[t.junctions], voltage)
    sources = t.index_of_node[c.current_sources.a], t.index_of_node[c.current_sources.b]
    groups = [
        (nonlinear, t.junction_a, t.junction_k),
        (take_rows(drive.carried, rows), t.carrier_a, t.carrier_k),
        (take_rows(problem.given_currents(drive.rows), rows), *sources),
    ]
    flow, low, total = (np.zeros((rows.size, t.n_free)) for _ in range(3))
    g = t.flat_conductances(c)
    for amps, a, b in groups:
        within = a == b  # both ends at one unit: nothing, not even rounding
        for unit, sign in ((a, 1.0), (b, -1.0)):
            end_sums(np.where(within, -1, unit), sign, amps, flow, low, total)
    flat_sums(flat.ptr, flat.branch, flat.sign, t.flat_a, t.flat_b, g, v, flow, low, total)
    for n, crossbar in enumerate(c.crossbars):
        if n in t.expanded:
            continue
        units = t.index_of_node
        overlap = np.intersect1d(units[crossbar.rows], units[crossbar.cols]).max(initial=-1) >= 0
        ends = crossbar.rows, crossbar.cols, crossbar.g, units, overlap
        if problem.untied:
            crossbar_sums(*ends, v[0], v[1:].sum(axis=0), flow, total)
            continue
        # Apart, for the digits of each; absolute currents only as one.
        known, unknown, rest, none = v[0], v[1], v[2:].sum(axis=0), np.zeros_like(flow)
        crossbar_sums(*ends, known, np.zeros_like(known), flow, none)
        crossbar_sums(*ends, unknown, rest, flow, none)
        crossbar_sums(*ends, known + unknown, rest, none, total)
    flow += low
    return flow, total


def shift(problem: Problem, drive: Drive, x: Floats, *parts: Floats) -> Drive:
    """The same problem for a correction d to x: unknowns are then x + d, with twice the digits.

    Rounding of x itself then no longer limits KCL: branch voltages are (x_a - x_b) + (d_a - d_b), and the linear branch
    currents at x, summed branch by branch, become injections. With further `parts`, d corrects x + sum(parts).
    """
    if parts:
        return shift(problem, shift(problem, drive, x), *parts)
    t = problem.topology
    flow, _ = exact_sums(problem, drive, x, np.arange(x.shape[0]))
    linked, _ = carried_sums(problem, drive.carried)
    base, j, d = (*drive.base, x), problem.circuit.junctions, problem.circuit.ideal_diodes
    offset = problem.drops(base, drive.fixed, j.a[t.junctions], j.b[t.junctions])
    nonlinear, _, _ = junction_sums(problem, offset, np.zeros_like(x))
    return replace(
        drive,
        base=base,
        partial=False,
        injection=nonlinear + linked - flow,
        lo=drive.lo - x,
        hi=drive.hi - x,
        junction_offset=offset,
        link_offset=problem.drops(base, drive.fixed, d.a[t.links], d.b[t.links], d.vf[t.links]),
    )
