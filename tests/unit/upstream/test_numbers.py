"""Numbers of a backend that would take long to read, against the same bytes of honest ones, in one run."""

import contextlib
import time
from collections.abc import Callable

import pytest

from dataplane.api import answers
from dataplane.native import Raw
from dataplane.upstream import numbers
from dataplane.upstream.faults import ReplyError
from dataplane.upstream.framing import LineSplitter
from dataplane.upstream.reply import StreamReply, decode_embed_reply

SIZE_BYTES = 64 * 1024
# The worst that is let through, a double that lies exactly between two, takes 6 times as long; ``1e300`` took 450.
MOST = 40
HOSTILE = ["1e300", "1E+300", "1e0023", "12e-328", "9007199254740993.0", "0." + "1" * 800, "9" * 400]


def full_of(number: str) -> bytes:
    return b",".join([number.encode()] * (SIZE_BYTES // (len(number) + 1)))


def embedded(body: bytes) -> None:
    with contextlib.suppress(ReplyError):
        decode_embed_reply(b'{"embeddings":[[%b]]}' % body, inputs=1)


def recorded(body: bytes) -> None:
    """As a count of a record, which may be anything."""
    reply = StreamReply.__new__(StreamReply)
    reply.fault, reply._is_chat, reply._splitter = None, False, LineSplitter()
    reply._take(b'{"response":"","eval_count":[%b]}\n' % body, [])


def called(body: bytes) -> None:
    answers.arguments(Raw(b'{"a":[%b]}' % body))


def weighed(body: bytes) -> None:
    logprob = b'{"token":"","logprob":%b},'
    answers.logprobs(Raw(b"[" + b"".join(logprob % number for number in body.split(b",")) + b"]"))


def cost_s(read: Callable[[bytes], None], body: bytes) -> float:
    times = []
    for _ in range(3):
        began_s = time.thread_time()
        read(body)
        times.append(time.thread_time() - began_s)
    return min(times)


@pytest.mark.parametrize("read", [embedded, recorded, called, weighed])
@pytest.mark.parametrize("number", HOSTILE, ids=lambda number: number[:8])
def test_no_number_of_a_backend_takes_long(read, number):
    assert cost_s(read, full_of(number)) < MOST * cost_s(read, full_of("-0.012345678"))


def test_an_embedding_of_such_numbers_is_refused_and_one_of_small_numbers_is_not():
    with pytest.raises(ReplyError, match="no embedding"):
        decode_embed_reply(b'{"embeddings":[[%b]]}' % full_of("1e300"), inputs=1)
    small = decode_embed_reply(b'{"model":"e5","embeddings":[[%b]]}' % full_of("1.5e-07"), inputs=1)
    assert set(small.embeddings[0]) == {1.5e-07}


@pytest.mark.parametrize("text", ["1e400", "-1e400"])
def test_a_number_beyond_a_double_is_a_fault(text):
    with pytest.raises(ValueError, match="too large"):
        numbers.finite(text)
    with pytest.raises(ReplyError):
        decode_embed_reply(b'{"embeddings":[[%b]]}' % text.encode(), inputs=1)
    assert answers.arguments(Raw(b'{"a":%b}' % text.encode())) == answers.EMPTY_OBJECT
