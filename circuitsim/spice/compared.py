"""Comparisons with ngspice as tables, as a JSON object, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.text import Text

from circuitsim.io.output import number
from circuitsim.io.pictures import write_picture
from circuitsim.io.tables import new_table
from circuitsim.plot.style import new_figure
from circuitsim.solution import DEFAULT_TOL
from circuitsim.spice.compare import Comparison, Quantity, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 20
_MOST_NOTES = 20
_WORST_FIRST = (Verdict.DIFFER, Verdict.NO_ANSWER, Verdict.NO_REFERENCE, Verdict.UNTOLD, Verdict.AGREE)
_STYLES = {Verdict.AGREE: "green", Verdict.DIFFER: "bold red"}


def overall(comparisons: Sequence[Comparison]) -> Verdict:
    """What came of all points: they differ if one does, and agree only if all do."""
    found = {c.verdict for c in comparisons}
    return next(v for v in _WORST_FIRST if v in found)


def notes_of(comparisons: Sequence[Comparison]) -> list[str]:
    """The notes of all points, each once, those of a sweep behind the first point that has them."""
    found: dict[str, str] = {}
    for c in comparisons:
        for note in c.notes:
            found.setdefault(note, f"at {c.point}: " if c.point else "")
    return [place + note for note, place in found.items()]


# -- tables ------------------------------------------------------------------------------------------------------------


def print_comparison(comparisons: Sequence[Comparison], out: Console, quiet: bool = False) -> None:
    """One operating point, or the points of a sweep: the values of both, who violates KCL more, times, notes, verdict.

    If there are many values, only those that differ most, relative to what is allowed. When quiet, only the values and
    the verdict.
    """
    values = [(c.point, q) for c in comparisons for q in c.quantities]
    if len(values) > MOST_ROWS:
        values.sort(key=lambda pair: pair[1].excess, reverse=True)
    if values:
        _print_values(values[:MOST_ROWS], comparisons[0].engine, out)
    if len(values) > MOST_ROWS:
        out.print(Text(f"... and {len(values) - MOST_ROWS:,} more that differ less; --json gives all", "italic"))
    out.print()
    if not quiet:
        _print_certificates(comparisons, out)
    notes = notes_of(comparisons)
    for note in [] if quiet else notes[:_MOST_NOTES]:
        out.print(Text(f"note: {note}"))
    if len(notes) > _MOST_NOTES and not quiet:
        out.print(Text(f"... and {len(notes) - _MOST_NOTES:,} more notes; --json gives all", "italic"))
    verdict = overall(comparisons)
    compared = [q for _, q in values if q.determined and (q.telling or not q.agrees)]
    counts = f"{sum(q.agrees for q in compared):,} of {len(compared):,} values agree" if compared else ""
    if len(comparisons) > 1:
        good = sum(c.verdict is Verdict.AGREE for c in comparisons)
        counts += f"{', ' * bool(counts)}at {good:,} of {len(comparisons):,} points all do"
    out.print(
        Text.assemble("verdict: ", (verdict.value, _STYLES.get(verdict, "bold yellow")), f" ({counts})" * bool(counts))
    )


def _print_values(values: Sequence[tuple[str, Quantity]], engine: str, out: Console) -> None:
    points, marks = any(point for point, _ in values), [_mark(q) for _, q in values]
    heads = [("", False), ("circuitsim", True), (engine, True), ("difference", True), ("allowed", True)]
    if points:
        heads.insert(0, ("at", False))
    table = new_table(*heads, *([("", False)] if any(marks) else []))
    for (point, q), mark in zip(values, marks, strict=True):
        cells = [q.name, f"{q.ours + 0.0:.10g}", f"{q.theirs + 0.0:.10g}", f"{q.difference:.2g}", f"{q.allowed:.2g}"]
        table.add_row(*map(Text, ([point] if points else []) + cells + ([mark] if any(marks) else [])))
    out.print(table)


def _mark(q: Quantity) -> str:
    return "not unique" if not q.determined else "differs" if not q.agrees else "" if q.telling else "inconclusive"


def _print_certificates(comparisons: Sequence[Comparison], out: Console) -> None:
    known = [c for c in comparisons if c.quantities]
    if not known:
        return
    engine = comparisons[0].engine
    ours, theirs = (max(values) for values in zip(*((c.kcl_ours, c.kcl_theirs) for c in known), strict=True))
    table = new_table(("", False), ("KCL error / currents at the node", True), ("seconds", True))
    for name, kcl, k in (("circuitsim", ours, 0), (engine, theirs, 1)):
        table.add_row(Text(name), f"{kcl:.2g}", f"{sum(c.seconds[k] for c in known):.2g}")
    out.print(table)
    ours, theirs = (0.0 if kcl <= DEFAULT_TOL["float64"] else kcl for kcl in (ours, theirs))  # met by both is met
    more = "circuitsim" if ours > theirs else engine if theirs > ours else "neither"
    out.print(Text(f"{more} violates KCL more; both are judged by the same certificate"), end="\n\n")


# -- JSON --------------------------------------------------------------------------------------------------------------


def comparison_object(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The JSON object of `circuitsim compare --json`: everything of every point."""
    return {
        "verdict": overall(comparisons).name,
        "engine": comparisons[0].engine,
        "points": [
            {
                "at": c.point,
                "verdict": c.verdict.name,
                "values": {
                    q.name: {
                        "ours": number(q.ours), "theirs": number(q.theirs), "difference": number(q.difference),
                        "allowed": number(q.allowed), "determined": q.determined, "agrees": q.agrees,
                        "telling": q.telling,
                    }
                    for q in c.quantities
                },
                "kcl_ours": number(c.kcl_ours),
                "kcl_theirs": number(c.kcl_theirs),
                "seconds": {"ours": number(c.seconds[0]), "theirs": number(c.seconds[1])},
                "notes": list(c.notes),
            }
            for c in comparisons
        ],
    }  # fmt: skip


# -- pictures ----------------------------------------------------------------------------------------------------------


def plot_comparison(comparisons: Sequence[Comparison], path: Path) -> None:
    """Their values over ours, and the differences over the values with what is allowed; voltages and currents.

    check_picture has checked the name. The file appears whole or not at all; SettingsError when it cannot be written.
    """
    figure = new_figure(10, 8, f"circuitsim and {comparisons[0].engine}: {overall(comparisons).value}")
    for row, (kind, what, unit) in enumerate((("v", "voltages", "V"), ("i", "source currents", "A"))):
        some = [q for c in comparisons for q in c.quantities if q.name[0] == kind and q.determined]
        _scatter(figure.add_subplot(2, 2, 2 * row + 1), some, what, unit)
        _errors(figure.add_subplot(2, 2, 2 * row + 2), some, what, unit)
    write_picture(figure, path)


def _scatter(axes: Axes, values: Sequence[Quantity], what: str, unit: str) -> None:
    ours, theirs, good = _columns(values)
    axes.set(xlabel=f"circuitsim, {unit}", ylabel=f"ngspice, {unit}", title=f"{what}: {len(values):,}")
    if values:
        ends = [min(np.nanmin([ours, theirs]), 0.0), max(np.nanmax([ours, theirs]), 0.0)]  # from 0: no rounding as axis
        axes.plot(ends, ends, color="0.8", zorder=0)
        axes.scatter(ours[good], theirs[good], s=12, color="tab:blue")
        axes.scatter(ours[~good], theirs[~good], s=24, color="tab:red", marker="x")


def _errors(axes: Axes, values: Sequence[Quantity], what: str, unit: str) -> None:
    ours, theirs, good = _columns(values)
    axes.set(xlabel=f"|circuitsim|, {unit}", ylabel=f"|difference|, {unit}", title=f"differences of {what}")
    shown = (ours != 0) & (ours != theirs)
    if values:
        allowed = np.array([q.allowed for q in values])
        axes.scatter(np.abs(ours[ours != 0]), allowed[ours != 0], s=12, color="0.7", marker="_", label="allowed")
        for which, style, label in (
            (good, {"color": "tab:blue", "s": 12}, "agree"), (~good, {"color": "tab:red", "marker": "x"}, "differ"),
        ):  # fmt: skip
            some = shown & which
            if some.any():
                axes.scatter(np.abs(ours[some]), np.abs(ours - theirs)[some], label=label, **style)
        if (ours != 0).any():
            axes.set(xscale="log", yscale="log")
            axes.legend()


def _columns(values: Sequence[Quantity]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ours, theirs, and which agree."""
    return (
        np.array([q.ours for q in values]),
        np.array([q.theirs for q in values]),
        np.array([q.agrees for q in values], bool),
    )
