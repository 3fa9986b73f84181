"""What all pictures share: figures without a screen, colours that colour-blind readers can tell apart, axes with units.

Colours: Okabe and Ito's for lines and marks; the map cividis for values of one sign, PuOr around 0 for both signs.
"""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.errors import BackendUnavailable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

LINES = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#7F7F7F")
STYLES = ("-", "--", "-.", ":")
BLUE, ORANGE, VERMILION, GREY = "#0072B2", "#E69F00", "#D55E00", "#7F7F7F"
NOTHING = "#DDDDDD"  # where there is no value
_PREFIXES = {-24: "y", -21: "z", -18: "a", -15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}
_ROUNDING = 1e-12  # relative to the largest value: smaller ones, and differences, are rounding
_LETTERS = 11  # of a title, to the inch
_BOTH_SIGNS = 0.05  # ratio of the ends of a range across zero above which zero is the middle of the colours


def need_matplotlib() -> None:
    """BackendUnavailable without matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(f"pictures need matplotlib: pip install 'circuitsim[plot]' ({error})") from None


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """An empty figure of this size in inches that arranges its parts by itself. BackendUnavailable."""
    need_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        lines = [part for line in title.split("\n") for part in wrap(line, max(30, int(_LETTERS * width)))]
        figure.suptitle(plain("\n".join(lines)), fontsize=11)
    return figure


def plain(text: str) -> str:
    """A text in which no dollar sign begins a formula, and no character is one that SVG may not hold.

    >>> plain("a$b\\x1b")
    'a\\\\$b'
    """
    kept = (c if c.isprintable() or c == "\n" else " " if c.isspace() else "" for c in text)
    return "".join(kept).replace("$", r"\$")


def shortened(text: str, most: int) -> str:
    """A text cut to at most so many characters.

    >>> shortened("a long title", 8)
    'a lon...'
    """
    return text if len(text) <= most else text[: most - 3] + "..."


def prefix(largest: float) -> tuple[float, str]:
    """The engineering prefix for values up to this: its factor, its letter.

    >>> prefix(0.02), prefix(0.0), prefix(4.7e4)
    ((0.001, 'm'), (1.0, ''), (1000.0, 'k'))
    """
    if not (np.isfinite(largest) and largest > 0):
        return 1.0, ""
    power = 3 * int(np.floor(np.log10(largest * (1 + 1e-12)) / 3))
    return (10.0**power, _PREFIXES[power]) if power in _PREFIXES else (1.0, "")


def quantity(value: float, unit: str, beside: float = 0.0) -> str:
    """A value for people, three digits; 0 when it is rounding beside values as large as `beside`.

    >>> quantity(-0.00512, "A"), quantity(2e-21, "V", 5.0)
    ('-5.12 mA', '0 V')
    """
    value = 0.0 if abs(value) < _ROUNDING * beside else value
    factor, letter = prefix(abs(value))
    return f"{value / factor + 0.0:.3g} {letter}{unit}"


def unit_axis(axis: Axis, what: str, unit: str, values: ArrayLike) -> None:
    """Label an axis `what (mV)` and number it in that unit; data stay in SI units. The prefix is that of `values`."""
    from matplotlib.ticker import EngFormatter, FuncFormatter

    if axis.get_scale() == "log":
        axis.set_major_formatter(EngFormatter(unit))
        axis.set_label_text(what)
        return
    factor, letter = prefix(largest(values))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / factor + 0.0:.10g}"))
    axis.set_label_text(f"{what} ({letter}{unit})")


def largest(values: ArrayLike) -> float:
    """The largest finite absolute value; 0 without any."""
    found = np.abs(np.asarray(values, np.float64))
    found = found[np.isfinite(found)]
    return float(found.max()) if found.size else 0.0


def bins(values: Floats, count: int) -> list[float]:
    """Edges of the bars of a histogram of these finite values; values that only rounding tells apart get one bar.

    >>> bins(np.array([0.0, 2.0]), 2), bins(np.array([5.0, 5.0]), 3)
    ([0.0, 1.0, 2.0], [4.75, 5.25])
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
    if high - low <= _ROUNDING * max(-low, high):
        low, high, count = low - (0.05 * abs(low) or 0.5), high + (0.05 * abs(high) or 0.5), 1
    share = np.linspace(0, 1, count + 1)
    return (low * (1 - share) + high * share).tolist()


def value_colours(values: ArrayLike) -> tuple[Colormap, Normalize]:
    """A map and a norm for values of one sign (cividis) or of both (PuOr, 0 in the middle); NaN is grey."""
    import matplotlib
    from matplotlib.colors import Normalize

    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    both = min(-low, high) > _BOTH_SIGNS * max(-low, high)
    if both:
        low, high = -max(-low, high), max(-low, high)
    elif low == high:
        low, high = min(low, 0.0), max(high, 0.0) or (0.0 if low < 0 else 1.0)
    return matplotlib.colormaps["PuOr" if both else "cividis"].with_extremes(bad=NOTHING), Normalize(low, high)


def strengths() -> Colormap:
    """A map for magnitudes: pale for little, dark for much, so that nothing is invisible on white."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    return ListedColormap(matplotlib.colormaps["inferno_r"](np.linspace(0.2, 0.95, 256)), "strengths")


def colour_bar(figure: Figure, of: ScalarMappable, axes: Axes, what: str, unit: str, **options: Any) -> None:
    """The colours of `of` beside `axes`, with units."""
    bar = figure.colorbar(of, ax=axes, **options)
    axis = bar.ax.yaxis if bar.orientation == "vertical" else bar.ax.xaxis
    unit_axis(axis, what, unit, np.array([of.norm.vmin, of.norm.vmax], np.float64))


def no_axes(axes: Axes) -> None:
    """Axes of a drawing: equal scales, nothing around."""
    axes.set_aspect("equal")
    axes.set_axis_off()


def note(axes: Axes, text: str) -> None:
    """A text in place of a plot."""
    axes.text(0.5, 0.5, plain(text), ha="center", va="center", transform=axes.transAxes, color=GREY, wrap=True)
    axes.set_axis_off()
