"""The command `circuitsim`. Results go to stdout, everything else to stderr.

numpy, numba and rich are imported inside the commands: help and usage errors answer at once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim import __version__
from circuitsim.errors import NetlistError, NotSolved, SettingsError, TopologyError
from circuitsim.io.commands import DIFFER, HELP_NAMES, NOT_SOLVED, Group

if TYPE_CHECKING:
    from circuitsim import Circuit, Settings, Solution, SweepResult
    from circuitsim.io.output import Results
    from circuitsim.netlist.saves import Save

MOST_WARNINGS = 10
_EXIT_CODES = (
    "Exit codes: 0 solved (check, flatten: done); 2 bad netlist or usage; 3 not solved: no answer that meets its "
    "certificate; 70 a defect of circuitsim; 130 interrupted, 143 or 129 ended by SIGTERM or SIGHUP."
)


@click.group(cls=Group, epilog=f"{_EXIT_CODES} Those of compare are in its help.", context_settings=HELP_NAMES)
@click.version_option(__version__, prog_name="circuitsim")
def main() -> None:
    """Exact DC equilibria of nonlinear resistive networks from SPICE netlists, each with its certificate."""


def _solver_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that solves: how, where, how exactly and how long."""
    options = (
        click.option(
            "--method",
            type=click.Choice(["auto", "bcd", "newton"]),
            default="auto",
            show_default=True,
            help="Algorithm: block coordinate descent or Newton; auto takes the one that suits the circuit.",
        ),
        click.option(
            "--backend",
            type=click.Choice(["auto", "cpu", "reference", "gpu"]),
            default="auto",
            show_default=True,
            help="Where to compute; auto takes a GPU for large batches, reference is slow and simple.",
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float64", "float32"]),
            default="float64",
            show_default=True,
            help="Precision.",
        ),
        click.option(
            "--tol", type=float, metavar="X", help="Largest relative KCL error.  [default: 1e-9; 1e-5 with float32]"
        ),
        click.option(
            "--max-sweeps",
            type=int,
            default=100_000,
            show_default=True,
            metavar="N",
            help="Give up after N sweeps, or Newton steps.",
        ),
        click.option(
            "--lenient",
            is_flag=True,
            help="Leave out islands that sources push into in vain, with a warning; solve the rest.",
        ),
        click.option("--strict", is_flag=True, help="A voltage or a current that is not unique is an error."),
    )
    return _with_options(command, options)


def _output_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every command that solves: what to give, and how."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of tables."),
        click.option(
            "--csv", "as_csv", is_flag=True, help="CSV on stdout: a column for each .output node, or each node."
        ),
        click.option(
            "--npz", type=click.Path(path_type=Path), metavar="OUT.npz", help="Also write everything to a numpy file."
        ),
        click.option(
            "--raw", type=click.Path(path_type=Path), metavar="OUT.raw", help="Also write a raw file, as ngspice does."
        ),
        click.option("--ascii", "as_ascii", is_flag=True, help="Write the raw file as text."),
        click.option(
            "--save",
            "saves",
            multiple=True,
            metavar="EXPR,...",
            help="Also give v(a,b), i(r1) of any element or array, @r1[p], alli, or all: every voltage, current and "
            "power; adds to .save. Repeatable.",
        ),
        click.option(
            "--quiet", "-q", is_flag=True, help="Only the voltages and what is saved; no warnings, no progress."
        ),
    )
    return _with_options(command, options)


def _with_options(
    command: Callable[..., None], options: Sequence[Callable[[Callable[..., None]], Callable[..., None]]]
) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


def _check_outputs(as_json: bool, as_csv: bool, as_ascii: bool, npz: Path | None, raw: Path | None) -> None:
    """Raise UsageError for options that do not go together, SettingsError for files that cannot be written."""
    from circuitsim.io.files import check_target

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other; choose one")
    if as_ascii and raw is None:
        raise click.UsageError("--ascii is about the raw file; add --raw OUT.raw")
    for target in filter(None, (npz, raw)):
        check_target(target)


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
@_solver_options
@_output_options
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
    _check_outputs(as_json, as_csv, as_ascii, npz, raw)
    from circuitsim import Settings
    from circuitsim.io.inputs import apply_inputs
    from circuitsim.io.output import Results, raw_plot, warning_texts, write_npz
    from circuitsim.io.raw import write_raw
    from circuitsim.saved import wanted_saves

    settings = Settings(method, backend, dtype, tol, max_sweeps, lenient, strict)
    clock = time.perf_counter()
    circuit = _load(file, quiet)
    if not quiet and any(analysis.kind == "dc" for analysis in circuit.netlist.analyses):
        click.echo(f"note: this is the operating point; circuitsim sweep {file} runs the .dc card", err=True)
    parsed = time.perf_counter()
    wanted = wanted_saves(circuit, saves)
    solution = _solve(apply_inputs(circuit, inputs), settings, quiet)
    seconds = {"parse": parsed - clock, **solution.seconds, "total": time.perf_counter() - clock}
    results = Results(solution, wanted)
    if not quiet:
        loose = results.loose_texts(MOST_WARNINGS, sources=raw is not None) if as_csv or raw is not None else []
        _print_warnings([*warning_texts(solution.circuit.notes)[len(circuit.notes) :], *results.remarks, *loose])
    try:
        if npz is not None:
            write_npz(results, npz)
        if raw is not None:
            write_raw(raw, [raw_plot(results)], title=circuit.netlist.title, ascii=as_ascii)
    except SettingsError:  # a full disk does not take the answer away
        _print_results(results, seconds, settings, as_json, as_csv, quiet)
        raise
    _print_results(results, seconds, settings, as_json, as_csv, quiet)
    if not solution.solved:
        raise NotSolved(solution)


_EXAMPLES_SWEEP = """
\b
Examples:
  circuitsim sweep netlists/diode_bridge_sweep.cir
  circuitsim sweep netlists/divider.cir --dc "Vin 0 5 0.1"
  circuitsim sweep netlists/zener.cir --dc "Vin 0 20 0.5 TEMP -40 120 40" --csv > curves.csv
  circuitsim sweep netlists/monte_carlo.cir --runs 1000 --seed 1
"""


@main.command(epilog=_EXAMPLES_SWEEP + "\n" + _EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--dc",
    metavar="'SRC START STOP STEP [SRC2 ...]'",
    help="Sweep this, in the place of the .dc cards of the netlist. SRC: a V, I or R element, TEMP or a parameter; the "
    "first one varies fastest.",
)
@click.option(
    "--runs",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="Monte Carlo: N operating points, each with fresh draws of the random functions; .dc cards are not run.",
)
@click.option("--seed", type=int, metavar="S", help="Run k draws with seed S + k.  [default: .options seed, or 0]")
@_solver_options
@_output_options
def sweep(
    file: Path,
    dc: str | None,
    runs: int | None,
    seed: int | None,
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
    """Run the .dc sweeps of a netlist, or Monte Carlo: many points on one circuit, each with its certificate."""
    _check_outputs(as_json, as_csv, as_ascii, npz, raw)
    if dc is not None and runs is not None:
        raise click.UsageError("--dc and --runs exclude each other; choose one")
    if seed is not None and runs is None:
        raise click.UsageError("--seed is for --runs")
    from circuitsim import Settings
    from circuitsim.io.output import warning_texts, write_json
    from circuitsim.io.raw import write_raw
    from circuitsim.io.sweeps import loose_texts, sweep_object, sweep_plot, write_sweep_csv, write_sweep_npz
    from circuitsim.io.tables import console, print_sweep
    from circuitsim.saved import wanted_saves

    settings = Settings(method, backend, dtype, tol, max_sweeps, lenient, strict)
    clock = time.perf_counter()
    circuit = _load(file, quiet)
    parsed = time.perf_counter()
    results = _sweep_all(circuit, settings, dc, runs, seed, wanted_saves(circuit, saves), quiet)
    now = time.perf_counter()
    seconds = {"parse": parsed - clock, "sweep": now - parsed, "total": now - clock}
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    if not quiet:
        loose = loose_texts(results, MOST_WARNINGS, sources=raw is not None) if as_csv or raw is not None else []
        _print_warnings([*warning_texts(notes), *loose])
    if npz is not None:
        write_sweep_npz(results, npz)
    if raw is not None:
        write_raw(raw, [sweep_plot(result) for result in results], title=circuit.netlist.title, ascii=as_ascii)
    if as_json:
        write_json(sweep_object(results, warning_texts([*circuit.notes, *notes]), seconds), sys.stdout)
    elif as_csv:
        write_sweep_csv(results, sys.stdout)
    else:
        title = circuit.netlist.title.strip()
        if title and not quiet:
            click.echo(f"{title}\n")
        for k, result in enumerate(results):
            if k:
                click.echo()
            print_sweep(result, settings.tolerance, console(), quiet)
        if not quiet:
            click.echo("seconds: " + ", ".join(f"{stage} {value:.2g}" for stage, value in seconds.items()))
    failed, total = sum(r.failed.size for r in results), sum(r.statuses.size for r in results)
    if failed:
        first = next(r for r in results if r.failed.size)
        k = int(first.failed[0])
        message = f"{failed} of {total} points failed; the first, {first.point(k)}: {first.messages[k]}"
        click.echo(f"error: {message}", err=True)
        click.get_current_context().exit(NOT_SOLVED)


def _sweep_all(
    circuit: Circuit,
    settings: Settings,
    dc: str | None,
    runs: int | None,
    seed: int | None,
    saves: Sequence[Save],
    quiet: bool,
) -> list[SweepResult]:
    """Every sweep that is asked for, under one progress bar."""
    from circuitsim.sweeping import analyses_to_run, count_points, monte_carlo
    from circuitsim.sweeping import sweep as run_sweep

    if runs is not None:
        with _progress("runs", runs, quiet) as report:
            return [monte_carlo(circuit, runs, seed, settings, progress=report, saves=saves)]
    analyses = analyses_to_run(circuit, dc)
    counts = [count_points(analysis) for analysis in analyses]
    with _progress("points", sum(counts), quiet) as report:
        return [
            run_sweep(circuit, analysis, settings, progress=_after(sum(counts[:k]), report), saves=saves)
            for k, analysis in enumerate(analyses)
        ]


def _after(before: int, report: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Report what is done after `before` points of earlier sweeps."""
    return lambda done, total: report(before + done, total)


@contextmanager
def _progress(text: str, total: int, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; yields what is to be called with (done, ...)."""
    if total == 1 or not _on_terminal(quiet):
        yield lambda done, _: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from circuitsim.io.tables import console

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done, _: bar.update(task, completed=done)


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
    _print_warnings(warning_texts(problem.circuit.notes)[len(circuit.notes) :])
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


@main.command(
    epilog="\b\nExamples:\n  circuitsim compare netlists/bridge_rectifier.cir\n"
    "  circuitsim compare netlists/drn_xs.cir --plot drn_xs.png\n"
    "  circuitsim compare netlists/diode_bridge_sweep.cir --sweeps --json > points.json\n"
    "  circuitsim compare netlists/clipper.cir --engine pyspice\n\n"
    "Exit codes: 0 both agree; 1 they differ by more than their tolerances allow; 2 bad netlist or usage, or the other "
    "simulator is not installed; 3 one of them has no answer, or nothing can be told; 70 a defect of circuitsim; 130 "
    "interrupted, 143 or 129 ended by SIGTERM or SIGHUP."
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--engine",
    type=click.Choice(["ngspice", "pyspice"]),
    default="ngspice",
    show_default=True,
    help="The program ngspice, or its shared library through PySpice (the extra `spice`).",
)
@click.option("--sweeps", is_flag=True, help="Compare every point of the .dc cards, not the operating point.")
@click.option("--timeout", type=float, default=600.0, show_default=True, metavar="S", help="Seconds for ngspice.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of tables: every value.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="OUT.png",
    help="Also draw their values over ours, and the differences: .png, .pdf or .svg (the extra `plot`).",
)
@click.option("--lenient", is_flag=True, help="Leave out islands that sources push into in vain; compare the rest.")
@click.option("--quiet", "-q", is_flag=True, help="Only the values and the verdict; no warnings, no progress.")
def compare(
    file: Path, engine: str, sweeps: bool, timeout: float, as_json: bool, plot: Path | None, lenient: bool, quiet: bool
) -> None:
    """Solve a netlist here and by ngspice: each voltage and source current of both, and who violates KCL more.

    ngspice gets the netlist as `flatten` writes it, with its tolerances tightened. What may differ is derived from
    them; where more does, the certificate says who is right.
    """
    from circuitsim import Settings
    from circuitsim.io.compare import Verdict, compare_sweep
    from circuitsim.io.compare import compare as compare_point
    from circuitsim.io.compared import check_picture, comparison_object, overall, plot_comparison, print_comparison
    from circuitsim.io.files import check_target
    from circuitsim.io.ngspice import check_timeout
    from circuitsim.io.output import write_json
    from circuitsim.io.tables import console

    check_timeout(timeout)
    if plot is not None:
        check_target(plot)
        check_picture(plot)
    circuit, settings = _load(file, quiet), Settings(lenient=lenient)
    with _busy("comparing", quiet):
        if sweeps:
            cards = [analysis for analysis in circuit.netlist.analyses if analysis.kind == "dc"]
            if not cards:
                raise SettingsError(f"{file} has no .dc card to compare; add one, or leave --sweeps out")
            found = [point for card in cards for point in compare_sweep(circuit, card, engine, settings, timeout)]
        else:
            found = [compare_point(circuit, engine, settings, timeout)]
    if plot is not None:
        plot_comparison(found, plot)
    if as_json:
        write_json(comparison_object(found), sys.stdout)
    else:
        print_comparison(found, console(), quiet)
    verdict = overall(found)
    if verdict is not Verdict.AGREE:
        click.get_current_context().exit(DIFFER if verdict is Verdict.DIFFER else NOT_SOLVED)


def _load(file: Path, quiet: bool = False) -> Circuit:
    from circuitsim import load
    from circuitsim.io.output import warning_texts

    with _busy(f"reading {file}", quiet):
        circuit = load(file)
    if not quiet:
        _print_warnings(warning_texts(circuit.notes))
    return circuit


def _solve(circuit: Circuit, settings: Settings, quiet: bool) -> Solution:
    from circuitsim import solve as solve_circuit

    rows = max(circuit.ties.e.shape[0], circuit.current_sources.i.shape[0])
    if rows == 1:
        with _busy("solving", quiet):
            return solve_circuit(circuit, settings, raise_on_failure=False)
    with _progress("solving", rows, quiet) as report:
        return solve_circuit(circuit, settings, raise_on_failure=False, progress=report)


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
