"""Parameters given from outside: everywhere as if the netlist said them, conditions, sweeps, draws and files too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import circuitsim as cs
from circuitsim import cli
from circuitsim.io.study import circuit_facts

CORNERS = """corners
.param corner={0} r0={1}
.if (corner == 1)
.param k=2 only=1
R9 b 0 1k
.else
.param k=1 f(x)={{3*x}}
R9 b 0 2k
.endif
V1 a 0 3
R1 a b {{r0*k}}
R2 b 0 {{agauss(1k, 100, 1)}}
.subckt cell x
.param r0=5
Rs x 0 {{r0*1k}}
.ends
X1 b cell
.dc V1 1 3 1
"""


def written(corner: str = "0", r0: str = "1k") -> str:
    """The netlist that says so itself."""
    return CORNERS.format(corner, r0)


def assert_same(one: cs.Circuit, other: cs.Circuit) -> None:
    assert one.nodes == other.nodes
    for a, b in zip(one.groups.values(), other.groups.values(), strict=True):
        for name, column in vars(a).items():
            np.testing.assert_array_equal(column, getattr(b, name))


@pytest.mark.parametrize(
    ("params", "corner", "r0"),
    [
        ({"corner": 1}, "1", "1k"),
        ({"R0": "2.5k"}, "0", "2.5k"),
        ({"r0": "{500*k}", "CORNER": np.int64(1)}, "1", "{500*k}"),
        ({"r0": " '500*k' "}, "0", "{500*k}"),
        ({"r0": 1e-3}, "0", "1m"),
        ({}, "0", "1k"),
    ],
)
def test_a_given_value_is_one_that_the_netlist_says(params: dict[str, Any], corner: str, r0: str) -> None:
    given, said = cs.parse(written(), params=params), cs.parse(written(corner, r0))
    assert_same(given, said)
    for sweep in ("V1 1 3 1", "r0 1k 3k 1k", "TEMP 0 50 25"):
        np.testing.assert_array_equal(cs.sweep(given, sweep).voltages, cs.sweep(said, sweep).voltages)
    np.testing.assert_array_equal(cs.monte_carlo(given, 5).voltages, cs.monte_carlo(said, 5).voltages)


def test_given_values_count_in_what_tells_studies_apart() -> None:
    facts = [circuit_facts(cs.parse(written(), params=params)) for params in ({}, {"r0": 1e3}, {"r0": 2e3})]
    assert len({fact["netlist"] for fact in facts}) == 3
    assert facts[0]["values"] == facts[1]["values"] != facts[2]["values"]
    both = [("r0", 2e3), ("corner", 1.0)]
    one, other = (circuit_facts(cs.parse(written(), params=dict(pairs))) for pairs in (both, both[::-1]))
    assert one == other  # in any order


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"nothing": 1},
            r"'nothing' in the main netlist of netlist; parameters are corner, k, only, r0 \.",
        ),
        ({"corne": 1}, "no parameter 'corne' in the main netlist of netlist; parameters are corner"),
        ({"f": 1}, "no parameter 'f'"),
        ({"f(x)": 1}, r"no parameter 'f\(x\)'"),
        ({"only": 1}, "parameter 'only' is given a value, but is in a branch of .if that is not taken"),
        ({"r0": "1+"}, "parameter r0: expression '1.': unexpected end"),
        ({"r0": ""}, "parameter r0: a value is a number, or a SPICE number as text, found ''"),
        ({"r0": None}, "parameter r0: a value is a number"),
        ({"r0": True}, "parameter r0: a value is a number"),
        ({"r0": float("nan")}, "parameter r0: a value must be finite, found nan"),
        ({"r0": np.inf}, "parameter r0: a value must be finite, found inf"),
        ({"r0": "2*r0"}, r"parameter r0: '2\*r0' is not a value"),
        ({"R0": "2*r0"}, r"parameter R0: '2\*r0' is not a value"),
        ({"r0": "k=2"}, r"parameter r0: 'k=2' is not a value"),
        ({"r0": 1, "R0": 2}, "a parameter is given twice"),
        ([("r0", 1)], "params are a mapping of names to values"),
    ],
)
def test_what_cannot_be_given(params: Any, message: str) -> None:
    with pytest.raises(cs.SettingsError, match=message):
        cs.parse(written(), params=params)


def test_values_that_cannot_be_name_their_line() -> None:
    with pytest.raises(cs.NetlistError, match=r"netlist:11: resistor R1: negative resistance -1 ohm"):
        cs.parse(written(), params={"r0": -1})
    with pytest.raises(cs.NetlistError, match="netlist:2: parameter 'elsewhere' is not defined"):
        cs.parse(written(), params={"r0": "2*elsewhere"})


@pytest.fixture
def deck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("inner.cir").write_text(".param r0=1k\n")
    Path("corners.cir").write_text(written().replace(" r0=1k", "\n.include inner.cir"))
    Path("said.cir").write_text(written("1", "2k"))
    return Path("corners.cir")


@pytest.mark.parametrize("command", ["solve --csv", "sweep --csv", "sweep --csv --runs 3", "check --json", "flatten"])
def test_every_command_takes_them(command: str, deck: Path) -> None:
    name, *options = command.split()
    given = ["--param", "corner=1", "--param", "r0 = 2k"]
    found, said = (
        CliRunner().invoke(cli.main, [name, str(file), *options, *more])
        for file, more in ((deck, given), (Path("said.cir"), []))
    )
    assert found.exit_code == said.exit_code == 0
    assert found.stdout.replace("corners.cir", "said.cir") == said.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["r0"], "--param 'r0': write NAME=VALUE, such as r=1k"),
        (["r0=1", "R0=2"], "--param: R0 is given twice"),
        (["x=1"], "no parameter 'x' in the main netlist of corners.cir"),
    ],
)
def test_wrong_options_exit_2(given: list[str], message: str, deck: Path) -> None:
    options = [word for text in given for word in ("--param", text)]
    result = CliRunner().invoke(cli.main, ["solve", str(deck), *options])
    assert result.exit_code == 2
    assert message in result.stderr


def test_pictures_of_netlists_take_them_and_those_of_runs_do_not(deck: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = CliRunner().invoke(cli.main, ["plot", str(deck), "-o", "x.png", "--kind", "graph", "--param", "corner=1"])
    assert drawn.exit_code == 0, drawn.output
    refused = CliRunner().invoke(cli.main, ["plot", "run", "-o", "x.png", "--kind", "training", "--param", "a=1"])
    assert refused.exit_code == 2 and "--param is for netlists" in refused.stderr
