"""Commands whose errors are messages and exit codes, never tracebacks. Imports little besides click."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import click

from circuitsim.errors import CircuitError, NetlistError, NotSolved

OK, DIFFER, BAD_INPUT, NOT_SOLVED, DEFECT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 70, 130, 141
_PATIENCE = 2.0  # seconds in which compiled code may end after a signal, also on a busy machine
_AGAIN = 0.1  # seconds after which an exception that was lost is raised once more
_MOST_REMARKS = 10  # about a netlist in which an error was found
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class Subcommand(click.Command):
    """One of a Group: options that take one value are given once, as the last would take the place of the others."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click. UsageError for what is given twice."""
        given = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(given)
            single = [x for x in order if isinstance(x, click.Option) and not (x.is_flag or x.multiple or x.count)]
            twice = next((x for k, x in enumerate(single) if x in single[:k]), None)
            if twice is not None:
                raise click.UsageError(f"{twice.opts[0]} is given twice; give it once", ctx)
        return rest


class _Program(Subcommand):
    """What both have: help and version that cannot be written are an error as well."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See click. Its own output comes before `invoke`. Without a stderr messages go nowhere."""
        if sys.stderr is None:
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  for as long as the program runs
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            _forget_stdout()
            click.echo(_cannot_write(error), err=True)
            sys.exit(BAD_INPUT)


class Command(_Program):
    """A program of one command."""

    memory_advice = "use a smaller netlist"

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; errors become messages."""
        with _exit_codes(ctx, self.memory_advice):
            return super().invoke(ctx)


class Group(_Program, click.Group):
    """A program of several commands."""

    memory_advice = "solve fewer batch rows, or a smaller netlist"

    def invoke(self, ctx: click.Context) -> Any:
        """Run one of them; errors become messages."""
        with _exit_codes(ctx, self.memory_advice):
            return super().invoke(ctx)


class _Raised(BaseException):
    """What a signal raises, with its number. `lost` is called when it is deleted without having been `handled`.

    Compiled code may ask an object for an attribute, and take any exception as a no (NumPy does).
    """

    _lost: Callable[[int], None] | None = None

    def __init__(self, number: int, lost: Callable[[int], None] | None = None) -> None:
        super().__init__(number)
        self._lost = lost

    def __reduce__(self) -> tuple[type[_Raised], tuple[int]]:
        """A copy, also one for another process, is not reported when lost."""
        return type(self), (int(self.args[0]),)

    def __del__(self) -> None:
        if self._lost:
            self._lost(self.args[0])


def handled(error: BaseException) -> None:
    """Must be called with a KeyboardInterrupt or Ended that is not raised any further."""
    if isinstance(error, _Raised):
        error._lost = None


class Ended(_Raised):
    """A signal asks this program to end; its number. Not an Exception, so that only clean-up happens on the way out."""


class Interrupted(_Raised, KeyboardInterrupt):
    """Ctrl-C. Not a KeyboardInterrupt itself: where that leaves a string which is executed, as dataclasses do during an
    import, CPython ends what `python -m` runs by SIGINT, whatever exit code it asked for."""


def raised_by(number: int) -> _Raised:
    """What a signal raises, without a callback for when it is lost."""
    return Interrupted(number) if number == signal.SIGINT else Ended(number)


@contextmanager
def ends_in_order(patience: float | None = None) -> Iterator[None]:
    """SIGTERM and SIGHUP raise Ended, so that child processes are ended and temporary folders removed.

    What is ignored, as nohup ignores SIGHUP, stays ignored. Only the main thread can ask for that, and only between
    two steps of Python. Where compiled code keeps it from them for more than `patience` seconds, Ctrl-C too, there is
    no way to clean up: the program ends there. An exception that is lost, as compiled code loses it that calls back, is
    raised once more. Inside the compiler, whose objects an exception leaves half made (to free them is then a
    segmentation fault), none is raised: it comes when the compiler is done.
    """
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()
    taken = [number for number in signals if main and signal.getsignal(number) is signal.SIG_DFL]
    heard = threading.Event()
    over = threading.Event()
    again: list[tuple[int, threading.Timer]] = []

    def end(number: int, frame: FrameType | None) -> None:
        if _compiles(frame):
            return lost(number)
        heard.set()
        for one in taken:
            signal.signal(one, signal.SIG_IGN)  # until all is cleaned up
        raise Ended(number, lost)  # which no variable here may hold: it is gone when the last who has it lets it go

    end.in_order = True  # type: ignore[attr-defined]

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _compiles(frame):
            return lost(number)
        heard.set()
        raise Interrupted(number, lost)

    def lost(number: int) -> None:
        if over.is_set() or threading.current_thread() is not threading.main_thread():
            return
        heard.clear()
        for one in taken:
            signal.signal(one, end)
        timer = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
        again.append((number, timer))
        timer.start()

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        if not isinstance(found.exc_value, (KeyboardInterrupt, Ended)) or not main:
            hook(found)
        elif not isinstance(found.exc_value, _Raised):  # nobody will say so
            lost(signal.SIGINT)

    hook = sys.unraisablehook
    if main:
        sys.unraisablehook = unraisable
    for number in taken:
        signal.signal(number, end)
    keyboard = main and patience and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if keyboard:
        signal.signal(signal.SIGINT, interrupt)
    try:
        with _watched((end, interrupt), heard, patience) if main and patience else nullcontext():
            yield
    except Exception:
        if again:  # what its callback had not done may be missing
            number = again[0][0]
            raise raised_by(number) from None
        raise
    finally:
        over.set()
        for _, timer in again:
            timer.cancel()
        sys.unraisablehook = hook
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
        if keyboard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _compiles(frame: FrameType | None) -> bool:
    """Whether this frame is one of Numba and its LLVM, or was called by one."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in ("numba", "llvmlite"):
            return True
        frame = frame.f_back
    return False


def in_order(handler: object) -> bool:
    """Whether this handler of a signal is that of `ends_in_order` for SIGTERM and SIGHUP."""
    return getattr(handler, "in_order", False)


@contextmanager
def _watched(handlers: Sequence[Callable[..., None]], heard: threading.Event, patience: float) -> Iterator[None]:
    """End the program when one of these signal handlers has not run within so many seconds of its signal."""
    out, into = os.pipe()
    os.set_blocking(into, False)

    def watch() -> None:
        while number := int.from_bytes(os.read(out, 1)):
            if signal.getsignal(number) in handlers and not heard.wait(patience):
                _end_at_once(number)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(into, warn_on_full_buffer=False)  # the number of a signal is written there at once
    try:
        yield
    finally:
        heard.set()  # Python runs: a signal that another handler took, while the watcher slept, is none to wait for
        signal.set_wakeup_fd(before)
        os.close(into)
        watcher.join()
        os.close(out)


def _end_at_once(number: int) -> None:
    text, code = _ending(number)
    cursor = "\x1b[?25h" if os.isatty(2) else ""  # which progress has hidden
    os.write(2, f"{cursor}{text}\n".encode())
    os._exit(code)


def ending(error: BaseException) -> tuple[str, int]:
    """What a program says that a KeyboardInterrupt or Ended ends, and its exit code."""
    return _ending(int(error.args[0]) if isinstance(error, Ended) else signal.SIGINT)


def _ending(number: int) -> tuple[str, int]:
    """What a program that a signal ends says, and its exit code."""
    if number == signal.SIGINT:
        return "interrupted", INTERRUPTED
    return f"ended by {signal.Signals(number).name}", 128 + number


@contextmanager
def _exit_codes(ctx: click.Context, memory_advice: str) -> Iterator[None]:
    if sys.stdout is None:  # closed before it began: what goes there is nobody's
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        if isinstance(sys.stdout.buffer, io.FileIO):  # python -u: it writes what there is room for, and is content
            number, encoding = sys.stdout.fileno(), sys.stdout.encoding
            sys.stdout = open(number, "w", buffering=1, encoding=encoding, closefd=False)  # noqa: SIM115
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    try:
        try:
            with ends_in_order(_PATIENCE):
                yield
        finally:
            sys.stdout.flush()
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except CircuitError as error:
        for at, remark in error.remarks[:_MOST_REMARKS] if isinstance(error, NetlistError) else ():
            click.echo(f"warning: {at}: {remark}", err=True)  # the cause may be among them
        click.echo(f"error: {error}", err=True)
        ctx.exit(NOT_SOLVED if isinstance(error, NotSolved) else BAD_INPUT)
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        click.echo(f"error: not enough memory{reason}; {memory_advice}", err=True)
        ctx.exit(NOT_SOLVED)
    except (KeyboardInterrupt, Ended) as error:
        handled(error)
        text, code = ending(error)
        click.echo(text, err=True)
        ctx.exit(code)
    except OSError as error:  # of stdout: everything else that can fail has its own message
        _forget_stdout()
        if isinstance(error, BrokenPipeError):  # as in `circuitsim ... | head`: the reader has what it wanted
            ctx.exit(BROKEN_PIPE)
        click.echo(_cannot_write(error), err=True)
        ctx.exit(BAD_INPUT)
    except Exception:  # not 1, Python's own code: that of `compare` for a difference
        traceback.print_exc()
        click.echo("error: this is a defect of the program; please report it, with the netlist if you may", err=True)
        ctx.exit(DEFECT)


def _cannot_write(error: OSError) -> str:
    return f"error: cannot write the result: {error.strerror or error}"


def _forget_stdout() -> None:
    """Discard what is still buffered, so that it does not fail once more when Python ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except io.UnsupportedOperation:  # stdout is not a file
        return
