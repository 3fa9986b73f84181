"""Numbers in `.npy` and `.npz` files, which `@file.npy` and `@file.npz:key` name. Data only: never unpickles."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circuitsim.errors import NetlistError
from circuitsim.netlist.tokens import shown

Floats = NDArray[np.float64]


def data_file(reference: str) -> tuple[str, str]:
    """File and key of `@file.npy` or `@file.npz:key`."""
    name, _, key = reference[1:].partition(":")
    return name, key


def load_values(reference: str, base: Path) -> Floats:
    """The array behind a reference, read-only. Files are looked up relative to the folder `base`.

    Raises NetlistError without a place.
    """
    name, key = data_file(reference)
    values = read_numbers(base / name, name, key)
    values.flags.writeable = False
    return values


def check_shape(reference: str, values: Floats, shape: tuple[int, ...]) -> None:
    """Raise NetlistError, without a place, unless the values behind a reference are of this shape, or one number."""
    if values.shape not in (shape, ()):
        raise NetlistError(
            f"'{shown(reference)}' has shape {values.shape}, but the element needs {shape}; change the ranges or the "
            "file"
        )


def read_numbers(path: Path, name: str, key: str) -> Floats:
    """The array in a file, or at a key ("": none) of a `.npz` file: real, finite numbers.

    `name` is what the user calls the file. Raises NetlistError without a place.
    """
    if not name:
        raise NetlistError("'@' without the name of a file; write @file.npy or @file.npz:KEY, without quotes or blanks")
    return _real(_load(path, name, key), f"'@{shown(f'{name}:{key}' if key else name)}'")


def given_values(name: str, array: ArrayLike) -> Floats:
    """A copy, read-only, of an array that stands for the file of `@name`. NetlistError unless it holds real, finite
    numbers."""
    try:
        if np.ma.is_masked(array):
            raise ValueError("some are masked")
        values = np.array(_real(np.asarray(array), f"'@{shown(str(name))}'"), order="C")
    except ValueError as error:
        raise NetlistError(f"the array for '@{shown(str(name))}' must hold real numbers: {error}") from None
    values.flags.writeable = False
    return values


def _real(values: NDArray, found: str) -> Floats:
    """The values as float64; `found` is what messages call them."""
    if values.dtype.kind not in "fiub":
        raise NetlistError(f"{found} holds {values.dtype}, not real numbers; save an array of floats")
    with np.errstate(over="ignore"):
        floats: Floats = values.astype(np.float64, copy=False)
    bad = ~np.isfinite(floats)
    if bad.any():
        index = ",".join(str(i) for i in np.argwhere(bad)[0])
        raise NetlistError(f"{found} has {floats[bad].flat[0]} at [{index}]; every value must be finite")
    return floats


def _load(path: Path, name: str, key: str) -> NDArray:
    """The array in a file, whatever it holds."""
    file = shown(str(path), 200)
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise NetlistError(f"no such file: {file}; check its name and folder") from None
    except (OSError, ValueError) as error:  # ValueError: a name that holds a 0
        reason = error.strerror if isinstance(error, OSError) else error
        raise NetlistError(f"cannot read {file}: {reason}; it must be a .npy or .npz file") from None
    with stream:
        return _read(stream, file, name, key)


def _read(stream: BinaryIO, file: str, name: str, key: str) -> NDArray:
    magic = stream.read(6)
    stream.seek(0)
    if magic[:2] != b"PK" and magic != b"\x93NUMPY":
        how = "numpy.save or numpy.savez"
        if Path(name).suffix not in (".npy", ".npz"):
            how += f"; of a text file np.save('x.npy', np.loadtxt('{file}', delimiter=',')) makes one"
        raise NetlistError(f"{file} is neither a .npy nor a .npz file; save it with {how}")
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
    if values is None and not key:
        raise NetlistError(f"{file} holds {', '.join(keys)}; write @{name}:KEY with one of them as KEY")
    if values is None:
        raise NetlistError(f"no array '{key}' in {file}; write @{name}:KEY with KEY one of {', '.join(keys)}")
    if isinstance(values, bytes):  # of a file in the archive that is no .npy file
        raise NetlistError(f"'{key}' in {file} is not an array; save it with numpy.savez")
    if key and not keys:
        raise NetlistError(f"{file} is a .npy file and has no '{key}'; write @{name}")
    return values
