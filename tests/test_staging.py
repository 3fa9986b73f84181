"""Copies to a GPU and back by pinned memory, of a stand-in for CUDA that copies as late, or as early, as it may."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from circuitsim.backends import cuda as cuda_module
from circuitsim.backends import staging as staging_module
from circuitsim.backends.cuda import CudaDevice
from circuitsim.backends.staging import PIECE, Staging

HALF = PIECE // 2


class Stream:
    """What was queued, in its order."""

    def __init__(self, late: bool) -> None:
        self.late, self.queue, self.ptr = late, list[Any](), id(self)
        self.one_at_a_time = threading.RLock()

    def add(self, action: Callable[[], Any]) -> None:
        self.queue.append(action)
        if not self.late:
            self.synchronize()

    def synchronize(self, until: Callable[[], bool] = lambda: False) -> None:
        with self.one_at_a_time:
            while self.queue and not until():
                self.queue.pop(0)()

    def record(self) -> Event:
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        self.add(event.synchronize)


class Event:
    """Reached when all that was queued before it is done; at once if it was never recorded."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.reached = True

    def record(self, stream: Stream) -> None:
        reached = SimpleNamespace(yet=False)
        self.stream, self.mark = stream, reached
        stream.add(lambda: setattr(reached, "yet", True))

    def synchronize(self) -> None:
        if self.stream:
            self.stream.synchronize(lambda: self.mark.yet)


class Cuda:
    """As cupy.cuda, with the host's memory for the GPU's."""

    def __init__(self, late: bool) -> None:
        self.late, self.current = late, Stream(late)
        self.streams: dict[int, Stream] = {}
        self.pinned = 0
        self.fault: Exception | None = None
        self.pause = 0.0  # s, before each copy
        self.entered = set[int]()  # threads that have chosen the device
        self.runtime = SimpleNamespace(
            memcpyAsync=self.copy, memcpyHostToDevice=1, memcpyDeviceToHost=2, CUDARuntimeError=RuntimeError,
        )  # fmt: skip

    def Device(self) -> Cuda:  # noqa: N802 - CuPy's name
        return self

    def __enter__(self) -> None:
        self.entered.add(threading.get_ident())

    def __exit__(self, *_: Any) -> None:
        self.entered.remove(threading.get_ident())

    def Stream(self, non_blocking: bool) -> Stream:  # noqa: N802
        assert non_blocking
        stream = Stream(self.late)
        self.streams[stream.ptr] = stream
        return stream

    Event = Event

    def get_current_stream(self) -> Stream:
        return self.current

    def alloc_pinned_memory(self, size: int) -> bytearray:
        if self.fault:
            raise self.fault
        self.pinned += size
        return bytearray(size)

    def copy(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        assert threading.get_ident() in self.entered and kind in (1, 2) and 0 < size <= PIECE
        if self.fault:
            fault, self.fault = self.fault, None
            raise fault
        time.sleep(self.pause)
        self.streams[stream].add(lambda: ctypes.memmove(to, source, size))


class There(np.ndarray):
    """An array of the GPU: with CuPy's pointer."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


def empty_there(shape: Any, dtype: Any) -> There:
    return np.full(shape, 77, dtype).view(There)


def numbers(size: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(size).integers(-1000, 1000, size).astype(dtype)


@pytest.fixture(params=[True, False], ids=["late", "early"])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cuda:
    monkeypatch.setattr(staging_module, "cores", lambda: 3)
    return Cuda(request.param)


@pytest.mark.parametrize("size", [0, 1, PIECE // 8, PIECE // 8 + 1, 7 * PIECE // 8 + 5, 13 * PIECE // 8])
def test_what_is_sent_comes_back(cuda: Cuda, size: int) -> None:
    """No piece, one, some for each lane; more than its buffers hold, so that they are used again."""
    staging, sent = Staging(cuda), numbers(size, "float64")
    there, back = empty_there(size, "float64"), np.empty(size)
    for _ in range(2):
        staging.send(sent, there)
        staging.receive(there, back)
        np.testing.assert_array_equal(there, sent)
        np.testing.assert_array_equal(back, sent)
        sent = sent + 1.0
    assert len(staging.lanes) == 3 and cuda.pinned == 6 * PIECE


def test_what_is_received_may_be_of_another_type(cuda: Cuda) -> None:
    there = numbers(9 * PIECE // 4 + 3, "float32").reshape(3, -1).view(There)
    back = np.empty(there.shape)
    Staging(cuda).receive(there, back)
    np.testing.assert_array_equal(back, there)


def test_a_copy_comes_after_what_was_queued_before_it(cuda: Cuda) -> None:
    """Memory that is used again may still be read or written by kernels."""
    there, done = empty_there(PIECE, "uint8"), np.empty(PIECE, np.uint8)
    staging = Staging(cuda)
    cuda.current.add(lambda: there.fill(1))
    staging.receive(there, done)
    assert (done == 1).all()
    cuda.current.add(lambda: there.fill(2))
    staging.send(np.full(PIECE, 3, np.uint8), there)
    cuda.current.synchronize()
    assert (there == 3).all()


def test_a_fault_of_one_lane_reaches_who_asked(cuda: Cuda) -> None:
    staging = Staging(cuda)
    cuda.fault, cuda.pause = RuntimeError("cudaErrorIllegalAddress"), 0.02
    sent, there = np.ones(7 * PIECE, np.uint8), empty_there(7 * PIECE, "uint8")
    with pytest.raises(RuntimeError, match="IllegalAddress"):
        staging.send(sent, there)
    assert (there.reshape(7, -1) == 1).all(axis=1).sum() >= 4  # the other two lanes' pieces
    there[:] = 0
    time.sleep(0.2)
    assert not there.any()  # no lane went on


def test_a_copy_after_one_that_was_interrupted(monkeypatch: pytest.MonkeyPatch, cuda: Cuda) -> None:
    """Ctrl-C finds the caller waiting; its lanes go on, and have their buffers until they are done."""

    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    staging, back = Staging(cuda), np.empty(7 * PIECE, np.uint8)
    first, second = (empty_there(7 * PIECE, "uint8") for _ in range(2))
    cuda.pause = 0.04  # one of three lanes has a piece more, the others are free before
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(staging_module, "wait", interrupted)
        staging.send(np.full(7 * PIECE, 1, np.uint8), first)
    staging.send(np.full(7 * PIECE, 2, np.uint8), second)
    staging.receive(second, back)
    assert (back == 2).all()
    staging.receive(first, back)
    assert (back == 1).all()


def device_of(cuda: Cuda) -> CudaDevice:
    """One that knows nothing but how to copy."""
    device = object.__new__(CudaDevice)
    device.xp = SimpleNamespace(
        cuda=cuda, empty=empty_there, asnumpy=lambda a: np.array(a), asarray=lambda a: np.array(a).view(There),
        ascontiguousarray=lambda a: np.ascontiguousarray(a).view(There),
    )  # fmt: skip
    return device


@pytest.mark.parametrize("pins", [True, False])
@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_all_ways_give_the_same(
    monkeypatch: pytest.MonkeyPatch, cuda: Cuda, pins: bool, large: bool, turned: bool
) -> None:
    """Small arrays, and all where nothing can be pinned, go by CuPy's own copies."""
    monkeypatch.setattr(cuda_module, "_LARGE", 1000)
    cuda.fault = None if pins else RuntimeError("no memory to pin")
    device, given = device_of(cuda), numbers(600 if large else 60, "float64").reshape(6, -1)
    given = given.T if turned else given
    there = device.to_device(given)
    assert there.flags.c_contiguous
    np.testing.assert_array_equal(there, given)
    back = device.to_host(there.T)
    assert type(back) is np.ndarray and back.dtype == np.float64
    np.testing.assert_array_equal(back, given.T)
    low = device.to_host(there, "float32")
    assert low.dtype == np.float32
    np.testing.assert_array_equal(low, given)
    assert (cuda.pinned > 0) == (pins and large)
