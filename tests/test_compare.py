"""Comparisons with ngspice: the bounds of what may differ, the certificate of another's answer, planted errors."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest
from helpers import PRECISE, needs_ngspice
from rich.console import Console

import circuitsim as cs
from circuitsim.cli import main
from circuitsim.spice import allowed as allowed_module
from circuitsim.spice import compare as module
from circuitsim.spice import compared as compared_module
from circuitsim.spice.allowed import allowed_differences
from circuitsim.spice.compare import Comparison, Quantity, Verdict, compare, compare_sweep
from circuitsim.spice.compared import (
    MOST_ROWS,
    comparison_object,
    notes_of,
    overall,
    plot_comparison,
    print_comparison,
)
from circuitsim.spice.flatten import MIN_RON, Written, flatten
from circuitsim.spice.foreign import kcl_of
from circuitsim.spice.ngspice import ABSTOL, GMIN, RELTOL, VNTOL, NgspiceError, RawData, run_ngspice, tight_options
from circuitsim.spice.pyspice import library as pyspice_library
from circuitsim.sweeping import sweep

NETLISTS = Path(__file__).parent.parent / "netlists"

DIVIDER = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 1k\n"
CLAMP = "clamp\nV1 in 0 3\nR1 in a 1k\nD1 a 0 ideal\n.model ideal D(ron=0 vfwd=1)\n"
LINKED = "ideal diode between free nodes\nI1 0 a 1m\nR1 a 0 10k\nD1 a b ideal\nR2 b 0 10k\n.model ideal D(ron=0)\n"
SOURCES = (
    "E, F, G and H\nV1 a 0 2\nR1 a b 1k\nV2 b 0 0\nE1 c 0 a 0 3\nR2 c d 1k\nH1 d 0 V2 500\nF1 0 e V2 2\nR3 e 0 1k\n"
)
SHOCKLEY = "rectifier\nV1 a 0 5\nR1 a b 1k\nD1 b 0 dd\nR2 a c 1k\nD2 0 c dd\n.model dd D(is=1e-14 n=1.1 rs=2)\n"
ISLAND = "floating\nV1 a 0 1\nR1 a 0 1k\nI1 b c 1m\nR2 b c 1k\nR3 c d 1k\n"
FLOATING_SOURCE = "supernode\nV1 a b 2\nR1 a 0 1k\nR2 b 0 3k\nI1 0 b 1m\nL1 b c 1u\nR4 c 0 1k\n"
CROSSBAR = "crossbar\nV[0:2] x[0:2] 0 {1}\nRW[0:2][0:1] x[0:2] h[0:1] g=1m\nRb[0:1] h[0:1] 0 2k\n"
ZENER = "breakdown\nV1 a 0 -7.2\nR1 a b 10\nD1 b 0 d\n.model d D(is=3e-10 n=1.8 bv=6.8 ibv=1.6m)\n"
SERIES = "a current of leakage\nV1 0 a 92\nR1 a b 0\nD1 b 0 d\n.model d D(is=1e-14 rs=70m)\n"
LADDER = "ladder\nV1 a 0 1\nR1 a b 1k\nR2 b c 1k\nR3 c d 1k\nR4 d 0 1k\n"
AMPLIFIER = (  # whose output is 0 V
    "op-amp\nV1 a 0 5\nV2 d 0 5\nR1 a b 10k\nR2 b 0 10k\nR3 d c 10k\nR4 c o 10k\nE1 o 0 b c 1e6\nRL o 0 10k\n"
)
OPEN_LOOP = "open loop\nV1 a 0 5\nR1 a b 10k\nR2 b 0 10k\nR3 a c 10k\nR4 c 0 20k\nE1 o 0 b c 1e6\nRL o 0 10k\n"
AMPLIFIERS = {
    "E": AMPLIFIER,
    "G": AMPLIFIER.replace("E1 o 0 b c 1e6", "G1 0 o b c 100"),
    "feedback through a T": AMPLIFIER.replace("R4 c o 10k", "R4 c m 10k\nR5 m o 10k\nR6 m 0 1k"),
    "feedback through another E": AMPLIFIER.replace("R4 c o 10k", "R4 c x 10k\nE2 x 0 o 0 1"),
    "feedback through a voltage source": AMPLIFIER.replace("R4 c o 10k", "R4 c x 10k\nV3 x o 1"),
    "no feedback": OPEN_LOOP,
}
DECKS = (DIVIDER, CLAMP, LINKED, SOURCES, SHOCKLEY, ISLAND, FLOATING_SOURCE, CROSSBAR, ZENER, SERIES)


def allowed(text: str, node: str) -> float:
    """What is allowed at a node of a deck."""
    solution = cs.solve(cs.parse(text))
    return float(allowed_differences(solution).voltages[solution.circuit.netlist.node(node)])


def written(circuit: cs.Circuit) -> Written:
    return flatten(circuit, io.StringIO())


def own_values(solution: cs.Solution) -> dict[str, float]:
    """A solution as ngspice would give it."""
    c, v = solution.circuit, solution.voltages()[0]
    names = written(c)
    values = {f"v({name})": float(x) for name, x in zip(names.nodes, v, strict=True)}
    for (kind, row), name in names.branches.items():
        values[f"i({name})"] = float(solution.current(c.netlist.tables[kind].names[row])[0])
    return values


# -- what is allowed ---------------------------------------------------------------------------------------------------


def test_a_linear_circuit_may_differ_by_ngspices_tolerance_and_rounding() -> None:
    assert RELTOL * 5 + VNTOL < allowed(DIVIDER, "out") < 1.001 * (RELTOL * 5 + VNTOL)


def test_a_perfect_diode_holds_its_voltage_to_ron_times_its_current() -> None:
    off = MIN_RON * 2e-3 / (1 + MIN_RON * 1e-3)  # the 2 mA through Ron beside the 1 kohm
    assert allowed(CLAMP, "a") == pytest.approx(off + RELTOL * 1 + VNTOL, rel=1e-4)


def test_what_hangs_on_a_perfect_diode_follows_it() -> None:
    text = f"{CLAMP}R2 a b 1k\nR3 b 0 1k\n"
    moved = allowed(text, "a") - RELTOL * 1 - VNTOL
    assert allowed(text, "b") - RELTOL * 0.5 - VNTOL == pytest.approx(0.5 * moved, rel=1e-3)


def test_gmin_counts_unless_the_deck_has_its_own() -> None:
    text = "blocked\nV1 a 0 5\nR1 a b 1e12\nD1 0 b dd\n.model dd D(is=1e-30)\n"
    assert allowed(text, "b") == pytest.approx((GMIN * 5 + ABSTOL) * 1e12 + RELTOL * 5, rel=0.01)
    with_gmin = cs.solve(cs.parse(f"{text}.options gmin=1e-18\n"))
    v = with_gmin.voltage("b")[0]
    tolerance = (ABSTOL + RELTOL * GMIN * v) * 1e12 / (1 + GMIN * 1e12) + RELTOL * v + VNTOL
    assert allowed(f"{text}.options gmin=1e-18\n", "b") == pytest.approx(tolerance, rel=0.01)


def test_the_rounding_of_a_steep_conductance_reaches_what_hangs_on_it() -> None:
    bound = allowed("steep\nV1 a 0 1\nR1 a b 1k\nR2 b c 1n\nR3 c 0 1k\n", "b")
    assert 1e-16 * 1e9 / 2e-3 < bound < 100 * 1e-16 * 1e9 / 2e-3


def test_a_sources_current_follows_from_the_bounds_of_its_neighbours() -> None:
    solution = cs.solve(cs.parse(CLAMP))
    bounds = allowed_differences(solution)
    moved = bounds.voltages[solution.circuit.netlist.node("a")] - RELTOL * 1 - VNTOL
    assert bounds.currents[0] == pytest.approx(1e-3 * moved + RELTOL * 2e-3, rel=1e-3)


def test_an_island_rounds_as_far_away_as_ngspice_leaves_it() -> None:
    """A perfect diode that blocks may touch there, through which 1e7 V round to amperes."""
    text = "far away\nV1 a 0 1\nR1 a b 1k\nR2 b 0 1k\nR3 c d 1k\nD1 c b ideal\n.model ideal D(ron=0)\n"
    solution = cs.solve(cs.parse(text))
    assert [solution.circuit.nodes[k] for k in np.flatnonzero(~solution.determined)] == ["c", "d"]
    own = solution.voltages()[0]
    near, far = allowed_differences(solution), allowed_differences(solution, theirs=np.where(own == 0.0, -1e7, own))
    unique_only = allowed_differences(solution, theirs=np.where(solution.determined, 1e7, own))
    b = solution.circuit.netlist.node("b")
    assert near.voltages[b] == unique_only.voltages[b] < 1e-5 < 1.0 < far.voltages[b]


def test_an_amplifiers_output_rounds_as_its_gain_times_its_inputs() -> None:
    """A last digit of 2.5 V, 1e6 times, reaches what the output reaches, and nothing else."""
    text = f"{AMPLIFIER}R5 o p 1k\nR6 p 0 1k\nE2 q 0 c 0 1\nR7 q q2 1k\nR8 q2 0 1n\n"
    last = 1e6 * np.spacing(2.5)
    assert last < allowed(text, "o") < 30 * last
    assert last / 2 < allowed(text, "p") < 30 * last
    assert allowed(text, "q2") < 2 * VNTOL
    with_less = allowed(text.replace("1e6", "1e4"), "o")
    assert with_less - VNTOL - RELTOL * 5e-4 == pytest.approx(allowed(text, "o") / 100, rel=0.01)


def test_an_amplifier_that_drives_its_own_input_rounds_as_its_output() -> None:
    """Its gain is part of the pivot."""
    assert allowed("follower\nV1 a 0 5\nR1 a b 1k\nE1 o 0 b o 1e6\nR2 o 0 1k\n", "o") < 1.001 * RELTOL * 5


@pytest.mark.parametrize("text", [DIVIDER, CLAMP, LINKED, SHOCKLEY, CROSSBAR])
def test_controlled_sources_change_the_way_not_the_bounds(text: str) -> None:
    plain = allowed_differences(cs.solve(cs.parse(text)))
    other = allowed_differences(cs.solve(cs.parse(f"{text}G9 x9 0 x9 0 1m\nR9 x9 0 1k\n")))
    np.testing.assert_allclose(other.voltages[: plain.voltages.size], plain.voltages, rtol=0.01)
    np.testing.assert_allclose(other.currents, plain.currents, rtol=0.01)


KINKS = {  # decks whose answer lies on a kink, or so near that what ngspice may miss reaches it
    "the knee of a diode": "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nD1 b 0 d\n.model d D(ron=1 vfwd=1)",
    "the reverse knee": "V1 a 0 -2\nR1 a b 1k\nR2 b 0 1k\nD1 b 0 d\n.model d D(ron=1 vfwd=3 vrev=1 rrev=50)",
    "a RON below ngspice's": "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nD1 b 0 d\n.model d D(ron=1n vfwd=1)",
    "a perfect diode to a known potential": "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nD1 b 0 d\n.model d D(ron=0 vfwd=1)",
    "a perfect diode that conducts little": "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nD1 b 0 d\n.model d D(ron=0 vfwd=0.9999)",
    "a perfect diode from a known potential": "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nV2 c 0 1\nD1 c b d\n.model d D(ron=0)",
    "a perfect diode between free nodes": (
        "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nR3 a c 2k\nR4 c 0 2k\nD1 b c d\n.model d D(ron=0)"
    ),
    "two, and a chain": (
        "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nR3 b c 1k\nR4 c 0 1g\nR5 b e 1k\nD1 b 0 d\nD2 c e d\nR6 e 0 1g\n"
        ".model d D(ron=0 vfwd=0)\nV2 x 0 1\nI1 b 0 1m"
    ),
    "two of different forward voltages beside each other": (
        "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nD1 b 0 d\nD2 b c e\nV2 c 0 0.5\n.model d D(ron=0 vfwd=1)\n"
        ".model e D(ron=2 vfwd=0.5)"
    ),
    "a segment": "V1 a 0 2\nR1 a b 1k\nR2 b 0 1k\nN1 b 0 t\n.model t pwl(-1 0 1 0 2 1)",
    "controlled sources": (
        "V1 a 0 0\nR1 a n 1k\nD1 0 n d\nE1 o 0 n 0 2\nR2 o p 1k\nR3 p 0 1k\nD2 p 0 d\nE2 q 0 p 0 3\nR4 q 0 1k\n"
        ".model d D(ron=0)"
    ),
}
MISSED = 1e-6  # A


@pytest.mark.parametrize("name", KINKS)
def test_what_ngspice_misses_at_a_kink_stays_within_the_bounds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every nonlinear branch misses its current by MISSED, either way: exact solutions with Ron, beside the bounds."""
    monkeypatch.setattr(allowed_module, "ABSTOL", MISSED)
    deck = f"{name}\n{KINKS[name]}\n"
    solution = cs.solve(cs.parse(deck), PRECISE)
    bounds = allowed_differences(solution)
    branches = [line.split()[:3] for line in deck.splitlines() if line[0] in "DN"]
    there = deck.replace("ron=0", f"ron={MIN_RON}").replace("ron=1n", f"ron={MIN_RON}")
    volts, amperes = np.zeros(len(solution.circuit.nodes)), np.zeros(len(solution.circuit.ties))
    for signs in product((-MISSED, 0.0, MISSED), repeat=len(branches)):
        cards = [f"Imissed{k} {a} {b} {x}\n" for k, ((_, a, b), x) in enumerate(zip(branches, signs, strict=True))]
        other = cs.solve(cs.parse(there + "".join(cards)), PRECISE)
        volts = np.maximum(volts, np.abs(other.voltages() - solution.voltages())[0])
        amperes = np.maximum(amperes, np.abs(other.tie_currents[0] - solution.tie_currents[0])[0])
    assert (volts <= bounds.voltages).all()
    assert (amperes <= bounds.currents).all()
    assert volts.max() > 1e-4  # what a tangent on the steep side would not allow


# -- the certificate of another's answer -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", DECKS)
def test_our_own_answer_keeps_its_certificate_when_it_comes_from_elsewhere(text: str) -> None:
    solution = cs.solve(cs.parse(text), cs.Settings(tol=1e-12))
    kcl, _ = kcl_of(solution.problem, written(solution.circuit), own_values(solution))
    assert kcl <= 1e-12


def test_a_wrong_voltage_is_a_violation_at_its_node() -> None:
    solution = cs.solve(cs.parse(DIVIDER))
    values = own_values(solution)
    values["v(out)"] += 0.1  # 4.9 mA come, 5.1 mA go
    kcl, node = kcl_of(solution.problem, written(solution.circuit), values)
    assert (kcl, node) == (pytest.approx(0.2 / 10), "out")


def test_a_floating_island_may_be_anywhere_but_not_askew() -> None:
    solution = cs.solve(cs.parse(ISLAND))
    values = own_values(solution) | {"v(d)": 7.0}
    shifted = {name: x + 0.5 if name in ("v(b)", "v(c)", "v(d)") else x for name, x in own_values(solution).items()}
    assert kcl_of(solution.problem, written(solution.circuit), shifted)[0] <= 1e-12
    assert kcl_of(solution.problem, written(solution.circuit), values)[0] > 0.1


def test_a_perfect_diode_that_conducts_backwards_is_a_violation() -> None:
    text = LINKED.replace("D1 a b", "D1 b a")
    solution = cs.solve(cs.parse(text))
    wrong = own_values(solution) | {"v(a)": 5.0, "v(b)": 5.0}  # as if it were a short
    assert kcl_of(solution.problem, written(solution.circuit), wrong)[0] > 0.1


# -- comparisons -------------------------------------------------------------------------------------------------------


@needs_ngspice
@pytest.mark.parametrize("text", DECKS)
def test_both_agree(text: str) -> None:
    found = compare(cs.parse(text))
    assert found.verdict is Verdict.AGREE, found.differing
    assert found.engine.startswith("ngspice-")
    assert found.kcl_ours <= 1e-9
    assert found.kcl_theirs <= 1e-5
    nodes = cs.parse(text).nodes[1:]
    assert [q.name for q in found.quantities][: len(nodes)] == [f"v({name.lower()})" for name in nodes]
    assert all(np.isfinite(q.theirs) for q in found.quantities)


@needs_ngspice
@pytest.mark.parametrize("name", AMPLIFIERS)
def test_both_agree_about_an_amplifier(name: str) -> None:
    found = compare(cs.parse(AMPLIFIERS[name]))
    assert found.verdict is Verdict.AGREE, found.differing


@needs_ngspice
def test_currents_of_sources_shorts_and_controlled_sources_are_compared() -> None:
    text = f"{SOURCES}R0 e f 0\nR4 f 0 1k\nL1 d g 1u\nR5 g 0 1k\nV9 a a 0\nR9 e e 0\n"
    found = compare(cs.parse(text))  # without V9 and R9, which flatten leaves out
    assert sorted(q.name for q in found.quantities if q.name[0] == "i") == [
        "i(e1)", "i(h1)", "i(l1)", "i(r0)", "i(v1)", "i(v2)",
    ]  # fmt: skip
    assert found.verdict is Verdict.AGREE


@needs_ngspice
def test_the_decks_for_ngspice_have_the_gmin_of_the_circuit_but_not_its_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[bool, str]] = []

    def run(deck: str, *, options: str, timeout: float) -> RawData:
        assert "@" not in deck
        runs.append(("\n.dc " in deck, options))
        return run_ngspice(deck, options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    circuit = cs.parse(f"{SHOCKLEY}.options gmin=1e-9\n.dc V1 0 2 1\n.save @R1[i]\n")
    found = [compare(circuit), *compare_sweep(circuit, "V1 5 6 1")]
    assert [(c.verdict, len(c.quantities)) for c in found] == [(Verdict.AGREE, 4)] * 3
    assert found[0].notes == ()  # no word on its gmin
    assert runs == [(False, tight_options(1e-9)), (True, tight_options(1e-9))]


@needs_ngspice
def test_a_run_without_an_operating_point_is_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(deck: str, *, options: str, timeout: float) -> RawData:
        return run_ngspice(deck.replace(".op", ".dc V1 0 1 1"), options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    found = compare(cs.parse(DIVIDER))
    assert (found.verdict, found.notes[1]) == (Verdict.NO_REFERENCE, "ngspice: no operating point came back")


@needs_ngspice
@pytest.mark.parametrize(
    ("text", "right", "wrong"),
    [
        (DIVIDER, "R1 in out 1000.0", "R1 in out 1001.0"),
        (DIVIDER, "R1 in out 1000.0", "R1 in out 1000.0002"),
        (CROSSBAR, "RW[1][0] x[1] h[0] 1000.0", "RW[1][0] x[1] h[0] 1001.0"),
        (DIVIDER, "V1 in 0 10.0", "V1 in 0 -10.0"),
        (LINKED, "I1 0 a 0.001", "I1 a 0 0.001"),
        (LINKED, "AD1 a b", "AD1 b a"),
        (SHOCKLEY, "D2 0 c", "D2 c 0"),
        (SHOCKLEY, "IS=1e-14", "IS=1.001e-14"),
        (SOURCES, "H1 d 0 V2 500.0", "H1 d 0 V2 500.5"),
        (SOURCES, "F1 0 e V2 2.0", "F1 0 e V2 -2.0"),
        (AMPLIFIER, "R4 c o 10000.0", "R4 c o 10000.01"),
        (OPEN_LOOP, "E1 o 0 b c 1000000.0", "E1 o 0 b c 1000001.0"),
    ],
)
def test_a_planted_error_is_found(text: str, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(deck: str, *, options: str, timeout: float) -> RawData:
        assert right in deck
        return run_ngspice(deck.replace(right, wrong), options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    found = compare(cs.parse(text))
    assert found.verdict is Verdict.DIFFER
    assert found.kcl_theirs > 1e3 * found.kcl_ours
    right = "by the certificate, of the circuit as circuitsim reads it, circuitsim is right: ngspice violates KCL by"
    assert found.notes[0].startswith(right)


@needs_ngspice
@pytest.mark.parametrize(
    ("cards", "right", "wrong", "note"),
    [
        (
            "R1 a b 1k\nD1 b 0 d\n.model d D(is=1e-14)", "R1 a b 1000.0", "R1 a b 1001.0",
            r"circuitsim is right: ngspice violates KCL by \S+ of the currents at node b, circuitsim by \S+ at node b",
        ),
        (
            "R1 a 0 1k", "V1 a 0 1.0", "V1 a 0 2.0",
            "neither is right or wrong: ngspice violates KCL by 0 of the currents, circuitsim by 0",
        ),
    ],
)  # fmt: skip
def test_the_certificate_names_the_nodes_where_kcl_is_violated_most(
    cards: str, right: str, wrong: str, note: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(deck: str, *, options: str, timeout: float) -> RawData:
        return run_ngspice(deck.replace(right, wrong), options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    found = compare(cs.parse(f"planted\nV1 a 0 1\n{cards}\n"))
    assert re.fullmatch(f"by the certificate, of the circuit as circuitsim reads it, {note}", found.notes[0])


@needs_ngspice
def test_who_is_right_when_ngspice_cannot_have_the_circuit() -> None:
    found = compare(cs.load(NETLISTS / "valid" / "hard_is_1e-300.cir"))
    assert found.verdict is Verdict.DIFFER
    assert "circuitsim is right" in found.notes[0]
    assert "diodes D1 have IS below 1e-28 A: ngspice uses 1e-28 A" in found.notes


@needs_ngspice
def test_what_ngspice_cannot_judge_is_said() -> None:
    found = compare(cs.load(NETLISTS / "valid" / "hard_R1e-15.cir"))
    assert "resistors R1 are below 1e-12 ohm: ngspice loses the other elements at their nodes" in found.notes
    assert "ngspice may be wrong by more than 0.001 of the terms that add up there: i(v1)" in found.notes
    steep = "near-ideal\nV1 a 0 1\nR1 a b 1k\nD1 b 0 dd\n.model dd D(is=1e-14 n=1e-3)\n"
    assert "diodes D1 have N <= 0.001: ngspice may be wrong there without saying so" in compare(cs.parse(steep)).notes
    at_their_own = (
        "steep\nV1 a 0 -1\nR1 a b 1k\nD1 b 0 dd temp=-200\nD2 b 0 dd\n.model dd D(is=1e-14 n=0.002 eg=1n xti=0)\n"
    )
    gmin = "ngspice has 1e-18 S across each junction, circuitsim none"
    assert compare(cs.parse(at_their_own)).notes == (gmin,)
    leaky = "generation\nV1 a 0 {}\nR1 a b 1k\nD1 b 0 d\n.model d D(is=1e-14 isr=1e-12)\n"
    dropped = "diodes D1: ngspice drops the current of ISR below -3 N Vt"
    assert compare(cs.parse(leaky.format(-1))).notes[:2] == (dropped, gmin)
    assert compare(cs.parse(leaky.format(1))).notes == (gmin,)
    assert compare(cs.parse("no IS\nV1 a 0 2\nR1 a b 1k\nD1 b 0 d\n.model d D(ron=1 vfwd=1)\n")).notes == ()


@needs_ngspice
def test_of_what_ngspice_says_the_first_errors_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "ngspice gave no results; it said:", "Note: Starting dynamic gmin stepping", "Trying gmin = 1E-12 failed",
        "Error: one", "Error: one", "Warning: singular matrix: check node b", "can't find three", "Error: four",
    )  # fmt: skip

    def run(deck: str, *, options: str, timeout: float) -> RawData:
        raise NgspiceError("\n    ".join(lines))

    monkeypatch.setattr(module, "run_ngspice", run)
    found = compare(cs.parse(DIVIDER)).notes[1]
    assert found == (
        "ngspice: ngspice gave no results; Error: one; Warning: singular matrix: check node b; can't find three"
    )


@needs_ngspice
def test_an_island_that_ngspice_leaves_far_away_is_allowed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(deck: str, *, options: str, timeout: float) -> RawData:
        found = run_ngspice(deck, options=options, timeout=timeout)
        [plot] = found.plots
        island = [name in ("v(c)", "v(d)") for name, _ in plot.variables]
        return replace(found, plots=(replace(plot, values=np.where(island, -1e7, plot.values)),))

    monkeypatch.setattr(module, "run_ngspice", run)
    text = "far away\nV1 a 0 1\nR1 a b 1k\nR2 b 0 1k\nR3 c d 1k\nD1 c b ideal\n.model ideal D(ron=0)\n"
    assert {q.name: q.allowed for q in compare(cs.parse(text)).quantities}["v(b)"] > 1.0


@needs_ngspice
def test_agreement_that_says_nothing_is_none() -> None:
    found = compare(cs.parse("nothing is unique\nI1 a b 1m\nR1 a b 1k\n"))
    assert found.verdict is Verdict.UNTOLD
    deck = "a pivot of 1e14 S\nV1 a 0 9\nR1 a b 1e-14\nR2 b c 1\nR3 c 0 1e-14\nI1 0 c 1\n"
    found = compare(cs.parse(deck))
    assert {q.name: q.telling for q in found.quantities} == dict.fromkeys(("v(a)", "v(b)", "v(c)"), True) | {
        "i(v1)": False
    }
    assert found.verdict is Verdict.AGREE
    assert "ngspice may be wrong by more than 0.001 of the terms that add up there: i(v1)" in found.notes


@needs_ngspice
@pytest.mark.parametrize(
    ("cards", "telling"),
    [
        ("R1 a b 1g\nR2 b 0 1\nR3 b c 1e-13", False),  # 1 uV, which the rounding of 1e13 S may move by 1 nV and more
        ("R1 a b 1g\nR2 b 0 1\nR3 b c 1", True),
        ("R1 a b 1\nR2 b 0 1\nR3 d b 1\nV2 0 d 1000\nR4 b c 1e-13", True),  # 0 V, of 1000 V and -1000 V
        ("R1 0 b 1g\nD1 a b d\nR2 b c 1\n.model d D(is=1e-14)", True),  # 10 uV that a diode lets through
    ],
)
def test_a_small_voltage_beside_a_large_source_tells_what_it_is_made_of(cards: str, telling: bool) -> None:
    found = compare(cs.parse(f"a large source\nV1 a 0 1000\n{cards}\n"))
    values = {q.name: q for q in found.quantities}
    assert (values["v(b)"].telling, values["v(a)"].telling) == (telling, True)
    assert found.verdict is (Verdict.AGREE if telling else Verdict.UNTOLD), found.quantities


@needs_ngspice
def test_what_is_not_unique_is_not_compared() -> None:
    found = compare(cs.parse(ISLAND))
    loose = {q.name for q in found.quantities if not q.determined}
    assert loose == {"v(b)", "v(c)", "v(d)"}
    assert "nodes without a unique voltage are not compared: b, c, d" in found.notes
    parallel = CLAMP.replace(".model", "D2 a 0 ideal\n.model")
    assert "currents that are not unique are not compared: D1, D2" in compare(cs.parse(parallel)).notes


@needs_ngspice
def test_a_circuit_without_a_solution_and_a_run_that_fails_are_verdicts() -> None:
    stuck = compare(cs.parse("stuck\nI1 0 a 1m\nC1 a 0 1u\nV1 b 0 1\nR1 b 0 1k\n"))
    assert (stuck.verdict, stuck.quantities) == (Verdict.NO_ANSWER, ())
    assert "I1" in stuck.notes[0]
    assert stuck.notes[1].startswith("ngspice has an answer, with voltages from ")
    assert "from -" not in stuck.notes[1]  # as the current of V1 is
    early = compare(cs.parse(LADDER), settings=cs.Settings("bcd", max_sweeps=1))
    assert early.verdict is Verdict.NO_ANSWER
    assert "before the certificate was met" in early.notes[0]
    loop = compare(cs.load(NETLISTS / "valid" / "hard_R0_loop.cir"))
    assert loop.verdict is Verdict.NO_REFERENCE
    assert loop.kcl_ours <= 1e-9
    assert np.isnan(loop.seconds[1])
    assert loop.notes[0].startswith("circuitsim has an answer: relative KCL")
    assert "singular matrix" in loop.notes[1]


@needs_ngspice
def test_a_lenient_comparison_leaves_out_what_has_no_solution() -> None:
    text = "half of it\nI1 0 a 1m\nC1 a 0 1u\nV1 b 0 1\nR1 b 0 1k\n"
    found = compare(cs.parse(text), settings=cs.Settings(lenient=True))
    assert (found.verdict, [q.name for q in found.quantities]) == (Verdict.AGREE, ["v(b)", "i(v1)"])


def test_quantities_are_ordered_by_what_is_allowed() -> None:
    """By how often the difference has what is allowed; one that is not unique is behind all others."""
    values = (
        Quantity("v(a)", 0.0, 0.5, 1e-9, False), Quantity("v(b)", 1.0, 1.0, 1e-9, True),
        Quantity("v(c)", 1.0, 1.5, 0.5, True), Quantity("v(d)", 1.0, 1.25, 0.125, True),
    )  # fmt: skip
    found = Comparison("ngspice-39", values, 1e-12, 1e-3, (0.1, 0.2), Verdict.DIFFER, ())
    assert [q.name for q in found.by_difference()] == ["v(d)", "v(c)", "v(b)", "v(a)"]
    assert [q.name for q in found.differing] == ["v(d)"]  # v(c) differs by no more than is allowed


def test_an_engine_that_is_unknown_or_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(cs.SettingsError, match="unknown engine 'xyce': choose ngspice or pyspice"):
        compare(cs.parse(DIVIDER), "xyce")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NgspiceError, match="ngspice is not on the PATH; install it"):
        compare(cs.parse(DIVIDER))


@needs_ngspice
def test_a_batch_is_refused() -> None:
    with pytest.raises(cs.SettingsError, match="batch of 2 values"):
        compare(cs.parse(DIVIDER).with_values({"V1": [[1.0], [2.0]]}))


# -- sweeps ------------------------------------------------------------------------------------------------------------


@needs_ngspice
def test_a_sweep_is_compared_point_by_point(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    def run(deck: str, *, options: str, timeout: float) -> RawData:
        runs.append(deck)
        return run_ngspice(deck, options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    found = compare_sweep(cs.parse(SHOCKLEY), "V1 -2 2 1 R1 1k 2k 1k")
    assert [c.point for c in found][3:6] == ["V1 = 1, R1 = 1000", "V1 = 2, R1 = 1000", "V1 = -2, R1 = 2000"]
    assert {c.verdict for c in found} == {Verdict.AGREE}
    assert [c.quantities[0].theirs for c in found] == pytest.approx([-2, -1, 0, 1, 2] * 2)
    assert len(runs) == 1
    linear = compare_sweep(cs.parse(DIVIDER), "V1 1 2 1 R1 1k 2k 1k")
    assert max(c.kcl_theirs for c in linear) <= 1e-9  # of the circuit at each point


@needs_ngspice
def test_a_sweep_that_ngspice_cannot_do_takes_a_run_for_each_point() -> None:
    text = ".param\n.param r=1k\nV1 a 0 1\nR1 a b {r}\nR2 b 0 1k\n"
    found = compare_sweep(cs.parse(text), "r 1k 3k 1k")
    assert [c.quantities[1].theirs for c in found] == pytest.approx([1 / 2, 1 / 3, 1 / 4])
    assert {c.verdict for c in found} == {Verdict.AGREE}


@needs_ngspice
@pytest.mark.parametrize("failure", ["an error", "no plot", "too few points", "too many points"])
def test_a_sweep_that_fails_takes_a_run_for_each_point_and_says_why(
    failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(deck: str, *, options: str, timeout: float) -> RawData:
        if "\n.dc " in deck and failure == "an error":
            raise NgspiceError("ngspice aborted; it said:\n    Error: planted")
        found = run_ngspice(deck, options=options, timeout=timeout)
        if "\n.dc " not in deck:
            return found
        [plot, *others] = found.plots
        values = plot.values[:2] if failure == "too few points" else np.repeat(plot.values, 2, axis=0)
        return replace(found, plots=tuple(others if failure == "no plot" else [replace(plot, values=values)]))

    monkeypatch.setattr(module, "run_ngspice", run)
    found = compare_sweep(cs.parse(DIVIDER), "V1 0 2 1")
    assert {c.verdict for c in found} == {Verdict.AGREE}
    why = {
        "an error": "Error: planted", "no plot": "0 points came back, not 3",
        "too few points": "2 points came back, not 3", "too many points": "6 points came back, not 3",
    }  # fmt: skip
    assert any(why[failure] in note and "so each point had a run of its own" in note for note in found[0].notes)
    assert not any("so each point had a run of its own" in note for note in found[1].notes)


@needs_ngspice
def test_the_time_limit_of_a_sweep_is_for_all_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    clock = time.perf_counter

    def run(deck: str, *, options: str, timeout: float) -> RawData:
        limits.append(timeout)
        return run_ngspice(deck, options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 4.0 * len(limits))
    found = compare_sweep(cs.parse(".param\n.param r=1k\nV1 a 0 1\nR1 a b {r}\nR2 b 0 1k\n"), "r 1k 5k 1k", timeout=10)
    assert [round(limit) for limit in limits] == [10, 6, 2]
    assert [c.verdict for c in found] == [Verdict.AGREE] * 3 + [Verdict.NO_REFERENCE] * 2
    assert "took more than 10 s for the earlier points" in found[3].notes[1]


@needs_ngspice
def test_a_point_of_a_sweep_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(deck: str, *, options: str, timeout: float) -> RawData:
        return run_ngspice(deck.replace("R1 in out 1000.0", "R1 in out 1001.0"), options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    found = compare_sweep(cs.parse(DIVIDER), "V1 0 2 1")
    assert [c.verdict for c in found] == [Verdict.AGREE, Verdict.DIFFER, Verdict.DIFFER]  # 0 V tells nothing
    assert overall(found) is Verdict.DIFFER


@needs_ngspice
def test_a_sweep_is_judged_by_its_own_values_currents_and_certificate() -> None:
    circuit, settings = cs.parse(SOURCES), cs.Settings(tol=1e-6)
    result = sweep(circuit, "R1 1k 2k 250", settings)
    found = compare_sweep(circuit, "R1 1k 2k 250", settings=settings)
    assert [c.kcl_ours for c in found] == result.kcl_relative.tolist()
    assert {c.verdict for c in found} == {Verdict.AGREE}
    for k, c in enumerate(found):
        of_name = {q.name: q for q in c.quantities}
        assert of_name["v(b)"].ours == result.voltages[k, circuit.netlist.node("b")]
        assert of_name["i(e1)"].ours == pytest.approx(-6e-3 + of_name["v(d)"].ours / 1e3)
        assert of_name["i(h1)"].ours == pytest.approx(of_name["i(e1)"].ours * -1)


@needs_ngspice
@pytest.mark.parametrize("island", ["", "I1 0 x 1m\nR9 x y 1k\n"])
def test_a_lenient_sweep_is_judged_by_its_own_values_too(island: str) -> None:
    circuit, settings = cs.parse(LADDER + island), cs.Settings("bcd", tol=1e-3, lenient=True)
    found, result = (f(circuit, "R1 1k 1.01k 5", settings=settings) for f in (compare_sweep, sweep))
    assert [c.kcl_ours for c in found] == result.kcl_relative.tolist()
    assert [[q.name for q in c.quantities] for c in found] == [["v(a)", "v(b)", "v(c)", "v(d)", "i(v1)"]] * 3


@needs_ngspice
@pytest.mark.parametrize("text", [SHOCKLEY, CLAMP, SOURCES, AMPLIFIER, f"{LADDER}I1 0 x 1m\nR9 x y 1k\nR8 y 0 1g\n"])
def test_points_that_are_solved_together_are_judged_as_alone(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit, solved = cs.parse(text), []

    def counted(problem: cs.Problem, *given: Any, **options: Any) -> cs.Solution:
        solved.append(problem.batch)
        return cs.solve(problem, *given, **options)

    monkeypatch.setattr(module, "solve", counted)
    together = compare_sweep(circuit, "V1 -2 3 1")
    monkeypatch.setattr(module, "_solved_together", lambda *_: None)
    alone = compare_sweep(circuit, "V1 -2 3 1")
    assert solved == [6] + [1] * 6
    for one, other in zip(together, alone, strict=True):
        assert (one.verdict, one.notes, one.kcl_ours) == (other.verdict, other.notes, other.kcl_ours)
        assert [replace(q, allowed=0.0) for q in one.quantities] == [replace(q, allowed=0.0) for q in other.quantities]
        assert [q.allowed for q in one.quantities] == pytest.approx([q.allowed for q in other.quantities], rel=1e-3)


@needs_ngspice
def test_the_note_of_a_point_that_differs_is_of_that_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(deck: str, *, options: str, timeout: float) -> RawData:
        return run_ngspice(deck.replace("R1 a b 1000.0", "R1 a b 1001.0"), options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    together = compare_sweep(cs.parse(SHOCKLEY), "V1 1 3 1")
    monkeypatch.setattr(module, "_solved_together", lambda *_: None)
    alone = compare_sweep(cs.parse(SHOCKLEY), "V1 1 3 1")
    assert [c.notes for c in together] == [c.notes for c in alone]
    assert {c.verdict for c in together} == {Verdict.DIFFER}


@needs_ngspice
def test_each_point_of_a_sweep_is_reported() -> None:
    seen: list[tuple[int, int]] = []
    compare_sweep(cs.parse(DIVIDER), "V1 0 2 1", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@needs_ngspice
def test_the_seconds_of_a_sweep_are_shared_by_its_points(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, runs = time.perf_counter, []

    def run(deck: str, *, options: str, timeout: float) -> RawData:
        runs.append(deck)
        return run_ngspice(deck, options=options, timeout=timeout)

    monkeypatch.setattr(module, "run_ngspice", run)
    monkeypatch.setattr(module, "sweep", lambda *given: replace(sweep(*given), seconds={"compile": 1.0, "solve": 2.0}))
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 6000.0 * len(runs))
    found = compare_sweep(cs.parse(DIVIDER), "V1 0 2 1")
    assert [c.seconds[0] for c in found] == [1.0] * 3
    assert [c.seconds[1] for c in found] == pytest.approx([2000.0] * 3, rel=0.05)


@needs_ngspice
@pytest.mark.parametrize("end", ["\n", "\v", "\f", "\x1c", "\x1e", "\x85", "\u2028", "\u2029"])
def test_titles_and_file_names_run_nothing(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands behind whatever a reader may take for the end of a line; and those of a .spiceinit."""
    ran = tmp_path / "ran"
    monkeypatch.setenv("RAN", str(ran))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".spiceinit").write_text("shell touch $RAN\n")
    commands = f"a{end}.control{end}shell touch $RAN{end}.endc{end}*"
    title = "title" if end == "\n" else commands
    circuit = cs.parse(f"{title}\nV1 a 0 1\nR1 a 0 1", commands)
    engines = ["ngspice", "pyspice"] if pyspice_library() and find_spec("PySpice") else ["ngspice"]
    for engine in engines:
        assert compare(circuit, engine=engine).verdict is Verdict.AGREE
    assert not ran.exists()


@needs_ngspice
def test_where_next_to_nothing_flows_is_no_fault() -> None:
    """A current of 1e-310 A at a node: its reciprocal is no number."""
    model = ".model i D(ron=0)\n.model j D(ron=0 vfwd=0.3)\n"
    cards = "R2 n6 0 420901.2140109584\nD3 n7 0 i\nD6 n5 n6 j\nD7 n5 n7 i\nI8 n7 0 -0.001"
    circuit = cs.parse(f"quiet\n{model}{cards}")
    assert compare(circuit).verdict is Verdict.AGREE
    problem = cs.compile_problem(circuit)
    names = Written(list(circuit.nodes), {})
    kcl, _ = kcl_of(problem, names, {"v(n6)": 1e-305, "v(n5)": 0.3})
    assert np.isfinite(kcl)


@needs_ngspice
def test_what_a_sweep_misses_is_allowed_and_what_it_does_not_solve_is_no_answer() -> None:
    found = compare_sweep(cs.parse(LADDER), "R1 1k 1.01k 5", settings=cs.Settings("bcd", tol=1e-3))
    assert all(1e-6 < c.kcl_ours <= 1e-3 and c.verdict is Verdict.AGREE for c in found)
    assert all(max(q.difference for q in c.quantities) > 1e-6 for c in found)
    some = compare_sweep(cs.parse(LADDER), "V1 0 1 0.5", settings=cs.Settings("bcd", max_sweeps=20))
    assert [c.verdict for c in some] == [Verdict.AGREE, Verdict.NO_ANSWER, Verdict.NO_ANSWER]
    assert "before the certificate was met" in some[1].notes[0]
    loop = compare_sweep(cs.parse("loop\nV1 a 0 1\nV2 b 0 0\nR1 b 0 1\nR2 a b 0\n"), "V2 0 1 1")
    assert [c.verdict for c in loop] == [Verdict.NO_ANSWER, Verdict.NO_REFERENCE]  # for ngspice it is singular
    assert "loop of voltage sources" in loop[0].notes[0] and "has an answer" in loop[1].notes[0]


# -- tables, JSON, pictures --------------------------------------------------------------------------------------------

NAN = float("nan")
GOOD = Quantity("v(good)", 1.0, 1.0, 1e-9, True)
MIXED = (
    GOOD, Quantity("v(loose)", 1.0, 2.0, 1e-9, False), Quantity("v(off)", -2.0, -3.0, 1e-9, True),
    Quantity("i(vague)", 1.0, 1.0, 1e-9, True, telling=False), Quantity("i(far)", 2.0, 3.0, 1e-9, True, telling=False),
)  # fmt: skip


def point(
    verdict: Verdict,
    *values: Quantity,
    kcl: tuple[float, float] = (NAN, NAN),
    notes: tuple[str, ...] = (),
    at: str = "",
) -> Comparison:
    return Comparison("ngspice-39", values, *kcl, (0.5, 0.25), verdict, notes, at)


def printed(*points: Comparison, quiet: bool = False) -> list[list[str]]:
    """The words of the lines that are printed."""
    out = Console(file=io.StringIO(), width=150)
    print_comparison(points, out, quiet)
    return [line.split() for line in out.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_the_worst_verdict_is_that_of_all_points() -> None:
    order = [Verdict.DIFFER, Verdict.NO_ANSWER, Verdict.NO_REFERENCE, Verdict.UNTOLD, Verdict.AGREE]
    for k, worst in enumerate(order):
        assert overall([point(verdict) for verdict in reversed(order[k:])]) is worst


def test_a_note_is_printed_once_with_its_first_point() -> None:
    first = point(Verdict.AGREE, notes=("both", "first"), at="V1 = 0")
    second = point(Verdict.AGREE, notes=("both", "second"), at="V1 = 1")
    assert notes_of([first, second]) == ["at V1 = 0: both", "at V1 = 0: first", "at V1 = 1: second"]
    alone = point(Verdict.AGREE, notes=tuple(f"note {k}" for k in range(21)))
    lines = [" ".join(words) for words in printed(alone)]
    assert [line for line in lines if line.startswith("note:")] == [f"note: note {k}" for k in range(20)]
    assert "... and 1 more notes; --json gives all" in lines
    assert not [words for words in printed(alone, quiet=True) if "note" in words or "notes;" in words]


def test_what_is_said_of_each_value() -> None:
    rows = {words[0]: words[1:] for words in printed(point(Verdict.DIFFER, *MIXED)) if "(" in "".join(words[:1])}
    assert rows == {
        "v(good)": ["1", "1", "0", "1e-09"],
        "v(loose)": ["1", "2", "1", "1e-09", "not", "unique"],
        "v(off)": ["-2", "-3", "1", "1e-09", "differs"],
        "i(vague)": ["1", "1", "0", "1e-09", "inconclusive"],
        "i(far)": ["2", "3", "1", "1e-09", "differs"],
    }
    zero = Quantity("v(zero)", -0.0, -0.0, 1e-9, True)
    assert ["v(zero)", "0", "0", "0", "1e-09"] in printed(point(Verdict.AGREE, zero))


@pytest.mark.parametrize(("more", "first"), [(0, "v(0)"), (1, "v(20)")])
def test_too_many_values_are_sorted_by_what_is_allowed(more: int, first: str) -> None:
    values = [Quantity(f"v({k})", 1.0, 1.0 + k, 100.0, True) for k in range(MOST_ROWS + more)]
    lines = printed(point(Verdict.AGREE, *values))
    shown = [words[0] for words in lines if words and words[0].startswith("v(")]
    assert (shown[0], len(shown)) == (first, MOST_ROWS)
    left = [words for words in lines if words and words[0] == "..."]
    assert left == ["... and 1 more that differ less; --json gives all".split()] * more


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ([point(Verdict.DIFFER, *MIXED)], f"{Verdict.DIFFER.value} (1 of 3 values agree)"),
        (
            [point(Verdict.AGREE, GOOD), point(Verdict.UNTOLD, MIXED[3])],
            f"{Verdict.UNTOLD.value} (1 of 1 values agree, at 1 of 2 points all do)",
        ),
        ([point(Verdict.NO_ANSWER)] * 2, f"{Verdict.NO_ANSWER.value} (at 0 of 2 points all do)"),
        ([point(Verdict.NO_ANSWER)], Verdict.NO_ANSWER.value),
    ],
)
def test_the_verdict_counts_the_values_that_tell_something(points: list[Comparison], verdict: str) -> None:
    assert " ".join(printed(*points)[-1]) == f"verdict: {verdict}"


@pytest.mark.parametrize(
    ("kcl", "more"), [((1e-12, 1e-6), "ngspice-39"), ((1e-3, 1e-6), "circuitsim"), ((0.0, 0.0), "neither")]
)
def test_the_larger_violation_of_all_points_is_judged(kcl: tuple[float, float], more: str) -> None:
    points = [point(Verdict.AGREE, GOOD, kcl=kcl), point(Verdict.AGREE, GOOD, kcl=(0.0, 0.0)), point(Verdict.NO_ANSWER)]
    lines = printed(*points)
    assert ["circuitsim", f"{kcl[0]:.2g}", "1"] in lines
    assert ["ngspice-39", f"{kcl[1]:.2g}", "0.5"] in lines
    assert f"{more} violates KCL more; both are judged by the same certificate".split() in lines


def test_the_json_object_has_all_of_a_comparison() -> None:
    found = comparison_object([point(Verdict.DIFFER, *MIXED[2:4], kcl=(1e-12, 1e-6), notes=("why",), at="V1 = 1")])
    common = {"allowed": 1e-9, "determined": True}
    assert found["points"] == [
        {
            "at": "V1 = 1", "verdict": "DIFFER", "kcl_ours": 1e-12, "kcl_theirs": 1e-6,
            "seconds": {"ours": 0.5, "theirs": 0.25}, "notes": ["why"],
            "values": {
                "v(off)": common | {"ours": -2.0, "theirs": -3.0, "difference": 1.0, "agrees": False, "telling": True},
                "i(vague)": common | {"ours": 1.0, "theirs": 1.0, "difference": 0.0, "agrees": True, "telling": False},
            },
        }
    ]  # fmt: skip


def test_a_plot_has_all_unique_values_and_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'circuitsim[plot]'")
    figures: list[Any] = []
    monkeypatch.setattr(compared_module, "write_picture", lambda figure, path: figures.append(figure))
    plot_comparison([point(Verdict.DIFFER, *MIXED)], Path("c.svg"))
    drawn = {
        axes.get_title(): [some.get_offsets().tolist() for some in axes.collections] for axes in figures[0].get_axes()
    }
    assert drawn == {
        "voltages: 2": [[[1.0, 1.0]], [[-2.0, -3.0]]],
        "differences of voltages": [[[1.0, 1e-9], [2.0, 1e-9]], [[2.0, 1.0]]],
        "source currents: 2": [[[1.0, 1.0]], [[2.0, 3.0]]],
        "differences of source currents": [[[1.0, 1e-9], [2.0, 1e-9]], [[2.0, 1.0]]],
    }
    [line] = figures[0].get_axes()[2].get_lines()
    assert line.get_xdata().tolist() == [0.0, 3.0]  # equal values, from 0
    plot_comparison([point(Verdict.DIFFER, GOOD, Quantity("v(lost)", 2.0, NAN, 1e-9, True))], Path("c.svg"))
    [line] = figures[1].get_axes()[0].get_lines()
    assert line.get_xdata().tolist() == [0.0, 2.0]


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> click.testing.Result:
    """Run the command on a wide terminal."""
    return click.testing.CliRunner(env={"COLUMNS": "150"}).invoke(main, ["compare", *arguments])


@pytest.fixture
def deck(tmp_path: Path) -> Path:
    path = tmp_path / "deck.cir"
    path.write_text(DIVIDER)
    return path


def test_the_help_has_the_exit_codes_and_examples() -> None:
    text = run("--help").stdout
    assert "Exit codes: 0 both agree; 1 they differ" in text
    assert "circuitsim compare netlists/bridge_rectifier.cir" in text


@needs_ngspice
def test_the_command_shows_both_and_the_verdict(deck: Path) -> None:
    result = run(str(deck))
    assert result.exit_code == 0
    assert "v(out)" in result.stdout
    assert "violates KCL more" in result.stdout
    assert "verdict: both agree within what their tolerances allow (3 of 3 values agree)" in result.stdout
    quiet = run(str(deck), "-q").stdout
    assert "v(out)" in quiet
    assert "KCL" not in quiet


@needs_ngspice
@pytest.mark.parametrize(
    ("name", "code"), [("hard_is_1e-300.cir", 1), ("hard_R0_loop.cir", 3), ("dc_cards.cir", 0), ("no_such.cir", 2)]
)
def test_the_exit_code_is_the_verdict(name: str, code: int) -> None:
    assert run(str(NETLISTS / "valid" / name)).exit_code == code


@needs_ngspice
def test_json_has_every_value(deck: Path) -> None:
    found = json.loads(run(str(deck), "--json").stdout)
    [point] = found["points"]
    assert (found["verdict"], point["at"]) == ("AGREE", "")
    assert point["values"]["v(out)"]["theirs"] == pytest.approx(5.0)
    assert point["values"]["i(v1)"]["determined"]
    none = json.loads(run(str(NETLISTS / "valid" / "hard_R0_loop.cir"), "--json").stdout)
    assert (none["verdict"], none["points"][0]["kcl_theirs"]) == ("NO_REFERENCE", None)


@needs_ngspice
def test_names_that_ngspice_cannot_keep_are_shown_as_in_the_deck(deck: Path) -> None:
    deck.write_text("names\nVé \u00fcn\u00efcode 0 2\nR1 \u00fcn\u00efcode Temper 1k\nR2 temper 0 1k\n.dc Vé 1 2 1\n")
    wanted = {"v(\u00fcn\u00efcode)": 2.0, "v(temper)": 1.0, "i(vé)": -1e-3}
    for options in ([], ["--sweeps"]):
        found = json.loads(run(str(deck), "--json", *options).stdout)
        values = found["points"][-1]["values"]
        assert {name: value["theirs"] for name, value in values.items()} == pytest.approx(wanted)
        assert found["verdict"] == "AGREE"
    table = run(str(deck)).stdout
    assert all(f" {name} " in f" {table}".replace("\n", " ") for name in wanted)
    assert "n_code" not in table


@needs_ngspice
def test_of_many_values_the_worst_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "many.cir"
    path.write_text("many\nV1 a 0 1\nR[0:99] a b[0:99] 1k\nS".replace("S", "Rx[0:99] b[0:99] 0 1k\n"))
    text = run(str(path)).stdout
    assert "... and 82 more that differ less; --json gives all" in text
    assert "102 of 102 values agree" in text


@needs_ngspice
def test_sweeps_are_compared_on_demand(deck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deck.write_text(f"{DIVIDER}.dc V1 0 2 1\n")
    result = run(str(deck), "--sweeps")
    assert result.exit_code == 0
    assert "9 of 9 values agree, at 3 of 3 points all do" in result.stdout
    assert "V1 = 2" in result.stdout
    deck.write_text(f"{DIVIDER}.dc V1 0 2 1\n.dc R1 1k 2k 1k\n")
    monkeypatch.setattr("circuitsim.cli.common.on_terminal", lambda quiet: not quiet)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich draws nothing unless it sees a terminal
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    both = run(str(deck), "--sweeps")
    assert "at 5 of 5 points all do" in both.stdout
    assert "5/5" in both.stderr
    deck.write_text(DIVIDER)
    assert "has no .dc card to compare" in run(str(deck), "--sweeps").stderr


@needs_ngspice
def test_a_plot_is_written_whole_or_refused(deck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'circuitsim[plot]'")
    picture = deck.with_suffix(".png")
    assert run(str(deck), "--plot", str(picture)).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    bad = run(str(deck), "--plot", str(deck.with_suffix(".txt")))
    assert (bad.exit_code, "must end in .png, .pdf or .svg" in bad.stderr) == (2, True)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    missing = run(str(deck), "--plot", str(picture))
    assert (missing.exit_code, "pip install 'circuitsim[plot]'" in missing.stderr) == (2, True)


def test_a_plot_has_room_for_what_differs_is_zero_or_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'circuitsim[plot]'")
    nan = float("nan")
    values = (
        Quantity("v(a)", 1.0, 1.5, 1e-9, True), Quantity("v(b)", 0.0, 1e-12, 1e-9, True),
        Quantity("v(c)", 1.0, nan, 1e-9, True), Quantity("v(d)", 0.0, 0.5, 1e-9, False),
    )  # fmt: skip
    found = Comparison("ngspice-39", values, 1e-12, 1e-3, (0.1, 0.2), Verdict.DIFFER, ())
    assert [q.name for q in found.differing] == ["v(c)", "v(a)"]
    for some in ([found], [Comparison("ngspice-39", (), nan, nan, (0.1, nan), Verdict.NO_REFERENCE, ())]):
        plot_comparison(some, tmp_path / "c.svg")
        assert b"<svg" in (tmp_path / "c.svg").read_bytes()


def test_without_ngspice_the_command_says_how_to_get_it(deck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    result = run(str(deck))
    assert (result.exit_code, "apt-get install ngspice" in result.stderr) == (2, True)


@pytest.mark.parametrize("seconds", ["nan", "0", "-3", "inf", "1e300"])
def test_a_time_limit_that_is_none_is_refused(seconds: str, deck: Path) -> None:
    result = run(str(deck), f"--timeout={seconds}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"a time limit of {float(seconds):g} s: it must be above 0 and at most 1,000,000 s" in result.stderr


def test_a_program_that_is_none_is_named(deck: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = deck.with_name("ngspice")
    program.write_bytes(b"\x7fELF, and then nothing")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(deck.parent))
    result = run(str(deck))
    assert (result.exit_code, result.stderr) == (2, f"error: {program} cannot be started: Exec format error\n")


@needs_ngspice
@pytest.mark.parametrize("name", ["time", "frequency", "inoise_total", "res-sweep", "x:power", "@a[g]", "V+", "ac"])
def test_nodes_whose_names_mean_something_to_ngspice_are_compared(name: str) -> None:
    circuit = cs.parse(f"names\nV+ in 0 3\nL1 {name} q 1\nR1 in {name} 1k\nR2 q 0 1k\n.dc V+ 1 2 1")
    found = [compare(circuit), *compare_sweep(circuit, circuit.netlist.sweeps[0])]
    assert [(x.verdict, len(x.quantities)) for x in found] == [(Verdict.AGREE, 5)] * 3


@needs_ngspice
@pytest.mark.parametrize(
    ("name", "swept"), [("v-sweep", "V1"), ("i-sweep", "I1"), ("res-sweep", "R1"), ("temp-sweep", "TEMP")]
)
def test_nodes_called_like_what_is_swept_are_compared(name: str, swept: str) -> None:
    """ngspice gives its scale such a name, and leaves the node out."""
    circuit = cs.parse(f"names\nV1 in 0 3\nI1 0 in 1m\nR1 in {name} 1k\nR2 {name} 0 1k tc1=0.01\n.dc {swept} 10 20 10")
    found = compare_sweep(circuit, circuit.netlist.sweeps[0])
    assert [(x.verdict, len(x.quantities)) for x in found] == [(Verdict.AGREE, 3)] * 2
