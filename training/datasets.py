"""Data sets of images in IDX files, MNIST's format; MNIST itself is in data/mnist."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import SettingsError
from training.learner import Samples

MNIST = Path(__file__).parent / "data" / "mnist"
_GZIP = b"\x1f\x8b"
_BYTES = 0x08  # IDX's code for unsigned bytes


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An IDX file of bytes, gzipped or not: two zero bytes, type 8, number of axes, their lengths, the data.

    Raises SettingsError, naming the file, when it is missing, damaged, or holds something else.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
    except EOFError:
        raise SettingsError(f"{path}: the file is cut short: its gzip data does not end; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SettingsError(f"{path}: damaged: its gzip data is not whole: {error}; fetch it again") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot read it: {error.strerror or error}") from None
    if len(data) < 4 or data[:3] != bytes([0, 0, _BYTES]) or data[3] == 0:
        raise SettingsError(f"{path}: not an IDX file of bytes: it starts with '{data[:4].hex(' ')}', not '00 00 08'")
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise SettingsError(f"{path}: the file is cut short: it ends within its header; fetch it again")
    shape = [int(n) for n in np.frombuffer(data, ">u4", data[3], 4)]
    count = int(np.prod(shape, dtype=object))
    if len(data) - start != count:
        raise SettingsError(
            f"{path}: damaged: it holds {len(data) - start} bytes of data, its header {shape} asks for {count}; "
            "fetch it again"
        )
    try:
        return np.frombuffer(data, np.uint8, count, start).reshape(shape).copy()  # not read-only
    except ValueError:  # more axes than NumPy has, or no data and lengths beyond its integers
        raise SettingsError(f"{path}: not an array that fits in memory: its header gives {shape}") from None


def load_idx_dataset(folder: Path) -> tuple[Samples, Samples]:
    """Training and test samples of a folder with MNIST's four files (Fashion-MNIST's, KMNIST's ...).

    Features are grey levels (scale 1/255), targets one-hot over the classes 0 to the largest label. Raises
    SettingsError, naming the file.
    """
    (train_images, train_labels), (test_images, test_labels) = (_pair(folder, part) for part in ("train", "t10k"))
    if train_images.shape[1:] != test_images.shape[1:]:
        raise SettingsError(
            f"{folder}: training images are {_size(train_images)}, test images {_size(test_images)}; they must be alike"
        )
    classes = max(int(train_labels.max()), int(test_labels.max()), 1) + 1
    return _samples(train_images, train_labels, classes), _samples(test_images, test_labels, classes)


def _pair(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (n, h, w) and labels (n,) of a part, checked."""
    image_path, label_path = find_idx(folder, part, "images", 3), find_idx(folder, part, "labels", 1)
    images, labels = read_idx(image_path), read_idx(label_path)
    for path, array, axes, what in ((image_path, images, 3, "images"), (label_path, labels, 1, "labels")):
        if array.ndim != axes:
            raise SettingsError(f"{path}: {what} must have {axes} axes, its header gives {list(array.shape)}")
    if not images.size:
        raise SettingsError(
            f"{image_path}: has {len(images)} images of {_size(images)}: there is nothing to learn from"
        )
    if len(images) != len(labels):
        raise SettingsError(
            f"{image_path} has {len(images)} images, {label_path} {len(labels)} labels; the numbers must be equal"
        )
    return images, labels


def find_idx(folder: Path, part: str, what: str, axes: int) -> Path:
    """The file of a part (train, t10k) of a data set, in any of its usual spellings.

    SettingsError when it is missing or the folder cannot be read.
    """
    names = [f"{part}-{what}{mark}idx{axes}-ubyte{end}" for mark in ("-", ".") for end in ("", ".gz")]
    try:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    except OSError as error:  # a name too long, a folder that may not be searched
        raise SettingsError(f"{folder}: cannot read it: {error.strerror or error}") from None
    if folder.is_file():
        raise SettingsError(
            f"{folder} is a file: training.mnist takes a folder with a data set in MNIST's format; a table goes to "
            "training.fit"
        )
    raise SettingsError(
        f"{folder}: no file {names[1]} (or {names[0]}); a data set has images and labels, train and t10k"
    )


def idx_files(folder: Path) -> list[Path]:
    """The four files of a data set: images and labels to train with, and to test with. SettingsError as find_idx."""
    return [find_idx(folder, part, *what) for part in ("train", "t10k") for what in (("images", 3), ("labels", 1))]


def _samples(images: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> Samples:
    targets = np.zeros((len(labels), classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1.0
    return Samples(images.reshape(len(images), -1), 1 / 255, targets, labelled=True)


def _size(images: NDArray[np.uint8]) -> str:
    return " x ".join(str(n) for n in images.shape[1:])
