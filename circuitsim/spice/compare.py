"""A circuit solved here and by ngspice: every voltage and source current of both, and which of the two obeys KCL.

Both get the same circuit; ngspice gets it as flatten.py writes it, with the tight options of ngspice.py. They agree
when no value differs by more than allowed.py allows. Both answers are judged by the same certificate, residual.py:
foreign.py turns ngspice's node voltages into the unknowns of the problem, so that its KCL is computed here, branch by
branch. Where the two differ, the certificate says which is right about the circuit as circuitsim reads it.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from circuitsim.build import build_circuit
from circuitsim.circuit import Circuit
from circuitsim.errors import NotSolved, SettingsError, TopologyError, listed
from circuitsim.io.raw import NgspiceError, Plot
from circuitsim.law_kernels import IS, NVT, Law
from circuitsim.laws import generation
from circuitsim.models import thermal_voltage
from circuitsim.netlist.expand import Changes
from circuitsim.netlist.model import KINDS, Analysis
from circuitsim.netlist.revalue import Revaluer
from circuitsim.problem import Problem, arranged
from circuitsim.solution import Settings, Solution
from circuitsim.solving import solve
from circuitsim.spice.allowed import allowed_differences
from circuitsim.spice.flatten import MIN_RON, Written, flatten
from circuitsim.spice.foreign import kcl_of, voltages_of
from circuitsim.spice.ngspice import (
    ABSTOL,
    GMIN,
    VNTOL,
    RawData,
    find_ngspice,
    ngspice_version,
    run_ngspice,
    tight_options,
)
from circuitsim.sweeping import SweepResult, sweep
from circuitsim.sweeping.gather import Progress

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ENGINES = ("ngspice", "pyspice")

_NEAR_IDEAL = 1e-3  # N of a diode: below, ngspice's steps may end anywhere
_TINY = 1e-12  # ohm: below, its matrix loses all else at the node
_LEAST_IS = 1e-28  # A: ngspice's lower limit of IS
_USELESS = 1e-3  # of the terms that add up to a value: to agree within that means nothing
_OBEYS = 1e-9  # of the currents at a node: KCL is met
_LEAST = {"v": VNTOL / _USELESS, "i": ABSTOL / _USELESS}  # V, A: to agree within that always means something
_ERROR_LINE = re.compile(r"^(?!.*(trying|supplies|step)).*(error|singular|fail|can't|cannot|too small)", re.IGNORECASE)
_LINES = 3  # of those that ngspice said


class Verdict(Enum):
    """The outcome of a comparison; the value describes it in words."""

    AGREE = "both agree within what their tolerances allow"
    DIFFER = "they differ by more than their tolerances allow"
    NO_ANSWER = "circuitsim has no answer"
    NO_REFERENCE = "ngspice has no answer"
    UNTOLD = "inconclusive: ngspice's possible error is too large, or no value is unique"


@dataclass(frozen=True)
class Quantity:
    """One quantity as computed by both."""

    name: str  # v(out), i(v1), lower case
    ours: float  # V or A
    theirs: float  # NaN: missing
    allowed: float  # by how much they may differ (allowed.py)
    determined: bool  # whether the value is unique; otherwise nothing can be compared
    telling: bool = True  # whether `allowed` is small compared with the terms of the value, so that agreement says much

    @property
    def difference(self) -> float:
        """|ours - theirs|."""
        return abs(self.ours - self.theirs)

    @property
    def excess(self) -> float:
        """The difference / `allowed`; -1 where nothing can be compared, inf where a value is missing."""
        return -1.0 if not self.determined else np.inf if np.isnan(self.difference) else self.difference / self.allowed

    @property
    def agrees(self) -> bool:
        """Whether the difference is at most `allowed`; always True for a value that is not unique."""
        return not self.determined or self.difference <= self.allowed


@dataclass(frozen=True)
class Comparison:
    """Both answers for one operating point. If one is missing, `quantities` is empty and its KCL is NaN."""

    engine: str  # name and version of the other simulator
    quantities: tuple[Quantity, ...]
    kcl_ours: float  # largest relative violation of KCL, Residuals.kcl_relative
    kcl_theirs: float
    seconds: tuple[float, float]  # ours: compiling and solving; theirs: starting, reading the deck and solving
    verdict: Verdict
    notes: tuple[str, ...]
    point: str = ""  # the point of a sweep: `V1 = 0.5`

    @property
    def differing(self) -> list[Quantity]:
        """The quantities that do not agree, the worst first."""
        return [q for q in self.by_difference() if not q.agrees]

    def by_difference(self) -> list[Quantity]:
        """All quantities by `excess`, the largest first; those that are not unique last."""

        return sorted(self.quantities, key=lambda q: q.excess, reverse=True)


@dataclass(frozen=True)
class Simulator:
    """The other simulator: its name and version, and how to run it on (deck, further cards, seconds allowed)."""

    name: str
    run: Callable[[str, str, float], RawData]


def find_simulator(name: str) -> Simulator:
    """The simulator `ngspice` (the program) or `pyspice` (its shared library). SettingsError, BackendUnavailable."""
    if name == "ngspice":
        version = ngspice_version(find_ngspice())
        return Simulator(version, lambda deck, options, timeout: run_ngspice(deck, options=options, timeout=timeout))
    if name == "pyspice":
        from circuitsim.spice import pyspice

        return Simulator(
            pyspice.version(),
            lambda deck, options, timeout: pyspice.run_pyspice(deck, options=options, timeout=timeout),
        )
    raise SettingsError(f"unknown engine '{name}': choose {' or '.join(ENGINES)}")


@dataclass(frozen=True)
class _Ours:
    """Our answer: that of the solution, or what a sweep found for the same circuit."""

    solution: Solution
    voltages: Floats  # (nodes,) V
    currents: Floats  # (sources,) A
    kcl_relative: float


@dataclass(frozen=True)
class _Theirs:
    """One operating point of the other simulator."""

    written: Written
    values: Mapping[str, float]  # by its names, v(out), i(v1)
    seconds: float


def compare(
    circuit: Circuit, engine: str = "ngspice", settings: Settings | None = None, timeout: float = 600
) -> Comparison:
    """Compute the operating point of a circuit here and by ngspice, and compare them.

    timeout   seconds allowed for ngspice

    Raises SettingsError for a batch or an unknown engine, BackendUnavailable when the engine is not installed. A
    circuit without a solution, or a run of ngspice that fails, is a verdict, not an error.
    """
    found = find_simulator(engine)
    theirs = _operating_point(circuit, found, timeout)
    clock = time.perf_counter()
    ours = _solved(circuit, settings or Settings())
    return _compare(ours, theirs, found.name, time.perf_counter() - clock)


def compare_sweep(
    circuit: Circuit,
    analysis: Analysis | str,
    engine: str = "ngspice",
    settings: Settings | None = None,
    timeout: float = 600,
    progress: Progress | None = None,
) -> list[Comparison]:
    """Compare all points of a `.dc` analysis, one run of our sweep with one of ngspice's; one Comparison per point.

    timeout    seconds allowed for ngspice, all points together
    progress   called with (points compared, points in all)

    Where ngspice cannot sweep the same quantity (parameters, arrays), or fails, it gets a deck for each point; the
    first Comparison then has a note on the failure. Raises as `compare` and `sweep` do.
    """
    found, settings = find_simulator(engine), settings or Settings()
    result = sweep(circuit, analysis, settings)
    count, until = result.values.shape[0], time.perf_counter() + timeout
    points = _swept_points(circuit, result, found, timeout)
    comparisons: list[Comparison] = []
    together = _solved_together(circuit, result, settings)
    problem: Problem | None = None
    seconds = sum(result.seconds.values()) / count
    for k, at_point in enumerate(_circuits_of(circuit, result)):
        problem = arranged(at_point) if problem is None else problem.with_circuit(at_point)
        theirs: _Theirs | str
        if not isinstance(points, str):
            theirs = points[k]
        elif (left := until - time.perf_counter()) > 0:
            theirs = _operating_point(at_point, found, left)
        else:
            theirs = f"ngspice took more than {timeout:g} s for the earlier points"
        ours = _at_point(problem, settings, result, k) if together is None else _of_row(together, result, k)
        compared = _compare(ours, theirs, found.name, seconds, result.point(k))
        if together is not None and compared.verdict in (Verdict.DIFFER, Verdict.NO_REFERENCE):
            ours = _at_point(problem, settings, result, k)  # a note tells of our answer
            compared = _compare(ours, theirs, found.name, seconds, result.point(k))
        comparisons.append(compared)
        if progress:
            progress(k + 1, count)
    if isinstance(points, str) and points:
        note = f"{_said_by('ngspice, all points in one run', points)}; so each point had a run of its own"
        comparisons[0] = replace(comparisons[0], notes=(*comparisons[0].notes, note))
    return comparisons


# -- ours --------------------------------------------------------------------------------------------------------------


def _solved(circuit: Circuit | Problem, settings: Settings, start: Floats | None = None) -> _Ours | str:
    """Our answer, or the reason why there is none."""
    try:
        solution = solve(circuit, settings, start=start)
    except (TopologyError, NotSolved) as error:
        return str(error)
    v, current = solution.voltages()[0], solution.source_currents[0][0]
    return _Ours(solution, v, current, solution.residuals.kcl_relative)


def _at_point(problem: Problem, settings: Settings, result: SweepResult, k: int) -> _Ours | str:
    """Our answer at point k of a sweep; solving it alone shows what is unique and how much may differ."""
    if k in result.messages:
        return result.messages[k]
    start = None if settings.lenient else result.voltages[k, problem.topology.root_of_unit][None]
    ours = _solved(problem, settings, start)
    return ours if isinstance(ours, str) else _as_in_sweep(ours.solution, result, k)


def _as_in_sweep(solution: Solution, result: SweepResult, k: int) -> _Ours:
    """What the sweep found at point k, with a solution of that point."""
    return _Ours(solution, result.voltages[k], result.currents[k], float(result.kcl_relative[k]))


def _solved_together(circuit: Circuit, result: SweepResult, settings: Settings) -> Solution | None:
    """All points of a sweep as one batch, for what _at_point does; None where that must solve each alone: where more
    than voltage sources change, and where not all points have a certain answer.
    """
    if settings.lenient or result.messages or any(s.kind != "V" for s in result.swept):
        return None
    problem = arranged(
        circuit.with_values({s.name: x[:, None] for s, x in zip(result.swept, result.values.T, strict=True)})
    )
    try:
        solution = solve(problem, settings, start=result.voltages[:, problem.topology.root_of_unit])
    except (TopologyError, NotSolved):
        return None
    return None if solution.loose.any() else solution


def _of_row(together: Solution, result: SweepResult, k: int) -> _Ours:
    """What the sweep found at point k, with row k of the batch, whose message and residuals are those of all rows."""
    rows = slice(k, k + 1)
    problem = replace(together.problem, circuit=together.circuit.at_rows(rows))
    low = None if together.low is None else together.low[:, rows]
    alone = replace(together, problem=problem, x=together.x[rows], low=low, carried=together.carried[rows])
    return _as_in_sweep(alone, result, k)


# -- theirs ------------------------------------------------------------------------------------------------------------


def _operating_point(circuit: Circuit, engine: Simulator, timeout: float) -> _Theirs | str:
    """Their answer, or the reason why there is none."""
    text = io.StringIO()
    written = flatten(replace(circuit, netlist=replace(circuit.netlist, analyses=(), saves=())), text)
    clock = time.perf_counter()
    try:
        run = engine.run(text.getvalue(), tight_options(circuit.netlist.options.gmin), timeout)
    except NgspiceError as error:
        return str(error)
    seconds = time.perf_counter() - clock
    for plot in run.plots:
        if plot.name == "Operating Point":
            return _Theirs(written, dict(zip(_names_in(plot), plot.values[0].tolist(), strict=True)), seconds)
    return "no operating point came back"


def _swept_points(circuit: Circuit, result: SweepResult, engine: Simulator, timeout: float) -> list[_Theirs] | str:
    """Their answers at all points, from one run; or why there are none, '' when ngspice has no such sweep."""
    text = io.StringIO()
    dc = Analysis("dc", -1, result.swept)
    written = flatten(replace(circuit, netlist=replace(circuit.netlist, analyses=(dc,), saves=())), text)
    if "\n.dc " not in text.getvalue():
        return ""
    clock = time.perf_counter()
    try:
        run = engine.run(text.getvalue(), tight_options(circuit.netlist.options.gmin), timeout)
    except NgspiceError as error:
        return str(error)
    count = result.values.shape[0]
    seconds = (time.perf_counter() - clock) / count
    plot = next((plot for plot in run.plots if plot.name != "Operating Point"), None)
    if plot is None or plot.values.shape[0] != count:
        return f"{plot.values.shape[0] if plot else 0} points came back, not {count}"
    names = _names_in(plot)[1:]  # after what is swept
    return [_Theirs(written, dict(zip(names, row, strict=True)), seconds) for row in plot.values[:, 1:].tolist()]


def _names_in(plot: Plot) -> list[str]:
    """Its names as v(out), i(v1); nodes called `time`, `frequency` or `inoise` have types of their own, and no v()."""
    return [name if "(" in name else f"v({name})" for name, _ in plot.variables]


def _circuits_of(circuit: Circuit, result: SweepResult) -> Iterator[Circuit]:
    """For each point of a sweep, the circuit with the values there."""
    revaluer = Revaluer(circuit.netlist)
    for point in result.values:
        values = list(zip(result.swept, point.tolist(), strict=True))
        if all(s.kind == "V" for s in result.swept):
            yield circuit.with_values({s.name: x for s, x in values})
        else:
            yield build_circuit(revaluer.netlist(Changes.at_point(values)))


# -- both --------------------------------------------------------------------------------------------------------------


def _compare(ours: _Ours | str, theirs: _Theirs | str, engine: str, own: float, point: str = "") -> Comparison:
    """The Comparison. `own`: our seconds; `point`: that of a sweep, in words."""
    seconds = own, np.nan if isinstance(theirs, str) else theirs.seconds
    if isinstance(ours, str) or isinstance(theirs, str):
        verdict = Verdict.NO_ANSWER if isinstance(ours, str) else Verdict.NO_REFERENCE
        notes = (_said_by("circuitsim", ours), _said_by("ngspice", theirs))
        kcl = np.nan if isinstance(ours, str) else ours.kcl_relative
        return Comparison(engine, (), kcl, np.nan, seconds, verdict, notes, point)
    kcl, solution = ours.kcl_relative, ours.solution
    quantities = tuple(_quantities(ours, theirs))
    kcl_theirs, node = kcl_of(solution.problem, theirs.written, theirs.values)
    verdict = Verdict.AGREE if _any_telling(quantities, solution.problem) else Verdict.UNTOLD
    decision = []
    if not all(q.agrees for q in quantities):
        verdict, decision = Verdict.DIFFER, [_decision(kcl, kcl_theirs, node, solution)]
    found = (*decision, *_notes(solution), *_little_told(quantities))
    return Comparison(engine, quantities, kcl, kcl_theirs, seconds, verdict, found, point)


def _quantities(ours: _Ours, theirs: _Theirs) -> Iterator[Quantity]:
    """All node voltages except ground's and those left out, then the currents of V, L, R = 0, E and H."""
    solution, names = ours.solution, theirs.written
    c = solution.circuit
    allowed = allowed_differences(solution, ours.kcl_relative, voltages_of(names, theirs.values))
    for k, unique in enumerate(solution.determined.tolist()):
        if k and not c.left_out[k]:
            name = _voltage_name(c, k)  # as in the deck: ngspice's may be another
            value = theirs.values.get(f"v({names.nodes[k]})", np.nan)
            most, terms = float(allowed.voltages[k]), float(allowed.voltage_terms[k])
            yield Quantity(name, float(ours.voltages[k]), value, most, unique, _is_telling(name, most, terms))
    for k, unique in enumerate(solution.source_currents[1].tolist()):
        written = names.branches.get((KINDS[c.sources.kind[k]], int(c.sources.row[k])))
        if written is not None:
            name = f"i({c.source_names[k].lower()})"
            value = theirs.values.get(f"i({written})", np.nan)
            most, terms = float(allowed.currents[k]), float(allowed.current_terms[k])
            yield Quantity(name, float(ours.currents[k]), value, most, unique, _is_telling(name, most, terms))


def _voltage_name(circuit: Circuit, node: int) -> str:
    return f"v({circuit.nodes[node].lower()})"


def _is_telling(name: str, allowed: float, terms: float) -> bool:
    """Whether agreement within `allowed` means anything for a value whose terms are of this size."""
    return allowed <= max(_USELESS * terms, _LEAST[name[0]])


# -- notes -------------------------------------------------------------------------------------------------------------


def _said_by(name: str, answer: _Ours | _Theirs | str) -> str:
    """A note on what one of them says when it, or the other, has no answer."""
    if isinstance(answer, _Ours):
        return f"{name} has an answer: {answer.solution.message}"
    if isinstance(answer, _Theirs):
        volts = [x for key, x in answer.values.items() if key.startswith("v(")]
        return f"{name} has an answer, with voltages from {min(volts):.4g} to {max(volts):.4g} V"
    first, *others = answer.splitlines()
    errors = [line.strip() for line in others if _ERROR_LINE.search(line)]
    return f"{name}: {'; '.join([first.removesuffix('; it said:'), *list(dict.fromkeys(errors))[:_LINES]])}"


def _decision(ours: float, theirs: float, node: str, solution: Solution) -> str:
    """A note on which is right: the one that obeys KCL, where the other does not."""
    worst = solution.residuals.worst_unit
    mine = solution.circuit.nodes[solution.problem.topology.root_of_unit[worst]] if worst >= 0 else ""
    good = ours <= _OBEYS, theirs <= _OBEYS
    right = {(True, False): "circuitsim is right", (False, True): "ngspice is right"}.get(
        good, "neither is right or wrong"
    )
    at, at_mine = (f" at node {name}" if name else "" for name in (node, mine))
    return (
        f"by the certificate, of the circuit as circuitsim reads it, {right}: ngspice violates KCL by "
        f"{theirs:.2g} of the currents{at}, circuitsim by {ours:.2g}{at_mine}"
    )


def _notes(solution: Solution) -> Iterator[str]:
    """Notes on what is known to make ngspice wrong, or a comparison impossible."""
    c, j = solution.circuit, solution.circuit.junctions
    shockley = j.law == Law.SHOCKLEY
    temp = np.full(len(j), np.nan)
    temp[shockley] = c.netlist.tables["D"].values["temp"][j.row[shockley]]
    steep = [c.element(j, k) for k in np.flatnonzero(j.params[:, NVT] <= _NEAR_IDEAL * thermal_voltage(temp)).tolist()]
    if steep:
        yield f"diodes {listed(steep)} have N <= {_NEAR_IDEAL:g}: ngspice may be wrong there without saying so"
    faint = [c.element(j, k) for k in np.flatnonzero(shockley & (j.params[:, IS] < _LEAST_IS)).tolist()]
    if faint:
        yield f"diodes {listed(faint)} have IS below {_LEAST_IS:g} A: ngspice uses {_LEAST_IS:g} A"
    dropped = np.flatnonzero(generation(j.law, j.params, solution.drops(j.a, j.b)[0])).tolist()
    if dropped:
        yield f"diodes {listed([c.element(j, k) for k in dropped])}: ngspice drops the current of ISR below -3 N Vt"
    g = c.conductors
    tiny = [c.element(g, k) for k in np.flatnonzero(g.g > 1.0 / _TINY).tolist()]
    if tiny:
        yield f"resistors {listed(tiny)} are below {_TINY:g} ohm: ngspice loses the other elements at their nodes"
    if shockley.any() and not c.netlist.options.gmin:
        yield f"ngspice has {GMIN:g} S across each junction, circuitsim none"
    if len(c.ideal_diodes):
        yield f"perfect diodes have Ron = {MIN_RON:g} ohm in ngspice"
    loose = [c.nodes[k] for k in np.flatnonzero(~solution.determined).tolist()]
    if loose:
        yield f"nodes without a unique voltage are not compared: {listed(loose)}"
    sources = [c.source_names[k] for k in np.flatnonzero(~solution.source_currents[1]).tolist()]
    if names := [*sources, *solution.ambiguous_others]:
        yield f"currents that are not unique are not compared: {listed(names)}"


def _any_telling(quantities: Sequence[Quantity], problem: Problem) -> bool:
    """Whether a value can tell something: of what voltage sources alone fix only where there is nothing else."""
    fixed = np.flatnonzero(problem.topology.index_of_node < 0)
    known = {_voltage_name(problem.circuit, k) for k in fixed.tolist()}
    unique = [q for q in quantities if q.determined]
    free = [q for q in unique if q.name[0] == "v" and q.name not in known]
    return any(q.telling for q in free or unique)


def _little_told(quantities: Sequence[Quantity]) -> Iterator[str]:
    """Values about which ngspice's answer says little."""
    for kind in "vi":
        names = [q.name for q in quantities if q.name[0] == kind and q.determined and not q.telling]
        if names:
            yield f"ngspice may be wrong by more than {_USELESS:g} of the terms that add up there: {listed(names)}"
