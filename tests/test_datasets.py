"""Data sets in IDX form: what they hold, and every way in which a file can be damaged."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from circuitsim import SettingsError
from training.datasets import MNIST, load_idx_dataset, read_idx
from training.learner import Samples


def plain(shape: tuple[int, ...], data: bytes, start: bytes = b"\0\0\x08") -> bytes:
    return start + bytes([len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape) + data


def idx(shape: tuple[int, ...], data: bytes, start: bytes = b"\0\0\x08") -> bytes:
    return gzip.compress(plain(shape, data, start), mtime=0)


def write_set(folder: Path, train: int = 4, test: int = 2, size: int = 3, mark: str = "-", end: str = ".gz") -> None:
    for part, n in (("train", train), ("t10k", test)):
        pixels, labels = bytes(k % 256 for k in range(n * size * size)), bytes(k % 3 for k in range(n))
        pack = idx if end else plain
        (folder / f"{part}-images{mark}idx3-ubyte{end}").write_bytes(pack((n, size, size), pixels))
        (folder / f"{part}-labels{mark}idx1-ubyte{end}").write_bytes(pack((n,), labels))


@pytest.mark.parametrize("pack", [plain, idx])
def test_read_idx(tmp_path: Path, pack) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "images"
    path.write_bytes(pack((2, 2, 3), bytes(range(12))))
    np.testing.assert_array_equal(read_idx(path), np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    assert read_idx(path).flags.writeable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file of bytes: it starts with ''"),
        (b"no IDX", "not an IDX file of bytes: it starts with '6e 6f 20 49'"),
        (idx((2, 3), bytes(6))[:-12], "cut short"),
        (idx((2, 3), bytes(6))[:12], "cut short"),
        (idx((2, 3), bytes(6), start=b"\0\0\x0d"), "it starts with '00 00 0d 02'"),
        (idx((), b""), "it starts with '00 00 08 00'"),
        (gzip.compress(b"\0\0\x08\x03\0\0", mtime=0), "ends within its header"),
        (idx((2, 3), bytes(5)), r"holds 5 bytes of data, its header \[2, 3\] asks for 6"),
        (idx((2, 3), bytes(7)), r"holds 7 bytes of data, its header \[2, 3\] asks for 6"),
        (plain((2, 3), bytes(5)), r"holds 5 bytes of data, its header \[2, 3\] asks for 6"),
        (idx((2**32 - 1,) * 3, b"x"), "asks for 79228162458924105385300197375"),
        (plain((1,) * 65, b"x"), "not an array that fits in memory"),
        (plain((0,) + (2**32 - 1,) * 3, b""), r"not an array that fits in memory: its header gives \[0, 4294967295"),
        (idx((2,), b"ab") + b"trailing", "damaged: its gzip data is not whole: Not a gzipped file"),
        (idx((2,), b"ab")[:-8] + bytes(8), "damaged: its gzip data is not whole: CRC check failed.*fetch it again"),
    ],
)
def test_read_idx_refuses_what_is_not_whole(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_no_flipped_byte_passes_for_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = idx((10, 4, 4), rng.integers(0, 256, 160, np.uint8).tobytes())
    path = tmp_path / "images.gz"
    path.write_bytes(whole)
    wanted = read_idx(path)
    passed = []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(bytes(damaged))
        try:
            np.testing.assert_array_equal(read_idx(path), wanted)
            passed.append(place)
        except SettingsError as error:
            assert str(path) in str(error)
    assert passed == [4, 5, 6, 7, 8, 9]  # gzip's own time, level and system


@pytest.mark.parametrize("pack", [plain, idx])
def test_no_truncated_file_passes_for_data(tmp_path: Path, pack) -> None:  # type: ignore[no-untyped-def]
    whole = pack((3, 4, 4), np.random.default_rng(0).integers(0, 256, 48, np.uint8).tobytes())
    path = tmp_path / "images"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SettingsError) as caught:
            read_idx(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"images\.gz: cannot read it: No such file"):
        read_idx(tmp_path / "images.gz")
    with pytest.raises(SettingsError, match="cannot read it: Is a directory"):
        read_idx(tmp_path)
    with pytest.raises(SettingsError, match=r"x{300}: "):  # longer than a name may be
        load_idx_dataset(tmp_path / ("x" * 300))


@pytest.mark.parametrize(("mark", "end"), [("-", ".gz"), ("-", ""), (".", ".gz"), (".", "")])
def test_a_data_set_in_its_usual_spellings(tmp_path: Path, mark: str, end: str) -> None:
    write_set(tmp_path, mark=mark, end=end)
    train, test = load_idx_dataset(tmp_path)
    assert (train.features.shape, test.features.shape) == ((4, 9), (2, 9))
    np.testing.assert_array_equal(train.features[1], np.arange(9, 18))
    assert train.scale == test.scale == 1 / 255
    np.testing.assert_array_equal(train.targets, np.eye(3, dtype=np.float32)[[0, 1, 2, 0]])
    assert test.targets.shape == (2, 3)  # as many classes as the training labels have


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte.gz", None, r"no file train-images-idx3-ubyte\.gz"),
        ("t10k-labels-idx1-ubyte.gz", None, r"no file t10k-labels-idx1-ubyte\.gz"),
        ("train-labels-idx1-ubyte.gz", idx((3,), bytes(3)), "has 4 images, .* 3 labels"),
        ("train-labels-idx1-ubyte.gz", idx((5,), bytes(5)), "has 4 images, .* 5 labels"),
        ("train-images-idx3-ubyte.gz", idx((4, 9), bytes(36)), r"images must have 3 axes, its header gives \[4, 9\]"),
        ("train-labels-idx1-ubyte.gz", idx((4, 1), bytes(4)), r"labels must have 1 axes, its header gives \[4, 1\]"),
        ("t10k-images-idx3-ubyte.gz", idx((2, 2, 3), bytes(12)), "training images are 3 x 3, test images 2 x 3"),
        ("t10k-images-idx3-ubyte.gz", idx((2, 3, 3), bytes(18))[:-9], r"t10k-images-idx3-ubyte\.gz: the file is cut"),
    ],
)
def test_a_data_set_with_a_fault(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    write_set(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        load_idx_dataset(tmp_path)


def test_an_empty_data_set(tmp_path: Path) -> None:
    write_set(tmp_path, train=0)
    with pytest.raises(SettingsError, match=r"train-images-idx3-ubyte\.gz: has 0 images of 3 x 3: there is nothing"):
        load_idx_dataset(tmp_path)
    write_set(tmp_path, size=0)
    with pytest.raises(SettingsError, match=r"train-images-idx3-ubyte\.gz: has 4 images of 0 x 0: there is nothing"):
        load_idx_dataset(tmp_path)


def test_one_class_still_has_two_outputs(tmp_path: Path) -> None:
    write_set(tmp_path, train=1, test=1)
    train, test = load_idx_dataset(tmp_path)
    assert train.targets.tolist() == test.targets.tolist() == [[1.0, 0.0]]


def test_a_class_that_only_the_test_images_have(tmp_path: Path) -> None:
    write_set(tmp_path, train=2, test=3)
    train, test = load_idx_dataset(tmp_path)
    assert (train.targets.shape, test.targets.shape) == ((2, 3), (3, 3))


def test_mnist_is_whole() -> None:
    table = re.findall(r"\| (\S+-ubyte) \| ([0-9,]+) \| ([0-9a-f]{32}) \|", (MNIST / "README.md").read_text())
    assert len(table) == 4
    for name, size, digest in table:
        data = gzip.decompress((MNIST / f"{name}.gz").read_bytes())
        assert len(data) == int(size.replace(",", ""))
        assert hashlib.md5(data, usedforsecurity=False).hexdigest() == digest
    train, test = load_idx_dataset(MNIST)
    assert (train.features.shape, test.features.shape) == ((60_000, 784), (10_000, 784))
    assert train.targets.shape == (60_000, 10)
    assert train.targets[:5].argmax(axis=1).tolist() == [5, 0, 4, 1, 9]
    np.testing.assert_array_equal(train.targets.sum(axis=1), 1.0)


def test_inputs_fit_the_sources_or_say_why_not() -> None:
    samples = Samples(np.array([[0, 51], [255, 102]], np.uint8), 1 / 255, np.eye(2, dtype=np.float32))
    np.testing.assert_allclose(samples.inputs(slice(0, 2), 2), [[0, 0.2], [1, 0.4]])
    np.testing.assert_allclose(samples.inputs(np.array([1]), 4), [[1, 0.4, -1, -0.4]])
    with pytest.raises(SettingsError, match=r"2 features per sample: `.input` needs as many sources, or twice as many"):
        samples.inputs(slice(0, 2), 3)
    with pytest.raises(SettingsError, match=r"the netlist has 1$"):
        samples.inputs(slice(0, 2), 1)
    samples.check_outputs(2)
    with pytest.raises(SettingsError, match=r"2 targets per sample .* has 3 nodes"):
        samples.check_outputs(3)
    with pytest.raises(SettingsError, match="matrices with equally many rows"):
        Samples(samples.features, 1.0, samples.targets[:1])


def test_labels_that_stop_before_the_outputs(tmp_path: Path) -> None:
    """Three classes occur; a network with ten outputs learns them all the same."""
    write_set(tmp_path)
    train, test = load_idx_dataset(tmp_path)
    assert train.targets.shape[1] == 3
    wide = train.with_classes(10)
    assert wide.targets.shape == (4, 10) and test.with_classes(10).of_classes
    np.testing.assert_array_equal(wide.targets[:, :3], train.targets)
    assert not wide.targets[:, 3:].any()
    wide.check_outputs(10)
