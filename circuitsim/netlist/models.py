"""`.model` cards: found by scope, their parameters evaluated once in the instance that defines them."""

from __future__ import annotations

from collections.abc import Callable

from circuitsim.errors import At, NetlistError
from circuitsim.netlist.model import ModelCard
from circuitsim.netlist.numbers import parse_number
from circuitsim.netlist.scopes import Scope, expression
from circuitsim.netlist.tokens import split_keys, tokenize, unbrace

_TYPES = {"d": "d", "r": "r", "res": "r"}


class ModelTable:
    """The models in use, a row each; `find` gives the row of a name in a scope."""

    def __init__(self, place: Callable[[int], At]) -> None:
        self.place = place
        self.rows: list[ModelCard] = []

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
            owner.model_rows[key] = len(self.rows)
            self.rows.append(self._read(owner, key))
        return owner.model_rows[key]

    def _read(self, scope: Scope, name: str) -> ModelCard:
        card = scope.block.models[name]
        at = self.place(card.seq)
        words = split_keys(tokenize(card.text, at), at)
        kind = words.words[2].lower() if len(words.words) > 2 else "?"
        params = {key: self._value(scope, word, key, name, at) for key, word in words.keys.items()}
        flags = frozenset(word.lower() for word in words.words[3:])
        return ModelCard(words.words[1], _TYPES.get(kind, kind), params, flags, card.seq)

    @staticmethod
    def _value(scope: Scope, word: str, key: str, name: str, at: At) -> float:
        label = f"model {name}: {key}"
        if word[0] == "{" or scope.owner(word.lower()) is not None:
            return float(scope.evaluate(expression(unbrace(word), at, label), at, label))
        if word.lower().lstrip("+") in ("inf", "infinity"):
            return float("inf")
        try:
            return parse_number(word)
        except ValueError as error:
            raise NetlistError(f"{label} '{word}': {error}", at) from None
