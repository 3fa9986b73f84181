"""Solve a problem: work through the batch tile by tile with the chosen method, and gather the certificate."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.backends.base import Backend, Engine, find_backend
from circuitsim.blas import one_blas_thread
from circuitsim.choosing import choose_backend, choose_method, is_on_trial
from circuitsim.circuit import Circuit
from circuitsim.drive import Drive
from circuitsim.errors import BackendUnavailable, NotSolved, SettingsError, listed
from circuitsim.laws import beyond_law
from circuitsim.linear.elimination import Factors
from circuitsim.methods import aside, bcd, tiles
from circuitsim.methods.held import Held
from circuitsim.methods.mna import KeptNetwork
from circuitsim.methods.outcome import Outcome, all_rows
from circuitsim.methods.rows import Rescue, no_rescue
from circuitsim.problem import Problem, compile_problem
from circuitsim.residual import NO_RESIDUALS, UNKNOWN, Residuals
from circuitsim.solution import WEAKLY_HELD, Settings, Solution, Status
from circuitsim.stack import Stacks

Floats = NDArray[np.float64]

_IN_CACHE = 250_000  # voltages that newton handles at once


def solve(
    circuit: Circuit | Problem,
    settings: Settings | None = None,
    *,
    start: ArrayLike | None = None,
    backend: Backend | None = None,
    raise_on_failure: bool = True,
    progress: Callable[[int, int], None] | None = None,
    in_order: bool = False,
    kept: KeptNetwork | None = None,
) -> Solution:
    """The DC equilibrium of a circuit, or of a prepared problem, with its certificate.

    Minimises the co-content E(v) under the ideal-diode inequalities (problem.py has the equations). With controlled
    sources there is no co-content, and it solves KCL and the laws of the sources. Parameters:

    circuit            a Circuit, or a Problem that was compiled before; sources may have a batch of values
    settings           method, backend, dtype, tolerance, sweep limit (Settings)
    start              (batch, n_free) V, unknowns to start from; default 0. The answer does not depend on it, unless
                       controlled sources together with nonlinear elements allow several
    backend            a Backend object; default: the one that settings names
    raise_on_failure   raise NotSolved (which holds the Solution) unless the certificate is met
    progress           called with (rows done, rows in all) after each tile of the batch
    in_order           solve tiles one after another, never in parallel: the same bits on any number of cores
    kept               takes the network, with its factors, of the solve before if only sources differ; the same bits

    Raises TopologyError when no solution exists, SettingsError, BackendUnavailable, NotSolved.

    >>> from circuitsim.build import parse
    >>> solution = solve(parse("clamp\\nI1 0 a 1m\\nR1 a 0 10k\\n.model di D(ron=0 vfwd=0.7)\\nD1 a 0 di"))
    >>> solution.status.name, solution.voltage("a")
    ('SOLVED', array([0.7]))
    """
    settings = settings or Settings()
    clock = time.perf_counter()
    if not isinstance(settings, Settings):
        raise SettingsError(f"settings must be Settings(...), found {settings!r}")
    if not isinstance(circuit, Circuit | Problem):
        raise SettingsError(
            f"solve takes a Circuit or a Problem, found {type(circuit).__name__}; read a netlist by load(path) or "
            "parse(text)"
        )
    check_progress(progress)
    if isinstance(backend, str):
        raise SettingsError(f"backend takes a Backend object; by name: Settings(backend={backend!r})")
    if backend is not None and not hasattr(backend, "tile"):
        raise SettingsError(f"backend takes a Backend object, found {backend!r}")
    if isinstance(circuit, Problem) and not settings.lenient:
        problem = circuit
    else:
        problem = compile_problem(circuit.circuit if isinstance(circuit, Problem) else circuit, settings.lenient)
    compiled = time.perf_counter()
    chosen = backend or choose_backend(problem, settings)
    try:
        solution = _solve(problem, settings, chosen, start, progress, in_order, kept)
    except BackendUnavailable:  # its memory has gone since it was chosen
        if backend or settings.backend != "auto":
            raise
        solution = _solve(problem, settings, find_backend("cpu"), start, progress, in_order, kept)
    seconds = {"compile": compiled - clock, "solve": time.perf_counter() - compiled}
    solution = replace(solution, seconds=seconds)
    if raise_on_failure and not solution.solved:
        raise NotSolved(solution)
    if settings.strict and solution.solved:
        solution.check_unique()
    return solution


def check_progress(progress: object) -> None:
    """Raise SettingsError unless `progress` is None or can be called."""
    if progress is not None and not callable(progress):
        raise SettingsError(f"progress takes a function of the numbers done and in all, found {progress!r}")


def _solve(
    problem: Problem,
    settings: Settings,
    backend: Backend,
    start: ArrayLike | None,
    progress: Callable[[int, int], None] | None,
    in_order: bool,
    kept: KeptNetwork | None,
) -> Solution:
    shape = (problem.batch, problem.n_free)
    wanted = f"start must be {shape} finite numbers (batch, unknowns)"
    try:
        x = np.zeros(shape) if start is None else np.asarray(start).astype(float, casting="same_kind", copy=True)
    except (TypeError, ValueError, OverflowError):
        raise SettingsError(f"{wanted}, found {start!r}") from None
    if x.shape != shape:
        raise SettingsError(f"{wanted}, found shape {x.shape}")
    if not np.isfinite(x).all():
        raise SettingsError(f"{wanted}, found {x[~np.isfinite(x)][0]}")
    method, why = choose_method(problem, settings)
    carried = np.zeros((problem.batch, problem.topology.carrier_a.size))
    loose = np.zeros(problem.n_free + problem.circuit.active_voltages.size, bool)
    if method == "bcd" and (refused := bcd.refusal(problem)):
        x[:] = np.nan
        return Solution(
            problem, x, None, all_rows(problem.batch, Status.REFUSED), refused, UNKNOWN, method, backend.name,
            dtype=settings.dtype, tolerance=settings.tolerance, steps=0, carried=carried, loose=loose, why=why,
        )  # fmt: skip
    unsolved: dict[int, Status] = {}
    sure, taken = True, Counter[str]()  # the most steps of any tile, by method
    low: Floats | None = None
    residuals = NO_RESIDUALS
    batch = _Batch(problem, settings, backend, method, start is not None, kept or KeptNetwork())
    for rows, outcome, by in batch.tiles(x, in_order):
        x = outcome.x if len(outcome.x) == len(x) else x  # which has them already (_Batch._tile)
        if outcome.low is not None:
            low = _more_parts(low, (len(outcome.low), *x.shape))
            low[: len(outcome.low), rows] = outcome.low
        if outcome.loose is not None:
            loose |= outcome.loose
        if outcome.carried is not None:
            carried[rows] = outcome.carried
        unsolved |= {rows.start + row: outcome.unsolved[row] for row in sorted(outcome.unsolved)}
        residuals = residuals.merge(outcome.residuals, rows.start)
        taken[by], sure = max(taken[by], outcome.steps), sure and outcome.sure
        if progress:
            progress(rows.stop, problem.batch)
    method, why, name = batch.method, batch.why(why), batch.backend_name
    steps = taken[method]
    message = _message(problem, unsolved, residuals, settings, steps_text(method, steps), singular=bool(loose.any()))
    weak = not unsolved and not sure and not loose.any()
    if weak:
        message += f"; {WEAKLY_HELD}"
    if unsolved and (diode := _overflowing(problem, x, low)):
        message += f"; the current of {diode} overflows there: put a resistor in series"
    return Solution(
        problem, x, low, unsolved, message, residuals, method, name,
        dtype=settings.dtype, tolerance=settings.tolerance, steps=steps, carried=carried, loose=loose, why=why,
        weakly_held=weak,
    )  # fmt: skip


def _overflowing(problem: Problem, x: Floats, low: Floats | None) -> str:
    """The name of a nonlinear branch whose exponential overflows; empty where none does."""
    j = problem.circuit.junctions
    parts = [x, *(() if low is None else low)]
    beyond = beyond_law(j.law, j.params, problem.drops(parts, problem.fixed_potentials(slice(0, len(x))), j.a, j.b))
    worst = np.flatnonzero(beyond.any(axis=0))
    return problem.circuit.element(j, int(worst[0])) if worst.size else ""


def _more_parts(low: Floats | None, shape: tuple[int, ...]) -> Floats:
    """Solution.low with at least as many parts as `shape` says, 0 where there were none; itself if it has them."""
    if low is None:
        return np.zeros(shape)
    missing = shape[0] - len(low)
    return np.concatenate([low, np.zeros((missing, *shape[1:]))]) if missing > 0 else low


def steps_text(method: str, count: int) -> str:
    """A number of steps in words.

    >>> steps_text("bcd", 24), steps_text("newton", 1)
    ('24 sweeps', '1 Newton step')
    """
    return f"{count} {'Newton step' if method == 'newton' else 'sweep'}{'s' * (count != 1)}"


class _Batch:
    """The tiles of a batch, solved one by one, or several at a time where the backend has several workers."""

    def __init__(
        self, problem: Problem, settings: Settings, backend: Backend, method: str, warm: bool, kept: KeptNetwork
    ) -> None:
        self.problem, self.settings, self.backend, self.method, self.warm = problem, settings, backend, method, warm
        self.per_thread = threading.local()  # an engine
        self.newton_on_backend = False  # whether newton took its steps, or solved its networks, where the backend does
        self.rows_left = 0  # that did not arrive there
        self.rescued = set[int]()  # rows that newton did not solve and bcd did
        self.why_changed = ""  # why `method` is not the one that was chosen
        self.network_lock: AbstractContextManager[object] = threading.RLock()  # a network keeps what it factored last
        self.solver = cache(lambda: backend.solver(problem))
        self.network = cache(lambda: kept.of(problem, self.solver()))
        self.row_steps = cache(lambda: backend.row_steps(problem))
        self.stacks = cache(lambda: Stacks(problem, problem.batch) if aside.worth_it(problem) else None)
        self.held = Held(problem, self.network, self.network_lock) if settings.dtype == "float64" else None
        chosen = backend.name == "cpu" or (backend.name, settings.backend) == ("gpu", "auto")
        self.is_open = settings.method == "auto" and settings.dtype == "float64" and chosen  # to the other method

    def tiles(self, x: Floats, in_order: bool) -> Iterator[tuple[slice, Outcome, str]]:
        """Solve tile by tile, or, unless `in_order`, several tiles at once: by bcd, and where one elimination solves
        all. The results come in order, each with its method.

        BLAS is limited to one thread: the products of a sweep are small, and threads that wait for each other cost
        more than they gain (on a busy machine many times more).
        """
        by_bcd = self.method == "bcd" and self._stands_trial(x[:1])
        if by_bcd:
            size = self.backend.tile(self.problem, self.settings.dtype)
        else:
            row_steps = self.row_steps()
            size = row_steps.tile if row_steps else 1 + _IN_CACHE // max(x.shape[1], 1)
        tiles = [slice(first, min(first + size, x.shape[0])) for first in range(0, x.shape[0], size)]
        workers = 1 if in_order else min(self.backend.workers, len(tiles))
        if workers > 1 and not by_bcd:
            if self._is_eliminated():
                self.network_lock = nullcontext()
            else:
                workers = 1
        with one_blas_thread(x.size * self.problem.mean_degree):
            if workers <= 1:
                for rows in tiles:
                    yield from self._tile(rows, x[rows])
                return
            from concurrent.futures import ThreadPoolExecutor

            pool = ThreadPoolExecutor(workers)
            try:
                for found in pool.map(lambda rows: self._tile(rows, x[rows]), tiles):
                    yield from found
            finally:
                pool.shutdown(cancel_futures=True)

    def _stands_trial(self, x: Floats) -> bool:
        """Whether bcd seems to be fast, from the first row at x (1, n_free), where this decides; or newton is taken."""
        if not self.is_open or not is_on_trial(self.problem):
            return True
        drive = self.backend.drive(self.problem, slice(0, 1))
        if bcd.takes_few_sweeps(drive, self._engine(), x, self.settings.tolerance):
            return True
        self._change("newton", "block coordinate descent would be slow")
        return False

    def _is_eliminated(self) -> bool:
        """Whether one elimination solves all rows: networks then keep nothing of a tile, and several tiles can be
        solved at once.
        """
        linear = self.problem.circuit.reciprocal and not self.problem.topology.legs.a.size
        return linear and isinstance(self.network().factor(np.zeros(0)), Factors)

    def _tile(self, rows: slice, x: Floats) -> list[tuple[slice, Outcome, str]]:
        """The outcome, its voltages copied into x unless the tile is the whole batch (much to copy for one thread).

        The tile is solved in halves where some rows overflow and spoil others.
        """
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # the certificate shows it
            outcome, by = self._solve_tile(rows, x)
        finite = np.isfinite(outcome.x).all(axis=1)
        if len(x) == 1 or not finite.any() or (finite.all() and Status.NONFINITE not in outcome.unsolved.values()):
            if len(x) < self.problem.batch:
                x[:] = outcome.x
                outcome = replace(outcome, x=x)
            return [(rows, outcome, by)]
        middle = len(x) // 2
        halves = slice(rows.start, rows.start + middle), slice(rows.start + middle, rows.stop)
        return [
            part for half, at in zip(halves, (x[:middle], x[middle:]), strict=True) for part in self._tile(half, at)
        ]

    def _solve_tile(self, rows: slice, x: Floats) -> tuple[Outcome, str]:
        """The outcome, and the method that produced it."""
        by_bcd, s, only = self.method == "bcd", self.settings, not self.is_open
        drive = self.backend.drive(self.problem, rows) if by_bcd else self.problem.drive(rows)
        if by_bcd:
            outcome = self._by_bcd(drive, x if self.warm else None, patient=only)
            if only or outcome.status in (Status.SOLVED, Status.NONFINITE):
                return outcome, "bcd"
            met = outcome.residuals.kcl_relative <= s.tolerance
            fault = "left weakly held voltages" if met else "was slow"
            self._change("newton", f"block coordinate descent {fault} after {outcome.steps} sweeps")
            return self._by_newton(self.problem.completed(drive), outcome.x, warm=True), "newton"
        if only or bcd.refusal(self.problem):
            return self._by_newton(drive, x, self.warm), "newton"
        if len(x) > 1:
            return self._by_newton(drive, x, self.warm, self._rescued), "newton"
        outcome = self._by_newton(drive, x, self.warm)
        other = outcome if outcome.arrived else self._by_bcd(drive, None, patient=False)
        if outcome.arrived or other.status is not Status.SOLVED:
            return outcome, "newton"
        fault = "left weakly held voltages" if outcome.status is Status.SOLVED else "did not converge"
        self._change("bcd", f"newton {fault} in {steps_text('newton', outcome.steps)}")
        return other, "bcd"

    def _rescued(self, drive: Drive, outcome: Outcome) -> Outcome:
        """The outcome of bcd if it solves this row, one of several, which newton has not solved for certain."""
        other = self._by_bcd(drive, None, patient=False)
        if other.status is not Status.SOLVED:
            return outcome
        self.rescued.add(drive.rows.start)
        return replace(other, steps=outcome.steps)

    def _change(self, method: str, reason: str) -> None:
        """Continue with another method, also for the remaining tiles."""
        self.method, self.why_changed = method, reason

    @property
    def backend_name(self) -> str:
        """The backend that did the work: for newton the CPU, unless newton_on_backend."""
        return self.backend.name if self.method == "bcd" or self.newton_on_backend else "cpu"

    def why(self, chosen: str) -> str:
        """Why this method was used (`chosen`: why the first one was), and how many rows were solved otherwise."""
        why = self.why_changed or chosen
        if self.rows_left:
            why += (
                f"; {self.rows_left} of {self.problem.batch} rows did not converge on the {self.backend_name} and were "
                "solved on the cpu"
            )
        if self.rescued:
            why += f"; newton did not solve {len(self.rescued)} of {self.problem.batch} rows, bcd did"
        return why

    def _by_bcd(self, drive: Drive, x: Floats | None, patient: bool) -> Outcome:
        return bcd.solve_tile(self.problem, drive, self._engine(), self.settings, x, held=self.held, patient=patient)

    def _engine(self) -> Engine:
        """That of this thread."""
        if not hasattr(self.per_thread, "engine"):
            self.per_thread.engine = self.backend.engine(self.problem, self.settings.dtype)
        engine: Engine = self.per_thread.engine
        return engine

    def _by_newton(self, drive: Drive, x: Floats, warm: bool, rescue: Rescue = no_rescue) -> Outcome:
        with self.network_lock:
            network, row_steps = self.network(), self.row_steps()
            if row_steps and x.shape[0] <= row_steps.tile:
                self.newton_on_backend = True
                outcome, left = tiles.solve_tile_by(row_steps, network, drive, self.settings, x, warm, rescue)
                self.rows_left += left
                return outcome
            self.newton_on_backend = self.newton_on_backend or self.solver() is not None
            if x.shape[0] > 1 and not self.newton_on_backend and (stacks := self.stacks()):
                return aside.solve_tile(network, stacks, drive, self.settings, x, warm, rescue)
            outcome = tiles.solve_tile(network, drive, self.settings, x, warm, rescue)
            if outcome.status is not Status.SOLVED and outcome.loose is not None and outcome.loose.any():
                network.check_consistent(drive)
            return outcome


def _message(
    problem: Problem,
    unsolved: Mapping[int, Status],
    residuals: Residuals,
    settings: Settings,
    after: str,
    singular: bool,
) -> str:
    """How it ended; of unsolved rows, those that ended like the first. `singular`: equations leave something open."""
    if unsolved:
        status = next(iter(unsolved.values()))
        failure = _failure(problem, status, residuals, settings, after, singular)
        if problem.batch == 1:
            return failure
        rows = [str(row) for row, ended in unsolved.items() if ended is status]
        others = dict.fromkeys(ended.name for ended in unsolved.values() if ended is not status)
        more = f"; {len(unsolved) - len(rows)} more: {', '.join(others)}" if others else ""
        return f"batch row{'s' * (len(rows) > 1)} {listed(rows)}: {failure}{more}"
    return f"relative KCL {residuals.kcl_relative:.2g} <= {settings.tolerance:g} after {after}"


def _failure(
    problem: Problem, status: Status, residuals: Residuals, settings: Settings, after: str, singular: bool
) -> str:
    """Why a row has this status, and the remedy."""
    c = problem.circuit
    sources = listed([c.element(c.controlled, k) for k in range(len(c.controlled))])
    if status is Status.INFEASIBLE:
        return f"{status.value}; check gains and loops of the controlled sources ({sources})"
    where = ""
    if residuals.worst_unit >= 0:
        node = problem.circuit.nodes[problem.topology.root_of_unit[residuals.worst_unit]]
        row = f", batch row {residuals.worst_row}" if problem.batch > 1 else ""
        where = f" (worst at node {node}{row})"
    reached = f"relative KCL {residuals.kcl_relative:.2g}{where} after {after}"
    if residuals.kcl_relative <= settings.tolerance:
        return (
            "KCL is met, but some voltages are held only by tiny conductances and may be wrong; use method newton: "
            f"{reached}"
        )
    if singular:
        return (
            f"the equations of the controlled sources ({sources}) are singular, as far as float64 can tell: no "
            f"solution, more than one, or one beyond its precision; check their gains and loops: {reached}"
        )
    cure = ", or use float64" if status is Status.STALLED and settings.dtype != "float64" else ""
    return f"{status.value}{cure}: {reached}"
