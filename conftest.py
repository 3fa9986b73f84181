"""For all tests: where ngspice and PySpice must be there, a run without them fails, rather than skip what needs them.

A run that is ended by SIGTERM or SIGHUP ends the programs that it has started, and removes its temporary folders. And
Ctrl-C means something even where a shell that started the run in the background has it ignored.
"""

from __future__ import annotations

import os
import signal

import pytest

from circuitsim.errors import CircuitError
from circuitsim.spice.ngspice import find_ngspice
from circuitsim.spice.pyspice import check_available


def pytest_configure() -> None:
    if os.environ.get("CIRCUITSIM_NEEDS_NGSPICE"):
        try:
            find_ngspice()
            check_available()
        except CircuitError as error:
            raise pytest.UsageError(
                f"{error}; CIRCUITSIM_NEEDS_NGSPICE says that it must be there: make test"
            ) from None
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
            signal.signal(getattr(signal, name), _end)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # programs that tests interrupt would inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    pytest.exit(f"ended by {signal.Signals(number).name}", returncode=128 + number)
