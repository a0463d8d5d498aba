"""What is promised of jobs, shown on this machine: `python -m tests.jobs_study`.

Prints what RESULTS.md has; exit code 1 if a line was lost, answered twice or otherwise than a call.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import click

from tests.jobs_study.queued import queued
from tests.jobs_study.show import show


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--lines", default=20_000, show_default=True, type=click.IntRange(100))
@click.option("--kills", default=3, show_default=True, help="Of the gateway, and of Redis.")
@click.option("--fsync", default="always", show_default=True, help="Redis's appendfsync.")
@click.option("--queue", default=100_000, show_default=True, type=click.IntRange(1000))
def main(lines: int, kills: int, fsync: str, queue: int) -> None:
    """A batch through the openai client while gateway and Redis are killed; a long queue."""
    with tempfile.TemporaryDirectory() as folder:
        shown = asyncio.run(show(Path(folder), lines, kills, fsync))
        click.echo(
            f"{shown.lines} lines in {shown.seconds:.0f} s, kill -9 of {dict(shown.kills)}; the"
            f" gateway had {shown.gateway_mb:.0f} MB; wrong: {shown.wrong or 'nothing'}"
        )
        found = asyncio.run(queued(Path(folder), queue))
        told = ", ".join(f"{value:.1f} {name}" for name, value in found.items())
        click.echo(f"{queue} queued jobs: {told}")
    sys.exit(1 if shown.wrong else 0)


if __name__ == "__main__":
    main()
