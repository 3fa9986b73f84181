"""How far islands drift: parts joined to ground by nonlinear branches alone, with currents far below those within.

A diode that does not conduct carries 1e-14 A or less. Elimination (linear/elimination.py) keeps such a conductance
next to any other, but LU factors of a network with controlled sources do not: the potential of the whole island is then
only their rounding. Here it comes from the sum of what crosses the island's border, which currents within do not enter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.kcl import across_junctions
from circuitsim.problem import Problem
from circuitsim.residual import ROUNDING, Check

Floats = NDArray[np.float64]


def may_drift(problem: Problem) -> bool:
    """Whether there are controlled sources, and islands that nonlinear branches and current sources alone join."""
    t, c = problem.topology, problem.circuit
    if c.reciprocal or not t.islands.arcs:
        return False
    part, d = t.islands.part, c.ideal_diodes
    return not ((part[d.a] != part[d.b]).any() or (part[c.active.a] != part[c.active.b]).any())


def drifted(check: Check, step: Floats) -> Floats:
    """The correction `step` (1, n_free), V, of the unknowns with a shift of each island as a whole added.

    The shifts are those after which the currents across each border add up to 0, on the tangents there:

        net_p + sum over crossing branches of +-slope (step_a - step_b + shift_a - shift_b) = 0.
    """
    from scipy.sparse import linalg  # which takes longer to load than small circuits take

    problem = check.problem
    t, j = problem.topology, problem.circuit.junctions
    part = t.islands.part
    a, b = (part[ends[t.junctions]] for ends in (j.a, j.b))
    net, size, slope = check.crossing(0)
    slope = np.where(a != b, slope, 0.0)
    more = slope * across_junctions(problem, step)[0]
    n = t.islands.n_parts
    net = net + np.bincount(a, more, n) - np.bincount(b, more, n)
    diag = np.bincount(a, slope, n) + np.bincount(b, slope, n)
    between = sparse.coo_array((np.tile(slope, 2), (np.r_[a, b], np.r_[b, a])), shape=(n, n)).tocsr()
    free = (diag > 0) & (np.abs(net) > ROUNDING * size)
    free[[0, *part[t.islands.pins]]] = False
    chosen = np.flatnonzero(free)
    shift = np.zeros(n)
    if chosen.size:
        matrix = (sparse.diags_array(diag) - between).tocsc()[chosen][:, chosen]
        try:
            shift[chosen] = linalg.splu(matrix).solve(-net[chosen])
        except RuntimeError:  # exactly singular: islands that nothing holds
            return step
    moved = step + shift[part[t.root_of_unit]]
    return moved if np.isfinite(moved).all() else step
