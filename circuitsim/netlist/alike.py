"""Element cards that differ in their names and nodes alone, as scripts write them: two are read, others copied.

Once a second card with the same text behind its nodes has been read, and nothing was drawn or remarked upon, further
ones have the values of the second.
"""

from __future__ import annotations

import re
from collections.abc import Sized

from circuitsim.netlist.cards import CardReader, Element, Pattern
from circuitsim.netlist.chance import mark
from circuitsim.netlist.elements import read_element
from circuitsim.netlist.expressions import Value
from circuitsim.netlist.scopes import Scope, Tail
from circuitsim.netlist.source import Card
from circuitsim.netlist.tokens import Words

_PLAIN = r"[^\s,=(){}'\":]"
# Not with @file, which means another file in another folder.
_CARD = re.compile(rf"([RVIDLCNrvidlcn]{_PLAIN}*)\s+({_PLAIN}+)\s+({_PLAIN}+)\s+(?=[^\s=])([^@\n]{{1,200}})")
_MOST = 10_000  # texts that a scope keeps


def read_card(reader: CardReader, notes: Sized, card: Card, scope: Scope, order: int) -> None:
    """Read one card as `read_element` does; `notes`: the remarks so far."""
    match = None if reader.given else _CARD.fullmatch(card.text)  # values are given to elements by name
    if match is None:
        read_element(reader, card, scope, order)
        return
    name, *nodes, text = match.groups()
    kind = name[0].upper()
    tail = scope.tails.get((kind, text))
    if tail is None:
        tail = Tail()
        if len(scope.tails) < _MOST:
            scope.tails[kind, text] = tail
    if tail.values is not None:
        _copy(reader, card, scope, order, kind, name, nodes, tail.values)
        return
    tail.readings += 1
    if tail.readings != 2:
        read_element(reader, card, scope, order)
        return
    before = len(notes), mark(scope.rng)
    read_element(reader, card, scope, order)
    if (len(notes), mark(scope.rng)) == before:
        tail.values = reader.builder.last_values(kind)


def _copy(
    reader: CardReader,
    card: Card,
    scope: Scope,
    order: int,
    kind: str,
    name: str,
    nodes: list[str],
    values: tuple[Value, ...],
) -> None:
    """Add an element with these values."""
    base = f"{kind}.{scope.path}.{name}" if scope.path else name
    reader.builder.claim(base, card.seq)
    known = scope.nodes
    a, b = known.get(nodes[0]), known.get(nodes[1])
    if a is None or b is None:
        if scope.parent is None:  # no pins: a node here has this name in the netlist
            a, b = (known.setdefault(node, reader.builder.node(node, order)) for node in nodes)
        else:
            e = Element(card, Pattern(kind, name, name, (), Words(nodes, {})), scope, order, base)
            a, b = (reader.node(e, node) for node in nodes)
    reader.builder.add(kind, base, a, b, order, card.seq, *values)
