"""The load generator and the fast mock, against each other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.bench import fast_replies
from tests.bench.fast_ollama import Connection, Replies
from tests.bench.fast_replies import BURST, MODELS, OPEN, PACED, RECORDS, REPLY
from tests.bench.load import Load, LoadError, Request


@contextlib.asynccontextmanager
async def mock() -> AsyncIterator[str]:
    replies = Replies(0)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(replies), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def raw(url: str, request: Request) -> bytes:
    """The reply as it stands on the wire."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.to_bytes(url, "key"))
    reply = b""
    async with asyncio.timeout(5):
        while not reply.endswith((b"0\r\n\r\n", b"}")):
            reply += await reader.read(65536)
    writer.close()
    await writer.wait_closed()
    return reply


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
@pytest.mark.parametrize("model", [model for model in MODELS if model not in (OPEN, PACED)])
async def test_a_stream_has_as_many_records_as_it_should(path, model):
    async with mock() as url:
        reply = await raw(url, Request(path=path, model=model, is_streamed=True))
    records = 2 if model == REPLY else RECORDS
    assert reply.count(b'"model"') == records
    assert (b"[DONE]" in reply) == (path != "/api/chat")


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_a_reply_has_about_a_kilobyte(path):
    async with mock() as url:
        assert 800 <= len(await raw(url, Request(path=path, model=REPLY, is_streamed=False))) <= 1200


async def test_a_paced_stream_takes_as_long_as_a_model():
    async with mock() as url, Load(url, [message(PACED, is_streamed=True)], 3) as load:
        answers = await load.run(seconds=0)
    assert len(answers.took_s) == 3
    assert min(answers.took_s) >= (RECORDS - 2) * fast_replies.PACE_S
    assert max(answers.first_s) < min(answers.took_s) / 2


async def test_what_was_under_way_at_the_end_is_waited_for_and_counts():
    async with mock() as url, Load(url, [message(BURST, is_streamed=True)], 4) as load:
        answers = await load.run(seconds=0.05)
    assert len(answers.took_s) == len(answers.first_s) >= 4
    assert answers.lasted_s >= 0.05


async def test_messages_are_asked_one_after_the_other():
    messages = [message(REPLY, is_streamed=False), message("none", is_streamed=False)]
    async with mock() as url, Load(url, messages[:1], 1) as load:
        await load.run(seconds=0.01)
    async with mock() as url, Load(url, messages, 1) as load:
        with pytest.raises(LoadError, match="404"):
            await load.run(seconds=1)


async def test_an_expected_refusal_is_an_answer():
    async with mock() as url, Load(url, [message("none", is_streamed=False)], 2, status=404) as load:
        assert (await load.run(seconds=0)).took_s


async def test_a_server_that_goes_away_ends_the_measurement():
    async with mock() as url, Load(url, [message(OPEN, is_streamed=True)], 1) as load:
        run = asyncio.create_task(load.run(seconds=0))
        await asyncio.sleep(0)
        load._connections[0].connection_lost(None)
        with pytest.raises(LoadError, match="was lost"):
            await run


def message(model: str, *, is_streamed: bool) -> bytes:
    return Request(path="/api/chat", model=model, is_streamed=is_streamed).to_bytes("http://mock", None)


async def test_a_connection_that_was_closed_while_it_was_idle_is_opened_again():
    async with mock() as url, Load(url, [message(REPLY, is_streamed=False)], 2) as load:
        await load.run(seconds=0)
        for connection in load._connections:
            connection.close()
        assert len((await load.run(seconds=0)).took_s) == 2


async def test_requests_begin_evenly_over_the_time_that_is_said():
    async with mock() as url, Load(url, [message(REPLY, is_streamed=False)], 5) as load:
        answers = await load.run(seconds=0, spread_s=0.2)
    assert len(answers.took_s) == 5
    assert answers.lasted_s >= 0.16
