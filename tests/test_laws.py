"""Nonlinear resistors (N): their cards, and for every law the inverse and the largest current."""

from __future__ import annotations

import math
import sys
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
from circuitsim import law_kernels, laws
from circuitsim.gallery import Recipe, random_circuit
from circuitsim.law_kernels import MAX_EXPONENT, N_PARAMS, STRAIGHT, Law
from circuitsim.laws import branch_current, exponential_voltage, generation, most_current
from circuitsim.models import BOLTZMANN, CHARGE
from circuitsim.spice.compare import Verdict, compare
from circuitsim.spice.ngspice import operating_point, run_ngspice, tight_options

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
    "high injection": (Law.SHOCKLEY, [1e-14, VT, 0.0, np.inf, VT, 0.0, 1e3]),
    "high injection behind RS": (Law.SHOCKLEY, [1e-12, 1.5 * VT, 3.0, 40.0, VT, 0.0, 20.0]),
    "recombination": (Law.SHOCKLEY, [1e-14, VT, 0.0, np.inf, VT, 0.0, 0.0, 1e-9, 2 * VT, 1.0, 0.25]),
    "recombination that saturates": (Law.SHOCKLEY, [1e-14, VT, 0.0, np.inf, VT, 0.0, 0.0, 1e-9, 2 * VT, 1.0, 0.0]),
    "1N4148": (Law.SHOCKLEY, [2.7e-9, 1.84 * VT, 0.57, 100.0, 1.84 * VT, 0.0, 22.6, 1.6e-9, 2 * VT, 2.0, 0.17]),
    "pwl": (Law.PWL, [0.1, 0.7, 0.05, 3.0]),
    "tanh": (Law.TANH, [1e-3, 0.5]),
    "sinh": (Law.SINH, [1e-6, 0.2]),
    "segment around 0": (Law.SEGMENT, [0.1, -1.0, 2.5]),
    "segment above": (Law.SEGMENT, [0.1, 0.75, np.inf]),
    "segment below": (Law.SEGMENT, [3.0, -4.0, -2.0]),
}


@pytest.fixture(params=["numpy", "compiled"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both twins, whatever the number of voltages."""
    monkeypatch.setattr(laws, "SMALL", sys.maxsize if request.param == "numpy" else 0)


EXPONENTIAL = [name for name, (kind, _) in LAWS.items() if kind in (Law.SHOCKLEY, Law.SINH)]
HELPED = [name for name in EXPONENTIAL if "gmin" in name or "recombination" in name or name == "1N4148"]


def rows(name: str, count: int) -> tuple[NDArray[np.int8], Floats]:
    law, p = LAWS[name]
    return np.full(count, law, np.int8), np.tile(np.array(p + [0.0] * (N_PARAMS - len(p))), (count, 1))


def current(name: str, v: Floats) -> Floats:
    return branch_current(*rows(name, v.size), v)[0]


def voltage(name: str, i: Floats) -> Floats:
    return exponential_voltage(*rows(name, i.size), i)


# -- the inverse -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPONENTIAL)
def test_voltage_of_a_current_carries_that_current(name: str) -> None:
    """Over all currents the law has between -20 V and 20 V, and the smallest ones; with gmin or ISR, that or more."""
    v = np.concatenate([np.linspace(-20, 20, 2001), s := np.logspace(-12, 0, 200), -s])
    v = v if LAWS[name][0] != Law.SHOCKLEY else np.concatenate([v[v < 20], np.linspace(0, 18, 200)])
    i = current(name, v)
    again = voltage(name, i)
    assert np.isfinite(again[i > 0]).all() and not np.isnan(again).any()
    finite = np.isfinite(again)
    carried, wanted = current(name, again[finite]), i[finite]
    if name in HELPED:
        assert (np.abs(carried) >= np.abs(wanted) * (1 - 1e-12)).all()
        return
    np.testing.assert_allclose(carried, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", HELPED)
def test_the_voltage_of_a_current_is_near_where_something_helps_to_carry_it(name: str) -> None:
    """Of a forward current: within two steps of the exponentials, N Vt each, beyond the voltage that carries it."""
    v = np.linspace(0.3, 1.0, 71)
    again = voltage(name, current(name, v))
    assert (again >= v * (1 - 1e-12)).all() and (again <= v + 4 * LAWS[name][1][1]).all()


@pytest.mark.parametrize("rs", [0.0, 1e-3, 50.0])
@pytest.mark.parametrize("saturation", [1e-14, 1e-9, 1e-280])
def test_shockley_inverse_over_forty_decades(saturation: float, rs: float) -> None:
    ratio = np.logspace(-10, 30, 401)
    p = np.tile([saturation, VT, rs, np.inf, VT, *[0.0] * 6], (ratio.size, 1))
    law = np.zeros(ratio.size, np.int8)
    v = exponential_voltage(law, p, ratio * saturation)
    np.testing.assert_allclose(v, VT * np.log1p(ratio) + rs * ratio * saturation, rtol=1e-14)
    keep = rs * ratio * saturation < 1e3 * VT  # beyond, v is known to more digits than w = v - RS i
    np.testing.assert_allclose(branch_current(law, p, v)[0][keep], (ratio * saturation)[keep], rtol=1e-12)


def test_breakdown_inverse() -> None:
    """5 V and V_T ln(i / IS) below; between IS (1 - (3 Vt / (5 e))^3) and IS the law jumps, at -5 V."""
    saturation = 1e-12
    p = np.tile([saturation, VT, 0.0, 5.0, VT, *[0.0] * 6], (4, 1))
    cube = (3 * VT / (5 * math.e)) ** 3
    i = -saturation * np.array([1e6, 1.0, 1 - cube / 2, 0.999])
    v = exponential_voltage(np.zeros(4, np.int8), p, i)
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


def test_mixed_laws_and_batches_are_each_alone() -> None:
    law, p = (np.concatenate(parts) for parts in zip(*[rows(name, 1) for name in LAWS], strict=True))
    x = np.linspace(-1e-3, 1e-3, 5)[:, None] * np.ones(law.size)
    found = branch_current(law, p, x)[0]
    for k, name in enumerate(LAWS):
        np.testing.assert_array_equal(found[:, k], current(name, x[:, k]))
    curved = np.array([name in EXPONENTIAL for name in LAWS])
    mixed = exponential_voltage(law[curved], p[curved], x[:, curved])
    for k, name in enumerate(EXPONENTIAL):
        np.testing.assert_array_equal(mixed[:, k], voltage(name, x[:, k]))


@pytest.mark.parametrize("i", [0.0, 1e-300, 1e-3, 1e30, 1e290])
@pytest.mark.parametrize("name", EXPONENTIAL)
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
        forward, reverse = most_current(*rows(name, 1))
        return float(forward[0]), float(reverse[0])

    assert most("diode") == (np.inf, 1e-14)
    assert most("high injection") == (np.inf, 1e-14)
    assert most("recombination that saturates") == (np.inf, 1e-9 + 1e-14)
    assert most("recombination") == most("1N4148") == (np.inf, np.inf)
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


# -- diodes with ISR and IKF -------------------------------------------------------------------------------------------

LIBRARY = "is=2.682n n=1.836 rs=0.5664 ikf=44.17m isr=1.565n nr=2 vj=0.5 m=0.3333 bv=100 ibv=100u"
REAL = Recipe(shockley=6, pwl=1, ideal=0, laws=3, volts=20.0, recombination=True)


@pytest.mark.parametrize("seed", range(24))
def test_random_circuits_of_library_diodes_against_dense_algebra(seed: int) -> None:
    circuit = cs.parse(random_deck(seed, REAL))
    solution = cs.solve(circuit, PRECISE)
    assert_laws(solution)
    assert_close(solution.voltages()[0], reference_voltages(circuit), 1e-8)


def test_random_circuits_have_what_libraries_have() -> None:
    p = np.concatenate([cs.parse(random_deck(seed, REAL)).junctions.params for seed in range(24)])
    assert sum(p[:, 7] > 0) > 20 and sum(p[:, 6] > 0) > 10


@pytest.mark.parametrize("text", ["isr=1n nr=2 vj=0.2 m=0.9", "isr=1n vj=-1", "isr=1n vj=0.05"])
def test_recombination_that_falls_is_refused(text: str) -> None:
    """At w = VJ (1 - sqrt(0.005)) the factor falls by 7.07 M / VJ a volt, the exponential rises by 1 / (NR Vt)."""
    wanted = "VJ = -1 must not be negative" if "-1" in text else "the current of ISR is not monotone"
    with pytest.raises(cs.NetlistError, match=wanted):
        cs.parse(f"t\n.model d D(is=1f {text})\nV1 a 0 1\nD1 a 0 d")


@pytest.mark.parametrize("temp", [27, 85, 125, 150])
def test_what_falls_of_recombination_the_current_of_is_may_outweigh(temp: int) -> None:
    """D1N4002 of PSpice's library, whose VJ is 0.096 V at 125 C."""
    model = ".model d D(is=14.11n n=1.984 rs=0 ikf=94.81 m=0.2762 vj=0.3905 isr=100p nr=2 bv=100.1 ibv=10)"
    circuit = cs.parse(f"t\n{model}\nI1 0 a 1u\nD1 a 0 d temp={temp}")
    v = np.linspace(-1.0, 1.0, 20001)
    j = circuit.junctions
    i, slope = branch_current(np.repeat(j.law, v.size), np.repeat(j.params, v.size, 0), v)
    assert (np.diff(i) > 0).all() and (slope > 0).all()
    assert cs.solve(circuit).solved


@needs_ngspice
def test_ngspice_limits_vj_and_knows_no_infinite_ikf() -> None:
    """2 V for 2.8 V."""
    text = "t\n.model d D(is=3e-20 n=3 isr=2.9p nr=2 m=0.3 vj={} {})\nI1 0 a 1u\nD1 a 0 d temp=60"
    found = compare(cs.parse(text.format(2.8, "ikf=inf")))
    assert found.verdict is Verdict.AGREE, found.differing
    one, other = (cs.solve(cs.parse(text.format(vj, ""))).voltage("a")[0] for vj in (2.8, 2.0))
    assert one == other


def test_recombination_that_only_just_rises_is_solved() -> None:
    """7.07 x 0.5 / VJ = 1 / (2 Vt): VJ = 0.18289 V is the least."""
    deck = "t\n.model d D(is=1e-18 isr=1n nr=2 vj={})\nI1 0 a 20n\nD1 a 0 d"
    v = np.linspace(0.1, 0.3, 4001)
    j = cs.parse(deck.format(0.1829)).junctions
    i, slope = branch_current(np.repeat(j.law, v.size), np.repeat(j.params, v.size, 0), v)
    assert (np.diff(i) > 0).all() and (slope > 0).all()
    assert cs.solve(cs.parse(deck.format(0.1829))).solved
    with pytest.raises(cs.NetlistError, match=r"at 27 C, where VJ is 0\.182 V, .* make VJ larger, or M or NR smaller"):
        cs.parse(deck.format(0.182))


@pytest.mark.parametrize("key", ["is", "nr", "vj"])
def test_what_recombination_cannot_do_without(key: str) -> None:
    with pytest.raises(cs.NetlistError, match=f"model d: {key.upper()} = 0 beside ISR; make it positive"):
        cs.parse(f"t\n.model d D(isr=1n nr=2 {key}=0)\nV1 a 0 1\nD1 a 0 d")


def test_a_knee_that_overflows_is_refused() -> None:
    with pytest.raises(cs.NetlistError, match=r"area 1e-60 times m 1 makes the IKF of its model, 0\.001 A, overflow"):
        cs.parse("t\n.model d D(ikf=1m)\nV1 a 0 1\nD1 a 0 d area=1e-60")


def test_recombination_without_nr_says_which_nr_that_is() -> None:
    circuit = cs.parse("t\n.model d D(isr=1n)\nV1 a 0 1\nD1 a 0 d")
    assert [text for _, text in circuit.notes] == ["model d: ISR without NR: NR = 1, as in ngspice (PSpice takes 2)"]


def test_temperature_moves_rs_and_bv_by_hand() -> None:
    """60 K above Tnom: 25 (1 + 0.3 + 0.0072) = 32.68 ohm; 5 (1 - 0.06 + 0.0018) - 0.03 = 4.679 V."""
    deck = "t\n.model d D(rs=25 trs1=5m trs2=2u is=1e-14 bv=5 ibv=1e-14 tbv1=-1m tbv2=0.5u tcv=0.5m eg=0 xti=0)"
    circuit = cs.parse(f"{deck}\nV1 a 0 1\nD1 a 0 d temp=87\nD2 a 0 d")
    hot, nominal = circuit.junctions.params
    assert hot[2] == pytest.approx(32.68, rel=1e-14) and nominal[2] == 25.0
    assert hot[3] == pytest.approx(4.679, rel=1e-14) and nominal[3] == 5.0  # IBV is far below IS: nothing is adjusted
    assert [text for _, text in circuit.notes] == ["model d: TBV1 and TBV2 move BV as in PSpice (ngspice ignores them)"]


@pytest.mark.parametrize(("text", "wanted"), [("trs1=-20m rs=5", "RS is -1 ohm"), ("tcv=0.1 bv=5", "BV is -1 V")])
def test_temperature_coefficients_that_go_too_far_are_refused(text: str, wanted: str) -> None:
    with pytest.raises(cs.NetlistError, match=f"model d: {wanted} at 87 C; correct its temperature coefficients"):
        cs.parse(f"t\n.model d D({text})\nV1 a 0 1\nD1 a 0 d\nD2 a 0 d temp=87")


def test_other_names_of_breakdown_are_remarked_on_and_agree() -> None:
    deck = "t\nI1 a 0 1m\nR1 a 0 1meg\nD1 a 0 d\n.model d D({})"
    circuit = cs.parse(deck.format("vb=7"))
    assert [text for _, text in circuit.notes] == ["model d: VB is BV, as in HSPICE (ngspice ignores VB)"]
    assert cs.solve(circuit).voltage("a") == cs.solve(cs.parse(deck.format("bv=7 vrb=7"))).voltage("a")
    with pytest.raises(cs.NetlistError, match="model d: BV and VRB are two names of one parameter") as caught:
        cs.parse(deck.format("bv=5 vrb=7"))
    assert caught.value.at is not None and caught.value.at.line == 5


@needs_ngspice
@pytest.mark.parametrize("text", ["trs1=5m trs2=2u", "tcv=2m", "tbv1=-1m tbv2=2u tcv=-0.5m trs=-1m"])
def test_ngspice_moves_rs_and_bv_alike(text: str) -> None:
    model = f".model z D(is=880a rs=25 isr=1.859n nr=2 vj=0.75 m=0.55 bv=4.7 ibv=20m nbv=1.7 {text})"
    found = compare(cs.parse(f"t\n{model}\nI1 0 a 5m\nD1 0 a z temp=87\nI2 0 b 10m\nD2 b 0 z temp=-20\nRa a 0 1k"))
    assert found.verdict is Verdict.AGREE, found.differing
    volts = [q for q in found.quantities if q.name in ("v(a)", "v(b)")]
    assert len(volts) == 2 and max(q.allowed for q in volts) < 1e-4


@pytest.mark.parametrize("extra", ["", LIBRARY, "isr=56n nr=5.42 vj=4.219 m=0.212 ikf=24k", "isr=1u nr=0.3 vj=1 m=0.9"])
@pytest.mark.parametrize("rs", [0.0, 1e-6, 1204.0])
def test_laws_rise_over_all_voltages_and_rs_limits_the_current(extra: str, rs: float) -> None:
    """From -1 MV to 1 MV, also where IBV puts breakdown above -3 N Vt, and where exponents end before VJ."""
    v = np.unique(np.concatenate([np.linspace(-20, 20, 401), s := np.logspace(-12, 6, 200), -s]))
    for area in (1e-4, 1.0, 1e4):
        model = f".model d D(is=2.4e-10 n=4.81 bv=1.262 ibv=68m {extra} rs={rs})"
        j = cs.parse(f"t\n.options temp=87\n{model}\nV1 a 0 0\nD1 a 0 d area={area}").junctions
        i, slope = branch_current(np.repeat(j.law, v.size), np.repeat(j.params, v.size, 0), v)
        fast = np.array([law_kernels.branch(int(Law.SHOCKLEY), j.params[0], x)[0] for x in v])
        for current in (i, fast):
            assert (np.diff(current) >= -1e-14 * np.abs(current[1:])).all()
            assert (np.abs(current) * rs / area <= np.abs(v) * (1 + 1e-9)).all()
        assert np.isfinite(slope).all() and (slope >= 0).all()


@pytest.mark.parametrize(("saturation", "rs"), [(1e-9, 4e-3), (1e-6, 1e-2), (2.5e-9, 0.6), (1e-18, 2.0)])
def test_the_voltage_behind_rs_takes_few_steps(saturation: float, rs: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no float64 meets the law exactly: the iteration ends between neighbours."""
    taken = []
    for module, name in ((law_kernels, "shockley"), (laws, "_junction_current")):
        law = getattr(module, name)
        monkeypatch.setattr(module, name, lambda p, w, law=law: taken.append(w) or law(p, w))
    p = np.array([saturation, VT, rs, np.inf, VT, *[0.0] * (N_PARAMS - 5)])
    for v in np.concatenate([np.linspace(-1.0, 4.0, 300), np.logspace(0.0, 6.0, 50)]):
        for junction, given in (
            (law_kernels.branch.function, (int(Law.SHOCKLEY), p, v)),
            (laws._junction, (p[None], v[None])),
        ):
            taken.clear()
            junction(*given)
            assert 1 <= len(taken) <= 25


def test_high_injection_halves_the_slope_by_hand() -> None:
    """j = 1e-14 e^30 = 0.1068647 A; sqrt(j / 1 mA) = 10.33754; i = j / 11.33754 = 9.425739 mA."""
    i, slope = branch_current(*rows("high injection", 1), np.array([30 * VT]))
    assert i[0] == pytest.approx(9.425739e-3, rel=1e-6)
    assert slope[0] * VT / i[0] == pytest.approx(1 - 0.5 * 10.33754 / 11.33754, rel=1e-6)


def test_recombination_by_hand() -> None:
    """At 2 Vt: 1e-9 (e - 1) ((1 - 0.0517298)^2 + 0.005)^(1/4) = 1.71828e-9 x 0.9751425; at -1 V 4.005^(1/4)."""
    i, _ = branch_current(*rows("recombination", 2), np.array([2 * VT, -1.0]))
    assert i[0] == pytest.approx(1.718282e-9 * 0.9751425 + 1e-14 * (math.e**2 - 1), rel=1e-6)
    assert i[1] == pytest.approx(-1e-9 * 4.005**0.25 - 1e-14, rel=1e-5)
    assert generation(*rows("recombination", 3), np.array([-1.0, -2.9 * VT, 0.5])).tolist() == [
        pytest.approx(-1e-9 * 4.005**0.25, rel=1e-8), 0.0, 0.0,
    ]  # fmt: skip


def test_large_networks_of_library_diodes_take_few_steps() -> None:
    n = 30
    lines = [f"R{i}x{k} n{i}x{k} n{i}x{k + 1} 1k" for i in range(n) for k in range(n - 1)]
    lines += [f"D{i}x{k} n{i}x{k} n{i + 1}x{k} d" for i in range(n - 1) for k in range(n)]
    lines += [f"V{i} n{i}x0 0 {(-1) ** i * (5 + i)}" for i in range(n)]
    solution = cs.solve(cs.parse("\n".join(["grid", f".model d D({LIBRARY})", *lines])))
    assert solution.solved and solution.steps <= 40


@pytest.mark.parametrize("rs", ["", "rs=5"])
@pytest.mark.parametrize("volts", [-30.0, 0.5, 3.0, 500.0])
def test_an_exponential_that_only_recombination_has_is_limited(volts: float, rs: str) -> None:
    """IS so small that its critical voltage is at 16 V: steps begin and are limited where ISR's exponential is."""
    circuit = cs.parse(f"t\n.model d D(is=1e-280 isr=1n nr=2 {rs})\nV1 a 0 {volts}\nR1 a b 10\nD1 b 0 d")
    solution = cs.solve(circuit, PRECISE)
    assert solution.solved and solution.steps <= 25
    assert_close(solution.voltages()[0], reference_voltages(circuit), 1e-8)


@pytest.mark.parametrize(
    "deck",
    ["V1 a 0 -5\nR1 a b 1k\nD1 c b d\nD2 c 0 d\n.model d D(is=1e-22 n=1.5)",
     "V1 a 0 50\nR1 a b 1k\nD1 c b d\nD2 c d d\nR2 d 0 1meg\n.model d D(is=1e-14 bv=5)",
     "V1 a 0 5\nR1 a b 1k\nN1 b c s\nN2 c d s\nD1 0 d d\n.model s sinh(i0=1e-20 v0=.05)\n.model d D(is=1e-15)"],
    ids=["forward", "breakdown", "sinh"],
)  # fmt: skip
def test_where_a_diode_has_no_current_to_carry_it_comes_down_at_once(deck: str) -> None:
    """Saturation currents alone cross it; from its knee it is 50 times N Vt to 0 A."""
    circuit = cs.parse(f"t\n{deck}")
    solution = cs.solve(circuit, PRECISE)
    assert solution.solved and solution.steps <= 12
    assert_close(solution.voltages()[0], reference_voltages(circuit), 1e-8)


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
@pytest.mark.parametrize("seed", range(12))
def test_ngspice_agrees_on_library_diodes_but_for_what_it_drops(seed: int) -> None:
    found = compare(cs.parse(random_deck(seed, replace(REAL, shorts=0))))
    assert found.verdict is Verdict.AGREE, found.differing


@needs_ngspice
def test_what_ngspice_drops_in_reverse_is_allowed_for_and_named() -> None:
    """-1 uA x 1.87 through 1 Mohm: ngspice's node is 2 V away, and without the allowance nobody would be right."""
    circuit = cs.parse("t\n.model d D(is=1f isr=1u nr=2 vj=0.5 m=0.5)\nV1 a 0 -10\nR1 a b 1meg\nD1 b 0 d")
    found = compare(circuit)
    (difference,) = [q.difference for q in found.quantities if q.name == "v(b)"]
    assert difference > 1.0 and found.verdict is Verdict.UNTOLD  # that they agree says little
    assert "diodes D1: ngspice drops the current of ISR below -3 N Vt" in found.notes


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
