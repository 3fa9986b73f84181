"""Random circuits against independent references: a table of outcomes, and the seeds of what went wrong.

    python -m validation.random_circuits --count 2000 --seed 0 [--family 3] [--show]

Every solved circuit is put into its own equations (KCL at every node, sources, signs of ideal diodes), computed by
deck_equations.py from the parts of the deck; voltages and resistor currents are compared with a QP solver and a dense
Newton (convex circuits), with modified nodal analysis in rational arithmetic (linear ones) and with ngspice. Errors
that say that there is no solution are compared with linear programs, with controlled sources mixed-integer ones. Nodes
whose voltages are marked as not unique need another solution that shows it. Exits with 1 when an answer is wrong or
something crashes.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.io.raw import NgspiceError
from circuitsim.spice.flatten import flatten
from circuitsim.spice.ngspice import VNTOL, operating_point, tight_options
from validation.deck_equations import EPS, KCL, LEAST, broken_equation, controlled_currents, other_solutions
from validation.dense import Answer, Dense, NoReference, convex_answer, linear_answer, piecewise_solvable
from validation.random_decks import FAMILIES, Deck, random_deck, shares

Floats = NDArray[np.float64]

AGREE, VERIFIED, REFUSED = "agree", "equations hold", "no solution"
UNDECIDED, ENORMOUS, FAILED, WRONG, CRASH = "undecided", "enormous", "not solved", "WRONG", "crash"
OUTCOMES = (AGREE, VERIFIED, REFUSED, UNDECIDED, ENORMOUS, FAILED, WRONG, CRASH)
BAD = (WRONG, CRASH)
NONE, ONE = "it has no solution: ", "it has a solution: "  # why something is not solved begins with, where known
ABSURD = "absurd currents: "  # the same, of what is beyond MOST, or beyond float64

SAME = 1e-6  # of the largest voltage, or current
MOST = 1e6  # A through a diode: beyond, a deck is absurd
_MOST_VOLTS = 1e7  # V, the same: 1 uA through the gmin of ngspice is 1e6 V
_NGSPICE_KCL = 1e-7  # the same, where ngspice's voltages are compared
_LEAST_VOLTS = 1e-6  # V: beside the sources here, nothing; references round 1 mA through 1 Mohm to 1e-13 V
_NGSPICE_VOLTS = 1e-3  # V: the same for ngspice, which has gmin and tolerances
_STEPS = 1000  # of a method that does not get there
_BCD_SWEEPS = 300


@dataclass(frozen=True)
class Outcome:
    """What came of a deck: one of OUTCOMES, and why."""

    deck: Deck
    kind: str
    why: str = ""


def judge(deck: Deck, with_ngspice: bool = True) -> Outcome:
    """Solve a deck and compare; exceptions other than CircuitError, and warnings, are crashes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            solution = cs.solve(cs.parse(deck.text), cs.Settings(max_sweeps=_STEPS), raise_on_failure=False)
            found = _Found.of(deck, solution) if solution.solved else None
        except cs.CircuitError as error:
            warnings.simplefilter("ignore")
            return Outcome(deck, *_refused(deck, error, with_ngspice))
        except Exception as error:
            return Outcome(deck, CRASH, f"{type(error).__name__}: {error}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dense = Dense(deck)
        if found is None:
            return Outcome(deck, *_unsolved(dense, solution, with_ngspice))
        return Outcome(deck, *_solved(dense, found, with_ngspice))


@dataclass(frozen=True)
class _Found:
    """A solution by name."""

    solution: cs.Solution
    v: dict[str, float]  # V, of every node
    certain: dict[str, bool]
    i: dict[str, float]  # A, of every part

    @classmethod
    def of(cls, deck: Deck, solution: cs.Solution) -> _Found:
        v, certain = solution.voltages()[0], solution.determined
        index = {name: k for k, name in enumerate(solution.circuit.nodes)}
        return cls(
            solution,
            {name: float(v[index[name]]) for name in deck.nodes},
            {name: bool(certain[index[name]]) for name in deck.nodes},
            {part.name: float(solution.current(part.name)[0]) for part in deck.parts},
        )


# -- verdicts ----------------------------------------------------------------------------------------------------------


def _refused(deck: Deck, error: cs.CircuitError, with_ngspice: bool) -> tuple[str, str]:
    """What an error is worth."""
    text = str(error).split("\n")[0]
    if not isinstance(error, cs.TopologyError):
        return WRONG, f"a circuit refused: {text}"
    if not error.elements and not error.nodes:
        return WRONG, f"an error without names: {text}"
    dense = Dense(deck)
    if dense.controlled:
        if not dense.law.size and not dense.vf.size:
            try:
                return (REFUSED, text) if linear_answer(dense) is None else (WRONG, f"there is a solution: {text}")
            except NoReference as none:
                return UNDECIDED, f"{none}: {text}"
        solvable = piecewise_solvable(dense)
        if solvable is not None:
            return (WRONG, f"there is a solution: {text}") if solvable else (REFUSED, text)
        if with_ngspice and _by_ngspice(deck, dense) is not None:
            return WRONG, f"ngspice has a solution: {text}"
        return UNDECIDED, text
    solvable = dense.solvable()
    if solvable is None:
        return UNDECIDED, text
    if not solvable:
        return REFUSED, text
    if "overflow" in text or "enormous" in text:
        return ENORMOUS, text
    return WRONG, f"there is a solution: {text}"


def _unsolved(dense: Dense, solution: cs.Solution, with_ngspice: bool) -> tuple[str, str]:
    text = f"{solution.method} {solution.status.name}: {solution.message.rsplit(':')[-1].strip()}"
    if not np.isfinite(solution.x).all() or solution.status is cs.Status.REFUSED:
        text = f"{ABSURD}{text}" if np.isinf(solution.x).any() else text
    else:
        reached = _Found.of(dense.deck, solution)
        if _largest_through_diode(dense, reached) > MOST:
            text = f"{ABSURD}{text}"
        elif not broken_equation(dense, reached.v, reached.i, certain=reached.certain):
            text = f"although its equations hold, {text}"
    if not dense.controlled and dense.solvable() is False:
        return FAILED, f"no solution, and not seen before: {text}"
    if dense.controlled and not dense.law.size and not dense.vf.size:
        try:
            answer = linear_answer(dense)
        except NoReference as none:
            return UNDECIDED, f"{none}: {text}"
        return FAILED, (NONE if answer is None else ONE) + text
    if dense.controlled and (solvable := piecewise_solvable(dense)) is not None:
        return FAILED, (ONE if solvable else NONE) + text
    if dense.controlled and with_ngspice and _by_ngspice(dense.deck, dense) is not None:
        return FAILED, f"{ONE}ngspice's: {text}"
    return FAILED, text


def _solved(dense: Dense, found: _Found, with_ngspice: bool) -> tuple[str, str]:
    if found.solution.residuals.kcl_relative > KCL:
        return WRONG, f"solved with a certificate of {found.solution.residuals.kcl_relative:.2g}"
    if _largest_through_diode(dense, found) > MOST:
        return ENORMOUS, ""
    if wrong := broken_equation(dense, found.v, found.i, certain=found.certain):
        return WRONG, wrong
    if wrong := _not_shown(dense, found):
        return WRONG, wrong
    if not dense.controlled and dense.solvable() is False:
        return WRONG, "solved, but linear programs say that there is no solution"
    if wrong := _bcd_differs(dense, found):
        return WRONG, wrong
    try:
        answer = _answer(dense)
    except NoReference as none:
        return VERIFIED, str(none)
    if answer is None:
        return WRONG, "solved, but there is no solution"
    if wrong := _all_open(dense, found, answer) or _difference(dense, found, answer):
        return WRONG, wrong
    if with_ngspice and dense.deck.family == 3 and (theirs := _by_ngspice(dense.deck, dense)) is not None:
        v = np.array([theirs[0].get(name, 0.0) for name in dense.names])
        known = answer.trusted & np.isin(dense.names, list(theirs[0]))
        if wrong := _difference(dense, found, Answer(v, known), _NGSPICE_VOLTS, VNTOL):
            return WRONG, f"ngspice: {wrong}"
    return AGREE, ""


def _answer(dense: Dense) -> Answer | None:
    """The reference solution, None when there is none; NoReference where several may exist."""
    if not dense.controlled:
        return convex_answer(dense)
    if dense.law.size or dense.vf.size:
        raise NoReference("diodes and controlled sources")
    return linear_answer(dense)


def _largest_through_diode(dense: Dense, found: _Found) -> float:
    return max((abs(found.i[part.name]) for part in dense.deck.parts if part.kind in "DN"), default=0.0)


# -- comparisons -------------------------------------------------------------------------------------------------------


def _difference(dense: Dense, found: _Found, answer: Answer, least: float = _LEAST_VOLTS, vntol: float = 0.0) -> str:
    """What differs by more than SAME of the largest voltage, of nodes or sources; '' when nothing does.

    least   V: beside it no voltage counts
    vntol   what each voltage of the answer may be off, V: a resistor's current is, by that
    """
    v = np.array([found.v.get(name, np.nan) for name in dense.names])
    certain = np.array([found.certain.get(name, False) for name in dense.names])
    scale = max(np.abs(answer.v[answer.trusted]).max(initial=0.0), np.abs(dense.e).max(initial=0.0), least)
    off = np.where(certain & answer.trusted, np.abs(v - answer.v), 0.0)
    rounding = 0.0
    if scale == least:  # all is nothing, but for what currents in sources leave where least holds
        rounding = EPS * np.abs(dense.i).max(initial=0.0) / dense.g.min(initial=np.inf)
    if off.max(initial=0.0) > SAME * scale + rounding:
        k = int(off.argmax())
        return f"node {dense.names[k]}: {v[k]!r} V, the reference says {answer.v[k]!r} V (largest {scale:.3g} V)"
    theirs = dense.g * (dense.R @ answer.v)
    is_r = np.array([x.part in found.i and x.part[0] == "R" for x in dense.resistors], bool)
    sure = is_r & (np.abs(dense.R) @ ~answer.trusted == 0)
    ours = np.array([found.i.get(x.part, 0.0) for x in dense.resistors])
    scale = max(np.abs(theirs[sure]).max(initial=0.0), LEAST)
    off = np.where(sure, np.abs(ours - theirs), 0.0)
    noise = dense.g * (1e3 * EPS * np.abs(dense.R) @ np.abs(answer.v) + 2.0 * vntol)
    noise += KCL * max((abs(found.i[x.name]) for x in dense.deck.parts if x.kind in "VI"), default=0.0)  # may go astray
    if (off > SAME * scale + noise).any():
        k = int((off - noise).argmax())
        return f"current of {dense.resistors[k].part}: {ours[k]!r} A, the reference says {theirs[k]!r} A"
    return ""


def _not_shown(dense: Dense, found: _Found) -> str:
    """The first node that is marked as not unique, and is; '' when other solutions show of each that it is not."""
    loose = [name for name, unique in found.certain.items() if not unique]
    if dense.controlled or not loose:
        return ""
    others = other_solutions(dense, found.v, found.i)
    others = [v for v in others if not broken_equation(dense, v, found.i, certain=found.certain)]
    least = 64 * EPS * max(map(abs, found.v.values()))
    for name in loose:
        if all(abs(v[name] - found.v[name]) <= least for v in others):
            return f"{name} is marked as not unique, but no other solution is found"
    return ""


def _all_open(dense: Dense, found: _Found, answer: Answer) -> str:
    """What is wrong when each node of a linear circuit is marked, and none should be; '' else.

    Beside controlled sources a few nodes more than need be are marked.
    """
    marked = not any(unique for name, unique in found.certain.items() if name != "0")
    if dense.controlled and marked and answer.trusted.all():
        return "every node is marked as not unique, and all are"
    return ""


def _bcd_differs(dense: Dense, found: _Found) -> str:
    """What block coordinate descent says differently, where it says anything."""
    if dense.controlled or found.solution.method == "bcd":
        return ""
    other = cs.solve(found.solution.circuit, cs.Settings("bcd", max_sweeps=_BCD_SWEEPS), raise_on_failure=False)
    if not other.solved:
        return ""
    if broken_equation(dense, (mine := _Found.of(dense.deck, other)).v, mine.i, certain=mine.certain):
        return f"bcd: {broken_equation(dense, mine.v, mine.i, certain=mine.certain)}"
    return ""


def _by_ngspice(deck: Deck, dense: Dense) -> tuple[dict[str, float], dict[str, float]] | None:
    """Voltages and source currents by ngspice, where its own equations hold; None elsewhere.

    Circuits with ideal diodes are left out: ngspice has none. So are answers in which gmin carries what nothing else
    can: their voltages are enormous.
    """
    if dense.vf.size:
        return None
    text = io.StringIO()
    circuit = cs.parse(deck.text)
    flatten(circuit, text)
    try:
        found = operating_point(text.getvalue(), options=tight_options(), timeout=20)
    except NgspiceError:
        return None
    v = {name: found.get(name.lower(), 0.0) for name in deck.nodes}
    if max(map(abs, v.values())) > _MOST_VOLTS:
        return None
    i = {}
    for part in deck.parts:
        if part.kind in "VEH":
            i[part.name] = found.get(f"i({part.name.lower()})", 0.0)
        elif part.kind == "L" or (part.kind == "R" and part.value == 0):
            i[part.name] = found.get(f"i(v_{part.name.lower()})", 0.0)
    i |= controlled_currents(deck, v, i)
    return (v, i) if not broken_equation(dense, v, i, _NGSPICE_KCL) else None


# -- the command -------------------------------------------------------------------------------------------------------


@cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("random_circuits", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=2000, help="number of circuits, shared among the families")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first circuit of each family")
    parser.add_argument("--family", type=int, choices=list(FAMILIES), help="only this family")
    parser.add_argument("--show", action="store_true", help="print the decks of what went wrong")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 1 when an answer is wrong or something crashed."""
    options = _parser().parse_args(arguments)
    families = [options.family] if options.family else list(FAMILIES)
    bad = 0
    clock = time.perf_counter()
    print(f"{'family':24}" + "".join(f"{name:>16}" for name in OUTCOMES))
    for family, share in shares(options.count, families).items():
        outcomes = [judge(random_deck(family, options.seed + k)) for k in range(share)]
        counts = Counter(outcome.kind for outcome in outcomes)
        print(f"{family} {FAMILIES[family]:22}" + "".join(f"{counts[name]:16}" for name in OUTCOMES), flush=True)
        for outcome in outcomes:
            if outcome.kind in (*BAD, FAILED):
                print(f"    {outcome.kind}: family {family}, seed {outcome.deck.seed}: {outcome.why}")
            if outcome.kind in BAD and options.show:
                print("\n".join(f"        {line}" for line in outcome.deck.text.split("\n")))
        bad += sum(counts[name] for name in BAD)
    print(f"{options.count} circuits in {time.perf_counter() - clock:.0f} s; {bad} wrong or crashed")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
