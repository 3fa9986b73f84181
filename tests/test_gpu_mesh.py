"""Large meshes on the GPU: its conjugate gradients, and the Python around them, on stand-ins for a GPU."""

from __future__ import annotations

import numpy as np
import pytest
from devices import CompiledDevice, NumpyDevice
from helpers import assert_laws
from scipy import sparse

import circuitsim as cs
from circuitsim import choosing, gallery, linear
from circuitsim.backends import cuda, gpu_mesh
from circuitsim.backends.device import Device
from circuitsim.backends.gpu import GpuBackend
from circuitsim.backends.gpu_mesh import GpuMesh
from circuitsim.linear.gradients import REDUCTION
from circuitsim.linear.multigrid import Multigrid

NEWTON = cs.Settings(method="newton")
GRID = gallery.current_grid(11, 30)
DIODES = GRID.replace(".op", "\n".join(f"D{k} n{k}_{k} 0 d" for k in range(1, 10)) + "\n.model d D(is=1e-6)\n.op")
CONTROLLED = GRID.replace(".op", "G1 n1_1 0 n2_2 0 1m\n.op")


@pytest.fixture(autouse=True)
def small_meshes_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_MANY_NODES", 0)


def compiled_problem(deck: str) -> cs.Problem:
    return cs.compile_problem(cs.parse(deck))


def network(rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
    """A ring and as many chords again, conductances over two decades; a few nodes to ground."""
    i = np.r_[np.arange(n), rng.integers(0, n, n)]
    j = np.r_[(np.arange(n) + 1) % n, rng.integers(0, n, n)]
    keep = i != j
    to_ground = np.where(rng.random(n) < 0.1, 1.0, 0.0)
    to_ground[0] = 1.0
    return i[keep], j[keep], 10.0 ** rng.uniform(-1, 1, int(keep.sum())), to_ground


@pytest.mark.parametrize("n", [3, 300, 10_000])
def test_kernels_do_what_their_twins_do(compiled: CompiledDevice, n: int) -> None:
    rng = np.random.default_rng(n)
    matrix = sparse.csr_array(sparse.random_array((n, n), density=min(1.0, 5 / n), rng=rng))
    ptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    threads = 2 * gpu_mesh.AT_ONCE * gpu_mesh.SUMS
    p, x, r = (rng.normal(size=n) for _ in range(3))
    diag = rng.uniform(1, 2, n)
    found = []
    for device in (compiled, NumpyDevice()):
        p1, x1, r1, q = p.copy(), x.copy(), r.copy(), np.empty(n)
        parts, energy = np.empty(threads), np.empty(gpu_mesh.SUMS)
        before, after = np.empty(gpu_mesh.SUMS), np.arange(gpu_mesh.SUMS) / 1e3
        device.launch("cg_multiply", threads, n, threads, ptr, indices, matrix.data, p1, q, parts, after, before)
        device.launch("cg_sum", gpu_mesh.SUMS, threads, parts, energy)
        device.launch("cg_advance", threads, n, threads, diag, p1, q, before, energy, x1, r1, parts)
        device.launch("cg_sum", gpu_mesh.SUMS, threads, parts, after)
        device.launch("cg_turn", threads, n, threads, diag, r1, after, before, p1)
        found.append((q, energy, before, x1, r1, after, p1))
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("n", [3, 300, 1000])
def test_steps_solve_a_network(device: Device, n: int) -> None:
    """To the same residual as multigrid's; launched as recorded after the first steps; no current, no voltage."""
    rng = np.random.default_rng(n)
    i, j, g, to_ground = network(rng, n)
    mesh = GpuMesh(Multigrid(n, i, j), device)
    hierarchy = mesh.factor(g, to_ground)
    assert hierarchy.forest is None
    current = rng.normal(size=n)
    before = getattr(device, "recordings", 0)
    x = hierarchy._steps(current)
    residual = current - hierarchy.matrix @ x
    weight = 1.0 / hierarchy.matrix.diagonal()
    assert (weight * residual**2).sum() <= 1.1 * REDUCTION**2 * (weight * current**2).sum()
    np.testing.assert_array_equal(hierarchy._steps(current), x)
    assert not hierarchy._steps(np.zeros(n)).any()
    if isinstance(device, NumpyDevice):
        assert device.recordings == before + 3


@pytest.mark.parametrize("deck", [GRID, DIODES], ids=["linear", "diodes"])
def test_solutions_are_those_of_elimination(device: Device, deck: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = compiled_problem(deck)
    here = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    monkeypatch.setattr(linear, "_MANY_NODES", 10**6)
    there = cs.solve(compiled_problem(deck), cs.Settings(method="newton", backend="cpu"))
    assert (here.backend, here.method, here.why) == ("gpu", "newton", "asked for")
    np.testing.assert_allclose(here.voltages(), there.voltages(), rtol=0, atol=1e-8 * np.abs(there.voltages()).max())
    assert_laws(here, 1e-8)
    if isinstance(device, NumpyDevice):
        assert "cg_turn" in device.launched


@pytest.mark.parametrize("spoiled", ["too few steps", "no number"])
def test_where_steps_do_not_arrive_multigrid_goes_on(monkeypatch: pytest.MonkeyPatch, spoiled: str) -> None:
    pytest.importorskip("pyamg")
    problem, device = compiled_problem(GRID), NumpyDevice()
    if spoiled == "too few steps":
        monkeypatch.setattr(gpu_mesh, "_MOST_STEPS", gpu_mesh._TOGETHER)
        monkeypatch.setattr(gpu_mesh, "_TOGETHER", 1)
    else:
        run = device.run
        device.run = lambda kernel, threads, *a: run(kernel, threads, *a) or (kernel == "cg_sum" and a[-1].fill(np.nan))
    solution = cs.solve(problem, NEWTON, backend=GpuBackend(device))
    assert solution.solved and "cg_turn" in device.launched
    assert_laws(solution, 1e-8)


def test_what_is_solved_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    crossbar = compiled_problem(gallery.wired_crossbar(8))
    assert gpu_mesh.refusal(crossbar) == "its wires are best eliminated"
    assert gpu_mesh.refusal(compiled_problem(CONTROLLED)) == "the circuit has controlled sources"
    for problem in (crossbar, compiled_problem(CONTROLLED)):
        assert GpuBackend(NumpyDevice()).solver(problem) is None
        with pytest.raises(cs.SettingsError, match="method newton cannot run on the gpu here: "):
            choosing.choose_method(problem, cs.Settings(method="newton", backend="gpu"))
    assert cs.solve(crossbar, NEWTON, backend=GpuBackend(NumpyDevice())).backend == "cpu"
    monkeypatch.setattr(linear, "_MANY_NODES", 10**6)
    assert gpu_mesh.refusal(compiled_problem(GRID)) == "it is not a large mesh"


def test_auto_takes_the_gpu_for_large_meshes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyamg")
    problem = compiled_problem(GRID)
    monkeypatch.setattr(cuda, "CudaDevice", NumpyDevice)
    monkeypatch.setattr(choosing, "GPU_WINS_NEWTON", 1)  # is of other circuits
    monkeypatch.setattr(choosing, "GPU_WINS_MESH", problem.n_free + 1)
    assert cs.solve(problem).backend == "cpu"
    monkeypatch.setattr(choosing, "GPU_WINS_MESH", problem.n_free)
    assert (cs.solve(problem).backend, cs.solve(problem, cs.Settings(backend="gpu")).method) == ("gpu", "newton")
    assert cs.solve(compiled_problem(gallery.wired_crossbar(8))).backend == "cpu"
