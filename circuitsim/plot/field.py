"""A large circuit, aggregated: voltages and currents as maps over the node positions, the flow, histograms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.layout import layout
from circuitsim.plot import style
from circuitsim.plot.elements import Elements, elements_of
from circuitsim.shapes import Shapes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuitsim.solution import Solution

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CELLS, _ARROWS = 180, 22  # along the longer side of the maps
_MOST_CELLS = 2_000_000  # conductances of crossbars that are drawn one by one
_BARS = 60  # of a histogram
_LOG = 30.0  # ratio of the largest to the smallest current above which the axis is logarithmic
_DECADES = 9  # of currents below the largest that the histogram shows


def draw(solution: Solution, row: int, title: str, shapes: Shapes) -> Figure:
    """The picture of a circuit of any size."""
    circuit = solution.circuit
    cells = sum(int(np.count_nonzero(x.g)) for x in circuit.crossbars)
    elements = elements_of(solution, row, crossbars=cells <= _MOST_CELLS)
    at, v = layout(circuit, shapes)[1:], solution.voltages(rows=slice(row, row + 1))[0][1:]
    low, high = at.min(axis=0) - 0.5, at.max(axis=0) + 0.5
    size = float((high - low).max())
    figure = style.new_figure(13, 9.5, title)
    ((voltage, current), (volts, amperes)) = figure.subplots(2, 2, height_ratios=(2.2, 1))
    shape = np.maximum(1, np.ceil((high - low) / size * min(_CELLS, np.sqrt(len(at)) * 1.5))).astype(int)
    mean = _means(at, v, low, high, shape)
    cmap, norm = style.value_colours(v)
    box = (low[0], high[0], low[1], high[1])
    image = voltage.imshow(
        mean, extent=box, origin="lower", cmap=cmap.with_extremes(bad="white"), norm=norm, interpolation="nearest"
    )
    image.set_gid("voltage map")
    voltage.set_title(f"mean voltage: {len(at):,} nodes in {np.isfinite(mean).sum():,} cells", fontsize=10)
    style.colour_bar(figure, image, voltage, "node voltage", "V", fraction=0.04, pad=0.01)
    _flow(figure, current, at, elements, low, high, shape)
    for axes in (voltage, current):
        style.no_axes(axes)
    _voltage_histogram(volts, v)
    _current_histogram(amperes, elements)
    if cells > _MOST_CELLS:
        current.text(0.5, -0.02, f"without the {cells:,} conductances of crossbars", ha="center", va="top",
                     transform=current.transAxes, fontsize=8, color=style.GREY)  # fmt: skip
    return figure


def _bins(at: Floats, low: Floats, high: Floats, shape: Ints) -> Ints:
    """The cell of each point, counted along x, then y."""
    k = ((at - low) / (high - low) * shape).astype(np.int64).clip(0, shape - 1)
    return k[:, 1] * shape[0] + k[:, 0]


def _means(at: Floats, values: Floats, low: Floats, high: Floats, shape: Ints) -> Floats:
    """The mean of the finite values in each cell, (ny, nx); NaN without any."""
    good = np.isfinite(values)
    where, count = _bins(at[good], low, high, shape), int(shape.prod())
    with np.errstate(invalid="ignore"):
        mean = np.bincount(where, values[good], count) / np.bincount(where, minlength=count)
    return mean.reshape(shape[::-1])


def _flow(figure: Figure, axes: Axes, at: Floats, elements: Elements, low: Floats, high: Floats, shape: Ints) -> None:
    """A map of the mean current of the elements in each cell; arrows: their currents in coarser cells, as vectors."""
    from matplotlib.colors import Normalize

    grounded = (elements.a == 0) | (elements.b == 0)
    start, stop = (np.where(end == 0, other, end) - 1 for end, other in
                   ((elements.a, elements.b), (elements.b, elements.a)))  # fmt: skip
    seen = (start >= 0) & np.isfinite(elements.current)
    start, stop, grounded = start[seen], stop[seen], grounded[seen]
    current = elements.current[seen]
    middle = (at[start] + at[stop]) / 2
    mean = _means(middle, np.abs(current), low, high, shape)
    top = float(np.nanpercentile(mean, 99.5)) if np.isfinite(mean).any() else 0.0
    image = axes.imshow(
        mean, extent=(low[0], high[0], low[1], high[1]), origin="lower", norm=Normalize(0, top or 1.0),
        cmap=style.strengths().with_extremes(bad="white"), interpolation="nearest",
    )  # fmt: skip
    image.set_gid("current map")
    axes.set_title(f"mean current: {len(elements):,} elements; arrows: the flow", fontsize=10)
    style.colour_bar(figure, image, axes, "current of an element", "A", fraction=0.04, pad=0.01, extend="max")
    coarse = np.maximum(1, np.round(shape / shape.max() * _ARROWS)).astype(int)
    way = at[stop] - at[start]
    near = ~grounded & (np.abs(way) < 2 * (high - low) / coarse).all(axis=1)
    where, count = _bins(middle[near], low, high, coarse), int(coarse.prod())
    flow = np.stack([np.bincount(where, current[near] * way[near, k], count) for k in (0, 1)], axis=1)
    length = np.hypot(*flow.T)
    if not length.any():
        return
    shown = length > 0.02 * length.max()
    y, x = np.divmod(np.flatnonzero(shown), coarse[0])
    spots = low + (np.stack([x, y], axis=1) + 0.5) / coarse * (high - low)
    cell = float(((high - low) / coarse).min())
    arrows = flow[shown] / length.max() ** 0.5 / length[shown, None] ** 0.5 * cell  # lengths: roots of the flow
    quiver = axes.quiver(
        *spots.T, *arrows.T, angles="xy", scale_units="xy", scale=1.0, pivot="mid", color=style.BLUE, width=0.0035,
        edgecolor="white", linewidth=0.4,
    )  # fmt: skip
    quiver.set_gid("flow")


def _voltage_histogram(axes: Axes, v: Floats) -> None:
    found = v[np.isfinite(v)]
    axes.hist(found, bins=style.bins(found, _BARS), color=style.BLUE, gid="voltages")
    axes.set(yscale="log", ylabel="nodes")
    axes.set_ylim(bottom=0.8)
    style.unit_axis(axes.xaxis, "node voltage", "V", found)
    axes.grid(alpha=0.3)


def _current_histogram(axes: Axes, elements: Elements) -> None:
    """How many elements carry how much; beside it how many diodes conduct."""
    size = np.abs(elements.current[np.isfinite(elements.current)])
    most = style.largest(size)
    none = int((size <= most * 10.0**-_DECADES).sum())
    if not most:
        style.note(axes, "no current flows")
        return
    size = size[size > most * 10.0**-_DECADES]
    wide = most > _LOG * size.min()
    low, high = np.log10(size.min()) - 0.01, np.log10(most) + 0.01
    bins = np.logspace(low, high, _BARS).tolist() if wide else style.bins(size, _BARS)
    axes.hist(size, bins=bins, color=style.ORANGE, gid="currents")
    axes.set(xscale="log" if wide else "linear", yscale="log", ylabel="elements")
    axes.set_ylim(bottom=0.8)
    style.unit_axis(axes.xaxis, "current of an element", "A", size)
    axes.grid(alpha=0.3)
    lines = [f"without {none:,} that carry almost no current"] if none else []
    diodes = elements.kind == "D"
    if diodes.any():
        lines.append(f"{elements.conducts[diodes].sum():,} of {diodes.sum():,} diodes conduct")
    axes.set_title("; ".join(lines), fontsize=10)
