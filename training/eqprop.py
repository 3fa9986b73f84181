"""Equilibrium propagation on any circuit: pure functions over a Problem.

Nudging is a change of the circuit: E + beta C has a conductance beta (S) from every output node to a source of its
target's voltage. With v1 and v2 the equilibria at the nudges beta1 and beta2,

    dC/dtheta = (dE/dtheta(v1) - dE/dtheta(v2)) / (beta1 - beta2),        beta1, beta2 -> 0

(B. Scellier and Y. Bengio 2017; beta1 = -beta2, centred: A. Laborieux et al. 2021): in terms of gradient.py

    delta = (v1 - v2) / (beta1 - beta2),        total = v1 + v2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from circuitsim import Problem, Settings, Status
from circuitsim.backends.arrange import dense_among_sparse
from circuitsim.backends.base import Backend, Engine
from circuitsim.methods.bcd import solve_tile
from circuitsim.problem import Drive
from circuitsim.residual import outflow, shift, violation
from training.gradient import Fields, Outputs, secants
from training.learner import LearningError

Floats = NDArray[np.float64]

VARIANTS = {"centred": (1.0, -1.0), "positive": (1.0, 0.0), "negative": (0.0, -1.0)}  # nudges in units of beta
_DENSE = 6000  # unknowns up to which positive definiteness is decided by a dense factorisation
_MOST_SWEEPS = 100_000


@dataclass(frozen=True)
class Phase:
    """How a phase is relaxed: a number of sweeps, or until the residual is below a tolerance."""

    sweeps: int
    tol: float | None = None
    dtype: str = "float64"


def nudges(variant: str, beta: float) -> tuple[float, float]:
    """beta1 and beta2 of a variant, S."""
    first, second = VARIANTS[variant]
    return first * beta, second * beta


# -- phases ------------------------------------------------------------------------------------------------------------


def free_phase(problem: Problem, drive: Drive, x: Floats, phase: Phase, backend: Backend) -> Floats:
    """The state that a free phase reaches from x, (rows, n_free) V. LearningError when it does not reach phase.tol."""
    engine = backend.engine(problem, phase.dtype)
    if phase.tol is not None:
        outcome = solve_tile(problem, drive, engine, Settings(dtype=phase.dtype, tol=phase.tol), x)
        if outcome.status is not Status.SOLVED:
            raise LearningError(
                f"a free phase ends {outcome.status.name} after {outcome.steps} sweeps, with a relative KCL error of "
                f"{outcome.residuals.kcl_relative:.2g}; loosen tol, or fix the sweeps"
            )
        return outcome.x if outcome.low is None else outcome.x + outcome.low.sum(axis=0)
    engine.start(drive, x)
    engine.sweep(phase.sweeps)
    return engine.voltages()


def nudged(
    problem: Problem, drive: Drive, outputs: Outputs, targets: Floats, beta: float, y: Floats
) -> tuple[Problem, Drive]:
    """The circuit of E + beta C, for unknowns that are corrections to a state in which the outputs are at y."""
    v = problem.values
    count = np.bincount(outputs.units, minlength=problem.n_free)
    values = replace(v, diag=v.diag + beta * count, to_fixed=v.to_fixed + beta * count)
    pull = outputs.onto_units(beta * (targets - y), problem.n_free)
    return replace(problem, values=values), replace(drive, injection=drive.injection + pull)


def nudged_correction(
    problem: Problem,
    base: Drive,
    outputs: Outputs,
    targets: Floats,
    beta: float,
    y: Floats,
    phase: Phase,
    backend: Backend,
) -> Floats:
    """What a phase nudged by beta adds to the free state that `base` is shifted to, (rows, n_free) V.

    Relaxed as a correction, so that it keeps its own digits, however small it is beside the free state.
    """
    check_nudge(problem, outputs, beta)
    nudged_problem, drive = nudged(problem, base, outputs, targets, beta, y)
    engine = backend.engine(nudged_problem, phase.dtype)
    zero = np.zeros((y.shape[0], problem.n_free))
    engine.start(drive, zero)
    if phase.tol is None:
        engine.sweep(phase.sweeps)
        return engine.voltages()
    scale = max(abs(beta), np.finfo(float).tiny) * np.abs(targets - y).sum(axis=1)
    return _relax(nudged_problem, drive, engine, phase.tol, scale)


def _relax(problem: Problem, drive: Drive, engine: Engine, tol: float, scale: Floats) -> Floats:
    """Sweep until no KCL violation is above tol x scale (rows,) A, or rounding lets nothing move."""
    sweeps, count = 0, 2
    while sweeps < _MOST_SWEEPS:
        moved = engine.sweep(count)
        sweeps += count
        count = max(2, sweeps // 8)
        x = engine.voltages()
        flow, slope = outflow(problem, drive, x)
        rho = violation(flow, slope, x, drive.lo, drive.hi)
        if not moved or (np.abs(rho).max(axis=1, initial=0.0) <= tol * scale).all():
            return x
    raise LearningError(f"a nudged phase does not come to rest in {_MOST_SWEEPS} sweeps; loosen tol, or fix the sweeps")


def ep_fields(
    problem: Problem,
    drive: Drive,
    x: Floats,
    outputs: Outputs,
    targets: Floats,
    betas: tuple[float, float],
    phase: Phase,
    backend: Backend,
) -> tuple[Fields, Floats]:
    """Fields of equilibrium propagation from the free state x; also the state at the first nudge.

    With a nudge of 0 the free phase goes on for as many sweeps, so that both states have relaxed equally long.
    """
    y = outputs.voltages(problem, drive, x)
    base = shift(problem, drive, x)
    first, second = (nudged_correction(problem, base, outputs, targets, beta, y, phase, backend) for beta in betas)
    gap = betas[0] - betas[1]
    t = problem.topology
    nodes = np.arange(t.index_of_node.size)
    no_offset = np.zeros((1, drive.fixed.shape[1]))
    delta = problem.node_voltages((first - second) / gap, no_offset, nodes)
    free = problem.node_voltages(x, drive.fixed, nodes)
    total = 2 * free + problem.node_voltages(first + second, no_offset, nodes)
    y1, y2 = (outputs.voltages(problem, drive, x + c) for c in (first, second))
    pull = (betas[0] * (y1 - targets) - betas[1] * (y2 - targets)) / gap
    v1, v2 = (
        free + problem.node_voltages(first, no_offset, nodes),
        free + problem.node_voltages(second, no_offset, nodes),
    )
    return Fields(delta, total, secants(problem, v1, v2), pull, x.shape[0]), x + first


# -- is the nudged problem convex? -------------------------------------------------------------------------------------


def check_nudge(problem: Problem, outputs: Outputs, beta: float) -> None:
    """A negative nudge must leave every output some conductance, or no step of it is defined. LearningError."""
    if beta >= 0:
        return
    count = np.bincount(outputs.units, minlength=problem.n_free)[outputs.units]
    left = problem.values.diag[outputs.units] + beta * count
    if (left <= 0).any():
        k = int(np.argmin(left))
        raise not_convex(
            problem.circuit.nodes[int(outputs.nodes[k])], float(problem.values.diag[outputs.units[k]]), beta
        )


def check_convex(problem: Problem, outputs: Outputs, beta: float) -> None:
    """E + beta C, beta < 0, is convex when the conductance matrix less |beta| at the outputs is positive definite.

    (Sufficient: nonlinear branches and ideal diodes only add to it.) LearningError when it is not.
    """
    if beta >= 0:
        return
    check_nudge(problem, outputs, beta)
    count = np.bincount(outputs.units, minlength=problem.n_free)
    matrix = sparse.diags_array(problem.values.diag + beta * count) - dense_among_sparse(problem)
    if not positive_definite(matrix):
        raise not_convex("", np.nan, beta)


def not_convex(node: str, conductance: float, beta: float) -> LearningError:
    """The error that says so."""
    where = f": output {node} has a conductance of {conductance:.3g} S in all" if node else ""
    return LearningError(
        f"the problem nudged by {beta:g} S is not convex{where}; choose a smaller nudge, variant positive, or "
        "algorithm implicit or bp"
    )


def positive_definite(matrix: sparse.sparray | Floats) -> bool:
    """Whether a symmetric matrix is positive definite, by its Cholesky factors; large sparse ones by LDL' factors."""
    if isinstance(matrix, np.ndarray) or matrix.shape[0] <= _DENSE:
        try:
            np.linalg.cholesky(matrix if isinstance(matrix, np.ndarray) else matrix.toarray())
        except np.linalg.LinAlgError:
            return False
        return True
    try:
        lu = linalg.splu(
            matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError:  # exactly singular
        return False
    return bool((lu.perm_r == lu.perm_c).all() and (lu.U.diagonal() > 0).all())
