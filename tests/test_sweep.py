"""Sweeps and Monte Carlo: the points and answers of ngspice, hand formulas, fresh loads; what goes wrong on the way."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import needs_ngspice

import circuitsim as cs
from circuitsim import netlist
from circuitsim.build import build_circuit
from circuitsim.io.raw import Plot
from circuitsim.io.sweeps import statistics, sweep_plot
from circuitsim.netlist import cards, source, syntax
from circuitsim.netlist.analyses import points
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.model import Swept
from circuitsim.netlist.revalue import Revaluer
from circuitsim.saved import Saved, wanted_saves
from circuitsim.spice.ngspice import run_ngspice, tight_options
from circuitsim.sweeping import results, runner

NETLISTS = Path(__file__).parent.parent / "netlists"

MIXED = """mixed
V1 in 0 1
R1 in out 1k tc1=2m
R2 out 0 1k m=2 scale=3
R3 out 0 {2k + 10*temper}
I1 0 out 1m m=3
D1 out 0 dm
.model dm D(is=1e-12 n=1.5 rs=2)
"""
CLIPPER = "clipper\nV1 in 0 1\nR1 in out 1k\nD1 out 0 dm\nD2 0 out dm area=3\n.model dm D(is=1n n=1.7 bv=6 ibv=1m)\n"
INSIDE = """inside a subcircuit
X1 in out cell g=2
X2 in second cell
.subckt cell a b g=1
V1 a c 1
R1 c b {1k/g}
R2 b 0 1k
I1 0 b 1m
.ends
R9 in 0 1k
"""
AMPLIFIED = """amplified
V1 in 0 1
R1 in m 1k
R2 m out 10k
Eamp out 0 0 m 1e4
V2 out p 0
R3 p 0 2k
Hout q 0 V2 500
R4 q 0 1k
Fout 0 r V2 2
Gout 0 r q 0 1m
R5 r 0 3k
"""
NESTED_RUNS = [
    (MIXED, "V1 0 1 0.1"), (MIXED, "V1 5 -5 -0.5"), (MIXED, "I1 0 5m 1m"), (MIXED, "R1 1k 3k 500"),
    (MIXED, "R2 1k 4k 1k"), (MIXED, "TEMP -40 120 20"), (MIXED, "V1 0 2 0.5 R2 1k 2k 500"),
    (MIXED, "R2 1k 2k 500 V1 0 2 0.5"), (MIXED, "R1 1k 2k 500 TEMP 0 50 25"), (MIXED, "TEMP 0 50 25 R1 1k 2k 500"),
    (MIXED, "I1 0 1m 0.5m V1 1 3 1"), (MIXED, "TEMP 0 50 25 I1 0 1m 0.5m"), (CLIPPER, "V1 -20 20 0.8"),
    (CLIPPER, "V1 -9 9 3 TEMP 0 100 50"), (INSIDE, "V.X1.V1 -1 1 0.5"), (INSIDE, "R.X1.R1 1k 2k 200"),
    (INSIDE, "i.x2.i1 0 2m 0.5m"), (AMPLIFIED, "V1 -1 1 0.25"), (AMPLIFIED, "R2 5k 20k 1k"),
]  # fmt: skip


def run(text: str, dc: str) -> cs.SweepResult:
    circuit = cs.parse(f"{text}.dc {dc}\n.end\n")
    result = cs.sweep(circuit, circuit.netlist.analyses[0])
    assert not result.failed.size
    assert result.kcl_relative.max() <= 1e-9
    return result


def same_plot(ours: Plot, theirs: Plot) -> None:
    assert ours.name == theirs.name
    assert ours.variables[0] == theirs.variables[0]
    assert {name for name, _ in ours.variables} == {name for name, _ in theirs.variables}
    assert ours.values.shape == theirs.values.shape
    np.testing.assert_allclose(ours.values[:, 0], theirs.values[:, 0], rtol=4e-16, atol=5e-16)
    for name, kind in theirs.variables[1:]:
        scale = {"voltage": 1.0, "current": 1e-3, "power": 1e-3}[kind]
        np.testing.assert_allclose(ours.column(name), theirs.column(name), rtol=1e-7, atol=1e-8 * scale, err_msg=name)


@needs_ngspice
@pytest.mark.parametrize(("text", "dc"), NESTED_RUNS, ids=[f"{t.split()[0]} {dc}" for t, dc in NESTED_RUNS])
def test_every_kind_of_sweep_agrees_with_ngspice(text: str, dc: str) -> None:
    result = run(text, dc)
    [plot] = run_ngspice(f"{text}.dc {dc}\n.end\n", options=tight_options()).plots
    same_plot(sweep_plot(result), plot)


PLAIN = MIXED.replace(" m=2 scale=3", "").replace(" m=3", "")  # ngspice's @i1[c] and @r2[r] know nothing of m
SAVED_RUNS = [
    (PLAIN, "V1 0 2 0.5", "@r1[i] @r2[p] @d1[id] @d1[vd] @d1[p] @i1[c] @v1[p]"),
    (PLAIN, "R2 1k 2k 500 V1 0 2 1", "@r2[i] @r2[p] @r2[r] @v1[i]"),
    (PLAIN, "TEMP 0 50 25", "@r1[p] @r1[i] @d1[id]"),
    (PLAIN, "I1 0 1m 0.5m", "@i1[c] @i1[p] @i1[dc] @r2[p]"),
    (CLIPPER, "V1 -9 9 3", "@d1[id] @d2[id] @r1[p]"),
    (INSIDE, "R.X1.R1 1k 2k 200", "@r.x1.r1[i] @r.x1.r1[r] @i.x2.i1[c] @v.x1.v1[p]"),
]  # fmt: skip


@needs_ngspice
@pytest.mark.parametrize(("text", "dc", "saves"), SAVED_RUNS, ids=[f"{t.split()[0]} {dc}" for t, dc, _ in SAVED_RUNS])
def test_saved_values_agree_with_ngspice(text: str, dc: str, saves: str) -> None:
    deck = f"{text}.save all {saves}\n.dc {dc}\n.end\n"
    [plot] = run_ngspice(deck, options=tight_options()).plots
    circuit = cs.parse(f"{text}.save {saves}\n.dc {dc}\n.end\n")
    result = cs.sweep(circuit, circuit.netlist.analyses[0], saves=wanted_saves(circuit, ()))
    assert not result.failed.size
    same_plot(sweep_plot(result), plot)


@needs_ngspice
def test_the_shipped_bridge_agrees_with_ngspice() -> None:
    text = (NETLISTS / "diode_bridge_sweep.cir").read_text().replace(".end\n", ".options gmin=1e-12\n")
    circuit = cs.parse(text)
    result = cs.sweep(circuit, circuit.netlist.analyses[0])
    [plot] = run_ngspice(text, options=tight_options(1e-12)).plots
    assert result.values.shape == (1001, 1)
    np.testing.assert_allclose(result.voltage("plus"), plot.column("v(plus)"), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(result.voltage("plus"), result.voltage("plus")[::-1], rtol=1e-6, atol=1e-8)  # even in V1


@needs_ngspice
@pytest.mark.parametrize(
    "dc",
    ["0 1 0.3", "0 1 0.1", "0 5 0.01", "1 0 -0.1", "1 0 -0.3", "-1 1 0.2", "0 0 1", "3 3.0000001 1", "0 1p 0.1p",
     "0 1 0.3333333", "-5 5 0.05", "1e6 1000001 0.1", "0 0.7 0.7", "2 -2 -0.013"],
)  # fmt: skip
@pytest.mark.parametrize("source", ["V1", "TEMP"])
def test_points_are_those_of_ngspice(source: str, dc: str) -> None:
    text = f"points\nV1 a 0 1\nR1 a 0 1k\n.dc {source} {dc}\n.end\n"
    [swept] = cs.parse(text).netlist.analyses[0].sweeps
    [plot] = run_ngspice(text).plots
    found = points(swept)
    assert found.shape == plot.values[:, 0].shape
    np.testing.assert_allclose(found, plot.values[:, 0], rtol=1e-14, atol=1e-13 if source == "TEMP" else 5e-16)


def test_points_by_hand() -> None:
    def of(start: float, stop: float, step: float, kind: str = "V") -> list[float]:
        return points(Swept(kind, "x", start, stop, step)).tolist()

    assert of(0, 1, 0.3) == [0, 0.3, 0.6, 0.6 + 0.3]
    assert of(0, 1, 0.25) == [0, 0.25, 0.5, 0.75, 1]
    assert of(0, 0.3, 0.1) == [0, 0.1, 0.2, 0.1 + 0.1 + 0.1]  # 0.30000000000000004 still is 0.3
    assert of(2, -1, -1) == [2, 1, 0, -1]
    assert of(1, 1, 5) == [1]
    np.testing.assert_allclose(of(-50, 50, 25, "temp"), [-50, -25, 0, 25, 50], atol=1e-13)


def test_order_and_analyses_of_a_netlist() -> None:
    text = MIXED + ".op\n.param n=2 step={n/4}\n.dc R2 1k {n*1k} 1k v1 0 n step\n.dc TEMP 0 10 10\n"
    circuit = cs.parse(text)
    op, nested, temp = circuit.netlist.analyses
    assert (op.kind, nested.kind, temp.kind) == ("op", "dc", "dc")
    assert nested.sweeps == (Swept("R", "R2", 1e3, 2e3, 1e3), Swept("V", "V1", 0, 2, 0.5))
    assert temp.sweeps == (Swept("temp", "temp", 0, 10, 10),)
    assert circuit.netlist.at(nested.seq).line == 11
    result = cs.sweep(circuit, nested)
    assert result.names == ("R2", "V1")
    assert result.values.tolist() == [[r, v] for v in (0, 0.5, 1, 1.5, 2) for r in (1e3, 2e3)]
    for k, (r, v) in enumerate(result.values.tolist()):
        alone = cs.solve(cs.parse(text.replace("R2 out 0 1k", f"R2 out 0 {r}").replace("V1 in 0 1", f"V1 in 0 {v}")))
        np.testing.assert_allclose(result.voltages[k], alone.voltages()[0], atol=1e-9)
        np.testing.assert_allclose(result.currents[k], alone.tie_currents[0][0], atol=1e-12)


# -- parameters and temperature ----------------------------------------------------------------------------------------

PARAMETERS = """parameters
.param r=1k s={2*r} vf=0.6
.func twice(x) {2*x}
.subckt cell a b k=1
R1 a b {k*r}
Rx[0:2] a b {s}
.ends
V1 in 0 {r/1k}
X1 in out cell k=3
X2 out 0 cell k={twice(r)/1k}
R7 out 0 4k
.model ds D(is=1e-12 n={r/1k})
.model dp D(ron=1 vfwd=vf)
.model di D(ron=0 vfwd=vf)
D1 out 0 ds
D2 in m dp
D3 m 0 di
Rm m 0 1k
RX[0:3][0:1] x[0:3] y[0:1] g={1/r}
Vx[0:3] x[0:3] 0 {vf}
Ry[0:1] y[0:1] 0 {s}
"""


@pytest.mark.parametrize("name", ["r", "VF"])
def test_a_parameter_sweep_is_the_netlist_with_another_number(name: str) -> None:
    start, stop, step = (500, 2500, 500) if name == "r" else (0.2, 1.0, 0.2)
    result = run(PARAMETERS, f"{name} {start} {stop} {step}")
    assert result.names == (name,)
    for k, value in enumerate(result.values[:, 0].tolist()):
        old = "r=1k" if name == "r" else "vf=0.6"
        fresh = cs.solve(cs.parse(PARAMETERS.replace(old, f"{name}={value!r}")))
        np.testing.assert_allclose(result.voltages[k], fresh.voltages()[0], rtol=1e-8, atol=1e-8)


def test_revalued_netlists_are_those_read_afresh() -> None:
    base = cs.parse(PARAMETERS + ".options temp=30\n").netlist
    revaluer = Revaluer(base)
    for value, temp in ((700.0, 50.0), (1300.0, 27.0), (1000.0, 30.0)):
        found = revaluer.netlist(Changes(params={"r": value}, temp=temp))
        text = PARAMETERS.replace("r=1k", f"r={value!r}") + f".options temp={temp}\n"
        wanted = cs.parse(text).netlist
        assert (found.nodes, found.options) == (wanted.nodes, wanted.options)
        assert [m.params for m in found.models] == [m.params for m in wanted.models]
        for kind, table in wanted.tables.items():
            assert found.tables[kind].names == table.names
            for column, values in table.values.items():
                np.testing.assert_array_equal(found.tables[kind].values[column], values, err_msg=column)
        np.testing.assert_array_equal(found.crossbars[0].g, wanted.crossbars[0].g)


def test_temperature_reaches_expressions_and_coefficients() -> None:
    """By hand: R1 = 1k (1 + 0.01 (T - 27)), R2 = 10 T."""
    result = run("t\nV1 a 0 1\nR1 a b 1k tc1=0.01\nR2 b 0 {10*temper}\n", "TEMP 27 127 50")
    np.testing.assert_allclose(result.values[:, 0], [27, 77, 127], rtol=1e-14)
    r1, r2 = np.array([1000, 1500, 2000]), np.array([270, 770, 1270])
    np.testing.assert_allclose(result.voltage("b"), r2 / (r1 + r2), rtol=1e-9)


def test_arrays_and_their_members() -> None:
    text = "t\nVx[0:2] x[0:2] 0 1\nR1[0:2] x[0:2] y[0:2] 1k\nR2[0:2] y[0:2] 0 3k m=3\nI1[0:2] 0 y[0:2] 0 m=2\n"
    whole, member = run(text, "Vx 0 4 2"), run(text, "vx[1] 0 4 2")
    for name, volts in (("y[0]", [0, 1, 2]), ("y[1]", [0, 1, 2])):
        np.testing.assert_allclose(whole.voltage(name), volts, atol=1e-12)
    np.testing.assert_allclose(member.voltage("y[0]"), [0.5, 0.5, 0.5])
    np.testing.assert_allclose(member.voltage("y[1]"), [0, 1, 2], atol=1e-12)
    r = run(text, "R2[2] 3k 9k 6k")  # ohm before m
    np.testing.assert_allclose(r.voltage("y[2]"), [0.5, 0.75])
    np.testing.assert_allclose(r.voltage("y[1]"), [0.5, 0.5])
    i = run(text, "I1[0] 0 1m 1m")  # 2 mA into 500 ohm
    np.testing.assert_allclose(i.voltage("y[0]"), [0.5, 1.5])
    np.testing.assert_allclose(i.voltage("y[1]"), [0.5, 0.5])


def test_a_resistor_of_0_ohm_can_be_swept() -> None:
    result = run("t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 0\n", "R2 1k 3k 2k")
    np.testing.assert_allclose(result.voltage("b"), [0.5, 0.75])


def test_a_text_in_the_place_of_a_card() -> None:
    circuit = cs.parse(PARAMETERS)
    result = cs.sweep(circuit, "V1 0 vf {vf/2}")
    np.testing.assert_allclose(result.values[:, 0], [0, 0.3, 0.6])
    with pytest.raises(cs.SettingsError, match=r"^sweep 'V8 0 1 1': .dc: no 'V8' to sweep; name a V, I or R.*v1"):
        cs.sweep(circuit, "V8 0 1 1")


def test_without_a_text_the_card_of_the_netlist_is_meant() -> None:
    text = "t\nV1 a 0 1\nR1 a 0 1\n"
    np.testing.assert_array_equal(cs.sweep(cs.parse(f"{text}.op\n.dc V1 0 2 1")).values[:, 0], [0, 1, 2])
    with pytest.raises(cs.SettingsError, match=r"has no \.dc card; add one, or sweep\(circuit, 'V1 0 5 0\.1'\)$"):
        cs.sweep(cs.parse(text))


def test_of_several_cards_one_is_chosen() -> None:
    circuit = cs.parse("t\nV1 a 0 1\nR1 a 0 1\n.dc V1 0 2 1\n.op\n.dc R1 1 2 1")
    with pytest.raises(cs.SettingsError, match=r"has 2 \.dc cards; choose one.*: sweep\(circuit, (circuit.*\[0\])\)$"):
        cs.sweep(circuit)
    assert [cs.sweep(circuit, card).swept[0].name for card in circuit.netlist.sweeps] == ["V1", "R1"]


def test_messages_name_no_options_of_commands() -> None:
    circuit = cs.parse("t\nV1 a 0 1\nR1 a 0 1\nR2[0:1] a 0 1k")
    calls: list[tuple[str, dict[str, Any]]] = [
        ("R2[0:1] 1k 3k 1k", {}), ("V1 0 1", {}), ("", {}), ("V1 0 1 1", {"saves": ["v(q)"]}),
        ("V1 0 1 1", {"saves": [""]}),
    ]  # fmt: skip
    for text, given in calls:
        with pytest.raises(cs.SettingsError) as caught:
            cs.sweep(circuit, text, **given)
        assert str(caught.value).startswith("saves " if given else f"sweep '{text}': ")
        assert "--" not in str(caught.value)


@pytest.mark.parametrize("name", ["RW", "rw[0][1]"])
def test_resistors_of_a_crossbar_are_swept_by_a_parameter(name: str) -> None:
    circuit = cs.parse("t\n.param r=1\nVa[0] a[0] 0 1\nRW[0:0][0:1] a[0:0] b[0:1] {r}\nR2[0:1] b[0:1] 0 1")
    np.testing.assert_allclose(cs.sweep(circuit, "r 1 3 2").voltage("b[1]"), [0.5, 0.25])
    with pytest.raises(
        cs.SettingsError, match="belongs to a crossbar, whose resistors cannot be swept; write their value as"
    ):
        cs.sweep(circuit, f"{name} 1 2 1")


# -- what changes, and what must not -----------------------------------------------------------------------------------


def test_the_structure_must_stay() -> None:
    text = "t\n.param r=1k\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {r}\n"
    with pytest.raises(cs.TopologyError) as error:
        cs.sweep(cs.parse(text), "r 2k 0 -1k")
    assert str(error.value) == (
        "at r = 0: R2 was a conductance and is now a source or a short; values may change here, the structure may not"
    )
    text = "t\n.param r=1\nV1 a 0 1\nR1 a b 1k\nD1 b 0 dm\n.model dm D(ron={r})\n"
    with pytest.raises(cs.TopologyError, match=r"at r = 0: D1 was a diode with a .* law and is now a perfect diode; "):
        cs.sweep(cs.parse(text), "r 1 0 -1")


@pytest.mark.parametrize(
    ("read", "dc", "message"),
    [
        ("1k", "r 0 1k 500", "at r = 0: R2 was a conductance and is now a source or a short; values may change"),
        ("1k", "r 0 1k 500 R1 1k 2k 1k", "at r = 0: R2 was a conductance and is now a source or a short"),
        ("0", "r 500 1k 500", "at r = 500: R2 was a source or a short and is now a conductance"),
        ("0", "TEMP 0 50 50 r 500 1k 500", "at temp = 0, r = 500: R2 was a source or a short and is now"),
    ],
)
def test_the_first_point_has_the_structure_as_read_too(read: str, dc: str, message: str) -> None:
    circuit = cs.parse(f"t\n.param r={read}\nV1 a 0 1\nR1 a b 0\nR2 b c {{r}}\nR3 c 0 1k\n")
    with pytest.raises(cs.TopologyError) as error:
        cs.sweep(circuit, dc)
    assert str(error.value).startswith(message)


def test_a_swept_short_may_be_a_resistance_beside_a_parameter() -> None:
    circuit = cs.parse("t\n.param r=1k\nV1 a 0 1\nR1 a b 0\nR2 b 0 {r}\n")
    result = cs.sweep(circuit, "R1 1k 3k 2k r 1k 3k 2k")
    np.testing.assert_allclose(result.voltage("b"), [1 / 2, 1 / 4, 3 / 4, 1 / 2])


def test_values_that_no_element_may_have_name_the_point() -> None:
    text = "t\n.param r=1k\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {r}\n"
    with pytest.raises(cs.NetlistError) as error:
        cs.sweep(cs.parse(text), "r 1k -1k -1500 V1 0 1 1")
    assert str(error.value).startswith("netlist:5: at r = -500: resistor R2: negative resistance -500 ohm")
    with pytest.raises(cs.SettingsError) as refused:  # 1/R is more than float64 holds
        cs.sweep(cs.parse(text), "V1 0 1 1 R1 1e-309 1 0.5")
    assert str(refused.value).startswith("at R1 = 1e-309: ")
    assert "R1: new values must be finite numbers" in str(refused.value)


def test_the_point_of_a_fault_is_counted_from_the_first_of_all() -> None:
    """Far behind the points that are solved together with the first."""
    circuit = cs.parse("t\n.param r=1\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {r}\n")
    with pytest.raises(cs.TopologyError, match=r"^at r = 0: R2 was a conductance and is now a source or a short"):
        cs.sweep(circuit, "r 300 0 -1")


def test_with_circuit_takes_every_kind_of_value() -> None:
    """The compiled problem with the values of another deck gives that deck's answer; islands too."""
    text = """t
V1 a 0 {v}
R1 a b {r}
D1 b c ds
R2 c 0 {3*r}
I1 0 b {v*1m}
D2 c 0 dp
D3 c 0 di
I2 f g {v*1p}
D4 g f ds
D5 0 f ds
.model ds D(is={v*1p} n={r})
.model dp D(ron={r} vfwd={v} vrev=9)
.model di D(ron=0 vfwd={2*v})
"""
    decks = [f"{text}.param v={v} r={r}\n" for v, r in ((1, 1), (2, 1.5), (0.5, 2))]
    base = cs.compile_problem(cs.parse(decks[0]))
    for deck in decks:
        circuit = cs.parse(deck)
        problem = base.with_circuit(circuit)
        assert problem.topology is base.topology
        (arcs, most), (fresh, limits) = (
            p.topology.islands.arcs.carrying(circuit) for p in (problem, cs.compile_problem(circuit))
        )
        np.testing.assert_array_equal(most, limits)
        for name, array in vars(fresh).items():
            np.testing.assert_array_equal(getattr(arcs, name), array, err_msg=name)
        settings = cs.Settings(tol=1e-11)
        found, wanted = cs.solve(problem, settings), cs.solve(circuit, settings)
        np.testing.assert_allclose(found.voltages(), wanted.voltages(), rtol=1e-6, atol=1e-9)
    with pytest.raises(cs.TopologyError, match="the nodes are not the same"):
        base.with_circuit(cs.parse("t\nR1 a 0 1\n"))


BESIDE = "t\nV1 a 0 1\nV2 c 0 2\nR1 a d 1k\nR2 c e 1k\nR3 d 0 1k\nR4 e 0 3k\nRo o 0 1k\n"
OTHERWISE = "the nodes, the law or the control of {} are not the same"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("F1 0 o V1 1", "F1 0 o V2 1", OTHERWISE.format("F1")),
        ("H1 o 0 V1 1k", "H1 o 0 V2 1k", OTHERWISE.format("H1")),
        ("E1 o 0 d 0 1", "E1 o 0 e 0 1", OTHERWISE.format("E1")),
        ("G1 o 0 d 0 1m", "G1 o 0 d e 1m", OTHERWISE.format("G1")),
        ("D1 d o s\n.model s d", "D1 o d s\n.model s d", OTHERWISE.format("D1")),
        ("R5 d o 1k", "R5 d o 1k\nR6 d o 1k", "R6 was open and is now a conductance"),
        ("R5 d o 1k\nR6 d o 1k", "R5 d o 1k", "R6 was a conductance and is now open"),
    ],
)
def test_with_circuit_takes_no_other_structure(before: str, after: str, said: str) -> None:
    problem = cs.compile_problem(cs.parse(BESIDE + before))
    with pytest.raises(cs.TopologyError, match=said):
        problem.with_circuit(cs.parse(BESIDE + after))
    assert cs.solve(problem.with_circuit(cs.parse(BESIDE.replace("2\n", "3\n") + before))).voltage("c") == 3.0


def test_with_circuit_compiles_again_when_islands_change() -> None:
    text = "t\nV1 a 0 1\nR1 a b g={g}\nR2 b c 1k\n.train R1\n"
    base = cs.compile_problem(cs.parse(text + ".param g=1m\n"))
    assert base.topology.islands.n_parts == 1
    cut = base.with_circuit(cs.parse(text + ".param g=0\n"))
    assert cut.topology.islands.n_parts == 2
    assert cs.solve(cut).voltage("b") == [0.0]


def test_points_without_a_solution_leave_the_others_alone() -> None:
    """A current source against a diode that blocks: only currents forward through it can flow."""
    text = "t\nI1 0 a 1m\nD1 a b dm\nR1 b 0 1k\n.model dm D(is=1e-12)\n"
    result = cs.sweep(cs.parse(text), "I1 -2m 2m 0.5m", cs.Settings())
    assert set(result.statuses[:4].tolist()) == {"FAULT"}
    assert "no element can carry this current" in result.messages[0]
    assert np.isnan(result.voltages[:4]).all()
    good = result.statuses == "SOLVED"
    np.testing.assert_allclose(result.voltage("b")[good], 1e3 * result.values[good, 0], atol=1e-12)


LOOP = "loop\n.param p=0\nV1 a 0 5\nV2 a 0 {p}\nR1 a b 1k\nD1 b 0 dd\n.model dd d\n"


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("dc", "solved"),
    [
        ("V2 5 5 1", [True]),
        ("V2 4 6 1", [False, True, False]),
        ("V2 4 6 1 TEMP 0 50 50", [False, True, False] * 2),
        ("R1 1k 2k 1k V2 4 5 1", [False, False, True, True]),
        ("p 3 7 1", [False, False, True, False, False]),
        ("p 5 6 1", [True, False]),
        ("R1 1k 2k 1k", [False, False]),
    ],
)
def test_loops_of_sources_are_judged_at_each_point(dc: str, solved: list[bool], lenient: bool) -> None:
    """Not where the sources are as read, at the first point, or as written before their values are known."""
    result = cs.sweep(cs.parse(LOOP), dc, cs.Settings(lenient=lenient))
    assert result.statuses.tolist() == ["SOLVED" if good else "FAULT" for good in solved]
    assert (result.voltage("a")[solved] == 5.0).all() and np.isnan(result.voltage("a")[result.failed]).all()
    for k in result.failed.tolist():
        assert "loop of voltage sources V2, V1: its voltages add up to" in result.messages[k]


def test_islands_are_left_out_one_after_another_not_within_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, Python's stack grows no deeper."""
    deck = "t\nV1 a 0 1\nR1 a 0 1k\n" + "".join(f"I{k} 0 n{k} 1m\nRn{k} n{k} m{k} 1k\n" for k in range(5))
    depths, solve = [], runner.solve

    def counted(*given, **options):  # type: ignore[no-untyped-def]
        depths.append(len(inspect.stack(0)))
        return solve(*given, **options)

    monkeypatch.setattr(runner, "solve", counted)
    result = cs.sweep(cs.parse(deck), "V1 1 2 1", cs.Settings(lenient=True))
    assert result.statuses.tolist() == ["SOLVED"] * 2 and result.voltage("a").tolist() == [1.0, 2.0]
    assert sorted(result.islands) == [(f"m{k}", f"n{k}") for k in range(5)]
    assert len(depths) == 6 and len(set(depths)) == 1


def test_points_that_are_not_solved_say_so() -> None:
    ladder = "t\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\nRg{k} n{k + 1} 0 1k\n" for k in range(5))
    result = cs.sweep(cs.parse(ladder), "V1 0 1 0.5", cs.Settings(method="bcd", max_sweeps=2))
    assert result.statuses.tolist() == ["SOLVED", "MAX_SWEEPS", "MAX_SWEEPS"]  # 0 V is where it starts
    assert result.failed.tolist() == [1, 2]
    assert result.kcl_relative[0] == 0
    assert (result.kcl_relative[1:] > 1e-9).all()
    assert result.messages[1].startswith("stopped before the certificate was met")
    nested = cs.sweep(cs.parse(ladder), "V1 0 1 0.5 R0 1k 2k 1k", cs.Settings(method="bcd", max_sweeps=2))
    assert nested.failed.tolist() == sorted(nested.messages) == [1, 2, 4, 5]


@pytest.mark.parametrize("dc", ["k 0 2 1", "k 2 0 -1", "k 1 0 -1 R1 1k 2k 1k"])
def test_what_is_not_unique_at_one_point_alone_is_told(dc: str) -> None:
    """Where k = 0, the diode and the source of 0 V share the current; elsewhere the diode blocks."""
    circuit = cs.parse("t\n.param k=0\nV1 a 0 {-k}\nR1 a 0 1k\nD1 a 0 ideal\n.model ideal D(ron=0)\n")
    result = cs.sweep(circuit, dc, saves=["i(D1)"])
    assert result.ambiguous.tolist() == result.saved_ambiguous.tolist() == [True]
    assert result.ambiguous_others == ("D1",)
    result = cs.sweep(circuit, "k 1 3 1", saves=["i(D1)"])
    assert result.ambiguous.tolist() == result.saved_ambiguous.tolist() == [False]
    assert result.ambiguous_others == ()


@pytest.mark.parametrize("dc", ["I2 1m -1m -1m", "I2 -1m 1m 1m", "k 1 -1 -1", "k -1 1 1"])
def test_what_is_left_out_at_one_point_alone_is_told(dc: str) -> None:
    """The diode carries a current away from w, and none to it."""
    deck = "t\n.param k=0\nV1 a 0 1\nR1 a 0 1k\nI2 0 w {k*1m}\nD1 0 w dm\n.model dm D(is=1e-12)\n"
    result = cs.sweep(cs.parse(deck), dc, cs.Settings(lenient=True), saves=["v(w)", "i(D1)", "i(R1)"])
    assert not result.failed.size and result.islands == (("w",),)
    np.testing.assert_array_equal(np.isnan(result.voltage("w")), result.values[:, 0] > 0)
    np.testing.assert_array_equal(np.isnan(result.saved), np.outer(result.values[:, 0] > 0, [True, True, False]))
    assert result.left_out.tolist() == [False, False, True]
    assert result.saved_left_out.tolist() == [True, True, False]


def test_values_set_after_reading_are_not_lost_silently() -> None:
    circuit = cs.parse(MIXED).with_values({"R2": 1e-4})
    assert not cs.sweep(circuit, "V1 0 1 1").failed.size  # V sweeps keep them
    for call in (lambda: cs.sweep(circuit, "TEMP 0 10 10"), lambda: cs.monte_carlo(circuit, 2)):
        with pytest.raises(cs.SettingsError, match="values that were set after reading"):
            call()


@pytest.mark.parametrize("name", ["V1", "I1", "R1", "G1", "RW"])
def test_values_of_no_kind_are_lost_that_were_set_after_reading(name: str) -> None:
    deck = "t\nV1 a 0 1\nI1 0 b[0] 1m\nR1 a b[0] 1k\nG1 0 b[1] a 0 1m\nRW[0:1][0:1] b[0:1] c[0:1] 1k\n"
    read = cs.parse(deck + "Rc[0:1] c[0:1] 0 1k\n")
    changed = read.with_values({name: np.full((2, 2), 5e-4) if name == "RW" else 5e-4})
    for analysis in (lambda circuit: cs.sweep(circuit, "TEMP 0 10 10"), lambda circuit: cs.monte_carlo(circuit, 2)):
        assert not analysis(read).failed.size
        with pytest.raises(cs.SettingsError, match="values that were set after reading"):
            analysis(changed)


def test_gains_that_were_set_after_reading_are_not_lost() -> None:
    circuit = cs.parse(AMPLIFIED).with_values({"Gout": 2e-3})
    for analysis in (lambda: cs.sweep(circuit, "R2 1k 2k 1k"), lambda: cs.monte_carlo(circuit, 2)):
        with pytest.raises(cs.SettingsError, match="set after reading"):
            analysis()
    assert cs.sweep(circuit, "V1 1 1 1").voltage("r")[0] == pytest.approx(cs.solve(circuit).voltage("r")[0])


def test_a_point_is_solved_only_where_solve_says_so() -> None:
    """KCL is met at once at every node, and v(b), which 1e-12 S hold, is volts off."""
    circuit = cs.parse("weak\nV1 a 0 10\nI1 b c 1\nRa a b 1e12\nRb b c 1\nRc c 0 1e12\n")
    settings = cs.Settings(method="bcd", max_sweeps=50)
    alone = cs.solve(circuit, settings, raise_on_failure=False)
    assert not alone.solved and alone.residuals.kcl_relative <= settings.tolerance
    assert cs.sweep(circuit, "V1 9 10 1", settings).failed.tolist() == [0, 1]
    ladder = "".join(f"Rl{k} l{k} l{k + 1} 1\nRm{k} l{k + 1} 0 1k\n" for k in range(60))
    both = cs.parse("weak beside slow\nV1 a 0 10\nI1 b c 1\nRa a b 1e12\nRb b c 1\nRc c 0 1e12\nV2 l0 0 1\n" + ladder)
    assert cs.sweep(both, "V2 0 1 1", settings).failed.tolist() == [0, 1]  # the ladder is at rest at 0 V only
    assert not cs.sweep(both, "V2 0 1 1").failed.size


CHOSEN = (
    "chosen\n.param p=1 q={p+1} other=1k\nV1 a 0 1\nR0 a b {other}\n.if (q == 2)\nR1 b 0 1k\n.else\nR1 b 0 3k\n.endif\n"
)


@pytest.mark.parametrize("name", ["p", "Q"])
def test_what_decides_an_if_is_not_swept(name: str) -> None:
    with pytest.raises(cs.NetlistError, match=f"parameter '{name.lower()}' decides an .if"):
        cs.sweep(cs.parse(CHOSEN), f"{name} 1 2 1")
    assert cs.sweep(cs.parse(CHOSEN), "other 1k 2k 1k").voltage("b") == pytest.approx([1 / 2, 1 / 3])


def test_a_condition_is_not_random() -> None:
    with pytest.raises(
        cs.NetlistError,
        match=r"netlist:5: condition of \.if: it is random \(parameter 'p'\), .* netlist of each choice",
    ):
        cs.parse(CHOSEN.replace("p=1", "p={agauss(1, 0.1, 1)}"))
    with pytest.raises(cs.NetlistError, match=r"it is random \(parameter 'p'\)"):  # not q, which uses it
        cs.parse(CHOSEN.replace("p=1 q={p+1}", "p={agauss(1, 0.1, 1)} f(x)={p+x} q={f(1)}"))


def test_only_conditions_that_decide_something_are_evaluated() -> None:
    """Not those behind a branch that is taken, nor those within one that is not."""
    nested = ".if (0)\n.if (unknown)\nR1 b 0 5k\n.elseif (1)\nR1 b 0 7k\n.endif\n.if (1)\nR1 b 0 9k\n.endif\n.endif\n"
    text = CHOSEN.replace(".else", nested + ".elseif (unknown > 1)")
    assert cs.solve(cs.parse(text)).voltage("b") == pytest.approx(1 / 2)
    with pytest.raises(cs.NetlistError, match=r"netlist:7: condition of \.elseif: .*'unknown'"):
        cs.parse(CHOSEN.replace(".else", ".elseif (unknown > 1)").replace("q == 2", "q == 3"))


def test_of_conditions_without_an_end_the_inner_one_is_named() -> None:
    with pytest.raises(cs.NetlistError, match=r"netlist:3: \.if has no \.endif"):
        cs.parse("t\n.if (1)\n.if (1)\nR1 a 0 1\n")


def test_a_seed_given_on_reading_draws_the_values_of_a_sweep_too() -> None:
    text = "t\n.param k=1\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {k*aunif(1k, 500)}\n"
    circuit = cs.parse(text, seed=4)
    result = cs.sweep(circuit, "k 1 2 1")
    assert result.voltage("b")[0] == cs.solve(circuit).voltage("b")[0] != cs.solve(cs.parse(text)).voltage("b")[0]


def test_progress_counts_every_point() -> None:
    seen: list[tuple[int, int]] = []
    cs.sweep(cs.parse(MIXED), "V1 0 1 0.25 R1 1k 2k 1k", progress=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {10}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (10, 10)


# -- Monte Carlo -------------------------------------------------------------------------------------------------------

RANDOM = """random
.param scale={aunif(1, 0.1)}
V1 a 0 {limit(5, 1)}
R1 a b {scale*agauss(1k, 100, 1)}
R2 b 0 2k
R3[0:3] b 0 {gauss(9k, 0.1, 1)}
X1 b 0 cell
.subckt cell p q
R1 p q {unif(7k, 0.2)}
.ends
D1 b 0 dm
.model dm D(is={agauss(1p, 0.1p, 1)})
"""


def test_run_k_is_the_netlist_read_with_seed_plus_k() -> None:
    result = cs.monte_carlo(cs.parse(RANDOM), 5, seed=7)
    assert result.names == ("seed",)
    assert result.values[:, 0].tolist() == [7, 8, 9, 10, 11]
    for k in range(5):
        fresh = cs.parse(RANDOM, seed=7 + k)
        np.testing.assert_allclose(result.voltages[k], cs.solve(fresh).voltages()[0], rtol=1e-8)
        again = build_circuit(Revaluer(cs.parse(RANDOM).netlist).netlist(Changes(seed=7 + k)))
        np.testing.assert_array_equal(again.conductors.g, fresh.conductors.g)
        np.testing.assert_array_equal(again.junctions.params, fresh.junctions.params)
    again = cs.monte_carlo(cs.parse(RANDOM), 5, seed=7)
    np.testing.assert_array_equal(result.voltages, again.voltages)
    of_deck = cs.monte_carlo(cs.parse(RANDOM + ".options seed=7\n"), 5)
    np.testing.assert_array_equal(result.voltages, of_deck.voltages)


def test_statistics_of_a_divider() -> None:
    """v = R2/(R1 + R2) with R2 = 1k + 10 N: mean 0.5 and, to first order, std 10 / 4k; four standard errors apart."""
    runs = 400
    circuit = cs.parse("t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {agauss(1k, 30, 3)}\n")
    result = cs.monte_carlo(circuit, runs, seed=1)
    v = result.voltage("b")
    r2 = 1000 * v / (1 - v)
    assert abs(r2.mean() - 1000) < 4 * 10 / np.sqrt(runs)
    assert abs(r2.std(ddof=1) / 10 - 1) < 4 / np.sqrt(2 * runs)
    [[mean, std, low, high]] = statistics(result, result.voltage("b")[:, None]).tolist()
    np.testing.assert_allclose([mean, std, low, high], [v.mean(), np.std(v, ddof=1), v.min(), v.max()], rtol=1e-12)
    assert abs(std / 0.0025 - 1) < 0.15


def test_a_run_whose_draws_make_no_circuit_has_failed() -> None:
    result = cs.monte_carlo(cs.parse("t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {aunif(1k, 1.5k)}\n", seed=4), 60, seed=0)
    assert 2 < result.failed.size < 30  # one in six
    assert set(result.statuses[result.failed]) == {"FAULT"}
    assert "negative resistance" in result.messages[int(result.failed[0])]
    assert f"(here by seed {result.failed[0]})" in result.messages[int(result.failed[0])]
    assert np.isnan(result.voltage("b")[result.failed]).all()
    assert np.isfinite(result.voltage("b")[result.statuses == "SOLVED"]).all()


@pytest.mark.parametrize("seed", range(4))
def test_runs_are_judged_by_their_own_draws(seed: int) -> None:
    """Not by those of the netlist as read, with which sources may contradict each other."""
    text = "t\nV1 a 0 1\nV2 a 0 {limit(1, 1) > 1 ? 1 : 2}\nR1 a 0 {agauss(1k, 10, 3)}\n"
    result = cs.monte_carlo(cs.parse(text, seed=seed), 30, seed=0)
    assert 5 < result.failed.size < 25
    assert set(result.statuses) == {"SOLVED", "FAULT"}
    assert (result.voltage("a")[result.statuses == "SOLVED"] == 1.0).all()


def test_bad_numbers_of_runs() -> None:
    circuit = cs.parse(RANDOM)
    with pytest.raises(cs.SettingsError, match="runs must be at least 1, found 0"):
        cs.monte_carlo(circuit, 0)
    with pytest.raises(cs.SettingsError, match="must lie between 0 and 2"):
        cs.monte_carlo(circuit, 2, seed=-1)


def test_nothing_is_read_or_parsed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.arange(1.0, 5.0))
    deck = tmp_path / "deck.cir"
    deck.write_text(RANDOM + "Rw[0:3] b 0 @w.npy m={agauss(1, 0.1, 1)}\n")
    circuit = cs.load(deck)
    loads: list[str] = []
    real = np.load
    monkeypatch.setattr(np, "load", lambda file, **keys: loads.append("x") or real(file, **keys))
    for module, name in ((netlist, "expand"), (netlist, "read_text"), (source, "scan"), (syntax, "parse_expression")):
        monkeypatch.setattr(module, name, None)
    patterns: list[str] = []
    real_pattern = cards._pattern
    monkeypatch.setattr(cards, "_pattern", lambda kind, text: patterns.append(text) or real_pattern(kind, text))
    assert not cs.monte_carlo(circuit, 10).failed.size
    assert not loads
    assert len(patterns) == len(set(patterns)) == 6  # each card that is not plain, once


def test_a_circuit_keeps_the_arrays_that_were_read(tmp_path: Path) -> None:
    old = {"w": np.arange(1.0, 5.0), "g": np.full((2, 2), 1e-3), "r": np.array([1.0, 2.0]), "v": 3.0}
    texts = [
        "t\n.param k=1\nV1 a 0 1\nR1 a c[0] {k}\nRx[0:1] a c[0:1] 1\nRw[0:3] c[0] 0 @w.npy m={agauss(1, 0.1, 1)}",
        "RG[0:1][0:1] c[0:1] d[0:1] g=@all.npz:g\nRd[0:1] d[0:1] 0 1\nX1[0:1] d[0:1] cell r=@r.npy",
        ".subckt cell p r=1\nR1 p n {r}\nV1 n 0 @v.npy\n.ends\n",
    ]
    deck = tmp_path / "deck.cir"
    deck.write_text("\n".join(texts))

    def write(factor: float) -> None:
        for name in "wrv":
            np.save(tmp_path / f"{name}.npy", factor * old[name])
        np.savez(tmp_path / "all.npz", g=factor * old["g"])

    write(1.0)
    circuit = cs.load(deck)
    assert np.shares_memory(circuit.crossbars[0].g, circuit.netlist.text.files["@all.npz:g", tmp_path])  # not twice
    assert {path.name for path in circuit.netlist.text.data} == {"w.npy", "r.npy", "v.npy", "all.npz"}
    expected = cs.solve(circuit).voltages()[0]
    write(2.0)
    assert abs(cs.solve(cs.load(deck)).voltages()[0] - expected).max() > 0.1
    for dc in ("k 1 2 1", "V1 1 2 1", "R1 1 2 1", "TEMP 27 28 1"):
        np.testing.assert_allclose(cs.sweep(circuit, dc).voltages[0], expected, rtol=1e-9, err_msg=dc)
    np.testing.assert_allclose(cs.monte_carlo(circuit, 2).voltages[0], expected, rtol=1e-9)
    for path in tmp_path.glob("*.np?"):
        path.unlink()
    assert not cs.monte_carlo(circuit, 3).failed.size


def test_saved_values_are_those_of_single_solutions() -> None:
    circuit = cs.parse(MIXED + ".param k=1\n")
    saves = wanted_saves(circuit, ["all"])
    result = cs.sweep(circuit, "V1 0 2 0.5 TEMP 0 50 25", saves=saves)
    for k in (0, 7, 14):
        volts, temp = result.values[k].tolist()
        alone = cs.solve(cs.parse(MIXED.replace("V1 in 0 1", f"V1 in 0 {volts!r}") + f".options temp={temp}\n"))
        np.testing.assert_allclose(result.saved[k], Saved(alone, saves).values()[0], rtol=1e-9, atol=1e-15)


def test_too_much_to_save_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MOST_SAVED", 5)
    circuit = cs.parse(MIXED)
    with pytest.raises(cs.SettingsError, match="2 values to save at 3 points are more than 5"):
        cs.sweep(circuit, "V1 0 2 1", saves=wanted_saves(circuit, ["i(R1),i(R2)"]))


@pytest.mark.filterwarnings("error")
def test_a_saturation_current_that_overflows_has_an_end() -> None:
    """N = 1e-6 makes IS(T) e^1e5 times as large, or as small, for one degree."""
    circuit = cs.parse("nearly ideal\nV1 in 0 1\nR1 in a 1k\nD1 a 0 d\n.model d D(is=1e-14 n=1e-6)\n")
    result = cs.sweep(circuit, "TEMP 27 57 10")
    assert not result.failed.size
    assert np.abs(result.voltage("a")).max() < 1e-4
    assert circuit.junctions.params[0, 0] == 1e-14


@pytest.mark.parametrize("method", ["auto", "newton", "bcd"])
def test_points_that_overflow_leave_the_others_their_values(method: str) -> None:
    result = cs.sweep(cs.parse("far\nI1 0 a 1\nR1 a b 1e200\nR2 b 0 1"), "I1 0 1e140 5e139", cs.Settings(method))
    assert result.statuses.tolist() == ["SOLVED", "NONFINITE", "NONFINITE"]
    assert result.voltage("a")[0] == result.kcl_relative[0] == 0.0
    assert np.isnan(result.voltage("a")[1:]).all()


@pytest.mark.parametrize(
    ("sweep", "count"),
    [
        ("is0 1e-15 1e-14 4.5e-15", 3),
        ("is0 1e-18 1e-17 1e-18", 10),
        ("is0 1e-20 1.01e-19 1e-20", 10),
        ("is0 1e-14 1e-15 -4.5e-15", 3),
        ("is0 0.9e-15 1.1e-15 1e-17", 21),
    ],
)
def test_points_of_small_parameters_end_at_stop(sweep: str, count: int) -> None:
    deck = ".param is0=1e-15\nI1 0 a 1u\nD1 a 0 dd\n.model dd d(is={is0})\n"
    assert cs.sweep(cs.parse(f"corners\n{deck}"), sweep).values.shape == (count, 1)


@pytest.mark.parametrize(
    ("card", "cure"),
    [
        ("dec V1 1m 1 3", r"found 5 words; there is no 'dec': over decades sweep an exponent, .param r=\{10\*\*x\}"),
        ("V1 list 0 1 3", r"found 5 words; there is no 'list': .* give the points of a list one by one"),
        ("lin V1 0 1 0.5", r"found 5 words; leave 'lin' out"),
    ],
)
def test_sweeps_of_other_simulators(card: str, cure: str) -> None:
    with pytest.raises(cs.SettingsError, match=cure):
        cs.sweep(cs.parse("t\nV1 a 0 1\nR1 a 0 1k"), card)
