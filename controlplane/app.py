"""The wiring of the control plane: what is made of what, what runs, in which order it starts and stops.

The server listens at once and says NOT_SERVING until Postgres, the schema and Redis are there; neither has to be up for
the process to start, and each may come and go. Every task lives in the one task group of ``run``.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any

from controlplane.config import Settings
from controlplane.core.roles import Callers, OperatorToken, Role
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.hashing import Argon2Cost, HashingPool
from controlplane.publish import connection
from controlplane.publish.fence import Fences
from controlplane.publish.publisher import StatePublisher
from controlplane.publish.redis_state import RedisState
from controlplane.rpc.keys import KeyService
from controlplane.rpc.server import AdminServer, Service, TLSFiles
from controlplane.rpc.tenants import TenantService
from controlplane.rpc.verifier import KeyVerifier
from controlplane.store import engine, migrate
from controlplane.store.backends import PostgresBackends, RoutedBackends
from controlplane.store.keys import PostgresKeys
from controlplane.store.tenants import PostgresTenants
from controlplane.tasks.publish import OutboxDrain, Reconciler
from controlplane.tasks.rebuild import FenceKeeper
from neuronetz.admin.v1 import key_pb2_grpc, tenant_pb2_grpc
from neuronetz.state.v1 import state_pb2_grpc
from shared import logs, sealing
from shared.backoff import Backoff
from shared.clock import SystemClock
from shared.lifecycle import Readiness
from shared.sealing import Sealer

PACKAGE = "neuronetz.admin.v1"
CHECK_EVERY_S = 0.5
# Verifying is asked for by machines and may come in floods; minting is asked for by people and must not wait for it.
VERIFY_THREADS, VERIFY_QUEUE = 2, 32
MINT_THREADS, MINT_QUEUE = 1, 16

_log = logs.get("controlplane.app")


class ControlPlane:
    """One control-plane process; ``run`` returns when it has drained."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.readiness = Readiness(("postgres", "schema", "redis"))
        self.port: int | None = None
        clock = SystemClock()
        sealer = Sealer(sealing.decode_key(settings.sealing_key.reveal()))
        cost = Argon2Cost(
            time_cost=settings.argon2_time_cost,
            memory_kib=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
        )
        self._redis = connection.connect(settings.redis_url.reveal(), connect_timeout_s=settings.redis_timeout_s)
        self._state = RedisState(
            self._redis, timeout_s=settings.redis_timeout_s, prompt_log_days=settings.prompt_log_days
        )
        self._fences = Fences(self._redis, timeout_s=settings.redis_timeout_s)
        tenants, keys = PostgresTenants(), PostgresKeys()
        backends = RoutedBackends(static=settings.static_backends, added=PostgresBackends(), sealer=sealer)
        publisher = StatePublisher(
            keys=keys,
            tenants=tenants,
            backends=backends,
            state=self._state,
            sealer=sealer,
        )
        self._verifying = HashingPool(cost, threads=VERIFY_THREADS, queue=VERIFY_QUEUE)
        self._minting = HashingPool(cost, threads=MINT_THREADS, queue=MINT_QUEUE)
        tenant_service = TenantService(tenants=tenants, publisher=publisher)
        key_service = KeyService(
            keys=keys, tenants=tenants, publisher=publisher, hashing=self._minting, pepper=settings.key_pepper
        )
        verifier = KeyVerifier(keys=keys, state=self._state, hashing=self._verifying, pepper=settings.key_pepper)
        self._server = AdminServer(
            address=str(settings.admin_bind),
            callers=_callers(settings),
            tls=_tls(settings),
            services=(
                Service(
                    name=f"{PACKAGE}.TenantService",
                    add=lambda server: tenant_pb2_grpc.add_TenantServiceServicer_to_server(tenant_service, server),
                ),
                Service(
                    name=f"{PACKAGE}.KeyService",
                    add=lambda server: key_pb2_grpc.add_KeyServiceServicer_to_server(key_service, server),
                ),
                Service(
                    name="neuronetz.state.v1.KeyVerifier",
                    add=lambda server: state_pb2_grpc.add_KeyVerifierServicer_to_server(verifier, server),
                ),
            ),
        )
        self._tasks = (
            OutboxDrain(publisher=publisher),
            Reconciler(publisher=publisher, state=self._state, keys=keys, tenants=tenants),
            FenceKeeper(fences=self._fences, state=self._state, keys=keys, tenants=tenants, clock=clock),
        )

    def stop(self) -> None:
        """Starts draining; ``run`` returns when it is done."""
        self.readiness.start_draining()

    async def run(self) -> None:
        """Serves until ``stop``. Raises ``BindError``."""
        self.port = await self._server.start()
        _log.info("control_plane_listening", host=self._settings.admin_bind.host, port=self.port)
        try:
            async with asyncio.TaskGroup() as tasks:
                working = [_spawn(tasks, self._prepare_then_work()), _spawn(tasks, self._watch_readiness())]
                await self.readiness.drain_started()
                _log.info("drain_started")
                await self._server.stop(grace_s=self._settings.drain_timeout_s)
                for task in working:
                    task.cancel()
        finally:
            await self._server.stop(grace_s=0)
            await self._verifying.close()
            await self._minting.close()
            await self._redis.aclose()
            await engine.disconnect()
        _log.info("control_plane_stopped")

    async def _prepare_then_work(self) -> None:
        backoff = Backoff(first_s=0.2, last_s=3.0)
        while True:
            try:
                await engine.connect(
                    self._settings.database_url.reveal(),
                    pool_size=self._settings.database_pool_size,
                    pool_overflow=self._settings.database_overflow,
                )
                await migrate(self._settings)
                break
            except StoreUnavailableError as fault:
                _log.warning("postgres_awaited", fault=str(fault))
                await asyncio.sleep(backoff.next_s())
        self.readiness.report("schema", holds=True)
        async with asyncio.TaskGroup() as tasks:
            for task in self._tasks:
                _spawn(tasks, task.run())

    async def _watch_readiness(self) -> None:
        was_ready: bool | None = None
        while True:
            self.readiness.report("postgres", holds=await _holds(engine.ping()))
            self.readiness.report("redis", holds=await _holds(self._state.ping()))
            if self.readiness.ready != was_ready:
                was_ready = self.readiness.ready
                await self._server.report(serving=was_ready)
                _log.info("readiness_changed", ready=was_ready, failing=list(self.readiness.failing))
            await asyncio.sleep(CHECK_EVERY_S)

    def __repr__(self) -> str:
        return f"ControlPlane(port={self.port}, {self.readiness!r})"


def _callers(settings: Settings) -> Callers:
    tokens = [OperatorToken(name="admin", role=Role.ADMIN, token=settings.admin_token), *settings.operator_tokens]
    if settings.dataplane_token is not None:
        tokens.append(OperatorToken(name="dataplane", role=Role.DATAPLANE, token=settings.dataplane_token))
    return Callers(tuple(tokens))


def _tls(settings: Settings) -> TLSFiles | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return TLSFiles(cert=settings.tls_cert, key=settings.tls_key, client_ca=settings.tls_client_ca)


def _spawn(tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    # A fresh context: a transaction that happens to be open here must not travel into the task.
    return tasks.create_task(work, context=contextvars.Context())


async def _holds(check: Coroutine[Any, Any, None]) -> bool:
    try:
        await check
    except (StoreUnavailableError, RedisUnavailableError):
        return False
    return True
