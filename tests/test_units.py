"""Tied nodes, islands and colours, each against a slow and obvious construction."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from growth import LIMIT, exponent
from helpers import PRECISE, assert_laws
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim import currents
from circuitsim.coloring import color_units
from circuitsim.islands import find_islands
from circuitsim.problem import arranged
from circuitsim.units import signed_path, tie_forest, unique_ties

Ints = NDArray[np.int64]


def parse(*cards: str) -> cs.Circuit:
    return cs.parse("\n".join(["test", *cards]))


# -- forests of ties ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_offsets_are_sums_of_source_voltages(seed: int) -> None:
    """Random consistent ties: potentials drawn first, sources between them; a batch of two levels."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 30))
    potential = np.concatenate([[0.0], rng.integers(-20, 20, n)]) / 4  # exact in binary: sums do not round
    pairs = rng.integers(0, n + 1, (int(rng.integers(1, 2 * n)), 2))
    names = ["0", *(f"n{k}" for k in range(1, n + 1))]
    cards = [f"V{k} {names[a]} {names[b]} {float(potential[a] - potential[b])!r}" for k, (a, b) in enumerate(pairs)]
    circuit = parse(*cards)
    forest = tie_forest(circuit)
    e = np.concatenate([circuit.ties.e, 3 * circuit.ties.e])
    offsets = forest.offsets(e)
    of_node = np.array([potential[names.index(name)] for name in circuit.nodes])[forest.nodes]
    np.testing.assert_array_equal(offsets[0], of_node - of_node[forest.root])
    np.testing.assert_array_equal(offsets[1], 3 * offsets[0])
    cs.compile_problem(circuit)  # no loop is contradictory
    moves = forest.offsets(np.eye(len(circuit.ties)))  # (ties, tied nodes): -1, 0, 1
    out = rng.integers(-9, 9, (3, forest.nodes.size)).astype(float)
    np.testing.assert_array_equal(forest.pulls(out, len(circuit.ties)), out @ moves.T)
    some = rng.choice(len(circuit.ties), 1 + len(circuit.ties) // 3, replace=False)
    np.testing.assert_array_equal(forest.moved_by(some), moves[some].any(axis=0))

    graph = nx.MultiGraph(pairs.tolist())
    used = [circuit.nodes.index(names[k]) for k in graph.nodes]
    assert sorted(used) == forest.nodes.tolist()
    groups = {frozenset(circuit.nodes.index(names[k]) for k in part) for part in nx.connected_components(graph)}
    found: dict[int, set[int]] = {}
    for node, root in zip(forest.nodes.tolist(), forest.nodes[forest.root].tolist(), strict=True):
        found.setdefault(root, set()).add(node)
    assert {frozenset(group) for group in found.values()} == groups
    assert all(root == min(group) for root, group in found.items())
    assert forest.chords.size == len(pairs) - (graph.number_of_nodes() - len(groups))


def test_parent_equation_of_the_forest() -> None:
    """v[node] = v[parent] + sign e[tie], for a chain long enough for several doublings."""
    circuit = parse(
        *(f"V{k} n{k + 1} n{k} {k}" if k % 2 else f"V{k} n{k} n{k + 1} {k}" for k in range(40)), "R1 n0 0 1"
    )
    forest = tie_forest(circuit)
    offsets = forest.offsets(circuit.ties.e)[0]
    step = forest.sign * circuit.ties.e[0, forest.tie]
    np.testing.assert_array_equal(offsets, np.where(forest.sign == 0, 0.0, offsets[forest.parent] + step))
    assert offsets[-1] == sum(k if k % 2 else -k for k in range(40))
    assert forest.depth >= 40 and forest.chords.size == 0


def test_no_ties() -> None:
    forest = tie_forest(parse("I1 0 a 1", "R1 a 0 1"))
    assert forest.nodes.size == 0 and forest.offsets(np.zeros((1, 0))).shape == (1, 0)


def test_inconsistent_loop_names_its_elements_and_volts() -> None:
    circuit = parse("V1 a 0 1", "V2 b a 2", "V3 b 0 3.5", "V4 c 0 9", "R1 b c 1")
    with pytest.raises(cs.TopologyError, match=r"V3.*0\.5 V") as caught:
        cs.compile_problem(circuit)
    assert set(caught.value.elements) == {"V1", "V2", "V3"}
    assert caught.value.at is not None and caught.value.at.line == 4
    assert set(caught.value.nodes) == {"a", "b"} and "row" not in str(caught.value)


def test_elements_of_a_loop_are_named_in_the_order_in_which_they_follow() -> None:
    circuit = parse(*(f"V{k} n{k} n{(k + 1) % 9} 1" for k in range(9)), "R1 n0 0 1")
    with pytest.raises(cs.TopologyError, match="its voltages add up to 9 V instead of 0; put a resistor") as caught:
        cs.compile_problem(circuit)
    numbers = [int(name[1:]) for name in caught.value.elements]
    steps = {(b - a) % 9 for a, b in pairwise([*numbers, numbers[0]])}
    assert sorted(numbers) == list(range(9)) and steps in ({1}, {8})


def test_loop_in_one_row_of_a_batch_names_the_row() -> None:
    circuit = parse("V1 a 0 1", "V2 a 0 1").with_values({"V1": [1.0, 1.0, 2.0]})
    with pytest.raises(cs.TopologyError, match="batch row 2"):
        cs.solve(circuit)


def test_loop_in_a_later_tile_of_a_batch_names_the_row() -> None:
    e = np.ones(300)
    e[270] = 2.0
    circuit = parse("V1 a 0 1", "V2 a 0 1", "R1 a 0 1").with_values({"V1": e})
    with pytest.raises(cs.TopologyError, match="batch row 270"):
        cs.solve(circuit)
    problem = arranged(circuit)
    problem.fixed_potentials(slice(0, 256))
    with pytest.raises(cs.TopologyError, match="batch row 270"):
        problem.fixed_potentials(slice(256, 300))


def test_rounding_counts_from_the_largest_voltage_of_the_row() -> None:
    """Row 0 misses 0.05 V by 2e-11, its rounding; row 1 misses 1 V by 1e-11, which is more than that."""
    circuit = parse("V1 a 0 1", "V2 a b 1", "V3 b 0 0", "R1 a 0 1")
    large = {"V1": [1000000.1, 1.0], "V2": [1000000.0, 1.0], "V3": [0.1, 1e-11]}
    with pytest.raises(cs.TopologyError, match="add up to 1e-11 V instead of 0 in batch row 1;"):
        cs.solve(circuit.with_values(large))


@pytest.mark.parametrize("batch", [3, 600])
def test_consistent_loop_in_every_row_of_a_batch(batch: int) -> None:
    """Sources in parallel that agree row by row, in one tile of the solver and in several."""
    e = np.linspace(1.0, 2.0, batch)
    circuit = parse("V1 a 0 1", "V2 a 0 1", "R1 a 0 1").with_values({"V1": e, "V2": e})
    solution = cs.solve(circuit, PRECISE)
    np.testing.assert_array_equal(solution.voltage("a"), e)
    np.testing.assert_allclose(solution.current("V2"), -e / 2, rtol=1e-12)


@pytest.mark.parametrize("card", ["V1 a a 5", "V1 0 0 5", "V1 0 gnd 5"])
def test_source_across_one_node_is_a_loop(card: str) -> None:
    with pytest.raises(cs.TopologyError, match=r"V1: .*5 V"):
        cs.solve(parse(card, "R1 a 0 1", "I1 0 a 1"))


def test_rounding_in_a_loop_is_no_contradiction() -> None:
    assert_laws(cs.solve(parse("V1 a 0 0.1", "V2 b a 0.2", "V3 b 0 0.3", "R1 b 0 1")))


def test_more_than_rounding_is_a_contradiction() -> None:
    assert cs.solve(parse("V1 a 0 1", "V2 a 0 {1+8e-13}", "R1 a 0 1")).solved
    with pytest.raises(cs.TopologyError, match=r"add up to 1\.19993e-12 V"):
        cs.solve(parse("V1 a 0 1", "V2 a 0 {1+1.2e-12}", "R1 a 0 1"))


def test_rounding_in_a_loop_counts_from_its_largest_voltage() -> None:
    """1000000.1 - 1000000 is 0.1 but for 2e-11: less than an ulp of the largest voltage, no contradiction."""
    loop = ["V1 a 0 1000000.1", "V2 b a -1000000", "V3 c 0 0.05", "V4 d c 0.03", "V5 b d 0.02"]
    assert_laws(cs.solve(parse(*loop, "R1 b 0 1")), tol=1e-9)


def test_loops_of_a_long_chain_take_linear_time() -> None:
    """Two batteries side by side in each link: what is a loop is short, however far from ground."""

    def prepare(n: int):  # type: ignore[no-untyped-def]
        links = [f"V{k}{x} n{k} {f'n{k - 1}' if k else 0} 0.1" for k in range(n) for x in "ab"]
        problem = cs.compile_problem(parse(*links, "R1 n0 0 1"))
        return lambda: problem.fixed_potentials(slice(0, 1))

    assert exponent(prepare, 500) < LIMIT


@pytest.mark.parametrize("seed", range(20))
def test_paths_of_ties_are_those_of_networkx(seed: int) -> None:
    """With the volts between their ends, and without a tie that is passed twice."""
    rng = np.random.default_rng(seed)
    circuit = parse(*(f"V{k} n{rng.integers(k + 1)} n{k + 1} {rng.normal()}" for k in range(30)), "R1 n0 n1 1")
    forest = tie_forest(circuit)
    graph = nx.Graph(zip(circuit.ties.a.tolist(), circuit.ties.b.tolist(), strict=True))
    e = circuit.ties.e[0]
    v = dict(zip(forest.nodes.tolist(), forest.offsets(e[None])[0].tolist(), strict=True))
    for a in forest.nodes.tolist():
        for b in forest.nodes.tolist():
            path = signed_path(forest, a, b)
            assert len(path) == nx.shortest_path_length(graph, a, b)
            assert abs(sum(sign * e[tie] for tie, sign in path) - (v[a] - v[b])) < 1e-12


# -- currents of ties --------------------------------------------------------------------------------------------------


def test_currents_without_loops_are_unique() -> None:
    solution = cs.solve(parse("V1 a 0 2", "V2 b a 3", "R1 b 0 5", "R2 a 0 1", "Lx b c", "R3 c 0 5"), PRECISE)
    current, unique = solution.tie_currents
    np.testing.assert_allclose(current, [[-4.0, -2.0, 1.0]], rtol=1e-14)
    assert unique.all()
    assert_laws(solution)


def test_current_of_a_loop_is_the_least_norm_one() -> None:
    """3 A into b: V1 alone would carry it, but so does the longer way V2, V3: 1/3 and 2/3 by least norm."""
    solution = cs.solve(parse("V1 a 0 1", "V2 c 0 1", "V3 c a 0", "I1 a 0 3", "V4 d a 0", "R1 d 0 1"), PRECISE)
    current, unique = solution.tie_currents
    total = 4.0  # out of a: 3 A and 1 V / 1 ohm
    wanted = [-2 / 3 * total, -total / 3, total / 3, -1.0]
    np.testing.assert_allclose(current, [wanted], rtol=1e-12)
    assert unique.tolist() == [False, False, False, True]
    assert_laws(solution)


def test_currents_of_sources_at_a_crossbar_hold_few_rows_of_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where voltages have more digits than float64 holds, each conductance of it has a current in each row."""
    circuit = parse("V1[0:7] x[0:7] 0 1", "RW[0:7][0:7] x[0:7] h[0:7] 1k", "D[0:7] h[0:7] 0 d", ".model d d")
    volts = np.random.default_rng(0).normal(size=(40, 8))
    solution = cs.solve(circuit.with_values({"V1": volts}), cs.Settings(method="newton"))
    solution = replace(solution, low=1e-17 * solution.x[None])
    whole, _ = currents.tie_currents(solution)
    held, drops = list[int](), currents._crossbar_drops

    def counted(*given):  # type: ignore[no-untyped-def]
        found = drops(*given)
        held.append(found.size)
        return found

    monkeypatch.setattr(currents, "_crossbar_drops", counted)
    monkeypatch.setattr(currents, "_WORK", 1_000)
    assert np.array_equal(currents.tie_currents(solution)[0], whole)
    assert sum(held) == 40 * 64 and max(held) <= 1_000


def test_a_source_of_0_volts_from_a_node_to_itself_has_any_current() -> None:
    solution = cs.solve(parse("V1 a 0 1", "V2 a a 0", "V3 a b 0", "V4 a b 0", "R1 b 0 1"), PRECISE)
    current, unique = solution.tie_currents
    np.testing.assert_allclose(current, [[-1.0, 0.0, 0.5, 0.5]], atol=1e-14)
    assert unique.tolist() == [True, False, False, False]


def test_sources_that_control_others_are_on_no_loop_of_ties() -> None:
    """H1 and V9 fix the current of Vs, so that V3 beside it has one; that of Vt is told by open_currents alone."""
    loop = ["V1 a 0 1", "V2 a 0 1", "V3 a b 0", "Vs a b 0", "R1 b 0 1k", "H1 x 0 Vs 1k", "V9 x 0 1", "R2 x 0 1k"]
    circuit = parse(*loop, "Vt c c 0", "R3 c 0 1k", "F1 0 q Vt 1", "R4 q 0 1k")
    unique = unique_ties(circuit, tie_forest(circuit))
    names = [circuit.element(circuit.ties, k) for k in range(len(circuit.ties))]
    assert [name for name, one in zip(names, unique.tolist(), strict=True) if not one] == ["V1", "V2"]


def test_parallel_shorts_share() -> None:
    solution = cs.solve(parse("V1 a 0 1", "R1 b 0 1", *(f"Rz{k} a b 0" for k in range(4))), PRECISE)
    for k in range(4):
        np.testing.assert_allclose(solution.current(f"Rz{k}"), [0.25], rtol=1e-12)
    assert solution.tie_currents[1].tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(("seed", "most"), [*((seed, 9) for seed in range(10)), (10, 60)])
def test_least_norm_against_the_pseudo_inverse(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(most // 3, most))
    pairs = [(a, b) for a, b in rng.integers(0, n, (2 * n, 2)).tolist() if a != b]
    cards = [f"V{k} n{a} n{b} 0" for k, (a, b) in enumerate(pairs)] + [f"Rg{k} n{k} 0 1k" for k in range(n)]
    cards += [f"I{k} 0 n{k} {rng.normal()!r}" for k in range(n)]
    solution = cs.solve(parse(*cards), PRECISE)
    ties = solution.circuit.ties
    incidence = np.zeros((len(solution.circuit.nodes), len(ties)))
    np.add.at(incidence, (ties.a, np.arange(len(ties))), 1.0)
    np.add.at(incidence, (ties.b, np.arange(len(ties))), -1.0)
    needed = np.zeros(len(solution.circuit.nodes))
    for k in range(n):
        node = solution.circuit.netlist.node(f"n{k}")
        needed[node] = solution.current(f"I{k}")[0] - solution.current(f"Rg{k}")[0]
    np.testing.assert_allclose(solution.tie_currents[0][0], np.linalg.pinv(incidence) @ needed, rtol=0, atol=1e-11)
    null = np.eye(len(ties)) - np.linalg.pinv(incidence) @ incidence  # a branch is free if some circulation uses it
    assert solution.tie_currents[1].tolist() == (np.abs(null).max(axis=1) < 1e-9).tolist()


# -- islands -----------------------------------------------------------------------------------------------------------


def roots(circuit: cs.Circuit) -> Ints:
    root = np.arange(len(circuit.nodes))
    forest = tie_forest(circuit)
    root[forest.nodes] = forest.nodes[forest.root]
    return root


def test_islands_pins_and_arcs() -> None:
    circuit = parse(
        "R1 a 0 1", "R2 b c 1", "V1 c d 2", "R3 e f 1", ".model m D(is=1n)", ".model k D(ron=1)", ".model i D(ron=0)",
        "D1 b e m", "D2 0 g k", "R4 g h 1", "D3 h a i",
    )  # fmt: skip
    islands = find_islands(circuit, roots(circuit))
    part = dict(zip(circuit.nodes, islands.part.tolist(), strict=True))
    assert part["a"] == part["0"] == 0
    assert part["b"] == part["c"] == part["d"] != part["e"] == part["f"]
    assert part["g"] == part["h"] not in (0, part["b"], part["e"])
    assert [circuit.nodes[k] for k in islands.pins] == ["b"]
    pinned = {name for name, is_pinned in zip(circuit.nodes, islands.pinned, strict=True) if is_pinned}
    assert pinned == {"b", "c", "d", "e", "f"}
    carrying, most = islands.arcs.carrying(circuit)
    arcs = set(zip(carrying.a.tolist(), carrying.b.tolist(), most.tolist(), strict=True))
    b, e, g = part["b"], part["e"], part["g"]
    assert arcs == {(b, e, np.inf), (e, b, 1e-9), (0, g, np.inf), (g, 0, np.inf)}


def test_pinned_island_has_its_first_node_at_zero_and_is_marked() -> None:
    solution = cs.solve(parse("V1 a 0 5", "R1 a 0 1", "V2 b c 3", "R2 c b 1"), PRECISE)
    assert solution.voltage("b")[0] == 0.0 and solution.voltage("c")[0] == -3.0
    marked = dict(zip(solution.circuit.nodes, solution.determined.tolist(), strict=True))
    assert marked == {"0": True, "a": True, "b": False, "c": False}


@pytest.mark.parametrize("zero", ["RX[0:1][0:1] x[0:1] y[0:1] g=0", "RX[0:1][0:0] x[0:1] y[0:0] g=0"])
def test_crossbar_of_zeros_joins_nothing(zero: str) -> None:
    circuit = parse("Rg[0:1] x[0:1] 0 1", zero, "Ry y[0] z 1")
    islands = find_islands(circuit, roots(circuit))
    part = dict(zip(circuit.nodes, islands.part.tolist(), strict=True))
    assert part["x[0]"] == part["x[1]"] == 0 != part["y[0]"] == part["z"]


def test_crossbar_that_falls_into_blocks() -> None:
    """Two separate blocks in one crossbar: joined entry by entry, not row maximum by row maximum alone."""
    g = np.zeros((4, 4))
    g[:2, :2], g[2:, 2:] = [[5, 1], [5, 1]], [[1, 2], [3, 1]]
    circuit = parse("Rg x[0] 0 1", "RX[0:3][0:3] x[0:3] y[0:3] g=1").with_values({"RX": g})
    islands = find_islands(circuit, roots(circuit))
    part = dict(zip(circuit.nodes, islands.part.tolist(), strict=True))
    assert islands.n_parts == 2
    assert [part[f"x[{k}]"] for k in range(4)] == [part[f"y[{k}]"] for k in range(4)] == [0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(30))
def test_crossbar_islands_against_networkx(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = rng.random((7, 6)) * (rng.random((7, 6)) < 0.2)
    circuit = parse("Rg x[0] 0 1", "RX[0:6][0:5] x[0:6] y[0:5] g=1").with_values({"RX": g})
    graph = nx.Graph(circuit.to_networkx())
    islands = find_islands(circuit, roots(circuit))
    found = {frozenset(np.flatnonzero(islands.part == p).tolist()) for p in range(islands.n_parts)}
    wanted = {frozenset(circuit.nodes.index(name) for name in part) for part in nx.connected_components(graph)}
    assert found == wanted


@pytest.mark.parametrize(
    ("cards", "node"),
    [
        (["I1 0 a 1"], "a"),
        (["I1 a 0 1m", "C1 a 0 1u"], "a"),
        (["I1 0 a 1", "R1 a b 1", "I2 b 0 0.5"], "a"),
        (["I1 a 0 1m", "D1 a 0 m"], "a"),
        (["I1 0 a 1m", "D1 0 a m"], "a"),
    ],
)
def test_source_into_a_floating_island_is_an_error(cards: list[str], node: str) -> None:
    for model in (".model m D(ron=0)", ".model m D(is=1e-14)"):
        with pytest.raises(cs.TopologyError, match="I1") as caught:
            cs.solve(parse(model, "Vref r 0 1", "Rref r 0 1", *cards))
        assert node in caught.value.nodes and "I1" in caught.value.elements


def test_balanced_island_is_no_error() -> None:
    solution = cs.solve(parse("I1 0 a 1", "R1 a b 1", "I2 b 0 1", "Rref r 0 1"), PRECISE)
    assert solution.voltage("a")[0] - solution.voltage("b")[0] == pytest.approx(1.0, rel=1e-12)


# -- colours -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(80))
def test_coloring_is_proper_and_two_when_bipartite(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 25))
    layered = seed % 2 == 0  # half of the graphs are bipartite by construction
    side = rng.integers(0, 2, n)
    edges = rng.integers(0, n, (int(rng.integers(0, 2 * n)), 2))
    edges = edges[edges[:, 0] != edges[:, 1]]
    if layered:
        edges = edges[side[edges[:, 0]] != side[edges[:, 1]]]
    bicliques = []
    for _ in range(int(rng.integers(0, 3))):
        nodes = rng.permutation(n)
        rows, cols = (nodes[: n // 3], nodes[n // 3 : n // 2])
        if layered:
            rows, cols = nodes[side[nodes] == 0][:4], nodes[side[nodes] == 1][:4]
        if rows.size and cols.size:
            bicliques.append((np.sort(rows), np.sort(cols)))
    graph = nx.Graph(edges.tolist())
    graph.add_nodes_from(range(n))
    for rows, cols in bicliques:
        graph.add_edges_from((int(r), int(c)) for r in rows for c in cols)
    weight = rng.random(n)
    coloring = color_units(n, edges[:, 0], edges[:, 1], bicliques, weight)
    assert all(coloring.color[a] != coloring.color[b] for a, b in graph.edges)
    assert coloring.bipartite == nx.is_bipartite(graph)
    assert sorted(set(coloring.color.tolist())) == list(range(coloring.n_colors))
    assert coloring.n_colors <= 1 + max(dict(graph.degree).values())
    if coloring.bipartite:
        assert coloring.n_colors <= 2
        for part in nx.connected_components(graph):
            heaviest = max(part, key=lambda u: weight[u])
            assert coloring.color[heaviest] == 0


def test_coloring_of_nothing() -> None:
    none = np.zeros(0, np.int64)
    coloring = color_units(0, none, none, [], np.zeros(0))
    assert (coloring.color.size, coloring.n_colors, coloring.bipartite) == (0, 0, True)


def test_layered_network_has_two_colours_the_driven_layer_first() -> None:
    from circuitsim.gallery import drn

    problem = cs.compile_problem(cs.parse(drn([4, 6, 5, 3])))
    t = problem.topology
    assert t.bipartite and t.color_ptr.tolist() == [0, 9, 14]
    first = {problem.circuit.nodes[k][:2] for k in t.root_of_unit[:9]}
    assert first == {"h1", "y["}
