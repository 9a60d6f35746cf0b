"""The documents say everything that there is, and what is generated in them is current."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from controlplane.rpc.authz import RULES
from dataplane import errors
from dataplane.api import header, ollama, openai, problems
from dataplane.values import Dialect
from deploy import documents
from deploy.references import configuration, endpoints, fields, fieldwords, refusals, rpcs
from deploy.references.__main__ import SECTIONS, written
from shared import keyspace

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
VARIABLE = r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"


def text(document: str) -> str:
    return (DOCS / document).read_text()


def all_errors(kind: type[errors.GatewayError] = errors.GatewayError) -> Iterator[type[errors.GatewayError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from all_errors(below)


@pytest.mark.parametrize("document", SECTIONS)
def test_generated_sections_are_current(document):
    before, after = written(document)
    assert before == after, "run: python -m deploy.references"


def test_every_endpoint_is_in_the_reference():
    document = text("API.md")
    for path in endpoints.paths():
        assert re.search(rf"`[A-Z, ]+ {re.escape(path)}`", document), path
    inference = {endpoint.name for endpoint in (*ollama.ENDPOINTS, *openai.ENDPOINTS)}
    assert inference | {"/api/show"} == set(fields.BODIES)


def test_every_error_code_is_in_the_reference():
    document = text("API.md")
    # Of the second the code is made of the limit's name.
    for kind in set(all_errors()) - {errors.ClientClosedError, errors.LimitExceededError}:
        assert f"| `{kind.code}` |" in document, kind
    assert {*refusals.classes()} | {errors.ClientClosedError, errors.KeyRefusedError} == set(all_errors())
    for limit in ("requests", "tokens", "concurrency", "budget_day", "budget_month", "budget_total"):
        problem = problems.render(errors.LimitExceededError(limit, retry_after_s=1), Dialect.OPENAI, "")
        code = re.search(rb'"code":"(\w+)"', problem.body)
        assert code is not None
        assert f"| `{code[1].decode()}` |" in document


def test_every_header_is_in_the_reference_and_named_in_one_place():
    document = text("API.md")
    names = [value for name, value in vars(header).items() if name.isupper() and isinstance(value, bytes)]
    for name in names:
        assert f"| `{name.decode()}" in document or name in (header.REQUESTS, header.TOKENS), name
    elsewhere = {
        f"{path.name}: {found}"
        for path in (ROOT / "dataplane" / "api").glob("*.py")
        if path.name != "header.py"
        for found in re.findall(r'\(b"([a-z-]+)", ', path.read_text()) + re.findall(r'b"(x-[a-z-]+)"', path.read_text())
    }
    assert elsewhere == set()


def test_what_is_said_of_fields_is_said_of_fields_that_there_are():
    assert fieldwords.stale({(name, path) for name in fields.BODIES for path in fields.read_by(name)}) == set()


def test_every_rpc_is_in_the_reference():
    document = text("reference/RPC.md")
    own = {method for method in RULES if method.startswith("/neuronetz.")}
    assert {method.rpartition(".")[2] for method in own} == rpcs.names()
    for method in own:
        assert f"\n### {method.rpartition('/')[2]}\n" in document


def test_every_metric_is_in_the_reference():
    document = text("OBSERVABILITY.md")
    modules = ("dataplane/metrics.py", "dataplane/readings.py", "dataplane/gathering.py", "controlplane/metrics.py")
    names = {name for module in modules for name in re.findall(r'"(gateway_\w+)"', (ROOT / module).read_text())}
    assert len(names) > 60
    assert {
        name for name in names if f"| `{name}` |" not in document and f"| `{name}_total` |" not in document
    } == set()


def test_every_variable_that_anything_reads_is_in_the_reference():
    document = text("reference/CONFIGURATION.md")
    said = set(re.findall(rf"`({VARIABLE})`", document))
    read = set()
    for path in (
        ROOT / "compose.yml",
        *(ROOT / "deploy").glob("compose*.yml"),
        ROOT / "deploy" / "caddy" / "Caddyfile",
    ):
        read |= set(re.findall(rf"\$?\{{\$?({VARIABLE})\b", path.read_text()))
    for folder in ("dataplane", "controlplane", "shared", "deploy", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            read |= set(
                re.findall(rf'environ(?:\.get\(|\[)"((?:GATEWAY|OLLAMA)_{VARIABLE}|GATEWAY_\w+)"', path.read_text())
            )
    read = {name.removesuffix("_FILE") for name in read}
    assert read - said == set()
    assert {name for name, _ in (*configuration.COMPOSE, *configuration.TOOLS) if not used(name)} == set()


def used(name: str) -> bool:
    found = subprocess.run(
        ["git", "-C", str(ROOT), "grep", "-qw", name, "--", ":!docs", ":!deploy/references"], check=False
    )
    return found.returncode == 0


def test_every_key_in_redis_is_in_the_reference():
    document = text("reference/REDIS.md")
    made = {value for value in vars(keyspace).values() if isinstance(value, str) and value.startswith("gateway:")}
    patterns = set(re.findall(r'f"(gateway:[^"]+)"', Path(str(keyspace.__file__)).read_text()))
    shown = {
        re.sub(r"<[^>]+>|\{s..\}", "*", key) for key in re.findall(r"^\| `(gateway:[^`]+)`", document, re.MULTILINE)
    }
    assert {re.sub(r"\{\{\{shard\}\}\}|\{\w+\}", "*", pattern) for pattern in patterns} | made == shown


def test_the_readme_can_be_read_in_two_minutes():
    readme = (ROOT / "README.md").read_text()
    prose = re.sub(r"```.*?```|^\|.*?$", "", readme, flags=re.DOTALL | re.MULTILINE)
    assert len(prose.split()) <= 450


class Loads(HTMLParser):
    """What a page loads by itself: scripts, styles, pictures and the like, not what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href", ""))
        if tag != "a":
            self.addresses += [given[name] for name in ("src", "srcset", "data", "poster") if name in given]
        self.addresses += re.findall(r"url\(([^)]*)\)", given.get("style", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = Path(tmp_path_factory.mktemp("site"))
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(DOCS / "site" / "mkdocs.yml"),
        "-d",
        str(folder),
    ]
    built = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_the_site_has_every_document(site):
    for path in DOCS.rglob("*.md"):
        assert (site / path.relative_to(DOCS).with_suffix("") / "index.html").is_file()
    for page in documents.READMES:
        assert (site / page.removesuffix(".md").removesuffix("index") / "index.html").is_file()


def test_the_site_loads_nothing_from_elsewhere(site):
    foreign = set()
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text())
        foreign |= {address for address in loads.addresses if re.match(r"([a-z]+:)?//", address)}
        # What the theme would fetch a library for.
        assert 'class="mermaid"' not in page.read_text()
    for style in site.rglob("*.css"):
        foreign |= set(re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)", style.read_text()))
    assert foreign == set()
