"""How a command says that the answer is no: the reason on standard error, exit code 1."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from router.settings.loader import ConfigError, Loaded, load


def fail(message: str) -> NoReturn:
    """Say why, and exit."""
    click.echo(message, err=True)
    sys.exit(1)


def load_or_exit(path: Path) -> Loaded:
    """The configuration, or its mistakes."""
    try:
        return load(path, os.environ)
    except ConfigError as error:
        fail(str(error))
