"""Writes public traces that the replay does not read as they are, in a form that it reads."""

import csv
import gzip
from pathlib import Path

from tests.results.cases import LAMBDA, LAMBDA_MADE


def write(traces: Path, made: Path) -> None:
    """The Lambda measurements of 2020: each run an endpoint, counted from its own beginning."""
    made.mkdir(parents=True, exist_ok=True)
    with gzip.open(traces / LAMBDA, "rt", newline="") as file:
        calls = [(row["run"], float(row["client_start_time"])) for row in csv.DictReader(file)]
    began: dict[str, float] = {}
    for run, at in calls:
        began[run] = min(at, began.get(run, at))
    arrivals = sorted((at - began[run], run) for run, at in calls)
    with (made / LAMBDA_MADE).open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("timestamp", "model", "payload_bytes"))
        rows.writerows((f"{at:.4f}", run, "") for at, run in arrivals)
