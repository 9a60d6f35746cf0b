"""The wiring of one worker: everything is made here, from settings to the application that granian serves.

``create`` is granian's factory. The objects live in the application's lifespan: tasks in one task group, which ends
when the last settlement has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from opentelemetry.trace import Tracer

from dataplane import config, gathering, process, readings, tracing
from dataplane.access import Observers, request_log
from dataplane.api import health, playground, problems
from dataplane.api.dialect import Caps
from dataplane.api.exchange import Edge
from dataplane.api.forwarded import TrustedProxies
from dataplane.api.front import Clients, Front
from dataplane.api.listener import bound_unread_replies
from dataplane.api.server import EXPECTED_MESSAGES, Server
from dataplane.api.watching import Departures, Patience
from dataplane.config import Settings
from dataplane.metrics import Metrics
from dataplane.pipeline import Pipeline
from dataplane.ports import Keys, Leases, Upstreams
from dataplane.quota.announcements import Announcements
from dataplane.quota.anonymous import AnonymousCounts
from dataplane.quota.calls import Calls
from dataplane.quota.failures import RedisFailures
from dataplane.quota.fences import FenceWatch
from dataplane.quota.leases import RedisLeases
from dataplane.quota.link import Link
from dataplane.quota.refusals import CollapsedRefusals
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.renewal import Renewal
from dataplane.quota.settlements import Settlements
from dataplane.stages.admit import Admit
from dataplane.stages.authenticate import Authenticate
from dataplane.stages.relay import Relay
from dataplane.stages.route import Route
from dataplane.stages.settle import Settle
from dataplane.state.changes import Changes
from dataplane.state.control import ControlPlanes, credentials_of
from dataplane.state.keys import RedisKeys, Verifier
from dataplane.state.models import CurrentModels
from dataplane.state.store import StateStore
from dataplane.state.verifier import ControlPlaneVerifier
from dataplane.state.watch import Identity, Watch
from dataplane.state.watcher import RedisWatcher
from dataplane.upstream.client import Backends, Timeouts
from dataplane.upstream.meter import meters
from dataplane.upstream.transport import Transport
from dataplane.values import Limits
from shared import logs, sealing, telemetry
from shared.clock import Clock, SystemClock
from shared.lifecycle import Readiness
from shared.sealing import Sealer
from shared.telemetry import Tracing

READINESS_CHECKS = ("redis", "fence", "models")
PLANE = "dataplane"
RESOLVE_PERIOD_S = 30.0
CUT_TIMEOUT_S = 2.0
EXIT_SOFTWARE = 70  # EX_SOFTWARE
SETTLE_TIMEOUT_S = 10.0
_ANY_HOST = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound

_log = logs.get(__name__)


class Worker:
    """Everything that one worker process consists of."""

    def __init__(self, settings: Settings) -> None:
        clock = SystemClock()
        self.settings = settings
        self.readiness = Readiness(READINESS_CHECKS)
        identity = _identity(settings)
        self.tracing = _tracing(settings, identity)
        self.metrics = Metrics(gen_ai=settings.otlp_endpoint is not None)
        self.requests = request_log(level=settings.log_level, style=settings.log_format)
        self.link = Link(url=settings.redis_url, timeout_s=settings.redis_timeout_s, readiness=self.readiness)
        calls = Calls(backlog_max_events=settings.backlog_max_events)
        self.settlements = self._settlements(calls)
        self.refusals = CollapsedRefusals(settlements=self.settlements, clock=clock)
        refused = RefusedVersions()
        self.renewal = Renewal(link=self.link, refused=refused, clock=clock)
        announcements = Announcements(
            link=self.link, settlements=self.settlements, renewal=self.renewal, worker_id=identity.worker_id
        )
        self.fence_watch = FenceWatch(link=self.link, readiness=self.readiness, announcements=announcements)
        self.models = CurrentModels(sealer=Sealer(sealing.decode_key(settings.sealing_key.reveal())), clock=clock)
        store = StateStore(models=self.models, readiness=self.readiness, clock=clock)
        self.watcher = RedisWatcher(
            link=self.link, store=store, models=self.models, pushed=lambda: self.watch.is_current
        )
        planes = _control_planes(settings)
        self.verifier = ControlPlaneVerifier(planes)
        self.keys = self._keys(refused, clock)
        self.leases = self._leases(calls, refused, clock)
        self.watch = Watch(
            planes=planes,
            changes=Changes(store=store, keys=self.keys, refused=refused, renewal=self.renewal),
            identity=identity,
            readiness=self.readiness,
            in_flight=lambda: len(self.server.in_flight),
            clock=clock,
        )
        self.failures = RedisFailures(link=self.link, limit=settings.auth_failures_per_minute, clock=clock)
        self.anonymous = AnonymousCounts(link=self.link, clock=clock)
        self.transport = Transport(
            connect_timeout_s=settings.connect_timeout_s, max_idle_per_backend=settings.max_connections
        )
        self.proxies = TrustedProxies(settings.trusted_proxies)
        self.departures = Departures()
        self.server = Server(
            pipeline=self._pipeline(clock),
            models=self.models,
            edge=_edge(settings),
            departures=self.departures,
            proxies=self.proxies,
            clock=clock,
        )
        # What clients are answered by.
        self.clients: Clients = self.server if self.tracing is None else tracing.TracedServer(self.server, self.tracing)
        self._show()

    def _settlements(self, calls: Calls) -> Settlements:
        return Settlements(
            link=self.link,
            calls=calls,
            capacity=self.settings.settle_buffer_size,
            on_sent=None if self.tracing is None else tracing.settling(self.tracing.tracer),
        )

    def _keys(self, refused: RefusedVersions, clock: Clock) -> RedisKeys:
        settings = self.settings
        verifier: Verifier = self._traced(self.verifier, tracing.TracedVerifier)
        return RedisKeys(
            link=self.link,
            verifier=verifier,
            refused=refused,
            pepper=settings.key_pepper,
            defaults=Limits(rpm=settings.default_rpm, tpm=settings.default_tpm, concurrent=settings.default_concurrent),
            ttl_s=settings.key_cache_ttl_s,
            clock=clock,
        )

    def _leases(self, calls: Calls, refused: RefusedVersions, clock: Clock) -> RedisLeases:
        return RedisLeases(
            link=self.link,
            calls=calls,
            buffer=self.settlements,
            refused=refused,
            clock=clock,
            on_answer=self.metrics.admission_waited,
        )

    def _show(self) -> None:
        """What the parts count themselves becomes metrics."""
        readings.of_redis(self.metrics, link=self.link, renewal=self.renewal, settlements=self.settlements)
        readings.of_worker(
            self.metrics,
            server=self.server,
            readiness=self.readiness,
            models=self.models,
            watch=self.watch,
            capacity=self.settings.settle_buffer_size,
        )

    def _pipeline(self, clock: Clock) -> Pipeline:
        """The stages over their adapters."""
        settings = self.settings
        upstreams = Backends(
            transport=self.transport,
            timeouts=Timeouts(
                connect_s=settings.connect_timeout_s,
                first_record_s=settings.first_record_timeout_s,
                idle_s=settings.idle_timeout_s,
                total_s=settings.total_timeout_s,
            ),
            max_connections=settings.max_connections,
            clock=clock,
        )
        keys: Keys = self._traced(self.keys, tracing.TracedKeys)
        leases: Leases = self._traced(self.leases, tracing.TracedLeases)
        attempted: Upstreams = self._traced(upstreams, tracing.TracedUpstreams)
        authenticate = Authenticate(keys=keys, failures=self.failures, log=self.anonymous, pepper=settings.key_pepper)
        relay = Relay(models=self.models, upstreams=attempted, clock=clock)
        readings.of_requests(self.metrics, authenticate=authenticate, relay=relay, upstreams=upstreams)
        return Pipeline(
            authenticate=authenticate,
            admit=Admit(leases=leases, keys=keys, models=self.models),
            route=Route(models=self.models, upstreams=upstreams),
            relay=relay,
            settle=Settle(
                settlements=self.settlements,
                refusals=self.refusals,
                renewals=self.renewal,
                meter=meters(clock, self.metrics.anomaly_seen),
                observer=self._observers(),
                clock=clock,
            ),
            status_of=problems.status_of,
        )

    def _traced[P, T](self, port: P, wrapped: Callable[[P, Tracer], T]) -> P | T:
        """The port as it is where nothing is traced."""
        return port if self.tracing is None else wrapped(port, self.tracing.tracer)

    def _observers(self) -> Observers:
        traced = () if self.tracing is None else (tracing.SpanAttributes(),)
        return Observers(self.metrics, self.requests, *traced)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The worker's life: its tasks run inside; leaving drains."""
        try:
            async with gathering.answering(self.settings.runtime_dir, self.metrics.figures), self._tasks():
                yield
        except ExceptionGroup:
            # The server would go on with a worker that can decide nothing any more, and refuse everything for good.
            _log.exception("worker_failed")
            sys.stdout.flush()
            os._exit(EXIT_SOFTWARE)
        await self.transport.aclose()
        await self.verifier.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    @contextlib.asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(run)
                for run in (
                    self.link.run(), self.settlements.run(), self.refusals.run(), self.anonymous.run(),
                    self.renewal.run(), self.fence_watch.run(), self.watcher.run(), self.watch.run(),
                    Patience(self.server.in_flight).watch(), self.departures.watch(), self.requests.run(),
                    self._resolve_proxies(), self._drain(), self._bound_unread_replies(),
                )
            ]  # fmt: skip
            self._listen_for_stop()
            try:
                yield
            finally:
                self.readiness.start_draining()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.drain_timeout_s + CUT_TIMEOUT_S):
                        await self.server.idle.wait()
                self.refusals.flush()
                await self.anonymous.flush()
                await self.settlements.drained(SETTLE_TIMEOUT_S)
                for task in tasks:
                    task.cancel()

    def _listen_for_stop(self) -> None:
        """SIGTERM first takes the worker out of service; granian's own stop follows, as if by SIGINT."""

        def stop() -> None:
            self.readiness.start_draining()
            os.kill(os.getpid(), signal.SIGINT)

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)

    async def _drain(self) -> None:
        """Requests in flight have the drain time to finish; what is left then ends with an error event."""
        await self.readiness.drain_started()
        await asyncio.sleep(self.settings.drain_timeout_s)
        self.server.drain_out()

    async def _bound_unread_replies(self) -> None:
        await bound_unread_replies(self.settings.bind_port, timeout_s=self.settings.write_stall_timeout_s)

    async def _resolve_proxies(self) -> None:
        while self.proxies.has_names:
            await self.proxies.resolve()
            await asyncio.sleep(RESOLVE_PERIOD_S)


def _edge(settings: Settings) -> Edge:
    return Edge(
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        write_stall_timeout_s=settings.write_stall_timeout_s,
        request_id_header=settings.request_id_header.lower().encode(),
        caps=Caps(max_num_predict=settings.max_num_predict),
    )


def _control_planes(settings: Settings) -> ControlPlanes:
    return ControlPlanes(
        addresses=settings.control_addresses,
        token=settings.dataplane_token,
        credentials=credentials_of(
            ca=settings.control_tls_ca, cert=settings.control_tls_cert, key=settings.control_tls_key
        ),
    )


def _identity(settings: Settings) -> Identity:
    """Who this worker is; a worker that is started again is another one."""
    host = socket.gethostname() if settings.bind_host in _ANY_HOST else settings.bind_host
    return Identity(
        worker_id=str(uuid.uuid4()),
        address=settings.advertised_address or f"{host}:{settings.bind_port}",
        version=importlib.metadata.version("neuronetz-gateway"),
        pid=os.getpid(),
    )


def _tracing(settings: Settings, identity: Identity) -> Tracing | None:
    target = telemetry.target_of(settings, plane=PLANE, instance=identity.worker_id, version=identity.version)
    return None if target is None or not target.traced_share else Tracing(target)


def create() -> Front:
    """The factory that granian calls: one application in one worker process."""
    process.die_with_parent()
    settings = config.load(os.environ)
    logs.configure(level=settings.log_level, style=settings.log_format, expected=EXPECTED_MESSAGES, plane=PLANE)
    worker = Worker(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        async with worker.running():
            process.spare_the_collector()
            _log.info("worker_started", pid=os.getpid(), port=settings.bind_port)
            process.let_the_loop_finish()
            yield
        _log.info("worker_stopped", pid=os.getpid())

    handlers: list[HTTPRouteHandler] = [*health.routes(worker.readiness)]
    if settings.playground_enabled:
        handlers.append(playground.route())
    app = Litestar(route_handlers=handlers, lifespan=[lifespan], openapi_config=None, logging_config=None)
    own_paths = [path for handler in handlers for path in handler.paths]
    front = Front(app, worker.clients, own_paths=own_paths, request_id_header=_edge(settings).request_id_header)
    readings.of_front(worker.metrics, front=front)
    return front
