"""The examples of docs/API.md, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "API.md").read_text()


@pytest.fixture
def run(gateway, shared_key, mock):
    environ = {**os.environ, "GATEWAY": gateway.url, "KEY": shared_key, "NO_PROXY": "*"}

    def run(name: str, *program: str) -> str:
        found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", DOCUMENT, re.DOTALL)
        assert found is not None
        done = subprocess.run(
            [*program, "-c", found[1]], capture_output=True, text=True, timeout=60, check=False, env=environ
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_example_with_curl_lists_and_streams_in_both_dialects(run):
    listed, _, streams = run("curl", "bash", "-e").partition("data: ")
    assert "llama3.2:latest" in [model["id"] for model in json.loads(listed)["data"]]
    events, _, lines = streams.partition("data: [DONE]\n\n")
    assert events.count("data: ") > 1
    records = [json.loads(line) for line in lines.splitlines()]
    assert [record["done"] for record in records] == [False] * (len(records) - 1) + [True]


def test_the_example_with_the_package_of_openai_prints_text_usage_and_embeddings(run):
    text, tokens, embeddings, _ = run("openai", sys.executable).rsplit("\n", 3)
    assert text.strip()
    assert re.fullmatch(r" \d+ tokens", tokens)
    assert embeddings == "2 embeddings"


def test_the_example_with_the_package_of_ollama_prints_text_and_models(run):
    text, _, models = run("ollama", sys.executable).rpartition("\n[")
    assert text.strip()
    assert "llama3.2:latest" in models
