"""What is not unique: intervals of voltages and marks of currents, by hand and against linear programs."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import PRECISE
from scipy.optimize import linprog

import circuitsim as cs
from circuitsim.laws import branch_current

MODELS = [".model i D(ron=0)", ".model j D(ron=0 vfwd=1)", ".model p D(ron=1 vfwd=1 vrev=2)", ".model s D(is=1e-14)"]


def solve(*cards: str) -> cs.Solution:
    return cs.solve(cs.parse("\n".join(["test", *MODELS, "Rg g 0 1", *cards])), PRECISE)


def interval(solution: cs.Solution, node: str) -> tuple[float, float] | None:
    if solution.intervals is None:
        return None
    low, high = (float(bound[0, solution.circuit.netlist.node(node)]) for bound in solution.intervals)
    return low, high


def test_a_node_between_two_perfect_diodes() -> None:
    solution = solve("V1 a 0 -1", "D1 a b i", "D2 b 0 i", "R1 b c 1")
    assert interval(solution, "b") == interval(solution, "c") == (-1.0, 0.0)
    assert interval(solution, "a") == (-1.0, -1.0)
    assert solution.remarks == ["node b: any voltage from -1 to 0 V", "node c: any voltage from -1 to 0 V"]


def test_one_bound_or_none() -> None:
    solution = solve("V1 a 0 5", "D1 a b i", "D2 c a j", "R1 d e 1")
    assert interval(solution, "b") == (5.0, np.inf)
    assert interval(solution, "c") == (-np.inf, 6.0)
    assert interval(solution, "d") == (-np.inf, np.inf)
    assert solution.remarks == ["node b: any voltage from 5 V up", "node c: any voltage up to 6 V"]


def test_a_conducting_diode_holds_an_island() -> None:
    solution = solve("I1 0 a 1", "D1 a 0 j", "R1 a b 1")
    assert solution.determined.all() and solution.intervals is None and solution.remarks == []


def test_perfect_diodes_in_a_ring_are_a_short() -> None:
    """No current flows, yet there is but one voltage: the interval closes."""
    solution = solve("V1 a 0 3", "D1 a b i", "D2 b a i")
    assert solution.determined.all()
    assert solution.ambiguous[1].all()
    assert solution.tie_currents[1].all()  # the ring does not pass through V1
    solution = solve("V1 a 0 3", "D1 a b i", "D2 b a j")
    assert interval(solution, "b") == (3.0, 4.0)
    assert not solution.ambiguous[1].any()


def test_shockley_diodes_always_hold() -> None:
    assert solve("I1 0 a 1m", "D1 a 0 s", "R1 a c 1").determined.all()


@pytest.mark.parametrize("seed", range(40))
def test_intervals_against_a_linear_program(seed: int) -> None:
    """Islands joined by piecewise-linear diodes, to known nodes also by perfect ones."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    cards = [f"V{k} k{k} 0 {rng.integers(-3, 4)}" for k in range(3)]
    cards += [f"D{k} {' '.join(rng.permutation([f'n{rng.integers(n)}', f'k{rng.integers(3)}']))} p" for k in range(n)]
    cards += [f"Dx{k} n{rng.integers(n)} k{rng.integers(3)} j" for k in range(int(rng.integers(0, 2)))]
    cards += [f"Dy{k} n{a} n{b} p" for k, (a, b) in enumerate(rng.integers(0, n, (n, 2)).tolist())]
    cards += [f"R{k} n{k} m{k} 1" for k in range(n)]
    solution = solve(*cards)
    c = solution.circuit
    j, d = c.junctions, c.ideal_diodes
    slope = branch_current(j.law, j.params, solution.drops(j.a, j.b)[0])[1]
    eye = np.eye(len(c.nodes))
    held = np.flatnonzero(slope > 0)
    flat = np.flatnonzero(slope == 0)
    ideal = (solution.current("Dx0") > 1e-9) if len(d) else np.zeros(0, bool)
    rows = [eye[j.a[held]] - eye[j.b[held]], eye[c.ties.a] - eye[c.ties.b], eye[:1], eye[d.a[ideal]] - eye[d.b[ideal]]]
    levels = [solution.drops(j.a[held], j.b[held])[0], c.ties.e[0], [0.0], d.vf[ideal]]
    rows.append(eye[c.conductors.a] - eye[c.conductors.b])
    levels.append(solution.drops(c.conductors.a, c.conductors.b)[0])
    drop = eye[j.a[flat]] - eye[j.b[flat]]
    for node in range(len(c.nodes)):
        ends = []
        for sign in (1.0, -1.0):
            found = linprog(
                sign * eye[node],
                A_ub=np.concatenate([drop, -drop, eye[d.a] - eye[d.b]]),
                b_ub=np.concatenate([np.ones(flat.size), 2 * np.ones(flat.size), d.vf]) + 1e-9,
                A_eq=np.concatenate(rows),
                b_eq=np.concatenate(levels),
                bounds=(None, None),
            )
            ends.append(sign * found.fun if found.status == 0 else -sign * np.inf)
        wanted = interval(solution, c.nodes[node]) or (solution.voltages()[0, node],) * 2
        np.testing.assert_allclose(wanted, ends, atol=1e-7, err_msg=c.nodes[node])
        assert solution.determined[node] == (ends[1] - ends[0] < 1e-7)


@pytest.mark.parametrize("seed", range(60))
def test_marks_of_currents_against_a_linear_program(seed: int) -> None:
    """All nodes tied at 0 V, perfect diodes between them: a current is unique if its least and most value agree."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    ends = [(int(rng.integers(-1, k)), k) for k in range(n)]  # a tree, so that all are tied
    ends += rng.integers(-1, n, (int(rng.integers(0, 2)), 2)).tolist()
    names = {-1: "0"} | {k: f"n{k}" for k in range(n)}
    cards = [f"V{k} {names[a]} {names[b]} 0" for k, (a, b) in enumerate(ends)]
    diodes = rng.integers(-1, n, (int(rng.integers(1, n + 1)), 2)).tolist()
    cards += [f"D{k} {names[a]} {names[b]} {rng.choice(list('iij'))}" for k, (a, b) in enumerate(diodes)]
    cards += [f"I{k} 0 n{k} {rng.normal()!r}" for k in range(n)]
    solution = solve(*cards)
    c = solution.circuit
    closed = c.ideal_diodes.vf == 0
    a = np.concatenate([c.ties.a, c.ideal_diodes.a])
    b = np.concatenate([c.ties.b, c.ideal_diodes.b])
    incidence = (np.eye(len(c.nodes))[a] - np.eye(len(c.nodes))[b]).T[1:]
    s = c.current_sources
    wanted = (np.eye(len(c.nodes))[s.b] - np.eye(len(c.nodes))[s.a]).T[1:] @ s.i[0]
    bounds = [(None, None)] * len(c.ties) + [(0, None if x else 0) for x in closed]
    marks = np.concatenate([~solution.tie_currents[1], solution.ambiguous[1]])
    for k in range(a.size):
        cost = np.eye(a.size)[k]
        ends_found = [linprog(sign * cost, A_eq=incidence, b_eq=wanted, bounds=bounds) for sign in (1.0, -1.0)]
        assert all(found.status in (0, 3) for found in ends_found)
        unique = all(found.status == 0 for found in ends_found) and abs(ends_found[0].fun + ends_found[1].fun) < 1e-9
        assert marks[k] == (not unique), cards


def test_parallel_perfect_diodes_share_and_are_marked() -> None:
    solution = solve("I1 0 a 1", "D1 a 0 j", "D2 a 0 j", "D3 a 0 p")
    assert solution.current("D1") == solution.current("D2") == pytest.approx(0.5)
    assert solution.ambiguous[1].tolist() == [True, True]
    assert "ideal diodes D1, D2" in solution.remarks[0]


def test_a_source_beside_a_diode_at_its_forward_voltage() -> None:
    assert solve("V1 a 0 1", "D1 a 0 j").tie_currents[1].tolist() == [False]
    assert solve("V1 a 0 0.5", "D1 a 0 j").tie_currents[1].tolist() == [True]


def test_enormous_currents_are_remarked() -> None:
    assert "9e+69 A" in solve("V1 a 0 5", "D1 a 0 s").remarks[0]
    assert solve("V1 a 0 0.9", "D1 a 0 s").remarks == []


def test_strict() -> None:
    strict = cs.Settings(strict=True)
    cs.solve(cs.parse("t\nV1 a 0 1\nR1 a 0 1"), strict)
    with pytest.raises(cs.TopologyError, match="the voltage of 2 nodes is not unique") as caught:
        cs.solve(cs.parse("t\nV1 a 0 1\nR1 b c 1"), strict)
    assert caught.value.nodes == ("b", "c")
    with pytest.raises(cs.TopologyError, match="the current of V1, V2 is not unique"):
        cs.compile_problem(cs.parse("t\nV1 a 0 1\nV2 a 0 1\nR1 a 0 1")).check_unique()
    with pytest.raises(cs.TopologyError, match="not unique"):
        cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 b c 1")).check_unique()
