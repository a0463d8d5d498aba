"""`init` writes a starter configuration, and says what is still missing. Exit codes as in `cli`."""

from pathlib import Path

import click

from router.commands.exits import fail
from router.commands.model_check import missing_models
from router.commands.starter import FunctionKind, PoolKind, Starter
from router.settings.loader import ConfigError, load_text
from router.settings.sources import read_bounded


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default="router.yaml")
@click.option(
    "--pool",
    prompt="Where do warm replicas run",
    type=click.Choice([kind.value for kind in PoolKind]),
    help="Where warm replicas run.",
)
@click.option(
    "--function",
    prompt="What serverless function is there",
    type=click.Choice([kind.value for kind in FunctionKind]),
    help="What serverless function there is.",
)
@click.option("--model", prompt="The model's name", help="The model's name.")
@click.option(
    "--repository", default="models", show_default=True, metavar="FOLDER",
    help="Models that this machine runs (pool process, function local): NAME/VERSION/model.onnx.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(file: Path, pool: str, function: str, model: str, repository: str, *, force: bool) -> None:
    """Write a commented starter configuration to FILE (router.yaml); asks for what is not given."""
    if pool == PoolKind.NONE and function == FunctionKind.NONE:
        raise click.UsageError("a model needs a pool or a function: one of them must not be none")
    starter = Starter(model, PoolKind(pool), FunctionKind(function), repository)
    # Judged before it is written: a name that no model can have leaves no file behind.
    missing = _still_missing(starter, file)
    try:
        with file.open("w" if force else "x", encoding="utf-8") as written:
            written.write(starter.text())
    except FileExistsError:
        fail(f"{file} is there already: --force writes over it")
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}")
    click.echo(f"{file} is written")
    if missing:
        click.echo(f"still to do:\n{missing}", err=True)
    click.echo(f"next: hybrid-router check {file}, then hybrid-router serve --config {file}")


def _still_missing(starter: Starter, file: Path) -> str:
    """What `check` will miss: packages and models can come later, all else is refused."""
    folder = file.absolute().parent
    try:
        loaded = load_text(
            starter.text(), environment={}, base_dir=folder, read_file=read_bounded, file=str(file)
        )
    except ConfigError as error:
        wanted = [str(problem) for problem in error.problems if "pip install" in problem.message]
        if len(wanted) < len(error.problems):
            fail(str(error))
        return "\n".join(wanted)
    return "\n".join(map(str, missing_models(loaded)))
