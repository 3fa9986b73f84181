"""What the page may ask its server, each question checked before anything is computed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from circuitsim.view.session import Session
from circuitsim.view.solver import MOST_CHANGES, Edits

_MOST_NAME = 200  # characters of a name or a number


class BadQuestion(Exception):
    """A question that the page does not ask: its form is wrong."""


def read_question(data: bytes) -> dict[str, Any]:
    """The JSON object in a request. BadQuestion when it is none, or has numbers that are not finite."""
    try:
        body = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadQuestion("a question is JSON of finite numbers") from None
    if not isinstance(body, dict):
        raise BadQuestion("a question is a JSON object")
    return body


def _no_number(text: str) -> float:
    raise ValueError(text)


def _fields(body: Mapping[str, Any], *known: str) -> None:
    if unknown := [str(name)[:_MOST_NAME] for name in body if name not in known]:
        raise BadQuestion(f"unknown: {', '.join(unknown[:5])}")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > _MOST_NAME:
        raise BadQuestion(f"{what}: a text of at most {_MOST_NAME} characters")
    return value


def _whole(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise BadQuestion(f"{what}: a whole number, 0 or more")
    return value


def _finite(value: Any, what: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise BadQuestion(f"{what}: finite numbers")
    return number


def read_changes(value: Any) -> Edits:
    """What a question says about changes: {values: {NAME: "4.7k"}, sweep: {card, point}, inputs: [...]}, all optional.

    >>> read_changes({"values": {"R1": "2k"}, "sweep": {"card": 0, "point": [3]}})
    Edits(values=(('R1', '2k'),), sweep=(0, (3,)), inputs=None)
    """
    if not isinstance(value, dict):
        raise BadQuestion("changes: an object")
    _fields(value, "values", "sweep", "inputs")
    values, card, inputs = value.get("values") or {}, value.get("sweep"), value.get("inputs")
    if not isinstance(values, dict) or len(values) > MOST_CHANGES:
        raise BadQuestion(f"values: an object of at most {MOST_CHANGES} names")
    pairs = tuple((_text(name, "name"), _text(text, "value")) for name, text in values.items())
    point = None
    if card is not None:
        if not isinstance(card, dict) or not isinstance(card.get("point"), list) or len(card["point"]) > 10:
            raise BadQuestion("sweep: {card, point: [...]}")
        _fields(card, "card", "point")
        point = _whole(card.get("card"), "card"), tuple(_whole(k, "point") for k in card["point"])
    if inputs is not None and not isinstance(inputs, list):
        raise BadQuestion("inputs: a list")
    return Edits(pairs, point, None if inputs is None else tuple(_finite(x, "inputs") for x in inputs))


def _answer(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes", "centre", "trace")
    centre, trace = body.get("centre"), body.get("trace", False)
    if not isinstance(trace, bool):
        raise BadQuestion("trace: true or false")
    return session.answer(read_changes(body.get("changes")), None if centre is None else _text(centre, "centre"), trace)


def _scene(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "centre")
    centre = body.get("centre")
    return session.scene(None if centre is None else _text(centre, "centre"))


def _find(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "text")
    return session.find(_text(body.get("text"), "text"))


def _about(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body)
    return session.about()


def _crossbar(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes", "number", "quantity")
    number, quantity = _whole(body.get("number"), "number"), _text(body.get("quantity"), "quantity")
    return session.crossbar(read_changes(body.get("changes")), number, quantity)


def _group(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes", "number")
    return session.group(read_changes(body.get("changes")), _whole(body.get("number"), "number"))


def _nodes(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes")
    return session.nodes(read_changes(body.get("changes")))


def _node_at(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "number")
    return session.node_at(_whole(body.get("number"), "number"))


def _unit(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "changes", "layer", "unit")
    layer, unit = (_whole(body.get(name), name) for name in ("layer", "unit"))
    return session.unit(read_changes(body.get("changes")), layer, unit)


def _curve(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "card", "node")
    return session.curve(_whole(body.get("card"), "card"), _text(body.get("node"), "node"))


def _touched(session: Session, body: Mapping[str, Any]) -> Any:
    _fields(body, "card", "names")
    names = body.get("names")
    if not isinstance(names, list) or len(names) > MOST_CHANGES:
        raise BadQuestion(f"names: a list of at most {MOST_CHANGES} names")
    return session.touched(_whole(body.get("card"), "card"), [_text(name, "name") for name in names])


QUESTIONS: Mapping[str, Callable[[Session, Mapping[str, Any]], Any]] = {
    "api/about": _about, "api/answer": _answer, "api/crossbar": _crossbar, "api/curve": _curve, "api/find": _find,
    "api/group": _group, "api/node_at": _node_at, "api/nodes": _nodes, "api/scene": _scene, "api/touched": _touched,
    "api/unit": _unit,
}  # fmt: skip
