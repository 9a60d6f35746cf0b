"""The wiring of the control plane: what is made of what."""

from __future__ import annotations

import asyncio
import importlib.metadata
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import grpc
import msgspec
from redis.asyncio import Redis

from controlplane.config import Settings
from controlplane.core.roles import Callers, OperatorToken, Role
from controlplane.hashing import Argon2Cost, HashingPool
from controlplane.lifecycle import ControlPlane, Worker
from controlplane.metrics import Metrics
from controlplane.ollama.client import OllamaClient
from controlplane.ollama.poller import Poller
from controlplane.publish import connection
from controlplane.publish.anonymous_stream import AnonymousStream
from controlplane.publish.budgets import BudgetCounters
from controlplane.publish.change_stream import ChangeStream
from controlplane.publish.counters import CounterState
from controlplane.publish.discovered import DiscoveredState, JobLock
from controlplane.publish.expired import ExpiredLeases
from controlplane.publish.fence import Fences
from controlplane.publish.functions import Functions
from controlplane.publish.published import PublishedState
from controlplane.publish.publisher import StatePublisher
from controlplane.publish.redis_state import RedisState
from controlplane.publish.replicas import Replicas
from controlplane.publish.usage_stream import BacklogState, UsageStreams
from controlplane.rpc import tracing
from controlplane.rpc.adjusting import Adjuster
from controlplane.rpc.backends import BackendService
from controlplane.rpc.bounds import CallBounds
from controlplane.rpc.fleet import FleetService
from controlplane.rpc.keys import KeyService
from controlplane.rpc.models import ModelService
from controlplane.rpc.operators import OperatorService
from controlplane.rpc.receipts import Receipts
from controlplane.rpc.server import AdminServer, Service, TLSFiles
from controlplane.rpc.state import NAME as STATE_SERVICE
from controlplane.rpc.state import StateService
from controlplane.rpc.state_messages import Messages
from controlplane.rpc.tails import Tails
from controlplane.rpc.tenants import TenantService
from controlplane.rpc.usage import UsageService
from controlplane.rpc.verifier import KeyVerifier
from controlplane.rpc.watching import Shared
from controlplane.store.backends import PostgresBackends, RoutedBackends
from controlplane.store.keys import PostgresKeys
from controlplane.store.outbox import Revisions
from controlplane.store.policies import PostgresPolicies
from controlplane.store.tenants import PostgresTenants
from controlplane.tasks import discover
from controlplane.tasks.backlog import BacklogWatch
from controlplane.tasks.discover import Discovery
from controlplane.tasks.drain_anonymous import AnonymousDrain
from controlplane.tasks.drain_usage import HALVES, UsageDrain
from controlplane.tasks.guard import CounterGuard, Touched
from controlplane.tasks.publish import OutboxDrain, Reconciler
from controlplane.tasks.reap import Reaper
from controlplane.tasks.rebuild import FenceKeeper
from controlplane.tasks.retain import Retention
from controlplane.tasks.revocations import RevocationOutbox
from controlplane.tasks.tell import WaitingChanges
from controlplane.watch.hub import Hub
from controlplane.watch.snapshots import Snapshots
from controlplane.watch.workers import Workers
from neuronetz.admin.v1 import (
    backend_pb2_grpc,
    fleet_pb2_grpc,
    key_pb2_grpc,
    model_pb2_grpc,
    operator_pb2_grpc,
    tenant_pb2_grpc,
    usage_pb2_grpc,
)
from neuronetz.state.v1 import state_pb2_grpc
from shared import sealing, telemetry
from shared.clock import SystemClock
from shared.sealing import Sealer
from shared.telemetry import Tracing

# Verifying is asked for by machines and may come in floods; minting is asked for by people and must not wait for it.
PLANE = "controlplane"
VERIFY_THREADS, VERIFY_QUEUE = 2, 32
MINT_THREADS, MINT_QUEUE = 1, 16


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What several services and tasks share."""

    redis: Redis
    sealer: Sealer
    clock: SystemClock
    state: RedisState
    fences: Fences
    tenants: PostgresTenants
    keys: PostgresKeys
    added: PostgresBackends
    backends: RoutedBackends
    policies: PostgresPolicies
    hub: Hub
    workers: Workers
    replicas: Replicas
    publisher: StatePublisher
    client: OllamaClient
    discovery: Discovery
    metrics: Metrics
    verifying: HashingPool
    minting: HashingPool


def create(settings: Settings) -> ControlPlane:
    """One control-plane process; it connects to nothing before it runs."""
    parts = _parts(settings)
    parts.metrics.watch_backends(lambda: parts.discovery.last_polls, parts.discovery.failures)
    target = telemetry.target_of(
        settings,
        plane=PLANE,
        instance=f"{socket.gethostname()}:{settings.admin_bind.port}",
        version=importlib.metadata.version("neuronetz-gateway"),
    )
    traces = None if target is None or not target.traced_share else Tracing(target)
    server = AdminServer(
        address=str(settings.admin_bind),
        callers=_callers(settings),
        bounds=CallBounds(clock=parts.clock, calls_per_s=settings.admin_calls_per_s),
        services=_services(settings, parts),
        tls=_tls(settings),
        behind=() if traces is None else (tracing.TracingInterceptor(traces),),
    )
    return ControlPlane(
        settings=settings,
        server=server,
        state=parts.state,
        metrics=parts.metrics,
        workers=_workers(settings, parts),
        closing=(parts.verifying.close, parts.minting.close, parts.redis.aclose, *_closing(traces)),
        target=target,
        on_statement=None if traces is None else tracing.statements(traces.tracer),
    )


def _closing(traces: Tracing | None) -> Iterator[Callable[[], Awaitable[None]]]:
    if traces is not None:
        yield partial(asyncio.to_thread, traces.close)


def _parts(settings: Settings) -> Parts:
    timeout_s = settings.redis_timeout_s
    redis = connection.connect(settings.redis_url.reveal(), connect_timeout_s=timeout_s)
    sealer = Sealer(sealing.decode_key(settings.sealing_key.reveal()))
    state = RedisState(redis, timeout_s=timeout_s, prompt_log_days=settings.prompt_log_days)
    tenants, keys, added, client = PostgresTenants(), PostgresKeys(), PostgresBackends(), OllamaClient()
    policies = PostgresPolicies()
    backends = RoutedBackends(static=settings.static_backends, added=added, sealer=sealer)
    clock, metrics, replicas = SystemClock(), Metrics(), Replicas(redis, timeout_s=timeout_s)
    hub = Hub(
        stream=ChangeStream(redis, timeout_s=timeout_s),
        revisions=Revisions(),
        snapshots=Snapshots(source=PublishedState(redis, timeout_s=timeout_s), clock=clock, metrics=metrics),
        metrics=metrics,
    )
    cost = Argon2Cost(
        time_cost=settings.argon2_time_cost,
        memory_kib=settings.argon2_memory_kib,
        parallelism=settings.argon2_parallelism,
    )
    return Parts(
        redis=redis,
        sealer=sealer,
        clock=clock,
        state=state,
        fences=Fences(redis, timeout_s=timeout_s),
        tenants=tenants,
        keys=keys,
        added=added,
        backends=backends,
        policies=policies,
        hub=hub,
        workers=Workers(replicas),
        replicas=replicas,
        publisher=StatePublisher(
            keys=keys,
            tenants=tenants,
            backends=backends,
            policies=policies,
            state=state,
            watchers=hub,
            sealer=sealer,
            on_deferred=metrics.publication_deferred,
        ),
        client=client,
        metrics=metrics,
        discovery=Discovery(
            source=backends,
            sealer=sealer,
            poller=Poller(client),
            state=DiscoveredState(redis, timeout_s=timeout_s),
            watchers=hub,
            lock=JobLock(redis, job=discover.JOB, timeout_s=timeout_s),
            refresh_s=settings.discovery_refresh_s,
            ttl_s=settings.discovery_ttl_s,
        ),
        verifying=HashingPool(cost, threads=VERIFY_THREADS, queue=VERIFY_QUEUE),
        minting=HashingPool(cost, threads=MINT_THREADS, queue=MINT_QUEUE),
    )


def _services(settings: Settings, parts: Parts) -> tuple[Service, ...]:
    receipts = Receipts(
        connected=parts.workers,
        registry=parts.replicas,
        default_timeout_s=settings.receipt_timeout_s,
        clock=parts.clock,
    )
    tenants = TenantService(tenants=parts.tenants, publisher=parts.publisher, receipts=receipts)
    keys = KeyService(
        keys=parts.keys,
        tenants=parts.tenants,
        publisher=parts.publisher,
        receipts=receipts,
        hashing=parts.minting,
        pepper=settings.key_pepper,
    )
    backends = BackendService(
        static=settings.static_backends,
        added=parts.added,
        sealer=parts.sealer,
        client=parts.client,
        publisher=parts.publisher,
        discovered=parts.discovery,
        clock=parts.clock,
    )
    models = ModelService(
        source=parts.backends, discovered=parts.discovery, kept=parts.policies, publisher=parts.publisher
    )
    verifier = KeyVerifier(keys=parts.keys, state=parts.state, hashing=parts.verifying, pepper=settings.key_pepper)
    return (
        _service("neuronetz.admin.v1.TenantService", tenant_pb2_grpc.add_TenantServiceServicer_to_server, tenants),
        _service("neuronetz.admin.v1.KeyService", key_pb2_grpc.add_KeyServiceServicer_to_server, keys),
        _service("neuronetz.admin.v1.BackendService", backend_pb2_grpc.add_BackendServiceServicer_to_server, backends),
        _service("neuronetz.admin.v1.ModelService", model_pb2_grpc.add_ModelServiceServicer_to_server, models),
        _usage_service(settings, parts),
        _fleet_service(parts),
        _service(
            "neuronetz.admin.v1.OperatorService",
            operator_pb2_grpc.add_OperatorServiceServicer_to_server,
            OperatorService(),
        ),
        _state_service(parts),
        _service("neuronetz.state.v1.KeyVerifier", state_pb2_grpc.add_KeyVerifierServicer_to_server, verifier),
    )


def _usage_service(settings: Settings, parts: Parts) -> Service:
    counters = BudgetCounters(parts.redis, fences=parts.fences, timeout_s=settings.redis_timeout_s)
    tails = Tails()
    usage = UsageService(
        tenants=parts.tenants,
        keys=parts.keys,
        counters=counters,
        adjuster=Adjuster(counters),
        tails=tails,
        audit_log_days=settings.audit_log_days,
    )
    add = usage_pb2_grpc.add_UsageServiceServicer_to_server
    return msgspec.structs.replace(_service("neuronetz.admin.v1.UsageService", add, usage), end=tails.end)


def _fleet_service(parts: Parts) -> Service:
    fleet = FleetService(replicas=parts.replicas, newest=parts.hub)
    add = fleet_pb2_grpc.add_FleetServiceServicer_to_server
    return msgspec.structs.replace(_service("neuronetz.admin.v1.FleetService", add, fleet), end=fleet.end)


def _state_service(parts: Parts) -> Service:
    shared = Shared(
        hub=parts.hub,
        messages=Messages(parts.hub.snapshots),
        workers=parts.workers,
        control_plane=f"{socket.gethostname()}-{secrets.token_hex(3)}",
        metrics=parts.metrics,
        clock=parts.clock,
    )
    service = _service(STATE_SERVICE, StateService.add_to_server, StateService(shared))
    return msgspec.structs.replace(service, end=parts.hub.end)


def _workers(settings: Settings, parts: Parts) -> tuple[Worker, ...]:
    return (
        OutboxDrain(publisher=parts.publisher, on_deferred=parts.metrics.publication_deferred),
        Reconciler(
            publisher=parts.publisher,
            state=parts.state,
            keys=parts.keys,
            tenants=parts.tenants,
            metrics=parts.metrics,
        ),
        parts.discovery,
        parts.hub,
        parts.workers,
        WaitingChanges(publisher=parts.publisher),
        RevocationOutbox(keys=parts.keys, publisher=parts.publisher),
        Retention(audit_log_days=settings.audit_log_days),
        *_ledger_workers(settings, parts),
    )


def _ledger_workers(settings: Settings, parts: Parts) -> tuple[Worker, ...]:
    """What keeps the counters in Redis and the ledger in Postgres true to each other."""
    consumer, timeout_s = f"control-{secrets.token_hex(6)}", settings.redis_timeout_s
    redis, clock, metrics = parts.redis, parts.clock, parts.metrics
    counters, touched = CounterState(redis, timeout_s=timeout_s), Touched()
    return (
        FenceKeeper(
            fences=parts.fences,
            functions=Functions(redis, timeout_s=timeout_s),
            state=parts.state,
            counters=counters,
            publisher=parts.publisher,
            keys=parts.keys,
            tenants=parts.tenants,
            clock=clock,
            metrics=metrics,
        ),
        UsageDrain(
            streams=UsageStreams(redis, consumer=consumer),
            clock=clock,
            metrics=metrics,
            touched=touched,
            groups=HALVES,
        ),
        Reaper(leases=ExpiredLeases(redis, timeout_s=timeout_s), fences=parts.fences, metrics=metrics),
        CounterGuard(counters=counters, touched=touched, clock=clock, metrics=metrics),
        AnonymousDrain(stream=AnonymousStream(redis, consumer=consumer), metrics=metrics),
        BacklogWatch(
            state=BacklogState(redis, timeout_s=timeout_s), max_bytes=settings.backlog_max_bytes, metrics=metrics
        ),
    )


def _service[S](name: str, add: Callable[[S, grpc.aio.Server], None], servicer: S) -> Service:
    return Service(name=name, add=lambda server: add(servicer, server))


def _callers(settings: Settings) -> Callers:
    tokens = [OperatorToken(name="admin", role=Role.ADMIN, token=settings.admin_token), *settings.operator_tokens]
    if settings.dataplane_token is not None:
        tokens.append(OperatorToken(name="dataplane", role=Role.DATAPLANE, token=settings.dataplane_token))
    return Callers(tuple(tokens), settings.operator_certificates)


def _tls(settings: Settings) -> TLSFiles | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TLSFiles(cert=settings.tls_cert, key=settings.tls_key, client_ca=settings.tls_client_ca)
