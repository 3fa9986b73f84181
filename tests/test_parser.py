"""What a netlist means: each rule of the language, and plain cards read the fast way or the general way alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim.errors import NetlistError
from circuitsim.netlist import ArrayRef, Netlist, Options, parse_netlist, read_netlist
from circuitsim.netlist.expand import Changes, expand
from circuitsim.netlist.revalue import Revaluer
from circuitsim.netlist.source import read_bytes, read_text
from circuitsim.spice.ngspice import ngspice_available, operating_point

VALID = sorted((Path(__file__).parent.parent / "netlists" / "valid").glob("*.cir"))
VALUE_COLUMN = {"R": "r", "V": "v", "I": "i"}
MINUS = (
    "a minus after an operator belongs to what follows it, as in 2*(-x); ngspice-39 gives it to the next number, if "
    "there is one; write parentheses"
)


def deck(*lines: str) -> Netlist:
    """A netlist of these lines, after a title."""
    return parse_netlist("\n".join(["title", *lines]))


def values(netlist: Netlist, kind: str = "R") -> dict[str, float]:
    table = netlist.tables[kind]
    return dict(zip(table.names, table.values[VALUE_COLUMN[kind]].tolist(), strict=True))


def ends(netlist: Netlist) -> dict[str, tuple[str, str]]:
    """Name -> node names, of all elements."""
    return {
        name: (netlist.nodes[a], netlist.nodes[b])
        for table in netlist.tables.values()
        for name, a, b in zip(table.names, table.a.tolist(), table.b.tolist(), strict=True)
    }


def one(*lines: str) -> float:
    """The resistance of R1 among these lines."""
    return values(deck(*lines))["R1"]


def notes(*lines: str) -> list[tuple[int, str]]:
    return [(at.line, text) for at, text in deck(*lines).notes]


# ---- text ------------------------------------------------------------------------------------------------------------


def test_title_is_the_first_line_whatever_it_says() -> None:
    netlist = parse_netlist("R1 a 0 1k\nR2 a 0 2k\n")
    assert netlist.title == "R1 a 0 1k"
    assert netlist.tables["R"].names == ["R2"]
    assert deck("R1 a 0 1", ".title  another one ").title == "another one"
    assert deck("R1 a 0 1", ".title").title == ""


@pytest.mark.parametrize(
    "text",
    [
        "R1 a 0 1k",
        "  R1\ta  0\t1k  ",
        "r1 A 0 1K",
        "R1 a,0,1k",
        "R1 (a 0) 1k",
        "R1 a 0 1k ; comment",
        "R1 a 0 1k // comment",
        "R1 a 0 1k $ comment",
        "R1 a 0 1k,$ comment",
        "R1 a\n+ 0 1k",
        "R1 a ; one\n* two\n\n   + 0 $ three\n+ 1k",
        "R1 a 0 \\\\\n1k",
        "R1 a 0 r=1k",
        "R1 a 0 R = 1k",
        "R1 a 0 resistance=1k",
        "R1 a 0 r 1k",
        "R1 a 0 g=1m",
        "R1 a 0 {1k}",
        "R1 a 0 '1k'",
        "R1 a 0 { 2 * 0.5k }",
        "R1 a 0 {2*{0.5k}}",
        "R1 a 0 1000ohm",
        "R1 a 0 1kOhm",
        "R1 a 0 1e3",
        "R1 a 0 1d3",
        "R1 a 0 .001Meg",
        "R1 a GND 1k",
        "\ufeff* byte order mark\nR1 a 0 1k",
        "R1 a 0 1k\r",
    ],
)
def test_ways_to_write_one_resistor(text: str) -> None:
    netlist = deck(text) if text[0] != "\ufeff" else parse_netlist(text)
    assert {name.lower(): r for name, r in values(netlist).items()} == {"r1": 1000.0}
    assert {name.lower() for name in netlist.nodes} == {"0", "a"}


@pytest.mark.parametrize(
    ("card", "model", "ohms"),
    [
        ("m temp=37", "tc1=2m r=1k", 1020.0),
        ("m temp=37", "tc=2m res=1k", 1020.0),
        ("1k m temp=37", "tc1r=2m tc2r=1m", 1120.0),
        ("m w=2u l=10u", "rsh=100 narrow=0.1u", 1e-3 / 1.8e-6),
        ("m w=2u l=10u", "rsh=100 dw=0.1u narrow=0.1u", 1e-3 / 1.8e-6),
        ("m", "rsh=100 defw=1u l=10u dlr=1u", 800.0),
        ("1k tc=2m tc1=2m temp=37", "", 1020.0),
        ("r=1k resistance=2k", "", "resistor R1: R and RESISTANCE are two names of one parameter, and have different"),
        ("1k tc=1m tc1=2m", "", "resistor R1: TC and TC1 are two names of one parameter"),
        ("m", "res=7 r=5", "model m: RES and R are two names of one parameter"),
        ("m", "rsh=1 w=1u defw=2u", "model m: W and DEFW are two names"),
    ],
)
def test_two_names_of_one_parameter(card: str, model: str, ohms: float | str) -> None:
    text = f"R1 a 0 {card}\n" + (f".model m r({model})\n" if model else "")
    if isinstance(ohms, float):
        assert values(deck(text))["R1"] == pytest.approx(ohms, rel=1e-12)
        return
    with pytest.raises(NetlistError, match=ohms):
        deck(text)


@pytest.mark.parametrize(
    "cards",
    [
        ["R2 b 0 1k m=n*2"],
        ["R2 b 0 r=n*1k"],
        ["R2 b 0 r=n*.5k"],
        ["R2 b 0 1k tc1=n*1m temp=n*60"],
        ["R2 b 0 1k m=-n+4"],
        ["R2 b 0 1k m=n^2"],
        ["R2 b 0 r=n>1?1k:2k"],
        ["I2 0 b dc=n*1m", "R2 b 0 1k"],
        ["V3 d 0 dc=n*2", "R2 b d 1k"],
        ["D1 b 0 dd area=n*2", ".model dd d is=iss*2"],
        ["G2 b 0 b 0 gain=n*1m"],
        ["G2 b 0 b 0 1m m=n*1"],
        ["I2 0 b 1m m 2", "R2 b 0 1k"],
        ["I2 0 b dc 1m m 2", "R2 b 0 1k"],
        ["I2 0 b m 2 dc 1m", "R2 b 0 1k"],
        ["R2 b 0 1k bv_max=3"],
    ],
)
def test_values_as_ngspice_reads_them(cards: list[str]) -> None:
    """Behind `key=` an expression needs no braces."""
    before = ["t", ".param n=2 iss=1e-14", ".options gmin=1e-12", "V1 a 0 1", "R1 a b 1k"]
    text = "\n".join([*before, *cards, ".op", ".end"])
    found = cs.parse(text)
    assert not found.notes
    if ngspice_available():
        assert cs.solve(found).voltage("b")[0] == pytest.approx(operating_point(text)["b"], rel=1e-5)


@pytest.mark.parametrize("card", ["R2 b 0 r=4k-7", "R2 b 0 r=1k||2k", "R2 b 0 1k m=2*n", "V2 b 0 dc=2-1"])
def test_sums_that_begin_with_a_number_need_braces(card: str) -> None:
    """ngspice reads the number at their start, or none."""
    with pytest.raises(NetlistError, match=r"is not a number; write digits .* or an \{expression\}"):
        deck(".param n=2", card)


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize(
    ("words", "ohm", "remarks"),
    [
        ("1kmod", 1e3, 0),
        ("1kmod temp=127", 1e3, 0),
        ("1kmod 2k", 2e3, 0),
        ("2k 1kmod", 2e3, 0),
        ("1k_mod", 3e3, 1),
    ],
)
def test_a_number_that_is_the_name_of_a_model(words: str, ohm: float, remarks: int, general: bool) -> None:
    cards = ["V1 a 0 1", f"R1 a 0 {words}", f".model {words.split()[-(words[0] == '2')]} r(r=3k tc1=1m)", ".op", ".end"]
    text = "\n".join(["t", *cards])
    netlist = expand(read_text(text.encode(), "t", plain_allowed=not general), "t")
    assert values(netlist) == {"R1": ohm}
    remark = "resistor R1: '1k_mod' is a model; ngspice-39 takes the number at its start for the value"
    assert [text for _, text in netlist.notes] == [remark] * remarks
    if ngspice_available():
        assert operating_point(text)["i(v1)"] == pytest.approx(-1e-3 if remarks else -1 / ohm)


def test_quotes_hide_comments(tmp_path: Path) -> None:
    (tmp_path / "a;b.inc").write_text("R2 a 0 2k\n")
    (tmp_path / "deck.cir").write_text('title\nR1 a 0 1k\n.include "a;b.inc" ; comment\n')
    assert values(read_netlist(tmp_path / "deck.cir")) == {"R1": 1000.0, "R2": 2000.0}


@pytest.mark.parametrize(
    "node", ["node-1.a", "net[3]", "n_1/x+y", "2n", "a#b", "bus[3:0]", "00", "gnd!", "n$1", "\u00e9"]
)
def test_node_names_are_any_text(node: str) -> None:
    assert ends(deck(f"R1 {node} 0 1k"))["R1"] == (node, "0")
    assert ends(deck(f"R1 {node} 0 r=1k"))["R1"] == (node, "0")


def test_names_keep_their_spelling_but_not_their_case() -> None:
    netlist = deck("V1 In 0 1", "Rload IN Out 1k", "r2 OUT gnd 1k")
    assert netlist.nodes == ["0", "In", "Out"]
    assert netlist.tables["R"].names == ["Rload", "r2"]
    assert (netlist.node("OUT"), netlist.node("GND"), netlist.has_node("out"), netlist.has_node("q")) == (
        2,
        0,
        True,
        False,
    )
    with pytest.raises(NetlistError, match="no node 'ouf' in netlist; nodes are out"):
        netlist.node("ouf")


@pytest.mark.parametrize("general", [False, True])
def test_nodes_and_elements_are_in_order_of_appearance(general: bool) -> None:
    r = "r=1k" if general else "1k"
    netlist = deck(
        f"R1 d c {r}",
        ".subckt s p q",
        "R1 q m 1",
        "R2 p m 1",
        ".ends",
        "C1 b d 1u",
        "X1 a c s",
        f"R2 e f {r}",
        "R3 f 0 1",
    )
    assert netlist.nodes == ["0", "d", "c", "b", "X1.m", "a", "e", "f"]
    assert netlist.tables["R"].names == ["R1", "R.X1.R1", "R.X1.R2", "R2", "R3"]


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "ohm"),
    [
        ("R1 a 0 1k m=4", 250.0),
        ("R1 a 0 1k scale=3", 3000.0),
        ("R1 a 0 1k tc1=1m tc2=10u dtemp=10", 1011.0),
        ("R1 a 0 1k tc 2m temp 37", 1020.0),
        ("R1 a 0 1k tc1=1m temp=37 dtemp=10", 1010.0),
        ("R1 a 0 1k tce=100 dtemp=1", 1000.0 * 1.01**100),
        ("R1 a 0 1k ac=5k noisy=0", 1000.0),
        ("R1 a 0 film 1k", 1000.0),
        ("R1 a 0 1k film temp=37", 1010.0),
        ("R1 a 0 film l=20u w=4u", 100.0),
        ("R1 a 0 film", 10.0 * 10 / 8),
        ("R1 a 0 fixed", 3000.0),
        ("R1 a 0 x", 2000.0),
        ("R1 a 0 {x > 1k ? y : 0}", 7.0),
        ("R1 a 0 0", 0.0),
        ("R1 a 0 inf", np.inf),
        ("R1 a 0 g=0", np.inf),
        ("R1 a 0 g=-0", np.inf),
        ("R1 a 0 1k m=0", np.inf),
    ],
)
def test_resistances(card: str, ohm: float) -> None:
    models = [".model film RES(rsh=10 narrow=1u tc1=1m)", ".model fixed R r=3k", ".param x = {2*k1} y=7 k1='1k'"]
    np.testing.assert_allclose(one(card, *models), ohm, rtol=1e-14)


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("5", 5.0),
        ("DC 5", 5.0),
        ("dc=5", 5.0),
        ("", 0.0),
        ("AC 1", 0.0),
        ("AC 1 90 DC 5", 5.0),
        ("5 AC 1", 5.0),
        ("SIN(1 2 1k)", 1.0),
        ("SIN(1 2 1k 0 0 90)", 3.0),
        ("SIN 1 2 1k DC 5", 5.0),
        ("DC SIN(1 2 1k)", 1.0),
        ("0 PULSE(1 2)", 0.0),
        ("PULSE(1 2 0 1n)", 1.0),
        ("EXP(1 2)", 1.0),
        ("SFFM(1 2 1k 3 4k)", 1.0),
        ("SFFM(1 2 1k 3 4k 30)", 2.0),  # 1 + 2 sin 30
        ("SFFM(1 2 1k 1.5707963267948966 4k 0 90)", 3.0),  # 1 + 2 sin(pi/2 sin 90)
        ("AM(1 2 1k 4k)", 0.0),
        ("PWL(1m 3 2m 4)", 3.0),
        ("PWL(-1m 3 1m 4)", 3.5),
        ("PWL(-2m 3 -1m 4)", 4.0),
        ("PWL(-1 3 0 4 0 5 1 6)", 4.0),  # at a step
        ("PWL(0 4 0 5 1 6)", 4.0),
        ("PWL(-4m 1 -2m 2 0 5 1m 6) td=1m", 3.5),
        ("PWL(-1m 3 1m 4) td=0.5m", 3.25),
        ("DC 5 SIN(1 2 1k -1m)", 5.0),
        ("TRNOISE(20n 0.5n 0 0)", 0.0),
        ("TRRANDOM(2 10m 0 1 5)", 5.0),
        ("{2*u}", 6.0),
        ("u", 3.0),
        ("PULSE(u {u+1})", 3.0),
        ("5 z0 50", 5.0),
        ("SINE(1 2 1k)", 1.0),
        ("3 ac=1 90", 3.0),
        ("ac=1 90", 0.0),  # 90 is the phase
        ("ac=1 dc=3", 3.0),
    ],
)
def test_source_values(words: str, value: float) -> None:
    for kind in "VI":
        netlist = deck(f"{kind}1 a 0 {words}", "R1 a 0 1k", ".param u=3")
        assert values(netlist, kind) == {f"{kind}1": value}


@pytest.mark.parametrize(
    "words", ["SIN(1 2 1k -1m)", "PULSE(1 2 -1m)", "EXP(1 2 -1m 1m 5m)", "AM(1 2 1k 4k -1m)", "PWL(0 1 1 2) td=-1m"]
)
def test_waveforms_that_begin_before_zero_need_a_dc_value(words: str) -> None:
    assert values(deck(f"V1 a 0 DC 7 {words}", "R1 a 0 1k"), "V") == {"V1": 7.0}
    with pytest.raises(NetlistError, match="with a negative delay its waveform begins before t = 0"):
        deck(f"V1 a 0 {words}", "R1 a 0 1k")


@pytest.mark.parametrize("words", ["ac 1 90 4", "ac=1 90 4", "distof1 1 2 4", "portnum 1 z0 50 4"])
def test_numbers_too_many_behind_words_about_ac_are_refused(words: str) -> None:
    """As in ngspice; else a DC value that stands there would vanish."""
    with pytest.raises(NetlistError, match=r"takes no more than .* found '4' as well; write a DC value as DC=4"):
        deck(f"V1 a 0 {words}", "R1 a 0 1k")
    if words[0] == "a":
        with pytest.raises(NetlistError, match="; remove it"):
            deck(f"V1 a 0 5 {words}", "R1 a 0 1k")


def test_ltspice_s_ratings_and_sound_files_do_not_matter() -> None:
    assert one("R1 a 0 1k tol=1 pwr=0.1") == 1e3
    skipped = ".wave is skipped: only the DC operating point is solved"
    assert notes("V1 a 0 1", "R1 a 0 1k", '.wave "x.wav" 16 44100 v(a)') == [(4, skipped)]


@pytest.mark.parametrize(
    "given",
    [
        "IKF=0",
        "isr=0 nr=2",
        "nr=2",
        "vj=-1 m=7 tm1=1m",
        "TRS1=0 tbv1=0",
        "trs=1m tcv=1m tnom=27",
        "jsw=0 ns=1.5",
        "keg=1 xtitun=3",
    ],
)
def test_parameters_that_are_off_change_nothing(given: str) -> None:
    plain, off = (
        cs.solve(cs.parse(f"t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 d\n.model d D(is=1p {extra})")).voltage("b")
        for extra in ("", given)
    )
    assert plain == off


@pytest.mark.parametrize(
    "given", ["jsw=1p ns=2", "ikr=1m", "isr=1p tm1=1m", "area=0", "jtun=1p keg=1", "temp=80", "dtemp=0"]
)
def test_parameters_that_change_dc_are_refused(given: str) -> None:
    with pytest.raises(NetlistError, match="changes DC and is not supported"):
        cs.parse(f"t\nV1 a 0 2\nR1 a b 1k\nD1 b 0 d\n.model d D(is=1p {given})")


@pytest.mark.parametrize("given", ["temp=77", "dtemp=50", "scale=3"])
def test_what_ngspice_s_resistor_models_hand_to_their_elements_is_refused(given: str) -> None:
    with pytest.raises(NetlistError, match="belongs to resistors, not to their model"):
        deck("V1 a 0 1", "R1 a 0 rm 1k", f".model rm R(tc1=1m {given})")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["R1 a b = 1k"],
         "resistor R1: needs two nodes, found 1 and 'b = 1k'; write R1 n1 n2 ..., without = before a value"),
        (["V1 d 0 = 3"],
         "voltage source V1: needs two nodes, found 1 and '0 = 3'; write V1 n1 n2 ..., without = before a value"),
        (['R1 a b "1k"'], "resistor R1: resistance '\"1k\"' is not a number; remove the quotes"),
        (['R1 a b r="1k"'], "resistor R1: r '\"1k\"' is not a number; remove the quotes"),
        (["D1 a 0 d", ".model d D({1e-14})"], "model d: value '{1e-14}' without a name; write NAME=VALUE"),
        (["R1 a 0 1", '.param a="2k"'],
         "parameter 'a': expression '\"2k\"': unexpected '\"' (character 1); remove the quotes"),
        (["R1 a 0 1", ".if (1)", ".else if (0)", ".endif"], ".else takes no condition; write .elseif (a == 1)"),
        (["V1 a 0 pulse(k*2,g)", ".param k=1 g=2"],
         "voltage source V1: PULSE needs its parameters, found 0 numbers, then 'k*2' (an expression needs braces); "
         "complete them"),
        (["V1 a 0 1 Rser=50"], "voltage source V1: Rser = 50 is not supported; write it as a resistor in series"),
        (["V1 b 0 1", "G1 a 0 value={8.2}"],
         "voltage-controlled current source G1: its VALUE depends on no voltage and no current; write a source: "
         "IG1 a 0 {8.2}"),
        (["V1 b 0 1", "E1 a 0 b 0 pwl(0,0 1,2)"],
         "voltage-controlled voltage source E1: only linear controlled sources are supported, not PWL; write E1 "
         "n+ n- nc+ nc- GAIN"),
        (["D1 Net-(D1-K) 0 d", ".model d D"],
         "diode D1: parentheses separate words, as in 'Net-(D1-K)'; rename such a node: Net-_D1-K_"),
        (["R1 a 0 1", ".param \u03b1=3"],
         "expected name=value, found '\u03b1=3'; names have no letters beyond ASCII"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_write(lines: list[str], message: str) -> None:
    with pytest.raises(NetlistError) as caught:
        deck(*lines)
    assert caught.value.message == message


def test_parentheses_in_expressions_make_no_names() -> None:
    for value in ("{k-(1)}", "{2*(k-(1)) - k + 1}", "'k-(1) '", "r={ k-(1)}"):
        assert one(f"R1 (a- 0) {value}", ".param k=3") == 2.0


@pytest.mark.parametrize("given", ["area=2", "temp=77", "dtemp=50"])
def test_what_belongs_to_a_diode_is_refused_in_its_model(given: str) -> None:
    with pytest.raises(NetlistError, match="changes DC and is not supported; write it on the diode"):
        cs.parse(f"t\nV1 a 0 1\nD1 a 0 d\n.model d D({given})")


def test_inductors_and_capacitors_without_resistances() -> None:
    assert cs.solve(cs.parse("t\nV1 a 0 1\nL1 a b 1m rser=0\nR1 b 0 2\nC1 a b 1u rpar=inf")).current("L1") == 0.5


def test_ports_that_drive_nothing_are_sources_with_a_warning() -> None:
    cure = "remove portnum, and write z0 as a resistor in series"
    warning = f"voltage source V1: its resistance as an RF port (z0) is ignored; {cure}"
    for port in ("dc 0 portnum 1 z0 50", "0 ac 1 portnum=1 z0=50"):
        assert notes(f"V1 a 0 {port}", "R1 a 0 1k") == [(2, warning)]


def test_multiplier_of_current_sources() -> None:
    assert values(deck(".param m=2", "I1 a 0 m m 3", "I2 a 0 sin(1 m 1k)", "R1 a 0 1"), "I") == {"I1": 6.0, "I2": 1.0}
    assert values(deck("I1 a 0 sin(1 0 1k) m 2", "R1 a 0 1"), "I") == {"I1": 2.0}
    assert values(deck(".param m=2", "I1 a 0 m ac 1", "R1 a 0 1"), "I") == {"I1": 2.0}
    assert values(deck("I1 0 a 1 m=3", "R1 a 0 1"), "I") == {"I1": 3.0}


def test_diodes() -> None:
    netlist = deck(
        ".model one D(IS=1e-13 N 1.5)", ".model two d is 1e-12, tt=1n", "D1 a k one", "D2 a k TWO 3 Off",
        "D3 k 0 one area=2 m=3", "d4 k 0 one temp=77", "D5 k 0 one dtemp=10", "D6 k 0 one off m 2",
        "V1 a 0 1", "R1 k 0 1",
    )  # fmt: skip
    table = netlist.tables["D"]
    assert [(m.name, m.type, dict(m.params)) for m in netlist.models] == [
        ("one", "d", {"is": 1e-13, "n": 1.5}),
        ("two", "d", {"is": 1e-12, "tt": 1e-9}),
    ]
    assert table.values["model"].tolist() == [0, 1, 0, 0, 0, 0]
    assert table.values["area"].tolist() == [1, 3, 2, 1, 1, 1]
    assert table.values["m"].tolist() == [1, 1, 3, 1, 1, 2]
    assert table.values["temp"].tolist() == [27, 27, 27, 77, 37, 27]


def test_model_flags() -> None:
    netlist = deck(".model d1 D(ideal vfwd=0.5)", ".model d2 D ideal", "D1 a 0 d1", "D2 a 0 d2", "I1 0 a 1")
    assert [(m.flags, dict(m.params)) for m in netlist.models] == [({"ideal"}, {"vfwd": 0.5}), ({"ideal"}, {})]


@pytest.mark.parametrize("given", ["foo", "foo=1", "mfg=1", "type=1", "dev=1", "lot=1", "vb=1"])
def test_no_word_in_the_model_of_a_nonlinear_resistor_is_ignored(given: str) -> None:
    name = given.partition("=")[0].upper()
    with pytest.raises(NetlistError, match=f"model m: tanh has no parameter {name}; its parameters are IMAX, V0, G"):
        cs.parse(f"t\nV1 a 0 1\nN1 a 0 m\n.model m tanh(imax=1m {given})")


def test_other_names_of_the_parameters_of_diodes() -> None:
    netlist = deck("D1 a 0 m", "V1 a 0 1", ".model m D(js=1f ib=2m tref=50 ik=3 pb=0.8 mj=0.4 trs=1m)")
    wanted = {"is": 1e-15, "ibv": 2e-3, "tnom": 50, "ikf": 3, "vj": 0.8, "m": 0.4, "trs1": 1e-3}
    assert dict(netlist.models[0].params) == wanted


def test_infinite_parameters_of_models() -> None:
    cards = ["D1 a 0 m", "V1 a 0 1", ".model m D(bv=inf ikf=+inf isr=Infinity)"]
    assert dict(deck(*cards).models[0].params) == {"bv": np.inf, "ikf": np.inf, "isr": np.inf}
    assert deck(*cards, ".param inf=7").models[0].params["bv"] == 7.0


@pytest.mark.parametrize(
    ("card", "fault"),
    [
        ("E1 b 0 a 0 inf", "voltage-controlled voltage source E1: gain inf; it must be finite"),
        ("F1 b 0 V1 inf", "current-controlled current source F1: gain inf; it must be finite"),
        ("G1 b 0 a 0 inf", "voltage-controlled current source G1: gain inf; it must be finite"),
        ("H1 b 0 V1 inf", "current-controlled voltage source H1: gain inf; it must be finite"),
        ("D1 a 0 d area=0", "diode D1: area 0 must be positive and finite"),
        ("D1 a 0 d area=inf", "diode D1: area inf must be positive and finite"),
        ("D1 a 0 d m=-1", "diode D1: m -1 must be positive and finite"),
        ("N1 a 0 n m=0", "nonlinear resistor N1: m 0 must be positive and finite"),
        ("D1 a 0 d temp=-273.15",
         "diode D1: temperature -273.15 C must be above absolute zero, -273.15 C, and finite"),
        ("D1 a 0 d temp=inf", "diode D1: temperature inf C must be above absolute zero, -273.15 C, and finite"),
        ("D1 a 0 d dtemp=-301", "diode D1: temperature -274 C must be above absolute zero, -273.15 C, and finite"),
        ("R2[0:2] a 0 r=-1", "resistor R2[0]: negative resistance -1 ohm; make it 0 or positive, or the equilibrium "
         "may not exist or not be unique"),
    ],
)  # fmt: skip
def test_values_that_no_element_may_have(card: str, fault: str) -> None:
    with pytest.raises(NetlistError) as caught:
        deck("V1 a 0 1", "R1 b 0 1", card, ".model d D", ".model n tanh")
    assert caught.value.message == fault and caught.value.at is not None and caught.value.at.line == 4


def test_inductors_capacitors_and_couplings() -> None:
    netlist = deck("L1 a b 1m ic=2", "C1 b 0 1u", "L2 a c", "C2 c 0 whatever", "K1 L1 L2 0.9", "R1 b c 1", "V1 a 0 1")
    assert netlist.tables["L"].names == ["L1", "L2"]
    assert netlist.tables["C"].names == ["C1", "C2"]


def controls(netlist: Netlist) -> dict[str, tuple[tuple[str, ...], float]]:
    """Name -> (nodes, or the voltage source, that control it; gain), of all controlled sources."""
    found: dict[str, tuple[tuple[str, ...], float]] = {}
    for kind in "EFGH":
        table = netlist.tables[kind]
        names = netlist.nodes if kind in "EG" else netlist.tables["V"].names
        for row, name in enumerate(table.names):
            control = tuple(names[rows[row]] for rows in table.links.values())
            found[name] = control, table.values["gain"][row].item()
    return found


@pytest.mark.parametrize(
    ("card", "control", "gain"),
    [
        ("E1 a 0 b c 2k", ("b", "c"), 2000), ("e1 a,0 (b,c) {k+1}", ("b", "c"), 4),
        ("E1 a 0 VCVS b GND K", ("b", "0"), 3), ("E1 a 0 gain b gain=1", ("gain", "b"), 1),
        ("E1 a 0 b c gain = '-k'", ("b", "c"), -3), ("G1 a 0 b b 0 m=2", ("b", "b"), 0), ("G1 a 0 vccs b c 1m m={k}",
        ("b", "c"), 3e-3), ("G1 a 0 b c m=2 gain=-4", ("b", "c"), -8), ("F1 a 0 vb -2 m=3", ("Vb",), -6),
        ("F1 a 0 (VB) gain={k}", ("Vb",), 3), ("F1 a 0 CCCS Vb[1] 1", ("Vb[1]",), 1),
        ("G1 a 0 b c gain 2 m 3", ("b", "c"), 6),
        ("F1 a 0 Vb m 3 gain 2", ("Vb",), 6), ("E1 a 0 and b 2", ("and", "b"), 2), ("H1 a 0 Vb 1.5k", ("Vb",), 1500),
        ("H1 a 0 ccvs V.X1.V1 gain=2", ("V.X1.V1",), 2), ("F1 a 0 Vol 2", ("Vol",), 2),
    ],
)  # fmt: skip
def test_controlled_sources(card: str, control: tuple[str, ...], gain: float) -> None:
    netlist = deck("R0 z y 1", ".param k=3", card, "R1 b 0 1", "R2 c 0 1", "Vb b 0 1", "Vol c 0 1", "Vb[1] c 0 1",
                   "X1 b s", ".subckt s p", "V1 p 0 1", ".ends")  # fmt: skip
    name = card[:2]
    found = controls(netlist)[name]
    assert found == (control, pytest.approx(gain, rel=1e-15))
    assert ends(netlist)[name] == ("a", "0")


def test_controlled_sources_in_instances() -> None:
    netlist = deck(".subckt s p q k=2", "F1 q 0 v1 {k}", "V1 p i 0", "E1 o 0 i gnd {k}", "X1 o i t m=5", ".ends",
                   ".subckt t u w", "V1 u w 0", "H1 z 0 V1 10", "G1 z 0 u w 1", "F1 z 0 V1 1", "E1 y 0 u w 1", ".ends",
                   "X1 a b s k=7", "V1 a 0 1", "R1 b 0 1")  # fmt: skip
    assert controls(netlist) == {
        "E.X1.E1": (("X1.i", "0"), 7), "F.X1.F1": (("V.X1.V1",), 7), "E.X1.X1.E1": (("X1.o", "X1.i"), 1),
        "F.X1.X1.F1": (("V.X1.X1.V1",), 1), "G.X1.X1.G1": (("X1.o", "X1.i"), 5), "H.X1.X1.H1": (("V.X1.X1.V1",), 2),
    }  # fmt: skip
    assert netlist.nodes == ["0", "b", "a", "X1.i", "X1.o", "X1.X1.z", "X1.X1.y"]


def test_arrays_of_controlled_sources(tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", np.array([1.0, -2.0]))
    path = tmp_path / "deck.cir"
    path.write_text("""t
F[0:1] q[0:1] 0 Vx[8:7] @g.npy
V0 x[7] 0 1
Vx[7:8] x[7:8] 0 1
E[0:1] y[1:0] c x[7:8] 0 {2+1}
G[3:2] y[0] y[1] c y[0:1] gain=@g.npy m=2
H[0:0] z 0 Vx[8] 3
""")
    netlist = read_netlist(path)
    assert controls(netlist) == {
        "F[0]": (("Vx[8]",), 1), "F[1]": (("Vx[7]",), -2), "E[0]": (("x[7]", "0"), 3), "E[1]": (("x[8]", "0"), 3),
        "G[3]": (("c", "y[0]"), 2), "G[2]": (("c", "y[1]"), -4), "H[0]": (("Vx[8]",), 3),
    }  # fmt: skip
    assert netlist.nodes == ["0", "q[0]", "q[1]", "x[7]", "x[8]", "y[1]", "y[0]", "c", "z"]
    assert netlist.arrays["e"] == ArrayRef("E", 0, 2, (range(2),))


# ---- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_in_any_order() -> None:
    assert one("R1 a 0 {c}", ".param c={a+b}, b = '2*a' a=1k") == 3000.0
    assert one("R1 a 0 c", ".param c={d}+{e} d=1 e=2", ".param d=5") == 7.0  # the last definition counts
    assert one("R1 a 0 {f(2, k)}", ".func f(x, y) {x*y + z}", ".param k=1k z=1") == 2001.0
    assert one("R1 a 0 {1k*(1 + temper/100)}", ".temp 50") == 1500.0
    assert one("R1 a 0 c", ".param c={a = 1 ? 2k : 3k} a=1") == 2000.0


def test_long_chains_of_parameters() -> None:
    chain = [f".param p{k}={{p{k + 1}+1}}" for k in range(5000)]
    assert one("R1 a 0 {p0}", *chain, ".param p5000=1k") == 6000.0


def test_random_draws_depend_on_the_seed_and_not_on_the_order_of_use() -> None:
    first = values(deck("R1 a 0 x", "R2 a 0 y", ".param x={aunif(5, 1)} y={aunif(5, 1)}"))
    other = values(deck("R2 a 0 y", "R1 a 0 x", ".param x={aunif(5, 1)} y={aunif(5, 1)}"))
    assert first == other
    assert first["R1"] != first["R2"]
    seeded = values(deck("R1 a 0 x", "R2 a 0 y", ".param x={aunif(5, 1)} y={aunif(5, 1)}", ".options seed=3"))
    assert seeded != first


SHARED = "parameter {} is drawn once, and what uses it shares the draw; ngspice draws anew at each use"
DRAWN_CELL = ".subckt cell a b r={agauss(5, 1, 1)}\nR1 a b {r}\n.ends"


@pytest.mark.parametrize(
    ("cards", "line", "name"),
    [
        (["R1 a 0 {p}", "R2 a 0 p", ".param p=agauss(5, 1, 1)"], 4, "p"),
        (["R1 a 0 {p+p}", ".param p={max(1, Unif (5, 0.1))}"], 3, "p"),
        (["R1 a 0 {q}", "R2 a 0 {p}", ".param q={2*p} p={limit(5, 1)}"], 4, "p"),
        ([".param p=aunif(5, 1)", "X1 a s", "X2 a s", ".subckt s a", "R1 a 0 {p}", ".ends"], 2, "p"),
        (["X1 a 0 cell", DRAWN_CELL.replace("{r}", "{r} m={r}")], 3, "r"),
        (["R[0:1] a 0 {p}", ".param p=agauss(5, 1, 1)"], 3, "p"),
        (["R[0:1][0:1] a[0:1] b[0:1] 1 m={2*p}", ".param p=agauss(5, 1, 1)"], 3, "p"),
        (["X[0:1] a 0 cell r=p", DRAWN_CELL, ".param p=unif(5, 0.1)"], 6, "p"),
        (["X[0:1] a 0 cell r=3", "R[7:7] a 0 {p}", DRAWN_CELL, ".param p=unif(5, 0.1)"], 0, ""),
        (["R1 a 0 p", ".param p=agauss(5, 1, 1)"], 0, ""),
        (["R1 a 0 q", "R2 a 0 q", ".param p=agauss(5, 1, 1) q={p}"], 0, ""),  # ngspice draws once for q, too
        (["X1 a 0 cell", "X2 a 0 cell", DRAWN_CELL], 0, ""),
        (["X1 a 0 cell r=3", "X2 a 0 cell r=3", DRAWN_CELL.replace("{r}", "{r} m={r}")], 0, ""),
        (["R1 a 0 {f()}", "R2 a 0 {f()}", ".func f() {aunif(5, 1)}"], 0, ""),
        (["R1 a 0 {p+p}", ".param p={limit(5, 1)}", ".func limit(x, a) {min(x, a)}"], 0, ""),
    ],
)
def test_a_draw_that_several_share_is_remarked_upon(cards: list[str], line: int, name: str) -> None:
    """ngspice-39 draws for R1 and R2 apart, and twice in {p+p}."""
    found = [(at.line, text) for at, text in deck(*cards).notes if at and "drawn once" in text]
    assert [at for at, _ in found] == [line] * bool(line)
    assert all(text.startswith(SHARED.format(name)) for _, text in found)


@pytest.mark.parametrize(
    ("cards", "line"),
    [
        (["R1 a 0 {1 + Gauss( 0, 0.1, 1)}"], 2),
        ([".param p={unif(0.0, 1)}", "R1 a 0 {1+p}"], 2),
        (["X1 a s r={5 + unif(0, 1)}", ".subckt s p r=1", "R1 p 0 {r}", ".ends"], 2),
        (["R1 a 0 {1 + aunif(0, 0.1) + gauss(1, 0, 1)}"], 0),
        (["R1 a 0 {1 + unif(0, 0.1)}", ".func unif(m, a) {aunif(m, a)}"], 0),
    ],
)
def test_spreads_relative_to_a_mean_of_0_are_remarked_upon(cards: list[str], line: int) -> None:
    found = [(at, text) for at, text in notes("V1 a 0 1", *cards) if "draws nothing" in text]
    assert [at - 1 for at, _ in found] == [line] * bool(line)
    for _, text in found:
        assert re.search(
            r"(gauss|unif)\(0, ...\) draws nothing, as its spread is relative to its mean; write a\1\(", text
        )


def test_a_value_of_an_x_card_in_place_of_a_draw_is_remarked_upon() -> None:
    """ngspice-39 draws R1 all the same."""
    remark = "parameter r has the value that an X card gives; ngspice draws it all the same"
    netlist = deck("X1 a 0 cell r=3", "X2 a 0 cell r=4", DRAWN_CELL)
    assert values(netlist) == {"R.X1.R1": 3.0, "R.X2.R1": 4.0}
    assert [text for at, text in netlist.notes if at and at.line == 4] == [remark]
    assert not any("X card gives" in text for _, text in deck("X1 a 0 cell", DRAWN_CELL).notes)
    assert not any(
        "X card gives" in text for _, text in deck("X1 a 0 cell r=3", DRAWN_CELL.replace("agauss", "max")).notes
    )


def test_elements_share_the_draw_of_a_parameter_and_have_their_own_in_each_instance() -> None:
    found = values(deck("R1 a 0 {p}", "R2 a 0 p", ".param p=agauss(5, 1, 1)"))
    assert found["R1"] == found["R2"]
    cells = values(deck("X1 a 0 cell", "X2 a 0 cell", DRAWN_CELL.replace("R1 a b {r}", "R1 a b {r}\nR2 a b {r}")))
    assert cells["R.X1.R1"] == cells["R.X1.R2"] != cells["R.X2.R1"]


@pytest.mark.parametrize(
    "card",
    [
        "B1 a b I=1e-6*sinh(v(a,b)/0.2)",
        "G1 a b cur={1u*v(a,b)}",
        "G1 a b table {v(a,b)} = (0,0)",
        "R1 a b {1k*(1+v(a,b))}",
    ],
)
def test_formulas_of_a_voltage_are_errors_that_name_the_nonlinear_resistor(card: str) -> None:
    with pytest.raises(NetlistError, match=r"netlist:2: .* N n\+ n- NAME, with .model NAME sinh, tanh or pwl"):
        deck(card)
    cure = deck("N1 a b sel", ".model sel sinh(i0=1u v0=0.2)", "V1 a b 1")
    assert len(cure.tables["N"]) == 1


def test_options() -> None:
    netlist = deck("R1 a 0 1", ".param t=50", ".options temp=10 tnom={t} GMIN=1p rshunt=1g seed=4 scale=2", ".temp 60")
    o = netlist.options
    assert (o.temp, o.tnom, o.gmin, o.rshunt, o.seed, o.scale) == (60.0, 50.0, 1e-12, 1e9, 4, 2.0)
    assert deck("R1 a 0 1", ".temp 60", ".options temp=10").options.temp == 60.0
    assert deck("R1 a 0 1", ".subckt s p", ".options temp=10", "R1 p 0 1", ".ends").options.temp == 10.0
    assert deck("R1 a 0 1", ".options temp=10", ".option temp=20").options.temp == 20.0
    assert deck("R1 a 0 1", ".param hot=80", ".temp HOT").options.temp == 80.0
    assert deck("R1 a 0 1", ".temp = 45").options.temp == 45.0
    assert deck("R1 a 0 1", ".options SaveCurrents").saves == ("alli",)
    assert deck("R1 a 0 1").options == Options()
    assert Options() == Options(temp=27.0, tnom=27.0, gmin=0.0, rshunt=np.inf, scale=1.0, seed=0)


@pytest.mark.parametrize(
    ("words", "card", "ohm"),
    [
        ("rm 1k dtemp=10", ".model rm R(tce=1)", 1e3 * 1.01**10),
        ("rm 1k dtemp=10 tc1=2m", ".model rm R(tce=1)", 1e3 * 1.01**10),
        ("1k tc1=1m", ".options tnom=7", 1020.0),
        ("rm 1k", ".model rm R(tc1=1m tnom=7)", 1020.0),
        ("rm 1k tc1=2m", ".model rm R(tc1=1m tc2=1m tnom=17)", 1120.0),
        ("rm l=20u", ".model rm R(r=7 rsh=10)", 20.0),
        ("rm", ".model rm R(r=7 rsh=10)", 10.0),
        ("rm", ".model rm R(rsh=10 l=20u w=10u short=1u narrow=1u)", 10 * 18 / 8),
        ("rm l=20u", ".model rm R(rsh=10 l=10u w=10u dlr=1u)", 18.0),
    ],
)
def test_models_of_resistors_as_ngspice_reads_them(words: str, card: str, ohm: float) -> None:
    cards = ["V1 a 0 1", f"R1 a 0 {words}", card]
    assert values(deck(*cards)) == {"R1": pytest.approx(ohm, rel=1e-13)}
    if ngspice_available():
        assert operating_point("\n".join(["t", *cards, ".op", ".end"]))["i(v1)"] == pytest.approx(-1 / ohm)


def test_scale_acts_on_the_geometry_of_the_element() -> None:
    model = ".model film R(rsh=10 narrow=1u defw=4u)"
    np.testing.assert_allclose(one("R1 a 0 film l=10u", model, ".options scale=2"), 10.0 * 20 / 2)
    np.testing.assert_allclose(one("R1 a 0 film l=10u w=3u", model, ".options scale=2"), 10.0 * 20 / 4)


# ---- subcircuits -----------------------------------------------------------------------------------------------------

CELL = [".subckt cell p q r=1k", "R1 p m {r}", "V1 m q 0", ".ends"]


def test_names_inside_instances() -> None:
    netlist = deck(*CELL, "X1 a 0 cell", "xB a 0 cell r=2k", "I1 0 a 1m")
    assert values(netlist) == {"R.X1.R1": 1000.0, "R.xB.R1": 2000.0}
    assert netlist.tables["V"].names == ["V.X1.V1", "V.xB.V1"]
    assert netlist.nodes == ["0", "a", "X1.m", "xB.m"]
    nested = deck(*CELL, ".macro pair a b", "X1 a m cell", "X2 m b cell", ".eom", "Xp in 0 pair", "I1 0 in 1m")
    assert ends(nested)["R.Xp.X2.R1"] == ("Xp.m", "Xp.X2.m")
    assert nested.node("XP.x2.M") == 4


def test_parameters_of_instances() -> None:
    cell = [".subckt cell p params: r=1k s={2*r}", "R1 p 0 {r}", "R2 p 0 {s + t}", ".param t=5", ".ends"]
    assert values(deck(*cell, "X1 a cell", "X2 a cell PARAMS: r={k*2} s=3", "X3 a cell r=k*2", ".param k=5 t=100")) == {
        "R.X1.R1": 1000.0, "R.X1.R2": 2005.0, "R.X2.R1": 10.0, "R.X2.R2": 8.0, "R.X3.R1": 10.0, "R.X3.R2": 25.0,
    }  # fmt: skip
    for call in ("X1 a cell (params: r=2 s=4)", "X1 a cell,params:r=2 s=4"):
        assert values(deck(*cell, call)) == {"R.X1.R1": 2.0, "R.X1.R2": 9.0}


def test_definitions_inside_name_parameters_outside() -> None:
    """Also those that no card has used before; u of the inner u is that outside."""
    cell = [".subckt cell p s={t+1}", ".param u={2*u}", ".param v={u+s}", "R1 p 0 {v}", ".ends"]
    assert values(deck(*cell, "X1 a cell", ".param t={u*10}", ".param u=3")) == {"R.X1.R1": 37.0}


def test_names_are_looked_up_where_the_instance_stands() -> None:
    inner = [".subckt inner p", "R1 p 0 {r}", ".ends"]
    outer = [".subckt outer p r=1k", "X1 p inner", ".ends"]
    assert values(deck(*inner, *outer, "X1 a outer r=3k", ".param r=7k", "X2 a inner")) == {
        "R.X1.X1.R1": 3000.0,
        "R.X2.R1": 7000.0,
    }


def test_nested_definitions_hide_outer_ones() -> None:
    netlist = deck(
        ".subckt load p", "R1 p 0 1k", ".ends", ".model dm D(IS=1e-12)", ".func f(x) {x}",
        ".subckt outer p", ".subckt load p", "R1 p 0 {f(2k)}", ".ends", ".model dm D(IS=1e-9)", ".func f(x) {10*x}",
        "X1 p load", "D1 p 0 dm", ".ends", "X1 a outer", "X2 a load", "D1 a 0 dm", "R1 a 0 {f(1)}",
    )  # fmt: skip
    assert values(netlist) == {"R.X1.X1.R1": 20_000.0, "R.X2.R1": 1000.0, "R1": 1.0}
    models = {
        name: netlist.models[int(row)].params["is"]
        for name, row in zip(netlist.tables["D"].names, netlist.tables["D"].values["model"], strict=True)
    }
    assert models == {"D.X1.D1": 1e-9, "D1": 1e-12}


def test_models_with_parameters_of_the_instance() -> None:
    cell = [".subckt cell p s=1e-14", ".model dm D(IS={s})", "D1 p 0 dm", "D2 p 0 dm", ".ends"]
    netlist = deck(*cell, "X1 a cell", "X2 a cell s=1e-12", "I1 0 a 1")
    assert [m.params["is"] for m in netlist.models] == [1e-14, 1e-12]
    assert netlist.tables["D"].values["model"].tolist() == [0, 0, 1, 1]


def test_multiplier_of_instances() -> None:
    cell = [".subckt cell p", "R1 p 0 1k", "I1 p 0 1m", ".model dm D", "D1 p 0 dm 2", "D2 p 0 dm m=2", "N1 p 0 nm",
            "N2 p 0 nm m=4", ".model nm tanh", ".ends"]  # fmt: skip
    netlist = deck(*cell, ".subckt two p", "X1 p cell m=2", ".ends", "X1 a two m=3")
    assert values(netlist) == {"R.X1.X1.R1": 1000.0 / 6}
    np.testing.assert_allclose(values(netlist, "I")["I.X1.X1.I1"], 6e-3)
    assert netlist.tables["D"].values["area"].tolist() == [2.0, 1.0]
    assert netlist.tables["D"].values["m"].tolist() == [6.0, 12.0]
    assert netlist.tables["N"].values["m"].tolist() == [6.0, 24.0]
    assert values(deck(".subckt off p", "R1 p 0 1k", ".ends", "X1 a off m=0", "R1 a 0 1")) == {
        "R.X1.R1": np.inf,
        "R1": 1.0,
    }
    own = [".subckt cell p m=1", "R1 p 0 {1k*m}", ".ends"]  # a parameter of that name is no multiplier
    assert values(deck(*own, "X1 a cell m=3")) == {"R.X1.R1": 3000.0}
    assert values(deck(*own, "X1 a cell m=3", "X2 a cell")) == {"R.X1.R1": 3000.0, "R.X2.R1": 1000.0}


def test_expressions_see_the_multiplier_of_their_instance() -> None:
    """As in ngspice: where one X card gives it, it is 1 in other instances, or that of the instance around them."""
    cell = [".param m=4", ".subckt cell p", "V1 p 0 {m}", ".ends"]
    two = [".subckt two p", "X1 p cell", "V2 p 0 {m}", ".ends"]
    assert values(deck(*cell, "X2 a cell"), "V") == {"V.X2.V1": 4.0}
    for cards in (["X1 a cell m=2", "X2 a cell"], ["X2 a cell", "X1 a cell m=2"]):
        assert values(deck(*cell, *cards), "V") == {"V.X1.V1": 2.0, "V.X2.V1": 1.0}
    found = values(deck(*cell, *two, "X3 a two m=3", "X4 b cell m=2", "X5 b two"), "V")
    assert found == {"V.X3.X1.V1": 3.0, "V.X3.V2": 3.0, "V.X4.V1": 2.0, "V.X5.X1.V1": 1.0, "V.X5.V2": 1.0}
    found = values(deck(*cell, *two, "X4 b cell m=2", "X5 b two"), "V")
    assert found == {"V.X4.V1": 2.0, "V.X5.X1.V1": 1.0, "V.X5.V2": 4.0}
    own = [".subckt two p m=2", "X1 p cell", ".ends"]  # a parameter of that name is none
    found = values(deck(*cell, *own, "X1 a two m=3", "X3 b cell m=5"), "V")
    assert found == {"V.X1.X1.V1": 1.0, "V.X3.V1": 5.0}
    text = "\n".join(["t", *cell, ".param k=2", "X2 a cell", "X1 b cell m={k}"])
    netlist = Revaluer(parse_netlist(text)).netlist(Changes(params={"k": 5.0}))
    assert values(netlist, "V") == {"V.X2.V1": 1.0, "V.X1.V1": 5.0}


def test_multipliers_within_multiplied_instances_count_both_with_a_remark() -> None:
    cell = [".subckt cell p", "R1 p 0 1k m=3", "R2 p 0 1k", "D1 p 0 dm m = 2", ".ends", ".model dm D"]
    assert [text for _, text in notes(*cell, "X1 a cell m=2", "X2 a cell", "V1 a 0 1")] == [
        "this card, and 1 more, of subcircuit 'cell' has an m=, as do X cards that call it: both count; ngspice-39 "
        "would take that of the X card alone"
    ]
    assert not notes(*cell, "X1 a cell", "V1 a 0 1")
    own = [".subckt cell p m=1", "R1 p 0 1k m={m}", ".ends"]  # a parameter of that name
    assert not notes(*own, "X1 a cell m=3", "V1 a 0 1")
    none = [".subckt cell p", "R1 p 0 '1k*( m ==2 ? 3 : 4)'", ".ends"]
    assert not notes(*none, "X1 a cell m=2", "V1 a 0 1")
    blank = [".subckt cell p", "R1 p 0 1k m 3", ".ends"]
    assert values(deck(*blank, "X1 a cell m=2", "V1 a 0 1")) == {"R.X1.R1": 1e3 / 6}
    assert len(notes(*blank, "X1 a cell m=2", "V1 a 0 1")) == 1
    nodes = [".subckt s p q m", "G1 p q q m 1m", "X1 p q p m load", ".ends", ".subckt load p q r s", "R1 p s 1k",
             "R2 q r 1k", "R3 p q 1k", ".ends"]  # of that name  # fmt: skip
    assert not notes(*nodes, "X1 a b 0 s m=2", "V1 a 0 1", "V2 b 0 1")
    deeper = [".subckt s p", "X2 p t", ".ends", ".subckt t p", "X3 p cell", ".ends"]
    assert len(notes(*cell, *deeper, "X1 a s m=2", "V1 a 0 1")) == 1
    assert not notes(*cell, *deeper, "X1 a s", "V1 a 0 1")


def test_a_multiplier_that_ngspice_drops_behind_a_nested_definition_is_remarked_on() -> None:
    inner, another = ([f".subckt {name} q", "R1 q 0 6k", ".ends"] for name in ("in", "on"))
    for cards, dropped in (
        (["R9 p 0 6k", *inner], False),
        (["R9 p 0 6k", *inner, "C9 p 0 1u"], False),
        ([*inner, "R9 p 0 6k"], True),
        ([*inner, "R9 p 0 6k", *another], True),
        ([*inner, "G9 p 0 p 0 {1/6k}"], True),
    ):
        whole = ["V1 a 0 1", ".subckt s p", *cards, ".ends", "X1 a s m=3"]
        circuit = cs.parse("\n".join(["title", *whole]))
        assert cs.solve(circuit).current("V1")[0] == pytest.approx(-1 / 2e3)
        assert [text for _, text in circuit.notes] == dropped * [
            "this card of subcircuit 's' comes after a .subckt in it; there ngspice-39 drops the m= of X cards that "
            "call it"
        ]
        if ngspice_available():
            current = operating_point("\n".join(["title", *whole, ".op", ".end"]))["i(v1)"]
            assert current == pytest.approx(-1 / 6e3 if dropped else -1 / 2e3)


def test_arguments_that_use_m_are_those_of_the_caller() -> None:
    cell = [".param m=4", ".subckt cell p r=1", "R1 p 0 {r}", ".ends", "V1 a 0 1"]
    cards = [*cell, "X1 a cell r={m*1k} m=2", "X2 a cell r={m*1k}"]
    assert values(deck(*cards)) == {"R.X1.R1": 2e3, "R.X2.R1": 4e3}
    assert [text for _, text in notes(*cards)] == [
        "argument r of this X card and of 1 more uses the 'm' outside; ngspice-39 would take that of 'cell'"
    ]
    assert not notes(*cell, "X2 a cell r={m*1k}")
    own = [cell[0], cell[1] + " m=5", *cell[2:]]
    assert [text for _, text in notes(*own, "X1 a cell r={m*1k}")] == [
        "argument r of this X card uses the 'm' outside; ngspice-39 would take that of 'cell'"
    ]


def test_global_nodes_and_ground() -> None:
    netlist = deck(
        ".global VDD", ".subckt cell p gnd", "R1 vDd p 1k", "R2 p gnd 1k", "R3 p 0 1k", "R4 p x 1k", ".ends",
        "V1 Vdd 0 1", "X1 a b cell", "R1 b x 1",
    )  # fmt: skip
    found = ends(netlist)
    assert [found[f"R.X1.R{k}"] for k in range(1, 5)] == [("Vdd", "a"), ("a", "0"), ("a", "0"), ("a", "X1.x")]
    assert found["R1"] == ("b", "x")


def test_a_global_node_goes_before_a_pin() -> None:
    """As in ngspice; through two levels, and with a remark."""
    inner = [".subckt inner vdd o", "R1 vdd o 1k", ".ends"]
    lines = [
        ".global vdd",
        *inner,
        ".subckt outer w o",
        "X1 w o inner",
        ".ends",
        "V1 vdd 0 5",
        "X1 w n outer",
        "R2 n w 1",
        "R3 w 0 1",
    ]
    assert ends(deck(*lines))["R.X1.X1.R1"] == ("vdd", "n")
    assert [text for _, text in notes(*lines)] == [
        "resistor R1: pin 'vdd' has the name of a .global node and is that node"
    ]


def test_functions_as_parameters() -> None:
    assert one(".param f(x, y)={x*2+y}", "R1 a 0 {f(3, 1)}") == 7.0
    assert one(".param k=3 f(x)={2*x + k} n=5, g( y ) = 'y+1' last=2", "R1 a 0 {f(n) * g(last)}") == 39.0
    with pytest.raises(NetlistError, match="function 'f': argument 'x' appears twice"):
        deck(".param k=1 f(x, x)={x}", "R1 a 0 1k")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (".func f(x {x}", ".func needs the form .func NAME(x, y) {expression}"),
        (".func 2f(x) {x}", ".func needs the form .func NAME(x, y) {expression}"),
        (".func f x {x}", ".func needs the form .func NAME(x, y) {expression}"),
        (".func f(x)", ".func needs the form .func NAME(x, y) {expression}"),
        (".func f(x,y,y) {x}", "function 'f': argument 'y' appears twice; rename one"),
        (".param a={b+1} b={c} c={b}", "parameters depend on each other: b -> c -> b; give one of them a number"),
        (".param a={f(1)} f(x)={a+x}", "parameters depend on each other: a -> a; give one of them a number"),
        (".param a={b+1} b={z}", "parameter 'z' is not defined; add .param z=VALUE"),
        (".param a={1,5}", "unexpected ',' (character 2) (a comma separates words: write 1.5)"),
        (".param a={1+}", "parameter 'a': expression '1+': unexpected end"),
        (".subckt s a", "subcircuit 's' has no .ends; add it after its last card"),
        (".ends", ".ends without a .subckt before it; remove it"),
    ],
)
def test_wrong_definitions(card: str, message: str) -> None:
    with pytest.raises(NetlistError) as caught:
        deck("R1 a 0 {a}" if ".param" in card else "R1 a 0 1k", card)
    assert caught.value.message.endswith(message)


def test_a_subcircuit_without_pins() -> None:
    assert values(deck("X1 s", ".subckt s", ".global a", "R1 a 0 2k", ".ends")) == {"R.X1.R1": 2000.0}


def test_arguments_of_a_call_are_those_of_the_caller() -> None:
    cell = [".param a=3k", ".subckt cell p a=1k b=2k", "R1 p 0 {b}", ".ends"]
    lines = [*cell, "V1 n 0 1", "X1 n cell b={a*2}"]
    assert values(deck(*lines)) == {"R.X1.R1": 6000.0}
    assert [text for _, text in notes(*lines)] == [
        "argument b of this X card uses the 'a' outside; ngspice-39 would take that of 'cell'"
    ]
    assert notes(*lines, "X2 n cell b={a+1}", "X3 n cell b={a}") == [
        (7, "argument b of this X card and of 2 more uses the 'a' outside; ngspice-39 would take that of 'cell'")
    ]
    assert not notes(*cell, "V1 n 0 1", "X1 n cell a={a}")
    assert not notes(*cell, "V1 n 0 1", "X1 n cell b={a*2} a={a}")  # the same either way
    assert not notes(*cell, "V1 n 0 1", "X1 n cell a={a*2}")  # as in ngspice
    with pytest.raises(NetlistError, match=r"no \.subckt '3k'; .*needs braces"):
        deck(*cell, "V1 n 0 1", "X1 n cell a=max(1k,3k)")
    with pytest.raises(NetlistError, match=r"the file that does$|the file that does\n"):
        deck(*cell, "V1 n 0 1", "X1 n other a=1k")
    with pytest.raises(NetlistError, match=r"no \.subckt '3k'; define it or include the file that does\n"):
        deck(*cell, "V1 n 0 1", "X1 n cell 3k")
    with pytest.raises(NetlistError, match="voltage source V1"):
        deck("V1 n ac = 3", "R1 n 0 1")


def test_many_levels() -> None:
    lines = [".subckt s0 p", "R1 p 0 1k", ".ends"]
    for k in range(1, 400):
        lines += [f".subckt s{k} p", f"X1 p s{k - 1}", ".ends"]
    netlist = deck(*lines, "X1 a s399", "V1 a 0 1")
    assert ends(netlist) == {f"R.{'.'.join(['X1'] * 400)}.R1": ("a", "0"), "V1": ("a", "0")}


# ---- arrays ----------------------------------------------------------------------------------------------------------


def test_arrays_of_elements() -> None:
    netlist = deck("R[0:2] x[0:2] 0 {k+1}", "V[5:3] x[0:2] 0 2", "Rb[0:1] x[1:0] y[7:8] g=2", ".param k=1")
    assert ends(netlist) == {
        "R[0]": ("x[0]", "0"), "R[1]": ("x[1]", "0"), "R[2]": ("x[2]", "0"),
        "V[5]": ("x[0]", "0"), "V[4]": ("x[1]", "0"), "V[3]": ("x[2]", "0"),
        "Rb[0]": ("x[1]", "y[7]"), "Rb[1]": ("x[0]", "y[8]"),
    }  # fmt: skip
    assert values(netlist) == {"R[0]": 2, "R[1]": 2, "R[2]": 2, "Rb[0]": 0.5, "Rb[1]": 0.5}
    assert netlist.arrays == {
        "r": ArrayRef("R", 0, 3, (range(3),)),
        "v": ArrayRef("V", 0, 3, (range(5, 2, -1),)),
        "rb": ArrayRef("R", 3, 5, (range(2),)),
    }
    assert netlist.nodes == ["0", "x[0]", "x[1]", "x[2]", "y[7]", "y[8]"]
    many = [f"x[{k}]" for k in range(99, -1, -1)]
    assert deck("R[0:99] x[99:0] y 1").nodes == ["0", *many, "y"]


def test_no_element_has_the_name_of_a_member() -> None:
    array = ["D[0:1][0:4] a[0:1] b[0:4] dm", ".model dm D", "R[0:1][5:8] a[0:1] b[1:4] 1"]
    for name, kind in (("D[1][4]", "dm"), ("d[0][0]", "dm"), ("R[1][8]", "1k"), ("r[0][5]", "r=1k")):
        for cards in ([*array, f"{name} x 0 {kind}"], [f"{name} x 0 {kind}", *array]):
            with pytest.raises(
                NetlistError, match=r"this name is already taken by the element at netlist:\d"
            ) as caught:
                deck(*cards)
            first, last = sorted((cards.index(f"{name} x 0 {kind}"), cards.index(array[0 if kind == "dm" else 2])))
            assert caught.value.at is not None and caught.value.at.line == last + 2
            assert f"netlist:{first + 2};" in caught.value.message
    for cards in (["R1 a 0 1", "r1 a 0 r=1"], ["R1 a 0 r=1", "r1 a 0 1"]):
        with pytest.raises(NetlistError, match=r"by the element at netlist:2; ") as caught:
            deck(*cards)
        assert caught.value.at is not None and caught.value.at.line == 3
    free = ["D[4][1] x 0 dm", "D[2][0] x 0 dm", "R[1][4] x 0 1k", "R[5][1] x 0 1k"]
    assert {card.split()[0] for card in free} <= ends(deck(*array, *free)).keys()


def test_array_rows_move_with_plain_cards_between() -> None:
    netlist = deck("R1 a 0 1", "Ra[0:1] a 0 2", "R2 a 0 3", "Rb[0:1] a 0 4", "R3 a 0 5")
    assert netlist.tables["R"].names == ["R1", "Ra[0]", "Ra[1]", "R2", "Rb[0]", "Rb[1]", "R3"]
    assert (netlist.arrays["ra"].start, netlist.arrays["rb"].stop) == (1, 6)


def test_single_elements_among_array_nodes() -> None:
    netlist = deck("R[0:2] x[0:2] 0 1", "V1 x[1] 0 1", "R[3] x[2] y 1")
    assert ends(netlist)["V1"] == ("x[1]", "0")
    assert ends(netlist)["R[3]"] == ("x[2]", "y")


def test_draws_are_fresh_for_each_member() -> None:
    found = values(deck("R[0:99] a 0 {aunif(10, 1)}"))
    assert len(set(found.values())) == 100
    waveforms = values(deck("V[0:1] a[0:1] 0 SIN({unif(5, 0.1)} 1 1k)", "R1 a[0] a[1] 1"), "V")
    assert waveforms["V[0]"] == waveforms["V[1]"] == pytest.approx(5, abs=0.5)  # which are one for all


def test_crossbars(tmp_path: Path) -> None:
    g = np.array([[1.0, 0.0, 3.0], [4.0, 5.0, 6.0]])
    np.savez(tmp_path / "w.npz", W=g)
    np.save(tmp_path / "r.npy", 1.0 / np.array([[1.0, 2.0], [4.0, 8.0]]))
    (tmp_path / "deck.cir").write_text(
        "title\nR0 z 0 1\nRW[0:1][0:2] x[0:1] h[0:2] g=@w.npz:W m=2\nR2[0:1][4:5] x[1:0] y[0:1] '@r.npy'\n"
        "R3[0:1][0:2] x[0:1] h[0:2] {2}\nR4[0:1][0:2] x[0:1] h[0:2] 1 m=@w.npz:W\n"
        "V[0:1] x[0:1] 0 1\nRh[0:2] h[0:2] 0 1\nRy[0:1] y[0:1] 0 1\n".replace("'@r.npy'", "@r.npy")
    )
    netlist = read_netlist(tmp_path / "deck.cir")
    one_, two, three, four = netlist.crossbars
    np.testing.assert_array_equal(four.g, g)
    np.testing.assert_array_equal(one_.g, 2 * g)
    np.testing.assert_array_equal(two.g, [[1, 2], [4, 8]])
    np.testing.assert_array_equal(three.g, np.full((2, 3), 0.5))
    assert [netlist.nodes[k] for k in two.rows] == ["x[1]", "x[0]"]
    assert [netlist.nodes[k] for k in two.cols] == ["y[0]", "y[1]"]
    assert (two.name, two.ranges, netlist.arrays["r2"].kind) == ("R2", (range(2), range(4, 6)), "crossbar")
    assert [netlist.nodes[k] for k in one_.rows] == ["x[0]", "x[1]"]
    assert [netlist.nodes[k] for k in one_.cols] == ["h[0]", "h[1]", "h[2]"]
    assert netlist.nodes == ["0", "z", "x[0]", "x[1]", "h[0]", "h[1]", "h[2]", "y[0]", "y[1]"]


def test_two_ranges_on_nodes() -> None:
    netlist = deck(
        "R1[0:1][3:2] w[0:1][0:1] w[0:1][1:2] {aunif(10, 1)}", "V1[0:1] 0 w[0:1][0] 1",
        "R2[0:1][0:1] w[0:1][2] y[4:5] 1", "R3[0:1][0:1] a[0:1] c[0:1][0:1] 7", "R4[0:1][0:1] c[0:1][0:1] b[0:1] 1",
        "R5[0:1][0:1] c[0:1][0:1] s[007] 1", "D1[0:1][0:1] a[0:1] b[0:1] dm", ".model dm D",
        ".save v(w[0:1][2])", ".output w[1][0:2]", "R6 w[0:1][0] 0 1",
    )  # fmt: skip
    found = ends(netlist)
    assert [name for name in found if name.startswith("R1")] == ["R1[0][3]", "R1[0][2]", "R1[1][3]", "R1[1][2]"]
    assert found["R1[0][2]"] == ("w[0][1]", "w[0][2]") and found["R1[1][3]"] == ("w[1][0]", "w[1][1]")
    assert found["V1[1]"] == ("0", "w[1][0]")
    assert [x.name for x in netlist.crossbars] == ["R2"]  # its nodes have one range each
    assert [netlist.nodes[k] for k in netlist.crossbars[0].rows] == ["w[0][2]", "w[1][2]"]
    assert found["R3[1][0]"] == ("a[1]", "c[1][0]") and found["R4[1][0]"] == ("c[1][0]", "b[0]")
    assert found["R5[0][1]"] == ("c[0][1]", "s[007]")
    assert found["D1[0][1]"] == ("a[0]", "b[1]") and found["D1[1][0]"] == ("a[1]", "b[0]")
    assert netlist.arrays["r3"] == ArrayRef("R", 4, 8, (range(2), range(2)))
    assert [netlist.nodes[k] for k in netlist.outputs] == ["w[1][0]", "w[1][1]", "w[1][2]"]
    assert found["R6"] == ("w[0:1][0]", "0")  # not in an array: a name
    assert len({values(netlist)[name] for name in found if name.startswith("R1")}) == 4


@pytest.mark.parametrize("nodes", ["w[0:1][0:{0}] 0", "a[0:1] w[0:1][0:{0}]", "w[0:1][0:{0}] b[0:{0}]"])
def test_a_crossbar_counts_as_one_element_and_other_arrays_by_their_members(
    nodes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuitsim.netlist.deck.MAX_ELEMENTS", 6)
    assert deck("R[0:1][0:3] a[0:1] b[0:3] 1").crossbars[0].g.shape == (2, 4)
    assert len(deck(f"R[0:1][0:2] {nodes.format(2)} 1").tables["R"]) == 6
    with pytest.raises(NetlistError, match=r"element R\[0:1\]\[0:3\]: 8 elements, more than 6; split the array"):
        deck(f"R[0:1][0:3] {nodes.format(3)} 1")
    with pytest.raises(NetlistError, match="the netlist expands to 7 elements up to here, more than 6; split it"):
        deck("R1 a 0 r=1", f"R[0:1][0:2] {nodes.format(2)} 1")


def test_long_indices_are_names() -> None:
    long = "[1234567890123456]"
    cards = [f"R1 h{long} 0 1k m=2", f"R2{long} a 0 1k", f"R3[0:1] h{long} a 1k", f"X{long} a 0 c"]
    found = ends(deck(*cards, ".subckt c p q", "R1 p q 1", ".ends"))
    assert found["R1"][0] == found["R3[1]"][0] == f"h{long}" and f"R2{long}" in found and f"R.X{long}.R1" in found


@pytest.mark.parametrize("name", ["[net:1]z", "[0:1]z", "1[0]:b", "[a]:b[0]", "I10:R[3]"])
def test_colons_in_names_are_no_ranges(name: str) -> None:
    netlist = deck(f"R{name} a[b:c 0 1", "R2 x[0:99999999999999999] x[1:0][a] 1")
    assert [n for n in netlist.tables["R"].names if n != "R2"] == [f"R{name}"]


def test_indices_with_zeros_before_them_are_names_and_ranges_are_not() -> None:
    found = ends(deck("R[00:01] w[0:1][007] x[01:02] 1", "V1 x[1] 0 1", "V2 x[2] 0 1", "V3 w[0:1][007] 0 1"))
    assert found["R[0]"] == ("w[0:1][007]", "x[1]") and found["R[1]"] == ("w[0:1][007]", "x[2]")
    assert found["V3"][0] == "w[0:1][007]"


def test_arrays_of_subcircuits() -> None:
    netlist = deck(
        "X1[2:1] a[0:1] b cell r={aunif(10, 1)}", "X2[0:1][0:2] w[0:1] b[0:2] cell r=5 m=2", "X3[0:1] p[0:1] 0 nest",
        "X4 q[0:1] 0 cell", ".subckt cell p q r=1", "R1 p m {r}", "D[0:1] m q dm", ".model dm D", ".ends",
        ".subckt nest p q", "X[0:1] p q cell r=3", ".ends",
        "X5[0:1][0:2] w[0:1] b[0:2] c[0:2] three", ".subckt three p q r", "V1 p q 1", "V2 q r 1", ".ends",
    )  # fmt: skip
    found, ohm = ends(netlist), values(netlist)
    assert found["R.X1[2].R1"] == ("a[0]", "X1[2].m") and found["D.X1[1].D[1]"] == ("X1[1].m", "b")
    assert ohm["R.X1[2].R1"] != ohm["R.X1[1].R1"] and ohm["R.X2[1][2].R1"] == 2.5
    assert found["R.X2[1][0].R1"] == ("w[1]", "X2[1][0].m") and found["D.X2[1][2].D[0]"] == ("X2[1][2].m", "b[2]")
    assert found["R.X3[1].X[0].R1"] == ("p[1]", "X3[1].X[0].m") and ohm["R.X3[0].X[1].R1"] == 3
    assert found["R.X4.R1"] == ("q[0:1]", "X4.m")  # not in an array: a name
    assert found["V.X5[1][2].V1"] == ("w[1]", "b[2]") and found["V.X5[1][0].V2"] == ("b[0]", "c[0]")
    assert sum(name.endswith(".R1") for name in found) == 2 + 6 + 4 + 1


TILE = [".subckt tile a[0:1] b[2:0] s", "RW[0:1][0:2] a[0:1] b[2:0] 1k", "R1 a[1] m 1", "X1 b[0:1] m pair",
        ".subckt pair p[0:1] q", "R[1:0] p[0:1] q 5", ".ends", "R2[0:2] B[0:2] s 7", ".ends"]  # fmt: skip


@pytest.mark.parametrize(
    ("bus", "pins"),
    [
        (["X1 x[0:1] y[0:2] 0 tile"], [("X1", "x[0] x[1] y[0] y[1] y[2] 0")]),
        (["X1 w[4][3:2] y[0:2][7] S tile"], [("X1", "w[4][3] w[4][2] y[0][7] y[1][7] y[2][7] S")]),
        (["X1[4:5] x[0:1] y[4:5][0:2] s[0:1] tile"],  # the same x of both
         [("X1[4]", "x[0] x[1] y[4][0] y[4][1] y[4][2] s[0]"), ("X1[5]", "x[0] x[1] y[5][0] y[5][1] y[5][2] s[1]")]),
        (["X1[0:1][0:1] x[0:1][0:1] y[2:3][0:2] 0 tile"],  # the first range for the first pin, the second for others
         [(f"X1[{i}][{j}]", f"x[{i}][0] x[{i}][1] y[{j + 2}][0] y[{j + 2}][1] y[{j + 2}][2] 0")
          for i in range(2) for j in range(2)]),
        (["X1[0:1][1:2] x[0:1][1:2][0:1] y[0:2] s[0:1][1:2] tile"],
         [(f"X1[{i}][{j}]", f"x[{i}][{j}][0] x[{i}][{j}][1] y[0] y[1] y[2] s[{i}][{j}]")
          for i in range(2) for j in (1, 2)]),
    ],
)  # fmt: skip
def test_a_pin_with_a_range_is_a_bus(bus: list[str], pins: list[tuple[str, str]]) -> None:
    netlist = deck(*bus, *TILE)
    found = ends(netlist)
    for (path, nodes), tile in zip(pins, netlist.crossbars, strict=True):
        a0, a1, b2, b1, b0, s = nodes.split()
        assert tile.name == f"R.{path}.RW"
        assert [netlist.nodes[k] for k in (*tile.rows, *tile.cols)] == [a0, a1, b2, b1, b0]
        m = f"{path}.m"
        assert found[f"R.{path}.R1"] == (a1, m)
        assert found[f"R.{path}.X1.R[1]"] == (b0, m) and found[f"R.{path}.X1.R[0]"] == (b1, m)
        assert [found[f"R.{path}.R2[{k}]"] for k in range(3)] == [(b, s) for b in (b0, b1, b2)]
    assert not [text for _, text in netlist.notes if "bus" in text or "one node" in text]


def test_a_pin_with_two_ranges_is_a_bus_row_by_row() -> None:
    cell = [".subckt cell w[0:1][4:5]", "R[0:3] x[0:3] 0 1", "R1 w[0][5] w[1][4] 1", ".ends"]
    found = ends(deck("X1 y[3:4][0:1] cell", "X[7:8] y[3:4][0:1][0:1] cell", *cell))
    assert found["R.X1.R1"] == ("y[3][1]", "y[4][0]") and found["R.X[8].R1"] == ("y[4][0][1]", "y[4][1][0]")
    with pytest.raises(NetlistError, match=r"node y\[0:3\] has 4 members, pin w\[0:1\]\[4:5\] has 2 x 2; make them eq"):
        deck("X1 y[0:3] cell", *cell)


def test_a_range_on_a_pin_that_only_single_elements_have_is_a_name() -> None:
    """As in ngspice, in which no name stands for several."""
    cell = [".subckt cell A[1:0] b[1:0]", "R1 a[1:0] m 1", "G1 m 0 B[1:0] 0 1", "X1 a[1:0] inner", "X2 b[1:0] inner",
            ".subckt inner p", "R1 p 0 1", ".ends", ".ends"]  # fmt: skip
    netlist = deck("X1 bus[1:0] q cell", "R1 bus[1:0] q 1", *cell)
    found = ends(netlist)
    assert found["R.X1.R1"] == ("bus[1:0]", "X1.m") and found["R.X1.X1.R1"] == ("bus[1:0]", "0")
    assert found["R.X1.X2.R1"] == ("q", "0") and not netlist.notes
    assert ends(deck("R1[0:1] x[0:1] 0 1", "X1 x[0:1] cell", ".subckt cell b", "R1 b 0 1", ".ends"))["R.X1.R1"] == (
        "x[0:1]", "0",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pin", "message"),
    [
        ("a[0:n]", "pin 'a[0:n]': a range is two numbers"), ("a[0:1:1]", "pin 'a[0:1:1]': a range is two numbers"),
        ("a[-1:0]", "pin 'a[-1:0]': a range is two numbers"),
        ("a<0:1>", "pin 'a<0:1>': write a range of whole numbers, a[0:3], for a bus"),
        ("a[0:1][0:1][0:1]", "pin 'a[0:1][0:1][0:1]' has 3 ranges; write one or two"),
        ("a[0:20000] a[20000]", "pin 'a[20000]' appears twice; rename one"),
        ("b A c a", "subcircuit 't': pin 'a' appears twice; rename one"),
    ],
)  # fmt: skip
def test_what_is_like_a_bus_is_no_plain_pin(pin: str, message: str) -> None:
    """Single elements inside have its members."""
    open_, close = "<>" if "<" in pin else "[]"
    cell = [f".subckt t {pin} y", f"R1 a{open_}0{close} y 1k", f"R2 a{open_}1{close} y 1k", ".ends"]
    with pytest.raises(NetlistError) as caught:
        deck("V1[0:1] x[0:1] 0 1", "Ry y 0 1k", "X1 x[0:1] y t", *cell)
    assert message in caught.value.message
    assert deck("V1 x 0 1", "X1 x 0 t", ".subckt t a[0:n] y", "R1 a[0:n] y 1k", ".ends").has_node("x")  # a name


def test_ground_is_at_all_members_of_a_bus() -> None:
    lines = [".subckt t a[0:2] b", "R1[0:2] a[0:2] b 1", "R2 a[1] b 1", ".ends", "V1 x 0 1", "R3 x 0 1"]
    for card, count in (("X1 0 x t", 1), ("X[0:1] gnd x t", 2)):
        table = deck(*lines, card).tables["R"]
        ends = np.stack([table.a, table.b])[:, [name != "R3" for name in table.names]]
        assert ends.shape[1] == 4 * count and (ends.min(axis=0) == 0).all() and (ends.max(axis=0) > 0).all()
    with pytest.raises(NetlistError, match=r"node x\[0\] is one node, pin a\[0:0\] is a bus of 1; write a range"):
        deck("V1 x[0] 0 1", "X1 x[0] t", ".subckt t a[0:0]", "R1[0:0] a[0:0] 0 1", ".ends")


def test_other_pins_are_none_that_a_bus_lacks() -> None:
    cell = [".subckt t a[0:1] a a[5]", "R1[0:1] a[0:1] a 1", "R2 a a[5] 1", ".ends"]
    assert not deck("V1[0:1] x[0:1] 0 1", "R3 z w 1", "X1 x[0:1] z w t", *cell).notes


def test_nodes_beside_those_of_a_bus_are_remarked_upon() -> None:
    def cell(*cards: str) -> list[tuple[int, str]]:
        return notes(
            "V1[0:2] y[0:2] 0 1", "X1 y[0:2] cell", ".subckt cell w[0:2]", "R[0:2] w[0:2] 0 1", *cards, ".ends"
        )

    assert not cell("R1 w[2] w2 1", "R2 w2 0 1")
    assert cell("Rs[0:2] W 0 1") == [(6, "node 'w' inside is none of the bus 'w[0:2]', a pin")]
    assert cell("R1 w[2] w[3] 1", "R2 w[3] 0 1") == [(6, "node 'w[3]' inside is none of the bus 'w[0:2]', a pin")]
    assert cell("Rw[0:2] w[0:2] w[1:3] 1", "R2 w[3] 0 1") == [
        (6, "node 'w[3]' inside is none of the bus 'w[0:2]', a pin")
    ]


def test_values_from_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "v.npy", np.array([1, 2, 3], np.uint8))
    np.save(tmp_path / "data" / "one.npy", np.float32(0.5))
    (tmp_path / "data" / "part.inc").write_text("V[0:2] x[0:2] 0 @v.npy\nR[0:2] x[0:2] 0 @one.npy\n")
    (tmp_path / "deck.cir").write_text("title\n.include data/part.inc\n")
    netlist = read_netlist(tmp_path / "deck.cir")
    assert values(netlist, "V") == {"V[0]": 1.0, "V[1]": 2.0, "V[2]": 3.0}
    assert set(values(netlist).values()) == {0.5}
    np.save(tmp_path / "data" / "v.npy", np.array([True, False, True]))
    assert [*values(read_netlist(tmp_path / "deck.cir"), "V").values()] == [1.0, 0.0, 1.0]
    np.save(tmp_path / "data" / "v.npy", np.ones(1))
    with pytest.raises(NetlistError, match=r"has shape \(1,\), but the element needs \(3,\)"):
        read_netlist(tmp_path / "deck.cir")


@pytest.mark.parametrize(
    ("card", "remarked"),
    [
        ("R1[0:2] a 0 @s.npy", True), ("RW[0:2][0:0] x[0:2] y[0:0] resistance=@s.npz:s", True),
        ("R1[0:2] a 0 g=@s.npy", False), ("R1[0:2] a 0 {1m}", False), ("R1[0:2] a 0 {aunif(1m, 1u)} m=@s.npy", False),
        ("R1[0:2] a 0 @r.npy", False), ("R1[1:1] a 0 @one.npy", False),
    ],
)  # fmt: skip
def test_resistances_from_a_file_that_look_like_conductances(card: str, remarked: bool, tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.array([1e-6, 2e-4, 9e-3]))
    np.savez(tmp_path / "s.npz", s=np.array([[1e-6], [2e-4], [9e-3]]))
    np.save(tmp_path / "r.npy", np.array([1e-6, 2e-4, 1.0]))
    np.save(tmp_path / "one.npy", 1e-3)
    (tmp_path / "deck.cir").write_text(f"title\nV1 a 0 1\n{card}\n")
    found = [text for _, text in read_netlist(tmp_path / "deck.cir").notes if "conductances" in text]
    name, file = card.split()[0], card.split()[-1].rpartition("=")[2]
    text = f"resistor {name}: all values are below 0.01 ohm; if they are conductances, write g={file}"
    assert found == [text] * remarked


def test_roles() -> None:
    netlist = deck(
        "Vx[0:1] x[0:1] 0 1", "V2 b 0 1", "RW[0:1][0:1] x[0:1] y[0:1] 1", "Ry[0:1] y[0:1] b 1", "I1 0 y[0] 0",
        ".input VX v2", ".output y[1:0] b", ".train RW ry I1",
    )  # fmt: skip
    assert netlist.inputs == ("VX", "v2")
    assert [netlist.nodes[k] for k in netlist.outputs] == ["y[1]", "y[0]", "b"]
    assert netlist.trained == ("RW", "ry", "I1")
    assert netlist.references == (0, 0, 0) and not netlist.differential
    both = deck("V[0:2] a[0:2] 0 1", "R[0:2] a[0:2] 0 1", ".input V[2] V[1]", ".train V R[2]")
    assert both.inputs == ("V[2]", "V[1]") and both.trained == ("V", "R[2]")
    for role in (".input V[2] V", ".input V V[1]", ".train R[2] R", ".train R V R[1]"):
        with pytest.raises(NetlistError, match="have elements in common; name one of them"):
            deck("V[0:2] a[0:2] 0 1", "R[0:2] a[0:2] 0 1", role)
    plain = deck(
        "R1 bus[3:0] 0 1", "V1 bus[3:0] 0 1", ".output bus[3:0]", ".save v(bus[3:0]) i(V1)", ".print dc v( 0 )"
    )
    assert [plain.nodes[k] for k in plain.outputs] == ["bus[3:0]"]
    assert plain.saves == ("v(bus[3:0])", "i(V1)", "v(0)")


def test_roles_of_some_members_of_an_array() -> None:
    lines = (
        "Vx[0:3] x[0:3] 0 1", "RW[0:1][0:1] x[0:1] y[0:1] 1", "RG[0:1][1:2] x[2:3] z[1:2] 1", "Rl[0:1] y[0:1] 0 1",
        "X[0:1] x[0:1] cell", ".subckt cell a", "Rm[0:2] a 0 1", ".ends",
    )  # fmt: skip
    netlist = deck(*lines, ".input vx[2:1]", ".train Rl[0:1] R.X[1].Rm[0:1] Vx[0:0]")
    assert netlist.inputs == ("vx[2]", "vx[1]")
    assert netlist.trained == ("Rl[0]", "Rl[1]", "R.X[1].Rm[0]", "R.X[1].Rm[1]", "Vx[0]")
    assert deck(*lines, ".train R.X[0:1].Rm[2:2]").trained == ("R.X[0].Rm[2]", "R.X[1].Rm[2]")
    for card, message in (
        (".train Rl[0:2]", r"\.train: no element 'Rl\[2\]'; elements are Rl"),
        (".train Rl[0:1] Rl", "'Rl' and 'Rl\\[1\\]' have elements in common"),
        (".train Rl[0:1] Rl[1:0]", "'Rl\\[1\\]' is named twice"),
        (".train Rl[0:999999999]", r"no element 'Rl\[0:999999999\]'; write the array's name without a range: Rl"),
        (".train RW[0:1]", r"no element 'RW\[0:1\]'; write the array's name without a range: RW"),
        (".train RW[0][1]", "the conductances of a crossbar learn together: write RW"),
        (".input Rl[0:1]", r"'Rl\[0\]' cannot take this role"),
    ):
        with pytest.raises(NetlistError, match=message):
            deck(*lines, card)


@pytest.mark.parametrize(
    ("card", "end"),
    [
        ("R1 a 0 1 ohm", "found 'ohm' as well (write a unit without a blank before it, 1ohm, or leave it out)"),
        ("V1 a 0 12 V", "found 'V' as well (write a unit without a blank before it, 1V, or leave it out)"),
        ("R1 a 0 1k # load", "found '#' as well (a comment behind a card begins with ; or $)"),
        ("R1 a 0 1k * load", "found '*' as well (a comment behind a card begins with ; or $)"),
        ("R1 a 0 1,5 ohm", "found '5' as well (a comma separates words: write 1.5)"),
        ("R1 a 0 1k 2k", "found '2k' as well"),
    ],
)
def test_words_too_many_have_a_reason(card: str, end: str) -> None:
    with pytest.raises(NetlistError) as caught:
        deck(card)
    assert caught.value.message.endswith(end)


def test_outputs_that_are_differences() -> None:
    lines = (
        "V1 c 0 1",
        "Rp[0:2] p[0:2] c 1",
        "Rn[0:2] n[0:2] c 1",
        "X1 c 0 cell",
        ".subckt cell a b",
        "R1 a m 1",
        ".ends",
    )
    netlist = deck(*lines, ".output v(p[0:2], n[2:0]) V(c) v( p[0] ,X1.m) v(p[1],0) n[1]", ".save V(p[0],x1.M) i(V1)")
    assert netlist.output_names == [
        "v(p[0],n[2])", "v(p[1],n[1])", "v(p[2],n[0])", "c", "v(p[0],X1.m)", "p[1]", "n[1]",
    ]  # fmt: skip
    assert netlist.differential
    read = [netlist.nodes[k] for k in netlist.read_nodes]
    assert read == ["p[0]", "n[2]", "p[1]", "n[1]", "p[2]", "n[0]", "c", "X1.m"]
    assert netlist.saves == ("V(p[0],x1.M)", "i(V1)", "v(p[0:2],n[2:0])")  # the differences are results, each once
    shared = deck(*lines, ".output v(p[0:1],c)")
    assert shared.output_names == ["v(p[0],c)", "v(p[1],c)"] and shared.saves == ("v(p[0:1],c)",)
    assert deck(*lines, ".output v(0,c)").read_nodes == (deck(*lines).node("c"),)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_places(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    main, part, deeper = tmp_path / "deck.cir", tmp_path / "sub" / "part.inc", tmp_path / "sub" / "deeper.inc"
    main.write_text(
        "title\nR1 a b 1\n* comment\nR2 a b\n+ 2\n.include sub/part.inc\nR3 a b 3\n.subckt s p\nR1 p 0 4\n.ends\n"
        "X1 a s\nC1 b 0 1u\nR9 b 0 9"
    )
    part.write_text("R4 a b 5\n.inc 'deeper.inc'\nR5 a b r=6\n\nR6 a b 7\n")
    deeper.write_text("\nR7 a b 8\n")
    netlist = read_netlist(main)
    table = netlist.tables["R"]
    found = {name: netlist.at(seq) for name, seq in zip(table.names, table.seq, strict=True)}
    assert {name: (at.path, at.line, at.text) for name, at in found.items()} == {
        "R1": (str(main), 2, "R1 a b 1"),
        "R2": (str(main), 4, "R2 a b"),
        "R4": (str(part), 1, "R4 a b 5"),
        "R7": (str(deeper), 2, "R7 a b 8"),
        "R5": (str(part), 3, "R5 a b r=6"),
        "R6": (str(part), 5, "R6 a b 7"),
        "R3": (str(main), 7, "R3 a b 3"),
        "R.X1.R1": (str(main), 9, "R1 p 0 4"),
        "R9": (str(main), 13, "R9 b 0 9"),
    }
    assert table.names == ["R1", "R2", "R4", "R7", "R5", "R6", "R3", "R.X1.R1", "R9"]
    main.write_text("title\nV1 a 0 1\nR1 b 0 1\n.include sub/deeper.inc\n\n.end\nR2 a 0 1\n")
    assert [(at.path, at.line, text) for at, text in read_netlist(main).notes] == [
        (str(main), 7, "cards after .end are not read")
    ]
    at_c1 = netlist.at(netlist.tables["C"].seq[0])
    assert (at_c1.path, at_c1.line, str(at_c1)) == (str(main), 12, f"{main}:12")


def test_files_without_a_name_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Includes of a text are relative to the folder of the name that stands for it."""
    (tmp_path / "part.inc").write_text("R1 a 0 1k\n")
    assert values(parse_netlist("t\n.include part.inc\n", str(tmp_path / "text"))) == {"R1": 1000.0}
    monkeypatch.chdir(tmp_path)
    assert values(parse_netlist("t\n.include part.inc\n")) == {"R1": 1000.0}


def test_includes_are_found_from_the_including_file_or_from_the_netlist(tmp_path: Path) -> None:
    main, x, y = tmp_path / "deck.cir", tmp_path / "sub" / "x.inc", tmp_path / "sub" / "y.inc"
    (tmp_path / "sub").mkdir()
    main.write_text("t\nV1 a 0 1\n.include sub/x.inc\n.op\n")
    for include in (".include sub/y.inc", ".lib sub/y.inc s", ".inc y.inc", f".include {y}"):
        x.write_text(f"{include}\n")
        y.write_text(".lib s\nR1 a 0 1k\n.endl\n" if include.startswith(".lib") else "R1 a 0 1k\n")
        found = read_netlist(main)
        assert values(found) == {"R1": 1e3} and not found.notes
        if ngspice_available() and include != ".inc y.inc":
            assert operating_point(main)["i(v1)"] == pytest.approx(-1e-3)
    y.unlink()
    x.write_text(".include y.inc\n")
    with pytest.raises(NetlistError) as caught:
        read_netlist(main)
    assert caught.value.message == f"no such file: {y}, nor {tmp_path / 'y.inc'}; check its name and folder"
    y.write_text("R1 a 0 1k\n")
    (tmp_path / "y.inc").write_text("R1 a 0 3k\n")
    found = read_netlist(main)
    assert values(found) == {"R1": 1e3}
    assert [(Path(at.path).name, text) for at, text in found.notes] == [
        (
            "x.inc",
            f"{y} is read; ngspice, started in the folder of the netlist, takes {tmp_path / 'y.inc'}",
        )
    ]
    if ngspice_available():
        assert operating_point(main)["i(v1)"] == pytest.approx(-1 / 3e3)


def test_of_sections_of_one_name_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "all.lib").write_text(
        ".lib s\nR1 a 0 1k\n.endl\n.lib 'S'\nR2 a 0 1k\n.endl\nR4 a 0 r=1k\n.lib t\nR3 a 0 1k\n.endl\n"
    )
    main = tmp_path / "deck.cir"
    for section, name, remarks in (
        ("s", "R1", ["library section 's' is defined again; the first definition counts"]),
        ("S", "R1", ["library section 's' is defined again; the first definition counts"]),
        ("t", "R3", []),
    ):
        main.write_text(f"t\nV1 a 0 1\n.lib all.lib {section}\n.op\n")
        found = read_netlist(main)
        assert values(found) == {name: 1e3} and [text for _, text in found.notes] == remarks
        if ngspice_available():
            assert operating_point(main)["i(v1)"] == pytest.approx(-1e-3)
    main.write_text("t\nV1 a 0 1\n.include all.lib\n")
    found = read_netlist(main)
    assert values(found) == {"R4": 1e3} and not found.notes  # what is in no section


def test_words_behind_the_file_of_an_include_are_remarked_on(tmp_path: Path) -> None:
    (tmp_path / "all.lib").write_text("R2 a 0 1k\n.lib s\nR1 a 0 1k\n.endl\n")
    main = tmp_path / "deck.cir"
    for card, remark in (
        (".include all.lib s", ".include: 's' after the file name is not read"),
        (".lib all.lib s t u", ".lib: 't' after the file name is not read"),
    ):
        main.write_text(f"t\nV1 a 0 1\n{card}\n")
        assert [text for _, text in read_netlist(main).notes] == [remark]


def test_text_of_older_programs_is_read_as_windows_1252(tmp_path: Path) -> None:
    """As ngspice reads it."""
    (tmp_path / "part.inc").write_bytes(b"R1 a 0 1k\n* \x931 k\x94\n")
    text = "t\u00e9st\nV1 a 0 5\u00b5 ; 25 \u00b0C\n.include part.inc\n.op\n.end\n"
    (tmp_path / "deck.cir").write_bytes(text.encode("cp1252"))
    netlist = read_netlist(tmp_path / "deck.cir")
    assert netlist.title == "t\u00e9st" and values(netlist, "V") == {"V1": 5e-6}
    assert [(at.line, text) for at, text in netlist.notes] == [
        (1, "not UTF-8 text (first in line 1): read as Windows-1252; save the file as UTF-8"),
        (3, "part.inc: not UTF-8 text (first in line 2): read as Windows-1252; save the file as UTF-8"),
    ]
    mixed = "t\nV1 a 0 5\u00b5\nR1 a 0 1k ; ".encode() + b"\xb0C\n"
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "mixed.cir").write_bytes(mark + mixed)
        assert values(read_netlist(tmp_path / "mixed.cir"), "V") == {"V1": 5e-6}
    if ngspice_available():
        assert operating_point(tmp_path / "deck.cir") == pytest.approx({"a": 5e-6, "i(v1)": -5e-9})


def test_a_path_with_blanks_needs_quotes(tmp_path: Path) -> None:
    (tmp_path / "my models.lib").write_text("R2 a 0 1k\n")
    for card, torn in ((r".lib C:\LTC (x86)\LT\dio", r"(x86)\LT\dio"), (".include my ./models.lib", "./models.lib")):
        with pytest.raises(NetlistError, match="no such file") as caught:
            deck("R1 a 0 1", card)
        assert caught.value.message.endswith(f"; if '{torn}' belongs to its name, put quotes around all of it")
    with pytest.raises(NetlistError, match="no such file") as caught:
        deck("R1 a 0 1", ".lib none.lib typical")
    assert caught.value.message.endswith("check its name and folder")
    assert values(parse_netlist('t\nR1 a 0 1\n.include "my models.lib"', str(tmp_path / "t"))) == {"R1": 1, "R2": 1e3}


def test_words_of_sources_may_be_names_of_parameters() -> None:
    assert values(deck("V1 a 0 dc freq", "R1 a 0 1", ".param freq=3"), "V") == {"V1": 3}
    assert values(deck("X1 a s phase=4", "R1 a 0 1", ".subckt s a phase=1", "V1 a 0 DC phase", ".ends"), "V") == {
        "V.X1.V1": 4
    }
    cards = ["V1 cur 0 1", "E1 b 0 vcvs a cur 2", "R1 a b 1", "R2 a 0 1", "E2 c 0 a 0 pwl", ".param pwl=3", "R3 c 0 1"]
    assert deck(*cards).tables["E"].values["gain"].tolist() == [2, 3]


def test_a_capacitor_blocks_the_current_without_a_remark() -> None:
    assert not notes("V1 a 0 1", "R3 a q 1", "C3 q 0 1u")


FORGOTTEN = "the first line is the title, though it looks like an element: it is not read"


def test_an_error_comes_with_the_remarks_made_before_it() -> None:
    cell = [".subckt s a b", "R1 a b {x}", ".ends"]
    for lines, found in (
        (["R1 a 0 1", ".dc V1 0 1 1"], [(1, FORGOTTEN)]),
        (["X1 a 0 s x=3", *cell], [(2, "subcircuit X1: 's' has no parameter 'x'; ignored")]),
        (["X1 a 0 s x=3", *cell, ".foo"], []),
        ([".include none.inc", "R1 a 0 1"], [(1, FORGOTTEN)]),
    ):
        with pytest.raises(NetlistError) as caught:
            parse_netlist("\n".join(["V1 a 0 1" if len(lines) == 2 else "title", *lines]))
        assert [(at.line, text) for at, text in caught.value.remarks] == found


def test_a_dos_end_of_file_is_none_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "part.inc").write_bytes(b"R1 a 0 1k\r\n\x1a")
    (tmp_path / "deck.cir").write_bytes(b"t\r\nV1 a 0 1\r\n.include part.inc\r\nR2 a 0 2k\r\n\x1a\r\n")
    assert values(read_netlist(tmp_path / "deck.cir")) == {"R1": 1e3, "R2": 2e3}


@pytest.mark.parametrize("escape", "\x1b\x90\x98\x9b\x9d\x9e\x9f")
@pytest.mark.parametrize("deck", ["{}[2J\nV1 a 0 1", "t\nV1 a{}[31m 0 1", "t\nV1 a 0 1 ; {}]0;x\x07"])
def test_no_netlist_commands_the_terminal_that_shows_it(tmp_path: Path, deck: str, escape: str) -> None:
    offset, line, deck = deck.index("{}"), 1 + deck.count("\n", 0, deck.index("{}")), deck.replace("{}", escape)
    (tmp_path / "deck.cir").write_text(deck, encoding="utf-8")
    for read in (lambda: read_netlist(tmp_path / "deck.cir"), lambda: parse_netlist(deck)):
        with pytest.raises(NetlistError, match=rf":{line}: byte offset {offset}: escape") as caught:
            read()
        assert escape not in str(caught.value)


def test_an_included_file_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.inc").write_text("")
    (tmp_path / "deck.cir").write_text("title\n.include empty.inc\nR1 a 0 1\n")
    assert values(read_netlist(tmp_path / "deck.cir")) == {"R1": 1.0}


@pytest.mark.parametrize(("which", "ohm"), [(1, 1e3), (0, 3e3)])
def test_what_is_included_within_an_if_counts_only_where_that_holds(tmp_path: Path, which: int, ohm: float) -> None:
    (tmp_path / "one.inc").write_text("R1 a 0 1k\n")
    (tmp_path / "other.inc").write_text("R1 a 0 3k\n")
    (tmp_path / "main.cir").write_text(
        f"t\n.param p={which}\nV1 a 0 1\n.if (p == 1)\n.include one.inc\n.else\n.include other.inc\n.endif\n"
    )
    assert values(read_netlist(tmp_path / "main.cir")) == {"R1": ohm}


def test_an_if_ends_in_the_file_where_it_begins(tmp_path: Path) -> None:
    (tmp_path / "open.inc").write_text(".if (0)\n")
    (tmp_path / "main.cir").write_text("t\nV1 a 0 1\n.include open.inc\nR1 a 0 1k\n.endif\n")
    with pytest.raises(NetlistError, match=r"open\.inc: an \.if and its \.endif must stand in the same file"):
        read_netlist(tmp_path / "main.cir")
    (tmp_path / "open.inc").write_text(".endif\n")
    (tmp_path / "main.cir").write_text("t\nV1 a 0 1\nR1 a 0 1k\n.if (1)\n.include open.inc\n")
    with pytest.raises(NetlistError, match=r"open\.inc: an \.if and its \.endif must stand in the same file"):
        read_netlist(tmp_path / "main.cir")


def test_a_file_may_be_included_twice(tmp_path: Path) -> None:
    (tmp_path / "cell.inc").write_text("R1 p 0 1k\n")
    lines = [f".subckt {name} p\n.include cell.inc\n.ends\nX{name} a {name}" for name in "st"]
    (tmp_path / "deck.cir").write_text("\n".join(["title", *lines]))
    assert values(read_netlist(tmp_path / "deck.cir")) == {"R.Xs.R1": 1000.0, "R.Xt.R1": 1000.0}


def test_library_sections(tmp_path: Path) -> None:
    (tmp_path / "all.lib").write_text(
        "R9 a 0 9\n.lib slow\nR1 a 0 {r}\n.param r=2\n.endl\n.lib FAST ; comment\nR1 a 0 1\n"
        ".lib 'all.lib' extra\n.endl fast\n.lib extra\nR2 a 0 3\n.endl\n"
    )

    def read(*cards: str) -> Mapping[str, float]:
        (tmp_path / "deck.cir").write_text("\n".join(["title", *cards]))
        return values(read_netlist(tmp_path / "deck.cir"))

    assert read(".lib all.lib slow") == {"R1": 2.0}
    assert read('.lib "all.lib" fast') == {"R1": 1.0, "R2": 3.0}
    assert read(".include all.lib") == {"R9": 9.0}


# ---- remarks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "line", "text"),
    [
        ([".tran 1u 1m"], 2, ".tran is skipped: only the DC operating point is solved"),
        ([".ac dec 10 1 1k"], 2, ".ac is skipped: only the DC operating point is solved"),
        ([".ic v(a)=1"], 2, ".ic is ignored: no start is needed, and of several operating points it chooses none"),
        ([".control", "run", ".endc"], 2, ".control block is skipped: circuitsim runs no scripts"),
        ([".options reltol=1e-4"], 2, "option reltol has no effect here"),
        ([".options method=gear"], 2, "option method has no effect here"),
        ([".options rseries=9"], 2,
         "option rseries has no effect here; ngspice puts rseries in series with each inductor"),
        ([".options acct temp=30 method=gear list"], 2, "options method, acct, list have no effect here"),
        (["I3 a 0 1amp"], 2,
         "current source I3: '1amp' is 1e-18 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        (["I3 a 0 1A"], 2, "current source I3: '1A' is 1e-18 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        (["R3 a 0 1", "D1 a 0 d", ".model d D(is=2e-14A)"], 4,
         "model d: IS: '2e-14A' is 2e-32 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        ([".param i=2A", "I3 a 0 {i}"], 2,
         "parameter i: '2A' is 2e-18 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        (["I3 a 0 {2*1A}"], 2,
         "current source I3: '1A' is 1e-18 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        ([".func f(x) {x*1A}"], 2, "function f: '1A' is 1e-18 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        ([".subckt s p i=3", "I1 p 0 {i}", ".ends", "X1 a s i=2A"], 5,
         "subcircuit X1: i: '2A' is 2e-18 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        ([".subckt s p i=3A", "I1 p 0 {i}", ".ends", "X1 a s"], 2,
         "parameter i: '3A' is 3e-18 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        (["I3 a 0 1", ".dc I3 0 2A 2A"], 3, ".dc: '2A' is 2e-18 (A is atto, 1e-18; ngspice-39 reads no such suffix)"),
        ([".param k=2", "R3 a 0 {9+-k+1}"], 3, "resistor R3: in '9+-k+1' " + MINUS),
        ([".param k=2", "R3 a 0 {k}", ".if (k > -k+1)", ".endif"], 4, "condition of .if: in '(k > -k+1)' " + MINUS),
        ([".param k=2", ".model m D(n={k*-k+9})", "R3 a 0 1", "D3 a 0 m"], 3, "model m: N: in 'k*-k+9' " + MINUS),
        ([".param k=2", ".options temp={9+-k}"], 3, "option temp: in '9+-k' " + MINUS),
        ([".param k=2", ".options temp={9+- k}"], 3, "option temp: in '9+- k' " + MINUS),
        ([".subckt s p r=3", "R1 p 0 {r}", ".ends", "X1 a s r={9+-m}", ".param m=2"], 5,
         "subcircuit X1: r: in '9+-m' " + MINUS),
        (["R3 a 0 {10mil}"], 2, "resistor R3: '10mil' is 0.000254 (MIL is 25.4e-6; ngspice-39 reads it as M, 1e-3, in "
         "expressions)"),
        ([".param k=2", ".model k R(r=5)", "R3 a 0 k"], 4,
         "resistor R3: 'k' is a parameter and a model; the parameter counts"),
        ([".model m R(r=1 dev=5%)", "R3 a 0 m"], 2, "model m: tolerance DEV=5% is ignored"),
        (["R3 a 0 1M"], 2, "resistor R3: '1M' is 0.001 ohm (M is milli in SPICE, MEG is mega)"),
        (["R3 a 0 r=1 m=1", "R4 a b", "+ inf", "R5 b 0 1", "R6 b 0 1"], 3,
         "resistor R4: infinite resistance, an open circuit"),
        (["V2 b 0 SIN(0 1 1k)", "R3 a b 1"], 2, "voltage source V2: of SIN only the value at t = 0 counts, 0 V"),
        (["I2 b 0 PULSE(1m 5 1)", "R3 a b 1"], 2,
         "current source I2: of PULSE only the value at t = 0 counts, 0.001 A"),
        (["V2 b 0 SIN(0 1 1k) DC 2", "R3 a b 1"], 2,
         "voltage source V2: SIN is ignored: only the DC equilibrium is solved"),
        (["V2 b 0 DC", "R3 a b 1"], 2,
         "voltage source V2: without a value it is 0 V, as in ngspice; if that is meant, write 0"),
        (["I2 b 0 dc ac=1 90", "R3 a b 1"], 2,
         "current source I2: without a value it is 0 A, as in ngspice; if that is meant, write 0"),
        (["V2 b 0", "R3 a b 1"], 2,
         "voltage source V2: without a value it is 0 V, as in ngspice; if that is meant, write 0"),
        (["I2 b 0 AC 1", "R3 a b 1"], 2,
         "current source I2: without a value it is 0 A, as in ngspice; if that is meant, write 0"),
        (["K1 L1 L2 0.5"], 2, "coupling K1 is ignored: inductors are shorts at DC"),
        (["R3 00 a 1", "R4 00 a 1"], 2, "node '00' is an ordinary node; ground is 0 or gnd"),
        (["R3 a q 1"], 2, "resistor R3 carries no current: nothing else is at node q"),
        (["V3 a q 1"], 2, "voltage source V3 carries no current: nothing else is at node q"),
        (["R3 a a 1"], 2, "resistor R3 has no effect: both ends are at node a"),
        (["I3 a a 1"], 2, "current source I3 has no effect: both ends are at node a"),
        (["G3 a a a 0 1"], 2, "voltage-controlled current source G3 has no effect: both ends are at node a"),
        (["R3 a q 1", "G3 a 0 q 0 1"], 2, "resistor R3 carries no current: nothing but controls is at node q"),
        (["E3 q 0 p 0 1", "V3 p 0 1"], 2,
         "voltage-controlled voltage source E3 carries no current: nothing else is at node q"),
        (["L3 a a 1m"], 2, "inductor L3 has no effect: both ends are at node a"),
        (["L3 a q 1m"], 2, "inductor L3 carries no current: nothing else is at node q"),
        (["N3 a a n", ".model n tanh"], 2, "nonlinear resistor N3 has no effect: both ends are at node a"),
        (["R3 p q 1"], 2, "resistor R3 carries no current: nothing else is at node p"),
        (["R3 a 0 1", "G3 a 0 ground 0 1"], 3, "node 'ground' is an ordinary node; ground is 0 or gnd"),
        (["R3[0] x[0] a 1", "R3[1] x[0:1] a 1", "R4 X[0] a 1", "R5 x[0:1] bus[3:0] 1", "R6 bus[3:0] 0 1"], 3,
         "node 'x[0:1]' is one node, beside x[0]: a range stands for several only where the element's name, or the "
         "pin, has one"),
        (["R3 a GND! 1", "R4 gnd! 0 1"], 2, "node 'GND!' is an ordinary node; ground is 0 or gnd"),
        ([".model m D(IS=1)", ".model M D(IS=2)"], 3, "model M is defined again; the first definition counts"),
        ([".model m D(IS=1 foo)", "D1 a 0 m"], 2, "model m: unknown word 'foo' is ignored"),
        ([".model m D(foo ideal)", "D1 a 0 m"], 2, "model m: unknown word 'foo' is ignored"),
        ([".model m D(IS=1 dev/gauss=5%)", "D1 a 0 m"], 2, "model m: tolerance DEV/GAUSS=5% is ignored"),
        ([".model m R(rsh=1 kf=1 af=1 lf=1 wf=1 ef=1 vb=3)", "R3 a 0 m"], 2,
         "model m: unknown parameter VB is ignored"),
        ([".subckt s p", "R1 p 0 1", ".ends", ".subckt s p", "R1 p 0 2", ".ends", "X1 a s"], 5,
         "subcircuit 's' is defined again; the first definition counts"),
        ([".subckt s p", "R1 p 0 1", ".ends", "X1 a s r=no"], 5, "subcircuit X1: 's' has no parameter 'r'; ignored"),
        ([".subckt s p gnd", "R1 p gnd 1", ".ends", "X1 a a s"], 2,
         "subcircuit 's': a pin named 0 or gnd is ground, whatever it is connected to"),
        ([".end", "R3 a 0 1"], 3, "cards after .end are not read"),
    ],
)  # fmt: skip
def test_remarks(lines: list[str], line: int, text: str) -> None:
    netlist = parse_netlist("\n".join(["title", *lines, "V1 a 0 1", "R1 a 0 1"]) if lines[0] != ".end" else
                            "\n".join(["title\nV1 a 0 1\nR1 a 0 1", *lines]))  # fmt: skip
    shift = 2 if lines[0] == ".end" else 0
    assert [(at.line - shift, found) for at, found in netlist.notes] == [(line, text)]


@pytest.mark.parametrize(
    ("cards", "line", "beside", "written"),
    [
        (["V1[0:3] y[0:3] 0 1", "Rs[0:3] y 0 50"], 3, "y[0]", "y[0:3]"),
        (["Rs[3:2] 0 Y[5] 50", "V1[0:3] y[5][0:3] 0 1"], 2, "Y[5][2]", "Y[5][3:2]"),
        (["V1[0:1][0:2] y[0:1][0:2] 0 1", "Rs[0:1][0:2] y x[0:1][0:2] 50"], 3, "y[0][0]", "y[0:1][0:2]"),
        (["V1[0:2] y[0:2] 0 1", "Rs[0:1][0:2] x[0:1][0:2] y 50"], 3, "y[0]", "y[0:2]"),
        (["V1[0:2] y[0:2] 0 1", "G1[0:2] 0 x[0:2] y 0 50", "R1[0:2] x[0:2] 0 1"], 3, "y[0]", "y[0:2]"),
        (["V1 a 0 1", "X1 a s", "X2 a s", ".subckt s p", "R1[0:1] p y[0:1] 1", "R2[0:1] y 0 1", ".ends"], 7, "X1.y[0]",
         "X1.y[0:1]"),
    ],
)  # fmt: skip
def test_nodes_that_arrays_share_beside_others_of_the_name(
    cards: list[str], line: int, beside: str, written: str
) -> None:
    found = [(at, text) for at, text in notes(*cards) if "one node" in text]
    assert [at for at, _ in found] == [line]
    assert found[0][1].endswith(f"is one node, beside {beside}; write {written} if all of these are meant")


@pytest.mark.parametrize(
    "cards",
    [
        ["V0 y 0 1", "R1[0:3] y x[0:3] 1", "V1[0:3] y[0:3] 0 1"],  # driven
        ["R0[0:3] y y[0:3] 1", "R1[0:3] y 0 1", "V1[0:3] y[0:3] 0 1"],  # joined with its namesakes
        ["R1[0:3] y 0 1", "V1[4:7] y[4:7] 0 1"],
        ["X1 y s", "R1[0:1] y[0:1] 0 1", ".subckt s p", "R1[0:1] p 0 1", ".ends"],  # another place, another y
    ],
)
def test_nodes_that_arrays_share_as_it_is_meant(cards: list[str]) -> None:
    assert not [text for _, text in notes(*cards) if "one node" in text]


def test_a_controlled_voltage_that_is_read_is_no_slip() -> None:
    cards = ["V1 p 0 1", "R1 p 0 1", "E1 a 0 p 0 2", "E2 b 0 p 0 2", "H1 c 0 V1 2", "E3 d 0 p 0 2", "E4 e 0 p 0 3"]
    read = [".output a v(b,p)", ".save v(c) v(p,d)"]
    text = "voltage-controlled voltage source E4 carries no current: nothing else is at node e"
    assert notes(*cards, *read) == [(8, text)] and len(notes(*cards)) == 5
    for card in ("V2 q 0 1", "R2 q p 1"):  # what is at a node by itself may miss something there
        assert "nothing else is at node q" in notes("V1 p 0 1", "R1 p 0 1", card, ".output q")[0][1]


def test_the_first_of_two_definitions_counts() -> None:
    """As in ngspice, of models and subcircuits; of parameters and functions it is the last."""
    cards = [".model m R(r=1k)", ".model M R(r=2k)", "R1 a 0 m", ".subckt s p", "R1 p 0 3k", ".ends", ".subckt S p",
             "R1 p 0 4k", ".ends", "X1 b s", "I1 0 a 1m", "I2 0 b 1m"]  # fmt: skip
    assert values(deck(*cards)) == {"R1": 1e3, "R.X1.R1": 3e3}
    assert one("R1 a 0 {f(k)}", ".func f(x) {x}", ".func f(x) {2*x}", ".param k=3", ".param k=5") == 10.0
    if ngspice_available():
        found = operating_point("\n".join(["title", *cards, ".op", ".end"]))
        assert (found["a"], found["b"]) == pytest.approx((1.0, 3.0))


def test_a_small_m_is_milli_without_a_remark() -> None:
    assert not notes("V1 a 0 1", "R1 a 0 1m", "R2 a 0 1Meg", "R3 a 0 1MIL")


def test_remarks_come_once_for_all_instances_and_in_deck_order() -> None:
    cell = [".subckt cell p", "R1 p 0 1M", "V1 q 0 SIN(1 1 1)", "R2 p q 1", ".ends"]
    assert notes(*cell, "X1 a cell", "X2 a cell", ".tran 1 1") == [
        (3, "resistor R1: '1M' is 0.001 ohm (M is milli in SPICE, MEG is mega)"),
        (4, "voltage source V1: of SIN only the value at t = 0 counts, 1 V"),
        (9, ".tran is skipped: only the DC operating point is solved"),
    ]


def test_what_ltspice_writes_is_skipped() -> None:
    card = "D1 a 0 1N4148\n.model 1N4148 D(Is=2.52n N=1.752 Cjo=4p Iave=200m Vpk=75 mfg=OnSemi type=silicon)\n.backanno"
    netlist = parse_netlist(f"* C:\\Users\\me\\Draft1.asc\nV1 a 0 1\nR1 a 0 1k\n{card}")
    assert not netlist.notes and netlist.models[0].params["is"] == 2.52e-9


def test_what_is_listed_does_not_matter() -> None:
    assert not notes(".prot", "V1 a 0 1", ".unprot", ".protect", "R1 a 0 1k", ".unprotect")


def test_a_title_that_was_forgotten_is_remarked_on() -> None:
    for title in (
        "V1 a 0 1",
        "R1 a 0 1k",
        "v2 in 0 dc {x}",
        "I3 0 a -5m",
        "V1 a 0 SIN(0 1 1k)",
        "I1 0 a dc 0 pwl ( 0 1)",
    ):
        found = parse_netlist(f"{title}\nR2 a 0 1k\nR3 a 0 1").notes
        assert [text for _, text in found] == [FORGOTTEN]
    for title in (
        "R-2R ladder of 8",
        "Inverter with load 5",
        "V1 drives all",
        "* V1 a 0 1",
        "R1 a b c",
        "I3",
        ".title a",
        "...",
        ".temp: at 85 C",
        ".op of an amplifier",
    ):
        assert not parse_netlist(f"{title}\nR2 a 0 1k\nR3 a 0 1").notes


@pytest.mark.parametrize(
    "card", [".include x.inc", ".inc x.inc", ".LIB x.lib s", ".temp 77", ".param a=1", ".subckt s"]
)
def test_a_dot_card_as_the_title_is_remarked_on(card: str) -> None:
    word = card.split()[0].lower()
    also = "" if word in (".param", ".subckt") else f"; ngspice reads {word} there"
    remark = f"the first line is the title, though it looks like a {word} card: it is not read{also}"
    assert [text for _, text in parse_netlist(f"{card}\nR2 a 0 1k\nR3 a 0 1").notes] == [remark]


@pytest.mark.parametrize(
    ("comment", "lost"), [(";", True), ("  ; c", True), ("* ;", False), ("$ c", False), ("", False)]
)
def test_a_continuation_that_ngspice_loses_is_remarked_on(comment: str, lost: bool) -> None:
    cards = ["V1 a 0 1", "R1 a 0 1k", "* c", comment, "+ m=2", "; c", "R2 a 0 1k"]
    assert values(deck(*cards)) == {"R1": 500.0, "R2": 1e3}
    remark = "ngspice-39 loses a '+' line after a comment line that begins with ';'; begin it with '*'"
    assert notes(*cards) == ([(6, remark)] if lost else [])
    if ngspice_available():
        current = operating_point("\n".join(["title", *cards, ".op", ".end"]))["i(v1)"]
        assert current == pytest.approx(-2e-3 if lost else -3e-3)


def test_parameters_of_a_shockley_diode_beside_ron_are_remarked_on() -> None:
    circuit = cs.parse("t\nV1 a 0 1\nR1 a b 1k\nD1 b 0 d\n.model d D(ron=0 vfwd=0.7 rs=5k bv=3)")
    assert [text for _, text in circuit.notes] == [
        "model d: RS, BV of a Shockley diode have no effect beside RON, ROFF, VFWD, VREV or RREV: the diode is "
        "piecewise linear"
    ]


def test_two_temperature_coefficients() -> None:
    for pair in ("1m 1u", "1m,1u", "{1m} {1u}"):
        netlist = parse_netlist(
            f"t\nR1 a 0 1k tc={pair} m=2\nR2 a 0 1k tc1=1m tc2=1u m=2\nR3 a 0 1k tc=1m\n.temp 127\n"
            f"R4 a 0 1k m=2 tc={pair}"
        )
        r = netlist.tables["R"].values["r"]
        assert r[0] == r[1] == r[3] == pytest.approx(500 * 1.11) and r[2] == pytest.approx(1100)


def test_a_netlist_without_ground() -> None:
    assert notes("V1 a b 1", "R1 a b 1") == [
        (1, "no node is ground (0): the voltages of each part are relative to its first node")
    ]


@pytest.mark.parametrize(
    "cards",
    [
        ["R1 a b 1", "R2 b a 1"],  # V1 alone at ground
        ["R1 a 0 1", "H2 a a V1 1"],  # refused when the circuit is solved, like the next ones
        ["R1 a 0 1", "E2 a a 0 a 1"],
        ["R1 a 0 1", "F2 q 0 V1 1"],
        ["R1 a 0 1", "E2 q 0 a 0 1", "G2 a 0 q 0 1"],
        ["R1 a 0 1", "H2 q 0 V1 1", "G2 a 0 q 0 1"],
    ],
)
def test_elements_about_which_nothing_is_remarked(cards: list[str]) -> None:
    assert not notes("V1 a 0 1", *cards)


@pytest.mark.parametrize("nodes", ["w[0:1] y[0:1]", "y[0:1] w[0:1]"])
def test_a_crossbar_may_be_the_only_one_at_ground(nodes: str) -> None:
    cell = [".subckt cell w[0] w[1] v", f"RW[0:1][0:1] {nodes} 1", "V1 y[0] v 1", "R1 y[1] v 1", ".ends"]
    assert not notes(*cell, "X1 0 gnd v cell", "R2 v X1.y[1] 1")


@pytest.mark.parametrize(("g", "nodes"), [([[1.0], [0.0]], "x[0:1] y[0:0]"), ([[1.0, 0.0]], "y[0:0] x[0:1]")])
def test_conductances_of_0_in_a_crossbar_join_nothing(tmp_path: Path, g: list[list[float]], nodes: str) -> None:
    np.save(tmp_path / "g.npy", g)
    ranges = "[0:1][0:0]" if len(g) == 2 else "[0:0][0:1]"
    (tmp_path / "deck.cir").write_text(f"t\nV1 a 0 1\nR1[0:1] a x[0:1] 1\nRW{ranges} {nodes} g=@g.npy\nR2 y[0] 0 1\n")
    assert [text for _, text in read_netlist(tmp_path / "deck.cir").notes] == [
        "resistor R1[1] carries no current: nothing else is at node x[1]"
    ]


def test_many_idle_elements_are_not_all_named() -> None:
    found = notes("V1 a 0 1", "R0 a 0 1", *[f"R{k} a n{k} 1" for k in range(1, 31)])
    assert len(found) == 11
    assert found[-1] == (33, "20 more elements have no effect")
    of_one_card = [text for _, text in notes("V1 a 0 1", "R0 a 0 1", "R[0:29] a n[0:29] 1")]
    assert "R[0] carries no current" in of_one_card[0] and of_one_card[-1] == "20 more elements have no effect"
    eleven = notes("V1 a 0 1", "R0 a 0 1", *[f"R{k} a n{k} 1" for k in range(1, 12)])
    assert len(eleven) == 11 and eleven[-1] == (14, "resistor R11 carries no current: nothing else is at node n11")


def test_an_unfinished_script_is_skipped_to_the_end() -> None:
    netlist = deck("R1 a 0 1", ".control", "R2 a 0 1")
    assert netlist.tables["R"].names == ["R1"]
    assert ".control without .endc: all that follows is skipped" in [text for _, text in netlist.notes]


# ---- the fast way and the general way --------------------------------------------------------------------------------


def assert_same(fast: Netlist, general: Netlist) -> None:
    assert fast.nodes == general.nodes
    for kind, table in fast.tables.items():
        other = general.tables[kind]
        assert table.names == other.names
        for mine, its in ((table.a, other.a), (table.b, other.b), (table.seq, other.seq), (table.order, other.order)):
            np.testing.assert_array_equal(mine, its, strict=True)
        assert table.values.keys() == other.values.keys()
        for column in table.values:
            np.testing.assert_array_equal(table.values[column], other.values[column], strict=True)
        assert table.links.keys() == other.links.keys()
        for column, rows in table.links.items():
            np.testing.assert_array_equal(rows, other.links[column], strict=True)
        assert [fast.at(seq) for seq in table.seq] == [general.at(seq) for seq in other.seq]
    assert fast.arrays == general.arrays
    assert fast.models == general.models
    assert fast.notes == general.notes
    assert (fast.title, fast.options, fast.outputs) == (general.title, general.options, general.outputs)


def read_both(path: Path) -> tuple[Netlist | str, Netlist | str]:
    """The netlist, or the message, by the fast way and by the general way."""
    out: list[Netlist | str] = []
    for plain_allowed in (True, False):
        try:
            out.append(expand(read_text(read_bytes(path, None), str(path), plain_allowed=plain_allowed), str(path)))
        except NetlistError as error:
            out.append(str(error))
    return out[0], out[1]


NODE = st.sampled_from(["0", "gnd", "a", "B", "b", "c", "n[1]", "X1.m", "x2.M", "00"])
NUMBER = st.sampled_from(
    ["1", "2.5k", "1e-3", "0", "7ohm", "1M", "3.3Meg", "{p}", "p", "r=4", "0.1 ; note", "5 $ note"]
)
SOURCE = st.sampled_from(["V@ {} {} 2", "i@ {} {} -2m", "v@ {} {} SIN(1 1 1)", "I@ {} {} 3 // note"])
CARD = st.one_of(
    st.builds("R@ {} {} {}".format, NODE, NODE, NUMBER),
    st.builds("r[@] {} {} {}".format, NODE, NODE, NUMBER),
    st.builds(str.format, SOURCE, NODE, NODE),
    st.builds(
        str.format, st.sampled_from(["D@ {} {} dm", "C@ {} {} 1u", "X@ {} {} cell", "R@ {}\n+ {} 4"]), NODE, NODE
    ),
    st.builds("RA@[0:1] {} m[0:1] 3".format, NODE),
    st.builds("E@ {} {} a b {{p}}\nF@ {} 0 Vc 2".format, NODE, NODE, NODE),
    st.sampled_from(["", "* comment", "; comment", "  ", ".temp 3@", ".subckt s@ p q\nR1 p q 1\nRx q r 2\n.ends"]),
    st.sampled_from([".control\nR1 a b 1\n.endc", ".include part@.inc", "X@ a B cell\nR0@ x@.m c 2"]),
)
HEAD = ["title", ".param p=6", ".model dm D(IS=1e-12)", ".subckt cell p q", "R1 p m 1", "R2 m q 2", "V1 p q 3",
        "H1 m q V1 2", ".ends", "Vc a 0 1"]  # fmt: skip


def numbered(cards: list[str], prefix: str = "") -> list[str]:
    """The cards with their names made different from one another."""
    return [card.replace("@", f"{prefix}{k}") for k, card in enumerate(cards)]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(CARD, max_size=12), st.lists(CARD, max_size=4))
def test_plain_cards_mean_the_same_read_the_general_way(
    tmp_path_factory: pytest.TempPathFactory, cards: list[str], included: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "deck.cir"
    path.write_text("\n".join(["title", *HEAD[1:], *numbered(cards), "R_last a 0 1"]))
    for k in range(len(cards)):
        part = [card for card in included if not card.startswith((".include", ".temp"))]
        (folder / f"part{k}.inc").write_text("\n".join(numbered(part, f"{k}_")))
    fast, general = read_both(path)
    assert isinstance(fast, Netlist), fast
    assert isinstance(general, Netlist), general
    assert_same(fast, general)


@pytest.mark.parametrize(
    "line",
    ["R1 a b -5", "R1 a b -inf", "V0 a b 1", "r0 a b 1", "R[1] a 0 1k", "R2 a b", "R2 a b c d", "R2 a b 4k7",
     "R[0:3] a b 1"],
)  # fmt: skip
def test_both_ways_refuse_alike(tmp_path: Path, line: str) -> None:
    path = tmp_path / "deck.cir"
    path.write_text(f"title\nV0 in 0 1\nR0 in 0 1k\nR[0:3] in 0 1k\n{line}\n")
    fast, general = read_both(path)
    assert isinstance(fast, str)
    assert fast == general


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_valid_decks_mean_the_same_read_the_general_way(path: Path) -> None:
    fast, general = read_both(path)
    assert isinstance(fast, Netlist)
    assert isinstance(general, Netlist)
    assert_same(fast, general)


# ---- seed ------------------------------------------------------------------------------------------------------------

DRAWS = ["title", ".param p={aunif(5, 1)}", "R1 a 0 {p}", "R2[0:3] a 0 {gauss(5, 0.1, 1)}", "V1 a 0 {limit(5, 1)}"]


def test_a_seed_goes_before_that_of_the_deck(tmp_path: Path) -> None:
    for own in ("", ".options seed=8", ".options temp=30 seed={4*2}"):
        lines = [*DRAWS, own] if own else DRAWS
        wanted = parse_netlist("\n".join([*lines, ".options seed=3"]))
        path = tmp_path / "deck.cir"
        path.write_text("\n".join(lines))
        for found in (parse_netlist("\n".join(lines), seed=3), read_netlist(path, seed=3), read_netlist(path, 3)):
            assert found.options == wanted.options
            assert found.options.seed == 3
            assert values(found) == values(wanted)
            assert values(found, "V") == values(wanted, "V")
        for circuit in (cs.parse("\n".join(lines), seed=3), cs.load(path, seed=3)):
            assert circuit.netlist.options.seed == 3
            np.testing.assert_array_equal(circuit.conductors.g, 1.0 / np.array(list(values(wanted).values())))


def test_other_seeds_draw_other_values() -> None:
    text = "\n".join([*DRAWS, ".options seed=8"])
    assert values(parse_netlist(text)) == values(parse_netlist(text, seed=None)) == values(parse_netlist(text, seed=8))
    drawn = [tuple(values(parse_netlist(text, seed=seed)).values()) for seed in (0, 1, 2, 8, 2**53)]
    assert len(set(drawn)) == 5
    assert parse_netlist(text, seed=0).options.seed == 0


@pytest.mark.parametrize("seed", [-1, 2**53 + 1, 0.5])
def test_a_seed_is_a_whole_number_that_a_deck_could_hold(seed: int) -> None:
    with pytest.raises(cs.SettingsError, match=r"^seed .* is not a whole number from 0 to 2\^53; choose another$"):
        parse_netlist("\n".join(DRAWS), seed=seed)


def test_a_seed_does_not_mend_the_deck() -> None:
    for seed, said in (("-1", "-1"), ("0.5", "0.5"), ("1e17", "1e\\+17")):
        with pytest.raises(NetlistError, match=rf"option seed: {said} is not a whole number from 0 to 2\^53"):
            parse_netlist("\n".join([*DRAWS, f".options seed={seed}"]), seed=3)


# ---- conductances ----------------------------------------------------------------------------------------------------


def test_of_resistance_and_conductance_the_given_one_is_exact() -> None:
    lines = [".param g=0.7", "R1 a 0 49", "R2 a 0 g=0.7", "R3 a 0 {g*10}", "R4[0:1] a 0 g={g}", "R5 a 0 g=0.7 m=2"]
    table = deck(*lines, "R6 a 0 49 m=2", "R7 a 0 g=0", "R8 a 0 0", "R9 a 0 inf", "R10 a 0 1 scale=0").tables["R"]
    r, g = (dict(zip(table.names, table.values[column].tolist(), strict=True)) for column in ("r", "g"))
    assert [g["R2"], g["R4[0]"], g["R4[1]"], g["R5"]] == [0.7, 0.7, 0.7, 1.4]
    assert [r["R1"], r["R3"], r["R6"]] == [49.0, 7.0, 24.5]
    assert [g["R7"], g["R8"], g["R9"], g["R10"]] == [0.0, np.inf, 0.0, np.inf]
    assert [r["R7"], r["R8"], r["R9"], r["R10"]] == [np.inf, 0.0, np.inf, 0.0]
    for name in ("R1", "R3", "R6"):
        assert g[name] == 1.0 / r[name]
    for name in ("R2", "R4[0]", "R5"):
        assert r[name] == 1.0 / g[name]


def test_includes_that_double_have_an_end(tmp_path: Path) -> None:
    for k in range(40):
        (tmp_path / f"d{k}.inc").write_text(f".include d{k + 1}.inc\n.include d{k + 1}.inc\n")
    (tmp_path / "d40.inc").write_text("* nothing\n")
    (tmp_path / "deck.cir").write_text("title\n.include d0.inc\nV1 a 0 1\nR1 a 0 1\n")
    with pytest.raises(NetlistError, match="more than 10,000 files are included; merge some, or include each once"):
        read_netlist(tmp_path / "deck.cir")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a file without an end")
def test_files_without_an_end_are_not_included(tmp_path: Path) -> None:
    (tmp_path / "deck.cir").write_text("title\n.include /dev/zero\nR1 a 0 1\n")
    with pytest.raises(NetlistError, match="/dev/zero is not a regular file; include a text file"):
        read_netlist(tmp_path / "deck.cir")


def test_with_rshunt_nothing_is_alone_at_a_node() -> None:
    cards = ("V1 1 0 1", "R1 1 2 1meg")
    assert any("R1 carries no current" in text for _, text in deck(*cards).notes)
    assert not deck(".options rshunt=1e6", *cards).notes
