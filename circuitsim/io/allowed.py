"""How far an answer of ngspice may be from ours although both are right: a bound for each voltage and current.

Both solve KCL at the nodes, and each misses it a little. A current d (A) that is missed at the nodes moves the voltages
by J^-1 d, with J the conductances of the circuit when every nonlinear branch is replaced by its tangent at our answer.
So with bounds on d the voltages are bounded by |J^-1| d. What d holds, at each end of a branch:

- RELTOL |i| + ABSTOL of each nonlinear branch: ngspice stops when no branch misses its tangent by more;
- GMIN |v| of each Shockley junction, unless the deck has a gmin of its own: ngspice cannot do without;
- |i| of each perfect diode that conducts, whose conductance in J is 1/Ron, Ron = 1e-6 ohm: ngspice's `sidiode` holds
  its voltage only to Ron |i|, and what hangs on it follows; the same of piecewise-linear diodes of a smaller RON;
- n eps sum of (g (|va| + |vb|) + |i|) over all branches at the node, with n the most branches at a node, eps = 2^-52
  and g the branch's conductance in J: the rounding of a sum of n terms g v, and of the pivots of an elimination; with
  g = 1/Ron also for perfect diodes that only touch their forward voltage, or may: they can conduct by rounding. Nodes
  that voltage sources join have the sum of theirs each, as elimination adds up their equations;
- our own violation, the largest of the certificate, times the absolute currents at the node.

Without controlled sources J is an M-matrix, J^-1 >= 0, and one solution of the network gives |J^-1| d; with them
|J^-1| is summed column by column. A node voltage may differ by that and by RELTOL |v| + VNTOL, at which ngspice stops.

The current of a source is what KCL leaves to it: bounded by the sum over all branches that meet it of g (dva + dvb),
with dv the bounds above, and of their own d; plus RELTOL |i| + ABSTOL. A perfect diode's current follows from KCL at
its free end in the same way. All is of first order in d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from circuitsim.circuit import Branches
from circuitsim.currents import ideal_currents
from circuitsim.io.flatten import MIN_RON
from circuitsim.io.ngspice import ABSTOL, GMIN, RELTOL, VNTOL
from circuitsim.laws import Law, branch_current
from circuitsim.methods.networks import Network, make_network
from circuitsim.solution import Solution
from circuitsim.units import tie_currents

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_COLUMNS = 256  # of |J^-1| at a time


@dataclass(frozen=True)
class Allowed:
    """By how much ngspice may differ from a solution."""

    voltages: Floats  # (nodes,) V
    ties: Floats  # (ties,) A, in the order of Circuit.ties
    controlled: Floats  # (controlled,) A, in the order of Circuit.controlled


def allowed_differences(solution: Solution) -> Allowed:
    """The bounds of the module's text for a solution of one row."""
    return _Bounds(solution).allowed()


class _Bounds:
    """The branches of a circuit at a solution: currents, tangents, and by how much each may be missed."""

    def __init__(self, solution: Solution) -> None:
        self.solution, self.problem = solution, solution.problem
        c = self.circuit = solution.circuit
        self.v = np.nan_to_num(solution.voltages()[0])
        j = c.junctions
        self.drops = solution.drops(j.a, j.b)[0]
        self.current, self.slope = branch_current(j.law, j.params, self.drops)
        capped = (j.law == Law.PWL) & (self.slope > 1.0 / MIN_RON)
        self.slope = np.where(capped, 1.0 / MIN_RON, self.slope)
        gmin = 0.0 if c.netlist.options.gmin else GMIN
        self.missed = RELTOL * np.abs(self.current) + ABSTOL + np.where(capped, np.abs(self.current), 0.0)
        self.missed += np.where(j.law == Law.SHOCKLEY, gmin * np.abs(self.drops), 0.0)
        self.ideal = np.abs(ideal_currents(solution, slice(0, 1))[0])
        d, size = c.ideal_diodes, np.abs(self.v)
        gap, free = d.vf - (self.v[d.a] - self.v[d.b]), ~solution.determined
        self.touching = (self.ideal > 0) | (gap <= RELTOL * (size[d.a] + size[d.b])) | free[d.a] | free[d.b]
        self.active = solution.carried[0, self.problem.topology.links.size :]
        self.eps = _EPS * self.problem.most_terms

    def allowed(self) -> Allowed:
        c, t = self.circuit, self.problem.topology
        network = make_network(self.problem)
        moved = _moved(network, self._leg_slopes(), np.abs(self._disturbance(network)))
        of_unit = np.append(moved[: self.problem.n_free], 0.0)  # the last: known
        of_active = self._active(moved[self.problem.n_free :], of_unit)
        out = self._out_of_nodes(of_unit, of_active)
        ties = np.abs(tie_currents(c, t.forest, out[None, t.forest.nodes])[0])
        ties[c.probes] = of_active[len(c.controlled) :]
        tie_now, active_now = np.abs(self.solution.tie_currents[0][0]), np.abs(self.active[: len(c.controlled)])
        return Allowed(
            of_unit[t.index_of_node] + RELTOL * np.abs(self.v) + VNTOL,
            ties + RELTOL * tie_now + ABSTOL,
            of_active[: len(c.controlled)] + RELTOL * active_now + ABSTOL,
        )

    def _leg_ideal(self) -> Floats:
        """The current of the ideal diodes of each leg but the junctions: links, lower, upper bounds."""
        t, legs = self.problem.topology, self.problem.topology.legs
        at_bound = []
        for diodes, units, wanted in (
            (t.lower_diodes, t.lower_units, legs.lower), (t.upper_diodes, t.upper_units, legs.upper),
        ):  # fmt: skip
            total = np.bincount(units, self.ideal[diodes], self.problem.n_free)
            at_bound.append(total[wanted])
        return np.concatenate([self.ideal[t.links], *at_bound])

    def _leg_slopes(self) -> Floats:
        """The conductance of each leg in J."""
        j = self.problem.topology.junctions
        return np.concatenate([self.slope[j], np.where(self._leg_ideal() > 0, 1.0 / MIN_RON, 0.0)])

    def _disturbance(self, network: Network) -> Floats:
        """d of the module's text, for each unknown of the network."""
        c, t, n = self.circuit, self.problem.topology, self.problem.n_free
        ideal, legs = self._leg_ideal(), t.legs
        of_leg = np.concatenate([self.missed[t.junctions], (1.0 + RELTOL) * ideal + np.where(ideal > 0, ABSTOL, 0.0)])
        d = np.zeros(network.size + 1)  # the last: known
        for ends in (legs.a, legs.k):
            np.add.at(d, np.where(ends >= 0, ends, network.size), of_leg)
        rounding, carried = self._sums()
        ours = self.solution.residuals.kcl_relative
        np.add.at(d, np.where(t.index_of_node >= 0, t.index_of_node, network.size), rounding + ours * carried)
        s, v = c.active, np.abs(self.v)
        controls = np.where(s.control >= 0, np.abs(self.active).max(initial=0.0), v[s.ca] + v[s.cb])
        terms = v[s.a] + v[s.b] + np.abs(s.gain) * controls
        d[n : network.size] = (self.eps + ours) * terms[c.active_voltages]
        return d[:-1]

    def _sums(self) -> tuple[Floats, Floats]:
        """At each node: the rounding of the sum of g v over all branches, and the sum of their absolute currents, A."""
        c, v = self.circuit, np.abs(self.v)
        rounding, carried = np.zeros(len(c.nodes)), np.zeros(len(c.nodes))
        g, j, d = c.conductors, c.junctions, c.ideal_diodes
        sources = np.abs(self.problem.source_currents(slice(0, 1))[0])
        groups: tuple[tuple[Branches, Floats | float, Floats], ...] = (
            (g, g.g, g.g * np.abs(self.v[g.a] - self.v[g.b])),
            (j, self.slope, np.abs(self.current)),
            (d, np.where(self.touching, 1.0 / MIN_RON, 0.0), self.ideal),
            (c.active, 0.0, np.abs(self.active)),
            (c.current_sources, 0.0, sources),
        )
        for branches, slope, amperes in groups:
            terms = self.eps * (slope * (v[branches.a] + v[branches.b]) + amperes)
            for ends in (branches.a, branches.b):
                np.add.at(rounding, ends, terms)
                np.add.at(carried, ends, amperes)
        for x in c.crossbars:
            amperes = x.g * np.abs(self.v[x.rows][:, None] - self.v[x.cols])
            np.add.at(carried, x.rows, amperes.sum(axis=1))
            np.add.at(carried, x.cols, amperes.sum(axis=0))
            np.add.at(rounding, x.rows, self.eps * (x.g.sum(axis=1) * v[x.rows] + x.g @ v[x.cols]))
            np.add.at(rounding, x.cols, self.eps * (x.g.sum(axis=0) * v[x.cols] + v[x.rows] @ x.g))
        return self._mixed(rounding), carried

    def _mixed(self, rounding: Floats) -> Floats:
        """The sum over all nodes that voltage sources join, at each of them."""
        c, n = self.circuit, len(self.circuit.nodes)
        s = c.active_voltages
        a, b = np.concatenate([c.ties.a, c.active.a[s]]), np.concatenate([c.ties.b, c.active.b[s]])
        inner = (a > 0) & (b > 0)
        graph = sparse.coo_array((np.ones(inner.sum()), (a[inner], b[inner])), shape=(n, n))
        label = csgraph.connected_components(graph, directed=False)[1]
        total: Floats = np.bincount(label, rounding)[label]
        return total

    def _active(self, extra: Floats, of_unit: Floats) -> Floats:
        """Bounds of the currents of Circuit.active."""
        c, t = self.circuit, self.problem.topology
        s = c.active
        bounds = np.zeros(len(s))
        bounds[c.active_voltages] = extra
        place = np.searchsorted(c.probes, s.control.clip(min=0)) + len(c.controlled)
        by_current = np.abs(s.gain) * np.append(bounds, 0.0)[np.minimum(place, len(s))]
        by_voltage = np.abs(s.gain) * _between(t.index_of_node, of_unit, s.ca, s.cb)
        return np.where(s.gives_current, np.where(s.control >= 0, by_current, by_voltage), bounds)

    def _out_of_nodes(self, of_unit: Floats, of_active: Floats) -> Floats:
        """By how much the current that all branches but ties carry out of each node may differ, (nodes,), A."""
        c, t = self.circuit, self.problem.topology
        unit = t.index_of_node
        out, _ = self._sums()

        def add(a: Ints, b: Ints, amperes: Floats) -> None:
            np.add.at(out, a, amperes)
            np.add.at(out, b, amperes)

        g, j, s = c.conductors, c.junctions, c.active
        add(g.a, g.b, g.g * _between(unit, of_unit, g.a, g.b))
        for x in c.crossbars:
            row, col = of_unit[unit[x.rows]], of_unit[unit[x.cols]]
            np.add.at(out, x.rows, x.g.sum(axis=1) * row + x.g @ col)
            np.add.at(out, x.cols, x.g.sum(axis=0) * col + row @ x.g)
        add(j.a, j.b, self.slope * _between(unit, of_unit, j.a, j.b) + self.missed)
        add(s.a, s.b, of_active)
        add(c.ideal_diodes.a, c.ideal_diodes.b, self._ideal_bounds(out))
        return out

    def _ideal_bounds(self, out: Floats) -> Floats:
        """The same of the current of each ideal diode: what may differ at all units that conducting ones join."""
        c, t = self.circuit, self.problem.topology
        d, n = c.ideal_diodes, self.problem.n_free
        if not len(d):
            return np.zeros(0)
        unit = np.where(t.index_of_node >= 0, t.index_of_node, n)
        of_unit = np.bincount(unit, out, n + 1)
        conducting = t.links[self.ideal[t.links] > 0]
        ends = unit[d.a[conducting]], unit[d.b[conducting]]
        graph = sparse.coo_array((np.ones(conducting.size), ends), shape=(n + 1, n + 1))
        label = csgraph.connected_components(graph, directed=False)[1]
        total = np.bincount(label, of_unit)
        free = np.where(unit[d.a] < n, unit[d.a], unit[d.b])
        return np.where((self.ideal > 0) & (free < n), total[label[free]], 0.0)


def _between(unit: Ints, of_unit: Floats, a: Ints, b: Ints) -> Floats:
    """By how much the voltage from nodes a to nodes b may differ: nodes of one unit move together."""
    return np.where(unit[a] == unit[b], 0.0, of_unit[unit[a]] + of_unit[unit[b]])


def _moved(network: Network, slopes: Floats, d: Floats) -> Floats:
    """|J^-1| d."""
    solved = network.factor(slopes)
    if network.problem.circuit.reciprocal:
        return np.abs(solved.solve(d[None])[0])
    moved = np.zeros(network.size)
    for first in range(0, network.size, _COLUMNS):
        some = np.arange(first, min(first + _COLUMNS, network.size))
        columns = np.zeros((some.size, network.size))
        columns[np.arange(some.size), some] = d[some]
        moved += np.abs(solved.solve(columns)).sum(axis=0)
    return moved
