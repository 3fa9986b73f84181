"""Random draws for the functions of expressions: for one seed (NumPy's generator), or for many netlists at once.

For many, every value that depends on a draw, or on anything else that differs between them (expand.Changes), has an
additional last axis, the netlists. Each netlist has its own generator and draws from it what it would draw if evaluated
alone, in the same order; an evaluation for one seed has recorded the kinds and numbers of draws. Where these may differ
between netlists, they cannot be evaluated together: `NotTogether`.

Many instances of a subcircuit are evaluated together in the same way (expand.py), all with one generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from math import prod
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNIFORM, NORMAL = "uniform", "normal"
MOST_SEED = 2**53  # beyond, a number in a netlist is no longer exact


class NotTogether(Exception):
    """Values for many seeds cannot be evaluated together: draws depend on draws, or one number must serve all seeds."""


class Recorder:
    """Draws from a generator, and keeps (kind, how many numbers) of each draw."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.drawn: list[tuple[str, int]] = []

    def random(self, shape: tuple[int, ...]) -> Any:
        self.drawn.append((UNIFORM, prod(shape)))
        return self.rng.random(shape)

    def standard_normal(self, shape: tuple[int, ...]) -> Any:
        self.drawn.append((NORMAL, prod(shape)))
        return self.rng.standard_normal(shape)


class Together:
    """Draws for many, from a generator each, what a Recorder has `drawn`; shapes get the many as their last axis.

    All numbers are drawn here, first those of the first.
    """

    def __init__(self, generators: Sequence[np.random.Generator], drawn: list[tuple[str, int]]) -> None:
        self.count, self.drawn = len(generators), drawn
        self.at = self.start = 0
        self.branches = 0  # of conditions, entered now, that are not the same for all
        numbers = np.empty((self.count, sum(count for _, count in drawn)))
        runs = [(kind, sum(count for _, count in run)) for kind, run in groupby(drawn, key=lambda draw: draw[0])]
        for row, rng in zip(numbers, generators, strict=True) if runs else ():
            start = 0
            for kind, count in runs:  # the same numbers as one by one
                row[start : start + count] = rng.random(count) if kind == UNIFORM else rng.standard_normal(count)
                start += count
        self.numbers = np.ascontiguousarray(numbers.T)

    def random(self, shape: tuple[int, ...]) -> Floats:
        return self._take(UNIFORM, shape)

    def standard_normal(self, shape: tuple[int, ...]) -> Floats:
        return self._take(NORMAL, shape)

    def _take(self, kind: str, shape: tuple[int, ...]) -> Floats:
        size = prod(shape)
        if self.branches or self.at == len(self.drawn) or self.drawn[self.at] != (kind, size):
            raise NotTogether
        found = self.numbers[self.start : self.start + size]
        self.at, self.start = self.at + 1, self.start + size
        return found.reshape(*shape, self.count)


class OfInstances(Together):
    """Draws for many instances of a subcircuit, one after another from one generator."""

    def __init__(self, rng: np.random.Generator, count: int, drawn: list[tuple[str, int]]) -> None:
        super().__init__([rng] * count, drawn)


class Drawn(Exception):
    """A random number was requested where none is allowed."""


class NoChance:
    """Draws nothing: for conditions of `.if`."""

    def random(self, shape: tuple[int, ...]) -> NoReturn:
        raise Drawn

    standard_normal = random


Chance: TypeAlias = np.random.Generator | Recorder | Together | NoChance


def seed_by_seed(chance: Chance, compute: Callable[..., Any], *values: Any) -> Any:
    """The value of a function whose last digits depend on how many values it is given at once."""
    if not isinstance(chance, Together) or not any(map(np.ndim, values)):
        return compute(*values)
    wide = [np.asarray(value)[..., None] if not np.ndim(value) else value for value in values]
    singly = [
        compute(*(value[..., k if value.shape[-1] > 1 else 0].copy()[()] for value in wide))
        for k in range(chance.count)
    ]
    return np.stack(singly, axis=-1)


def mark(chance: Chance) -> object:
    """What is another once something has been drawn."""
    if isinstance(chance, np.random.Generator):
        return chance.bit_generator.state
    if isinstance(chance, Recorder):
        return len(chance.drawn)
    return chance.at if isinstance(chance, Together) else None


def single(value: float | Floats) -> float:
    """A value that must be the same for all seeds. Raises NotTogether when it differs between seeds."""
    if np.ndim(value):
        raise NotTogether
    return float(value)
