"""Data frames and HTML of circuits, solutions and sweeps."""

from __future__ import annotations

import html
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.errors import BackendUnavailable
from circuitsim.saved import wanted_saves

DIVIDER = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 3k\n"
FLOATING = "floating\nV1 a 0 1\nR1 a 0 1k\nV2 b c 2\nR2 b c 1k\n"  # b and c: an island
STRAY = "stray\nV1 a 0 1\nR1 a 0 1k\nI1 0 x 2m\nRx x y 1\n"  # lenient leaves x and y out
REFUSED = "refused\nI1 0 a 1m\nR1 a 0 1k\nR2 b 0 1k\n.model di D(ron=0)\nD1 a b di\n"
RANDOM = "random\nV1 in 0 1\nR1 in out {aunif(1k, 100)}\nR2 out 0 1k\n"
LOOSE = (  # an interval, a loop of sources, ideal diodes side by side, an island that lenient leaves out
    "loose\nV1 a 0 1\nR1 a 0 1k\nD1 a x di\nR2 x y 1k\nV2 c 0 5\nV3 c 0 5\nR3 c 0 1k\nD2 c h di\nD3 c h di\nV4 h 0 5\n"
    ".model di D(ron=0)\nI1 0 p 1\nR4 p q 1k\n.save v(a) i(R1) v(a,x) i(D2) i(R4)\n"
)
LARGE = "large\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\nRg{k} n{k + 1} 0 1k\n" for k in range(200))


# -- pandas ------------------------------------------------------------------------------------------------------------


def needs_pandas() -> None:
    pytest.importorskip("pandas", reason="pip install 'circuitsim[dataframe]'")


def test_a_solution_as_a_data_frame() -> None:
    needs_pandas()
    circuit = cs.parse(DIVIDER + ".save @R1[p] v(OUT)")
    frame = cs.solve(circuit).to_dataframe()
    assert list(frame.columns) == ["row", "quantity", "name", "value", "unit", "unique"]
    assert [tuple(line) for line in frame.itertuples(index=False)] == [
        (0, "voltage", "v(in)", 10.0, "V", True),
        (0, "voltage", "v(out)", 7.5, "V", True),
        (0, "current", "i(V1)", -0.0025, "A", True),
        (0, "power", "@R1[p]", 0.00625, "W", True),
    ]
    more = cs.solve(circuit).to_dataframe(wanted_saves(circuit, ["i(R1)", "@R1[r]", "v(in,out)"]))
    assert list(more.loc[more.name == "@R1[r]", ["quantity", "value", "unit"]].iloc[0]) == ["resistance", 1000.0, "ohm"]
    values = more.set_index("name").value
    assert (values["i(R1)"], values["v(in,out)"]) == (0.0025, 2.5)


def test_a_batch_has_its_rows_one_after_the_other() -> None:
    needs_pandas()
    solution = cs.solve(cs.parse(DIVIDER).with_values({"V1": [[1.0], [2.0], [4.0]]}))
    frame = solution.to_dataframe()
    assert frame.row.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    wide = frame.pivot(index="row", columns="name", values="value")
    for name, values in (("v(out)", solution.voltage("out")), ("i(V1)", solution.current("V1"))):
        assert np.array_equal(wide[name].to_numpy(), values)


def test_a_data_frame_marks_what_is_not_unique_left_out_or_unknown() -> None:
    needs_pandas()
    frame = cs.solve(cs.parse(FLOATING)).to_dataframe()
    assert frame.set_index("name").unique.to_dict() == {
        "v(a)": True, "v(b)": False, "v(c)": False, "i(V1)": True, "i(V2)": True,
    }  # fmt: skip
    frame = cs.solve(cs.parse(STRAY), cs.Settings(lenient=True)).to_dataframe()
    without = frame[~frame.unique]
    assert without.name.tolist() == ["v(x)", "v(y)"] and without.value.isna().all()
    more = "V1 c 0 1\nR3 c 0 1k\n.save i(R3)\n"
    solution = cs.solve(cs.parse(REFUSED + more), cs.Settings("bcd"), raise_on_failure=False)
    frame = solution.to_dataframe()
    assert frame.name.tolist() == ["v(a)", "v(b)", "v(c)", "i(V1)", "i(R3)"]
    assert frame.value[frame.name != "v(c)"].isna().all() and not frame.unique.any()


def test_data_frames_mark_currents_and_what_is_saved() -> None:
    """Beside the nodes: a loop of sources, ideal diodes side by side, differences, what is left out."""
    needs_pandas()
    circuit, lenient = cs.parse(LOOSE), cs.Settings(lenient=True)
    loose = ["v(x)", "v(y)", "v(p)", "v(q)", "i(V2)", "i(V3)", "i(V4)", "v(a,x)", "i(D2)", "i(R4)"]
    frame = cs.solve(circuit, lenient).to_dataframe()
    assert frame.name[~frame.unique].tolist() == loose
    assert frame.name[frame.unique].tolist() == ["v(a)", "v(c)", "v(h)", "i(V1)", "i(R1)"]
    swept = cs.sweep(circuit, "V1 1 2 1", settings=lenient, saves=wanted_saves(circuit, ()))
    assert swept.to_dataframe().attrs["not_unique"] == loose


def test_sweeps_as_data_frames() -> None:
    needs_pandas()
    circuit = cs.parse(DIVIDER)
    result = cs.sweep(circuit, "V1 0 2 1", saves=wanted_saves(circuit, ["@R2[p]", "v(out)"]))
    frame = result.to_dataframe()
    assert list(frame.columns) == ["V1", "v(in)", "v(out)", "i(V1)", "@R2[p]", "status", "kcl_relative"]
    assert frame["v(out)"].tolist() == [0.0, 0.75, 1.5] and frame.status.unique().tolist() == ["SOLVED"]
    assert np.array_equal(frame["@R2[p]"], result.saved[:, 0])
    assert frame.attrs == {
        "units": {"v(in)": "V", "v(out)": "V", "i(V1)": "A", "@R2[p]": "W"}, "not_unique": [],
    }  # fmt: skip
    runs = cs.monte_carlo(cs.parse(RANDOM), 5, seed=7).to_dataframe()
    assert runs.seed.tolist() == [7, 8, 9, 10, 11] and runs["v(out)"].nunique() == 5
    floating = cs.sweep(cs.parse(FLOATING), "V1 0 1 1").to_dataframe()
    assert floating.attrs["not_unique"] == ["v(b)", "v(c)"]


def test_without_pandas_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for result in (cs.solve(cs.parse(DIVIDER)), cs.sweep(cs.parse(DIVIDER), "V1 0 1 1")):
        with pytest.raises(BackendUnavailable, match=re.escape("pip install 'circuitsim[dataframe]'")):
            result.to_dataframe()


# -- HTML --------------------------------------------------------------------------------------------------------------


class _Reader(HTMLParser):
    """Rows of cells, other texts; elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert tag in ("div", "strong", "table", "thead", "tbody", "tr", "td", "th") and not attrs
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        else:
            self.texts.append(data)


def shown(thing: cs.Circuit | cs.Solution | cs.SweepResult) -> _Reader:
    text = thing._repr_html_()
    assert len(text) < 10_000
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


def test_a_circuit_says_what_it_holds() -> None:
    found = shown(cs.parse(DIVIDER + ".output out\n.train R1"))
    assert found.texts == ["divider"]
    assert found.rows == [
        ["resistors", "2"], ["voltage sources", "1"], ["nodes, ground included", "3"], [".output", "out"],
        [".train", "R1"],
    ]  # fmt: skip
    array = "array\nVx[0:9] x[0:9] 0 1\nRW[0:9][0:1] x[0:9] y[0:1] 1k\nR1 y[0] 0 1M\n.output x[0:9]\n"
    rows = dict(shown(cs.parse(array)).rows)
    assert rows["crossbar RW"] == "10 x 2" and rows["warnings"] == "1"
    assert rows[".output"] == ", ".join(f"x[{k}]" for k in range(8)) + " ..."


def test_a_solution_shows_its_first_values_and_its_certificate() -> None:
    found = shown(cs.solve(cs.parse(DIVIDER + ".save @R1[p]")))
    assert found.rows == [
        ["v(in)", "10", "V"],
        ["v(out)", "7.5", "V"],
        ["i(V1)", "-0.0025", "A"],
        ["@R1[p]", "0.00625", "W"],
    ]
    assert found.texts[0] == "divider" and found.texts[-1].startswith("certificate met: relative KCL")
    large = shown(cs.solve(cs.parse(LARGE)))
    assert len(large.rows) == 20 and "... and 182 more values" in large.texts  # 201 nodes and a source in all
    outputs = shown(cs.solve(cs.parse(LARGE + ".output n7\n")))
    assert [row[0] for row in outputs.rows] == ["v(n7)", "i(V1)"] and "... and 200 more values" in outputs.texts
    twice = shown(cs.solve(cs.parse(DIVIDER + ".output out out\n.save v(OUT)\n")))
    assert [row[0] for row in twice.rows] == ["v(out)", "i(V1)"]
    assert [row[2] for row in shown(cs.solve(cs.parse(FLOATING))).rows[:3]] == ["V", "V, not unique", "V, not unique"]


def test_many_saved_values_are_left_out() -> None:
    array = "array\nVx[0:39] x[0:39] 0 1\nRW[0:39][0:39] x[0:39] y[0:39] 1k\nR1[0:39] y[0:39] 0 1k\n.output y[0]\n"
    few, many = (shown(cs.solve(cs.parse(array + save))) for save in (".save i(R1)\n", ".save i(RW)\n"))
    assert "... and 140 more values" in few.texts and "... and 100 more values" in many.texts


def test_a_batch_shows_its_first_rows() -> None:
    found = shown(cs.solve(cs.parse(DIVIDER).with_values({"V1": np.arange(30.0)[:, None]})))
    assert found.rows[0] == ["row", "v(in), V", "v(out), V", "i(V1), A"]
    assert found.rows[3] == ["2", "2", "1.5", "-0.0005"] and len(found.rows) == 11
    assert "... and 20 more rows" in found.texts


def test_a_solution_that_is_none_says_so() -> None:
    found = shown(cs.solve(cs.parse(REFUSED), cs.Settings("bcd"), raise_on_failure=False))
    assert found.rows[0] == ["v(a)", "nan", "V, no value"]
    assert found.texts[-1].startswith("certificate NOT met, REFUSED: ")


def test_sweeps_show_points_evenly_spread() -> None:
    found = shown(cs.sweep(cs.parse(DIVIDER), "V1 0 18 1"))
    assert found.rows[0] == ["V1", "v(in), V", "v(out), V", "i(V1), A"]
    assert [row[0] for row in found.rows[1:]] == [str(2 * k) for k in range(10)]
    assert "10 of 19 points, evenly spread" in found.texts and found.texts[-1].startswith("19 points solved; ")
    runs = shown(cs.monte_carlo(cs.parse(RANDOM), 3))
    assert [row[0] for row in runs.rows] == ["seed", "0", "1", "2"] and runs.texts[-1].startswith("3 runs solved; ")
    wide = shown(cs.sweep(cs.parse(LARGE), "V1 0 1 1"))
    assert len(wide.rows[0]) == 9 and "... and 194 more values" in wide.texts


def test_failed_points_are_shown_as_such() -> None:
    unequal = "two sources\nV1 a 0 1\nV2 a 0 1\nR1 a 0 1k\n"
    found = shown(cs.sweep(cs.parse(unequal), "V1 1 2 1"))
    assert [row[-1] for row in found.rows] == ["status", "SOLVED", "FAULT"]
    assert found.texts[-1].startswith("1 of 2 points failed; ")


def test_names_are_escaped_and_cut() -> None:
    evil = "<script>alert(1)</script> & more\nV1 <b>x</b> 0 1\nR1 <b>x</b> 0 1k\nR2 " + "y" * 1000 + " 0 1\n"
    circuit = cs.parse(evil)
    for thing in (circuit, cs.solve(circuit), cs.sweep(circuit, "V1 0 1 1")):
        text = thing._repr_html_()
        assert html.escape("<script>alert(1)</script> & more") in text
        shown(thing)
