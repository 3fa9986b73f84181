"""Random circuits against independent references: a table of outcomes, and the seeds of what went wrong.

    python -m validation.random_circuits --count 2000 --seed 0 [--family 3] [--show]

Every solved circuit is put into its own equations (KCL at every node, sources, signs of ideal diodes), computed by
dense.py from the parts of the deck; voltages and resistor currents are compared with a QP solver and a dense Newton
(convex circuits), with modified nodal analysis in rational arithmetic (linear ones) and with ngspice. Errors that say
that there is no solution are compared with linear programs, with controlled sources mixed-integer ones. Exits with 1
when an answer is wrong or something crashes.
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
from scipy import sparse
from scipy.optimize import brentq
from scipy.sparse import csgraph

import circuitsim as cs
from circuitsim.io.flatten import flatten
from circuitsim.io.ngspice import operating_point, tight_options
from circuitsim.io.raw import NgspiceError
from validation.dense import LAWS, Answer, Dense, NoReference, convex_answer, linear_answer, piecewise_solvable
from validation.random_decks import FAMILIES, Deck, random_deck

Floats = NDArray[np.float64]

AGREE, VERIFIED, REFUSED = "agree", "equations hold", "no solution"
UNDECIDED, ENORMOUS, FAILED, WRONG, CRASH = "undecided", "enormous", "not solved", "WRONG", "crash"
OUTCOMES = (AGREE, VERIFIED, REFUSED, UNDECIDED, ENORMOUS, FAILED, WRONG, CRASH)
BAD = (WRONG, CRASH)
NONE, ONE = "it has no solution: ", "it has a solution: "  # why something is not solved begins with, where known

SAME = 1e-6  # of the largest voltage, or current
MOST = 1e6  # A through a diode: beyond, a deck is absurd
_MOST_VOLTS = 1e7  # V, the same: 1 uA through the gmin of ngspice is 1e6 V
_KCL = 1e-9  # of the absolute currents at a node
_NGSPICE_KCL = 1e-7  # the same, where ngspice's voltages are compared
_LEAST = 1e-8  # A: beside the sources here, nothing
_LEAST_VOLTS = 1e-6  # V: the same; references round 1 mA through 1 Mohm to 1e-13 V
_NGSPICE_VOLTS = 1e-3  # V: the same for ngspice, which has gmin and tolerances
_EPS = float(np.finfo(float).eps)
_STEPS = 300  # of a method that does not get there
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
    if np.isfinite(solution.x).all() and solution.status is not cs.Status.REFUSED:
        reached = _Found.of(dense.deck, solution)
        if not broken_equation(dense, reached.v, reached.i, certain=reached.certain):
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
    if found.solution.residuals.kcl_relative > _KCL:
        return WRONG, f"solved with a certificate of {found.solution.residuals.kcl_relative:.2g}"
    if _largest_through_diode(dense, found) > MOST:
        return ENORMOUS, ""
    if wrong := broken_equation(dense, found.v, found.i, certain=found.certain):
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
    if wrong := _difference(dense, found, answer):
        return WRONG, wrong
    if with_ngspice and dense.deck.family == 3 and (theirs := _by_ngspice(dense.deck, dense)) is not None:
        v = np.array([theirs[0].get(name, 0.0) for name in dense.names])
        known = answer.trusted & np.isin(dense.names, list(theirs[0]))
        if wrong := _difference(dense, found, Answer(v, known), _NGSPICE_VOLTS):
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


def _difference(dense: Dense, found: _Found, answer: Answer, least: float = _LEAST_VOLTS) -> str:
    """What differs by more than SAME, of `least` V where all voltages are smaller; '' when nothing does."""
    v = np.array([found.v.get(name, np.nan) for name in dense.names])
    certain = np.array([found.certain.get(name, False) for name in dense.names])
    scale = max(np.abs(answer.v[answer.trusted]).max(initial=0.0), least)
    off = np.where(certain & answer.trusted, np.abs(v - answer.v), 0.0)
    if off.max(initial=0.0) > SAME * scale:
        k = int(off.argmax())
        return f"node {dense.names[k]}: {v[k]!r} V, the reference says {answer.v[k]!r} V (largest {scale:.3g} V)"
    theirs = dense.g * (dense.R @ answer.v)
    is_r = np.array([x.part in found.i and x.part[0] == "R" for x in dense.resistors], bool)
    sure = is_r & (np.abs(dense.R) @ ~answer.trusted == 0)
    ours = np.array([found.i.get(x.part, 0.0) for x in dense.resistors])
    scale = max(np.abs(theirs[sure]).max(initial=0.0), _LEAST)
    off = np.where(sure, np.abs(ours - theirs), 0.0)
    noise = 1e3 * _EPS * dense.g * (np.abs(dense.R) @ np.abs(answer.v))
    if (off > SAME * scale + noise).any():
        k = int((off - noise).argmax())
        return f"current of {dense.resistors[k].part}: {ours[k]!r} A, the reference says {theirs[k]!r} A"
    return ""


def broken_equation(
    dense: Dense,
    v_of: dict[str, float],
    i_of: dict[str, float],
    kcl: float = _KCL,
    certain: dict[str, bool] | None = None,
) -> str:
    """The first equation of the circuit that voltages and currents break; '' when all hold.

    Currents of R, I, N and of D with a law follow from the voltages; those of V, shorts, E, F, G, H and ideal diodes
    are given. Ground, tied nodes and those of islands that float take up the rounding of all others; nodes that V and
    shorts tie together must meet KCL as a group.
    """
    known = {"0": 0.0} | v_of
    if not all(np.isfinite([*v_of.values(), *i_of.values()])):
        return "a voltage or a current is not finite"
    volts = max([1e-9, *map(abs, v_of.values())])
    net: dict[str, float] = dict.fromkeys(known, 0.0)
    size, noise = dict(net), dict(net)
    group = _tied(dense, list(known))
    group_net, group_size, group_noise = ([0.0] * len(known) for _ in range(3))

    def carry(a: str, b: str, i: float, rounding: float = 0.0) -> None:
        for node, sign in ((a, 1.0), (b, -1.0)):
            if a != b:
                net[node] += sign * i
                size[node] += abs(i)
                noise[node] += rounding
                if group[a] != group[b]:
                    group_net[group[node]] += sign * i
                    group_size[group[node]] += abs(i)
                    group_noise[group[node]] += rounding

    def across(a: str, b: str) -> float:
        return known[a] - known[b]

    inner = {x.part: x.value for x in dense.resistors if x.b == f"{x.part}#"}
    for x in dense.resistors:
        if x.b not in inner and not x.b.endswith("#"):
            carry(x.a, x.b, x.value * across(x.a, x.b), 8 * _EPS * volts * x.value)
    for x in dense.sources:
        carry(x.a, x.b, x.value)
    for k, (x, _, _) in enumerate(dense.legs):
        a = x.a if x.part not in inner else next(r.a for r in dense.resistors if r.b == f"{x.part}#")
        rs = 1.0 / inner[x.part] if x.part in inner else 0.0
        i, below, above = (_leg(dense, k, across(a, x.b) + d, rs) for d in (0.0, -8 * _EPS * volts, 8 * _EPS * volts))
        carry(a, x.b, i, above - below)
    for x in dense.ties:
        carry(x.a, x.b, i_of[x.part])
        if dense.controlled:  # then currents of sources may be unknowns, with the rounding of one float64
            group_noise[group[x.a]] += 4 * _EPS * abs(i_of[x.part])
        if abs(across(x.a, x.b) - x.value) > 1e-9 * max(volts, abs(x.value)):
            return f"source or short {x.part} has {across(x.a, x.b)!r} V"
    done = set()
    most = max(map(abs, i_of.values()), default=0.0)
    for x in dense.ideals:
        i, room = i_of[x.part], x.value - across(x.a, x.b)
        forward = x.part not in done
        if forward:
            carry(x.a, x.b, i)
        through = max(i if forward else -i, 0.0)
        if room < -1e-9 * max(volts, x.value):
            return f"ideal diode {x.part} is {-room:.3g} V beyond its forward voltage"
        if through > 1e-9 * most and room > 1e-6 * max(volts, x.value):
            return f"ideal diode {x.part} carries {i:.3g} A, {room:.3g} V short of its forward voltage"
        if forward and i < -1e-9 * most and sum(y.part == x.part for y in dense.ideals) < 2:
            return f"ideal diode {x.part} carries {i:.3g} A backwards"
        done.add(x.part)
    for part in dense.controlled:
        i = i_of[part.name]
        carry(part.a, part.b, i)
        c = across(*part.control) if part.kind in "EG" else i_of[part.control[0]]
        is_, wanted = (across(part.a, part.b) if part.kind in "EH" else i), part.value * c
        unit = volts if part.kind in "EH" else most
        reach = abs(part.value) * (volts if part.kind in "EG" else most)
        if abs(is_ - wanted) > 1e-9 * max(abs(is_), abs(wanted)) + 64 * _EPS * (unit + reach):
            return f"{part.name} gives {is_!r} where its control asks {wanted!r}"
    tied = {n for x in [*dense.ties, *dense.ideals, *dense.controlled] for n in (x.a, x.b)}
    shared = kcl * sum(size.values()) + sum(noise.values())
    for node in net:
        exact = node not in tied and node != "0" and (certain is None or certain[node])
        allowed = kcl * size[node] + noise[node] if exact else shared
        allowed += _EPS * _LEAST
        if abs(net[node]) > allowed:
            return f"KCL at {node}: {net[node]:.3g} A are left of {size[node]:.3g} A"
    held = {group["0"], *(group[n] for x in [*dense.ideals, *dense.controlled] for n in (x.a, x.b))}
    held |= {group[n] for n in net if certain is not None and n != "0" and not certain[n]}
    for node in net:
        k = group[node]
        if k not in held and abs(group_net[k]) > kcl * group_size[k] + group_noise[k] + _EPS * _LEAST:
            return f"KCL at the group of {node}: {group_net[k]:.3g} A are left of {group_size[k]:.3g} A"
    return ""


def _tied(dense: Dense, nodes: list[str]) -> dict[str, int]:
    """The group of each node: nodes that V and shorts tie together have one number."""
    index = {node: k for k, node in enumerate(nodes)}
    ends = np.array([(index[x.a], index[x.b]) for x in dense.ties], int).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(ends.shape[1]), (ends[0], ends[1])), shape=(len(nodes), len(nodes)))
    return dict(zip(nodes, csgraph.connected_components(graph, directed=False)[1].tolist(), strict=True))


def _leg(dense: Dense, k: int, v: float, rs: float) -> float:
    """Current of a nonlinear branch with its RS in series."""
    _, kind, p = dense.legs[k]

    def current(w: float) -> float:
        return float(LAWS[kind](np.array([p]), np.array([w]))[0][0])

    if rs and v:
        ends = min(v, 0.0), max(v, 0.0)
        v = float(brentq(lambda w: w + rs * current(w) - v, *ends, xtol=1e-300, rtol=4 * _EPS, maxiter=500))
    return current(v)


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
    for part in deck.parts:
        if part.kind == "F":
            i[part.name] = part.value * i[part.control[0]]
        elif part.kind == "G":
            i[part.name] = part.value * (v[part.control[0]] - v[part.control[1]])
    return (v, i) if not broken_equation(dense, v, i, _NGSPICE_KCL) else None


# -- the command -------------------------------------------------------------------------------------------------------


@cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("random_circuits", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=2000, help="circuits, shared among the families")
    parser.add_argument("--seed", type=int, default=0, help="of the first circuit of each family")
    parser.add_argument("--family", type=int, choices=list(FAMILIES), help="only this one")
    parser.add_argument("--show", action="store_true", help="print the decks of what went wrong")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 1 when an answer is wrong or something crashed."""
    options = _parser().parse_args(arguments)
    families = [options.family] if options.family else list(FAMILIES)
    each = options.count // len(families)
    bad = 0
    clock = time.perf_counter()
    print(f"{'family':24}" + "".join(f"{name:>16}" for name in OUTCOMES))
    for family in families:
        outcomes = [judge(random_deck(family, options.seed + k)) for k in range(each)]
        counts = Counter(outcome.kind for outcome in outcomes)
        print(f"{family} {FAMILIES[family]:22}" + "".join(f"{counts[name]:16}" for name in OUTCOMES), flush=True)
        for outcome in outcomes:
            if outcome.kind in (*BAD, FAILED):
                print(f"    {outcome.kind}: family {family}, seed {outcome.deck.seed}: {outcome.why}")
            if outcome.kind in BAD and options.show:
                print("\n".join(f"        {line}" for line in outcome.deck.text.split("\n")))
        bad += sum(counts[name] for name in BAD)
    print(f"{each * len(families)} circuits in {time.perf_counter() - clock:.0f} s; {bad} wrong or crashed")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
