"""Graphs whose elimination would cause too much fill-in: conjugate gradients, preconditioned by a sampled elimination.

They stop on the violation of KCL. wires.py and multigrid.py do the same for meshes, with other preconditioners.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim.compiled import jit
from circuitsim.graphs import components
from circuitsim.linear.elimination import Elimination, Factors
from circuitsim.linear.fill import costs_more
from circuitsim.linear.forest import Forest, strong_forest
from circuitsim.linear.sampled import Sampled, sampled

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

REDUCTION = 1e-9  # of the residual in one solve; what is left is corrected in another (newton)
_MOST_STEPS = 300  # of conjugate gradients; with a sampled elimination they take some tens
_MOST_UPDATES = 100_000_000_000  # of an elimination where conjugate gradients do not converge: a minute or two


class Gradients:
    """Edges i - j between n nodes."""

    def __init__(self, n: int, i: Ints, j: Ints) -> None:
        self.n, self.i, self.j = n, i, j

    @cached_property
    def elimination(self) -> Elimination | None:
        """The exact method, for networks that conjugate gradients cannot solve; None where it would take too long."""
        dear = costs_more(self.n, self.i, self.j, _MOST_UPDATES)
        return None if dear else Elimination(self.n, self.i, self.j)

    def factor(self, g: Floats, to_ground: Floats, before: object = None, rows: int = 1) -> Iterated:
        return Iterated(self, g, to_ground)


class Iterated:
    """A network and its preconditioner. Where conjugate gradients do not converge it is eliminated, if possible."""

    given_up = False  # True once conjugate gradients did not converge with the forest

    def __init__(self, pattern: Gradients, g: Floats, to_ground: Floats) -> None:
        self.pattern, self.g, self.to_ground = pattern, g, to_ground
        live = g > 0
        self.live = pattern.i[live].astype(np.int32), pattern.j[live].astype(np.int32), g[live]
        part = components(pattern.n, pattern.i[live], pattern.j[live])
        grounded = np.zeros(pattern.n, bool)
        grounded[part[to_ground > 0]] = True
        self.loose = np.zeros(pattern.n, bool)
        self.floating = np.flatnonzero(~grounded & (part == np.arange(pattern.n)))

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        """The conductance matrix; a node that nothing joins to anything has 1 S to ground."""
        i, j, g = self.live
        n = self.pattern.n
        diag = np.bincount(i, g, n) + np.bincount(j, g, n) + self.to_ground
        every = np.arange(n, dtype=np.int32)
        entries = np.concatenate([-g, -g, np.where(diag > 0, diag, 1.0)])
        at = np.concatenate([i, j, every]), np.concatenate([j, i, every])
        return sparse.csr_matrix((entries, at), shape=(n, n))

    def flow(self, v: Floats) -> Floats:
        """The current out of each node, (n,), A, at voltages v (n,), V: the matrix times v, as differences."""
        out: Floats = _flow(*self.live, self.to_ground, v.ravel())
        return out

    @cached_property
    def forest(self) -> Forest | None:
        """The forest of strong edges, None where they close a loop; only for a network that does not float."""
        return strong_forest(*self.live, self.to_ground)

    @cached_property
    def sampled(self) -> Sampled:
        """The sampled elimination, a preconditioner."""
        return sampled(*self.live, self.to_ground)

    @cached_property
    def factors(self) -> Factors | None:
        """The network, eliminated; None where that would take too long."""
        elimination = self.pattern.elimination
        return elimination.factor(self.g, self.to_ground) if elimination else None

    def solve(self, injected: Floats) -> Floats:
        """Voltages, (rows, n), V, for injected currents, (rows, n), A; the last iterates where nothing converges."""
        factors = self.factors if self.floating.size or "factors" in self.__dict__ else None
        if factors:
            return factors.solve(injected)
        out = np.empty_like(injected)
        for row, current in enumerate(injected):
            out[row], found = self.iterated(current)
            if not found and self.factors:
                return self.factors.solve(injected)
        return out

    def iterated(self, current: Floats) -> tuple[Floats, bool]:
        """Voltages for one row of currents, (n,), and whether they are a solution.

        They are corrected once: then they are as exact as by elimination, also where nothing flows.
        """
        return self.corrected(current, self.sampled.solve, _MOST_STEPS)

    def corrected(self, current: Floats, preconditioner: Callable[[Floats], Floats], most: int) -> tuple[Floats, bool]:
        """Voltages by `gradients`, corrected once, and whether they are a solution."""
        found, solved = self.gradients(current, preconditioner, most)
        if not solved:
            return found, False
        more, _ = self.gradients(current - self.flow(found), preconditioner, most)
        return found + more, True

    def gradients(self, current: Floats, preconditioner: Callable[[Floats], Floats], most: int) -> tuple[Floats, bool]:
        """Voltages after at most so many steps, 0 if these are not finite, and whether they are a solution."""
        shape = current.size, current.size
        network, near = (
            sparse.linalg.LinearOperator(shape, function, dtype=np.float64) for function in (self.flow, preconditioner)
        )
        with warnings.catch_warnings(record=True):  # what is returned says it all
            found, left = sparse.linalg.cg(network, current, rtol=REDUCTION, maxiter=most, M=near)
        finite = bool(np.isfinite(found).all())
        return (found if finite else np.zeros_like(found)), finite and not left


@jit()
def _flow(i: Ints, j: Ints, g: Floats, to_ground: Floats, v: Floats) -> Floats:
    """Currents out of the nodes at voltages v."""
    out = to_ground * v
    for k in range(g.size):
        current = g[k] * (v[i[k]] - v[j[k]])
        out[i[k]] += current
        out[j[k]] -= current
    return out
