"""Benchmarks of training: milliseconds a step, and the floor that memory and arithmetic of this machine allow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numba import prange
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import circuitsim as cs
from circuitsim.compiled import jit
from training.datasets import MNIST, load_idx_dataset
from training.layered import LayeredLearner
from training.learner import Samples
from training.network import make_learner, trained_kinds
from training.recipe import Recipe, find_recipe
from validation.measure import BenchmarkError, Row, Target, fastest, timed

Floats = NDArray[np.float32]

_REPEATS = 5
_SECONDS = 1.0  # of each repeat, about
_RUNS = 21  # of what takes less; the first compiles


@dataclass(frozen=True)
class Goal:
    """What a step should take, and what the paper's public PyTorch code took on a machine of this class, ms."""

    target: float
    paper: float


GOALS = {
    "drn-xs": Goal(0.30, 8.8),
    "drn-1h": Goal(1.0, 98),
    "drn-2h": Goal(5.0, 125),
    "drn-3h": Goal(10.0, 197),
    "drn-xl": Goal(60.0, 6354),
}


def step_rows(threads: int) -> list[Row]:
    """A step of EP and one of BP on each of the five networks: everything but the evaluation of the test set."""
    train, _ = load_idx_dataset(MNIST)
    peak = _flops(threads)
    return [row for name, goal in GOALS.items() for row in _step_rows(name, goal, train, threads, peak)]


def _step_rows(name: str, goal: Goal, train: Samples, threads: int, peak: float) -> list[Row]:
    recipe = find_recipe(name)
    circuit = cs.load(recipe.netlist)
    rates = recipe.rates(trained_kinds(circuit), 0)
    ep, bp = (_learner(circuit, replace(recipe, algorithm=algorithm), threads) for algorithm in ("ep", "bp"))
    measured, back = _step_ms(ep, train, rates), _step_ms(bp, train, rates)
    floor, what = _floor(ep, train, peak, threads)
    note = f"{what}; the paper's code: {goal.paper:g} ms on such a machine, {goal.paper / measured:.0f} times"
    return [
        Row("training", f"{name}, a step of EP", measured, "ms", Target(goal.target), "floor", floor, False, note),
        Row("training", f"{name}, a step of BP", back, "ms", None, "EP", measured, False),
    ]


def _learner(circuit: cs.Circuit, recipe: Recipe, threads: int) -> LayeredLearner:
    learner = make_learner(circuit, recipe, "cpu", threads)
    if not isinstance(learner, LayeredLearner):
        raise BenchmarkError(f"{recipe.netlist.stem} is not recognised as layered")
    return learner


def _step_ms(learner: LayeredLearner, train: Samples, rates: Mapping[str, float]) -> float:
    """Milliseconds a step."""
    order = np.random.default_rng(0).permutation(len(train))
    batch = learner.batch_size

    def steps(first: int, count: int) -> float:
        rows = order[first * batch : (first + count) * batch]
        return timed(learner.train, train, rows, rates)[0] / count * 1e3

    steps(0, 2)  # compile
    count = max(2, int(_SECONDS * 1e3 / steps(2, 4)))
    count = min(count, (len(order) // batch - 6) // _REPEATS)
    return float(np.median([steps(6 + k * count, count) for k in range(_REPEATS)]))


def _floor(learner: LayeredLearner, train: Samples, peak: float, threads: int) -> tuple[float, str]:
    """What a step takes at least, ms: its bytes through memory (or caches), or its arithmetic at the speed of sgemm.

    Bytes: every crossbar is read and written once, those between free layers are read once more in each sweep.
    Arithmetic: in a sweep two products in each direction, for the free phase one row a sample, for the nudged two;
    the update four operations a sample and entry between free layers, two where an input is not 0, one otherwise.
    """
    n, size, sweeps = learner.n.tolist(), learner.batch_size, learner.recipe.sweeps
    inner = sum(a * b for a, b in zip(n[1:], n[2:], strict=False))
    lit = _lit_share(train, size)
    operations = 12 * sweeps * size * inner + (4 * size + 1) * inner + n[0] * n[1] * (3 + 4 * size * lit)
    arithmetic = operations / peak * 1e3
    memory = _pass_ms(n[0], n[1], threads) + (2 * sweeps / 2 + 1) * sum(
        _pass_ms(a, b, threads) for a, b in zip(n[1:], n[2:], strict=False)
    )
    return max(memory, arithmetic), f"floor: memory {memory:.3g} ms, arithmetic {arithmetic:.3g} ms"


def _lit_share(train: Samples, size: int) -> float:
    """The share of features that are not 0 in a whole batch."""
    some = train.features[: 1000 * size].reshape(-1, size, train.features.shape[1])
    return float((some != 0).any(axis=1).mean())


def _flops(threads: int) -> float:
    """Operations a second of a float32 product of matrices."""
    a, b = np.ones((1024, 1024), np.float32), np.ones((1024, 1024), np.float32)
    with threadpool_limits(threads, "blas"):
        return 2 * 1024**3 / fastest(_RUNS, lambda: a @ b)[0]


def _pass_ms(rows: int, cols: int, threads: int) -> float:
    """One pass over a crossbar, whole rows at a time: read, subtract, clip, write, add to the sums of the columns."""
    g, c = np.ones((rows, cols), np.float32), np.zeros(cols, np.float32)
    parts = min(threads, rows)
    sums = np.zeros((parts, cols), np.float32)
    return 1e3 * min(fastest(_RUNS, lambda some=some: _one_pass(g, c, some))[0] for some in (sums[:1], sums))


@jit(parallel=True, fastmath={"contract", "nsz"})
def _one_pass(g, c, sums):  # type: ignore[no-untyped-def]
    parts = sums.shape[0]
    for k in prange(parts):
        for i in range(g.shape[0] * k // parts, g.shape[0] * (k + 1) // parts):
            row = g[i]
            for j in range(row.size):
                value = row[j] - c[j]
                value = value if value > 0 else np.float32(0)
                row[j] = value
                sums[k, j] += value
