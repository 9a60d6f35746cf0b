"""The request log: what a line says, what it never says, and what a reader that stalls costs."""

import asyncio
import contextlib
import fcntl
import io
import json
import logging
import os
import sys

import msgspec
import pytest

from dataplane import access
from dataplane.access import JSONLines, NoLines, line_of, request_log
from shared import logs
from shared.redaction import REDACTED
from tests.unit.edge.test_metrics import EVENT
from tests.unit.stages.principals import ARRIVAL, PRINCIPAL


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def tell(log, number: int = 1) -> None:
    for _ in range(number):
        log.request_ended(arrival=ARRIVAL, principal=PRINCIPAL, event=EVENT, status=200, duration_s=0.25)


async def ended(log) -> None:
    """Lets the log write what waits, as at the end of a worker."""
    task = asyncio.create_task(log.run())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))


async def test_a_line_says_who_asked_for_what_and_what_became_of_it(pipe):
    log = JSONLines(descriptor=pipe[1])
    tell(log)
    await ended(log)
    [line] = os.read(pipe[0], 65536).decode().splitlines()
    said = json.loads(line)
    assert said == {
        "timestamp": said["timestamp"],
        "pid": os.getpid(),
        "plane": "dataplane",
        "event": "request_ended",
        "level": "info",
        "request_id": ARRIVAL.request_id,
        "dialect": "ollama",
        "endpoint": "/api/chat",
        "status": 200,
        "client_ip": "198.51.100.7",
        "duration_ms": 250.0,
        "outcome": "completed",
        "tenant": "acme",
        "key_prefix": "nz_000000000",
        "model": "llama3:latest",
        "provenance": "reported",
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "ttft_ms": 100,
    }
    assert said["timestamp"] == "2026-11-21T00:00:00.373000Z"
    assert REDACTED not in line


def test_a_prompt_that_the_ledger_keeps_is_not_on_the_line():
    event = msgspec.structs.replace(EVENT, prompt="the question", reply="the answer", prompt_log_days=3)
    line = msgspec.json.encode(line_of(ARRIVAL, PRINCIPAL, event, status=200, duration_s=0.1, pid=1))
    assert b"the question" not in line
    assert b"the answer" not in line


def test_a_request_of_nobody_leaves_a_line_too():
    line = msgspec.to_builtins(line_of(ARRIVAL, None, None, status=401, duration_s=0.1, pid=1))
    assert (line["outcome"], line["status"]) == ("refused", 401)
    assert not {"tenant", "key_prefix", "model", "prompt_tokens"} & line.keys()


async def test_lines_leave_in_pieces_that_a_pipe_takes_whole(pipe):
    log = JSONLines(descriptor=pipe[1])
    tell(log, 100)
    await ended(log)
    raw = os.read(pipe[0], 1 << 20)
    assert raw.count(b"\n") == 100
    assert all(json.loads(line)["status"] == 200 for line in raw.splitlines())


async def test_a_reader_that_stalls_costs_lines_and_is_told_how_many(pipe, monkeypatch):
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    monkeypatch.setattr(access, "MAX_WAITING", 40)
    monkeypatch.setattr(access, "FLUSH_PERIOD_S", 0.001)
    log = JSONLines(descriptor=pipe[1])
    tell(log, 30)
    running = asyncio.create_task(log.run())
    # The first batch is more than the pipe takes, so the thread hangs in it; the worker goes on.
    while "waiting=0" not in repr(log):
        await asyncio.sleep(0.001)
    tell(log, 60)
    assert "lost=20" in repr(log)
    raw = b""
    while raw.count(b"\n") < 70:
        raw += await asyncio.to_thread(os.read, pipe[0], 65536)
    running.cancel()
    await asyncio.wait((running,))


@pytest.mark.parametrize(("level", "style"), [("warning", "json"), ("error", "console")])
async def test_there_are_no_lines_below_their_level(level, style):
    log = request_log(level=level, style=style)
    assert isinstance(log, NoLines)
    tell(log)
    await log.run()


async def test_a_person_reads_the_same_fields(monkeypatch):
    # Loggers keep the configuration that they were first used with, and the process has had others.
    stream, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure(level="info", style="console", plane="test")
    monkeypatch.setattr(access, "_log", logs.get("test"))
    log = request_log(level="info", style="console")
    tell(log)
    await log.run()
    said = stream.getvalue()
    assert "request_ended" in said
    assert "nz_000000000" in said
