"""The training program: a run's files, going on after every kind of end, exact comparisons, usage."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from commands import changed
from helpers import process

import circuitsim as cs
from circuitsim.backends.base import BACKENDS
from circuitsim.errors import BackendUnavailable
from circuitsim.io.commands import Ended, ends_in_order
from circuitsim.io.sealed import load_sealed
from training import live, mnist, recipe
from training.checkpoint import NEWEST, PREVIOUS, Checkpoint
from training.learner import LearningError
from training.metrics import COLUMNS, Row
from training.options import Options
from training.record import Record, file_digest, with_initial_values

ROOT = Path(__file__).parent.parent
FILES = ["config.json", "learning-curve.png", "metrics.csv", "trained.cir", "trained.npz"]
TINY = """tiny network 8-6-3
.options seed=1
.model ideal D(ron=0)
Vx[0:7] x[0:7] 0 1
RW1[0:7][0:5] x[0:7] h[0:5] g={max(0, aunif(0.2, 0.3))}
RW2[0:5][0:2] h[0:5] y[0:2] g={max(0, aunif(0.2, 0.3))}
Ib1[0:5] 0 h[0:5] 0
Ib2[0:2] 0 y[0:2] 0
Dexc[0:2] 0 h[0:2] ideal
Dinh[0:2] h[3:5] 0 ideal
.input Vx
.output y[0:2]
.train RW1 Ib1 RW2 Ib2
"""
RECIPE = """netlist = "tiny.cir"
gain = 20.0
nudge = 0.25
conductance_rates = [0.01, 0.02]
bias_rates = 0.01
epochs = 3
dtype = "float64"

[expected.ep]
test = 12.5
train = 11.0
"""
QUICK = "--netlist tiny.cir --data data --backend reference"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, with a tiny network and 2 x 2 images of three kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("tiny.cir").write_text(TINY)
    Path("tiny.toml").write_text(RECIPE)
    Path("data").mkdir()
    rng = np.random.default_rng(7)
    for part, count in (("train", 62), ("t10k", 33)):
        labels = rng.integers(0, 3, count).astype(np.uint8)
        images = rng.integers(0, 120, (count, 2, 2)).astype(np.uint8)
        images.reshape(count, 4)[np.arange(count), labels] += 135
        for what, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            Path("data", f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    return tmp_path


def run(arguments: str) -> Result:
    """Run the program; anything but a clean exit is a failure of the test."""
    result = CliRunner().invoke(mnist.main, shlex.split(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(arguments: str) -> str:
    """stdout of a run that must exit 0 and say nothing on stderr, but that it compiles, once on a machine."""
    result = run(arguments)
    stderr = re.sub(r"^compiling the training step, once .*\n", "", result.stderr, flags=re.MULTILINE)
    assert (result.exit_code, stderr) == (0, "")
    return result.stdout


def timeless(path: Path) -> list[list[str]]:
    """metrics.csv without the seconds."""
    with path.open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


def assert_same_end(found: Path, wanted: Path) -> None:
    """The same bits in the end: trained netlist, checkpoint's arrays, metrics but for the seconds."""
    assert timeless(found / "metrics.csv") == timeless(wanted / "metrics.csv")
    assert (found / "trained.npz").read_bytes() == (wanted / "trained.npz").read_bytes()
    with np.load(found / NEWEST) as one, np.load(wanted / NEWEST) as two:
        assert one.files == two.files
        for name in set(one.files) - {"header"}:
            assert one[name].tobytes() == two[name].tobytes(), name


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_these_files() -> None:
    out = succeed(f"{QUICK} --out one")
    lines = out.splitlines()
    assert lines[0] == "tiny.cir: ep, float64, plain path for layers, 45 steps of 4 samples; results in one"
    assert [line.split()[:2] for line in lines[1:4]] == [["epoch", f"{k}/3"] for k in (1, 2, 3)]
    rows = timeless(Path("one/metrics.csv"))
    test, train = float(rows[-1][4]), float(rows[-1][3])
    assert re.fullmatch(
        r"conductances: \d+ of 66 are 0 S \(at first 10\), the largest is \S+ S \(at first 0\.488 S\)", lines[4]
    )
    assert lines[5] == (
        f"test error {test:.2f} %, train error {train:.2f} % after 3 epochs; expected after 3: "
        "test error 12.50 %, train error 11.00 %"
    )
    assert len(lines) == 6
    assert sorted(path.name for path in Path("one").iterdir()) == sorted([*FILES, NEWEST, PREVIOUS])
    assert rows[0] == list(COLUMNS[:-1])
    assert [row[:2] for row in rows[1:]] == [["1", "60"], ["2", "120"], ["3", "180"]]
    assert float(rows[3][2]) < float(rows[1][2])
    assert test < 40


def test_the_trained_netlist_solves_and_says_how_it_was_made() -> None:
    succeed(f"{QUICK} --out one --save-arrays end.npz")
    circuit = cs.load("one/trained.cir")
    with np.load("end.npz") as arrays:
        assert [c.g.tolist() for c in circuit.crossbars] == [arrays["g1"].tolist(), arrays["g2"].tolist()]
        assert circuit.current_sources.i[0].tolist() == [*arrays["bias1"].tolist(), *arrays["bias2"].tolist()]
    assert circuit.ties.e.tolist() == cs.load("tiny.cir").ties.e.tolist()
    assert cs.solve(circuit).solved
    remarks = Path("one/trained.cir").read_text().splitlines()[1:4]
    assert remarks[0] == (
        "* trained with python -m training.mnist --data data --netlist tiny.cir --backend reference --out one "
        "--save-arrays end.npz"
    )
    assert remarks[1].startswith("* on 180 samples (62 in the data, 3 epochs): train error ")
    volts = f"{20 / 255:.10g} V times"
    assert remarks[2] == f"* inputs: {volts} each of the 4 features, then {volts} the negated ones"


def test_the_trained_netlist_trains_on() -> None:
    succeed(f"{QUICK} --out one")
    succeed("--netlist one/trained.cir --recipe tiny.toml --data data --backend reference --out two --epochs 1")
    first, second = (timeless(Path(name, "metrics.csv"))[1] for name in ("one", "two"))
    assert float(second[2]) < float(first[2])


def test_config_says_all() -> None:
    succeed(f"{QUICK} --out one --seed 3 --nudge 0.125 --bias-rates 0.25,0.125 --limit 40 --epochs 2")
    config = json.loads(Path("one/config.json").read_text())
    assert config["recipe"]["nudge"] == 0.125
    assert config["recipe"]["gain"] == 20.0
    assert config["recipe"]["bias_rates"] == [0.25, 0.125]
    assert config["netlist"] == {"path": str(Path("tiny.cir").resolve()), "sha256": file_digest(Path("tiny.cir"))}
    assert config["seed"] == 3
    assert config["data"]["folder"] == str(Path("data").resolve())
    assert config["data"]["sha256"] == {path.name: file_digest(path) for path in Path("data").iterdir()}
    assert (config["data"]["training_samples"], config["data"]["test_samples"]) == (40, 33)
    assert config["threads"] >= 1
    assert [config[key] for key in ("backend", "order", "first", "steps", "init")] == [
        "reference", "shuffled", 0, None, None
    ]  # fmt: skip
    assert set(config["versions"]) == {"circuitsim", "numpy", "numba", "scipy", "python", "platform"}
    command = config["commands"][0]
    assert shlex.split(command)[3:] == shlex.split(
        "--data data --netlist tiny.cir --epochs 2 --backend reference --seed 3 --limit 40 --out one --nudge 0.125 "
        "--bias-rates 0.25,0.125"
    )
    succeed(f"{QUICK} --out one --seed 3 --nudge 0.125 --bias-rates 0.25,0.125 --limit 40 --epochs 3 --resume")
    config = json.loads(Path("one/config.json").read_text())
    assert config["commands"][0] == command
    assert config["commands"][1].endswith("--resume --nudge 0.125 --bias-rates 0.25,0.125")
    assert config["recipe"]["epochs"] == 3
    np.savez("start.npz", g1=np.ones((8, 6)))
    start = "--init start.npz --order sequential --first-image 3 --steps 2 --threads 1"
    assert run(f"{QUICK} --out two {start}").exit_code == 0
    config = json.loads(Path("two/config.json").read_text())
    assert config["init"] == {"path": "start.npz", "sha256": file_digest(Path("start.npz"))}
    assert [config[key] for key in ("order", "first", "steps", "threads")] == ["sequential", 3, 2, 1]


def test_folders_are_named_after_the_run() -> None:
    succeed(f"{QUICK} --epochs 1")
    succeed(f"{QUICK} --epochs 1 --algorithm bp --seed 4")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["tiny-bp-seed4", "tiny-ep"]


def test_a_seed_draws_order_and_conductances() -> None:
    for name, flags in {"a": "", "b": "--seed 0", "c": "--seed 1", "d": "--seed 1", "e": ""}.items():
        succeed(f"{QUICK} --steps {1 if name == 'e' else 5} --out {name} --save-arrays {name}.npz {flags}")
    ends = {name: np.load(f"{name}.npz")["g1"] for name in "abcde"}
    assert np.array_equal(ends["c"], ends["d"])
    assert not np.allclose(ends["a"], ends["b"])
    assert not np.allclose(ends["b"], ends["c"])
    # Seed 1 is the netlist's own, but 0 is what draws the order without --seed.
    assert np.allclose(ends["a"], ends["c"], atol=0.1)
    assert not np.array_equal(ends["a"], ends["c"])
    assert np.allclose(ends["a"], cs.load("tiny.cir").crossbars[0].g, atol=0.1)


def test_a_recipe_of_ones_own_and_every_flag() -> None:
    rates = "conductance_rates = 0.006\nbias_rates = 0.006\n"
    Path("mine.toml").write_text(f"gain = 5\nepochs = 1\ntol = 1e-6\nnudge = 1\n{rates}")
    succeed(
        f"{QUICK} --recipe mine.toml --out one --variant positive --form plain --sweeps 9 --decay 0.5 --dtype float32"
    )
    table = json.loads(Path("one/config.json").read_text())["recipe"]
    assert (table["gain"], table["epochs"], table["tol"], table["variant"]) == (5, 1, None, "positive")
    assert (table["form"], table["sweeps"], table["decay"], table["dtype"]) == ("plain", 9, 0.5, "float32")
    assert (table["nudge"], table["expected"]) == (1.0, {})
    succeed(f"{QUICK} --recipe mine.toml --out two --variant positive")
    assert json.loads(Path("two/config.json").read_text())["recipe"]["tol"] == 1e-6  # --sweeps alone takes its place


def test_a_run_without_matplotlib_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = run(f"{QUICK} --out one --epochs 1")
    assert result.exit_code == 0
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("no learning curve drawn: ")
    assert not Path("one/learning-curve.png").exists()
    assert Path("one/trained.cir").exists()


@pytest.mark.parametrize(
    ("options", "compared"),
    [
        ("--epochs 1", "after 1 epochs; expected after 3: test error 12.50 %, train error 11.00 %"),
        ("--steps 20", "after 1.333 epochs; expected after 3: test error 12.50 %, train error 11.00 %"),
        ("--steps 1 --algorithm bp", ""),  # about which the recipe says nothing
    ],
)
def test_what_was_expected_is_that_of_the_recipe(options: str, compared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[object, ...]] = []
    monkeypatch.setattr("training.record.plot_curve", lambda rows, *more: drawn.append(more))
    last = succeed(f"{QUICK} --out one {options}").splitlines()[-1]
    assert last.endswith(compared) and ("expected" in last) == bool(compared)
    ((expected, title, path),) = drawn
    assert expected == ({"test": 12.5, "train": 11.0} if compared else {})
    assert str(title).startswith(f"one: {'ep' if compared else 'bp'}, train error ")
    assert path == Path("one/learning-curve.png")


def test_the_test_set_is_not_the_training_set() -> None:
    succeed(f"{QUICK} --out one --epochs 1 --test-limit 1")
    train, test = map(float, timeless(Path("one/metrics.csv"))[1][3:5])
    assert test in (0, 100) and 0 < train < 100


def test_of_many_epochs_some_hundred_have_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    lines = succeed(f"{QUICK} --out one --limit 4 --test-limit 1 --epochs 201").splitlines()
    told = [int(line.split()[1].split("/")[0]) for line in lines if line.startswith("epoch ")]
    assert told == [*range(2, 201, 2), 201]
    assert len(timeless(Path("one/metrics.csv"))) == 202


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ("--limit 4 --epochs 120 --checkpoint-every 1e9", [0, 1, 51, 101, 120]),
        ("--epochs 2 --checkpoint-every 4", [0, 4, 8, 12, 16, 20, 24, 28, 30]),
    ],
)
def test_when_checkpoints_are_saved(options: str, saved: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, and so does saving: at the end of an epoch that waits for 50."""
    taken, steps, save = steps_taken(monkeypatch), list[int](), Record.save
    clock = SimpleNamespace(perf_counter=lambda: len(taken) + len(steps))
    monkeypatch.setattr("training.program.time", clock)
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    per_epoch = 1 if "--limit 4" in options else 15

    def counted(self: Record, checkpoint: Checkpoint) -> None:
        steps.append(checkpoint.epoch * per_epoch + checkpoint.position // 4)
        save(self, checkpoint)

    monkeypatch.setattr(Record, "save", counted)
    succeed(f"{QUICK} --out one --test-limit 1 {options}")
    assert steps == saved


def test_a_netlist_in_which_sources_alone_learn_has_no_line_of_conductances() -> None:
    Path("tiny.cir").write_text(TINY.replace(".train RW1 Ib1 RW2 Ib2", ".train Ib1 Ib2"))
    assert "conductances" not in succeed(f"{QUICK} --out one --steps 1")


def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each step of a LayeredLearner; every chunk has one."""
    from training.layered import LayeredLearner

    taken, original = list[int](), LayeredLearner.train

    def train(self: LayeredLearner, samples: object, order: np.ndarray, rates: object) -> object:
        taken.append(order.size)
        return original(self, samples, order, rates)  # type: ignore[arg-type]

    monkeypatch.setattr(LayeredLearner, "train", train)
    monkeypatch.setattr("training.run.CHUNK_SECONDS", 0.0)
    return taken


def test_what_the_netlist_leaves_aside_is_said() -> None:
    Path("tiny.cir").write_text(TINY + ".tran 1n 1u\n")
    result = run(f"{QUICK} --out one --steps 1")
    assert result.exit_code == 0 and result.stderr.startswith("warning: tiny.cir:14: .tran is skipped")


# -- bounds of conductances --------------------------------------------------------------------------------------------


def test_conductances_within_bounds() -> None:
    """They begin there, which is said, and stay; the last line counts those at the ends; a run may be interrupted."""
    bounds = "--g-min 0.0625 --g-max 0.25"
    g = np.concatenate([crossbar.g.ravel() for crossbar in cs.load("tiny.cir").crossbars])
    result = run(f"{QUICK} {bounds} --out one")
    assert (result.exit_code, result.stderr) == (
        0,
        f"warning: {((g < 0.0625) | (g > 0.25)).sum()} initial conductances were outside g_min, 0.0625 S, to g_max, "
        "0.25 S and have been clipped\n",
    )
    trained = np.concatenate([crossbar.g.ravel() for crossbar in cs.load("one/trained.cir").crossbars])
    assert trained.min() == 0.0625 and trained.max() == 0.25 and np.unique(trained).size > 10
    counts = [int((x == end).sum()) for end in (0.0625, 0.25) for x in (trained, np.clip(g, 0.0625, 0.25))]
    assert result.stdout.splitlines()[4] == (
        "conductances: {} of 66 are at g_min, 0.0625 S (at first {}), {} at g_max, 0.25 S (at first {}), the largest "
        "is 0.25 S (at first 0.25 S)".format(*counts)
    )
    run(f"{QUICK} {bounds} --out short --epochs 1")
    assert (
        succeed(f"{QUICK} {bounds} --out short --epochs 3 --resume").splitlines()[-1] == result.stdout.splitlines()[-1]
    )
    assert_same_end(Path("short"), Path("one"))
    again = f"--netlist one/trained.cir --recipe tiny.toml --data data --backend reference {bounds} --epochs 1"
    succeed(f"{again} --out two")  # none lies outside now
    recipe = json.loads(Path("one/config.json").read_text())["recipe"]
    assert (recipe["g_min"], recipe["g_max"]) == (0.0625, 0.25)


def test_bounds_of_float32_hold_in_what_is_written() -> None:
    """0.1 and 0.3 are no numbers of float32: one side of each is."""
    bounds = "--dtype float32 --g-min 0.1 --g-max 0.3"
    run(f"{QUICK} {bounds} --out one")
    trained = np.concatenate([crossbar.g.ravel() for crossbar in cs.load("one/trained.cir").crossbars])
    assert 0.1 <= trained.min() < 0.10000001 and 0.29999995 < trained.max() <= 0.3
    out = succeed(f"--netlist one/trained.cir --recipe tiny.toml --data data --backend reference {bounds} --out two")
    low, high = ((trained == end).sum() for end in (trained.min(), trained.max()))
    assert f"at g_min, 0.1 S (at first {low}), " in out and f" at g_max, 0.3 S (at first {high}), " in out


def test_one_bound_and_initial_values_outside_it() -> None:
    np.savez("start.npz", g1=np.full((8, 6), 3.0))
    result = run(f"{QUICK} --g-max 1 --init start.npz --out one --steps 1")
    assert result.stderr.startswith(
        "warning: 48 initial conductances were outside g_min, 0 S, to g_max, 1 S and have been clipped"
    )
    assert re.search(r" are 0 S \(at first \d+\), \d+ at g_max, 1 S \(at first 48\), the largest is ", result.stdout)
    Path("tiny.toml").write_text("g_max = 1.0\n" + RECIPE)
    assert " at g_max" in succeed(f"{QUICK} --out two --steps 1")
    assert " at g_max" not in succeed(f"{QUICK} --g-max inf --out three --steps 1")


# -- exact comparisons -------------------------------------------------------------------------------------------------


def test_initial_values_go_in_and_final_ones_come_out() -> None:
    rng = np.random.default_rng(0)
    given = {"g1_initial": rng.uniform(0, 1, (8, 6)), "RW2": rng.uniform(0, 1, (6, 3)), "step1_cost": 3.0}
    given["bias2"] = rng.normal(0, 1, 3)
    np.savez("start.npz", **given)
    result = run(
        f"{QUICK} --init start.npz --steps 1 --conductance-rates 0 --bias-rates 0 --save-arrays end.npz --order "
        "sequential --first-image 60 --test-limit 5"
    )
    warning = "warning: --init start.npz has no values for Ib1; they start from the netlist's\n"
    assert (result.exit_code, result.stderr) == (0, warning)
    with np.load("end.npz") as end:
        assert set(end.files) == {"g1", "g2", "bias1", "bias2", "free1", "free2", "cost"}
        assert np.array_equal(end["g1"], given["g1_initial"])
        assert np.array_equal(end["g2"], given["RW2"])
        assert np.array_equal(end["bias2"], given["bias2"])
        assert not end["bias1"].any()
        assert (end["free1"].shape, end["free2"].shape) == ((4, 6), (4, 3))
        targets = np.eye(3)[[_label(k) for k in (60, 61, 0, 1)]]
        assert end["cost"] == pytest.approx(0.5 * ((end["free2"] - targets) ** 2).sum() / 4, rel=1e-9)


def test_an_initial_value_goes_by_the_name_then_by_the_number() -> None:
    given = {"RW1": 1.0, "g1": 2.0, "g1_initial": 3.0, "g2": 4.0, "g2_initial": 5.0, "g3x": 6.0}
    np.savez("start.npz", **{key: np.full((8, 6) if "1" in key else (6, 3), x) for key, x in given.items()})
    circuit = cs.load("tiny.cir")
    kinds = [("RW1", True), ("RW2", True)]
    found, left, unknown = with_initial_values(circuit, kinds, Path("start.npz"))
    assert [np.unique(crossbar.g).tolist() for crossbar in found.crossbars] == [[1.0], [4.0]] and left == []
    assert unknown == ["g3x"]


def test_what_the_initial_values_leave_out_is_named() -> None:
    np.savez("start.npz", g1=np.ones((8, 6)))
    result = run(f"{QUICK} --init start.npz --steps 1 --out one")
    assert "warning: --init start.npz has no values for Ib1, RW2, Ib2; they start from the netlist's" in result.stderr
    assert "no values for" not in run(f"{QUICK} --init start.npz --steps 2 --out one --resume").stderr
    np.savez("start.npz", g1=np.ones((8, 6)), RW_2=np.ones((6, 3)))
    said = "has no values for Ib1, RW2, Ib2 (is RW_2 one of them?); they start"
    assert said in run(f"{QUICK} --init start.npz --steps 1 --out misspelt").stderr
    np.savez("start.npz", g1=np.ones((8, 6)), g2=np.ones((6, 3)), bias1=np.ones(6), bias2=np.ones(3))
    assert "no values for" not in run(f"{QUICK} --init start.npz --steps 1 --out two").stderr


def _label(k: int) -> int:
    return gzip.decompress(Path("data/train-labels-idx1-ubyte.gz").read_bytes())[8 + k]


def test_the_last_step_is_that_of_a_run_which_ends_there() -> None:
    succeed(f"{QUICK} --steps 20 --out long --save-arrays long.npz")
    succeed(f"{QUICK} --steps 19 --out short")
    succeed(f"{QUICK} --steps 20 --out short --save-arrays short.npz --resume")
    with np.load("long.npz") as long, np.load("short.npz") as short:
        assert long.files == short.files
        assert all(long[name].tobytes() == short[name].tobytes() for name in long.files)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"g3": np.ones(3)},
            "no values for anything that learns; keys can be RW1, g1, g1_initial, Ib1, bias1",
        ),
        (
            {"g1": np.ones((8, 6)), "g9": np.ones(3)},
            "--init start.npz: g9 belongs to nothing that learns; keys can be Ib1,",
        ),
        (
            {"RW1": np.ones((8, 6)), "bias3_initial": np.ones(3)},
            "--init start.npz: bias3_initial belongs to nothing that learns; keys can be Ib1, Ib2, RW1, RW2, bias1,",
        ),
        ({"some": np.ones(3), "more": np.ones(3)}, "; it holds more, some\n"),
        ({"g1": np.ones((6, 8))}, "--init start.npz: RW1: new values have shape (6, 8), needs (8, 6)"),
        ({"g1": -np.ones((8, 6))}, "--init start.npz: RW1: negative conductance -1 S is not monotone"),
        ({"g1": np.full((8, 6), np.nan)}, "'@start.npz:g1' has nan at [0,0]; every value must be finite"),
    ],
)
def test_unfit_initial_values_are_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez("start.npz", **arrays)
    result = run(f"{QUICK} --init start.npz --out one")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not Path("one").exists()


# -- going on ----------------------------------------------------------------------------------------------------------


def test_another_run_is_not_written_over() -> None:
    succeed(f"{QUICK} --out one --epochs 1")
    before = {path.name: path.read_bytes() for path in Path("one").iterdir()}
    result = run(f"{QUICK} --out one --epochs 1")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: one already holds a run (checkpoint.npz, config.json, metrics.csv, trained.cir); continue it "
        "(--resume), or choose another --out\n"
    )
    assert {path.name: path.read_bytes() for path in Path("one").iterdir()} == before


def test_more_epochs_are_those_of_a_longer_run() -> None:
    succeed(f"{QUICK} --out long --epochs 3")
    succeed(f"{QUICK} --out short --epochs 1")
    succeed(f"{QUICK} --out short --steps 20 --resume")
    assert [row[:2] for row in timeless(Path("short/metrics.csv"))[1:]] == [["1", "60"], ["2", "80"]]
    out = succeed(f"{QUICK} --out short --epochs 3 --resume")
    assert "continuing after 20" in out
    assert_same_end(Path("short"), Path("long"))


def test_a_run_goes_on_with_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder too, and with those given that may change, or name files that have moved."""
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    Path("mine.toml").write_text(RECIPE.replace("20", "25"))
    np.savez("start.npz", g1=np.full((8, 6), 0.25), g2=np.full((6, 3), 0.25), bias1=np.zeros(6), bias2=np.zeros(3))
    options = f"{QUICK} --recipe mine.toml --init start.npz --seed 3 --limit 40 --nudge 0.125 --bias-rates 0.25,0.125"
    succeed(f"{options} --out long --epochs 2")
    succeed(f"{options} --out short --epochs 1 --save-arrays no.npz")
    config = json.loads(Path("short/config.json").read_text())
    here, last = Path().absolute(), " --epochs 1 --backend reference --seed 3 --limit 40"
    assert shlex.join(config["options"]) == (
        f"--data {here}/data --netlist {here}/tiny.cir --recipe {here}/mine.toml{last} --init {here}/start.npz "
        "--nudge 0.125 --bias-rates 0.25,0.125"
    )
    Path("no.npz").unlink()
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    lines = succeed("--out ../short --resume --epochs 2").splitlines()
    assert lines[0] == f"as ../short/config.json says: {shlex.join(config['options']).replace(' --epochs 1', '')}"
    assert "continuing after 10;" in lines[1]
    assert_same_end(Path("../short"), Path("../long"))
    assert not list(here.rglob("no.npz"))
    kept = json.loads(Path("../short/config.json").read_text())["options"]
    assert shlex.join(kept) == shlex.join(config["options"]).replace("--epochs 1", "--epochs 2")
    assert "--nudge 0.125" in Path("../short/trained.cir").read_text()  # what it was trained with
    Path("../tiny.cir").rename("tiny.cir")
    result = run("--resume ../short --epochs 3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: ../short/config.json: the run was made with --netlist {here}/tiny.cir, which is not there now; give "
        "--netlist\n"
    )
    result = run("--resume ../short --epochs 3 --netlist tiny.cir --nudge 0.5")
    assert result.exit_code == 2 and "another run: nudge 0.125 (now 0.5);" in result.stderr
    succeed("--resume ../short --epochs 3 --netlist tiny.cir")


def test_options_that_go_together_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    succeed(f"{QUICK} --steps 3")
    assert "continuing after 3" in succeed("--netlist tiny.cir --resume")  # in the folder that they name
    assert "15 steps of 4 samples" in succeed("--out runs/tiny-ep --resume --epochs 1")
    assert "20 steps of 4 samples" in succeed("--out runs/tiny-ep --resume --steps 20")
    result = run("--out runs/tiny-ep --resume --tol 1e-9")
    assert "tol not set (now 1e-09)" in result.stderr
    succeed(f"{QUICK} --order sequential --first-image 2 --steps 3 --out one")
    lines = succeed("--out one --resume --order sequential --steps 4").splitlines()
    assert "--first-image 2" in lines[0] and "continuing after 3" in lines[1]
    assert "continuing after 4" in succeed("--out one --resume --first-image 2 --steps 5")
    result = run("--out one --resume --order shuffled")
    assert result.exit_code == 2 and "can be chosen with --order sequential only" in result.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"options": ["--netlist", "tiny.cir", "--colour", "1"]}, "not those of this program: No such option"),
        ({"options": ["--nudge", "much"]}, "not those of this program: Invalid value for '--nudge'"),
        ({"options": ["--help"]}, "not those of this program: No such option '--help'"),
        ({"options": ["--init", "/a\0b"]}, "not those of this program: '/a\\x00b'"),
        ({"options": ["--init", "/\x1b[31mred"]}, "not those of this program: '/\\x1b[31mred'"),
        ({"options": ["--init", "/\ud800"]}, "not those of this program: '/\\ud800'"),
        ({"options": ["--init", "/" + 5000 * "x"]}, "which is not there now; give --init"),
        ({"options": 3}, "this checkpoint is of another run"),
        ([], "this checkpoint is of another run"),
    ],
)
def test_options_in_a_config_that_are_none(config: object, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    succeed(f"{QUICK} --steps 1 --nudge 0.125 --out one")
    Path("one/config.json").write_text(json.dumps(config))
    result = run(f"{QUICK} --out one --resume")
    assert result.exit_code == 2 and message in result.stderr
    whole = run(f"{QUICK} --nudge 0.125 --out one --resume")
    assert "continuing after 1" in whole.stdout or f"{whole.stderr} {message}".count(message) == 2


def test_a_damaged_checkpoint_is_refused_and_the_previous_one_works() -> None:
    succeed(f"{QUICK} --out long")
    succeed(f"{QUICK} --out one --epochs 2")
    newest = Path("one", NEWEST)
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    result = run(f"{QUICK} --out one --resume")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: one/checkpoint.npz: this checkpoint is damaged: its SHA-256 is wrong; the one before it is kept: "
        "continue from that with `--resume one/checkpoint-previous.npz`\n"
    )
    assert newest.read_bytes() == damaged
    out = succeed(f"{QUICK} --epochs 3 --resume one/checkpoint-previous.npz")  # its folder is that of the run
    assert "results in one" in out
    assert_same_end(Path("one"), Path("long"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--algorithm bp", "algorithm ep (now bp);"),
        ("--dtype float32 --batch-size 5", "dtype float64 (now float32)"),
        ("--limit 40", "training samples 62 (now 40), training data"),
        ("--test-limit 7", "test data"),
        ("--conductance-rates 0.01", "conductance_rates [0.01, 0.02] (now [0.01]);"),
        ("--seed 5", "seed not set (now 5)"),
        ("--order sequential", "order shuffled (now sequential);"),
        ("--g-min 0.001 --g-max 0.25", "g_min not set (now 0.001), g_max not set (now 0.25);"),
        ("--init start.npz", "init not set (now"),
        ("--recipe other.toml", "gain 20.0 (now 25.0)"),
        ("--data other", "training data"),
        ("--netlist other.cir --recipe tiny.toml", "netlist"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    succeed(f"{QUICK} --out one --steps 1")
    np.savez("start.npz", g1=np.ones((8, 6)))
    Path("other.toml").write_text(RECIPE.replace("20", "25"))
    Path("other.cir").write_text(TINY.replace("seed=1", "seed=2"))
    Path("other").mkdir()
    for path in Path("data").iterdir():
        data = bytearray(gzip.decompress(path.read_bytes()))
        data[-1] ^= 1
        Path("other", path.name).write_bytes(gzip.compress(data))
    result = run(f"{changed(QUICK, change)} --out one --steps 2 --resume")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: one/checkpoint.npz: this checkpoint is of another run: ")
    assert message in result.stderr


def test_a_finished_run_is_finished_again() -> None:
    succeed(f"{QUICK} --out one")
    kept = Path("one/trained.npz").read_bytes(), timeless(Path("one/metrics.csv"))
    for name in FILES:
        Path("one", name).unlink()
    succeed(f"{QUICK} --out one --resume --save-arrays end.npz")
    assert (Path("one/trained.npz").read_bytes(), timeless(Path("one/metrics.csv"))) == kept
    assert all(Path("one", name).exists() for name in FILES)
    assert "--resume" not in Path("one/trained.cir").read_text()  # what trained it is not how it was gone on with
    with np.load("end.npz") as end:  # no step was taken
        assert sorted(end.files) == ["bias1", "bias2", "g1", "g2"]


def test_where_the_files_lie_and_what_is_expected_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    succeed(f"{QUICK} --out one --steps 1")
    Path("moved").mkdir()
    for name in ("tiny.cir", "tiny.toml"):
        Path(name).rename(Path("moved", name))
    Path("moved/tiny.toml").write_text(RECIPE.replace("12.5", "13"))
    options = changed(QUICK, "--netlist moved/tiny.cir --steps 2 --out one")
    assert "continuing after 1;" in succeed(f"{options} --resume")


@pytest.mark.parametrize("changes", ["images", "labels"])
def test_a_run_goes_on_with_the_same_training_data(changes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    order = "--order sequential --first-image"
    succeed(f"{QUICK} --out one --steps 1 {order} 2")
    assert "first 2 (now 3);" in run(f"{QUICK} --out one --steps 2 {order} 3 --resume").stderr
    (path,) = Path("data").glob(f"train-{changes}*")
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[-1] = (data[-1] + 1) % 3
    path.write_bytes(gzip.compress(data))
    result = run(f"{QUICK} --out one --steps 2 {order} 2 --resume")
    assert result.exit_code == 2 and ": training data " in result.stderr and "test data" not in result.stderr


def test_a_run_that_its_caller_stops_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = steps_taken(monkeypatch)
    result = CliRunner().invoke(mnist.main, shlex.split(f"{QUICK} --seed 0"), obj=lambda: len(taken) == 17)
    assert result.exit_code == 130
    command = "python -m training.mnist --data data --netlist tiny.cir --backend reference --seed 0 --out {} --resume"
    folder = Path("runs/tiny-ep-seed0")
    assert result.stderr == f"interrupted after 17 steps; continue with\n  {command.format(folder)}\n"
    metrics = folder / "metrics.csv"
    assert [row[0] for row in timeless(metrics)[1:]] == ["1"]
    metrics.unlink()
    result = CliRunner().invoke(mnist.main, shlex.split(f"{QUICK} --seed 0 --resume"), obj=lambda: True)
    assert result.exit_code == 130 and "interrupted after 18 steps" in result.stderr
    assert [row[0] for row in timeless(metrics)[1:]] == ["1"]


def killed_again_and_again(out: str, kills: int, seed: int, longest: float, options: str) -> None:
    command = [sys.executable, str(ROOT / "tests/fake_learner.py"), str(kills), str(seed), str(longest)]
    command += [*shlex.split(options), "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split("\nkilled ")[-1].split()[0]) >= 3


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_bits() -> None:
    options = f"{QUICK} --epochs 20 --checkpoint-every 0"
    succeed(f"{options} --out quiet")
    killed_again_and_again("killed", 20, 1, 0.4, options)
    assert_same_end(Path("killed"), Path("quiet"))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGINT, "interrupted"),
        pytest.param(signal.SIGTERM, "ended by SIGTERM", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_says_how_to_go_on(number: signal.Signals, said: str) -> None:
    options = f"{QUICK} --epochs 25"
    succeed(f"{options} --out quiet")
    command = [sys.executable, "-m", "training.mnist", *shlex.split(options), "--out", "stopped"]
    with process(command) as running:
        assert running.stdout is not None
        while not running.stdout.readline().startswith("epoch  2/25"):
            assert running.poll() is None
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    first, second, *more = err.splitlines()
    assert first.startswith(f"{said} after ")
    assert load_sealed(Path("stopped/checkpoint.npz"))[0]["epoch"] >= 2
    assert first.endswith(" steps; continue with")
    assert not more
    assert not Path("stopped/trained.cir").exists()
    words = shlex.split(second)
    assert words[:3] == ["python", "-m", "training.mnist"]
    assert words[-1] == "--resume"
    succeed(shlex.join(words[3:]))
    assert_same_end(Path("stopped"), Path("quiet"))


def test_a_second_ctrl_c_leaves_the_last_checkpoint_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    succeed(f"{QUICK} --out quiet")
    with monkeypatch.context() as context:
        context.setattr("training.layered.LayeredLearner.train", failing_after(20, KeyboardInterrupt()))
        result = run(f"{QUICK} --out one --checkpoint-every 0")
    assert result.exit_code == 130
    assert "--out one --resume" in result.stderr
    succeed(f"{QUICK} --out one --resume")
    assert_same_end(Path("one"), Path("quiet"))


def failing_after(steps: int, error: BaseException) -> Callable[..., object]:
    """LayeredLearner.train, failing at the end of the call in which so many steps are reached."""
    from training.layered import LayeredLearner

    original, taken = LayeredLearner.train, 0

    def train(self: LayeredLearner, samples: object, order: np.ndarray, rates: object) -> object:
        nonlocal taken
        taken += order.size // self.batch_size
        tally = original(self, samples, order, rates)  # type: ignore[arg-type]
        if taken >= steps:
            raise error
        return tally

    return train


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_last_results_are_saved_ends_the_run(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, before = Record.write_metrics, signal.getsignal(number)

    def write_metrics(self: Record, rows: list[Row]) -> None:
        original(self, rows)
        if rows[-1].epoch == 2:
            signal.raise_signal(number)

    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    try:
        with monkeypatch.context() as context:
            context.setattr(Record, "write_metrics", write_metrics)
            result = run(f"{QUICK} --epochs 2 --out one")
    finally:
        signal.signal(number, before)
    assert result.exit_code == 128 + number and "--out one --resume" in result.stderr
    assert not Path("one/trained.cir").exists()
    succeed(f"{QUICK} --epochs 2 --out one --resume")
    assert Path("one/trained.cir").exists()


def test_what_ignores_a_second_signal_is_left_so() -> None:
    """While all is cleaned up after the second one, a third does not cut that short."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(Ended), ends_in_order():
            try:
                with live.interrupts():
                    signal.raise_signal(signal.SIGTERM)
                    signal.raise_signal(signal.SIGTERM)
            finally:
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signal.signal(signal.SIGTERM, lambda *_: None)  # somebody else's, such as that of a worker
        with live.interrupts() as asked:
            signal.raise_signal(signal.SIGTERM)
            assert not asked()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_interrupts_are_asked_for_once_and_twice() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with live.interrupts() as asked:
            assert not asked()
            signal.raise_signal(signal.SIGINT)
            assert asked()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with live.interrupts() as asked:
            signal.raise_signal(signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_the_small_network_killed_again_and_again_ends_with_the_same_bits() -> None:
    options = "--limit 4000 --epochs 2 --test-limit 1000 --checkpoint-every 0"
    out = succeed(f"{options} --out quiet")
    assert "expected after 10: test error 3.46 %" in out
    for seed in (1, 2):
        killed_again_and_again(f"killed{seed}", 25, seed, 0.4, options)
        assert_same_end(Path(f"killed{seed}"), Path("quiet"))
    assert float(timeless(Path("quiet/metrics.csv"))[2][4]) < 15
    assert cs.solve(cs.load("quiet/trained.cir")).solved


# -- progress and usage ------------------------------------------------------------------------------------------------


def test_progress_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.cli.common.on_terminal", lambda quiet=False: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws nothing unless it sees a terminal
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    result = run(f"{QUICK} --out one --epochs 40")
    assert result.exit_code == 0
    for part in ("reading the netlist and the data", "/40", "examples/s", "cost 0.", "error ", "100%"):
        assert part in result.stderr, part
    assert len(result.stdout.splitlines()) == 43


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--netlist drn-xx", "error: no netlist 'drn-xx': give a file, or one of drn-1h, drn-2h"),
        (f"{QUICK} --recipe none.toml", "error: none.toml: cannot read the recipe: No such file or directory"),
        ("--netlist tiny.cir --data .", "error: .: no file train-images-idx3-ubyte.gz"),
        (
            "--netlist tiny.cir --data tiny.cir",
            "error: tiny.cir is a file: training.mnist takes a folder with a data set",
        ),
        (f"{QUICK} --algorithm magic", "Invalid value for '--algorithm'"),
        (f"{QUICK} --epochs 0", "Invalid value for '--epochs'"),
        (f"{QUICK} --conductance-rates 1,x", "'1,x' is not a number, or numbers with commas between them"),
        (f"{QUICK} --conductance-rates 1,2,3", "conductance_rates has 3 numbers, the netlist trains 2 conductances"),
        (f"{QUICK} --decay 2", "error: decay must lie above 0 and be at most 1, found 2"),
        (f"{QUICK} --g-min -1", "error: g_min must be a number >= 0, in siemens, found -1\n"),
        (f"{QUICK} --g-min nan", "error: g_min must be a number >= 0, in siemens, found nan\n"),
        (f"{QUICK} --g-max 0", "error: g_max must be above 0, in siemens, or inf for no bound, found 0\n"),
        (f"{QUICK} --g-max nan", "error: g_max must be above 0, in siemens, or inf for no bound, found nan\n"),
        (f"{QUICK} --g-min 2 --g-max 1", "error: g_min must be at most g_max, found 2 and 1\n"),
        (f"{QUICK} --g-max many", "Invalid value for '--g-max': 'many' is not a number; write digits with an optional"),
        (f"{QUICK} --batch-size 63", "batch size must be from 1 to the number of training samples, 62; found 63"),
        (f"{QUICK} --first-image 3", "the first sample of an epoch can be chosen with --order sequential only"),
        (f"{QUICK} --first-image 62 --order sequential", "the first sample must be from 0 to 61"),
        (f"{QUICK} --resume", "error: no such file: one/checkpoint.npz; there is no other one beside it"),
        (f"{QUICK} --init none.npz", "error: --init: no such file: none.npz"),
        (f"{QUICK} --init tiny.cir", "error: --init tiny.cir: not an .npz file that can be read: "),
        (f"{QUICK} --init data", "error: --init data: not an .npz file that can be read: "),
        (f"{QUICK} --save-arrays no/x.npz", "error: cannot write no/x.npz: there is no folder no"),
        (f"{QUICK} --out tiny.cir", "error: --out tiny.cir is not a folder; choose another name"),
        ("--unknown", "No such option"),
    ],
)
def test_wrong_usage_exits_2_and_leaves_nothing(arguments: str, message: str) -> None:
    result = run(arguments if "--out" in arguments else f"--out one {arguments}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not Path("one").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--netlist tiny.cir --backend reference --limit 9", "the data has 784 features per sample"),
        (f"{QUICK} --nudge 99", "the problem nudged by -99 S is not convex"),
    ],
)
def test_a_first_step_that_fails_leaves_nothing(arguments: str, message: str) -> None:
    result = run(f"--out one {arguments}")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("one").exists()


def test_a_missing_tensorboard_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = run(f"{QUICK} --out one --tensorboard")
    assert (result.exit_code, result.stdout) == (2, "")
    assert 'pip install "circuitsim[tensorboard]"' in result.stderr
    assert not Path("one").exists()


def test_learning_that_cannot_go_on_exits_2_and_can_be_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setattr("training.layered.LayeredLearner.train", failing_after(8, LearningError("g1: not finite")))
        result = run(f"{QUICK} --out one")
    assert (result.exit_code, result.stderr) == (2, "error: g1: not finite\n")
    succeed(f"{QUICK} --out one --resume")


def test_values_are_kept_where_learning_failed_and_not_where_the_machine_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of the last checkpoint."""
    monkeypatch.setattr("training.run.CHUNK_SECONDS", 0.0)
    monkeypatch.setattr("training.record.plot_curve", lambda *_: None)
    for error in (LearningError("g1: not finite"), BackendUnavailable("the GPU is gone")):
        with monkeypatch.context() as context:
            context.setattr("training.layered.LayeredLearner.train", failing_after(8, error))
            result = run(f"{QUICK} --out 'one run' --checkpoint-every 0")
        kept = Path("one run/last-values.npz")
        learned = isinstance(error, LearningError)
        said = f"the values of the last checkpoint are kept: --init '{kept}' starts from them\n" * learned
        assert (result.exit_code, result.stderr) == (2, f"{said}error: {error}\n")
        assert kept.exists() == learned
        if learned:
            succeed(f"{QUICK} --out two --steps 7 --save-arrays seven.npz")
            with np.load(kept) as found, np.load("seven.npz") as wanted:
                assert sorted(found.files) == ["bias1", "bias2", "g1", "g2"]
                assert all(np.array_equal(found[name], wanted[name]) for name in found.files)
            shutil.rmtree("one run")


@pytest.mark.parametrize("fails", [False, True])
def test_tensorboard_files_lie_in_the_folder_of_the_run(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    class Board:
        def __init__(self, folder: Path) -> None:
            told.append(str(folder))

        def add(self, row: Row) -> None:
            told.append(row.epoch)

        def close(self) -> None:
            told.append("closed")

    monkeypatch.setattr("training.metrics.need_tensorboard", lambda: None)
    monkeypatch.setattr("training.metrics.TensorBoard", Board)
    if fails:
        monkeypatch.setattr("training.layered.LayeredLearner.train", failing_after(1, LearningError("no more")))
    assert run(f"{QUICK} --out one --epochs 2 --tensorboard").exit_code == (2 if fails else 0)
    assert told == [str(Path("one/tensorboard")), *([] if fails else [1, 2]), "closed"]


def test_out_of_memory_exits_3(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("training.network.make_learner", fail)
    result = run(f"{QUICK} --out one")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        "error: not enough memory (Unable to allocate 9 TiB); use a smaller batch or a smaller netlist\n"
    )


def test_help_gives_examples_files_and_exit_codes() -> None:
    out = " ".join(succeed("--help").split())
    assert succeed("-h").split() == out.split()
    for part in ("Examples: python -m training.mnist", "Exit codes: 0 done; 2 bad input", "learning-curve.png"):
        assert part in out


def test_the_examples_in_the_help_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(mnist, "train", lambda program, ctx, options, read: seen.append(options))
    lines = [line.strip() for line in succeed("--help").splitlines()]
    examples = [line for line in lines if line.startswith("python -m training.mnist")]
    for example in examples:
        succeed(example.removeprefix("python -m training.mnist"))
    assert len(seen) == len(examples) >= 5


def test_choices_and_flags_are_those_of_the_recipe() -> None:
    options = {option.name: option for option in mnist.main.params}
    wanted = {**recipe._CHOICES, "backend": ("auto", *BACKENDS)}
    for name, choices in wanted.items():
        choice = options[name].type
        assert isinstance(choice, click.Choice)
        assert sorted(choice.choices) == sorted(choices)
    keys = set(recipe.Recipe.__dataclass_fields__) - {"netlist", "expected"}
    assert keys <= set(options)
    defaults = {"backend": "auto", "order": "shuffled", "first": 0, "checkpoint_every": 30.0, "netlist": "drn-xs"}
    assert {name: options[name].default for name in defaults} == defaults
    given = dict.fromkeys(set(options) - {"data"}) | {"g_min": 0.0, "decay": 0.5}
    assert Options.of(**given).changes == {"g_min": 0.0, "decay": 0.5}  # 0 is a value
