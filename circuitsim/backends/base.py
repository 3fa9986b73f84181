"""The interface of a backend: what it must offer to bcd and may offer to newton; and how to find one by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.errors import SettingsError
from circuitsim.linear import LinearSolver
from circuitsim.problem import Problem
from circuitsim.residual import Check, Residuals

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

BACKENDS = ("cpu", "reference", "gpu")
DTYPES = ("float64", "float32")


class Look(Protocol):
    """The KCL of one tile of the batch where an engine stands: residual.Check, or figures of it made elsewhere."""

    def finite(self) -> bool:
        """Whether every violation is a number."""

    @property
    def worst(self) -> float:
        """The largest relative violation, or a bound on it."""

    @property
    def certain(self) -> float:
        """A relative violation that some unit certainly has; 0 where none is known."""

    def meets(self, tolerance: float) -> bool:
        """Whether the relative violation is at most `tolerance` everywhere."""

    def at_rounding(self, tolerance: float, eps: float) -> bool:
        """Whether each violation above the tolerance can be caused by the rounding of the unit's own voltage."""

    def reach(self, paths: Floats) -> tuple[Floats, Floats]:
        """See residual.Check.reach."""

    def certificate(self) -> Residuals:
        """All figures for this tile; see residual.Check.certificate."""

    def full(self) -> Check:
        """The check with an array for every figure, in this process."""


class Engine(Protocol):
    """One problem's conductances, ready in one dtype; takes sweeps for one tile of the batch at a time."""

    def start(self, drive: Drive, x: Floats | None) -> None:
        """Begin at unknowns x (rows, n_free), None: all 0, under this drive."""

    def sweep(self, count: int) -> bool:
        """Take `count` sweeps (each: the exact step of every colour block in turn); False if the last moved nothing."""

    def voltages(self) -> Floats:
        """The unknowns as float64, (rows, n_free)."""

    def check(self) -> Look:
        """How well these unknowns satisfy the problem under the drive, in float64."""


class RowSteps(Protocol):
    """Takes Newton steps of one problem in many rows of the batch at once."""

    tile: int  # rows that are best solved together

    def start(self, drive: Drive, w: Floats) -> None:
        """Begin at tangents where the legs have the voltages w (rows, legs), under this drive."""

    def step(self, near: float) -> bool:
        """Solve the linear networks of the tangents, and take new tangents; returns whether all the old ones were near.

        An old tangent is near if it misses the leg's current by at most `near` times this current.
        """

    def found(self, tolerance: float, moves: float) -> tuple[Floats, Bools, Residuals]:
        """The unknowns (rows, n_free), which rows have certainly converged (rows,), and all figures of these rows.

        A row has converged if its relative violation is at most `tolerance`, and one more correction would move its
        voltages by at most `moves` times the largest of the row.
        """


class Backend(Protocol):
    """A place to compute."""

    name: str
    workers: int  # tiles of the batch that it can work on at the same time

    def engine(self, problem: Problem, dtype: str) -> Engine:
        """Prepare a problem for sweeps."""

    def tile(self, problem: Problem, dtype: str) -> int:
        """How many rows of the batch are best solved together. Raises BackendUnavailable when not even one fits."""

    def row_steps(self, problem: Problem) -> RowSteps | None:
        """For Newton steps in many rows at once; None if the backend has none for this problem. Raises as `tile`."""

    def solver(self, problem: Problem) -> LinearSolver | None:
        """The solver for newton's linear networks on this backend; None: that of the problem's topology."""

    def drive(self, problem: Problem, rows: slice) -> Drive:
        """What the sources impose on these rows of the batch, for an engine; see Problem.drive."""


def find_backend(name: str) -> Backend:
    """The backend of this name; `auto` is the CPU. Raises SettingsError or BackendUnavailable."""
    if name in ("auto", "cpu"):
        from circuitsim.backends.cpu import CpuBackend

        return CpuBackend()
    if name == "reference":
        from circuitsim.backends.reference import ReferenceBackend

        return ReferenceBackend()
    if name == "gpu":
        from circuitsim.backends.cuda import CudaDevice
        from circuitsim.backends.gpu import GpuBackend

        return GpuBackend(CudaDevice())
    raise unknown_backend(name)


def unknown_backend(name: str) -> SettingsError:
    """The error for a name that is no backend's."""
    return SettingsError(f"unknown backend '{name}': choose auto, {', '.join(BACKENDS)}")
