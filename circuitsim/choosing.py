"""The choice of method and backend for a problem, where the settings leave it open."""

from __future__ import annotations

from circuitsim.backends import gpu_mesh, gpu_newton
from circuitsim.backends.base import Backend, find_backend
from circuitsim.errors import BackendUnavailable, SettingsError
from circuitsim.linear import FEW_NODES, is_mesh
from circuitsim.linear.multigrid import Multigrid
from circuitsim.methods import bcd, tiles
from circuitsim.problem import Problem
from circuitsim.solution import Settings

# Rows above which bcd, which takes them at once, is tried on sparse networks of perfect diodes. Newton took 1 to 16
# times as long where the trial went well (random graphs and grids of 10 to 3,000 unknowns, 4 to 64 rows); where not
# (ladders, crossbars with wires, grids of few diodes), the trial takes as long as half a row. With other diodes, and in
# large meshes, bcd needs hundreds of sweeps.
_ROWS_ON_TRIAL = 3
# Unknowns from which it is tried on fewer rows too, where the graph is no mesh: eliminations fill in there. In random
# graphs of 500 to 10,000 unknowns newton took 2 to 13 times as long.
_NODES_ON_TRIAL = 500
# Rows above which newton takes dense layers with nonlinear elements that it solves at once (tiles.together): there bcd
# takes 0.9 to 7 times as long (3 laws, 8 to 40 unknowns in one or two layers, 4, 16, 64, 512 rows), for a row as long.
_FEW_ROWS = 3
# Ends of branches between unknowns, times rows, above which `auto` takes the GPU for bcd. For 4.2e9 (1,000 images
# through drn_3h) four cores took 2.95 s, an H200 0.15 s after 0.8 s to start; one core takes 1.4 s for 1e9.
GPU_WINS = 1_000_000_000
# Unknowns times rows above which `auto` takes the GPU for newton in circuits of which it solves many rows at once. One
# core takes 4 to 6 us for each of them; an H200 took 0.16 s for 484,000, after 0.8 s to start.
GPU_WINS_NEWTON = 150_000
# The same in large meshes. For 1,000,000 multigrid took 4.4 s, an H200 2.1 s after 0.8 s to start.
GPU_WINS_MESH = 500_000


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
        return "newton", "ideal diodes join nodes that can both move"
    if any(spec.inner for spec in t.dense):
        if settings.backend != "gpu" and bcd.is_in_vain(problem, settings.tolerance):
            return "newton", "dense layers joined by large conductances"
        if settings.backend != "gpu" and t.legs.a.size and problem.batch > _FEW_ROWS and tiles.together(problem):
            return "newton", "rows of a small circuit, solved at once"
        return "bcd", "dense layers"
    if problem.n_free and not t.legs.a.size and not t.couplings.indices.size:
        return "bcd", "no two unknowns are joined"
    if settings.backend == "gpu":
        refused = _no_newton_on_gpu(problem)
        return ("bcd", f"not newton on the gpu: {refused}") if refused else ("newton", "a sparse network")
    if is_on_trial(problem):
        what = "rows of a circuit" if problem.batch > _ROWS_ON_TRIAL else "a large graph"
        return "bcd", f"{what} of perfect diodes"
    return "newton", "a sparse network"


def is_on_trial(problem: Problem) -> bool:
    """Whether bcd, as a choice of `auto`, is to show by few sweeps of one row that it is faster than newton."""
    t = problem.topology
    sparse = not any(spec.inner for spec in t.dense)
    if not sparse or not t.legs.a.size or t.legs.n_junctions or t.links.size:
        return False
    if problem.batch > _ROWS_ON_TRIAL:
        return not _large_mesh(problem)
    return problem.n_free >= _NODES_ON_TRIAL and not is_mesh(problem.n_free, *t.edges)


def _large_mesh(problem: Problem) -> bool:
    """Whether the problem is a large mesh, judged without an elimination ordering, which takes long to find."""
    return problem.n_free > FEW_NODES and is_mesh(problem.n_free, *problem.topology.edges)


def choose_backend(problem: Problem, settings: Settings) -> Backend:
    """The backend that settings name; under `auto` a usable GPU if there is enough for it to do, otherwise the CPU."""
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
