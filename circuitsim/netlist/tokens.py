"""Card text -> words: names, values, braced expressions, and `key=value` pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from circuitsim.errors import At, NetlistError

_TOKEN = re.compile(r"\{|'[^']*'|\"[^\"]*\"|=|[^\s,=(){}'\"]+|[\s,()]+|.")
_ASSIGNMENT = re.compile(r"([A-Za-z_][\w.]*)\s*=(?!=)")


@dataclass(frozen=True)
class Words:
    """A card's words: `words` in order, then `keys`: lower-case key -> value. Expressions keep their braces."""

    words: list[str]
    keys: dict[str, str]


def tokenize(text: str, at: At) -> list[str]:
    """Split a card at blanks, commas and parentheses; `{...}` and quoted expressions stay whole, `=` is a word.

    >>> tokenize("R4 (b,0) {2 * (a + 1)} tc1=1m", At("-", 1))
    ['R4', 'b', '0', '{2 * (a + 1)}', 'tc1', '=', '1m']
    """
    out: list[str] = []
    i = 0
    while i < len(text):
        match = _TOKEN.match(text, i)
        assert match is not None
        token = match.group()
        if token == "{":
            depth = 0
            for j in range(i, len(text)):
                depth += {"{": 1, "}": -1}.get(text[j], 0)
                if depth == 0:
                    break
            else:
                raise NetlistError("unmatched '{': every expression needs its closing '}'", at)
            out.append(text[i : j + 1])
            i = j + 1
            continue
        i = match.end()
        if token in ("}", "'", '"'):
            raise NetlistError(f"unmatched {token}: quotes and braces come in pairs", at)
        if not token[0].isspace() and token[0] not in ",()":
            out.append("{" + token[1:-1] + "}" if token[0] == "'" else token)
    return out


def split_keys(tokens: Sequence[str], at: At) -> Words:
    """Separate `key = value` pairs from the other words."""
    words: list[str] = []
    keys: dict[str, str] = {}
    i = 0
    while i < len(tokens):
        if i + 1 < len(tokens) and tokens[i + 1] == "=":
            if i + 2 >= len(tokens) or tokens[i + 2] == "=":
                raise NetlistError(f"'{tokens[i]}=' has no value", at)
            keys[tokens[i].lower()] = tokens[i + 2]
            i += 3
        elif tokens[i] == "=":
            raise NetlistError("'=' without a name before it", at)
        else:
            words.append(tokens[i])
            i += 1
    return Words(words, keys)


def assignments(text: str, at: At) -> list[tuple[str, str]]:
    """`a=1 b={x+1} c = 2*a` -> [('a', '1'), ('b', 'x+1'), ('c', '2*a')]; braces and quotes are removed.

    >>> assignments("a=1 b={c == 1 ? 2 : 3}, d='x+1'", At("-", 1))
    [('a', '1'), ('b', 'c == 1 ? 2 : 3'), ('d', 'x+1')]
    """
    masked = re.sub(r"\{[^}]*\}|'[^']*'", lambda m: "_" * len(m.group()), text)
    matches = list(_ASSIGNMENT.finditer(masked))
    if masked[: matches[0].start() if matches else None].strip(" ,\t"):
        raise NetlistError(f"expected 'name = value', found '{text.strip()}'", at)
    out = []
    for match, following in zip(matches, [*matches[1:], None], strict=True):
        value = text[match.end() : following.start() if following else None].strip(" ,\t")
        if not value:
            raise NetlistError(f"parameter '{match.group(1)}' has no value", at)
        out.append((match.group(1).lower(), unbrace(value)))
    return out


def unbrace(text: str) -> str:
    """`{x}` or `'x'` -> `x`."""
    if len(text) >= 2 and (text[0] + text[-1] in ("{}", "''")):
        return text[1:-1].strip()
    return text
