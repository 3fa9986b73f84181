"""`.op` and `.dc` cards: what is swept, and through which points."""

from __future__ import annotations

import numpy as np

from circuitsim.errors import NetlistError
from circuitsim.netlist.model import ABSOLUTE_ZERO, Analysis, Floats, Netlist, Swept, similar
from circuitsim.netlist.scopes import Scope
from circuitsim.netlist.source import Card
from circuitsim.netlist.tokens import labelled, located, shown, split_keys, tokenize

MAX_POINTS = 10_000_000  # of an analysis
_BEYOND = 1e3 * float(np.finfo(np.float64).eps)  # V, A, ohm or K that a last point may lie beyond `stop`, as in ngspice
_SHARE = 0.5  # of a step: of a parameter, which ngspice does not sweep, it may not by more
_FORM = ".dc needs SOURCE START STOP STEP, or that twice"
_SWEEPABLE = "a V, I or R element, TEMP or a parameter of the main netlist"


def read_analyses(cards: list[Card], netlist: Netlist, root: Scope) -> tuple[Analysis, ...]:
    """The `.op` and `.dc` cards of a netlist, in deck order; `root` gives parameters their values. NetlistError."""
    analyses = []
    for card in cards:
        with located(root.place, card.seq):
            analyses.append(read_analysis(card, netlist, root))
    return tuple(analyses)


def read_analysis(card: Card, netlist: Netlist, root: Scope) -> Analysis:
    """One of these cards. NetlistError without a place."""
    if card.keyword == ".op":
        return Analysis("op", card.seq)
    given = split_keys(tokenize(card.text)[1:])
    words = given.words
    if given.keys or len(words) not in (4, 8):
        found = f"{len(words)} words" if not given.keys else f"'{shown(next(iter(given.keys)))}='"
        raise NetlistError(f"{_FORM}; found {found}{_other_form(words)}")
    sweeps = tuple(_swept(netlist, root, words[k : k + 4]) for k in range(0, len(words), 4))
    if len(sweeps) == 2 and sweeps[0].name.lower() == sweeps[1].name.lower():
        raise NetlistError(f".dc: {shown(sweeps[0].name)} is swept twice; name another source")
    count = 1.0
    for swept in sweeps:
        count *= _count(swept)
        if count > MAX_POINTS:
            raise NetlistError(f".dc: {count:,.0f} points, more than {MAX_POINTS:,}; take a larger step")
    return Analysis("dc", card.seq, sweeps)


def _other_form(words: list[str]) -> str:
    """The remedy for forms of other simulators."""
    kinds = {word.lower() for word in words[:2]} & {"dec", "oct", "list", "lin"}
    if not kinds:
        return ""
    if "lin" in kinds:
        return "; leave 'lin' out"
    return (
        f"; there is no '{kinds.pop()}': over decades sweep an exponent, .param r={{10**x}} and .dc x 3 6 0.5, and "
        "give the points of a list one by one"
    )


def points(swept: Swept) -> Floats:
    """The values of a swept quantity, as in ngspice: `start`, with `step` added repeatedly up to `stop`.

    Temperatures are added in kelvin. `stop` is a point only if it is hit, to within 2.2e-13, or half a step for a
    parameter.

    >>> points(Swept("V", "V1", 0.0, 1.0, 0.3)).round(12)
    array([0. , 0.3, 0.6, 0.9])
    """
    zero = -ABSOLUTE_ZERO if swept.kind == "temp" else 0.0
    values = np.full(int(_count(swept)) + 2, float(swept.step))
    values[0] = zero + swept.start
    values = np.add.accumulate(values)
    beyond = np.sign(swept.step) * (values - (zero + swept.stop)) > _beyond(swept)
    return values[~beyond] - zero


def _count(swept: Swept) -> float:
    """How many points there are; when their sums round differently, one more or less."""
    return float((abs(swept.stop - swept.start) + _beyond(swept)) // abs(swept.step) + 1.0)


def _beyond(swept: Swept) -> float:
    return min(_BEYOND, _SHARE * abs(swept.step)) if swept.kind == "param" else _BEYOND


def _swept(netlist: Netlist, root: Scope, words: list[str]) -> Swept:
    """Four words: what, start, stop, step."""
    kind, name = _named(netlist, root, words[0])
    with labelled(f".dc {shown(name)}"):
        start, stop, step = (float(root.number(word)) for word in words[1:])
        if step == 0:
            raise NetlistError("the step is 0; write how far the points are apart")
        if (stop - start) * step < 0:
            way = "positive" if stop > start else "negative"
            raise NetlistError(f"a step of {step:g} never gets from {start:g} to {stop:g}; make it {way}")
        if start + step == start:
            raise NetlistError(f"a step of {step:g} is too small to change {start:g}; make it larger")
        if kind == "temp" and min(start, stop) <= ABSOLUTE_ZERO:
            raise NetlistError(f"{min(start, stop):g} C is not above absolute zero, {ABSOLUTE_ZERO} C")
        if kind == "R" and min(start, stop) <= 0:
            raise NetlistError(
                f"a resistance of {min(start, stop):g} ohm at an end of the sweep; it must stay positive"
            )
    return Swept(kind, name, start, stop, step)


def _named(netlist: Netlist, root: Scope, word: str) -> tuple[str, str]:
    """The kind and the name of what is to be swept: an element goes before TEMP, and that before a parameter."""
    found = netlist.find(word)
    key = word.lower()
    if any(crossbar.name.lower() == key.partition("[")[0] for crossbar in netlist.crossbars):
        cure = "write their value as a parameter, and sweep that"
        raise NetlistError(f".dc: '{shown(word)}' belongs to a crossbar, whose resistors cannot be swept; {cure}")
    if found is not None:
        kind, start, _ = found
        if kind not in "VIR":
            raise NetlistError(f".dc: '{shown(word)}' cannot be swept; name {_SWEEPABLE}")
        single = key not in netlist.arrays
        return kind, netlist.tables[kind].names[start] if single else word
    if key == "temp":
        return "temp", "temp"
    if key in root.block.params:
        return "param", word
    known = [name.lower() for kind in "VIR" for name in netlist.tables[kind].names[:5000]]
    hint = similar(key, [*root.block.params, *known, "temp"], "names")
    raise NetlistError(f".dc: no '{shown(word)}' to sweep; name {_SWEEPABLE}{hint}")
