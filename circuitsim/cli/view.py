"""`circuitsim view`: a circuit as a page in the browser."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from circuitsim.cli.common import EXIT_CODES, busy, input_option, load, print_warnings, solver_options
from circuitsim.io.commands import Subcommand, handled

if TYPE_CHECKING:
    from circuitsim.view.server import PageServer
    from circuitsim.view.session import Session

_EXAMPLES_VIEW = """
\b
Examples:
  circuitsim view netlists/bridge_rectifier.cir
  circuitsim view runs/drn-xs-ep/trained.cir           draw a digit
  circuitsim view netlists/divider.cir --no-browser --port 8000
  circuitsim view netlists/xor.cir --export xor.html
"""


@click.command(cls=Subcommand, epilog=_EXAMPLES_VIEW + "\n" + EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@input_option
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="Port on 127.0.0.1.  [default: a free one]"
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option(
    "--export",
    "target",
    type=click.Path(path_type=Path),
    metavar="PAGE.html",
    help="Write the page with its answers into one file that needs no server and no network, and exit.",
)
@solver_options
@click.option("--quiet", "-q", is_flag=True, help="No warnings, no progress.")
def view(
    file: Path,
    inputs: tuple[str, ...],
    port: int,
    no_browser: bool,
    target: Path | None,
    solver: dict[str, Any],
    quiet: bool,
) -> None:
    """Show a circuit in the browser: voltages, currents, powers; change a value and see the new equilibrium.

    The page is served on 127.0.0.1 only, under an address that holds a random token. Ctrl-C ends it, with
    exit code 0. The netlist's file is never changed.
    """
    if target is not None and (port or no_browser):
        raise click.UsageError("--export writes a file and serves nothing; leave --port and --no-browser out")
    from circuitsim import Settings
    from circuitsim.io.files import check_target
    from circuitsim.view.page import export
    from circuitsim.view.server import PageServer
    from circuitsim.view.session import Session

    if target is not None:
        check_target(target)
    settings = Settings(**solver)
    session = Session(load(file, quiet, [target], inputs), settings, inputs)
    if target is not None:
        _solve(session, quiet)
        with busy(f"writing {target}", quiet):
            left_out = export(session, target)
        if not quiet:
            print_warnings(left_out, "of other .dc cards")
        return
    with PageServer(session, port) as server:
        _solve(session, quiet)
        click.echo(server.address)
        if not no_browser:
            threading.Thread(target=_open, args=(server,), daemon=True).start()
        click.echo("press Ctrl-C to end", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt as error:
            handled(error)
            click.echo("ended", err=True)


def _solve(session: Session, quiet: bool) -> None:
    """Solve once before anything is shown: what cannot be solved is an error of the command."""
    from circuitsim.view.solver import Edits

    with busy("solving", quiet):
        solution = session.solution(Edits())
    if not quiet:
        print_warnings(solution.remarks, "circuitsim solve --json lists all")


def _open(server: PageServer) -> None:
    """Show the page in the user's browser; some wait there until it is closed. None that would take the terminal."""
    import webbrowser

    screen = not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    try:
        opened = screen and webbrowser.open(server.address)
    except webbrowser.Error:
        opened = False
    if not opened:
        click.echo("no browser was found: open the address above in one, on this machine", err=True)
