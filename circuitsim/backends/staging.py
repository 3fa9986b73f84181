"""Transfer of large arrays to a GPU and back, in pieces through pinned memory, by several threads.

A GPU can access only pinned memory directly, so from ordinary memory the driver copies one piece after another (5 GB/s
on the host of an H200). As pinning an array takes as long as copying it that way, a few buffers are pinned here once. A
lane is a thread with two of them: it fills one while the other is being transferred.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.cpu import cores

Bytes = NDArray[np.uint8]
Array = Any  # cupy.ndarray

PIECE = 2**21  # bytes; a multiple of every item's size
_LANES = 4  # cores that fill the bus


class Staging:
    """The lanes of the current GPU; `cuda` is cupy.cuda. Raises CUDA's errors, where no memory can be pinned too."""

    def __init__(self, cuda: Any) -> None:
        self.cuda, self.device = cuda, cuda.Device()
        self.lanes = [_Lane(cuda) for _ in range(min(_LANES, cores()))]
        self.threads = ThreadPoolExecutor(len(self.lanes))

    def send(self, host: NDArray[Any], there: Array) -> None:
        """Copy an array into one of the same bytes on the GPU; both are contiguous."""
        source: Bytes = host.reshape(-1).view(np.uint8)
        self._all(lambda lane, first, step: lane.send(source, there.data.ptr, first, step))

    def receive(self, there: Array, host: NDArray[Any]) -> None:
        """Copy an array of the GPU into one of as many numbers here, of another type perhaps; both are contiguous."""
        target = host.reshape(-1)
        self._all(lambda lane, first, step: lane.receive(there.data.ptr, there.dtype, target, first, step))

    def _all(self, copy: Callable[[_Lane, int, int], None]) -> None:
        """Let every lane copy its share: pieces first, first + step, ..."""
        before = self.cuda.get_current_stream().record()  # after the work that still uses that memory

        def work(k: int) -> None:
            lane = self.lanes[k]
            with self.device, lane.lock:  # an interrupted copy may still hold the lock
                lane.stream.wait_event(before)
                try:
                    copy(lane, k, len(self.lanes))
                finally:
                    lane.stream.synchronize()

        done = [self.threads.submit(work, k) for k in range(len(self.lanes))]
        wait(done)
        for one in done:
            one.result()


class _Lane:
    """Two pinned buffers, each with the event after which it can be used again, and a stream."""

    def __init__(self, cuda: Any) -> None:
        self.lock = threading.Lock()
        self.runtime = cuda.runtime
        self.stream = cuda.Stream(non_blocking=True)
        self.buffers: list[Bytes] = [np.frombuffer(cuda.alloc_pinned_memory(PIECE), np.uint8, PIECE) for _ in range(2)]
        self.events = [cuda.Event() for _ in range(2)]

    def send(self, source: Bytes, there: int, first: int, step: int) -> None:
        for n, start in enumerate(range(first * PIECE, source.size, step * PIECE)):
            piece, buffer = source[start : start + PIECE], self.buffers[n % 2]
            self.events[n % 2].synchronize()
            buffer[: piece.size] = piece
            self._copy(there + start, buffer.ctypes.data, piece.size, self.runtime.memcpyHostToDevice, n)

    def receive(self, there: int, dtype: np.dtype[Any], target: NDArray[Any], first: int, step: int) -> None:
        size = PIECE // dtype.itemsize  # numbers
        starts = range(first * size, target.size, step * size)

        def take(n: int) -> None:
            piece = target[starts[n] : starts[n] + size]
            self.events[n % 2].synchronize()
            piece[:] = self.buffers[n % 2].view(dtype)[: piece.size]

        for n, start in enumerate(starts):
            if n > 1:
                take(n - 2)
            count = dtype.itemsize * min(size, target.size - start)
            self._copy(
                self.buffers[n % 2].ctypes.data, there + dtype.itemsize * start, count,
                self.runtime.memcpyDeviceToHost, n,
            )  # fmt: skip
        for n in range(max(len(starts) - 2, 0), len(starts)):
            take(n)

    def _copy(self, to: int, source: int, count: int, kind: int, n: int) -> None:
        """Queue the n-th copy of this lane, and its event."""
        self.runtime.memcpyAsync(to, source, count, kind, self.stream.ptr)
        self.events[n % 2].record(self.stream)
