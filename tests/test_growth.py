"""The exponent of work whose cost is known, by a clock that the work alone moves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest
from growth import LIMIT, exponent


class Clock:
    """Reads what work has cost so far, and keeps the size of each run."""

    def __init__(self, cost: Callable[[int], float], slowness: Iterator[float] | None = None) -> None:
        self.cost, self.slowness = cost, slowness or repeat(1.0)
        self.now = 0.0
        self.runs: list[int] = []
        self.collected: list[bool] = []

    def prepare(self, n: int) -> Callable[[], None]:
        def work() -> None:
            self.runs.append(n)
            self.collected.append(gc.isenabled())
            self.now += self.cost(n) * next(self.slowness)

        return work

    def read(self) -> float:
        return self.now


def found(clock: Clock, **options: int) -> float:
    return exponent(clock.prepare, 100, clock=clock.read, **options)


@pytest.mark.parametrize("power", [0, 1, 1.4])
def test_work_below_the_limit_is_measured_once(power: float) -> None:
    clock = Clock(lambda n: float(n) ** power)
    assert found(clock) == pytest.approx(power, abs=1e-6)
    assert clock.runs == [100, 400] * 3
    assert found(clock, factor=2, repeats=1) == pytest.approx(power, abs=1e-6)
    assert clock.runs[6:] == [100, 200]


@pytest.mark.parametrize("power", [2, 3])
def test_work_above_the_limit_is_measured_three_times(power: int) -> None:
    clock = Clock(lambda n: float(n) ** power)
    assert found(clock, repeats=2) == pytest.approx(power)
    assert clock.runs == [100, 400] * 2 * 3


def test_a_quadratic_term_of_half_the_linear_one_is_the_limit() -> None:
    assert found(Clock(lambda n: n + 0.52 * n**2 / 100)) > LIMIT
    assert found(Clock(lambda n: n + 0.48 * n**2 / 100)) < LIMIT


def test_what_disturbs_does_not_count() -> None:
    """Two runs of three are slow; then all of the large ones in the first two tries."""
    clock = Clock(float, chain([9, 1, 1, 9, 9, 9], repeat(1.0)))
    assert found(clock) == pytest.approx(1)
    assert len(clock.runs) == 6
    clock = Clock(float, chain([1, 20] * 3, [1, 10] * 3, repeat(1.0)))
    assert found(clock) == pytest.approx(1)
    assert len(clock.runs) == 18


def test_the_fastest_runs_of_all_tries_count() -> None:
    """A small run that was slowed down does not make work look cheaper than another try has shown."""
    clock = Clock(float, chain([1, 4], [16, 5], [4, 64]))
    assert found(clock, repeats=1) == pytest.approx(2)
    assert len(clock.runs) == 6


def test_garbage_is_collected_again_after_the_work_and_after_its_errors() -> None:
    clock = Clock(float)
    found(clock)
    assert not any(clock.collected)
    assert gc.isenabled()

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        exponent(lambda n: fail, 100)
    assert gc.isenabled()
