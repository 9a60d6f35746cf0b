"""Redis: reachable, new enough, never forgetting, fast; and what control planes keep in it."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from controlplane.doctor.findings import Finding, failed, names, ok, skipped, warning
from controlplane.publish.connection import translated
from controlplane.publish.fence import Fences, Server
from controlplane.publish.replicas import Replicas
from shared.clock import Clock
from shared.keyspace import SHARD_COUNT

MIN_VERSION = (7, 0)
# How the names of users begin that ``deploy/redis/users.conf`` makes; CONFIG is closed to all of them.
GATEWAY_USERS = "gateway_"
PINGS = 10
# Every request waits for two round trips before it is sent on.
SLOW_PING_MS = 5.0
FULL = 0.8

_ADVICE = {
    "redis is a replica": "let REDIS_URL lead to the primary",
    "redis evicts keys (maxmemory-policy must be noeviction)": "set maxmemory-policy noeviction in redis.conf",
    "redis has no append-only file": "set appendonly yes in redis.conf",
    "redis has replicas but no min-replicas-to-write": "set min-replicas-to-write 1 in redis.conf",
}


async def reachable(redis: Redis) -> list[Finding]:
    """Whether the server answers this user."""
    try:
        await redis.ping()
    except AuthenticationError:
        return [failed("redis.reachable", "refuses user or password", "correct REDIS_URL, or the user in users.conf")]
    except (RedisError, OSError) as fault:
        return [
            failed("redis.reachable", type(fault).__name__, "start Redis, or correct the host and port of REDIS_URL")
        ]
    return [ok("redis.reachable", "answers this user")]


async def server(redis: Redis, fences: Fences) -> list[Finding]:
    """Version, and everything for which planes would refuse it."""
    with translated():
        info: dict[str, Any] = await redis.info("everything")
    return [_version(info), *_problems(await fences.server()), _file(info), _memory(info)]


async def append_fsync(redis: Redis) -> list[Finding]:
    """How often the append-only file reaches the disk; only CONFIG tells, which users of the gateway may not ask."""
    name = "redis.appendfsync"
    if str(redis.connection_pool.connection_kwargs.get("username") or "").startswith(GATEWAY_USERS):
        # Not even asked: Redis logs who asked for what is not theirs, and operators watch that log.
        return [_closed(name)]
    try:
        answer = await redis.config_get("appendfsync")
    except NoPermissionError:
        return [
            skipped(name, "CONFIG is closed to this user", "see that redis.conf has appendfsync everysec or always")
        ]
    except RedisError as fault:
        return [skipped(name, f"CONFIG GET: {type(fault).__name__}")]
    value = str(answer.get("appendfsync", "unknown"))
    if value in ("everysec", "always"):
        return [ok(name, value)]
    return [warning(name, value, "set appendfsync everysec: what was counted since the last flush is lost in a crash")]


async def latency(redis: Redis, clock: Clock) -> list[Finding]:
    """The shortest of some round trips: what the way there costs each request."""
    took_ms = []
    with translated():
        for _ in range(PINGS):
            started_s = clock.monotonic()
            await redis.ping()
            took_ms.append(1000 * (clock.monotonic() - started_s))
    seen = f"{min(took_ms):.2f} ms, the shortest of {PINGS}"
    if min(took_ms) <= SLOW_PING_MS:
        return [ok("redis.latency", seen)]
    return [warning("redis.latency", seen, "bring Redis nearer to the data planes: each request waits for it")]


async def fences(keeper: Fences) -> list[Finding]:
    """Whether all shards are proven to hold rebuilt state for this run of the server."""
    found = await keeper.server()
    missing = await keeper.missing(found.incarnation)
    if not missing:
        return [ok("state.fences", f"all {SHARD_COUNT} shards")]
    advice = (
        "requests of these shards are refused until a control plane has rebuilt them: see that one runs, and its log"
    )
    return [failed("state.fences", f"missing or of another run: {names(missing)}", advice)]


async def data_planes(registry: Replicas) -> list[Finding]:
    """Whether workers of the data plane are there and ready, as control planes have heard of them."""
    name, workers = "data-planes", await registry.live()
    if not workers:
        return [failed(name, "none was heard of in the last seconds", "start one; see GATEWAY_CONTROL_ADDRESSES there")]
    waiting = [worker.address or worker.worker_id for worker in workers if not worker.ready]
    rejecting = [worker.address or worker.worker_id for worker in workers if worker.rejected]
    if waiting:
        return [failed(name, f"not ready: {names(waiting)}", "GET /readyz there says what is missing")]
    if rejecting:
        return [warning(name, f"reject the newest revision: {names(rejecting)}", "see list-replicas and their logs")]
    return [ok(name, f"{len(workers)} ready")]


def _closed(name: str) -> Finding:
    return skipped(name, "CONFIG is closed to this user", "see that redis.conf has appendfsync everysec or always")


def _version(info: dict[str, Any]) -> Finding:
    product = "Valkey" if "valkey_version" in info else "Redis"
    seen = f"{product} {info.get('valkey_version', info['redis_version'])}"
    parts = str(info["redis_version"]).split(".")
    if tuple(int(part) for part in parts[:2]) >= MIN_VERSION:
        return ok("redis.version", seen)
    return failed("redis.version", seen, "use Redis 7.0 or newer, or Valkey")


def _problems(found: Server) -> list[Finding]:
    problems = [failed("redis.policy", problem, _ADVICE[problem]) for problem in found.problems]
    return problems or [ok("redis.policy", "a primary with noeviction and an append-only file")]


def _file(info: dict[str, Any]) -> Finding:
    name = "redis.append-only-file"
    if not info["aof_enabled"]:
        return skipped(name, "there is none")
    if info.get("aof_last_write_status", "ok") != "ok":
        return failed(name, "the last write failed", "see the disk of Redis: space, rights, errors")
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        return warning(name, "the last rewrite failed", "see the disk of Redis: a rewrite needs as much space again")
    return ok(name, "the last write succeeded")


def _memory(info: dict[str, Any]) -> Finding:
    used, most = int(info["used_memory"]), int(info.get("maxmemory", 0))
    if most == 0:
        return warning("redis.memory", "no maxmemory", "set maxmemory below what the machine has to spare")
    seen = f"{used / most:.0%} of {most // 2**20} MiB"
    if used < FULL * most:
        return ok("redis.memory", seen)
    return warning("redis.memory", seen, "raise maxmemory: a full Redis refuses every request")


async def unix_s(redis: Redis) -> float:
    """Seconds since 1970 by the clock of Redis. Raises ``RedisUnavailableError``."""
    with translated():
        seconds, micros = await redis.time()
    return int(seconds) + int(micros) / 1e6
