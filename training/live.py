"""Interaction with a running training: Ctrl-C, and progress on the terminal."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from circuitsim.cli import common
from circuitsim.io.commands import in_order
from circuitsim.io.tables import console
from training.metrics import error_percent
from training.run import Run


@contextmanager
def interrupts(elsewhere: Callable[[], bool] | None = None) -> Iterator[Callable[[], int]]:
    """Yields a function that returns 0 until the first Ctrl-C, SIGTERM or SIGHUP, then the signal's number.

    `elsewhere` returning true counts as Ctrl-C. A second signal has its usual effect at once. Signals that are ignored,
    as under nohup, stay ignored: somebody wants this to continue. SIGTERM and SIGHUP are handled only in programs that
    end in order: workers of a study end at once.
    """
    asked = 0

    def stop() -> int:
        return asked or (signal.SIGINT if elsewhere is not None and elsewhere() else 0)

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            old = before[number]
            (old if callable(old) else signal.default_int_handler)(number, frame)
        asked = number

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()  # no other thread can handle signals
    found = {number: signal.getsignal(number) for number in numbers if main}
    before = {
        number: old
        for number, old in found.items()
        if in_order(old) or (number == signal.SIGINT and old is not signal.SIG_IGN)
    }
    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, old in before.items():
            if signal.getsignal(number) is handle:  # not where a second one is ignored until all is cleaned up
                signal.signal(number, old)


class Quiet:
    """No progress; lines go to stdout."""

    def update(self) -> None:
        """Show how far the run is."""

    def line(self, text: str) -> None:
        """A line that stays."""
        click.echo(text)


class _Live(Quiet):
    """A bar on the terminal, with lines above it."""

    def __init__(self, run: Run, bar: Progress) -> None:
        self.run, self.bar = run, bar
        self.task = bar.add_task(
            "", total=run.schedule.total, completed=run.done, epoch=run.epoch + 1, rate="", learnt="starting"
        )

    def update(self) -> None:
        run, tally = self.run, self.run.tally
        if tally.samples:
            learnt = f"cost {tally.cost / tally.samples:.3g}"
            if run.of_classes:
                learnt += f"  error {error_percent(tally):.2f} %"
            self.bar.update(self.task, learnt=learnt)
        speed = self.bar.tasks[self.task].speed
        self.bar.update(
            self.task,
            completed=run.done,
            epoch=min(run.epoch + 1, run.schedule.epochs),
            rate=f"{speed:,.0f} examples/s" if speed else "",
        )

    def line(self, text: str) -> None:
        if sys.stdout.isatty():
            self.bar.console.print(text)
        else:
            click.echo(text)


@contextmanager
def progress(run: Run) -> Iterator[Quiet]:
    """What shows how far a run is: on a terminal only."""
    if not common.on_terminal():
        yield Quiet()
        return
    columns = (
        TextColumn(f"epoch {{task.fields[epoch]}}/{run.schedule.epochs}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[learnt]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True, redirect_stdout=False) as bar:
        yield _Live(run, bar)
