"""Sweeps and Monte Carlo runs as data: a JSON object, CSV lines, an npz file, plots for a raw file.

Nodes and sources are those of io/output.py; every point has a status, and NaN (JSON: null) where it has no answer.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import KINDS
from circuitsim.io.files import replacing
from circuitsim.io.output import MOST_NUMBERS
from circuitsim.io.raw import Plot
from circuitsim.solution import Status
from circuitsim.sweeping import SweepResult

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STATISTICS = ("mean", "std", "min", "max")
_CSV_POINTS = 10_000  # turned into text at a time
_RAW_NAMES = {
    "V": ("v(v-sweep)", "voltage"), "I": ("i(i-sweep)", "current"), "R": ("res-sweep", "res-sweep"),
    "temp": ("temp-sweep", "temp-sweep"), "param": ("param-sweep", "param-sweep"),
}  # fmt: skip


def chosen_nodes(result: SweepResult) -> Ints:
    """The nodes of `.output`, or all but ground without one."""
    outputs = np.array(result.circuit.netlist.outputs, np.int64)
    return outputs if outputs.size else np.arange(1, len(result.circuit.nodes))


def node_names(result: SweepResult, nodes: Ints) -> list[str]:
    """Names of nodes."""
    return [result.circuit.nodes[k] for k in nodes.tolist()]


def statistics(result: SweepResult, nodes: Ints) -> Floats:
    """For each node the STATISTICS of its voltage over the solved points, (nodes, 4), V; std is the sample's."""
    v = result.voltages[np.ix_(result.statuses == Status.SOLVED.name, nodes)]
    if not v.size:
        return np.full((nodes.size, len(STATISTICS)), np.nan)
    std = v.std(axis=0, ddof=1) if v.shape[0] > 1 else np.zeros(nodes.size)
    return np.stack([v.mean(axis=0), std, v.min(axis=0), v.max(axis=0)], axis=1)


def sweep_object(
    results: Sequence[SweepResult], warnings: Sequence[str], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The JSON object of `circuitsim sweep --json`: `plots`, one for each .dc card, or one for Monte Carlo.

    Beyond 1e6 numbers a plot has the voltages of the `.output` nodes only, or none, and no currents; a warning says so.
    """
    warnings = list(warnings)
    plots = [_plot_object(result, warnings) for result in results]
    failed = any(result.failed.size for result in results)
    return {"status": "FAILED" if failed else "SOLVED", "plots": plots, "seconds": dict(seconds), "warnings": warnings}


def _plot_object(result: SweepResult, warnings: list[str]) -> dict[str, Any]:
    count = result.values.shape[0]
    nodes = np.arange(1, len(result.circuit.nodes))
    sources = _source_names(result)
    if nodes.size * count > MOST_NUMBERS:
        nodes = np.array(result.circuit.netlist.outputs, np.int64)
        nodes = nodes if nodes.size * count <= MOST_NUMBERS else nodes[:0]
        warnings.append(
            f"voltages: more than {MOST_NUMBERS:,} numbers: "
            f"{'only those of the .output nodes' if nodes.size else 'none'} are given; --npz gives all"
        )
    if len(sources) * count > MOST_NUMBERS:
        sources = []
        warnings.append(f"currents: more than {MOST_NUMBERS:,} numbers: none are given; --npz gives all")
    plot: dict[str, Any] = {
        "analysis": "dc" if result.swept else "monte carlo",
        "sweeps": [vars(swept) for swept in result.swept],
        "values": _columns(result.names, result.values),
        "voltages": _columns(node_names(result, nodes), result.voltages[:, nodes]),
        "currents": _columns(sources, result.currents),
        "kcl_relative": _numbers(result.kcl_relative),
        "failed": [
            {"point": k, "at": result.point(k), "status": str(result.statuses[k]), "message": result.messages[k]}
            for k in result.failed.tolist()
        ],
        "undetermined": node_names(result, np.flatnonzero(~result.determined)),
        "method": result.method,
        "why": result.why,
        "backend": result.backend,
        "dtype": result.dtype,
        "sweeps_needed": result.sweeps,
    }
    if not result.swept:
        rows = [dict(zip(STATISTICS, _numbers(row), strict=True)) for row in statistics(result, nodes)]
        plot["statistics"] = dict(zip(node_names(result, nodes), rows, strict=True))
    return plot


def write_sweep_csv(results: Sequence[SweepResult], out: IO[str]) -> None:
    """A header (swept names, nodes, `status`) and a line for each point; several plots with an empty line between.

    The nodes are those of `.output`, or all without one.
    """
    writer = csv.writer(out, lineterminator="\n")
    for k, result in enumerate(results):
        if k:
            out.write("\n")
        nodes = chosen_nodes(result)
        writer.writerow([*result.names, *node_names(result, nodes), "status"])
        for first in range(0, result.values.shape[0], _CSV_POINTS):
            rows = slice(first, first + _CSV_POINTS)
            swept = result.values[rows].tolist() if result.swept else result.values[rows].astype(np.int64).tolist()
            volts, statuses = result.voltages[rows][:, nodes].tolist(), result.statuses[rows].tolist()
            writer.writerows([*a, *b, c] for a, b, c in zip(swept, volts, statuses, strict=True))


def write_sweep_npz(results: Sequence[SweepResult], path: Path) -> None:
    """Everything as arrays, points first; the file appears whole or not at all. SettingsError if it cannot.

    swept (n,), kinds (n,), values (points, n); nodes, voltages (points, nodes); sources, currents (points, sources);
    undetermined (nodes,); statuses, kcl_relative (points,); method, why, backend, dtype, sweeps. Of several plots the
    names begin with dc1_, dc2_ ... in the order of the cards.
    """
    arrays: dict[str, Any] = {}
    for k, result in enumerate(results):
        prefix = f"dc{k + 1}_" if len(results) > 1 else ""
        nodes = np.arange(1, len(result.circuit.nodes))
        found = {
            "swept": np.array(result.names, np.str_),
            "kinds": np.array([swept.kind for swept in result.swept] or ["seed"], np.str_),
            "values": result.values,
            "nodes": np.array(node_names(result, nodes), np.str_),
            "voltages": result.voltages[:, 1:],
            "sources": np.array(_source_names(result), np.str_),
            "currents": result.currents,
            "undetermined": ~result.determined[1:],
            "statuses": result.statuses,
            "kcl_relative": result.kcl_relative,
            "method": result.method,
            "why": result.why,
            "backend": result.backend,
            "dtype": result.dtype,
            "sweeps": result.sweeps,
        }
        arrays |= {prefix + name: array for name, array in found.items()}
    with replacing(path, "wb") as out:
        np.savez(out, **arrays)


def sweep_plot(result: SweepResult) -> Plot:
    """A plot as ngspice writes it: the first swept quantity, all nodes, the currents of V and L elements.

    ngspice has no parameter sweeps and no Monte Carlo: their first variables are `param-sweep` and `seed`.
    """
    circuit = result.circuit
    first, name = ("seed", "notype"), "Monte Carlo"
    if result.swept:
        first, name = _RAW_NAMES[result.swept[0].kind], "DC transfer characteristic"
    ties = np.flatnonzero(circuit.ties.kind != KINDS.index("R"))
    sources = _source_names(result)
    variables = (
        first,
        *((f"v({node.lower()})", "voltage") for node in circuit.nodes[1:]),
        *((f"i({sources[k].lower()})", "current") for k in ties.tolist()),
    )
    values = np.concatenate([result.values[:, :1], result.voltages[:, 1:], result.currents[:, ties]], axis=1)
    return Plot(name, variables, values)


def _source_names(result: SweepResult) -> list[str]:
    ties = result.circuit.ties
    return [result.circuit.element(ties, k) for k in range(len(ties))]


def _columns(names: Sequence[str], values: Floats) -> dict[str, list[float | None]]:
    return {name: _numbers(values[:, k]) for k, name in enumerate(names)}


def _numbers(values: Floats) -> list[float | None]:
    """Without NaN and infinity, which JSON lacks."""
    return values.tolist() if np.isfinite(values).all() else [x if np.isfinite(x) else None for x in values.tolist()]
