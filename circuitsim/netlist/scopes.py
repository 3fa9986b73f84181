"""Definitions (`.subckt .param .func .model`) as blocks, and the values that names have in each instance of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.expressions import Expression, ExpressionError, UserFunction, evaluate, parse_expression
from circuitsim.netlist.source import Card
from circuitsim.netlist.tokens import assignments, split_keys, tokenize, unbrace

Place = Callable[[int], At]
Value = "float | np.ndarray"


@dataclass
class Block:
    """The main netlist or a subcircuit definition: its cards, sorted by what they define."""

    name: str
    parent: Block | None = None
    pins: tuple[str, ...] = ()
    seq: int = 0
    elements: list[Card] = field(default_factory=list)
    controls: list[Card] = field(default_factory=list)  # dot cards that belong to the whole netlist
    params: dict[str, tuple[Expression, int]] = field(default_factory=dict)
    functions: dict[str, UserFunction] = field(default_factory=dict)
    models: dict[str, Card] = field(default_factory=dict)
    subcircuits: dict[str, Block] = field(default_factory=dict)

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

    def all_functions(self) -> dict[str, UserFunction]:
        outer = self.parent.all_functions() if self.parent else {}
        return {**outer, **self.functions}


def expression(text: str, at: At, what: str) -> Expression:
    """Parse an expression; NetlistError with the place and `what` it is for."""
    try:
        return parse_expression(text)
    except ExpressionError as error:
        raise NetlistError(f"{what}: {error}", at) from None


def sort_cards(cards: list[Card], place: Place) -> Block:
    """Build the tree of blocks from the cards in deck order."""
    top = block = Block("main")
    for card in cards:
        key = card.keyword
        if not key.startswith("."):
            block.elements.append(card)
        elif key in (".subckt", ".macro"):
            block = _open_subcircuit(card, block, place(card.seq))
        elif key in (".ends", ".eom"):
            if block.parent is None:
                raise NetlistError(f"{key} without a .subckt before it", place(card.seq))
            block = block.parent
        elif key == ".param":
            for name, text in assignments(card.text[len(key) :], place(card.seq)):
                block.params[name] = (expression(text, place(card.seq), f"parameter '{name}'"), card.seq)
        elif key == ".func":
            function = _function(card, place(card.seq))
            block.functions[function.name] = function
        elif key == ".model":
            words = tokenize(card.text, place(card.seq))
            if len(words) < 3:
                raise NetlistError(".model needs a name and a type: .model NAME D(IS=1e-14)", place(card.seq))
            block.models[words[1].lower()] = card
        else:
            block.controls.append(card)
    if block.parent is not None:
        raise NetlistError(f"subcircuit '{block.name}' has no .ends", place(block.seq))
    return top


def _open_subcircuit(card: Card, parent: Block, at: At) -> Block:
    words = split_keys([t for t in tokenize(card.text, at) if t.lower() != "params:"], at)
    if len(words.words) < 2:
        raise NetlistError(".subckt needs a name: .subckt NAME pin1 pin2 ...", at)
    name = words.words[1].lower()
    pins = tuple(_fold(pin) for pin in words.words[2:])
    for pin in pins:
        if pins.count(pin) > 1:
            raise NetlistError(f"subcircuit '{name}': pin '{pin}' appears twice", at)
    if name in parent.subcircuits:
        raise NetlistError(f"subcircuit '{name}' is defined twice", at)
    block = Block(name, parent, pins, card.seq)
    for key, text in words.keys.items():
        block.params[key] = (expression(unbrace(text), at, f"parameter '{key}'"), card.seq)
    parent.subcircuits[name] = block
    return block


def _fold(node: str) -> str:
    key = node.lower()
    return "0" if key == "gnd" else key


def _function(card: Card, at: At) -> UserFunction:
    head, paren, rest = card.text[len(".func") :].partition("(")
    arguments, closing, body = rest.partition(")")
    if not paren or not closing or not body.strip(" ="):
        raise NetlistError(".func needs the form .func NAME(x, y) {expression}", at)
    name = head.strip().lower()
    names = tuple(a.strip().lower() for a in arguments.split(",") if a.strip())
    return UserFunction(name, names, expression(unbrace(body.strip(" =")), at, f"function '{name}'"))


class Scope:
    """One instance of a block: what each name means there. Names are looked up outwards, instance by instance."""

    def __init__(self, block: Block, parent: Scope | None, path: str, rng: np.random.Generator, place: Place) -> None:
        self.block = block
        self.parent = parent
        self.path = path  # "X1.X2" or "" at the top
        self.rng = rng
        self.place = place
        self.values: dict[str, float] = {}
        self.nodes: dict[str, str] = {}  # pin -> outer node
        self.multiplier: float = parent.multiplier if parent else 1.0
        self.functions = block.all_functions()
        self.model_rows: dict[str, int] = {}

    def owner(self, name: str) -> Scope | None:
        """The innermost scope that gives `name` a meaning."""
        scope: Scope | None = self
        while scope is not None and name not in scope.values and name not in scope.block.params:
            scope = scope.parent
        return scope

    def lookup(self, name: str, at: At) -> float:
        """The value of a parameter; evaluates what it depends on first, without recursion."""
        stack: list[tuple[Scope, str]] = [(self, name)]
        while stack:
            scope, wanted = stack[-1]
            owner = scope.owner(wanted)
            if owner is None:
                place = at
                if len(stack) > 1:
                    user, user_name = stack[-2]
                    holder = user.owner(user_name)
                    assert holder is not None
                    place = self.place(holder.block.params[user_name][1])
                raise NetlistError(f"parameter '{wanted}' is not defined; add .param {wanted}=...", place)
            if wanted in owner.values:
                stack.pop()
                continue
            definition, seq = owner.block.params[wanted]
            missing = [
                (owner, n)
                for n in sorted(definition.names)
                if (holder := owner.owner(n)) is None or n not in holder.values
            ]
            if missing:
                names = [(s.owner(n), n) for s, n in stack]
                key = (missing[0][0].owner(missing[0][1]), missing[0][1])
                if key in names:
                    chain = [n for _, n in names[names.index(key) :]] + [key[1]]
                    raise NetlistError(f"parameters depend on each other: {' -> '.join(chain)}", self.place(seq))
                stack.append(missing[0])
                continue
            owner.values[wanted] = float(owner.evaluate(definition, self.place(seq), f"parameter '{wanted}'"))
            stack.pop()
        owner = self.owner(name)
        assert owner is not None
        return owner.values[name]

    def evaluate(self, definition: Expression, at: At, what: str, shape: tuple[int, ...] = ()) -> float | np.ndarray:
        """The value of an expression here; with a shape, random functions draw one value per element."""
        try:
            return evaluate(definition, lambda name: self.lookup(name, at), self.functions, self.rng, shape)
        except ExpressionError as error:
            raise NetlistError(f"{what}: {error}", at) from None
