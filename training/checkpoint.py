"""All that a training run needs to continue, in a file that is written, and read, completely or not at all.

A folder keeps the two newest checkpoints; at any moment at least one of them is complete.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from circuitsim.errors import SettingsError
from circuitsim.io.files import replacing
from circuitsim.io.sealed import Damaged, differences, load_sealed, save_sealed
from training.learner import Tally
from training.metrics import Row

NEWEST, PREVIOUS = "checkpoint.npz", "checkpoint-previous.npz"
_FORMAT = 3
_BLOCK = 1 << 20  # bytes

Fingerprint = Mapping[str, Any]  # setting -> what JSON can hold


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two steps."""

    arrays: Mapping[str, NDArray]  # of the learner
    generator: str  # state of numpy's bit generator before the running epoch's order was drawn, as JSON
    epoch: int  # epochs done
    position: int  # samples of the running epoch that were trained on
    tally: Tally  # of these
    rows: tuple[Row, ...]  # one for each epoch done
    seconds: float
    fingerprint: Fingerprint  # what is trained, and how: a run goes on only with the same

    def save(self, path: Path) -> None:
        """Write the file; until it is complete, `path` stays as it was. SettingsError if it cannot be written."""
        header = {
            "format": _FORMAT,
            "generator": self.generator,
            "epoch": self.epoch,
            "position": self.position,
            "tally": asdict(self.tally),
            "rows": [astuple(row) for row in self.rows],
            "seconds": self.seconds,
            "fingerprint": dict(self.fingerprint),
        }
        save_sealed(path, header, self.arrays)


def load_checkpoint(path: Path, fingerprint: Fingerprint) -> Checkpoint:
    """Read a checkpoint back.

    SettingsError when there is none, when the file is damaged in any way (the message names the other one that is
    kept), or when it is of another run: `fingerprint` differs.
    """
    try:
        header, arrays = load_sealed(path)
    except FileNotFoundError:
        raise SettingsError(f"no such file: {path}{_other_one(path)}") from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}{_other_one(path)}") from None
    except Damaged as error:
        raise SettingsError(f"{path}: this checkpoint is damaged: {error}{_other_one(path)}") from None
    except ValueError as error:
        raise SettingsError(f"{path}: no checkpoint of a training run: {error}{_other_one(path)}") from None
    if header["format"] != _FORMAT:
        raise SettingsError(
            f"{path}: a checkpoint of format {header['format']}; this version reads format {_FORMAT}: continue with "
            "the version that wrote it"
        )
    _check_fingerprint(path, header["fingerprint"], fingerprint)
    return Checkpoint(
        arrays,
        header["generator"],
        header["epoch"],
        header["position"],
        Tally(**header["tally"]),
        tuple(Row(*row) for row in header["rows"]),
        header["seconds"],
        header["fingerprint"],
    )


def is_damaged(path: Path) -> bool:
    """Whether this file can be read, but is not a complete checkpoint of any version."""
    try:
        load_sealed(path)
    except OSError:
        return False
    except (ValueError, Damaged):
        return True
    return False


def without_steps(path: Path) -> bool:
    """Whether this is a whole checkpoint, of any run, from before its first step."""
    try:
        header, _ = load_sealed(path)
    except (OSError, ValueError, Damaged):
        return False
    return header.get("format") == _FORMAT and (header["epoch"], header["position"]) == (0, 0)


def keep(checkpoint: Checkpoint, folder: Path, rotate: bool) -> None:
    """Save as the newest checkpoint in a folder. `rotate`: the previous newest one is good, and is also kept.

    That one gets its second name before it loses its first, so that a kill at any moment leaves a complete newest one.
    """
    newest = folder / NEWEST
    if rotate:
        _give_second_name(newest, folder / PREVIOUS)
    checkpoint.save(newest)


def _give_second_name(path: Path, second: Path) -> None:
    temporary = second.with_name(f".{second.name}.link.{os.getpid()}.tmp")  # a name that `replacing` never writes to
    try:
        temporary.unlink(missing_ok=True)
        temporary.hardlink_to(path)
        temporary.replace(second)
    except FileNotFoundError:  # somebody removed the newest one: nothing to keep
        return
    except OSError:  # a file system without links
        with replacing(second, "wb") as out, path.open("rb") as source:
            shutil.copyfileobj(source, out, _BLOCK)
    finally:
        temporary.unlink(missing_ok=True)  # it stays when both names were one file before


def _other_one(path: Path) -> str:
    """The end of a message: where to go on from instead."""
    other = path.with_name(NEWEST if path.name == PREVIOUS else PREVIOUS)
    if not other.is_file():
        how = "with another --out" if any(path.parent.glob("[!.]*")) else "without --resume"
        return f"; there is no other one beside it: start again, {how}"
    which = "the newest one" if other.name == NEWEST else "the one before it"
    return f"; {which} is kept: continue from that with `--resume {shlex.quote(str(other))}`"


def _check_fingerprint(path: Path, found: Fingerprint, wanted: Fingerprint) -> None:
    """SettingsError naming the settings that differ."""
    others = differences(found, wanted)
    if others:
        raise SettingsError(
            f"{path}: this checkpoint is of another run: {', '.join(others)}; give the settings that it was "
            "made with, or choose another --out"
        )
