"""`circuitsim sweep`: its outputs, exit codes and messages."""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import commands
import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import process
from pyarrow.parquet import read_schema

import circuitsim as cs
from circuitsim import cli
from circuitsim.backends.base import BACKENDS, DTYPES
from circuitsim.io.parquet import write_sweep_parquet
from circuitsim.io.raw import read_raw
from circuitsim.io.sweeps import (
    STATISTICS,
    loose_texts,
    statistics,
    sweep_object,
    sweep_plot,
    write_sweep_csv,
    write_sweep_npz,
)
from circuitsim.solution import METHODS

DIVIDER = "divider\n.param k=1\nV1 in 0 10\nR1 in out 1k\nR2 out 0 {k*3k}\n"
SWEPT = DIVIDER + ".dc V1 0 2 1\n.op\n"
TWO = DIVIDER + ".dc V1 0 2 1 R1 1k 3k 2k\n.dc k 1 3 1\n.output out\n"
RANDOM = "random\nV1 a 0 1\nR1 a b 1k\nR2 b 0 {agauss(1k, 100, 1)}\n.op\n"
BLOCKED = "blocked\nI1 0 a 1m\nD1 a 0 dm\n.model dm D(is=1e-12)\n.dc I1 -1m 1m 1m\n"
DECKS = {"divider": DIVIDER, "swept": SWEPT, "two": TWO, "random": RANDOM, "blocked": BLOCKED}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, on 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, text in DECKS.items():
        Path(f"{name}.cir").write_text(text)
    return tmp_path


def run(*arguments: str) -> Result:
    return commands.run("sweep", *arguments)


def succeed(*arguments: str) -> str:
    return commands.succeed("sweep", *arguments)


def test_a_table_of_the_points() -> None:
    out = succeed("swept.cir")
    lines = [line.split() for line in out.splitlines()]
    assert out.startswith("divider\n\n3 points, V1\n")
    assert ["V1", "in", "out"] in lines
    assert ["2", "2", "1.5"] in lines
    assert "certificate: met" in out
    assert lines[-1][:2] == ["seconds:", "parse"]
    quiet = [line.split() for line in succeed("swept.cir", "-q").splitlines()]
    assert quiet[0] == ["V1", "in", "out"]
    assert quiet[2:] == [["0", "0", "0"], ["1", "1", "0.75"], ["2", "2", "1.5"]]


def test_a_long_sweep_of_many_nodes_is_cut_to_a_table() -> None:
    chain = "".join(f"R{k} n{k} n{k + 1} 1k\n" for k in range(60))
    Path("long.cir").write_text(f"t\nV1 n0 0 1\n{chain}Rz n60 0 1k\n")
    out = succeed("long.cir", "--dc", "V1 0 100 1", "--tol", "0.5")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()][1:]
    assert len([row for row in rows if row[1] != "of"]) == 40
    assert rows[0][0] == "0"
    assert rows[39][0] == "100"
    assert all(row[1] == row[0] for row in rows if row[1] != "of")  # v(n0)
    assert "40 of 101 points, evenly spread" in out
    assert " more nodes; " in out


def test_csv_has_all_points_of_all_plots() -> None:
    assert succeed("swept.cir", "--csv") == (
        "V1,in,out,status\n0.0,0.0,0.0,SOLVED\n1.0,1.0,0.75,SOLVED\n2.0,2.0,1.5,SOLVED\n"
    )
    first, second = succeed("two.cir", "--csv").split("\n\n")
    rows = list(csv.reader(io.StringIO(first)))
    assert rows[0] == ["V1", "R1", "out", "status"]
    assert [[float(x) for x in row[:3]] for row in rows[1:]] == [
        [0, 1e3, 0], [1, 1e3, 0.75], [2, 1e3, 1.5], [0, 3e3, 0], [1, 3e3, 0.5], [2, 3e3, 1]
    ]  # fmt: skip
    np.testing.assert_allclose([float(line.split(",")[1]) for line in second.split()[1:]], [7.5, 60 / 7, 9])
    out = io.StringIO()
    write_sweep_csv([cs.sweep(cs.parse(DIVIDER + ".output out in\n"), "V1 2 2 1")], out)
    assert out.getvalue() == "V1,out,in,status\n2.0,1.5,2.0,SOLVED\n"


def test_csv_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = succeed("two.cir", "--csv")
    monkeypatch.setattr("circuitsim.io.sweeps._CSV_POINTS", 2)
    assert succeed("two.cir", "--csv") == whole


@pytest.mark.parametrize(("node", "name"), [("status", "v(status)"), ("Status", "v(Status)"), ("row", "row")])
def test_csv_has_each_name_once(node: str, name: str) -> None:
    Path("names.cir").write_text(f"t\n.param status=1\nV1 {node} 0 {{status}}\nR1 {node} 0 1\n.save v({node})\n")
    assert succeed("names.cir", "--csv", "--dc", "V1 1 1 1") == f"V1,{name},status\n1.0,1.0,SOLVED\n"
    assert succeed("names.cir", "--csv", "--dc", "status 1 1 1") == f"param(status),{name},status\n1.0,1.0,SOLVED\n"


def test_json() -> None:
    data = json.loads(succeed("two.cir", "--json"))
    assert data["status"] == "SOLVED"
    nested, k = data["plots"]
    assert nested["sweeps"][1] == {"kind": "R", "name": "R1", "start": 1e3, "stop": 3e3, "step": 2e3}
    assert nested["values"] == {"V1": [0, 1, 2, 0, 1, 2], "R1": [1e3] * 3 + [3e3] * 3}
    np.testing.assert_allclose(nested["voltages"]["out"], [0, 0.75, 1.5, 0, 0.5, 1])
    np.testing.assert_allclose(nested["currents"]["V1"], -np.array([0, 1, 2, 0, 1 / 1.5, 2 / 1.5]) / 4e3)
    assert (k["values"], k["failed"]) == ({"k": [1, 2, 3]}, [])
    assert max(k["kcl_relative"]) <= 1e-9
    assert k["steps"] >= 1


def test_npz() -> None:
    succeed("swept.cir", "-q", "--npz", "one.npz")
    with np.load("one.npz", allow_pickle=False) as found:
        assert found["swept"].tolist() == ["V1"]
        assert found["nodes"].tolist() == ["in", "out"]
        np.testing.assert_allclose(found["voltages"], [[0, 0], [1, 0.75], [2, 1.5]])
        np.testing.assert_allclose(found["currents"], [[0], [-0.25e-3], [-0.5e-3]])
        assert found["statuses"].tolist() == ["SOLVED"] * 3
        assert found["kcl_relative"].shape == (3,) and found["kcl_relative"].max() <= 1e-9
        assert found["steps"] >= 1 and "sweeps" not in found
    succeed("two.cir", "-q", "--npz", "two.npz")
    with np.load("two.npz", allow_pickle=False) as found:
        assert found["dc1_values"].shape == (6, 2)
        assert found["dc2_kinds"].tolist() == ["param"]


def test_raw() -> None:
    succeed("two.cir", "-q", "--raw", "out.raw")
    first, second = read_raw(Path("out.raw").read_bytes())
    assert first.name == "DC transfer characteristic"
    assert first.variables == (
        ("v(v-sweep)", "voltage"), ("v(in)", "voltage"), ("v(out)", "voltage"), ("i(v1)", "current")
    )  # fmt: skip
    assert first.column("v(v-sweep)").tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_allclose(first.column("v(out)"), [0, 0.75, 1.5, 0, 0.5, 1])
    assert second.variables[0] == ("param-sweep", "param-sweep")


def test_raw_has_no_currents_of_shorts_that_ngspice_has_as_resistors() -> None:
    Path("shorts.cir").write_text("shorts\nV1 a 0 1\nR1 a b 0\nL1 b c 1\nR2 c 0 1k\nR3 b 0 1k\n.dc V1 0 1 1\n")
    succeed("shorts.cir", "-q", "--raw", "out.raw")
    [plot] = read_raw(Path("out.raw").read_bytes())
    assert [name for name, _ in plot.variables] == ["v(v-sweep)", "v(a)", "v(b)", "v(c)", "i(v1)", "i(l1)"]
    np.testing.assert_allclose(plot.column("i(l1)"), [0, 1e-3])


def test_another_sweep_than_that_of_the_deck() -> None:
    out = succeed("swept.cir", "--dc", "R2 1k {k*3k} 2k", "--csv")
    assert out == "R2,in,out,status\n1000.0,10.0,5.0,SOLVED\n3000.0,10.0,7.5,SOLVED\n"


def test_monte_carlo() -> None:
    out = succeed("random.cir", "--runs", "50", "--seed", "3")
    assert "50 runs, seeds 3 to 52" in out
    assert "same answer" not in out
    assert "all runs have the same answer" in succeed("swept.cir", "--runs", "3")
    row = next(line.split() for line in out.splitlines() if line.startswith("b "))
    lines = list(csv.DictReader(io.StringIO(succeed("random.cir", "--runs", "50", "--seed", "3", "--csv"))))
    assert [line["seed"] for line in lines] == [str(3 + k) for k in range(50)]
    b = np.array([float(line["b"]) for line in lines])
    np.testing.assert_allclose([float(x) for x in row[1:]], [b.mean(), b.std(ddof=1), b.min(), b.max()], rtol=1e-6)
    [plot] = json.loads(succeed("random.cir", "--runs", "50", "--seed", "3", "--json"))["plots"]
    np.testing.assert_allclose(plot["statistics"]["b"]["std"], b.std(ddof=1), rtol=1e-9)
    assert plot["analysis"] == "monte carlo"


def test_runs_start_where_the_netlist_as_read_has_draws_that_make_no_circuit() -> None:
    text = "draws\n.options seed=2\nV1 a 0 1\nR1[0:9] a b[0:9] 1k\nR2[0:9] b[0:9] 0 {agauss(1k, 450, 1)}\n"
    Path("draws.cir").write_text(text)
    message = r"negative resistance .* by seed 2\), write \{max\(0, ...\)\}"
    with pytest.raises(cs.NetlistError, match=message) as caught:
        cs.load("draws.cir")
    assert caught.value.seed == 2
    succeed("draws.cir", "--runs", "2", "--seed", "4", "--npz", "out.npz")
    with np.load("out.npz") as found:
        for k, seed in enumerate((4, 5)):
            expected = cs.solve(cs.load("draws.cir", seed)).voltages()[0, 1:]
            np.testing.assert_allclose(found["voltages"][k], expected, rtol=1e-9)
    result = run("draws.cir", "--runs", "5", "--npz", "out.npz")  # from seed 2
    assert result.exit_code == 3 and "3 of 5 points failed; the first, seed = 2: draws.cir:5: " in result.stderr
    assert "negative resistance" in result.stderr and "(here by seed 2)" in result.stderr
    with np.load("out.npz") as found:
        assert found["values"].ravel().tolist() == [2, 3, 4, 5, 6]
        assert found["statuses"].tolist() == ["FAULT", "FAULT", "SOLVED", "SOLVED", "FAULT"]
    assert run("draws.cir", "--runs", "1").exit_code == 3
    Path("draws.cir").write_text(text + ".param x={sqrt(aunif(0, 1))}\n.model d D(is={agauss(1n, 1n, 1)})\nD1 a 0 d\n")
    assert run("draws.cir", "--runs", "5").exit_code == 3


@pytest.mark.parametrize(("value", "cured"), [("{x - 2k}", True), ("'x - 2k'", True), ("-1k", False)])
def test_only_values_that_may_be_drawn_have_the_cure_of_draws(value: str, cured: bool) -> None:
    with pytest.raises(cs.NetlistError, match="negative resistance -") as caught:
        cs.parse(f"t\n.param x={{aunif(1k, 1)}}\nV1 a 0 1\nR1 a 0 {{x}}\nR2 a 0 {value}", seed=3)
    assert ("if it is drawn (here by seed 3), write {max(0, ...)}" in caught.value.message) == cured


@pytest.mark.parametrize(
    ("text", "tried"),
    [
        ("R2 a 0 {aunif(-2k, 1k)}", True),
        (".param x={sqrt(aunif(-2k, 1k))}", True),
        (".model d D(is={aunif(-2n, 1n)})\nD1 a 0 d", True),
        (".model d D(is=-1n)\nD1 a 0 d", False),
        ("R2 a 0 -1k", False),
        ("R2 a 0", False),
    ],
)
def test_draws_that_never_make_a_circuit_are_an_error(text: str, tried: bool) -> None:
    Path("draws.cir").write_text(f"draws\nV1 a 0 1\nR1 a 0 1k\n{text}\n")
    result = run("draws.cir", "--runs", "3", "--seed", "7")
    assert result.exit_code == 2 and "draws.cir:4: " in result.stderr
    assert ("the draws of seeds 7 to 26 make no valid circuit either" in result.stderr) == tried


def test_statistics_without_a_solved_run() -> None:
    Path("none.cir").write_text("none\nI1 a 0 {aunif(1m, 0.1m)}\nD1 a 0 dm\n.model dm D(is=1e-12)\n")
    result = run("none.cir", "--runs", "3", "--json")
    [plot] = json.loads(result.stdout)["plots"]
    assert (result.exit_code, len(plot["failed"])) == (3, 3)
    assert plot["statistics"]["a"] == dict.fromkeys(STATISTICS)


def test_statistics_are_those_of_the_solved_runs_alone() -> None:
    """Other runs may have voltages, too: those which they had reached."""
    result = cs.monte_carlo(cs.parse(RANDOM), 4)
    result = replace(result, statuses=np.array(["SOLVED", "MAX_SWEEPS", "SOLVED", "FAULT"]))
    one, other = result.voltage("b")[[0, 2]].tolist()
    [found] = statistics(result, result.voltage("b")[:, None])
    mean, low, high = (one + other) / 2, min(one, other), max(one, other)
    np.testing.assert_allclose(found, [mean, (high - low) / 2**0.5, low, high])
    result = replace(result, statuses=np.array(["FAULT", "FAULT", "SOLVED", "FAULT"]))
    assert statistics(result, result.voltage("b")[:, None]).tolist() == [[other, 0.0, other, other]]


def test_npz_of_monte_carlo_is_over_seeds() -> None:
    succeed("random.cir", "--runs", "3", "--npz", "out.npz")
    with np.load("out.npz", allow_pickle=False) as found:
        assert found["kinds"].tolist() == found["swept"].tolist() == ["seed"]


def test_json_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.io.sweeps.MOST_NUMBERS", 2)
    result = run("random.cir", "--runs", "3", "--save", "i(r1)", "--json")
    data = json.loads(result.stdout)
    [plot] = data["plots"]
    assert plot["voltages"] == plot["currents"] == plot["saved"] == plot["saved_statistics"] == {}
    assert [warning.split(":")[0] for warning in data["warnings"][-3:]] == ["voltages", "currents", "saved"]
    assert plot["ambiguous_currents"] == []
    assert [warning.split("; ")[1] for warning in data["warnings"][-3:]] == [
        "--npz gives all", "--npz gives all", "--npz and --raw give all",
    ]  # fmt: skip
    Path("outputs.cir").write_text(RANDOM + ".output b\n")
    volts = cs.monte_carlo(cs.load("outputs.cir"), 3).voltage("b")
    for most, kept, said in ((5, ["b"], "only those of the .output nodes are given"), (2, [], "none are given")):
        monkeypatch.setattr("circuitsim.io.sweeps.MOST_NUMBERS", most)
        data = json.loads(run("outputs.cir", "--runs", "3", "--json").stdout)
        [plot] = data["plots"]
        assert list(plot["voltages"]) == list(plot["statistics"]) == kept
        assert all(plot["voltages"][node] == volts.tolist() for node in kept)
        assert all(plot["statistics"][node]["max"] == volts.max() for node in kept)
        assert any(text.startswith(f"voltages: more than {most} numbers: {said}") for text in data["warnings"])


LOOSE = (  # an interval, a loop of sources, ideal diodes side by side, an island that is left out
    "t\nV1 a 0 1\nR1 a 0 1k\nD1 a x di\nR2 x y 1k\nV2 c 0 5\nV3 c 0 5\nR3 c 0 1k\nD2 c h di\nD3 c h di\nV4 h 0 5\n"
    ".model di D(ron=0)\nI1 0 p 1\nR4 p q 1k\n.output y\n"
)


def test_what_is_not_unique_or_left_out_is_told_where_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    result = cs.sweep(cs.parse(LOOSE), "V1 1 2 1", settings=cs.Settings(lenient=True), saves=["v(x)", "v(p)"])
    nodes, saved = "nodes without a unique voltage: x, y", "saved values that are not unique: v(x)"
    left_out = ["nodes that are left out: p, q", "saved values that are left out: v(p)"]
    assert loose_texts([result, result], 8, False) == [nodes, saved, *left_out]
    currents = "currents that are not unique: V2, V3, V4"
    assert loose_texts([result], 8, True) == [nodes, currents, saved, *left_out]
    assert loose_texts([result], 1, True)[:2] == [f"{nodes[:-3]} ...", f"{currents[:-8]} ..."]
    [plot] = sweep_object([result], [], {})["plots"]
    assert plot["ambiguous_currents"] == ["V2", "V3", "V4", "D2", "D3"]
    assert (plot["ambiguous_saved"], plot["left_out_saved"]) == (["v(x)"], ["v(p)"])
    write_sweep_npz([result], Path("out.npz"))
    with np.load("out.npz") as found:
        for marks, names, marked in (
            ("undetermined", "nodes", ["x", "y"]), ("left_out", "nodes", ["p", "q"]),
            ("ambiguous", "sources", ["V2", "V3", "V4"]),
            ("saved_ambiguous", "saved_names", ["v(x)"]), ("saved_left_out", "saved_names", ["v(p)"]),
        ):  # fmt: skip
            assert found[names][found[marks]].tolist() == marked
    write_sweep_parquet([result], Path("out.parquet"))
    [facts] = json.loads(read_schema("out.parquet").metadata[b"circuitsim"])
    assert (facts["undetermined"], facts["left_out"]) == (["x", "y"], ["p", "q"])
    assert facts["ambiguous_currents"] == ["V2", "V3", "V4", "D2", "D3"]
    assert (facts["ambiguous_saved"], facts["left_out_saved"]) == (["v(x)"], ["v(p)"])
    monkeypatch.setattr("circuitsim.io.sweeps.MOST_NUMBERS", 2)
    [plot] = sweep_object([result], [], {})["plots"]
    assert (list(plot["voltages"]), plot["currents"], plot["saved"]) == (["y"], {}, {})
    assert plot["ambiguous_currents"] == ["D2", "D3"] and plot["ambiguous_saved"] == plot["left_out_saved"] == []


def test_json_at_the_limit_has_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.io.sweeps.MOST_NUMBERS", 6)
    result = cs.sweep(cs.parse(DIVIDER), "V1 0 2 1", saves=["v(in)", "v(out)"])
    data = sweep_object([result], [], {})
    assert data["warnings"] == [] and list(data["plots"][0]["voltages"]) == ["in", "out"]
    assert list(data["plots"][0]["saved"]) == ["v(in)", "v(out)"]
    monkeypatch.setattr("circuitsim.io.sweeps.MOST_NUMBERS", 3)
    told = ["of the netlist"]
    data = sweep_object([result], told, {"solve": 0.5})
    assert list(data["plots"][0]["currents"]) == ["V1"] and data["seconds"] == {"solve": 0.5}
    assert [text.split(":")[0] for text in data["warnings"]] == ["of the netlist", "voltages", "saved"]
    assert told == ["of the netlist"]


def test_one_sweep_that_fails_among_others_is_a_failure() -> None:
    good, bad = cs.sweep(cs.parse(DIVIDER), "V1 0 2 1"), cs.sweep(cs.parse(BLOCKED), "I1 -1m 1m 1m")
    assert sweep_object([good], [], {})["status"] == "SOLVED"
    assert sweep_object([good, bad, good], [], {})["status"] == "FAILED"


def test_a_raw_file_of_monte_carlo_is_over_seeds() -> None:
    plot = sweep_plot(cs.monte_carlo(cs.parse(RANDOM), 2, seed=3))
    assert (plot.name, plot.variables[0]) == ("Monte Carlo", ("seed", "notype"))
    assert plot.column("seed").tolist() == [3, 4]


def test_a_node_that_has_the_name_of_the_sweep_of_a_raw_file() -> None:
    """Its column gives way."""
    plot = sweep_plot(cs.sweep(cs.parse("t\nV1 v-sweep 0 1\nR1 v-sweep b 1k\nR2 b 0 1k\n"), "V1 0 2 1"))
    assert [name for name, _ in plot.variables] == ["v(v-sweep)", "v(b)", "i(v1)"]


def test_points_that_fail_are_named_and_the_others_written() -> None:
    result = run("blocked.cir", "--npz", "out.npz")
    assert result.exit_code == 3
    assert result.stderr.startswith("error: 1 of 3 points failed; the first, I1 = -0.001: ")
    assert "NOT met at 1 of 3 points" in result.stdout
    assert "failed at I1 = -0.001: FAULT: " in result.stdout
    with np.load("out.npz", allow_pickle=False) as found:
        assert found["statuses"].tolist() == ["FAULT", "SOLVED", "SOLVED"]
        assert np.isnan(found["voltages"][0]).all()
        assert found["voltages"][2, 0] > 0.5
    result = run("blocked.cir", "--json")
    data = json.loads(result.stdout)
    assert (result.exit_code, data["status"]) == (3, "FAILED")
    assert data["plots"][0]["voltages"]["a"][0] is None
    assert data["plots"][0]["failed"][0]["status"] == "FAULT"
    [failed] = json.loads(run("blocked.cir", "--dc", "I1 1m -1m -1m", "--json").stdout)["plots"][0]["failed"]
    assert (failed["point"], failed["at"], failed["status"]) == (2, "I1 = -0.001", "FAULT")


def test_a_long_table_has_the_status_of_each_point_that_it_shows() -> None:
    """Of 101 points, from 1 mA to -1 mA: those below 0, to which the diode is closed, have failed."""
    result = run("blocked.cir", "--dc", "I1 1m -1m -20u")
    rows = [line.split() for line in result.stdout.splitlines()]
    rows = [row for row in rows if row[-1:] in (["SOLVED"], ["FAULT"])]
    assert len(rows) == 40 and (rows[0][0], rows[-1][0]) == ("0.001", "-0.001")
    assert all(row[-1] == ("SOLVED" if float(row[0]) > 0 else "FAULT") for row in rows)
    failed = [line for line in result.stdout.splitlines() if line.startswith("failed at I1 = -")]
    assert len(failed) == 10 and failed[0].startswith("failed at I1 = -2e-05: FAULT: ")


def test_runs_that_differ_in_their_currents_alone_are_not_the_same() -> None:
    Path("current.cir").write_text("random\nV1 a 0 1\nR1 a 0 {agauss(1k, 100, 1)}\n")
    assert "same answer" not in succeed("current.cir", "--runs", "3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("divider.cir", "error: divider.cir has no .dc card; add one, or --dc 'V1 0 5 0.1', or --runs"),
        ("swept.cir --json --csv", "--json and --csv exclude each other"),
        ("swept.cir --runs 5 --dc x", "--dc and --runs exclude each other"),
        ("swept.cir --seed 5", "--seed is for --runs"),
        ("swept.cir --runs 0", "0 is not in the range 1<=x<=10000000"),
        ("swept.cir --runs 5 --seed -1", "error: seeds -1 ... 3 must lie between 0 and 2^53"),
        ("swept.cir --npz no/out.npz", "error: cannot write no/out.npz"),
        ("swept.cir --dc x", "error: --dc 'x': .dc needs SOURCE START STOP STEP, or that twice; found 1 words"),
    ],
)
def test_bad_usage(arguments: str, message: str) -> None:
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_faulty_point_ends_the_sweep_before_anything_is_written() -> None:
    result = run("divider.cir", "--dc", "k 1 -1 -1", "--npz", "out.npz")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: at k = 0: R2 was a conductance and is now a source or a short")
    assert not Path("out.npz").exists()


def test_choices_are_those_of_the_solver() -> None:
    options = {option.name: option for option in cli.sweep.params}
    for name, known in (("method", METHODS), ("backend", BACKENDS), ("dtype", DTYPES)):
        wanted = ("auto", *known) if name == "backend" else known
        assert tuple(options[name].type.choices) == wanted  # type: ignore[attr-defined]


def test_solve_gives_the_operating_point_and_a_note() -> None:
    result = CliRunner().invoke(cli.main, ["solve", "swept.cir", "--csv"])
    assert (result.exit_code, result.stdout) == (0, "row,in,out\n0,10.0,7.5\n")
    assert result.stderr == "note: this is the operating point; circuitsim sweep swept.cir runs the .dc card\n"


def test_ctrl_c_ends_a_long_sweep_without_a_trace() -> None:
    Path("noted.cir").write_text(RANDOM + ".tran 1 1\n")
    command = [sys.executable, "-m", "circuitsim", "sweep", "noted.cir", "--runs", "1000000", "--npz", "out.npz"]
    with process(command) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("warning: noted.cir:6")  # now it has been read
        time.sleep(1.0)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (130, "", "interrupted\n")
    assert {path.name for path in Path().iterdir()} == {*(f"{name}.cir" for name in DECKS), "noted.cir"}


# -- what is saved, left out, not unique -------------------------------------------------------------------------------

SAVING = SWEPT + ".save v(in,out) @R1[p]\n.print dc v(out) i(R2)\n"
STRAY = "stray\nV1 a 0 1\nR1 a b 1k\nR2 b 0 1k\nI1 0 x 1m\nRx x y 1\nI2 0 w 0\nD1 0 w dm\n.model dm D(is=1e-12)\n"


def test_saved_values_in_every_output() -> None:
    Path("saving.cir").write_text(SAVING)
    names = ["v(in,out)", "@R1[p]", "v(out)", "i(R2)", "i(R1)"]
    wanted = [[v / 4, v * v / 16e3, 0.75 * v, v / 4e3, v / 4e3] for v in (0.0, 1.0, 2.0)]
    save = ("saving.cir", "--save", "i(R1)")
    lines = [line.split() for line in succeed(*save, "-q").splitlines()]
    k = lines.index(["V1", "v(in,out)", "V", "@R1[p]", "W", "v(out)", "V", "i(R2)", "A", "i(R1)", "A"])
    assert lines[k + 4] == ["2", "0.5", "0.00025", "1.5", "0.0005", "0.0005"]
    rows = list(csv.reader(io.StringIO(succeed(*save, "--csv"))))
    assert rows[0] == ["V1", "in", "out", "v(in,out)", "@R1[p]", "i(R2)", "i(R1)", "status"]
    np.testing.assert_allclose(np.array([row[3:-1] for row in rows[1:]], float), np.delete(wanted, 2, axis=1))
    [plot] = json.loads(succeed(*save, "--json"))["plots"]
    assert list(plot["saved"]) == names
    np.testing.assert_allclose(np.transpose(list(plot["saved"].values())), wanted)
    assert plot["ambiguous_saved"] == plot["left_out_saved"] == plot["left_out"] == plot["ambiguous_currents"] == []
    succeed(*save, "-q", "--npz", "out.npz", "--raw", "out.raw", "--ascii")
    with np.load("out.npz", allow_pickle=False) as found:
        assert found["saved_names"].tolist() == names
        np.testing.assert_allclose(found["saved"], wanted)
        assert not found["saved_ambiguous"].any() and not found["saved_left_out"].any()
    assert b"\nValues:\n" in Path("out.raw").read_bytes()
    [plot] = read_raw(Path("out.raw").read_bytes())
    assert [name for name, _ in plot.variables[4:]] == ["v(in,out)", "@r1[p]", "i(r2)", "i(r1)"]
    np.testing.assert_allclose(plot.column("@r1[p]"), [row[1] for row in wanted])


def test_saved_values_of_monte_carlo() -> None:
    run_it = ("random.cir", "--runs", "20", "--seed", "3", "--save", "i(R1),@R2[r]")
    [plot] = json.loads(succeed(*run_it, "--json"))["plots"]
    ohms = np.array(plot["saved"]["@R2[r]"])
    np.testing.assert_allclose(plot["saved"]["i(R1)"], 1 / (1e3 + ohms))
    assert np.unique(ohms).size == 20
    assert plot["saved_statistics"]["@R2[r]"]["max"] == ohms.max()
    lines = [line.split() for line in succeed(*run_it, "-q").splitlines()]
    assert ["saved", *STATISTICS] in lines
    assert [line[2:] for line in lines if line[:2] == ["@R2[r]", "ohm"]] == [
        [f"{x:.7g}" for x in (ohms.mean(), ohms.std(ddof=1), ohms.min(), ohms.max())]
    ]


def test_lenient_leaves_out_islands_at_the_points_where_they_have_no_solution() -> None:
    Path("stray.cir").write_text(STRAY)
    every = ("stray.cir", "--lenient", "--save", "v(w),i(Rx),v(b)")
    result = run(*every, "--dc", "V1 0 2 1", "--json")
    data = json.loads(result.stdout)
    [plot] = data["plots"]
    assert (result.exit_code, data["status"], plot["failed"]) == (0, "SOLVED", [])
    assert (plot["left_out"], plot["left_out_saved"]) == (["x", "y"], ["i(Rx)"])
    assert plot["voltages"]["b"] == [0, 0.5, 1] and plot["voltages"]["x"] == [None] * 3
    told = data["warnings"][-1]
    assert told.startswith(
        "stray.cir:5: left out, with all elements at it: nodes x, y: I1 pushes a net 0.001 A into them,"
    )
    assert f"warning: {told}\n" in result.stderr
    result = run(*every, "--dc", "I2 -1m 1m 1m", "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["status"] for row in rows] == ["SOLVED"] * 3
    assert [row["w"] == "nan" for row in rows] == [False, False, True]
    assert [row["b"] for row in rows] == ["0.5"] * 3
    assert "node w: I2 pushes" in result.stderr and "batch row" not in result.stderr
    assert "warning: nodes that are left out: x, y, w\n" in result.stderr
    out = run(*every, "--dc", "I2 -1m 1m 1m").stdout
    assert "x, left out" in out and "i(Rx), left out A" in out
    assert "3 of 3 points failed" in run("stray.cir", "--dc", "V1 0 2 1").stderr


def test_lenient_in_resistor_sweeps_and_where_a_controlled_source_forbids_it() -> None:
    Path("stray.cir").write_text(STRAY + "E1 e 0 y 0 1\n")
    result = run("stray.cir", "--lenient", "--dc", "R1 1k 3k 2k", "--json")
    [plot] = json.loads(result.stdout)["plots"]
    assert (result.exit_code, len(plot["failed"])) == (3, 2)
    assert "cannot leave it out: controlled sources (E1) join it to the rest" in plot["failed"][0]["message"]
    Path("stray.cir").write_text(STRAY + "R3 x z 1\nV2 z y 3\n")
    [plot] = json.loads(run("stray.cir", "--lenient", "--dc", "R1 1k 3k 2k", "--json").stdout)["plots"]
    assert plot["voltages"]["b"] == [0.5, 0.25] and plot["voltages"]["z"] == [None, None]
    np.testing.assert_allclose(plot["currents"]["V1"], [-0.5e-3, -0.25e-3])
    assert plot["currents"]["V2"] == [None, None]


def test_what_is_not_unique_is_marked_and_strict_refuses_it() -> None:
    deck = "loop\nV1 a 0 1\nE1 a 0 a 0 1\nR1 a 0 1k\nV2 b 0 1\nR2 b 0 1\n.save i(E1)\n.dc V2 0 1 1\n"
    Path("loop.cir").write_text(deck)
    [plot] = json.loads(run("loop.cir", "--json").stdout)["plots"]
    assert (plot["ambiguous_currents"], plot["ambiguous_saved"]) == (["V1", "E1"], ["i(E1)"])
    assert "* of a saved value: not unique" in run("loop.cir").stdout
    result = run("loop.cir", "-q", "--npz", "out.npz", "--raw", "out.raw")
    assert result.exit_code == 0
    with np.load("out.npz") as found:
        assert (found["ambiguous"].tolist(), found["saved_ambiguous"].tolist()) == ([True, False, True], [True])
    assert "saved values that are not unique: i(E1)" in run("loop.cir", "--raw", "out.raw").stderr
    result = run("loop.cir", "--strict")
    assert result.exit_code == 3
    assert "2 of 2 points failed; the first, V2 = 0: strict: the current of V1, E1 is not unique" in result.stderr
    assert run("swept.cir", "--strict").exit_code == 0


def test_nodes_without_a_unique_voltage_in_json() -> None:
    Path("loose.cir").write_text(SWEPT + "R3 x y 1k\n")
    [plot] = json.loads(run("loose.cir", "--json").stdout)["plots"]
    assert (plot["analysis"], plot["undetermined"]) == ("dc", ["x", "y"])
    assert "statistics" not in plot
    [plot] = json.loads(succeed("random.cir", "--runs", "3", "--json"))["plots"]
    assert plot["undetermined"] == []


def test_bad_saves_end_before_anything_is_solved() -> None:
    result = run("swept.cir", "--save", "i(R7)", "--npz", "out.npz")
    assert result.exit_code == 2 and "error: --save i(R7): no element 'R7'" in result.stderr
    assert not Path("out.npz").exists()
    assert "--ascii applies to the raw file" in run("swept.cir", "--ascii").stderr
