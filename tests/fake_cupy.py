"""A stand-in for CuPy, and with it for a GPU: `make stand-in-test` runs what `make gpu-test` does.

Arrays do not mix with NumPy's, and no function of NumPy's takes them by mistake; fresh memory holds no numbers; kernels
are compiled for the host, where blocks wait for each other as fibers. What the module has is in CuPy 14 by the same
name: something new belongs in `_FUNCTIONS` or `_METHODS` only once CuPy's documentation has it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any

import numpy as np
import pytest
from devices import COMPILER, MOST_ARGUMENTS, NEEDS_COMPILERS, compiled_device, missing
from numpy.lib.mixins import NDArrayOperatorsMixin
from together import TogetherDevice

from circuitsim.backends.cuda import OPTIONS, SOURCE

_FUNCTIONS = (
    "abs arange array asarray ascontiguousarray concatenate empty empty_like full maximum minimum stack where zeros "
    "zeros_like"
).split()
_FROM_HOST = ("array", "asarray", "ascontiguousarray")  # which bring an array of NumPy's there
_METHODS = "all any argmax astype copy fill max min ravel reshape sum".split()
_TAKEN_OVER = "where concatenate diag flatnonzero zeros_like".split()
_OPTIONS = {"axis", "copy", "dtype", "keepdims", "order", "out"}
_MULTIPROCESSORS, _SHARED = 3, 101_024  # so that small networks are spread over several


class Array(NDArrayOperatorsMixin):
    """An array there."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        assert method == "__call__" and options.keys() <= {"out", "dtype"}, (ufunc, method, options)
        out = options.pop("out", None)
        if out is not None:
            options["out"] = tuple(x.values for x in out)
        found = ufunc(*map(_there, inputs), **options)
        return out[0] if out is not None else _wrapped(found)

    def __array_function__(self, function: Any, _: Any, arguments: Any, options: Any) -> Any:
        """NumPy's functions that CuPy takes over."""
        if function.__name__ not in _TAKEN_OVER:
            raise TypeError(f"numpy.{function.__name__}: not among _TAKEN_OVER of this stand-in for CuPy")
        return _wrapped(function(*map(_there, arguments), **{k: _there(x) for k, x in options.items()}))

    def __matmul__(self, other: Any) -> Array:
        return Array(self.values @ _there(other))

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(f"{name}: not among _METHODS of this stand-in for CuPy")

        def method(*arguments: Any, **options: Any) -> Any:
            assert options.keys() <= _OPTIONS
            return _wrapped(getattr(self.values, name)(*map(_there, arguments), **options))

        return method

    def __getitem__(self, at: Any) -> Array:
        found = _wrapped(self.values[_index(at)])
        assert isinstance(found, Array)
        return found

    def __setitem__(self, at: Any, value: Any) -> None:
        self.values[_index(at)] = _there(value)

    def __len__(self) -> int:
        return len(self.values)

    def __bool__(self) -> bool:
        return bool(self.values)

    def __int__(self) -> int:
        return int(self.values)

    def __float__(self) -> float:
        return float(self.values)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.values.ctypes.data)

    @property
    def T(self) -> Array:  # noqa: N802
        return Array(self.values.T)

    shape = property(lambda self: self.values.shape)
    size = property(lambda self: self.values.size)
    ndim = property(lambda self: self.values.ndim)
    dtype = property(lambda self: self.values.dtype)
    nbytes = property(lambda self: self.values.nbytes)
    flags = property(lambda self: self.values.flags)


def _there(x: Any) -> Any:
    """What an array of this module holds; other arrays are refused."""
    if isinstance(x, tuple | list):
        return type(x)(_there(y) for y in x)
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return x.values if isinstance(x, Array) else x


def _index(at: Any) -> Any:
    return tuple(map(_there, at)) if isinstance(at, tuple) else _there(at)


def _wrapped(x: Any) -> Any:
    return Array(np.asarray(x)) if isinstance(x, np.ndarray | np.generic) else x


def _function(name: str) -> Callable[..., Array]:
    def function(*arguments: Any, **options: Any) -> Array:
        assert options.keys() <= _OPTIONS
        if name in _FROM_HOST:
            x = arguments[0]
            if isinstance(x, Array):
                return Array(getattr(np, name)(x.values, *arguments[1:], **options))
            return Array(np.array(x, *arguments[1:], order="C", **options))
        found = getattr(np, name)(*map(_there, arguments), **options)
        if name in ("empty", "empty_like"):
            found.fill(np.nan if found.dtype.kind == "f" else -1)
        return Array(np.asarray(found))

    return function


# -- kernels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Text:
    """As device.Program, which CuPy does not know: it has the text and the options."""

    text: str
    options: tuple[str, ...]
    kernel: str


class _Recording:
    """What is captured: launches, which do not run."""

    def __init__(self) -> None:
        self.tape: list[Callable[[], object]] | None = None

    def do(self, launch: Callable[[], object]) -> None:
        if self.tape is None:
            launch()
        else:
            self.tape.append(launch)


class _Stream:
    def __init__(self, recording: _Recording, non_blocking: bool) -> None:
        assert non_blocking
        self.recording = recording

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def begin_capture(self) -> None:
        self.recording.tape = []

    def end_capture(self) -> Any:
        tape, self.recording.tape = self.recording.tape, None
        assert tape

        def launch() -> None:
            for one in tape:
                one()

        return SimpleNamespace(launch=launch)


class _Module:
    """kernels.cu on the host, or a program whose blocks wait for each other."""

    def __init__(self, folder: Path, recording: _Recording, code: str, options: tuple[str, ...]) -> None:
        self.folder, self.recording, self.code = folder, recording, code
        assert options[: len(OPTIONS)] == OPTIONS
        self.options = options[len(OPTIONS) :]

    def compile(self) -> None:
        assert self.code == SOURCE.read_text(encoding="utf-8")
        library = self.folder / "kernels.so"
        if library.exists():
            self.library = ctypes.CDLL(str(library))
            return
        found = compiled_device(self.folder)
        if found is None:
            missing(f"{COMPILER} is not installed", NEEDS_COMPILERS)
        self.library = found.library

    def get_function(self, name: str) -> Any:
        if self.code == SOURCE.read_text(encoding="utf-8"):
            address = ctypes.cast(getattr(self.library, name), ctypes.c_void_p)

            def launch(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...]) -> None:
                assert 0 < block[0] <= 1024 and grid[0] > 0
                packed = (ctypes.c_longlong * MOST_ARGUMENTS)(*map(_word, arguments))
                sizes = ctypes.c_longlong(grid[0]), ctypes.c_longlong(block[0])
                self.recording.do(partial(self.library.launch, address, *sizes, packed))

            return launch
        device = TogetherDevice(self.folder, 132, 1_000_000)  # whose limits tests move
        program: Any = _Text(self.code, self.options, name)
        device.make_ready(program)

        def launch_together(grid: tuple[int], block: tuple[int], arguments: tuple[Any, ...], **how: Any) -> None:
            assert how.keys() == {"shared_mem", "enable_cooperative_groups"} and how["enable_cooperative_groups"]
            words = [_word(x) if isinstance(x, np.int64) else _checked(x).values for x in arguments]
            device.launch_together(program, grid[0], block[0], how["shared_mem"], *words)

        return SimpleNamespace(kernel=launch_together, shared_size_bytes=0, max_dynamic_shared_size_bytes=0)


def _word(x: Any) -> int:
    return int(x) if isinstance(x, np.int64) else int(_checked(x).data.ptr)


def _checked(x: Any) -> Array:
    assert isinstance(x, Array) and x.flags.c_contiguous
    return x


# -- the module --------------------------------------------------------------------------------------------------------


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def fake_cupy(folder: Path) -> ModuleType:
    """The module; `folder`: for what is compiled."""
    module, recording = ModuleType("cupy"), _Recording()

    def no_pinned_memory(_: int) -> None:
        raise CUDARuntimeError("none here: staging has stand-ins of its own")

    def as_numpy(x: Array) -> np.ndarray:
        assert recording.tape is None, "CUDA refuses to wait while it captures"
        return x.values.copy()

    def add_gemv(transposed: str, alpha: float, a: Array, x: Array, beta: float, y: Array) -> None:
        assert (transposed, alpha, beta) == ("N", 1.0, 1.0) and recording.tape is None, "CuPy refuses to capture cuBLAS"
        assert a.dtype == x.dtype == y.dtype and (a.flags.c_contiguous or a.flags.f_contiguous)
        y.values[...] += a.values @ x.values

    def add_gemm(transposed: str, other: str, a: Array, b: Array, out: Array, alpha: float, beta: float) -> None:
        assert b.flags.c_contiguous and out.flags.c_contiguous
        assert other == "N"
        add_gemv(transposed, alpha, a, b, beta, out)

    attributes = {"MultiProcessorCount": _MULTIPROCESSORS, "MaxSharedMemoryPerBlockOptin": _SHARED}
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda _: {"name": b"a stand-in"},
        memGetInfo=lambda: (10**9, 10**9),
    )
    module.cuda = SimpleNamespace(  # type: ignore[attr-defined]
        runtime=runtime,
        Device=lambda: SimpleNamespace(id=0, attributes=attributes),
        device=SimpleNamespace(get_cublas_handle=lambda: 0),
        compiler=SimpleNamespace(CompileException=type("CompileException", (Exception,), {})),
        memory=SimpleNamespace(OutOfMemoryError=type("OutOfMemoryError", (MemoryError,), {})),
        Stream=lambda non_blocking: _Stream(recording, non_blocking),
        alloc_pinned_memory=no_pinned_memory,
    )
    module.__dict__.update({name: _function(name) for name in _FUNCTIONS})
    module.__dict__.update(
        ndarray=Array,
        asnumpy=as_numpy,
        get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 0),
        RawModule=lambda code, options: _Module(folder, recording, code, options),
        cublas=ModuleType("cupy.cublas"),
        __version__="14",
    )
    module.__dict__.update({name: getattr(np, name) for name in ("float32", "float64", "int32", "int64", "uint8")})
    module.cublas.gemv, module.cublas.gemm = add_gemv, add_gemm
    return module


def install(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """From now on `import cupy` gives the stand-in."""
    module = fake_cupy(folder)
    patch.setitem(sys.modules, "cupy", module)
    patch.setitem(sys.modules, "cupy.cublas", module.cublas)
