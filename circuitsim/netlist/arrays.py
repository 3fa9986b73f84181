"""Arrays in the netlist language: ranges in names, and values from `.npy`/`.npz` files."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import At, NetlistError

_RANGE = re.compile(r"\[(\d{1,15}):(\d{1,15})\]")
_RANGED = re.compile(r"(.*?)((?:\[\d{1,15}:\d{1,15}\])+)$", re.DOTALL)


def split_ranges(word: str) -> tuple[str, tuple[range, ...]]:
    """The base name and the ranges of a name; both ends belong to a range, which may run downwards.

    >>> split_ranges("RW[0:2][5:4]")
    ('RW', (range(0, 3), range(5, 3, -1)))
    >>> split_ranges("h[3]")
    ('h[3]', ())
    """
    match = _RANGED.match(word)
    if match is None:
        return word, ()
    ends = [(int(a), int(b)) for a, b in _RANGE.findall(match.group(2))]
    return match.group(1), tuple(range(a, b + 1) if a <= b else range(a, b - 1, -1) for a, b in ends)


def member_names(base: str, ranges: tuple[range, ...]) -> list[str]:
    """The names of an array's members, last index fastest.

    >>> member_names("y", (range(2), range(3, 5)))
    ['y[0][3]', 'y[0][4]', 'y[1][3]', 'y[1][4]']
    """
    names = [base]
    for indices in ranges:
        names = [f"{name}[{i}]" for name in names for i in indices]
    return names


def load_values(reference: str, base: Path, shape: tuple[int, ...], at: At, element: str) -> NDArray[np.float64]:
    """The array behind `@file.npy` or `@file.npz:key`, checked: real numbers, of this shape (or one number), no NaN.

    Files are looked up relative to `base`, the folder of the netlist that names them. Never unpickles.
    """
    name, colon, key = reference[1:].strip("\"'").partition(":")
    path = base / name
    where = f"{element}: values {reference}"
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                if key not in loaded.files:
                    keys = ", ".join(loaded.files)
                    raise NetlistError(f"{where}: no array '{key}' in {path}; it holds {keys}: write @{name}:KEY", at)
                values = loaded[key]
        elif colon:
            raise NetlistError(f"{where}: {path} is a .npy file and has no key; write @{name}", at)
        else:
            values = loaded
    except FileNotFoundError:
        raise NetlistError(f"{where}: no such file: {path}", at) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise NetlistError(f"{where}: {path} is not a readable .npy or .npz file of numbers ({reason})", at) from None
    if values.dtype.kind not in "fiub":
        raise NetlistError(f"{where}: {path} holds {values.dtype}, not real numbers", at)
    if values.shape not in (shape, ()):
        raise NetlistError(f"{where}: {path} has shape {values.shape}, but the element needs {shape}", at)
    values = values.astype(np.float64, copy=False)
    bad = ~np.isfinite(values)
    if bad.any():
        index = ",".join(str(i) for i in np.argwhere(bad)[0])
        raise NetlistError(f"{where}: {path} has {values[bad].flat[0]} at [{index}]; every value must be finite", at)
    return values
