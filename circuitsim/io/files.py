"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from circuitsim.errors import SettingsError

_MOST_LINKS = 40  # from one to the next, as the system follows them
_BEGINNING = 48  # characters of a name that one for a time begins with: 255 bytes is what a file system may allow


def check_target(path: Path) -> None:
    """Raise SettingsError when `path` cannot be written, before any work is done for it."""
    try:
        stream = _is_open_already(path)
        taken = path.exists() and not path.is_file()
        folder = Path(os.path.realpath(path)).parent  # of a symbolic link: that of the file that it names
    except OSError as error:  # such as a name that is too long
        raise SettingsError(f"cannot write {path}: {error.strerror or error}; choose another name") from None
    if stream:
        raise SettingsError(
            f"cannot write {path}: it is what a program has open, not a file of its own; choose the name of a file, or "
            "print the result and redirect it"
        )
    if taken:
        raise SettingsError(f"cannot write {path}: it exists and is not a regular file; choose another name")
    if not folder.is_dir():
        named = folder if path.is_symlink() else path.parent
        raise SettingsError(f"cannot write {path}: there is no folder {named}; make it first")
    if not os.access(folder, os.W_OK):
        raise SettingsError(f"cannot write {path}: its folder is not writable; choose another one")


def _is_open_already(path: Path) -> bool:
    """Whether a name is one of those for what a process has open, /dev/stdout or /proc/self/fd/3, or a link to one.

    The system resolves these to the file behind them, which somebody else is writing: it must not be replaced. OSError
    for links that lead nowhere.
    """
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if folder == "/dev/fd" or f"{folder}/".startswith("/proc/"):
            return True
        if not path.is_symlink():
            return False
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


@contextmanager
def replacing(path: Path, mode: str) -> Iterator[IO]:
    """Open a new file for writing ("w" or "wb") that takes the name `path` only when the block ends without error.

    Until then, and after an error or an interrupt, `path` is what it was before. SettingsError for what the system
    refuses (no such folder, no permission, disk full), and for what is no file of its own, as /dev/stdout.
    """
    check_target(path)
    final = path.resolve()  # of a symbolic link: the file that it names
    beginning = final.name[:_BEGINNING]
    temporary = final.with_name(f".{beginning}.{secrets.token_hex(4)}.{os.getpid()}.tmp")
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(final)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def remove_torn(folder: Path) -> None:
    """Remove what `replacing` left in a folder when killed; files of processes still running on this machine stay."""
    for path in folder.glob(".*.tmp"):
        pid = path.name.split(".")[-2]
        if pid.isascii() and pid.isdigit() and not _lives(int(pid)) and path.is_file():
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    """Whether another process has this number."""
    if pid == os.getpid():
        return False
    if os.name != "posix":  # there os.kill ends it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        return True
    return True
