"""The cost of a request where there is much of everything, beside that where there is one of each."""

from __future__ import annotations

import statistics
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import redis as redis_client
import uvloop

from shared import apikey, keyspace, records
from shared.keyspace import KeyId, TenantId
from shared.records import GrantsRecord, KeyRecord, LimitsRecord, TenantRecord
from tests.bench import processes
from tests.bench.cases import NATIVE_PATH
from tests.bench.fast_replies import REPLY
from tests.bench.load import Load, Request
from tests.bench.measure import settled
from tests.bench.targets import DATA_PLANE, LIMITS, REDIS, Target
from tests.e2e.harness import Gateway

CONNECTIONS = 32
_REQUEST = Request(path=NATIVE_PATH, model=REPLY, is_streamed=False)
_PIPELINE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """CPU per request in µs, medians of rounds; ``ratio`` to the small deployment's data plane, within a round."""

    name: str
    data_plane_us: float
    redis_us: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What is asked in turn."""

    name: str
    target: Target
    messages: Sequence[bytes]
    status: int = 200


def compared(
    small: Target, large: Target, *, keys: int, models: int, tenants: int, rounds: int, seconds: float
) -> list[Cost]:
    """One of each first, then much of everything; the first is what the others are compared with."""
    assert large.gateway is not None
    unlimited = LimitsRecord(**LIMITS)
    many = published(large.gateway, tenants=tenants, keys=keys, limits=unlimited)
    spent = published(
        large.gateway, tenants=tenants, keys=tenants, limits=LimitsRecord(**(LIMITS | {"budget_total": 1}))
    )
    own = [_REQUEST.to_bytes(small.url, small.api_key)]
    of_spent = _messages(large, spent)
    kinds = (
        _Kind(name="1 key, 1 tenant, 5 models", target=small, messages=own),
        _Kind(name=f"1 key, among {models} models", target=large, messages=_messages(large, many[:1])),
        _Kind(name=f"{keys} keys of {tenants} tenants, {models} models", target=large, messages=_messages(large, many)),
        _Kind(name=f"429 of {tenants} tenants at their limits", target=large, messages=of_spent, status=429),
    )
    seen: dict[str, list[tuple[float, float]]] = {kind.name: [] for kind in kinds}
    uvloop.run(_warm(kinds))
    for number in range(rounds):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            seen[kind.name].append(uvloop.run(_measured(kind, seconds)))
    first = seen[kinds[0].name]
    return [
        Cost(
            name=name,
            data_plane_us=statistics.median(own_us for own_us, _ in costs),
            redis_us=statistics.median(redis_us for _, redis_us in costs),
            ratio=statistics.median(own_us / base for (own_us, _), (base, _) in zip(costs, first, strict=True)),
        )
        for name, costs in seen.items()
    ]


def published(gateway: Gateway, *, tenants: int, keys: int, limits: LimitsRecord) -> list[str]:
    """Keys as the control plane would publish them; ten thousand Argon2 hashes would take a quarter of an hour."""
    pepper = gateway.dataplane_environment()["GATEWAY_KEY_PEPPER"].encode()
    owners = [TenantId(str(uuid.uuid4())) for _ in range(tenants)]
    grants = GrantsRecord(allow_all_models=True)
    made: list[str] = []
    with redis_client.Redis.from_url(gateway.description["redis_url"]) as client:
        for first in range(0, keys, _PIPELINE):
            with client.pipeline(transaction=False) as pipe:
                for number in range(first, min(keys, first + _PIPELINE)):
                    owner = owners[number % tenants]
                    shard = keyspace.shard_of(owner)
                    tenant = TenantRecord(tenant_id=owner, name=f"t{number}", version=1, limits=limits, grants=grants)
                    pipe.set(keyspace.tenant_record(owner), records.encode(tenant))
                    pipe.hset(keyspace.live(shard), keyspace.tenant_scope(owner), 1)
                    api_key = apikey.mint(pepper)
                    prefix = apikey.prefix_of(api_key)
                    key_id = KeyId(str(uuid.uuid4()))
                    record = KeyRecord(
                        key_id=key_id,
                        tenant_id=owner,
                        prefix=prefix,
                        version=1,
                        digest=apikey.digest(pepper, api_key),
                        limits=limits,
                    )
                    pipe.set(keyspace.key_record(prefix), records.encode(record))
                    pipe.hset(keyspace.live(shard), keyspace.key_scope(key_id), 1)
                    made.append(api_key)
                pipe.execute()
    return made


def _messages(target: Target, keys: Sequence[str]) -> list[bytes]:
    return [_REQUEST.to_bytes(target.url, key) for key in keys]


async def _warm(kinds: Sequence[_Kind]) -> None:
    """Every key once, so that each is known to the worker."""
    for kind in kinds:
        async with Load(kind.target.url, kind.messages, CONNECTIONS, status=kind.status) as load:
            left = len(kind.messages)
            while left > 0:
                left -= len((await load.run(seconds=0.2)).took_s)


async def _measured(kind: _Kind, seconds: float) -> tuple[float, float]:
    target = kind.target
    async with Load(target.url, kind.messages, CONNECTIONS, status=kind.status) as load:
        await load.run(seconds=0.1)
        before = [processes.cpu_us(target.pids[role]) for role in (DATA_PLANE, REDIS)]
        answers = await load.run(seconds=seconds)
        after = [processes.cpu_us(target.pids[role]) for role in (DATA_PLANE, REDIS)]
    count = len(answers.took_s)
    own_us, redis_us = ((end - start) / count for start, end in zip(before, after, strict=True))
    await settled(target)
    return own_us, redis_us
