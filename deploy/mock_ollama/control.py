"""The control endpoint: JSON over HTTP on a port of its own, to script a mock and to read what it recorded."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from deploy.mock_ollama.catalogue import Catalogue, Model, named
from deploy.mock_ollama.framing import RawRequest
from deploy.mock_ollama.performance import Performance, whole
from deploy.mock_ollama.scripts import FAULT_KINDS, read_scripts
from deploy.mock_ollama.service import OllamaService

_DONE: Final = whole(b'{"ok":true}')


class _Since(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests are asked for: those with a greater `sequence`."""

    after: int


class Control:
    """Answers the control requests of one OllamaService."""

    def __init__(self, service: OllamaService) -> None:
        self._service = service
        self._routes: dict[tuple[str, str], Callable[[bytes], Performance]] = {
            ("POST", "/script"): self._add_scripts,
            ("DELETE", "/script"): self._clear_scripts,
            ("GET", "/requests"): self._tell_requests,
            ("DELETE", "/requests"): self._forget_requests,
            ("GET", "/stats"): lambda _: _json(self._service.stats()),
            ("GET", "/faults"): lambda _: _json({kind: fault.__doc__ for kind, fault in FAULT_KINDS.items()}),
            ("PUT", "/models"): self._set_models,
            ("GET", "/settings"): lambda _: _json(self._service.engine.settings),
            ("PUT", "/settings"): self._set_settings,
        }

    def __repr__(self) -> str:
        return f"Control({self._service!r})"

    def accepts(self) -> bool:
        """See Service."""
        return True

    def begin(self, request: RawRequest, connection_number: int) -> "ControlExchange":  # noqa: ARG002 - the interface
        """See Service."""
        return ControlExchange(self, request)

    def answer(self, request: RawRequest) -> Performance:
        """The reply to one control request; bad JSON and unknown names are 400 with the reason."""
        route = self._routes.get((request.method, request.path))
        if route is None:
            known = sorted(f"{method} {path}" for method, path in self._routes)
            return _json({"error": "unknown control route", "routes": known}, status=404)
        try:
            return route(request.body)
        except msgspec.MsgspecError as error:
            return _json({"error": str(error)}, status=400)

    def _add_scripts(self, body: bytes) -> Performance:
        self._service.add_scripts(read_scripts(body))
        return _DONE

    def _clear_scripts(self, _body: bytes) -> Performance:
        self._service.clear_scripts()
        return _DONE

    def _tell_requests(self, body: bytes) -> Performance:
        after = msgspec.json.decode(body, type=_Since).after if body else 0
        return _json({"requests": [record.told() for record in self._service.requests if record.sequence > after]})

    def _forget_requests(self, _body: bytes) -> Performance:
        self._service.forget()
        return _DONE

    def _set_models(self, body: bytes) -> Performance:
        models = msgspec.json.decode(body, type=list[str | Model])
        self._service.engine.change(catalogue=Catalogue(named(models)))
        return _DONE

    def _set_settings(self, body: bytes) -> Performance:
        changed = self._service.engine.settings.changed(**msgspec.json.decode(body, type=dict[str, Any]))
        self._service.engine.change(settings=changed)
        return _json(changed)


class ControlExchange:
    """One control request."""

    def __init__(self, control: Control, request: RawRequest) -> None:
        self._control = control
        self._request = request

    def __repr__(self) -> str:
        return f"ControlExchange({self._request.method} {self._request.path})"

    async def performance(self) -> Performance:
        """See Exchange."""
        return self._control.answer(self._request)

    def sent(self, record_count: int) -> None:
        """See Exchange: nothing is counted."""

    def ended(self, *, closed_by_peer: bool) -> None:
        """See Exchange: nothing is recorded."""


def _json(value: object, *, status: int = 200) -> Performance:
    return whole(msgspec.json.encode(value), status=status)
