"""Every metric of the data plane. A new one is added here.

Labels are bounded whatever clients send: tenants are those that exist (``none`` before one is known), models those
that were discovered and granted (``other`` before that), statuses those of ``dataplane.api.problems``. Keys are never
a label. Counting belongs to the worker's event loop and costs a few additions; everything else happens when somebody
looks (``figures``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dataplane.figures import Counter, Figure, Histogram, Kind, Labels, Merge, Reading
from dataplane.values import Arrival, Principal
from shared.records import UsageEvent

# What a request without a tenant is called, and one whose model was not admitted.
NO_TENANT = "none"
NO_MODEL = "other"

DURATION_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
FIRST_TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
SPEED_BUCKETS = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0)
REDIS_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 1.0)

# Of OpenTelemetry's conventions for generative AI; names with a dot leave by OTLP only.
_GEN_AI = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
_PROVIDER = "ollama"
_TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))
_LATENCY_BUCKETS_S = tuple(0.01 * 2**power for power in range(14))
_PER_TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_OK_STATUS = 200


class Metrics:
    """What one worker process counts. ``gen_ai`` adds the instruments of OpenTelemetry's conventions."""

    def __init__(self, *, gen_ai: bool = False) -> None:
        by_model = ("tenant", "model")
        self._requests = Counter("gateway_requests", "Requests answered", (*by_model, "status"))
        self._tokens = Counter("gateway_tokens", "Tokens charged", (*by_model, "direction"))
        self._durations = Histogram(
            "gateway_request_duration_seconds",
            "From the first byte of a request to the last of its reply",
            by_model,
            bounds=DURATION_BUCKETS_S,
        )
        self._first_tokens = Histogram(
            "gateway_time_to_first_token_seconds",
            "From admission to the first record of the reply",
            ("model",),
            bounds=FIRST_TOKEN_BUCKETS_S,
        )
        self._speeds = Histogram(
            "gateway_tokens_per_second",
            "Output of completed requests, from their first record on",
            ("model",),
            bounds=SPEED_BUCKETS,
        )
        self._admissions = Histogram(
            "gateway_admission_redis_seconds", "How long admissions waited for Redis", bounds=REDIS_BUCKETS_S
        )
        self._anomalies = Counter("gateway_usage_anomalies", "Counts of a backend that cannot be true", ("kind",))
        self._instruments: list[Counter | Histogram | Reading] = [
            self._requests, self._tokens, self._durations, self._first_tokens, self._speeds, self._admissions,
            self._anomalies,
        ]  # fmt: skip
        self._gen_ai = GenAI() if gen_ai else None

    def request_ended(
        self, *, arrival: Arrival, principal: Principal | None, event: UsageEvent | None, status: int, duration_s: float
    ) -> None:
        """See ``ports.Observer``."""
        tenant = NO_TENANT if principal is None else principal.tenant_name
        model = (event.model if event is not None else "") or NO_MODEL
        self._requests.add((tenant, model, str(status)))
        self._durations.observe(duration_s, (tenant, model))
        if event is None:
            return
        if event.prompt_tokens:
            self._tokens.add((tenant, model, "prompt"), event.prompt_tokens)
        if event.completion_tokens:
            self._tokens.add((tenant, model, "completion"), event.completion_tokens)
        if event.ttft_ms is not None:
            self._first_tokens.observe(event.ttft_ms / 1000, (model,))
            generating_s = duration_s - event.ttft_ms / 1000
            # One token takes no time of its own: it was the first.
            if status == _OK_STATUS and event.completion_tokens > 1 and generating_s > 0:
                self._speeds.observe((event.completion_tokens - 1) / generating_s, (model,))
        if self._gen_ai is not None and event.model:
            self._gen_ai.request_ended(arrival.endpoint, event, status, duration_s)

    def admission_waited(self, seconds: float) -> None:
        """An admission got its answer from Redis after so long."""
        self._admissions.observe(seconds)

    def anomaly_seen(self, kind: str) -> None:
        """Counts a count that was not believed: ``prompt_count``, ``output_count``."""
        self._anomalies.add((kind,))

    def read(
        self,
        name: str,
        help_text: str,
        read: Callable[[], float | Mapping[Labels, float]],
        *,
        labels: Labels = (),
        kind: Kind = "gauge",
        merge: Merge = "sum",
    ) -> None:
        """Adds numbers that are kept elsewhere and read when somebody looks."""
        self._instruments.append(Reading(name, help_text, read, labels=labels, kind=kind, merge=merge))

    def figures(self) -> list[Figure]:
        """Everything as it is now."""
        instruments = [*self._instruments, *(() if self._gen_ai is None else self._gen_ai.instruments)]
        return [instrument.figure() for instrument in instruments]

    def __repr__(self) -> str:
        return f"Metrics({len(self._instruments)} instruments)"


class GenAI:
    """The instruments that OpenTelemetry's semantic conventions name for servers of generative AI."""

    def __init__(self) -> None:
        self._durations = Histogram(
            "gen_ai.server.request.duration", "Generative AI server request duration",
            (*_GEN_AI, "error.type"), bounds=_LATENCY_BUCKETS_S,
        )  # fmt: skip
        self._first_tokens = Histogram(
            "gen_ai.server.time_to_first_token", "Time to generate the first token of successful responses",
            _GEN_AI, bounds=_LATENCY_BUCKETS_S,
        )  # fmt: skip
        self._per_token = Histogram(
            "gen_ai.server.time_per_output_token", "Time per output token after the first of successful responses",
            _GEN_AI, bounds=_PER_TOKEN_BUCKETS_S,
        )  # fmt: skip
        self._tokens = Histogram(
            "gen_ai.client.token.usage", "Number of input and output tokens used",
            (*_GEN_AI, "gen_ai.token.type"), bounds=_TOKEN_BUCKETS,
        )  # fmt: skip
        self.instruments = (self._durations, self._first_tokens, self._per_token, self._tokens)

    def request_ended(self, endpoint: str, event: UsageEvent, status: int, duration_s: float) -> None:
        """Counts one admitted request."""
        labels = (operation_of(endpoint), _PROVIDER, event.model)
        is_ok = status == _OK_STATUS
        # An empty value is no attribute: the convention has the error's type only where there was one.
        self._durations.observe(duration_s, (*labels, "" if is_ok else str(status)))
        if event.prompt_tokens:
            self._tokens.observe(event.prompt_tokens, (*labels, "input"))
        if event.completion_tokens:
            self._tokens.observe(event.completion_tokens, (*labels, "output"))
        if not is_ok or event.ttft_ms is None:
            return
        first_s = event.ttft_ms / 1000
        self._first_tokens.observe(first_s, labels)
        if event.completion_tokens > 1:
            self._per_token.observe(max(0.0, duration_s - first_s) / (event.completion_tokens - 1), labels)

    def __repr__(self) -> str:
        return "GenAI()"


def operation_of(endpoint: str) -> str:
    """What OpenTelemetry calls what an endpoint does."""
    if "embed" in endpoint:
        return "embeddings"
    return "chat" if "chat" in endpoint else "text_completion"
