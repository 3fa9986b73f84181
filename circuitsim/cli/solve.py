"""`circuitsim solve`: the operating point."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim.cli.common import (
    EXIT_CODES,
    MOST_WARNINGS,
    busy,
    check_outputs,
    input_option,
    load,
    output_options,
    param_option,
    print_warnings,
    progress,
    solver_options,
)
from circuitsim.errors import NotSolved, SettingsError
from circuitsim.io.commands import Subcommand

if TYPE_CHECKING:
    from circuitsim import Circuit, Settings, Solution
    from circuitsim.io.output import Results

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


@click.command(cls=Subcommand, epilog=_EXAMPLES_SOLVE + "\n" + EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@input_option
@param_option
@solver_options
@output_options
def solve(
    file: Path,
    inputs: tuple[str, ...],
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
    """Solve a netlist for its node voltages and source currents, and prove the answer."""
    check_outputs(as_json, as_csv, as_ascii, npz, raw)
    from circuitsim import Settings
    from circuitsim.io.inputs import apply_inputs
    from circuitsim.io.output import Results, raw_plot, warning_texts, write_npz
    from circuitsim.saved import wanted_saves

    settings = Settings(**solver)
    clock = time.perf_counter()
    circuit = load(file, quiet, [npz, raw], inputs, params)
    if not quiet and circuit.netlist.sweeps:
        click.echo(f"note: this is the operating point; circuitsim sweep {file} runs the .dc card", err=True)
    parsed = time.perf_counter()
    wanted = wanted_saves(circuit, saves)
    solution = _solve(apply_inputs(circuit, inputs), settings, quiet)
    seconds = {"parse": parsed - clock, **solution.seconds, "total": time.perf_counter() - clock}
    results = Results(solution, wanted)
    if not quiet:
        loose = results.loose_texts(MOST_WARNINGS, sources=raw is not None) if as_csv or raw is not None else []
        notes = warning_texts(solution.circuit.notes)[len(circuit.notes) :]
        print_warnings([*notes, *results.remarks, *loose], "--json lists all")
    try:
        if npz is not None:
            write_npz(results, npz)
        if raw is not None:
            from circuitsim.io.raw import write_raw

            write_raw(raw, [raw_plot(results)], title=circuit.netlist.title, ascii=as_ascii)
    except SettingsError:  # a full disk does not take the answer away
        _print_results(results, seconds, settings, as_json, as_csv, quiet)
        raise
    _print_results(results, seconds, settings, as_json, as_csv, quiet)
    if not solution.solved:
        raise NotSolved(solution)


def _solve(circuit: Circuit, settings: Settings, quiet: bool) -> Solution:
    from circuitsim import solve as solve_circuit

    if circuit.batch == 1:
        with busy("solving", quiet):
            return solve_circuit(circuit, settings, raise_on_failure=False)
    with progress("solving", circuit.batch, quiet) as report:
        return solve_circuit(circuit, settings, raise_on_failure=False, progress=report)


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
