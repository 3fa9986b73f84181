"""Newton for the rows of a tile: many at once where one step of all is a few dense products, else one by one.

All at once they take full steps only; rows that do not arrive are left to newton.py. In circuits of straight pieces one
row's states solve others (regions.py), in larger ones the rows are copies of the circuit (aside.py), or the backend has
full steps of its own (base.RowSteps).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import RowSteps
from circuitsim.branches import take_rows
from circuitsim.drive import Drive
from circuitsim.laws import branch_current
from circuitsim.linear.lu import SINGULAR
from circuitsim.methods import newton, regions
from circuitsim.methods.limiting import NEAR, ROUNDING, first_voltages, largest_voltages, limited, near
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
Rescue = Callable[[Drive, Outcome], Outcome]  # of one row that newton has not solved, or not for sure, in this way

_SMALL = 40  # unknowns, and legs, of circuits whose rows are solved at once
_EXTRA_STEPS = 2  # after all tangents are near


def no_rescue(drive: Drive, outcome: Outcome) -> Outcome:
    """The outcome as it is."""
    return outcome


def solve_tile(
    network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool, rescue: Rescue = no_rescue
) -> Outcome:
    """Solve one tile of the batch; x (rows, n_free) is where to start when `warm`."""
    if not network.legs.a.size:
        return _linear(network, drive, settings, x)
    rows = [*range(len(x))]
    alone = OneByOne(network, drive, settings, Outcome(x, 0, NO_RESIDUALS), warm, rescue)
    at_once = _AtOnce(alone) if len(rows) > 1 and together(network.problem) else None
    if at_once and at_once.polish(rows):
        return alone.found.outcome()
    if len(rows) > 1 and regions.straight(network):
        rows = regions.solve(alone).tolist()
    if at_once and network.problem.circuit.reciprocal:
        solve_in_shares(rows, len(rows), at_once.polish, alone.solve)
        return alone.found.outcome()
    for row in rows:
        alone.solve(row)  # with controlled sources all of them, that of several solutions they follow one
    return alone.found.outcome()


class OneByOne:
    """Rows of a tile, each from the last one before it that is solved, or when `warm` from its own start.

    `found` holds all of them.
    """

    def __init__(
        self, network: Network, drive: Drive, settings: Settings, others: Outcome, warm: bool, rescue: Rescue
    ) -> None:
        """`others` are as given; when `warm` they are where to start. `rescue`: what to do where newton fails."""
        self.network, self.drive, self.settings, self.warm, self.rescue = network, drive, settings, warm, rescue
        self.found = Gathered(others, network.size, network.problem.topology.carrier_a.size)
        self.networks: list[Network] = []  # for rows that this one leaves

    def solve(self, row: int) -> None:
        """Solve this row."""
        self.found.put([row], self.outcome(row))

    def outcome(self, row: int) -> Outcome:
        """The outcome of this row; where newton leads nowhere, with other networks."""
        before = row if self.warm else self.found.solved_before(row)
        x, drive = self.found.x[before or 0], self.part(row)
        at = None if before is None else drive if self.warm else self.part(before)
        outcome = newton.solve_row(self.network, drive, self.settings, x, at)
        if outcome.status in (Status.STALLED, Status.SOLVED) and not outcome.arrived:
            self.networks = self.networks or [*self.network.otherwise()]
            for network in self.networks:
                other = newton.solve_row(network, drive, self.settings, x, at)
                if other.status is Status.SOLVED and (other.sure or outcome.status is not Status.SOLVED):
                    outcome = other
                if outcome.arrived:
                    break
        return outcome if outcome.arrived else self.rescue(drive, outcome)

    def part(self, row: int) -> Drive:
        """The drive of this row."""
        return self.drive.part(slice(row, row + 1))

    def at(self, rows: Ints) -> tuple[Network, Drive]:
        """The network of these rows, and their drive."""
        first, last, problem = int(rows[0]), int(rows[-1]), self.network.problem
        if last - first + 1 == rows.size:
            return self.network, self.drive.part(slice(first, last + 1))
        some = replace(problem, circuit=problem.circuit.at_rows(self.drive.rows.start + rows))
        return self.network.of(some), some.drive(slice(0, rows.size))


def together(problem: Problem) -> bool:
    """Whether many rows are best solved at once, with dense matrices: small circuits without ideal diodes."""
    legs = problem.topology.legs
    return problem.n_free <= _SMALL and legs.a.size == legs.n_junctions <= _SMALL


class _AtOnce:
    """Full steps for all rows of a tile: their unknowns, slopes of the tangents that gave them, and which `arrived`."""

    def __init__(self, alone: OneByOne) -> None:
        """The tile of `alone`, from its start; `polish` puts what is found with what that finds."""
        self.alone, self.network, self.drive = alone, alone.network, alone.drive
        self.sides = self.network.sides(self.drive)
        rows, n = alone.found.x.shape
        self.u = np.zeros((rows, self.network.size))
        self.u[:, :n] = alone.found.x
        self.slope = np.zeros((rows, self.network.legs.a.size))
        self.steps, self.arrived = np.zeros(rows, np.int64), np.zeros(rows, bool)
        self._run(first_voltages(self.network, self._across(np.arange(rows)), alone.warm))

    def _run(self, w: Floats) -> None:
        """Full steps from tangents at w, (rows, legs), V, of each row until it has arrived."""
        i, slope = branch_current(self.network.law, self.network.params, w)
        left, near_for = np.arange(len(w)), np.zeros(len(w), np.int64)  # steps
        for _ in range(min(newton.FULL_STEPS, self.alone.settings.max_sweeps)):
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
        fixed = take_rows(self.drive.fixed, rows)
        rounding = ROUNDING * largest_voltages(self.u[rows, : net.problem.n_free], fixed)
        close = near(current, line, np.maximum(slope, new) * rounding)
        at = limited(law, params, w, v, line)
        return at, *((current, new) if np.array_equal(at, v) else branch_current(law, params, at)), close

    def _across(self, rows: Ints) -> Floats:
        return self.u[rows] @ self.network.incidence.T + take_rows(self.drive.junction_offset, rows)

    def polish(self, rows: list[int]) -> bool:
        """Put the solution of these rows; False where it is none."""
        slope, alone = self.slope[rows], self.alone
        if not (self.arrived[rows].all() and np.isfinite(slope).all()):
            return False
        net = self.network
        if not net.problem.circuit.reciprocal and not (np.linalg.cond(net.matrices(slope)) < SINGULAR).all():
            return False  # row by row it comes out what a singular network leaves open
        none, steps = np.zeros((len(rows), 0)), int(self.steps[rows].max())
        outcome = polished(*alone.at(np.array(rows)), alone.settings, self.u[rows], none, slope, steps)
        if not outcome.arrived:
            return False
        alone.found.put(rows, outcome)
        return True


def solve_tile_there(
    there: RowSteps, network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool, rescue: Rescue
) -> tuple[Outcome, int]:
    """Solve a tile by full steps for all rows at once in another place; rows that do not arrive there, row by row here.

    Returns how many these were, too.
    """
    there.start(drive, first_voltages(network, network.across(x) + drive.junction_offset, warm))
    settled = step = 0
    while settled <= _EXTRA_STEPS and step < min(newton.FULL_STEPS, settings.max_sweeps):
        step += 1
        settled += there.step(NEAR)
    found, arrived, residuals = there.found(settings.tolerance, MOVES)
    left = np.flatnonzero(~arrived)
    found[left] = x[left]
    alone = OneByOne(network, drive, settings, Outcome(found, step, residuals), warm, rescue)
    alone.found.solved[arrived] = True
    for row in left.tolist():
        alone.solve(row)
    return alone.found.outcome(), left.size


def _linear(network: Network, drive: Drive, settings: Settings, x: Floats) -> Outcome:
    """All rows at once: one network, several right-hand sides."""
    none = np.zeros(0)
    solved = network.factor(none)
    u = np.zeros((x.shape[0], network.size))
    u[:, solved.floating] = x[:, solved.floating]
    sides = network.violations(drive, u) if u.any() else network.sides(drive)
    u = u + solved.solve(sides)
    u[:, : x.shape[1]] = np.clip(u[:, : x.shape[1]], drive.lo, drive.hi)
    return polished(network, drive, settings, u, np.zeros((len(u), 0)), none, 1)
