"""The structure of a problem: each node's unit, each unit's colour, each branch's place. Built by placement.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.circuit import Circuit
from circuitsim.feasibility import DiodeCycles
from circuitsim.islands import Islands
from circuitsim.linear import LinearSolver, choose_solver
from circuitsim.units import TieForest

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scatter:
    """A sparse matrix whose entry `position[k]` sums `sign[k] * g[branch[k]]` over all k."""

    shape: tuple[int, int]
    indptr: Ints
    indices: Ints
    branch: Ints
    position: Ints
    sign: Floats

    def fill(self, g: Floats) -> sparse.csr_array:
        """The matrix for these branch conductances."""
        data = np.zeros(self.indices.size)
        if self.branch.size:
            data += np.bincount(self.position, self.sign * g[self.branch], self.indices.size)
        return sparse.csr_array((data, self.indices, self.indptr), shape=self.shape)


@dataclass(frozen=True, eq=False)
class Side:
    """The rows, or the columns, of a dense block: free units of one colour, or fixed potentials."""

    units: slice | Ints | None  # None: the nodes are known
    fixed: slice | Ints | None  # columns of Drive.fixed (ground's, always 0, where a free node has no offset); or None


@dataclass(frozen=True, eq=False)
class Dense:
    """A dense block of conductances: part of a crossbar, or flat branches that are dense enough."""

    row: Side
    col: Side
    shape: tuple[int, int]
    crossbar: int  # which crossbar, or -1
    pick_rows: slice | Ints  # of the crossbar
    pick_cols: slice | Ints
    branch: Ints  # flat branches and where in the flattened block they add
    position: Ints

    @property
    def inner(self) -> bool:
        """Whether it joins free units, not free units and known potentials."""
        return self.row.units is not None and self.col.units is not None

    def values(self, circuit: Circuit, flat_g: Floats) -> Floats:
        """The (nr, nc) conductances; a view of the crossbar when all of it is meant."""
        if self.crossbar < 0:
            g = flat_g[self.branch]
            flat: Floats = np.bincount(self.position, g, self.shape[0] * self.shape[1]).astype(np.float64, copy=False)
            return flat.reshape(self.shape)
        return circuit.crossbars[self.crossbar].g[self.pick_rows][:, self.pick_cols]


@dataclass(frozen=True, eq=False)
class Legs:
    """The branches of a problem that are not linear: junctions, links, then lower and upper bounds of units.

    A leg's voltage is x[a] - x[k] + an offset; a or k is -1 where that end is known.
    """

    a: Ints  # (n_legs,) unit
    k: Ints
    n_junctions: int
    n_links: int
    lower: Ints  # units with a lower bound: ideal diode from a known potential into the unit
    upper: Ints  # units with an upper bound

    @property
    def link_a(self) -> Ints:
        """Unit of each link's anode."""
        return self.a[self.n_junctions : self.n_junctions + self.n_links]

    @property
    def link_k(self) -> Ints:
        """Unit of each link's cathode."""
        return self.k[self.n_junctions : self.n_junctions + self.n_links]


@dataclass(frozen=True, eq=False)
class Topology:
    """All the structure of a problem: what new element values do not change."""

    copies: int  # of one circuit, side by side (stack.py)
    forest: TieForest
    islands: Islands
    index_of_node: Ints  # (n_nodes,) free unit of each node, -1: known
    n_free: int
    root_of_unit: Ints  # (n_free,) node whose voltage is x
    color_ptr: Ints  # (n_colors + 1,)
    bipartite: bool
    fixed_nodes: Ints  # (n_fixed,) node of each column of Drive.fixed
    tied_with_column: Ints  # positions in forest.nodes of all but the roots of free groups, whose offset is 0
    fixed_of_tied: Ints  # their columns of Drive.fixed
    expanded: Ints  # crossbars that are treated as flat branches
    flat_a: Ints  # nodes of these, the linear branches outside dense crossbars (flat_nodes)
    flat_b: Ints
    couplings: Scatter
    known_couplings: Scatter
    dense: tuple[Dense, ...]
    diag_units: Ints  # flat branches that add to the diagonal, once for each free end
    diag_branches: Ints
    known_ends: Ints  # positions in diag_units whose branch ends at a known node
    source_incidence: sparse.csr_array  # (n_free, n_sources) +1 where a source's current enters the unit
    junctions: Ints  # nonlinear branches with a free end
    junction_a: Ints  # free unit of the anode, -1: known
    junction_k: Ints
    junction_fixed: sparse.csr_array  # (n_junctions, n_fixed)
    closed_junctions: Ints  # nonlinear branches whose voltage the sources fix
    closed_fixed: sparse.csr_array  # (n_closed, n_fixed)
    ideal_fixed: sparse.csr_array  # (n_ideal, n_fixed)
    diode_cycles: DiodeCycles
    lower_diodes: Ints  # known anode, free cathode: a lower bound
    lower_units: Ints
    upper_diodes: Ints  # free anode, known cathode: an upper bound
    upper_units: Ints
    links: Ints  # ideal diodes between two free units
    carrier_a: Ints  # unit, -1: known, of the first node of each link, then of each branch of Circuit.active
    carrier_k: Ints

    @property
    def n_colors(self) -> int:
        return self.color_ptr.size - 1

    @cached_property
    def upper(self) -> Ints:
        """Entries of `couplings` above the diagonal: each pair of coupled units once."""
        return np.flatnonzero(self._coupling_rows() < self.couplings.indices)

    @property
    def coupled(self) -> tuple[Ints, Ints]:
        """The units of each of these pairs."""
        return self._coupling_rows()[self.upper], self.couplings.indices[self.upper]

    def _coupling_rows(self) -> Ints:
        return np.repeat(np.arange(self.n_free), np.diff(self.couplings.indptr))

    @cached_property
    def legs(self) -> Legs:
        """The nonlinear branches."""
        lower, upper = np.unique(self.lower_units), np.unique(self.upper_units)
        none_l, none_u = np.full(lower.size, -1, np.int64), np.full(upper.size, -1, np.int64)
        return Legs(
            np.concatenate([self.junction_a, self.carrier_a[: self.links.size], none_l, upper]),
            np.concatenate([self.junction_k, self.carrier_k[: self.links.size], lower, none_u]),
            self.junctions.size, self.links.size, lower, upper,
        )  # fmt: skip

    @property
    def leg_edges(self) -> Ints:
        """The legs that join two free units."""
        return np.flatnonzero((self.legs.a >= 0) & (self.legs.k >= 0))

    @cached_property
    def edges(self) -> tuple[Ints, Ints]:
        """Pairs of free units that something joins: couplings, dense blocks, legs."""
        i, j = ([units] for units in self.coupled)
        unit = np.arange(self.n_free)
        for spec in self.dense:
            if spec.inner:
                rows, cols = unit[spec.row.units], unit[spec.col.units]
                i.append(np.repeat(rows, cols.size))
                j.append(np.tile(cols, rows.size))
        i.append(self.legs.a[self.leg_edges])
        j.append(self.legs.k[self.leg_edges])
        return np.concatenate(i), np.concatenate(j)

    @cached_property
    def solver(self) -> LinearSolver:
        """For conductances on `edges` and to ground; what depends on the pattern alone is done once."""
        return choose_solver(self.n_free, *self.edges, alone=self.copies == 1)

    @cached_property
    def flat_ends(self) -> FlatEnds:
        """The flat branches, sorted by the free units that they end at."""
        order = np.argsort(self.diag_units, kind="stable")
        units, branch = self.diag_units[order], self.diag_branches[order]
        sign = np.where(self.index_of_node[self.flat_a[branch]] == units, 1.0, -1.0)
        ptr = np.searchsorted(units, np.arange(self.n_free + 1))
        return FlatEnds(ptr, branch, sign)

    def flat_conductances(self, circuit: Circuit) -> Floats:
        """Conductances of the flat branches: the circuit's conductors, then each entry of the expanded crossbars."""
        expanded = [circuit.crossbars[k].g.ravel() for k in self.expanded]
        return np.concatenate([circuit.conductors.g, *expanded]) if expanded else circuit.conductors.g


@dataclass(frozen=True, eq=False)
class FlatEnds:
    """Ends of the flat branches at free units: unit u has the entries ptr[u]:ptr[u+1]."""

    ptr: Ints  # (n_free + 1,)
    branch: Ints  # (entries,)
    sign: Floats  # (entries,) +1: the unit is at end a, so that a current a to b leaves it


def flat_nodes(circuit: Circuit, expanded: Sequence[int]) -> tuple[Ints, Ints]:
    """Both nodes of each flat branch, in the order of `Topology.flat_conductances`."""
    if not len(expanded):
        return circuit.conductors.a, circuit.conductors.b
    grids = [circuit.crossbars[k] for k in expanded]
    a = [circuit.conductors.a, *(np.repeat(c.rows, c.cols.size) for c in grids)]
    b = [circuit.conductors.b, *(np.tile(c.cols, c.rows.size) for c in grids)]
    return np.concatenate(a), np.concatenate(b)
