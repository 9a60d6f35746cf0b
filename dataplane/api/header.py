"""Headers that mean something between a client and us: their names, and what they say.

Names are bytes in lower case, as ASGI has them. ``REPLY`` and ``REQUEST`` are what ``docs/API.md`` says of them; a
test looks for a header that is written elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

AUTHORIZATION = b"authorization"
CACHE_CONTROL = b"cache-control"
CONNECTION = b"connection"
CONTENT_ENCODING = b"content-encoding"
CONTENT_LENGTH = b"content-length"
CONTENT_TYPE = b"content-type"
EXPECT = b"expect"
FORWARDED_FOR = b"x-forwarded-for"
HOST = b"host"
IGNORED = b"x-gateway-ignored"
NUM_PREDICT = b"x-gateway-num-predict"
RATE_LIMIT = b"x-ratelimit-limit-"
RATE_REMAINING = b"x-ratelimit-remaining-"
RATE_RESET = b"x-ratelimit-reset-"
# Unless GATEWAY_REQUEST_ID_HEADER names another one.
REQUEST_ID = b"x-request-id"
RETRY_AFTER = b"retry-after"
SERVER = b"server"
SHOULD_RETRY = b"x-should-retry"
TRACE_PARENT = b"traceparent"
TRANSFER_ENCODING = b"transfer-encoding"
WWW_AUTHENTICATE = b"www-authenticate"

# What a rate is counted in; the last part of its headers' names.
REQUESTS = b"requests"
TOKENS = b"tokens"


class Said(NamedTuple):
    """On which replies a header is, and what it says."""

    when: str
    what: str


_LIMITED = "200 and 429 of inference"
REPLY: Mapping[bytes, Said] = {
    REQUEST_ID: Said(
        "every reply",
        "The id of this request: 32 hexadecimal digits, also in the operator's logs and audit rows. "
        "`GATEWAY_REQUEST_ID_HEADER` may give it another name",
    ),
    RATE_LIMIT + REQUESTS: Said(_LIMITED, "Requests per minute, of the key or its tenant: whichever has less left"),
    RATE_REMAINING + REQUESTS: Said(_LIMITED, "How many are left, with this one counted"),
    RATE_RESET + REQUESTS: Said(_LIMITED, "Seconds until all of them are back (`60s`)"),
    RATE_LIMIT + TOKENS: Said(_LIMITED, "Tokens per minute, likewise"),
    RATE_REMAINING + TOKENS: Said(_LIMITED, "How many are left, with the estimate of this request counted"),
    RATE_RESET + TOKENS: Said(_LIMITED, "Seconds until all of them are back"),
    RETRY_AFTER: Said("429, 502, 503, 504", "Whole seconds to wait, at least 1"),
    SHOULD_RETRY: Said("some 429", "`false`: a repetition cannot succeed before `Retry-After`, if ever"),
    NUM_PREDICT: Said(
        "200 of inference", "The output was lowered, by a cap or to what a budget has left: to so many tokens"
    ),
    IGNORED: Said(
        "200 of inference",
        "Fields of the request that were dropped, by name; of those that nobody knows only how many "
        "(`num_ctx, unknown=2`)",
    ),
    CONTENT_TYPE: Said("every reply", "`application/x-ndjson` or `text/event-stream` for streams, else JSON"),
    CONTENT_LENGTH: Said("whole replies", "Streams are chunked instead"),
    CACHE_CONTROL: Said("200 of inference, health", "`no-store`"),
    CONNECTION: Said("some errors", "`close`: the body was not read to its end, so the connection ends"),
    WWW_AUTHENTICATE: Said("401", "`Bearer`"),
    SERVER: Said("every reply", "`neuronetz-gateway`"),
}

REQUEST: Mapping[bytes, str] = {
    AUTHORIZATION: "`Bearer nz_…`, exactly once. A key has no other place: no parameter, no cookie",
    CONTENT_TYPE: "`application/json`. Without one, and with `text/plain` or form types, the body is read as JSON too",
    CONTENT_LENGTH: "A body that says that it is too long is refused before it is read",
    CONTENT_ENCODING: "Nothing but `identity`: no body is unpacked",
    TRANSFER_ENCODING: "Nothing but `chunked`",
    EXPECT: "`100-continue`: the body is asked for once everything else about the request is in order",
    HOST: "A name or an address, once",
    FORWARDED_FOR: "Believed of `GATEWAY_TRUSTED_PROXIES` alone",
    TRACE_PARENT: "Where the request is traced, its span links to the one that is named here (W3C Trace Context)",
}
