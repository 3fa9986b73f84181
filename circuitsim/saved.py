"""The values that `.save`, `.print` and `--save` request: currents, powers and voltages, in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import take_rows
from circuitsim.circuit import Circuit
from circuitsim.currents import ambiguous_elements, table_currents
from circuitsim.errors import NetlistError, SettingsError
from circuitsim.law_kernels import RS, Law
from circuitsim.netlist.model import CROSSBAR
from circuitsim.netlist.saves import (
    MOST_SAVED,
    NODES,
    Save,
    find_save,
    labels_of,
    quantities_of,
    split_saves,
    unique_saves,
)

if TYPE_CHECKING:
    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

UNITS = {"v": "V", "vd": "V", "e": "V", "i": "A", "p": "W", "r": "ohm"}


def wanted_saves(circuit: Circuit, texts: Sequence[str], source: str = "--save") -> list[Save]:
    """What the netlist's .save and .print cards, and texts, request. SettingsError names a wrong text and `source`,
    where the texts come from."""
    netlist = circuit.netlist
    saves = [save for word in netlist.saves for save in find_save(netlist, word)]
    for text in texts:
        words = split_saves(text)
        if not words:
            raise SettingsError(f"{source} '{text}' names nothing; write v(a), i(r1), @r1[p] or all")
        for word in words:
            try:
                saves += find_save(netlist, word)
            except NetlistError as error:
                raise SettingsError(f"{source} {word}: {error.message}") from None
    if sum(map(len, saves)) > MOST_SAVED:
        raise SettingsError(f"more than {MOST_SAVED:,} voltages, currents and powers to save; name fewer elements")
    return unique_saves(saves)


def as_saves(circuit: Circuit, wanted: Iterable[Save | str] | None) -> tuple[Save, ...]:
    """What texts such as `i(R1)` request, and then also the netlist's own cards; None: these alone.

    Save objects are taken as they are. Raises SettingsError, as wanted_saves does.
    """
    if wanted is None:
        return tuple(wanted_saves(circuit, ()))
    listed = list(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [None]
    if not all(isinstance(save, str | Save) for save in listed):
        raise SettingsError(f"saves takes a list of texts, such as ['i(R1)'], found {wanted!r}")
    saves = [save for save in listed if isinstance(save, Save)]
    texts = [text for text in listed if isinstance(text, str)]
    return tuple(unique_saves([*wanted_saves(circuit, texts, "saves"), *saves]) if texts else saves)


class Saved:
    """Columns of values; those of one quantity of one kind of element are computed together."""

    def __init__(self, solution: Solution, saves: Sequence[Save]) -> None:
        self.solution = solution
        self.saves = list(saves)

    @cached_property
    def labels(self) -> list[str]:
        """A name for each column: `i(R1)`, `@R1[p]`, `v(a,b)`."""
        return labels_of(self.saves)

    @cached_property
    def quantities(self) -> list[str]:
        """What each column is, a key of UNITS."""
        return quantities_of(self.saves)

    @property
    def units(self) -> list[str]:
        """The unit of each column."""
        return [UNITS[quantity] for quantity in self.quantities]

    @property
    def count(self) -> int:
        """Number of columns."""
        return sum(map(len, self.saves))

    def values(self, rows: slice | None = None) -> Floats:
        """Values of all columns for some rows of the batch, (rows, columns); NaN for what is left out."""
        rows = rows or slice(0, self.solution.batch)
        out = np.full((rows.stop - rows.start, self.count), np.nan)
        if np.isfinite(self.solution.x).all():
            for save, columns in self._groups():
                out[:, columns] = _values(self.solution, save, rows)
        out[:, self.left_out] = np.nan
        return out

    @cached_property
    def ambiguous(self) -> Bools:
        """For each column: whether it has a value that is not unique."""
        out = np.zeros(self.count, bool)
        if np.isfinite(self.solution.x).all():
            for save, columns in self._groups():
                out[columns] = _ambiguous(self.solution, save)
        return out & ~self.left_out

    @cached_property
    def left_out(self) -> Bools:
        """For each column: whether it is about a node that is left out, or an element at one."""
        c = self.solution.circuit
        out = np.zeros(self.count, bool)
        if c.dropped.size:
            for save, columns in self._groups():
                a, b = _ends(c, save)
                out[columns] = c.left_out[a] | c.left_out[b]
        return out

    def _groups(self) -> Iterator[tuple[Save, Ints]]:
        """Saves of one quantity and kind joined, with the columns that they fill."""
        starts = np.cumsum([0, *map(len, self.saves)])
        numbered = sorted(enumerate(self.saves), key=lambda pair: _group(pair[1]))
        for (quantity, kind, crossbar, _), pairs in groupby(numbered, key=lambda pair: _group(pair[1])):
            members = list(pairs)
            columns = np.concatenate([np.arange(starts[k], starts[k + 1]) for k, _ in members])
            rows = np.concatenate([save.rows for _, save in members])
            minus = [save.minus for _, save in members if save.minus is not None]
            yield Save([], quantity, kind, rows, np.concatenate(minus) if minus else None, crossbar), columns


def _group(save: Save) -> tuple[str, str, int, bool]:
    return save.quantity, save.kind, save.crossbar, save.minus is not None


def _ends(circuit: Circuit, save: Save) -> tuple[Ints, Ints]:
    """The nodes between which each voltage is taken."""
    if save.kind == NODES:
        return save.rows, np.zeros_like(save.rows) if save.minus is None else save.minus
    if save.kind == CROSSBAR:
        x = circuit.crossbars[save.crossbar]
        i, j = np.divmod(save.rows, x.cols.size)
        return x.rows[i], x.cols[j]
    table = circuit.netlist.tables[save.kind]
    return table.a[save.rows], table.b[save.rows]


def _values(solution: Solution, save: Save, rows: slice) -> Floats:
    circuit = solution.circuit
    if save.kind == NODES and save.minus is None:
        return solution.voltages(save.rows, rows)
    if save.quantity == "r":
        with np.errstate(divide="ignore", over="ignore"):
            return _ohms(circuit, save)[None, :]
    if save.quantity == "e":
        ties = circuit.ties
        e = np.full((ties.e.shape[0], len(circuit.netlist.tables["V"])), np.nan)  # NaN: left out
        own = ties.of("V")
        e[:, ties.row[own]] = ties.e[:, own]
        return take_rows(e, rows)[:, save.rows]
    v = solution.drops(*_ends(circuit, save), rows)
    if save.quantity == "v":
        return v
    if save.quantity == "vd":
        return v - _series_drops(solution, save.rows, rows)
    if save.kind == CROSSBAR:
        current = circuit.crossbars[save.crossbar].g.ravel()[save.rows] * v
    else:
        current = table_currents(solution, save.kind, save.rows, rows)
    with np.errstate(over="ignore"):  # inf, as it is
        return current * v if save.quantity == "p" else current


def _ohms(circuit: Circuit, save: Save) -> Floats:
    """Resistances as the circuit has them now."""
    if save.kind == CROSSBAR:
        return 1.0 / circuit.crossbars[save.crossbar].g.ravel()[save.rows]
    return circuit.resistor_ohms[save.rows]


def _series_drops(solution: Solution, rows: Ints, batch: slice) -> Floats:
    """The part of diodes' voltages that falls across their series resistance RS."""
    j = solution.circuit.junctions
    rs = np.zeros(len(solution.circuit.netlist.tables["D"]))
    shockley = j.law == Law.SHOCKLEY
    rs[j.row[shockley]] = j.params[shockley, RS]
    return rs[rows] * table_currents(solution, "D", rows, batch)


def _ambiguous(solution: Solution, save: Save) -> Bools:
    """A voltage: between nodes that can shift against each other. A current: of what it is a function, or in a loop."""
    if save.quantity in ("r", "e"):
        return np.zeros(save.rows.size, bool)
    part, sure = solution.problem.topology.islands.part, solution.determined
    a, b = _ends(solution.circuit, save)
    left_open = solution.open_between(a, b)
    loose = left_open | (part[a] != part[b]) & ~(sure[a] & sure[b])
    if save.quantity in ("v", "vd"):
        return loose
    power = save.quantity == "p"
    shared = left_open & (save.kind in (CROSSBAR, *"RDN"))  # voltage and current are open, and with them the power
    if save.kind == CROSSBAR:  # no conductance between two islands carries anything
        return shared
    shared = shared | ambiguous_elements(solution, save.kind, power)[save.rows]
    if power:
        shared = shared | loose & (table_currents(solution, save.kind, save.rows) != 0).any(axis=0)
    return shared
