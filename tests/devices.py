"""Stand-ins for a GPU (backends.device.Device): NumPy arrays, and kernels as twins in Python or compiled as C++.

`TWINS` has a twin of each kernel of kernels.cu, with its arguments in its order. `compiled_device` compiles kernels.cu
itself for the host: each thread is a call, the last one first, so that what depends on the order of threads differs
from the twin. Like a GPU's code it adds to products before they are rounded, where the processor can, and its
exponentials and logarithms are one unit in the last place off those of the twin: no test may hang on such digits. That
works because every argument is a pointer or a long long.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from scipy import sparse

from circuitsim.backends import gpu_mesh, kernels
from circuitsim.backends.cuda import SOURCE
from circuitsim.branch_sums import violations
from circuitsim.laws import branch_current
from circuitsim.methods import limiting

ARCHITECTURES = ["sm_80", "sm_90"]
BY_CUPY = ["-ftz=true", "--device-as-default-execution-space"]  # what it adds to the compiler's options
COMPILER = "g++"
NEEDS_COMPILERS, NEEDS_GPU = "CIRCUITSIM_NEEDS_COMPILERS", "CIRCUITSIM_NEEDS_GPU"
STAND_IN = "stand-in"  # the value of NEEDS_GPU with which fake_cupy.py takes the place of a GPU
DEVICES = ["twins", "compiled for the host", *(["cuda"] if find_spec("cupy") else [])]
if os.environ.get(NEEDS_GPU):
    DEVICES = ["cuda"]
_BLOCK = 32
MOST_ARGUMENTS = 40
_NUDGED = "exp expm1 log log1p cbrt asinh sinh cosh tanh".split()

_MACROS = "\n".join(f"#define {name}(x) nudged(std::{name}(x))" for name in _NUDGED)
_SHIM = f"""
#include <cmath>
#include <cstring>
#define __global__
#define __device__
struct Index {{ unsigned x; }};
static Index blockIdx, blockDim, threadIdx;
static inline double __longlong_as_double(long long bits) {{ double x; memcpy(&x, &bits, sizeof x); return x; }}
static inline double nudged(double x) {{  // what is exact stays
    long long bits;
    memcpy(&bits, &x, sizeof x);
    return x == 0.0 || fabs(x) == 1.0 || !std::isfinite(x) ? x : __longlong_as_double(bits + (bits & 4 ? 1 : -1));
}}
{_MACROS}
#include "{SOURCE}"
typedef void (*Kernel)({", ".join(["integer"] * MOST_ARGUMENTS)});
extern "C" void launch(Kernel kernel, integer blocks, integer block, const integer* a) {{
    blockDim.x = (unsigned)block;
    for (blockIdx.x = (unsigned)blocks; blockIdx.x-- > 0;)
        for (threadIdx.x = (unsigned)block; threadIdx.x-- > 0;)
            kernel({", ".join(f"a[{k}]" for k in range(MOST_ARGUMENTS))});
}}
extern "C" void branches(integer law, const double* params, integer count, const double* v, double* i, double* slope) {{
    for (integer k = 0; k < count; ++k) i[k] = branch(law, params, v[k], slope + k);
}}
"""


def _parameters() -> dict[str, list[np.dtype | None]]:
    """The types of arrays that each kernel takes, None: a number; not of those in two precisions."""
    types = {"double": np.float64, "integer": np.int64, "int": np.int32}
    found: dict[str, list[np.dtype | None]] = {}
    for name, parameters in re.findall(r'^extern "C" __global__ void (\w+)\(([^)]*)\)', SOURCE.read_text(), re.M):
        kinds = [parameter.split()[-2] for parameter in parameters.split(",")]
        found[name] = [np.dtype(types[kind[:-1]]) if kind.endswith("*") else None for kind in kinds]
    return found


PARAMETERS = _parameters()


def missing(what: str, variable: str) -> NoReturn:
    """Skip, or fail where a variable says that it must be there."""
    if os.environ.get(variable):
        pytest.fail(f"{what}, and {variable} says that it must be there")
    pytest.skip(what)


def nvrtc_cubin(source: str, options: Sequence[str]) -> bytes:
    """The machine code that NVIDIA's run-time compiler makes, without a warning (package nvidia-cuda-nvrtc)."""
    spec = find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None else None
    found = [path for folder in folders or () for path in sorted(Path(folder).rglob("libnvrtc.so.*"))]
    if not found:
        missing("NVRTC is not installed (pip install nvidia-cuda-nvrtc)", NEEDS_COMPILERS)
    for built_in in found[0].parent.glob("libnvrtc-builtins.so.*"):  # which NVRTC 13.0 does not find by itself
        ctypes.CDLL(str(built_in))
    lib, program = ctypes.CDLL(str(found[0])), ctypes.c_void_p()
    assert lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), None, 0, None, None) == 0
    packed = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = lib.nvrtcCompileProgram(program, len(options), packed)
    size = ctypes.c_size_t()
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    assert status == 0 and not log.value, log.value.decode()
    assert lib.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    code = ctypes.create_string_buffer(size.value)
    assert lib.nvrtcGetCUBIN(program, code) == 0
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    return code.raw


class NumpyDevice:
    """Arrays in NumPy, kernels by their twins. Says what is done wrong with it: arrays that a kernel cannot take."""

    name = "a stand-in"
    xp = np

    def __init__(self, free: int = 10**9) -> None:
        self.free = free
        self.launched: list[str] = []
        self.tape: list[tuple[Any, ...]] | None = None  # while launches are recorded
        self.recordings = 0

    def launch(self, kernel: str, threads: int, *arguments: Any) -> None:
        assert threads > 0
        for argument in arguments:
            assert isinstance(argument, int) or argument.flags.c_contiguous
        if kernel in PARAMETERS:
            assert [None if isinstance(x, int) else x.dtype for x in arguments] == PARAMETERS[kernel]
        if self.tape is not None:
            self.tape.append((kernel, threads, *arguments))
            return
        self.launched.append(kernel)
        self.run(kernel, threads, *arguments)

    def recorded(self, launches: Callable[[], None]) -> Callable[[], None]:
        """What is captured does not run, and is bound to its arrays."""
        self.tape = tape = []
        launches()
        self.tape = None
        assert tape
        self.recordings += 1

        def replay() -> None:
            for kernel, threads, *arguments in tape:
                self.launch(kernel, threads, *arguments)

        return replay

    def run(self, kernel: str, threads: int, *arguments: Any) -> None:
        TWINS[kernel](*arguments)

    def add_product(self, out: np.ndarray, matrix: np.ndarray, x: np.ndarray) -> None:
        assert self.tape is None, "CuPy refuses to capture cuBLAS"
        assert out.dtype == matrix.dtype == x.dtype
        assert out.flags.c_contiguous and x.flags.c_contiguous
        assert matrix.flags.c_contiguous or matrix.flags.f_contiguous
        out += matrix @ x

    def to_device(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, order="C")

    def to_host(self, array: np.ndarray, dtype: str | None = None) -> np.ndarray:
        return np.array(array, dtype)

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
        packed = (ctypes.c_longlong * MOST_ARGUMENTS)(*words)
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
    options = [
        "-std=c++17",
        "-O2",
        "-march=native",
        "-ffp-contract=fast",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
    ]
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
    bound_rows, terms, flow, slope, rho, upper, most, certain,
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
            out = [np.zeros((1, 1)) for _ in range(4)]
            certain[u, row] = violations(
                x[one, row : row + 1], neighbours[one, row : row + 1], neighbours_abs[one, row : row + 1], diag[one],
                to_fixed[one], of[0], of[1], of[2], of[3], nonlinear[one, row : row + 1], steep[one, row : row + 1],
                nonlinear_abs[one, row : row + 1], of[4], of[5], terms * np.finfo(float).eps, True, *out,
            )  # fmt: skip
            flow[u, row], rho[u, row], upper[u, row], most[u, row] = (a[0, 0] for a in out)


def dense_sums_twin(rows, count, targets, sources_count, sources, g, by_target, by_source, x, upper, tolerance, total):
    """branch_sums.dense_sums, at one of the block's sides."""
    assert (targets.size, sources.size) == (count, sources_count)
    matrix = np.lib.stride_tricks.as_strided(g, (count, sources_count), (8 * by_target, 8 * by_source))
    for t, u in enumerate(targets):
        sums = (matrix[t][:, None] * np.abs(x[u] - x[sources])).sum(axis=0)
        total[u] += np.where(upper[u] > tolerance[0], sums, 0.0)


def eliminate(rows, columns, ptr, target, linear, sets, leg_ptr, legs, slope, value, pivot):
    """linear/elimination.py's, row by row, for conductances in the order of its entries."""
    count = np.diff(ptr)
    assert (target.dtype, target.size) == (np.int32, (count * (count - 1) // 2).sum())
    assert slope.shape[1] == value.shape[1] == pivot.shape[1] == rows and linear.shape[1] == sets in (1, rows)
    of_leg = np.repeat(np.arange(len(linear)), np.diff(leg_ptr))
    value[:] = linear
    np.add.at(value, of_leg, slope[legs])
    at = 0
    for j in range(columns):
        column = value[ptr[j] : ptr[j + 1]]
        d = column.sum(axis=0)
        pivot[j] = np.divide(1.0, d, out=np.zeros(rows), where=d > 0)
        one, other = np.triu_indices(count[j], 1)
        np.add.at(value, target[at : at + one.size], column[one] * pivot[j] * column[other])
        at += one.size


def substitute(rows, columns, unit, ptr, end, value, pivot, x):
    """elimination.Factors.solve, for networks that differ from row to row."""
    for j in range(columns):
        x[unit[j]] *= pivot[j]
        below = slice(ptr[j], ptr[j + 1] - 1)
        x[end[below]] += x[unit[j]] * value[below]
    for j in range(columns - 1, -1, -1):
        below = slice(ptr[j], ptr[j + 1] - 1)
        x[unit[j]] += (value[below] * x[end[below]]).sum(axis=0) * pivot[j]


def inject(rows, units, j_ptr, j_sign, j_number, w, current, slope, offset, offset_rows, injection, injection_rows, x):
    """By sums over all ends of legs."""
    assert (offset.shape[1], injection.shape[1], w.shape[1]) == (offset_rows, injection_rows, rows)
    source = current + slope * (offset - w)
    x[:] = injection
    np.subtract.at(x, np.repeat(np.arange(units), np.diff(j_ptr)), j_sign[:, None] * source[j_number])


def tangents(rows, legs, x, a, k, law, params, sets, offset, offset_rows, w, current, slope, amps, miss):
    """newton's limiting, and the vectorised laws."""
    assert offset.shape[1] == offset_rows and params.shape[0] == sets in (1, rows)
    padded = np.concatenate([x, np.zeros((1, rows))])
    v = (padded[a] - padded[k] + offset).T
    line = current.T + slope.T * (v - w.T)
    kinds, p, flat = _every_leg(law, params, rows)
    i, _ = branch_current(kinds, p, v.ravel())
    amps[:], miss[:] = np.abs(i.reshape(v.shape)).T, np.abs(i.reshape(v.shape) - line).T
    w[:] = limiting.limited(kinds, p, flat(w), flat(current), v.ravel(), line.ravel()).reshape(v.shape).T
    i, g = branch_current(kinds, p, flat(w))
    current[:], slope[:] = i.reshape(v.shape).T, g.reshape(v.shape).T


def _every_leg(law, params, rows):
    """Laws and parameters of the legs of all rows, one row after another; and how to bring (legs, rows) there."""
    every = np.broadcast_to(params, (rows, *params.shape[1:])).reshape(-1, params.shape[2])
    return np.tile(law.astype(np.int8), rows), every, lambda values: np.ascontiguousarray(values.T).ravel()


def kcl(
    rows, units, x, g_ptr, near, g, to_fixed, j_ptr, j_other, j_sign, j_number, legs, law, params, sets, offset,
    offset_rows, injection, injection_rows, source_flow, source_abs, source_rows, fixed_abs, fixed_rows, terms, rho,
    most, upper,
):  # fmt: skip
    """By sums over all ends of branches. That its figures are bounds of residual.Check's is a test."""
    assert [a.shape[1] for a in (offset, injection, source_flow, source_abs)] == [
        offset_rows, injection_rows, source_rows, source_rows,
    ]  # fmt: skip
    assert fixed_rows in (0, fixed_abs.shape[1])
    assert g.shape[1] == to_fixed.shape[1] == sets == params.shape[0] in (1, rows) and params.shape[1] == legs
    padded, known = np.concatenate([x, np.zeros((1, rows))]), to_fixed * x

    def total(ptr: np.ndarray, values: np.ndarray) -> np.ndarray:
        out = np.zeros((units, rows))
        np.add.at(out, np.repeat(np.arange(units), np.diff(ptr)), values)
        return out

    amps = g * (x[np.repeat(np.arange(units), np.diff(g_ptr))] - x[near])
    unit = np.repeat(np.arange(units), np.diff(j_ptr))
    across = j_sign[:, None] * (x[unit] - padded[j_other]) + offset[j_number]
    kinds, p, flat = _every_leg(law[j_number], params[:, j_number], rows)
    i, slope = (a.reshape(rows, -1).T for a in branch_current(kinds, p, flat(across)))
    linear, size, curved = total(g_ptr, amps), total(g_ptr, np.abs(amps)), total(j_ptr, np.abs(i))
    by_sources = injection - source_flow
    fixed = fixed_abs if fixed_rows else np.abs(by_sources)
    all_known = size + np.maximum(np.abs(known - by_sources), np.abs(fixed - np.abs(known)))
    least = source_abs + curved + (all_known if fixed_rows else np.abs(linear + known - by_sources))
    inexact = total(j_ptr, slope * (np.abs(x[unit]) + np.abs(across)))
    rho[:] = linear + known - injection + total(j_ptr, j_sign[:, None] * i)
    rounding = terms * (size + np.abs(known) + fixed + source_abs + curved) + 2.0 * inexact
    most[:] = np.abs(rho) + np.finfo(float).eps * rounding
    with np.errstate(divide="ignore", invalid="ignore"):
        upper[:] = np.where(most == 0, 0.0, most / least)


def by_thread(values: np.ndarray, threads: int) -> np.ndarray:
    return np.bincount(np.arange(values.size) % threads, values, threads)


def cg_multiply(n, threads, ptr, indices, data, p, q, parts, after, before):
    """And the three after it: a step of conjugate gradients, sums by thread. That the steps solve is a test."""
    q[:] = sparse.csr_array((data, indices, ptr), shape=(n, n)) @ p
    parts[:] = by_thread(p * q, threads)
    before[:] = after


def cg_sum(threads, parts, sums):
    assert parts.size == threads and threads % (gpu_mesh.AT_ONCE * gpu_mesh.SUMS) == 0 and sums.size == gpu_mesh.SUMS
    sums[:] = parts.reshape(-1, sums.size).sum(axis=0)


def cg_advance(n, threads, diag, p, q, before, energy, x, r, parts):
    step = before.sum() / energy.sum() if before.any() else 0.0
    x += step * p
    r -= step * q
    parts[:] = by_thread(r * r / diag, threads)


def cg_turn(n, threads, diag, r, after, before, p):
    p[:] = r / diag + (after.sum() / before.sum() if after.any() else 0.0) * p


TWINS: dict[str, Callable[..., None]] = {
    "relax_float64": relax, "relax_float32": relax, "violations": violations_twin, "dense_sums": dense_sums_twin,
    "eliminate": eliminate, "substitute": substitute, "inject": inject, "tangents": tangents,
    "kcl": kcl, "cg_multiply": cg_multiply, "cg_sum": cg_sum, "cg_advance": cg_advance, "cg_turn": cg_turn,
}  # fmt: skip
