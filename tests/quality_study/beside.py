"""One day judged by this gateway, Evidently or NannyML, each in a process of its own.

`python -m tests.quality_study.beside WHO DAY.json`: DAY.json has lists of objects of features under
`baseline` and `day`. The other two are to be installed in an environment of their own.
"""

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

Rows = list[dict[str, float]]


def ours(baseline: Rows, day: Rows) -> list[str]:
    """The features that this gateway's windows would name."""
    drift = import_module("router.quality.drift")

    def columns(rows: Rows) -> Any:
        found = drift.Columns(1000)
        for row in rows:
            found.add(row)
        return found

    known = drift.baseline_of(columns(baseline), "", 0.0)
    counts = drift.counts_of(known, columns(day))
    return [alarm.feature for alarm in drift.alarms(known, counts, 0.05 / 7, 0.1, 0.0)]


def evidently(baseline: Rows, day: Rows) -> list[str]:
    """The columns that its preset calls drifted."""
    frame = import_module("pandas").DataFrame
    preset = import_module("evidently.presets").DataDriftPreset()
    report = import_module("evidently").Report([preset]).run(frame(day), frame(baseline))
    found = []
    for metric in report.dict()["metrics"]:
        config = metric.get("config", {})
        if "column" in config:
            value, limit = metric["value"], config["threshold"]
            is_p = "p_value" in config["method"]
            found += [config["column"]] if (value < limit if is_p else value > limit) else []
    return found


def nannyml(baseline: Rows, day: Rows) -> list[str]:
    """The columns of which most chunks of 100 alert."""
    frame = import_module("pandas").DataFrame
    names, distance = list(baseline[0]), "jensen_shannon"
    calculator = import_module("nannyml").UnivariateDriftCalculator(
        column_names=names, continuous_methods=[distance], categorical_methods=[distance],
        chunk_size=100,
    )  # fmt: skip
    calculator.fit(frame(baseline))
    result = calculator.calculate(frame(day)).filter(period="analysis").to_df()
    return [name for name in names if result[name, distance, "alert"].mean() > 0.5]


def main() -> None:
    who, path = sys.argv[1:3]
    found = json.loads(Path(path).read_text())
    began = time.process_time()
    named = {"ours": ours, "evidently": evidently, "nannyml": nannyml}[who](
        found["baseline"], found["day"]
    )
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    cpu_s = round(time.process_time() - began, 2)
    sys.stdout.write(json.dumps({"cpu_s": cpu_s, "memory_mb": memory_mb, "named": named}) + "\n")


if __name__ == "__main__":
    main()
