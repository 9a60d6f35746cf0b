"""The control endpoint scripts a mock and tells what it recorded; the command line starts one."""

import asyncio
import base64
import json
import signal
import sys
from pathlib import Path

import httpx
import pytest

from deploy.mock_ollama import MockOllama

from .conftest import CHAT, chat, connect, exchange, request_bytes


async def test_scripts_are_added_and_cleared(control, client):
    scripts = [
        {"match": {"path": "/api/chat"}, "times": None, "fault": {"kind": "busy"}},
        {"match": {"path": "/api/tags"}, "fault": {"kind": "status", "status": 500, "body": "{}"}},
    ]
    assert (await control.post("/script", json=scripts)).json() == {"ok": True}
    assert [(await client.get("/api/tags")).status_code for _ in range(2)] == [500, 200]
    assert (await client.post("/api/chat", json=CHAT)).status_code == 503
    await control.delete("/script")
    assert (await client.post("/api/chat", json=CHAT)).status_code == 200


@pytest.mark.parametrize(
    "script",
    [
        {"fault": {"kind": "nonsense"}},
        {"fault": {"kind": "slow", "typo_ms": 3}},
        {"fault": {"kind": "half_record", "then": "explode"}},
        {"fault": {"kind": "busy"}, "times": 0},
        [7],
    ],
)
async def test_a_script_with_a_fault_in_it_is_refused_with_the_reason(control, script):
    reply = await control.post("/script", json=script)
    assert reply.status_code == 400
    assert "$" in reply.json()["error"]


async def test_requests_are_told_with_their_bytes_and_their_go_reading(mock, control):
    sent = request_bytes(b'{"model":"a","MODEL":"llama3.2","messages":[]}', headers="X-Odd:  \xe9 \r\n")
    reader, writer = await connect(mock.url)
    writer.write(sent)
    await reader.readuntil(b"load")
    told = (await control.get("/requests")).json()["requests"][0]
    assert base64.b64decode(told["head_base64"]) + base64.b64decode(told["raw_body_base64"]) == sent
    assert told["json"] == {"model": "llama3.2", "messages": []}
    assert (told["method"], told["path"], told["status"]) == ("POST", "/api/chat", 200)
    assert told["finished_at_s"] >= told["arrived_at_s"]
    assert told["closed_by_peer_at_s"] is None
    writer.transport.abort()
    await control.delete("/requests")
    assert (await control.get("/requests")).json() == {"requests": []}


async def test_a_body_that_go_refuses_is_told_as_an_error(mock, control):
    await exchange(mock.url, request_bytes(b'{"stream":7}', headers="Connection: close\r\n"))
    told = (await control.get("/requests")).json()["requests"][0]
    assert told["json"] is None
    assert "of type bool" in told["json_error"]


async def test_stats_count_what_is_in_flight(mock, control, client):
    mock.set_settings(record_delay_ms=10, tokens=10)
    await asyncio.gather(*(client.post("/api/chat", json=CHAT) for _ in range(5)))
    stats = (await control.get("/stats")).json()
    assert stats["name"] == "A"
    assert (stats["max_in_flight"], stats["in_flight"], stats["requests_total"]) == (5, 0, 5)
    assert stats["connections_open"] == 5


async def test_models_and_settings_are_replaced(control, client):
    models = ["qwen3:8b", {"name": "x:cloud", "remote_host": "https://ollama.com", "remote_model": "x"}]
    await control.put("/models", json=models)
    listed = (await client.get("/api/tags")).json()["models"]
    assert [model["name"] for model in listed] == ["qwen3:8b", "x:cloud"]
    assert listed[1]["remote_host"] == "https://ollama.com"
    assert listed[0]["capabilities"] == ["completion", "tools", "thinking"]
    assert (await control.put("/settings", json={"tokens": 3})).json()["tokens"] == 3
    assert (await control.put("/settings", json={"tokens": 0})).status_code == 400
    assert (await control.put("/settings", json={"nonsense": 1})).status_code == 400
    reply = await client.post("/api/generate", json={"model": "qwen3:8b", "prompt": "x", "think": False})
    assert len(reply.text.splitlines()) == 4


async def test_unknown_control_routes_list_the_known_ones(control):
    reply = await control.get("/nope")
    assert reply.status_code == 404
    assert "POST /script" in reply.json()["routes"]
    assert "half_record" in (await control.get("/faults")).json()


async def test_several_mocks_run_at_once_and_stop_cleanly():
    async with MockOllama(name="A", models=["a"]) as first, MockOllama(name="B", models=["b"]) as second:
        assert len({first.url, first.control_url, second.url, second.control_url}) == 4
        assert (await chat(first, model="a")).status == 200
        assert (await chat(first, model="b")).status == 404
        assert (await chat(second, model="b")).status == 200
        assert "A" in repr(first)
    with pytest.raises(ConnectionRefusedError):
        await connect(first.url)


async def test_stopping_resets_a_stream_that_still_runs():
    mock = MockOllama()
    await mock.start()
    mock.set_settings(record_delay_ms=1000)
    reader, writer = await connect(mock.url)
    writer.write(request_bytes(CHAT))
    await mock.until(lambda m: m.stats()["in_flight"] == 1)
    await mock.stop()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert mock.stats()["in_flight"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_line_tells_its_urls_and_stops_on_a_signal(number):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.mock_ollama", "--port", "0", "--name", "C", "--models", "a,b", "--tokens", "2"),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    try:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        async with httpx.AsyncClient(base_url=ready["url"]) as client:
            assert [model["name"] for model in (await client.get("/api/tags")).json()["models"]] == ["a", "b"]
            assert (await client.post("/api/chat", json={**CHAT, "model": "a"})).text.count("\n") == 3
        script = {"fault": {"kind": "reset_after_records", "records": 1}}
        async with httpx.AsyncClient(base_url=ready["control_url"]) as control:
            await control.post("/script", json=script)
            assert (await control.get("/stats")).json()["name"] == "C"
        seen = await exchange(ready["url"], request_bytes({**CHAT, "model": "a"}))
        assert (len(seen.records), seen.ending) == (1, "reset")
    finally:
        process.send_signal(number)
        rest, _ = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, rest) == (0, b"")
