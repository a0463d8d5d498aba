"""`python -m tests.results`: replays every case, and writes the page of results.

Exit codes: 0 done (whether or not targets are met: the page says), 1 a replay failed, 2 usage.
"""

import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import yaml

from tests.results import adversary, prepare
from tests.results.cases import (
    ADVERSARY,
    AZURE,
    AZURE_LLM,
    CPU,
    GPU,
    HERE,
    LAMBDA,
    SERVEGEN,
    SPARSE,
    WORLDCUP,
    Case,
)
from tests.results.page import markdown
from tests.results.picture import svg
from tests.results.runs import RunFailedError, Site, figures, kept
from tests.results.summary import Measured

_NEEDED = (WORLDCUP, SERVEGEN, AZURE, AZURE_LLM, LAMBDA)
_HEADING = "## Figures\n"
"""What follows it on the page is written anew."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--traces", required=True, envvar="TRACES", help="The public traces' folder (see RESULTS.md).",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
)  # fmt: skip
@click.option("--only", multiple=True, help="Cases whose name contains this. Repeatable.")
@click.option(
    "--others", multiple=True,
    help="Cases to run the other policies on, too, by a part of the name. All, if left out.",
)  # fmt: skip
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--out", default="build/results", show_default=True, type=click.Path(path_type=Path))
@click.option("--page", type=click.Path(path_type=Path), help="RESULTS.md to bring up to date.")
def main(
    traces: Path,
    only: tuple[str, ...],
    others: tuple[str, ...],
    seeds: int,
    out: Path,
    page: Path | None,
) -> None:
    """Replay the public traces and the adversary's, and compare with the targets."""
    missing = [name for name in _NEEDED if not (traces / name).exists()]
    if missing:
        raise click.BadParameter(f"{traces} lacks {', '.join(missing)}", param_hint="--traces")
    site = Site(traces.resolve(), out.resolve())
    prepare.write(site.traces, site.made)
    adversary.write(site.made)
    cases = [
        case
        for case in (*CPU, *GPU, *SPARSE, *adversary.cases())
        if not only or any(part in case.name for part in only)
    ]
    try:
        results = [_measured(case, seeds, site, others) for case in cases]
    except RunFailedError as error:
        click.echo(f"failed: {error}", err=True)
        sys.exit(1)
    report = markdown(results, _about(seeds))
    (site.out / "table.md").write_text(report)
    (site.out / "results.svg").write_text(svg(results))
    click.echo(report)
    if page is not None:
        _bring_up_to_date(page, report, svg(results))


def _measured(case: Case, seeds: int, site: Site, others: tuple[str, ...]) -> Measured:
    """A case's documents; the first seed of public traces is compared with the other policies.

    Raises RunFailedError.
    """
    is_compared = case.regime != ADVERSARY and (
        not others or any(part in case.name for part in others)
    )
    found = [
        _one(case, seed, site, with_baselines=is_compared and seed == 1)
        for seed in range(1, seeds + 1)
    ]
    settings = yaml.safe_load((HERE / "settings" / f"{case.settings}.yaml").read_text())
    objective_ms = settings["models"][0]["slo"]["latency_ms"]
    return Measured(case, objective_ms, found)


def _one(case: Case, seed: int, site: Site, *, with_baselines: bool) -> dict[str, object]:
    was_kept = kept(case, seed, site, with_baselines=with_baselines).exists()
    began = time.perf_counter()
    found = figures(case, seed, site, with_baselines=with_baselines)
    took = "kept" if was_kept else f"{time.perf_counter() - began:.0f} s"
    click.echo(
        f"{case.name} seed {seed}: {found['optimum_ratio']:.3f} x optimum,"
        f" {found['violations_ratio']:.3%} missed ({took})",
        err=True,
    )
    return found


def _about(seeds: int) -> str:
    taken = datetime.now(UTC).date().isoformat()
    return (
        f"Taken {taken} with `make results` on Python {platform.python_version()},"
        f" {seeds} seed{'s' * (seeds > 1)}."
        " In brackets: the worst seed, where it reads differently from the mean."
    )


def _bring_up_to_date(page: Path, report: str, picture: str) -> None:
    before, heading, _ = page.read_text().partition(_HEADING)
    page.write_text(f"{before}{heading}\n![Bills of six policies](results.svg)\n\n{report}")
    page.with_name("results.svg").write_text(picture)


if __name__ == "__main__":
    main()
