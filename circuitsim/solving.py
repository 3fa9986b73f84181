"""Solve a problem: choose the method, work through the batch tile by tile, gather the certificate."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.backends import gpu_mesh, gpu_newton
from circuitsim.backends.base import Backend, find_backend
from circuitsim.circuit import Circuit
from circuitsim.drive import Drive
from circuitsim.errors import BackendUnavailable, NotSolved, SettingsError
from circuitsim.laws import beyond_law
from circuitsim.linear import FEW_NODES, is_mesh
from circuitsim.linear.multigrid import Multigrid
from circuitsim.methods import aside, bcd, newton
from circuitsim.methods.held import Held
from circuitsim.methods.mna import make_network
from circuitsim.methods.outcome import Outcome
from circuitsim.problem import Problem, compile_problem
from circuitsim.residual import NO_RESIDUALS, UNKNOWN, Residuals
from circuitsim.solution import Settings, Solution, Status
from circuitsim.stack import Stacks
from circuitsim.units import listed

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

Floats = NDArray[np.float64]

_SMALL = 2_000  # branch ends times rows: products for which BLAS takes one thread in any case
_MANY_ROWS = 64  # of perfect diodes: bcd takes them at once; of others, and in meshes, it needs hundreds of sweeps
_IN_CACHE = 250_000  # voltages that newton handles at once
# Ends of branches between unknowns, times rows, above which `auto` takes the GPU for bcd. For 4.2e9 (1,000 images
# through drn_3h) four cores took 2.95 s, an H200 0.15 s after 0.8 s to start; one core takes 1.4 s for 1e9.
GPU_WINS = 1_000_000_000
# Unknowns times rows above which `auto` takes the GPU for newton in circuits of which it solves many rows at once. One
# core takes 4 to 6 us for each of them; an H200 took 0.16 s for 484,000, after 0.8 s to start.
GPU_WINS_NEWTON = 150_000
# The same in large meshes. For 1,000,000 multigrid took 4.4 s, an H200 2.1 s after 0.8 s to start.
GPU_WINS_MESH = 500_000


def solve(
    circuit: Circuit | Problem,
    settings: Settings | None = None,
    *,
    start: ArrayLike | None = None,
    backend: Backend | None = None,
    raise_on_failure: bool = True,
    progress: Callable[[int, int], None] | None = None,
    in_order: bool = False,
) -> Solution:
    """The DC equilibrium of a circuit, or of a prepared problem, with its certificate.

    Minimises the co-content E(v) under the ideal-diode inequalities (problem.py has the equations); with controlled
    sources, which have none, it solves KCL and their laws. Parameters:

    circuit            a Circuit, or a Problem that was compiled before; sources may have a batch of values
    settings           method, backend, dtype, tolerance, sweep limit (Settings)
    start              (batch, n_free) V, unknowns to start from; default 0. The answer does not depend on it, unless
                       controlled sources beside nonlinear elements leave several
    backend            a Backend object; default: the one that settings name
    raise_on_failure   raise NotSolved (which holds the Solution) unless the certificate is met
    progress           called with (rows done, rows in all) after each tile of the batch
    in_order           solve tiles one after another, never at once: the same bits however many cores there are

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
        solution = _solve(problem, settings, chosen, start, progress, in_order)
    except BackendUnavailable:  # its memory has gone since it was chosen
        if backend or settings.backend != "auto":
            raise
        solution = _solve(problem, settings, find_backend("cpu"), start, progress, in_order)
    seconds = {"compile": compiled - clock, "solve": time.perf_counter() - compiled}
    solution = replace(solution, seconds=seconds)
    if raise_on_failure and not solution.solved:
        raise NotSolved(solution)
    if settings.strict and solution.solved:
        solution.check_unique()
    return solution


def _solve(
    problem: Problem,
    settings: Settings,
    backend: Backend,
    start: ArrayLike | None,
    progress: Callable[[int, int], None] | None,
    in_order: bool,
) -> Solution:
    shape = (problem.batch, problem.n_free)
    try:
        x = np.zeros(shape) if start is None else np.array(start, float)
    except (TypeError, ValueError):
        raise SettingsError(f"start must be {shape} finite numbers (batch, unknowns), found {start!r}") from None
    if x.shape != shape or not np.isfinite(x).all():
        raise SettingsError(f"start must be {shape} finite numbers (batch, unknowns), found shape {x.shape}")
    method, why = choose_method(problem, settings)
    carried = np.zeros((problem.batch, problem.topology.carrier_a.size))
    loose = np.zeros(problem.n_free + problem.circuit.active_voltages.size, bool)
    if method == "bcd" and (refused := bcd.refusal(problem)):
        x[:] = np.nan
        return Solution(
            problem, x, None, Status.REFUSED, refused, UNKNOWN, method, backend.name,
            dtype=settings.dtype, tolerance=settings.tolerance, steps=0, carried=carried, loose=loose, why=why,
        )  # fmt: skip
    unsettled: list[int] = []
    status, sure, taken = Status.SOLVED, True, Counter[str]()  # the most steps of any tile, by method
    low: Floats | None = None
    residuals = NO_RESIDUALS
    work = _Work(problem, settings, backend, method, start is not None)
    for rows, outcome, by in work.tiles(x, in_order):
        x[rows] = outcome.x
        if outcome.low is not None:
            low = _more_parts(low, (len(outcome.low), *x.shape))
            low[: len(outcome.low), rows] = outcome.low
        if outcome.loose is not None:
            loose |= outcome.loose
        if outcome.carried is not None:
            carried[rows] = outcome.carried
        unsettled += [rows.start + row for row in outcome.unsettled]
        residuals = residuals.merge(outcome.residuals, rows.start)
        taken[by], sure = max(taken[by], outcome.steps), sure and outcome.sure
        if status is Status.SOLVED:
            status = outcome.status
        if progress:
            progress(rows.stop, problem.batch)
    if work.change:
        method, why = work.method, work.change
    steps = taken[method]
    name = backend.name if method == "bcd" or work.there else "cpu"
    if work.left:
        why += f"; {work.left} of {problem.batch} rows did not arrive on the {name} and were solved on the cpu"
    message = _message(problem, status, residuals, settings, steps_text(method, steps), singular=bool(loose.any()))
    if status is Status.SOLVED and not sure and not loose.any():
        message += "; so little holds some voltages that they may be less accurate than that"
    if status is not Status.SOLVED and (diode := _overflowing(problem, x, low)):
        message += f"; the current of {diode} overflows there: put a resistor in series"
    return Solution(
        problem, x, low, status, message, residuals, method, name,
        dtype=settings.dtype, tolerance=settings.tolerance, steps=steps, carried=carried, loose=loose, why=why,
        unsettled=tuple(unsettled),
    )  # fmt: skip


def _overflowing(problem: Problem, x: Floats, low: Floats | None) -> str:
    """The name of a nonlinear branch whose exponential overflows; empty where none does."""
    j = problem.circuit.junctions
    parts = [x, *(() if low is None else low)]
    beyond = beyond_law(j.law, j.params, problem.drops(parts, problem.fixed_potentials(slice(0, len(x))), j.a, j.b))
    worst = np.flatnonzero(beyond.any(axis=0))
    return problem.circuit.element(j, int(worst[0])) if worst.size else ""


def _more_parts(low: Floats | None, shape: tuple[int, ...]) -> Floats:
    """Next digits with at least so many parts, 0 where there were none."""
    have = 0 if low is None else len(low)
    more = np.zeros((max(shape[0] - have, 0), *shape[1:]))
    return more if low is None else np.concatenate([low, more])


def one_blas_thread(products: int) -> AbstractContextManager[object]:
    """Inside, BLAS keeps to one thread: sums have the same bits however many cores there are.

    products: branch ends times rows. Few need nothing, and nothing is loaded for them.
    """
    return nullcontext() if products <= _SMALL else _one_thread()


class _OneThread:
    """The limit, of the whole process: whoever comes first sets it, whoever goes last takes it away."""

    def __init__(self) -> None:
        self.lock, self.inside, self.limit = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.limit.enter_context(_blas().limit(limits=1, user_api="blas"))
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limit.close()


@cache
def _one_thread() -> _OneThread:
    return _OneThread()


@cache  # finding the libraries takes longer than solving a small circuit
def _blas() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  its library is another one, and only those that are loaded are found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def steps_text(method: str, count: int) -> str:
    """A number of steps in words.

    >>> steps_text("bcd", 24), steps_text("newton", 1)
    ('24 sweeps', '1 Newton step')
    """
    return f"{count} {'Newton step' if method == 'newton' else 'sweep'}{'s' * (count != 1)}"


def choose_method(problem: Problem, settings: Settings) -> tuple[str, str]:
    """The method for a problem, and the reason in a few words."""
    t = problem.topology
    forced = settings.method == "auto" and (not problem.circuit.reciprocal or t.links.size > 0)
    if forced or settings.method == "newton":
        need = "method newton" if settings.method == "newton" else "this circuit needs method newton, which"
        if settings.dtype != "float64":
            raise SettingsError(f"{need} computes in float64; leave --dtype out")
        if settings.backend == "reference":
            raise SettingsError(f"{need} does not run on the reference backend; leave --backend out")
        if settings.backend == "gpu" and (refused := _no_newton_on_gpu(problem)):
            raise SettingsError(f"{need} cannot run on the gpu here: {refused}; leave --backend out")
    if settings.method != "auto":
        return settings.method, "asked for"
    if settings.backend == "reference":
        return "bcd", "the reference backend has no other"
    if settings.dtype != "float64":
        return "bcd", f"newton has no {settings.dtype}"
    if not problem.circuit.reciprocal:
        return "newton", "controlled sources"
    if t.links.size:
        return "newton", "ideal diodes join nodes that both can move"
    if any(spec.inner for spec in t.dense):
        return "bcd", "dense layers"
    if problem.n_free and not t.legs.a.size and not t.couplings.indices.size:
        return "bcd", "no two unknowns are joined"
    if settings.backend == "gpu":
        refused = _no_newton_on_gpu(problem)
        return ("bcd", f"not newton on the gpu: {refused}") if refused else ("newton", "a sparse network")
    if t.legs.a.size and not t.legs.n_junctions and problem.batch > _MANY_ROWS and not _large_mesh(problem):
        return "bcd", "many rows of a circuit of perfect diodes"
    return "newton", "a sparse network"


def _large_mesh(problem: Problem) -> bool:
    """Told without the order of an elimination, which takes long to find."""
    return problem.n_free > FEW_NODES and is_mesh(problem.n_free, *problem.topology.edges)


def choose_backend(problem: Problem, settings: Settings) -> Backend:
    """The backend that settings name; under `auto` the GPU where it has much to do and one can be used, or the CPU."""
    if settings.backend != "auto":
        return find_backend(settings.backend)
    unknowns = problem.batch * problem.n_free
    much = {"bcd": problem.batch * problem.inner_ends >= GPU_WINS, "newton": unknowns >= GPU_WINS_NEWTON}
    if any(much.values()):
        method, _ = choose_method(problem, settings)
        # What newton takes is not asked for nothing: to find the order of an elimination takes long.
        mesh = method == "newton" and isinstance(problem.topology.solver, Multigrid)
        much["newton"] &= not mesh or unknowns >= GPU_WINS_MESH
        if much[method] and (method == "bcd" or mesh or not gpu_newton.refusal(problem)):
            try:
                return _gpu_for(problem, settings, method)
            except BackendUnavailable:
                pass
    return find_backend("cpu")


def _no_newton_on_gpu(problem: Problem) -> str:
    """Why newton has nothing to do on the GPU; empty where it takes its steps there, or solves its networks."""
    refused = gpu_newton.refusal(problem)
    return refused if refused and gpu_mesh.refusal(problem) else ""


def _gpu_for(problem: Problem, settings: Settings, method: str) -> Backend:
    """The GPU, when it has the memory for a row of the batch, and something to do. Raises BackendUnavailable."""
    gpu = find_backend("gpu")
    if method == "bcd":
        gpu.tile(problem, settings.dtype)
    elif refused := _no_newton_on_gpu(problem):
        raise BackendUnavailable(refused)
    else:
        gpu.row_steps(problem)
    return gpu


class _Work:
    """The tiles of a batch, solved one by one; several at a time where the backend has several workers."""

    def __init__(self, problem: Problem, settings: Settings, backend: Backend, method: str, warm: bool) -> None:
        self.problem, self.settings, self.backend, self.method, self.warm = problem, settings, backend, method, warm
        self.own = threading.local()
        self.there = False  # whether newton took its steps, or solved its networks, on a backend that has its own
        self.left = 0  # rows that did not arrive there
        self.change = ""  # why one method made way for another
        self.alone = threading.Lock()  # a network keeps what it factored last
        self.solver = cache(lambda: backend.solver(problem))
        self.network = cache(lambda: make_network(problem, self.solver()))
        self.row_steps = cache(lambda: backend.row_steps(problem))
        self.stacks = cache(lambda: Stacks(problem, problem.batch) if aside.worth_it(problem) else None)
        self.held = Held(problem, self.network, self.alone) if settings.dtype == "float64" else None

    def tiles(self, x: Floats, in_order: bool) -> Iterator[tuple[slice, Outcome, str]]:
        """Solve tile by tile; several at once, unless `in_order`. The results come in order, each with its method.

        BLAS keeps to one thread: the products of a sweep are small, and threads that wait for each other cost more than
        they bring (on a busy machine many times more).
        """
        by_bcd = self.method == "bcd"
        if by_bcd:
            size = self.backend.tile(self.problem, self.settings.dtype)
        else:
            there = self.row_steps()
            size = there.tile if there else 1 + _IN_CACHE // max(x.shape[1], 1)
        tiles = [slice(first, min(first + size, x.shape[0])) for first in range(0, x.shape[0], size)]
        workers = min(self.backend.workers, len(tiles)) if by_bcd and not in_order else 1
        with one_blas_thread(x.size * self.problem.mean_degree):
            if workers <= 1:
                for rows in tiles:
                    yield rows, *self._tile(rows, x[rows])
                return
            from concurrent.futures import ThreadPoolExecutor

            pool = ThreadPoolExecutor(workers)
            try:
                for rows, (outcome, by) in zip(
                    tiles, pool.map(lambda rows: self._tile(rows, x[rows]), tiles), strict=True
                ):
                    yield rows, outcome, by
            finally:
                pool.shutdown(cancel_futures=True)

    def _tile(self, rows: slice, x: Floats) -> tuple[Outcome, str]:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # the certificate shows it
            return self._solve_tile(rows, x)

    def _solve_tile(self, rows: slice, x: Floats) -> tuple[Outcome, str]:
        """The outcome, and the method that it comes from."""
        by_bcd, s = self.method == "bcd", self.settings
        drive = self.backend.drive(self.problem, rows) if by_bcd else self.problem.drive(rows)
        chosen = self.backend.name == "cpu" or (self.backend.name, s.backend) == ("gpu", "auto")
        only = s.method != "auto" or s.dtype != "float64" or not chosen
        if by_bcd:
            outcome = self._by_bcd(drive, x if self.warm else None, patient=only)
            if only or outcome.status in (Status.SOLVED, Status.NONFINITE):
                return outcome, "bcd"
            met = outcome.residuals.kcl_relative <= s.tolerance
            fault = "left voltages that little holds" if met else "was slow"
            self._change("newton", f"block coordinate descent {fault} after {outcome.steps} sweeps")
            return self._by_newton(self.problem.completed(drive), outcome.x, warm=True), "newton"
        outcome = self._by_newton(drive, x, self.warm)
        solved = outcome.status is Status.SOLVED
        if only or (solved and outcome.sure) or bcd.refusal(self.problem):
            return outcome, "newton"
        other = self._by_bcd(drive, None, patient=False)
        if other.status is not Status.SOLVED:
            return outcome, "newton"
        fault = "left voltages that little holds" if solved else "did not arrive"
        self._change("bcd", f"newton {fault} in {steps_text('newton', outcome.steps)}")
        return other, "bcd"

    def _change(self, method: str, reason: str) -> None:
        """Go on with another method, in the tiles to come too."""
        self.method, self.change = method, reason

    def _by_bcd(self, drive: Drive, x: Floats | None, patient: bool) -> Outcome:
        if not hasattr(self.own, "engine"):
            self.own.engine = self.backend.engine(self.problem, self.settings.dtype)
        return bcd.solve_tile(self.problem, drive, self.own.engine, self.settings, x, held=self.held, patient=patient)

    def _by_newton(self, drive: Drive, x: Floats, warm: bool) -> Outcome:
        with self.alone:
            network = self.network()
            there = self.row_steps()
            if there and x.shape[0] <= there.tile:
                self.there = True
                outcome, left = newton.solve_tile_there(there, network, drive, self.settings, x, warm)
                self.left += left
                return outcome
            self.there = self.there or self.solver() is not None
            if x.shape[0] > 1 and not self.there and (stacks := self.stacks()):
                return aside.solve_tile(network, stacks, drive, self.settings, x, warm)
            outcome = newton.solve_tile(network, drive, self.settings, x, warm)
            if outcome.status is Status.STALLED or (outcome.status is Status.SOLVED and not outcome.sure):
                for other in network.otherwise():
                    second = newton.solve_tile(other, drive, self.settings, x, warm)
                    if second.status is Status.SOLVED and (second.sure or outcome.status is not Status.SOLVED):
                        outcome = second
                    if outcome.status is Status.SOLVED and outcome.sure:
                        break
            if outcome.status is not Status.SOLVED and outcome.loose is not None and outcome.loose.any():
                network.check_consistent(drive)
            return outcome


def _message(
    problem: Problem, status: Status, residuals: Residuals, settings: Settings, after: str, singular: bool
) -> str:
    """`singular`: whether controlled sources leave something open."""
    if status is Status.SOLVED:
        return f"relative KCL {residuals.kcl_relative:.2g} <= {settings.tolerance:g} after {after}"
    where = ""
    if residuals.worst_unit >= 0:
        node = problem.circuit.nodes[problem.topology.root_of_unit[residuals.worst_unit]]
        row = f", batch row {residuals.worst_row}" if problem.batch > 1 else ""
        where = f" (worst at node {node}{row})"
    reached = f"relative KCL {residuals.kcl_relative:.2g}{where} after {after}"
    if residuals.kcl_relative <= settings.tolerance:
        return f"KCL is met, but so little holds some voltages that they may be wrong; use method newton: {reached}"
    if singular:
        c = problem.circuit
        sources = listed([c.element(c.controlled, k) for k in range(len(c.controlled))])
        return (
            f"the equations of the controlled sources ({sources}) are singular, as far as float64 can tell: no "
            f"solution, more than one, or one beyond its digits; check their gains and loops: {reached}"
        )
    cure = ", or use float64" if status is Status.STALLED and settings.dtype != "float64" else ""
    return f"{status.value}{cure}: {reached}"
