"""What all writers of netlists share: names, the present values of a circuit, `.dc` cards, lines of limited width."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from circuitsim.circuit import Circuit
from circuitsim.errors import NetlistError, SettingsError
from circuitsim.netlist.analyses import points
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.model import Netlist, Swept
from circuitsim.netlist.revalue import Revaluer

_WIDTH = 120
_TEMPERATURE = re.compile(r"\btc|temp", re.IGNORECASE)  # in a card of which a value may depend on it


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
        if self.unsafe.search(f"{base}_2"):  # no number behind it makes it safe: `temper.a`
            base = base.replace(".", "_")
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
    batch = circuit.batch
    if batch > 1:
        raise SettingsError(f"{command}: the sources have a batch of {batch} values, a netlist holds one; set one row")


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


def follows_temperature(netlist: Netlist) -> bool:
    """Whether some element has another value at another temperature, which a deck of final values does not say."""
    named = any(_TEMPERATURE.search(card.text) for card in netlist.text.cards)
    return named and _other_values(netlist, Revaluer(netlist), netlist.options.temp + 1.0)


def dc_cards(circuit: Circuit, name_of: Callable[[Swept], str | None]) -> Iterator[str]:
    """The `.dc` cards of a circuit for a deck of final values, without parameters; a comment for each it cannot say.

    `name_of`: what a swept element or array is called in the deck; None: nothing there can be swept in its place.
    """
    netlist = circuit.netlist
    analyses = netlist.sweeps
    if not analyses:
        return
    revaluer = Revaluer(netlist)
    for analysis in analyses:
        found = [_swept(netlist, revaluer, swept, name_of) for swept in analysis.sweeps]
        faults = [text for text, fits in found if not fits]
        if faults:
            given = " ".join(f"{s.name} {s.start!r} {s.stop!r} {s.step!r}" for s in analysis.sweeps)
            yield f"* left out: .dc {given}: {'; '.join(faults)}\n"
        else:
            yield f".dc {' '.join(text for text, _ in found)}\n"


def _swept(
    netlist: Netlist, revaluer: Revaluer, swept: Swept, name_of: Callable[[Swept], str | None]
) -> tuple[str, bool]:
    """The words `name start stop step`; or why there are none, and False."""
    if swept.kind == "param":
        return f"{swept.name} is a parameter, and there are none here", False
    if swept.kind == "temp":
        if any(_other_values(netlist, revaluer, temp) for temp in (swept.start, swept.stop)):
            return "values here do not follow the temperature as in the original", False
        return f"temp {swept.start!r} {swept.stop!r} {swept.step!r}", True
    name = name_of(swept)
    if name is None:
        return f"there is no one element {swept.name} to sweep here", False
    factor = 1.0  # of the value on the card, in that which the element has: m, scale, temperature
    if swept.kind != "V":
        kind, start, stop = netlist.find(swept.name) or (swept.kind, 0, 0)
        table = revaluer.at_one([swept.name]).tables[kind]
        factors = np.unique(table.values[kind.lower()][start:stop])
        if factors.size > 1:
            return f"the members of {swept.name} have values of their own", False
        factor = float(factors[0])
    if factor == 1.0:
        return f"{name} {swept.start!r} {swept.stop!r} {swept.step!r}", True
    # `stop` half a step beyond the last point: rounding does not decide whether that is one
    stop_at = (float(points(swept)[-1]) + 0.5 * swept.step) * factor
    return f"{name} {swept.start * factor!r} {stop_at!r} {swept.step * factor!r}", True


def _other_values(netlist: Netlist, revaluer: Revaluer, temp: float) -> bool:
    """Whether values, but those that diodes work out by themselves, are others at this temperature."""
    try:
        other = revaluer.netlist(Changes(temp=temp))
    except NetlistError:
        return True
    usual, diodes = netlist.options.temp, other.tables["D"].values["temp"]
    if temp != usual and (diodes == usual).any():  # of a diode with a temperature of its own, the same as all have
        return True
    pairs = [
        (old, other.tables[kind].values[column])
        for kind, table in netlist.tables.items()
        for column, old in table.values.items()
        if (kind, column) != ("D", "temp")
    ]
    pairs += [(a.g, b.g) for a, b in zip(netlist.crossbars, other.crossbars, strict=True)]
    laws = [[(model.params, model.points) for model in n.models] for n in (netlist, other)]
    return laws[0] != laws[1] or not all(np.array_equal(a, b) for a, b in pairs)
