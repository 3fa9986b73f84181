"""Decks that show a fault get small: the fault is made here."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import current_negated, plant

import circuitsim as cs
from validation.random_circuits import judge
from validation.random_decks import FAMILIES, Deck, random_deck
from validation.shrink import flat, save, shrink


def kinds(deck: Deck) -> list[str]:
    return sorted(part.kind for part in deck.parts)


def has_source_and_diode(deck: Deck) -> bool:
    """The fault: it needs a voltage source and a diode."""
    cs.parse(deck.text)  # what is tried is always a circuit
    return {"V", "D"} <= set(kinds(deck))


@pytest.mark.parametrize("seed", range(6))
def test_what_the_fault_does_not_need_goes(seed: int) -> None:
    deck = random_deck(1, seed)
    if not has_source_and_diode(deck):
        pytest.skip("nothing to shrink")
    small = shrink(deck, has_source_and_diode)
    assert kinds(small) == ["D", "V"]
    assert small.text.count("\n") == 3, small.text  # title, one model, two elements


def first_with_cells(family: int) -> Deck:
    return next(deck for seed in range(100) if ".subckt" in (deck := random_deck(family, seed)).text)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_flat_deck_is_the_same_circuit(family: int) -> None:
    deck = first_with_cells(family)
    whole, plain = cs.parse(deck.text), cs.parse(flat(deck).text)
    assert sorted(whole.nodes) == sorted(plain.nodes)
    for part in deck.parts:
        ends = []
        for circuit in (whole, plain):
            kind, row, _ = circuit.rows_of(part.name)
            table = circuit.netlist.tables[kind]
            ends.append((circuit.nodes[table.a[row]], circuit.nodes[table.b[row]]))
        assert ends[0] == ends[1]


def test_subcircuits_stay_where_the_fault_needs_them() -> None:
    deck = first_with_cells(1)

    def has_a_cell(deck: Deck) -> bool:
        cs.parse(deck.text)
        return ".subckt" in deck.text and len(deck.parts) > 0

    small = shrink(deck, has_a_cell)
    lines = small.text.split("\n")
    assert [line.split()[0][0] for line in lines if line[0] != "."][1:].count("X") == 1
    assert len(small.parts) == 1
    assert lines[-1] == ".ends" or lines[-1].startswith("X")


def test_a_source_takes_along_what_it_controls() -> None:
    deck = next(
        deck for seed in range(200) if "F" in kinds(deck := random_deck(4, seed)) and ".subckt" not in deck.text
    )

    def has_a_controlled_current(deck: Deck) -> bool:
        cs.parse(deck.text)
        return "F" in kinds(deck)

    assert kinds(shrink(deck, has_a_controlled_current)) == ["F", "V"]


def test_a_wrong_law_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A current source that pushes the wrong way: it, and what its current flows in, are left."""
    plant(monkeypatch, current_negated)
    wrong = next(
        outcome
        for seed in range(50)
        if (outcome := judge(random_deck(1, seed), with_ngspice=False)).kind == "WRONG" and "I" in kinds(outcome.deck)
    )
    small = shrink(wrong.deck, lambda deck: judge(deck, with_ngspice=False).kind == "WRONG")
    assert "I" in kinds(small)
    assert len(small.parts) < len(wrong.deck.parts) / 2
    assert set(kinds(small)) <= {"I", "R", "V"}  # one loop: the source and what closes its way
    ends = [node for part in small.parts for node in (part.a, part.b)]
    assert all(ends.count(node) == 2 for node in ends), small.text


def test_saved_decks_read_back(tmp_path: Path) -> None:
    deck = random_deck(3, 5)
    path = save(deck, "ngspice says otherwise\nat n1", tmp_path / "new")
    assert path.name == "family3-seed5.cir"
    assert "\n* ngspice says otherwise\n* at n1\n" in path.read_text()
    assert cs.load(path).nodes == cs.parse(deck.text).nodes
