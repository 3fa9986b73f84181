"""New element values for Circuit.with_values: read, checked and put into the circuit's columns, each copied once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.branches import BATCHED, VALUE_OF, Branches
from circuitsim.errors import NetlistError, SettingsError
from circuitsim.netlist.arrays import SPAN, between
from circuitsim.netlist.model import CROSSBAR
from circuitsim.netlist.saves import find_save
from circuitsim.netlist.tokens import shown

if TYPE_CHECKING:
    from circuitsim.circuit import Circuit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_NO_CONDUCTANCE = "a short cannot take a new conductance, nor can an open resistor that .train does not name"
_LEFT_OUT = "it, or one of its members, is left out and cannot take a value"


class _NewValues:
    """The values that are given, name after name, and then the circuit that has them."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.batch, self.given = circuit.batch, set[str]()
        self.crossbars = {x.name.lower(): x for x in circuit.crossbars}
        self.columns = {group: _Column(getattr(circuit, group), name) for group, name, _ in set(VALUE_OF.values())}

    def put(self, name: str, value: ArrayLike) -> None:
        """One element's, or one array's. Raises SettingsError naming it."""
        if not isinstance(name, str):
            raise SettingsError(f"new values are keyed by element name, found {name!r}")
        key = name.lower()
        if key in self.given:
            raise SettingsError(f"{name}: two new values, under names that differ only in case; give one")
        self.given.add(key)
        numbers = _numbers(name, value)
        if not (finite := np.isfinite(numbers)).all():
            raise SettingsError(f"{name}: new values must be finite numbers, found {numbers[~finite][0]}")
        if (crossbar := self.crossbars.get(key)) is not None:
            g = _fit(name, numbers, crossbar.g.shape)
            _check_signs(name, g)
            self.crossbars[key] = replace(crossbar, g=g)
            return
        if (crossbar := self.crossbars.get(key.partition("[")[0])) is not None:
            raise SettingsError(f"{name}: a crossbar takes all its values at once, {crossbar.g.shape}")
        kind, rows, shape = self._members(name)
        if kind not in VALUE_OF:
            raise SettingsError(f"{name}: only resistors, crossbars and sources can take new values")
        column, count = self.columns[VALUE_OF[kind][0]], prod(shape)
        numbers, where = _in_a_row(name, kind, numbers, shape), column.where(kind, rows)
        if where is None:
            raise SettingsError(f"{name}: {_NO_CONDUCTANCE if kind == 'R' else _LEFT_OUT}")
        if kind == "R":
            _check_conductances(name, numbers, count)
        if not column.batched:
            numbers = _fit(name, numbers, (count,))
        else:
            numbers = _rows(name, numbers, count)
            if 1 not in (self.batch, len(numbers)) and self.batch != len(numbers):
                raise SettingsError(
                    f"{name}: batch of {len(numbers)} does not fit the batch of {self.batch} set before"
                )
            self.batch = max(self.batch, len(numbers))
        column.new.append((where, numbers))

    def _members(self, name: str) -> tuple[str, slice | Ints, tuple[int, ...]]:
        """Kind, rows of its netlist table, and shape of an element, an array, or elements that ranges name."""
        netlist = self.circuit.netlist
        if netlist.find(name) is None and (spans := SPAN.findall(name)):
            try:
                saves = find_save(netlist, f"@{name}[i]")
            except NetlistError as error:
                message = error.message.replace(f"@{name}[i]", name)
                raise SettingsError(message if name in message else f"{name}: {message}") from None
            if len(saves) > 1 or saves[0].kind == CROSSBAR:
                raise SettingsError(f"{name}: elements of several kinds, or crossbars; give them one by one")
            rows = saves[0].rows
            shape = tuple(len(between(int(a), int(b))) for a, b in spans)
            each = rows.size // prod(shape)  # members of an array in each instance
            return saves[0].kind, rows, shape if each == 1 else (*shape, each)
        kind, start, stop = self.circuit.rows_of(name)
        ref = netlist.arrays.get(name.lower())
        return kind, slice(start, stop), (stop - start,) if ref is None else tuple(map(len, ref.indices))

    def applied(self) -> Circuit:
        """The circuit with all of them."""
        if not self.given:
            return self.circuit
        changed: dict[str, Any] = {
            group: column.branches_with() for group, column in self.columns.items() if column.new
        }
        return replace(self.circuit, crossbars=tuple(self.crossbars.values()), **changed)


class _Column:
    """The values of a group of branches, and new ones for some of them."""

    def __init__(self, branches: Branches, name: str) -> None:
        self.branches, self.name = branches, name
        self.batched = name in BATCHED
        self.new = list[tuple[slice | Ints, Floats]]()

    @cached_property
    def _of_kind(self) -> dict[str, tuple[Ints, Ints]]:
        """For each kind its branches, and their rows of its netlist table."""
        found = {kind: self.branches.of(kind) for kind in VALUE_OF}
        return {kind: (of_kind, self.branches.row[of_kind]) for kind, of_kind in found.items()}

    def where(self, kind: str, wanted: slice | Ints) -> slice | Ints | None:
        """The branches of these rows of a netlist table (both in deck order), None when some are missing."""
        of_kind, rows = self._of_kind[kind]
        if not isinstance(wanted, slice):
            at = np.searchsorted(rows, wanted)
            known = rows.size and (rows.take(at, mode="clip") == wanted).all()
            return of_kind[at] if known else None
        count = wanted.stop - wanted.start
        low, high = np.searchsorted(rows, [wanted.start, wanted.stop])
        if high - low != count:
            return None
        return slice(int(of_kind[low]), int(of_kind[low]) + count)

    def branches_with(self) -> Branches:
        """The branches with their new values."""
        changed: dict[str, Any] = {self.name: self._values()}
        return replace(self.branches, **changed)

    def _values(self) -> Floats:
        old: Floats = getattr(self.branches, self.name)
        shape = old.shape
        if self.batched:
            shape = max(len(old), *(len(values) for _, values in self.new)), shape[1]
        where, values = self.new[-1]
        if isinstance(where, slice) and values.shape == shape:  # of all branches
            return values
        column = np.array(np.broadcast_to(old, shape), order="C")
        for where, values in self.new:
            column[..., where] = values
        return column


def _numbers(name: str, value: ArrayLike) -> Floats:
    """An array of its own of real numbers."""
    if np.ma.is_masked(value):
        raise SettingsError(f"{name}: some of the new values are masked; fill them")
    try:
        array = np.asarray(value)
        if array.dtype.kind in "fiubO":  # O: fractions, say
            with np.errstate(over="ignore"):
                return np.array(array, np.float64, order="C")
    except (TypeError, ValueError, OverflowError):
        pass
    raise SettingsError(f"{name}: new values must be numbers, found {shown(repr(value))}")


def _in_a_row(name: str, kind: str, value: Floats, shape: tuple[int, ...]) -> Floats:
    """Values of so many members, their shape behind a batch axis if there is one, member by member."""
    if len(shape) < 2 or value.ndim < 2:
        return value
    if value.shape[-len(shape) :] == shape and value.ndim <= len(shape) + 1:
        return value.reshape(*value.shape[: -len(shape)], -1)
    if kind == "R":  # which have no batch
        raise SettingsError(f"{name}: new values have shape {value.shape}, needs {shape}")
    return value


def _rows(name: str, value: Floats, count: int) -> Floats:
    """Values of so many sources, of shape (), (count,), (batch,) for one source, or (batch, count): as the last."""
    if value.ndim == 1 and count == 1:
        value = value[:, None]
    rows = np.atleast_2d(_fit(name, value, (count,)) if value.ndim < 2 else value)
    if rows.ndim != 2 or rows.shape[1] != count or rows.shape[0] == 0:
        raise SettingsError(f"{name}: new values have shape {value.shape}; needs ({count},) or (batch, {count})")
    return rows


def _fit(name: str, value: Floats, shape: tuple[int, ...]) -> Floats:
    """The values, or one for all; an array that is contiguous and may be written to, for one type in compiled code."""
    if value.shape not in (shape, ()):
        raise SettingsError(f"{name}: new values have shape {value.shape}, needs {shape}")
    return value if value.shape == shape else np.full(shape, value)


def _check_conductances(name: str, value: Floats, count: int) -> None:
    _check_signs(name, value)
    if value.ndim > 1:
        raise SettingsError(
            f"{name}: new values have shape {value.shape}, needs ({count},); resistances have no batch: "
            "solve one set of values after another"
        )


def _check_signs(name: str, g: Floats) -> None:
    if (g < 0).any():
        raise SettingsError(f"{name}: negative conductance {g.min():g} S is not monotone")


def with_values(circuit: Circuit, values: Mapping[str, ArrayLike]) -> Circuit:
    """The circuit with new values (see Circuit.with_values)."""
    if not isinstance(values, Mapping):
        raise SettingsError(f"new values are a mapping of names to numbers, such as {{'V1': 2.0}}, found {values!r}")
    new = _NewValues(circuit)
    for name, value in values.items():
        new.put(name, value)
    return new.applied()
