"""`python -m training.mnist`: a netlist learns MNIST, or any other data set of images in IDX form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from circuitsim.io.commands import HELP_NAMES
from training.options import EXIT_CODES, FILES_HELP, TrainingCommand, options_of, shared_options
from training.program import Data, taken_up, train

_EXAMPLES = f"""
\b
Examples:
  python -m training.mnist
  python -m training.mnist --netlist drn-2h
  python -m training.mnist --netlist drn-1h --algorithm bp --seed 3 --out runs/third
  python -m training.mnist --netlist drn-1h --algorithm bp --seed 3 --out runs/third --resume
  python -m training.mnist --limit 2000 --epochs 3 --nudge 0.5 --conductance-rates 0.004,0.008
  python -m training.mnist --netlist my.cir --recipe my.toml --data fashion

{FILES_HELP}

{EXIT_CODES}
"""


@click.command(cls=TrainingCommand, epilog=_EXAMPLES, context_settings=HELP_NAMES)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder with the four IDX files of a data set, gzipped or not.  [default: the included MNIST]",
)
@shared_options(netlist="drn-xs", first="--first-image")
@click.pass_context
def main(ctx: click.Context, **_: Any) -> None:
    """Train a netlist to recognise handwritten digits, and write it back as a netlist.

    The netlist is the model: `.input` names the sources that take the pixels, `.output` the ten nodes that are read,
    `.train` the elements that learn. The recipe (a TOML file) says how, and each of its keys is an option here.
    """
    ctx = taken_up(ctx)
    train("training.mnist", ctx, options_of(ctx), lambda: read_images(ctx.params["data"]))


def read_images(folder: Path | None) -> Data:
    """The images of a folder; None: those of MNIST. SettingsError for files that are none."""
    from training.datasets import MNIST, idx_files, load_idx_dataset
    from training.record import file_digest

    folder = MNIST if folder is None else folder
    training, test = load_idx_dataset(folder)
    files = idx_files(folder)
    digests = {path.name: file_digest(path) for path in files}
    return Data(training, test, {"folder": str(folder.resolve()), "sha256": digests}, files)


if __name__ == "__main__":
    main(prog_name="python -m training.mnist")
