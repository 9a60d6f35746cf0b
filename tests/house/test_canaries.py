"""The search for secrets in what the suite left behind finds what is planted, and only that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import apikey
from tests.canaries import PROMPT, leaks

KEY = apikey.mint(b"p" * 16)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Path]:
    """The folder of an embedded stack that wrote nothing that it should not have written."""
    (tmp_path / "stack" / "logs").mkdir(parents=True)
    (tmp_path / "stack" / "secrets.json").write_text(json.dumps({"key_pepper": "pepper-of-this-stack"}))
    (tmp_path / "stack" / "redis.conf").write_text("requirepass pepper-of-this-stack")
    log = tmp_path / "stack" / "logs" / "dataplane.log"
    log.write_text(f"key {KEY[:12]} refused, {KEY[:12]}{'a' * 51} as well")
    yield tmp_path
    # What was planted here is not for the search at the end.
    log.unlink()


def test_what_keeps_its_secrets_is_left_alone(stack):
    assert list(leaks(stack)) == []


@pytest.mark.parametrize(
    ("written", "leak"),
    [
        (f"Bearer {KEY}", f"API key {KEY[:12]}…"),
        (f'{{"content": "{PROMPT}"}}', "the prompt"),
        ("peppered with pepper-of-this-stack", "secret key_pepper"),
    ],
    ids=["key", "prompt", "pepper"],
)
def test_what_leaked_is_found_and_not_said(stack, written, leak):
    (stack / "stack" / "logs" / "dataplane.log").write_text(written)

    (line,) = leaks(stack)

    assert line == f"{leak} in stack/logs/dataplane.log"
    assert KEY not in line


def test_a_secret_of_one_stack_means_nothing_elsewhere(stack):
    (stack / "notes.txt").write_text("pepper-of-this-stack")

    assert list(leaks(stack)) == []
