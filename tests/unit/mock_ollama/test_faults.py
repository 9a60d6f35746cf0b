"""Every fault as a client sees it on the wire."""

import asyncio
import gzip
import json
import time
from typing import cast

import pytest

from deploy.mock_ollama import MockOllama, bad_content, faults
from deploy.mock_ollama.scripts import FAULT_KINDS, Fault

from .conftest import CHAT, Seen, chat, connect, exchange, request_bytes

SHORT = {"options": {"num_predict": 4}}


async def scripted(mock: MockOllama, fault: Fault, **body: object) -> Seen:
    mock.script(fault)
    return await chat(mock, **{**SHORT, **body})


def done(seen: Seen) -> list[object]:
    return [json.loads(record).get("done") for record in seen.records]


async def test_refuse_resets_the_next_connections_at_accept(mock):
    mock.script(faults.Refuse(), times=2)
    for _ in range(2):
        assert (await chat(mock)).data == b""
    assert (await chat(mock)).status == 200
    assert len(mock.requests) == 1


async def test_refuse_for_a_time_closes_the_port_and_opens_it_again(mock):
    mock.script(faults.Refuse(duration_ms=80))
    with pytest.raises(ConnectionRefusedError):
        await connect(mock.url)
    assert await answers_again(mock)


async def answers_again(mock: MockOllama, timeout_s: float = 20) -> bool:
    """Whether the port answers before the deadline."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            return (await chat(mock)).status == 200
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
    return False


async def test_refuse_for_a_time_closes_idle_connections(mock):
    reader, writer = await connect(mock.url)
    writer.write(request_bytes({}, path="/api/version", method="GET"))
    await reader.readuntil(b"}")
    mock.script(faults.Refuse(duration_ms=50))
    assert await reader.read() == b""
    writer.close()


async def test_reset_before_headers_sends_nothing(mock):
    seen = await scripted(mock, faults.ResetBeforeHeaders())
    assert (seen.data, seen.ending) == (b"", "reset")
    assert mock.requests[0].json["model"] == "llama3.2"


async def test_close_before_headers_ends_without_a_byte(mock):
    seen = await scripted(mock, faults.CloseBeforeHeaders())
    assert (seen.data, seen.ending) == (b"", "eof")


async def test_reset_after_headers_sends_the_head_alone(mock):
    seen = await scripted(mock, faults.ResetAfterHeaders())
    assert (seen.status, seen.body, seen.ending) == (200, b"", "reset")


@pytest.mark.parametrize(("then", "ending"), [("close", "eof"), ("reset", "reset"), ("hang", "open")])
async def test_half_a_record_stops_in_the_middle_of_the_json(mock, then, ending):
    seen = await scripted(mock, faults.HalfRecord(records=2, then=then))
    assert len(seen.records) == 3
    with pytest.raises(json.JSONDecodeError):
        json.loads(seen.records[2])
    assert not seen.is_chunked_to_the_end
    assert seen.ending == ending


async def test_half_a_whole_reply_promises_more_bytes_than_it_sends(mock):
    seen = await scripted(mock, faults.HalfRecord(), stream=False)
    length = int(seen.head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
    assert len(seen.body) == length // 2


async def test_reset_after_records_delivers_them_first(mock):
    seen = await scripted(mock, faults.ResetAfterRecords(records=3))
    assert (len(seen.records), seen.ending) == (3, "reset")


async def test_close_after_records_ends_the_chunks_without_done(mock):
    seen = await scripted(mock, faults.CloseAfterRecords(records=3))
    assert done(seen) == [False] * 3
    assert seen.is_chunked_to_the_end


async def test_cut_after_records_leaves_the_chunks_open(mock):
    seen = await scripted(mock, faults.CutAfterRecords(records=3))
    assert done(seen) == [False] * 3
    assert (seen.is_chunked_to_the_end, seen.ending) == (False, "eof")


async def test_an_error_line_comes_mid_stream_with_status_200(mock):
    seen = await scripted(mock, bad_content.ErrorLineAfterRecords(records=2, text="CUDA error"))
    assert seen.status == 200
    assert json.loads(seen.records[2]) == {"error": "CUDA error"}
    assert len(seen.records) == 3
    assert seen.is_chunked_to_the_end


async def test_no_done_leaves_out_the_last_record_or_says_done_false(mock):
    seen = await scripted(mock, bad_content.NoDone())
    assert done(seen) == [False] * 4
    whole = json.loads((await scripted(mock, bad_content.NoDone(), stream=False)).body)
    assert whole["done"] is False
    assert "eval_count" not in whole
    assert whole["message"]["content"]


async def test_the_repeat_guard_says_one_token_31_times_and_no_done(mock):
    seen = await scripted(mock, bad_content.RepeatGuard())
    assert len(seen.records) == 31
    assert len(set(seen.records)) == 1
    assert seen.is_chunked_to_the_end


async def test_counts_can_be_any_json_or_missing(mock):
    seen = await scripted(mock, bad_content.Counts(set={"eval_count": "many", "prompt_eval_count": -7}))
    last = json.loads(seen.records[-1])
    assert (last["eval_count"], last["prompt_eval_count"]) == ("many", -7)
    seen = await scripted(mock, bad_content.Counts(remove=("eval_count",)), stream=False)
    assert "eval_count" not in json.loads(seen.body)


async def test_slow_waits_before_the_headers_and_the_records(mock):
    start = time.monotonic()
    seen = await scripted(mock, faults.Slow(before_headers_ms=60, per_record_ms=15))
    assert time.monotonic() - start > 0.06 + 5 * 0.015
    assert done(seen)[-1] is True


async def test_slow_can_send_one_byte_at_a_time(mock):
    seen = await scripted(mock, faults.Slow(slice_bytes=1), options={"num_predict": 1})
    assert done(seen) == [False, True]


@pytest.mark.parametrize(("where", "records"), [("before_headers", -1), ("after_headers", 0), ("after_records", 2)])
async def test_hang_stops_sending_until_the_peer_goes_away(mock, where, records):
    mock.script(faults.Hang(where=where, records=2))
    seen = await exchange(mock.url, request_bytes(CHAT), quiet_s=0.5)
    assert seen.ending == "open"
    assert (len(seen.records) if seen.data else -1) == records
    await mock.until(lambda m: m.requests[0].closed_by_peer_at_s is not None)
    assert mock.stats()["in_flight"] == 0


async def test_endless_never_says_done_and_stops_when_the_peer_leaves(mock):
    mock.script(faults.Endless(per_record_ms=0))
    reader, writer = await connect(mock.url)
    writer.write(request_bytes(CHAT))
    data = await reader.readexactly(200_000)
    assert b'"done":true' not in data
    writer.transport.abort()
    await mock.until(lambda m: m.stats()["in_flight"] == 0)


async def test_a_reader_that_stops_reading_stops_the_mock(mock):
    mock.script(faults.Endless(per_record_ms=0))
    _, writer = await connect(mock.url)
    cast("asyncio.Transport", writer.transport).pause_reading()
    writer.write(request_bytes(CHAT))
    sent = -1
    await mock.until(lambda m: bool(m.requests))
    while sent != mock.requests[0].records_sent:
        sent = mock.requests[0].records_sent
        await asyncio.sleep(0.05)
    assert sent > 0
    writer.transport.abort()
    await mock.until(lambda m: m.stats()["in_flight"] == 0)


async def test_raw_bytes_are_sent_as_they_are(mock):
    mock.script(faults.Raw(slices=("HTTP/1.1 200 OK\r\nContent-Le", "ngth: 3\r\n\r\n\xff{}"), pause_ms=5))
    seen = await chat(mock)
    assert (seen.data, seen.ending) == (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff{}", "eof")


async def test_gzip_says_so_and_unpacks_to_the_records(mock):
    seen = await scripted(mock, bad_content.Gzip())
    assert b"Content-Encoding: gzip" in seen.head
    assert gzip.decompress(b"".join(seen.records)).count(b"\n") == 5
    hidden = await scripted(mock, bad_content.Gzip(hidden=True))
    assert b"Content-Encoding" not in hidden.head


async def test_any_status_with_any_body_can_be_answered(mock):
    fault = bad_content.Status(status=418, body="no", content_type="text/x", headers={"Retry-After": "7"})
    seen = await scripted(mock, fault)
    assert (seen.status, seen.body) == (418, b"no")
    assert b"Content-Type: text/x\r\nRetry-After: 7" in seen.head


async def test_redirect_gives_a_location(mock):
    seen = await scripted(mock, bad_content.Redirect(location="http://169.254.169.254/"))
    assert seen.status == 307
    assert b"Location: http://169.254.169.254/" in seen.head


async def test_busy_is_ollamas_503(mock):
    seen = await scripted(mock, bad_content.Busy())
    assert seen.status == 503
    assert json.loads(seen.body)["error"] == "server busy, please try again.  maximum pending requests exceeded"


async def test_empty_200_has_no_body(mock):
    seen = await scripted(mock, bad_content.Empty200())
    assert (seen.status, seen.records) == (200, [])
    seen = await scripted(mock, bad_content.Empty200(), stream=False)
    assert b"Content-Length: 0" in seen.head


async def test_one_record_can_be_no_json(mock):
    seen = await scripted(mock, bad_content.InvalidJSON(record=1))
    assert json.loads(seen.records[0])
    with pytest.raises(json.JSONDecodeError):
        json.loads(seen.records[1])


async def test_one_record_can_be_huge(mock):
    seen = await scripted(mock, bad_content.HugeRecord(bytes=3_000_000, record=1))
    assert len(json.loads(seen.records[1])["message"]["content"]) == 3_000_000


async def test_bytes_can_follow_done_and_done_can_come_twice(mock):
    assert done(await scripted(mock, bad_content.BytesAfterDone()))[-2:] == [True, False]
    assert done(await scripted(mock, bad_content.DuplicateDone()))[-3:] == [False, True, True]


async def test_the_content_type_can_be_wrong_or_missing(mock):
    assert b"Content-Type: text/html" in (await scripted(mock, bad_content.WrongContentType())).head
    assert b"Content-Type" not in (await scripted(mock, bad_content.WrongContentType(content_type=None))).head


async def test_extra_fields_are_in_every_record(mock):
    seen = await scripted(mock, bad_content.ExtraFields())
    assert all(json.loads(record)["_debug_info"] for record in seen.records)
    assert all(json.loads(record)["remote_host"] for record in seen.records)


async def test_any_bytes_follow_an_honest_head(mock):
    seen = await scripted(mock, bad_content.AnyBytes(bodies=("/w==", "AAA=")))
    assert seen.records == [b"\xff", b"\x00\x00"]


@pytest.mark.parametrize(
    "shape", ["many", "giant", "deep", "not_json", "weird_names", "duplicates", "wrong_types", "remote"]
)
async def test_hostile_tags_replace_the_model_list(mock, shape):
    mock.script(bad_content.HostileTags(shape=shape, size=2000), path="/api/tags")
    sent = request_bytes(b"", path="/api/tags", method="GET", headers="Connection: close\r\n")
    seen = await exchange(mock.url, sent)
    assert seen.status == 200
    assert seen.body != (await exchange(mock.url, sent)).body
    if shape == "many":
        assert len(json.loads(seen.body)["models"]) == 2000


async def test_a_script_meets_only_what_it_matches_and_only_so_often(mock):
    mock.script(bad_content.Busy(), path="/api/chat", model="llama3.2", nth=2, times=2)
    bodies = [{}, {"model": "qwen3:8b"}, {}, {}, {}]
    assert [(await chat(mock, **body)).status for body in bodies] == [200, 200, 503, 503, 200]


async def test_a_script_without_an_end_holds_until_it_is_cleared(mock):
    mock.script(bad_content.Busy(), times=None)
    assert [(await chat(mock)).status for _ in range(3)] == [503] * 3
    mock.clear_scripts()
    assert (await chat(mock)).status == 200


async def test_faults_can_be_combined(mock):
    mock.script(
        bad_content.ErrorLineAfterRecords(records=1), faults.CutAfterRecords(records=2), faults.Slow(slice_bytes=7)
    )
    seen = await chat(mock)
    assert "error" in json.loads(seen.records[-1])
    assert (len(seen.records), seen.is_chunked_to_the_end) == (2, False)


async def test_every_fault_of_the_table_tells_what_it_does():
    assert len(FAULT_KINDS) == 29
    assert all(fault.__doc__ for fault in FAULT_KINDS.values())
