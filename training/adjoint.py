"""Gradients by linearising a circuit: the adjoint at its equilibrium, and back-propagation through sweeps.

The implicit gradient solves J delta = -dC/dv, with J the conductances of the circuit linearised at its equilibrium
(units that an ideal diode holds left out), and has total = 2 v: the limit of equilibrium propagation for a nudge that
vanishes. Back-propagation gives a pair of fields for each step of each colour block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from circuitsim import Problem
from circuitsim.backends.arrange import dense_among_sparse
from circuitsim.backends.base import Backend
from circuitsim.laws import branch_current
from circuitsim.problem import Drive
from training.gradient import Fields, Outputs, secants

Floats = NDArray[np.float64]


def _junction_slopes(problem: Problem, drive: Drive, x: Floats) -> Floats:
    """di/dv of the nonlinear branches with a free end, (rows, n)."""
    t, j = problem.topology, problem.circuit.junctions
    if not t.junctions.size:
        return np.zeros((x.shape[0], 0))
    padded = np.concatenate([x, np.zeros((x.shape[0], 1))], axis=1)
    v = padded[:, t.junction_a] - padded[:, t.junction_k] + drive.junction_offset
    return branch_current(j.law[t.junctions], j.params[t.junctions], v)[1]


def _linearised(problem: Problem, w: sparse.csr_array, slopes: Floats) -> tuple[Floats, sparse.csr_array]:
    """Diagonal and couplings of one row's circuit with its nonlinear branches (slopes, S) put in as conductances."""
    t = problem.topology
    n = problem.n_free
    diag = problem.values.diag.copy()
    for units in (t.junction_a, t.junction_k):
        has = units >= 0
        diag += np.bincount(units[has], slopes[has], n)
    both = (t.junction_a >= 0) & (t.junction_k >= 0)
    if both.any():
        a, k = t.junction_a[both], t.junction_k[both]
        entries = (np.tile(slopes[both], 2), (np.concatenate([a, k]), np.concatenate([k, a])))
        w = w + sparse.csr_array(entries, shape=(n, n))
    return diag, w


def inside(drive: Drive, x: Floats, dtype: str) -> NDArray[np.bool_]:
    """Which units stand clear of their bounds, (rows, n_free), for states with the rounding of this dtype."""
    rounding = 4 * np.finfo(dtype).eps * np.abs(x).max(axis=1, initial=0.0, keepdims=True)
    return (x > drive.lo + rounding) & (x < drive.hi - rounding)


def implicit_fields(
    problem: Problem, drive: Drive, x: Floats, outputs: Outputs, targets: Floats, dtype: str = "float64"
) -> Fields:
    """Fields of the implicit gradient at the equilibrium x, which was found in `dtype`; exact when x is."""
    pull = outputs.voltages(problem, drive, x) - targets
    wanted = outputs.onto_units(pull, problem.n_free)
    slopes = _junction_slopes(problem, drive, x)
    w = dense_among_sparse(problem)
    free = inside(drive, x, dtype)
    delta = np.zeros_like(x)
    for row in range(x.shape[0]):
        diag, near = _linearised(problem, w, slopes[row])
        units = np.flatnonzero(free[row] & (diag > 0))
        j = (sparse.diags_array(diag) - near).tocsc()[units][:, units]
        delta[row, units] = linalg.splu(j).solve(-wanted[row, units]) if units.size else 0.0
    return _fields(problem, drive, x, delta, pull, x.shape[0])


def _fields(problem: Problem, drive: Drive, x: Floats, delta: Floats, pull: Floats, samples: int) -> Fields:
    """Fields of a linearisation at x."""
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
            diag = np.empty_like(at)
            for row in range(at.shape[0]):
                diag[row], near = _linearised(problem, w, slopes[row])
                a = diag[row, block]
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
