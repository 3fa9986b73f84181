"""The cards of a netlist, sorted and taken apart as far as no value is needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from math import prod

from circuitsim.errors import NetlistError, SettingsError
from circuitsim.netlist.arrays import array_name, bounds_of, lengths, split_ranges
from circuitsim.netlist.buses import check_call
from circuitsim.netlist.cards import Memory
from circuitsim.netlist.conditions import chosen_cards
from circuitsim.netlist.controls import read_controls
from circuitsim.netlist.numbers import is_number
from circuitsim.netlist.scopes import Block, names_in, remarks_of, sort_cards
from circuitsim.netlist.source import Card, Text
from circuitsim.netlist.syntax import NO_DRAW, RELATIVE
from circuitsim.netlist.tokens import labelled, shown, split_keys, tokenize, without_params

MAX_ELEMENTS = 50_000_000  # of an expanded netlist
MAX_CROSSBAR = 1_000_000_000  # conductances of a crossbar: 8 GB

_WORD = re.compile(r"[^\s,()]+")
_MULTIPLIED = "RDNIFG"  # elements whose currents an m= multiplies


@dataclass(frozen=True)
class Call:
    """An X card taken apart."""

    name: str  # without ranges
    ranges: tuple[range, ...]
    nodes: list[list[str]]  # of each of Block.pin_names, at each instance
    keys: dict[str, str]
    block: Block  # what it is an instance of

    @property
    def shape(self) -> tuple[int, ...]:
        return lengths(self.ranges)

    @property
    def bounds(self) -> str:
        """`[0:3][0:7]`, as behind its name."""
        return bounds_of(self.ranges)


class Deck:
    """The cards of a netlist, sorted; nothing here depends on a value."""

    def __init__(self, text: Text, path: str, memory: Memory | None = None) -> None:
        self.text = text
        self.path = path
        self.memory = memory or Memory(files=text.files, arrays=text.arrays)
        self.place = text.source.at
        self.notes = dict.fromkeys(text.notes)  # remarks and their places, each once
        self.calls: dict[int, Call] = {}  # X cards by place
        # Element cards, of blocks whose X cards have all been seen (check_size); in one group X cards in a row that
        # differ in names, nodes and values only.
        self.groups: dict[Block, list[list[Card]]] = {}
        # The most instances that a group or an array makes in a block, or further inside.
        self.widest: dict[Block, int] = {}
        # (what is called, argument, name that it uses and that means another thing inside): places of X cards
        self.outside: dict[tuple[Block, str, str], list[int]] = {}
        cards, self.deciding = chosen_cards(text.cards, self.place, self.note)  # parameters that decide an .if
        self.top, self.cards = sort_cards(cards, self.place, self.note)
        if unused := sorted(text.given.keys() - self.top.params.keys()):
            raise SettingsError(
                f"parameter '{shown(unused[0])}' is given a value, but is in a branch of .if that is not taken"
            )
        self.controls = read_controls(self.cards, self.place, self.note)

    def note(self, seq: int, remark: str) -> None:
        """Keep a remark about the card at a place."""
        self.notes[seq, remark] = None

    def remarks(self) -> list[tuple[int, str]]:
        """The remarks that were kept, and those about subcircuits of which all X cards are known."""
        functions = {name for block in self.top.all_blocks() for name in block.functions}
        of_others = tuple(NO_DRAW.format(name) for name in functions.intersection(RELATIVE))
        out = [(seq, text) for seq, text in self.notes if not text.endswith(of_others)]
        for (called, key, used), places in self.outside.items():
            if used not in called.params and not called.multiplied:  # m, which means the same inside
                continue
            also = f" and of {len(places) - 1:,} more" if len(places) > 1 else ""
            text = f"argument {shown(key)} of this X card{also} uses the '{shown(used)}' outside"
            out.append((places[0], f"{text}; ngspice-39 would take that of '{shown(called.name)}'"))
        for block in self._multiplied():
            own = [card for card in block.elements if _has_multiplier(card.text)]
            nested = min((inner.seq for inner in block.subcircuits.values()), default=None)
            behind = [card for card in block.elements if nested is not None and card.seq > nested]
            behind = [card for card in behind if card.text[0].upper() in _MULTIPLIED]
            both = "has an m=, as do X cards that call it: both count; ngspice-39 would take that of the X card alone"
            dropped = "comes after a .subckt in it; there ngspice-39 drops the m= of X cards that call it"
            for cards, text in ((own, both), (behind, dropped)):
                if cards:
                    also = f", and {len(cards) - 1:,} more," if len(cards) > 1 else ""
                    out.append((cards[0].seq, f"this card{also} of subcircuit '{shown(block.name)}' {text}"))
        return out

    def _multiplied(self) -> Iterable[Block]:
        """The subcircuits to which X cards give an m=, and those that they call."""
        found = {call.block: True for call in self.calls.values() if call.block.multiplied}
        waiting = list(found)
        while waiting:
            for card in waiting.pop().elements:
                call = self.calls.get(card.seq)
                if call is not None and call.block not in found:
                    found[call.block] = True
                    waiting.append(call.block)
        return found

    def check_changes(self, params: Iterable[str]) -> None:
        """Raise NetlistError when the cards that count depend on one of these parameters."""
        for name in sorted(self.deciding.intersection(params)):
            raise NetlistError(
                f"parameter '{shown(name)}' decides an .if, and the cards must stay the same; put the choice "
                f"into values: {{{shown(name)} > 1 ? 1k : 2k}}"
            )

    def call(self, card: Card, block: Block) -> Call:
        """The nodes, parameters and definition of an X card in `block`."""
        known = self.calls.get(card.seq)
        if known is not None:
            return known
        words = split_keys(tokenize(without_params(card.text)))
        if not words.words:
            raise NetlistError("subcircuit without a name: write X1 n1 n2 NAME")
        name, *nodes = words.words
        base, ranges = self._name(name)
        if not nodes:
            raise NetlistError(f"subcircuit {shown(name)}: needs nodes and a definition: {shown(name)} n1 n2 NAME")
        called = nodes.pop().lower()
        found = block.find_subcircuit(called)
        if found is None:
            torn = words.keys and not called[0].isalpha()  # the rest of an argument
            hint = "; an argument with blanks or commas needs braces, r={max(1, 2)}" if torn else ""
            raise NetlistError(
                f"subcircuit {shown(name)}: no .subckt '{shown(called)}'; define it or include the file that does{hint}"
            )
        if len(nodes) != len(found.pins):
            pins = shown(" ".join(pin.word for pin in found.pins), 80)
            raise NetlistError(
                f"subcircuit {shown(name)}: '{shown(called)}' has {len(found.pins)} pins ({pins}), "
                f"found {len(nodes)} nodes ({shown(' '.join(nodes), 80)}); give one node for each pin"
            )
        if words.keys:
            self._remark_on(card, name, words.keys, found)
        found.multiplied |= "m" in words.keys and "m" not in found.params
        at_pins = [[node] for node in nodes]
        if ranges or ":" in card.text or found.has_buses:
            with labelled(f"subcircuit {shown(name)}"):
                at_pins = []
                for k, (pin, node) in enumerate(zip(found.pins, nodes, strict=True)):
                    if not ranges:
                        check_call(node, pin, found.pins, block.pins)
                    at_pins += pin.nodes(node, ranges, min(k, 1))
        return self.calls.setdefault(card.seq, Call(base, ranges, at_pins, words.keys, found))

    @staticmethod
    def _name(name: str) -> tuple[str, tuple[range, ...]]:
        """The name of a call without ranges, and these."""
        if "[" not in name:
            return name, ()
        with labelled(f"subcircuit {shown(name)}"):
            return array_name(name, 2)

    def _remark_on(self, card: Card, name: str, arguments: Mapping[str, str], called: Block) -> None:
        """Keep remarks about the arguments of an X card, or what these depend on."""
        label = f"subcircuit {shown(name)}"
        for key in sorted(arguments.keys() - called.params.keys() - {"m"}):
            self.note(card.seq, f"{label}: '{shown(called.name)}' has no parameter '{shown(key)}'; ignored")
        for key, word in arguments.items():
            for remark in remarks_of(word):
                self.note(card.seq, f"{label}: {shown(key)}: {remark}")
            if is_number(word):
                continue
            used = names_in(word)
            own = {other for other in called.params if arguments.get(other, "").strip("{}").lower() != other} - {key}
            if key != "m" and "m" not in called.params:
                own.add("m")
            for other in sorted(own & used):
                self.outside.setdefault((called, key, other), []).append(card.seq)

    def _group(self, block: Block) -> None:
        """Fill `groups` and `widest` for a block, once all X cards in it and in what it calls have been seen."""
        groups = self.groups[block] = [list(cards) for _, cards in groupby(block.elements, self._alike)]
        calls = [(len(cards), self.calls[cards[0].seq]) for cards in groups if cards[0].text[0] in "xX"]
        self.widest[block] = max(
            (max(count, prod(call.shape), self.widest[call.block]) for count, call in calls), default=1
        )

    def _alike(self, card: Card) -> object:
        """What X cards of one group have in common; of any other card, something that none has."""
        if card.text[0] not in "xX" or (call := self.calls[card.seq]).ranges:
            return card.seq
        return call.block, *call.keys

    def check_size(self) -> None:
        """Refuse recursive subcircuits, and netlists that expand beyond MAX_ELEMENTS, before expanding any X card."""
        sizes: dict[Block, int] = {}  # of finished blocks
        stack = [_Count(self.top)]
        while stack:
            count = stack[-1]
            if count.done == len(count.block.elements):
                sizes[count.block] = count.total
                self._group(count.block)
                stack.pop()
                continue
            card = count.block.elements[count.done]
            try:
                members = _members(card.text) if ":" in card.text else 1  # before anything is made of so many
                called = self.call(card, count.block).block if card.text[0] in "xX" else None
                if called is not None and called not in sizes:
                    _refuse_recursion([c.block for c in stack], called)
                    stack.append(_Count(called))
                    continue
                count.done += 1
                count.total += members * max(sizes[called], 1) if called else members  # one without elements, too
                if count.total > MAX_ELEMENTS:
                    where = f"subcircuit '{shown(count.block.name)}'" if count.block.parent else "the netlist"
                    raise NetlistError(
                        f"{where} expands to {count.total:,} elements up to here, more than {MAX_ELEMENTS:,}; split it"
                    )
            except NetlistError as error:  # `located` would cost a tenth of the time
                error.at = error.at or self.place(card.seq)
                raise


@dataclass
class _Count:
    """A block whose elements are being counted."""

    block: Block
    done: int = 0  # elements that were counted
    total: int = 0  # what they expand to


def _refuse_recursion(open_blocks: list[Block], called: Block) -> None:
    if called in open_blocks:
        names = [shown(block.name) for block in [*open_blocks[open_blocks.index(called) :], called]]
        raise NetlistError(f"subcircuit calls itself: {' -> '.join(names)}; break this loop")


def _has_multiplier(text: str) -> bool:
    """Whether an element card has an m=, or an m before a number, as `=` is a blank."""
    kind = text[0].upper()
    known = ("m",) if kind in _MULTIPLIED else ()
    return "m" in text.lower() and "m" in split_keys(tokenize(text)[1:], known, 4 if kind == "G" else 3).keys


def _members(text: str) -> int:
    """How many elements an array card makes; a crossbar of resistors counts as one. Refuses what no memory can hold."""
    name, *words = (match.group() for match in islice(_WORD.finditer(text), 3))
    with labelled(f"element {shown(name)}"):
        counts, *ends = (lengths(split_ranges(word)[1]) for word in (name, *words))
    if len(counts) > 2:
        return 1  # to be refused by the reader
    crossbar = len(counts) == 2 and name[0] in "rR" and all(len(end) == 1 for end in ends)
    count, most = prod(counts), MAX_CROSSBAR if crossbar else MAX_ELEMENTS
    if count > most:
        raise NetlistError(f"element {shown(name)}: {count:,} elements, more than {most:,}; split the array")
    return 1 if crossbar else count
