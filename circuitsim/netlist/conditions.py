"""`.if (CONDITION) ... .elseif (CONDITION) ... .else ... .endif`: which cards of a netlist count.

Conditions see the parameters and functions of the netlist that stand outside of `.if` and `.subckt`; a single `=`
compares, as in ngspice. Blocks nest; within `.subckt` they are refused. The cards are chosen once, for all points of a
sweep and all draws: conditions may not be random, and what they depend on may not be swept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from circuitsim.errors import NetlistError
from circuitsim.netlist.chance import Drawn, NoChance
from circuitsim.netlist.scopes import (
    PARAMETERS,
    Note,
    Place,
    Scope,
    expression,
    noted,
    sort_cards,
    with_depth,
)
from circuitsim.netlist.source import CLOSES_SUBCKT, OPENS_SUBCKT, Card
from circuitsim.netlist.tokens import SINGLE_EQUALS, labelled, located, shown

_KEYS = (".if", ".elseif", ".else", ".endif")


@dataclass
class _Block:
    seq: int
    around: bool  # whether the cards around the block count
    active: bool = False
    taken: bool = False  # whether a branch has been active
    last: bool = False  # after .else


def chosen_cards(cards: list[Card], place: Place, note: Note) -> tuple[list[Card], frozenset[str]]:
    """The cards outside of `.if` blocks and in their active branches; the parameters that this depends on.

    Raises NetlistError.
    """
    if not any(card.control in _KEYS for card in cards):
        return cards, frozenset()
    top, _ = sort_cards(list(_definitions(cards)), place, note)
    scope = Scope(top, None, "", NoChance(), place)
    blocks: list[_Block] = []
    chosen: list[Card] = []
    for card, key, depth in with_depth(cards):
        if key in _KEYS:
            with located(place, card.seq):
                if depth > 0:
                    raise NetlistError(f"{key} within .subckt is not supported; write two subcircuits")
                _branch(card, key, blocks, scope, note)
        elif not blocks or blocks[-1].active:
            chosen.append(card)
    if blocks:
        raise NetlistError(".if has no .endif; add it after its last card", place(blocks[-1].seq))
    return chosen, frozenset(scope.values)


def _definitions(cards: list[Card]) -> Iterator[Card]:
    """The parameters and functions that conditions see."""
    for card, key, depth in with_depth(cards, {".if", *OPENS_SUBCKT}, {".endif", *CLOSES_SUBCKT}):
        if depth == 0 and key in (*PARAMETERS, ".func"):
            yield card


def _branch(card: Card, key: str, blocks: list[_Block], scope: Scope, note: Note) -> None:
    """Open, continue or close a block."""
    if key == ".if":
        blocks.append(_Block(card.seq, not blocks or blocks[-1].active))
    elif not blocks:
        raise NetlistError(f"{key} without an .if before it; remove it")
    elif key == ".endif":
        blocks.pop()
        return
    elif card.text.lower().partition("(")[0].split()[:2] == [".else", "if"]:
        raise NetlistError(".else takes no condition; write .elseif (a == 1)")
    elif blocks[-1].last:
        raise NetlistError(f"{key} after .else; .endif must follow")
    block = blocks[-1]
    block.last = key == ".else"
    block.active = block.around and not block.taken and (block.last or _holds(card, key, scope, note))
    block.taken |= block.active


def _holds(card: Card, key: str, scope: Scope, note: Note) -> bool:
    text = card.text[len(key) :].strip()
    if not text:
        raise NetlistError(f"{key} has no condition; write {key} (a == 1)")
    with labelled(f"condition of {key}"):
        condition = noted(expression(SINGLE_EQUALS.sub("==", text)), f"condition of {key}", card, note)
        try:
            return bool(np.all(scope.evaluate(condition)))
        except Drawn:
            of = f" (parameter '{shown(scope.evaluating[-1])}')" if scope.evaluating else ""
            raise NetlistError(
                f"it is random{of}, and the cards must be the same for every draw; put the choice into "
                "values, {a > b ? 1k : 2k}, or write a netlist of each choice"
            ) from None
