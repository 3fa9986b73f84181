"""Where to draw the nodes of a circuit: layers as columns, grids as grids, chains as lines, all else by distances.

The rest is placed part by part, without ground and similar nodes, which are joined to everything and so say nothing
about position: small parts by Kamada and Kawai's springs (networkx), large ones so that distances on paper resemble
the numbers of branches between nodes, by pivot MDS: U. Brandes and C. Pich, "Eigensolver methods for progressive
multidimensional scaling of large data", Graph Drawing 2006. Everything is deterministic, and takes seconds for a
million nodes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from circuitsim.circuit import Circuit
from circuitsim.compiled import jit
from circuitsim.shapes import Grid, Shapes, adjacency

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SPRINGS = 100  # nodes of a part that springs place, in a circuit that is not large itself
_SMALL = 2_000  # nodes of such a circuit
_PIVOTS = 24  # nodes from which all distances are taken
_PLACED_APART = 300  # parts that are placed with care, largest first; the others become rings
_HUB = 8.0  # times the root of the number of nodes: joined to so many others, a node says nothing about where they are
_LONG = 4  # times its width: a part that is drawn as a strip
_WIDEST = 6  # nodes across a strip
_UNFOLDED = 24  # nodes along a strip that is not folded yet
_WIDE = 1.6  # width of a picture over its height
_ROUNDS = 50  # in which nodes beside those of a shape find their place
_GOLDEN = math.pi * (3.0 - math.sqrt(5.0))


def layout(circuit: Circuit, shapes: Shapes | None = None) -> Floats:
    """Positions of all nodes, in the order of `circuit.nodes`, (n_nodes, 2): x to the right, y upwards.

    Nodes that are joined are about 1 apart (layers: nodes of the largest layer). Ground, node 0, lies below all others.
    `shapes`: those of the circuit, when they are known already.

    >>> from circuitsim.build import parse
    >>> layout(parse("ladder\\nV1 a 0 1\\nR1 a b 1\\nR2 b c 1\\nR3 c 0 1"))
    array([[ 1.  , -1.25],
           [ 0.  ,  0.  ],
           [ 1.  ,  0.  ],
           [ 2.  ,  0.  ]])
    """
    shapes = shapes or Shapes(circuit)
    n = len(circuit.nodes)
    a, b = shapes.joined
    a, b = a[a > 0], b[a > 0]
    graph = adjacency(n, a, b)
    at, placed = np.zeros((n, 2)), np.zeros(n, bool)
    if shapes.layers:
        _place_layers(at, shapes.layers)
        placed[np.concatenate(shapes.layers)] = True
    else:
        right = 0.0
        for stack in shapes.grids:
            right = _place_stack(at, placed, stack, right) + 2.0
    if placed.any():
        _place_beside(at, placed, graph)
    placed[0] = True
    if not placed.all():
        left = np.flatnonzero(~placed)
        where = _place_parts(graph[left][:, left])
        if len(left) < n - 1:  # beside what has its place
            rest = at[placed][1:]
            where += [rest[:, 0].max() + 2.0 - where[:, 0].min(), rest[:, 1].max() - where[:, 1].max()]
        at[left] = where
    if n > 1:
        low, high = at[1:].min(axis=0), at[1:].max(axis=0)
        at[0] = (low[0] + high[0]) / 2, low[1] - max(1.25, 0.06 * (high[1] - low[1]))
    return at


# -- shapes ------------------------------------------------------------------------------------------------------------


def _place_layers(at: Floats, layers: list[Ints]) -> None:
    """Each layer as a column, its first node at the top; small layers are drawn out to half the height."""
    most = max(layer.size for layer in layers)
    height = max(most - 1, 1)
    width = max(1.5, _WIDE * height / (len(layers) - 1))
    for k, layer in enumerate(layers):
        span = height * max(layer.size / most, 0.5) if layer.size > 1 else 0.0
        at[layer, 0] = k * width
        at[layer, 1] = np.linspace(span / 2, -span / 2, layer.size)


def _place_stack(at: Floats, placed: NDArray[np.bool_], stack: list[Grid], left: float) -> float:
    """Grids that lie over each other, shifted a little; row 0 at the top. Returns where they end."""
    right = left
    for k, grid in enumerate(stack):
        shift = 0.7 * k / len(stack)
        i, j = np.nonzero(grid.nodes >= 0)
        nodes = grid.nodes[i, j]
        at[nodes, 0] = left + j + shift
        at[nodes, 1] = -i - shift
        placed[nodes] = True
        right = max(right, left + grid.nodes.shape[1])
    return right


def _place_beside(at: Floats, placed: NDArray[np.bool_], graph: sparse.csr_array) -> None:
    """Nodes that are joined to placed ones: each next to them, away from what is there; in rounds."""
    for _ in range(_ROUNDS):
        weight = graph @ placed.astype(np.float32)
        new = np.flatnonzero(~placed & (weight > 0))
        if not new.size:
            return
        known = np.where(placed[:, None], at, 0.0)
        around = (graph @ known) / np.maximum(weight, 1.0)[:, None]  # of each node: the middle of its placed neighbours
        away = np.where((placed & (weight > 0))[:, None], at - around, 0.0)
        direction = (graph[new] @ away) / weight[new][:, None]
        along = np.abs(direction).argmax(axis=1)  # to the left, right, top or bottom
        step = np.zeros_like(direction)
        rows = np.arange(new.size)
        step[rows, along] = np.where(direction[rows, along] < 0, -1.0, 1.0)
        spot = around[new]
        nth = _number_among_equals(np.round(np.column_stack([spot, step]), 6))
        at[new] = spot + step * (1.0 + 0.6 * nth)[:, None]
        placed[new] = True


def _number_among_equals(rows: Floats) -> Ints:
    """How many equal rows stand before each row."""
    _, which = np.unique(rows, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    found = which.ravel()[order]
    starts = np.flatnonzero(np.r_[True, found[1:] != found[:-1]])
    number = np.arange(found.size) - np.repeat(starts, np.diff(np.r_[starts, found.size]))
    out = np.empty(found.size, np.int64)
    out[order] = number
    return out


# -- parts -------------------------------------------------------------------------------------------------------------


def _place_parts(graph: sparse.csr_array) -> Floats:
    """Every connected part by itself, hubs left out, then all of them in rows, largest first; hubs amid their nodes.

    Where most of a node's neighbours are hubs it is none: many are joined to many others there.
    """
    n = graph.shape[0]
    degree = np.diff(graph.indptr)
    hubs = degree > max(_HUB * math.sqrt(n), 40.0)
    hubs &= 2 * (graph @ hubs) <= degree
    kept = np.flatnonzero(~hubs)
    at = np.zeros((n, 2))
    at[kept] = _place_connected(graph[kept][:, kept] if hubs.any() else graph)
    for hub in np.flatnonzero(hubs).tolist():
        around = graph.indices[graph.indptr[hub] : graph.indptr[hub + 1]]
        at[hub] = at[around[~hubs[around]]].mean(axis=0) + 0.5
    return at


def _place_connected(graph: sparse.csr_array) -> Floats:
    n = graph.shape[0]
    count, label = csgraph.connected_components(graph, directed=False)
    if count == 1:
        return _place_part(graph, n)
    size = np.bincount(label, minlength=count)
    first = np.unique(label, return_index=True)[1]
    order = np.lexsort((first, -size))  # of parts
    rank = np.empty(count, np.int64)
    rank[order] = np.arange(count)
    nodes = np.lexsort((np.arange(n), rank[label]))  # part after part
    sizes = size[order]
    starts = np.cumsum(sizes) - sizes
    place = np.arange(n) - np.repeat(starts, sizes)  # of each node within its part
    many = np.repeat(sizes, sizes)
    radius = np.where(many > 2, 0.5 / np.sin(np.pi / np.maximum(many, 3)), 0.5)  # neighbours in a ring: 1 apart
    angle = np.pi - 2 * np.pi * place / many
    local = np.where((many > 1)[:, None], radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.0)
    for k in range(min(_PLACED_APART, int(np.searchsorted(-sizes, -2)))):  # those of three nodes and more
        own = slice(starts[k], starts[k] + sizes[k])
        members = nodes[own]
        local[own] = _place_part(graph[members][:, members], n)
    low = np.minimum.reduceat(local, starts)
    box = np.maximum.reduceat(local, starts) - low + 1.5
    corner = _packed(box)
    at = np.empty((n, 2))
    at[nodes] = local - np.repeat(low, sizes, axis=0) + np.repeat(corner, sizes, axis=0)
    return at


def _packed(box: Floats) -> Floats:
    """Lower left corners of boxes (width, height) side by side, in rows from top to bottom."""
    width = max(math.sqrt(_WIDE * float(box.prod(axis=1).sum())), float(box[:, 0].max()))
    ends = np.cumsum(box[:, 0])
    row = ((ends - box[:, 0]) // width).astype(np.int64)
    row = np.unique(row, return_inverse=True)[1]
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    tall = np.maximum.reduceat(box[:, 1], starts)
    x = ends - box[:, 0] - np.repeat((ends - box[:, 0])[starts], np.diff(np.r_[starts, len(box)]))
    y = -np.cumsum(tall)[row] + (tall[row] - box[:, 1])
    return np.stack([x, y], axis=1)


def _place_part(graph: sparse.csr_array, all_nodes: int) -> Floats:
    """One connected part of a graph of so many nodes."""
    n = graph.shape[0]
    if n < 3:
        return np.array([[0.0, 0.0], [1.0, 0.0]])[:n]
    strip = _strip(graph)
    if strip is not None:
        return strip
    at = _by_springs(graph) if n <= _SPRINGS and all_nodes <= _SMALL else _by_distances(graph)
    a, b = sparse.triu(graph, format="coo").coords
    length = np.hypot(*(at[a] - at[b]).T)
    at = _turned(at / max(float(np.median(length)), 1e-9))
    return _apart(at)


def _by_springs(graph: sparse.csr_array) -> Floats:
    import networkx as nx

    found = nx.kamada_kawai_layout(nx.from_scipy_sparse_array(graph), weight=None)
    return np.array([found[k] for k in range(graph.shape[0])], np.float64)


def _by_distances(graph: sparse.csr_array) -> Floats:
    """Pivot MDS: pivots far from each other, squared distances to them, centred, and their two main directions."""
    n = graph.shape[0]
    squares = np.empty((n, min(_PIVOTS, n)), np.float32)
    start, nearest = int(_levels(graph, 0)[2].argmax()), np.full(n, np.iinfo(np.int64).max)
    for k in range(squares.shape[1]):
        level = _levels(graph, start)[2]
        squares[:, k] = level.astype(np.float32) ** 2
        nearest = np.minimum(nearest, level)
        start = int(nearest.argmax())
    centred = squares.mean(axis=0) + squares.mean(axis=1)[:, None] - squares.mean() - squares
    _, vectors = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    return centred @ vectors[:, :-3:-1]


def _turned(at: Floats) -> Floats:
    """Turned so that the longer side is horizontal, and the first node on the left and in the upper half."""
    at = at - at.mean(axis=0)
    _, axes = np.linalg.eigh(at.T @ at)
    at = at @ axes[:, ::-1]
    at[:, 0] *= -1.0 if at[0, 0] > 0 else 1.0
    at[:, 1] *= -1.0 if at[0, 1] < 0 else 1.0
    return at


def _apart(at: Floats) -> Floats:
    """Nodes at one place, as twins are, drawn apart in a spiral."""
    nth = _number_among_equals(np.round(at, 1))
    out = 0.3 * np.sqrt(nth)
    return at + np.stack([out * np.cos(nth * _GOLDEN), out * np.sin(nth * _GOLDEN)], axis=1)


# -- strips ------------------------------------------------------------------------------------------------------------


def _strip(graph: sparse.csr_array) -> Floats | None:
    """A long and narrow part, a chain or a ladder, along its length, folded when it is very long; None otherwise."""
    ends = []
    start = 0
    for _ in range(2):  # the node farthest from the farthest one
        start = int(_levels(graph, start)[2].argmax())
        ends.append(start)
    order, parent, level = _levels(graph, min(ends))
    length, width = int(level.max()) + 1, int(np.bincount(level).max())
    if width > _WIDEST or (width > 1 and length < _LONG * width):
        return None
    slot = np.zeros(graph.shape[0], np.int64)
    _give_slots(order, parent, level, slot)
    pitch = float(slot.max()) + 1.75
    per_row = length if length <= _UNFOLDED else max(_UNFOLDED, math.ceil(math.sqrt(_WIDE * length * pitch)))
    row, x = np.divmod(level, per_row)
    x = np.where(row % 2 == 1, per_row - 1 - x, x)
    return np.stack([x.astype(np.float64), -row * pitch - slot], axis=1)


def _levels(graph: sparse.csr_array, start: int) -> tuple[Ints, Ints, Ints]:
    """Of a connected graph: its nodes breadth first, the parent of each (its own: `start`), branches from `start`."""
    n = graph.shape[0]
    order, parent, level = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, -1)
    _walk(graph.indptr.astype(np.int64), graph.indices.astype(np.int64), start, order, parent, level)
    return order, parent, level


@jit()
def _walk(indptr, indices, start, order, parent, level):
    """Breadth first from one node."""
    order[0], parent[start], level[start] = start, start, 0
    known = 1
    for k in range(order.size):
        u = order[k]
        for e in range(indptr[u], indptr[u + 1]):
            v = indices[e]
            if level[v] < 0:
                level[v], parent[v] = level[u] + 1, u
                order[known] = v
                known += 1


@jit()
def _give_slots(order, parent, level, slot):
    """Places across: the child with most nodes behind it goes straight on, others to the first free place."""
    n = order.size
    behind = np.ones(n, np.int64)
    heir = np.full(n, -1, np.int64)
    for k in range(n - 1, 0, -1):
        u = order[k]
        behind[parent[u]] += behind[u]
    for k in range(n - 1, 0, -1):
        u = order[k]
        p = parent[u]
        if heir[p] < 0 or behind[u] >= behind[heir[p]]:
            heir[p] = u
    taken = np.full(n + 1, -1, np.int64)  # taken[s] == l: place s of level l
    first = 1
    while first < n:
        now = level[order[first]]
        last = first
        while last < n and level[order[last]] == now:
            u = order[last]
            if heir[parent[u]] == u:
                slot[u] = slot[parent[u]]
                taken[slot[u]] = now
            last += 1
        for k in range(first, last):
            u = order[k]
            if heir[parent[u]] != u:
                s = 0
                while taken[s] == now:
                    s += 1
                slot[u] = s
                taken[s] = now
        first = last
