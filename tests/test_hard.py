"""Hard decks: what must come of each one, and the scale that must not hurt.

The decks lie in netlists/valid and netlists/invalid as hard_NAME.cir; their values and exact messages stand beside
them (test_netlists.py, test_faults.py). Here every deck has its row: how it ends, what is marked, what is named. A
name NAME/ideal is the deck with perfect diodes, NAME/gmin with `.options gmin=1e-12`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from growth import LIMIT, exponent
from scipy.optimize import brentq

import circuitsim as cs
from circuitsim.netlist.scopes import expression

NETLISTS = Path(__file__).parent.parent / "netlists"
VT = 1.38064852e-23 * 300.15 / 1.6021766208e-19
GENERATED = {
    "long_line": "* long\nV1 1 0 1\nR1 1 0 1k" + " " * 200_000 + "\n.op\n.end\n",
    "long_name": f"* long\nV1 1 0 1\nR{'x' * 100_000} 1 0 1k\n.op\n.end\n",
}


@dataclass(frozen=True)
class Solved:
    """Values in V and A (beside those of the deck's .json), nodes and currents that are not unique, parts of notes."""

    values: Mapping[str, float] = field(default_factory=dict)  # node or element -> V or A
    undetermined: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    loose: str = ""  # ties and ideal diodes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """Parts of the message; the elements of the witness."""

    parts: tuple[str, ...]
    elements: str = ""


def gmin_balance(v: float) -> float:
    """diode_island_link, node 3 at v: what D2, and D1 beyond 1 kohm, carry away from the island, A."""
    gmin = 1e-12
    forward = 1e-14 * np.expm1(v / VT) + gmin * v
    reverse = v + 1e3 * forward - 1
    return forward - 1e-14 * (1 + (3 * VT / (reverse * np.e)) ** 3) + gmin * reverse


OHM_1K = {"R1": 1e-3, "V1": -1e-3}

CASES: dict[str, Solved | Refused] = {
    # islands
    "float_node_R": Solved(OHM_1K, undetermined="2 3"),
    "only_C_to_node": Solved({"1": 1.0}, undetermined="2"),
    "float_node_isrc_R": Solved({"2": 0.0, "3": 1.0, "R2": -1e-3}, undetermined="2 3"),
    "two_comp": Solved({"2": 0.0, "3": -1.0, "V2": -1e-3}, undetermined="2 3"),
    "no_ground": Solved({"1": 0.0, "2": -1.0, "V1": -1e-3}, undetermined="1 2", notes=("no node is ground",)),
    # elements that carry nothing
    "dangling_R": Solved({"2": 1.0, "R2": 0.0}, notes=("R2 carries no current",)),
    "single_pin_node_V": Solved({"2": -2.0, "V2": 0.0}, notes=("V2 carries no current",)),
    "self_loop_R": Solved({"2": 0.5, "R2": 0.0}, notes=("R2 has no effect",)),
    "self_loop_I": Solved({"V1": -1e-3}, notes=("I2 has no effect",)),
    "self_loop_D": Solved({"2": 0.5, "D2": 0.0}, notes=("D2 has no effect",)),
    # loops of sources
    "vloop_consistent": Solved({"1": 5.0, "V1": -2.5e-3, "V2": -2.5e-3}, loose="V1 V2"),
    "vloop3_consistent": Solved({"2": 6.0, "V1": -2e-3, "V2": -2e-3, "V3": -4e-3}, loose="V1 V2 V3"),
    "vloop_inconsistent": Refused(("loop of voltage sources V2, V1", "1 V instead of 0"), "V1 V2"),
    "vsrc_gnd_gnd": Refused(("V1", "both its ends are at node 0", "5 V"), "V1"),
    "vsrc_short": Refused(("V1", "both its ends are at node 1", "5 V"), "V1"),
    "vsrc_short_0V": Solved({"1": 0.0}, loose="V1"),
    # currents that have nowhere to go
    "icut_single": Refused(("node 1", "I1 pushes a net 0.001 A into it"), "I1"),
    "icut_nonzero": Refused(("node 1", "I1, I2 draw a net 0.001 A from it"), "I1 I2"),
    "icut_series_bad": Refused(("node 1", "I1, I2 draw a net 0.001 A from it"), "I1 I2"),
    "icut_zero": Solved(undetermined="1"),
    "icut_series": Solved({"2": 1.0}, undetermined="1"),
    # diodes
    "diode_blocks_isrc": Refused(("node 1", "I1 pushes a net 0.001 A into it", "D1 blocks it"), "I1 D1"),
    "diode_blocks_isrc/ideal": Refused(("node 1", "I1 pushes a net 0.001 A into it", "D1 blocks it"), "I1 D1"),
    "diode_fwd_vsrc": Solved({"D1": 1e-14 * np.exp(5 / VT)}, notes=("D1.* 5 V across it.* 9e\\+69 A",)),
    "diode_fwd_vsrc/ideal": Refused(("D1, V1", "push 5 V forward"), "D1 V1"),
    "diode_fwd_vsrc_100V": Refused(("D1", "force 100 V", "overflows"), "D1"),
    "diode_fwd_vsrc_1000V": Refused(("D1", "force 1000 V", "overflows"), "D1"),
    "diode_fwd_vsrc_1000V/ideal": Refused(("D1, V1", "push 1000 V forward"), "D1 V1"),
    "antiparallel_diodes": Solved({"1": VT * np.log1p(1e11)}),
    "antiparallel_diodes/ideal": Solved({"1": 0.0}, loose="D1 D2"),
    "antiparallel_nearideal": Solved({"1": 1e-3 * VT * np.log1p(1e11)}),
    "series_diodes_fwd_mid": Solved(),
    "series_diodes_fwd_mid/ideal": Solved({"2": 1.0, "3": 1.0, "D1": 1e-3, "D2": 1e-3, "V1": -1e-3}),
    "series_diodes_rev_mid": Solved(),
    "series_diodes_rev_mid/ideal": Solved({"3": 0.0, "V1": 0.0}, undetermined="2", intervals={"2": (-1.0, 0.0)}),
    "series_diodes_back2back_mid": Solved(),
    "series_diodes_back2back_mid/ideal": Solved({"3": 0.0}, undetermined="2", intervals={"2": (5.0, np.inf)}),
    "diode_island": Solved({"D1": 0.0}, undetermined="2 3"),
    "diode_island_link": Solved(),
    "diode_island_link/gmin": Solved({"3": brentq(gmin_balance, 0, 0.5, xtol=1e-15)}),
    "is_zero": Solved({"2": 1.0, "D1": 0.0}, notes=("IS = 0",)),
    "is_1e-300": Solved({"2": 1.0, "D1": 1e-300 * np.exp(1 / VT)}),
    "neg_isat": Refused(("IS = -1e-14", "negative")),
    "n_zero": Solved({"2": 0.0, "D1": 1e-3}),
    "rs_zero_bv": Solved(),
    "nearideal_n1e-6": Solved(),
    # shorts, opens, resistances
    "R0": Solved({"2": 1.0, "R1": 1e-3}),
    "R0_gnd": Solved({"2": 0.0, "R2": 1e-3}),
    "R0_loop": Solved({"2": 1.0, "R1": 0.5e-3, "R3": 0.5e-3}, loose="R1 R3"),
    "R_novalue": Refused(("R1", "no value")),
    "R_garbage": Refused(("R1", "abc")),
    "Rnan": Refused(("R1", "nan")),
    "R_1e400": Refused(("R1", "1e400")),
    "Rinf": Solved({"2": 0.0, "R1": 0.0}, notes=("R1: infinite resistance",)),
    "R1e-12": Solved({"R1": 1 / (1e3 + 1e-12)}),
    "R1e-15": Solved({"R1": 1e-3}),
    "R1e-30": Solved({"R1": 1e-3}),
    "R1e15": Solved({"2": 0.5, "R1": 5e-16}),
    "R1e30": Solved({"2": 0.5, "R1": 5e-31}),
    "R1e-12_1e15": Solved({"2": 0.5, "3": 0.5, "R1": 5e-16, "R2": 5e-16, "R3": 5e-16}),
    "ratio_chain": Solved({"3": 1.0, "2": 1e12 + 1, "R1": 1.0, "R2": 1.0, "R3": 1.0}),
    "R_1M_1MEG": Solved({"R2": 1 / (1e6 + 1e-3)}, notes=("R1: '1M' is 0.001 ohm",)),
    "R_suffix_garbage": Solved({"2": 0.5}),
    "R_4k7": Refused(("R1", "write 4.7k")),
    "Rneg": Refused(("R2", "negative resistance -500 ohm")),
    "Rneg_singular": Refused(("R2", "negative resistance -1000 ohm")),
    "huge_I": Solved({"1": 1e30}),
    "tiny_I": Solved({"1": 1e-30}),
    # the language
    "dup_names": Refused(("R1", "hard_dup_names.cir:4", "hard_dup_names.cir:3")),
    "dup_names_case": Refused(("r1", "hard_dup_names_case.cir:4", "hard_dup_names_case.cir:3")),
    "node_00": Solved({"1": 0.5, "00": -0.5}, notes=("'00' is an ordinary node",)),
    "gnd_alias": Solved({"V1": -2e-3}, notes=("'gnd!' is an ordinary node", "R3 carries no current")),
    "plus_first": Refused(("nothing to continue",)),
    "nul": Refused(("byte offset 20",)),
    "binary": Refused(("byte offset 6",)),
    "crlf": Solved(OHM_1K),
    "no_end_utf8": Solved({"é": 1.0}),
    "noend": Solved(OHM_1K),
    "long_line": Solved(OHM_1K),
    "long_name": Solved({"V1": -1e-3}),
    "empty": Refused(("no elements",)),
    "emptyfile": Refused(("the file is empty",)),
    "missing_model": Refused(("D1", "nomod")),
    "missing_subckt": Refused(("X1", "nosub")),
    "include_missing": Refused((":2", "nofile.inc")),
    "include_self": Refused(("hard_include_self.cir -> hard_include_self.cir",)),
    "subckt_arity": Refused(("X1", "2 pins", "3 nodes")),
    "subckt_unterminated": Refused(("'a'", "no .ends")),
    "subckt_recursion": Refused(("a -> a",)),
    "subckt_mutual": Refused(("a -> b -> a",)),
    "unknown_elem": Refused((":4", "P1")),
    "param_undef": Refused(("zz", "not defined")),
    "param_cycle": Refused(("a -> b -> a",)),
    "param_div0": Refused(("1/z", "division by zero")),
    "deep300": Solved({"V1": -1e-3}),
    "blowup4096": Solved({"V1": -4.096}),
    "tunnel_like": Refused((":4", "B1", "not formulas")),
    # controlled sources
    "E_self_gain2": Solved({"1": 0.0, "R1": 0.0}),
    "opamp_ideal": Solved({"2": 10 / (11 + 1e12), "3": -10.0}),
    "nullor_loop": Solved(undetermined="1"),
    "G_neg": Solved({"2": 1000.0}),
}


def place(name: str) -> Path | None:
    """Where a deck lies; None: nowhere."""
    found = [NETLISTS / kind / f"hard_{name}.cir" for kind in ("valid", "invalid")]
    return next((path for path in found if path.exists()), None)


def load(name: str) -> cs.Circuit:
    base, _, variant = name.partition("/")
    if base in GENERATED:
        return cs.parse(GENERATED[base])
    path = place(base)
    assert path is not None
    if not variant:
        return cs.load(path)
    text = path.read_text()
    if variant == "gmin":
        return cs.parse(text.replace(".op", ".options gmin=1e-12\n.op"))
    return cs.parse(re.sub(r"d\(.*\)", "d(ron=0)", text))


@pytest.mark.parametrize("name", CASES)
def test_hard_deck(name: str) -> None:
    case = CASES[name]
    if isinstance(case, Refused):
        with pytest.raises(cs.NetlistError) as caught:
            cs.solve(load(name))
        for part in case.parts:
            assert part in str(caught.value)
        found = caught.value.elements if isinstance(caught.value, cs.TopologyError) else ()
        assert sorted(found) == sorted(case.elements.split())
        return
    solution = cs.solve(load(name))
    c = solution.circuit
    assert solution.residuals.kcl_relative <= 1e-9
    assert_values(solution, case.values, 1e-9)
    if (path := place(name)) and path.with_suffix(".json").exists():
        answer = json.loads(path.with_suffix(".json").read_text())
        assert_values(solution, answer["voltages"] | answer.get("currents", {}), max(answer["rtol"], 1e-9))
    undetermined = [node for node, fixed in zip(c.nodes, solution.determined, strict=True) if not fixed]
    assert sorted(undetermined) == sorted(case.undetermined.split())
    marks = [c.element(c.ties, k) for k in np.flatnonzero(~solution.tie_currents[1]).tolist()]
    marks += [c.element(c.ideal_diodes, k) for k in np.flatnonzero(solution.ambiguous[1]).tolist()]
    assert sorted(marks) == sorted(case.loose.split())
    texts = [text for _, text in c.notes] + solution.remarks
    for note in case.notes:
        assert any(re.search(note, text) for text in texts), texts
    for node, (low, high) in case.intervals.items():
        assert solution.intervals is not None
        found = [bound[0, c.netlist.node(node)] for bound in solution.intervals]
        np.testing.assert_allclose(found, [low, high], atol=1e-9)
        assert any(text.startswith(f"node {node}: any voltage from {low:g}") for text in texts), texts


def assert_values(solution: cs.Solution, values: Mapping[str, float], rtol: float) -> None:
    for name, wanted in values.items():
        is_node = solution.circuit.netlist.has_node(name)
        found = (solution.voltage if is_node else solution.current)(name)
        np.testing.assert_allclose(found, [wanted], rtol=rtol, atol=1e-12 if wanted == 0 else 0, err_msg=name)


def test_every_deck_has_its_row() -> None:
    decks = {path.stem.removeprefix("hard_") for path in NETLISTS.glob("*/hard_*.cir")} | set(GENERATED)
    assert decks == {name.partition("/")[0] for name in CASES}
    assert len(decks) == 93


def test_strict_refuses_all_that_is_marked() -> None:
    for name, case in CASES.items():
        if isinstance(case, Solved) and (case.undetermined or case.loose):
            with pytest.raises(cs.TopologyError, match=r"^strict: ") as caught:
                cs.solve(load(name), cs.Settings(strict=True))
            named = caught.value.nodes or caught.value.elements
            assert sorted(named) == sorted((case.undetermined or case.loose).split())


# ---- scale -----------------------------------------------------------------------------------------------------------


def compiled(deck: str) -> cs.Problem:
    """Read anew, expressions too."""
    expression.cache_clear()
    problem = cs.compile_problem(cs.parse(deck))
    problem.drive(slice(0, 1))
    return problem


def test_subcircuits_300_deep() -> None:
    levels = [f".subckt s{k} p q\nX1 p q s{k - 1}\nR2 p q 1k\n.ends" for k in range(1, 301)]
    deck = "\n".join(["deep", ".subckt s0 p q\nR1 p q 1k\n.ends", *levels, "V1 in 0 1", "X1 in 0 s300"])
    assert len(compiled(deck).circuit.conductors) == 301


def test_a_ladder_of_200_000_nodes() -> None:
    def prepare(n: int) -> Callable[[], None]:
        rungs = "\n".join(f"Rs{k} n{k} n{k + 1} 1\nRp{k} n{k + 1} 0 1k" for k in range(n))

        def work() -> None:
            assert compiled(f"ladder\nV1 n0 0 1\n{rungs}").n_free == n

        return work

    assert exponent(prepare, 50_000, repeats=2) < LIMIT


def test_a_tower_of_100_000_sources() -> None:
    """The deepest tree of ties, and a loop through all of it."""

    def tower(n: int, volts: int) -> str:
        sources = "\n".join(f"V{k} n{k + 1} n{k} 1" for k in range(n))
        return f"tower\nVg n0 0 0\n{sources}\nVs n{n} 0 {volts}\nR1 n{n} 0 1"

    def consistent(n: int) -> Callable[[], None]:
        deck = tower(n, n)

        def work() -> None:
            assert compiled(deck).n_free == 0

        return work

    def contradictory(n: int) -> Callable[[], None]:
        deck = tower(n, n + 1)

        def work() -> None:
            with pytest.raises(cs.TopologyError, match=r"add up to 1 V") as caught:
                compiled(deck)
            assert len(caught.value.elements) == n + 2
            assert len(str(caught.value)) < 400

        return work

    assert exponent(consistent, 25_000, repeats=2) < LIMIT
    assert exponent(contradictory, 25_000, repeats=2) < LIMIT


@pytest.mark.slow
def test_a_line_of_200_000_characters() -> None:
    def long_expression(n: int) -> Callable[[], None]:
        terms = "+".join(["1"] * n)

        def work() -> None:
            circuit = compiled(f"long\nV1 a 0 1\nR1 a b {{{terms}}}\nR2 b 0 1e5").circuit
            assert circuit.conductors.g[0] == pytest.approx(1 / n)

        return work

    def many_parameters(n: int) -> Callable[[], None]:
        names = " ".join(f"p{k}={k}" for k in range(n))

        def work() -> None:
            circuit = compiled(f"long\n.param {names}\nV1 a 0 1\nR1 a 0 {{p{n - 1}}}").circuit
            assert circuit.conductors.g[0] == 1 / (n - 1)

        return work

    assert exponent(long_expression, 25_000, repeats=2) < LIMIT
    assert exponent(many_parameters, 5_000, repeats=2) < LIMIT


@pytest.mark.slow
def test_100_000_islands() -> None:
    def of_resistors(n: int) -> Callable[[], None]:
        cards = "\n".join(f"R{k} a{k} b{k} 1\nI{k} a{k} b{k} 1" for k in range(n))

        def work() -> None:
            assert compiled(f"islands\nRg g 0 1\n{cards}").topology.islands.pins.size == n

        return work

    def of_diodes(n: int) -> Callable[[], None]:
        cards = "\n".join(f"I{k} 0 a{k} 1m\nR{k} a{k} b{k} 1\nD{k} b{k} 0 m" for k in range(n))

        def work() -> None:
            assert compiled(f"islands\n.model m D\nRg g 0 1\n{cards}").topology.islands.n_parts == n + 1

        return work

    assert exponent(of_resistors, 25_000, repeats=2) < LIMIT
    assert exponent(of_diodes, 25_000, repeats=2) < LIMIT
