"""The performance gate: a request may not become a quarter more work than was agreed on."""

from __future__ import annotations

import subprocess
import sys
import threading

import msgspec
import pytest

from dataplane.api import strict_json
from tests.bench.work import AGREED, Agreement, Counting, Work, agreement, grown

HOW = f"If this much more work is meant, say why and run `python -m tests.bench.work --update` ({AGREED.name})."


def test_a_request_is_not_a_quarter_more_work_than_was_agreed_on(root, tmp_path):
    agreed = agreement()
    if not agreed.is_for_this_python:
        pytest.skip(f"agreed on for Python {agreed.python}")
    command = [sys.executable, "-m", "tests.bench.work", "--json", str(tmp_path / "work.json")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    now = msgspec.json.decode((tmp_path / "work.json").read_bytes(), type=Agreement)
    wrong = grown(agreed.work, now.work)
    assert wrong == [], "\n".join([*wrong, HOW])


def test_the_count_sees_a_third_more_work_and_says_where():
    def spelled(times: int) -> Work:
        counting = Counting()
        with counting.on():
            for _ in range(times):
                strict_json.parse(b'{"model": "llama3.2", "messages": []}')
        return counting.work(redis_commands=2)

    agreed, again, more = spelled(30), spelled(30), spelled(40)
    assert grown({"x": agreed}, {"x": again}) == []
    of_instructions, of_calls = grown({"x": agreed}, {"x": more})
    assert "instructions a request, 33% more" in of_instructions
    assert of_instructions.endswith("most in: decode and check")
    assert "calls a request, 33% more" in of_calls


def test_what_other_threads_do_meanwhile_is_not_counted():
    started, over = threading.Event(), threading.Event()

    def works() -> None:
        while not over.is_set():
            strict_json.parse(b'{"a": 1}')
            started.set()

    counting = Counting()
    other = threading.Thread(target=works)
    with counting.on():
        other.start()
        started.wait(10)
        over.set()
        other.join()
    assert strict_json.parse.__code__ not in counting.instructions


@pytest.mark.parametrize("name", ["instructions", "calls", "redis_commands"])
def test_each_number_may_grow_by_a_quarter_and_no_further(name):
    agreed = Work(instructions=1000, calls=1000, redis_commands=1000, stages={})
    assert grown({"x": agreed}, {"x": msgspec.structs.replace(agreed, **{name: 1250})}) == []
    [wrong] = grown({"x": agreed}, {"x": msgspec.structs.replace(agreed, **{name: 1251}, stages={"relay": 1})})
    assert wrong.startswith(f"x: 1251 {name} a request, 25% more than 1000")


def test_a_kind_of_request_that_nobody_agreed_on_is_no_success():
    work = Work(instructions=1, calls=1, redis_commands=1, stages={})
    assert grown({"x": work}, {"x": work, "y": work}) == ["y: only in one of the two"]
    assert grown({"x": work}, {}) == ["x: only in one of the two"]
