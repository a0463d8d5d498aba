"""The page of results: sums over seeds and cases, verdicts, and what is kept between runs."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.results import adversary
from tests.results.cases import CPU, GPU, SPARSE, Case
from tests.results.page import markdown
from tests.results.picture import svg
from tests.results.runs import ROOT, Site, kept
from tests.results.summary import Measured, replayed_ratio, violations_ratio
from tests.results.targets import verdicts

ALL = (*CPU, *GPU, *SPARSE, *adversary.cases())


def figures(usd: float, optimum_usd: float = 1.0, **others: Any) -> dict[str, Any]:
    return {
        "requests": 1000, "cost_usd": usd, "optimum_usd": optimum_usd,
        "optimum_ratio": usd / optimum_usd, "replayed_optimum_ratio": usd / optimum_usd / 1.1,
        "limit_usd": optimum_usd, "limit_ratio": usd / optimum_usd, "violations_ratio": 0.0,
        "p50_ms": 100.0, "p99_ms": 400.0,
        "p999_ms": 450.0, "spill_ratio": 0.0, "serverless_ratio": 0.1, "cold_ratio": 0.0,
        "replica_starts_per_hour": 2.0, **others,
    }  # fmt: skip


def document(usd: float, **others: Any) -> dict[str, Any]:
    """A router's bill beside policies that pay 2, 1.5, ... USD, and the best schedule at 1.1."""
    others_usd = {
        "always_serverless": 2.0, "static_split": 1.5, "peak_warm": 4.0, "hpa": 2.0,
        "hpa_overflow": 2.0, "kpa": 2.0, "mark": 1.6, "libra": 1.2,
    }  # fmt: skip
    return {
        **figures(usd, **others),
        "models": {"m": figures(usd)},
        "baselines": {
            name: {**figures(theirs), "models": {"m": figures(theirs)}}
            for name, theirs in others_usd.items()
        },
        "clairvoyant_replayed": figures(1.1),
    }


def measured(case: Case, *seeds: dict[str, Any]) -> Measured:
    return Measured(case, 500.0, seeds)


def test_means_and_the_worst_are_over_the_seeds_that_have_a_figure() -> None:
    case = measured(CPU[0], document(1.0), document(1.2, p99_ms=None))
    assert case.mean("optimum_ratio") == pytest.approx(1.1)
    assert case.worst("optimum_ratio") == pytest.approx(1.2)
    assert case.mean("p99_ms") == 400.0


def test_pools_weigh_by_dollars_and_by_requests() -> None:
    small = measured(CPU[0], document(1.1, violations_ratio=0.01, requests=100))
    large = measured(CPU[1], document(9.9, optimum_usd=10.0, requests=900))
    large.seeds[0]["clairvoyant_replayed"] = figures(9.9)
    assert replayed_ratio([small, large]) == pytest.approx(1.0)
    assert violations_ratio([small, large]) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("usd", "missed", "met"),
    [(1.04, 0.0005, True), (1.3, 0.0005, False), (1.04, 0.002, False)],
    ids=["close to the limit", "too dear", "too late"],
)
def test_targets_of_regime_a(usd: float, missed: float, met: bool) -> None:
    found = verdicts([measured(CPU[0], document(usd, violations_ratio=missed, requests=100_000))])
    assert all(verdict.met for verdict in found) is met
    saving = next(verdict for verdict in found if "cheaper than HPA" in verdict.title)
    assert saving.measured == pytest.approx(1 - usd / 2)


def test_the_adversary_counts_by_its_worst_case() -> None:
    first, second = adversary.cases()[:2]
    found = verdicts([measured(first, document(2.0)), measured(second, document(3.1))])
    assert [(verdict.measured, verdict.met) for verdict in found] == [(3.1, False)]
    assert second.name in found[0].note


def test_the_page_names_every_case_and_its_command() -> None:
    page = markdown([measured(case, document(1.2), document(1.3)) for case in ALL], "Taken today.")
    for case in ALL:
        assert f"(`{case.name}`)" in page
        assert f"# {case.name}\nhybrid-router replay --config tests/results/settings/" in page
    assert "1.250 (1.300)" in page
    assert "nan" not in page


def test_the_picture_is_well_formed_and_has_a_line_for_each_case() -> None:
    picture = svg([measured(case, document(1.2)) for case in ALL])
    texts = [text.text for text in ElementTree.fromstring(picture).iter() if text.text]
    assert {case.name for case in ALL} <= set(texts)
    assert picture == svg([measured(case, document(1.2)) for case in ALL])


@pytest.mark.parametrize("case", ALL, ids=[case.name for case in ALL])
def test_every_case_names_settings_and_a_world_that_are_there(case: Case) -> None:
    arguments = case.arguments(1, "", "")
    for option in ("--config", "--world"):
        assert (ROOT / arguments[arguments.index(option) + 1]).is_file()
    assert ALL.count(case) == 1


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / CPU[0].trace).write_text("one")
    return Site(tmp_path / "traces", tmp_path / "out")


def test_what_was_run_is_kept_until_an_input_changes(site: Site) -> None:
    before = kept(CPU[0], 1, site, with_baselines=True)
    assert kept(CPU[0], 1, site, with_baselines=True) == before
    others = {
        kept(CPU[0], 2, site, with_baselines=True),
        kept(CPU[0], 1, site, with_baselines=False),
        kept(replace(CPU[0], scale=2.0), 1, site, with_baselines=True),
        kept(replace(CPU[0], world="machine"), 1, site, with_baselines=True),
    }
    (site.traces / CPU[0].trace).write_text("two")
    others.add(kept(CPU[0], 1, site, with_baselines=True))
    assert len(others - {before}) == 5


def test_the_watching_adversary_stops_when_it_is_served_and_comes_back(tmp_path: Path) -> None:
    machine = next(regime for regime in adversary.REGIMES if regime.name == "machine")
    at = adversary.watched(machine, hours=0.5)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    pauses = [gap for gap in gaps if gap > 5.0]
    assert at[0] == 0.0
    assert len(pauses) >= 3
    assert at == adversary.watched(machine, hours=0.5)
