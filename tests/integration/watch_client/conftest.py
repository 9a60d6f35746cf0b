"""A worker's state with a watch, and the Redis below it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence

import grpc
import pytest

from dataplane.interrupt import Interrupt
from dataplane.quota.calls import Calls
from dataplane.quota.leases import RedisLeases
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.renewal import Renewal
from dataplane.quota.settlements import Settlements
from dataplane.state.changes import Changes
from dataplane.state.control import ControlPlanes
from dataplane.state.keys import RedisKeys
from dataplane.state.models import CurrentModels
from dataplane.state.store import READINESS_CHECK, StateStore
from dataplane.state.verifier import ControlPlaneVerifier
from dataplane.state.watch import Identity, Watch
from dataplane.state.watcher import RedisWatcher
from dataplane.values import Grant, Limits, Principal, RequestId
from deploy.local.redis import Redis
from shared.clock import SystemClock
from shared.keyspace import LeaseId
from shared.lifecycle import Readiness
from shared.modelname import canonical
from shared.records import BackendModelsRecord, BackendRecord, ConfigRecord, DiscoveredRecord, ModelRecord
from shared.redaction import Secret
from shared.sealing import Sealer
from tests.fakes.published_state import PEPPER, PublishedState
from tests.fakes.redis_link import running_link
from tests.fakes.state_server import TOKEN, StateServer, serving, snapshot
from tests.integration.quota.caller import CRASHED, DEMAND

# Three times as long without a word is the end of a stream: no busy machine is silent for that long. Tests that are
# about silence have less.
HEARTBEAT_S = 1.0
IDENTITY = Identity(worker_id="w-1", address="127.0.0.1:8080", version="1.2.3", pid=4711)


def config(revision: int, *backends: str) -> ConfigRecord:
    made = tuple(BackendRecord(name=name, url=f"http://{name}:11434") for name in backends or ("one",))
    return ConfigRecord(revision=revision, backends=made)


def discovered(revision: int, *names: str) -> DiscoveredRecord:
    models = tuple(ModelRecord(name=name, canonical=canonical(name)) for name in names)
    entry = BackendModelsRecord(backend="one", seen_at_ms=revision, models=models)
    return DiscoveredRecord(revision=revision, expires_at_ms=0, backends=(entry,))


OPENING = snapshot(7, config(7), discovered(7, "llama3"))


class Running:
    """One request in flight."""

    def __init__(self, worker: Worker, principal: Principal, request_id: str) -> None:
        self.interrupt = Interrupt()
        self._worker = worker
        self._principal = principal
        self._request_id = RequestId(request_id)
        self.held = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        with self.interrupt:
            lease = await self._worker.leases.acquire(self._principal, self._request_id, DEMAND, CRASHED)
            self._worker.renewal.hold(lease, self._principal, self.interrupt)
            self.held.set()
            await asyncio.Event().wait()


class Worker:
    """Everything of a worker that the watch has to do with."""

    def __init__(
        self,
        link: Link,
        addresses: Sequence[str],
        *,
        token: str = TOKEN,
        credentials: grpc.ChannelCredentials | None = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        clock = SystemClock()
        calls = Calls(backlog_max_events=16_000)
        refused = RefusedVersions()
        self.readiness = Readiness((READINESS_CHECK,))
        self.models = CurrentModels(sealer=Sealer(b"k" * 32), clock=clock)
        self.store = StateStore(models=self.models, readiness=self.readiness, clock=clock)
        self.renewal = Renewal(link=link, refused=refused, clock=clock)
        self.leases = RedisLeases(
            link=link,
            calls=calls,
            buffer=Settlements(link=link, calls=calls, capacity=10),
            refused=refused,
            clock=clock,
        )
        planes = ControlPlanes(addresses=addresses, token=Secret(token), credentials=credentials)
        self.keys = RedisKeys(
            link=link,
            verifier=ControlPlaneVerifier(ControlPlanes(addresses=(), token=None)),
            refused=refused,
            pepper=Secret(PEPPER),
            defaults=Limits(rpm=60, tpm=100_000, concurrent=8),
            ttl_s=60,
            clock=clock,
        )
        self.in_flight: list[Running] = []
        self.watch = Watch(
            planes=planes,
            changes=Changes(store=self.store, keys=self.keys, refused=refused, renewal=self.renewal),
            identity=IDENTITY,
            readiness=self.readiness,
            in_flight=lambda: len(self.in_flight),
            clock=clock,
            heartbeat_s=heartbeat_s,
        )
        self.watcher = RedisWatcher(
            link=link, store=self.store, models=self.models, pushed=lambda: self.watch.is_current
        )

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.models.listing(Grant(all_models=True))]

    async def start(self, principal: Principal) -> Running:
        """A request that was admitted and goes on."""
        request = Running(self, principal, LeaseId(f"{len(self.in_flight):032}"))
        self.in_flight.append(request)
        await request.held.wait()
        return request

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[Worker]:
        """The watch runs until the end of the block, and must have gone on until then."""
        task = asyncio.create_task(self.watch.run())
        try:
            yield self
            assert not task.done() or not self.watch._planes.addresses
        finally:
            for each in (task, *(request.task for request in self.in_flight)):
                each.cancel()
            await asyncio.gather(task, *(request.task for request in self.in_flight), return_exceptions=True)


@pytest.fixture
async def unconnected() -> AsyncIterator[Link]:
    """A link whose Redis is not there: the stream does not need it."""
    async with running_link("redis://127.0.0.1:1/0", trusted=False) as link:
        yield link


@pytest.fixture
def state(redis: Redis) -> Iterator[PublishedState]:
    """The shared Redis, stamped."""
    published = PublishedState(redis.url)
    published.stamp()
    yield published
    published.close()


@pytest.fixture
async def link(state: PublishedState) -> AsyncIterator[Link]:
    async with running_link(state.url) as link:
        yield link


@pytest.fixture
async def server() -> AsyncIterator[StateServer]:
    async with serving(StateServer(OPENING)) as server:
        yield server
