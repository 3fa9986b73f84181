"""What no element of a netlist may have, however it was written: looked for in the finished tables, all at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import NetlistError
from circuitsim.netlist.cards import NOUNS
from circuitsim.netlist.model import ABSOLUTE_ZERO, CrossbarCard, Table
from circuitsim.netlist.scopes import Place
from circuitsim.netlist.tokens import shown

_LEAST = 1.0 / np.finfo(np.float64).max  # ohm: below, the conductance overflows
_MONOTONE = "make it 0 or positive, or the equilibrium may not exist or not be unique"
_NOT_GROUND = ("00", "000", "gnd!", "ground")


def check_values(tables: Mapping[str, Table], place: Place) -> None:
    """Raise NetlistError for the first value, kind by kind, that makes no sense."""
    r = tables["R"].values["r"]
    _refuse(tables["R"], place, r < 0, "r", f"negative resistance {{:g}} ohm; {_MONOTONE}")
    _refuse(tables["R"], place, np.isnan(r), "r", "its resistance is not a number; check its factors")
    _refuse(tables["R"], place, (r > 0) & (r < _LEAST), "r", "resistance {:g} ohm has no finite conductance; write 0")
    for kind, column, unit in (("V", "v", "V"), ("I", "i", "A")):
        value = tables[kind].values[column]
        _refuse(tables[kind], place, ~np.isfinite(value), column, "{:g} " + unit + "; its value must be finite")
    d = tables["D"]
    temp = d.values["temp"]
    for column in ("area", "m"):
        factor = d.values[column]
        _refuse(d, place, ~((factor > 0) & (factor < np.inf)), column, column + " {:g} must be positive and finite")
    _refuse(d, place, ~((temp > ABSOLUTE_ZERO) & (temp < np.inf)), "temp",
            f"temperature {{:g}} C must be above absolute zero, {ABSOLUTE_ZERO} C, and finite")  # fmt: skip


def _refuse(table: Table, place: Place, bad: NDArray[np.bool_], column: str, message: str) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        found = message.format(table.values[column][i])
        raise NetlistError(f"{NOUNS[table.kind]} {shown(table.names[i])}: {found}", place(int(table.seq[i])))


def node_remarks(
    tables: Mapping[str, Table], crossbars: tuple[CrossbarCard, ...], nodes: list[str]
) -> list[tuple[int, str]]:
    """Remarks (place, text) about nodes that may be mistaken for ground, and about a netlist without ground."""
    ends = [(t.a, t.seq) for t in tables.values()] + [(t.b, t.seq) for t in tables.values()]
    ends += [(side, np.full(side.size, c.seq)) for c in crossbars for side in (c.rows, c.cols)]

    def first_place(node: int) -> int | None:
        places = [int(seq[at].min()) for nodes_of, seq in ends if (at := nodes_of == node).any()]
        return min(places, default=None)

    remarks = []
    if first_place(0) is None:
        remarks.append((0, "no node is ground (0): its voltages are relative to the first node of each part"))
    known = set(_NOT_GROUND).intersection(nodes)
    for name in sorted(known):
        place = first_place(nodes.index(name))
        if place is not None:
            remarks.append((place, f"node '{name}' is an ordinary node; ground is 0 or gnd"))
    return remarks
