"""The steps on a GPU: they compile, do what the slow twin does, and follow the golden trajectories.

On stand-ins for a GPU; where there is one, on it too: `make gpu-test`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from devices import ARCHITECTURES, BY_CUPY, NEEDS_GPU, NumpyDevice, nvrtc_cubin
from helpers import some_slow
from test_golden import GOLDEN, circuit_of, follow, recipe_of
from test_layered import DROPS, INNER, RECIPE, WINDOW, assert_close, assert_within, layered, run, samples
from together import ForeignDevice, TogetherDevice

from circuitsim import BackendUnavailable, Circuit, compile_problem, parse
from circuitsim.backends.base import Backend, find_backend
from circuitsim.backends.cuda import OPTIONS
from circuitsim.backends.device import Device, Program
from circuitsim.backends.gpu import GpuBackend
from circuitsim.gallery import drn
from training import gpu_steps, network
from training import layered as layered_module
from training.gpu_steps import Refused, Task, plan_of, program
from training.kernels import BACK, DIFFERENCE, PLAIN
from training.layered import LayeredLearner
from training.layers import find_layers
from training.learner import LearningError
from training.network import make_learner, ready_learner, within_window
from training.recipe import Recipe, find_recipe, names

FORMS = some_slow([("ep", "difference"), ("bp", "difference"), ("ep", "plain")], 2)  # algorithm, form
ON_GPU = bool(os.environ.get(NEEDS_GPU))
H200 = {"multiprocessors": 132, "shared_bytes": 231_424}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For what is compiled."""
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(params=["cuda" if ON_GPU else "fibers"])
def device(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    if request.param == "cuda":
        backend = find_backend("gpu")
        assert isinstance(backend, GpuBackend)
        yield backend.device
        return
    monkeypatch.setattr(gpu_steps, "_THREADS", 64)
    yield TogetherDevice(folder)


def h200() -> ForeignDevice:
    device = ForeignDevice()
    device.multiprocessors, device.shared_bytes = H200["multiprocessors"], H200["shared_bytes"]
    return device


def on_device(circuit: Circuit, recipe: Recipe, device: Device) -> LayeredLearner:
    problem = compile_problem(circuit)
    structure = find_layers(problem)
    assert structure is not None
    return LayeredLearner(problem, structure, recipe, kernel=True, threads=1, device=device)


def assert_steps(circuit: Circuit, recipe: Recipe, device: Device, tolerance: float = 1e-9, steps: int = 5) -> None:
    """Those on the device are the slow twin's."""
    data = samples(circuit.crossbars[0].rows.size // 2, len(circuit.netlist.outputs))
    order = np.random.default_rng(1).integers(0, len(data), steps * recipe.batch_size)
    fast, slow = on_device(circuit, recipe, device), layered(circuit, recipe, kernel=False)
    found, wanted = run(fast, data, order), run(slow, data, order)
    assert fast.path == f"fast path for layers on {device.name}"
    assert_close(found, wanted, tolerance)
    first = circuit.netlist.trained[0]
    assert np.abs(wanted[first] - layered(circuit, recipe).values()[first]).max() > 1e3 * tolerance
    np.testing.assert_allclose(fast.outputs(data, slice(0, 40)), slow.outputs(data, slice(0, 40)), rtol=100 * tolerance)


# -- the source compiles for GPUs --------------------------------------------------------------------------------------

TASKS = [
    pytest.param(Task((1568, 1024, 10), 784, 4, 4, mode, dtype), marks=marks, id=f"{mode}-{dtype}")
    for mode in (DIFFERENCE, PLAIN, BACK)
    for dtype, marks in (("float32", ()), ("float64", pytest.mark.slow))  # some seconds each
]
TASKS += [
    pytest.param(Task((1568, 1024, 10), 784, batch, 4, BACK, "float32"), marks=pytest.mark.slow, id=f"batch {batch}")
    for batch in (1, 3, 8)
]
TASKS += [  # other depths and widths, and an input crossbar that passes through
    pytest.param(task, marks=marks, id="-".join(map(str, task.sizes)))
    for task, marks in (
        (Task((1568, 1024, 1024, 1024, 10), 784, 4, 6, DIFFERENCE, "float32"), pytest.mark.slow),
        (Task((1568, 1024, 1024, 10), 784, 4, 5, BACK, "float32"), pytest.mark.slow),
        (Task((1568, 32768, 10), 784, 4, 4, DIFFERENCE, "float32"), pytest.mark.slow),
        (Task((13, 7, 5, 6, 3), 13, 3, 2000, DIFFERENCE, "float64"), pytest.mark.slow),
        (Task((13, 7, 5, 3), 13, 8, 4, BACK, "float64"), pytest.mark.slow),
    )
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("task", TASKS)
def test_nvrtc_compiles_the_steps(task: Task, architecture: str) -> None:
    code = program(task, plan_of(task, h200()), "uint8")
    options = [*OPTIONS, *BY_CUPY, *code.options, f"--gpu-architecture={architecture}"]
    assert b".text.steps" in nvrtc_cubin(code.text, options)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS[:6:2])
def test_nvcc_compiles_the_steps_without_a_warning(task: Task, tmp_path: Path) -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    code = program(task, plan_of(task, h200()), "float32")
    defined = [option.removeprefix("-D").replace("=", " ", 1) for option in code.options]  # nvcc parts them at commas
    source = tmp_path / "steps.cu"
    source.write_text("".join(f"#define {what}\n" for what in defined) + code.text)
    flags = ["-std=c++17", "-arch=sm_90", "-cubin", "-Werror", "all-warnings", "-o", str(tmp_path / "steps.cubin")]
    done = subprocess.run(["nvcc", *flags, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS[:6:2])
def test_a_compiler_that_optimises_warns_of_nothing(task: Task, tmp_path: Path) -> None:
    """Of what may be used before it is set, for example, which it does not see otherwise."""
    TogetherDevice(tmp_path, optimise="-O1").make_ready(program(task, plan_of(task, h200()), "uint8"))


# -- they are the slow twin's ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm, form", [("ep", "difference"), ("ep", "plain"), ("bp", "difference")])
@pytest.mark.parametrize(
    "sizes",
    [
        (12, 5, 3),
        pytest.param((12, 9, 6, 2), marks=pytest.mark.slow),
        pytest.param((8, 21, 17, 19, 3), marks=pytest.mark.slow),
        (8, 5, 6, 5, 6, 2),
    ],
)
def test_steps_are_those_of_the_slow_twin(sizes: tuple[int, ...], algorithm: str, form: str, device: Device) -> None:
    assert_steps(parse(drn(sizes, seed=5)), replace(RECIPE, batch_size=4, algorithm=algorithm, form=form), device)


@pytest.mark.parametrize("algorithm", ["ep", "bp"])
@pytest.mark.parametrize("batch", some_slow([3, 1, 8], 1))
def test_other_batches(batch: int, algorithm: str, device: Device) -> None:
    recipe = replace(RECIPE, batch_size=batch, algorithm=algorithm)
    assert_steps(parse(drn((12, 9, 6, 2), seed=5)), recipe, device)


@pytest.mark.parametrize("changes", [{"variant": "positive"}, {"variant": "negative"}, {"algorithm": "implicit"}])
def test_other_gradients(changes: dict[str, str], device: Device) -> None:
    assert_steps(parse(drn((12, 9, 6, 2), seed=5)), replace(RECIPE, batch_size=4, **changes), device)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["ep", "bp"])
def test_float32(algorithm: str, device: Device) -> None:
    recipe = replace(RECIPE, batch_size=4, algorithm=algorithm, dtype="float32")
    assert_steps(parse(drn((12, 9, 6, 2), seed=5)), recipe, device, 1e-5)


@pytest.mark.parametrize("algorithm", ["ep", "bp"])
def test_other_bounds_fixed_currents_and_crossbars_that_do_not_learn(algorithm: str, device: Device) -> None:
    circuit, data = parse(DROPS), samples(6, 3)
    recipe = replace(RECIPE, batch_size=4, algorithm=algorithm)
    learner = on_device(circuit, recipe, device)
    wanted = run(layered(circuit, recipe, kernel=False), data, np.arange(20))
    assert_close(run(learner, data, np.arange(20)), wanted, 1e-9)
    assert learner.gpu_steps is not None


@pytest.mark.parametrize("algorithm", ["ep", "bp"])
@pytest.mark.parametrize("shared_bytes, resident", [(500_000, True), (110_000, False)])
def test_wide_layers_and_an_input_crossbar_that_passes_through(
    device: Device, monkeypatch: pytest.MonkeyPatch, shared_bytes: int, resident: bool, algorithm: str
) -> None:
    monkeypatch.setattr(gpu_steps, "_THREADS", 64)
    monkeypatch.setattr(device, "multiprocessors", 2)
    monkeypatch.setattr(device, "shared_bytes", shared_bytes)
    recipe = replace(RECIPE, batch_size=4, algorithm=algorithm)
    assert_steps(parse(drn((40, 300, 3), seed=5)), recipe, device, steps=3)
    assert_steps(parse(drn((40, 300, 3), seed=5)), replace(recipe, nudge=0.01, **WINDOW), device, steps=3)
    task = Task((40, 300, 3), 20, 4, recipe.sweeps, BACK if algorithm == "bp" else DIFFERENCE, "float64")
    plan = plan_of(task, device)
    assert (plan.resident, plan.widths) == (resident, (152 if resident else 160,))


@pytest.mark.parametrize("algorithm, form", FORMS)
@pytest.mark.parametrize("text", [DROPS, INNER], ids=["drops", "inner"])
def test_bounds_of_conductances(text: str, algorithm: str, form: str, device: Device) -> None:
    """One crossbar of either does not learn: it has none."""
    recipe = replace(RECIPE, batch_size=4, nudge=0.01, algorithm=algorithm, form=form, **WINDOW)
    circuit, _ = within_window(parse(text), recipe)
    data = samples(6 if text == DROPS else 4, 3)
    wanted = run(layered(circuit, recipe, kernel=False), data, np.arange(20))
    learner = on_device(circuit, recipe, device)
    found = run(learner, data, np.arange(20))
    assert learner.gpu_steps is not None
    assert_close(found, wanted, 1e-9)
    assert_within(found, circuit)


@pytest.mark.parametrize("dtype", [pytest.param("float64", marks=pytest.mark.slow), "float32"])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda p: p.stem)
def test_golden_trajectory(file: Path, dtype: str, device: Device) -> None:
    """All 100 steps on a GPU; on the stand-in, 10."""
    with np.load(file, allow_pickle=False) as golden:
        circuit = circuit_of(golden)
        learner = on_device(circuit, recipe_of(golden, dtype), device)
        follow(golden, learner, circuit, dtype, 100 if device.name.startswith("NVIDIA") else 10)
        assert learner.gpu_steps is not None


@pytest.mark.parametrize(
    "waiting",
    [
        "        if (PARITY < HIDDEN) barrier();\n    }\n\n    // -- the nudged",
        "        __syncthreads();\n        for (int i = threadIdx.x; i < across",
    ],
    ids=["for all blocks", "for the warps of a block"],
)
def test_the_stand_in_sees_that_nobody_waits(
    waiting: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Program(gpu_steps.SOURCE, (), "steps").text
    assert source.count(waiting) == 1
    (tmp_path / "steps.cu").write_text(source.replace(waiting, waiting.split(";\n", 1)[1]))
    monkeypatch.setattr(gpu_steps, "SOURCE", tmp_path / "steps.cu")
    monkeypatch.setattr(gpu_steps, "_THREADS", 64)
    circuit, recipe = parse(drn((12, 9, 6, 2), seed=5)), replace(RECIPE, batch_size=4)
    with pytest.raises((AssertionError, LearningError)), np.errstate(all="ignore"):
        assert_steps(circuit, recipe, TogetherDevice(folder))


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_nudge_that_becomes_too_strong(device: Device) -> None:
    learner = on_device(parse(drn((12, 5, 3), seed=5)), replace(RECIPE, batch_size=4), device)
    learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))
    arrays = learner.arrays()
    arrays["g"][12 * 5 :] *= 1e-3
    learner.restore(arrays)
    with pytest.raises(LearningError, match=r"not convex: output y\[\d\] has a conductance of"):
        learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))


def test_numbers_that_are_not_finite(device: Device) -> None:
    learner = on_device(parse(drn((12, 5, 3), seed=5)), replace(RECIPE, batch_size=4, dtype="float32"), device)
    rates = {name: 1e37 if name.startswith("Ib") else 0.0 for name in learner.values()}
    with pytest.raises(LearningError, match="no longer finite"):
        for _ in range(20):
            learner.train(samples(6, 3), np.arange(40), rates)


@pytest.mark.parametrize("unit", [0, 2, 4])
def test_a_unit_without_conductance_is_named(unit: int, device: Device) -> None:
    circuit = parse(drn((12, 5, 3), seed=5))
    learner = on_device(circuit, replace(RECIPE, batch_size=4, variant="positive"), device)
    g, h = circuit.crossbars[0].g.copy(), circuit.crossbars[1].g.copy()
    g[:, unit] = h[unit] = 0.0
    learner.restore(learner.arrays() | {"g": np.concatenate([g.ravel(), h.T.ravel()])})
    with pytest.raises(LearningError, match=rf"node h1\[{unit}\] has no conductance left"):
        learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))


def test_a_plan_that_the_kernel_does_not_share_is_noticed(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = on_device(parse(drn((12, 5, 3), seed=5)), replace(RECIPE, batch_size=4), device)
    learner.prepare(samples(6, 3))
    assert learner.gpu_steps is not None
    wrong = replace(learner.gpu_steps.plan, numbers=learner.gpu_steps.plan.numbers + 4)
    monkeypatch.setattr(learner.gpu_steps, "plan", wrong)
    with pytest.raises(RuntimeError, match=r"steps.cu lays out"):
        learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))


# -- plans, launches, going on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [DIFFERENCE, BACK])
@pytest.mark.parametrize("name", [name for name in names() if name.startswith("drn")])
def test_the_shipped_networks_fit_a_gpu(name: str, mode: int) -> None:
    """Only drn-xl's input crossbar passes through the GPU's memory."""
    sizes = {
        "drn-xs": (1568, 100, 10), "drn-1h": (1568, 1024, 10), "drn-2h": (1568, 1024, 1024, 10),
        "drn-3h": (1568, 1024, 1024, 1024, 10), "drn-xl": (1568, 32768, 10),
    }[name]  # fmt: skip
    recipe = find_recipe(name)
    plan = plan_of(Task(sizes, 784, recipe.batch_size, recipe.sweeps, mode, "float32"), h200())
    assert plan.resident == (name != "drn-xl")
    assert plan.blocks == (25 if name == "drn-xs" else 128)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"sizes": (12, 3)}, "there is no hidden layer"),
        ({"batch": 9}, "a step takes 9 samples; at most 8 are supported"),
        ({"sizes": (12, 5, 300)}, "there are 300 outputs"),
        ({"sizes": (12, 5000, 5000, 3)}, "do not fit the shared memory: [0-9,]+ bytes for a multiprocessor"),
        ({"sizes": (50_000, 4002, 3)}, "the first hidden layer has 4,002 units: not a multiple of 4, or too many"),
        ({"sizes": (1_000_000, 4000, 3)}, "the first hidden layer has 4,000 units: not a multiple of 4, or too many"),
        ({"sweeps": 10**9}, "a step takes 1,000,000,000 sweeps"),
    ],
)
def test_what_is_refused(changes: dict[str, object], why: str) -> None:
    task = replace(Task((12, 5, 3), 6, 4, 3, PLAIN, "float32"), **changes)  # type: ignore[arg-type]
    with pytest.raises(Refused, match=why):
        plan_of(task, h200())


@pytest.mark.parametrize("algorithm", ["ep", "bp", "implicit"])
@pytest.mark.parametrize("where", ["cuda" if ON_GPU else "foreign"])
def test_what_is_refused_takes_the_plain_path_on_the_device(
    where: str, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit, data = parse(drn((12, 9, 6, 2), seed=5)), samples(6, 2)
    recipe = replace(RECIPE, batch_size=4, algorithm=algorithm)
    device: Device = ForeignDevice()
    if where == "cuda":
        device = find_backend("gpu").device  # type: ignore[attr-defined]
        monkeypatch.setattr(device, "shared_bytes", 1)
    learner = on_device(circuit, recipe, device)
    found = run(learner, data, np.arange(12))
    assert learner.gpu_steps is None
    assert learner.path.startswith(f"plain path for layers on {device.name}")
    wanted = run(layered(circuit, recipe, kernel=False), data, np.arange(12))
    assert_close(found, wanted, 1e-12 if where == "foreign" else 1e-9)
    np.testing.assert_array_equal(learner.outputs(data, slice(0, 40)).shape, (40, 2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("where", ["cuda" if ON_GPU else "numpy"])
def test_a_tolerance_takes_the_general_path_with_sweeps_there(
    where: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit, data, order = parse(drn((12, 9, 6, 2), seed=5)), samples(6, 2), np.arange(12)
    recipe = replace(RECIPE, batch_size=4, tol=1e-10, dtype=dtype)
    wanted = run(make_learner(circuit, recipe, "cpu"), data, order)
    there = NumpyDevice()
    if where == "numpy":
        monkeypatch.setattr(network, "find_backend", lambda name: GpuBackend(there))
    learner = make_learner(circuit, recipe, "gpu")
    found = run(learner, data, order)
    assert learner.path == "general path" and learner.dtype == "float64"
    assert where == "cuda" or "relax_float64" in there.launched
    assert_close(found, {name: wanted[name] for name in circuit.netlist.trained}, 1e-7)


@pytest.mark.parametrize("kind", ["uint8", "int16", "float64"])
@pytest.mark.parametrize("where", ["cuda" if ON_GPU else "foreign"])
def test_outputs_of_samples_that_stay_on_the_device(where: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device: Device = ForeignDevice() if where == "foreign" else find_backend("gpu").device  # type: ignore[attr-defined]
    circuit = parse(drn((12, 9, 6, 2), seed=5))
    monkeypatch.setattr(layered_module, "_MOST_VOLTAGES", 5 * (12 + 9 + 6 + 2) + 1)
    learner, twin = on_device(circuit, RECIPE, device), layered(circuit, RECIPE, kernel=False)
    assert learner.at_once == 5
    sent: list[np.ndarray] = []

    def put(x: Any) -> Any:
        if type(x) is np.ndarray:
            sent.append(x)
        return device.xp.asarray(x)

    learner.xp = SimpleNamespace(zeros=device.xp.zeros, asarray=put)
    for seed in (0, 1):
        data = samples(6, 2, seed=seed)
        data = replace(data, features=data.features.astype(kind))
        for rows in (slice(0, 40), slice(7, 24)):
            np.testing.assert_allclose(learner.outputs(data, rows), twin.outputs(data, rows), rtol=1e-12)
    assert len(sent) == 2
    assert sent[0].dtype == ("uint8" if kind == "uint8" else "float64")


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm, form", FORMS)
def test_many_steps_are_several_launches(
    algorithm: str, form: str, dtype: str, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because arrivals at barriers are counted in 32 bits. A launch takes a conductance from one of its two owners, so
    that equal bits say that both have the same."""
    circuit, data = parse(drn((8, 21, 17, 19, 3), seed=5)), samples(4, 3)
    recipe = replace(RECIPE, batch_size=4, algorithm=algorithm, form=form, dtype=dtype)
    launched: list[int] = []
    launch = device.launch_together

    def counted(*arguments: Any) -> None:
        launched.append(1)
        launch(*arguments)

    monkeypatch.setattr(device, "launch_together", counted)
    learner = on_device(circuit, recipe, device)
    whole = run(learner, data, np.arange(28))
    assert len(launched) == 1 and learner.gpu_steps is not None
    waits = gpu_steps.barriers(learner.gpu_steps.task) * learner.gpu_steps.plan.blocks
    monkeypatch.setattr(gpu_steps, "_MOST_ARRIVALS", 3 * waits)
    parts = run(on_device(circuit, recipe, device), data, np.arange(28))
    assert len(launched) == 1 + 3
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)
    monkeypatch.setattr(gpu_steps, "_MOST_WAITS", gpu_steps.barriers(learner.gpu_steps.task) // 2)  # a step a launch
    parts = run(on_device(circuit, recipe, device), data, np.arange(28))
    assert len(launched) == 1 + 3 + 7
    for name, array in whole.items():
        np.testing.assert_array_equal(parts[name], array, err_msg=name)


@pytest.mark.parametrize("algorithm, form", FORMS)
@pytest.mark.parametrize("sizes", [(12, 5, 3), (12, 9, 6, 2), (8, 9, 7, 9, 3)])
def test_barriers_are_counted(
    sizes: tuple[int, ...], algorithm: str, form: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_steps, "_THREADS", 64)
    device = TogetherDevice(folder)
    recipe = replace(RECIPE, batch_size=4, algorithm=algorithm, form=form)
    learner = on_device(parse(drn(sizes, seed=5)), recipe, device)
    run(learner, samples(sizes[0] // 2, sizes[-1]), np.arange(12))
    assert learner.gpu_steps is not None
    arrived = next(x for x in device.arguments if getattr(x, "dtype", None) == np.uint32)
    assert arrived[0] == 3 * gpu_steps.barriers(learner.gpu_steps.task) * learner.gpu_steps.plan.blocks


@pytest.mark.parametrize("algorithm", ["ep", "bp"])
def test_a_run_goes_on_where_another_backend_left_it(algorithm: str, device: Device) -> None:
    circuit, data = parse(drn((12, 9, 6, 2), seed=5)), samples(6, 2)
    recipe = replace(RECIPE, batch_size=4, algorithm=algorithm)
    make = [partial(layered, circuit, recipe), partial(on_device, circuit, recipe, device)]
    wanted = run(make[0](), data, np.arange(40))
    for first, second in (make, make[::-1]):
        begun, going_on = first(), second()
        begun.train(data, np.arange(20), dict.fromkeys(begun.values(), 0.01))
        going_on.restore(begun.arrays())
        assert_close(run(going_on, data, np.arange(20, 40)), wanted, 1e-9)


def test_the_backend_chooses(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "find_backend", lambda name: GpuBackend(device))
    learner = make_learner(parse(drn((12, 5, 3), seed=5)), replace(RECIPE, batch_size=4), "gpu")
    learner.prepare(samples(6, 3))
    assert learner.path == f"fast path for layers on {device.name}"


@pytest.mark.parametrize(
    "sizes, changes, there, taken",
    [
        ((400, 300, 10), {}, True, True),
        ((400, 300, 10), {"algorithm": "bp"}, True, True),
        ((400, 300, 10), {}, False, False),
        ((400, 200, 10), {}, True, False),  # too few conductances
        ((400, 300, 10), {"batch_size": 9}, True, False),
    ],
)
def test_auto_takes_a_gpu_where_it_wins(
    sizes: tuple[int, ...], changes: dict[str, Any], there: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = h200()

    def find(name: str) -> Backend:
        if name != "gpu":
            return find_backend(name)
        if not there:
            raise BackendUnavailable("backend gpu: there is none")
        return GpuBackend(device)

    monkeypatch.setattr(network, "find_backend", find)
    recipe = replace(RECIPE, **({"batch_size": 4, "dtype": "float32"} | changes))
    learner = make_learner(parse(drn(sizes, seed=5)), recipe)
    assert isinstance(learner, LayeredLearner)
    assert (learner.device is device) == taken


def test_auto_trains_on_the_cpu_where_a_gpu_does_not_work(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that works takes a step, of which nothing stays."""
    monkeypatch.setattr(
        network, "find_backend", lambda name: GpuBackend(device) if name == "gpu" else find_backend(name)
    )
    monkeypatch.setattr(network, "GPU_WINS", 1)
    circuit, recipe = parse(drn((12, 5, 3), seed=5)), replace(RECIPE, batch_size=4)
    data = samples(6, 3)
    working = ready_learner(circuit, recipe, "auto", 1, (data,))
    assert isinstance(working, LayeredLearner) and working.device is device
    for name, array in on_device(circuit, recipe, device).arrays().items():
        np.testing.assert_array_equal(working.arrays()[name], array, err_msg=name)

    def refused(*_: Any) -> None:
        raise BackendUnavailable("backend gpu: does not go on")

    monkeypatch.setattr(device, "launch_together", refused)
    left = ready_learner(circuit, recipe, "auto", 1, (data,))
    assert isinstance(left, LayeredLearner) and left.device is None
    assert left.path == "fast path for layers"
    with pytest.raises(BackendUnavailable, match="does not go on"):
        still = dict.fromkeys(circuit.netlist.trained, 0.0)
        ready_learner(circuit, recipe, "gpu", 1, (data,)).train(data, np.arange(4), still)
