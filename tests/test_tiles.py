"""Many rows of a small nonlinear circuit at once, by dense matrices; and rows one by one, each from the one before."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import row_by_row

import circuitsim as cs
from circuitsim import solving
from circuitsim.backends.base import find_backend
from circuitsim.gallery import grid, wired_crossbar
from circuitsim.methods import newton, tiles
from circuitsim.methods.mna import make_network
from circuitsim.methods.outcome import Outcome
from circuitsim.residual import NO_RESIDUALS, Check
from circuitsim.solution import Status

RECTIFIER = "rectifier\nV1 a 0 0\nR1 a b 100\nD1 b c dm\nR2 c 0 1k\n.model dm D({})"
BRIDGE = "bridge\nV1 a b 0\n{}\nD1 a p dm\nD2 b p dm\nD3 n a dm\nD4 n b dm\nR1 p n 1k\n.model dm D({})"
AMPLIFIER = "amplifier\nV1 a 0 0\nR1 a m 1k\nD1 m o dm\nR2 m o 10k\nE1 o 0 0 m 1e5\nR3 o 0 1k\n.model dm D({})"
GROUNDS = ["R2 n 0 1", "R2 n 0 1meg", "R2 b 0 1k", "V2 n 0 0"]
DECKS = {
    "rectifier": RECTIFIER.format("is=1e-14"),
    "breakdown": RECTIFIER.format("is=1e-14 rs=1 bv=3"),
    "no leakage": RECTIFIER.format("ron=0.1 vfwd=0.7"),
    **{f"bridge, {ground}": BRIDGE.format(ground, "is=1e-14 rs=1") for ground in GROUNDS},
    "amplifier": AMPLIFIER.format("is=1e-14"),
}
NEWTON = cs.Settings(method="newton")


def batch(deck: str, volts: np.ndarray) -> cs.Problem:
    return cs.compile_problem(cs.parse(deck)).with_values({"V1": volts})


@pytest.mark.parametrize("name", DECKS)
def test_rows_at_once_are_those_one_by_one(name: str, alone: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where diodes block, and all that flows is nothing beside the rounding of a voltage."""
    volts = np.linspace(-5.0, 5.0, 101)
    many = cs.solve(batch(DECKS[name], volts), NEWTON)
    assert not alone  # all at once
    assert many.residuals.kcl_relative <= 1e-9
    row_by_row(monkeypatch)
    one = cs.solve(batch(DECKS[name], volts), NEWTON)
    assert len(alone) == volts.size
    np.testing.assert_allclose(many.voltages(), one.voltages(), rtol=1e-9, atol=1e-12)
    amperes, wanted = many.source_currents[0], one.source_currents[0]
    np.testing.assert_allclose(amperes, wanted, rtol=1e-7, atol=1e-9 * np.abs(wanted).max())


def test_a_row_that_does_not_arrive_leaves_the_others_where_they_are(
    alone: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = 37
    at_once = tiles._AtOnce.__init__

    def failing(self: Any, *arguments: Any) -> None:
        at_once(self, *arguments)
        self.u[wrong] = np.nan
        self.arrived[wrong] = False

    monkeypatch.setattr(tiles._AtOnce, "__init__", failing)
    volts = np.linspace(-5.0, 5.0, 101)
    found = cs.solve(batch(DECKS["rectifier"], volts), NEWTON)
    assert wrong in alone and len(alone) <= 1 + 6
    assert found.residuals.kcl_relative <= 1e-9


def test_rows_whose_certificate_fails_together_are_solved_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    polished = tiles.polished

    def failing(network: Any, drive: Any, settings: Any, u: np.ndarray, *arguments: Any) -> Outcome:
        outcome = polished(network, drive, settings, u, *arguments)
        return replace(outcome, unsolved={0: Status.STALLED}) if len(u) > 1 else outcome

    monkeypatch.setattr(tiles, "polished", failing)
    found = cs.solve(batch(DECKS["rectifier"], np.linspace(-1.0, 5.0, 7)), NEWTON)
    assert found.solved and found.residuals.kcl_relative <= 1e-9


@pytest.mark.parametrize("name", ["rectifier", "amplifier"])
def test_the_dense_network_is_the_sparse_one(name: str) -> None:
    network = make_network(batch(DECKS[name], np.zeros(1)))
    rng = np.random.default_rng(1)
    slope = 10.0 ** rng.uniform(-9.0, 1.0, (6, network.legs.a.size))
    injected = rng.normal(size=(6, network.size))
    dense = network.factor(slope).solve(injected)
    for row in range(6):
        np.testing.assert_allclose(dense[row], network.factor(slope[row]).solve(injected[row : row + 1])[0], rtol=1e-6)


def test_a_singular_network_leaves_the_others_as_they_are() -> None:
    """Nothing holds `a` where its diodes do not conduct; and E1 fixes nothing where its gain is 1."""
    network = make_network(
        batch("two\nV1 b 0 1\nR1 b c 1k\nD1 a c d\nD2 a 0 d\n.model d D(ron=1 vfwd=0.6)", np.ones(1))
    )
    a, c = (network.problem.topology.index_of_node[network.problem.circuit.netlist.node(name)] for name in "ac")
    slope, injected = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]), np.zeros((3, 2))
    injected[:, c] = 1e-3
    found = network.factor(slope).solve(injected)
    for row in (0, 2):
        np.testing.assert_allclose(found[row], network.factor(slope[row]).solve(injected[row : row + 1])[0])
    assert found[1, a] == 0.0 and found[1, c] == pytest.approx(1.0)
    loop = make_network(batch("loop\nV1 b 0 1\nR1 b c 1k\nD1 c 0 d\nE1 c 0 c 0 1\n.model d D(ron=1)", np.ones(1)))
    assert np.isnan(loop.factor(np.zeros((2, 1))).solve(np.ones((2, 2)))).all()


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("model", ["ron=0 vfwd=0.7", "ron=0.1 vfwd=0.7"])
def test_a_bridge_of_perfect_diodes(ground: str, model: str, alone: list[int]) -> None:
    """At +-1.4 V two ways of conducting are as good, and a step of 0.05 V opened every diode that conducted."""
    volts = np.arange(-100, 101) * 0.05
    found = cs.solve(batch(BRIDGE.format(ground, model), volts), NEWTON)
    assert found.residuals.kcl_relative <= 1e-9
    ron = 0.0 if "ron=0 " in model else 0.1
    across = np.maximum(np.abs(volts) - 1.4, 0.0) * 1000.0 / (1000.0 + 2 * ron)
    np.testing.assert_allclose(found.voltage("p") - found.voltage("n"), across, rtol=0, atol=1e-11)
    if ron:  # one from each of few states, for others to start from; and some at knees
        assert len(alone) <= 40
    assert len(alone) <= volts.size + 12  # hardly any with another network
    assert found.steps <= 80


@pytest.mark.parametrize("volts", [-2.0, 2.0])
def test_states_of_the_interior_point_method_are_those_to_finish_from(volts: float) -> None:
    """They were the states of its voltages: full steps went round in circles, and 120 steps were in vain."""
    found = cs.solve(batch(BRIDGE.format("V2 n 0 0", "ron=0.1 vfwd=0.7"), np.array([volts])), NEWTON)
    assert found.steps <= 15


ROW = "row\nV1 n0 0 0\n" + "\n".join(f"D{k} n{k} n{k + 1} dm" for k in range(20)) + "\nR1 n20 0 1k\n"
GATE = "gate\nV1 a 0 0\nV2 b 0 {}\nD1 a o dm\nD2 b o dm\nR1 o 0 1k\n"
JUST_ABOVE = 2.7e-14  # V: the currents are less than what a last digit of the diodes' voltages makes


@pytest.mark.parametrize(
    ("deck", "knee", "out"), [(ROW, 12.0, "n20"), (GATE.format(0), 0.6, "o"), (GATE.format(-2), 0.6, "o")]
)
@pytest.mark.parametrize("start", [False, True])
def test_knees_that_rounding_decides(deck: str, knee: float, out: str, start: bool) -> None:
    """Also from the row before, and with all rows at once: all of them stalled after hundreds of steps, one 2,058."""
    deck += ".model dm D(ron=1 vfwd=0.6)"
    above = np.array([-0.05, -1e-12, 0.0, 2.3e-15, JUST_ABOVE, 1e-12, 0.05])
    ohms = 1000.0 + (20.0 if out == "n20" else 1.0)
    for volts in [knee + above] if start else (knee + above)[:, None]:
        found = cs.solve(batch(deck, volts), NEWTON)
        assert found.residuals.kcl_relative <= 1e-9 and found.steps <= 30
        wanted = np.maximum(volts - knee, 0.0) * 1000.0 / ohms
        np.testing.assert_allclose(found.voltage(out), wanted, rtol=1e-9, atol=64 * 2.3e-16 * knee)


def test_wrong_states_are_not_refined_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full steps end with an open diode beyond its voltage, and with one that conducts and does not close."""
    checks: list[int] = []
    check = Check.__init__

    def counted(*arguments: Any, **how: Any) -> None:
        checks.append(1)
        check(*arguments, **how)

    monkeypatch.setattr(Check, "__init__", counted)
    found = cs.solve(batch(BRIDGE.format("V2 n 0 0", "ron=0 vfwd=0.7"), np.array([2.0])), NEWTON)
    assert found.status is Status.SOLVED
    assert len(checks) <= 20  # 17 for each of two, once


def test_rows_of_several_solutions_follow_one(alone: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A Schmitt trigger: where some rows are not solved at once all are solved one by one, both ways."""
    limits = "D1 o c dm\nV2 c 0 3\nD2 d o dm\nV3 d 0 -3\n.model dm D(ron=1 vfwd=0.6 roff=1g)"
    deck = f"trigger\nV1 in 0 0\nR1 o p 1k\nR2 p in 1k\nE1 x 0 p 0 10\nR3 x o 100\n{limits}"
    volts = np.linspace(-6.0, 6.0, 61)
    at_once = tiles._AtOnce.__init__

    def failing(self: Any, *arguments: Any) -> None:
        at_once(self, *arguments)
        self.arrived[30] = False

    monkeypatch.setattr(tiles._AtOnce, "__init__", failing)
    up, down = (cs.solve(batch(deck, v), NEWTON).voltage("o") for v in (volts, volts[::-1]))
    assert len(alone) == 2 * volts.size
    assert up[0] < -3.0 < 3.0 < up[-1] and down[0] > 3.0 > -3.0 > down[-1]
    assert np.count_nonzero(np.diff(up) > 1.0) == np.count_nonzero(np.diff(down) < -1.0) == 1
    assert (down[::-1] - up > 6.0).any()


# -- strings whose currents are less than what the last digit of a voltage makes in a steep diode ----------------------


def string(*elements: str) -> str:
    cards = [f"{element[:2]} n{k} n{k + 1} {element[3:]}" for k, element in enumerate(elements)]
    models = [f".model {name} D({law})" for name, law in STEEP.items()]
    return "\n".join(["string", "V1 n0 0 0", *cards[:-1], cards[-1].replace(f"n{len(cards)} ", "0 "), *models])


STEEP = {
    "micro": "ron=1u vfwd=0.3", "micro7": "ron=1u vfwd=0.7", "milli": "ron=1m vfwd=0.7 vrev=5", "one": "ron=1 vfwd=0",
    "one6": "ron=1 vfwd=0.6", "ten": "ron=10 vfwd=0.6", "perfect": "ron=0 vfwd=0.6", "leaky": "IS=1e-14",
}  # fmt: skip


def test_rows_that_newton_leaves_are_solved_by_sweeps() -> None:
    """10 fA through a Zener diode of 1 mOhm: each point alone was solved, and of a batch some were not."""
    deck, volts = string("D1 leaky", "D2 milli", "R1 1meg"), np.arange(-10.0, 10.01, 0.25)
    found = cs.solve(batch(deck, volts))
    assert found.solved and found.method == "newton"
    assert re.search(r"newton did not solve \d of 81 rows, bcd did", found.why)
    alone = [cs.solve(batch(deck, volts[k : k + 1])).voltage("n2")[0] for k in range(0, volts.size, 8)]
    np.testing.assert_allclose(found.voltage("n2")[::8], alone, rtol=1e-7, atol=1e-9 * 10)


def test_a_correction_that_leaves_out_what_may_be_rounding_proves_nothing() -> None:
    """It was taken for the last one: 4e-6 of the source off, with a certificate of 7e-25."""
    deck = string("R1 1meg", "D1 micro", "D2 one", "D3 perfect", "R2 577.09meg") + "\nR3 n3 n4 1meg"
    volts = 0.3428189722122917
    current = (volts - 0.3) / (1e6 + 1.0 + 1e-6 + 1e6 + 577.09e6)
    assert cs.solve(batch(deck, np.array([volts]))).voltage("n4")[0] == pytest.approx(current * 577.09e6, rel=1e-9)


def test_small_conductances_beyond_large_ones_hide_no_states() -> None:
    """1 MOhm behind 1 Ohm, and 10 GOhm across a diode: half of these points were not solved, or after 140 steps."""
    bypassed = string("D1 one", "D2 one6", "R1 1meg", "D3 micro7", "R2 1k") + "\nR3 n1 n2 10g"
    found = cs.solve(batch(bypassed, np.linspace(0.71, 1.3, 30)), NEWTON)
    assert found.solved and found.steps <= 90
    one = cs.solve(batch(string("D1 one", "R1 1", "D2 ten", "R2 1meg"), np.array([0.6547540946326881])), NEWTON)
    assert one.voltage("n3")[0] == pytest.approx(0.0547540946326881 * 1e6 / (1e6 + 12.0), rel=1e-9)
    assert one.steps <= 40


LINEAR = {
    "Vx": wired_crossbar(12),
    "Vleft": grid(9, 9).text,
    "V1": "t\nV1 a b 1\nR1 a 0 1k\nR2 b 0 2k\nR3 b c 1k\nV2 c 0 1\nI1 0 a 1m\n",
}


@pytest.mark.parametrize("name", LINEAR)
def test_tiles_of_a_linear_circuit_are_solved_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One elimination solves them all: to the same bits as one after another, whatever the number of threads."""
    circuit = cs.parse(LINEAR[name])
    volts = np.random.default_rng(3).normal(size=(23, 12 if name == "Vx" else 1))
    problem = cs.compile_problem(circuit.with_values({name: volts}))
    monkeypatch.setattr(solving, "_IN_CACHE", 3 * problem.n_free)
    backend, at_work, most, lock = find_backend("cpu"), 0, 0, threading.Lock()

    def watched(*arguments: Any) -> Any:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.01)
        try:
            return original(*arguments)
        finally:
            with lock:
                at_work -= 1

    original = tiles.solve_tile
    monkeypatch.setattr(tiles, "solve_tile", watched)
    found = []
    for workers, in_order in ((1, False), (4, True), (4, False)):
        backend.workers, most = workers, 0
        found.append(cs.solve(problem, NEWTON, backend=backend, in_order=in_order))
        assert (most > 1) == (workers > 1 and not in_order)
    for solution in found:
        assert solution.solved and solution.residuals == found[0].residuals
        assert solution.x.tobytes() == found[0].x.tobytes()
        np.testing.assert_allclose(
            solution.voltages()[3], cs.solve(circuit.with_values({name: volts[3]})).voltages()[0]
        )


def test_tiles_that_keep_states_are_solved_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    problem = batch(DECKS["bridge, R2 n 0 1"], np.linspace(-1.0, 1.0, 30))
    monkeypatch.setattr(solving, "_IN_CACHE", 3 * problem.n_free)
    original = tiles.solve_tile
    monkeypatch.setattr(tiles, "solve_tile", lambda *a: (threads.add(threading.current_thread().name), original(*a))[1])
    assert cs.solve(problem, NEWTON).solved
    assert threads == {threading.current_thread().name}


def test_tiles_keep_their_currents_and_the_worst_row_is_that_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a row; perfect diodes carry what voltages do not say."""
    monkeypatch.setattr(solving, "_IN_CACHE", 0)
    deck = "t\nV1 a 0 1\nR1 a b 1k\nD1 b c j\nR2 c 0 1k\n.model j D(ron=0 vfwd=0.7)"
    found = cs.solve(batch(deck, np.array([[1.0], [0.5], [-3.0], [9.0]])))
    np.testing.assert_allclose(found.current("D1"), [1.5e-4, 0, 0, 4.15e-3], rtol=1e-9, atol=0)
    assert found.residuals.worst_row == 3


def test_steps_are_those_of_the_tile_that_took_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "_IN_CACHE", 0)
    deck, volts = "t\nV1 a 0 1\nR1 a b 1k\nD1 b 0 d\n.model d D(is=1e-14)", np.array([[1.0], [-3.0]])
    alone = [cs.solve(batch(deck, row[None])).steps for row in volts]
    assert cs.solve(batch(deck, volts)).steps == max(alone) > min(alone)


def test_tiles_that_come_later_hide_nothing_of_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of a row: rows without a solution, digits beyond float64, what is open, and what little holds."""
    monkeypatch.setattr(solving, "_IN_CACHE", 0)
    negative = cs.parse("negative\nI1 0 a 1m\nR1 a 0 1k\nG1 a 0 a 0 -2m\nD1 a 0 d\n.model d D(ron=0)")
    none = cs.solve(negative.with_values({"I1": [1e-3, -1e-3, 0.0, -2e-3, 1e-3]}), raise_on_failure=False)
    assert none.unsolved == {1: Status.INFEASIBLE, 3: Status.INFEASIBLE}
    far = batch("far\nVcm p 0 1e6\nR0 p a 1k\nV1 b a 0\nR2 b c 1\nR3 c a 1", np.array([1e-6, 2e-6]))
    np.testing.assert_allclose(cs.solve(far, NEWTON).current("R2"), [5e-7, 1e-6], rtol=1e-8)
    held = batch("held\nV1 a 0 0\nD1 a c d\nR1 c 0 1k\nG1 c 0 c 0 -1m\n.model d D(ron=1)", np.array([-1.0, 2.0]))
    assert not cs.solve(held).determined[held.circuit.netlist.node("c")]
    saturated = cs.parse("t\nI1 0 a 1m\nN1 a 0 ta\nR1 a 0 1e14\n.model ta tanh(imax=1m v0=0.1)")
    assert "less accurate" in cs.solve(saturated.with_values({"I1": [1e-3, 1e-4]}), NEWTON).message


@pytest.mark.parametrize("rows", [1, 3])
def test_where_sweeps_fail_as_well_the_answer_is_newton_s(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    solve_row, wrong = newton.solve_row, Outcome(np.full((1, 2), 7.0), 3, NO_RESIDUALS, {0: Status.MAX_SWEEPS})
    monkeypatch.setattr(newton, "solve_row", lambda *a: replace(solve_row(*a), unsolved={0: Status.STALLED}))
    monkeypatch.setattr(solving._Batch, "_by_bcd", lambda *_, **__: wrong)
    deck = "clamp\nV1 i 0 1\nR1 i a 1k\nR2 a b 1k\nD1 b 0 d\n.model d D(ron=0)"
    found = cs.solve(batch(deck, np.ones(rows)), cs.Settings(backend="cpu"), raise_on_failure=False)
    assert found.method == "newton" and "bcd" not in found.why
    assert found.unsolved == dict.fromkeys(range(rows), Status.STALLED)
    np.testing.assert_allclose(found.voltage("a"), np.full(rows, 0.5))


@pytest.mark.parametrize("law", ["", "N1 b 0 curved\n.model curved tanh(imax=1m v0=0.5)"])
def test_rows_of_later_tiles_are_solved_with_their_own_sources(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of straight pieces and of others; rows that have the same states do not stand beside each other."""
    deck = f"rows\nV1 a 0 0\nR1 a b 1k\nD1 b c d\nR2 c 0 1k\n{law}\n.model d D(ron=0 vfwd=0.3)"
    volts = np.random.default_rng(5).permutation(np.linspace(-2.0, 2.0, 60))
    problem = batch(deck, volts)
    monkeypatch.setattr(solving, "_IN_CACHE", 19 * problem.n_free)
    found = cs.solve(problem, NEWTON)
    b, c = found.voltage("b"), found.voltage("c")
    amperes = 1e-3 * np.tanh(b / 0.5) if law else 0.0
    np.testing.assert_allclose((volts - b) / 1000.0, amperes + c / 1000.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(c, np.maximum(b - 0.3, 0.0), rtol=0, atol=1e-12)
