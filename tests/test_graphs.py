"""Parts and forests of graphs, in Python and compiled, against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from circuitsim import graphs
from circuitsim.graphs import breadth_first, components, strong_components
from circuitsim.linear.elimination import Elimination, _minimum_degree, _order

Ints = NDArray[np.int64]
SIZES = [(1, 0), (2, 1), (5, 3), (30, 20), (60, 70), (400, 380), (400, 1600)]


@pytest.fixture(params=["python", "compiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for kernel in (graphs._join, graphs._spread, graphs._strong):
        monkeypatch.setattr(kernel, "small", -1 if request.param == "compiled" else 10**9)
    return str(request.param)


def edges(n: int, m: int, seed: int) -> tuple[Ints, Ints]:
    return tuple(np.random.default_rng(seed).integers(0, n, (2, m)))


def graph(n: int, a: Ints, b: Ints) -> sparse.csr_array:
    return sparse.coo_array((np.ones(a.size), (a, b)), shape=(n, n)).tocsr()


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_components_are_scipy_s(n: int, m: int, form: str) -> None:
    for seed in range(10):
        a, b = edges(n, m, seed)
        label = csgraph.connected_components(graph(n, a, b), directed=False)[1]
        first = np.unique(label, return_index=True)[1]
        assert np.array_equal(components(n, a, b), first[label])


@pytest.mark.parametrize("shape", ["chain", "backward chain", "star", "none"])
def test_components_of_chains_and_stars(shape: str, form: str) -> None:
    n = 3000
    k = np.arange(1, n)
    a, b = {
        "chain": (k - 1, k),
        "backward chain": (k[::-1], k[::-1] - 1),
        "star": (np.arange(n), np.full(n, n // 2)),
    }.get(shape, (k[:0], k[:0]))
    assert np.array_equal(components(n, a, b), np.arange(n) if shape == "none" else np.zeros(n))


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_breadth_first_forests_are_scipy_s(n: int, m: int, form: str) -> None:
    """SciPy goes from one node: one above all roots, numbered 0, has the edges that make its search ours."""
    for seed in range(10):
        a, b = edges(n, m, seed)
        pairs = np.unique(np.minimum(a, b) * n + np.maximum(a, b))
        low, high = pairs // n, pairs % n
        low, high = low[low < high], high[low < high]
        roots = np.unique(components(n, low, high))[:: 1 + seed % 2]  # all parts, or every other one
        order, parent = breadth_first(n, low, high, roots)
        above = graph(n + 1, np.append(0 * roots, low + 1), np.append(roots + 1, high + 1))
        their_order, before = csgraph.breadth_first_order(above, 0, directed=False)
        assert np.array_equal(order, their_order[1:] - 1)
        wanted = np.where(before[1:] < 0, -1, before[1:] - 1)
        wanted[roots] = roots
        assert np.array_equal(parent, wanted)


@pytest.mark.parametrize(("n", "m"), [*SIZES, (3000, 4500)])
def test_strong_components_are_scipy_s(n: int, m: int, form: str) -> None:
    for seed in range(10):
        tail, head = edges(n, m, seed)
        found = strong_components(n, tail, head)
        wanted = csgraph.connected_components(graph(n, tail, head), directed=True, connection="strong")[1]
        pairs = np.unique(np.stack([found, wanted]), axis=1)
        assert pairs.shape[1] == np.unique(found).size == np.unique(wanted).size == found.max() + 1


def test_a_long_cycle_is_one_part_and_a_chain_is_none(form: str) -> None:
    n = 3000
    k = np.random.default_rng(0).permutation(n)
    assert np.unique(strong_components(n, k, np.roll(k, 1))).size == 1
    assert np.unique(strong_components(n, k[1:], k[:-1])).size == n


def test_a_small_network_is_eliminated_in_an_order_of_minimum_degree() -> None:
    """Each node has, when its turn comes, no more neighbours left than any other; no more fill than SuperLU's order."""
    for seed in range(30):
        n = 3 + seed
        a, b = edges(n, 2 * n, seed)
        a, b = a[a != b], b[a != b]
        order = _minimum_degree(n, a, b)
        near = {k: set(b[a == k]) | set(a[b == k]) for k in range(n)}
        for node in order.tolist():
            joined = near.pop(node)
            assert all(len(joined) <= len(others) for others in near.values())
            for other in joined:
                near[other] = (near[other] | joined) - {node, other}
        assert not near and np.array_equal(_order(n, a, b), order)


def test_orders_of_few_and_of_many_nodes_fill_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.meshgrid(np.arange(6), np.arange(6))
    node = (6 * y + x).ravel()
    a = np.concatenate([node[x.ravel() < 5], node[y.ravel() < 5]])
    b = np.concatenate([node[x.ravel() < 5] + 1, node[y.ravel() < 5] + 6])
    few = Elimination(36, a, b).row.size
    monkeypatch.setattr("circuitsim.linear.elimination._FEW", 2)
    many = Elimination(36, a, b).row.size
    assert abs(few - many) <= 0.2 * many
