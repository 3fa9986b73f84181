"""Pictures of solutions, with matplotlib: a circuit as a graph, crossbars as maps, layered networks, sweeps, training.

The graph of a large circuit is aggregated, so that size makes no picture slow or unreadable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from circuitsim.errors import SettingsError, whole
from circuitsim.plot import crossbars, field, graph, layers, style, sweeps
from circuitsim.plot.elements import count_elements
from circuitsim.shapes import Shapes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuitsim.circuit import Circuit
    from circuitsim.solution import Solution
    from circuitsim.sweeping import SweepResult

KINDS = ("auto", "graph", "crossbar", "layers")  # of an operating point
_MOST_OF = 0.5  # share of a circuit's nodes in crossbars above which the crossbars are drawn
_MOST_TITLE = 110


def solution_figure(solution: Solution, kind: str = "auto", row: int = 0) -> Figure:
    """See Solution.plot."""
    if kind not in KINDS:
        raise SettingsError(f"unknown kind of picture '{kind}': choose {', '.join(KINDS)}")
    if not 0 <= whole("row", row) < solution.batch:
        raise SettingsError(f"no row {row}: the batch has {solution.batch}, counted from 0")
    style.need_matplotlib()
    _check_nodes(solution.circuit)
    title = title_of(solution.circuit.netlist.title)
    if not solution.solved:
        title += f"\nnot solved: {solution.message}"
    if solution.batch > 1:
        title += f"\nrow {row} of {solution.batch:,}"
    shapes = Shapes(solution.circuit)
    if kind == "layers" or (kind == "auto" and len(shapes.layers) > 2):
        return layers.draw(solution, row, title, shapes.layers)
    if kind in ("auto", "crossbar"):
        maps = crossbars.find_maps(solution, row, shapes)
        if kind == "crossbar" or sum(one.nodes for one in maps) > _MOST_OF * len(solution.circuit.nodes):
            return crossbars.draw(solution, row, title, maps)
    small = len(solution.circuit.nodes) <= graph.MOST_NODES and count_elements(solution) <= graph.MOST_ELEMENTS
    return (graph if small else field).draw(solution, row, title, shapes)


def sweep_figure(result: SweepResult) -> Figure:
    """See SweepResult.plot."""
    style.need_matplotlib()
    _check_nodes(result.circuit)
    return sweeps.draw(result, title_of(result.circuit.netlist.title))


def _check_nodes(circuit: Circuit) -> None:
    if len(circuit.nodes) < 2:
        raise SettingsError(f"{circuit.netlist.path} has no node but ground: there is nothing to draw")


def title_of(text: str) -> str:
    """The title of a netlist for a picture: one line, not too long."""
    return style.shortened(" ".join(text.split()), _MOST_TITLE)
