"""Circuits with controlled sources that have an energy all the same: those whose amplifiers pass errors back.

A bidirectional amplifier (J. Kendall et al. 2020) is an E, v(out) = A v(in), in series with a voltage source whose
current, the one that flows into the circuit at `out`, an F takes times C from the node `in`. Moving the voltages by dv,
where KCL holds at every node of a circuit, and w is the weight of a node's part,

    sum of w dv (sum of currents) = 0,      and the amplifier's share,  i (w_out A - C w_in) dv(in),  vanishes

if w_out / w_in = C / A. With such weights, one for each part that branches join, sum of w E(part) is an energy, and
equilibrium propagation follows its gradient: the factors are 1 / A^2 where C = 1 / A, and 1 for a transformer, C = A.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from circuitsim import Circuit, Problem
from circuitsim.netlist.model import KINDS
from training.gradient import Outputs

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_Law: TypeAlias = tuple[int, tuple[tuple[int, float], ...]]  # a unit moves as the sum of (unit, -1 for none; factor)

_SAME = 1e-9  # weights found in two ways: the relative difference that rounding of gains may cause


@dataclass(frozen=True)
class Energy:
    """The energy of a circuit with amplifiers."""

    weights: Floats  # (n_nodes,) of each node, 1 at the outputs
    of_units: Floats  # (n_free,) the same of each unit
    moves: sparse.csr_array  # (n_free, independent units): how the units move with those that no amplifier drives

    def matrix(self, conductances: sparse.sparray | Floats) -> sparse.sparray | Floats:
        """The second derivatives of the energy of the conductances between units, (n_free, n_free) S."""
        return self.moves.T @ (sparse.diags_array(self.of_units) @ conductances) @ self.moves


def find_energy(problem: Problem, outputs: Outputs) -> Energy | None:
    """The energy of a circuit with controlled sources; None if there are none, or there is no energy."""
    if problem.circuit.reciprocal:
        return None
    unit = problem.topology.index_of_node
    amplifiers = _amplifiers(problem.circuit, unit, outputs)
    if amplifiers is None:
        return None
    part = _parts(problem, unit, outputs)
    beside: dict[int, list[tuple[int, float]]] = {}  # part -> (another, its weight over that of the part)
    for amplifier in amplifiers:
        low, high = part[amplifier.front], part[amplifier.behind]
        beside.setdefault(low, []).append((high, amplifier.ratio))
        beside.setdefault(high, []).append((low, 1.0 / amplifier.ratio))
    found = dict.fromkeys(part[np.flatnonzero(outputs.ends(problem.n_free))].tolist(), 1.0)
    waiting = list(found)
    while waiting:
        here = waiting.pop()
        for other, ratio in beside.get(here, ()):
            weight = found[here] * ratio
            if other not in found:
                found[other] = weight
                waiting.append(other)
            elif abs(found[other] - weight) > _SAME * weight:
                return None
    of_part = np.ones(part.size)  # no nudge reaches the others
    of_part[list(found)] = list(found.values())
    moves = _moves(problem.n_free, [law for amplifier in amplifiers for law in amplifier.laws])
    if moves is None:
        return None
    weights = np.ones(unit.size)
    weights[unit >= 0] = of_part[part[unit[unit >= 0]]]
    return Energy(weights, of_part[part], moves)


@dataclass(frozen=True)
class _Amplifier:
    front: int  # unit
    behind: int  # unit
    ratio: float  # of the weight behind it to that in front
    laws: tuple[_Law, ...]  # of the units that it drives


def _moves(n_free: int, laws: Sequence[_Law]) -> sparse.csr_array | None:
    """See Energy; None where an amplifier drives itself, or two drive the same unit."""
    driven = [unit for unit, _ in laws]
    if len(set(driven)) < len(driven):
        return None
    once = sparse.lil_array(sparse.eye_array(n_free))
    for unit, terms in laws:
        once[unit, unit] = 0.0
        for other, factor in terms:
            if other >= 0:
                once[unit, other] += factor
    step = sparse.csr_array(once)
    moves = step
    for _ in driven:  # through amplifiers behind amplifiers
        if not moves[:, driven].count_nonzero():
            return moves[:, np.setdiff1d(np.arange(n_free), driven)]
        moves = step @ moves
    return None


def _amplifiers(c: Circuit, unit: Ints, outputs: Outputs) -> list[_Amplifier] | None:
    """The amplifiers; None if not all controlled sources are parts of some."""
    sources = c.controlled
    e, f = (np.flatnonzero(sources.kind == KINDS.index(kind)).tolist() for kind in "EF")
    backward = {int(sources.control[k]): k for k in f}
    if not len(sources) == 2 * len(e) == 2 * len(backward):
        return None
    in_series = _in_series(c, backward, outputs)
    found = []
    for k in e:
        a, b = int(sources.a[k]), int(sources.b[k])
        turned, far, near = (1, b, a) if a in in_series else (-1, a, b)
        tie, sign, other = in_series.get(near, (-1, 0, 0))
        if tie not in backward:
            return None
        back = backward.pop(tie)
        moved = _moving(unit, sources.ca[k], sources.cb[k])
        loaded = _moving(unit, sources.a[back], sources.b[back])
        driven = _moving(unit, other, far)
        if moved not in (loaded, loaded[::-1]) or max(moved) < 0 or max(driven) < 0:
            return None
        forward, backward_gain = float(sources.gain[k]), float(sources.gain[back])
        ratio = turned * sign * backward_gain / forward if forward else 0.0
        ratio = ratio if moved == loaded else -ratio
        if not 0 < ratio < np.inf:
            return None
        o, p = driven
        gain = turned * forward
        law = (
            (o, ((p, 1.0), (moved[0], gain), (moved[1], -gain)))
            if o >= 0
            else (p, ((moved[0], -gain), (moved[1], gain)))
        )
        middle = max(int(unit[near]), -1)
        between = [(middle, ((o, 1.0),))] if middle not in (-1, o) else []
        found.append(_Amplifier(max(loaded), max(driven), ratio, (law, *between)))
    return found


def _in_series(c: Circuit, ties: Iterable[int], outputs: Outputs) -> dict[int, tuple[int, int, int]]:
    """Nodes at which one of these ties meets a single other branch: the tie, 1 if it begins there or -1, its other end.

    Not outputs, where nudges are other branches, nor ground, where KCL needs not hold.
    """
    ends = [end for branches in c.groups.values() for end in (branches.a, branches.b)]
    ends += [end for x in c.crossbars for end in (x.rows, x.cols)]
    degree = np.bincount(np.concatenate([*ends, outputs.nodes, outputs.references]))
    degree[0] = 0
    found: dict[int, tuple[int, int, int]] = {}
    for tie in ties:
        a, b = int(c.ties.a[tie]), int(c.ties.b[tie])
        found |= {end: (tie, turned, other) for end, turned, other in ((a, 1, b), (b, -1, a)) if degree[end] == 2}
    return found


def _moving(unit: Ints, a: int, b: int) -> tuple[int, int]:
    """The free units of two nodes, -1 for known ones."""
    return max(int(unit[a]), -1), max(int(unit[b]), -1)


def _parts(problem: Problem, unit: Ints, outputs: Outputs) -> Ints:
    """The part that each free unit belongs to: branches between units, nudges too, and controls join them to parts."""
    c = problem.circuit
    pairs = [(unit[x.a], unit[x.b]) for x in c.groups.values()] + [(unit[c.controlled.ca], unit[c.controlled.cb])]
    pairs.append((outputs.units, outputs.reference_units))
    for x in c.crossbars:
        rows, cols = (units[units >= 0] for units in (unit[x.rows], unit[x.cols]))
        if rows.size and cols.size:
            pairs += [(rows, np.full(rows.size, cols[0])), (np.full(cols.size, rows[0]), cols)]
    a, b = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    both = (a >= 0) & (b >= 0)
    shape = (problem.n_free, problem.n_free)
    graph = sparse.coo_array((np.ones(np.count_nonzero(both)), (a[both], b[both])), shape=shape)
    parts: Ints = csgraph.connected_components(graph, directed=False)[1]
    return parts
