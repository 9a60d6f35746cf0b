"""What the control plane tells those who watch it."""

import asyncio
import urllib.request

from controlplane.core.discovery import Poll
from controlplane.metrics import Metrics
from deploy.local.ports import free_port
from shared.keyspace import SHARD_COUNT
from tests.integration.controlplane.conftest import fresh_database, serving, settings_for


async def scraped(port: int) -> dict[str, float]:
    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
            return reply.read().decode()

    lines = [line for line in (await asyncio.to_thread(fetch)).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_they_are_served_and_follow_what_happens(postgres_server, redis):
    port = free_port()
    settings = settings_for(
        await fresh_database(postgres_server),
        redis.url,
        GATEWAY_METRICS_BIND=f"127.0.0.1:{port}",
        OLLAMA_BACKENDS='[{"name": "nowhere", "url": "http://127.0.0.1:1"}]',
    )
    async with serving(settings):
        async with asyncio.timeout(10):
            while (found := await scraped(port))["gateway_fences_valid"] < SHARD_COUNT or len(found) < 20:
                await asyncio.sleep(0.05)
            while (await scraped(port)).get('gateway_backend_polled{backend="nowhere"}') != 0:
                await asyncio.sleep(0.05)
        assert found["gateway_shards_rebuilt_total"] == SHARD_COUNT
        assert found["gateway_usage_events_waiting"] == 0
        assert found["gateway_publications_pending"] == 0


def test_a_backend_that_is_removed_leaves_no_series_behind():
    metrics, backends = Metrics(), {"one": Poll(backend="one", models=()), "two": Poll(backend="two", problem="away")}
    metrics.watch_backends(lambda: backends, len)
    value = metrics.registry.get_sample_value
    assert value("gateway_backend_polled", {"backend": "one"}) == 1
    del backends["one"]
    assert value("gateway_backend_polled", {"backend": "one"}) is None
    assert value("gateway_backend_polled", {"backend": "two"}) == 0
    assert value("gateway_backend_poll_failures_total", {"backend": "two"}) == 3
