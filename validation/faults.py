"""A random deck judged twice: by references that share no code with circuitsim, and against ngspice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import circuitsim as cs
from circuitsim.spice.compare import Comparison, Quantity, Verdict, compare
from circuitsim.spice.flatten import MIN_RON
from circuitsim.spice.ngspice import RELTOL
from validation.deck_equations import EPS, broken_equation, controlled_currents, ideal_currents
from validation.dense import Dense
from validation.random_circuits import BAD, ENORMOUS, FAILED, MOST, ONE, judge
from validation.random_decks import Deck
from validation.results import row_of

_TIMEOUT = 60  # s, of ngspice for a random deck: it needs milliseconds, or turns in circles
_NONLINEAR = ("D", "N")


@dataclass(frozen=True)
class Judged:
    """What came of a deck: `fault` names what circuitsim did wrong, '' nothing; `row` is for the results."""

    deck: Deck
    fault: str
    row: dict[str, Any]


def judged(deck: Deck) -> Judged:
    """Judge a deck (random_circuits.judge), and compare it with ngspice.

    Faults: what `judge` finds wrong or crashing; no answer where one is known to exist, and for circuits without
    controlled sources none at all where there may be one; a difference from ngspice that nothing explains.
    """
    outcome = judge(deck)
    fault = outcome.kind if outcome.kind in BAD else ""
    if outcome.kind == FAILED and (ONE in outcome.why or not deck.has(*"EFGH")):
        fault = FAILED
    name = f"family {deck.family}, seed {deck.seed}"
    try:
        found = compare(cs.parse(deck.text), timeout=_TIMEOUT)
    except Exception as error:
        fault, why = fault or f"crash: {type(error).__name__}", outcome.why or str(error)
        return Judged(
            deck, fault, {"suite": "random", "name": name, "verdict": outcome.kind, "why": why, "fault": fault}
        )
    explained = ""
    if found.verdict is Verdict.DIFFER:
        theirs = max((abs(q.theirs) for q in found.quantities if q.name[0] == "i"), default=0.0)
        absurd = outcome.kind == ENORMOUS and theirs > MOST
        explained = explanation(deck, found) or "absurd currents, in ngspice too" * absurd
    if found.verdict is Verdict.DIFFER and not explained:
        fault = fault or "ngspice"
    more = {"judged": outcome.kind, "why": outcome.why, "fault": fault, "explained": explained}
    return Judged(deck, fault, row_of("random", name, found) | more)


def explanation(deck: Deck, found: Comparison) -> str:
    """Why ngspice may differ although circuitsim is right; '' when it may not.

    The deck's own equations decide (deck_equations.py), so that nothing circuitsim makes of the deck enters: ours must
    hold, and ngspice's not.
    """
    dense = Dense(deck)
    if _broken(deck, dense, found, lambda q: q.ours, 0.0):
        return ""
    size = max((abs(q.theirs) for q in found.quantities if q.name[0] == "v"), default=0.0)
    rounding = {"v": EPS * size, "i": EPS * size * dense.g.max(initial=1.0)}
    if all(q.difference <= rounding[q.name[0]] for q in found.differing):
        return f"ngspice leaves nodes at {size:.1e} V, where rounding hides all else"
    if broken := _broken(deck, dense, found, lambda q: q.theirs, MIN_RON):
        return f"ngspice's answer breaks an equation: {broken}"
    if deck.has(*"EFGH") and deck.has(*_NONLINEAR):
        return "several solutions: controlled sources and nonlinear elements"
    return ""


def _broken(deck: Deck, dense: Dense, found: Comparison, whose: Callable[[Quantity], float], ron: float) -> str:
    """The first equation that an answer breaks, with the currents of perfect diodes that fit it best."""
    values = {q.name: q for q in found.quantities}
    volts = {name: values[f"v({name.lower()})"] for name in deck.nodes if name != "0"}
    v, certain = {name: whose(q) for name, q in volts.items()}, {name: q.determined for name, q in volts.items()}
    named = {part.name: f"i({part.name.lower()})" for part in deck.parts}
    i = {part: whose(values[name]) for part, name in named.items() if name in values}
    i |= controlled_currents(deck, v, i)
    near = RELTOL * max(map(abs, v.values()), default=0.0) + ron * max(map(abs, i.values()), default=0.0)
    i |= ideal_currents(dense, v, i, near)
    return broken_equation(dense, v, i, certain=certain, ron=ron)
