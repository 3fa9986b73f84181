"""Sparse elimination of a resistive network, node by node, without a single subtraction.

Eliminating node u from a network (star-mesh transformation) joins its neighbours i, j by g_iu g_ju / d and each of them
to ground by g_iu g_u0 / d, with d = sum_j g_uj + g_u0: products, quotients and sums of numbers >= 0. Every conductance
that arises keeps its relative accuracy, however many decades they span, and a part of the network that nothing joins
to ground ends with d = 0 exactly. This is the Cholesky factorisation L D L' of the conductance matrix, with each pivot
computed as a sum instead of a difference (Grassmann, Taksar and Heyman 1985; O'Cinneide 1993 for its accuracy).

Ground is row n, after all others. Columns of one pattern are handled together (supernodes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.compiled import jit
from circuitsim.graphs import components

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_DENSE = 10.0  # times sqrt(nodes): nodes of more neighbours come last; AMD's own limit
_FEW = 50  # nodes whose order is found without SuperLU


@dataclass(frozen=True)
class Factors:
    """A network, eliminated: `solve` gives the voltages for currents injected into its nodes."""

    order: Elimination
    value: Floats  # (nnz,) conductance that remained between column and row when the column was eliminated, S
    pivot: Floats  # (n,) 1 / d; 0 where d = 0: nothing joins the node to ground or to a node left

    @property
    def floating(self) -> Ints:
        """A node of each part that nothing joins to ground: the one eliminated last."""
        return self.order.perm[self.pivot == 0]

    @property
    def loose(self) -> NDArray[np.bool_]:
        """None: a reciprocal network leaves nothing open but floating parts."""
        return np.zeros(self.order.n, bool)

    def grounded(self, conductance: float) -> Factors:
        """The network with a conductance, S, from each floating node to ground: the only one left at that node."""
        return replace(self, pivot=np.where(self.pivot == 0, 1.0 / conductance, self.pivot))

    def solve(self, injected: Floats) -> Floats:
        """Voltages, (rows, n), for injected currents, (rows, n), A; the last node of a floating part stays at 0 V."""
        e = self.order
        if injected.shape[0] == 1:
            y = injected[0, e.perm]
            substitute(e.ptr, e.row, self.value, self.pivot, y)
            out = np.empty_like(injected)
            out[0, e.perm] = y
            return out
        return _substitute_many(e.perm, e.ptr, e.row, self.value, self.pivot, injected)


class Elimination:
    """The order of elimination and the pattern of its entries, for edges i - j between n nodes; once a topology."""

    def __init__(self, n: int, i: Ints, j: Ints) -> None:
        self.n = n
        self.perm = _order(n, i, j)
        place = np.empty(n, np.int64)
        place[self.perm] = np.arange(n)
        low, high = np.minimum(place[i], place[j]), np.maximum(place[i], place[j])
        key = low * n + high
        unique, self.position = np.unique(key, return_inverse=True)  # edge -> entry of the lower triangle
        self.entries = unique.size
        self.column, self.entry_row = unique // max(n, 1), unique % max(n, 1)
        self.column_ptr = np.searchsorted(self.column, np.arange(n + 1))
        by_row = np.argsort(self.entry_row, kind="stable")
        row_ptr = np.searchsorted(self.entry_row[by_row], np.arange(n + 1))
        parent, count = _tree(n, row_ptr, self.column[by_row])
        self.ptr = np.concatenate([[0], np.cumsum(count + 1)])  # one more each: ground
        self.row = _pattern(n, row_ptr, self.column[by_row], parent, self.ptr)
        self.first = _supernodes(parent, count)

    @property
    def entry_of_edge(self) -> Ints:
        """The entry that each edge is part of, (edges,)."""
        return np.searchsorted(self._keys, self.column * (self.n + 1) + self.entry_row)[self.position]

    @cached_property
    def targets(self) -> NDArray[np.int32]:
        """For each pair of entries of a column, in their order, the entry that it adds to, (updates,)."""
        found, row = [np.zeros(0, np.int32)], self.row.astype(np.int64)
        for first, stop in zip(self.ptr[:-1].tolist(), self.ptr[1:].tolist(), strict=True):
            one, other = np.triu_indices(stop - first, 1)
            key = row[first:stop][one] * (self.n + 1) + row[first:stop][other]
            found.append(np.searchsorted(self._keys, key).astype(np.int32))
        return np.concatenate(found)

    @cached_property
    def _keys(self) -> Ints:
        """Column and row of each entry, as one number; ascending."""
        return np.repeat(np.arange(self.n), np.diff(self.ptr)) * (self.n + 1) + self.row

    @property
    def updates(self) -> int:
        """How many times elimination adds to an entry: once for each pair of entries of a column."""
        count = np.diff(self.ptr)
        return int((count * (count - 1) // 2).sum())

    def factor(self, g: Floats, to_ground: Floats, before: object = None, rows: int = 1) -> Factors:
        """Eliminate with edge conductances g (edges,) and conductances to ground (n,), all >= 0, S."""
        entry = np.bincount(self.position, g, self.entries) if g.size else np.zeros(self.entries)
        value, pivot = np.empty(self.row.size), np.empty(self.n)
        _eliminate(
            self.ptr, self.row, self.first, self.column_ptr, self.entry_row, entry, to_ground[self.perm], value, pivot
        )
        return Factors(self, value, pivot)


def _order(n: int, i: Ints, j: Ints) -> Ints:
    """A minimum-degree order, one connected part after another, each to stay in the caches.

    Nodes with very many neighbours come last: to find a place for them takes long, and gains nothing (as in AMD,
    P. R. Amestoy, T. A. Davis, I. S. Duff 1996).
    """
    degree = np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    many = degree > _DENSE * np.sqrt(n)
    others, last = np.flatnonzero(~many), np.flatnonzero(many)
    number, within = np.cumsum(~many) - 1, ~(many[i] | many[j])
    find = _minimum_degree if others.size <= _FEW else _by_superlu
    first = others[find(others.size, number[i[within]], number[j[within]])]
    order = np.concatenate([first, last[np.argsort(degree[last], kind="stable")]])
    return order if n <= _FEW else order[np.argsort(components(n, i, j)[order], kind="stable")]


def _by_superlu(n: int, i: Ints, j: Ints) -> Ints:
    """SuperLU's minimum-degree order, from an incomplete factorisation that drops nearly all entries.

    To load SuperLU takes longer than to find the order of few nodes here.
    """
    ones = np.ones(i.size)
    pattern = sparse.csc_array((np.r_[ones, ones], (np.r_[i, j], np.r_[j, i])), shape=(n, n))
    matrix = sparse.csc_array(sparse.diags_array(np.asarray(abs(pattern).sum(axis=1)).ravel() + 1.0) - pattern)
    factored = sparse.linalg.spilu(
        matrix, drop_tol=1.0, fill_factor=1.0, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )  # fmt: skip
    return np.argsort(factored.perm_c).astype(np.int64)


def _minimum_degree(n: int, i: Ints, j: Ints) -> Ints:
    """Next is always the node with the fewest neighbours, the last of several; its neighbours are joined pairwise."""
    near: list[set[int]] = [set() for _ in range(n)]
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
    left, order = set(range(n)), []
    while left:
        node = min(left, key=lambda k: (len(near[k]), -k))
        left.remove(node)
        order.append(node)
        for other in near[node]:
            near[other] = (near[other] | near[node]) - {node, other}
    return np.array(order, np.int64)


@jit()
def _tree(n, row_ptr, col):
    """Elimination tree (-1: a root), and the number of entries below the diagonal of each column. Row i has the entries
    col[row_ptr[i]:row_ptr[i + 1]] < i.
    """
    parent = np.full(n, -1, np.int64)
    ancestor = np.full(n, -1, np.int64)
    mark = np.full(n, -1, np.int64)
    count = np.zeros(n, np.int64)
    for i in range(n):
        for p in range(row_ptr[i], row_ptr[i + 1]):
            k = col[p]
            while k != -1 and k < i:
                above = ancestor[k]
                ancestor[k] = i
                if above == -1:
                    parent[k] = i
                k = above
    for i in range(n):
        mark[i] = i
        for p in range(row_ptr[i], row_ptr[i + 1]):
            k = col[p]
            while mark[k] != i:
                mark[k] = i
                count[k] += 1
                k = parent[k]
    return parent, count


@jit()
def _pattern(n, row_ptr, col, parent, ptr):
    """Rows of each column, ascending; ground (n) last."""
    row = np.empty(ptr[n], np.int32)
    end = ptr[:n].copy()
    mark = np.full(n, -1, np.int64)
    for i in range(n):
        mark[i] = i
        for p in range(row_ptr[i], row_ptr[i + 1]):
            k = col[p]
            while mark[k] != i:
                mark[k] = i
                row[end[k]] = i
                end[k] += 1
                k = parent[k]
    for i in range(n):
        row[end[i]] = n
    return row


@jit()
def _supernodes(parent, count):
    """First column of each supernode, and n. In a supernode, the rows of a column are the next column and its rows."""
    n = parent.size
    first = np.empty(n + 1, np.int64)
    k = 0
    for j in range(n):
        if j == 0 or parent[j - 1] != j or count[j - 1] != count[j] + 1:
            first[k] = j
            k += 1
    first[k] = n
    return first[: k + 1].copy()


@jit(fastmath={"reassoc", "contract"})
def _eliminate(ptr, row, first, column_ptr, entry_row, entry, to_ground, value, pivot):
    """Left-looking: each column gathers what the supernodes before it add to it; `value` and `pivot` are filled."""
    n = pivot.size
    gather = np.zeros(n + 1)
    update = np.empty(n + 1)
    head = np.full(n + 1, -1, np.int64)  # of a row: the first of the supernodes whose next row it is
    link = np.full(first.size, -1, np.int64)  # of a supernode: the next one in the same list
    following = np.empty(first.size, np.int64)  # of a supernode: the place of its next row in its common rows
    for s in range(first.size - 1):
        start, stop = first[s], first[s + 1]
        common = ptr[stop] - ptr[stop - 1]  # rows below the supernode, ground included
        for j in range(start, stop):
            for p in range(column_ptr[j], column_ptr[j + 1]):
                gather[entry_row[p]] += entry[p]
            gather[n] += to_ground[j]
            t = head[j]
            while t != -1:
                after = link[t]
                low, high = first[t], first[t + 1]
                size = ptr[high] - ptr[high - 1]
                at = following[t]
                left = size - at
                base = ptr[high] - left
                if high - low == 1:
                    f = value[base] * pivot[low]
                    for q in range(1, left):
                        gather[row[base + q]] += f * value[base + q]
                else:
                    update[:left] = 0.0
                    for k in range(low, high):
                        here = ptr[k + 1] - left
                        f = value[here] * pivot[k]
                        if f != 0.0:
                            for q in range(1, left):
                                update[q] += f * value[here + q]
                    for q in range(1, left):
                        gather[row[base + q]] += update[q]
                following[t] = at + 1
                target = row[base + 1]
                link[t] = head[target]
                head[target] = t
                t = after
            here = ptr[j]
            length = ptr[j + 1] - here
            for q in range(length):
                value[here + q] = gather[row[here + q]]
                gather[row[here + q]] = 0.0
            for k in range(start, j):
                source = ptr[k + 1] - length
                f = value[source - 1] * pivot[k]
                if f != 0.0:
                    for q in range(length):
                        value[here + q] += f * value[source + q]
            d = 0.0
            for q in range(length):
                d += value[here + q]
            pivot[j] = 1.0 / d if d > 0.0 else 0.0
        following[s] = 0
        target = row[ptr[stop] - common]
        link[s] = head[target]
        head[target] = s


@jit(fastmath={"contract"})
def substitute(ptr, row, value, pivot, y):
    """Solve in place, y (n,): currents pass on to the nodes left, then voltages come back."""
    n = y.size
    for j in range(n):
        f = y[j] * pivot[j]
        y[j] = f
        for p in range(ptr[j], ptr[j + 1] - 1):
            y[row[p]] += f * value[p]
    for j in range(n - 1, -1, -1):
        total = 0.0
        for p in range(ptr[j], ptr[j + 1] - 1):
            total += value[p] * y[row[p]]
        y[j] += total * pivot[j]


@jit(fastmath={"contract"})
def _substitute_many(perm, ptr, row, value, pivot, injected):
    """The same for each row of `injected`, in the nodes' own order; returns the voltages."""
    m, n = injected.shape
    y, out = np.empty((n, m)), np.empty((m, n))
    for j in range(n):
        for b in range(m):
            y[j, b] = injected[b, perm[j]]
    for j in range(n):
        for b in range(m):
            y[j, b] *= pivot[j]
        for p in range(ptr[j], ptr[j + 1] - 1):
            f = value[p]
            i = row[p]
            for b in range(m):
                y[i, b] += f * y[j, b]
    for j in range(n - 1, -1, -1):
        d, p, end = pivot[j], ptr[j], ptr[j + 1] - 1
        while p + 4 <= end:  # four entries at a time: fewer short loops
            f0, f1, f2, f3 = value[p] * d, value[p + 1] * d, value[p + 2] * d, value[p + 3] * d
            i0, i1, i2, i3 = row[p], row[p + 1], row[p + 2], row[p + 3]
            for b in range(m):
                y[j, b] += (f0 * y[i0, b] + f1 * y[i1, b]) + (f2 * y[i2, b] + f3 * y[i3, b])
            p += 4
        for q in range(p, end):
            f, i = value[q] * d, row[q]
            for b in range(m):
                y[j, b] += f * y[i, b]
        for b in range(m):
            out[b, perm[j]] = y[j, b]
    return out
