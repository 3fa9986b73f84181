"""Commands whose errors are messages and exit codes, never tracebacks. Imports nothing but click."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from circuitsim.errors import CircuitError, NotSolved

OK, DIFFER, BAD_INPUT, NOT_SOLVED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141
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


@contextmanager
def _exit_codes(ctx: click.Context, memory_advice: str) -> Iterator[None]:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
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
    except OSError as error:  # of stdout: everything else that can fail has its own message
        _forget_stdout()
        if isinstance(error, BrokenPipeError):  # as in `circuitsim ... | head`: the reader has what it wanted
            ctx.exit(BROKEN_PIPE)
        click.echo(f"error: cannot write the result: {error.strerror or error}", err=True)
        ctx.exit(BAD_INPUT)


def _forget_stdout() -> None:
    """What is still buffered goes nowhere, instead of failing once more when Python ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except io.UnsupportedOperation:  # stdout is not a file
        return
