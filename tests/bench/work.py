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
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

import msgspec
import uvloop

from dataplane import app
from dataplane.api.front import Front
from deploy.local.ports import free_port
from deploy.local.redis import DATAPLANE, Redis
from shared import modelname, records
from shared.records import BackendModelsRecord, BackendRecord, ConfigRecord, DiscoveredRecord, LimitsRecord, ModelRecord
from tests.bench import fast_replies
from tests.bench.cases import CASES, REPLY_NATIVE, REPLY_OPENAI, STREAM_NATIVE, STREAM_OPENAI
from tests.bench.fast_ollama import Connection, Replies
from tests.bench.load import Request
from tests.bench.profile import stage_of
from tests.fakes.published_state import PEPPER, PublishedState

AGREED = Path(__file__).with_name("work.json")
# By so much a number may grow.
TOLERANCE = 0.25
COUNTED = (REPLY_NATIVE, REPLY_OPENAI, STREAM_NATIVE, STREAM_OPENAI)
# Of so many requests the one with the least work counts: what runs in the background meets one or the other of them.
REQUESTS, WARM_UP = 7, 3
# The settlement leaves behind the reply.
_AFTERMATH_S = 0.01
_TIMEOUT_S = 10.0
_TOOL = sys.monitoring.PROFILER_ID
_MANY = 10**12
_LIMITS = LimitsRecord(
    rpm=1_000_000, tpm=10**9, concurrent=1000, budget_day=_MANY, budget_month=_MANY, budget_total=_MANY
)
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
    """Counts instructions and calls by code while it is on."""

    def __init__(self) -> None:
        self.instructions: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Counts inside of this."""
        monitoring, events = sys.monitoring, sys.monitoring.events
        monitoring.use_tool_id(_TOOL, "work")

        def instruction(code: CodeType, _offset: int) -> None:
            self.instructions[code] += 1

        def call(code: CodeType, _offset: int, _callee: object, _argument: object) -> None:
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


@dataclass(slots=True)
class _Asked:
    """One request as the server hands it to the application, and the reply."""

    body: bytes
    status: int = 0
    reply: bytes = b""
    has_body: bool = True

    async def receive(self) -> dict[str, Any]:
        """The whole body at once; then nothing, as of a client that waits."""
        if self.has_body:
            self.has_body = False
            return {"type": "http.request", "body": self.body, "more_body": False}
        return await asyncio.get_running_loop().create_future()  # never comes

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Takes the reply."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.reply += message.get("body", b"")


async def ask(application: Front, request: Request, api_key: str) -> None:
    """One request. Raises RuntimeError unless it is answered whole."""
    head, _, body = request.to_bytes("http://gateway", api_key).partition(b"\r\n\r\n")
    fields = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    path = request.path
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "scheme": "http",
        "method": "POST", "root_path": "", "path": path, "raw_path": path.encode(), "query_string": b"",
        "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 50_000), "extensions": {}, "state": {},
        "headers": [(name.lower(), value) for name, value in fields],
    }  # fmt: skip
    asked = _Asked(body)
    await application(scope, asked.receive, asked.send)  # type: ignore[arg-type] # ASGI's types are looser
    if asked.status != 200 or not asked.reply.rstrip().endswith((b"}", b"[DONE]")):
        raise RuntimeError(f"{request} was answered {asked.status}: {asked.reply[:200]!r}")


async def counted(application: Front, state: PublishedState, api_key: str) -> dict[str, Work]:
    """The work of each kind of request."""
    found = {}
    for case in (case for case in CASES if case.name in COUNTED):
        for _ in range(WARM_UP):
            await ask(application, case.request, api_key)
        await asyncio.sleep(_AFTERMATH_S)
        seen = []
        for _ in range(REQUESTS):
            state.client.config_resetstat()
            counting = Counting()
            with counting.on():
                await ask(application, case.request, api_key)
                await asyncio.sleep(_AFTERMATH_S)
            stats = state.client.info("commandstats")
            commands = sum(one["calls"] for name, one in stats.items() if name != "cmdstat_config|resetstat")
            seen.append(counting.work(commands))
        found[case.name] = min(seen, key=lambda work: work.instructions)
    return found


@contextlib.asynccontextmanager
async def running(application: Front) -> AsyncIterator[None]:
    """The application's lifespan, as the server would run it."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    started = asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "lifespan.startup.complete":
            started.set()

    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with asyncio.TaskGroup() as group:
        life = group.create_task(application(scope, messages.get, send))  # type: ignore[arg-type] # see above
        await messages.put({"type": "lifespan.startup"})
        async with asyncio.timeout(_TIMEOUT_S):
            await started.wait()
        yield
        await messages.put({"type": "lifespan.shutdown"})
        async with asyncio.timeout(_TIMEOUT_S):
            await life


async def _count(redis: Redis, state: PublishedState) -> dict[str, Work]:
    loop = asyncio.get_running_loop()
    replies = Replies(0)
    server = await loop.create_server(lambda: Connection(replies), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    api_key = _publish(state, f"http://{host}:{port}")
    os.environ |= {
        "REDIS_URL": redis.url_of(DATAPLANE), "GATEWAY_KEY_PEPPER": PEPPER, "REDIS_TIMEOUT_S": "5",
        "GATEWAY_SEALING_KEY": "A" * 43 + "=", "GATEWAY_BIND_PORT": str(free_port()), "GATEWAY_LOG_LEVEL": "warning",
        "GATEWAY_TRUSTED_PROXIES": "", "GATEWAY_DRAIN_TIMEOUT_S": "1",
    }  # fmt: skip
    application = app.create()
    async with server, running(application):
        await _ready(application, api_key)
        return await counted(application, state, api_key)


async def _ready(application: Front, api_key: str) -> None:
    """Waits until requests are served."""
    request = next(case.request for case in CASES if case.name == REPLY_NATIVE)
    deadline_s = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            await ask(application, request, api_key)
        except RuntimeError:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.05)
        else:
            return


def _publish(state: PublishedState, url: str) -> str:
    """What the control plane would have published; gives a key that may do everything within limits."""
    state.stamp()
    models = tuple(
        ModelRecord(name=f"{name}:latest", canonical=modelname.canonical(name), context_length=131_072)
        for name in fast_replies.MODELS
    )
    now_ms = int(time.time() * 1000)
    state.models(
        ConfigRecord(revision=1, backends=(BackendRecord(name="fast", url=url),)),
        DiscoveredRecord(
            revision=1,
            expires_at_ms=now_ms + 600_000,
            backends=(BackendModelsRecord(backend="fast", seen_at_ms=now_ms, models=models),),
        ),
        ttl_ms=600_000,
    )
    everything = records.GrantsRecord(allow_all_models=True)
    return state.key(tenant={"limits": _LIMITS, "grants": everything}, limits=_LIMITS)


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
