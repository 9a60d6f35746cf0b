"""``BackendService``: backends as operators change and probe them. Their credentials go in and never come out."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import grpc

from controlplane.core import backends as rules
from controlplane.core.backends import AddedBackend, BackendName, StaticBackend
from controlplane.core.discovery import Poll
from controlplane.core.ports import Publisher
from controlplane.errors import (
    AlreadyExistsError,
    InvalidRequestError,
    NotFoundError,
    RedisUnavailableError,
    StateConflictError,
    UpstreamProbeError,
)
from controlplane.ollama.client import OllamaClient, Target
from controlplane.rpc import convert
from controlplane.store.backends import PostgresBackends
from neuronetz.admin.v1 import backend_pb2 as pb
from neuronetz.admin.v1 import backend_pb2_grpc
from shared.backends import DEFAULT_HEADER, DEFAULT_SCHEME, credential_header
from shared.clock import Clock
from shared.records import BackendModelsRecord, BackendRecord, DiscoveredRecord
from shared.redaction import REDACTED
from shared.sealing import Sealer, SealError

PROBES_AT_ONCE = 32
NOT_POLLED = "not polled yet"
UNOPENED = "credential sealed with another key"

Context = grpc.aio.ServicerContext[object, object]


class Discovered(Protocol):
    """What discovery knows, and how to make it look again."""

    async def read(self) -> DiscoveredRecord | None:
        """What is published. Raises ``RedisUnavailableError``."""
        ...

    @property
    def last_polls(self) -> Mapping[str, Poll]:
        """How each backend answered last, by name."""
        ...

    def wake(self) -> None:
        """Polls every backend at once."""
        ...


class BackendService(backend_pb2_grpc.BackendServiceServicer):
    """Commit, publish, poll; errors of ``controlplane.errors`` become statuses in front of it."""

    def __init__(
        self,
        *,
        static: Sequence[StaticBackend],
        added: PostgresBackends,
        sealer: Sealer,
        client: OllamaClient,
        publisher: Publisher,
        discovered: Discovered,
        clock: Clock,
    ) -> None:
        self._static = {backend.name: backend for backend in static}
        self._added = added
        self._sealer = sealer
        self._client = client
        self._publisher = publisher
        self._discovered = discovered
        self._clock = clock

    async def AddBackend(self, request: pb.AddBackendRequest, context: Context) -> pb.AddBackendResponse:
        """As the proto says."""
        given = _read(request)
        self._check_dynamic(given.name)
        existing = await self._existing(given.name)
        if existing is not None and not request.replace:
            raise AlreadyExistsError(f"there is a backend {given.name!r} already; replace it with --replace")
        models = 0
        if not request.no_validate:
            models = await self._validated(given)
        backend = self._sealed(given, request, existing)
        line = await self._environment_line(without=backend.name, added=backend)
        if request.validate_only:
            return pb.AddBackendResponse(backend=_message(backend, models=models), environment_line=line)
        if existing is None:
            await self._added.add(backend)
        else:
            await self._added.replace(backend)
        applied = await self._publish()
        return pb.AddBackendResponse(
            backend=_message(backend, models=models),
            publication=convert.publication(applied=applied),
            environment_line=line,
        )

    async def RemoveBackend(self, request: pb.RemoveBackendRequest, context: Context) -> pb.RemoveBackendResponse:
        """As the proto says."""
        self._check_dynamic(request.name)
        line = await self._environment_line(without=request.name)
        if request.validate_only:
            await self._added.get(request.name)
            return pb.RemoveBackendResponse(environment_line=line)
        await self._added.remove(request.name)
        return pb.RemoveBackendResponse(
            publication=convert.publication(applied=await self._publish()), environment_line=line
        )

    async def ListBackends(self, request: pb.ListBackendsRequest, context: Context) -> pb.ListBackendsResponse:
        """As the proto says."""
        known = await self._known()
        polls = self._discovered.last_polls
        backends, following = convert.page_of(await self._all(), request.page_size, request.page_token)
        return pb.ListBackendsResponse(
            backends=[
                _with_health(_message(backend), known.get(backend.name), polls.get(backend.name))
                for backend in backends
            ],
            next_page_token=following,
        )

    async def ProbeBackends(self, request: pb.ProbeBackendsRequest, context: Context) -> pb.ProbeBackendsResponse:
        """As the proto says."""
        backends = await self._all()
        if request.name:
            backends = [backend for backend in backends if backend.name == request.name]
            if not backends:
                raise NotFoundError(f"there is no backend {request.name!r}")
        room = asyncio.Semaphore(PROBES_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            probes = [tasks.create_task(self._probed(backend, room)) for backend in backends]
        return pb.ProbeBackendsResponse(results=[probe.result() for probe in probes])

    async def _all(self) -> list[StaticBackend | AddedBackend]:
        """Every backend in routing order; a static one hides an added one of its name."""
        added = [backend for backend in await self._added.page() if backend.name not in self._static]
        return [*self._static.values(), *added]

    async def _environment_line(self, *, without: str, added: AddedBackend | None = None) -> str:
        """The line of an environment file with all backends but one, and one that is new or replaces it."""
        backends = [backend for backend in await self._all() if backend.name != without or added is not None]
        places = {backend.name: place for place, backend in enumerate(backends)}
        if added is not None and added.name in places:
            backends[places[added.name]] = added
        elif added is not None:
            backends.append(added)
        return rules.redacted_line(backends)

    def _check_dynamic(self, name: str) -> None:
        if name in self._static:
            raise StateConflictError(f"backend {name!r} is set by the environment and cannot be changed by RPC")

    async def _existing(self, name: BackendName) -> AddedBackend | None:
        try:
            return await self._added.get(name)
        except NotFoundError:
            return None

    async def _validated(self, given: StaticBackend) -> int:
        """How many models the new backend has, asked as requests will ask it. Raises ``UpstreamProbeError``."""
        try:
            return len((await self._client.tags(self._target(given))).models)
        except UpstreamProbeError as fault:
            raise UpstreamProbeError(
                f"backend {given.name!r} failed its probe: {fault} (--no-validate adds it anyway)"
            ) from fault

    def _sealed(
        self, given: StaticBackend, request: pb.AddBackendRequest, existing: AddedBackend | None
    ) -> AddedBackend:
        priority, weight = given.priority, given.weight
        if existing is not None and not request.HasField("priority"):
            priority = existing.priority
        if existing is not None and not request.HasField("weight"):
            weight = existing.weight
        return AddedBackend(
            name=given.name,
            url=given.url,
            header=given.header,
            scheme=given.scheme,
            sealed_token=self._sealer.seal(given.name, given.token) if given.token else None,
            priority=priority,
            weight=weight,
        )

    async def _publish(self) -> bool:
        announced = await self._publisher.publish_config()
        self._discovered.wake()
        return announced.applied

    async def _known(self) -> dict[str, BackendModelsRecord]:
        try:
            record = await self._discovered.read()
        except RedisUnavailableError:
            # Backends are listed all the same; what this replica saw itself must do.
            return {}
        return {entry.backend: entry for entry in record.backends} if record else {}

    def _target(self, backend: StaticBackend | AddedBackend) -> Target:
        if isinstance(backend, StaticBackend):
            credential = credential_header(header=backend.header, scheme=backend.scheme, token=backend.token)
            return Target(name=backend.name, url=backend.url, credential=credential)
        record = BackendRecord(
            name=backend.name,
            url=backend.url,
            header=backend.header,
            scheme=backend.scheme,
            sealed_token=backend.sealed_token,
        )
        return Target.of(record, self._sealer)

    async def _probed(self, backend: StaticBackend | AddedBackend, room: asyncio.Semaphore) -> pb.ProbeResult:
        result = pb.ProbeResult(name=backend.name, url=backend.url)
        async with room:
            started_s = self._clock.monotonic()
            try:
                listing = await self._client.tags(self._target(backend))
                result.ok, result.models = True, len(listing.models)
            except UpstreamProbeError as fault:
                result.problem = str(fault)
            except SealError:
                result.problem = UNOPENED
            result.latency_ms = round((self._clock.monotonic() - started_s) * 1000)
        return result


def _read(request: pb.AddBackendRequest) -> StaticBackend:
    """The backend of a request, its token still open. Raises ``InvalidRequestError`` with every fault."""
    checks: dict[str, tuple[Callable[[Any], Any], Any]] = {
        "name": (rules.check_name, request.name),
        "url": (rules.check_url, request.url),
        "token": (rules.check_token, request.token),
        "header": (rules.check_header, request.header or DEFAULT_HEADER),
        "scheme": (rules.check_scheme, request.scheme or DEFAULT_SCHEME),
        "priority": (
            rules.check_priority,
            request.priority if request.HasField("priority") else rules.ADDED_PRIORITY,
        ),
        "weight": (rules.check_weight, request.weight if request.HasField("weight") else rules.DEFAULT_WEIGHT),
    }
    values: dict[str, Any] = {}
    faults = []
    for field, (check, value) in checks.items():
        try:
            values[field] = check(value)
        except ValueError as fault:
            faults.append(f"{field} {fault}")
    if faults:
        raise InvalidRequestError(*faults)
    return StaticBackend(**values)


def _message(backend: StaticBackend | AddedBackend, *, models: int = 0) -> pb.Backend:
    is_static = isinstance(backend, StaticBackend)
    has_token = bool(backend.token) if isinstance(backend, StaticBackend) else backend.sealed_token is not None
    return pb.Backend(
        name=backend.name,
        url=backend.url,
        origin=pb.BACKEND_ORIGIN_STATIC if is_static else pb.BACKEND_ORIGIN_DYNAMIC,
        priority=backend.priority,
        header=backend.header if has_token else "",
        scheme=backend.scheme if has_token else "",
        token=REDACTED if has_token else "",
        models=models,
        weight=backend.weight,
    )


def _with_health(message: pb.Backend, known: BackendModelsRecord | None, poll: Poll | None) -> pb.Backend:
    """What discovery published, or else what this replica saw itself."""
    if known is not None:
        message.healthy = not known.problem
        message.models = sum(not model.missed_polls for model in known.models)
        message.problem = known.problem
        if known.seen_at_ms:
            message.last_seen_at.FromDatetime(dt.datetime.fromtimestamp(known.seen_at_ms / 1000, dt.UTC))
    elif poll is not None:
        message.healthy = not poll.problem
        message.models = len(poll.models or ())
        message.problem = poll.problem
    else:
        message.problem = NOT_POLLED
    return message
