"""Many inputs of one small nonlinear circuit, a copy for each: the answers and the certificate of every row alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from helpers import assert_laws

import circuitsim as cs
from circuitsim import solving, stack
from circuitsim.backends.base import find_backend
from circuitsim.choosing import choose_method
from circuitsim.methods import aside, bcd, newton, regions, tiles
from circuitsim.methods.network import Network
from circuitsim.methods.outcome import Gathered, Outcome
from circuitsim.residual import FIGURES, Residuals
from circuitsim.solution import Status
from circuitsim.stack import units_in_copies


def mesh(side: int, model: str) -> str:
    """A grid of resistors, of which every second node has a diode to ground, and a current source at its end."""
    cards = ["mesh", "V1 n0_0 0 1", "V2 c n1_1 0.1", "R0 c 0 1k", "I1 0 n2_2 1m", f".model dm {model}"]
    cards += [f"RE n{side - 1}_{side - 1} 0 5k"]
    for i in range(side):
        for j in range(side):
            cards += [f"RA{i}_{j} n{i}_{j} n{i}_{j + 1} {1 + i}k"] if j + 1 < side else []
            cards += [f"RB{i}_{j} n{i}_{j} n{i + 1}_{j} {1 + j}k"] if i + 1 < side else []
            cards += [f"D{i}_{j} n{i}_{j} 0 dm"] if (i + j) % 2 else []
    return "\n".join(cards)


LINKS = "\nD1 n1_1 x id\nR1 x n2_1 100\nRX x 0 10k\nD2 y n1_1 id\nR2 y 0 1k\n.model id D(ron=0 vfwd=0.2)\n"
CONTROLLED = "\nE1 e 0 n1_1 n2_2 3\nRE1 e n3_3 1k\nF1 0 n4_4 V1 0.1\nH1 h 0 V2 50\nRH h n5_5 2k\nG1 0 n6_6 n2_1 0 1u\n"
DECKS = {
    "shockley": mesh(7, "D(is=1e-14 n=1.2 rs=1)"),
    "piecewise linear": mesh(7, "D(ron=10 vfwd=0.3 roff=1meg)"),
    "perfect": mesh(7, "D(ron=0 vfwd=0.3)"),
    "perfect diodes between nodes": mesh(5, "D(is=1e-12)") + LINKS,
    "controlled sources": mesh(7, "D(is=1e-14 rs=1)") + CONTROLLED,
}


def batch(deck: str, rows: int) -> cs.Problem:
    values = {"V1": np.linspace(-3.0, 3.0, rows), "I1": np.linspace(1e-3, -2e-3, rows)}
    return cs.compile_problem(cs.parse(DECKS[deck])).with_values(values)


NEWTON = cs.Settings(method="newton")


@pytest.mark.parametrize("deck", DECKS)
@pytest.mark.parametrize("warm", [False, True])
def test_rows_are_those_of_each_input(deck: str, warm: bool) -> None:
    problem = batch(deck, 21)
    start = np.random.default_rng(1).normal(size=(21, problem.n_free)) if warm else None
    found = cs.solve(problem, NEWTON, start=start)
    assert_laws(found, 1e-9)
    assert found.residuals.kcl_relative <= 1e-9
    for row in range(0, 21, 4):
        values = {"V1": problem.circuit.ties.e[row, 0], "I1": problem.circuit.current_sources.i[row, 0]}
        one = cs.solve(cs.parse(DECKS[deck]).with_values(values), NEWTON)
        np.testing.assert_allclose(found.voltages()[row], one.voltages()[0], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(found.tie_currents[0][row], one.tie_currents[0][0], rtol=1e-7, atol=1e-15)


@pytest.fixture(autouse=True)
def no_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would solve those of straight pieces before."""
    monkeypatch.setattr(regions, "straight", lambda network: False)


def without_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "worth_it", lambda problem: False)


@pytest.mark.parametrize("deck", DECKS)
def test_the_certificate_is_that_of_the_rows(deck: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = batch(deck, 12)
    one_row = newton.solve_row
    rows: list[int] = []

    def counted(*arguments: object) -> object:
        rows.append(1)
        return one_row(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(newton, "solve_row", counted)
    many = cs.solve(problem, NEWTON)
    assert len(rows) == 2  # the first row, and the stack of the others
    without_stacks(monkeypatch)
    one = cs.solve(problem, NEWTON)
    assert len(rows) == 2 + 12
    assert (many.status, many.method, many.why) == (one.status, one.method, one.why)
    assert many.carried.shape == one.carried.shape
    np.testing.assert_allclose(many.carried, one.carried, rtol=1e-7, atol=1e-15)
    for name in FIGURES:
        bound = max(10 * getattr(one.residuals, name), 1e-12)
        assert getattr(many.residuals, name) <= bound, name


@pytest.mark.parametrize("fault", ["not solved", "wrong"])
def test_a_stack_that_fails_leaves_the_rows_to_be_solved_alone(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = batch("shockley", 12)
    solve_tile: Callable[..., Outcome] = tiles.solve_tile

    def failing(network: Network, *arguments: object, **how: object) -> Outcome:
        outcome = solve_tile(network, *arguments, **how)
        if network.problem.circuit.copies == 1:
            return outcome
        if fault == "not solved":
            return outcome.ended(Status.STALLED, outcome.steps)
        return replace(outcome, x=outcome.x * (1.0 + 1e-6), low=None)

    monkeypatch.setattr(tiles, "solve_tile", failing)
    many = cs.solve(problem, NEWTON)
    without_stacks(monkeypatch)
    one = cs.solve(problem, NEWTON)
    np.testing.assert_array_equal(many.x, one.x)
    assert many.residuals == one.residuals


def test_a_stack_is_made_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of all sources of all rows for each copy."""
    problem = batch("shockley", 40)
    stacks = stack.Stacks(problem, 39)
    rows = [problem.circuit.at_rows(slice(row, row + 1)) for row in (3, 4, 5, 6)]
    found = stacks.problem(stack.stacked(rows))
    assert found.batch == stacks.problems[4].batch == 1
    np.testing.assert_array_equal(found.circuit.ties.e[0, ::2], problem.circuit.ties.e[3:7, 0])


def test_rows_of_later_tiles_have_their_own_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = batch("shockley", 40)
    whole = cs.solve(problem, NEWTON)
    monkeypatch.setattr(solving, "_IN_CACHE", 15 * problem.n_free)
    np.testing.assert_allclose(cs.solve(problem, NEWTON).voltages(), whole.voltages(), rtol=0, atol=1e-9)


def test_rows_begin_where_they_are_told_or_at_the_last_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = batch("shockley", 9)
    starts: list[np.ndarray] = []
    solve_tile = tiles.solve_tile

    def seen(network: Network, *arguments: object, **how: object) -> Outcome:
        at = arguments[2]
        if network.problem.circuit.copies > 1:
            starts.append(at[0, units_in_copies(network.problem)])  # type: ignore[index]
        return solve_tile(network, *arguments, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(tiles, "solve_tile", seen)
    monkeypatch.setattr(stack, "_MOST_COPIES", 4)
    cold = cs.solve(problem, NEWTON)
    np.testing.assert_array_equal(starts[0], np.repeat(cold.x[:1], len(starts[0]), axis=0))
    before = 1 + len(starts[0])
    np.testing.assert_array_equal(starts[1], np.repeat(cold.x[before - 1 : before], len(starts[1]), axis=0))
    given = np.random.default_rng(1).normal(size=cold.x.shape)
    starts.clear()
    cs.solve(problem, NEWTON, start=given)
    np.testing.assert_array_equal(np.concatenate(starts), given[1:])


def test_the_worst_row_is_counted_in_the_whole_batch() -> None:
    none = Residuals(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    found = Gathered(Outcome(np.zeros((9, 1)), 0, none), 1, 0)
    worst = replace(none, kcl_relative=1e-10, worst_row=1, worst_unit=0)
    found.put([5, 6, 7], Outcome(np.ones((3, 1)), 3, worst))
    assert (found.outcome().residuals.worst_row, found.outcome().steps) == (6, 3)


def test_each_row_keeps_how_it_ended() -> None:
    row = Outcome(np.zeros((1, 1)), 5, Residuals(0.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    found = Gathered(Outcome(np.zeros((4, 1)), 0, row.residuals), 1, 0)
    found.put([3], row.ended(Status.INFEASIBLE, 5))
    found.put([1], row.ended(Status.STALLED, 6))
    found.put([0], row)
    assert found.outcome().unsolved == {1: Status.STALLED, 3: Status.INFEASIBLE}
    assert (found.outcome().status, found.outcome().steps) == (Status.STALLED, 6)
    assert [found.solved_before(k) for k in range(4)] == [None, 0, 0, 0]


def test_what_one_row_leaves_open_or_unsure_is_so_for_all() -> None:
    none = Residuals(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    found = Gathered(Outcome(np.zeros((2, 1)), 0, none), 2, 0)
    found.put([0], Outcome(np.zeros((1, 1)), 1, none, loose=np.array([True, False]), sure=False))
    found.put([1], Outcome(np.zeros((1, 1)), 1, none, loose=np.array([False, False])))
    whole = found.outcome()
    assert whole.loose is not None
    assert whole.loose.tolist() == [True, False]
    assert not whole.sure
    assert not whole.arrived


def test_what_controlled_sources_leave_open_is_solved_row_by_row() -> None:
    """A follower of itself: any voltage will do, in every row."""
    text = DECKS["shockley"] + "\nE9 z 0 z 0 1\nR9 z y 1k\nR8 y 0 1k\n"
    problem = cs.compile_problem(cs.parse(text)).with_values({"V1": np.linspace(-1.0, 1.0, 6)})
    solution = cs.solve(problem, NEWTON)
    assert not solution.determined[problem.circuit.netlist.node("z")]
    assert solution.determined[problem.circuit.netlist.node("n1_1")]


def test_many_rows_of_smooth_circuits_go_by_newton() -> None:
    assert choose_method(batch("shockley", 100), cs.Settings()) == ("newton", "a sparse network")
    assert choose_method(batch("perfect", 4), cs.Settings()) == ("bcd", "rows of a circuit of perfect diodes")
    assert choose_method(batch("perfect", 3), cs.Settings()) == ("newton", "a sparse network")


def test_rows_of_perfect_diodes_go_by_bcd_if_it_takes_few_sweeps() -> None:
    """In a ladder of 1 ohm rungs of 2 ohm end errors soon, of 1 kohm only slowly: the first sweeps of a row show it."""

    def ladder(shunt: str) -> cs.Problem:
        cards = [f"R{k} n{k} n{k + 1} 1\nRg{k} n{k + 1} 0 {shunt}" for k in range(16)]
        text = "\n".join(["t", "V1 n0 0 1", *cards, "D1 n7 0 d", ".model d d(ron=0 vfwd=0.1)"])
        return cs.compile_problem(cs.parse(text)).with_values({"V1": np.linspace(-1.0, 1.0, 8)})

    fast, slow = cs.solve(ladder("2")), cs.solve(ladder("1k"))
    assert (fast.method, fast.why) == ("bcd", "rows of a circuit of perfect diodes")
    assert (slow.method, slow.why) == ("newton", "block coordinate descent would be slow")
    for found, shunt in ((fast, "2"), (slow, "1k")):
        assert_laws(found, 1e-9)
        np.testing.assert_allclose(found.x, cs.solve(ladder(shunt), NEWTON).x, atol=1e-8)
    asked = cs.solve(ladder("1k"), cs.Settings(method="bcd"))
    assert (asked.method, asked.solved) == ("bcd", True)


@pytest.mark.parametrize(("nodes", "joins", "method"), [(600, 3, "bcd"), (400, 3, "newton"), (600, 1, "newton")])
def test_large_graphs_of_perfect_diodes_go_by_bcd(nodes: int, joins: int, method: str) -> None:
    """Each node joined to `joins` others at random; with one they are trees, and of 400 newton solves all soon."""
    rng = np.random.default_rng(0)
    cards = ["t", "V1 n0 0 1", "V2 m 0 -1", ".model d d(ron=0)"]
    for k in range(1, nodes + 1):
        others = rng.integers(k if joins == 1 else nodes, size=joins)
        cards += [f"R{k}_{j} n{k} n{other} {rng.uniform(1.0, 10.0):.4g}k" for j, other in enumerate(others)]
        cards += [f"Rm{k} n{k} m 10k", f"D{k} n{k} 0 d" if rng.random() < 0.4 else f"Rg{k} n{k} 0 20k"]
    problem = cs.compile_problem(cs.parse("\n".join(cards)))
    found = cs.solve(problem)
    assert problem.n_free == nodes and found.method == method
    assert found.why == ("a large graph of perfect diodes" if method == "bcd" else "a sparse network")
    assert_laws(found, 1e-9)
    np.testing.assert_allclose(found.x, cs.solve(problem, NEWTON).x, atol=1e-8)


def test_few_sweeps_are_foretold_by_how_fast_voltages_come_to_rest() -> None:
    """Chains of n equal resistors between known ends: rho = cos^2(pi / (n + 1)) of red-black sweeps (Young 1954).

    To 1e-9 a chain of 10 takes 250 sweeps, of 7 130. At rest, none are left; from what is not finite they lead nowhere.
    """
    for n, few in ((3, True), (7, True), (10, False), (20, False)):
        cards = [f"R{k} n{k} n{k + 1} 1k" for k in range(n + 1)]
        text = "\n".join(["t", "V1 n0 0 1", f"V2 n{n + 1} 0 0", *cards])
        problem = cs.compile_problem(cs.parse(text))
        assert problem.n_free == n
        engine, drive = find_backend("cpu").engine(problem, "float64"), problem.drive(slice(0, 1))
        assert bcd.takes_few_sweeps(drive, engine, None, 1e-9) is few
        assert bcd.takes_few_sweeps(drive, engine, cs.solve(problem).x, 1e-9)
    nothing = cs.compile_problem(cs.parse("t\nV1 a 0 0\nR1 a b 1k\nR2 b c 1k\nR3 c 0 1k"))
    engine = find_backend("cpu").engine(nothing, "float64")
    assert bcd.takes_few_sweeps(nothing.drive(slice(0, 1)), engine, None, 1e-9)
    assert not bcd.takes_few_sweeps(nothing.drive(slice(0, 1)), engine, np.full((1, 2), np.nan), 1e-9)


@pytest.mark.parametrize("diode", ["d(is=1e-14)", "d(ron=0)"])
def test_many_rows_of_meshes_go_by_newton(diode: str) -> None:
    """A sheet of 75 x 75 nodes: its smooth circuit is too large for copies, and bcd needs a thousand sweeps."""
    side = 75
    arrays = [f"Ra{k}[0:{side - 2}] a{k}[0:{side - 2}] a{k}[1:{side - 1}] 1k" for k in range(side)]
    arrays += [f"Rb{k}[0:{side - 1}] a{k}[0:{side - 1}] a{k + 1}[0:{side - 1}] 1k" for k in range(side - 1)]
    cards = ["sheet", *arrays, f".model di {diode}", "D1 a3[3] p di", "Vp p 0 1", "V1 a0[0] 0 1"]
    problem = cs.compile_problem(cs.parse("\n".join(cards))).with_values({"V1": np.linspace(-2.0, 2.0, 70)})
    assert choose_method(problem, cs.Settings()) == ("newton", "a sparse network")


def test_what_offsets_alone_drive_is_not_at_0_volts() -> None:
    """No current is injected: 2 V in a ring of three diodes."""
    deck = "ring\nR1 a 0 1k\nR2 b 0 1k\nV1 d c 2\nD1 a c dm\nD2 d b dm\nD3 b a dm\n.model dm D(is=1n)\n"
    solution = cs.solve(cs.parse(deck), NEWTON)
    assert_laws(solution, 1e-9)
    assert abs(solution.current("V1").item()) > 1.0


@pytest.mark.parametrize("text", ["R1 a 0 1k\nN1 a 0 nt\n.model nt tanh(imax=1m v0=1)\n", DECKS["shockley"]])
def test_what_nothing_drives_is_at_0_volts(text: str) -> None:
    circuit = cs.parse("t\n" + text if text[0] == "R" else text)
    names = {"V1": 0.0, "V2": 0.0, "I1": 0.0} if text[0] != "R" else {}
    solution = cs.solve(circuit.with_values(names), NEWTON)
    assert not solution.voltages().any()
    assert solution.steps == 0


def test_rows_of_other_sources_start_no_diode_far_beyond_its_knee(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the tangents of row 0 under their own sources, up to 20 V forward, no copies arrived in 20 steps."""
    deck = "far\nV1 x0 0 1\nR0 x0 x1 100\nR1 x1 0 1k\nD0 x1 x0 dd\nD1 x1 x2 di\nR2 x2 0 1k\n.model dd D\n"
    circuit = cs.parse(deck + ".model di D(ron=0)")
    problem = cs.compile_problem(circuit).with_values({"V1": np.random.default_rng(0).normal(size=100) * 10})
    one_row, rows = newton.solve_row, []

    def counted(*arguments: object) -> object:
        rows.append(1)
        return one_row(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(newton, "solve_row", counted)
    assert cs.solve(problem, NEWTON).solved
    assert len(rows) <= 4
