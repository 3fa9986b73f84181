"""`circuitsim examples`: the netlists that come with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from circuitsim.cli.common import EXIT_CODES
from circuitsim.io.commands import Subcommand

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from circuitsim.io.examples import names

    return [CompletionItem(name) for name in names() if name.startswith(incomplete)]


@click.command(
    cls=Subcommand,
    epilog="\b\nExamples:\n  circuitsim examples\n  circuitsim examples divider drn_xs --to first\n"
    "  circuitsim examples --all --to netlists\n\n" + EXIT_CODES,
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_complete)
@click.option("--all", "every", is_flag=True, help="Copy all examples.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Copy into this folder.  [default: the current one]",
)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def examples(names: tuple[str, ...], every: bool, folder: Path | None, force: bool) -> None:
    """List the example netlists with their titles, or copy those named, with the data files that they read.

    Existing files are never overwritten without --force. Prints where the copies are.
    """
    from circuitsim.io import examples as shipped

    if every and names:
        raise click.UsageError("--all and names exclude each other; choose one")
    if not every and not names and (folder is not None or force):
        raise click.UsageError("--to and --force are for copying; give the NAME of an example, or --all")
    found = [shipped.find_example(name) for name in names or shipped.names()]
    if names or every:
        for path in shipped.copy_examples(found, folder or Path(), force):
            click.echo(path)
        return
    width = max(len(example.name) for example in found)
    for example in found:
        click.echo(f"{example.name:{width}}  {example.title}")
