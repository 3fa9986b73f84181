"""The interface of a GPU, which holds arrays and runs kernels of .cu files: cuda.py uses CuPy, the tests stand-ins."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

Array = Any  # of the device's array module

_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """A kernel that is compiled for its sizes and types."""

    source: Path
    options: tuple[str, ...]  # of the compiler
    kernel: str

    @property
    def text(self) -> str:
        """The source, with what it includes: CuPy knows what it has compiled by the text that it was given."""
        return _with_included(self.source)


def _with_included(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: _with_included(path.parent / found[1]), text)


class Device(Protocol):
    """Where arrays live and kernels run."""

    name: str
    xp: Any  # the array module: cupy, or numpy
    multiprocessors: int
    shared_bytes: int  # the shared memory that a block can have

    def launch(self, kernel: str, threads: int, *arguments: Array | int) -> None:
        """Run a kernel of kernels.cu in at least so many threads."""

    def make_ready(self, program: Program) -> None:
        """Compile it, so that the first launch does not."""

    def launch_together(
        self, program: Program, blocks: int, threads: int, shared_bytes: int, *arguments: Array | int
    ) -> None:
        """Run a kernel whose blocks wait for each other, at most one on each multiprocessor."""

    def add_product(self, out: Array, matrix: Array, x: Array) -> None:
        """out += matrix @ x, all of one dtype; out (m, rows), x (n, rows), matrix (m, n) or matrix.T are contiguous."""

    def recorded(self, launches: Callable[[], None]) -> Callable[[], None]:
        """A function that launches these kernels, which have run before, on the same arrays again, as fast as possible.

        `launches` calls nothing but `launch`. Its arrays must live as long as the function is in use.
        """

    def to_device(self, array: NDArray[Any]) -> Array:
        """A copy, contiguous."""

    def to_host(self, array: Array, dtype: str | None = None) -> NDArray[Any]:
        """A copy for NumPy, of its own type or another."""

    def free_bytes(self) -> int:
        """Bytes of memory that can still be allocated."""

    def guard(self) -> AbstractContextManager[None]:
        """Turns the lack of memory, and whatever the driver and its libraries refuse, into BackendUnavailable."""
