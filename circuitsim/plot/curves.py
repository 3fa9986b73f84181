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
TEST_COST = "test_cost"  # drawn where it is there
_PARTS = {"test": "-", "train": "--"}
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
            found[TEST_COST] = [float(row.get(TEST_COST) or math.nan) for row in rows]
    except FileNotFoundError:
        runs = sorted([*path.glob(f"*/{METRICS}"), *path.glob(f"*/*/{METRICS}")])  # as in the folder of a study
        cure = f"; there are runs in it: name their folders, {runs[0].parent} ..." if runs else ""
        raise SettingsError(f"no such file: {file}; a training run leaves it in its folder{cure}") from None
    except KeyError as error:
        raise SettingsError(f"{file}: no column {error}; the metrics of a run have {', '.join(COLUMNS)}") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise SettingsError(f"{file}: not the metrics of a training run: {error}") from None
    if not rows:
        raise SettingsError(f"{file}: no epoch in it yet")
    return found


def draw(runs: Mapping[str, Curves], title: str, expected: Mapping[str, float] | None = None) -> Figure:
    """Errors, and cost, over the epochs of each run by name; `expected` errors (train, test) are thin lines.

    Where no run has classes there are no errors, and no panel for them.
    """
    classes = any(math.isfinite(x) for c in runs.values() for part in _PARTS for x in c[f"{part}_error"])
    figure = style.new_figure(10 if classes else 5.5, 4.4, title)
    shown = ["error", "cost"] if classes else ["cost"]
    for what, axes in zip(shown, figure.subplots(1, len(shown), squeeze=False)[0], strict=True):
        drawn: list[float] = []
        for k, (name, curves) in enumerate(runs.items()):
            colours = (style.LINES[k % len(style.LINES)],) * 2 if len(runs) > 1 else (style.BLUE, style.ORANGE)
            label = style.plain(f"{name}: " if len(runs) > 1 else "")
            few = {"marker": "o", "markersize": 3} if len(curves["epoch"]) <= 60 else {}
            for (part, line), colour in zip(_PARTS.items(), colours, strict=True):
                values = curves.get(f"{part}_{what}", [math.nan])
                if math.isnan(values[-1]):
                    continue
                last = f"{values[-1]:.2f} %" if what == "error" else f"{values[-1]:.3g} V²"
                text = f"{label}{part}, last {last}"
                axes.plot(curves["epoch"], values, color=colour, linestyle=line, label=text, **few)
                drawn += values
        for part, colour in zip(_PARTS, (style.BLUE, style.ORANGE), strict=True):
            if what == "error" and expected and part in expected:
                text = f"expected {part} error"
                axes.axhline(expected[part], color=colour, linestyle=":", linewidth=1.2, label=text)
        _finish(axes, "error (%)" if what == "error" else "cost (V²)", drawn)
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
