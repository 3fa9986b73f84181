"""The points of one chunk, solved one after another, as batches or side by side, starting from the last solution."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.base import Backend
from circuitsim.circuit import Circuit
from circuitsim.currents import row_violations
from circuitsim.errors import BackendUnavailable, NetlistError, TopologyError
from circuitsim.methods.mna import KeptNetwork
from circuitsim.netlist.model import KINDS
from circuitsim.netlist.saves import Save
from circuitsim.problem import Problem, compile_problem, without_island
from circuitsim.saved import Saved
from circuitsim.solution import WEAKLY_HELD, Settings, Solution, Status
from circuitsim.solving import solve
from circuitsim.stack import (
    FEW_STEPS,
    Stacks,
    solve_in_shares,
    stacked_saves,
    units_in_copies,
    unstacked,
    unstacked_groups,
)
from circuitsim.sweeping.results import NOTHING, Note, Points, unknown_points

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

T = TypeVar("T")

_WHY = "many circuits side by side"

_BATCH_ROW = re.compile(r" \(batch row \d+\)")  # means nothing here: how points make batches is not seen


class Runner:
    """Solves the points of a chunk, which are numbered from 0, and keeps the results."""

    def __init__(
        self,
        circuit: Circuit,
        settings: Settings,
        backend: Backend | None,
        saves: tuple[Save, ...],
        count: int,
        kept: KeptNetwork | None = None,
    ) -> None:
        """`count`: how many points; `kept`: of the chunk before, in this process."""
        self.lenient, self.settings = settings.lenient, replace(settings, lenient=False)
        self.backend, self.kept = backend, kept
        self.few_steps = replace(self.settings, method="newton", max_sweeps=min(settings.max_sweeps, FEW_STEPS))
        if settings.backend == "auto":
            self.few_steps = replace(self.few_steps, backend="cpu")
        self.circuit, self.saves = circuit, saves
        self.sources = source_keys(circuit)
        self.found = unknown_points(circuit, saves, count)
        self.last: Solution | None = None  # of a point or a batch
        self.steps = 0
        self.messages: dict[int, str] = {}
        self.others: dict[str, None] = {}  # Solution.ambiguous_others
        self.notes: dict[frozenset[str], Note] = {}  # of the islands that are left out; of none: on voltages

    def solve(self, rows: Ints, problem_of: Callable[[Ints], Problem]) -> None:
        """Solve the points `rows` as one batch; where some have no solution, or overflow, find them by halving.

        When lenient, an island without a solution is left out at the points where it has none.
        """
        while True:
            problem = None
            try:
                problem = problem_of(rows)
                solution = solve(
                    problem,
                    self.settings,
                    start=self.last.start_for(problem) if self.last else None,
                    backend=self.backend,
                    raise_on_failure=False,
                    in_order=True,  # what one tile learns, the next one uses
                    kept=self.kept,
                )
                break
            except TopologyError as error:
                if problem is not None and (rest := self._without_island(rows, problem, error)):
                    problem_of = rest
                elif rows.size == 1:
                    self.fault(int(rows[0]), error)
                    return
                else:
                    self._solve_halves(rows, problem_of)
                    return
        if rows.size > 1 and not np.isfinite(solution.x).all() and solution.status is not Status.REFUSED:
            self._solve_halves(rows, problem_of)
        else:
            self._keep(rows, solution)

    def _solve_halves(self, rows: Ints, problem_of: Callable[[Ints], Problem]) -> None:
        for half in np.array_split(rows, 2):
            self.solve(half, problem_of)

    def solve_apart(
        self,
        points: Iterable[tuple[int, T]],
        circuit_of: Callable[[int, T], Circuit | None],
        stack_of: Callable[[Sequence[T]], Circuit],
        stacks: Stacks,
    ) -> None:
        """Solve points that are circuits of their own: the first alone, then, from its solution, the others together.

        circuit_of  makes the circuit of a point from its row and what it is given as; None if it has reported a fault
        stack_of    makes one circuit from several such, side by side; NetlistError if one of them is faulty
        """

        def one(point: tuple[int, T]) -> None:
            row, given = point
            if (circuit := circuit_of(row, given)) is not None:
                self.solve(np.array([row]), lambda _: stacks.base.with_circuit(circuit))

        def many(points: list[tuple[int, T]]) -> bool:
            rows, given = zip(*points, strict=True)
            problem, start = stacks.problem(stack_of(given)), None
            if self.last is not None:
                v = unstacked(self.last.voltages()[-1:], self.last.circuit.copies, nodes=True)[-1]
                start = np.empty((1, problem.n_free))
                start[0, units_in_copies(problem)] = v[stacks.base.topology.root_of_unit]
                start = start if np.isfinite(start).all() else None  # a node that is left out has none
            try:
                solution = solve(
                    problem, self.few_steps, start=start, backend=self.backend, raise_on_failure=False, in_order=True
                )
            except BackendUnavailable:  # its memory may be enough for fewer
                return False
            if solution.loose.any():  # which copy leaves something open is not told
                return False
            if solution.solved:
                self._keep(np.array(rows), replace(solution, why=solution.why.replace("asked for", _WHY)))
            return solution.solved

        solve_in_shares(points, stacks.size, many, one)

    def _without_island(self, rows: Ints, problem: Problem, error: TopologyError) -> Callable[[Ints], Problem] | None:
        """When lenient, the problem at any of these points without the island that an error names; None if it stays.

        It also stays when the currents into the island are not the same at all these points.
        """
        circuit = problem.circuit
        s, nodes = circuit.current_sources, [circuit.netlist.node(name) for name in error.nodes]
        into = s.i[:, np.isin(s.a, nodes) | np.isin(s.b, nodes)]
        if not self.lenient or not error.is_cut or (into != into[:1]).any():
            return None
        try:
            rest = compile_problem(without_island(circuit, error))
        except TopologyError:  # a controlled source joins the island to the rest, or more is wrong
            return None
        at_line, text = rest.circuit.notes[-1]
        self.notes.setdefault(frozenset(error.nodes), (at_line, _BATCH_ROW.sub("", text)))

        def at(some: Ints) -> Problem:
            return replace(rest, circuit=rest.circuit.at_rows(np.searchsorted(rows, some)))

        return at

    def fault(self, row: int, error: NetlistError) -> None:
        """Record why a point cannot be solved."""
        self.messages[row] = str(error).split("\n")[0]

    def _keep(self, rows: Ints, solution: Solution) -> None:
        self.last, copies = solution, solution.circuit.copies
        self.steps = max(self.steps, solution.steps)
        if solution.weakly_held:
            self.notes.setdefault(frozenset(), (None, WEAKLY_HELD))
        found, kcl = self.found, self.found["kcl_relative"]
        if np.isfinite(solution.x).all():
            found["voltages"][rows] = unstacked(solution.voltages(), copies, nodes=True)
            sources = np.isin(self.sources, source_keys(solution.circuit))  # some may be left out
            current, unique = solution.source_currents
            of_ties = [len(solution.circuit.ties)]
            found["currents"][np.ix_(rows, sources)] = unstacked_groups(current, copies, of_ties)
            found["ambiguous"][sources] |= unstacked_groups(~unique[None], copies, of_ties).any(axis=0)
            found["determined"] &= unstacked(solution.determined[None], copies, nodes=True).all(axis=0)
            found["left_out"] |= unstacked(solution.circuit.left_out[None], copies, nodes=True).any(axis=0)
            self.others |= dict.fromkeys(solution.ambiguous_others)
            if self.saves:
                self._keep_saved(rows, solution)
            kcl[rows] = solution.kcl_relative if copies == 1 else row_violations(solution).ravel()
        found["statuses"][rows] = Status.SOLVED.name
        for k, status in solution.unsolved.items():  # of copies side by side there are none: only then they are kept
            found["statuses"][rows[k]] = status.name
            self.messages[int(rows[k])] = solution.message if rows.size == 1 else status.value

    def _keep_saved(self, rows: Ints, solution: Solution) -> None:
        copies, found = solution.circuit.copies, self.found
        saved = Saved(solution, stacked_saves(self.saves, self.circuit, copies))
        sizes = [copies * len(save) for save in self.saves[:-1]]
        found["saved"][rows] = unstacked_groups(saved.values(), copies, sizes)
        found["saved_ambiguous"] |= unstacked_groups(saved.ambiguous[None], copies, sizes).any(axis=0)
        found["saved_left_out"] |= unstacked_groups(saved.left_out[None], copies, sizes).any(axis=0)

    def points(self) -> Points:
        """The results of the chunk."""
        return Points(
            **self.found,
            ambiguous_others=tuple(self.others),
            islands=tuple(tuple(sorted(island)) for island in self.notes),
            notes=tuple(self.notes.values()),
            messages=self.messages,
            method=self.last.method if self.last else self.settings.method,
            why=self.last.why if self.last else NOTHING,
            backend=self.last.backend if self.last else self.settings.backend,
            steps=self.steps,
        )


def source_keys(circuit: Circuit) -> Ints:
    """A number that identifies the element of each source."""
    return circuit.sources.row * len(KINDS) + circuit.sources.kind
