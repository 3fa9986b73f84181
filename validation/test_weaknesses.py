"""Where ngspice-39 is known to be wrong: the comparison says so, and does not follow it.

The answers that count are exact, or those of the references that share no code with circuitsim.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import circuitsim as cs
from circuitsim.io.raw import NgspiceError
from circuitsim.spice.compare import Verdict, compare
from circuitsim.spice.flatten import flatten
from circuitsim.spice.foreign import kcl_of
from circuitsim.spice.ngspice import run_ngspice
from validation.faults import explanation
from validation.random_circuits import AGREE, judge
from validation.random_decks import Deck, Model, Part

pytestmark = pytest.mark.usefixtures("ngspice")

SUITE = "weaknesses"
NETS, NEAR_IDEAL = 40, 1e-3
NOTICED = 1e-3  # V
FEW = 3  # of NETS: ngspice-39 is wrong in 7


def near_ideal(seed: int) -> Deck:
    """A random net of resistors, current sources, a voltage source and Shockley diodes that conduct from 0.7 mV on."""
    rng = np.random.default_rng(seed)
    nodes = ["0", *(f"n{k}" for k in range(1, 20))]
    steep = Model("steep", "shockley", {"is": 1e-14, "n": NEAR_IDEAL})

    def ends() -> list[str]:
        return [str(node) for node in rng.choice(nodes, 2, replace=False)]

    def ohms() -> float:
        return float(10 ** rng.uniform(1, 4))

    parts = [Part("R", f"Rt{k}", str(rng.choice(nodes[:k])), nodes[k], ohms()) for k in range(1, len(nodes))]
    parts += [Part("R", f"R{k}", *ends(), ohms()) for k in range(20)]
    parts += [Part("D", f"D{k}", *ends(), model=steep) for k in range(20)]
    parts += [Part("I", f"I{k}", *ends(), float(rng.uniform(-0.01, 0.01))) for k in range(6)]
    parts.append(Part("V", "V1", "n1", "0", float(rng.uniform(-5, 5))))
    lines = [f"near-ideal diodes, seed {seed}", steep.text(), *(part.text() for part in parts)]
    return Deck(3, seed, "\n".join(lines), tuple(parts))


def by_default(circuit: cs.Circuit) -> tuple[dict[str, float], float] | None:
    """What ngspice says with its default tolerances, and by how much that misses KCL; None: nothing."""
    text = io.StringIO()
    written = flatten(circuit, text)
    try:
        plot = run_ngspice(text.getvalue(), timeout=60).plots[-1]
    except NgspiceError:
        return None
    values = dict(zip([name for name, _ in plot.variables], plot.values[0].tolist(), strict=True))
    return values, kcl_of(cs.compile_problem(circuit), written, values)[0]


def test_near_ideal_diodes(record_comparison: Callable[..., None], record: Callable[[dict[str, Any]], None]) -> None:
    """ngspice silently gives wrong voltages; each such answer misses KCL, and none of ours does."""
    tried = silently_wrong = 0
    for seed in range(NETS):
        deck = near_ideal(seed)
        if judge(deck, with_ngspice=False).kind != AGREE:
            continue
        tried += 1
        circuit = cs.parse(deck.text)
        found, name = compare(circuit, timeout=60), f"N = 1e-3, seed {seed}"
        assert found.kcl_ours <= 1e-9
        if found.verdict is Verdict.DIFFER:
            explained = explanation(deck, found)
            record_comparison(SUITE, name, found, explained=explained)
            assert explained and any("N <= 0.001" in note for note in found.notes), (deck.text, found)
        if (theirs := by_default(circuit)) is not None:
            values, kcl = theirs
            solution = cs.solve(circuit)
            ours = dict(zip(circuit.nodes, solution.voltages()[0].tolist(), strict=True))
            off = max(abs(ours[n] - values[f"v({n})"]) for n in deck.nodes if n != "0")
            if off > NOTICED:
                silently_wrong += 1
                why = f"default tolerances: off by {off:.2g} V, misses KCL by {kcl:.1e}"
                record({"suite": SUITE, "name": name, "verdict": "DIFFER", "explained": why, "kcl_theirs": kcl})
                assert kcl > 1e-3, (deck.text, off, kcl)
    assert tried >= NETS // 2
    assert silently_wrong >= FEW  # else this test shows nothing


EXACT = {  # decks and voltages that arithmetic gives
    "R = 1e-13": ("V1 a 0 1\nR1 a b 1e-13\nR2 b 0 1k", {"b": 1.0}),
    "R = 1e-15": ("V1 a 0 1\nR1 a b 1e-15\nR2 b 0 1k", {"b": 1.0}),
    "R = 1e-30": ("I1 0 a 1m\nR1 a b 1e-30\nR2 b 0 1k", {"a": 1.0, "b": 1.0}),
    "R = 1e-13 in a chain": (
        "I1 0 a 1m\nR1 a b 1e-13\nR2 b c 1k\nR3 c d 1e-14\nR4 d 0 1k",
        {"a": 2.0, "c": 1.0, "d": 1.0},
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_tiny_resistances(name: str, record_comparison: Callable[..., None]) -> None:
    cards, volts = EXACT[name]
    circuit = cs.parse(f"{name}\n{cards}\n")
    solution, found = cs.solve(circuit), compare(circuit)
    record_comparison(SUITE, name, found)
    for node, v in volts.items():
        assert solution.voltage(node)[0] == pytest.approx(v, rel=1e-9)
    assert found.kcl_ours <= 1e-9
    assert found.verdict in (Verdict.AGREE, Verdict.UNTOLD, Verdict.NO_REFERENCE) or found.kcl_theirs > 1e-9
    assert found.verdict is Verdict.NO_REFERENCE or any("below 1e-12 ohm" in note for note in found.notes)


NOWHERE = {  # currents that have nowhere to go
    "a node with nothing but a source": "I1 0 a 1m\nV1 b 0 1\nR1 b 0 1k",
    "a blocked diode": "I1 0 a 1m\nD1 0 a d\n.model d D(is=1e-14)",
    "a capacitor": "I1 0 a 1u\nC1 a 0 1n\nV1 b 0 1\nR1 b 0 1",
}


@pytest.mark.parametrize("name", NOWHERE)
def test_currents_without_a_way(name: str, record_comparison: Callable[..., None]) -> None:
    """ngspice answers with enormous or meaningless voltages; circuitsim says that there is no answer."""
    found = compare(cs.parse(f"{name}\n{NOWHERE[name]}\n"))
    record_comparison(SUITE, name, found)
    assert found.verdict is Verdict.NO_ANSWER
    assert any("I1" in note for note in found.notes)
    assert np.isnan(found.kcl_ours)
