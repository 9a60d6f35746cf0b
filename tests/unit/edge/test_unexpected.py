"""An error that nobody has foreseen: a generic 500, a line with its trace, and a count."""

from __future__ import annotations

from typing import Any, cast

import structlog

from dataplane.api.dialect import Caps
from dataplane.api.exchange import Edge
from dataplane.api.forwarded import TrustedProxies
from dataplane.api.server import Server
from dataplane.api.watching import Departures, Stalls
from dataplane.pipeline import Pipeline
from dataplane.ports import Models
from tests.fakes.manual_clock import ManualClock


class Broken:
    async def refuse(self, exchange: object, refusal: Exception) -> None:
        raise ZeroDivisionError("a secret detail")


async def test_it_is_answered_without_words_and_counted():
    edge = Edge(
        max_body_bytes=1,
        body_timeout_s=1,
        write_stall_timeout_s=1,
        request_id_header=b"x",
        caps=Caps(max_num_predict=1),
    )
    server = Server(
        pipeline=cast("Pipeline", Broken()),
        models=cast("Models", None),
        edge=edge,
        stalls=Stalls(timeout_s=1),
        departures=Departures(),
        proxies=TrustedProxies(()),
        clock=ManualClock(0),
    )
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope: Any = {"method": "GET", "raw_path": b"/nowhere", "headers": [], "client": ("127.0.0.1", 1)}
    with structlog.testing.capture_logs() as lines:
        await server(scope, receive, send)
    assert sent[0]["status"] == 500
    assert b"secret detail" not in repr(sent).encode()
    assert server.failed_unexpectedly == 1
    assert [line["event"] for line in lines] == ["request_failed_unexpectedly"]
