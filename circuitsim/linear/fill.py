"""What elimination would cost, and how wide a graph is: estimated before a method is chosen, up to a limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.compiled import jit

Ints = NDArray[np.int64] | NDArray[np.int32]

_UPDATES, _UPDATES_AN_EDGE = 200_000_000, 3_000  # of an elimination that takes as long as conjugate gradients
_HUB = 10.0  # times sqrt(n) neighbours: such a node is a hub
_MOST_WORK = 500_000_000  # entries looked at while updates are counted: less than a second


def most_updates(edges: int) -> int:
    """The most updates for which elimination is worthwhile: with more, conjugate gradients take less time."""
    return _UPDATES + _UPDATES_AN_EDGE * edges


def costs_more(n: int, i: Ints, j: Ints, updates: int) -> bool:
    """Whether eliminating n nodes with edges i - j takes more than this many updates, d^2 / 2 for d neighbours left.

    Updates are counted, up to that, in an approximate minimum-degree order. An element, left by the elimination of a
    node, stands for the clique of its neighbours; the degree of a node is at most the sum of the sizes of its elements
    (P. Amestoy, T. Davis, I. Duff 1996, without their supervariables). Nodes of very many neighbours are taken to come
    last and to be neighbours of all others. Where counting takes long, in dense graphs, the answer is True.
    """
    ptr, near = _neighbours(n, i, j)
    hub = np.diff(ptr) > _HUB * np.sqrt(n)
    if hubs := int(hub.sum()):
        inner = ~(hub[i] | hub[j])
        ptr, near = _neighbours(n, i[inner], j[inner])
    left = updates - hubs**3 / 6
    return left < 0 or bool(_count(ptr, near, hubs, left, _MOST_WORK) > left)


def widest(n: int, i: Ints, j: Ints) -> int:
    """The most nodes that are equally far, in edges, from the first node of their part."""
    return int(_widest(*_neighbours(n, i, j)))


def _neighbours(n: int, i: Ints, j: Ints) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(ptr, near): node u has the neighbours near[ptr[u]:ptr[u + 1]], each once."""
    at = np.concatenate([i, j]).astype(np.int32), np.concatenate([j, i]).astype(np.int32)
    matrix = sparse.csr_array((np.ones(at[0].size, bool), at), shape=(n, n))
    matrix.sum_duplicates()
    return matrix.indptr, matrix.indices


@jit()
def _widest(ptr, near):
    n = ptr.size - 1
    reached = np.zeros(n, np.bool_)
    queue = np.empty(n, np.int64)
    end = most = 0
    for root in range(n):
        if reached[root]:
            continue
        reached[root] = True
        start = end
        queue[end] = root
        end += 1
        while start < end:
            most = max(most, end - start)
            stop = end
            for k in range(start, stop):
                for q in range(ptr[queue[k]], ptr[queue[k] + 1]):
                    v = near[q]
                    if not reached[v]:
                        reached[v] = True
                        queue[end] = v
                        end += 1
            start = stop
    return most


@jit()
def _count(ptr, near, hubs, most, most_work):
    """The number of updates; inf where it exceeds `most`, or counting exceeds `most_work`.

    `near` is overwritten: each node then has its elements first, and after these its remaining neighbours.
    """
    n = ptr.size - 1
    elements = np.zeros(n, np.int64)
    end = ptr[1:].copy()
    degree = end - ptr[:-1]
    top = np.full(n + 1, -1, np.int64)
    after, before = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    for u in range(n):
        enter(u, degree[u], top, after, before)
    first, last = np.zeros(n, np.int64), np.zeros(n, np.int64)  # of an element: its nodes
    nodes = np.empty(near.size + n, np.int32)
    used = 0
    mark = np.full(n, -1, np.int64)  # of a node: the last element that it came into
    beyond = np.zeros(n, np.int64)  # of an element: its nodes outside the new one
    seen = np.full(n, -1, np.int64)
    gone = np.zeros(n, np.bool_)  # an eliminated node whose element is part of another
    least, updates, work = 0, 0.0, 0
    for at in range(n):
        while top[least] < 0:
            least += 1
        u = top[least]
        leave(u, least, top, after, before)
        size = 0
        for k in range(ptr[u], end[u]):
            e = near[k]
            size += last[e] - first[e] if k < ptr[u] + elements[u] else 1
        while used + size > nodes.size:
            nodes = np.concatenate((nodes, np.empty_like(nodes)))
        start = used
        mark[u] = u
        degree[u] = -1
        for k in range(ptr[u], end[u]):
            e = near[k]
            if k < ptr[u] + elements[u]:
                gone[e] = True
                for q in range(first[e], last[e]):
                    v = nodes[q]
                    if mark[v] != u and degree[v] >= 0:
                        mark[v] = u
                        nodes[used] = v
                        used += 1
            elif mark[e] != u:
                mark[e] = u
                nodes[used] = e
                used += 1
        first[u], last[u] = start, used
        d = used - start
        updates += 0.5 * (d + hubs) * (d + hubs)
        if updates > most or work > most_work:
            return np.inf
        for q in range(start, used):
            v = nodes[q]
            for k in range(ptr[v], ptr[v] + elements[v]):
                e = near[k]
                if not gone[e]:
                    if seen[e] != u:
                        seen[e], beyond[e] = u, last[e] - first[e]
                    beyond[e] -= 1
        for q in range(start, used):
            v = nodes[q]
            outside = 0
            into = ptr[v]
            for k in range(ptr[v], ptr[v] + elements[v]):
                e = near[k]
                if not gone[e]:
                    near[into] = e
                    into += 1
                    outside += beyond[e]
            kept = into
            for k in range(ptr[v] + elements[v], end[v]):
                w = near[k]
                if mark[w] != u:
                    near[kept] = w
                    kept += 1
            outside += kept - into
            if kept > into:
                near[kept] = near[into]
            near[into] = u
            elements[v] = into + 1 - ptr[v]
            work += end[v] - ptr[v]
            end[v] = kept + 1
            leave(v, degree[v], top, after, before)
            degree[v] = min(degree[v] + d - 1, d - 1 + outside, n - at - 2)
            enter(v, degree[v], top, after, before)
            least = min(least, degree[v])
    return updates


@jit()
def enter(u, degree, top, after, before):
    """Put a node at the head of the list of its degree; the lists are linked both ways."""
    other = top[degree]
    after[u], before[u] = other, -1
    if other >= 0:
        before[other] = u
    top[degree] = u


@jit()
def leave(u, degree, top, after, before):
    """Take a node out of the list of its degree."""
    if before[u] >= 0:
        after[before[u]] = after[u]
    else:
        top[degree] = after[u]
    if after[u] >= 0:
        before[after[u]] = before[u]
