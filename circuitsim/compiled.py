"""Numba functions kept on disk, so that they are compiled once for a machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from numba import njit


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
