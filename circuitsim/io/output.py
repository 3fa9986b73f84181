"""A solution as data: a JSON object, CSV lines, an npz file. Volts, amperes, watts, seconds.

Nodes are all except ground, in deck order. Sources are the branches whose current only KCL gives: V, inductors and
zero-ohm resistors, then E and H; their current flows from first to second node through the element. Saved values are
what .save, .print and --save request in addition.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.columns import Columns, all_nodes, apart, fresh, of_solution, shown_nodes
from circuitsim.errors import At
from circuitsim.io.files import replacing
from circuitsim.io.raw import Plot
from circuitsim.netlist.saves import Save
from circuitsim.residual import FIGURES
from circuitsim.saved import Saved, wanted_saves
from circuitsim.solution import Solution

if TYPE_CHECKING:
    from circuitsim.sweeping import SweepResult

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_NUMBERS = 1_000_000  # voltages, or currents, in one JSON object
_CSV_NUMBERS = 1_000_000  # turned into text at a time
_RAW_TYPES = {"V": "voltage", "A": "current", "W": "power", "ohm": "voltage"}


class Results:
    """The named voltages and currents of a solution, saved values, and which of these are not unique.

    `saves`: what is requested (default: by the netlist's own cards).
    """

    def __init__(self, solution: Solution, saves: Sequence[Save] | None = None) -> None:
        self.solution = solution
        self.circuit = solution.circuit
        self.saved = Saved(solution, wanted_saves(self.circuit, ()) if saves is None else saves)

    @cached_property
    def finite(self) -> bool:
        """Whether every unknown is a number: not so when a method refused, or voltages overflowed."""
        return bool(np.isfinite(self.solution.x).all())

    @property
    def nodes(self) -> Ints:
        """All nodes but ground."""
        return all_nodes(self.circuit)

    def names(self, nodes: Ints) -> list[str]:
        """Names of nodes."""
        return [self.circuit.nodes[k] for k in nodes.tolist()]

    @cached_property
    def undetermined(self) -> NDArray[np.bool_]:
        """For each node, ground too: whether its voltage is not unique.

        Nothing is known before there are voltages; nodes that are left out have none.
        """
        return ~self.solution.determined if self.finite else np.zeros(len(self.circuit.nodes), bool)

    @property
    def currents(self) -> Floats:
        """Currents of the sources, (batch, n), A."""
        if self.finite:
            return self.solution.source_currents[0]
        return np.full((self.solution.batch, len(self.circuit.sources)), np.nan)

    @property
    def ambiguous(self) -> NDArray[np.bool_]:
        """For each source: whether its current is not unique."""
        return ~self.solution.source_currents[1] if self.finite else np.zeros(len(self.circuit.sources), bool)

    @property
    def ambiguous_others(self) -> list[str]:
        """Names of the elements other than sources whose currents are not unique."""
        return self.solution.ambiguous_others if self.finite else []

    @cached_property
    def remarks(self) -> list[str]:
        """What is unusual about the solution (Solution.remarks); nothing before there are voltages."""
        return self.solution.remarks if self.finite else []

    def intervals(self, nodes: Ints) -> dict[str, list[float | None]]:
        """Lowest and highest possible voltage of each undetermined node that has a bound, of a batch of one row."""
        if self.solution.batch > 1 or not self.undetermined.any() or (bounds := self.solution.intervals) is None:
            return {}
        lo, hi = (bound[0] for bound in bounds)
        shown = nodes[self.undetermined[nodes] & (np.isfinite(lo) | np.isfinite(hi))[nodes]]
        return {name: [number(lo[k]), number(hi[k])] for name, k in zip(self.names(shown), shown, strict=True)}

    def loose_texts(self, most: int, sources: bool) -> list[str]:
        """A warning for each kind of value that is not unique, or left out, for outputs that cannot mark them.

        Each gives `most` names. What `remarks` say already is left out: nodes with an interval, controlled sources.
        `sources`: whether the output holds the currents of sources.
        """
        told, nodes = self.intervals(self.nodes), chosen(self.circuit.nodes, self.undetermined)
        ties = self.ambiguous & (np.arange(len(self.circuit.sources)) < len(self.circuit.ties))
        found = (
            ("nodes without a unique voltage", [name for name in nodes if name not in told]),
            ("currents that are not unique", chosen(self.circuit.source_names, ties) if sources else []),
            ("saved values that are not unique", chosen(self.saved.labels, self.saved.ambiguous)),
            ("nodes that are left out", chosen(self.circuit.nodes, self.circuit.left_out)),
            ("saved values that are left out", chosen(self.saved.labels, self.saved.left_out)),
        )
        return named_texts(found, most)


def named_texts(found: Iterable[tuple[str, Sequence[str]]], most: int) -> list[str]:
    """Sentences, each followed by at most `most` names; a sentence without names is omitted.

    >>> named_texts([("open", ["a", "b", "c"]), ("closed", [])], 2)
    ['open: a, b ...']
    """
    return [f"{text}: {', '.join(names[:most])}{' ...' if len(names) > most else ''}" for text, names in found if names]


def warning_texts(notes: Iterable[tuple[At | None, str]]) -> list[str]:
    """Notes (Circuit.notes), each with its place in front."""
    return [f"{at}: {text}" if at else text for at, text in notes]


def how(result: Solution | SweepResult) -> dict[str, Any]:
    """How something was solved."""
    return {name: getattr(result, name) for name in ("method", "why", "backend", "dtype", "steps")}


def result_object(results: Results, seconds: Mapping[str, float]) -> dict[str, Any]:
    """The JSON object of `circuitsim solve --json`; a batch of more than one row gives lists instead of numbers.

    Beyond 1e6 numbers voltages are those of the `.output` nodes only, and currents are left out; a warning says so.
    """
    solution, circuit = results.solution, results.circuit
    warnings = warning_texts(circuit.notes) + results.remarks
    nodes = results.nodes
    if nodes.size * solution.batch > MOST_NUMBERS:
        nodes = np.array(circuit.netlist.read_nodes, np.int64)
        kept = "only those of the .output nodes are given; --npz gives all"
        warnings.append(
            f"voltages: {results.nodes.size} nodes x {solution.batch} rows are more than {MOST_NUMBERS:,} numbers: "
            f"{kept if nodes.size else 'none are given; add .output, or use --npz'}"
        )
    with_currents = len(circuit.sources) * solution.batch <= MOST_NUMBERS
    if not with_currents:
        warnings.append(
            f"currents: {len(circuit.sources)} sources x {solution.batch} rows are more than {MOST_NUMBERS:,} numbers: "
            "none are given; --npz gives all"
        )
    saved = results.saved
    with_saved = saved.count * solution.batch <= MOST_NUMBERS
    if not with_saved:
        warnings.append(
            f"saved: {saved.count} values x {solution.batch} rows are more than {MOST_NUMBERS:,} numbers: "
            "none are given; --npz and --raw give all"
        )
    return {
        "status": solution.status.name,
        "message": solution.message,
        "failed_rows": solution.failed.tolist(),
        "failed_statuses": [status.name for status in solution.unsolved.values()],
        "voltages": _columns(results.names(nodes), solution.voltages(nodes)),
        "currents": _columns(results.circuit.source_names, results.currents) if with_currents else {},
        "saved": _columns(saved.labels, saved.values()) if with_saved else {},
        "residuals": {name: number(getattr(solution.residuals, name)) for name in FIGURES},
        **how(solution),
        "seconds": dict(seconds),
        "warnings": warnings,
        "undetermined": results.names(np.flatnonzero(results.undetermined)),
        "left_out": chosen(circuit.nodes, circuit.left_out),
        "intervals": results.intervals(nodes),
        "ambiguous_currents": (chosen(results.circuit.source_names, results.ambiguous) if with_currents else [])
        + results.ambiguous_others,
        "ambiguous_saved": chosen(saved.labels, saved.ambiguous) if with_saved else [],
        "left_out_saved": chosen(saved.labels, saved.left_out) if with_saved else [],
    }


def write_json(data: Mapping[str, Any], out: IO[str]) -> None:
    """One line of strict JSON (no NaN), numbers with all their digits."""
    out.write(json.dumps(data, allow_nan=False) + "\n")


def write_csv(results: Results, out: IO[str]) -> None:
    """A header `row,NODE,...,SAVED,...` and a line of numbers for each batch row.

    Nodes are the `.output` nodes, or all without one, that of the name `row` is v(row); their voltages in V, what is
    saved in V, A or W.
    """
    solution = results.solution
    nodes = shown_nodes(results.circuit)
    writer = csv.writer(out, lineterminator="\n")
    names, saved = results.names(nodes), results.saved
    more = fresh(saved.labels, given=(f"v({name})" for name in names))
    writer.writerow(["row", *apart("v", names, ["row"]), *(saved.labels[k] for k in more)])
    step = max(1, _CSV_NUMBERS // max(nodes.size + saved.count, 1))
    for first in range(0, solution.batch, step):
        rows = slice(first, min(first + step, solution.batch))
        block = np.concatenate([solution.voltages(nodes, rows), saved.values(rows)[:, more]], axis=1)
        writer.writerows([first + k, *row] for k, row in enumerate(block.tolist()))


def write_npz(results: Results, path: Path) -> None:
    """Everything as arrays, the batch axis first; the file appears whole or not at all. SettingsError if it cannot.

    voltages (batch, nodes), nodes, undetermined, left_out; currents (batch, sources), sources, ambiguous; saved
    (batch, n), saved_names, saved_ambiguous, saved_left_out; each figure of Residuals; failed_rows; status, message,
    method, why, backend, dtype, steps. Strings are numpy strings: nothing needs a pickle.
    """
    solution = results.solution
    arrays: dict[str, Any] = {
        "voltages": solution.voltages(results.nodes),
        "nodes": strings(results.names(results.nodes)),
        "undetermined": results.undetermined[1:],
        "left_out": results.circuit.left_out[1:],
        "currents": results.currents,
        "sources": strings(results.circuit.source_names),
        "ambiguous": results.ambiguous,
        "saved": results.saved.values(),
        "saved_names": strings(results.saved.labels),
        "saved_ambiguous": results.saved.ambiguous,
        "saved_left_out": results.saved.left_out,
        "status": solution.status.name,
        "message": solution.message,
        "failed_rows": solution.failed,
        **how(solution),
        **{name: getattr(solution.residuals, name) for name in FIGURES},
    }
    with replacing(path, "wb") as out:
        np.savez(out, **arrays)


def raw_plot(results: Results) -> Plot:
    """The plot of a raw file: node voltages, source currents, what is saved; names as ngspice writes them.

    One row is the plot `Operating Point`. A batch is `Operating points of a batch`, a point for each row, and its first
    variable is `row`, the row's number from 0.
    """
    columns, batch = of_solution(results.solution, results.saved), results.solution.batch
    if batch == 1:
        return plot_of("Operating Point", columns)
    return plot_of("Operating points of a batch", columns, ("row", "notype", np.arange(batch)))


def plot_of(title: str, columns: Columns, *first: tuple[str, str, NDArray[Any]]) -> Plot:
    """A plot of a raw file: what comes first, (name, type, (rows,)), then columns by ngspice's names, each once."""
    names = [_raw_name(*pair).lower() for pair in zip(columns.names, columns.units, strict=True)]
    kept = fresh(names, given=(name for name, *_ in first))
    variables = [(name, kind) for name, kind, _ in first]
    variables += [(names[k], _RAW_TYPES[columns.units[k]]) for k in kept]
    values = np.column_stack([*(column for *_, column in first), columns.take(kept).values])
    return Plot(title, tuple(variables), values)


def _raw_name(label: str, unit: str) -> str:
    """`i(@r1[i])`, `v(@d1[vd])`, `@r1[p]`; what has parentheses already stays."""
    letter = {"current": "i", "voltage": "v"}.get(_RAW_TYPES[unit])
    return f"{letter}({label})" if letter and label.startswith("@") else label


def _columns(names: Sequence[str], values: Floats) -> dict[str, Any]:
    """Name -> its column of values (batch, n): a number, or a list when there are several rows. NaN and inf: None."""
    columns = values.T.tolist()
    if not np.isfinite(values).all():
        columns = [[number(x) for x in column] for column in columns]
    if values.shape[0] == 1:
        columns = [column[0] for column in columns]
    return dict(zip(names, columns, strict=True))


def number(x: float) -> float | None:
    """The number; None for NaN and infinity, which JSON lacks."""
    return float(x) if np.isfinite(x) else None


def numbers(x: Floats, digits: int = 0) -> list[float | None]:
    """The same for many; with so many significant digits, or all."""
    found = x.tolist()
    if digits:
        found = [float(f"{n:.{digits}g}") for n in found]
    return found if np.isfinite(x).all() else [n if np.isfinite(n) else None for n in found]


def chosen(names: Sequence[str], which: NDArray[np.bool_]) -> list[str]:
    """Those that are marked."""
    return [names[k] for k in np.flatnonzero(which).tolist()]


def strings(names: Sequence[str]) -> NDArray[np.str_]:
    """Numpy strings."""
    return np.array(names, np.str_) if names else np.zeros(0, "U1")
