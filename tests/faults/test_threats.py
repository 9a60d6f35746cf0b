"""The threat model names rows, tests and files that exist, and no row of the matrix is without a threat."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.registry import IDS, missing

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "THREAT_MODEL.md").read_text()
# Title and text of each threat, by its id.
THREATS = {
    match[1]: (match[2], match[3])
    for match in re.finditer(r"^### (T\d+) (.+)\n\n((?:(?!^#).*\n?)*)", DOCUMENT, re.MULTILINE)
}
_TEST = re.compile(r"`([\w/]+\.py::test_\w+)`")
_FILE = re.compile(r"`((?:\w+/)*[\w-]+\.(?:py|lua|conf|sql|yml|yaml|sh|lock|Dockerfile)|deploy/caddy/Caddyfile)`")


def rows(text: str) -> list[str]:
    return re.findall(r"\bA\d\.\d+\b", text)


def proof_of(text: str) -> str:
    return text.partition("- **Proves**:")[2].partition("- **Remains**:")[0]


def test_threats_are_numbered_and_have_all_their_parts():
    assert list(THREATS) == [f"T{number}" for number in range(1, len(THREATS) + 1)]
    for name, (_, text) in THREATS.items():
        parts = re.findall(r"^- \*\*(\w+)\*\*:", text, re.MULTILINE)
        assert parts == ["Holds", "Proves", "Remains", "Do"], name


@pytest.mark.parametrize("name", THREATS)
def test_a_threat_names_rows_tests_and_code_that_exist(name):
    _, text = THREATS[name]
    proof, held = proof_of(text), text.partition("- **Proves**:")[0]
    tests, files = _TEST.findall(proof), _FILE.findall(held)
    assert rows(proof)
    assert set(rows(proof)) <= set(IDS)
    assert tests
    assert missing(tests, ROOT) == []
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_every_row_of_the_matrix_is_about_some_threat():
    told = {row for _, text in THREATS.values() for row in rows(proof_of(text))}
    assert [row for row in IDS if row not in told] == []
