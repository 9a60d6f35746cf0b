"""The reference in the documents names what there is: every metric, every field of a line, every variable."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import msgspec

from dataplane.access import Line
from dataplane.config import Settings
from dataplane.metrics import GenAI
from shared.config import declared
from tests.e2e.observability.test_dashboards import ALERTS

DOCUMENT = (Path(__file__).parents[3] / "docs" / "OBSERVABILITY.md").read_text()
# Of every line that the processes write, so the text above the table speaks of them.
CONSTANT = {"timestamp", "plane", "event", "level", "pid"}


def test_every_metric_has_a_row_and_every_row_a_metric(watched):
    for heading, url in zip(
        ("### Of the data plane", "### Of the control plane"), watched.description["metrics_urls"], strict=True
    ):
        text = httpx.get(url, timeout=5, trust_env=False).text
        scraped = {
            (name, kind, words)
            for (name, words), kind in zip(
                re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE),
                re.findall(r"^# TYPE \S+ (\S+)$", text, re.MULTILINE),
                strict=True,
            )
            if not name.endswith("_created")
        }
        table = DOCUMENT[DOCUMENT.index(heading) :].split("\n## ")[0].removeprefix("#").split("\n### ")[0]
        rows = set(re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]* \| (.*) \|$", table, re.MULTILINE))
        assert scraped == rows


def test_every_field_of_a_line_is_explained():
    for field in msgspec.structs.fields(Line):
        if field.name not in CONSTANT:
            assert f"`{field.name}`" in DOCUMENT


def test_every_variable_of_telemetry_is_explained():
    for item in declared(Settings):
        if item.setting.group == "Telemetry":
            assert f"| `{item.setting.name}` |" in DOCUMENT


def test_the_names_of_the_conventions_and_the_number_of_alerts_are_right():
    assert all(f"`{instrument.figure().name}`" in DOCUMENT for instrument in GenAI().instruments)
    assert f"| {sum(len(group['rules']) for group in ALERTS['groups'])} alerts" in DOCUMENT
