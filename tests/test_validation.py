"""The suites of validation/ fail when circuitsim is wrong: errors are planted in it, one at a time."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import end_while_ngspice_runs, needs_ngspice, some_slow
from planted import ERRORS, plant

import circuitsim as cs
from circuitsim.gallery import drn
from circuitsim.spice.compare import Comparison, Quantity, Verdict, compare
from validation import faults
from validation.digits import digit_inputs
from validation.faults import judged
from validation.nonideal import (
    DIODES,
    IDEAL,
    PERFECT,
    PWL,
    SHOCKLEY,
    Diode,
    picture,
    read_json,
    study,
    with_diode,
    write_csv,
    write_json,
)
from validation.random_circuits import AGREE, ENORMOUS, WRONG, Outcome, judge
from validation.random_decks import FAMILIES, random_deck, shares
from validation.results import row_of, said, worst_of

ROOT = Path(__file__).parent.parent

WITHOUT_PYSPICE = (
    "import importlib.util\nfind = importlib.util.find_spec\n"
    "importlib.util.find_spec = lambda name, *more: None if name == 'PySpice' else find(name, *more)\n"
)
CIRCUITS = {
    "Shockley": "t\nV1 in 0 2\nR1 in a 1k\nD1 a 0 d\nR2 a b 1k\nI1 0 b 1m\nR3 b 0 1k\n.model d D(is=1e-12 n=1.5)\n",
    "perfect": "t\nV1 in 0 2\nR1 in a 1k\nD1 a c d\nVc c 0 0.5\nR2 a b 1k\nI1 0 b 1m\nR3 b 0 1k\n.model d D(ron=0)\n",
    "network": drn([6, 4, 3], gain=5.0).replace("Ib1[0:3] 0 h1[0:3] 0", "Ib1[0:3] 0 h1[0:3] 0.1"),
}


@needs_ngspice
@pytest.mark.parametrize("error", ["none", *ERRORS])
@pytest.mark.parametrize("name", CIRCUITS)
def test_a_planted_error_is_a_difference(name: str, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = cs.parse(CIRCUITS[name])
    if error != "none":
        plant(monkeypatch, ERRORS[error])
    found = compare(circuit)
    assert found.kcl_ours <= 1e-9  # the wrong circuit is solved right
    assert found.verdict is (Verdict.AGREE if error == "none" else Verdict.DIFFER)


@needs_ngspice
@pytest.mark.parametrize("error", some_slow(["none", *ERRORS], 2))
def test_random_circuits_notice_a_planted_error(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if error != "none":
        plant(monkeypatch, ERRORS[error])
    faults = [judged(random_deck(family, seed)).fault for family in (1, 3) for seed in range(8)]
    assert any(faults) == (error != "none"), faults


@pytest.mark.parametrize("family", FAMILIES)
def test_calling_unique_voltages_open_is_noticed(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    decks = [random_deck(family, seed) for seed in range(8)]
    assert not [out for deck in decks if (out := judge(deck, with_ngspice=False)).kind == WRONG]
    nothing = property(lambda solution: np.arange(len(solution.circuit.nodes)) == 0)
    monkeypatch.setattr(cs.Solution, "determined", nothing)
    said = [out.why for deck in decks if (out := judge(deck, with_ngspice=False)).kind == WRONG]
    assert said and all("marked as not unique" in why for why in said)


@pytest.mark.parametrize("family", [1, 2, 3])
def test_calling_one_unique_voltage_open_is_noticed(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in circuits of which other nodes are not unique."""
    true, planted = cs.Solution.determined.func, []  # type: ignore[attr-defined]

    def but_the_last_unique(solution: cs.Solution) -> np.ndarray:
        found = true(solution).copy()
        planted.append(np.flatnonzero(found)[1:][-1:])
        found[planted[-1]] = False
        return found

    monkeypatch.setattr(cs.Solution, "determined", property(but_the_last_unique))
    noticed = 0
    for seed in range(12):
        planted.clear()
        outcome = judge(random_deck(family, seed), with_ngspice=False)
        if planted and planted[0].size and outcome.kind != ENORMOUS:
            assert "marked as not unique, but no other solution" in outcome.why, (seed, outcome)
            noticed += 1
    assert noticed >= 3


@needs_ngspice
@pytest.mark.parametrize("error", some_slow(["none", *ERRORS], 2))
def test_ngspice_alone_notices_a_planted_error(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No verdict of ours explains it away: with references that see nothing wrong it is a difference all the same."""
    monkeypatch.setattr(faults, "judge", lambda deck: Outcome(deck, AGREE))
    if error != "none":
        plant(monkeypatch, ERRORS[error])
    found = [judged(random_deck(family, seed)).fault for family in (1, 2, 3, 4) for seed in range(8)]
    assert set(found) == ({"", "ngspice"} if error != "none" else {""})


@needs_ngspice
@pytest.mark.parametrize(
    ("family", "seed"),
    [
        (1, 201492),  # a perfect diode blocks a voltage that closed would drive less than rounding through Ron
        (1, 202163), (2, 200013), (4, 201438),  # rounding of amperes in the rows of sources, and of volts
        (2, 201517),  # rounding at nodes of an island leaves it by the branch that holds it
        (2, 202251),  # ngspice leaves an island at 7e279 V
        (3, 100132), (3, 101136),  # breakdown at N > 1
        (3, 100884),  # rounding of a series resistance
        (3, 100155), (3, 202106), (3, 200696), (3, 200781), (3, 201343),  # the reference itself is not that exact
        (4, 100226),  # pivots that ngspice chose too small
        (4, 100130), (4, 201877),  # laws and bounds are met relative to what is in the circuit
        (4, 201551),  # was without any element
        (1, 300284),  # an island that hangs on an ideal diode without a current
        (1, 6002),  # one that ngspice leaves at 1e7 V
        (3, 300856),  # corrections that a flat tangent led to 1e143 V
        (2, 302601), (2, 302705), (2, 303458),  # a table at its kink beside a perfect diode
        (3, 302851),  # a perfect diode of 1.4 kA bends what lies beside it
        (2, 303371),  # 24 mA round to 2.6e-12 V in the reference
        (4, 302878),  # an island that only controlled sources hold
        (4, 21717),  # 3 A between nodes that sources tie, and 2e-33 A of rounding elsewhere
        (4, 303870),  # a loop of sources in which 8 uA flow, and 1e-82 V elsewhere
        (3, 303578),  # a step so long that its square overflows
        (1, 910026),  # what a carried current rounds to, opened a perfect diode beside nothing by 1e-27 V
        (1, 920446),  # a perfect diode at its edge, whose current was first a rounding below 0
        (2, 920563),  # all voltages are 0: a correction of 1e-25 V was taken for one that leads nowhere
        (3, 303222),  # an island at -1e58 V, where rounding excused any current
    ],
)  # fmt: skip
def test_random_decks_that_once_were_faults(family: int, seed: int) -> None:
    found = judged(random_deck(family, seed))
    assert not found.fault, said(found.row)


@needs_ngspice
def test_where_ngspice_leaves_an_island_is_no_difference() -> None:
    assert compare(cs.parse(random_deck(1, 6002).text)).verdict is not Verdict.DIFFER


@pytest.mark.parametrize("count", [0, 1, 3, 10, 200])
def test_families_share_all_circuits_of_a_count(count: int) -> None:
    each = shares(count)
    assert (list(each), sum(each.values())) == (list(FAMILIES), count)
    assert max(each.values()) - min(each.values()) <= 1
    assert shares(count, [3]) == {3: count}


def suites(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`pytest validation/...` in a process of its own."""
    paths = f"{Path(__file__).parent}{os.pathsep}{ROOT}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--results={tmp_path}", *arguments]
    inherited = {name: value for name, value in os.environ.items() if name != "CIRCUITSIM_NEEDS_NGSPICE"}
    return subprocess.run(
        command, cwd=ROOT, env=inherited | {"PYTHONPATH": paths} | environment, capture_output=True, text=True
    )


@pytest.mark.slow
@needs_ngspice
@pytest.mark.parametrize("error", ["", "conductance", "diode", "voltage"])
def test_a_planted_error_makes_the_suites_fail(error: str, tmp_path: Path) -> None:
    plugin = ["-p", "planted"] if error else []
    tests = ["validation/test_netlists.py", "-k", "operating_point and (bridge_rectifier or diode_or)"]
    run = suites(tmp_path, *tests, *plugin, **({"PLANTED": error} if error else {}))
    assert run.returncode == (1 if error else 0), run.stdout + run.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["bridge_rectifier", "diode_or"]
    assert "AGREE" in {row["verdict"] for row in rows} if not error else "DIFFER" in {row["verdict"] for row in rows}
    assert ("validation" in run.stdout) and "netlists: " in run.stdout


def test_the_worst_point_of_a_sweep_may_have_no_values() -> None:
    near, far = (Quantity("v(a)", 1.0, 1.0 + off, 1e-9, True) for off in (1e-12, 5e-10))
    agreeing = [Comparison("ngspice", (q,), 0.0, 0.0, (1.0, 1.0), Verdict.AGREE, (), q.name) for q in (near, far)]
    silent = Comparison("ngspice", (), 0.0, math.nan, (1.0, math.nan), Verdict.NO_REFERENCE, ("it was killed",))
    assert worst_of(agreeing) is agreeing[1]
    assert worst_of([silent, *agreeing]) is silent
    row = row_of("suite", "name", silent)
    assert "of_allowed" not in row
    assert said(row) == "suite: name: NO_REFERENCE; it was killed"


@pytest.mark.slow
def test_without_ngspice_suites_are_skipped_or_fail(tmp_path: Path) -> None:
    tests = ["validation/test_netlists.py", "-rs", "-k", "operating_point and divider"]
    run = suites(tmp_path, *tests, PATH=str(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "install it (Debian, Ubuntu: apt-get install ngspice)" in run.stdout
    run = suites(tmp_path, *tests, PATH=str(tmp_path), CIRCUITSIM_NEEDS_NGSPICE="1")
    assert run.returncode == 4
    assert "apt-get install ngspice" in run.stderr and "must be there: make test" in run.stderr


@pytest.mark.slow
@needs_ngspice
def test_without_pyspice_a_run_that_needs_it_fails(tmp_path: Path) -> None:
    (tmp_path / "without.py").write_text(WITHOUT_PYSPICE)
    tests = ["-p", "without", "validation/test_netlists.py", "-k", "operating_point and divider"]
    paths = f"{tmp_path}{os.pathsep}{ROOT}"
    assert suites(tmp_path, *tests, PYTHONPATH=paths).returncode == 0
    run = suites(tmp_path, *tests, PYTHONPATH=paths, CIRCUITSIM_NEEDS_NGSPICE="1")
    assert (run.returncode, "PySpice is not installed" in run.stderr) == (4, True), run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "1"]])
def test_suites_that_are_ended_leave_nothing(
    workers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("CIRCUITSIM_NEEDS_NGSPICE", raising=False)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--results={tmp_path}", *workers]
    tests = ["validation/test_netlists.py", "-k", "operating_point and divider"]
    assert end_while_ngspice_runs([*command, *tests], tmp_path, monkeypatch)[0] == 128 + signal.SIGTERM


# -- diodes that are not perfect ---------------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A small network for MNIST's images, untrained."""
    path = tmp_path / "net.cir"
    path.write_text(drn([1568, 8, 10]))
    return path


def test_diodes_are_replaced_and_values_kept(network: Path) -> None:
    perfect, real = with_diode(network, PERFECT), with_diode(network, Diode(SHOCKLEY, {"is": 1e-9, "n": 1.5}))
    assert (len(perfect.ideal_diodes), len(perfect.junctions)) == (8, 0)
    assert (len(real.ideal_diodes), len(real.junctions)) == (0, 8)
    assert (perfect.crossbars[0].g == real.crossbars[0].g).all()


def test_the_study_is_what_two_solutions_say(network: Path, tmp_path: Path) -> None:
    diodes = [PERFECT, Diode(PWL, {"ron": 0.1, "vfwd": 0.0}), Diode(SHOCKLEY, {"is": 1e-9, "n": 1.0})]
    rows = study(network, 100.0, 7, diodes)
    assert [row.kind for row in rows] == [IDEAL, PWL, SHOCKLEY]
    assert rows[0].hidden_change == rows[0].output_change == rows[0].reread_percent == 0
    volts = []
    for diode in (PERFECT, diodes[2]):
        circuit = with_diode(network, diode)
        inputs, labels = digit_inputs(circuit, 100.0, 7)
        solution = cs.solve(circuit.with_values(inputs))
        volts.append((solution.voltage("h1[0:7]"), solution.voltage("y[0:9]")))
    for k, change in enumerate((rows[2].hidden_change, rows[2].output_change)):
        perfect, real = volts[0][k], volts[1][k]
        assert change == pytest.approx((((real - perfect) ** 2).sum() / (perfect**2).sum()) ** 0.5)
    wrong = [int(y.argmax()) != label for y, label in zip(volts[1][1], labels, strict=True)]
    assert rows[2].error_percent == pytest.approx(100 * sum(wrong) / 7)
    write_csv(rows, tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "kind,diode,hidden_change,output_change,reread_percent,error_percent,kcl_relative,seconds"
    assert len(lines) == 4
    assert lines[3].startswith("Shockley,IS=1e-09 N=1,")
    assert picture(rows).startswith(b"\x89PNG")
    write_json(rows, tmp_path / "study.json", "a net", 100.0, 7)
    assert read_json(tmp_path / "study.json") == ({"netlist": "a net", "gain": 100.0, "digits": 7}, rows)


def test_the_study_has_all_kinds_of_diodes() -> None:
    assert {diode.kind for diode in DIODES} == {IDEAL, PWL, SHOCKLEY}
    assert len({diode.parameters["n"] for diode in DIODES if diode.kind == SHOCKLEY}) >= 3
