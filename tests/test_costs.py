"""Costs and gradients for loops of one's own (training/costs.py): against finite differences of exact solutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.branches import Branches
from circuitsim.methods import bcd
from training import gradient
from training.costs import cost_gradient
from training.learner import LearningError

NET = """every kind that learns, a batch of inputs, a diode between free nodes and a Shockley diode
V1 a 0 0
V2 b 0 0
Vb c 0 0.5
RX[0:2][0:1] n[0:2] y[0:1] g=1m
Ra a n[0] 1k
Rb b n[1] 2k
Rc c n[2] 1.5k
Rg[0:1] y[0:1] 0 {1k}
Rt n[0] n[2] 3k
Ib 0 y[0] 0.2m
D1 n[1] n[2] ideal
D2 y[1] 0 shockley
.model ideal D(ron=0 vfwd=0.1)
.model shockley D(is=1u)
.input V1 V2
.output y[0:1]
.train RX Rt Ib Vb
"""
INPUTS = {"V1": np.array([[1.0], [2.0], [-1.0]]), "V2": np.array([[2.0], [-1.0], [3.0]])}
TARGETS = np.array([[0.3, 0.1], [0.0, 0.2], [0.5, -0.1]])


def problem() -> cs.Problem:
    """With values that are no round numbers: nothing is at a kink."""
    rng = np.random.default_rng(4)
    conductances = rng.uniform(0.5e-3, 2e-3, (3, 2))
    return cs.compile_problem(cs.parse(NET)).with_values({"RX": conductances, **INPUTS})


def cost(at: cs.Problem) -> float:
    solution = cs.solve(at)
    y = np.stack([solution.voltage("y[0]"), solution.voltage("y[1]")], axis=1)
    return 0.5 * float(((y - TARGETS) ** 2).sum(axis=1).mean())


def difference(
    at: cs.Problem, name: str, value: np.ndarray, k: int, cost: Callable[[cs.Problem], float] = cost
) -> float:
    """The central difference of a cost by one of the values."""
    step = 1e-5 * max(abs(value.flat[k]), 1e-4)
    ends = []
    for sign in (1.0, -1.0):
        moved = value.copy()
        moved.flat[k] += sign * step
        ends.append(cost(at.with_values({name: moved})))
    return (ends[0] - ends[1]) / (2 * step)


def test_the_gradient_is_that_of_finite_differences() -> None:
    at = problem()
    found = cost_gradient(at, TARGETS)
    assert found.cost == pytest.approx(cost(at), rel=1e-9)
    assert list(found.gradient) == ["RX", "Rt", "Ib", "Vb"]
    assert [found.values[name].tolist() for name in ("Rt", "Ib", "Vb")] == [[1 / 3e3], [0.2e-3], [0.5]]
    for name, value in found.values.items():
        assert found.gradient[name].shape == value.shape
        for k in range(value.size):
            assert found.gradient[name].flat[k] == pytest.approx(difference(at, name, value, k), rel=2e-5, abs=1e-7)


def soft_cost(y: np.ndarray) -> tuple[float, np.ndarray]:
    """Cross-entropy of the softmax of (10/V) y: the first output for rows 0 and 2, the second for row 1."""
    odds = np.exp(10 * y)
    p, wanted = odds / odds.sum(axis=1, keepdims=True), np.array([[1, 0], [0, 1], [1, 0]])
    return -float(np.log((p * wanted).sum(axis=1)).sum()), 10 * (p - wanted)


def soft_cost_at(at: cs.Problem) -> float:
    solution = cs.solve(at, cs.Settings(tol=1e-13))
    return soft_cost(np.stack([solution.voltage("y[0]"), solution.voltage("y[1]")], axis=1))[0]


def test_another_cost_and_what_gives_the_inputs_learns_too() -> None:
    at = problem()
    found = cost_gradient(at, cost=soft_cost, inputs=True, tol=1e-13)
    assert found.cost == pytest.approx(soft_cost_at(at), rel=1e-9)
    assert list(found.gradient) == list(found.values) == ["RX", "Rt", "Ib", "Vb"]
    for name, value in found.values.items():
        assert found.gradient[name].shape == value.shape
        for k in range(value.size):
            slope = difference(at, name, value, k, soft_cost_at)
            assert found.gradient[name].flat[k] == pytest.approx(slope, rel=2e-5, abs=1e-7)
    assert list(found.inputs) == ["V1", "V2"]
    for name, value in INPUTS.items():
        assert found.inputs[name].shape == (3, 1)
        for k in range(3):
            slope = difference(at, name, value, k, soft_cost_at)
            assert found.inputs[name].flat[k] == pytest.approx(slope, rel=2e-5, abs=1e-7)


def test_inputs_of_targets_and_by_equilibrium_propagation() -> None:
    exact = cost_gradient(problem(), TARGETS, inputs=True).inputs
    ep = cost_gradient(problem(), TARGETS, algorithm="ep", nudge=1e-6, inputs=True).inputs
    for name, value in INPUTS.items():
        assert np.abs(exact[name]).min() > 1e-3
        np.testing.assert_allclose(ep[name], exact[name], rtol=1e-4)
        for k in range(3):
            assert exact[name].flat[k] == pytest.approx(difference(problem(), name, value, k), rel=2e-5)
    assert cost_gradient(problem(), TARGETS).inputs == {}


def test_current_sources_as_inputs() -> None:
    circuit = cs.parse(
        "t\nIa[0:1] 0 y[0:1] 1m\nR1 y[0] 0 1k\nR2 y[1] 0 2k\nR3 y[0] y[1] 1k\n.input Ia\n.output y[1]\n.train R3"
    )
    at = cs.compile_problem(circuit).with_values({"Ia": [[1e-3, 2e-3], [0.0, -1e-3]]})
    found = cost_gradient(at, cost=lambda y: (float(y.sum()), np.ones_like(y)), inputs=True)
    np.testing.assert_allclose(found.inputs["Ia"], [[500.0, 1000.0]] * 2)  # transfer resistances, ohm


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (lambda y: float(y.sum()), "a cost must return C, and dC/dy of shape .3, 2."),
        (lambda y: (1.0, y[0]), "dC/dy of shape .3, 2., found shape .2,."),
        (lambda y: (np.nan, y), "a cost must return finite numbers"),
        (lambda y: (1.0, y * np.inf), "a cost must return finite numbers"),
        (lambda y: ("x", y), "a cost must return C"),
        (lambda y: (10**400, y), "a cost must return C"),
        (lambda y: (1.0, np.ma.masked_array(y, y == y)), "a cost must return C, and dC/dy .*: some slopes are masked"),
        (lambda y: (1.0, y + 1j), "found numbers of type complex128"),
        (3, "cost must be a function of the outputs, found 3"),
    ],
)
def test_what_no_cost_returns(cost: Callable, words: str) -> None:
    with pytest.raises(cs.SettingsError, match=words):
        cost_gradient(problem(), cost=cost)


def test_a_cost_s_own_errors_stay_what_they_are() -> None:
    with pytest.raises(ZeroDivisionError):
        cost_gradient(problem(), cost=lambda y: (1 / 0, y))


def test_a_cost_of_one_s_own_stands_for_targets() -> None:
    for how in ({"targets": 0.0}, {"algorithm": "ep"}):
        with pytest.raises(cs.SettingsError, match="a cost of your own replaces targets"):
            cost_gradient(problem(), cost=soft_cost, **how)
    with pytest.raises(cs.SettingsError, match="a function goes to cost="):
        cost_gradient(problem(), soft_cost)
    with pytest.raises(cs.SettingsError, match="or cost= a function of the outputs, found None"):
        cost_gradient(problem())


def test_a_circuit_in_which_nothing_learns_is_a_layer_too() -> None:
    """Sources on top of each other, an output that moves with them, and a loop of parallel sources."""
    deck = (
        "t\nVa a 0 0\nVb b a 0\nVc c b 0\nVp c b 0\nR1 c y 1k\nR2 y 0 1k\nR3 b y 2k\n"
        "Iq y p 1m\nVq q p 0\nRq q 0 1k\n.input Va Vb Iq Vq\n.output y p q"
    )
    at, rng = cs.compile_problem(cs.parse(deck)), np.random.default_rng(3)
    given = {"Va": rng.normal(size=(4, 1)), "Vb": rng.normal(size=(4, 1)), "Iq": 1e-3 * rng.normal(size=(4, 1))}
    given["Vq"] = rng.normal(size=(4, 1))
    weights = rng.normal(size=(4, 3))

    def weighed(y: np.ndarray) -> tuple[float, np.ndarray]:
        return float((weights * y**2).sum()), 2 * weights * y

    def cost_at(at: cs.Problem) -> float:
        solution = cs.solve(at)
        return weighed(np.stack([solution.voltage(n) for n in "ypq"], axis=1))[0]

    at = at.with_values(given)
    found = cost_gradient(at, cost=weighed, inputs=True)
    assert found.gradient == {} and list(found.inputs) == list(given)
    for name, value in given.items():
        for k in range(4):
            slope = difference(at, name, value, k, cost_at)
            assert found.inputs[name].flat[k] == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("D1 a 0 ideal\n.model ideal D(ron=0)", "V1: ideal diode D1 hangs on this voltage source, .* out of .input"),
        ("E1 z 0 y 0 2\nR9 z 0 1k", "V1: no gradient reaches .* beside controlled sources; leave it out of .input"),
    ],
)
def test_inputs_that_no_gradient_reaches(card: str, words: str) -> None:
    deck = f"t\nV1 a 0 -1\nR1 a y 1k\nR2 y 0 1k\n{card}\n.input V1\n.output y\n.train R1"
    assert cost_gradient(cs.parse(deck), 0.0).gradient["R1"].size == 1
    with pytest.raises(cs.SettingsError, match=words):
        cost_gradient(cs.parse(deck), 0.0, inputs=True)
    with pytest.raises(cs.SettingsError, match=r"has no inputs; add `\.input`"):
        cost_gradient(cs.parse(deck.replace(".input V1\n", "")), 0.0, inputs=True)


@pytest.mark.parametrize(("variant", "rel"), [("centred", 1e-4), ("positive", 0.02), ("negative", 0.02)])
def test_equilibrium_propagation_comes_to_the_same(variant: str, rel: float) -> None:
    exact = cost_gradient(problem(), TARGETS)
    found = cost_gradient(problem(), TARGETS, algorithm="ep", variant=variant, nudge=1e-6)
    np.testing.assert_allclose(found.outputs, exact.outputs, rtol=1e-8)
    for name, slope in exact.gradient.items():
        np.testing.assert_allclose(found.gradient[name], slope, rtol=rel, atol=rel * np.abs(slope).max())


def test_circuits_come_as_they_are_and_slow_ones_by_newton() -> None:
    """A ladder of which sweeps would take thousands; and a target that broadcasts."""
    rungs = "".join(f"R{k} n{k} n{k + 1} 1\nRS{k} n{k + 1} 0 1meg\n" for k in range(200))
    text = f"ladder\nV1 n0 0 1\n{rungs}.output n200\n.train R0\n"
    found = cost_gradient(cs.parse(text), 0.5)
    by_difference = [
        0.5 * (cs.solve(cs.parse(text.replace("R0 n0 n1 1\n", f"R0 n0 n1 {r}\n"))).voltage("n200")[0] - 0.5) ** 2
        for r in (1 / 1.001, 1 / 0.999)
    ]
    assert found.gradient["R0"][0] == pytest.approx((by_difference[0] - by_difference[1]) / 2e-3, rel=1e-4)


def test_other_spellings() -> None:
    divider = cs.parse("t\nV1 a 0 4\nR1 a y 1k\nR2 y 0 1k\n.output y\n.train R1 R2")
    for name, more in (("implicit", {"algorithm": "adjoint"}), ("ep", {"variant": "centered"})):
        given: dict[str, Any] = {"algorithm": name, "nudge": 1e-6}
        assert cost_gradient(divider, 1.0, **given).gradient == cost_gradient(divider, 1.0, **given | more).gradient


@pytest.mark.parametrize("algorithm", ["implicit", "ep"])
def test_wires_that_make_sweeps_slow_are_known_before_them(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense layers with wires between: newton, without a sweep, gives the gradient that sweeps give."""
    text = (
        "layers\n.options seed=1\n.model s D(is=1e-14)\nVx[0:3] x[0:3] 0 {aunif(0, 2)}\n"
        "R1[0:3][0:5] x[0:3] h[0:5] g={aunif(1m, 0.9m)}\nRz[0:5] h[0:5] a[0:5] 10\nD1[0:5] 0 h[0:5] s\n"
        "R2[0:5][0:1] a[0:5] y[0:1] g={aunif(1m, 0.9m)}\nRy[0:1] y[0:1] 0 1k\n.output y[0:1]\n.train R1"
    )
    found = []
    for in_vain in (bcd.is_in_vain, lambda *_: False):
        monkeypatch.setattr(bcd, "is_in_vain", in_vain)
        with monkeypatch.context() as patch:
            if not found:
                patch.setattr(bcd, "solve_tile", None)
            else:
                patch.setattr(bcd, "_MOST_AHEAD_CURVED", 100_000)
            found.append(cost_gradient(cs.parse(text), 0.1, algorithm=algorithm, nudge=1e-6).gradient["R1"])
    by_newton, by_sweeps = found
    assert by_newton == pytest.approx(by_sweeps, rel=1e-4, abs=1e-9)
    assert np.abs(by_newton).max() > 1e-3


def test_sweeps_end_close_to_rest() -> None:
    found = cost_gradient(cs.parse("t\nV1 a 0 1\nR1 a y 1k\nR2 y z 200\nR3 z 0 1k\n.output y\n.train R1"), 0.0)
    assert found.outputs.item() == pytest.approx(12 / 22, rel=1e-7)


@pytest.mark.parametrize(
    ("targets", "how", "words"),
    [
        ([[1.0, 2.0, 3.0]], {}, "targets must be numbers of shape"),
        ([[np.nan, 0.0]], {}, "targets must be finite numbers"),
        ([[0.0, -np.inf]], {}, "targets must be finite numbers"),
        ("x", {}, "targets must be numbers of shape"),
        (0.0, {"algorithm": "bp"}, "unknown algorithm 'bp': choose implicit, ep"),
        (np.zeros((2, 5)), {}, r"targets must be numbers of shape \(3, 2\) .*found shape \(2, 5\)"),
        (None, {}, "targets must be numbers .*found None"),
        (["1", "2"], {}, r"targets must be numbers .*found \['1', '2'\]"),
        ([[1.0], [1.0, 2.0]], {}, r"targets must be numbers .*found \[\[1.0\], \[1.0, 2.0\]\]"),
        (np.ma.masked_array(np.zeros((3, 2)), np.eye(3, 2)), {}, "targets must be numbers .*found masked_array"),
        (0.0, {"algorithm": "ep"}, "ep needs a nudge"),
        (0.0, {"algorithm": "ep", "variant": "both", "nudge": 1e-6}, "unknown variant 'both'"),
        (0.0, {"algorithm": "ep", "nudge": -1.0}, "nudge must be a positive number"),
        (0.0, {"algorithm": "ep", "nudge": "x"}, "nudge must be a number, found 'x'"),
        (0.0, {"tol": 2.0}, "tol must lie between 0 and 1"),
        (0.0, {"tol": None}, "tol must be a number, found None"),
    ],
)
def test_what_is_wrong_is_said(targets: object, how: dict, words: str) -> None:
    with pytest.raises(cs.SettingsError, match=words):
        cost_gradient(problem(), targets, **how)


def test_a_nudge_that_leaves_no_convex_problem_is_refused() -> None:
    with pytest.raises(LearningError, match="not convex"):
        cost_gradient(problem(), TARGETS, algorithm="ep", nudge=1.0)


@pytest.mark.parametrize("ohms", [1, 1e-3])  # sweeps, and newton
@pytest.mark.parametrize(("nudge", "fits"), [(0.9e-3, True), (1.1e-3, False), (0.5, False)])
def test_a_nudge_may_leave_each_output_a_conductance_and_be_too_strong(nudge: float, fits: bool, ohms: float) -> None:
    """A branch joins both outputs well, and 2 mS hold them: less two nudges, that must stay positive."""
    circuit = cs.parse(f"t\nV1 a 0 1\nR1 a y 1k\nR2 y z {ohms}\nR3 z 0 1k\n.output y z\n.train R1")
    how = {"algorithm": "ep", "variant": "negative", "nudge": nudge}
    if fits:  # half a volt, and nudged five volts
        found = cost_gradient(circuit, 0.0, **how)
        assert found.gradient["R1"].item() == pytest.approx((0.5 * 0.5**2 - 0.5 * 4**2) / nudge, rel=1e-3)
        divided = [[(1000 + ohms) / (2000 + ohms), 1000 / (2000 + ohms)]]
        np.testing.assert_allclose(found.outputs, divided, rtol=1e-5)
        return
    with pytest.raises(LearningError, match="is not convex; choose a smaller nudge"):
        cost_gradient(circuit, 0.0, **how)


def test_numbers_of_any_type_are_targets_and_slopes() -> None:
    at = problem()
    wanted = cost_gradient(at, [1.0, 0.0])
    for targets in (np.array([True, False]), np.array([1, 0], np.uint8), [1, 0]):
        assert cost_gradient(at, targets).cost == wanted.cost
    slopes = cost_gradient(at, cost=lambda y: (wanted.cost, (y - [1.0, 0.0]).astype(object) / 3)).gradient
    np.testing.assert_allclose(slopes["RX"], wanted.gradient["RX"], rtol=1e-12)


def test_a_cost_may_write_to_the_outputs_that_it_is_given() -> None:
    def halve(y: np.ndarray) -> tuple[float, np.ndarray]:
        y *= 0.5
        return float(y.sum()), np.full_like(y, 0.5)

    at = problem()
    np.testing.assert_array_equal(cost_gradient(at, cost=halve).outputs, cost_gradient(at, TARGETS).outputs)


def test_outputs_that_diodes_alone_hold() -> None:
    text = "t\nV1 a 0 1\nD1 a y d\nD2 y 0 d\n.model d D\n.output y\n.train V1\n"
    exact = cost_gradient(cs.parse(text), 0.0).gradient["V1"][0]
    assert exact == pytest.approx(0.25, rel=1e-6)
    found = cost_gradient(cs.parse(text), 0.0, algorithm="ep", variant="positive", nudge=1e-12)
    assert found.gradient["V1"][0] == pytest.approx(exact, rel=1e-3)


def test_a_part_that_diodes_alone_hold_leaves_a_doubt() -> None:
    """Beside it a divider: dC/dg = 1/2 V x 1/2 V / 2 mS."""
    text = "t\nV1 a 0 1\nD1 a m d\nD2 m 0 d\nR1 a y 1k\nR2 y 0 1k\n.model d D\n.output y\n.train R1\n"
    how = {"algorithm": "ep", "nudge": 1e-8}
    assert cost_gradient(cs.parse(text), 0.0, **how, variant="positive").gradient["R1"][0] == pytest.approx(125.0, 1e-3)
    with pytest.raises(LearningError, match="may leave no convex problem: diodes alone hold a part of the circuit"):
        cost_gradient(cs.parse(text), 0.0, **how)


def test_what_is_found_is_the_caller_s_own() -> None:
    """Steps in place leave the problem as it is."""
    at = problem()
    before = cost_gradient(at, TARGETS)
    for values in before.values.values():
        values *= 0.5
    np.testing.assert_array_equal(cost_gradient(at, TARGETS).outputs, before.outputs)


AMPLIFIED = "t\nV1 a 0 1\nR1 a y 1k\nR2 y 0 2k\nE1 z 0 y 0 3\nR3 z w 1k\nR4 w y 5k\n.output w y\n.train R1"
IN_CELLS = (
    "t\nV1 a 0 1\n.subckt cell p q\nR1 p q 1k\nRz[0:1] p q g=0\n.ends\nX1 a y cell\nX2 y 0 cell\n.output y\n"
    ".train R.X1.R1 R.X2.Rz"
)


def test_controlled_sources_and_elements_of_subcircuits() -> None:
    circuit = cs.parse(AMPLIFIED)
    slopes = cost_gradient(circuit, [1.0, 0.2]).gradient
    ends = [cost_gradient(cs.parse(AMPLIFIED.replace("a y 1k", f"a y {r}")), [1.0, 0.2]).cost for r in (999.0, 1001.0)]
    assert slopes["R1"][0] == pytest.approx((ends[0] - ends[1]) / (1 / 999 - 1 / 1001), rel=1e-5)
    with pytest.raises(cs.SettingsError, match="with these controlled sources there is no energy"):
        cost_gradient(circuit, [1.0, 0.2], algorithm="ep", nudge=1e-6)
    cells = cs.compile_problem(cs.parse(IN_CELLS))
    found = cost_gradient(cells, 0.25)
    assert {name: g.shape for name, g in found.gradient.items()} == {"R.X1.R1": (1,), "R.X2.Rz": (2,)}
    costs = [cost_gradient(cells.with_values({"R.X2.Rz": [g, 0.0]}), 0.25).cost for g in (0.0, 1e-9)]
    assert found.gradient["R.X2.Rz"][0] == pytest.approx((costs[1] - costs[0]) / 1e-9, rel=1e-4)


DIFFERENTIAL = NET.replace(".output y[0:1]", ".output v(y[0],n[1]) v(c, y[1]) v(n[2],n[0])")


def difference_cost(at: cs.Problem) -> float:
    solution = cs.solve(at, cs.Settings(tol=1e-13))
    pairs = ("y[0]", "n[1]"), ("c", "y[1]"), ("n[2]", "n[0]")
    y = np.stack([solution.voltage(a) - solution.voltage(b) for a, b in pairs], axis=1)
    return 0.5 * float(((y - DIFFERENCES) ** 2).sum(axis=1).mean())


DIFFERENCES = np.array([[0.3, 0.1, -0.2], [0.0, 0.2, 0.4], [0.5, -0.1, 0.0]])


def test_outputs_that_are_differences_of_voltages() -> None:
    """Of two that move, of one that a trained source holds, of the two ends of a trained resistor."""
    at = cs.compile_problem(cs.parse(DIFFERENTIAL)).with_values(INPUTS)
    exact = cost_gradient(at, DIFFERENCES, inputs=True, tol=1e-13)
    assert exact.cost == pytest.approx(difference_cost(at), rel=1e-9)
    assert exact.outputs.shape == (3, 3)
    for values, slopes in ((exact.values, exact.gradient), (INPUTS, exact.inputs)):
        for name, value in values.items():
            for k in range(value.size):
                slope = difference(at, name, value, k, difference_cost)
                assert slopes[name].flat[k] == pytest.approx(slope, rel=2e-5, abs=1e-7)
    for variant in ("centred", "positive", "negative"):
        ep = cost_gradient(at, DIFFERENCES, algorithm="ep", variant=variant, nudge=1e-8, inputs=True, tol=1e-13)
        for name, slope in (exact.gradient | exact.inputs).items():
            found = (ep.gradient | ep.inputs)[name]
            np.testing.assert_allclose(found, slope, rtol=0, atol=1e-4 * np.abs(slope).max())


def test_a_nudge_between_two_nodes_is_a_conductance_between_them() -> None:
    """A bridge whose arms conduct 1 mS: between its middle nodes 1 mS, so a nudge of -0.9 mS is convex, of -1.1 not.

    Each of the nodes alone would allow 2 mS.
    """
    bridge = cs.parse("t\nV1 a 0 1\nR1 a p 1k\nR2 p 0 1k\nR3 a n 1k\nR4 n 0 1k\n.output v(p,n)\n.train R1 R2")
    found = cost_gradient(bridge, 0.1, algorithm="ep", variant="negative", nudge=0.9e-3).gradient["R1"].item()
    # nudged: i = beta (0.1 - v) flows into p, out of n, and meets 1 kohm: v = 1k i, so v = 0.1 (-0.9) / (1 - 0.9)
    p = 0.5 - 0.45
    assert found == pytest.approx((0.5 * 0.5**2 - 0.5 * (1 - p) ** 2) / 0.9e-3, rel=1e-6)
    with pytest.raises(LearningError, match=r"nudged by -0.0011 S is not convex"):
        cost_gradient(bridge, 0.1, algorithm="ep", variant="negative", nudge=1.1e-3)
    with pytest.raises(LearningError, match=r"not convex: output n has a conductance of 0.002 S in all"):
        cost_gradient(
            cs.parse("t\nV1 a 0 1\nR1 a p 500\nR2 p 0 500\nR3 a n 1k\nR4 n 0 1k\n.output v(p,n)\n.train R1"),
            0.1, algorithm="ep", variant="negative", nudge=2.1e-3,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("R1 b 0 1k\n.output v(a,c)\nV2 c 0 1", r"output v\(a,c\): sources hold both, or join them"),
        ("R1 b 0 1k\n.output v(d,b)\nV2 d b 1", r"output v\(d,b\): sources hold both, or join them"),
        ("R1 b 0 1k\n.output v(b,b)", r"output v\(b,b\): sources hold both, or join them"),
        ("R1 b 0 1k\nR2 d e 1k\n.output v(b,e)", r"output v\(b,e\): nothing joins it to the other"),
        ("R1 b 0 1k\nR2 d e 1k\nR3 f g 1k\n.output v(d,f)", r"output v\(d,f\): nothing joins it to the other"),
        ("R1 b 0 1k\nR2 d e 1k\n.output e", "output node e: nothing joins it to ground"),
    ],
)
def test_differences_that_nothing_teaches(text: str, words: str) -> None:
    with pytest.raises(cs.SettingsError, match=words):
        cost_gradient(cs.parse(f"t\nV1 a 0 1\nR0 a b 1k\n{text}\n.train R1"), 0.0)


def test_a_difference_within_a_part_that_floats() -> None:
    floating = cs.parse("t\nV1 a b 1\nR1 a y 1k\nR2 y b 1k\nR0 z 0 1\n.output v(y,b) v(a,y)\n.train R1")
    for method in ({"algorithm": "implicit"}, {"algorithm": "ep", "nudge": 1e-8}):
        found = cost_gradient(floating, [0.3, 0.5], tol=1e-12, **method)
        np.testing.assert_allclose(found.outputs, [[0.5, 0.5]])
        assert found.gradient["R1"].item() == pytest.approx(0.2 * 0.5 / 2e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("R1 a 0 1k\nC1 z 0 1u\n.output z\n.train R1", "output node z: nothing joins it to ground"),
        ("R1 y 0 1k\n.output 0\n.train R1", "output node 0: it is ground"),
        ("R1 a 0 1k\n.output a\n.train R1", "output node a: it is held by a voltage source"),
    ],
)
def test_outputs_that_nothing_teaches(text: str, words: str) -> None:
    with pytest.raises(cs.SettingsError, match=words):
        cost_gradient(cs.parse(f"t\nV1 a 0 1\nR0 a b 1k\n{text}"), 0.0)


def test_a_source_that_learns_has_one_value() -> None:
    at = cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 a y 1k\nR2 y 0 1k\n.output y\n.train V1"))
    with pytest.raises(cs.SettingsError, match="V1 learns, and has a batch of values"):
        cost_gradient(at.with_values({"V1": [[1.0], [2.0]]}), 0.0)
    two = cs.compile_problem(cs.parse("t\nIa[0:1] 0 y 1m\nR2 y 0 1k\n.output y\n.train Ia"))
    with pytest.raises(cs.SettingsError, match="Ia learns, and has a batch of values"):
        cost_gradient(two.with_values({"Ia": [[1e-3, 1e-3], [1e-3, 2e-3]]}), 0.0)  # of one of the two


def test_an_open_conductance_to_what_nothing_holds_has_no_gradient() -> None:
    """However much it conducts, nothing flows; but between nodes of what floats, and to ground beside it, it counts."""
    deck = "t\nV1 a 0 1\nR1 a y 1k\nR2 y 0 1k\nR5 y r g={}\nR6 r s 1k\nR7 y 0 g=0\nRW[0:1][0:1] x[0:1] h[0:1] g=0\n"
    more = "Rx[0:1] y x[0:1] 1k\nRh h[0] h[1] 1k\n.output y\n.train R5 RW R7\n"
    for method in ({"algorithm": "implicit"}, {"algorithm": "ep", "nudge": 1e-5}):
        for g in (0, 1e-3):
            gradients = cost_gradient(cs.parse(deck.format(g) + more), 0.3, **method).gradient
            assert gradients["R5"].item() == pytest.approx(0.0, abs=1e-9)
            assert np.abs(gradients["RW"]).max() == 0.0
            assert gradients["R7"].item() == pytest.approx(-0.2 * 0.5 / 2e-3, rel=1e-3)


def ladder(n: int, one_by_one: bool) -> cs.Circuit:
    """Rungs, sources and sections, n of each, and a crossbar between what else learns."""
    deck = f"t\nV1 a[0] 0 0\nRa[1:{n}] a[0:{n - 1}] a[1:{n}] 1k\nRb[1:{n}] a[1:{n}] 0 {{unif(2k, 0.5)}}\n"
    deck += f"Ib[1:{n}] 0 a[1:{n}] 1u\nVc[0:1] c[0:1] 0 0.3\nRW[0:1][1:{n}] c[0:1] a[1:{n}] g=1m\n.input V1\n"
    names = "Rb", "Ib", "RW", "Ra", "Vc"
    members = {"Ra": range(1, n + 1), "Rb": range(1, n + 1), "Ib": range(1, n + 1), "Vc": range(2)}
    each = [f"{name}[{k}]" for name in names if name != "RW" for k in members[name]]
    each[1::2] = each[1::2][::-1]  # of all kinds by turns
    trained = [*each[:3], "RW", *each[3:]] if one_by_one else names
    return cs.parse(deck + f".output a[{n}]\n.train {' '.join(trained)}\n")


@pytest.mark.parametrize("batch", [1, 13])
def test_elements_that_are_named_one_by_one_have_the_gradients_of_arrays(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same bits, also where they are computed some at a time."""
    n, volts = 7, {"V1": np.linspace(-1, 1, batch)}
    whole = cost_gradient(ladder(n, False).with_values(volts), 0.1)
    monkeypatch.setattr(gradient, "_AT_ONCE", 5 * batch)
    circuit = ladder(n, True)
    single = cost_gradient(circuit.with_values(volts), 0.1)
    for found, wanted in ((single.values, whole.values), (single.gradient, whole.gradient)):
        assert tuple(found) == circuit.netlist.trained
        for name, value in found.items():
            array, _, k = name.rstrip("]").partition("[")
            expected = wanted[array] if not k else wanted[array][[int(k) - (array != "Vc")]]
            np.testing.assert_array_equal(value, expected, err_msg=name, strict=True)


def test_all_trained_elements_are_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The branches are looked through for each kind, not for each element; so they are for new values."""
    looks, of = list[int](), Branches.of

    def counted(self: Branches, *rows: Any) -> Any:
        looks.append(len(self))
        return of(self, *rows)

    monkeypatch.setattr(Branches, "of", counted)
    found = []
    for n in (5, 20):
        problem = cs.compile_problem(ladder(n, True))
        looks.clear()
        gradient.trained_elements(problem)
        problem.with_values(dict.fromkeys(problem.circuit.netlist.trained, 1.0))
        found.append(len(looks))
    assert found[0] == found[1] > 0


def test_the_element_is_named_that_has_a_batch_among_others() -> None:
    circuit = cs.parse("t\nI1 0 y 1m\nI2 0 y 1m\nR2 y 0 1k\nI3 0 y 1m\n.output y\n.train I1 R2 I2 I3")
    with pytest.raises(cs.SettingsError, match=r"^I2 learns, and has a batch of values"):
        cost_gradient(circuit.with_values({"I2": [1e-3, 2e-3]}), 0.0)


def test_two_ranges_are_rows_and_columns() -> None:
    """Of members as of crossbars: as solution.current and with_values have them; inputs are a row for each sample."""
    deck = "t\nVx[0:1][0:2] a[0:1][0:2] 0 1\nRm[0:1][0:2] a[0:1][0:2] q[0:1][0:2] g={unif(1m, 0.5)}\n"
    deck += "Rq[0:1][0:2] q[0:1][0:2] 0 1k\nIm[0:1][0:2] 0 q[0:1][0:2] 1m\n.input Vx\n.output q[1][0]\n.train Im Rm\n"
    circuit = cs.parse(deck).with_values({"Vx": np.array([1.0, 2.0])[:, None, None] * np.ones((2, 3))})
    found = cost_gradient(circuit, 0.0, inputs=True)
    for name in ("Rm", "Im"):
        assert found.values[name].shape == found.gradient[name].shape == (2, 3)
        assert cs.solve(circuit).current(name).shape == (2, 2, 3)
        assert np.argwhere(found.gradient[name]).tolist() == [[1, 0]]
    assert found.inputs["Vx"].shape == (2, 6) and np.flatnonzero(found.inputs["Vx"][0]).tolist() == [3]
    same = circuit.with_values(found.values)
    np.testing.assert_array_equal(same.conductors.g, circuit.conductors.g)
