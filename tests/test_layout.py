"""Shapes of circuits, and where their nodes are drawn."""

from __future__ import annotations

import io
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from growth import LIMIT, exponent
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim import gallery
from circuitsim.layout import _give_slots, _levels, layout
from circuitsim.shapes import Shapes, adjacency, joined, span
from circuitsim.spice.flatten import flatten

NETLISTS = Path(__file__).parent.parent / "netlists"


def positions(text: str) -> tuple[cs.Circuit, dict[str, tuple[float, float]]]:
    circuit = cs.parse(text)
    at = layout(circuit)
    assert at.shape == (len(circuit.nodes), 2) and np.isfinite(at).all()
    return circuit, {name: tuple(row) for name, row in zip(circuit.nodes, at.tolist(), strict=True)}


def smallest_distance(at: NDArray[np.float64]) -> float:
    apart = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    return float(apart.min())


def ladder(n: int) -> str:
    """gallery.ladder without its answer, which float64 cannot hold for long ones."""
    return f"ladder\nV1 n[0] 0 1\nRs[1:{n}] n[0:{n - 1}] n[1:{n}] 1k\nRp[1:{n}] n[1:{n}] 0 1k"


def mesh(n: int, seed: int = 1) -> str:
    """A random planar mesh whose names say nothing, with a source and a resistor to ground."""
    from scipy.spatial import Delaunay

    points = np.random.default_rng(seed).uniform(size=(n, 2))
    triangles = Delaunay(points).simplices
    pairs = {tuple(sorted(pair)) for t in triangles.tolist() for pair in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0]))}
    lines = [f"R{k} m{a} m{b} 1k" for k, (a, b) in enumerate(sorted(pairs))]
    return "\n".join(["mesh", *lines, "V1 m0 0 1", f"Rg m{n - 1} 0 1k"])


# -- shapes ------------------------------------------------------------------------------------------------------------


def test_what_is_joined_is_what_networkx_says() -> None:
    circuit = cs.load(NETLISTS / "xor.cir")
    index = {name: k for k, name in enumerate(circuit.nodes)}
    wanted = {tuple(sorted((index[a], index[b]))) for a, b in circuit.to_networkx().edges() if a != b}
    a, b = joined(circuit)
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == wanted and a.size == len(wanted)


def test_what_controls_a_source_is_beside_it() -> None:
    circuit = cs.parse(
        "control\nV1 a 0 1\nR1 a 0 1\nE1 b 0 a 0 2\nR2 b 0 1\nF1 0 c V1 1\nR3 c 0 1\nG1 0 d 0 b 1\nR4 d 0 1"
    )
    named = {tuple(circuit.nodes[k] for k in pair) for pair in zip(*(x.tolist() for x in joined(circuit)), strict=True)}
    assert {pair for pair in named if pair[0] != "0"} == {("a", "b"), ("a", "c"), ("b", "d")}


def test_each_pair_is_joined_once() -> None:
    """By any number of branches, either way round; not by one from a node to itself, nor by a conductance of 0."""
    a, b = joined(cs.parse("t\nR1 b a 1\nR2 a b 1\nR3 a a 1\nR4 b 0 1"))
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == [(0, 1), (1, 2)]
    bar = cs.parse("t\nRX[0:1][0:1] a[0:1] b[0:1] 1\n").with_values({"RX": np.array([[1.0, 0.0], [1.0, 1.0]])})
    assert [pair.tolist() for pair in joined(bar)] == [[1, 2, 2], [3, 3, 4]]


@pytest.mark.parametrize(("rows", "columns"), [(7, 3), (3, 7)])
def test_large_crossbars_hold_their_lines_together(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = cs.parse(f"t\nRX[1:{rows}][1:{columns}] a[1:{rows}] b[1:{columns}] 1k\n")
    monkeypatch.setattr("circuitsim.shapes._MOST_CELLS", 20)
    graph = nx.Graph(zip(*(x.tolist() for x in joined(circuit)), strict=True))
    assert graph.number_of_edges() < 21 and graph.number_of_nodes() == 10 and nx.is_connected(graph)
    monkeypatch.setattr("circuitsim.shapes._MOST_CELLS", 21)
    assert joined(circuit)[0].size == 21


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["x[2]", "x[1]", "x[0]"], "x[2:0]"),
        (["x[0]", "y[1]"], "x[0] ... y[1]"),
        (["x[a]", "x[b]"], "x[a] ... x[b]"),
        ([*map(str, range(100, 109)), "110"], "100 ... 110"),
    ],
)
def test_names_in_a_few_words(names: list[str], wanted: str) -> None:
    assert span(["0", *names], np.arange(1, len(names) + 1)) == wanted


@pytest.mark.parametrize("sizes", [[4, 3], [6, 5, 2], [5, 7, 4, 3]])
def test_layers_of_crossbars_and_of_the_same_flat(sizes: list[int]) -> None:
    circuit = cs.parse(gallery.drn(sizes))
    written = io.StringIO()
    flatten(circuit, written)
    flat = [line for line in written.getvalue().splitlines() if not line.startswith(("A", "V_", ".model"))]
    for one in (circuit, cs.parse("\n".join(flat))):  # without its diodes, which are ngspice's own
        layers = Shapes(one).layers
        assert [layer.size for layer in layers] == sizes
        assert {one.nodes[k][0] for k in layers[0].tolist()} == {"x"}
        assert {one.nodes[k][0] for k in layers[-1].tolist()} == {"y"}


@pytest.mark.parametrize("name", ["divider", "ladder", "xor", "bridge_rectifier", "wheatstone", "monte_carlo"])
def test_no_layers_elsewhere(name: str) -> None:
    assert Shapes(cs.load(NETLISTS / f"{name}.cir")).layers == []


def test_crossbars_that_are_no_chain_are_no_layers() -> None:
    ring = "ring\nV[0:1] a[0:1] 0 1\nRA[0:1][0:1] a[0:1] b[0:1] 1\nRB[0:1][0:1] b[0:1] c[0:1] 1\n"
    assert len(Shapes(cs.parse(ring)).layers) == 3
    assert Shapes(cs.parse(ring + "RC[0:1][0:1] c[0:1] a[0:1] 1")).layers == []
    assert Shapes(cs.parse(ring + "RC[0:1][0:1] b[0:1] d[0:1] 1")).layers == []


def test_which_chains_of_crossbars_are_layers() -> None:
    """Whatever the order of their lines is; not where a line is in two of them, or there is a way round."""
    first = "RA[0:1][0:1] a[0:1] b[0:1] 1"
    assert [len(names) for names in layers(first, "RB[1:0][0:2] b[1:0] c[0:2] 1")] == [2, 2, 3]
    assert layers(first, "RB[0:1][0:1] b[0:1] c[0:1] 1")[0] == ["a[0]", "a[1]"]  # nothing is driven
    assert layers(first, "RB[0:1][0:1] b[0:1] a[1:2] 1") == []
    tails = [f"R{p}{q}[0:1][0:1] {p}[0:1] {q}[0:1] 1" for p, q in ("bd", "dc", "bc", "ce")]
    assert layers(first, *tails) == []


def test_a_crossbar_within_something_else_makes_no_layers() -> None:
    crossbar = "t\nV1 a0 0 1\nRX[0:1][0:1] a[0:1] b[0:1] 1\nRa a[0] a0 1\nRb b[0] 0 1\n"
    assert len(Shapes(cs.parse(crossbar)).layers) == 2
    half = crossbar + "R1 p q 1\nR2 q r 1\n"  # 4 of 8 nodes are lines of it
    assert len(Shapes(cs.parse(half)).layers) == 2 and Shapes(cs.parse(half + "R3 r s 1")).layers == []
    others = [f"R{k} a{k} a{k + 1} 1" for k in range(5)]
    assert Shapes(cs.parse(crossbar + "\n".join(others))).layers == []


def test_grids_by_name_and_by_what_is_joined() -> None:
    circuit = cs.parse(gallery.current_grid(5, 3))
    [[grid]] = Shapes(circuit).grids
    assert (grid.prefix, grid.nodes.shape) == ("n", (5, 5))
    assert circuit.nodes[grid.nodes[2, 3]] == "n2_3"
    names = set(circuit.nodes[1:])
    order = np.random.default_rng(0).permutation(25)
    shuffled = {name: f"n{k // 5}_{k % 5}" for name, k in zip(sorted(names), order.tolist(), strict=True)}
    lines = [" ".join(shuffled.get(w, w) for w in line.split()) for line in gallery.current_grid(5, 3).splitlines()]
    wrong = cs.parse("\n".join(lines))
    assert Shapes(wrong).grids == []  # numbers that say nothing


@pytest.mark.parametrize(("cell", "prefixes"), [("resistor", "ab"), ("ideal", "amb")])
def test_wires_of_a_crossbar_lie_over_each_other(cell: str, prefixes: str) -> None:
    circuit, at = positions(gallery.wired_crossbar(4, cell))
    [stack] = Shapes(circuit).grids
    assert sorted(grid.prefix for grid in stack) == sorted(prefixes)
    assert at["a1[3]"] == pytest.approx((at["a1[2]"][0] + 1, at["a1[2]"][1]))
    assert at["b2[0]"][1] < at["b1[0]"][1]
    assert at["x[2]"] == pytest.approx((at["a2[0]"][0] - 1, at["a2[0]"][1]))  # beside the row that it drives


def grid(name: str, rows: int, columns: int) -> list[str]:
    """Resistors between neighbours among nodes called so."""
    across = [f"R{name}h{i}_{j} {name}{i}_{j} {name}{i}_{j + 1} 1" for i in range(rows) for j in range(columns - 1)]
    return across + [
        f"R{name}v{i}_{j} {name}{i}_{j} {name}{i + 1}_{j} 1" for i in range(rows - 1) for j in range(columns)
    ]


def grids(*cards: str) -> list[list[tuple[str, tuple[int, ...]]]]:
    """Prefix and shape of each."""
    found = Shapes(cs.parse("\n".join(["t", *cards]))).grids
    return [[(grid.prefix, grid.nodes.shape) for grid in stack] for stack in found]


def test_which_grids_are_grids() -> None:
    places = [(i, j) for i in range(6) for j in range(6)]
    assert grids(*grid("n", 4, 5)) == [[("n", (4, 5))]]
    assert grids(*grid("n", 1, 5)) == []  # a row
    assert grids(*(f"R{i}{j} n{i}_{j} 0 1" for i, j in places)) == []  # nothing is joined
    assert (
        grids(*(f"R{i}{j} n{i}_{j} n{(i * 3 + 1) % 6}_{(j * 5 + 2) % 6} 1" for i, j in places)) == []
    )  # no neighbours


def test_how_much_of_a_grid_is_there() -> None:
    """Half of its places, and three quarters of its branches between neighbours."""
    some = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (3, 0), (1, 1), (1, 2)]
    across = [f"Rh{i}{j} n{i}_{j} n{i}_{j + 1} 1" for i, j in some if (i, j + 1) in some]
    down = [f"Rv{i}{j} n{i}_{j} n{i + 1}_{j} 1" for i, j in some if (i + 1, j) in some]
    assert grids(*across, *down) == [[("n", (4, 5))]]
    assert grids(*(card for card in across + down if "n1_2" not in card)) == []
    far = [f"Rf{i}{k}{j} n{i}_{j} n{k}_{j} 1" for i, k in ((0, 2), (0, 3), (1, 3)) for j in range(5)]
    assert grids(*grid("n", 4, 5), *far[:10]) == [[("n", (4, 5))]]  # 31 of 41
    assert grids(*grid("n", 4, 5), *far[:11]) == []
    others = [f"Rq{i}_{j} n{i}_{j} q{5 * i + j} 1" for i in range(4) for j in range(5)]
    assert grids(*(card.replace(" n1_", " N1_") for card in grid("n", 4, 5)), *others) == [[("n", (4, 5))]]


def test_which_grids_lie_over_each_other() -> None:
    """Where more than half of the nodes of the smaller one have a branch to the other."""
    both = grid("n", 4, 5) + grid("m", 4, 5)
    assert grids(*both, *(f"Rx{i} n{i}_{i} m{i}_{i} 1" for i in range(4))) == [[("n", (4, 5))], [("m", (4, 5))]]
    over = [f"Rx{i}_{j} n{i}_{j} m{i}_{j} 1" for i in range(2) for j in range(3)]
    assert grids(*grid("n", 4, 5), *grid("m", 2, 3), *over[:4]) == [[("n", (4, 5)), ("m", (2, 3))]]
    for few in (over[:3], [f"Rx{i}_{j} n{i}_{j} m0_{j} 1" for i in (2, 3) for j in range(3)]):  # these are not near
        assert grids(*grid("n", 4, 5), *grid("m", 2, 3), *few) == [[("n", (4, 5))], [("m", (2, 3))]]


def test_as_many_grids_as_cells_take_linear_time() -> None:
    """A cell of a large array may have a grid of its own."""

    def prepare(n: int):  # type: ignore[no-untyped-def]
        ring = [(0, 0), (0, 1), (1, 1), (1, 0)]
        cards = [f"R{k}_{p} {k}w{i}_{j} {k}w{ring[p - 1][0]}_{ring[p - 1][1]} 1" for k in map(name, range(n))
                 for p, (i, j) in enumerate(ring)]  # fmt: skip
        circuit = cs.parse("\n".join(["cells", *cards]))
        assert len(Shapes(circuit).grids) == n
        return lambda: Shapes(circuit).grids

    def name(k: int) -> str:
        return "".join(chr(ord("a") + int(digit)) for digit in str(k)) + "."

    assert exponent(prepare, 1_000, repeats=2) < LIMIT


def layers(*cards: str) -> list[list[str]]:
    """The names of the nodes of each."""
    circuit = cs.parse("\n".join(["t", *cards]))
    return [[circuit.nodes[k] for k in layer] for layer in Shapes(circuit).layers]


def test_layers_of_resistors_begin_at_sources_either_way_round() -> None:
    dense = [f"R{a}{i}{b}{j} {a}{i} {b}{j} 1k" for a, b, n in ("xh3", "hy2") for i in range(3) for j in range(int(n))]
    wanted = [["x0", "x1", "x2"], ["h0", "h1", "h2"], ["y0", "y1"]]
    assert layers(*(f"V{i} x{i} 0 1" for i in range(3)), *dense) == wanted
    assert layers(*(f"V{i} 0 x{i} 1" for i in range(3)), *dense) == wanted
    assert layers(*(f"V{i} x{i} 0 1" for i in range(3)), *dense, "Rh h0 h1 1k") == []


def test_layers_of_resistors_are_dense_and_all_there_is() -> None:
    """A tenth of the pairs between two layers is joined, and every node is in one."""
    sources = [f"V{k} x{k} 0 1" for k in range(20)]
    one = [f"Ra{k} x{k} h{k} 1" for k in range(20)]
    two = [f"Rb{k} x{k} h{(k + 1) % 20} 1" for k in range(20)]
    assert [len(names) for names in layers(*sources, *one, *two)] == [20, 20]
    assert layers(*sources, *one, *two[1:]) == []
    assert layers(*sources, *one, *two, "Rq q 0 1") == []
    assert layers(*sources) == []


def test_layers_of_crossbars_begin_at_the_driven_end() -> None:
    chain = ["RA[0:2][0:1] x[0:2] h[0:1] 1k", "RB[0:1][0:1] h[0:1] y[0:1] 1k"]
    assert layers("V[0:1] y[0:1] 0 1", *chain) == [["y[0]", "y[1]"], ["h[0]", "h[1]"], ["x[0]", "x[1]", "x[2]"]]
    assert layers("V[0:1] y[0:1] 0 1", *chain, *(f"Rz{k} q{k} 0 1" for k in range(20))) == []
    ring = [f"R{a}{b}[0:1][0:1] {a}[0:1] {b}[0:1] 1k" for a, b in ("pq", "qr", "rp")]
    assert layers("V[0:2] x[0:2] 0 1", *chain, *ring, "Rp p[0] 0 1") == []


# -- positions ---------------------------------------------------------------------------------------------------------


def test_chains_are_lines_and_long_ones_are_folded() -> None:
    _, at = positions(gallery.ladder(9).text)
    assert [at[f"n[{k}]"] for k in range(10)] == [(float(k), 0.0) for k in range(10)]
    circuit = cs.parse(ladder(500))
    where = layout(circuit)[1:]
    width, height = np.ptp(where, axis=0)
    assert 1.0 < width / height < 3.0
    steps = np.hypot(*np.diff(where, axis=0).T)
    assert steps.min() == 1.0 and steps.max() < 2.0  # each node beside the one before


def test_a_ladder_keeps_its_rails_straight() -> None:
    rails = ["rails", "V1 a0 0 1", "Rg b0 0 1k", *(f"Rx{k} a{k} b{k} 1k" for k in range(20))]
    rails += [f"R{rail}{k} {rail}{k} {rail}{k + 1} 1k" for k in range(19) for rail in "ab"]
    _, at = positions("\n".join(rails))
    for rail in "ab":
        assert len({at[f"{rail}{k}"][1] for k in range(1, 18)}) == 1


def test_layers_are_columns() -> None:
    _, at = positions(gallery.drn([6, 4, 3]))
    for name, count in (("x", 6), ("h1", 4), ("y", 3)):
        column = [at[f"{name}[{k}]"] for k in range(count)]
        assert len({x for x, _ in column}) == 1
        assert [y for _, y in column] == sorted((y for _, y in column), reverse=True)
    assert at["x[0]"][0] < at["h1[0]"][0] < at["y[0]"][0]


@pytest.mark.parametrize("name", sorted(path.stem for path in NETLISTS.glob("*.cir") if "drn" not in path.stem))
def test_small_circuits_have_room_for_every_node(name: str) -> None:
    circuit = cs.load(NETLISTS / f"{name}.cir")
    at = layout(circuit)
    assert np.isfinite(at).all()
    assert smallest_distance(at) > 0.25
    assert (at[0, 1] < at[1:, 1]).all()  # ground


def test_large_meshes_keep_neighbours_near() -> None:
    circuit = cs.parse(mesh(1500))
    at = layout(circuit)
    a, b = joined(circuit)
    a, b = a[a > 0], b[a > 0]
    length = np.hypot(*(at[a] - at[b]).T)
    assert np.median(length) == pytest.approx(1.0, abs=0.3)
    others = np.random.default_rng(0).permutation(np.arange(1, len(at)))
    apart = np.hypot(*(at[1:] - at[others]).T)
    assert np.mean(length) < 0.15 * np.mean(apart)


def test_hubs_and_ground_draw_nothing_together() -> None:
    """Two halves of a chain do not come close because a rail feeds all their nodes."""
    text = ladder(300) + "\nVdd rail 0 1\nRr[1:300] rail n[1:300] 1meg"
    circuit, at = positions(text)
    plain = dict(zip(circuit.nodes, layout(cs.parse(ladder(300))).tolist(), strict=False))
    assert at["n[7]"] == tuple(plain["n[7]"])
    inside = np.array([at[f"n[{k}]"] for k in range(301)])
    assert (inside.min(axis=0) < at["rail"]).all() and (at["rail"] < inside.max(axis=0)).all()


@pytest.mark.parametrize("n", [100, 150])  # by springs, by distances
@pytest.mark.parametrize("feeding", [["R0 n0 0 1k"], ["V1 in 0 1", *(f"Rin{k} in n{k} 1k" for k in range(19))]])
def test_where_all_are_joined_to_all_none_is_a_hub(n: int, feeding: list[str]) -> None:
    pairs = [(i, j) for i in range(n) for j in range(i)]
    _, at = positions("\n".join(["all", *feeding, *(f"R{i}_{j} n{i} n{j} 1k" for i, j in pairs)]))
    assert smallest_distance(np.array(list(at.values()))) > 0.01


def test_parts_do_not_overlap() -> None:
    text = ["parts", "Rg a 0 1k"]
    for part, n in (("p", 5), ("q", 9), ("r", 2), ("s", 1), ("t", 30)):
        text += [f"Rg{part} {part}0 0 1k", f"V{part} {part}0 0 1"]
        text += [f"R{part}{k} {part}{k} {part}{(k + 1 + k % 3) % n} 1k" for k in range(n)]
    circuit, at = positions("\n".join(text))
    boxes = {}
    for part in "apqrst":
        own = np.array([at[name] for name in circuit.nodes[1:] if name[0] == part])
        boxes[part] = own.min(axis=0), own.max(axis=0)
    for p, (low, high) in boxes.items():
        for q, (other_low, other_high) in boxes.items():
            assert p == q or (high < other_low).any() or (other_high < low).any(), (p, q)


@pytest.mark.parametrize("text", [mesh(300), gallery.drn([5, 4, 2]), gallery.wired_crossbar(5)])
def test_the_same_circuit_is_placed_alike(text: str) -> None:
    assert np.array_equal(layout(cs.parse(text)), layout(cs.parse(text)))


@pytest.mark.parametrize("text", ["one\nR1 a 0 1", "loop\nR1 a a 1\nR2 a 0 1", "none\nR1 0 0 1"])
def test_next_to_nothing_has_positions_too(text: str) -> None:
    positions(text)


# -- kernels -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("kernel_form")
def test_levels_are_distances() -> None:
    rng = np.random.default_rng(3)
    graph = nx.random_regular_graph(3, 40, seed=3)
    a, b = np.array(graph.edges()).T
    for start in rng.choice(40, 3, replace=False).tolist():
        order, parent, level = _levels(adjacency(40, a, b), start)
        far = nx.single_source_shortest_path_length(graph, start)
        assert level.tolist() == [far[k] for k in range(40)]
        assert (np.diff(level[order]) >= 0).all() and sorted(order.tolist()) == list(range(40))
        others = np.delete(np.arange(40), start)
        assert (level[parent[others]] == level[others] - 1).all()
        assert all(graph.has_edge(k, int(parent[k])) for k in others.tolist())


@pytest.mark.usefixtures("kernel_form")
def test_no_two_nodes_of_a_level_have_one_slot() -> None:
    tree = nx.random_labeled_tree(60, seed=5)
    a, b = np.array(tree.edges()).T
    order, parent, level = _levels(adjacency(60, a, b), 0)
    slot = np.zeros(60, np.int64)
    _give_slots(order, parent, level, slot)
    assert len(set(zip(level.tolist(), slot.tolist(), strict=True))) == 60
    behind = {k: len(nx.descendants(nx.bfs_tree(tree, 0), k)) for k in range(60)}
    for k in range(60):
        children = [c for c in range(1, 60) if parent[c] == k]
        if children:
            straight = [c for c in children if slot[c] == slot[k]]
            assert any(behind[c] == max(behind[other] for other in children) for c in straight)


def test_positions_take_linear_time() -> None:
    def prepare(n: int):  # type: ignore[no-untyped-def]
        circuit = cs.parse(ladder(n))
        return lambda: layout(circuit)

    assert exponent(prepare, 20_000) < LIMIT
