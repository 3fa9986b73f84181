"""Collects elements as they are read, then sorts them into the tables of a Netlist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.arrays import NUMBER, member_names
from circuitsim.netlist.expressions import Value
from circuitsim.netlist.model import CROSSBAR, KINDS, ArrayRef, CrossbarCard, Floats, Ints, Table, similar
from circuitsim.netlist.scopes import fold
from circuitsim.netlist.source import Plain
from circuitsim.netlist.tokens import shown

Links: TypeAlias = Sequence[Sequence[int]]  # of an element or an array: for each of LINKS a number for each member

_INDEX = re.compile(rf"\[({NUMBER})\]$")
COLUMNS = {  # of values; see model.Table
    "R": ("r", "g"), "V": ("v",), "I": ("i",), "D": ("model", "area", "m", "temp"), "L": (), "C": (),
    "N": ("model", "m"),
    "E": ("gain",), "F": ("gain",), "G": ("gain",), "H": ("gain",),
}  # fmt: skip
LINKS = {"E": ("ca", "cb"), "F": ("control",), "G": ("ca", "cb"), "H": ("control",)}


@dataclass
class _Rows:
    """The rows of one kind so far."""

    columns: list[list[float]]  # one list for each of COLUMNS
    links: list[list[int]]  # one list for each of LINKS: nodes, or numbers of `Builder.controls`
    names: list[str] = field(default_factory=list)
    a: list[int] = field(default_factory=list)
    b: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)  # place of the top-level card: where the row stands in the deck
    seq: list[int] = field(default_factory=list)  # place of the element's own card


@dataclass(frozen=True)
class _PlainRows:
    """The plain cards of one kind in one file; nodes in the builder's numbering."""

    names: list[str]
    a: Ints
    b: Ints
    seq: Ints
    columns: list[Floats]  # one for each of COLUMNS


class Builder:
    """Nodes, element rows and crossbars under construction."""

    def __init__(self, place: Callable[[int], At], known: dict[str, int] | None = None) -> None:
        """`known`: the numbers of all nodes (lower-case names), where they are settled."""
        self.place = place
        self.nodes: list[str] = ["0"]
        self.node_index: dict[str, int] = {"0": 0} if known is None else known
        # For each node twice the place where it appears first, plus 1 for a plain card's second node.
        self.first: list[int] = [-1]
        self.rows = {kind: _Rows([[] for _ in COLUMNS[kind]], [[] for _ in LINKS.get(kind, ())]) for kind in KINDS}
        self.arrays: dict[str, ArrayRef] = {}
        self.crossbars: list[CrossbarCard] = []
        self.names: dict[str, int] = {}  # lower-case element or array name -> place
        self.controls: list[tuple[str, str, int]] = []  # (voltage source, label and place of what it controls)

    def node(self, name: str, order: int) -> int:
        """The index of a node, made when new; `order`: place of the top-level card. Ground is `0` or `gnd` in any case.

        Cards come in deck order: the first one gives the node its place and its spelling.
        """
        key = fold(name)
        index = self.node_index.get(key)
        if index is None:
            index = self.node_index[key] = len(self.nodes)
            self.nodes.append(name)
            self.first.append(2 * order)
        return index

    def claim(self, name: str, seq: int) -> None:
        """Note that the element, array or instance at place `seq` has this name; no other may have it."""
        earlier = self.names.setdefault(name.lower(), seq)
        if earlier != seq:
            raise _duplicate(name, self.place(earlier), self.place(seq))

    def control(self, source: str, label: str, seq: int) -> int:
        """The number, for the link `control`, of a voltage source that may come later in the deck."""
        self.controls.append((source, label, seq))
        return len(self.controls) - 1

    def add(
        self, kind: str, name: str, a: int, b: int, order: int, seq: int, *values: Value, links: Links = ()
    ) -> None:
        """Append one element; `values` in the order of COLUMNS, `links` in that of LINKS, a list each."""
        self._add_rows(kind, [name], [a], [b], order, seq, links)
        self._add_values(kind, 1, values)

    def add_array(
        self,
        kind: str,
        name: str,
        indices: tuple[range, ...],
        a: Sequence[int],
        b: Sequence[int],
        order: int,
        seq: int,
        *values: Value,
        links: Links = (),
    ) -> None:
        """Append the members of an array; each of the values is one number, or one for each member."""
        start = len(self.rows[kind].names)
        self._add_rows(kind, member_names(name, indices), a, b, order, seq, links)
        self._add_values(kind, len(a), values)
        self.arrays[name.lower()] = ArrayRef(kind, start, start + len(a), indices)

    def _add_rows(
        self, kind: str, names: Sequence[str], a: Sequence[int], b: Sequence[int], order: int, seq: int, links: Links
    ) -> None:
        """Append rows without their values."""
        rows = self.rows[kind]
        rows.names += names
        rows.a += a
        rows.b += b
        rows.order += [order] * len(names)
        rows.seq += [seq] * len(names)
        for have, more in zip(rows.links, links, strict=True):
            have.extend(more)

    def _add_values(self, kind: str, count: int, values: tuple[Value, ...]) -> None:
        """Append the values of `count` rows, each one number for all of them, or an array."""
        for column, value in zip(self.rows[kind].columns, values, strict=True):
            if isinstance(value, np.ndarray):
                column += np.broadcast_to(value, (count,)).tolist()
            else:
                column += [float(value)] * count

    def last_values(self, kind: str) -> tuple[Value, ...]:
        """The values of the element that was added last."""
        return tuple(column[-1] for column in self.rows[kind].columns)

    def add_crossbar(self, crossbar: CrossbarCard) -> None:
        k = len(self.crossbars)
        self.crossbars.append(crossbar)
        self.arrays[crossbar.name.lower()] = ArrayRef(CROSSBAR, k, k + 1, crossbar.ranges)

    def tables(self, plain: list[Plain]) -> tuple[dict[str, Table], tuple[CrossbarCard, ...], list[str]]:
        """Tables in deck order, crossbars, and node names numbered by first appearance."""
        self._check_members(self.names.items())
        parts = [self._plain_rows(p, last=p is plain[-1]) for p in plain]
        tables = {kind: self._table(kind, [part[kind] for part in parts if kind in part]) for kind in KINDS}
        by_first = np.argsort(np.array(self.first), kind="stable")
        number = np.empty_like(by_first)
        number[by_first] = np.arange(by_first.size)
        meaning = {"ca": number, "cb": number, "control": self._control_rows(tables["V"].names)}
        for kind, t in tables.items():
            links = {name: meaning[name][link] for name, link in t.links.items()}
            tables[kind] = replace(t, a=number[t.a], b=number[t.b], links=links)
        crossbars = tuple(replace(c, rows=number[c.rows], cols=number[c.cols]) for c in self.crossbars)
        return tables, crossbars, [self.nodes[i] for i in by_first.tolist()]

    def _control_rows(self, sources: list[str]) -> Ints:
        """The row of each of `controls` in the table of voltage sources."""
        rows = {name.lower(): row for row, name in enumerate(sources)} if self.controls else {}
        for name, label, seq in self.controls:
            if name.lower() not in rows:
                hint = similar(name.lower(), rows, "voltage sources") or "; add it: a current is measured by one"
                raise NetlistError(f"{label}: no voltage source '{shown(name)}'{hint}", self.place(seq))
        return np.array([rows[name.lower()] for name, _, _ in self.controls], np.int64)

    def _table(self, kind: str, plain: list[_PlainRows]) -> Table:
        """The rows of the builder and the plain ones, merged in deck order."""
        rows = self.rows[kind]
        order, a, b = (np.array(column, np.int64) for column in (rows.order, rows.a, rows.b))
        names = list(chain(rows.names, *(c.names for c in plain))) if rows.names or len(plain) != 1 else plain[0].names
        order = np.concatenate([order, *[c.seq for c in plain]])
        a, b = np.concatenate([a, *[c.a for c in plain]]), np.concatenate([b, *[c.b for c in plain]])
        seq = np.concatenate([np.array(rows.seq, np.int64), *[c.seq for c in plain]])
        columns = [
            np.concatenate([np.array(c, float), *[p.columns[k] for p in plain]]) for k, c in enumerate(rows.columns)
        ]
        links = [np.array(link, np.int64) for link in rows.links]
        if not (order[1:] >= order[:-1]).all():
            sort = np.argsort(order, kind="stable")
            names = [names[i] for i in sort.tolist()]
            a, b, seq, order = a[sort], b[sort], seq[sort], order[sort]
            columns = [c[sort] for c in columns]  # of a kind with plain cards, which has no links
            self._move_arrays(kind, sort)
        values = dict(zip(COLUMNS[kind], columns, strict=True))
        return Table(kind, names, a, b, seq, order, values, dict(zip(LINKS.get(kind, ()), links, strict=True)))

    def _move_arrays(self, kind: str, sort: Ints) -> None:
        """Array members stay together under the stable sort; note where each array went."""
        place = np.empty_like(sort)
        place[sort] = np.arange(sort.size)
        for key, ref in self.arrays.items():
            if ref.kind == kind:
                start = int(place[ref.start])
                self.arrays[key] = ArrayRef(kind, start, start + ref.stop - ref.start, ref.indices)

    def _plain_rows(self, plain: Plain, last: bool) -> dict[str, _PlainRows]:
        """The plain cards of one file, by kind, after a look at whether their names are free."""
        cards = plain.cards
        names = _cut(plain.data, cards.name_start, cards.name_stop)
        self._check_names(plain, names, last)
        number = self._plain_nodes(plain)
        a, b = number[cards.a], number[cards.b]
        out = {}
        for kind in "RVI":
            chosen = np.flatnonzero(cards.letter == ord(kind.lower()))
            if chosen.size == len(names):
                out[kind] = _PlainRows(names, a, b, plain.seq, _plain_columns(kind, cards.value))
            elif chosen.size:
                mine = [names[i] for i in chosen.tolist()]
                columns = _plain_columns(kind, cards.value[chosen])
                out[kind] = _PlainRows(mine, a[chosen], b[chosen], plain.seq[chosen], columns)
        return out

    def _plain_nodes(self, plain: Plain) -> Ints:
        """The numbers of the nodes of plain cards: `node` for many at once."""
        names, first = plain.cards.nodes, np.full(len(plain.cards.nodes), np.iinfo(np.int64).max)
        np.minimum.at(first, plain.cards.a, 2 * plain.seq)
        np.minimum.at(first, plain.cards.b, 2 * plain.seq + 1)
        known, before = self.node_index, len(self.nodes)
        number = [known.setdefault(key, len(known)) for key in "\n".join(names).lower().split("\n")]
        for name, index, place in zip(names, number, first.tolist(), strict=True):
            if index >= before:
                self.nodes.append(name)
                self.first.append(place)
            elif place < self.first[index]:
                self.nodes[index], self.first[index] = name, place
        return np.array(number, np.int64)

    def _check_names(self, plain: Plain, names: list[str], last: bool) -> None:
        """No plain card has the name of another element."""
        if plain.duplicate is not None:
            i, j = plain.duplicate
            raise _duplicate(names[j], self.place(int(plain.seq[i])), self.place(int(plain.seq[j])))
        if not self.names and last:
            return
        keys = "\n".join(names).lower().split("\n")
        if not self.names.keys().isdisjoint(keys):
            i = next(i for i, key in enumerate(keys) if key in self.names)
            places = sorted([self.names[keys[i]], int(plain.seq[i])])
            raise _duplicate(names[i], *map(self.place, places))
        if self.arrays:
            self._check_members((key, seq) for key, seq in zip(keys, plain.seq.tolist(), strict=True) if "[" in key)
        if not last:
            self.names.update(zip(keys, plain.seq.tolist(), strict=True))

    def _check_members(self, names: Iterable[tuple[str, int]]) -> None:
        """None of these elements (lower-case name, place) has the name of an array's member."""
        if not self.arrays:
            return
        for name, seq in names:
            if name[-1] != "]":
                continue
            base = name
            indices: list[int] = []
            while (match := _INDEX.search(base)) is not None:
                base = base[: match.start()]
                indices.insert(0, int(match.group(1)))
                array = self.arrays.get(base)
                if array is not None and all(i in r for i, r in zip(indices, array.indices, strict=False)):
                    raise _duplicate(name, *map(self.place, sorted([seq, self.names[base]])))


class ManyBuilder(Builder):
    """Takes values for many netlists at once, of each element one for each of them or one for all: `column`."""

    def __init__(self, place: Callable[[int], At], known: dict[str, int] | None, count: int) -> None:
        super().__init__(place, known)
        self.count = count
        self.values: dict[str, list[tuple[int, tuple[Value, ...]]]] = {kind: [] for kind in KINDS}

    def _add_values(self, kind: str, count: int, values: tuple[Value, ...]) -> None:
        self.values[kind].append((count, values))

    def last_values(self, kind: str) -> tuple[Value, ...]:
        return self.values[kind][-1][1]

    def column(self, kind: str, k: int) -> Floats:
        """The k-th of COLUMNS for each netlist, (count, rows of the builder); (1, rows) where all have the same."""
        parts = [(count, values[k]) for count, values in self.values[kind]]
        varied = any(np.ndim(value) and np.shape(value)[-1] > 1 for _, value in parts)
        rows = sum(count for count, _ in parts)
        found, start = np.empty((rows, self.count if varied else 1)), 0
        for count, value in parts:
            found[start : start + count] = value
            start += count
        return np.ascontiguousarray(found.T)


def _plain_columns(kind: str, value: Floats) -> list[Floats]:
    """The columns of plain cards: their value, for resistors in ohm, and its reciprocal."""
    return [value, np.divide(1.0, value)] if kind == "R" else [value]


def _cut(data: bytes, start: Ints, stop: Ints) -> list[str]:
    """The texts data[start:stop], each followed by a blank in the data."""
    width = stop - start + 1
    place = np.cumsum(width) - width
    text: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
    return text[np.arange(width.sum()) + np.repeat(start - place, width)].tobytes().decode("ascii").split()


def _duplicate(name: str, first: At, second: At) -> NetlistError:
    """The error for two elements of one name."""
    return NetlistError(
        f"element {shown(name)}: this name is already taken by the element at {first}; "
        "every element needs a name of its own (case does not matter)",
        second,
    )
