"""BLAS with one thread, so that sums are bit-identical on any number of cores."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_SMALL = 2_000  # branch ends times rows: products for which BLAS takes one thread in any case


def one_blas_thread(products: int) -> AbstractContextManager[object]:
    """Inside this context, BLAS is limited to one thread.

    products: branch ends times rows. If they are few, nothing is limited, or loaded.
    """
    return nullcontext() if products <= _SMALL else _one_thread()


class _OneThread:
    """The limit for the whole process: the first to enter sets it, the last to leave removes it."""

    def __init__(self) -> None:
        self.lock, self.inside, self.limit = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.limit.enter_context(_blas().limit(limits=1, user_api="blas"))
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.limit.close()


@cache
def _one_thread() -> _OneThread:
    return _OneThread()


@cache  # finding the libraries takes longer than solving a small circuit
def _blas() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401  its library is another one, and only those that are loaded are found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
