"""`.dc` sweeps: sources are swept as one batch; resistors, temperature and parameters make circuits side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import Backend
from circuitsim.build import build_circuit
from circuitsim.circuit import Circuit, check_structure
from circuitsim.errors import NetlistError, SettingsError
from circuitsim.netlist.analyses import points
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.model import Analysis, Netlist, Swept
from circuitsim.netlist.revalue import Revaluer, Variant
from circuitsim.netlist.saves import Save
from circuitsim.problem import Problem, arranged
from circuitsim.saved import as_saves
from circuitsim.solution import Settings
from circuitsim.stack import UNKNOWNS, stacked
from circuitsim.sweeping.gather import Progress, Store, solve_plan
from circuitsim.sweeping.plan import CHUNK_CIRCUITS, CHUNK_GROUPS, Plan, check_circuit, revaluer_of
from circuitsim.sweeping.results import SweepResult
from circuitsim.sweeping.runner import Runner, source_keys

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def sweep(
    circuit: Circuit,
    dc: Analysis | str | None = None,
    settings: Settings | None = None,
    *,
    backend: Backend | None = None,
    progress: Progress | None = None,
    saves: Sequence[Save | str] | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    study: Store | None = None,
) -> SweepResult:
    """Solve a circuit at all points of a `.dc` analysis: one of `circuit.netlist.sweeps`, or a text `V1 0 5 0.1`.

    The default is the analysis of the netlist, which must then have exactly one.

    A point that has no solution, or that is not solved, does not stop the others: see `statuses`. Parameters:

    backend    a Backend object, for this process only; default: the one that settings names
    progress   called with (points done, points in all)
    saves      what to keep besides voltages and source currents, and what .save cards name: texts such as "i(R1)"
    workers    number of processes on this machine; the results do not depend on it
    scheduler  tcp://host:8786: use the workers of this Dask scheduler instead
    study      keeps finished chunks, so that they need not be solved again (io.study.Study)

    Raises NetlistError for values that an element may not have, naming the point; TopologyError when the structure
    changes during the sweep (a resistance that becomes 0); SettingsError; BackendUnavailable, also for workers.
    """
    check_circuit(circuit, settings)
    clock = time.perf_counter()
    if dc is None or isinstance(dc, str):
        dc, *others = analyses_to_run(circuit, dc)
        if others:
            raise SettingsError(
                f"{circuit.netlist.path} has {1 + len(others)} .dc cards; choose one, such as the first: "
                "sweep(circuit, circuit.netlist.sweeps[0])"
            )
    if not isinstance(dc, Analysis):
        raise SettingsError(f"sweep takes a text such as 'V1 0 5 0.1', or one of the netlist's analyses, found {dc!r}")
    if dc.kind != "dc":
        raise SettingsError(f".{dc.kind} is not a sweep; choose a .dc analysis")
    plan = SweepPlan(circuit, settings or Settings(), backend, as_saves(circuit, saves), dc.sweeps)
    return solve_plan(plan, clock, progress, workers, scheduler, study)


def analyses_to_run(circuit: Circuit, dc: str | None = None, command: bool = False) -> list[Analysis]:
    """The `.dc` analysis in a text `V1 0 5 0.1`, or by default those of the netlist.

    Raises SettingsError for a wrong text, and if there are none; its cure names the options of a command, if asked to.
    """
    if dc is not None:
        try:
            return [Revaluer(circuit.netlist).analysis(dc)]
        except NetlistError as error:
            raise SettingsError(f"{'--dc' if command else 'sweep'} '{dc}': {error.message}") from None
    analyses = circuit.netlist.sweeps
    if not analyses:
        instead = "--dc 'V1 0 5 0.1', or --runs for Monte Carlo" if command else "sweep(circuit, 'V1 0 5 0.1')"
        raise SettingsError(f"{circuit.netlist.path} has no .dc card; add one, or {instead}")
    return analyses


def count_points(analysis: Analysis) -> int:
    """How many points an analysis has."""
    return math.prod(points(swept).size for swept in analysis.sweeps)


class SweepPlan(Plan):
    """The points of a `.dc` analysis: parameters and temperature outermost, then resistors, then sources as a batch."""

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
        beside = rows == 1 and 4 * len(circuit.nodes) <= UNKNOWNS and settings.method != "bcd"  # four are a stack
        most = CHUNK_CIRCUITS if beside else CHUNK_GROUPS
        super().__init__(circuit, settings, backend, saves, values, by_group.reshape(-1, rows), most)
        self.per_evaluation = math.prod(shape[len(swept) - 1 - k] for k in self.resistors)  # groups
        only_voltages = all(s.kind == "V" for s in swept)
        self.revaluer = None if only_voltages else revaluer_of(circuit)
        if self.revaluer is not None:
            self.revaluer.deck.check_changes(s.name.lower() for s in swept if s.kind == "param")

    @cached_property
    def _first(self) -> tuple[Problem, dict[int, Floats]]:
        """The problem at the first point, and factors as in _evaluate. Results have the ties of the circuit as read."""
        circuit, factors = self._evaluate(0)
        with _at_point(self, 0, self.evaluated):
            if self.revaluer is not None and self.evaluated:
                as_read = build_circuit(self.revaluer.netlist(Changes(elements=self._ones)))
                if not np.array_equal(source_keys(as_read), source_keys(circuit)):
                    check_structure(as_read, circuit)
            return arranged(circuit), factors  # its sources are no point

    @property
    def base(self) -> Problem:
        return self._first[0]

    def solve_groups(self, groups: range, rows: Ints, runner: Runner) -> None:
        count = rows.shape[1]
        if self.revaluer is not None and len(self.evaluated) == len(self.swept):
            variants = self.revaluer.variants([self._changes(point) for point in rows[:, 0].tolist()])
            runner.solve_apart(enumerate(variants), partial(self._circuit_of, rows[:, 0]), self.stack, self.stacks)
            return
        found = enumerate(self._circuits(groups, rows))
        if count == 1:
            points = ((k, circuit.with_values(self._sources(rows[k], factors))) for k, (circuit, factors) in found)
            runner.solve_apart(points, lambda _, circuit: circuit, stacked, self.stacks)
            return
        for k, (circuit, factors) in found:
            first = k * count
            runner.solve(np.arange(first, first + count), self._driven(circuit, factors, rows[k], first))

    def _circuit_of(self, points: Ints, row: int, variant: Variant) -> Circuit:
        """The circuit of a variant of the netlist, for the point `points[row]`."""
        with _at_point(self, int(points[row]), self.evaluated):
            circuit = build_circuit(variant.netlist())
            check_structure(self.base.circuit, circuit)
        return circuit

    def _circuits(self, groups: range, rows: Ints) -> Iterator[tuple[Circuit, dict[int, Floats]]]:
        """For each group its circuit, except for the values of swept sources, and the factors of those values."""
        circuit, factors = self.base.circuit, self._first[1]
        for k, (group, point) in enumerate(zip(groups, rows[:, 0].tolist(), strict=True)):
            if group >= self.per_evaluation and (not k or group % self.per_evaluation == 0):
                circuit, factors = self._evaluate(point)
                with _at_point(self, point, self.evaluated):
                    check_structure(self.base.circuit, circuit)
            with _at_point(self, point, self.resistors):
                ohms = {self.swept[axis].name: self.values[point, axis] * factors[axis] for axis in self.resistors}
                with np.errstate(divide="ignore", over="ignore"):  # inf is no value: an error
                    siemens = {name: 1.0 / value for name, value in ohms.items()}
                changed = circuit.with_values(siemens)
            yield changed, factors

    def facts(self) -> dict[str, Any]:
        return {"analysis": [f".dc {s.name} {s.start!r} {s.stop!r} {s.step!r}" for s in self.swept], **super().facts()}

    def _evaluate(self, point: int) -> tuple[Circuit, dict[int, Floats]]:
        """The circuit at a point, except for swept resistors and sources; and the factors (m, scale, tc1) of those.

        Those all have 1 ohm, 1 V or 1 A here, as the values on their cards may mean another structure (R = 0 does).
        """
        none = {k: np.ones(self._members(s)) for k, s in enumerate(self.swept)}
        if self.revaluer is None:
            return self.circuit, none
        with _at_point(self, point, self.evaluated):
            netlist = self.revaluer.netlist(self._changes(point))
            circuit = build_circuit(netlist)
        return circuit, {k: _values_of(netlist, self.swept[k]) for k in (*self.resistors, *self.sources)}

    def _changes(self, point: int) -> Changes:
        """Temperature and parameters at a point."""
        changes = Changes.at_point((self.swept[k], float(self.values[point, k])) for k in self.evaluated)
        return replace(changes, elements=self._ones)

    @property
    def _ones(self) -> dict[str, float]:
        """The swept resistors and sources, at 1 ohm, 1 V or 1 A."""
        return {self.swept[k].name.lower(): 1.0 for k in (*self.resistors, *self.sources)}

    def _members(self, swept: Swept) -> int:
        found = self.circuit.netlist.find(swept.name) if swept.kind in "VIR" else None
        return found[2] - found[1] if found else 1

    def _driven(
        self, circuit: Circuit, factors: Mapping[int, Floats], chosen: Ints, first: int
    ) -> Callable[[Ints], Problem]:
        """A function that gives, for rows of a chunk, the problem with their sources as its batch.

        Row `first` is the point `chosen[0]`.
        """

        def at(rows: Ints) -> Problem:
            driven = circuit.with_values(self._sources(chosen[rows - first], factors))
            return self.base.with_circuit(driven)

        return at

    def _sources(self, some: Ints, factors: Mapping[int, Floats]) -> dict[str, Floats]:
        """The values of the swept sources at some points, each (len(some), members)."""
        return {self.swept[k].name: self.values[some, k][:, None] * factors[k] for k in self.sources}


@contextmanager
def _at_point(run: SweepPlan, point: int, axes: Sequence[int]) -> Iterator[None]:
    """Inside this context, messages of errors begin with the values of a point along some axes."""
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
