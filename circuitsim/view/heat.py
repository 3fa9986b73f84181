"""Large tables of numbers as images that a page can hold: means of blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.branches import Crossbar
from circuitsim.errors import SettingsError

Floats = NDArray[np.float64]

CELLS = 160  # of an image's side, at most
UNITS = {"conductance": "S", "current": "A", "power": "W"}
_AT_ONCE = 4_000_000  # numbers


def binned(table: Floats) -> tuple[Floats, tuple[int, int]]:
    """The table as an image of at most CELLS x CELLS means, and the size of the blocks; NaN is left out of means.

    >>> image, blocks = binned(np.arange(320.0 * 2).reshape(320, 2))
    >>> image.shape, blocks, image[0]
    ((160, 2), (2, 1), array([1., 2.]))
    """
    tall, wide = (max(1, -(-n // CELLS)) for n in table.shape)
    if (tall, wide) == (1, 1) or not table.size:
        return table, (1, 1)
    known = np.isfinite(table)
    starts = np.arange(0, table.shape[0], tall), np.arange(0, table.shape[1], wide)

    def sums(x: Floats) -> Floats:
        return np.add.reduceat(np.add.reduceat(x, starts[0], axis=0), starts[1], axis=1)

    with np.errstate(invalid="ignore"):
        return sums(np.where(known, table, 0.0)) / sums(known.astype(float)), (tall, wide)


def crossbar_image(x: Crossbar, voltages: Floats, quantity: str) -> tuple[Floats, str, tuple[int, int]]:
    """Conductances, currents (row to column) or absorbed powers of a crossbar, binned, with unit and size of blocks.

    `voltages`: of all nodes, V. A few rows of blocks at a time: nothing as large as the crossbar is made.
    """
    if quantity not in UNITS:
        raise SettingsError(f"no quantity '{quantity}' of a crossbar; choose {', '.join(UNITS)}")
    rows, cols = x.g.shape
    tall = max(1, -(-rows // CELLS))
    step = tall * max(1, _AT_ONCE // max(tall * cols, 1))
    pieces, wide = [np.zeros((0, min(cols, CELLS)))], 1
    for first in range(0, rows, step):
        g = x.g[first : first + step]
        drop = voltages[x.rows[first : first + step], None] - voltages[x.cols]
        table = g if quantity == "conductance" else g * drop if quantity == "current" else g * drop * drop
        if tall > 1:
            table = np.add.reduceat(table, np.arange(0, table.shape[0], tall), axis=0)
            sizes = np.minimum(tall, g.shape[0] - np.arange(0, g.shape[0], tall))
            table = table / sizes[:, None]
        image, (_, wide) = binned(table)
        pieces.append(image)
    return np.concatenate(pieces[1:] or pieces), UNITS[quantity], (tall, wide)
