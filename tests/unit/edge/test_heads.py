"""What the head of a request must be like."""

from typing import Any, cast

import pytest
from litestar.types import HTTPScope

from dataplane.api import heads
from dataplane.errors import HeadersTooLargeError, MalformedRequestError, TargetTooLongError

HOST = (b"host", b"gateway.test")


def scope(*headers: tuple[bytes, bytes], path: bytes = b"/", query: bytes = b"", version: str = "1.1") -> HTTPScope:
    fields: dict[str, Any] = {
        "headers": headers, "raw_path": path, "query_string": query, "http_version": version,
    }  # fmt: skip
    return cast("HTTPScope", fields)


def check(scope: HTTPScope) -> None:
    heads.check(scope, heads.fields(scope))


def test_only_what_means_something_is_read_of_a_head_in_its_order():
    found = heads.fields(
        scope(HOST, (b"x-forwarded-for", b"a"), (b"cookie", b"b"), (b"x-forwarded-for", b"c"), (b"x-real-ip", b"d"))
    )
    assert found == {b"host": [b"gateway.test"], b"x-forwarded-for": [b"a", b"c"]}


@pytest.mark.parametrize(
    "host",
    [b"a", b"gateway.test", b"gateway.test:8080", b"a_b.internal", b"127.0.0.1", b"[::1]", b"[2001:db8::1]:65535"],
)
def test_a_name_or_an_address_is_a_host(host):
    check(scope((b"host", host)))


@pytest.mark.parametrize(
    "host",
    [
        b"", b" ", b"a b", b"a/b", b"a\\b", b"a?b", b"a#b", b"user@a", b"a,b", b"a:", b"a:x", b"a:65536", b"a:123456",
        b"a%2fb", b"[::1", b"::1", b"[::1]x", b"\xff", b".", b"-", b"a" * 254, b"http://a",
    ],
)  # fmt: skip
def test_anything_else_is_none(host):
    with pytest.raises(MalformedRequestError, match="Host"):
        check(scope((b"host", host)))


def test_exactly_one_host_is_given():
    with pytest.raises(MalformedRequestError, match="must be given once"):
        check(scope(HOST, HOST))
    with pytest.raises(MalformedRequestError, match="must be given"):
        check(scope())


def test_only_http_1_0_needs_no_host():
    check(scope(version="1"))
    check(scope((b"host", b""), version="1"))
    with pytest.raises(MalformedRequestError):
        check(scope((b"host", b"a b"), version="1"))


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked", b"CHUNKED"])
def test_chunked_is_the_one_transfer_coding(coding):
    check(scope(HOST, (b"transfer-encoding", coding)))


@pytest.mark.parametrize(
    "coding", [b"", b"gzip, chunked", b"chunked, chunked", b"identity", b"chunked;a=b", b"xchunked"]
)
def test_every_other_transfer_coding_is_refused(coding):
    with pytest.raises(MalformedRequestError, match="Transfer-Encoding"):
        check(scope(HOST, (b"transfer-encoding", coding)))


def test_a_transfer_coding_stands_once():
    with pytest.raises(MalformedRequestError, match="once"):
        check(scope(HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")))


def test_the_bounds_are_exact():
    others = [(b"x-%d" % number, b"a") for number in range(heads.MAX_HEADERS - 1)]
    check(scope(HOST, *others))
    with pytest.raises(HeadersTooLargeError):
        check(scope(HOST, *others, (b"x", b"a")))
    check(scope(HOST, path=b"/".ljust(heads.MAX_TARGET_BYTES, b"a")))
    check(scope(HOST, query=b"a" * (heads.MAX_TARGET_BYTES - len("/?"))))
    for too_long in (
        scope(HOST, path=b"/".ljust(heads.MAX_TARGET_BYTES + 1, b"a")),
        scope(HOST, query=b"a" * (heads.MAX_TARGET_BYTES - 1)),
    ):
        with pytest.raises(TargetTooLongError):
            check(too_long)
