import json
from collections.abc import Iterator

import pytest

from dataplane import errors
from dataplane.api import problems
from dataplane.errors import AuthenticationError, CannotCheckError, ForbiddenError, GatewayError, LimitExceededError
from dataplane.values import Dialect

LIMITS = ("requests", "tokens", "concurrency", "budget_day", "budget_month", "budget_total")
EXAMPLES: list[GatewayError] = [
    *(AuthenticationError(failure) for failure in ("missing", "checksum", "revoked")),
    errors.TooManyFailuresError(retry_after_s=30),
    errors.RequestError("model is required", param="model"),
    errors.MalformedRequestError("Host must be given once"),
    errors.TargetTooLongError("canary"),
    errors.HeadersTooLargeError("canary"),
    errors.IncompleteBodyError("canary"),
    errors.BodyTooLargeError("canary"),
    errors.BodyTimeoutError("canary"),
    errors.UnsupportedMediaError("canary"),
    ForbiddenError("model_not_allowed"),
    errors.UnknownRouteError("canary"),
    *(LimitExceededError(limit, retry_after_s=7) for limit in LIMITS),  # type: ignore[arg-type]  # the literals above
    LimitExceededError("budget_day", retry_after_s=3600, exhausted=True),
    CannotCheckError("canary"),
    errors.NotReadyError("canary"),
    errors.LeaseLostError("canary"),
    errors.KeyRefusedError("canary"),
    errors.UpstreamError("canary"),
    errors.UpstreamTimeoutError("canary"),
    errors.StreamBrokenError("canary"),
    errors.ClientClosedError("canary"),
]


def descendants(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for child in kind.__subclasses__():
        yield child
        yield from descendants(child)


def headers_of(problem: problems.Problem) -> dict[bytes, bytes]:
    return dict(problem.headers)


def test_every_error_has_its_row_and_its_example():
    listed = {kind for kind in descendants(GatewayError) if kind.__module__ == "dataplane.errors"}
    assert listed == set(problems.TABLE)
    assert listed == {type(error) for error in EXAMPLES}


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("error", [GatewayError("canary"), RuntimeError("canary"), KeyError("canary")])
def test_what_is_not_listed_is_a_generic_500(dialect, error):
    problem = problems.render(error, dialect, "r1")
    assert problem.status == problems.status_of(error) == 500
    assert b"internal error" in problem.body
    assert b"canary" not in problem.body


def test_an_unlisted_subclass_is_a_generic_500_too():
    class SecretError(errors.RequestError):
        pass

    assert problems.render(SecretError("canary"), Dialect.OPENAI, "r1").status == 500
    assert b"canary" not in problems.render(SecretError("canary"), Dialect.OPENAI, "r1").body


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_replies_have_the_shape_of_their_dialect_and_say_nothing_of_the_inside(error):
    native = problems.render(error, Dialect.OLLAMA, "r1")
    assert set(json.loads(native.body)) == {"error", "code"}
    assert isinstance(json.loads(native.body)["error"], str)
    openai = problems.render(error, Dialect.OPENAI, "r1")
    shape = json.loads(openai.body)["error"]
    assert set(shape) == {"message", "type", "param", "code"}
    assert native.status == openai.status == problems.status_of(error)
    for problem in (native, openai):
        assert b"canary" not in problem.body
        assert headers_of(problem)[b"x-request-id"] == b"r1"
        assert headers_of(problem)[b"content-length"] == b"%d" % len(problem.body)
        assert headers_of(problem)[b"content-type"].startswith(b"application/json")
        assert (b"retry-after" in headers_of(problem)) == (problem.status in (429, 502, 503, 504))


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (AuthenticationError("expired"), 401, "authentication_error", "invalid_api_key"),
        (errors.KeyRefusedError("refused"), 401, "authentication_error", "invalid_api_key"),
        (errors.RequestError("x"), 400, "invalid_request_error", "invalid_request"),
        (errors.BodyTimeoutError("x"), 408, "invalid_request_error", "body_timeout"),
        (errors.BodyTooLargeError("x"), 413, "invalid_request_error", "body_too_large"),
        (errors.UnsupportedMediaError("x"), 415, "invalid_request_error", "unsupported_media_type"),
        (ForbiddenError("endpoint_blocked"), 403, "permission_error", "forbidden"),
        (errors.UnknownRouteError(), 404, "not_found_error", "not_found"),
        (LimitExceededError("tokens", retry_after_s=1), 429, "rate_limit_error", "tokens_limit_exceeded"),
        (
            LimitExceededError("budget_day", retry_after_s=1, exhausted=True),
            429,
            "insufficient_quota",
            "insufficient_quota",
        ),
        (CannotCheckError(), 503, "api_error", "cannot_check"),
        (errors.UpstreamError(), 502, "api_error", "upstream_unavailable"),
        (errors.UpstreamTimeoutError(), 504, "api_error", "upstream_timeout"),
        (errors.ClientClosedError(), 499, "api_error", "client_closed"),
    ],
)
def test_statuses_types_and_codes_are_stable(error, status, kind, code):
    problem = problems.render(error, Dialect.OPENAI, "r1")
    shape = json.loads(problem.body)["error"]
    assert (problem.status, shape["type"], shape["code"]) == (status, kind, code)


@pytest.mark.parametrize("dialect", Dialect)
def test_every_refused_key_reads_the_same(dialect):
    failures = ("missing", "malformed", "checksum", "unknown", "mismatch", "revoked", "suspended", "expired")
    replies = [problems.render(AuthenticationError(failure), dialect, "r1") for failure in failures]  # type: ignore[arg-type]
    assert all(reply == replies[0] for reply in replies)
    assert headers_of(replies[0])[b"www-authenticate"] == b"Bearer"


@pytest.mark.parametrize("dialect", Dialect)
def test_a_model_and_a_route_that_are_not_permitted_read_the_same(dialect):
    model, route = (
        problems.render(ForbiddenError(reason), dialect, "r1") for reason in ("model_not_allowed", "endpoint_blocked")
    )
    assert model == route


def test_an_exhausted_budget_says_not_to_retry():
    exhausted = headers_of(
        problems.render(LimitExceededError("budget_day", retry_after_s=9, exhausted=True), Dialect.OPENAI, "r1")
    )
    assert (exhausted[b"retry-after"], exhausted[b"x-should-retry"]) == (b"9", b"false")
    reserved = headers_of(problems.render(LimitExceededError("budget_day", retry_after_s=0), Dialect.OPENAI, "r1"))
    assert reserved[b"retry-after"] == b"1"
    assert b"x-should-retry" not in reserved


def test_the_header_of_the_request_id_can_be_named():
    problem = problems.render(CannotCheckError(), Dialect.OLLAMA, "r1", request_id_header=b"x-trace")
    assert headers_of(problem)[b"x-trace"] == b"r1"


@pytest.mark.parametrize("error", [*EXAMPLES, RuntimeError("canary")], ids=lambda error: type(error).__name__)
def test_a_broken_stream_ends_with_one_event(error):
    line = problems.broken(error, Dialect.OLLAMA, "r1")
    assert line.count(b"\n") == 1
    assert set(json.loads(line)) == {"error", "code", "request_id"}
    event = problems.broken(error, Dialect.OPENAI, "r1")
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    assert set(json.loads(event[6:])["error"]) == {"message", "type", "param", "code"}
    for written in (line, event):
        assert b"canary" not in written
        assert b"DONE" not in written
        assert b'"done"' not in written


def test_an_interrupted_upstream_is_called_that():
    assert json.loads(problems.broken(errors.StreamBrokenError("10.0.0.1 reset"), Dialect.OLLAMA, "r1")) == {
        "error": "upstream interrupted",
        "code": "upstream_interrupted",
        "request_id": "r1",
    }
