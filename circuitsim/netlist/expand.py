"""Cards -> Netlist: parameters, arrays and subcircuit instances resolved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from circuitsim.errors import NetlistError
from circuitsim.netlist.arrays import split_ranges
from circuitsim.netlist.builder import Builder
from circuitsim.netlist.cards import CardReader
from circuitsim.netlist.checks import check_values, remarks
from circuitsim.netlist.conditions import chosen_cards
from circuitsim.netlist.controls import read_controls, read_options, with_roles, with_seed
from circuitsim.netlist.elements import read_element
from circuitsim.netlist.model import Netlist
from circuitsim.netlist.models import ModelTable
from circuitsim.netlist.numbers import parse_number
from circuitsim.netlist.saves import check_saves
from circuitsim.netlist.scopes import Block, Scope, expression, sort_cards
from circuitsim.netlist.source import Card, Text, first_word
from circuitsim.netlist.tokens import labelled, located, shown, split_keys, tokenize

MAX_ELEMENTS = 50_000_000  # of an expanded netlist
MAX_CROSSBAR = 1_000_000_000  # conductances of a crossbar: 8 GB


def expand(text: Text, path: str, seed: int | None = None) -> Netlist:
    """Resolve parameters, arrays and subcircuits of a netlist that was read; `seed` goes before `.options seed=`.

    Raises NetlistError, and SettingsError for a seed that no netlist can have.
    """
    with np.errstate(all="ignore"):  # the values are checked at the end
        return _Expansion(text, path, seed).netlist()


@dataclass(frozen=True)
class _Call:
    """An X card taken apart."""

    name: str
    nodes: list[str]
    keys: dict[str, str]
    block: Block  # what it is an instance of


class _Expansion:
    def __init__(self, text: Text, path: str, seed: int | None) -> None:
        self.text = text
        self.path = path
        self.place = text.source.at
        self.notes = text.notes
        self.builder = Builder(self.place)
        self.calls: dict[int, _Call] = {}  # X cards by place
        self.top, cards = sort_cards(chosen_cards(text.cards, self.place, self._note), self.place, self._note)
        self.root = Scope(self.top, None, "", np.random.default_rng(0), self.place)
        self.controls = read_controls(cards, self.place, self._note)
        self.options = with_seed(read_options(cards, self.root, self._note), seed)
        self.root.rng = np.random.default_rng(self.options.seed)
        self.root.values["temper"] = self.options.temp

    def netlist(self) -> Netlist:
        for name in self.top.params:  # in deck order: random draws do not depend on the order of their use
            self.root.lookup(name)
        self._check_size()
        models = ModelTable(self.place, self._note)
        reader = CardReader(self.builder, models, self.options, frozenset(self.controls.global_nodes))
        for card, scope, order in self._instances():
            try:
                read_element(reader, card, scope, order)
            except NetlistError as error:  # `located` would cost a third of the time
                error.at = error.at or self.place(card.seq)
                raise
        tables, crossbars, nodes = self.builder.tables(self.text.plain)
        if not crossbars and not any(len(t) for t in tables.values()):
            raise NetlistError("no elements: line 1 is always the title, elements start at line 2", self.place(0))
        check_values(tables, self.place)
        self.notes += remarks(tables, crossbars, nodes)
        netlist = Netlist(
            path=self.path,
            title=self.text.title if self.controls.title is None else self.controls.title,
            nodes=nodes,
            tables=tables,
            crossbars=crossbars,
            models=tuple(models.rows),
            arrays=self.builder.arrays,
            inputs=(),
            outputs=(),
            trained=(),
            saves=tuple(word for _, word in self.controls.saves),
            options=self.options,
            notes=tuple((self.place(seq), remark) for seq, remark in sorted(self.notes)),
            source=self.text.source,
        )
        netlist = with_roles(netlist, self.controls.roles, self.place)
        check_saves(netlist, self.controls.saves, self.place)
        return netlist

    def _note(self, seq: int, remark: str) -> None:
        self.notes.append((seq, remark))

    # -- instances -------------------------------------------------------------------------------------------------

    def _instances(self) -> Iterator[tuple[Card, Scope, int]]:
        """All element cards but X, with their scopes, in deck order; instances are entered depth first."""
        stack = [(iter(self.top.elements), self.root, -1)]
        while stack:
            cards, scope, order = stack[-1]
            for card in cards:
                place = card.seq if order < 0 else order
                if card.text[0] in "xX":
                    with located(self.place, card.seq):
                        inner = self._enter(card, scope)
                    stack.append((iter(inner.block.elements), inner, place))
                    break
                yield card, scope, place
            else:
                stack.pop()

    def _call(self, card: Card, block: Block) -> _Call:
        """The nodes, parameters and definition of an X card in `block`."""
        known = self.calls.get(card.seq)
        if known is not None:
            return known
        words = split_keys([t for t in tokenize(card.text) if t.lower() != "params:"])
        if not words.words:
            raise NetlistError("subcircuit without a name: write X1 n1 n2 NAME")
        name, *nodes = words.words
        if split_ranges(name)[1]:
            raise NetlistError(f"subcircuit {shown(name)}: arrays of subcircuits are not supported; write one X a line")
        if not nodes:
            raise NetlistError(f"subcircuit {shown(name)}: needs nodes and a definition: {shown(name)} n1 n2 NAME")
        called = nodes.pop().lower()
        found = block.find_subcircuit(called)
        if found is None:
            raise NetlistError(
                f"subcircuit {shown(name)}: no .subckt '{shown(called)}'; define it or include the file that does"
            )
        if len(nodes) != len(found.pins):
            raise NetlistError(
                f"subcircuit {shown(name)}: '{shown(called)}' has {len(found.pins)} pins "
                f"({shown(' '.join(found.pins), 80)}), found {len(nodes)} nodes ({shown(' '.join(nodes), 80)}); "
                "give one node for each pin"
            )
        for key in sorted(words.keys.keys() - found.params.keys() - {"m"}):
            self._note(
                card.seq, f"subcircuit {shown(name)}: '{shown(called)}' has no parameter '{shown(key)}'; ignored"
            )
        return self.calls.setdefault(card.seq, _Call(name, nodes, words.keys, found))

    def _enter(self, card: Card, scope: Scope) -> Scope:
        """The scope of an instance."""
        call = self._call(card, scope.block)
        path = f"{scope.path}.{call.name}" if scope.path else call.name
        self.builder.claim(path, card.seq)
        inner = Scope(call.block, scope, path, self.root.rng, self.place)
        inner.pins = dict(zip(call.block.pins, call.nodes, strict=True))
        for key, word in call.keys.items():
            with labelled(f"subcircuit {shown(path)}: {shown(key)}"):
                if key in call.block.params:
                    inner.values[key] = self._argument(scope, word)
                elif key == "m":
                    m = self._argument(scope, word)
                    if m < 0:
                        raise NetlistError(f"{m:g} must not be negative")
                    inner.multiplier *= m
        return inner

    @staticmethod
    def _argument(scope: Scope, word: str) -> float:
        """The value that an X card gives to a parameter; an expression may stand there without its braces."""
        if word[0] in "0123456789.+-":
            try:
                return parse_number(word)
            except ValueError as error:
                if word[1:].isalnum():
                    raise NetlistError(str(error)) from None
        return float(scope.evaluate(expression(word)))

    def _check_size(self) -> None:
        """Refuse recursive subcircuits, and netlists that expand beyond MAX_ELEMENTS, before expanding any."""
        sizes: dict[Block, int] = {}  # of finished blocks
        stack = [_Count(self.top)]
        while stack:
            count = stack[-1]
            if count.done == len(count.block.elements):
                sizes[count.block] = count.total
                stack.pop()
                continue
            card = count.block.elements[count.done]
            with located(self.place, card.seq):
                called = self._call(card, count.block).block if card.text[0] in "xX" else None
                if called is not None and called not in sizes:
                    _refuse_recursion([c.block for c in stack], called)
                    stack.append(_Count(called))
                    continue
                count.done += 1
                count.total += sizes[called] if called else _members(card.text) if "[" in card.text else 1
                if count.total > MAX_ELEMENTS:
                    where = f"subcircuit '{shown(count.block.name)}'" if count.block.parent else "the netlist"
                    raise NetlistError(
                        f"{where} expands to {count.total:,} elements up to here, more than {MAX_ELEMENTS:,}; split it"
                    )


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


def _members(text: str) -> int:
    """How many elements an array card makes; a crossbar counts as one. Refuses what no memory can hold."""
    name = first_word(text)
    with labelled(f"element {shown(name)}"):
        ranges = split_ranges(name)[1]
    if len(ranges) > 2:
        return 1  # to be refused by the reader
    count = math.prod(len(r) for r in ranges)
    most = MAX_ELEMENTS if len(ranges) < 2 else MAX_CROSSBAR
    if count > most:
        raise NetlistError(f"element {shown(name)}: {count:,} elements, more than {most:,}; split the array")
    return count if len(ranges) < 2 else 1
