"""The Ollama port: records every request, asks the engine for the honest reply and lets the scripts spoil it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from deploy.mock_ollama import routes
from deploy.mock_ollama.access import refusal
from deploy.mock_ollama.catalogue import Catalogue
from deploy.mock_ollama.connection import Listener
from deploy.mock_ollama.engine import Engine
from deploy.mock_ollama.faults import Refuse
from deploy.mock_ollama.framing import RawRequest
from deploy.mock_ollama.performance import Framing, Performance
from deploy.mock_ollama.recorded import Counters, RecordedRequest
from deploy.mock_ollama.scripts import Script, Scripts
from deploy.mock_ollama.settings import Settings

_MAX_RECORDED: Final = 20_000


class OllamaService:
    """The state behind the Ollama port of one mock."""

    def __init__(self, *, name: str, host: str, port: int, catalogue: Catalogue, settings: Settings) -> None:
        self.name = name
        self.requests: list[RecordedRequest] = []
        self.counters = Counters()
        self.engine = Engine(catalogue, settings)
        self.listener = Listener(self, host, port)
        self._scripts = Scripts()
        self._reopening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"OllamaService(name={self.name!r}, {self.listener!r}, requests={len(self.requests)})"

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.gather(self._reopening, return_exceptions=True)
        self._scripts.clear()
        self.listener.close()
        await self.listener.drop()

    def accepts(self) -> bool:
        """See Service."""
        return not self._scripts.refuses()

    def begin(self, request: RawRequest, connection_number: int) -> "OllamaExchange":
        """See Service."""
        record = RecordedRequest(
            sequence=self.counters.requests_total + 1,
            connection=connection_number,
            raw=request,
            arrived_at_s=time.monotonic(),
        )
        if len(self.requests) >= _MAX_RECORDED:
            del self.requests[: _MAX_RECORDED // 2]
        self.requests.append(record)
        return OllamaExchange(self, record)

    def add_scripts(self, scripts: Sequence[Script]) -> None:
        """Put scripts in force; a `refuse` with a duration closes the port at once."""
        self._scripts.add([one for one in scripts if not _is_timed_refusal(one)])
        for one in scripts:
            if isinstance(one.fault, Refuse) and one.fault.duration_ms:
                self._refuse_for(one.fault.duration_ms / 1000)

    def clear_scripts(self) -> None:
        """Forget all scripts."""
        self._scripts.clear()

    def forget(self) -> None:
        """Forget recorded requests and how many were in flight at most; the other counters go on."""
        self.requests.clear()
        self.counters.max_in_flight = self.counters.in_flight

    def reply(self, record: RecordedRequest) -> Performance:
        """The reply to a request, with every fault that is due applied."""
        request = record.raw
        refused = refusal(request, self.engine.settings, checks_host=self.listener.is_loopback)
        reply = refused or routes.answer(self.engine, request)
        if self._scripts:
            reply = self._scripts.apply(reply, request.path, record.model)
        if request.method == "HEAD" and reply.framing is not Framing.BARE:
            reply = replace(reply, head_only=True)
        record.status = reply.status
        return reply

    def stats(self) -> dict[str, Any]:
        """The counters as the control endpoint shows them."""
        return {
            "name": self.name,
            "in_flight": self.counters.in_flight,
            "max_in_flight": self.counters.max_in_flight,
            "connections_open": self.listener.open_connections,
            "requests_total": self.counters.requests_total,
            "closed_by_peer_total": self.counters.closed_by_peer_total,
            "loads_total": self.engine.loaded.loads_total,
        }

    def _refuse_for(self, duration_s: float) -> None:
        self.listener.close()
        self.listener.close_idle()
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = asyncio.get_running_loop().create_task(self._reopen(duration_s))

    async def _reopen(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)
        await self.listener.open()


class OllamaExchange:
    """One recorded request and its reply."""

    def __init__(self, service: OllamaService, record: RecordedRequest) -> None:
        self._service = service
        self._record = record
        self._is_inference = record.path in routes.INFERENCE_PATHS
        service.counters.begin(is_inference=self._is_inference)

    def __repr__(self) -> str:
        return f"OllamaExchange({self._record.method} {self._record.path})"

    async def performance(self) -> Performance:
        """See Exchange."""
        return self._service.reply(self._record)

    def sent(self, record_count: int) -> None:
        """See Exchange."""
        self._record.records_sent = record_count

    def ended(self, *, closed_by_peer: bool) -> None:
        """See Exchange."""
        now_s = time.monotonic()
        if closed_by_peer:
            self._record.closed_by_peer_at_s = now_s
        else:
            self._record.finished_at_s = now_s
        self._service.counters.end(is_inference=self._is_inference, closed_by_peer=closed_by_peer)


def _is_timed_refusal(script: Script) -> bool:
    return isinstance(script.fault, Refuse) and script.fault.duration_ms > 0
