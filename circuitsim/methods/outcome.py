"""What a method returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.residual import Residuals
from circuitsim.solution import Status

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a method reached on one tile of the batch."""

    x: Floats  # (rows, n_free) V
    steps: int  # sweeps of bcd, or steps of newton
    residuals: Residuals
    unsolved: Mapping[int, Status] = field(default_factory=dict)  # rows without a certified answer, and how they ended
    low: Floats | None = None  # (parts, rows, n_free) V: corrections to x, each too small to be added to the one before
    carried: Floats | None = None  # (rows, n_carriers) A: of ideal diodes between free units, then of Circuit.active
    loose: NDArray[np.bool_] | None = None  # (size,) unknowns that controlled sources leave open
    sure: bool = True  # of a solved one: whether a further correction would move no voltage
    slope: Floats | None = None  # (legs,) S: of the tangents that led there, where all rows have the same

    @property
    def status(self) -> Status:
        """How the first row that is not solved ended."""
        return self.unsolved[min(self.unsolved)] if self.unsolved else Status.SOLVED

    @property
    def arrived(self) -> bool:
        """Whether it is certainly solved."""
        return not self.unsolved and self.sure

    def ended(self, status: Status, steps: int) -> Outcome:
        """The same, with this status for all rows after so many steps."""
        return replace(self, unsolved=all_rows(len(self.x), status), steps=steps)


def all_rows(count: int, status: Status) -> dict[int, Status]:
    """Outcome.unsolved for so many rows, all with this status."""
    return {} if status is Status.SOLVED else dict.fromkeys(range(count), status)


class Gathered:
    """The outcomes of the rows of a tile, gathered a few at a time, as one outcome."""

    def __init__(self, first: Outcome, size: int, carriers: int) -> None:
        """`first`: an initial outcome for all rows; `size` unknowns, and so many carriers, in each row."""
        rows = first.x.shape[0]
        self.x, self.parts = first.x.copy(), list[Floats]()
        self.carried, self.loose = np.zeros((rows, carriers)), np.zeros(size, bool)
        self.unsolved, self.steps, self.residuals = dict(first.unsolved), first.steps, first.residuals
        self.sure = first.sure
        self.solved = np.zeros(rows, bool)

    def put(self, rows: Sequence[int], found: Outcome) -> None:
        """Add the outcome of these rows; call it once for each row."""
        self.x[rows] = found.x
        self.solved[rows] = True
        for k, status in found.unsolved.items():
            self.unsolved[rows[k]], self.solved[rows[k]] = status, False
        for k, part in enumerate(() if found.low is None else found.low):
            if k == len(self.parts):
                self.parts.append(np.zeros_like(self.x))
            self.parts[k][rows] = part
        if found.carried is not None:
            self.carried[rows] = found.carried
        if found.loose is not None:
            self.loose |= found.loose
        self.steps, self.sure = max(self.steps, found.steps), self.sure and found.sure
        worst = replace(found.residuals, worst_row=rows[found.residuals.worst_row])
        self.residuals = self.residuals.merge(worst, 0)

    def solved_before(self, row: int) -> int | None:
        """The last solved row before this one, or None."""
        rows = np.flatnonzero(self.solved[:row])
        return int(rows[-1]) if rows.size else None

    def outcome(self) -> Outcome:
        """The outcome of all rows."""
        low = np.stack(self.parts) if self.parts else None
        return Outcome(self.x, self.steps, self.residuals, self.unsolved, low, self.carried, self.loose, self.sure)
