"""New element values for Circuit.with_values: read, checked and put into the circuit's columns, each copied once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

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


class _New(NamedTuple):
    """New values of an element, of an array, or of elements that ranges name."""

    name: str
    rows: slice | Ints  # of the netlist table of its kind, (n,)
    numbers: Floats  # (n,), or () for all alike; of V and I (batch or 1, n)


class _NewValues:
    """The values that are given, name after name, and then the circuit that has them."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.batch, self.given = circuit.batch, set[str]()
        self.crossbars = {x.name.lower(): x for x in circuit.crossbars}
        self.new: dict[str, list[_New]] = {}  # by kind

    def put(self, name: str, value: ArrayLike) -> None:
        """One element's, or one array's. Raises SettingsError naming it."""
        if not isinstance(name, str):
            raise SettingsError(f"new values are keyed by element name, found {name!r}")
        key = name.lower()
        if key in self.given:
            raise SettingsError(f"{name}: two new values, under names that differ only in case; give one")
        self.given.add(key)
        numbers = _numbers(name, value)
        if (crossbar := self.crossbars.get(key)) is not None:
            _check_finite(name, numbers)
            g = _fit(name, numbers, crossbar.g.shape)
            _check_signs(name, g)
            self.crossbars[key] = replace(crossbar, g=g)
            return
        if (crossbar := self.crossbars.get(key.partition("[")[0])) is not None:
            raise SettingsError(f"{name}: a crossbar takes all its values at once, {crossbar.g.shape}")
        kind, rows, shape = members_of(self.circuit, name)
        if kind not in VALUE_OF:
            raise SettingsError(f"{name}: only resistors, crossbars and sources can take new values")
        count = prod(shape)
        numbers = _in_a_row(name, kind, numbers, shape)
        if VALUE_OF[kind][1] not in BATCHED:
            if kind == "R" and numbers.ndim > 1:
                raise SettingsError(
                    f"{name}: new values have shape {numbers.shape}, needs ({count},); resistances have no batch: "
                    "solve one set of values after another"
                )
            _check_shape(name, numbers, (count,))
        else:
            numbers = _rows(name, numbers, count)
            if 1 not in (self.batch, len(numbers)) and self.batch != len(numbers):
                raise SettingsError(
                    f"{name}: batch of {len(numbers)} does not fit the batch of {self.batch} set before"
                )
            self.batch = max(self.batch, len(numbers))
        self.new.setdefault(kind, []).append(_New(name, rows, numbers))

    def applied(self) -> Circuit:
        """The circuit with all of them. Raises SettingsError naming an element that cannot have its own."""
        if not self.given:
            return self.circuit
        changed: dict[str, Branches] = {}
        for kind, new in self.new.items():
            group, column, _ = VALUE_OF[kind]
            branches = changed.get(group, getattr(self.circuit, group))
            values: dict[str, Any] = {column: _column(branches, kind, new)}
            changed[group] = replace(branches, **values)
        replaced: dict[str, Any] = {"crossbars": tuple(self.crossbars.values()), **changed}
        return replace(self.circuit, **replaced)


def members_of(circuit: Circuit, name: str) -> tuple[str, slice | Ints, tuple[int, ...]]:
    """Kind, rows of its netlist table, and shape of an element, an array, or elements that ranges name.

    SettingsError where there is none, or they are of several kinds.
    """
    netlist = circuit.netlist
    found = netlist.find(name)
    if found is None and (spans := SPAN.findall(name)):
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
    kind, start, stop = found or circuit.rows_of(name)
    return kind, slice(start, stop), netlist.shape_of(name, stop - start)


def _column(branches: Branches, kind: str, new: list[_New]) -> Floats:
    """The values of a group of branches, with new ones of this kind; they are all checked at once."""
    column = VALUE_OF[kind][1]
    old: Floats = getattr(branches, column)
    shape = old.shape
    if column in BATCHED:
        shape = max(len(old), *(len(x.numbers) for x in new)), shape[1]
    places, last = _places(branches, kind, new), new[-1].numbers
    if isinstance(places[-1], slice) and last.shape == shape:  # of all branches
        values = last
    else:
        values = np.array(np.broadcast_to(old, shape), order="C")
        for where, x in zip(places, new, strict=True):
            values[..., where] = x.numbers
    if not np.isfinite(values).all():
        for x in new:
            _check_finite(x.name, x.numbers)
    if kind == "R" and (values < 0).any():
        for x in new:
            _check_signs(x.name, x.numbers)
    return values


def _places(branches: Branches, kind: str, new: list[_New]) -> list[slice | Ints]:
    """The branches of each of these; both they and the rows of the netlist's table are in deck order."""
    own = branches.of(kind)
    rows, found = branches.row[own], list[slice | Ints]()
    spans = [(x.rows.start, x.rows.stop) for x in new if isinstance(x.rows, slice)]
    ends = iter(np.searchsorted(rows, np.array(spans, np.int64).reshape(-1, 2)).tolist())
    for name, wanted, _ in new:
        if isinstance(wanted, slice):
            low, high = next(ends)
            known, first = high - low == wanted.stop - wanted.start, int(own[low]) if low < own.size else 0
            found.append(slice(first, first + high - low))
        else:
            at = np.searchsorted(rows, wanted)
            known = rows.size > 0 and bool((rows.take(at, mode="clip") == wanted).all())
            found.append(own.take(at, mode="clip") if known else at)
        if not known:
            raise SettingsError(f"{name}: {_NO_CONDUCTANCE if kind == 'R' else _LEFT_OUT}")
    return found


def _numbers(name: str, value: ArrayLike) -> Floats:
    """An array of its own of real numbers."""
    if np.ma.is_masked(value):
        raise SettingsError(f"{name}: some of the new values are masked; fill them")
    try:
        array = np.asarray(value)
        none = array.dtype.kind == "O" and any(x is None for x in array.flat)  # which numpy reads as NaN
        if array.dtype.kind in "fiubO" and not none:  # O: fractions, say
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
    if rows.ndim != 2 or rows.shape[1] != count:
        raise SettingsError(f"{name}: new values have shape {value.shape}; needs ({count},) or (batch, {count})")
    if not len(rows):
        raise SettingsError(f"{name}: new values have shape {value.shape}: a batch of no rows; give one at least")
    return rows


def _fit(name: str, value: Floats, shape: tuple[int, ...]) -> Floats:
    """The values, or one for all; an array that is contiguous and may be written to, for one type in compiled code."""
    _check_shape(name, value, shape)
    return value if value.shape == shape else np.full(shape, value)


def _check_shape(name: str, value: Floats, shape: tuple[int, ...]) -> None:
    if value.shape not in (shape, ()):
        raise SettingsError(f"{name}: new values have shape {value.shape}, needs {shape}")


def _check_finite(name: str, value: Floats) -> None:
    if not (finite := np.isfinite(value)).all():
        raise SettingsError(f"{name}: new values must be finite numbers, found {value[~finite][0]}")


def _check_signs(name: str, g: Floats) -> None:
    if (g < 0).any():
        raise SettingsError(f"{name}: negative conductance {g.min():g} S is not monotone")


def with_values(circuit: Circuit, values: Mapping[str, ArrayLike]) -> Circuit:
    """The circuit with new values (see Circuit.with_values)."""
    if not isinstance(values, Mapping):
        raise SettingsError(f"new values are a mapping of names to numbers, such as {{'V1': 2.0}}, found {values!r}")
    new = _NewValues(circuit)
    with np.errstate(over="ignore"):  # of long doubles, which become infinite: an error
        for name, value in values.items():
            new.put(name, value)
    return new.applied()
