"""`.dc` sweeps and Monte Carlo runs: one circuit with many values, each point with its certificate.

Sources are swept as one batch; resistors, temperature, parameters and random draws point by point, each started from
the last solution. The netlist is read once: values change, its structure does not.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import Backend, find_backend
from circuitsim.circuit import KINDS, Circuit, build_circuit
from circuitsim.currents import with_digits
from circuitsim.errors import At, NetlistError, SettingsError, TopologyError
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
from circuitsim.solving import solve

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


@dataclass(frozen=True)
class SweepResult:
    """All points of a sweep, or all runs of a Monte Carlo analysis, in order.

    What failed holds the voltages that were reached, or NaN.

    >>> from circuitsim import parse
    >>> circuit = parse("divider\\nV1 in 0 10\\nR1 in out 1k\\nR2 out 0 1k\\n.dc V1 0 2 1")
    >>> result = sweep(circuit, circuit.netlist.analyses[0])
    >>> result.names, result.values[:, 0], result.voltage("out")
    (('V1',), array([0., 1., 2.]), array([0. , 0.5, 1. ]))
    """

    circuit: Circuit  # as read: its names
    swept: tuple[Swept, ...]  # the first varies fastest; none: Monte Carlo
    values: Floats  # (points, n) volt, ampere, ohm, degree Celsius or as the parameter; Monte Carlo: (runs, 1) seeds
    voltages: Floats  # (points, nodes) V, in the order of circuit.nodes
    currents: Floats  # (points, ties) A, in the order of circuit.ties
    determined: Bools  # (nodes,) whether the voltage is unique at every point
    left_out: Bools  # (nodes,) whether it is left out at some point (Settings.lenient)
    ambiguous: Bools  # (ties,) whether the current is not unique at some point
    ambiguous_others: tuple[str, ...]  # ideal diodes and controlled sources of which that is so
    saves: tuple[Save, ...]  # what is kept besides
    saved: Floats  # (points, columns of saves)
    saved_ambiguous: Bools  # (columns,) whether the value is not unique at some point
    saved_left_out: Bools  # (columns,) whether it is left out at some point
    notes: tuple[Note, ...]  # on islands that are left out
    statuses: NDArray[np.str_]  # (points,) names of Status, or FAULT
    kcl_relative: Floats  # (points,) the largest relative KCL error; NaN without voltages
    messages: Mapping[int, str]  # of the points that failed
    method: str  # of the last point, and `why` it
    why: str
    backend: str
    dtype: str
    steps: int  # the most that any point took (Solution.steps)
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
) -> SweepResult:
    """Solve a circuit at all points of a `.dc` analysis: one of `circuit.netlist.analyses`, or a text `V1 0 5 0.1`.

    A point that has no solution, or that is not solved, does not stop the others: see `statuses`. `progress` is called
    with (points done, points in all). `saves`: what to keep besides voltages and source currents (saved.wanted_saves).
    Raises NetlistError for values that no element may have, naming the point; TopologyError when the structure changes
    on the way (a resistance that becomes 0); SettingsError.
    """
    clock = time.perf_counter()
    if isinstance(dc, str):
        [dc] = analyses_to_run(circuit, dc)
    if dc.kind != "dc":
        raise SettingsError(f".{dc.kind} is no sweep; choose a .dc analysis")
    run = _Sweep(circuit, dc.sweeps, _Runner(settings or Settings(), backend, progress, saves))
    run.all_points()
    return run.runner.result(circuit, dc.sweeps, run.values, time.perf_counter() - clock)


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
) -> SweepResult:
    """Solve a circuit `runs` times with fresh random draws: run k is the netlist as read with seed `seed + k`.

    seed: None takes that of `.options seed=`, or 0. Runs with nearby seeds share draws: seed 1 and 2 all but one run.
    A run whose draws make no circuit (a negative resistance) is a failed one. Raises SettingsError.
    """
    clock = time.perf_counter()
    seed = circuit.netlist.options.seed if seed is None else seed
    if runs < 1:
        raise SettingsError(f"runs must be at least 1, found {runs}")
    if not 0 <= seed <= _MOST_SEED - runs:
        raise SettingsError(f"seeds {seed} ... {seed + runs - 1} must lie between 0 and 2^53; choose another")
    _check_as_read(circuit)
    runner = _Runner(settings or Settings(), backend, progress, saves)
    runner.reserve(circuit, runs)
    revaluer, base = Revaluer(circuit.netlist), compile_problem(circuit)
    for k, netlist in enumerate(revaluer.draws(range(seed, seed + runs))):
        try:
            if isinstance(netlist, NetlistError):
                raise netlist
            problem = base.with_circuit(build_circuit(netlist))
        except NetlistError as error:
            runner.fault(k, error)
            continue
        runner.solve(np.array([k]), _always(problem))
    values = np.arange(seed, seed + runs, dtype=np.float64)[:, None]
    return runner.result(circuit, (), values, time.perf_counter() - clock)


class _Runner:
    """Solves points and keeps what came out."""

    def __init__(
        self, settings: Settings, backend: Backend | None, progress: Progress | None, saves: Sequence[Save]
    ) -> None:
        self.lenient, self.settings = settings.lenient, replace(settings, lenient=False)
        self.backend = backend or (None if settings.backend == "auto" else find_backend(settings.backend))
        self.progress = progress
        self.saves = tuple(saves)
        self.last: Solution | None = None
        self.done = self.steps = 0
        self.messages: dict[int, str] = {}
        self.others: dict[str, None] = {}  # ideal diodes and controlled sources whose currents are not unique
        self.notes: dict[frozenset[str], Note] = {}  # of the islands that are left out

    def reserve(self, circuit: Circuit, count: int) -> None:
        """Make room for `count` points."""
        self.count = count
        self.voltages = np.full((count, len(circuit.nodes)), np.nan)
        self.currents = np.full((count, len(circuit.ties)), np.nan)
        self.ties = _keys(circuit)
        columns = sum(map(len, self.saves))
        if count * columns > _MOST_SAVED:
            raise SettingsError(
                f"{columns:,} values to save at {count:,} points are more than {_MOST_SAVED:,}; save less"
            )
        self.saved = np.full((count, columns), np.nan)
        self.saved_ambiguous, self.saved_left_out = np.zeros(columns, bool), np.zeros(columns, bool)
        self.determined = np.ones(len(circuit.nodes), bool)
        self.left_out = np.zeros(len(circuit.nodes), bool)
        self.ambiguous = np.zeros(len(circuit.ties), bool)
        self.statuses = np.full(count, FAULT, f"<U{max(len(s.name) for s in Status)}")
        self.kcl = np.full(count, np.nan)

    def solve(self, rows: Ints, problem_of: Callable[[Ints], Problem]) -> None:
        """Solve the points `rows` as one batch; where some have no solution, find them by halving.

        When lenient, an island without a solution is left out, at the points where it has none.
        """
        report, done = self.progress, self.done

        def progress(rows_done: int, _: int) -> None:
            if report:
                report(done + rows_done, self.count)

        problem = None
        try:
            problem = problem_of(rows)
            solution = solve(
                problem,
                self.settings,
                start=self._start(problem),
                backend=self.backend,
                raise_on_failure=False,
                progress=progress,
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
        self._count(1)

    def _start(self, problem: Problem) -> Floats | None:
        """The last solution, where it can be that of this problem too."""
        if self.last is None or self.last.problem.topology.index_of_node is not problem.topology.index_of_node:
            return None
        x = self.last.x
        return x if x.shape == (problem.batch, problem.n_free) and np.isfinite(x).all() else None

    def _keep(self, rows: Ints, solution: Solution) -> None:
        self.last = solution
        self.steps = max(self.steps, solution.steps)
        if np.isfinite(solution.x).all():
            self.voltages[rows] = solution.voltages()
            ties = np.isin(self.ties, _keys(solution.circuit))  # some may be left out
            self.currents[np.ix_(rows, ties)], unique = solution.tie_currents
            self.determined &= solution.determined
            self.left_out |= solution.circuit.left_out
            self.ambiguous[ties] |= ~unique
            self.others |= dict.fromkeys(solution.ambiguous_others)
            if self.saves:
                saved = Saved(solution, self.saves)
                self.saved[rows] = saved.values()
                self.saved_ambiguous |= saved.ambiguous
                self.saved_left_out |= saved.left_out
            alone = rows.size == 1
            self.kcl[rows] = (
                solution.residuals.kcl_relative if alone else row_violations(solution, self.settings.tolerance)
            )
        solved = np.full(rows.size, True) if solution.solved else self.kcl[rows] <= self.settings.tolerance
        self.statuses[rows] = np.where(solved, Status.SOLVED.name, solution.status.name)
        for row in rows[~solved].tolist():
            self.messages[row] = solution.message if rows.size == 1 else solution.status.value
        self._count(rows.size)

    def _count(self, points: int) -> None:
        self.done += points
        if self.progress:
            self.progress(self.done, self.count)

    def result(self, circuit: Circuit, swept: tuple[Swept, ...], values: Floats, seconds: float) -> SweepResult:
        """What was found at all points."""
        return SweepResult(
            circuit=circuit,
            swept=swept,
            values=values,
            voltages=self.voltages,
            currents=self.currents,
            determined=self.determined,
            left_out=self.left_out,
            ambiguous=self.ambiguous,
            ambiguous_others=tuple(self.others),
            saves=self.saves,
            saved=self.saved,
            saved_ambiguous=self.saved_ambiguous,
            saved_left_out=self.saved_left_out,
            notes=tuple(self.notes.values()),
            statuses=self.statuses,
            kcl_relative=self.kcl,
            messages=self.messages,
            method=self.last.method if self.last else self.settings.method,
            why=self.last.why if self.last else "nothing to solve",
            backend=self.last.backend if self.last else self.settings.backend,
            dtype=self.settings.dtype,
            steps=self.steps,
            seconds={"sweep": seconds},
        )


class _Sweep:
    """The points of a `.dc` analysis: parameters and temperature outermost, then resistors, sources as a batch."""

    def __init__(self, circuit: Circuit, swept: tuple[Swept, ...], runner: _Runner) -> None:
        self.circuit, self.swept, self.runner = circuit, swept, runner
        axes = [points(s) for s in swept]
        self.shape = tuple(axis.size for axis in reversed(axes))  # the first swept varies fastest
        grids = np.meshgrid(*reversed(axes), indexing="ij")
        self.values: Floats = np.stack([grid.ravel() for grid in reversed(grids)], axis=1)  # (points, swept)
        self.evaluated, self.resistors, self.sources = (
            [k for k, s in enumerate(swept) if s.kind in kinds] for kinds in (("temp", "param"), "R", "VI")
        )
        only_voltages = all(s.kind == "V" for s in swept)
        self.revaluer = None if only_voltages else Revaluer(circuit.netlist)
        if not only_voltages:
            _check_as_read(circuit)

    def all_points(self) -> None:
        """Solve them."""
        self.runner.reserve(self.circuit, self.values.shape[0])
        base: Problem | None = None
        for outer in self._groups(np.arange(self.values.shape[0]), self.evaluated):
            with_outer, factors = self._evaluate(int(outer[0]))
            with _at_point(self, int(outer[0]), self.evaluated):
                base = compile_problem(with_outer) if base is None else base.with_circuit(with_outer)
            for rows in self._groups(outer, self.resistors):
                problem = base
                for k in self.resistors:
                    with _at_point(self, int(rows[0]), self.resistors):
                        siemens = 1.0 / (self.values[rows[0], k] * factors[k])
                        problem = problem.with_values({self.swept[k].name: siemens})
                self.runner.solve(rows, self._driven(problem, factors))

    def _groups(self, rows: Ints, axes: Sequence[int]) -> Iterator[Ints]:
        """The points `rows` in groups of equal values along some axes."""
        if not axes:
            yield rows
            return
        coordinates = np.unravel_index(rows, self.shape)
        keys = [coordinates[len(self.shape) - 1 - k] for k in axes]
        for choice in product(*(range(self.shape[len(self.shape) - 1 - k]) for k in reversed(axes))):
            chosen = np.logical_and.reduce([key == c for key, c in zip(reversed(keys), choice, strict=True)])
            yield rows[chosen]

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
        ones = {self.swept[k].name.lower(): 1.0 for k in (*self.resistors, *self.sources)}
        with _at_point(self, point, self.evaluated):
            netlist = self.revaluer.netlist(Changes(temp=temp, params=params, elements=ones))
            circuit = build_circuit(netlist)
        return circuit, {k: _values_of(netlist, self.swept[k]) for k in (*self.resistors, *self.sources)}

    def _members(self, swept: Swept) -> int:
        found = self.circuit.netlist.find(swept.name) if swept.kind in "VIR" else None
        return found[2] - found[1] if found else 1

    def _driven(self, problem: Problem, factors: Mapping[int, Floats]) -> Callable[[Ints], Problem]:
        """For points `rows` the problem with their sources as its batch."""

        def at(rows: Ints) -> Problem:
            values = {self.swept[k].name: self.values[rows, k][:, None] * factors[k] for k in self.sources}
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
