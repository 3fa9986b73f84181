"""`circuitsim check`: what a netlist holds, and what is wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from circuitsim.cli.common import EXIT_CODES, LENIENT, load, param_option, print_warnings
from circuitsim.errors import NetlistError, TopologyError
from circuitsim.io.commands import Subcommand


@click.command(
    cls=Subcommand,
    epilog="\b\nExamples:\n  circuitsim check netlists/drn_1h.cir\n  circuitsim check netlists/drn_1h.cir --json\n\n"
    + EXIT_CODES,
)
@click.argument("file", type=click.Path(path_type=Path))
@param_option
@click.option("--lenient", is_flag=True, help=f"{LENIENT}.")
@click.option(
    "--strict", is_flag=True, help="Treat islands that nothing joins to ground, and loops of sources, as errors."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of a table, for faults too.")
def check(file: Path, params: tuple[str, ...], lenient: bool, strict: bool, as_json: bool) -> None:
    """Say what a netlist holds, how it is arranged for solving, and what is wrong with it. Nothing is solved."""
    from circuitsim import compile_problem
    from circuitsim.io.inventory import inventory, print_inventory
    from circuitsim.io.output import warning_texts, write_json
    from circuitsim.io.tables import console

    try:
        circuit = load(file, params=params)
        problem = compile_problem(circuit, lenient)
        problem.drive(slice(0, 1))  # finds sources that no voltages satisfy
        if strict:
            problem.check_unique()
    except NetlistError as error:
        if as_json:
            write_json(_fault(error), sys.stdout)
        raise
    print_warnings(warning_texts(problem.circuit.notes)[len(circuit.notes) :])
    found = inventory(problem)
    if as_json:
        write_json({"status": "OK", **found}, sys.stdout)
    else:
        print_inventory(found, console())


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
