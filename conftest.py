"""For all tests: where ngspice must be there, a run without it fails, rather than skip what needs it."""

from __future__ import annotations

import os

import pytest

from circuitsim.io.ngspice import ngspice_available


def pytest_configure() -> None:
    if os.environ.get("CIRCUITSIM_NEEDS_NGSPICE") and not ngspice_available():
        raise pytest.UsageError(
            "ngspice is not installed, and CIRCUITSIM_NEEDS_NGSPICE says that it must be: make ngspice, or apt-get "
            "install ngspice"
        )
