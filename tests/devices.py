"""Stand-ins for a GPU (backends.gpu.Device): NumPy arrays, and kernels as twins in Python or compiled as C++.

`TWINS` has a twin of each kernel of kernels.cu, with its arguments in its order. `compiled_device` compiles kernels.cu
itself for the host: each thread is a call, the last one first, so that what depends on the order of threads differs
from the twin. That works because every argument is a pointer or a long long.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from circuitsim.backends import kernels
from circuitsim.backends.cuda import SOURCE
from circuitsim.branch_sums import violations
from circuitsim.laws import branch_current

COMPILER = "g++"
_BLOCK = 32
_MOST_ARGUMENTS = 40

_SHIM = f"""
#include <cmath>
#include <cstring>
#define __global__
#define __device__
struct Index {{ unsigned x; }};
static Index blockIdx, blockDim, threadIdx;
static inline double __longlong_as_double(long long bits) {{ double x; memcpy(&x, &bits, sizeof x); return x; }}
#include "{SOURCE}"
typedef void (*Kernel)({", ".join(["integer"] * _MOST_ARGUMENTS)});
extern "C" void launch(Kernel kernel, integer blocks, integer block, const integer* a) {{
    blockDim.x = (unsigned)block;
    for (blockIdx.x = (unsigned)blocks; blockIdx.x-- > 0;)
        for (threadIdx.x = (unsigned)block; threadIdx.x-- > 0;)
            kernel({", ".join(f"a[{k}]" for k in range(_MOST_ARGUMENTS))});
}}
extern "C" void branches(integer law, const double* params, integer count, const double* v, double* i, double* slope) {{
    for (integer k = 0; k < count; ++k) i[k] = branch(law, params, v[k], slope + k);
}}
"""


class NumpyDevice:
    """Arrays in NumPy, kernels by their twins. Says what is done wrong with it: arrays that a kernel cannot take."""

    name = "a stand-in"
    xp = np

    def __init__(self, free: int = 10**9) -> None:
        self.free = free
        self.launched: list[str] = []

    def launch(self, kernel: str, threads: int, *arguments: Any) -> None:
        assert threads > 0
        for argument in arguments:
            assert isinstance(argument, int) or argument.flags.c_contiguous
        self.launched.append(kernel)
        self.run(kernel, threads, *arguments)

    def run(self, kernel: str, threads: int, *arguments: Any) -> None:
        TWINS[kernel](*arguments)

    def add_product(self, out: np.ndarray, matrix: np.ndarray, x: np.ndarray) -> None:
        assert out.dtype == matrix.dtype == x.dtype
        assert out.flags.c_contiguous and x.flags.c_contiguous
        assert matrix.flags.c_contiguous or matrix.flags.f_contiguous
        out += matrix @ x

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return np.array(array)

    def free_bytes(self) -> int:
        return self.free

    @contextmanager
    def guard(self) -> Iterator[None]:
        yield


class CompiledDevice(NumpyDevice):
    """Arrays in NumPy, kernels from kernels.cu, compiled for the host."""

    name = "kernels.cu on the host"

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__()
        self.library = library

    def run(self, kernel: str, threads: int, *arguments: Any) -> None:
        words = [x if isinstance(x, int) else x.ctypes.data for x in arguments]
        packed = (ctypes.c_longlong * _MOST_ARGUMENTS)(*words)
        address = ctypes.cast(getattr(self.library, kernel), ctypes.c_void_p)
        blocks = -(-threads // _BLOCK)
        self.library.launch(address, ctypes.c_longlong(blocks), ctypes.c_longlong(_BLOCK), packed)

    def branches(self, law: int, params: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Currents and slopes of one nonlinear branch at many voltages, by the kernels' own function."""
        current, slope = np.empty_like(v), np.empty_like(v)
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (params, v, current, slope)]
        self.library.branches(ctypes.c_longlong(law), pointers[0], ctypes.c_longlong(v.size), *pointers[1:])
        return current, slope


def compiled_device(folder: Path) -> CompiledDevice | None:
    """None without a C++ compiler."""
    if shutil.which(COMPILER) is None:
        return None
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text(_SHIM)
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    done = subprocess.run([COMPILER, *options, str(source), "-o", str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return CompiledDevice(ctypes.CDLL(str(library)))


def _rows(a: np.ndarray, rows: int | None = None) -> np.ndarray:
    """(units, rows or 1) as (rows or 1, units); with `rows` that many."""
    turned = a.T if rows is None else np.broadcast_to(a.T, (rows, a.shape[0]))
    return np.ascontiguousarray(turned)


def relax(
    rows, start, stop, x, current, current_rows, lo, hi, bound_rows, diag, ptr, indices, data, j_ptr, j_other, j_sign,
    j_number, j_law, j_params, offset, offset_rows, moved,
):  # fmt: skip
    """kernels.relax, which test_backends.py compares with the reference."""
    assert (current.shape[1], lo.shape[1], hi.shape[1], offset.shape[1]) == (
        current_rows, bound_rows, bound_rows, offset_rows,
    )  # fmt: skip
    turned = _rows(x)
    with np.errstate(all="ignore"):
        some_moved = kernels.relax(
            turned, _rows(current, rows), start, stop, ptr, indices.astype(np.int64), data, diag, _rows(lo), _rows(hi),
            j_ptr, j_other, j_sign, j_number, j_law.astype(np.int8), j_params, _rows(offset), np.zeros(j_other.size),
        )  # fmt: skip
    x[:] = turned.T
    moved[0] = max(moved[0], int(some_moved))


def violations_twin(
    rows, units, x, dense, diag, to_fixed, ptr, indices, data, j_ptr, j_other, j_sign, j_number, j_law, j_params,
    offset, offset_rows, injection, injection_rows, source_flow, source_abs, source_rows, fixed_abs, fixed_rows, lo, hi,
    bound_rows, terms, flow, slope, rho, upper, certain,
):  # fmt: skip
    """branch_sums.violations, unit by unit, around the sums over sparse couplings and nonlinear branches."""
    assert [a.shape[1] for a in (offset, injection, source_flow, source_abs, lo, hi)] == [
        offset_rows, injection_rows, source_rows, source_rows, bound_rows, bound_rows,
    ]  # fmt: skip
    assert fixed_rows in (0, fixed_abs.shape[1])
    padded = np.concatenate([x, np.zeros((1, rows))])
    neighbours, neighbours_abs = dense[:, :rows].copy(), dense[:, rows:].copy()
    nonlinear, nonlinear_abs, steep = (np.zeros((units, rows)) for _ in range(3))
    for u in range(units):
        for k in range(ptr[u], ptr[u + 1]):
            neighbours[u] += data[k] * x[indices[k]]
            neighbours_abs[u] += data[k] * np.abs(x[indices[k]])
        for k in range(j_ptr[u], j_ptr[u + 1]):
            across = j_sign[k] * (x[u] - padded[j_other[k]]) + offset[j_number[k]]
            i, g = branch_current(j_law[k : k + 1].astype(np.int8), j_params[k : k + 1], across[:, None])
            nonlinear[u] += j_sign[k] * i[:, 0]
            nonlinear_abs[u] += np.abs(i[:, 0])
            steep[u] += g[:, 0]
    slope[:] = diag[:, None] + steep
    known = _rows(fixed_abs) if fixed_rows else np.zeros((1, 0))
    for row in range(rows):
        for u in range(units):
            one = slice(u, u + 1)
            of = [a[row if a.shape[0] > 1 else slice(None)].reshape(1, -1)[:, one] if a.size else a for a in (
                _rows(injection), _rows(source_flow), _rows(source_abs), known, _rows(lo), _rows(hi),
            )]  # fmt: skip
            out = [np.zeros((1, 1)) for _ in range(3)]
            certain[u, row] = violations(
                x[one, row : row + 1], neighbours[one, row : row + 1], neighbours_abs[one, row : row + 1], diag[one],
                to_fixed[one], of[0], of[1], of[2], of[3], nonlinear[one, row : row + 1], steep[one, row : row + 1],
                nonlinear_abs[one, row : row + 1], of[4], of[5], terms * np.finfo(float).eps, True, *out,
            )  # fmt: skip
            flow[u, row], rho[u, row], upper[u, row] = (a[0, 0] for a in out)


TWINS: dict[str, Callable[..., None]] = {
    "relax_float64": relax, "relax_float32": relax, "violations": violations_twin,
}  # fmt: skip
