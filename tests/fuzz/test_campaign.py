"""A bounded share of the fuzz, and that its bodies are those of their seed."""

import json
import subprocess
import sys
from random import Random

import pytest

from dataplane.api import rules
from tests.fuzz import campaign, corpus, judging, mutations
from tests.fuzz.sending import Sender
from tests.fuzz.tree import planted, written

BODIES = 4000


@pytest.mark.parametrize("seed", [20261121, 20261122])
async def test_some_thousand_mutated_bodies_are_refused_or_sent_as_they_may_be(seed):
    result = await campaign.run(BODIES // 2, seed)
    assert [(failure.path, failure.text, failure.least) for failure in result.failures] == []
    assert result.bodies == BODIES // 2
    # Enough of both that the fuzz has something to judge.
    assert result.statuses[200] > BODIES // 8
    assert result.statuses[400] > BODIES // 8
    assert result.statuses[403] > 0
    assert set(result.statuses) == {200, 400, 403}
    assert result.compared > BODIES // 8


async def test_what_is_left_of_a_failing_body_still_fails_in_the_same_way(monkeypatch):
    monkeypatch.setattr(rules, "output_cap", lambda value, field, maximum: (9999, False))
    result = await campaign.run(1000, 1, max_failures=1)
    (failure,) = result.failures
    assert len(failure.least) <= len(failure.body)
    with pytest.raises(judging.Finding) as found:
        await judging.judge(failure.path, failure.least, Sender())
    assert found.value.kind == failure.kind == "sent"
    assert campaign.body_of(failure.seed, failure.index, corpus.kept()) == (failure.path, failure.body)


def test_a_body_depends_on_its_seed_and_number_alone():
    kept = corpus.kept()
    first = [campaign.body_of(7, index, kept) for index in range(300)]
    assert [campaign.body_of(7, index, kept) for index in reversed(range(300))] == first[::-1]
    assert [campaign.body_of(8, index, kept) for index in range(300)] != first
    assert {body for _, body in first} & {body.raw for body in kept} != {body for _, body in first}


def test_mutations_stay_within_the_cap_of_a_body():
    raw = b'{"a":[' + b"1," * 130_000 + b"1]}"
    random = Random(1)
    assert all(len(mutations.mutated(raw, [raw], random)) <= mutations.MAX_BYTES for _ in range(3))


@pytest.mark.parametrize(
    "raw", [b'{"a":[1.50,{"\\u0061":null,"a":"\xc3\xa9"}],"b":1e999,"b":NaN}', b"[]", b"01", b"{}"]
)
def test_trees_keep_literals_and_repeated_keys(raw):
    root = planted(raw)
    if root is None:
        with pytest.raises(ValueError, match="Extra data"):
            json.loads(raw)
    else:
        assert written(root) == raw.replace(b"\\u0061", b"a")


def test_the_command_prints_json_and_counts_bodies(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", "--count", "200", "--seed", "3", "--output", "json"]
    done = subprocess.run([*command, "--failures", str(tmp_path)], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)
    assert (result["seed"], result["bodies"], result["failures"]) == (3, 200, [])
    assert sum(result["statuses"].values()) == 200
    assert list(tmp_path.iterdir()) == []
