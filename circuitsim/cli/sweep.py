"""`circuitsim sweep`: .dc sweeps and Monte Carlo."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from circuitsim.cli.common import (
    EXIT_CODES,
    MOST_WARNINGS,
    check_outputs,
    load,
    output_options,
    print_warnings,
    progress,
    solver_options,
)
from circuitsim.io.commands import NOT_SOLVED

if TYPE_CHECKING:
    from circuitsim import Circuit, Settings, SweepResult
    from circuitsim.netlist.saves import Save

_EXAMPLES_SWEEP = """
\b
Examples:
  circuitsim sweep netlists/diode_bridge_sweep.cir
  circuitsim sweep netlists/divider.cir --dc "Vin 0 5 0.1"
  circuitsim sweep netlists/zener.cir --dc "Vin 0 20 0.5 TEMP -40 120 40" --csv > curves.csv
  circuitsim sweep netlists/monte_carlo.cir --runs 1000 --seed 1
"""


@click.command(epilog=_EXAMPLES_SWEEP + "\n" + EXIT_CODES)
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
@solver_options
@output_options
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
    check_outputs(as_json, as_csv, as_ascii, npz, raw)
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
    circuit = load(file, quiet)
    parsed = time.perf_counter()
    results = _sweep_all(circuit, settings, dc, runs, seed, wanted_saves(circuit, saves), quiet)
    now = time.perf_counter()
    seconds = {"parse": parsed - clock, "sweep": now - parsed, "total": now - clock}
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    if not quiet:
        loose = loose_texts(results, MOST_WARNINGS, sources=raw is not None) if as_csv or raw is not None else []
        print_warnings([*warning_texts(notes), *loose])
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
        with progress("runs", runs, quiet) as report:
            return [monte_carlo(circuit, runs, seed, settings, progress=report, saves=saves)]
    analyses = analyses_to_run(circuit, dc)
    counts = [count_points(analysis) for analysis in analyses]
    with progress("points", sum(counts), quiet) as report:
        return [
            run_sweep(circuit, analysis, settings, progress=_after(sum(counts[:k]), report), saves=saves)
            for k, analysis in enumerate(analyses)
        ]


def _after(before: int, report: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Report what is done after `before` points of earlier sweeps."""
    return lambda done, total: report(before + done, total)
