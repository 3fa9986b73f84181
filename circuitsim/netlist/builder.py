"""Collects elements as they are read, then sorts them into the tables of a Netlist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.arrays import member_names
from circuitsim.netlist.model import ArrayRef, CrossbarCard, Ints, Table
from circuitsim.netlist.source import Plain

KINDS = "RVIDLC"
COLUMNS = {"R": ("r",), "V": ("v",), "I": ("i",), "D": ("model", "area", "temp"), "L": (), "C": ()}


@dataclass
class _Rows:
    """The rows of one kind so far: lists of pieces that are joined once, at the end."""

    names: list[str] = field(default_factory=list)
    a: list[int] = field(default_factory=list)
    b: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)  # place of the top-level card: where the row stands in the deck
    seq: list[int] = field(default_factory=list)  # place of the element's own card
    values: dict[str, list[float]] = field(default_factory=dict)


class Builder:
    """Nodes, element rows and crossbars under construction."""

    def __init__(self) -> None:
        self.nodes: list[str] = ["0"]
        self.node_index: dict[str, int] = {"0": 0}
        self.rows = {kind: _Rows(values={c: [] for c in COLUMNS[kind]}) for kind in KINDS}
        self.arrays: dict[str, ArrayRef] = {}
        self.crossbars: list[CrossbarCard] = []
        self.crossbar_order: list[int] = []
        self.names: dict[str, int] = {}  # lower-case element name -> place

    def node(self, name: str) -> int:
        """The index of a node, made when new. Ground is `0` or `gnd` in any case."""
        key = name.lower()
        if key == "gnd":
            key = "0"
        index = self.node_index.get(key)
        if index is None:
            index = self.node_index[key] = len(self.nodes)
            self.nodes.append(name)
        return index

    def add(
        self,
        kind: str,
        name: str,
        ranges: tuple[range, ...],
        a: Sequence[int],
        b: Sequence[int],
        place: tuple[int, int],
        values: Mapping[str, ArrayLike],
    ) -> None:
        """Append the members of an array (or one element: no ranges, one row)."""
        rows = self.rows[kind]
        count = len(a)
        start = len(rows.names)
        rows.names += member_names(name, ranges)
        rows.a += a
        rows.b += b
        rows.order += [place[0]] * count
        rows.seq += [place[1]] * count
        for column, value in values.items():
            rows.values[column] += np.broadcast_to(np.asarray(value, float).ravel(), (count,)).tolist()
        if ranges:
            self.arrays[name.lower()] = ArrayRef(kind, start, start + count, ranges)

    def add_crossbar(self, crossbar: CrossbarCard, order: int) -> None:
        self.crossbars.append(crossbar)
        self.crossbar_order.append(order)
        self.arrays[crossbar.name.lower()] = ArrayRef("crossbar", 0, 0, crossbar.ranges)

    def tables(self, plain: list[Plain]) -> tuple[dict[str, Table], tuple[CrossbarCard, ...], list[str]]:
        """Tables in deck order, crossbars, and node names numbered by first appearance."""
        parts = [_plain_rows(p, self) for p in plain]
        tables: dict[str, Table] = {}
        orders: dict[str, Ints] = {}
        for kind in KINDS:
            rows = self.rows[kind]
            chosen = [p[kind] for p in parts if kind in p]
            order = np.concatenate([np.array(rows.order, np.int64), *[c["seq"] for c in chosen]])
            sort = np.argsort(order, kind="stable")
            names = rows.names + [name for c in chosen for name in c["names"]]
            values = {
                column: np.concatenate([np.array(rows.values[column], float), *[c["value"] for c in chosen]])[sort]
                for column in COLUMNS[kind]
            }
            tables[kind] = Table(
                kind,
                names if _is_sorted(order) else [names[i] for i in sort],
                np.concatenate([np.array(rows.a, np.int64), *[c["a"] for c in chosen]])[sort],
                np.concatenate([np.array(rows.b, np.int64), *[c["b"] for c in chosen]])[sort],
                np.concatenate([np.array(rows.seq, np.int64), *[c["seq"] for c in chosen]])[sort],
                values,
            )
            orders[kind] = order[sort]
            self._move_arrays(kind, sort)
        return self._number_nodes(tables, orders)

    def _move_arrays(self, kind: str, sort: Ints) -> None:
        """Array members stay together under the stable sort; note where each array went."""
        moved = {key: ref for key, ref in self.arrays.items() if ref.kind == kind}
        if moved:
            place = np.empty_like(sort)
            place[sort] = np.arange(sort.size)
            for key, ref in moved.items():
                start = int(place[ref.start])
                self.arrays[key] = ArrayRef(kind, start, start + ref.stop - ref.start, ref.indices)

    def _number_nodes(
        self, tables: dict[str, Table], orders: dict[str, Ints]
    ) -> tuple[dict[str, Table], tuple[CrossbarCard, ...], list[str]]:
        first = np.full(len(self.nodes), np.iinfo(np.int64).max)
        for kind, table in tables.items():
            np.minimum.at(first, table.a, 2 * orders[kind])
            np.minimum.at(first, table.b, 2 * orders[kind] + 1)
        for crossbar, order in zip(self.crossbars, self.crossbar_order, strict=True):
            np.minimum.at(first, crossbar.rows, 2 * order)
            np.minimum.at(first, crossbar.cols, 2 * order + 1)
        first[0] = -1
        by_first = np.argsort(first, kind="stable")
        number = np.empty_like(by_first)
        number[by_first] = np.arange(by_first.size)
        for kind, t in tables.items():
            tables[kind] = Table(kind, t.names, number[t.a], number[t.b], t.seq, t.values)
        crossbars = tuple(
            CrossbarCard(c.name, number[c.rows], number[c.cols], c.g, c.ranges, c.seq) for c in self.crossbars
        )
        return tables, crossbars, [self.nodes[i] for i in by_first]


def _is_sorted(order: Ints) -> bool:
    return bool((order[1:] >= order[:-1]).all())


def _plain_rows(plain: Plain, builder: Builder) -> dict[str, dict]:
    """The plain cards of one file, by kind, with names decoded and nodes in the builder's numbering."""
    cards = plain.cards
    number = np.array([builder.node(name) for name in cards.nodes], np.int64)
    text = plain.data.decode("latin-1")  # one character per byte: plain names are ASCII
    out = {}
    for kind in "RVI":
        chosen = cards.letter == ord(kind.lower())
        if chosen.any():
            spans = zip(cards.name_start[chosen].tolist(), cards.name_stop[chosen].tolist(), strict=True)
            out[kind] = {
                "names": [text[start:stop] for start, stop in spans],
                "a": number[cards.a[chosen]],
                "b": number[cards.b[chosen]],
                "seq": plain.seq[chosen],
                "value": cards.value[chosen],
            }
    return out


def check_duplicates(plain: list[Plain], taken: dict[str, int], place: Callable[[int], At]) -> None:
    """No plain card has the name of another element. `taken`: lower-case name -> place of all other elements."""
    for p in plain:
        text = p.data.decode("latin-1").lower()
        if p.duplicate is not None:
            i, j = p.duplicate
            name = text[p.cards.name_start[j] : p.cards.name_stop[j]]
            raise duplicate(name, int(p.seq[i]), int(p.seq[j]), place)
        spans = zip(p.cards.name_start.tolist(), p.cards.name_stop.tolist(), p.seq.tolist(), strict=True)
        named = [(text[start:stop], seq) for start, stop, seq in spans]
        for name, seq in named:
            if name in taken:
                raise duplicate(name, taken[name], seq, place)
        if len(plain) > 1:
            taken.update(named)


def duplicate(name: str, one: int, other: int, place: Callable[[int], At]) -> NetlistError:
    """The error for two elements of one name, whose places these are."""
    first, second = place(min(one, other)), place(max(one, other))
    return NetlistError(
        f"element {name}: this name is already taken by the element at {first}; "
        "every element needs a name of its own (case does not matter)",
        second,
    )
