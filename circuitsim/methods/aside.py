"""Newton for many inputs of a small nonlinear circuit: one copy of the circuit for each, side by side (stack.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.drive import Drive
from circuitsim.kcl import shift
from circuitsim.methods import regions, tiles
from circuitsim.methods.mna import make_network
from circuitsim.methods.network import Network
from circuitsim.methods.outcome import Outcome
from circuitsim.methods.rows import Rescue, Tile
from circuitsim.problem import Problem
from circuitsim.residual import NO_RESIDUALS, Check
from circuitsim.solution import Settings
from circuitsim.stack import (
    FEW_STEPS,
    Stacks,
    carried_in_copies,
    most_copies,
    solve_in_shares,
    stacked,
    units_in_copies,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_MOST_UNITS = 1_000  # unknowns: larger circuits take less time row by row, each row from the one before it


def worth_it(problem: Problem) -> bool:
    """Whether rows are best solved this way: true for nonlinear circuits that are too large for dense matrices."""
    few = problem.n_free <= _MOST_UNITS and most_copies(problem) > 1
    return few and problem.topology.legs.a.size > 0 and not tiles.together(problem)


def solve_tile(
    network: Network, stacks: Stacks, drive: Drive, settings: Settings, x: Floats, warm: bool, rescue: Rescue
) -> Outcome:
    """Solve one tile of the batch, as tiles.solve_tile does: its first row, and from it, or their own x, the others.

    The certificate is that of the rows themselves.
    """
    problem = network.problem
    few_steps = replace(settings, max_sweeps=min(settings.max_sweeps, FEW_STEPS))
    tile = Tile(network, drive, settings, Outcome(x, 0, NO_RESIDUALS), warm, rescue)
    found = tile.found
    left = regions.solve(tile) if regions.straight(network) else np.arange(x.shape[0])

    def many(rows: list[int]) -> bool:
        start = x[rows] if warm else np.repeat(found.x[[found.solved_before(rows[0]) or 0]], len(rows), axis=0)
        circuits = [problem.circuit.at_rows(slice(k, k + 1)) for k in drive.rows.start + np.array(rows)]
        stack = stacks.problem(stacked(circuits))
        units = units_in_copies(stack)
        at = np.zeros((1, stack.n_free))
        at[0, units] = start
        outcome = tiles.solve_tile(make_network(stack), stack.drive(slice(0, 1)), few_steps, at, warm=True)
        if not outcome.arrived or (outcome.loose is not None and outcome.loose.any()):
            return False
        low = None if outcome.low is None else outcome.low[:, 0][:, units]
        carried = np.zeros((len(rows), 0)) if outcome.carried is None else carried_in_copies(stack, outcome.carried)
        parts = [outcome.x[0, units], *(() if low is None else low)]
        there, of_rows = tile.at(np.array(rows))
        of_rows = replace(of_rows, carried=carried)
        of_rows = shift(there.problem, of_rows, *parts[:-1]) if low is not None else of_rows
        residuals = Check(there.problem, of_rows, parts[-1], exact=True).certificate()
        if not residuals.kcl_relative <= settings.tolerance:
            return False
        found.put(rows, Outcome(parts[0], outcome.steps, residuals, {}, low, carried))
        return True

    solve_in_shares(left.tolist(), stacks.size, many, tile.solve)
    return found.outcome()
