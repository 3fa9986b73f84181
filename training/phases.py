"""How the phases of learning find their states: by a given number of sweeps of bcd, by sweeps to rest, or by newton.

Nudging is a change to the circuit: E + beta C has a conductance beta (S) from every output node to a source of its
target's voltage.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from circuitsim import Circuit, Problem, Settings, Solution, Status, compile_problem, solve
from circuitsim.backends.base import Backend, Engine
from circuitsim.branches import BATCHED, Branches, Conductors, CurrentSources
from circuitsim.choosing import choose_method, is_on_trial
from circuitsim.drive import Drive
from circuitsim.kcl import outflow, shift, violation
from circuitsim.methods import bcd
from circuitsim.methods.outcome import Outcome
from training.convex import check_convex, check_nudge
from training.gradient import Outputs
from training.learner import LearningError
from training.recipe import Recipe

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

B = TypeVar("B", bound=Branches)

_MOST_SWEEPS = 100_000
_OF_NO_ELEMENT = -1  # kind of a branch that is not in the netlist


@dataclass(frozen=True)
class State:
    """What a free phase reaches."""

    x: Floats  # (rows, n_free) V
    carried: Floats | None = None  # (rows, n_carriers) A: of perfect diodes between free units, of controlled sources


class Phases(Protocol):
    """A way to relax a circuit, free and nudged."""

    name: str  # what it is called, for people
    dtype: str  # of what it computes

    def free(self, problem: Problem, drive: Drive, x: Floats) -> State:
        """The state that a free phase reaches from x, (rows, n_free) V. LearningError when it does not settle."""

    def nudged(
        self, problem: Problem, drive: Drive, x: Floats, outputs: Outputs, targets: Floats, betas: tuple[float, ...]
    ) -> list[Floats]:
        """What phases nudged by these betas (S) add to the free state x, (rows, n_free) V each.

        LearningError as above, or when a nudged problem is not convex.
        """

    def forget(self) -> None:
        """Discard what is known of earlier problems: the next one has another topology."""


def choose_phases(problem: Problem, recipe: Recipe, backend: Backend) -> Phases:
    """A number of sweeps; or, with a tolerance, newton where `auto` solves with it, and otherwise sweeps.

    On any backend newton takes circuits in which sweeps may stop at a wrong point. A tolerance needs float64: in
    float32 a node through which hardly any current flows may never settle.
    """
    if recipe.tol is None:
        return Sweeps(backend, recipe.sweeps, None, recipe.dtype)
    by_newton = bcd.unfit(problem) or (
        backend.name == "cpu" and choose_method(problem, Settings(tol=recipe.tol))[0] == "newton"
    )
    return Newton(backend, recipe.tol) if by_newton else Sweeps(backend, recipe.sweeps, recipe.tol)


class Sweeps(Phases):
    """By sweeps of bcd: a fixed number, or with `tol` until the relative KCL violation is below it.

    Nudged phases relax a correction to the free state, which has its own digits, however small it is in comparison.
    """

    def __init__(self, backend: Backend, sweeps: int, tol: float | None = None, dtype: str = "float64") -> None:
        self.backend, self.sweeps, self.tol, self.dtype = backend, sweeps, tol, dtype
        self._circuits = _NudgedCircuits()

    name = "general path"

    def forget(self) -> None:
        """Compile nudged circuits anew."""
        self._circuits.clear()

    def free(self, problem: Problem, drive: Drive, x: Floats) -> State:
        engine = self.backend.engine(problem, self.dtype)
        if self.tol is None:
            engine.start(drive, x)
            engine.sweep(self.sweeps)
            return State(engine.voltages())
        outcome = bcd.solve_tile(problem, drive, engine, Settings(dtype=self.dtype, tol=self.tol), x)
        if outcome.status is not Status.SOLVED:  # where nothing flows, another sample's voltages may only fade away
            return Newton(self.backend, self.tol).free(problem, drive, x)
        return State(unknowns_of(outcome))

    def or_newton(self, problem: Problem, drive: Drive) -> tuple[Phases, State | None]:
        """With a tolerance: newton, if the first sweeps from 0 show that very many would be needed.

        Also the state of the free phase, if these sweeps reach it.
        """
        assert self.tol is not None
        engine = self.backend.engine(problem, self.dtype)
        settings = Settings(dtype=self.dtype, tol=self.tol)
        if is_on_trial(problem) and not bcd.takes_few_sweeps(drive.part(slice(0, 1)), engine, None, self.tol):
            return Newton(self.backend, self.tol), None
        found = bcd.solve_tile(problem, drive, engine, settings, None, patient=False)
        phases = Newton(self.backend, self.tol) if found.status is Status.MAX_SWEEPS else self
        return phases, State(unknowns_of(found)) if found.status is Status.SOLVED else None

    def nudged(
        self, problem: Problem, drive: Drive, x: Floats, outputs: Outputs, targets: Floats, betas: tuple[float, ...]
    ) -> list[Floats]:
        y = outputs.voltages(problem, drive, x)
        couples = bool(outputs.references.any())  # two units: such a nudged circuit has another topology, and drive
        base = drive if couples and all(betas) else shift(problem, drive, x)
        return [self._correction(problem, base, x, outputs, targets, beta, y) for beta in betas]

    def _correction(
        self, problem: Problem, base: Drive, x: Floats, outputs: Outputs, targets: Floats, beta: float, y: Floats
    ) -> Floats:
        """One of `nudged`; `base` is the drive for corrections to the free state x, in which the outputs are at y."""
        check_nudge(problem, outputs, beta)
        unit: slice | Ints = slice(None)
        if beta and outputs.references.any():
            nudged, unit = self._circuits.of(problem, outputs, targets, beta)
            drive = shift(nudged, nudged.drive(slice(0, len(x))), _placed(x, nudged, unit))
        else:
            nudged, drive = _nudged(problem, base, outputs, targets, beta, y)
        engine = self.backend.engine(nudged, self.dtype)
        engine.start(drive, np.zeros((len(x), nudged.n_free)))
        if self.tol is None:
            engine.sweep(self.sweeps)
            return engine.voltages()[:, unit]
        scale = max(abs(beta), np.finfo(float).tiny) * np.abs(targets - y).sum(axis=1)
        try:
            return _relax(nudged, drive, engine, self.tol, scale)[:, unit]
        except LearningError:
            check_convex(problem, outputs, beta)  # if it is not convex, this is the reason to give
            raise


def unknowns_of(found: Outcome | Solution) -> Floats:
    """The unknowns that were found, (rows, n_free) V."""
    return found.x if found.low is None else found.x + found.low.sum(axis=0)


def _nudged(
    problem: Problem, drive: Drive, outputs: Outputs, targets: Floats, beta: float, y: Floats
) -> tuple[Problem, Drive]:
    """The circuit of E + beta C, for unknowns that are corrections to a state in which the outputs are at y.

    These are read against ground.
    """
    v = problem.values
    count = outputs.ends(problem.n_free)
    values = replace(v, diag=v.diag + beta * count, to_fixed=v.to_fixed + beta * count)
    pull = outputs.onto_units(beta * (targets - y), problem.n_free)
    return replace(problem, values=values), replace(drive, injection=drive.injection + pull)


def _relax(problem: Problem, drive: Drive, engine: Engine, tol: float, scale: Floats) -> Floats:
    """Sweep until no KCL violation is above tol x scale (rows,) A, or a sweep moves nothing, for rounding."""
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
    raise LearningError(f"a nudged phase does not settle in {_MOST_SWEEPS} sweeps; loosen tol, or fix the sweeps")


class Newton(Phases):
    """By newton, in float64, with the solver's certificate: for circuits in which sweeps are slow, or may stop short.

    A negative nudge makes the conductance at an output negative; what `convex.check_convex` accepts has a minimum.
    """

    def __init__(self, backend: Backend, tol: float) -> None:
        self.backend, self.settings = backend, Settings(method="newton", tol=tol)
        self._circuits = _NudgedCircuits()

    name = "general path by newton"
    dtype = "float64"

    def forget(self) -> None:
        """Compile nudged circuits anew."""
        self._circuits.clear()

    def free(self, problem: Problem, drive: Drive, x: Floats) -> State:
        found = self._solve(problem, x, "a free phase")
        return State(unknowns_of(found), found.carried)

    def nudged(
        self, problem: Problem, drive: Drive, x: Floats, outputs: Outputs, targets: Floats, betas: tuple[float, ...]
    ) -> list[Floats]:
        return [self._correction(problem, x, outputs, targets, beta) for beta in betas]

    def _correction(self, problem: Problem, x: Floats, outputs: Outputs, targets: Floats, beta: float) -> Floats:
        """One of `nudged`: the solution of the nudged circuit, minus the free state x."""
        if beta == 0:
            return np.zeros_like(x)
        if problem.circuit.reciprocal:  # an amplifier may hold an output
            check_nudge(problem, outputs, beta)
        there, unit = self._circuits.of(problem, outputs, targets, beta)
        try:
            found = self._solve(there, _placed(x, there, unit), f"a phase nudged by {beta:g} S")
        except LearningError:
            if problem.circuit.reciprocal:
                check_convex(problem, outputs, beta)  # if it is not convex, this is the reason to give
            raise
        moved = found.x[:, unit] - x
        return moved if found.low is None else moved + found.low[:, :, unit].sum(axis=0)

    def _solve(self, problem: Problem, x: Floats, phase: str) -> Solution:
        found = solve(problem, self.settings, start=x, backend=self.backend, raise_on_failure=False)
        if not found.solved:
            raise LearningError(f"{phase} is not solved: {found.message}; choose smaller learning rates")
        return found


class _NudgedCircuits:
    """Nudged circuits, which have an additional conductance and a current source at every output: each is compiled
    once, then given new values."""

    def __init__(self) -> None:
        self._compiled: dict[float, Problem] = {}

    def clear(self) -> None:
        """Compile anew."""
        self._compiled.clear()

    def of(self, problem: Problem, outputs: Outputs, targets: Floats, beta: float) -> tuple[Problem, Ints]:
        """The problem of E + beta C, and where in it the free units are."""
        circuit = nudged_circuit(problem.circuit, outputs, targets, beta)
        before = self._compiled.get(beta)
        there = self._compiled[beta] = before.with_circuit(circuit) if before else compile_problem(circuit)
        return there, there.topology.index_of_node[problem.topology.root_of_unit]


def _placed(x: Floats, problem: Problem, units: Ints) -> Floats:
    """The values x (rows, k) at these units of a problem, 0 at others, (rows, n_free)."""
    found = np.zeros((len(x), problem.n_free))
    found[:, units] = x
    return found


def nudged_circuit(circuit: Circuit, outputs: Outputs, targets: Floats, beta: float) -> Circuit:
    """The circuit of E + beta C: from each output a conductance beta to ground, or to the node against which it is
    read, and a current source beta x target."""
    nodes, others = outputs.nodes, outputs.references
    kind = np.full(nodes.size, _OF_NO_ELEMENT, np.int8)
    pull = Conductors(nodes, others, kind, nodes, np.full(nodes.size, beta))
    push = CurrentSources(others, nodes, kind, nodes, beta * targets)
    conductors, sources = _joined(circuit.conductors, pull), _joined(circuit.current_sources, push)
    return replace(circuit, conductors=conductors, current_sources=sources)


def _joined(one: B, other: B) -> B:
    """The branches of both tables, which are of one kind, in one table."""
    columns = {}
    for name in (f.name for f in fields(one)):
        pair = [getattr(one, name), getattr(other, name)]
        if name in BATCHED:
            rows = max(len(x) for x in pair)
            pair = [np.broadcast_to(x, (rows, x.shape[1])) for x in pair]
        columns[name] = np.concatenate(pair, axis=-1)
    return replace(one, **columns)
