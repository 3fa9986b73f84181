"""`python -m training.fit`: any netlist with `.input`, `.output` and `.train` learns a table of inputs and targets."""

from __future__ import annotations

import csv
import math
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim.io.commands import HELP_NAMES, NOT_SOLVED
from training.options import EXIT_CODES, FILES_HELP, TrainingCommand, options_of, shared_options
from training.program import Data, taken_up, train

if TYPE_CHECKING:
    from training.learner import Samples

TABLES = Path(__file__).parent / "data"

_EXAMPLES = f"""
\b
Examples:
  python -m training.fit
  python -m training.fit --netlist xor --algorithm implicit --seed 4
  python -m training.fit --netlist my.cir --data my.csv --gain 1 --tol 1e-9 --nudge 1e-5 --conductance-rates 1e-6
    --batch-size 3

A table is a CSV file with a header line; columns whose names begin with `target` hold what the outputs are to reach,
in V, the others drive the `.input` sources (twice as many sources as columns: the second half takes the negated
values). Instead of targets, a column `label` may give the class of each row, from 0: its output is to reach 1 V, all
others 0 V.

{FILES_HELP}

{EXIT_CODES} Code 3 also means that the
trained netlist could not be solved.
"""


@click.command(cls=TrainingCommand, epilog=_EXAMPLES, context_settings=HELP_NAMES)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Table to train on.  [default: the built-in one with the netlist's name]",
)
@click.option(
    "--test-data",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Table to test on.  [default: the training data]",
)
@shared_options(netlist="xor", first="--first-sample")
@click.pass_context
def main(ctx: click.Context, **_: Any) -> None:
    """Train any netlist to give the voltages of a table, write it back as a netlist, and certify its outputs.

    `.input` names the sources that take a row's inputs, `.output` the nodes that are to reach its targets,
    `.train` the elements that learn. Where the targets are those of classes, one value at the output of a row's class
    and another at all others, a row counts as an error when another output is the largest.
    """
    ctx = taken_up(ctx)
    options = options_of(ctx)
    read = cache(partial(read_tables, options.netlist, ctx.params["data"], ctx.params["test_data"]))
    folder = train("training.fit", ctx, options, read)
    if not _verify(folder, read().limited(options.limit, options.test_limit).test):
        ctx.exit(NOT_SOLVED)


def built_in(netlist: str) -> Path:
    """Where the table of a netlist that is built in would be."""
    return TABLES / f"{Path(netlist).stem}.csv"


def read_tables(netlist: str, data: Path | None, test_data: Path | None) -> Data:
    """The tables, with their digests."""
    from training.record import file_digest
    from training.table import load_table

    path = data or built_in(netlist)
    if data is None and not path.is_file():
        raise click.UsageError(f"there is no table for {netlist}; give one with --data FILE.csv")
    train = load_table(path)
    test = load_table(test_data, like=path) if test_data else train
    files = [path, *([test_data] if test_data else [])]
    return Data(train, test, {"sha256": {str(file): file_digest(file) for file in files}}, files)


def _verify(folder: Path, test: Samples) -> bool:
    """Read the trained netlist back, solve it for the test data, and say what it gives; whether it is certified."""
    from circuitsim import load
    from training.evaluate import evaluate, gain_of
    from training.record import METRICS, TRAINED

    found = evaluate(load(folder / TRAINED), test, gain_of(folder))
    *_, last = csv.DictReader((folder / METRICS).read_text().splitlines())
    error = float(last["test_error"])  # NaN where training or test data are of no classes
    learner = "" if math.isnan(error) else f" (the learner: {error:.2f} %)"
    click.echo(f"{folder / TRAINED}, solved for {len(test)} samples: {found.text}{learner}")
    if not found.solution.solved:
        click.echo(f"error: the trained netlist is not solved: {found.solution.message}", err=True)
    return found.solution.solved


if __name__ == "__main__":
    main(prog_name="python -m training.fit")
