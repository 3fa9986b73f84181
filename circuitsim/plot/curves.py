"""Training curves: errors and cost over the epochs of one run or several, from their metrics.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from circuitsim.errors import SettingsError
from circuitsim.plot import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = "metrics.csv"
COLUMNS = ("epoch", "train_cost", "train_error", "test_error")  # what is drawn; others may be there
Curves = Mapping[str, Sequence[float]]  # COLUMNS -> a number for each epoch


def is_metrics(path: Path) -> bool:
    """Whether a path is a folder of a training run, or its metrics.csv, rather than a netlist."""
    return path.is_dir() or path.suffix.lower() == ".csv"


def read_curves(path: Path) -> Curves:
    """The metrics of a run: its folder, or the file. SettingsError when it cannot be read or holds no epoch."""
    file = path / METRICS if path.is_dir() else path
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
            found = {name: [float(row[name]) for row in rows] for name in COLUMNS}
    except FileNotFoundError:
        raise SettingsError(f"no such file: {file}; a training run leaves it in its folder") from None
    except KeyError as error:
        raise SettingsError(f"{file}: no column {error}; the metrics of a run have {', '.join(COLUMNS)}") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise SettingsError(f"{file}: not the metrics of a training run: {error}") from None
    if not rows:
        raise SettingsError(f"{file}: no epoch in it yet")
    return found


def draw(runs: Mapping[str, Curves], title: str, expected: Mapping[str, float] | None = None) -> Figure:
    """Errors, and cost, over the epochs of each run by name; `expected` errors (train, test) are thin lines."""
    figure = style.new_figure(10, 4.4, title)
    errors, cost = figure.subplots(1, 2)
    for k, (name, curves) in enumerate(runs.items()):
        colours = (style.LINES[k % len(style.LINES)],) * 2 if len(runs) > 1 else (style.BLUE, style.ORANGE)
        label = style.plain(f"{name}: " if len(runs) > 1 else "")
        few = {"marker": "o", "markersize": 3} if len(curves["epoch"]) <= 60 else {}
        for part, colour, line in (("test", colours[0], "-"), ("train", colours[1], "--")):
            values = curves[f"{part}_error"]
            text = f"{label}{part}, last {values[-1]:.2f} %"
            errors.plot(curves["epoch"], values, color=colour, linestyle=line, label=text, **few)
        cost.plot(curves["epoch"], curves["train_cost"], color=colours[0], label=style.plain(name), **few)
    for part, colour in (("test", style.BLUE), ("train", style.ORANGE)):
        if expected and part in expected:
            text = f"expected {part} error"
            errors.axhline(expected[part], color=colour, linestyle=":", linewidth=1.2, label=text)
    _finish(errors, "error (%)", [x for c in runs.values() for p in ("test", "train") for x in c[f"{p}_error"]])
    _finish(cost, "training cost (V²)", [x for c in runs.values() for x in c["train_cost"]])
    if len(runs) < 2:
        cost.get_legend().remove()
    return figure


def _finish(axes: Axes, label: str, values: Sequence[float]) -> None:
    """Whole epochs; a logarithmic scale where all values are positive."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    if all(x > 0 and math.isfinite(x) for x in values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
        if max(values) < 30 * min(values):
            axes.yaxis.set_minor_formatter(ScalarFormatter())
            axes.tick_params(axis="y", which="minor", labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel=label)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
