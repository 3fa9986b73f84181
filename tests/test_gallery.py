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


def branch_voltages(circuit: cs.Circuit) -> np.ndarray:
    """Dense numpy on the circuit's resistors and sources, voltage sources as unknown currents; (nodes,) V."""
    n, ties = len(circuit.nodes), circuit.ties
    a, b, g = circuit.conductors.a, circuit.conductors.b, circuit.conductors.g
    matrix, sides = np.zeros((n + len(ties), n + len(ties))), np.zeros(n + len(ties))
    for row, col in ((a, b), (b, a)):
        np.add.at(matrix, (row, row), g)
        np.add.at(matrix, (row, col), -g)
    np.add.at(sides, circuit.current_sources.b, circuit.current_sources.i[0])
    np.subtract.at(sides, circuit.current_sources.a, circuit.current_sources.i[0])
    own = n + np.arange(len(ties))
    matrix[own, ties.a] = matrix[ties.a, own] = 1.0
    matrix[own, ties.b] = matrix[ties.b, own] = -1.0
    sides[own] = ties.e[0]
    return np.r_[0.0, np.linalg.solve(matrix[1:, 1:], sides[1:])[: n - 1]]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_wired_crossbar_is_the_network_it_says(n: int) -> None:
    circuit = cs.parse(gallery.wired_crossbar(n, wire=300.0, volts=2.0))
    names, c = circuit.nodes, circuit.conductors
    ends = {
        tuple(sorted((names[a], names[b]))): g for a, b, g in zip(c.a.tolist(), c.b.tolist(), c.g.tolist(), strict=True)
    }
    assert len(ends) == len(c) == 3 * n * n
    wires = {}
    for i in range(n):
        for j in range(n):
            assert 1e-5 <= ends[f"a{i}[{j}]", f"b{i}[{j}]"] <= 1e-4
            left = f"a{i}[{j - 1}]" if j else f"x[{i}]"
            below = f"b{i + 1}[{j}]" if i < n - 1 else "0"
            wires |= {tuple(sorted(pair)): 1 / 300 for pair in ((left, f"a{i}[{j}]"), (f"b{i}[{j}]", below))}
    assert {pair: ends[pair] for pair in wires} == pytest.approx(wires, rel=1e-15)
    solution = cs.solve(circuit, PRECISE)
    assert solution.problem.n_free == 2 * n * n
    assert (np.abs(solution.voltage(f"x[0:{n - 1}]")) <= 2.0).all()
    assert_close(solution.voltages()[0], branch_voltages(circuit), 1e-11)
    assert_laws(solution)


@pytest.mark.parametrize("cell", ["diode", "ideal"])
def test_wired_crossbar_with_diodes(cell: str) -> None:
    circuit = cs.parse(gallery.wired_crossbar(3, cell, wire=2e3, volts=3.0, seed=4))
    assert (len(circuit.junctions), len(circuit.ideal_diodes)) == ((9, 0) if cell == "diode" else (0, 9))
    solution = cs.solve(circuit, PRECISE)
    assert solution.problem.n_free == 3 * 9
    current = np.concatenate([solution.current(f"D{i}")[0] for i in range(3)])
    on = current > 1e-9
    assert 0 < on.sum() < 9  # rows at positive and at negative voltages
    if cell == "ideal":  # those that conduct are wires, the others are not there
        diodes = circuit.ideal_diodes
        closed = "".join(
            f"\nVd{k} {circuit.nodes[diodes.a[k]]} {circuit.nodes[diodes.b[k]]} 0" for k in np.flatnonzero(on)
        )
        lines = [line for line in gallery.wired_crossbar(3, cell, wire=2e3, volts=3.0, seed=4).split("\n")
                 if not line.startswith(("D", ".end", ".input"))]  # fmt: skip
        linear = cs.parse("\n".join(lines) + closed)
        assert linear.nodes == circuit.nodes
        assert_close(solution.voltages()[0], branch_voltages(linear), 1e-10)
    else:
        assert_close(solution.voltages()[0], reference_voltages(circuit), 1e-9)
    assert_laws(solution)


def test_wired_crossbar_of_an_unknown_cell() -> None:
    with pytest.raises(KeyError):
        gallery.wired_crossbar(2, "transistor")


def test_current_grid_is_the_network_it_says() -> None:
    circuit = cs.parse(gallery.current_grid(5, 7, seed=3, ohms=2.0, amps=1e-2))
    c, s = circuit.conductors, circuit.current_sources
    assert (len(circuit.nodes), len(c), len(circuit.ties), len(s)) == (26, 40, 4, 7)
    assert (c.g == 0.5).all()
    place = {name: tuple(map(int, name[1:].split("_"))) for name in circuit.nodes[1:]}
    for a, b in zip(c.a, c.b, strict=True):
        (i, j), (k, m) = place[circuit.nodes[a]], place[circuit.nodes[b]]
        assert abs(i - k) + abs(j - m) == 1
    assert {circuit.nodes[k] for k in circuit.ties.a} == {"n0_0", "n0_4", "n4_0", "n4_4"}
    drawn = set(s.a.tolist())
    assert len(drawn) == 7 and not drawn & set(circuit.ties.a.tolist()) and (s.b == 0).all()
    assert (s.i > 0).all() and (s.i < 1e-2).all()
    solution = cs.solve(circuit, PRECISE)
    assert_close(solution.voltages()[0], branch_voltages(circuit), 1e-11)
    assert_laws(solution)
    assert gallery.current_grid(5, 7, seed=3) != gallery.current_grid(5, 7, seed=4)
