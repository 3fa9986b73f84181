"""Makes a random deck that shows a fault as small as it gets, and saves it.

Lines of elements go, in ever smaller groups, while the fault stays; with them go the parts that they stand for, F and H
whose source has gone, and models, cells and calls that nothing uses any more. Subcircuits are first written out, and
stay only where the fault needs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from circuitsim.io.files import replacing
from validation.random_decks import Deck, Part


def shrink(deck: Deck, shows: Callable[[Deck], bool], seconds: float = 120.0) -> Deck:
    """The smallest deck found that still `shows` a fault: given the time, no line of it can be left out."""
    until = time.monotonic() + seconds

    def faulty(deck: Deck) -> bool:
        return time.monotonic() < until and shows(deck)

    plain = flat(deck)
    if plain.text != deck.text and faulty(plain):
        deck = plain
    size = max(len(_element_lines(deck)) // 2, 1)
    while size:
        smaller = _pass(deck, faulty, size)
        done = size == 1 and smaller is deck
        deck, size = smaller, 0 if done else max(size // 2, 1)
    return deck


def flat(deck: Deck) -> Deck:
    """The same circuit without subcircuits."""
    models = dict.fromkeys(part.model.text() for part in deck.parts if part.model)
    return replace(deck, text="\n".join([deck.text.split("\n")[0], *models, *(part.text() for part in deck.parts)]))


def save(deck: Deck, why: str, folder: Path) -> Path:
    """Write a deck, with what is wrong about it as a comment, to `family3-seed17.cir` in `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"family{deck.family}-seed{deck.seed}.cir"
    title, *cards = deck.text.split("\n")
    with replacing(path, "w") as out:
        out.write("\n".join([title, *(f"* {line}" for line in why.split("\n")), *cards, ".op", ".end", ""]))
    return path


def _pass(deck: Deck, faulty: Callable[[Deck], bool], size: int) -> Deck:
    """Try to do without each group of `size` lines in turn."""
    lines = _element_lines(deck)
    first = 0
    while first < len(lines):
        smaller = _without(deck, lines[first : first + size])
        if smaller.parts and faulty(smaller):
            deck, lines = smaller, _element_lines(smaller)
        else:
            first += size
    return deck


def _element_lines(deck: Deck) -> list[int]:
    """Numbers of the lines that stand for parts."""
    return [k for k, line in enumerate(deck.text.split("\n")) if k and not line.startswith(".")]


def _stands_for(line: str, part: Part) -> bool:
    """Whether a part needs a line: its own, the card in a cell, or the call that makes it."""
    name = line.split()[0]
    kind, _, path = part.name.partition(".")
    return name == part.name or (bool(path) and name in path.split(".") and name[0] in (kind, "X"))


def _without(deck: Deck, numbers: Iterable[int]) -> Deck:
    """The deck without some of its lines, and without what then is of no use."""
    gone = set(numbers)
    lines = deck.text.split("\n")
    dropped = [lines[k] for k in gone]
    parts = [part for part in deck.parts if not any(_stands_for(line, part) for line in dropped)]
    sources = {part.name for part in parts if part.kind == "V"}
    parts = [part for part in parts if part.kind not in "FH" or part.control[0] in sources]
    models = {part.model.name for part in parts if part.model}
    kept = []
    for k, line in enumerate(lines):
        if line.startswith(".model"):
            useful = line.split()[1] in models
        elif line.startswith("."):
            useful = any("." in part.name for part in parts)  # .subckt, .ends
        else:
            useful = k not in gone and any(_stands_for(line, part) for part in parts)
        if k == 0 or useful:
            kept.append(line)
    return replace(deck, text="\n".join(kept), parts=tuple(parts))
