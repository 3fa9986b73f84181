"""`python -m validation.benchmarks`: the performance table, each figure beside its target and its peer.

Every ratio is between figures of the same run. The exit code is 0 when it ran, whatever the figures.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from circuitsim import CircuitError, SettingsError, __version__
from circuitsim.backends.cpu import cores
from circuitsim.io.commands import HELP_NAMES, Command
from circuitsim.io.files import check_target
from circuitsim.spice.ngspice import ngspice_version
from validation.measure import NGSPICE, BenchmarkError, Options, Row, Target, save_json
from validation.peers import RESULTS
from validation.qp import PEERS, installed
from validation.suite import BENCHMARKS

_WIDTH = 160  # of the table when it does not go to a terminal


@click.command(cls=Command, context_settings=HELP_NAMES)
@click.option(
    "--only", "names", multiple=True, type=click.Choice(list(BENCHMARKS)), help="Run only this one. Repeatable."
)
@click.option(
    "--json", "target", type=click.Path(path_type=Path, dir_okay=False), help="Also save the rows here as they come."
)
@click.option("--quick", is_flag=True, help="Leave out the slow peers.")
@click.option("--with-ngspice", is_flag=True, help="Also run ngspice where it takes minutes.")
def main(names: tuple[str, ...], target: Path | None, quick: bool, with_ngspice: bool) -> None:
    """Measure circuitsim's speed and memory, and compare with its targets and its peers.

    Ctrl-C ends it with the table of the benchmarks that were done.
    """
    if target is not None:
        _check_target(target)
    options = Options(quick, with_ngspice)
    rows: list[Row] = []
    try:
        for name in names or BENCHMARKS:
            click.echo(f"{name} ...", err=True)
            rows += run_one(name, options)
            if target is not None:
                save_json(report(rows), target)
    finally:  # when it is interrupted, too
        if rows:
            print_table(rows, Console(width=None if sys.stdout.isatty() else _WIDTH))


def _check_target(target: Path) -> None:
    """Before minutes are spent on what could not be saved."""
    if target.resolve() == RESULTS.resolve():
        raise click.UsageError(f"{target} is the file for the points of the ladders; give --json another name")
    try:
        check_target(target)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None


def run_one(name: str, options: Options) -> list[Row]:
    """The rows of one benchmark; when it cannot be run, one row whose note says why."""
    try:
        return BENCHMARKS[name](options)
    except (BenchmarkError, CircuitError) as error:
        return [Row(name, "not measured", note=str(error))]


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything that the JSON file holds."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "rows": [row.as_json() for row in rows],
    }


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory, operating system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": _cpu_model(), "cores": cores(), "memory_bytes": memory, "system": platform.platform()}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def versions() -> dict[str, str | None]:
    """What was measured, and with what; None: not installed."""
    packages = ("numpy", "scipy", "numba", "pyamg", *PEERS)
    return {
        "circuitsim": __version__,
        "python": platform.python_version(),
        **{name: installed(name) for name in packages},
        NGSPICE: _ngspice_version(),
    }


def _ngspice_version() -> str | None:
    program = shutil.which(NGSPICE)
    if program is None:
        return None
    with_klu = b"KLU" in Path(program).resolve().read_bytes()
    return f"{ngspice_version(program).removeprefix('ngspice-')}, {'KLU' if with_klu else 'SPARSE 1.3'}"


def print_table(rows: Sequence[Row], console: Console) -> None:
    """The table, and the machine below it."""
    table = Table("benchmark", "what")
    for title in ("measured", "target", "met", "peer"):
        table.add_column(title, justify="right" if title == "measured" else "left")
    table.add_column("peer measured", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("note")
    before = ""
    for row in rows:
        if before not in ("", row.benchmark):
            table.add_section()
        name, before = ("" if row.benchmark == before else row.benchmark), row.benchmark
        met = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[row.met]
        figures = (_figure(row.measured, row.unit), _target(row.target, row.unit))
        table.add_row(
            name, row.what, *figures, met, row.peer, _figure(row.peer_measured, row.unit), _ratio(row), row.note
        )
    console.print(table)
    about = machine()
    memory = f"{about['memory_bytes'] / 2**30:.0f} GiB"
    console.print(f"{about['cpu']}, {about['cores']} cores, {memory}; ratio: peer / measured, or as it says")


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _target(target: Target | None, unit: str) -> str:
    if target is None:
        return ""
    return f"{'<=' if target.at_most else '>='} {_figure(target.limit, 'x' if target.of_ratio else unit)}"


def _ratio(row: Row) -> str:
    if row.ratio is None:
        return ""
    return f"{row.ratio:.3g}" if row.speedup else f"{row.ratio:.3g} (measured / peer)"


if __name__ == "__main__":
    main(prog_name="python -m validation.benchmarks")
