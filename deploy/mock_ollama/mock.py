"""One mock Ollama with its two ports, usable inside a test: `async with MockOllama(name="A") as mock: …`."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from deploy.mock_ollama.catalogue import DEFAULT_MODELS, Catalogue, Model, named
from deploy.mock_ollama.connection import Listener
from deploy.mock_ollama.control import Control
from deploy.mock_ollama.recorded import RecordedRequest
from deploy.mock_ollama.scripts import Fault, Match, Script
from deploy.mock_ollama.service import OllamaService
from deploy.mock_ollama.settings import Settings

_POLL_S: Final = 0.005


class MockOllama:
    """A scriptable Ollama server."""

    def __init__(
        self,
        *,
        name: str = "mock",
        host: str = "127.0.0.1",
        port: int = 0,
        control_port: int = 0,
        models: Sequence[str | Model] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._service = OllamaService(
            name=name,
            host=host,
            port=port,
            catalogue=Catalogue(DEFAULT_MODELS if models is None else named(models)),
            settings=settings or Settings(),
        )
        self._control = Listener(Control(self._service), host, control_port)

    def __repr__(self) -> str:
        return f"MockOllama({self._service!r})"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def name(self) -> str:
        """The name given to this mock."""
        return self._service.name

    @property
    def url(self) -> str:
        """Base URL of the Ollama API."""
        return self._service.listener.url

    @property
    def control_url(self) -> str:
        """Base URL of the control endpoint."""
        return self._control.url

    @property
    def requests(self) -> list[RecordedRequest]:
        """The recorded requests in order of arrival (the last 10 000 at least); clear the list to forget them."""
        return self._service.requests

    async def start(self) -> None:
        """Listen on both ports; raises OSError when one is taken."""
        await self._service.listener.open()
        await self._control.open()

    async def stop(self) -> None:
        """Stop listening, reset what is open and wait until nothing is left."""
        self._control.close()
        await self._service.close()
        await self._control.drop()

    def script(
        self,
        *faults: Fault,
        path: str | None = None,
        model: str | None = None,
        nth: int = 1,
        times: int | None = 1,
    ) -> None:
        """Put faults in force for the requests that match; all of them apply to the same requests, in this order."""
        match = Match(path=path, model=model, nth=nth)
        self._service.add_scripts([Script(fault=fault, match=match, times=times) for fault in faults])

    def clear_scripts(self) -> None:
        """Forget all scripts."""
        self._service.clear_scripts()

    def set_models(self, models: Sequence[str | Model]) -> None:
        """Replace the catalogue."""
        self._service.engine.change(catalogue=Catalogue(named(models)))

    def set_settings(self, **values: object) -> None:
        """Replace the settings that are named; raises msgspec.ValidationError."""
        self._service.engine.change(settings=self._service.engine.settings.changed(**values))

    def stats(self) -> dict[str, Any]:
        """What `GET /stats` tells."""
        return self._service.stats()

    async def until(self, holds: Callable[["MockOllama"], bool], timeout_s: float = 5.0) -> None:
        """Wait until something holds, for tests; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not holds(self):  # noqa: ASYNC110 - many conditions, none worth an event of its own
                await asyncio.sleep(_POLL_S)
