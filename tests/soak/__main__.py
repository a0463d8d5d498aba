"""`python -m tests.soak [--seconds N] [--seed N]`: exit code 0 if all is well, 1 if not."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from tests.soak.run import soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    _say(f"{arguments.seconds:g} s of random faults, seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(soak(Path(folder), arguments.seconds, arguments.seed, _say))
    _say(str(report))
    return 1 if report.problems else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
