"""Linear networks: elimination against exact rational arithmetic and numpy, what iterates against elimination."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from growth import LIMIT, exponent
from helpers import assert_close, assert_laws
from numpy.typing import NDArray
from scipy import sparse

import circuitsim as cs
from circuitsim import topology
from circuitsim.compiled import Kernel
from circuitsim.linear import choose_solver, fill, gradients
from circuitsim.linear.elimination import Elimination, Factors
from circuitsim.linear.forest import strong_forest
from circuitsim.linear.gradients import Gradients
from circuitsim.linear.multigrid import Multigrid
from circuitsim.linear.sampled import _sample, sampled
from circuitsim.linear.wires import Wired, Wires

pytestmark = pytest.mark.usefixtures("kernel_form")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def exact_voltages(n: int, i: Ints, j: Ints, g: Floats, to_ground: Floats, injected: Floats) -> list[Fraction]:
    """Gauss's elimination of the conductance matrix in rational numbers: no rounding at all."""
    a = [[Fraction(0)] * n + [Fraction(x)] for x in injected.tolist()]
    for k, x in enumerate(to_ground.tolist()):
        a[k][k] += Fraction(x)
    for p, q, x in zip(i.tolist(), j.tolist(), g.tolist(), strict=True):
        for row, col in ((p, q), (q, p)):
            a[row][row] += Fraction(x)
            a[row][col] -= Fraction(x)
    for k in range(n):
        for row in range(k + 1, n):
            if a[row][k]:
                factor = a[row][k] / a[k][k]
                a[row] = [x - factor * y for x, y in zip(a[row], a[k], strict=True)]
    v = [Fraction(0)] * n
    for k in range(n - 1, -1, -1):
        v[k] = (a[k][n] - sum(a[k][m] * v[m] for m in range(k + 1, n))) / a[k][k]
    return v


def dense(n: int, i: Ints, j: Ints, g: Floats, to_ground: Floats) -> Floats:
    """The conductance matrix."""
    out = np.diag(to_ground)
    for row, col in ((i, j), (j, i)):
        np.add.at(out, (row, row), g)
        np.add.at(out, (row, col), -g)
    return out


def random_graph(rng: np.random.Generator, n: int, more: int) -> tuple[Ints, Ints]:
    """A connected graph: a random tree and `more` edges, some of them parallel to others; nodes in random order."""
    name = rng.permutation(n)
    child = np.arange(1, n)
    parent = (rng.uniform(size=n - 1) * child).astype(np.int64)
    a = rng.integers(n, size=more)
    b = (a + rng.integers(1, n, size=more)) % n
    return name[np.r_[child, a]], name[np.r_[parent, b]]


def sheet(side: int) -> tuple[int, Ints, Ints]:
    """A square grid."""
    at = np.arange(side * side).reshape(side, side)
    i, j = np.r_[at[:, :-1].ravel(), at[:-1].ravel()], np.r_[at[:, 1:].ravel(), at[1:].ravel()]
    return side * side, i, j


@pytest.mark.parametrize("seed", range(30))
def test_every_voltage_has_its_digits_over_thirty_decades(seed: int) -> None:
    """Relative to itself, not to the largest: what flows to ground through 1e-30 S is known as well as the rest."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 14))
    i, j = random_graph(rng, n, int(rng.integers(0, 2 * n)))
    g = 10 ** rng.uniform(-20, 10, i.size)
    to_ground = np.where(rng.uniform(size=n) < 0.3, 10 ** rng.uniform(-20, 10, n), 0.0)
    to_ground[rng.integers(n)] = 10 ** rng.uniform(-20, 10)
    injected = np.where(rng.uniform(size=n) < 0.5, 10 ** rng.uniform(-12, 3, n), 0.0)
    injected[rng.integers(n)] = 1.0
    wanted = exact_voltages(n, i, j, g, to_ground, injected)
    found = Elimination(n, i, j).factor(g, to_ground).solve(injected[None])[0].tolist()
    for v, exact in zip(found, wanted, strict=True):
        assert abs(Fraction(v) - exact) <= Fraction(1e-13) * exact


def test_the_reference_itself_on_a_divider() -> None:
    i, j = np.array([0]), np.array([1])
    assert exact_voltages(2, i, j, np.array([0.5]), np.array([0.0, 0.25]), np.array([1.0, 0.0])) == [6, 4]


@pytest.mark.parametrize(("n", "more"), [(1, 0), (2, 0), (3, 1), (60, 0), (200, 150), (150, 1500)])
def test_elimination_is_what_numpy_solves(n: int, more: int) -> None:
    rng = np.random.default_rng(n)
    i, j = random_graph(rng, n, more) if n > 1 else (np.zeros(0, np.int64), np.zeros(0, np.int64))
    g, to_ground = rng.uniform(0.5, 2.0, i.size), rng.uniform(0.5, 2.0, n)
    injected = rng.normal(size=(1, n))
    wanted = np.linalg.solve(dense(n, i, j, g, to_ground), injected[0])
    found = Elimination(n, i, j).factor(g, to_ground)
    np.testing.assert_allclose(found.solve(injected)[0], wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())
    assert found.floating.size == 0 and not found.loose.any()


def test_several_right_hand_sides_are_solved_as_each_alone() -> None:
    rng = np.random.default_rng(5)
    i, j = random_graph(rng, 80, 100)
    factors = Elimination(80, i, j).factor(rng.uniform(0.5, 2.0, i.size), rng.uniform(0.5, 2.0, 80))
    injected = rng.normal(size=(7, 80))
    before = injected.copy()
    together = factors.solve(injected)
    assert together.shape == (7, 80)
    assert (injected == before).all()
    for row, alone in zip(together, injected, strict=True):
        np.testing.assert_allclose(row, factors.solve(alone[None])[0], rtol=0, atol=1e-14 * np.abs(row).max())


@pytest.mark.parametrize("solver", [Elimination, Multigrid, Gradients])
def test_each_part_without_ground_is_reported_once_and_holds_0_volts_there(solver: type) -> None:
    """Nodes 0-1-2 float, 3-4 are grounded, 5 is alone, 6-7 are joined by nothing but a conductance of 0."""
    i, j = np.array([0, 1, 3, 6]), np.array([1, 2, 4, 7])
    g = np.array([1e-15, 3e12, 2.0, 0.0])
    to_ground = np.array([0.0, 0, 0, 0, 0.5, 0, 0, 0.25])
    solved = solver(8, i, j).factor(g, to_ground)
    parts = sorted({0: "012", 1: "012", 2: "012", 5: "5", 6: "6"}[int(k)] for k in solved.floating)
    assert parts == ["012", "5", "6"]
    injected = np.array([[1e-15, 0, -1e-15, 1.0, 0, 0, 0, 1.0]])  # into the floating part: nothing in all
    v = solved.solve(injected)[0]
    np.testing.assert_allclose([v[0] - v[1], v[1] - v[2]], [1.0, 1e-15 / 3e12], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(v[3:], [2.5, 2.0, 0.0, 0.0, 4.0], rtol=1e-13)


def test_a_part_floats_exactly_however_far_its_conductances_lie_apart() -> None:
    """Sums of quotients leave no rounding that looks like a path to ground."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        i, j = random_graph(rng, 12, 15)
        factors = Elimination(12, i, j).factor(10 ** rng.uniform(-15, 15, i.size), np.zeros(12))
        assert factors.floating.size == 1
        assert (factors.pivot == 0).sum() == 1


def test_a_pattern_takes_other_values_and_leaves_the_first_as_they_were() -> None:
    rng = np.random.default_rng(3)
    i, j = random_graph(rng, 40, 60)
    pattern = Elimination(40, i, j)
    injected = rng.normal(size=(1, 40))
    values = [(rng.uniform(0.5, 2.0, i.size), rng.uniform(0.1, 1.0, 40)) for _ in range(2)]
    values[1][0][::3] = 0.0  # an edge that carries nothing for now
    first, second = (pattern.factor(*value) for value in values)
    for factors, (g, to_ground) in zip((first, second), values, strict=True):
        fresh = Elimination(40, i, j).factor(g, to_ground)
        assert (factors.solve(injected) == fresh.solve(injected)).all()
        wanted = np.linalg.solve(dense(40, i, j, g, to_ground), injected[0])
        np.testing.assert_allclose(factors.solve(injected)[0], wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def test_multigrid_agrees_with_elimination_on_a_grid() -> None:
    rng = np.random.default_rng(1)
    n, i, j = sheet(40)
    g, to_ground = rng.uniform(0.5, 2.0, i.size), np.zeros(n)
    to_ground[[0, n - 1]] = 1.0
    injected = np.stack([rng.normal(size=n), np.zeros(n), rng.uniform(size=n)])
    hierarchy = Multigrid(n, i, j).factor(g, to_ground)
    wanted = Elimination(n, i, j).factor(g, to_ground).solve(injected)
    found = hierarchy.solve(injected)
    assert "factors" not in vars(hierarchy)  # by multigrid alone
    assert (found[1] == 0).all()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())


def test_multigrid_gives_way_to_elimination_where_it_does_not_converge() -> None:
    rng = np.random.default_rng(2)
    n, i, j = sheet(40)
    g, to_ground = 10 ** rng.uniform(-15, 15, i.size), np.zeros(n)
    to_ground[0] = 1e-12
    injected = rng.uniform(size=(2, n))
    hierarchy = Multigrid(n, i, j).factor(g, to_ground)
    found = hierarchy.solve(injected)
    assert "factors" in vars(hierarchy)
    np.testing.assert_array_equal(found, Elimination(n, i, j).factor(g, to_ground).solve(injected))


def wires(side: int, cell: Floats) -> tuple[int, Ints, Ints, Floats]:
    """Wires of 1 S across each other, with a cell where two cross: row wire nodes first, column wire nodes next."""
    a = np.arange(side * side).reshape(side, side)
    b = a + side * side
    i, j = np.r_[a[:, :-1].ravel(), b[:-1].ravel(), a.ravel()], np.r_[a[:, 1:].ravel(), b[1:].ravel(), b.ravel()]
    return 2 * side * side, i, j, np.r_[np.ones(i.size - cell.size), cell]


def test_a_forest_is_the_inverse_of_its_strong_edges_with_the_weak_ones_at_ground() -> None:
    rng = np.random.default_rng(4)
    n = 20
    i, j = random_graph(rng, n, 0)
    g = rng.uniform(0.5, 2.0, n - 1)
    g[::7] = 0.0  # parts, and edges that carry nothing
    weak_i, weak_j = (np.r_[x, x[:19]] for x in random_graph(rng, n, 10))  # three edges at every node, or more
    weak = rng.uniform(1e-9, 1e-3, weak_i.size)
    to_ground = np.where(rng.uniform(size=n) < 0.5, rng.uniform(0.1, 1.0, n), 0.0)
    forest = strong_forest(np.r_[i, weak_i], np.r_[j, weak_j], np.r_[g, weak], to_ground)
    assert forest is not None and 1 < (forest.parent < 0).sum() < n
    leak = np.bincount(weak_i, weak, n) + np.bincount(weak_j, weak, n)
    injected = rng.uniform(size=n)  # of one sign: every voltage has its digits
    before = injected.copy()
    wanted = exact_voltages(n, i, j, g, to_ground + leak, injected)
    np.testing.assert_allclose(forest.solve(injected), np.array(wanted, float), rtol=1e-12)
    assert (injected == before).all()


def test_strong_edges_that_close_a_loop_are_no_forest() -> None:
    n, i, j = sheet(3)
    assert strong_forest(i, j, np.ones(i.size), np.ones(n)) is None
    middle = (i == 4) | (j == 4)
    assert strong_forest(i, j, np.where(middle, 0.01, 1.0), np.ones(n)) is None  # the rim
    assert strong_forest(i, j, np.where(j == i + 1, 0.01, 1.0), np.ones(n)) is not None  # three columns
    thrice = np.array([0, 0, 0]), np.array([1, 1, 1])
    assert strong_forest(*thrice, np.ones(3), np.ones(2)) is None


CHAINS = {
    "path": ([0, 1, 2, 3], [1, 2, 3, 4]), "ring": ([0, 1, 2, 3, 4], [1, 2, 3, 4, 0]), "nothing": ([], []),
    "twice": ([0, 1, 2, 2], [1, 0, 3, 4]), "middle last": ([0, 0, 1, 2, 3], [4, 3, 2, 4, 1]),
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_chains_are_eliminated_exactly_over_many_decades(chain: str) -> None:
    i, j = (np.array(ends, np.int64) for ends in CHAINS[chain])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        name = rng.permutation(5)
        g = 10 ** rng.uniform(-12, 12, i.size)
        to_ground = 10 ** rng.uniform(-12, 12, 5)
        injected, before = rng.uniform(size=5), g.copy()
        forest = strong_forest(name[i], name[j], g, to_ground)
        assert forest is not None
        wanted = exact_voltages(5, name[i], name[j], g, to_ground, injected)
        np.testing.assert_allclose(forest.solve(injected), np.array(wanted, float), rtol=1e-13)
        assert (g == before).all()


def test_what_preconditions_wires_is_symmetric_and_positive_whatever_hangs_between_them() -> None:
    """Cells of two elements in series, over twelve decades: as near to the network as if each were one."""
    rng = np.random.default_rng(13)
    side = 4
    n, i, j, g = wires(side, 10 ** rng.uniform(-5, -4, side**2))
    cells = np.arange(i.size - side**2, i.size)
    between = n + np.arange(side**2)
    columns, j = j[cells].copy(), np.r_[j[: cells[0]], between]
    diodes = 10 ** rng.uniform(-11, 1, side**2)
    i, j, g = np.r_[i, between], np.r_[j, columns], np.r_[g, diodes]
    to_ground = np.zeros(n + side**2)
    to_ground[: n // 2 : side] = to_ground[n // 2 : n // 2 + side] = 1.0
    forest = strong_forest(i, j, g, to_ground)
    assert forest is not None
    root = np.linalg.cholesky(dense(to_ground.size, i, j, g, to_ground))
    seen = root.T @ np.stack([forest.solve(column) for column in root.T], axis=1)
    np.testing.assert_allclose(seen, seen.T, rtol=0, atol=1e-9)
    size = np.linalg.eigvalsh((seen + seen.T) / 2)
    assert 0.999 < size.min() <= size.max() < 1.001


@pytest.mark.parametrize(("cell", "by_forest"), [(1e-4, True), (6e-2, False)])
def test_wires_are_solved_by_their_forest_while_that_converges(cell: float, by_forest: bool) -> None:
    """Wires that hold the voltages of their nodes together; and wires so long that their cells do instead."""
    rng = np.random.default_rng(6)
    side = 100
    n, i, j, g = wires(side, cell * rng.uniform(0.5, 1.5, side**2))
    to_ground = np.zeros(n)
    to_ground[: n // 2 : side] = 1.0
    injected = np.stack([to_ground * rng.normal(size=n), np.zeros(n)])
    hierarchy = Multigrid(n, i, j).factor(g, to_ground)
    found = hierarchy.solve(injected)
    assert hierarchy.forest is not None
    assert "levels" not in vars(hierarchy) if by_forest else "levels" in vars(hierarchy)
    assert "factors" not in vars(hierarchy)
    for _ in range(2):  # as newton does
        current = g * (found[:, i] - found[:, j])
        for row, amps in enumerate(current):
            out = to_ground * found[row] + np.bincount(i, amps, n) - np.bincount(j, amps, n)
            left = injected[row] - out
            assert np.linalg.norm(left) <= 2e-9 * np.linalg.norm(injected[row])
            found[row] += hierarchy.solve(left[None])[0]
    wanted = Elimination(n, i, j).factor(g, to_ground).solve(injected)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


def hung_wires(side: int, cell: float) -> tuple[int, Ints, Ints, Floats, Floats, Floats]:
    """Wires with cells of this size, and what they are driven by: n, i, j, g, to_ground, injected (1, n)."""
    rng = np.random.default_rng(14)
    n, i, j, g = wires(side, cell * rng.uniform(0.5, 1.5, side**2))
    to_ground = np.zeros(n)
    to_ground[: n // 2 : side] = 1.0
    return n, i, j, g, to_ground, (to_ground * rng.normal(size=n))[None]


def test_wires_have_the_digits_of_elimination_and_many_rows_are_eliminated() -> None:
    n, i, j, g, to_ground, injected = hung_wires(60, 1e-4)
    solver, elimination = Wires(n, i, j), Elimination(n, i, j).factor(g, to_ground)
    wired = solver.factor(g, to_ground)
    assert isinstance(wired, Wired)
    wanted = elimination.solve(injected)
    np.testing.assert_allclose(wired.solve(injected), wanted, rtol=0, atol=1e-13 * np.abs(wanted).max())
    assert not wired.given_up and "without_forest" not in vars(solver)
    np.testing.assert_array_equal(wired.solve(injected), solver.factor(g, to_ground, wired).solve(injected))
    many = solver.factor(g, to_ground, rows=5)
    assert isinstance(many, Factors)


def test_wires_that_their_forest_does_not_suit_are_eliminated_and_it_is_not_tried_again() -> None:
    n, i, j, g, to_ground, injected = hung_wires(60, 6e-2)
    solver, wanted = Wires(n, i, j), Elimination(n, i, j).factor(g, to_ground).solve(injected)
    wired = solver.factor(g, to_ground)
    assert isinstance(wired, Wired) and not wired.given_up
    np.testing.assert_array_equal(wired.solve(injected), wanted)
    assert wired.given_up
    second = solver.factor(g, to_ground, wired)
    assert isinstance(second, Factors)
    assert isinstance(solver.factor(g, to_ground, second), Factors)
    assert isinstance(solver.factor(g, to_ground), Wired)  # another solve looks anew


def test_a_forest_that_does_not_suit_a_mesh_is_not_tried_again() -> None:
    n, i, j, g, to_ground, injected = hung_wires(100, 6e-2)
    mesh, wanted = Multigrid(n, i, j), Elimination(n, i, j).factor(g, to_ground).solve(injected)
    network: Any = None
    for attempt in range(3):
        network = mesh.factor(g, to_ground, network)
        np.testing.assert_allclose(network.solve(injected), wanted, rtol=0, atol=1e-8 * np.abs(wanted).max())
        assert network.given_up and ("forest" in vars(network)) == (attempt == 0), attempt
    assert not mesh.factor(g, to_ground).given_up  # another solve looks anew


def test_meshes_without_strong_edges_and_parts_that_float_are_eliminated_at_once() -> None:
    n, i, j = sheet(30)
    assert isinstance(Wires(n, i, j).factor(np.ones(i.size), np.ones(n)), Factors)
    n, i, j, g, _, _ = hung_wires(30, 1e-4)
    floating = Wires(n, i, j).factor(g, np.zeros(n))
    assert isinstance(floating, Factors) and floating.floating.size == 1


def cube(side: int) -> tuple[int, Ints, Ints]:
    """A grid of three dimensions."""
    at = np.arange(side**3).reshape(side, side, side)
    i = np.r_[at[:-1].ravel(), at[:, :-1].ravel(), at[:, :, :-1].ravel()]
    return side**3, i, np.r_[at[1:].ravel(), at[:, 1:].ravel(), at[:, :, 1:].ravel()]


def test_meshes_may_be_wires_large_ones_get_multigrid_wide_graphs_gradients_and_all_others_elimination() -> None:
    rng = np.random.default_rng(0)
    assert isinstance(choose_solver(*sheet(400)), Multigrid)
    for mesh, otherwise in ((cube(28), Gradients), (sheet(150), Elimination)):
        solver = choose_solver(*mesh)
        assert isinstance(solver, Wires) and isinstance(solver.without_forest, otherwise)
        assert isinstance(choose_solver(*mesh, alone=False), otherwise)
    for few in (sheet(20), sheet(70), cube(10), (0, *np.zeros((2, 0), np.int64))):
        assert isinstance(choose_solver(*few), Elimination)
    chain = np.arange(200_000)
    assert isinstance(choose_solver(200_000, chain[:-1], chain[1:]), Elimination)
    assert isinstance(choose_solver(100_000, *random_graph(rng, 100_000, 100_000)), Gradients)
    assert isinstance(choose_solver(3_000, *random_graph(rng, 3_000, 3_000)), Elimination)
    n, rim = 20_000, np.arange(1, 20_000)
    wheel = np.r_[0 * rim, rim[:-1]], np.r_[rim, rim[1:]]  # all of its nodes as far from the hub
    for wide in (random_graph(rng, n, 100), wheel):
        assert fill.widest(n, *wide) > 4 * n ** (2 / 3)
        assert isinstance(choose_solver(n, *wide), Elimination)


def forms(kernel: Kernel) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """A kernel in Python, and compiled."""
    return kernel.plain, kernel.compiled


def test_kernels_in_python_and_compiled_do_the_same() -> None:
    rng = np.random.default_rng(7)
    n = 40
    i, j = random_graph(rng, n, 60)
    ends = np.stack([np.r_[i, 3], np.r_[j, n]], axis=1).astype(np.int32).ravel()
    g = 10 ** rng.uniform(-9, 0, i.size + 1)
    for plain, compiled in zip(*(form(n, ends, g) for form in forms(_sample)), strict=True):
        np.testing.assert_array_equal(plain, compiled)
    for kernel, limits in ((fill._count, (2, 1e9, 10**9)), (fill._widest, ())):
        plain, compiled = (form(*fill._neighbours(n, i, j), *limits) for form in forms(kernel))
        assert plain == compiled > 0


@pytest.mark.parametrize("graph", ["sheet", "cube", "tree", "random", "parallel"])
def test_updates_are_counted_about_as_elimination_needs_them(graph: str) -> None:
    rng = np.random.default_rng(8)
    n, i, j = {
        "sheet": sheet(60), "cube": cube(12), "tree": (2_000, *random_graph(rng, 2_000, 0)),
        "random": (1_000, *random_graph(rng, 1_000, 1_000)), "parallel": (30, *random_graph(rng, 30, 3_000)),
    }[graph]  # fmt: skip
    updates = Elimination(n, i, j).updates
    assert not fill.costs_more(n, i, j, 2 * updates)
    assert fill.costs_more(n, i, j, updates // 3)


def test_nodes_with_very_many_neighbours_are_eliminated_last() -> None:
    """As those of a layer of few outputs are: their neighbours fill in nothing but the edges between them."""
    n, hubs = 3000, 4
    i, j = (x.ravel() for x in np.meshgrid(np.arange(hubs, n + hubs), np.arange(hubs), indexing="ij"))
    elimination = Elimination(n + hubs, i, j)
    assert set(elimination.perm[n:].tolist()) == set(range(hubs))
    assert elimination.row.size == i.size + hubs * (hubs - 1) // 2 + n + hubs  # one more each: ground
    rng = np.random.default_rng(0)
    g, to_ground, current = rng.uniform(1, 2, i.size), rng.uniform(0, 1, n + hubs), rng.normal(size=(2, n + hubs))
    v = elimination.factor(g, to_ground).solve(current)
    flow = v * to_ground
    for a, b in ((i, j), (j, i)):
        np.add.at(flow.T, a, (g * (v[:, a] - v[:, b])).T)
    np.testing.assert_allclose(flow, current, atol=1e-9)


def test_counting_updates_gives_up_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    n, i, j = sheet(30)
    monkeypatch.setattr(fill, "_MOST_WORK", 100)
    assert fill.costs_more(n, i, j, 10**12)


def test_the_widest_level_is_of_the_widest_part() -> None:
    """A chain of 5, and a star whose centre, the part's first node, has 4 leaves."""
    i, j = np.array([0, 1, 2, 3, 5, 5, 5, 5]), np.array([1, 2, 3, 4, 6, 7, 8, 9])
    assert fill.widest(11, i, j) == 4
    assert fill.widest(5, i[:4], j[:4]) == 1


def test_a_sample_of_a_tree_is_its_elimination() -> None:
    rng = np.random.default_rng(9)
    n = 25
    i, j = random_graph(rng, n, 0)
    i, j = np.r_[i, i[:3]], np.r_[j, j[:3]]  # some edges twice
    g, to_ground = 10 ** rng.uniform(-9, 9, i.size), np.zeros(n)
    to_ground[4] = 1e-3
    injected = rng.uniform(size=n)
    before = injected.copy()
    found = sampled(i, j, g, to_ground).solve(injected)
    np.testing.assert_allclose(found, np.array(exact_voltages(n, i, j, g, to_ground, injected), float), rtol=1e-12)
    assert (injected == before).all()


def test_a_sample_is_symmetric_positive_and_near_the_network() -> None:
    """Its conductance matrix S beside the network's A: the eigenvalues of S^-1 A would all be 1 without sampling."""
    rng = np.random.default_rng(10)
    n = 200
    i, j = random_graph(rng, n, 400)
    g, to_ground = 10 ** rng.uniform(-6, 6, i.size), np.zeros(n)
    to_ground[:3] = 1.0
    sample = sampled(i, j, g, to_ground)
    assert sample.row.size <= 4 * i.size
    root = np.linalg.cholesky(dense(n, i, j, g, to_ground))
    seen = root.T @ np.stack([sample.solve(column) for column in root.T], axis=1)
    np.testing.assert_allclose(seen, seen.T, rtol=0, atol=1e-6 * np.abs(seen).max())
    size = np.linalg.eigvalsh((seen + seen.T) / 2)
    assert 0.1 < size.min() < 1 < size.max() < 10


@pytest.mark.parametrize("decades", [0.5, 12])
@pytest.mark.parametrize("graph", ["random", "cube", "sheet"])
def test_gradients_are_what_elimination_and_scipy_solve(graph: str, decades: float) -> None:
    rng = np.random.default_rng(11)
    n, i, j = {"random": (4_000, *random_graph(rng, 4_000, 4_000)), "cube": cube(14), "sheet": sheet(60)}[graph]
    g, to_ground = 10 ** rng.uniform(-decades, 0, i.size), np.zeros(n)
    to_ground[rng.integers(n, size=3)] = 1.0
    injected = np.stack([to_ground * rng.normal(size=n), np.zeros(n)])
    solved = Gradients(n, i, j).factor(g, to_ground)
    found = solved.solve(injected)
    for _ in range(3):  # as newton does
        current = g * (found[:, i] - found[:, j])
        out = to_ground * found
        for row, amps in zip(out, current, strict=True):
            row += np.bincount(i, amps, n) - np.bincount(j, amps, n)
        assert (np.linalg.norm(injected - out, axis=1) <= 2e-9 * np.linalg.norm(injected, axis=1)).all()
        found += solved.solve(injected - out)
    assert "factors" not in vars(solved)
    wanted = Elimination(n, i, j).factor(g, to_ground).solve(injected)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())
    if decades < 1:
        direct = sparse.linalg.spsolve(sparse.csc_array(solved.matrix), injected[0])
        np.testing.assert_allclose(found[0], direct, rtol=0, atol=1e-9 * np.abs(direct).max())


def test_gradients_give_way_to_elimination_unless_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    n, i, j = sheet(20)
    g, to_ground = rng.uniform(0.5, 2.0, i.size), rng.uniform(size=n)
    injected = rng.normal(size=(2, n))
    monkeypatch.setattr(gradients, "_MOST_STEPS", 1)
    found = Gradients(n, i, j).factor(g, to_ground).solve(injected)
    np.testing.assert_array_equal(found, Elimination(n, i, j).factor(g, to_ground).solve(injected))
    monkeypatch.setattr(gradients, "_MOST_UPDATES", 0)
    near = Gradients(n, i, j).factor(g, to_ground).solve(injected)
    assert 0 < np.abs(near - found).max() < np.abs(found).max()


DIODES = {
    "linear": "", "smooth": ".model d1 D(is=1e-14)", "piecewise": ".model d1 D(ron=1 roff=1e9 vfwd=0.6)",
    "perfect": ".model d1 D(ron=0)",
}  # fmt: skip


def wide_circuit(n: int, diodes: str, decades: float, seed: int = 0) -> str:
    """A ring of n nodes and n chords, with sources and, if wanted, n / 20 diodes anywhere; no node is a dead end."""
    rng = np.random.default_rng(seed)
    names = np.array(["0", *(f"n{k}" for k in range(1, n))])
    i, j = np.r_[np.arange(n), rng.integers(n, size=n)], np.r_[(np.arange(n) + 1) % n, rng.integers(n, size=n)]
    i, j = i[i != j], j[i != j]
    ohms = 10 ** rng.uniform(3 - decades, 3, i.size)
    cards = [f"R{k} {a} {b} {r}" for k, (a, b, r) in enumerate(zip(names[i], names[j], ohms, strict=True))]
    cards += [f"I{k} 0 {name} {rng.normal() * 1e-3}" for k, name in enumerate(names[rng.integers(1, n, 10)])]
    if DIODES[diodes]:
        a, b = random_graph(rng, n, 0)
        cards += [f"D{k} {names[a[k]]} {names[b[k]]} d1" for k in range(n // 20)]
    return "\n".join([f"wide, {diodes}", "V1 n1 0 5", DIODES[diodes], *cards])


@pytest.fixture
def gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Circuits of any size are solved by gradients, without elimination in their place."""
    monkeypatch.setattr(topology, "choose_solver", lambda n, i, j, alone: Gradients(n, i, j))
    monkeypatch.setattr(gradients, "_MOST_UPDATES", 0)


@pytest.mark.parametrize("decades", [pytest.param(1, marks=pytest.mark.slow), 12])
@pytest.mark.parametrize("diodes", DIODES)
def test_circuits_of_wide_graphs_have_the_same_solution(
    diodes: str, decades: float, request: pytest.FixtureRequest
) -> None:
    circuit = cs.parse(wide_circuit(400, diodes, decades))
    wanted = cs.solve(circuit, cs.Settings(method="newton"))
    request.getfixturevalue("gradients_alone")
    found = cs.solve(circuit, cs.Settings(method="newton"))
    assert isinstance(found.problem.topology.solver, Gradients)
    assert_laws(found, 1e-8)
    assert_close(found.voltages(), wanted.voltages(), 1e-8)


def test_rows_of_a_wide_graph_are_those_of_each_alone(gradients_alone: None) -> None:
    problem = cs.compile_problem(cs.parse(wide_circuit(400, "smooth", 2)))
    volts = np.array([[5.0], [-3.0], [0.0]])
    together = cs.solve(problem.with_values({"V1": volts}), cs.Settings(method="newton"))
    assert_laws(together, 1e-8)
    for row, volt in zip(together.voltages(), volts, strict=True):
        alone = cs.solve(problem.with_values({"V1": volt}), cs.Settings(method="newton"))
        assert_close(row, alone.voltages()[0], 1e-8)


@pytest.mark.parametrize("diodes", DIODES)
def test_what_gradients_do_not_solve_is_said_to_be_unsolved(
    diodes: str, gradients_alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And newton ends: without any steps a network's voltages are 0, and so are all corrections."""
    monkeypatch.setattr(gradients, "_MOST_STEPS", 0)
    found = cs.solve(cs.parse(wide_circuit(400, diodes, 12)), cs.Settings(method="newton"), raise_on_failure=False)
    assert found.status in (cs.Status.STALLED, cs.Status.MAX_SWEEPS)
    assert found.residuals.kcl_relative > 1e-9


@pytest.mark.slow
def test_the_cost_of_a_wide_graph_grows_linearly() -> None:
    def prepare(n: int) -> Callable[[], object]:
        rng = np.random.default_rng(n)
        i, j = random_graph(rng, n, n)
        g, to_ground = rng.uniform(0.5, 2.0, i.size), np.where(np.arange(n) < 3, 1.0, 0.0)
        return lambda: choose_solver(n, i, j).factor(g, to_ground).solve(to_ground[None])

    assert exponent(prepare, 20_000) < LIMIT


def test_floating_parts_are_grounded_as_if_eliminated_again() -> None:
    """Three parts of a random graph, two of which float: the same factors, bit by bit."""
    rng = np.random.default_rng(8)
    part = np.arange(60) % 3
    i, j = (rng.integers(0, 60, 200) for _ in range(2))
    within = (part[i] == part[j]) & (i != j)
    i, j = i[within], j[within]
    g, to_ground = 10 ** rng.uniform(-6, 2, i.size), np.where(part == 0, 1e-3, 0.0)
    order = Elimination(60, i, j)
    floating = order.factor(g, to_ground)
    assert set(part[floating.floating].tolist()) == {1, 2}
    again = to_ground.copy()
    again[floating.floating] += 1e-12
    injected = rng.uniform(-1, 1, (3, 60))
    for rows in (injected, injected[:1]):
        assert np.array_equal(floating.grounded(1e-12).solve(rows), order.factor(g, again).solve(rows))
