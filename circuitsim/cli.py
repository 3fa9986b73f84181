"""The command `circuitsim`. Results go to stdout, everything else to stderr.

numpy, numba and rich are imported inside the commands: help and usage errors answer at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim import __version__
from circuitsim.errors import NetlistError, NotSolved, SettingsError, TopologyError
from circuitsim.io.commands import HELP_NAMES, Group

if TYPE_CHECKING:
    from circuitsim import Circuit, Settings, Solution
    from circuitsim.io.output import Results

MOST_WARNINGS = 10
_EXIT_CODES = (
    "Exit codes: 0 solved (check, flatten: done); 2 bad netlist or usage; 3 not solved: no answer that meets its "
    "certificate; 130 interrupted."
)


@click.group(cls=Group, epilog=_EXIT_CODES, context_settings=HELP_NAMES)
@click.version_option(__version__, prog_name="circuitsim")
def main() -> None:
    """Exact DC equilibria of nonlinear resistive networks from SPICE netlists, each with its certificate."""


_EXAMPLES_SOLVE = """
\b
Examples:
  circuitsim solve netlists/divider.cir
  circuitsim solve netlists/drn_xs.cir --json > answer.json
  circuitsim solve netlists/divider.cir --input Vin=2.5
  circuitsim solve netlists/drn_xs.cir --input Vx=@netlists/digit.npz:gain100 --csv
  circuitsim solve netlists/divider.cir --save "i(R1),@R1[p]"
  circuitsim solve netlists/zener.cir --raw zener.raw
"""


@main.command(epilog=_EXAMPLES_SOLVE + "\n" + _EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a source, or an array of sources, in V or A. VALUE: a SPICE number, @file.npy or @file.npz:key; a "
    "leading batch axis solves many inputs at once. Repeatable.",
)
@click.option("--method", type=click.Choice(["auto", "bcd"]), default="auto", show_default=True, help="Algorithm.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "cpu", "reference", "gpu"]),
    default="auto",
    show_default=True,
    help="Where to compute; reference is slow and simple.",
)
@click.option(
    "--dtype", type=click.Choice(["float64", "float32"]), default="float64", show_default=True, help="Precision."
)
@click.option("--tol", type=float, metavar="X", help="Largest relative KCL error.  [default: 1e-9; 1e-5 with float32]")
@click.option("--max-sweeps", type=int, default=100_000, show_default=True, metavar="N", help="Give up after N sweeps.")
@click.option(
    "--lenient", is_flag=True, help="Leave out islands that sources push into in vain, with a warning; solve the rest."
)
@click.option("--strict", is_flag=True, help="A voltage or a current that is not unique is an error.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of tables.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV on stdout: a column for each .output node, or each node.")
@click.option(
    "--npz", type=click.Path(path_type=Path), metavar="OUT.npz", help="Also write everything to a numpy file."
)
@click.option(
    "--raw", type=click.Path(path_type=Path), metavar="OUT.raw", help="Also write a raw file, as ngspice does."
)
@click.option("--ascii", "as_ascii", is_flag=True, help="Write the raw file as text.")
@click.option(
    "--save",
    "saves",
    multiple=True,
    metavar="EXPR,...",
    help="Also give v(a,b), i(r1) of any element or array, @r1[p], alli, or all: every voltage, current and power; "
    "adds to .save. Repeatable.",
)
@click.option("--quiet", "-q", is_flag=True, help="Only the voltages and what is saved; no warnings, no progress.")
def solve(
    file: Path,
    inputs: tuple[str, ...],
    method: str,
    backend: str,
    dtype: str,
    tol: float | None,
    max_sweeps: int,
    lenient: bool,
    strict: bool,
    as_json: bool,
    as_csv: bool,
    npz: Path | None,
    raw: Path | None,
    as_ascii: bool,
    saves: tuple[str, ...],
    quiet: bool,
) -> None:
    """Solve a netlist for its node voltages and source currents, and prove the answer."""
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other; choose one")
    if as_ascii and raw is None:
        raise click.UsageError("--ascii is about the raw file; add --raw OUT.raw")
    from circuitsim import Settings
    from circuitsim.io.files import check_target
    from circuitsim.io.inputs import apply_inputs
    from circuitsim.io.output import Results, raw_plot, warning_texts, write_npz
    from circuitsim.io.raw import write_raw
    from circuitsim.io.saved import wanted_saves

    settings = Settings(method, backend, dtype, tol, max_sweeps, lenient, strict)
    for target in (npz, raw):
        if target is not None:
            check_target(target)
    clock = time.perf_counter()
    circuit = _load(file, quiet)
    parsed = time.perf_counter()
    wanted = wanted_saves(circuit, saves)
    solution = _solve(apply_inputs(circuit, inputs), settings, quiet)
    seconds = {"parse": parsed - clock, **solution.seconds, "total": time.perf_counter() - clock}
    results = Results(solution, wanted)
    if not quiet:
        _print_warnings([*warning_texts(solution.circuit)[len(circuit.notes) :], *results.remarks])
    try:
        if npz is not None:
            write_npz(results, npz)
        if raw is not None:
            write_raw(raw, [raw_plot(results)], title=circuit.netlist.title, ascii=as_ascii)
    except SettingsError:  # a full disk does not take the answer away
        _print_results(results, seconds, settings, as_json, as_csv, quiet)
        raise
    _print_results(results, seconds, settings, as_json, as_csv, quiet)
    if (as_csv or raw is not None) and not quiet:
        _print_warnings(results.loose_texts(MOST_WARNINGS, sources=raw is not None))
    if not solution.solved:
        raise NotSolved(solution)


@main.command(
    epilog="\b\nExamples:\n  circuitsim check netlists/drn_1h.cir\n  circuitsim check netlists/drn_1h.cir --json\n\n"
    + _EXIT_CODES
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--lenient", is_flag=True, help="Leave out islands that sources push into in vain, with a warning.")
@click.option("--strict", is_flag=True, help="Islands that nothing joins to ground, and loops of sources, are errors.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of a table, of faults too.")
def check(file: Path, lenient: bool, strict: bool, as_json: bool) -> None:
    """Say what a netlist holds, how it is arranged for solving, and what is wrong with it. Nothing is solved."""
    from circuitsim import compile_problem
    from circuitsim.io.inventory import inventory, print_inventory
    from circuitsim.io.output import warning_texts, write_json
    from circuitsim.io.tables import console

    try:
        circuit = _load(file)
        problem = compile_problem(circuit, lenient)
        problem.drive(slice(0, 1))  # finds sources that no voltages satisfy
        if strict:
            problem.check_unique()
    except NetlistError as error:
        if as_json:
            write_json(_fault(error), sys.stdout)
        raise
    _print_warnings(warning_texts(problem.circuit)[len(circuit.notes) :])
    found = inventory(problem)
    if as_json:
        write_json({"status": "OK", **found}, sys.stdout)
    else:
        print_inventory(found, console())


@main.command(
    epilog="\b\nExamples:\n  circuitsim flatten netlists/drn_xs.cir -o flat.cir\n"
    "  circuitsim flatten netlists/clipper.cir | ngspice -b\n\n" + _EXIT_CODES
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", "-o", "target", type=click.Path(path_type=Path), help="Write to this file, not to stdout.")
def flatten(file: Path, target: Path | None) -> None:
    """Write a netlist as plain SPICE for ngspice: arrays, subcircuits and expressions worked out."""
    from circuitsim.io.files import check_target, replacing
    from circuitsim.io.flatten import flatten as write_plain

    if target is not None:
        check_target(target)
    circuit = _load(file)
    if target is None:
        write_plain(circuit, sys.stdout)
    else:
        with replacing(target, "w") as out:
            write_plain(circuit, out)


def _load(file: Path, quiet: bool = False) -> Circuit:
    from circuitsim import load
    from circuitsim.io.output import warning_texts

    with _busy(f"reading {file}", quiet):
        circuit = load(file)
    if not quiet:
        _print_warnings(warning_texts(circuit))
    return circuit


def _solve(circuit: Circuit, settings: Settings, quiet: bool) -> Solution:
    from circuitsim import solve as solve_circuit

    rows = max(circuit.ties.e.shape[0], circuit.current_sources.i.shape[0])
    if rows == 1 or not _on_terminal(quiet):
        with _busy("solving", quiet):
            return solve_circuit(circuit, settings, raise_on_failure=False)
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from circuitsim.io.tables import console

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("solving", total=rows)
        return solve_circuit(
            circuit,
            settings,
            raise_on_failure=False,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


@contextmanager
def _busy(text: str, quiet: bool) -> Iterator[None]:
    """Show that something is under way, on a terminal only."""
    if not _on_terminal(quiet):
        yield
        return
    from circuitsim.io.tables import console

    with console(stderr=True).status(text):
        yield


def _on_terminal(quiet: bool) -> bool:
    """Whether to draw progress."""
    return not quiet and sys.stderr.isatty()


def _print_results(
    results: Results, seconds: dict[str, float], settings: Settings, as_json: bool, as_csv: bool, quiet: bool
) -> None:
    from circuitsim.io.output import result_object, write_csv, write_json

    if as_json:
        write_json(result_object(results, seconds), sys.stdout)
    elif as_csv:
        write_csv(results, sys.stdout)
    else:
        from circuitsim.io.tables import console, print_solution

        print_solution(results, seconds, settings.tolerance, console(), quiet)


def _print_warnings(texts: Sequence[str]) -> None:
    for text in texts[:MOST_WARNINGS]:
        click.echo(f"warning: {text}", err=True)
    if len(texts) > MOST_WARNINGS:
        click.echo(f"... and {len(texts) - MOST_WARNINGS} more warnings; --json lists all", err=True)


def _fault(error: NetlistError) -> dict[str, Any]:
    """A fault as a JSON object."""
    witness = error if isinstance(error, TopologyError) else None
    return {
        "status": "FAULT",
        "message": error.message,
        "file": error.at.path if error.at else None,
        "line": error.at.line if error.at else None,
        "nodes": list(witness.nodes) if witness else [],
        "elements": list(witness.elements) if witness else [],
    }
