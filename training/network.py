"""From a netlist with roles to what trains it."""

from __future__ import annotations

from circuitsim import Circuit, compile_problem
from circuitsim.backends.base import find_backend
from circuitsim.backends.gpu import GpuBackend
from training import gradient
from training.general import GeneralLearner
from training.layered import LayeredLearner
from training.layers import find_layers
from training.learner import Learner
from training.recipe import Recipe


def make_learner(circuit: Circuit, recipe: Recipe, backend: str = "auto", threads: int = 1) -> Learner:
    """A layered netlist takes the fast path, any other the general one.

    Backend `reference` is the plain form of either. Raises SettingsError for roles that cannot learn,
    BackendUnavailable.
    """
    problem = compile_problem(circuit)
    engine = find_backend(backend)
    structure = find_layers(problem)
    if structure is None:
        return GeneralLearner(problem, recipe, engine)
    device = engine.device if isinstance(engine, GpuBackend) else None
    return LayeredLearner(problem, structure, recipe, kernel=engine.name != "reference", threads=threads, device=device)


def trained_elements(circuit: Circuit) -> list[tuple[str, bool]]:
    """The `.train` elements in order: name, and whether it is a conductance (else a source)."""
    return [(e.name, e.is_conductance) for e in gradient.trained_elements(compile_problem(circuit))]
