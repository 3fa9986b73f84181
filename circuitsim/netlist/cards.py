"""What all element cards have in common: a name, nodes, values. elements.py uses it to read each kind."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from circuitsim.errors import NetlistError
from circuitsim.netlist.arrays import (
    array_name,
    at_members,
    bounds_of,
    lengths,
    member_names,
    split_ranges,
    spread,
)
from circuitsim.netlist.builder import Builder
from circuitsim.netlist.chance import Chance, NotTogether, Together, single
from circuitsim.netlist.datafile import check_shape, load_values
from circuitsim.netlist.expressions import Value
from circuitsim.netlist.model import ModelCard, Options
from circuitsim.netlist.models import ModelTable
from circuitsim.netlist.numbers import atto_remark, braced, parse_number
from circuitsim.netlist.scopes import Scope, expression, fold
from circuitsim.netlist.source import Card, first_word
from circuitsim.netlist.tokens import (
    Words,
    comma_hint,
    labelled,
    one_name_each,
    shown,
    split_keys,
    starts_number,
    tokenize,
)

NOUNS = {
    "R": "resistor", "V": "voltage source", "I": "current source", "D": "diode", "L": "inductor", "C": "capacitor",
    "K": "coupling", "E": "voltage-controlled voltage source", "F": "current-controlled current source",
    "G": "voltage-controlled current source", "H": "current-controlled voltage source", "N": "nonlinear resistor",
}  # fmt: skip
_UNITS = frozenset("ohm ohms v volt volts a amp amps ampere amperes s siemens mho mhos".split())
_SYNONYMS = {"resistance": "r", "tc": "tc1"}
_KEYS = {
    "R": frozenset("r resistance g m scale temp dtemp tc tc1 tc2 tce l w".split()),
    "D": frozenset({"area", "m", "temp", "dtemp"}),
    **dict.fromkeys("EH", frozenset({"gain"})),
    **dict.fromkeys("FG", frozenset({"gain", "m"})),
    "N": frozenset({"m"}),
}
_IGNORED = frozenset("ac noisy noise ic off pj tol pwr bv_max".split())  # keys that do not change the operating point
_WITHOUT_EQUALS = {kind: keys | _IGNORED - {"off"} for kind, keys in _KEYS.items()}
_POSITIONAL = {"R": 2, **dict.fromkeys("DFHN", 3), **dict.fromkeys("EG", 4)}  # words before a key without its `=`
_PARENTHESES = re.compile(r"[^{'\"=]*?[\s,(]((?:net|unconnected)-\([^\s,(){}'\"=]+\))", re.IGNORECASE)  # of KiCad
_INFINITE = frozenset({"inf", "infinity"})


@dataclass(frozen=True)
class Pattern:
    """A card split into words; those of a subcircuit are split once for all instances."""

    kind: str  # R V I D L C K E F G H N
    name: str  # as on the card, with its ranges
    base: str
    ranges: tuple[range, ...]
    words: Words


@dataclass
class Element:
    """One element card being read, in one instance of its block."""

    card: Card
    pattern: Pattern
    scope: Scope
    order: int  # place of the top-level card
    base: str  # the name in full, without ranges: `R1`, or `R.X1.R1` inside an instance

    @property
    def words(self) -> list[str]:
        return self.pattern.words.words

    @property
    def ranges(self) -> tuple[range, ...]:
        return self.pattern.ranges

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(r) for r in self.pattern.ranges)

    @property
    def label(self) -> str:
        """`resistor R.X1.R1`, as messages begin."""
        return f"{NOUNS[self.pattern.kind]} {shown(self.base + self.pattern.name[len(self.pattern.base) :])}"

    def member(self, index: int) -> str:
        """`resistor RW[3][4]`: one of the array's elements, by its place in flattened order."""
        position = np.unravel_index(index, self.shape) if self.ranges else ()
        indices = "".join(f"[{r[int(i)]}]" for r, i in zip(self.ranges, position, strict=True))
        return f"{NOUNS[self.pattern.kind]} {shown(self.base)}{indices}"


@dataclass
class Memory:
    """What was read and taken apart before. Once the cards are to be read again and again, `everything` is kept."""

    everything: bool = False
    patterns: dict[int, Pattern] = field(default_factory=dict)  # by place; else only those inside subcircuits
    files: dict[tuple[str, Path], NDArray[np.float64]] = field(default_factory=dict)  # as Text.files
    arrays: Mapping[tuple[str, Path], NDArray[np.float64]] = field(default_factory=dict)  # as Text.arrays


class CardReader:
    """Reads the parts of element cards in their scope; knows what is shared by the whole netlist.

    `temp`: of the circuit, degree Celsius. `given`: values of V (volt), I (ampere) and R (ohm) by lower-case name, in
    the place of those of their cards.
    """

    def __init__(
        self,
        builder: Builder,
        models: ModelTable,
        options: Options,
        temp: Value,
        global_nodes: frozenset[str],
        memory: Memory,
        given: Mapping[str, float],
    ) -> None:
        self.builder = builder
        self.models = models
        self.options = options
        self.temp = temp
        self.global_nodes = global_nodes
        self.memory = memory
        self.given = given

    def into(self, builder: Builder) -> CardReader:
        """The same, for nodes of another builder."""
        reader = copy(self)
        reader.builder = builder
        return reader

    def element(self, kind: str, card: Card, scope: Scope, order: int) -> Element:
        """A card taken apart; its name is claimed in the netlist."""
        if scope.path or self.memory.everything:
            known = self.memory.patterns.get(card.seq)
            pattern = known or self.memory.patterns.setdefault(card.seq, _pattern(kind, card.text))
        else:
            pattern = _pattern(kind, card.text)
        base = f"{kind}.{scope.path}.{pattern.base}" if scope.path else pattern.base
        self.builder.claim(base, card.seq)
        return Element(card, pattern, scope, order, base)

    def remark(self, e: Element, text: str) -> None:
        """A remark about a card."""
        self.models.note(e.card.seq, f"{NOUNS[e.pattern.kind]} {shown(e.pattern.name)}{text}")

    # -- nodes -----------------------------------------------------------------------------------------------------

    def node(self, e: Element, name: str) -> int:
        """The node that `name` means to an element: a pin, a local node, a global one or ground."""
        nodes = e.scope.nodes
        index = nodes.get(name)
        if index is None:
            if name[0] in '{"':
                raise NetlistError(f"{e.label}: {shown(name)} is not a node name; write a plain name")
            index = nodes[name] = self.builder.node(self.full_name(e.scope, name, e), e.order)
        return index

    def full_name(self, scope: Scope, name: str, e: Element | None = None) -> str:
        """What the node `name` of a scope is called in the netlist. `e`: which element a remark may be about.

        Without one NotTogether where there is a remark.
        """
        while scope.parent is not None:
            key = fold(name)
            if key == "0":
                return key
            if key in self.global_nodes:
                if key in scope.pins:
                    if e is None:
                        raise NotTogether
                    self.remark(e, f": pin '{shown(name)}' has the name of a .global node and is that node")
                break
            if key not in scope.pins:
                return f"{scope.path}.{name}"
            name, scope = scope.pins[key], scope.parent
        return name

    def lines(self, e: Element) -> tuple[list[int], list[int]] | None:
        """The nodes of a crossbar's rows and columns, one range each; None where nodes are given member by member."""
        counts = [len(lengths(split_ranges(word)[1])) for word in e.words[:2]]
        if max(counts) > 1:
            return None
        for word, count, indices in zip(e.words, counts, e.ranges, strict=False):
            if not count:
                raise NetlistError(
                    f"{e.label}: a crossbar needs a range on both nodes, found '{shown(word)}'; "
                    f"write {shown(word)}{bounds_of([indices])}, or one range in the name"
                )
        return self._named(e, e.words[0], 0), self._named(e, e.words[1], 1)

    def ends(self, e: Element) -> tuple[list[int], list[int]]:
        """The nodes at both ends of an array's members, those of two ranges row by row."""
        if len(e.ranges) == 2:
            self.lines(e)  # refuses what is neither
        return self.nodes(e, e.words[0], 0), self.nodes(e, e.words[1], 1)

    def nodes(self, e: Element, word: str, side: int) -> list[int]:
        """The node that a word stands for at each member of an array (arrays.at_members)."""
        return at_members(self._named(e, word, side), e.ranges, side)

    def _named(self, e: Element, word: str, side: int) -> list[int]:
        return [self.node(e, name) for name in self.spread(e, word, side, "node")]

    def spread(self, e: Element, word: str, side: int, what: str) -> list[str]:
        """See arrays.spread."""
        with labelled(e.label):
            return spread(word, e.ranges, side, what)

    # -- values ----------------------------------------------------------------------------------------------------

    def value(self, e: Element, word: str, what: str, shape: tuple[int, ...] | None = None) -> Value:
        """A value word: number, `{expression}`, parameter name, or `@file`; one value or, for arrays, one a member."""
        if not starts_number(word):
            try:
                if word[0] == "@":
                    return self.from_file(word, e.card.seq, e.shape, e.scope.rng)
                if word[0] == "{" or self.names_parameter(e.scope, word):
                    definition = expression(word)
                    for remark in definition.remarks:
                        self.remark(e, f": {remark}")
                    return e.scope.evaluate(definition, e.shape if shape is None else shape)
            except NetlistError as error:
                if error.at is None:
                    error.message = f"{e.label}: {what}: {error.message}"
                raise
        try:
            number = parse_number(word)
            if word[-1].isalpha() and (remark := atto_remark(word, number)):
                self.remark(e, f": {remark}")
            return number
        except ValueError as error:
            if word.lstrip("+-").lower() in _INFINITE:
                return -math.inf if word[0] == "-" else math.inf
            if word.isidentifier() and word.lower() != "nan":
                raise NetlistError(
                    f"{e.label}: {what} '{shown(word)}' is neither a number nor a parameter; "
                    f"write digits, such as 4.7k, or define .param {shown(word)}=VALUE"
                ) from None
            raise NetlistError(f"{e.label}: {what} {error}") from None

    def from_file(self, word: str, seq: int, shape: tuple[int, ...], chance: Chance) -> NDArray[np.float64]:
        """The values behind `@file` on the card at place `seq`."""
        folder = Path(self.models.place(seq).path).parent
        if (word, folder) not in self.memory.files:
            given = self.memory.arrays.get((word, folder))
            self.memory.files[word, folder] = load_values(word, folder) if given is None else given
        values = self.memory.files[word, folder]
        check_shape(word, values, shape)
        return values[..., None] if values.ndim and isinstance(chance, Together) else values

    def replaced(self, e: Element, value: Value) -> Value:
        """`value` of a V, I or R card with what is `given` in its place: for all of it, or for members of an array."""
        whole = self.given.get(e.base.lower())
        if whole is not None or not e.ranges:
            return value if whole is None else whole
        members = [name.lower() for name in member_names(e.base, e.ranges)]
        chosen = [k for k, name in enumerate(members) if name in self.given]
        if not chosen:
            return value
        values = np.array(np.broadcast_to(value, e.shape), np.float64)
        values.reshape(-1)[chosen] = [self.given[members[k]] for k in chosen]
        return values

    def number(self, e: Element, word: str, what: str) -> float:
        """A value word that means one number for all members."""
        return single(self.value(e, word, what, shape=()))

    @staticmethod
    def names_parameter(scope: Scope, word: str) -> bool:
        return scope.owner(word.lower()) is not None

    def is_value(self, scope: Scope, word: str) -> bool:
        return starts_number(word) or word[0] == "{" or self.names_parameter(scope, word)

    def keys(self, e: Element) -> dict[str, Value]:
        """The values of the `key=value` pairs of an element, each key checked."""
        found: dict[str, Value] = {}
        for key, word in e.pattern.words.keys.items():
            if key in _KEYS[e.pattern.kind]:
                found[key] = self.value(e, word, key)
            elif key not in _IGNORED:
                raise unknown_key(e, key, _KEYS[e.pattern.kind])
        with labelled(e.label):
            return one_name_each(found, _SYNONYMS)

    def temperature(self, keys: dict[str, Value]) -> Value:
        """The temperature of an element in degree Celsius."""
        return keys["temp"] if "temp" in keys else self.temp + keys.get("dtemp", 0.0)

    def model(self, scope: Scope, name: str) -> tuple[int, ModelCard] | None:
        """The model of this name, and its row."""
        row = self.models.find(scope, name)
        return None if row is None else (row, self.models.rows[row])


def _pattern(kind: str, text: str) -> Pattern:
    try:
        if "-(" in text and (match := _PARENTHESES.match(text)):
            name = match.group(1)
            raise NetlistError(
                f"parentheses separate words, as in '{shown(name)}'; rename such a node: "
                f"{shown(name.replace('(', '_').replace(')', '_'))}"
            )
        tokens = tokenize(text)
        if kind == "R":
            tokens = _two_coefficients(tokens)
        elif kind in "VI" and "=" in tokens:
            tokens = _with_phase(tokens)
        base, ranges = array_name(tokens[0], 1 if kind in "EFGH" else 2)
        words = split_keys(tokens[1:], _WITHOUT_EQUALS.get(kind, ()), _POSITIONAL.get(kind, 0))
        if len(words.words) < 2 and kind != "K":
            assigned = next((f" and '{shown(key)} = {shown(word)}'" for key, word in words.keys.items()), "")
            without = ", without = before a value" if assigned else ""
            raise NetlistError(
                f"needs two nodes, found {len(words.words)}{assigned}; write {shown(base)} n1 n2 ...{without}"
            )
    except NetlistError as error:
        error.message = f"{NOUNS[kind]} {shown(first_word(text))}: {error.message}"
        raise
    keys = {key: braced(word) for key, word in words.keys.items()}
    return Pattern(kind, tokens[0], base, ranges, Words(words.words, keys))


def _two_coefficients(tokens: list[str]) -> list[str]:
    """`tc=1m 1u` (or with a comma) as `tc1=1m tc2=1u`."""
    for k, token in enumerate(tokens[:-3]):
        second = tokens[k + 3]
        if token.lower() == "tc" and tokens[k + 1] == "=" and (starts_number(second) or second[0] == "{"):
            return [*tokens[:k], "tc1", "=", tokens[k + 2], "tc2", "=", second, *tokens[k + 4 :]]
    return tokens


def _with_phase(tokens: list[str]) -> list[str]:
    """`ac=1 90`, behind the nodes, as `ac 1 90`: what follows is a phase, no DC value."""
    for k in range(3, len(tokens) - 2):
        if tokens[k].lower() == "ac" and tokens[k + 1] == "=":
            return [*tokens[: k + 1], *tokens[k + 2 :]]
    return tokens


def extra_word(e: Element, what: str, word: str) -> NetlistError:
    """The error for a word too many."""
    hint = comma_hint(e.card.text)
    if word[0] in "#*":
        hint = " (a comment behind a card begins with ; or $)"
    elif word.lower() in _UNITS:
        hint = f" (write a unit without a blank before it, 1{word}, or leave it out)"
    return NetlistError(f"{e.label}: one {what} expected, found '{shown(word)}' as well{hint}")


def unknown_key(e: Element, key: str, supported: Collection[str]) -> NetlistError:
    """The error for a `key=value` that this kind of element does not have."""
    return NetlistError(
        f"{e.label}: parameter '{shown(key)}' is not supported; supported: {', '.join(sorted(supported))}"
    )
