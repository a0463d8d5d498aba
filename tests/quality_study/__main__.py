"""What watching quality finds, and how often it cries wolf: `python -m tests.quality_study`.

Prints the figures that RESULTS.md has. With two idle cores it takes a quarter of an hour. Needs the
demo models (`make serve` prepares them); German messages of vim are used where they are installed.
"""

import argparse
import sys
from pathlib import Path

import click

from tests.quality_study.canaries import verdicts
from tests.quality_study.detection import detect, experiments, false_weeks

_MESSAGES = "de/LC_MESSAGES/vim.mo"
_SHARES = (1.0, 0.5, 0.25)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path(".demo/models"))
    parser.add_argument("--weeks", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=100)
    options = parser.parse_args()
    catalogues = sorted(Path("/usr/share").rglob(_MESSAGES))
    for experiment in experiments(options.models, catalogues):
        found, usual = detect(experiment, options.models, 400, _SHARES)
        click.echo(found)
        if experiment.model != "minilm":
            for per_week, least_psi in ((0.05, 0.1), (1.0, 0.0)):
                weeks = false_weeks(usual, options.weeks, per_week, least_psi, seed=0)
                click.echo(f"{experiment.model} {per_week} {least_psi}: weeks, alarms {weeks}")
    for wrong_by in (0.05, 0.0):
        click.echo(verdicts(0.10, wrong_by, options.seeds, 12_000, every=20))
    return 0


if __name__ == "__main__":
    sys.exit(main())
