"""Published decks, read where they lie: each is solved as ngspice solves it, or refused for what circuitsim lacks.

They belong to others and are not part of this repository: CIRCUITSIM_CORPUS names their folder
(`python -m validation.real_decks` prints the table). The comparison itself is tested with decks made here.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import needs_ngspice

import circuitsim as cs
from validation.real_decks import CORPUS, SMALLEST, TOLERANCE, Outcome, corpus, find_decks, main, solve_deck, try_deck

FOLDER = corpus()
published = pytest.mark.skipif(FOLDER is None, reason=f"no published decks: name their folder by {CORPUS}")
DIVIDER = "divider\nV1 in 0 10\nR1 in out 1k\nR2 out 0 1k\n.op\n.end\n"
ANSWER = {"v(in)": 10.0, "v(out)": 5.0, "i(v1)": -0.005}


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [try_deck(deck, FOLDER) for deck in find_decks(FOLDER)]


@published
def test_every_deck_is_solved_as_by_ngspice_or_refused_for_a_reason(outcomes: list[Outcome]) -> None:
    assert not [o for o in outcomes if not o.right]
    solved = [o for o in outcomes if o.outcome == "solved"]
    assert len(solved) >= 50
    assert all(o.compared > 0 and o.worst <= TOLERANCE for o in solved)


@published
def test_refusals_name_an_element_or_a_model_and_its_line(outcomes: list[Outcome]) -> None:
    refused = [o for o in outcomes if o.outcome == "refused"]
    assert refused
    for o in refused:
        assert re.match(r"[^:/]+:\d+: (model|node|[a-z -]*(source|diode|resistor)) [\w.]+: ", o.message), o.message


@published
def test_analyses_that_are_skipped_are_said_to_be(outcomes: list[Outcome]) -> None:
    found = set()
    for o in outcomes:
        if o.outcome != "solved":
            continue
        deck = FOLDER / o.deck
        text = deck.read_text(errors="replace").lower()
        cards = {match.group(1) for match in re.finditer(r"^\s*(\.(?:tran|ac|control))\b", text, re.MULTILINE)}
        notes = [note for _, note in cs.load(deck).notes]
        missing = [card for card in cards if not any(note.startswith(card) and "skipped" in note for note in notes)]
        assert not missing, (o.deck, notes)
        found |= cards
    assert found == {".tran", ".ac", ".control"}


@published
def test_the_deck_with_a_stray_source(outcomes: list[Outcome]) -> None:
    name = "fake-circuit-data_current_map27.sp"
    (found,) = [o for o in outcomes if o.deck.endswith(name)]
    assert found.outcome == "refused"
    assert "node n1_m1_0_0: I0 draws a net 1.67624e-07 A" in found.message
    assert found.compared > 10_000
    assert found.worst <= TOLERANCE
    problem = solve_deck(next(FOLDER.rglob(name)), lenient=True).problem
    assert [problem.circuit.nodes[k] for k in problem.circuit.dropped] == ["n1_m1_0_0"]


def put(folder: Path, name: str, text: str, values: dict[str, float], packed: bool = False) -> Path:
    """A deck in a folder with ngspice's values beside it."""
    deck = folder / name
    deck.write_text(text)
    lines = "".join(f"{key}\t{value!r}\n" for key, value in values.items())
    if packed:
        (folder / f"{name}.op.tsv.gz").write_bytes(gzip.compress(lines.encode()))
    else:
        (folder / f"{name}.op.tsv").write_text(lines)
    return deck


@pytest.mark.parametrize("packed", [False, True])
def test_a_deck_that_agrees(tmp_path: Path, packed: bool) -> None:
    deck = put(tmp_path, "divider.cir", DIVIDER, ANSWER | {"v(d1#internal)": 3.0}, packed)
    assert find_decks(tmp_path) == [deck]
    found = try_deck(deck, tmp_path)
    assert (found.deck, found.outcome, found.compared, found.left_out) == ("divider.cir", "solved", 3, 0)
    assert found.worst <= 1e-15


@pytest.mark.parametrize(
    ("name", "value", "worst"),
    [
        ("v(out)", 5.0001, 1e-5),  # relative to 10 V
        ("i(v1)", -0.0051, 0.1 / 5.1),
        ("i(l1)", 0.0, np.inf),  # circuitsim has no such element
        ("v(out)", None, np.inf),  # ngspice has no such node
    ],
)
def test_a_deck_that_differs(tmp_path: Path, name: str, value: float | None, worst: float) -> None:
    values = {key: x for key, x in (ANSWER | {name: value}).items() if x is not None}
    found = try_deck(put(tmp_path, "divider.cir", DIVIDER, values), tmp_path)
    assert (found.outcome, found.where, found.right) == ("differs", name, False)
    assert found.worst == pytest.approx(worst)


def test_rounding_errors_of_ngspice_are_no_difference(tmp_path: Path) -> None:
    deck = put(tmp_path, "zero.cir", "zero\nV1 a 0 0\nR1 a 0 1\n", {"v(a)": 1e-13, "i(v1)": 1e-14})
    assert SMALLEST == {"v": 1e-6, "i": 1e-6}
    assert try_deck(deck, tmp_path).worst == pytest.approx(1e-13 / 1e-6)


@pytest.mark.parametrize(("card", "gmin"), [("", 1e-12), (".options gmin=1e-9", 1e-9)])
def test_junctions_have_the_gmin_of_ngspice(tmp_path: Path, card: str, gmin: float) -> None:
    """At -1 MV a diode carries little else."""
    text = f"gmin\nV1 a 0 -1meg\nD1 a 0 d\n.model d D(is=1e-30)\n{card}\n"
    assert try_deck(put(tmp_path, "gmin.cir", text, {"v(a)": -1e6, "i(v1)": gmin * 1e6}), tmp_path).right


def test_what_is_not_unique_is_not_compared(tmp_path: Path) -> None:
    text = "loop\nV1 a 0 1\nV2 a 0 1\nR1 a 0 1\nC1 a b 1\nR2 b 0 inf\n"
    values = {"v(a)": 1.0, "v(b)": 7.0, "i(v1)": -3.0, "i(v2)": 2.0}
    found = try_deck(put(tmp_path, "loop.cir", text, values), tmp_path)
    assert (found.outcome, found.compared, found.left_out) == ("solved", 1, 3)


def test_a_part_without_a_solution_leaves_the_rest_to_compare(tmp_path: Path) -> None:
    text = DIVIDER.replace(".op", "I1 b 0 1m\n.op")
    for wrong, outcome in ((0.0, "refused"), (1.0, "differs")):
        values = ANSWER | {"v(b)": -1e9, "v(out)": 5.0 + wrong}
        found = try_deck(put(tmp_path, "cut.cir", text, values), tmp_path)
        assert found.message.startswith("cut.cir:5: node b: ")
        assert (found.outcome, found.compared, found.right) == (outcome, 3, not wrong)


@needs_ngspice
def test_ngspice_is_asked_where_no_values_are_stored(tmp_path: Path) -> None:
    (tmp_path / "half.cir").write_text("* a part\nR2 out 0 1k\n")
    deck = tmp_path / "divider.cir"
    deck.write_text("divider\nV1 in 0 10\nR1 in out 1k\n.include half.cir\nD1 0 out d\n.model d D\n.end\n")
    assert find_decks(tmp_path) == [deck]
    found = try_deck(deck, tmp_path)
    assert (found.outcome, found.compared) == ("solved", 3)
    deck.write_text("divider\nV1 in 0 10\nV2 in 0 10\nR1 in 0 1k\n.end\n")
    found = try_deck(deck, tmp_path)
    assert (found.outcome, found.right) == ("not compared", True)
    assert found.message.startswith("ngspice aborted")


def test_command(tmp_path: Path) -> None:
    put(tmp_path, "divider.cir", DIVIDER, ANSWER)
    put(tmp_path, "transistor.cir", "mos\nM1 d g 0 0 n\n.end\n", {"v(d)": 1.0})
    run = CliRunner().invoke(main, [str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert "transistor.cir:2: element M1: transistors (M) are not supported" in " ".join(run.output.split())
    assert "transistors (1): transistor.cir" in run.output
    assert "2 decks: 1 solved, 1 refused, 0 differs" in run.output
    put(tmp_path, "off.cir", DIVIDER, ANSWER | {"v(out)": 5.1})
    put(tmp_path, "typo.cir", "typo\nR1 a 0 1k1k1k\n.end\n", {"v(a)": 1.0})
    run = CliRunner().invoke(main, [str(tmp_path)])
    assert run.exit_code == 1
    assert "no reason (1): typo.cir" in run.output
    assert "4 decks: 1 solved, 2 refused, 1 differs" in run.output
