"""Newton for the rows of a tile: many at once where one step of all is a few dense products, else one by one.

All at once they take full steps only; rows that do not arrive are left to newton.py. In larger circuits the rows are
copies of the circuit (aside.py), or the backend has full steps of its own (base.RowSteps).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import RowSteps
from circuitsim.branches import take_rows
from circuitsim.drive import Drive
from circuitsim.laws import branch_current
from circuitsim.linear.lu import SINGULAR
from circuitsim.methods import newton
from circuitsim.methods.limiting import NEAR, ROUNDING, first_voltages, limited, near
from circuitsim.methods.network import Network
from circuitsim.methods.outcome import Gathered, Outcome
from circuitsim.methods.polish import MOVES, polished
from circuitsim.problem import Problem
from circuitsim.residual import NO_RESIDUALS
from circuitsim.solution import Settings, Status
from circuitsim.stack import solve_in_shares

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_SMALL = 40  # unknowns, and legs, of circuits whose rows are solved at once
_EXTRA_STEPS = 2  # after all tangents are near


def solve_tile(network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool) -> Outcome:
    """Solve one tile of the batch; x (rows, n_free) is where to start when `warm`."""
    if not network.legs.a.size:
        return _linear(network, drive, settings, x)
    rows, every = OneByOne(network, drive, settings, Outcome(x, Status.SOLVED, 0, NO_RESIDUALS), warm), range(len(x))
    if len(x) > 1 and together(network.problem):
        at_once = _AtOnce(network, drive, settings, x, warm)
        solve_in_shares(every, len(x), lambda some: at_once.polish(some, rows.found), rows.solve)
    else:
        for row in every:
            rows.solve(row)
    return rows.found.outcome()


class OneByOne:
    """Rows of a tile, each solved from the one before it, or when `warm` from its own; `found` holds all of them."""

    def __init__(self, network: Network, drive: Drive, settings: Settings, others: Outcome, warm: bool) -> None:
        """`others` are as given; when `warm` they are where to start."""
        self.network, self.drive, self.settings, self.warm = network, drive, settings, warm
        self.found = Gathered(others, network.size, network.problem.topology.carrier_a.size)
        self.networks: list[Network] = []  # for rows that this one leaves

    def solve(self, row: int) -> None:
        """Solve this row; where that leads nowhere, with other networks."""
        drive = self.drive.part(slice(row, row + 1))
        before = row if self.warm else row - 1
        at = None if before < 0 else drive if self.warm else self.drive.part(slice(before, row))
        x = self.found.x[max(before, 0)].copy()
        outcome = newton.solve_row(self.network, drive, self.settings, x, at)
        if outcome.status is Status.STALLED or (outcome.status is Status.SOLVED and not outcome.sure):
            self.networks = self.networks or [*self.network.otherwise()]
            for network in self.networks:
                other = newton.solve_row(network, drive, self.settings, x, at)
                if other.status is Status.SOLVED and (other.sure or outcome.status is not Status.SOLVED):
                    outcome = other
                if outcome.status is Status.SOLVED and outcome.sure:
                    break
        self.found.put([row], outcome)


def together(problem: Problem) -> bool:
    """Whether many rows are best solved at once, with dense matrices: small circuits without ideal diodes."""
    legs = problem.topology.legs
    return problem.n_free <= _SMALL and legs.a.size == legs.n_junctions <= _SMALL


class _AtOnce:
    """Full steps for all rows of a tile: their unknowns, slopes of the tangents that gave them, and which `arrived`."""

    def __init__(self, network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool) -> None:
        self.network, self.drive, self.settings = network, drive, settings
        self.sides, self.fixed = network.sides(drive), np.abs(drive.fixed).max(axis=1, initial=0.0, keepdims=True)
        rows, n = x.shape
        self.u = np.zeros((rows, network.size))
        self.u[:, :n] = x
        every = np.arange(rows)
        w = first_voltages(network, self._across(every), warm)
        i, self.slope = branch_current(network.law, network.params, w)
        self.steps, near_for = 0, np.zeros(rows, np.int64)  # steps
        self.arrived = np.zeros(rows, bool)
        left, slope = every, self.slope.copy()
        while left.size and self.steps < min(newton.FULL_STEPS, settings.max_sweeps):
            self.steps += 1
            self.slope[left] = slope
            w, i, slope, close = self._step(left, w, i, slope)
            near_for[left] += close
            self.arrived[left] = near_for[left] > _EXTRA_STEPS
            go_on = ~self.arrived[left] & np.isfinite(self.u[left]).all(axis=1)
            left, w, i, slope = left[go_on], w[go_on], i[go_on], slope[go_on]

    def _step(self, rows: Ints, w: Floats, i: Floats, slope: Floats) -> tuple[Floats, Floats, Floats, Bools]:
        """A step of these rows with tangents at w, through i, V and A: where the next ones are, their currents and
        slopes, and which rows are near.
        """
        net, law, params = self.network, self.network.law, self.network.params
        u = self.u[rows]
        wanted = take_rows(self.sides, rows) - net.flow(u) - (i + slope * (self._across(rows) - w)) @ net.incidence
        self.u[rows] = u + net.factor(slope).solve(wanted)
        v = self._across(rows)
        line = i + slope * (v - w)
        current, new = branch_current(law, params, v)
        largest = np.abs(self.u[rows, : net.problem.n_free]).max(axis=1, initial=0.0, keepdims=True)
        rounding = ROUNDING * np.maximum(largest, take_rows(self.fixed, rows))
        close = near(current, line, np.maximum(slope, new) * rounding)
        at = limited(law, params, w, v, line)
        return at, *((current, new) if np.array_equal(at, v) else branch_current(law, params, at)), close

    def _across(self, rows: Ints) -> Floats:
        return self.u[rows] @ self.network.incidence.T + take_rows(self.drive.junction_offset, rows)

    def polish(self, rows: list[int], found: Gathered) -> bool:
        """Put the solution of these rows, which follow each other, into `found`; False where it is none."""
        these = slice(rows[0], rows[-1] + 1)
        net, slope, drive = self.network, self.slope[these], self.drive.part(these)
        if not (self.arrived[these].all() and np.isfinite(slope).all()):
            return False
        if not net.problem.circuit.reciprocal and not (np.linalg.cond(net.matrices(slope)) < SINGULAR).all():
            return False  # row by row it comes out what a singular network leaves open
        outcome = polished(net, drive, self.settings, self.u[these], np.zeros(0), slope, self.steps)
        if outcome.status is not Status.SOLVED or not outcome.sure:
            return False
        found.put(rows, outcome)
        return True


def solve_tile_there(
    there: RowSteps, network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool
) -> tuple[Outcome, int]:
    """Solve a tile by full steps for all rows at once in another place; rows that do not arrive there, row by row here.

    Returns how many these were, too.
    """
    ends = np.concatenate([x, np.zeros((x.shape[0], 1))], axis=1)  # index -1: known, its potential is in the offset
    legs = network.legs
    there.start(drive, first_voltages(network, ends[:, legs.a] - ends[:, legs.k] + drive.junction_offset, warm))
    settled = step = 0
    while settled <= _EXTRA_STEPS and step < min(newton.FULL_STEPS, settings.max_sweeps):
        step += 1
        settled += there.step(NEAR)
    found, arrived, residuals = there.found(settings.tolerance, MOVES)
    left = np.flatnonzero(~arrived)
    found[left] = x[left]
    rows = OneByOne(network, drive, settings, Outcome(found, Status.SOLVED, step, residuals), warm)
    for row in left.tolist():
        rows.solve(row)
    return rows.found.outcome(), left.size


def _linear(network: Network, drive: Drive, settings: Settings, x: Floats) -> Outcome:
    """All rows at once: one network, several right-hand sides."""
    none = np.zeros(0)
    solved = network.factor(none)
    u = np.zeros((x.shape[0], network.size))
    u[:, solved.floating] = x[:, solved.floating]
    sides = network.violations(drive, u) if u.any() else network.sides(drive)
    u = u + solved.solve(sides)
    u[:, : x.shape[1]] = np.clip(u[:, : x.shape[1]], drive.lo, drive.hi)
    return polished(network, drive, settings, u, none, none, 1)
