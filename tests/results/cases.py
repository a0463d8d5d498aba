"""What is replayed for the results: traces, regimes and parts of them. Data only.

The router's own parameters are the built-in defaults, chosen on the first 60 % of each trace. Every
case reports a stretch of the rest, and lets the baselines be chosen on what comes before it.
"""

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TRAIN_SHARE = 0.6
SHARED = "azure-fleet-shared"
"""The case whose models share replicas that have room for all of them."""
ADVERSARY = "adversary"
"""The regime of cases that are made to hurt; the others are A, B and C."""


@dataclass(frozen=True, slots=True)
class Case:
    """One trace in one world under one configuration.

    `trace` is a file among the public traces, or with `is_made` among those that `adversary` and
    `prepare` write. `span` is in seconds of the trace, or two times; its first 60 % are not
    reported, unless `train_share` says otherwise.
    """

    name: str
    regime: str
    title: str
    trace: str
    settings: str
    world: str
    scale: float = 1.0
    span: tuple[str, str] | None = None
    options: tuple[str, ...] = ()
    is_made: bool = False
    train_share: float = TRAIN_SHARE

    def arguments(self, seed: int, traces: Path | str, made: Path | str) -> list[str]:
        """The options of `hybrid-router replay` for one seed."""
        folder = Path(__file__).parent.relative_to(Path(__file__).parents[2])
        span = [] if self.span is None else ["--from", self.span[0], "--to", self.span[1]]
        scale = [] if self.scale == 1 else ["--scale", f"{self.scale:g}"]
        share = ["--train-share", f"{self.train_share:g}"] if self.train_share else []
        return [
            "--config", f"{folder}/settings/{self.settings}.yaml",
            "--world", f"{folder}/worlds/{self.world}.yaml",
            "--trace", f"{made if self.is_made else traces}/{self.trace}",
            *scale, *span, *self.options, *share, "--seed", str(seed),
        ]  # fmt: skip


WORLDCUP = "worldcup98_per_minute_first60d.csv.gz"
SERVEGEN = "servegen_m-large.csv.gz"
AZURE = "azure2019_100fn_min480-959_invocations.csv"
AZURE_LLM = "AzureLLMInferenceTrace_code.csv"
LAMBDA = "pacslab_lambda_2020_invocations.csv.gz"
LAMBDA_MADE = "lambda-2020.csv"

# Stretches of which the reported part comes after the first 60 % of the whole trace.
_WORLDCUP_SPAN = ("1998-06-10T04:00", "1998-06-10T19:00")
_SERVEGEN_SPAN = ("198.6h", "204.6h")
_ALL = ("--model-map", "*=m")

_BURSTY = ("--burstiness", "4")

CPU = (
    Case(
        "worldcup-container", "A", "WorldCup98, containers", WORLDCUP, "container", "container",
        scale=0.02, span=_WORLDCUP_SPAN,
    ),
    Case(
        "servegen-container", "A", "ServeGen, containers", SERVEGEN, "container", "container",
        scale=0.15, span=_SERVEGEN_SPAN,
    ),
    Case(
        "azure-container", "A", "Azure Functions 2019 as one, containers", AZURE, "container",
        "container", scale=2, options=_ALL,
    ),
    Case(
        "llm-container", "A", "Azure LLM code, containers", AZURE_LLM, "container", "container",
        scale=10,
    ),
    Case(
        "worldcup-machine", "A", "WorldCup98, machines", WORLDCUP, "machine", "machine",
        scale=0.02, span=_WORLDCUP_SPAN,
    ),
    Case(
        "servegen-machine", "A", "ServeGen, machines", SERVEGEN, "machine", "machine", scale=0.15,
        span=_SERVEGEN_SPAN,
    ),
    Case(
        "azure-machine", "A", "Azure Functions 2019 as one, machines", AZURE, "machine", "machine",
        scale=2, options=_ALL,
    ),
    Case(
        "llm-machine", "A", "Azure LLM code, machines", AZURE_LLM, "machine", "machine", scale=10,
    ),
    Case(
        "worldcup-container-cv4", "A", "WorldCup98 in bursts (CV 4), containers", WORLDCUP,
        "container", "container", scale=0.02, span=_WORLDCUP_SPAN, options=_BURSTY,
    ),
    Case(
        "azure-machine-cv4", "A", "Azure Functions 2019 in bursts (CV 4), machines", AZURE,
        "machine", "machine", scale=2, options=(*_ALL, *_BURSTY),
    ),
    Case(
        "servegen-mixture", "A", "ServeGen, 3 % too large for functions", SERVEGEN, "container",
        "mixture", scale=0.15, span=_SERVEGEN_SPAN,
    ),
)  # fmt: skip

GPU = tuple(
    Case(
        f"{trace}-gpu-{startup}", "B", f"{title}, GPU, {startup} to start", file, f"gpu-{startup}",
        f"gpu-{startup}", scale=scale, span=span, options=options,
    )
    for startup in ("180s", "300s")
    for trace, title, file, scale, span, options in (
        ("worldcup", "WorldCup98", WORLDCUP, 0.02, _WORLDCUP_SPAN, ()),
        ("servegen", "ServeGen", SERVEGEN, 0.15, _SERVEGEN_SPAN, ()),
        ("azure", "Azure Functions 2019 as one", AZURE, 2.0, None, _ALL),
        ("llm", "Azure LLM code", AZURE_LLM, 10.0, None, ()),
    )
)  # fmt: skip

SPARSE = (
    Case(
        "azure-fleet", "C", "Azure Functions 2019, 100 endpoints", AZURE, "container-sporadic",
        "container",
        options=("--each-like", "m"),
    ),
    Case(
        SHARED, "C", "the same on shared replicas, room for all", AZURE,
        "container-shared", "container", options=("--each-like", "m"),
    ),
    Case(
        "azure-fleet-half", "C", "the same on shared replicas, room for half", AZURE,
        "container-half", "container", options=("--each-like", "m"),
    ),
    Case(
        "lambda-fleet", "C", "Lambda 2020, 11 endpoints", LAMBDA_MADE, "lambda-2020", "lambda-2020",
        options=("--each-like", "m"), is_made=True,
    ),
)  # fmt: skip
