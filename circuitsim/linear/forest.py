"""Meshes of long wires: the strong edges alone, a forest, as a preconditioner of conjugate gradients.

The wires of a crossbar are chains of large conductances that small ones, the cells, join. Elimination of a chain, or of
any tree, from its leaves fills nothing in; with the weak edges taken as if they led to ground it costs a few
operations a node. What is left to conjugate gradients are the voltages of whole wires against each other.
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
    """The strong edges between n nodes, eliminated. `solve` is linear, symmetric and positive."""

    order: NDArray[np.int32]  # (n,) nodes, each before the one it hangs on
    parent: NDArray[np.int32]  # (n,) of order[k]: the node it hangs on, -1: a root
    share: Floats  # (n,) of the current into order[k]: what goes on to its parent
    pivot: Floats  # (n,) 1 / d, ohm (elimination.py)

    def solve(self, injected: Floats) -> Floats:
        """Voltages, (n,), V, for currents (n,), A, injected into the nodes."""
        v = injected.astype(np.float64)
        _substitute(self.order, self.parent, self.share, self.pivot, v)
        return v


def strong_forest(i: Ints, j: Ints, g: Floats, to_ground: Floats) -> Forest | None:
    """The forest of a network all of whose nodes have a path to ground; None where strong edges close a loop."""
    n = to_ground.size
    weak = _weak(n, i, j, g)
    order, parent, last = _peel(n, i, j, weak)
    if order.size < n:
        return None
    i, j, left = i[weak], j[weak], g[weak]
    rest = to_ground + np.bincount(i, left, n) + np.bincount(j, left, n)
    up = np.where(parent >= 0, g[last], 0.0)
    pivot = _eliminate(order, parent, up, rest)
    return Forest(order, parent, up * pivot, pivot)


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
def _peel(n, i, j, weak):
    """Nodes, leaf after leaf, with their parents and the edges to these; fewer than n where edges close a loop."""
    degree = np.zeros(n, np.int64)
    near = np.zeros(n, np.int64)  # exclusive or of the edges left at a node: of a leaf the only one
    for k in range(weak.size):
        if not weak[k]:
            degree[i[k]] += 1
            degree[j[k]] += 1
            near[i[k]] ^= k
            near[j[k]] ^= k
    order, parent = np.empty(n, np.int32), np.full(n, -1, np.int32)
    edge = np.zeros(n, np.int64)
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
    pivot = np.empty(order.size)
    for k in range(order.size):
        u, v = order[k], parent[k]
        pivot[k] = 1.0 / (rest[u] + up[k])
        if v >= 0:
            rest[v] += up[k] * (rest[u] * pivot[k])
    return pivot


@jit(fastmath={"contract"})
def _substitute(order, parent, share, pivot, y):
    """Currents pass on to the parents, then voltages come back."""
    for k in range(order.size):
        if parent[k] >= 0:
            y[parent[k]] += share[k] * y[order[k]]
    for k in range(order.size - 1, -1, -1):
        u, v = order[k], parent[k]
        z = y[u] * pivot[k]
        if v >= 0:
            z += share[k] * y[v]
        y[u] = z
