"""What is delivered for Prometheus and Grafana speaks of metrics and labels that a running gateway has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.canaries import PROMPT

FOLDER = Path(__file__).parents[3] / "deploy" / "observability"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())
_PARTS = ("", "_bucket", "_sum", "_count")
# Labels that Prometheus itself adds.
_ADDED = {"instance", "job", "le"}


def panels() -> list[dict]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    shown = {f"{panel['title']} {target['refId']}": target["expr"] for panel in panels() for target in panel["targets"]}
    rules = {rule["alert"]: rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]}
    return shown | rules


def known(urls: list[str]) -> tuple[set[str], dict[str, set[str]]]:
    """The names of all samples that there may be, and the labels of those that there are."""
    names: set[str] = set()
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for url in urls:
        text = httpx.get(url, timeout=5, trust_env=False).text
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
            names.update(name + part for part in (_PARTS if kind == "histogram" else ("",)))
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels[sample.name].update(sample.labels)
    return names, labels


def test_every_metric_and_label_that_they_name_is_scraped(watched):
    reply = httpx.post(
        f"{watched.url}/api/chat",
        json={"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}]},
        headers={"Authorization": f"Bearer {watched.first_key}"},
        trust_env=False,
    )
    assert reply.status_code == 200
    names, labels = known(watched.description["metrics_urls"])
    unknown = []
    for where, expression in expressions().items():
        used = set(re.findall(r"\bgateway_\w+", expression))
        assert used or "up{" in expression, where
        unknown += [(where, name) for name in used - names]
        said = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!=|!~|=)", expression))
        said |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        # Where nothing has been counted yet nobody can say which labels it will have.
        has = [labels[name] for name in used if labels[name]]
        if len(has) == len(used):
            unknown += [(where, label) for label in said - _ADDED - set().union(*has)]
    assert unknown == []


def test_every_metric_of_ours_is_shown_or_watched_or_left_out_on_purpose(watched):
    left_out = {
        "gateway_anonymous_failures_recorded_total", "gateway_backend_poll_failures_total",
        "gateway_changes_told_total", "gateway_counters_lowered_total", "gateway_database_connections",
        "gateway_heads_refused_total", "gateway_rebuild_duration_seconds",
        "gateway_redis_connections_total",
        "gateway_redis_errors_total", "gateway_redis_suspensions_total", "gateway_revisions_applied_total",
        "gateway_revisions_rejected_total", "gateway_settlements_repeated_total", "gateway_settlements_total",
        "gateway_shards_rebuilt_total", "gateway_tasks",
        "gateway_upstream_connections", "gateway_upstream_in_flight", "gateway_usage_bytes_waiting",
        "gateway_usage_events_repeated_total", "gateway_usage_stream_bytes", "gateway_watch_resyncs_total",
        "gateway_watch_snapshots_made_total", "gateway_watch_snapshots_sent_total", "gateway_watch_streams_total",
        "gateway_watch_workers_lost_total",
    }  # fmt: skip
    used = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for expression in expressions().values()
        for name in re.findall(r"\bgateway_\w+", expression)
    }
    names, _ = known(watched.description["metrics_urls"])
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names if not name.endswith("_created")}
    assert ours - used - left_out == set()
    assert left_out - ours == set()


def test_the_dashboard_is_whole():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' promtool is not installed")
@pytest.mark.parametrize(
    "check",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")],
    ids=lambda check: check[-1],
)
def test_prometheus_own_tool_agrees(check):
    result = subprocess.run(["promtool", *check], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
