"""methods/held.py: how far a correction would still move the voltages of a certified solution."""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import circuitsim as cs
from circuitsim import gallery, solving
from circuitsim.backends.cpu import TILE
from circuitsim.laws import branch_current
from circuitsim.methods import bcd, tiles
from circuitsim.methods.held import Held, hardly_moves
from circuitsim.methods.mna import make_network
from circuitsim.methods.outcome import Outcome
from circuitsim.residual import Check

# Two nodes with 1 A between them, on 10 Tohm: KCL is met to 1e-13 wherever they are together.
WEAK = """weak
V1 s 0 1
I1 a b 1
R1 a b 0.7
Rw1 a s 1e13
Rw2 b 0 3e13
Rd s d 1k
.model di D(ron=0)
D1 d 0 di
"""
# By hand: 1 A through 0.7 Ohm, v(b) = v(a) + 0.7; (1 - v(a)) / 1e13 = v(b) / 3e13.
WEAK_VOLTAGE = (3.0 - 0.7) / 4.0


def asked(problem: cs.Problem) -> Held:
    return Held(problem, lambda: make_network(problem), threading.RLock())


def conductance_matrix(problem: cs.Problem) -> np.ndarray:
    """Of the linear branches, from the equations' own products: column by column."""
    network = make_network(problem)
    return network.flow(np.eye(problem.n_free))


@pytest.mark.parametrize("deck", [gallery.drn([5, 4, 3, 2]), gallery.drn([3, 7, 2]), WEAK])
def test_paths_bound_the_inverse(deck: str) -> None:
    problem = cs.compile_problem(cs.parse(deck))
    inverse = np.linalg.inv(conductance_matrix(problem))
    paths = asked(problem).paths
    assert (paths >= np.diag(inverse) * (1 - 1e-12)).all()
    assert (inverse <= paths * (1 + 1e-12)).all()


def test_paths_of_a_chain_are_its_resistances() -> None:
    """And infinite, still a bound, further away than the sweeps go."""
    problem = cs.compile_problem(cs.parse("chain\nV1 n[0] 0 1\nR[1:40] n[0:39] n[1:40] 2"))
    paths = asked(problem).paths
    unit = problem.topology.index_of_node[[problem.circuit.nodes.index(f"n[{k}]") for k in range(1, 41)]]
    assert paths[unit[:33]] == pytest.approx(2.0 * np.arange(1, 34))
    assert np.isinf(paths[unit[33:]]).all()


def test_hardly_moves() -> None:
    largest = np.array([[2.0], [0.0]])
    assert hardly_moves(np.array([[2e-9, -2e-9], [0.0, 0.0]]), 1e-9 * largest)
    assert not hardly_moves(np.array([[2.1e-9, 0.0], [0.0, 0.0]]), 1e-9 * largest)
    assert not hardly_moves(np.array([[0.0, 0.0], [0.0, 1e-30]]), 1e-9 * largest)


@pytest.mark.parametrize("rows", [1, 3])
def test_what_little_holds_is_not_settled(rows: int) -> None:
    problem = cs.compile_problem(cs.parse(WEAK).with_values({"V1": np.ones(rows)}))
    held = asked(problem)
    drive = problem.drive(slice(0, rows))
    a, b = (problem.topology.index_of_node[problem.circuit.nodes.index(n)] for n in "ab")
    right, wrong = np.zeros((2, rows, 3))
    right[:, [a, b]] = WEAK_VOLTAGE, WEAK_VOLTAGE + 0.7
    wrong[:, [a, b]] = -0.7, 0.0
    for x in (right, wrong):  # the certificate cannot tell them apart
        assert Check(problem, drive, x, exact=True).certificate().kcl_relative < 1e-9
    assert held.settled(Check(problem, drive, right), 1e-9)
    assert not held.settled(Check(problem, drive, wrong), 1e-9)
    if rows > 1:  # one wrong row
        right[1] = wrong[1]
        assert not held.settled(Check(problem, drive, right), 1e-9)
    assert held.settled(Check(problem, drive, wrong), 1.0)


def test_settled_is_what_moves_by_a_millionth_at_most() -> None:
    """1,000 tolerances: a and b together, by 1e-5 V or 1e-8 V of 0.6 V."""
    problem = cs.compile_problem(cs.parse(WEAK))
    a, b = (problem.topology.index_of_node[problem.circuit.nodes.index(n)] for n in "ab")
    for off, settled in ((1e-5, False), (1e-8, True)):
        x = np.zeros((1, 3))
        x[0, [a, b]] = WEAK_VOLTAGE + off, WEAK_VOLTAGE + 0.7 + off
        assert asked(problem).settled(Check(problem, problem.drive(slice(0, 1)), x), 1e-9) == settled


KNEES = """knees
V1 s 0 1
V2 k 0 0
R1 s a 1k
R2 a b 2k
R3 b c 3k
R4 c 0 1meg
D1 a b p
D2 c 0 p
D3 s b p
N1 b c t
D4 a k i
.model p D(ron=100 roff=1e7 vfwd=0.2)
.model t tanh(imax=1m v0=0.1)
.model i D(ron=0)
"""


@pytest.mark.parametrize("seed", range(30))
def test_rows_bounded_together_move_no_further_each_on_its_own_tangents(seed: int) -> None:
    """Those where it is, and, if flatter, those to which its correction leads; D4 holds a in some rows."""
    rng, rows = np.random.default_rng(seed), 4
    volts = {"V1": rng.uniform(-1.0, 1.0, rows), "V2": rng.uniform(0.0, 0.5, rows)}
    problem = cs.compile_problem(cs.parse(KNEES)).with_values(volts)
    network, drive = make_network(problem), problem.drive(slice(0, rows))
    x = np.minimum(rng.uniform(-0.5, 0.5, (rows, problem.n_free)), drive.hi)
    check = Check(problem, drive, x, exact=True)
    held, n = (check.flow != check.rho).any(axis=1), network.legs.n_junctions
    rho = check.exact_violation() * 10.0 ** rng.uniform(-3.0, 0.0)
    bound = asked(problem)._bound(network, check, np.abs(rho), np.arange(rows))
    offset = network.offsets(drive, rows)[:, :n]
    for row in range(rows):
        alone = asked(problem)._bound(network, check, rho, np.array([row]))[0]
        across = network.across(x[row])[:n] + offset[row]
        slope = np.append(branch_current(network.law, network.params, across)[1], held[row] * network.rho[n:])
        step = network.factor(slope).solve(rho[row : row + 1])[0]
        there = branch_current(network.law, network.params, across + network.across(step)[:n])[1]
        flatter = network.factor(np.append(np.minimum(slope[:n], there), slope[n:])).solve(rho[row : row + 1])[0]
        for moved in (step, flatter):
            assert np.abs(moved).max() <= 1.000001 * bound[row]
        assert np.abs(step).max() <= 1.000001 * alone


@pytest.mark.parametrize("rows", [1, 65])
def test_weakly_held_nodes_are_right_or_not_solved(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = cs.parse(WEAK).with_values({"V1": np.ones(rows)})
    for method in ("auto", "newton"):
        assert cs.solve(circuit, cs.Settings(method)).voltage("a") == pytest.approx(np.full(rows, WEAK_VOLTAGE))
    solution = cs.solve(circuit, cs.Settings("bcd", max_sweeps=2000), raise_on_failure=False)
    assert solution.status is cs.Status.MAX_SWEEPS
    assert "KCL is met, but some voltages are held only by tiny conductances and may be wrong" in solution.message
    if rows == 65:
        assert cs.solve(circuit).why == "block coordinate descent would be slow"
        monkeypatch.setattr(bcd, "takes_few_sweeps", lambda *_: True)
        assert cs.solve(circuit).why == "block coordinate descent left weakly held voltages after 2 sweeps"


@pytest.mark.parametrize("rest", ["", "R1 a b 1k\nR2 b 0 2k", "R1 a b 1k\nR2 b 0 2k\nD2 b c d\nR3 c 0 1m"])
def test_a_knee_that_one_digit_of_its_voltage_crosses(rest: str) -> None:
    """1 A raises a by 1e-17 V above the knee: which side it is on no float64 voltage says."""
    deck = f"steep\nI1 0 a 1\nD1 a 0 d\n.model d D(ron=1e-17 roff=1e9 vfwd=0.7)\n{rest}"
    solution = cs.solve(cs.parse(deck), cs.Settings(backend="cpu"))  # which a GPU leaves such rows to, after 60 steps
    assert solution.voltage("a") == pytest.approx(0.7, rel=1e-12)
    if rest:
        assert solution.voltage("b") == pytest.approx(1.4 / 3, rel=1e-6)
    assert solution.method == "newton" and solution.steps <= 20


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"unsolved": {0: cs.Status.STALLED}}, "newton did not converge in "),
        ({"sure": False}, "newton left weakly held voltages in "),
    ],
)
def test_where_newton_fails_sweeps_may_arrive(fault: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solve_tile = tiles.solve_tile
    monkeypatch.setattr(tiles, "solve_tile", lambda *arguments: replace(solve_tile(*arguments), **fault))
    deck = "clamp\nV1 i 0 1\nR1 i a 1k\nR2 a b 1k\nD1 b 0 d\n.model d D(ron=1 vfwd=0.2)"
    solution = cs.solve(cs.parse(deck), cs.Settings(backend="cpu"))
    assert solution.solved and solution.method == "bcd"
    assert solution.why.startswith(why)


@pytest.mark.parametrize("deck", ["all known\nV1 a 0 1\nR1 a 0 1", "no current\nV1 a 0 0\nR1 a b 1\nR2 b 0 1"])
def test_where_nothing_is_unknown_or_flows_all_is_held(deck: str) -> None:
    assert cs.solve(cs.parse(deck), cs.Settings("bcd")).solved


ARRAYS = """knee
I1[0:1] 0 a[0:1] 1
I2[0:1] b[0:1] 0 1
I3[0:1] a[0:1] 0 1e-10
RW[0:1][0:1] a[0:1] b[0:1] 2
R2[0:1] b[0:1] 0 1e12
"""
ONE = """knee
I1 0 a 1
I2 b 0 1
I3 a 0 1e-10
R1 a b 1
R2 b 0 1e12
D1 a 0 p
V9 s 0 1
R8 s t 1
.model i D(ron=0)
D8 t 0 i
"""
DIODE = ".model p D(ron=1m roff=1e12 vfwd=0)\n"


@pytest.mark.parametrize(
    ("deck", "node", "rows"),
    [
        (ARRAYS + DIODE + "D1[0:1] a[0:1] 0 p", "a[0]", 1),
        (ARRAYS + ".model p pwl(-1e6 -1e-6 0 0 1 1000)\nN1[0:1] a[0:1] 0 p", "a[0]", 1),
        (ONE + DIODE, "a", 65),
        (ONE + DIODE, "a", 1),
    ],
)
def test_a_knee_near_by_holds_nothing_beyond_it(deck: str, node: str, rows: int) -> None:
    """By hand: the diode is off, (a + b) / 1e12 = -1e-10 and a - b = 1. A hair above 0 V its tangent holds a."""
    circuit = cs.parse(deck)
    if rows > 1:
        circuit = circuit.with_values({"V9": np.ones(rows)})
    for method in ("auto", "newton"):
        assert cs.solve(circuit, cs.Settings(method)).voltage(node) == pytest.approx(np.full(rows, -49.5))
    solution = cs.solve(circuit, cs.Settings("bcd"), raise_on_failure=False)
    assert solution.status is cs.Status.MAX_SWEEPS
    assert solution.steps < 1000  # at its rate it would take forever
    where = "batch rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 55 more: " if rows == 65 else ""
    assert solution.message.startswith(
        f"{where}KCL is met, but some voltages are held only by tiny conductances and may be wrong"
    )


def test_many_rows_of_a_mesh_of_diodes_are_left_to_newton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps take thousands there, with units at which nothing flows yet: no rate is one that is too slow."""
    monkeypatch.setattr(solving, "choose_method", lambda problem, settings: ("bcd", "as for perfect diodes"))
    problem = cs.compile_problem(cs.parse(gallery.wired_crossbar(6, "diode")))
    solution = cs.solve(problem.with_values({"Vx[0]": np.linspace(0.5, 1.0, 65)}))
    assert solution.method == "newton" and "block coordinate descent was slow" in solution.why


def test_the_steps_told_are_those_of_the_method_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tile by 500 sweeps, the second, once these were found slow, by newton."""
    real = solving._Batch._solve_tile

    def tile(batch: solving._Batch, rows: slice, x: np.ndarray) -> tuple[Outcome, str]:
        if rows.start:
            batch._change("newton", "sweeps were slow")
        outcome, by = real(batch, rows, x)
        return (outcome, by) if rows.start else (replace(outcome, steps=500), "bcd")

    monkeypatch.setattr(solving._Batch, "_solve_tile", tile)
    circuit = cs.parse(gallery.wired_crossbar(4)).with_values({"Vx[0]": np.linspace(0.5, 1.0, TILE + 1)})
    monkeypatch.setattr(solving, "choose_method", lambda problem, settings: ("bcd", ""))
    solution = cs.solve(circuit)
    assert (solution.method, solution.steps) == ("newton", 1)
