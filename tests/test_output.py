"""Results as JSON, CSV and npz."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ARRAY, DIVIDER, FLOATING, LOOP, REFUSED, SECONDS, solved, unsolved

import circuitsim as cs
from circuitsim.errors import At
from circuitsim.io import output
from circuitsim.io.output import (
    Results,
    named_texts,
    numbers,
    raw_plot,
    result_object,
    warning_texts,
    write_csv,
    write_json,
    write_npz,
)
from circuitsim.residual import FIGURES

NETLISTS = Path(__file__).parent.parent / "netlists"


def strict(text: str) -> dict:
    """JSON as the standard has it: NaN and Infinity are no numbers."""

    def refuse(word: str) -> float:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def json_of(results: Results) -> dict:
    out = io.StringIO()
    write_json(result_object(results, SECONDS), out)
    assert out.getvalue().endswith("}\n")
    return strict(out.getvalue())


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_json_of_one_row() -> None:
    data = json_of(solved(DIVIDER))
    assert list(data) == [
        "status", "message", "failed_rows", "failed_statuses", "voltages", "currents", "saved", "residuals", "method",
        "why", "backend", "dtype", "steps", "seconds", "warnings", "undetermined", "left_out", "intervals",
        "ambiguous_currents", "ambiguous_saved", "left_out_saved",
    ]  # fmt: skip
    assert (data["status"], data["failed_rows"]) == ("SOLVED", [])
    assert data["voltages"] == {"in": 10.0, "out": 7.5}
    assert data["currents"] == {"V1": -0.0025}
    assert tuple(data["residuals"]) == FIGURES
    assert data["residuals"]["kcl_relative"] <= 1e-9
    assert (data["method"], data["why"]) == ("bcd", "no two unknowns are joined")
    assert (data["backend"], data["dtype"]) == ("cpu", "float64")
    assert data["steps"] >= 1 and "sweeps" not in data
    assert data["seconds"] == SECONDS
    assert data["warnings"] == data["undetermined"] == data["ambiguous_currents"] == []


def test_json_has_every_digit() -> None:
    results = solved("thirds\nV1 a 0 1\nR1 a b 1\nR2 b 0 2\n")
    assert json_of(results)["voltages"]["b"] == results.solution.voltage("b")[0]


def test_json_of_a_batch_has_lists() -> None:
    data = json_of(solved(ARRAY, Vx=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])))
    assert data["voltages"]["x[1]"] == [2.0, 5.0]
    assert data["voltages"]["y[2]"] == [1.5, 3.0]
    assert data["currents"]["Vx[0]"] == [-0.0005, -0.002]


def test_json_marks_what_is_not_unique() -> None:
    data = json_of(solved(FLOATING))
    assert data["undetermined"] == ["b", "c"]
    assert data["voltages"]["b"] == 0.0
    assert data["voltages"]["c"] == -2.0
    assert data["ambiguous_currents"] == []
    data = json_of(solved(LOOP))
    assert data["ambiguous_currents"] == ["V1", "V2"]
    assert data["currents"] == pytest.approx({"V1": -0.005, "V2": -0.005, "L1": 0.005}, rel=1e-12)
    assert data["undetermined"] == []


def test_an_interval_may_have_one_end() -> None:
    """The ideal diode lets x and y be anywhere above a."""
    results = solved("t\nV1 a 0 1\nR1 a 0 1k\nD1 a x di\nR2 x y 1k\n.model di D(ron=0)\n")
    assert results.intervals(results.nodes) == {"x": [1.0, None], "y": [1.0, None]}
    assert results.loose_texts(8, True) == []  # the remarks have told it
    assert "node x: any voltage from 1 V up" in results.remarks


def test_a_warning_leaves_controlled_sources_to_the_remarks() -> None:
    results = solved("t\nV1 a 0 1\nE1 a 0 a 0 1\nR1 a 0 1k\n")
    assert results.loose_texts(8, True) == ["currents that are not unique: V1"]
    assert results.remarks == ["controlled sources E1: their equations leave their currents open"]
    assert results.loose_texts(8, False) == []


def test_json_of_a_refusal_has_null() -> None:
    data = json_of(unsolved(REFUSED))
    assert (data["status"], data["failed_rows"]) == ("REFUSED", [0])
    assert "D1" in data["message"]
    assert data["voltages"] == {"a": None, "b": None}
    assert set(data["residuals"].values()) == {None}


def test_nothing_is_told_of_a_refusal_that_is_told_of_a_solution() -> None:
    """An island, a loop of sources, ideal diodes side by side, an enormous current."""
    more = (
        "V2 f g 2\nR3 f g 1k\nV3 c 0 5\nV4 c 0 5\nR5 c 0 1k\nV5 h 0 5\nR6 h 0 1\nD2 c 0 ds\nD3 c h di\nD4 c h di\n"
        ".model ds D(is=1e-12)\n"
    )
    data = json_of(solved("t\n.model di D(ron=0)\n" + more))
    assert data["undetermined"] == ["f", "g"]
    assert data["ambiguous_currents"] == ["V3", "V4", "V5", "D3", "D4"]
    assert [text.partition(":")[0] for text in data["warnings"]] == ["diode D2", "ideal diodes D3, D4"]
    data = json_of(unsolved(REFUSED + more))
    assert data["status"] == "REFUSED" and set(data["currents"].values()) == {None}
    assert data["undetermined"] == data["ambiguous_currents"] == data["warnings"] == []


def test_intervals_are_those_of_one_row() -> None:
    deck = "t\nV1 a 0 1\nR1 a 0 1k\nD1 a x di\nR2 x y 1k\n.model di D(ron=0)\n"
    assert json_of(solved(deck))["intervals"] == {"x": [1.0, None], "y": [1.0, None]}
    assert json_of(solved(deck, V1=[1.0, 2.0]))["intervals"] == {}


def test_names_are_followed_by_dots_where_there_are_more() -> None:
    assert named_texts([("open", ["a", "b"]), ("loose", ["a", "b", "c"])], 2) == ["open: a, b", "loose: a, b ..."]
    assert warning_texts([(None, "a note on the whole"), (At("deck.cir", 3), "one on a line")]) == [
        "a note on the whole", "deck.cir:3: one on a line",
    ]  # fmt: skip


def test_json_warnings_name_the_line() -> None:
    assert json_of(solved(DIVIDER + ".tran 1n 1u\n"))["warnings"] == [
        "deck.cir:5: .tran is skipped: only the DC operating point is solved"
    ]


def test_json_beyond_the_limit_keeps_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "MOST_NUMBERS", 5)
    data = json_of(solved(ARRAY, Vx=np.ones((2, 3))))
    assert list(data["voltages"]) == ["y[0]", "y[1]", "y[2]"]
    assert data["currents"] == {}
    assert data["warnings"] == [
        "voltages: 6 nodes x 2 rows are more than 5 numbers: only those of the .output nodes are given; "
        "--npz gives all",
        "currents: 3 sources x 2 rows are more than 5 numbers: none are given; --npz gives all",
    ]
    data = json_of(solved(ARRAY.replace(".output y[0:2]", ""), Vx=np.ones((2, 3))))
    assert data["voltages"] == {}
    assert data["warnings"][0].endswith("none are given; add .output, or use --npz")


def test_json_at_the_limit_has_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of 3 sources and of 3 saved values are 6 numbers, of 6 nodes 12."""
    monkeypatch.setattr(output, "MOST_NUMBERS", 6)
    data = json_of(solved(ARRAY + ".save v(x[0]) v(x[1]) v(x[2])\n", Vx=np.ones((2, 3))))
    assert list(data["voltages"]) == ["y[0]", "y[1]", "y[2]"]
    assert list(data["currents"]) == ["Vx[0]", "Vx[1]", "Vx[2]"]
    assert list(data["saved"]) == ["v(x[0])", "v(x[1])", "v(x[2])"]
    assert [text.partition(":")[0] for text in data["warnings"]] == ["voltages"]


def test_json_marks_nothing_that_it_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    deck = (
        "t\nV1 a 0 1\nR1 a 0 1k\nD1 a x di\nR2 x y 1k\nV2 c 0 5\nV3 c 0 5\nR3 c 0 1k\nD2 c h di\nD3 c h di\nV4 h 0 5\n"
        ".model di D(ron=0)\nI1 0 p 1\nR4 p q 1k\n.output y\n.save v(x) v(p)\n"
    )
    results = Results(cs.solve(cs.parse(deck), cs.Settings(lenient=True)))
    data = json_of(results)
    assert list(data["intervals"]) == ["x", "y"] and data["left_out"] == ["p", "q"]
    assert data["ambiguous_currents"] == ["V2", "V3", "V4", "D2", "D3"]
    assert (data["ambiguous_saved"], data["left_out_saved"]) == (["v(x)"], ["v(p)"])
    monkeypatch.setattr(output, "MOST_NUMBERS", 1)
    data = json_of(results)
    assert (list(data["voltages"]), data["currents"], data["saved"]) == (["y"], {}, {})
    assert list(data["intervals"]) == ["y"] and data["ambiguous_currents"] == ["D2", "D3"]
    assert data["ambiguous_saved"] == data["left_out_saved"] == []


def test_json_has_the_status_of_each_row_that_failed() -> None:
    ladder = "ladder\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\nRS{k} n{k + 1} 0 1k\n" for k in range(9))
    circuit = cs.parse(ladder).with_values({"V1": [0.0, 1.0, 2.0]})
    data = json_of(Results(cs.solve(circuit, cs.Settings("bcd", max_sweeps=2), raise_on_failure=False)))
    assert (data["failed_rows"], data["failed_statuses"]) == ([1, 2], ["MAX_SWEEPS", "MAX_SWEEPS"])


def test_what_is_no_number_is_refused_rather_than_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"volts": float("nan")}, io.StringIO())


def test_numbers_that_json_lacks_are_null() -> None:
    for value in (np.nan, np.inf, -np.inf):
        assert numbers(np.array([1.5, value])) == [1.5, None]
        results = solved(DIVIDER)
        results.solution.x[:] = value
        assert json_of(results)["voltages"]["out"] is None
    assert numbers(np.array([1 / 3, 1234567.0, np.nan]), 3) == [0.333, 1.23e6, None]


def test_what_is_saved_may_be_nothing() -> None:
    solution = solved(DIVIDER + ".save v(out)\n").solution
    assert Results(solution).saved.labels == ["v(out)"] and Results(solution, []).saved.labels == []


def test_ground_is_no_node_of_the_results() -> None:
    assert "0" not in json_of(solved(DIVIDER))["voltages"]


# -- CSV and npz -------------------------------------------------------------------------------------------------------


def csv_rows(results: Results) -> list[list[str]]:
    out = io.StringIO()
    write_csv(results, out)
    assert "\r" not in out.getvalue()
    return list(csv.reader(io.StringIO(out.getvalue())))


def test_csv_has_all_nodes_or_the_outputs() -> None:
    assert csv_rows(solved(DIVIDER)) == [["row", "in", "out"], ["0", "10.0", "7.5"]]
    assert csv_rows(solved(DIVIDER + ".output out in\n")) == [["row", "out", "in"], ["0", "7.5", "10.0"]]
    batch = solved(ARRAY, Vx=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert csv_rows(batch) == [
        ["row", "y[0]", "y[1]", "y[2]"], ["0", "0.5", "1.0", "1.5"], ["1", "2.0", "2.5", "3.0"],
    ]  # fmt: skip


@pytest.mark.parametrize("node", ["row", "Row", "status"])
def test_csv_has_each_name_once(node: str) -> None:
    results = solved(f"names\nV1 a 0 1\nR1 a {node} 1k\nR2 {node} 0 1k\n.save v({node})\n")
    name = node if node == "status" else f"v({node})"
    assert csv_rows(results) == [["row", "a", name], ["0", "1.0", "0.5"]]


def test_csv_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    results = solved(ARRAY, Vx=np.arange(21.0).reshape(7, 3))
    whole = csv_rows(results)
    monkeypatch.setattr(output, "_CSV_NUMBERS", 6)
    assert csv_rows(results) == whole
    assert [row[0] for row in whole[1:]] == ["0", "1", "2", "3", "4", "5", "6"]


def test_csv_quotes_names_with_commas() -> None:
    results = solved(DIVIDER)
    results.circuit.nodes[2] = 'o,"ut'
    assert csv_rows(results)[0] == ["row", "in", 'o,"ut']


def test_npz_round_trip(tmp_path: Path) -> None:
    results = solved(LOOP + "Vc c 0 1\nRc c a 1k\n", Vc=np.array([5.0, 7.0]))
    path = tmp_path / "out.npz"
    write_npz(results, path)
    assert [p.name for p in tmp_path.iterdir()] == ["out.npz"]
    with np.load(path, allow_pickle=False) as data:
        assert data["nodes"].tolist() == ["a", "b", "c"]
        np.testing.assert_array_equal(data["voltages"], [[5.0, 5.0, 5.0], [5.0, 5.0, 7.0]])
        assert data["undetermined"].tolist() == [False, False, False]
        assert data["sources"].tolist() == ["V1", "V2", "Vc", "L1"]
        np.testing.assert_array_equal(data["currents"], results.solution.tie_currents[0])
        np.testing.assert_allclose(data["currents"][:, 2], [0.0, -0.002], atol=1e-18)
        assert data["ambiguous"].tolist() == [True, True, False, False]
        assert str(data["status"]) == "SOLVED"
        assert {name: float(data[name]) for name in FIGURES} == {
            name: getattr(results.solution.residuals, name) for name in FIGURES
        }


AMPLIFIER = (
    "amplifier\nVin in 0 1\nR1 in m 1k\nR2 m out 2k\nEamp out 0 0 m 1e9\nRl out 0 1k\nHq q 0 Vin 1k\nRq q 0 1k\n"
)


def test_currents_of_controlled_sources_are_given_like_those_of_sources(tmp_path: Path) -> None:
    """Eamp takes 1 mA of R2 and 2 mA of Rl; Hq is -1 V and takes 1 mA."""
    results = solved(AMPLIFIER)
    wanted = {"Vin": -1e-3, "Eamp": 3e-3, "Hq": 1e-3}
    assert result_object(results, {})["currents"] == pytest.approx(wanted, rel=1e-6)
    write_npz(results, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as data:
        assert dict(zip(data["sources"].tolist(), data["currents"][0], strict=True)) == pytest.approx(wanted, rel=1e-6)
        assert not data["ambiguous"].any()
    plot = raw_plot(results)
    assert {name: plot.column(f"i({name.lower()})")[0] for name in wanted} == pytest.approx(wanted, rel=1e-6)
    frame = results.solution.to_dataframe()
    for name, amperes in wanted.items():
        assert results.solution.current(name) == pytest.approx(amperes, rel=1e-6)
        assert frame[frame.name == f"i({name})"].value.item() == pytest.approx(amperes, rel=1e-6)
        assert cs.sweep(results.circuit, "Vin 0 1 1").current(name) == pytest.approx([0, amperes], rel=1e-6, abs=1e-15)


def test_npz_says_which_rows_failed_and_why(tmp_path: Path) -> None:
    results = unsolved(REFUSED)
    write_npz(results, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as data:
        assert data["failed_rows"].tolist() == [0] and str(data["status"]) == "REFUSED"
        assert str(data["message"]) == results.solution.message and "D1" in results.solution.message


def test_npz_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(out: Any, **arrays: Any) -> None:
        out.write(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    (tmp_path / "out.npz").write_bytes(b"before")
    with pytest.raises(cs.SettingsError, match="No space left"):
        write_npz(solved(DIVIDER), tmp_path / "out.npz")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_a_raw_file_of_two_rows_is_a_batch() -> None:
    plot = raw_plot(solved(DIVIDER, V1=[1.0, 2.0]))
    assert plot.name == "Operating points of a batch"
    assert plot.column("row").tolist() == [0, 1] and plot.column("v(in)").tolist() == [1.0, 2.0]


def test_npz_without_sources(tmp_path: Path) -> None:
    write_npz(solved("no voltage source\nI1 0 a 1\nR1 a 0 2\n"), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as data:
        assert data["currents"].shape == (1, 0)
        assert data["sources"].tolist() == [] and data["sources"].dtype.kind == "U"


# -- in Python ---------------------------------------------------------------------------------------------------------


def test_what_python_shows_is_one_line() -> None:
    circuit = cs.parse("a divider\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k\n.dc V1 0 2 1")
    problem = cs.compile_problem(circuit.with_values({"V1": [[1.0], [2.0]]}))
    assert repr(circuit) == "<Circuit 'a divider': 2 nodes>"
    assert repr(problem) == "<Problem of <Circuit 'a divider': 2 nodes, 2 rows>: 1 unknowns>"
    assert repr(cs.solve(problem)).startswith("<Solution SOLVED: 2 nodes, 2 rows; relative KCL ")
    assert repr(cs.solve(circuit)).startswith("<Solution SOLVED: 2 nodes; relative KCL ")
    assert repr(cs.sweep(circuit, "V1 0 2 1")) == f"<SweepResult of {circuit!r}: 3 points, 0 failed>"


def test_wrong_arguments_are_settings_errors() -> None:
    circuit = cs.parse("a divider\nV1 a 0 2\nR1 a b 1k\nR2 b 0 1k")
    for action, message in (
        (lambda: cs.solve("deck.cir"), "solve takes a Circuit or a Problem, found str; read a netlist by load"),
        (lambda: cs.solve(circuit).voltage(["a", "b"]), "voltage takes the name of one node, or of an array"),
        (lambda: circuit.with_values({"V1": "a"}), "V1: new values must be numbers, found 'a'"),
        (lambda: cs.solve(circuit, "newton"), "settings must be Settings(...), found 'newton'"),
        (lambda: cs.monte_carlo(circuit, 2.5), "runs must be a whole number, found 2.5"),
        (lambda: cs.monte_carlo(circuit, "5"), "runs must be a whole number, found '5'"),
    ):
        with pytest.raises(cs.SettingsError, match=re.escape(message)):
            action()


def test_names_of_members_and_ranges() -> None:
    circuit = cs.load(NETLISTS / "crossbar_4x4.cir")
    solution = cs.solve(circuit)
    amps, watts = solution.current("Rmem"), solution.power("Rmem")
    assert amps.shape == (1, 4, 4)
    np.testing.assert_array_equal(solution.current("Rmem[1][0:3]"), amps[:, 1])
    np.testing.assert_array_equal(solution.current("rmem[2][3]"), amps[:, 2, 3])
    np.testing.assert_array_equal(solution.power("Rmem[0:3][1]"), watts[:, :, 1])
    np.testing.assert_array_equal(solution.current("Rsense[2:1]"), solution.current("Rsense")[:, [2, 1]])
    swept = cs.sweep(circuit, "Vrow0 0 1 0.5")
    np.testing.assert_array_equal(swept.voltage("col[1:2]")[:, 1], swept.voltage("col[2]"))
    with pytest.raises(cs.NetlistError, match="indices run from 0 to 3"):
        solution.current("Rmem[4][0]")


@pytest.mark.parametrize(
    "call",
    [
        lambda c: cs.sweep(cs.compile_problem(c), "Vrow0 0 1 1"), lambda c: cs.monte_carlo(cs.compile_problem(c), 2),
        lambda c: cs.solve(c, backend="cpu"), lambda c: cs.sweep(c, ("Vrow0", 0, 1)), lambda c: cs.compile_problem("x"),
        lambda c: cs.parse(b"t"), lambda c: cs.load(None), lambda c: cs.Settings(tol="a"),
        lambda c: cs.Settings(max_sweeps=2.5), lambda c: c.with_values({"Vrow0": 1, "vrow0": 2}),
        lambda c: c.with_values({3: 1}), lambda c: cs.solve(c).current(3), lambda c: cs.solve(c).power(None),
        lambda c: cs.sweep(c, "Vrow0 0 1 1", saves="i(Vrow0)"), lambda c: cs.sweep(c, "Vrow0 0 1 1", saves=[3]),
        lambda c: cs.sweep(c, "Vrow0 0 1 1", settings=3), lambda c: cs.monte_carlo(c, 2, "2"),
        lambda c: cs.parse("t\nR1 a 0 1", seed="a"), lambda c: cs.Settings(backend="nonsense"),
    ],
)  # fmt: skip
def test_arguments_of_other_types_are_settings_errors(call: Any) -> None:
    with pytest.raises(cs.SettingsError, match=r"found|two new values|by name: Settings|whole number|unknown backend"):
        call(cs.load(NETLISTS / "crossbar_4x4.cir"))


def test_arrays_with_two_ranges_take_what_they_give() -> None:
    deck = "t\n{0}1[0:1][0:2] a[0:1][0:2] 0 1\n{1}2[0:1][0:2] a[0:1][0:2] 0 1"
    values = np.arange(1.0, 7.0).reshape(2, 3)
    for kind, other in (("V", "R"), ("I", "R"), ("R", "I")):
        circuit = cs.parse(deck.format(kind, other))
        name = f"{kind}1"
        changed = circuit.with_values({name: values})
        np.testing.assert_array_equal(
            cs.solve(changed).voltages(), cs.solve(circuit.with_values({name: values.ravel()})).voltages()
        )
        assert cs.solve(changed).current(name).shape == (1, 2, 3)
        with pytest.raises(cs.SettingsError, match=r"new values have shape \(3, 2\)"):
            circuit.with_values({name: values.T})
        if kind != "R":
            batch = np.stack([values, 2 * values])
            solution = cs.solve(circuit.with_values({name: batch}))
            np.testing.assert_array_equal(solution.voltages()[0], cs.solve(changed).voltages()[0])
            assert solution.current(name).shape == (2, 2, 3)


def test_ranges_of_more_nodes_than_there_are() -> None:
    solution = cs.solve(cs.parse("t\nV1 y[0] 0 1\nR1 y[0] 0 1"))
    for name, message in (("y[0:19999999]", "names more nodes than"), ("z[0:19999999]", r"no node 'z\[0\]' in")):
        with pytest.raises(cs.NetlistError, match=message):
            solution.voltage(name)
