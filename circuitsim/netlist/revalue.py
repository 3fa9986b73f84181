"""A netlist with other values: its cards are evaluated again, without reading text or rebuilding the structure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from circuitsim.errors import NetlistError
from circuitsim.netlist.analyses import read_analysis
from circuitsim.netlist.builder import COLUMNS, Builder, ManyBuilder
from circuitsim.netlist.cards import Memory
from circuitsim.netlist.chance import Chance, NotTogether, Recorder, Together
from circuitsim.netlist.checks import check_values
from circuitsim.netlist.copies import side_by_side
from circuitsim.netlist.deck import Deck
from circuitsim.netlist.expand import Changes, Evaluation
from circuitsim.netlist.model import Analysis, Floats, Ints, ModelCard, Netlist, Options, Table
from circuitsim.netlist.source import Card

_TOGETHER = 256  # variants that are evaluated together
_FEW = 8  # of which one has a fault: the others are not looked for further
_MOST_NUMBERS = 4_000_000  # at once: 32 MB


class Revaluer:
    """Evaluates the cards of a netlist again, for other parameters, temperatures, seeds or element values.

    Plain cards (`R1 a b 1k`) keep their rows, values from files are those that were read; random functions draw in the
    same order as on reading.

    >>> from circuitsim.netlist import parse_netlist
    >>> netlist = parse_netlist("divider\\n.param r=1k\\nV1 in 0 10\\nR1 in out {r}\\nR2 out 0 {3*r}")
    >>> Revaluer(netlist).netlist(Changes(params={"r": 2.0})).tables["R"].values["r"]
    array([2., 6.])
    """

    def __init__(self, netlist: Netlist) -> None:
        self.base = netlist
        self.deck = Deck(netlist.text, netlist.path, Memory(everything=True, files=netlist.text.files))
        self.rows: dict[str, Ints] = {}  # of each table: those that do not come from plain cards
        self.drawn: list[tuple[str, int]] | None = None  # what one evaluation draws (chance.Recorder), once recorded

    def analysis(self, text: str) -> Analysis:
        """A `.dc` card from elsewhere than the netlist: `V1 0 5 0.1`. NetlistError without a place."""
        return read_analysis(Card(-1, f".dc {text}"), self.base, self._evaluation(Changes()).root)

    def netlist(self, changes: Changes) -> Netlist:
        """The netlist with these changes. NetlistError for values that an element may not have."""
        builder = Builder(self.deck.place, self.base.node_index)
        evaluation = self._run(builder, changes)
        tables = {kind: self._table(kind, builder, changes) for kind in self.base.tables}
        check_values(tables, self.deck.place)
        pairs = zip(self.base.crossbars, builder.crossbars, strict=True)
        crossbars = tuple(replace(old, g=new.g) for old, new in pairs)
        models = tuple(evaluation.models.rows)
        return replace(self.base, tables=tables, crossbars=crossbars, models=models, options=evaluation.options)

    def variants(self, changes: Sequence[Changes]) -> Iterator[Variant]:
        """For each of these changes in turn, a Variant with the netlist that `netlist` gives for it.

        The cards are read for many of them at once, which costs as much as for a few. Not so where how much is drawn
        depends on what is drawn, or one number must stand for all, and for crossbars, which are large: one by one.
        """
        size = min(_TOGETHER, _MOST_NUMBERS // (1 + sum(map(len, self.base.tables.values()))))
        together = size > 1 and not self.base.crossbars
        parts = [changes[start : start + max(size, 1)] for start in range(0, len(changes), max(size, 1))][::-1]
        while parts:
            part, many = parts.pop(), None
            if together and len(part) > 1:
                try:
                    many = self._many(part)
                except NotTogether:
                    together = False
                except (NetlistError, ValueError):  # a fault of one of them; the member that has it may not be found
                    if len(part) > _FEW:
                        half = len(part) // 2
                        parts += [part[half:], part[:half]]
                        continue
            yield from (Variant(self, one, many, k) for k, one in enumerate(part))

    def together(self, variants: Sequence[Variant]) -> Netlist | None:
        """The netlists of variants that were read together, side by side (copies.py); None when they were not.

        NetlistError when one of them is at fault. Where open resistors are trained the circuit goes by their names.
        Temperatures are those of the elements; that of the options is the one of reading.
        """
        many, copies = variants[0].many, len(variants)
        if many is None or self.base.trained or any(variant.many is not many for variant in variants):
            return None
        ks, values = [variant.k for variant in variants], {}
        for (kind, name), column in many.columns.items():
            own = np.tile(self.base.tables[kind].values[name], (copies, 1))
            own[:, self.rows[kind]] = column[ks]
            values[kind, name] = own
        if any(model.varied for model in many.models):
            models = tuple(model.of(k) for k in ks for model in many.models)
            for kind in (kind for kind in self.base.tables if "model" in self.base.tables[kind].values):
                known = values.get((kind, "model"), np.tile(self.base.tables[kind].values["model"], (copies, 1)))
                values[kind, "model"] = known + len(many.models) * np.arange(copies)[:, None]
        else:
            models = many.models
        netlist = side_by_side(self.base, copies, values)
        check_values(netlist.tables, self.deck.place)
        return replace(netlist, models=models, options=many.options)

    def _many(self, changes: Sequence[Changes]) -> _Many:
        """The values for these changes."""
        seeds = [self.base.options.seed if one.seed is None else one.seed for one in changes]
        if self.drawn is None:
            recorder, first = Recorder(np.random.default_rng(seeds[0])), Builder(self.deck.place, self.base.node_index)
            self._run(first, changes[0], recorder)
            for kind in self.base.tables:
                self._where(kind, first)
            self.drawn = recorder.drawn
        builder = ManyBuilder(self.deck.place, self.base.node_index, len(seeds))
        together = Together([np.random.default_rng(seed) for seed in seeds], self.drawn)
        evaluation = self._run(builder, _at_once(changes), together)
        columns = {}
        for kind, table in self.base.tables.items():
            for k, name in enumerate(COLUMNS[kind]):
                column = builder.column(kind, k)
                if len(column) > 1 or not np.array_equal(column[0], table.values[name][self.rows[kind]]):
                    columns[kind, name] = np.broadcast_to(column, (len(changes), column.shape[1]))
        return _Many(columns, tuple(evaluation.models.rows), evaluation.options)

    def at_one(self, elements: Iterable[str]) -> Netlist:
        """The netlist with 1 on the cards of these elements: their values are what cards' are multiplied by."""
        return self.netlist(Changes(elements={name.lower(): 1.0 for name in elements}))

    def one(self, many: _Many, k: int, changes: Changes) -> Netlist:
        """The netlist for the k-th of the changes of `many`, which is this one."""
        tables = dict(self.base.tables)
        for (kind, name), column in many.columns.items():
            values = self.base.tables[kind].values[name].copy()
            values[self.rows[kind]] = column[k]
            tables[kind] = replace(tables[kind], values={**tables[kind].values, name: values})
        check_values(tables, self.deck.place)
        models = tuple(model.of(k) for model in many.models)
        return replace(self.base, tables=tables, models=models, options=self._seeded(changes).options(many.options))

    def _evaluation(self, changes: Changes) -> Evaluation:
        return Evaluation(self.deck, Builder(self.deck.place, self.base.node_index), self._seeded(changes))

    def _seeded(self, changes: Changes) -> Changes:
        """With the seed of the reading, which `.options seed=` need not say, where they have none."""
        return changes if changes.seed is not None else replace(changes, seed=self.base.options.seed)

    def _run(self, builder: Builder, changes: Changes, chance: Chance | None = None) -> Evaluation:
        """Evaluate all cards into a builder."""
        with np.errstate(all="ignore"):  # the values are checked at the end
            evaluation = Evaluation(self.deck, builder, self._seeded(changes), chance)
            evaluation.run()
        self.deck.notes.clear()  # they are those of the first reading
        return evaluation

    def _where(self, kind: str, builder: Builder) -> Ints:
        """The rows of a table that do not come from plain cards."""
        if kind not in self.rows:
            self.rows[kind] = np.flatnonzero(
                np.isin(self.base.tables[kind].seq, np.array(builder.rows[kind].seq, np.int64))
            )
        return self.rows[kind]

    def _table(self, kind: str, builder: Builder, changes: Changes) -> Table:
        """A table with new values; rows of the builder come in deck order, as those of the table do."""
        old, new = self.base.tables[kind], builder.rows[kind]
        where = self._where(kind, builder)
        values = {name: column.copy() for name, column in old.values.items()}
        for name, column in zip(COLUMNS[kind], new.columns, strict=True):
            values[name][where] = column
        for element, value in changes.elements.items():
            found = self.base.find(element)
            if found is None:
                raise NetlistError(f"no element '{element}' in {self.base.path}")
            if found[0] == kind and found[1] not in where:  # a plain card
                values[COLUMNS[kind][0]][found[1]] = value
                if kind == "R":
                    values["g"][found[1]] = np.divide(1.0, value)
        return replace(old, values=values)


@dataclass(frozen=True)
class _Many:
    """What depends on the changes, for many of them."""

    columns: dict[tuple[str, str], Floats]  # kind of element and column of its table: (changes, rows of the builder)
    models: tuple[ModelCard, ...]  # with numbers for all changes, or an array with one for each
    options: Options  # of all, but for seed and temperature


@dataclass(frozen=True)
class Variant:
    """The netlist with some changes."""

    revaluer: Revaluer
    changes: Changes
    many: _Many | None  # read together with others, it is number k of these
    k: int

    def netlist(self) -> Netlist:
        """The netlist. NetlistError for values that no element may have."""
        if self.many is None:
            return self.revaluer.netlist(self.changes)
        return self.revaluer.one(self.many, self.k, self.changes)


def _at_once(changes: Sequence[Changes]) -> Changes:
    """Many changes as one: what differs is an array with a number for each (chance.py). Seeds are not looked at.

    Raises NotTogether where elements have other values: those of plain cards are not evaluated.
    """
    first = changes[0]
    if any(one.elements for one in changes):
        raise NotTogether

    def values(of_all: list[Any]) -> Any:
        return of_all[0] if all(value == of_all[0] for value in of_all) else np.array(of_all)

    params = {name: values([one.params[name] for one in changes]) for name in first.params}
    return replace(first, temp=values([one.temp for one in changes]), params=params)
