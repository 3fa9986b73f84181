"""Crossbars as heat maps: conductance, current and power of every cell, and the voltages that reach it.

A crossbar is an element array with two ranges, whose wires are ideal; or two grids of nodes, with wires along the rows
of one and the columns of the other, and a cell between every two nodes of the same numbers. In large crossbars, blocks
of cells are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import SettingsError
from circuitsim.heat import block_means, block_of, crossbar_map
from circuitsim.plot import style
from circuitsim.plot.elements import Elements, elements_of
from circuitsim.shapes import Grid, Shapes, span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_SHOWN = 4  # crossbars in one picture
MOST_LINES = 400  # rows and columns of a map: more are averaged
_WIRES = 0.9  # share of the branches within a grid along its rows (or columns) above which these are wires


@dataclass(frozen=True)
class Map:
    """A crossbar as it is drawn: arrays of (rows, cols) blocks of `block` cells each, means over their cells."""

    name: str
    nodes: int  # of its wires and cells
    rows: str  # what the rows are
    cols: str
    shape: tuple[int, int]  # cells
    block: tuple[int, int]
    g: Floats  # S, of its resistors; where not all are in parallel, current / voltage; 0: no resistor; NaN: undefined
    current: Floats  # A, from row to column
    power: Floats  # W
    row_volts: Floats  # V at the cell, on its row's wire
    col_volts: Floats
    lost: Floats | None  # V that drop along row and column wire (_lost); None: the wires have no resistance


def find_maps(solution: Solution, row: int, shapes: Shapes) -> list[Map]:
    """The crossbars of a circuit, in deck order: element arrays first, then grids of wires; [] without any."""
    circuit = solution.circuit
    named = [x.name for x in circuit.crossbars if min(x.g.shape) > 1]
    if named:
        return [_of_array(solution, row, name) for name in named[:MOST_SHOWN]]
    found: list[Map] = []
    elements: Elements | None = None
    for stack in shapes.grids:
        if len(stack) > 1 and len({grid.nodes.shape for grid in stack}) == 1:
            elements = elements or elements_of(solution, row, crossbars=False)
            of_wires = _of_wires(solution, row, stack, elements)
            found += [of_wires] if of_wires else []
    return found[:MOST_SHOWN]


def draw(solution: Solution, row: int, title: str, maps: list[Map]) -> Figure:
    """A line of maps for each crossbar; of a single one, a second line with the voltages."""
    if not maps:
        raise SettingsError("no crossbar in this circuit: neither an array with two ranges, nor two grids of wires")
    many = len(maps) > 1
    rows = len(maps) if many else 2
    figure = style.new_figure(14, 4.2 * rows + 0.4, title)
    axes = figure.subplots(rows, 3, squeeze=False)
    for k, one in enumerate(maps):
        fields = [("conductance", "S", one.g), ("current, row to column", "A", one.current), ("power", "W", one.power)]
        if not many:
            fields += [
                ("voltage of the row wires", "V", one.row_volts),
                ("voltage of the column wires", "V", one.col_volts),
                ("voltage across the cells", "V", one.row_volts - one.col_volts)
                if one.lost is None
                else ("lost in the wires", "V", one.lost),
            ]
        for place, (what, unit, values) in zip(axes.flat if not many else axes[k], fields, strict=True):
            shown = np.where(np.isnan(one.g) | (one.g != 0), values, np.nan) if unit != "V" else values
            cmap, norm = style.value_colours(shown)
            image = place.imshow(
                shown, cmap=cmap, norm=norm, aspect="auto", interpolation="nearest",
                extent=(-0.5, one.shape[1] - 0.5, one.shape[0] - 0.5, -0.5),
            )  # fmt: skip
            image.set_gid(f"{one.name}: {what}")
            place.set_title(style.plain(f"{one.name}: {what}" if many else what), fontsize=10)
            place.set_xlabel(style.plain(one.cols))
            place.set_ylabel(style.plain(one.rows))
            for axis in (place.xaxis, place.yaxis):
                axis.get_major_locator().set_params(integer=True, min_n_ticks=1, nbins=5)
            style.colour_bar(figure, image, place, what.split(",")[0].split(" of ")[0], unit, fraction=0.05, pad=0.02)
    notes = [
        f"{one.name}: {one.shape[0]:,} x {one.shape[1]:,} cells"
        + (f", means of {one.block[0]} x {one.block[1]}" if max(one.block) > 1 else "")
        for one in maps
    ]
    more = sum(min(x.g.shape) > 1 for x in solution.circuit.crossbars) - len(maps)
    notes += [f"{more} more crossbars are not shown"] if more > 0 else []
    figure.supxlabel(style.plain("; ".join(notes) + "; grey: no resistor"), fontsize=9, color=style.GREY)
    return figure


def _of_array(solution: Solution, row: int, name: str) -> Map:
    """An array with two ranges; its wires have no resistance."""
    circuit = solution.circuit
    x = next(x for x in circuit.crossbars if x.name == name)
    v = solution.voltages(rows=slice(row, row + 1))[0]
    shape = x.g.shape
    block = block_of(shape, MOST_LINES)
    g, current, power = (crossbar_map(x, v, quantity, block) for quantity in ("conductance", "current", "power"))
    row_volts, col_volts = block_means(v[x.rows, None], (block[0], 1)), block_means(v[None, x.cols], (1, block[1]))
    return Map(
        name=name,
        nodes=np.union1d(x.rows, x.cols).size,
        rows=f"row: {span(circuit.nodes, x.rows)}",
        cols=f"column: {span(circuit.nodes, x.cols)}",
        shape=(shape[0], shape[1]),
        block=block,
        g=g,
        current=current,
        power=power,
        row_volts=np.broadcast_to(row_volts, g.shape),
        col_volts=np.broadcast_to(col_volts, g.shape),
        lost=None,
    )


def _of_wires(solution: Solution, row: int, stack: list[Grid], elements: Elements) -> Map | None:
    """Two grids of wires with cells between them, and perhaps nodes in the middle of the cells; None elsewhere."""
    n, shape = len(solution.circuit.nodes), stack[0].nodes.shape
    family, place = np.full(n, -1), np.full(n, -1)
    for k, grid in enumerate(stack):
        there = grid.nodes >= 0
        family[grid.nodes[there]], place[grid.nodes[there]] = k, np.flatnonzero(there.ravel())
    a, b = elements.a, elements.b
    inside = (family[a] >= 0) & (family[a] == family[b])
    along = [place[a] // shape[1] == place[b] // shape[1], place[a] % shape[1] == place[b] % shape[1]]
    ends: list[int | None] = [None, None]
    for k in range(len(stack)):
        own = inside & (family[a] == k)
        for way in (0, 1):
            if own.any() and (own & along[way]).sum() > _WIRES * own.sum():
                ends[way] = k
    first, last = ends
    if first is None or last is None or first == last:
        return None
    cell = (family[a] >= 0) & (family[b] >= 0) & (family[a] != family[b]) & (place[a] == place[b])
    v = solution.voltages(rows=slice(row, row + 1))[0]
    out = np.where(family[a] == first, elements.current, -elements.current)  # from the row's wire into the cell
    at_row = cell & ((family[a] == first) | (family[b] == first))
    count = shape[0] * shape[1]
    current = np.bincount(place[a][at_row], out[at_row], count)
    power = np.bincount(place[a][cell], (elements.current * (v[a] - v[b]))[cell], count)
    volts = [np.where(stack[k].nodes >= 0, v[stack[k].nodes], np.nan) for k in (first, last)]
    across = (volts[0] - volts[1]).ravel()
    resistor = cell & (elements.kind == "R")
    g = np.bincount(place[a][resistor], solution.circuit.element_values("R")[elements.number[resistor]], count)
    direct = np.isin(family[a], (first, last)) & np.isin(family[b], (first, last))
    resistors, in_series = (np.bincount(place[a][some], minlength=count) for some in (resistor, resistor & ~direct))
    several = (resistors > 1) & (in_series > 0)
    g[several] = np.divide(current, across, out=np.full(count, np.nan), where=across != 0)[several]
    lost = _lost(*volts)
    block = block_of(shape, MOST_LINES)
    fields = [block_means(x.reshape(shape), block) for x in (g, current, power, *volts, lost)]
    names = [stack[k].prefix.rstrip("[_.") or stack[k].prefix for k in (first, last)]  # w[ of w[3][4]
    nodes = sum(int((grid.nodes >= 0).sum()) for grid in stack)
    return Map(
        f"{names[0]} x {names[1]}", nodes, f"row wire: {names[0]}", f"column wire: {names[1]}", (shape[0], shape[1]),
        block, *fields,
    )  # fmt: skip


def _lost(row_volts: Floats, col_volts: Floats) -> Floats:
    """The voltage that each cell loses to the resistance of its wires: the drops from their ends to the cell.

    Row wires end at the side of larger voltages, where they are driven, column wires at that of smaller, where they are
    read.
    """
    sides = np.nansum(np.abs(row_volts[:, [0, -1]]), axis=0)
    ends = np.nansum(np.abs(col_volts[[0, -1]]), axis=1)
    driven, read = row_volts[:, [-1 if sides[1] > sides[0] else 0]], col_volts[[-1 if ends[1] < ends[0] else 0]]
    return (driven - row_volts) + (col_volts - read)
