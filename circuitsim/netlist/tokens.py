"""Card text -> words: names, values, braced expressions, and `key=value` pairs.

Errors here are NetlistErrors without a place: the caller knows the card and adds its place (`located`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from circuitsim.errors import At, NetlistError

V = TypeVar("V")

SINGLE_EQUALS = re.compile(r"(?<![=<>!])=(?!=)")
_DELIMITER = re.compile(r"[,=(){}'\"]")
_TOKEN = re.compile(r"\{[^{}]*\}|'[^']*'|\"[^\"]*\"|=|[^\s,=(){}'\"]+|[{}'\"]")
_STRAY = frozenset("{}'\"")
_BRACE = re.compile(r"[{}]")
_ASSIGNMENT = re.compile(r"(?<![\w.])([A-Za-z_][\w.]*(?:\([^(){}=]*\))?)\s*=(?!=)")
_DECIMAL_COMMA = re.compile(r"(?<![\w.\]])([+-]?[0-9]+),([0-9]+(?:[eEdD][+-]?[0-9]+)?[A-Za-z]*)(?=[\s)]|$)")
_PARAMS = re.compile(r"(?<=[\s,(])params:", re.IGNORECASE)
_COVERED = re.compile(r"\{[^{}]*\}|'[^']*'")


@dataclass(frozen=True)
class Words:
    """A card's words: `words` in order, then `keys`: lower-case key -> value. Expressions keep their braces."""

    words: list[str]
    keys: dict[str, str]


@contextmanager
def located(place: Callable[[int], At], seq: int) -> Iterator[None]:
    """Give every NetlistError from inside that has no place yet the place `seq`."""
    try:
        yield
    except NetlistError as error:
        if error.at is None:
            error.at = place(seq)
        raise


@contextmanager
def labelled(label: str) -> Iterator[None]:
    """Begin the message of every NetlistError from inside that has no place yet with a label."""
    try:
        yield
    except NetlistError as error:
        if error.at is None:
            error.message = f"{label}: {error.message}"
        raise


def shown(text: str, most: int = 40) -> str:
    """A text as an error message repeats it: cut after `most` characters."""
    return text if len(text) <= most else text[:most] + " ..."


def comma_hint(text: str) -> str:
    """The end of an error message about a word too many, for a card in which a decimal comma may have made it.

    >>> comma_hint("R1 a b 1,5k")
    ' (a comma separates words: write 1.5k)'
    """
    match = _DECIMAL_COMMA.search(text)
    return f" (a comma separates words: write {shown(match.group(1))}.{shown(match.group(2))})" if match else ""


def tokenize(text: str) -> list[str]:
    """Split a card at blanks, commas and parentheses; `{...}` and quoted expressions stay whole, `=` is a word.

    >>> tokenize("R4 (b,0) {2 * (a + 1)} tc1=1m")
    ['R4', 'b', '0', '{2 * (a + 1)}', 'tc1', '=', '1m']
    """
    if _DELIMITER.search(text) is None:
        return text.split()
    tokens: list[str] = _TOKEN.findall(text)
    if not _STRAY.isdisjoint(tokens):
        tokens = _tokenize_nested(text)
    return ["{" + token[1:-1] + "}" if token[0] == "'" else token for token in tokens] if "'" in text else tokens


def _tokenize_nested(text: str) -> list[str]:
    """The same with braces inside of braces, or with braces and quotes that are not in pairs."""
    tokens: list[str] = []
    pos = 0
    while (match := _TOKEN.search(text, pos)) is not None:
        token, pos = match.group(), match.end()
        if token == "{":
            pos = _closing_brace(text, match.start())
            token = text[match.start() : pos]
        elif token in _STRAY:
            raise NetlistError(f"unmatched {token} : quotes and braces come in pairs; add or remove one")
        tokens.append(token)
    return tokens


def _closing_brace(text: str, start: int) -> int:
    """Where the expression whose brace opens at `start` ends."""
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += 1 if match.group() == "{" else -1
        if depth == 0:
            return match.end()
    raise NetlistError("unmatched { : every expression needs its closing }")


def split_keys(tokens: list[str], known: Collection[str] = (), required: int = 0) -> Words:
    """Separate `key = value` pairs from the other words.

    As in ngspice `=` is a delimiter like a blank: after `required` words, one that is a `known` key needs no `=`.
    """
    words: list[str] = []
    keys: dict[str, str] = {}
    i, n = 0, len(tokens)
    while i < n:
        token = tokens[i]
        following = tokens[i + 1] if i + 1 < n else ""
        if following == "=":
            if token == "=":
                raise NetlistError("'=' without a name before it; write name=value")
            if i + 2 >= n or tokens[i + 2] == "=":
                raise NetlistError(f"'{shown(token)}=' has no value; write {shown(token)}=VALUE")
            keys[token.lower()] = tokens[i + 2]
            i += 3
        elif token == "=":
            raise NetlistError("'=' without a name before it; write name=value")
        elif following and len(words) >= required and token.lower() in known and tokens[i + 2 : i + 3] != ["="]:
            keys[token.lower()] = following
            i += 2
        else:
            words.append(token)
            i += 1
    return Words(words, keys)


def assignments(text: str) -> list[tuple[str, str]]:
    """`a=1 b={x+1} c = 2*a` -> [('a', '1'), ('b', 'x+1'), ('c', '2*a')]; braces and quotes are removed.

    >>> assignments("a=1 b={c == 1 ? 2 : 3}, d='x+1' f(x, y)={x*y}")
    [('a', '1'), ('b', 'c == 1 ? 2 : 3'), ('d', 'x+1'), ('f(x, y)', 'x*y')]
    """
    covered = _COVERED.sub(lambda match: "~" * len(match.group()), text)
    matches = list(_ASSIGNMENT.finditer(covered))
    before = text[: matches[0].start() if matches else None].strip(" ,\t")
    if before or not matches:
        ascii_only = "" if before.isascii() else "; names have no letters beyond ASCII"
        raise NetlistError(f"expected name=value, found '{shown(before)}'{ascii_only}")
    out = []
    for match, following in zip(matches, [*matches[1:], None], strict=True):
        value = text[match.end() : following.start() if following else None].strip(" ,\t")
        if not value:
            raise NetlistError(f"parameter '{match.group(1)}' has no value; write {match.group(1)}=VALUE")
        out.append((match.group(1).lower(), unbrace(value)))
    return out


def without_params(text: str) -> str:
    """An X or .subckt card without the word `PARAMS:`, which says nothing, with or without a blank behind it.

    >>> without_params("X1 a s PARAMS:R=2k"), without_params("X1 a s params: R=2k")
    ('X1 a s  R=2k', 'X1 a s   R=2k')
    """
    return _PARAMS.sub(" ", text) if ":" in text else text


def one_name_each(given: Mapping[str, V], synonyms: Mapping[str, str]) -> dict[str, V]:
    """Values by names without synonyms. NetlistError where two names of one thing have different values.

    >>> one_name_each({"tc": 1e-3, "m": 2.0}, {"tc": "tc1"})
    {'tc1': 0.001, 'm': 2.0}
    """
    found: dict[str, V] = {}
    spelled: dict[str, str] = {}
    for key, value in given.items():
        name = synonyms.get(key, key)
        if name in found and np.any(found[name] != value):
            raise NetlistError(
                f"{spelled[name].upper()} and {key.upper()} are two names of one parameter, and have different values; "
                "leave one out"
            )
        found[name], spelled[name] = value, key
    return found


def starts_number(word: str) -> bool:
    """Whether a word, which is not empty, begins as numbers do; names do not."""
    return word[0] in "0123456789.+-"


def unbrace(text: str) -> str:
    """`{x}` or `'x'` -> `x`; any other text as it is."""
    whole = (text[:1] == "{" and _closing_brace(text, 0) == len(text)) or (
        text[:1] == "'" and text.find("'", 1) == len(text) - 1
    )
    return text[1:-1].strip() if whole else text
