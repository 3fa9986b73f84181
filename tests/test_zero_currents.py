"""Nodes where nothing flows beside others where much does: their KCL is 0 of 0, which must not fail."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.branch_sums import end_sums, flat_sums
from circuitsim.solution import WEAKLY_HELD
from validation.random_circuits import AGREE, VERIFIED, judge
from validation.random_decks import random_deck


@pytest.mark.parametrize(
    ("family", "seed"),
    [
        (1, 20027),  # a dead end behind a conducting ideal diode, beside 95 V
        (1, 20427), (1, 20448), (1, 20383), (2, 30045),  # all voltages are 0, a current circulates in ideal diodes
        (2, 20264),  # a loop without a current on a source of 9 V
        (2, 20350),  # an island with the pin in it
        (2, 201319),  # a table of which nothing flows through, beside its kink
        (3, 200431),  # nothing flows anywhere
        (3, 302051),  # 3e-17 A through a perfect diode that rounding opens
        (3, 302348),  # an island that only a leakage of 1e-15 A holds, in which 46 mA flow
        (2, 30348),  # two resistors in a loop, 760 V and 1 mA beside them
        (3, 20081),  # a leakage of 1e-16 A beside 0.8 A
        (3, 20084), (3, 20340),  # islands that nothing flows between
        (4, 20190),  # the current of an open source controls another
        (4, 20037), (4, 20386), (4, 20424),  # F, G and H that carry nothing
        (4, 201574), (4, 201271),  # E and F in which nothing flows, but 1e-262 A
        (4, 20074), (4, 20490),  # a node that only controls
    ],
)  # fmt: skip
def test_random_circuits_with_quiet_corners(family: int, seed: int) -> None:
    outcome = judge(random_deck(family, seed), with_ngspice=False)
    assert outcome.kind in (AGREE, VERIFIED), outcome.why


def test_a_node_that_only_controls_has_the_voltage_that_kcl_asks_for() -> None:
    """G1 must carry the 1 mA of I1, so v(c) = v(b) + 1 V; nothing fixes v(a)."""
    solution = cs.solve(cs.parse("control\nI1 0 a 1m\nG1 a 0 c b 1m\nV1 b 0 2\nR1 b 0 1k"))
    assert solution.voltage("c")[0] == pytest.approx(3.0, rel=1e-12)
    assert not solution.determined[solution.circuit.netlist.node("a")]


def test_an_open_h_carries_nothing() -> None:
    solution = cs.solve(cs.parse("open\nV1 a 0 1\nR1 a 0 1k\nH1 a h V1 -100"))
    assert solution.voltage("h")[0] == pytest.approx(0.9, rel=1e-12)
    assert abs(solution.current("H1")[0]) < 1e-30


def test_a_source_from_a_node_to_itself_hides_no_small_current() -> None:
    solution = cs.solve(cs.parse("round\nV2 c 0 1\nI3 c c 1e9\nR4 c 0 1e12"))
    assert solution.current("V2")[0] == -1e-12


def test_sums_keep_what_rounding_loses() -> None:
    """Branch currents between two units, in rational arithmetic: 100 digits fewer than float64 would lose."""
    rng = np.random.default_rng(0)
    n, nodes = 200, 4
    a, b = rng.integers(0, nodes, n), rng.integers(0, nodes, n)
    b = np.where(a == b, (b + 1) % nodes, b)
    g = 10.0 ** rng.uniform(-9, 3, n)
    v = np.stack([rng.normal(size=nodes), 1e-17 * rng.normal(size=nodes), 1e-34 * rng.normal(size=nodes)])
    given, at = rng.normal(size=n), rng.integers(-1, nodes, n)
    exact = [Fraction(0)] * nodes
    for k in range(n):
        drop = sum((Fraction(x[a[k]]) - Fraction(x[b[k]]) for x in v), Fraction(0))
        exact[a[k]] += Fraction(g[k]) * drop
        exact[b[k]] -= Fraction(g[k]) * drop
        if at[k] >= 0:
            exact[at[k]] -= Fraction(given[k])
    ends = np.concatenate([a, b])
    order = np.argsort(ends, kind="stable")
    ptr = np.searchsorted(ends[order], np.arange(nodes + 1))
    branch, sign = np.tile(np.arange(n), 2)[order], np.repeat([1.0, -1.0], n)[order]
    flow, low, total = (np.zeros((1, nodes)) for _ in range(3))
    flat_sums(ptr, branch, sign, a, b, g, v[:, None], flow, low, total)
    end_sums(at, -1.0, given[None], flow, low, total)
    flow, low, total = flow[0], low[0], total[0]
    for k in range(nodes):
        found = Fraction(flow[k]) + Fraction(low[k])
        assert abs(found - exact[k]) <= Fraction(total[k]) * Fraction(2) ** -98
    residue = sum((Fraction(flow[k]) + Fraction(low[k]) for k in range(nodes)), Fraction(0))
    assert abs(residue + sum(map(Fraction, given[at >= 0]), Fraction(0))) <= Fraction(total.sum()) * Fraction(2) ** -98


@pytest.mark.parametrize(
    ("cards", "node", "volts"),
    [
        # 1 V over 10 uohm beside 1 kohm: i(V1) holds b only through the H.
        ("V1 a 0 1\nR1 b a 1e-05\nR2 a 0 1k\nH1 a b V1 -60k", "b", -59.0),
        # 1 Gohm holds b, while 770 A circulate at it.
        ("V1 a 0 1\nR2 a 0 1.3\nR3 a b 1e9\nR5 b c 0.7\nF1 b c V1 1000", "b", 1.0),
    ],
)
def test_voltages_that_little_holds_are_corrected(cards: str, node: str, volts: float) -> None:
    assert cs.solve(cs.parse("weak\n" + cards)).voltage(node)[0] == pytest.approx(volts, rel=1e-9)


def test_rows_of_a_batch_are_as_exact_as_one() -> None:
    """1,000 A through 1 uohm; a diode and 1 Gohm hold all of it."""
    deck = (
        "weak\n.model dm D(is=1e-14)\nV1 s 0 1\nR1 a b 1.3u\nR2 b c 1.7u\nR3 c a 2.3u\nI1 a b 1000\nI2 b c 777\n"
        "Rw a s 1e9\nDw c 0 dm"
    )
    volts = [1.0, 2.0, 0.3, 0.7]
    batch = cs.solve(cs.parse(deck).with_values({"V1": volts})).voltage("c")
    single = [cs.solve(cs.parse(deck).with_values({"V1": [v]})).voltage("c")[0] for v in volts]
    np.testing.assert_allclose(batch, single, rtol=1e-8)


@pytest.mark.parametrize("seed", range(10))
def test_loops_around_an_h_that_nothing_flows_in(seed: int) -> None:
    rng = np.random.default_rng(seed)
    v, h, (r1, r2) = rng.uniform(-5, 5), rng.uniform(-500, 500), 10.0 ** rng.uniform(0, 4, 2)
    solution = cs.solve(cs.parse(f"quiet\nV1 a 0 {v}\nR1 a b {r1}\nR2 b d {r2}\nH1 a d V1 {h}"))
    np.testing.assert_allclose([solution.voltage(n)[0] for n in "bd"], v, rtol=1e-12)


def test_a_stiff_circuit_is_not_said_to_contradict_itself() -> None:
    """1 V everywhere is the answer; float64 cannot tell 1e3 S from 1e3 S + 1e-12 S well enough to find it."""
    circuit = cs.parse("stiff\nV1 a 0 1\nR1 c b 1m\nG1 c 0 b a 1p")
    solution = cs.solve(circuit, raise_on_failure=False)
    assert not solution.solved and "as far as float64 can tell" in solution.message


@pytest.mark.parametrize("cards", ["I2 0 a 0.1\nI3 0 a 0.2\nD1 0 a d", "I2 0 a {0.3 - 1e-15}\nD1 a 0 d"])
def test_a_voltage_that_nothing_holds_is_said_to_be_unsure(cards: str) -> None:
    """Sources that balance within rounding push more than IS into a reverse diode: its voltage has no end."""
    solution = cs.solve(cs.parse(f"balance\nI1 a 0 0.3\n{cards}\n.model d D(is=1e-18)"))
    assert abs(solution.voltage("a")[0]) > 1e12
    assert "held only by tiny conductances" in solution.message and solution.remarks == [WEAKLY_HELD]
    result = cs.sweep(solution.circuit, "I1 0.3 0.3 0.1")
    assert result.statuses.tolist() == ["SOLVED"] and result.notes == ((None, WEAKLY_HELD),)
