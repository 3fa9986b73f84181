"""All chunks of an analysis: solved by one process or many, kept in a study, and put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from circuitsim import workers as processes
from circuitsim.circuit import Circuit
from circuitsim.errors import CircuitError, SettingsError
from circuitsim.solving import check_progress
from circuitsim.sweeping.plan import Plan
from circuitsim.sweeping.results import NOTHING, Note, Points, SweepResult, unknown_points

Progress = Callable[[int, int], None]

_NO_ARRAY = np.zeros(0)
_OF_POINTS = ("voltages", "currents", "saved", "statuses", "kcl_relative")  # arrays of Points with an axis of points


class Store(Protocol):
    """Keeps the chunks of one analysis of one circuit."""

    def begin(self, circuit: Circuit, facts: Mapping[str, Any], chunks: int) -> None:
        """Get ready. SettingsError when the chunks kept there are of another circuit, or of other `facts`.

        They may be of fewer runs, as each run stays the same.
        """

    def load(self, k: int, points: int) -> Points | None:
        """Chunk k; None when it is not kept, is damaged, or does not have this number of points."""

    def save(self, k: int, found: Points) -> None:
        """Keep chunk k. SettingsError when that is not possible."""


def solve_plan(
    plan: Plan, clock: float, progress: Progress | None, workers: int, scheduler: str | None, study: Store | None
) -> SweepResult:
    """Solve all chunks that are not kept yet, and put all together. `clock`: when the analysis began."""
    processes.check(workers, scheduler)
    check_progress(progress)
    if plan.backend is not None and (workers > 1 or scheduler is not None):
        raise SettingsError("a backend object cannot be sent to workers; name it: Settings(backend=...)")
    gathered = Gathered(plan, progress)
    if study is not None:
        if not hasattr(study, "begin"):
            raise SettingsError(f"study must be a circuitsim.io.study.Study(folder), found {study!r}")
        study.begin(plan.circuit, plan.facts(), plan.chunks)
    left: dict[int, int] = {}
    for k in range(plan.chunks):
        found = study.load(k, plan.chunk(k)[1].size) if study is not None else None
        if found is None:
            left[k] = k
        else:
            gathered.add(k, found)
    faults: dict[int, CircuitError] = {}
    with closing(processes.run(Plan.solve, plan, left, workers, scheduler)) as solved:
        for k, chunk in solved:
            del left[k]
            if isinstance(chunk, CircuitError):
                faults[k] = chunk
            else:
                gathered.add(k, chunk)
                if study is not None:
                    study.save(k, chunk)
            if faults and min(faults) < next(iter(left), plan.chunks):  # the one that one process meets
                raise faults[min(faults)]
    return gathered.result(time.perf_counter() - clock)


class Gathered:
    """The points of all chunks, collected as they come."""

    def __init__(self, plan: Plan, progress: Progress | None) -> None:
        self.plan, self.progress = plan, progress
        self.found = unknown_points(plan.circuit, plan.saves, plan.values.shape[0])
        self.parts: dict[int, Points] = {}  # without their arrays
        self.done = 0

    def add(self, k: int, chunk: Points) -> None:
        """Add the points of chunk k."""
        rows = self.plan.chunk(k)[1].ravel()
        for name, array in self.found.items():
            new = getattr(chunk, name)
            if name in _OF_POINTS:
                array[rows] = new
            elif name == "determined":
                array &= new
            else:
                array |= new
        messages = {int(rows[j]): text for j, text in chunk.messages.items()}
        none: dict[str, Any] = dict.fromkeys(self.found, _NO_ARRAY)
        self.parts[k] = replace(chunk, messages=messages, **none)
        self.done += rows.size
        if self.progress:
            self.progress(self.done, self.plan.values.shape[0])

    def result(self, seconds: float) -> SweepResult:
        """All points, once all chunks are there."""
        parts = [self.parts[k] for k in sorted(self.parts)]
        last = next((part for part in reversed(parts) if part.why != NOTHING), parts[-1])
        notes: dict[tuple[str, ...], Note] = {}
        for part in parts:
            for island, note in zip(part.islands, part.notes, strict=True):
                notes.setdefault(island, note)
        return SweepResult(
            **self.found,
            ambiguous_others=tuple(dict.fromkeys(name for part in parts for name in part.ambiguous_others)),
            islands=tuple(notes),
            notes=tuple(notes.values()),
            messages={row: text for part in parts for row, text in part.messages.items()},
            method=last.method,
            why=last.why,
            backend=last.backend,
            steps=max(part.steps for part in parts),
            circuit=self.plan.circuit,
            swept=self.plan.swept,
            values=self.plan.values,
            saves=self.plan.saves,
            dtype=self.plan.settings.dtype,
            seconds={"sweep": seconds},
        )
