"""The cases that are measured: what is asked, over how many connections, and of whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.bench.fast_replies import BLOCK, BURST, PACE_S, PACED, RECORDS, REPLY
from tests.bench.load import Request
from tests.bench.targets import DIRECT, LITELLM, NGINX, OURS, OURS_TWO

NATIVE_PATH, OPENAI_PATH = "/api/chat", "/v1/chat/completions"
_ALWAYS = (DIRECT, NGINX, OURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of request. ``records`` is what a reply is divided by for the cost of a record; 0 for whole replies."""

    name: str
    request: Request
    connections: tuple[int, ...]
    targets: tuple[str, ...] = _ALWAYS
    records: int = 0
    # Requests begin evenly over so long, as those of many clients do, instead of all at once.
    spread_s: float = 0.0
    # Asked of further targets over this many connections only.
    also: tuple[str, ...] = ()
    also_connections: int = 32
    # Nothing but the target takes time: see ``processes.quiet``.
    is_quiet: bool = False


_EVERY, _USUAL = (1, 16, 32, 128), (32,)

REPLY_NATIVE, REPLY_OPENAI = "reply, native", "reply, OpenAI"
REPLY_QUIET = "reply, native, cores kept awake"
STREAM_NATIVE, STREAM_OPENAI = "stream of 64, native", "stream of 64, OpenAI"
PACED_NATIVE, PACED_OPENAI = "paced stream, native", "paced stream, OpenAI"
_FURTHER = (OURS_TWO, LITELLM)

_REPLY = Request(path=NATIVE_PATH, model=REPLY, is_streamed=False)
CASES: Sequence[Case] = (
    Case(
        name=REPLY_NATIVE,
        request=_REPLY,
        connections=_EVERY,
        also=(OURS_TWO,),
    ),
    Case(name=REPLY_QUIET, request=_REPLY, connections=(1,), is_quiet=True),
    Case(
        name=REPLY_OPENAI,
        request=Request(path=OPENAI_PATH, model=REPLY, is_streamed=False),
        connections=_EVERY,
        also=_FURTHER,
    ),
    Case(
        name=STREAM_NATIVE,
        request=Request(path=NATIVE_PATH, model=BURST, is_streamed=True),
        connections=_EVERY,
        records=RECORDS,
        also=(OURS_TWO,),
    ),
    Case(
        name=STREAM_OPENAI,
        request=Request(path=OPENAI_PATH, model=BURST, is_streamed=True),
        connections=_EVERY,
        records=RECORDS,
        also=_FURTHER,
    ),
    Case(
        name=PACED_NATIVE,
        request=Request(path=NATIVE_PATH, model=PACED, is_streamed=True),
        connections=(32, 128),
        records=RECORDS,
        spread_s=RECORDS * PACE_S,
    ),
    Case(
        name=PACED_OPENAI,
        request=Request(path=OPENAI_PATH, model=PACED, is_streamed=True),
        connections=(128,),
        records=RECORDS,
        spread_s=RECORDS * PACE_S,
    ),
    Case(
        name="stream of 64 in one write, native",
        request=Request(path=NATIVE_PATH, model=BLOCK, is_streamed=True),
        connections=_USUAL,
        records=RECORDS,
    ),
    Case(
        name="stream of 64 in one write, OpenAI",
        request=Request(path=OPENAI_PATH, model=BLOCK, is_streamed=True),
        connections=_USUAL,
        records=RECORDS,
    ),
    # The gateway asks backends for a stream also where its client wants one reply.
    Case(
        name="reply of 64 records, native",
        request=Request(path=NATIVE_PATH, model=BURST, is_streamed=False),
        connections=_USUAL,
        records=RECORDS,
    ),
)


def quick() -> Sequence[Case]:
    """What the goals are about, and nothing else."""
    wanted = {
        REPLY_NATIVE: (1, 32),
        REPLY_QUIET: (1,),
        REPLY_OPENAI: (32,),
        STREAM_NATIVE: (32,),
        STREAM_OPENAI: (32,),
        PACED_NATIVE: (128,),
    }
    return tuple(replace(case, connections=wanted[case.name]) for case in CASES if case.name in wanted)
