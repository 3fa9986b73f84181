"""ngspice reads digits as circuitsim does, with a netlist that training wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.io.export import export
from circuitsim.io.ngspice import ngspice_available
from training.datasets import MNIST, load_idx_dataset
from training.network import make_learner, trained_elements
from training.recipe import find_recipe
from validation.digits import readings


@pytest.mark.slow
@pytest.mark.skipif(not ngspice_available(), reason="ngspice is not installed")
def test_a_trained_netlist_classifies_alike_in_ngspice(tmp_path: Path) -> None:
    recipe = replace(find_recipe("drn-xs"), algorithm="ep")
    circuit = cs.load(recipe.netlist)
    train, _ = load_idx_dataset(MNIST)
    learner = make_learner(circuit, recipe)
    learner.train(train, np.arange(20_000), recipe.rates(trained_elements(circuit), 0))
    path = tmp_path / "trained.cir"
    export(circuit.with_values(learner.values()), path)
    found = list(readings(path, recipe.gain, 10))
    assert len(found) == 10
    assert all(reading.agrees for reading in found)
    assert sum(int(reading.ours.argmax()) == reading.label for reading in found) >= 8  # it has learnt something
    assert max(float(np.abs(reading.ours - reading.theirs).max()) for reading in found) < 1e-3
