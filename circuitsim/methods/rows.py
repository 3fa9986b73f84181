"""A tile of the batch while newton works on it: its rows, one by one, and their outcomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.methods import newton
from circuitsim.methods.network import Network
from circuitsim.methods.outcome import Gathered, Outcome
from circuitsim.solution import Settings, Status

Ints = NDArray[np.int64]
Rescue = Callable[[Drive, Outcome], Outcome]  # tries a row again that newton has not solved, or not for sure


def no_rescue(drive: Drive, outcome: Outcome) -> Outcome:
    """The outcome as it is."""
    return outcome


class Tile:
    """Rows of a tile, each started from the last solved row before it, or, when `warm`, from its own start.

    `found` holds the outcomes of all rows.
    """

    def __init__(
        self, network: Network, drive: Drive, settings: Settings, others: Outcome, warm: bool, rescue: Rescue
    ) -> None:
        """`others`: an initial outcome for all rows, the start when `warm`; `rescue`: what to do where newton fails."""
        self.network, self.drive, self.settings, self.warm, self.rescue = network, drive, settings, warm, rescue
        self.found = Gathered(others, network.size, network.problem.topology.carrier_a.size)
        self.networks: list[Network] = []  # for rows that newton does not solve with `network`

    def solve(self, row: int) -> None:
        """Solve this row."""
        self.found.put([row], self.outcome(row))

    def outcome(self, row: int) -> Outcome:
        """The outcome of this row; where newton fails, other networks are tried."""
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
