"""300 of the random circuits of validation/random_circuits.py; and its references, which have to find mistakes."""

from __future__ import annotations

import pytest

import circuitsim as cs
from circuitsim.spice.ngspice import ngspice_available
from validation.dense import Dense, convex_answer, linear_answer, piecewise_solvable
from validation.random_circuits import BAD, FAILED, ONE, broken_equation, judge
from validation.random_decks import FAMILIES, Deck, Model, Part, random_deck

CHUNK, CHUNKS = 15, 5
BY_NGSPICE = 30  # seeds of a family that ngspice solves as well


@pytest.mark.parametrize("chunk", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, CHUNKS))])
@pytest.mark.parametrize("family", FAMILIES)
def test_random_circuits_agree_with_independent_solutions(family: int, chunk: int) -> None:
    """None is wrong, none crashes; those known to have a solution are solved."""
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        deck = random_deck(family, seed)
        outcome = judge(deck, with_ngspice=seed < BY_NGSPICE and ngspice_available())
        unwanted = outcome.kind in BAD or (outcome.kind == FAILED and (family != 4 or ONE in outcome.why))
        assert not unwanted, f"{outcome.kind}: {outcome.why}\n{deck.text}"


def test_mixed_integer_programs_know_which_circuits_have_solutions() -> None:
    """A diode clamps what E1 gives to 0.7 V; a source of 1 V across it does not fit."""
    model = Model("m", "ideal", {"ron": 0.0, "vfwd": 0.7})
    parts = (
        Part("V", "V1", "a", "0", 1.0), Part("E", "E1", "b", "0", 2.0, control=("a", "0")),
        Part("R", "R1", "b", "c", 1e3), Part("D", "D1", "c", "0", model=model),
    )  # fmt: skip
    assert piecewise_solvable(Dense(deck_of(*parts))) is True
    assert piecewise_solvable(Dense(deck_of(*parts, Part("V", "V2", "c", "0", 1.0)))) is False


def deck_of(*parts: Part) -> Deck:
    """A deck of these parts."""
    models = [part.model.text() for part in parts if part.model]
    return Deck(0, 0, "\n".join(["by hand", *models, *(part.text() for part in parts)]), parts)


DIVIDER = (Part("V", "V1", "in", "0", 10.0), Part("R", "R1", "in", "out", 1e3), Part("R", "R2", "out", "0", 3e3))


def test_the_references_know_a_divider() -> None:
    dense = Dense(deck_of(*DIVIDER))
    convex, linear = convex_answer(dense), linear_answer(dense)
    assert linear is not None
    for answer in (convex, linear):
        assert answer.trusted.all()
        assert dict(zip(dense.names, answer.v, strict=True)) == pytest.approx({"in": 10.0, "out": 7.5})


@pytest.mark.parametrize(
    ("volts", "amperes", "found"),
    [
        ({"in": 10.0, "out": 7.5}, -2.5e-3, ""),
        ({"in": 10.0, "out": 7.6}, -2.5e-3, "KCL at"),
        ({"in": 9.0, "out": 6.75}, -2.25e-3, "V1 has 9.0 V"),
        ({"in": 10.0, "out": 7.5}, -2.4e-3, "KCL at"),
    ],
)
def test_equations_that_do_not_hold_are_found(volts: dict[str, float], amperes: float, found: str) -> None:
    said = broken_equation(Dense(deck_of(*DIVIDER)), volts, {"V1": amperes, "R1": 2.5e-3, "R2": 2.5e-3})
    assert said == "" if not found else found in said


def test_linear_programs_tell_what_has_no_solution() -> None:
    pushed = Dense(deck_of(*DIVIDER, Part("I", "I1", "0", "alone", 1e-3)))
    assert pushed.solvable() is False and pushed.current_misfit == pytest.approx(1e3 / 1)
    looped = Dense(deck_of(*DIVIDER, Part("V", "V2", "in", "0", 9.0)))
    assert looped.solvable() is False and looped.voltage_misfit == pytest.approx(0.5)
    assert Dense(deck_of(*DIVIDER)).solvable() is True


def test_a_deck_is_the_same_in_text_and_as_parts() -> None:
    for family in FAMILIES:
        for seed in range(20):
            deck = random_deck(family, seed)
            circuit = cs.parse(deck.text)
            assert set(circuit.nodes) == set(deck.nodes)
            for part in deck.parts:
                kind, row, _ = circuit.rows_of(part.name)
                table = circuit.netlist.tables[kind]
                assert (circuit.nodes[table.a[row]], circuit.nodes[table.b[row]]) == (part.a, part.b)
