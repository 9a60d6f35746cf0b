"""Counting tokens, believing counts, and keeping the text."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane import native
from dataplane.upstream import meter as meters
from dataplane.values import InferenceRequest, Lease, Operation, Usage
from shared.keyspace import LeaseId, Shard
from shared.modelname import canonical
from tests.fakes.manual_clock import ManualClock

NUM_PREDICT = 100
PROMPT_BYTES = 40
PROMPT_BOUND = 200
record = msgspec.json.Decoder(native.Record).decode


def request(operation: Operation = Operation.CHAT, **values: Any) -> InferenceRequest:
    options = native.Options(num_predict=NUM_PREDICT)
    return InferenceRequest(
        operation=operation,
        model="m",
        canonical=canonical("m"),
        body=native.ChatBody(messages=[], options=options),
        stream=True,
        **{"num_predict": NUM_PREDICT, "prompt_bytes": PROMPT_BYTES, **values},
    )


def lease(*, doubles_output: bool = False, num_predict: int = NUM_PREDICT) -> Lease:
    return Lease(
        lease_id=LeaseId("l"),
        shard=Shard("s00"),
        day="20261121",
        month="202611",
        prompt_bound=PROMPT_BOUND,
        num_predict=num_predict,
        output_factor=2 if doubles_output else 1,
        taken_s=0.0,
    )


def made(
    *, keep_text: bool = False, clock: ManualClock | None = None, **values: Any
) -> tuple[meters.ReplyMeter, list[str]]:
    anomalies: list[str] = []
    held = lease(**{name: values[name] for name in ("doubles_output", "num_predict") if name in values})
    meter = meters.ReplyMeter(
        request(**values), held, clock=clock or ManualClock(), keep_text=keep_text, on_anomaly=anomalies.append
    )
    return meter, anomalies


def said(text: str = "hello", **message: Any) -> native.Record:
    content = {"role": "assistant", "content": text, **message}
    return record(msgspec.json.encode({"message": content, "done": False}))


def thought(text: str = "hm") -> native.Record:
    return said("", thinking=text)


def done(**counts: Any) -> native.Record:
    return record(msgspec.json.encode({"message": {"role": "assistant", "content": ""}, "done": True, **counts}))


def see(meter: meters.ReplyMeter, *records: native.Record) -> None:
    for one in records:
        meter.see(one)


def test_the_backends_own_counts_are_used():
    meter, anomalies = made()
    see(meter, said(), said(), done(prompt_eval_count=26, eval_count=9))
    assert meter.usage() == Usage(prompt_tokens=26, completion_tokens=9, provenance="reported")
    assert meter.complete
    assert anomalies == []


def test_a_stream_that_ends_early_is_counted():
    meter, _ = made()
    see(meter, said(), thought(), said(""), said(tool_calls=[{"function": {"name": "f", "arguments": {}}}]))
    assert meter.usage() == Usage(prompt_tokens=10, completion_tokens=3, provenance="counted")
    assert not meter.complete


def test_before_anything_came_only_the_prompt_is_estimated():
    meter, _ = made(prompt_bytes=41)
    assert meter.usage() == Usage(prompt_tokens=11, completion_tokens=0, provenance="counted")
    assert meter.ttft_ms is None
    assert meter.reply_text is None


@pytest.mark.parametrize("count", [True, False, 1.5, -1, "12", None, [3], 10**12, 2**70])
def test_counts_that_cannot_be_are_an_anomaly_and_not_believed(count):
    meter, anomalies = made()
    see(meter, said(), said(), done(prompt_eval_count=count, eval_count=count))
    assert meter.usage() == Usage(prompt_tokens=10, completion_tokens=2, provenance="counted")
    assert anomalies == ["prompt_count", "output_count"]


def test_counts_above_what_the_request_may_cost_are_cut():
    meter, anomalies = made()
    see(meter, done(prompt_eval_count=1_000_000, eval_count=NUM_PREDICT + 1))
    usage = meter.usage()
    assert usage.completion_tokens == NUM_PREDICT
    assert usage.prompt_tokens == PROMPT_BOUND
    assert anomalies == ["prompt_count", "output_count"]


@pytest.mark.parametrize("count", [-1, 10**15, "17", 1.5, True, None])
def test_a_client_reads_what_is_charged_in_place_of_counts_that_cannot_be(count):
    meter, _ = made()
    final = done(prompt_eval_count=count, eval_count=count, total_duration=7)
    see(meter, said(), said(), final)
    shown = meter.believable(final)
    usage = meter.usage()
    assert (shown.prompt_eval_count, shown.eval_count) == (usage.prompt_tokens, usage.completion_tokens)
    assert (shown.total_duration, shown.done) == (7, True)


def test_counts_that_can_be_and_absent_ones_are_shown_as_they_are():
    for final in (done(prompt_eval_count=5, eval_count=9), done()):
        meter, _ = made()
        see(meter, said(), final)
        assert meter.believable(final) is final
    embedded = native.EmbedReply(embeddings=[[1.0]], prompt_eval_count=10**15)
    meter, _ = made(operation=Operation.EMBED, num_predict=0)
    meter.see(embedded)
    assert meter.believable(embedded).prompt_eval_count == meter.usage().prompt_tokens


def test_a_count_below_what_was_seen_is_raised():
    meter, _ = made()
    see(meter, said(), said(), said(), done(prompt_eval_count=5, eval_count=1))
    assert meter.usage() == Usage(prompt_tokens=5, completion_tokens=3, provenance="reported")


@pytest.mark.parametrize("counts", [{}, {"prompt_eval_count": 0}])
def test_a_prompt_count_of_nothing_means_unknown(counts):
    meter, anomalies = made()
    see(meter, said(), done(eval_count=4, **counts))
    assert meter.usage() == Usage(prompt_tokens=10, completion_tokens=4, provenance="counted")
    assert anomalies == []


def test_an_absent_output_count_without_output_is_zero():
    meter, _ = made()
    see(meter, done(prompt_eval_count=4))
    assert meter.usage() == Usage(prompt_tokens=4, completion_tokens=0, provenance="reported")


def test_thinking_before_a_formatted_answer_is_added_to_the_count_that_misses_it():
    meter, _ = made(doubles_output=True)
    see(meter, thought(), thought(), thought(), said(), said(), done(prompt_eval_count=30, eval_count=2))
    assert meter.usage() == Usage(prompt_tokens=30, completion_tokens=5, provenance="reported")


def test_a_second_pass_that_reads_the_first_ones_thinking_is_believed_and_charged_once():
    meter, anomalies = made(doubles_output=True)
    see(meter, *[thought()] * 30, said(), done(prompt_eval_count=PROMPT_BOUND + 30, eval_count=1))
    assert meter.usage() == Usage(prompt_tokens=PROMPT_BOUND, completion_tokens=31, provenance="reported")
    assert anomalies == []


def test_thinking_that_used_up_the_output_has_no_second_pass():
    meter, _ = made(doubles_output=True)
    see(meter, thought(), thought(), done(prompt_eval_count=30, eval_count=2))
    assert meter.usage().completion_tokens == 2


def test_generate_records_count_like_chat_records():
    meter, _ = made(operation=Operation.GENERATE)
    for line in (b'{"response":"a"}', b'{"response":"","thinking":"b"}', b'{"response":""}'):
        meter.see(record(line))
    assert meter.usage().completion_tokens == 2


def test_embeddings_cost_their_prompt():
    meter, _ = made(operation=Operation.EMBED, num_predict=0)
    meter.see(native.EmbedReply(embeddings=[[1.0]], prompt_eval_count=7))
    assert meter.usage() == Usage(prompt_tokens=7, completion_tokens=0, provenance="reported")
    assert meter.complete


def test_embeddings_without_a_count_are_estimated():
    meter, _ = made(operation=Operation.EMBED, num_predict=0)
    meter.see(native.EmbedReply(embeddings=[[1.0]]))
    assert meter.usage() == Usage(prompt_tokens=10, completion_tokens=0, provenance="counted")


def test_the_time_to_the_first_record_is_in_milliseconds():
    clock = ManualClock()
    meter, _ = made(clock=clock)
    clock.now_s += 0.25
    meter.see(said())
    clock.now_s += 1
    meter.see(said())
    assert meter.ttft_ms == 250


def test_text_is_kept_without_thinking_and_up_to_its_cap():
    meter, _ = made(keep_text=True)
    see(meter, thought("secret"), said("Hello "), said("world"))
    assert meter.reply_text == "Hello world"
    meter.see(said("x" * meters.MAX_REPLY_TEXT_CHARACTERS))
    meter.see(said("y"))
    assert meter.reply_text is not None
    assert len(meter.reply_text) == meters.MAX_REPLY_TEXT_CHARACTERS


def test_the_factory_makes_a_meter_per_request():
    make = meters.meters(ManualClock())
    assert make(request(), lease(), True).reply_text == ""
    assert make(request(), lease(), False).reply_text is None


@given(
    st.lists(st.sampled_from([said(), thought(), said("")])),
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.booleans(),
    st.booleans(),
)
def test_a_charge_is_never_negative_nor_above_the_bound_nor_below_what_was_seen(records, count, doubles):
    meter, _ = made(doubles_output=doubles)
    see(meter, *records)
    counted = meter.usage().completion_tokens
    meter.see(
        native.Record(
            message=native.Message(role="assistant", content=""), done=True, prompt_eval_count=count, eval_count=count
        )
    )
    usage = meter.usage()
    bound = NUM_PREDICT * (2 if doubles else 1)
    assert min(counted, bound) <= usage.completion_tokens <= bound
    assert 0 <= usage.prompt_tokens <= PROMPT_BOUND
