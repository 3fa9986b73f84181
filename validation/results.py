"""What a run of `pytest validation/` found: rows, gathered from all tests into `results.json`, and listed at the end.

A test adds rows to its report, so that those of pytest-xdist's workers reach the process that writes the file. A row is
a dict of JSON values; `suite`, `name` and `verdict` stand in all of them.
"""

from __future__ import annotations

import math
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.spice.compare import Comparison, Verdict
from circuitsim.spice.ngspice import ngspice_version
from validation.measure import save_json

PROPERTY = "validation"
_LISTED = 40  # rows of one kind at the end of a run
_QUIET = ("AGREE", "UNTOLD", "NO_ANSWER", "NO_REFERENCE", "solved")  # verdicts that are only counted


def row_of(suite: str, name: str, found: Comparison, **more: Any) -> dict[str, Any]:
    """A comparison as a row, with the quantity that comes nearest to what is allowed, or exceeds it most."""
    row = {"suite": suite, "name": name, "verdict": found.verdict.name, "quantities": len(found.quantities)}
    row["told"] = sum(q.determined and q.telling for q in found.quantities)
    compared = [q for q in found.quantities if q.determined]
    if compared:
        worst = max(compared, key=lambda q: q.excess)
        row |= {"worst": worst.name, "ours": worst.ours, "theirs": worst.theirs, "allowed": worst.allowed}
        row |= {"of_allowed": worst.excess}
    row |= {"kcl_ours": found.kcl_ours, "kcl_theirs": found.kcl_theirs, "seconds": found.seconds}
    return row | {"notes": list(found.notes)} | more


def worst_of(points: Sequence[Comparison]) -> Comparison:
    """The point of a sweep that shows most: one that does not agree, or comes nearest to what is allowed."""

    def order(point: Comparison) -> tuple[bool, float]:
        return point.verdict is not Verdict.AGREE, max((q.excess for q in point.quantities), default=math.inf)

    return max(points, key=order)


def notable(row: Mapping[str, Any]) -> bool:
    """Whether a row is to be listed: it shows a fault, or is neither agreement nor an answer that one side lacks."""
    return row.get("verdict") not in _QUIET or bool(row.get("fault"))


def said(row: Mapping[str, Any]) -> str:
    """A row in a line."""
    text = f"{row['suite']}: {row['name']}: {row['verdict']}"
    if row.get("worst") and row["verdict"] == Verdict.DIFFER.name:
        text += f": {row['worst']} {row['ours']!r}, theirs {row['theirs']!r}, allowed {row['allowed']:.2g}"
        text += f"; KCL {row['kcl_ours']:.1e}, theirs {row['kcl_theirs']:.1e}"
    elif not row.get("worst"):
        text += "".join(f"; {note}" for note in row.get("notes", ()))
    return text + "".join(f"; {row[key]}" for key in ("fault", "why", "explained") if row.get(key))


def plain(value: Any) -> Any:
    """A value as JSON has it: NumPy's numbers become Python's, those that are not finite None."""
    if isinstance(value, Mapping):
        return {str(key): plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Gatherer:
    """A plugin of the process that runs, or hands out, the tests."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "results.json"
        self.rows: list[dict[str, Any]] = []
        self.outcomes: Counter[str] = Counter()
        self.failed: list[str] = []
        self.clock = time.time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] += 1
            self.failed += [report.nodeid] if report.failed else []
        if report.when == "call":
            self.rows += [row for name, row in report.user_properties if name == PROPERTY]

    def pytest_sessionfinish(self) -> None:
        if not self.rows:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        program = shutil.which("ngspice")
        found = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.clock)),
            "seconds": round(time.time() - self.clock, 1),
            "command": " ".join(["pytest", *sys.argv[1:]]),
            "versions": {
                "circuitsim": cs.__version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "ngspice": ngspice_version(program) if program else None,
            },
            "tests": dict(self.outcomes),
            "failed": self.failed,
            "rows": self.rows,
        }
        save_json(found, self.path)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.rows:
            return
        write = terminalreporter.write_line
        terminalreporter.section("validation")
        for suite in dict.fromkeys(row["suite"] for row in self.rows):
            counts = Counter(row["verdict"] for row in self.rows if row["suite"] == suite)
            write(f"{suite}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
        listed = [row for row in self.rows if notable(row)]
        for row in listed[:_LISTED]:
            write(f"    {said(row)}")
        if len(listed) > _LISTED:
            write(f"    and {len(listed) - _LISTED} more")
        write(f"All {len(self.rows)} rows: {self.path}")
