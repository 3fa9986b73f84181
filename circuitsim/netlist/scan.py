"""The fast path for huge flat decks: `R12 x3 h17 103.33` cards become columns, everything else is left to the parser.

Reading a deck of a million resistors is mostly splitting lines, converting numbers and looking up node names. The
kernels here do that for *plain* cards, whose meaning needs no context; `scan_reference` does the same in plain Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from circuitsim.compiled import jit

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class PlainCards:
    """The n plain cards, in deck order: `R`, `I` or `V`, two nodes and a number.

    `nodes` are the distinct names in order of first appearance, spelled as there; names that differ in ASCII case only
    are one node; ground (`0`, `gnd`) is always spelled `0`. `value` is in ohms, amperes or volts.
    """

    letter: Bytes  # (n,) ord of 'r', 'i' or 'v'
    line: Ints  # (n,) physical line, from 1
    name_start: Ints  # (n,) the element's name is data[name_start:name_stop]
    name_stop: Ints  # (n,)
    a: Ints  # (n,) index into nodes
    b: Ints  # (n,)
    value: NDArray[np.float64]  # (n,) correctly rounded
    nodes: list[str]


@dataclass(frozen=True)
class Scan:
    """A deck's plain cards, and where its other lines are. Blank lines, comment lines and `.end` are in neither."""

    plain: PlainCards
    other: Ints  # (m, 3) line number, start and stop byte of every other line, '+' lines included
    line_start: Ints  # (lines + 1,) first byte of each physical line, then the size of the text
    end_line: int  # line number of `.end`, or 0
    after_end: int  # line number of the first line after `.end` that is neither blank nor a comment, or 0
    duplicate: tuple[int, int] | None  # first two plain cards with the same name, ASCII case ignored


def scan(data: bytes, has_title: bool = True, plain_allowed: bool = True) -> Scan:
    """Split a deck into plain cards and other lines.

    A card is plain when it stands outside of `.subckt`, `.control`, `.if` and library sections, has exactly four words
    `name node node number`, all printable ASCII without `, = ( ) { } ' " ; \\` or an inline comment, no range in its
    name, and is not joined to another line by `+` or a backslash. Numbers that deserve a remark (`R1 a b 1M`, `mil`) or
    are not finite leave the card to the parser. In doubt a card is not plain: that costs time, never meaning.

    data: the deck; lines end in LF or CR LF. has_title: line 1 is a title and is skipped. plain_allowed: False sends
    every card to `other`. Every text is accepted; what is wrong with it is for the parser to say.

    >>> s = scan(b"title\\nR1 In GND 4.7k\\n.op\\nI1 0 in 2m\\n.end\\n")
    >>> s.plain.nodes, s.plain.a.tolist(), s.plain.b.tolist(), s.plain.value.tolist()
    (['In', '0'], [0, 1], [1, 0], [4700.0, 0.002])
    >>> s.other.tolist(), s.end_line
    ([[3, 21, 24]], 5)
    """
    text = np.frombuffer(data, np.uint8)
    line_start = np.concatenate([[0], np.flatnonzero(text == _NEWLINE) + 1])
    if line_start[-1] < text.size:  # the last line is unfinished
        line_start = np.append(line_start, text.size)
    lines = line_start.size - 1

    cards, value = np.empty((lines, 10), np.int64), np.empty(lines, np.float64)
    hard, other = np.empty((lines, 4), np.int64), np.empty((lines, 3), np.int64)
    n, n_hard, n_other, end_line, after_end = _find_cards(
        text, line_start, has_title, plain_allowed, cards, value, hard, other
    )
    cards, value, hard, other = cards[:n], value[:n], hard[:n_hard], other[:n_other]
    value[hard[:, 0]] = [float(b"%be%d" % (data[start:stop], power)) for start, stop, power in hard[:, 1:].tolist()]
    finite = np.isfinite(value)
    if not finite.all():
        rows = [_row(data, line_start, line) for line in cards[~finite, _LINE].tolist()]
        other = np.concatenate([other, rows])
        other = other[np.argsort(other[:, 0])]
        cards, value = cards[finite], value[finite]
    words = cards[:, :_LETTER].reshape(-1, 4, 2)
    name_start, name_stop = words[:, 0, 0].copy(), words[:, 0, 1].copy()
    ends, nodes = _number_nodes(text, words[:, 1:3, 0].ravel(), words[:, 1:3, 1].ravel())
    letter, line, a, b = cards[:, _LETTER].astype(np.uint8), cards[:, _LINE].copy(), ends[::2].copy(), ends[1::2].copy()
    plain = PlainCards(letter, line, name_start, name_stop, a, b, value, nodes)
    return Scan(plain, other, line_start, end_line, after_end, _first_duplicate(text, name_start, name_stop))


def _row(data: bytes, line_start: Ints, line: int) -> tuple[int, int, int]:
    """The row of `other` for a line."""
    start, stop = line_start[line - 1 : line + 1].tolist()
    return line, start, start + len(data[start:stop].removesuffix(b"\n").removesuffix(b"\r"))


def _number_nodes(text: Bytes, start: Ints, stop: Ints) -> tuple[Ints, list[str]]:
    """Number node names by first appearance: (index of each name, the distinct names)."""
    index, first, ground = _intern_all(text, start, stop)
    start, width = start[first], stop[first] - start[first] + 1  # with the blank that follows every node
    place = np.cumsum(width) - width
    names = text[np.arange(width.sum()) + np.repeat(start - place, width)].tobytes().decode("ascii").split()
    if ground >= 0:
        names[ground] = "0"
    return index, names


def _first_duplicate(text: Bytes, start: Ints, stop: Ints) -> tuple[int, int] | None:
    """The first name that was there before, as (earlier position, position)."""
    keys = np.empty(start.size, np.uint64)
    _find_keys(text, start, stop, keys)
    keys.sort(kind="stable")  # fast on rising runs, and so are the keys of R1, R2, ...
    if not np.any(keys[1:] == keys[:-1]):
        return None
    index, first, _ = _intern_all(text, start, stop)
    if first.size == index.size:
        return None
    i = int(np.argmax(index != np.arange(index.size)))  # up to the first repetition every name has a new number
    return int(index[i]), i


def _intern_all(text: Bytes, start: Ints, stop: Ints) -> tuple[Ints, Ints, int]:
    index, first = np.empty(start.size, np.int64), np.empty(start.size, np.int64)
    count, ground = _intern(text, start, stop, index, first)
    return index, first[:count], ground


# Columns of the kernel's table of cards: start and stop of name, node, node and number; then the letter and the line.
_NUMBER, _LETTER, _LINE = 6, 8, 9

# What a byte can do to a card.
_ORDINARY, _BLANK, _FORBIDDEN = 0, 1, 2
_NEWLINE = ord("\n")
_KIND = np.full(256, _FORBIDDEN, np.uint8)
_KIND[0x21:0x7F] = _ORDINARY
_KIND[list(b",=(){}'\";\\")] = _FORBIDDEN
_KIND[list(b" \t")] = _BLANK
_FOLD = np.frombuffer(bytes(range(256)).lower(), np.uint8)  # ASCII case folding

# Regions whose cards depend on context: subcircuits, scripts, library sections, conditionals.
_WORDS = b"subckt macro ends eom control endc lib endl if endif".split()
_WORD_KEY = np.array([int.from_bytes(word, "big") for word in _WORDS])
_WORD_REGION = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
_WORD_STEP = np.array([1, 1, -1, -1, 1, -1, 1, -1, 1, -1])
_LIB, _END = int.from_bytes(b"lib", "big"), int.from_bytes(b"end", "big")

_HASHED = np.uint64(1 << 63)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio

_SUFFIX = np.zeros(256, np.int64)
_SUFFIX[list(b"tgkmunpfa")] = [12, 9, 3, -3, -6, -9, -12, -15, -18]
_LONGEST_NUMBER = 40
_DIGITS = 18  # significant digits that fit in 63 bits

# 10^k = _POWER[k + _REACH] + _POWER_REST[k + _REACH], to 107 bits.
_REACH = 60
_TENS = [Fraction(10) ** k for k in range(-_REACH, _REACH + 1)]
_POWER = np.array([float(ten) for ten in _TENS])
_POWER_REST = np.array([float(ten - Fraction(float(ten))) for ten in _TENS])


@jit(small=8_000)
def _find_cards(
    text: Bytes,
    line_start: Ints,
    has_title: bool,
    plain_allowed: bool,
    cards: Ints,
    value: NDArray[np.float64],
    hard: Ints,
    other: Ints,
) -> tuple[int, int, int, int, int]:
    """Fill the tables; return how many cards, hard numbers and other lines there are, `end_line` and `after_end`.

    hard: (card, start and stop of the mantissa, power of ten) of the numbers that this kernel leaves to Python.
    """
    n = n_hard = n_other = end_line = 0
    open_regions = 0
    depth = np.zeros(4, np.int64)
    edges = np.empty(8, np.int64)
    joined = False  # a line with a backslash stands before: it may claim the next card
    for k in range(line_start.size - 1):
        stop = _line_stop(text, line_start, k)
        pos = _first(text, line_start[k], stop)
        if k == 0 and has_title:
            joined = _has_backslash(text, pos, stop)
            continue
        if pos == stop:
            continue
        if _is_comment(text, pos, stop):
            joined = joined or _has_backslash(text, pos, stop)
            continue
        if end_line > 0:
            return n, n_hard, n_other, end_line, k + 1
        letter = _FOLD[text[pos]]
        if (
            (letter == ord("r") or letter == ord("i") or letter == ord("v"))
            and plain_allowed
            and open_regions == 0
            and not joined
            and _split(text, pos, stop, edges)
        ):
            digits_stop, exponent, number = _read_number(text, edges[_NUMBER], edges[_NUMBER + 1], letter == ord("r"))
            if digits_stop >= 0 and not _is_continued(text, line_start, k):
                for j in range(_LETTER):
                    cards[n, j] = edges[j]
                cards[n, _LETTER], cards[n, _LINE], value[n] = letter, k + 1, number
                if np.isnan(number):
                    hard[n_hard, 0], hard[n_hard, 1] = n, edges[_NUMBER]
                    hard[n_hard, 2], hard[n_hard, 3] = digits_stop, exponent
                    n_hard += 1
                n += 1
                continue
        joined = _has_backslash(text, pos, stop)
        if not _is_printable(text[pos]):
            open_regions += 1  # for good: if the parser takes that for a blank, any directive may follow it
        elif letter == ord("."):
            word, after = _read_word(text, pos + 1, stop)
            if word == _END:
                end_line = k + 1
                continue
            for j in range(_WORD_KEY.size):
                if word == _WORD_KEY[j] and (word != _LIB or _count_operands(text, after, stop) <= 1):
                    region = _WORD_REGION[j]
                    if _WORD_STEP[j] > 0 or depth[region] > 0:
                        depth[region] += _WORD_STEP[j]
                        open_regions += _WORD_STEP[j]
        other[n_other, 0], other[n_other, 1], other[n_other, 2] = k + 1, line_start[k], stop
        n_other += 1
    return n, n_hard, n_other, end_line, 0


@jit(small=8_000)
def _line_stop(text: Bytes, line_start: Ints, k: int) -> int:
    """Where line k ends, without its line feed and one carriage return."""
    stop = line_start[k + 1]
    if text[stop - 1] == _NEWLINE:
        stop -= 1
    if stop > line_start[k] and text[stop - 1] == ord("\r"):
        stop -= 1
    return stop


@jit(small=8_000)
def _first(text: Bytes, pos: int, stop: int) -> int:
    """The first byte from pos that is not blank, or stop."""
    while pos < stop and _KIND[text[pos]] == _BLANK:
        pos += 1
    return pos


@jit(small=8_000)
def _is_comment(text: Bytes, pos: int, stop: int) -> bool:
    c = text[pos]
    return (
        c == ord("*")
        or c == ord(";")
        or c == ord("$")
        or (c == ord("/") and pos + 1 < stop and text[pos + 1] == ord("/"))
    )


@jit(small=8_000)
def _is_printable(c: int) -> bool:
    return 0x20 < c < 0x7F


@jit(small=8_000)
def _has_backslash(text: Bytes, pos: int, stop: int) -> bool:
    for i in range(pos, stop):  # noqa: SIM110  (Numba has no generator expressions)
        if text[i] == ord("\\"):
            return True
    return False


@jit(small=8_000)
def _is_continued(text: Bytes, line_start: Ints, k: int) -> bool:
    """Whether the next card line after line k starts with '+', or with a byte that the parser may take for a blank."""
    for j in range(k + 1, line_start.size - 1):
        stop = _line_stop(text, line_start, j)
        pos = _first(text, line_start[j], stop)
        if pos < stop and not _is_comment(text, pos, stop):
            return text[pos] == ord("+") or not _is_printable(text[pos])
    return False


@jit(small=8_000)
def _split(text: Bytes, pos: int, stop: int, edges: Ints) -> bool:
    """Whether the line has exactly four plain words; edges (8,) gets their starts and stops."""
    count = 0
    before = _BLANK
    for i in range(pos, stop):
        kind = _KIND[text[i]]
        if kind == _FORBIDDEN or (text[i] == ord("/") and text[i - 1] == ord("/")):
            return False
        if kind != before:
            if count == 8:
                return False
            edges[count] = i
            count += 1
            before = kind
    if before == _ORDINARY:
        edges[count] = stop
        count += 1
    if count != 8 or edges[1] - edges[0] < 2 or text[edges[2]] == ord("$") or text[edges[4]] == ord("$"):
        return False
    for i in range(edges[0], edges[1]):  # noqa: SIM110
        if text[i] == ord(":"):
            return False
    return True


@jit(small=8_000)
def _read_word(text: Bytes, pos: int, stop: int) -> tuple[np.int64, int]:
    """The folded word at pos, packed in an integer (0: longer than 7 letters), and where it ends."""
    key = np.int64(0)
    begin = pos
    while pos < stop and _KIND[text[pos]] == _ORDINARY:
        if text[pos] == ord("/") and pos + 1 < stop and text[pos + 1] == ord("/"):
            break
        if pos - begin < 7:
            key = key * 256 + np.int64(_FOLD[text[pos]])
        pos += 1
    return (key if pos - begin <= 7 else np.int64(0)), pos


@jit(small=8_000)
def _count_operands(text: Bytes, pos: int, stop: int) -> int:
    """The number of blank-separated words up to an inline comment; a quoted text is (part of) one word."""
    count = 0
    quote = np.int64(0)
    before = np.int64(ord(" "))
    for i in range(pos, stop):
        c = np.int64(text[i])
        if quote == 0:
            if c == ord(";") or (c == ord("/") and i + 1 < stop and text[i + 1] == ord("/")):
                break
            if c == ord("$") and (_KIND[before] == _BLANK or before == ord(",")):
                break
            if _KIND[c] != _BLANK and _KIND[before] == _BLANK:
                count += 1
            if c == ord("'") or c == ord('"'):
                quote = c
        elif c == quote:
            quote = np.int64(0)
        before = c if quote == 0 else quote
    return count


@jit(small=8_000)
def _read_number(text: Bytes, pos: int, stop: int, is_resistor: bool) -> tuple[int, np.int64, float]:
    """Read a SPICE number: (where its mantissa stops, power of ten by exponent and suffix, value).

    The first is -1 when the number is not plain; the value is NaN when it takes more than this kernel's arithmetic.
    """
    nothing = (-1, np.int64(0), 0.0)
    if stop - pos > _LONGEST_NUMBER:
        return nothing
    negative = text[pos] == ord("-")
    if negative or text[pos] == ord("+"):
        pos += 1
    mantissa = exponent = np.int64(0)
    digits = used = fraction = 0
    point = False
    while pos < stop:
        digit = np.int64(text[pos]) - ord("0")
        if 0 <= digit <= 9:
            digits += 1
            fraction += point
            used += 1 if used > 0 or digit > 0 else 0
            if used <= _DIGITS:
                mantissa = mantissa * 10 + digit
        elif text[pos] == ord(".") and not point:
            point = True
        else:
            break
        pos += 1
    if digits == 0:
        return nothing
    digits_stop = pos
    if pos < stop and (_FOLD[text[pos]] == ord("e") or _FOLD[text[pos]] == ord("d")):
        pos += 1
        minus = pos < stop and text[pos] == ord("-")
        if minus or (pos < stop and text[pos] == ord("+")):
            pos += 1
        begin = pos
        while pos < stop and ord("0") <= text[pos] <= ord("9"):
            if exponent < 99999:  # far beyond any double
                exponent = exponent * 10 + np.int64(text[pos]) - ord("0")
            pos += 1
        if pos == begin:
            return nothing
        if minus:
            exponent = -exponent
    if pos < stop:
        scale = _read_suffix(text, pos, stop, is_resistor)
        if scale < -99:
            return nothing
        exponent += scale
    dropped = max(0, used - _DIGITS)
    number = _to_double(mantissa, exponent - fraction + dropped, dropped > 0)
    return digits_stop, exponent, -number if negative else number


@jit(small=8_000)
def _read_suffix(text: Bytes, pos: int, stop: int, is_resistor: bool) -> np.int64:
    """The power of ten of a suffix with its unit; -100: not letters, or one that the parser remarks on."""
    for i in range(pos, stop):
        if not ord("a") <= _FOLD[text[i]] <= ord("z"):
            return np.int64(-100)
    first = _FOLD[text[pos]]
    if first == ord("m") and stop - pos >= 3:
        second, third = _FOLD[text[pos + 1]], _FOLD[text[pos + 2]]
        if second == ord("e") and third == ord("g"):
            return np.int64(6)
        if second == ord("i") and third == ord("l"):
            return np.int64(-100)
    if first == ord("a") or (is_resistor and text[pos] == ord("M")):
        return np.int64(-100)
    return _SUFFIX[first]


@jit(small=8_000)
def _to_double(mantissa: np.int64, exponent: np.int64, cut: bool) -> float:
    """The double nearest to mantissa * 10^exponent, for 0 <= mantissa < 10^18; NaN where that is not certain.

    cut: the mantissa has lost its further digits, it is anywhere up to one larger. Either exactly, or as the unrounded
    sum product + rest with a relative error below 2^-102 (a product of two unevaluated sums of doubles, Dekker 1971):
    certain when both ends of the error bar round to the same double.
    """
    if mantissa < 1 << 53 and -22 <= exponent <= 22:  # both operands are exact: one rounding
        if exponent < 0:
            return mantissa / _POWER[_REACH - exponent]
        return mantissa * _POWER[_REACH + exponent]
    if not -_REACH <= exponent <= _REACH:
        return np.nan
    x = np.float64(mantissa)
    x_rest = np.float64(mantissa - np.int64(x))
    p = _POWER[_REACH + exponent]
    big = 134217729.0 * x  # 2^27 + 1 splits a double in two halves whose products are exact
    x_high = big - (big - x)
    x_low = x - x_high
    big = 134217729.0 * p
    p_high = big - (big - p)
    p_low = p - p_high
    product = x * p
    rest = ((x_high * p_high - product) + x_high * p_low + x_low * p_high) + x_low * p_low
    rest += x * _POWER_REST[_REACH + exponent] + x_rest * p
    margin = product * 2.0**-100
    above, below = product + (rest + margin + cut * p), product + (rest - margin)
    return above if above == below else np.nan


@jit(small=8_000)
def _intern(text: Bytes, start: Ints, stop: Ints, index: Ints, first: Ints) -> tuple[int, int]:
    """Number the names text[start:stop] by first appearance, ASCII case ignored; `0` and `gnd` are one name.

    index[i] gets the number of name i, first[number] the position where it appears first. Returns how many there are
    and the number of ground (-1: none). An open-addressing table of (key, number + 1), at most half full.
    """
    table = np.zeros((1024, 2), np.uint64)
    count = 0
    ground = -1
    for i in range(start.size):
        if _is_ground(text, start[i], stop[i]):
            if ground < 0:
                ground = count
                first[count] = i
                count += 1
            index[i] = ground
            continue
        key = _key(text, start[i], stop[i])
        slot = _slot(key, table)
        while table[slot, 1] != 0:
            if table[slot, 0] == key:
                j = first[np.int64(table[slot, 1]) - 1]
                if key < _HASHED or _is_same(text, start[i], stop[i], start[j], stop[j]):
                    break
            slot = (slot + 1) & (table.shape[0] - 1)
        if table[slot, 1] == 0:
            first[count] = i
            count += 1
            table[slot, 0], table[slot, 1] = key, count
        index[i] = np.int64(table[slot, 1]) - 1
        if 2 * count > table.shape[0]:
            table = _grow(table)
    return count, ground


@jit(small=8_000)
def _find_keys(text: Bytes, start: Ints, stop: Ints, keys: NDArray[np.uint64]) -> None:
    for i in range(start.size):
        keys[i] = _key(text, start[i], stop[i])


@jit(small=8_000)
def _key(text: Bytes, start: int, stop: int) -> np.uint64:
    """Up to 8 folded ASCII bytes themselves, the high bit clear; of a longer name a hash with the high bit set."""
    key = np.uint64(0)
    if stop - start <= 8:
        for pos in range(start, stop):
            key = (key << np.uint64(8)) | np.uint64(_FOLD[text[pos]])
        return key
    for pos in range(start, stop):
        key = key * _MULTIPLIER + np.uint64(_FOLD[text[pos]])
    return key | _HASHED


@jit(small=8_000)
def _slot(key: np.uint64, table: NDArray[np.uint64]) -> int:
    """Where the search for a key begins: multiplicative hashing."""
    mixed = (key ^ (key >> np.uint64(32))) * _MULTIPLIER
    return np.int64(mixed >> np.uint64(32)) & (table.shape[0] - 1)


@jit(small=8_000)
def _grow(table: NDArray[np.uint64]) -> NDArray[np.uint64]:
    larger = np.zeros((4 * table.shape[0], 2), np.uint64)
    for i in range(table.shape[0]):
        if table[i, 1] != 0:
            slot = _slot(table[i, 0], larger)
            while larger[slot, 1] != 0:
                slot = (slot + 1) & (larger.shape[0] - 1)
            larger[slot, 0], larger[slot, 1] = table[i, 0], table[i, 1]
    return larger


@jit(small=8_000)
def _is_ground(text: Bytes, start: int, stop: int) -> bool:
    if stop - start == 1:
        return text[start] == ord("0")
    return (
        stop - start == 3
        and _FOLD[text[start]] == ord("g")
        and _FOLD[text[start + 1]] == ord("n")
        and _FOLD[text[start + 2]] == ord("d")
    )


@jit(small=8_000)
def _is_same(text: Bytes, start: int, stop: int, other: int, other_stop: int) -> bool:
    if stop - start != other_stop - other:
        return False
    for k in range(stop - start):  # noqa: SIM110
        if _FOLD[text[start + k]] != _FOLD[text[other + k]]:
            return False
    return True
