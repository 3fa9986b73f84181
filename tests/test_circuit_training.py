"""Trained resistors that are open: they stay in the circuit with 0 S, and change nothing until they get a value."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from helpers import PRECISE, assert_close, assert_laws

import circuitsim as cs
from circuitsim.circuit import Circuit
from circuitsim.gallery import Recipe, random_circuit
from circuitsim.io.inventory import inventory
from circuitsim.spice.flatten import flatten

LADDER = "t\nV1 a 0 6\nR1 a b 1k\nR2[0:2] b c[0:2] g=@g.npy\nR3[0:2] c[0:2] 0 2k\nRo a c[1] inf\nRx b c[2] g=0\n"


def conductances(circuit: Circuit) -> dict[str, float]:
    c = circuit.conductors
    return {circuit.element(c, k): float(c.g[k]) for k in range(len(c))}


def bridge(trained: str, r2: str = "1k", rg: str = "inf") -> Circuit:
    return cs.parse(f"t\nV1 a 0 6\nR1 a l 1k\nR2 l 0 {r2}\nR3 a r 2k\nR4 r 0 1k\nRg l r {rg}\nRn a 0 inf\n{trained}")


def test_only_trained_open_resistors_stay() -> None:
    live = {"R1", "R2", "R3", "R4"}
    assert conductances(bridge("")).keys() == live
    assert conductances(bridge(".train R1")).keys() == live
    assert conductances(bridge(".train R1 rG")).keys() == live | {"Rg"}
    assert conductances(bridge(".train Rg", rg="g=0"))["Rg"] == 0.0
    assert len(cs.parse("t\nV1 a 0 1\nR[0:1][0:1] a[0:1] b[0:1] g=0\n.train R").conductors) == 0


def test_members_of_trained_arrays_stay_in_their_place(tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", np.array([1e-3, 0.0, 2e-3]))
    deck = tmp_path / "deck.cir"
    text = LADDER
    deck.write_text(f"{text}.train R2\n")
    whole = cs.load(deck)
    assert list(conductances(whole)) == ["R1", "R2[0]", "R2[1]", "R2[2]", "R3[0]", "R3[1]", "R3[2]"]
    assert conductances(whole)["R2[1]"] == 0.0
    deck.write_text(f"{text}.train R2[1] RX\n")
    assert list(conductances(cs.load(deck))) == [*conductances(whole), "Rx"]
    deck.write_text(text)
    assert "R2[1]" not in conductances(cs.load(deck))


def test_a_trained_open_resistor_takes_a_conductance_and_gives_it_back() -> None:
    opened = bridge(".train Rg")
    closed = opened.with_values({"Rg": 2e-3})
    fresh = bridge("", rg="g=2m")
    assert_close(cs.solve(closed, PRECISE).voltages(), cs.solve(fresh, PRECISE).voltages(), 1e-11)
    assert_close(
        cs.solve(closed.with_values({"Rg": 0.0}), PRECISE).voltages(), cs.solve(bridge(""), PRECISE).voltages(), 1e-11
    )


def test_other_opens_and_shorts_take_none() -> None:
    message = "a short cannot take a new conductance, nor can an open resistor that .train does not name"
    for circuit, name in ((bridge(""), "Rg"), (bridge(".train Rg"), "Rn"), (bridge(".train R2", r2="0"), "R2")):
        with pytest.raises(cs.SettingsError, match=f"^{name}: {message}"):
            circuit.with_values({name: 1e-3})


def test_the_problem_follows_a_resistor_that_comes_and_goes() -> None:
    problem = cs.compile_problem(bridge(".train Rg"))
    for g in (1e-3, 0.0, 5e-4):
        problem = problem.with_values({"Rg": g})
        found = cs.solve(problem, PRECISE)
        wanted = cs.solve(bridge("", rg=f"g={g!r}"), PRECISE)
        assert_close(found.voltages(), wanted.voltages(), 1e-11)
        assert_laws(found)


def test_a_node_that_only_a_trained_open_resistor_joins_is_an_island_until_it_grows() -> None:
    circuit = cs.parse("t\nV1 a 0 6\nRa a b g=0\nRb b c 1k\n.train Ra")
    problem = cs.compile_problem(circuit)
    solution = cs.solve(problem, PRECISE)
    assert solution.voltage("b")[0] == solution.voltage("c")[0] == 0.0
    assert inventory(problem)["islands"] == [{"nodes": ["b", "c"], "pinned": True}]
    grown = problem.with_values({"Ra": 1e-3})
    assert inventory(grown)["islands"] == []
    assert cs.solve(grown, PRECISE).voltage("c")[0] == pytest.approx(6.0)


def test_a_current_into_an_island_is_refused_until_it_has_a_way_out() -> None:
    problem = cs.compile_problem(cs.parse("t\nI1 0 a 1m\nR1 a 0 g=0\nR2 b 0 1\n.train R1"))
    with pytest.raises(cs.TopologyError, match=r"node a: I1 pushes a net 0\.001 A into it"):
        cs.solve(problem)
    assert cs.solve(problem.with_values({"R1": 1e-3}), PRECISE).voltage("a")[0] == pytest.approx(1.0)


def test_reports_and_plain_spice_do_not_count_them_as_conductances() -> None:
    circuit = bridge(".train Rg")
    out = io.StringIO()
    flatten(circuit, out)
    assert "Rg " not in out.getvalue()
    assert "* left out, no DC current there: infinite resistors (2)\n" in out.getvalue()
    names = {name for *_, name in circuit.to_networkx().edges(data="name")}
    assert names == {"V1", "R1", "R2", "R3", "R4"}
    assert inventory(cs.compile_problem(circuit))["elements"]["R"] == 6
    solution = cs.solve(circuit, PRECISE)
    assert solution.current("Rg").tolist() == solution.power("Rg").tolist() == [0.0]


@pytest.mark.parametrize("seed", range(12))
def test_trained_opens_do_not_change_the_solution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = random_circuit(rng, Recipe(nodes=12, floating_sources=2))
    ends = [f"n[{a}] n[{b}]" for a, b in rng.integers(0, 12, (30, 2)).tolist()]
    opens = [f"Ropen{k} {pair} {'inf' if k % 2 else 'g=0'}" for k, pair in enumerate(ends)]
    lines = [text, *opens, ".train " + " ".join(f"Ropen{k}" for k in range(len(opens)))]
    circuit = cs.parse("\n".join(lines))
    assert (circuit.conductors.g == 0).sum() == len(opens)
    found, wanted = cs.solve(circuit, PRECISE), cs.solve(cs.parse(text), PRECISE)
    assert found.circuit.nodes == wanted.circuit.nodes
    assert_close(found.voltages(), wanted.voltages(), 1e-9)
    np.testing.assert_array_equal(found.determined, wanted.determined)
    assert_laws(found)
