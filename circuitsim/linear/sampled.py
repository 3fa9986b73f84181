"""Elimination without fill-in: only a sample of the conductances that arise between the neighbours of a node is kept.

Eliminating a node of d neighbours joins every two of them (elimination.py); here only d - 1 pairs are joined. With the
neighbours in order of their conductances w_1 <= w_2 <= ..., and W their sum, each is joined to one of those after it, j
to k with probability w_k / S, S = w_(j+1) + ... + w_d, by w_j S / W. On average this equals elimination; it stays a
tree at each node, and is a good preconditioner of conjugate gradients for any graph and any conductances (R. Kyng,
S. Sachdeva 2016; Y. Gao, R. Kyng, D. Spielman 2023). The node with the fewest edges left is eliminated next; ground,
node n, remains at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitsim.compiled import jit
from circuitsim.linear.elimination import substitute
from circuitsim.linear.fill import enter, leave

Ints = NDArray[np.int64] | NDArray[np.int32]
Floats = NDArray[np.float64]

_MODULUS, _FACTOR, _SEED = 2**31 - 1, 48271, 1  # of the draws (S. Park, K. Miller 1993): the same compiled or not


@dataclass(frozen=True)
class Sampled:
    """A network, eliminated by samples. `solve` is linear, symmetric and positive."""

    perm: Ints  # (n,) nodes in the order of elimination
    ptr: Ints  # (n + 1,) entries of each: its neighbours when it was eliminated
    row: NDArray[np.int32]  # (entries,) their places in that order, ground's is n and comes last
    value: Floats  # (entries,) conductance to each, S
    pivot: Floats  # (n,) 1 / their sum, ohm; 0 where nothing is left

    def solve(self, injected: Floats) -> Floats:
        """Voltages, (n,), V, for currents (n,), A, injected into the nodes."""
        y = injected[self.perm]
        substitute(self.ptr, self.row, self.value, self.pivot, y)
        out = np.empty_like(y)
        out[self.perm] = y
        return out


def sampled(i: Ints, j: Ints, g: Floats, to_ground: Floats) -> Sampled:
    """Eliminate the network of conductances g > 0 between i and j and to_ground >= 0 to ground, S."""
    n = to_ground.size
    grounded = np.flatnonzero(to_ground > 0)
    ends = np.empty((i.size + grounded.size, 2), np.int32)
    ends[: i.size, 0], ends[: i.size, 1] = i, j
    ends[i.size :, 0], ends[i.size :, 1] = grounded, n
    perm, ptr, row, value, pivot = _sample(n, ends.ravel(), np.concatenate([g, to_ground[grounded]]))
    place = np.full(n + 1, n, np.int32)
    place[perm] = np.arange(n, dtype=np.int32)
    return Sampled(perm, ptr, place[row], value, pivot)


@jit()
def _sample(n, end, g):
    """Order, and of each node its neighbours (ground, where it is one, last), conductances and 1 / their sum.

    Edge k has the halves 2k, in the list of its end end[2k], and 2k + 1. An edge of the node that is eliminated becomes
    the one that replaces it: the half at one neighbour stays there, the other goes over to another neighbour.
    """
    far = np.empty(end.size, np.int32)  # of a half: the node at the other end; -1: gone
    link = np.empty(end.size, np.int64)  # of a half: the next one in the list of its node
    first = np.full(n + 1, -1, np.int64)
    degree = np.zeros(n + 1, np.int64)
    weight = g.copy()
    for h in range(end.size):
        u = end[h]
        far[h] = end[h ^ 1]
        link[h] = first[u]
        first[u] = h
        degree[u] += 1
    top = np.full(end.size + 1, -1, np.int64)  # the first node of each degree; the lists are linked both ways
    after, before = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    for u in range(n):
        enter(u, degree[u], top, after, before)
    perm, ptr, pivot = np.empty(n, np.int64), np.zeros(n + 1, np.int64), np.empty(n)
    row, value = np.empty(end.size + n, np.int32), np.empty(end.size + n)
    place = np.full(n + 1, -1, np.int64)  # of a neighbour: where in `near` it is
    near, own, w, rest = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n), np.empty(n)
    state, least = _SEED, 0
    for at in range(n):
        while top[least] < 0:
            least += 1
        u = top[least]
        leave(u, least, top, after, before)
        count, h = 0, first[u]
        while h >= 0:  # neighbours, each once
            v = far[h]
            if v >= 0:
                if place[v] < 0:
                    place[v] = count
                    near[count], own[count], w[count] = v, h, weight[h >> 1]
                    count += 1
                else:
                    w[place[v]] += weight[h >> 1]
                    far[h ^ 1] = -1
                    least = min(least, _change(v, -1, degree, top, after, before))
            h = link[h]
        order = np.argsort(w[:count], kind="mergesort")
        total = 0.0
        for k in range(count - 1, -1, -1):
            total += w[order[k]]
            rest[k] = total
            place[near[order[k]]] = -1
        perm[at], pivot[at] = u, 1.0 / total if total > 0.0 else 0.0
        start = ptr[at]
        while start + count + 1 > row.size:
            row, value = np.concatenate((row, np.empty_like(row))), np.concatenate((value, np.empty_like(value)))
        here = start
        to_ground = 0.0
        for k in range(count):
            h = own[order[k]]
            v = near[order[k]]
            if v == n:
                to_ground = w[order[k]]
            else:
                row[here], value[here] = v, w[order[k]]
                here += 1
            if k == count - 1:
                far[h ^ 1] = -1
                least = min(least, _change(v, -1, degree, top, after, before))
                break
            state = state * _FACTOR % _MODULUS
            r = state / _MODULUS * rest[k + 1]
            low, high = k + 1, count - 1  # the last one with rest > r
            while low < high:
                middle = (low + high + 1) // 2
                if rest[middle] > r:
                    low = middle
                else:
                    high = middle - 1
            other = near[order[low]]
            weight[h >> 1] = w[order[k]] * (rest[k + 1] * pivot[at])
            far[h], far[h ^ 1] = v, other
            link[h] = first[other]
            first[other] = h
            _change(other, 1, degree, top, after, before)
        row[here], value[here] = n, to_ground
        ptr[at + 1] = here + 1
    return perm, ptr, row[: ptr[n]].copy(), value[: ptr[n]].copy(), pivot


@jit()
def _change(u, by, degree, top, after, before):
    """Add `by` to the degree of a node; returns the new degree. Ground has a degree, but is in no list."""
    if u < before.size:
        leave(u, degree[u], top, after, before)
        enter(u, degree[u] + by, top, after, before)
    degree[u] += by
    return degree[u]
