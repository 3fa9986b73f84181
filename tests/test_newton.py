"""Parts of newton that whole circuits do not single out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_ideal_diodes, assert_power_balance, some_slow
from scipy.optimize import isotonic_regression

import circuitsim as cs
from circuitsim.gallery import diode_mesh, wired_crossbar
from circuitsim.kcl import shift
from circuitsim.law_kernels import IS, NVT, Law
from circuitsim.laws import branch_current
from circuitsim.linear.elimination import Elimination
from circuitsim.methods import interior, line_search, newton
from circuitsim.methods.continuation import _Curve, follow
from circuitsim.methods.drift import drifted, may_drift
from circuitsim.methods.interior import follow_inside
from circuitsim.methods.limiting import first_voltages, limited
from circuitsim.methods.line_search import _minimum, minimise
from circuitsim.methods.mna import make_network
from circuitsim.methods.network import Network
from circuitsim.methods.polish import hardly_corrected, polished
from circuitsim.residual import Check
from validation.random_decks import random_deck

NONE = np.zeros(0)


def test_a_batch_is_settled_when_each_of_its_rows_is() -> None:
    """Rows at and around the solution, and what would move them: of one unit, or of all in both directions."""
    rng = np.random.default_rng(3)
    volts = rng.uniform(-1.0, 1.0, (3, 8)) * np.array([[1.0], [1e-6], [1e3]])
    problem = cs.compile_problem(cs.parse(wired_crossbar(8))).with_values({"Vx": volts})
    network = make_network(problem)
    x = cs.solve(problem).x
    size = np.abs(x).max(axis=1, keepdims=True)
    answers = set()
    for off in (0.0, 1e-12, 1e-10, 9e-10, 1.1e-9, 1e-6):
        for which in range(4):
            moved = size * off * rng.choice([-1.0, 1.0], x.shape)
            if which < 3:  # one row
                moved[np.arange(3) != which] = 0.0
            drive, at = problem.drive(slice(0, 3)), x + moved
            together = hardly_corrected(network, Check(problem, drive, at, exact=True), NONE)
            alone = [
                hardly_corrected(network, Check(problem, drive.part(slice(k, k + 1)), at[k : k + 1], exact=True), NONE)
                for k in range(3)
            ]
            assert together == all(alone) == (off < 1e-9)
            answers.add(together)
    assert answers == {True, False}
    zero = cs.compile_problem(cs.parse(wired_crossbar(8, volts=0.0))).with_values({"Vx": np.zeros((2, 8))})
    check = Check(zero, zero.drive(slice(0, 2)), np.zeros((2, zero.n_free)), exact=True)
    with np.errstate(invalid="ignore"):
        assert hardly_corrected(make_network(zero), check, NONE)


@pytest.mark.parametrize(
    ("derivative", "minimum"),
    [
        (lambda t: t - 0.25, 0.25),
        (lambda t: np.exp(min(3.0 * t, 700.0)) - 1e30, np.log(1e30) / 3.0),
        (lambda t: np.sinh(min(1e5 * t, 500.0)) - 1.0, 1e-5 * np.arcsinh(1.0)),
        (lambda t: np.inf if t > 1e-20 else 1e12 * t - 1e-9, 1e-21),
        (lambda t: 1.0, 0.0),
    ],
    ids=["line", "exponential", "sinh", "overflowing", "uphill"],
)
def test_a_line_search_finds_the_minimum(derivative: Callable[[float], float], minimum: float) -> None:
    """In about as many evaluations of all laws as Brent's method needs; bisection alone takes 60."""
    seen: list[float] = []

    def counted(t: float) -> float:
        seen.append(t)
        return float(derivative(t))

    assert _minimum(counted) == pytest.approx(minimum, rel=1e-12, abs=0.0)
    assert len(seen) <= 30


def test_a_line_search_downhill_for_ever_ends() -> None:
    assert _minimum(lambda _: -1.0) >= 1e30


def test_a_line_search_between_overflows_is_no_full_step() -> None:
    assert _minimum(lambda t: np.inf if t > 0.5 else -np.inf) == pytest.approx(0.5)


def test_line_searches_are_as_many_as_there_are_legs() -> None:
    """1e40 A through diodes that a source forces: rounding hides the minimum."""
    problem = cs.compile_problem(cs.parse(random_deck(3, 190).text))
    network, drive = make_network(problem), problem.drive(slice(0, 1))
    steps = [step for step, _ in minimise(network, drive, network.offset(drive), lambda *_: None, 10**6)]
    assert len(steps) == 100 + 10 * network.legs.a.size


@pytest.mark.slow
def test_line_searches_that_lead_nowhere_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """6e38 A through diodes that a source forces: nothing but multipliers moves, which took 100,000 steps.

    Rounding decides: in the order of elimination that networks of more nodes get.
    """
    monkeypatch.setattr("circuitsim.linear.elimination._FEW", 2)
    monkeypatch.setattr("circuitsim.methods.limiting.SPENT", -1.0)  # from where full steps end then
    solution = cs.solve(cs.parse(random_deck(3, 100716).text), raise_on_failure=False)
    assert solution.status is cs.Status.STALLED
    assert solution.steps < 500


# -- continuation ------------------------------------------------------------------------------------------------------

LAWS = (
    "every law\nV1 a 0 9\nE1 e 0 c 0 -3\n"
    + "".join(f"R{k} {a} {b} 1k\n" for k, (a, b) in enumerate([("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")]))
    + "D1 b 0 s\nD2 c 0 p\nD3 c d i\nD4 d 0 i\nN1 b d t\nN2 c e h\nN3 d e l\n.model s D(is=1e-12 rs=3 bv=5)\n"
    ".model p D(ron=2 vfwd=0.5 vrev=3 rrev=7)\n.model i D(ron=0 vfwd=0.3)\n.model t tanh\n.model h sinh\n"
    ".model l pwl(-2 -1m -1 0 1 0 2 1m)\n"
)


def curve_of(text: str) -> _Curve:
    problem = cs.compile_problem(cs.parse(text))
    network, drive = make_network(problem), problem.drive(slice(0, 1))
    return _Curve(network, drive, network.offset(drive), np.random.default_rng(1))


def test_curves_of_legs_are_their_laws_but_for_rounded_kinks() -> None:
    curve, rng = curve_of(LAWS), np.random.default_rng(2)
    network, n = curve.network, curve.network.legs.n_junctions
    assert set(network.law) == {0, 1, 2, 3, 4} and network.ideal.any()
    for s in rng.normal(size=(200, network.legs.a.size)) * 10.0 ** rng.uniform(-3, 1, (200, 1)):
        i, _, v, _ = curve._legs(s)
        wide = 1e-3 * curve.volts  # by which kinks are rounded
        ends = [branch_current(network.law, network.params, v[:n] + d)[0] for d in (-wide, wide)]
        assert (ends[0] - 1e-12 <= i[:n]).all() and (i[:n] <= ends[1] + 1e-12).all()
        assert (i[n:] >= 0).all() and (v[n:] <= wide).all() and (i[n:] * curve.r[n:] * -v[n:] <= wide**2).all()


def test_the_equations_of_a_curve_are_the_circuits() -> None:
    """Slopes against differences; and where G = 0 the network around the legs has their voltages and currents."""
    curve, rng = curve_of(LAWS), np.random.default_rng(3)
    for s in rng.normal(size=(20, curve.r.size)):
        g, jacobian = curve._equations(s)
        for k, column in enumerate(jacobian.T):
            step = 1e-7 * np.eye(s.size)[k]
            there = (curve._equations(s + step)[0] - curve._equations(s - step)[0]) / 2e-7
            np.testing.assert_allclose(there, column, rtol=1e-4, atol=1e-6)
        i, _, v, _ = curve._legs(s)
        u = curve._around(v - curve.r * i)
        around = curve.network.across(u) + curve.offset
        np.testing.assert_allclose(around - v, curve.volts * g, atol=1e-9)
        kcl = curve.sides + curve.network.into(i + (around - v) / curve.r) - curve.network.flow(u[None])[0]
        np.testing.assert_allclose(kcl, 0.0, atol=1e-12)


@pytest.mark.parametrize("seed", [pytest.param(301107, marks=pytest.mark.slow), 310171, 60451])
def test_solutions_that_steps_miss_are_found_by_continuation(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = cs.parse(random_deck(4, seed).text)
    monkeypatch.setattr(newton, "states", lambda *arguments: ([], False))
    solution = cs.solve(circuit, raise_on_failure=False)
    assert solution.solved, solution.message
    monkeypatch.setattr(newton, "follow", lambda *arguments: iter(()))
    assert not cs.solve(circuit, raise_on_failure=False).solved


def test_contradictions_are_seen_before_steps_are_tried_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = "V1 b 0 1", "E1 a 0 b 0 1", "E2 a 0 b 0 2", "R1 a c 1k", "D1 c 0 d", ".model d D(ron=0)"
    monkeypatch.setattr(newton._Row, "_damped_steps", None)
    with pytest.raises(cs.TopologyError, match="E1, E2 contradict each other"):
        cs.solve(cs.parse("\n".join(["contradiction", *cards])))


def test_matrices_without_a_structural_inverse_are_left_to_no_sparse_factorisation(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """SuperLU does not always notice: it wrote where it must not, and BLAS complained."""
    solution = cs.solve(cs.parse(random_deck(4, 20501).text), cs.Settings(max_sweeps=200), raise_on_failure=False)
    assert not solution.solved  # it has none
    assert capfd.readouterr() == ("", "")


def crossbar_of_decades(seed: int, side: int = 9) -> str:
    """Wires of some ohms, across each other; where they cross 1e4 to 1e18 ohm and a perfect diode, either way."""
    rng = np.random.default_rng(seed)
    cards = ["crossbar", ".model di d(ron=0)"]
    for k in range(side):
        cards += [f"V{k} x{k} 0 {rng.uniform(-2, 2)}", f"Rin{k} x{k} a{k}_0 1", f"Rg{k} b{side - 1}_{k} 0 10"]
        for j in range(side - 1):
            cards += [f"Ra{k}_{j} a{k}_{j} a{k}_{j + 1} 1", f"Rb{k}_{j} b{j}_{k} b{j + 1}_{k} 1"]
        for j in range(side):
            ends = f"m{k}_{j} b{k}_{j}" if rng.uniform() < 0.7 else f"b{k}_{j} m{k}_{j}"
            cards += [f"R{k}_{j} a{k}_{j} m{k}_{j} {10 ** rng.uniform(4, 18)}", f"D{k}_{j} {ends} di"]
    return "\n".join(cards)


@pytest.mark.parametrize("seed", some_slow(range(6), 3))
def test_diodes_behind_large_resistances_beside_small_ones_find_their_state(seed: int) -> None:
    """Of 1e-18 A and less: the rounding of currents in the wires is a million times as large."""
    solution = cs.solve(cs.parse(crossbar_of_decades(seed)))
    assert solution.steps <= 10
    assert solution.residuals.kcl_relative <= 1e-9
    assert_power_balance(solution, 1e-12)
    assert_ideal_diodes(solution)


@pytest.mark.parametrize(("large", "amps", "small"), [(1e15, 1.0, 1e-3), (1e15, 100.0, 1e-5), (1e21, 1e-3, 1.0)])
def test_what_conducts_is_closed_where_large_resistances_are_all_that_moves_with_it(
    large: float, amps: float, small: float
) -> None:
    """From node to node in three megavolts' steps, were the second no correction of the first."""
    deck = f"chain\n.model di d(ron=0)\nI2 0 a {amps}\nRa a s {large}\nV1 s 0 1\nD1 a b di\nRb b 0 {large}\n"
    solution = cs.solve(cs.parse(f"{deck}D2 b c di\nRc c 0 {small}\n"))
    for node in "abc":
        assert solution.voltage(node).item() == pytest.approx(amps * small, rel=1e-12)


ROUNDING_DECIDES = """states of diodes that carry 1e-28 A and less
.model di d(ron=0)
D0 n0 0 di
Rs1 n0 0 7489719.023854908
R2 n2 0 0.0059266778440905925
R4 n4 n3 10130895429.581633
R6 n6 n5 1275803957082.8303
D7 n5 n4 di
D8 n2 n4 di
R9 n4 n5 18812979111176.484
D10 n3 n0 di
D11 n2 n0 di
R12 n3 n0 1513.4533074766148
R13 n2 n5 1.0840365403827966e+16
R14 n3 0 6331.385720918378
V0 n5 n0 0.3589416877900451
"""


def test_states_that_rounding_decides_are_found() -> None:
    solution = cs.solve(cs.parse(ROUNDING_DECIDES))
    assert solution.steps <= 10
    assert_ideal_diodes(solution)


NEVER = "R8 c d 1k\nR9 d 0 1k\nD9 d 0 never\n.model never D(ron=0 vfwd=inf)\n"  # 2 kohm from c to ground


@pytest.mark.parametrize(
    ("way", "deck"),
    [
        (follow, "curve\nV1 s 0 5\nR1 s a 1k\nE1 b 0 a 0 1\nR2 b c 1k\nD1 c 0 sh\n.model sh D(is=1e-14)\n"),
        (follow_inside, "inside\nV1 s 0 5\nR1 s a 1k\nD1 a c pw\n.model pw D(ron=10 vfwd=0.5)\n"),
    ],
)
def test_slow_ways_pass_by_a_diode_that_never_conducts(way: Callable[..., Iterator[Any]], deck: str) -> None:
    """Its leg has no offset that is a number; the solution is the one without it."""
    circuits = [cs.parse(deck + NEVER), cs.parse(deck + NEVER.replace("D9", "*"))]
    problem = cs.compile_problem(circuits[0])
    network, drive = make_network(problem), problem.drive(slice(0, 1))
    row = newton._Row(network, drive, cs.Settings())
    assert np.isneginf(row.offset[-1])
    solution = next(x for _, x in way(network, drive, row.offset, row._finish, 1000) if x is not None)
    wanted = cs.solve(circuits[1])
    units = problem.topology.index_of_node[[problem.circuit.netlist.node(name) for name in "cd"]]
    volts = [wanted.voltage(name).item() for name in "cd"]
    np.testing.assert_allclose(solution.x[0, units], volts, rtol=1e-9)


def test_another_try_is_only_one_that_is_another() -> None:
    def network(text: str) -> Network:
        return make_network(cs.compile_problem(cs.parse(text)))

    uniform, gentle = network(ROUNDING_DECIDES).otherwise()
    assert np.ptp(uniform.rho[uniform.ideal]) == 0 and (gentle.rho < uniform.rho)[gentle.ideal].all()
    assert [again.rho.tolist() for again in uniform.otherwise()] == [gentle.rho.tolist()]
    assert not [*network("no diodes\nV1 a 0 1\nR1 a b 1k\nR2 b 0 1k").otherwise()]
    assert not [*network(ROUNDING_DECIDES + "E1 x 0 n3 0 2\nRx x 0 1k").otherwise()]  # no choice with these
    wires = network(wired_crossbar(52))
    assert not [*wires.otherwise()]  # not solved yet
    wires.factor(NONE)
    [again] = wires.otherwise()
    assert isinstance(again.solver, Elimination) and not [*again.otherwise()]


NANO_OHMS = """three diodes and wires, 1e16 between their resistances
V0 x0 0 0.6
V1 x1 0 1
V2 x2 0 -0.5
R0 x0 m0 10meg
R1 x1 m1 10meg
R2 x2 m2 10meg
D0 m0 b0 di
D1 m1 b1 di
D2 b2 m2 di
Rb0 b0 b1 1n
Rb1 b1 b2 1n
.model di D(ron=0)
"""


def test_a_circuit_that_only_another_stiffness_solves(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: all three diodes conduct, v(b) = (0.6 + 1 - 0.5) / 3 V.

    Steps with the first stiffness, however many, leave a relative KCL of 2e-9 or more; here they are few.
    """
    for module, name, few in (
        (newton, "FULL_STEPS", 20),
        (interior, "_MOST_STEPS", 1),
        (line_search, "_MOST_STEPS", 1),
    ):
        monkeypatch.setattr(module, name, few)
    solution = cs.solve(cs.parse(NANO_OHMS))
    assert solution.method == "newton"
    for node in ("m0", "b0", "m1", "b1", "m2", "b2"):
        assert solution.voltage(node).item() == pytest.approx(1.1 / 3, rel=1e-9), node
    monkeypatch.setattr(Network, "otherwise", lambda self: iter(()))
    assert not cs.solve(cs.parse(NANO_OHMS), raise_on_failure=False).solved


SMALL_CURRENTS = {
    "a diode in reverse feeds a perfect one": (
        "R0 0 1 107251.38134810457\nR1 1 3 61100000\nR2 3 5 1\nR4 8 9 1\nR5 0 1 1\nR6 1 8 1k\nD7 8 9 id0\nI8 3 4 1\n"
        "R9 5 9 1\nD10 6 9 pw0\nD11 2 9 sh0\nD12 2 3 id0\nV13 4 9 0\n",
        {"2": -1.9999672, "3": -1.9999672, "5": -0.9999672, "8": 3.2732687e-5},
    ),
    "a clamp carries 6 nA": (
        "R1 0 2 1e-4\nD1 2 7 id1\nR6 3 7 1\nR2 1 7 1e9\nI1 3 1 1e-8\nR3 1 10 1\nD2 10 0 id3\n",
        {"1": 3.0000000063, "7": -0.7, "10": 3.0},
    ),
    "beside 0.5 A": (
        "R1 1 2 3.32e-06\nR3 3 4 1\nR7 7 8 50k\nR8 8 9 4e13\nV9 1 7 1\nD10 0 6 pw0\nR11 4 6 2e6\nD12 0 4 id2\n"
        "R17 2 8 1\nD18 9 4 id2\nR21 7 6 1\nD25 2 0 id0\n",
        {"7": -0.99999834, "6": -0.50049950},
    ),
}
SMALL_MODELS = """.model id0 D(ron=0)
.model id1 D(ron=0 vfwd=0.7)
.model id2 D(ron=0 vfwd=0.5 vrev=3)
.model id3 D(ron=0 vfwd=3)
.model pw0 D(ron=1m vfwd=0.5)
.model sh0 D(is=1e-14)
"""


@pytest.mark.parametrize("name", SMALL_CURRENTS)
def test_small_currents_of_stiff_diodes_are_told_from_rounding(name: str) -> None:
    text, wanted = SMALL_CURRENTS[name]
    solution = cs.solve(cs.parse(f"{name}\n{SMALL_MODELS}{text}"))
    for node, volts in wanted.items():
        assert solution.voltage(node).item() == pytest.approx(volts, rel=1e-6), node


def test_what_corrections_still_move_is_not_taken_at_once() -> None:
    """A branch far in saturation tells next to nothing; a bridge of diodes leaves 50 Gohm as the only way to ground."""
    saturated = "t\nI1 0 a 1m\nN1 a 0 ta\nR1 a 0 1e14\n.model ta tanh(imax=1m v0=0.1)\n"
    solution = cs.solve(cs.parse(saturated))
    assert (
        solution.voltage("a").item() == pytest.approx(1.2884088, rel=1e-6) and "less accurate" not in solution.message
    )
    asked = cs.solve(cs.parse(saturated), cs.Settings(method="newton"))
    assert "some voltages are held only by tiny conductances and may be less accurate" in asked.message
    bridge = (
        "t\n.model pw0 D(ron=1m vfwd=0.5)\n.model pw1 D(ron=10 roff=1e12 vfwd=0.25)\nR0 0 1 5e10\nR2 2 3 1k\n"
        "R3 3 4 2e15\nV5 1 3 -0.7\nD6 2 1 pw1\nD12 4 1 pw0\n"
    )
    assert abs(cs.solve(cs.parse(bridge)).voltage("1").item()) < 1e-12


@pytest.mark.parametrize("card", ["D1 a c di\nD2 c 0 di", "R1 a 0 1k\nD1 a b di"])
def test_batches_of_small_circuits_in_which_nothing_conducts(card: str) -> None:
    problem = cs.compile_problem(cs.parse(f"t\nV1 a 0 0\n{card}\n.model di D(ron=1 vfwd=0.5)"))
    solution = cs.solve(problem.with_values({"V1": [[0.1], [0.2], [0.4]]}))
    assert solution.current("V1") == pytest.approx(-1e-3 * np.array([0.1, 0.2, 0.4]) * ("R1" in card), abs=1e-15)


@pytest.mark.parametrize(
    "big, small", [(1e3, 1e-9), (1e6, 1e-12), (1e9, 1e-3), *some_slow([(1e3, 1e-12), (1e6, 1e-6)], 0)]
)
def test_differences_that_sources_make_far_from_ground_keep_their_digits(big: float, small: float) -> None:
    deck = f"t\nVcm p 0 {big!r}\nR0 p a 1k\nV1 b a {small!r}\nR2 b c 1\nR3 c a 1\n"
    for method in ("newton", "bcd") if small > 1e-15 * big else ("newton",):  # bcd would take a million sweeps
        solution = cs.solve(cs.parse(deck), cs.Settings(method=method))
        for name in ("R2", "R3"):
            assert solution.current(name).item() == pytest.approx(small / 2, rel=1e-8, abs=0), (method, name)


@pytest.mark.parametrize(("big", "small"), [(1e3, 1e-9), (1e6, 1e-6), (1e6, 1e-9)])
def test_currents_of_a_crossbar_far_from_ground(big: float, small: float) -> None:
    """64 resistors of 10 kohm; V1 between two of the rows, all the others float."""
    deck = f"t\nVcm p 0 {big!r}\nR0 p a[0] 1k\nRw[0:7][0:7] a[0:7] b[0:7] 10k\nV1 a[1] a[0] {small!r}\n"
    solution = cs.solve(cs.parse(deck))
    assert solution.current("V1").item() == pytest.approx(-4e-4 * small, rel=1e-7, abs=0)


@pytest.mark.slow
def test_rows_of_a_batch_are_as_sure_as_alone() -> None:
    """Several copies at once do not hide that a voltage still moves."""
    leaky = "I99 0 aa 1m\nN99 aa 0 ta\nR99 aa 0 1e14\n.model ta tanh(imax=1m v0=0.1)\n"
    problem = cs.compile_problem(cs.parse(diode_mesh(8).replace(".op", leaky + ".op")))
    alone, many = (cs.solve(problem.with_values({"I99": amps})) for amps in ([[1e-3]], [[1e-4], *[[1e-3]] * 3]))
    for solution in (alone, many):
        assert solution.voltage("aa")[-1] == pytest.approx(1.2884095, rel=1e-4)
        assert "less accurate" in solution.message


def test_the_limit_of_steps_is_one_of_all_tries() -> None:
    tried = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "otherwise", lambda self: tried.append(1) or iter(()))
        deck = "or\n" + "".join(f"V{k} i{k} 0 {k}\nR{k} i{k} j{k} 1k\nD{k} j{k} out di\n" for k in range(1, 20))
        few = cs.Settings(max_sweeps=2, method="newton")
        solution = cs.solve(cs.parse(f"{deck}Rl out 0 1k\n.model di D(ron=0)"), few, raise_on_failure=False)
    assert solution.status is cs.Status.MAX_SWEEPS and not tried


@pytest.mark.parametrize("seed", range(20))
def test_a_small_resistance_between_a_source_and_large_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    (r1, r3), r, (v1, v2) = (
        (10 ** rng.uniform(3, 8, 2)).tolist(),
        10 ** rng.uniform(-6, -1),
        rng.uniform(1, 20, 2).tolist(),
    )
    amps = (v1 - v2) / (r1 + r + r3)
    for cards in (f"R2 b c {r!r}\nR3 c d {r3!r}\nV2 d 0 {v2!r}", f"R2 b c {r!r}\nV2 c d {v2!r}\nR3 d 0 {r3!r}"):
        solution = cs.solve(cs.parse(f"t\nR1 0 a {r1!r}\nV1 b a {v1!r}\n{cards}\n"))
        assert solution.current("R2").item() == pytest.approx(amps, rel=1e-8, abs=0)
    clamped = cs.solve(cs.parse("t\nR1 0 a 1e6\nV1 b a 5\nR2 b c 1m\nD1 c 0 di\n.model di D(ron=0 vfwd=3)\n"))
    assert clamped.voltage("a").item() == pytest.approx(-2.0, abs=1e-8)


# -- islands that diodes hold which do not conduct ---------------------------------------------------------------------

# Milliamperes flow within, some 1e-22 A out and in: their balance says where the island is. Voltages by Newton's method
# in 110 digits on the modified nodal equations.
LEAKING = {
    "volts": (
        "V1 d e -6.721\nI1 b d 0.1683\nR3 d b 0.1231\nR4 e c 551\nD2 c b d\nD22 d 0 d\nD23 b e d m=900\nD24 a c d m=2\n"
        "D25 0 a d\n.model d D(is=7.794e-23 n=3.99)",
        {"d": -2.2926024, "e": 4.4283976, "a": 2.2926024},
    ),
    "less": (
        "V1 d e -1.55\nI1 b d 8.986m\nR3 d b 0.01459\nR4 e c 551\nD2 c b d\nD22 d 0 d\nD23 b e d\nD24 a c d m=2\n"
        "D25 0 a d\n.model d D(is=9.318e-23 n=1.65)",
        {"d": -0.76006},
    ),
}


@pytest.mark.parametrize("name", LEAKING)
def test_leaks_say_where_an_island_is(name: str) -> None:
    deck, wanted = LEAKING[name]
    solution = cs.solve(cs.parse(f"{name}\n{deck}"))
    assert {node: solution.voltage(node)[0] for node in wanted} == pytest.approx(wanted, rel=1e-5)


def test_leaks_of_an_island_with_controlled_sources() -> None:
    """Two equal diodes hold it, D3 at n1 and D13 at n8, both reversed: it lies between them."""
    solution = cs.solve(cs.parse(random_deck(4, 500178).text))
    assert solution.voltage("n1")[0] > 0.3
    assert solution.voltage("n1") == pytest.approx(-solution.voltage("n8"), rel=1e-6)


ADRIFT = """adrift
V1 s 0 0.1
E1 x 0 s 0 2
Rx x 0 1k
R1 a b 10
R2 c d 20
I1 0 c 1u
D1 s a m
D2 b c m
D3 d 0 m
D4 a b m
N1 a 0 t
.model m D(is=1e-9)
.model t tanh(imax=1u v0=0.1)
"""


@pytest.mark.parametrize("seed", range(3))
def test_islands_drift_to_where_tangents_at_their_borders_balance(seed: int) -> None:
    """Each as a whole, and others stay; what flows in D4, within one of them, is far more and has no part in it."""
    problem = cs.compile_problem(cs.parse(ADRIFT))
    c, part, rng = problem.circuit, problem.topology.islands.part, np.random.default_rng(seed)
    unit = problem.topology.index_of_node
    assert may_drift(problem)
    x, step = rng.uniform(-0.1, 0.1, (1, problem.n_free)), rng.normal(size=(1, problem.n_free))
    a, b, d, driven = (c.netlist.node(name) for name in "abdx")
    x[0, unit[[a, b]]] += [0.35, -0.35]
    moved = drifted(Check(problem, problem.drive(slice(0, 1)), x, exact=True), step)
    free = np.flatnonzero(unit >= 0)
    at, by, shift = np.zeros((3, len(c.nodes)))
    at[c.netlist.node("s")] = 0.1
    at[free], by[free], shift[free] = x[0, unit[free]], moved[0, unit[free]], (moved - step)[0, unit[free]]
    assert shift[a] == pytest.approx(shift[b]) and shift[c.netlist.node("c")] == pytest.approx(shift[d])
    assert shift[driven] == 0.0 and abs(shift[a]) > 1e-3
    j, s = c.junctions, c.current_sources
    i, slope = branch_current(j.law, j.params, at[j.a] - at[j.b])
    i = np.append(i + slope * (by[j.a] - by[j.b]), s.i[0])
    first, second = part[np.append(j.a, s.a)], part[np.append(j.b, s.b)]
    for island in (part[a], part[d]):
        out, into = ((one == island) & (other != island) for one, other in ((first, second), (second, first)))
        assert abs(i[out].sum() - i[into].sum()) <= 1e-12 * np.abs(i[out | into]).max()


@pytest.mark.parametrize("card", ["D9 a 0 i", "G1 0 a s 0 1u", "Ra a 0 1k\nRc c 0 1k"])
def test_islands_that_other_branches_join_do_not_drift(card: str) -> None:
    assert not may_drift(cs.compile_problem(cs.parse(f"{ADRIFT}{card}\n.model i D(ron=0)")))


def test_currents_within_an_island_do_not_excuse_what_leaks_out() -> None:
    circuit = cs.parse("t\n" + LEAKING["volts"][0])
    problem = cs.compile_problem(circuit)
    solution = cs.solve(problem)
    island = (
        problem.topology.islands.part[problem.topology.root_of_unit]
        == (problem.topology.islands.part[circuit.netlist.node("d")])
    )
    drive = problem.drive(slice(0, 1))
    at = shift(problem, drive, solution.x, *(() if solution.low is None else solution.low))
    assert Check(problem, at, np.zeros_like(solution.x), exact=True).worst < 1e-9
    moved = Check(problem, at, np.where(island, 0.1, 0.0)[None], exact=True)
    assert moved.upper[0, island].min() > 1e-4


# -- crossbars with wires and selectors --------------------------------------------------------------------------------

DEAD_END = """dead end
Ro0 b11_0 0 10
V10 in10 0 -0.22154406500926993
Rd10 in10 w10_0 10
Rr10_0 w10_0 w10_1 2
Rc10_0 b10_0 b11_0 2
Rx10_0 w10_0 m10_0 132589.95579469803
Dx10_0 m10_0 b10_0 sd
Rr10_1 w10_1 w10_2 2
Rc10_2 b10_2 b11_2 2
Rx10_2 w10_2 m10_2 6009.483537799576
Dx10_2 m10_2 b10_2 sd
V11 in11 0 1.7556617090536055
Rd11 in11 w11_0 10
Rr11_0 w11_0 w11_1 2
Rx11_0 w11_0 m11_0 694648.5821864711
Dx11_0 m11_0 b11_0 sd
Rr11_1 w11_1 w11_2 2
Rx11_2 w11_2 m11_2 117795.22269569822
Dx11_2 m11_2 b11_2 sd
.model sd D(ron=1 vfwd=0.3{more})
"""


def test_a_dead_end_behind_a_diode_carries_nothing() -> None:
    """What a diode's voltage, one float64, makes of its current is no violation that corrections should go after:
    each would leave its own rounding at b10_0, where nothing flows.
    """
    solution, leaky = (cs.solve(cs.parse(DEAD_END.format(more=more))) for more in ("", " roff=1e15"))
    assert_power_balance(solution, 1e-11)
    fixed = solution.determined
    assert np.count_nonzero(~fixed) == 2  # b10_2 and b11_2
    assert np.abs(solution.voltages() - leaky.voltages())[0, fixed].max() < 1e-8
    b10, b11 = (cs.parse(DEAD_END.format(more="")).netlist.node(f"b{k}_0") for k in (10, 11))
    assert abs(solution.drops(np.array([b10]), np.array([b11]))[0, 0]) < 1e-30


@pytest.mark.parametrize("cell", ["N1 m b sd\n.ends\n.model sd pwl(-1 -1m -0.3 0 0.3 0 1 1m)", "D1 m b sd\n.ends\n"
                                  ".model sd D(ron=1 vfwd=0.3)"])  # fmt: skip
@pytest.mark.parametrize("seed", range(4))
def test_crossbars_with_broken_wires_and_selectors(tmp_path: Path, cell: str, seed: int) -> None:
    """A tenth of the wires is broken: dead ends, and parts that only selectors join, which carry nothing."""
    rng, n = np.random.default_rng(seed), 24
    values = {"r": 10 ** rng.uniform(3, 6, (n, n)), "v": rng.uniform(-1, 2, n)}
    values |= {name: np.where(rng.random((n - 1, n)) < 0.1, 0.0, 0.5) for name in ("row", "column")}
    np.savez(tmp_path / "w.npz", **values)
    last, most = n - 1, n - 2
    (tmp_path / "crossbar.cir").write_text(
        f"crossbar\nVin[0:{last}] in[0:{last}] 0 @w.npz:v\nRd[0:{last}] in[0:{last}] w[0][0:{last}] 10\n"
        f"Rrow[0:{most}][0:{last}] w[0:{most}][0:{last}] w[1:{last}][0:{last}] g=@w.npz:row\n"
        f"Rcol[0:{most}][0:{last}] b[0:{most}][0:{last}] b[1:{last}][0:{last}] g=@w.npz:column\n"
        f"Ro[0:{last}] b[{last}][0:{last}] 0 10\n"
        f"X[0:{last}][0:{last}] w[0:{last}][0:{last}] b[0:{last}][0:{last}] cell r=@w.npz:r\n"
        f".subckt cell a b r=1k\nR1 a m {{r}}\n{cell}\n"
    )
    solution = cs.solve(cs.load(tmp_path / "crossbar.cir"))
    assert solution.residuals.kcl_relative < 1e-12
    assert solution.residuals.power_balance_watts < 1e-12


ZERO = """no voltages but an offset
R2 n1 n2 1k
R6 0 n6 200
D7 n5 0 d
D9 n1 n4 d
D12 n2 n1 d
D15 n4 n5 d
V17 n2 n6 5
.model d D(ron=0)
"""


@pytest.mark.parametrize("text", [ZERO, *(random_deck(*at).text for at in ((1, 7001301), (2, 7000978)))])
def test_what_is_at_rest_is_polished_once_or_twice(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Voltages that are rounding: what corrections leave out is no reason to search elsewhere."""
    calls = []
    monkeypatch.setattr(newton, "polished", lambda *arguments: calls.append(1) or polished(*arguments))
    solution = cs.solve(cs.parse(text))
    assert "less accurate" not in solution.message
    assert len(calls) <= 20


# -- large networks of piecewise-linear diodes -------------------------------------------------------------------------

PERFECT, RESISTIVE = "ron=0", "ron=0.1 roff=1e9 vrev=50"


def graph_of_diodes(n: int, seed: int, kind: str = PERFECT) -> str:
    """Nodes that currents are pushed into, and from each two diodes to others, with forward voltages."""
    rng = np.random.default_rng(seed)
    lines = ["graph"] + [f".model m{k} D({kind} vfwd={k})" for k in range(1, 10)]
    for k in range(1, n):
        lines += [f"R{k} n{k} 0 1meg", f"I{k} 0 n{k} {rng.normal() * 1e-3}"]
        lines += [
            f"D{k}_{m} n{k} n{to} m{rng.integers(1, 10)}" for m, to in enumerate(rng.integers(0, n, 2)) if to != k
        ]
    return "\n".join([*lines, "R0 n0 0 1k"])


@pytest.mark.parametrize("n", [30, 10_000])
def test_perfect_diodes_in_a_row_make_voltages_rise_as_isotonic_regression_does(n: int) -> None:
    """Dk lets v(nk) be at most v(nk+1): the least energy is a weighted least-squares fit with this order.

    Many in a row that conduct give way together: what closes one alone leaves volts across all of them.
    """
    rng = np.random.default_rng(0)
    ohms, amperes = 10.0 ** rng.uniform(2, 5, n), rng.normal(size=n) * 1e-3
    rows = (f"D{k} n{k} n{k + 1} d\nR{k} n{k + 1} 0 {ohms[k]}\nI{k} 0 n{k + 1} {amperes[k]}" for k in range(n))
    solution = cs.solve(cs.parse("\n".join(["row", ".model d D(ron=0)", "V1 n0 0 1", *rows])))
    fitted = isotonic_regression(amperes * ohms, weights=1 / ohms).x
    np.testing.assert_allclose(solution.voltages()[0, 2:], np.maximum(fitted, 1.0), rtol=1e-9)
    assert solution.steps <= 60


@pytest.mark.parametrize("kind", [PERFECT, RESISTIVE])
@pytest.mark.parametrize("seed", range(6))
def test_the_interior_point_method_and_line_searches_agree(
    kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    circuit, asked = cs.parse(graph_of_diodes(60, seed, kind)), []
    monkeypatch.setattr(newton, "FULL_STEPS", 2)
    monkeypatch.setattr(newton, "minimise", None)
    inside = cs.solve(circuit)
    monkeypatch.undo()
    monkeypatch.setattr(newton, "FULL_STEPS", 2)
    monkeypatch.setattr(newton, "follow_inside", lambda *_: asked.append(1) or iter(()))
    sure = cs.solve(circuit)
    assert asked
    assert inside.determined.all()
    np.testing.assert_allclose(inside.voltages(), sure.voltages(), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [PERFECT, RESISTIVE])
def test_large_networks_of_diodes_take_few_steps(kind: str) -> None:
    """Of 1,000 nodes and 2,000 diodes line searches took 677 steps, of diodes with ron 535."""
    solution = cs.solve(cs.parse(graph_of_diodes(1000, 0, kind)))
    assert_ideal_diodes(solution)
    assert_power_balance(solution, 1e-9)
    assert solution.steps <= 60


def tree_with_diodes(n: int, seed: int) -> str:
    """A tree of resistors of 1 ohm to 10 kohm, twice as many diodes anywhere, and some currents."""
    rng = np.random.default_rng(seed)
    lines = ["tree", "V1 n0 0 5", ".model d0 D(ron=0)", ".model d1 D(ron=1 roff=1e9 vfwd=0.6)"]
    lines += [f"R{k} n{k} n{rng.integers(0, k)} {10 ** rng.uniform(0, 4)}" for k in range(1, n)]
    ends = rng.integers(0, n, (2 * n, 2))
    lines += [f"D{k} n{a} n{b} d{k % 2}" for k, (a, b) in enumerate(ends) if a != b]
    lines += [f"I{k} 0 n{rng.integers(1, n)} {rng.normal() * 1e-2}" for k in range(n // 5)]
    return "\n".join(lines)


@pytest.mark.parametrize("seed", range(3))
def test_conductances_of_many_sizes_around_diodes_take_few_steps(seed: int) -> None:
    """With products of gap and current in proportion to these conductances up to 314 steps, line searches 214."""
    solution = cs.solve(cs.parse(tree_with_diodes(800, seed)), cs.Settings(method="newton"))
    assert_ideal_diodes(solution)
    assert solution.steps <= 80


def grid_of_diodes(n: int, seed: int, highest: int, resistors: float) -> str:
    """n x n nodes: of the neighbours half are joined by diodes with whole forward voltages, others by resistors."""
    rng = np.random.default_rng(seed)
    lines = ["grid", *(f".model m{k} D(ron=0 vfwd={k})" for k in range(4))]
    for k, (i, j, down) in enumerate(np.ndindex(n, n, 2)):
        if i + down < n and j + 1 - down < n:
            ends = [f"g{i}_{j}", f"g{i + down}_{j + 1 - down}"]
            if rng.random() < 0.5:
                a, b = rng.permutation(ends)
                lines.append(f"D{k} {a} {b} m{rng.integers(highest + 1)}")
            elif rng.random() < resistors:
                lines.append(f"R{k} {ends[0]} {ends[1]} {10 ** rng.uniform(2, 4)}")
    for k, (i, j) in enumerate(rng.integers(0, n, (3, 2))):
        lines += [f"V{k} s{k} 0 {rng.normal() * 5}", f"Rs{k} s{k} g{i}_{j} 100"]
    return "\n".join([*lines, "Rg g0_0 0 10"])


@pytest.mark.parametrize(
    "grid", [(30, 0, 0, 1.0), (20, 2, 1, 1.0), (30, 2, 3, 1.0), (30, 0, 0, 0.8), (30, 3, 0, 0.8), (60, 0, 3, 1.0)]
)
def test_grids_with_dead_ends_and_islands_take_few_steps(grid: tuple[int, int, int, float]) -> None:
    """Most diodes carry nothing, many at no gap either: line searches ended at 93 to 433 steps, or with no answer."""
    solution = cs.solve(cs.parse(grid_of_diodes(*grid)))
    assert_ideal_diodes(solution)
    assert solution.steps <= 110
    assert np.abs(solution.voltages()).max() <= 500.0  # of sources of some 5 V; half of the nodes hang on diodes alone


@pytest.mark.parametrize("seed", [1, 5, 7, 9, 10])
def test_where_no_current_can_flow_gaps_begin_at_the_size_of_the_voltages(seed: int) -> None:
    """One source, and no way back: all is at 0 V beyond the knees but for rounding, from which it takes 67 to 102."""
    idle = ("V1", "V2", "Rs1", "Rs2", "Rg")
    lines = (line for line in grid_of_diodes(12, seed, 0, 1.0).split("\n") if not line.startswith(idle))
    solution = cs.solve(cs.parse("\n".join(lines)), cs.Settings(method="newton"))
    assert_ideal_diodes(solution)
    assert solution.steps <= 60


def test_islands_that_diodes_bound_on_one_side_stay_near() -> None:
    """Nothing holds a and b but diodes that need not conduct: inside, these gaps grow for ever."""
    text = graph_of_diodes(200, 1) + "\nRa a b 1k\nDa a n1 m1\nDb b n2 m2\n"
    solution = cs.solve(cs.parse(text))
    others = np.abs(solution.voltages()).max()
    assert others > 2000.0
    for node in "ab":
        assert not solution.determined[solution.circuit.netlist.node(node)]
        assert abs(solution.voltage(node)[0]) <= others


def test_voltages_that_are_nothing_are_settled() -> None:
    """I1 goes round through D2: all is at 0 V but for rounding, whose last digits took 38 tries to find."""
    deck = """rest
I1 n2 n1 -5.5u
D2 n2 n1 d
R1 n5 n2 57.1k
R2 n6 0 70.6
R3 n8 n2 43.4k
R4 n2 n6 268
R5 n7 n1 22
R6 n8 n6 4250
D1 n5 n8 d
N1 n9 n6 m1
N2 n7 n4 m2
.model m1 sinh(i0=2.47e-06 v0=0.05 g=3.43e-06)
.model m2 sinh(i0=2.83e-05 v0=0.2 g=4.2e-05)
.model d D(ron=0)"""
    solution = cs.solve(cs.parse(deck), cs.Settings(method="newton"))
    assert np.abs(solution.voltages()).max() < 1e-40
    assert solution.current("D2")[0] == pytest.approx(5.5e-6)
    assert solution.steps <= 10 and "less accurate" not in solution.message


# -- limiting ----------------------------------------------------------------------------------------------------------

JUNCTION = "is=1e-14 bv=5"


def junction(model: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Law and parameters of one branch, and its N Vt."""
    j = cs.parse(f"t\nI1 0 a 1\n{'D' if model[0] == 'D' else 'N'}1 a 0 m\n.model m {model}").junctions
    return j.law, j.params, float(j.params[0, NVT])


def next_voltage(model: str, old: float, current: float, v: float, line: float) -> float:
    law, params, _ = junction(model)
    return float(limited(law, params, *(np.array([x]) for x in (old, current, v, line)))[0])


def test_voltages_go_on_from_the_current_of_the_tangent_beyond_a_knee_and_where_none_is_left() -> None:
    """Of V(i) = N Vt ln(i / 1e-14) and the knee, where the slope is 1 / (sqrt(2) x 1 ohm)."""
    nvt = junction(f"D({JUNCTION})")[2]
    knee = nvt * np.log(nvt / (np.sqrt(2.0) * 1e-14))

    def volts(amperes: float) -> float:
        return nvt * np.log(amperes / 1e-14)

    breaks = 5.0 - volts(1e-3)  # 1 mA flows at BV
    for model, old, current, v, line, wanted in (
        (f"D({JUNCTION})", 0.5, 1e-6, 5.0, 1.0, volts(1.0)),
        (f"D({JUNCTION})", 0.5, 1e-6, 5.0, 1e-3, knee),  # not back below it
        (f"D({JUNCTION})", 0.9, 10.0, 5.0, 1.0, 0.9),  # nor below where it was
        (f"D({JUNCTION})", 0.5, 1e-6, 0.8, 1e6, 0.8),  # nor beyond v
        (f"D({JUNCTION})", 0.5, 1e-6, 0.6, 1e-3, 0.6),  # below the knee v counts
        (f"D({JUNCTION})", 0.0, 0.0, -50.0, -1.0, -breaks - volts(1.0)),  # and so where it breaks down
        (f"D({JUNCTION})", 0.0, 0.0, -50.0, -1e-3, -breaks - knee),
        (f"D({JUNCTION})", 0.7, 1e-3, 0.65, 1e-6, volts(1e-6)),  # hardly any current left
        (f"D({JUNCTION})", 0.7, 1e-3, 0.65, 1e-4, 0.65),
        (f"D({JUNCTION})", 1.6, 1e13, 1.5, 1.0, 1.5),  # of what was rounding
        (f"D({JUNCTION})", -5.7, -1e-3, -5.65, -1e-6, -breaks - volts(1e-6)),
        ("D(is=1e-14 isr=1e-6 nr=2)", 0.1, 1e-6, 5.0, 1e-9, 2 * nvt * np.log(2 * nvt / (np.sqrt(2.0) * 1e-6))),
        ("sinh(i0=1u v0=0.1)", 1.0, 1e-2, 0.9, 1e-5, 0.1 * np.arcsinh(10.0)),
        ("sinh(i0=1u v0=0.1)", -1.0, -1e-2, -0.9, -1e-5, -0.1 * np.arcsinh(10.0)),
        ("tanh", 0.5, 0.4, 5.0, 1.0, 5.0),
    ):
        assert next_voltage(model, old, current, v, line) == pytest.approx(wanted, rel=1e-6, abs=1e-9), (model, v, line)


def test_first_tangents_lie_at_the_knees_or_between_them() -> None:
    """No knee is a negative voltage: with is=1 its slope is that at once."""
    models = f".model m D({JUNCTION})\n.model t tanh\n.model steep D(is=1)"
    problem = cs.compile_problem(cs.parse(f"t\nI1 0 a 1\nD1 a 0 m\nN1 a 0 t\nD2 a 0 steep\n{models}"))
    network, nvt = make_network(problem), junction(f"D({JUNCTION})")[2]
    knee = nvt * np.log(nvt / (np.sqrt(2.0) * 1e-14))
    v = np.repeat([[9.0], [0.3], [-9.0]], 3, axis=1)
    cold, warm = (first_voltages(network, v, warm=warm) for warm in (False, True))
    broken = -5.0 + nvt * np.log(1e-3 / 1e-14) - knee
    of_diode, steep = network.law == Law.SHOCKLEY, network.params[:, IS] == 1.0
    np.testing.assert_allclose(cold[:, of_diode & ~steep], knee)
    np.testing.assert_array_equal(cold[:, steep], 0.0)
    np.testing.assert_allclose(warm[:, of_diode & ~steep].ravel(), [knee, 0.3, broken])
    np.testing.assert_array_equal(warm[:, ~of_diode], v[:, ~of_diode])
