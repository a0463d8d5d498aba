"""`completion` prints what makes a shell complete the commands and their options."""

import click
from click.shell_completion import get_completion_class

_NAME = "hybrid-router"
_VARIABLE = "_HYBRID_ROUTER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a SHELL.

    \b
    bash:  eval "$(hybrid-router completion bash)"    in ~/.bashrc
    zsh:   eval "$(hybrid-router completion zsh)"     in ~/.zshrc
    fish:  hybrid-router completion fish > ~/.config/fish/completions/hybrid-router.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has each of the choices
    click.echo(kind(context.find_root().command, {}, _NAME, _VARIABLE).source())
