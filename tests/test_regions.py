"""methods/regions.py: rows of a circuit of straight pieces that have the states of another row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers import row_by_row, some_slow

import circuitsim as cs
from circuitsim.methods import regions
from circuitsim.methods.mna import make_network
from circuitsim.methods.outcome import Gathered, Outcome
from circuitsim.methods.rows import Tile

NEWTON = cs.Settings(method="newton")
MODELS = """
.model perfect D(ron=0 vfwd=0.3)
.model both D(ron=50 roff=1e7 vfwd=0.5 vrev=2 rrev=10)
.model clipped pwl(-1 -2m -0.5 -2m 0.5 2m 1 2m)
"""
LADDER = ["ladder", "V1 n0 0 0", *(f"R{k} n{k} n{k + 1} 1k\nD{k} n{k + 1} m{k} perfect" for k in range(9))]


def mixed(n: int, seed: int) -> str:
    """A tree of resistors with perfect diodes, between free nodes and to fixed ones, PWL diodes and N elements."""
    rng = np.random.default_rng(seed)
    cards = ["mixed", "V1 n0 0 0", "V2 s 0 1", "Rs s n1 100", "I1 0 n2 1m"]
    cards += [f"R{k} n{k} n{rng.integers(0, k)} {10 ** rng.uniform(1, 5)}" for k in range(1, n)]
    for k, (a, b) in enumerate(rng.integers(1, n, (2 * n, 2))):
        end = f"n{b}" if a != b else "0" if k % 2 else "s"
        kind = rng.choice(["perfect", "both", "clipped"])
        cards.append(f"{'N' if kind == 'clipped' else 'D'}{k} n{a} {end} {kind}")
    return "\n".join(cards) + MODELS


def assert_same(many: cs.Solution, one: cs.Solution) -> None:
    """Certified both, and the same voltages, currents and marks."""
    assert many.solved and one.solved
    assert (many.kcl_relative <= 1e-9).all()
    np.testing.assert_array_equal(many.determined, one.determined)
    largest = np.abs(one.voltages()).max(axis=1, keepdims=True)
    apart = np.abs(many.voltages() - one.voltages())[:, one.determined]
    assert (apart <= 1e-9 * largest).all()
    (amperes, unique), wanted = many.source_currents, one.source_currents[0]
    np.testing.assert_allclose(amperes[:, unique], wanted[:, unique], rtol=1e-6, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("seed", some_slow(range(12), 6))
@pytest.mark.parametrize("n", [6, 60])
def test_rows_are_those_one_by_one(n: int, seed: int, alone: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    problem = cs.compile_problem(cs.parse(mixed(n, seed)))
    volts = np.linspace(-4.0, 4.0, 81) if n < 10 else np.linspace(-0.2, 0.2, 81)
    problem = problem.with_values({"V1": volts, "V2": volts[::-1] / 3 + 1})
    many = cs.solve(problem, NEWTON)
    assert len(alone) < 81
    row_by_row(monkeypatch)
    assert_same(many, cs.solve(problem, NEWTON))


def test_one_row_of_each_region_is_solved(alone: list[int]) -> None:
    """Nine diodes to potentials that rise from node to node: one after the other conducts."""
    deck = "\n".join([*LADDER, *(f"Vm{k} m{k} 0 {0.5 - 0.05 * k}" for k in range(9))]) + MODELS
    problem = cs.compile_problem(cs.parse(deck)).with_values({"V1": np.linspace(-1.0, 3.0, 1001)})
    solution = cs.solve(problem, NEWTON)
    assert 2 <= len(alone) <= 9 + 1
    assert solution.residuals.kcl_relative <= 1e-9
    rng = np.random.default_rng(0)
    mixed_up = rng.permutation(1001)
    again = cs.solve(problem.with_values({"V1": np.linspace(-1.0, 3.0, 1001)[mixed_up]}), NEWTON)
    np.testing.assert_allclose(again.voltages(), solution.voltages()[mixed_up], rtol=0, atol=1e-12)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows are left to others, of each tile."""
    counts: list[int] = []
    solve = regions.solve

    def counted(tile: Tile) -> np.ndarray:
        rows = solve(tile)
        counts.append(rows.size)
        return rows

    monkeypatch.setattr(regions, "solve", counted)
    return counts


@pytest.mark.parametrize(("n", "rows"), [(30, 50), (8, 2000)])
def test_where_few_rows_have_the_same_states_they_are_left(
    n: int, rows: int, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Diodes apart from each other: 2^30 states, and 256 of 8 rows each, which are too few to go on."""
    tried: list[int] = []
    same = regions._solve_same
    monkeypatch.setattr(regions, "_solve_same", lambda *arguments: tried.append(1) or same(*arguments))
    cards = "\n".join(f"V{k} s{k} 0 0\nR{k} s{k} a{k} 1k\nD{k} a{k} b{k} perfect\nRb{k} b{k} 0 1k" for k in range(n))
    volts = np.random.default_rng(0).normal(size=(rows, n))
    problem = cs.compile_problem(cs.parse("many\n" + cards + MODELS))
    solution = cs.solve(problem.with_values({f"V{k}": volts[:, k] for k in range(n)}), NEWTON)
    assert min(left) > 0 and len(tried) <= 12 * len(left)
    for k in range(n):
        np.testing.assert_allclose(
            solution.voltage(f"b{k}"), np.maximum(volts[:, k] - 0.3, 0.0) / 2, rtol=0, atol=1e-12
        )
    assert solution.solved


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_each_row_is_put_once(n: int, seed: int, left: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put a second time would leave digits, and residuals, of what it replaces."""
    count, put = np.zeros(60, int), Gathered.put

    def counted(self: Gathered, rows: Sequence[int], found: Outcome) -> None:
        if self.solved.size == count.size:
            count[rows] += 1
        put(self, rows, found)

    monkeypatch.setattr(Gathered, "put", counted)
    rng = np.random.default_rng(seed)
    problem = cs.compile_problem(cs.parse(mixed(n, seed))).with_values({"V1": rng.normal(size=60), "V2": np.ones(60)})
    values = {"V2": rng.normal(size=60) * 4, "I1": rng.normal(size=60) * 1e-2}
    solution = cs.solve(problem.with_values(values), NEWTON)
    assert (count == 1).all()
    assert (solution.kcl_relative <= 1e-9).all()
    assert solution.residuals.kcl_relative == pytest.approx(solution.kcl_relative.max(), rel=1e-6)


def test_the_certificate_says_which_rows_have_these_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were all rows said to be on the pieces of the first, those that are not would be left out one after the other."""
    on_pieces = regions._on_pieces

    def wrong(*arguments: Any) -> Any:
        u, current, within = on_pieces(*arguments)
        return u, current, np.ones_like(within)

    monkeypatch.setattr(regions, "_on_pieces", wrong)
    deck = "clamp\nV1 a 0 0\nR1 a b 1k\nD1 b c perfect\nR2 c 0 1k" + MODELS
    volts = np.linspace(-1.0, 1.0, 41)
    solution = cs.solve(cs.compile_problem(cs.parse(deck)).with_values({"V1": volts}), NEWTON)
    np.testing.assert_allclose(solution.voltage("c"), np.maximum(volts - 0.3, 0.0) / 2, rtol=0, atol=1e-12)
    assert solution.residuals.kcl_relative <= 1e-9


@pytest.mark.parametrize(
    ("card", "straight"),
    [("D1 a b both", True), ("N1 a b clipped", True), ("D1 a b s", False), ("D1 a b both\nE1 b 0 a 0 2", False)],
)
def test_circuits_of_straight_pieces(card: str, straight: bool) -> None:
    deck = f"kind\nV1 s 0 1\nRs s a 1k\n{card}\nRb b 0 1k\n.model s D(is=1e-14)" + MODELS
    assert regions.straight(make_network(cs.compile_problem(cs.parse(deck)))) == straight


@pytest.mark.parametrize("amperes", [np.linspace(1e-3, 2e-3, 11), np.zeros(12)], ids=["at a source", "none"])
def test_current_sources_that_move_no_unknown(amperes: np.ndarray) -> None:
    """Their rows all have the same injections, kept once."""
    deck = "rail\nV1 in 0 3\nI1 in 0 1m\nR1 in a 1k\nR2 a b 1k\nR3 b 0 1k\nD1 a 0 perfect\nD2 b 0 perfect" + MODELS
    problem = cs.compile_problem(cs.parse(deck)).with_values({"I1": amperes})
    assert problem.drive(slice(0, amperes.size)).injection.shape[0] == 1
    solution = cs.solve(problem, NEWTON)
    assert solution.solved
    np.testing.assert_allclose(solution.voltage("a"), np.full(amperes.size, 0.3), rtol=0, atol=1e-15)
    np.testing.assert_allclose(solution.current("V1"), -2.7e-3 - amperes, rtol=1e-12)
