"""What several test modules share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from circuitsim.compiled import Kernel


@pytest.fixture(params=["by size", "compiled"], scope="module")
def kernel_form(request: pytest.FixtureRequest) -> Iterator[None]:
    """For tests of kernels: as they are called, small ones in Python; then all compiled."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "compiled":
            patch.setattr(Kernel, "__call__", lambda kernel, *arguments: kernel.compiled(*arguments))
        yield
