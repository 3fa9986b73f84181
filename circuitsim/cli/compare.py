"""`circuitsim compare`: beside ngspice."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from circuitsim.cli.common import LENIENT, after, busy, load, param_option, progress
from circuitsim.errors import SettingsError
from circuitsim.io.commands import DIFFER, NOT_SOLVED, Subcommand


@click.command(
    cls=Subcommand,
    epilog="\b\nExamples:\n  circuitsim compare netlists/bridge_rectifier.cir\n"
    "  circuitsim compare netlists/drn_xs.cir --plot drn_xs.png\n"
    "  circuitsim compare netlists/diode_bridge_sweep.cir --sweeps --json > points.json\n"
    "  circuitsim compare netlists/clipper.cir --engine pyspice\n\n"
    "Exit codes: 0 both agree; 1 they differ by more than their tolerances allow; 2 bad netlist or usage, or the other "
    "simulator is not installed; 3 one of them has no answer, or the comparison is inconclusive; 70 a defect of "
    "circuitsim; 130 interrupted, 143 or 129 ended by SIGTERM or SIGHUP.",
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
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, metavar="S", help="Time limit for ngspice, in seconds."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of tables: every value.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="OUT.png",
    help="Also plot their values against ours, and the differences: .png, .pdf or .svg (the extra `plot`).",
)
@param_option
@click.option("--lenient", is_flag=True, help=f"{LENIENT}; compare the rest.")
@click.option("--quiet", "-q", is_flag=True, help="Only the values and the verdict; no warnings, no progress.")
def compare(
    file: Path,
    engine: str,
    sweeps: bool,
    timeout: float,
    as_json: bool,
    plot: Path | None,
    params: tuple[str, ...],
    lenient: bool,
    quiet: bool,
) -> None:
    """Compare circuitsim's answer with ngspice's: each voltage and source current, and who violates KCL more.

    ngspice gets the netlist as `flatten` writes it, with its tolerances tightened. The allowed differences are
    derived from them; where values differ by more, the certificate says who is right.
    """
    from circuitsim import Settings
    from circuitsim.io.output import write_json
    from circuitsim.io.pictures import check_picture
    from circuitsim.io.tables import console
    from circuitsim.spice.compare import Comparison, Verdict, compare_sweep
    from circuitsim.spice.compare import compare as compare_point
    from circuitsim.spice.compared import comparison_object, overall, plot_comparison, print_comparison
    from circuitsim.spice.ngspice import check_timeout
    from circuitsim.sweeping import count_points

    check_timeout(timeout)
    if plot is not None:
        check_picture(plot, "--plot")
    circuit, settings = load(file, quiet, params=params), Settings(lenient=lenient)
    if sweeps:
        cards = circuit.netlist.sweeps
        if not cards:
            raise SettingsError(f"{file} has no .dc card to compare; add one, or leave --sweeps out")
        found = list[Comparison]()
        with progress("points", sum(map(count_points, cards)), quiet) as report:
            for card in cards:
                found += compare_sweep(circuit, card, engine, settings, timeout, progress=after(len(found), report))
    else:
        with busy("comparing", quiet):
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
