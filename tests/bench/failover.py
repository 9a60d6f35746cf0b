"""What clients notice of a backend that dies: ``python -m tests.bench.failover [--only killed] [--write FILE]``.

Two backends behind one data plane, steady requests of two tenants, half of them streams. The first backend is struck
down in several ways and comes back. Written down is, second by second, who answered, what clients noticed, and what
the circuit breaker did; the moments are those of the clients and of the data plane's log. It takes four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.bench import failover_document
from tests.bench.course import Asked, Course, Scenario
from tests.bench.victim import Victim
from tests.e2e.harness import Gateway, MockOllama, eventually, running
from tests.faults.rawclient import RawClient

REQUESTS_PER_S = 20
CALM_S = 5
# A reply of so many records, one each so many milliseconds.
RECORDS, RECORD_DELAY_MS = 8, 25
CONNECT_TIMEOUT_S, FIRST_RECORD_S, IDLE_S = 1, 3, 3
ADMISSION_TIMEOUT_S = 2
_PATH = "/api/chat"


SCENARIOS: dict[str, Scenario] = {
    "killed": Scenario(title="Killed (SIGKILL), back after 40 s", strikes=Victim.killed, lasts_s=40, watched_s=68),
    "black-holed": Scenario(
        title="Gone from the network (what is sent to it is dropped), back after 20 s",
        strikes=Victim.black_holed,
        lasts_s=20,
        watched_s=38,
    ),
    "frozen": Scenario(
        title="Frozen (SIGSTOP: connections are accepted, nothing comes), back after 25 s; lists are valid for 10 s",
        strikes=Victim.frozen,
        lasts_s=25,
        watched_s=38,
        discovery_ttl_s=10,
    ),
    "slow": Scenario(
        title="Slow (the first record after 1 s), for 10 s",
        strikes=lambda victim: victim.slow(1000),
        lasts_s=10,
        watched_s=16,
    ),
    "too slow": Scenario(
        title=f"Too slow (the first record would come after 5 s, the deadline is {FIRST_RECORD_S} s), for 10 s",
        strikes=lambda victim: victim.slow(5000),
        lasts_s=10,
        watched_s=20,
    ),
}


def measure(scenario: Scenario) -> Course:
    """One scenario, from a new gateway to what its ledger says."""
    settings = {
        "OLLAMA_CONNECT_TIMEOUT_S": CONNECT_TIMEOUT_S,
        "OLLAMA_READ_TIMEOUT_S": FIRST_RECORD_S,
        "OLLAMA_IDLE_TIMEOUT_S": IDLE_S,
        "MODEL_DISCOVERY_CACHE_TTL_S": scenario.discovery_ttl_s,
        # On a busy machine an admission may take longer than it should; that is not what is looked at here.
        "REDIS_TIMEOUT_S": ADMISSION_TIMEOUT_S,
    }
    pace: dict[str, Any] = {"tokens": RECORDS, "record_delay_ms": RECORD_DELAY_MS}
    with (
        tempfile.TemporaryDirectory() as state,
        Victim("first", **pace) as first,
        running(MockOllama("second")) as second,
        running(Gateway(Path(state), [first, second], *(f"--set={k}={v}" for k, v in settings.items()))) as gateway,
    ):
        second.settings(**pace)
        keys = [_key(gateway, tenant) for tenant in ("north", "south")]
        gateway.wait_for_models(keys[0], "llama3.2:latest")
        struck_s, raw = asyncio.run(_run(gateway.url, keys, first, scenario))
        eventually(lambda: not gateway.undrained() and not gateway.open_leases(), timeout_s=20, what="a drained ledger")
        rows = gateway.rows("SELECT request_id, backend FROM gateway.audit_log")
        backends = {row["request_id"]: row["backend"] for row in rows}
        asked = [_asked(fields, backends, struck_s) for fields in raw]
        breaker = _breaker(Path(gateway.description["logs"]["dataplane"]), struck_s)
    return Course(scenario=scenario, asked=sorted(asked, key=lambda one: one.at_s), breaker=breaker)


def _key(gateway: Gateway, tenant: str) -> str:
    gateway.tenant(tenant)
    return gateway.key(tenant)


async def _run(
    url: str, keys: Sequence[str], victim: Victim, scenario: Scenario
) -> tuple[float, list[tuple[float, float, int, bool, str]]]:
    """The traffic, and the blow in it; requests are asked when they are due, however long the others take."""
    raw: list[tuple[float, float, int, bool, str]] = []
    loop = asyncio.get_running_loop()

    async def ask(number: int) -> None:
        client, asked_s = RawClient(url, keys[number % 2]), time.monotonic()
        message = {"role": "user", "content": f"number-{number}"}
        body = {"model": "llama3.2", "messages": [message], "stream": number % 4 < 2}
        try:
            seen = await client.ask(_PATH, body)
        except (OSError, EOFError, TimeoutError):
            raw.append((asked_s, time.monotonic() - asked_s, 0, False, ""))
        else:
            raw.append((asked_s, time.monotonic() - asked_s, seen.status, seen.was_ended, seen.request_id))
        finally:
            client.close()

    async def strike() -> float:
        await asyncio.sleep(CALM_S)
        with contextlib.ExitStack() as stack:
            moment_s = time.monotonic()
            await asyncio.to_thread(stack.enter_context, scenario.strikes(victim))
            await asyncio.sleep(max(0.0, moment_s + scenario.lasts_s - time.monotonic()))
            await asyncio.to_thread(stack.close)
        return moment_s

    async with asyncio.TaskGroup() as tasks:
        struck = tasks.create_task(strike())
        started_s = loop.time()
        for number in range(REQUESTS_PER_S * (CALM_S + scenario.watched_s)):
            await asyncio.sleep(max(0.0, started_s + number / REQUESTS_PER_S - loop.time()))
            tasks.create_task(ask(number))
    return struck.result(), raw


def _asked(fields: tuple[float, float, int, bool, str], backends: dict[str, str], struck_s: float) -> Asked:
    asked_s, took_s, status, was_ended, request_id = fields
    return Asked(
        at_s=asked_s - struck_s,
        took_s=took_s,
        status=status,
        was_ended=was_ended,
        backend=backends.get(request_id, ""),
    )


def _breaker(log: Path, struck_s: float) -> list[tuple[float, str]]:
    """Changes of the first backend's breaker, from the log's wall clock to seconds since the blow."""
    offset_s = time.time() - time.monotonic()
    changes = []
    for line in log.read_text().splitlines():
        if '"circuit_breaker_changed"' in line:
            event = json.loads(line)
            moment_s = datetime.fromisoformat(event["timestamp"]).timestamp() - offset_s
            changes.append((moment_s - struck_s, str(event["state"])))
    return changes


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="What clients notice of a backend that dies and comes back.")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="this scenario instead of all")
    parser.add_argument("--write", type=Path, help="put the run between the marks of this document")
    arguments = parser.parse_args()
    courses = {name: measure(SCENARIOS[name]) for name in arguments.only or SCENARIOS}
    traffic = failover_document.Traffic(
        requests_per_s=REQUESTS_PER_S,
        calm_s=CALM_S,
        records=RECORDS,
        record_delay_ms=RECORD_DELAY_MS,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        first_record_s=FIRST_RECORD_S,
        idle_s=IDLE_S,
    )
    run = failover_document.run_of(courses, traffic)
    if arguments.write is not None:
        arguments.write.write_text(failover_document.filled(arguments.write.read_text(), run))
    else:
        sys.stdout.write(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
