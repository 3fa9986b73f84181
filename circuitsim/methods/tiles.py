"""Newton for the rows of a tile: all at once where a step of all is a few dense products, otherwise one by one.

All at once, rows take full steps only; those that do not converge are left to newton.py. In piecewise-linear circuits
the states of one row solve others (regions.py); in larger circuits the rows are copies of the circuit (aside.py), or
the backend has its own full steps (base.RowSteps).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import RowSteps
from circuitsim.branches import take_rows
from circuitsim.drive import Drive
from circuitsim.laws import branch_current
from circuitsim.linear.lu import SINGULAR
from circuitsim.methods import newton, regions
from circuitsim.methods.limiting import NEAR, NO_DROP, first_voltages, largest_voltages, limited, near
from circuitsim.methods.network import Network
from circuitsim.methods.outcome import Outcome
from circuitsim.methods.polish import MOVES, polished
from circuitsim.methods.rows import Rescue, Tile, no_rescue
from circuitsim.problem import Problem
from circuitsim.residual import NO_RESIDUALS
from circuitsim.solution import Settings
from circuitsim.stack import solve_in_shares

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SMALL = 40  # unknowns, and legs, of circuits whose rows are solved at once
_EXTRA_STEPS = 2  # after all tangents are near


def solve_tile(
    network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool, rescue: Rescue = no_rescue
) -> Outcome:
    """Solve one tile of the batch; x (rows, n_free) is where to start when `warm`."""
    if not network.legs.a.size:
        return _linear(network, drive, settings, x)
    rows = [*range(len(x))]
    tile = Tile(network, drive, settings, Outcome(x, 0, NO_RESIDUALS), warm, rescue)
    at_once = _AtOnce(tile) if len(rows) > 1 and together(network.problem) else None
    if at_once and at_once.polish(rows):
        return tile.found.outcome()
    if len(rows) > 1 and regions.straight(network):
        rows = regions.solve(tile).tolist()
    if at_once and network.problem.circuit.reciprocal:
        solve_in_shares(rows, len(rows), at_once.polish, tile.solve)
        return tile.found.outcome()
    for row in rows:
        tile.solve(row)  # with controlled sources all rows, so that of several solutions each follows the row before
    return tile.found.outcome()


def together(problem: Problem) -> bool:
    """Whether many rows are best solved at once, with dense matrices: true for small circuits without ideal diodes."""
    legs = problem.topology.legs
    return problem.n_free <= _SMALL and legs.a.size == legs.n_junctions <= _SMALL


class _AtOnce:
    """Full steps for all rows of a tile: their unknowns, slopes of the tangents that gave them, and which `arrived`."""

    def __init__(self, tile: Tile) -> None:
        """From the start of this tile; `polish` puts what is found into it."""
        self.tile, self.network, self.drive = tile, tile.network, tile.drive
        self.sides = self.network.sides(self.drive)
        rows, n = tile.found.x.shape
        self.u = np.zeros((rows, self.network.size))
        self.u[:, :n] = tile.found.x
        self.slope = np.zeros((rows, self.network.legs.a.size))
        self.steps, self.arrived = np.zeros(rows, np.int64), np.zeros(rows, bool)
        self._run(first_voltages(self.network, self._across(np.arange(rows)), tile.warm))

    def _run(self, w: Floats) -> None:
        """Full steps from tangents at w, (rows, legs), V, of each row until it has arrived."""
        i, slope = branch_current(self.network.law, self.network.params, w)
        left, near_for = np.arange(len(w)), np.zeros(len(w), np.int64)  # rows; for how many steps they have been near
        for _ in range(min(newton.FULL_STEPS, self.tile.settings.max_sweeps)):
            self.slope[left] = slope
            self.steps[left] += 1
            w, i, slope, close = self._step(left, w, i, slope)
            near_for += close
            self.arrived[left] = near_for > _EXTRA_STEPS
            go_on = ~self.arrived[left] & np.isfinite(self.u[left]).all(axis=1)
            left, near_for, w, i, slope = left[go_on], near_for[go_on], w[go_on], i[go_on], slope[go_on]
            if not left.size:
                return

    def _step(self, rows: Ints, w: Floats, i: Floats, slope: Floats) -> tuple[Floats, Floats, Floats, Bools]:
        """A full step of these rows with tangents at w (V) with currents i (A) and slopes (S), (rows, legs) each.

        Returns the same of the next tangents, and in which rows the old ones were near (limiting.near).
        """
        net, law, params = self.network, self.network.law, self.network.params
        u = self.u[rows]
        wanted = take_rows(self.sides, rows) - net.flow(u) - (i + slope * (self._across(rows) - w)) @ net.incidence
        self.u[rows] = u + net.factor(slope).solve(wanted)
        v = self._across(rows)
        line = i + slope * (v - w)
        current, new = branch_current(law, params, v)
        fixed = take_rows(self.drive.fixed, rows)
        rounding = NO_DROP * largest_voltages(self.u[rows, : net.problem.n_free], fixed)
        close = near(current, line, np.maximum(slope, new) * rounding)
        at = limited(law, params, w, i, v, line)
        return at, *((current, new) if np.array_equal(at, v) else branch_current(law, params, at)), close

    def _across(self, rows: Ints) -> Floats:
        return self.u[rows] @ self.network.incidence.T + take_rows(self.drive.junction_offset, rows)

    def polish(self, rows: list[int]) -> bool:
        """Polish these rows together and put the outcome into the tile; False, and nothing put, if any fails."""
        slope, tile = self.slope[rows], self.tile
        if not (self.arrived[rows].all() and np.isfinite(slope).all()):
            return False
        net = self.network
        if not net.problem.circuit.reciprocal and not (np.linalg.cond(net.matrices(slope)) < SINGULAR).all():
            return False  # solved row by row, it is found out which unknowns a singular network leaves open
        none, steps = np.zeros((len(rows), 0)), int(self.steps[rows].max())
        outcome = polished(*tile.at(np.array(rows)), tile.settings, self.u[rows], none, slope, steps)
        if not outcome.arrived:
            return False
        tile.found.put(rows, outcome)
        return True


def solve_tile_by(
    row_steps: RowSteps, network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool, rescue: Rescue
) -> tuple[Outcome, int]:
    """Solve a tile by full steps for all rows at once, by `row_steps`; rows that do not converge then, one by one.

    Returns the outcome, and how many of the latter there were.
    """
    row_steps.start(drive, first_voltages(network, network.across(x) + drive.junction_offset, warm))
    settled = step = 0
    while settled <= _EXTRA_STEPS and step < min(newton.FULL_STEPS, settings.max_sweeps):
        step += 1
        settled += row_steps.step(NEAR)
    found, arrived, residuals = row_steps.found(settings.tolerance, MOVES)
    left = np.flatnonzero(~arrived)
    found[left] = x[left]
    tile = Tile(network, drive, settings, Outcome(found, step, residuals), warm, rescue)
    tile.found.solved[arrived] = True
    for row in left.tolist():
        tile.solve(row)
    return tile.found.outcome(), left.size


def _linear(network: Network, drive: Drive, settings: Settings, x: Floats) -> Outcome:
    """All rows at once: one network, several right-hand sides."""
    none = np.zeros(0)
    solved = network.factor(none)
    u = np.zeros((x.shape[0], network.size))
    u[:, solved.floating] = x[:, solved.floating]
    sides = network.violations(drive, u) if u.any() else network.sides(drive)
    u = u + solved.solve(sides)
    return polished(network, drive, settings, u, np.zeros((len(u), 0)), none, 1)
