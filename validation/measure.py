"""What a benchmark measures: rows of the table, whole processes; pictures of what was measured."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from circuitsim.io.files import replacing
from circuitsim.io.raw import Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
NETLISTS = ROOT / "netlists"
CIRCUITSIM = (sys.executable, "-m", "circuitsim")
NGSPICE = "ngspice"
MB = 1e6


class BenchmarkError(Exception):
    """A benchmark cannot be run; the message says why."""


@dataclass(frozen=True)
class Options:
    """What to leave out."""

    quick: bool = False  # the slow peers
    ngspice: bool = False  # run it where it needs minutes


@dataclass(frozen=True)
class Target:
    """A limit on a row's `measured` figure, or on its `ratio`."""

    limit: float
    at_most: bool = True
    of_ratio: bool = False

    def met(self, figure: float) -> bool:
        """Whether the figure keeps the limit."""
        return figure <= self.limit if self.at_most else figure >= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table. `measured` and `peer_measured` are in `unit`; None: not measured, `note` says why."""

    benchmark: str
    what: str
    measured: float | None = None
    unit: str = "s"
    target: Target | None = None
    peer: str = ""
    peer_measured: float | None = None
    speedup: bool = True  # ratio = peer / measured, else measured / peer
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How the two figures compare, in the direction that `speedup` says."""
        if self.measured is None or self.peer_measured is None:
            return None
        over, under = (self.peer_measured, self.measured) if self.speedup else (self.measured, self.peer_measured)
        return over / under

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a figure."""
        figure = self.ratio if self.target and self.target.of_ratio else self.measured
        return None if self.target is None or figure is None else self.target.met(figure)

    def as_json(self) -> dict[str, Any]:
        """What a JSON file holds of it: its fields, `ratio` and `met`."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


def save_json(data: Any, path: Path) -> None:
    """Write the file whole or not at all. Raises ValueError for NaN and infinities."""
    text = json.dumps(data, indent=2, allow_nan=False)
    with replacing(path, "w") as out:
        out.write(text + "\n")


def timed(action: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> tuple[float, T]:
    """Wall-clock seconds of a call, and its result."""
    clock = time.perf_counter()
    result = action(*arguments, **options)
    return time.perf_counter() - clock, result


def best_of(runs: int, actions: Mapping[str, Callable[[], Any]]) -> dict[str, tuple[float, Any]]:
    """Seconds of the fastest of `runs` runs of each action, and its last result; the actions take turns."""
    best: dict[str, tuple[float, Any]] = {}
    for _ in range(runs):
        for name, action in actions.items():
            seconds, result = timed(action)
            best[name] = min(seconds, best[name][0]) if name in best else seconds, result
    return best


def fastest(runs: int, action: Callable[[], T]) -> tuple[float, T]:
    """Seconds of the fastest of `runs` runs of an action, and its last result."""
    return best_of(runs, {"own": action})["own"]


@dataclass(frozen=True)
class ProcessRun:
    """A finished process: seconds from start to end by the clock and of the processor, peak resident memory, output."""

    seconds: float
    processor_seconds: float
    peak_bytes: int
    stdout: str
    stderr: str


def run_process(command: Sequence[str], runs: int = 1) -> ProcessRun:
    """Run a command `runs` times in the project's folder; the last run counts, so that caches are filled.

    Raises BenchmarkError when it is missing or exits with another code than 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        launcher = [sys.executable, "-S", "-E", str(ROOT / "validation" / "launch.py"), str(report)]
        for _ in range(runs):
            done = subprocess.run([*launcher, *command], cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchmarkError(f"{command[0]} cannot be started: {_last_line(done.stderr)}")
            found = json.loads(report.read_text())
            if found["exit_code"]:
                raise BenchmarkError(f"{' '.join(command)} ended with {found['exit_code']}: {_last_line(done.stderr)}")
    return ProcessRun(found["seconds"], found["processor_seconds"], found["peak_bytes"], done.stdout, done.stderr)


def rendered(figure: Figure, kind: str, dpi: float) -> bytes:
    """A figure of matplotlib as a picture; `kind` png or svg."""
    from matplotlib import rc_context

    out = io.BytesIO()
    with rc_context({"svg.fonttype": "none"}):  # letters stay letters: a small file
        figure.savefig(out, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def agreement(ours: Mapping[str, float], theirs: Plot) -> str:
    """How far ngspice's voltages are from circuitsim's: its exit code alone proves nothing."""
    column = {name: volts for (name, _), volts in zip(theirs.variables, theirs.values[0].tolist(), strict=True)}
    differences = [abs(volts - column[f"v({name.lower()})"]) for name, volts in ours.items()]
    return f"largest difference of {len(ours)} node voltages: {max(differences):.1e} V"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"
