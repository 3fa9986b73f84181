"""A learner that is quick and simple, and a program that is killed again and again.

    python fake_learner.py FOLDER KILLS SEED               the fake learner's run in FOLDER, killed so many times
    python fake_learner.py KILLS SEED LONGEST OPTION ...   the same with training.mnist and its options

One process imports everything and forks the ones that it kills: each is at work at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.learner import Ints, LearningError, Samples, Tally, check_arrays, tally_of
from training.record import Record
from training.run import Run, Schedule

Floats = NDArray[np.float64]

FINGERPRINT = {"netlist": "0" * 64, "dtype": "float64", "batch_size": 2}
SCHEDULE = Schedule(samples=41, batch_size=2, epochs=3)


class FakeLearner:
    """y = W x + b + 0.3 (the state that the step before left): one wrong bit changes all that follows."""

    def __init__(self, batch_size: int = 2, features: int = 3, outputs: int = 2, pause: float = 0.0) -> None:
        self.batch_size, self.pause = batch_size, pause
        self.w = np.linspace(-0.5, 0.7, outputs * features).reshape(outputs, features)
        self.b = np.zeros(outputs)
        self.state = np.zeros((batch_size, outputs))
        self.free = self.state
        self.calls: list[int] = []  # steps in each call

    at_once = 250
    path = "fake"

    def prepare(self, samples: Samples) -> None:
        samples.inputs(slice(0, 1), self.w.shape[1])

    def train(self, samples: Samples, order: Ints, rates: Mapping[str, float]) -> Tally:
        assert order.size and order.size % self.batch_size == 0
        self.calls.append(order.size // self.batch_size)
        tally = Tally()
        for first in range(0, order.size, self.batch_size):
            rows = order[first : first + self.batch_size]
            x = samples.inputs(rows, self.w.shape[1])
            y = x @ self.w.T + self.b + 0.3 * self.state
            slope = (y - samples.targets[rows]) / self.batch_size
            self.w = self.w - rates["W"] * slope.T @ x
            self.b = self.b - rates["b"] * slope.sum(axis=0)
            if not np.isfinite(self.w).all():
                raise LearningError("W: its new values are not finite; choose smaller learning rates")
            self.free, self.state = y, np.tanh(y - slope)
            tally += tally_of(y, samples.targets[rows])
            time.sleep(self.pause)
        return tally

    def outputs(self, samples: Samples, rows: slice) -> Floats:
        return samples.inputs(rows, self.w.shape[1]) @ self.w.T + self.b

    def arrays(self) -> dict[str, NDArray]:
        return {"W": self.w.copy(), "b": self.b.copy(), "the state": self.state.copy()}

    def restore(self, arrays: Mapping[str, NDArray]) -> None:
        check_arrays(arrays, self.arrays())
        self.w, self.b, self.state = (np.array(arrays[name]) for name in ("W", "b", "the state"))

    def values(self) -> dict[str, Floats]:
        return {"W": self.w.copy(), "b": self.b.copy()}

    def free_state(self) -> list[Floats]:
        return [self.free]


def make_samples(count: int, seed: int, features: int = 3) -> Samples:
    """Points, and on which side of a plane they lie."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, features))
    side = (x @ np.linspace(1.0, -1.0, features) + 0.1 * rng.standard_normal(count) > 0).astype(np.int64)
    return Samples(x, 1.0, np.eye(2, dtype=np.float32)[side])


def fake_rates(epoch: int) -> dict[str, float]:
    """Learning rates of an epoch."""
    return {"W": 0.1 * 0.9**epoch, "b": 0.05 * 0.9**epoch}


def make_run(schedule: Schedule = SCHEDULE, learner: FakeLearner | None = None, seed: int = 5) -> Run:
    """A fake learner's run."""
    train, test = make_samples(schedule.samples, 1), make_samples(601, 2)
    return Run(learner or FakeLearner(schedule.batch_size), train, test, schedule, fake_rates, seed)


def fake_program(folder: Path, pause: float) -> None:
    """A run that saves whenever it can; goes on with what it finds."""
    started = (folder / "checkpoint.npz").exists()
    record = Record(folder, folder / "checkpoint.npz" if started else None)
    run = make_run(learner=FakeLearner(pause=pause))
    checkpoint = record.load(FINGERPRINT)
    if checkpoint:
        run.restore(checkpoint)
    record.save(run.checkpoint(FINGERPRINT))
    for _ in run.advance():
        record.save(run.checkpoint(FINGERPRINT))
    record.write_metrics(run.results)


def mnist_program(arguments: list[str]) -> None:
    """python -m training.mnist; goes on with what it finds."""
    from training.mnist import main

    folder = Path(arguments[arguments.index("--out") + 1])
    started = (folder / "checkpoint.npz").exists()
    main([*arguments, *(["--resume"] if started else [])])


def kill_again_and_again(program: Callable[[], None], kills: int, seed: int, longest: float) -> None:
    """Run it in processes of their own: `kills` are killed after up to `longest` seconds, the last one may end."""
    rng = random.Random(seed)
    killed = 0
    while True:
        pid = os.fork()
        if pid == 0:
            program()
            os._exit(0)
        if killed < kills:
            time.sleep(rng.uniform(0, longest))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            print(f"killed {killed} times, then exit {os.waitstatus_to_exitcode(status)}")
            sys.exit(os.waitstatus_to_exitcode(status))
        killed += 1


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        import training.mnist  # before the forks
        import training.network  # noqa: F401

        count, chance = map(int, sys.argv[1:3])
        kill_again_and_again(lambda: mnist_program(sys.argv[4:]), count, chance, float(sys.argv[3]))
    else:
        count, chance = map(int, sys.argv[2:4])
        kill_again_and_again(lambda: fake_program(Path(sys.argv[1]), 0.001), count, chance, 0.04)
