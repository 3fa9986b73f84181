"""Circuits with amplifiers that pass errors back have an energy: equilibrium propagation against the adjoint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import circuitsim as cs
from training.amplifiers import Energy, find_energy
from training.costs import cost_gradient
from training.gradient import find_outputs
from training.learner import LearningError

RNG = np.random.default_rng(0)
X, TARGETS = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 2))
AMPLIFIERS = {
    "of the paper": "E1 s 0 in 0 4\nVm s out 0\nF1 in 0 Vm 0.25",
    "transformers": "E1 s 0 in 0 2.5\nVm s out 0\nF1 in 0 Vm 2.5",
    "inverting": "E1 0 s in 0 2.5\nVm s out 0\nF1 0 in Vm 0.3",
    "current measured at ground": "E1 out s in 0 2.5\nVm s 0 0\nF1 0 in Vm 0.4",
    "measured the other way": "E1 out s 0 in -2.5\nVm 0 s 0\nF1 in 0 Vm 0.4",
    "about another potential": "Vo r 0 0.3\nE1 s r in r 3\nVm s out 0.1\nF1 in r Vm 0.2",
    "two behind each other": "E1 s 0 in 0 2\nVm s m 0\nF1 in 0 Vm 0.3\nE2 t 0 m 0 3\nVn t out 0\nF2 m 0 Vn 0.7",
    "two in front": "E1 s 0 in 0 2\nVm s out 0\nF1 in 0 Vm 0.5\nE2 t 0 in 0 3\nVn t u 0\nF2 in 0 Vn 0.75\nRu u out 3k",
}
NONE = {
    "backward in no proportion": "E1 s 0 in 0 2\nVm s out 0\nF1 in 0 Vm 0.5\nE2 t 0 in 0 3\nVn t u 0\nF2 in 0 Vn 0.5\n"
    "Ru u out 3k",
    "nothing backward": "E1 s 0 in 0 4\nVm s out 0\nRb in 0 1k",
    "backward with the wrong sign": "E1 s 0 in 0 4\nVm s out 0\nF1 in 0 Vm -0.25",
    "backward to another node": "E1 s 0 in 0 4\nVm s out 0\nF1 q 0 Vm 0.25\nRq q in 1k",
    "not in series": "E1 s 0 in 0 4\nVm s out 0\nF1 in 0 Vm 0.25\nRs s 0 1k",
    "currents by voltages": "G1 0 out in 0 1m\nG2 0 in out 0 1m",
    "gain 0": "E1 s 0 in 0 0\nVm s out 0\nF1 in 0 Vm 0.25",
    "around itself": "E1 s 0 in out 4\nVm s out 0\nF1 in out Vm 0.25",
}
DIODES = {"shockley": "D(is=1e-9 n=1.2)", "perfect": "D(ron=0 vfwd=0.3)", "pieces": "D(ron=10 roff=1meg vfwd=0.2)"}


def network(amplifier: str, diode: str = DIODES["shockley"]) -> cs.Problem:
    """Three layers, an amplifier behind each hidden node."""
    deck = f"""Three layers
.options seed=3
.model d {diode}
.subckt amplifier in out
{amplifier}
.ends
Vx[0:3] x[0:3] 0 0
Ib[0:5] 0 h[0:5] 10u
RW1[0:3][0:5] x[0:3] h[0:5] g={{unif(1m, 0.9)}}
D1[0:2] h[0:2] 0 d
D2[0:2] 0 h[3:5] d
X[0:5] h[0:5] a[0:5] amplifier
RW2[0:5][0:3] a[0:5] k[0:3] g={{unif(1m, 0.9)}}
D3[0:3] k[0:3] 0 d
X2[0:3] k[0:3] b[0:3] amplifier
RW3[0:3][0:1] b[0:3] y[0:1] g={{unif(1m, 0.9)}}
Rl[0:1] y[0:1] 0 1k
.input Vx
.output y[0:1]
.train RW1 RW2 RW3 Ib Rl
"""
    return cs.compile_problem(cs.parse(deck)).with_values({"Vx": X})


def energy(problem: cs.Problem) -> Energy | None:
    return find_energy(problem, find_outputs(problem))


@pytest.mark.parametrize("diode", DIODES.values(), ids=DIODES)
@pytest.mark.parametrize("amplifier", AMPLIFIERS.values(), ids=AMPLIFIERS)
def test_equilibrium_propagation_gives_the_gradient(amplifier: str, diode: str) -> None:
    problem = network(amplifier, diode)
    exact = cost_gradient(problem, TARGETS)
    found = cost_gradient(problem, TARGETS, algorithm="ep", nudge=1e-6, tol=1e-13)
    for name, slope in exact.gradient.items():
        np.testing.assert_allclose(found.gradient[name], slope, rtol=0, atol=5e-6 * np.abs(slope).max())


def test_weights_are_1_over_the_squares_of_gains() -> None:
    problem = network(AMPLIFIERS["of the paper"])
    found = energy(problem)
    assert found is not None
    nodes = {name: found.weights[k] for k, name in enumerate(problem.circuit.nodes)}
    assert [nodes[name] for name in ("h[0]", "a[0]", "k[1]", "b[3]", "y[1]")] == [256.0, 16.0, 16.0, 1.0, 1.0]
    transformed = energy(network(AMPLIFIERS["transformers"]))
    assert transformed is not None and set(transformed.weights.tolist()) == {1.0}


@pytest.mark.parametrize("amplifier", NONE.values(), ids=NONE)
def test_other_controlled_sources_have_no_energy(amplifier: str) -> None:
    problem = network(amplifier)
    assert energy(problem) is None
    with pytest.raises(cs.SettingsError, match="with these controlled sources there is no energy"):
        cost_gradient(problem, TARGETS, algorithm="ep", nudge=1e-6)


def test_circuits_without_controlled_sources_need_no_weights() -> None:
    assert energy(cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 a b 1\nR2 b 0 1\n.output b"))) is None


def test_a_nudge_may_take_all_that_holds_the_output() -> None:
    """Seen from the output, R1 is behind the amplifier as it is in front: 1 / 2 kohm + 0.1 mS in all."""
    circuit = cs.parse(
        "t\nVx x 0 1\nR1 x h 1k\nE1 s 0 h 0 4\nVm s a 0\nF1 h 0 Vm 0.25\nR2 a y 1k\nRl y 0 10k\n.output y\n.train R1"
    )
    found = cost_gradient(circuit, [[1.0]], algorithm="ep", nudge=0.59e-3)
    assert np.isfinite(found.gradient["R1"]).all()
    with pytest.raises(LearningError, match=r"nudged by -0\.00061 S is not convex"):
        cost_gradient(circuit, [[1.0]], algorithm="ep", nudge=0.61e-3)


INSIDE = "t\nVx x 0 1\nR1 x h 1k\nE1 s 0 h 0 4\nVm s a 0\nF1 h 0 Vm 0.25\nR2 a y 1k\nRl y 0 10k\n.train R1\n.output "
AT_GROUND = """two branches at ground, which pass each other nothing
V1 r q 1
R1 q in 1k
Rg in r 3k
E1 out 0 in r 2
Vm 0 x 0
F1 in r Vm -0.25
R2 out x 1k
R3 out x 2k
.output out
.train R1 R2
"""
DRIVEN = "t\nVx x 0 1\nR1 x h 1k\nR2 h 0 5k\nE1 s 0 h 0 4\nVm s y 0\nF1 h 0 Vm 0.25\n.output y\n.train R1 R2"


@pytest.mark.parametrize("output", ["s", "s y", "s a"])
def test_an_output_inside_an_amplifier_leaves_no_energy(output: str) -> None:
    """A nudge there is a current that the amplifier does not pass back."""
    assert energy(cs.compile_problem(cs.parse(INSIDE + output))) is None
    assert energy(cs.compile_problem(cs.parse(INSIDE + "a y"))) is not None


@pytest.mark.parametrize("output", ["v(h,a)", "v(y,h)", "v(y,s)", "v(s,0)", "v(0,s)"])
def test_a_difference_across_an_amplifier_leaves_no_energy(output: str) -> None:
    """The nudge joins parts of different weights, or is a current that the amplifier does not pass back."""
    assert energy(cs.compile_problem(cs.parse(INSIDE + output))) is None


def test_differences_beside_amplifiers() -> None:
    """Of nodes of one weight, of one and a known potential; across an amplifier that passes all currents back."""
    several = network(AMPLIFIERS["of the paper"])
    crossed = cs.parse(INSIDE.replace("Vm 0.25", "Vm 4") + "v(h,y)")
    by_name = several.circuit.netlist.node
    ends = {"outputs": ("y[0]", "y[1]"), "references": ("y[1]", "x[2]")}
    netlist = replace(several.circuit.netlist, **{role: tuple(map(by_name, names)) for role, names in ends.items()})
    for problem, targets in (
        (cs.compile_problem(replace(several.circuit, netlist=netlist)), TARGETS),
        (cs.compile_problem(crossed), [[0.3]]),
    ):
        exact = cost_gradient(problem, targets)
        found = cost_gradient(problem, targets, algorithm="ep", nudge=1e-7, tol=1e-13)
        for name, slope in exact.gradient.items():
            np.testing.assert_allclose(found.gradient[name], slope, rtol=0, atol=5e-6 * np.abs(slope).max())


def test_two_branches_at_ground_are_not_in_series() -> None:
    assert energy(cs.compile_problem(cs.parse(AT_GROUND))) is None


@pytest.mark.parametrize("variant", ["centred", "negative", "positive"])
def test_an_output_that_an_amplifier_drives(variant: str) -> None:
    circuit = cs.parse(DRIVEN)
    exact = cost_gradient(circuit, [[1.0]]).gradient
    found = cost_gradient(circuit, [[1.0]], algorithm="ep", variant=variant, nudge=1e-9, tol=1e-13).gradient
    for name, slope in exact.items():
        np.testing.assert_allclose(found[name], slope, rtol=1e-5)
