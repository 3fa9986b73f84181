"""Laws of nature on random circuits, and rewritings of a deck that must not change the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import (
    PRECISE,
    assert_close,
    assert_laws,
    flat_text,
    reference_voltages,
    renumbered,
    voltages,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import circuitsim as cs
from circuitsim.gallery import Recipe, drn, random_circuit

SAME = 1e-9  # of the largest voltage: two solves of one circuit to a relative KCL of 1e-12
seeds = st.integers(0, 10_000)


def examples(count: int) -> Callable[[Any], Any]:
    """The same random examples in every run."""
    return settings(max_examples=count, derandomize=True, deadline=None, database=None)


def deck(seed: int, recipe: Recipe | None = None) -> str:
    rng = np.random.default_rng(seed)
    return random_circuit(rng, replace(recipe or Recipe(), nodes=int(rng.integers(2, 11))))


MIXES = [
    Recipe(),
    Recipe(shockley=5, pwl=5, ideal=3, crossbars=4, shorts=4, floating_sources=3, subcircuits=2),
    Recipe(volts=60.0, current_sources=4),
    Recipe(nodes=4, shorts=3, floating_sources=4),
    Recipe(laws=6, crossbars=2),
    Recipe(shockley=5, recombination=True),
]
OPTIONS = ["", "\n.options gmin=1e-9 rshunt=1e5", "\n.temp 85"]


@examples(80)
@given(seeds, st.sampled_from(MIXES), st.sampled_from(OPTIONS))
def test_laws_of_nature_and_an_independent_solver(seed: int, recipe: Recipe, options: str) -> None:
    circuit = cs.parse(deck(seed, recipe) + options)
    solution = cs.solve(circuit, PRECISE)
    assert_laws(solution)
    assert_close(solution.voltages()[0], reference_voltages(circuit), 1e-8)


@examples(15)
@given(seeds)
def test_default_tolerance_keeps_the_laws_too(seed: int) -> None:
    assert_laws(cs.solve(cs.parse(deck(seed))), tol=1e-8)


@examples(20)
@given(seeds, st.sampled_from([1e-3, 0.5, 40.0, 1e6]))
def test_scaling_conductances_and_currents_leaves_voltages(seed: int, k: float) -> None:
    circuit = cs.parse(deck(seed))
    scaled = cs.parse(flat_text(circuit, conductance=k, current=k))
    one, other = cs.solve(circuit, PRECISE), cs.solve(scaled, PRECISE)
    assert_close(voltages(other, circuit.nodes), voltages(one, circuit.nodes), SAME)


@examples(20)
@given(seeds, st.sampled_from([1e-6, 0.3, 1e3]))
def test_scaling_sources_scales_voltages_of_resistors_and_ideal_diodes(seed: int, k: float) -> None:
    circuit = cs.parse(deck(seed, Recipe().linear()))
    scaled = cs.parse(flat_text(circuit, current=k, voltage=k))
    one, other = cs.solve(circuit, PRECISE), cs.solve(scaled, PRECISE)
    assert_close(voltages(other, circuit.nodes), k * voltages(one, circuit.nodes), SAME)


@examples(25)
@given(seeds)
def test_order_of_cards_and_names_of_nodes_do_not_matter(seed: int) -> None:
    circuit = cs.parse(deck(seed))
    text, new_name = renumbered(circuit, np.random.default_rng(seed))
    one, other = cs.solve(circuit, PRECISE), cs.solve(cs.parse(text), PRECISE)
    renamed = [new_name[node] for node in circuit.nodes]
    assert_close(voltages(other, renamed), voltages(one, circuit.nodes), SAME)


@examples(20)
@given(seeds, st.sampled_from([1.0, 100.0]))
def test_starting_point_does_not_matter(seed: int, spread: float) -> None:
    problem = cs.compile_problem(cs.parse(deck(seed)))
    start = np.random.default_rng(seed).normal(0, spread, (1, problem.n_free))
    kept = start.copy()
    one, other = cs.solve(problem, PRECISE), cs.solve(problem, PRECISE, start=start)
    assert_close(other.voltages(), one.voltages(), SAME)
    assert np.array_equal(start, kept)


@examples(15)
@given(seeds, st.integers(2, 5))
def test_row_of_a_batch_is_a_solve_of_its_own(seed: int, batch: int) -> None:
    circuit = cs.parse(deck(seed))
    rng = np.random.default_rng(seed)
    tables = circuit.netlist.tables
    sources: dict[str, Any] = {name: rng.uniform(-4, 4, batch) for name in tables["V"].names if name[:2] == "Vg"}
    sources |= {name: rng.uniform(-1e-3, 1e-3, batch) for name in tables["I"].names}
    solution = cs.solve(circuit.with_values(sources), PRECISE)
    assert solution.batch == batch
    assert_laws(solution)
    for row in range(batch):
        single = cs.solve(circuit.with_values({name: value[row] for name, value in sources.items()}), PRECISE)
        assert_close(solution.voltages()[row], single.voltages()[0], SAME)


def test_batch_larger_than_a_tile_of_the_solver() -> None:
    circuit = cs.parse(drn([3, 4, 2], gain=10.0))
    x = np.random.default_rng(0).normal(0, 10, (600, 3))
    solution = cs.solve(circuit.with_values({"Vx": x}), PRECISE)
    assert_laws(solution)
    for row in (0, 255, 256, 511, 512, 599):
        single = cs.solve(circuit.with_values({"Vx": x[row]}), PRECISE)
        assert_close(solution.voltages()[row], single.voltages()[0], SAME)


# -- the same circuit written differently ------------------------------------------------------------------------------


@examples(25)
@given(seeds)
def test_flat_deck_is_the_deck_with_arrays_and_subcircuits(seed: int) -> None:
    text = random_circuit(np.random.default_rng(seed), Recipe(nodes=9, crossbars=3))
    if seed % 2:  # more colours than a crossbar is split into: it is solved branch by branch
        text += "\nRK[0:8][0:8] n[0:8] n[0:8] g={max(0, aunif(0, 1m))}"
    circuit = cs.parse(text)
    flat = cs.parse(flat_text(circuit))
    assert not flat.netlist.arrays and not flat.crossbars
    one, other = cs.solve(circuit, PRECISE), cs.solve(flat, PRECISE)
    assert_close(voltages(other, circuit.nodes), voltages(one, circuit.nodes), SAME)


def test_flat_deck_large_enough_for_dense_blocks() -> None:
    """65 x 70 and 70 x 64 crossbars with half of the entries present, one of them at known nodes."""
    circuit = cs.parse(drn([65, 70, 64], gain=50.0))
    flat = cs.parse(flat_text(circuit))
    problem, flat_problem = cs.compile_problem(circuit), cs.compile_problem(flat)
    for p in (problem, flat_problem):
        kinds = [(d.row.units is None, d.col.units is None) for d in p.topology.dense]
        assert sorted(kinds) == [(False, False), (True, False)]
    assert all(d.crossbar >= 0 for d in problem.topology.dense)
    assert all(d.crossbar == -1 for d in flat_problem.topology.dense)
    one, other = cs.solve(problem, PRECISE), cs.solve(flat_problem, PRECISE)
    assert_laws(one)
    assert_close(voltages(other, circuit.nodes), voltages(one, circuit.nodes), SAME)


ODD = ["V1 p[1] q[3] 0.5", "Rw1 p[1] p[2] 1k", "Rw2 p[2] p[3] 1k", "Rw3 p[1] p[3] 1k"]


@pytest.mark.parametrize("odd", [[], ODD], ids=["two colours", "general graph"])
def test_dense_core_with_offsets_parallel_resistors_and_known_nodes(odd: list[str]) -> None:
    """A 70 x 70 crossbar as one card and as flat resistors, inside a graph of other branches."""
    rng = np.random.default_rng(0)
    lines = ["dense core", "V0 p[0] 0 2", "V2 q[5] q[6] -1.5", "V3 p[9] p[7] 3", "Rpar q[1] p[2] 1k"]
    lines += [f"Rp{i} p[{i}] 0 {rng.uniform(10, 100)!r}" for i in range(1, 70)]
    lines += [f"Rq{j} q[{j}] 0 {rng.uniform(10, 100)!r}" for j in range(70)]
    lines += [*odd, "I0 0 q[2] 10m", "RX[0:69][0:69] p[0:69] q[0:69] g={max(0, aunif(0, 1m))}"]
    circuit = cs.parse("\n".join(lines))
    flat_problem = cs.compile_problem(cs.parse(flat_text(circuit)))
    assert flat_problem.topology.bipartite == (not odd)
    if not odd:
        assert flat_problem.topology.dense
    one, other = cs.solve(circuit, PRECISE), cs.solve(flat_problem, PRECISE)
    assert_laws(one)
    assert_close(voltages(other, circuit.nodes), voltages(one, circuit.nodes), SAME)


# -- new values over an old topology -----------------------------------------------------------------------------------


def by_node(problem: cs.Problem) -> tuple[list[np.ndarray], np.ndarray]:
    """diag, to_fixed and injection by root node, and W as a dense matrix by root node."""
    t, v = problem.topology, problem.values
    n = len(problem.circuit.nodes)
    root = t.root_of_unit
    columns = []
    for column in (v.diag, v.to_fixed, problem.drive(slice(0, 1)).injection[0]):
        full = np.zeros(n)
        full[root] = column
        columns.append(full)
    w = v.couplings.toarray()
    for spec, g in zip(t.dense, v.dense, strict=True):
        if spec.inner:
            rows, cols = np.arange(t.n_free)[spec.row.units], np.arange(t.n_free)[spec.col.units]
            w[np.ix_(rows, cols)] += g
            w[np.ix_(cols, rows)] += g.T
    full_w = np.zeros((n, n))
    full_w[np.ix_(root, root)] = w
    return columns, full_w


@examples(25)
@given(seeds)
def test_new_values_equal_a_fresh_compilation(seed: int) -> None:
    circuit = cs.parse(deck(seed, Recipe(crossbars=2)) + "\nRK[0:1][0:1] n[0:1] n[0:1] g=0.1m")
    rng = np.random.default_rng(seed)
    tables = circuit.netlist.tables
    arrays = [ref for ref in circuit.netlist.arrays.values() if ref.kind == "R"]
    single = [
        name
        for i, name in enumerate(tables["R"].names)
        if tables["R"].values["r"][i] > 0 and not any(ref.start <= i < ref.stop for ref in arrays)
    ]
    new: dict[str, Any] = {name: rng.uniform(-3, 3) for name in tables["V"].names}
    new |= {name: rng.uniform(-1e-3, 1e-3) for name in tables["I"].names}
    new |= {name: 10 ** rng.uniform(-5, -3) for name in single}
    new |= {"rg": 10 ** rng.uniform(-4, -3, arrays[0].stop - arrays[0].start)}
    for x in circuit.crossbars:
        new[x.name] = rng.uniform(0, 1e-3, x.g.shape) * (rng.random(x.g.shape) < 0.7)
    updated = cs.compile_problem(circuit).with_values(new)
    fresh = cs.compile_problem(circuit.with_values(new))
    flat = cs.compile_problem(cs.parse(flat_text(circuit.with_values(new))))
    one, other, third = (by_node(p) for p in (updated, fresh, flat))
    for a, b in zip(one[0], other[0], strict=True):
        assert_close(a, b, 1e-13)
    assert_close(one[1], other[1], 1e-13)
    assert_close(one[0][0].sum(), third[0][0].sum(), 1e-13)
    solution = cs.solve(updated, PRECISE)
    assert_laws(solution)
    assert_close(solution.voltages(), cs.solve(fresh, PRECISE).voltages(), SAME)
    assert_close(voltages(cs.solve(flat, PRECISE), circuit.nodes), solution.voltages(), SAME)


def test_new_values_by_text() -> None:
    """One deck written with two sets of numbers: the first, given the numbers of the second, is the second."""

    def text(v: float, i: float, r: float, array: float, cross: float) -> str:
        return f"""two decks
V1 a 0 {v!r}
V2 b c {2 * v!r}
I1 0 c {i!r}
I2[0:1] 0 h[0:1] {i!r}
R1 a b g={r!r}
Rg[0:2] h[0:2] 0 g={array!r}
RX[0:1][0:2] a[0:1] h[0:2] g={cross!r}
RY[0:2][0:1] h[0:2] a[0:1] g={cross!r}
R2 a[0] b g={r!r}
R3 a[1] c g={r!r}
R4 c 0 g={r!r}"""

    old = cs.compile_problem(cs.parse(text(1.0, 1e-3, 1e-3, 1e-3, 1e-3)))
    new = cs.parse(text(-2.5, 3e-4, 2e-3, 5e-4, 7e-4))
    values: dict[str, Any] = {"V1": -2.5, "V2": -5.0, "I1": 3e-4, "i2": [3e-4, 3e-4], "Rg": np.full(3, 5e-4)}
    values |= {"R1": 2e-3, "r2": 2e-3, "R3": 2e-3, "R4": 2e-3, "RX": np.full((2, 3), 7e-4), "RY": 7e-4}
    updated, fresh = old.with_values(values), cs.compile_problem(new)
    np.testing.assert_array_equal(updated.topology.root_of_unit, fresh.topology.root_of_unit)
    np.testing.assert_allclose(updated.values.diag, fresh.values.diag, rtol=1e-15)
    np.testing.assert_allclose(updated.values.to_fixed, fresh.values.to_fixed, rtol=1e-13)
    for name in ("couplings", "known_couplings"):
        found, wanted = (getattr(problem.values, name).toarray() for problem in (updated, fresh))
        np.testing.assert_allclose(found, wanted, rtol=1e-15)
    one, other = cs.solve(updated, PRECISE), cs.solve(fresh, PRECISE)
    assert_close(one.voltages(), other.voltages(), SAME)
    assert_laws(one)
    unchanged = cs.solve(old, PRECISE)
    assert np.abs(unchanged.voltages() - one.voltages()).max() > 0.1


# -- number formats and refusals ---------------------------------------------------------------------------------------


@examples(15)
@given(seeds)
def test_float32_agrees_with_float64(seed: int) -> None:
    circuit = cs.parse(deck(seed, Recipe(decades=1.0, ground=(5e-4, 1e-3))))
    single = cs.solve(circuit, cs.Settings(dtype="float32"))
    assert single.residuals.kcl_relative <= 1e-5
    assert_close(single.voltages(), cs.solve(circuit, PRECISE).voltages(), 1e-4)


TWO_NODES = """ideal diode between two nodes that can both move
.model ideal D(ron=0)
V1 p 0 1
V2 n 0 -1
R1 p left 1
R2 n right 1
Dlink left right ideal"""


def test_ideal_diode_between_free_nodes_is_refused_by_bcd_and_solved_by_newton() -> None:
    """From (-5, 5) block coordinate descent would stop at (1, 1); the answer is (0, 0)."""
    circuit = cs.parse(TWO_NODES)
    solution = cs.solve(circuit, cs.Settings("bcd"), raise_on_failure=False)
    assert solution.status is cs.Status.REFUSED and not solution.solved
    for word in ("Dlink", "left", "right", "netlist:7"):
        assert word in solution.message
    assert np.isnan(solution.voltage("left")).all() and np.isnan(solution.voltage("right")).all()
    with pytest.raises(cs.NotSolved, match="Dlink") as caught:
        cs.solve(circuit, cs.Settings("bcd"))
    assert caught.value.solution.status is cs.Status.REFUSED
    solution = cs.solve(circuit, PRECISE)
    assert_laws(solution)
    np.testing.assert_allclose([solution.voltage("left")[0], solution.voltage("right")[0]], 0, atol=1e-12)
    np.testing.assert_allclose(solution.current("Dlink"), 1, rtol=1e-12)
