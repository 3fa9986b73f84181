"""Islands: parts of a circuit without a resistive path to ground. Which may float, and which have no solution.

KCL on an island is solvable exactly when its net injected current can be routed to ground through nonlinear branches,
each within what its law can carry in that direction (laws.most_current; an ideal diode, forward: any amount). This is a
maximum-flow problem, whose minimum cut is the witness when it fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from math import fsum

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.branches import Branches
from circuitsim.circuit import Circuit
from circuitsim.errors import TopologyError, listed, of_row
from circuitsim.graphs import components
from circuitsim.law_kernels import Law
from circuitsim.laws import most_current

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_LEADING = 64  # rows of a crossbar in which nearly every column has a conductance, if it has many
_BALANCE = 1e-12  # of the sum of the sources' absolute currents: rounding when they should cancel


@dataclass(frozen=True)
class Arcs:
    """The diodes between parts, from part `a` to part `b`: first ideal ones, then all others, and these in reverse."""

    a: Ints  # (n,) part
    b: Ints
    ideal: NDArray[np.bool_]  # which of circuit.ideal_diodes or circuit.junctions it is
    branch: Ints

    def __len__(self) -> int:
        return self.a.size

    def carrying(self, circuit: Circuit) -> tuple[Arcs, Floats]:
        """Those that can carry a current at a circuit's values, and the most that they carry from a to b, A."""
        j = circuit.junctions
        forward, reverse = most_current(j.law[self.others], j.params[self.others])
        most = np.concatenate([np.full(self.ideal.sum(), np.inf), forward, reverse])
        kept = most > 0
        return Arcs(*(getattr(self, f.name)[kept] for f in fields(Arcs))), most[kept]

    @property
    def others(self) -> Ints:
        """The nonlinear branches among them, each once."""
        both = self.branch[~self.ideal]
        return both[: both.size // 2]


@dataclass(frozen=True)
class Islands:
    """Parts joined by resistors and ties. `part[node]`: 0 holds ground; parts 1 ... n_parts - 1 are islands.

    `pins` are the nodes set to 0 V because nothing at all joins their part to ground: the first node (in deck order)
    of each group of islands that diodes join.
    """

    part: Ints  # (n_nodes,)
    n_parts: int
    pins: Ints
    group: Ints  # (n_nodes,) of parts that diodes or controlled sources join; 0 holds ground, the others are pinned
    arcs: Arcs
    joined_by_current: tuple[Ints, Ints]  # parts that an F or G joins, whose current the solution tells

    @cached_property
    def pinned(self) -> NDArray[np.bool_]:
        """Which nodes are in a group that is pinned, (n_nodes,)."""
        return self.group > 0

    def pushed(self, circuit: Circuit, i: Floats) -> tuple[Floats, Floats]:
        """The current that sources `i` (rows, n_sources) push into each part, net and absolute, A; 0 for ground."""
        s = circuit.current_sources
        ends, sources = np.concatenate([self.part[s.b], self.part[s.a]]), np.tile(np.arange(len(s)), 2)
        signs = np.repeat([1.0, -1.0], len(s))
        into = sparse.csr_array((signs, (ends, sources)), shape=(self.n_parts, len(s)))  # a source within: 1 - 1 = 0
        net, size = (into @ i.T).T, (abs(into) @ np.abs(i).T).T
        net[(np.abs(net) <= _BALANCE * size) | (np.arange(self.n_parts) == 0)] = 0.0
        return net, size

    def fed(self, circuit: Circuit, i: Floats) -> NDArray[np.bool_]:
        """Whether a source, or an F or G, brings a current into the group of islands of each part, (rows, n_parts).

        A group: islands that diodes join, other than by ground.
        """
        one, other = self.arcs.a, self.arcs.b
        inner = (one > 0) & (other > 0)
        group = _parts(self.n_parts, np.arange(self.n_parts), [(one[inner], other[inner])])
        brought = self.pushed(circuit, i)[0] != 0
        brought[:, np.concatenate(self.joined_by_current)] = True
        of_group = np.zeros((brought.shape[0], int(group.max()) + 1), np.bool_)
        np.logical_or.at(of_group.T, group, brought.T)
        return of_group[:, group]

    def held_by_curves(self, circuit: Circuit) -> bool:
        """Whether nonlinear branches that conduct more at every higher voltage join all islands to ground.

        Voltages are then unique whatever the values: without islands, or where no perfect diode, straight line or
        controlled source ends at another part than it begins at, or on an island.
        """
        part, d, j, s = self.part, circuit.ideal_diodes, circuit.junctions, circuit.active
        curved = np.isin(j.law, (Law.SHOCKLEY, Law.TANH, Law.SINH))
        return not (
            self.pins.size
            or (part[d.a] != part[d.b]).any()
            or (part[j.a] != part[j.b])[~curved].any()
            or part[np.concatenate([s.a, s.b, s.ca, s.cb])].any()
        )

    def check(self, circuit: Circuit, i: Floats, first_row: int = 0) -> None:
        """Raise TopologyError when source currents `i` (rows, n_sources) cannot leave, or reach, an island.

        They are for the batch rows from `first_row` on; the error names the first row that fails.
        """
        if self.n_parts <= 1 or not len(circuit.current_sources):
            return
        net, size = self.pushed(circuit, i)
        rows = np.flatnonzero(net.any(axis=1))
        if not rows.size:
            return
        arcs, most = self.arcs.carrying(circuit)
        if rows.size > 1:
            rows = rows[np.sort(np.unique(net[rows], axis=0, return_index=True)[1])]
        for row in rows.tolist():
            for push in (True, False):
                stuck = self._stuck(arcs, most, net[row] if push else -net[row], size[row], push)
                if stuck.size:
                    amperes = float(net[row, stuck].sum())
                    self._blame(circuit, arcs, amperes, stuck, first_row + row if len(i) > 1 else None)

    def _stuck(self, arcs: Arcs, most: Floats, net: Floats, size: Floats, push: bool) -> Ints:
        """Parts into which more is pushed in all than can leave; with `push` false all flows are reversed."""
        if not (net > 0).any():
            return np.zeros(0, np.int64)
        tail, head = (arcs.a, arcs.b) if push else (arcs.b, arcs.a)
        one, other = self.joined_by_current
        tail, head = np.concatenate([tail, one, other]), np.concatenate([head, other, one])
        most = np.concatenate([most, np.full(2 * one.size, np.inf)])
        unlimited = np.isinf(most)
        free = np.zeros(self.n_parts, bool)  # what reaches ground without a limit: no part of a cut
        backwards = _graph(head[unlimited], tail[unlimited], self.n_parts)
        free[sparse.csgraph.breadth_first_order(backwards, 0, return_predecessors=False)] = True
        inner, leaving = ~free[tail] & ~free[head], ~free[tail] & free[head]
        exits = np.bincount(tail[leaving], most[leaving], self.n_parts)
        flow = _Flow(np.maximum(net, 0.0).tolist(), (exits + np.maximum(-net, 0.0)).tolist())
        for a, b, amperes in zip(tail[inner].tolist(), head[inner].tolist(), most[inner].tolist(), strict=True):
            flow.join(a, b, amperes)
        for cut in flow.cuts(np.flatnonzero(~free).tolist()):  # judged by its own sources alone
            out = ~free[tail] & np.isin(tail, cut) & ~np.isin(head, cut)
            if fsum(net[cut]) - fsum(most[out]) > _BALANCE * fsum(size[cut]):
                return np.array(sorted(cut), np.int64)
        return np.zeros(0, np.int64)

    def _blame(self, circuit: Circuit, arcs: Arcs, amperes: float, parts: Ints, row: int | None) -> None:
        inside = np.isin(self.part, parts)
        s = circuit.current_sources
        crossing = np.flatnonzero(inside[s.a] != inside[s.b])
        sources = [circuit.element(s, int(k)) for k in crossing]
        across = np.flatnonzero(np.isin(arcs.a, parts) != np.isin(arcs.b, parts)).tolist()
        groups: dict[bool, Branches] = {True: circuit.ideal_diodes, False: circuit.junctions}
        diodes = [circuit.element(groups[bool(arcs.ideal[k])], int(arcs.branch[k])) for k in across]
        diodes = list(dict.fromkeys(diodes))
        nodes = [circuit.nodes[k] for k in np.flatnonzero(inside).tolist()]
        blocked = f" ({listed(diodes)} block{'s' * (len(diodes) == 1)} it)" if diodes else ""
        push, several = amperes > 0, len(nodes) > 1
        verb = ("push" if push else "draw") + ("es" if push else "s") * (len(sources) == 1)
        into, away = ("into", "away") if push else ("from", "there")
        raise TopologyError(
            f"node{'s' * several} {listed(nodes, 5)}: {listed(sources, 5)} {verb} a net {abs(amperes):g} A {into} "
            f"{'them' if several else 'it'}{of_row(row)}, and no element can carry this current {away}{blocked}; "
            f"connect {'one' if several else 'it'} to ground with a resistor, or balance the sources",
            circuit.at(s, int(crossing[0])),
            nodes=nodes,
            elements=[*sources, *diodes],
            is_cut=True,
        )


class _Flow:
    """Whether what is pushed into parts can get out: trees are pruned leaf by leaf, the rest is one maximum flow."""

    def __init__(self, pushed: list[float], exits: list[float]) -> None:
        self.pushed, self.exits = pushed, exits  # A, of each part; both change as leaves are pruned
        self.arcs: dict[int, dict[int, float]] = {}  # most amperes from part to part, in both directions of a pair
        self.children: dict[int, list[int]] = {}  # leaves pruned into a part, that belong to a cut which holds it

    def join(self, a: int, b: int, amperes: float) -> None:
        """An arc; parallel ones add up."""
        out, back = self.arcs.setdefault(a, {}), self.arcs.setdefault(b, {})
        out[b] = out.get(b, 0.0) + amperes
        back.setdefault(a, 0.0)

    def cuts(self, parts: list[int]) -> Iterator[list[int]]:
        """Sets of parts that may have more pushed into them than can get out; none, if none has."""
        ready = [p for p in parts if len(self.arcs.get(p, ())) <= 1]
        while ready:
            p = ready.pop()
            arcs = self.arcs.pop(p, {})
            excess = self.pushed[p] - self.exits[p]
            out = sum(arcs.values())
            if excess > out:
                yield self._with_children([p])
                excess = out  # but for rounding
            for q in arcs:  # at most one
                back = self.arcs[q].pop(p)
                if excess > 0:
                    self.pushed[q] += excess
                else:
                    self.exits[q] += min(back, -excess)
                if excess > 0 or back > -excess:
                    self.children.setdefault(q, []).append(p)
                if len(self.arcs[q]) == 1:
                    ready.append(q)
        core = {p: arcs for p, arcs in self.arcs.items() if arcs}
        seen: set[int] = set()
        for first in core:
            group, ready = [], [first]
            while ready:
                p = ready.pop()
                if p not in seen:
                    seen.add(p)
                    group.append(p)
                    ready += core[p]
            if any(self.pushed[p] > self.exits[p] for p in group):
                yield self._with_children(self._least_cut({p: core[p] for p in group}))

    def _with_children(self, parts: list[int]) -> list[int]:
        found, ready = [], list(parts)
        while ready:
            found.append(ready.pop())
            ready += self.children.get(found[-1], [])
        return found

    def _least_cut(self, core: dict[int, dict[int, float]]) -> list[int]:
        """The sources' side of a least cut of connected parts that all lie on loops.

        Computed in integers, in units of a power of two of which all capacities are multiples: rounding of flows
        would leave residual capacities, and then the value of a maximum flow is right but the cut read off it is wrong.
        """
        import networkx as nx

        numbers = [x for p, arcs in core.items() for x in (self.pushed[p], self.exits[p], *arcs.values())]
        unit = max(x.as_integer_ratio()[1] for x in numbers if np.isfinite(x))

        def limit(amperes: float) -> dict[str, int]:
            if np.isinf(amperes):
                return {}
            whole, part = amperes.as_integer_ratio()
            return {"capacity": whole * (unit // part)}

        graph = nx.DiGraph()
        for p, arcs in core.items():
            graph.add_edge("from", p, **limit(self.pushed[p]))
            graph.add_edge(p, "to", **limit(self.exits[p]))
            graph.add_edges_from((p, q, limit(most)) for q, most in arcs.items())
        return sorted(nx.minimum_cut(graph, "from", "to")[1][0] - {"from"})


def _graph(tail: Ints, head: Ints, n: int) -> sparse.csr_array:
    return sparse.coo_array((np.ones(tail.size, np.int8), (tail, head)), shape=(n, n)).tocsr()


def find_islands(circuit: Circuit, root: Ints) -> Islands:
    """The islands of a circuit; `root[node]` is the root of the tied group of each node."""
    n = root.size
    c = circuit.conductors
    live = c.g > 0
    active = circuit.active
    fixes = ~active.gives_current  # its voltage: the ends do not shift alone
    edges = [(root[c.a[live]], root[c.b[live]]), (root[active.a[fixes]], root[active.b[fixes]])]
    part = _parts(
        n, root, edges + [_sample(crossbar.g, crossbar.rows, crossbar.cols) for crossbar in circuit.crossbars]
    )
    if part.max(initial=0) > 0 and circuit.crossbars:
        part = _parts(n, root, edges + [_every(x.g, x.rows, x.cols) for x in circuit.crossbars])
    n_parts = int(part.max(initial=0)) + 1
    j, d = circuit.junctions, circuit.ideal_diodes
    across = [(part[x.a], part[x.b]) for x in (j, d, active)]  # F and G: their currents tie the parts' KCL together
    seen = active.control < 0
    across.append((part[active.ca[seen]], part[active.cb[seen]]))  # a voltage that controls is not free to choose
    joined = _parts(n_parts, np.arange(n_parts), across)
    group = joined[part]
    first = np.unique(group, return_index=True)[1]
    one, other = part[active.a[~fixes]], part[active.b[~fixes]]
    by_current = one[one != other], other[one != other]
    return Islands(part, n_parts, root[first[1:]], group, _arcs(circuit, part), by_current)


def _sample(g: Floats, rows: Ints, cols: Ints) -> tuple[Ints, Ints]:
    """For each row and each column of a crossbar a conductance, if it has one: enough to join most."""
    if not g.size:
        return rows[:0], cols[:0]
    best_col, best_row = g.argmax(axis=1), np.zeros(cols.size, np.int64)
    without = np.arange(cols.size)
    for i in range(min(_LEADING, rows.size)):  # a search down the columns takes far longer
        found = g[i, without] > 0
        best_row[without[found]] = i
        without = without[~found]
    best_row[without] = g[:, without].argmax(axis=0)
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
    return np.unique(components(n, a, b), return_inverse=True)[1]


def _arcs(circuit: Circuit, part: Ints) -> Arcs:
    """Which parts a diode can carry current between, forward and in reverse."""
    d, j = circuit.ideal_diodes, circuit.junctions
    ideal = np.flatnonzero(part[d.a] != part[d.b])
    other = np.flatnonzero(part[j.a] != part[j.b])
    a, b = part[j.a[other]], part[j.b[other]]
    return Arcs(
        np.concatenate([part[d.a[ideal]], a, b]),
        np.concatenate([part[d.b[ideal]], b, a]),
        np.arange(ideal.size + 2 * other.size) < ideal.size,
        np.concatenate([ideal, other, other]),
    )
