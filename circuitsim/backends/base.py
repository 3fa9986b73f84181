"""What a backend must offer to block coordinate descent, and how a backend is found by name."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import BackendUnavailable, SettingsError
from circuitsim.problem import Drive, Problem

Floats = NDArray[np.float64]

BACKENDS = ("cpu", "reference", "gpu")
DTYPES = ("float64", "float32")


class Engine(Protocol):
    """One problem's conductances, ready in one dtype; takes sweeps for one tile of the batch at a time."""

    def start(self, drive: Drive, x: Floats) -> None:
        """Begin at unknowns x (rows, n_free) under this drive."""

    def sweep(self, count: int) -> bool:
        """Take `count` sweeps (each: the exact step of every colour block in turn); False if the last moved nothing."""

    def voltages(self) -> Floats:
        """The unknowns as float64, (rows, n_free)."""


class Backend(Protocol):
    """A place to compute."""

    name: str
    workers: int  # tiles of the batch that it can work on at the same time

    def engine(self, problem: Problem, dtype: str) -> Engine:
        """Prepare a problem for sweeps."""


def find_backend(name: str) -> Backend:
    """The backend of this name; `auto` is the CPU. Raises SettingsError or BackendUnavailable."""
    if name in ("auto", "cpu"):
        from circuitsim.backends.cpu import CpuBackend

        return CpuBackend()
    if name == "reference":
        from circuitsim.backends.reference import ReferenceBackend

        return ReferenceBackend()
    if name == "gpu":
        raise BackendUnavailable("backend gpu is not yet available; use --backend cpu")
    raise SettingsError(f"unknown backend '{name}': choose auto, {', '.join(BACKENDS)}")
