"""Checks of the finished tables, all at once: values that an element may not have, and likely slips."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import NetlistError
from circuitsim.netlist.arrays import member_names, split_ranges
from circuitsim.netlist.cards import NOUNS
from circuitsim.netlist.model import ABSOLUTE_ZERO, CrossbarCard, Ints, Table
from circuitsim.netlist.scopes import Place
from circuitsim.netlist.tokens import shown

LEAST_OHMS = 1.0 / np.finfo(np.float64).max  # ohm: below, the conductance overflows
_MONOTONE = "make it 0 or positive, or the equilibrium may not exist or not be unique"
_NOT_GROUND = ("00", "000", "gnd!", "ground")
_MOST_REMARKS = 10
_LONG = re.compile("[0-9]{16}")  # no index

Remark = tuple[int, str]  # place, text


def check_values(tables: Mapping[str, Table], place: Place) -> None:
    """Raise NetlistError for the first value, kind by kind, that is impossible."""
    r = tables["R"].values["r"]
    _refuse(tables["R"], place, r < 0, "r", f"negative resistance {{:g}} ohm; {_MONOTONE}")
    _refuse(tables["R"], place, np.isnan(r), "r", "its resistance is not a number; check its factors")
    _refuse(
        tables["R"], place, (r > 0) & (r < LEAST_OHMS), "r", "resistance {:g} ohm has no finite conductance; write 0"
    )
    for kind, column, unit in (("V", "v", "V"), ("I", "i", "A")):
        value = tables[kind].values[column]
        _refuse(tables[kind], place, ~np.isfinite(value), column, "{:g} " + unit + "; its value must be finite")
    for kind in "EFGH":
        gain = tables[kind].values["gain"]
        _refuse(tables[kind], place, ~np.isfinite(gain), "gain", "gain {:g}; it must be finite")
    d = tables["D"]
    for table, column in ((d, "area"), (d, "m"), (tables["N"], "m")):
        factor = table.values[column]
        bad = ~((factor > 0) & (factor < np.inf))
        _refuse(table, place, bad, column, f"{column} {{:g}} must be positive and finite")
    temp = d.values["temp"]
    cold = f"temperature {{:g}} C must be above absolute zero, {ABSOLUTE_ZERO} C, and finite"
    _refuse(d, place, ~((temp > ABSOLUTE_ZERO) & (temp < np.inf)), "temp", cold)


def _refuse(table: Table, place: Place, bad: NDArray[np.bool_], column: str, message: str) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        found = message.format(table.values[column][i])
        raise NetlistError(f"{_label(table, i)}: {found}", place(int(table.seq[i])))


def _label(table: Table, i: int) -> str:
    return f"{NOUNS[table.kind]} {shown(table.names[i])}"


def remarks(
    tables: Mapping[str, Table], crossbars: Sequence[CrossbarCard], nodes: list[str], shunted: bool
) -> list[Remark]:
    """Remarks about nodes that may be mistaken for ground or for several, and about elements without effect.

    `shunted`: every node has a resistor to ground of its own (`.options rshunt`).
    """
    return _about_nodes(tables, crossbars, nodes) + _about_idle_elements(tables, crossbars, nodes, shunted)


def _about_nodes(tables: Mapping[str, Table], crossbars: Sequence[CrossbarCard], nodes: list[str]) -> list[Remark]:
    ends = [(side, t.seq) for t in tables.values() for side in (t.a, t.b, *_ports(t))]
    ends += [(side, np.full(side.size, c.seq)) for c in crossbars for side in (c.rows, c.cols)]
    out: list[Remark] = []
    if not any((side == 0).any() for side, _ in ends):
        out.append((0, "no node is ground (0): the voltages of each part are relative to its first node"))
    found = {
        k: "an ordinary node; ground is 0 or gnd"
        for k, name in enumerate(nodes)
        if len(name) < 7 and name.lower() in _NOT_GROUND
    }
    spans = {k: split_ranges(name) for k, name in enumerate(nodes) if ":" in name and not _LONG.search(name)}
    known = {name.lower() for name in nodes} if spans else set()
    for k, (base, indices) in spans.items():
        for end in (slice(None, 1), slice(-1, None)):
            [member] = member_names(base, [index[end] if isinstance(index, range) else index for index in indices])
            if indices and member.lower() in known:
                several = "a range stands for several only where the element's name has one"
                found.setdefault(k, f"one node, beside {shown(member)}: {several}")
    for k, text in sorted(found.items()):
        place = min(int(seq[at].min()) for side, seq in ends if (at := side == k).any())
        out.append((place, f"node '{shown(nodes[k])}' is {text}"))
    return out


def _ports(table: Table) -> list[Ints]:
    """The nodes that control voltage-controlled sources: no current flows there."""
    return [nodes for column, nodes in table.links.items() if column in ("ca", "cb")]


def _about_idle_elements(
    tables: Mapping[str, Table], crossbars: Sequence[CrossbarCard], nodes: list[str], shunted: bool
) -> list[Remark]:
    """Elements with both ends at one node, or alone at a node. Control ports carry nothing anyway. A node with a
    capacitor is none of these: that no current flows there is no slip.

    A source of a voltage that only controls others is no slip.
    """
    sensed = np.zeros(len(nodes), bool)
    degree = np.zeros(len(nodes), np.int64)
    for table in tables.values():
        degree += np.bincount(table.a, minlength=len(nodes)) + np.bincount(table.b, minlength=len(nodes))
        for ports in _ports(table):
            sensed[ports] = True
    for c in crossbars:
        np.add.at(degree, c.rows, np.count_nonzero(c.g, axis=1))
        np.add.at(degree, c.cols, np.count_nonzero(c.g, axis=0))
    alone = (degree == 1) & (not shunted)
    alone[0] = False
    out: list[Remark] = []
    for kind in "RDNLVIEFGH":
        table = tables[kind]
        if kind not in "VEH":
            for i in np.flatnonzero(table.a == table.b).tolist():
                name = shown(nodes[table.a[i]])
                out.append((int(table.seq[i]), f"{_label(table, i)} has no effect: both ends are at node {name}"))
        if kind not in "IFG":
            for i in np.flatnonzero(alone[table.a] | alone[table.b]).tolist():
                node = table.a[i] if alone[table.a[i]] else table.b[i]
                if not sensed[node] or kind not in "VEH":
                    other = "nothing but controls is" if sensed[node] else "nothing else is"
                    text = f"{_label(table, i)} carries no current: {other} at node {shown(nodes[node])}"
                    out.append((int(table.seq[i]), text))
    out.sort()
    more = len(out) - _MOST_REMARKS
    return [*out[:_MOST_REMARKS], (out[-1][0], f"{more} more elements have no effect")] if more > 1 else out
