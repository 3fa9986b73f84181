"""Parts and breadth-first forests of graphs: for small graphs, SciPy takes far longer to load than these to run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.compiled import jit

Ints = NDArray[np.int64]

_SMALL = 20_000  # numbers: some milliseconds in Python, once a circuit, where Numba would have to be loaded


def components(n: int, a: Ints, b: Ints) -> Ints:
    """For each of n nodes the first node of its connected part, (n,); edges a[k] - b[k].

    >>> components(5, np.array([3, 2]), np.array([1, 4]))
    array([0, 1, 2, 1, 2])
    """
    first = np.arange(n)
    _join(first, np.ascontiguousarray(a, np.int64), np.ascontiguousarray(b, np.int64))
    return first


@jit(small=_SMALL, whole=True)
def _join(first: Ints, a: Ints, b: Ints) -> None:
    """Union-find with path halving; a part's root is its first node, so that one pass in order finds all roots."""
    for k in range(a.size):
        i, j = a[k], b[k]
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        while first[j] != j:
            first[j] = first[first[j]]
            j = first[j]
        if i < j:
            first[j] = i
        else:
            first[i] = j
    for i in range(first.size):
        first[i] = first[first[i]]


def breadth_first(n: int, low: Ints, high: Ints, roots: Ints) -> tuple[Ints, Ints]:
    """A breadth-first forest from all roots at once: its nodes in order, and the parent of each node, (n,).

    Edges low[k] < high[k], each once, in order. A root is its own parent; -1 where no root reaches. Of a node's
    neighbours the higher ones come first, in order, then the lower ones.

    >>> order, parent = breadth_first(4, np.array([0, 0, 1]), np.array([1, 2, 3]), np.array([0]))
    >>> order, parent
    (array([0, 1, 2, 3]), array([0, 0, 0, 1]))
    """
    tail = np.concatenate([low, high])
    by_tail = np.argsort(tail, kind="stable")
    ptr = np.searchsorted(tail[by_tail], np.arange(n + 1))
    head = np.concatenate([high, low])[by_tail]
    order, parent = np.empty(n, np.int64), np.full(n, -1)
    reached = _spread(ptr, head, np.ascontiguousarray(roots, np.int64), order, parent)
    return order[:reached], parent


@jit(small=_SMALL, whole=True)
def _spread(ptr: Ints, head: Ints, roots: Ints, order: Ints, parent: Ints) -> int:
    """Fill `order` and `parent`; how many nodes are reached."""
    for k in range(roots.size):
        order[k] = parent[roots[k]] = roots[k]
    start, end = 0, roots.size
    while start < end:
        u = order[start]
        start += 1
        for k in range(ptr[u], ptr[u + 1]):
            w = head[k]
            if parent[w] < 0:
                order[end] = w
                parent[w] = u
                end += 1
    return end


def strong_components(n: int, tail: Ints, head: Ints) -> Ints:
    """The number of the strongly connected part of each of n nodes, (n,); edges from tail[k] to head[k].

    >>> strong_components(4, np.array([0, 1, 2, 2]), np.array([1, 2, 1, 3]))
    array([2, 1, 1, 0])
    """
    by_tail = np.argsort(tail, kind="stable")
    label = np.full(n, -1)
    _strong(np.searchsorted(tail[by_tail], np.arange(n + 1)), np.asarray(head, np.int64)[by_tail], label)
    return label


@jit()
def _strong(ptr: Ints, head: Ints, label: Ints) -> None:
    """R. Tarjan 1972, without recursion; node u has the edges ptr[u]:ptr[u+1], label -1 until its part is known."""
    n = label.size
    found, low = np.full(n, -1), np.zeros(n, np.int64)  # when it was found; the first that is reached from there
    edge, path, open_nodes = ptr.copy(), np.zeros(n, np.int64), np.zeros(n, np.int64)
    count = n_open = parts = 0
    for start in range(n):
        if found[start] >= 0:
            continue
        path[0], depth = start, 1
        while depth > 0:
            u = path[depth - 1]
            if found[u] < 0:
                found[u] = low[u] = count
                count += 1
                open_nodes[n_open] = u
                n_open += 1
            if edge[u] < ptr[u + 1]:
                w = head[edge[u]]
                edge[u] += 1
                if found[w] < 0:
                    path[depth] = w
                    depth += 1
                elif label[w] < 0:
                    low[u] = min(low[u], found[w])
                continue
            depth -= 1
            if depth > 0:
                low[path[depth - 1]] = min(low[path[depth - 1]], low[u])
            if low[u] == found[u]:
                while label[u] < 0:
                    n_open -= 1
                    label[open_nodes[n_open]] = parts
                parts += 1
