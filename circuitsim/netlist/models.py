"""`.model` cards: found by scope, their parameters evaluated once in each instance that defines them.

A card in which no parameter is used means the same in all instances, and is one model for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuitsim.errors import NetlistError
from circuitsim.netlist.model import ModelCard
from circuitsim.netlist.numbers import atto_remark, braced
from circuitsim.netlist.scopes import Note, Place, Scope, remarks_of
from circuitsim.netlist.source import Card
from circuitsim.netlist.tokens import (
    comma_hint,
    labelled,
    located,
    one_name_each,
    shown,
    split_keys,
    starts_number,
    tokenize,
)

_TYPES = {"d": "d", "r": "r", "res": "r", "tanh": "tanh", "sinh": "sinh", "pwl": "pwl"}
_FLAGS = frozenset({"ideal"})
_RESISTOR = frozenset("r rsh l w short narrow tc1 tc2 tce tnom kf af lf wf ef bv_max".split())
_SYNONYMS = {  # by type of model
    "r": {
        "res": "r", "resistance": "r", "defl": "l", "defw": "w", "dlr": "short", "dw": "narrow", "tc": "tc1",
        "tc1r": "tc1", "tc2r": "tc2",
    },
    "d": {
        "js": "is", "vb": "bv", "vrb": "bv", "var": "bv", "ib": "ibv", "tref": "tnom", "ik": "ikf", "pb": "vj",
        "mj": "m", "trs": "trs1",
    },
}  # fmt: skip
_NOT_IN_NGSPICE = ("vb", "vrb", "var")  # of these
_OF_ELEMENTS = frozenset({"temp", "dtemp", "scale"})  # ngspice takes them as defaults
_TEXTS = frozenset({"mfg", "type"})  # of LTspice's models: no numbers
_TOLERANCES = frozenset({"dev", "lot"})  # of PSpice, for its Monte Carlo
_STRICT = frozenset({"tanh", "sinh"})  # types of ours: no word of theirs is ignored


class ModelTable:
    """The models in use, a row each; `find` gives the row of a name in a scope."""

    def __init__(self, place: Place, note: Note) -> None:
        self.place = place
        self.note = note
        self.rows: list[ModelCard] = []
        self.same: dict[int, int] = {}  # place of a card without parameters -> its row

    def find(self, scope: Scope, name: str) -> int | None:
        """The row of the model that `name` (any case) means in `scope`, or None."""
        key = name.lower()
        block = scope.block.find_model(key)
        if block is None:
            return None
        owner: Scope | None = scope
        while owner is not None and owner.block is not block:
            owner = owner.parent
        assert owner is not None  # a definition is only visible from inside an instance of its block
        if key not in owner.model_rows:
            owner.model_rows[key] = self._row(owner, block.models[key])
        return owner.model_rows[key]

    def _row(self, scope: Scope, card: Card) -> int:
        """The row of a model in the instance that defines it, made when new."""
        row = self.same.get(card.seq)
        if row is None:
            with located(self.place, card.seq):
                model, same = self._read(scope, card)
            row = len(self.rows)
            self.rows.append(model)
            if same:
                self.same[card.seq] = row
        return row

    def _read(self, scope: Scope, card: Card) -> tuple[ModelCard, bool]:
        """The parameters of a model: `IS=1e-14` or, as `=` is a delimiter like a blank, `IS 1e-14`.

        And whether they are all numbers.
        """
        words = split_keys(tokenize(card.text))
        name, kind, *rest = words.words[1:]
        kind = _TYPES.get(kind.lower(), kind.lower())
        if kind not in _TYPES.values():
            return ModelCard(name, kind, {}, frozenset(), card.seq), True  # no element takes it, whatever its words are
        label = f"model {shown(name)}"
        if kind == "pwl":
            points = _points(scope, label, rest, words.keys)
            return ModelCard(name, kind, {}, frozenset(), card.seq, points), all(map(starts_number, rest))
        given = {key: braced(word) for key, word in words.keys.items()}
        flags = []
        rest.reverse()
        while rest:
            word = rest.pop().lower()
            if word in _FLAGS or (not rest and kind in _STRICT):
                flags.append(word)
            elif starts_number(word) or word[0] == "{":
                raise NetlistError(
                    f"{label}: value '{shown(word)}' without a name; write NAME=VALUE{comma_hint(card.text)}"
                )
            elif rest and rest[-1].lower() not in _FLAGS:
                given[word] = rest.pop()
            else:
                self.note(card.seq, f"{label}: unknown word '{shown(word)}' is ignored")
        params = {}
        for key in [key for key in given if key.partition("/")[0] in _TOLERANCES and kind not in _STRICT]:
            self.note(card.seq, f"{label}: tolerance {key.upper()}={shown(given.pop(key))} is ignored")
        for key, word in given.items():
            if key in _TEXTS and kind not in _STRICT:
                continue
            with labelled(f"{label}: {shown(key)}"):
                params[key] = _value(scope, word)
            for remark in remarks_of(word) if word[0] == "{" else filter(None, [atto_remark(word, params[key])]):
                self.note(card.seq, f"{label}: {shown(key.upper())}: {remark}")
        for key in _NOT_IN_NGSPICE if kind == "d" else ():
            if key in params:
                self.note(card.seq, f"{label}: {key.upper()} is BV, as in HSPICE (ngspice ignores {key.upper()})")
        with labelled(label):
            params = one_name_each(params, _SYNONYMS.get(kind, {}))
        if kind == "r":
            for key in sorted(params.keys() & _OF_ELEMENTS):
                raise NetlistError(f"{label}: {key.upper()} belongs to resistors, not to their model; write it on them")
            for key in sorted(params.keys() - _RESISTOR):
                self.note(card.seq, f"{label}: unknown parameter {shown(key.upper())} is ignored")
        counted = (word for key, word in given.items() if key not in _TEXTS or kind in _STRICT)
        same = all(starts_number(word) or _is_endless(scope, word) for word in counted)
        return ModelCard(name, kind, params, frozenset(flags), card.seq), same


def _points(scope: Scope, label: str, words: list[str], keys: Mapping[str, str]) -> tuple[float, ...]:
    """The numbers of a table: V, A, V, A ..."""
    if keys:
        raise NetlistError(
            f"{label}: unknown parameter {shown(next(iter(keys)).upper())}; a pwl model has none, only volts and "
            "amperes in turn: pwl(-1 -1m 0 0 1 1m)"
        )
    with labelled(f"{label}: its table"):
        return tuple(_value(scope, word) for word in words)


def _value(scope: Scope, word: str) -> Any:
    """A number, or infinity; one for each seed where many are drawn for at once."""
    return float("inf") if _is_endless(scope, word) else scope.number(word)


def _is_endless(scope: Scope, word: str) -> bool:
    return word.lower().lstrip("+") in ("inf", "infinity") and scope.owner(word.lower()) is None
