"""Archives of arrays in which any damage is detected: .npz files without pickles, which numpy reads.

The comment of the zip archive ends with the SHA-256 of every byte before it. A file is written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import CircuitError
from circuitsim.io.files import replacing

_DIGEST = 64  # hexadecimal digits of a SHA-256, at the end of the file
_SHOWN_DIGEST = 12  # of them in a message
_SHOWN = 200  # characters of another fact
_BLOCK = 1 << 20  # bytes


class Damaged(CircuitError):
    """The file is not what was written: its digest is wrong."""


def save_sealed(path: Path, header: Mapping[str, Any], arrays: Mapping[str, NDArray]) -> None:
    """Write what JSON can hold, and arrays by name. Until all is written `path` is what it was. SettingsError."""
    text = json.dumps({**header, "names": list(arrays)})
    named: dict[str, Any] = {f"array{k}": array for k, array in enumerate(arrays.values())}
    with replacing(path, "w+b") as out:
        np.savez(out, header=np.array(text), **named)
        with zipfile.ZipFile(out, "a") as archive:
            archive.comment = b"sha256 " + b"0" * _DIGEST
        digest = _digest_of_body(out)
        out.seek(-_DIGEST, os.SEEK_END)
        out.write(digest)


def load_sealed(path: Path) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Read both back. Raises OSError if the file cannot be read, Damaged, ValueError if it is another kind of file."""
    try:
        with path.open("rb") as file:
            digest = _digest_of_body(file)
            if file.read() != digest:
                raise Damaged("its SHA-256 is wrong")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
                return header, {name: archive[f"array{k}"] for k, name in enumerate(header.pop("names"))}
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(str(error)) from None


def add_array(digest: Any, name: str, array: NDArray) -> None:
    """Name, type, shape and bytes of an array, for a hash."""
    digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array))


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between two sets of facts that JSON can hold: each `name old (now new)`.

    >>> differences({"seed": 1, "tol": None}, {"seed": 2, "tol": None})
    ['seed 1 (now 2)']
    """
    wanted = json.loads(json.dumps(dict(wanted)))
    names = [*wanted, *(name for name in found if name not in wanted)]
    return [
        f"{name} {_shown(found.get(name))} (now {_shown(wanted.get(name))})"
        for name in names
        if found.get(name) != wanted.get(name)
    ]


def _shown(value: Any) -> str:
    """A fact in a message; of a digest, and of what is long, its beginning."""
    if isinstance(value, str) and len(value) == _DIGEST:
        return value[:_SHOWN_DIGEST] + "..."
    text = "not set" if value is None else str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."


def _digest_of_body(file: IO[bytes]) -> bytes:
    """SHA-256, in hexadecimal, of all but the last 64 bytes; the file stands before these. An empty one has no body."""
    left = max(file.seek(0, os.SEEK_END) - _DIGEST, 0)
    file.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (block := file.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest().encode()
