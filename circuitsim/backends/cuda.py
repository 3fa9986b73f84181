"""The GPU through CuPy, which is imported only here: arrays, cuBLAS, and the kernels of kernels.cu.

CuPy compiles the kernels for the GPU at hand (NVRTC) and keeps the result on disk. It refuses to call cuBLAS while a
graph is captured, so only launches of kernels are recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.backends.device import Program
from circuitsim.backends.staging import Staging
from circuitsim.errors import BackendUnavailable

Array = Any  # cupy.ndarray

SOURCE = Path(__file__).with_name("kernels.cu")
# Options of the compiler. It may contract a product and a sum to one operation (FMA): that rounds less often than error
# bounds assume, and nothing in kernels.cu relies on a rounding. Results differ from the host's in the last bits anyway:
# exponentials and logarithms come from another library.
OPTIONS = ("--std=c++17",)

_BLOCK, _FEW = 256, 32  # threads of a block; fewer where threads are few in all, so that every multiprocessor gets some
_MANY = 100_000  # threads from which blocks have _BLOCK
_LARGE = 2**23  # bytes, from which on copies between host and GPU go by Staging
_RESERVED = 1024  # bytes of shared memory that CUDA may count as a kernel's own
_INSTALL = "pip install 'cupy-cuda13x[ctk]' for a CUDA 13 driver, 'cupy-cuda12x[ctk]' for a CUDA 12 one"


class CudaDevice:
    """The current GPU; see device.Device. Raises BackendUnavailable where there is none that can be used."""

    def __init__(self) -> None:
        self.xp = _usable_cupy()
        cuda = self.xp.cuda
        try:
            from cupy import cublas

            self.cublas = cublas
            self.name = cuda.runtime.getDeviceProperties(cuda.Device().id)["name"].decode()
            attributes = cuda.Device().attributes
            self.multiprocessors: int = attributes["MultiProcessorCount"]
            self.most_shared: int = attributes["MaxSharedMemoryPerBlockOptin"]
            self.shared_bytes = self.most_shared - _RESERVED
            cuda.device.get_cublas_handle()
            self.module = self.xp.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=OPTIONS)
            self.module.compile()
        except Exception as error:  # libraries that are not there, a compiler that does not know this GPU, no memory
            raise _unavailable(f"CUDA does not start ({_first_line(error)}); {_INSTALL}") from None
        self.kernels: dict[str, Any] = {}
        self.graphs = True  # until one cannot be captured
        self.programs: dict[Program, Any] = {}

    def launch(self, kernel: str, threads: int, *arguments: Array | int) -> None:
        if kernel not in self.kernels:
            self.kernels[kernel] = self.module.get_function(kernel)
        block = _BLOCK if threads >= _MANY else _FEW
        self.kernels[kernel]((-(-threads // block),), (block,), _passed(arguments))

    def make_ready(self, program: Program) -> None:
        if program in self.programs:
            return
        source = program.text
        try:
            module = self.xp.RawModule(code=source, options=(*OPTIONS, *program.options))
            found = module.get_function(program.kernel)
            found.max_dynamic_shared_size_bytes = self.most_shared - found.shared_size_bytes
        except Exception as error:
            raise _unavailable(f"{program.source.name} cannot be compiled ({_first_line(error)})") from None
        self.programs[program] = found.kernel  # only this takes the options of a cooperative launch

    def launch_together(
        self, program: Program, blocks: int, threads: int, shared_bytes: int, *arguments: Array | int
    ) -> None:
        self.make_ready(program)
        how = {"shared_mem": shared_bytes, "enable_cooperative_groups": True}
        self.programs[program]((blocks,), (threads,), _passed(arguments), **how)

    def add_product(self, out: Array, matrix: Array, x: Array) -> None:
        if x.shape[1] == 1:
            self.cublas.gemv("N", 1.0, matrix, x[:, 0], 1.0, out[:, 0])
        else:
            self.cublas.gemm("N", "N", matrix, x, out, 1.0, 1.0)

    def recorded(self, launches: Callable[[], None]) -> Callable[[], None]:
        if not self.graphs:
            return launches
        try:
            stream = self.xp.cuda.Stream(non_blocking=True)  # the default one cannot be captured
            with stream:
                stream.begin_capture()
                try:
                    launches()
                finally:
                    graph = stream.end_capture()
        except Exception:  # whatever the driver does not like: it is only slower without
            self.graphs = False
            return launches
        launch: Callable[[], None] = graph.launch
        return launch

    @cached_property
    def staging(self) -> Staging | None:
        """None where the driver pins no memory: it is only slower without."""
        try:
            return Staging(self.xp.cuda)
        except self.xp.cuda.runtime.CUDARuntimeError:
            return None

    def to_device(self, array: NDArray[Any]) -> Array:
        if array.nbytes < _LARGE or self.staging is None:
            return self.xp.ascontiguousarray(self.xp.asarray(array))
        there = self.xp.empty(array.shape, array.dtype)
        self.staging.send(np.ascontiguousarray(array), there)
        return there

    def to_host(self, array: Array, dtype: str | None = None) -> NDArray[Any]:
        if array.nbytes < _LARGE or self.staging is None:
            found: NDArray[Any] = self.xp.asnumpy(array)
            return found if dtype is None else found.astype(dtype, copy=False)
        host = np.empty(array.shape, dtype or array.dtype)
        self.staging.receive(self.xp.ascontiguousarray(array), host)
        return host

    def free_bytes(self) -> int:
        free: int = self.xp.cuda.runtime.memGetInfo()[0] + self.xp.get_default_memory_pool().free_bytes()
        return free

    @contextmanager
    def guard(self) -> Iterator[None]:
        try:
            yield
        except self.xp.cuda.compiler.CompileException as error:  # of a kernel of CuPy's own
            raise _unavailable(f"CuPy cannot compile for {self.name} ({_first_line(error)})") from None
        except self.xp.cuda.memory.OutOfMemoryError as error:
            raise _unavailable(f"{self.name} is out of memory ({_first_line(error)})") from None
        except RuntimeError as error:
            if not type(error).__module__.startswith("cupy"):  # CUDA's own errors, and those of cuBLAS
                raise
            raise _unavailable(f"{self.name} failed ({_first_line(error)})") from None


def _passed(arguments: tuple[Array | int, ...]) -> tuple[Any, ...]:
    """The arguments as kernels take them: whole numbers as long longs."""
    return tuple(np.int64(x) if isinstance(x, int) else x for x in arguments)


def _usable_cupy() -> Any:
    """The module, when there is a GPU that it can use."""
    try:
        import cupy
    except Exception as error:  # a NumPy that it does not fit raises anything
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise _unavailable(f"CuPy is not installed: {_INSTALL}") from None
        raise _unavailable(f"CuPy cannot be imported ({_first_line(error)}); {_INSTALL}") from None
    runtime = cupy.cuda.runtime
    try:
        driver, own = runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000
        if driver == 0:
            raise _unavailable("there is no NVIDIA driver on this machine")
        if driver < own:
            raise _unavailable(
                f"the NVIDIA driver is for CUDA {driver}, CuPy for CUDA {own}; get a newer driver, or another CuPy: "
                f"{_INSTALL}"
            )
        if runtime.getDeviceCount() == 0:
            raise _unavailable("there is no GPU on this machine")
    except RuntimeError as error:  # CUDA's own
        raise _unavailable(f"no GPU can be used ({_first_line(error)})") from None
    return cupy


def _unavailable(cause: str) -> BackendUnavailable:
    return BackendUnavailable(f"backend gpu: {cause}; or use --backend cpu")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
