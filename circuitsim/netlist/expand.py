"""Cards -> Netlist: dot cards, subcircuit instances, roles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.arrays import member_names, split_ranges
from circuitsim.netlist.builder import Builder, check_duplicates, duplicate
from circuitsim.netlist.cards import CardReader
from circuitsim.netlist.model import Netlist, Options
from circuitsim.netlist.models import ModelTable
from circuitsim.netlist.numbers import parse_number
from circuitsim.netlist.scopes import Block, Scope, expression, sort_cards
from circuitsim.netlist.source import Card, Text
from circuitsim.netlist.tokens import split_keys, tokenize, unbrace

MAX_ELEMENTS = 50_000_000  # of an expanded netlist
_SKIPPED = frozenset(
    ".tran .ac .noise .tf .sens .pz .disto .four .fourier .meas .measure .plot .probe .width .sp .pss .hb".split()
)
_QUIET = frozenset({".op", ".end", ".title"})
_STARTS = frozenset({".ic", ".nodeset"})
_ROLES = frozenset({".input", ".output", ".train"})


def expand(text: Text, path: str) -> Netlist:
    """Resolve parameters, arrays and subcircuits of a netlist that was read."""
    return _Expansion(text, path).netlist()


class _Expansion:
    def __init__(self, text: Text, path: str) -> None:
        self.text = text
        self.path = path
        self.place = text.source.at
        self.notes: list[tuple[int, str]] = list(text.notes)
        self.builder = Builder()
        self.top = sort_cards(text.cards, self.place)
        self.title = text.title
        rng = np.random.default_rng(0)
        self.root = Scope(self.top, None, "", rng, self.place)
        self.options = self._options()
        self.root.rng = np.random.default_rng(self.options.seed)
        self.root.values["temper"] = self.options.temp
        self.models = ModelTable(self.place)
        self.roles: dict[str, list[tuple[Card, str]]] = {role: [] for role in _ROLES}
        self.saves: list[str] = []
        self.global_nodes = self._controls()

    def netlist(self) -> Netlist:
        self._check_size()
        reader = CardReader(self.builder, self.models, self.options, self.global_nodes, self._note)
        for card, scope, order in self._instances():
            reader.read(card, scope, order)
        check_duplicates(self.text.plain, self.builder.names, self.place)
        tables, crossbars, nodes = self.builder.tables(self.text.plain)
        netlist = Netlist(
            path=self.path,
            title=self.title,
            nodes=nodes,
            tables=tables,
            crossbars=crossbars,
            models=tuple(self.models.rows),
            arrays=self.builder.arrays,
            inputs=(),
            outputs=(),
            trained=(),
            saves=tuple(self.saves),
            options=self.options,
            notes=tuple((self.place(seq), remark) for seq, remark in sorted(self.notes)),
            source=self.text.source,
        )
        if not crossbars and not any(len(t) for t in tables.values()):
            raise NetlistError(f"{self.path}: no elements: line 1 is always the title, elements start at line 2")
        _check_values(netlist)
        return self._with_roles(netlist)

    def _note(self, seq: int, remark: str) -> None:
        self.notes.append((seq, remark))

    # -- dot cards -------------------------------------------------------------------------------------------------

    def _options(self) -> Options:
        """`.options` and `.temp`, the last word of each counting."""
        found: dict[str, float] = {}
        for card in self.top.controls:
            at = self.place(card.seq)
            if card.keyword in (".options", ".option", ".opt"):
                words = split_keys(tokenize(card.text, at), at)
                for key, word in words.keys.items():
                    if key in ("temp", "tnom", "gmin", "rshunt", "scale", "seed"):
                        found[key] = self._number(word, at, f"option '{key}'")
                    else:
                        self._note(card.seq, f"option '{key}' has no effect here")
                for word in words.words[1:]:
                    self._note(card.seq, f"option '{word}' has no effect here")
            elif card.keyword == ".temp":
                words = split_keys(tokenize(card.text, at), at)
                if len(words.words) != 2:
                    raise NetlistError(".temp needs one temperature in degree Celsius", at)
                found["temp"] = self._number(words.words[1], at, ".temp")
        seed = found.pop("seed", 0.0)
        if seed < 0 or seed != int(seed):
            raise NetlistError(f"option 'seed' must be a whole number from 0, found {seed:g}")
        return Options(seed=int(seed), **found)

    def _number(self, word: str, at: At, what: str) -> float:
        if word[0] == "{" or self.root.owner(word.lower()) is not None:
            return float(self.root.evaluate(expression(unbrace(word), at, what), at, what))
        try:
            return parse_number(word)
        except ValueError as error:
            raise NetlistError(f"{what} '{word}': {error}", at) from None

    def _controls(self) -> frozenset[str]:
        """All other dot cards; returns the global nodes."""
        global_nodes: set[str] = set()
        blocks = [self.top]
        while blocks:
            block = blocks.pop()
            blocks += block.subcircuits.values()
            for card in block.controls:
                key = card.keyword
                words = card.text.split()[1:]
                if key == ".global":
                    global_nodes |= {word.lower() for word in words}
                elif key in _ROLES:
                    self.roles[key] += [(card, word) for word in words]
                elif key in (".save", ".print"):
                    skip = key == ".print" and words and words[0].lower() in ("op", "dc", "tran", "ac", "noise")
                    self.saves += words[1:] if skip else words
                elif key in _SKIPPED:
                    self._note(card.seq, f"{key} is skipped: only the DC operating point is solved")
                elif key in _STARTS:
                    self._note(card.seq, f"{key} is ignored: the equilibrium does not depend on a starting point")
                elif key == ".title":
                    self.title = card.text[len(key) :].strip()
                elif key == ".dc":
                    raise NetlistError(".dc sweeps are not yet supported", self.place(card.seq))
                elif key not in _QUIET and key not in (".options", ".option", ".opt", ".temp"):
                    raise NetlistError(
                        f"{card.text.split()[0]} is not supported; supported: .model .param .func .subckt .ends "
                        ".include .lib .global .temp .options .ic .nodeset .op .save .print .input .output .train .end",
                        self.place(card.seq),
                    )
        return frozenset(global_nodes)

    # -- instances -------------------------------------------------------------------------------------------------

    def _instances(self) -> Iterator[tuple[Card, Scope, int]]:
        """All element cards but X, with their scopes, in deck order; instances are entered depth first."""
        stack = [(iter(self.top.elements), self.root, -1)]
        while stack:
            cards, scope, order = stack[-1]
            card = next(cards, None)
            if card is None:
                stack.pop()
            elif card.text[0] in "xX":
                inner = self._enter(card, scope)
                stack.append((iter(inner.block.elements), inner, card.seq if order < 0 else order))
            else:
                yield card, scope, card.seq if order < 0 else order

    def _called(self, card: Card, block: Block) -> tuple[list[str], dict[str, str], Block]:
        """The nodes, parameters and definition of an X card."""
        at = self.place(card.seq)
        words = split_keys([t for t in tokenize(card.text, at) if t.lower() != "params:"], at)
        name = words.words[0]
        if split_ranges(name)[1]:
            raise NetlistError(f"subcircuit {name}: arrays of subcircuits are not supported; write one X a line", at)
        if len(words.words) < 2:
            raise NetlistError(f"subcircuit {name}: needs nodes and a name: X1 n1 n2 NAME", at)
        called = words.words[-1].lower()
        found = block.find_subcircuit(called)
        if found is None:
            raise NetlistError(f"subcircuit {name}: no .subckt '{called}'; define it or include its file", at)
        nodes = words.words[1:-1]
        if len(nodes) != len(found.pins):
            raise NetlistError(
                f"subcircuit {name}: '{called}' has {len(found.pins)} pins ({' '.join(found.pins)}), "
                f"found {len(nodes)} nodes ({' '.join(nodes)})",
                at,
            )
        return nodes, words.keys, found

    def _enter(self, card: Card, scope: Scope) -> Scope:
        at = self.place(card.seq)
        nodes, keys, block = self._called(card, scope.block)
        name = tokenize(card.text, at)[0]
        path = f"{scope.path}.{name}" if scope.path else name
        earlier = self.builder.names.setdefault(path.lower(), card.seq)
        if earlier != card.seq:
            raise duplicate(path, earlier, card.seq, self.place)
        inner = Scope(block, scope, path, self.root.rng, self.place)
        inner.nodes = dict(zip(block.pins, nodes, strict=True))
        for key, word in keys.items():
            value = self._argument(scope, word, at, f"subcircuit {name}: {key}")
            if key == "m":
                inner.multiplier *= value
            if key in block.params or key != "m":
                inner.values[key] = value
        return inner

    @staticmethod
    def _argument(scope: Scope, word: str, at: At, what: str) -> float:
        if word[0] != "{" and scope.owner(word.lower()) is None:
            try:
                return parse_number(word)
            except ValueError:
                pass  # an expression without braces
        return float(scope.evaluate(expression(unbrace(word), at, what), at, what))

    def _check_size(self) -> None:
        """Refuse recursive subcircuits, and netlists that expand beyond MAX_ELEMENTS, before expanding any."""
        sizes: dict[int, int] = {}
        stack: list[tuple[Block, Card | None]] = [(self.top, None)]
        while stack:
            block, _ = stack[-1]
            total = 0
            for card in block.elements:
                if card.text[0] not in "xX":
                    total += 1
                    continue
                called = self._called(card, block)[2]
                if id(called) not in sizes:
                    chain = [b.name for b, _ in stack]
                    if any(b is called for b, _ in stack):
                        cycle = [*chain[next(i for i, (b, _) in enumerate(stack) if b is called) :], called.name]
                        raise NetlistError(f"subcircuit calls itself: {' -> '.join(cycle)}", self.place(card.seq))
                    stack.append((called, card))
                    break
                total += sizes[id(called)]
            else:
                sizes[id(block)] = total
                stack.pop()
                if total > MAX_ELEMENTS:
                    at = self.place(block.seq) if block.parent else None
                    raise NetlistError(
                        f"subcircuit '{block.name}' expands to {total:,} elements, more than {MAX_ELEMENTS:,}", at
                    )

    # -- roles -----------------------------------------------------------------------------------------------------

    def _with_roles(self, netlist: Netlist) -> Netlist:
        known = (
            {name.lower() for t in netlist.tables.values() for name in t.names} if any(self.roles.values()) else set()
        )
        known |= set(netlist.arrays)
        elements: dict[str, list[str]] = {".input": [], ".train": []}
        for role, chosen in elements.items():
            for card, word in self.roles[role]:
                if word.lower() not in known:
                    raise NetlistError(f"{role}: no element '{word}' in the netlist", self.place(card.seq))
                if role == ".input" and word[0].lower() not in "vi":
                    raise NetlistError(f".input: '{word}' is not a source (V or I)", self.place(card.seq))
                chosen.append(word)
        outputs: list[int] = []
        for card, word in self.roles[".output"]:
            base, ranges = split_ranges(word)
            for name in member_names(base, ranges):
                try:
                    outputs.append(netlist.node(name))
                except NetlistError as error:
                    raise NetlistError(f".output: {error.message}", self.place(card.seq)) from None
        return replace(
            netlist, inputs=tuple(elements[".input"]), outputs=tuple(outputs), trained=tuple(elements[".train"])
        )


def _check_values(netlist: Netlist) -> None:
    """What plain cards may still hold that no netlist may: a negative resistance."""
    from circuitsim.netlist.cards import negative_resistance

    table = netlist.tables["R"]
    bad = table.values["r"] < 0
    if bad.any():
        i = int(np.argmax(bad))
        raise NetlistError(negative_resistance(table.names[i], table.values["r"][i]), netlist.at(int(table.seq[i])))
