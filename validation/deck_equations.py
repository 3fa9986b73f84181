"""The equations of a random deck at given voltages and currents, from its parts alone (dense.py).

Currents of R, I, N and of D with a law follow from the voltages; those of V, shorts, E, F, G, H and ideal diodes are
given, the latter's also found by KCL (`ideal_currents`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import brentq, nnls
from scipy.sparse import csgraph

from validation.dense import LAWS, Dense
from validation.random_decks import Deck

Floats = NDArray[np.float64]

KCL = 1e-9  # of the absolute currents at a node
LEAST = 1e-8  # A: beside the sources of a random deck, nothing
EPS = float(np.finfo(float).eps)


class _Sums:
    """What branches carry out of each node, and out of each group of nodes that V and shorts tie together, A.

    net, size, noise   {node: sum, sum of absolute currents, rounding}
    group              {node: number of its group}; group_net, group_size, group_noise: the same by number, of the
                       branches that leave a group
    """

    def __init__(self, dense: Dense, nodes: list[str]) -> None:
        self.group = _tied(dense, nodes)
        self.net: dict[str, float] = dict.fromkeys(nodes, 0.0)
        self.size, self.noise = dict(self.net), dict(self.net)
        self.group_net, self.group_size, self.group_noise = ([0.0] * len(nodes) for _ in range(3))

    def carry(self, a: str, b: str, i: float, rounding: float = 0.0) -> None:
        """A current from a to b."""
        for node, sign in ((a, 1.0), (b, -1.0)):
            if a != b:
                self.net[node] += sign * i
                self.size[node] += abs(i)
                self.noise[node] += rounding
                if self.group[a] != self.group[b]:
                    self.group_net[self.group[node]] += sign * i
                    self.group_size[self.group[node]] += abs(i)
                    self.group_noise[self.group[node]] += rounding


def _without_ideals(dense: Dense, v: Mapping[str, float], i_of: Mapping[str, float], volts: float) -> _Sums:
    """What all branches but ideal diodes carry at voltages v, ground's included."""
    sums = _Sums(dense, list(v))
    inner = {x.part: x.value for x in dense.resistors if x.b == f"{x.part}#"}
    for x in dense.resistors:
        if x.b not in inner and not x.b.endswith("#"):
            sums.carry(x.a, x.b, x.value * (v[x.a] - v[x.b]), 8 * EPS * volts * x.value)
    for x in dense.sources:
        sums.carry(x.a, x.b, x.value)
    for k, (x, _, _) in enumerate(dense.legs):
        a = x.a if x.part not in inner else next(r.a for r in dense.resistors if r.b == f"{x.part}#")
        rs = 1.0 / inner[x.part] if x.part in inner else 0.0
        i, below, above = (_leg(dense, k, v[a] - v[x.b] + d, rs) for d in (0.0, -8 * EPS * volts, 8 * EPS * volts))
        sums.carry(a, x.b, i, above - below)
    for x in dense.ties:
        sums.carry(x.a, x.b, i_of[x.part])
        if dense.controlled:  # then currents of sources may be unknowns, with the rounding of one float64
            sums.group_noise[sums.group[x.a]] += 4 * EPS * abs(i_of[x.part])
    for part in dense.controlled:
        sums.carry(part.a, part.b, i_of[part.name])
    return sums


def broken_equation(
    dense: Dense,
    v_of: Mapping[str, float],
    i_of: Mapping[str, float],
    kcl: float = KCL,
    certain: Mapping[str, bool] | None = None,
    ron: float = 0.0,
) -> str:
    """The first equation of the circuit that voltages and currents break; '' when all hold.

    Ground, tied nodes and those of islands that float take up the rounding of all others; nodes that V and shorts tie
    together must meet KCL as a group. With `ron`, ohm, ideal diodes have that resistance.
    """
    known = {"0": 0.0} | dict(v_of)
    if not all(np.isfinite([*v_of.values(), *i_of.values()])):
        return "a voltage or a current is not finite"
    most = max(map(abs, i_of.values()), default=0.0)
    volts = max([1e-9, most / max(dense.g.max(initial=0.0), 1e-9), *map(abs, v_of.values())])
    sums = _without_ideals(dense, known, i_of, volts)

    def across(a: str, b: str) -> float:
        return known[a] - known[b]

    for x in dense.ties:
        if abs(across(x.a, x.b) - x.value) > 1e-9 * max(volts, abs(x.value)):
            return f"source or short {x.part} has {across(x.a, x.b)!r} V"
    done = set()
    for x in dense.ideals:
        i, room = i_of[x.part], x.value - across(x.a, x.b)
        forward = x.part not in done
        if forward:
            sums.carry(x.a, x.b, i)
        through = max(i if forward else -i, 0.0)
        if room < -1e-9 * max(volts, x.value) - ron * through:
            return f"ideal diode {x.part} is {-room:.3g} V beyond its forward voltage"
        if through > 1e-9 * most and room > 1e-6 * max(volts, x.value):
            return f"ideal diode {x.part} carries {i:.3g} A, {room:.3g} V short of its forward voltage"
        if forward and i < -1e-9 * most and sum(y.part == x.part for y in dense.ideals) < 2:
            return f"ideal diode {x.part} carries {i:.3g} A backwards"
        done.add(x.part)
    for part in dense.controlled:
        i = i_of[part.name]
        c = across(*part.control) if part.kind in "EG" else i_of[part.control[0]]
        is_, wanted = (across(part.a, part.b) if part.kind in "EH" else i), part.value * c
        unit = volts if part.kind in "EH" else most
        reach = abs(part.value) * (volts if part.kind in "EG" else most)
        if abs(is_ - wanted) > 1e-9 * (abs(is_) + abs(wanted)) + 64 * EPS * (unit + reach):
            return f"{part.name} gives {is_!r} where its control asks {wanted!r}"
    return _broken_kcl(dense, sums, kcl, certain)


def _broken_kcl(dense: Dense, sums: _Sums, kcl: float, certain: Mapping[str, bool] | None) -> str:
    net, size = sums.net, sums.size
    tied = {n for x in [*dense.ties, *dense.ideals, *dense.controlled] for n in (x.a, x.b)}
    shared = kcl * sum(size.values()) + sum(sums.noise.values())
    for node in net:
        exact = node not in tied and node != "0" and (certain is None or certain[node])
        allowed = kcl * size[node] + sums.noise[node] if exact else shared
        allowed += EPS * LEAST
        if abs(net[node]) > allowed:
            return f"KCL at {node}: {net[node]:.3g} A are left of {size[node]:.3g} A"
    group, group_net, group_size = sums.group, sums.group_net, sums.group_size
    held = {group["0"], *(group[n] for x in [*dense.ideals, *dense.controlled] for n in (x.a, x.b))}
    held |= {group[n] for n in net if certain is not None and n != "0" and not certain[n]}
    for node in net:
        k = group[node]
        if k not in held and abs(group_net[k]) > kcl * group_size[k] + sums.group_noise[k] + EPS * LEAST:
            return f"KCL at the group of {node}: {group_net[k]:.3g} A are left of {group_size[k]:.3g} A"
    return ""


def controlled_currents(deck: Deck, v_of: Mapping[str, float], i_of: Mapping[str, float]) -> dict[str, float]:
    """Currents of F and G by their laws, A."""
    known = {"0": 0.0} | dict(v_of)
    found = {}
    for part in deck.parts:
        if part.kind == "F":
            found[part.name] = part.value * i_of[part.control[0]]
        elif part.kind == "G":
            found[part.name] = part.value * (known[part.control[0]] - known[part.control[1]])
    return found


def ideal_currents(dense: Dense, v_of: Mapping[str, float], i_of: Mapping[str, float], near: float) -> dict[str, float]:
    """Currents of the ideal diodes, A, that fit KCL best, relative to the currents at each node.

    Those carry some whose voltage is within `near` V of the forward voltage, or beyond it. Ground takes what is left.
    """
    known = {"0": 0.0} | dict(v_of)
    sums = _without_ideals(dense, known, i_of, max([1e-9, *map(abs, v_of.values())]))
    nodes = [node for node in known if node != "0"]
    conducting = [x for x in dense.ideals if known[x.a] - known[x.b] > x.value - near]
    size = np.array([sums.size[node] for node in nodes])
    weight = 1.0 / np.maximum(size, KCL * max(size.max(initial=0.0), LEAST))
    rows = {node: k for k, node in enumerate(nodes)}
    matrix = np.zeros((len(nodes), len(conducting)))
    for k, x in enumerate(conducting):
        for node, sign in ((x.a, 1.0), (x.b, -1.0)):
            if node != "0":
                matrix[rows[node], k] += sign
    found = dict.fromkeys((x.part for x in dense.ideals), 0.0)
    if conducting:
        sides = -np.array([sums.net[node] for node in nodes]) * weight
        for x, i in zip(conducting, nnls(matrix * weight[:, None], sides)[0].tolist(), strict=True):
            forward = next(y for y in dense.ideals if y.part == x.part)
            found[x.part] += i if x is forward else -i
    return found


def other_solutions(dense: Dense, v_of: Mapping[str, float], i_of: Mapping[str, float]) -> list[dict[str, float]]:
    """Voltages of two more solutions with the same currents, of a circuit without controlled sources.

    What no branch holds is moved up in one, and down in the other, as far as ideal diodes and flat pieces of laws let
    it go, or by the largest voltage. Both are to be put to the test by `broken_equation`.
    """
    known = {"0": 0.0} | dict(v_of)
    volts = max([1.0, *map(abs, known.values())])
    room: list[tuple[str, str, float]] = []  # of a over b: by how much their voltage may rise
    most, noise = max(map(abs, i_of.values()), default=0.0), 64 * EPS * volts
    inner = {x.b: x.a for x in dense.resistors if x.b.endswith("#")}
    for branch in [*dense.resistors, *dense.ties]:
        if branch.b not in inner:
            room += [(branch.a, branch.b, 0.0), (branch.b, branch.a, 0.0)]
    for x, kind, (_, lo, hi) in dense.legs:
        a = inner.get(x.a, x.a)
        w = known[a] - known[x.b]
        rise = np.inf if w >= hi - noise else max(lo - w, 0.0)
        fall = np.inf if w <= lo + noise else max(w - hi, 0.0)
        room += [(a, x.b, rise if kind == 2 else 0.0), (x.b, a, fall if kind == 2 else 0.0)]
    done = set()
    for x in dense.ideals:
        through = max(-i_of[x.part] if x.part in done else i_of[x.part], 0.0)
        done.add(x.part)
        room.append((x.a, x.b, max(x.value - known[x.a] + known[x.b], 0.0)))
        if through > 1e-9 * most:
            room.append((x.b, x.a, 0.0))
    found = []
    for sign in (1.0, -1.0):
        moved = {node: volts * (node != "0") for node in known}
        for _ in known:  # shortest paths from ground (R. Bellman 1958)
            for a, b, least in room:
                high, low = (a, b) if sign > 0 else (b, a)
                moved[high] = min(moved[high], moved[low] + least)
        found.append({node: known[node] + sign * moved[node] for node in v_of})
    return found


def _tied(dense: Dense, nodes: list[str]) -> dict[str, int]:
    """The group of each node: nodes that V and shorts tie together have one number."""
    index = {node: k for k, node in enumerate(nodes)}
    ends = np.array([(index[x.a], index[x.b]) for x in dense.ties], int).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(nodes), len(nodes)))
    return dict(zip(nodes, csgraph.connected_components(graph, directed=False)[1].tolist(), strict=True))


def _leg(dense: Dense, k: int, v: float, rs: float) -> float:
    """Current of a nonlinear branch with its RS in series."""
    _, kind, p = dense.legs[k]

    def current(w: float) -> float:
        return float(LAWS[kind](np.array([p]), np.array([w]))[0][0])

    if rs and v:
        ends = min(v, 0.0), max(v, 0.0)
        v = float(brentq(lambda w: w + rs * current(w) - v, *ends, xtol=1e-300, rtol=4 * EPS, maxiter=500))
    return current(v)
