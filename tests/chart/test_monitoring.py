"""Dashboards, alerts and the scrape ask for what really exists: names of metrics, labels, error codes."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from registry.clock import ManualClock
from router import errors
from router.logs import AccessLog
from router.testing import FakeUsage
from router.tracing import Tracing
from server.api.app import create_app
from server.engines.metrics import AgentMetrics
from server.engines.state import AgentState
from server.testing.fake_discovery import InMemoryDiscovery
from tests.chart.charts import CHART, Chart, Release, labels_of
from tests.support.control import control_world
from tests.unit.router.driving import House

LABELS = {"tenant", "model", "adapter", "code", "kind", "stream", "engine", "state", "le", "job", "instance"}
"""Those of our metrics, and the two that Prometheus adds."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """Every metric of a router on which everything is on, of a control plane that expects engines, and of an
    engine's agent."""
    spans = Tracing(InMemorySpanExporter())
    access = AccessLog(lambda _: None, ManualClock())
    folder = tmp_path_factory.mktemp("router")
    house = House(folder, spans=spans, access=access, usage=FakeUsage(), metrics_token="scrape")
    with control_world(tmp_path_factory.mktemp("control")) as bench:
        control = replace(bench.control, discoveries=(InMemoryDiscovery({}),))
        with TestClient(create_app(control)) as client:
            page = client.get("/metrics").text
    page += AgentMetrics().render(AgentState(engine="engine-0", doing="serving")).decode()
    yield house.app.metric_names() | set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
    spans.close()


def dashboards() -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))]
    assert found
    return found


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    panels = [panel for board in dashboards() for panel in board["panels"]]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    asked = [
        variable["query"]["query"]
        for board in dashboards()
        for variable in board["templating"]["list"]
        if variable["type"] == "query"
    ]
    return shown + asked + [rule["expr"] for rule in alerts()]


def metrics_in(query: str) -> set[str]:
    return set(re.findall(r"\btenon_\w+", query))


@pytest.mark.parametrize("query", queries())
def test_a_query_names_metrics_and_labels_that_exist(query: str, known: set[str]) -> None:
    assert metrics_in(query)
    assert metrics_in(query) <= known
    matched = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", query))
    grouped = {
        label.strip() for names in re.findall(r"\bby \(([^)]*)\)", query) for label in names.split(",")
    }
    assert matched | grouped <= LABELS
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")


def test_a_metric_that_is_gone_would_be_noticed(known: set[str]) -> None:
    assert not metrics_in("rate(tenon_requests[5m])") <= known


@pytest.mark.parametrize("query", [query for query in queries() if "code" in query])
def test_codes_in_queries_are_codes_of_errors(query: str) -> None:
    codes = {leaf.code for leaf in vars(errors).values() if hasattr(leaf, "code")} | {"ok"}
    for found in re.findall(r'code(?:=~|!~|!=|=)"([^"]*)"', query):
        assert set(found.split("|")) <= codes


def test_what_matters_most_has_an_alert(known: set[str]) -> None:
    """A gauge that says "broken" and a count of what must never happen are worth waking somebody."""
    asked = {name for rule in alerts() for name in metrics_in(rule["expr"])}
    assert {"tenon_records_broken", "tenon_feed_age_seconds", "tenon_attested_places"} <= asked
    assert {"tenon_engines_missing_seconds", "tenon_discovery_age_seconds"} <= asked
    assert "tenon_engine_attest_age_seconds" in asked
    assert any("engine_answer_mismatch" in rule["expr"] for rule in alerts())
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]


def test_the_guide_names_metrics_that_exist(known: set[str]) -> None:
    guide = (CHART.parents[1] / "docs" / "guides" / "monitoring.md").read_text()
    named = set(re.findall(r"`(tenon_\w+)`", guide))
    assert len(named) > 15
    assert {name for name in named if name not in known and f"{name}_count" not in known} == set()


def test_panels_do_not_lie_over_one_another() -> None:
    for board in dashboards():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }  # fmt: skip
            assert at["x"] + at["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len(set(ids))


def test_the_chart_ships_them_as_they_are(gpu: Release, chart: Chart) -> None:
    (config,) = (each for each in gpu.of("ConfigMap") if each["metadata"]["name"].endswith("-dashboards"))
    assert {name: json.loads(text) for name, text in config["data"].items()} == {
        path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")
    }
    assert labels_of(config)["grafana_dashboard"] == "1"
    (rules,) = gpu.of("PrometheusRule")
    assert [rule for group in rules["spec"]["groups"] for rule in group["rules"]] == alerts()
    assert labels_of(rules)["release"] == "prometheus"
    assert chart.render("minimal").of("PrometheusRule") == []


def test_a_token_is_shown_by_the_scrape_and_mounted_in_the_routers_only(gpu: Release, chart: Chart) -> None:
    (monitor,) = gpu.of("ServiceMonitor")
    shown = {one["port"]: one.get("authorization") for one in monitor["spec"]["endpoints"]}
    assert shown == {
        "http": {"credentials": {"name": "tenon-secrets", "key": "metrics-token"}},
        "agent": None,
    }
    path = Path(gpu.environment("router")["TENON_METRICS_TOKEN_FILE"])
    for component in ("router", "control", "engine"):
        (volume,) = [one for one in gpu.pods[component]["spec"]["volumes"] if one["name"] == "secrets"]
        paths = [item["path"] for item in volume["secret"]["items"]]
        assert (path.name in paths) == (component == "router")
    assert "TENON_METRICS_TOKEN_FILE" not in chart.render("minimal").environment("router")


def test_routers_reach_the_collector_and_nothing_else_does(gpu: Release, chart: Chart) -> None:
    for component in ("router", "control", "engine"):
        out = gpu.one("NetworkPolicy", component)["spec"]["egress"]
        ports = [port["port"] for rule in out for port in rule["ports"]]
        assert (4318 in ports) == (component == "router")
    with pytest.raises(Exception, match=r"monitoring\.traces\.egress is empty"):
        chart.render("minimal", "monitoring.traces.url=http://collector:4318/v1/traces")
