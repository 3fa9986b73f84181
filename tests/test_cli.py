"""The command line: exit codes, streams, messages."""

from __future__ import annotations

import copy
import csv
import ctypes
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import click
import helpers
import numpy as np
import pytest
from click.testing import CliRunner
from commands import run, succeed
from helpers import some_slow

import circuitsim as cs
from circuitsim import cli
from circuitsim.backends.base import BACKENDS, DTYPES
from circuitsim.io.commands import DEFECT, Command, Ended, Subcommand, ends_in_order
from circuitsim.solution import METHODS
from training import evaluate, fit, mnist, study

ROOT = Path(__file__).parent.parent
DIVIDER = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 3k\n"
ARRAY = "array\nVx[0:2] x[0:2] 0 1\nR1[0:2] x[0:2] y[0:2] 1k\nR2[0:2] y[0:2] 0 1k\n.output y[0:2]\n"
COUPLED = "needs sweeps\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\nRg{k} n{k + 1} 0 1k\n" for k in range(5))
REFUSED = "refused\nI1 0 a 1m\nR1 a 0 1k\nR2 b 0 1k\n.model di D(ron=0)\nD1 a b di\n"
FLOATING = "floating\nV1 a 0 1\nR1 a 0 1k\nV2 b c 2\nR2 b c 1k\n"
DECKS = {"divider": DIVIDER, "array": ARRAY, "coupled": COUPLED, "refused": REFUSED, "floating": FLOATING}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, on 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, text in DECKS.items():
        Path(f"{name}.cir").write_text(text)
    return tmp_path


# -- solve -------------------------------------------------------------------------------------------------------------


def test_solve_prints_tables() -> None:
    out = succeed("solve", "divider.cir", "--method", "bcd")
    for part in (
        "divider\n",
        "node",
        "7.5",
        "V1",
        "certificate: met",
        "method bcd (asked for), backend cpu",
        "seconds: parse",
    ):
        assert part in out


def test_quiet_prints_only_voltages() -> None:
    Path("noted.cir").write_text(DIVIDER + ".tran 1n 1u\n")
    out = succeed("solve", "noted.cir", "--quiet")
    assert out.split() == ["node", "volts", "─" * len(out.splitlines()[1]), "in", "10", "out", "7.5"]


def test_json_of_one_row_and_of_a_batch() -> None:
    data = json.loads(succeed("solve", "divider.cir", "--json"))
    assert data["status"] == "SOLVED"
    assert data["voltages"] == {"in": 10.0, "out": 7.5}
    assert data["currents"] == {"V1": -0.0025}
    seconds = data["seconds"]
    assert list(seconds) == ["parse", "compile", "solve", "total"]
    assert all(x >= 0 for x in seconds.values())
    assert seconds["total"] >= seconds["parse"] + seconds["compile"] + seconds["solve"]
    np.save("x.npy", np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    data = json.loads(succeed("solve", "array.cir", "--json", "--input", "Vx=@x.npy"))
    assert data["voltages"]["y[1]"] == [1.0, 2.5]
    assert data["currents"]["Vx[2]"] == [-0.0015, -0.003]


def test_csv_of_a_batch() -> None:
    np.savez("x.npz", x=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    rows = list(csv.reader(io.StringIO(succeed("solve", "array.cir", "--csv", "--input", "Vx=@x.npz:x"))))
    assert rows == [["row", "y[0]", "y[1]", "y[2]"], ["0", "0.5", "1.0", "1.5"], ["1", "2.0", "2.5", "3.0"]]


def test_npz_holds_the_same_as_json() -> None:
    data = json.loads(succeed("solve", "array.cir", "--json", "--npz", "out.npz", "--input", "Vx=4"))
    with np.load("out.npz", allow_pickle=False) as arrays:
        assert dict(zip(arrays["nodes"].tolist(), arrays["voltages"][0].tolist(), strict=True)) == data["voltages"]
        assert dict(zip(arrays["sources"].tolist(), arrays["currents"][0].tolist(), strict=True)) == data["currents"]


def test_settings_reach_the_solver() -> None:
    data = json.loads(
        succeed(
            "solve", "coupled.cir", "--json", "--backend", "reference", "--method", "bcd", "--dtype", "float32",
            "--tol", "1e-3", "--max-sweeps", "99",
        )
    )  # fmt: skip
    assert (data["backend"], data["method"], data["dtype"]) == ("reference", "bcd", "float32")
    assert 1e-9 < data["residuals"]["kcl_relative"] <= 1e-3


def test_warnings_go_to_stderr_and_into_json() -> None:
    Path("noted.cir").write_text(DIVIDER + ".tran 1n 1u\n")
    result = run("solve", "noted.cir", "--json")
    warning = "noted.cir:5: .tran is skipped: only the DC operating point is solved"
    assert result.exit_code == 0
    assert result.stderr == f"warning: {warning}\n"
    assert json.loads(result.stdout)["warnings"] == [warning]


def test_an_error_in_a_netlist_comes_after_the_warnings() -> None:
    Path("forgotten.cir").write_text("V1 a 0 5\nR1 a 0 1k\n.dc V1 0 5 1\n")
    found = [line.partition(": ")[0] for line in run("sweep", "forgotten.cir").stderr.splitlines() if ":" in line[:9]]
    assert found == ["warning", "error"]
    Path("many.cir").write_text("many\n" + ".tran 1n 1u\n" * 13 + "R1 a 0 oops\n")
    lines = run("check", "many.cir").stderr.splitlines()
    assert [line[:7] for line in lines[:11]] == [*["warning"] * 10, "error: "]


def test_many_warnings_are_cut() -> None:
    Path("noted.cir").write_text(DIVIDER + ".tran 1n 1u\n" * 13)
    lines = run("solve", "noted.cir").stderr.splitlines()
    assert len(lines) == 11
    assert lines[9].startswith("warning: noted.cir:14:")
    assert lines[10] == "... and 3 more warnings; circuitsim check --json lists all"


def test_csv_warns_of_undetermined_nodes() -> None:
    result = run("solve", "floating.cir", "--csv")
    assert (result.exit_code, result.stdout) == (0, "row,a,b,c\n0,1.0,0.0,-2.0\n")
    assert result.stderr == "warning: nodes without a unique voltage: b, c\n"


# -- Not solved --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--json",), ("--csv",), ("--quiet",)])
def test_not_solved_prints_results_and_exits_3(flags: Sequence[str]) -> None:
    result = run("solve", "coupled.cir", "--method", "bcd", "--max-sweeps", "1", "--npz", "out.npz", *flags)
    assert result.exit_code == 3
    assert result.stderr.startswith("error: MAX_SWEEPS: stopped before the certificate was met; raise max_sweeps")
    expected = {"--json": '{"status": "MAX_SWEEPS", ', "--csv": "row,n0,n1,", "--quiet": "node", "": "needs sweeps\n"}
    assert result.stdout.startswith(expected["".join(flags)])
    assert ("certificate: NOT met" in result.stdout) == (not flags)
    with np.load("out.npz", allow_pickle=False) as arrays:
        assert str(arrays["status"]) == "MAX_SWEEPS"
        assert arrays["failed_rows"].tolist() == [0]
    if flags == ("--json",):
        data = json.loads(result.stdout)
        assert (data["failed_rows"], data["failed_statuses"]) == ([0], ["MAX_SWEEPS"])


def test_a_refusal_exits_3_and_names_the_diode() -> None:
    result = run("solve", "refused.cir", "--method", "bcd", "--json")
    assert result.exit_code == 3
    assert "D1 (refused.cir:6)" in result.stderr
    data = json.loads(result.stdout)
    assert data["status"] == "REFUSED"
    assert data["voltages"] == {"a": None, "b": None}


# -- Bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["solve", "sweep", "check", "flatten"])
@pytest.mark.parametrize(
    ("deck", "message"),
    [
        (None, "no such file: deck.cir"),
        ("", "is empty: a netlist has a title line and at least one element"),
        ("bad value\nV1 a 0 1\nR1 a 0 -3\n", "deck.cir:3: resistor R1: negative resistance -3 ohm"),
        ("no such card\nQ1 a b c\n", "deck.cir:2: "),
    ],
)
def test_a_bad_netlist_exits_2(command: str, deck: str | None, message: str) -> None:
    if deck is not None:
        Path("deck.cir").write_text(deck)
    result = run(command, "deck.cir")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


@pytest.mark.parametrize("command", ["solve", "check"])
def test_sources_that_no_voltages_satisfy_exit_2(command: str) -> None:
    Path("deck.cir").write_text("loop\nV1 a 0 1\nV2 a 0 2\nR1 a 0 1\n")
    result = run(command, "deck.cir")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "deck.cir:3: loop of voltage sources V2, V1: its voltages add up to 1 V" in result.stderr


def test_check_finds_what_only_the_sources_make_impossible() -> None:
    Path("deck.cir").write_text("cut\nI1 0 a 1m\nR1 a b 1k\n")
    result = run("check", "deck.cir")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "I1 pushes a net 0.001 A" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("solve", "Missing argument 'FILE'"),
        ("solve divider.cir --json --csv", "--json and --csv exclude each other"),
        ("solve divider.cir --method magic", "Invalid value for '--method'"),
        ("solve divider.cir --tol 2", "error: tol must lie between 0 and 1, found 2"),
        ("solve divider.cir --tol nan", "error: tol must lie between 0 and 1, found nan"),
        ("solve divider.cir --max-sweeps 0", "error: max_sweeps must be at least 1, and a whole number, found 0"),
        ("solve divider.cir --input V1=@none.npy", "error: input V1=@none.npy: no such file: none.npy"),
        ("solve divider.cir --input V9=1", "error: input V9=1: no element 'V9' in divider.cir"),
        ("solve divider.cir --npz nowhere/out.npz", "error: cannot write nowhere/out.npz: there is no folder nowhere"),
        ("solve divider.cir --npz .", "error: cannot write .: it exists and is not a regular file"),
        ("flatten divider.cir -o nowhere/x.cir", "error: cannot write nowhere/x.cir: there is no folder nowhere"),
        (
            "flatten divider.cir -o ./divider.cir",
            "error: cannot write divider.cir: it is an input file; choose another name",
        ),
        (
            "solve divider.cir --npz divider.cir",
            "error: cannot write divider.cir: it is an input file; choose another name",
        ),
        ("sweep divider.cir --dc R1,1,2,1 --raw divider.cir", "cannot write divider.cir: it is an input file"),
        ("unknown", "No such command 'unknown'"),
    ],
)
def test_wrong_usage_exits_2(arguments: str, message: str) -> None:
    result = run(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ("sweep divider.cir --dc V1,0,1,1 --dc R2,1,2,1", "--dc"),
        ("solve divider.cir --npz a.npz --raw c --npz=b.npz", "--npz"),
        ("solve divider.cir --tol 1e-9 --tol 1e-9", "--tol"),
        ("flatten divider.cir -o a.cir --output b.cir", "--output"),
        ("flatten -oa.cir divider.cir -ob.cir", "--output"),
        ("compare divider.cir --engine ngspice --timeout 9 --engine ngspice", "--engine"),
    ],
)
def test_no_value_of_an_option_is_dropped(arguments: str, option: str) -> None:
    result = run(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: {option} is given twice; give it once\n" in result.stderr
    assert not [path for path in Path().iterdir() if path.stem in "abc"]


def test_flags_and_options_for_several_values_are_given_any_number_of_times() -> None:
    out = succeed(*"solve divider.cir -q --csv -q --csv --save i(R1) --save i(R2) --tol 1e-9".split())
    assert out == succeed(*"solve divider.cir -q --csv --save i(R1),i(R2)".split())
    assert "i(R1),i(R2)" in out
    assert "Usage" in succeed(*"solve divider.cir --tol 1 --tol 2 --help".split())


def test_every_command_minds_options_given_twice() -> None:
    programs = [cli.main, *cli.main.commands.values(), fit.main, mnist.main, evaluate.main, study.main]
    assert all(isinstance(program, Subcommand) for program in programs)
    for arguments in (["--seed", "1", "--seed", "2"], ["--resume", "--epochs", "1", "--resume", "x"]):
        result = CliRunner().invoke(mnist.main, arguments)
        assert (result.exit_code, f"Error: {arguments[0]} is given twice; give it once" in result.stderr) == (2, True)


def test_files_of_values_are_not_overwritten() -> None:
    np.save("v.npy", np.arange(1.0, 4.0))
    np.savez("in.npz", v=np.ones(1))
    Path("deck.cir").write_text("values\nV1 a 0 1\nR2[0:2] a 0 @v.npy\n")
    for arguments, name in (
        ("solve deck.cir --npz ./v.npy", "v.npy"), ("flatten deck.cir -o v.npy", "v.npy"),
        ("solve deck.cir --input V1=@in.npz:v --npz in.npz", "in.npz"),
    ):  # fmt: skip
        result = run(*arguments.split())
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.endswith(f"cannot write {name}: it is an input file; choose another name\n")
    assert np.load("v.npy").tolist() == [1.0, 2.0, 3.0]


def test_an_unavailable_backend_exits_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.backends.cpu.CpuBackend", failing_with(cs.BackendUnavailable("no CPU today")))
    result = run("solve", "divider.cir")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "error: no CPU today\n")


@pytest.mark.parametrize("command", ["solve", "sweep --dc V1,0,1,1"])
def test_a_missing_gpu_exits_2_with_the_cure(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    first, *options = (word.replace(",", " ") for word in command.split())
    result = run(first, "divider.cir", "--backend", "gpu", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "error: backend gpu: CuPy is not installed" in result.stderr
    assert "pip install 'cupy-cuda13x[ctk]'" in result.stderr and "--backend cpu" in result.stderr


def test_a_wrong_shape_says_what_is_needed() -> None:
    np.save("x.npy", np.ones((2, 5)))
    result = run("solve", "array.cir", "--input", "Vx=@x.npy")
    assert result.exit_code == 2
    assert result.stderr == ("error: input Vx=@x.npy: Vx: new values have shape (2, 5); needs (3,) or (batch, 3)\n")


# -- Interrupts, memory, closed pipes ----------------------------------------------------------------------------------


def failing_with(error: BaseException) -> Callable[..., None]:
    """A function that raises, whatever it is called with."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_an_interrupt_exits_130_and_leaves_files_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.npz").write_bytes(b"before")
    monkeypatch.setattr(np, "savez", failing_with(KeyboardInterrupt()))
    result = run("solve", "divider.cir", "--npz", "out.npz")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert Path("out.npz").read_bytes() == b"before"
    assert files() == ["out.npz"]


def test_a_full_disk_does_not_take_the_answer_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "savez", failing_with(OSError(28, "No space left on device")))
    result = run("solve", "divider.cir", "--csv", "--npz", "out.npz")
    assert (result.exit_code, result.stdout) == (2, "row,in,out\n0,10.0,7.5\n")
    assert result.stderr == "error: cannot write out.npz: No space left on device\n"
    assert not Path("out.npz").exists()


@pytest.mark.parametrize("name", ["a" * 251 + ".npz", "\u03c9" * 125 + "a.npz", "\U0001f600" * 62 + "abc.npz"])
def test_names_of_files_may_be_as_long_as_the_system_allows(name: str) -> None:
    succeed("solve", "divider.cir", "-q", "--npz", name)
    assert files() == [name]
    result = run("solve", "divider.cir", "--csv", "--npz", "a" + name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: cannot write a{name}: File name too long; choose another name\n"


def test_nor_that_of_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "savez", failing_with(OSError(28, "No space left on device")))
    result = run("sweep", "divider.cir", "--dc", "V1 1 2 1", "--csv", "--npz", "out.npz")
    assert result.exit_code == 2
    assert [line.split(",")[0] for line in result.stdout.splitlines()] == ["V1", "1.0", "2.0"]
    assert result.stderr == "error: cannot write out.npz: No space left on device\n"


def test_out_of_memory_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.load", failing_with(MemoryError("Unable to allocate 9 TiB")))
    result = run("solve", "divider.cir")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        "error: not enough memory (Unable to allocate 9 TiB); solve fewer batch rows, or a smaller netlist\n"
    )


def test_a_defect_has_a_traceback_and_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.load", failing_with(ZeroDivisionError("planted")))
    result = CliRunner().invoke(cli.main, ["compare", "divider.cir"])
    assert (result.exit_code, result.stdout) == (DEFECT, "")
    assert "ZeroDivisionError: planted\nerror: this is a defect of the program; please report it" in result.stderr


def files() -> list[str]:
    """What is in the folder, beside the decks of the fixture."""
    return sorted({path.name for path in Path().iterdir()} - {f"{name}.cir" for name in DECKS})


def process(arguments: str, stdout: int | IO[str] = subprocess.PIPE) -> AbstractContextManager[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return helpers.process([sys.executable, "-m", "circuitsim", *shlex.split(arguments)], stdout, env=environment)


def test_a_reader_that_goes_away_is_no_error() -> None:
    Path("many.cir").write_text(
        "many\nV1[0:30000] a[0:30000] 0 1\nR1[0:30000] a[0:30000] 0 1\n"
    )  # more than a pipe holds
    with process("solve many.cir --csv") as running:
        assert running.stdout is not None
        assert running.stdout.read(4) == "row,"
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == ""
        assert running.wait() == 141


def test_a_disk_that_is_full_for_stdout() -> None:
    with Path("/dev/full").open("w") as full, process("solve divider.cir", stdout=full) as running:
        assert running.communicate()[1] == "error: cannot write the result: No space left on device\n"
        assert running.returncode == 2


@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_a_disk_that_fills_while_the_result_is_written(
    form: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("many.cir").write_text("many\nV1[0:9999] a[0:9999] 0 1\nR1[0:9999] a[0:9999] 0 1k\n")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = f'ulimit -f 50; exec "{sys.executable}" -m circuitsim solve many.cir {form} -q > out'
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: cannot write the result: File too large\n")


def test_ctrl_c_ends_a_long_solve_without_a_traceback() -> None:
    chain = "chain\n.tran 1 1\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1\n" for k in range(3000)) + "Rz n3000 0 1\n"
    Path("chain.cir").write_text(chain)  # some ten million sweeps
    with process("solve chain.cir --method bcd --npz out.npz --max-sweeps 1000000000") as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("warning: chain.cir:2")  # now it has been read
        time.sleep(1.0)
        assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (130, "", "interrupted\n")
    assert files() == ["chain.cir"]


def test_sigterm_ends_ngspice_too_and_removes_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (folder / "made").mkdir()
    command = [sys.executable, "-m", "circuitsim", "compare", "divider.cir"]
    found = helpers.end_while_ngspice_runs(command, folder / "made", monkeypatch)
    assert found == (128 + signal.SIGTERM, "ended by SIGTERM\n")


def test_a_signal_that_another_handler_took_ends_nothing() -> None:
    """The watcher comes to it when that handler has gone: threads change every ten seconds here."""
    code = """
import os, signal, sys
from circuitsim.io.commands import ends_in_order
taken = []
with ends_in_order(0.2):
    sys.setswitchinterval(10.0)
    before = signal.signal(signal.SIGINT, lambda number, frame: taken.append(number))
    os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)
print(taken == [signal.SIGINT])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_sighup_ends_in_order_unless_it_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with pytest.raises(Ended), ends_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with ends_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


ENDLESS = """
import click, numpy
from circuitsim.compiled import jit
from circuitsim.io.commands import Command

@jit(small=0)
def count(x):
    while x[0] >= 0:
        x[0] += x[1]

@click.command(cls=Command)
def main():
    count(numpy.array([-1, 1]))
    print("compiled", flush=True)
    count(numpy.array([0, 1 - 1]))

main()
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted\n"), *some_slow([(signal.SIGTERM, 143, "ended by SIGTERM\n")], 0)],
)
def test_one_signal_ends_compiled_code_that_does_not(number: signal.Signals, code: int, said: str) -> None:
    Path("endless.py").write_text(ENDLESS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with helpers.process([sys.executable, "endless.py"], env=environment) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "compiled\n"
        time.sleep(0.2)
        assert running.poll() is None
        running.send_signal(number)
        err = running.communicate(timeout=60)[1]
    assert (running.returncode, err) == (code, said)


IN_A_STRING = """
import click
from circuitsim.io.commands import Command

@click.command(cls=Command)
def main():
    exec("import os, signal\\nos.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(10**6): pass")

main()
"""


def test_ctrl_c_while_a_string_is_executed_has_its_exit_code() -> None:
    """As dataclasses do when a module is imported; Python would kill what `python -m` runs in the end."""
    Path("in_a_string.py").write_text(IN_A_STRING)
    command = [sys.executable, "-m", "in_a_string"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(ROOT)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def lost_in_a_callback(number: signal.Signals) -> None:
    """As callbacks of the compiler do: Python tells sys.unraisablehook."""
    ctypes.CFUNCTYPE(None)(lambda: os.kill(os.getpid(), number))()


def lost_in_a_lookup(number: signal.Signals) -> None:
    """As NumPy does, which asks what it compares with (a member of an enum) what it can: nobody is told."""
    asked = []

    class Asked(type):
        def __getattr__(cls, name: str) -> object:
            if not asked:
                asked.append(name)
                os.kill(os.getpid(), number)
            raise AttributeError(name)

    class Member(metaclass=Asked):
        pass

    assert not (np.zeros(3) == Member()).any() and asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("lose", [lost_in_a_callback, lost_in_a_lookup])
@pytest.mark.parametrize("then", ["goes on", "fails"])
def test_a_signal_whose_exception_is_lost_is_raised_again(
    number: signal.Signals, lose: Callable[[signal.Signals], None], then: str
) -> None:
    """Though what lost it may fail next."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises((Ended, KeyboardInterrupt)), ends_in_order(5.0):
            lose(number)
            if then == "goes on":
                time.sleep(30)
            raise RuntimeError("no compiled object yet")
        time.sleep(0.3)  # and not a third time
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


COMPILING = """
import click, numpy, os, sys
from numba.core.codegen import CPUCodeLibrary
from circuitsim.compiled import jit
from circuitsim.io import commands

@jit(small=0)
def double(x):
    return x + x

optimize = CPUCodeLibrary._optimize_final_module

def interrupted(library):
    CPUCodeLibrary._optimize_final_module = optimize
    os.kill(os.getpid(), int(sys.argv[1]))
    optimize(library)

@click.command(cls=commands.Command)
def main():
    double(numpy.ones(3))
    print("compiled", flush=True)
    while True:
        pass

CPUCodeLibrary._optimize_final_module = interrupted
commands._PATIENCE = 60.0
main([])
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted\n"), *some_slow([(signal.SIGTERM, 143, "ended by SIGTERM\n")], 0)],
)
def test_a_signal_comes_when_the_compiler_is_done(number: signal.Signals, code: int, said: str) -> None:
    """An exception inside it leaves objects of LLVM half made, and Python may crash when it frees them."""
    Path("compiling.py").write_text(COMPILING)
    command = [sys.executable, "compiling.py", str(int(number))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "compiled\n", said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_a_program_within_has_handled_comes_once(number: signal.Signals) -> None:
    """As training.study runs training.mnist in its own process, and then writes what it said."""

    @click.command(cls=Command)
    def within() -> None:
        os.kill(os.getpid(), number)
        time.sleep(30)

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ends_in_order(5.0):
            code = within.main([], "within", standalone_mode=False)
            time.sleep(0.3)
        assert code == 128 + number
        with pytest.raises((Ended, KeyboardInterrupt)) as caught, ends_in_order(5.0):
            os.kill(os.getpid(), number)
        assert copy.copy(caught.value).args == (number,)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def test_what_waits_for_a_signal_leaves_nothing_behind() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    threads, opened = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        assert run("check", "divider.cir").exit_code == 0
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) == opened


def test_names_that_the_terminal_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("greek.cir").write_text("Ω\nV1 ω 0 1\nR1 ω 0 1\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with process("solve greek.cir -q") as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (0, "")
    assert "\\u03c9" in out


# -- Progress ----------------------------------------------------------------------------------------------------------


def test_progress_is_drawn_on_stderr_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("x.npy", np.ones((300, 3)))
    monkeypatch.setattr("circuitsim.cli.common.on_terminal", lambda quiet: not quiet)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws nothing unless it sees a terminal
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    result = run("solve", "array.cir", "--input", "Vx=@x.npy", "--json")
    assert result.exit_code == 0
    assert "reading array.cir" in result.stderr
    assert "300/300" in result.stderr
    assert len(json.loads(result.stdout)["voltages"]["y[0]"]) == 300
    assert run("solve", "array.cir", "--input", "Vx=@x.npy", "--json", "--quiet").stderr == ""


# -- check, flatten ----------------------------------------------------------------------------------------------------


def test_check_for_people_and_as_json() -> None:
    out = succeed("check", "array.cir")
    assert "voltage sources        3" in out
    assert ".output" in out
    data = json.loads(succeed("check", "array.cir", "--json"))
    assert data["status"] == "OK"
    assert data["elements"] == {"R": 6, "V": 3, "I": 0, "D": 0, "L": 0, "C": 0, "E": 0, "F": 0, "G": 0, "H": 0, "N": 0}
    assert (data["nodes"], data["free"]) == (7, 3)


def test_check_warns_on_stderr() -> None:
    Path("noted.cir").write_text(DIVIDER + ".tran 1n 1u\n")
    result = run("check", "noted.cir", "--json")
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: noted.cir:5: .tran is skipped")
    assert json.loads(result.stdout)["warnings"] == [result.stderr.strip().removeprefix("warning: ")]


def test_check_does_not_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("bcd", "tiles"):
        monkeypatch.setattr(f"circuitsim.methods.{method}.solve_tile", failing_with(AssertionError("solved")))
    assert "unknown units" in succeed("check", "refused.cir")


def test_check_gives_faults_as_json() -> None:
    Path("deck.cir").write_text("cut\nI1 0 a 1m\nR1 a b 1k\n")
    result = run("check", "deck.cir", "--json")
    assert result.exit_code == 2
    assert "\nerror: deck.cir:2: nodes a, b: I1 pushes" in "\n" + result.stderr
    data = json.loads(result.stdout)
    assert data["message"].startswith("nodes a, b: I1 pushes a net 0.001 A into them")
    assert {key: data[key] for key in data if key != "message"} == {
        "status": "FAULT", "file": "deck.cir", "line": 2, "nodes": ["a", "b"], "elements": ["I1"],
    }  # fmt: skip
    data = json.loads(run("check", "none.cir", "--json").stdout)
    assert (data["status"], data["file"], data["line"]) == ("FAULT", None, None)


def test_flatten_to_stdout_and_to_a_file() -> None:
    out = succeed("flatten", "array.cir")
    assert out.startswith("array\n")
    assert "R1[2] x[2] y[2] 1000" in out
    assert succeed("flatten", "array.cir", "-o", "flat.cir") == ""
    assert Path("flat.cir").read_text() == out
    assert json.loads(succeed("solve", "flat.cir", "--json"))["voltages"]["y[2]"] == 0.5


def test_flatten_leaves_no_half_written_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(circuit: cs.Circuit, out: io.TextIOBase) -> None:
        out.write("half a netlist")
        raise KeyboardInterrupt

    monkeypatch.setattr("circuitsim.spice.flatten.flatten", half)
    result = run("flatten", "array.cir", "-o", "flat.cir")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")
    assert files() == []


# -- Help and version --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "solve", "sweep", "check", "flatten", "examples"])
def test_help_tells_the_exit_codes_and_gives_examples(command: str) -> None:
    out = " ".join(succeed(*command.split(), "--help").split())
    assert "Exit codes: 0 solved (check, flatten: done); 2 bad netlist or usage; 3 not solved" in out
    assert ("Examples:" in out) == bool(command)
    assert succeed(*command.split(), "-h").split() == out.split()


@pytest.mark.parametrize("command", ["solve", "sweep", "check", "flatten"])
def test_the_examples_in_the_help_run(command: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    examples = [line.strip() for line in succeed(command, "--help").splitlines() if "circuitsim " in line]
    examples = [example for example in examples if example.startswith("circuitsim ")]
    assert len(examples) >= 2
    files = ("-o", "--raw", "--study", "--parquet")
    for example in examples:
        words = shlex.split(example.partition("|")[0].partition(">")[0])[1:]
        words = [str(folder / word) if words[k - 1] in files else word for k, word in enumerate(words)]
        words = ["20" if words[k - 1] == "--runs" else word for k, word in enumerate(words)]
        with monkeypatch.context() as context:
            context.chdir(ROOT)
            assert run(*words).exit_code == 0


def test_version() -> None:
    assert succeed("--version") == f"circuitsim, version {cs.__version__}\n"


def test_choices_are_those_of_the_solver() -> None:
    options = {option.name: option.type for option in cli.solve.params}
    for name, wanted in (("method", METHODS), ("backend", ("auto", *BACKENDS)), ("dtype", DTYPES)):
        choice = options[name]
        assert isinstance(choice, click.Choice)
        assert tuple(choice.choices) == wanted


def test_help_loads_nothing_heavy() -> None:
    """The module of the commands by itself, as long as the package's own __init__ is left out."""
    code = (
        "import sys, types; package = types.ModuleType('circuitsim'); package.__path__ = [sys.argv[1]]; "
        "package.__version__ = '0'; sys.modules['circuitsim'] = package; import circuitsim.cli; "
        "print([name for name in ('numpy', 'scipy', 'numba', 'rich', 'networkx') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(ROOT / "circuitsim")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_runs_as_a_module() -> None:
    with process("--version") as running:
        assert running.communicate()[0] == f"circuitsim, version {cs.__version__}\n"
        assert running.returncode == 0


# ---- what has no solution, or more than one --------------------------------------------------------------------------

STRAY = "stray\nV1 a 0 1\nR1 a 0 1k\nI1 0 x 2m\nRx x y 1\n"


def test_lenient_solves_the_rest() -> None:
    Path("stray.cir").write_text(STRAY)
    assert run("solve", "stray.cir").exit_code == 2
    assert run("check", "stray.cir").exit_code == 2
    result = run("solve", "stray.cir", "--lenient", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["voltages"] == {"a": 1.0, "x": None, "y": None}
    assert data["left_out"] == ["x", "y"] and data["undetermined"] == [] and data["currents"] == {"V1": -0.001}
    told = "stray.cir:4: left out, with all elements at it: nodes x, y: I1 pushes a net 0.002 A into them"
    assert any(text.startswith(told) for text in data["warnings"])
    assert f"warning: {told}" in result.stderr
    result = run("check", "stray.cir", "--lenient", "--strict")
    assert result.exit_code == 0 and f"warning: {told}" in result.stderr
    assert [line.split() for line in result.stdout.splitlines()][-1] == ["left", "out", "x,", "y"]


def test_what_lenient_leaves_out_is_called_so_everywhere() -> None:
    Path("stray.cir").write_text(STRAY + "D1 b a ideal\n.model ideal D(ron=0)\n.save v(b) v(x,y) i(I1) i(R1) @Rx[v]\n")
    lenient = ("solve", "stray.cir", "--lenient")
    lines = {line.split()[0]: line.split()[1:] for line in run(*lenient).stdout.splitlines() if line.strip()}
    assert lines["x"] == lines["y"] == ["nan", "left", "out"]
    assert lines["b"][1:] == ["undetermined"]
    assert lines["i(I1)"] == ["nan", "A,", "left", "out"]
    assert lines["v(b)"][1:] == ["V,", "not", "unique"]
    data = json.loads(run(*lenient, "--json").stdout)
    assert (data["left_out"], data["undetermined"]) == (["x", "y"], ["b"])
    assert (data["left_out_saved"], data["ambiguous_saved"]) == (["v(x,y)", "i(I1)", "@Rx[v]"], ["v(b)"])
    assert data["saved"]["v(x,y)"] is None and data["saved"]["@Rx[v]"] is None
    result = run(*lenient, "--csv", "--npz", "out.npz", "--raw", "out.raw")
    assert "warning: nodes that are left out: x, y\n" in result.stderr
    assert "warning: saved values that are left out: v(x,y), i(I1), @Rx[v]\n" in result.stderr
    assert "unique voltage: x" not in result.stderr and "saved values that are not unique: v(b)\n" in result.stderr
    with np.load("out.npz") as found:
        assert found["left_out"].tolist() == [False, True, True, False]
        assert found["undetermined"].tolist() == [False, False, False, True]
        assert found["saved_left_out"].tolist() == [False, True, True, False, True]
        assert found["saved_ambiguous"].tolist() == [True, False, False, False, False]
    assert run(*lenient, "--strict").stderr.endswith("voltage of 1 nodes is not unique (b); join them to ground\n")


def test_strict_has_nothing_against_what_is_left_out() -> None:
    Path("stray.cir").write_text(STRAY)
    assert run("solve", "stray.cir", "--lenient", "--strict").exit_code == 0
    np.save("two.npy", np.array([1.0, 2.0]))
    out = run("solve", "stray.cir", "--lenient", "--input", "V1=@two.npy").stdout
    assert "x, left out" in out and "undetermined" not in out


def test_strict_refuses_what_is_not_unique() -> None:
    Path("loop.cir").write_text("loop\nV1 a 0 1\nV2 a 0 1\nR1 a 0 1k\n")
    for command in ("solve", "check"):
        assert run(command, "divider.cir", "--strict").exit_code == 0
        for file, words in (("floating.cir", "2 nodes is not unique (b, c)"), ("loop.cir", "current of V1, V2")):
            assert run(command, file).exit_code == 0
            result = run(command, file, "--strict")
            assert (
                result.exit_code == 2
                and f"error: strict: the {'voltage of ' * (file[0] == 'f')}{words}" in result.stderr
            )


def test_intervals_and_enormous_currents_are_told() -> None:
    Path("between.cir").write_text("between\n.model di D(ron=0)\nV1 a 0 -1\nD1 a b di\nD2 b 0 di\n")
    result = run("solve", "between.cir", "--json")
    data = json.loads(result.stdout)
    assert data["intervals"] == {"b": [-1.0, 0.0]} and "node b: any voltage from -1 to 0 V" in data["warnings"]
    assert "warning: node b: any voltage from -1 to 0 V" in run("solve", "between.cir", "--csv").stderr
    Path("hot.cir").write_text("hot\n.model d D(is=1e-14)\nV1 a 0 5\nD1 a 0 d\n")
    assert "D1: the sources force 5 V across it, and it carries 9e+69 A" in run("solve", "hot.cir").stderr
    assert run("solve", "hot.cir", "--quiet").stderr == ""


PROGRAM = [sys.executable, "-m", "circuitsim"]


@pytest.mark.parametrize("arguments", ["--help", "--version", "solve --help"])
def test_help_that_cannot_be_written_is_an_error(arguments: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments.split()], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (2, "error: cannot write the result: No space left on device\n")


@pytest.mark.parametrize("arguments", ["solve {} --npz out.npz", "solve {} --json", "solve {} --csv", "flatten {}"])
def test_a_closed_stdout_is_no_fault(arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    deck = ROOT / "netlists" / "divider.cir"
    code = "import os, sys; os.close(1); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", code, *PROGRAM, *arguments.format(deck).split()]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("out.npz").exists() == ("out.npz" in arguments)


def test_two_results_never_go_to_one_file(tmp_path: Path) -> None:
    deck, target = Path(__file__).parent.parent / "netlists" / "divider.cir", tmp_path / "out.x"
    command = [*PROGRAM, "solve", str(deck), "--npz", str(target), "--raw", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and f"cannot write two results to {target}" in done.stderr and not target.exists()


def test_a_closed_stderr_takes_no_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results come all the same: on stdout nothing else."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = f'exec "{sys.executable}" -m circuitsim solve divider.cir --json 2>&-'
    done = subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "SOLVED"
