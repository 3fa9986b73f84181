"""`circuitsim flatten`: any netlist as plain SPICE."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from circuitsim.cli.common import EXIT_CODES, load, param_option
from circuitsim.io.commands import Subcommand


@click.command(
    cls=Subcommand,
    epilog="\b\nExamples:\n  circuitsim flatten netlists/drn_xs.cir -o flat.cir\n"
    "  circuitsim flatten netlists/clipper.cir | ngspice -b\n\n" + EXIT_CODES,
)
@click.argument("file", type=click.Path(path_type=Path))
@param_option
@click.option("--output", "-o", "target", type=click.Path(path_type=Path), help="Write to this file, not to stdout.")
def flatten(file: Path, params: tuple[str, ...], target: Path | None) -> None:
    """Write a netlist as plain SPICE for ngspice: arrays, subcircuits and expressions worked out."""
    from circuitsim.io.files import check_target, replacing
    from circuitsim.spice.flatten import flatten as write_plain

    if target is not None:
        check_target(target)
    circuit = load(file, targets=[target], params=params)
    if target is None:
        write_plain(circuit, sys.stdout)
    else:
        with replacing(target, "w") as out:
            write_plain(circuit, out)
