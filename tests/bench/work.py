"""How much work a request is, counted instead of timed: ``python -m tests.bench.work [--update] [--json FILE]``.

One worker's application runs in this process, with every control on, in front of a real Redis and the fast mock, and
answers a few requests of each kind, one after the other. Counted are the bytecode instructions and the calls that it
takes, everything of ours and of the libraries in Python, and the commands that Redis is given, those within scripts
too. A busy machine changes none of these numbers.

``work.json`` has the numbers that were agreed on; the suite fails when one has grown by a quarter. Where more work is
meant, ``--update`` writes what it is now, and the commit says why. What C does within one call is not seen; the ratios
of ``tests.bench.compare`` are for that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType
from urllib.parse import urlsplit

import msgspec
import uvloop

from dataplane.api.front import Front
from dataplane.quota import fences, link
from dataplane.state import watcher
from deploy.local.redis import DATAPLANE, Redis
from shared import keyspace
from tests.bench.application import ask, serving
from tests.bench.cases import CASES, REPLY_NATIVE, REPLY_OPENAI, STREAM_NATIVE, STREAM_OPENAI
from tests.bench.fast_ollama import Connection, Replies
from tests.bench.load import Request
from tests.bench.profile import stage_of
from tests.fakes.published_state import PublishedState

AGREED = Path(__file__).with_name("work.json")
# By so much a number may grow.
TOLERANCE = 0.25
COUNTED = (REPLY_NATIVE, REPLY_OPENAI, STREAM_NATIVE, STREAM_OPENAI)
# Of so many requests the third in order counts: what runs in the background meets one or the other and only adds to it,
# and one may be missing what was counted for another.
REQUESTS, WARM_UP = 9, 3
_THIRD = 2
_STEP_S = 0.001
_NEVER_S = 3600.0
_TIMEOUT_S = 10.0
_TOOL = sys.monitoring.PROFILER_ID
_TESTS = str(Path(__file__).parents[1])
_ELSEWHERE = "libraries"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one request of a kind is."""

    instructions: int
    calls: int
    redis_commands: int
    # Instructions by stage, the most first.
    stages: dict[str, int]


def grown(agreed: Mapping[str, Work], now: Mapping[str, Work]) -> list[str]:
    """What has grown by more than it may, in words; a kind of request that is new or gone has to be agreed on, too."""
    if agreed.keys() != now.keys():
        return [f"{case}: only in one of the two" for case in sorted(agreed.keys() ^ now.keys())]
    wrong = []
    for case, before in agreed.items():
        after = now[case]
        for name in ("instructions", "calls", "redis_commands"):
            was, has = getattr(before, name), getattr(after, name)
            if has > was * (1 + TOLERANCE):
                growth = {stage: count - before.stages.get(stage, 0) for stage, count in after.stages.items()}
                most = max(growth, key=lambda stage: growth[stage])
                wrong.append(f"{case}: {has} {name} a request, {has / was - 1:.0%} more than {was}; most in: {most}")
    return wrong


class Counting:
    """Counts instructions and calls of one thread by code while it is on."""

    def __init__(self) -> None:
        self.instructions: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Counts inside of this."""
        monitoring, events = sys.monitoring, sys.monitoring.events
        monitoring.use_tool_id(_TOOL, "work")

        here = threading.get_ident()

        def instruction(code: CodeType, _offset: int) -> None:
            if threading.get_ident() == here:
                self.instructions[code] += 1

        def call(code: CodeType, _offset: int, _callee: object, _argument: object) -> None:
            if threading.get_ident() == here:
                self.calls[code] += 1

        monitoring.register_callback(_TOOL, events.INSTRUCTION, instruction)
        monitoring.register_callback(_TOOL, events.CALL, call)
        monitoring.set_events(_TOOL, events.INSTRUCTION | events.CALL)
        try:
            yield
        finally:
            monitoring.set_events(_TOOL, 0)
            monitoring.free_tool_id(_TOOL)

    def work(self, redis_commands: int) -> Work:
        """What was counted, without what the tests themselves do."""
        stages: Counter[str] = Counter()
        for code, count in self.instructions.items():
            if not code.co_filename.startswith(_TESTS):
                stages[stage_of([code.co_filename], _ELSEWHERE)] += count
        calls = sum(count for code, count in self.calls.items() if not code.co_filename.startswith(_TESTS))
        return Work(
            instructions=stages.total(),
            calls=calls,
            redis_commands=redis_commands,
            stages=dict(stages.most_common()),
        )

    def __repr__(self) -> str:
        return f"Counting({self.instructions.total()} instructions)"


async def counted(application: Front, state: PublishedState, api_key: str) -> dict[str, Work]:
    """The work of each kind of request."""
    found = {}
    with contextlib.closing(_Settlements(state)) as settlements:
        for case in (case for case in CASES if case.name in COUNTED):
            for _ in range(WARM_UP):
                await _settled(application, case.request, api_key, settlements)
            seen = []
            for _ in range(REQUESTS):
                state.client.config_resetstat()
                counting = Counting()
                with counting.on():
                    looks = await _settled(application, case.request, api_key, settlements)
                stats = state.client.info("commandstats")
                commands = sum(one["calls"] for name, one in stats.items() if name != "cmdstat_config|resetstat")
                seen.append(counting.work(commands - looks))
            found[case.name] = _typical(seen)
    return found


def _typical(seen: Sequence[Work]) -> Work:
    """The third in order, by instructions and by commands in Redis."""
    typical = sorted(seen, key=lambda work: work.instructions)[_THIRD]
    return msgspec.structs.replace(typical, redis_commands=sorted(work.redis_commands for work in seen)[_THIRD])


class _Settlements:
    """How many events wait in the usage streams; looked at by code of the tests alone, which is not counted."""

    def __init__(self, state: PublishedState) -> None:
        address = urlsplit(state.url)
        self._socket = socket.create_connection((str(address.hostname), int(address.port or 0)), _TIMEOUT_S)
        self._replies = self._socket.makefile("rb")
        self._asked(f"AUTH {address.password}")
        self._look = "\r\n".join(f"XLEN {keyspace.usage(shard)}" for shard in keyspace.SHARDS)

    def count(self) -> int:
        """One look: a command for each shard."""
        self._socket.sendall(f"{self._look}\r\n".encode())
        return sum(int(self._replies.readline()[1:]) for _ in keyspace.SHARDS)

    def close(self) -> None:
        """Ends the connection."""
        self._replies.close()
        self._socket.close()

    def _asked(self, command: str) -> None:
        self._socket.sendall(f"{command}\r\n".encode())
        self._replies.readline()


async def _moment() -> None:
    """As ``asyncio.sleep``, without the library's instructions."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.call_later(_STEP_S, over.set_result, None)
    await over


async def _settled(application: Front, request: Request, api_key: str, settlements: _Settlements) -> int:
    """One request, and its settlement, which leaves behind the reply; gives the commands that looking has taken."""
    before, looks = settlements.count(), 1
    await ask(application, request, api_key)
    deadline_s = time.monotonic() + _TIMEOUT_S
    while settlements.count() == before:
        looks += 1
        if time.monotonic() > deadline_s:
            raise RuntimeError("a request was not settled")
        await _moment()
    # The worker is told of it a moment later.
    await _moment()
    return (looks + 1) * len(keyspace.SHARDS)


async def _count(redis: Redis, state: PublishedState) -> dict[str, Work]:
    replies = Replies(0)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(replies), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with server, serving(redis.url_of(DATAPLANE), state, f"http://{host}:{port}") as (application, api_key):
        # What the worker looks at every second would meet many requests while they are counted, and others not.
        fences.INTERVAL_S = fences.EAGER_INTERVAL_S = _NEVER_S
        watcher.INTERVAL_S = watcher.EAGER_INTERVAL_S = _NEVER_S
        link.EXAMINE_INTERVAL_S = _NEVER_S
        return await counted(application, state, api_key)


def count() -> dict[str, Work]:
    """Counts, with a Redis of its own."""
    with tempfile.TemporaryDirectory() as folder, Redis(Path(folder)) as redis:
        state = PublishedState(redis.url)
        try:
            return uvloop.run(_count(redis, state))
        finally:
            state.close()


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """``work.json``. Other versions of Python have other instructions."""

    python: str
    work: dict[str, Work]

    @property
    def is_for_this_python(self) -> bool:
        """Whether its numbers can be compared with those of this interpreter."""
        return self.python == _python()


def agreement() -> Agreement:
    """What was agreed on."""
    return msgspec.json.decode(AGREED.read_bytes(), type=Agreement)


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def main() -> int:
    """The command; 1 when something has grown too much."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.work", description=__doc__)
    parser.add_argument("--update", action="store_true", help=f"write {AGREED.name}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="only write the numbers to this file")
    options = parser.parse_args()
    now = Agreement(python=_python(), work=count())
    written = msgspec.json.format(msgspec.json.encode(now), indent=1) + b"\n"
    if options.update:
        AGREED.write_bytes(written)
    if options.json:
        options.json.write_bytes(written)
        return 0
    for case, work in now.work.items():
        sys.stdout.write(
            f"{case}: {work.instructions} instructions, {work.calls} calls, {work.redis_commands} in Redis\n"
        )
        sys.stdout.writelines(f"{count:10} {stage}\n" for stage, count in work.stages.items())
    wrong = grown(agreement().work, now.work)
    sys.stdout.writelines(f"{one}\n" for one in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
