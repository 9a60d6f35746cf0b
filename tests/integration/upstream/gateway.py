"""The upstream side of a gateway as ``app.py`` wires it, with short deadlines, and requests to send through it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import msgspec

from dataplane import native
from dataplane.ports import Batch
from dataplane.stages.relay import Relay
from dataplane.stages.route import Route
from dataplane.upstream.client import Backends, Timeouts
from dataplane.upstream.meter import ReplyMeter
from dataplane.upstream.transport import Transport
from dataplane.values import Backend, Candidate, InferenceRequest, Operation, RequestId
from deploy.mock_ollama import MockOllama
from shared.clock import Clock, SystemClock
from shared.modelname import canonical
from shared.records import ModelRecord
from tests.unit.relay.upstreams import FakeModels
from tests.unit.stages.principals import LEASE

LLAMA = canonical("llama3.2")
REQUEST_ID = RequestId("0123456789abcdef")


def candidate(url: str, *, name: str = "a", model: str = "llama3.2:latest", priority: int = 0) -> Candidate:
    return Candidate(
        backend=Backend(name=name, url=url, priority=priority),
        model=ModelRecord(name=model, canonical=LLAMA),
    )


def request(
    operation: Operation = Operation.CHAT, *, num_predict: int = 8, inputs: Sequence[str] = ("hi",)
) -> InferenceRequest:
    options = native.Options(num_predict=num_predict)
    body: native.Body
    match operation:
        case Operation.CHAT:
            body = native.ChatBody(messages=[native.Message(role="user", content="hi")], options=options)
        case Operation.GENERATE:
            body = native.GenerateBody(prompt="hi", options=options)
        case Operation.EMBED:
            body = native.EmbedBody(input=list(inputs))
    return InferenceRequest(
        operation=operation,
        model="llama3.2",
        canonical=LLAMA,
        body=body,
        stream=True,
        num_predict=num_predict,
        prompt_bytes=2,
    )


def metered(inference: InferenceRequest, clock: Clock) -> ReplyMeter:
    """A meter of a request that was granted what it asked for."""
    return ReplyMeter(inference, msgspec.structs.replace(LEASE, num_predict=inference.num_predict), clock=clock)


class Gateway:
    """Route and relay over real backends."""

    def __init__(self, backends: Backends, candidates: Sequence[Candidate], clock: Clock) -> None:
        self.backends = backends
        self.models = FakeModels(candidates)
        self.route = Route(models=self.models, upstreams=backends)
        self.relay = Relay(upstreams=backends, models=self.models, clock=clock)
        self.clock = clock
        self.meter = metered(request(), clock)

    async def stream(self, inference: InferenceRequest | None = None, *, tenant: str = "t") -> AsyncGenerator[Batch]:
        """The batches of one request; ``meter`` is its meter."""
        inference = inference or request()
        self.meter = metered(inference, self.clock)
        candidates = self.route(inference.canonical)
        async with self.relay(candidates, inference, REQUEST_ID, self.meter, tenant=tenant) as reply:
            async for batch in reply:
                yield batch

    async def records(self, inference: InferenceRequest | None = None) -> AsyncGenerator[Sequence[native.Record]]:
        """The batches of a request for text."""
        async with aclosing(self.stream(inference)) as batches:
            async for batch in batches:
                assert not isinstance(batch, native.EmbedReply)
                yield batch

    async def text(self, inference: InferenceRequest | None = None, *, tenant: str = "t") -> str:
        """The content of a whole reply."""
        batches = [batch async for batch in self.stream(inference, tenant=tenant)]
        return "".join(content(batch) for batch in batches)


def content(batch: Batch) -> str:
    """What a batch says."""
    if isinstance(batch, native.EmbedReply):
        return str(batch.embeddings)
    return "".join(str(one.message.content if one.message else one.response) for one in batch)


@asynccontextmanager
async def gateway(
    *backends: MockOllama | str,
    first_record_s: float = 5,
    idle_s: float = 5,
    total_s: float = 30,
    connect_s: float = 5,
    max_connections: int = 64,
    clock: Clock | None = None,
) -> AsyncIterator[Gateway]:
    urls = [backend if isinstance(backend, str) else backend.url for backend in backends]
    clock = clock or SystemClock()
    upstreams = Backends(
        transport=Transport(connect_timeout_s=connect_s, max_idle_per_backend=max_connections),
        timeouts=Timeouts(connect_s=connect_s, first_record_s=first_record_s, idle_s=idle_s, total_s=total_s),
        max_connections=max_connections,
        clock=clock,
    )
    candidates = [candidate(url, name="abc"[index], priority=index) for index, url in enumerate(urls)]
    try:
        yield Gateway(upstreams, candidates, clock)
    finally:
        await upstreams.aclose()
