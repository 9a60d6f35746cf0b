"""Traces as a collector gets them: one over both planes and Postgres, begun by nobody but us."""

from __future__ import annotations

import secrets

import httpx
import msgspec
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from shared import keyspace, records
from shared.records import KeyRecord
from tests.canaries import PROMPT
from tests.e2e.harness import bearer, eventually
from tests.e2e.observability.conftest import OTLP_HEADER, OTLP_SECRET
from tests.fakes.collector import Collector, attributes

DATA, CONTROL = "neuronetz-gateway-dataplane", "neuronetz-gateway-controlplane"
Sent = tuple[str, Span]
CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": PROMPT}]}


def asked(gateway, key: str, *, body: dict | None = None, **headers: str) -> str:
    """One request; gives its id."""
    reply = httpx.post(
        f"{gateway.url}/api/chat", json=body or CHAT, headers=bearer(key) | headers, timeout=20, trust_env=False
    )
    return reply.headers["x-request-id"]


def trace_of(collector: Collector, request_id: str, *names: str) -> dict[str, Sent]:
    """The spans of a request by name, each with its service, once all of these names are there."""

    def spans() -> dict[str, Sent]:
        root = next((s for _, s in collector.spans if attributes(s).get("gateway.request_id") == request_id), None)
        if root is None:
            return {}
        found = {span.name: (service, span) for service, span in collector.spans if span.trace_id == root.trace_id}
        return found if set(names) <= found.keys() else {}

    return eventually(spans, what=f"spans {names} of {request_id}")


def test_a_request_is_a_trace_of_what_it_waited_for(watched, collector):
    watched.tenant("traced")
    key = watched.key("traced")
    request_id = asked(watched, key)
    spans = trace_of(collector, request_id, "POST /api/chat", "authenticate", "admit", "upstream", "settle")
    root = spans["POST /api/chat"][1]
    for name in ("authenticate", "admit", "upstream", "settle"):
        assert spans[name][1].parent_span_id == root.span_id
    order = [spans[name][1].start_time_unix_nano for name in ("authenticate", "admit", "upstream", "settle")]
    assert order == sorted(order)
    said = attributes(root)
    assert said["http.response.status_code"] == 200
    assert said["gateway.tenant"] == "traced"
    assert said["gateway.key_prefix"] == key[:12]
    assert said["gen_ai.request.model"] == "llama3.2:latest"
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.usage.output_tokens"] == 24
    assert attributes(spans["upstream"][1])["gateway.backend"] == "first"
    assert [event.name for event in spans["upstream"][1].events] == ["first record"]


def test_a_clients_trace_is_linked_and_never_joined(watched, collector):
    trace_id, span_id = secrets.token_bytes(16), secrets.token_bytes(8)
    request_id = asked(watched, watched.first_key, traceparent=f"00-{trace_id.hex()}-{span_id.hex()}-01")
    root = trace_of(collector, request_id, "POST /api/chat")["POST /api/chat"][1]
    assert root.trace_id != trace_id
    assert root.parent_span_id == b""
    assert [(link.trace_id, link.span_id) for link in root.links] == [(trace_id, span_id)]
    for nonsense in ("00-zz", "0" * 5000, f"00-{'0' * 32}-{'0' * 16}-01"):
        request_id = asked(watched, watched.first_key, traceparent=nonsense)
        root = trace_of(collector, request_id, "POST /api/chat")["POST /api/chat"][1]
        assert len(root.links) == 0


def test_backends_hear_nothing_of_traces(watched, mock):
    asked(watched, watched.first_key, traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    [request] = mock.requests("/api/chat")
    assert not [name for name, _ in request["headers"] if name.lower() in ("traceparent", "tracestate", "baggage")]


def test_a_failed_attempt_and_a_refusal_say_so_without_words_of_others(watched, collector, mock):
    mock.script({"fault": {"kind": "status", "status": 500}, "match": {"path": "/api/chat"}, "times": 1})
    request_id = asked(watched, watched.first_key)
    attempts = [span for _, span in collector_spans(collector, request_id, "upstream", count=2)]
    assert [span.status.code for span in attempts] == [2, 0]
    assert attributes(attempts[0])["error.type"] == "AttemptError"
    request_id = asked(watched, watched.first_key, body=CHAT | {"model": "nowhere"})
    root = trace_of(collector, request_id, "POST /api/chat")["POST /api/chat"][1]
    assert attributes(root)["gateway.refusal"] == "model_not_allowed"
    assert b"nowhere" not in b"".join(collector.raw)


def collector_spans(collector: Collector, request_id: str, name: str, *, count: int):
    def spans() -> list:
        root = next((s for _, s in collector.spans if attributes(s).get("gateway.request_id") == request_id), None)
        found = [
            (service, span)
            for service, span in collector.spans
            if root is not None and span.trace_id == root.trace_id and span.name == name
        ]
        return found if len(found) == count else []

    return sorted(eventually(spans, what=f"{count} spans {name}"), key=lambda one: one[1].start_time_unix_nano)


def test_a_trace_goes_on_in_the_control_plane_and_in_postgres(watched, collector):
    watched.tenant("unproven")
    key = watched.key("unproven")
    # As after a loss of Redis: the record is there, but what the key is compared with is not.
    name = keyspace.key_record(key[:12])
    raw = watched.redis.get(name)
    record = records.decode(records.decoder(KeyRecord), raw.encode())
    watched.redis.set(name, records.encode(msgspec.structs.replace(record, digest=None)))
    request_id = asked(watched, key)
    verify = "neuronetz.state.v1.KeyVerifier/Verify"
    spans = trace_of(collector, request_id, "authenticate", "verify", verify, "postgres SELECT")
    assert spans["verify"][1].parent_span_id == spans["authenticate"][1].span_id
    assert spans[verify][0] == CONTROL
    assert spans[verify][1].parent_span_id == spans["verify"][1].span_id
    assert spans["postgres SELECT"][1].parent_span_id == spans[verify][1].span_id
    assert attributes(spans["postgres SELECT"][1]) == {"db.system.name": "postgresql", "db.operation.name": "SELECT"}


def test_an_operators_call_is_a_trace_too(watched, collector):
    watched.tenant("called")
    method = "neuronetz.admin.v1.TenantService/CreateTenant"
    span = eventually(lambda: next((s for _, s in collector.spans if s.name == method), None), what="the span")
    assert attributes(span)["gateway.caller"] == "admin"


def test_metrics_are_pushed_under_their_names_and_those_of_the_conventions(watched, collector):
    for _ in range(3):
        asked(watched, watched.first_key)

    def pushed() -> bool:
        metric = collector.metrics.get((DATA, "gen_ai.server.request.duration"))
        return metric is not None and sum(point.count for point in metric.histogram.data_points) >= 3

    eventually(pushed, what="the duration of three requests")
    metrics = collector.metrics
    [point] = [
        point
        for point in metrics[DATA, "gen_ai.server.request.duration"].histogram.data_points
        if "error.type" not in attributes(point) and attributes(point)["gen_ai.operation.name"] == "chat"
    ]
    assert attributes(point)["gen_ai.request.model"] == "llama3.2:latest"
    assert attributes(point)["gen_ai.provider.name"] == "ollama"
    assert sum(point.bucket_counts) == point.count
    assert metrics[DATA, "gen_ai.server.request.duration"].unit == "s"
    assert metrics[DATA, "gen_ai.client.token.usage"].unit == "{token}"
    assert metrics[DATA, "gateway_requests"].sum.is_monotonic
    assert metrics[DATA, "gateway_requests_in_flight"].WhichOneof("data") == "gauge"
    assert metrics[CONTROL, "gateway_ledger_write_seconds"].histogram.data_points[0].count > 0
    assert {headers[OTLP_HEADER] for headers in collector.headers} == {OTLP_SECRET}
