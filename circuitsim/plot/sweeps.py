"""Sweeps as curves, Monte Carlo runs as histograms with mean and spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.columns import all_nodes, of_sweep
from circuitsim.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from circuitsim.sweeping import SweepResult

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_CURVES = 8  # in one plot; of more, those that vary most, and the range of all
_MOST_LINES = 6  # values of a second swept quantity that get a legend; more are a colour bar
_MOST_NESTED = 4  # quantities drawn in a sweep over two; also sources whose currents are drawn unasked
_MOST_HISTOGRAMS = 9
_X_UNITS = {"V": "V", "I": "A", "R": "Ω", "temp": "°C", "param": ""}
_NAMES = {"V": "voltage", "A": "current", "W": "power"}


@dataclass(frozen=True)
class Column:
    """Something that a sweep gives at every point."""

    name: str
    unit: str
    values: Floats  # (points,); NaN where there is no answer
    saved: bool = False  # named by .save or --save

    @property
    def spread(self) -> float:
        """Its largest value less its smallest."""
        return float(np.nan_to_num(np.nanmax(self.values) - np.nanmin(self.values))) if _known(self) else 0.0


def columns(result: SweepResult) -> list[Column]:
    """What a sweep gives: the voltages of the `.output` nodes, and what is saved.

    With neither, those of all nodes, and the currents of sources when they are few.
    """
    circuit, solved = result.circuit, result.statuses == "SOLVED"
    everything = not circuit.netlist.outputs and not result.saves
    nodes = all_nodes(circuit) if everything else np.array(circuit.netlist.read_nodes, np.int64)
    sources = np.arange(len(circuit.sources) if everything and len(circuit.sources) <= _MOST_NESTED else 0)
    found = of_sweep(result, nodes, sources)
    values = np.where(solved, found.values.T, np.nan)
    saved = {label.lower() for label in result.saved_labels}
    pairs = zip(found.names, found.units, values, strict=True)
    return [Column(name, unit, own, name.lower() in saved) for name, unit, own in pairs]


def draw(result: SweepResult, title: str) -> Figure:
    """Curves over what is swept, or histograms over the runs of a Monte Carlo analysis."""
    found = columns(result)
    count = len(result.statuses)
    if len(result.failed):
        title += f"\n{len(result.failed):,} of {count:,} points failed and are left out"
    if not result.swept:
        return _histograms(result, found, title)
    return _curves(result, found, title) if len(result.swept) == 1 else _families(result, found, title)


# -- curves ------------------------------------------------------------------------------------------------------------


def _by_unit(found: Sequence[Column]) -> dict[str, list[Column]]:
    groups: dict[str, list[Column]] = {}
    for one in found:
        groups.setdefault(one.unit, []).append(one)
    return groups


def _varying(found: Sequence[Column], most: int) -> list[Column]:
    """At most `most` of the columns: what is saved, then those that vary most of each unit, both in their order."""
    if len(found) <= most:
        return list(found)
    counts: Counter[tuple[bool, str]] = Counter()  # columns of each group
    ranked: list[tuple[bool, int, int]] = []  # not saved, rank in the group, place
    spreads = [one.spread for one in found]
    for k in sorted(range(len(found)), key=lambda k: -spreads[k]):
        group = not found[k].saved, found[k].unit
        ranked.append((group[0], counts[group], k))
        counts[group] += 1
    return [found[k] for _, k in sorted((later, k) for later, _, k in sorted(ranked)[:most])]


def _depends(one: Column, x: Floats, place: Ints) -> bool:
    """Whether the second swept quantity, whose values are numbered by `place`, changes a column anywhere."""
    _, of_x = np.unique(x, return_inverse=True)
    table = np.full((of_x.max() + 1, place.max() + 1), np.nan)
    table[of_x, place] = one.values
    table = table[np.isfinite(table).all(axis=1)]
    return bool(table.size and np.ptp(table, axis=1).max() > 0)


def _known(one: Column) -> bool:
    return bool(np.isfinite(one.values).any())


def _label_x(axes: Axes, result: SweepResult) -> None:
    swept = result.swept[0]
    unit = _X_UNITS[swept.kind]
    if unit in ("", "°C"):
        axes.set_xlabel(style.plain(f"{swept.name} ({unit})" if unit else swept.name))
    else:
        style.unit_axis(axes.xaxis, style.plain(swept.name), unit, result.values[:, 0])


def _curves(result: SweepResult, found: Sequence[Column], title: str) -> Figure:
    """One swept quantity: a plot for each unit, a line for each quantity."""
    groups = _by_unit(found)
    figure = style.new_figure(9, 1.0 + 3.6 * len(groups), title)
    plots = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    x = result.values[:, 0]
    for axes, (unit, group) in zip(plots, groups.items(), strict=True):
        shown = _varying(group, _MOST_CURVES)
        everything = np.array([one.values for one in group])
        if len(shown) < len(group) and np.isfinite(everything).any():
            known = np.isfinite(everything).any(axis=0)
            low, high = np.nanmin(everything[:, known], axis=0), np.nanmax(everything[:, known], axis=0)
            axes.fill_between(x[known], low, high, color="0.9", zorder=0, label=f"range of all {len(group):,}")
            which = "saved, or that vary most" if shown[0].saved else "that vary most"
            axes.set_title(f"the {len(shown)} of {len(group):,} {which}", fontsize=9)
        for k, one in enumerate(shown):
            axes.plot(
                x, one.values, color=style.LINES[k], linestyle=style.STYLES[k % len(style.STYLES)], linewidth=1.6,
                label=style.plain(one.name), marker="." if len(x) < 30 else None,
            )  # fmt: skip
        style.unit_axis(axes.yaxis, _NAMES.get(unit, ""), unit, everything)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _label_x(plots[-1], result)
    return figure


def _families(result: SweepResult, found: Sequence[Column], title: str) -> Figure:
    """Two swept quantities: a plot for each quantity, a line for each value of the second."""
    import matplotlib
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    outer, place = np.unique(result.values[:, 1], return_inverse=True)
    moved = [one for one in found if _depends(one, result.values[:, 0], place)] or list(found)
    shown = _varying(moved, _MOST_NESTED)
    left = len(found) - len(shown)
    if left:
        title += f"\n{left:,} more that vary less, or not with {result.swept[1].name}, are left out"
    second = result.swept[1]
    unit = _X_UNITS[second.kind]
    figure = style.new_figure(9, 1.0 + 3.2 * len(shown), title)
    plots = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    norm = Normalize(outer[0], outer[-1] if len(outer) > 1 else outer[0] + 1.0)
    colours = matplotlib.colormaps["cividis"]
    x = result.values[:, 0]
    for axes, one in zip(plots, shown, strict=True):
        rows = [np.flatnonzero(place == k) for k in range(len(outer))]
        lines = LineCollection(
            [np.stack([x[own], one.values[own]], axis=1) for own in rows], cmap=colours, norm=norm, linewidths=1.5
        )
        lines.set_array(outer)
        axes.add_collection(lines)
        axes.autoscale()
        style.unit_axis(axes.yaxis, style.plain(one.name), one.unit, one.values)
        axes.grid(alpha=0.3)
    if len(outer) <= _MOST_LINES:
        for value, colour in zip(outer, colours(norm(outer)), strict=True):
            plots[0].plot([], [], color=colour, label=style.plain(f"{second.name} = {value:.6g} {unit}".rstrip()))
        plots[0].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    else:
        figure.colorbar(lines, ax=plots, label=style.plain(f"{second.name} ({unit})" if unit else second.name))
    _label_x(plots[-1], result)
    return figure


# -- Monte Carlo -------------------------------------------------------------------------------------------------------


def _histograms(result: SweepResult, found: Sequence[Column], title: str) -> Figure:
    """How each quantity is spread: of many what is saved and the widest, and the mean and the spread of all."""
    known = [one for one in found if np.isfinite(one.values).sum() > 1 and np.ptp(one.values[np.isfinite(one.values)])]
    shown = _varying(known, _MOST_HISTOGRAMS if len(known) <= _MOST_HISTOGRAMS else _MOST_HISTOGRAMS - 3)
    fixed = len(found) - len(known)
    more = f"; {fixed:,} that no draw changes are left out" if fixed else ""
    title += f"\n{len(result.statuses):,} runs, seeds {result.values[0, 0]:.0f} to {result.values[-1, 0]:.0f}{more}"
    if not shown:
        figure = style.new_figure(8, 3, title)
        style.note(figure.add_subplot(), "no draw changes anything that is shown")
        return figure
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    overview = len(shown) < len(known)
    figure = style.new_figure(4.2 * across if across > 1 else 7, 0.8 + 2.9 * (down + overview), title)
    grid = figure.add_gridspec(down + overview, across)
    for k, one in enumerate(shown):
        _histogram(figure.add_subplot(grid[k // across, k % across]), one)
    if overview:
        groups = _by_unit(known)
        unit = max((one.unit for one in shown), key=lambda unit: len(groups[unit]))
        _spread(figure.add_subplot(grid[down, :]), groups[unit], unit)
    return figure


def _histogram(axes: Axes, one: Column) -> None:
    """A histogram with the mean, and one standard deviation to both sides."""
    values = one.values[np.isfinite(one.values)]
    mean, std = float(values.mean()), float(values.std(ddof=1))
    axes.hist(
        values, bins=style.bins(values, int(np.clip(np.sqrt(values.size), 8, 60))), color=style.LINES[5], gid="runs"
    )
    axes.axvspan(mean - std, mean + std, color=style.ORANGE, alpha=0.25, zorder=0, gid="spread")
    axes.axvline(mean, color=style.VERMILION, linewidth=1.6, gid="mean")
    spread = style.quantity(std, one.unit)
    axes.set_title(style.plain(f"{one.name}: {style.quantity(mean, one.unit)} ± {spread}"), fontsize=9)
    style.unit_axis(axes.xaxis, style.plain(one.name), one.unit, values)
    axes.locator_params(axis="x", nbins=5)
    axes.set_ylabel("runs")


def _spread(axes: Axes, known: Sequence[Column], unit: str) -> None:
    """Mean, standard deviation and range of many quantities, in their order."""
    values = np.array([one.values for one in known])
    mean, std = np.nanmean(values, axis=1), np.nanstd(values, axis=1, ddof=1)
    k = np.arange(len(known))
    axes.fill_between(
        k, np.nanmin(values, axis=1), np.nanmax(values, axis=1), color="0.85", label="smallest to largest"
    )
    axes.fill_between(k, mean - std, mean + std, color=style.ORANGE, alpha=0.6, label="mean ± standard deviation")
    axes.plot(k, mean, color=style.BLUE, linewidth=1.2, label="mean")
    style.unit_axis(axes.yaxis, _NAMES.get(unit, ""), unit, values)
    axes.set_xlabel(style.plain(f"all {len(known):,}, in deck order: {known[0].name} ... {known[-1].name}"))
    axes.margins(x=0)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
