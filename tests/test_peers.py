"""The ladders of peers, and the report, at tiny sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import needs_ngspice, some_slow

import circuitsim as cs
from validation import nonideal, peers, report
from validation.measure import Options
from validation.nonideal import PWL, SHOCKLEY, Diode
from validation.peers import LADDERS, SOLVERS, Climbs, Point, exponent, reached, solve_point
from validation.qp import PEERS

SMALL = {name: replace(ladder, sizes=(4, 6, 8, 10)) for name, ladder in LADDERS.items()}


@pytest.mark.parametrize("name", LADDERS)
def test_every_python_solver_reaches_the_same_voltages(name: str) -> None:
    problem = cs.compile_problem(cs.parse(LADDERS[name].text(16)))
    exact = cs.solve(problem, cs.Settings(tol=1e-13)).x[0]
    for solver in set(LADDERS[name].solvers) & set(SOLVERS):
        if solver in PEERS:
            pytest.importorskip(solver, reason="pip install 'circuitsim[bench]'")
        answer = SOLVERS[solver](problem)
        assert answer.seconds > 0
        assert reached(problem, answer.x) <= 1e-9, solver
        np.testing.assert_allclose(answer.x, exact, rtol=0, atol=1e-6 * np.abs(exact).max(), err_msg=solver)


def test_a_point_is_solved_apart() -> None:
    found = peers._in_process("crossbar", 5, "spsolve", 10.0)
    assert found["kcl"] <= 1e-9 and 0 < found["seconds"] < 5 and found["peak_mb"] > 20
    assert solve_point("crossbar", 5, "spsolve")["kcl"] == found["kcl"]


@needs_ngspice
@pytest.mark.parametrize("name", some_slow(LADDERS, 1))
def test_programs_solve_the_flat_deck(name: str, tmp_path: Path) -> None:
    deck = tmp_path / "deck.cir"
    deck.write_text(LADDERS[name].text(16))
    problem = cs.compile_problem(cs.load(deck))
    for solver in ("circuitsim solve", "ngspice"):
        found = peers._by_program(problem, deck, solver, 60.0)
        assert found["kcl"] is not None and found["kcl"] <= (1e-9 if solver != "ngspice" else 1e-4), solver
        assert found["seconds"] > 0 and found["peak_mb"] > 1


def test_a_solver_that_is_too_slow_climbs_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    def figures(ladder: str, size: int, solver: str, limit: float) -> dict[str, float]:
        return {"seconds": 100.0 if solver == "spsolve" and size == 6 else 0.1, "kcl": 1e-12, "peak_mb": 50.0}

    monkeypatch.setattr(peers, "LADDERS", SMALL)
    monkeypatch.setattr(peers, "_in_process", figures)
    monkeypatch.setattr(peers, "_by_program", lambda *a: {"seconds": 0.1, "kcl": None, "peak_mb": 1.0})
    found = list(peers.points(Options(), ["grid"]))
    assert [p.size for p in found if p.solver == "spsolve"] == [4, 6]
    assert [p.size for p in found if p.solver == "pyamg"] == [4, 6, 8, 10]
    assert {p.size for p in peers.points(Options(quick=True), ["grid"])} == {6, 10}


def points_of(solver: str, seconds: list[float], kcl: float = 1e-12) -> list[Point]:
    return [Point("grid", n, n * n, solver, s, kcl, 100.0) for n, s in zip((10, 20, 40, 80), seconds, strict=True)]


def test_growth_is_fitted_to_the_upper_end() -> None:
    assert exponent(points_of("a", [9.0, 0.04, 0.16, 0.64])) == pytest.approx(1.0)
    assert exponent(points_of("a", [1e-4, 1e-4, 1e-4, 0.64])) is None


def test_rows_compare_on_the_largest_circuit_that_both_solved() -> None:
    own, peer = points_of("circuitsim", [0.01, 0.02, 0.03, 0.04]), points_of("spsolve", [0.1, 0.2, 0.6, 9.0], 1e-7)
    rows = Climbs([*own, *peer[:3], Point("grid", 80, 6400, "spsolve", note="too slow"),
                   Point("grid", 10, 0, "pyamg", note="not installed")]).rows()  # fmt: skip
    by = {row.peer: row for row in rows}
    assert by["spsolve"].ratio == pytest.approx(20.0)
    assert "grid 40, 1,600 unknowns" in by["spsolve"].what and "(not 1e-9)" in by["spsolve"].note
    assert by["pyamg"].note == "not installed"
    assert by[""].measured == 0.04 and "1e-9" not in by[""].note


# -- the report --------------------------------------------------------------------------------------------------------


def test_report_says_what_is_missing_and_how_to_make_it(tmp_path: Path) -> None:
    text = report.page(tmp_path)
    for source, command in report.SOURCES.items():
        assert source in text and command in text
    assert "<script" not in text and "http" not in text.replace("http-equiv", "")


@pytest.mark.slow
def test_report_shows_what_is_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'circuitsim[plot]'")
    agreement, runs = tmp_path / report.AGREEMENT, tmp_path / report.RUNS / "one"
    agreement.mkdir(parents=True)
    runs.mkdir(parents=True)
    rows = [
        {"suite": "netlists", "name": "a.cir", "verdict": "AGREE"},
        {"suite": "netlists", "name": "<b>.cir", "verdict": "DIFFER", "worst": "v(x)", "ours": 1.0, "theirs": 2.0},
        {"suite": "random", "name": "family 1, seed 3", "verdict": "AGREE", "fault": "WRONG", "why": "v(n) by 1 V"},
        {"suite": "random", "name": "family 1, seed 4", "verdict": "NO_REFERENCE", "fault": ""},
    ]
    (agreement / "results.json").write_text(json.dumps({"command": "pytest validation/", "rows": rows}))
    (agreement / "study.png").write_bytes(b"\x89PNG")
    (tmp_path / report.PEERS).write_text(json.dumps([vars(p) for p in points_of("ngspice", [0.1, 0.2, 0.4, 0.8])]))
    (runs / "metrics.csv").write_text("epoch,test_error\n1,9.5\n2,3.25\n")
    (runs / "config.json").write_text(json.dumps({"commands": ["python -m training.mnist"]}))
    (tmp_path / "README.md").write_text("## Results\n\n| a | b |\n|---|---|\n| 1 | two |\n\n## Next\n\n| no | no |\n")
    (tmp_path / report.BENCH).write_text("{torn")
    fuzzing = tmp_path / report.FUZZING
    fuzzing.parent.mkdir()
    turn = {"started": "now", "engine": "atheris", "decks": 1000, "cpu_seconds": 5400.0, "faults": ["<slow>"]}
    fuzzing.write_text(f"{json.dumps(turn)}\n{json.dumps({**turn, 'faults': []})}\n")
    diodes = [Diode(PWL, {"ron": 0.25, "vfwd": 0.0}), Diode(SHOCKLEY, {"is": 1e-9, "n": 1.5})]
    study = [
        nonideal.Row(d.kind, str(d), d.parameters, 0.1, change, 3.0, 4.375, 1e-12, 0.5)
        for d, change in zip(diodes, (0.5, 0.0625), strict=True)
    ]
    nonideal.write_json(study, tmp_path / report.DIODES, "a <net>", 100.0, 7)
    text = report.page(tmp_path)
    assert "<td>IS=1e-09 N=1.5</td><td>10</td><td>6.25</td><td>3.00</td><td>4.38</td>" in text
    assert "a &lt;net&gt;: each model" in text and 'alt="diodes" src="data:image/svg+xml' in text
    assert "<td>2</td><td>2000</td><td>3</td><td>&lt;slow&gt;</td>" in text
    assert "&lt;b&gt;.cir" in text and "v(x): 1, theirs 2" in text and "<b>" not in text
    assert "data:image/png;base64," in text and "data:image/svg+xml;base64," in text
    assert "fault: WRONG; v(n) by 1 V" in text and "seed 4" not in text
    assert "3.25" in text and "9.5" not in text and "python -m training.mnist" in text
    assert "<td>two</td>" in text and "<th>no</th>" not in text
    assert "cannot be read" in text
    others = ["5", "null", "[]", "{}", '{"rows": []}', '{"rows": [5]}', '{"rows": [{"kind": 1}]}', '[{"ladder": 1}]']
    others += ['{"date": "", "machine": {"cpu": "", "cores": 1}, "versions": [], "rows": []}']
    for source in (report.DIODES, report.PEERS, report.BENCH):
        for other in others:
            (tmp_path / source).write_text(other)
            assert f"{source} cannot be read" in report.page(tmp_path), other
    for other in ('{"rows": 5}', '{"rows": [5]}'):
        (agreement / "results.json").write_text(other)
        assert f"{report.AGREEMENT} cannot be read" in report.page(tmp_path), other


def test_report_is_written_whole_and_the_picture_needs_ladders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    target = tmp_path / "new" / "report.html"
    assert CliRunner().invoke(report.main, ["--output", str(target)]).exit_code == 0
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    result = CliRunner().invoke(report.main, ["--picture", str(tmp_path / "ladders.svg")])
    assert result.exit_code == 2 and "make bench" in result.output
