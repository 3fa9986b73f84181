"""`circuitsim completion`: commands, options and examples completed by the shell."""

from __future__ import annotations

import click

from circuitsim.cli.common import EXIT_CODES
from circuitsim.io.commands import Subcommand


@click.command(
    cls=Subcommand,
    epilog="\b\nRun once, for all future shells:\n"
    "  bash: echo 'eval \"$(circuitsim completion bash)\"' >> ~/.bashrc\n"
    "  zsh:  echo 'eval \"$(circuitsim completion zsh)\"' >> ~/.zshrc    (below compinit)\n"
    "  fish: circuitsim completion fish > ~/.config/fish/completions/circuitsim.fish\n\n" + EXIT_CODES,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script with which the shell completes circuitsim's commands, options and examples."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(
        script(click.get_current_context().find_root().command, {}, "circuitsim", "_CIRCUITSIM_COMPLETE").source()
    )
