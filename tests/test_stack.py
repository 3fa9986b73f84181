"""Circuits side by side: the same answers as one by one, each judged by its own voltages and currents."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim import stack as stacks_of
from circuitsim.build import build_circuit
from circuitsim.methods.held import hardly_moves
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.revalue import Revaluer
from circuitsim.residual import Check
from circuitsim.saved import wanted_saves
from circuitsim.solution import Status
from circuitsim.solving import solve
from circuitsim.stack import Stacks, built, most_copies, solve_in_shares, stacked, unstacked
from circuitsim.sweeping import runner
from circuitsim.sweeping.draws import MonteCarloPlan
from circuitsim.sweeping.runner import Runner

LINEAR = "linear\nV1 a 0 {v}\nR1 a b {r}\nR2 b c 2k\nI1 0 c 1m\nR3 c 0 {3*r}\nL1 c d\nR4 d b 1k\n.options rshunt=1meg\n"
FLOATING = "a source between nodes that float\nV1 a 0 {v}\nR1 a b {r}\nV2 b c 0.3\nR2 c 0 1k\nR3 b d 1k\nD1 d c dm\n"
SHOCKLEY = "shockley\nV1 a 0 {v}\nR1 a b {r}\nD1 b c dm area={r/1k}\nR2 c 0 100\nD2 0 b dm\nI1 0 c {v/1k}\n"
ONE = "one diode\nV1 a 0 1\nR1 a b {r}\nD1 b 0 dm\n"
PERFECT = "perfect diodes\nV1 a 0 {v}\nR1 a b {r}\nD1 b c id\nR2 c d 100\nD2 d e id\nR3 e 0 1k\nD3 0 c id\nD4 d f iz\n"
PERFECT += "R4 f 0 10k\nD5 b g id\nD6 g h id\nD7 h b id\nR5 g 0 1k\nR6 h 0 1k\n"
CURVED = "nonlinear resistors\nV1 a 0 {v}\nR1 a b {r}\nN1 b c nt\nN2 c 0 ns m={r/1k}\nN3 b 0 nw\nR2 c 0 5k\n"
CONTROLLED = "controlled sources\nV1 a 0 {v}\nR1 a m {r}\nE1 out 0 0 m 1e4\nR2 m out 10k\nD1 m 0 dm\nV2 a p 0\n"
CONTROLLED += "R3 p 0 {r}\nF1 0 q V2 0.5\nR4 q 0 2k\nH1 h 0 V2 100\nR5 h q 1k\nG1 0 g q 0 1m\nR6 g 0 {2*r}\nD2 g 0 id\n"
CONTROLLED += "V3 out x 0.1\nR7 x 0 1k\n"
MODELS = """.param v=3 r=1k
.model dm D(is=1e-12 n=1.5 rs=2 bv=5)
.model dl D(is=1e-18 n=2 rs=2)
.model id D(ron=0)
.model iz D(ron=0 vfwd=0.6 vrev=2)
.model nt tanh(imax=1m v0=0.4)
.model ns sinh(i0=1u v0=0.1)
.model nw pwl(-1 -1m 0 0 1 2m 2 2m)
"""
STRINGS = "strings of diodes\nV1 a 0 {3*v}\nR1 a b {r}\nD1 b c dm area={r/1k}\nD2 c d dl\nD3 d 0 dm\nI1 0 c {v/1meg}\n"
STRINGS += (
    "D4 e b dl\nN1 e f ns m={r/1k}\nN2 f 0 nt\nD5 a g id\nR2 g 0 {r}\nD6 m 0 dl\nD7 n m dm\nR3 m k 1k\nV2 k l 0.2\n"
)
STRINGS += "R4 a n {r}\nE1 o 0 0 p 1e4\nR5 a p {r}\nR6 p o 2k\n"
DECKS = {
    text.split("\n")[0]: text + MODELS for text in (LINEAR, FLOATING, SHOCKLEY, PERFECT, CURVED, CONTROLLED, STRINGS)
}


def variants(deck: str, count: int = 6) -> list[cs.Circuit]:
    """Circuits of one deck with other values: the last at a thousandth of the voltage, the first at none."""
    rng = np.random.default_rng(1)
    volts = [0.0, *rng.uniform(-5.0, 5.0, count - 2), 3e-3]
    text = DECKS[deck]
    values = zip(volts, rng.uniform(500.0, 2000.0, count), strict=True)
    return [cs.parse(text.replace(".param v=3 r=1k", f".param v={v} r={r}")) for v, r in values]


def solved(circuit: cs.Circuit) -> cs.Solution:
    return solve(circuit, cs.Settings(method="newton"))


@pytest.mark.parametrize("deck", DECKS)
def test_the_answers_are_those_of_each_circuit(deck: str) -> None:
    circuits = variants(deck)
    whole = solved(stacked(circuits))
    assert whole.circuit.copies == len(circuits)
    assert whole.residuals.kcl_relative <= 1e-9
    v = unstacked(whole.voltages(), len(circuits), nodes=True)
    current, unique = (unstacked(x, len(circuits)) for x in (whole.tie_currents[0], whole.tie_currents[1][None]))
    determined = unstacked(whole.determined[None], len(circuits), nodes=True)
    for k, circuit in enumerate(circuits):
        one = solved(circuit)
        np.testing.assert_allclose(v[k], one.voltages()[0], rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(current[k], one.tie_currents[0][0], rtol=1e-9, atol=1e-18)
        np.testing.assert_array_equal(determined[k], one.determined)
        np.testing.assert_array_equal(unique[k], one.tie_currents[1])


def test_an_element_of_a_copy_has_its_name_and_values() -> None:
    circuits = variants("shockley", 3)
    whole = stacked(circuits)
    names = [whole.element(whole.conductors, k) for k in range(len(whole.conductors))]
    assert names == ["R1", "R2"] * 3
    np.testing.assert_array_equal(whole.element_values("R"), np.concatenate([c.element_values("R") for c in circuits]))
    area = [c.netlist.tables["D"].values["area"] for c in circuits]
    np.testing.assert_array_equal(whole.netlist.tables["D"].values["area"], np.concatenate(area))


DRAWN = {
    "resistors": LINEAR.replace("{r}", "{agauss(1k, 100, 1)}"),
    "models": SHOCKLEY.replace(
        "R2 c 0 100", "R2 c 0 {aunif(100, 9)}\nD3 c 0 dr\n.model dr D(is={aunif(1p, 0.5p)})\nD4 c 0 lin"
    ),
    "several kinds of branches": PERFECT
    + "R9 b z {aunif(1k, 9)}\nL1 z y\nV2 y w {aunif(1, 0.5)}\nD9 w 0 lin\nN1 w 0 nw\n",
    "controlled": CONTROLLED.replace("F1 0 q V2 0.5", "F1 0 q V2 {aunif(0.5, 0.1)}")
    + "V0 zz 0 {aunif(1, 0.5)}\nL9 q z9\nR9 z9 0 1k\n",  # a short that is no source
    "perfect lines": CURVED + "D7 c 0 lin area={aunif(1, 0.1)}\nD8 b 0 id\nRz z9 b 0\n",
}
LINES = ".model lin D(ron=10 roff=1meg vfwd=0.5)\n"


def same(one: object, other: object) -> None:
    """All fields of two dataclasses."""
    for name in (f.name for f in fields(one)):  # type: ignore[arg-type]
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def seeds(count: int) -> list[Changes]:
    """So many draws."""
    return [Changes(seed=seed) for seed in range(count)]


@pytest.mark.parametrize("text", DRAWN.values(), ids=DRAWN.keys())
def test_draws_that_are_read_together_make_the_same_stack(text: str) -> None:
    revaluer = Revaluer(cs.parse(text + MODELS + LINES).netlist)
    draws = list(revaluer.variants(seeds(6)))[1:]
    netlist = revaluer.together(draws)
    assert netlist is not None
    one, other = built(netlist, 5), stacked([build_circuit(draw.netlist()) for draw in draws])
    assert one.copies == other.copies == 5 and one.nodes == other.nodes
    for group in stacks_of.GROUPS:
        same(getattr(one, group), getattr(other, group))
    for kind, table in other.netlist.tables.items():
        for name in table.values if kind not in "DN" else set(table.values) - {"model"}:
            np.testing.assert_array_equal(one.netlist.tables[kind].values[name], table.values[name])
        for name in table.links:
            np.testing.assert_array_equal(one.netlist.tables[kind].links[name], table.links[name])


def test_draws_that_are_not_read_together_are_told() -> None:
    netlist = cs.parse(DRAWN["resistors"] + MODELS).netlist
    revaluer = Revaluer(netlist)
    draws, others = list(revaluer.variants(seeds(4))), list(revaluer.variants(seeds(4)))
    assert revaluer.together([*draws, others[0]]) is None
    alone = [replace(draw, many=None) for draw in draws]
    assert revaluer.together(alone) is None
    faulty = Revaluer(cs.parse(LINEAR.replace("{r}", "{aunif(1k, 1.5k)}") + MODELS, seed=0).netlist)
    with pytest.raises(cs.NetlistError, match="negative resistance"):
        faulty.together(list(faulty.variants(seeds(20))))


# -- each by its own voltages and currents -----------------------------------------------------------------------------

WEAK = "a node that little holds\nV1 a 0 {v}\nR1 a b 1k\nR2 b 0 1k\nR3 b c 1e9\nR4 c 0 1e9\nR5 b d 1m\nR6 d 0 1k\n"
DECKS["weak"] = WEAK + ".param v=3 r=1k\n"


def test_the_largest_is_that_of_the_copy() -> None:
    texts = [DECKS["weak"].replace("v=3", f"v={v}") for v in (1e6, 1e-6)]
    problem = cs.compile_problem(stacked([cs.parse(text) for text in texts]))
    x = solved(problem.circuit).x
    found = np.unique(problem.copies.largest_around(x))
    np.testing.assert_allclose(found, [x.max() * 1e-12, x.max()], rtol=1e-9)
    small = problem.copies.largest_around(x) < 1.0
    step = np.where(small, 1e-12, 0.0)  # V: a millionth of what is there
    assert not hardly_moves(step, 1e-9 * problem.copies.largest_around(x))
    assert hardly_moves(step, 1e-9 * np.full(x.shape, x.max()))
    np.testing.assert_allclose(problem.copies.largest_of_branches(np.array([[1.0, -2.0, 4.0, 3.0]])), [[2.0, 4.0]])


@pytest.mark.parametrize("deck", ["weak", "shockley", "perfect diodes"])
def test_a_small_copy_beside_large_ones_is_as_exact(deck: str) -> None:
    text = DECKS[deck].replace("I1 0 c {v/1k}\n", "")
    circuits = [cs.parse(text.replace("v=3", f"v={v}")) for v in (1e6, -1e6, 1e-9, 1e6)]
    whole = solve(stacked(circuits), cs.Settings(method="newton"), raise_on_failure=False)
    assert whole.status is Status.SOLVED
    v = unstacked(whole.voltages(), len(circuits), nodes=True)
    for k, circuit in enumerate(circuits):
        wanted = solved(circuit).voltages()[0]
        np.testing.assert_allclose(v[k], wanted, rtol=1e-9, atol=1e-12 * np.abs(wanted).max())


def test_a_wrong_voltage_in_a_small_copy_is_seen() -> None:
    """No conductance is at m: by how many volts the diodes miss their law is measured by the copy's voltages alone."""
    deck = "between two diodes\nV1 a 0 {}\nR1 a b 1k\nD1 b m id\nD2 m c id\nR2 c 0 1k\n.model id D(ron=0)\n"
    circuits = [cs.parse(deck.format(v)) for v in (1e9, 1e-9)]
    solution = solved(stacked(circuits))
    problem = solution.problem
    drive = replace(problem.drive(slice(0, 1)), carried=solution.carried)
    unit = problem.topology.index_of_node[len(circuits[0].nodes) - 1 + circuits[0].netlist.node("m")]
    for wrong in (0.0, 1e-15, -1e-15):
        x = solution.x.copy()
        x[0, unit] += wrong
        found = Check(problem, drive, x, exact=True).by_row(1e-9)
        np.testing.assert_allclose(found, [[0.0, abs(wrong) / 1e-9]], rtol=0.01, atol=1e-9)


def test_a_law_of_a_controlled_source_is_measured_by_its_copy() -> None:
    """1e-26 V that it misses are nothing beside 1e20 V, and a millionth of what is there in the other copy."""
    deck = "a follower\nV1 a 0 {v}\nR1 a b 1k\nR2 b 0 1k\nE1 e 0 c 0 1\nR3 c 0 1k\nR4 e 0 1k\nI1 0 c {i}\n"
    deck += "E2 f 0 c 0 2\nR5 f 0 1k\n"
    circuits = [cs.parse(deck.format(v=v, i=1e-3 * v)) for v in (1e20, 1e-20)]
    solution = solved(stacked(circuits))
    problem, node = solution.problem, circuits[0].netlist.node("e")
    drive = replace(problem.drive(slice(0, 1)), carried=solution.carried)
    for copy, volts in ((0, 1e20), (1, 1e-20)):
        x = solution.x.copy()
        x[0, problem.topology.index_of_node[copy * (len(circuits[0].nodes) - 1) + node]] += 1e-6 * volts
        assert Check(problem, drive, x, exact=True).active_error[0] == pytest.approx(0.5e-6, rel=1e-3)


# -- points ------------------------------------------------------------------------------------------------------------

LOOP = "a loop of sources\n.param k=1\nV1 a 0 {floor(k)}\nR1 a b {1k*k}\nR2 b 0 1k\nV2 a 0 1\n"
SOMETIMES = "currents that are not unique while k > 2.5\n.param k=1\nV1 a 0 {k > 2.5 ? 2 : -2}\nR1 a b {1k*k}\n"
SOMETIMES += "D1 b c id\nD2 b c id\nR2 c 0 1k\nV2 a e {k > 2.5 ? 0 : -1}\nD3 a e id\nR3 e 0 1k\n"
NO_ISLAND = PERFECT + "R7 c 0 100k\n"
RUNS = {
    "draws": (SHOCKLEY.replace("{r}", "{agauss(1k, 100, 1)}").replace("{r/1k}", "{aunif(1, 0.5)}"), None),
    "draws of perfect diodes": (NO_ISLAND.replace("{r}", "{agauss(1k, 300, 1)}"), None),
    "faulty draws": (SHOCKLEY.replace("{r}", "{aunif(1k, 1.1k)}").replace("{r/1k}", "1"), None),
    "temperature": (SHOCKLEY, "TEMP -40 100 4"),
    "resistances": (CURVED, "R1 500 2k 50 R2 1k 3k 1k"),
    "a parameter": (NO_ISLAND, "r 500 2k 50"),
    "draws of strings": (STRINGS.replace("{r}", "{agauss(1k, 100, 1)}").replace("{r/1k}", "{aunif(1, 0.5)}"), None),
    "strings at temperatures": (STRINGS, "TEMP -40 100 4"),
    "one source value": (LINEAR, "V1 1 1 1 R1 1k 2k 50"),
    "draws of controlled sources": (CONTROLLED.replace("R1 a m {r}", "R1 a m {agauss(1k, 100, 1)}"), None),
    "gains": (CONTROLLED.replace("E1 out 0 0 m 1e4", "E1 out 0 0 m {10*r}"), "r 500 2k 50"),
    "a loop": (LOOP, "k 1 4 0.05"),
    "not unique in some": (SOMETIMES, "k 1 4 0.05"),
}


def points(case: str, **settings: object) -> cs.SweepResult:
    text, dc = RUNS[case]
    circuit = cs.parse(text + MODELS)
    how = {"settings": cs.Settings(**settings), "saves": wanted_saves(circuit, ["all"])}
    return cs.sweep(circuit, dc, **how) if dc else cs.monte_carlo(circuit, 60, 1, **how)


@pytest.mark.parametrize("case", RUNS)
def test_points_side_by_side_are_those_one_by_one(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stacks: list[int] = []
    keep = Runner._keep

    def counted(self: Runner, rows: NDArray[np.int64], solution: cs.Solution) -> None:
        if solution.circuit.copies > 1:
            stacks.append(rows.size)
        keep(self, rows, solution)

    monkeypatch.setattr(Runner, "_keep", counted)
    many = points(case)
    assert sum(stacks) > 5
    monkeypatch.setattr(stacks_of, "_MOST_COPIES", 1)
    stacks.clear()
    one = points(case)
    assert not stacks
    np.testing.assert_array_equal(many.statuses, one.statuses)
    assert many.messages == one.messages
    assert (many.failed.size > 0) == (case in ("faulty draws", "a loop"))
    assert (many.kcl_relative[many.statuses == "SOLVED"] <= 1e-9).all()
    for name in ("voltages", "currents", "saved"):
        np.testing.assert_allclose(getattr(many, name), getattr(one, name), rtol=1e-8, atol=1e-14, err_msg=name)
    for name in ("determined", "left_out", "ambiguous", "saved_ambiguous", "saved_left_out"):
        np.testing.assert_array_equal(getattr(many, name), getattr(one, name), err_msg=name)
    assert set(many.ambiguous_others) == set(one.ambiguous_others)
    if case != "a loop":
        assert (many.method, many.why) == ("newton", "many circuits side by side")


@pytest.mark.slow
def test_stacks_that_are_not_solved_cost_no_answer_and_not_much(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def vain(problem: cs.Problem, *settings: object, **how: object) -> cs.Solution:
        solution = solve(problem, *settings, **how)
        if problem.circuit.copies == 1:
            return solution
        tried.append(problem.circuit.copies)
        return replace(solution, unsolved={0: Status.STALLED})

    monkeypatch.setattr(runner, "solve", vain)
    many = points("draws")
    assert tried == [59, 29, 14, 7, 4, 7]  # more than twice 59: then no more
    monkeypatch.setattr(stacks_of, "_MOST_COPIES", 1)
    one = points("draws")
    assert not many.failed.size
    np.testing.assert_array_equal(many.voltages, one.voltages)
    assert (many.method, many.why) == (one.method, one.why)


@pytest.mark.parametrize("bad", [1, 100, 199])
def test_of_many_points_the_one_that_no_share_solves_is_found(bad: int) -> None:
    shares: list[int] = []
    alone: list[int] = []

    def many(share: list[int]) -> bool:
        shares.extend(share)
        return bad not in share

    solve_in_shares(iter(range(200)), 199, many, alone.append)
    assert bad in alone and len(alone) <= 8 and sorted({*alone, *shares}) == [*range(200)]
    assert len(shares) < 3 * 200


@pytest.mark.parametrize(
    ("solved", "tried"),
    [
        ([], [59, 29, 14, 7, 4, 7]),  # more than twice 59 points in vain: then no more
        ([True], [59, 59, 29, 14, 7, 4, 7, 4, 15, 7, 4, 8, 4, 4, 30]),  # those of the first share count for the others
    ],
)
def test_shares_are_given_up_once_too_many_points_were_tried_in_vain(solved: list[bool], tried: list[int]) -> None:
    shares: list[list[int]] = []
    alone: list[int] = []
    answers = iter(solved)
    solve_in_shares(
        iter(range(1 + 59 * 4)), 59, lambda share: shares.append(share) or next(answers, False), alone.append
    )
    assert [len(share) for share in shares] == tried
    assert alone == [0, *range(1 + 59 * len(solved), 1 + 59 * 4)]  # in their order


@pytest.mark.parametrize("text", [SHOCKLEY, ONE])
def test_what_is_not_solved_one_by_one(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The circuits of the next test."""
    stacks, problem = list[int](), Stacks.problem
    monkeypatch.setattr(Stacks, "problem", lambda *a: stacks.append(1) or problem(*a))
    assert not cs.monte_carlo(cs.parse(text.replace("{r}", "{agauss(1k, 100, 1)}") + MODELS), 8, 1).failed.size
    assert stacks


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (SHOCKLEY, {"method": "bcd"}),
        (SHOCKLEY, {"dtype": "float32"}),
        (ONE, {"backend": "reference"}),  # which takes seconds for more
        (SHOCKLEY + "R9 y z 1k\n", {}),  # an island that nothing joins to ground
        (SHOCKLEY + "D9 b y lin\nD8 y c dm\n.model lin D(ron=10 vfwd=0.5)\n", {}),  # a straight line does
        (SHOCKLEY + "D9 b y id\nD8 y c dm\n", {}),
        (SHOCKLEY + "D9 b y dm\nD8 y c dm\nG1 y 0 b 0 1u\n", {}),
        (SHOCKLEY + "RW[0:3][0:3] b[0:3] c[0:3] g=1m\nR9 b0 b[0] 1\nV9 b0 0 1\nR8 c[0] 0 1k\n", {}),
    ],
)
def test_what_is_solved_one_by_one(text: str, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stacks, "problem", lambda *_: pytest.fail("a stack"))
    circuit = cs.parse(text.replace("{r}", "{agauss(1k, 100, 1)}") + MODELS)
    result = cs.monte_carlo(circuit, 8, 1, cs.Settings(**settings))
    assert not result.failed.size


@pytest.mark.parametrize("g", [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
def test_copies_with_other_islands_are_no_stack(g: list[float]) -> None:
    deck = "two\nV1 p 0 1\nR1 p a 1k\nR2 p b 1k\nR3 a 0 1k\nR4 b 0 1k\nD1 a 0 dm\n"
    base = cs.compile_problem(cs.parse(deck + MODELS))
    cut = replace(base.circuit, conductors=replace(base.circuit.conductors, g=base.circuit.conductors.g * g))
    stacks = Stacks(base, 2)
    stacks.problem(stacked([base.circuit, base.circuit]))
    with pytest.raises(cs.TopologyError, match="islands of some of these circuits"):
        stacks.problem(stacked([base.circuit, cut]))


def test_draws_in_which_a_trained_resistor_is_open() -> None:
    deck = "t\nV1 b 0 1\nR0 b 0 1k\nR1 b c g={max(0, aunif(0, 1m))}\n.train R1\n.options seed=4\n"
    result = cs.monte_carlo(cs.parse(deck), 60)
    assert not result.failed.size
    assert not result.determined[result.circuit.netlist.node("c")]


@pytest.mark.parametrize("trained", ["", ".train R3\n"])
def test_draws_of_another_structure_do_not_take_the_values_of_others(trained: str) -> None:
    """In each draw one of R1 and R2 is a short: the branches are as many, but others. Only x > 0 is as read."""
    deck = "t\n.param x={aunif(0, 1k)}\nV1 a 0 1\nR1 a b {max(x, 0)}\nR2 b c {max(-x, 0)}\nR3 c 0 1k\n" + trained
    ohms = [cs.parse(deck, seed=k).resistor_ohms[0] for k in range(40)]
    seed = int(np.argmax(np.array(ohms) > 0))
    result = cs.monte_carlo(cs.parse(deck, seed=seed), 40, 0)
    assert 5 < np.count_nonzero(ohms) < 35
    for k, r in enumerate(ohms):
        assert result.statuses[k] == ("SOLVED" if r else "FAULT")
        assert not r or result.voltage("b")[k] == pytest.approx(1e3 / (1e3 + r), rel=1e-8)


def test_what_a_process_solved_before_changes_no_bit() -> None:
    """A plan solves chunk 1 first, or after chunk 0: workers get them as it comes."""
    cards = [f"R{k} n{k} n{k + 1} {{agauss(1k, 100, 1)}}\nS{k} n{k} 0 {{agauss(2k, 100, 1)}}" for k in range(30)]
    text = "ladder\nV1 n0 0 1\nRE n30 0 1k\n" + "\n".join(cards).replace("S", "RS") + "\n"
    circuit, found = cs.parse(text), []
    for order in ([1], [0, 1]):
        plan = MonteCarloPlan(circuit, cs.Settings(), None, (), 512, 0)
        found.append([plan.solve(k) for k in order][-1])
    for name in ("voltages", "currents", "kcl_relative"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


def test_dense_layers_and_many_branches_are_no_stack() -> None:
    layer = "layer\n" + "".join(f"V{i} a{i} 0 1\n" for i in range(100))
    layer += "".join(f"R{i}_{j} a{i} b{j} {1000 + i + j}\n" for i in range(100) for j in range(60))
    problem = cs.compile_problem(cs.parse(layer + "".join(f"D{j} b{j} 0 dm\n" for j in range(60)) + MODELS))
    assert problem.topology.dense and most_copies(problem) == 1
    parallel = "parallel\nV1 a 0 1\n" + "".join(f"R{k} a b 1k\n" for k in range(1000)) + "RE b 0 1\n"
    assert most_copies(cs.compile_problem(cs.parse(parallel)), 1_000) == 10


def test_a_point_whose_conductances_overflow_is_a_fault_of_the_point() -> None:
    deck = "t\n.param r=1\nV1 a 0 1\nR1 a b 1e-308\nR2 b 0 {r > 0.7 ? 1 : 1e-308}\nR3 b c 1k\nR4 c 0 1k\n"
    for dc, wanted in (("r 1 0 -0.5", [True, False, False]), ("V1 0.1 0.2 0.1 r 1 0 -0.5", 2 * [True] + 4 * [False])):
        result = cs.sweep(cs.parse(deck), dc)
        np.testing.assert_array_equal(result.statuses == "SOLVED", wanted)
        assert all("add up to more than float64 holds" in text for text in result.messages.values())


def test_diodes_of_a_small_copy_are_marked_beside_large_ones() -> None:
    """5e-14 A through two perfect diodes in parallel, in one point; 1e5 V over a diode in the others."""
    deck = """parallel diodes
.param k=0
V1 a 0 {k > 0 ? -1 : 1e-10}
R1 a b 1k
D1 b c id
D2 b c id
R2 c 0 1k
V2 p 0 {k > 0 ? 1e5 : 0}
R3 p m 1
D3 m 0 dm
R4 m 0 10
"""
    result = cs.sweep(cs.parse(deck + MODELS.replace("bv=5", "")), "k 40 0 -2")
    assert not result.failed.size and set(result.ambiguous_others) == {"D1", "D2"}


def test_what_controlled_sources_leave_open_is_told_of_each_draw() -> None:
    text = SHOCKLEY + "E9 z 0 z 0 1\nR9 z y 1k\nR8 y 0 1k\n"
    circuit = cs.parse(text.replace("{r}", "{agauss(1k, 100, 1)}") + MODELS)
    result = cs.monte_carlo(circuit, 12, 1)
    assert not result.failed.size
    assert [result.determined[circuit.netlist.node(name)] for name in "zb"] == [False, True]


def test_crossbars_are_saved_too() -> None:
    deck = "t\nV1 a[0] 0 1\nV2 a[1] 0 2\nRW[0:1][0:1] a[0:1] b[0:1] g=1m\nR1 b[0] 0 {agauss(1k, 10, 1)}\nR2 b[1] 0 1k\n"
    circuit = cs.parse(deck)
    saves = wanted_saves(circuit, ["all"])
    result = cs.monte_carlo(circuit, 6, 1, saves=saves)
    column = result.saved_labels.index("i(RW[0][1])")
    np.testing.assert_allclose(result.saved[:, column], 1e-3 * (result.voltage("a[0]") - result.voltage("b[1]")))


def test_differences_of_voltages_are_saved_of_each_copy() -> None:
    circuit = cs.parse(LINEAR.replace("{r}", "{agauss(1k, 100, 1)}") + MODELS)
    result = cs.monte_carlo(circuit, 6, 1, saves=wanted_saves(circuit, ["v(a,b)", "v(b)"]))
    np.testing.assert_array_equal(result.saved[:, 0], result.voltage("a") - result.voltage("b"))
    np.testing.assert_array_equal(result.saved[:, 1], result.voltage("b"))


def test_strict_points_that_are_not_unique_fail() -> None:
    text = "t\nV1 a 0 {aunif(2, 1)}\nR1 a b 1k\nD1 b c id\nD2 b c id\nR2 c 0 1k\n"
    result = cs.monte_carlo(cs.parse(text + MODELS), 9, 1, cs.Settings(strict=True))
    assert result.failed.size == 9 and "not unique" in result.messages[5]
    assert not cs.monte_carlo(cs.parse(text + MODELS), 9, 1).failed.size


def test_the_gpu_is_not_taken_for_stacks_unasked() -> None:
    circuit = cs.parse(SHOCKLEY.replace("{r}", "{agauss(1k, 100, 1)}") + MODELS)
    assert Runner(circuit, cs.Settings(), None, (), 1).few_steps.backend == "cpu"
    assert Runner(circuit, cs.Settings(backend="gpu"), None, (), 1).few_steps.backend == "gpu"


@pytest.mark.parametrize(("unknowns", "size"), [(30_000, 30), (3_999, 1), (4_000, 4)])
def test_few_large_circuits_are_no_stack(unknowns: int, size: int) -> None:
    deck = "chain\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\n" for k in range(1000)) + "RE n1000 0 1k\n"
    problem = cs.compile_problem(cs.parse(deck))
    assert most_copies(problem, unknowns) == size
    assert Stacks(problem, 4, unknowns).size == min(size, 4)


def test_shares_are_nearly_equal() -> None:
    problem = cs.compile_problem(cs.parse(SHOCKLEY + MODELS))
    assert [Stacks(problem, count).size for count in (4, 63, 256, 257, 600)] == [4, 63, 256, 129, 200]
    deck = "chain\nV1 n0 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\n" for k in range(1000)) + "RE n1000 0 1k\n"
    chain = cs.compile_problem(cs.parse(deck))
    assert Stacks(chain, 255).size == 29  # of 1,000 unknowns each
    assert Stacks(chain, 9, 4_000).size == 4  # three each would be too few
