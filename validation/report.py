"""`python -m validation.report`: one HTML page, build/report.html, of what was measured: agreement with ngspice,
diodes that are not perfect, speed, training.

It reads what other commands left (SOURCES) and measures nothing itself; what is not there is named with the command
that makes it. Pictures are within the page.
"""

from __future__ import annotations

import base64
import csv
import html
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from circuitsim import SettingsError
from circuitsim.io.files import check_target, replacing
from validation import nonideal
from validation.benchmarks import machine, versions
from validation.fuzz import RECORD, read_record
from validation.measure import ROOT, rendered
from validation.peers import WANTED, Climbs, Point, exponent, read_points
from validation.results import notable

AGREEMENT, BENCH, PEERS, RUNS = "build/validation", "build/bench.json", "build/peers.json", "runs"
DIODES, FUZZING = "build/nonideal.json", f"build/fuzz/{RECORD}"
SOURCES = {
    AGREEMENT: "pytest validation/",
    DIODES: "make nonideal",
    FUZZING: "make fuzz",
    BENCH: "make bench",
    PEERS: "make bench",
    RUNS: "python -m training.mnist --netlist drn-xs",
}
_STYLE = (
    "body{font:15px/1.45 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0;font-size:13px}td,th{border:1px solid #ccc;padding:.25em .6em;"
    "text-align:left;vertical-align:top}th{background:#f2f2f2}img{max-width:100%}.missing{color:#a30}code{"
    "background:#f2f2f2;padding:0 .3em}"
)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "build" / "report.html", show_default=True)
@click.option("--picture", type=click.Path(path_type=Path), help="Only write the picture of the ladders here (PNG).")
def main(output: Path, picture: Path | None) -> None:
    """Write the report from what the other commands left in build/ and runs/."""
    target = picture or output
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        check_target(target)
        data = ladder_picture(_points(), "png") if picture else page(ROOT).encode()
    except (SettingsError, OSError, ImportError) as error:
        raise click.UsageError(f"{error}; the ladders come from {SOURCES[PEERS]}" if picture else str(error)) from None
    with replacing(target, "wb") as out:
        out.write(data)
    click.echo(f"wrote {target}")


def _points() -> list[Point]:
    """Those of the last run. Raises OSError; SettingsError where they cannot be read."""
    try:
        return read_points(ROOT / PEERS)
    except ValueError as error:
        raise SettingsError(f"{ROOT / PEERS} cannot be read ({error})") from None


def page(root: Path) -> str:
    """The whole page, from what lies under the root of the repository."""
    parts = [
        "<h1>circuitsim: agreement, speed, training</h1>",
        f"<p>Written {escaped(datetime.now(UTC).isoformat(timespec='seconds'))} by <code>make report</code>.</p>",
        _about(),
        "<h2>Agreement</h2>",
        *_agreement(root / AGREEMENT),
        "<h2>Diodes that are not perfect</h2>",
        *_diodes(root / DIODES),
        "<h2>Fuzzing</h2>",
        *_fuzzing((root / FUZZING).parent),
        "<h2>Speed</h2>",
        *_benchmarks(root / BENCH),
        *_ladders(root / PEERS),
        "<h2>Training</h2>",
        *_runs(root / RUNS),
        *_recorded(root, "README.md", "## Results"),
        *_recorded(root, "docs/training.md", "## Results"),
    ]
    head = f'<meta charset="utf-8"><title>circuitsim: report</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def escaped(value: object) -> str:
    """A value as text of the page; None is nothing, numbers have four digits."""
    if value is None:
        return ""
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of values."""
    lines = ["".join(f"<td>{escaped(cell)}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in heads)
    return f"<table><tr>{head}</tr>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def missing(source: str, why: str = "is not there") -> str:
    """What is said of a source that cannot be shown."""
    return f'<p class="missing">{escaped(source)} {escaped(why)}; make it: <code>{escaped(SOURCES[source])}</code></p>'


def picture(data: bytes, kind: str, title: str) -> str:
    """An image within the page."""
    return f'<p><img alt="{escaped(title)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}"></p>'


def _drawn(svg: Callable[[], bytes], title: str) -> str:
    """A plot, where it can be drawn."""
    try:
        return picture(svg(), "svg+xml", title)
    except ImportError:
        return "<p class=missing>no plot: matplotlib is not installed; <code>pip install -e '.[plot]'</code></p>"


def _about() -> str:
    facts = {**machine(), **{name: version or "not installed" for name, version in versions().items()}}
    return "<p>This machine and what is installed now:</p>" + table(("", ""), facts.items())


def _read(path: Path, source: str, read: Callable[[Path], Any]) -> tuple[Any, str]:
    """What is `read` from a file, and '' or what to say instead."""
    try:
        return read(path), ""
    except OSError:
        return None, missing(source)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # another file's content, or an older one's
        return None, missing(source, f"cannot be read ({error})")


def _agreement(folder: Path) -> Iterator[str]:
    """Counts of verdicts by suite, and every row that differs or shows a fault; then pictures."""
    files = sorted(folder.glob("*.json"))
    if not files:
        yield missing(AGREEMENT)
    for path in files:
        found, said = _read(path, AGREEMENT, _agreed)
        if said or found:
            yield f"<h3>{escaped(path.name)}</h3>{said or found}"
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.svg")]):
        kind = {".png": "png", ".svg": "svg+xml"}[path.suffix]
        yield picture(path.read_bytes(), kind, path.stem)


def _agreed(path: Path) -> str:
    """What one file of results says; '' where it holds none."""
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or "rows" not in found:
        return ""
    rows = found["rows"]
    facts = {name: found[name] for name in ("command", "started", "seconds", "tests", "versions") if name in found}
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.get("suite", ""), Counter())[row.get("verdict", "")] += 1
    text = table(("", ""), facts.items())
    text += table(("suite", "verdict", "count"), [(s, v, n) for s, c in counts.items() for v, n in c.items()])
    listed = [_cells(row) for row in rows if notable(row)]
    if listed:
        text += f"<p>The {len(listed)} that differ or show a fault:</p>"
        text += table(("suite", "name", "verdict", "why"), listed)
    return text


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    words = [f"fault: {row['fault']}"] if row.get("fault") else []
    words += [str(row[key]) for key in ("explained", "why") if row.get(key)] + list(map(str, row.get("notes") or []))
    if row.get("worst"):
        words.append(f"{row['worst']}: {escaped(row.get('ours'))}, theirs {escaped(row.get('theirs'))}")
    return row.get("suite"), row.get("name"), row.get("verdict"), "; ".join(words)


def _diodes(path: Path) -> Iterator[str]:
    """The study of nonideal.py: its table and its picture."""
    found, said = _read(path, DIODES, nonideal.read_json)
    if said:
        yield said
        return
    about, rows = found
    yield f"<p>{escaped(about['netlist'])}: each model in place of all its diodes, {escaped(about['digits'])} test "
    yield "digits. Changes are those of voltages, root mean square, relative to those with perfect diodes.</p>"
    yield table(nonideal.HEADS, map(nonideal.cells, rows))
    yield _drawn(lambda: nonideal.picture(rows, "svg"), "diodes")


def _fuzzing(folder: Path) -> Iterator[str]:
    """What each engine has tried in all runs that are recorded, and the faults that it found."""
    turns = read_record(folder)
    if not turns:
        yield missing(FUZZING)
        return
    rows = []
    for engine in dict.fromkeys(turn["engine"] for turn in turns):
        own = [turn for turn in turns if turn["engine"] == engine]
        hours = sum(turn["cpu_seconds"] for turn in own) / 3600
        found = Counter(fault for turn in own for fault in turn["faults"])
        rows.append((engine, own[0]["started"], own[-1]["started"], len(own), sum(turn["decks"] for turn in own), hours,
                     "; ".join(found) or "none"))  # fmt: skip
    yield table(("engine", "from", "to", "turns", "decks", "core-hours", "faults found"), rows)


def _benchmarks(path: Path) -> Iterator[str]:
    heads = ("benchmark", "what", "measured", "unit", "met", "peer", "peer measured", "ratio", "note")
    keys = [head.replace(" ", "_") for head in heads]
    met = {None: "", True: "yes", False: "no"}

    def read(path: Path) -> tuple[str, list[list[Any]]]:
        found = json.loads(path.read_text())
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        about = f"Measured {found['date']} on {found['machine']['cpu']}, {found['machine']['cores']} cores"
        rows = [[met[row[key]] if key == "met" else row[key] for key in keys] for row in found["rows"]]
        return f"{about}; versions: {versions}", rows

    found, said = _read(path, BENCH, read)
    yield said or f"<p>{escaped(found[0])}</p>" + table(heads, found[1])


def _ladders(path: Path) -> Iterator[str]:
    yield f"<h3>Ladders</h3><p>Time to a relative KCL of {WANTED:g}; hollow marks: the solver stopped before it.</p>"
    points, said = _read(path, PEERS, read_points)
    if said:
        yield said
        return
    yield _drawn(lambda: ladder_picture(points, "svg"), "ladders")
    growth = [(*key, exponent(climb)) for key, climb in Climbs(points).by.items()]
    yield "<p>Growth, p of seconds ~ unknowns^p at the upper end:</p>"
    yield table(("ladder", "solver", "p"), [row for row in growth if row[-1] is not None])
    heads = ("ladder", "size", "unknowns", "solver", "seconds", "kcl", "peak_mb", "note")
    yield table(heads, [[getattr(point, head) for head in heads] for point in points])


def ladder_picture(points: Sequence[Point], kind: str) -> bytes:
    """Seconds, and below them peak memory, over unknowns for each ladder; `kind` svg or png.

    ImportError without matplotlib.
    """
    from matplotlib.figure import Figure

    ladders = list(dict.fromkeys(point.ladder for point in points))
    solvers = list(dict.fromkeys(point.solver for point in points if point.seconds is not None))
    figure = Figure(figsize=(3.4 * len(ladders), 6.4), layout="constrained")
    axes = figure.subplots(2, len(ladders), squeeze=False, sharex="col")
    for column, ladder in enumerate(ladders):
        for (name, solver), climb in Climbs(points).by.items():
            solved = [p for p in climb if p.seconds is not None]
            if name != ladder or not solved:
                continue
            color, width = f"C{solvers.index(solver) % 10}", 2.2 if solver == "circuitsim" else 1.0
            style = "--" if solvers.index(solver) >= 10 else "-"
            x = [p.unknowns for p in solved]
            for axis, y in zip(
                axes[:, column], ([p.seconds for p in solved], [p.peak_mb for p in solved]), strict=True
            ):
                axis.loglog(x, y, style, color=color, lw=width, label=solver)
                for full in (True, False):
                    some = [k for k, p in enumerate(solved) if (p.kcl is not None and p.kcl <= WANTED) == full]
                    face = color if full else "white"
                    axis.plot([x[k] for k in some], [y[k] for k in some], "o", ms=4, color=color, mfc=face)
        axes[0, column].set_title(ladder)
        axes[1, column].set_xlabel("unknowns")
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("peak memory, MB")
    labels = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=6, fontsize=8)
    return rendered(figure, kind, 64)


def _runs(folder: Path) -> Iterator[str]:
    """The last epoch of every training run."""
    rows = []
    for path in sorted(folder.glob("**/metrics.csv")):
        with path.open(newline="") as stream:
            lines = list(csv.DictReader(stream))
        if lines:
            rows.append((str(path.parent.relative_to(folder)), lines[-1], _command(path.parent / "config.json")))
    if not rows:
        yield missing(RUNS)
        return
    heads = list(rows[0][1])
    yield table(("run", *heads, "command"), [(name, *(last.get(h) for h in heads), said) for name, last, said in rows])


def _command(path: Path) -> str:
    try:
        return str((json.loads(path.read_text()).get("commands") or [""])[-1])
    except (OSError, ValueError):
        return ""


def _recorded(root: Path, name: str, heading: str) -> Iterator[str]:
    """The tables that a Markdown file has below a heading, up to the next one of its rank or above."""
    path = root / name
    if not path.exists():
        return
    rank = len(heading.split()[0])
    inside, lines = False, []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("#"):
            inside = line.strip() == heading or (inside and len(line.split()[0]) > rank)
        if inside and line.startswith("|"):
            lines.append([cell.strip() for cell in line.strip("| ").split("|")])
        elif lines:
            yield f"<p>Recorded in {name}:</p>" + table(lines[0], lines[2:])
            lines = []


if __name__ == "__main__":
    main(prog_name="python -m validation.report")
