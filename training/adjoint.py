"""Gradients by linearising a circuit: the adjoint at its equilibrium, and back-propagation through sweeps.

The implicit gradient solves J' delta = -dC/dv, with J the circuit linearised at its equilibrium - its conductances, and
the laws of controlled sources, which make it unsymmetric - and has total = 2 v. Without controlled sources it is the
limit of equilibrium propagation for a vanishing nudge. Units that an ideal diode holds are left out; those that a diode
joins move as one. Back-propagation gives a pair of fields for each step of each colour block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from circuitsim import Problem
from circuitsim.backends.arrange import dense_among_sparse
from circuitsim.backends.base import Backend
from circuitsim.drive import Drive
from circuitsim.graphs import components
from circuitsim.kcl import across_junctions, outflow
from circuitsim.laws import branch_current
from circuitsim.methods.mna import MnaNetwork
from training.gradient import Fields, Outputs, secants
from training.learner import LearningError
from training.phases import State

Floats = NDArray[np.float64]

_LEAST, _MISSES = 1e-15, 1e-9  # residuals relative to the right-hand side: asked of lsqr, and allowed


def _junction_slopes(problem: Problem, drive: Drive, x: Floats) -> Floats:
    """di/dv of the nonlinear branches with a free end, (rows, n)."""
    t, j = problem.topology, problem.circuit.junctions
    if not t.junctions.size:
        return np.zeros((x.shape[0], 0))
    v = across_junctions(problem, x) + drive.junction_offset
    return branch_current(j.law[t.junctions], j.params[t.junctions], v)[1]


def _nonlinear(problem: Problem, slopes: Floats) -> sparse.csr_array:
    """The conductance matrix of one row's nonlinear branches alone (slopes, S), (n_free, n_free)."""
    t = problem.topology
    rows, cols, values = [], [], []
    for own, other in ((t.junction_a, t.junction_k), (t.junction_k, t.junction_a)):
        for to, sign in ((own, 1.0), (other, -1.0)):
            has = (own >= 0) & (to >= 0)
            rows.append(own[has])
            cols.append(to[has])
            values.append(sign * slopes[has])
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(cols))
    return sparse.csr_array(entries, shape=(problem.n_free, problem.n_free))


def inside(drive: Drive, x: Floats, dtype: str) -> NDArray[np.bool_]:
    """Which units stand clear of their bounds, (rows, n_free), for states with the rounding of this dtype."""
    rounding = 4 * np.finfo(dtype).eps * np.abs(x).max(axis=1, initial=0.0, keepdims=True)
    return (x > drive.lo + rounding) & (x < drive.hi - rounding)


def implicit_fields(
    problem: Problem, drive: Drive, state: State, outputs: Outputs, pull: Floats, dtype: str = "float64"
) -> Fields:
    """Fields of the implicit gradient at the equilibrium, a state that was found in `dtype`; exact when that is.

    `pull` (rows, k): dC/dy there. LearningError where the linearised circuit determines no voltages.
    """
    x, n = state.x, problem.n_free
    wanted = outputs.onto_units(pull, n)
    slopes = _junction_slopes(problem, drive, x)
    linear, free = _linear(problem), inside(drive, x, dtype)
    carried = np.zeros((x.shape[0], drive.carried.shape[1])) if state.carried is None else state.carried
    if not problem.circuit.reciprocal:  # newton does not put units exactly at their bounds: the diodes' currents tell
        flow, slope = outflow(problem, replace(drive, carried=carried), x)
        with np.errstate(divide="ignore", invalid="ignore"):
            target = x - flow / slope
        free &= ~((target < drive.lo) | (target > drive.hi))
    ties = np.array([_always_tied(problem, offset) for offset in drive.link_offset])
    ties = np.broadcast_to(ties, (x.shape[0], ties.shape[1]))
    conducting = (carried[:, : ties.shape[1]] > 0) | ties
    delta = np.zeros_like(x)
    for rows in _alike(free, conducting, slopes):
        j, first = linear, rows[0]
        if slopes.shape[1]:
            nonlinear = _nonlinear(problem, slopes[first])
            nonlinear.resize(j.shape)
            j = j + nonlinear
        moves = _moves(problem, free[first], conducting[first], j)
        if not moves.shape[1]:
            continue
        solve = _solver((moves.T @ j @ moves).T.tocsc())
        for row in rows:
            side = np.zeros(j.shape[0])
            side[:n] = -wanted[row]
            delta[row] = (moves @ solve(moves.T @ side))[:n]
    return _fields(problem, drive, x, delta, pull, x.shape[0])


def _alike(*states: NDArray[Any]) -> Iterable[list[int]]:
    """The rows of the batch, those together in which all of these states (rows, n) are the same."""
    found: dict[bytes, list[int]] = {}
    for row in range(len(states[0])):
        found.setdefault(b"".join(state[row].tobytes() for state in states), []).append(row)
    return found.values()


def _solver(matrix: sparse.csc_array) -> Callable[[Floats], Floats]:
    """The solution for a right-hand side, as a function of it."""
    try:
        return cast(Callable[[Floats], Floats], linalg.splu(matrix).solve)
    except RuntimeError:  # exactly singular
        return partial(_least_norm, matrix)


def _least_norm(matrix: sparse.csc_array, side: Floats) -> Floats:
    """Of several solutions, in parts without a path to ground and without a pull, the one of least norm."""
    found = linalg.lsqr(matrix, side, atol=_LEAST, btol=_LEAST, conlim=0.0, iter_lim=20 * side.size)[0]
    if np.abs(matrix @ found - side).max() > _MISSES * np.abs(side).max(initial=0.0):
        raise LearningError("the linearised circuit determines no voltages at this state: it has no gradient there")
    return np.asarray(found)


def _always_tied(problem: Problem, offset: Floats) -> NDArray[np.bool_]:
    """Which links are antiparallel to another one that leaves no gap between them, so that both fix one voltage,
    (n_links,); `offset` (n_links,) is Drive.link_offset of one row."""
    legs = problem.topology.legs
    ends = list(zip(legs.link_a.tolist(), legs.link_k.tolist(), offset.tolist(), strict=True))
    every = set(ends)
    return np.array([(k, a, -room) in every for a, k, room in ends], bool)


def _linear(problem: Problem) -> sparse.csr_array:
    """The matrix of the linear branches; with controlled sources that of MnaNetwork, which has further equations and
    currents."""
    if not problem.circuit.reciprocal:
        return MnaNetwork(problem).matrix
    return (sparse.diags_array(problem.values.diag) - dense_among_sparse(problem)).tocsr()


def _moves(
    problem: Problem, free: NDArray[np.bool_], conducting: NDArray[np.bool_], j: sparse.csr_array
) -> sparse.csr_array:
    """How the unknowns of one row move, (size, groups): 1 where an unknown is in a group, which moves as one.

    Conducting perfect diodes join units to groups. No group has units that are held at a bound (not `free`), or an
    unknown on its own whose row of the matrix j is 0.
    """
    n, size = problem.n_free, j.shape[0]
    legs = problem.topology.legs
    group = components(n, legs.link_a[conducting], legs.link_k[conducting])
    group = np.concatenate([group, np.arange(n, size)])
    still = np.zeros(size, bool)
    still[group[:n][~free]] = True
    alone = np.bincount(group, minlength=size) == 1
    still |= alone & (np.asarray(abs(j).sum(axis=1)).ravel() == 0)
    moving = np.flatnonzero(~still[group])
    columns, place = np.unique(group[moving], return_inverse=True)
    return sparse.csr_array((np.ones(moving.size), (moving, place)), shape=(size, columns.size))


def _fields(problem: Problem, drive: Drive, x: Floats, delta: Floats, pull: Floats, samples: int) -> Fields:
    """Fields of a linearisation at x, from delta (rows, n_free) at the units, V/S; `samples` is that of Fields."""
    nodes = np.arange(problem.topology.index_of_node.size)
    v = problem.node_voltages(x, drive.fixed, nodes)
    none = np.zeros((1, drive.fixed.shape[1]))
    return Fields(problem.node_voltages(delta, none, nodes), 2 * v, secants(problem, v, v), pull, samples)


def bp_fields(
    problem: Problem,
    drive: Drive,
    x: Floats,
    outputs: Outputs,
    targets: Floats,
    sweeps: int,
    dtype: str,
    backend: Backend,
) -> tuple[list[Fields], Floats]:
    """Fields of back-propagation through `sweeps` sweeps that start from x, a pair for each block step; the end state.

    The block step x_u = clip((sum g x_w + i) / a_u) has dx_u = (sum g dx_w + sum (x_w - x_u) dg) / a_u, and 0 at a
    bound. With lambda_u = dC/dx_u the steps, taken backwards, give mu_u = lambda_u / a_u, lambda_w += g mu_u.
    """
    t = problem.topology
    states = list(_trajectory(problem, drive, x, sweeps, dtype, backend))
    pull = outputs.voltages(problem, drive, states[-1]) - targets
    lam = outputs.onto_units(pull, problem.n_free)
    w = dense_among_sparse(problem)
    found = []
    for k in range(sweeps, 0, -1):
        for c in range(t.n_colors - 1, -1, -1):
            block = slice(int(t.color_ptr[c]), int(t.color_ptr[c + 1]))
            at = np.concatenate([states[k][:, : block.stop], states[k - 1][:, block.stop :]], axis=1)
            mu = np.zeros_like(lam)
            clear = inside(drive, at, dtype)[:, block]
            slopes = _junction_slopes(problem, drive, at)
            for row in range(at.shape[0]):
                diag, near = problem.values.diag, w
                if slopes.shape[1]:
                    nonlinear = _nonlinear(problem, slopes[row])
                    own = nonlinear.diagonal()
                    diag, near = diag + own, w + sparse.diags_array(own) - nonlinear
                a = diag[block]
                mu[row, block] = np.where(clear[row] & (a > 0), lam[row, block], 0.0) / np.where(a > 0, a, 1.0)
                lam[row, block] = 0.0
                lam[row] += near @ mu[row]
            direct = pull if (k, c) == (sweeps, t.n_colors - 1) else np.zeros_like(pull)
            found.append(_fields(problem, drive, at, -mu, direct, x.shape[0]))
    return found, states[-1]


def _trajectory(
    problem: Problem, drive: Drive, x: Floats, sweeps: int, dtype: str, backend: Backend
) -> Iterator[Floats]:
    """x, and the state after each sweep."""
    engine = backend.engine(problem, dtype)
    engine.start(drive, x)
    yield engine.voltages()
    for _ in range(sweeps):
        engine.sweep(1)
        yield engine.voltages()
