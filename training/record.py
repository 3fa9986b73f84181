"""The folder of a training run: whether it may be written to, its configuration, checkpoints and results."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim import Circuit, __version__
from circuitsim.errors import BackendUnavailable, SettingsError
from circuitsim.io.files import remove_torn, replacing
from circuitsim.io.inputs import read_array
from circuitsim.io.sealed import add_array
from circuitsim.io.study import branches_digest
from circuitsim.netlist.tokens import shown
from circuitsim.spice.export import export
from training.checkpoint import NEWEST, Checkpoint, Fingerprint, keep, load_checkpoint, without_steps
from training.learner import Samples
from training.metrics import Row, plot_curve, write_metrics

CONFIG, METRICS, TRAINED, CURVE = "config.json", "metrics.csv", "trained.cir", "learning-curve.png"
_WORD = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]*")  # of a command line, as an option has it


class Record:
    """What a run writes to its folder."""

    def __init__(self, folder: Path, resume: Path | None) -> None:
        """A new run in `folder`, or one that continues from a checkpoint.

        SettingsError rather than write over a run, unless that never came to save a step.
        """
        self.folder, self.resume = folder, resume
        if resume is None:
            found = [name for name in (NEWEST, CONFIG, METRICS, TRAINED) if (folder / name).exists()]
            begun = found in ([NEWEST], [NEWEST, CONFIG])  # a kill may have come between the two
            if found and not (begun and without_steps(folder / NEWEST)):
                raise SettingsError(
                    f"{folder} already holds a run ({', '.join(found)}); continue it (--resume), or choose another "
                    "--out"
                )
        if folder.exists() and not folder.is_dir():
            raise SettingsError(f"--out {folder} is not a folder; choose another name")
        self._newest_is_good = False
        self.has_steps = resume is not None  # whether a checkpoint holds steps

    def load(self, fingerprint: Fingerprint) -> Checkpoint | None:
        """The checkpoint to continue from; None for a new run. SettingsError if it is unusable. Makes the folder."""
        checkpoint = None if self.resume is None else load_checkpoint(self.resume, fingerprint)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"cannot make the folder {self.folder}: {error.strerror or error}") from None
        if self.resume is None:
            return None
        newest = self.folder / NEWEST
        # Going on from the previous one, the newest may be damaged: then it is written over, never kept instead.
        self._newest_is_good = newest.exists() and newest.samefile(self.resume)
        remove_torn(self.folder)
        return checkpoint

    def save(self, checkpoint: Checkpoint) -> None:
        """A checkpoint as the newest one; the one before is kept."""
        keep(checkpoint, self.folder, rotate=self._newest_is_good)
        self._newest_is_good = True
        self.has_steps = self.has_steps or checkpoint.epoch + checkpoint.position > 0

    def newest(self, fingerprint: Fingerprint) -> Checkpoint:
        """The checkpoint that was saved last, or gone on from."""
        newest = self.folder / NEWEST
        return load_checkpoint(newest if self._newest_is_good else self.resume or newest, fingerprint)

    def discard(self) -> None:
        """Take back what a run wrote before its first step; of a run that was gone on with, nothing."""
        if self.resume is None:
            for name in (NEWEST, CONFIG):
                (self.folder / name).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def write_config(self, config: Mapping[str, Any], command: str) -> None:
        """config.json: `config`, the versions of what runs, and every command line that worked on this run."""
        path = self.folder / CONFIG
        data = {**config, "versions": _versions(), "commands": [*_commands(path), command]}
        with replacing(path, "w") as out:
            out.write(json.dumps(data, indent=2) + "\n")

    def write_metrics(self, rows: Sequence[Row]) -> None:
        """metrics.csv with these rows."""
        write_metrics(rows, self.folder / METRICS)

    def write_results(
        self, circuit: Circuit, rows: Sequence[Row], remarks: Sequence[str], expected: Mapping[str, float], title: str
    ) -> str | None:
        """Metrics, trained netlist and learning curve; a sentence when the curve cannot be drawn."""
        self.write_metrics(rows)
        written = [text.encode("utf-8", "backslashreplace").decode() for text in remarks]  # names that are no UTF-8
        export(circuit, self.folder / TRAINED, written)
        try:
            plot_curve(rows, expected, title, self.folder / CURVE)
        except BackendUnavailable as error:
            return str(error)
        return None


# -- initial and final values as arrays --------------------------------------------------------------------------------


def with_initial_values(
    circuit: Circuit, trained: Sequence[tuple[str, bool]], path: Path
) -> tuple[Circuit, list[str], list[str]]:
    """The circuit with the trained elements' values that an .npz file holds, the names of those that it has not (they
    keep their values), and the keys of what is no element's.

    A value's key is the element's name, or its number among the trained conductances or sources, from 1, after `g` or
    `bias`: g1, bias1, or g1_initial. SettingsError when the file cannot be read, or holds none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name.removesuffix(".npy") for name in archive.namelist()}
    except FileNotFoundError:
        raise SettingsError(f"--init: no such file: {path}") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise SettingsError(f"--init {path}: not an .npz file that can be read: {error}") from None
    keys = {name: (name, key, f"{key}_initial") for name, key in array_keys(trained).items()}
    chosen = {name: next((key for key in tried if key in found), None) for name, tried in keys.items()}
    if not any(chosen.values()):
        raise SettingsError(
            f"--init {path}: no values for anything that learns; keys can be "
            f"{', '.join(key for tried in keys.values() for key in tried)}; it holds {', '.join(sorted(found))}"
        )
    known = {key for tried in keys.values() for key in tried}
    if wrong := sorted(key for key in found - known if re.fullmatch(r"(g|bias)\d+(_initial)?", key)):
        raise SettingsError(
            f"--init {path}: {wrong[0]} belongs to nothing that learns; keys can be {', '.join(sorted(known))}"
        )
    try:
        values = {name: read_array(f"{path}:{key}") for name, key in chosen.items() if key}
        left = [name for name, key in chosen.items() if not key]
        return circuit.with_values(values), left, sorted(found - known)
    except SettingsError as error:
        raise SettingsError(f"--init {path}: {error}") from None


def array_keys(trained: Iterable[tuple[str, bool]]) -> dict[str, str]:
    """Trained elements (name, is a conductance) -> g1, g2, ... and bias1, bias2, ...

    >>> array_keys([("RW1", True), ("Ib1", False), ("RW2", True)])
    {'RW1': 'g1', 'Ib1': 'bias1', 'RW2': 'g2'}
    """
    counts = {True: 0, False: 0}
    keys = {}
    for name, is_conductance in trained:
        counts[is_conductance] += 1
        keys[name] = f"{'g' if is_conductance else 'bias'}{counts[is_conductance]}"
    return keys


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """An .npz file of arrays and numbers."""
    with replacing(path, "wb") as out:
        np.savez(out, **arrays)


# -- what a run is made of ---------------------------------------------------------------------------------------------


def circuit_digest(circuit: Circuit) -> str:
    """SHA-256 of the circuit itself (nodes, roles, elements and values), not of titles and comments."""
    netlist = circuit.netlist
    names = [crossbar.name for crossbar in circuit.crossbars]
    roles: tuple[object, ...] = netlist.inputs, netlist.outputs, netlist.trained
    if netlist.differential:
        roles = (*roles, netlist.references)
    return hashlib.sha256(repr((netlist.nodes, names, roles, branches_digest(circuit))).encode()).hexdigest()


def samples_digest(samples: Samples) -> str:
    """SHA-256 of a data set."""
    digest = hashlib.sha256(repr(samples.scale).encode())
    add_array(digest, "features", samples.features)
    add_array(digest, "targets", samples.targets)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file. SettingsError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from None


def _versions() -> dict[str, str]:
    return {
        "circuitsim": __version__,
        **{name: version(name) for name in ("numpy", "numba", "scipy")},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
    }


def options_in(path: Path) -> list[str]:
    """The options in a config.json; none when there is none that can be read. SettingsError for characters that no
    option of a run has, as in a file from elsewhere."""
    found = _list(path, "options")
    odd = next((word for word in found if not _WORD.fullmatch(word)), None)
    if odd is not None:
        raise SettingsError(f"{path}: its options are not those of this program: {shown(odd)!a}")
    return found


def _commands(path: Path) -> list[str]:
    """The command lines in an earlier config.json; none when there is none that can be read."""
    return _list(path, "commands")


def _list(path: Path, key: str) -> list[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [str(line) for line in found] if isinstance(found, list) else []
