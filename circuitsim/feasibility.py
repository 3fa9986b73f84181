"""Voltage sources and ideal diodes as difference constraints: whether any voltages satisfy them.

An ideal diode says x[anode's unit] <= x[cathode's unit] + room, with room = vf - (fixed part of va - vk): an edge from
the cathode's unit to the anode's of length `room`. No voltages satisfy them exactly when a directed cycle has a
negative length. Only diodes within a strongly connected part of this graph can lie on a cycle; most circuits have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.circuit import Circuit
from circuitsim.compiled import jit
from circuitsim.errors import TopologyError, listed, of_row
from circuitsim.graphs import strong_components
from circuitsim.units import LOOP_TOLERANCE, TieForest, signed_path

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_EPS = float(np.finfo(np.float64).eps)
_FIRST_SLACK, _LAST_SLACK = 8 * _EPS, 4096 * _EPS  # of an edge's own voltages: rounding in its length


@dataclass(frozen=True)
class DiodeCycles:
    """The ideal diodes that lie on directed cycles, as edges of the graph of units, sorted by tail."""

    diodes: Ints  # (m,) ideal diode
    tail: Ints  # (m,) the cathode's unit, units numbered 0 ... n - 1
    head: Ints  # (m,) the anode's unit
    n: int


def diode_cycles(circuit: Circuit, root: Ints) -> DiodeCycles:
    """Find the diodes that can bound each other in a cycle; `root[node]` is the root of each node's tied group."""
    ideal = circuit.ideal_diodes
    tail, head = root[ideal.b], root[ideal.a]
    some = np.flatnonzero(np.isin(tail, head) & np.isin(head, tail))  # others come from nowhere, or lead nowhere
    units, local = np.unique(np.concatenate([tail[some], head[some]]), return_inverse=True)
    tail, head = np.split(local, 2)
    if not some.size:
        return DiodeCycles(some, tail, head, 0)
    label = strong_components(units.size, tail, head)
    cyclic = np.flatnonzero(label[tail] == label[head])
    kept, local = np.unique(np.concatenate([tail[cyclic], head[cyclic]]), return_inverse=True)
    diodes = some[cyclic]
    tail, head = np.split(_rank(local.reshape(2, -1), label[kept])[local], 2)
    order = np.argsort(tail, kind="stable")
    return DiodeCycles(diodes[order], tail[order], head[order], kept.size)


def _rank(edges: Ints, label: Ints) -> Ints:
    """Number the units breadth first from one in each strongly connected part, so that chains are passed in order."""
    n = label.size
    first = np.unique(label, return_index=True)[1]
    tail, head = np.concatenate([edges[0], np.full(first.size, n)]), np.concatenate([edges[1], first])
    graph = sparse.coo_array((np.ones(tail.size, np.int8), (tail, head)), shape=(n + 1, n + 1)).tocsr()
    rank = np.empty(n + 1, np.int64)
    rank[sparse.csgraph.breadth_first_order(graph, n, return_predecessors=False)] = np.arange(n + 1)
    return rank[:n] - 1


def check_diodes(
    circuit: Circuit, forest: TieForest, cycles: DiodeCycles, e: Floats, room: Floats, first_row: int | None
) -> None:
    """Raise TopologyError when no voltages satisfy sources and ideal diodes: the loop, and the volts by which it fails.

    `room` (rows, n_ideal): vf minus the fixed part of (anode - cathode voltage); `e` (rows or 1, ties). They are for
    the batch rows from `first_row` on; None: for all rows, which are the same.
    """
    if not cycles.diodes.size:
        return
    room = room[:, cycles.diodes]
    suspects = np.flatnonzero((room < 0).any(axis=1))  # without a negative length there is no negative cycle
    if suspects.size > 1:
        suspects = suspects[np.sort(np.unique(room[suspects], axis=0, return_index=True)[1])]
    for row in suspects.tolist():
        row_e = e[row if e.shape[0] > 1 else 0]
        loop = _negative_loop(circuit, forest, cycles, row_e, room[row])
        if loop is not None:
            _refuse(circuit, loop, None if first_row is None else first_row + row)


@dataclass(frozen=True)
class _Loop:
    diodes: list[int]  # anode to cathode, in the order in which a current would pass them
    ties: list[list[tuple[int, float]]]  # from each diode's cathode to the next one's anode: ties and their signs
    volts: float  # by which it fails


def _negative_loop(circuit: Circuit, forest: TieForest, cycles: DiodeCycles, e: Floats, room: Floats) -> _Loop | None:
    """A loop whose voltages fail by more than their own rounding, of one batch row.

    Lengths are relaxed a little; each loop that is still negative is summed again from its own voltages alone. If
    these cancel within rounding, lengths are relaxed more: first all of them, then those of the loop.
    """
    ideal = circuit.ideal_diodes
    own = np.abs(ideal.vf[cycles.diodes]) + np.abs(room) + np.abs(ideal.vf[cycles.diodes] - room)
    slack, extra = _FIRST_SLACK, np.zeros(room.size)
    while True:
        distance, above = np.zeros(cycles.n), np.full(cycles.n, -1)
        length = room + slack * own + extra
        start = relax(cycles.tail, cycles.head, length, distance, above)
        if start < 0:
            return None
        edges = [int(above[start])]
        while cycles.tail[edges[-1]] != start:
            edges.append(int(above[cycles.tail[edges[-1]]]))
        diodes = [int(cycles.diodes[k]) for k in edges]
        following = diodes[1:] + diodes[:1]
        ties = [
            signed_path(forest, int(ideal.b[k]), int(ideal.a[after]))
            for k, after in zip(diodes, following, strict=True)
        ]
        terms = [float(ideal.vf[k]) for k in diodes] + [sign * float(e[t]) for path in ties for t, sign in path]
        total = fsum(terms)
        if total < -LOOP_TOLERANCE * max(map(abs, terms)):
            return _Loop(diodes, ties, -total)
        if slack < _LAST_SLACK:
            slack *= 2
        else:
            extra[edges] += np.abs(length[edges]).max()


def _refuse(circuit: Circuit, loop: _Loop, row: int | None) -> None:
    ideal, ties = circuit.ideal_diodes, circuit.ties
    names, nodes = [], []
    for k, path in zip(loop.diodes, loop.ties, strict=True):
        names += [circuit.element(ideal, k), *(circuit.element(ties, t) for t, _ in path)]
        nodes += [circuit.nodes[ideal.a[k]], circuit.nodes[ideal.b[k]]]
        nodes += [circuit.nodes[(ties.b if sign > 0 else ties.a)[t]] for t, sign in path]
    places = [(at.line if (at := circuit.at(ideal, k)) else -1, k) for k in loop.diodes]
    raise TopologyError(
        f"loop of ideal diodes and voltage sources {listed(names)} that no voltages satisfy: the sources push "
        f"{loop.volts:g} V forward through the diodes{of_row(row)}; put a resistor in the loop",
        circuit.at(ideal, max(places)[1]),
        nodes=list(dict.fromkeys(nodes)),
        elements=names,
    )


@jit()
def relax(tail, head, length, distance, above):  # type: ignore[no-untyped-def]
    """Bellman-Ford in place: distance[head] <= distance[tail] + length on all edges, or a node of a negative cycle.

    `above[node]` is the edge that set its distance (-1: none). Edges are passed forwards and backwards in turn, which
    settles long chains at once; the edges that set distances close a cycle only where it is negative. Returns -1 when
    all distances are settled.
    """
    n, m = distance.size, tail.size
    seen = np.zeros(n, np.int64)
    passes, check_at = 0, 1
    while True:
        changed = False
        for step in range(2 * m):
            k = step if step < m else 2 * m - 1 - step
            new = distance[tail[k]] + length[k]
            if new < distance[head[k]]:
                distance[head[k]] = new
                above[head[k]] = k
                changed = True
        if not changed:
            return -1
        passes += 1
        if passes >= check_at:
            check_at *= 2
            seen[:] = 0
            for first in range(n):
                stamp = first + 1
                node = first
                while seen[node] == 0 and above[node] >= 0:
                    seen[node] = stamp
                    node = tail[above[node]]
                if seen[node] == stamp and above[node] >= 0:
                    return node
                if above[node] < 0:
                    seen[node] = stamp


@jit()
def relax_rows(tail, head, length, distance):  # type: ignore[no-untyped-def]
    """`relax` for each row of lengths (rows, edges) and distances (rows, nodes), in place; an edge of inf is none."""
    for row in range(length.shape[0]):
        relax(tail, head, length[row], distance[row], np.full(distance.shape[1], -1, np.int64))
