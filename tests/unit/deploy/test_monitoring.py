"""Dashboard and alerts ask only for what the gateway exposes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.domain.decision import Outcome
from router.telemetry.families import FAMILIES, Kind

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/hybrid-router.json").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
OF_PROMETHEUS = {"up": {"job", "instance"}}
ALWAYS = {"job", "instance", "le"}


def exposed() -> dict[str, set[str]]:
    """Names of series and their labels."""
    found = dict(OF_PROMETHEUS)
    for family in FAMILIES:
        endings = ("_bucket", "_sum", "_count") if family.kind is Kind.HISTOGRAM else ("",)
        found |= {family.name + ending: set(family.labels) for ending in endings}
    return found | {rule["record"]: {"model"} for rule in alert_rules() if "record" in rule}


def dashboard_queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def alert_rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


QUERIES = [*dashboard_queries(), *(rule["expr"] for rule in alert_rules())]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_series_that_exist_and_labels_that_they_have(query: str):
    known = exposed()
    selectors = re.findall(r"\b((?:model:)?router_[\w:]+|up)\b(?:\{([^}]*)\})?", query)
    assert selectors
    for name, matchers in selectors:
        assert name in known, f"{name} is not exposed"
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert asked <= known[name] | ALWAYS, f"{name} has no {asked - known[name]}"
    grouped = {
        label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")
    }
    assert grouped <= set().union(*(known[name] for name, _ in selectors)) | ALWAYS


@pytest.mark.parametrize("query", QUERIES)
def test_outcomes_named_in_a_query_exist(query: str):
    for values in re.findall(r'outcome(?:=~|!~|!=|=)"([^"]*)"', query):
        assert set(values.split("|")) <= {str(outcome) for outcome in Outcome}


def test_every_family_is_on_the_dashboard():
    shown = " ".join(dashboard_queries())
    missing = {family.name for family in FAMILIES if family.name not in shown}
    assert missing == set()


def test_panels_are_told_apart_and_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own


def test_dashboard_and_datasource_fit_together():
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    (uid,) = {datasource["uid"] for datasource in source["datasources"]}
    named = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel}
    assert named == {"${datasource}"}
    chosen, *others = DASHBOARD["templating"]["list"]
    assert (chosen["name"], chosen["type"]) == ("datasource", "datasource")
    assert chosen["current"]["value"] == uid, "a Grafana with another one may choose"
    assert {variable["datasource"]["uid"] for variable in others} == {"${datasource}"}


def test_every_alert_says_how_urgent_it_is_and_what_it_is():
    for rule in alert_rules():
        if "record" in rule:
            continue
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"] for job in scraped["scrape_configs"]}
    for rule in alert_rules():
        assert set(re.findall(r'job="([^"]*)"', rule["expr"])) <= jobs
