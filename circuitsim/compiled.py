"""Numba functions cached on disk, so that they are compiled once per machine; small inputs are left to Python."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property, update_wrapper
from pathlib import Path
from types import FunctionType
from typing import Any
from uuid import uuid4

import numpy as np

SMALL = 250  # array elements: Python takes milliseconds for them, loading Numba takes the better part of a second


class Kernel:
    """A function that Numba compiles when it is first called with more than `small` array elements in all.

    Only the sizes decide, so that the same call always gives the same bits; but what computes with whole numbers alone
    takes more than SMALL elements to Numba where that is loaded. Kernels that it calls are compiled, or run by Python,
    together with it. Numba is not imported before the first compilation.
    """

    def __init__(self, function: FunctionType, small: int | None, whole: bool, options: dict[str, Any]) -> None:
        self.function, self.small, self.whole, self.options = function, small, whole, options
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        small = SMALL if self.small is None or (self.whole and "numba" in sys.modules) else self.small
        if sum(a.size for a in arguments if isinstance(a, np.ndarray)) > small:
            return self.compiled(*arguments)
        with np.errstate(all="ignore"):  # compiled code does not warn either
            return self.plain(*arguments)

    @cached_property
    def plain(self) -> FunctionType:
        """The function, with the kernels that it calls, for Python."""
        return self._linked("plain")

    @cached_property
    def compiled(self) -> Any:
        """numba.njit(cache=True, nogil=True, ...), safe if several processes compile at once or one is killed doing so.

        Without the interpreter's lock other threads keep running, among them the one that ends a program
        (io/commands.py).

        Numba numbers the files of a function's signatures and writes its index before them. Two processes that compile
        different signatures may then take the same number, and a process that is killed in between leaves an index
        that points to an older file: machine code of one signature runs on arrays of another. Here every file has its
        own name: at worst an entry is lost from the index, and compiled again. A kernel is also compiled again when the
        file of a kernel that it calls has changed.
        """
        from numba import njit

        dispatcher = njit(cache=True, nogil=True, **self.options)(self._linked("compiled"))
        cache = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
        if cache is not None:
            cache._data_name = lambda number: (
                cache._data_name_pattern.format(number=number)[:-4] + f".{uuid4().hex}.nbc"
            )
            others = sorted(self.files - {self.function.__code__.co_filename})
            cache._source_stamp = (cache._source_stamp, *((s.st_mtime, s.st_size) for s in map(os.stat, others)))
        return dispatcher

    @property
    def files(self) -> set[str]:
        """The source files of the function and of the kernels that it calls."""
        f = self.function
        called = [x for name, x in f.__globals__.items() if name in f.__code__.co_names and isinstance(x, Kernel)]
        return {f.__code__.co_filename}.union(*(kernel.files for kernel in called if kernel is not self))

    def _linked(self, form: str) -> FunctionType:
        """A copy of the function that calls this form of other kernels."""
        f = self.function
        names = {
            name: getattr(value, form) if isinstance(value, Kernel) else value
            for name, value in f.__globals__.items()
            if name in f.__code__.co_names or name.startswith("__")
        }
        copy = FunctionType(f.__code__, names, f.__name__, f.__defaults__, f.__closure__)
        copy.__qualname__, copy.__module__ = f.__qualname__, f.__module__
        return copy


def jit(small: int | None = None, whole: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """A kernel: numba.njit with these options, or Python up to `small` elements (default: SMALL).

    whole: it computes with whole numbers alone, so that both forms give the same.
    """

    def decorate(function: Callable[..., Any]) -> Kernel:
        assert isinstance(function, FunctionType)
        return Kernel(function, small, whole, options)

    return decorate


def on_disk(kernel: Kernel, *arguments: Any) -> bool:
    """Whether the machine code of a kernel for arguments of these types is on disk already."""
    from numba import typeof

    function = kernel.compiled
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
