"""Pins of subcircuits. One with a range is a bus: it stands for its members, each a pin."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.arrays import (
    at_members,
    bounds_of,
    corners,
    lengths,
    member_names,
    product_of,
    refuse_what_is_like_a_range,
    split_ranges,
    spread,
)
from circuitsim.netlist.source import Card
from circuitsim.netlist.tokens import labelled, located, shown, split_keys, tokenize, without_params

MOST_PINS = 1_000_000  # of a bus
_GROUND = ("0", "gnd")


@dataclass(frozen=True)
class Pin:
    """A pin of a definition: one name, or a bus."""

    word: str  # in lower case
    base: str = ""
    indices: tuple[range | int, ...] = ()  # of a bus

    @property
    def shape(self) -> tuple[int, ...]:
        return lengths(self.indices)

    @property
    def names(self) -> list[str]:
        """What the definition calls the nodes that are connected to it."""
        return member_names(self.base, self.indices) if self.indices else [self.word]

    def nodes(self, word: str, ranges: tuple[range, ...], side: int) -> list[list[str]]:
        """The nodes outside that a word of an X card means: for each of `names` that at each instance of the X.

        Ranges in the word go with `ranges` of the X first, as in arrays.spread, and then with those of the bus.
        Ground is at all members. NetlistError when they do not match.
        """
        if not self.indices:
            return [at_members(spread(word, ranges, side, "node"), ranges, side)] if ranges else [[word]]
        base, indices = split_ranges(word)
        refuse_what_is_like_a_range(base)
        found = lengths(indices)
        if word.lower() in _GROUND:
            return [[word] * prod(map(len, ranges)) for _ in range(prod(self.shape))]
        if not found:
            span = bounds_of([k for k in self.indices if isinstance(k, range)])
            raise NetlistError(
                f"node {shown(word)} is one node, pin {shown(self.word)} is a bus of {product_of(self.shape)}; "
                f"write {'a range' if word.endswith(']') else f'{shown(word)}{span}'}"
            )
        own = len(found) - len(self.shape)
        with_x = ranges if own >= len(ranges) else ranges[side : side + 1] if own > 0 else ()
        wanted = (*lengths(with_x), *self.shape)
        if found != wanted:
            of_x = f"{bounds_of(with_x)} of the X and " if with_x else ""
            raise NetlistError(
                f"ranges do not match: node {shown(word)} has {product_of(found)} members, {of_x}pin "
                f"{shown(self.word)} {'have' if with_x else 'has'} {product_of(wanted)}; make them equal"
            )
        names, size = member_names(base, indices), prod(self.shape)
        return [at_members(names[k::size], ranges, side) for k in range(size)]


class _Use(NamedTuple):
    """A node of an element in a definition."""

    card: Card
    kind: str  # "one" element, an "array", or a "call" without ranges
    node: str
    base: str
    indices: tuple[range | int, ...]


def read_pins(
    words: Sequence[str], cards: Sequence[Card], place: Callable[[int], At], note: Callable[[int, str], None]
) -> tuple[Pin, ...]:
    """The pins of a definition, from their words, in lower case, and the element cards inside.

    A word with a range is a plain name, as in ngspice, where single elements have it as a node, and nothing inside has
    members of it. NetlistError where there are both.
    """
    if not any(":" in word for word in words):
        return tuple(map(Pin, words))
    uses = [use for card in cards for use in _uses(card)]
    every = set(words)
    pins = [_pin(word, every, uses, place, note) for word in words]
    seen = set[str]()
    for name in (name for pin in pins for name in pin.names):
        if name in seen:
            raise NetlistError(f"pin '{shown(name)}' appears twice; rename one")
        seen.add(name)
    return tuple(pins)


def _uses(card: Card) -> list[_Use]:
    """The nodes of an element card; none of one that its reader will refuse."""
    letter = card.text[0].upper()
    try:
        name, *words = split_keys(tokenize(without_params(card.text))).words
        kind = "array" if split_ranges(name)[1] else "call" if letter == "X" else "one"
        nodes = words[:-1] if letter == "X" else words[: 4 if letter in "EG" else 2]
        return [_Use(card, kind, node.lower(), *split_ranges(node.lower())) for node in nodes]
    except (NetlistError, ValueError):  # ValueError: no words
        return []


def _pin(
    word: str, every: set[str], uses: list[_Use], place: Callable[[int], At], note: Callable[[int, str], None]
) -> Pin:
    """One pin of `every`; of a bus its uses are checked."""
    base, indices = split_ranges(word)
    if not indices:
        stem, bracket, _ = re.split(r"([\[<])", f"{word}[", maxsplit=1)
        member = f"{stem}{bracket}"
        if ":" in word[len(stem) :] and any(use.node.startswith(member) and use.node != word for use in uses):
            with labelled(f"pin '{shown(word)}'"):
                refuse_what_is_like_a_range(word)
            raise NetlistError(f"pin '{shown(word)}': write a range of whole numbers, {shown(stem)}[0:3], for a bus")
        return Pin(word)
    if len(lengths(indices)) > 2:
        raise NetlistError(f"pin '{shown(word)}' has {len(lengths(indices))} ranges; write one or two")
    if prod(lengths(indices)) > MOST_PINS:
        raise NetlistError(f"pin '{shown(word)}' has more than {MOST_PINS:,} members; split it")
    pin = Pin(word, base, indices)
    members = set(pin.names)
    of_it = [use for use in uses if use.node == base or use.node.startswith(f"{base}[")]
    whole = [use for use in of_it if use.kind == "one" and use.indices]
    several = any(use.node in members or (use.kind == "array" and use.indices) for use in of_it)
    if any(use.node == word for use in whole) and not several:
        return Pin(word)
    if whole:
        card, node = whole[0].card, whole[0].node
        with located(place, card.seq):
            raise NetlistError(
                f"element {shown(tokenize(card.text)[0])}: node '{shown(node)}' is several nodes of the bus "
                f"'{shown(word)}', a pin; write one of them, such as {shown(pin.names[0])}, or a range in the "
                "element's name"
            )
    known = members | every
    for use in of_it:
        beyond = next((name for name in corners(use.base, use.indices) if name not in known), None)
        if beyond is not None and not (use.kind == "call" and use.indices):
            note(use.card.seq, f"node '{shown(beyond)}' inside is none of the bus '{shown(word)}', a pin")
            break
    return pin


def check_call(word: str, pin: Pin, beside: Sequence[Pin], around: Sequence[Pin]) -> None:
    """NetlistError where the node of an X card without ranges at a `pin`, `beside` the others of the definition, is one
    where several are meant, or the reverse; `around`: the pins of the definition that the card stands in."""
    if ":" not in word:
        return
    key = word.lower()
    if Pin(key) in around:
        if pin.indices:
            raise NetlistError(
                f"node {shown(word)} is one node, as an element here has it, and pin {shown(pin.word)} is a bus; write "
                "a range in the name of that element"
            )
        return
    if pin.indices or not any(other.indices for other in (*beside, *around)):  # names, as in ngspice
        return
    base, indices = split_ranges(key)
    first = corners(base, indices)[0]
    several = any(other.indices for other in beside) or any(first in other.names for other in around)
    if indices and several:
        raise NetlistError(
            f"node {shown(word)} has a range, and pin {shown(pin.word)} is one node; write one, such as "
            f"{shown(first)}, or give that pin a range"
        )
