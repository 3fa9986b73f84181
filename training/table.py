"""Data sets as tables: a CSV file with a header line; columns whose names begin with `target` hold the targets.

Instead of these there may be one column `label`, the class of each sample.
"""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitsim import Circuit
from circuitsim.errors import SettingsError
from training.learner import Samples

Floats = NDArray[np.float64]

_MOST_CLASSES = 1000
_CLASS = f"a class; write whole numbers from 0 to {_MOST_CLASSES - 1}"
_LARGEST = 1e30  # its square is a number in double precision, it itself in single


def load_table(path: Path, like: Path | None = None, targets: bool = True) -> Samples:
    """The samples of a CSV file, a line each. Raises SettingsError, naming file and line.

    `like`: a file whose columns stand in the same places, those that have the same names. `targets`: whether there
    must be some.
    """
    lines = _lines(path)
    header = _names(lines)
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise SettingsError(f"{path}:1: column '{twice[0]}' appears twice; rename one")
    if like is not None:
        others = _names(_lines(like))
        if any(name in others and others.index(name) != k for k, name in enumerate(header)):
            raise SettingsError(
                f"{path}:1: columns {', '.join(header)}; {like} has {', '.join(others)}: columns go by their places, "
                "put them in the same order"
            )
    asked = np.array([name.lower().startswith("target") for name in header])
    label = [name.lower() == "label" for name in header]
    if any(label):
        if asked.any():
            raise SettingsError(
                f"{path}:1: columns {', '.join(header)}: 'label' is the class, beside columns of targets; leave one of "
                "both out, or rename it where it is an input"
            )
        if sum(label) > 1:
            raise SettingsError(f"{path}:1: columns {', '.join(header)}: two of them are 'label'; leave one")
        asked = np.array(label)
    if asked.all() or (targets and not asked.any()):
        hint = "; write commas between the columns" if len(header) == 1 and re.search(r"[;\t|]", header[0]) else ""
        raise SettingsError(
            f"{path}:1: columns {', '.join(header)}: it needs some whose names begin with 'target', or one 'label', "
            f"and others, the inputs{hint}"
        )
    rows = [_numbers(path, k, line, header) for k, line in enumerate(lines[1:], 2) if line]
    if not rows:
        raise SettingsError(f"{path}: no samples below the header line")
    table = np.array(rows)
    features, wanted = table[:, ~asked], table[:, asked]  # column by column, for which the kernels are not compiled
    labelled = any(label)
    if labelled:
        wanted = _one_hot(path, wanted[:, 0], lines)
    names = np.array(header, object)
    return Samples(
        np.ascontiguousarray(features), 1.0, np.ascontiguousarray(wanted), labelled,
        columns=(tuple(names[~asked]), tuple(names[asked])),
    )  # fmt: skip


def check_columns(circuit: Circuit, samples: Samples) -> None:
    """Raise SettingsError if columns that have the names of inputs, or of outputs, are not in the order of these.

    Columns count by position, whatever they are called. The names of inputs are those of their sources, or of the nodes
    of sources to ground; `a` and `v(a)` are one name; numbers are names only if all columns have them. A wrong number
    of columns is reported elsewhere.
    """
    netlist, table = circuit.netlist, circuit.netlist.tables
    rows = [circuit.rows_of(name) for name in netlist.inputs]
    sources = [(kind, k) for kind, start, stop in rows for k in range(start, stop)]
    ends = [sorted((int(table[kind].a[k]), int(table[kind].b[k]))) for kind, k in sources]
    features, targets = samples.columns
    nodes_of = [_inside(name) for name in features]
    asked = [_inside(re.sub(r"(?i)^target[^a-z0-9(]*", "", name)) for name in targets]
    for names, found, columns, role in (
        ([table[kind].names[k] for kind, k in sources], features, features, "inputs"),
        (["" if one else netlist.nodes[other] for one, other in ends], nodes_of, features, "inputs"),
        ([_inside(name) for name in netlist.output_names], asked, targets, "outputs"),
    ):
        own, given = [name.lower() for name in names], [name.lower() for name in found]
        if len(given) > len(own):
            continue
        all_names = set(given) <= set(own)
        known = {name for name in own if name and (all_names or not name.isdecimal())}
        known |= {",".join(name.split(",")[::-1]) for name in own if "," in name}  # of differences, the other way round
        if any(name in known and name != own[k] for k, name in enumerate(given)):
            shown = ", ".join(name or "?" for name in names)
            raise SettingsError(
                f"columns {', '.join(columns)} are in another order than the {role} of {netlist.path}, {shown}; "
                "columns go by their places: put them in that order, or rename them"
            )


def _inside(name: str) -> str:
    """`a` of `v(a)`, of `(a)`, and of `a`."""
    return re.sub(r"(?i)^v?\((.*)\)$", r"\1", name)


def _one_hot(path: Path, labels: Floats, lines: list[list[str]]) -> Floats:
    """Targets (n, classes) of these classes: 1 at its own, 0 at the others."""
    numbers = [k for k, line in enumerate(lines[1:], 2) if line]
    for number, label in zip(numbers, labels.tolist(), strict=True):
        if not (label.is_integer() and 0 <= label < _MOST_CLASSES):
            raise SettingsError(f"{path}:{number}: column 'label': {label:g} is not {_CLASS}")
    return np.eye(max(int(labels.max()) + 1, 2))[labels.astype(int)]


def _names(lines: list[list[str]]) -> list[str]:
    return [name.strip() for name in lines[0]]


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, skipinitialspace=True))
    except OSError as error:
        raise SettingsError(f"{path}: cannot read it: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SettingsError(f"{path}: not a CSV file: {error}") from None
    if not lines:
        raise SettingsError(f"{path}: empty; it needs a header line with the names of the columns")
    return lines


def _numbers(path: Path, number: int, line: list[str], header: list[str]) -> list[float]:
    if len(line) != len(header):
        raise SettingsError(f"{path}:{number}: {len(line)} values, the header has {len(header)} columns")
    values = []
    for name, word in zip(header, line, strict=True):
        try:
            value = float(word) if "_" not in word else math.nan  # which Python skips
        except ValueError:
            value = math.nan
        if not abs(value) <= _LARGEST:
            what = _CLASS if name.lower() == "label" else f"a finite number of at most {_LARGEST:g}"
            raise SettingsError(f"{path}:{number}: column '{name}': '{word.strip()}' is not {what}")
        values.append(value)
    return values
