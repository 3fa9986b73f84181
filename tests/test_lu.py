"""The LU factorisation of networks with controlled sources: small matrices by LAPACK are the same as by SuperLU."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import circuitsim as cs
from circuitsim.linear.lu import Lu
from circuitsim.methods.mna import MnaNetwork, make_network


def network(n: int, seed: int, decades: float = 6.0) -> np.ndarray:
    """Conductances of many sizes between random nodes, and to ground; entries of controlled sources beside."""
    rng = np.random.default_rng(seed)
    matrix = np.diag(10.0 ** rng.uniform(-decades, 0.0, n))
    for _ in range(3 * n):
        i, j = rng.integers(0, n, 2)
        g = 10.0 ** rng.uniform(-decades, 0.0)
        matrix[[i, j], [i, j]] += g
        matrix[[i, j], [j, i]] -= g
    matrix[rng.integers(0, n), rng.integers(0, n)] += 1.0
    return matrix


@pytest.mark.parametrize("n", [1, 2, 7, 40, 100])
@pytest.mark.parametrize("seed", range(5))
def test_both_ways_solve_the_equations(n: int, seed: int) -> None:
    matrix = network(n, seed)
    sides = np.random.default_rng(seed + 100).normal(size=(3, n))
    dense, by_superlu = Lu(matrix), Lu(sparse.csc_array(matrix))
    for found in (dense, by_superlu):
        x = found.solve(sides)
        assert x.shape == sides.shape and not found.loose.any()
        assert np.abs(x @ matrix.T - sides).max() <= 1e-12 * (np.abs(x) @ np.abs(matrix).T).max()
    np.testing.assert_array_equal(dense.row, by_superlu.row)
    np.testing.assert_array_equal(dense.col, by_superlu.col)


def island(n: int) -> np.ndarray:
    """A network, of which nothing holds the last two nodes; between them is a conductance."""
    matrix = np.zeros((n + 2, n + 2))
    matrix[:n, :n] = network(n, 3)
    matrix[n:, n:] = [[1e-3, -1e-3], [-1e-3, 1e-3]]
    return matrix


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e200])
def test_what_is_not_determined_is_loose_and_the_rest_is_solved(scale: float) -> None:
    matrix = island(5)
    sides = np.array([[1.0, -2.0, 0.5, 0.0, 1.0, 1.0, -1.0]])
    for found in (Lu(scale * matrix), Lu(sparse.csc_array(scale * matrix))):
        x = found.solve(scale * sides)[0]
        assert found.loose.tolist() == [False] * 5 + [True] * 2
        np.testing.assert_allclose(x[:5], np.linalg.solve(matrix[:5, :5], sides[0, :5]), rtol=1e-9)
        assert x[5] - x[6] == pytest.approx(1000.0)


def test_large_singular_ones_are_refused() -> None:
    for matrix in (island(5), sparse.csc_array(island(5))):
        with pytest.raises(np.linalg.LinAlgError):
            Lu(matrix, most_singular=6)


def test_infinite_slopes_have_no_solution_and_no_warning() -> None:
    matrix = island(5)
    matrix[0, 0] = np.inf
    for of_kind in (matrix, sparse.csc_array(matrix)):
        assert np.isnan(Lu(of_kind, most_singular=0).solve(np.ones((1, 7)))).all()


@pytest.mark.parametrize("condition, singular", [(1e13, False), (1e17, True)])
def test_both_ways_take_the_same_matrices_for_singular(condition: float, singular: bool) -> None:
    u, _, vt = np.linalg.svd(np.random.default_rng(4).normal(size=(6, 6)))
    matrix = u @ np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 1.0 / condition]) @ vt
    for of_kind in (matrix, sparse.csc_array(matrix)):
        assert Lu(of_kind).loose.any() == singular


def test_the_matrix_of_a_circuit_is_the_same_as_an_array() -> None:
    """With legs between two units, to ground, and to a source; damped."""
    deck = """legs
V1 s 0 1
R1 s a 1k
D1 a b dm
D2 b 0 dm
D3 s b dm
E1 c 0 a b 1e3
F1 0 d V2 0.5
V2 c e 0
R2 e d 10
R3 d 0 1k
G1 a 0 d 0 1m
.model dm D
"""
    network = make_network(cs.compile_problem(cs.parse(deck)), None)
    assert isinstance(network, MnaNetwork) and network.legs.a.size == 3
    slope = np.array([1e-3, 2.0, 7e-9])
    for damping in (0.0, 1e-2):
        network.damp(damping)
        array = network._array(slope)
        np.testing.assert_allclose(array, network._sparse_array(slope).toarray(), rtol=1e-15)
        assert array.shape == (network.size, network.size) and np.abs(array).max() > 1


def test_no_unknown() -> None:
    assert Lu(np.zeros((0, 0))).solve(np.zeros((2, 0))).shape == (2, 0)
