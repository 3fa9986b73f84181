"""Random circuits of all families, against ngspice and against the references of random_circuits.py.

Each is first judged by references that share no code with circuitsim, then compared with ngspice node by node. Where a
deck shows a fault it is made as small as it gets, and saved in the folder `disagreements` of --results.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from validation.faults import Judged, judged
from validation.random_decks import FAMILIES, random_deck, shares
from validation.results import said
from validation.shrink import save, shrink

pytestmark = pytest.mark.usefixtures("ngspice")

CHUNK = 10  # circuits of a test


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """--count circuits from seed --seed on, shared among the families."""
    count, seed = (metafunc.config.getoption(name) for name in ("count", "seed"))
    chunks = [
        (family, range(seed + first, seed + min(first + CHUNK, share)))
        for family, share in shares(count).items()
        for first in range(0, share, CHUNK)
    ]
    names = [f"family {family}, {FAMILIES[family]}, seeds {seeds[0]} to {seeds[-1]}" for family, seeds in chunks]
    metafunc.parametrize(("family", "seeds"), chunks, ids=names)


def test_random_circuits(family: int, seeds: range, results: Path, record: Callable[[dict[str, Any]], None]) -> None:
    wrong = []
    for seed in seeds:
        found = judged(random_deck(family, seed))
        record(found.row)
        if found.fault:
            small = shrink(found.deck, lambda deck, fault=found.fault: judged(deck).fault == fault)
            wrong.append(f"{said(found.row)}\n    smallest: {_saved(small, found, results)}")
    assert not wrong, "\n".join(wrong)


def _saved(small: Any, found: Judged, results: Path) -> Path:
    return save(small, said(found.row), results / "disagreements")
