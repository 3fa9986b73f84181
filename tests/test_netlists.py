"""Every deck in netlists/valid against its independent answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import circuitsim as cs

VALID = sorted((Path(__file__).parent.parent / "netlists" / "valid").glob("*.cir"))
FLOOR = 1e-12  # of the largest voltage or current in the deck: what rounding leaves of an answer that is exactly 0


@pytest.mark.parametrize("path", VALID, ids=lambda p: p.stem)
def test_valid_deck_gives_the_independent_answer(path: Path) -> None:
    answer = json.loads(path.with_suffix(".json").read_text())
    solution = cs.solve(cs.load(path), cs.Settings(tol=1e-12))
    for wanted, found in ((answer["voltages"], solution.voltage), (answer.get("currents", {}), solution.current)):
        scale = max((abs(value) for value in wanted.values()), default=0.0)
        for name, value in wanted.items():
            np.testing.assert_allclose(found(name)[0], value, rtol=answer["rtol"], atol=FLOOR * scale, err_msg=name)
    undetermined = {n for n, ok in zip(solution.circuit.nodes, solution.determined, strict=True) if not ok}
    assert undetermined == set(answer.get("undetermined_nodes", []))
