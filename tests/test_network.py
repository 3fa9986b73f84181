"""The linear network of the tangents: what it adds to the circuit's conductances, and which tangents it takes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.linear.gradients import Gradients
from circuitsim.methods.limiting import NO_DROP
from circuitsim.methods.mna import make_network
from circuitsim.methods.network import Network, Tangents
from circuitsim.residual import Check

Floats = NDArray[np.float64]

MODELS = [".model i D(ron=0)", ".model p D(ron=1 vfwd=1)", ".model s D(is=1e-14)"]


def made(*cards: str, solver: str = "its own") -> tuple[cs.Problem, Network]:
    problem = cs.compile_problem(cs.parse("\n".join(["test", *MODELS, *cards])))
    by_gradients = Gradients(problem.n_free, *problem.topology.edges) if solver == "gradients" else None
    return problem, make_network(problem, by_gradients)


def unit(problem: cs.Problem, node: str) -> int:
    return int(problem.topology.index_of_node[problem.circuit.netlist.node(node)])


def test_damping_holds_every_unit_to_where_it_is_until_it_ends() -> None:
    """1 A into 0.5 S, and into that beside 2 S."""
    _, network = made("V1 in 0 1", "R1 in a 4", "R2 a 0 4")
    one, none = np.ones((1, 1)), np.zeros(0)
    assert network.factor(none).solve(one) == pytest.approx(2.0)
    network.damp(2.0)
    assert network.factor(none).solve(one) == pytest.approx(0.4)
    network.damp(0.0)
    assert network.factor(none).solve(one) == pytest.approx(2.0)


@pytest.mark.parametrize("solver", ["its own", "gradients"])
def test_what_floats_is_held_where_it_is(solver: str) -> None:
    """1 ohm between two nodes that nothing else holds but a trillionth of 1 S: as many amperes shift both by 1 V."""
    problem, network = made("V1 in 0 1", "R0 in c 1", "R1 a b 1", "D1 a 0 i", "D2 0 b i", solver=solver)
    injected = np.zeros((1, network.size))
    injected[0, unit(problem, "a")] = 1e-12
    solved = network.factor(np.zeros(2)).solve(injected)[0]
    assert solved[unit(problem, "a")] == pytest.approx(1.0, rel=1e-3)
    assert solved[unit(problem, "b")] == pytest.approx(1.0, rel=1e-3)
    assert solved[unit(problem, "c")] == 0.0


def test_diodes_that_are_open_let_units_move() -> None:
    """Of two diodes at bounds the one that conducts holds its unit; 1 A moves the other by 1 V."""
    problem, network = made("R1 a 0 1", "D1 a 0 i", "R2 b 0 1", "D2 b 0 i", "R3 a b 1g")
    legs = network.legs
    on = np.where(legs.a == unit(problem, "a"), network.rho, 0.0)
    solved = network.factor(network.immovable(on)).solve(np.ones((1, 2)))[0]
    assert abs(solved[unit(problem, "a")]) < 1e-100
    assert solved[unit(problem, "b")] == pytest.approx(1.0)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_within_the_rounding_of_a_knee_the_slope_is_the_old_one(side: float) -> None:
    """1 S beyond 1 V, none below: at the knee, but for rounding, either may be; beyond the rounding only one."""
    problem, network = made("R1 a 0 1", "D1 a 0 p")
    rounding = np.full((1, 1), NO_DROP)
    for off, kept in ((0.5, True), (2.0, False)):
        x = np.array([[1.0 + side * off * NO_DROP]])
        check = Check(problem, problem.drive(slice(0, 1)), x, exact=True)
        there, across = (1.0, 0.0) if side > 0 else (0.0, 1.0)
        assert network.slopes(np.array([there]), check, rounding)[0] == pytest.approx(there)
        assert network.slopes(np.array([across]), check, rounding)[0] == pytest.approx(across if kept else there)


def test_of_curved_laws_only_tangents_of_about_the_same_slope_are_taken() -> None:
    """4 times as steep, or a fourth, is taken; 16 times, or a sixteenth, is not: then the old one stays."""
    problem, network = made("R1 a 0 1", "D1 a 0 s")
    check = Check(problem, problem.drive(slice(0, 1)), np.array([[0.7]]), exact=True)
    now = network.slopes(np.ones(1), check, np.zeros((1, 1)))[0]
    for times, taken in ((4.0, True), (0.25, True), (16.0, False), (1 / 16.0, False)):
        old = np.array([now * times])
        assert network.relinearised(old, check, np.zeros((1, 1)))[0] == (now if taken else old[0])


def test_of_straight_pieces_any_slope_is_taken() -> None:
    problem, network = made("R1 a 0 1", "D1 a 0 p")
    check = Check(problem, problem.drive(slice(0, 1)), np.array([[0.5]]), exact=True)
    assert network.relinearised(np.ones(1), check, np.zeros((1, 1)))[0] == 0.0


def test_bounds_that_are_not_there_leave_the_solution_as_it_is() -> None:
    """4 V over two equal resistors; the open diode's offset is -inf."""
    problem, network = made("V1 in 0 4", "R1 in a 1", "R2 a 0 1", "D1 a 0 i")
    none = np.zeros(1)
    solved = network.linear_step(problem.drive(slice(0, 1)), none, np.array([-np.inf]), Tangents(none, none, none))
    assert solved == pytest.approx(2.0)


@pytest.mark.parametrize(("more", "kept"), [((), True), (("D1 0 a i",), False)])
def test_what_rounding_leaves_can_be_made_smaller_where_all_is_linear(more: tuple[str, ...], kept: bool) -> None:
    problem, network = made("V1 in 0 1", "R1 in a 1", "R2 a 0 1", *more)
    x = np.array([[np.nextafter(0.5, 1.0)]])
    check = Check(problem, problem.drive(slice(0, 1)), x, exact=True)
    assert network.violation(check)[0, 0] == 2.0**-52
    assert network.violation(check, quiet=True)[0, 0] == (2.0**-52 if kept else 0.0)


def test_a_diode_is_stiff_where_nothing_else_holds_its_other_end() -> None:
    """At a node of 1 mS it is 1e8 times that, and not no diode at all as beside what its other end has."""
    _, network = made("R1 a 0 1k", "R2 c 0 1m", "D1 a b i", "I1 b 0 1u")
    assert network.rho == pytest.approx(1e5)


def test_a_diode_is_stiff_beside_what_its_end_depends_on() -> None:
    """Alone at a unit of 1 mS it is 1e8 times that; two at one unit are as stiff as all others."""
    cards = "R1 a 0 1k", "R2 b 0 1k", "R3 c 0 1m", "R4 a b 1g", "R5 b c 1g", "D1 a 0 i", "D2 b 0 i", "D3 0 b i"
    problem, network = made(*cards)
    ends = np.maximum(network.legs.a, network.legs.k)
    assert network.rho[ends == unit(problem, "a")] == pytest.approx(1e5, rel=1e-5)
    assert network.rho[ends == unit(problem, "b")] == pytest.approx(1e7, rel=1e-5)
