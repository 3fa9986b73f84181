"""Tables of numbers reduced to small images, as means over blocks; and the maps of a crossbar."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import Crossbar
from circuitsim.errors import SettingsError

Floats = NDArray[np.float64]

UNITS = {"conductance": "S", "current": "A", "power": "W"}  # of the maps of a crossbar
_AT_ONCE = 1_000_000  # cells of a crossbar


def block_of(shape: tuple[int, ...], most: int) -> tuple[int, int]:
    """Rows and columns of the blocks that make at most `most` x `most` of a table of this shape, (rows, columns)."""
    tall, wide = (max(1, -(-n // most)) for n in shape)
    return tall, wide


def block_means(table: Floats, block: tuple[int, int]) -> Floats:
    """Means over blocks of (rows, columns), of what is finite, in the unit of the table; NaN where nothing is.

    The last blocks may be smaller.

    >>> block_means(np.array([[1.0, 3.0, np.nan], [5.0, np.nan, np.nan]]), (2, 2))
    array([[ 3., nan]])
    """
    known = np.isfinite(table)
    total, count = np.where(known, table, 0.0), known.astype(np.float64)
    for axis in (1, 0):  # rows are whole in memory: first along these
        if (size := block[axis]) > 1:
            starts = np.arange(0, table.shape[axis], size)
            total, count = np.add.reduceat(total, starts, axis), np.add.reduceat(count, starts, axis)
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def crossbar_map(x: Crossbar, voltages: Floats, quantity: str, block: tuple[int, int]) -> Floats:
    """Conductances (S), currents from row to column (A) or absorbed powers (W) of a crossbar: means of blocks.

    `voltages`: of all nodes, (nodes,), V. A few rows of blocks at a time: nothing as large as the crossbar is made
    unless the blocks are single cells.
    """
    if quantity not in UNITS:
        raise SettingsError(f"no quantity '{quantity}' of a crossbar; choose {', '.join(UNITS)}")
    rows, cols = x.g.shape
    step = block[0] * max(1, _AT_ONCE // (block[0] * cols))
    pieces = []
    for first in range(0, rows, step):
        some = slice(first, first + step)
        g, drop = x.g[some], voltages[x.rows[some], None] - voltages[x.cols]
        table = g if quantity == "conductance" else g * drop if quantity == "current" else g * drop * drop
        pieces.append(block_means(table, block))
    return np.concatenate(pieces)
