"""Solve a problem: choose the method, work through the batch tile by tile, gather the certificate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from circuitsim.backends.base import Backend, find_backend
from circuitsim.circuit import Circuit
from circuitsim.errors import NotSolved, SettingsError
from circuitsim.methods import bcd
from circuitsim.problem import Problem, compile_problem
from circuitsim.residual import Residuals
from circuitsim.solution import Settings, Solution, Status

Floats = NDArray[np.float64]

_TILE = 256  # rows of a batch that are solved together: their voltages stay in the caches


def solve(
    circuit: Circuit | Problem,
    settings: Settings | None = None,
    *,
    start: Floats | None = None,
    backend: Backend | None = None,
    raise_on_failure: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Solution:
    """The DC equilibrium of a circuit, or of a prepared problem, with its certificate.

    Minimises the co-content E(v) under the ideal-diode inequalities (problem.py has the equations). Parameters:

    settings           method, backend, dtype, tolerance, sweep limit (Settings)
    start              (batch, n_free) V, unknowns to start from; default 0. The answer does not depend on it
    backend            a Backend object; default: the one that settings name
    raise_on_failure   raise NotSolved (which holds the Solution) unless the certificate is met
    progress           called with (rows done, rows in all) after each tile of the batch

    Raises TopologyError when no solution exists, SettingsError, BackendUnavailable, NotSolved.

    >>> from circuitsim.circuit import parse
    >>> solution = solve(parse("clamp\\nI1 0 a 1m\\nR1 a 0 10k\\n.model di D(ron=0 vfwd=0.7)\\nD1 a 0 di"))
    >>> solution.status.name, solution.voltage("a")
    ('SOLVED', array([0.7]))
    """
    settings = settings or Settings()
    clock = time.perf_counter()
    problem = circuit if isinstance(circuit, Problem) else compile_problem(circuit)
    compiled = time.perf_counter()
    backend = backend or find_backend(settings.backend)
    solution = _solve(problem, settings, backend, start, progress)
    seconds = {"compile": compiled - clock, "solve": time.perf_counter() - compiled}
    solution = replace(solution, seconds=seconds)
    if raise_on_failure and not solution.solved:
        raise NotSolved(solution)
    return solution


def _solve(
    problem: Problem,
    settings: Settings,
    backend: Backend,
    start: Floats | None,
    progress: Callable[[int, int], None] | None,
) -> Solution:
    shape = (problem.batch, problem.n_free)
    x = np.zeros(shape) if start is None else np.array(start, float)
    if x.shape != shape or not np.isfinite(x).all():
        raise SettingsError(f"start must be {shape} finite numbers (batch, unknowns), found shape {x.shape}")
    status, message, sweeps = Status.SOLVED, "", 0
    low: Floats | None = None
    residuals = Residuals(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if refused := bcd.refusal(problem):
        x[:] = np.nan
        status, message = Status.REFUSED, refused
        residuals = Residuals(*[float("nan")] * 6)  # type: ignore[arg-type]
    else:
        for rows, outcome in _tiles(problem, settings, backend, x):
            x[rows] = outcome.x
            if outcome.low is not None:
                low = np.zeros_like(x) if low is None else low
                low[rows] = outcome.low
            residuals = residuals.merge(outcome.residuals, rows.start)
            sweeps = max(sweeps, outcome.sweeps)
            if status is Status.SOLVED:
                status = outcome.status
            if progress:
                progress(rows.stop, problem.batch)
        message = _message(problem, status, residuals, settings, sweeps)
    return Solution(problem, x, low, status, message, residuals, "bcd", backend.name, settings.dtype, sweeps, {})


@cache  # finding the libraries takes longer than solving a small circuit
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _tiles(problem: Problem, settings: Settings, backend: Backend, x: Floats) -> Iterator[tuple[slice, bcd.Outcome]]:
    """Solve the batch tile by tile, in order; several at a time where the backend has several workers.

    BLAS keeps to one thread: the products of a sweep are small, and threads that wait for each other cost more than
    they bring (on a busy machine many times more).
    """
    tiles = [slice(first, min(first + _TILE, x.shape[0])) for first in range(0, x.shape[0], _TILE)]
    own = threading.local()

    def work(rows: slice) -> bcd.Outcome:
        if not hasattr(own, "engine"):
            own.engine = backend.engine(problem, settings.dtype)
        return bcd.solve_tile(problem, problem.drive(rows), own.engine, settings, x[rows])

    workers = min(backend.workers, len(tiles))
    with _blas().limit(limits=1, user_api="blas"):
        if workers <= 1:
            for rows in tiles:
                yield rows, work(rows)
            return
        pool = ThreadPoolExecutor(workers)
        try:
            yield from zip(tiles, pool.map(work, tiles), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _message(problem: Problem, status: Status, residuals: Residuals, settings: Settings, sweeps: int) -> str:
    if status is Status.SOLVED:
        return f"relative KCL {residuals.kcl_relative:.2g} <= {settings.tolerance:g} after {sweeps} sweeps"
    where = ""
    if residuals.worst_unit >= 0:
        node = problem.circuit.nodes[problem.topology.root_of_unit[residuals.worst_unit]]
        row = f", batch row {residuals.worst_row}" if problem.batch > 1 else ""
        where = f" (worst at node {node}{row})"
    return f"{status.value}: relative KCL {residuals.kcl_relative:.2g}{where} after {sweeps} sweeps"
