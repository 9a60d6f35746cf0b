"""The runbooks: every alert and every finding leads to one, and they name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from dataplane.errors import Unchecked
from deploy.rehearse import PAGE, PRELUDE, Block, Step, blocks_of, difference, written

ROOT = Path(__file__).parents[3]
DOCUMENT = PAGE.read_text()
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/observability/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"] for rule in RULES}
PARTS = ("Users see", "Alerts", "Shows", "Do", "Over", "Lost")


def slug(heading: str) -> str:
    """The anchor that a heading gets on the pages of a forge and of MkDocs."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


HEADINGS = {
    slug(heading)
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", DOCUMENT, flags=re.DOTALL), re.MULTILINE)
}
RUNBOOKS = {
    part.partition("\n")[0]: part.partition("\n")[2]
    for part in DOCUMENT.partition("# When something is down")[2].partition("\n# ")[0].split("\n## ")[1:]
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_leads_to_a_section_that_names_it(rule):
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert ROOT / page == PAGE
    [section] = [text for heading, text in RUNBOOKS.items() if slug(heading) == anchor]
    assert rule["alert"] in section


def test_every_alert_that_is_named_exists():
    assert set(re.findall(r"\bGateway[A-Z]\w+", DOCUMENT)) <= ALERTS


def test_every_link_within_the_page_leads_somewhere():
    assert [anchor for anchor in re.findall(r"\]\(#([^)]+)\)", DOCUMENT) if anchor not in HEADINGS] == []


@pytest.mark.parametrize("name", re.findall(r"`(\w+\.md)`|\]\((\w+\.md)", DOCUMENT))
def test_every_page_that_is_named_exists(name):
    assert (PAGE.parent / next(filter(None, name))).is_file()


def test_a_runbook_says_what_is_seen_and_what_to_do():
    for heading in [slug(rule["annotations"]["runbook"].partition("#")[2]) for rule in RULES]:
        [text] = [text for title, text in RUNBOOKS.items() if slug(title) == heading]
        assert {"Users see", "Alerts", "Do"} <= {part for part in PARTS if f"**{part}**" in text}, heading


def test_every_metric_of_the_gateway_that_is_named_is_in_the_reference():
    reference = (PAGE.parent / "OBSERVABILITY.md").read_text()
    named = set(re.findall(r"`(gateway_\w+)[`{]", DOCUMENT)) - {"gateway_dataplane", "gateway_controlplane"}
    roles = {"gateway_operator", "gateway_control"}
    assert [name for name in sorted(named - roles) if f"`{name}`" not in reference] == []


def test_every_event_that_is_named_is_written_somewhere():
    planes = ("dataplane", "controlplane")
    sources = {plane: "".join(path.read_text() for path in (ROOT / plane).rglob("*.py")) for plane in planes}
    said = set(re.findall(r"said (dataplane|controlplane) (\w+)", DOCUMENT))
    assert [(plane, event) for plane, event in sorted(said) if f'"{event}"' not in sources[plane]] == []
    lines = set(re.findall(r"lines? `(\w+)`", DOCUMENT))
    assert [event for event in sorted(lines) if all(f'"{event}"' not in source for source in sources.values())] == []


def test_every_finding_of_the_doctor_has_a_row():
    table = DOCUMENT.partition("# Every finding of the doctor")[2]
    told = set(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))
    rows = {name.strip("`") for cell in told for name in cell.split(", ")}
    known: set[str] = set()
    for path in (ROOT / "controlplane" / "doctor").glob("*.py"):
        known |= set(re.findall(r'"((?:redis|postgres|clocks|state|tls|secrets)\.[\w-]+)"', path.read_text()))
    # What looks at a whole server; its findings have names of their own.
    known -= {"redis.server", "postgres.server"}
    covered = {name for name in known if name in rows or f"{name.partition('.')[0]}.*" in rows}
    assert sorted(known - covered) == []


def test_every_reason_for_a_503_has_a_row():
    table = RUNBOOKS["Requests fail"]
    assert [reason for reason in get_args(Unchecked) if f"`{reason}`" not in table] == []


def test_every_block_is_rehearsed_or_says_that_it_is_not():
    consoles = len(re.findall(r"^```console$", DOCUMENT, re.MULTILINE))
    assert len(blocks_of(DOCUMENT)) == consoles
    assert PRELUDE in {block.name for block in blocks_of(DOCUMENT)}


def test_a_block_is_read_and_written_as_it_stands():
    assert written(DOCUMENT, blocks_of(DOCUMENT)) == DOCUMENT


def test_what_was_seen_takes_the_place_of_what_was_written():
    page = "<!-- rehearsed: one A=1 -->\n```console\n$ first \\\n>   more\nold\n$ second\n```\nrest\n"
    [block] = blocks_of(page)
    assert (block.name, block.settings) == ("one", ("A=1",))
    assert [step.command for step in block.steps] == ["first \\\n  more", "second"]
    seen = Block(
        name="one", settings=("A=1",), start=block.start, end=block.end,
        steps=(Step(command="first \\\n  more", shown=""), Step(command="second", shown="new\nlines")),
    )  # fmt: skip
    assert written(page, [seen]) == page.replace("old\n", "").replace("$ second\n", "$ second\nnew\nlines\n")


def test_a_block_begins_with_a_command():
    with pytest.raises(ValueError, match="begins with a command"):
        blocks_of("<!-- rehearsed: one -->\n```console\nwords\n$ first\n```\n")


@pytest.mark.parametrize(
    ("page", "seen"),
    [
        ("ready after 1.5 s", "ready after 0.2 s"),
        ("ready after 0.0 s", "ready after 12.0 s"),
        ("at 2026-11-21T10:00:00Z in 12 ms", "at 2027-01-01T00:00:00.123Z in 7 ms"),
        ("id 409654afe16b7985fd4eea90d3f68aab", "id 0844cebeb0e74fbc94b7a6a9a84bb7f7"),
        ("127.0.0.1:20001  nz_abcdefghi  x", "127.0.0.1:31313 nz_ABCDEFGHI x"),
        ("http://127.0.0.1:20001  yes  26  4", "http://127.0.0.1:31313  yes  7  4"),
        ("revision  15", "revision  19"),
        ('{"shard":"s06"}', '{"shard":"s13"}'),
        ("at | 2026-11-21 11:06:20.661658+00", "at | 2026-11-22 18:28:02.1+00"),
        ("-[ RECORD 1 ]------------", "-[ RECORD 1 ]-----------"),
    ],
)
def test_what_differs_from_run_to_run_is_not_compared(page, seen):
    assert difference(page, seen) == []


@pytest.mark.parametrize(
    ("page", "seen"),
    [
        ("HTTP/1.1 503 Service Unavailable", "HTTP/1.1 200 OK"),
        ("gateway_ready 1.0", "gateway_ready 0.0"),
        ("ended with 0", "ended with 6"),
        ("one", "one\ntwo"),
    ],
)
def test_what_matters_is_compared(page, seen):
    assert difference(page, seen) != []
