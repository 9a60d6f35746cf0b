"""What a server counts of errors, those that nobody has foreseen and those of checks, and what it keeps of them."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import MutableMapping
from typing import Any, cast

import pytest
import structlog

from dataplane.api.dialect import Caps
from dataplane.api.exchange import Edge, HTTPExchange
from dataplane.api.forwarded import TrustedProxies
from dataplane.api.server import Server
from dataplane.api.watching import Departures
from dataplane.errors import (
    CannotCheckError,
    ClientClosedError,
    ForbiddenError,
    KeyRefusedError,
    LeaseLostError,
    NotReadyError,
    release_frames,
)
from dataplane.pipeline import Pipeline
from dataplane.ports import Models
from tests.fakes.manual_clock import ManualClock


class Broken:
    """A pipeline whose every answer is this error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def refuse(self, exchange: object, refusal: Exception) -> None:
        # As the stages do: the frame has a name for the error, which has the frame in its traceback.
        error = self._error
        raise error


async def answered(error: Exception) -> tuple[Server, list[Any], list[MutableMapping[str, Any]]]:
    """The server after one request that ended with the error, what it has sent, and its log lines."""
    edge = Edge(
        max_body_bytes=1,
        body_timeout_s=1,
        write_stall_timeout_s=1,
        request_id_header=b"x",
        caps=Caps(max_num_predict=1),
    )
    server = Server(
        pipeline=cast("Pipeline", Broken(error)),
        models=cast("Models", None),
        edge=edge,
        departures=Departures(),
        proxies=TrustedProxies(()),
        clock=ManualClock(0),
    )
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope: Any = {"method": "GET", "raw_path": b"/nowhere", "client": ("127.0.0.1", 1)}
    with structlog.testing.capture_logs() as lines:
        await server(scope, {}, receive, send)
    return server, sent, lines


async def test_it_is_answered_without_words_and_counted():
    server, sent, lines = await answered(ZeroDivisionError("a secret detail"))
    assert sent[0]["status"] == 500
    assert b"secret detail" not in repr(sent).encode()
    assert server.failed_unexpectedly == 1
    assert [line["event"] for line in lines] == ["request_failed_unexpectedly"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CannotCheckError("late"), "redis"),
        (CannotCheckError("admission said backlog", reason="backlog"), "backlog"),
        (NotReadyError("nothing is discovered"), "models"),
        (LeaseLostError("not renewed"), "lease_lost"),
    ],
)
async def test_what_could_not_be_checked_is_counted_by_its_reason(error, reason):
    server, sent, _ = await answered(error)
    assert sent[0]["status"] == 503
    assert server.unchecked == {reason: 1}


@pytest.mark.parametrize("error", [ForbiddenError("endpoint_blocked"), KeyRefusedError("revoked")])
async def test_a_refusal_that_was_checked_is_not_counted_among_those(error):
    server, _, _ = await answered(error)
    assert server.unchecked == {}


@pytest.mark.parametrize(
    "error", [ForbiddenError("endpoint_blocked"), ClientClosedError("gone"), ValueError("mistake")]
)
async def test_nothing_of_a_refused_request_waits_for_the_search_for_cycles(error):
    """The server below keeps a connection whose body was not read as long as anybody could still ask for it."""
    gc.collect()
    gc.disable()
    try:
        server, _, _ = await answered(error)
        kept = [one for one in gc.get_objects() if isinstance(one, HTTPExchange)]
    finally:
        gc.enable()
    assert not kept
    assert not server.in_flight


def raised(error: Exception) -> Exception:
    """The error, with the frames that it has passed."""
    with contextlib.suppress(type(error)):
        raise error
    return error


def test_all_that_an_error_came_from_is_let_go_of_also_where_it_leads_back():
    last, cause, handled = (
        raised(CannotCheckError("last")),
        raised(ValueError("cause")),
        raised(LeaseLostError("handled")),
    )
    last.__cause__, last.__context__, handled.__context__ = cause, handled, last
    release_frames(last)
    assert [one.__traceback__ for one in (last, cause, handled)] == [None] * 3
