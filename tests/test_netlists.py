"""Every deck in netlists/valid against its independent answer.

A deck whose answer file has the key `bcd` is one that block coordinate descent is known not to finish (conductances
1e24 apart: contraction per sweep 1 - 1e-24); then the honest status is asserted instead.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import WAITING

import circuitsim as cs

VALID = sorted((Path(__file__).parent.parent / "netlists" / "valid").glob("*.cir"))
FLOOR = 1e-12  # of the largest voltage or current in the deck: what rounding leaves of an answer that is exactly 0


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.xfail(strict=True, raises=cs.TopologyError)) if p.stem in WAITING else p
     for p in VALID],
    ids=lambda p: p.stem,
)  # fmt: skip
def test_valid_deck_gives_the_independent_answer(path: Path) -> None:
    answer = json.loads(path.with_suffix(".json").read_text())
    settings = cs.Settings(tol=1e-12, max_sweeps=2_000)
    solution = cs.solve(cs.load(path), settings, raise_on_failure=False)
    assert solution.status.name == answer.get("bcd", "SOLVED"), solution.message
    if not solution.solved:
        return
    for wanted, found in ((answer["voltages"], solution.voltage), (answer.get("currents", {}), solution.current)):
        scale = max((abs(value) for value in wanted.values()), default=0.0)
        for name, value in wanted.items():
            np.testing.assert_allclose(found(name)[0], value, rtol=answer["rtol"], atol=FLOOR * scale, err_msg=name)
    undetermined = {n for n, ok in zip(solution.circuit.nodes, solution.determined, strict=True) if not ok}
    assert undetermined == set(answer.get("undetermined_nodes", []))
