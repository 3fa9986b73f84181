"""`circuitsim sweep`: .dc sweeps and Monte Carlo."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim.cli.common import (
    EXIT_CODES,
    MOST_WARNINGS,
    RUNS,
    after,
    check_outputs,
    check_points,
    exit_if_failed,
    load_for,
    output_options,
    param_option,
    print_warnings,
    progress,
    seed_option,
    solver_options,
)
from circuitsim.io.commands import Ended, Subcommand

if TYPE_CHECKING:
    from circuitsim import Circuit, SweepResult
    from circuitsim.io.study import Study

_EXAMPLES_SWEEP = """
\b
Examples:
  circuitsim sweep netlists/diode_bridge_sweep.cir
  circuitsim sweep netlists/divider.cir --dc "Vin 0 5 0.1"
  circuitsim sweep netlists/zener.cir --dc "Vin 0 20 0.5 TEMP -40 120 40" --csv > curves.csv
  circuitsim sweep netlists/monte_carlo.cir --runs 1000 --seed 1
  circuitsim sweep netlists/monte_carlo.cir --runs 100000 --workers 8 --study studies/mc --parquet mc.parquet
"""


@click.command(cls=Subcommand, epilog=_EXAMPLES_SWEEP + "\n" + EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--dc",
    metavar="'SRC START STOP STEP [SRC2 ...]'",
    help="Sweep this instead of the netlist's .dc cards. SRC: a V, I or R element, TEMP or a parameter; the "
    "first one varies fastest.",
)
@click.option(
    "--runs",
    type=RUNS,
    metavar="N",
    help="Monte Carlo: N operating points, each with fresh draws of the random functions; .dc cards are not run.",
)
@seed_option
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes on this machine. The results are bit-identical for any N.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use the workers of this Dask scheduler, tcp://HOST:PORT. Only use one that you trust.",
)
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep finished points in this folder; run the same command again to resume.",
)
@click.option(
    "--parquet",
    type=click.Path(path_type=Path),
    metavar="OUT.parquet",
    help="Also write a table with one row per point.",
)
@param_option
@solver_options
@output_options
def sweep(
    file: Path,
    dc: str | None,
    runs: int | None,
    seed: int | None,
    workers: int,
    scheduler: str | None,
    study: Path | None,
    parquet: Path | None,
    params: tuple[str, ...],
    solver: dict[str, Any],
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
    check_points(dc, runs, seed)
    from circuitsim import Settings, SettingsError
    from circuitsim.io.files import check_target
    from circuitsim.io.output import warning_texts, write_json
    from circuitsim.io.parquet import check_parquet, write_sweep_parquet
    from circuitsim.io.raw import write_raw
    from circuitsim.io.sweeps import loose_texts, sweep_object, sweep_plot, write_sweep_csv, write_sweep_npz
    from circuitsim.io.tables import console, print_sweep
    from circuitsim.saved import wanted_saves
    from circuitsim.workers import check as check_workers

    check_workers(workers, scheduler)
    if parquet is not None:
        check_parquet()
        check_target(parquet)
    settings = Settings(**solver)
    clock = time.perf_counter()
    circuit, seed = load_for(runs, seed, file, quiet, [npz, raw, parquet], params=params, study=study)
    parsed = time.perf_counter()
    how = {"settings": settings, "saves": wanted_saves(circuit, saves), "workers": workers, "scheduler": scheduler}
    results = _sweep_all(circuit, dc, runs, seed, how, study, quiet)
    now = time.perf_counter()
    seconds = {"parse": parsed - clock, "sweep": now - parsed, "total": now - clock}
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    if not quiet:
        loose = loose_texts(results, MOST_WARNINGS, sources=raw is not None) if as_csv or raw is not None else []
        print_warnings([*warning_texts(notes), *loose], "--json lists all")
    fault: SettingsError | None = None
    try:
        if npz is not None:
            write_sweep_npz(results, npz)
        if parquet is not None:
            write_sweep_parquet(results, parquet)
        if raw is not None:
            write_raw(raw, [sweep_plot(result) for result in results], title=circuit.netlist.title, ascii=as_ascii)
    except SettingsError as error:  # a full disk does not take the answer away
        fault = error
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
    if fault is not None:
        raise fault
    exit_if_failed(results)


def _sweep_all(
    circuit: Circuit,
    dc: str | None,
    runs: int | None,
    seed: int | None,
    how: dict[str, Any],
    study: Path | None,
    quiet: bool,
) -> list[SweepResult]:
    """Every sweep that is asked for, under one progress bar; each with a folder of its own in that of the study."""
    from circuitsim.sweeping import analyses_to_run, count_points, monte_carlo
    from circuitsim.sweeping import sweep as run_sweep

    if study is not None:
        from circuitsim.io.study import check_studies

        check_studies(study, circuit, "--study")
    if runs is not None:
        with progress("runs", runs, quiet) as report, _kept(study, "runs", quiet) as store:
            return [monte_carlo(circuit, runs, seed, progress=report, study=store, **how)]
    analyses = analyses_to_run(circuit, dc, command=True)
    counts = [count_points(analysis) for analysis in analyses]
    results = []
    with progress("points", sum(counts), quiet) as report:
        for k, analysis in enumerate(analyses):
            of_this = after(sum(counts[:k]), report)
            with _kept(study, f"dc{k + 1}", quiet) as store:
                results.append(run_sweep(circuit, analysis, progress=of_this, study=store, **how))
    return results


@contextmanager
def _kept(study: Path | None, name: str, quiet: bool) -> Iterator[Study | None]:
    """Where the chunks of an analysis are kept, if anywhere; says what was found there, and what is left there."""
    if study is None:
        yield None
        return
    from circuitsim.io.study import Study

    store = Study(study / name)
    try:
        yield store
    except (KeyboardInterrupt, Ended):
        click.echo(f"finished points are kept in {store.folder}; run the same command again to resume", err=True)
        raise
    if not quiet:
        print_warnings(store.remarks, "of other chunks")
        if store.kept:
            click.echo(f"note: {store.kept} chunks were taken from {store.folder}", err=True)
