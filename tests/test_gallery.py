"""The gallery: known answers come out, and random circuits are what they promise to be."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import PRECISE, assert_close, assert_laws, reference_voltages

import circuitsim as cs
from circuitsim import gallery
from circuitsim.gallery import Known, Recipe, random_circuit

KNOWN = {
    "divider": gallery.divider(12.0, 2e3, 1e3),
    "ladder": gallery.ladder(10),
    "grid": gallery.grid(4, 6, volts=3.0),
    "one row": gallery.grid(1, 5),
    "crossbar": gallery.crossbar(5, 7),
    "diode_or": gallery.diode_or([1.0, 4.0, 2.5], forward=0.3),
    "diode_or of negative inputs": gallery.diode_or([-1.0, -4.0]),
}


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN.keys())
def test_known_voltages(known: Known) -> None:
    solution = cs.solve(cs.parse(known.text), PRECISE)
    assert set(known.voltages) == set(solution.circuit.nodes[1:])
    found = np.array([solution.voltage(node)[0] for node in known.voltages])
    assert_close(found, np.array(list(known.voltages.values())), 1e-11)
    assert_laws(solution)


def test_drn_has_layers_roles_and_signs() -> None:
    circuit = cs.parse(gallery.drn([3, 5, 4, 2], seed=7, gain=20.0))
    assert [x.g.shape for x in circuit.crossbars] == [(3, 5), (5, 4), (4, 2)]
    assert circuit.netlist.inputs == ("Vx",)
    assert [circuit.nodes[k] for k in circuit.netlist.outputs] == ["y[0]", "y[1]"]
    assert circuit.netlist.trained == ("RW1", "Ib1", "RW2", "Ib2", "RW3", "Ib3")
    solution = cs.solve(circuit, PRECISE)
    h1, h2 = solution.voltage("h1[0:4]")[0], solution.voltage("h2[0:3]")[0]
    assert (h1[:2] >= 0).all() and (h1[2:] <= 0).all() and (h2[:2] >= 0).all() and (h2[2:] <= 0).all()
    assert (np.concatenate([h1, h2]) == 0).any() and (np.concatenate([h1, h2]) != 0).any()
    assert_laws(solution)
    assert_close(solution.voltages()[0], reference_voltages(circuit), 1e-9)


def test_drn_layer_of_one_node() -> None:
    circuit = cs.parse(gallery.drn([2, 1, 1], seed=3))
    assert len(circuit.ideal_diodes) == 1


def test_drn_crossbars_are_the_law_they_say() -> None:
    """g = max(0, U(-c, c)): half of it zero, the rest evenly spread up to c = 1/sqrt(fan-in)."""
    g = cs.parse(gallery.drn([400, 100, 3])).crossbars[0].g
    assert 0.48 < (g == 0).mean() < 0.52
    assert 0.049 < g.max() <= 0.05
    assert abs(g[g > 0].mean() - 0.025) < 5e-4


def test_random_circuit_is_reproducible_and_varies() -> None:
    texts = [random_circuit(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_random_circuits_hold_every_kind_of_element() -> None:
    circuits = [cs.parse(random_circuit(np.random.default_rng(seed))) for seed in range(30)]
    for table in ("conductors", "ties", "current_sources", "junctions", "ideal_diodes", "crossbars"):
        assert any(len(getattr(c, table)) for c in circuits), table
    assert any(len(c.netlist.tables["L"]) for c in circuits) or any((c.ties.kind == 0).any() for c in circuits)
    assert any(np.isfinite(c.junctions.params[c.junctions.law == 0, 3]).any() for c in circuits)
    assert any((c.junctions.params[c.junctions.law == 0, 2] > 0).any() for c in circuits)


def test_linear_recipe_has_only_resistors_sources_and_bare_ideal_diodes() -> None:
    for seed in range(10):
        circuit = cs.parse(random_circuit(np.random.default_rng(seed), Recipe().linear()))
        assert not len(circuit.junctions) and not circuit.ideal_diodes.vf.any()
