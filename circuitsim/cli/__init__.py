"""The command `circuitsim`, one file for each of its commands. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import click

from circuitsim import __version__
from circuitsim.cli.check import check
from circuitsim.cli.common import EXIT_CODES
from circuitsim.cli.compare import compare
from circuitsim.cli.completion import completion
from circuitsim.cli.examples import examples
from circuitsim.cli.flatten import flatten
from circuitsim.cli.plot import plot
from circuitsim.cli.solve import solve
from circuitsim.cli.sweep import sweep
from circuitsim.cli.view import view
from circuitsim.io.commands import HELP_NAMES, Group


@click.group(cls=Group, epilog=f"{EXIT_CODES} Those of compare are in its help.", context_settings=HELP_NAMES)
@click.version_option(__version__, prog_name="circuitsim")
def main() -> None:
    """Exact DC equilibria of nonlinear resistive networks from SPICE netlists, each with its certificate."""


for _command in (solve, sweep, check, flatten, compare, plot, view, examples, completion):
    main.add_command(_command)
