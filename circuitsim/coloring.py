"""Colour blocks: units of one colour are never adjacent, so that all of them can take their exact step at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.compiled import jit
from circuitsim.graphs import components

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Coloring:
    """`color[u]` of each unit, `n_colors`, and whether two colours were enough by structure (a bipartite graph)."""

    color: Ints  # (n,)
    n_colors: int
    bipartite: bool


def color_units(n: int, i: Ints, j: Ints, bicliques: list[tuple[Ints, Ints]], weight: NDArray[np.float64]) -> Coloring:
    """Colour the graph on n units with edges i-j and complete bipartite parts `bicliques` (rows, cols).

    Two colours when the graph is bipartite; in each connected part colour 0 is that of its unit of largest `weight`.
    Greedy, in order of the unit number, otherwise.

    >>> none = np.zeros(3)
    >>> color_units(3, np.array([0, 1]), np.array([1, 2]), [], none).color
    array([0, 1, 0])
    >>> color_units(3, np.array([0, 1, 2]), np.array([1, 2, 0]), [], none).n_colors
    3
    """
    if n == 0:
        return Coloring(np.zeros(0, np.int64), 0, True)
    # A biclique constrains two-colouring exactly as these nr + nc - 1 of its edges do.
    first = [np.concatenate([rows, np.repeat(rows[:1], cols.size)]) for rows, cols in bicliques]
    second = [np.concatenate([np.repeat(cols[:1], rows.size), cols]) for rows, cols in bicliques]
    color = _two_colors(n, np.concatenate([i, *first]), np.concatenate([j, *second]), weight)
    if color is not None:
        return Coloring(color, int(color.max()) + 1, True)
    first = [np.repeat(rows, cols.size) for rows, cols in bicliques]
    second = [np.tile(cols, rows.size) for rows, cols in bicliques]
    graph = _symmetric(n, np.concatenate([i, *first]), np.concatenate([j, *second]))
    color = _greedy(graph.indptr.astype(np.int64), graph.indices.astype(np.int64))
    return Coloring(color, int(color.max()) + 1, False)


def _symmetric(n: int, i: Ints, j: Ints) -> sparse.csr_array:
    ones = np.ones(2 * i.size, np.float32)
    graph = sparse.coo_array((ones, (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n)).tocsr()
    graph.sum_duplicates()
    return graph


def _two_colors(n: int, i: Ints, j: Ints, weight: NDArray[np.float64]) -> Ints | None:
    """A two-colouring, or None: in the double cover (i,0)-(j,1), (i,1)-(j,0) a part is bipartite iff it falls apart."""
    label = components(2 * n, np.concatenate([i, j]), np.concatenate([j, i]) + n)
    if (label[:n] == label[n:]).any():
        return None
    part = np.minimum(label[:n], label[n:])
    by_weight = np.lexsort((np.arange(n), -weight, part))
    starts = np.r_[True, part[by_weight][1:] != part[by_weight][:-1]]
    root_label = np.empty(2 * n, label.dtype)
    root_label[part[by_weight[starts]]] = label[by_weight[starts]]
    return (label[:n] != root_label[part]).astype(np.int64)


@jit()
def _greedy(indptr: Ints, indices: Ints) -> Ints:
    """First-fit colours in order of the unit number."""
    n = indptr.size - 1
    color = np.full(n, -1, np.int64)
    seen = np.full(n + 1, -1, np.int64)  # seen[c] == u: a neighbour of u has colour c
    for u in range(n):
        for k in range(indptr[u], indptr[u + 1]):
            if color[indices[k]] >= 0:
                seen[color[indices[k]]] = u
        c = 0
        while seen[c] == u:
            c += 1
        color[u] = c
    return color
