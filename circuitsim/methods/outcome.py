"""What a method hands back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circuitsim.residual import Residuals
from circuitsim.solution import Status

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a method reached on one tile of the batch."""

    x: Floats  # (rows, n_free) V
    status: Status
    steps: int  # sweeps of bcd, or steps of newton
    residuals: Residuals
    low: Floats | None = None  # (parts, rows, n_free) V: corrections to x, each too small to be added to the one before
    carried: Floats | None = None  # (rows, n_carriers) A: of ideal diodes between free units, then of Circuit.active
    loose: NDArray[np.bool_] | None = None  # (size,) unknowns that controlled sources leave open
