"""Arrays in the netlist language: ranges in names, and values from `.npy`/`.npz` files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import NetlistError
from circuitsim.netlist.tokens import shown

_RANGE = re.compile(r"\[([0-9]+):([0-9]+)\]")
_DIGITS = 15  # of an index


def split_ranges(word: str) -> tuple[str, tuple[range, ...]]:
    """The base name and the ranges of a name; both ends belong to a range, which may run downwards.

    >>> split_ranges("RW[0:2][5:4]")
    ('RW', (range(0, 3), range(5, 3, -1)))
    >>> split_ranges("h[3]")
    ('h[3]', ())
    """
    stop = len(word)
    ranges: list[range] = []
    while stop and word[stop - 1] == "]":
        start = word.rfind("[", 0, stop)
        match = _RANGE.fullmatch(word, max(start, 0), stop)
        if match is None:
            break
        if max(map(len, match.groups())) > _DIGITS:
            raise NetlistError(f"range {shown(match.group())}: an index has at most {_DIGITS} digits")
        a, b = (int(digits) for digits in match.groups())
        ranges.append(range(a, b + 1) if a <= b else range(a, b - 1, -1))
        stop = start
    return (word[:stop], tuple(ranges[::-1])) if ranges else (word, ())


def member_names(base: str, ranges: tuple[range, ...]) -> list[str]:
    """The names of an array's members, last index fastest.

    >>> member_names("y", (range(2), range(3, 5)))
    ['y[0][3]', 'y[0][4]', 'y[1][3]', 'y[1][4]']
    """
    names = [base]
    for indices in ranges:
        names = [f"{name}[{i}]" for name in names for i in indices]
    return names


def data_file(reference: str) -> tuple[str, str]:
    """File and key of `@file.npy` or `@file.npz:key`."""
    name, _, key = reference[1:].strip("\"'{}").partition(":")
    return name, key


def load_values(reference: str, base: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The array behind `@file.npy` or `@file.npz:key`, checked: real numbers, of this shape (or one number), no NaN.

    Files are looked up relative to `base`, the folder of the netlist that names them. Never unpickles. Raises
    NetlistError without a place.
    """
    name, key = data_file(reference)
    values = _load(base / name, name, key)
    found = f"'{shown(reference)}'"
    if values.dtype.kind not in "fiub":
        raise NetlistError(f"{found} holds {values.dtype}, not real numbers; save an array of floats")
    if values.shape not in (shape, ()):
        raise NetlistError(
            f"{found} has shape {values.shape}, but the element needs {shape}; change the ranges or the file"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float64, copy=False)
    bad = ~np.isfinite(values)
    if bad.any():
        index = ",".join(str(i) for i in np.argwhere(bad)[0])
        raise NetlistError(f"{found} has {values[bad].flat[0]} at [{index}]; every value must be finite")
    return values


def _load(path: Path, name: str, key: str) -> NDArray:
    """The array in a file, whatever it holds."""
    file = shown(str(path), 200)
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise NetlistError(f"no such file: {file}; check its name and folder") from None
    except OSError as error:
        raise NetlistError(f"cannot read {file}: {error.strerror}; it must be a .npy or .npz file") from None
    with stream:
        return _read(stream, file, name, key)


def _read(stream: BinaryIO, file: str, name: str, key: str) -> NDArray:
    magic = stream.read(6)
    stream.seek(0)
    if magic[:2] != b"PK" and magic != b"\x93NUMPY":
        raise NetlistError(f"{file} is neither a .npy nor a .npz file; save it with numpy.save or numpy.savez")
    keys: list[str] = []
    try:
        values = np.load(stream, allow_pickle=False)
        if isinstance(values, np.lib.npyio.NpzFile):
            with values as arrays:
                keys = arrays.files
                values = arrays[key] if key in keys else None
    except Exception as error:  # a damaged file makes numpy and zipfile raise almost anything
        if "Object arrays" in str(error):
            raise NetlistError(f"{file} holds Python objects, which are never loaded; save real numbers") from None
        raise NetlistError(f"{file} is damaged or cut short; save it again") from None
    if values is None:
        raise NetlistError(f"no array '{key}' in {file}; write @{name}:KEY with KEY one of {', '.join(keys)}")
    if key and not keys:
        raise NetlistError(f"{file} is a .npy file and has no '{key}'; write @{name}")
    return values
