"""Islands: parts of a circuit without a resistive path to ground. What they may float on, and what no voltages can fix.

KCL on an island is solvable exactly when its net injected current can be routed to ground through nonlinear branches,
each within what its law can carry in that direction (a diode forward: any amount; a Shockley diode in reverse without
breakdown: IS): a maximum flow, whose minimum cut is the witness when it fails.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from circuitsim.circuit import Circuit
from circuitsim.errors import TopologyError
from circuitsim.laws import most_current

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BALANCE = 1e-12  # of the sum of the sources' absolute currents: rounding when they should cancel


@dataclass(frozen=True)
class Islands:
    """Parts joined by resistors and ties. `part[node]`: 0 holds ground; parts 1 ... n_parts - 1 are islands.

    `pins` are the nodes set to 0 V because nothing at all joins their part to ground: the first node (in deck order)
    of each group of islands that diodes join. `arcs` are the nonlinear branches between parts: (from, to, most amperes,
    branch kind, branch).
    """

    part: Ints  # (n_nodes,)
    n_parts: int
    pins: Ints
    pinned: NDArray[np.bool_]  # (n_nodes,) in a group that is pinned
    arcs: tuple[tuple[int, int, float, str, int], ...]

    def check(self, circuit: Circuit, i: Floats) -> None:
        """Raise TopologyError when source currents `i` (rows, n_sources) cannot leave, or reach, an island."""
        if self.n_parts <= 1:
            return
        s = circuit.current_sources
        for row in np.unique(i, axis=0):
            net = np.zeros(self.n_parts)
            np.add.at(net, self.part[s.b], row)
            np.subtract.at(net, self.part[s.a], row)
            size = np.bincount(self.part[s.b], abs(row), self.n_parts) + np.bincount(
                self.part[s.a], abs(row), self.n_parts
            )
            net[np.abs(net) <= _BALANCE * size] = 0.0
            net[0] = 0.0
            if net.any():
                self._route(circuit, net, push=True)
                self._route(circuit, net, push=False)

    def _route(self, circuit: Circuit, net: Floats, push: bool) -> None:
        """One max-flow: all that is pushed into islands must get out (push), all that is drawn must get in."""
        import networkx as nx

        sign = 1.0 if push else -1.0
        graph = nx.DiGraph()
        graph.add_node("source")
        graph.add_edge(0, "sink")
        for p in np.flatnonzero(net).tolist():
            if sign * net[p] > 0:
                graph.add_edge("source", p, capacity=abs(net[p]))
            else:
                graph.add_edge(p, "sink", capacity=abs(net[p]))
        for a, k, most, _, _ in self.arcs:
            ends = (a, k) if push else (k, a)
            old = graph.get_edge_data(*ends, default={"capacity": 0.0}).get("capacity", np.inf)
            graph.add_edge(*ends, **({} if np.isinf(old + most) else {"capacity": old + most}))
        wanted = float(np.maximum(sign * net, 0.0).sum())
        if wanted == 0.0:
            return
        flow, (stuck, _) = nx.minimum_cut(graph, "source", "sink")
        if flow < wanted * (1.0 - 1e-9):
            self._blame(circuit, net, {p for p in stuck if p != "source"}, push)

    def _blame(self, circuit: Circuit, net: Floats, parts: set[int], push: bool) -> None:
        inside = np.isin(self.part, list(parts))
        s = circuit.current_sources
        crossing = np.flatnonzero(inside[s.a] != inside[s.b])
        sources = [circuit.element(s, int(k)) for k in crossing]
        diodes = [
            circuit.element(getattr(circuit, group), k)
            for a, b, _, group, k in self.arcs
            if (a in parts) != (b in parts)
        ]
        nodes = [circuit.nodes[k] for k in np.flatnonzero(inside).tolist()]
        shown = ", ".join(nodes[:5]) + (f" and {len(nodes) - 5} more" if len(nodes) > 5 else "")
        blocked = f" ({', '.join(dict.fromkeys(diodes))} blocks it)" if diodes else ""
        verb = ("push" if push else "draw") + ("es" if push else "s") * (len(sources) == 1)
        amperes = abs(sum(float(net[p]) for p in parts))
        raise TopologyError(
            f"node {shown}: {', '.join(sources[:5])} {verb} a net {amperes:g} A "
            f"{'into' if push else 'from'} it, and no element can carry this current {'away' if push else 'there'}"
            f"{blocked}; connect it to ground with a resistor, or balance the sources",
            circuit.at(s, int(crossing[0])),
            nodes=nodes,
            elements=[*sources, *dict.fromkeys(diodes)],
        )


def find_islands(circuit: Circuit, root: Ints) -> Islands:
    """The islands of a circuit; `root[node]` is the root of the tied group of each node."""
    n = root.size
    c = circuit.conductors
    live = c.g > 0
    edges = [(root[c.a[live]], root[c.b[live]])]
    part = _parts(
        n, root, edges + [_sample(crossbar.g, crossbar.rows, crossbar.cols) for crossbar in circuit.crossbars]
    )
    if part.max(initial=0) > 0 and circuit.crossbars:
        part = _parts(n, root, edges + [_every(x.g, x.rows, x.cols) for x in circuit.crossbars])
    n_parts = int(part.max(initial=0)) + 1
    if n_parts == 1:
        return Islands(part, 1, np.zeros(0, np.int64), np.zeros(n, bool), ())
    j, d = circuit.junctions, circuit.ideal_diodes
    joined = _parts(n_parts, np.arange(n_parts), [(part[j.a], part[j.b]), (part[d.a], part[d.b])])
    group = joined[part]
    first = np.unique(group, return_index=True)[1]
    return Islands(part, n_parts, root[first[1:]], group > 0, tuple(_arcs(circuit, part)))


def _sample(g: Floats, rows: Ints, cols: Ints) -> tuple[Ints, Ints]:
    """For each row and each column of a crossbar its largest conductance, if it has one: enough to join most."""
    if not g.size:
        return rows[:0], cols[:0]
    best_col, best_row = g.argmax(axis=1), g.argmax(axis=0)
    has_row, has_col = g[np.arange(rows.size), best_col] > 0, g[best_row, np.arange(cols.size)] > 0
    return (
        np.concatenate([rows[has_row], rows[best_row[has_col]]]),
        np.concatenate([cols[best_col[has_row]], cols[has_col]]),
    )


def _every(g: Floats, rows: Ints, cols: Ints) -> tuple[Ints, Ints]:
    i, j = np.nonzero(g)
    return rows[i], cols[j]


def _parts(n: int, root: Ints, edges: list[tuple[Ints, Ints]]) -> Ints:
    """Connected parts of n nodes under the edges and the ties; numbered by first node, so that ground is in part 0."""
    a = np.concatenate([np.arange(n), *[e[0] for e in edges]])
    b = np.concatenate([root, *[e[1] for e in edges]])
    graph = sparse.coo_array((np.ones(a.size, np.float32), (a, b)), shape=(n, n))
    _, label = csgraph.connected_components(graph, directed=False)
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return rank[inverse]


def _arcs(circuit: Circuit, part: Ints) -> list[tuple[int, int, float, str, int]]:
    """Which parts nonlinear branches can carry current between, from a to b and back, and how much."""
    arcs: list[tuple[int, int, float, str, int]] = []
    d, j = circuit.ideal_diodes, circuit.junctions
    for k in np.flatnonzero(part[d.a] != part[d.b]).tolist():
        arcs.append((int(part[d.a[k]]), int(part[d.b[k]]), np.inf, "ideal_diodes", k))
    for k in np.flatnonzero(part[j.a] != part[j.b]).tolist():
        a, b = int(part[j.a[k]]), int(part[j.b[k]])
        forward, reverse = most_current(int(j.law[k]), j.params[k])
        arcs += [(a, b, forward, "junctions", k)] if forward else []
        arcs += [(b, a, reverse, "junctions", k)] if reverse else []
    return arcs
