"""What several test modules share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from circuitsim import solving
from circuitsim.compiled import Kernel


@pytest.fixture(params=["by size", "compiled"], scope="module")
def kernel_form(request: pytest.FixtureRequest) -> Iterator[None]:
    """For tests of kernels: as they are called, small ones in Python; then all compiled."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "compiled":
            patch.setattr(Kernel, "__call__", lambda kernel, *arguments: kernel.compiled(*arguments))
        yield


@pytest.fixture(autouse=True, scope="session")
def gpu_for_small_work() -> Iterator[None]:
    """Where a GPU must be (make gpu-test), `auto` takes it for all that bcd solves, however little it is."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("CIRCUITSIM_NEEDS_GPU"):
            patch.setattr(solving, "GPU_WINS", 0)
        yield
