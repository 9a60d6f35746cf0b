"""Who is tried after whom, and what a client is told when nobody answers."""

from typing import Any

import pytest

from dataplane import native
from dataplane.errors import (
    ForbiddenError,
    GatewayError,
    RequestError,
    StreamBrokenError,
    UpstreamError,
    UpstreamTimeoutError,
)
from dataplane.ports import AttemptError, Batch
from dataplane.stages.relay import Relay
from dataplane.upstream.meter import ReplyMeter
from dataplane.values import InferenceRequest, Operation, RequestId, Usage
from shared.clock import SystemClock
from tests.unit.relay.upstreams import LLAMA, FakeModels, FakeUpstreams, Script, candidate, chat
from tests.unit.stages.principals import LEASE

FAULT = AttemptError("SECRET broken")
MISSING = AttemptError("SECRET missing", model_missing=True)
LATE = AttemptError("SECRET late", timed_out=True)


def word(text: str, **values: Any) -> native.Record:
    return native.Record(message=native.Message(role="assistant", content=text), **values)


OK = ((word("a"), word("b")), (word("", done=True, eval_count=2, prompt_eval_count=3),))


BREAKS: tuple[Batch | GatewayError, ...] = ((word("x"), word("y"), word("z")), StreamBrokenError("SECRET broke off"))
WHOLE = chat(stream=False)


class Run:
    def __init__(self, scripts: dict[str, Script], **values: Any) -> None:
        self.upstreams = FakeUpstreams(scripts, **values)
        self.models = FakeModels()
        self.meter = ReplyMeter(chat(), LEASE, clock=SystemClock())
        self.relay = Relay(upstreams=self.upstreams, models=self.models, clock=SystemClock())

    async def __call__(self, inference: InferenceRequest | None = None) -> tuple[str, list[Batch]]:
        candidates = [candidate(name) for name in self.upstreams.scripts]
        async with self.relay(candidates, inference or chat(), RequestId("r"), self.meter, tenant="t") as reply:
            return reply.backend, [batch async for batch in reply]


async def test_the_first_candidate_that_answers_is_relayed_and_then_left():
    run = Run({"a": OK, "b": OK})
    assert await run() == ("a", list(OK))
    assert run.upstreams.tried == ["a"]
    assert run.upstreams.left == ["a"]


async def test_records_are_metered_before_they_are_handed_on():
    run = Run({"a": OK})
    async with run.relay([candidate("a")], chat(), RequestId("r"), run.meter) as reply:
        batches = aiter(reply)
        await anext(batches)
        assert run.meter.usage() == Usage(prompt_tokens=2, completion_tokens=2, provenance="counted")
        await anext(batches)
        assert run.meter.complete
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


async def test_an_embedding_is_metered():
    run = Run({"a": (native.EmbedReply(embeddings=[[1.0]], prompt_eval_count=3),)})
    await run(chat(operation=Operation.EMBED))
    assert run.meter.usage().prompt_tokens == 3


@pytest.mark.parametrize("fault", [FAULT, LATE, MISSING])
async def test_a_candidate_that_fails_before_its_first_record_gives_way_to_the_next(fault):
    run = Run({"a": fault, "b": OK})
    assert (await run())[0] == "b"
    assert run.upstreams.left == ["b"]


async def test_at_most_two_attempts_are_made():
    run = Run({"a": FAULT, "b": FAULT, "c": OK})
    with pytest.raises(UpstreamError):
        await run()
    assert run.upstreams.tried == ["a", "b"]


async def test_a_missing_model_is_forgotten_there_and_is_no_attempt():
    run = Run({"a": MISSING, "b": FAULT, "c": OK})
    assert (await run())[0] == "c"
    assert run.models.forgotten == [("a", LLAMA)]


async def test_a_model_that_is_missing_everywhere_is_forbidden():
    run = Run({"a": MISSING, "b": MISSING})
    with pytest.raises(ForbiddenError) as caught:
        await run()
    assert caught.value.reason == "model_not_allowed"
    assert run.models.forgotten == [("a", LLAMA), ("b", LLAMA)]


@pytest.mark.parametrize(
    ("script", "kind"),
    [((FAULT, FAULT), UpstreamError), ((LATE, LATE), UpstreamTimeoutError), ((MISSING, FAULT), UpstreamError)],
)
async def test_when_nobody_answers_it_is_said_and_nothing_else(script, kind):
    run = Run(dict(zip("ab", script, strict=True)), retry_after_s={"a": 9, "b": 4})
    with pytest.raises(UpstreamError) as caught:
        await run()
    assert type(caught.value) is kind
    assert caught.value.retry_after_s == 4
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("unsupported", "message", "param"),
    [
        ("tools", "the model does not support tools", "tools"),
        ("thinking", "the model does not support thinking", "think"),
        ("chat", "the model does not support chat", "model"),
        ("generate", "the model does not support text generation", "model"),
        ("suffix", "the model does not support a suffix", "suffix"),
        ("embeddings", "the model does not support embeddings", "model"),
        ("images", "the model does not support images", "images"),
        ("context", "the input is longer than the context of the model", None),
        (None, "the model refused the request", None),
    ],
)
async def test_what_the_request_itself_causes_is_told_in_our_words_and_not_tried_elsewhere(unsupported, message, param):
    run = Run({"a": AttemptError("SECRET", status=400, unsupported=unsupported), "b": OK})
    with pytest.raises(RequestError) as caught:
        await run()
    assert (caught.value.message, caught.value.param) == (message, param)
    assert run.upstreams.tried == ["a"]


async def test_a_candidate_whose_breaker_opened_meanwhile_is_skipped():
    run = Run({"a": OK, "b": OK}, shut={"a"})
    assert (await run())[0] == "b"
    assert run.upstreams.tried == ["b"]


async def test_without_any_passing_candidate_nothing_is_tried():
    run = Run({"a": OK}, shut={"a"}, retry_after_s={"a": 12})
    with pytest.raises(UpstreamError) as caught:
        await run()
    assert caught.value.retry_after_s == 12
    assert run.upstreams.tried == []


async def test_a_whole_reply_is_one_batch():
    run = Run({"a": OK})
    assert await run(WHOLE) == ("a", [[*OK[0], *OK[1]]])


@pytest.mark.parametrize("fault", [StreamBrokenError("broke off"), UpstreamTimeoutError("hangs")])
async def test_a_whole_reply_that_breaks_off_comes_from_the_next_candidate_alone(fault):
    run = Run({"a": (*BREAKS[:1], fault), "b": OK})
    _, batches = await run(WHOLE)
    assert batches == [[*OK[0], *OK[1]]]
    assert run.upstreams.left == ["a", "b"]
    assert run.meter.backend == "b"
    assert run.meter.usage() == Usage(prompt_tokens=3, completion_tokens=2, provenance="reported")


async def test_a_stream_that_breaks_off_is_not_asked_for_again():
    run = Run({"a": BREAKS, "b": OK})
    with pytest.raises(StreamBrokenError):
        await run()
    assert run.upstreams.tried == ["a"]


@pytest.mark.parametrize("second", [FAULT, LATE, MISSING, AttemptError("SECRET", status=400), None], ids=str)
async def test_a_whole_reply_that_nobody_can_replace_is_charged_as_far_as_it_came(second):
    run = Run({"a": BREAKS} if second is None else {"a": BREAKS, "b": second})
    with pytest.raises(StreamBrokenError):
        await run(WHOLE)
    assert run.upstreams.left == ["a"]
    assert run.meter.backend == "a"
    assert run.meter.usage() == Usage(prompt_tokens=2, completion_tokens=3, provenance="counted")


@pytest.mark.parametrize(
    ("first", "error"), [(BREAKS, StreamBrokenError), (LATE, UpstreamTimeoutError)], ids=["breaks", "late"]
)
async def test_nobody_else_is_asked_when_the_time_is_over(first, error):
    run = Run({"a": first, "b": OK}, is_too_late=True)
    with pytest.raises(error):
        await run(WHOLE)
    assert run.upstreams.tried == ["a"]


async def test_of_two_whole_replies_that_break_off_the_second_is_charged():
    run = Run({"a": BREAKS, "b": (*OK[:1], StreamBrokenError("too")), "c": OK})
    with pytest.raises(StreamBrokenError):
        await run(WHOLE)
    assert run.upstreams.tried == ["a", "b"]
    assert run.meter.backend == "b"
    assert run.meter.usage().completion_tokens == 2
