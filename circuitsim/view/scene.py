"""What the page draws: nodes, groups of nodes, crossbars and elements, few enough for a browser with any circuit.

A vertex is a node, a group (a long side of a crossbar), a crossbar, or ground. An edge is an element, or the members of
an array that join the same two vertices. Circuits beyond the limits are drawn in part: what is near a node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from circuitsim.circuit import Circuit
from circuitsim.layout import layout
from circuitsim.netlist.model import KINDS
from circuitsim.shapes import span

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_VERTICES, MOST_EDGES = 1200, 2500  # drawn at once
MOST_PARALLEL = 20  # edges drawn between the same two vertices; a browser takes minutes for thousands
NEAR = 120  # vertices drawn around a node of a circuit that has more
WIDE = 32  # lines of a crossbar's side that are drawn one by one
_GROUNDS = 4  # neighbours of ground up to which it is one vertex; beyond, each neighbour has a ground of its own
_FINE = 150  # vertices of a whole circuit that are placed by all distances between them
_ROUNDS = 100  # of that
_STEP = 160.0  # length of an edge in the picture


@dataclass(frozen=True)
class Vertex:
    """A thing that edges join."""

    kind: str  # node, group, crossbar, ground
    label: str
    nodes: Ints  # (n,) the nodes that it stands for; empty for a crossbar
    key: int  # of a group its number, of a crossbar its number in Circuit.crossbars, else the node
    hidden: int  # edges that are not drawn; 0 of ground


@dataclass(frozen=True)
class Edge:
    """Elements of one kind that join the same two vertices: one, or members of an array."""

    kind: str
    name: str
    rows: Ints  # (n,) of the table of the kind
    a: int  # vertex of the first node
    b: int


@dataclass(frozen=True)
class Scene:
    """A picture: `wires` join a crossbar (first) to the vertices of its lines."""

    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    wires: tuple[tuple[int, int], ...]
    positions: Floats  # (vertices, 2)
    whole: bool  # whether all of the circuit is in it
    all_nodes: bool  # whether all its nodes are


class Drawing:
    """A circuit's vertices and edges, of which scenes are made.

    >>> from circuitsim.build import parse
    >>> scene = Drawing(parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k")).scene()
    >>> [v.label for v in scene.vertices], [(e.name, e.a, e.b) for e in scene.edges]
    (['0', 'in', 'out'], [('R1', 1, 2), ('R2', 2, 0), ('V1', 1, 0)])
    """

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.groups, group_of = _groups(circuit)
        grouped = group_of >= 0
        own = np.cumsum(~grouped) - 1  # ground is vertex 0: it is never grouped
        self.vertex_of_node = np.where(grouped, np.count_nonzero(~grouped) + group_of, own)
        self.singles = np.flatnonzero(~grouped)
        self.first_box = self.singles.size + len(self.groups)
        self.count = self.first_box + len(circuit.crossbars)
        tables = [circuit.netlist.tables[kind] for kind in KINDS]
        self.kind = np.repeat(np.arange(len(KINDS)), [len(t) for t in tables])
        self.row = np.concatenate([np.arange(len(t)) for t in tables])
        self.a = self.vertex_of_node[np.concatenate([t.a for t in tables])]
        self.b = self.vertex_of_node[np.concatenate([t.b for t in tables])]
        self._bundle()
        self.wires = self._wires()

    @property
    def whole(self) -> bool:
        """Whether all vertices can be drawn at once, and all edges but those beyond MOST_PARALLEL."""
        edges = np.count_nonzero(self._turn < MOST_PARALLEL)
        return self.count <= MOST_VERTICES and int(edges) + len(self.wires) <= MOST_EDGES

    def vertex(self, node: int) -> int:
        """The vertex that stands for a node."""
        return int(self.vertex_of_node[node])

    def label(self, vertex: int) -> str:
        """What is written at a vertex of nodes."""
        names, n_singles = self.circuit.nodes, self.singles.size
        return names[int(self.singles[vertex])] if vertex < n_singles else span(names, self.groups[vertex - n_singles])

    def busiest(self) -> int:
        """A node to begin with: an output, or a vertex with many neighbours, but not ground."""
        if self.circuit.netlist.read_nodes:
            return int(self.circuit.netlist.read_nodes[0])
        degree = np.bincount(np.concatenate([self.a, self.b]), minlength=self.count)[: self.singles.size]
        return int(self.singles[1 + int(degree[1:].argmax())]) if degree.size > 1 else 0

    def scene(self, centre: int | None = None) -> Scene:
        """All of it where that is few enough; or what is near the vertex of node `centre`."""
        if self.whole:
            chosen = np.ones(self.count, bool)
        else:
            chosen = self._near(self.vertex(self.busiest() if centre is None else centre))
        drawn = self._few(chosen[self.edge_a] & chosen[self.edge_b])
        where = np.full(self.count, -1)
        where[chosen] = np.arange(np.count_nonzero(chosen))
        hidden = np.zeros(self.count, np.int64)
        np.add.at(hidden, self.edge_a, ~drawn)
        np.add.at(hidden, self.edge_b, ~drawn & (self.edge_a != self.edge_b))  # once where both ends are at one vertex
        vertices = [self._vertex(k, int(hidden[k])) for k in np.flatnonzero(chosen).tolist()]
        edges = [self._edge(k, where) for k in np.flatnonzero(drawn).tolist()]
        wires = [(int(where[x]), int(where[y]), side) for x, y, side in self.wires.tolist() if chosen[x] and chosen[y]]
        return _laid_out(self.circuit, vertices, edges, wires, bool(drawn.all()), bool(chosen.all()))

    @cached_property
    def _turn(self) -> Ints:
        """For each edge, how many before it join the same two vertices."""
        pair = np.minimum(self.edge_a, self.edge_b) * self.count + np.maximum(self.edge_a, self.edge_b)
        order = np.argsort(pair, kind="stable")
        turn = np.empty_like(pair)
        turn[order] = np.arange(pair.size) - np.searchsorted(pair[order], pair[order])
        return turn

    def _few(self, edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Of these edges the first between any two vertices, and others up to MOST_PARALLEL and MOST_EDGES, evenly."""
        found = np.flatnonzero(edges & (self._turn < MOST_PARALLEL))
        turn = self._turn[found]
        few = np.zeros_like(edges)
        few[found[np.argsort(turn, kind="stable")[: max(MOST_EDGES, np.count_nonzero(turn == 0))]]] = True
        return few

    def _near(self, centre: int) -> NDArray[np.bool_]:
        """The vertices met first, ring by ring, from one of them; ground is met, but leads nowhere."""
        chosen = np.zeros(self.count, bool)
        chosen[[0, centre]] = True
        rim, left = np.array([centre]), NEAR
        start, neighbour = self._adjacency
        while rim.size and left > 0:
            found = np.concatenate([neighbour[start[v] : start[v + 1]][: 4 * NEAR] for v in rim.tolist()])
            _, first = np.unique(found, return_index=True)
            fresh = found[np.sort(first)]
            rim = fresh[~chosen[fresh]][:left]
            chosen[rim] = True
            left -= rim.size
        return chosen

    @cached_property
    def _adjacency(self) -> tuple[Ints, Ints]:
        """Where the neighbours of each vertex start, and the neighbours."""
        one, other = self.edge_a[self._turn == 0], self.edge_b[self._turn == 0]
        a = np.concatenate([one, other, self.wires[:, 0], self.wires[:, 1]])
        b = np.concatenate([other, one, self.wires[:, 1], self.wires[:, 0]])
        order = np.argsort(a, kind="stable")
        return np.searchsorted(a[order], np.arange(self.count + 1)), b[order]

    def _bundle(self) -> None:
        """Number the edges: an element each, but those of one array that join the same two vertices as one."""
        bundle = np.arange(self.kind.size)
        offset = dict(zip(KINDS, np.searchsorted(self.kind, np.arange(len(KINDS))).tolist(), strict=True))
        n_singles = self.singles.size
        self.array_of: dict[int, str] = {}
        for name, ref in self.circuit.netlist.arrays.items():
            if ref.kind not in offset:  # a crossbar
                continue
            members = offset[ref.kind] + np.arange(ref.start, ref.stop)
            members = members[(self.a[members] >= n_singles) | (self.b[members] >= n_singles)]
            _, first, back = np.unique(
                self.a[members] * self.count + self.b[members], return_index=True, return_inverse=True
            )
            bundle[members] = members[first[back.ravel()]]
            self.array_of |= dict.fromkeys(members[first].tolist(), name)
        self.by_edge = np.argsort(bundle, kind="stable")
        self.first_of, self.edge_start = np.unique(bundle[self.by_edge], return_index=True)
        self.edge_a, self.edge_b = self.a[self.first_of], self.b[self.first_of]
        self.n_edges = self.first_of.size

    def _edge(self, k: int, where: Ints) -> Edge:
        stop = self.edge_start[k + 1] if k + 1 < self.n_edges else self.by_edge.size
        members = self.by_edge[self.edge_start[k] : stop]
        first = int(members[0])
        kind = KINDS[self.kind[first]]
        name = self.circuit.netlist.tables[kind].names[int(self.row[first])]
        if members.size > 1:
            name = name[: len(self.array_of[first])]  # as the deck spells it
        return Edge(kind, name, self.row[members], int(where[self.edge_a[k]]), int(where[self.edge_b[k]]))

    def _wires(self) -> Ints:
        """(n, 3): crossbars, the vertices of their lines, each pair once, and 0 for rows, 1 for columns."""
        found = [np.zeros((0, 3), np.int64)]
        for k, x in enumerate(self.circuit.crossbars):
            ends, first = np.unique(self.vertex_of_node[np.concatenate([x.rows, x.cols])], return_index=True)
            found.append(np.stack([np.full(ends.size, self.first_box + k), ends, first >= x.rows.size], axis=1))
        return np.concatenate(found)

    def _vertex(self, k: int, hidden: int) -> Vertex:
        n_singles = self.singles.size
        if k >= self.first_box:
            x = self.circuit.crossbars[k - self.first_box]
            label = f"{x.name}\n{x.rows.size} × {x.cols.size}"
            return Vertex("crossbar", label, np.zeros(0, np.int64), k - self.first_box, hidden)
        if k >= n_singles:
            nodes = self.groups[k - n_singles]
            return Vertex("group", self.label(k), nodes, k - n_singles, hidden)
        node = int(self.singles[k])
        return Vertex("node" if node else "ground", self.label(k), np.array([node]), node, hidden if node else 0)


def _groups(circuit: Circuit) -> tuple[list[Ints], Ints]:
    """Nodes of the long sides of crossbars, and for each node its group or -1; ground stays single."""
    group_of = np.full(len(circuit.nodes), -1, np.int64)
    groups: list[Ints] = []
    for x in circuit.crossbars:
        for side in (x.rows, x.cols):
            fresh = np.array(list(dict.fromkeys(side[(group_of[side] < 0) & (side > 0)].tolist())), np.int64)
            if fresh.size > WIDE:
                group_of[fresh] = len(groups)
                groups.append(fresh)
    return groups, group_of


def _laid_out(
    circuit: Circuit,
    vertices: list[Vertex],
    edges: list[Edge],
    wires: list[tuple[int, int, int]],
    all_edges: bool,
    all_nodes: bool,
) -> Scene:
    """Give the vertices their places; ground with many neighbours becomes a vertex at each of them."""
    ground = next((k for k, v in enumerate(vertices) if v.kind == "ground"), -1)
    pairs = [(e.a, e.b) for e in edges] + [(box, v) for box, v, _ in wires]
    beside = {a + b - ground for a, b in pairs if ground in (a, b)} - {ground}
    drawn, n = list(vertices), len(vertices)
    if len(beside) > _GROUNDS:  # the one ground goes, its copies come behind the others
        copies = {v: n + k for k, v in enumerate(sorted(beside))}
        drawn += [vertices[ground]] * len(copies)
    else:
        copies = {}

    def end(own: int, other: int) -> int:
        return copies.get(other, own) if own == ground else own

    joined = [replace(e, a=end(e.a, e.b), b=end(e.b, e.a)) for e in edges]
    wired = [(box, end(v, box)) for box, v, _ in wires]
    if all_nodes and len(drawn) > _FINE:
        place = _by_nodes(circuit, vertices, wired)
        place |= {c: place[v] + np.array([0.3, 0.4]) * _STEP for v, c in copies.items()}
    else:
        graph = nx.Graph()
        graph.add_nodes_from(set(range(len(drawn))) - ({ground} if copies else set()))
        graph.add_edges_from((e.a, e.b) for e in joined if e.a != e.b and e.a in graph)
        for (box, v), (_, _, side) in zip(wired, wires, strict=True):  # -box - 1: where its columns leave a crossbar
            graph.add_edge(-box - 1 if side else box, v)
            graph.add_edge(box, -box - 1, ahead=(box, -box - 1))
        place = _by_parts(graph, {k for k, v in enumerate(drawn) if v.kind == "ground"})
        place |= {box: (place[box] + place[-box - 1]) / 2 for box, _, _ in wires if -box - 1 in place}
    kept = sorted(v for v in place if v >= 0 and not (copies and v == ground))
    where = {v: k for k, v in enumerate(kept)}
    return Scene(
        tuple(drawn[v] for v in kept),
        tuple(replace(e, a=where[e.a], b=where[e.b]) for e in joined if e.a in where),
        tuple((where[box], where[v]) for box, v in wired),
        np.array([place[v] for v in kept]).reshape(-1, 2),
        all_edges and all_nodes,
        all_nodes,
    )


def _by_nodes(circuit: Circuit, vertices: list[Vertex], wires: list[tuple[int, int]]) -> dict[int, Floats]:
    """A place for each vertex of a larger graph: that of its nodes (layout.py), in the mean; crossbars amid theirs."""
    at = layout(circuit) * np.array([_STEP, -_STEP])
    place = {k: at[v.nodes].mean(axis=0) for k, v in enumerate(vertices) if v.nodes.size}
    ends: dict[int, list[int]] = {}
    for box, end in wires:
        ends.setdefault(box, []).append(end)
    return place | {box: np.mean([place[v] for v in found], axis=0) for box, found in ends.items()}


def _by_parts(graph: nx.Graph, low: set[int]) -> dict[int, Floats]:
    """A place for each vertex of a small graph: its parts one by one, in rows, the largest first; `low` ones below."""
    place: dict[int, Floats] = {}
    parts = sorted((sorted(part) for part in nx.connected_components(graph)), key=lambda part: (-len(part), part))
    width = _STEP * max(6.0, 2.2 * graph.number_of_nodes() ** 0.5)
    x = y = row = 0.0
    for part in parts:
        spots = _part(graph.subgraph(part), part, low)
        spots -= spots.min(axis=0)
        wide, high = spots.max(axis=0).tolist()
        if x > 0 and x + wide > width:
            x, y, row = 0.0, y + row + 1.2 * _STEP, 0.0
        place |= {v: spot + np.array([x, y]) for v, spot in zip(part, spots, strict=True)}
        x, row = x + wide + 1.2 * _STEP, max(row, high)
    return place


def _part(graph: nx.Graph, part: list[int], low: set[int]) -> Floats:
    """Places of a connected part: by distances, turned so that lines run along the axes and the longer side is level.

    Lines are _STEP long, in the median.
    """
    if len(part) == 1:
        return np.zeros((1, 2))
    at = _by_distances(sparse.csr_array(nx.to_scipy_sparse_array(graph, part)))
    index = {v: k for k, v in enumerate(part)}
    spots = at[:, 0] + 1j * at[:, 1]
    lines = np.array([spots[index[a]] - spots[index[b]] for a, b in graph.edges])
    length = max(float(np.median(np.abs(lines))), 1e-9)
    spots = spots * np.exp(-0.25j * np.angle((lines**4).sum())) * (_STEP / length)
    if np.ptp(spots.imag) > 1.1 * np.ptp(spots.real):
        spots = spots * 1j
    ahead = [spots[index[b]] - spots[index[a]] for a, b in nx.get_edge_attributes(graph, "ahead").values()]
    if sum(ahead).real < 0:  # a crossbar's columns are to its right
        spots = -spots.conj()
    if sum(spots[index[v]].imag - spots.mean().imag for v in low & set(part)) < 0:
        spots = spots.conj()
    return np.stack([spots.real, spots.imag], axis=1)


def _by_distances(graph: sparse.csr_array) -> Floats:
    """Places that minimise the stress, sum over pairs of (|x_i - x_j| / d_ij - 1)^2, with d the lines between the two.

    By majorisation (E. Gansner, Y. Koren, S. North, "Graph drawing by stress majorization", 2004)
    from classical scaling.
    """
    n = graph.shape[0]
    d = csgraph.shortest_path(graph, unweighted=True)
    square = d**2
    _, vectors = np.linalg.eigh(square.mean(axis=0) + square.mean(axis=1)[:, None] - square.mean() - square)
    x = vectors[:, -2:] * d.max() + 0.01 * np.random.default_rng(1).standard_normal((n, 2))  # twins are pulled apart
    d += np.eye(n)
    inverse = np.linalg.pinv(_laplacian(d**-2.0))
    for _ in range(_ROUNDS):
        apart = np.linalg.norm(x[:, None] - x, axis=2) + np.eye(n)
        x = inverse @ (_laplacian(1.0 / (d * np.maximum(apart, 1e-9))) @ x)
    return x


def _laplacian(weights: Floats) -> Floats:
    off = weights - np.diag(np.diag(weights))
    return np.diag(off.sum(axis=1)) - off
