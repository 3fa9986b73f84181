"""Many rows of a piecewise-linear circuit: the states of the legs in one row solve all rows with the same states.

Between knees such a circuit is linear. With the states of one row, the linear network, factored once, gives voltages
for all the others; a row in which all legs stay on these pieces is solved. In a sweep there are few states.
(Parametric programming calls the inputs of one state a critical region: T. Gal and J. Nedoma, Management Science 18
(1972) 406-422.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.law_kernels import Law
from circuitsim.laws import branch_current
from circuitsim.methods.limiting import NO_DROP, largest_voltages
from circuitsim.methods.network import Network
from circuitsim.methods.polish import polished
from circuitsim.methods.rows import Tile

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_FEW = 4  # rows: states are not tried on fewer
_MOST_IN_VAIN, _FEWEST = (
    4,
    64,
)  # it ends after more states in succession that solve fewer than _FEW, or 1/64, of what is left
# Two passes, of which the first leaves out rows that are far from having these states. Each is the most solutions with
# one factorisation, which close conducting ideal diodes, and how far legs may be beyond their pieces, in units of the
# largest voltage and the largest current.
_LOOKS = (1, 1e-3), (8, 0.0)
_MOST_LEFT_OUT = 3  # passes, each without the rows that failed the certificate in the one before


def straight(network: Network) -> bool:
    """Whether all legs are ideal or have laws of straight pieces, and the solution of a row is the only one."""
    some = bool(network.legs.a.size) and network.problem.circuit.reciprocal
    return some and bool(np.isin(network.law, (Law.PWL, Law.SEGMENT)).all())


def solve(tile: Tile) -> Ints:
    """Solve the rows of a tile while they have states in common; returns those left, none of which was tried itself."""
    left, in_vain = np.arange(tile.found.solved.size), 0
    while left.size and in_vain <= _MOST_IN_VAIN:
        row, left = int(left[0]), left[1:]
        outcome = tile.outcome(row)
        tile.found.put([row], outcome)
        same = left[:0]
        if left.size >= _FEW and outcome.arrived and outcome.slope is not None:
            same = _solve_same(tile, left, outcome.x[0], outcome.slope, tile.part(row))
        in_vain = 0 if same.size >= max(_FEW, left.size // _FEWEST) else in_vain + 1
        left = np.setdiff1d(left, same, assume_unique=True)
    return left


def _solve_same(tile: Tile, rows: Ints, x: Floats, slope: Floats, drive: Drive) -> Ints:
    """Solve those of the rows that have the states of a solved one; returns them.

    x (n_free,), slope (legs,) and drive are the voltages, tangents' slopes and drive of the solved row.
    """
    network, n = tile.network, tile.network.legs.n_junctions
    slope = np.where(network.ideal & (slope > 0), network.rho, slope)
    across = network.across(x) + network.offset(drive)
    current_at = np.zeros(across.size)
    current_at[:n], _ = branch_current(network.law, network.params, across[:n])
    across[n:] = 0.0
    for closings, slack in _LOOKS:
        here, drive = tile.at(rows)
        u, current, within = _on_pieces(here, drive, x, slope, across, current_at, closings, slack)
        rows, u, current = rows[within], u[within], current[within]
        if not rows.size:
            return rows
    for _ in range(_MOST_LEFT_OUT):
        links = current[:, n : n + network.legs.n_links]
        found = polished(*tile.at(rows), tile.settings, u, links, slope, 1)
        if found.arrived:
            tile.found.put(rows.tolist(), found)
            return rows
        good = np.setdiff1d(np.arange(rows.size), [*found.unsolved])
        if good.size in (0, rows.size):
            break
        rows, u, current = rows[good], u[good], current[good]
    return rows[:0]


def _on_pieces(
    network: Network, drive: Drive, x: Floats, slope: Floats, at: Floats, through: Floats, closings: int, slack: float
) -> tuple[Floats, Floats, Bools]:
    """Solve the rows of a drive with tangents of these slopes through the points (at, through), (legs,) each, V and A.

    Returns u (rows, size), computed as corrections to x (n_free,); the legs' currents (rows, legs); and in which rows
    all legs are on the pieces that these tangents belong to, but for rounding and `slack` (_LOOKS).
    """
    rows, n = drive.rows.stop - drive.rows.start, network.legs.n_junctions
    offset, live = network.offsets(drive, rows), slope > 0
    shift = np.where(live, offset - at, 0.0)
    u, current = np.repeat(x[None], rows, axis=0), np.repeat(through[None], rows, axis=0)
    solved, closed, before = network.factor(slope), live & network.ideal, np.inf
    for _ in range(closings):
        tangent = current + np.where(live, slope * (network.across(u) + shift), 0.0)
        u = u + solved.solve(network.violations(drive, u) + network.into(tangent))
        gap = np.where(closed, network.across(u) + shift, 0.0)
        current = current + slope * gap
        largest = float(np.abs(gap).max(initial=0.0))
        if not 0.0 < largest <= 0.1 * before:
            break
        before = largest
    v, volts = network.across(u) + offset, largest_voltages(u, drive.fixed)
    amperes = np.abs(current[:, n:]).max(axis=1, initial=0.0, keepdims=True)
    volts, amperes = max(NO_DROP, slack) * volts, NO_DROP * volts * network.rho[n:] + slack * amperes
    ideal = np.where(closed[n:], current[:, n:] >= -amperes, v[:, n:] <= volts).all(axis=1)
    law, params = network.law, network.params
    sides = [branch_current(law, params, v[:, :n] + some)[1] == slope[:n] for some in (-volts, volts)]
    return u, current, np.isfinite(u).all(axis=1) & ideal & np.logical_or(*sides).all(axis=1)
