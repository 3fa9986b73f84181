"""Running ngspice as a program."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers import needs_ngspice

from circuitsim.errors import CircuitError, SettingsError
from circuitsim.spice.ngspice import (
    NgspiceError,
    checked_run,
    ngspice_available,
    ngspice_version,
    operating_point,
    run_ngspice,
    run_program,
    tight_options,
)

DIVIDER = "divider\nVin In 0 10\nR1 In Out 1k\nR2 Out 0 3k\n.op\n.end\n"


# -- runs --------------------------------------------------------------------------------------------------------------


@needs_ngspice
def test_operating_point_by_name() -> None:
    assert operating_point(DIVIDER, options=tight_options()) == pytest.approx(
        {"in": 10.0, "out": 7.5, "i(vin)": -2.5e-3}, rel=1e-12
    )


@needs_ngspice
def test_both_streams_are_kept() -> None:
    run = run_ngspice("a parameter unknown to ngspice\nV1 a 0 1\nD1 a 0 dd\n.model dd D(nonsense=1)\n.op\n")
    assert "Doing analysis at TEMP = 27" in run.stdout
    assert "nonsense" in run.stderr
    assert [plot.name for plot in run.plots] == ["Operating Point"]


@needs_ngspice
def test_a_sweep_comes_before_the_operating_point() -> None:
    sweep, point = run_ngspice(DIVIDER.replace(".op", ".dc Vin 0 4 2\n.op")).plots
    np.testing.assert_allclose(sweep.column("v(out)"), [0, 1.5, 3], atol=1e-14)
    assert point.column("v(out)") == pytest.approx([7.5])


@needs_ngspice
def test_ascii_raw_files_are_read_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPICE_ASCIIRAWFILE", "1")
    assert operating_point(DIVIDER)["out"] == pytest.approx(7.5, rel=1e-12)


@needs_ngspice
def test_options_win_over_those_of_the_deck() -> None:
    deck = "t\n.options temp=50\nI1 0 a 1m\nR1 a 0 1k tc1=1m\n.op\n.end"
    assert operating_point(deck)["a"] == pytest.approx(1.023)
    assert operating_point(deck, options=".options temp=77")["a"] == pytest.approx(1.05)


@needs_ngspice
def test_a_file_finds_its_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half.inc").write_text("R2 b 0 1k\n")
    deck = tmp_path / "deck.cir"
    deck.write_text("t\nV1 a 0 2\nR1 a b 1k\n.include half.inc\n.op\n")
    monkeypatch.chdir(tmp_path.parent)
    assert operating_point(Path(tmp_path.name, "deck.cir"))["b"] == pytest.approx(1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deck.cir", "half.inc"]


@needs_ngspice
@pytest.mark.parametrize(
    ("deck", "message"),
    [
        ("t\nV1 a 0 1\nV2 a 0 2\nR1 a 0 1\n.op\n", r"(?s)ngspice aborted; it said:.*singular|Transient op failed"),
        ("t\nV1 a 0 1\nQ1 a 0 nope\n.op\n", r"(?s)no results \(its exit code: 1\); it said:.*find model 'nope'"),
        ("t\nV1 a 0 1\nR1 a 0 1\n", "(?s)no results .*it said:.*Doing analysis at TEMP"),
        ("t\nV1 a 0 1\nR1 a 0 1\n.dc V1 1 0 1\n.op\n", "no results"),
    ],
)
def test_a_run_without_results_is_an_error(deck: str, message: str) -> None:
    with pytest.raises(NgspiceError, match=message) as caught:
        run_ngspice(deck)
    assert isinstance(caught.value, CircuitError)
    assert "DRAM" not in str(caught.value)


@pytest.mark.parametrize(
    ("stdout", "stderr", "said"),
    [
        ("", "", []),
        ("\n".join(f"line {k}" for k in range(20)), " \n", [f"line {k}" for k in range(8, 20)]),
        ("a line\n\nanother\nTotal analysis time (seconds) = 0\nand more", "", ["a line", "another"]),
        ("a line", "Trying gmin = 1.0E-03\nError: one\n", ["Error: one"]),
    ],
)
def test_the_last_lines_that_ngspice_said_are_in_the_message(stdout: str, stderr: str, said: list[str]) -> None:
    with pytest.raises(NgspiceError) as caught:
        checked_run(b"", stdout, stderr, 3)
    first, *lines = str(caught.value).splitlines()
    assert first == "ngspice gave no results (its exit code: 3)" + "; it said:" * bool(said)
    assert lines == [f"    {line}" for line in said]


@needs_ngspice
def test_a_deck_without_op_has_no_operating_point() -> None:
    with pytest.raises(NgspiceError, match=r"no operating point; the deck needs a line \.op"):
        operating_point(DIVIDER.replace(".op", ".dc Vin 0 4 2"))


@needs_ngspice
def test_a_run_that_takes_too_long_is_ended() -> None:
    with pytest.raises(NgspiceError, match=r"ngspice took more than 0\.2 s"):
        run_ngspice("t\nV1 a 0 sin(0 1 1k)\nR1 a b 1\nC1 b 0 1u\n.tran 1n 100\n", timeout=0.2)


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not ngspice_available()
    with pytest.raises(NgspiceError, match="ngspice is not on the PATH; install it"):
        run_ngspice(DIVIDER)


def test_a_program_that_does_not_say_its_version_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "ngspice"
    program.write_text("#!/bin/sh\nexec sleep 90\n")
    program.chmod(0o755)
    monkeypatch.setattr("circuitsim.spice.ngspice.VERSION_SECONDS", 0.2)
    with pytest.raises(NgspiceError, match=r"ngspice --version took more than 0\.2 s"):
        ngspice_version(str(program))


@pytest.mark.parametrize(
    ("said", "version"),
    [("** ngspice-39.3 : Circuit", "ngspice-39.3"), ("ngspice-44+ds-1.", "ngspice-44+ds-1"), ("", "ngspice")],
)
def test_the_version_is_the_one_that_the_program_says(said: str, version: str, tmp_path: Path) -> None:
    program = tmp_path / "ngspice"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    assert ngspice_version(str(program)) == version


def test_what_a_script_started_is_ended_with_it(tmp_path: Path) -> None:
    program, survived = tmp_path / "ngspice", tmp_path / "survived"
    program.write_text(f"#!/bin/sh\n(sleep 1; touch '{survived}') &\nsleep 90\n")
    program.chmod(0o755)
    start = time.monotonic()
    with pytest.raises(NgspiceError, match=r"ngspice took more than 0\.2 s"):
        run_program("ngspice", [str(program)], tmp_path, 0.2)
    assert time.monotonic() - start < 60
    time.sleep(1.5)
    assert not survived.exists()


def test_a_program_runs_in_its_folder_with_its_environment(tmp_path: Path) -> None:
    done = run_program("a program", ["/bin/sh", "-c", "pwd; echo $GIVEN"], tmp_path, 60.0, {"GIVEN": "a value"})
    assert done.stdout.decode().splitlines() == [str(tmp_path.resolve()), "a value"]


@pytest.mark.parametrize("seconds", [float("nan"), 0.0, -1.0, float("inf")])
def test_a_time_limit_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(SettingsError, match="must be above 0"):
        run_program("a program", ["true"], None, seconds)


def test_the_deck_keeps_its_own_gmin() -> None:
    assert tight_options() == ".options reltol=1e-09 abstol=1e-15 vntol=1e-12 pivrel=0.1 gmin=1e-18"
    assert tight_options(1e-9).endswith(" gmin=1e-09")
