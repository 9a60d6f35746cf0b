"""What may be wrong with one body: the finding that fails the fuzz, and how a body came out of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dataplane import policy
from dataplane.api import ollama, openai, problems
from dataplane.api.dialect import Caps, Endpoint, Parsed
from dataplane.errors import ForbiddenError, GatewayError, RequestError, StreamBrokenError
from dataplane.values import InferenceRequest
from deploy.mock_ollama.go_json import GoJSONError, parse
from shared.modelname import ModelNameError, canonical
from shared.records import ModelPolicyRecord
from tests.fuzz import bounds, decisions, go_requests, go_writing, shapes
from tests.fuzz.sending import SPELLING, URL, Sender, Sent
from tests.fuzz.vocabulary import CANARY

ENDPOINTS: dict[str, Endpoint] = {endpoint.name: endpoint for endpoint in (*ollama.ENDPOINTS, *openai.ENDPOINTS)}
CAPS = Caps(max_num_predict=decisions.MAX_NUM_PREDICT)
ACCEPTED = 200
# CPU time of this thread from which on a body is looked at closely: several times what the nastiest should take.
PARSE_S = 0.005
PARSE_S_PER_BYTE = 0.5e-6
SLOW_RATIO = 6
MAX_MESSAGE_CHARACTERS = 300
MAX_BY_POLICY = 64
POLICY = ModelPolicyRecord(
    model=canonical("llama3"),
    num_ctx=8192,
    keep_alive="30m",
    max_num_predict=MAX_BY_POLICY,
    allowed_options=shapes.ALLOWED_BY_POLICY,
)
_HEADERS = {b"host", b"content-type", b"user-agent", b"accept", b"content-length", b"x-request-id"}
# Where Ollama may refuse what we send: a schema that is free here and has a type there.
_SCHEMA_FAULTS = ("ToolFunctionParameters", "ToolProperty", "tool properties", "Go value of type")
_MARKUP_BYTES_PER_TOOL = 32


class Finding(Exception):  # noqa: N818 - what the fuzz is for
    """Something that must not be; ``kind`` is a word, the text says what exactly."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a body came out: the status, the seconds of CPU that parsing took, and whether Go reads the body at all."""

    status: int
    parse_s: float
    compared: bool = False


async def judge(path: str, body: bytes, sender: Sender) -> Outcome:
    """Parses a body as the endpoint does and judges everything that follows. Raises ``Finding``."""
    parsed, error, parse_s = _timed(path, body)
    if error is not None:
        return Outcome(_refused(path, error), parse_s)
    assert parsed is not None
    try:
        sent = await sender.send(parsed.request)
    except Exception as fault:
        raise Finding("exception", f"while sending: {fault!r}") from fault
    _check_rendering(parsed)
    _check_head(sent, parsed.request)
    document = _check_sent(sent, parsed.request, shapes.SENT)
    _check_bound(document, parsed.request)
    await _check_policy(parsed.request, sender)
    return Outcome(ACCEPTED, parse_s, _check_client(path, body, sent, parsed.request))


def _timed(path: str, body: bytes) -> tuple[Parsed | None, GatewayError | None, float]:
    started = time.thread_time()
    parsed, error = _parsed(path, body)
    parse_s = time.thread_time() - started
    if parse_s > PARSE_S + len(body) * PARSE_S_PER_BYTE:
        parse_s = _at_best(path, body)
    return parsed, error, parse_s


def _at_best(path: str, body: bytes) -> float:
    """What the body takes at its best; a finding if that is many times what one as long, expensive but plain, takes.

    Time alone says little: a busy machine charges a thread for what others do to its caches.
    """
    plain = b'{"a":[' + b"[],1," * (len(body) // 5) + b"1]}"
    least_s, plain_s = float("inf"), float("inf")
    for _ in range(5):
        started = time.thread_time()
        _parsed(path, body)
        between = time.thread_time()
        _parsed(path, plain)
        least_s, plain_s = min(least_s, between - started), min(plain_s, time.thread_time() - between)
    if least_s > SLOW_RATIO * plain_s:
        raise Finding("slow", f"{len(body)} bytes take {least_s * 1000:.1f} ms, plain ones {plain_s * 1000:.1f}")
    return least_s


def _parsed(path: str, body: bytes) -> tuple[Parsed | None, GatewayError | None]:
    try:
        return ENDPOINTS[path].parse(body, CAPS), None
    except (RequestError, ForbiddenError) as error:
        return None, error
    except Exception as error:
        raise Finding("exception", repr(error)) from error


def _refused(path: str, error: GatewayError) -> int:
    if isinstance(error, RequestError):
        words = f"{error.message} {error.param}"
        if CANARY.lower() in words.lower() or not words.isascii() or len(words) > MAX_MESSAGE_CHARACTERS:
            raise Finding("echo", f"the refusal repeats the client: {words!r}")
    problem = problems.render(error, ENDPOINTS[path].dialect, "req-0")
    msgspec.json.decode(problem.body)
    if not 400 <= problem.status < 500:
        raise Finding("status", f"a refusal with {problem.status}")
    return problem.status


def _check_rendering(parsed: Parsed) -> None:
    rendering = parsed.rendering("req-0", 0)
    if rendering.stream is not parsed.request.stream:
        raise Finding("stream", "the rendering streams otherwise than the request")
    rendering.broken(StreamBrokenError())
    if any(CANARY in name for name in parsed.request.ignored):
        raise Finding("echo", f"the list of ignored fields repeats the client: {parsed.request.ignored}")


def _check_head(sent: Sent, request: InferenceRequest) -> None:
    names = [name for name, _ in sent.headers]
    if set(names) != _HEADERS or len(names) != len(_HEADERS):
        raise Finding("headers", f"{names}")
    if sent.method != "POST" or sent.url != URL + request.operation.value:
        raise Finding("target", f"{sent.method} {sent.url}")
    if dict(sent.headers)[b"content-length"] != b"%d" % len(sent.body):
        raise Finding("headers", "the length is not that of the body")


def _check_sent(sent: Sent, request: InferenceRequest, allowed: Mapping[str, shapes.Shape]) -> Any:
    """What is sent: one JSON object whose keys are on a list, with the values that only the gateway decides."""
    path = request.operation.value
    try:
        plain = msgspec.json.decode(sent.body)
        document: Any = parse(sent.body)
    except (msgspec.DecodeError, UnicodeDecodeError, GoJSONError) as fault:
        raise Finding("sent", f"what is sent is no JSON: {fault}") from fault
    if shapes.repeated(document):
        raise Finding("sent", "a key is sent twice")
    for where in shapes.foreign(document, allowed[path]):
        raise Finding("sent", f"{where} is sent")
    for excess in bounds.exceeded(plain, CAPS):
        raise Finding("sent", excess)
    refusal = go_requests.refusal(path, sent.body)
    if refusal is not None and not any(word in refusal for word in _SCHEMA_FAULTS):
        raise Finding("sent", f"Ollama cannot read what is sent: {refusal}")
    if document.get("model") != SPELLING:
        raise Finding("sent", f"the model is {document.get('model')!r}")
    if path == "/api/embed":
        return document
    if document.get("stream") is not True:
        raise Finding("sent", f"stream is {document.get('stream')!r}")
    granted = document.get("options", {}).get("num_predict")
    if type(granted) is not int or not 1 <= granted <= CAPS.max_num_predict or granted != request.num_predict:
        raise Finding("sent", f"num_predict is {granted!r}, granted {request.num_predict}")
    return document


async def _check_policy(request: InferenceRequest, sender: Sender) -> None:
    """With a policy, what it decides is sent, and of what it does not allow nothing."""
    try:
        decided = policy.applied(request, POLICY)
        sent = await sender.send(decided)
    except Exception as fault:
        raise Finding("exception", f"with a policy: {fault!r}") from fault
    document = _check_sent(sent, decided, shapes.SENT_BY_POLICY)
    if document.get("keep_alive") != POLICY.keep_alive or document["options"].get("num_ctx") != POLICY.num_ctx:
        raise Finding("policy", f"{document.get('keep_alive')!r} and {document['options']} are sent")
    if request.num_predict and decided.num_predict != min(request.num_predict, MAX_BY_POLICY):
        raise Finding("policy", f"{decided.num_predict} tokens are granted instead of {request.num_predict}")


def _check_bound(document: Any, request: InferenceRequest) -> None:
    """The bytes that are reserved are at least those that Ollama puts into a prompt of what was sent."""
    texts = [document.get("prompt"), document.get("suffix"), document.get("system"), *document.get("input", ())]
    size = sum(len(text.encode()) for text in texts if text)
    tools = document.get("tools") or []
    size += max(
        sum(len(write(tool).encode()) + _MARKUP_BYTES_PER_TOOL for tool in tools)
        for write in (go_writing.written, go_writing.spaced, go_writing.indented)
    )
    for message in document.get("messages", ()):
        texts = [message.get(name) for name in ("role", "content", "thinking", "tool_name", "tool_call_id")]
        size += sum(len(text.encode()) for text in texts if text)
        for call in message.get("tool_calls", ()):
            size += len(call["function"]["name"].encode()) + len(call.get("id", "").encode())
            size += len(go_writing.spaced(call["function"]["arguments"]).encode())
    if size > request.prompt_bytes:
        raise Finding("bound", f"{request.prompt_bytes} bytes are reserved for a prompt of {size}")


def _check_client(path: str, body: bytes, sent: Sent, request: InferenceRequest) -> bool:
    """What the client wrote has one meaning, and the gateway took it; says whether Go would have read the body."""
    try:
        msgspec.json.decode(body)
        document = parse(body)
    except (ValueError, RecursionError) as fault:
        raise Finding("accepted", f"a body that is no JSON to another reader: {fault}") from fault
    if shapes.repeated(document):
        raise Finding("accepted", "a body that repeats a key")
    if shapes.depth(document) > 64:
        raise Finding("accepted", f"a body {shapes.depth(document)} levels deep")
    for where in shapes.folded(document, shapes.WRITTEN[path]):
        raise Finding("accepted", f"a body with {where}, which Go reads as another field")
    fields = go_requests.read(path, body)
    if fields is None:
        return False
    _check_model(fields, request)
    if path not in ("/api/embed", "/api/embeddings", "/v1/embeddings"):
        stream = fields.get("stream", path.startswith("/api/"))
        if request.stream is not stream:
            raise Finding("differs", f"stream is {stream} to Go and {request.stream} to the gateway")
    upstream = request.operation.value
    seen = go_requests.read(upstream, sent.body)
    if seen is None:
        raise Finding("sent", "Go refuses what is sent")
    try:
        expected = decisions.decided(path, fields)
    except decisions.Refusable as fault:
        raise Finding("accepted", str(fault)) from fault
    actual = decisions.found(upstream, seen)
    for name in expected.keys() | actual.keys():
        if expected.get(name) != actual.get(name):
            raise Finding("differs", f"{name} is {actual.get(name)!r:.200}, not {expected.get(name)!r:.200}")
    return True


def _check_model(fields: dict[str, Any], request: InferenceRequest) -> None:
    name = fields.get("model", "")
    try:
        seen = canonical(name)
    except ModelNameError:
        raise Finding("differs", f"the model is {name!r} to Go") from None
    if seen != request.canonical or name != request.model:
        raise Finding("differs", f"the model is {name!r} to Go and {request.model!r} to the gateway")
