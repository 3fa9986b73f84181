"""Checkpoints: what was saved comes back to the last bit; what is damaged or of another run is refused."""

from __future__ import annotations

import io
import json
import os
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circuitsim.errors import SettingsError
from circuitsim.io import sealed
from training.checkpoint import NEWEST, PREVIOUS, Checkpoint, is_damaged, keep, load_checkpoint, without_steps
from training.learner import Tally
from training.metrics import Row

FINGERPRINT = {
    "netlist": "ab" * 32,
    "algorithm": "ep",
    "dtype": "float32",
    "batch_size": 4,
    "tol": None,
    "rates": [1, 2],
}
SAVED = Checkpoint(
    arrays={
        "RW1": np.array([[0.1, np.nextafter(0.2, 1)], [-0.0, 5e-324]]),
        "a name/with: odd [characters]": np.array([1.5, -2.5], np.float32),
        "steps": np.array(12345),
    },
    generator=json.dumps(np.random.default_rng(3).bit_generator.state),
    epoch=2,
    position=48,
    tally=Tally(48, 0.1 + 0.2, 3),
    rows=(Row(1, 100, 1 / 3, 12.5, 13.25, 0.3, 1.25), Row(2, 200, 0.2, 10.0, 11.0, 0.2, 2.5)),
    seconds=3.75,
    fingerprint=FINGERPRINT,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder with the newest checkpoint and the one before it."""
    keep(SAVED, tmp_path, rotate=False)
    keep(replace(SAVED, position=52), tmp_path, rotate=True)
    return tmp_path / NEWEST


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_checkpoint(path, FINGERPRINT)
    return str(caught.value)


def assert_same(found: Checkpoint, wanted: Checkpoint) -> None:
    """Equal to the last bit."""
    assert replace(found, arrays={}) == replace(wanted, arrays={})
    assert list(found.arrays) == list(wanted.arrays)
    for name, array in wanted.arrays.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes()


# -- there and back ----------------------------------------------------------------------------------------------------


def test_everything_comes_back(tmp_path: Path) -> None:
    SAVED.save(tmp_path / "there.npz")
    assert_same(load_checkpoint(tmp_path / "there.npz", FINGERPRINT), SAVED)
    assert files(tmp_path) == ["there.npz"]


def test_the_generator_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    generator = np.random.default_rng(9)
    generator.permutation(10)
    replace(SAVED, generator=json.dumps(generator.bit_generator.state)).save(tmp_path / "there.npz")
    other = np.random.default_rng(0)
    other.bit_generator.state = json.loads(load_checkpoint(tmp_path / "there.npz", FINGERPRINT).generator)
    assert other.permutation(1000).tolist() == generator.permutation(1000).tolist()


def test_numpy_and_zip_read_it_without_pickles(path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["array0"].tobytes() == SAVED.arrays["RW1"].tobytes()
        assert json.loads(str(arrays["header"]))["names"] == list(SAVED.arrays)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"sha256 ")


def test_the_same_state_gives_the_same_bytes(tmp_path: Path) -> None:
    SAVED.save(tmp_path / "one.npz")
    SAVED.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


# -- damage ------------------------------------------------------------------------------------------------------------


def test_every_flipped_byte_is_seen(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(SettingsError, match="damaged"):
            load_checkpoint(path, FINGERPRINT)


def damages(whole: bytes) -> dict[str, bytes]:
    one_array = io.BytesIO()
    np.savez(one_array, g1=np.ones(3))
    return {
        "empty": b"",
        "one byte": whole[:1],
        "cut within the digest": whole[:-1],
        "cut before the digest": whole[:-64],
        "cut in half": whole[: len(whole) // 2],
        "zeros at the end, as after a crash": whole[:-200] + bytes(200),
        "only zeros": bytes(len(whole)),
        "more at the end": whole + b"\0",
        "written twice": whole + whole,
        "text": b"not an archive\n" * 20,
        "another npz file": one_array.getvalue(),
    }


@pytest.mark.parametrize("kind", damages(bytes(1000)))
def test_damage_is_refused_and_the_previous_one_is_named(path: Path, kind: str) -> None:
    path.write_bytes(damages(path.read_bytes())[kind])
    previous = path.with_name(PREVIOUS)
    assert refusal(path) == (
        f"{path}: this checkpoint is damaged: its SHA-256 is wrong; the one before it is kept: continue from that with "
        f"`--resume {previous}`"
    )
    assert_same(load_checkpoint(previous, FINGERPRINT), SAVED)


def test_a_damaged_previous_one_names_the_newest(path: Path) -> None:
    previous = path.with_name(PREVIOUS)
    previous.write_bytes(previous.read_bytes()[:-5])
    assert f"the newest one is kept: continue from that with `--resume {path}`" in refusal(previous)
    assert load_checkpoint(path, FINGERPRINT).position == 52


def test_a_missing_one_names_the_previous(path: Path) -> None:
    path.unlink()
    assert refusal(path) == (
        f"no such file: {path}; the one before it is kept: continue from that with "
        f"`--resume {path.with_name(PREVIOUS)}`"
    )


@pytest.mark.parametrize("name", ["mv u", "it's $HOME", "plain"])
def test_a_suggested_command_is_one_for_a_shell(tmp_path: Path, path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path.with_name(PREVIOUS).rename(folder / PREVIOUS)
    command = refusal(folder / NEWEST).split("`")[1]
    assert shlex.split(command) == ["--resume", str(folder / PREVIOUS)]
    assert ("'" in command) is (name != "plain")


def test_without_another_one_there_is_only_a_new_start(path: Path) -> None:
    path.with_name(PREVIOUS).unlink()
    path.write_bytes(path.read_bytes()[:100])
    assert refusal(path).endswith("; there is no other one beside it: start again, with another --out")
    path.rename(path.with_name(".hidden"))  # as what a kill has left of a file
    assert refusal(path).endswith("; there is no other one beside it: start again, without --resume")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"cannot read {tmp_path}: Is a directory")


def resealed(path: Path, header: object) -> None:
    """A file whose digest is right, with another header."""
    with path.open("w+b") as out:
        np.savez(out, header=np.array(json.dumps(header)))
        with zipfile.ZipFile(out, "a") as archive:
            archive.comment = b"0" * 64
        digest = sealed._digest_of_body(out)
        out.seek(-64, os.SEEK_END)
        out.write(digest)


def test_other_formats_are_refused(path: Path) -> None:
    with np.load(path) as arrays:
        header = json.loads(str(arrays["header"]))
    resealed(path, {**header, "names": [], "format": 4})
    assert "a checkpoint of format 4; this version reads format 3" in refusal(path)
    resealed(path, {"format": 3})
    assert "no checkpoint of a training run: 'names'; the one before it is kept" in refusal(path)


def test_what_is_damaged_and_what_has_no_steps(path: Path) -> None:
    """What cannot be read may be whole; what is whole, and holds nothing that a run saves, is damaged too."""
    assert not is_damaged(path) and not without_steps(path)
    for epoch, position in ((0, 0), (0, 4), (1, 0)):
        replace(SAVED, epoch=epoch, position=position).save(path)
        assert without_steps(path) is (epoch + position == 0)
    header = {"format": 4, "names": [], "epoch": 0, "position": 0}
    resealed(path, header)  # of which nobody knows what it means
    assert not is_damaged(path) and not without_steps(path)
    resealed(path, {**header, "format": 3})
    assert not is_damaged(path) and without_steps(path)
    resealed(path, {"format": 3})
    assert is_damaged(path) and not without_steps(path)
    path.write_bytes(b"damaged")
    assert is_damaged(path) and not without_steps(path)
    path.unlink()
    assert not is_damaged(path) and not without_steps(path)


# -- of another run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "float64"}, "dtype float32 (now float64)"),
        ({"netlist": "cd" * 32}, "netlist abababababab... (now cdcdcdcdcdcd...)"),
        ({"tol": 1e-6}, "tol not set (now 1e-06)"),
        ({"rates": (1, 3)}, "rates [1, 2] (now [1, 3])"),
        ({"algorithm": "bp", "batch_size": 8}, "algorithm ep (now bp), batch_size 4 (now 8)"),
        ({"new": 1}, "new not set (now 1)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_checkpoint(path, {**FINGERPRINT, **change})
    assert str(caught.value) == (
        f"{path}: this checkpoint is of another run: {message}; give the settings that it was made with, or choose "
        "another --out"
    )


def test_tuples_and_lists_are_the_same_setting(path: Path) -> None:
    assert load_checkpoint(path, {**FINGERPRINT, "rates": (1, 2)}).epoch == 2


# -- keeping two -------------------------------------------------------------------------------------------------------


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    for position in range(4):
        keep(replace(SAVED, position=position), tmp_path, rotate=position > 0)
    assert files(tmp_path) == [PREVIOUS, NEWEST]
    assert [load_checkpoint(tmp_path / name, FINGERPRINT).position for name in (NEWEST, PREVIOUS)] == [3, 2]


def test_a_damaged_newest_one_never_replaces_the_previous(path: Path) -> None:
    path.write_bytes(b"damaged")
    keep(replace(SAVED, position=60), path.parent, rotate=False)
    assert [load_checkpoint(path.with_name(name), FINGERPRINT).position for name in (NEWEST, PREVIOUS)] == [60, 48]


STAGES = {
    "link": (Path, "hardlink_to"),
    "rename": (Path, "replace"),
    "write": (np, "savez"),
    "comment": (zipfile, "ZipFile"),
    "sync": (os, "fsync"),
}


def breaking(original: Callable[..., object], error: BaseException, after: bool) -> Callable[..., object]:
    """The function, which fails before or after its work."""

    def broken(*arguments: object, **options: object) -> object:
        if after:
            original(*arguments, **options)
        raise error

    return broken


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_whatever_stops_a_save_two_good_ones_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, after: bool, error: BaseException
) -> None:
    owner, name = STAGES[stage]
    with monkeypatch.context() as context:
        context.setattr(owner, name, breaking(getattr(owner, name), error, after))
        expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else SettingsError
        try:
            keep(replace(SAVED, position=56), path.parent, rotate=True)
        except expected as caught:
            assert isinstance(caught, KeyboardInterrupt) or "No space left on device" in str(caught)
        else:
            assert stage in ("link", "rename")  # a file system without links: a copy does
    assert load_checkpoint(path, FINGERPRINT).position in (52, 56)
    assert load_checkpoint(path.with_name(PREVIOUS), FINGERPRINT).position in (48, 52)
    assert files(path.parent) == [PREVIOUS, NEWEST]
    keep(replace(SAVED, position=64), path.parent, rotate=True)
    assert load_checkpoint(path, FINGERPRINT).position == 64


def test_a_newest_one_that_somebody_removed_is_no_obstacle(path: Path) -> None:
    path.unlink()
    keep(replace(SAVED, position=60), path.parent, rotate=True)
    assert [load_checkpoint(path.with_name(name), FINGERPRINT).position for name in (NEWEST, PREVIOUS)] == [60, 48]


def test_a_file_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no folder"):
        SAVED.save(tmp_path / "nowhere" / "checkpoint.npz")
