"""Circuit -> Topology: numbers the units by colour and decides where each branch goes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.branches import Branches
from circuitsim.circuit import Circuit
from circuitsim.coloring import color_units
from circuitsim.feasibility import diode_cycles
from circuitsim.islands import Islands, find_islands
from circuitsim.topology import Dense, Scatter, Side, Topology, flat_nodes
from circuitsim.units import TieForest, tie_forest

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MAX_BLOCKS = 16  # a crossbar that colours split into more dense blocks is treated as flat branches
_MIN_DENSE = 4096  # entries: below, a sparse block is as fast
_DENSE_SHARE = 0.2  # of entries present: above, a dense block is faster than a sparse one
_LEAST_ENTRIES = _DENSE_SHARE * _MIN_DENSE  # of a dense block


def build_topology(circuit: Circuit) -> Topology:
    """Units, islands, colours, and the place of every branch. Raises TopologyError (islands.py)."""
    forest = tie_forest(circuit)
    root = forest.roots(len(circuit.nodes))
    islands = find_islands(circuit, root)
    known_root = np.zeros(root.size, bool)
    known_root[0] = True
    known_root[islands.pins] = True
    known = known_root[root]
    roots = np.flatnonzero(~known_root & (np.arange(root.size) == root))
    provisional = np.full(root.size, -1, np.int64)
    provisional[roots] = np.arange(roots.size)
    index, color_ptr, bipartite = _color(circuit, provisional[root], roots.size, known)
    return _Placement(circuit, forest, islands, index, color_ptr, bipartite).topology(root)


def _color(circuit: Circuit, index: Ints, n: int, known: NDArray[np.bool_]) -> tuple[Ints, Ints, bool]:
    """Colour the free units and renumber them by colour; returns the new index of each node."""
    first, second = [], []
    weight = np.zeros(n)
    groups: list[Branches] = [circuit.conductors, circuit.junctions, circuit.ideal_diodes]
    for branches in groups:
        a, b = index[branches.a], index[branches.b]
        both = (a >= 0) & (b >= 0) & (a != b)
        first.append(a[both])
        second.append(b[both])
    g = circuit.conductors.g
    for own, other in ((circuit.conductors.a, circuit.conductors.b), (circuit.conductors.b, circuit.conductors.a)):
        driven = (index[own] >= 0) & known[other] & (other != 0)
        weight += np.bincount(index[own[driven]], g[driven], n) if driven.any() else 0.0
    bicliques = []
    for crossbar in circuit.crossbars:
        rows, cols = index[crossbar.rows], index[crossbar.cols]
        for own, other in ((rows, crossbar.cols), (cols, crossbar.rows)):
            driven_units = own[own >= 0]
            if (known[other] & (other != 0)).any():
                np.maximum.at(weight, driven_units, 1.0)
        rows, cols = np.unique(rows[rows >= 0]), np.unique(cols[cols >= 0])
        if not rows.size or not cols.size:
            continue
        if np.intersect1d(rows, cols).size:
            i, j = np.repeat(rows, cols.size), np.tile(cols, rows.size)
            first.append(i[i != j])
            second.append(j[i != j])
        else:
            bicliques.append((rows, cols))
    coloring = color_units(n, np.concatenate(first), np.concatenate(second), bicliques, weight)
    order = np.argsort(coloring.color, kind="stable")
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    color_ptr = np.searchsorted(coloring.color[order], np.arange(coloring.n_colors + 1))
    return np.where(index >= 0, rank[index], -1) if n else index, color_ptr, coloring.bipartite


class _Placement:
    """Decides where each branch goes, once units are numbered."""

    def __init__(
        self,
        circuit: Circuit,
        forest: TieForest,
        islands: Islands,
        index: Ints,
        color_ptr: Ints,
        bipartite: bool,
    ) -> None:
        self.circuit, self.forest, self.islands = circuit, forest, islands
        self.index, self.color_ptr, self.bipartite = index, color_ptr, bipartite
        self.n = int(color_ptr[-1]) if color_ptr.size else 0
        fixed = index < 0
        fixed[forest.nodes[forest.sign != 0]] = True
        self.fixed_nodes = np.flatnonzero(fixed)
        self.column = np.full(index.size, -1, np.int64)
        self.column[self.fixed_nodes] = np.arange(self.fixed_nodes.size)
        self.color = np.repeat(np.arange(max(color_ptr.size - 1, 0)), np.diff(color_ptr))

    def topology(self, root: Ints) -> Topology:
        c = self.circuit
        dense: list[Dense] = []
        expanded: list[int] = []
        for k in range(len(c.crossbars)):
            blocks = self._crossbar(k)
            if len(blocks) > _MAX_BLOCKS:
                expanded.append(k)
            else:
                dense += blocks
        flat_a, flat_b = flat_nodes(c, expanded)
        diag_units, diag_branches, known_ends = self._ends(flat_a, flat_b)
        couplings, known_couplings, flat_dense = self._flat(flat_a, flat_b)
        dense += flat_dense
        root_of_unit = np.full(self.n, -1, np.int64)
        is_root = root == np.arange(root.size)
        free_roots = np.flatnonzero(is_root & (self.index >= 0))
        root_of_unit[self.index[free_roots]] = free_roots
        ideal, j = c.ideal_diodes, c.junctions
        ia, ik = self.index[ideal.a], self.index[ideal.b]
        ja, jk = self.index[j.a], self.index[j.b]
        open_junctions, closed = np.flatnonzero(ja != jk), np.flatnonzero(ja == jk)
        lower = np.flatnonzero((ia < 0) & (ik >= 0))
        upper = np.flatnonzero((ia >= 0) & (ik < 0))
        links = np.flatnonzero((ia >= 0) & (ik >= 0) & (ia != ik))
        tied = self.column[self.forest.nodes]
        # A free root has no column: its offset is zero by definition and is not stored.
        return Topology(
            copies=c.copies,
            forest=self.forest,
            islands=self.islands,
            index_of_node=self.index,
            n_free=self.n,
            root_of_unit=root_of_unit,
            color_ptr=self.color_ptr,
            bipartite=self.bipartite,
            fixed_nodes=self.fixed_nodes,
            tied_with_column=np.flatnonzero(tied >= 0),
            fixed_of_tied=tied[tied >= 0],
            expanded=np.array(expanded, np.int64),
            flat_a=flat_a,
            flat_b=flat_b,
            couplings=couplings,
            known_couplings=known_couplings,
            dense=tuple(dense),
            diag_units=diag_units,
            diag_branches=diag_branches,
            known_ends=known_ends,
            source_incidence=self._sources(),
            junctions=open_junctions,
            junction_a=ja[open_junctions],
            junction_k=jk[open_junctions],
            junction_fixed=self._difference(j.a[open_junctions], j.b[open_junctions]),
            closed_junctions=closed,
            closed_fixed=self._difference(j.a[closed], j.b[closed]),
            ideal_fixed=self._difference(ideal.a, ideal.b),
            diode_cycles=diode_cycles(c, root),
            lower_diodes=lower,
            lower_units=ik[lower],
            upper_diodes=upper,
            upper_units=ia[upper],
            links=links,
            carrier_a=np.concatenate([ia[links], self.index[c.active.a]]),
            carrier_k=np.concatenate([ik[links], self.index[c.active.b]]),
        )

    def _difference(self, a: Ints, b: Ints) -> sparse.csr_array:
        """The fixed part of va - vb as a matrix on Drive.fixed; ground is always 0 and left out."""
        rows, cols, data = [], [], []
        for nodes, sign in ((a, 1.0), (b, -1.0)):
            has = (self.column[nodes] >= 0) & (nodes != 0)
            rows.append(np.flatnonzero(has))
            cols.append(self.column[nodes[has]])
            data.append(np.full(int(has.sum()), sign))
        entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(cols)))
        return sparse.csr_array(entries, shape=(a.size, self.fixed_nodes.size))

    def _sources(self) -> sparse.csr_array:
        s = self.circuit.current_sources
        a, b = self.index[s.a], self.index[s.b]
        out, into = np.flatnonzero((a >= 0) & (a != b)), np.flatnonzero((b >= 0) & (a != b))
        rows, cols = np.concatenate([a[out], b[into]]), np.concatenate([out, into])
        data = np.concatenate([-np.ones(out.size), np.ones(into.size)])
        return sparse.csr_array((data, (rows, cols)), shape=(self.n, len(s)))

    def _ends(self, a: Ints, b: Ints) -> tuple[Ints, Ints, Ints]:
        units, branches, known = [], [], []
        for own, other in ((self.index[a], self.index[b]), (self.index[b], self.index[a])):
            has = np.flatnonzero((own >= 0) & (own != other))
            units.append(own[has])
            branches.append(has)
            known.append(other[has] < 0)
        return np.concatenate(units), np.concatenate(branches), np.flatnonzero(np.concatenate(known))

    # -- flat branches ---------------------------------------------------------------------------------------------

    def _flat(self, a: Ints, b: Ints) -> tuple[Scatter, Scatter, list[Dense]]:
        """Flat conductors: dense blocks where enough branches are present, sparse matrices for the rest."""
        ia, ib = self.index[a], self.index[b]
        inner = np.flatnonzero((ia >= 0) & (ib >= 0) & (ia != ib))
        low = np.where(self.color[ia[inner]] < self.color[ib[inner]], ia[inner], ib[inner])
        high = ia[inner] + ib[inner] - low
        dense: list[Dense] = []
        left = np.ones(inner.size, bool)
        pair = self.color[low] * self.color_ptr.size + self.color[high]
        for p in np.flatnonzero(np.bincount(pair) >= _LEAST_ENTRIES):
            chosen = np.flatnonzero(pair == p)
            core = dense_core(low[chosen], high[chosen])
            if core is not None:
                taken, rows, cols = core
                left[chosen[taken]] = False
                sides = Side(_as_slice(rows), None), Side(_as_slice(cols), None)
                dense.append(_flat_dense(*sides, rows, cols, low, high, chosen[taken], inner))
        i, j, branch = low[left], high[left], inner[left]
        couplings = _scatter(
            np.concatenate([i, j]),
            np.concatenate([j, i]),
            np.tile(branch, 2),
            np.ones(2 * branch.size),
            (self.n, self.n),
        )
        known_couplings, known_dense = self._flat_known(a, b)
        return couplings, known_couplings, dense + known_dense

    def _flat_known(self, a: Ints, b: Ints) -> tuple[Scatter, list[Dense]]:
        """Conductors to fixed potentials, and the offsets at the ends of the others."""
        rows, cols, branches, signs, dense = [], [], [], [], []
        for own, other in ((a, b), (b, a)):
            unit = self.index[own]
            joined = (unit >= 0) & (unit != self.index[other])
            to_fixed = np.flatnonzero(joined & (self.column[other] >= 0) & (other != 0))
            own_offset = np.flatnonzero(joined & (self.column[own] >= 0))
            for chosen, nodes, plus in ((to_fixed, other, 1.0), (own_offset, own, -1.0)):
                rows.append(unit[chosen])
                cols.append(self.column[nodes[chosen]])
                branches.append(chosen)
                signs.append(np.full(chosen.size, plus))
        row, col, branch, sign = (np.concatenate(x) for x in (rows, cols, branches, signs))
        entries = np.flatnonzero((sign > 0) & (self.index[self.fixed_nodes[col]] < 0))
        core = dense_core(col[entries], row[entries])
        left = np.ones(row.size, bool)
        if core is not None:
            taken, known, units = core
            left[entries[taken]] = False
            side, other_side = Side(None, _as_slice(known)), Side(_as_slice(units), None)
            dense.append(_flat_dense(side, other_side, known, units, col, row, entries[taken], branch))
        return _scatter(row[left], col[left], branch[left], sign[left], (self.n, self.fixed_nodes.size)), dense

    # -- crossbars -------------------------------------------------------------------------------------------------

    def _crossbar(self, k: int) -> list[Dense]:
        """A crossbar as dense blocks: known or free rows by known or free columns, split by colour."""
        crossbar = self.circuit.crossbars[k]
        blocks = []
        for row_pick in self._parts(crossbar.rows):
            for col_pick in self._parts(crossbar.cols):
                row = self._side(crossbar.rows[row_pick])
                col = self._side(crossbar.cols[col_pick])
                if row.units is None and col.units is None:
                    continue  # between known nodes: no unknown feels it
                if self._same_units(crossbar.rows[row_pick], crossbar.cols[col_pick]):
                    continue  # both ends of each resistor on one unit: it carries nothing
                shape = (crossbar.rows[row_pick].size, crossbar.cols[col_pick].size)
                none = np.zeros(0, np.int64)
                blocks.append(Dense(row, col, shape, k, _as_slice(row_pick), _as_slice(col_pick), none, none))
        return blocks

    def _parts(self, nodes: Ints) -> list[Ints]:
        """Positions of the known nodes, and of the free ones colour by colour, each unit at most once a part."""
        unit = self.index[nodes]
        known = np.flatnonzero(unit < 0)
        parts = [known] if known.size else []
        free = np.flatnonzero(unit >= 0)
        if not free.size:
            return parts
        color = self.color[unit[free]]
        _, inverse, counts = np.unique(unit[free], return_inverse=True, return_counts=True)
        repeat = np.zeros(free.size, np.int64)
        if counts.max() > 1:
            by_unit = np.argsort(inverse, kind="stable")
            starts = np.cumsum(counts) - counts
            repeat[by_unit] = np.arange(free.size) - np.repeat(starts, counts)
        for key in np.unique(color * (repeat.max() + 1) + repeat):
            parts.append(free[color * (repeat.max() + 1) + repeat == key])
        return parts

    def _same_units(self, rows: Ints, cols: Ints) -> bool:
        """Units of one colour are not adjacent: rows and columns of one colour can only be one and the same unit."""
        row, col = self.index[rows[0]], self.index[cols[0]]
        return bool(row >= 0 and col >= 0 and self.color[row] == self.color[col])

    def _side(self, nodes: Ints) -> Side:
        unit, column = self.index[nodes], self.column[nodes]
        if unit[0] < 0:
            return Side(None, _as_slice(column))
        if (column < 0).all():
            return Side(_as_slice(unit), None)
        return Side(_as_slice(unit), np.maximum(column, self.column[0]))


def dense_core(rows: Ints, cols: Ints) -> tuple[Ints, Ints, Ints] | None:
    """A dense part of a set of matrix entries: (positions of its entries, its rows, its columns), or None.

    Rows and columns with few entries (below a quarter of the most) are left to the sparse rest; the part pays when a
    fifth of its entries are present.
    """
    if rows.size < _LEAST_ENTRIES:
        return None
    row_count, col_count = np.bincount(rows), np.bincount(cols)
    row_ok = row_count >= max(0.25 * row_count.max(), 1)
    col_ok = col_count >= max(0.25 * col_count.max(), 1)
    taken = np.flatnonzero(row_ok[rows] & col_ok[cols])
    in_rows, in_cols = (np.flatnonzero(np.bincount(ends[taken])) for ends in (rows, cols))
    size = in_rows.size * in_cols.size
    if size < _MIN_DENSE or taken.size < _DENSE_SHARE * size:
        return None
    return taken, in_rows, in_cols


def _flat_dense(
    row: Side, col: Side, rows: Ints, cols: Ints, row_of: Ints, col_of: Ints, entries: Ints, branch: Ints
) -> Dense:
    """A dense block from flat branches; entry k joins row_of[k] and col_of[k] through branch[k]."""
    i = np.searchsorted(rows, row_of[entries])
    j = np.searchsorted(cols, col_of[entries])
    everything = slice(0, 0)
    return Dense(row, col, (rows.size, cols.size), -1, everything, everything, branch[entries], i * cols.size + j)


def _scatter(row: Ints, col: Ints, branch: Ints, sign: Floats, shape: tuple[int, int]) -> Scatter:
    """The pattern of a sparse matrix whose entries (row[k], col[k]) sum over branches."""
    key = row * max(shape[1], 1) + col
    order = np.argsort(key, kind="stable")
    sorted_key = key[order]
    new = np.r_[True, sorted_key[1:] != sorted_key[:-1]] if key.size else np.zeros(0, bool)
    position = np.empty(key.size, np.int64)
    position[order] = np.cumsum(new) - 1
    entries = order[new]
    indptr = np.searchsorted(row[entries], np.arange(shape[0] + 1))
    return Scatter(shape, indptr, col[entries], branch, position, sign)


def _as_slice(indices: Ints) -> slice | Ints:
    """Consecutive indices as a slice: views instead of copies."""
    if indices.size and np.array_equal(indices, np.arange(indices[0], indices[0] + indices.size)):
        return slice(int(indices[0]), int(indices[0]) + indices.size)
    return indices
