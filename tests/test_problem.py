"""Circuit -> Problem against brute force: node by node, branch by branch, with none of the package's index tables."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fractions import Fraction

import networkx as nx
import numpy as np
import pytest
from growth import LIMIT, exponent
from helpers import assert_close
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.backends.cpu import TILE
from circuitsim.gallery import Recipe, drn, random_circuit
from circuitsim.kcl import exact_sums, outflow
from circuitsim.laws import branch_current

Floats = NDArray[np.float64]


@dataclass
class Brute:
    """Units and their sums from the circuit's tables alone."""

    unit: list[int]  # of each node: its tied group's root node; -1 when that is known
    offset: Floats  # (batch, n_nodes)
    circuit: cs.Circuit

    def __init__(self, circuit: cs.Circuit) -> None:
        self.circuit = circuit
        ties = circuit.ties
        graph = nx.Graph()
        graph.add_nodes_from(range(len(circuit.nodes)))
        for k, (a, b) in enumerate(zip(ties.a.tolist(), ties.b.tolist(), strict=True)):
            graph.add_edge(a, b, tie=k)
        self.unit = [0] * len(circuit.nodes)
        self.offset = np.zeros((ties.e.shape[0], len(circuit.nodes)))
        for group in nx.connected_components(graph):
            root = min(group)
            for node in group:
                self.unit[node] = root if root else -1
            for a, b in nx.bfs_edges(graph, root):
                k = graph.edges[a, b]["tie"]
                sign = 1.0 if ties.a[k] == b else -1.0
                self.offset[:, b] = self.offset[:, a] + sign * ties.e[:, k]

    def branches(self) -> list[tuple[int, int, float]]:
        c = self.circuit.conductors
        flat = list(zip(c.a.tolist(), c.b.tolist(), c.g.tolist(), strict=True))
        cross = [
            (int(x.rows[i]), int(x.cols[j]), float(x.g[i, j]))
            for x in self.circuit.crossbars
            for i in range(x.rows.size)
            for j in range(x.cols.size)
        ]
        return [(a, b, g) for a, b, g in flat + cross if self.unit[a] != self.unit[b]]

    def sums(self, x: dict[int, Floats]) -> tuple[Floats, Floats]:
        """Net and absolute currents out of every unit, by root node, (batch, n_nodes)."""
        v = self.offset + np.stack([x.get(u, np.zeros(len(self.offset))) for u in self.unit], axis=1)
        net, total = np.zeros_like(v), np.zeros_like(v)

        def add(a: int, b: int, current: Floats) -> None:
            if self.unit[a] != self.unit[b]:
                for node, sign in ((a, 1.0), (b, -1.0)):
                    if self.unit[node] >= 0:
                        net[:, self.unit[node]] += sign * current
                        total[:, self.unit[node]] += np.abs(current)

        for a, b, g in self.branches():
            add(a, b, g * (v[:, a] - v[:, b]))
        j, s = self.circuit.junctions, self.circuit.current_sources
        for k in range(len(j)):
            current = branch_current(j.law[k : k + 1], j.params[k : k + 1], (v[:, j.a[k]] - v[:, j.b[k]])[:, None])[0]
            add(int(j.a[k]), int(j.b[k]), current[:, 0])
        for k in range(len(s)):
            add(int(s.a[k]), int(s.b[k]), np.broadcast_to(s.i[:, k], len(v)))
        return net, total


def everything_to_everything(nodes: int) -> str:
    """A crossbar with the same nodes on both sides: each unit needs a colour of its own."""
    return f"\nRK[0:{nodes - 1}][0:{nodes - 1}] n[0:{nodes - 1}] n[0:{nodes - 1}] g={{max(0, aunif(0, 1m))}}"


def batched(seed: int, recipe: Recipe | None = None) -> cs.Circuit:
    """A random circuit, three rows of sources."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(2, 12))
    text = random_circuit(rng, replace(recipe or Recipe(crossbars=3), nodes=nodes))
    if seed % 4 == 0:
        text += everything_to_everything(nodes)
    circuit = cs.parse(text)
    tables = circuit.netlist.tables
    new = {name: rng.uniform(-3, 3, 3) for name in tables["V"].names}
    return circuit.with_values(new | {name: rng.uniform(-1e-3, 1e-3, 3) for name in tables["I"].names})


@pytest.mark.parametrize("seed", range(40))
def test_values_and_drive_are_sums_over_branches(seed: int) -> None:
    circuit = batched(seed)
    problem, brute = cs.compile_problem(circuit), Brute(circuit)
    t, v = problem.topology, problem.values
    roots = t.root_of_unit.tolist()
    assert sorted(roots) == sorted(set(brute.unit) - {-1})
    assert t.index_of_node.tolist() == [roots.index(u) if u >= 0 else -1 for u in brute.unit]
    place = {root: k for k, root in enumerate(roots)} | {-1: -1}
    diag, to_fixed, w = np.zeros(len(roots)), np.zeros(len(roots)), np.zeros((len(roots), len(roots)))
    for a, b, g in brute.branches():
        ends = place[brute.unit[a]], place[brute.unit[b]]
        for own, other in (ends, ends[::-1]):
            if own >= 0:
                diag[own] += g
                to_fixed[own] += g if other < 0 else 0.0
                if other >= 0:
                    w[own, other] += g
    assert_close(v.diag, diag, 1e-14)
    assert_close(v.to_fixed, to_fixed, 1e-13)
    couplings = v.couplings.toarray()
    for spec, g in zip(t.dense, v.dense, strict=True):
        if spec.inner:
            rows, cols = np.arange(len(roots))[spec.row.units], np.arange(len(roots))[spec.col.units]
            couplings[np.ix_(rows, cols)] += g
            couplings[np.ix_(cols, rows)] += g.T
    assert_close(couplings, w, 1e-14)
    without = replace(circuit, junctions=replace(circuit.junctions, law=circuit.junctions.law[:0], **{
        name: getattr(circuit.junctions, name)[:0] for name in ("a", "b", "kind", "row", "params")
    }))  # fmt: skip
    linear = Brute(without).sums({})[0]
    drive = problem.drive(slice(0, 3))
    assert_close(np.broadcast_to(drive.injection, (3, len(roots))), -linear[:, roots], 1e-13)


def layer(volts: Floats) -> cs.Problem:
    """A crossbar from sources of these voltages (rows, n) to three nodes."""
    last = volts.shape[1] - 1
    text = f"layer\nVx[0:{last}] x[0:{last}] 0 0\nRW[0:{last}][0:2] x[0:{last}] h[0:2] g={{aunif(2m, 1m)}}"
    return cs.compile_problem(cs.parse(f"{text}\nRL[0:2] h[0:2] 0 1k")).with_values({"Vx": volts})


@pytest.mark.parametrize("rows", [1, 70])
@pytest.mark.parametrize("signs", ["+", "-", "+-", "-0+", "+-" * 6, "any"])
def test_drive_of_a_layer_whose_sources_are_zero_here_and_there(rows: int, signs: str) -> None:
    """Columns of one sign, of many, of both; of zeros in every row (few, many, at the ends, all)."""
    rng = np.random.default_rng(rows)
    volts = rng.uniform(0, 1, (rows, 60)) * (rng.random((rows, 60)) < 0.5)
    if signs == "any":
        volts *= rng.choice([-1, 1], volts.shape)
    else:
        part = np.array([{"+": 1, "-": -1, "0": 0}[sign] for sign in signs])
        volts *= part[np.arange(60) * len(signs) // 60]
    for zeros in ([], [7], range(20), range(0, 60, 2), range(60)):
        volts[:, list(zeros)] = 0.0
        problem = layer(volts)
        g = problem.circuit.crossbars[0].g[:, problem.topology.root_of_unit - problem.circuit.netlist.node("h[0]")]
        drive = problem.drive(slice(0, rows))
        np.testing.assert_allclose(drive.injection, volts @ g, 1e-13, 1e-16)
        np.testing.assert_allclose(drive.fixed_abs, np.abs(volts) @ g, 1e-13, 1e-16)


def test_a_source_that_is_too_large_in_one_row_is_named_and_no_other_rows_are_read() -> None:
    """A batch that is solved in tiles would read all its rows once for each of them."""
    volts = np.zeros((300, 4))
    volts[270, 2] = -1e151
    problem = layer(volts)
    assert not problem.drive(slice(0, 256)).injection.any()
    with pytest.raises(cs.TopologyError, match=r"Vx\[2\]: 1e\+151 V \(batch row 270\) is so large that powers"):
        cs.solve(problem)


@pytest.mark.parametrize(
    ("element", "volts", "error"),
    [
        ("D1 a 0 d\n.model d D", [0.1, -3.0, 99.0], r"D1: the sources force 99 V across it \(batch row 2\), exp"),
        (
            "D1 a 0 d\n.model d D(bv=5)",
            [0.1, -50.0, 0.2],
            r"D1: the sources force -50 V across it \(batch row 1\), exp",
        ),
        ("R1 a 0 1e-300", [0.0, 1.0, 1e100], r"R1: the sources force 1e\+100 V across 1e-300 ohm \(batch row 2\): its"),
    ],
)
def test_the_row_that_forces_too_large_a_current_is_named(element: str, volts: list[float], error: str) -> None:
    circuit = cs.parse(f"t\nV1 a 0 0\nR0 a 0 1k\n{element}\n")
    with pytest.raises(cs.TopologyError, match=error):
        cs.solve(circuit.with_values({"V1": np.array(volts)[:, None]}))
    with pytest.raises(cs.TopologyError, match=re.sub(r" \\\(batch row .\\\)", "", error)):
        cs.solve(circuit.with_values({"V1": max(volts, key=abs)}))


def test_a_crossbar_in_too_many_colours_is_kept_branch_by_branch() -> None:
    text = random_circuit(np.random.default_rng(0), Recipe(nodes=9, shorts=0, floating_sources=0))
    problem = cs.compile_problem(cs.parse(text + everything_to_everything(9)))
    assert problem.topology.expanded.size == 1


def test_circuits_of_many_colours_are_arranged_in_linear_time() -> None:
    """All nodes are joined to all others: as many colours as nodes, and as many pairs of colours as branches."""

    def prepare(branches: int):  # type: ignore[no-untyped-def]
        n = math.isqrt(2 * branches)
        circuit = cs.parse(
            "\n".join(["all", *(f"R{i}_{j} n{i} n{j} 1k" for i in range(n) for j in range(i)), "R0 n0 0 1"])
        )
        return lambda: cs.compile_problem(circuit)

    assert exponent(prepare, 40_000, repeats=1) < LIMIT


@pytest.mark.parametrize("seed", range(40))
def test_flows_at_random_voltages(seed: int) -> None:
    """outflow by products and exact_sums branch by branch, both against the brute sums; rows one by one too."""
    circuit = batched(seed)
    problem, brute = cs.compile_problem(circuit), Brute(circuit)
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (3, problem.n_free))
    roots = problem.topology.root_of_unit
    net, total = (s[:, roots] for s in brute.sums({int(root): x[:, k] for k, root in enumerate(roots)}))
    drive = problem.drive(slice(0, 3))
    flow, absolute = exact_sums(problem, drive, x, np.arange(3))
    np.testing.assert_allclose(absolute, total, rtol=1e-12)
    assert (np.abs(flow - net) <= 1e-13 * total).all()
    by_products, _ = outflow(problem, drive, x)
    assert (np.abs(by_products - net) <= 1e-11 * total).all()
    for row in range(3):
        alone = problem.drive(slice(row, row + 1))
        np.testing.assert_allclose(exact_sums(problem, alone, x[row : row + 1], np.zeros(1, int))[0][0], flow[row])


def test_drops_are_summed_in_twice_the_length() -> None:
    """Of voltages that sources tie, in two parts, less others: 1e3 V go, and of what is left no digit is lost."""
    deck = "t\nV1 b a 1k\nV3 e a 1k\nR1 a 0 1\nR2 b 0 1\nV2 c d 0.3\nR3 c 0 1\nR4 d a 1"
    problem = cs.compile_problem(cs.parse(deck))
    assert not problem.untied
    rng, nodes = np.random.default_rng(3), problem.circuit.netlist.node
    a, b = (np.array([nodes(name) for name in names]) for names in ("bcb", "ed0"))
    fixed = problem.fixed_potentials(slice(0, 1))
    parts = [scale * rng.normal(size=(50, problem.n_free)) for scale in (1.0, 1e-17)]
    less = rng.normal(size=(50, 3))
    found = problem.drops(parts, fixed, a, b, less)
    for row in range(50):
        for k in range(3):
            terms = [-Fraction(less[row, k])]
            for node, sign in ((a[k], 1), (b[k], -1)):
                at, column = problem.topology.index_of_node[node], problem.node_offset_columns[node]
                terms += [sign * Fraction(part[row, at]) for part in parts if at >= 0]
                terms += [sign * Fraction(fixed[0, column])] if column >= 0 else []
            rounded = Fraction(np.spacing(abs(found[row, k]))) / 2
            assert abs(Fraction(found[row, k]) - sum(terms)) <= rounded + Fraction(1e-27)  # of 1e3 V eps^2


def test_slope_is_the_derivative_of_a_units_own_flow() -> None:
    problem = cs.compile_problem(batched(3, Recipe(shockley=4, pwl=4)))
    x = np.random.default_rng(0).uniform(-0.3, 0.3, (3, problem.n_free))
    drive = problem.drive(slice(0, 3))
    slope = outflow(problem, drive, x)[1]
    for u in range(problem.n_free):
        step = np.zeros(problem.n_free)
        step[u] = 1e-7
        rise = (outflow(problem, drive, x + step)[0][:, u] - outflow(problem, drive, x - step)[0][:, u]) / 2e-7
        np.testing.assert_allclose(rise, slope[:, u], rtol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_bounds_are_those_of_the_tightest_ideal_diode(seed: int) -> None:
    circuit = batched(seed, Recipe(ideal=4))
    problem, brute = cs.compile_problem(circuit), Brute(circuit)
    drive = problem.drive(slice(0, 3))
    d = circuit.ideal_diodes
    for k, root in enumerate(problem.topology.root_of_unit.tolist()):
        lo, hi = np.full(3, -np.inf), np.full(3, np.inf)
        for a, b, vf in zip(d.a.tolist(), d.b.tolist(), d.vf.tolist(), strict=True):
            apart = brute.offset[:, a] - brute.offset[:, b]
            if brute.unit[a] == -1 and brute.unit[b] == root:
                lo = np.maximum(lo, apart - vf)
            if brute.unit[b] == -1 and brute.unit[a] == root:
                hi = np.minimum(hi, vf - apart)
        np.testing.assert_allclose(np.broadcast_to(drive.lo[:, k], 3), lo, rtol=0, atol=1e-14)
        np.testing.assert_allclose(np.broadcast_to(drive.hi[:, k], 3), hi, rtol=0, atol=1e-14)


def test_crossbars_stay_views() -> None:
    """No copy of a weight matrix on the way from the parser to the kernel."""
    circuit = cs.parse(drn([5, 7, 3]))
    problem = cs.compile_problem(circuit)
    assert all(np.shares_memory(g, x.g) for g, x in zip(problem.values.dense, circuit.crossbars, strict=True))
    new = np.full((5, 7), 0.5)
    updated = problem.with_values({"RW1": new})
    assert updated.topology is problem.topology
    assert problem.with_values({"Ib1": np.ones(7)}).values is problem.values


def test_infeasible_loop_of_sources_and_a_diode() -> None:
    circuit = cs.parse("loop\n.model i D(ron=0 vfwd=0.5)\nV1 a 0 5\nD1 a 0 i\nR1 a 0 1")
    with pytest.raises(cs.TopologyError, match=r"D1.* 4\.5 V") as caught:
        cs.solve(circuit)
    assert "D1" in caught.value.elements


def test_infeasible_bounds_name_both_diodes_and_the_row() -> None:
    text = "bounds\n.model i D(ron=0)\nV1 p 0 5\nV2 q 0 1\nD1 p h i\nD2 h q i\nD3 0 h i\nR1 h 0 1"
    with pytest.raises(cs.TopologyError, match=r"D1, D2, V2, V1 .* 4 V"):
        cs.solve(cs.parse(text))
    with pytest.raises(cs.TopologyError, match="batch row 1"):
        cs.solve(cs.parse(text).with_values({"V1": [0.0, 5.0]}))
    late = np.zeros(300)
    late[270] = 5.0
    with pytest.raises(cs.TopologyError, match="batch row 270"):
        cs.solve(cs.parse(text).with_values({"V1": late}))


def test_a_contradiction_that_all_rows_have_names_none() -> None:
    circuit = cs.parse("clash\n.model i D(ron=0)\nV1 p 0 5\nV2 q 0 1\nD1 p q i\nV3 in 0 1\nR1 in 0 1")
    with pytest.raises(cs.TopologyError, match=r"D1.* 4 V") as caught:
        cs.solve(circuit.with_values({"V3": [1.0, 2.0, 3.0]}))
    assert "batch row" not in caught.value.message
    text = "late\n.model i D(ron=0)\nV1 p 0 5\nV2 q 0 6\nD1 p q i\nV3 in 0 1\nR1 in 0 1"
    later = {"V1": np.repeat([0.5, 7.0], [TILE, 10]), "V3": np.arange(TILE + 10.0)}
    with pytest.raises(cs.TopologyError, match=rf"1 V forward.*\(batch row {TILE}\)"):  # the same in all of its tile
        cs.solve(cs.parse(text).with_values(later), cs.Settings(method="bcd"))


@pytest.mark.parametrize("rows", [1, 3])
def test_bounds_have_a_row_for_each_only_where_rows_differ(rows: int) -> None:
    circuit = cs.parse("clamps\n.model i D(ron=0 vfwd=0.5)\nVin in 0 1\nVb b 0 2\nR1 in h 1k\nD1 b h i\nD2 h in i")
    volts = 1.0 + 0.25 * np.arange(rows)
    first = cs.compile_problem(circuit.with_values({"Vb": volts})).drive(slice(0, rows))
    np.testing.assert_array_equal(first.lo[:, 0], volts - 0.5)
    np.testing.assert_array_equal(np.broadcast_to(first.hi[:, 0], rows), np.full(rows, 1.5))
    other = cs.compile_problem(circuit.with_values({"Vin": 1.0 + np.zeros(rows)})).drive(slice(0, rows))
    np.testing.assert_array_equal([other.lo, other.hi], [[[1.5]], [[1.5]]])


@pytest.mark.parametrize("where", ["of R1", "of crossbar X1", "at the end of a chain"])
def test_a_forced_current_beyond_float64_is_refused(where: str) -> None:
    decks = {
        "of R1": "V1 a 0 1e100\nR1 a 0 1e-210",
        "of crossbar X1": "V1 a[0] 0 1e100\nV2 b[0] 0 0\nRX1[0:0][0:0] a[0:0] b[0:0] 1e-210",
        "at the end of a chain": "V1 a 0 1e149\nV2 b a 1e149\nV3 c b 1e149\nV4 d c 1e149\nR1 d 0 1e-159",
    }
    with pytest.raises(cs.TopologyError, match="overflow"):
        cs.solve(cs.parse(f"much\n{decks[where]}"))
    cs.solve(cs.parse("enough\nV1 a 0 1e149\nR1 a 0 1e-150"))


def test_negative_and_nonfinite_new_values_are_refused() -> None:
    problem = cs.compile_problem(
        cs.parse("values\nV1 a 0 1\nR1 a b 1\nRX[0:1][0:0] b[0:1] c[0:0] 1\nR2 b[0] b 1\nR3 b 0 0")
    )
    with pytest.raises(cs.SettingsError, match="R1"):
        problem.with_values({"R1": -1.0})
    with pytest.raises(cs.SettingsError, match="RX"):
        problem.with_values({"RX": [[-1.0], [1.0]]})
    with pytest.raises(cs.SettingsError, match="V1"):
        problem.with_values({"V1": np.nan})
    with pytest.raises(cs.SettingsError, match="R3"):
        problem.with_values({"R3": 1.0})
    with pytest.raises(cs.SettingsError, match="shape"):
        problem.with_values({"RX": np.ones((3, 3))})
    with pytest.raises(cs.SettingsError, match="no element"):
        problem.with_values({"R9": 1.0})


def test_inner_ends_are_what_a_sweep_goes_through() -> None:
    """Two ends of each branch between unknowns, dense or not; what leads to known potentials is not among them."""
    chain = cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 a b 1k\nR2 b c 1k\nR3 c d 1k\nR4 d 0 1k"))
    layers = cs.compile_problem(cs.parse(drn([4, 12, 9, 3])))
    assert (chain.inner_ends, layers.inner_ends) == (4, 2 * (12 * 9 + 9 * 3))
