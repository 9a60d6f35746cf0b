"""What is written to a descriptor that takes it, takes some of it, or nothing."""

import fcntl
import io
import json
import logging
import os
import resource
import sys
import time

import pytest

from shared import logs
from shared.output import PIECE_BYTES, Output

LINE = b"x" * 99 + b"\n"


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIECE_BYTES)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def fill(output: Output) -> int:
    written = 0
    while output.write(LINE):
        written += 1
    return written


def test_lines_arrive_whole(pipe):
    output = Output(pipe[1])
    assert output.write(LINE * 3)
    assert os.read(pipe[0], 4096) == LINE * 3


def test_without_a_reader_nothing_is_waited_for(pipe):
    output = Output(pipe[1])
    assert fill(output) > 0
    started_s = time.monotonic()
    assert not output.write(LINE)
    assert not output.write(LINE, patience_s=0.02)
    assert time.monotonic() - started_s < 1


def test_more_than_there_is_room_for_does_not_hang_and_the_next_line_is_whole(pipe):
    output = Output(pipe[1])
    assert not output.write(b"y" * (PIECE_BYTES + 1) + b"\n")
    os.read(pipe[0], 2 * PIECE_BYTES)
    assert output.write(LINE)
    assert os.read(pipe[0], 4096) == b"\n" + LINE


def test_a_reader_that_has_gone_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    assert not Output(writing).write(LINE)
    os.close(writing)


def test_a_full_disk_is_no_error_and_the_line_after_it_is_whole(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "log"
    with path.open("ab") as file:
        output = Output(file.fileno())
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
        try:
            written = [output.write(LINE) for _ in range(3)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert written == [True, False, False]
        assert output.write(LINE)
    assert path.read_bytes() == LINE + LINE[:50] + b"\n" + LINE


def test_lines_that_were_lost_are_counted_once_there_is_room(pipe, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    monkeypatch.setattr(root, "level", root.level)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(os.fdopen(os.dup(pipe[1]), "wb"), line_buffering=True))
        logs.configure(level="info", style="json", plane="test")
        sys.stdout.close()
    [handler] = root.handlers
    # Of some pages: one that is begun takes no second writer.
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 8 * PIECE_BYTES)
    output = Output(pipe[1])
    monkeypatch.setattr(handler, "_output", output)
    written = fill(output)
    log = logging.getLogger("stalled")
    for _ in range(3):
        log.warning("nobody_reads")
    assert os.read(pipe[0], 65536).count(b"\n") == written
    log.warning("somebody_reads")
    told = [json.loads(line) for line in os.read(pipe[0], 4096).splitlines()]
    assert [line["event"] for line in told] == ["somebody_reads", "log_lines_lost"]
    assert told[1]["count"] == 3
