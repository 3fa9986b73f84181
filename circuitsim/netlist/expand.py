"""Cards -> Netlist: parameters, arrays and subcircuit instances resolved."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TypeAlias

import numpy as np

from circuitsim.errors import NetlistError
from circuitsim.netlist.alike import read_card
from circuitsim.netlist.analyses import read_analyses
from circuitsim.netlist.arrays import member_names
from circuitsim.netlist.builder import Builder
from circuitsim.netlist.cards import CardReader
from circuitsim.netlist.chance import Chance, NotTogether, OfInstances, Recorder, Together, mark, single
from circuitsim.netlist.checks import check_values, remarks
from circuitsim.netlist.controls import read_options, with_roles, with_seed
from circuitsim.netlist.deck import Call, Deck
from circuitsim.netlist.expressions import Value
from circuitsim.netlist.model import Netlist, Options, Swept
from circuitsim.netlist.models import ModelTable
from circuitsim.netlist.numbers import parse_number
from circuitsim.netlist.saves import saved_nodes
from circuitsim.netlist.scopes import Block, Scope, expression, note_draws
from circuitsim.netlist.source import Card, Text, with_remarks
from circuitsim.netlist.syntax import Name
from circuitsim.netlist.template import PATH, Template
from circuitsim.netlist.tokens import labelled, located, shown, starts_number

# Cards in groups (Deck.groups), with their scopes and the place of the top-level card (None: it is each card's own).
_Elements: TypeAlias = Iterator[tuple[list[Card], Scope, int | None]]
_SIGN = re.compile(r"negative (resistance|conductance)|not negative|must (not be negative|be positive)")
_EXPRESSION = re.compile("[{'@]")  # on a card whose value may be drawn
_SEVERAL = 10  # instances that are read at once; fewer take as long one by one


def expand(text: Text, path: str, seed: int | None = None) -> Netlist:
    """Resolve parameters, arrays and subcircuits of a netlist that was read; `seed` goes before `.options seed=`.

    Raises NetlistError, and SettingsError for a seed that no netlist can have.
    """
    deck = evaluation = None
    try:
        deck = Deck(text, path)
        with np.errstate(all="ignore"):  # the values are checked at the end
            evaluation = Evaluation(deck, Builder(deck.place), Changes(seed=seed))
            return _netlist(deck, evaluation)
    except NetlistError as error:
        error.seed = evaluation.drawn_seed if evaluation else error.seed
        if error.seed is not None and error.at and _EXPRESSION.search(error.at.text):
            error.message += cure_of_draws(error.message, error.seed)
        raise with_remarks(error, deck.remarks() if deck else text.notes, text.source.at) from None


def cure_of_draws(message: str, seed: int) -> str:
    """The end of an error message about a value that draws may have made negative; "" for another message."""
    if not _SIGN.search(message):
        return ""
    return f"; if it is drawn (here by seed {seed}), write {{max(0, ...)}}, or a lognormal {{g*exp(agauss(0, 0.1, 1))}}"


@dataclass(frozen=True)
class Changes:
    """Values that replace those of a netlist; for many netlists at once, arrays with a value for each (chance.py)."""

    seed: int | None = None
    temp: Value | None = None  # degree Celsius
    params: Mapping[str, Value] = field(default_factory=dict)  # of the main netlist, by lower-case name
    elements: Mapping[str, float] = field(default_factory=dict)  # CardReader.given

    @classmethod
    def at_point(cls, values: Iterable[tuple[Swept, float]]) -> Changes:
        """Those of a point of a sweep, of the value of each quantity that is swept."""
        temp = None
        params: dict[str, float] = {}
        elements: dict[str, float] = {}
        for swept, value in values:
            if swept.kind == "temp":
                temp = value
            else:
                (params if swept.kind == "param" else elements)[swept.name.lower()] = value
        return cls(temp=temp, params=params, elements=elements)

    def options(self, read: Options) -> Options:
        """The options of a netlist with these changes; many temperatures leave theirs. SettingsError for a bad seed."""
        options = with_seed(read, self.seed)
        return options if self.temp is None or np.ndim(self.temp) else replace(options, temp=float(self.temp))


@dataclass(frozen=True)
class _Instances:
    """Instances of a subcircuit in one scope, one after another: of an array, or of several X cards."""

    block: Block
    paths: list[str]
    nodes: list[list[str]]  # that each pin is connected to, at each instance
    given: dict[str, Value]  # one value for all, or one for each
    seqs: list[int]  # places of their X cards
    orders: list[int]  # places of the top-level cards


@dataclass(frozen=True)
class _First:
    """Of the first of many instances: what it draws, and how many of these were there before it was read."""

    recorder: Recorder
    crossbars: int
    controls: int


class Evaluation:
    """One evaluation of a deck: parameters and options at once, element rows by `run`."""

    def __init__(self, deck: Deck, builder: Builder, changes: Changes, chance: Chance | None = None) -> None:
        """`chance`: where to draw instead of from the seed's generator."""
        self.deck = deck
        self.builder = builder
        deck.check_changes(changes.params)
        rng = np.random.default_rng(0)
        before: Chance = rng
        if isinstance(chance, Together) and any(map(np.ndim, changes.params.values())):
            before = Together([rng] * chance.count, [])  # which does not draw: options are one number for all
        self.root = Scope(deck.top, None, "", before, deck.place)
        self.root.values.update(changes.params)
        self.options = changes.options(read_options(deck.cards, self.root, deck.note))
        temp = self.options.temp if changes.temp is None else changes.temp
        self.root.rng = chance or np.random.default_rng(self.options.seed)
        self.root.values["temper"] = temp
        try:
            for name in deck.top.params:  # in deck order: random draws do not depend on the order of their use
                self.root.settled(name)
        except NetlistError as error:
            error.seed = self.drawn_seed
            raise
        self.models = ModelTable(deck.place, deck.note)
        global_nodes = frozenset(deck.controls.global_nodes)
        self.reader = CardReader(builder, self.models, self.options, temp, global_nodes, deck.memory, changes.elements)

    @property
    def drawn_seed(self) -> int | None:
        """The seed of what was drawn so far; None if nothing was."""
        seed = self.options.seed
        return None if mark(self.root.rng) == mark(np.random.default_rng(seed)) else seed

    def run(self) -> None:
        """Read all element cards into the builder."""
        if self.deck.top not in self.deck.groups:
            self.deck.check_size()
        self._read(zip(self.deck.groups[self.deck.top], repeat(self.root), repeat(None)))

    def _read(self, elements: _Elements) -> None:
        """Read element cards in deck order; instances are entered depth first."""
        stack = [elements]
        while stack:
            for cards, scope, order in stack[-1]:
                card = cards[0]
                if card.text[0] in "xX":
                    stack.append(self._inside(cards, scope, order))
                    break
                try:
                    read_card(self.reader, self.deck.notes, card, scope, card.seq if order is None else order)
                except NetlistError as error:  # `located` would cost a third of the time
                    error.at = error.at or self.deck.place(card.seq)
                    raise
            else:
                stack.pop()

    def _inside(self, cards: list[Card], scope: Scope, order: int | None) -> _Elements:
        """The element cards of the instances that a group of X cards makes, which may be read at once."""
        first = self._first(scope, self.deck.call(cards[0], scope.block).block, len(cards))
        for k, card in enumerate(cards):
            if k == 1 and first:
                others = self._others(cards, scope, order)
                if others and self._read_others(others, scope, first):
                    break
            yield from self._of_card(card, scope, card.seq if order is None else order, None if k else first)

    def _of_card(self, card: Card, scope: Scope, order: int, first: _First | None) -> _Elements:
        """The element cards of the instances that one X card makes; those of an array may be read at once.

        first: known of its only instance when others are to be read like it.
        """
        with located(self.deck.place, card.seq):
            call = self.deck.call(card, scope.block)
            path = _path(scope, call)
            self.builder.claim(path, card.seq)
            given: dict[str, Value] = {}
            for key, word in call.keys.items():
                with labelled(f"subcircuit {shown(path + call.bounds)}: {shown(key)}"):
                    if key in call.block.params or key == "m":
                        given[key] = self._argument(scope, word, card.seq, call.shape)
            paths = member_names(path, call.ranges)
            first = first or self._first(scope, call.block, len(paths))
            for k, name in enumerate(paths):
                if k == 1 and first:
                    nodes = [at_pin[1:] for at_pin in call.nodes]
                    values = _of_members(given, call, scope, slice(1, None))
                    seqs, orders = [card.seq] * len(paths[1:]), [order] * len(paths[1:])
                    if self._read_others(_Instances(call.block, paths[1:], nodes, values, seqs, orders), scope, first):
                        break
                if call.ranges:
                    self.builder.claim(name, card.seq)
                pins = {pin: nodes[k] for pin, nodes in zip(call.block.pin_names, call.nodes, strict=True)}
                inner = self._instance(call.block, scope, name, pins, _of_members(given, call, scope, k))
                if k == 0 and first:
                    inner.rng = first.recorder  # with which an array inside is read one by one
                yield from zip(self.deck.groups[inner.block], repeat(inner), repeat(order))

    def _first(self, scope: Scope, block: Block, count: int) -> _First | None:
        """What is known before the first of many instances in `scope` is read.

        None where all are read one by one: few, or fewer than can be read at once inside each of them.
        """
        several = count >= _SEVERAL and count >= self.deck.widest[block]
        if not several or not isinstance(scope.rng, np.random.Generator) or self.reader.given:
            return None
        return _First(Recorder(scope.rng), len(self.builder.crossbars), len(self.builder.controls))

    def _others(self, cards: list[Card], scope: Scope, order: int | None) -> _Instances | None:
        """The instances that a group of X cards makes but for the first.

        None where to evaluate an argument might draw, or one that must be the same for all is not.
        """
        calls = [self.deck.call(card, scope.block) for card in cards]
        block, given = calls[0].block, {}
        for key in [key for key in calls[0].keys if key in block.params or key == "m"]:
            try:
                values = np.array([_settled(scope, call.keys[key]) for call in calls])
            except (NotTogether, NetlistError, ValueError):
                return None
            same = np.unique(values.view(np.int64)).size == 1  # -0 is not 0
            if key not in block.params and not same:
                return None
            given[key] = float(values[0]) if same else values[1:]
        paths = [_path(scope, call) for call in calls[1:]]
        nodes = [[name for [name] in at_pin] for at_pin in zip(*(call.nodes for call in calls[1:]), strict=True)]
        seqs = [card.seq for card in cards[1:]]
        return _Instances(block, paths, nodes, given, seqs, seqs if order is None else [order] * len(seqs))

    def _read_others(self, others: _Instances, scope: Scope, first: _First) -> bool:
        """Read all instances but the first at once.

        False where they must be read one by one: with crossbars and currents of sources inside, where how often a
        parameter outside is used, or how much is drawn, depends on the instance, or one is at fault. Then values, draws
        and models are as before; remarks and counted uses stay, as reading one by one finds them as well.
        """
        if (len(self.builder.crossbars), len(self.builder.controls)) != (first.crossbars, first.controls):
            return False
        models, rng, count = len(self.models.rows), first.recorder.rng, len(others.paths)
        state, known = rng.bit_generator.state, [(outer, len(outer.values)) for outer in _outwards(scope)]
        template = Template(self.deck.place, count)
        pins = {pin: template.pin(k) for k, pin in enumerate(others.block.pin_names)}
        at_once = copy(self)
        at_once.builder, at_once.reader = template, self.reader.into(template)
        try:
            outside = [[self.reader.full_name(scope, name) for name in nodes] for nodes in others.nodes]
            inner = self._instance(others.block, scope, PATH, pins, others.given)
            inner.rng = drawing = OfInstances(rng, count, first.recorder.drawn)
            at_once._read(zip(self.deck.groups[inner.block], repeat(inner), repeat(0)))  # places: see copy_into
            if any(len(outer.values) > had for outer, had in known):  # when, depends on the instance
                raise NotTogether
            if drawing.at < len(drawing.drawn):  # less than the first drew
                raise NotTogether
        except (NotTogether, NetlistError, ValueError):  # ValueError: the member at fault may not be found
            del self.models.rows[models:]
            rng.bit_generator.state = state
            for outer, had in known:
                outer.evaluating.clear()
                while len(outer.values) > had:
                    outer.values.popitem()
            return False
        own = self.models.rows[models:]
        self.models.rows[models:] = [model.of(k) if model.varied else model for k in range(count) for model in own]
        places = others.seqs, others.orders
        template.copy_into(self.builder, others.paths, outside, range(models, models + len(own)), *places)
        return True

    def _instance(
        self, block: Block, scope: Scope, path: str, pins: dict[str, str], given: Mapping[str, Value]
    ) -> Scope:
        """The scope of an instance in `scope`: its nodes outside, and the values that it is given."""
        inner = Scope(block, scope, path, scope.rng, self.deck.place)
        if block.multiplied and not scope.block.multiplied:
            inner.values["m"] = 1.0
        inner.pins = pins
        for key, value in given.items():
            if key in block.params:
                inner.values[key] = value
                block.given.add(key)
                continue
            with labelled(f"subcircuit {shown(path)}: m"):
                m = single(value)
                if m < 0:
                    raise NetlistError(f"{m:g} must not be negative")
                inner.multiplier *= m
                inner.values["m"] = m  # expressions inside may use it, as in ngspice
        return inner

    def _argument(self, scope: Scope, word: str, seq: int, shape: tuple[int, ...]) -> Value:
        """The value that an X card gives to a parameter; an expression may stand there without its braces."""
        if word[0] == "@":
            return self.reader.from_file(word, seq, shape, scope.rng)
        if starts_number(word):
            try:
                return parse_number(word)
            except ValueError as error:
                if word[1:].isalnum():
                    raise NetlistError(str(error)) from None
        return scope.evaluate(expression(word), shape)


def _of_members(given: Mapping[str, Value], call: Call, scope: Scope, which: int | slice) -> dict[str, Value]:
    """What an instance of an array in `scope`, or several of them, are given."""
    several = len(call.ranges) + isinstance(scope.rng, Together)  # axes of what differs between the instances
    found = dict(given)
    for key, values in given.items():
        if call.ranges and np.ndim(values) == several:
            value = np.reshape(values, (-1, *np.shape(values)[len(call.ranges) :]))[which]
            found[key] = float(value.item()) if np.size(value) == 1 else value  # of a file: the same for all netlists
    return found


def _path(scope: Scope, call: Call) -> str:
    """The path of what a call in `scope` makes, without ranges."""
    return f"{scope.path}.{call.name}" if scope.path else call.name


def _settled(scope: Scope, word: str) -> Value:
    """The value of an argument that is a number, or the name of a parameter that has its value and does not draw.

    NotTogether, ValueError or NetlistError for others.
    """
    if starts_number(word):
        return parse_number(word)
    tree = expression(word).tree
    name = tree.name if isinstance(tree, Name) else ""
    owner = scope.owner(name)
    if owner is None or name not in owner.values or name in owner.uses:  # one without a value yet may draw
        raise NotTogether
    return single(owner.values[name])


def _outwards(scope: Scope | None) -> Iterator[Scope]:
    """A scope, and those outside it."""
    while scope is not None:
        yield scope
        scope = scope.parent


def _netlist(deck: Deck, evaluation: Evaluation) -> Netlist:
    """The netlist of a first evaluation."""
    evaluation.run()
    note_draws(deck.top, deck.note)
    builder, options, controls = evaluation.builder, evaluation.options, deck.controls
    tables, crossbars, nodes = builder.tables(deck.text.plain)
    if not crossbars and not any(len(t) for t in tables.values()):
        skipped = "".join(f"; {remark}" for seq, remark in deck.notes if seq)
        raise NetlistError(f"no elements: line 1 is always the title, elements start at line 2{skipped}", deck.place(0))
    check_values(tables, deck.place)
    netlist = Netlist(
        path=deck.path,
        title=deck.text.title if controls.title is None else controls.title,
        nodes=nodes,
        tables=tables,
        crossbars=crossbars,
        models=tuple(evaluation.models.rows),
        arrays=builder.arrays,
        inputs=(),
        outputs=(),
        references=(),
        trained=(),
        saves=tuple(word for _, word in controls.saves),
        analyses=(),
        options=options,
        notes=(),
        text=replace(deck.text, plain=[], files=deck.memory.files, arrays={}),
    )
    netlist = with_roles(netlist, controls.roles, deck.place)
    read = np.array(
        [*netlist.outputs, *netlist.references, *saved_nodes(netlist, controls.saves, deck.place)], np.int64
    )
    shunted = np.isfinite(options.rshunt)
    found = deck.remarks() + remarks(tables, crossbars, nodes, builder.node_index, builder.arrays, read, shunted)
    notes = sorted(found, key=lambda note: note[0])  # those of one place as they were made
    return replace(
        netlist,
        analyses=read_analyses(controls.analyses, netlist, evaluation.root),
        notes=tuple((deck.place(seq), remark) for seq, remark in notes),
    )
