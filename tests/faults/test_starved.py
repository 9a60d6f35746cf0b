"""A8: a data plane that is denied what it needs goes on serving or denies, and never hangs."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.accounts import assert_invariants
from tests.e2e.crowd import ask_all, chat
from tests.e2e.harness import eventually
from tests.faults.fleet import Fleet
from tests.faults.starved import DataPlane, data_plane

# A worker has some forty open when nobody asks.
FEW_DESCRIPTORS = 64
FULL_FILE_BYTES = 8192


@pytest.fixture
def key(whole: Fleet) -> str:
    tenant = f"starved-{uuid.uuid4().hex[:8]}"
    whole.gateway.tenant(tenant)
    return whole.gateway.key(tenant)


def ask(plane: DataPlane, key: str, count: int = 4) -> list:
    return ask_all([plane.url], key, [chat(num_predict=16)] * count)


def asked(answers: list, plane: DataPlane, key: str) -> list:
    """What is answered now, which joins the answers until now."""
    now = ask(plane, key)
    answers += now
    return now


@contextlib.contextmanager
def nobody_reads(_: Path) -> Iterator[tuple[int, dict[int, int]]]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * select.PIPE_BUF)
    os.set_blocking(writing, True)
    try:
        yield writing, {}
    finally:
        os.close(reading)
        os.close(writing)


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[tuple[int, dict[int, int]]]:
    with (folder / "log").open("ab") as file:
        file.truncate(FULL_FILE_BYTES)
        yield file.fileno(), {resource.RLIMIT_FSIZE: FULL_FILE_BYTES}


@pytest.mark.parametrize("starvation", [nobody_reads, full_disk])
def test_a_log_that_takes_nothing_stops_no_request(whole: Fleet, key: str, tmp_path: Path, starvation):
    with starvation(tmp_path) as (stdout, limits), data_plane(whole.gateway, stdout=stdout, limits=limits) as plane:
        answers = ask(plane, key)
        # Not only requests have lines: everybody who has something to say writes one, in the event loop.
        whole.gateway.redis.client_kill_filter(_type="normal", skipme=True)
        # That a link was cut is noticed a moment later, and until there is another one nobody can be checked.
        eventually(lambda: {answer.status for answer in asked(answers, plane, key)} == {200}, what="service")
        assert plane.is_same()
    assert [answer.status for answer in answers[:4]] == [200] * 4
    assert {answer.status for answer in answers} <= {200, 503}
    assert_invariants(whole.gateway, whole.mocks, answers, may_fail={503})


def test_without_descriptors_clients_are_closed_or_denied_and_it_recovers(whole: Fleet, key: str):
    with data_plane(
        whole.gateway, stdout=subprocess.DEVNULL, limits={resource.RLIMIT_NOFILE: FEW_DESCRIPTORS}
    ) as plane:
        crowd = idle(plane, FEW_DESCRIPTORS)
        # They wait behind those who say nothing, until these are closed.
        answers = ask(plane, key, 8)
        for one in crowd:
            one.close()
        assert {answer.status for answer in answers} <= {0, 200, 502, 503}
        # No breaker is open: the backends have done nothing.
        assert [answer.status for answer in ask(plane, key)] == [200] * 4
        assert plane.is_same()
    assert_invariants(whole.gateway, whole.mocks, answers, may_fail={0, 502, 503}, attempts=2)


def idle(plane: DataPlane, count: int) -> list[socket.socket]:
    """Clients that connect and say nothing."""
    address = urlsplit(plane.url)
    return [socket.create_connection((address.hostname, address.port), timeout=5) for _ in range(count)]
