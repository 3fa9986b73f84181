"""Published decks, read where they lie: each is loaded and compiled, or refused for something circuitsim does not have.

They belong to others and are not part of this repository: CIRCUITSIM_REAL_DECKS names their folder. Run with -s to see
the table of refusals.
"""

from __future__ import annotations

import gzip
import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import circuitsim as cs

ROOT = Path(os.environ.get("CIRCUITSIM_REAL_DECKS", Path(__file__).parent.parent.parent / "shared/netlists/real"))
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="no folder of published decks (CIRCUITSIM_REAL_DECKS)")

REASONS = {  # why a deck may be refused
    "controlled sources": r"\((E|F|G|H)\) is not yet supported|^E\w* .*(POLY|VALUE|TABLE|nand)",
    "values that depend on voltages": r"depends on a voltage or a current",
    "sweeps": r"^\.dc: sweeps",
    "elements": r"elements '\w' are not supported",
    "device models": r"is of type \w+; it must be|changes DC and is not supported|self-heating",
    "conditions in subcircuits": r"\.if within \.subckt",
    "RKM resistances, which ngspice reads otherwise": r"ngspice would read it as",
    "negative resistances": r"negative resistance",
    "currents that have nowhere to go": r"no element can carry this current",
}


def decks() -> list[Path]:
    """Those with an operating point beside them; the others are parts of them."""
    found = {path.with_suffix("") if path.suffix == ".gz" else path for path in ROOT.rglob("*.op.tsv*")}
    return sorted(path.with_name(path.name.removesuffix(".op.tsv")) for path in found)


def operating_point(deck: Path) -> dict[str, float]:
    plain = deck.with_name(f"{deck.name}.op.tsv")
    text = plain.read_text() if plain.exists() else gzip.decompress(Path(f"{plain}.gz").read_bytes()).decode()
    return {name: float(value) for name, value in (line.split("\t") for line in text.splitlines())}


def test_every_deck_compiles_or_lacks_something() -> None:
    refused: dict[str, list[str]] = defaultdict(list)
    fine = 0
    for deck in decks():
        try:
            cs.compile_problem(cs.load(deck)).drive(slice(0, 1))
            fine += 1
        except cs.NetlistError as error:
            assert error.at is not None, deck
            reason = [name for name, pattern in REASONS.items() if re.search(pattern, error.message)]
            refused[reason[0] if reason else f"OTHER: {error.message[:120]}"].append(deck.name)
    for reason, names in sorted(refused.items()):
        print(f"{reason}: {', '.join(names)}")
    assert not [reason for reason in refused if reason.startswith("OTHER")]
    assert fine >= 50


def test_the_deck_with_a_stray_source() -> None:
    deck = next(ROOT.rglob("fake-circuit-data_current_map27.sp"))
    with pytest.raises(cs.TopologyError, match=r"node n1_m1_0_0: I0 draws a net 1\.67624e-07 A"):
        cs.compile_problem(cs.load(deck)).drive(slice(0, 1))
    problem = cs.compile_problem(cs.load(deck), lenient=True)
    problem.drive(slice(0, 1))
    assert [problem.circuit.nodes[k] for k in problem.circuit.dropped] == ["n1_m1_0_0"]
    voltages = operating_point(deck)
    known = problem.topology.index_of_node < 0
    wanted = [
        voltages[f"v({name.lower()})"] for name in np.array(problem.circuit.nodes)[known][1:] if name != "n1_m1_0_0"
    ]
    assert len(wanted) > 0 and set(wanted) == {1.1}
