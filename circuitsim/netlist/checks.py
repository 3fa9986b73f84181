"""Checks of the finished tables, all at once: values that an element may not have, and likely slips."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import NetlistError
from circuitsim.netlist.arrays import bounds_of, corners, member_names, split_ranges
from circuitsim.netlist.cards import NOUNS
from circuitsim.netlist.model import ABSOLUTE_ZERO, CROSSBAR, ArrayRef, CrossbarCard, Ints, Table
from circuitsim.netlist.scopes import Place
from circuitsim.netlist.tokens import shown

LEAST_OHMS = 1.0 / np.finfo(np.float64).max  # ohm: below, the conductance overflows
_MONOTONE = "make it 0 or positive, or the equilibrium may not exist or not be unique"
_NOT_GROUND = ("00", "000", "gnd!", "ground")
_MOST_REMARKS = 10
_MOST_TRIED = 100  # nodes that may deserve one: each takes a look at all elements
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
    tables: Mapping[str, Table],
    crossbars: Sequence[CrossbarCard],
    nodes: list[str],
    known: Collection[str],
    arrays: Mapping[str, ArrayRef],
    read: Ints,
    shunted: bool,
) -> list[Remark]:
    """Remarks about nodes that may be mistaken for ground or for several, and about elements without effect.

    known    the names of all nodes in lower case
    read     nodes that `.output` and `.save` name
    shunted  every node has a resistor to ground of its own (`.options rshunt`)
    """
    return [
        *_about_nodes(tables, crossbars, nodes, known),
        *_about_shared_nodes(tables, nodes, known, arrays),
        *_about_idle_elements(tables, crossbars, nodes, read, shunted),
    ]


def _about_nodes(
    tables: Mapping[str, Table], crossbars: Sequence[CrossbarCard], nodes: list[str], known: Collection[str]
) -> list[Remark]:
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
    for k, (base, indices) in spans.items():
        for end in (slice(None, 1), slice(-1, None)):
            [member] = member_names(base, [index[end] if isinstance(index, range) else index for index in indices])
            if indices and member.lower() in known:
                several = "a range stands for several only where the element's name, or the pin, has one"
                found.setdefault(k, f"one node, beside {shown(member)}: {several}")
    for k, text in sorted(found.items()):
        place = min(int(seq[at].min()) for side, seq in ends if (at := side == k).any())
        out.append((place, f"node '{shown(nodes[k])}' is {text}"))
    return out


def _about_shared_nodes(
    tables: Mapping[str, Table], nodes: list[str], known: Collection[str], arrays: Mapping[str, ArrayRef]
) -> list[Remark]:
    """Nodes that all members of an array share, `Rs[0:3] y 0`, where there are y[0] and y[3], too.

    None where something besides arrays is at such a node, or joins it with its namesakes: there it is meant.
    """
    out: dict[int, Remark] = {}
    tried = set[int]()
    several: dict[str, list[tuple[str, ArrayRef]]] = {kind: [] for kind in (*tables, CROSSBAR)}
    for name, ref in arrays.items():
        if ref.stop - ref.start > 1:
            several[ref.kind].append((name, ref))
    for kind, table in tables.items():
        first = np.array([ref.start for _, ref in several[kind]], np.int64)
        last = np.array([ref.stop - 1 for _, ref in several[kind]], np.int64)
        for side, at in enumerate((table.a, table.b, *_ports(table))):
            shared = np.flatnonzero((at[first] == at[last]) & (at[first] > 0))
            _, one_of_each_card = np.unique(table.seq[first[shared]], return_index=True)
            for k in shared[one_of_each_card].tolist():
                name, ref = several[kind][k]
                node = int(at[ref.start])
                ranges = _of_namesakes(nodes[node], name, ref.indices, side, known)
                if not ranges or node in tried or len(tried) == _MOST_TRIED:
                    continue
                tried.add(node)
                if np.all(at[ref.start : ref.stop] == node) and _has_arrays_only(node, tables, nodes):
                    base, beside = shown(nodes[node]), shown(corners(nodes[node], ranges)[0])
                    text = f"one node, beside {beside}; write {base}{bounds_of(ranges)} if all of these are meant"
                    out[node] = int(table.seq[ref.start]), f"node '{base}' is {text}"
    return list(out.values())


def _of_namesakes(
    node: str, array: str, indices: tuple[range, ...], side: int, known: Collection[str]
) -> tuple[range, ...]:
    """The ranges of an array, or that of a side, if they are those of nodes named like this one, of the same instance;
    else none."""
    path = array.partition(".")[2].rpartition(".")[0]
    if not path or node.lower().startswith(f"{path}."):
        for ranges in (indices, indices[side : side + 1]):
            if ranges and all(name.lower() in known for name in corners(node, ranges)):
                return ranges
    return ()


def _has_arrays_only(node: int, tables: Mapping[str, Table], nodes: list[str]) -> bool:
    """Whether all elements at a node are members of arrays, or inside such, and none joins it with its namesakes."""
    namesakes = f"{nodes[node].lower()}["
    for table in tables.values():
        sides = (table.a, table.b, *_ports(table))
        for k in np.flatnonzero(np.any([side == node for side in sides], axis=0)).tolist():
            others = [nodes[side[k]].lower() for side in sides]
            if "[" not in table.names[k] or any(name.startswith(namesakes) for name in others):
                return False
    return True


def _ports(table: Table) -> list[Ints]:
    """The nodes that control voltage-controlled sources: no current flows there."""
    return [nodes for column, nodes in table.links.items() if column in ("ca", "cb")]


def _about_idle_elements(
    tables: Mapping[str, Table], crossbars: Sequence[CrossbarCard], nodes: list[str], read: Ints, shunted: bool
) -> list[Remark]:
    """Elements with both ends at one node, or alone at a node. Control ports carry nothing anyway. A node with a
    capacitor is none of these: that no current flows there is no slip.

    A source of a voltage that only controls others is no slip, nor is a controlled one whose voltage is `read`.
    """
    sensed = np.zeros(len(nodes), bool)
    degree = np.zeros(len(nodes), np.int64)
    for table in tables.values():
        degree += np.bincount(table.a, minlength=len(nodes)) + np.bincount(table.b, minlength=len(nodes))
        for ports in _ports(table):
            sensed[ports] = True
    is_read = np.zeros(len(nodes), bool)
    is_read[read] = True
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
                if not (sensed[node] and kind in "VEH") and not (is_read[node] and kind in "EH"):
                    other = "nothing but controls is" if sensed[node] else "nothing else is"
                    text = f"{_label(table, i)} carries no current: {other} at node {shown(nodes[node])}"
                    out.append((int(table.seq[i]), text))
    out.sort()
    more = len(out) - _MOST_REMARKS
    return [*out[:_MOST_REMARKS], (out[-1][0], f"{more} more elements have no effect")] if more > 1 else out
