"""Linear networks: elimination against exact rational arithmetic and numpy, what iterates against elimination."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from circuitsim.linear import choose_solver
from circuitsim.linear.elimination import Elimination
from circuitsim.linear.forest import strong_forest
from circuitsim.linear.multigrid import Multigrid

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


@pytest.mark.parametrize("solver", [Elimination, Multigrid])
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
    weak_i, weak_j = random_graph(rng, n, 10)
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
    n, i, j = sheet(2)
    assert strong_forest(i, j, np.array([1.0, 1.0, 1.0, 1.0]), np.ones(n)) is None
    assert strong_forest(i, j, np.array([1.0, 1.0, 1.0, 0.01]), np.ones(n)) is not None
    twice = np.array([0, 0]), np.array([1, 1])
    assert strong_forest(*twice, np.ones(2), np.ones(2)) is None


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


def test_large_meshes_get_multigrid_and_all_others_elimination() -> None:
    n, i, j = sheet(400)
    assert isinstance(choose_solver(n, i, j), Multigrid)
    n, i, j = sheet(20)
    assert isinstance(choose_solver(n, i, j), Elimination)
    chain = np.arange(200_000)
    assert isinstance(choose_solver(200_000, chain[:-1], chain[1:]), Elimination)
