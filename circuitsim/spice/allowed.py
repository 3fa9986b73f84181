"""How far an answer of ngspice may be from ours although both are right: a bound for each voltage and current.

Both solve KCL at the nodes, each with a small error. An error current d (A) at the nodes moves the voltages by J^-1 d,
with J the conductances of the circuit when every nonlinear branch is replaced by its tangent at our answer. So with
bounds on d the voltages are bounded by |J^-1| d. The contributions to d, at each end of a branch:

- RELTOL |i| + ABSTOL of each nonlinear branch: ngspice stops when no branch misses its tangent by more;
- GMIN |v| of each Shockley junction, unless the deck sets gmin: ngspice cannot do without one;
- the current of ISR in reverse, which ngspice drops below -3 N Vt;
- n eps sum of (g (|va| + |vb|) + |i|) over all branches at the node, with n the most branches at a node, eps = 2^-52
  and g the branch's conductance in J: the rounding of a sum of n terms g v, and of the pivots of an elimination; with
  g = 1/Ron also for perfect diodes that only touch their forward voltage, or may, as they would carry no more than
  this rounding if they were closed: they can conduct by rounding; and with 1/RS at the anode of a diode that has one,
  as ngspice puts a node between the two. Nodes that voltage sources join have the sum of theirs each, as elimination
  adds up their equations, with the largest of their voltages; nodes whose voltage is not unique have that of all, and
  of those that ngspice gives such nodes: it leaves islands where its steps end;
- with controlled sources, the same with the sizes of what adds up to the voltages in place of these, as below;
- our own violation, the largest of the certificate, times the absolute currents at the node;
- where a branch leads to nodes whose voltage is not unique, as nothing flows there, all that these miss.

A perfect diode that conducts i has the conductance 1/Ron in J, Ron = 1e-6 ohm: ngspice's `sidiode` holds its voltage
only to within Ron i, and what depends on it follows. This shift is known: J^-1 f, with f the currents i of all these
diodes from cathode to anode, each with its sign; |J^-1 f| is added. Of piecewise-linear diodes of a smaller RON the
same, with what such a RON falls short of i.

Without controlled sources J is an M-matrix, J^-1 >= 0, and one solution of the network gives |J^-1| d; with them
|J^-1| is summed column by column. A node voltage may differ by that and by RELTOL |v| + VNTOL, at which ngspice stops.
Rows of amperes and of volts share ngspice's matrix: with a least pivot of PIVREL the rounding at the nodes that a
voltage source joins may, over PIVREL x 1 S, become an error of its voltage, which all others may follow; and that of
the voltages of a source whose current controls others, over PIVREL x 1 ohm, one of this current.

The law v = gain (va - vb) of an operational amplifier (E) can serve to eliminate v: its pivot 1 is the largest entry of
that column. This puts gain (va - vb) into the KCL of every node that v reaches, times g, and leaves the rounding
eps g gain (|va| + |vb|) there, however small v is: ngspice then finds v last, from va and vb as float64. The same is
true of G, with the conductance at its end as the pivot. So voltages have sizes: |K^-1| s, with s what adds up to each
law of E and G, |gain| (|va| + |vb|). K is J with the gains 0 by which no size spreads: a node that controls a law is
eliminated before it only by a pivot of at least PIVREL |gain|, a conductance there or the 1 of a voltage source. In the
laws whose gains K has, the sizes of the controlling voltages count too.

All this is of first order in d. The amount by which a nonlinear branch departs from its tangent within the bounds of
its voltage is a further disturbance, added to d until the bounds include it; if they never do, they stay first-order.

No tangent bounds what goes across a kink of a diode, or of a table's segment. So the branches c whose kinks lie within
the bounds of their voltages count as open in J. The change in their currents is then a further disturbance, and
corresponds to an unknown conductance s_c >= 0:

    (1/s + K) x = w,  |w_c| <= |u_c' J^-1 f| + |u_c|' |J^-1| d + Ron |i_c|,  K = u' J^-1 u

with u the ends of these branches, 1 at a and -1 at k, and x what they carry more than i (f is then of all others).
Where the matrix M, K with all but its diagonal made negative, is an M-matrix, so it is with 1/s added, and
|x| <= M^-1 |w| (A. M. Ostrowski 1937): |J^-1 u| |x| is added to the bounds of the unknowns. Without controlled sources
the sum of |w| is enough, as no branch of a network of resistors carries more than a current that is put into it.
Branches between the same nodes are one here, of which x is the sum: each may carry that, and what all others of them
do, at most g dv with g the largest of the branch's slopes. If more branches have kinks within the new bounds, all this
is repeated.

The current of a source is what KCL leaves to it: bounded by the sum over all branches that meet it of g (dva + dvb),
with dv the bounds above, of x at kinks, and of their own d; plus RELTOL |i| + ABSTOL. A perfect diode's current follows
from KCL at its free end in the same way.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import Branches
from circuitsim.currents import ideal_currents
from circuitsim.errors import TopologyError
from circuitsim.graphs import components
from circuitsim.law_kernels import G_FORWARD, G_REVERSE, HI, ISR, LO, RS, V_FORWARD, V_REVERSE, G, Law
from circuitsim.laws import branch_current, generation
from circuitsim.linear import Solved
from circuitsim.methods.mna import make_network
from circuitsim.methods.network import Network
from circuitsim.solution import Solution
from circuitsim.spice.flatten import MIN_RON
from circuitsim.spice.ngspice import ABSTOL, GMIN, PIVREL, RELTOL, VNTOL
from circuitsim.units import tie_currents

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)
_COLUMNS = 256  # of |J^-1| at a time
_WIDER = 1.01  # times what branches leave their tangents by: room for what that room itself makes
_MOST_WIDENED = 5  # times that bounds are made wider for it
_MOST_KINKS = 1000  # that are looked at one by one
_NEAR_KNEE = 1e-3  # of the largest voltage: gaps beyond are no rounding


@dataclass(frozen=True)
class Allowed:
    """By how much ngspice may differ from a solution."""

    voltages: Floats  # (nodes,) V
    currents: Floats  # (sources,) A, in the order of Circuit.sources
    voltage_terms: Floats  # V: how large what adds up to each voltage is
    current_terms: Floats  # A, the same of currents


def allowed_differences(solution: Solution, kcl_relative: float | None = None, theirs: Floats | None = None) -> Allowed:
    """The bounds of the module's text for a solution of one row.

    kcl_relative   the KCL violation of the answer that is compared, if that is another answer to the same circuit
    theirs         (nodes,) V, ngspice's voltages
    """
    kcl = solution.residuals.kcl_relative if kcl_relative is None else kcl_relative
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what overflows has no bound
        found = _Bounds(solution, kcl, theirs).allowed()
    bounds = {name: getattr(found, name) for name in ("voltages", "currents")}
    return replace(found, **{name: np.where(np.isnan(x), np.inf, x) for name, x in bounds.items()})


class _Bounds:
    """The branches of a circuit at a solution: currents, tangents, and by how much each may be missed."""

    def __init__(self, solution: Solution, kcl_relative: float, theirs: Floats | None) -> None:
        self.solution, self.problem, self.kcl_relative = solution, solution.problem, kcl_relative
        c = self.circuit = solution.circuit
        self.v = np.nan_to_num(solution.voltages()[0])
        j = c.junctions
        self.drops = solution.drops(j.a, j.b)[0]
        dropped = generation(j.law, j.params, self.drops)
        self.params = j.params.copy()  # as ngspice has them at our answer
        self.params[dropped != 0, ISR] = 0.0
        self.current, self.slope = branch_current(j.law, self.params, self.drops)
        capped = (j.law == Law.PWL) & (self.slope > 1.0 / MIN_RON)
        self.capped = np.where(capped, self.current * (1.0 - 1.0 / (MIN_RON * np.where(capped, self.slope, 1.0))), 0.0)
        self.slope = np.where(capped, 1.0 / MIN_RON, self.slope)
        gmin = 0.0 if c.netlist.options.gmin else GMIN
        self.missed = RELTOL * np.abs(self.current) + ABSTOL
        self.missed += np.where(j.law == Law.SHOCKLEY, gmin * np.abs(self.drops), 0.0)
        self.missed += np.abs(dropped)
        self.ideal_amps = np.abs(ideal_currents(solution, slice(0, 1))[0])
        d, size = c.ideal_diodes, np.abs(self.v)
        gap, free = d.vf - (self.v[d.a] - self.v[d.b]), ~solution.determined
        self.touching = (self.ideal_amps > 0) | (gap <= RELTOL * (size[d.a] + size[d.b])) | free[d.a] | free[d.b]
        self.active_amps = solution.carried[0, self.problem.topology.links.size :]
        self.eps = _EPS * self.problem.most_terms
        self.group = self._joined()
        loose = size.max(initial=0.0)
        if theirs is not None:
            loose = max(loose, np.abs(np.nan_to_num(theirs[free])).max(initial=0.0))
        self.group_volts = self._largest(np.where(free, loose, size))
        s = c.active
        self.law_terms = np.where(s.control < 0, np.abs(s.gain) * (size[s.ca] + size[s.cb]), 0.0)
        if not c.reciprocal:
            self._enlarge()

    def _enlarge(self) -> None:
        """Count the voltages, and the terms of the laws of E and G, as large as the sizes of the module's text."""
        c, t, n = self.circuit, self.problem.topology, self.problem.n_free
        s = c.active
        passes = self._passes()
        gain = np.where(passes[: len(c.controlled)], c.controlled.gain, 0.0)
        cut = replace(c, controlled=replace(c.controlled, gain=gain))
        network = make_network(replace(self.problem, circuit=cut))
        try:
            solved = network.factor(self._leg_slopes())
        except TopologyError:  # singular, and too large to say where
            return
        terms = np.zeros(network.size + 1)  # the last: known
        for ends in (s.a, s.b):
            unit = np.where(t.index_of_node[ends] >= 0, t.index_of_node[ends], network.size)
            np.add.at(terms, unit, np.where(s.gives_current, self.law_terms, 0.0))
        terms[n : network.size] = self.law_terms[c.active_voltages]
        sizes = np.where(solved.loose, 0.0, np.nan_to_num(_spread(network, solved, terms[:-1]), posinf=0.0))
        of_node = np.append(sizes[:n], 0.0)[t.index_of_node]
        self.group_volts = self._largest(np.maximum(self.group_volts, of_node))
        controls = np.where(passes & (s.control < 0), self.group_volts[s.ca] + self.group_volts[s.cb], 0.0)
        self.law_terms = np.maximum(self.law_terms, np.abs(s.gain) * controls)

    def _passes(self) -> Bools:
        """The branches of Circuit.active whose gain spreads sizes: where something else may be the pivot, or it is."""
        c, s = self.circuit, self.circuit.active
        _, pivot, _ = self._sums(self.group_volts)
        for ends in (c.ties.a, c.ties.b, s.a[c.active_voltages], s.b[c.active_voltages]):
            pivot[ends] = np.maximum(pivot[ends], 1.0)
        pivot[0] = 0.0
        passes: Bools = (s.control >= 0) | (np.abs(s.gain) * PIVREL <= np.maximum(pivot[s.ca], pivot[s.cb]))
        for control in (s.ca, s.cb):
            passes |= (control > 0) & ((control == s.a) | (control == s.b))
        return passes

    def _largest(self, size: Floats) -> Floats:
        """For each node the largest of its group."""
        largest = np.zeros(size.size)
        np.maximum.at(largest, self.group, size)
        found: Floats = largest[self.group]
        return found

    def allowed(self) -> Allowed:
        c, t = self.circuit, self.problem.topology
        moved, of_leg = self._moved(make_network(self.problem))
        of_unit = np.append(moved[: self.problem.n_free], 0.0)  # the last: known
        of_active = self._active(moved[self.problem.n_free :], of_unit)
        out = self._out_of_nodes(of_unit, of_active, of_leg)
        ties = np.abs(tie_currents(c, t.forest, out[None, t.forest.nodes])[0])
        volts = self.group_volts[c.ties.a[c.probes]] + self.group_volts[c.ties.b[c.probes]]
        ties[c.probes] = of_active[len(c.controlled) :] + self.eps / PIVREL * volts
        many = np.bincount(self.group)[self.group] > 1
        by_pivot = float(np.where(many, self._rounding[0] / PIVREL, 0.0).sum())
        now = np.abs(self.solution.source_currents[0][0])
        terms, amperes = self._terms()
        return Allowed(
            of_unit[t.index_of_node] + by_pivot + RELTOL * np.abs(self.v) + VNTOL,
            np.append(ties, of_active[c.fixing_voltage]) + RELTOL * now + ABSTOL,
            terms,
            np.maximum(now, np.minimum(amperes[c.sources.a], amperes[c.sources.b])),
        )

    def _moved(self, network: Network) -> tuple[Floats, Floats]:
        """By how much each unknown of the network may differ; and of each leg at a kink the current, A, else NaN."""
        slopes, currents, (fall, rise) = self._leg_slopes(), self._leg_currents(), self._room(network)
        solved = network.factor(slopes)
        adrift = _adrift(solved)
        self.touching |= self._may_touch(network, solved, rise)
        at_kink, curved, found = np.zeros(slopes.size, bool), np.zeros(slopes.size), list[tuple[Floats, Floats]]()
        while True:
            solved, carried = network.factor(np.where(at_kink, 0.0, slopes)), np.full(slopes.size, np.nan)
            shift: Floats = solved.solve(-network.into(np.where(at_kink, 0.0, currents))[None])[0]
            spread = _spread(network, solved, self._disturbance(network, at_kink, curved))
            kinks, shifted = np.flatnonzero(at_kink), network.across(shift)
            if kinks.size:
                w = np.abs(shifted) + _of_legs(network, spread) + MIN_RON * np.abs(currents)
                extra, together, group = _across_kinks(network, solved, kinks, w[kinks])
                spread += extra
                spread[_adrift(solved) & ~adrift] = np.inf  # nothing but kinks holds these
                slope, change = self._steepest(network)[kinks], np.abs(shifted) + _of_legs(network, spread)
                most = np.where(slope > 0, slope * change[kinks], 0.0)
                carried[kinks] = together + _of_others(group, most)
            within = _of_legs(network, spread)
            further = ((shifted - within <= -fall) | (shifted + within >= rise)) & ~at_kink
            leaves = self._leaves_tangent(network, shifted, within)
            if further.any():
                at_kink |= further
                continue
            found.append((np.abs(shift) + spread, carried))
            if (leaves <= curved).all() and np.isfinite(curved).all():
                return found[-1]
            if len(found) > _MOST_WIDENED:
                return found[0]
            curved = _WIDER * leaves

    def _room(self, network: Network) -> tuple[Floats, Floats]:
        """How far the voltage of each leg may fall, and rise, before its slope jumps, (legs,) each, V.

        NaN where it never does; and where a node's voltage is not unique, as nothing flows there.
        """
        t, x = self.problem.topology, self.solution.x[0]
        law, p, drop = network.law, network.params.T, self.drops[t.junctions]
        pwl, segment = law == Law.PWL, law == Law.SEGMENT
        knees = np.array([
            np.where(segment, p[LO], np.where(pwl & (p[G_FORWARD] > 0), p[V_FORWARD], np.nan)),
            np.where(segment, p[HI], np.where(pwl & (p[G_REVERSE] > 0), -p[V_REVERSE], np.nan)),
        ])  # fmt: skip
        above = np.where(knees >= drop, knees - drop, np.inf).min(axis=0)
        below = np.where(knees <= drop, drop - knees, np.inf).min(axis=0)
        gap = -(network.across(x) + network.offset(self.problem.drive(slice(0, 1))))[t.junctions.size :]
        conducts = self._leg_ideal() > 0
        fall = np.concatenate([below, np.where(conducts, 0.0, np.inf)])
        rise = np.concatenate([above, np.where(conducts, np.inf, np.maximum(gap, 0.0))])
        open_units = np.isin(np.arange(network.size), t.index_of_node[~self.solution.determined])
        loose = _of_legs(network, open_units.astype(np.float64)) > 0
        fall, rise = (np.where(loose | np.isinf(room), np.nan, room) for room in (fall, rise))
        return fall, rise

    def _may_touch(self, network: Network, solved: Solved, rise: Floats) -> Bools:
        """Perfect diodes that block, and would carry no more than rounding if they were closed, (ideal diodes,)."""
        d, v, reach = self.circuit.ideal_diodes, self.group_volts, np.zeros(rise.size)
        near = network.ideal & (rise > 0) & (rise <= _NEAR_KNEE * np.abs(self.v).max(initial=0.0))
        for leg in np.flatnonzero(near)[:_MOST_KINKS].tolist():
            one = np.zeros(rise.size)
            one[leg] = 1.0
            reach[leg] = np.abs(network.across(solved.solve(network.into(one)[None])[0])[leg])
        gap = self._of_ideal(np.where(near, rise, np.nan))
        touches: Bools = self._of_ideal(reach) * self.eps * (v[d.a] + v[d.b]) >= MIN_RON * gap
        return touches

    def _leg_currents(self) -> Floats:
        """f of each leg, A."""
        return np.concatenate([self.capped[self.problem.topology.junctions], self._leg_ideal()])

    def _leg_ideal(self) -> Floats:
        """The current of the ideal diodes of each leg but the junctions: links, lower, upper bounds."""
        t, legs = self.problem.topology, self.problem.topology.legs
        at_bound = []
        for diodes, units, wanted in (
            (t.lower_diodes, t.lower_units, legs.lower), (t.upper_diodes, t.upper_units, legs.upper),
        ):  # fmt: skip
            total = np.bincount(units, self.ideal_amps[diodes], self.problem.n_free)
            at_bound.append(total[wanted])
        return np.concatenate([self.ideal_amps[t.links], *at_bound])

    def _leg_slopes(self) -> Floats:
        """The conductance of each leg in J."""
        j = self.problem.topology.junctions
        return np.concatenate([self.slope[j], np.where(self._leg_ideal() > 0, 1.0 / MIN_RON, 0.0)])

    def _steepest(self, network: Network) -> Floats:
        """The largest slope of each leg that may have a kink, (legs,), S."""
        law, p = network.law, network.params.T
        steepest = np.where(law == Law.PWL, np.maximum(p[G_FORWARD], p[G_REVERSE]), 0.0)
        slope = np.where(law == Law.SEGMENT, p[G], steepest)
        return np.minimum(np.append(slope, np.full(network.ideal.sum(), np.inf)), 1.0 / MIN_RON)

    def _leaves_tangent(self, network: Network, shifted: Floats, within: Floats) -> Floats:
        """By how much each leg leaves its tangent where its voltage is off by shifted +- within, (legs,) V; in A."""
        j, out = self.problem.topology.junctions, np.zeros(shifted.size)
        curved = (network.law != Law.SEGMENT) & (network.law != Law.PWL)
        low, high = ((shifted + sign * within)[: j.size] for sign in (-1.0, 1.0))
        odd = (network.law == Law.TANH) | (network.law == Law.SINH)  # as steep at -v: there it may leave most
        for end in (low, high, np.where(odd, np.clip(-2.0 * self.drops[j], low, high), low)):
            current, _ = branch_current(network.law, self.params[j], self.drops[j] + end)
            miss = np.abs(current - self.current[j] - self.slope[j] * end)
            out[: j.size] = np.maximum(out[: j.size], np.where(curved, miss, 0.0))
        return np.where(np.isnan(out), np.inf, out)

    def _disturbance(self, network: Network, at_kink: Bools, more: Floats) -> Floats:
        """d of the module's text, for each unknown of the network; `more` (legs,) is of the legs, A."""
        c, t, n = self.circuit, self.problem.topology, self.problem.n_free
        ideal, legs = self._leg_ideal(), t.legs
        of_ideal = RELTOL * ideal + np.where((ideal > 0) | at_kink[t.junctions.size :], ABSTOL, 0.0)
        of_leg = np.concatenate([self.missed[t.junctions], of_ideal]) + more
        d = np.zeros(network.size + 1)  # the last: known
        for ends in (legs.a, legs.k):
            np.add.at(d, np.where(ends >= 0, ends, network.size), of_leg)
        rounding, carried = self._rounding
        ours = self.kcl_relative
        missed = rounding + ours * carried
        open_nodes = ~self.solution.determined
        loose = np.isin(np.arange(network.size + 1), t.index_of_node[open_nodes])
        a, k = (np.where(ends >= 0, ends, network.size) for ends in (legs.a, legs.k))
        of_loose = np.where(loose[a] | loose[k], d[loose].sum() + missed[open_nodes].sum(), 0.0)
        np.add.at(d, a, of_loose)
        np.add.at(d, k, of_loose)
        np.add.at(d, np.where(t.index_of_node >= 0, t.index_of_node, network.size), missed)
        s, v = c.active, np.abs(self.v)
        by_current = np.abs(s.gain) * np.abs(self.active_amps).max(initial=0.0)
        terms = v[s.a] + v[s.b] + np.where(s.control >= 0, by_current, self.law_terms)
        d[n : network.size] = (self.eps + ours) * terms[c.active_voltages]
        return d[:-1]

    def _sums(self, size: Floats) -> tuple[Floats, Floats, Floats]:
        """At each node, over all branches but ties: the sums of g (size of a + size of b) + |i|, of g, and of |i|."""
        c, n = self.circuit, len(self.circuit.nodes)
        pulls, slopes, carried = np.zeros(n), np.zeros(n), np.zeros(n)
        g, j, d = c.conductors, c.junctions, c.ideal_diodes
        sources = np.abs(self.problem.given_currents(slice(0, 1))[0])
        groups: tuple[tuple[Branches, Floats | float, Floats], ...] = (
            (g, g.g, g.g * np.abs(self.v[g.a] - self.v[g.b])),
            (j, self.slope, np.abs(self.current)),
            (d, np.where(self.touching, 1.0 / MIN_RON, 0.0), self.ideal_amps),
            (c.active, 0.0, np.abs(self.active_amps)),
            (c.current_sources, 0.0, sources),
        )
        for branches, slope, amperes in groups:
            terms = slope * (size[branches.a] + size[branches.b]) + amperes
            for ends in (branches.a, branches.b):
                np.add.at(pulls, ends, terms)
                np.add.at(slopes, ends, slope)
                np.add.at(carried, ends, amperes)
        for x in c.crossbars:
            amperes = x.g * np.abs(self.v[x.rows][:, None] - self.v[x.cols])
            for ends, others, matrix, current in (
                (x.rows, x.cols, x.g, amperes), (x.cols, x.rows, x.g.T, amperes.T),
            ):  # fmt: skip
                np.add.at(pulls, ends, matrix.sum(axis=1) * size[ends] + matrix @ size[others])
                np.add.at(slopes, ends, matrix.sum(axis=1))
                np.add.at(carried, ends, current.sum(axis=1))
        return pulls, slopes, carried

    @cached_property
    def _rounding(self) -> tuple[Floats, Floats]:
        """At each node: the rounding of the sum of g v over all branches, and the sum of their absolute currents, A.

        Asked for only when it is known which perfect diodes may touch.
        """
        pulls, _, carried = self._sums(self.group_volts)
        j, s = self.circuit.junctions, self.circuit.active
        for ends in (s.a, s.b):
            np.add.at(pulls, ends, np.where(s.gives_current, self.law_terms, 0.0))
        rs = np.where(j.law == Law.SHOCKLEY, j.params[:, RS], 0.0)
        np.add.at(pulls, j.a, 2.0 * self.group_volts[j.a] / np.where(rs > 0, rs, np.inf))
        mixed = np.asarray(np.bincount(self.group, self.eps * pulls)[self.group], float)
        return mixed, carried

    def _terms(self) -> tuple[Floats, Floats]:
        """How large what adds up to the voltage of each node is, V; and the sum of the absolute currents there, A.

        By KCL the voltages that sources join are a sum over all branches there, over their conductances: small because
        its terms are, or because they cancel. What a nonlinear branch blocks it might pass. No voltage counts as more
        than the largest, or as less than it is.
        """
        v = np.abs(self.v)
        pulls, slopes, carried = self._sums(v)
        of_group, slope = (np.bincount(self.group, x)[self.group].astype(np.float64) for x in (pulls, slopes))
        terms = np.divide(of_group, slope, out=np.full(v.size, np.inf), where=slope > 0)
        for branches in (self.circuit.junctions, self.circuit.ideal_diodes):
            np.maximum.at(terms, branches.a, v[branches.b])
            np.maximum.at(terms, branches.b, v[branches.a])
        return np.clip(terms, v, v.max(initial=0.0)), carried

    def _joined(self) -> Ints:
        """The group of each node: nodes that voltage sources join, ground's left alone, have one number."""
        c, n = self.circuit, len(self.circuit.nodes)
        s = c.active_voltages
        a, b = np.concatenate([c.ties.a, c.active.a[s]]), np.concatenate([c.ties.b, c.active.b[s]])
        inner = (a > 0) & (b > 0)
        return components(n, a[inner], b[inner])

    def _active(self, extra: Floats, of_unit: Floats) -> Floats:
        """Bounds of the currents of Circuit.active."""
        c, t = self.circuit, self.problem.topology
        s = c.active
        bounds = np.zeros(len(s))
        bounds[c.active_voltages] = extra
        by_current = np.append(bounds, 0.0)[c.active_control]
        by_voltage = _between(t.index_of_node, of_unit, s.ca, s.cb)
        by_current, by_voltage = (np.abs(s.gain) * np.where(s.gain == 0.0, 0.0, x) for x in (by_current, by_voltage))
        return np.where(s.gives_current, np.where(s.control >= 0, by_current, by_voltage), bounds)

    def _out_of_nodes(self, of_unit: Floats, of_active: Floats, of_leg: Floats) -> Floats:
        """By how much the current that all branches but ties carry out of each node may differ, (nodes,), A."""
        c, t = self.circuit, self.problem.topology
        unit = t.index_of_node
        out = self._rounding[0].copy()

        def add(a: Ints, b: Ints, amperes: Floats) -> None:
            np.add.at(out, a, amperes)
            np.add.at(out, b, amperes)

        g, j, s = c.conductors, c.junctions, c.active
        add(g.a, g.b, g.g * _between(unit, of_unit, g.a, g.b))
        for x in c.crossbars:
            row, col = of_unit[unit[x.rows]], of_unit[unit[x.cols]]
            np.add.at(out, x.rows, x.g.sum(axis=1) * row + x.g @ col)
            np.add.at(out, x.cols, x.g.sum(axis=0) * col + row @ x.g)
        across = _between(unit, of_unit, j.a, j.b)
        changed = self.slope * np.where(self.slope > 0, across, 0.0)  # of what blocks nothing, however far it may move
        at_kink = of_leg[: t.junctions.size]
        changed[t.junctions] = np.where(np.isnan(at_kink), changed[t.junctions], at_kink)
        add(j.a, j.b, changed + self.missed)
        add(s.a, s.b, of_active)
        d, touching = c.ideal_diodes, self._of_ideal(of_leg)
        add(d.a, d.b, np.nan_to_num(touching, posinf=np.inf))
        add(d.a, d.b, self._ideal_bounds(out, (self.ideal_amps > 0) & np.isnan(touching)))
        return out

    def _of_ideal(self, of_leg: Floats) -> Floats:
        """Of each ideal diode what its leg has, NaN where it is none."""
        t, found = self.problem.topology, np.full(self.ideal_amps.size, np.nan)
        legs = t.legs
        first, second = legs.n_junctions + legs.n_links, legs.n_junctions + legs.n_links + legs.lower.size
        found[t.links] = of_leg[legs.n_junctions : first]
        found[t.lower_diodes] = of_leg[first + np.searchsorted(legs.lower, t.lower_units)]
        found[t.upper_diodes] = of_leg[second + np.searchsorted(legs.upper, t.upper_units)]
        return found

    def _ideal_bounds(self, out: Floats, conducts: Bools) -> Floats:
        """The same of the current of each of these ideal diodes: what may differ at all units that they join."""
        c, t = self.circuit, self.problem.topology
        d, n = c.ideal_diodes, self.problem.n_free
        if not len(d):
            return np.zeros(0)
        unit = np.where(t.index_of_node >= 0, t.index_of_node, n)
        of_unit = np.bincount(unit, out, n + 1)
        conducting = t.links[conducts[t.links]]
        ends = unit[d.a[conducting]], unit[d.b[conducting]]
        label = components(n + 1, *ends)
        total = np.bincount(label, of_unit)
        free = np.where(unit[d.a] < n, unit[d.a], unit[d.b])
        return np.where(conducts & (free < n), total[label[free]], 0.0)


def _between(unit: Ints, of_unit: Floats, a: Ints, b: Ints) -> Floats:
    """By how much the voltage from nodes a to nodes b may differ: nodes of one unit move together."""
    return np.where(unit[a] == unit[b], 0.0, of_unit[unit[a]] + of_unit[unit[b]])


def _adrift(solved: Solved) -> Bools:
    """Unknowns that nothing holds."""
    open_ones = solved.loose.copy()
    if solved.floating.size:  # held softly, one of each part
        held = np.zeros((1, open_ones.size))
        held[0, solved.floating] = 1.0
        open_ones |= solved.solve(held)[0] != 0.0
    return open_ones


def _of_legs(network: Network, bounds: Floats) -> Floats:
    """Bounds of the voltages of the legs, (legs,), from those of the unknowns."""
    padded = np.append(bounds[: network.problem.n_free], 0.0)
    a, k = (np.where(unit >= 0, unit, padded.size - 1) for unit in (network.legs.a, network.legs.k))
    return padded[a] + padded[k]


def _across_kinks(network: Network, solved: Solved, kinks: Ints, w: Floats) -> tuple[Floats, Floats, Ints]:
    """|J^-1 u| x of the module's text, and x, of the legs at kinks; inf where nothing bounds them.

    Legs between the same units are one branch, and each has the x of all. Returns, too, the number of this branch.
    """
    ends = np.sort(np.stack([network.legs.a[kinks], network.legs.k[kinks]]), axis=0)
    _, first, group = np.unique(ends, axis=1, return_index=True, return_inverse=True)
    chosen, farthest = kinks[first], np.zeros(first.size)
    group = group.ravel()
    np.maximum.at(farthest, group, w)
    w, moved, carried = farthest, np.full(network.size, np.inf), np.full(kinks.size, np.inf)
    if chosen.size <= _MOST_KINKS:
        one = np.zeros((chosen.size, network.legs.a.size))
        one[np.arange(chosen.size), chosen] = 1.0
        response = solved.solve(np.array([network.into(row) for row in one]))
        drops = np.array([network.across(row)[chosen] for row in response])  # -K
        matrix = -np.abs(drops)
        np.fill_diagonal(matrix, -drops.diagonal())
        with suppress(np.linalg.LinAlgError):
            if (np.linalg.solve(matrix, np.ones(chosen.size)) > 0).all():  # an M-matrix (A. Berman, R. Plemmons 1979)
                x = np.linalg.solve(matrix, w)
                moved, carried = np.abs(response).T @ x, x[group]
    if network.problem.circuit.reciprocal:
        moved = np.minimum(moved, w.sum())
    return moved, carried, group


def _of_others(group: Ints, most: Floats) -> Floats:
    """For each leg the sum of `most` >= 0 over the others of its group."""
    endless = np.isinf(most)
    finite = np.where(endless, 0.0, most)
    sums, count = np.bincount(group, finite)[group] - finite, np.bincount(group, endless)[group] - endless
    return np.where(count > 0, np.inf, np.maximum(sums, 0.0))


def _spread(network: Network, solved: Solved, d: Floats) -> Floats:
    """|J^-1| d."""
    if network.problem.circuit.reciprocal:
        return np.abs(solved.solve(d[None])[0])
    moved = np.zeros(network.size)
    disturbed = np.flatnonzero(d)
    for first in range(0, disturbed.size, _COLUMNS):
        some = disturbed[first : first + _COLUMNS]
        columns = np.zeros((some.size, network.size))
        columns[np.arange(some.size), some] = d[some]
        moved += np.abs(solved.solve(columns)).sum(axis=0)
    return moved
