"""A folder that keeps the finished chunks of a sweep, so that an interrupted sweep can continue from them.

study.json records what the results depend on: the text of the netlist with all its includes, the values of its circuit,
analysis, settings, version. Each chunk is a sealed archive (sealed.py), written completely or not at all; a damaged one
is solved again. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim import __version__
from circuitsim.circuit import Circuit
from circuitsim.errors import At, SettingsError
from circuitsim.io.files import remove_torn, replacing
from circuitsim.io.sealed import Damaged, add_array, differences, load_sealed, save_sealed
from circuitsim.sweeping import Points

FACTS = "study.json"
_FORMAT = 3
_GROWING = ("runs", "chunks in all")  # facts that may be larger when a study is taken up: what is there stays


class Study:
    """A sweeping.Store: `sweep(circuit, "V1 0 5 0.1", study=Study("studies/first"))`.

    `remarks` says which chunks were damaged, `kept` how many were there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.remarks: list[str] = []
        self.kept = 0

    def begin(self, circuit: Circuit, facts: Mapping[str, Any], chunks: int) -> None:
        """Make the folder, or continue the study in it. SettingsError if that is another study, or not possible."""
        take_up(self.folder, {**circuit_facts(circuit), **facts, "chunks in all": chunks}, "--study")

    def load(self, k: int, points: int) -> Points | None:
        """Chunk k, when it is there and whole; one of fewer points, the last of fewer runs, is not."""
        path = self._path(k)
        try:
            header, arrays = load_sealed(path)
            if header.pop("chunk") != k:
                raise ValueError("it is another chunk")
            header["notes"] = tuple((None if at is None else At(*at), text) for at, text in header["notes"])
            header["messages"] = {int(row): text for row, text in header["messages"].items()}
            for name in ("ambiguous_others", "islands"):
                header[name] = tuple(tuple(x) if isinstance(x, list) else x for x in header[name])
            found = Points(**arrays, **header)  # type: ignore[arg-type]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror or error}") from None
        except (Damaged, ValueError, KeyError, TypeError) as error:
            self.remarks.append(f"{path} is damaged ({error}): its points were solved again")
            return None
        if found.statuses.size != points:
            return None
        self.kept += 1
        return found

    def save(self, k: int, found: Points) -> None:
        """Keep chunk k. SettingsError when it cannot be written."""
        values = {f.name: getattr(found, f.name) for f in fields(Points)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        header = {name: value for name, value in values.items() if name not in arrays}
        notes = [[None if at is None else [at.path, at.line, at.text], text] for at, text in found.notes]
        save_sealed(self._path(k), {**header, "notes": notes, "chunk": k}, arrays)

    def _path(self, k: int) -> Path:
        return self.folder / f"chunk-{k:06}.npz"


def check_studies(folder: Path, circuit: Circuit, option: str) -> None:
    """Refuse, by SettingsError, a folder of studies in which there is anything else, or one of another netlist."""
    try:
        inside = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingsError(f"{option} {folder}: {error.strerror or error}") from None
    for path in inside:
        taken = _is_taken(path)
        if (path / FACTS).is_file():
            _compare(path / FACTS, circuit_facts(circuit), option, part=True)
        elif taken:
            raise SettingsError(f"{option} {folder}: {path.name} in it is not a study; choose another name")


def circuit_facts(circuit: Circuit) -> dict[str, str]:
    """SHA-256 of the netlist's text, included files too, and of the values and structure that the circuit has.

    >>> from circuitsim import parse
    >>> one, two = (circuit_facts(parse(f"t\\nV1 a 0 1\\nR1 a 0 {r}")) for r in ("1k", "1000"))
    >>> one["netlist"] == two["netlist"], one["values"] == two["values"]
    (False, True)
    """
    text = hashlib.sha256()
    for _, data, _ in circuit.netlist.text.source.scans:
        text.update(hashlib.sha256(data).digest())
    for given in sorted(circuit.netlist.text.given.items()):
        text.update(repr(given).encode())
    return {"netlist": text.hexdigest(), "values": branches_digest(circuit)}


def branches_digest(circuit: Circuit) -> str:
    """SHA-256 of the branches of a circuit: which there are, between which nodes, and their values."""
    digest = hashlib.sha256()
    for part in (*circuit.groups.values(), *circuit.crossbars):
        for name, array in vars(part).items():
            if isinstance(array, np.ndarray):
                add_array(digest, f"{type(part).__name__} {name}", array)
    return digest.hexdigest()


def take_up(folder: Path, facts: Mapping[str, Any], option: str) -> None:
    """Make a folder for a study with these facts, which study.json keeps, or continue the study in it.

    That may be one of fewer runs. SettingsError, and nothing changes, if the folder holds another study or anything
    else; `option` is the one that named the folder.
    """
    path = folder / FACTS
    wanted = {"format": _FORMAT, "version": __version__, **facts}
    try:
        taken = _is_taken(folder)
        there = _compare(path, wanted, option) if path.exists() else {}
        if taken and not there:
            raise SettingsError(f"{option} {folder}: it exists and holds no study; choose another name")
        folder.mkdir(parents=True, exist_ok=True)
        remove_torn(folder)
        if there and not differences(there, wanted):
            return
    except OSError as error:
        raise SettingsError(f"{option} {folder}: {error.strerror or error}") from None
    with replacing(path, "w") as out:
        out.write(json.dumps(wanted, indent=1) + "\n")


def _is_taken(folder: Path) -> bool:
    """Whether the folder of a new study has any content, apart from a study.json being written, or left by a kill.

    Ask before looking for study.json: another process may begin the same study at this moment.
    """
    begun = f".{FACTS}.*.tmp"
    return folder.exists() and not (folder.is_dir() and all(path.match(begun) for path in folder.iterdir()))


def _compare(path: Path, wanted: Mapping[str, Any], option: str, part: bool = False) -> dict[str, Any]:
    """The facts of a file. SettingsError when its study is another one, or with `part` differs from what is wanted."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no facts")
        others = differences({key: found.get(key) for key in wanted} if part else _grown(found, wanted), wanted)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path} is damaged ({error}): the files beside it cannot be identified; choose another {option}"
        ) from None
    if others:
        raise SettingsError(
            f"{path.parent} holds another study: {', '.join(others)}; choose another {option}, or the netlist and "
            "options that it was begun with"
        )
    return found


def _grown(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """These facts, with more runs where more are wanted."""
    counts = [(found.get(name), wanted.get(name)) for name in _GROWING]
    more = all(type(old) is int and type(new) is int and old <= new for old, new in counts)
    return {**found, **{name: wanted[name] for name in _GROWING}} if more else dict(found)
