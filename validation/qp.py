"""Convex QP solvers on the equilibrium of a network of resistors, sources and ideal diodes to known potentials:

    minimise 1/2 x' A x - b' x   subject to   lo <= x <= hi,

A the conductance matrix of the free units (S), b the injected currents (A), x the unknown voltages (V).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from circuitsim import Problem
from circuitsim.residual import Check

Floats = NDArray[np.float64]

RUNGS = (1e-9, 1e-12, 1e-15, 1e-16)  # a peer's own tolerance, tightened until KCL is good enough
_MAX_STEPS = 20  # of an interior-point method; below the last rung they go on without gaining digits
_MAX_OSQP = 20_000
_HIGHS_SECONDS = 30.0


@dataclass(frozen=True)
class QuadraticProgram:
    """See the module; n unknowns."""

    A: sparse.csc_matrix  # (n, n) symmetric
    b: Floats  # (n,)
    lo: Floats  # (n,) -inf: no bound
    hi: Floats  # (n,) inf: no bound


@dataclass(frozen=True)
class PeerRun:
    """One solve by a peer."""

    x: Floats
    setup_seconds: float
    solve_seconds: float
    gave_up: bool

    @property
    def seconds(self) -> float:
        """Setup and solve."""
        return self.setup_seconds + self.solve_seconds


@dataclass(frozen=True)
class PeerResult:
    """A peer's run at the first of RUNGS that gave the KCL asked for, or at the one that came nearest."""

    run: PeerRun
    tolerance: float
    kcl_relative: float


def quadratic_program(problem: Problem) -> QuadraticProgram:
    """The QP of a problem's first batch row. ValueError when nonlinear resistors or diode links make it another."""
    t, v, n = problem.topology, problem.values, problem.n_free
    if t.junctions.size or t.links.size:
        raise ValueError("a QP with bounds needs ideal diodes to known potentials as the only nonlinear elements")
    unit = np.arange(n)
    A = sparse.diags_array(v.diag) - v.couplings
    for spec, g in zip(t.dense, v.dense, strict=True):
        if spec.inner:
            i, j = np.nonzero(g)
            block = sparse.coo_array((g[i, j], (unit[spec.row.units][i], unit[spec.col.units][j])), shape=(n, n))
            A = A - block - block.T
    drive = problem.drive(slice(0, 1))
    lo, hi = (bound[0].copy() for bound in (drive.lo, drive.hi))
    return QuadraticProgram(sparse.csc_matrix(A), drive.injection[0].copy(), lo, hi)


def relative_kcl(problem: Problem, x: Floats) -> float:
    """circuitsim's certificate of unknowns x, put within their bounds; inf when they are not numbers."""
    drive = problem.drive(slice(0, 1))
    if not np.isfinite(x).all():
        return np.inf
    return Check(problem, drive, np.clip(x[None, :], drive.lo, drive.hi)).certificate().kcl_relative


def _osqp(qp: QuadraticProgram, tolerance: float) -> PeerRun:
    osqp = importlib.import_module("osqp")
    clock = time.perf_counter()
    solver = osqp.OSQP()
    identity = sparse.eye(qp.b.size, format="csc")
    settings = {"eps_abs": tolerance, "eps_rel": tolerance, "max_iter": _MAX_OSQP, "verbose": False}
    solver.setup(sparse.triu(qp.A, format="csc"), -qp.b, identity, qp.lo, qp.hi, **settings)
    ready = time.perf_counter()
    result = solver.solve(raise_error=False)
    done = time.perf_counter()
    return PeerRun(np.asarray(result.x, float), ready - clock, done - ready, result.info.status != "solved")


def _piqp(qp: QuadraticProgram, tolerance: float) -> PeerRun:
    """Its dense solver: on these matrices two to three times as fast as its sparse one."""
    piqp = importlib.import_module("piqp")
    clock = time.perf_counter()
    solver = piqp.DenseSolver()
    solver.settings.max_iter = _MAX_STEPS
    for name in ("eps_abs", "eps_rel", "eps_duality_gap_abs", "eps_duality_gap_rel"):
        setattr(solver.settings, name, tolerance)
    solver.setup(qp.A.toarray(), -qp.b, x_l=qp.lo, x_u=qp.hi)
    ready = time.perf_counter()
    status = solver.solve()
    done = time.perf_counter()
    return PeerRun(np.array(solver.result.x), ready - clock, done - ready, status != piqp.PIQP_SOLVED)


def _clarabel(qp: QuadraticProgram, tolerance: float) -> PeerRun:
    clarabel = importlib.import_module("clarabel")
    clock = time.perf_counter()
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.max_iter = False, _MAX_STEPS
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = tolerance
    identity = sparse.eye(qp.b.size, format="csr")
    below, above = np.isfinite(qp.lo), np.isfinite(qp.hi)
    rows = sparse.vstack([-identity[below], identity[above]], format="csc")
    limits = np.concatenate([-qp.lo[below], qp.hi[above]])
    cones = [clarabel.NonnegativeConeT(limits.size)]
    solver = clarabel.DefaultSolver(sparse.triu(qp.A, format="csc"), -qp.b, rows, limits, cones, settings)
    ready = time.perf_counter()
    result = solver.solve()
    done = time.perf_counter()
    solved = result.status == clarabel.SolverStatus.Solved
    return PeerRun(np.array(result.x), ready - clock, done - ready, not solved)


def _highs(qp: QuadraticProgram, tolerance: float) -> PeerRun:
    """Its active-set method for quadratic programs; it takes no tolerance below 1e-10."""
    highspy = importlib.import_module("highspy")
    clock = time.perf_counter()
    model, n = highspy.HighsModel(), qp.b.size
    lower = sparse.tril(qp.A, format="csc")
    model.lp_.num_col_, model.lp_.num_row_ = n, 0
    model.lp_.col_cost_ = -qp.b
    model.lp_.col_lower_, model.lp_.col_upper_ = qp.lo, qp.hi
    model.lp_.a_matrix_.start_ = np.zeros(n + 1, np.int32)
    model.hessian_.dim_ = n
    model.hessian_.format_ = highspy.HessianFormat.kTriangular
    model.hessian_.start_, model.hessian_.index_, model.hessian_.value_ = lower.indptr, lower.indices, lower.data
    solver = highspy.Highs()
    for name, value in {
        "output_flag": False, "time_limit": _HIGHS_SECONDS, "qp_regularization_value": 0.0,
        "primal_feasibility_tolerance": max(tolerance, 1e-10), "dual_feasibility_tolerance": max(tolerance, 1e-10),
    }.items():  # fmt: skip
        solver.setOptionValue(name, value)
    solver.passModel(model)
    ready = time.perf_counter()
    solver.run()
    done = time.perf_counter()
    x = np.array(solver.getSolution().col_value, float)
    solved = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal and tolerance > 1e-10
    return PeerRun(x if x.size == n else np.full(n, np.nan), ready - clock, done - ready, not solved)


Peer = Callable[[QuadraticProgram, float], PeerRun]
PEERS: dict[str, Peer] = {"osqp": _osqp, "piqp": _piqp, "clarabel": _clarabel, "highspy": _highs}
SLOW_PEERS = ("piqp", "clarabel", "highspy")


def installed(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure_peer(peer: Peer, qp: QuadraticProgram, kcl: Callable[[Floats], float], wanted: float) -> PeerResult:
    """Tighten the peer's tolerance until its KCL is at most `wanted`, or it gives up; then the better of two runs."""
    found: list[PeerResult] = []
    for tolerance in RUNGS:
        run = peer(qp, tolerance)
        found.append(PeerResult(run, tolerance, kcl(run.x)))
        if found[-1].kcl_relative <= wanted or run.gave_up:
            break
    best = min(found, key=lambda result: result.kcl_relative)
    again = peer(qp, best.tolerance)
    return PeerResult(min(best.run, again, key=lambda run: run.seconds), best.tolerance, best.kcl_relative)
