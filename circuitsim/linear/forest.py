"""Meshes of long wires: conjugate gradients preconditioned by the strong edges alone, which form a forest.

The wires of a crossbar are chains of large conductances, joined by small ones, the cells. Elimination of a chain, or of
any tree, from its leaves causes no fill-in; with the weak edges taken as if they led to ground it costs a few
operations per node. That leaves to conjugate gradients only the voltages of whole wires against each other.

Nodes of up to two edges are first eliminated exactly, which causes no fill-in either. There is such a node between a
resistor and a diode in series, one of which may conduct a thousand times as well as the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitsim.compiled import jit

Ints = NDArray[np.int64] | NDArray[np.int32]
Floats = NDArray[np.float64]

_STRONG = 0.1  # of the largest conductance at either end


@dataclass(frozen=True)
class Forest:
    """Chains and the strong edges between n nodes, eliminated. `solve` is linear, symmetric and positive."""

    order: NDArray[np.int32]  # (n,) nodes in the order of elimination: each before its parents; those in chains first
    parent: NDArray[np.int32]  # (n,) of order[k], -1: a root
    share: Floats  # (n,) the part of the current into order[k] that goes on to its parent
    other: NDArray[np.int32]  # (in chains,) the second parent of order[k], or -1
    other_share: Floats
    pivot: Floats  # (n,) 1 / d, ohm (elimination.py)

    def solve(self, injected: Floats) -> Floats:
        """Voltages, (n,), V, for currents (n,), A, injected into the nodes."""
        v = injected.astype(np.float64)
        _substitute(self.order, self.parent, self.share, self.other, self.other_share, self.pivot, v)
        return v


def strong_forest(i: Ints, j: Ints, g: Floats, to_ground: Floats) -> Forest | None:
    """The forest of a network all of whose nodes have a path to ground; None where strong edges close a loop."""
    i, j, g, rest = i.astype(np.int32), j.astype(np.int32), g.copy(), to_ground.astype(np.float64)
    n = rest.size
    chained, one, other, share, other_share, chain_pivot, gone = _chains(i, j, g, rest)
    i, j, g = i[~gone], j[~gone], g[~gone]
    weak = _weak(n, i, j, g)
    order, parent, last = _peel(chained, n, i, j, weak)
    if chained.size + order.size < n:
        return None
    up = np.where(parent >= 0, g[last], 0.0) if g.size else np.zeros(order.size)
    i, j, left = i[weak], j[weak], g[weak]
    rest += np.bincount(i, left, n) + np.bincount(j, left, n)
    pivot = _eliminate(order, parent, up, rest)
    return Forest(
        np.concatenate([chained, order]),
        np.concatenate([one, parent]),
        np.concatenate([share, up * pivot]),
        other,
        other_share,
        np.concatenate([chain_pivot, pivot]),
    )


@jit()
def _chains(i, j, g, rest):
    """Eliminate the nodes of up to two edges. Returns these, both parents, both shares and 1 / d of each (see Forest),
    and which edges are gone.

    i, j, g and rest, the conductances to ground, become those of the network that is left.
    """
    n = rest.size
    degree = np.zeros(n, np.int64)
    for k in range(g.size):
        degree[i[k]] += 1
        degree[j[k]] += 1
    edge = np.full((n, 2), -1, np.int64)  # the edges of a node that has up to two
    for k in range(g.size):
        for u in (i[k], j[k]):
            if degree[u] <= 2:
                edge[u, 0 if edge[u, 0] < 0 else 1] = k
    size = 0
    for u in range(n):
        size += degree[u] <= 2
    order, one, other = np.empty(size, np.int32), np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    share, other_share, pivot = np.zeros(size), np.zeros(size), np.zeros(size)
    gone = np.zeros(g.size, np.bool_)
    at = 0
    for u in range(n):
        if degree[u] > 2:
            continue
        k, m = edge[u, 0], edge[u, 1]
        p = i[k] + j[k] - u if k >= 0 else -1
        q = i[m] + j[m] - u if m >= 0 else -1
        up = g[k] if k >= 0 else 0.0
        across = g[m] if m >= 0 else 0.0
        d = up + across + rest[u]
        order[at], one[at], other[at] = u, p, q
        if d > 0.0:
            pivot[at], share[at], other_share[at] = 1.0 / d, up / d, across / d
        if p >= 0:
            rest[p] += share[at] * rest[u]
        if q >= 0:
            rest[q] += other_share[at] * rest[u]
        if p >= 0 and q >= 0 and p != q:  # one edge in the place of both
            i[k], j[k], g[k] = p, q, up * other_share[at]
            gone[m] = True
            if degree[q] <= 2:
                edge[q, 0 if edge[q, 0] == m else 1] = k
        else:
            for v, e in ((p, k), (q, m)):
                if v >= 0:
                    gone[e] = True
                    if degree[v] <= 2:
                        edge[v, 0 if edge[v, 0] == e else 1] = -1
        at += 1
    return order, one, other, share, other_share, pivot, gone


@jit()
def _weak(n, i, j, g):
    """Whether each edge is weak."""
    most = np.zeros(n)
    for k in range(g.size):
        most[i[k]] = max(most[i[k]], g[k])
        most[j[k]] = max(most[j[k]], g[k])
    weak = np.empty(g.size, np.bool_)
    for k in range(g.size):
        weak[k] = g[k] < _STRONG * max(most[i[k]], most[j[k]])
    return weak


@jit()
def _peel(before, n, i, j, weak):
    """Peel the forest leaf by leaf: nodes, their parents and the edges to these; fewer than all if edges close a loop.

    The nodes in `before` are left out: they have no edges.
    """
    degree = np.zeros(n, np.int64)
    near = np.zeros(n, np.int64)  # exclusive or of the edges left at a node: at a leaf, its only edge
    for k in range(weak.size):
        if not weak[k]:
            degree[i[k]] += 1
            degree[j[k]] += 1
            near[i[k]] ^= k
            near[j[k]] ^= k
    for k in range(before.size):
        degree[before[k]] = 2  # no leaf
    size = n - before.size
    order, parent = np.empty(size, np.int32), np.full(size, -1, np.int32)
    edge = np.zeros(size, np.int64)
    end = 0
    for u in range(n):
        if degree[u] <= 1:
            order[end] = u
            end += 1
    at = 0
    while at < end:
        u = order[at]
        if degree[u] == 1:
            k = near[u]
            v = i[k] + j[k] - u
            parent[at], edge[at] = v, k
            near[v] ^= k
            degree[v] -= 1
            if degree[v] == 1:
                order[end] = v
                end += 1
        at += 1
    return order[:end], parent[:end], edge[:end]


@jit()
def _eliminate(order, parent, up, rest):
    """1 / d of order[k]; `up` is the conductance to its parent, `rest` (changed) those of nodes to ground."""
    pivot = np.zeros(order.size)
    for k in range(order.size):
        u, v = order[k], parent[k]
        d = rest[u] + up[k]
        if d > 0.0:  # else all conductances to ground have underflowed
            pivot[k] = 1.0 / d
        if v >= 0:
            rest[v] += up[k] * (rest[u] * pivot[k])
    return pivot


@jit(fastmath={"contract"})
def _substitute(order, parent, share, other, other_share, pivot, y):
    """Currents pass on to the parents, then voltages come back."""
    for k in range(order.size):
        current = y[order[k]]
        if parent[k] >= 0:
            y[parent[k]] += share[k] * current
        if k < other.size and other[k] >= 0:
            y[other[k]] += other_share[k] * current
    for k in range(order.size - 1, -1, -1):
        u, v = order[k], parent[k]
        z = y[u] * pivot[k]
        if v >= 0:
            z += share[k] * y[v]
        if k < other.size and other[k] >= 0:
            z += other_share[k] * y[other[k]]
        y[u] = z
