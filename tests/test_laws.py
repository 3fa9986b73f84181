"""Nonlinear resistors (N): their cards, and for every law the inverse and the largest current."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers import (
    PRECISE,
    assert_close,
    assert_laws,
    flat,
    flat_text,
    needs_ngspice,
    reference_voltages,
    renumbered,
    voltages,
)  # fmt: skip
from numpy.typing import NDArray
from scipy.optimize import brentq

import circuitsim as cs
from circuitsim.gallery import Recipe, random_circuit
from circuitsim.io.ngspice import operating_point, run_ngspice, tight_options
from circuitsim.laws import MAX_EXPONENT, STRAIGHT, Law, branch_current, branch_voltage, most_current
from circuitsim.models import BOLTZMANN, CHARGE

Floats = NDArray[np.float64]
VT = BOLTZMANN * 300.15 / CHARGE  # V, at 27 C

LAWS = {
    "diode": (Law.SHOCKLEY, [1e-14, VT, 0.0, np.inf, VT, 0.0]),
    "diode with RS": (Law.SHOCKLEY, [1e-9, 2 * VT, 10.0, np.inf, 2 * VT, 0.0]),
    "zener": (Law.SHOCKLEY, [1e-12, 1.5 * VT, 0.0, 5.0, 1.5 * VT, 0.0]),
    "zener with RS and gmin": (Law.SHOCKLEY, [1e-12, VT, 30.0, 4.3, 1.2 * VT, 1e-9]),
    "diode with gmin": (Law.SHOCKLEY, [1e-14, VT, 0.0, np.inf, VT, 1e-12]),
    "breakdown before -3 Vt": (Law.SHOCKLEY, [1e-12, VT, 0.0, 0.05, VT, 0.0]),
    "breakdown adjusted below 0": (Law.SHOCKLEY, [1e-14, 5 * VT, 0.0, -3.6, 5 * VT, 0.0]),
    "the same with RS": (Law.SHOCKLEY, [1e-14, 2 * VT, 20.0, -0.1, 2 * VT, 0.0]),
    "pwl": (Law.PWL, [0.1, 0.7, 0.05, 3.0, 0.0, 0.0]),
    "tanh": (Law.TANH, [1e-3, 0.5, 0.0, 0.0, 0.0, 0.0]),
    "sinh": (Law.SINH, [1e-6, 0.2, 0.0, 0.0, 0.0, 0.0]),
    "segment around 0": (Law.SEGMENT, [0.1, -1.0, 2.5, 0.0, 0.0, 0.0]),
    "segment above": (Law.SEGMENT, [0.1, 0.75, np.inf, 0.0, 0.0, 0.0]),
    "segment below": (Law.SEGMENT, [3.0, -4.0, -2.0, 0.0, 0.0, 0.0]),
}
NAMES = pytest.mark.parametrize("name", LAWS)


def rows(name: str, count: int) -> tuple[NDArray[np.int8], Floats]:
    law, p = LAWS[name]
    return np.full(count, law, np.int8), np.tile(np.array(p), (count, 1))


def current(name: str, v: Floats) -> Floats:
    return branch_current(*rows(name, v.size), v)[0]


def voltage(name: str, i: Floats) -> Floats:
    return branch_voltage(*rows(name, i.size), i)


# -- the inverse -------------------------------------------------------------------------------------------------------


@NAMES
def test_voltage_of_a_current_carries_that_current(name: str) -> None:
    """Over all currents the law has between -20 V and 20 V (times V0 or N Vt), and the smallest ones."""
    v = np.concatenate([np.linspace(-20, 20, 2001), s := np.logspace(-12, 0, 200), -s])
    v = v if LAWS[name][0] != Law.SHOCKLEY else np.concatenate([v[v < 20], np.linspace(0, 18, 200)])
    i = current(name, v)
    again = voltage(name, i)
    assert np.isfinite(again[i != 0]).all() or LAWS[name][0] in (Law.TANH, Law.SHOCKLEY)
    finite = np.isfinite(again)
    np.testing.assert_allclose(current(name, again[finite]), i[finite], rtol=1e-12, atol=0)
    assert not np.isnan(again).any()


@pytest.mark.parametrize("rs", [0.0, 1e-3, 50.0])
@pytest.mark.parametrize("saturation", [1e-14, 1e-9, 1e-280])
def test_shockley_inverse_over_forty_decades(saturation: float, rs: float) -> None:
    ratio = np.logspace(-10, 30, 401)
    p = np.tile([saturation, VT, rs, np.inf, VT, 0.0], (ratio.size, 1))
    law = np.zeros(ratio.size, np.int8)
    v = branch_voltage(law, p, ratio * saturation)
    np.testing.assert_allclose(v, VT * np.log1p(ratio) + rs * ratio * saturation, rtol=1e-14)
    keep = rs * ratio * saturation < 1e3 * VT  # beyond, v is known to more digits than w = v - RS i
    np.testing.assert_allclose(branch_current(law, p, v)[0][keep], (ratio * saturation)[keep], rtol=1e-12)


def test_breakdown_inverse() -> None:
    """5 V and V_T ln(i / IS) below; between IS (1 - (3 Vt / (5 e))^3) and IS the law jumps, at -5 V."""
    saturation = 1e-12
    p = np.tile([saturation, VT, 0.0, 5.0, VT, 0.0], (4, 1))
    cube = (3 * VT / (5 * math.e)) ** 3
    i = -saturation * np.array([1e6, 1.0, 1 - cube / 2, 0.999])
    v = branch_voltage(np.zeros(4, np.int8), p, i)
    np.testing.assert_allclose(v[:3], [-5 - VT * math.log(1e6), -5, -5], rtol=1e-14)
    assert v[3] == pytest.approx(-3 * VT / math.e * 0.001 ** (-1 / 3), rel=1e-12)


@pytest.mark.parametrize("name", [name for name in LAWS if "breakdown" in name or "same" in name])
def test_a_low_breakdown_voltage_leaves_the_forward_law_alone(name: str) -> None:
    """As in ngspice the exponential of breakdown begins at -3 N Vt at the latest: nothing flows at 0 V."""
    nvt, rs = LAWS[name][1][1], LAWS[name][1][2]
    v = np.concatenate([np.linspace(-3.0, 3.0, 61) * nvt, np.linspace(-4.0, 0.0, 401)])
    i = current(name, np.sort(v))
    assert current(name, np.zeros(1))[0] == 0.0
    assert (np.diff(i) >= 0).all()
    if rs == 0:
        forward = v[(v > -2.99 * nvt)]
        np.testing.assert_allclose(current(name, forward), LAWS[name][1][0] * np.expm1(forward / nvt), rtol=1e-13)


def test_currents_that_no_voltage_gives() -> None:
    assert voltage("diode", np.array([-2e-14, 1e300, -1e-14])).tolist() == [-np.inf, np.inf, -np.inf]
    assert voltage("tanh", np.array([1.1e-3, -1e-3])).tolist() == [np.inf, -np.inf]
    assert voltage("segment around 0", np.array([0.26, 0.25, -0.1, -0.11])).tolist() == [np.inf, 2.5, -1.0, -np.inf]
    assert voltage("segment above", np.array([-1e-300, 0.0, 0.1])).tolist() == [-np.inf, 0.0, 1.75]
    one_way = np.array([[0.1, 0.7, 0.0, 0.0, 0.0, 0.0]] * 2)
    assert branch_voltage(np.full(2, Law.PWL, np.int8), one_way, np.array([-1.0, 1.0])).tolist() == [-np.inf, 10.7]
    assert abs(voltage("diode with gmin", np.array([-1e-9]))[0] + (1e-9 - 1e-14) / 1e-12) < 1e-6


def test_inverse_of_mixed_laws_and_batches_is_that_of_each() -> None:
    law = np.array([LAWS[name][0] for name in LAWS], np.int8)
    p = np.array([LAWS[name][1] for name in LAWS])
    i = np.linspace(-1e-3, 1e-3, 5)[:, None] * np.ones(law.size)
    mixed, found = branch_voltage(law, p, i), branch_current(law, p, i)[0]
    for k, name in enumerate(LAWS):
        np.testing.assert_array_equal(mixed[:, k], voltage(name, i[:, k]))
        np.testing.assert_array_equal(found[:, k], current(name, i[:, k]))


@pytest.mark.parametrize("i", [0.0, 1e-300, 1e-3, 1e30, 1e290])
@NAMES
def test_no_current_makes_nan(name: str, i: float) -> None:
    v = voltage(name, np.array([i, -i]))
    assert not np.isnan(v).any()
    assert (v[0] >= 0) and (v[1] <= 0)


# -- how they go on far out --------------------------------------------------------------------------------------------


def test_sinh_goes_on_as_a_straight_line() -> None:
    edge = STRAIGHT * 0.2
    [low, high, far], [slope, same, also] = branch_current(*rows("sinh", 3), np.array([edge, edge + 1, 1e6]))
    assert slope == same == also == pytest.approx(1e-6 / 0.2 * math.cosh(STRAIGHT), rel=1e-12)
    assert high - low == pytest.approx(slope, rel=1e-6)
    assert far == pytest.approx(slope * (1e6 - edge), rel=1e-3)
    assert MAX_EXPONENT > STRAIGHT


def test_most_current_each_law_can_carry() -> None:
    def most(name: str) -> tuple[float, float]:
        law, p = LAWS[name]
        forward, reverse = most_current(np.array([law], np.int8), np.array([p]))
        return float(forward[0]), float(reverse[0])

    assert most("diode") == (np.inf, 1e-14)
    assert most("zener") == most("diode with gmin") == most("pwl") == most("sinh") == (np.inf, np.inf)
    assert most("tanh") == pytest.approx((1e-3, 1e-3), rel=1e-7)
    assert most("segment around 0") == pytest.approx((0.25, 0.1), rel=1e-15)
    assert most("segment above") == (np.inf, 0.0)
    assert most("segment below") == (0.0, pytest.approx(6.0))


# -- cards -------------------------------------------------------------------------------------------------------------

TABLE = [-1, -2e-3, -0.5, -1e-3, 0, 0, 0.5, 0, 1, 1e-3, 2, 1.5e-3]


def of_table(v: float, points: list[float]) -> float:
    """Straight lines through a table, and beyond it the outer ones."""
    x, y = np.array(points[::2], float), np.array(points[1::2], float)
    k = min(max(int(np.searchsorted(x, v)) - 1, 0), x.size - 2)
    return float(y[k] + (v - x[k]) * (y[k + 1] - y[k]) / (x[k + 1] - x[k]))


@pytest.mark.parametrize(
    "points",
    [TABLE, [-1, -1e-3, 1, 2e-3 - 1e-3], [0, 0, 1, 0, 2, 1], [-3, -1, -2, 0, 5, 0], [1, 1, 2, 2, 3, 5],
     [-3, -4, -2, -2, -1, -1], [-1, -0.1, 2, 0.2, 3, 0.2], [-2, -1, -1, -1, 0, 0, 1, 1, 2, 1]],
)  # fmt: skip
def test_a_table_is_its_straight_lines(points: list[float]) -> None:
    for v in (-7.0, -3.0, -1.5, -0.7, -1e-9, 0.0, 0.25, 0.5, 0.75, 1.0, 2.7, 40.0):
        circuit = cs.parse(f"t\n.model t pwl({' '.join(map(str, points))})\nV1 a 0 {v}\nN1 a 0 t m=3")
        wanted = 3 * of_table(v, points)
        assert cs.solve(circuit).current("N1")[0] == pytest.approx(wanted, rel=1e-13, abs=1e-14 * max(map(abs, points)))


def test_the_least_slope_of_a_table_is_a_resistor_and_flat_segments_vanish() -> None:
    circuit = cs.parse("t\n.model t pwl(-1 -2 0 0 1 1 2 5)\nN1 a 0 t m=2\nR1 a 0 1\nI1 0 a 1")
    assert circuit.conductors.g.tolist() == [1.0, 2.0]
    assert circuit.junctions.law.tolist() == [Law.SEGMENT] * 2
    assert circuit.junctions.params[:, :3].tolist() == [[2.0, -np.inf, 0.0], [6.0, 1.0, np.inf]]
    flat = cs.parse("t\n.model t pwl(-1 0 1 0 2 1)\nN1 a 0 t\nR1 a 0 1")
    assert flat.junctions.params[:, :3].tolist() == [[1.0, 1.0, np.inf]] and len(flat.conductors) == 1
    straight = cs.parse("t\n.model t pwl(-1 -2 1 2)\nN1 a 0 t")
    assert not len(straight.junctions) and straight.conductors.g.tolist() == [2.0]


def test_models_without_current_are_open() -> None:
    circuit = cs.parse("t\n.model z tanh(imax=0)\n.model f pwl(-1 0 1 0)\nN1 a 0 z\nN2 a 0 f\nR1 a 0 1\nI1 0 a 1")
    assert not len(circuit.junctions) and len(circuit.conductors) == 1
    assert [text for _, text in circuit.notes if "open" in text] == [
        f"model {name}: no current at any voltage, its elements are open" for name in "zf"
    ]
    assert cs.solve(circuit).current("N1")[0] == 0


def test_defaults_forms_arrays_parameters_and_multipliers() -> None:
    text = """forms
.param big=2m w=0.25
.model Plain tanh
.model spaced sinh i0 3u v0 = {2*w} g {big}
.model table PWL (-1,-1m) (0,0) ({w}, big)
.subckt cell a b
.model inner tanh(imax={big})
N1 a b inner m=2
.ends
X1 p 0 cell m=3
N1[0:2] a[0:2] 0 plain m={1+0.5}
N2 q 0 SPACED
N3 r 0 table
Rg[0:2] a[0:2] 0 1k
Ip 0 p 1m
Iq 0 q 1m
Ir 0 r 1m
"""
    circuit = cs.parse(text)
    table, models = circuit.netlist.tables["N"], circuit.netlist.models
    assert table.names == ["N.X1.N1", "N1[0]", "N1[1]", "N1[2]", "N2", "N3"]
    assert table.values["m"].tolist() == [6.0, 1.5, 1.5, 1.5, 1.0, 1.0]
    assert models[int(table.values["model"][5])].points == (-1.0, -1e-3, 0.0, 0.0, 0.25, 2e-3)
    by_name = {circuit.element(circuit.junctions, k): k for k in range(len(circuit.junctions))}
    p = circuit.junctions.params
    assert p[by_name["N1[1]"], :2].tolist() == [1.5e-3, 0.5]
    assert p[by_name["N2"], :2].tolist() == [3e-6, 0.5]
    assert p[by_name["N.X1.N1"], :2].tolist() == pytest.approx([12e-3, 0.5])
    solution = cs.solve(circuit, PRECISE)
    assert solution.voltage("p")[0] == pytest.approx(0.5 * math.atanh(1 / 12), rel=1e-10)
    assert solution.current("N1").shape == (1, 3)
    edges = [data["name"] for _, _, data in circuit.to_networkx().edges(data=True) if data["kind"] == "junction"]
    assert sorted(edges) == ["N.X1.N1", "N1[0]", "N1[1]", "N1[2]", "N2", "N3"]


# -- circuits ----------------------------------------------------------------------------------------------------------


def test_a_current_beyond_imax_has_no_answer() -> None:
    deck = "t\n.model s tanh(imax=1m v0=0.5 g={})\nI1 0 a {}\nN1 a 0 s\n"
    with pytest.raises(cs.TopologyError, match=r"node a: I1 pushes a net 0\.0011 A into it.*N1 blocks it"):
        cs.solve(cs.parse(deck.format(0, "1.1m")))
    assert cs.solve(cs.parse(deck.format(0, "0.9m")), PRECISE).voltage("a")[0] == pytest.approx(
        0.5 * math.atanh(0.9), rel=1e-9
    )
    found = cs.solve(cs.parse(deck.format("1u", "2m")), PRECISE).voltage("a")[0]
    assert found == pytest.approx(brentq(lambda v: 1e-3 * math.tanh(2 * v) + 1e-6 * v - 2e-3, 0, 1e4), rel=1e-9)


def test_a_saturating_table_bounds_the_current_of_each_direction() -> None:
    deck = "t\n.model s pwl(-2 -1m -1 -1m 0 0 1 3m 2 3m)\nI1 0 a {}\nN1 a 0 s\n"
    assert cs.solve(cs.parse(deck.format("2m"))).voltage("a")[0] == pytest.approx(2 / 3)
    assert cs.solve(cs.parse(deck.format("-0.5m"))).voltage("a")[0] == pytest.approx(-0.5)
    for amperes in ("3.1m", "-1.1m"):
        with pytest.raises(cs.TopologyError, match="N1 blocks it"):
            cs.solve(cs.parse(deck.format(amperes)))


def test_a_node_is_undetermined_where_the_table_is_flat() -> None:
    deck = "t\n.model s pwl(-1 -1m -0.5 0 0.5 0 1 1m)\nN1 a 0 s\nI1 0 a {}\n"
    assert cs.solve(cs.parse(deck.format("1m"))).determined.tolist() == [True, True]
    solution = cs.solve(cs.parse(deck.format("0")))
    assert solution.determined.tolist() == [True, False] and abs(solution.voltage("a")[0]) <= 0.5


def test_a_sinh_that_sources_overload_is_refused_by_name() -> None:
    with pytest.raises(cs.TopologyError, match=r"resistor N1: the sources force -200 V across it, exp\(1000\)"):
        cs.solve(cs.parse("t\n.model s sinh(i0=1u v0=0.2)\nV1 a 0 -200\nN1 a 0 s"))


MIXES = [
    Recipe(laws=3, shockley=0, pwl=0, ideal=0, subcircuits=0),
    Recipe(laws=9, nodes=6),
    Recipe(laws=6, crossbars=3, volts=20.0, shorts=2),
]


def random_deck(seed: int, recipe: Recipe | None = None) -> str:
    rng = np.random.default_rng([77, seed])
    return random_circuit(rng, replace(recipe or MIXES[seed % 3], nodes=int(rng.integers(2, 9))))


@pytest.mark.parametrize("seed", range(24))
def test_random_circuits_against_dense_algebra(seed: int) -> None:
    circuit = cs.parse(random_deck(seed))
    solution = cs.solve(circuit, PRECISE)
    assert_laws(solution)
    assert_close(solution.voltages()[0], reference_voltages(circuit), 1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_reference_backend_gives_the_same_answer(seed: int) -> None:
    problem = cs.compile_problem(cs.parse(random_deck(3 * seed)))
    slow, fast = (cs.solve(problem, replace(PRECISE, backend=name)) for name in ("reference", "cpu"))
    assert_close(slow.voltages(), fast.voltages(), 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_rewritten_circuits_have_the_same_answer(seed: int) -> None:
    circuit = cs.parse(random_deck(seed))
    text, new_name = renumbered(circuit, np.random.default_rng(seed))
    one, other = cs.solve(circuit, PRECISE), cs.solve(cs.parse(text), PRECISE)
    assert_close(voltages(other, [new_name[node] for node in circuit.nodes]), voltages(one, circuit.nodes), 1e-9)
    scaled = cs.solve(cs.parse(flat_text(circuit, conductance=40.0, current=40.0)), PRECISE)
    assert_close(voltages(scaled, circuit.nodes), voltages(one, circuit.nodes), 1e-9)


def test_the_gallery_without_laws_is_what_it_was() -> None:
    assert random_circuit(np.random.default_rng(5), Recipe(laws=2)).startswith(
        random_circuit(np.random.default_rng(5), Recipe())
    )


# -- ngspice -----------------------------------------------------------------------------------------------------------


@needs_ngspice
@pytest.mark.parametrize("seed", range(12))
def test_ngspice_agrees_on_random_circuits(seed: int) -> None:
    circuit = cs.parse(random_deck(seed, Recipe(laws=9, shockley=0, pwl=0, ideal=0, shorts=0)))
    solution = cs.solve(circuit, PRECISE)
    found = operating_point(flat(circuit), options=tight_options())
    theirs = np.array([found[name.lower()] for name in circuit.nodes[1:]])
    assert_close(theirs, solution.voltages()[0, 1:], 1e-7)


@needs_ngspice
@pytest.mark.parametrize(
    "model",
    ["tanh(imax=2m v0=0.7 g=3u)", "sinh(i0=2u v0=0.6 g=1m)", f"pwl({' '.join(map(str, TABLE))})",
     "pwl(0.5 1m 1 2m 2 6m)"],
)  # fmt: skip
def test_ngspice_has_the_same_law_beyond_the_ends_too(model: str) -> None:
    text = flat(cs.parse(f"sweep\nV1 a 0 0\nN1[3:3] a 0 law m=1.5\n.model law {model}"))
    [plot] = run_ngspice(text.replace(".op\n", ".dc V1 -5 5 0.25\n"), options=tight_options()).plots
    mine = cs.parse(f"sweep\nV1 a 0 0\nN1 a 0 law m=1.5\n.model law {model}").with_values(
        {"V1": np.linspace(-5, 5, 41)}
    )
    np.testing.assert_allclose(-plot.column("i(v1)"), cs.solve(mine).current("N1"), rtol=1e-11, atol=1e-15)


def test_text_of_flat_elements() -> None:
    deck = "t\n.model a tanh(imax=1m v0=0.5 g=1u)\n.model b sinh\n.model c pwl(-1 -1m 0 0)\n"
    lines = flat(cs.parse(deck + "Nx[0:1] y[0:1] 0 a m=2\nN2 0 y[0] b\nN3 y[1] 0 c\n")).splitlines()
    assert [line for line in lines if line.startswith("B")] == [
        "BNx_0 y[0] 0 i=0.002*tanh(v(y[0],0)/0.5)+2e-06*v(y[0],0)",
        "BNx_1 y[1] 0 i=0.002*tanh(v(y[1],0)/0.5)+2e-06*v(y[1],0)",
        "BN2 0 y[0] i=1e-06*sinh(v(0,y[0])/0.2)",
        "BN3 y[1] 0 i=1.0*pwl(v(y[1],0), -1.0, -0.001, 0.0, 0.0)",
    ]


# -- exponentials that overflow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deck", "name"),
    [
        ("V1 a 0 60\nE1 e 0 a 0 1\nD4 e 0 d", "D4"),
        ("V1 a 0 100\nD1 a b d\nD2 b 0 d2", "D1"),
        ("V1 a 0 -100\nD1 a b z\nD2 b 0 z", "D1"),
        ("V1 a 0 300\nN1 a b s\nN2 b 0 s", "N1"),
    ],
)
def test_where_an_exponential_overflows_nothing_is_solved(deck: str, name: str) -> None:
    """Beyond exp(700), and sinh(500), the laws are not followed: KCL with what is put there is no answer."""
    models = ".model d D(is=1e-14)\n.model d2 D(is=1e-14 n=2)\n.model z D(bv=5)\n.model s sinh(i0=1u v0=0.1)"
    solution = cs.solve(cs.parse(f"t\n{deck}\n{models}"), raise_on_failure=False)
    assert not solution.solved
    assert f"the current of {name} overflows there: put a resistor in series" in solution.message


def test_a_series_resistance_takes_what_would_overflow() -> None:
    text = "t\nV1 a 0 500\nD1 a b d\nR1 b 0 1\n.model d D(is=1e-14 rs=1)"
    assert cs.solve(cs.parse(text)).current("R1")[0] == pytest.approx(250, rel=0.01)
