"""ngspice reads digits as circuitsim does, with a netlist that training wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import needs_ngspice

from validation.digits import readings, train_quickly


@pytest.mark.slow
@needs_ngspice
def test_a_trained_netlist_classifies_alike_in_ngspice(tmp_path: Path) -> None:
    path = tmp_path / "trained.cir"
    gain = train_quickly(path)
    found = list(readings(path, gain, 10))
    assert len(found) == 10
    assert all(reading.agrees for reading in found)
    assert sum(int(reading.ours.argmax()) == reading.label for reading in found) >= 8  # it has learnt something
    assert max(float(np.abs(reading.ours - reading.theirs).max()) for reading in found) < 1e-3
