"""Trajectories of the paper's public code, in float64, are followed by every path through this one.

golden/*.npz: three small networks, real images in file order, 100 steps of centred equilibrium propagation.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from circuitsim import Circuit, compile_problem, parse
from circuitsim.backends.base import find_backend
from circuitsim.gallery import drn
from training import eqprop, layers
from training.datasets import MNIST, load_idx_dataset
from training.general import GeneralLearner
from training.gradient import find_outputs, gradient, trained_elements
from training.learner import Learner, Samples
from training.mnist import main
from training.network import make_learner
from training.phases import Sweeps
from training.recipe import Recipe

Floats = NDArray[np.float64]

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.npz"))
TOLERANCE = {"float64": 1e-6, "float32": 1e-3}
STEPS = (1, 10, 100)


@cache
def images() -> Samples:
    train, _ = load_idx_dataset(MNIST)
    return train.head(500)


def circuit_of(golden: np.lib.npyio.NpzFile) -> Circuit:
    sizes = golden["layer_sizes"].tolist()
    return parse(drn(sizes)).with_values({f"RW{k}": golden[f"g{k}_initial"] for k in range(1, len(sizes))})


def recipe_of(golden: np.lib.npyio.NpzFile, dtype: str) -> Recipe:
    return Recipe(
        netlist=Path("golden.cir"),
        gain=float(golden["input_gain"]),
        sweeps=int(golden["iterations"]),
        nudge=float(golden["nudging"]),
        conductance_rates=tuple(golden["lr_weights"].tolist()),
        bias_rates=tuple(golden["lr_biases"].tolist()),
        batch_size=int(golden["batch_size"]),
        dtype=dtype,
    )


def learner_of(path: str, circuit: Circuit, recipe: Recipe) -> Learner:
    if path == "general":
        return GeneralLearner(compile_problem(circuit), recipe, find_backend("cpu"))
    return make_learner(circuit, recipe, "reference" if path == "plain" else "cpu", 1)


def relative(found: Floats, wanted: Floats) -> float:
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def layer_states(learner: Learner, circuit: Circuit, depth: int) -> list[Floats]:
    """The free state layer by layer, also of the general path, which knows no layers."""
    states = learner.free_state()
    if len(states) == depth:
        return states
    unit = compile_problem(circuit).topology.index_of_node
    names = [*(f"h{k}" for k in range(1, depth)), "y"]
    sizes = [crossbar.cols.size for crossbar in circuit.crossbars]
    nodes = [[circuit.netlist.node(f"{n}[{i}]") for i in range(size)] for n, size in zip(names, sizes, strict=True)]
    return [states[0][:, unit[of_layer]] for of_layer in nodes]


def follow(
    golden: np.lib.npyio.NpzFile, learner: Learner, circuit: Circuit, dtype: str, most: int = max(STEPS)
) -> None:
    """Train for `most` steps, and see that the states and values on the way are the golden ones."""
    depth, batch = golden["layer_sizes"].size - 1, int(golden["batch_size"])
    rates = recipe_of(golden, dtype).rates([(n, n.startswith("RW")) for n in circuit.netlist.trained], epoch=0)
    errors: dict[str, float] = {}
    order = np.arange(batch * max(STEPS)) + int(golden["first_image"])
    done = 0
    for step in (step for step in STEPS if step <= most):
        if step - 1 > done:
            learner.train(images(), order[batch * done : batch * (step - 1)], rates)
        tally = learner.train(images(), order[batch * (step - 1) : batch * step], rates)
        done = step
        values, free = learner.values(), layer_states(learner, circuit, depth)
        errors[f"cost {step}"] = abs(tally.cost / batch / float(golden[f"step{step}_cost"]) - 1)
        for k in range(1, depth + 1):
            errors[f"free{k} {step}"] = relative(free[k - 1], golden[f"step{step}_free{k}"])
            errors[f"bias{k} {step}"] = relative(values[f"Ib{k}"], golden[f"step{step}_bias{k}"])
            if k > 1 or step == 100:
                errors[f"g{k} {step}"] = relative(values[f"RW{k}"], golden[f"step{step}_g{k}"])
    assert max(errors.values()) <= TOLERANCE[dtype], max(errors, key=lambda key: errors[key])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("path", ["kernel", "plain", "general"])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda p: p.stem)
def test_trajectory(file: Path, path: str, dtype: str) -> None:
    with np.load(file, allow_pickle=False) as golden:
        circuit, recipe = circuit_of(golden), recipe_of(golden, dtype)
        follow(golden, learner_of(path, circuit, recipe), circuit, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("path", ["kernel", "plain", "general"])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda p: p.stem)
def test_gradient_of_the_first_step(file: Path, path: str, dtype: str) -> None:
    """From conductances lifted so far above 0 that nothing is clipped, a step of rate 1 would show the gradient; but
    lifting changes the circuit. So the gradient is taken from the fields that the step leaves behind."""
    with np.load(file, allow_pickle=False) as golden:
        circuit, recipe = circuit_of(golden), recipe_of(golden, dtype)
        depth = golden["layer_sizes"].size - 1
        rows = np.arange(recipe.batch_size) + int(golden["first_image"])
        if path == "general":
            problem = compile_problem(circuit)
            inputs = recipe.gain * images().inputs(rows, int(golden["layer_sizes"][0]))
            problem = problem.with_values({"Vx": inputs})
            drive = problem.drive(slice(0, recipe.batch_size))
            outputs, trained = find_outputs(problem), trained_elements(problem)
            phases = Sweeps(find_backend("cpu"), recipe.sweeps, None, dtype)
            x = phases.free(problem, drive, np.zeros((recipe.batch_size, problem.n_free))).x
            fields, _ = eqprop.ep_fields(
                problem, drive, x, outputs, images().targets[rows].astype(float),
                eqprop.nudges("centred", recipe.nudge), phases,
            )  # fmt: skip
            slopes = gradient(problem, trained, outputs, fields)
            found = {e.name: slope for e, slope in zip(trained, slopes, strict=True)}
        else:
            learner = make_learner(circuit, recipe, "reference" if path == "plain" else "cpu", 1)
            learner.train(images(), rows, dict.fromkeys(circuit.netlist.trained, 0.0))
            arrays = learner.arrays()
            delta, total = (
                split(arrays[name], golden["layer_sizes"], recipe.batch_size) for name in ("delta", "total")
            )
            x = (recipe.gain * images().inputs(rows, int(golden["layer_sizes"][0]))).astype(dtype)
            g, b = layers.gradients(x, delta, total, recipe.batch_size)
            found = {f"RW{k}": slope for k, slope in enumerate(g, 1)} | {
                f"Ib{k}": slope for k, slope in enumerate(b, 1)
            }
        for k in range(1, depth + 1):
            assert relative(found[f"RW{k}"], golden[f"step1_grad_g{k}"]) <= TOLERANCE[dtype]
            assert relative(found[f"Ib{k}"], golden[f"step1_grad_bias{k}"]) <= TOLERANCE[dtype]


def split(flat: NDArray, sizes: NDArray, rows: int) -> list[NDArray]:
    """Layer by layer: the (rows, n) blocks of a flat array."""
    stops = rows * np.cumsum(sizes[1:])
    return [
        flat[stop - rows * n : stop].reshape(rows, n)
        for n, stop in zip(sizes[1:].tolist(), stops.tolist(), strict=True)
    ]


@pytest.mark.parametrize("file", GOLDEN[:1], ids=lambda p: p.stem)
def test_the_program_follows_a_trajectory(file: Path, tmp_path: Path) -> None:
    """Through the command line: a netlist of one's own, initial arrays, images in file order, arrays saved."""
    with np.load(file, allow_pickle=False) as golden:
        netlist, saved = tmp_path / "golden.cir", tmp_path / "saved.npz"
        netlist.write_text(drn(golden["layer_sizes"].tolist()))
        options = {
            "--netlist": netlist, "--init": file, "--save-arrays": saved, "--out": tmp_path / "run", "--steps": 10,
            "--order": "sequential", "--first-image": golden["first_image"], "--dtype": "float64",
            "--gain": golden["input_gain"], "--sweeps": golden["iterations"], "--nudge": golden["nudging"],
            "--conductance-rates": ",".join(map(str, golden["lr_weights"])),
            "--bias-rates": ",".join(map(str, golden["lr_biases"])), "--limit": 500, "--test-limit": 10,
        }  # fmt: skip
        result = CliRunner().invoke(main, [str(word) for option in options.items() for word in option])
        assert result.exit_code == 0, result.output
        with np.load(saved, allow_pickle=False) as arrays:
            for key in ("g2", "bias1", "bias2", "free1", "free2"):
                assert relative(arrays[key], golden[f"step10_{key}"]) <= TOLERANCE["float64"], key
            assert abs(float(arrays["cost"]) / float(golden["step10_cost"]) - 1) <= TOLERANCE["float64"]
