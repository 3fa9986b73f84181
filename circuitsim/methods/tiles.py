"""Newton for the rows of a tile: many at once where one step of all is a few dense products, else one by one.

All at once they take full steps only; rows that do not arrive are left to newton.py. In larger circuits the rows are
copies of the circuit (aside.py), or the backend has full steps of its own (base.RowSteps).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import RowSteps
from circuitsim.drive import Drive
from circuitsim.laws import branch_current
from circuitsim.linear.lu import SINGULAR
from circuitsim.methods import newton
from circuitsim.methods.held import hardly_moves
from circuitsim.methods.limiting import NEAR, first_voltages, limited, near
from circuitsim.methods.network import Network
from circuitsim.methods.outcome import Gathered, Outcome
from circuitsim.methods.polish import MOVES, polished
from circuitsim.problem import Problem
from circuitsim.residual import NO_RESIDUALS, Check
from circuitsim.solution import Settings, Status

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SMALL = 40  # unknowns, and legs, of circuits whose rows are solved at once
_EXTRA_STEPS = 2  # after all tangents are near


def solve_tile(network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool) -> Outcome:
    """Solve one tile of the batch; x (rows, n_free) is where to start when `warm`."""
    if not network.legs.a.size:
        return _linear(network, drive, settings, x)
    if x.shape[0] > 1 and together(network.problem):
        outcome = _rows_at_once(network, drive, settings, x, warm)
        if outcome.status is Status.SOLVED:
            return outcome
    return _row_by_row(
        network, drive, settings, Outcome(x, Status.SOLVED, 0, NO_RESIDUALS), np.arange(x.shape[0]), warm
    )


def _row_by_row(network: Network, drive: Drive, settings: Settings, others: Outcome, rows: Ints, warm: bool) -> Outcome:
    """Solve these rows of a tile, each from the row before it, or when `warm` from its own; the others are as given."""
    found = gathered(network, others)
    for row in rows.tolist():
        start = found.x[row - 1 if row and not warm else row]
        found.put([row], newton.solve_row(network, drive.part(slice(row, row + 1)), settings, start, warm or row > 0))
    return found.outcome()


def together(problem: Problem) -> bool:
    """Whether many rows are best solved at once, with dense matrices: small circuits without ideal diodes."""
    legs = problem.topology.legs
    return problem.n_free <= _SMALL and legs.a.size == legs.n_junctions <= _SMALL


def gathered(network: Network, others: Outcome) -> Gathered:
    """What outcomes of rows of this network are put into."""
    return Gathered(others, network.size, network.problem.topology.carrier_a.size)


def _rows_at_once(network: Network, drive: Drive, settings: Settings, x: Floats, warm: bool) -> Outcome:
    """Full steps for all rows of a tile; its status says whether all of them arrived."""
    rows, n = x.shape
    eye = np.eye(network.size)
    linear = network.flow(eye).T
    incidence = np.stack([network.across(unit) for unit in eye], axis=1)  # (legs, size)
    sides, offset = network.sides(drive), drive.junction_offset
    u = np.zeros((rows, network.size))
    u[:, :n] = x
    law, params = network.law, network.params
    w = first_voltages(network, u @ incidence.T + offset, warm)
    settled = step = 0
    i, g = branch_current(law, params, w)
    while settled <= _EXTRA_STEPS and step < min(newton.FULL_STEPS, settings.max_sweeps):
        step += 1
        matrix = linear + np.einsum("rm,mi,mj->rij", g, incidence, incidence)
        wanted = sides - (i + g * (offset - w)) @ incidence
        try:
            u = np.linalg.solve(matrix, wanted[:, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            break
        v = u @ incidence.T + offset
        line = i + g * (v - w)
        i, g = branch_current(law, params, v)
        settled += near(i, line)
        w = limited(law, params, w, v, line)
        if not np.array_equal(w, v):
            i, g = branch_current(law, params, w)
    u[:, :n] = np.where(np.isfinite(u[:, :n]), u[:, :n], 0.0)
    at = network.with_carried(drive, np.zeros(0), u[:, n:], u[:, :n])
    check = Check(network.problem, at, u[:, :n], exact=True)
    found = check.certificate()
    met = check.finite() and found.kcl_relative <= settings.tolerance
    if met and not network.problem.circuit.reciprocal:  # row by row it comes out what a singular network leaves open
        met = bool((np.linalg.cond(matrix) < SINGULAR).all())
    if met:  # likewise for voltages that little holds, or nothing
        try:
            correction = np.linalg.solve(matrix, network.violation(check)[:, :, None])[:, :n, 0]
            met = hardly_moves(correction, network.problem.copies.largest_around(u[:, :n]), MOVES)
        except np.linalg.LinAlgError:
            met = False
    carried = np.broadcast_to(at.carried, (rows, at.carried.shape[1]))
    return Outcome(u[:, :n], Status.SOLVED if met else Status.MAX_SWEEPS, step, found, None, carried)


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
    others = Outcome(found, Status.SOLVED, step, residuals)
    return _row_by_row(network, drive, settings, others, left, warm), left.size


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
