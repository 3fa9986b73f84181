"""Pictures as files: PNG, PDF or SVG, written completely or not at all, the same picture always with the same bytes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from circuitsim.errors import SettingsError
from circuitsim.io.files import check_target, replacing
from circuitsim.plot.style import need_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
_NO_DATE = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def check_picture(path: Path, option: str) -> None:
    """Raise, before any work is done for it, SettingsError for a name of no picture, or a place that cannot be written;
    BackendUnavailable without matplotlib. `option`: what gave the name.
    """
    if _format(path) not in FORMATS:
        raise SettingsError(f"{option} {path}: the name must end in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}")
    check_target(path)
    need_matplotlib()


def write_picture(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure to the file `path`, whose name gives the format. SettingsError when it cannot be written."""
    from matplotlib import rc_context

    kind = _format(path)
    look = rc_context({"svg.fonttype": "none", "svg.hashsalt": "circuitsim"})
    with replacing(path, "wb") as out, look, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in letters that the font lacks
        figure.savefig(out, format=kind, dpi=dpi, metadata=_NO_DATE[kind])


def _format(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
