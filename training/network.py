"""From a netlist with `.input`, `.output` and `.train` to the learner that trains it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from circuitsim import BackendUnavailable, Circuit, Problem, SettingsError, compile_problem
from circuitsim.backends.base import Backend, find_backend
from circuitsim.backends.gpu import GpuBackend
from circuitsim.methods import bcd
from training import gradient
from training.amplifiers import find_energy
from training.general import GeneralLearner
from training.gpu_steps import Refused, plan_of, task_of
from training.layered import LayeredLearner
from training.layers import Layers, find_layers
from training.learner import Learner, Samples
from training.recipe import Recipe

# Conductances of a layered netlist from which `auto` trains it on a GPU. A step of 160,000 (drn-xs) takes two cores
# 0.07 to 0.12 ms, an H200 0.025 ms.
GPU_WINS = 100_000


def make_learner(circuit: Circuit, recipe: Recipe, backend: str = "auto", threads: int = 1) -> Learner:
    """A layered netlist with a number of sweeps takes the fast path, any other the general one.

    Trained conductances start within the recipe's bounds (within_window).
    With a tolerance the general path solves every phase, by newton where sweeps may stop at a wrong point, or are slow.
    Backend `reference` is the plain form of either path. Raises SettingsError for circuits in which this algorithm has
    no gradient, or sweeps may stop at a wrong point, and for elements that cannot learn; BackendUnavailable.
    """
    problem = compile_problem(within_window(circuit, recipe)[0])
    _check_fits(problem, recipe)
    structure = find_layers(problem) if recipe.tol is None else None
    place = _gpu_for(structure, recipe) if backend == "auto" and structure else None
    place = place or find_backend(backend)
    if structure is None:
        if recipe.form == "plain" and recipe.algorithm == "ep":
            raise SettingsError(
                f"{circuit.netlist.path} cannot learn in the plain form here: only layers have one, with a number of "
                "sweeps; leave form out"
            )
        return GeneralLearner(problem, recipe, place)
    device = place.device if isinstance(place, GpuBackend) else None
    return LayeredLearner(problem, structure, recipe, kernel=place.name != "reference", threads=threads, device=device)


def within_window(circuit: Circuit, recipe: Recipe) -> tuple[Circuit, int]:
    """The circuit with every trained conductance clipped to the recipe's window, and how many lay outside.

    >>> import circuitsim as cs
    >>> from pathlib import Path
    >>> divider = cs.parse("t\\nV1 a 0 1\\nR1 a y g=5\\nR2 y 0 g=5\\n.input V1\\n.output y\\n.train R1")
    >>> found, count = within_window(divider, Recipe(Path("x.cir"), g_max=2.0))
    >>> found.conductors.g, count
    (array([2., 5.]), 1)
    """
    low, high = recipe.window
    if (low, high) == (0.0, np.inf):
        return circuit, 0
    groups = gradient.grouped([x for x in gradient.trained_elements(compile_problem(circuit)) if x.is_conductance])
    values = [group.values(circuit) for group in groups]
    clipped = [np.clip(g, low, high) for g in values]
    count = sum(int((new != g).sum()) for new, g in zip(clipped, values, strict=True))
    return gradient.with_group_values(circuit, groups, clipped) if count else circuit, count


def _check_fits(problem: Problem, recipe: Recipe) -> None:
    """SettingsError for circuits that this algorithm, or sweeps, cannot learn with."""
    by_energy = recipe.algorithm == "ep" and find_energy(problem, gradient.find_outputs(problem)) is not None
    if not (problem.circuit.reciprocal or by_energy or recipe.algorithm == "implicit"):
        cure = "use algorithm implicit, and a tol, say 1e-9"
    elif recipe.algorithm == "bp":
        cure = "use algorithm ep or implicit" + ", and a tol, say 1e-9" * (recipe.tol is None)
    elif recipe.tol is None:
        cure = "give a tol, say 1e-9, instead of sweeps"
    else:
        return
    if reason := bcd.unfit(problem):
        raise SettingsError(f"{problem.circuit.netlist.path} cannot learn by {recipe.algorithm} here: {reason}; {cure}")


def ready_learner(circuit: Circuit, recipe: Recipe, backend: str, threads: int, data: Sequence[Samples]) -> Learner:
    """A learner prepared for such samples; under `auto` on the CPU if a GPU turns out not to work.

    This is tested by a step, which is then undone.
    """

    def ready(where: str) -> Learner:
        learner = make_learner(circuit, recipe, where, threads)
        for samples in data:
            learner.prepare(samples)
        if where == "auto" and isinstance(learner, LayeredLearner) and learner.device:
            before = learner.arrays()
            still = dict.fromkeys(circuit.netlist.trained, 0.0)
            learner.train(data[-1], np.arange(recipe.batch_size) % len(data[-1]), still)
            learner.restore(before)
        return learner

    try:
        return ready(backend)
    except BackendUnavailable:
        if backend != "auto":
            raise
        return ready("cpu")


def _gpu_for(structure: Layers, recipe: Recipe) -> Backend | None:
    """A GPU, where there is one and it is the faster place for this netlist's steps."""
    sizes = structure.sizes
    if sum(n * m for n, m in pairwise(sizes)) < GPU_WINS:
        return None
    try:
        backend = find_backend("gpu")
        if isinstance(backend, GpuBackend):
            plan_of(task_of(sizes, sizes[0], recipe), backend.device)
    except (BackendUnavailable, Refused):
        return None
    return backend


def trained_kinds(circuit: Circuit) -> list[tuple[str, bool]]:
    """The `.train` elements in order: name, and whether it is a conductance (else a source)."""
    return [(e.name, e.is_conductance) for e in gradient.trained_elements(compile_problem(circuit))]
