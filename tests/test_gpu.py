"""The GPU backend: its kernels compile, and do what their twins do; its Python side is right on stand-ins for a GPU.

Where there is a GPU the same tests run on it too: `make gpu-test`, which fails without one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from devices import ARCHITECTURES, BY_CUPY, DEVICES, NEEDS_GPU, TWINS, CompiledDevice, NumpyDevice, missing, nvrtc_cubin
from helpers import assert_laws
from test_backends import DECKS, LAWS, WIDE, batched

import circuitsim as cs
from circuitsim import choosing, kcl, law_kernels, residual, solving
from circuitsim.backends import cuda, gpu, gpu_check, gpu_mesh
from circuitsim.backends.base import Engine, find_backend
from circuitsim.backends.cuda import OPTIONS, SOURCE, CudaDevice
from circuitsim.backends.device import Device, Program
from circuitsim.backends.gpu import GpuBackend
from circuitsim.backends.gpu_check import GpuCheck
from circuitsim.gallery import Recipe, current_grid, drn, random_circuit
from circuitsim.law_kernels import Law
from circuitsim.laws import plain_current
from circuitsim.methods import limiting
from circuitsim.residual import FIGURES, Check
from validation import gpu as bench
from validation.measure import timed

# -- the source compiles for GPUs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_every_kernel(architecture: str) -> None:
    """As CuPy does at run time; the machine code has every kernel that is launched."""
    code = nvrtc_cubin(SOURCE.read_text(), [*OPTIONS, *BY_CUPY, f"--gpu-architecture={architecture}"])
    for name in TWINS:
        assert f".text.{name}".encode() in code


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvcc_compiles_every_kernel(architecture: str, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    out = tmp_path / "kernels.cubin"
    command = ["nvcc", "-std=c++17", f"-arch={architecture}", "-cubin", "-Werror", "all-warnings", "-o", str(out)]
    done = subprocess.run([*command, str(SOURCE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f".text.{name}".encode() in out.read_bytes() for name in TWINS)


def test_every_kernel_has_its_twin() -> None:
    named = re.findall(r"^RELAX\((\w+), \w+\)|^extern \"C\" __global__ void (\w+)\(", SOURCE.read_text(), re.M)
    assert {a or b for a, b in named} == TWINS.keys()
    assert len(re.findall(r"__global__", SOURCE.read_text())) == len(TWINS) - 1  # two of them are the macro RELAX


EVERY_LAW = """every law, and a node that only diodes hold
V1 in 0 3
R1 in a 1k
D1 a 0 plain
R2 a b 2k
D2 b 0 real
N1 b c sat
R3 c 0 5k
N2 c e mem
R4 e 0 1k
N3 e f dead
R5 f 0 3k
D3 f g lines
R6 g 0 1k
D4 in h plain
D5 h 0 real
D6 c 0 library
.model plain D(is=1e-14)
.model real D(is=1e-9 n=2 rs=10 bv=6)
.model library D(is=2.7n n=1.84 rs=0.57 ikf=44m isr=1.6n nr=2 vj=0.5 m=0.33)
.model lines D(ron=1 roff=1e9 vfwd=0.7 vrev=5 rrev=2)
.model sat tanh(imax=1m v0=0.5)
.model mem sinh(i0=1u v0=0.2)
.model dead pwl(-2 -1m -1 0 1 0 2 1m)
.options gmin=1e-12
"""


def has_dense_layers(deck: str) -> bool:
    return cs.compile_problem(cs.parse(deck)).inner_dense > 0


CIRCUITS = {**DECKS, "every law": EVERY_LAW}
WITH_BOUNDS = {**DECKS, "every law": EVERY_LAW.replace("D5 h 0 real", "D5 h 0 real\nR7 h 0 1meg")}  # no islands


# -- devices -----------------------------------------------------------------------------------------------------------


def test_with_a_gpu_all_of_this_runs_on_it_too() -> None:
    try:
        CudaDevice()
    except cs.BackendUnavailable as error:
        missing(str(error), NEEDS_GPU)
    assert "cuda" in DEVICES


# -- sweeps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("deck", CIRCUITS.values(), ids=CIRCUITS.keys())
def test_gpu_takes_the_steps_of_the_cpu(device: Device, deck: str, batch: int, dtype: str, tol: float) -> None:
    problem = batched(deck, batch)
    drive = problem.drive(slice(0, problem.batch))
    x = np.random.default_rng(0).normal(0, 2, (problem.batch, problem.n_free))
    kept = x.copy()
    here, there = (b.engine(problem, dtype) for b in (GpuBackend(device), find_backend("cpu")))
    here.start(drive, x)
    there.start(drive, x)
    for _ in range(4):
        sweep_alike(here, there, 1, tol)
    assert np.array_equal(x, kept)


def sweep_alike(here: Engine, there: Engine, count: int, tol: float) -> None:
    """Take sweeps with both; they move the same. In the last digit one may still move where the other rests."""
    for engine in (here, there):
        engine.sweep(count - 1)
    before = here.voltages()
    moved = here.sweep(1), there.sweep(1)
    scale = np.abs(there.voltages()).max(initial=0.0)
    np.testing.assert_allclose(here.voltages(), there.voltages(), rtol=0, atol=tol * scale)
    if moved[0] != moved[1]:
        np.testing.assert_allclose(here.voltages(), before, rtol=0, atol=tol * scale)


@pytest.mark.parametrize(("kind", "p"), LAWS)
def test_laws_are_those_of_the_cpu(compiled: CompiledDevice, kind: Law, p: list[float]) -> None:
    """From -1 MV to 1 MV, by the source compiled for the host."""
    params = np.array(p)
    current, slope = compiled.branches(int(kind), params, WIDE)
    wanted = np.array([law_kernels.branch(int(kind), params, v) for v in WIDE])
    np.testing.assert_allclose(current, wanted[:, 0], rtol=1e-13, atol=1e-320)
    least = 8 * (p[0] / p[1]) * 5e-324 if kind == Law.TANH else 0.0  # an exponential below 1e-308 has few digits
    np.testing.assert_allclose(slope, wanted[:, 1], rtol=1e-12, atol=1e-320 + least)
    none = np.array([np.nan])
    at_none = plain_current(np.array([kind], np.int8), params[None], none)
    np.testing.assert_array_equal(compiled.branches(int(kind), params, none), at_none)


def test_the_circuits_have_every_law() -> None:
    j = cs.parse(EVERY_LAW).junctions
    assert set(j.law.tolist()) == set(Law)
    assert {"rs": j.params[:, 2][j.law == Law.SHOCKLEY].max(), "gmin": j.params[0, 5]} == {"rs": 10.0, "gmin": 1e-12}
    assert (cs.compile_problem(cs.parse(EVERY_LAW)).values.diag == 0).any()


@pytest.mark.parametrize("shape", [(3, 4), (2501, 1003)])
def test_arrays_cross_to_the_device_and_back(device: Device, shape: tuple[int, int]) -> None:
    """10 and 20 MB go in pieces; a second time by the same buffers, into memory that was used before."""
    for dtype in ("float64", "float32"):
        given = np.random.default_rng(3).normal(size=shape).astype(dtype)
        for sent in (given, given.T):
            there = 2 * device.to_device(sent)
            np.testing.assert_array_equal(device.to_host(there), 2 * sent)
            np.testing.assert_array_equal(device.to_host(there.T, "float64"), 2.0 * sent.T.astype("float64"))


def test_sweeps_in_one_go_are_single_sweeps(device: Device) -> None:
    problem = batched(DECKS["random nonlinear"], 3)
    engines = [GpuBackend(device).engine(problem, "float64") for _ in range(2)]
    for engine in engines:
        engine.start(problem.drive(slice(0, 3)), np.ones((3, problem.n_free)))
    engines[0].sweep(3)
    for _ in range(3):
        engines[1].sweep(1)
    np.testing.assert_array_equal(engines[0].voltages(), engines[1].voltages())


@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("few", [0, 10**9])
@pytest.mark.parametrize("deck", [deck for deck in DECKS.values() if has_dense_layers(deck)])
def test_products_and_fused_sweeps_are_the_same_steps(
    device: Device, deck: str, few: int, dtype: str, tol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense couplings by matrix products, or among the sparse ones; only the latter are recorded, once a start."""
    monkeypatch.setattr(gpu, "_FEW_PRODUCTS", few)
    problem, rng = batched(deck, 3), np.random.default_rng(0)
    drive = problem.drive(slice(0, 3))
    here, there = (b.engine(problem, dtype) for b in (GpuBackend(device), find_backend("cpu")))
    before = getattr(device, "recordings", 0)
    for x in (rng.normal(0, 2, (3, problem.n_free)), None, rng.normal(0, 2, (3, problem.n_free))):
        here.start(drive, x)
        there.start(drive, x)
        for count in (1, 1, 2, 3):
            sweep_alike(here, there, count, tol)
    assert bool(any(here.products)) is (few == 0)
    if isinstance(device, NumpyDevice):
        assert device.recordings - before == (0 if few == 0 else 3)


def test_long_rows_are_products_however_few_there_are() -> None:
    """One thread would sum all conductances of an output in turn; and many are not worth arranging for the kernels."""
    short, long, many, sparse = (
        cs.compile_problem(cs.parse(text))
        for text in (drn((8, 2000, 10)), drn((8, 4100, 5)), drn((8, 300, 200, 3)), current_grid(5, 3))
    )
    assert gpu.few_products(short, 1) and gpu.few_products(short, 1000) and not gpu.few_products(short, 1001)
    assert not gpu.few_products(long, 1) and not gpu.few_products(many, 1) and gpu.few_products(sparse, 10**6)


def test_sweep_says_when_nothing_moves(device: Device) -> None:
    problem = batched(DECKS["diode_or"], 1)
    engine = GpuBackend(device).engine(problem, "float64")
    engine.start(problem.drive(slice(0, 1)), np.zeros((1, problem.n_free)))
    assert engine.sweep(1)
    assert not engine.sweep(1)


# -- the certificate ---------------------------------------------------------------------------------------------------


def looks(device: Device, problem: cs.Problem, x: np.ndarray, dtype: str = "float64") -> tuple[GpuCheck, Check]:
    """Both checks where an engine starts."""
    drive = problem.drive(slice(0, problem.batch))
    engine = GpuBackend(device).engine(problem, dtype)
    engine.start(drive, x)
    look = engine.check()
    assert isinstance(look, GpuCheck)
    return look, Check(problem, drive, x)


def test_dense_currents_bound_as_on_the_host(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (residual, gpu_check):
        monkeypatch.setattr(module, "FULL_WORK", 0)
    problem = batched(DECKS["drn"], 3)
    x = cs.solve(problem).x + 1e-3
    look, check = looks(device, problem, x)
    limit = float(np.median(check.upper))
    before = np.where(check.upper <= limit, check.upper, 0.0)
    assert not look.meets(limit) and look.on_host is None  # some violation is certain
    look._bound_by_dense(limit)
    check._bound_by_dense(limit, np.arange(3))
    upper = device.to_host(look.upper).T
    known = (check.upper < 1.0) & (before == 0.0)  # more is rounding alone over rounding alone
    np.testing.assert_allclose(upper[known], check.upper[known], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(upper[before > 0.0], before[before > 0.0], rtol=1e-6, atol=1e-12)  # left as they were
    look._bound_by_dense(1)  # a number as any other


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-3, 3.0])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("deck", WITH_BOUNDS.values(), ids=WITH_BOUNDS.keys())
def test_bounds_are_those_of_the_certificate(
    device: Device, deck: str, batch: int, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (residual, gpu_check):
        monkeypatch.setattr(module, "FULL_WORK", 0)  # bounds, not exact sums
    problem = batched(deck, batch)
    solution = cs.solve(problem)
    drive = problem.drive(slice(0, problem.batch))
    rng = np.random.default_rng(3)
    x = np.clip(solution.x + noise * rng.normal(size=solution.x.shape), drive.lo, drive.hi)
    look, check = looks(device, problem, x)
    *_, curved = kcl.junction_sums(problem, drive.junction_offset, x)
    # Of what rounds differently. The voltage behind an RS does by some 1e-16 of itself, which moves the current of its
    # diode by that times the exponent, 19 here, of itself.
    size = np.abs(check.flow).max() + (problem.values.diag * np.abs(x) + curved).max()
    slope = np.broadcast_to(check.slope, x.shape)
    for mine, theirs, scale in (
        (look.flow, check.flow, size), (look.rho, check.rho, size), (look.slope, slope, slope.max()),
    ):  # fmt: skip
        np.testing.assert_allclose(device.to_host(mine).T, theirs, rtol=1e-9, atol=1e-13 * scale)
    upper = device.to_host(look.upper).T
    if noise >= 1e-3:  # else it is rounding that both bound
        np.testing.assert_allclose(upper, check.upper, rtol=1e-6, atol=1e-12)
        assert look.certain == pytest.approx(check.certain, rel=1e-9)
        assert look.worst == pytest.approx(check.worst, rel=1e-6)
    assert look.finite() and check.finite()
    for eps in (1e-16, 1e-7):
        assert look.at_rounding(1e-9, eps) == check.at_rounding(1e-9, eps)
    paths = rng.uniform(1.0, 2.0, problem.n_free)
    for mine, theirs in zip(look.reach(paths), check.reach(paths), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-13 * np.abs(theirs).max() + size * 1e-10)
    if batch == 3:  # of a single row the host's certificate is exact, not a bound
        mine, theirs = look.certificate(), check.certificate()
        assert look.on_host is None
        for name in FIGURES:
            if name == "kcl_relative" and noise < 1e-3:
                continue  # as above
            scale = {"kcl_amps": size, "kcl_relative": 1e-3}.get(name, size * np.abs(x).max())
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-6, abs=1e-9 * scale)
        if noise >= 1e-3:  # where several units are as bad, any of them
            assert check.upper[mine.worst_row, mine.worst_unit] >= theirs.kcl_relative * (1 - 1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_bounds_hold_what_branches_say(device: Device, seed: int) -> None:
    """`upper` is never below the exact relative violation, `certain` never above; `meets` is right on both sides."""
    rng = np.random.default_rng(seed)
    problem = cs.compile_problem(cs.parse(random_circuit(rng)))
    drive = problem.drive(slice(0, 1))
    for noise in (1e-9, 1e-3, 1.0):
        x = np.clip(rng.normal(0.0, noise, (1, problem.n_free)) + rng.normal(), drive.lo, drive.hi)
        look, _ = looks(device, problem, x)
        exact = Check(problem, drive, x, exact=True)
        assert (exact.upper * (1 - 1e-12) <= device.to_host(look.upper).T).all()
        assert look.certain <= exact.worst * (1 + 1e-12)
        assert look.meets(exact.worst * 1.001) and not look.meets(exact.worst * 0.999)


@pytest.mark.parametrize("model", ["is=1e-14", "ron=1m roff=1e12 vfwd=0.7"])
def test_bounds_hold_at_a_high_common_voltage(device: Device, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source in series with a diode at 1 kV: its digits must not go in a difference with the kilovolts."""
    for module in (residual, gpu_check):
        monkeypatch.setattr(module, "FULL_WORK", 0)
    i = np.linspace(0.9e-3, 1.1e-3, 500)
    deck = f"t\nI1 0 a 1m\nR2 b 0 1meg\nD1 a m d\nV2 m b 0.613\nR3 a 0 1e19\n.model d D({model})\n"
    problem = cs.compile_problem(cs.parse(deck)).with_values({"I1": i})
    unit = problem.topology.index_of_node[[problem.circuit.nodes.index(name) for name in "ab"]]
    x = np.zeros((i.size, 2))
    x[:, unit[1]] = 1e6 * i
    forward = 0.025864786 * np.log1p(i / 1e-14) if "is" in model else 0.7 + 1e-3 * i
    for ulps in range(-2, 3):
        x[:, unit[0]] = 1e6 * i + 0.613 + forward
        x[:, unit[0]] += ulps * np.spacing(x[:, unit[0]])
        look, _ = looks(device, problem, x)
        exact = Check(problem, problem.drive(slice(0, i.size)), x, exact=True).upper
        assert (0.999 * exact <= device.to_host(look.upper).T).all()


def test_what_is_not_finite_shows(device: Device) -> None:
    problem = batched(DECKS["drn"], 3)
    x = np.zeros((3, problem.n_free))
    for bad in (np.nan, np.inf):
        x[1, 2] = bad
        with np.errstate(invalid="ignore"):
            look, _ = looks(device, problem, x)
        assert not look.finite()


def test_shifted_drives_are_checked_on_the_host(device: Device) -> None:
    problem = batched(DECKS["ladder"], 1)
    drive = kcl.shift(problem, problem.drive(slice(0, 1)), np.ones((1, problem.n_free)))
    engine = GpuBackend(device).engine(problem, "float64")
    engine.start(drive, np.zeros((1, problem.n_free)))
    assert isinstance(engine.check(), Check)


# -- solving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-8), ("float32", 1e-3)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", [name for name in CIRCUITS if name != "dense flat block"])
def test_solutions_are_those_of_the_cpu(device: Device, name: str, batch: int, dtype: str, tol: float) -> None:
    problem = batched(CIRCUITS[name], batch)
    settings = cs.Settings(method="bcd", dtype=dtype)
    here, there = cs.solve(problem, settings, backend=GpuBackend(device)), cs.solve(problem)
    assert (here.backend, here.method, here.dtype) == ("gpu", "bcd", dtype)
    scale = np.abs(there.voltages()).max()
    np.testing.assert_allclose(here.voltages(), there.voltages(), rtol=0, atol=tol * scale)
    if dtype == "float64":
        assert_laws(here, 1e-8)


@pytest.mark.parametrize("seed", range(8))
def test_laws_of_nature_hold_on_random_circuits(device: Device, seed: int) -> None:
    circuit = cs.parse(random_circuit(np.random.default_rng(seed), Recipe(nodes=8, shockley=3, pwl=2)))
    settings = cs.Settings(method="bcd", tol=1e-10)
    assert_laws(cs.solve(circuit, settings, backend=GpuBackend(device)), 1e-9)


def test_a_batch_too_large_for_the_device_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = batched(DECKS["drn"], 11)
    whole, small = GpuBackend(NumpyDevice()), GpuBackend(NumpyDevice(free=20_000))
    assert whole.tile(problem, "float64") >= 11 > small.tile(problem, "float64") > 1
    settings, seen = cs.Settings(method="bcd"), []
    one = cs.solve(problem, settings, backend=whole)
    many = cs.solve(problem, settings, backend=small, progress=lambda done, _: seen.append(done))
    assert seen == [*range(small.tile(problem, "float64"), 11, small.tile(problem, "float64")), 11]
    np.testing.assert_allclose(many.voltages(), one.voltages(), rtol=0, atol=1e-8 * np.abs(one.voltages()).max())


def test_not_even_one_row_fits() -> None:
    backend = GpuBackend(NumpyDevice(free=1000))
    wanted = r"a stand-in has 800 B free, this circuit needs [\d.]+ kB for one row of the batch; use --backend cpu"
    with pytest.raises(cs.BackendUnavailable, match=wanted):
        cs.solve(batched(DECKS["drn"], 2), cs.Settings(method="bcd"), backend=backend)


@pytest.mark.parametrize("more", ["", "Vo h1[2] h1[4] 2\n"])
def test_the_drive_of_many_rows_is_made_on_the_device(device: Device, more: str) -> None:
    """The same but for rounding; and completed on the host, to the bit, when the host wants it."""
    circuit = cs.parse(drn([4, 6, 5, 3], gain=40.0).replace(".op\n", more + ".op\n"))
    rng = np.random.default_rng(1)
    values = {"Vx": rng.uniform(-1, 1, (70, 4)), "Ib1": rng.uniform(-1, 1, (70, 6))}
    problem, rows = cs.compile_problem(circuit.with_values(values)), slice(0, 70)
    wanted, backend = problem.drive(rows), GpuBackend(device)
    drive = backend.drive(problem, rows)
    assert drive.partial and not backend.drive(problem, slice(0, 3)).partial
    for _ in range(2):  # nothing was added to the drive itself
        for field in fields(wanted):
            np.testing.assert_array_equal(getattr(problem.completed(drive), field.name), getattr(wanted, field.name))
    engine = backend.engine(problem, "float64")
    engine.start(drive, None)
    here = engine.of_drive
    size = problem.drive(rows).fixed_abs if problem.untied else np.abs(wanted.injection).max() * 10
    rounding = 2 * problem.most_terms * np.finfo(float).eps * (size + np.abs(wanted.source_flow))
    assert (np.abs(device.to_host(here.injection).T - wanted.injection) <= rounding).all()
    if problem.untied:
        assert (np.abs(device.to_host(here.fixed_abs).T - wanted.fixed_abs) <= rounding).all()
    assert here.fixed_range == pytest.approx((min(wanted.fixed.min(), 0), max(wanted.fixed.max(), 0)))
    assert problem.untied == (not more)
    settings = cs.Settings(method="bcd")
    one, other = cs.solve(problem, settings, backend=backend), cs.solve(problem, settings)
    np.testing.assert_allclose(one.x, other.x, rtol=0, atol=1e-8 * np.abs(other.x).max())


# -- auto --------------------------------------------------------------------------------------------------------------


def no_device() -> None:
    raise cs.BackendUnavailable("no GPU today")


def test_auto_takes_the_gpu_where_it_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, ladder = batched(DECKS["drn"], 3), batched(DECKS["ladder"], 1)
    work = problem.batch * problem.inner_ends
    monkeypatch.setattr(cuda, "CudaDevice", NumpyDevice)
    monkeypatch.setattr(choosing, "GPU_WINS", work + 1)
    assert cs.solve(problem).backend == "cpu"
    monkeypatch.setattr(choosing, "GPU_WINS", work)
    assert cs.solve(problem).backend == "gpu"
    assert cs.solve(problem, cs.Settings(backend="cpu")).backend == "cpu"
    monkeypatch.setattr(choosing, "GPU_WINS", 0)
    assert cs.solve(ladder).backend == "cpu"  # newton


@pytest.mark.parametrize("device_class", [no_device, lambda: NumpyDevice(free=0)])
def test_auto_goes_on_with_the_cpu(monkeypatch: pytest.MonkeyPatch, device_class: Any) -> None:
    monkeypatch.setattr(cuda, "CudaDevice", device_class)
    monkeypatch.setattr(choosing, "GPU_WINS", 0)
    problem = batched(DECKS["drn"], 3)
    assert cs.solve(problem).backend == "cpu"
    with pytest.raises(cs.BackendUnavailable):
        cs.solve(problem, cs.Settings(backend="gpu"))


class FailingDevice(NumpyDevice):
    """Its memory goes while it works."""

    def launch(self, kernel: str, threads: int, *arguments: Any) -> None:
        raise cs.BackendUnavailable("no memory left")


def test_auto_goes_on_with_the_cpu_when_memory_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CudaDevice", FailingDevice)
    monkeypatch.setattr(choosing, "GPU_WINS", 0)
    problem = batched(DECKS["drn"], 3)
    assert cs.solve(problem).backend == "cpu"
    for settings, backend in ((cs.Settings(backend="gpu"), None), (cs.Settings(), GpuBackend(FailingDevice()))):
        with pytest.raises(cs.BackendUnavailable, match="no memory left"):
            cs.solve(problem, settings, backend=backend)


def test_small_work_never_looks_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CudaDevice", lambda: pytest.fail("looked for"))
    monkeypatch.setattr(choosing, "GPU_WINS", 5_000_000_000)
    assert cs.solve(batched(DECKS["drn"], 3)).backend == "cpu"


def test_auto_leaves_the_gpu_where_sweeps_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton, which then takes over, runs on the CPU; the solution says both."""
    stiff = "\n".join(["chain", "V1 p0 0 1", *(f"R{k} p{k} p{k + 1} 1" for k in range(300)), "R300 p300 0 1k"])
    problem = cs.compile_problem(cs.parse(stiff))
    monkeypatch.setattr(cuda, "CudaDevice", NumpyDevice)
    monkeypatch.setattr(choosing, "GPU_WINS", 0)
    for module in (choosing, solving):
        monkeypatch.setattr(module, "choose_method", lambda *_: ("bcd", "for this test"))
    solution = cs.solve(problem)
    assert (solution.method, solution.backend) == ("newton", "cpu")
    assert "block coordinate descent was slow" in solution.why
    assert_laws(solution, 1e-8)


def test_sweeps_say_which_backend_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CudaDevice", NumpyDevice)
    monkeypatch.setattr(choosing, "GPU_WINS", 5_000_000_000)
    circuit = cs.parse(DECKS["divider"])
    result = cs.sweep(circuit, "V1 0 5 0.5", cs.Settings(backend="gpu"))
    assert (result.backend, result.method) == ("gpu", "bcd")
    np.testing.assert_allclose(result.voltages, cs.sweep(circuit, "V1 0 5 0.5").voltages, atol=1e-8)
    assert cs.sweep(circuit, "V1 0 5 0.5").backend == "cpu"


# -- no GPU, and why ---------------------------------------------------------------------------------------------------


class CudaError(RuntimeError):
    """As CuPy's."""


def raising(error: Exception) -> Any:
    def fail(*_: Any) -> None:
        raise error

    return fail


class CompileException(Exception):
    """CuPy's, for what the compiler refuses; no RuntimeError."""


def cupy_with(
    driver: Any = lambda: 13010,
    count: Any = lambda: 1,
    handle: Any = lambda: 1,
    compile: Any = None,
    cublas: bool = True,
) -> Any:
    """What CudaDevice asks of CuPy; without `cublas` the module of that name cannot be imported."""
    runtime = SimpleNamespace(
        driverGetVersion=driver, runtimeGetVersion=lambda: 13000, getDeviceCount=count,
        getDeviceProperties=lambda _: {"name": b"NVIDIA H200"},
    )  # fmt: skip
    device = SimpleNamespace(id=0, attributes={"MultiProcessorCount": 132, "MaxSharedMemoryPerBlockOptin": 232448})
    module = ModuleType("cupy")
    module.__path__ = []
    module.cuda = SimpleNamespace(
        runtime=runtime, Device=lambda: device, device=SimpleNamespace(get_cublas_handle=handle),
        memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        compiler=SimpleNamespace(CompileException=CompileException),
    )  # fmt: skip
    module.RawModule = lambda **_: SimpleNamespace(compile=compile or (lambda: None))
    if cublas:
        module.cublas = ModuleType("cupy.cublas")
    return module


DEFINED = re.compile(r"^#define (\w+) (\(?[\d.e+ -]+\)?)", re.MULTILINE)
COLUMNS = re.compile(r"^enum { (.*) };$", re.MULTILINE)
PIP = re.escape("pip install 'cupy-cuda13x[ctk]' for a CUDA 13 driver, 'cupy-cuda12x[ctk]' for a CUDA 12 one")
CPU = "; or use --backend cpu$"


@pytest.mark.parametrize(
    ("module", "wanted"),
    [
        (None, f"^backend gpu: CuPy is not installed: {PIP}{CPU}"),
        (cupy_with(driver=lambda: 0), f"there is no NVIDIA driver on this machine{CPU}"),
        (cupy_with(driver=lambda: 12080), f"driver is for CUDA 12, CuPy for CUDA 13; .*: {PIP}{CPU}"),
        (cupy_with(count=lambda: 0), f"there is no GPU on this machine{CPU}"),
        (cupy_with(count=raising(CudaError("cudaErrorNoDevice: no\nmore"))), rf"\(cudaErrorNoDevice: no\){CPU}"),
        (cupy_with(handle=raising(ImportError("libcublas.so.13"))), rf"not start \(libcublas.so.13\); {PIP}{CPU}"),
        (cupy_with(cublas=False), rf"not start \(.*cublas.*\); {PIP}{CPU}"),
        (cupy_with(compile=raising(CompileException("sm_70"))), rf"not start \(sm_70\); {PIP}{CPU}"),
    ],
)
def test_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, module: Any, wanted: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cupy"]:
        monkeypatch.delitem(sys.modules, name)
    if module is None:
        monkeypatch.setattr("sys.path", [])
    else:
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setitem(sys.modules, "cupy.cublas", getattr(module, "cublas", None))
    with pytest.raises(cs.BackendUnavailable, match=wanted):
        find_backend("gpu")


def test_what_the_driver_refuses_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's errors are RuntimeErrors of CuPy's; others are not taken for them."""
    module = cupy_with()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupy.cublas", module.cublas)
    device = CudaDevice()
    theirs = type("CUDADriverError", (RuntimeError,), {"__module__": "cupy_backends.cuda.api.driver"})
    for error, wanted in (
        (CompileException("sm_999"), r"CuPy cannot compile for NVIDIA H200 \(sm_999\)"),
        (MemoryError("7 bytes"), r"NVIDIA H200 is out of memory \(7 bytes\)"),
        (theirs("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"), r"NVIDIA H200 failed \(CUDA_ERROR_COOP"),
    ):
        with pytest.raises(cs.BackendUnavailable, match=wanted), device.guard():
            raise error
    with pytest.raises(RuntimeError, match="ours"), device.guard():
        raise RuntimeError("ours")


class Capture:
    """As CuPy's stream: captures nothing but whether it is asked to."""

    def __init__(self, fault: Exception | None) -> None:
        self.fault, self.calls = fault, []

    def __enter__(self) -> None:
        self.calls.append("enter")

    def __exit__(self, *_: Any) -> None:
        self.calls.append("exit")

    def begin_capture(self) -> None:
        self.calls.append("begin")

    def end_capture(self) -> Any:
        self.calls.append("end")
        if self.fault:
            raise self.fault
        return SimpleNamespace(launch=lambda: self.calls.append("launch"))


@pytest.mark.parametrize("fault", [None, CudaError("cudaErrorStreamCaptureInvalidated")])
def test_launches_are_captured_or_taken_again(monkeypatch: pytest.MonkeyPatch, fault: Exception | None) -> None:
    module, streams = cupy_with(), []

    def stream(non_blocking: bool) -> Capture:
        assert non_blocking
        streams.append(Capture(fault))
        return streams[-1]

    module.cuda.Stream = stream
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupy.cublas", module.cublas)
    device, launched = CudaDevice(), []
    again = device.recorded(lambda: launched.append(1))
    assert launched == [1] and streams[0].calls == ["enter", "begin", "end", "exit"]
    again()
    assert (launched, streams[0].calls[4:]) == (([1], ["launch"]) if fault is None else ([1, 1], []))
    device.recorded(lambda: None)
    assert len(streams) == (2 if fault is None else 1)  # what failed once is not tried again


@pytest.mark.parametrize("threads", [1, 33, 10_000, 100_000, 100_001])
def test_every_thread_is_launched(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    calls: list[tuple[Any, ...]] = []
    module = cupy_with()
    kernel = lambda *call: calls.append(call)  # noqa: E731
    module.RawModule = lambda **_: SimpleNamespace(compile=lambda: None, get_function=lambda _: kernel)
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupy.cublas", module.cublas)
    CudaDevice().launch("relax_float64", threads, 7, "array")
    [((grid,), (block,), arguments)] = calls
    assert threads <= grid * block < threads + block
    assert arguments == (7, "array") and arguments[0].dtype == np.int64


def test_constants_of_the_kernels_are_those_of_python() -> None:
    """Laws, the columns of their parameters, and where exponentials end; sums of conjugate gradients."""
    text = SOURCE.read_text()
    values = {name: sum(map(float, value.strip("()").split("+"))) for name, value in DEFINED.findall(text)}
    columns = {name: k for names in COLUMNS.findall(text) for k, name in enumerate(re.split(", *", names))}
    laws = {law.name: law.value for law in Law}
    ends = "MAX_EXPONENT RECOMBINING STRAIGHT LEAST_SQUARE BEYOND FAR STEPS".split()
    wanted = laws | {name: getattr(law_kernels, name) for name in (*ends, *columns)}
    wanted |= {"SUMS": gpu_mesh.SUMS, "AT_ONCE": gpu_mesh.AT_ONCE, "EPS": np.finfo(np.float64).eps}
    wanted |= {"SPENT": limiting.SPENT, "MOST_SPENT": limiting.MOST_SPENT}
    assert len(columns) == 21 and {name: (values | columns)[name] for name in wanted} == wanted


# -- the benchmark -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in, with small networks: every row, its target and what it is compared with."""
    x = np.random.default_rng(2).uniform(-1, 1, (5, 4))
    one = cs.compile_problem(cs.parse(drn([4, 6, 5, 3], gain=40.0)))
    batches = {"drn_1h": one.with_values({"Vx": x}), "drn_3h": one.with_values({"Vx": x}), "drn_xl": one}
    monkeypatch.setattr(bench, "_problem", lambda name, _: batches[name])
    rows = list(bench.gpu(NumpyDevice(), lambda action: timed(action)[0], 5, 5, 30, 6, copied=1000))
    assert [row.measured is None for row in rows] == [False] * 6 + [True, False]
    assert [row.target is not None for row in rows] == [True, False, True, True, False, True, False, True]
    assert all(row.peer_measured for row in rows[1:6]) and rows[2].ratio == rows[2].measured / rows[2].peer_measured
    assert all("SOLVED" in rows[k].note for k in (0, 2))
    lines = [bench.text(row) for row in rows]
    assert lines[3].startswith("drn_3h, 5 images, whole solve: ") and "target >= 20: " in lines[3]
    assert lines[4].startswith("484-node diode mesh, 5 rows, newton: ") and "Newton steps (asked for)" in lines[4]
    assert (
        lines[5].startswith("grid 30 x 30, 600 current sources, newton, whole solve: ") and "target >= 1: " in lines[5]
    )
    assert lines[6].endswith("not measured; wires are eliminated, on the cpu")
    assert lines[7].startswith("Monte Carlo, 6 draws of a 484-node diode mesh, whole analysis: ")
    assert "0 failed, many circuits side by side; largest difference " in lines[7]
    monkeypatch.setattr(bench, "_mesh", raising(ModuleNotFoundError("No module named 'pyamg'")))
    again = list(bench.gpu(NumpyDevice(), lambda action: timed(action)[0], 5, 5, 30, 6, copied=1000))
    assert bench.text(again[4]) == "484-node diode mesh, 5 rows, newton: not measured; No module named 'pyamg'"
    assert [row.measured is None for row in again] == [False] * 4 + [True, False, True, False]
    saved = bench.report(rows, NumpyDevice())
    assert saved["device"] == "a stand-in" and saved["rows"][2]["ratio"] == rows[2].ratio


def test_the_benchmark_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench, "CudaDevice", no_device)
    assert bench.main([]) == 2
    assert capsys.readouterr() == ("", "error: no GPU today\n")
    assert bench.main(["--json", "nowhere/gpu.json"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err


def test_blocks_that_wait_for_each_other_are_launched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    module, sources = cupy_with(), []
    found = SimpleNamespace(shared_size_bytes=48, kernel=lambda *call, **how: calls.append((*call, how)))
    made = SimpleNamespace(compile=lambda: None, get_function=lambda _: found)
    module.RawModule = lambda **given: sources.append(given["options"]) or made
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupy.cublas", module.cublas)
    device, program = CudaDevice(), Program(SOURCE, ("-DREAL=float",), "steps")
    for count in (7, 8):
        device.launch_together(program, 3, 64, 1000, count, "array")
    assert sources == [OPTIONS, (*OPTIONS, "-DREAL=float")]  # compiled once
    assert found.max_dynamic_shared_size_bytes == 232448 - 48
    how = {"shared_mem": 1000, "enable_cooperative_groups": True}
    assert calls == [((3,), (64,), (count, "array"), how) for count in (7, 8)]
    module.RawModule = lambda **_: raising(CompileException("no such type"))()
    with pytest.raises(cs.BackendUnavailable, match=r"kernels.cu cannot be compiled \(no such type\)"):
        device.launch_together(Program(SOURCE, (), "steps"), 3, 64, 1000)
