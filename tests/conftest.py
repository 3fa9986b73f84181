"""What several test modules share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from devices import (
    COMPILER,
    DEVICES,
    NEEDS_COMPILERS,
    NEEDS_GPU,
    STAND_IN,
    CompiledDevice,
    NumpyDevice,
    compiled_device,
    missing,
)

from circuitsim import choosing
from circuitsim.backends import gpu_check
from circuitsim.backends.cuda import CudaDevice
from circuitsim.backends.device import Device
from circuitsim.compiled import Kernel
from circuitsim.errors import BackendUnavailable
from circuitsim.methods import newton


@pytest.fixture(params=["by size", "compiled"], scope="module")
def kernel_form(request: pytest.FixtureRequest) -> Iterator[None]:
    """For tests of kernels: as they are called, small ones in Python; then all compiled."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "compiled":
            patch.setattr(Kernel, "__call__", lambda kernel, *arguments: kernel.compiled(*arguments))
        yield


@pytest.fixture(autouse=True, scope="session")
def gpu_for_small_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where a GPU must be (make gpu-test), `auto` takes it for all that it can solve, however little it is.

    And it computes the certificate of what it solves, where bounds settle it. `make stand-in-test`: see fake_cupy.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get(NEEDS_GPU):
            patch.setattr(choosing, "GPU_WINS", 0)
            patch.setattr(choosing, "GPU_WINS_NEWTON", 0)
            patch.setattr(choosing, "GPU_WINS_MESH", 0)
            patch.setattr(gpu_check, "FULL_WORK", 0)
        if os.environ.get(NEEDS_GPU) == STAND_IN:
            import fake_cupy

            from training import gpu_steps

            fake_cupy.install(patch, tmp_path_factory.mktemp("kernels"))
            patch.setattr(gpu_steps, "_THREADS", 64)
        yield


@pytest.fixture(params=DEVICES, scope="module")
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A GPU, and what stands in for one."""
    if request.param == "twins":
        yield NumpyDevice()
    elif request.param == "cuda":
        try:
            yield CudaDevice()
        except BackendUnavailable as error:
            missing(str(error), NEEDS_GPU)
    else:
        yield request.getfixturevalue("compiled")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> CompiledDevice:
    """The GPU's kernels, compiled for the host."""
    found = compiled_device(tmp_path_factory.mktemp("kernels"))
    return found or missing(f"{COMPILER} is not installed", NEEDS_COMPILERS)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows that are solved one by one."""
    rows: list[int] = []
    solve_row = newton.solve_row

    def counted(network: Any, drive: Any, *arguments: Any) -> Any:
        rows.append(drive.rows.start)
        return solve_row(network, drive, *arguments)

    monkeypatch.setattr(newton, "solve_row", counted)
    return rows
