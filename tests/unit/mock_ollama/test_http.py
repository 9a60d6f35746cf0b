"""The mock speaks HTTP as gin and Go's server do."""

import asyncio
import json

from deploy.mock_ollama import MockOllama

from .conftest import CHAT, chat, connect, exchange, request_bytes


async def test_a_stream_is_chunked_ndjson_with_one_chunk_per_record(mock):
    seen = await chat(mock, options={"num_predict": 3})
    assert seen.status == 200
    assert b"Content-Type: application/x-ndjson\r\nDate:" in seen.head
    assert [json.loads(record)["done"] for record in seen.records] == [False, False, False, True]
    assert all(record.endswith(b"\n") for record in seen.records)
    assert seen.is_chunked_to_the_end


async def test_headers_are_written_together_with_the_first_record(mock):
    mock.set_settings(record_delay_ms=30)
    reader, writer = await connect(mock.url)
    writer.write(request_bytes(CHAT))
    first = await reader.read(65536)
    assert first.count(b'"done":false') == 1
    writer.transport.abort()


async def test_a_whole_reply_is_json_with_a_length(mock):
    seen = await chat(mock, stream=False)
    assert b"Content-Type: application/json; charset=utf-8" in seen.head
    assert f"Content-Length: {len(seen.body)}".encode() in seen.head
    assert json.loads(seen.body)["done"] is True


async def test_unknown_paths_and_wrong_methods_are_told_in_plain_text(client):
    missing, wrong = await client.get("/v1/models"), await client.get("/api/chat")
    assert (missing.status_code, missing.text) == (404, "404 page not found")
    assert (wrong.status_code, wrong.text) == (405, "405 method not allowed")
    assert missing.headers["content-type"] == wrong.headers["content-type"] == "text/plain"


async def test_root_says_that_ollama_is_running(client):
    assert (await client.get("/")).text == "Ollama is running"
    head = await client.head("/")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "17")


async def test_a_trailing_slash_is_redirected(client):
    assert (await client.get("/api/tags/")).headers["location"] == "/api/tags"
    assert (await client.post("/api/chat/")).status_code == 307


async def test_foreign_origins_and_hosts_are_refused_with_an_empty_body(client):
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        reply = await client.get("/api/tags", headers=headers)
        assert (reply.status_code, reply.content) == (403, b"")
    assert (await client.get("/api/tags", headers={"origin": "http://localhost:3000"})).status_code == 200


async def test_any_host_is_welcome_where_other_machines_can_connect():
    async with MockOllama(host="0.0.0.0") as open_mock:
        port = open_mock.url.rpartition(":")[2]
        sent = b"GET /api/version HTTP/1.1\r\nHost: mock-a:11434\r\nConnection: close\r\n\r\n"
        assert (await exchange(f"http://127.0.0.1:{port}", sent)).status == 200


async def test_a_token_is_asked_for_when_one_is_set(mock, client):
    mock.set_settings(token="secret")
    assert (await client.get("/api/tags")).status_code == 401
    assert (await client.get("/api/tags", headers={"authorization": "Bearer secret"})).status_code == 200


async def test_mutating_routes_answer_so_that_reaching_them_is_seen(mock, client):
    assert "success" in (await client.post("/api/pull", json={"model": "x"})).text
    assert (await client.request("DELETE", "/api/delete", json={"model": "x"})).status_code == 200
    assert (await client.post("/api/blobs/sha256:00", content=b"x")).status_code == 201
    assert (await client.post("/api/me")).json()["email"] == "operator@example.com"
    assert [request.path for request in mock.requests] == [
        "/api/pull",
        "/api/delete",
        "/api/blobs/sha256:00",
        "/api/me",
    ]


async def test_the_raw_bytes_of_pipelined_requests_are_kept_apart(mock):
    chunked = (
        b"POST /api/show HTTP/1.1\r\nhOST: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5;x=y\r\n{"mod\r\nd\r\nel":"gemma3"}\r\n0\r\nX-Trailer: 1\r\n\r\n'
    )
    plain = request_bytes(CHAT, headers="Connection: close\r\n")
    seen = await exchange(mock.url, chunked + plain)
    assert seen.data.count(b"HTTP/1.1 ") == 2
    first, second = mock.requests
    assert first.raw.head + first.raw.raw_body == chunked
    assert second.raw.head + second.raw.raw_body == plain
    assert first.headers == (("hOST", "localhost"), ("Transfer-Encoding", "chunked"))
    assert second.json["model"] == "llama3.2"
    assert first.raw.body == b'{"model":"gemma3"}'


async def test_a_request_that_comes_byte_by_byte_is_read(mock):
    reader, writer = await connect(mock.url)
    sent = request_bytes({"model": "llama3.2"}, path="/api/show")
    for index in range(len(sent)):
        writer.write(sent[index : index + 1])
        await asyncio.sleep(0)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()


async def test_a_body_that_waits_to_be_asked_for_is_asked_for(mock):
    reader, writer = await connect(mock.url)
    head, _, body = request_bytes(
        {"model": "llama3.2"}, path="/api/show", headers="Expect: 100-continue\r\n"
    ).partition(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()


async def test_bytes_that_are_no_request_get_400_and_the_connection_is_closed(mock):
    seen = await exchange(mock.url, b"not http at all\r\n\r\n")
    assert (seen.status, seen.ending) == (400, "eof")
    assert mock.requests == []


async def test_a_peer_that_closes_mid_stream_is_noticed_at_once(mock):
    mock.set_settings(record_delay_ms=200)
    reader, writer = await connect(mock.url)
    writer.write(request_bytes(CHAT))
    await reader.readuntil(b'"done":false}')
    assert mock.stats()["in_flight"] == 1
    writer.close()
    # By itself the reply would go on for five seconds.
    await mock.until(lambda m: m.stats()["in_flight"] == 0, timeout_s=2.0)
    request = mock.requests[0]
    assert request.closed_by_peer_at_s is not None
    assert request.finished_at_s is None
    assert request.records_sent < 24
    assert mock.stats()["closed_by_peer_total"] == 1
