"""`python -m training.evaluate`: what any netlist with roles gives for samples, and the proof."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result

import circuitsim as cs
from training.datasets import MNIST, load_idx_dataset
from training.evaluate import evaluate, main
from training.recipe import find_recipe
from training.table import load_table

MIXER = """two inputs, two outputs
.param r=2k
Va a 0 0
Vb b 0 0
R1 a y {r}
R2 b z 2k
R3 y z 2k
R4 y 0 2k
R5 z 0 2k
D1 y 0 d
.model d D(is=1e-12)
.input Va Vb
.output y z
.train R1 R2
"""
TABLE = "a,b,target_y,target_z\n1,0,1,0\n0,1,0,1\n1,2,0,1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mixer.cir").write_text(MIXER)
    (tmp_path / "mixer.csv").write_text(TABLE)
    return tmp_path


def run(folder: Path, *options: str, netlist: str = "mixer.cir") -> Result:
    return CliRunner().invoke(main, [str(folder / netlist), *options])


def by_hand(params: dict[str, str] | None = None, gain: float = 2.0) -> np.ndarray:
    """Each sample's outputs, by a solve of its own."""
    rows = []
    for a, b in ((1, 0), (0, 1), (1, 2)):
        circuit = cs.parse(MIXER, params=params).with_values({"Va": gain * a, "Vb": gain * b})
        solution = cs.solve(circuit)
        rows.append([solution.voltage("y")[0], solution.voltage("z")[0]])
    return np.array(rows)


def written(path: Path) -> tuple[list[str], np.ndarray]:
    header, *rows = csv.reader(path.read_text().splitlines())
    return header, np.array(rows, float)


def test_outputs_are_those_of_each_sample_solved_alone(folder: Path) -> None:
    out = folder / "outputs.csv"
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "2", "--out", str(out))
    assert result.exit_code == 0, result.output
    header, rows = written(out)
    assert header == ["v(y)", "v(z)", "class", "label"] and b"\r" not in out.read_bytes()
    wanted = by_hand()
    np.testing.assert_allclose(rows[:, :2], wanted, rtol=1e-8)
    assert rows[:, 2].tolist() == wanted.argmax(axis=1).tolist() and rows[:, 3].tolist() == [0, 1, 1]
    cost = 0.5 * ((wanted - [[1, 0], [0, 1], [0, 1]]) ** 2).sum() / 3
    assert "solved for 3 samples at gain 2: SOLVED, relative KCL " in result.output
    assert f"; cost {cost:.3g} V^2, error 0.00 %" in result.output


def test_a_corner_and_a_limit(folder: Path) -> None:
    out = folder / "outputs.csv"
    more = ["--gain", "2", "--param", "r=500", "--limit", "2", "--out", str(out)]
    result = run(folder, "--data", str(folder / "mixer.csv"), *more)
    assert result.exit_code == 0 and "solved for 2 samples" in result.output
    np.testing.assert_allclose(written(out)[1][:, :2], by_hand({"r": "500"})[:2], rtol=1e-8)


def test_differences_are_outputs(folder: Path) -> None:
    (folder / "difference.cir").write_text(MIXER.replace(".output y z", ".output v(y,z) z"))
    (folder / "some.csv").write_text("a,b,target_z,other target,target_0\n".replace("target_z,other ", ""))
    (folder / "some.csv").write_text("a,b,target_y_z,target_z\n1,0,0.5,0\n0,1,-0.5,0.5\n1,2,0,0.5\n")
    out = folder / "outputs.csv"
    more = ["--gain", "2", "--out", str(out)]
    result = run(folder, "--data", str(folder / "some.csv"), *more, netlist="difference.cir")
    header, rows = written(out)
    assert header == ["v(y,z)", "v(z)"]
    wanted = by_hand() @ [[1, 0], [-1, 1]]
    np.testing.assert_allclose(rows, wanted, rtol=1e-7)
    cost = 0.5 * ((wanted - [[0.5, 0], [-0.5, 0.5], [0, 0.5]]) ** 2).sum() / 3
    assert f"; cost {cost:.3g} V^2" in result.output
    (folder / "some.csv").write_text('a,b,target z,"target v(y,z)"\n1,0,0.5,0\n')
    result = run(folder, "--data", str(folder / "some.csv"), *more, netlist="difference.cir")
    assert result.exit_code == 2
    assert "columns target z, target v(y,z) are in another order than the outputs of" in result.output
    (folder / "some.csv").write_text('a,b,"target v(z,y)",target z\n1,0,0.5,0\n')
    result = run(folder, "--data", str(folder / "some.csv"), *more, netlist="difference.cir")
    assert "columns target v(z,y), target z are in another order than the outputs of" in result.output


def test_a_table_without_targets_gives_outputs_only(folder: Path) -> None:
    (folder / "bare.csv").write_text("a,b\n1,0\n0,1\n1,2\n")
    out = folder / "outputs.csv"
    result = run(folder, "--data", str(folder / "bare.csv"), "--gain", "2", "--out", str(out))
    assert result.exit_code == 0 and "cost" not in result.output and "error" not in result.output
    header, rows = written(out)
    assert header == ["v(y)", "v(z)"]
    np.testing.assert_allclose(rows, by_hand(), rtol=1e-8)
    with pytest.raises(cs.SettingsError, match="it needs some whose names begin with 'target'"):
        load_table(folder / "bare.csv")


def test_targets_that_are_no_classes_have_a_cost_alone(folder: Path) -> None:
    (folder / "some.csv").write_text("a,b,target_y,target_z\n1,0,0.3,0.1\n0,1,0.2,0.1\n")
    out = folder / "outputs.csv"
    result = run(folder, "--data", str(folder / "some.csv"), "--gain", "2", "--out", str(out))
    assert "; cost " in result.output and "error" not in result.output
    assert written(out)[0] == ["v(y)", "v(z)"]


def test_labels_that_stop_early(folder: Path) -> None:
    text = MIXER.replace(".output y z", ".output y z a")
    (folder / "three.cir").write_text(text)
    (folder / "some.csv").write_text("a,b,label\n1,0,1\n0,1,1\n")
    out = folder / "outputs.csv"
    more = ["--gain", "2", "--out", str(out)]
    result = run(folder, "--data", str(folder / "some.csv"), *more, netlist="three.cir")
    assert result.exit_code == 0 and "error 50.00 %" in result.output  # 2 V at the input itself; then z
    assert "error 50.00 % (1 of 2 samples take a class that no label names)" in result.output
    (folder / "all.csv").write_text("a,b,label\n1,0,1\n0,1,1\n0,1,2\n0,1,0\n")
    for count in ([], ["--limit", "2"]):
        result = run(folder, "--data", str(folder / "all.csv"), "--gain", "2", *count, netlist="three.cir")
        assert result.exit_code == 0 and "no label" not in result.output
    assert written(out)[1][:, 3:].tolist() == [[2, 1], [1, 1]]


def test_one_output_has_a_cost(folder: Path) -> None:
    (folder / "one.cir").write_text(MIXER.replace(".output y z", ".output z"))
    (folder / "one.csv").write_text("a,b,target\n1,0,0.5\n0,1,0\n1,2,-1\n")
    result = run(folder, "--data", str(folder / "one.csv"), "--gain", "2", netlist="one.cir")
    cost = 0.5 * ((by_hand()[:, 1] - [0.5, 0, -1]) ** 2).mean()
    assert result.exit_code == 0 and f"; cost {cost:.3g} V^2" in result.output and "error" not in result.output


def test_a_gain_of_0_is_one(folder: Path) -> None:
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "0")
    assert result.exit_code == 0 and "at gain 0: SOLVED" in result.output and "; cost 0.5 V^2" in result.output


def test_the_gain_is_that_of_the_run(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"recipe": {"gain": 2.0}}))
    result = run(folder, "--data", str(folder / "mixer.csv"))
    assert result.exit_code == 0 and "at gain 2: SOLVED" in result.output


@pytest.mark.parametrize("config", [None, "{}", "[1]", '{"recipe": {"gain": "x"}}', "\xff"])
def test_without_a_gain_it_asks_for_one(folder: Path, config: str | None) -> None:
    if config is not None:
        (folder / "config.json").write_text(config, encoding="latin-1")
    result = run(folder, "--data", str(folder / "mixer.csv"))
    assert result.exit_code == 2 and "give the volts of an input of 1 by --gain" in result.output
    path = folder / "config.json"
    why = f"there is no {path};" if config is None else f"no gain: {path} is not the configuration of a run;"
    assert why in result.output


def test_a_gain_may_have_a_suffix(folder: Path) -> None:
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "500mV")
    assert result.exit_code == 0 and "at gain 0.5: SOLVED" in result.output
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "4k7")
    assert result.exit_code == 2 and "'4k7': ngspice would read it as 4k; write 4.7k" in result.output


@pytest.mark.parametrize(
    ("change", "table", "wanted"),
    [
        ((".output y z\n", ""), TABLE, "has no outputs; add `.output`"),
        ((".input Va Vb\n", ""), TABLE, "has no inputs; add `.input`"),
        ((".output y z\n", ".output y\n"), TABLE, "2 targets per sample (for classes: one per class)"),
        (("", ""), "a,b,c\n1,2,3\n", "the data has 3 features per sample"),
        (("", ""), "target_y,target_z\n1,2\n", "and others, the inputs"),
        (("", ""), "b,a\n1,2\n", "columns b, a are in another order than the inputs"),
        (("", ""), "a,b,target_z,target_y\n1,0,1,0\n", "are in another order than the outputs"),
    ],
)
def test_what_does_not_fit_is_refused(folder: Path, change: tuple[str, str], table: str, wanted: str) -> None:
    (folder / "mixer.cir").write_text(MIXER.replace(*change) if change[0] else MIXER)
    (folder / "mixer.csv").write_text(table)
    out = folder / "outputs.csv"
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "2", "--out", str(out))
    assert result.exit_code == 2 and wanted in result.output and "MNIST" not in result.output
    assert "Traceback" not in result.output and not out.exists()


@pytest.mark.parametrize("gain", ["nan", "inf"])
def test_a_gain_that_is_none(folder: Path, gain: str) -> None:
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", gain)
    assert result.exit_code == 2 and "gain" in result.output


def test_the_netlist_is_not_overwritten(folder: Path) -> None:
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "2", "--out", str(folder / "mixer.cir"))
    assert result.exit_code == 2 and (folder / "mixer.cir").read_text() == MIXER
    table = folder / "mixer.csv"
    for data in (table, folder / ".." / folder.name / table.name):
        result = run(folder, "--data", str(data), "--gain", "2", "--out", str(table))
        assert result.exit_code == 2 and table.read_text() == TABLE


def write_images(folder: Path) -> None:
    """Two to train with and three to test with, of two grey levels each."""
    folder.mkdir()
    for part, images, labels in (("train", [9, 9, 9, 9], [0, 1]), ("t10k", [255, 0, 0, 255, 51, 102], [0, 1, 1])):
        count = bytes([0, 0, 0, len(labels)])
        pixels = b"\0\0\x08\x03" + count + b"\0\0\0\x01\0\0\0\x02" + bytes(images)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(pixels)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + count + bytes(labels))


def test_the_test_images_of_a_folder(folder: Path) -> None:
    write_images(folder / "images")
    (folder / "same.csv").write_text("a,b,label\n1,0,0\n0,1,1\n0.2,0.4,1\n")
    of_images, of_table = folder / "images.csv", folder / "table.csv"
    for data, out in (("images", of_images), ("same.csv", of_table)):
        result = run(folder, "--data", str(folder / data), "--gain", "2", "--out", str(out))
        assert result.exit_code == 0 and "solved for 3 samples" in result.output, result.output
    np.testing.assert_allclose(written(of_images)[1], written(of_table)[1], rtol=1e-8)


@pytest.mark.parametrize("name", ["none.csv", 300 * "x" + ".csv"])
def test_data_that_cannot_be_read(folder: Path, name: str) -> None:
    result = run(folder, "--data", str(folder / name), "--gain", "2")
    assert result.exit_code == 2 and f"{name}: cannot read it: " in result.output


def test_other_files_that_are_read_are_not_overwritten(folder: Path) -> None:
    """Those of a data set, and the one that has the gain."""
    write_images(folder / "images")
    (folder / "config.json").write_text(json.dumps({"recipe": {"gain": 2.0}}))
    for path in (folder / "images" / "t10k-labels-idx1-ubyte", folder / "config.json"):
        before = path.read_bytes()
        result = run(folder, "--data", str(folder / "images"), "--out", str(path))
        assert result.exit_code == 2 and f"cannot write {path}: it is an input file" in result.output
        assert path.read_bytes() == before


def test_outputs_are_written_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(row: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = folder / "outputs.csv"
    out.write_text("before")
    monkeypatch.setattr("training.evaluate.csv.writer", lambda *_, **__: SimpleNamespace(writerow=full))
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "2", "--out", str(out))
    assert result.exit_code == 2 and f"cannot write {out}: No space left on device" in result.output
    assert out.read_text() == "before"


def test_progress_is_drawn_on_a_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitsim.cli.common.on_terminal", lambda quiet: not quiet)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws nothing unless it sees a terminal
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "2")
    assert result.exit_code == 0 and "solving" in result.stderr and "3/3" in result.stderr


def test_a_file_that_cannot_be_written_is_refused_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluate.evaluate", lambda *_: pytest.fail("solved in vain"))
    out = folder / "nowhere" / "outputs.csv"
    result = run(folder, "--data", str(folder / "mixer.csv"), "--gain", "2", "--out", str(out))
    assert result.exit_code == 2 and "nowhere" in result.output


def test_samples_that_are_not_solved(folder: Path) -> None:
    out = folder / "outputs.csv"
    more = ["--method", "bcd", "--max-sweeps", "1", "--gain", "2", "--out", str(out)]
    result = run(folder, "--data", str(folder / "mixer.csv"), *more)
    assert result.exit_code == 3 and "MAX_SWEEPS" in result.output and out.exists()


def test_digits() -> None:
    """The first test images, by the netlist as it is shipped: nothing learnt, and what the learner would read."""
    recipe = find_recipe("drn-xs")
    result = run(recipe.netlist.parent, "--limit", "20", "--gain", str(recipe.gain), netlist=recipe.netlist.name)
    assert result.exit_code == 0, result.output
    _, test = load_idx_dataset(MNIST)
    found = evaluate(cs.load(recipe.netlist), test.head(20), recipe.gain)
    assert found.of_classes and found.solution.solved and found.outputs.shape == (20, 10)
    assert found.text in result.output


def test_where_no_data_are_given_it_says_that_these_are_mnist(folder: Path) -> None:
    result = run(folder, "--gain", "2")
    assert result.exit_code == 2
    assert "the data has 10 targets per sample" in result.output
    assert "; without --data the samples are MNIST's test images" in result.output
