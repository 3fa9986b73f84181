"""Whether the voltages of a certified solution are held: how far a Newton correction would still move them.

KCL is met relative to the currents at a node. A node, or several joined by large conductances, may be held so weakly
that a violation far below these currents moves it by volts. With A the conductance matrix of the tangents and rho the
violations, the correction is A^-1 rho. A is an M-matrix, so A^-1 has no negative entry; the largest in each row is the
diagonal one, which is the resistance from the node to the known potentials; and that is at most the resistance of any
path there (Rayleigh's monotonicity law):

    |A^-1 rho|_u <= sum_v |rho_v| R_v,   R_v the resistance of a path from v to a known potential.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import Look
from circuitsim.laws import branch_current
from circuitsim.methods.network import Network
from circuitsim.problem import Problem
from circuitsim.residual import Check

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST_MOVED = 1e3  # times tolerance times the largest voltage: corrections that sweeps may leave, which cannot do as
# well as newton (polish.MOVES)
_PATH_SWEEPS = 32  # to find the resistances of paths; with fewer than the longest path needs, bounds are too large
_MOST_LOWERED = 8  # times that `_bound` lowers slopes
_BEYOND = 1.0 + 1e-9  # factor of a correction that leads to a knee, to be just past it


def hardly_moves(step: Floats, allowed: Floats) -> bool:
    """Whether a step of the voltages (rows, n_free) nowhere exceeds what is allowed, V."""
    return bool((np.abs(step) <= allowed).all())


class Held:
    """Answers for one reciprocal problem; `network` makes its network, which is needed where bounds do not decide.

    Hold `network_lock` when working with the network, which keeps what it factored last.
    """

    def __init__(self, problem: Problem, network: Callable[[], Network], network_lock: threading.RLock) -> None:
        self.problem, self.network, self.network_lock = problem, network, network_lock

    def settled(self, look: Look, tolerance: float) -> bool:
        """Whether a correction would move no voltage by more than 1,000 x tolerance x the largest of its row.

        To be called once KCL is met in every row.
        """
        return not self.unsettled(look, tolerance, first=True)

    def unsettled(self, look: Look, tolerance: float, first: bool = False) -> list[int]:
        """The rows in which KCL is met but a correction would move a voltage by more; with `first` at most one."""
        bound, largest = look.reach(self.paths)
        allowed = _MOST_MOVED * tolerance * largest
        doubtful = np.flatnonzero(~(bound <= allowed))
        if not doubtful.size:
            return []
        check = look.full()
        doubtful = doubtful[check.by_row(tolerance).max(axis=1)[doubtful] <= tolerance]
        if not doubtful.size:
            return []
        rho = check.exact_violation()
        rho = np.where(check.upper > 0, rho, 0.0)
        with self.network_lock:
            network = self.network()
            doubtful = doubtful[~(self._bound(network, check, np.abs(rho), doubtful) <= allowed[doubtful])]
            moving = (
                row
                for row in doubtful.tolist()
                if not self._bound(network, check, rho, np.array([row]))[0] <= allowed[row]
            )
            return list(islice(moving, 1)) if first else list(moving)

    def _bound(self, network: Network, check: Check, rho: Floats, rows: Ints) -> Floats:
        """The largest |A^-1 rho| of each of these rows, (len(rows),), V.

        A has the smallest slopes of the legs in any of the rows, at the check and at the voltages to which the
        correction leads: a node may be held strongly on one side of a knee and weakly beyond it. With smaller slopes
        every entry of A^-1 is larger.
        """
        n, legs = network.legs.n_junctions, network.legs
        offset = check.drive.junction_offset
        across = np.array([network.across(x)[:n] for x in check.x[rows]]) + offset[rows if len(offset) > 1 else [0]]
        at_bound = (check.flow - check.rho)[rows][:, np.concatenate([legs.lower, legs.upper])] != 0.0
        held = np.where(at_bound, network.rho[n:], 0.0)  # stiff where a diode holds a unit at its bound
        slope = np.append(branch_current(network.law, network.params, across)[1].min(axis=0), held.min(axis=0))
        most = np.zeros(rows.size)
        for _ in range(_MOST_LOWERED):
            step = network.factor(slope).solve(rho[rows])
            most = np.maximum(most, np.abs(step).max(axis=1, initial=0.0))  # a later step may be smaller: rho has signs
            a, k = (np.where(unit >= 0, step[:, unit], 0.0)[:, :n] for unit in (legs.a, legs.k))
            moved = np.abs(a - k) if rows.size == 1 else a + k  # of several rows rho has lost its signs
            moved = _BEYOND * moved
            ends = (branch_current(network.law, network.params, across + sign * moved)[1] for sign in (-1.0, 1.0))
            least = np.minimum(*ends).min(axis=0)
            if (least >= slope[:n] / 2).all():
                break
            slope = np.append(np.minimum(slope[:n], least), slope[n:])
        return most

    @cached_property
    def paths(self) -> Floats:
        """At least the resistance from each unit to a known potential over linear branches, (n_free,), Ohm."""
        v = self.problem.values
        with np.errstate(divide="ignore"):
            found = 1.0 / v.to_fixed
            joined = np.flatnonzero(np.diff(v.couplings.indptr))
            first, resistance = v.couplings.indptr[joined], 1.0 / v.couplings.data
            for _ in range(_PATH_SWEEPS):
                before = found.copy()
                if joined.size:
                    over = np.minimum.reduceat(resistance + found[v.couplings.indices], first)
                    found[joined] = np.minimum(found[joined], over)
                for spec, g in self.problem.inner_blocks:
                    rows, cols = spec.row.units, spec.col.units
                    found[rows] = np.minimum(found[rows], (1.0 / g + found[cols]).min(axis=1))
                    found[cols] = np.minimum(found[cols], (1.0 / g + found[rows][:, None]).min(axis=0))
                if np.array_equal(found, before):
                    break
        return found
