"""The benchmarks: each gives some rows of the table."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import circuitsim as cs
from circuitsim.backends.base import find_backend
from circuitsim.backends.cpu import TILE
from circuitsim.spice.ngspice import ngspice_available, read_raw
from training.datasets import MNIST, load_idx_dataset
from training.recipe import find_recipe
from validation.learning import step_rows
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
    run_process,
    timed,
)
from validation.newton import newton
from validation.peers import peers
from validation.points import points
from validation.qp import PEERS, SLOW_PEERS, PeerResult, installed, measure_peer, quadratic_program, relative_kcl

Floats = NDArray[np.float64]

_BCD_TOL = 1e-9
_COMPARABLE = 10.0  # a peer may miss BCD's tolerance by this factor
_STARTS = 5  # of each command


def stages(netlist: Path) -> dict[str, float]:
    """Seconds of each stage (parse, compile, solve, total), as `circuitsim solve --json` tells them."""
    run = run_process([*CIRCUITSIM, "solve", str(netlist), "--json"])
    return {name: float(value) for name, value in json.loads(run.stdout)["seconds"].items()}


def drn_1h(options: Options) -> list[Row]:
    """A whole `circuitsim solve`, its solve stage, and a solve where compiled code is loaded."""
    netlist = NETLISTS / "drn_1h.cir"
    whole = run_process([*CIRCUITSIM, "solve", str(netlist)], runs=2)
    problem = cs.compile_problem(cs.load(netlist))
    cs.solve(problem)
    return [
        Row("drn_1h", "whole process", whole.seconds, target=Target(2.0)),
        Row("drn_1h", "solve stage, with loading compiled code", stages(netlist)["solve"]),
        Row("drn_1h", "solving", min(cs.solve(problem).seconds["solve"] for _ in range(3)), target=Target(0.1)),
        Row("drn_1h", "peak memory", whole.peak_bytes / MB, "MB"),
    ]


def startup(options: Options) -> list[Row]:
    """Whole processes that have next to nothing to do, beside Python with NumPy alone; the fastest runs.

    They take turns, so that other work on the machine touches all alike; seconds of the processor feel it least.
    Modules are kept compiled, as in an installed package.
    """
    kept = ("env", "-u", "PYTHONDONTWRITEBYTECODE")
    with tempfile.TemporaryDirectory() as folder:
        deck = Path(folder) / "ladder.cir"
        deck.write_text(
            "ten nodes\nV1 n1 0 1\n" + "".join(f"R{k} n{k} n{k + 1} 1k\nRg{k} n{k + 1} 0 2k\n" for k in range(1, 10))
        )
        commands: dict[str, Sequence[str]] = {
            "numpy": [*kept, sys.executable, "-c", "import numpy"],
            "circuitsim --help": [*kept, *CIRCUITSIM, "--help"],
            "circuitsim solve, ten nodes": [*kept, *CIRCUITSIM, "solve", str(deck)],
            "circuitsim sweep, a diode bridge": [*kept, *CIRCUITSIM, "sweep", str(NETLISTS / "diode_bridge_sweep.cir")],
        }
        runs = [{name: run_process(command) for name, command in commands.items()} for _ in range(_STARTS)]
    wall = {name: min(run[name].seconds for run in runs) for name in commands}
    notes = {name: f"{min(run[name].processor_seconds for run in runs):.3f} s of the processor" for name in commands}
    peer = "python, import numpy"
    return [
        Row("startup", f"{name}, whole process", wall[name], "s", target, peer, wall["numpy"], False, notes[name])
        for name, target in zip(list(commands)[1:], (Target(0.3), Target(1.0), None), strict=True)
    ]


def drn_1h_flat(options: Options) -> list[Row]:
    """drn_1h with Shockley diodes as a flat file of plain SPICE, which ngspice reads as well."""
    with _flat_drn_1h() as flat:
        return flat_rows(flat, options)


def flat_rows(flat: Path, options: Options) -> list[Row]:
    """Parsing, compiling and solving a flat file, beside ngspice when it is wanted and there."""
    solve = [*CIRCUITSIM, "solve", str(flat)]
    whole = run_process(solve, runs=2)
    answer = json.loads(run_process([*solve, "--json"]).stdout)
    seconds = {name: answer["seconds"][name] for name in ("parse", "compile", "solve")}
    peer_seconds = peer_memory = None
    note = "not measured in this run"
    if options.ngspice and not ngspice_available():
        note = "not installed"
    elif options.ngspice:
        raw = flat.with_suffix(".raw")
        run = run_process([NGSPICE, "-n", "-b", "-r", str(raw), str(flat)])
        peer_seconds, peer_memory = run.seconds, run.peak_bytes / MB
        note = agreement(answer["voltages"], read_raw(raw.read_bytes())[0])
    parts = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    size = flat.stat().st_size / MB
    return [
        Row("drn_1h_flat", "parse + compile + solve", sum(seconds.values()), target=Target(5.0), note=parts),
        Row("drn_1h_flat", "whole process", whole.seconds, peer=NGSPICE, peer_measured=peer_seconds, note=note),
        Row("drn_1h_flat", "peak memory", whole.peak_bytes / MB, "MB", Target(2000.0), NGSPICE, peer_memory),
        Row("drn_1h_flat", "file size", size, "MB"),
    ]


@contextmanager
def _flat_drn_1h() -> Iterator[Path]:
    """A temporary flat copy of drn_1h, its perfect diodes replaced by ngspice's default Shockley diode."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, count = re.subn(r"(?m)^\.model ideal D\(.*$", ".model ideal D", (NETLISTS / "drn_1h.cir").read_text())
        if count != 1:
            raise BenchmarkError("netlists/drn_1h.cir: expected one line '.model ideal D(...)'")
        (folder / "drn_1h.cir").write_text(text)
        shutil.copy(NETLISTS / "digit.npz", folder)
        flat = folder / "flat.cir"
        run_process([*CIRCUITSIM, "flatten", str(folder / "drn_1h.cir"), "--output", str(flat)])
        yield flat


def drn_xl(options: Options) -> list[Row]:
    """The largest network of the paper: 51 million resistors."""
    whole = run_process([*CIRCUITSIM, "solve", str(NETLISTS / "drn_xl.cir")], runs=2)
    return [
        Row("drn_xl", "whole process", whole.seconds, target=Target(20.0)),
        Row("drn_xl", "peak memory", whole.peak_bytes / MB, "MB", Target(4000.0)),
    ]


def batch(options: Options) -> list[Row]:
    """The MNIST test images through drn_1h, against one matrix product of the size of their drive."""
    _, test = load_idx_dataset(MNIST)
    return batch_rows(NETLISTS / "drn_1h.cir", test.scale * test.features)


def batch_rows(netlist: Path, pixels: Floats, repeats: int = 3) -> list[Row]:
    """Solve all images (n, pixels), grey values 0 to 1, in one batch; timings interleaved, medians.

    `netlist` is a deep resistive network: sources Vx that take gain x (pixels, -pixels), a crossbar to hidden units.
    """
    problem = cs.compile_problem(cs.load(netlist))
    volts = find_recipe("drn-1h").gain * np.concatenate([pixels, -pixels], axis=1)
    settings = cs.Settings(dtype="float32", tol=1e-5)
    weights = problem.circuit.crossbars[0].g.astype(np.float32)
    left = volts.astype(np.float32)
    product = np.empty((left.shape[0], weights.shape[1]), np.float32)
    cs.solve(problem.with_values({"Vx": volts[:2]}), settings)  # loads the compiled kernels
    product_seconds, solve_seconds, sweep_seconds = [], [], []
    for _ in range(repeats):
        product_seconds.append(timed(np.matmul, left, weights, out=product)[0])
        taken, solution = timed(lambda: cs.solve(problem.with_values({"Vx": volts}), settings))
        solve_seconds.append(taken)
        sweep_seconds.append(timed(sweep_only, problem, volts, settings, solution.steps)[0])
    peer = statistics.median(product_seconds)
    what = f"{len(pixels)} images in one batch, float32, relative KCL {settings.tolerance:g}"
    name = f"product {left.shape[0]} x {left.shape[1]} x {weights.shape[1]}, float32"
    reached = f"KCL {solution.residuals.kcl_relative:.1e} in {solution.steps} sweeps"
    target = Target(3.0, of_ratio=True)
    bare = "sources set, drive, as many sweeps; no check, no certificate"
    return [
        Row("batch", what, statistics.median(solve_seconds), "s", target, name, peer, speedup=False, note=reached),
        Row("batch", "without certificate", statistics.median(sweep_seconds), "s", None, name, peer, False, bare),
    ]


def sweep_only(problem: cs.Problem, volts: Floats, settings: cs.Settings, sweeps: int) -> None:
    """What `solve` does for a batch, less the stop rule and the certificate: the drive and a given number of sweeps."""
    problem = problem.with_values({"Vx": volts})
    backend = find_backend(settings.backend)
    tiles = [slice(first, min(first + TILE, problem.batch)) for first in range(0, problem.batch, TILE)]
    own = threading.local()

    def work(rows: slice) -> None:
        if not hasattr(own, "engine"):
            own.engine = backend.engine(problem, settings.dtype)
        own.engine.start(problem.drive(rows), np.zeros((rows.stop - rows.start, problem.n_free)))
        own.engine.sweep(sweeps)
        own.engine.voltages()

    with ThreadPoolExecutor(backend.workers) as pool, threadpool_limits(1, "blas"):
        for _ in pool.map(work, tiles):
            pass


def qp(options: Options) -> list[Row]:
    """Block coordinate descent against QP solvers on the 3-hidden-layer network."""
    return qp_rows(cs.compile_problem(cs.load(NETLISTS / "drn_3h.cir")), options)


def qp_rows(problem: cs.Problem, options: Options) -> list[Row]:
    """Best of two runs each, all in float64; peers with the KCL that they reached by circuitsim's certificate."""
    settings = cs.Settings(method="bcd", tol=_BCD_TOL)
    program = quadratic_program(problem)
    cs.solve(problem, settings)  # loads the compiled kernels
    first, _ = timed(cs.solve, problem, settings)
    results: dict[str, PeerResult] = {}
    missing = []
    for name, peer in PEERS.items():
        if installed(name) is None:
            missing.append(Row("qp", "", peer=name, note="not installed"))
        elif options.quick and name in SLOW_PEERS:
            missing.append(Row("qp", "", peer=name, note="left out by --quick"))
        else:
            results[name] = measure_peer(peer, program, lambda x: relative_kcl(problem, x), _COMPARABLE * _BCD_TOL)
    again, solution = timed(cs.solve, problem, settings)
    seconds = min(first, again)
    what = f"BCD, {problem.n_free} unknowns, float64, relative KCL 1e-9"
    note = f"KCL {solution.residuals.kcl_relative:.1e} in {solution.steps} sweeps"
    comparable = {k: r for k, r in results.items() if r.kcl_relative <= _COMPARABLE * _BCD_TOL}
    best = min(comparable, key=lambda name: comparable[name].run.seconds, default="")
    peer_seconds = comparable[best].run.seconds if best else None
    target = Target(10.0, at_most=False, of_ratio=True)
    rows = [Row("qp", what, seconds, "s", target, f"best: {best}" if best else "", peer_seconds, note=note)]
    for name, result in results.items():
        note = (
            f"KCL {result.kcl_relative:.1e} at its tolerance {result.tolerance:g}; "
            f"setup {result.run.setup_seconds:.2f} s + solve {result.run.solve_seconds:.2f} s"
        )
        if name not in comparable:
            note += "; does not reach a comparable KCL"
        rows.append(Row("qp", "BCD", seconds, "s", None, name, result.run.seconds, note=note))
    return rows + missing


def parser(options: Options) -> list[Row]:
    """Reading a flat deck of the size of drn_1h, and one of the cells of a 256 x 256 crossbar."""
    return [*parser_rows(800_000), cell_row(65_536)]


def parser_rows(lines: int, runs: int = 2) -> list[Row]:
    """Lines per second of `circuitsim.load` on a deck of resistors with 17-digit values; the best run."""
    with tempfile.TemporaryDirectory() as folder:
        deck = Path(folder) / "resistors.cir"
        write_resistors(deck, 100)
        cs.load(deck)  # loads the compiled kernels
        write_resistors(deck, lines)
        seconds = min(timed(cs.load, deck)[0] for _ in range(runs))
        what = f"load {lines} resistor lines with 17-digit values"
        note = f"{seconds:.2f} s for {deck.stat().st_size / MB:.1f} MB"
    return [Row("parser", what, lines / seconds, "lines/s", Target(300_000.0, at_most=False), note=note)]


def cell_row(count: int, runs: int = 2, columns: int = 256) -> Row:
    """X cards per second of `circuitsim.load`, each a resistor of its own and a diode; the best run."""
    head = "cells\n.subckt cell a b r=1k\nR1 a m {r}\nD1 m b d\n.ends\n.model d D(is=1e-12)\n"
    seconds, ohms = [], np.random.default_rng(0).uniform(100.0, 10_000.0, count)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "r.npy", ohms.reshape(-1, columns))
        rows = f"[0:{count // columns - 1}]"
        array = f"X{rows}[0:{columns - 1}] w{rows} b[0:{columns - 1}] cell r=@r.npy\n"
        cells = [(k, k // columns, k % columns, r) for k, r in enumerate(ohms.tolist())]
        cards = [f"X{k} w{i} b{j} cell r={r:.17g}\n" for k, i, j, r in cells]
        flat = [f"R{k} w{i} m{k} {r:.17g}\nD{k} m{k} b{j} d\n" for k, i, j, r in cells]
        for name, lines in (("array.cir", [array]), ("flat.cir", flat), ("cards.cir", cards)):
            deck = Path(folder) / name
            deck.write_text(head + "".join(lines) + ".end\n")
            seconds.append(min(timed(cs.load, deck)[0] for _ in range(runs)))
    array_s, flat_s, cards_s = seconds
    note = f"{cards_s:.2f} s; as one array of subcircuits {array_s:.2f} s, as R and D cards {flat_s:.2f} s"
    return Row("parser", f"load {count} X cards of a resistor and a diode", count / cards_s, "cards/s", note=note)


def training(options: Options) -> list[Row]:
    """A step of training on each of the paper's networks, on all cores."""
    return step_rows(find_backend("cpu").workers)


def write_resistors(path: Path, count: int, columns: int = 1024) -> None:
    """A deck of `count` resistors x[i] to h[j], as a flattened crossbar has them."""
    ohms = np.random.default_rng(0).uniform(100.0, 10_000.0, count)
    with path.open("w") as out:
        out.write("resistors\n")
        out.writelines(f"R{k} x{k // columns} h{k % columns} {r:.17g}\n" for k, r in enumerate(ohms.tolist()))
        out.write(".end\n")


BENCHMARKS: dict[str, Callable[[Options], list[Row]]] = {
    "startup": startup,
    "drn_1h": drn_1h,
    "drn_1h_flat": drn_1h_flat,
    "drn_xl": drn_xl,
    "batch": batch,
    "qp": qp,
    "parser": parser,
    "training": training,
    "newton": newton,
    "points": points,
    "peers": peers,
}
