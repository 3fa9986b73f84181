"""methods/states.py: every state of few piecewise-linear legs, where there are controlled sources."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

import circuitsim as cs
from circuitsim.methods import states as module
from circuitsim.methods.mna import make_network
from circuitsim.methods.states import states
from circuitsim.solution import Status

# A node of 1 mS - 2 mS, I1 into it, and a diode that keeps it from rising above 0 V.
NEGATIVE = "negative\nI1 0 a {}\nR1 a 0 1k\nG1 a 0 a 0 -2m\nD1 a 0 d\n.model d D(ron=0)"


def found(deck: str) -> tuple[list[float], bool]:
    """The voltages of node a in all states with a solution, and whether there are no others."""
    problem = cs.compile_problem(cs.parse(deck))
    network, drive = make_network(problem), problem.drive(slice(0, 1))
    candidates, no_others = states(network, drive, network.offset(drive))
    a = problem.topology.index_of_node[problem.circuit.netlist.node("a")]
    return sorted(float(u[a]) for u, _ in candidates), no_others


def test_two_solutions_or_none() -> None:
    """By hand: -1 mS v = I below 0 V, and at 0 V a diode that takes I."""
    assert found(NEGATIVE.format("1m")) == ([-1.0, 0.0], True)
    assert found(NEGATIVE.format("-1m")) == ([], True)
    assert cs.solve(cs.parse(NEGATIVE.format("1m"))).voltage("a")[0] in (-1.0, 0.0)
    solution = cs.solve(cs.parse(NEGATIVE.format("-1m")), raise_on_failure=False)
    assert solution.status is Status.INFEASIBLE
    assert solution.message == (
        "no solution: no state of the diodes satisfies all equations, as far as float64 can tell; "
        "check gains and loops of the controlled sources (G1)"
    )
    with pytest.raises(cs.NotSolved, match="no solution: no state of the diodes"):
        cs.solve(cs.parse(NEGATIVE.format("-1m")))


def test_a_diode_that_never_conducts_has_one_state() -> None:
    """Of an infinite forward voltage no piece begins, and no number comes into the equations."""
    never = "\nR2 a b 1k\nD2 b 0 never\n.model never D(ron=0 vfwd=inf)"
    assert found(NEGATIVE.format("1m") + never) == ([-1.0, 0.0], True)


def test_rows_of_a_batch_without_a_solution() -> None:
    circuit = cs.parse(NEGATIVE.format("1m"))
    solution = cs.solve(circuit.with_values({"I1": [1e-3, -1e-3, 0.0, -2e-3]}), raise_on_failure=False)
    assert solution.unsolved == {1: Status.INFEASIBLE, 3: Status.INFEASIBLE}
    assert solution.message.startswith("batch rows 1, 3: no solution: no state of the diodes")
    result = cs.sweep(circuit, "I1 -1m 1m 1m")
    assert result.statuses.tolist() == ["INFEASIBLE", "SOLVED", "SOLVED"]
    assert result.messages == {0: Status.INFEASIBLE.value}


@pytest.mark.slow
def test_rows_that_ended_otherwise_are_not_said_to_have_no_solution() -> None:
    """Of the second row the current that is missing is too small for `states` to be sure."""
    deck = "two\nV3 s 0 3\nR1 s n 1k\nR4 n 0 1k\nV5 n1 0 0\nR0 n1 n 1k\nH1 h n V5 10\nR5 h 0 1k\nD1 0 n1 d\n"
    circuit = cs.parse(deck + ".model d D(ron=0)").with_values({"V5": [-1.0, -1.7e-9, 1.0]})
    solution = cs.solve(circuit, raise_on_failure=False)
    assert solution.unsolved == {0: Status.INFEASIBLE, 1: Status.STALLED}
    assert solution.message.startswith("batch row 0: no solution: ") and solution.message.endswith("; 1 more: STALLED")


def test_each_piece_of_a_piecewise_linear_law() -> None:
    """Beside -1 mS a diode with 10 mS from 0.5 V on, both ways: -1 mS v + 10 mS (v - 0.5) = 0, 0, and the mirror."""
    deck = "pieces\nR1 a 0 1k\nG1 a 0 a 0 -2m\nD1 a 0 d\n.model d D(ron=100 vfwd=0.5 vrev=0.5)"
    volts, no_others = found(deck)
    assert no_others
    np.testing.assert_allclose(volts, [-5 / 9, 0.0, 5 / 9], atol=1e-15)


def test_each_piece_of_a_resistor_of_pieces() -> None:
    """Beside -1 mS one that carries 2 mS up to +-0.3 V and no more: 0, and +-0.6 V beyond."""
    deck = "pieces\nR1 a 0 1k\nG1 a 0 a 0 -2m\nN1 a 0 n\n.model n pwl(-1 -0.6m -0.3 -0.6m 0.3 0.6m 1 0.6m)"
    volts, no_others = found(deck)
    assert no_others
    np.testing.assert_allclose(volts, [-0.6, 0.0, 0.6], atol=1e-15)


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ("0 0 0.5 0 1 5m", [0.0, 5 / 9]),
        ("-1 -5m -0.5 0 0 0", [-5 / 9, 0.0]),
        ("-1.2 -5m -1 -5m -0.5 0 0.5 0 1 5m 1.2 5m", [-5.0, -5 / 9, 0.0, 5 / 9, 5.0]),
    ],
)
def test_pieces_of_a_resistor_that_lie_to_one_side_or_to_both(points: str, wanted: list[float]) -> None:
    """Beside -1 mS one with 10 mS from 0.5 V on, above, below, or both; there 5 mA and no more beyond 1 V."""
    volts, no_others = found(f"pieces\nR1 a 0 1k\nG1 a 0 a 0 -2m\nN1 a 0 n\n.model n pwl({points})")
    assert no_others
    np.testing.assert_allclose(volts, wanted, atol=1e-15)


def test_singular_states() -> None:
    """E1 fixes nothing while its diode does not conduct: any v(a) up to 0 is a solution; with a push there is none."""
    loop = "loop\nI1 0 b {}\nR1 b 0 1k\nE1 a 0 a 0 1\nR2 a 0 1k\nD1 a b d\n.model d D(ron=0)"
    volts, no_others = found(loop.format("1m"))
    assert no_others and len(volts) == 2  # v(b) is 1 V; a below it, or at it
    contradiction = "loop\nV1 b 0 1\nE1 a b a 0 1\nR2 a 0 1k\nD1 0 a d\n.model d D(ron=0)"
    assert found(contradiction) == ([], True)  # v(a) - 1 = v(a)


CONTRADICTION = "contradiction\nV1 b 0 1\nE1 a b {} 0 1\nR2 a 0 1k\nD1 0 a d\n.model d D(ron=0)"
BESIDE = "\nE8 x 0 y 0 1\nE9 y 0 x 0 {}\nR9 x y 1k"  # with a gain of 1 any v(x) = v(y), else 0 V


@pytest.mark.parametrize("deck", [NEGATIVE.format("-1m"), CONTRADICTION.format("a")])
def test_singular_equations_beside_states_without_a_solution_give_them_none(deck: str) -> None:
    """1 mA that D1 would have to carry backwards, v(a) = v(a) + 1; where a gain is all but 1 others may look on."""
    assert found(deck) == found(deck + BESIDE.format(1)) == ([], True)
    assert found(deck + BESIDE.format("{1-1e-11}")) == ([], False)


def test_a_gain_that_the_last_digits_tell_from_1_gives_no_solution_of_petavolts() -> None:
    assert found(CONTRADICTION.format("c") + "\nE2 c 0 a 0 {1-1e-15}") == ([], True)


def test_what_the_linear_program_does_not_answer_is_not_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scipy.optimize.linprog", lambda *_, **__: OptimizeResult(status=4, x=None))
    assert found(NEGATIVE.format("-1m") + BESIDE.format(1)) == ([], False)


def test_many_equations_are_left_to_others() -> None:
    ladder = "\n".join(f"R{k} n{k} n{k + 1} 1" for k in range(2, 120))
    assert found(f"{NEGATIVE.format('-1m')}\n{ladder}\nRe n2 0 1") == ([], False)


def test_curved_laws_and_many_states_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(NEGATIVE.format("-1m").replace("ron=0", "is=1e-14")) == ([], False)
    many = "\n".join(f"D{k} a n{k} d\nR{k}0 n{k} 0 1k" for k in range(2, 15))
    assert found(NEGATIVE.format("-1m") + "\n" + many) == ([], False)
    monkeypatch.setattr(module, "_MOST_PROGRAMS", 0)
    assert not found("loop\nI1 0 b 1m\nR1 b 0 1k\nE1 a 0 a 0 1\nR2 a 0 1k\nD1 a b d\n.model d D(ron=0)")[1]


@pytest.mark.parametrize("seed", range(40))
def test_no_solution_is_missed(seed: int) -> None:
    """Random circuits: gains at random, diodes whose states and sources are chosen so that there is a solution."""
    rng = np.random.default_rng(seed)
    n, k = 4, 5
    v = rng.normal(size=n)
    cards, into = ["planted"], np.zeros(n)
    for i, j in product(range(n), range(n)):
        if rng.random() < 0.5:
            gain = rng.normal() * 1e-3
            cards.append(f"G{i}{j} n{i} 0 n{j} 0 {gain!r}")
            into[i] += gain * v[j]
    for i in range(n):
        cards.append(f"R{i} n{i} 0 1k")
        into[i] += v[i] * 1e-3
    for d in range(k):
        i, j = sorted(rng.choice(n, 2, replace=False), key=lambda node: -v[node])
        conducts = rng.random() < 0.5
        knee = v[i] - v[j] + (0.0 if conducts else rng.uniform(0.1, 1.0))
        current = rng.uniform(1e-4, 1e-3) if conducts else 0.0
        cards += [f"D{d} n{i} n{j} d{d}", f".model d{d} D(ron=0 vfwd={float(knee)!r})"]
        into[i] += current
        into[j] -= current
    cards += [f"I{i} 0 n{i} {float(into[i])!r}" for i in range(n)]
    problem = cs.compile_problem(cs.parse("\n".join(cards)))
    network, drive = make_network(problem), problem.drive(slice(0, 1))
    candidates, _ = states(network, drive, network.offset(drive))
    units = problem.topology.index_of_node[[problem.circuit.netlist.node(f"n{i}") for i in range(n)]]
    assert min(np.abs(u[units] - v).max() for u, _ in candidates) < 1e-9
    assert cs.solve(problem).solved
