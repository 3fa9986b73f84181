"""A stand-in for a GPU on which blocks can wait for each other: kernels compiled as C++, their threads as fibers."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from devices import COMPILER, NEEDS_COMPILERS, NumpyDevice, missing

from circuitsim.backends.device import Program

FIBERS = Path(__file__).with_name("fibers.h")
_MOST_ARGUMENTS = 24


class TogetherDevice(NumpyDevice):
    """Few small multiprocessors, so that small networks are spread over several."""

    name = "a stand-in of several blocks"

    def __init__(
        self, folder: Path, multiprocessors: int = 3, shared_bytes: int = 100_000, optimise: str = "-O0"
    ) -> None:
        if shutil.which(COMPILER) is None:
            missing(f"no {COMPILER}", NEEDS_COMPILERS)
        super().__init__()
        self.folder, self.multiprocessors, self.shared_bytes = folder, multiprocessors, shared_bytes
        self.optimise = optimise
        self.launches: list[tuple[Program, int, int]] = []  # blocks, bytes of shared memory
        self.arguments: tuple[Any, ...] = ()  # of the last one

    def make_ready(self, program: Program) -> None:
        self._library(program)

    def launch_together(self, program: Program, blocks: int, threads: int, shared_bytes: int, *arguments: Any) -> None:
        assert 0 < blocks <= self.multiprocessors and shared_bytes <= self.shared_bytes
        for argument in arguments:
            assert isinstance(argument, int) or argument.flags.c_contiguous
        self.launches.append((program, blocks, shared_bytes))
        self.arguments = arguments
        library = self._library(program)
        words = [x if isinstance(x, int) else x.ctypes.data for x in arguments]
        packed = (ctypes.c_longlong * _MOST_ARGUMENTS)(*words)
        address = ctypes.cast(getattr(library, program.kernel), ctypes.c_void_p)
        sizes = [ctypes.c_longlong(x) for x in (blocks, threads, shared_bytes)]
        assert library.launch(address, *sizes, packed) == 0, "blocks wait for each other for ever"

    def _library(self, program: Program) -> ctypes.CDLL:
        name = hashlib.sha256(repr(program).encode()).hexdigest()[:16]
        library = self.folder / f"{name}.so"
        if not library.exists():
            source = self.folder / f"{name}.cpp"
            source.write_text(f'#include "{FIBERS}"\n{program.text}')
            flags = [
                "-std=c++17",
                self.optimise,
                "-ffp-contract=off",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-Wno-unknown-pragmas",
                "-Wno-psabi",
                "-U_FORTIFY_SOURCE",  # with it longjmp refuses to go from fiber to fiber
            ]
            command = [COMPILER, *flags, *program.options, "-shared", "-fPIC", str(source), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))


class Foreign(np.ndarray):
    """An array on a device: what NumPy computes from it and from a plain array is an error, as it is with CuPy's."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", None)
        if out is not None:
            options["out"] = tuple(_plain(x) for x in out)
        found = getattr(ufunc, method)(*(_plain(x) for x in inputs), **options)
        return out[0] if out is not None else _foreign(found)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        return _foreign(function(*_plain_all(arguments), **{k: _plain_all(x) for k, x in options.items()}))


def _plain(x: Any) -> Any:
    if isinstance(x, Foreign):
        return x.view(np.ndarray)
    assert not isinstance(x, np.ndarray), "a plain array among those of a device"
    return x


def _plain_all(x: Any) -> Any:
    return type(x)(_plain_all(y) for y in x) if isinstance(x, list | tuple) else _plain(x)


def _foreign(x: Any) -> Any:
    return x.view(Foreign) if isinstance(x, np.ndarray) else x


class ForeignDevice(NumpyDevice):
    """Arrays that do not mix with NumPy's; no multiprocessor has room for steps."""

    name = "a stand-in of foreign arrays"
    multiprocessors = shared_bytes = 1

    class xp:  # noqa: N801
        """The array module."""

        zeros = staticmethod(lambda *a, **o: np.zeros(*a, **o).view(Foreign))
        asarray = staticmethod(lambda x: np.array(x).view(Foreign))

    def to_host(self, array: np.ndarray) -> np.ndarray:
        assert isinstance(array, Foreign)
        return np.array(array)
