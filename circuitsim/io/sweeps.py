"""Sweeps and Monte Carlo runs as data: a JSON object, CSV lines, an npz file, plots for a raw file.

Nodes, sources and saved values are those of io/output.py; every point has a status, and NaN (JSON: null) where it has
no answer. A quantity that is not unique, or left out, at some point is marked for all points.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.columns import all_nodes, apart, fresh, of_sweep, shown_nodes
from circuitsim.io.files import replacing
from circuitsim.io.output import MOST_NUMBERS, chosen, how, named_texts, numbers, plot_of, strings
from circuitsim.io.raw import Plot
from circuitsim.netlist.model import KINDS
from circuitsim.solution import Status

if TYPE_CHECKING:
    from circuitsim.sweeping import SweepResult

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STATISTICS = ("mean", "std", "min", "max")
_CSV_POINTS = 10_000  # turned into text at a time
_RAW_NAMES = {
    "V": ("v(v-sweep)", "voltage"), "I": ("i(i-sweep)", "current"), "R": ("res-sweep", "res-sweep"),
    "temp": ("temp-sweep", "temp-sweep"), "param": ("param-sweep", "param-sweep"),
}  # fmt: skip


def node_names(result: SweepResult, nodes: Ints) -> list[str]:
    """Names of nodes."""
    return [result.circuit.nodes[k] for k in nodes.tolist()]


def statistics(result: SweepResult, values: Floats) -> Floats:
    """The STATISTICS of each column of values (points, n) over the solved points, (n, 4); std is the sample's."""
    solved = values[result.statuses == Status.SOLVED.name]
    count, n = solved.shape
    if not count:
        return np.full((n, len(STATISTICS)), np.nan)
    std = solved.std(axis=0, ddof=1) if count > 1 else np.zeros(n)
    return np.stack([solved.mean(axis=0), std, solved.min(axis=0), solved.max(axis=0)], axis=1)


def loose_texts(results: Sequence[SweepResult], most: int, sources: bool) -> list[str]:
    """A warning for each kind of value that is not unique, or left out, as Results.loose_texts; the same ones once."""
    texts = []
    for result in results:
        names = result.circuit.nodes
        found = (
            ("nodes without a unique voltage", chosen(names, ~result.determined)),
            ("currents that are not unique", chosen(result.circuit.source_names, result.ambiguous) if sources else []),
            ("saved values that are not unique", chosen(result.saved_labels, result.saved_ambiguous)),
            ("nodes that are left out", chosen(names, result.left_out)),
            ("saved values that are left out", chosen(result.saved_labels, result.saved_left_out)),
        )
        texts += named_texts(found, most)
    return list(dict.fromkeys(texts))


def sweep_object(
    results: Sequence[SweepResult], warnings: Sequence[str], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The JSON object of `circuitsim sweep --json`: `plots`, one for each .dc card, or one for Monte Carlo.

    Beyond 1e6 numbers a plot has the voltages of the `.output` nodes only, or none, and no currents, or nothing that is
    saved; a warning says so.
    """
    warnings = list(warnings)
    plots = [_plot_object(result, warnings) for result in results]
    failed = any(result.failed.size for result in results)
    return {"status": "FAILED" if failed else "SOLVED", "plots": plots, "seconds": dict(seconds), "warnings": warnings}


def _plot_object(result: SweepResult, warnings: list[str]) -> dict[str, Any]:
    count = result.values.shape[0]
    nodes = all_nodes(result.circuit)
    sources, labels = result.circuit.source_names, result.saved_labels
    if nodes.size * count > MOST_NUMBERS:
        nodes = np.array(result.circuit.netlist.read_nodes, np.int64)
        nodes = nodes if nodes.size * count <= MOST_NUMBERS else nodes[:0]
        warnings.append(
            f"voltages: more than {MOST_NUMBERS:,} numbers: "
            f"{'only those of the .output nodes' if nodes.size else 'none'} are given; --npz gives all"
        )
    if len(sources) * count > MOST_NUMBERS:
        sources = []
        warnings.append(f"currents: more than {MOST_NUMBERS:,} numbers: none are given; --npz gives all")
    if len(labels) * count > MOST_NUMBERS:
        labels = []
        warnings.append(f"saved: more than {MOST_NUMBERS:,} numbers: none are given; --npz and --raw give all")
    plot: dict[str, Any] = {
        "analysis": "dc" if result.swept else "monte carlo",
        "sweeps": [vars(swept) for swept in result.swept],
        "values": _columns(result.names, result.values),
        "voltages": _columns(node_names(result, nodes), result.voltages[:, nodes]),
        "currents": _columns(sources, result.currents),
        "saved": _columns(labels, result.saved),
        "kcl_relative": numbers(result.kcl_relative),
        "failed": [
            {"point": k, "at": result.point(k), "status": str(result.statuses[k]), "message": result.messages[k]}
            for k in result.failed.tolist()
        ],
        "undetermined": chosen(result.circuit.nodes, ~result.determined),
        "left_out": chosen(result.circuit.nodes, result.left_out),
        "ambiguous_currents": (chosen(sources, result.ambiguous) if sources else []) + list(result.ambiguous_others),
        "ambiguous_saved": chosen(labels, result.saved_ambiguous) if labels else [],
        "left_out_saved": chosen(labels, result.saved_left_out) if labels else [],
        **how(result),
    }
    if not result.swept:
        plot["statistics"] = _statistics(result, node_names(result, nodes), result.voltages[:, nodes])
        plot["saved_statistics"] = _statistics(result, labels, result.saved)
    return plot


def _statistics(result: SweepResult, names: Sequence[str], values: Floats) -> dict[str, dict[str, float | None]]:
    rows = [dict(zip(STATISTICS, numbers(row), strict=True)) for row in statistics(result, values)]
    return dict(zip(names, rows, strict=False))


def write_sweep_csv(results: Sequence[SweepResult], out: IO[str]) -> None:
    """A header (swept names, nodes, what is saved, `status`) and a line for each point; an empty line between plots.

    The nodes are those of `.output`, or all without one; one of the name `status` is v(status). What is swept, or the
    seed, is param(NAME) where another column has that name.
    """
    writer = csv.writer(out, lineterminator="\n")
    for k, result in enumerate(results):
        if k:
            out.write("\n")
        nodes = shown_nodes(result.circuit)
        names, labels = node_names(result, nodes), result.saved_labels
        more = fresh(labels, given=(f"v({name})" for name in names))
        others = [*apart("v", names, ["status"]), *(labels[k] for k in more), "status"]
        writer.writerow([*apart("param", result.names, others), *others])
        for first in range(0, result.values.shape[0], _CSV_POINTS):
            rows = slice(first, first + _CSV_POINTS)
            swept = result.values[rows].tolist() if result.swept else result.values[rows].astype(np.int64).tolist()
            given = np.concatenate([result.voltages[rows][:, nodes], result.saved[rows][:, more]], axis=1).tolist()
            writer.writerows([*a, *b, c] for a, b, c in zip(swept, given, result.statuses[rows].tolist(), strict=True))


def write_sweep_npz(results: Sequence[SweepResult], path: Path) -> None:
    """Everything as arrays, points first; the file appears whole or not at all. SettingsError if it cannot.

    swept (n,), kinds (n,), values (points, n); nodes, voltages (points, nodes), undetermined (nodes,), left_out;
    sources, currents (points, sources), ambiguous; saved (points, n), saved_names, saved_ambiguous, saved_left_out;
    statuses, kcl_relative (points,); method, why, backend, dtype, steps. Of several plots the names begin with dc1_,
    dc2_ ... in the order of the cards.
    """
    arrays: dict[str, Any] = {}
    for k, result in enumerate(results):
        prefix = f"dc{k + 1}_" if len(results) > 1 else ""
        found = {
            "swept": np.array(result.names, np.str_),
            "kinds": np.array([swept.kind for swept in result.swept] or ["seed"], np.str_),
            "values": result.values,
            "nodes": strings(result.circuit.nodes[1:]),
            "voltages": result.voltages[:, 1:],
            "undetermined": ~result.determined[1:],
            "left_out": result.left_out[1:],
            "sources": strings(result.circuit.source_names),
            "currents": result.currents,
            "ambiguous": result.ambiguous,
            "saved": result.saved,
            "saved_names": strings(result.saved_labels),
            "saved_ambiguous": result.saved_ambiguous,
            "saved_left_out": result.saved_left_out,
            "statuses": result.statuses,
            "kcl_relative": result.kcl_relative,
            **how(result),
        }
        arrays |= {prefix + name: array for name, array in found.items()}
    with replacing(path, "wb") as out:
        np.savez(out, **arrays)


def sweep_plot(result: SweepResult) -> Plot:
    """A plot as ngspice writes it: the first swept quantity, all nodes, the currents of V, L, E and H, saved values.

    ngspice has no parameter sweeps and no Monte Carlo: their first variables are `param-sweep` and `seed`.
    """
    first, title = ("seed", "notype"), "Monte Carlo"
    if result.swept:
        first, title = _RAW_NAMES[result.swept[0].kind], "DC transfer characteristic"
    given = np.flatnonzero(result.circuit.sources.kind != KINDS.index("R"))
    return plot_of(title, of_sweep(result, sources=given), (*first, result.values[:, 0]))


def _columns(names: Sequence[str], values: Floats) -> dict[str, list[float | None]]:
    return {name: numbers(values[:, k]) for k, name in enumerate(names)}
