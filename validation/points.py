"""Benchmarks of many small circuits: draws and parameters beside ngspice's loops, many inputs of one beside one."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import circuitsim as cs
from circuitsim.gallery import diode_mesh
from circuitsim.spice.ngspice import ngspice_available
from validation.measure import CIRCUITSIM, NETLISTS, NGSPICE, Options, Row, Target, best_of, run_process

Floats = NDArray[np.float64]

_NAME = "points"
_DRAWN = "{agauss(1k, 50, 1)}"  # ohm
_CLIPPER = """* a clipper of two stages
.param r=1k
V1 in 0 5
R1 in a {r}
D1 a 0 d
R2 a b {2*r}
D2 b 0 d
R3 b c {r/2}
R4 c 0 {5*r}
.model d D(is=1e-14 n=1.5)
"""
_FASTER = Target(1.0, at_most=False, of_ratio=True)


@dataclass(frozen=True)
class Sizes:
    """How large each analysis is: sides of the meshes; draws of a mesh, and of a ladder; values; rows of a batch."""

    mesh: int = 22
    mesh_draws: int = 1000
    ladder_draws: int = 10_000
    values: int = 1000
    inputs: int = 200
    runs: int = 3


def points(options: Options, sizes: Sizes | None = None) -> list[Row]:
    """All rows. One process each, one core."""
    s = sizes or Sizes()
    ladder = (NETLISTS / "monte_carlo.cir").read_text()
    return [
        monte_carlo_row(f"a {s.mesh**2}-node diode mesh", diode_mesh(s.mesh, _DRAWN), "n1_1", s.mesh_draws),
        monte_carlo_row("netlists/monte_carlo.cir", ladder, "j4", s.ladder_draws),
        parameter_row(s.values),
        inputs_row(s.mesh, s.inputs, s.runs),
    ]


def monte_carlo_row(what: str, deck: str, node: str, draws: int) -> Row:
    """Whole processes that draw as often; the means of a voltage must agree but for chance."""
    body = re.sub(r"(?im)^\.(op|end)\b.*$", "", deck)
    peer, note = None, f"{NGSPICE} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        own, theirs, found = (Path(folder) / name for name in ("own.cir", "theirs.cir", "own.npz"))
        own.write_text(body)
        loop = f"repeat {draws}\nreset\nop\nprint v({node})\ndestroy\nend\nquit 0"
        theirs.write_text(f"{body}\n.control\n{loop}\n.endc\n.end\n")
        command = [*CIRCUITSIM, "sweep", str(own), "--runs", str(draws), "--quiet", "--npz", str(found)]
        whole = run_process(command, runs=2).seconds
        with np.load(found) as results:
            v = results["voltages"][:, results["nodes"].tolist().index(node)]
        if ngspice_available():
            run = run_process([NGSPICE, "-n", "-b", str(theirs)])
            printed = re.findall(rf"(?m)^v\({node}\) = (\S+)", run.stdout)
            peer, note = run.seconds, _compared(v, np.array(printed, float))
    return Row(_NAME, f"Monte Carlo, {draws:,} draws of {what}", whole, "s", _FASTER, NGSPICE, peer, note=note)


def parameter_row(values: int) -> Row:
    """Whole processes that solve a small circuit for as many values of a parameter."""
    peer, note = None, f"{NGSPICE} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        own, theirs, found = (Path(folder) / name for name in ("own.cir", "theirs.cir", "own.npz"))
        own.write_text(_CLIPPER)
        step = "let ohm = 100 + 10 * k\nalterparam r = $&ohm\nreset\nop\nprint v(c)\ndestroy\nlet k = k + 1"
        loop = f"let k = 0\nwhile k < {values}\n{step}\nend\nquit 0"
        theirs.write_text(f"{_CLIPPER}.options reltol=1e-6\n.control\n{loop}\n.endc\n.end\n")
        dc = ["--dc", f"r 100 {90 + 10 * values} 10"]
        command = [*CIRCUITSIM, "sweep", str(own), *dc, "--quiet", "--npz", str(found)]
        whole = run_process(command, runs=2).seconds
        with np.load(found) as results:
            v = results["voltages"][:, results["nodes"].tolist().index("c")]
        if ngspice_available():
            run = run_process([NGSPICE, "-n", "-b", str(theirs)])
            printed = np.array(re.findall(r"(?m)^v\(c\) = (\S+)", run.stdout), float)
            peer, note = run.seconds, f"largest difference {np.abs(v - printed).max():.1e} V"
    what = f"{values:,} values of a parameter in eight cards"
    return Row(_NAME, what, whole, "s", None, NGSPICE, peer, note=note)


def _compared(ours: Floats, theirs: Floats) -> str:
    """How far two means are from each other, in standard errors."""
    error = np.sqrt(ours.var() / ours.size + theirs.var() / max(theirs.size, 1))
    return f"means {abs(ours.mean() - theirs.mean()) / error:.1f} standard errors apart, {theirs.size:,} draws there"


def inputs_row(side: int, rows: int, runs: int) -> Row:
    """Many inputs of a mesh of diodes beside one, structure prepared."""
    problem = cs.compile_problem(cs.parse(diode_mesh(side)))
    rng = np.random.default_rng(1)
    many = problem.with_values({"V1": rng.uniform(1.0, 5.0, (rows, 1)), "V2": rng.uniform(-5.0, 5.0, (rows, 1))})
    best = best_of(runs, {"one": lambda: cs.solve(problem), "many": lambda: cs.solve(many)})
    (one, _), (seconds, solution) = best["one"], best["many"]
    note = f"KCL {solution.residuals.kcl_relative:.1e} ({solution.method}, {solution.steps} steps)"
    what = f"{rows} inputs of a {side**2}-node diode mesh, prepared"
    return Row(_NAME, what, seconds, peer="one input, prepared", peer_measured=one, speedup=False, note=note)
