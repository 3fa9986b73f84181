"""Parameters given from outside, which replace the values on `.param` cards of the main netlist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real

from circuitsim.errors import NetlistError, SettingsError
from circuitsim.netlist.model import similar
from circuitsim.netlist.scopes import PARAMETERS, expression, with_depth
from circuitsim.netlist.source import Card, Text
from circuitsim.netlist.tokens import SINGLE_EQUALS, assignments, located, shown, unbrace


def with_params(text: Text, params: Mapping[str, float | str], path: str) -> Text:
    """The netlist with these values: numbers, or SPICE numbers and expressions as text.

    Conditions of `.if` see them too. Raises SettingsError for parameters that the main netlist does not define, and for
    invalid values.
    """
    if not isinstance(params, Mapping):
        raise SettingsError(f"params are a mapping of names to values, such as {{'r': 1e3}}, found {params!r}")
    if not params:
        return text
    given = {str(name).lower(): _value(name, value) for name, value in params.items()}
    if len(given) < len(params):
        raise SettingsError("params: a parameter is given twice, under names that differ only in case; give one")
    known = set[str]()
    cards = []
    for card, key, depth in with_depth(text.cards):
        if not depth and key in PARAMETERS:
            with located(text.source.at, card.seq):
                pairs = assignments(card.text[len(key) :])
            known |= {name for name, _ in pairs if "(" not in name}
            if not given.keys().isdisjoint(name for name, _ in pairs):
                words = (f"{name}={{{given.get(name, value)}}}" for name, value in pairs)
                card = Card(card.seq, f"{key} {' '.join(words)}")
        cards.append(card)
    if wrong := [name for name in params if str(name).lower() not in known]:
        raise SettingsError(
            f"no parameter '{shown(str(wrong[0]))}' in the main netlist of {path}"
            f"{similar(str(wrong[0]).lower(), sorted(known), 'parameters')}"
        )
    return replace(text, cards=cards, given=given)


def _value(name: str, value: float | str) -> str:
    """The expression of a value."""
    if isinstance(value, Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise SettingsError(f"parameter {name}: a value must be finite, found {float(value)}")
        return repr(float(value))
    if not isinstance(value, str) or not value.strip():
        raise SettingsError(f"parameter {name}: a value is a number, or a SPICE number as text, found {value!r}")
    text = unbrace(value.strip())
    try:
        names = expression(text).names
    except NetlistError as error:
        raise SettingsError(f"parameter {name}: {error.message}") from None
    if str(name).lower() in names or SINGLE_EQUALS.search(text):
        raise SettingsError(
            f"parameter {name}: '{shown(value)}' is not a value; write a number, or an expression of others"
        )
    return text
