"""A netlist with other values: its cards are evaluated again, no text is read and no structure is built again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circuitsim.errors import NetlistError
from circuitsim.netlist.analyses import read_analysis
from circuitsim.netlist.builder import COLUMNS, Builder
from circuitsim.netlist.cards import Memory
from circuitsim.netlist.checks import check_values
from circuitsim.netlist.expand import Changes, Deck, Evaluation
from circuitsim.netlist.model import Analysis, Ints, Netlist, Table
from circuitsim.netlist.source import Card


class Revaluer:
    """Evaluates the cards of a netlist again, for other parameters, temperatures, seeds or element values.

    Plain cards (`R1 a b 1k`) keep their rows; random functions draw in the same order as on reading.

    >>> from circuitsim.netlist import parse_netlist
    >>> netlist = parse_netlist("divider\\n.param r=1k\\nV1 in 0 10\\nR1 in out {r}\\nR2 out 0 {3*r}")
    >>> Revaluer(netlist).netlist(Changes(params={"r": 2.0})).tables["R"].values["r"]
    array([2., 6.])
    """

    def __init__(self, netlist: Netlist) -> None:
        self.base = netlist
        self.deck = Deck(netlist.text, netlist.path, Memory(everything=True))
        self.rows: dict[str, Ints] = {}  # of each table: those that do not come from plain cards

    def analysis(self, text: str) -> Analysis:
        """A `.dc` card from elsewhere than the netlist: `V1 0 5 0.1`. NetlistError without a place."""
        return read_analysis(Card(-1, f".dc {text}"), self.base, self._evaluation(Changes()).root)

    def netlist(self, changes: Changes) -> Netlist:
        """The netlist with these changes. NetlistError for values that no element may have."""
        with np.errstate(all="ignore"):  # the values are checked at the end
            evaluation = self._evaluation(changes)
            evaluation.run()
        self.deck.notes.clear()  # they are those of the first reading
        builder = evaluation.builder
        tables = {kind: self._table(kind, builder, changes) for kind in self.base.tables}
        check_values(tables, self.deck.place)
        pairs = zip(self.base.crossbars, builder.crossbars, strict=True)
        crossbars = tuple(replace(old, g=new.g) for old, new in pairs)
        models = tuple(evaluation.models.rows)
        return replace(self.base, tables=tables, crossbars=crossbars, models=models, options=evaluation.options)

    def _evaluation(self, changes: Changes) -> Evaluation:
        if changes.seed is None:  # that of the reading, which `.options seed=` need not say
            changes = replace(changes, seed=self.base.options.seed)
        return Evaluation(self.deck, Builder(self.deck.place, self.base.node_index), changes)

    def _table(self, kind: str, builder: Builder, changes: Changes) -> Table:
        """A table with new values; rows of the builder come in deck order, as those of the table do."""
        old, new = self.base.tables[kind], builder.rows[kind]
        if kind not in self.rows:
            self.rows[kind] = np.flatnonzero(np.isin(old.seq, np.array(new.seq, np.int64)))
        where = self.rows[kind]
        values = {name: column.copy() for name, column in old.values.items()}
        for name, column in zip(COLUMNS[kind], new.columns, strict=True):
            if name in values:  # the others are nodes and elements
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
