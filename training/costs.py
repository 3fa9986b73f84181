"""The cost of a circuit's outputs and its gradient: for training loops, optimisers and studies of your own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim import Circuit, Problem, SettingsError, compile_problem
from circuitsim.backends.base import find_backend
from circuitsim.netlist.tokens import shown
from training.adjoint import implicit_fields
from training.amplifiers import find_energy
from training.convex import check_convex
from training.eqprop import ep_fields, nudges
from training.general import input_sources
from training.gradient import (
    Outputs,
    by_element,
    find_elements,
    find_outputs,
    gradients,
    grouped,
    source_gradients,
    trained_elements,
)
from training.phases import Phases, Sweeps, choose_phases
from training.recipe import SPELLINGS, Recipe

Floats = NDArray[np.float64]
Cost = Callable[[Floats], tuple[float, ArrayLike]]


@dataclass(frozen=True)
class CostGradient:
    """The result of `cost_gradient`.

    cost      C: the mean over the rows of the batch, V^2; or what a cost of your own returns
    outputs   (batch, k) V: what `.output` reads, voltages of nodes and differences of two
    values    of each `.train` element by name: conductances, S, of resistors and crossbars; V or A of sources. (n,), or
              (rows, columns) of crossbars and of arrays with two ranges
    gradient  dC/dtheta of each, shaped as its values; V^2/S, V^2/A, or V for voltage sources (for a cost of your own,
              its unit replaces V^2)
    inputs    dC/d(value) of the sources of each `.input` element, (batch, n), if requested. For targets C is a mean, so
              this is 1/batch of what a row alone would give
    """

    cost: float
    outputs: Floats
    values: dict[str, Floats]
    gradient: dict[str, Floats]
    inputs: dict[str, Floats]


def cost_gradient(
    circuit: Circuit | Problem,
    targets: ArrayLike | None = None,
    *,
    cost: Cost | None = None,
    algorithm: str = "implicit",
    variant: str = "centred",
    nudge: float | None = None,
    tol: float = 1e-9,
    inputs: bool = False,
) -> CostGradient:
    """The cost of the outputs at the equilibrium, C = mean over the batch of 1/2 sum_k (y_k - target_k)^2 or one of
    your own, and its gradient.

    circuit    a circuit with `.output` and `.train`; its sources may have a batch of values
    targets    (batch, k) V, or anything that broadcasts to it
    cost       instead of targets, with implicit only: a function of the outputs y, (batch, k) V, that returns C and
               dC/dy, (batch, k); C is used as it is, without a mean
    algorithm  implicit, or adjoint: the adjoint at the equilibrium, exact; ep: equilibrium propagation, two nudged
               equilibria
    variant    of ep: centred (or centered), positive, negative
    nudge      beta of ep, S: small compared with the conductance from an output to the known potentials, but large
               enough that its effect exceeds the errors that tol allows
    tol        largest relative KCL violation of all equilibria
    inputs     also give dC/d(value) of the `.input` sources, row by row, for a program that computes these values and
               learns; `.train` is then optional. Not available for voltage sources in circuits with controlled sources,
               nor for those on which a perfect diode hangs

    Raises SettingsError, also for ep where controlled sources leave no energy (amplifiers.py); LearningError where an
    equilibrium is not found, a nudged problem is not convex, or the linearised circuit has no solution. References are
    in eqprop.py and gradient.py.

    >>> import circuitsim as cs
    >>> divider = cs.parse("t\\nV1 a 0 4\\nR1 a y 1k\\nR2 y 0 1k\\n.output y\\n.train R1 R2")
    >>> found = cost_gradient(divider, [[1.0]])
    >>> found.cost, found.outputs
    (0.5, array([[2.]]))
    >>> found.gradient["R1"], cost_gradient(divider, [[1.0]], algorithm="ep", nudge=2e-6).gradient["R1"].round(2)
    (array([1000.]), array([1000.]))
    >>> cost_gradient(divider, cost=lambda y: (y.sum(), np.ones_like(y))).gradient["R1"]  # dy/dg
    array([1000.])
    """
    problem = circuit if isinstance(circuit, Problem) else compile_problem(circuit)
    algorithm, variant = (SPELLINGS.get(x, x) if isinstance(x, str) else x for x in (algorithm, variant))
    _check_cost(targets, cost, algorithm)
    recipe = _recipe(problem, algorithm, variant, nudge, tol)
    outputs = find_outputs(problem)
    trained = trained_elements(problem) if problem.circuit.netlist.trained or not inputs else []
    driven = find_elements(problem, [name for name, _ in input_sources(problem.circuit)], ".input") if inputs else []
    groups = grouped(trained)
    for group in groups:
        if not group.is_conductance and (varied := np.ptp(group.batch(problem.circuit), axis=0) > 0).any():
            name = group.name_of(int(varied.argmax()))
            raise SettingsError(f"{name} learns, and has a batch of values; give it one value for all rows")
    wanted = _targets(problem, outputs, targets if cost is None else 0.0)
    betas = nudges(variant, recipe.nudge)
    energy = find_energy(problem, outputs) if algorithm == "ep" else None
    if algorithm == "ep":
        if energy is None and not problem.circuit.reciprocal:
            raise SettingsError(
                "with these controlled sources there is no energy, and ep has no gradient; use implicit"
            )
        check_convex(problem, outputs, min(betas), energy)
    drive, found_free = problem.drive(slice(0, problem.batch)), None
    phases: Phases = choose_phases(problem, recipe, find_backend("cpu"))
    if isinstance(phases, Sweeps):
        phases, found_free = phases.or_newton(problem, drive)
    free = found_free or phases.free(problem, drive, np.zeros((problem.batch, problem.n_free)))
    y = outputs.voltages(problem, drive, free.x)
    value, pull = _mean_square(y, wanted) if cost is None else _own_cost(cost, y)
    if algorithm == "ep":
        fields, _ = ep_fields(problem, drive, free.x, outputs, wanted, betas, phases, energy)
    else:
        fields = replace(implicit_fields(problem, drive, free, outputs, pull), samples=1)  # C is a mean already
    found = by_element(groups, gradients(problem, groups, outputs, fields))
    values = by_element(groups, [group.values(problem.circuit) for group in groups])
    sources = grouped(driven)
    slopes = [slope / fields.samples for slope in source_gradients(problem, sources, outputs, fields)]
    by_input = {name: slope.reshape(problem.batch, -1) for name, slope in by_element(sources, slopes).items()}
    return CostGradient(value, y, values, found, by_input)


def _check_cost(targets: ArrayLike | None, cost: Cost | None, algorithm: str) -> None:
    """SettingsError unless there are either targets or a cost, and the algorithm can use them."""
    if callable(targets):
        raise SettingsError("a function goes to cost=, not to targets")
    if targets is None and cost is None:
        raise SettingsError("targets must be numbers (batch, outputs), or cost= a function of the outputs, found None")
    if cost is not None and not callable(cost):
        raise SettingsError(f"cost must be a function of the outputs, found {cost!r}")
    if cost is not None and (targets is not None or algorithm == "ep"):
        raise SettingsError(
            "a cost of your own replaces targets, and needs the algorithm implicit; ep nudges to targets"
        )


def _recipe(problem: Problem, algorithm: str, variant: str, nudge: float | None, tol: float) -> Recipe:
    """The recipe of the phases. SettingsError for settings that are impossible."""
    if algorithm not in ("implicit", "ep"):
        raise SettingsError(f"unknown algorithm '{algorithm}': choose implicit, ep")
    if algorithm == "ep" and nudge is None:
        raise SettingsError("ep needs a nudge, S, small beside the conductance that an output sees")
    for name, value in (("nudge", 1.0 if nudge is None else nudge), ("tol", tol)):
        if not isinstance(value, Real):
            raise SettingsError(f"{name} must be a number, found {value!r}")
    path = Path(problem.circuit.netlist.path)
    return Recipe(path, algorithm=algorithm, variant=variant, nudge=1.0 if nudge is None else float(nudge), tol=tol)


def _mean_square(y: Floats, wanted: Floats) -> tuple[float, Floats]:
    """C = mean over the rows of 1/2 |y - wanted|^2, and dC/dy."""
    missed = y - wanted
    return 0.5 * float((missed**2).sum(axis=1).mean()), missed / y.shape[0]


def _own_cost(cost: Cost, y: Floats) -> tuple[float, Floats]:
    """What the user's cost returns. SettingsError unless that is C and dC/dy."""
    given = cost(y.copy())
    try:
        value, slope = given
        if np.ma.is_masked(slope):
            raise TypeError("some slopes are masked")
        if np.asarray(slope).dtype.kind not in "fiubO":
            raise TypeError(f"found numbers of type {np.asarray(slope).dtype}")
        found, pull = float(value), np.asarray(slope, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SettingsError(f"a cost must return C, and dC/dy of shape {y.shape}: {error}") from error
    if pull.shape != y.shape:
        raise SettingsError(f"a cost must return C, and dC/dy of shape {y.shape}, found shape {pull.shape}")
    if not (np.isfinite(found) and np.isfinite(pull).all()):
        raise SettingsError("a cost must return finite numbers")
    return found, pull


def _targets(problem: Problem, outputs: Outputs, targets: ArrayLike | None) -> Floats:
    shape = (problem.batch, outputs.nodes.size)
    try:
        given = np.asarray(targets)
        wanted = np.broadcast_to(given.astype(np.float64), shape) if given.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        wanted = None
    if wanted is None or np.ma.is_masked(targets):
        found = shown(repr(targets))
        if isinstance(targets, np.ndarray) and targets.shape != shape:
            found = f"shape {targets.shape}"
        raise SettingsError(f"targets must be numbers of shape {shape} (batch, outputs), found {found}")
    if not np.isfinite(wanted).all():
        raise SettingsError("targets must be finite numbers")
    return wanted
