"""Every deck that fuzzing found a fault with, the checks that have to see faults, and some seconds of fuzzing."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.io.commands import Ended, ends_in_order
from validation import fuzz
from validation.equations import broken_equation
from validation.fuzz import VARIANTS, Fault, Workshop, certificate, main, read_record
from validation.fuzz_decks import GRAMMAR, companions, grown_deck, mutated, seeds
from validation.measure import ROOT

CASES = sorted((Path(__file__).parent / "fuzz_cases").glob("*.cir"))
CIRCUITS = {
    "divider": "t\nV1 in 0 10\nR1 in out 1k\nR2 out 0 3k",
    "diodes": "t\n.model s D\n.model p D(ron=0 vfwd=0.7)\nI1 0 a 1m\nD1 a b s\nD2 b 0 p\nR1 a 0 10k",
    "controlled": "t\nV1 a 0 1\nR1 a b 1k\nE1 c 0 a 0 2\nF1 0 d V1 3\nR2 b c 1k\nR3 d 0 1k",
    "crossbar": "t\nV1 x[0] 0 1\nV2 x[1] 0 2\nRW[0:1][0:1] x[0:1] y[0:1] g=1m\nR1[0:1] y[0:1] 0 1k",
}


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[pytest.mark.slow] if name != "auto" else []) for name in VARIANTS]
)
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases_once_found_stay_solved_or_refused(path: Path, variant: str, tmp_path: Path) -> None:
    for companion in companions():
        shutil.copy(companion, tmp_path)
    fault = Workshop(tmp_path, tmp_path / "found").fault_of(path.read_bytes(), variant)
    assert fault is None, fault.said


@pytest.mark.parametrize(("volts", "holds"), [(0.0, True), (1e-12, True), (1e-9, False), (1e-6, False)])
def test_a_voltage_beside_a_megavolt_is_known_to_its_last_digit(volts: float, holds: bool) -> None:
    """2e-10 V is the last digit of 1 MV; 1 nS holds the node, and a G makes the megavolt."""
    solution = cs.solve(cs.parse("t\nV1 a 0 1\nR1 x m 1m\nR2 x 0 1g\nR3 m 0 1g\nR4 e 0 1g\nG1 0 e a x 1m"))
    x = solution.x.copy()
    x[0, solution.problem.topology.index_of_node[[solution.circuit.nodes.index(name) for name in "xm"]]] += volts
    assert (broken_equation(replace(solution, x=x, low=None), 1e-9) == "") == holds


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_equations_hold_and_a_wrong_voltage_breaks_them(name: str) -> None:
    solution = cs.solve(cs.parse(CIRCUITS[name]))
    assert broken_equation(solution, 1e-9) == ""
    assert certificate(solution) <= 1e-9
    for unit in range(solution.problem.n_free):
        x = solution.x.copy()
        x[0, unit] += 1e-4
        wrong = replace(solution, x=x, low=None)
        assert broken_equation(wrong, 1e-9) != ""
        assert certificate(wrong) > 1e-9


def test_equations_see_a_source_that_is_missed_and_what_is_no_number() -> None:
    solution = cs.solve(cs.parse(CIRCUITS["controlled"]))
    x = np.full_like(solution.x, np.nan)
    assert "not a number" in broken_equation(replace(solution, x=x, low=None), 1e-9)
    carried = solution.carried.copy()
    carried[0, 1] *= 1.001  # of F1
    assert "F1 gives" in broken_equation(replace(solution, carried=carried), 1e-9)


def test_a_fault_is_made_small_and_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_solve(circuit: cs.Circuit, *arguments: object, **options: object) -> cs.Solution:
        if len(circuit.conductors) > 1:
            raise ZeroDivisionError("planted")
        return solve(circuit, *arguments, **options)  # type: ignore[arg-type]

    solve = cs.solve
    monkeypatch.setattr(cs, "solve", broken_solve)
    workshop = Workshop(tmp_path, tmp_path / "found")
    for _ in range(2):
        workshop.judge(b"title\nR9 q 0 1\n" + CIRCUITS["divider"][2:].encode() + b"\nI1 0 out 1m\n.op\n")
    [kept] = (tmp_path / "found").glob("*.cir")
    assert sorted(line[:1] for line in kept.read_bytes().splitlines() if line)[-2:] == [b"R", b"R"]
    assert len(kept.read_bytes()) < 30
    assert "planted" in kept.with_suffix(".json").read_text()


def kept_fault(folder: Path, variant: str) -> Path:
    (folder / "kept.cir").write_text(CIRCUITS["divider"])
    about = folder / "kept.json"
    about.write_text(json.dumps({"where": "certificate", "variant": variant, "said": "planted"}))
    return about


def test_kept_faults_that_are_none_any_more_are_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept_fault(tmp_path, "newton")
    assert main(["--minutes", "0", "--found", str(tmp_path)]) == 0
    assert not list(tmp_path.glob("kept.*"))
    assert sorted(path.name for path in (tmp_path / fuzz.FORGOTTEN).iterdir()) == ["kept.cir", "kept.json"]
    assert "kept is no longer a fault: certificate" in capsys.readouterr().out
    [line] = map(json.loads, (tmp_path / fuzz.RECORD).read_text().splitlines())
    assert (line["forgotten"], line["where"], line["variant"]) == ("kept", "certificate", "newton")
    assert read_record(tmp_path) == []  # no turn of an engine


@pytest.mark.parametrize(("shown", "stays"), [([False, False, True], True), ([False, False, False], False)])
def test_a_kept_fault_that_one_process_in_three_shows_stays(
    shown: list[bool], stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, answers = kept_fault(tmp_path, "newton"), iter(shown)
    monkeypatch.setattr(fuzz, "_shows", lambda kept: next(answers))
    fuzz.forget_mended(tmp_path)
    assert kept.exists() == kept.with_suffix(".cir").exists() == stays
    assert (tmp_path / fuzz.RECORD).exists() != stays


def test_a_kept_fault_that_another_variant_shows_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_fault(tmp_path, "newton")
    monkeypatch.setattr(fuzz, "certificate", lambda solution: float(solution.method == "bcd"))
    assert main(["--again", str(kept)]) == 1


@pytest.mark.parametrize("variant", ["bcd", "unknown"])
def test_kept_faults_that_still_are_stay(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = kept_fault(tmp_path, variant)
    assert main(["--again", str(kept)]) == 0
    monkeypatch.setattr(fuzz, "certificate", lambda solution: 1.0)
    assert main(["--again", str(kept)]) == 1


def test_a_process_does_not_outlive_the_one_that_waits_for_it(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    process = subprocess.Popen(["sleep", "60"])
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Ended), ends_in_order():
            fuzz._death(process, tmp_path, 60.0)
        assert process.returncode == -signal.SIGKILL
    finally:
        process.kill()
        signal.signal(signal.SIGTERM, before)


def test_each_turn_of_an_engine_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_slice(engine: str, seconds: float, seed: int, found: Path, corpus: Path) -> int:
        subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
        Workshop(tmp_path, found).keep(Fault(f"of {engine}", "planted"), "auto", b"deck")
        return 7

    monkeypatch.setattr(fuzz, "run_slice", run_slice)
    monkeypatch.setattr(fuzz, "forget_mended", lambda found: None)
    for seed in ("1", "5"):
        assert main(["--minutes", "1", "--engine", "hypothesis", "--seed", seed, "--found", str(tmp_path / "f")]) == 1
    first, second = read_record(tmp_path / "f")
    assert (first["decks"], first["seed"], first["faults"]) == (7, 1, ["of hypothesis"])
    assert (second["decks"], second["seed"], second["faults"]) == (7, 5, [])  # it was known
    assert first["cpu_seconds"] > 0
    assert "14 decks in" in capsys.readouterr().out


def test_a_deck_that_takes_too_long_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*arguments: object, **options: object) -> None:
        while True:
            pass

    monkeypatch.setattr(cs, "solve", endless)
    fault = Workshop(tmp_path, tmp_path / "found").fault_of(CIRCUITS["divider"].encode(), "auto", seconds=0.2)
    assert isinstance(fault, Fault) and fault.where.startswith("slow") and "0.2 s" in fault.said


def test_the_grammar_grows_decks_that_are_solved_and_mutations_change_them() -> None:
    rules = {name for choices in GRAMMAR.values() for text in choices for name in text.split("<")[1:]}
    assert {name.split(">")[0] for name in rules if ">" in name and name.split(">")[0].isalpha()} <= set(GRAMMAR)
    rng = random.Random(0)
    solved, changed = 0, 0
    for _ in range(200):
        text = grown_deck(rng)
        changed += mutated(text.encode(), rng) != text.encode()
        try:
            solved += cs.solve(cs.parse(text), raise_on_failure=False).solved
        except cs.CircuitError:
            continue
    assert solved >= 10
    assert changed >= 100
    assert len(seeds()) > 100


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hypothesis", "atheris"])
def test_some_seconds_of_fuzzing_find_nothing(engine: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed: pip install 'circuitsim[fuzz]' (Linux)")
    command = [
        sys.executable,
        "-m",
        "validation.fuzz",
        "--minutes",
        "0.1",
        "--engine",
        engine,
        "--found",
        str(tmp_path),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    [turn] = read_record(tmp_path)
    assert (turn["engine"], turn["seed"], turn["faults"]) == (engine, 1, [])
    assert turn["decks"] >= 100 and turn["cpu_seconds"] > 0
    assert int(done.stdout.split(f"{engine}: ")[1].split()[0]) >= 100
