"""Our answers: the gateway's own parsing and rendering around a mock Ollama, without the stages between."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from dataplane.api import listings, problems, routes
from dataplane.api.dialect import Caps, Parsed, Rendering
from dataplane.errors import GatewayError, RequestError, UnknownRouteError
from dataplane.native import EmbedReply, Record
from dataplane.values import Dialect, Operation
from deploy.mock_ollama import MockOllama
from shared.modelname import canonical
from shared.records import ModelRecord
from tests.contract.llama_cpp.frames import Reply, read_reply

REQUEST_ID = "6f1de9d5-7a7e-4b0e-9a1f-1f3c6c4f2a11"
CREATED_S = 1_795_200_000
_CAPS = Caps(max_num_predict=4096)
_TIMEOUT_S = 10


class Gateway:
    """Answers requests as the gateway would, for as long as the ``with`` block lasts."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._mock = MockOllama()

    def __enter__(self) -> Self:
        self._runner.run(self._mock.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._mock.stop())
        self._runner.close()

    def post(self, path: str, body: dict[str, Any]) -> Reply:
        """The reply to a POST of this JSON."""
        route = routes.match("POST", path.encode())
        if route.endpoint is None:
            return _refused(UnknownRouteError(), route.dialect)
        try:
            parsed = route.endpoint.parse(json.dumps(body).encode(), _CAPS)
        except RequestError as error:
            return _refused(error, route.dialect)
        rendering = parsed.rendering(REQUEST_ID, CREATED_S)
        raw = self._runner.run(self._upstream(parsed))
        return read_reply(200, rendering.content_type.decode(), _rendered(parsed, rendering, raw))

    def models(self) -> Reply:
        """The reply to ``GET /v1/models``."""
        model = ModelRecord(name="tiny:latest", canonical=canonical("tiny"), modified_at="2026-11-21T12:00:00Z")
        return read_reply(200, "application/json", listings.openai_models([model]))

    async def _upstream(self, parsed: Parsed) -> bytes:
        body = msgspec.structs.replace(parsed.request.body, model=parsed.request.model)
        async with httpx.AsyncClient(base_url=self._mock.url, timeout=_TIMEOUT_S, trust_env=False) as client:
            response = await client.post(parsed.request.operation.value, content=msgspec.json.encode(body))
        response.raise_for_status()
        return response.content

    def __repr__(self) -> str:
        return f"Gateway(mock={self._mock!r})"


def _refused(error: GatewayError, dialect: Dialect) -> Reply:
    problem = problems.render(error, dialect, REQUEST_ID)
    return read_reply(problem.status, dict(problem.headers)[b"content-type"].decode(), problem.body)


def _rendered(parsed: Parsed, rendering: Rendering, raw: bytes) -> bytes:
    if parsed.request.operation is Operation.EMBED:
        return rendering.whole(msgspec.json.decode(raw, type=EmbedReply))
    records = [msgspec.json.decode(line, type=Record) for line in raw.splitlines()]
    if not rendering.stream:
        return rendering.whole(records)
    # Record by record, as they arrive; how many are rendered at once must not show.
    return b"".join(rendering.batch([record]) for record in records)
