"""Loads and warms up one model as a worker would, says what is wrong with it, and ends.

Exit codes: 0 it loads, 1 it does not (the reason is on standard output).
"""

import argparse
import sys
from pathlib import Path

from workers.protocol import BrokenModel, ModelNotFound
from workers.repository import find_model
from workers.service import Clock, Model


def main() -> None:
    """Try the model that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--version")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    try:
        file = find_model(given.repository, given.model, given.version)
        Model(file, given.threads, Clock())
    except (BrokenModel, ModelNotFound) as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
