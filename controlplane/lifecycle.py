"""The life of a control-plane process: listen, prepare, work, drain.

The server listens at once and says NOT_SERVING until Postgres, the schema and Redis are there; neither has to be up for
the process to start, and each may come and go. Every task lives in the one task group of ``run``.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from controlplane.config import Settings
from controlplane.errors import RedisUnavailableError, StoreUnavailableError
from controlplane.metrics import Metrics
from controlplane.publish.redis_state import RedisState
from controlplane.rpc.server import AdminServer
from controlplane.store import engine, migrate
from shared import logs, scrape
from shared.backoff import Backoff
from shared.lifecycle import Readiness
from shared.otlp_metrics import MetricsPush
from shared.telemetry import Target

CHECK_EVERY_S = 0.5
# While something is missing, so that starting takes no longer than it must.
IMPATIENT_CHECK_EVERY_S = 0.05
CANCEL_AGAIN_AFTER_S = 1.0

# Marks the tasks of a control plane and what they start.
_owner: contextvars.ContextVar[str] = contextvars.ContextVar("owner", default="")
_OURS = "control plane"

_log = logs.get("controlplane.lifecycle")


class Worker(Protocol):
    """Something that goes on until it is cancelled."""

    async def run(self) -> None:
        """Works until cancelled."""
        ...


class ControlPlane:
    """One control-plane process; ``run`` returns when it has drained.

    ``workers`` start when the schema is there. ``closing`` ends what holds threads or connections, in this order.
    ``target`` is where metrics are exported to, ``on_statement`` is told of each statement in Postgres.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        server: AdminServer,
        state: RedisState,
        metrics: Metrics,
        workers: Sequence[Worker],
        closing: Sequence[Callable[[], Awaitable[None]]],
        target: Target | None = None,
        on_statement: engine.OnStatement | None = None,
    ) -> None:
        self._settings = settings
        self._server = server
        self._state = state
        self._metrics = metrics
        self._workers = workers
        self._closing = closing
        self._target = target
        self._on_statement = on_statement
        self.readiness = Readiness(("postgres", "schema", "redis"))
        self.port: int | None = None
        metrics.watch_readiness(lambda: self.readiness.ready)

    def stop(self) -> None:
        """Starts draining; ``run`` returns when it is done."""
        self.readiness.start_draining()

    async def run(self) -> None:
        """Serves until ``stop``. Raises ``BindError``."""
        try:
            self.port = await self._server.start()
            _log.info("control_plane_listening", host=self._settings.admin_bind.host, port=self.port)
            loop = asyncio.get_running_loop()
            self._metrics.watch_resources(lambda: len(asyncio.all_tasks(loop)), engine.connections)
            bind = self._settings.metrics_bind
            with contextlib.ExitStack() as serving:
                registry = self._metrics.registry
                serving.enter_context(scrape.served(registry, scrape.bound(host=bind.host, port=bind.port)))
                if self._target is not None:
                    serving.enter_context(MetricsPush(self._target, registry.collect))
                await self._work()
        finally:
            await self._server.stop(grace_s=0)
            for close in self._closing:
                await close()
            await engine.disconnect()
        _log.info("control_plane_stopped")

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            working = [_spawn(tasks, self._prepare_then_work()), _spawn(tasks, self._watch_readiness())]
            await self.readiness.drain_started()
            _log.info("drain_started")
            # Workers go on meanwhile: calls that end now still want their changes published.
            await self._server.stop(grace_s=self._settings.drain_timeout_s)
            await _end(working)

    async def _prepare_then_work(self) -> None:
        backoff = Backoff(first_s=0.2, last_s=3.0)
        while True:
            try:
                await self._prepare()
                break
            except StoreUnavailableError as fault:
                _log.warning("postgres_awaited", fault=str(fault))
                await asyncio.sleep(backoff.next_s())
        self.readiness.report("schema", holds=True)
        async with asyncio.TaskGroup() as tasks:
            for worker in self._workers:
                _spawn(tasks, worker.run())

    async def _prepare(self) -> None:
        await engine.connect(
            self._settings.database_url.reveal(),
            pool_size=self._settings.database_pool_size,
            pool_overflow=self._settings.database_overflow,
            on_statement=self._on_statement,
        )
        await migrate(self._settings)

    async def _watch_readiness(self) -> None:
        was_ready: bool | None = None
        while True:
            self.readiness.report("postgres", holds=await _holds(engine.ping()))
            self.readiness.report("redis", holds=await _holds(self._state.ping()))
            if self.readiness.ready != was_ready:
                was_ready = self.readiness.ready
                await self._server.report(serving=was_ready)
                _log.info("readiness_changed", ready=was_ready, failing=list(self.readiness.failing))
            await asyncio.sleep(CHECK_EVERY_S if was_ready else IMPATIENT_CHECK_EVERY_S)

    def __repr__(self) -> str:
        return f"ControlPlane(port={self.port}, {self.readiness!r})"


def _spawn(tasks: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    # A fresh context: a transaction that happens to be open here must not travel into the task.
    context = contextvars.Context()
    context.run(_owner.set, _OURS)
    return tasks.create_task(work, context=context)


async def _end(working: Sequence[asyncio.Task[None]]) -> None:
    """Cancels these tasks and waits for them.

    A cancellation can get lost: a library that has just given up by itself may swallow it. Then whatever they have
    started and still runs is cancelled again.
    """
    for task in working:
        task.cancel()
    while True:
        _, pending = await asyncio.wait(working, timeout=CANCEL_AGAIN_AFTER_S)
        if not pending:
            return
        left = [task for task in asyncio.all_tasks() if task.get_context().get(_owner) == _OURS]
        _log.warning("cancelled_again", tasks=sorted(str(task.get_coro()) for task in left))
        for task in left:
            task.cancel()


async def _holds(check: Coroutine[Any, Any, None]) -> bool:
    try:
        await check
    except (StoreUnavailableError, RedisUnavailableError):
        return False
    return True
