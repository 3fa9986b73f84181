"""Circuit -> Problem: unknowns, couplings and bounds, arranged for solving.

Units (nodes tied together) are the unknowns x, in volts at each unit's root node. Node voltages are x + offset. Known
units - those tied to ground, and islands pinned because nothing determines them - are eliminated. For the free units

    sum_j W[u, j] (x[u] - x[j]) + K[u] x[u] - injection[u] + (nonlinear currents out of u) = (ideal-diode currents),
    lo <= x <= hi,

with W the conductances between free units, K[u] those to fixed potentials, diag = sum_j W[u, j] + K[u]. Free units are
numbered by colour: block c is `color_ptr[c] : color_ptr[c + 1]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from circuitsim.branch_sums import ufunc_at
from circuitsim.branches import take_rows
from circuitsim.circuit import Circuit, check_structure
from circuitsim.copies import Copies
from circuitsim.drive import Drive, add_dense_drive
from circuitsim.errors import SettingsError, TopologyError, listed
from circuitsim.feasibility import check_diodes
from circuitsim.islands import find_islands
from circuitsim.netlist.tokens import shown
from circuitsim.overflow import check_forced_currents, check_sources, largest_conductance
from circuitsim.placement import build_topology
from circuitsim.topology import Dense, Topology
from circuitsim.units import check_loops, unique_ties

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Values:
    """The conductances of a problem (S), over its topology; they have no batch axis."""

    diag: Floats  # (n_free,) total linear conductance of each unit
    to_fixed: Floats  # (n_free,) the part of it that goes to fixed potentials
    dense: tuple[Floats, ...]  # one (nr, nc) matrix for each of topology.dense
    couplings: sparse.csr_array  # (n_free, n_free) symmetric, sparse part of W
    known_couplings: sparse.csr_array  # (n_free, n_fixed) those to fixed potentials


@dataclass(frozen=True, eq=False)
class Problem:
    """A circuit prepared for solving: prepare it once, solve it for many inputs, change values without rebuilding.

    >>> from circuitsim.build import parse
    >>> problem = compile_problem(parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k"))
    >>> problem.values.diag, problem.drive(slice(0, 1)).injection
    (array([0.002]), array([[0.01]]))
    """

    circuit: Circuit
    topology: Topology
    values: Values
    single: Problem | None = None  # for copies side by side (stack.py): a problem of one circuit of their structure

    def __repr__(self) -> str:
        """One line: its circuit and size."""
        return f"<Problem of {self.circuit!r}: {self.n_free} unknowns>"

    @property
    def one(self) -> Problem:
        """The problem itself; for copies side by side (stack.py), that of one copy."""
        return self.single or self

    @property
    def n_free(self) -> int:
        """Number of unknowns."""
        return self.topology.n_free

    @cached_property
    def copies(self) -> Copies:
        """The copies of one circuit that make up this one (stack.py); normally one, the circuit itself."""
        return Copies(self.circuit.copies, len(self.circuit.nodes), self.topology.root_of_unit)

    @property
    def batch(self) -> int:
        """Number of input rows: the batch size of the sources."""
        return self.circuit.batch

    def with_values(self, values: Mapping[str, ArrayLike]) -> Problem:
        """The same problem with new element values (see Circuit.with_values); recompiled only if islands change."""
        return self._with(self.circuit.with_values(values))

    def with_circuit(self, circuit: Circuit) -> Problem:
        """This problem for a circuit with the same branches and other values, including laws and bounds of diodes.

        Recompiled only if islands change. Raises TopologyError, naming the element, when the branches differ.
        """
        check_structure(self.circuit, circuit)
        return self._with(circuit)

    def _with(self, circuit: Circuit) -> Problem:
        """This problem for a circuit of the same structure."""
        old = self.circuit
        g = [(old.conductors.g, circuit.conductors.g)]
        g += [(a.g, b.g) for a, b in zip(old.crossbars, circuit.crossbars, strict=True)]
        problem = replace(self, circuit=circuit)
        if any(a is not b and not np.array_equal(a > 0, b > 0) for a, b in g):
            islands = find_islands(circuit, self.topology.forest.roots(len(circuit.nodes)))
            if not np.array_equal(islands.part, self.topology.islands.part):
                return compile_problem(circuit)  # a conductance that became 0, or left it: another path to ground
        if all(a is b for a, b in g):
            return problem
        return replace(problem, values=_values(circuit, self.topology))

    def fixed_potentials(self, rows: slice) -> Floats:
        """Potentials of known nodes and offsets of tied free nodes, (rows or 1, n_fixed), V. Checks loops of ties."""
        t = self.topology
        e = take_rows(self.circuit.ties.e, rows)
        offsets = t.forest.offsets(e)
        check_loops(self.circuit, t.forest, e, offsets, rows.start)
        if np.array_equal(t.forest.nodes, t.fixed_nodes):
            return offsets
        fixed = np.zeros((e.shape[0], t.fixed_nodes.size))
        fixed[:, t.fixed_of_tied] = offsets[:, t.tied_with_column]
        return fixed

    def drive(self, rows: slice, whole: bool = True) -> Drive:
        """What the sources impose for these rows of the batch. Raises TopologyError when no voltages satisfy them.

        Unless `whole`, what they drive through dense blocks is left out, to be added by `completed` or on a device.
        """
        t, v = self.topology, self.values
        check_sources(self.circuit, rows)
        fixed = self.fixed_potentials(rows)
        some = fixed if whole or v.known_couplings.nnz else fixed[:1]
        injection = _times(v.known_couplings, some)
        # Offsets between free nodes put terms of both signs into `fixed`: then there is no simple sum of g |c|.
        fixed_abs = _times(v.known_couplings, np.abs(some)) if self.untied else np.zeros((1, 0))
        i = self.given_currents(rows)
        t.islands.check(self.circuit, i, rows.start)
        source_flow = _times(t.source_incidence, i)
        source_abs = _times(abs(t.source_incidence), np.abs(i))
        room = self.circuit.ideal_diodes.vf - _differences(fixed, t.ideal_fixed)
        lo, hi = self._bounds(room, rows)
        check_forced_currents(self.circuit, t, fixed, rows.start, self.largest_conductance, self.closed_drops)
        junction_offset = _differences(fixed, t.junction_fixed)
        link_offset = -room[:, t.links]
        drive = Drive(
            rows, fixed, injection, source_flow, source_abs, fixed_abs, lo, hi, junction_offset,
            link_offset, np.zeros((1, t.carrier_a.size)), partial=True,
        )  # fmt: skip
        return self._complete(drive) if whole else drive

    def completed(self, drive: Drive) -> Drive:
        """The drive, completed by what known potentials drive through dense blocks and by the current sources."""
        if not drive.partial:
            return drive
        shape = (drive.fixed.shape[0], self.n_free)
        injection = np.array(np.broadcast_to(drive.injection, shape))
        fixed_abs = np.array(np.broadcast_to(drive.fixed_abs, shape)) if self.untied else drive.fixed_abs
        return self._complete(replace(drive, injection=injection, fixed_abs=fixed_abs))

    def _complete(self, drive: Drive) -> Drive:
        """The same; adds to the arrays of this drive."""
        for spec, g in zip(self.topology.dense, self.values.dense, strict=True):
            add_dense_drive(drive.injection, drive.fixed_abs if self.untied else None, spec, g, drive.fixed)
        injection = drive.injection + drive.source_flow if drive.source_abs.any() else drive.injection
        return replace(drive, injection=injection, partial=False)

    def _bounds(self, room: Floats, rows: slice) -> tuple[Floats, Floats]:
        """Bounds of the free units, V; `room` (rows or 1, n_ideal) is vf - (fixed part of anode - cathode voltage)."""
        t = self.topology
        volts, own = self.circuit.ties.e, room.shape[0]
        e = take_rows(volts, slice(rows.start, rows.start + own))
        same = own == 1 and (volts.shape[0] == 1 or rows.stop - rows.start >= self.batch)
        check_diodes(self.circuit, t.forest, t.diode_cycles, e, room, None if same else rows.start)
        lower, upper = -room[:, t.lower_diodes], room[:, t.upper_diodes]
        if (lower == lower[:1]).all() and (upper == upper[:1]).all():
            lower, upper = lower[:1], upper[:1]
        lo = np.full((t.n_free, lower.shape[0]), -np.inf)
        hi = np.full((t.n_free, lower.shape[0]), np.inf)
        ufunc_at(np.maximum, lo, t.lower_units, lower.T)
        ufunc_at(np.minimum, hi, t.upper_units, upper.T)
        return np.ascontiguousarray(lo.T), np.ascontiguousarray(np.maximum(hi, lo).T)

    @cached_property
    def largest_conductance(self) -> float:
        """See overflow.py, S."""
        return largest_conductance(self.circuit)

    @cached_property
    def closed_conductors(self) -> Ints:
        """Conductors, crossbars aside, whose voltages the sources fix: both ends are known, or in one unit."""
        g, unit = self.circuit.conductors, self.topology.index_of_node
        return np.flatnonzero(unit[g.a] == unit[g.b])

    def closed_drops(self, fixed: Floats) -> tuple[Ints, Floats]:
        """The closed conductors, and their voltages at these potentials, (rows of fixed, closed conductors), V."""
        g, closed = self.circuit.conductors, self.closed_conductors
        if not closed.size:
            return closed, np.zeros((len(fixed), 0))
        return closed, self.drops([np.zeros((len(fixed), self.n_free))], fixed, g.a[closed], g.b[closed])

    def check_unique(self) -> None:
        """Raise TopologyError for what cannot be unique whatever the diodes do: pinned islands, loops of sources."""
        c, t = self.circuit, self.topology
        nodes = [c.nodes[k] for k in np.flatnonzero(t.islands.pinned & ~c.left_out).tolist()]
        ties = np.flatnonzero(~unique_ties(c, t.forest))
        refuse_loose(nodes, [c.element(c.ties, k) for k in ties.tolist()])

    def given_currents(self, rows: slice) -> Floats:
        """The current sources' values for some rows of the batch, (rows or 1, n_sources), A."""
        return take_rows(self.circuit.current_sources.i, rows)

    def edge_conductances(self) -> Floats:
        """Linear conductances of `Topology.edges`, S; 0 where only a nonlinear branch or a diode joins two units."""
        t, v = self.topology, self.values
        inner = [g.ravel() for _, g in self.inner_blocks]
        return np.concatenate([v.couplings.data[t.upper], *inner, np.zeros(t.leg_edges.size)])

    @cached_property
    def inner_blocks(self) -> list[tuple[Dense, Floats]]:
        """The dense blocks between free units, each with its conductances, S."""
        blocks = zip(self.topology.dense, self.values.dense, strict=True)
        return [(spec, g) for spec, g in blocks if spec.inner]

    @cached_property
    def inner_dense(self) -> int:
        """How many conductances the inner blocks have."""
        return sum(g.size for _, g in self.inner_blocks)

    @cached_property
    def mean_degree(self) -> int:
        """Average number of linear branches at a free unit, rounded up; at least 1."""
        ends = self.topology.diag_units.size + sum(2 * g.size for g in self.values.dense)
        return 1 + ends // max(self.n_free, 1)

    @cached_property
    def inner_ends(self) -> int:
        """Number of ends of linear branches between two free units: what a sweep visits for each row."""
        return int(self.values.couplings.nnz) + 2 * self.inner_dense

    @cached_property
    def most_terms(self) -> int:
        """An upper limit on the number of branch currents summed at any unit; it bounds the rounding of a sum."""
        terms = np.bincount(self.topology.diag_units, minlength=self.n_free)
        for spec in self.topology.dense:
            for side, count in ((spec.row, spec.shape[1]), (spec.col, spec.shape[0])):
                if side.units is not None and spec.crossbar >= 0:  # flat branches are in diag_units already
                    terms[side.units] += count
        return int(terms.max(initial=0)) + 2 + int(np.diff(self.topology.source_incidence.indptr).max(initial=0))

    @cached_property
    def untied(self) -> bool:
        """Whether no source ties unknowns to each other, so that every node's voltage is either an unknown or known."""
        return bool((self.topology.index_of_node[self.topology.fixed_nodes] < 0).all())

    @cached_property
    def node_offset_columns(self) -> Ints:
        """For each node its column of `fixed`, or -1: v[node] = x[index[node]] (free) + fixed[column]."""
        column = np.full(len(self.circuit.nodes), -1, np.int64)
        column[self.topology.fixed_nodes] = np.arange(self.topology.fixed_nodes.size)
        return column

    def drops(self, parts: Sequence[Floats], fixed: Floats, a: Ints, b: Ints, less: Floats | None = None) -> Floats:
        """Voltages from nodes a to nodes b, minus `less`, (rows, n), V, for the unknowns sum(parts).

        Terms are summed at twice the precision of float64 (branch_sums), to keep the digits left when they cancel.
        """
        if len(parts) == 1 and less is None and self.untied:  # two terms: their difference is rounded once
            return self.node_voltages(parts[0], fixed, a) - self.node_voltages(parts[0], fixed, b)
        total = np.zeros((parts[0].shape[0], a.size)) - (0.0 if less is None else less)
        low = np.zeros_like(total)
        terms = [self.offsets(fixed, a), -self.offsets(fixed, b)]
        for part in parts:
            terms += [self.unknowns(part, a), -self.unknowns(part, b)]
        with np.errstate(over="ignore", invalid="ignore"):
            for term in terms:
                old, total = total, total + term
                back = total - old
                low += (old - (total - back)) + (term - back)
            return np.where(np.isfinite(low), total + low, total)

    def node_voltages(self, x: Floats, fixed: Floats, nodes: Ints) -> Floats:
        """Voltages of some nodes, (rows, len(nodes)), from unknowns x (rows, n_free) and fixed (rows or 1, n_fixed)."""
        out = self.unknowns(x, nodes)
        column = self.node_offset_columns[nodes]
        has = np.flatnonzero(column >= 0)
        if has.size:
            out[:, has] += fixed[:, column[has]]
        return out

    def unknowns(self, x: Floats, nodes: Ints) -> Floats:
        """The unknowns at some nodes, (rows, len(nodes)); 0 where a node has none."""
        index = self.topology.index_of_node[nodes]
        out = x.take(index, axis=1) if x.shape[1] else np.zeros((x.shape[0], index.size))  # rows stay together
        out[:, index < 0] = 0.0
        return out

    def offsets(self, fixed: Floats, nodes: Ints) -> Floats:
        """What sources add to the unknowns at some nodes, (rows or 1, len(nodes)): the rest of node_voltages."""
        column = self.node_offset_columns[nodes]
        out = fixed.take(column, axis=1) if fixed.shape[1] else np.zeros((fixed.shape[0], column.size))
        out[:, column < 0] = 0.0
        return out


def _times(matrix: sparse.csr_array, rows: Floats) -> Floats:
    """matrix times each row, (rows, matrix rows)."""
    if not matrix.nnz:
        return np.zeros((rows.shape[0], matrix.shape[0]))
    return np.ascontiguousarray((matrix @ rows.T).T)


def _differences(fixed: Floats, matrix: sparse.csr_array) -> Floats:
    """matrix times each row; only one row, (1, matrix rows), where all rows agree in the columns that it reads."""
    read = fixed[:, np.unique(matrix.indices)]
    return (fixed[:1] if (read == read[:1]).all() else fixed) @ matrix.T


def check_flag(name: str, value: object) -> None:
    """Raise SettingsError for anything but True or False."""
    if not isinstance(value, bool | np.bool_):
        raise SettingsError(f"{name} must be True or False, found {shown(repr(value))}")


def refuse_loose(nodes: list[str], elements: list[str]) -> None:
    """Raise TopologyError if any voltages or currents are not unique (`--strict`)."""
    if nodes:
        raise TopologyError(
            f"strict: the voltage of {len(nodes):,} nodes is not unique ({listed(nodes)}); join them to ground",
            nodes=nodes,
        )
    if elements:
        raise TopologyError(
            f"strict: the current of {listed(elements)} is not unique; put a resistor in each loop of sources",
            elements=elements,
        )


def compile_problem(circuit: Circuit, lenient: bool = False) -> Problem:
    """Arrange a circuit for solving. Raises TopologyError for loops of sources that no voltages satisfy.

    lenient: leave out islands into which sources push a current that cannot leave (or from which they draw one that
    cannot enter) in any row of the batch, with all elements at their nodes (Circuit.dropped), and add a note to the
    circuit. Other faults are still errors, as are such islands that a controlled source joins to the rest: its ends,
    or those of what controls it, are on both sides.
    """
    check_flag("lenient", lenient)
    if not isinstance(circuit, Circuit):
        raise SettingsError(f"compile_problem takes a Circuit, found {type(circuit).__name__}; read one by load(path)")
    while True:
        problem = arranged(circuit)
        problem.fixed_potentials(slice(0, 1))
        try:
            if lenient:
                problem.topology.islands.check(circuit, circuit.current_sources.i)
            return problem
        except TopologyError as error:
            if not error.is_cut:
                raise
            circuit = without_island(circuit, error)


def arranged(circuit: Circuit) -> Problem:
    """As compile_problem, without the check that any voltages satisfy the sources of this circuit."""
    topology = build_topology(circuit)
    return Problem(circuit, topology, _values(circuit, topology))


def without_island(circuit: Circuit, error: TopologyError) -> Circuit:
    """The circuit without the island that an error names (TopologyError.is_cut), with a note.

    Raises the error when a controlled source joins the island to the rest.
    """
    nodes = np.array([circuit.netlist.node(name) for name in error.nodes], np.int64)
    if joining := circuit.controlled_across(nodes):
        error.message += f"; --lenient cannot leave it out: controlled sources ({listed(joining)}) join it to the rest"
        raise error
    return circuit.without(nodes, (error.at, f"left out, with all elements at it: {error.message}"))


def _values(circuit: Circuit, t: Topology) -> Values:
    """Conductances from the circuit's tables: scatter-adds along the positions that the topology holds.

    Raises TopologyError where their sum overflows.
    """
    g = t.flat_conductances(circuit)
    dense = tuple(spec.values(circuit, g) for spec in t.dense)
    diag, to_fixed = np.zeros(t.n_free), np.zeros(t.n_free)
    if t.diag_units.size:
        ends = g[t.diag_branches]
        diag += np.bincount(t.diag_units, ends, t.n_free)
        to_fixed += np.bincount(t.diag_units[t.known_ends], ends[t.known_ends], t.n_free)
    with np.errstate(over="ignore"):  # see below
        for spec, matrix in zip(t.dense, dense, strict=True):
            for own, other, axis in ((spec.row, spec.col, 1), (spec.col, spec.row, 0)):
                if own.units is not None:
                    total = matrix.sum(axis=axis)
                    if spec.crossbar >= 0:  # flat branches are in diag_units already
                        diag[own.units] += total
                        if other.units is None:
                            to_fixed[own.units] += total
    if not np.isfinite(diag).all():
        node = circuit.nodes[t.root_of_unit[int(np.argmin(np.isfinite(diag)))]]
        raise TopologyError(
            f"node {node}: the conductances of the resistors there add up to more than float64 holds; make the "
            "resistances larger, or 0",
            None,
            nodes=[node],
        )
    return Values(diag, to_fixed, dense, t.couplings.fill(g), t.known_couplings.fill(g))
