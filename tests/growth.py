"""How the cost of work grows with its size: the one timing that any machine, fast, slow or busy, answers alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable

LIMIT = 1.5  # of an exponent, between linear work (1; to 1.3 where caches run full) and quadratic work (2)
_TRIES = 3  # other processes disturb: what they slow down is measured again


def exponent(
    prepare: Callable[[int], Callable[[], object]],
    size: int,
    factor: int = 4,
    repeats: int = 3,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """p of time ~ size^p, from `size` to `factor * size`: log(t_large / t_small) / log(factor).

    prepare(n) gives the work of size n, ready to be timed; what it does itself is not. Both sizes run `repeats` times
    in turn, without garbage collection, and the fastest run of each counts: work must not remember what it did before.
    While p is not below LIMIT, this is done up to two times more, and the fastest of all runs count. `size` must be
    large enough that what grows faster than linearly would be half of the rest, or more.
    """
    works = [prepare(size), prepare(factor * size)]
    best = [math.inf, math.inf]
    p = math.inf
    for _ in range(_TRIES):
        best = [min(pair) for pair in zip(best, _fastest(works, repeats, clock), strict=True)]
        p = math.log(best[1] / best[0]) / math.log(factor)
        if p < LIMIT:
            break
    return p


def _fastest(works: list[Callable[[], object]], repeats: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of the fastest run of each."""
    best = [math.inf] * len(works)
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeats):
            for k, work in enumerate(works):
                start = clock()
                work()
                best[k] = min(best[k], clock() - start)
    finally:
        if enabled:
            gc.enable()
    return best
