"""Currents, powers and voltages on request: expressions, values, laws of nature, and what ngspice says."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from growth import LIMIT, exponent
from helpers import PRECISE, needs_ngspice

import circuitsim as cs
from circuitsim import cli, gallery
from circuitsim.netlist.saves import split_saves
from circuitsim.saved import Saved, as_saves, wanted_saves
from circuitsim.spice.export import export
from circuitsim.spice.ngspice import run_ngspice, tight_options

DIVIDER = "divider\nV1 In 0 10\nR1 In Out 1k\nR2 Out 0 3k\n"
ARRAY = (
    "array\nVx[0:2] x[0:2] 0 1\nR1[0:2] x[0:2] y[0:2] 1k\nR2[0:2] y[0:2] 0 1k\n"
    "RW[0:2][5:4] x[0:2] z[5:4] g=1m\nRz[5:4] z[5:4] 0 1k\n"
)
NESTED = (
    "nested\nV1 a 0 6\nX1 a outer\n.subckt outer p\nR1 p q 1k\nX2 q inner\n.ends\n.subckt inner p\nR1 p 0 2k\n.ends\n"
)


def saved(text: str, *expressions: str, **values: object) -> dict[str, list[float]]:
    """Columns by name."""
    circuit = cs.parse(text, "deck.cir").with_values(values)  # type: ignore[arg-type]
    found = Saved(cs.solve(circuit, PRECISE), wanted_saves(circuit, expressions))
    assert len(set(found.labels)) == found.count
    return dict(zip(found.labels, found.values().T.tolist(), strict=True))


def one(text: str, *expressions: str) -> dict[str, float]:
    return {name: column[0] for name, column in saved(text, *expressions).items()}


# -- expressions -------------------------------------------------------------------------------------------------------


def test_expressions_are_split_at_blanks_and_commas_outside_parentheses() -> None:
    assert split_saves("v(a),i(r1) , v( a , b )  @r1[p],,all b") == [
        "v(a)", "i(r1)", "v(a,b)", "@r1[p]", "all", "b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("v(out)", 7.5), ("V(OUT)", 7.5), ("v(in,out)", 2.5), ("v(out,in)", -2.5), ("v(0)", 0.0), ("v(out,gnd)", 7.5),
        ("i(v1)", -2.5e-3), ("V1#branch", -2.5e-3), ("@v1[i]", -2.5e-3), ("@V1[p]", -25e-3), ("@v1[dc]", 10.0),
        ("i(R1)", 2.5e-3), ("@r1[i]", 2.5e-3), ("@r1[p]", 6.25e-3), ("@r1[v]", 2.5), ("@r1[r]", 1e3),
        ("@r1[Resistance]", 1e3),
    ],
)  # fmt: skip
def test_one_thing_keeps_the_spelling_of_its_expression(expression: str, value: float) -> None:
    assert one(DIVIDER, expression) == pytest.approx({expression: value}, rel=1e-12)


def test_a_bare_word_is_a_node() -> None:
    assert one(DIVIDER, "out") == pytest.approx({"v(out)": 7.5})


def test_each_kind_of_element() -> None:
    text = DIVIDER + "I1 0 Out 2m\nD1 Out 0 dd\n.model dd D(ron=1k vfwd=5)\nL1 Out e 1m\nR3 e 0 4k\nC1 In Out 1u\n"
    # KCL at Out: (10 - v)/1k + 2m = v/3k + (v - 5)/1k + v/4k: 31/12 v = 17
    v = 17 * 12 / 31
    assert one(
        text, "@i1[i]", "@i1[c]", "@i1[current]", "@i1[dc]", "@i1[p]", "@d1[id]", "@d1[i]", "i(D1)", "@d1[vd]",
        "@d1[p]", "@l1[i]", "@l1[current]", "@l1[v]", "@l1[p]", "@c1[i]", "@c1[v]", "@c1[p]", "i(C1)",
    ) == pytest.approx(
        {
            "@i1[i]": 2e-3, "@i1[c]": 2e-3, "@i1[current]": 2e-3, "@i1[dc]": 2e-3, "@i1[p]": -2e-3 * v,
            "@d1[id]": (v - 5) / 1e3, "@d1[i]": (v - 5) / 1e3, "i(D1)": (v - 5) / 1e3, "@d1[vd]": v,
            "@d1[p]": (v - 5) / 1e3 * v, "@l1[i]": v / 4e3, "@l1[current]": v / 4e3, "@l1[v]": 0, "@l1[p]": 0,
            "@c1[i]": 0, "@c1[v]": 10 - v, "@c1[p]": 0, "i(C1)": 0,
        }, rel=1e-10, abs=1e-15,
    )  # fmt: skip


def test_arrays_and_crossbars() -> None:
    half, third = 0.5e-3, 1e-3 / 4  # z: three times 1 mS to 1 V, 1 mS to ground: 0.75 V
    assert one(ARRAY, "i(R1)") == pytest.approx({f"i(R1[{k}])": half for k in range(3)})
    assert one(ARRAY, "@R2[2:1][p]") == pytest.approx({f"@R2[{k}][p]": 0.25e-3 for k in (2, 1)})
    assert one(ARRAY, "i(r1[1])") == pytest.approx({"i(r1[1])": half})
    names = [f"i(RW[{i}][{j}])" for i in range(3) for j in (5, 4)]
    found = one(ARRAY, "i(rw)")
    assert list(found) == names
    assert found == pytest.approx(dict.fromkeys(names, third))
    assert one(ARRAY, "i(rw[1][4:5])") == pytest.approx({"i(RW[1][4])": third, "i(RW[1][5])": third})
    assert one(ARRAY, "@rw[2][5][p]", "@rw[2][5][r]", "@rw[2][5][v]") == pytest.approx(
        {"@rw[2][5][p]": third / 4, "@rw[2][5][r]": 1e3, "@rw[2][5][v]": 0.25}
    )
    assert one(ARRAY, "v(y[0:2])", "v(z[4])") == pytest.approx(
        {"v(y[0])": 0.5, "v(y[1])": 0.5, "v(y[2])": 0.5, "v(z[4])": 0.75}
    )


def test_members_of_the_second_of_two_crossbars() -> None:
    """At y[k] two times 1 mS to 1 V, and 1 mS to ground: 2/3 V; at z[k] two times 0.5 mS: 1/2 V."""
    text = (
        "t\nV1[0:1] x[0:1] 0 1\nRa[0:1][0:1] x[0:1] y[0:1] 1k\nRb[0:1][0:2] x[0:1] z[0:2] 2k\n"
        "Ry[0:1] y[0:1] 0 1k\nRz[0:2] z[0:2] 0 1k\n"
    )
    assert one(text, "@rb[1][2][r]", "i(rb[1][2])") == pytest.approx({"@rb[1][2][r]": 2e3, "i(rb[1][2])": 0.25e-3})
    first = {f"i(Ra[{i}][{j}])": 1e-3 / 3 for i in (0, 1) for j in (0, 1)}
    second = {f"i(Rb[{i}][{j}])": 0.25e-3 for i in (0, 1) for j in (0, 1, 2)}
    assert one(text, "i(rb)") == pytest.approx(second)
    found = one(text, "i(Rb[1][1:2])", "alli")
    assert {name: value for name, value in found.items() if name in first | second} == pytest.approx(first | second)
    found = one(text, "all")
    assert [found["@Ra[1][1][p]"], found["@Rb[1][2][p]"]] == pytest.approx([1e-3 / 9, 0.125e-3])


def test_elements_in_subcircuits() -> None:
    found = one(NESTED, "@r.x1.r1[i]", "@R.X1.X2.R1[p]", "v(x1.q)", "i(r.x1.x2.r1)")
    assert found == pytest.approx({"@r.x1.r1[i]": 2e-3, "@R.X1.X2.R1[p]": 8e-3, "v(x1.q)": 4.0, "i(r.x1.x2.r1)": 2e-3})


CELLS = (
    "cells\n.subckt cell w b\nRm w b 1k\nRs[0:1] b m[0:1] g=1m\n.ends\nV1 w[0] 0 1\nV2 w[1] 0 2\n"
    "X[0:1][0:2] w[0:1] b[0:2] cell\nRb[0:2] b[0:2] 0 1k\n"
)


def test_elements_of_several_instances() -> None:
    """Between the wires, at 1 and 2 V, each b[k] is at 1 V: nothing through the first row, 1 mA through the second."""
    names = [f"R.X[{i}][{j}].Rm" for i in (0, 1) for j in (0, 1, 2)]
    found = one(CELLS, "i(R.X[0:1][0:2].Rm)")
    assert list(found) == [f"i({name})" for name in names]
    np.testing.assert_allclose([*found.values()], [0, 0, 0, 1e-3, 1e-3, 1e-3], atol=1e-12)
    assert list(one(CELLS, "@r.x[1:0][2].rm[p]")) == ["@r.x[1][2].rm[p]", "@r.x[0][2].rm[p]"]
    members = list(one(CELLS, "@R.X[0:1][0].Rs[1:0][r]"))
    assert members == [f"@R.X[{k}][0].Rs[{m}][r]" for k in (0, 1) for m in (1, 0)]
    for wrong, message in (
        ("i(R.X[0:2][0].Rm)", r"no element 'R.X\[2\]\[0\].Rm'"),
        ("i(R.X[0:1].Rm)", r"no element 'R.X\[0\].Rm'"),
        ("i(R.X[0:9999][0:9999].Rm)", "more than the 10,000,000"),
    ):
        with pytest.raises(cs.SettingsError, match=message):
            one(CELLS, wrong)


def test_all_and_its_parts() -> None:
    nodes, flows = ["v(In)", "v(Out)"], ["i(R1)", "i(R2)", "i(V1)"]
    assert list(one(DIVIDER, "allv")) == nodes
    assert list(one(DIVIDER, "alli")) == flows
    assert list(one(DIVIDER, "ALL")) == [*nodes, *flows, "@R1[p]", "@R2[p]", "@V1[p]"]
    assert list(one(DIVIDER, "v(out)", "i(r2)", "all")) == [
        "v(out)", "i(r2)", "v(In)", "i(R1)", "i(V1)", "@R1[p]", "@R2[p]", "@V1[p]",
    ]  # fmt: skip
    assert list(one(DIVIDER + ".options reltol=1e-4 savecurrents\n")) == flows
    assert len(one(ARRAY, "all")) == 8 + 2 * (3 + 6 + 6 + 2)


def test_cards_and_options_add_up() -> None:
    text = DIVIDER + ".save v(out) @r1[p]\n.print op i(r2), v(in, out)\n.PRINT DC v(in)\n.print tran i(c9) vdb(x)\n"
    assert list(one(text, "i(r2),@r2[p]")) == ["v(out)", "@r1[p]", "i(r2)", "v(in,out)", "v(in)", "@r2[p]"]
    assert list(one(DIVIDER)) == []


def test_what_print_holds_besides_becomes_a_note() -> None:
    cards = ".print ac vdb(out)\n.print v(in)-v(out) 2*v(out) v( in )\n.print dc par('v(in) * 2') {v(in)*2}, i (R1)\n"
    circuit = cs.parse(DIVIDER + cards + ".print dc V(*) i(*)\n", "deck.cir")
    assert circuit.netlist.saves == ("v(in)", "i(R1)", "allv", "alli")
    skipped = "are formulas, and are skipped; v(a,b), i(r1) and @r1[p] can be saved"
    assert [(at.line, text) for at, text in circuit.netlist.notes] == [
        (5, ".print ac is skipped: only the DC operating point is solved"),
        (6, f".print: 'v(in)-v(out)', '2*v(out)' {skipped}"),
        (7, f".print: 'par('v(in)*2')', '{{v(in)*2}}' {skipped}"),
    ]
    close = cs.parse(DIVIDER + ".print dc v(in)v(out)i (R1)@r1[p]\n.save v(in)v(in,out)\n")
    assert close.netlist.saves == ("v(in)", "v(out)", "i(R1)", "@r1[p]", "v(in)", "v(in,out)")
    with pytest.raises(cs.SettingsError, match=re.escape("'v(out)-v(in)' is a formula: write v(out,in)")):
        one(DIVIDER, "v(out)-v(in)")


@pytest.mark.parametrize("path", ["ra[{}]", "r.x[0:{}].r1", "r.x" + 300 * "[0:{}]" + ".r1", "ra[0:{}]"])
def test_indices_that_python_does_not_read_are_no_elements(path: str) -> None:
    """It reads no whole number of more than 4,300 digits, and writes none."""
    for digits in (15, 5000):
        word = path.replace("{}", "9" * digits)
        with pytest.raises(cs.SettingsError, match=r"no element|is an array|more than|at most 15|are more"):
            wanted_saves(cs.parse(ARRAY), [f"i({word})"])
        with pytest.raises(cs.NetlistError, match=r"no element|more than the netlist has|at most 15"):
            cs.parse(f"{ARRAY}\n.train {word}")


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_a_save_of_nothing_is_an_error(text: str) -> None:
    with pytest.raises(cs.SettingsError, match=f"^--save '{text}' names nothing"):
        wanted_saves(cs.parse(ARRAY, "deck.cir"), [text])


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("v(ou)", "no node 'ou' in deck.cir; nodes are 0, x[0], x[1], x[2], y[0] ..."),
        ("v(y[0:9])", "'y[0:9]' names more nodes than deck.cir has; shorten the range"),
        ("v(y[1:4])", "no node 'y[3]' in deck.cir; nodes are y[2], y[1], y[0] ..."),
        ("v(x[0:2],y[0:1])", "'v(x[0:2],y[0:1])': a difference of 3 nodes and 2; name as many of both"),
        ("v(y[0],r[7:8].z)", "no node 'r[7].z' in deck.cir"),
        ("v(a,b,c)", "'v(a,b,c)' names 3 nodes; write v(a) or v(a,b)"),
        ("i(r9)", "no element 'r9' in deck.cir; elements are"),
        ("@r1[1:3][i]", "'r1[1:3]': the array's indices run from 0 to 2"),
        ("@r1[3][i]", "'r1[3]': the array's indices run from 0 to 2"),
        ("i(rw[1])", "'rw[1]' has 1 index; the array has 2"),
        ("@rz[4][vd]", "element 'rz[4]' has no 'vd'; it has @rz[4][i], @rz[4][p], @rz[4][v], @rz[4][r], @rz[4][resist"),
        ("vdb(x[0])", "'vdb(x[0])' cannot be saved; write v(a), v(a,b), i(r1), @r1[p], all, allv or alli"),
        ("@r1", "no node '@r1' in deck.cir"),
        ("-v(y[1])", "'-v(y[1])' is a formula: v(a,b), i(r1) and @r1[p] can be saved"),
        ("i(", "'i(' has a parenthesis without its partner"), (")", "')' has a parenthesis without its partner"),
    ],
)  # fmt: skip
def test_wrong_expressions_are_named(expression: str, message: str) -> None:
    with pytest.raises(cs.SettingsError) as caught:
        wanted_saves(cs.parse(ARRAY, "deck.cir"), [expression])
    assert str(caught.value).startswith(f"--save {expression}: {message}")
    with pytest.raises(cs.NetlistError) as refused:
        cs.parse(f"{ARRAY}.save {expression}", "deck.cir")
    assert refused.value.at is not None
    assert refused.value.at.line == 7
    assert refused.value.message.startswith(message)


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.netlist.saves.MOST_SAVED", 5)
    circuit = cs.parse(ARRAY, "deck.cir")
    with pytest.raises(cs.SettingsError, match=r"--save all: crossbar RW: 6 conductances are more than the 5 that can"):
        wanted_saves(circuit, ["all"])
    with pytest.raises(
        cs.SettingsError, match=r"--save i\(rw\): 'rw': 6 members are more than the 5 that can be saved"
    ):
        wanted_saves(circuit, ["i(rw)"])
    monkeypatch.setattr("circuitsim.saved.MOST_SAVED", 5)
    with pytest.raises(cs.SettingsError, match="more than 5 voltages, currents and powers to save"):
        wanted_saves(circuit, ["i(r1)", "i(r2)"])


# -- values ------------------------------------------------------------------------------------------------------------


def test_new_values_and_batches() -> None:
    found = saved(ARRAY, "@vx[0][dc]", "i(r1[0])", "@r1[1][r]", "v(x[0],y[0])", Vx=np.array([[1.0, 1, 1], [4, 4, 4]]))
    assert found == {
        "@vx[0][dc]": [1.0, 4.0], "i(r1[0])": [5e-4, 2e-3], "@r1[1][r]": [1e3, 1e3], "v(x[0],y[0])": [0.5, 2.0],
    }  # fmt: skip
    found = saved(DIVIDER + "I1 0 Out 0\n", "@r2[r]", "@i1[dc]", R2=1e-3, I1=np.array([0.0, 2e-3]))
    assert found == {"@r2[r]": [1e3, 1e3], "@i1[dc]": [0.0, 2e-3]}


def test_open_elements_carry_nothing() -> None:
    text = (
        DIVIDER + "R3 Out 0 inf\nD1 Out 0 open\n.model open D(is=0)\n"
        "V2 w[0] 0 1\nRW[0:0][0:1] w[0:0] q[0:1] g=0\nRq[0:1] q[0:1] 0 1\n"
    )
    found = one(text, "i(r3)", "@r3[p]", "i(d1)", "@d1[p]", "i(rw)", "@r3[r]", "@rw[0][0][r]")
    assert found.pop("@r3[r]") == found.pop("@rw[0][0][r]") == np.inf
    assert set(found.values()) == {0.0}


def test_what_is_more_than_float64_holds_is_infinite() -> None:
    """The power of a crossbar, and the resistance of next to no conductance in it, in whichever way one asks."""
    circuit = cs.parse("t\nV1[0:1] x[0:1] 0 1\nV2 h[0] 0 0\nRW[0:1][0:0] x[0:1] h[0:0] 1k\nR1 x[0] h[0] 1k")
    found = cs.solve(circuit.with_values({"V1": 1e120, "RW": [[1e100], [1e-320]], "R1": 1e100}))
    powers = [found.power(name).ravel().tolist() for name in ("RW", "RW[0:1][0]", "R1")]
    assert powers[0] == powers[1] and powers[0][0] == powers[2][0] == np.inf
    saved = Saved(found, wanted_saves(found.circuit, ["@RW[0:1][0][r] @RW[0:1][0][p]"])).values()[0]
    assert saved.tolist() == [1e-100, np.inf, *powers[0]]


def test_volts_of_sources_in_some_rows() -> None:
    problem = cs.compile_problem(cs.parse(DIVIDER)).with_values({"V1": np.arange(20.0)[:, None]})
    solution = cs.solve(problem)
    found = Saved(solution, wanted_saves(solution.circuit, ["@v1[dc]"]))
    assert found.values(slice(2, 4)).tolist() == [[2.0], [3.0]]


@pytest.mark.parametrize("volts", [1, -9])
def test_the_junction_of_a_diode_of_pieces_has_all_its_volts(volts: float) -> None:
    """RS is a parameter of other diodes; what stands in its place here is no series resistance."""
    found = one(
        f"t\nV1 a 0 {volts}\nR1 a b 1k\nD1 b 0 di\n.model di D(ron=10 vfwd=0.1 vrev=5 rrev=1)", "@d1[vd]", "v(b)"
    )
    assert found["@d1[vd]"] == found["v(b)"]


def test_before_there_are_voltages_nothing_is_known() -> None:
    circuit = cs.parse("refused\nI1 0 a 1m\nR1 a 0 1k\nR2 b 0 1k\n.model di D(ron=0)\nD1 a b di\n")
    solution = cs.solve(circuit, cs.Settings("bcd", max_sweeps=1), raise_on_failure=False)
    if solution.solved:
        pytest.skip("this method solves it")
    found = Saved(solution, wanted_saves(circuit, ["all"]))
    assert np.isnan(found.values()).all()
    assert not found.ambiguous.any()


def test_without_voltages_nothing_is_called_ambiguous() -> None:
    """The currents of V1 and V2, side by side, would be."""
    circuit = cs.parse("t\nI1 0 x 1\nR1 x 0 1\nG1 x 0 x 0 -1\nV1 b 0 1\nV2 b 0 1\nR2 b 0 1")
    solution = cs.solve(circuit, cs.Settings(method="bcd"), raise_on_failure=False)
    assert not solution.solved
    assert not Saved(solution, wanted_saves(circuit, ["i(v1) i(v2)"])).ambiguous.any()


def test_what_is_left_out_has_no_value_of_any_kind() -> None:
    circuit = cs.parse("t\nV1 a 0 1\nR1 a 0 1k\nI1 0 x 1m\nR3 x y 2k")
    solution = cs.solve(circuit, cs.Settings(lenient=True))
    found = Saved(solution, wanted_saves(solution.circuit, ["@r3[r] v(a,x) v(x,y) i(r3) @r1[r]"]))
    assert found.left_out.tolist() == [True, True, True, True, False]
    np.testing.assert_array_equal(np.isnan(found.values()[0]), found.left_out)
    assert not found.ambiguous.any()


def test_an_element_with_one_end_at_a_node_that_is_left_out_has_no_current() -> None:
    deck = "t\nV1 x[0] 0 1\nI1 0 x[1] 1m\nRW[0:1][0:1] x[0:1] h[0:1] 1k\nRl[0:1] h[0:1] 0 1k\nR1 x[0] x[1] 1k\n"
    circuit = cs.parse(deck).with_values({"RW": [[1e-3, 1e-3], [0.0, 0.0]], "R1": 0.0})
    solution = cs.solve(circuit, cs.Settings(lenient=True))
    for found in (solution.current, solution.power):
        assert np.isnan(found("RW")[0]).tolist() == [[False, False], [True, True]]
        assert np.isnan(found("R1")).all()


def circuits() -> Iterator[str]:
    for seed in range(25):
        yield gallery.random_circuit(np.random.default_rng(seed))
    for seed in range(5):
        rng = np.random.default_rng(100 + seed)
        yield gallery.random_circuit(rng, gallery.Recipe(nodes=20, crossbars=3, subcircuits=3, shorts=3, ideal=4))
    yield gallery.crossbar(6, 9).text
    yield gallery.crossbar(30, 20, siemens=3e-4).text
    yield gallery.drn([6, 8, 4])
    yield gallery.grid(5, 7).text


@pytest.mark.parametrize("text", list(circuits()))
def test_powers_add_up_to_zero_and_currents_meet_kcl_at_every_node(text: str) -> None:
    """Tellegen: the sum of the powers over all elements; and KCL from the very currents that are given, ground too."""
    circuit = cs.parse(text)
    solution = cs.solve(circuit, cs.Settings(tol=1e-13), raise_on_failure=False)
    assert solution.residuals.kcl_relative < 1e-11
    found = Saved(solution, wanted_saves(circuit, ["all"]))
    column = dict(zip(found.labels, found.values()[0].tolist(), strict=True))
    powers = np.array([value for name, value in column.items() if name.endswith("[p]")])
    assert abs(powers.sum()) <= 1e-12 * np.abs(powers).sum()

    netlist = circuit.netlist
    net, total = np.zeros((2, len(netlist.nodes)))
    ends = [
        (f"i({name})", a, b)
        for table in netlist.tables.values()
        for name, a, b in zip(table.names, table.a.tolist(), table.b.tolist(), strict=True)
    ]
    for x in netlist.crossbars:
        ends += [
            (f"i({x.name}[{i}][{j}])", a, b)
            for i, a in zip(x.ranges[0], x.rows.tolist(), strict=True)
            for j, b in zip(x.ranges[1], x.cols.tolist(), strict=True)
        ]
    for name, a, b in ends:
        current = column.pop(name)
        np.add.at(net, [a, b], [current, -current])
        np.add.at(total, [a, b], abs(current))
    assert not [name for name in column if name.startswith("i(")]
    assert (np.abs(net) <= 1e-12 * max(total.max(), 1e-300)).all()


def test_everything_of_a_large_netlist_is_quick() -> None:
    """Up to 80,000 elements, shorts and sources among them: what saving adds to a solve."""

    def prepare(n: int) -> Callable[[], None]:
        text = f"many\nV[1:{n}] a[1:{n}] 0 1\nR1[1:{n}] a[1:{n}] b[1:{n}] 1k\nR2[1:{n}] b[1:{n}] c[1:{n}] 0\n"
        circuit = cs.parse(f"{text}R3[1:{n}] c[1:{n}] 0 3k\nI1[1:{n}] 0 c[1:{n}] 1m\n")
        solution = cs.solve(circuit)

        def work() -> None:
            found = Saved(replace(solution), wanted_saves(circuit, ["all"]))  # a copy that remembers nothing
            column = dict(zip(found.labels, found.values()[0].tolist(), strict=True))
            assert not found.ambiguous.any()
            assert len(column) == 13 * n
            assert column[f"i(R2[{n}])"] == pytest.approx(-0.5e-3)  # b = c = 1.5 V
            assert column["@V[1][p]"] == pytest.approx(0.5e-3)

        return work

    assert exponent(prepare, 4_000, repeats=2) < LIMIT


# -- ngspice -----------------------------------------------------------------------------------------------------------

PEERS = {
    "bridge": (
        "V1 in com 12\nR1 com 0 10\nD1 in p dd\nD2 com p dd m=2\nD3 n in dd area=3\nD4 n com dd\n"
        "Rl p n 220 m=2\nRg n 0 1k\n.model dd D(is=2e-9 n=1.8 rs=0.6)\n",
        "@d1[id] @d2[id] @d3[id] @d3[vd] @d4[id] @d4[vd] @d2[p] @d3[p] @rl[i] @rl[p] @r1[r] @r1[p] @v1[i] @v1[p]",
    ),
    "zener": (
        "V1 in 0 9\nR1 in z 470\nD1 0 z zd\nI1 z 0 2m\nR2 z 0 2.2k\n.model zd D(is=1e-14 bv=5.1 ibv=5m rs=2)\n",
        "@d1[id] @d1[vd] @d1[p] @i1[c] @i1[p] @r1[i] @r2[p] @i1[dc] @v1[dc]",
    ),
    "nested": (
        "V1 a 0 6\nX1 a b outer\nL1 b c 1m\nV2 c 0 0\n.subckt outer p q\nR1 p m 1k\nX2 m q inner\nD1 m 0 dd\n.ends\n"
        ".subckt inner p q\nR1 p q 2k\nI1 p q 0.1m\n.ends\n.model dd D(rs=10)\n",
        "@r.x1.r1[i] @r.x1.x2.r1[p] @d.x1.d1[id] @d.x1.d1[vd] @i.x1.x2.i1[c] @i.x1.x2.i1[p] @l1[i] @v2[i]",
    ),
    "ladder": (
        "".join(f"R{k} n{k} n{k + 1} {k + 1}k\nS{k} n{k + 1} 0 10k\n" for k in range(6)).replace("\nS", "\nRS")
        + "V1 n0 0 5\nV2 n6 0 -2\nC1 n3 0 1u\n",
        " ".join(f"@r{k}[i] @r{k}[p] @rs{k}[i]" for k in range(6)) + " @c1[i] @v2[p]",
    ),
}  # fmt: skip


@needs_ngspice
@pytest.mark.parametrize("name", PEERS)
def test_ngspice_gives_the_same(name: str) -> None:
    body, expressions = PEERS[name]
    [plot] = run_ngspice(f"t\n{body}.save all {expressions}\n.op\n.end\n", options=tight_options()).plots
    peer = {key.removeprefix("i(").removeprefix("v(").removesuffix(")"): column for key, column in _columns(plot)}
    found = one(f"t\n{body}", expressions)
    assert list(found) == expressions.split()
    for expression, value in found.items():
        assert value == pytest.approx(peer[expression], rel=1e-6, abs=1e-12), expression
    sources = {key: value for key, value in _columns(plot) if key.startswith("i(") and "@" not in key}
    assert sources
    assert one(f"t\n{body}", *sources) == pytest.approx(sources, rel=1e-6, abs=1e-12)


def _columns(plot: object) -> list[tuple[str, float]]:
    return [(key, float(plot.column(key)[0])) for key, _ in plot.variables]  # type: ignore[attr-defined]


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("divider.cir").write_text(DIVIDER + ".save @r1[p]\n")
    Path("array.cir").write_text(ARRAY + ".output z[4]\n")
    Path("loop.cir").write_text(
        "loop\nV1 a 0 5\nV2 a 0 5\nR1 a 0 1k\nI1 c b 1\nI2 b c 1\nR2 b c 1\nD1 b 0 di\n.model di D(is=0)\n"
    )
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.main, ["solve", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_tables(folder: Path) -> None:
    for quiet in ([], ["--quiet"]):
        lines = [line.split() for line in run("divider.cir", "--save", "i(R2),v(in,out)", *quiet).stdout.splitlines()]
        for row in (
            ["saved", "value"],
            ["@r1[p]", "0.00625", "W"],
            ["i(R2)", "0.0025", "A"],
            ["v(in,out)", "2.5", "V"],
        ):
            assert row in lines
    lines = [line.split() for line in run("loop.cir", "--save", "all", "--quiet").stdout.splitlines()]
    for row in (
        ["v(b)", "0", "V,", "not", "unique"], ["v(a)", "5", "V"], ["i(V2)", "-0.0025", "A,", "not", "unique"],
        ["@V1[p]", "-0.0125", "W,", "not", "unique"], ["i(R1)", "0.005", "A"], ["i(R2)", "0", "A"],
    ):  # fmt: skip
        assert row in lines
    np.save("x.npy", np.array([[1.0, 1, 1], [2, 2, 2]]))
    text = run("array.cir", "--input", "Vx=@x.npy", "--save", "i(rz[4]),@rz[4][p]", "--quiet").stdout
    lines = [line.split() for line in text.splitlines()]
    assert ["row", "i(rz[4])", "A", "@rz[4][p]", "W"] in lines
    assert ["1", "0.0015", "0.00225"] in lines
    assert "... and 2 more saved values" in run("array.cir", "--save", "all").stdout


def test_json(folder: Path) -> None:
    data = json.loads(run("divider.cir", "--save", "i(r2)", "--save", "alli", "--json").stdout)
    assert data["saved"] == pytest.approx({"@r1[p]": 6.25e-3, "i(r2)": 2.5e-3, "i(R1)": 2.5e-3, "i(V1)": -2.5e-3})
    assert data["ambiguous_saved"] == []
    data = json.loads(run("loop.cir", "--save", "all", "--json").stdout)
    assert data["ambiguous_saved"] == ["v(c)", "v(b)", "i(V1)", "i(V2)", "@V1[p]", "@V2[p]"]
    np.save("x.npy", np.array([[1.0, 1, 1], [2, 2, 2]]))
    data = json.loads(run("array.cir", "--input", "Vx=@x.npy", "--save", "i(rz[4])", "--json").stdout)
    assert data["saved"] == {"i(rz[4])": pytest.approx([0.75e-3, 1.5e-3])}


def test_json_beyond_the_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.io.output.MOST_NUMBERS", 2)
    data = json.loads(run("divider.cir", "--save", "all", "--json").stdout)
    assert data["saved"] == {}
    assert data["warnings"] == [
        "saved: 8 values x 1 rows are more than 2 numbers: none are given; --npz and --raw give all"
    ]


def test_csv(folder: Path) -> None:
    rows = list(csv.reader(io.StringIO(run("divider.cir", "--save", "all", "--csv").stdout)))
    assert rows[0] == ["row", "In", "Out", "@r1[p]", "i(R1)", "i(R2)", "i(V1)", "@R2[p]", "@V1[p]"]
    np.testing.assert_allclose(
        np.array(rows[1], float), [0, 10, 7.5, 6.25e-3, 2.5e-3, 2.5e-3, -2.5e-3, 18.75e-3, -25e-3], rtol=1e-12
    )
    rows = list(csv.reader(io.StringIO(run("array.cir", "--save", "v(z[4]),v(z[5])", "--csv").stdout)))
    assert rows[0] == ["row", "z[4]", "v(z[5])"]
    result = run("loop.cir", "--save", "@v1[p]", "--csv")
    assert result.stderr == (
        "warning: loop.cir:9: model di: IS = 0, its diodes are open circuits\n"
        "warning: nodes without a unique voltage: c, b\n"
        "warning: saved values that are not unique: @v1[p]\n"
    )


def test_npz(folder: Path) -> None:
    np.save("x.npy", np.array([[1.0, 1, 1], [2, 2, 2]]))
    assert run("array.cir", "--input", "Vx=@x.npy", "--save", "alli", "--npz", "out.npz").exit_code == 0
    with np.load("out.npz") as data:
        assert data["saved"].shape == (2, 17)
        column = dict(zip(data["saved_names"].tolist(), data["saved"].T.tolist(), strict=True))
        assert not data["saved_ambiguous"].any()
    assert column["i(RW[2][5])"] == pytest.approx([0.25e-3, 0.5e-3])
    assert run("loop.cir", "--save", "alli", "--npz", "out.npz").exit_code == 0
    with np.load("out.npz") as data:
        assert data["saved_names"][data["saved_ambiguous"]].tolist() == ["i(V1)", "i(V2)"]


def test_a_wrong_expression_ends_before_solving(folder: Path) -> None:
    result = run("divider.cir", "--save", "i(r7)", "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == ("error: --save i(r7): no element 'r7' in divider.cir; elements are R1, R2, V1 ...\n")


# -- export ------------------------------------------------------------------------------------------------------------


def test_an_exported_netlist_saves_the_same(tmp_path: Path) -> None:
    text = ARRAY + "D[0:1] y[0:1] 0 dd\n.model dd D\n.save i(RW) all @r1[0:1][p] v(x[0],y[0]) v(y[0:1])\n"
    circuit = cs.parse(text)
    export(circuit, tmp_path / "again.cir")
    again = cs.load(tmp_path / "again.cir")
    labels = [Saved(cs.solve(c), wanted_saves(c, ())).labels for c in (circuit, again)]
    assert labels[0] == labels[1]


@pytest.mark.parametrize("pins", ["b[0] b[1] c[0] c[1]", "b[0] d c[0] c[1]"])
def test_an_exported_netlist_saves_crossbars_of_several_instances(pins: str, tmp_path: Path) -> None:
    """Also those that are written member by member, as their nodes are no range."""
    cell = ".subckt cell p[0] p[1] q[0] q[1]\nRW[0:1][0:1] p[0:1] q[0:1] g=1m\n.ends\n"
    deck = f"bars\nV1[0:1] b[0:1] 0 1\nV2 d 0 2\nX[0:1] {pins} cell\nRc[0:1] c[0:1] 0 1k\n{cell}.save i(R.X[0:1].RW)\n"
    circuit = cs.parse(deck)
    export(circuit, tmp_path / "again.cir")
    before, after = (Saved(cs.solve(c), wanted_saves(c, ())) for c in (circuit, cs.load(tmp_path / "again.cir")))
    assert before.count == 8 and before.labels == after.labels
    np.testing.assert_allclose(before.values(), after.values(), rtol=1e-9)


def test_sources_in_parallel_share_their_current() -> None:
    """Without a diode in the loop too."""
    solution = cs.solve(cs.parse("loop\nV1 a 0 1\nV2 a 0 1\nV3 b 0 1\nR1 a b 1"))
    saved = Saved(solution, wanted_saves(solution.circuit, ["i(v1)", "@v2[p]", "i(v3)", "i(r1)"]))
    assert saved.ambiguous.tolist() == [True, True, False, False]


def test_what_controlled_sources_leave_open() -> None:
    """E1 is met by any voltage of a; with a at u, v(b) = (1 + u)/3, so that i(R1) and i(R3) follow u, v(c) does not."""
    circuit = cs.parse("t\nE1 a 0 a 0 1\nR1 a b 1k\nR2 b 0 1k\nV1 c 0 1\nR3 c b 1k\nR4 c 0 1k\n")
    solution = cs.solve(circuit)
    assert [circuit.nodes[k] for k in np.flatnonzero(solution.left_open)] == ["a", "b"]
    assert solution.intervals is not None
    assert [bound[0, 1] for bound in solution.intervals] == [-np.inf, np.inf]
    assert solution.remarks == ["controlled sources E1: their equations leave their currents open"]
    saved = Saved(solution, wanted_saves(circuit, ["v(a,b),v(c),i(R1),i(R3),i(R4),@R1[p]"]))
    assert dict(zip(saved.labels, saved.ambiguous.tolist(), strict=True)) == {
        "v(a,b)": True, "v(c)": False, "i(R1)": True, "i(R3)": True, "i(R4)": False, "@R1[p]": True,
    }  # fmt: skip


OPEN_POWERS = {  # of what shares its current with others, by its own law; of a resistor whose voltage is open
    "V1 a 0 1000\nR1 a b 1k\nVx b c 1e-13\nVy b c 1e-13\nR2 c 0 1meg": {"@Vx[p]", "@Vy[p]"},
    "V1 a 0 1e5\nR1 a b 1k\nD1 b c di\nD2 b c di\nR2 c 0 1k\n.model di D(ron=0 vfwd=1e-12)": {"@D1[p]", "@D2[p]"},
    "V1 a 0 -50\nR1 a b 1k\nD1 b c di\nD2 b c di\nR2 c 0 1k\n.model di D(ron=0 vrev=3 rrev=0)": {"@D1[p]", "@D2[p]"},
    "V1 a 0 50\nR1 a b 1k\nD1 b c di\nD2 b c di\nR2 c 0 1k\n.model di D(ron=0 vrev=3 rrev=0)": set(),
    "V1 a 0 50\nR1 a b 1234\nD1 b c di\nD2 b c di\nR2 c e 1234\nV2 e 0 -50\n.model di D(ron=0)": set(),
    "V1 a 0 1\nR1 a b 1k\nR2 b 0 0\nL1 b 0": set(),
    "E1 a 0 a 0 1\nR1 a 0 1k": {"@R1[p]"},
}


@pytest.mark.parametrize("deck", OPEN_POWERS)
def test_which_powers_are_open(deck: str) -> None:
    circuit = cs.parse(f"t\n{deck}\n")
    saved = Saved(cs.solve(circuit), wanted_saves(circuit, ["all"]))
    powers = [save.endswith("[p]") for save in saved.labels]
    marked = {label for label, mark in zip(saved.labels, saved.ambiguous & powers, strict=True) if mark}
    assert marked == OPEN_POWERS[deck]


def test_powers_of_diodes_in_parallel_are_known_where_they_have_no_voltage() -> None:
    """How they share the current is open; a perfect diode without a drop takes no power however they do.

    Not so those with a drop. Whatever the values are: rounding leaves a voltage of 1e-16 V here and there.
    """
    deck = "t\nV1 a 0 {}\nR1 a b {}\nD1 b c id\nD2 b c id\nR2 c 0 {}\nD3 c d iz\nD4 c d iz\nR3 d 0 {}\n"
    deck += ".model id D(ron=0)\n.model iz D(ron=0 vfwd=0.01)\n"
    rng = np.random.default_rng(0)
    for _ in range(30):
        circuit = cs.parse(deck.format(rng.uniform(0.1, 50.0), *rng.uniform(100.0, 5000.0, 3)))
        saved = Saved(cs.solve(circuit), wanted_saves(circuit, ["all"]))
        marked = {label for label, mark in zip(saved.labels, saved.ambiguous.tolist(), strict=True) if mark}
        assert marked == {"i(D1)", "i(D2)", "i(D3)", "i(D4)", "@D3[p]", "@D4[p]"}


def test_texts_say_what_to_keep() -> None:
    circuit = cs.parse(DIVIDER + ".save i(R2)\n")
    swept = cs.sweep(circuit, "V1 0 10 5", saves=["i(R1)", "@R1[p]"])
    assert swept.saved_labels == ["i(R2)", "i(R1)", "@R1[p]"]
    np.testing.assert_allclose(swept.saved[-1], [2.5e-3, 2.5e-3, 6.25e-3], rtol=1e-9)
    assert cs.monte_carlo(circuit, 2, saves=wanted_saves(circuit, ["i(R1)"])[1:]).saved_labels == ["i(R1)"]
    with pytest.raises(cs.SettingsError, match="no element 'R9'"):
        cs.sweep(circuit, "V1 0 10 5", saves=["i(R9)"])


def test_saves_and_texts_for_one_thing_are_one_column() -> None:
    circuit = cs.parse(DIVIDER)
    [save] = wanted_saves(circuit, ["i(R1)"])
    assert [s.labels for s in as_saves(circuit, [save, "i(r1)", "v(out)"])] == [["i(r1)"], ["v(out)"]]


def test_what_an_amplifier_leaves_open_is_open_in_every_kind_of_branch() -> None:
    cards = "V1 a 0 1\nR1 a b 1k\nE1 b 0 b 0 1\nR2 b c 1k\nR3 c 0 1k\nD1 c 0 di\nN1 c 0 th"
    circuit = cs.parse(f"t\n{cards}\n.model th tanh(imax=1m v0=1)\n.model di D(ron=10 vfwd=0.7)")
    assert Saved(cs.solve(circuit), wanted_saves(circuit, ["i(r2) i(d1) i(n1) @d1[p] @n1[p]"])).ambiguous.all()


def test_the_power_of_a_source_that_feeds_a_floating_island_is_open() -> None:
    """Its current is not, nor what falls off within the island."""
    circuit = cs.parse("t\nI1 0 x 1m\nI2 x 0 1m\nR1 x y 1k\nV1 a 0 1\nR2 a 0 1k")
    found = Saved(cs.solve(circuit), wanted_saves(circuit, ["@i1[p] i(i1) @r1[p]"]))
    assert found.ambiguous.tolist() == [True, False, False]


def test_powers_of_sources_in_a_loop_are_open_where_any_row_has_volts() -> None:
    problem = cs.compile_problem(cs.parse("t\nV1 a 0 1\nV2 a 0 1\nR1 a 0 1k"))
    volts = np.array([[0.0], [1.0]])
    solution = cs.solve(problem.with_values({"V1": volts, "V2": volts}))
    assert Saved(solution, wanted_saves(solution.circuit, ["@v1[p]"])).ambiguous.tolist() == [True]


def test_a_voltage_to_a_node_that_is_left_out_has_no_value_to_be_open() -> None:
    """p is on an island of its own; g is left out, as nothing carries 1 mA away from it."""
    circuit = cs.parse("t\nV1 s 0 1\nR1 s 0 1k\nI1 0 g 1m\nR2 g h 1k\nR3 p q 1k")
    solution = cs.solve(circuit, cs.Settings(lenient=True))
    found = Saved(solution, wanted_saves(circuit, ["v(p) v(g,p) v(g)"]))
    assert found.ambiguous.tolist() == [True, False, False] and found.left_out.tolist() == [False, True, True]
