"""Whether voltages and currents exist at all, against linear programs; what the witness says, by hand."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from growth import LIMIT, exponent
from scipy.optimize import linprog

import circuitsim as cs
from circuitsim.laws import most_current
from circuitsim.saved import Saved, wanted_saves

pytestmark = pytest.mark.usefixtures("kernel_form")

MODELS = [
    ".model i D(ron=0)", ".model j D(ron=0 vfwd=1)", ".model z D(ron=0 vrev=2)", ".model p D(ron=1 vfwd=1)",
    ".model s D(is=1 eg=0 xti=0)", ".model b D(is=1 bv=5)",
]  # fmt: skip


def parse(*cards: str) -> cs.Circuit:
    return cs.parse("\n".join(["test", *MODELS, "Rg g 0 1", *cards]))


def fault(*cards: str) -> cs.TopologyError:
    with pytest.raises(cs.TopologyError) as caught:
        cs.compile_problem(parse(*cards)).drive(slice(0, 1))
    return caught.value


# -- voltages ----------------------------------------------------------------------------------------------------------


def voltages_exist(c: cs.Circuit) -> bool:
    """Sources as equalities, ideal diodes as inequalities."""
    n = len(c.nodes)
    eye = np.eye(n)
    found = linprog(
        np.zeros(n),
        A_ub=eye[c.ideal_diodes.a] - eye[c.ideal_diodes.b] if len(c.ideal_diodes) else None,
        b_ub=c.ideal_diodes.vf if len(c.ideal_diodes) else None,
        A_eq=eye[c.ties.a] - eye[c.ties.b] if len(c.ties) else None,
        b_eq=c.ties.e[0] if len(c.ties) else None,
        bounds=(None, None),
    )
    return found.status == 0


@pytest.mark.parametrize("seed", range(60))
def test_sources_and_ideal_diodes_against_a_linear_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    cards = [f"R{k} n{k} 0 1" for k in range(n)]
    for k in range(int(rng.integers(1, 2 * n))):
        a, b = rng.integers(-1, n, 2).tolist()
        ends = f"{'0' if a < 0 else f'n{a}'} {'0' if b < 0 else f'n{b}'}"
        cards.append(
            f"V{k} {ends} {rng.integers(-2, 3)}" if rng.random() < 0.3 else f"D{k} {ends} {rng.choice(list('ijz'))}"
        )
    c = parse(*cards)
    try:
        cs.compile_problem(c).drive(slice(0, 1))
        feasible = True
    except cs.TopologyError as error:
        feasible = False
        assert len(error.elements) == len(set(error.elements)) > 0
        loop = [card for card in cards if card.split()[0] in error.elements]
        assert not voltages_exist(parse(*loop))  # the witness alone is a contradiction
        for card in loop:
            assert voltages_exist(parse(*(other for other in loop if other != card)))  # and all of it is needed
    assert feasible == voltages_exist(c)


def test_a_loop_names_its_elements_in_order_and_its_volts() -> None:
    error = fault("V1 a 0 5", "D1 a b j", "R1 b 0 1", "V2 c b 2", "D2 c d i", "R2 d 0 1", "L1 d e", "D3 e 0 j")
    assert error.elements == ("D1", "V2", "D2", "L1", "D3", "V1")
    assert "5 V forward" in error.message  # 5 - 1 + 2 - 1
    assert set(error.nodes) == {"a", "b", "c", "d", "e", "0"}


def test_diodes_between_free_nodes_bound_each_other() -> None:
    """No potential is known in this loop: a floating source drives two perfect diodes."""
    assert fault("R1 a 0 1", "R2 b 0 1", "V1 a c 1", "R3 c 0 1", "D1 a b i", "D2 b c i").elements == ("D1", "D2", "V1")
    cs.compile_problem(parse("R1 a 0 1", "R2 b 0 1", "V1 a c 1", "D1 a b j", "D2 b c i")).drive(slice(0, 1))


@pytest.mark.parametrize("where", ["0", "a"])
@pytest.mark.parametrize("second", ["D1 b {} i", "V3 b {} 0"])
def test_a_fault_of_half_a_microvolt_beside_a_megavolt(where: str, second: str) -> None:
    error = fault("V1 a 0 1meg", f"V2 b {where} 0.5u", second.format(where))
    assert "5e-07 V" in error.message
    assert "V1" not in error.elements


def test_rounding_of_decimals_is_no_fault() -> None:
    for third in ("V3 c 0 0.3", "V3 c 0 0.3\nRc c 0 1"):
        cards = ["V1 a 0 0.1", "V2 b a 0.2", third]
        cs.compile_problem(parse(*cards, "V4 b c 0")).drive(slice(0, 1))
        cs.compile_problem(parse(*cards, "D1 b c i", "D2 c b i")).drive(slice(0, 1))
        cs.compile_problem(parse(*cards, "D1 b x i", "D2 x c i", "Rx x 0 1")).drive(slice(0, 1))
    many = [f"Da{k} n{k} c i\nDb{k} b n{k} i\nR{k} n{k} 0 1" for k in range(1000)]
    cs.compile_problem(parse(*cards, *many)).drive(slice(0, 1))
    assert "1e-11 V" in fault("V1 a 0 0.1", "V2 b a 0.2", "V3 c 0 0.29999999999", "D1 b c i").message


def test_only_the_rows_that_fail() -> None:
    c = parse("V1 a 0 1", "D1 a b i", "D2 b c i", "R1 b 0 1", "V2 c 0 1")
    with pytest.raises(cs.TopologyError, match=r"2 V forward.*batch row 3"):
        cs.compile_problem(c.with_values({"V1": [0.0, 1.0, -4.0, 3.0, 9.0]})).drive(slice(0, 5))


def test_rows_that_fail_are_named_by_their_number_in_the_batch() -> None:
    c = parse("V1 a 0 1", "D1 a b i", "D2 b c i", "R1 b 0 1", "V2 c 0 1").with_values({"V1": [0.0, 1.0, -4.0, 3.0]})
    with pytest.raises(cs.TopologyError, match=r"2 V forward.*batch row 3"):
        cs.compile_problem(c).drive(slice(2, 4))


def test_rounding_in_one_loop_hides_no_fault_in_another() -> None:
    """100000.1 + 200000.2 and 300000.3 are 6e-11 V apart, which is no fault of D1 or D2; 1e-11 V at D9 are one."""
    far = "V1 a 0 100000.1", "V2 b a 200000.2", "V3 c 0 300000.3", "D1 b c i", "D2 c b i"
    cs.compile_problem(parse(*far)).drive(slice(0, 1))
    assert fault(*far, "V9 x 0 1e-11", "D9 x 0 i").elements == ("D9", "V9")


@pytest.mark.parametrize("ok", [True, False])
@pytest.mark.parametrize("shape", ["chain", "clamps"])
def test_a_long_loop_in_any_order_is_found_quickly(shape: str, ok: bool) -> None:
    """The longest chain of diodes, shuffled; and diodes that bound each other in pairs."""

    def prepare(n: int) -> Callable[[], None]:
        if shape == "chain":
            order = np.random.default_rng(0).permutation(n + 1)
            chain = [f"D{k} n{order[k]} n{order[k + 1]} i" for k in np.random.default_rng(1).permutation(n)]
            c = parse(f"V1 n{order[n]} 0 {5 if ok else -5}", *chain, f"Dx 0 n{order[0]} i")
        else:
            span = f"[1:{n}]"
            clamps = f"Da{span} n{span} a i", f"Db{span} c n{span} i", f"R{span} n{span} 0 1k"
            c = parse("V1 a 0 2", f"V2 c 0 {0.5 if ok else 2.5}", *clamps)

        def work() -> None:
            problem = cs.compile_problem(c)
            if ok:
                problem.drive(slice(0, 1))
            else:
                with pytest.raises(cs.TopologyError):
                    problem.drive(slice(0, 1))

        return work

    assert exponent(prepare, 8_000, repeats=2) < LIMIT


# -- currents ----------------------------------------------------------------------------------------------------------


def currents_exist(c: cs.Circuit) -> bool:
    """A current for each branch within its law's limits, and KCL at every node but ground."""
    j, d, s = c.junctions, c.ideal_diodes, c.current_sources
    forward, reverse = most_current(j.law, j.params)
    linear = len(c.ties) + len(c.conductors)
    a = np.concatenate([c.ties.a, c.conductors.a, d.a, j.a])
    b = np.concatenate([c.ties.b, c.conductors.b, d.b, j.b])
    n = len(c.nodes)
    incidence = (np.eye(n)[a] - np.eye(n)[b]).T[1:]
    wanted = (np.eye(n)[s.b] - np.eye(n)[s.a]).T[1:] @ s.i[0]
    bounds = [(None, None)] * linear + [(0, None)] * len(d)
    bounds += [tuple(None if np.isinf(x) else x for x in (-r, f)) for r, f in zip(reverse, forward, strict=True)]
    return linprog(np.zeros(a.size), A_eq=incidence, b_eq=wanted, bounds=bounds).status == 0


@pytest.mark.parametrize("seed", range(120))
def test_islands_against_a_linear_program(seed: int) -> None:
    """Sources of multiples of 0.75 A; Shockley diodes carry 1 A in reverse: no cut is met exactly."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 8))

    def ends() -> str:
        a, b = rng.integers(-1, n, 2).tolist()
        return f"{'0' if a < 0 else f'n{a}'} {'0' if b < 0 else f'n{b}'}"

    cards = [f"D{k} {ends()} {rng.choice(list('ijzpssssb'))}" for k in range(int(rng.integers(1, 2 * n)))]
    cards += [f"I{k} {ends()} {0.75 * rng.integers(-2, 3)}" for k in range(int(rng.integers(1, n + 1)))]
    cards += [f"R{k} {ends()} 1" for k in range(int(rng.integers(0, 3)))]
    c = parse(*cards)
    problem = cs.compile_problem(c)
    try:
        problem.topology.islands.check(c, c.current_sources.i)
        assert currents_exist(c)
    except cs.TopologyError as error:
        assert not currents_exist(c)
        assert error.is_cut and "0" not in error.nodes
        inside = np.isin(np.arange(len(c.nodes)), [c.netlist.node(name) for name in error.nodes])
        s, d, j = c.current_sources, c.ideal_diodes, c.junctions
        net = float(s.i[0] @ (inside[s.b].astype(float) - inside[s.a]))
        forward, reverse = most_current(j.law, j.params)
        out = np.where(inside[j.a] & ~inside[j.b], forward, 0) + np.where(inside[j.b] & ~inside[j.a], reverse, 0)
        into = np.where(inside[j.b] & ~inside[j.a], forward, 0) + np.where(inside[j.a] & ~inside[j.b], reverse, 0)
        blocked = (inside[d.a] & ~inside[d.b]) if net > 0 else (inside[d.b] & ~inside[d.a])
        assert not blocked.any()
        assert abs(net) > (out if net > 0 else into).sum()  # the cut alone proves it
        assert f"a net {abs(net):g} A" in error.message


def test_a_small_fault_beside_a_large_balance() -> None:
    """1 uA that cannot leave, among 1 MA that can."""
    error = fault("I1 0 a 1meg", "I2 b 0 1meg", "D1 a b i", "I4 0 c 1u", "D4 b c i")
    assert error.nodes == ("c",) and error.elements == ("I4", "D4")


def test_leakage_is_the_limit() -> None:
    cs.compile_problem(parse("I1 a 0 0.99", "D1 a 0 s")).drive(slice(0, 1))
    assert fault("I1 a 0 1.01", "D1 a 0 s").elements == ("I1", "D1")
    cs.compile_problem(parse("I1 a 0 1.01", "D1 a 0 b")).drive(slice(0, 1))  # breaks down


def test_current_faults_name_the_row() -> None:
    c = parse("I1 0 a 1", "I2 a 0 1").with_values({"I1": [1.0, 1.0, 3.0]})
    with pytest.raises(cs.TopologyError, match=r"a net 2 A into it \(batch row 2\)"):
        cs.compile_problem(c).drive(slice(0, 3))


def test_the_first_row_that_fails_is_named_by_its_number_in_the_batch() -> None:
    c = parse("I1 0 x 1", "I2 x 0 1", "R1 x y 1").with_values({"I1": [1.0, 2.0, 1.5]})
    islands = cs.compile_problem(c).topology.islands
    with pytest.raises(cs.TopologyError, match=r"a net 1 A into them \(batch row 1\)"):
        islands.check(c, c.current_sources.i)
    with pytest.raises(cs.TopologyError, match=r"\(batch row 8\)"):
        islands.check(c, c.current_sources.i[1:], first_row=8)


def test_a_loop_of_islands_with_a_leaf_that_pushes_into_it() -> None:
    """0.9 A alone can leave by D4, which carries 1 A in reverse; with 0.2 A of the leaf they cannot."""
    loop = "I1 0 a 0.3", "I2 0 b 0.3", "I3 0 c 0.3", "D1 a b i", "D2 b c i", "D3 c a i", "D4 0 c s"
    cs.compile_problem(parse(*loop)).drive(slice(0, 1))
    assert fault(*loop, "I5 0 l 0.2", "D5 l a i").nodes == ("a", "b", "c", "l")


def test_a_crossbar_whose_largest_conductances_do_not_join_it() -> None:
    """Smaller ones do: nothing floats."""
    c = parse("V1 a[0] 0 1", "RX[0:2][0:2] a[0:2] b[0:2] g=1").with_values(
        {"RX": np.array([[3.0, 1, 0], [0, 3, 2], [0, 2, 3]])}
    )
    solution = cs.solve(c)
    for node in ("a[1]", "a[2]", "b[0]", "b[1]", "b[2]"):
        assert solution.voltage(node)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "islands",
    [
        "I{k} 0 a{k} 1\nD{k} a{k} 0 i",
        "I{k} a{k} 0 0.5\nD{k} a{k} 0 s",
        "I{k} b{k} a{k} 1\nD{k} a{k} b{k} i",
        "I{k} b{k} a{k} 1\nD{k} a{k} b{k} s",
        "I{k} z a{k} 1\nD{k} a{k} a{next} i",
    ],
)
def test_many_islands_take_time_in_proportion(islands: str) -> None:
    def prepare(n: int) -> Callable[[], None]:
        cards = islands.format(k=f"[1:{n}]", next=f"[2:{n + 1}]")
        c = parse(cards, f"Dz a[{n + 1}] z i")

        def work() -> None:
            cs.compile_problem(c).topology.islands.check(c, c.current_sources.i)

        return work

    assert exponent(prepare, 5_000, repeats=2) < LIMIT


# -- leaving out what cannot be solved ---------------------------------------------------------------------------------

LENIENT = cs.Settings(lenient=True)


def test_lenient_leaves_out_the_island_and_solves_the_rest() -> None:
    c = parse("V1 a 0 2", "R1 a b 1", "R2 b 0 1", "I1 0 x 1m", "R3 x y 1", "I2 z b 1", "D1 z w i", "I3 b 0 1")
    with pytest.raises(cs.TopologyError):
        cs.solve(c)
    solution = cs.solve(c, LENIENT)
    assert solution.voltage("b") == pytest.approx(0.5)  # I2 and its 1 A are left out, I3 is not
    for node in "xyz":
        assert np.isnan(solution.voltage(node)).all()
    found = solution.circuit
    assert [found.nodes[k] for k in np.flatnonzero(~solution.determined)] == ["w"]
    assert [found.nodes[k] for k in np.flatnonzero(found.left_out)] == ["x", "y", "z"]
    for name in ("I1", "R3", "I2", "D1"):
        assert np.isnan(solution.current(name)).all() and np.isnan(solution.power(name)).all()
    assert solution.current("I3") == 1.0
    notes = [str(text) for _, text in solution.circuit.notes if "left out" in text]
    assert len(notes) == 2 and "nodes x, y: I1" in notes[0] and "node z: I2" in notes[1]


def test_lenient_looks_at_every_row_and_keeps_what_can_be_solved() -> None:
    c = parse("V1 a 0 2", "I1 0 x 0", "Rx x y 1").with_values({"I1": np.r_[np.zeros(300), 1.0]})
    assert np.isnan(cs.solve(c, LENIENT).voltage("x")).all()
    assert np.isnan(cs.solve(cs.compile_problem(c), LENIENT).voltage("x")).all()  # prepared without leniency, too
    fine = cs.solve(parse("V1 a 0 2", "R1 a 0 1"), LENIENT)
    assert not fine.circuit.dropped.size


def test_lenient_leaves_out_lines_of_a_crossbar() -> None:
    c = parse("V1 x[0] 0 1", "RX[0:2][0:1] x[0:2] y[0:1] g=1", "I1 0 x[2] 1").with_values(
        {"RX": [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]}
    )
    solution = cs.solve(c, LENIENT)
    assert solution.voltage("x[1]") == 1.0 and np.isnan(solution.voltage("y[1]"))[0]
    current = solution.current("RX")[0]
    assert np.isnan(current).tolist() == [[False, True], [False, True], [True, True]]


def test_lenient_does_not_hide_other_faults() -> None:
    with pytest.raises(cs.TopologyError, match="loop of voltage sources"):
        cs.solve(parse("V1 a 0 2", "V2 a 0 3", "I1 0 x 1"), LENIENT)
    problem = cs.compile_problem(parse("V1 a 0 2", "I1 0 x 1"), lenient=True)
    with pytest.raises(cs.SettingsError, match="I1: it, or one of its members, is left out"):
        problem.with_values({"I1": 0.0})


CONTROLLED = ("V1 a 0 2", "E1 b 0 a 0 3", "R1 b 0 1", "V2 b d 0", "R2 d 0 1", "F1 0 f V2 2", "R3 f 0 1")
STUCK = ("I1 0 x 1", "R4 x y 1")


def test_lenient_leaves_out_an_island_beside_controlled_sources() -> None:
    """Those inside it go with it, and those outside keep their controls: V3 stands before V2 among the ties."""
    deck = parse("V1 a 0 2", *STUCK, "V3 y z 0", "R5 z x 1", "F2 x y V3 2", "G1 x z y z 1", *CONTROLLED[1:])
    with pytest.raises(cs.TopologyError, match="nodes x, y, z: I1 pushes a net 1 A into them"):
        cs.solve(deck)
    found, wanted = cs.solve(deck, LENIENT), cs.solve(parse(*CONTROLLED))
    for node in ("a", "b", "d", "f"):
        assert found.voltage(node) == wanted.voltage(node)
    assert np.isnan(found.voltage("x")) and np.isnan(found.current("F2")) and np.isnan(found.current("V3"))
    assert found.current("F1") == wanted.current("F1") == 12.0
    saved = Saved(found, wanted_saves(found.circuit, ["@v1[dc],@v3[dc],@v2[dc]"])).values()
    np.testing.assert_array_equal(saved, [[2.0, np.nan, 0.0]])


@pytest.mark.parametrize(
    "card",
    ["E9 f 0 x 0 1", "G9 x y a 0 1", "F9 x y V1 1", "H9 f g V9 1", "E9 x y y 0 1"],
)
def test_lenient_names_the_controlled_source_that_joins_an_island_to_the_rest(card: str) -> None:
    deck = parse(*CONTROLLED, *STUCK, "V9 x z 0", "R6 z y 1", "R7 g 0 1", card)
    with pytest.raises(cs.TopologyError, match=r"I1 pushes .*cannot leave it out: controlled sources \(.9\) join it"):
        cs.solve(deck, LENIENT)


@pytest.mark.slow
def test_a_cut_of_thousands_of_limits_is_the_least_one() -> None:
    """A grid of limiters in hundredths of an ampere, against a maximum flow of whole hundredths, above and below it.

    Sums of hundredths round, and a cut that is read off rounded flows is not the least one.
    """
    side, rng = 80, np.random.default_rng(1)
    node = np.arange(1, side * side + 1).reshape(side, side)
    a, b = (np.concatenate([x.ravel(), y.ravel()]) for x, y in ((node[:-1], node[:, :-1]), (node[1:], node[:, 1:])))
    hundredths = rng.integers(1, 200, a.size)
    graph = nx.Graph()
    ends = zip(a.tolist(), b.tolist(), hundredths.tolist(), strict=True)
    graph.add_edges_from((x, y, {"capacity": limit}) for x, y, limit in ends)
    graph.add_edges_from([("from", k) for k in node[0].tolist()] + [(k, "to") for k in node[-1].tolist()])
    most = nx.maximum_flow_value(graph, "from", "to") * 0.01
    cards = [f"N{k} {x} {y} t{h}" for k, (x, y, h) in enumerate(zip(a, b, hundredths, strict=True))]
    cards += [f".model t{h} tanh(imax={h * 0.01!r} v0=0.1)" for h in np.unique(hundredths).tolist()]
    cards += [f"Rs{k} s {k} 0" for k in node[0].tolist()] + [f"Rt{k} {k} 0 0" for k in node[-1].tolist()]
    compile_at = [parse(*cards, f"I1 0 s {factor * most!r}") for factor in (1.001, 0.999)]
    with pytest.raises(cs.TopologyError, match=r"I1 pushes a net [\d.]+ A into them, and no element can carry"):
        cs.compile_problem(compile_at[0]).drive(slice(0, 1))
    cs.compile_problem(compile_at[1]).drive(slice(0, 1))
