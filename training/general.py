"""Learning on any circuit: a step solves the prepared problem, computes the gradient and updates the values.

phases.py solves; eqprop.py and adjoint.py compute gradients; network.py refuses what has none.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from circuitsim import Problem, SettingsError, compile_problem, solve
from circuitsim.backends.base import Backend
from circuitsim.circuit import Circuit
from circuitsim.drive import Drive
from circuitsim.methods import bcd
from training import eqprop
from training.adjoint import bp_fields, implicit_fields
from training.amplifiers import find_energy
from training.convex import check_convex
from training.gradient import by_element, find_outputs, gradients, grouped, trained_elements, with_group_values
from training.learner import (
    AT_ONCE,
    Learner,
    LearningError,
    Samples,
    Tally,
    check_arrays,
    check_batches,
    rates_of,
    tally_of,
)
from training.phases import Newton, State, Sweeps, choose_phases, unknowns_of
from training.recipe import Recipe

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_SETTLED = 0.05  # of the largest output: by less it may be off after the sweeps without a remark
_CHECK_EVERY = 1000  # steps between two tests of convexity
_FEW = 200  # unknowns: beside a step the test takes next to no time, and is made before each
_AT = "compiled at "  # a value's name: that of an array in a checkpoint


def unsettled(y: Floats, settled: Floats, sweeps: int) -> str:
    """A sentence where outputs y after so many sweeps are not those of the circuit, `settled`; both (rows, n) V."""
    off, largest = float(np.abs(y - settled).max()), float(np.abs(settled).max())
    if not off > _SETTLED * largest:
        return ""
    return (
        f"after {sweeps} sweeps outputs are up to {off:.3g} V from where the circuit settles (up to {largest:.3g} V): "
        "a different circuit is trained; give a tol, say 1e-9, or more sweeps"
    )


class GeneralLearner(Learner):
    """See learner.Learner. The state between steps is x, the unknowns of the problem, a row per sample of the batch."""

    def __init__(self, problem: Problem, recipe: Recipe, backend: Backend) -> None:
        self.problem, self.recipe, self.backend = problem, recipe, backend
        self.batch_size = recipe.batch_size
        self.outputs_at = find_outputs(problem)
        self.energy = find_energy(problem, self.outputs_at)
        self.trained = grouped(trained_elements(problem))
        self.sources = input_sources(problem.circuit)
        inputs = np.zeros(
            (recipe.batch_size, sum(count for _, count in self.sources))
        )  # the method depends on the rows
        self.phases = choose_phases(problem.with_values(split_inputs(self.sources, inputs)), recipe, backend)
        self.state = np.zeros((recipe.batch_size, problem.n_free))
        self.free = State(self.state)
        self.steps = 0
        self.compiled_at: dict[str, Floats] = {}  # the values at which the problem was compiled; none: those at first
        self.betas = eqprop.nudges(recipe.variant, recipe.nudge)

    at_once = AT_ONCE

    @property
    def path(self) -> str:  # type: ignore[override]
        return self.phases.name

    @property
    def dtype(self) -> str:  # type: ignore[override]
        return self.phases.dtype

    def prepare(self, samples: Samples) -> None:
        samples.inputs(slice(0, 1), sum(count for _, count in self.sources))
        samples.check_outputs(self.outputs_at.nodes.size)
        tol, phases = self.recipe.tol, self.phases
        if not isinstance(phases, Sweeps) or self.backend.name == "reference":  # which takes seconds for what is slow
            return
        size = np.abs(samples.features.astype(np.float64)).sum(axis=1)
        most = np.argsort(-size, kind="stable")[: self.batch_size]  # rows without any input are soon at rest
        problem, drive = self._driven(samples, most)
        if tol is None:
            self.remark = self._unsettled(problem, drive)
        else:
            self.phases, _ = phases.or_newton(problem, drive)

    def _unsettled(self, problem: Problem, drive: Drive) -> str:
        """A sentence where the outputs after the recipe's sweeps are not those of the circuit."""
        found = solve(problem, raise_on_failure=False)
        if not found.solved:
            return ""
        y = self.outputs_at.voltages(problem, drive, self.phases.free(problem, drive, np.zeros_like(found.x)).x)
        settled = self.outputs_at.voltages(problem, drive, unknowns_of(found))
        return unsettled(y, settled, self.recipe.sweeps)

    def train(self, samples: Samples, order: Ints, rates: Mapping[str, float]) -> Tally:
        check_batches(order, self.batch_size)
        by_name = rates_of(self.problem.circuit.netlist.trained, rates)
        by_group = [group.spread(by_name) for group in self.trained]
        tally = Tally()
        for first in range(0, order.size, self.batch_size):
            rows = order[first : first + self.batch_size]
            tally += self._step(samples, rows, by_group)
        return tally

    def _step(self, samples: Samples, rows: Ints, rates: list[Floats]) -> Tally:
        targets = samples.targets[rows].astype(np.float64)
        problem, drive = self._driven(samples, rows)
        due = self.steps % _CHECK_EVERY == 0
        if self.recipe.algorithm == "ep" and (due or problem.n_free <= _FEW):
            check_convex(problem, self.outputs_at, min(self.betas), self.energy, doubts=due)
        self.free = self.phases.free(problem, drive, self.state)
        y = self.outputs_at.voltages(problem, drive, self.free.x)
        self._move(self._gradients(problem, drive, targets), rates)
        self.steps += 1
        return tally_of(y, targets)

    def _driven(self, samples: Samples, rows: Ints | slice) -> tuple[Problem, Drive]:
        """The problem with its inputs at these samples."""
        count = sum(n for _, n in self.sources)
        values = self.recipe.gain * samples.inputs(rows, count)
        problem = self.problem.with_values(split_inputs(self.sources, values))
        return problem, problem.drive(slice(0, values.shape[0]))

    def _gradients(self, problem: Problem, drive: Drive, targets: Floats) -> list[Floats]:
        """The gradient of each group of trained elements; moves the state to where the method leaves it."""
        r, out, x = self.recipe, self.outputs_at, self.free.x
        if r.algorithm == "implicit" or (r.algorithm == "bp" and r.tol is not None):  # through ever more sweeps
            pull = out.voltages(problem, drive, x) - targets
            fields = [implicit_fields(problem, drive, self.free, out, pull, self.dtype)]
            self.state = x
        elif r.algorithm == "bp":
            fields, self.state = bp_fields(problem, drive, x, out, targets, r.sweeps, self.dtype, self.backend)
        else:
            one, self.state = eqprop.ep_fields(problem, drive, x, out, targets, self.betas, self.phases, self.energy)
            fields = [one]
        parts = [gradients(problem, self.trained, out, f) for f in fields]
        return [sum(values[1:], start=values[0]) for values in zip(*parts, strict=True)]

    def _move(self, slopes: list[Floats], rates: list[Floats]) -> None:
        """A step down the gradient: g <- clip(g - rate dC/dg, g_min, g_max); sources have no bounds."""
        new, circuit = [], self.problem.circuit
        for group, rate, slope in zip(self.trained, rates, slopes, strict=True):
            moved = group.values(circuit)
            moved -= np.multiply(rate, slope, out=slope)
            if not (finite := np.isfinite(moved)).all():
                name = group.name_of(int(finite.argmin()))
                raise LearningError(f"{name}: its new values are not finite; choose smaller learning rates")
            new.append(np.clip(moved, *self.recipe.window, out=moved) if group.is_conductance else moved)
        self._go_on(self.problem.with_circuit(with_group_values(circuit, self.trained, new)))

    def _go_on(self, problem: Problem) -> None:
        """With new values. One that becomes 0 S, or leaves it, may change the islands: then all is prepared again."""
        changed = problem.topology is not self.problem.topology
        if changed:
            self._take_up(problem)
        self.problem = problem
        if changed:
            self.compiled_at = self.values()

    def _take_up(self, problem: Problem) -> None:
        """Another topology: the place of everything in it. LearningError where it cannot be learnt with."""
        fault = "" if isinstance(self.phases, Newton) else bcd.unfit(problem)
        try:
            outputs = find_outputs(problem)
        except SettingsError as error:
            fault = str(error)
        if fault:
            raise LearningError(
                f"a trained conductance fell to 0, or rose from it: {fault}; choose smaller learning rates, or put a "
                "resistor beside it that does not learn"
            )
        was = self.problem.topology.index_of_node[problem.topology.root_of_unit]
        self.state = np.where(was >= 0, np.append(self.state, np.zeros((len(self.state), 1)), axis=1)[:, was], 0.0)
        self.outputs_at, self.trained = outputs, grouped(trained_elements(problem))
        self.energy = find_energy(problem, outputs)
        self.phases.forget()

    def outputs(self, samples: Samples, rows: slice) -> Floats:
        found = []
        for first in range(rows.start, rows.stop, self.at_once):
            problem, drive = self._driven(samples, slice(first, min(first + self.at_once, rows.stop)))
            zero = np.zeros((problem.batch, problem.n_free))
            found.append(self.outputs_at.voltages(problem, drive, self.phases.free(problem, drive, zero).x))
        return np.concatenate(found)

    def values(self) -> dict[str, Floats]:
        return by_element(self.trained, [group.values(self.problem.circuit) for group in self.trained])

    def arrays(self) -> dict[str, NDArray]:
        compiled_at = {f"{_AT}{name}": value for name, value in self.compiled_at.items()}
        return {"state": self.state.copy(), "steps": np.array(self.steps), **self.values(), **compiled_at}

    def restore(self, arrays: Mapping[str, NDArray]) -> None:
        values = self.values()
        arrays = _in_shape(arrays, values)
        check_arrays(arrays, {"steps": np.array(self.steps), **values})
        if all(f"{_AT}{name}" in arrays for name in values):
            compiled_at = {name: np.array(arrays[f"{_AT}{name}"]) for name in values}
            problem = compile_problem(self.problem.circuit.with_values(compiled_at))
            self._take_up(problem)
            self.problem, self.compiled_at = problem, compiled_at
        self._go_on(self.problem.with_values({name: arrays[name] for name in values}))
        check_arrays(arrays, {"state": self.state})
        self.state, self.steps = np.array(arrays["state"]), int(arrays["steps"])

    def free_state(self) -> list[Floats]:
        return [self.free.x]


def input_sources(circuit: Circuit) -> list[tuple[str, int]]:
    """The `.input` elements, with the number of sources in each. SettingsError when there are none."""
    names = circuit.netlist.inputs
    if not names:
        raise SettingsError(f"{circuit.netlist.path} has no inputs; add `.input` with the sources that take the data")
    found = []
    for name in names:
        _, start, stop = circuit.rows_of(name)
        found.append((name, stop - start))
    both = {name.lower() for name in names} & {name.lower() for name in circuit.netlist.trained}
    if both:
        raise SettingsError(f"{sorted(both)[0]} is in .input and in .train: it cannot both take the data and learn")
    return found


def _in_shape(arrays: Mapping[str, NDArray], values: Mapping[str, Floats]) -> dict[str, NDArray]:
    """The arrays of a checkpoint; earlier ones hold in a row the values of elements with two ranges."""
    found = dict(arrays)
    for name, value in values.items():
        for key in (name, f"{_AT}{name}"):
            if value.ndim > 1 and key in found and found[key].shape == (value.size,):
                found[key] = found[key].reshape(value.shape)
    return found


def split_inputs(sources: list[tuple[str, int]], values: Floats) -> dict[str, Floats]:
    """Columns of values (rows, sources), element by element."""
    stops = np.cumsum([count for _, count in sources])
    return {name: values[:, stop - count : stop] for (name, count), stop in zip(sources, stops, strict=True)}
