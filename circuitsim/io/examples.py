"""The example netlists that come with circuitsim: where they are, and copies of them. Imports nothing heavy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circuitsim.errors import SettingsError
from circuitsim.io.files import check_target, replacing

_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED, _IN_THE_SOURCE_TREE = _PACKAGE / "examples", _PACKAGE.parent / "netlists"
FOLDER = _INSTALLED if _INSTALLED.is_dir() else _IN_THE_SOURCE_TREE
_DATA = (".npy", ".npz")


@dataclass(frozen=True)
class Example:
    """A netlist and the data files that it names, all in FOLDER."""

    name: str  # without `.cir`
    title: str
    files: tuple[Path, ...]  # the netlist first


def names() -> list[str]:
    """The names of all examples. SettingsError when they are not where they should be."""
    found = sorted(path.stem for path in FOLDER.glob("*.cir"))
    if not found:
        raise SettingsError(f"the example netlists are missing from {FOLDER}; install circuitsim again")
    return found


def find_example(name: str) -> Example:
    """An example by its name, with or without `.cir`. SettingsError for an unknown one.

    >>> example = find_example("drn_xs")
    >>> example.name, [path.name for path in example.files]
    ('drn_xs', ['drn_xs.cir', 'digit.npz'])
    """
    stem, known = name.removesuffix(".cir"), names()
    if stem not in known:
        near = difflib.get_close_matches(stem, known, 1)
        hint = f"did you mean {near[0]}?" if near else "circuitsim examples lists all"
        raise SettingsError(f"no example '{name}'; {hint}")
    path = FOLDER / f"{stem}.cir"
    text = path.read_text(encoding="utf-8")
    data = sorted(other for other in FOLDER.iterdir() if other.suffix in _DATA and other.name in text)
    return Example(stem, text.partition("\n")[0].strip(), (path, *data))


def copy_examples(examples: Sequence[Example], folder: Path, force: bool = False) -> list[Path]:
    """Copy examples with their data files into a folder, which is created if necessary; returns the copies' paths.

    Nothing is written if a different file of the same name exists, unless `force`; each file is written completely or
    not at all. SettingsError for that, and for what the system refuses.
    """
    copies = {folder / source.name: source for example in examples for source in example.files}
    wanted = {target: source for target, source in copies.items() if not _same(target, source)}
    there = [target.name for target in wanted if os.path.lexists(target)]
    if there and not force:
        raise SettingsError(
            f"{folder} has {', '.join(there)} already, with other contents; choose another folder with --to, or "
            "overwrite with --force"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot make the folder {folder}: {error.strerror or error}") from None
    for target in wanted:
        check_target(target)
    for target, source in wanted.items():
        with replacing(target, "wb") as out:
            out.write(source.read_bytes())
    return list(copies)


def _same(target: Path, source: Path) -> bool:
    try:
        return target.is_file() and target.read_bytes() == source.read_bytes()
    except OSError as error:  # a folder that may not be searched, a file that may not be read
        raise SettingsError(f"cannot read {target}: {error.strerror or error}") from None
