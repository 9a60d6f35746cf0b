"""How soon changes are felt: ``python -m tests.bench.revocation [--times 100] [--under redis] [--only revoke]``.

Four data planes watch two control planes and serve 100 requests a second. Again and again a key is revoked, its tenant
suspended, it is rotated, its limit is changed, or another service inserts it into the outbox. Measured is the time from
the answer (of the RPC; for the outbox, of the INSERT) to when the last request was asked that was still admitted, and
to the end of the open streams; what happens before the answer counts as 0. Admitted is what reached the backend: a
request that was admitted a moment too late may be cut as well, and then its client does not get a 200.

With ``--under`` something goes wrong meanwhile: Redis is stopped (then the answer must be PENDING), the watch is a
black hole, the connections that listen to the outbox are killed.

Ends with status 1 when a request that was asked after the answer of an RPC was admitted, when the answer says of the
publication what is not so, or when the cut takes longer than promised at the 99th percentile (500 ms; 12 s through a
black hole; 1.5 s without notifications).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from deploy.local.ports import free_port, is_free
from neuronetz.admin.v1 import key_pb2, key_pb2_grpc, limits_pb2, publication_pb2, tenant_pb2, tenant_pb2_grpc
from tests.bench.adversity import ADVERSITIES, Adversity, Place
from tests.bench.stream import Stream
from tests.e2e.accounts import request_id_of
from tests.e2e.crowd import Answer, Client, chat
from tests.e2e.harness import Gateway, MockOllama, running
from tests.fakes.tcp_proxy import TCPProxy, proxy_in_a_thread

DATA_PLANES, CONTROL_PLANES = 4, 2
REQUESTS_PER_S = 100
CLIENTS = 20
# Traffic before the change.
BEFORE_S = 0.25
CUT_TIMEOUT_S = 20.0
OPERATIONS = ADVERSITIES["nothing"].operations
# These end no streams.
SPARES_STREAMS = frozenset({"change_limit"})
# Nobody has answered that it holds everywhere.
IS_PROMISE = frozenset(OPERATIONS) - {"outbox"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One change. All times in milliseconds; ``cut_ms`` has one for each open stream."""

    is_pending: bool
    answered_ms: float
    admitted_after: int
    last_admitted_ms: float
    cut_ms: tuple[float, ...]
    asked: int


@dataclass(slots=True)
class Subject:
    """A tenant with one key that is about to change. Moments are of CLOCK_MONOTONIC."""

    tenant: str
    api_key: str
    streams: list[Stream]
    answers: list[Answer] = field(default_factory=list)
    is_pending: bool = False
    asked_s: float = 0.0
    answered_s: float = 0.0


class Admin:
    """Calls both control planes in turn, and inserts into the outbox as the console does."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], token: str, console: asyncpg.Connection[Any]) -> None:
        self._turns = itertools.cycle(channels)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._console = console

    async def subject(self, urls: Sequence[str]) -> Subject:
        tenant = f"b-{uuid.uuid4().hex[:12]}"
        generous = limits_pb2.Limits(rpm=1_000_000, tpm=1_000_000_000, concurrent=1000)
        await self._tenants.CreateTenant(
            tenant_pb2.CreateTenantRequest(
                name=tenant, limits=generous, grants=limits_pb2.Grants(allow_all_models=True)
            ),
            metadata=self._metadata,
        )
        created = await self._keys.CreateKey(
            key_pb2.CreateKeyRequest(tenant=tenant, name="bench"), metadata=self._metadata
        )
        return Subject(tenant=tenant, api_key=created.api_key, streams=[Stream(url, created.api_key) for url in urls])

    async def change(self, operation: str, subject: Subject) -> Any:
        """Does it; gives the answer of the RPC, or nothing where it is an INSERT."""
        prefix = subject.api_key[:12]
        match operation:
            case "revoke":
                request: Any = key_pb2.RevokeKeyRequest(prefix=prefix)
                return await self._keys.RevokeKey(request, metadata=self._metadata)
            case "suspend":
                request = tenant_pb2.SuspendTenantRequest(tenant=subject.tenant)
                return await self._tenants.SuspendTenant(request, metadata=self._metadata)
            case "rotate":
                request = key_pb2.RotateKeyRequest(prefix=prefix, overlap=Duration())
                return await self._keys.RotateKey(request, metadata=self._metadata)
            case "change_limit":
                request = key_pb2.UpdateKeyRequest(prefix=prefix, limits=limits_pb2.Limits(rpm=1))
                return await self._keys.UpdateKey(request, metadata=self._metadata)
            case _:
                await self._console.execute(
                    "INSERT INTO gateway.revocations (key_id, reason)"
                    " SELECT id, 'bench' FROM gateway.api_keys WHERE prefix = $1",
                    prefix,
                )
                return None

    @property
    def _keys(self) -> Any:
        return key_pb2_grpc.KeyServiceStub(next(self._turns))

    @property
    def _tenants(self) -> Any:
        return tenant_pb2_grpc.TenantServiceStub(next(self._turns))


@contextlib.asynccontextmanager
async def traffic(urls: Sequence[str], subjects: Sequence[Subject]) -> AsyncIterator[None]:
    """A hundred requests a second with the subjects' keys, over all data planes, until the end of the block."""
    stopping = asyncio.Event()
    each = max(len(urls), CLIENTS // len(subjects))
    rest_s = each * len(subjects) / REQUESTS_PER_S

    async def keep_asking(subject: Subject, number: int) -> None:
        client, loop = Client(urls[number % len(urls)], subject.api_key), asyncio.get_running_loop()
        due_s = loop.time() + rest_s * number / (each * len(subjects))
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), max(0.0, due_s - loop.time()))
                break
            due_s += rest_s
            subject.answers.append(await client.ask(chat(number, num_predict=1)))
        client.close()

    async with asyncio.TaskGroup() as tasks:
        for number in range(each * len(subjects)):
            tasks.create_task(keep_asking(subjects[number // each], number))
        try:
            yield
        finally:
            stopping.set()


async def measure(
    admin: Admin, place: Place, mock: MockOllama, operation: str, adversity: Adversity, count: int
) -> list[Sample]:
    """So many changes at once, from before to after."""
    urls = place.gateway.urls
    await asyncio.to_thread(mock.forget)
    subjects = [await admin.subject(urls) for _ in range(count)]
    streams = [stream for subject in subjects for stream in subject.streams]
    async with asyncio.TaskGroup() as tasks:
        for stream in streams:
            tasks.create_task(stream.run())
        await asyncio.gather(*(stream.started.wait() for stream in streams))
        async with traffic(urls, subjects):
            # Not in step with the traffic: else each change would fall between the same two requests.
            await asyncio.sleep(BEFORE_S + random.uniform(0, 2 / REQUESTS_PER_S) + adversity.before_s)
            struck_s = time.monotonic()
            async with adversity.strikes(place):
                await asyncio.gather(*(_change(admin, operation, subject) for subject in subjects))
                if operation not in SPARES_STREAMS:
                    async with asyncio.timeout(CUT_TIMEOUT_S):
                        await asyncio.gather(*(stream.ended.wait() for stream in streams))
                await asyncio.sleep(adversity.after_s)
            await asyncio.sleep(adversity.aftermath_s)
        spared = [stream for stream in streams if not stream.ended.is_set()]
        if (operation in SPARES_STREAMS) != (len(spared) == len(streams)):
            raise RuntimeError(f"{operation} ended {len(streams) - len(spared)} of {len(streams)} streams")
        if spared:
            await asyncio.gather(*(admin.change("revoke", subject) for subject in subjects))
    upstream = {request_id_of(request) for request in await asyncio.to_thread(mock.requests)}
    return [_sample(subject, upstream, struck_s, is_cut=not spared) for subject in subjects]


async def _change(admin: Admin, operation: str, subject: Subject) -> None:
    subject.asked_s = time.monotonic()
    answer = await admin.change(operation, subject)
    subject.answered_s = time.monotonic()
    subject.is_pending = answer is not None and answer.publication == publication_pb2.PUBLICATION_PENDING


def _sample(subject: Subject, upstream: Collection[str], struck_s: float, *, is_cut: bool) -> Sample:
    after = [answer for answer in subject.answers if answer.asked_at_s > subject.answered_s]
    admitted = [answer for answer in subject.answers if answer.status == 200 or answer.request_id in upstream]
    before = [answer for answer in subject.answers if answer.answered_at_s < struck_s]
    refused = [answer for answer in before if answer.status != 200 or answer.request_id not in upstream]
    # On a busy machine Redis may miss its deadline now and then: that is denied, and says nothing about the change.
    if not after or len(before) <= 4 * len(refused):
        raise RuntimeError(f"of {len(before)} requests before it {len(refused)} failed; {len(after)} came after it")
    return Sample(
        is_pending=subject.is_pending,
        answered_ms=1000 * (subject.answered_s - subject.asked_s),
        admitted_after=sum(answer in admitted for answer in after),
        last_admitted_ms=max(0.0, 1000 * (max(answer.asked_at_s for answer in admitted) - subject.answered_s)),
        cut_ms=tuple(max(0.0, 1000 * (stream.ended_at_s - subject.answered_s)) for stream in subject.streams if is_cut),
        asked=len(subject.answers),
    )


def distribution(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the greatest; nothing of nothing. A percentile is a value that occurred."""
    ordered = sorted(values)
    if not ordered:
        return {}
    at = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[math.ceil(len(ordered) * share) - 1], 1) for name, share in at.items()}


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """What the samples of one operation say."""
    return {
        "count": len(samples),
        "requests": sum(sample.asked for sample in samples),
        "pending": sum(sample.is_pending for sample in samples),
        "admitted_after": sum(sample.admitted_after for sample in samples),
        "answered_ms": distribution([sample.answered_ms for sample in samples]),
        "last_admitted_ms": distribution([sample.last_admitted_ms for sample in samples]),
        "cut_ms": distribution([value for sample in samples for value in sample.cut_ms]),
    }


def failures(results: dict[str, dict[str, Any]], adversity: Adversity) -> list[str]:
    """Which goals were missed."""
    missed = []
    for operation, result in results.items():
        if operation in IS_PROMISE and result["admitted_after"]:
            missed.append(f"{operation}: {result['admitted_after']} requests were admitted after the answer")
        if operation in IS_PROMISE and result["pending"] != (result["count"] if adversity.is_pending else 0):
            missed.append(f"{operation}: {result['pending']} of {result['count']} answers said PENDING")
        if result["cut_ms"] and result["cut_ms"]["p99"] > adversity.cut_goal_ms:
            missed.append(f"{operation}: streams were cut {result['cut_ms']['p99']} ms after the answer at the 99th")
    return missed


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results for people."""
    columns = ("answered_ms", "last_admitted_ms", "cut_ms")
    head = f"{'':14}{'times':>6}{'pending':>8}{'requests':>9}{'admitted':>9}  "
    lines = [
        head + "  ".join(f"{column:>22}" for column in columns),
        f"{'after':>46}  " + "  ".join(f"{'p50 / p99 / max':>22}" for _ in columns),
    ]
    for operation, result in results.items():
        cells = (" / ".join(f"{value:.0f}" for value in result[column].values()) or "-" for column in columns)
        lines.append(
            f"{operation:14}{result['count']:6}{result['pending']:8}{result['requests']:9}"
            f"{result['admitted_after']:9}  " + "  ".join(f"{cell:>22}" for cell in cells)
        )
    return "\n".join(lines)


async def run(
    gateway: Gateway, proxies: Sequence[TCPProxy], mock: MockOllama, adversity: Adversity, arguments: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """The operations in turn, so that what else the machine does meets them alike."""
    operations = (arguments.only,) if arguments.only else adversity.operations
    samples: dict[str, list[Sample]] = {operation: [] for operation in operations}
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address))
            for address in gateway.description["admin_addresses"]
        ]
        postgres, console = [await asyncpg.connect(gateway.description["postgres_dsn"], ssl=False) for _ in range(2)]
        stack.push_async_callback(console.close)
        stack.push_async_callback(postgres.close)
        await console.execute("SET ROLE console")
        admin = Admin(channels, gateway.description["admin_token"], console)
        place = Place(gateway=gateway, postgres=postgres, proxies=proxies)
        for done in range(0, arguments.times, adversity.at_once):
            count = min(adversity.at_once, arguments.times - done)
            for operation in operations:
                await _until(lambda: _watched(gateway))
                samples[operation] += await measure(admin, place, mock, operation, adversity, count)
            if (done + count) % 10 == 0:
                _write(sys.stderr, f"{done + count} of {arguments.times}")
    return {operation: summary(of_one) for operation, of_one in samples.items()}


async def _watched(gateway: Gateway) -> bool:
    return len(gateway.redis.hkeys("gateway:replicas")) == DATA_PLANES


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():
            await asyncio.sleep(0.05)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="How soon changes of keys are felt by traffic and open streams.")
    parser.add_argument("--times", type=int, default=100, help="how often each operation is done (100)")
    parser.add_argument("--under", choices=ADVERSITIES, default="nothing", help="what goes wrong meanwhile (nothing)")
    parser.add_argument("--only", choices=OPERATIONS, help="one operation instead of all that are promised then")
    parser.add_argument("--json", action="store_true", help="results as JSON")
    arguments = parser.parse_args()
    adversity = ADVERSITIES[arguments.under]
    if arguments.only and arguments.only not in adversity.operations:
        parser.error(f"--under {arguments.under} is about {', '.join(adversity.operations)}")
    options = [f"--control-replicas={CONTROL_PLANES}", "--set=MODEL_DISCOVERY_CACHE_TTL_S=900"]
    with contextlib.ExitStack() as stack:
        proxies = []
        if adversity.is_proxied:
            # The control planes take ports in a row.
            port = next(first for first in iter(free_port, 0) if is_free(first + 1))
            proxies = [stack.enter_context(proxy_in_a_thread(port + number)) for number in range(CONTROL_PLANES)]
            addresses = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
            options += [f"--admin-port={port}", f"--set=GATEWAY_CONTROL_ADDRESSES={addresses}"]
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mock = stack.enter_context(running(MockOllama("bench")))
        gateway = stack.enter_context(running(Gateway(state, [mock], *options, replicas=DATA_PLANES)))
        # Streams last longer than any measurement; requests ask for one token.
        mock.settings(tokens=3000, record_delay_ms=20)
        gateway.tenant("warm")
        gateway.wait_for_models(gateway.key("warm"), "llama3.2:latest")
        results = asyncio.run(run(gateway, proxies, mock, adversity, arguments))
    _write(sys.stdout, json.dumps(results, indent=2) if arguments.json else table(results))
    missed = failures(results, adversity)
    for line in missed:
        _write(sys.stderr, line)
    return 1 if missed else 0


def _write(where: Any, line: str) -> None:
    where.write(f"{line}\n")
    where.flush()


if __name__ == "__main__":
    sys.exit(main())
