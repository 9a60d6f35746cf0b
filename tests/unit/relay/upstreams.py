"""Scripted backends: each attempt fails as told or gives a reply of the given batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from dataplane import native
from dataplane.errors import GatewayError
from dataplane.ports import AttemptError, Batch
from dataplane.values import Backend, Candidate, Grant, InferenceRequest, Operation, RequestId
from shared.modelname import CanonicalName, canonical
from shared.records import ModelPolicyRecord, ModelRecord

LLAMA = canonical("llama3.2")

# A reply breaks off where an error stands among its batches.
Script = AttemptError | Sequence[Batch | GatewayError]


def candidate(name: str, priority: int = 0, *, weight: int = 1) -> Candidate:
    return Candidate(
        backend=Backend(name=name, url=f"http://{name}.invalid", priority=priority, weight=weight),
        model=ModelRecord(name="llama3.2:latest", canonical=LLAMA),
    )


def chat(**values: object) -> InferenceRequest:
    body = native.ChatBody(messages=[native.Message(role="user", content="hi")], options=native.Options(num_predict=16))
    defaults: dict[str, object] = {
        "operation": Operation.CHAT,
        "model": "llama3.2",
        "canonical": LLAMA,
        "body": body,
        "stream": True,
        "num_predict": 16,
        "prompt_bytes": 8,
    }
    return InferenceRequest(**{**defaults, **values})  # type: ignore[arg-type] # a test names what it changes


class FakeReply:
    def __init__(self, backend: str, batches: Sequence[Batch | GatewayError]) -> None:
        self.backend = backend
        self._batches = batches

    async def __aiter__(self) -> AsyncIterator[Batch]:
        for batch in self._batches:
            if isinstance(batch, GatewayError):
                raise batch
            yield batch


class FakeUpstreams:
    def __init__(
        self,
        scripts: dict[str, Script],
        *,
        shut: set[str] | None = None,
        in_flight: dict[str, int] | None = None,
        retry_after_s: dict[str, int] | None = None,
        is_too_late: bool = False,
    ) -> None:
        self.scripts = scripts
        self.is_too_late = is_too_late
        self.shut = shut or set()
        self.tried: list[str] = []
        self.left: list[str] = []
        self._in_flight = in_flight or {}
        self._retry_after_s = retry_after_s or {}

    @asynccontextmanager
    async def attempt(
        self,
        candidate: Candidate,
        inference: InferenceRequest,
        request_id: RequestId,
        *,
        tenant: str = "",
        elapsed_s: float = 0.0,
    ) -> AsyncIterator[FakeReply]:
        del inference, request_id, tenant, elapsed_s
        name = candidate.backend.name
        self.tried.append(name)
        script = self.scripts[name]
        if isinstance(script, AttemptError):
            raise script
        try:
            yield FakeReply(name, script)
        finally:
            self.left.append(name)

    def available(self, candidate: Candidate, *, tenant: str = "") -> bool:
        del tenant
        return candidate.backend.name not in self.shut

    def has_time(self, elapsed_s: float) -> bool:
        assert elapsed_s >= 0
        return not self.is_too_late

    def retry_after_s(self, candidate: Candidate) -> int:
        return self._retry_after_s.get(candidate.backend.name, 1)

    def in_flight(self, backend: str) -> int:
        return self._in_flight.get(backend, 0)


class FakeModels:
    def __init__(self, candidates: Sequence[Candidate] = ()) -> None:
        self._candidates = tuple(candidates)
        self.forgotten: list[tuple[str, str]] = []

    def resolve(self, grant: Grant, model: CanonicalName) -> ModelRecord | None:
        del grant, model
        return self._candidates[0].model if self._candidates else None

    def policy(self, model: CanonicalName) -> ModelPolicyRecord | None:
        del model
        return None

    def candidates(self, model: CanonicalName) -> tuple[Candidate, ...]:
        del model
        return self._candidates

    def listing(self, grant: Grant) -> tuple[ModelRecord, ...]:
        del grant
        return ()

    def forget(self, backend: str, model: CanonicalName) -> None:
        self.forgotten.append((backend, model))
