"""Definitions (`.subckt .param .func .model`) as blocks, and the values that names have in each instance of one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from math import prod

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.buses import Pin, read_pins
from circuitsim.netlist.chance import Chance, NotTogether, OfInstances
from circuitsim.netlist.expressions import (
    RANDOM,
    Expression,
    ExpressionError,
    UserFunction,
    Value,
    evaluate,
    parse_expression,
)
from circuitsim.netlist.numbers import parse_number
from circuitsim.netlist.source import CLOSES_SUBCKT, OPENS_SUBCKT, Card
from circuitsim.netlist.syntax import Name
from circuitsim.netlist.tokens import (
    assignments,
    comma_hint,
    labelled,
    located,
    shown,
    split_keys,
    tokenize,
    unbrace,
    without_params,
)

# What a number or expression has that a remark may be about: to parse each takes long.
_MAY_BE_REMARKED = re.compile(r"[0-9.](a|mil)|-\s*[^\s0-9.]|(gauss|unif)\s*\(", re.IGNORECASE)
PARAMETERS = frozenset({".param", ".params", ".parameter", ".parameters"})
_DRAWS = re.compile(rf"\b({'|'.join(RANDOM)})\s*\(", re.IGNORECASE)
_INNER_BRACES = str.maketrans("{}", "()")  # as ngspice reads them

Place = Callable[[int], At]
Note = Callable[[int, str], None]


@dataclass(eq=False)
class Block:
    """The main netlist or a subcircuit definition: its cards, sorted by what they define."""

    name: str
    parent: Block | None = None
    pins: tuple[Pin, ...] = ()
    seq: int = 0
    multiplied: bool = False  # whether an X card gives it m=: then it is 1 where others do not
    elements: list[Card] = field(default_factory=list)
    params: dict[str, tuple[Expression, int]] = field(default_factory=dict)
    functions: dict[str, UserFunction] = field(default_factory=dict)
    models: dict[str, Card] = field(default_factory=dict)
    subcircuits: dict[str, Block] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)  # parameters that draw, once they were used more than once
    given: set[str] = field(default_factory=set)  # parameters to which an X card has given a value

    def find_subcircuit(self, name: str) -> Block | None:
        block: Block | None = self
        while block is not None and name not in block.subcircuits:
            block = block.parent
        return block.subcircuits[name] if block else None

    def find_model(self, name: str) -> Block | None:
        """The innermost enclosing block that defines the model."""
        block: Block | None = self
        while block is not None and name not in block.models:
            block = block.parent
        return block

    def all_blocks(self) -> list[Block]:
        """This one and all that are defined inside."""
        blocks = [self]
        for block in blocks:
            blocks += block.subcircuits.values()
        return blocks

    @cached_property
    def has_buses(self) -> bool:
        return any(pin.indices for pin in self.pins)

    @cached_property
    def pin_names(self) -> list[str]:
        """The names of all pins, those of a bus one by one; once its pins are known."""
        return [name for pin in self.pins for name in pin.names]

    @cached_property
    def all_functions(self) -> Mapping[str, UserFunction]:
        """The functions that are visible here; an inner definition hides an outer one."""
        if self.parent is None:
            return self.functions
        return {**self.parent.all_functions, **self.functions} if self.functions else self.parent.all_functions


@lru_cache(maxsize=16384)  # they come again in each instance of a subcircuit, and at each point of a sweep
def expression(text: str) -> Expression:
    """Parse an expression, with or without its braces. Raises NetlistError without a place."""
    try:
        return parse_expression(unbrace(text).translate(_INNER_BRACES))
    except ExpressionError as error:
        hint = comma_hint(text) if "unexpected ','" in str(error) else ""
        raise NetlistError(f"{error}{hint}") from None


def remarks_of(word: str) -> tuple[str, ...]:
    """The remarks about a number or an expression; none about a word that is neither."""
    if not _MAY_BE_REMARKED.search(word):
        return ()
    try:
        return expression(word).remarks
    except NetlistError:
        return ()


def names_in(word: str) -> frozenset[str]:
    """The names that an expression uses; none where a word is no expression."""
    try:
        return expression(word).names
    except NetlistError:
        return frozenset()


def draws(block: Block, definition: Expression) -> bool:
    """Whether the definition of a parameter of this block calls a random function itself."""
    return any(word.lower() not in block.all_functions for word in _DRAWS.findall(definition.text))


def may_draw(cards: Iterable[Card]) -> bool:
    """Whether any card calls what may be a random function."""
    return any(_DRAWS.search(card.text) for card in cards)


def note_draws(top: Block, note: Note) -> None:
    """Note each parameter that draws and was used more than once, as ngspice draws anew at each use, or to which an X
    card gives a value, which ngspice does not take."""
    for block in top.all_blocks():
        for name in sorted(block.shared):
            definition, seq = block.params[name]
            note(
                seq,
                f"parameter {shown(name)} is drawn once, and what uses it shares the draw; ngspice draws anew at each "
                f"use: where each is to have its own, write {shown('{' + definition.text + '}')} there",
            )
        for name in sorted(block.given):
            definition, seq = block.params[name]
            if draws(block, definition):
                note(seq, f"parameter {shown(name)} has the value that an X card gives; ngspice draws it all the same")


def noted(definition: Expression, what: str, card: Card, note: Note) -> Expression:
    """The expression; its remarks are noted."""
    for remark in definition.remarks:
        note(card.seq, f"{what}: {remark}")
    return definition


def sort_cards(cards: list[Card], place: Place, note: Note) -> tuple[Block, list[Card]]:
    """The tree of blocks, and the dot cards that belong to the whole netlist wherever they stand, in deck order."""
    top = block = Block("main")
    controls: list[Card] = []
    for card in cards:
        if card.text[0] != ".":
            block.elements.append(card)
            continue
        with located(place, card.seq):
            block = _sort_card(card, block, controls, place, note)
    if block.parent is not None:
        raise NetlistError(f"subcircuit '{block.name}' has no .ends; add it after its last card", place(block.seq))
    return top, controls


def with_depth(
    cards: Iterable[Card], opens: Set[str] = OPENS_SUBCKT, closes: Set[str] = CLOSES_SUBCKT
) -> Iterator[tuple[Card, str, int]]:
    """Each card with its `control`, and how many blocks are open at it: its own when it opens one, not when it closes.

    >>> [depth for _, _, depth in with_depth([Card(0, ".subckt s a"), Card(1, "R1 a 0 1"), Card(2, ".ends")])]
    [1, 1, 0]
    """
    depth = 0
    for card in cards:
        key = card.control
        depth += (key in opens) - (key in closes)
        yield card, key, depth


def _sort_card(card: Card, block: Block, controls: list[Card], place: Place, note: Note) -> Block:
    """Put a dot card into its block; returns the block that the next card belongs to."""
    key = card.keyword
    if key in OPENS_SUBCKT:
        return _open_subcircuit(card, block, note)
    if key in CLOSES_SUBCKT:
        if block.parent is None:
            raise NetlistError(f"{key} without a .subckt before it; remove it")
        with located(place, block.seq), labelled(f"subcircuit '{shown(block.name)}'"):
            block.pins = read_pins([pin.word for pin in block.pins], block.elements, place, note)
        return block.parent
    if key == ".func":
        head, paren, body = card.text[len(key) :].partition(")")
        _define(_function(head + paren, body.strip(" =")), block, card, note)
    elif key in PARAMETERS:
        for name, text in assignments(card.text[len(key) :]):
            if "(" in name:  # .param f(x)={2*x}
                _define(_function(name, text), block, card, note)
                continue
            with labelled(f"parameter '{shown(name)}'"):
                block.params[name] = noted(expression(text), f"parameter {shown(name)}", card, note), card.seq
    elif key == ".model":
        words = split_keys(tokenize(card.text)).words
        if len(words) < 3:
            raise NetlistError(".model needs a name and a type: .model NAME D(IS=1e-14)")
        if words[1].lower() in block.models:
            note(card.seq, f"model {shown(words[1])} is defined again; the first definition counts")
        block.models.setdefault(words[1].lower(), card)
    else:
        controls.append(card)
    return block


def _open_subcircuit(card: Card, parent: Block, note: Note) -> Block:
    words = split_keys(tokenize(without_params(card.text)))
    if len(words.words) < 2:
        raise NetlistError(".subckt needs a name: .subckt NAME pin1 pin2 ...")
    name = words.words[1].lower()
    pins = tuple(fold(pin) for pin in words.words[2:])
    if len(set(pins)) < len(pins):
        pin = next(pin for pin in pins if pins.count(pin) > 1)
        raise NetlistError(f"subcircuit '{shown(name)}': pin '{shown(pin)}' appears twice; rename one")
    if "0" in pins:
        note(card.seq, f"subcircuit '{shown(name)}': a pin named 0 or gnd is ground, whatever it is connected to")
    block = Block(name, parent, tuple(map(Pin, pins)), card.seq)  # which of them are buses is known at its end
    for key, text in words.keys.items():
        with labelled(f"parameter '{shown(key)}'"):
            block.params[key] = noted(expression(text), f"parameter {shown(key)}", card, note), card.seq
    if name in parent.subcircuits:
        note(card.seq, f"subcircuit '{shown(name)}' is defined again; the first definition counts")
    parent.subcircuits.setdefault(name, block)
    return block


def fold(node: str) -> str:
    """A node name as it is compared: lower case, ground `0`."""
    key = node.lower()
    return "0" if key == "gnd" else key


def _define(function: UserFunction, block: Block, card: Card, note: Note) -> None:
    noted(function.body, f"function {shown(function.name)}", card, note)
    block.functions[function.name] = function


def _function(head: str, body: str) -> UserFunction:
    """The function f(x, y) of this body."""
    name, paren, arguments = head.strip().lower().partition("(")
    name = name.strip()
    names = tuple(a.strip() for a in arguments.rstrip(")").split(",") if a.strip())
    if not (paren and arguments.endswith(")") and body and name.isidentifier()):
        raise NetlistError(".func needs the form .func NAME(x, y) {expression}")
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise NetlistError(f"function '{shown(name)}': argument '{shown(twice)}' appears twice; rename one")
    with labelled(f"function '{shown(name)}'"):
        return UserFunction(name, names, expression(body))


@dataclass
class Tail:
    """What stands behind the nodes of element cards in one scope (alike.py)."""

    readings: int = 0
    values: tuple[Value, ...] | None = None  # of the element, once they are known to be those of all


class Scope:
    """One instance of a block: what each name means there. Names are looked up outwards, instance by instance."""

    __slots__ = ("block", "evaluating", "model_rows", "multiplier", "nodes", "parent", "path", "pins", "place", "rng",
                 "tails", "uses", "values")  # fmt: skip

    def __init__(self, block: Block, parent: Scope | None, path: str, rng: Chance, place: Place) -> None:
        self.block = block
        self.parent = parent
        self.path = path  # "X1.X2" or "" at the top
        self.rng = rng
        self.place = place
        self.values: dict[str, Value] = {}
        self.uses: dict[str, int] = {}  # of each parameter whose definition draws
        self.pins: dict[str, str] = {}  # pin -> node of the scope outside
        self.nodes: dict[str, int] = {}  # node names met so far, as spelled -> index
        self.multiplier: float = parent.multiplier if parent else 1.0
        self.model_rows: dict[str, int] = {}
        self.tails: dict[tuple[str, str], Tail] = {}  # kind of element and text behind its nodes -> what is known
        self.evaluating: list[str] = []  # parameters whose definition is being evaluated

    def owner(self, name: str) -> Scope | None:
        """The innermost scope that gives `name` a meaning."""
        scope: Scope | None = self
        while scope is not None and name not in scope.values and name not in scope.block.params:
            scope = scope.parent
        return scope

    def outer(self, name: str) -> Scope:
        """The scope that gives `name` its meaning in the definition of this scope's own `name`: one outside, if any."""
        found = self.parent.owner(name) if self.parent else None
        return found or self

    def settled(self, name: str) -> Scope:
        """The scope that gives `name` its meaning, where it has a value now; errors as of `lookup`."""
        owner = self.owner(name)
        if owner is None:
            raise NetlistError(_undefined(name))
        if name not in owner.values:
            owner.resolve(name)
        return owner

    def lookup(self, name: str, uses: int = 1) -> Value:
        """The value of a parameter. Raises NetlistError, without a place when it is `name` that is not defined.

        uses: how many elements have it from here, of an array its members.

        NotTogether where it cannot be told in how many of the instances that are read at once the parameter is used.
        """
        owner = self.settled(name)
        if name in owner.uses:
            if isinstance(self.rng, OfInstances) and self.rng.branches and name not in owner.block.shared:
                raise NotTogether
            owner.uses[name] += uses
            if owner.uses[name] > 1:
                owner.block.shared.add(name)
        return owner.values[name]

    def _lookup_for(self, of: str, name: str) -> Value:
        """The value of a name in the definition of parameter `of`."""
        return (self.outer(of) if name == of else self).lookup(name)

    def resolve(self, name: str) -> None:
        """Evaluate a parameter of this scope, first those that its definition names (by a loop: chains may be long)."""
        chain = {(self, name): iter(sorted(self.block.params[name][0].names))}
        while chain:
            (scope, wanted), names = next(reversed(chain.items()))
            definition, seq = scope.block.params[wanted]
            with located(self.place, seq):
                for needed in names:
                    owner = scope.owner(needed) if needed != wanted else scope.outer(wanted)
                    if owner is None:
                        raise NetlistError(_undefined(needed))
                    if needed not in owner.values:
                        if (owner, needed) in chain:
                            links = list(chain)
                            raise NetlistError(_cycle([n for _, n in links[links.index((owner, needed)) :]]))
                        chain[owner, needed] = iter(sorted(owner.block.params[needed][0].names))
                        break
                else:
                    scope.values[wanted] = scope._value(wanted, definition)
                    del chain[scope, wanted]

    def _value(self, name: str, definition: Expression) -> Value:
        if name in self.evaluating:  # through a function: the names in its body are looked up when it is called
            raise NetlistError(_cycle(self.evaluating[self.evaluating.index(name) :]))
        self.evaluating.append(name)
        with labelled(f"parameter '{shown(name)}'"):
            value = self.evaluate(definition, of=name)
        self.evaluating.pop()
        if draws(self.block, definition):
            self.uses[name] = 0
        return value

    def number(self, word: str) -> Value:
        """The value of a word: a number, `{expression}`, or the name of a parameter. NetlistError without a place."""
        if word[0] == "{" or self.owner(word.lower()) is not None:
            return self.evaluate(expression(word))
        try:
            return parse_number(word)
        except ValueError as error:
            raise NetlistError(str(error)) from None

    def evaluate(self, definition: Expression, shape: tuple[int, ...] = (), of: str = "") -> Value:
        """The value of an expression here, or of the definition of parameter `of`; with a shape, random functions draw
        one value per element.

        Raises NetlistError, without a place unless the fault lies in the definition of a parameter.
        """
        lookup = partial(self._lookup_for, of) if of in definition.names else partial(self.lookup, uses=prod(shape))
        if isinstance(definition.tree, Name):
            return lookup(definition.tree.name)
        try:
            return evaluate(definition, lookup, self.block.all_functions, self.rng, shape)
        except ExpressionError as error:
            raise NetlistError(str(error)) from None
        except RecursionError:
            raise NetlistError("functions and parameters are nested too deeply; write them out") from None


def _undefined(name: str) -> str:
    return f"parameter '{shown(name)}' is not defined; add .param {shown(name)}=VALUE"


def _cycle(names: list[str]) -> str:
    chain = " -> ".join(map(shown, [*names, names[0]]))
    return f"parameters depend on each other: {chain}; give one of them a number"
