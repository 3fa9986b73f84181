"""Ladders: circuits of growing size, circuitsim beside every peer that can solve them; seconds, memory, KCL, growth.

Each point is a process of its own (`python -m validation.peers LADDER SIZE SOLVER`), so that its peak memory is its
own. Solvers in Python are timed from the circuit (circuitsim), or from the matrix (all others), in memory to the
answer; programs from the start of the process to its end: `circuitsim solve` on the deck, ngspice on its flat form with
tight tolerances. Every answer is judged by circuitsim's certificate (`reached`), ngspice's as in `circuitsim compare`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import linalg

import circuitsim as cs
from circuitsim.gallery import current_grid, drn, wired_crossbar
from circuitsim.residual import Check
from circuitsim.spice.flatten import Written, flatten
from circuitsim.spice.foreign import kcl_of
from circuitsim.spice.ngspice import ngspice_available, read_raw, tight_options
from validation.measure import (
    CIRCUITSIM,
    MB,
    NGSPICE,
    ROOT,
    BenchmarkError,
    Options,
    Row,
    T,
    fastest,
    run_process,
    save_json,
    timed,
)
from validation.newton import KCL
from validation.qp import PEERS, RUNGS, installed, measure_peer, quadratic_program

Floats = NDArray[np.float64]

WANTED = 1e-9  # relative KCL
RESULTS = ROOT / "build" / "peers.json"
LIMITS = {False: 10.0, True: 1.5}  # s for one point, by Options.quick: a peer that needs more climbs no further
_START = 10.0  # s more for a process to start and to build its circuit
_ROUNDING = 8 * float(np.finfo(float).eps)
_PYTHON = 3.0  # s more for a program that has to load Python and its libraries first
_SHORT = 1.0  # s: shorter ones are run again, the best counts
_CLEAR = 5e-3  # s: shorter ones say nothing of growth
_FITTED = 3  # points at the upper end of a ladder
_PROGRAMS = ("circuitsim solve", NGSPICE)


@dataclass(frozen=True)
class Ladder:
    """A family of circuits: text by size, the unit of the size, sizes, and who can solve them."""

    text: Callable[[int], str]
    unit: str
    sizes: tuple[int, ...]
    solvers: tuple[str, ...]

    def some(self, quick: bool) -> tuple[int, ...]:
        """The sizes to run."""
        return self.sizes[1:5:2] if quick else self.sizes


def _network(width: int) -> str:
    return drn([width, width, width, 10], gain=float(width))


LADDERS = {
    "DRN": Ladder(_network, "width", (16, 32, 64, 128, 256, 512, 1024), ("circuitsim", *PEERS, *_PROGRAMS)),
    "crossbar": Ladder(
        wired_crossbar, "side", (16, 32, 64, 128, 256, 512),
        ("circuitsim", "circuitsim bcd", "spsolve", "pyamg", "osqp", "clarabel", *_PROGRAMS),
    ),
    "grid": Ladder(
        lambda n: current_grid(n, n * n // 50 + 1), "side", (16, 32, 64, 128, 256, 512, 1024),
        ("circuitsim", "spsolve", "pyamg", *_PROGRAMS),
    ),
    "diodes": Ladder(
        lambda n: wired_crossbar(n, "diode"), "side, one diode a cell", (4, 8, 16, 32, 64, 128, 256),
        ("circuitsim", *_PROGRAMS),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One solver on one circuit. `seconds` None: no answer, `note` says why."""

    ladder: str
    size: int
    unknowns: int
    solver: str
    seconds: float | None = None
    kcl: float | None = None  # inf is not JSON: None where there are no finite voltages
    peak_mb: float | None = None  # of the whole process, Python and its libraries included
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What a solver in Python gives: unknowns (n,), its seconds, and its own words."""

    x: Floats
    seconds: float
    note: str = ""
    kcl: float | None = None  # its own certificate: circuitsim's, of all its digits


# -- solvers in Python ----------------------------------------------------------------------------------------------


def _repeated(action: Callable[[], T]) -> tuple[float, T]:
    """Seconds, the fastest of three runs when it is short, and the last result."""
    seconds, result = timed(action)
    if seconds <= _SHORT:
        again, result = fastest(2, action)
        seconds = min(seconds, again)
    return seconds, result


def reached(problem: cs.Problem, x: Floats) -> float:
    """circuitsim's certificate of unknowns x, put within their bounds; inf when they are not numbers.

    Violations that rounding voltages to float64 makes by itself do not count: beside reverse currents of 1e-14 A it is
    the best that any peer can do. circuitsim itself keeps more digits.
    """
    if not np.isfinite(x).all():
        return np.inf
    drive = problem.drive(slice(0, 1))
    v = np.clip(x[None, :], drive.lo, drive.hi)
    check = Check(problem, drive, v)
    check.exact_violation()
    scale = np.maximum(np.abs(v), np.abs(drive.fixed).max(initial=0.0))
    rounded = np.abs(check.rho) <= _ROUNDING * check.slope * scale
    return float(np.where(rounded, 0.0, check.upper).max(initial=0.0))


def _own(method: str) -> Callable[[cs.Problem], Answer]:
    def run(problem: cs.Problem) -> Answer:
        settings = cs.Settings(method, tol=WANTED, max_sweeps=10_000_000)
        seconds, found = _repeated(lambda: cs.solve(problem.circuit, settings, raise_on_failure=False))
        return Answer(found.x[0], seconds, f"{found.method}, {found.steps} steps", found.residuals.kcl_relative)

    return run


def _spsolve(problem: cs.Problem) -> Answer:
    program = quadratic_program(problem)
    seconds, x = _repeated(lambda: np.asarray(linalg.spsolve(program.A, program.b)))
    return Answer(x, seconds)


def _pyamg(problem: cs.Problem) -> Answer:
    """Conjugate gradients with a Ruge-Stuben hierarchy; its tolerance is tightened until KCL is good enough."""
    import pyamg
    from scipy import sparse

    program = quadratic_program(problem)
    matrix = sparse.csr_matrix(program.A)
    for tolerance in RUNGS:
        seconds, x = _repeated(
            lambda tolerance=tolerance: pyamg.ruge_stuben_solver(matrix).solve(
                program.b, tol=tolerance, accel="cg", maxiter=200
            )
        )
        if reached(problem, x) <= WANTED:
            break
    return Answer(x, seconds, f"tolerance {tolerance:g}")


def _quadratic(name: str) -> Callable[[cs.Problem], Answer]:
    def run(problem: cs.Problem) -> Answer:
        program = quadratic_program(problem)
        result = measure_peer(PEERS[name], program, lambda x: reached(problem, x), WANTED)
        return Answer(result.run.x, result.run.seconds, f"tolerance {result.tolerance:g}")

    return run


SOLVERS: dict[str, Callable[[cs.Problem], Answer]] = {
    "circuitsim": _own("auto"),
    "circuitsim bcd": _own("bcd"),
    "spsolve": _spsolve,
    "pyamg": _pyamg,
    **{name: _quadratic(name) for name in PEERS},
}


def solve_point(ladder: str, size: int, solver: str) -> dict[str, Any]:
    """Seconds, relative KCL and words of a solver in this process."""
    warnings.simplefilter("ignore")  # peers warn of what the certificate shows
    SOLVERS[solver](cs.compile_problem(cs.parse(LADDERS[ladder].text(4))))  # loads compiled code
    problem = cs.compile_problem(cs.parse(LADDERS[ladder].text(size)))
    answer = SOLVERS[solver](problem)
    kcl = reached(problem, answer.x) if answer.kcl is None else answer.kcl
    return {"seconds": answer.seconds, "kcl": kcl if np.isfinite(kcl) else None, "note": answer.note}


# -- points ---------------------------------------------------------------------------------------------------------


def _in_process(ladder: str, size: int, solver: str, limit: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "validation.peers", ladder, str(size), solver]
    run = run_process(["timeout", str(2 * limit + _START), *command])
    [line] = [line for line in run.stdout.splitlines() if line.startswith("{")]  # peers print as well
    return {**json.loads(line), "peak_mb": run.peak_bytes / MB}


def _by_program(problem: cs.Problem, deck: Path, solver: str, limit: float) -> dict[str, Any]:
    """A program on the deck; ngspice on flat.cir, which is written beside it."""
    flat, raw = deck.with_name("flat.cir"), deck.with_name("flat.raw")
    own = solver != NGSPICE
    written = None if own else _write_flat(problem.circuit, flat)
    command = [*CIRCUITSIM, "solve", str(deck)] if own else [NGSPICE, "-n", "-b", "-r", str(raw), str(flat)]
    runs = [run_process(["timeout", str(limit), *command])]
    if runs[0].seconds < _SHORT:
        runs.append(run_process(command))
    run = min(runs, key=lambda run: run.seconds)
    figures = {"seconds": run.seconds, "peak_mb": run.peak_bytes / MB}
    if written is None:
        found = KCL.search(run.stdout)
        return {**figures, "kcl": float(found.group(1)) if found else None, "note": "whole process"}
    [plot] = read_raw(raw.read_bytes())
    values = dict(zip([name for name, _ in plot.variables], plot.values[0].tolist(), strict=True))
    kcl = kcl_of(problem, written, values)[0]
    return {**figures, "kcl": kcl if np.isfinite(kcl) else None, "note": "whole process"}


def points(options: Options, ladders: Sequence[str] = tuple(LADDERS)) -> Iterator[Point]:
    """Climb all ladders; a solver that fails, or needs more than its limit, climbs no further."""
    limit = LIMITS[options.quick]
    for name in ladders:
        ladder = LADDERS[name]
        out = {solver: why for solver in ladder.solvers if (why := _missing(solver))}
        for solver, why in out.items():
            yield Point(name, ladder.sizes[0], 0, solver, note=why)
        for size in ladder.some(options.quick):
            with tempfile.TemporaryDirectory() as folder:
                deck = Path(folder) / "deck.cir"
                deck.write_text(ladder.text(size))
                problem = cs.compile_problem(cs.load(deck))
                for solver in [s for s in ladder.solvers if s not in out]:
                    point = Point(name, size, problem.n_free, solver)
                    try:
                        if solver in _PROGRAMS:
                            figures = _by_program(problem, deck, solver, limit + _START)
                        else:
                            figures = _in_process(name, size, solver, limit)
                        point = Point(name, size, problem.n_free, solver, **figures)
                    except BenchmarkError as error:
                        late = "ended with 124" in str(error)
                        point = Point(name, size, problem.n_free, solver, note="too slow" if late else str(error))
                    if point.seconds is None or point.seconds > limit + (_PYTHON if solver in _PROGRAMS else 0.0):
                        out[solver] = "too slow"
                    yield point


def _write_flat(circuit: cs.Circuit, flat: Path) -> Written:
    """The circuit as plain SPICE, with options that make ngspice as exact as it gets."""
    with flat.open("w") as out:
        written = flatten(circuit, out)
        out.write(tight_options() + "\n")  # ngspice reads what stands after .end
    return written


def _missing(solver: str) -> str:
    """Why a solver cannot run; '' when it can."""
    if solver in PEERS and installed(solver) is None:
        return "not installed"
    return "not installed" if solver == NGSPICE and not ngspice_available() else ""


# -- the table --------------------------------------------------------------------------------------------------------


def exponent(found: Sequence[Point]) -> float | None:
    """p of seconds ~ unknowns^p, by least squares through the largest sizes; None with fewer than two clear points."""
    clear = [p for p in found if p.seconds is not None and p.seconds >= _CLEAR][-_FITTED:]
    if len(clear) < 2:
        return None
    x, y = (np.log([getattr(p, name) for p in clear]) for name in ("unknowns", "seconds"))
    return float(np.polyfit(x, y, 1)[0])


@dataclass(frozen=True)
class Climbs:
    """All points of a run, by ladder and solver."""

    points: Sequence[Point]
    by: dict[tuple[str, str], list[Point]] = field(init=False)

    def __post_init__(self) -> None:
        by: dict[tuple[str, str], list[Point]] = {}
        for point in self.points:
            by.setdefault((point.ladder, point.solver), []).append(point)
        object.__setattr__(self, "by", by)

    def rows(self) -> list[Row]:
        """A row for each ladder and solver: the largest circuit that it solved, beside circuitsim on the same one."""
        return [self._row(ladder, solver, found) for (ladder, solver), found in self.by.items()]

    def _row(self, ladder: str, solver: str, found: list[Point]) -> Row:
        solved = [p for p in found if p.seconds is not None]
        if not solved:
            return Row("peers", ladder, peer=solver, note=found[-1].note)
        last = solved[-1]
        own_name = "circuitsim solve" if solver == NGSPICE else "circuitsim"
        own = next((p for p in self.by.get((ladder, own_name), []) if p.size == last.size), None)
        what = f"{ladder} {last.size}, {last.unknowns:,} unknowns"
        kcl = "no finite voltages" if last.kcl is None else f"KCL {last.kcl:.1e}" if last.kcl else "KCL at rounding"
        if last.kcl is None or last.kcl > WANTED:
            kcl += " (not 1e-9)"
        notes = [kcl, _growth(found), f"{last.peak_mb:,.0f} MB" if last.peak_mb else "", last.note]
        note = ", ".join(filter(None, notes))
        if solver.startswith("circuitsim") and solver != "circuitsim bcd":
            return Row("peers", f"{what}: {solver}", last.seconds, note=note)
        seconds = own.seconds if own else None
        return Row("peers", f"{what}: {own_name}", seconds, peer=solver, peer_measured=last.seconds, note=note)


def _growth(found: Sequence[Point]) -> str:
    p = exponent(found)
    return "" if p is None else f"unknowns^{p:.2f}"


def peers(options: Options) -> list[Row]:
    """The rows; all points go to build/peers.json, for `make report`."""
    found = []
    for point in points(options):
        print(f"  {point.ladder} {point.size} {point.solver}: {point.seconds} {point.note}", file=sys.stderr)
        found.append(point)
    RESULTS.parent.mkdir(exist_ok=True)
    save_json([asdict(point) for point in found], RESULTS)
    return Climbs(found).rows()


def read_points(path: Path = RESULTS) -> list[Point]:
    """The points of the last run, one at least. Raises OSError; ValueError where the file holds something else."""
    try:
        points = [Point(**point) for point in json.loads(path.read_text())]
    except TypeError as error:
        raise ValueError(f"these are not points of ladders: {error}") from None
    if not points:
        raise ValueError("there are no points")
    return points


if __name__ == "__main__":
    print(json.dumps(solve_point(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
