"""What a benchmark measures: rows of the table, whole processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class BenchmarkError(Exception):
    """A benchmark cannot be run; the message says why."""


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


@dataclass(frozen=True)
class ProcessRun:
    """A finished process: wall-clock seconds from start to end, peak resident memory, output."""

    seconds: float
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
    return ProcessRun(found["seconds"], found["peak_bytes"], done.stdout, done.stderr)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"
