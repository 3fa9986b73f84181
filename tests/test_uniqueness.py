"""What is not unique: intervals of voltages and marks of currents, by hand and against linear programs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import PRECISE, some_slow
from scipy.linalg import null_space
from scipy.optimize import linprog

import circuitsim as cs
from circuitsim.currents import ambiguous_elements, enormous_currents, row_violations
from circuitsim.io.output import Results, result_object, write_npz
from circuitsim.laws import branch_current
from circuitsim.saved import wanted_saves
from circuitsim.uniqueness import _states

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
    some_rows = cs.solve(solution.circuit.with_values({"V1": [0.0, -1.0, 0.0]}), PRECISE)
    np.testing.assert_array_equal(some_rows.determined, solution.determined)
    assert not [remark for remark in some_rows.remarks if "node" in remark]  # intervals are those of one row


def test_nodes_that_are_left_out_are_none_that_can_shift() -> None:
    deck = "half of it\nI1 0 a 1m\nV1 b 0 1\nR1 b 0 1k\nR2 c d 1\n"
    solution = cs.solve(cs.parse(deck), cs.Settings(lenient=True))
    loose = [node for node, unique in zip(solution.circuit.nodes, solution.determined, strict=True) if not unique]
    assert np.isnan(solution.voltage("a")).all() and loose == ["c", "d"]


@pytest.mark.parametrize("volts", [5.0, 5.3, 0.1, 12.7])
@pytest.mark.parametrize("vfwd", [0.7084939811511785, 0.3, 1.1])
def test_a_node_at_the_knee_of_a_diode_whatever_rounds(volts: float, vfwd: float) -> None:
    """The forward voltage is met to a rounding error, above or below; a current that flows makes the voltage unique."""
    cards = f".model k D(ron=3 vfwd={vfwd!r})", f".model t pwl(-1 -1m 0 0 {vfwd!r} 0 9 1m)", f"V1 a 0 {volts!r}"
    low, high = interval(solve(*cards, "D1 a b k"), "b") or (0.0, 0.0)
    assert (low, high) == (pytest.approx(volts - vfwd), np.inf)
    low, high = interval(solve(*cards, "N1 a b t"), "b") or (0.0, 0.0)
    assert (low, high) == (pytest.approx(volts - vfwd), pytest.approx(volts))
    for amperes in ("1f", "1u"):
        assert solve(*cards, "D1 a b k", f"I1 b 0 {amperes}").determined.all()
        assert solve(*cards, "N1 a b t", f"I1 b 0 {amperes}").determined.all()
        elsewhere = solve(*cards, "D1 a b k", f"I1 c 0 {amperes}", "D2 a c k")  # what flows into c says nothing of b
        assert interval(elsewhere, "b") == (pytest.approx(volts - vfwd), np.inf)
        assert elsewhere.determined[elsewhere.circuit.netlist.node("c")]


@pytest.mark.parametrize("volts", [1.0, 0.7, 1e-6, 1e9, 5.3, 12.7, 0.1, 1.1])
def test_which_diodes_conduct_and_which_are_about_to(volts: float) -> None:
    """One that carries, one back to back with it, one in reverse, and one at its knee, a third, but for rounding: what
    is left of a current there may be the last digit of a conductance."""
    knee = f".model k D(ron=0 vfwd={volts / 3!r})"
    cards = "D1 a b i", "R1 b 0 1", "D2 b a i", "D3 0 a i", "R2 a c 2.2", "R3 c 0 1.1", "D4 c 0 k"
    gap, conducts = _states(solve(knee, f"V1 a 0 {volts!r}", *cards), slice(0, 1))
    assert gap[0].tolist() == [0.0, 0.0, volts, 0.0]
    assert conducts[0, :3].tolist() == [True, False, False]


def test_one_bound_or_none() -> None:
    solution = solve("V1 a 0 5", "D1 a b i", "D2 c a j", "R1 d e 1")
    assert interval(solution, "b") == (5.0, np.inf)
    assert interval(solution, "c") == (-np.inf, 6.0)
    assert interval(solution, "d") == (-np.inf, np.inf)
    assert solution.remarks == ["node b: any voltage from 5 V up", "node c: any voltage up to 6 V"]


def test_what_controlled_sources_leave_open_has_no_bounds_but_a_source_holds_its_voltage() -> None:
    solution = solve("V1 s 0 1", "R1 a 0 1", "G1 a 0 a 0 -1", "V2 b a 3")
    a, b, s = (solution.circuit.netlist.node(name) for name in "abs")
    assert interval(solution, "a") == interval(solution, "b") == (-np.inf, np.inf)
    assert interval(solution, "s") == (1.0, 1.0)
    assert solution.open_between(np.array([a, a, s]), np.array([b, s, 0])).tolist() == [False, True, False]


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
    current, slope = branch_current(j.law, j.params, solution.drops(j.a, j.b)[0])[:2]
    eye = np.eye(len(c.nodes))
    holds = (slope > 0) & (np.abs(current) > 1e-9)  # not so a digit beyond a knee
    held, flat = np.flatnonzero(holds), np.flatnonzero(~holds)
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
    ring = solve("V1 a 0 0", ".model z D(ron=0 vfwd=0 vrev=0 rrev=0)", "D1 a b z", "R1 b 0 1")  # two knees at 0 V
    assert ring.ambiguous_others == ["D1"] and ring.remarks[0].startswith("ideal diodes D1: ")


def test_a_source_beside_a_diode_at_its_forward_voltage() -> None:
    assert solve("V1 a 0 1", "D1 a 0 j").tie_currents[1].tolist() == [False]
    assert solve("V1 a 0 0.5", "D1 a 0 j").tie_currents[1].tolist() == [True]


def test_a_power_is_open_where_a_row_of_the_batch_has_a_voltage() -> None:
    circuit = cs.parse("t\nV1 a 0 1\nV2 a 0 1\nR1 a 0 1")
    for volts, open_power in (([0.0, 0.0], False), ([0.0, 1.0], True)):
        solution = cs.solve(circuit.with_values({"V1": volts, "V2": volts}))
        assert ambiguous_elements(solution, "V").tolist() == [True, True]
        assert ambiguous_elements(solution, "V", powers=True).tolist() == [open_power, open_power]


def test_enormous_currents_are_remarked() -> None:
    assert "9e+69 A" in solve("V1 a 0 5", "D1 a 0 s").remarks[0]
    assert solve("V1 a 0 0.9", "D1 a 0 s").remarks == []


def test_remarks_on_enormous_currents_name_element_and_cure() -> None:
    """A nonlinear resistor is no diode, and what is piecewise linear has no RS."""

    def remark(element: str, model: str) -> str:
        [found] = cs.solve(cs.parse(f"t\nV1 a 0 5\n{element} a 0 m\n.model m {model}")).remarks
        return found

    head = "1: the sources force 5 V across it, and it carries "
    assert remark("D1", "d(is=1e-14 n=2)").startswith("diode D" + head)
    assert remark("D1", "d(is=1e-14 n=2)").endswith("A; put a resistor in series, or give its model an RS")
    assert remark("D1", "d(ron=1e-9)") == (
        f"diode D{head}5e+09 A; put a resistor in series, or make RON (RREV in reverse) of its model larger"
    )
    assert remark("N1", "pwl(-1 0 0 0 1 2e9)") == f"nonlinear resistor N{head}1e+10 A; put a resistor in series"
    assert remark("N1", "sinh(i0=1 v0=0.2)") == f"nonlinear resistor N{head}3.6e+10 A; put a resistor in series"


def test_enormous_currents_may_be_negative() -> None:
    problem = cs.compile_problem(cs.parse("t\nV1 a 0 -5\nN1 a 0 sh\n.model sh sinh(i0=1u v0=0.1)"))
    [(_, volts, amperes)] = enormous_currents(cs.solve(problem.with_values({"V1": np.array([[4.0], [-5.0]])})))
    assert volts == -5.0
    assert amperes < -1e15


def test_rows_without_voltages_leave_the_violations_of_others() -> None:
    problem = cs.compile_problem(cs.parse("t\nV1 a 0 1\nR1 a b 1k\nR2 b 0 1k"))
    solution = cs.solve(problem.with_values({"V1": np.arange(4.0)[:, None]}))
    x = solution.x.copy()
    x[1] = np.nan
    assert np.isnan(row_violations(replace(solution, x=x)))[:, 0].tolist() == [False, True, False, False]


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


# -- controlled sources ------------------------------------------------------------------------------------------------

SENSE = ("I1 0 c 1m", "Vs c 0 0")  # i(Vs) = 1 mA
OPEN = [
    (("V1 a 0 1", "E1 a 0 a 0 1", "R1 a 0 1k"), "V1 E1"),
    (("V1 a 0 1", "E1 a 0 a 0 1", "R1 a 0 1k", "R0 a b 0", "R2 b 0 1k"), "V1 E1"),  # R0 alone joins b
    (("V1 a 0 1", "E1 b 0 a 0 2", "E2 b 0 a 0 2", "R1 b 0 1k"), "E1 E2"),
    (("V1 a 0 1", "E1 b 0 a 0 3", "E2 a 0 b 0 {1/3}", "R1 b 0 1k"), "V1 E2"),  # E1 alone gives b its current
    (("V1 a 0 1", "E1 b 0 a 0 3", "R1 b 0 1k", "E2 c b a 0 1", "R2 c 0 1"), ""),
    (("V1 a 0 1", "V2 b a 1", "E1 b c a 0 1", "E2 c 0 a 0 1", "R2 c 0 1"), "V1 V2 E1 E2"),
    (("V1 a 0 1", "V2 b a 1", "E1 c 0 a 0 1", "E2 c 0 a 0 1", "R2 c b 1"), "E1 E2"),
    (("V1 a 0 1", "R1 a 0 1k", *SENSE, "H1 a 0 Vs 1k"), "V1 H1"),
    (("V1 a 0 1", *SENSE, "H1 a 0 Vs 1k", "F1 d 0 Vs 1", "F2 e 0 V1 1", "F3 g 0 V1 0", "R1 d 0 1k", "R2 e 0 1k"),
     "V1 H1 F2 R2"),
    (("H1 x 0 Vs 1k", "Vs x y 0", "R1 y 0 1k"), "H1 Vs R1"),
    (("V1 a 0 1", "R1 a 0 1k", "H1 b 0 V1 1k", "R2 b 0 1k", "V3 d b 1", "R3 d 0 1k"), ""),
    (("I1 0 a 1m", "R1 a 0 1k", "E1 b b a a 2", "R2 b 0 1k"), "E1"),  # a loop of its own, and no other
]  # fmt: skip


def open_elements(solution: cs.Solution) -> set[str]:
    """The marks of sources and shorts as they are, those of resistors as they are saved."""
    c = solution.circuit
    tables = {kind: table for kind, table in c.netlist.tables.items() if kind != "R"}
    marks = {kind: ambiguous_elements(solution, kind) for kind in tables}
    found = {
        name for kind, table in tables.items() for name, mark in zip(table.names, marks[kind], strict=True) if mark
    }
    saved = Results(solution, wanted_saves(c, ["alli"])).saved
    loose = {label[2:-1] for label, mark in zip(saved.labels, saved.ambiguous, strict=True) if mark}
    assert found == loose - set(c.netlist.tables["R"].names)
    return loose


def in_kernel(circuit: cs.Circuit) -> tuple[set[str], set[str]]:
    """Elements whose currents, and nodes whose voltages, the kernel of all laws and of KCL changes.

    Unknowns are all voltages, all currents.
    """
    tables = circuit.netlist.tables
    names = [(kind, k) for kind in "RVIEFGH" for k in range(len(tables[kind]))]
    n = len(circuit.nodes)
    rows = []
    eye = np.eye(n + len(names))
    kcl = np.zeros((n, n + len(names)))
    for column, (kind, k) in enumerate(names):
        table = tables[kind]
        own, current = eye[table.a[k]] - eye[table.b[k]], eye[n + column]
        kcl[table.a[k]] += current
        kcl[table.b[k]] -= current
        control = np.zeros(n + len(names))
        if kind in "EG":
            control = eye[table.links["ca"][k]] - eye[table.links["cb"][k]]
        elif kind in "FH":
            control = eye[n + names.index(("V", int(table.links["control"][k])))]
        if kind in "EFGH":
            rows.append((own if kind in "EH" else current) - table.values["gain"][k] * control)
        else:
            rows.append(
                {"R": own - table.values["r"][k] * current if kind == "R" else own, "V": own, "I": current}[kind]
            )
    kernel = null_space(np.concatenate([eye[:1], kcl[1:], rows]), rcond=1e-10)
    changes = np.abs(kernel).max(axis=1, initial=0.0) > 1e-9
    elements = {tables[kind].names[k] for (kind, k), change in zip(names, changes[n:].tolist(), strict=True) if change}
    return elements, {node for node, change in zip(circuit.nodes, changes[:n].tolist(), strict=True) if change}


@pytest.mark.parametrize(("cards", "wanted"), OPEN)
def test_currents_that_controlled_sources_leave_open(cards: tuple[str, ...], wanted: str) -> None:
    solution = cs.solve(cs.parse("\n".join(["t", *cards])))
    assert open_elements(solution) == in_kernel(solution.circuit)[0] == set(wanted.split())


@pytest.mark.parametrize("seed", range(80))
def test_open_currents_of_random_circuits_are_marked(seed: int) -> None:
    """Sources of 0: then equations do not contradict each other. In doubt a current is marked, never the other way."""
    rng = np.random.default_rng(seed)
    nodes = ["0", *(f"n{k}" for k in range(int(rng.integers(2, 5))))]

    def two() -> str:
        return " ".join(rng.choice(nodes, 2, replace=False).tolist())

    cards = [f"V{k} {two()} 0" for k in range(2)] + [f"R{k} {two()} {rng.choice([0, 1, 2])}" for k in range(3)]
    cards += [f"{kind}{k} {two()} {two()} {rng.choice([1, -1, 0.5])}" for k, kind in enumerate(rng.choice([*"EG"], 2))]
    cards += [f"{rng.choice([*'FH'])}0 {two()} V{rng.integers(2)} {rng.choice([1, -1, 2])}"]
    solution = cs.solve(cs.parse("\n".join(["t", *cards])))
    if not solution.problem.topology.islands.pinned.any():
        marks, (wanted, _) = open_elements(solution), in_kernel(solution.circuit)
        assert marks >= wanted, cards
        assert marks == wanted or wanted, cards  # nothing is marked where all is unique


def two(rng: np.random.Generator, nodes: list[str]) -> str:
    return " ".join(rng.choice(nodes, 2, replace=False).tolist())


@pytest.mark.parametrize("first", some_slow(range(0, 400, 50), 4))
def test_potentials_of_islands_that_only_controlled_sources_hold(first: int) -> None:
    """One in three has no resistor to ground; what marks say there is what the kernel of all equations says."""
    held = 0
    for seed in range(first, first + 50):
        rng = np.random.default_rng(seed)
        nodes = [f"n{k}" for k in range(int(rng.integers(3, 7)))]
        any_node = ["0", *nodes]
        cards = [f"R{k} {two(rng, nodes)} {rng.choice([1, 2, 3])}" for k in range(4)]
        cards += [f"V{k} {two(rng, nodes)} 0" for k in range(rng.integers(2))]
        kinds = rng.choice([*"EGGG"], int(rng.integers(1, 4)))
        cards += [
            f"{kind}{k} {two(rng, any_node)} {two(rng, any_node)} {rng.choice([3, -2, 0.5])}"
            for k, kind in enumerate(kinds)
        ]
        solution = cs.solve(cs.parse("\n".join(["t", *cards])))
        islands = solution.problem.topology.islands
        if islands.n_parts > 1 and not islands.pinned.any():
            loose = {node for node, sure in zip(solution.circuit.nodes, solution.determined, strict=True) if not sure}
            assert loose == in_kernel(solution.circuit)[1], cards
            held += not loose
    assert held


@pytest.mark.parametrize(
    "cards",
    [
        "I1 q1 p1 1m\nD1 p1 q1 perf\nG1 p1 q1 q1 0 1m",
        "I1 q1 p1 2m\nD1 p1 q1 perf\nG1 q1 p1 p1 0 1m\nV5 s 0 5\nD2 s q1 perf",
    ],
)
def test_a_diode_takes_up_what_a_controlled_source_gives(cards: str) -> None:
    """In the first q = 1 V, p <= 1 V is a solution, and so is p = q <= 1 V with the rest of the current in D1."""
    solution = cs.solve(cs.parse(f"t\nRq q1 q2 1k\nRp p1 p2 1k\n.model perf D(ron=0)\n{cards}"))
    index = [solution.circuit.netlist.node(name) for name in ("q1", "q2", "p1", "p2")]
    assert not solution.determined[index].any()


def test_islands_that_controlled_sources_feed_are_held_by_their_diodes() -> None:
    """What G1 gives must flow through D1, which holds x at 0 V."""
    solution = solve("V1 a 0 1", "R0 a 0 1", "G1 0 x a 0 1m", "R1 x y 1k", "D1 x 0 i")
    assert solution.determined.all()


def test_a_source_that_controls_and_others_share_no_current_of_its_own() -> None:
    """V1, beside V2 and V3, drives F1: what V2 and V3 carry is shared by them alone, and KCL holds."""
    solution = cs.solve(cs.parse("t\nV1 a 0 1\nV2 a 0 1\nV3 a 0 1\nR1 a 0 1\nF1 0 b V1 1\nR2 b 0 1"))
    currents = [solution.current(name)[0] for name in ("V1", "V2", "V3")]
    assert sum(currents) == pytest.approx(-1.0)
    assert currents[1] == pytest.approx(currents[2])
    assert solution.tie_currents[1].tolist() == [False] * 3


def test_open_currents_are_marked_in_every_output(tmp_path: Path) -> None:
    solution = cs.solve(cs.parse("t\nV1 a 0 1\nE1 a 0 a 0 1\nR1 a 0 1k\nV2 b 0 1\nR2 b 0 1\n.save i(E1) i(R1) @E1[p]"))
    results = Results(solution)
    data = result_object(results, {})
    assert data["ambiguous_currents"] == ["V1", "E1"]
    assert data["ambiguous_saved"] == ["i(E1)", "@E1[p]"]
    assert "controlled sources E1: their equations leave their currents open" in data["warnings"]
    write_npz(results, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert (found["ambiguous"].tolist(), found["saved_ambiguous"].tolist()) == (
            [True, False, True],
            [True, False, True],
        )
    assert any(text.endswith(": V1") for text in results.loose_texts(5, sources=True))


def test_strict_refuses_open_currents_of_controlled_sources() -> None:
    strict = cs.Settings(strict=True)
    with pytest.raises(cs.TopologyError, match="the current of V1, E1 is not unique"):
        cs.solve(cs.parse("t\nV1 a 0 1\nE1 a 0 a 0 1\nR1 a 0 1k"), strict)
    cs.solve(cs.parse("t\nV1 a 0 1\nE1 b 0 a 0 3\nR1 b 0 1k"), strict)


def test_rows_solved_at_once_are_marked_too() -> None:
    deck = "t\nV1 a 0 1\nE1 b 0 a 0 3\nE2 b 0 a 0 3\nR1 b 0 1k\nD1 b c di\nR3 c 0 1k\n.model di D(is=1e-12)"
    solution = cs.solve(cs.parse(deck).with_values({"V1": np.array([1.0, 2.0])}))
    assert solution.ambiguous[2].tolist() == [True, True]


def test_the_last_digit_of_0_volts_opens_no_diode() -> None:
    """I1 circulates in D2; in a batch of two rows v(n2) = v(n3) = 0 may come out 1e-22 V apart."""
    cards = "V1 n1 0 1\nR0 0 n4 31.2\nR2 n4 n3 104\n.model di D(ron=0)\nD2 n3 n2 di\nI1 n2 n3 .000161"
    circuit = cs.parse(f"circulates\n{cards}").with_values({"V1": [1.0, -2.0]})
    solution = cs.solve(circuit)
    assert solution.determined.all()
    assert solution.current("D2") == pytest.approx(0.000161)
    x = solution.x.copy()
    x[1, solution.problem.topology.index_of_node[solution.circuit.netlist.node("n2")]] = 1e-21
    assert replace(solution, x=x).determined.all()


HELD_BOTH_WAYS = """n6 and n16 are one by D20 and D51, and at 0 V by Rg16; D33 lets nothing through
R2 n18 n12 2.56e+05
R3 n20 n3 7.31
R6 n23 n12 1.61
R9 n4 n17 156
R15 n11 n18 2.57e+03
R19 n12 n20 638
R21 n22 n23 5.1e+05
D1 n14 n0 m0
D3 n3 n7 m0
D12 n23 n7 m0
D20 n6 n16 m0
D25 n14 n17 m0
D33 n11 n16 m2
D40 n11 n17 m0
D44 n14 n4 m4
D47 n0 n21 m3
D51 n16 n6 m0
D53 n21 n15 m4
I0 n0 n4 -0.0354
I1 n23 n21 -0.000605
Rg0 n0 0 4.94
Rg4 n4 0 2.11
Rg15 n15 0 18.1
Rg16 n16 0 6.56e+03
Rg23 n23 0 4.99
.model m0 D(ron=0 vfwd=0)
.model m2 D(ron=0 vfwd=0.12)
.model m3 D(ron=0 vfwd=0.42)
.model m4 D(ron=0 vfwd=0.24 vrev=3)
"""


def test_a_gap_within_the_rounding_of_the_largest_voltage_is_none() -> None:
    """v(n16) comes out as 1e-109 V: no room for n6."""
    solution = cs.solve(cs.parse(HELD_BOTH_WAYS))
    loose = [node for node, unique in zip(solution.circuit.nodes, solution.determined, strict=True) if not unique]
    assert sorted(loose) == ["n14", "n7"]


OPEN_WAYS = "V2 d 0 1", "D2 d 0 j", "V3 e 0 1", "V4 e 0 1", "F1 f 0 V3 1", "R2 f 0 1"  # by a diode, and by none


@pytest.mark.parametrize(
    ("cards", "loose"),
    [
        (("V1 c 0 0", "E1 a 0 c 0 1", "D1 a 0 i"), ["E1", "D1"]),  # D1 may take any current of E1
        (("V1 c 0 1", "E1 a 0 c 0 1", "D1 a 0 j"), ["E1", "D1"]),
        (("V1 c 0 0", "H1 a 0 V1 1", "D1 a 0 i"), ["H1", "D1"]),
        (("V1 c 0 1", "E1 a 0 c 0 0.5", "D1 a 0 j"), []),  # it blocks
        (("V1 c 0 1", "G1 a 0 c 0 1", "D1 a 0 i", "V2 a 0 0"), ["V2", "D1"]),
        (("V1 c 0 0", "E1 a 0 c 0 1", "D1 a 0 i", *OPEN_WAYS), ["V2", "V3", "V4", "E1", "D1", "D2", "F1"]),
    ],
)
def test_diodes_in_loops_with_controlled_sources(cards: tuple[str, ...], loose: list[str]) -> None:
    solution = solve(*cards, "R1 a 0 1", "I1 0 a 1", "Rc c 0 1")
    sources = [solution.circuit.source_names[k] for k in np.flatnonzero(~solution.source_currents[1])]
    assert sources + solution.ambiguous_others == loose
    with pytest.raises(cs.TopologyError, match=r"^strict: ") if loose else nullcontext():
        solution.check_unique()


def test_what_rounding_leaves_of_the_currents_within_an_island_conducts_nothing() -> None:
    """Three resistors and a source that drives a current around in them; nothing can flow to ground."""
    rng = np.random.default_rng(8)
    for _ in range(60):
        r, amps, vf = (
            rng.choice([1.0, 2.0, 3.0, 5.0, 10.0], 3),
            rng.choice([1e-3, 0.1, 0.5, 1.0]),
            rng.choice([0.0, 0.5]),
        )
        cards = f"R1 a b {r[0]}\nR2 b c {r[1]}\nR3 c a {r[2]}\nI1 a b {amps}\nD1 b 0 d\n.model d D(ron=0 vfwd={vf})"
        solution = cs.solve(cs.parse(f"adrift\n{cards}"))
        assert not solution.determined[1:].any()
        fed = cs.solve(cs.parse(f"fed\n{cards}\nI2 0 c 1u"))
        assert fed.determined.all() and fed.current("D1") == pytest.approx([1e-6], rel=1e-3)


@pytest.mark.parametrize(("large", "small"), [("1e9", "1u"), ("1e12", "1m"), ("1k", "1")])
def test_what_flows_through_an_island_is_no_rounding_however_little(large: str, small: str) -> None:
    """From a source by either of two diodes into an island in which far larger conductances lie, and out of it."""
    cards = f"R1 a b {large}\nD2 b 0 i\nR2 b c {small}\nR3 c b {small}\n.model i D(ron=0)"
    solution = cs.solve(cs.parse(f"through\nV1 p 0 5\nD1 p a i\nD1b p a i\n{cards}"))
    assert solution.ambiguous[1].tolist() == [True, True, False] and solution.determined.all()


@pytest.mark.parametrize(
    ("cards", "open_ones"),
    [
        ("R1 a 0 1\nH1 a 0 V0 0.5\nD1 0 a d", ""),  # a loop of sources that an equation fixes; D1 is open
        ("R1 a 0 1\nH1 a 0 V0 0.5\nV5 a q 0\nR5 q 0 3\nD1 q a d", "V5 D1"),  # and one with a diode, elsewhere
        ("R1 a 0 1\nF1 b 0 V0 1\nR2 b 0 1\nV1 a 0 1\nD1 0 a d", "V0 V1 F1"),  # a loop that none fixes
        ("R1 a 0 1\nE1 a 0 b 0 1\nV2 b 0 1\nD1 0 a d", "V0 E1"),
    ],
)
def test_loops_of_sources_without_a_diode_are_not_those_of_diodes(cards: str, open_ones: str) -> None:
    solution = cs.solve(cs.parse(f"loops\nV0 a 0 1\n{cards}\n.model d D(ron=0)"))
    names = np.array(solution.circuit.source_names)
    assert [*names[~solution.source_currents[1]], *solution.ambiguous_others] == [
        *[name for name in names if name in open_ones.split()], *[x for x in open_ones.split() if x[0] in "DF"]
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [1, 3])
def test_an_island_that_a_current_enters_comes_to_rest_near_ground(rows: int) -> None:
    """Not at 1e12 V, where it would be if the current went first through what is taken for no conductance."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        amps, volts = rng.uniform(0.01, 1.0, rows), rng.uniform(0.1, 3.0)
        cards = f"I3 n4 n1 1\nD4 n4 0 d\nV6 n4 n3 {volts}\nD8 n1 n3 d\nD5 n1 n4 d\n.model d D(ron=0)"
        solution = cs.solve(cs.parse(f"adrift\n{cards}").with_values({"I3": amps}))
        np.testing.assert_allclose(solution.voltage("n4") - solution.voltage("n3"), volts, rtol=1e-12)
        assert np.abs(solution.voltages()).max() < 100.0 and not solution.determined[1:].any()
        np.testing.assert_allclose(solution.current("V6"), -amps, rtol=1e-9)
