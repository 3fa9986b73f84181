"""`.dc` sweeps and Monte Carlo runs: one circuit with many values, each point with its certificate.

Sources are swept as one batch; resistors, temperature, parameters and random draws point by point, each started from
the last solution. The netlist is read once: values change, its structure does not.

The points are solved in chunks, which know nothing of each other and depend on the circuit and the analysis alone: the
results are the same bits in whatever order, and by however many processes (workers.py), chunks are solved.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from circuitsim import workers as processes
from circuitsim.backends.base import Backend, find_backend
from circuitsim.circuit import KINDS, Circuit, build_circuit, check_structure
from circuitsim.currents import with_digits
from circuitsim.errors import At, CircuitError, NetlistError, SettingsError, TopologyError
from circuitsim.netlist.analyses import points
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.model import Analysis, Netlist, Swept
from circuitsim.netlist.revalue import Revaluer
from circuitsim.netlist.saves import Save, labels_of, quantities_of
from circuitsim.notebook import sweep_frame, sweep_html
from circuitsim.problem import Problem, compile_problem, without_island
from circuitsim.residual import Check
from circuitsim.saved import UNITS, Saved
from circuitsim.solution import Settings, Solution, Status
from circuitsim.solving import one_blas_thread, solve

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Note = tuple[At | None, str]
Progress = Callable[[int, int], None]

FAULT = "FAULT"  # the status of a point whose circuit has no solution, or no meaning; the others are those of Status
_TILE = 250_000  # voltages whose certificates are computed together
_MOST_SEED = 2**53
_BATCH_ROW = re.compile(r" \(batch row \d+\)")  # means nothing here: how points make batches is not seen
_MOST_SAVED = 100_000_000  # values
_NOTHING = "nothing to solve"
_NO_ARRAY = np.zeros(0)
_OF_POINTS = ("voltages", "currents", "saved", "statuses", "kcl_relative")  # arrays of Points with an axis of points
_STATUS = f"<U{max(len(s.name) for s in Status)}"

# A chunk: long enough that starting it afresh, and sending it to a worker, cost little; short enough that many workers
# have work, and that little is lost with one. Changing these numbers changes the last bits of results.
_CHUNK_GROUPS = 16  # evaluations of the netlist, or resistances
_CHUNK_DRAWS = 256  # draws, which are evaluated together
_CHUNK_POINTS = 1_000
_CHUNK_VOLTAGES = 250_000


@dataclass(frozen=True)
class Points:
    """What was found at some points: all of a sweep, or those of a chunk. Of what failed, what was reached, or NaN."""

    voltages: Floats  # (points, nodes) V, in the order of circuit.nodes
    currents: Floats  # (points, ties) A, in the order of circuit.ties
    determined: Bools  # (nodes,) whether the voltage is unique at every point
    left_out: Bools  # (nodes,) whether it is left out at some point (Settings.lenient)
    ambiguous: Bools  # (ties,) whether the current is not unique at some point
    ambiguous_others: tuple[str, ...]  # ideal diodes and controlled sources of which that is so
    saved: Floats  # (points, columns of saves): what is kept besides
    saved_ambiguous: Bools  # (columns,) whether the value is not unique at some point
    saved_left_out: Bools  # (columns,) whether it is left out at some point
    islands: tuple[tuple[str, ...], ...]  # the nodes of each island that is left out at some point
    notes: tuple[Note, ...]  # on each
    statuses: NDArray[np.str_]  # (points,) names of Status, or FAULT
    kcl_relative: Floats  # (points,) the largest relative KCL error; NaN without voltages
    messages: Mapping[int, str]  # of the points that failed
    method: str  # of the last point, and `why` it
    why: str
    backend: str
    steps: int  # the most that any point took (Solution.steps)


@dataclass(frozen=True)
class SweepResult(Points):
    """All points of a sweep, or all runs of a Monte Carlo analysis, in order.

    >>> from circuitsim import parse
    >>> circuit = parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k\\n.dc V1 0 2 1")
    >>> result = sweep(circuit, circuit.netlist.analyses[0])
    >>> result.names, result.values[:, 0], result.voltage("out")
    (('V1',), array([0., 1., 2.]), array([0. , 0.5, 1. ]))
    """

    circuit: Circuit  # as read: its names
    swept: tuple[Swept, ...]  # the first varies fastest; none: Monte Carlo
    values: Floats  # (points, n) volt, ampere, ohm, degree Celsius or as the parameter; Monte Carlo: (runs, 1) seeds
    saves: tuple[Save, ...]  # the columns of `saved`
    dtype: str
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What each column of `values` is."""
        return tuple(s.name for s in self.swept) or ("seed",)

    @property
    def saved_labels(self) -> list[str]:
        """A name for each column of `saved`."""
        return labels_of(self.saves)

    @property
    def saved_quantities(self) -> list[str]:
        """What each column of `saved` is, a key of saved.UNITS."""
        return quantities_of(self.saves)

    @property
    def saved_units(self) -> list[str]:
        """The unit of each column of `saved`."""
        return [UNITS[quantity] for quantity in self.saved_quantities]

    @property
    def failed(self) -> Ints:
        """The points without a certified answer."""
        return np.flatnonzero(self.statuses != Status.SOLVED.name)

    def voltage(self, name: str) -> Floats:
        """The voltage of a node at all points, (points,), V. NetlistError for an unknown node."""
        return self.voltages[:, self.circuit.netlist.node(name)]

    def to_dataframe(self) -> pd.DataFrame:
        """A line for each point, of pandas: what is swept (or the seed), voltages, currents, what is saved, status.

        Columns: `names`, v(NODE), i(SOURCE), `saved_labels`, status, kcl_relative. Its `attrs` hold the units and the
        columns that are `not_unique`. BackendUnavailable without pandas.
        """
        return sweep_frame(self)

    def _repr_html_(self) -> str:
        return sweep_html(self)

    def plot(self) -> Figure:
        """Curves over what is swept, or histograms of a Monte Carlo analysis: a figure of matplotlib.

        Of the `.output` nodes and what is saved; without these of all nodes. BackendUnavailable without matplotlib.
        """
        from circuitsim.plot import sweep_figure

        return sweep_figure(self, self.saved_units)

    def point(self, index: int) -> str:
        """A point in words: `V1 = 0.5, temp = 27`."""
        numbers = self.values[index].tolist()
        return ", ".join(f"{name} = {number:.10g}" for name, number in zip(self.names, numbers, strict=True))


def sweep(
    circuit: Circuit,
    dc: Analysis | str,
    settings: Settings | None = None,
    *,
    backend: Backend | None = None,
    progress: Progress | None = None,
    saves: Sequence[Save] = (),
    workers: int = 1,
    scheduler: str | None = None,
    study: Store | None = None,
) -> SweepResult:
    """Solve a circuit at all points of a `.dc` analysis: one of `circuit.netlist.analyses`, or a text `V1 0 5 0.1`.

    A point that has no solution, or that is not solved, does not stop the others: see `statuses`. Parameters:

    backend    a Backend object, for this process only; default: the one that settings name
    progress   called with (points done, points in all)
    saves      what to keep besides voltages and source currents (saved.wanted_saves)
    workers    processes on this machine; the results are the same
    scheduler  tcp://host:8786: the workers of this Dask scheduler, instead
    study      where finished chunks are kept, and found again (io.study.Study)

    Raises NetlistError for values that no element may have, naming the point; TopologyError when the structure changes
    on the way (a resistance that becomes 0); SettingsError; BackendUnavailable, also for workers.
    """
    clock = time.perf_counter()
    if isinstance(dc, str):
        [dc] = analyses_to_run(circuit, dc)
    if dc.kind != "dc":
        raise SettingsError(f".{dc.kind} is no sweep; choose a .dc analysis")
    plan = _Sweep(circuit, settings or Settings(), backend, tuple(saves), dc.sweeps)
    return _solved(plan, clock, progress, workers, scheduler, study)


def analyses_to_run(circuit: Circuit, dc: str | None = None) -> list[Analysis]:
    """The `.dc` analysis in a text `V1 0 5 0.1`, or without one those of the netlist. SettingsError without any."""
    if dc is not None:
        try:
            return [Revaluer(circuit.netlist).analysis(dc)]
        except NetlistError as error:
            raise SettingsError(f"--dc '{dc}': {error.message}") from None
    analyses = [analysis for analysis in circuit.netlist.analyses if analysis.kind == "dc"]
    if not analyses:
        raise SettingsError(
            f"{circuit.netlist.path} has no .dc card; add one, or --dc 'V1 0 5 0.1', or --runs for Monte Carlo"
        )
    return analyses


def count_points(analysis: Analysis) -> int:
    """How many points an analysis has."""
    return math.prod(points(swept).size for swept in analysis.sweeps)


def monte_carlo(
    circuit: Circuit,
    runs: int,
    seed: int | None = None,
    settings: Settings | None = None,
    *,
    backend: Backend | None = None,
    progress: Progress | None = None,
    saves: Sequence[Save] = (),
    workers: int = 1,
    scheduler: str | None = None,
    study: Store | None = None,
) -> SweepResult:
    """Solve a circuit `runs` times with fresh random draws: run k is the netlist as read with seed `seed + k`.

    seed: None takes that of `.options seed=`, or 0. Runs with nearby seeds share draws: seed 1 and 2 all but one run.
    A run whose draws make no circuit (a negative resistance) is a failed one. The other parameters are those of
    `sweep`. Raises SettingsError, BackendUnavailable.
    """
    clock = time.perf_counter()
    seed = circuit.netlist.options.seed if seed is None else seed
    if runs < 1:
        raise SettingsError(f"runs must be at least 1, found {runs}")
    if not 0 <= seed <= _MOST_SEED - runs:
        raise SettingsError(f"seeds {seed} ... {seed + runs - 1} must lie between 0 and 2^53; choose another")
    plan = _MonteCarlo(circuit, settings or Settings(), backend, tuple(saves), runs, seed)
    return _solved(plan, clock, progress, workers, scheduler, study)


# -- chunks ------------------------------------------------------------------------------------------------------------


class Store(Protocol):
    """Keeps the chunks of one analysis of one circuit."""

    def begin(self, circuit: Circuit, facts: Mapping[str, Any], chunks: int) -> None:
        """Get ready. SettingsError when what is kept there is of another circuit, or of other `facts`."""

    def load(self, k: int) -> Points | None:
        """Chunk k; None when it is not kept, or not whole."""

    def save(self, k: int, found: Points) -> None:
        """Keep it. SettingsError when that cannot be."""


class _Plan:
    """An analysis as chunks: what every process that solves some of them needs to know.

    groups: (groups, rows) points, in the order in which they are solved. Those of a group make one batch, and all
    groups of a chunk are solved one after another, each from the last solution.
    """

    swept: tuple[Swept, ...] = ()
    most_groups = _CHUNK_GROUPS  # of a chunk

    def __init__(
        self,
        circuit: Circuit,
        settings: Settings,
        backend: Backend | None,
        saves: tuple[Save, ...],
        values: Floats,
        groups: Ints,
    ) -> None:
        self.circuit, self.settings, self.backend, self.saves = circuit, settings, backend, saves
        self.values, self.groups = values, groups
        count, rows = groups.shape
        most = max(1, min(_CHUNK_POINTS, _CHUNK_VOLTAGES // len(circuit.nodes)))  # points of a chunk
        self._together = max(1, min(self.most_groups, most // rows))  # groups of a chunk
        self._pieces = -(-rows // most)  # of a large group, each a chunk
        self._length = -(-rows // self._pieces)
        self.chunks = self._pieces * -(-count // self._together)

    @cached_property
    def chosen_backend(self) -> Backend | None:
        """The backend for every chunk; None: `auto` chooses one for each."""
        if self.backend is not None or self.settings.backend == "auto":
            return self.backend
        return find_backend(self.settings.backend)

    def chunk(self, k: int) -> tuple[range, Ints]:
        """The groups of a chunk, and the points (groups, rows) that it has of them."""
        which, piece = divmod(k, self._pieces)
        groups = range(which * self._together, min((which + 1) * self._together, len(self.groups)))
        columns = slice(piece * self._length, (piece + 1) * self._length)
        return groups, self.groups[groups.start : groups.stop, columns]

    def solve(self, k: int) -> Points | CircuitError:
        """A chunk; or why it is none."""
        groups, rows = self.chunk(k)
        runner = _Runner(self.circuit, self.settings, self.chosen_backend, self.saves, rows.size)
        ends = 2 * (len(self.circuit.conductors) + sum(crossbar.g.size for crossbar in self.circuit.crossbars))
        try:
            with one_blas_thread(rows.shape[1] * ends):  # currents and certificates too
                self.solve_groups(groups, rows, runner)
        except CircuitError as error:
            return error
        return runner.points()

    def solve_groups(self, groups: range, rows: Ints, runner: _Runner) -> None:
        """Solve groups, of each the points `rows[k]`; for the runner points are numbered from 0."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """What the results depend on besides the circuit, as JSON can hold it."""
        return {
            "settings": asdict(self.settings),
            "saved": labels_of(self.saves),
            "chunks": [self.most_groups, _CHUNK_POINTS, _CHUNK_VOLTAGES],
        }


def _solve_chunk(plan: _Plan, k: int) -> Points | CircuitError:
    return plan.solve(k)


def _solved(
    plan: _Plan, clock: float, progress: Progress | None, workers: int, scheduler: str | None, study: Store | None
) -> SweepResult:
    """Solve all chunks that are not kept, and put them together."""
    processes.check(workers, scheduler)
    if plan.backend is not None and (workers > 1 or scheduler is not None):
        raise SettingsError("a backend object cannot be sent to workers; name it: Settings(backend=...)")
    gathered = _Gathered(plan, progress)
    if study is not None:
        study.begin(plan.circuit, plan.facts(), plan.chunks)
    left: dict[int, int] = {}
    for k in range(plan.chunks):
        found = study.load(k) if study is not None else None
        if found is None:
            left[k] = k
        else:
            gathered.add(k, found)
    faults: dict[int, CircuitError] = {}
    with closing(processes.run(_solve_chunk, plan, left, workers, scheduler)) as solved:
        for k, chunk in solved:
            del left[k]
            if isinstance(chunk, CircuitError):
                faults[k] = chunk
            else:
                gathered.add(k, chunk)
                if study is not None:
                    study.save(k, chunk)
            if faults and min(faults) < next(iter(left), plan.chunks):  # the one that one process meets
                raise faults[min(faults)]
    return gathered.result(time.perf_counter() - clock)


class _Gathered:
    """The points of all chunks, as they come."""

    def __init__(self, plan: _Plan, progress: Progress | None) -> None:
        self.plan, self.progress = plan, progress
        self.found = _empty(plan.circuit, plan.saves, plan.values.shape[0])
        self.parts: dict[int, Points] = {}  # without their arrays
        self.done = 0

    def add(self, k: int, chunk: Points) -> None:
        """The points of chunk k."""
        rows = self.plan.chunk(k)[1].ravel()
        for name, array in self.found.items():
            new = getattr(chunk, name)
            if name in _OF_POINTS:
                array[rows] = new
            elif name == "determined":
                array &= new
            else:
                array |= new
        messages = {int(rows[j]): text for j, text in chunk.messages.items()}
        none: dict[str, Any] = dict.fromkeys(self.found, _NO_ARRAY)
        self.parts[k] = replace(chunk, messages=messages, **none)
        self.done += rows.size
        if self.progress:
            self.progress(self.done, self.plan.values.shape[0])

    def result(self, seconds: float) -> SweepResult:
        """All points, once all chunks are there."""
        parts = [self.parts[k] for k in sorted(self.parts)]
        last = next((part for part in reversed(parts) if part.why != _NOTHING), parts[-1])
        notes: dict[tuple[str, ...], Note] = {}
        for part in parts:
            for island, note in zip(part.islands, part.notes, strict=True):
                notes.setdefault(island, note)
        return SweepResult(
            **self.found,
            ambiguous_others=tuple(dict.fromkeys(name for part in parts for name in part.ambiguous_others)),
            islands=tuple(notes),
            notes=tuple(notes.values()),
            messages={row: text for part in parts for row, text in part.messages.items()},
            method=last.method,
            why=last.why,
            backend=last.backend,
            steps=max(part.steps for part in parts),
            circuit=self.plan.circuit,
            swept=self.plan.swept,
            values=self.plan.values,
            saves=self.plan.saves,
            dtype=self.plan.settings.dtype,
            seconds={"sweep": seconds},
        )


def _empty(circuit: Circuit, saves: tuple[Save, ...], count: int) -> dict[str, NDArray[Any]]:
    """The arrays of Points, for `count` points of which nothing is known."""
    nodes, ties, columns = len(circuit.nodes), len(circuit.ties), sum(map(len, saves))
    if count * columns > _MOST_SAVED:
        raise SettingsError(f"{columns:,} values to save at {count:,} points are more than {_MOST_SAVED:,}; save less")
    return {
        "voltages": np.full((count, nodes), np.nan),
        "currents": np.full((count, ties), np.nan),
        "saved": np.full((count, columns), np.nan),
        "statuses": np.full(count, FAULT, _STATUS),
        "kcl_relative": np.full(count, np.nan),
        "determined": np.ones(nodes, bool),
        "left_out": np.zeros(nodes, bool),
        "ambiguous": np.zeros(ties, bool),
        "saved_ambiguous": np.zeros(columns, bool),
        "saved_left_out": np.zeros(columns, bool),
    }


class _Runner:
    """Solves the points of a chunk, which are numbered from 0, and keeps what came out."""

    def __init__(
        self, circuit: Circuit, settings: Settings, backend: Backend | None, saves: tuple[Save, ...], count: int
    ) -> None:
        self.lenient, self.settings = settings.lenient, replace(settings, lenient=False)
        self.backend = backend
        self.saves = saves
        self.ties = _keys(circuit)
        self.found = _empty(circuit, saves, count)
        self.last: Solution | None = None
        self.steps = 0
        self.messages: dict[int, str] = {}
        self.others: dict[str, None] = {}  # ideal diodes and controlled sources whose currents are not unique
        self.notes: dict[frozenset[str], Note] = {}  # of the islands that are left out

    def solve(self, rows: Ints, problem_of: Callable[[Ints], Problem]) -> None:
        """Solve the points `rows` as one batch; where some have no solution, find them by halving.

        When lenient, an island without a solution is left out, at the points where it has none.
        """
        problem = None
        try:
            problem = problem_of(rows)
            solution = solve(
                problem,
                self.settings,
                start=self._start(problem),
                backend=self.backend,
                raise_on_failure=False,
                in_order=True,  # what one tile learns, the next one uses
            )
        except TopologyError as error:
            if problem is not None and self._leave_out(rows, problem, error):
                return
            if rows.size == 1:
                self.fault(int(rows[0]), error)
                return
            for half in np.array_split(rows, 2):
                self.solve(half, problem_of)
            return
        self._keep(rows, solution)

    def _leave_out(self, rows: Ints, problem: Problem, error: TopologyError) -> bool:
        """When lenient, solve without the island that an error names; returns whether that has been done.

        Not so when the currents into the island are not the same at all these points.
        """
        circuit = problem.circuit
        s, nodes = circuit.current_sources, [circuit.netlist.node(name) for name in error.nodes]
        into = s.i[:, np.isin(s.a, nodes) | np.isin(s.b, nodes)]
        if not self.lenient or not error.is_cut or (into != into[:1]).any():
            return False
        try:
            rest = compile_problem(without_island(circuit, error))
        except TopologyError:  # a controlled source joins the island to the rest, or more is wrong
            return False
        at_line, text = rest.circuit.notes[-1]
        self.notes.setdefault(frozenset(error.nodes), (at_line, _BATCH_ROW.sub("", text)))

        def at(some: Ints) -> Problem:
            which, c = np.searchsorted(rows, some), rest.circuit
            e, i = (x[which] if x.shape[0] > 1 else x for x in (c.ties.e, c.current_sources.i))
            sources = replace(c.current_sources, i=i)
            return replace(rest, circuit=replace(c, ties=replace(c.ties, e=e), current_sources=sources))

        self.solve(rows, at)
        return True

    def fault(self, row: int, error: NetlistError) -> None:
        """A point that cannot be solved."""
        self.messages[row] = str(error).split("\n")[0]

    def _start(self, problem: Problem) -> Floats | None:
        """The last solution, where it can be that of this problem too."""
        if self.last is None or self.last.problem.topology.index_of_node is not problem.topology.index_of_node:
            return None
        x = self.last.x
        return x if x.shape == (problem.batch, problem.n_free) and np.isfinite(x).all() else None

    def _keep(self, rows: Ints, solution: Solution) -> None:
        self.last = solution
        self.steps = max(self.steps, solution.steps)
        found, kcl = self.found, self.found["kcl_relative"]
        if np.isfinite(solution.x).all():
            found["voltages"][rows] = solution.voltages()
            ties = np.isin(self.ties, _keys(solution.circuit))  # some may be left out
            found["currents"][np.ix_(rows, ties)], unique = solution.tie_currents
            found["determined"] &= solution.determined
            found["left_out"] |= solution.circuit.left_out
            found["ambiguous"][ties] |= ~unique
            self.others |= dict.fromkeys(solution.ambiguous_others)
            if self.saves:
                saved = Saved(solution, self.saves)
                found["saved"][rows] = saved.values()
                found["saved_ambiguous"] |= saved.ambiguous
                found["saved_left_out"] |= saved.left_out
            alone = rows.size == 1
            kcl[rows] = solution.residuals.kcl_relative if alone else row_violations(solution, self.settings.tolerance)
        solved = np.full(rows.size, True) if solution.solved else kcl[rows] <= self.settings.tolerance
        found["statuses"][rows] = np.where(solved, Status.SOLVED.name, solution.status.name)
        for row in rows[~solved].tolist():
            self.messages[row] = solution.message if rows.size == 1 else solution.status.value

    def points(self) -> Points:
        """What was found."""
        return Points(
            **self.found,
            ambiguous_others=tuple(self.others),
            islands=tuple(tuple(sorted(island)) for island in self.notes),
            notes=tuple(self.notes.values()),
            messages=self.messages,
            method=self.last.method if self.last else self.settings.method,
            why=self.last.why if self.last else _NOTHING,
            backend=self.last.backend if self.last else self.settings.backend,
            steps=self.steps,
        )


class _MonteCarlo(_Plan):
    """Runs with random draws of their own."""

    most_groups = _CHUNK_DRAWS

    def __init__(
        self,
        circuit: Circuit,
        settings: Settings,
        backend: Backend | None,
        saves: tuple[Save, ...],
        runs: int,
        seed: int,
    ) -> None:
        values = np.arange(seed, seed + runs, dtype=np.float64)[:, None]
        super().__init__(circuit, settings, backend, saves, values, np.arange(runs)[:, None])
        _check_as_read(circuit)
        self.seed = seed
        self.revaluer = Revaluer(circuit.netlist)
        self.revaluer.netlist(Changes())  # has read all data files: workers need none

    @cached_property
    def base(self) -> Problem:
        return compile_problem(self.circuit)

    def solve_groups(self, groups: range, rows: Ints, runner: _Runner) -> None:
        base, first = self.base, self.seed + int(rows[0, 0])
        for k, netlist in enumerate(self.revaluer.draws(range(first, first + len(groups)))):
            try:
                if isinstance(netlist, NetlistError):
                    raise netlist
                problem = base.with_circuit(build_circuit(netlist))
            except NetlistError as error:
                runner.fault(k, error)
                continue
            runner.solve(np.array([k]), _always(problem))

    def facts(self) -> dict[str, Any]:
        return {"analysis": f"Monte Carlo, {len(self.values)} runs", "seed": self.seed, **super().facts()}


class _Sweep(_Plan):
    """The points of a `.dc` analysis: parameters and temperature outermost, then resistors, sources as a batch."""

    def __init__(
        self,
        circuit: Circuit,
        settings: Settings,
        backend: Backend | None,
        saves: tuple[Save, ...],
        swept: tuple[Swept, ...],
    ) -> None:
        self.swept = swept
        axes = [points(s) for s in reversed(swept)]  # the first swept varies fastest
        shape = [axis.size for axis in axes]
        grids = np.meshgrid(*axes, indexing="ij")
        values = np.stack([grid.ravel() for grid in reversed(grids)], axis=1)  # (points, swept)
        self.evaluated, self.resistors, self.sources = (
            [k for k, s in enumerate(swept) if s.kind in kinds] for kinds in (("temp", "param"), "R", "VI")
        )
        order = [*reversed(self.evaluated), *reversed(self.resistors), *reversed(self.sources)]
        axis_of = [len(swept) - 1 - k for k in order]
        by_group = np.arange(math.prod(shape)).reshape(shape).transpose(axis_of)
        rows = math.prod(shape[len(swept) - 1 - k] for k in self.sources)
        super().__init__(circuit, settings, backend, saves, values, by_group.reshape(-1, rows))
        self.per_evaluation = math.prod(shape[len(swept) - 1 - k] for k in self.resistors)  # groups
        only_voltages = all(s.kind == "V" for s in swept)
        self.revaluer = None if only_voltages else Revaluer(circuit.netlist)
        if self.revaluer is not None:
            _check_as_read(circuit)
            self.revaluer.netlist(Changes())  # has read all data files: workers need none

    @cached_property
    def _first(self) -> tuple[Problem, dict[int, Floats]]:
        """The problem at the first point: see _compiled. Results have the ties of the circuit as read."""
        circuit, factors = self._evaluate(0)
        with _at_point(self, 0, self.evaluated):
            if self.revaluer is not None and self.evaluated:
                as_read = build_circuit(self.revaluer.netlist(Changes(elements=self._ones)))
                if not np.array_equal(_keys(as_read), _keys(circuit)):
                    check_structure(as_read, circuit)
            return compile_problem(circuit), factors

    def _compiled(self, point: int) -> tuple[Problem, dict[int, Floats]]:
        """The problem at a point, but for resistors and sources, and the factors of their values: see _evaluate."""
        circuit, factors = self._evaluate(point)
        with _at_point(self, point, self.evaluated):
            return self._first[0].with_circuit(circuit), factors

    def solve_groups(self, groups: range, rows: Ints, runner: _Runner) -> None:
        count = rows.shape[1]
        outer, factors = self._first
        for k, (group, chosen) in enumerate(zip(groups, rows, strict=True)):
            point = int(chosen[0])
            if group >= self.per_evaluation and (not k or group % self.per_evaluation == 0):
                outer, factors = self._compiled(point)
            problem = outer
            for axis in self.resistors:
                with _at_point(self, point, self.resistors):
                    siemens = 1.0 / (self.values[point, axis] * factors[axis])
                    problem = problem.with_values({self.swept[axis].name: siemens})
            driven = self._driven(problem, factors, chosen, k * count)
            runner.solve(np.arange(k * count, (k + 1) * count), driven)

    def facts(self) -> dict[str, Any]:
        return {"analysis": [f".dc {s.name} {s.start!r} {s.stop!r} {s.step!r}" for s in self.swept], **super().facts()}

    def _evaluate(self, point: int) -> tuple[Circuit, dict[int, Floats]]:
        """The circuit at a point, but for resistors and sources: of those, the factors (m, scale, tc1) of their values.

        It has them all at 1 ohm, 1 V or 1 A: the values of their cards may mean another structure, as R = 0 does.
        """
        none = {k: np.ones(self._members(s)) for k, s in enumerate(self.swept)}
        if self.revaluer is None:
            return self.circuit, none
        params, temp = {}, None
        for k in self.evaluated:
            value = float(self.values[point, k])
            if self.swept[k].kind == "temp":
                temp = value
            else:
                params[self.swept[k].name.lower()] = value
        with _at_point(self, point, self.evaluated):
            netlist = self.revaluer.netlist(Changes(temp=temp, params=params, elements=self._ones))
            circuit = build_circuit(netlist)
        return circuit, {k: _values_of(netlist, self.swept[k]) for k in (*self.resistors, *self.sources)}

    @property
    def _ones(self) -> dict[str, float]:
        """Resistors and sources that are swept, at 1 ohm, 1 V or 1 A."""
        return {self.swept[k].name.lower(): 1.0 for k in (*self.resistors, *self.sources)}

    def _members(self, swept: Swept) -> int:
        found = self.circuit.netlist.find(swept.name) if swept.kind in "VIR" else None
        return found[2] - found[1] if found else 1

    def _driven(
        self, problem: Problem, factors: Mapping[int, Floats], chosen: Ints, first: int
    ) -> Callable[[Ints], Problem]:
        """For rows of a chunk the problem with their sources as its batch; row `first` is the point `chosen[0]`."""

        def at(rows: Ints) -> Problem:
            some = chosen[rows - first]
            values = {self.swept[k].name: self.values[some, k][:, None] * factors[k] for k in self.sources}
            return problem.with_values(values)

        return at


def _keys(circuit: Circuit) -> Ints:
    """A number for the element of each tie."""
    return circuit.ties.row * len(KINDS) + circuit.ties.kind


def _always(problem: Problem) -> Callable[[Ints], Problem]:
    return lambda _: problem


@contextmanager
def _at_point(run: _Sweep, point: int, axes: Sequence[int]) -> Iterator[None]:
    """Errors from inside begin with the values of a point along some axes."""
    where = ", ".join(f"{run.swept[k].name} = {run.values[point, k]:.10g}" for k in axes)
    try:
        yield
    except NetlistError as error:
        error.message = f"at {where}: {error.message}" if axes else error.message
        raise
    except SettingsError as error:
        raise SettingsError(f"at {where}: {error}" if axes else str(error)) from None


def _values_of(netlist: Netlist, swept: Swept) -> Floats:
    """The values of an element or array, (members,), in ohm, volt or ampere."""
    found = netlist.find(swept.name)
    assert found is not None  # the card was checked
    kind, start, stop = found
    return netlist.tables[kind].values[kind.lower()][start:stop]


def row_violations(solution: Solution, tolerance: float) -> Floats:
    """The largest relative KCL error of each row of the batch, (batch,); below the tolerance it may be a bound."""
    out = np.zeros(solution.batch)
    size = 1 + _TILE // len(solution.circuit.nodes)
    for first in range(0, solution.batch, size):
        rows = slice(first, min(first + size, solution.batch))
        check = Check(solution.problem, *with_digits(solution, solution.problem.drive(rows)))
        out[rows] = np.maximum(check.by_row(tolerance), check.active_error)
    return out


def _check_as_read(circuit: Circuit) -> None:
    """Raise SettingsError when a circuit has values that were set after it was read: they would be lost."""
    fresh = build_circuit(circuit.netlist)
    pairs = [
        (circuit.conductors.g, fresh.conductors.g),
        (circuit.ties.e, fresh.ties.e),
        (circuit.current_sources.i, fresh.current_sources.i),
        *((a.g, b.g) for a, b in zip(circuit.crossbars, fresh.crossbars, strict=True)),
    ]
    if not all(np.array_equal(a, b) for a, b in pairs):
        raise SettingsError(
            "the circuit has values that were set after reading (with_values): this analysis evaluates its netlist "
            "again, which would lose them; write them into the netlist"
        )
