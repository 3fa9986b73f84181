"""Arrays in the netlist language: ranges in names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import TypeVar

from circuitsim.errors import NetlistError
from circuitsim.netlist.tokens import shown

T = TypeVar("T")

_RANGE = re.compile(r"\[([0-9]+)(?::([0-9]+))?\]")
_DIGITS = 15  # of an index
NUMBER = f"[0-9]{{1,{_DIGITS}}}"  # the pattern of one
INDEX = re.compile(rf"\[({NUMBER})(?::({NUMBER}))?\]")
_LIKE_A_RANGE = re.compile(r"\[[^\[\]]*:[^\[\]]*\]?$")
SPAN = re.compile(rf"\[({NUMBER}):({NUMBER})\]")


def split_ranges(word: str) -> tuple[str, tuple[range | int, ...]]:
    """The base name and the indices of a name with a range; a range includes both ends, and may run downwards.

    >>> split_ranges("RW[0:2][5:4]")
    ('RW', (range(0, 3), range(5, 3, -1)))
    >>> split_ranges("w[0:2][7]"), split_ranges("h[3]")
    (('w', (range(0, 3), 7)), ('h[3]', ()))
    """
    stop = len(word)
    indices: list[range | int] = []
    while stop and word[stop - 1] == "]":
        start = word.rfind("[", 0, stop)
        match = _RANGE.fullmatch(word, max(start, 0), stop)
        if match is None:
            break
        first, last = match.groups()
        if max(len(first), len(last or "")) > _DIGITS:
            if last is None:
                break
            raise NetlistError(f"range {shown(match.group())}: an index has at most {_DIGITS} digits")
        a, b = int(first), int(last or first)
        if last is None and first != str(a):  # `[007]` is spelled otherwise than a member
            break
        indices.append(a if last is None else between(a, b))
        stop = start
    indices.reverse()
    return (word[:stop], tuple(indices)) if any(isinstance(k, range) for k in indices) else (word, ())


def between(first: int, last: int) -> range:
    """The numbers from one to the other, both included, up or down."""
    return range(first, last + 1) if first <= last else range(first, last - 1, -1)


def array_name(word: str, most: int) -> tuple[str, tuple[range, ...]]:
    """The base name and the ranges, `most` or fewer, in the name of an element. NetlistError for others."""
    base, indices = split_ranges(word)
    refuse_what_is_like_a_range(base)
    ranges = tuple(k for k in indices if isinstance(k, range))
    if len(ranges) < len(indices):
        raise NetlistError("an index beside a range; in the name of an array write ranges only, such as [2:2]")
    if len(ranges) > most:
        raise NetlistError(f"{len(ranges)} ranges in the name; write {'one' if most == 1 else 'one or two'}")
    return base, ranges


def refuse_what_is_like_a_range(base: str) -> None:
    """NetlistError for what a reader takes for a range, in a name without its ranges: `R[0:n]`."""
    if _LIKE_A_RANGE.search(base):
        raise NetlistError(
            f"a range is two numbers, such as [0:3], without parameters or a step; found '{shown(base)}'"
        )


def lengths(indices: tuple[range | int, ...]) -> tuple[int, ...]:
    """How many members each of the ranges has.

    >>> lengths((range(3), 7))
    (3,)
    """
    return tuple(len(k) for k in indices if isinstance(k, range))


def bounds_of(ranges: Sequence[range]) -> str:
    """Ranges as they are written.

    >>> bounds_of((range(3), range(5, 3, -1)))
    '[0:2][5:4]'
    """
    return "".join(f"[{k[0]}:{k[-1]}]" for k in ranges)


def member_names(base: str, indices: Sequence[range | int]) -> list[str]:
    """The names of an array's members, last index fastest.

    >>> member_names("y", (range(2), range(3, 5)))
    ['y[0][3]', 'y[0][4]', 'y[1][3]', 'y[1][4]']
    >>> member_names("w", (range(2), 7))
    ['w[0][7]', 'w[1][7]']
    """
    names = [base]
    for k in indices:
        names = [f"{name}[{i}]" for name in names for i in (k if isinstance(k, range) else [k])]
    return names


def corners(base: str, indices: Sequence[range | int]) -> list[str]:
    """The first and the last of the members in each range.

    >>> corners("w", (range(4), 7))
    ['w[0][7]', 'w[3][7]']
    >>> corners("w[0]", ())
    ['w[0]']
    """
    ends = [sorted({k[0], k[-1]}) if isinstance(k, range) else [k] for k in indices]
    return [base + "".join(f"[{k}]" for k in at) for at in product(*ends)]


def instance_paths(path: str) -> tuple[int, Iterator[str]]:
    """How many names the path of an instance with ranges stands for (10^15 or more: 10^15), and the names, the last
    range fastest.

    >>> count, names = instance_paths("R.X[0:1].Y[2][4:3]")
    >>> count, list(names)
    (4, ['R.X[0].Y[2][4]', 'R.X[0].Y[2][3]', 'R.X[1].Y[2][4]', 'R.X[1].Y[2][3]'])
    >>> instance_paths("X[0:99999999].Y[0:99999999]")[0] == 10**15
    True
    """
    texts = SPAN.split(path)  # what is between the ranges, and their two numbers
    ends = [(int(a), int(b)) for a, b in zip(texts[1::3], texts[2::3], strict=True)]
    ranges = [between(a, b) for a, b in ends]

    def names() -> Iterator[str]:
        for at in product(*ranges):  # which holds all of a range: not before it is known to be short
            yield texts[0] + "".join(f"[{k}]{text}" for k, text in zip(at, texts[3::3], strict=True))

    return min(prod(abs(a - b) + 1 for a, b in ends), 10**_DIGITS), names()


def spread(word: str, ranges: tuple[range, ...], side: int, what: str) -> list[str]:
    """The names that a word stands for beside an array: one for all its members, or for each, or each row or column.

    Of an array with two ranges, one range in the word goes with the first (`side` 0) or the second (1). NetlistError,
    in which the word is `what`, when the ranges do not match.
    """
    base, indices = split_ranges(word) if ranges else (word, ())
    if ranges:
        refuse_what_is_like_a_range(base)
    found = lengths(indices)
    if not found:
        return [word]
    wanted = ranges[side : side + 1] if len(found) < len(ranges) else ranges
    if found != lengths(wanted):
        raise NetlistError(
            f"ranges do not match: {what} {shown(word)} has {product_of(found)} members, "
            f"{bounds_of(wanted)} of the element has {product_of(lengths(wanted))}; make them equal"
        )
    return member_names(base, indices)


def at_members(found: list[T], ranges: tuple[range, ...], side: int) -> list[T]:
    """What was found for the names of `spread`, for each member of the array, row by row.

    >>> at_members(["a", "b"], (range(2), range(3)), 0), at_members(["a", "b"], (range(3), range(2)), 1)
    (['a', 'a', 'a', 'b', 'b', 'b'], ['a', 'b', 'a', 'b', 'a', 'b'])
    """
    count = prod(lengths(ranges))
    if len(found) in (1, count):
        return found if len(found) == count else found * count
    return found * len(ranges[0]) if side else [x for x in found for _ in ranges[1]]


def product_of(counts: tuple[int, ...]) -> str:
    """So many members, as messages say it: `3 x 4`."""
    return shown(" x ".join(f"{n:,}" for n in counts))
