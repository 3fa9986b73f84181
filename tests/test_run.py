"""The training loop: nothing but learner, data, schedule and seed decides what comes out."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_learner import FINGERPRINT, SCHEDULE, FakeLearner, fake_rates, make_run, make_samples

import circuitsim as cs
from circuitsim.errors import BackendUnavailable, SettingsError
from training import run as module
from training.checkpoint import NEWEST, PREVIOUS, Checkpoint, load_checkpoint
from training.learner import LearningError, Tally
from training.live import _Live, progress
from training.metrics import COLUMNS, Row, TensorBoard, make_row, plot_curve, row_text, write_metrics
from training.record import CONFIG, TRAINED, Record, circuit_digest, file_digest, samples_digest
from training.run import Run, Schedule

HERE = Path(__file__).parent


def finish(run: Run) -> Checkpoint:
    """The state at the end."""
    for _ in run.advance():
        pass
    return run.checkpoint(FINGERPRINT)


def assert_same(found: Checkpoint, wanted: Checkpoint) -> None:
    """Equal to the last bit, but for the seconds."""
    for name, array in wanted.arrays.items():
        assert found.arrays[name].tobytes() == array.tobytes(), name
    assert timeless(found.rows) == timeless(wanted.rows)
    assert replace(found, arrays={}, rows=(), seconds=0) == replace(wanted, arrays={}, rows=(), seconds=0)


def timeless(rows: tuple[Row, ...] | list[Row]) -> list[Row]:
    return [replace(row, seconds=0.0) for row in rows]


@pytest.fixture(scope="module")
def wanted() -> Checkpoint:
    """The end of an undisturbed run."""
    return finish(make_run())


# -- schedule ----------------------------------------------------------------------------------------------------------


def test_shuffled_epochs_are_permutations_of_whole_batches() -> None:
    generator = np.random.Generator(np.random.PCG64(5))
    first, second = SCHEDULE.order(generator), SCHEDULE.order(generator)
    again = np.random.Generator(np.random.PCG64(5))
    assert first.tolist() == again.permutation(41)[:40].tolist()
    assert second.tolist() == again.permutation(41)[:40].tolist()
    assert len(set(first.tolist())) == 40
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(("first", "order"), [(0, [0, 1, 2, 3]), (3, [3, 4, 0, 1])])
def test_sequential_epochs_begin_anywhere_and_go_round(first: int, order: list[int]) -> None:
    schedule = Schedule(5, 2, 1, shuffled=False, first=first)
    assert schedule.order(np.random.default_rng(0)).tolist() == order


@pytest.mark.parametrize(("steps", "total"), [(None, 120), (1, 2), (20, 40), (33, 66), (1000, 120)])
def test_steps_end_a_run_early(steps: int | None, total: int) -> None:
    schedule = replace(SCHEDULE, steps=steps)
    assert schedule.total == total
    learner = FakeLearner()
    run = make_run(schedule, learner)
    finish(run)
    assert (run.done, sum(learner.calls) * 2) == (total, total)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, found 0"),
        ({"steps": 0}, "steps must be at least 1, found 0"),
        ({"batch_size": 42}, "batch size must be from 1 to the number of training samples, 41; found 42"),
        ({"batch_size": 0}, "found 0"),
        ({"first": -1}, "the first sample must be from 0 to 40, the last of the training set; found -1"),
        ({"first": 41}, "the first sample must be from 0 to 40, the last of the training set; found 41"),
    ],
)
def test_impossible_schedules_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(SCHEDULE, **change)


def test_a_batch_may_hold_all_samples() -> None:
    assert replace(SCHEDULE, batch_size=41).total == 3 * 41


# -- the loop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_classes", [True, False])
def test_the_bar_tells_errors_of_classes_only(monkeypatch: pytest.MonkeyPatch, of_classes: bool) -> None:
    monkeypatch.setattr("circuitsim.cli.common.on_terminal", lambda: True)
    run = make_run()
    if not of_classes:
        run.test = replace(run.test, targets=run.test.targets + np.linspace(0.0, 1.0, 2))
    assert run.of_classes == of_classes
    with progress(run) as shown:
        assert isinstance(shown, _Live)
        for _ in run.advance():
            shown.update()
            learnt = shown.bar.tasks[0].fields["learnt"]
            assert ("error" in learnt) == (of_classes and learnt != "starting")


@pytest.mark.parametrize("which", ["train", "test"])
def test_errors_are_counted_where_both_sets_are_of_classes_only(which: str) -> None:
    run = make_run()
    samples = getattr(run, which)
    setattr(run, which, replace(samples, targets=samples.targets + np.linspace(0.0, 1.0, 2)))
    finish(run)
    assert not run.of_classes
    assert len(run.rows) == 3 and np.isnan([(row.train_error, row.test_error) for row in run.rows]).all()


@pytest.mark.parametrize("steps", [1, 7, 25])
def test_a_loop_that_is_left_is_gone_on_with(steps: int, wanted: Checkpoint) -> None:
    """Each sample of an epoch once, and the same bits."""
    run = make_run()
    run._chunk_steps = 1
    for _ in run.advance():
        if run.done >= 2 * steps:
            break
    assert_same(finish(run), wanted)


def test_a_run_is_what_one_loop_over_the_steps_gives(wanted: Checkpoint) -> None:
    learner = FakeLearner()
    train, test = make_samples(41, 1), make_samples(601, 2)
    generator = np.random.Generator(np.random.PCG64(5))
    rows = []
    for epoch in range(3):
        tally = learner.train(train, generator.permutation(41)[:40], fake_rates(epoch))
        y = learner.outputs(test, slice(0, 601))
        wrong = int((y.argmax(axis=1) != test.targets.argmax(axis=1)).sum())
        cost = 0.5 * float(((y - test.targets) ** 2).sum())
        rows.append(make_row(epoch + 1, 40 * (epoch + 1), tally, Tally(601, cost, wrong), 0.0))
    assert {name: a.tobytes() for name, a in learner.arrays().items()} == {
        name: a.tobytes() for name, a in wanted.arrays.items()
    }
    assert timeless(wanted.rows) == rows
    assert (wanted.epoch, wanted.position, wanted.tally) == (3, 0, Tally())
    assert rows[-1].train_error < rows[0].train_error < 50
    assert 0 < rows[-1].test_error < rows[0].test_error


@pytest.mark.parametrize("seconds", [0.0, 3e-4, 1e9])
def test_lengths_of_chunks_do_not_matter(seconds: float, wanted: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SECONDS", seconds)
    learner = FakeLearner()
    assert_same(finish(make_run(learner=learner)), wanted)
    assert max(learner.calls) == {0.0: 1, 1e9: 20}.get(seconds, max(learner.calls))
    assert sum(learner.calls) == 60


def test_chunks_grow_to_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1/1024 s, by a clock that they alone move."""
    learner = FakeLearner()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: sum(learner.calls) / 1024))
    finish(make_run(replace(SCHEDULE, samples=1501, epochs=1), learner))
    assert int(module.CHUNK_SECONDS * 1024) == 204
    assert learner.calls == [1, 4, 16, 64, 204, 204, 204, 52, 1]  # the last step, alone
    learner.calls.clear()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: 0.0))  # a clock that is too coarse
    finish(make_run(learner=learner))
    assert learner.calls[:3] == [1, 4, 15]


def test_another_seed_gives_another_run(wanted: Checkpoint) -> None:
    other = finish(make_run(seed=6))
    assert other.arrays["W"].tobytes() != wanted.arrays["W"].tobytes()


def test_the_last_step_is_told_apart() -> None:
    run = make_run(replace(SCHEDULE, steps=7))
    for _ in run.advance():
        assert (run.last_step is None) == (run.done < 14)
    learner = FakeLearner()
    order = SCHEDULE.order(np.random.Generator(np.random.PCG64(5)))
    learner.train(make_samples(41, 1), order[:12], fake_rates(0))
    assert run.last_step == learner.train(make_samples(41, 1), order[12:14], fake_rates(0))


def test_a_run_that_ends_within_an_epoch_has_a_row_for_its_part() -> None:
    run = make_run(replace(SCHEDULE, steps=30))
    finish(run)
    assert [(row.epoch, row.examples) for row in run.results] == [(1, 40), (2, 60)]
    assert len(run.rows) == 1
    assert run.results[1] == run.partial


def test_an_error_of_the_learner_passes_through() -> None:
    learner = FakeLearner()
    run = Run(learner, make_samples(41, 1), make_samples(9, 2), SCHEDULE, lambda _: {"W": 1e200, "b": 1e200}, 0)
    with pytest.raises(LearningError, match="not finite"), np.errstate(all="ignore"):
        finish(run)


# -- interrupted -------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_any_of_its_instants(wanted: Checkpoint, tmp_path: Path) -> None:
    run = make_run()
    path = tmp_path / "checkpoint.npz"
    instants = 0
    run.checkpoint(FINGERPRINT).save(path)
    for row in run.advance():
        assert_same(go_on(path), wanted)
        run.checkpoint(FINGERPRINT).save(path)
        instants += 1
        assert row is None or row == run.rows[-1]
    assert_same(go_on(path), wanted)
    assert instants > 15


def go_on(path: Path, schedule: Schedule = SCHEDULE) -> Checkpoint:
    """A fresh process's run from a checkpoint to the end."""
    run = make_run(schedule)
    checkpoint = load_checkpoint(path, FINGERPRINT)
    run.restore(checkpoint)
    assert run.seconds == checkpoint.seconds
    end = finish(run)
    assert end.seconds >= checkpoint.seconds
    return end


@pytest.mark.parametrize("steps", [7, 20, 30])
def test_steps_can_be_raised(steps: int, wanted: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    finish(make_run(replace(SCHEDULE, steps=steps))).save(path)
    assert_same(go_on(path), wanted)


def test_epochs_can_be_raised(wanted: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    finish(make_run(replace(SCHEDULE, epochs=1))).save(path)
    assert_same(go_on(path), wanted)


def test_a_checkpoint_beyond_the_end_is_refused(wanted: Checkpoint) -> None:
    with pytest.raises(SettingsError, match="beyond the end of this run; raise --epochs or --steps"):
        make_run(replace(SCHEDULE, epochs=2)).restore(wanted)


def test_a_finished_run_has_nothing_left_to_do(wanted: Checkpoint) -> None:
    learner = FakeLearner()
    run = make_run(learner=learner)
    run.restore(wanted)
    assert_same(finish(run), wanted)
    assert (learner.calls, run.last_step) == ([], None)


def test_a_learner_of_another_shape_is_refused(wanted: Checkpoint) -> None:
    schedule = replace(SCHEDULE, batch_size=4)
    run = make_run(schedule, FakeLearner(batch_size=4))
    with pytest.raises(SettingsError, match=r"array 'the state' is float64 \(2, 2\), this network needs"):
        run.restore(replace(wanted, epoch=0))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_again_and_again_it_ends_with_the_same_bits(seed: int, wanted: Checkpoint, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "fake_learner.py"), str(tmp_path), "60", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=HERE.parent, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert int(done.stdout.split()[1]) >= 3
    assert_same(load_checkpoint(tmp_path / NEWEST, FINGERPRINT), wanted)
    write_metrics(wanted.rows, tmp_path / "wanted.csv")
    assert timeless_csv(tmp_path / "metrics.csv") == timeless_csv(tmp_path / "wanted.csv")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".tmp") == [
        PREVIOUS, NEWEST, "metrics.csv", "wanted.csv"
    ]  # fmt: skip


def timeless_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][-1] == "seconds"
    return [row[:-1] for row in rows]


# -- the folder --------------------------------------------------------------------------------------------------------


def test_a_folder_with_a_run_is_not_written_over(tmp_path: Path) -> None:
    record = Record(tmp_path / "runs" / "one", None)
    assert not (tmp_path / "runs").exists()
    assert record.load(FINGERPRINT) is None
    record.save(make_run().checkpoint(FINGERPRINT))
    Record(tmp_path / "runs" / "one", None)  # one without a step, which a kill left before its configuration
    record.save(replace(make_run().checkpoint(FINGERPRINT), position=2))
    with pytest.raises(SettingsError, match=r"already holds a run \(checkpoint.npz\); continue it \(--resume\)"):
        Record(tmp_path / "runs" / "one", None)
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file is not a folder; choose another name"):
        Record(tmp_path / "file", None)
    with pytest.raises(SettingsError, match=r"cannot make the folder .*file/below: Not a directory$"):
        Record(tmp_path / "file" / "below", None).load(FINGERPRINT)


def test_a_result_beside_a_checkpoint_without_steps_is_not_written_over(tmp_path: Path) -> None:
    make_run().checkpoint(FINGERPRINT).save(tmp_path / NEWEST)
    (tmp_path / TRAINED).write_text("what somebody put here")
    with pytest.raises(SettingsError, match=r"already holds a run \(checkpoint.npz, trained.cir\)"):
        Record(tmp_path, None)


def test_what_a_run_begun_anew_replaces_is_not_kept(tmp_path: Path) -> None:
    make_run().checkpoint({"rates": 1}).save(tmp_path / NEWEST)
    record = Record(tmp_path, None)
    assert record.load(FINGERPRINT) is None
    record.save(make_run().checkpoint(FINGERPRINT))
    assert [path.name for path in tmp_path.iterdir()] == [NEWEST]


def test_which_checkpoint_is_the_newest(tmp_path: Path) -> None:
    """Until the run that goes on has saved one, it is the one that it goes on from, by whatever path."""
    (tmp_path / "below").mkdir()
    begun = make_run().checkpoint(FINGERPRINT)
    record = Record(tmp_path, None)
    record.load(FINGERPRINT)
    for seconds in (1.0, 2.0):
        record.save(replace(begun, seconds=seconds))
        assert record.newest(FINGERPRINT).seconds == seconds and not record.has_steps
    record.save(replace(begun, epoch=1, seconds=3.0))
    assert record.has_steps

    again = Record(tmp_path, tmp_path / PREVIOUS)
    again.load(FINGERPRINT)
    assert again.newest(FINGERPRINT).seconds == 2.0 and again.has_steps
    again.save(replace(begun, seconds=4.0))
    assert again.newest(FINGERPRINT).seconds == 4.0 and again.has_steps

    again = Record(tmp_path, tmp_path / "below" / ".." / NEWEST)
    again.load(FINGERPRINT)
    again.save(replace(begun, seconds=5.0))
    assert load_checkpoint(tmp_path / PREVIOUS, FINGERPRINT).seconds == 4.0  # the same file: it is kept
    (tmp_path / NEWEST).unlink()
    checkpoint = Record(tmp_path, tmp_path / PREVIOUS).load(FINGERPRINT)
    assert checkpoint is not None and checkpoint.seconds == 4.0


@pytest.mark.parametrize("gone_on_with", [False, True])
def test_only_what_a_run_has_begun_is_taken_back(tmp_path: Path, gone_on_with: bool) -> None:
    for others in ([], ["mine.txt"]):
        folder = tmp_path / f"run{len(others)}"
        record = Record(folder, None)
        record.load(FINGERPRINT)
        record.save(make_run().checkpoint(FINGERPRINT))
        for name in others:
            (folder / name).touch()
        if gone_on_with:
            record = Record(folder, folder / NEWEST)
        record.discard()
        left = [*others, *([NEWEST] if gone_on_with else [])]
        assert folder.exists() == bool(left)
        assert sorted(path.name for path in tmp_path.glob(f"run{len(others)}/*")) == sorted(left)


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[]", b"{}", b'{"commands": null}', b'{"commands": "one"}', None])
def test_command_lines_that_cannot_be_read_are_left_behind(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / CONFIG).write_bytes(text)
    record = Record(tmp_path, tmp_path / NEWEST)
    record.write_config({"seed": 3}, "two")
    assert json.loads((tmp_path / CONFIG).read_text())["commands"] == ["two"]
    record.write_config({"seed": 3}, "three")
    found = json.loads((tmp_path / CONFIG).read_text())
    assert (found["seed"], found["commands"]) == (3, ["two", "three"])
    assert found["versions"].items() >= {"circuitsim": cs.__version__, "numpy": np.__version__}.items()
    assert found["versions"]["python"] == platform.python_version()


ROLES = """t
Va a 0 0
Vb b 0 0
RW[0:0][0:1] a[0:0] y[0:1] 1k
RQ[0:0][0:1] a[0:0] y[0:1] 3k
R1 a a[0] 1k
R2 b y[0] 1k
R3 y[1] 0 1k
.input Va Vb
.output y[0] y[1]
.train RW R1
"""


def test_what_makes_another_circuit() -> None:
    def digest(old: str = "", new: str = "") -> str:
        return circuit_digest(cs.parse(ROLES.replace(old, new) if old else ROLES))

    assert digest() == digest("t\n", "another title\n* and a remark\n")
    changes = [
        (" b ", " z "), ("RW", "RX"), ("RQ", "RX"), ("Va Vb", "Vb Va"), ("y[0] y[1]\n", "y[1] y[0]\n"),
        ("RW R1\n", "R1 RW\n"), ("R2 b y[0] 1k", "R2 b y[0] 2k"), ("y[0] y[1]\n", "y[0] v(y[1],y[0])\n"),
        ("y[0] y[1]\n", "y[0] v(y[1],b)\n"),
    ]  # fmt: skip
    assert len({digest(*change) for change in (("", ""), *changes)}) == 1 + len(changes)


def test_what_makes_other_samples() -> None:
    samples = make_samples(5, 1)
    others = [{"scale": 2.0}, {"features": samples.features + 1}, {"targets": 1 - samples.targets}]
    assert len({samples_digest(replace(samples, **change)) for change in ({}, *others)}) == 4
    assert samples_digest(make_samples(5, 1)) == samples_digest(samples)


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*nothing: No such file or directory$"):
        file_digest(tmp_path / "nothing")


def test_going_on_from_the_previous_one_keeps_it(tmp_path: Path) -> None:
    record = Record(tmp_path, None)
    record.load(FINGERPRINT)
    run = make_run()
    for _ in run.advance():
        record.save(run.checkpoint(FINGERPRINT))
    previous = (tmp_path / PREVIOUS).read_bytes()
    (tmp_path / NEWEST).write_bytes(b"damaged")
    (tmp_path / f".checkpoint.npz.c0ffee00.{10**30}.tmp").write_bytes(b"torn")  # of a process that is no more
    record = Record(tmp_path, tmp_path / PREVIOUS)
    checkpoint = record.load(FINGERPRINT)
    assert checkpoint is not None
    record.save(checkpoint)
    assert (tmp_path / PREVIOUS).read_bytes() == (tmp_path / NEWEST).read_bytes() == previous
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, NEWEST]
    record.save(replace(checkpoint, seconds=1e3))
    assert (tmp_path / PREVIOUS).read_bytes() == previous != (tmp_path / NEWEST).read_bytes()


# -- metrics -----------------------------------------------------------------------------------------------------------

ROWS = [Row(1, 100, 1 / 3, 12.5, 13.25, 0.3, 1.25), Row(2, 200, 0.2, 0.0, 11.0, 0.2, 2.5)]


def test_metrics_are_csv_with_these_columns(tmp_path: Path) -> None:
    assert COLUMNS == ("epoch", "examples", "train_cost", "train_error", "test_error", "test_cost", "seconds")
    row = make_row(1, 300, Tally(300, 100.0, 1), Tally(7, 3.5, 3), 12.34567)
    write_metrics([row], tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text() == (
        "epoch,examples,train_cost,train_error,test_error,test_cost,seconds\n1,300,0.333333,0.333333,42.8571,0.5,12.346\n"
    )


def test_a_row_for_people() -> None:
    assert row_text(ROWS[0], 10).split() == (
        "epoch 1/10 train cost 0.3333 train error 12.50 % test error 13.25 % 1.2 s".split()
    )


def test_the_learning_curve_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'circuitsim[plot]'")
    for rows in (ROWS, ROWS[:1]):
        plot_curve(rows, {"test": 3.46, "train": 2.94}, "a run", tmp_path / "curve.png")
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendUnavailable, match=r"no learning curve drawn: .*pip install 'circuitsim\[plot\]'"):
        plot_curve(ROWS, {}, "a run", tmp_path / "curve.png")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(BackendUnavailable, match=r'--tensorboard: .*pip install "circuitsim\[tensorboard\]"'):
        TensorBoard(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, *point: object) -> None:
            points.append(point)

        def flush(self) -> None:
            points.append(("flush",))

        close = flush

    fake = type(sys)("tensorboardX")
    monkeypatch.setattr(fake, "SummaryWriter", Writer, raising=False)
    monkeypatch.setitem(sys.modules, "tensorboardX", fake)
    board = TensorBoard(tmp_path)
    board.add(ROWS[1])
    board.close()
    _, examples, *figures, _ = astuple(ROWS[1])
    assert points[:4] == [(name, x, examples) for name, x in zip(COLUMNS[2:6], figures, strict=True)]
    assert points[4:] == [("flush",), ("flush",)]
    points.clear()
    board.add(replace(ROWS[0], train_error=float("nan"), test_error=float("nan")))  # targets that are of no classes
    assert points == [("train_cost", 1 / 3, 100), ("test_cost", 0.3, 100), ("flush",)]
