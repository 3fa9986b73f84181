"""Values for sources from the command line: `Vx=5`, `Vx=@x.npy`, `Vx=@data.npz:key`; many sources: `@loads.csv`."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import Circuit
from circuitsim.errors import NetlistError, SettingsError
from circuitsim.netlist.datafile import read_numbers
from circuitsim.netlist.numbers import parse_number
from circuitsim.netlist.revalue import Revaluer
from circuitsim.netlist.tokens import shown
from circuitsim.new_values import members_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BEGINS_VALUE = frozenset("+-.0123456789{'")
_FILE = re.compile(r"\.np[yz]\b", re.IGNORECASE)


def apply_inputs(circuit: Circuit, assignments: Sequence[str]) -> Circuit:
    """The circuit with sources set from texts NAME=VALUE, in V or A; a value is a SPICE number or a file of numbers.

    A text `@file.csv` sets those of a table: read_table.

    The value replaces that on the source's card, as in a `.dc` sweep: m= multiplies it.

    `@file.npy` and `@file.npz:key` hold (n,) values for an array of n sources, or (batch, n), or (batch,) for a single
    source. A name may have ranges, `Vx[0:9]`. SettingsError names the text, the file and the element.

    >>> from circuitsim.build import parse
    >>> apply_inputs(parse("divider\\nV1 in 0 10\\nR1 in 0 1k"), ["v1=2.5m"]).ties.e
    array([[0.0025]])
    """
    seen: set[str] = set()
    currents: dict[str, Ints] = {}  # rows of the current sources of each name
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        table = not equals and name.startswith("@")
        where = "input" if table else f"input {assignment}"  # messages about a table begin with its name
        if not table and not (equals and name and text):
            raise SettingsError(f"{where}: write NAME=VALUE, NAME=@file.npy or NAME=@file.npz:key, or @file.csv")
        try:
            values = read_table(Path(name[1:]), partial(_is_element, circuit)) if table else {name: _value(text)}
            for name in values:
                if name.lower() in seen:
                    raise SettingsError(f"{name} is given twice")
                seen.add(name.lower())
                kind, rows, _ = members_of(circuit, name)
                if kind not in ("V", "I"):
                    raise SettingsError(f"{name} is not a voltage or current source; give other values in the netlist")
                if kind == "I":
                    currents[name] = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
            circuit = circuit.with_values(values)
        except (SettingsError, ValueError) as error:
            raise SettingsError(f"{where}: {error}") from None
    return _times_m(circuit, currents) if currents else circuit


def read_table(path: Path, is_element: Callable[[str], bool]) -> dict[str, Floats]:
    """Values of sources in a CSV file, a line for each: `NAME,VALUE`, or `NAME,VALUE,VALUE,...` for a batch.

    Values are SPICE numbers. A first line without a name, or with none of an element and no value, is a header.
    SettingsError names file and line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(k, line) for k, line in enumerate(csv.reader(file, skipinitialspace=True), 1) if line]
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path} is not a CSV file: {error}") from None
    found: dict[str, Floats] = {}
    seen: dict[str, int] = {}
    for k, (name, *words) in lines:
        named, numbers = name.strip(), any(word.strip()[:1] in _BEGINS_VALUE for word in words)
        if k == 1 and words and (not named or not (numbers or is_element(named))):
            continue
        if not all(word.strip() for word in words):
            raise SettingsError(f"{path}:{k}: {shown(name)}: a value is missing, or there is a comma too many")
        try:
            values = np.array([read_value(word.strip()) for word in words])
        except SettingsError as error:
            raise SettingsError(f"{path}:{k}: {name}: {error}") from None
        if (name := name.strip()).lower() in seen:
            raise SettingsError(f"{path}:{k}: {name} is given in line {seen[name.lower()]} already")
        if not name or not values.size or values.size != next(iter(found.values()), values).size:
            raise SettingsError(
                f"{path}:{k}: write NAME,VALUE, or NAME,VALUE,VALUE,... with as many values in each line, found "
                f"'{shown(','.join([name, *words]))}'"
            )
        seen[name.lower()] = k
        found[name] = values if values.size > 1 else values[0]
    if not found:
        raise SettingsError(f"{path} has no line NAME,VALUE")
    return found


def _is_element(circuit: Circuit, name: str) -> bool:
    """Whether there is an element of this name, or elements that its ranges name."""
    try:
        members_of(circuit, name)
    except SettingsError:
        return False
    return True


def _value(text: str) -> Floats:
    """The numbers of a file, or a SPICE number."""
    return read_array(text[1:]) if text.startswith("@") else np.array(_number(text))


def _number(text: str) -> float:
    """A SPICE number, or the error that says how a file is written."""
    try:
        return read_value(text)
    except SettingsError as error:
        hint = f"; to read a file write @{text}" if _FILE.search(text) else ""
        raise SettingsError(f"{error}{hint}") from None


def _times_m(circuit: Circuit, given: Mapping[str, Ints]) -> Circuit:
    """The circuit with the values of these current sources times m=, that on their cards and those of subcircuits.

    given: names of elements and arrays, or with ranges, and their rows in the netlist's table.
    """
    netlist, sources = circuit.netlist, circuit.current_sources
    names = [[name] if netlist.find(name) else [netlist.tables["I"].names[k] for k in given[name]] for name in given]
    m = Revaluer(netlist).at_one(chain.from_iterable(names)).tables["I"].values["i"]
    own = sources.of("I")
    where = own[np.isin(sources.row[own], np.concatenate([*given.values()]))]
    if (m[sources.row[where]] == 1.0).all():
        return circuit
    i = sources.i.copy()
    i[:, where] *= m[sources.row[where]]
    return replace(circuit, current_sources=replace(sources, i=i))


def read_value(text: str) -> float:
    """A SPICE number where no expression is taken. SettingsError, with the remedy, for anything else."""
    if text[:1] in "{'":
        raise SettingsError(f"an expression is not allowed here: write its value instead of {text}")
    try:
        return parse_number(text)
    except ValueError as error:
        raise SettingsError(str(error).replace(", or an {expression}", "")) from None  # of netlists


def input_files(assignments: Sequence[str]) -> list[Path]:
    """The files that `apply_inputs` reads."""
    tables = [Path(text.strip()[1:]) for text in assignments if text.strip().startswith("@") and "=" not in text]
    references = (reference for _, at, reference in (text.partition("=@") for text in assignments) if at)
    return tables + [Path(_parted(reference)[0]) for reference in references]


def _parted(reference: str) -> tuple[str, str, str]:
    """Path, colon and key of `file.npz:key`; a file whose own name has a colon is still a file."""
    return reference.rpartition(":") if ":" in reference and not Path(reference).exists() else (reference, "", "")


def read_array(reference: str) -> Floats:
    """The numbers in `file.npy` or `file.npz:key`; never unpickles. SettingsError says what is wrong with the file."""
    path, _, key = _parted(reference)
    try:
        return read_numbers(Path(path), path, key)
    except NetlistError as error:
        raise SettingsError(error.message) from None
