"""The numbers of a solution for what is drawn, as lists for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import VALUE_OF, Crossbar
from circuitsim.circuit import Circuit
from circuitsim.currents import table_currents
from circuitsim.heat import block_means, block_of
from circuitsim.io.output import number, numbers
from circuitsim.solution import Solution
from circuitsim.view.scene import Scene

Floats = NDArray[np.float64]

OVERFLOWS = np.errstate(over="ignore", invalid="ignore")  # what is no number is shown as unknown
CELLS = 160  # of an image's side, at most
_MOST_WORK = 20_000_000  # conductances of a crossbar up to which it is summed for each answer


@OVERFLOWS
def scene_values(solution: Solution, scene: Scene) -> dict[str, Any]:
    """Of each vertex its voltage, of a group the lowest, mean and highest, of a crossbar the power that it absorbs;

    of each edge voltage, current, power and value; of each wire the current into the crossbar, A.
    """
    v = solution.voltages()[0]
    into = {
        vertex.key: _into_crossbar(solution.circuit.crossbars[vertex.key], v)
        for vertex in scene.vertices
        if vertex.kind == "crossbar"
    }
    vertices: list[Any] = []
    for vertex in scene.vertices:
        if vertex.kind == "crossbar":
            vertices.append(number(float(into[vertex.key] @ np.where(np.isfinite(v), v, 0.0))))
        elif vertex.kind == "group":
            own = v[vertex.nodes]
            vertices.append([number(own.min()), number(own.mean()), number(own.max())])
        else:
            vertices.append(number(v[vertex.nodes[0]]))
    wires = [number(into[scene.vertices[k].key][scene.vertices[end].nodes].sum()) for k, end in scene.wires]
    return {"vertices": vertices, "edges": _edge_values(solution, scene), "wires": wires}


def _edge_values(solution: Solution, scene: Scene) -> list[list[float | None]]:
    """[volts, amperes, watts, value]; of several members the mean of volts and values, the sum of the others."""
    c = solution.circuit
    found = np.full((len(scene.edges), 4), np.nan)
    for kind in {edge.kind for edge in scene.edges}:
        own = [k for k, edge in enumerate(scene.edges) if edge.kind == kind]
        sizes = np.array([scene.edges[k].rows.size for k in own])
        rows = np.concatenate([scene.edges[k].rows for k in own])
        table = c.netlist.tables[kind]
        volts = solution.drops(table.a[rows], table.b[rows])[0]
        amperes = table_currents(solution, kind, rows)[0]
        value = element_values(c, kind)[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        for column, x in enumerate((volts, amperes, volts * amperes, value)):
            found[own, column] = np.add.reduceat(x, starts)
        found[np.ix_(own, [0, 3])] /= sizes[:, None]
    return [[number(x) for x in row] for row in found.tolist()]


def _into_crossbar(x: Crossbar, v: Floats) -> Floats:
    """Current of each node into a crossbar, A; NaN where that is too much work."""
    into = np.zeros(v.size)
    if x.g.size > _MOST_WORK:
        return np.full(v.size, np.nan)
    np.add.at(into, x.rows, v[x.rows] * x.g.sum(axis=1) - x.g @ v[x.cols])
    np.add.at(into, x.cols, v[x.cols] * x.g.sum(axis=0) - v[x.rows] @ x.g)
    return into


def strip(v: Floats, side: int) -> dict[str, Any]:
    """Values in rows of `side`, with empty cells at the end, binned to at most CELLS x CELLS."""
    rows = -(-v.size // max(side, 1)) if v.size else 0
    padded = np.full(rows * side, np.nan)
    padded[: v.size] = v
    blocks = block_of((rows, side), CELLS)
    image = block_means(padded.reshape(rows, side), blocks)
    return {
        "rows": image.shape[0],
        "cols": image.shape[1],
        "blocks": blocks,
        "width": side,
        "values": numbers(image.ravel(), 6),
    }


def element_values(circuit: Circuit, kind: str) -> Floats:
    """What an element of a kind has as its value now: V, A, ohm, gain; NaN where it has none."""
    if kind not in VALUE_OF:
        return np.full(len(circuit.netlist.tables[kind]), np.nan)
    return circuit.resistor_ohms if kind == "R" else circuit.element_values(kind)


def short(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + " ..."
