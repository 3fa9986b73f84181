"""The training loop: the order of the samples, steps chunk after chunk, the test set after each epoch.

A run is a sequence of steps that depends only on the learner, the data, the schedule and the seed, not on how many
steps are passed on at a time or where it was interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import SettingsError
from training.checkpoint import Checkpoint, Fingerprint
from training.learner import Learner, Samples, Tally, tally_of
from training.metrics import Row, make_row

Ints = NDArray[np.int64]

CHUNK_SECONDS = 0.2  # what a chunk of steps should take: how long an interrupt waits, how often progress is shown
_MOST_GROWTH = 4  # of the chunk's length from one chunk to the next


@dataclass(frozen=True)
class Schedule:
    """How many steps a run has, and of which samples each is made."""

    samples: int  # of the training set
    batch_size: int
    epochs: int
    steps: int | None = None  # at most so many in all
    shuffled: bool = True  # anew for each epoch; else in the order of the file
    first: int = 0  # the sample that an epoch in file order begins with; after the last one comes sample 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise SettingsError(f"epochs must be at least 1, found {self.epochs}")
        if self.steps is not None and self.steps < 1:
            raise SettingsError(f"steps must be at least 1, found {self.steps}")
        if not 1 <= self.batch_size <= self.samples:
            raise SettingsError(
                f"batch size must be from 1 to the number of training samples, {self.samples}; found "
                f"{self.batch_size}; choose --batch-size {self.samples} or less"
            )
        if not 0 <= self.first < self.samples:
            raise SettingsError(
                f"the first sample must be from 0 to {self.samples - 1}, the last of the training set; "
                f"found {self.first}"
            )

    @property
    def epoch_samples(self) -> int:
        """Samples in an epoch: whole batches only."""
        return self.samples // self.batch_size * self.batch_size

    @property
    def total(self) -> int:
        """Samples in the run."""
        most = self.epochs * self.epoch_samples
        return most if self.steps is None else min(most, self.steps * self.batch_size)

    def order(self, generator: np.random.Generator) -> Ints:
        """The samples of an epoch.

        >>> Schedule(5, 2, 1, shuffled=False, first=3).order(np.random.default_rng(0))
        array([3, 4, 0, 1])
        """
        if self.shuffled:
            return generator.permutation(self.samples)[: self.epoch_samples]
        return (self.first + np.arange(self.epoch_samples)) % self.samples


class Run:
    """A learner working through a schedule. It can be interrupted, and its checkpoint taken, between any two steps of
    `advance`."""

    def __init__(
        self,
        learner: Learner,
        train: Samples,
        test: Samples,
        schedule: Schedule,
        rates: Callable[[int], Mapping[str, float]],
        seed: int,
    ) -> None:
        """`rates` gives the learning rates of an epoch, counted from 0; `seed` draws the order of the samples."""
        self.learner, self.train, self.test = learner, train, test
        self.schedule, self.rates = schedule, rates
        self.rows: list[Row] = []  # of whole epochs
        self.partial: Row | None = None  # of the samples after them, when the run ends within an epoch
        self.last_step: Tally | None = None  # once this process has taken the last step of the run
        self.tally = Tally()  # of the running epoch
        self._generator = np.random.Generator(np.random.PCG64(seed))
        self._epoch_start = self._generator.bit_generator.state
        self._epoch = self._position = 0
        self._seconds = 0.0
        self._clock: float | None = None
        self._chunk_steps = 1

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self._epoch

    @property
    def done(self) -> int:
        """Samples trained on."""
        return self._epoch * self.schedule.epoch_samples + self._position

    @property
    def seconds(self) -> float:
        """Seconds since the run began, without the time in which it was interrupted."""
        return self._seconds + (0.0 if self._clock is None else time.perf_counter() - self._clock)

    @property
    def of_classes(self) -> bool:
        """Whether errors can be counted: in both sets the targets are those of classes."""
        return self.train.of_classes and self.test.of_classes

    @property
    def results(self) -> list[Row]:
        """Rows of the whole epochs, and of the last one when the run has ended within it."""
        return self.rows if self.partial is None else [*self.rows, self.partial]

    def advance(self) -> Iterator[Row | None]:
        """Train to the end of the schedule. Yields after each chunk of steps, and the row after each test.

        At each yield the run's state is complete. Raises LearningError when the learner cannot continue.
        """
        self._clock = time.perf_counter()
        per_epoch, total = self.schedule.epoch_samples, self.schedule.total
        while self.done < total or self._position:
            self._generator.bit_generator.state = self._epoch_start  # also where an epoch is gone on with
            order = self.schedule.order(self._generator)
            rates = self.rates(self._epoch)
            stop = min(per_epoch, total - self._epoch * per_epoch)
            while self._position < stop:
                self._train_chunk(order[:stop], rates)
                yield None
            test = yield from self._tested()
            row = make_row(self._epoch + 1, self.done, self.tally, test, self.seconds)
            if not self.of_classes:
                row = replace(row, train_error=float("nan"), test_error=float("nan"))
            if self._position < per_epoch:
                self.partial = row
                yield row
                return
            self.rows.append(row)
            self._epoch, self._position, self.tally = self._epoch + 1, 0, Tally()
            self._epoch_start = self._generator.bit_generator.state
            yield row

    def _train_chunk(self, order: Ints, rates: Mapping[str, float]) -> None:
        """Some steps. The last one of the run goes alone, for its cost."""
        batch = self.learner.batch_size
        last = self.schedule.total - self._epoch * self.schedule.epoch_samples - batch  # where that begins
        stop = min(self._position + self._chunk_steps * batch, order.size)
        if self._position < last < stop:
            stop = last
        clock = time.perf_counter()
        tally = self.learner.train(self.train, order[self._position : stop], rates)
        seconds = max(time.perf_counter() - clock, 1e-9)
        if self._position == last:
            self.last_step = tally
        steps = (stop - self._position) // batch
        self._chunk_steps = max(1, min(int(steps * CHUNK_SECONDS / seconds), _MOST_GROWTH * self._chunk_steps))
        self.tally += tally
        self._position = stop

    def _tested(self) -> Generator[None, None, Tally]:
        """Tally of the test set, yielding on the way."""
        tally, at_once = Tally(), self.learner.at_once
        for first in range(0, len(self.test), at_once):
            rows = slice(first, min(first + at_once, len(self.test)))
            targets = self.test.targets[rows].astype(np.float64)
            tally += tally_of(self.learner.outputs(self.test, rows), targets)
            yield None
        return tally

    def checkpoint(self, fingerprint: Fingerprint) -> Checkpoint:
        """The state between two steps."""
        return Checkpoint(
            self.learner.arrays(),
            json.dumps(self._epoch_start),
            self._epoch,
            self._position,
            self.tally,
            tuple(self.rows),
            self.seconds,
            fingerprint,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint. SettingsError when it is of another learner, or beyond the schedule."""
        self._epoch, self._position = checkpoint.epoch, checkpoint.position
        if self.done > self.schedule.total:
            raise SettingsError(
                f"the checkpoint stands at {checkpoint.epoch} epochs and {checkpoint.position} samples, beyond the end "
                f"of this run; raise --epochs or --steps"
            )
        self.learner.restore(checkpoint.arrays)
        self._generator.bit_generator.state = self._epoch_start = json.loads(checkpoint.generator)
        self.tally, self.rows, self._seconds = checkpoint.tally, list(checkpoint.rows), checkpoint.seconds
