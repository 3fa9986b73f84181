"""Plain SPICE from any netlist: its exact text, what ngspice and circuitsim make of it, names, and speed."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from growth import LIMIT, exponent
from helpers import PRECISE, flat, needs_ngspice

import circuitsim as cs
from circuitsim import gallery
from circuitsim.build import build_circuit
from circuitsim.circuit import Circuit
from circuitsim.io.sweeps import sweep_plot
from circuitsim.netlist.model import KINDS
from circuitsim.netlist.numbers import parse_number
from circuitsim.saved import Saved, wanted_saves
from circuitsim.spice.flatten import MIN_RON, flatten
from circuitsim.spice.ngspice import operating_point, run_ngspice, tight_options

NETLISTS = Path(__file__).parent.parent / "netlists"
DECKS = sorted([*NETLISTS.glob("[!d]*.cir"), *NETLISTS.glob("d[!r]*.cir"), *(NETLISTS / "valid").glob("*.cir")])
FLOOR = 1e-12  # of the largest voltage or current in a deck: what rounding leaves of an answer that is exactly 0
GMIN = 1e-15  # S across each junction, on both sides of a comparison: ngspice cannot do without

BEYOND_NGSPICE = {
    "hard_R0_loop": "a loop of shorts is singular in ngspice",
    "hard_vloop_consistent": "a loop of voltage sources is singular in ngspice",
    "hard_vloop3_consistent": "a loop of voltage sources is singular in ngspice",
    "hard_R1e-12_1e15": "conductances 1e27 apart: singular in ngspice",
    "hard_ratio_chain": "conductances 1e24 apart: singular in ngspice",
    "hard_R1e-12": "1 V on 1 pohm: the current is lost in rounding in ngspice",
    "hard_R1e-15": "1 V on 1 fohm: the current is lost in rounding in ngspice",
    "hard_R1e-30": "1 V on 1e-30 ohm: the current is lost in rounding in ngspice",
    "hard_is_1e-300": "ngspice takes IS = 1e-28",
    "ex_opposed_zeners": "0.1 pA of leakage beside 3 V on RS = 6 ohm: ngspice has three digits of it",
    "hard_diode_island": "an island that can shift: its voltages are noise in ngspice",
    "hard_diode_island_link": "conductances 1e11 apart: block coordinate descent does not finish",
    "hard_float_node_R": "an island that can shift: its voltages are noise in ngspice",
    "hard_float_node_isrc_R": "an island that can shift: its voltages are noise in ngspice",
    "hard_icut_zero": "an island that can shift: its voltages are noise in ngspice",
    "hard_no_ground": "an island that can shift: its voltages are noise in ngspice",
    "hard_two_comp": "an island that can shift: its voltages are noise in ngspice",
}
NONE: frozenset[str] = frozenset()
# Nodes that are not in the flat netlist: only open elements join this one, and that one has another name.
GONE = {"hard_only_C_to_node": frozenset({"2"}), "hard_no_end_utf8": frozenset({"é"})}


def body(text: str) -> list[str]:
    """The element and model cards of a flat netlist."""
    return [line for line in text.splitlines()[1:] if line[0] not in "*." or line.startswith(".model")]


def test_what_is_left_out_keeps_its_own_value() -> None:
    circuit = cs.parse("t\nV1 a 0 1\nR1 a 0 1k\nI0 0 f 1m\nV2 f g 2\nR2 f g 1k\nI3 0 b 3m\nR3 b 0 1k")
    left_out = cs.compile_problem(circuit, lenient=True).circuit
    assert len(left_out.ties) == 1 and len(left_out.current_sources) == 1
    assert body(flat(left_out)) == body(flat(circuit))


def with_gmin(circuit: Circuit) -> Circuit:
    """The circuit with GMIN across its junctions, unless its deck has asked for another."""
    options = circuit.netlist.options
    return build_circuit(replace(circuit.netlist, options=replace(options, gmin=options.gmin or GMIN)))


def solved(circuit: Circuit) -> cs.Solution:
    return cs.solve(circuit, PRECISE)


def compare_with_ngspice(circuit: Circuit, rtol: float, floor: float = FLOOR, gone: frozenset[str] = NONE) -> None:
    """Node voltages and source currents, with `floor` relative to the largest one."""
    solution = solved(circuit)
    found = operating_point(flat(circuit), options=tight_options(circuit.netlist.options.gmin))
    voltages = dict(zip(circuit.nodes[1:], solution.voltages()[0, 1:], strict=True))
    assert {name for name in voltages if name.lower() not in found} == gone
    voltages = {name: value for name, value in voltages.items() if name not in gone}
    sources = circuit.netlist.tables["V"]
    names = [name for name, a, b in zip(sources.names, sources.a, sources.b, strict=True) if a != b]
    currents = {f"i({name})": solution.current(name)[0] for name in names}
    for wanted in (voltages, currents):
        scale = max(map(abs, wanted.values()), default=0.0)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name.lower()], value, rtol, floor * scale, err_msg=name)


# -- the text ----------------------------------------------------------------------------------------------------------


def test_text_of_a_small_netlist(tmp_path: Path) -> None:
    deck = tmp_path / "small.cir"
    deck.write_text("""Small: one of everything
.options temp=50 gmin=1e-14 rshunt=1G
.param g=2m
.model ideal D(ron=0)
.model sw D(ron=2 roff=1k vfwd=0.6 vrev=5)
.model dd D(is=1e-12 n=1.5)
.subckt pair a b
.model dd D(is=1e-13 bv=5 ibv=2m tnom=30)
R1 a m 1k tc1=2m
D1 m b dd m=2
.ends
Vx[0:1] x[0:1] 0 {1+2}
RW[0:1][0:1] x[0:1] h[3:2] g={g}
RO h[3] 0 0
RI h[2] 0 inf
L1 h[2] out 1u
C1 out 0 1u
I1 0 out 0.1m
X1 out 0 pair
D2 out 0 dd temp=60
D3 0 out sw 2
Dc[0:1] 0 h[2:3] ideal
D5 out 0 sw
.input Vx
.output out h[2:3]
.train RW
.save v(out) i(Vx[0])
.op
""")
    assert (
        flat(cs.load(deck))
        == f"""Small: one of everything
* Plain SPICE, written by circuitsim flatten from {deck}
* .input Vx
* .output out h[2] h[3]
* .train RW
* left out, no DC current there: infinite resistors (1)
* left out, no DC current there: capacitors (1)
* Ron of a perfect diode is 1e-06 ohm here: an error of 1 uV for each ampere
.options temp=50.0 tnom=27.0 gmin=1e-14 rshunt=1000000000.0
.model dd D(IS=1e-13 N=1.0 RS=0.0 EG=1.11 XTI=3.0 BV=5.0 IBV=0.002 NBV=1.0 TNOM=30.0)
.model dd_2 D(IS=1e-12 N=1.5 RS=0.0 EG=1.11 XTI=3.0)
.model sw sidiode(Ron=1.0 Roff=500.0 Vfwd=0.6 Vrev=5.0 Rrev=1.0)
.model sw_2 sidiode(Ron=2.0 Roff=1000.0 Vfwd=0.6 Vrev=5.0 Rrev=2.0)
.model ideal sidiode(Ron=1e-06 Roff=1e+300 Vfwd=0.0)
Vx[0] x[0] 0 3.0
Vx[1] x[1] 0 3.0
* Shorts (R = 0, L) are sources of 0 V: exact, where ngspice would take 1 mohm for R = 0
V_RO h[3] 0 0.0
V_L1 h[2] out 0.0
* XSPICE devices cannot read these node names: each is tied by 0 V to one that they can
V_h_2 h[2] h_2 0.0
V_h_3 h[3] h_3 0.0
I1 0 out 0.0001
R.X1.R1 out X1.m 1046.0
RW[0][0] x[0] h[3] 500.0
RW[1][0] x[1] h[3] 500.0
RW[0][1] x[0] h[2] 500.0
RW[1][1] x[1] h[2] 500.0
D.X1.D1 X1.m 0 dd m=2.0
D2 out 0 dd_2 temp=60.0
AD3 0 out sw
ADc_0 0 h_2 ideal
ADc_1 0 h_3 ideal
AD5 out 0 sw_2
.save all i(Vx[0])
.op
.end
"""
    )


def test_every_kind_of_element_is_written() -> None:
    assert set(KINDS) == set(cs.load(NETLISTS / "divider.cir").netlist.tables) == set("RVIDLCEFGHN")


def test_members_of_a_crossbar_with_zero_conductance_are_left_out() -> None:
    text = flat(cs.load(NETLISTS / "crossbar_4x4.cir"))
    assert "* left out, no DC current there: crossbar members with g = 0 (1)\n" in text
    assert sum(line.startswith("Rmem[") for line in text.splitlines()) == 15


def test_branches_from_a_node_to_itself_that_ngspice_refuses_are_left_out() -> None:
    text = flat(cs.parse("t\nV1 a 0 1\nV2 a a 0\nR1 a b 1k\nR2 b b 0\nL1 b b 1u\nR3 b 0 1k\nI1 b b 1\nR4 b b 5"))
    assert body(text) == ["V1 a 0 1.0", "I1 b b 1.0", "R1 a b 1000.0", "R3 b 0 1000.0", "R4 b b 5.0"]
    assert "shorts from a node to itself (2)\n" in text
    assert "sources of 0 V from a node to itself (1)\n" in text


def test_new_names_do_not_collide_with_old_ones() -> None:
    text = flat(
        cs.parse("t\nV_R1 a 0 1\nR1 a b 0\nV_h_0 h_0 b 1\n.model i D(ron=0)\nD1 h[0] 0 i\nR2 h_0 h[0] 1\nDh[0] h<0 0 i")
    )
    assert [line for line in body(text) if line[0] in "VA"] == [
        "V_R1 a 0 1.0",
        "V_h_0 h_0 b 1.0",
        "V_R1_2 a b 0.0",
        "V_h_0_2 h[0] h_0_2 0.0",
        "V_h_0_3 h<0 h_0_3 0.0",
        "AD1 h_0_2 0 i",
        "ADh_0 h_0_3 0 i",
    ]


def test_changed_values_are_written_and_the_others_keep_their_digits() -> None:
    circuit = cs.parse("t\nV1 a 0 1\nI1 0 b 1m\nR1 a b 49\nR2[0:1] b 0 0.3\nRX[0:1][0:1] p[0:1] q[0:1] 7\nR3 p[0] a 1")
    changed = circuit.with_values({"V1": 2.5, "I1": -1.0, "R2": [0.0, 0.25], "RX": [[0.5, 0.0], [0.0, 0.125]]})
    assert body(flat(changed)) == [
        "V1 a 0 2.5",
        "I1 0 b -1.0",
        "R1 a b 49.0",
        "R2[1] b 0 4.0",
        "R3 p[0] a 1.0",
        "RX[0][0] p[0] q[0] 2.0",
        "RX[1][1] p[1] q[1] 8.0",
    ]


def test_a_batch_of_values_is_refused() -> None:
    circuit = cs.parse("t\nV1 a 0 1\nR1 a 0 1").with_values({"V1": [1.0, 2.0, 3.0]})
    with pytest.raises(cs.SettingsError, match="flatten: the sources have a batch of 3 values"):
        flat(circuit)


def test_a_title_that_ngspice_would_obey_becomes_a_comment() -> None:
    assert flat(cs.parse(".temp 99\nV1 a 0 1\nR1 a 0 1")).splitlines()[0] == "* .temp 99"
    assert flat(cs.parse("@home\nV1 a 0 1\nR1 a 0 1")).splitlines()[0] == "* @home"
    assert flat(cs.parse("R9 a title\nV1 a 0 1\nR1 a 0 1")).splitlines()[0] == "R9 a title"
    assert flat(cs.parse("\nV1 a 0 1\nR1 a 0 1")).splitlines()[0] == "untitled"


def test_what_ngspice_does_not_share_is_said() -> None:
    gmin, ron = "ngspice adds 1e-12 S across each junction", "Ron of a perfect diode is 1e-06 ohm here"
    deck = "t\nV1 a 0 1\nD1 a 0 m\n"
    for model, said in {"is=1u": [gmin], "ron=0": [ron], "ron=1": []}.items():
        assert [remark for remark in (gmin, ron) if remark in flat(cs.parse(f"{deck}.model m D({model})"))] == said
    assert gmin not in flat(cs.parse(f"{deck}.model m D(is=1u)\n.options gmin=1p"))


def test_long_lists_of_outputs_are_wrapped() -> None:
    deck = "t\nV1 a 0 1\nR1[0:99] a output[0:99] 1k\nR2[0:99] output[0:99] 0 1k\n.output output[0:99]"
    lines = [line for line in flat(cs.parse(deck)).splitlines() if line.startswith("* .output ")]
    assert max(map(len, lines)) <= 130
    assert [word for line in lines for word in line.split()[2:]] == [f"output[{k}]" for k in range(100)]


# -- circuitsim reads it back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DECKS, ids=lambda p: p.stem)
def test_flat_netlist_has_the_same_solution(path: Path) -> None:
    circuit = cs.load(path)
    text = flat(circuit)
    if "sidiode" in text or "\nBN" in text:
        with pytest.raises(cs.NetlistError, match=r"elements 'A' are not supported|not formulas \(B\)"):
            cs.parse(text)
        return
    again = cs.parse(text)
    before, after = solved(circuit), solved(again)
    kept = [name for name in circuit.nodes if again.netlist.has_node(name)]
    assert set(circuit.nodes) - set(kept) == GONE.get(path.stem, NONE)
    voltages = np.array([before.voltage(name)[0] for name in kept])
    found = [after.voltage(name)[0] for name in kept]
    np.testing.assert_allclose(found, voltages, rtol=1e-9, atol=FLOOR * np.abs(voltages).max())


# -- ngspice solves it -------------------------------------------------------------------------------------------------


@needs_ngspice
@pytest.mark.parametrize("path", [p for p in DECKS if p.stem not in BEYOND_NGSPICE], ids=lambda p: p.stem)
def test_ngspice_agrees(path: Path) -> None:
    circuit = with_gmin(cs.load(path))
    perfect = len(circuit.ideal_diodes) > 0
    compare_with_ngspice(circuit, 1e-6, 1e-8 if perfect else FLOOR, GONE.get(path.stem, NONE))


@needs_ngspice
@pytest.mark.slow
def test_ngspice_agrees_on_a_deep_resistive_network() -> None:
    circuit = cs.load(NETLISTS / "drn_xs.cir")
    outputs = solved(circuit).voltage("y[0:9]")[0]
    found = operating_point(flat(circuit), options=tight_options())
    np.testing.assert_allclose([found[f"y[{k}]"] for k in range(10)], outputs, rtol=1e-4)


@needs_ngspice
@pytest.mark.parametrize(
    ("model", "area"),
    [
        ("ron=0.5 roff=1k vfwd=0.6 vrev=3 rrev=2", 1.0),
        ("ron=0.5 roff=1k vfwd=0.6 vrev=3 rrev=2", 2.5),
        ("ron=0.5 roff=1k vfwd=0.6 vrev=3", 1.0),
        ("ron=3", 1.0),
        ("roff=1MEG vrev=1.5", 0.5),
    ],
)
def test_sidiode_has_the_law_of_the_piecewise_linear_diode(model: str, area: float) -> None:
    text = flat(cs.parse(f"sweep\nV1 a 0 0\nD1 a 0 sw area={area}\n.model sw D({model})\n"))
    [plot] = run_ngspice(text.replace(".op\n", ".dc V1 -5 5 0.25\n")).plots
    values = {"ron": 1.0, "roff": np.inf, "vfwd": 0.0, "vrev": np.inf}
    values |= {key: parse_number(value) for key, value in (word.split("=") for word in model.split())}
    v = np.linspace(-5, 5, 41)
    on, off, reverse = 1 / values["ron"], 1 / values["roff"], 1 / values.get("rrev", values["ron"])
    above, below = np.maximum(v - values["vfwd"], 0), np.maximum(-v - values["vrev"], 0)
    current = area * (off * v + (on - off) * above - (reverse - off) * below)
    np.testing.assert_allclose(plot.column("v(v-sweep)"), v, atol=1e-14)
    np.testing.assert_allclose(-plot.column("i(v1)"), current, rtol=1e-12, atol=1e-14)


@needs_ngspice
def test_perfect_diodes_are_off_by_ron_times_their_current() -> None:
    circuit = cs.parse("""three perfect diodes: plain, with vfwd, with vrev, at 2 A each
.model i D(ron=0)
.model f D(ron=0 vfwd=0.5)
.model z D(ron=0 vfwd=0.5 vrev=3)
I1 0 a 2
D1 a 0 i
I2 0 b 2
D2 b 0 f
I3 c 0 2
D3 c 0 z
""")
    solution = solved(circuit)
    assert [solution.voltage(name)[0] for name in "abc"] == [0.0, 0.5, -3.0]
    found = operating_point(flat(circuit), options=tight_options())
    expected = [2 * MIN_RON, 0.5 + 2 * MIN_RON, -3 - 2 * MIN_RON]
    np.testing.assert_allclose([found[name] for name in "abc"], expected, rtol=1e-12)


@needs_ngspice
@pytest.mark.parametrize("factors", ["area=0.2", "area=3", "m=3", "area=0.5 m=2"])
def test_area_and_multiplier_of_a_shockley_diode(factors: str) -> None:
    circuit = cs.parse(f"""forward, reverse and in breakdown
.options gmin=1p
.model dz D(is=1e-13 n=1.2 rs=3 bv=5.1 ibv=1m nbv=1.5)
I1 0 a 7m
D1 a 0 dz {factors}
I2 0 b 7m
D2 0 b dz {factors}
R3 c 0 1MEG
D3 c d dz {factors}
V3 d 0 2
""")
    compare_with_ngspice(circuit, 1e-9)


@needs_ngspice
def test_every_name_gets_past_ngspice() -> None:
    names = "h[3] <x> a~b c%d null n+ n-1.a 2n a#b bus[3:0] x/y v i time all gnd! 00".split()
    renamed = "temper a-temper é è j#branch".split()
    cards = [".model sw D(ron=1k)", ".model dd D(is=1e-13)", "Vé 1st 0 7", "V2 mid 0 2"]
    for k, name in enumerate(names + renamed):
        cards += [f"R{k} 1st {name} 1k", f"R[{k}] {name} 0 {k + 2}k", f"Dè[{k}] {name} mid sw", f"D{k} 0 {name} dd"]
    circuit = with_gmin(cs.parse("\n".join(["names", *cards])))
    text = flat(circuit)
    stand_ins = {line.split()[4][:-1]: line.split()[1] for line in text.splitlines() if "stands for" in line}
    assert set(stand_ins) == {*renamed, "Vé", *(f"Dè[{k}]" for k in range(len(names + renamed)))}
    found = operating_point(text, options=tight_options(GMIN))
    solution = solved(circuit)
    for name in names + renamed:
        value = solution.voltage(name)[0]
        assert found[stand_ins.get(name, name).lower()] == pytest.approx(value, rel=1e-6)
    assert found[f"i({stand_ins['Vé'].lower()})"] == pytest.approx(solution.current("Vé")[0], rel=1e-6)


def test_a_name_that_no_number_makes_safe_gets_past_ngspice_too() -> None:
    cards = flat(cs.parse("t\nV1 temper.a 0 1\nR.temper.b temper.a 0 1k")).splitlines()
    assert [card for card in cards if card[0] in "VR"] == ["V1 temper_a 0 1.0", "R_temper_b temper_a 0 1000.0"]


@needs_ngspice
def test_names_that_ngspice_takes_for_something_else_are_replaced() -> None:
    nodes = "ac value table i-sweep v-sweep @r1[i] q#branch[0] q#internal q#base".split()
    models = "1 1.5 .5 1e3 10k 1meg 0x1n gnd".split()
    cards = ["V+ in 0 3", "V-5 below 0 2", "F1 0 f V+ 2", "H/1 h 0 V-5 100", "Rf f 0 1k", "Rh h 0 1k", "Rb below in 1k"]
    for k, (node, model) in enumerate(zip(nodes, [*models, "m"], strict=True)):
        cards += [f"L{k} {node} p{k} 1", f"Rp{k} p{k} 0 1k", f"R{k}+ in {node} 1k", f"D{k} {node} 0 {model}"]
        cards += [f"E{k} {node} w{k} p{k} 0 2", f"Rw{k} w{k} 0 1k", f".model {model} D(is=1e-{k + 9})"]
    circuit = with_gmin(cs.parse("\n".join(["names", *cards, ".dc V+ 2 3 1"])))
    text = flat(circuit)
    sweep, found = sorted(run_ngspice(text, options=tight_options(GMIN)).plots, key=lambda plot: plot.name)
    assert found.name == "Operating Point" and sweep.values.shape[0] == 2
    np.testing.assert_allclose(sweep.column("v(in)"), [2, 3])
    stand_ins = {line.split()[4][:-1]: line.split()[1] for line in text.splitlines() if "stands for" in line}
    assert set(stand_ins) == {*nodes, "V+", "V-5", *(f"R{k}+" for k in range(len(nodes)))}
    solution = solved(circuit)
    for name in nodes:
        value = solution.voltage(name)[0]
        assert found.column(f"v({stand_ins[name].lower()})")[0] == pytest.approx(value, rel=1e-6)


# -- speed -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_million_elements(tmp_path: Path) -> None:
    circuit = cs.load(NETLISTS / "drn_1h.cir")
    members = sum(int(np.count_nonzero(x.g)) for x in circuit.crossbars)
    with (tmp_path / "flat.cir").open("w") as out:
        flatten(circuit, out)
    with (tmp_path / "flat.cir").open() as flat_netlist:
        assert sum(line.startswith("RW") for line in flat_netlist) == members


@pytest.mark.parametrize("shape", ["crossbar", "arrays"])
def test_flattening_takes_time_in_proportion(shape: str) -> None:
    def prepare(n: int) -> Callable[[], None]:
        if shape == "crossbar":
            circuit = cs.parse(gallery.drn([n // 100, 200]))
        else:
            span = f"[1:{n}]"
            circuit = cs.parse(f"arrays\nV1 in 0 1\nR1{span} in m{span} 1k\nD1{span} m{span} 0 d\n.model d D\n")
        return lambda: flatten(circuit, io.StringIO())

    assert exponent(prepare, 5_000 if shape == "arrays" else 20_000, repeats=2) < LIMIT


# -- sweeps and what is saved ------------------------------------------------------------------------------------------


@needs_ngspice
def test_the_flat_bridge_runs_the_same_sweep_in_ngspice() -> None:
    circuit = cs.load(NETLISTS / "diode_bridge_sweep.cir")
    assert ".dc V1 -12.0 12.0 0.024\n.op\n" in flat(circuit)
    plots = {plot.name: plot for plot in run_ngspice(flat(circuit), options=tight_options(GMIN)).plots}
    ours = sweep_plot(cs.sweep(circuit, circuit.netlist.analyses[0]))
    theirs = plots[ours.name]
    assert theirs.values.shape == ours.values.shape == (1001, 5)
    np.testing.assert_allclose(theirs.values[:, 0], ours.values[:, 0], rtol=0, atol=1e-12)
    for name, _ in ours.variables[1:]:
        np.testing.assert_allclose(theirs.column(name), ours.column(name), rtol=1e-6, atol=1e-6, err_msg=name)


FACTORS = """factors
V[1:2] in[1:2] 0 1
R1 in[1] out 1k tc1=2m
R2 out 0 1k m=2 scale=3
X1 in[2] out cell
.subckt cell a b
R1 a b 3k
.ends
I1 0 out 1m m=3
D1 out 0 dm
.model dm D(is=1e-12)
.options temp=50
"""


@needs_ngspice
@pytest.mark.parametrize(
    "dc", ["I1 0 5m 0.7m", "R2 1k 4k 1k", "R1 1k 3k 500", "R.X1.R1 1k 2k 300 V[2] 0 1 0.5", "V[2] 0 1 0.3 R1 1k 2k 500"]
)
def test_sweeps_of_flat_decks_give_the_values_of_the_originals(dc: str) -> None:
    circuit = cs.parse(f"{FACTORS}.dc {dc}\n")
    theirs = run_ngspice(flat(circuit), options=tight_options(GMIN)).plots[0]
    ours = sweep_plot(cs.sweep(circuit, circuit.netlist.analyses[0]))
    assert theirs.values.shape == ours.values.shape
    for name, _ in ours.variables[1:]:
        np.testing.assert_allclose(theirs.column(name), ours.column(name), rtol=1e-6, atol=1e-9, err_msg=name)


@needs_ngspice
def test_temperature_sweeps_where_only_diodes_follow_it() -> None:
    circuit = cs.parse(FACTORS.replace(" tc1=2m", "") + ".dc TEMP 0 100 25\n")
    theirs = run_ngspice(flat(circuit), options=tight_options(GMIN)).plots[0]
    ours = sweep_plot(cs.sweep(circuit, circuit.netlist.analyses[0]))
    np.testing.assert_allclose(theirs.column("v(out)"), ours.column("v(out)"), rtol=1e-6)
    assert np.ptp(ours.column("v(out)")) > 0.05


@pytest.mark.parametrize(
    ("cards", "wanted"),
    [
        ("", "* left out: .dc temp 0.0 10.0 5.0: values here do not follow the temperature as in the original"),
        (".param k=1", "* left out: .dc k 1.0 2.0 1.0: k is a parameter, and there are none here"),
        ("", "* left out: .dc V 0.0 1.0 1.0: there is no one element V to sweep here"),
        ("R7 out 0 0", "* left out: .dc R7 1.0 2.0 1.0: there is no one element R7 to sweep here"),
        ("R7 out 0 inf", "* left out: .dc R7 1.0 2.0 1.0: there is no one element R7 to sweep here"),
        ("D7 out 0 dm temp=50", None),
    ],
)
def test_sweeps_that_ngspice_cannot_do_become_comments(cards: str, wanted: str | None) -> None:
    if wanted is None:  # D7 has a temperature of its own, which is that of all: nothing says so in the flat deck
        deck = FACTORS.replace(" tc1=2m", "") + cards
        wanted = "* left out: .dc temp 0.0 10.0 5.0: values here do not follow the temperature"
    else:
        deck = FACTORS + cards
    what = wanted.split(".dc ")[1].split(":")[0]
    text = flat(cs.parse(f"{deck}\n.dc {what}\n"))
    assert wanted in text and "\n.dc" not in text


@needs_ngspice
def test_breakdown_moves_with_the_temperature_from_that_of_its_model() -> None:
    """20 degrees above it BV has risen by BV (TBV1 + 20 TBV2) = 5 (1m + 2m) = 15 mV each; ngspice knows TCV only."""
    circuit = cs.parse(
        "t\nV1 a 0 -8\nR1 a b 1k\nD1 b 0 dm m=0.5\n.model dm D(is=1e-14 bv=5 ibv=1m tbv1=1m tbv2=0.1m tnom=57)\n"
        ".options temp=77\n"
    )
    text = flat(circuit)
    assert "\nD1 b 0 dm m=0.5\n" in text
    [fall] = re.findall(r" TCV=(\S+) ", text)
    assert float(fall) == pytest.approx(-15e-3, rel=1e-12)
    theirs = run_ngspice(text, options=tight_options(GMIN)).plots[0]
    assert theirs.column("v(b)")[0] == pytest.approx(cs.solve(circuit).voltage("b")[0], rel=1e-6)


@pytest.mark.parametrize(
    ("cards", "follows"),
    [
        ("D1 a 0 dm\n.model dm D(is=1e-14)", True),
        ("D1 a 0 dm\n.model dm D(is={1e-14*(1 + temper)})", False),
        ("N1 a 0 nr\n.model nr PWL(0 0 1 {1m*(1 + temper)})", False),
        ("RW[0:1][0:1] b[0:1] c[0:1] {1k + temper}\nRb[0:1] a b[0:1] 1\nRc[0:1] c[0:1] 0 1", False),
        ("RW[0:1][0:1] b[0:1] c[0:1] 1k\nRb[0:1] a b[0:1] 1\nRc[0:1] c[0:1] 0 1", True),
    ],
)
@pytest.mark.parametrize("dc", ["temp 27.0 77.0 25.0", "temp -23.0 27.0 25.0"])
def test_temperature_is_swept_where_all_that_changes_with_it_is_in_ngspice_too(
    cards: str, follows: bool, dc: str
) -> None:
    """One end is the temperature that all have anyway."""
    text = flat(cs.parse(f"t\nV1 s 0 1\nR1 s a 1k\n{cards}\n.dc {dc}\n"))
    assert (f"\n.dc {dc}\n" in text) == follows
    assert ("* left out: .dc" in text) != follows


SAVES = """saves
V1 a 0 2
R1 a b 1k m=2
R0 b c 0
L1 c d 1u
D1 d 0 dm m=2
D2 d 0 sw
I1 0 b 1m m=3
E1 e 0 b 0 2
Re e 0 1k
F1 0 f V1 2
Rf f 0 1k
G1 0 g a b 1m
Rg g 0 1k
H1 h 0 V1 5
Rh h 0 1k
N1 a n sat
Rn n 0 1k
RA[0:1] a k[0:1] 1k
RB[0:1] k[0:1] 0 1k
C1 a 0 1u
.model dm D(is=1e-12 rs=1)
.model sw D(ron=1 vfwd=0.9)
.model sat tanh(imax=1m v0=0.5)
.save i(R1) @R1[p] @r1[r] i(V1) @v1[p] @v1[dc] i(R0) i(L1) @D1[id] @d1[vd] @d1[p] @I1[c] @i1[p] i(E1) i(F1) i(G1) i(H1)
.save i(N1) v(b) i(RA) @RB[1][p] v(a,b) @D2[id] i(C1) @R1[v]
"""


@needs_ngspice
def test_saved_values_of_flat_decks() -> None:
    circuit = cs.parse(SAVES)
    text = flat(circuit)
    lost = "* .save, of which ngspice knows nothing: i(RA[0]) i(RA[1]) @RB[1][p] v(a,b) @D2[id] i(C1) @R1[v]\n"
    assert lost in text
    names = [name for line in text.splitlines() if line.startswith(".save") for name in line.split()[1:]]
    assert names.pop(0) == "all"
    [plot] = run_ngspice(text, options=tight_options(GMIN)).plots
    known = {name.removeprefix("i(").removeprefix("v(").removesuffix(")"): name for name, _ in plot.variables}
    found = [plot.column(known[name.lower().removeprefix("i(").removesuffix(")")])[0] for name in names]
    saved = Saved(cs.solve(circuit, PRECISE), wanted_saves(circuit, ()))
    wanted = dict(zip(saved.labels, saved.values()[0].tolist(), strict=True))
    kept = [label for label in saved.labels if label not in lost.split() and label != "v(b)"]
    assert len(kept) == len(names) == 18
    np.testing.assert_allclose(found, [wanted[label] for label in kept], rtol=1e-5, atol=1e-12)


def test_everything_is_saved_by_name_where_that_is_not_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    deck = "t\nV1 a 0 1\nR1 a 0 1k\n.save all\n"
    [card] = [line for line in flat(cs.parse(deck)).splitlines() if line.startswith(".save")]
    assert card.split()[:2] == [".save", "all"] and {*card.split()[2:]} == {"i(V1)", "@R1[i]", "@V1[p]", "@R1[p]"}
    monkeypatch.setattr("circuitsim.spice.flatten._MOST_SAVES", 2)
    assert "* .save, of which ngspice knows nothing: all\n" in flat(cs.parse(deck))
    assert ".save" not in flat(cs.parse("t\nV1 a 0 1\nR1 a 0 1k\n"))
