"""The slow twin of `scan`: the same result in plain Python, to read and to test against."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from circuitsim.netlist.scan import PlainCards, Scan

_NOT_PLAIN = re.compile(r"[^ \t!-~]|[,=(){}'\";\\]|//")
_WORD = re.compile(r"\.((?:(?!//)[^\x00-\x20\x7f-\xff,=(){}'\";\\])*)")
_QUOTED = re.compile(r"'[^']*'?|\"[^\"]*\"?")
_INLINE_COMMENT = re.compile(r";|//|(?<=[ \t,])\$")
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[ed]([+-]?\d+))?([a-z]*)", re.ASCII | re.IGNORECASE)
_SUFFIXES = {"t": 12, "g": 9, "k": 3, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
_OPENS = {"subckt": "ends", "macro": "ends", "control": "endc", "lib": "endl", "if": "endif"}
_CLOSES = {"ends": "ends", "eom": "ends", "endc": "endc", "endl": "endl", "endif": "endif"}


@dataclass(frozen=True)
class _Line:
    number: int  # from 1
    start: int
    text: str  # one character per byte, without the line's end

    @property
    def body(self) -> str:
        return self.text.lstrip(" \t")

    @property
    def is_card(self) -> bool:
        return self.body != "" and not self.body.startswith(("*", ";", "$", "//"))

    @property
    def is_strange(self) -> bool:
        """Begins with a byte that is neither blank nor printable ASCII; the parser may take it for a blank."""
        return not "!" <= self.body[0] <= "~"


@dataclass(frozen=True)
class _Plain:
    line: _Line
    words: list[str]
    value: float


def scan_reference(data: bytes, has_title: bool = True, plain_allowed: bool = True) -> Scan:
    """What `scan` returns, by the rules as they are written there."""
    lines, line_start = _lines(data)
    plain: list[_Plain] = []
    other: list[_Line] = []
    open_regions = {"ends": 0, "endc": 0, "endl": 0, "endif": 0, "never": 0}
    joined = False
    end_line = after_end = 0
    following = _following_cards(lines)
    for k, line in enumerate(lines):
        if k == 0 and has_title:
            joined = "\\" in line.text
        elif not line.is_card:
            joined = joined or "\\" in line.text
        elif end_line:
            after_end = line.number
            break
        else:
            after = following[k]
            continued = after is not None and (after.body[0] == "+" or after.is_strange)
            card = _plain(line)
            if plain_allowed and not joined and not continued and not any(open_regions.values()) and card is not None:
                plain.append(card)
                continue
            joined = "\\" in line.text
            if line.is_strange:
                open_regions["never"] += 1
            elif line.body[0] == ".":
                if _word(line.body) == "end":
                    end_line = line.number
                    continue
                _track(line.body, open_regions)
            other.append(line)
    rows = [(line.number, line.start, line.start + len(line.text)) for line in other]
    return Scan(
        _columns(plain),
        np.array(rows, np.int64).reshape(-1, 3),
        np.array(line_start, np.int64),
        end_line,
        after_end,
        _duplicate([card.words[0] for card in plain]),
    )


def _lines(data: bytes) -> tuple[list[_Line], list[int]]:
    """The physical lines, and their first bytes followed by the size of the text."""
    lines: list[_Line] = []
    starts = [0]
    for piece in re.findall(r"[^\n]*\n|[^\n]+", data.decode("latin-1")):
        lines.append(_Line(len(lines) + 1, starts[-1], piece.removesuffix("\n").removesuffix("\r")))
        starts.append(starts[-1] + len(piece))
    return lines, starts


def _following_cards(lines: list[_Line]) -> list[_Line | None]:
    """For each line the next one that is neither blank nor a comment."""
    out: list[_Line | None] = []
    card: _Line | None = None
    for line in reversed(lines):
        out.append(card)
        card = line if line.is_card else card
    return out[::-1]


def _word(body: str) -> str:
    """The directive of a dot card, lower case and without its dot."""
    match = _WORD.match(body)
    assert match is not None
    return match.group(1).lower()


def _track(body: str, open_regions: dict[str, int]) -> None:
    """Count the regions that a dot card opens or closes."""
    word = _word(body)
    if word in _CLOSES:
        open_regions[_CLOSES[word]] = max(0, open_regions[_CLOSES[word]] - 1)
    elif word in _OPENS and (word != "lib" or _count_operands(body[len(".lib") :]) <= 1):
        open_regions[_OPENS[word]] += 1


def _count_operands(text: str) -> int:
    masked = _QUOTED.sub(lambda match: "q" * len(match.group()), text)
    comment = _INLINE_COMMENT.search(masked)
    return len(re.findall(r"[^ \t]+", masked[: comment.start()] if comment else masked))


def _plain(line: _Line) -> _Plain | None:
    """The line as a plain card, or None; what stands around it is not looked at."""
    if line.body[0] not in "rRiIvV" or _NOT_PLAIN.search(line.text):
        return None
    words = line.text.split()
    if len(words) != 4 or len(words[0]) < 2 or ":" in words[0] or any(word.startswith("$") for word in words):
        return None
    value = _number(words[3], is_resistor=words[0][0] in "rR")
    return None if value is None else _Plain(line, words, value)


def _number(text: str, is_resistor: bool) -> float | None:
    """A finite SPICE number that needs no remark, or None."""
    match = _NUMBER.fullmatch(text)
    if match is None or len(text) > 40:
        return None
    mantissa, exponent, letters = match.groups()
    suffix = letters.lower()
    if suffix.startswith("mil") or (exponent is None and suffix.startswith(("e", "d"))):
        return None
    if suffix.startswith("meg"):
        scale = 6
    elif suffix.startswith("a") or (is_resistor and letters.startswith("M")):
        return None
    else:
        scale = _SUFFIXES.get(suffix[:1], 0)
    value = float(f"{mantissa}e{int(exponent or 0) + scale}")
    return value if math.isfinite(value) else None


def _columns(plain: list[_Plain]) -> PlainCards:
    nodes: list[str] = []
    index: dict[str, int] = {}
    ends: list[int] = []
    starts: list[int] = []
    for card in plain:
        starts.append(card.line.start + len(card.line.text) - len(card.line.body))
        for name in card.words[1:3]:
            key = "0" if name.lower() == "gnd" else name.lower()
            if key not in index:
                index[key] = len(nodes)
                nodes.append("0" if key == "0" else name)
            ends.append(index[key])
    return PlainCards(
        np.array([ord(card.words[0][0].lower()) for card in plain], np.uint8),
        np.array([card.line.number for card in plain], np.int64),
        np.array(starts, np.int64),
        np.array([start + len(card.words[0]) for start, card in zip(starts, plain, strict=True)], np.int64),
        np.array(ends[::2], np.int64),
        np.array(ends[1::2], np.int64),
        np.array([card.value for card in plain], np.float64),
        nodes,
    )


def _duplicate(names: list[str]) -> tuple[int, int] | None:
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if name.lower() in seen:
            return seen[name.lower()], i
        seen[name.lower()] = i
    return None
