"""Refining: what diodes hold stays where it is to the last digit, and a wrong state is told by a current's sign."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import PRECISE
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.methods.mna import make_network
from circuitsim.methods.network import Network
from circuitsim.methods.outcome import Outcome
from circuitsim.methods.polish import _far, _missed, hardly_corrected, polished
from circuitsim.residual import Check

Floats = NDArray[np.float64]

IDEAL = ".model i D(ron=0)"


def made(*cards: str, **rows: list[float]) -> tuple[cs.Problem, Network]:
    """The problem of these cards, with a row for each value of the sources named, and its network."""
    problem = cs.compile_problem(cs.parse("\n".join(["test", IDEAL, *cards])))
    problem = problem.with_values({name: np.array(volts)[:, None] for name, volts in rows.items()}) if rows else problem
    return problem, make_network(problem)


def refined(problem: cs.Problem, network: Network, volts: dict[str, float], links: list[float], on: bool) -> Outcome:
    """`polished` from these voltages of nodes and currents of diodes between free units; `on`: all perfect ones are."""
    u = np.zeros((1, network.size))
    for node, v in volts.items():
        u[0, unit(problem, node)] = v
    slope = network.rho if on else np.zeros_like(network.rho)
    return polished(network, problem.drive(slice(0, 1)), PRECISE, u, np.array([links]), slope, 0)


def unit(problem: cs.Problem, node: str) -> int:
    return int(problem.topology.index_of_node[problem.circuit.netlist.node(node)])


def total(outcome: Outcome, at: int) -> float:
    return float(outcome.x[0, at] + (0.0 if outcome.low is None else outcome.low[:, 0, at].sum()))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("off", [0.0, 1e-12, 1e-3])
def test_a_node_that_a_conducting_diode_holds_is_there_to_the_last_digit(sign: float, off: float) -> None:
    """At 0.3 V, from wherever its neighbour's voltage, or its own, was before; 2 mA leave it for the neighbour."""
    bound, diode = 0.3 * sign, "D1 h b i" if sign > 0 else "D1 b h i"
    problem, network = made(f"Vh h 0 {bound}", diode, f"V1 in 0 {-3.7 * sign}", "R1 b c 1k", "R2 c in 1k")
    b, c = unit(problem, "b"), unit(problem, "c")
    outcome = refined(problem, network, {"b": bound + sign * off, "c": -1.7 * sign + off}, [], on=True)
    assert outcome.status is cs.Status.SOLVED
    assert total(outcome, b) == bound
    assert total(outcome, c) == pytest.approx(-1.7 * sign, rel=1e-11)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_correction_leads_beyond_a_bound(sign: float) -> None:
    """With the diode open the node would go to 2 V, as corrections do not know better: they end where it conducts."""
    bound, diode = 0.5 * sign, "D1 b h i" if sign > 0 else "D1 h b i"
    problem, network = made(f"Vh h 0 {bound}", diode, f"V1 in 0 {4 * sign}", "R1 in c 1k", "R2 c b 1k", "R3 b 0 2k")
    outcome = refined(problem, network, {"b": 0.4 * sign, "c": 2 * sign}, [], on=False)
    assert outcome.x[0, unit(problem, "b")] == bound
    assert total(outcome, unit(problem, "b")) * sign <= 0.5


def test_the_current_of_a_diode_in_the_wrong_state_has_the_sign_that_says_so() -> None:
    """Closed, -1 V over 1 + 2 ohm pull a third of an ampere through it the wrong way."""
    problem, network = made("V1 in 0 -1", "R1 in a 1", "D1 a b i", "R2 b 0 2")
    third = 1.0 / 3.0
    outcome = refined(problem, network, {"a": -2 * third, "b": -2 * third}, [-third], on=True)
    assert outcome.status is not cs.Status.SOLVED
    assert outcome.carried is not None
    assert outcome.carried[0, 0] == pytest.approx(-third, rel=1e-6)


def test_voltages_that_overflow_are_said_to_be_no_numbers() -> None:
    problem, network = made("V1 in 0 1", "R1 in a 1", "R2 a 0 1")
    assert refined(problem, network, {"a": np.inf}, [], on=False).status is cs.Status.NONFINITE


def test_how_far_is_beyond_all_voltages() -> None:
    """A thousand times the largest: of a unit, of a known node, or what the largest current makes; of none nothing."""
    none, one = np.zeros((1, 2)), np.array([[0.0, -1.0]])
    for x, fixed, volts in ((one, none, 0.0), (none, one, 0.0), (none, none, 1.0)):
        assert _far(np.array([[0.0, -1001.0]]), x, fixed, volts)
        assert not _far(np.array([[0.0, -999.0]]), x, fixed, volts)
    assert not _far(np.array([[0.0, -1001.0]]), none, none, 0.0)


@pytest.mark.parametrize("off", [1e-3, -1e-3])
def test_a_row_that_a_correction_moves_either_way_is_not_sure(off: float) -> None:
    """Beside one that it does not move: 1 mV of 1 V is a million times too much."""
    problem, network = made("V1 in 0 1", "R1 in a 1", "R2 a 0 1", V1=[1.0, 2.0])
    drive, nothing = problem.drive(slice(0, 2)), np.zeros(0)
    for x, sure in (([0.5, 1.0], True), ([0.5 + off, 1.0], False), ([0.5, 1.0 + off], False)):
        assert hardly_corrected(network, Check(problem, drive, np.array(x)[:, None], exact=True), nothing) == sure


def test_of_controlled_sources_no_row_tells_of_another() -> None:
    """G_ab = G_ba = 1 S, but for 2^-23: two nodes that move by 1 mV against each other all but meet KCL.

    The inverse of the equations has entries of both signs: what both rows leave together moves hardly anything.
    """
    gap = 2.0**-23
    cards = "R1 a 0 1", "R2 b 0 1", f"G1 a 0 b 0 {1.0 - gap!r}", f"G2 b 0 a 0 {1.0 - gap!r}"
    problem, network = made("V1 c 0 1", *cards, f"I1 0 a {gap!r}", f"I2 b 0 {gap!r}", V1=[1.0, 2.0])
    x, none = np.zeros((2, problem.n_free)), np.zeros((2, 0))
    for off, sure in ((0.0, True), (1e-3, False)):
        x[:, unit(problem, "a")], x[:, unit(problem, "b")] = 1.0 + off, -1.0 - off
        drive = network.with_carried(problem.drive(slice(0, 2)), none, none, x)
        assert hardly_corrected(network, Check(problem, drive, x, exact=True), np.zeros(0)) == sure


def test_voltages_where_only_currents_are_large() -> None:
    """1 A through a diode beside 1 ohm: 1e-33 V are none, 2^-106 V are the limit."""
    problem, network = made("I1 0 a 1", "R1 a 0 1", "D1 a 0 i")
    for off, sure in ((0.0, True), (-1e-33, True), (-1e-30, False)):
        check = Check(problem, problem.drive(slice(0, 1)), np.array([[off]]), exact=True)
        assert hardly_corrected(network, check, np.zeros(1)) == sure


@pytest.mark.parametrize(("branch", "sure"), [("D1 b h p", True), ("R2 b h 1g", False)])
def test_the_last_digits_of_a_potential_where_a_nonlinear_branch_ends(branch: str, sure: bool) -> None:
    """1 MV over 1 gigaohm and 1 ohm leave 1 mV: 5 nV are within the rounding of the diode's voltage, 100 nV are not."""
    problem, network = made(".model p D(ron=1 roff=1g)", "V1 h 0 1meg", "R1 b 0 1", branch)
    slope = np.full(network.legs.a.size, 1e-9)
    for off, settled in ((5e-9, sure), (1e-7, False)):
        check = Check(problem, problem.drive(slice(0, 1)), np.array([[1e6 / (1.0 + 1e9) + off]]), exact=True)
        assert hardly_corrected(network, check, slope) == settled


def test_by_how_much_a_diode_misses_its_law() -> None:
    """Where it conducts by any voltage, where it is open by a forward one; of the largest voltage, 2 V."""
    problem, network = made("V1 in 0 1", "R1 in a 1", "D1 a b i", "R2 b 0 2")
    a, b, x = unit(problem, "a"), unit(problem, "b"), np.zeros((1, 2))
    for v_a, v_b, closed, open_ in ((2.0, 1.5, 0.25, 0.25), (1.5, 2.0, 0.25, 0.0), (2.0, 2.0, 0.0, 0.0)):
        x[0, a], x[0, b] = v_a, v_b
        check = Check(problem, problem.drive(slice(0, 1)), x, exact=True)
        assert _missed(network, check, network.rho) == closed
        assert _missed(network, check, np.zeros(1)) == open_


@pytest.mark.parametrize("more", ["", "V5 p 0 5\nD3 c p i\nD4 n c i\nV6 n 0 -5\n"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_diode_beside_an_amplifier_stays_closed_while_a_junction_is_refined(sign: int, more: str) -> None:
    """What D1 is corrected by moves the amplifier's output, and so node c, which D2 holds at 0.3 V."""
    d1, d2 = ("b 0", "c 0") if sign > 0 else ("0 b", "0 c")
    deck = f"two\nV1 a 0 1\nR1 a b 1k\nD1 {d1} d\nR2 b c 1k\nD2 {d2} i\nE1 o 0 b c 1e3\nR3 o c 10k\n{more}"
    circuit = cs.parse(deck + ".model d D(is=1e-14)\n.model i D(ron=0 vfwd=0.3)\n")
    solution = cs.solve(circuit.with_values({"V1": sign * np.linspace(1.0, 3.0, 21)[:, None]}))
    assert (solution.current("D2") > 1e-3).all()
    off = np.abs(solution.voltage("c") - sign * 0.3)
    assert (off <= 1e-12 * np.abs(solution.voltage("o"))).all()
