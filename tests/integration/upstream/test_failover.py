"""Every fault of a backend before and after its first record, alone and with a healthy second backend."""

import asyncio
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest

from dataplane import native
from dataplane.errors import ForbiddenError, RequestError, StreamBrokenError, UpstreamError, UpstreamTimeoutError
from dataplane.values import Operation
from deploy.mock_ollama import MockOllama, faults
from deploy.mock_ollama import bad_content as bad
from deploy.mock_ollama.scripts import Fault
from tests.fakes.manual_clock import ManualClock
from tests.fakes.waiting import until
from tests.integration.upstream.gateway import LLAMA, Gateway, content, gateway, request

# How long is waited where a backend hangs, and where it does not: there no deadline is what the test is about.
HANGING_S = 0.4
PATIENT_S = 10.0
NUM_PREDICT = 8

# What any reply can suffer from before its first record.
BEFORE: dict[str, Fault] = {
    "refuse": faults.Refuse(),
    "reset before headers": faults.ResetBeforeHeaders(),
    "close before headers": faults.CloseBeforeHeaders(),
    "reset after headers": faults.ResetAfterHeaders(),
    "half a record, close": faults.HalfRecord(),
    "half a record, reset": faults.HalfRecord(then="reset"),
    "half a record, hang": faults.HalfRecord(then="hang"),
    "hang before headers": faults.Hang(),
    "hang after headers": faults.Hang(where="after_headers"),
    "reset": faults.ResetAfterRecords(records=0),
    "end of body": faults.CloseAfterRecords(records=0),
    "end of connection": faults.CutAfterRecords(records=0),
    "error line": bad.ErrorLineAfterRecords(records=0, text="SECRET"),
    "empty 200": bad.Empty200(),
    "busy": bad.Busy(),
    "500": bad.Status(body='{"error":"SECRET"}'),
    "502 html": bad.Status(status=502, body="<html>SECRET", content_type="text/html"),
    "504": bad.Status(status=504),
    "401": bad.Status(status=401, body='{"error":"SECRET"}'),
    "429": bad.Status(status=429),
    "404 of another kind": bad.Status(status=404, body="404 page not found", content_type="text/plain"),
    "204": bad.Status(status=204, body=""),
    "redirect": bad.Redirect(location="http://127.0.0.1:1/SECRET"),
    "gzip": bad.Gzip(),
    "hidden gzip": bad.Gzip(hidden=True),
    "invalid JSON": bad.InvalidJSON(text="SECRET"),
    "not UTF-8": bad.AnyBytes(bodies=("eyJtZXNzYWdlIjoi/yJ9Cg==",)),
    "deep JSON": bad.InvalidJSON(text='{"message":' + "[" * 100_000),
    "a record of another kind": bad.InvalidJSON(text='{"status":"pulling manifest"}'),
    "no object": bad.InvalidJSON(text="[1]"),
    "huge record": bad.HugeRecord(bytes=2 << 20),
    "wrong content type": bad.WrongContentType(),
    "no content type": bad.WrongContentType(content_type=None),
    "no HTTP": faults.Raw(slices=("SSH-2.0-OpenSSH_9.9\r\n\r\n",)),
    "half a head": faults.Raw(slices=("HTTP/1.1 200 OK\r\nConte",)),
    "bad chunk": faults.Raw(slices=("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",)),
}
TIMED_OUT = {"hang before headers", "hang after headers", "half a record, hang"}
# A whole document may be as large as many embeddings are.
NOT_FOR_EMBEDDINGS = {"huge record"}

# What a stream can suffer from after its first record, and how many records come before it.
AFTER: dict[str, tuple[Fault, int]] = {
    "reset": (faults.ResetAfterRecords(records=3), 3),
    "end of body": (faults.CloseAfterRecords(records=3), 3),
    "end of connection": (faults.CutAfterRecords(records=3), 3),
    "half a record, close": (faults.HalfRecord(records=3), 3),
    "half a record, reset": (faults.HalfRecord(records=3, then="reset"), 3),
    "half a record, hang": (faults.HalfRecord(records=3, then="hang"), 3),
    "hang": (faults.Hang(where="after_records", records=3), 3),
    "error line": (bad.ErrorLineAfterRecords(records=3, text="SECRET"), 3),
    "no done": (bad.NoDone(), NUM_PREDICT),
    "repeat guard": (bad.RepeatGuard(), 31),
    "invalid JSON": (bad.InvalidJSON(record=3, text="SECRET"), 3),
    "huge record": (bad.HugeRecord(record=3, bytes=2 << 20), 3),
    "a record of another kind": (bad.InvalidJSON(record=3, text='{"done":false}'), 3),
}
STREAMING = [Operation.CHAT, Operation.GENERATE]


def facing(fault: str, *mocks: MockOllama) -> AbstractAsyncContextManager[Gateway]:
    """A gateway that gives up soon, where the fault is one that never ends."""
    wait_s = HANGING_S if "hang" in fault else PATIENT_S
    return gateway(*mocks, first_record_s=wait_s, idle_s=wait_s)


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (one, name)
        for one in Operation
        for name in BEFORE
        if one is not Operation.EMBED or name not in NOT_FOR_EMBEDDINGS
    ],
)
async def test_a_fault_before_the_first_record_goes_to_the_healthy_backend(operation, name):
    async with MockOllama() as bad_one, MockOllama() as good, facing(name, bad_one, good) as one:
        bad_one.script(BEFORE[name], times=None)
        async with gateway(good) as other:
            expected = await other.text(request(operation))
        good.requests.clear()
        for _ in range(2):
            assert await one.text(request(operation)) == expected
        assert len(good.requests) == 2
        assert one.meter.complete
        assert one.meter.usage().provenance == "reported"


@pytest.mark.parametrize("name", BEFORE)
async def test_a_fault_before_the_first_record_without_another_backend_is_an_error(name):
    async with MockOllama() as bad_one, facing(name, bad_one) as one:
        bad_one.script(BEFORE[name], times=None)
        with pytest.raises(UpstreamError) as caught:
            await one.text()
        assert type(caught.value) is (UpstreamTimeoutError if name in TIMED_OUT else UpstreamError)
        assert caught.value.retry_after_s == 1
        assert "SECRET" not in str(caught.value)
        assert one.meter.ttft_ms is None
        assert one.backends.in_flight("a") == 0


@pytest.mark.parametrize("operation", STREAMING)
@pytest.mark.parametrize("name", AFTER)
async def test_a_fault_after_the_first_record_is_never_mended_with_another_backend(operation, name):
    fault, records = AFTER[name]
    inference = request(operation, num_predict=NUM_PREDICT)
    async with MockOllama() as bad_one, MockOllama() as good, facing(name, bad_one, good) as one:
        whole = await one.text(inference)
        bad_one.script(fault, times=None)
        seen: list[native.Record] = []
        with pytest.raises(UpstreamError) as caught:
            async for batch in one.records(inference):
                seen.extend(batch)
        hangs = "hang" in name
        assert type(caught.value) is (UpstreamTimeoutError if hangs else StreamBrokenError)
        assert "SECRET" not in str(caught.value)
        assert len(seen) == records
        assert not any(record.done for record in seen)
        if name != "repeat guard":
            assert whole.startswith(content(seen))
        assert good.requests == []
        usage = one.meter.usage()
        assert not one.meter.complete
        assert (usage.provenance, usage.completion_tokens) == ("counted", min(records, NUM_PREDICT))
        assert one.backends.in_flight("a") == 0


@pytest.mark.parametrize("operation", STREAMING)
@pytest.mark.parametrize("slow", [faults.Slow(slice_bytes=1), faults.Slow(slice_bytes=7)])
async def test_records_cut_into_slices_are_the_same(operation, slow):
    async with MockOllama() as mock, gateway(mock) as one:
        inference = request(operation)
        expected = await one.text(inference)
        mock.script(slow)
        assert await one.text(inference) == expected
        assert one.meter.complete


@pytest.mark.parametrize("operation", STREAMING)
@pytest.mark.parametrize("fault", [bad.BytesAfterDone(), bad.BytesAfterDone(text="{oops"), bad.DuplicateDone(copies=3)])
async def test_what_comes_after_the_final_record_is_ignored(operation, fault):
    async with MockOllama() as mock, gateway(mock) as one:
        inference = request(operation)
        expected = [record for batch in [b async for b in one.records(inference)] for record in batch]
        mock.script(fault)
        records = [record for batch in [b async for b in one.records(inference)] for record in batch]
        assert len(records) == len(expected)
        assert records[-1].done
        # The connection was not used again.
        await one.text(inference)
        assert mock.requests[2].connection != mock.requests[1].connection


async def test_fields_that_nobody_asked_for_are_dropped():
    async with MockOllama() as mock, gateway(mock) as one:
        mock.script(bad.ExtraFields())
        async for batch in one.records():
            for record in batch:
                assert "ollama.com" not in str(record)
                assert "OPERATOR" not in str(record)


async def test_a_missing_model_is_forgotten_and_asked_for_elsewhere():
    async with MockOllama(models=["qwen3:8b"]) as without, MockOllama() as having, gateway(without, having) as one:
        assert await one.text()
        assert one.models.forgotten == [("a", LLAMA)]
        assert len(having.requests) == 1


async def test_a_model_that_is_missing_everywhere_is_forbidden():
    async with MockOllama(models=[]) as a, MockOllama(models=[]) as b, gateway(a, b) as one:
        with pytest.raises(ForbiddenError):
            await one.text()
        assert one.models.forgotten == [("a", LLAMA), ("b", LLAMA)]


async def test_a_refusal_of_the_request_itself_is_not_tried_elsewhere():
    async with MockOllama() as a, MockOllama() as b, gateway(a, b) as one:
        a.script(bad.Status(status=400, body='{"error":"SECRET does not support tools"}'))
        with pytest.raises(RequestError) as caught:
            await one.text()
        assert caught.value.message == "the model does not support tools"
        assert b.requests == []


async def test_a_refusal_without_end_is_not_read_for_ever():
    async with MockOllama() as mock, gateway(mock) as one:
        mock.script(bad.Status(status=400, body="x" * (4 << 20)))
        with pytest.raises(RequestError, match="refused"):
            await one.text()


@pytest.mark.parametrize(("first_s", "idle_s", "total_s"), [(0.2, 9, 9), (9, 9, 0.2)])
async def test_a_first_record_that_drips_is_late_all_the_same(first_s, idle_s, total_s):
    async with MockOllama() as mock, gateway(mock, first_record_s=first_s, idle_s=idle_s, total_s=total_s) as one:
        mock.script(faults.Slow(slice_bytes=1, slice_ms=20))
        with pytest.raises(UpstreamTimeoutError):
            await one.text()


@pytest.mark.parametrize(("elapsed_s", "is_asked"), [(0.995, 0), (0.1, 1)])
async def test_with_a_few_milliseconds_of_the_total_left_nobody_else_is_asked(elapsed_s, is_asked):
    # A timer of the loop may fire a little before another clock says that its time is over.
    clock = ManualClock()
    async with (
        MockOllama() as first,
        MockOllama() as second,
        gateway(first, second, clock=clock, total_s=1) as one,
    ):
        first.script(faults.Endless(per_record_ms=20))
        asking = asyncio.create_task(one.text(msgspec.structs.replace(request(), stream=False)))
        await until(lambda: first.stats()["in_flight"] == 1)
        clock.now_s += elapsed_s
        await asyncio.wait([asking])
        assert (asking.exception() is None) == bool(is_asked)
        assert len(second.requests) == is_asked


@pytest.mark.parametrize(("idle_s", "total_s"), [(0.1, 9), (9, 1.5)])
async def test_a_stream_ends_at_its_deadlines(idle_s, total_s):
    async with MockOllama() as mock, gateway(mock, idle_s=idle_s, total_s=total_s) as one:
        mock.script(faults.Slow(per_record_ms=200) if total_s > 2 else faults.Endless(per_record_ms=5))
        seen = 0
        with pytest.raises(UpstreamTimeoutError):
            async for batch in one.records():
                seen += len(batch)
        assert seen >= 1


async def test_an_endless_reply_that_never_pauses_ends_at_the_total_deadline():
    async with MockOllama() as mock, gateway(mock, total_s=0.3) as one:
        mock.script(faults.Endless(per_record_ms=0))
        with pytest.raises(UpstreamError):
            async for _ in one.stream():
                pass


async def test_the_total_deadline_spans_both_attempts():
    async with MockOllama() as a, MockOllama() as b, gateway(a, b, first_record_s=1.0, total_s=1.1) as one:
        a.script(faults.Hang())
        b.script(faults.Hang())
        started_s = one.clock.monotonic()
        with pytest.raises(UpstreamTimeoutError):
            await one.text()
        # The second attempt has what the first one has left, not its own second.
        assert one.clock.monotonic() - started_s < 1.9


@pytest.mark.parametrize("inputs", [("a",), ("a", "b", "c")])
async def test_embeddings_are_one_batch(inputs):
    async with MockOllama() as mock, gateway(mock) as one:
        (batch,) = [batch async for batch in one.stream(request(Operation.EMBED, inputs=inputs))]
        assert isinstance(batch, native.EmbedReply)
        assert len(batch.embeddings) == len(inputs)
        assert one.meter.usage().provenance == "reported"


async def test_fewer_embeddings_than_inputs_are_a_fault():
    async with MockOllama() as mock, gateway(mock) as one:
        mock.script(bad.Status(status=200, body='{"embeddings":[[0.5]]}'))
        with pytest.raises(UpstreamError):
            await one.text(request(Operation.EMBED, inputs=("a", "b")))
