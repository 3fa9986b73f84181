"""A solution, and the contents of a netlist, as tables for people to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from circuitsim.columns import shown_nodes
from circuitsim.io.output import Results
from circuitsim.io.sweeps import STATISTICS, node_names, statistics
from circuitsim.netlist.model import KINDS
from circuitsim.solution import Solution, Status
from circuitsim.solving import steps_text

if TYPE_CHECKING:
    from circuitsim.sweeping import SweepResult

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_NODES = 40
MOST_SOURCES = 20
MOST_ROWS = 10
_ALL = "--csv, --json or --npz FILE gives all"
_ALL_SOURCES = "--json, --npz FILE, or --csv with --save alli gives all"
_LEFT_OUT = "left out"
_GAP = 3  # characters between columns
_ANY_WIDTH = 100_000
_SHOWN_NAME = 40  # characters of a name in the head of a column

_FIGURES = (
    ("kcl_amps", "KCL error at a node", "A"),
    ("clamp_volts", "ideal diode beyond its forward voltage", "V"),
    ("complementarity_watts", "ideal diode current x gap", "W"),
    ("power_balance_watts", "power supplied - absorbed", "W"),
    ("gap_watts", "co-content above its minimum, at most", "W"),
)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # for the command to deal with; rich would end the process


def console(stderr: bool = False) -> Console:
    """A console that prints names as they are: `y[3]` and `a:b` are not markup."""
    return _Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_solution(
    results: Results, seconds: Mapping[str, float], tolerance: float, out: Console, quiet: bool = False
) -> None:
    """Title, node voltages, source currents, what is saved, certificate, how it was solved.

    When quiet only the voltages and what is saved.
    """
    solution, title = results.solution, results.circuit.netlist.title.strip()
    print_voltages = _print_nodes if solution.batch == 1 else _print_batch
    if quiet:
        print_voltages(results, out)
        if results.saved.count:
            out.print()
            _print_saved(results, out)
        return
    if title:
        out.print(Text(title, "bold"), end="\n\n")
    print_voltages(results, out)
    out.print()
    if solution.batch == 1:
        _print_sources(results, out)
    _print_saved(results, out)
    _print_certificate(results, tolerance, out)
    rows = f", {solution.batch} rows" if solution.batch > 1 else ""
    steps = steps_text(solution.method, solution.steps)
    method = f"method {solution.method} ({solution.why})"
    out.print(Text(f"{method}, backend {solution.backend}, {solution.dtype}{rows}, {steps}"))
    out.print(Text("seconds: " + ", ".join(f"{stage} {_seconds(value)}" for stage, value in seconds.items())))


def new_table(*columns: tuple[str, bool]) -> Table:
    """A table with these (head, is number) columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for head, is_number in columns:
        table.add_column(Text(head), justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table


def print_whole(table: Table, out: Console) -> None:
    """Print a table, beyond the width of the console rather than without some of its digits."""
    width = Measurement.get(out, out.options.update(width=_ANY_WIDTH), table).maximum
    out.width = max(out.width, width)
    out.print(table, crop=False)


def _seven(x: float) -> str:
    """Seven digits: more than one measures, fewer than rounding shows."""
    return f"{x + 0.0:.7g}"  # + 0.0: no minus sign before a zero


def _seconds(x: float) -> str:
    return f"{x:.2g}" if x < 1 else f"{x:.1f}"


def _shown_nodes(results: Results) -> tuple[Ints, int]:
    """The nodes to show and how many more there are."""
    nodes = shown_nodes(results.circuit)
    return nodes[:MOST_NODES], max(nodes.size - MOST_NODES, 0)


def _print_nodes(results: Results, out: Console) -> None:
    nodes, more = _shown_nodes(results)
    loose, left_out = results.undetermined[nodes], results.circuit.left_out[nodes]
    marks = np.where(left_out, _LEFT_OUT, np.where(loose, "undetermined", "")).tolist()
    table = new_table(("node", False), ("volts", True), *([("", False)] if any(marks) else []))
    values = results.solution.voltages(nodes)[0].tolist()
    for name, value, mark in zip(results.names(nodes), values, marks, strict=True):
        table.add_row(Text(name), _seven(value), *([mark] if any(marks) else []))
    out.print(table)
    _print_more(more, "nodes", out)
    if more:
        everything = shown_nodes(results.circuit)
        volts = np.where(results.undetermined[everything], np.nan, results.solution.voltages(everything)[0])
        _print_extremes(volts, lambda k: results.names(everything[k : k + 1])[0], "V", out)
    _explain_undetermined(bool(loose.any()), out)


def _print_batch(results: Results, out: Console) -> None:
    nodes, more = _shown_nodes(results)
    solution, loose = results.solution, results.undetermined[nodes]
    count = min(solution.batch, MOST_ROWS)
    heads = _heads(results.names(nodes), loose, results.circuit.left_out[nodes])
    _print_rows(solution, heads, solution.voltages(nodes, slice(0, count)), out)
    _print_more(solution.batch - count, "rows", out)
    _print_more(more, "nodes", out)
    _explain_undetermined(bool(loose.any()), out, "* ")


def _heads(names: Sequence[str], loose: Bools, left_out: Bools) -> list[str]:
    """Names above columns, marked when their values are not unique, or left out."""
    marks = np.where(left_out, f", {_LEFT_OUT}", np.where(loose, "*", "")).tolist()
    return [_short(name) + mark for name, mark in zip(names, marks, strict=True)]


def _print_rows(solution: Solution, heads: Sequence[str], values: Floats, out: Console) -> None:
    """The first rows of a batch, (rows, columns), in as many tables side by side as fit the width."""
    count = values.shape[0]
    cells = [[_seven(x) for x in row] for row in values.tolist()]
    status = [solution.unsolved.get(k, Status.SOLVED).name for k in range(count)] if solution.unsolved else []
    first_width = max(len("row"), len(str(count - 1)))
    first_width += max(map(len, status)) + _GAP if status else 0
    for columns in _fitting([max(map(len, column)) for column in zip(heads, *cells, strict=True)], first_width, out):
        table = new_table(("row", True), *((heads[k], True) for k in columns), *([("status", False)] if status else []))
        for k, row in enumerate(cells):
            table.add_row(str(k), *(row[j] for j in columns), *status[k : k + 1])
        out.print(table)


def _print_saved(results: Results, out: Console) -> None:
    """What .save, .print and --save ask for, with units."""
    saved, batch = results.saved, results.solution.batch
    if not saved.count:
        return
    shown = min(saved.count, MOST_NODES)
    loose, left_out = saved.ambiguous[:shown], saved.left_out[:shown]
    units = saved.units[:shown]
    values = saved.values(slice(0, min(batch, MOST_ROWS)))[:, :shown]
    if batch == 1:
        table = new_table(("saved", False), ("value", True), ("", False))
        marks = np.where(left_out, f", {_LEFT_OUT}", np.where(loose, ", not unique", "")).tolist()
        for name, value, unit, mark in zip(saved.labels, values[0].tolist(), units, marks, strict=False):
            table.add_row(Text(name), _seven(value), unit + mark)
        out.print(table)
    else:
        heads = _heads(saved.labels[:shown], loose, left_out)
        heads = [f"{head} {unit}" for head, unit in zip(heads, units, strict=True)]
        _print_rows(results.solution, heads, values, out)
        _print_more(batch - MOST_ROWS, "rows", out)
    _print_more(saved.count - shown, "saved values", out)
    if batch == 1 and saved.count > shown and len(set(saved.units)) == 1:
        labels = saved.labels
        _print_extremes(saved.values()[0], lambda k: labels[k], saved.units[0], out)
    if loose.any() and batch > 1:
        out.print(Text("* not unique"))
    out.print()


def _fitting(widths: Sequence[int], first: int, out: Console) -> list[list[int]]:
    """Columns in groups that fit the width of the console beside a first column."""
    groups: list[list[int]] = []
    room = 0
    for k, width in enumerate(widths):
        if not groups or room < width + _GAP:
            groups.append([])
            room = out.width - first
        groups[-1].append(k)
        room -= width + _GAP
    return groups


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN_NAME else name[: _SHOWN_NAME - 3] + "..."


def _print_more(count: int, things: str, out: Console, how: str = _ALL) -> None:
    if count > 0:
        out.print(Text(f"... and {count:,} more {things}; {how}", "italic"))


def _print_extremes(values: Floats, name_of: Callable[[int], str], unit: str, out: Console) -> None:
    """The smallest and the largest of values of which only the first are shown."""
    known = np.flatnonzero(np.isfinite(values))
    if known.size:
        low, high = int(known[values[known].argmin()]), int(known[values[known].argmax()])
        out.print(
            Text(
                f"of all: lowest {name_of(low)} {_seven(values[low])} {unit}, "
                f"highest {name_of(high)} {_seven(values[high])} {unit}"
            )
        )


def _explain_undetermined(needed: bool, out: Console, mark: str = "") -> None:
    if needed:
        out.print(
            Text(
                f"{mark}undetermined: nothing fixes these voltages relative to ground (differences between nodes of "
                "one island are meaningful; an island that nothing joins to ground has its first node at 0 V), or "
                "controlled sources leave them open."
            )
        )


def _print_sources(results: Results, out: Console) -> None:
    circuit = results.circuit
    given = np.flatnonzero(np.isin(circuit.sources.kind, [KINDS.index(kind) for kind in "VEH"]))
    if not given.size:
        return
    shown = given[:MOST_SOURCES]
    loose = results.ambiguous[shown]
    table = new_table(("source", False), ("amperes", True), *([("", False)] if loose.any() else []))
    for k, value, mark in zip(shown.tolist(), results.currents[0, shown].tolist(), loose.tolist(), strict=True):
        table.add_row(Text(circuit.source_names[k]), _seven(value), *(["not unique"] if mark else []))
    out.print(table)
    _print_more(given.size - shown.size, "sources", out, _ALL_SOURCES)
    if given.size > shown.size:
        _print_extremes(results.currents[0, given], lambda k: circuit.source_names[given[k]], "A", out)
    if loose.any():
        out.print(
            Text(
                "not unique: sources and shorts in a loop can share the current in any way; in a loop of V and shorts "
                "alone the values with the least sum of squares are shown."
            )
        )
    out.print()


def _print_certificate(results: Results, tolerance: float, out: Console) -> None:
    residuals, solved = results.solution.residuals, results.solution.solved
    rows = results.solution.batch
    verdict = ("met", "green") if solved else ("NOT met", "bold red")
    out.print(Text.assemble("certificate: ", verdict, "; the worst over all nodes", " and rows" * (rows > 1), ":"))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    needed = f"{'met' if residuals.kcl_relative <= tolerance else 'NOT met'}: at most {tolerance:g}"
    table.add_row("KCL error / currents at the node", f"{residuals.kcl_relative:.2g}", needed)
    for name, text, unit in _FIGURES:
        table.add_row(text, f"{getattr(residuals, name):.2g} {unit}")
    out.print(table)
    out.print()


# -- sweeps ------------------------------------------------------------------------------------------------------------

_MOST_POINTS = 40  # in a table


def print_sweep(result: SweepResult, tolerance: float, out: Console, quiet: bool = False) -> None:
    """A sweep as tables of its points, Monte Carlo runs as statistics; the points that failed; when quiet no more."""
    nodes = shown_nodes(result.circuit)
    count, what = result.values.shape[0], "points" if result.swept else "runs"
    if not quiet:
        of = ", ".join(result.names) if result.swept else _seeds(result)
        out.print(Text(f"{count:,} {what if count > 1 else what[:-1]}, {of}", "bold"), end="\n\n")
    loose, left_out = ~result.determined[nodes], result.left_out[nodes]
    print_columns = _print_points if result.swept else _print_statistics
    print_columns(result, _heads(node_names(result, nodes), loose, left_out), result.voltages[:, nodes], "nodes", out)
    if result.saves:
        out.print()
        heads = _heads(result.saved_labels, result.saved_ambiguous, result.saved_left_out)
        heads = [f"{head} {unit}" for head, unit in zip(heads, result.saved_units, strict=True)]
        print_columns(result, heads, result.saved, "saved values", out)
    for k in result.failed[:MOST_ROWS].tolist():
        out.print(Text(f"failed at {result.point(k)}: {result.statuses[k]}: {result.messages[k]}", "red"))
    _print_more(result.failed.size - MOST_ROWS, f"{what} that failed", out)
    if quiet:
        return
    _explain_undetermined(bool(loose.any()), out, "* ")
    if result.saved_ambiguous.any():
        out.print(Text("* of a saved value: not unique"))
    answers = (result.voltages, result.currents, result.saved)
    if not result.swept and count > 1 and not any(np.ptp(x, axis=0).any() for x in answers):
        out.print(
            Text("all runs have the same answer; a value such as {agauss(1k, 50, 3)} is drawn for each run", "yellow")
        )
    out.print()
    verdict = (f"NOT met at {result.failed.size:,} of {count:,} {what}", "bold red")
    out.print(Text.assemble("certificate: ", verdict if result.failed.size else ("met", "green")))
    known = result.kcl_relative[~np.isnan(result.kcl_relative)]
    worst = f"{known.max():.2g}" if known.size else "unknown"
    out.print(Text(f"worst KCL error / currents at the node: {worst}; required: at most {tolerance:g}"))
    steps = f"{steps_text(result.method, result.steps)} at most"
    out.print(Text(f"method {result.method} ({result.why}), backend {result.backend}, {result.dtype}, {steps}"))


def _seeds(result: SweepResult) -> str:
    """Those of Monte Carlo runs, in words."""
    first, last = (f"{result.values[k, 0]:.0f}" for k in (0, -1))
    return f"seed {first}" if first == last else f"seeds {first} to {last}"


def _print_points(result: SweepResult, heads: Sequence[str], values: Floats, what: str, out: Console) -> None:
    """Columns of values (points, columns) beside those of the swept quantities."""
    count = result.values.shape[0]
    shown = np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).round().astype(np.int64))
    swept = [[f"{x:.10g}" for x in row] for row in result.values[shown].tolist()]
    cells = [[_seven(x) for x in row] for row in values[shown, :MOST_NODES].tolist()]
    status = [str(s) for s in result.statuses[shown]] if result.failed.size else []
    first = sum(max(map(len, column)) + _GAP for column in zip(result.names, *swept, strict=True))
    first += max(map(len, status)) + _GAP if status else 0
    widths = [max(map(len, column)) for column in zip(heads[:MOST_NODES], *cells, strict=True)]
    fitting = (_fitting(widths, first, out) or [[]])[0]  # one table: beyond its width --csv is of more use
    columns = [*((name, True) for name in result.names), *((heads[k], True) for k in fitting)]
    table = new_table(*columns, *([("status", False)] if status else []))
    for k, row in enumerate(swept):
        table.add_row(*row, *(cells[k][j] for j in fitting), *status[k : k + 1])
    out.print(table)
    if shown.size < count:
        out.print(Text(f"{shown.size} of {count:,} points, evenly spread; {_ALL}", "italic"))
    _print_more(len(heads) - len(fitting), what, out)


def _print_statistics(result: SweepResult, heads: Sequence[str], values: Floats, what: str, out: Console) -> None:
    """A row for each column of values (runs, columns)."""
    first, unit = ("node", ", V") if what == "nodes" else ("saved", "")
    table = new_table((first, False), *((name + unit, True) for name in STATISTICS))
    for head, row in zip(heads, statistics(result, values[:, :MOST_NODES]).tolist(), strict=False):
        table.add_row(Text(head), *map(_seven, row))
    out.print(table)
    _print_more(len(heads) - MOST_NODES, what, out)
