"""Commands whose errors are messages and exit codes, never tracebacks. Imports nothing but click."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from circuitsim.errors import CircuitError, NotSolved

OK, DIFFER, BAD_INPUT, NOT_SOLVED, DEFECT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 70, 130, 141
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A program of one command."""

    memory_advice = "use a smaller netlist"

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; errors become messages."""
        with _exit_codes(ctx, self.memory_advice):
            return super().invoke(ctx)


class Group(click.Group):
    """A program of several commands."""

    memory_advice = "solve fewer batch rows, or a smaller netlist"

    def invoke(self, ctx: click.Context) -> Any:
        """Run one of them; errors become messages."""
        with _exit_codes(ctx, self.memory_advice):
            return super().invoke(ctx)


class Ended(BaseException):
    """A signal asks this program to end; its number. No Exception, so that only clean-up happens on the way out."""


@contextmanager
def ends_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP raise Ended, so that child processes are ended and temporary folders removed.

    What is ignored, as nohup ignores SIGHUP, stays ignored. Only the main thread can ask for that.
    """
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()
    taken = [number for number in signals if main and signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        for one in taken:
            signal.signal(one, signal.SIG_IGN)  # until all is cleaned up
        raise Ended(number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _exit_codes(ctx: click.Context, memory_advice: str) -> Iterator[None]:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    try:
        try:
            with ends_in_order():
                yield
        finally:
            sys.stdout.flush()
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except CircuitError as error:
        click.echo(f"error: {error}", err=True)
        ctx.exit(NOT_SOLVED if isinstance(error, NotSolved) else BAD_INPUT)
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        click.echo(f"error: not enough memory{reason}; {memory_advice}", err=True)
        ctx.exit(NOT_SOLVED)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        ctx.exit(INTERRUPTED)
    except Ended as error:
        number = error.args[0]
        click.echo(f"ended by {signal.Signals(number).name}", err=True)
        ctx.exit(128 + number)
    except OSError as error:  # of stdout: everything else that can fail has its own message
        _forget_stdout()
        if isinstance(error, BrokenPipeError):  # as in `circuitsim ... | head`: the reader has what it wanted
            ctx.exit(BROKEN_PIPE)
        click.echo(f"error: cannot write the result: {error.strerror or error}", err=True)
        ctx.exit(BAD_INPUT)
    except Exception:  # not 1, Python's own code: that of `compare` for a difference
        traceback.print_exc()
        click.echo("error: this is a defect of the program; please report it, with the netlist if you may", err=True)
        ctx.exit(DEFECT)


def _forget_stdout() -> None:
    """What is still buffered goes nowhere, instead of failing once more when Python ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except io.UnsupportedOperation:  # stdout is not a file
        return
