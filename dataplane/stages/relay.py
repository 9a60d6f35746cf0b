"""Getting the reply: tries candidates until one gives a valid first record, then passes that one's records on.

What a client has been sent is from one backend only. Of a stream that is settled by the first record: before it any
fault of a backend moves the request to the next candidate, afterwards none does. Of a reply that is wanted whole it is
settled by the last: until then nothing was sent, so one that breaks off is asked for again, from the start, elsewhere.
At most two attempts are made, the second only while there is time for it; a backend that turns out not to have the
model has not tried anything and does not count. What went wrong at a backend is logged and never reaches a client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from dataplane.errors import (
    ForbiddenError,
    GatewayError,
    RequestError,
    StreamBrokenError,
    UpstreamError,
    UpstreamTimeoutError,
)
from dataplane.native import EmbedReply, Record
from dataplane.ports import AttemptError, Batch, Meter, Models, Reply, Unsupported, Upstreams
from dataplane.values import Candidate, InferenceRequest, RequestId
from shared import logs
from shared.clock import Clock

MAX_ATTEMPTS = 2

# What a client reads when the model cannot do what was asked, and the field that asked for it.
_UNSUPPORTED: dict[Unsupported, tuple[str, str | None]] = {
    "tools": ("the model does not support tools", "tools"),
    "thinking": ("the model does not support thinking", "think"),
    "chat": ("the model does not support chat", "model"),
    "generate": ("the model does not support text generation", "model"),
    "suffix": ("the model does not support a suffix", "suffix"),
    "embeddings": ("the model does not support embeddings", "model"),
    "images": ("the model does not support images", "images"),
    "context": ("the input is longer than the context of the model", None),
}
_REFUSED = "the model refused the request"

_log = logs.get(__name__)


class Relay:
    """The fourth stage."""

    def __init__(self, *, upstreams: Upstreams, models: Models, clock: Clock) -> None:
        self.upstreams = upstreams
        self.models = models
        self.clock = clock
        # Replies by the backend that gave them after another had failed, since the worker started.
        self.failovers: Counter[str] = Counter()

    def __call__(
        self,
        candidates: Sequence[Candidate],
        inference: InferenceRequest,
        request_id: RequestId,
        meter: Meter,
        *,
        tenant: str = "",
    ) -> Relaying:
        """The reply as a context: entered with the first record there, left with the upstream connection released.

        Entering raises ``UpstreamError`` or ``UpstreamTimeoutError`` when no candidate answered, ``RequestError`` when
        the model cannot do what was asked, ``ForbiddenError`` when no candidate has the model after all.
        """
        return Relaying(self, candidates, inference, request_id, meter, tenant)

    def __repr__(self) -> str:
        return "Relay()"


class Relaying:
    """One request being relayed."""

    __slots__ = (
        "_candidates", "_entered", "_failures", "_inference", "_made", "_meter", "_relay", "_request_id", "_started_s",
        "_tenant", "_untried",
    )  # fmt: skip

    def __init__(
        self,
        relay: Relay,
        candidates: Sequence[Candidate],
        inference: InferenceRequest,
        request_id: RequestId,
        meter: Meter,
        tenant: str,
    ) -> None:
        self._relay = relay
        self._candidates = candidates
        self._untried = iter(candidates)
        self._inference = inference
        self._request_id = request_id
        self._meter = meter
        self._tenant = tenant
        self._started_s = relay.clock.monotonic()
        self._made = 0
        self._failures: list[AttemptError] = []
        self._entered: AbstractAsyncContextManager[Reply] | None = None

    async def __aenter__(self) -> Reply:
        """The first reply that is valid. Raises as ``Relay`` says."""
        reply = await self._next()
        return reply if self._inference.stream else WholeReply(self, reply)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases the upstream connection."""
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.__aexit__(kind, error, trace)

    async def instead(self, broken: UpstreamError) -> Reply:
        """The reply of the next candidate in place of one that broke off. Raises ``broken`` when there is none."""
        _log.warning("reply_given_up", request_id=self._request_id, detail=broken.detail)
        await self.__aexit__(type(broken), broken, broken.__traceback__)
        try:
            return await self._next()
        except GatewayError:
            raise broken from None

    async def _next(self) -> Reply:
        """The reply of the next candidate that gives a valid first record."""
        upstreams, clock = self._relay.upstreams, self._relay.clock
        for candidate in self._untried:
            if self._made == MAX_ATTEMPTS:
                break
            if not upstreams.available(candidate, tenant=self._tenant):
                continue
            elapsed_s = clock.monotonic() - self._started_s
            if self._made and not upstreams.has_time(elapsed_s):
                break
            attempt = upstreams.attempt(
                candidate, self._inference, self._request_id, tenant=self._tenant, elapsed_s=elapsed_s
            )
            try:
                reply = await attempt.__aenter__()
            except AttemptError as failure:
                self._note(candidate, failure)
                self._failures.append(failure)
                self._made += not failure.model_missing
                continue
            if self._made:
                self._relay.failovers[reply.backend] += 1
            self._made += 1
            self._entered = attempt
            self._meter.begin(reply.backend)
            return MeteredReply(reply, self._meter)
        raise self._nothing_left()

    def _note(self, candidate: Candidate, failure: AttemptError) -> None:
        """Raises ``RequestError`` when the request itself is the fault."""
        backend = candidate.backend.name
        _log.warning("attempt_failed", request_id=self._request_id, backend=backend, detail=failure.detail)
        if failure.model_missing:
            self._relay.models.forget(backend, self._inference.canonical)
        elif failure.status is not None:
            message, param = (_REFUSED, None) if failure.unsupported is None else _UNSUPPORTED[failure.unsupported]
            raise RequestError(message, param=param) from failure

    def _nothing_left(self) -> GatewayError:
        failures = self._failures
        if failures and all(failure.model_missing for failure in failures):
            return ForbiddenError("model_not_allowed")
        retry_after_s = min((self._relay.upstreams.retry_after_s(one) for one in self._candidates), default=1)
        if failures and failures[-1].timed_out:
            return UpstreamTimeoutError("no record within the deadline", retry_after_s=retry_after_s)
        return UpstreamError("no backend gave a reply", retry_after_s=retry_after_s)

    def __repr__(self) -> str:
        return f"Relaying({self._request_id}, candidates={len(self._candidates)})"


class MeteredReply:
    """A reply whose records the meter has seen before anybody else does."""

    __slots__ = ("_batches", "_meter", "backend")

    def __init__(self, reply: Reply, meter: Meter) -> None:
        self.backend = reply.backend
        self._batches: AsyncIterator[Batch] = aiter(reply)
        self._meter = meter

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """The next batch. Raises ``StreamBrokenError`` and ``UpstreamTimeoutError``."""
        batch = await self._batches.__anext__()
        if type(batch) is EmbedReply:
            self._meter.see(batch)
            return self._meter.believable(batch)
        for record in batch:
            self._meter.see(record)
        final = batch[-1]
        if not final.done or (believed := self._meter.believable(final)) is final:
            return batch
        return [*batch[:-1], believed]

    def __repr__(self) -> str:
        return f"MeteredReply({self.backend!r})"


class WholeReply:
    """A reply that is wanted whole, as one batch; of one that breaks off nothing is left when another replaces it."""

    __slots__ = ("_is_over", "_relaying", "_reply")

    def __init__(self, relaying: Relaying, reply: Reply) -> None:
        self._relaying = relaying
        self._reply = reply
        self._is_over = False

    @property
    def backend(self) -> str:
        """The backend that answers, as far as is known now."""
        return self._reply.backend

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        """The reply, once. Raises ``StreamBrokenError`` and ``UpstreamTimeoutError``."""
        if self._is_over:
            raise StopAsyncIteration
        while True:
            try:
                batch = await _gathered(self._reply)
            except (StreamBrokenError, UpstreamTimeoutError) as broken:
                self._reply = await self._relaying.instead(broken)
            else:
                self._is_over = True
                return batch

    def __repr__(self) -> str:
        return f"WholeReply({self._reply!r})"


async def _gathered(reply: Reply) -> Batch:
    records: list[Record] = []
    async for batch in reply:
        if type(batch) is EmbedReply:
            return batch
        records += batch
        if batch[-1].done:
            break
    return records
