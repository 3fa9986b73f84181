"""What all writers of netlists share: names, the values that a circuit has now, lines of limited width."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from circuitsim.circuit import KINDS, Circuit
from circuitsim.errors import SettingsError

Floats = NDArray[np.float64]

_WIDTH = 120


class Names:
    """Names that are taken, in any case, and fresh ones made from them. `unsafe`: what no name may match anywhere."""

    def __init__(self, unsafe: re.Pattern[str], taken: Iterable[str] = ()) -> None:
        self.unsafe = unsafe
        self.taken = {name.lower() for name in taken}
        self.last: dict[str, int] = {}

    def fresh(self, wanted: str) -> str:
        """`wanted` in letters, digits, `_` and `.`; with a number behind it when that is taken.

        >>> names = Names(re.compile("^temper$"), ["h_0"])
        >>> names.fresh("h[0]"), names.fresh("h[1]"), names.fresh("temper")
        ('h_0_2', 'h_1', 'temper_2')
        """
        base = re.sub(r"[^A-Za-z0-9_.]+", "_", wanted).strip("_") or "n"
        name = base
        while name.lower() in self.taken or self.unsafe.search(name):
            self.last[base] = self.last.get(base, 1) + 1
            name = f"{base}_{self.last[base]}"
        self.taken.add(name.lower())
        return name

    def keep(self, name: str) -> str:
        """`name` as it is when it is safe and free, a fresh one otherwise."""
        if name.lower() in self.taken or self.unsafe.search(name):
            return self.fresh(name)
        self.taken.add(name.lower())
        return name


def safe_names(names: list[str], unsafe: re.Pattern[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The names with unsafe ones replaced, and the pairs (old, new) of those."""
    if not unsafe.search("\n".join(names)):
        return names, []
    fresh = Names(unsafe, names)
    safe = [fresh.fresh(name) if unsafe.search(name) else name for name in names]
    return safe, [(old, new) for old, new in zip(names, safe, strict=True) if old != new]


def refuse_batch(circuit: Circuit, command: str) -> None:
    """Raise SettingsError when sources have more than one row of values."""
    batch = max(circuit.ties.e.shape[0], circuit.current_sources.i.shape[0])
    if batch > 1:
        raise SettingsError(f"{command}: the sources have a batch of {batch} values, a netlist holds one; set one row")


def source_volts(circuit: Circuit) -> Floats:
    """What each voltage source gives now, (n_V,), V."""
    return circuit.ties.e[0, circuit.ties.kind == KINDS.index("V")]


def gains(circuit: Circuit) -> dict[str, Floats]:
    """The gain that each controlled source has now, by kind."""
    c = circuit.controlled
    return {kind: c.gain[c.kind == KINDS.index(kind)] for kind in "EFGH"}


def wrapped(head: str, words: Iterable[str]) -> Iterator[str]:
    """`head` and the words in lines of limited width, each beginning with `head`; nothing when there are no words.

    >>> list(wrapped(".output", ["a", "b"]))
    ['.output a b\\n']
    """
    line = ""
    for word in words:
        if line and len(line) + len(word) >= _WIDTH:
            yield f"{head}{line}\n"
            line = ""
        line += f" {word}"
    if line:
        yield f"{head}{line}\n"
