"""Nodes -> units: nodes that voltage sources and shorts tie together move as one, with fixed offsets between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.circuit import Circuit
from circuitsim.compiled import jit
from circuitsim.errors import TopologyError, listed
from circuitsim.graphs import breadth_first, components
from circuitsim.netlist.model import KINDS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LOOP_TOLERANCE = 1e-12  # of the largest voltage in a loop: rounding in 0.1 + 0.2 = 0.3


@dataclass(frozen=True)
class TieForest:
    """A spanning forest of the ties. Arrays over the tied nodes, `nodes`; a root is its own parent.

    v[nodes[k]] = v[nodes[parent[k]]] + sign[k] e[tie[k]]; ties that are not in the forest close loops (`chords`).
    """

    nodes: Ints  # (n,) node
    parent: Ints  # (n,) position in nodes
    tie: Ints  # (n,) tie to the parent; any tie at a root
    sign: Floats  # (n,) +1, -1, or 0 at a root
    root: Ints  # (n,) position in nodes
    chords: Ints  # ties outside the forest
    depth: int  # a power of two, at least the ties above the deepest node
    order: Ints  # (n,) positions, every parent before its children

    @cached_property
    def rank(self) -> Ints:
        """The place of each position in `order`, (n,): less than those of all that hang on it."""
        rank = np.empty(self.order.size, np.int64)
        rank[self.order] = np.arange(self.order.size)
        return rank

    def roots(self, n_nodes: int) -> Ints:
        """The root node of each node's tied group, (n_nodes,); of an untied one the node itself."""
        root = np.arange(n_nodes)
        root[self.nodes] = self.nodes[self.root]
        return root

    def offsets(self, e: Floats) -> Floats:
        """Potentials of the tied nodes relative to their roots, (batch, n), by pointer doubling; e is (batch, ties)."""
        offset = e.take(self.tie, axis=1)
        offset *= self.sign
        for ancestor in self._ancestors():
            offset += offset.take(ancestor, axis=1)
        return offset

    def moved_by(self, ties: Ints) -> NDArray[np.bool_]:
        """Which of the tied nodes move with any of these sources, (n,)."""
        moved = np.isin(self.tie, ties) & (self.sign != 0)
        for ancestor in self._ancestors():
            moved = moved | moved[ancestor]
        return moved

    def _ancestors(self) -> Iterator[Ints]:
        """The nodes 1, 2, 4, ... ties above each, up to the depth; a root above itself."""
        ancestor, reach = self.parent, 1
        while reach < self.depth:
            yield ancestor
            ancestor, reach = ancestor[ancestor], 2 * reach

    def pulls(self, out: Floats, n_ties: int) -> Floats:
        """`offsets` transposed: values of the tied nodes, (batch, n), summed for each source over the nodes that it
        moves, with the sign by which it does, (batch, ties); 0 for chords.
        """
        total = np.array(out, order="C")  # of a node and all that hang on it
        if self.depth > 1:
            _gather(self.order, self.parent, total)
        found, free = np.zeros((out.shape[0], n_ties)), np.flatnonzero(self.sign)
        found[:, self.tie[free]] = self.sign[free] * total[:, free]
        return found


def tie_forest(circuit: Circuit) -> TieForest:
    """Span the ties from ground and, elsewhere, from the first node (in deck order) of each tied group.

    Sources that control an F or H are left out: their currents are unknowns of their own (Circuit.active).
    """
    ties = circuit.ties
    nodes, local = np.unique(np.concatenate([ties.a, ties.b]), return_inverse=True)
    n, m = nodes.size, len(ties)
    a, b = local[:m], local[m:]
    low, high = np.minimum(a, b), np.maximum(a, b)
    pair = low * n + high
    kept = np.setdiff1d(np.arange(m), circuit.probes)
    first_pairs, first_ties = np.unique(pair[kept], return_index=True)
    first_ties = kept[first_ties]
    usable = first_pairs // max(n, 1) != first_pairs % max(n, 1)  # not a tie from a node to itself
    first_pairs, first_ties = first_pairs[usable], first_ties[usable]
    roots = np.unique(components(n, low[first_ties], high[first_ties]))  # nodes are sorted: the first of each group
    order, parent = breadth_first(n, low[first_ties], high[first_ties], roots)
    at_root = parent == np.arange(n)
    up = np.minimum(parent, np.arange(n)) * n + np.maximum(parent, np.arange(n))
    tie = np.zeros(n, np.int64)
    if first_ties.size:
        found = np.searchsorted(first_pairs, up).clip(max=first_ties.size - 1)
        tie = np.where(at_root, 0, first_ties[found])
    sign = np.where(at_root, 0.0, np.where(a[tie] == np.arange(n), 1.0, -1.0)) if m else np.zeros(n)
    chords = np.setdiff1d(np.setdiff1d(np.arange(m), tie[~at_root]), circuit.probes)
    depth, ancestor = 1, parent
    while not np.array_equal(ancestor, ancestor[ancestor]):
        ancestor, depth = ancestor[ancestor], 2 * depth
    return TieForest(nodes, parent, tie, sign, ancestor, chords, depth, order)


def check_loops(circuit: Circuit, forest: TieForest, e: Floats, offsets: Floats, first_row: int) -> None:
    """Every loop of ties must add up to 0 V. Raises TopologyError naming the loop and the volts by which it fails.

    `e` (rows, ties) and `offsets` are those of the batch rows from `first_row` on.
    """
    ties = circuit.ties
    if not forest.chords.size:
        return
    a = np.searchsorted(forest.nodes, ties.a[forest.chords])
    b = np.searchsorted(forest.nodes, ties.b[forest.chords])
    error = offsets[:, a] - offsets[:, b] - e[:, forest.chords]
    for k in np.flatnonzero(error.any(axis=0)).tolist():  # summed again from the loop's own voltages alone
        chord = int(forest.chords[k])
        path = signed_path(forest, int(ties.a[chord]), int(ties.b[chord]))
        loop = [chord, *(t for t, _ in path)]
        terms = e[:, loop] * [-1.0, *(sign for _, sign in path)]
        volts, allowed = np.abs(terms.sum(axis=1)), LOOP_TOLERANCE * np.abs(terms).max(axis=1)
        if (volts > allowed).any():
            row = int((volts > allowed).argmax())
            _refuse_loop(circuit, loop, float(volts[row]), first_row + row if e.shape[0] > 1 else None)


def _refuse_loop(circuit: Circuit, loop: list[int], volts: float, row: int | None) -> None:
    ties = circuit.ties
    names = [circuit.element(ties, t) for t in loop]
    latest = max(loop, key=lambda t: at.line if (at := circuit.at(ties, t)) else -1)
    of_row = "" if row is None else f" in batch row {row}"
    shorts = [name for name, t in zip(names, loop, strict=True) if KINDS[ties.kind[t]] in "RL"]
    what = "voltage sources and shorts" if shorts else "voltage sources"
    fault = f"loop of {what} {listed(names)}: its voltages add up to"
    cure = f"{f'remove {shorts[0]}, ' if shorts else ''}put a resistor in the loop, or make the voltages agree"
    if len(loop) == 1:
        fault = f"voltage source {names[0]}: both its ends are at node {circuit.nodes[ties.a[latest]]}, and it asks for"
        cure = "give it two nodes"
    raise TopologyError(
        f"{fault} {volts:g} V instead of 0{of_row}; {cure}",
        circuit.at(ties, latest),
        nodes=[circuit.nodes[ties.a[t]] for t in loop],
        elements=names,
    )


def signed_path(forest: TieForest, a: int, b: int) -> list[tuple[int, float]]:
    """The ties from node a to node b, with signs: v[a] - v[b] = sum of sign e. Both must be of one tied group."""
    i, j = (int(np.searchsorted(forest.nodes, node)) for node in (a, b))
    there, back = [], []
    while i != j:  # up from the one that comes later in `order`: it is not above the other
        if forest.rank[i] > forest.rank[j]:
            there.append((int(forest.tie[i]), float(forest.sign[i])))
            i = int(forest.parent[i])
        else:
            back.append((int(forest.tie[j]), -float(forest.sign[j])))
            j = int(forest.parent[j])
    return there + back[::-1]


def unique_ties(circuit: Circuit, forest: TieForest) -> NDArray[np.bool_]:
    """Which ties lie on no loop of ties: KCL alone gives their currents, unless ideal diodes close a loop.

    Sources that control an F or H are not among the ties here, and unique as far as this can say.
    """
    a, b = (np.searchsorted(forest.nodes, ends) for ends in (circuit.ties.a, circuit.ties.b))
    unique = np.ones(a.size, bool)
    if forest.chords.size:
        chosen = np.flatnonzero(np.isin(forest.root[a], forest.root[a[forest.chords]]) & (a != b))
        chosen = np.setdiff1d(chosen, circuit.probes)
        unique[chosen] = bridges(a[chosen], b[chosen])
        unique[a == b] = False
        unique[circuit.probes] = True
    return unique


def tie_currents(circuit: Circuit, forest: TieForest, out_of_node: Floats) -> Floats:
    """Currents (A) through the ties, a to b, (batch, ties).

    `out_of_node` (batch, tied nodes): what the rest of the circuit carries away from each tied node; by KCL the ties
    supply it. Where ties form loops the split is not unique: the least-norm one is given, as equal resistances would
    share the current. Without loops the currents follow exactly from KCL, leaf by leaf.
    """
    ties = circuit.ties
    m, n = len(ties), forest.nodes.size
    currents = forest.pulls(-out_of_node, m)  # a tie's current leaves its node a
    if not m:
        return currents
    a, b = np.searchsorted(forest.nodes, ties.a), np.searchsorted(forest.nodes, ties.b)
    looped = np.flatnonzero(~unique_ties(circuit, forest) & (a != b))
    if looped.size:
        currents[:, looped] = _least_norm(currents[:, looped], a[looped], b[looped], n)
    return currents


@jit()
def _gather(order: Ints, parent: Ints, total: Floats) -> None:
    """Add what each node has, (rows, n), to what its parent has, from the leaves on."""
    for row in range(total.shape[0]):
        for k in range(order.size - 1, -1, -1):
            if parent[order[k]] != order[k]:
                total[row, parent[order[k]]] += total[row, order[k]]


def _least_norm(currents: Floats, a: Ints, b: Ints, n: int) -> Floats:
    """Take the circulating part out of branch currents."""
    m = a.size
    incidence = sparse.csr_array(
        (np.concatenate([np.ones(m), -np.ones(m)]), (np.concatenate([a, b]), np.tile(np.arange(m), 2))), shape=(n, m)
    )
    out = np.empty_like(currents)
    for k, row in enumerate(currents):
        # The least-norm current with the same divergence: the potential part of `row`.
        potential = sparse.linalg.lsqr(incidence.T, row, atol=1e-15, btol=1e-15, iter_lim=10 * n + 100)[0]
        out[k] = incidence.T @ potential
    return out


def bridges(a: Ints, b: Ints) -> NDArray[np.bool_]:
    """Which branches lie on no loop: removing one cuts its ends apart. None joins a node to itself."""
    return ~on_loops_with(a, b, np.ones(a.size, bool))


def on_loops_with(a: Ints, b: Ints, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which branches lie on a loop together with a wanted one, which may be themselves; none joins a node to itself.

    Two branches lie on a common loop where no single node separates them (biconnected components).

    >>> a, b = np.array([0, 0, 0, 2, 3]), np.array([1, 1, 2, 3, 0])
    >>> on_loops_with(a, b, np.array([False, False, True, False, False]))
    array([False, False,  True,  True,  True])
    """
    import networkx as nx

    at: dict[frozenset[int], list[int]] = {}
    for k, pair in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        at.setdefault(frozenset(pair), []).append(k)
    simple: nx.Graph = nx.Graph()
    simple.add_edges_from(tuple(pair) for pair in at)
    found = np.zeros(a.size, bool)
    for block in nx.biconnected_component_edges(simple):
        own = [k for pair in block for k in at[frozenset(pair)]]
        found[own] = len(own) > 1 and wanted[own].any()
    return found
