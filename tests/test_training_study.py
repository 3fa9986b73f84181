"""Studies of training: the runs of training.mnist, whatever ends them meanwhile; what is refused."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result
from commands import changed
from distributed import LocalCluster
from helpers import wait_for
from pyarrow.parquet import read_table
from test_mnist import QUICK, assert_same_end, folder, timeless  # noqa: F401

from circuitsim.io.sealed import load_sealed, save_sealed
from training import mnist, study

OPTIONS = f"{QUICK} --epochs 2"


def run(arguments: str) -> Result:
    return CliRunner().invoke(study.main, shlex.split(arguments), catch_exceptions=False)


def succeed(arguments: str) -> Result:
    result = run(arguments)
    assert result.exit_code == 0, result.stderr
    return result


def alone(arguments: str) -> None:
    result = CliRunner().invoke(mnist.main, shlex.split(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.stderr


def test_every_run_is_one_of_the_training_program() -> None:
    done = succeed(f"{OPTIONS} --seeds 1:2 --vary nudge=0.25,0.125 --vary sweeps=4 --out s --parquet s.parquet")
    out = done.stdout
    for nudge in ("0.25", "0.125"):
        for seed in (1, 2):
            alone(f"{OPTIONS} --nudge {nudge} --sweeps 4 --seed {seed} --threads 1 --out alone/{nudge}-{seed}")
            assert_same_end(Path(f"s/nudge={nudge},sweeps=4/seed{seed}"), Path(f"alone/{nudge}-{seed}"))
    with Path("s/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["nudge"], row["sweeps"], row["seed"]) for row in rows] == [
        ("0.25", "4.0", "1"), ("0.25", "4.0", "2"), ("0.125", "4.0", "1"), ("0.125", "4.0", "2"),
    ]  # fmt: skip
    figures = ["epoch", "examples", "train_cost", "train_error", "test_error", "test_cost", "seconds"]
    assert list(rows[0]) == ["nudge", "sweeps", "seed", *figures, "folder"]
    assert b"\r" not in Path("s/results.csv").read_bytes()
    last = [timeless(Path(row["folder"], "metrics.csv"))[-1] for row in rows]
    said = [f"{row['folder']}: train error {float(row['train_error']):.2f} %, test error " for row in rows]
    assert all(start in done.stderr and start not in out for start in said)
    assert len(re.findall(r" %, \d+ s$", done.stderr, flags=re.MULTILINE)) == 4
    assert [(row["epoch"], row["examples"]) for row in rows] == [(line[0], line[1]) for line in last]
    assert [float(row["test_error"]) for row in rows] == [float(line[4]) for line in last]
    found = json.loads(Path("s/results.json").read_text())
    assert [setting["varied"]["nudge"] for setting in found["settings"]] == ["0.25", "0.125"]
    for k, setting in enumerate(found["settings"]):
        errors = [float(line[4]) for line in last[2 * k : 2 * k + 2]]
        np.testing.assert_allclose(setting["test_error"]["mean"], np.mean(errors), rtol=1e-14)
        np.testing.assert_allclose(setting["test_error"]["std"], np.std(errors, ddof=1), rtol=1e-12, atol=1e-12)
        mean = f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f}"
        assert mean in out.splitlines()[2 + k]
    table = read_table("s.parquet").to_pydict()
    assert table["nudge"] == [0.25, 0.25, 0.125, 0.125]
    assert table["test_error"] == [float(row["test_error"]) for row in rows]


def on_tables(arguments: str) -> Result:
    """A study of the two weights of a divider, which a table gives."""
    Path("two.cir").write_text(
        "t\nVa a 0 0\nVb b 0 0\nRa a y 1k\nRb b y 3k\nRy y 0 1k\n.input Va Vb\n.output y\n.train Ra Rb\n"
    )
    Path("two.csv").write_text("a,b,target\n1,0,0.2\n0,1,0.4\n1,1,0.6\n")
    Path("other.csv").write_text("a,b,target\n1,2,1\n")
    options = "--netlist two.cir --gain 1 --tol 1e-9 --nudge 1e-5 --batch-size 1 --epochs 2"
    return run(f"{options} {arguments}")


def test_a_study_of_tables_compares_costs_where_there_are_no_classes() -> None:
    """Its runs are those of training.fit; what continues it finishes them."""
    options = "--data two.csv --test-data other.csv --vary conductance_rates=1e-6,1e-7 --out s --parquet s.parquet"
    done = on_tables(f"{options} --seeds 1:2")
    assert done.exit_code == 0, done.output
    head, _, *lines = done.stdout.splitlines()
    assert "test cost, V^2" in head and "train cost, V^2" in head
    for rate, line in zip(("1e-6", "1e-7"), lines, strict=True):
        folders = [Path(f"s/conductance_rates={rate}/seed{seed}") for seed in (1, 2)]
        figures = [timeless(one / "metrics.csv")[-1] for one in folders]
        assert "solved for 1 samples: SOLVED" in (folders[0] / "log.txt").read_text()
        costs = [float(row[5]) for row in figures]
        assert line.split()[:2] == [rate, "2"] and f"{np.mean(costs):.3g} ± " in line
        kept = json.loads((folders[0] / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))
        assert (kept["test_error"], kept["test_cost"]) == (None, costs[0])
    found = json.loads(Path("s/results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert [sorted(setting) for setting in found["settings"]] == [["runs", "test_cost", "train_cost", "varied"]] * 2
    assert np.isnan(read_table("s.parquet").to_pydict()["test_error"]).all()
    again = on_tables(f"{options} --seeds 1:3")
    assert again.exit_code == 0 and "4 of 6 runs are done already" in again.stderr
    assert len(json.loads(Path("s/results.json").read_text())["runs"]) == 6
    other = on_tables(f"{options.replace('other.csv', 'two.csv')} --seeds 1")
    assert other.exit_code == 2 and "s holds another study: data [" in other.stderr


def test_which_program_a_study_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(arguments: str) -> str:
        return study._program(shlex.split(arguments))[0].removeprefix("python -m training.")

    assert program("") == program("--data data --netlist xor") == program("--netlist tiny.cir --seed 1") == "mnist"
    Path("two.csv").touch()
    assert program("--first-sample 3 --data two.csv --seed 3") == program("--netlist xor --test-data=t.csv") == "fit"
    Path("my.toml").write_text("netlist = 'xor.cir'")
    assert program("--recipe my.toml") == "fit"
    for arguments, message in (
        ("--data two.csv --first-image 3", "No such option '--first-image'"),
        ("--data data --test-data two.csv", "No such option '--test-data'"),
        ("--netlist xor --resume", "--resume is not for a study"),
        ("--data none.csv --netlist tiny.cir", "none.csv: cannot read it"),
    ):
        result = run(f"{arguments} --out s")
        assert result.exit_code == 2 and message in result.stderr and not Path("s").exists()


def test_finished_runs_are_not_done_again_and_more_can_follow() -> None:
    succeed(f"{OPTIONS} --seeds 1:2 --out s")
    before = {path: path.stat().st_mtime_ns for path in Path("s/recipe").rglob("*") if path.is_file()}
    result = succeed(f"{OPTIONS} --seeds 1:3 --out s")
    assert "2 of 3 runs are done already" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(json.loads(Path("s/results.json").read_text())["runs"]) == 3
    Path("s/recipe/seed2/result.json").write_text('{"epo')
    assert "2 of 3 runs are done already" in succeed(f"{OPTIONS} --seeds 1:3 --out s").stderr
    assert json.loads(Path("s/recipe/seed2/result.json").read_text())["epoch"] == 2


def test_results_hold_the_runs_of_earlier_commands() -> None:
    succeed(f"{OPTIONS} --seeds 1:2 --vary nudge=0.25 --vary sweeps=4 --out s")
    before = json.loads(Path("s/results.json").read_text())
    Path("s/nudge=0.25,sweeps=4/seed9").mkdir()
    Path("s/nudge=0.25,sweeps=4/seed9/result.json").write_text("[]")  # as no run writes it
    out = succeed(f"{OPTIONS} --seeds 10 --vary sweeps=4 --vary nudge=0.125,0.25 --out s --parquet s.parquet").stdout
    found = json.loads(Path("s/results.json").read_text())
    assert [(row["varied"]["nudge"], row["seed"]) for row in found["runs"]] == [
        ("0.125", 10), ("0.25", 1), ("0.25", 2), ("0.25", 10),
    ]  # fmt: skip
    assert found["runs"][1:3] == before["runs"]
    assert read_table("s.parquet").to_pydict()["seed"] == [10, 1, 2, 10]
    assert [setting["runs"] for setting in found["settings"]] == [1, 3]
    assert [line.split()[2] for line in out.splitlines()[2:4]] == ["1", "3"]
    succeed(f"{OPTIONS} --seeds 1 --vary sweeps=4 --vary nudge=0.25 --out s")  # in another folder, the same run
    again = json.loads(Path("s/results.json").read_text())
    assert [(row["varied"]["nudge"], row["seed"]) for row in again["runs"]] == [
        ("0.25", 1), ("0.25", 2), ("0.25", 10), ("0.125", 10),
    ]  # fmt: skip
    with Path("s/results.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1", "2", "10", "10"]


def test_rows_of_other_studies_and_second_ones_of_a_run_are_left_out() -> None:
    figures = dict.fromkeys(study._FIGURES, 1.0)

    def row(place: str, varied: dict[str, str], seed: int) -> dict[str, object]:
        Path("s", place).mkdir(parents=True)
        kept = {"varied": varied, "seed": seed, **figures}
        Path("s", place, "result.json").write_text(json.dumps(kept))
        return {**kept, "folder": str(Path("s", place))}

    asked, settings = row("nudge=1/seed1", {"nudge": "1"}, 1), [{"nudge": "1"}]
    row("a=1,nudge=1/seed1", {"nudge": "1"}, 1)  # comes before it in the order of their names
    row("recipe/seed1", {}, 1)
    other = row("nudge=0.5/seed3", {"nudge": "0.5"}, 3)
    assert study._with_earlier(Path("s"), [asked], settings) == [asked, other]
    assert settings == [{"nudge": "1"}, {"nudge": "0.5"}]


def test_seeds_and_what_is_varied() -> None:
    seeds, vary = study._Seeds(), study._Vary()
    assert seeds.convert("0:2", None, None) == seeds.convert("0,1,2", None, None) == (0, 1, 2)
    assert len(seeds.convert("1:10000", None, None)) == 10_000
    assert seeds.convert("20000:20002", None, None) == (20_000, 20_001, 20_002)
    assert vary.convert(" nudge =4", None, None) == ("nudge", ("4",))
    assert vary.convert("batch-size=4, 8", None, None) == ("batch_size", ("4", "8"))
    task = study._task(Path("s"), {"conductance_rates": "0.1/0.2", "sweeps": "4"}, 3, ["--epochs", "2"])
    place = str(Path("s", "conductance_rates=0.1+0.2,sweeps=4", "seed3"))
    assert (task.folder, task.seed) == (place, 3)
    assert task.arguments == (
        *("--epochs", "2", "--conductance-rates", "0.1,0.2", "--sweeps", "4"),
        *("--seed", "3", "--out", place, "--threads", "1"),
    )


def test_what_makes_another_study() -> None:
    def facts(*more: str) -> dict[str, object]:
        return study._facts(shlex.split(changed(OPTIONS, shlex.join(more))), ["nudge"])

    found = facts()
    assert facts("--nudge", "3") == found
    assert "nudge" not in found and "expected" not in found
    changes = ["--limit 9", "--test-limit 9", "--steps 4", "--order sequential", "--backend cpu", "--sweeps 9"]
    for change in (*changes, "--epochs 9", "--order sequential --first-image 4"):
        assert facts(*change.split()) != found, change
    assert facts(*"--order sequential --first-image 4".split()) != facts("--order", "sequential")
    np.savez("one.npz", g1=np.ones(1))
    begun = facts("--init", "one.npz")
    np.savez("two.npz", g1=np.ones(1))
    assert facts("--init", "two.npz") == begun != found  # the same values
    np.savez("one.npz", g1=np.zeros(1))
    assert facts("--init", "one.npz") not in (begun, found)
    Path("below").mkdir()
    for name in ("tiny.cir", "tiny.toml"):
        Path("below", name).write_bytes(Path(name).read_bytes())
    assert facts("--netlist", "below/tiny.cir") == found
    assert study._facts(["--recipe", "below/tiny.toml", *shlex.split(OPTIONS)[2:]], ["nudge"]) == found
    labels = Path("data/t10k-labels-idx1-ubyte.gz")
    data = bytearray(gzip.decompress(labels.read_bytes()))
    data[-1] = (data[-1] + 1) % 3
    labels.write_bytes(gzip.compress(data))
    assert facts() != found


def test_only_what_this_run_left_counts_as_finished() -> None:
    figures = dict.fromkeys(study._FIGURES, 1.0)
    task, row = study.Task("s", {"nudge": "1"}, 3, ()), {"varied": {"nudge": "1"}, "seed": 3, **figures}
    Path("s").mkdir()
    for change, finished in (({}, True), ({"seed": 4}, False), ({"varied": {"nudge": "1.0"}}, False)):
        Path("s/result.json").write_text(json.dumps({**row, **change}))
        outcome = study._finished(task)
        assert (outcome is not None) is finished and (not outcome or outcome.figures == figures)
    Path("s/result.json").write_text("{}")
    assert study._finished(task) is None


def test_where_a_run_goes_on_from() -> None:
    alone(f"{OPTIONS} --seed 1 --threads 1 --out s")
    newest, previous = Path("s/checkpoint.npz"), Path("s/checkpoint-previous.npz")
    assert study._go_on(Path("s")) == ["--resume", str(newest)]
    newest.write_bytes(b"")
    assert study._go_on(Path("s")) == ["--resume", str(previous)]
    Path("s/log.txt").touch()
    previous.write_bytes(b"")
    assert study._go_on(Path("s")) == []
    left = {path.name for path in Path("s").iterdir()}
    assert "log.txt" in left
    assert not left & {newest.name, previous.name, "config.json", "metrics.csv", "trained.cir"}


def test_the_table_of_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"test_error": x, "train_error": x / 10} for x in (3.0, 4.0, 8.0)]
    summary = [{"varied": {"nudge": nudge}, **study._spread(some)} for nudge, some in (("1", rows), ("2", []))]
    study._print(summary, ["nudge"])
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert "nudge" in head and "least" in head
    assert lines[0].split() == "1 3 5.00 ± 2.65 3.00 8.00 0.50 ± 0.26".split() and lines[1].split() == ["2", "0"]
    rates = {"conductance_rates": "0.0043/0.0085", "nudge": "0.0125"}
    cost = {"mean": 1.234e-05, "std": 4.567e-06, "min": 7.89e-06, "max": 1.71e-05}
    study._print([{"varied": rates, "runs": 3, "test_cost": cost, "train_cost": cost}], list(rates))
    line = capsys.readouterr().out.splitlines()[2]  # of more than 80 characters: nothing is left out
    mean = "1.23e-05 ± 4.57e-06"
    assert line.split() == f"0.0043/0.0085 0.0125 3 {mean} 7.89e-06 1.71e-05 {mean}".split()
    assert [study._mean({"mean": 1.0, "std": std}) for std in (0.0, None)] == ["1.00 ± 0.00", "1.00"]
    assert study._spread(rows[:1])["test_error"] == {"mean": 3.0, "std": None, "min": 3.0, "max": 3.0}
    assert study._numbers(["1", "2e-3"]) == [1.0, 0.002] and study._numbers(["1", "ep"]) == ["1", "ep"]


def test_an_interrupted_run_goes_on() -> None:
    alone(f"{OPTIONS} --seed 1 --threads 1 --out whole")
    alone(f"{OPTIONS} --seed 1 --threads 1 --steps 20 --out s/recipe/seed1")
    for name in ("trained.cir", "trained.npz"):
        Path("s/recipe/seed1", name).unlink()
    Path("s/study.json").write_text(json.dumps(study_facts()))
    succeed(f"{OPTIONS} --seeds 1 --out s")
    assert_same_end(Path("s/recipe/seed1"), Path("whole"))
    assert "continuing after 20" in Path("s/recipe/seed1/log.txt").read_text()


def study_facts() -> dict[str, object]:
    """What a study of OPTIONS writes."""
    succeed(f"{OPTIONS} --seeds 1 --out other")
    return json.loads(Path("other/study.json").read_text())


@pytest.mark.slow
def test_processes_give_the_same_runs() -> None:
    succeed(f"{OPTIONS} --seeds 1:2 --out one")
    succeed(f"{OPTIONS} --seeds 1:2 --out two --workers 2")
    for seed in (1, 2):
        assert_same_end(Path(f"two/recipe/seed{seed}"), Path(f"one/recipe/seed{seed}"))


def test_a_run_that_fails_stops_no_other_and_is_tried_again() -> None:
    result = run(f"{OPTIONS} --seeds 1 --vary nudge=50,0.25 --out s")
    assert result.exit_code == 2
    assert "error: s/nudge=50/seed1: the problem nudged by -50 S is not convex" in result.stderr
    assert [row["varied"]["nudge"] for row in json.loads(Path("s/results.json").read_text())["runs"]] == ["0.25"]
    assert "not convex" in run(f"{OPTIONS} --seeds 1 --vary nudge=50,0.25 --out s").stderr


def test_runs_come_setting_by_setting_in_a_folder_that_the_netlist_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "_train", lambda home, task: study.Outcome(None, "of no use"))
    Path("below").mkdir()
    for name in ("tiny.cir", "tiny.toml"):
        Path("below", name).write_bytes(Path(name).read_bytes())
    result = run(f"{OPTIONS.replace('tiny.cir', 'below/tiny.cir')} --seeds 1:2 --vary nudge=1,2")
    assert result.exit_code == 2
    runs = [f"runs/study-tiny/nudge={nudge}/seed{seed}" for nudge in (1, 2) for seed in (1, 2)]
    assert result.stderr.splitlines()[-4:] == [f"error: {one}: of no use" for one in runs]
    assert f"{runs[3]}: failed: of no use" in result.stderr.splitlines()
    result = run(f"{OPTIONS} --out s")
    runs = [f"s/recipe/seed{seed}" for seed in (1, 2, 3)]
    assert [line for line in result.stderr.splitlines() if "error" in line] == [
        f"error: {one}: of no use" for one in runs
    ]


def test_a_run_goes_on_from_what_is_whole_and_else_anew() -> None:
    succeed(f"{OPTIONS} --seeds 1:3 --out s")
    before = json.loads(Path("s/results.json").read_text())["runs"]
    runs = [Path(f"s/recipe/seed{seed}") for seed in (1, 2, 3)]
    for one in runs:
        (one / "result.json").unlink()
        newest = one / "checkpoint.npz"
        newest.write_bytes(newest.read_bytes()[:-50])
    (runs[1] / "checkpoint-previous.npz").write_bytes(b"")
    for name in ("checkpoint.npz", "checkpoint-previous.npz"):
        (runs[2] / name).unlink()
    succeed(f"{OPTIONS} --seeds 1:3 --out s")
    after = json.loads(Path("s/results.json").read_text())["runs"]
    assert [{**row, "seconds": 0} for row in after] == [{**row, "seconds": 0} for row in before]
    logs = [(one / "log.txt").read_text() for one in runs]
    assert ["continuing after" in log for log in logs] == [True, False, False]
    assert [log.count("tiny.cir: ep, ") for log in logs] == [2, 2, 2]  # of both times


def test_a_checkpoint_of_another_version_is_kept() -> None:
    succeed(f"{OPTIONS} --seeds 1 --out s")
    Path("s/recipe/seed1/result.json").unlink()
    newest = Path("s/recipe/seed1/checkpoint.npz")
    header, arrays = load_sealed(newest)
    save_sealed(newest, {**header, "format": header["format"] + 1}, arrays)
    before = newest.read_bytes()
    result = run(f"{OPTIONS} --seeds 1 --out s")
    assert result.exit_code == 2 and "continue with the version that wrote it" in result.stderr
    assert newest.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--seed 3", "--seed is not for a study; use --seeds"),
        ("--resume", "--resume is not for a study; use nothing: a study always continues"),
        ("--threads 2", "--threads is not for a study; use --workers; a run has one thread"),
        ("--save-arrays x.npz", "--save-arrays is not for a study; use trained.npz in the folder of a run"),
        ("--workers 0", "0 is not in the range 1<=x<=1024"),
        ("--vary g_max=2,1 --g-min 1.5", "g_min must be at most g_max, found 1.5 and 1"),
        ("--seeds 5:1", "seeds are numbers from 0, each once"),
        ("--seeds=-1,2", "seeds are numbers from 0, each once"),
        ("--seeds 1,1", "seeds are numbers from 0, each once"),
        ("--seeds 1:2:3", "write 1:5, or 1,2,7"),
        ("--seeds 1:1000000000000000000000", "more than 10,000 seeds; take fewer"),
        ("--seeds 1:10001", "more than 10,000 seeds; take fewer"),
        ("--seeds some", "write 1:5, or 1,2,7"),
        ("--vary nudge", "write KEY=X,Y with a KEY of algorithm"),
        ("--vary seed=1,2", "write KEY=X,Y with a KEY of algorithm"),
        ("--vary nudge=1,1", "each value once"),
        ("--vary algorithm=adjoint,implicit", "each value once"),
        ("--vary nudge=1,", "each value once"),
        ("--vary g_min=0,1e-3 --g-min 0", "--g-min is given, and g_min varied"),
        ("--vary nudge=1 --vary nudge=2", "each key once, with all its values"),
        ("--vary nudge=1,2 --nudge 3", "--nudge is given, and nudge varied: put it among the values instead"),
        ("--vary nudge=0.5,0.50", "nudge=0.5 and nudge=0.50 are the same setting; leave one out"),
        ("--vary nudge=-1", "nudge must be a positive number, found -1"),
        ("--vary nudge=much", "'much' is not a number"),
        ("--vary conductance_rates=1/x", "'1,x' is not a number"),
        ("--parquet no/s.parquet", "cannot write no/s.parquet: there is no folder no"),
        ("--nonsense", "No such option"),
        ("--epochs 3", "--epochs is given twice; give it once"),
        ("--seeds 1 --seeds 2", "--seeds is given twice; give it once"),
        ("--netlist nothing.cir", "no netlist 'nothing.cir'"),
        ("--workers 2 --scheduler tcp://x:1", "--workers and --scheduler exclude each other"),
        ("--scheduler nonsense", "no Dask scheduler answers at nonsense"),
    ],
)
def test_what_is_refused(arguments: str, message: str) -> None:
    result = run(f"{'' if '--netlist' in arguments else OPTIONS} {arguments} --out s")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(Path().glob("s/*/*"))  # no run has begun


def test_a_worker_elsewhere_must_see_the_folder(tmp_path: Path) -> None:
    outcome = study._train(str(tmp_path / "not there"), study.Task("s", {}, 1, ()))
    assert outcome.figures is None
    assert "does not see the folder" in outcome.fault


def test_a_run_is_one_in_the_folder_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever its process is; what it says, warnings too, is in its log alone."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    outcome = study._train(
        str(tmp_path), study.Task("s", {}, 1, tuple(shlex.split(f"{QUICK} --steps 1 --g-max 0.25 --out s")))
    )
    assert outcome.figures is not None and outcome.figures["examples"] == 4
    assert Path.cwd() == elsewhere and not list(elsewhere.iterdir())
    log = (tmp_path / "s/log.txt").read_text()
    assert "tiny.cir: ep, " in log and "warning: " in log
    assert capsys.readouterr() == ("", "")


def test_a_missing_pyarrow_is_said_before_any_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run(f"{OPTIONS} --seeds 1 --out s --parquet s.parquet")
    assert result.exit_code == 2 and "pyarrow" in result.stderr
    assert not Path("s").exists()


def test_another_study_is_refused_and_kept() -> None:
    succeed(f"{OPTIONS} --seeds 1 --out s")
    before = {path: path.read_bytes() for path in Path("s").rglob("*") if path.is_file()}
    for other, text in (("--epochs 3", "epochs 2 (now 3)"), ("--limit 40", "limit not set (now 40)")):
        result = run(f"{changed(OPTIONS, other)} --seeds 1 --out s")
        assert result.exit_code == 2
        assert f"s holds another study: {text}; choose another --out" in result.stderr
    with Path("tiny.cir").open("a") as deck:
        deck.write("* a remark\n")
    assert "s holds another study: netlist " in run(f"{OPTIONS} --seeds 1 --out s").stderr
    assert {path: path.read_bytes() for path in Path("s").rglob("*") if path.is_file()} == before


LONG = f"{QUICK} --epochs 60 --checkpoint-every 0"


@pytest.mark.slow
def test_a_killed_worker_goes_on_from_its_checkpoint() -> None:
    alone(f"{LONG} --seed 1 --threads 1 --out whole")
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: Path("s/recipe/seed1/metrics.csv").exists())
        found = [p for p in psutil.Process().children() if "popen_loky" in " ".join(p.cmdline())]
        for process, number in zip(found, (signal.SIGKILL, signal.SIGTERM), strict=True):
            killed.append(process.pid)
            os.kill(process.pid, number)

    thread = threading.Thread(target=kill)
    thread.start()
    succeed(f"{LONG} --seeds 1:2 --out s --workers 2")
    thread.join()
    assert killed
    assert_same_end(Path("s/recipe/seed1"), Path("whole"))
    assert "continuing after" in Path("s/recipe/seed1/log.txt").read_text()


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_ends_no_study() -> None:
    asked: list[int] = []

    def end() -> None:
        wait_for(lambda: Path("s/recipe/seed1/metrics.csv").exists())
        workers = [p for p in psutil.Process().children() if "popen_loky" in " ".join(p.cmdline())]
        asked.append(workers[0].pid)
        os.kill(workers[0].pid, signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    succeed(f"{LONG} --seeds 1:2 --out s --workers 2")
    thread.join()
    assert asked and len(json.loads(Path("s/results.json").read_text())["runs"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_in_one_process_ends_and_goes_on(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "training.study", *shlex.split(f"{LONG} --seeds 1:2 --out s")]
    begun = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: Path("s/recipe/seed1/metrics.csv").exists())
        begun.send_signal(number)
        _, told = begun.communicate(timeout=60)
    finally:
        begun.kill()
    assert begun.returncode == 128 + number
    assert told.startswith("0 of 2 runs are done; run the same command again to continue\n")
    assert not Path("s/recipe/seed2").exists()
    alone(f"{LONG} --seed 1 --threads 1 --out whole")
    succeed(f"{LONG} --seeds 1 --out s")
    assert_same_end(Path("s/recipe/seed1"), Path("whole"))


@pytest.mark.slow
def test_a_run_that_nobody_wants_any_more_ends() -> None:
    """Dask lets it run on: it asks, saves a checkpoint and stops."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster:
        command = [sys.executable, "-m", "training.study", *shlex.split(f"{QUICK} --epochs 100000 --seeds 1 --out s")]
        begun = subprocess.Popen(
            [*command, "--scheduler", cluster.scheduler_address], stderr=subprocess.PIPE, text=True
        )
        try:
            wait_for(lambda: Path("s/recipe/seed1/metrics.csv").exists())
            begun.send_signal(signal.SIGINT)
            _, told = begun.communicate(timeout=60)
        finally:
            begun.kill()
        assert begun.returncode == 130
        assert told == "0 of 1 runs are done; run the same command again to continue\ninterrupted\n"
        wait_for(lambda: Path("s/recipe/seed1/log.txt").exists())
        assert "interrupted after" in Path("s/recipe/seed1/log.txt").read_text()
