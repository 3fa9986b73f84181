"""Shapes for drawing a circuit: which nodes are joined, layers, and grids as the names of nodes suggest them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from circuitsim.circuit import Circuit

Ints = NDArray[np.int64]

_MOST_CELLS = 2_000_000  # conductances of crossbars that are looked at one by one
_MOST_LAYERS = 12  # of a network without crossbars that still counts as layered
_MOST_OF = 0.5  # of the nodes of a circuit: those that its layers have at least
_DENSE = 0.1  # of the pairs between two layers: fewer are joined where there are no layers
_NUMBERED = re.compile(r"^(?:(.*?)(\d{1,9})[^\d\n]+(\d{1,9})[^\d\n]*|.*)$", re.MULTILINE)  # n3_4, a3[4], x1.n2
_SAMPLE = 1_000  # names that show whether it is worth reading all
_FILLED = 0.5  # of a grid's places, at least
_LOCAL = 0.75  # of the branches within a grid: neighbours


@dataclass(frozen=True)
class Grid:
    """Nodes whose names differ in two numbers, `n3_4` or `a3[4]`, and that are joined as their numbers are."""

    prefix: str  # what the names have in common: n, a
    nodes: Ints  # (rows, cols) node; -1: there is none


class Shapes:
    """The shapes of a circuit, each found when first requested."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit

    @cached_property
    def joined(self) -> tuple[Ints, Ints]:
        """See `joined`."""
        return joined(self.circuit)

    @cached_property
    def layers(self) -> list[Ints]:
        """The layers of a layered network, inputs first: sets of nodes, each joined to the next one only. [] elsewhere.

        Either its crossbars are a chain, or the distance from the sources gives the layers, which are densely joined.

        >>> from circuitsim.build import parse
        >>> deck = "two layers\\nV[0:2] x[0:2] 0 1\\nR1[0:2][0:1] x[0:2] h[0:1] 1k\\nR2[0:1][0:0] h[0:1] y[0:0] 1k"
        >>> [layer.tolist() for layer in Shapes(parse(deck)).layers]
        [[1, 2, 3], [4, 5], [6]]
        """
        if self.circuit.crossbars:
            return _chain_of_crossbars(self.circuit)
        return _layers_by_distance(self.circuit, *self.joined)

    @cached_property
    def grids(self) -> list[list[Grid]]:
        """The grids of nodes, those that lie over each other together.

        A grid has two rows and two columns at least, half of its places are filled, and three quarters of the branches
        within it, and to those that lie over it, join neighbours.
        """
        return _find_grids(self.circuit, *self.joined)


def span(names: list[str], nodes: Ints) -> str:
    """Nodes in a few words.

    >>> span(["0", "x[0]", "x[1]", "x[2]", "y"], np.array([1, 2, 3])), span(["0", "a", "b"], np.array([1, 2]))
    ('x[0:2]', 'a ... b')
    >>> span(["0", "x[0]", "x[1]", "x[2]"], np.array([1, 3]))
    'x[0] ... x[2]'
    """
    first, last = names[int(nodes[0])], names[int(nodes[-1])]
    base, bracket, index = first.rpartition("[")
    if bracket and last.startswith(base + bracket):
        a, b = index[:-1], last[len(base) + 1 : -1]
        if a.isdecimal() and b.isdecimal() and abs(int(a) - int(b)) == nodes.size - 1:
            return f"{base}[{a}:{b}]"
    return f"{first} ... {last}"


def joined(circuit: Circuit) -> tuple[Ints, Ints]:
    """The pairs of different nodes that a branch joins, each once, the lower node first, in ascending order.

    A controlled source is joined to what controls it, too. Of crossbars of more than 2e6 conductances in all, as many
    pairs as hold their lines together.
    """
    n = len(circuit.nodes)
    a, b = ([getattr(group, end) for group in circuit.groups.values()] for end in "ab")
    control, source = controls(circuit)
    a.append(control)
    b.append(source)
    each = sum(x.g.size for x in circuit.crossbars) <= _MOST_CELLS
    for x in circuit.crossbars:
        if each:
            i, j = np.nonzero(x.g)
        else:
            k = np.arange(max(x.g.shape))
            i = np.concatenate([k % x.rows.size, np.arange(x.rows.size)])
            j = np.concatenate([k % x.cols.size, np.zeros(x.rows.size, np.int64)])
        a.append(x.rows[i])
        b.append(x.cols[j])
    first, second = np.concatenate(a), np.concatenate(b)
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs = np.sort(low[low != high] * n + high[low != high])
    pairs = pairs[np.r_[True, pairs[1:] != pairs[:-1]]] if pairs.size else pairs  # faster than np.unique
    return pairs // n, pairs % n


def controls(circuit: Circuit) -> tuple[Ints, Ints]:
    """From a node that controls a source to a node of the source, ground where both are: (n,) each of Controlled."""
    s, (ca, cb) = circuit.controlled, circuit.control_ends
    return np.where(ca > 0, ca, cb), np.where(s.a > 0, s.a, s.b)


def adjacency(n: int, a: Ints, b: Ints) -> sparse.csr_array:
    """The graph on n nodes as a symmetric matrix of ones."""
    ones = np.ones(2 * a.size, np.float32)
    return sparse.csr_array((ones, (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(n, n))


# -- layers ------------------------------------------------------------------------------------------------------------


def driven(circuit: Circuit) -> NDArray[np.bool_]:
    """For each node: whether a voltage source or a short joins it to ground."""
    ties, found = circuit.ties, np.zeros(len(circuit.nodes), bool)
    found[ties.a[ties.b == 0]] = found[ties.b[ties.a == 0]] = True
    found[0] = False
    return found


def _chain_of_crossbars(circuit: Circuit) -> list[Ints]:
    """Rows and columns of crossbars that form a chain, from the end with more driven nodes; [] when they do not."""
    sets: dict[bytes, Ints] = {}
    beside: dict[bytes, set[bytes]] = {}
    for x in circuit.crossbars:
        keys = [np.unique(nodes).tobytes() for nodes in (x.rows, x.cols)]
        for key, other, nodes in zip(keys, keys[::-1], (x.rows, x.cols), strict=True):
            sets.setdefault(key, nodes)
            beside.setdefault(key, set()).add(other)
    ends = [key for key, others in beside.items() if len(others) == 1]
    if len(ends) != 2 or any(len(others) > 2 for others in beside.values()):
        return []
    nodes = np.concatenate(list(sets.values()))
    if np.unique(nodes).size != nodes.size or nodes.size < _MOST_OF * (len(circuit.nodes) - 1):
        return []  # a node in two layers, or a crossbar within something else
    fixed = driven(circuit)
    start, stop = ends
    if fixed[sets[stop]].sum() > fixed[sets[start]].sum():
        start = stop
    chain, seen = [start], {start}
    while onward := beside[chain[-1]] - seen:
        chain.append(onward.pop())
        seen.add(chain[-1])
    return [sets[key] for key in chain] if len(chain) == len(sets) else []


def _layers_by_distance(circuit: Circuit, a: Ints, b: Ints) -> list[Ints]:
    """Layers by the number of branches from the nodes that sources drive; [] where that makes no dense layers."""
    n = len(circuit.nodes)
    a, b = a[a > 0], b[a > 0]
    level = np.where(driven(circuit), 0, -1)
    level[0] = _MOST_LAYERS
    graph = adjacency(n, a, b)
    for k in range(1, _MOST_LAYERS):
        level[(graph @ (level == k - 1).astype(np.float32) > 0) & (level < 0)] = k
    if (level < 0).any() or (np.abs(level[a] - level[b]) != 1).any():
        return []
    layers = [np.flatnonzero(level == k) for k in range(_MOST_LAYERS)]
    layers = [layer for layer in layers if layer.size]
    between = np.bincount(np.minimum(level[a], level[b]), minlength=len(layers))
    for k, (near, far) in enumerate(zip(layers, layers[1:], strict=False)):
        if min(near.size, far.size) < 2 or between[k] < _DENSE * near.size * far.size:
            return []
    return layers if len(layers) > 1 else []


# -- grids -------------------------------------------------------------------------------------------------------------


def _find_grids(circuit: Circuit, a: Ints, b: Ints) -> list[list[Grid]]:
    """See Shapes.grids; a, b: what is joined."""
    n = len(circuit.nodes)
    family, row, col = np.full(n, -1), np.zeros(n, np.int64), np.zeros(n, np.int64)
    grids: list[Grid] = []
    for prefix, (nodes, first, second) in _numbered(circuit.nodes).items():
        i, j = (np.unique(x, return_inverse=True)[1] for x in (first, second))
        shape = int(i.max()) + 1, int(j.max()) + 1
        if min(shape) < 2 or nodes.size < _FILLED * shape[0] * shape[1]:
            continue
        places = np.full(shape, -1)
        places[i, j] = nodes
        family[nodes], row[nodes], col[nodes] = len(grids), i, j
        grids.append(Grid(prefix, places))
    if not grids:
        return []
    near = (np.abs(row[a] - row[b]) <= 1) & (np.abs(col[a] - col[b]) <= 1)
    both = (family[a] >= 0) & (family[b] >= 0)
    count, within = (_between(len(grids), family[a[some]], family[b[some]]) for some in (both, both & near))
    sizes = np.array([np.count_nonzero(grid.nodes >= 0) for grid in grids])
    first, second = within.coords
    over = within.data > 0.5 * np.minimum(sizes[first], sizes[second])  # a pair within one grid counts twice
    graph = sparse.csr_array((over[over], (first[over], second[over])), shape=within.shape)
    n_stacks, label = csgraph.connected_components(graph, directed=False)
    total, neighbours = (_inside(x, label, n_stacks) for x in (count, within))
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    kept = np.flatnonzero((neighbours >= _LOCAL * total) & (total > 0))
    return [[grids[k] for k in members[stack].tolist()] for stack in kept.tolist()]


def _between(n: int, i: Ints, j: Ints) -> sparse.coo_array:
    """How many branches join each pair of n grids, in both directions: of those that have some."""
    pair, count = np.unique(np.concatenate([i * n + j, j * n + i]), return_counts=True)
    return sparse.coo_array((count.astype(np.float64), (pair // n, pair % n)), shape=(n, n))


def _inside(pairs: sparse.coo_array, label: Ints, n: int) -> NDArray[np.float64]:
    """The sum over the pairs of grids within each of n stacks, (n,)."""
    i, j = pairs.coords
    same = label[i] == label[j]
    return np.bincount(label[i[same]], pairs.data[same], n).astype(np.float64, copy=False)


def _numbered(names: list[str]) -> dict[str, tuple[Ints, Ints, Ints]]:
    """Nodes with two numbers in their names, by what stands before these, in small letters: (nodes, first, second)."""
    sample = _NUMBERED.findall("\n".join(names[1 :: max(1, len(names) // _SAMPLE)]))
    if 3 * sum(found[1] != "" for found in sample) < len(sample):
        return {}
    found = _NUMBERED.findall("\n".join(names))
    nodes = np.array([k for k, (_, first, _) in enumerate(found) if first], np.int64)
    numbers = np.array([(int(first), int(second)) for _, first, second in found if first], np.int64)
    prefixes: dict[str, int] = {}
    family = np.array([prefixes.setdefault(p.lower(), len(prefixes)) for p, first, _ in found if first], np.int64)
    order = np.argsort(family, kind="stable")
    ends = np.searchsorted(family[order], np.arange(1, len(prefixes)))
    return {
        prefix: (nodes[own], numbers[own, 0], numbers[own, 1])
        for prefix, own in zip(prefixes, np.split(order, ends), strict=True)
    }
