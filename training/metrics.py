"""The progress of a training run, epoch by epoch: numbers, CSV, learning curve, TensorBoard."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from circuitsim.errors import BackendUnavailable
from circuitsim.io.files import replacing
from circuitsim.io.pictures import write_picture
from circuitsim.plot import curves
from circuitsim.plot.style import need_matplotlib
from training.learner import Tally

_DIGITS = 6


@dataclass(frozen=True)
class Row:
    """A line of metrics.csv: an epoch's training, then the test set. Six digits, except for the seconds."""

    epoch: int  # from 1
    examples: int  # trained on since the start of the run
    train_cost: float  # mean of C over the epoch's samples, each taken before the update it led to, V^2
    train_error: float  # % of them that were not recognised; NaN where the targets are not of classes
    test_error: float  # %, likewise
    test_cost: float  # mean of C over the test samples, V^2
    seconds: float  # since the start of the run, without the time in which it was interrupted


COLUMNS = tuple(field.name for field in fields(Row))


def make_row(epoch: int, examples: int, train: Tally, test: Tally, seconds: float) -> Row:
    """The row of an epoch.

    A cost is cut to six digits: beyond fifteen, a sum depends on the lengths of the pieces that it was made of.

    >>> make_row(1, 60000, Tally(60000, 20000.0, 3000), Tally(10000, 0.0, 346), 15.0).train_cost
    0.333333
    """
    return Row(
        epoch,
        examples,
        _cut(train.cost / train.samples),
        _cut(error_percent(train)),
        _cut(error_percent(test)),
        _cut(test.cost / test.samples),
        round(seconds, 3),
    )


def error_percent(tally: Tally) -> float:
    """The percentage of samples that were not recognised."""
    return 100.0 * tally.wrong / tally.samples


def _cut(x: float) -> float:
    return float(f"{x:.{_DIGITS}g}")


def row_text(row: Row, epochs: int) -> str:
    """A row as a line for people."""
    tested = f"train error {row.train_error:6.2f} %  test error {row.test_error:6.2f} %  "
    if math.isnan(row.test_error):  # no classes
        tested = f"test cost {row.test_cost:<8.4g}  "
    return (
        f"epoch {row.epoch:{len(str(epochs))}d}/{epochs}  train cost {row.train_cost:<8.4g}  {tested}"
        f"{row.seconds:9.1f} s"
    )


def reached(row: Row) -> str:
    """The figures of a row in words: errors, or the cost where there are no classes."""
    if math.isnan(row.test_error):
        return f"train cost {row.train_cost:.3g} V^2, test cost {row.test_cost:.3g} V^2"
    return f"train error {row.train_error:.2f} %, test error {row.test_error:.2f} %"


def write_metrics(rows: Sequence[Row], path: Path) -> None:
    """Write metrics.csv, completely or not at all. SettingsError when it cannot be written."""
    with replacing(path, "w") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(row) for row in rows)


def plot_curve(rows: Sequence[Row], expected: Mapping[str, float], title: str, path: Path) -> None:
    """A picture of errors and cost over the epochs; `expected` errors by name (train, test) are dotted lines.

    BackendUnavailable without matplotlib.
    """
    try:
        need_matplotlib()
    except BackendUnavailable as error:
        raise BackendUnavailable(f"no learning curve drawn: {error}") from None
    found = {name: [float(getattr(row, name)) for row in rows] for name in (*curves.COLUMNS, curves.TEST_COST)}
    write_picture(curves.draw({title: found}, title, expected), path)


def need_tensorboard() -> None:
    """BackendUnavailable without the package tensorboardX."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            f'--tensorboard: {error}; install it with `pip install "circuitsim[tensorboard]"`'
        ) from None


class TensorBoard:
    """Writes every row for TensorBoard. BackendUnavailable as need_tensorboard."""

    def __init__(self, folder: Path) -> None:
        need_tensorboard()
        from tensorboardX import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def add(self, row: Row) -> None:
        """One point in each diagram, at the number of examples."""
        for name in ("train_cost", "train_error", "test_error", "test_cost"):
            if not math.isnan(getattr(row, name)):
                self._writer.add_scalar(name, getattr(row, name), row.examples)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
