"""The whole look: first who answers, then, of those who do, everything else at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from redis.asyncio import Redis

from controlplane.doctor import (
    backends,
    certificates,
    clocks,
    kept_secrets,
    postgres_server,
    redis_server,
    served,
    targets,
)
from controlplane.doctor.checks import Check, run
from controlplane.doctor.deployment import Deployment, settings
from controlplane.doctor.findings import Finding, Report, Status, skipped
from controlplane.ollama.client import OllamaClient
from controlplane.publish import connection
from controlplane.publish.fence import Fences
from controlplane.publish.replicas import Replicas
from controlplane.store import engine, inspection
from shared.clock import Clock


async def examine(deployment: Deployment, *, clock: Clock, timeout_s: float, further: Sequence[Check] = ()) -> Report:
    """Everything that can be seen of a deployment; each check has ``timeout_s``. Raises nothing.

    ``further`` are checks of things that only the caller can reach.
    """
    try:
        redis = _client(deployment, timeout_s)
    except ValueError:
        # Without the library's text: it may quote the address.
        redis, deployment = None, deployment.with_fault("REDIS_URL: is no address of a Redis server")
    try:
        first = await run([*_first(deployment, redis, clock), *further], timeout_s=timeout_s)
        answering = {finding.name for finding in first if finding.status is Status.OK}
        redis_answers = redis if "redis.reachable" in answering else None
        has_postgres = "postgres.reachable" in answering
        unasked = _unasked(deployment, has_redis=redis_answers is not None, has_postgres=has_postgres)
        later = [] if redis_answers is None else _of_redis(redis_answers, clock, timeout_s)
        later += _of_postgres(clock) if has_postgres else []
        asked, unknown = await targets.known(deployment, redis_answers, timeout_s=timeout_s)
        later += backends.checks(OllamaClient(), asked)
        second = await run(later, timeout_s=timeout_s)
    finally:
        await engine.disconnect()
        if redis is not None:
            await redis.aclose()
    return Report(findings=(*settings(deployment), *first, *unasked, *second, *unknown))


def _client(deployment: Deployment, timeout_s: float) -> Redis | None:
    url = deployment.redis_url
    return None if url is None else connection.connect(url.reveal(), connect_timeout_s=timeout_s)


def _first(deployment: Deployment, redis: Redis | None, clock: Clock) -> list[Check]:
    checks = [
        Check(name="secrets", look=partial(kept_secrets.strength, deployment)),
        Check(name="secrets.files", look=partial(kept_secrets.files, deployment)),
        Check(name="tls", look=partial(certificates.examined, deployment, clock)),
        *served.checks(deployment, clock),
    ]
    if redis is not None:
        checks.append(Check(name="redis.reachable", look=partial(redis_server.reachable, redis)))
    if deployment.database_url is not None:
        look = partial(postgres_server.reachable, deployment.database_url)
        checks.append(Check(name="postgres.reachable", look=look))
    return checks


def _unasked(deployment: Deployment, *, has_redis: bool, has_postgres: bool) -> list[Finding]:
    found = []
    if not has_redis:
        reason = "REDIS_URL is not set here" if deployment.redis_url is None else "Redis does not answer"
        found += [skipped(name, reason) for name in ("redis", "state.fences", "data-planes", "clocks.redis")]
    if not has_postgres:
        reason = "DATABASE_URL is not set here" if deployment.database_url is None else "Postgres does not answer"
        found += [skipped(name, reason) for name in ("postgres", "clocks.postgres")]
    return found


def _of_redis(redis: Redis, clock: Clock, timeout_s: float) -> list[Check]:
    keeper = Fences(redis, timeout_s=timeout_s)
    return [
        Check(name="redis.server", look=partial(redis_server.server, redis, keeper)),
        Check(name="redis.appendfsync", look=partial(redis_server.append_fsync, redis)),
        Check(name="redis.latency", look=partial(redis_server.latency, redis, clock)),
        Check(name="clocks.redis", look=partial(clocks.compared, "redis", partial(redis_server.unix_s, redis), clock)),
        Check(name="state.fences", look=partial(redis_server.fences, keeper)),
        Check(name="data-planes", look=partial(redis_server.data_planes, Replicas(redis, timeout_s=timeout_s))),
    ]


def _of_postgres(clock: Clock) -> list[Check]:
    return [
        Check(name="postgres.server", look=postgres_server.server),
        Check(name="clocks.postgres", look=partial(clocks.compared, "postgres", inspection.unix_s, clock)),
    ]
