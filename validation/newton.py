"""Benchmarks of sparse networks, which newton solves: crossbars with wire resistance, a power grid, a `.dc` sweep."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

import circuitsim as cs
from circuitsim.gallery import current_grid, wired_crossbar
from circuitsim.spice.ngspice import ngspice_available, read_raw
from validation.measure import (
    CIRCUITSIM,
    MB,
    NETLISTS,
    NGSPICE,
    BenchmarkError,
    Options,
    Row,
    Target,
    agreement,
    best_of,
    fastest,
    run_process,
    timed,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NAME = "newton"
KCL = re.compile(r"KCL error / currents at the node +(\S+) +met")
_ANALYSIS = re.compile(r"Total analysis time \(seconds\) = (\S+)")


@dataclass(frozen=True)
class Sizes:
    """How large each network is: sides of crossbars and grid, rows of the batch; how often the short ones run."""

    linear: int = 128
    large: int = 512
    diode: int = 64
    ideal: int = 256
    grid: int = 1000
    grid_sources: int = 20_000
    batch: int = 128
    batch_rows: int = 100
    runs: int = 7


def newton(options: Options, sizes: Sizes | None = None) -> list[Row]:
    """All rows. What is solved in this process is measured from the circuit to the certified answer, as `solve` does:
    structure, values, solution, certificate; parsing is left out."""
    sizes = sizes or Sizes()
    for cell in ("resistor", "diode", "ideal"):
        cs.solve(cs.parse(wired_crossbar(16, cell)))  # loads the compiled kernels
    return [
        linear_row(sizes.linear, sizes.runs),
        large_row(sizes.large, options),
        diode_row(sizes.diode, sizes.runs, options),
        ideal_row(sizes.ideal),
        *grid_rows(sizes.grid, sizes.grid_sources),
        *sweep_rows(sizes.runs),
        *batch_rows(sizes.batch, sizes.batch_rows, sizes.runs),
    ]


def nodal_system(circuit: cs.Circuit) -> tuple[sparse.csc_array, Floats, Ints]:
    """G v = i of resistors, current sources and grounded voltage sources, from the circuit's branches alone.

    Gives G (n, n), i (n,) and the nodes (n,) that they are about: those that no voltage source fixes.
    """
    c, n = circuit, len(circuit.nodes)
    if (c.ties.b != 0).any() or c.crossbars or len(c.junctions) or len(c.ideal_diodes) or not c.reciprocal:
        raise BenchmarkError("not a network of resistors and sources whose voltage sources end at ground")
    potential = np.full(n, np.nan)
    potential[0] = 0.0
    potential[c.ties.a] = c.ties.e[0]
    free = np.flatnonzero(np.isnan(potential))
    a, b, g = c.conductors.a, c.conductors.b, c.conductors.g
    entries = np.concatenate([g, g, -g, -g]), (np.concatenate([a, b, a, b]), np.concatenate([a, b, b, a]))
    matrix = sparse.csr_array(entries, shape=(n, n))[free]
    current = np.bincount(c.current_sources.b, c.current_sources.i[0], n)
    current -= np.bincount(c.current_sources.a, c.current_sources.i[0], n)
    fixed = np.flatnonzero(~np.isnan(potential))
    return sparse.csc_array(matrix[:, free]), current[free] - matrix[:, fixed] @ potential[fixed], free


def linear_row(n: int, runs: int) -> Row:
    """A linear crossbar beside SciPy's sparse solver."""
    circuit = cs.parse(wired_crossbar(n))
    matrix, sides, free = nodal_system(circuit)
    best = best_of(runs, {"own": lambda: cs.solve(circuit), "peer": lambda: linalg.spsolve(matrix, sides)})
    (seconds, solution), (peer, v) = best["own"], best["peer"]
    note = f"{_certificate(solution)}, {_compared(solution, v, free)}"
    target = Target(1.2, of_ratio=True)
    return Row(_NAME, _linear(n, free.size), seconds, "s", target, "spsolve, same matrix", peer, False, note)


def large_row(n: int, options: Options) -> Row:
    """The same, so large that SciPy's solver is a slow peer."""
    circuit = cs.parse(wired_crossbar(n))
    seconds, solution = fastest(2, lambda: cs.solve(circuit))
    matrix, sides, free = nodal_system(circuit)
    peer, note = None, "left out by --quick"
    if not options.quick:
        peer, v = timed(linalg.spsolve, matrix, sides)
        note = _compared(solution, v, free)
    note = f"{_certificate(solution)}, {note}"
    return Row(_NAME, _linear(n, free.size), seconds, "s", Target(4.0), "spsolve, same matrix", peer, note=note)


def _linear(n: int, unknowns: int) -> str:
    return f"linear crossbar {n} x {n}, 1-ohm wires, {unknowns} unknowns"


def diode_row(n: int, runs: int, options: Options) -> Row:
    """A crossbar with a Shockley diode in every cell, beside ngspice on the flat deck when it is wanted and there."""
    circuit = cs.parse(wired_crossbar(n, "diode"))
    seconds, solution = fastest(runs, lambda: cs.solve(circuit))
    peer, note = None, "not measured in this run"
    if options.ngspice and not ngspice_available():
        note = "not installed"
    elif options.ngspice:
        with tempfile.TemporaryDirectory() as folder:
            deck, flat, raw = (Path(folder) / name for name in ("arrays.cir", "flat.cir", "flat.raw"))
            deck.write_text(wired_crossbar(n, "diode"))
            run_process([*CIRCUITSIM, "flatten", str(deck), "--output", str(flat)])
            peer = run_process([NGSPICE, "-n", "-b", "-r", str(raw), str(flat)]).seconds
            volts = dict(zip(circuit.nodes[1:], solution.voltages()[0, 1:].tolist(), strict=True))
            note = agreement(volts, read_raw(raw.read_bytes())[0])
    what = f"crossbar {n} x {n}, a Shockley diode in every cell, {solution.problem.n_free} unknowns"
    return Row(_NAME, what, seconds, "s", Target(0.5), NGSPICE, peer, note=f"{_certificate(solution)}, {note}")


def ideal_row(n: int) -> Row:
    """A crossbar with a perfect diode in every cell, beside the linear one of the same side."""
    circuits = {cell: cs.parse(wired_crossbar(n, cell)) for cell in ("ideal", "resistor")}
    best = best_of(3, {cell: lambda circuit=circuit: cs.solve(circuit) for cell, circuit in circuits.items()})
    (seconds, solution), (peer, linear) = best["ideal"], best["resistor"]
    what = f"crossbar {n} x {n}, an ideal diode in every cell, {solution.problem.n_free} unknowns"
    peer_name = f"linear crossbar {n} x {n}, {linear.problem.n_free} unknowns"
    target = Target(15.0, of_ratio=True)
    return Row(_NAME, what, seconds, "s", target, peer_name, peer, False, _certificate(solution))


def grid_rows(n: int, sources: int) -> list[Row]:
    """A power grid as a flat text file, solved by a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        deck = Path(folder) / "grid.cir"
        deck.write_text(current_grid(n, sources))
        size = deck.stat().st_size
        run = run_process([*CIRCUITSIM, "solve", str(deck)])
    found = KCL.search(run.stdout)
    if found is None:
        raise BenchmarkError("circuitsim solve printed no certificate")
    stages = next((line for line in run.stdout.splitlines() if line.startswith("seconds: ")), "")
    what = f"grid {n} x {n}, {sources} current sources, whole process"
    note = f"KCL {found.group(1)}, text {size / MB:.1f} MB; {stages}"
    return [
        Row(_NAME, what, run.seconds, "s", Target(20.0), note=note),
        Row(_NAME, "the same: peak memory", run.peak_bytes / MB, "MB", Target(6000.0)),
    ]


def sweep_rows(runs: int) -> list[Row]:
    """A `.dc` sweep of a diode bridge beside ngspice: whole processes that write a raw file, then without start-up."""
    deck = NETLISTS / "diode_bridge_sweep.cir"
    circuit = cs.load(deck)
    [analysis] = circuit.netlist.analyses
    target = Target(1.0, at_most=False, of_ratio=True)
    peer = own_time = None
    note = f"{NGSPICE} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        own, theirs = Path(folder) / "own.raw", Path(folder) / "theirs.raw"
        command = [*CIRCUITSIM, "sweep", str(deck), "--quiet", "--raw", str(own)]
        whole = min(run_process(command).seconds for _ in range(runs))
        if ngspice_available():
            done = [run_process([NGSPICE, "-n", "-b", "-r", str(theirs), str(deck)]) for _ in range(runs)]
            peer = min(run.seconds for run in done)
            own_time = min(float(found.group(1)) for run in done if (found := _ANALYSIS.search(run.stdout)))
            plus = [read_raw(path.read_bytes())[0].column("v(plus)") for path in (own, theirs)]
            note = f"largest difference of v(plus): {np.abs(plus[0] - plus[1]).max():.1e} V"
    seconds, result = fastest(runs, lambda: cs.sweep(circuit, analysis))
    kcl = f"KCL {result.kcl_relative.max():.1e}, {result.method}"
    what = f".dc sweep of a diode bridge, {result.values.shape[0]} points"
    own_clock = f"{NGSPICE}, by its own clock"
    return [
        Row(_NAME, f"{what}: whole process", whole, "s", target, NGSPICE, peer, note=note),
        Row(_NAME, f"{what}: in a process that runs", seconds, "s", target, own_clock, own_time, note=kcl),
    ]


def batch_rows(n: int, rows: int, runs: int) -> list[Row]:
    """Many input vectors on one linear crossbar beside one; from the circuit, and from a prepared problem."""
    volts = np.random.default_rng(0).uniform(-1.0, 1.0, (rows, n))
    one = cs.parse(wired_crossbar(n))
    many = one.with_values({"Vx": volts})
    problem = cs.compile_problem(one)
    prepared = problem.with_values({"Vx": volts})
    best = best_of(
        runs,
        {
            "one": lambda: cs.solve(one), "many": lambda: cs.solve(many),
            "one prepared": lambda: cs.solve(problem), "many prepared": lambda: cs.solve(prepared),
        },
    )  # fmt: skip
    what, target = f"{rows} input vectors, one linear crossbar {n} x {n}", Target(5.0, of_ratio=True)
    return [
        Row(_NAME, text, best["many" + kind][0], "s", limit, f"one vector{kind}", best["one" + kind][0], False, note)
        for kind, text, limit, note in (
            ("", what, target, _certificate(best["many"][1])),
            (" prepared", "the same, structure prepared", None, _certificate(best["many prepared"][1])),
        )
    ]


def _certificate(solution: cs.Solution) -> str:
    return f"KCL {solution.residuals.kcl_relative:.1e} ({solution.method}, {solution.steps} steps)"


def _compared(solution: cs.Solution, v: Floats, free: Ints) -> str:
    return f"largest difference of voltages {np.abs(solution.voltages(free)[0] - v).max():.1e} V"
