"""The certificate: right by hand, and able to fail."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import PRECISE, assert_laws

import circuitsim as cs
from circuitsim import kcl, residual, solving
from circuitsim.branch_sums import crossbar_sums, ufunc_at, violations
from circuitsim.gallery import Recipe, drn, random_circuit
from circuitsim.kcl import active_laws, exact_sums, shift, violation
from circuitsim.laws import branch_current
from circuitsim.residual import FIGURES, Check, Residuals

pytestmark = pytest.mark.usefixtures("kernel_form")

INF = np.inf
CASES = Path(__file__).parent / "fuzz_cases"
AMPLIFIER = "t\nV1 a 0 1\nR1 a d 1k\nR2 d 0 1k\nE1 o 0 d 0 2\nR3 o p 1k\nR4 p 0 1k\n"


@pytest.mark.parametrize(
    ("flow", "slope", "x", "lo", "hi", "rho"),
    [
        (2.0, 1.0, 0.0, -INF, INF, 2.0),  # free: all of F
        (-2.0, 4.0, 1.0, -INF, INF, -2.0),
        (0.0, 1.0, 3.0, -INF, INF, 0.0),
        (2.0, 1.0, 0.0, 0.0, INF, 0.0),  # at lo, its diode supplies F
        (-2.0, 1.0, 0.0, 0.0, INF, -2.0),  # at lo, but the diode cannot carry F backwards
        (-2.0, 1.0, 1.0, -INF, 1.0, 0.0),  # at hi, likewise
        (2.0, 1.0, 1.0, -INF, 1.0, 2.0),
        (2.0, 1.0, 0.5, 0.0, INF, 0.5),  # above lo by less than the step to the root: the gap counts
        (2.0, 1.0, 5.0, 0.0, INF, 2.0),  # above lo by more: F counts
        (-3.0, 1.0, 0.5, -INF, 1.0, -0.5),
        (-3.0, 1.0, -9.0, -INF, 1.0, -3.0),
        (2.0, 4.0, 0.25, 0.0, INF, 1.0),  # s times the gap
        (2.0, 1.0, -0.5, 0.0, INF, -0.5),  # below lo: the diode is over-driven by the gap
        (-2.0, 1.0, -0.5, 0.0, INF, -2.0),
        (-2.0, 1.0, 1.5, 0.0, 1.0, 0.5),  # above hi
        (5.0, 0.0, 1.0, 0.0, INF, 5.0),  # no slope: only the sign of F counts
        (5.0, 0.0, 0.0, 0.0, INF, 0.0),
        (-5.0, 0.0, 0.0, 0.0, INF, -5.0),
        (-5.0, 0.0, 1.0, 0.0, 1.0, 0.0),
        (-5.0, 0.0, 0.5, 0.0, 1.0, -5.0),
        (0.0, 0.0, 0.5, -INF, INF, 0.0),
        (1.0, 1.0, 2.0, 2.0, 2.0, 0.0),  # held from both sides
        (-1.0, 1.0, 2.0, 2.0, 2.0, 0.0),
    ],
)
def test_violation(flow: float, slope: float, x: float, lo: float, hi: float, rho: float) -> None:
    arguments = (np.array([value]) for value in (flow, slope, x, lo, hi))
    assert violation(*arguments)[0] == rho
    at, none, out = np.array([[x]]), np.zeros((1, 1)), [np.zeros((1, 1)) for _ in range(4)]
    injection = np.array([[slope * x - flow]])
    to_fixed, bounds = np.array([slope]), (np.array([[lo]]), np.array([[hi]]))
    violations(
        at, none, none, to_fixed, to_fixed, injection, none, none, np.abs(injection) + 1.0, none, none, none,
        *bounds, 1e-12, True, *out,
    )  # fmt: skip
    assert [out[0].item(), out[1].item()] == [flow, rho]
    assert (out[2].item() > 1e-3) == (rho != 0.0)


def check(text: str, x: float) -> Residuals:
    problem = cs.compile_problem(cs.parse(text))
    return Check(problem, problem.drive(slice(0, 1)), np.array([[x]])).certificate()


@pytest.mark.parametrize("x", [np.nan, np.inf])
@pytest.mark.parametrize("exact", [False, True])
def test_what_is_no_number_has_no_certificate(x: float, exact: bool) -> None:
    problem = cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 a b 1\nR2 b c 1\nR3 c 0 1\nD1 c 0 d\n.model d D(is=1n)"))
    at = np.full((2, problem.n_free), 0.5)
    at[1, 0] = x
    found = Check(problem.with_values({"V1": np.ones(2)}), problem.drive(slice(0, 1)), at, exact=exact)
    assert not found.finite() and not found.meets(1e-3)
    assert np.isnan(figures(found.certificate())).all()


def test_voltages_that_overflow_are_not_called_met() -> None:
    """9 V across a sinh of 0.16 V and a diode without a series resistance: some 1e15 A."""
    solution = cs.solve(cs.load(CASES / "voltages_overflow.cir"), raise_on_failure=False)
    assert not solution.solved
    assert np.isnan(solution.residuals.kcl_relative) or solution.residuals.kcl_relative > 1e-9
    assert "KCL is met" not in solution.message


def figures(r: Residuals) -> list[float]:
    return [getattr(r, name) for name in FIGURES]


DIVIDER = "divider\nV1 in 0 1\nR1 in a 1k\nR2 a 0 1k"
CLAMP = "clamp\n.model i D(ron=0)\nI1 h 0 1m\nR1 h 0 1k\nD1 0 h i"  # 1 mA is drawn from h, the diode holds it at 0 V


@pytest.mark.parametrize("d", [1e-3, -0.25])
def test_figures_of_a_free_unit_by_hand(d: float) -> None:
    """At 0.5 + d: F = 2 mS d, absolute currents 0.5 mA - d mS and 0.5 mA + d mS, span 1 V."""
    assert figures(check(DIVIDER, 0.5)) == [0.0] * 6
    wanted = [2e-3 * abs(d), 2 * abs(d), 0.0, 0.0, (0.5 + d) * 2e-3 * abs(d), 2e-3 * abs(d)]
    np.testing.assert_allclose(figures(check(DIVIDER, 0.5 + d)), wanted, rtol=1e-12)


def test_figures_of_a_clamped_unit_by_hand() -> None:
    """At h = d: F = 1 mS d + 1 mA > 0, rho = 1 mS d, the diode carries 1 mA across a gap of d."""
    assert figures(check(CLAMP, 0.0)) == [0.0] * 6
    d = 0.01
    relative = 1e-5 / (1e-3 + 1e-5)
    above = [1e-5, relative, 0.0, 1e-5, 1e-7, 1e-5 + 1e-5 * d]
    np.testing.assert_allclose(figures(check(CLAMP, d)), above, rtol=1e-12)
    below = [1e-5, relative, d, 1e-5, 1e-7, 1e-5 + 1e-5 * d]
    np.testing.assert_allclose(figures(check(CLAMP, -d)), below, rtol=1e-12)


def test_a_diode_that_would_carry_current_backwards_is_a_violation() -> None:
    """1 mA pushed into h: it must rise to 1 V. At 0 V the diode cannot take it."""
    wrong = check(CLAMP.replace("I1 h 0", "I1 0 h"), 0.0)
    assert wrong.kcl_amps == 1e-3 and wrong.kcl_relative == 1.0
    assert figures(check(CLAMP.replace("I1 h 0", "I1 0 h"), 1.0)) == [0.0] * 6


@pytest.mark.parametrize("seed", range(15))
def test_any_perturbation_of_any_unit_shows(seed: int) -> None:
    problem = cs.compile_problem(cs.parse(random_circuit(np.random.default_rng(seed))))
    solution = cs.solve(problem, PRECISE)
    drive = problem.drive(slice(0, 1))
    for u in range(problem.n_free):
        for d in (1e-4, -1e-4):
            x = solution.x.copy()
            x[0, u] += d
            r = Check(problem, drive, x).certificate()
            assert r.kcl_amps > 1e-4 * 1e-4 * 0.5  # every node has 0.1 mS to ground at least
            assert r.kcl_relative > 1e-8
            assert r.gap_watts > 0 and r.worst_unit >= 0


def test_clamp_volts_shows_a_crossed_bound() -> None:
    problem = cs.compile_problem(cs.parse(drn([3, 6, 2], gain=10.0)))
    solution = cs.solve(problem, PRECISE)
    drive = problem.drive(slice(0, 1))
    assert solution.residuals.clamp_volts == 0.0
    u = int(np.flatnonzero(drive.lo[0] == 0.0)[0])
    x = solution.x.copy()
    x[0, u] = -0.3
    r = Check(problem, drive, x).certificate()
    assert r.clamp_volts == 0.3


def relative(problem: cs.Problem, drive: cs.problem.Drive, x: np.ndarray) -> np.ndarray:
    """rho over absolute currents from sums branch by branch."""
    flow, total = exact_sums(problem, drive, x, np.arange(x.shape[0]))
    slope = Check(problem, drive, x).slope
    rho = np.abs(violation(flow, slope, x, np.broadcast_to(drive.lo, x.shape), np.broadcast_to(drive.hi, x.shape)))
    return np.divide(rho, total, out=np.where(rho > 0, np.inf, 0.0), where=total > 0)


@pytest.mark.parametrize("noise", [0.0, 1e-13, 1e-10, 1e-6, 0.3])
@pytest.mark.parametrize("seed", range(12))
def test_bounds_of_a_batch_never_lie_below_the_true_figures(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    circuit = cs.parse(
        random_circuit(rng, Recipe(nodes=9)) if seed % 3 else drn([4, 7, 6, 3], seed=seed + 1, gain=30.0)
    )
    problem = cs.compile_problem(circuit)
    one = cs.solve(problem, PRECISE)
    name = circuit.netlist.tables["I"].names[0]
    batch = problem.with_values({name: np.full(4, circuit.current_sources.i[0, 0])})
    drive = batch.drive(slice(0, 4))
    x = one.x * (1 + noise * rng.normal(size=(4, problem.n_free)))
    true = relative(batch, drive, x)
    quick = Check(batch, drive, x)
    assert (quick.upper >= true * (1 - 1e-9) - 1e-14).all()
    # The stop rule agrees with the true figure on both sides of it.
    most = float(true.max())
    if most > 1e-11:
        assert not Check(batch, drive, x).meets(most * 0.999)
        assert Check(batch, drive, x).meets(most * 1.001)
    assert Check(batch, drive, x).certificate().kcl_relative == pytest.approx(most, rel=1e-9, abs=1e-14)


def test_merge_keeps_the_worst_of_each() -> None:
    one, other = Residuals(1, 2e-9, 0, 4, 0, 6, 3, 7), Residuals(0, 5e-9, 2, 3, 1, 7, 1, 2)
    assert one.merge(other, 256) == Residuals(1, 5e-9, 2, 4, 1, 7, 257, 2)
    assert other.merge(one, 0).worst_row == 1


def test_nothing_unknown_is_certified() -> None:
    solution = cs.solve(cs.parse("all known\nV1 a 0 1\nR1 a 0 1"))
    assert figures(solution.residuals) == [0.0] * 6 and solution.x.shape == (1, 0)
    assert_laws(solution)


# -- double-length refinement ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("small", ["1e-12", "1e-15", "1e-9"])
def test_tiny_resistor_carries_the_right_current(small: str) -> None:
    """1 V over 1e-12 ohm and 1 kohm: the node's own rounding alone would be 1e-4 A."""
    solution = cs.solve(cs.parse(f"tiny\nV1 in 0 1\nR1 in a {small}\nR2 a 0 1k"))
    for name in ("R1", "R2"):
        assert solution.current(name)[0] == pytest.approx(1e-3, rel=1e-9)
    assert solution.current("V1")[0] == pytest.approx(-1e-3, rel=1e-9)
    assert solution.power("R1")[0] == pytest.approx(float(small) * 1e-6, rel=1e-9)
    assert solution.voltage("a")[0] == pytest.approx(1.0, rel=1e-12)
    assert solution.low is not None


def test_tiny_resistor_and_a_diode_in_every_row() -> None:
    text = "tiny\n.model m D(is=1e-12)\nV1 in 0 5\nR1 in a 1p\nR2 a b 1k\nD1 b 0 m"
    solution = cs.solve(cs.parse(text).with_values({"V1": [5.0, -5.0, 0.7]}), PRECISE)
    for name in ("R1", "R2", "D1"):
        np.testing.assert_allclose(solution.current(name), -solution.current("V1"), rtol=1e-9)
    assert solution.current("R1")[0] == pytest.approx((5 - solution.voltage("b")[0]) / 1e3, rel=1e-9)
    assert_laws(solution, 1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_shifted_problem_is_the_same_problem(seed: int) -> None:
    """F at x + d, from the drive shifted to x: differences of F keep their digits."""
    problem = cs.compile_problem(cs.parse(random_circuit(np.random.default_rng(seed), Recipe(nodes=7))))
    drive = problem.drive(slice(0, 1))
    rng = np.random.default_rng(seed)
    x, d = rng.uniform(-1, 1, (1, problem.n_free)), rng.uniform(-0.1, 0.1, (1, problem.n_free))
    moved = shift(problem, drive, x)
    rows = np.zeros(1, np.int64)
    direct, total = exact_sums(problem, drive, x + d, rows)
    through, _ = exact_sums(problem, moved, d, rows)
    assert (np.abs(direct - through) <= 1e-12 * total).all()
    np.testing.assert_array_equal(moved.lo, drive.lo - x)
    products = Check(problem, moved, d)
    assert (np.abs(products.flow - direct) <= 1e-12 * total).all()


def test_offsets_do_not_loosen_the_bound() -> None:
    """A floating source ties groups of branches together: taking them apart once certified p = -9.1e-4 V."""
    circuit = cs.parse("floating source\nI1 0 p 1u\nVf q p 1000\nRg p 0 1meg\nR1 q r 1k\nR3 r 0 1g")
    solution = cs.solve(circuit)
    # Nodal: p/1M + (p + 1000)/(1G + 1k) = 1 uA.
    expected = (1e-6 - 1000 / (1e9 + 1e3)) / (1e-6 + 1 / (1e9 + 1e3))
    np.testing.assert_allclose(solution.voltage("p"), expected, rtol=2e-3)
    assert solution.residuals.kcl_relative <= 1e-9


def test_currents_of_a_stiff_crossbar_with_ammeters() -> None:
    text = "ammeters\nV1 s 0 1\nRs s x[0] 1u\nRs1 s x[1] 1u\nRx[0:1][0:1] x[0:1] y[0:1] 1u\n"
    solution = cs.solve(cs.parse(text + "Va y[0] z 0\nVb y[1] z 0\nRz z 0 1e9"))
    np.testing.assert_allclose([solution.current(n)[0] for n in ("Va", "Vb")], 5e-10, rtol=1e-6)
    np.testing.assert_allclose(solution.current("Rx"), np.full((1, 2, 2), 2.5e-10), rtol=1e-6)


def test_currents_into_the_sides_of_a_crossbar_beside_a_tiny_resistor_are_sums_of_its_cells() -> None:
    text = "sums\nV1 x[0] 0 1\nV2 x[1] 0 2\nV3 x[2] 0 4\nV4 h[0] 0 3\nRW[0:2][0:1] x[0:2] h[0:1] 1k\n"
    solution = cs.solve(cs.parse(text + "R1 h[1] q 1n\nR2 q 0 1k"))
    assert solution.low is not None
    cells = solution.current("RW")[0]
    currents = [solution.current(f"V{k}")[0] for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(currents, [*-cells.sum(axis=1), cells[:, 0].sum()], rtol=1e-12)


def test_new_values_that_cut_a_node_off_are_a_new_problem() -> None:
    problem = cs.compile_problem(cs.parse("cut\nI1 0 a 1\nR1 a 0 1"))
    with pytest.raises(cs.TopologyError, match="I1 pushes"):
        cs.solve(problem.with_values({"R1": 0.0}))


def test_breakdown_forced_by_sources_is_an_error_before_overflow() -> None:
    with pytest.raises(cs.TopologyError, match="diode D1: the sources force -100 V"):
        cs.solve(cs.parse("reverse\nV1 a 0 -100\n.model z D(bv=5)\nD1 a 0 z"))


@pytest.mark.parametrize("seed", range(40))
def test_bounds_hold_what_branches_say(seed: int) -> None:
    """`upper` is at least the exact relative violation of every unit, and `certain` at most the worst of them."""
    rng = np.random.default_rng(seed)
    problem = cs.compile_problem(cs.parse(random_circuit(rng)))
    drive = problem.drive(slice(0, 1))
    for size in (1e-9, 1e-3, 1.0):
        x = np.clip(rng.normal(0.0, size, (3, problem.n_free)) + rng.normal(), drive.lo, drive.hi)
        check = Check(problem, drive, x)
        bounds, certain = check.upper.copy(), check.certain
        check._sum_exactly(np.arange(3))
        assert (bounds >= check.upper * (1 - 1e-12)).all()
        assert certain <= check.upper.max(initial=0.0) * (1 + 1e-12)


def test_where_exponentials_overflow_no_law_is_met() -> None:
    """Its current stays the same from there on: a wrong voltage, whose current would fit."""
    deck = "t\nI1 0 a {}\nD1 a 0 d\n.model d D(is=1e-300)"
    j = cs.compile_problem(cs.parse(deck.format(1))).circuit.junctions
    most = branch_current(j.law, j.params, np.array([[100.0]]))[0].item()
    assert 1 < most < 1e5
    problem = cs.compile_problem(cs.parse(deck.format(repr(most))))
    check = Check(problem, problem.drive(slice(0, 1)), np.array([[100.0]]), exact=True)
    assert check.rho[0, 0] == 0 and check.upper[0, 0] == np.inf and not check.meets(1e-3)


@pytest.mark.parametrize("volts", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("ulps", "small"), [(1, True), (4, True), (100, False)])
def test_what_rounding_of_a_voltage_can_make_is_told_at_every_scale(volts: float, ulps: int, small: bool) -> None:
    problem = cs.compile_problem(cs.parse(f"t\nV1 in 0 {volts}\nR1 in a 1k\nR2 a 0 1k"))
    x = np.array([[volts / 2 + ulps * np.spacing(volts)]])
    check = Check(problem, problem.drive(slice(0, 1)), x, exact=True)
    assert check.rho[0, 0] != 0
    assert check.by_rounding(residual.EPS)[0, 0] == small == check.at_rounding(1e-30, residual.EPS)


@pytest.mark.parametrize(("more", "met"), [(1e-13, True), (-1e-13, False)])
def test_rounding_at_a_knee_counts_on_its_own_side_only(more: float, met: bool) -> None:
    """At 0.7 V the current is 0.7 nA: its last digits add up to 0.6 pA, but take next to nothing away."""
    deck = f"knee\nI1 0 a {0.7e-9 + more!r}\nD1 a 0 d\n.model d D(ron=1m roff=1e9 vfwd=0.7)"
    problem = cs.compile_problem(cs.parse(deck))
    check = Check(problem, problem.drive(slice(0, 1)), np.array([[0.7]]), exact=True)
    assert check.rho[0, 0] == pytest.approx(-more, rel=1e-3)
    assert check.meets(1e-9) == met
    solution = cs.solve(problem)
    assert solution.voltage("a")[0] == pytest.approx(0.7 + min(more, 0.0) * 1e9, rel=1e-12)


@pytest.mark.parametrize("across_a_source", ["", "Rx c 0 1u\n"])
@pytest.mark.parametrize("volts", [1e6, 1e34, 1e41, 1e47, 1e58])
def test_an_island_far_away_excuses_no_wrong_voltage(volts: float, across_a_source: str) -> None:
    """It may end anywhere below its open diode; the last digits of its voltage say nothing of the rest."""
    cards = "V1 a 0 1\nR1 a b 1\nR2 b 0 1\nI1 0 b 1\nRi i1 i2 1\nV2 c 0 1\nD1 i1 c perf\n.model perf D(ron=0)\n"
    solution = cs.solve(cs.parse(f"t\n{cards}{across_a_source}"))
    unit = solution.problem.topology.index_of_node[[solution.circuit.netlist.node(name) for name in ("i1", "i2", "b")]]
    drive, x = solution.problem.drive(slice(0, 1)), solution.x.copy()
    x[0, unit[:2]] = -volts
    assert Check(solution.problem, drive, x, exact=True).certificate().kcl_relative <= 1e-9
    for wrong in (1e-8, 0.1, 5.0):
        off = x.copy()
        off[0, unit[2]] += wrong
        assert Check(solution.problem, drive, off, exact=True).certificate().kcl_relative > 1e-9


@pytest.mark.parametrize(("amperes", "met"), [(0.0, True), (1e-46, True), (1e-44, False), (-1e-44, False)])
def test_what_the_last_digits_make_is_no_current_into_an_island_either(amperes: float, met: bool) -> None:
    """b and c at 1 V with 1 mS between them: 7e-46 A and less is none, into b or, through the diode, into both."""
    problem = cs.compile_problem(cs.parse("rest\nV1 s 0 1\nR0 s a 1k\nD1 a b d\nR1 b c 1k\n.model d D(ron=0)"))
    drive = replace(problem.drive(slice(0, 1)), carried=np.array([[amperes]]))
    assert Check(problem, drive, np.ones((1, 3)), exact=True).meets(1e-9) == met


@pytest.mark.parametrize(("volts", "met"), [(0.75, True), (1.0, False)])
def test_what_crosses_by_diodes_with_resistances_is_a_current_however_small(volts: float, met: bool) -> None:
    """1e-30 S into an island of 1e12 S: what digits make within cancels in its sum."""
    deck = "island\nV1 s 0 1\nD1 s a d\nR1 a b 1e-12\nD2 b 0 e\n.model d D(ron=1e30)\n.model e D(ron=3e30)"
    problem = cs.compile_problem(cs.parse(deck))
    assert Check(problem, problem.drive(slice(0, 1)), np.full((1, 2), volts), exact=True).meets(1e-9) == met


def test_no_current_is_so_large_that_a_missed_law_is_nothing_beside_it() -> None:
    solution = cs.solve(cs.parse("t\nI1 0 x 1e40\nRx x 0 1\nV1 a 0 1\nE1 y 0 a 0 2\nRy y z 1"))
    assert solution.voltage("y")[0] == 2.0
    x = solution.x.copy()
    for name in "yz":
        x[0, solution.problem.topology.index_of_node[solution.circuit.netlist.node(name)]] = 0.0
    drive = replace(solution.problem.drive(slice(0, 1)), carried=solution.carried)
    assert Check(solution.problem, drive, x, exact=True).certificate().kcl_relative > 1e-9


@pytest.mark.parametrize("amperes", [1.0, 1e6, 1e40])
@pytest.mark.parametrize("beside", ["", "R2 a c 1t\n", "R2 a c 1k\n"])
def test_a_current_around_a_loop_is_no_measure_of_a_diode_that_misses_its_law(beside: str, amperes: float) -> None:
    """E1 holds 1 V across a perfect diode: whatever circulates in the two, there is no solution."""
    deck = f"loop\nV1 s 0 1\nR1 s c 1g\nR3 c 0 1g\nE1 a c s 0 1\n{beside}D1 a c d\n.model d D(ron=0)"
    problem = cs.compile_problem(cs.parse(deck))
    x = np.empty((1, 2))
    for name, volts in {"a": 1.5, "c": 0.5}.items():
        x[0, problem.topology.index_of_node[problem.circuit.netlist.node(name)]] = volts
    through_r2 = 1e-3 if "1k" in beside else 1e-12 if beside else 0.0
    drive = replace(problem.drive(slice(0, 1)), carried=np.array([[amperes, -amperes - through_r2]]))
    assert Check(problem, drive, x, exact=True).certificate().kcl_relative > 0.1


def test_a_circuit_without_a_solution_is_not_solved_by_a_current_around_a_loop() -> None:
    """H1 would have to be 18 kV at a perfect diode; newton drove 4e39 A around the two."""
    deck = (
        "loop\nR0 1 3 9.01e-06\nR1 3 2 1.02\nR2 0 2 4090\nR3 0 1 2.22e-06\nR4 3 1 20000\nV0 3 5 7.57e-06\n"
        "V1 5 1 -0.0938\nD0 3 4 p\nD1 5 3 q\nD2 5 1 q\nF0 0 5 V0 0.245\nH1 4 3 V0 -1.7\n"
        ".model p D(ron=0 vfwd=0.02)\n.model q D(ron=0)"
    )
    for beside in ("", "\nR9 4 0 1t"):
        assert not cs.solve(cs.parse(deck + beside), raise_on_failure=False).solved


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-4])
def test_dense_currents_bound_what_products_cannot(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs whose neighbours are all above 0 V: bounds are infinite, then near the exact figures, never below."""
    monkeypatch.setattr(residual, "FULL_WORK", 0)
    rng = np.random.default_rng(0)
    text = drn([6, 12, 8, 3], gain=10.0).replace(
        "h2[4:7] 0 ideal", "0 h2[4:7] ideal"
    )  # the last ones, too, from 0 V up
    problem = cs.compile_problem(cs.parse(text).with_values({"Vx": rng.uniform(0, 10, (5, 6))}))
    drive, outputs = problem.drive(slice(0, 5)), problem.n_free - 3
    x = cs.solve(problem).x
    sums = kcl.from_neighbours(problem, x)[:, outputs:]
    x[:, outputs:] = sums / problem.values.diag[outputs:] * (1 + noise * rng.uniform(-1, 1, sums.shape))
    exact, check = Check(problem, drive, x, exact=True), Check(problem, drive, x)
    before = check.upper.copy()
    assert noise or np.isinf(before[:, outputs:]).any()
    check._bound_by_dense(1e-12, np.arange(5))
    assert np.isfinite(check.upper[:, outputs:]).all() and (check.upper <= before).all()
    assert (check.upper >= exact.upper * (1 - 1e-6)).all()
    assert (check.upper[:, outputs:] <= exact.upper[:, outputs:] * (1 + 1e-6) + 1e-13).all()
    if not noise:
        assert check.upper[:, outputs:].max() < 1e-12 and not check.summed.any()


@pytest.mark.parametrize("ufunc", [np.add, np.subtract, np.maximum])
@pytest.mark.parametrize(
    ("places", "rows", "columns"), [(7, 1, 1), (7, 3, 3), (7, 3, 1), (2, 5, 5), (2, 5, 1), (0, 3, 3)]
)
def test_what_repeats_is_gathered_as_numpy_does(ufunc: np.ufunc, places: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(places)
    where, values = rng.integers(0, 3, places), rng.normal(size=(places, columns))
    found = rng.normal(size=(4, rows))
    wanted = found.copy()
    ufunc_at(ufunc, found, where, values)
    ufunc.at(wanted, where, values)
    np.testing.assert_array_equal(found, wanted)


def test_the_worst_place_is_that_of_the_worst_figure() -> None:
    """Laws of controlled sources count, and they have no unit."""
    problem = cs.compile_problem(cs.parse(AMPLIFIER)).with_values({"V1": [0.0, 0.0, 3.0]})
    found = cs.solve(problem)
    x = found.x.copy()
    d = problem.topology.index_of_node[problem.circuit.netlist.node("d")]
    x[0, d] += 1e-7
    drive = replace(problem.drive(slice(0, 3)), carried=found.carried)
    of_node = Check(problem, drive, x).certificate()
    assert (of_node.worst_row, of_node.worst_unit) == (0, d)
    of_law = Check(problem.with_values({"E1": 3.0}), drive, found.x).certificate()
    assert of_law.kcl_relative > 0.1
    assert (of_law.worst_row, of_law.worst_unit) == (2, -1)


@pytest.mark.parametrize(
    ("first", "second", "row", "unit"),
    [
        ((1.0, 2, -1), (1e-12, 0, 3), 2, -1),
        ((1e-12, 2, 4), (1.0, 0, -1), 5, -1),
        ((0.0, 0, -1), (1e-12, 1, 3), 6, 3),
        ((np.nan, 1, -1), (1e-12, 1, 3), 1, -1),
        ((1e-12, 1, 3), (np.nan, 1, -1), 6, -1),
    ],
)
def test_merged_certificates_keep_the_worst_place(
    first: tuple[float, int, int], second: tuple[float, int, int], row: int, unit: int
) -> None:
    def made(kcl: float, row: int, unit: int) -> Residuals:
        return Residuals(0.0, kcl, 0.0, 0.0, 0.0, 0.0, row, unit)

    merged = made(*first).merge(made(*second), 5)
    np.testing.assert_equal(merged.kcl_relative, np.maximum(first[0], second[0]))
    assert (merged.worst_row, merged.worst_unit) == (row, unit)


@pytest.mark.parametrize("overlap", [False, True])
def test_crossbar_sums_are_those_in_rational_arithmetic(overlap: bool) -> None:
    """Voltages in two parts, 1e-17 apart; some lines known, some in one unit, `overlap`: of both sides."""
    rng = np.random.default_rng(int(overlap))
    rows, cols, units = np.arange(5), np.arange(5, 12), np.array([0, 1, -1, 0, 2, 3, -1, 4, 3, 5, 6, 7])
    if overlap:
        units[[7, 10]] = 0, 2
    g = 10.0 ** rng.uniform(-9, 3, (5, 7)) * (rng.random((5, 7)) < 0.8)
    v = rng.normal(size=12)
    low = 1e-17 * rng.normal(size=12)
    exact, absolute = [Fraction(0)] * 8, [Fraction(0)] * 8
    for i in rows.tolist():
        for j in cols.tolist():
            drop = sum(Fraction(part[i]) - Fraction(part[j]) for part in (v, low))
            current = Fraction(g[i, j - 5]) * drop
            for unit, sign in ((units[i], 1), (units[j], -1)):
                if unit >= 0 and units[i] != units[j]:
                    exact[unit] += sign * current
                    absolute[unit] += abs(current)
    flow, total = np.zeros(8), np.zeros(8)
    crossbar_sums(rows, cols, g, units, overlap, v[None], low[None], flow[None], total[None])
    for k in range(8):
        assert abs(Fraction(flow[k]) - exact[k]) <= absolute[k] * Fraction(2) ** -49
        assert abs(Fraction(total[k]) - absolute[k]) <= absolute[k] * Fraction(2) ** -49


def test_rows_of_a_small_crossbar_have_the_bits_of_each_alone() -> None:
    """Alone, the 4 x 20 cells are left to Python; 30 rows are one call of compiled code."""
    circuit = cs.parse("t\nVx[0:3] x[0:3] 0 0\nV2 a h[0] 0.1\nR1 a 0 1k\nRW[0:3][0:19] x[0:3] h[0:19] g={aunif(1m,1m)}")
    given = np.random.default_rng(3).normal(size=(30, 4))
    problem = cs.compile_problem(circuit).with_values({"Vx": given})
    x = np.random.default_rng(4).normal(size=(30, problem.n_free))
    drive = problem.drive(slice(0, 30))
    together = exact_sums(problem, drive, x, np.arange(30))
    for row in range(30):
        alone = exact_sums(problem, drive, x, np.array([row]))
        for every, own in zip(together, alone, strict=True):
            np.testing.assert_array_equal(own[0], every[row])


@pytest.mark.parametrize("within", ["", "I1 b b 1e9\n"])
def test_what_flows_within_a_unit_counts_nowhere(within: str) -> None:
    """At 0.501 V 0.499 mA flow in and 0.501 mA out; 1e9 A from b to b are nothing, not even rounding."""
    problem = cs.compile_problem(cs.parse(f"t\nV1 a 0 1\n{within}R2 a b 1k\nR3 b 0 1k"))
    flow, total = exact_sums(problem, problem.drive(slice(0, 1)), np.array([[0.501]]), np.arange(1))
    assert flow[0, 0] == pytest.approx(2e-6)
    assert total[0, 0] == pytest.approx(1e-3)


def test_currents_of_a_crossbar_within_a_unit_count_nowhere() -> None:
    """V2 makes one unit of b[0] and c[0]: sums are those of the same circuit with the crossbar as resistors."""
    deck = "t\nV2 b[0] c[0] 1e6\nR1 b[0] 0 1\nR2 c[1] 0 1\nR3 b[1] 0 1\n"
    resistors = "\n".join(f"RX{i}{j} b[{i}] c[{j}] 1" for i in range(2) for j in range(2))
    totals = []
    for cells in ("RX[0:1][0:1] b[0:1] c[0:1] g=1", resistors):
        problem = cs.compile_problem(cs.parse(deck + cells))
        _, total = exact_sums(problem, problem.drive(slice(0, 1)), cs.solve(problem).x, np.arange(1))
        totals.append(sorted(total[0]))
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-6)


def test_sizes_of_the_terms_of_controlled_sources() -> None:
    """E1: none, as v(a) - v(a) controls it; F1: its own 1 mA and 1e-3 of the 1 A in V1; V1: v(a) and its 1000 V."""
    deck = "t\nV1 a 0 1000\nR1 a 0 1k\nE1 b 0 a a 2\nR2 b 0 1k\nF1 0 c V1 1e-3\nR3 c 0 1g"
    problem = cs.compile_problem(cs.parse(deck))
    solution = cs.solve(problem)
    drive = replace(problem.drive(slice(0, 1)), carried=solution.carried)
    _, size, _ = active_laws(problem, drive, solution.x)
    np.testing.assert_allclose(size, [[0.0, 2e-3, 2000.0]])


def test_last_digits_of_a_batch_are_not_copied_for_every_tile() -> None:
    low = np.arange(24.0).reshape(2, 3, 4)
    assert solving._more_parts(low, (1, 3, 4)) is low and solving._more_parts(low, (2, 3, 4)) is low
    more = solving._more_parts(low, (3, 3, 4))
    assert (more[:2] == low).all() and not more[2].any() and not solving._more_parts(None, (2, 3, 4)).any()
