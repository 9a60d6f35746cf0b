"""What tests of the connection need beside a link: the leases on it, a way to it through a proxy."""

from __future__ import annotations

import uuid

from dataplane.quota.calls import Calls
from dataplane.quota.leases import RedisLeases
from dataplane.quota.link import Link
from dataplane.quota.refused import RefusedVersions
from dataplane.quota.settlements import Settlements
from dataplane.values import RequestId
from deploy.local.redis import Redis
from shared.clock import SystemClock
from tests.fakes.tcp_proxy import TCPProxy


def leases_of(link: Link) -> RedisLeases:
    """The leases of a worker that has this link."""
    calls = Calls(backlog_max_events=16_000)
    settlements = Settlements(link=link, calls=calls, capacity=10)
    return RedisLeases(link=link, calls=calls, buffer=settlements, refused=RefusedVersions(), clock=SystemClock())


def new_id() -> RequestId:
    return RequestId(uuid.uuid4().hex)


def through(proxy: TCPProxy, redis: Redis) -> str:
    """The address of a server by way of a proxy in front of it."""
    return redis.url.replace(f":{redis.port}/", f":{proxy.port}/")
