"""What a mock remembers of the requests that it got, and what it counts."""

import base64
from dataclasses import dataclass
from typing import Any

from deploy.mock_ollama.engine import BODIES
from deploy.mock_ollama.framing import RawRequest
from deploy.mock_ollama.go_json import GoJSONError, parse
from deploy.mock_ollama.go_types import decode


@dataclass(slots=True, kw_only=True)
class RecordedRequest:
    """One request as it came, and how its reply went; times are monotonic seconds of the machine."""

    sequence: int
    connection: int
    raw: RawRequest
    arrived_at_s: float
    finished_at_s: float | None = None
    closed_by_peer_at_s: float | None = None
    records_sent: int = 0
    status: int | None = None

    @property
    def method(self) -> str:
        """The method as it came."""
        return self.raw.method

    @property
    def path(self) -> str:
        """The target without its query, not decoded."""
        return self.raw.path

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers in order, with the case that they came in (Latin-1)."""
        return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw.headers)

    @property
    def is_over(self) -> bool:
        """Whether the reply was finished or the peer went away."""
        return self.finished_at_s is not None or self.closed_by_peer_at_s is not None

    @property
    def json(self) -> Any:
        """The body as Go reads it into the route's struct; raises GoJSONError for what Go refuses."""
        struct = BODIES.get(self.path)
        return decode(self.raw.body, struct) if struct else parse(self.raw.body)

    @property
    def model(self) -> str | None:
        """The model that the body names, if there is one."""
        try:
            body = self.json
        except GoJSONError:
            return None
        model = body.get("model") if isinstance(body, dict) else None
        return model if isinstance(model, str) else None

    def told(self) -> dict[str, Any]:
        """The request as the control endpoint shows it."""
        try:
            body, fault = _shown(self.json), None
        except GoJSONError as error:
            body, fault = None, str(error)
        return {
            "sequence": self.sequence,
            "connection": self.connection,
            "method": self.method,
            "target": self.raw.target,
            "path": self.path,
            "headers": self.headers,
            "head_base64": base64.b64encode(self.raw.head).decode(),
            "raw_body_base64": base64.b64encode(self.raw.raw_body).decode(),
            "body_base64": base64.b64encode(self.raw.body).decode(),
            "json": body,
            "json_error": fault,
            "arrived_at_s": self.arrived_at_s,
            "finished_at_s": self.finished_at_s,
            "closed_by_peer_at_s": self.closed_by_peer_at_s,
            "records_sent": self.records_sent,
            "status": self.status,
        }


@dataclass(slots=True)
class Counters:
    """What a mock counts; `in_flight` are inference requests being answered now."""

    in_flight: int = 0
    max_in_flight: int = 0
    requests_total: int = 0
    closed_by_peer_total: int = 0

    def begin(self, *, is_inference: bool) -> None:
        """A request has arrived."""
        self.requests_total += 1
        if is_inference:
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def end(self, *, is_inference: bool, closed_by_peer: bool) -> None:
        """A request is over."""
        self.in_flight -= is_inference
        self.closed_by_peer_total += closed_by_peer


def _shown(value: Any) -> Any:
    """A document that JSON can carry: bytes as base64, infinity (keep_alive for ever) as -1."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return -1 if value == float("inf") else value
