"""`circuitsim plot`: pictures of a solved circuit, of a sweep, of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim.cli.common import (
    EXIT_CODES,
    RUNS,
    busy,
    check_points,
    exit_if_failed,
    input_option,
    load_for,
    param_option,
    progress,
    seed_option,
    solver_options,
)
from circuitsim.errors import SettingsError
from circuitsim.io.commands import Subcommand

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuitsim import Circuit, Settings, SweepResult

_EXAMPLES = """
\b
Examples:
  circuitsim plot netlists/bridge_rectifier.cir -o bridge.png
  circuitsim plot netlists/drn_1h.cir -o drn.svg --input Vx=@netlists/digit.npz:gain480
  circuitsim plot netlists/drn_xs.cir -o cells.pdf --kind crossbar
  circuitsim plot netlists/zener.cir -o zener.png --dc "Vin 0 20 0.5"
  circuitsim plot netlists/monte_carlo.cir -o spread.png --runs 1000 --seed 1
  circuitsim plot runs/one runs/two -o training.png
"""


@click.command(cls=Subcommand, epilog=_EXAMPLES + "\n" + EXIT_CODES)
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--output",
    "-o",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="OUT.png",
    help="The picture: .png, .pdf or .svg.",
)
@click.option(
    "--kind",
    type=click.Choice(["auto", "graph", "crossbar", "layers", "sweep", "histogram", "training"]),
    default="auto",
    show_default=True,
    help="What to draw: the circuit as a graph, its crossbars as maps, a layered network, the curves of its .dc "
    "sweeps, the histograms of --runs, the curves of training runs.",
)
@input_option
@param_option
@click.option(
    "--row", type=click.IntRange(0), default=0, show_default=True, metavar="K", help="Which row of a batch to draw."
)
@click.option("--dc", metavar="'SRC START STOP STEP [SRC2 ...]'", help="Draw this sweep, as `sweep` runs it.")
@click.option("--runs", type=RUNS, metavar="N", help="Draw N Monte Carlo runs.")
@seed_option
@click.option("--save", "saves", multiple=True, metavar="EXPR,...", help="Draw i(r1), @r1[p], ... of a sweep, too.")
@click.option("--dpi", type=click.IntRange(20, 1200), default=150, show_default=True, help="Resolution of a .png.")
@solver_options
@click.option("--quiet", "-q", is_flag=True, help="No warnings, no progress.")
def plot(
    files: tuple[Path, ...],
    target: Path,
    kind: str,
    inputs: tuple[str, ...],
    params: tuple[str, ...],
    row: int,
    dc: str | None,
    runs: int | None,
    seed: int | None,
    saves: tuple[str, ...],
    dpi: int,
    solver: dict[str, Any],
    quiet: bool,
) -> None:
    """Draw what suits a FILE: for a netlist, its sweeps if it has .dc cards, else its solution (a layered network,
    crossbars, or a graph with voltages and currents); for folders of training runs, their curves.
    """
    from circuitsim import Settings
    from circuitsim.io.pictures import check_picture, write_picture
    from circuitsim.plot.curves import is_metrics

    check_picture(target, "--output")
    of_sweeps = [name for name, value in (("--dc", dc), ("--runs", runs), ("--save", saves or None)) if value]
    of_points = [name for name, value in (("--input", inputs), ("--row", row)) if value]
    if kind == "training" or (kind == "auto" and all(map(is_metrics, files))):
        of_points += ["--param"] if params else []
        if of_sweeps or of_points:
            raise click.UsageError(f"{(of_sweeps + of_points)[0]} is for netlists, not for training runs")
        write_picture(_training(files), target, dpi)
        return
    if len(files) > 1:
        raise click.UsageError("several FILEs are for training runs (their folders, or metrics.csv); name one netlist")
    [file] = files
    if is_metrics(file):
        raise SettingsError(f"{file} is a training run, not a netlist; leave --kind {kind} out")
    if kind in ("graph", "crossbar", "layers") and of_sweeps:
        raise click.UsageError(f"{of_sweeps[0]} is for sweeps; leave --kind {kind} out")
    if of_points and (of_sweeps or kind in ("sweep", "histogram")):
        raise click.UsageError(f"{of_points[0]} is for the operating point, not for sweeps")
    check_points(dc, runs, seed)
    if kind == "histogram" and runs is None:
        raise click.UsageError("histograms are those of Monte Carlo runs; add --runs 1000")
    if kind == "sweep" and runs is not None:
        raise click.UsageError("--runs draws histograms; leave --kind sweep out")
    settings = Settings(**solver)
    circuit, seed = load_for(runs, seed, file, quiet, [target], inputs, params)
    cards = bool(circuit.netlist.sweeps)
    if of_sweeps or kind == "sweep" or (kind == "auto" and cards and not of_points):
        result = _sweep(circuit, settings, dc, runs, seed, saves, quiet)
        write_picture(result.plot(), target, dpi)
        exit_if_failed([result])
        return
    from circuitsim import solve
    from circuitsim.io.inputs import apply_inputs

    with busy("solving", quiet):
        solution = solve(apply_inputs(circuit, inputs), settings)
    with busy("drawing", quiet):
        write_picture(solution.plot(kind, row), target, dpi)


def _training(files: Sequence[Path]) -> Figure:
    """The curves of training runs, each named by its folder."""
    from circuitsim.plot.curves import draw, read_curves

    names = [(file if file.is_dir() else file.parent).resolve().name for file in files]
    if len(set(names)) < len(names):
        names = [str(file) for file in files]
    runs = dict(zip(names, map(read_curves, files), strict=True))
    return draw(runs, names[0] if len(runs) == 1 else f"{len(runs)} training runs")


def _sweep(
    circuit: Circuit,
    settings: Settings,
    dc: str | None,
    runs: int | None,
    seed: int | None,
    saves: Sequence[str],
    quiet: bool,
) -> SweepResult:
    """The Monte Carlo runs, or the one sweep, that is asked for."""
    from circuitsim.saved import wanted_saves
    from circuitsim.sweeping import analyses_to_run, count_points, monte_carlo, sweep

    wanted = wanted_saves(circuit, saves)
    if runs is not None:
        with progress("runs", runs, quiet) as report:
            return monte_carlo(circuit, runs, seed, settings, progress=report, saves=wanted)
    analyses = analyses_to_run(circuit, dc, command=True)
    if len(analyses) > 1:
        raise SettingsError(
            f"{circuit.netlist.path} has {len(analyses)} .dc cards; choose one: --dc 'SRC START STOP STEP'"
        )
    with progress("points", count_points(analyses[0]), quiet) as report:
        return sweep(circuit, analyses[0], settings, progress=report, saves=wanted)
