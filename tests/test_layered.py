"""The fast path against its slow twin and the general path; which netlists are layered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circuitsim import Circuit, SettingsError, compile_problem, parse, solve
from circuitsim.backends.arrange import conductance_matrix
from circuitsim.backends.base import find_backend
from circuitsim.gallery import drn
from training import kernels
from training import layered as module
from training.general import GeneralLearner
from training.gradient import find_outputs
from training.layered import LayeredLearner
from training.layers import Layers, find_layers
from training.learner import Learner, LearningError, Samples
from training.network import make_learner, within_window
from training.recipe import Recipe

RECIPE = Recipe(Path("x.cir"), gain=20.0, sweeps=3, nudge=0.02, dtype="float64")
DROPS = """forward drops, a bias supply, fixed currents, an untrained crossbar; features are not mirrored
.options seed=4
.model drop D(ron=0 vfwd=0.3)
Vx[0:5] x[0:5] 0 0
Vlift lift 0 0.2
RW1[0:5][0:7] x[0:5] h[0:7] g={unif(0.3, 0.3)}
RW2[0:7][0:2] h[0:7] y[0:2] g={max(0, aunif(0.1, 0.3))}
Dlow[0:3] lift h[0:3] drop
Dhigh[0:4] h[3:7] 0 drop
Ifix[0:7] 0 h[0:7] {aunif(0, 0.05)}
Ib[0:2] 0 y[0:2] 0.01
.input Vx
.output y[0:2]
.train RW2 Ib
"""


def samples(features: int, outputs: int, n: int = 40, seed: int = 0) -> Samples:
    """Bytes, most of them 0, as images are."""
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (n, features)) * (rng.random((n, features)) < 0.4)
    return Samples(grey.astype(np.uint8), 1 / 255, np.eye(outputs, dtype=np.float32)[rng.integers(0, outputs, n)])


def run(learner: Learner, data: Samples, order: np.ndarray, rate: float = 0.01) -> dict[str, np.ndarray]:
    learner.train(data, order, dict.fromkeys(learner.values(), rate))
    return learner.arrays() | learner.values()


def layered(circuit: Circuit, recipe: Recipe, kernel: bool = True, threads: int = 1) -> LayeredLearner:
    problem = compile_problem(circuit)
    structure = find_layers(problem)
    assert structure is not None
    return LayeredLearner(problem, structure, recipe, kernel=kernel, threads=threads)


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], tolerance: float) -> None:
    for name, array in wanted.items():
        scale = max(float(np.abs(array).max()), 1e-12)
        # v holds delta (or v2) of the last step below v1; the plain path leaves those rows alone
        if name not in ("v", "state", "steps"):
            assert np.abs(found[name] - array).max() <= tolerance * scale, name


WAYS = pytest.mark.parametrize(
    "way",
    [{"form": "difference"}, {"form": "plain"}, {"algorithm": "bp"}],
    ids=["difference", "plain", "back-propagation"],
)


@WAYS
@pytest.mark.parametrize("batch", [1, 3, 4, 6])
@pytest.mark.parametrize("sizes", [(6, 4), (12, 5, 3), (12, 9, 6, 2), (8, 21, 17, 19, 3), (8, 5, 6, 5, 6, 2)])
def test_kernel_is_its_slow_twin(sizes: tuple[int, ...], batch: int, way: dict[str, str]) -> None:
    circuit = parse(drn(sizes, seed=5))
    recipe = replace(RECIPE, batch_size=batch, **way)
    data = samples(sizes[0] // 2, sizes[-1])
    order = np.random.default_rng(1).integers(0, len(data), 5 * batch)
    fast, slow = layered(circuit, recipe), layered(circuit, recipe, kernel=False)
    assert (fast.path, slow.path) == ("fast path for layers", "plain path for layers")
    found, wanted = run(fast, data, order), run(slow, data, order)
    assert_close(found, wanted, 1e-9)
    for k in range(len(sizes) - 1):  # where the next step begins
        np.testing.assert_allclose(*(x.layer(x.v, k)[:batch] for x in (fast, slow)), rtol=1e-9, atol=1e-12)
    assert np.abs(wanted["RW1"] - circuit.crossbars[0].g).max() > 0
    np.testing.assert_allclose(fast.outputs(data, slice(0, 40)), slow.outputs(data, slice(0, 40)), rtol=1e-9)


@pytest.mark.parametrize("variant", ["centred", "positive", "negative"])
@pytest.mark.parametrize("text", [DROPS, drn((12, 9, 6, 2), seed=5)], ids=["drops", "drn"])
def test_kernel_and_general_path_agree(text: str, variant: str) -> None:
    circuit = parse(text)
    recipe = replace(RECIPE, variant=variant, nudge=0.05)
    data = samples(6, len(circuit.netlist.outputs))
    order = np.arange(20)
    general = GeneralLearner(compile_problem(circuit), recipe, find_backend("reference"))
    found, wanted = run(layered(circuit, recipe), data, order), run(general, data, order)
    assert_close(found, {name: wanted[name] for name in circuit.netlist.trained}, 1e-8)


def test_kernel_is_its_slow_twin_where_sources_and_drops_differ_by_unit() -> None:
    circuit, data, order = parse(DROPS), samples(6, 3), np.arange(40)
    recipe = replace(RECIPE, algorithm="bp")
    found, wanted = (run(layered(circuit, recipe, kernel), data, order) for kernel in (True, False))
    assert_close(found, wanted, 1e-9)


def test_many_sweeps_in_float32_round_no_more_than_the_twin() -> None:
    circuit, data = parse(drn((40, 33, 21, 3), seed=5)), samples(20, 3)
    recipe = replace(RECIPE, algorithm="bp", sweeps=30, dtype="float32")
    exact = run(layered(circuit, replace(recipe, dtype="float64"), kernel=False), data, np.arange(40))
    for kernel in (True, False):
        assert_close(run(layered(circuit, recipe, kernel), data, np.arange(40)), {"bias": exact["bias"]}, 5e-7)


@pytest.mark.parametrize("text", [DROPS, drn((12, 9, 6, 2), seed=5)], ids=["drops", "drn"])
def test_implicit_and_bp_agree_with_the_general_path_at_rest(text: str) -> None:
    circuit = parse(text)
    data, order = samples(6, len(circuit.netlist.outputs)), np.arange(8)
    for algorithm in ("implicit", "bp"):
        recipe = replace(RECIPE, algorithm=algorithm, sweeps=300)
        general = GeneralLearner(compile_problem(circuit), recipe, find_backend("cpu"))
        wanted = run(general, data, order)
        for kernel in (True, False):
            found = run(layered(circuit, recipe, kernel), data, order)
            assert_close(found, {name: wanted[name] for name in circuit.netlist.trained}, 1e-7)


@pytest.mark.parametrize("kernel", [True, False])
def test_currents_that_learn_beside_others_of_their_layer(kernel: bool) -> None:
    circuit, data = parse(DROPS.replace(".input Vx", "Iy[0:2] 0 y[0:2] 0.02\n.input Vx")), samples(6, 3)
    learner = layered(circuit, RECIPE, kernel)
    np.testing.assert_allclose(learner._bias(1), 0.03)
    np.testing.assert_allclose(learner.values()["Ib"], 0.01)
    general = GeneralLearner(compile_problem(circuit), RECIPE, find_backend("reference"))
    found, wanted = run(learner, data, np.arange(8)), run(general, data, np.arange(8))
    assert_close(found, {name: wanted[name] for name in circuit.netlist.trained}, 1e-8)


@pytest.mark.parametrize("kernel", [True, False])
def test_the_form_is_one_of_ep_alone(kernel: bool) -> None:
    circuit, data = parse(DROPS), samples(6, 3)
    found, wanted = (
        run(layered(circuit, replace(RECIPE, algorithm="implicit", form=form), kernel), data, np.arange(8))
        for form in ("plain", "difference")
    )
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_relaxing_to_a_tolerance_is_relaxing_for_very_long() -> None:
    circuit = parse(drn((12, 9, 6, 2), seed=5))
    data, order = samples(6, 2), np.arange(20)
    wanted = run(layered(circuit, replace(RECIPE, sweeps=500)), data, order)
    learner = make_learner(circuit, replace(RECIPE, tol=1e-13), "cpu")
    assert learner.path == "general path"
    assert_close(run(learner, data, order), {name: wanted[name] for name in circuit.netlist.trained}, 1e-8)


def test_a_tolerance_is_of_the_currents_at_each_unit() -> None:
    """Units that hang on little move little at a time: by the size of a step they would seem to be at rest."""
    chain = """chain
Vx[0:0] x[0:0] 0 1
RW1[0:0][0:0] x[0:0] a[0:0] g=1
RW2[0:0][0:0] a[0:0] b[0:0] g=1n
RW3[0:0][0:0] b[0:0] y[0:0] g=1u
.input Vx
.output y[0]
.train RW1
"""
    circuit = parse(chain)
    data = Samples(np.array([[255]], np.uint8), 1 / 255, np.array([[0.0]], np.float32))
    learner = make_learner(circuit, replace(RECIPE, tol=1e-6, gain=1.0), "cpu")
    learner.prepare(data)
    exact = solve(circuit).voltage("y[0]")
    np.testing.assert_allclose(learner.outputs(data, slice(0, 1))[0], exact, rtol=1e-3)


CONTROLLED, LINKED = "G1 0 y x 0 1m", "D1 a y ideal\n.model ideal D(ideal)"
NO_ENERGY = r"controlled source G1 \(.*\) there is no co-content.*; use algorithm implicit, and a tol, say 1e-9$"


@pytest.mark.parametrize(
    ("card", "algorithm", "tol", "reason"),
    [
        (
            CONTROLLED,
            "ep",
            None,
            NO_ENERGY,
        ),
        (
            CONTROLLED,
            "ep",
            1e-9,
            NO_ENERGY,
        ),
        (
            CONTROLLED,
            "bp",
            1e-9,
            NO_ENERGY,
        ),
        (CONTROLLED, "implicit", None, r"controlled source G1 .*; give a tol, say 1e-9, instead of sweeps"),
        (LINKED, "ep", None, "D1 .* joins two nodes that can both move, a and y.*; give a tol, say 1e-9, instead of"),
        (LINKED, "bp", 1e-9, "D1 .* joins two nodes that can both move, a and y.* use algorithm ep or implicit$"),
    ],
)
def test_circuits_whose_state_sweeps_do_not_find_are_refused(
    card: str, algorithm: str, tol: float | None, reason: str
) -> None:
    circuit = parse(f"t\nVx x 0 1\nR1 x a 1k\nR2 a y 1k\nR3 y 0 1k\n{card}\n.input Vx\n.output y\n.train R1\n")
    with pytest.raises(SettingsError, match=f"cannot learn by {algorithm} here: .*{reason}"):
        make_learner(circuit, replace(RECIPE, algorithm=algorithm, tol=tol), "cpu")


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", ["ep", "bp"])
def test_work_in_pieces_gives_the_same_bits(algorithm: str, dtype: str, mirrored: bool, batch: int) -> None:
    circuit = parse(drn((40, 33, 21, 3), seed=5))
    recipe = replace(RECIPE, algorithm=algorithm, dtype=dtype, batch_size=batch)
    data = samples(20 if mirrored else 40, 3, 200)
    order = np.random.default_rng(1).permutation(200)
    whole = run(layered(circuit, recipe), data, order)
    learner = layered(circuit, recipe)
    for first, stop in ((0, 8), (8, 56), (56, 64), (64, 200)):
        arrays = learner.arrays()
        learner = layered(circuit, recipe)
        learner.restore(arrays)
        learner.train(data, order[first:stop], dict.fromkeys(learner.values(), 0.01))
    for name, array in learner.arrays().items():
        np.testing.assert_array_equal(array, whole[name], err_msg=name)


@WAYS
@pytest.mark.parametrize("sizes", [(4, 2 * kernels._TILE + 5, 30, 3), (4, 450, 450)], ids=["even rows", "odd rows"])
def test_threads(sizes: tuple[int, ...], way: dict[str, str]) -> None:
    """Crossbars above the kernels' threshold for threads, and an input crossbar of several tiles or of one."""
    assert sizes[1] * sizes[2] > kernels._PARALLEL
    circuit = parse(drn(sizes, seed=5))
    recipe, data = replace(RECIPE, **way), samples(2, sizes[-1])
    one = run(layered(circuit, recipe), data, np.arange(12))
    again = [run(layered(circuit, recipe, threads=3), data, np.arange(12)) for _ in range(2)]
    assert_close(again[0], one, 1e-9)
    for name, array in again[0].items():
        np.testing.assert_array_equal(array, again[1][name], err_msg=name)


WINDOW = {"g_min": 0.07, "g_max": 0.21}  # S: both ends are reached within the steps here


def assert_within(values: dict[str, np.ndarray], circuit: Circuit) -> None:
    """Trained conductances lie in WINDOW, some at either end and some between; trained currents need not."""
    trained = [x for x in circuit.crossbars if x.name in circuit.netlist.trained]
    g = np.concatenate([values[x.name].ravel() for x in trained])
    low, high = WINDOW["g_min"], WINDOW["g_max"]
    assert low <= g.min() and g.max() <= high
    assert (low, high) == pytest.approx((g.min(), g.max()), rel=1e-6)
    assert ((g.min() < g) & (g < g.max())).any()
    assert any(values[name].min() < low for name in values if name.startswith("Ib"))


@WAYS
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize("batch", [3, 4])
@pytest.mark.parametrize("sizes", [(6, 4), (12, 9, 6, 2), (8, 21, 17, 19, 3)])
def test_bounds_of_conductances(
    sizes: tuple[int, ...], batch: int, mirrored: bool, dtype: str, way: dict[str, str]
) -> None:
    """In the kernel as in its twin; of float32 they are its outermost numbers within; biases have none."""
    recipe = replace(RECIPE, batch_size=batch, dtype=dtype, nudge=0.01, **WINDOW, **way)
    circuit, outside = within_window(parse(drn(sizes, seed=5)), recipe)
    data = samples(sizes[0] // 2 if mirrored else sizes[0], sizes[-1])
    order = np.random.default_rng(1).integers(0, len(data), 5 * batch)
    found, wanted = (run(layered(circuit, recipe, kernel), data, order) for kernel in (True, False))
    assert outside > 0
    assert_within(found, circuit)
    assert_within(wanted, circuit)
    if dtype == "float64":
        assert_close(found, wanted, 1e-9)


INNER = drn((8, 21, 17, 19, 3), seed=5).replace(" RW3", "")  # a crossbar between two that learn does not


@WAYS
def test_bounds_are_of_each_crossbar(way: dict[str, str]) -> None:
    recipe = replace(RECIPE, nudge=0.01, **WINDOW, **way)
    circuit, _ = within_window(parse(INNER), recipe)
    found, wanted = (run(layered(circuit, recipe, kernel), samples(4, 3), np.arange(20)) for kernel in (True, False))
    assert_within(found, circuit)
    assert_close(found, wanted, 1e-9)


@WAYS
@pytest.mark.parametrize("kernel", [True, False])
def test_bounds_are_of_what_learns(kernel: bool, way: dict[str, str]) -> None:
    """A crossbar that does not learn keeps its conductances outside of them."""
    recipe = replace(RECIPE, nudge=0.01, **WINDOW, **way)
    circuit, _ = within_window(parse(DROPS), recipe)
    learner = layered(circuit, recipe, kernel)
    fixed = learner._crossbar(0).copy()
    assert_within(run(learner, samples(6, 3), np.arange(40)), circuit)
    np.testing.assert_array_equal(learner._crossbar(0), fixed)
    np.testing.assert_array_equal(fixed, parse(DROPS).crossbars[0].g)
    assert fixed.min() > WINDOW["g_max"]


@pytest.mark.parametrize("algorithm", ["ep", "implicit", "bp"])
@pytest.mark.parametrize("text", [DROPS, drn((12, 9, 6, 2), seed=5)], ids=["drops", "drn"])
def test_bounds_on_the_general_path(text: str, algorithm: str) -> None:
    """The step without bounds, clipped; with those of EP it goes on as on the fast path."""
    recipe = replace(RECIPE, algorithm=algorithm, nudge=0.01, **WINDOW)
    circuit, _ = within_window(parse(text), recipe)
    free = replace(recipe, g_min=0.0, g_max=np.inf)
    data = samples(6, len(circuit.netlist.outputs))
    one, bounded = (GeneralLearner(compile_problem(circuit), r, find_backend("cpu")) for r in (free, recipe))
    wanted, found = run(one, data, np.arange(4)), run(bounded, data, np.arange(4))
    for name in circuit.netlist.trained:
        is_conductance = name.startswith("RW")
        np.testing.assert_array_equal(
            found[name], np.clip(wanted[name], *recipe.window) if is_conductance else wanted[name]
        )
    found = run(bounded, data, np.arange(4, 20))
    assert_within(found, circuit)
    if algorithm == "ep":
        wanted = run(layered(circuit, recipe), data, np.arange(20))
        assert_close(found, {name: wanted[name] for name in circuit.netlist.trained}, 1e-8)


def test_bounds_on_several_threads() -> None:
    recipe = replace(RECIPE, dtype="float32", **WINDOW)
    circuit, _ = within_window(parse(drn((4, 2 * kernels._TILE + 5, 30, 3), seed=5)), recipe)
    assert_within(run(layered(circuit, recipe, threads=3), samples(2, 3), np.arange(12)), circuit)


def test_what_is_trained_begins_within_the_bounds() -> None:
    """On every path; what lay within keeps its bits, and without bounds the circuit is the same one."""
    circuit = parse(DROPS)
    g = circuit.crossbars[1].g
    for changes in ({}, {"tol": 1e-9}, {"dtype": "float32"}):
        recipe = replace(RECIPE, **WINDOW, **changes)
        start = make_learner(circuit, recipe, "cpu").values()
        low, high = recipe.window
        wanted = np.clip(g, low, high).astype(recipe.dtype).astype(float)
        np.testing.assert_array_equal(start["RW2"], wanted)
        found, outside = within_window(circuit, recipe)
        assert outside == ((g < low) | (g > high)).sum() > 0
        assert within_window(found, recipe) == (found, 0)
        np.testing.assert_array_equal(found.crossbars[0].g, circuit.crossbars[0].g)
        np.testing.assert_array_equal(found.current_sources.i, circuit.current_sources.i)
    assert within_window(circuit, RECIPE) == (circuit, 0)
    assert within_window(circuit, replace(RECIPE, g_min=WINDOW["g_min"]))[1] == (g < WINDOW["g_min"]).sum() > 0
    assert within_window(circuit, replace(RECIPE, g_max=WINDOW["g_max"]))[1] == (g > WINDOW["g_max"]).sum() > 0


def test_a_nudge_that_is_too_strong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = parse(drn((12, 5, 3), seed=5))
    smallest = circuit.crossbars[1].g.sum(axis=0).min()
    learner = layered(circuit, replace(RECIPE, nudge=float(smallest) * 1.01))
    with monkeypatch.context() as context:
        context.setattr(kernels, "make_ready", None)  # it takes half a minute at first: not even called
        with pytest.raises(LearningError, match=r"not convex: output y\[\d\] has a conductance of"):
            learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))
    with pytest.raises(LearningError, match=r"not convex: output y\[\d\] has a conductance of"):
        learner._check_convex(-float(learner._weights().a[-1].min()))  # which takes all of it
    learner = layered(circuit, replace(RECIPE, nudge=float(smallest) * 1.01, variant="positive"))
    learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))


def test_a_nudge_that_becomes_too_strong_while_learning_is_found_by_the_kernel() -> None:
    circuit = parse(drn((12, 5, 3), seed=5))
    learner = layered(circuit, RECIPE)
    learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))
    arrays = learner.arrays()
    arrays["g"][12 * 5 :] *= 1e-3
    learner.restore(arrays)
    with pytest.raises(LearningError, match=r"not convex: output y\[\d\] has a conductance of"):
        learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))


def test_convexity_is_tested_again_after_so_many_steps_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, asked = layered(parse(drn((12, 5, 3), seed=5)), RECIPE, kernel=False), []
    monkeypatch.setattr(module, "_CHECK_EVERY", 3)
    monkeypatch.setattr(learner, "_check_convex", lambda beta: asked.append((learner.steps, beta)))
    for steps in (4, 1, 3):
        learner.train(samples(6, 3), np.arange(4 * steps), dict.fromkeys(learner.values(), 0.0))
    assert asked == [(0, -0.02), (3, -0.02), (6, -0.02)]


@pytest.mark.parametrize("sizes", [(6, 4), (12, 5, 3), (12, 13, 9), (12, 9, 6, 2), (12, 4, 11, 2), (8, 21, 17, 19, 3)])
def test_convexity_is_that_of_the_whole_matrix(sizes: tuple[int, ...]) -> None:
    """Just within the nudge at which the smallest eigenvalue of all conductances is 0, and just beyond."""
    circuit = parse(drn(sizes, seed=5))
    problem = compile_problem(circuit)
    whole = conductance_matrix(problem, problem.n_free)
    outputs = find_outputs(problem).units
    inverse = np.linalg.inv(whole)[np.ix_(outputs, outputs)]
    limit = 1.0 / np.linalg.eigvalsh(inverse).max()
    for share, convex in ((0.0, True), (0.9, True), (1 - 1e-9, True), (1 + 1e-9, False), (1.5, False)):
        learner = layered(circuit, replace(RECIPE, nudge=1e-3))
        if convex:
            learner._check_convex(-share * limit)
        else:
            with pytest.raises(LearningError, match=r"nudged by -.* is not convex"):
                learner._check_convex(-share * limit)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("algorithm", ["ep", "bp"])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_numbers_that_are_not_finite_stop_the_learning(algorithm: str, kernel: bool) -> None:
    learner = layered(parse(drn((12, 5, 3), seed=5)), replace(RECIPE, algorithm=algorithm, dtype="float32"), kernel)
    rates = {name: 1e37 if name.startswith("Ib") else 0.0 for name in learner.values()}
    with pytest.raises(LearningError, match="no longer finite"):
        for _ in range(20):
            learner.train(samples(6, 3), np.arange(40), rates)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("algorithm", ["ep", "bp"])
def test_a_unit_without_conductance_is_named(algorithm: str, kernel: bool) -> None:
    circuit = parse(drn((12, 5, 3), seed=5))
    g = circuit.crossbars[0].g.copy()
    g[:, 2] = 0.0
    h = circuit.crossbars[1].g.copy()
    h[2] = 0.0
    learner = layered(circuit, replace(RECIPE, algorithm=algorithm, variant="positive"), kernel)
    values = learner.arrays()
    values["g"] = np.concatenate([g.ravel(), h.T.ravel()])
    learner.restore(values)
    with pytest.raises(LearningError, match=r"node h1\[2\] has no conductance left"):
        learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))
    with pytest.raises(LearningError, match=r"node h1\[2\] has no conductance left"):
        learner.outputs(samples(6, 3), slice(0, 4))


def test_where_a_unit_has_no_conductance_a_negative_nudge_leaves_no_minimum() -> None:
    """Also where the unit is one of those that the test of convexity eliminates."""
    learner = layered(parse(drn((12, 5, 3), seed=5)), RECIPE)
    learner._check_convex(-1e-6)
    learner._crossbar(0)[:, 2] = 0.0
    learner._crossbar(1)[2] = 0.0
    with pytest.raises(LearningError, match="is not convex"):
        learner._check_convex(-1e-6)


@pytest.mark.parametrize("path", ["layers", "general"])
@pytest.mark.parametrize("wrong", [{}, {"RW1": 0.1}, {"RW1": 0.1, "RW2": 0.1, "Ib1": 0.1, "Ib2": 0.1, "W3": 0.1}])
def test_rates_are_those_of_the_trained_elements(wrong: dict[str, float], path: str) -> None:
    """One way to give them for every learner: by name, in any case, none missing and none beyond."""
    circuit = parse(drn((6, 5, 3), seed=5))
    cpu = find_backend("cpu")
    learner = layered(circuit, RECIPE) if path == "layers" else GeneralLearner(compile_problem(circuit), RECIPE, cpu)
    before, count = learner.values(), RECIPE.batch_size
    with pytest.raises(SettingsError, match="learning rates are one for each of RW1"):
        learner.train(samples(6, 3), np.arange(count), wrong)
    rates = {name.swapcase(): 0.01 for name in circuit.netlist.trained}
    learner.train(samples(6, 3), np.arange(count), rates)
    assert all((after != before[name]).any() for name, after in learner.values().items())


@pytest.mark.parametrize("path", ["layers", "general"])
def test_what_a_checkpoint_takes_and_gives_are_copies(path: str) -> None:
    """Steps change neither; and steps from what was given back are the same ones again."""
    circuit, order = parse(drn((6, 5, 3), seed=5)), np.arange(4)
    general = GeneralLearner(compile_problem(circuit), RECIPE, find_backend("reference"))
    learner = layered(circuit, RECIPE, kernel=False) if path == "layers" else general
    run(learner, samples(3, 3), order)
    arrays = learner.arrays()
    kept = {name: array.copy() for name, array in arrays.items()}
    wanted = run(learner, samples(3, 3), order)
    learner.restore(arrays)
    found = run(learner, samples(3, 3), order)
    for name, array in kept.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("path", ["layers", "general"])
def test_outputs_are_of_the_rows_that_are_asked_for(path: str) -> None:
    circuit, data = parse(drn((6, 5, 3), seed=5)), samples(3, 3)
    general = GeneralLearner(compile_problem(circuit), RECIPE, find_backend("reference"))
    learner = layered(circuit, RECIPE, kernel=False) if path == "layers" else general
    every = learner.outputs(data, slice(0, 40))
    assert every.shape == (40, 3)
    learner.at_once = 2
    np.testing.assert_allclose(learner.outputs(data, slice(3, 8)), every[3:8], rtol=1e-12)


def test_a_gain_beyond_the_dtype_is_refused() -> None:
    learner = layered(parse(drn((12, 5, 3), seed=5)), replace(RECIPE, dtype="float32", gain=1e300))
    with pytest.raises(SettingsError, match=r"gain 1e\+300 is too large for float32"):
        learner.prepare(samples(6, 3))


def test_rates_beyond_the_dtype_are_refused() -> None:
    learner = layered(parse(drn((12, 5, 3), seed=5)), replace(RECIPE, dtype="float32"))
    with pytest.raises(SettingsError, match=r"learning rate 1e\+300 is too large for float32"):
        learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 1e300))


def test_data_that_does_not_fit() -> None:
    learner = layered(parse(drn((12, 5, 3), seed=5)), RECIPE)
    with pytest.raises(SettingsError, match="7 features per sample"):
        learner.train(samples(7, 3), np.arange(4), {})
    with pytest.raises(SettingsError, match="4 targets per sample"):
        learner.train(samples(6, 4), np.arange(4), {})
    learner.train(samples(6, 3), np.arange(4), dict.fromkeys(learner.values(), 0.0))
    with pytest.raises(SettingsError, match="4 targets per sample"):  # also of data that come later
        learner.train(samples(6, 4), np.arange(4), dict.fromkeys(learner.values(), 0.0))


def test_checkpoints_of_another_network_are_refused() -> None:
    one, other = layered(parse(drn((12, 5, 3), seed=5)), RECIPE), layered(parse(drn((12, 6, 3), seed=5)), RECIPE)
    with pytest.raises(SettingsError, match="array 'g' is float64"):
        other.restore(one.arrays())
    with pytest.raises(SettingsError, match="no array 'steps'"):
        other.restore({})


# -- which netlists are layered ----------------------------------------------------------------------------------------


def layers_of(text: str) -> Layers | None:
    return find_layers(compile_problem(parse(text)))


def test_layers_of_a_drn() -> None:
    found = layers_of(drn((8, 5, 6, 3)))
    assert found is not None
    assert (found.sizes, found.crossbars, found.biases) == ((8, 5, 6, 3), ("RW1", "RW2", "RW3"), ("Ib1", "Ib2", "Ib3"))
    np.testing.assert_array_equal(found.lo[0], [0, 0, -np.inf, -np.inf, -np.inf])
    np.testing.assert_array_equal(found.hi[0], [np.inf, np.inf, 0, 0, 0])
    assert np.isinf(found.lo[2]).all()


def test_layers_with_other_supplies() -> None:
    found = layers_of(DROPS)
    assert found is not None
    assert found.biases == (None, "Ib")
    np.testing.assert_allclose(found.lo[0][:4], -0.1)
    np.testing.assert_allclose(found.hi[0][3:], 0.3)
    assert (found.fixed[0] != 0).all() and (found.fixed[1] == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        (".input Vx", "Rleak[0:2] y[0:2] 0 1k\n.input Vx"),  # a resistor besides
        ("ron=0 vfwd=0.3", "ron=1 vfwd=0.3"),  # diodes that are not perfect
        ("Dlow[0:3] lift", "Dlow[0:3] x[0:3]"),  # bounds that the inputs move
        ("h[3:7] 0 drop", "h[3:7] x[1:5] drop"),
        (".input Vx", "Vo o y[0] 0.1\nDo o 0 drop\n.input Vx"),  # a node that moves with an output, and is bounded
        (".input Vx", "RW3[0:7][0:2] h[0:7] y[0:2] g=1m\n.input Vx"),  # a crossbar beside another
        (".input Vx", "RW3[0:2][0:7] y[0:2] h[0:7] g=1m\n.input Vx"),  # or back
        (".input Vx", "Ig[0:2] 0 y[0:2] 0\n.input Vx Ig"),  # inputs that are currents too
        ("Vx[0:5] x[0:5] 0 0", "Vx[0:5] x[0:5] lift 0"),  # inputs on top of a supply
        (".train RW2 Ib", "Vq q 0 0\n.train RW2 Ib Vq"),  # a voltage source that learns
        (".train RW2 Ib", "Ic[0:2] 0 y[0:2] 0.01\n.train RW2 Ib Ic"),  # two arrays of sources for a layer
        (".output y[0:2]", ".output y[2:0]"),  # another order
        (".output y[0:2]", ".output y[0:1]"),
        ("Ib[0:2] 0 y[0:2]", "Ib[0:2] y[0:2] 0"),  # currents out of the layer
        ("Ib[0:2] 0 y[0:2]", "Ib[0:2] h[0:2] y[0:2]"),  # or from another one
        ("RW2[0:7][0:2] h[0:7]", "RW2[0:7][0:2] h[7:0]"),
    ],
)
def test_netlists_that_take_the_general_path(change: tuple[str, str]) -> None:
    old, new = change
    assert old in DROPS
    text = DROPS.replace(old, new)
    assert layers_of(text) is None
    assert isinstance(make_learner(parse(text), RECIPE, "cpu", 1), GeneralLearner)


def test_a_perfect_diode_between_units_makes_no_layers() -> None:
    assert layers_of(DROPS.replace(".input Vx", "Dlink h[0] h[1] drop\n.input Vx")) is None
