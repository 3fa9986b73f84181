"""A layered network, as deep resistive networks are: its input as an image, the voltages of each layer, its outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import SettingsError
from circuitsim.heat import block_means, block_of
from circuitsim.plot import style
from circuitsim.plot.elements import conducting
from circuitsim.shapes import span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_IMAGES = {784: 28, 1568: 28}  # inputs that are an image, or an image and its negative: pixels of a side
_MOST_BARS = 40  # nodes of a layer that are drawn as bars
_MOST_SIDE = 300  # places along a side of a map: more are averaged


def draw(solution: Solution, row: int, title: str, layers: list[Ints]) -> Figure:
    """A column for each layer: its voltages by node, and below how they are spread."""
    if len(layers) < 2:
        raise SettingsError("this circuit has no layers: its crossbars do not form a chain")
    circuit = solution.circuit
    diodes = circuit.netlist.tables["D"]
    state = conducting(solution, row)
    figure = style.new_figure(max(3.6 * len(layers), 8), 6.4, title)
    axes = figure.subplots(2, len(layers), squeeze=False, height_ratios=(2, 1))
    for k, nodes in enumerate(layers):
        v = solution.voltages(nodes, slice(row, row + 1))[0]
        at_layer = np.isin(diodes.a, nodes) | np.isin(diodes.b, nodes)
        what = ("inputs", "hidden layer", "outputs")[(k > 0) + (k == len(layers) - 1)]
        lines = [f"{what}: {span(circuit.nodes, nodes)}"]
        if at_layer.any():
            lines.append(f"{state[at_layer].sum():,} of {at_layer.sum():,} diodes conduct")
        top, below = axes[0, k], axes[1, k]
        if k == 0 and v.size in _IMAGES:
            side = _IMAGES[v.size]
            lines.append("as an image" if v.size == side * side else "the positive half, as an image")
            _show(figure, top, v[: side * side].reshape(side, side))
        elif v.size <= _MOST_BARS:
            _bars(top, v, [circuit.nodes[n] for n in nodes.tolist()], k == len(layers) - 1)
        else:
            width = math.ceil(math.sqrt(v.size))
            lines.append(f"in deck order, {width} to a line")
            padded = np.full(width * math.ceil(v.size / width), np.nan)
            padded[: v.size] = v
            _show(figure, top, padded.reshape(-1, width))
        top.set_title(style.plain("\n".join(lines)), fontsize=9)
        if v.size <= _MOST_BARS:
            below.set_axis_off()
            continue
        below.hist(v[np.isfinite(v)], bins=style.bins(v[np.isfinite(v)], 40), color=style.BLUE, gid=f"spread {k}")
        below.set(yscale="log", ylabel="nodes" if k == 0 else "")
        below.set_ylim(bottom=0.8)
        style.unit_axis(below.xaxis, "voltage", "V", v)
        below.grid(alpha=0.3)
    return figure


def _show(figure: Figure, axes: Axes, values: Floats) -> None:
    """Voltages as an image."""
    side = max(block_of(values.shape, _MOST_SIDE))
    values = block_means(values, (side, side))
    cmap, norm = style.value_colours(values)
    image = axes.imshow(values, cmap=cmap, norm=norm, interpolation="nearest")
    image.set_gid("voltages")
    axes.set(xticks=[], yticks=[])
    style.colour_bar(figure, image, axes, "voltage", "V", fraction=0.046, pad=0.02)


def _bars(axes: Axes, v: Floats, names: list[str], last: bool) -> None:
    """Voltages as bars from the top down; of outputs the largest has a colour of its own."""
    best = int(np.nanargmax(v)) if last and np.isfinite(v).any() else -1
    colours = [style.VERMILION if k == best else style.BLUE for k in range(v.size)]
    axes.barh(range(v.size), np.nan_to_num(v), color=colours, gid="voltages")
    axes.set_yticks(range(v.size), [style.plain(style.shortened(name, 12)) for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    style.unit_axis(axes.xaxis, "voltage", "V", v)
    axes.grid(alpha=0.3, axis="x")
