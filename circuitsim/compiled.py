"""Numba functions kept on disk, so that they are compiled once for a machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from numba import njit, typeof


def jit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """numba.njit(cache=True, ...), safe when several processes compile at once or one is killed meanwhile.

    Numba numbers the files of a function's signatures and writes its index before them. Two processes that compile
    different signatures may then take the same number, and a process that is killed in between leaves an index that
    points to an older file: machine code of one signature runs on arrays of another. Here every file has a name of its
    own: the worst that is left is an entry lost from the index, which is compiled again.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        dispatcher = njit(cache=True, **options)(function)
        cache = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if cache is not None:
            cache._data_name = lambda number: (
                cache._data_name_pattern.format(number=number)[:-4] + f".{uuid4().hex}.nbc"
            )
        return dispatcher

    return decorate


def on_disk(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether the machine code of a function for arguments of these types is on disk already."""
    cache = getattr(function, "_cache", None)
    try:
        key = cache._index_key(tuple(map(typeof, arguments)), function.targetctx.codegen())  # type: ignore
        name = cache._cache_file._load_index().get(key)  # type: ignore
        return name is not None and Path(cache._cache_file._data_path(name)).is_file()  # type: ignore
    except (AttributeError, OSError):  # compilation is switched off, or the cache has no place to be
        return False


def compile_apart(code: str, folder: Path) -> None:
    """Run a line of Python that compiles something in a process of its own, imports beginning in `folder`.

    What this process compiles itself is optimised together with what it has compiled before; the last bits of its sums
    may differ from those of the code on disk, which every later process loads.
    """
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=False, stdin=subprocess.DEVNULL)
