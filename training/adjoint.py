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
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack
from scipy.sparse import linalg

from circuitsim import Problem
from circuitsim.backends.arrange import conductance_matrix, dense_among_sparse
from circuitsim.backends.base import Backend
from circuitsim.drive import Drive
from circuitsim.graphs import components
from circuitsim.kcl import across_junctions, outflow
from circuitsim.laws import branch_current
from circuitsim.methods.mna import MnaNetwork
from training.gradient import Fields, Outputs, secants
from training.learner import LearningError
from training.phases import State

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Matrix: TypeAlias = Floats | sparse.csr_array

_LEAST, _MISSES = 1e-15, 1e-9  # residuals relative to the right-hand side: asked of lsqr, and allowed
# Unknowns up to which LAPACK is faster than SuperLU with SciPy's matrices around it: a state of a grid of 196 nodes
# takes 1.0 instead of 1.1 ms, of 64 nodes 0.2 instead of 0.8 ms; in dense layers it is always faster.
_DENSE = 200


def _junction_slopes(problem: Problem, drive: Drive, x: Floats) -> Floats:
    """di/dv of the nonlinear branches with a free end, (rows, n)."""
    t, j = problem.topology, problem.circuit.junctions
    if not t.junctions.size:
        return np.zeros((x.shape[0], 0))
    v = across_junctions(problem, x) + drive.junction_offset
    return branch_current(j.law[t.junctions], j.params[t.junctions], v)[1]


def _stamps(problem: Problem) -> tuple[Ints, Ints, Ints, Floats]:
    """Where the slopes of nonlinear branches are added to a matrix: row, column, number of the branch, and sign."""
    t = problem.topology
    branch = np.arange(t.junctions.size)
    found = []
    for own, other in ((t.junction_a, t.junction_k), (t.junction_k, t.junction_a)):
        for to, sign in ((own, 1.0), (other, -1.0)):
            has = (own >= 0) & (to >= 0)
            found.append((own[has], to[has], branch[has], np.full(branch[has].size, sign)))
    rows, cols, branches, signs = (np.concatenate(column) for column in zip(*found, strict=True))
    return rows, cols, branches, signs


def _nonlinear(stamps: tuple[Ints, Ints, Ints, Floats], slopes: Floats, size: int) -> sparse.csr_array:
    """The conductance matrix of one row's nonlinear branches alone (slopes, S), (size, size)."""
    rows, cols, branch, sign = stamps
    return sparse.csr_array((sign * slopes[branch], (rows, cols)), shape=(size, size))


def _linearised(linear: Matrix, stamps: tuple[Ints, Ints, Ints, Floats], slopes: Floats) -> Matrix:
    """The matrix of the linear branches with one row's nonlinear ones, of the same kind."""
    rows, cols, branch, sign = stamps
    if not branch.size:
        return linear
    if not isinstance(linear, np.ndarray):
        return linear + _nonlinear(stamps, slopes, linear.shape[0])
    whole = linear.copy()
    np.add.at(whole, (rows, cols), sign * slopes[branch])
    return whole


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
    slopes, stamps = _junction_slopes(problem, drive, x), _stamps(problem)
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
    sides = np.zeros((x.shape[0], linear.shape[0]))
    sides[:, :n] = -wanted
    delta = np.zeros_like(sides)
    for rows in _alike(free, conducting, slopes):
        j, first = _linearised(linear, stamps, slopes[rows[0]]), rows[0]
        moving, group = _moves(problem, free[first], conducting[first], j)
        if not moving.size:
            continue
        adjoint = _adjoint(j, moving, group)
        for row in rows:
            delta[row, moving] = adjoint(sides[row, moving])
    delta = delta[:, :n]
    return _fields(problem, drive, x, delta, pull, x.shape[0])


def _alike(*states: NDArray[Any]) -> Iterable[list[int]]:
    """The rows of the batch, those together in which all of these states (rows, n) are the same."""
    found: dict[bytes, list[int]] = {}
    for row in range(len(states[0])):
        found.setdefault(b"".join(state[row].tobytes() for state in states), []).append(row)
    return found.values()


def _adjoint(j: Matrix, moving: Ints, group: Ints) -> Callable[[Floats], Floats]:
    """The solution of J' delta = side, both (moving.size,), as a function of `side`.

    J is the part of the matrix j for the unknowns `moving`; those of one `group` (0, 1, ...) have one delta, and their
    equations are added up.
    """
    part = j[np.ix_(moving, moving)] if isinstance(j, np.ndarray) else j[moving][:, moving]
    groups = int(group.max()) + 1
    if groups == moving.size:
        return _solver(part.T)
    sums = sparse.csr_array((np.ones(moving.size), (group, np.arange(moving.size))), shape=(groups, moving.size))
    solve = _solver((sums @ part @ sums.T).T)
    return lambda side: solve(sums @ side)[group]


def _solver(matrix: Matrix) -> Callable[[Floats], Floats]:
    """The solution for a right-hand side, as a function of it."""
    if isinstance(matrix, np.ndarray):
        lu, pivots, singular = lapack.dgetrf(matrix)
        if not singular:
            return lambda side: cast(Floats, lapack.dgetrs(lu, pivots, side)[0])
    else:
        try:
            return cast(Callable[[Floats], Floats], linalg.splu(sparse.csc_array(matrix)).solve)
        except RuntimeError:  # exactly singular
            pass
    return partial(_least_norm, sparse.csc_array(matrix))


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


def _linear(problem: Problem) -> Matrix:
    """The matrix of the linear branches, an array for few unknowns; with controlled sources that of MnaNetwork, which
    has further equations and currents."""
    if problem.circuit.reciprocal:
        return conductance_matrix(problem, _DENSE)
    matrix = MnaNetwork(problem).matrix
    return matrix.toarray() if matrix.shape[0] <= _DENSE else matrix


def _moves(problem: Problem, free: NDArray[np.bool_], conducting: NDArray[np.bool_], j: Matrix) -> tuple[Ints, Ints]:
    """The unknowns of one row that move, and the group of each (0, 1, ...), which moves as one.

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
    return moving, np.unique(group[moving], return_inverse=True)[1]


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
    w, stamps = dense_among_sparse(problem), _stamps(problem)
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
                    nonlinear = _nonlinear(stamps, slopes[row], problem.n_free)
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
