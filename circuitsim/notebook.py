"""Results as pandas data frames, and as small HTML tables for notebooks.

Names are those of raw files: v(out), i(V1), @R1[p].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from circuitsim.columns import Columns, all_nodes, apart, of_solution, of_sweep, shown_nodes
from circuitsim.errors import BackendUnavailable
from circuitsim.netlist.model import KIND_NAMES

if TYPE_CHECKING:
    import pandas as pd

    from circuitsim.circuit import Circuit
    from circuitsim.saved import Saved
    from circuitsim.solution import Solution
    from circuitsim.sweeping import SweepResult

QUANTITIES = {"V": "voltage", "A": "current", "W": "power", "ohm": "resistance"}
_OWN = ("status", "kcl_relative")  # columns of a sweep's frame
_MOST_VALUES = 20  # of one row, in HTML
_MOST_COLUMNS = 8
_MOST_ROWS = 10
_MOST_NAMES = 8  # in a list
_MOST_LETTERS = 60  # of a name
_MOST_TITLE = 200


# -- pandas ------------------------------------------------------------------------------------------------------------


def solution_frame(solution: Solution, saved: Saved) -> pd.DataFrame:
    """One line for each value: row (of the batch), quantity, name, value, unit, unique."""
    found = of_solution(solution, saved)
    rows, n = found.values.shape
    return _frame(
        {
            "row": np.repeat(np.arange(rows), n),
            "quantity": [QUANTITIES[unit] for unit in found.units] * rows,
            "name": found.names * rows,
            "value": found.values.ravel(),
            "unit": found.units * rows,
            "unique": np.tile(found.unique, rows),
        }
    )


def sweep_frame(result: SweepResult) -> pd.DataFrame:
    """One line for each point: what is swept, voltages, currents, what is saved, status, kcl_relative."""
    found = of_sweep(result)
    swept = result.values if result.swept else result.values.astype(np.int64)  # seeds
    frame = _frame(
        {
            **dict(zip(apart("param", result.names, _OWN), swept.T, strict=True)),
            **dict(zip(found.names, found.values.T, strict=True)),
            **dict(zip(_OWN, (result.statuses, result.kcl_relative), strict=True)),
        }
    )
    frame.attrs["units"] = dict(zip(found.names, found.units, strict=True))
    frame.attrs["not_unique"] = [name for name, sure in zip(found.names, found.unique, strict=True) if not sure]
    return frame


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    try:
        import pandas
    except ImportError:
        raise BackendUnavailable("to_dataframe needs pandas: pip install 'circuitsim[dataframe]'") from None
    return pandas.DataFrame(columns)


# -- HTML --------------------------------------------------------------------------------------------------------------


def circuit_html(circuit: Circuit) -> str:
    """What a circuit holds: its elements by kind, crossbars, nodes, roles, number of warnings."""
    netlist = circuit.netlist
    rows = [(KIND_NAMES[kind], f"{len(table):,}") for kind, table in netlist.tables.items() if len(table)]
    rows += [(f"crossbar {_short(x.name)}", f"{x.rows.size:,} x {x.cols.size:,}") for x in circuit.crossbars]
    rows.append(("nodes, ground included", f"{len(circuit.nodes):,}"))
    roles = {
        ".input": netlist.inputs,
        ".output": netlist.output_names[: _MOST_NAMES + 1],
        ".train": netlist.trained,
    }
    rows += [(role, _list(names)) for role, names in roles.items() if names]
    if circuit.notes:
        rows.append(("warnings", f"{len(circuit.notes):,}"))
    return _html(netlist.title, [], rows)


def solution_html(solution: Solution, saved: Saved) -> str:
    """The first voltages (those of `.output`, if there are), source currents and saved values; the certificate."""
    nodes, rows = shown_nodes(solution.circuit)[:_MOST_VALUES], min(solution.batch, _MOST_ROWS)
    found = of_solution(solution, saved, nodes, slice(0, rows)).once()
    total = solution.batch, found.values.shape[1] + all_nodes(solution.circuit).size - nodes.size
    if solution.batch == 1:
        cells = zip(found.names, found.values[0].tolist(), found.units, found.unique.tolist(), strict=True)
        lines = [(_short(name), _seven(x), unit + _mark(x, sure)) for name, x, unit, sure in list(cells)[:_MOST_VALUES]]
        more = _more(total[1] - len(lines), "values")
        return _html(solution.circuit.netlist.title, [], lines, [*more, _verdict(solution)])
    heads, cells_of = _rows(found)
    table = [(str(k), *cells) for k, cells in enumerate(cells_of)]
    more = [*_more(total[0] - rows, "rows"), *_more(total[1] - len(heads), "values"), *_stars(found)]
    return _html(solution.circuit.netlist.title, ["row", *heads], table, [*more, _verdict(solution)])


def sweep_html(result: SweepResult) -> str:
    """Points, evenly spread, of what is swept and of the first voltages, currents and saved values; what failed."""
    count, nodes = result.values.shape[0], shown_nodes(result.circuit)[:_MOST_VALUES]
    shown = np.unique(np.linspace(0, count - 1, min(count, _MOST_ROWS)).round().astype(np.int64))
    found = of_sweep(result, nodes, points=shown).once()
    total = found.values.shape[1] + all_nodes(result.circuit).size - nodes.size
    heads, cells_of = _rows(found)
    swept = [[f"{x:.10g}" for x in row] for row in result.values[shown].tolist()]
    status = [[str(s)] for s in result.statuses[shown]] if result.failed.size else [[]] * shown.size
    table = [(*a, *b, *c) for a, b, c in zip(swept, cells_of, status, strict=True)]
    what = "points" if result.swept else "runs"
    verdict = f"{result.failed.size:,} of {count:,} {what} failed" if result.failed.size else f"{count:,} {what} solved"
    known = result.kcl_relative[~np.isnan(result.kcl_relative)]
    worst = [f"relative KCL {known.max():.2g} at most"] if known.size else []
    notes = [
        *([f"{shown.size} of {count:,} {what}, evenly spread"] if shown.size < count else []),
        *_more(total - len(heads), "values"),
        *_stars(found),
        "; ".join([verdict, *worst, f"method {result.method}, backend {result.backend}, {result.dtype}"]),
    ]
    return _html(
        result.circuit.netlist.title,
        [*map(_short, result.names), *heads, *(["status"] if result.failed.size else [])],
        table,
        notes,
    )


def _rows(found: Columns) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the first columns."""
    marks = zip(found.names, found.units, found.unique.tolist(), strict=True)
    heads = [f"{_short(name)}, {unit}{'' if sure else ' *'}" for name, unit, sure in list(marks)[:_MOST_COLUMNS]]
    return heads, [[_seven(x) for x in row] for row in found.values[:, :_MOST_COLUMNS].tolist()]


def _stars(found: Columns) -> list[str]:
    return [] if found.unique[:_MOST_COLUMNS].all() else ["* not unique, or no value"]


def _mark(x: float, unique: bool) -> str:
    return "" if unique else ", not unique" if np.isfinite(x) else ", no value"


def _verdict(solution: Solution) -> str:
    verdict = "certificate met" if solution.solved else f"certificate NOT met, {solution.status.name}"
    return f"{verdict}: {solution.message}; method {solution.method}, backend {solution.backend}, {solution.dtype}"


def _seven(x: float) -> str:
    return f"{x + 0.0:.7g}"  # + 0.0: no minus sign before a zero


def _more(count: int, things: str) -> list[str]:
    return [f"... and {count:,} more {things}"] if count > 0 else []


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(_short, names[:_MOST_NAMES])) + " ..." * (len(names) > _MOST_NAMES)


def _short(name: str) -> str:
    return name if len(name) <= _MOST_LETTERS else name[: _MOST_LETTERS - 3] + "..."


def _html(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[str] = ()) -> str:
    """A title, a table, lines of text; every text is escaped."""
    head = f"<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in heads)}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    above = f"<strong>{escape(title.strip()[:_MOST_TITLE])}</strong>" if title.strip() else ""
    below = "".join(f"<div>{escape(text)}</div>" for text in notes)
    return f"<div>{above}<table>{head}<tbody>{body}</tbody></table>{below}</div>"
