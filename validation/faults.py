"""A random deck judged twice: by references that share no code with circuitsim, and against ngspice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import circuitsim as cs
from circuitsim.io.compare import Comparison, Verdict, compare
from validation.random_circuits import BAD, FAILED, ONE, judge
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
    explained = explanation(deck, found) if found.verdict is Verdict.DIFFER else ""
    if found.verdict is Verdict.DIFFER and not explained:
        fault = fault or "ngspice"
    more = {"judged": outcome.kind, "why": outcome.why, "fault": fault, "explained": explained}
    return Judged(deck, fault, row_of("random", name, found) | more)


def explanation(deck: Deck, found: Comparison) -> str:
    """Why ngspice may differ although circuitsim is right; '' when it may not. The certificate decides."""
    tolerance = cs.Settings().tolerance
    if not found.kcl_ours <= tolerance:
        return ""
    if not found.kcl_theirs <= tolerance:
        return f"ngspice's answer misses KCL by {found.kcl_theirs:.1e}"
    if deck.has(*"EFGH") and deck.has(*_NONLINEAR):
        return "several solutions: controlled sources and nonlinear elements"
    return ""
