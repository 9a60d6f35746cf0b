"""What is sampled of a gateway under the soak: processes as the kernel sees them, metrics, Redis, Postgres."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import httpx
import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.harness import Gateway

SAMPLE_EVERY_S = 10.0
_GAUGES = ("gateway_tasks", "gateway_upstream_connections", "gateway_database_connections", "gateway_leases_held")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One process, or the metrics of one plane, at one moment: names and values."""

    at_s: float
    values: dict[str, float]


class Series(msgspec.Struct, kw_only=True):
    """Everything that was read of one subject."""

    readings: list[Reading] = msgspec.field(default_factory=list)

    def between(self, name: str, start_s: float, end_s: float) -> list[float]:
        """The values of this name that were read in this time."""
        return [one.values[name] for one in self.readings if name in one.values and start_s <= one.at_s <= end_s]

    def median(self, name: str, start_s: float, end_s: float) -> float | None:
        """Their median; None when there is none."""
        values = self.between(name, start_s, end_s)
        return statistics.median(values) if values else None

    def points(self, name: str, scale: float = 1.0) -> list[tuple[float, float]]:
        """Moments and values, for a drawing."""
        return [(one.at_s, one.values[name] * scale) for one in self.readings if name in one.values]


class Samples:
    """Reads everything every ``SAMPLE_EVERY_S`` from the start of the block to its end; time counts from there.

    ``told`` is called after each round with what was read.
    """

    def __init__(self, gateway: Gateway, told: Callable[[float, Mapping[str, Series]], None]) -> None:
        self._gateway = gateway
        self._told = told
        self._processes = processes(gateway)
        self._start_s = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.series: dict[str, Series] = {}
        self.missed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    @property
    def now_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start_s

    def _run(self) -> None:
        due_s = time.monotonic()
        while not self._stopping.wait(max(0.0, due_s - time.monotonic())):
            due_s += SAMPLE_EVERY_S
            self.take()
            self._told(self.now_s, self.series)

    def take(self) -> None:
        """One round now."""
        at_s = self.now_s
        for name, process in self._processes.items():
            with contextlib.suppress(psutil.Error):
                self._add(name, at_s, of_process(process))
        for name, url in zip(planes(self._gateway), self._gateway.description["metrics_urls"], strict=True):
            try:
                self._add(name, at_s, of_metrics(httpx.get(url, timeout=5, trust_env=False).text))
            except httpx.HTTPError:
                self.missed += 1
        self._add("redis", at_s, self._of_redis())
        self._add("postgres", at_s, self._of_postgres())

    def _add(self, name: str, at_s: float, values: dict[str, float]) -> None:
        series = self.series.setdefault(name, Series())
        last = series.readings[-1:] if series.readings and series.readings[-1].at_s == at_s else []
        if last:
            series.readings[-1] = Reading(at_s=at_s, values={**last[0].values, **values})
        else:
            series.readings.append(Reading(at_s=at_s, values=values))

    def _of_redis(self) -> dict[str, float]:
        info: dict[str, Any] = self._gateway.redis.info()
        return {
            "used_bytes": float(info["used_memory"]),
            "keys": float(self._gateway.redis.dbsize()),
            "clients": float(info["connected_clients"]),
            "waiting": float(self._gateway.undrained()),
        }

    def _of_postgres(self) -> dict[str, float]:
        [row] = self._gateway.rows(
            "SELECT (SELECT count(*) FROM gateway.audit_log) AS rows, pg_database_size(current_database()) AS bytes, "
            "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS connections"
        )
        return {name: float(value) for name, value in dict(row).items()}


def planes(gateway: Gateway) -> list[str]:
    """Names for ``metrics_urls``: the data planes, then the control planes."""
    data = [f"dataplane-{number + 1}" for number in range(len(gateway.urls))]
    urls: Sequence[str] = gateway.description["metrics_urls"]
    return data + [f"controlplane-{number + 1}" for number in range(len(urls) - len(data))]


def processes(gateway: Gateway) -> dict[str, psutil.Process]:
    """Every process of the stack that is ours, and the main ones of Redis and Postgres."""
    pids = gateway.description["pids"]
    found = {"up": pids["up"][0], "redis": pids["redis"][0], "postgres": pids["postgres"][0]}
    for number, main in enumerate(pids["dataplane_main"], 1):
        found[f"dataplane-{number} main"] = main
        below = [child.pid for child in psutil.Process(main).children(recursive=True)]
        for worker, pid in enumerate((pid for pid in below if pid in pids["dataplane"]), 1):
            found[f"dataplane-{number} worker {worker}"] = pid
    found |= {f"controlplane-{number}": pid for number, pid in enumerate(pids["controlplane"], 1)}
    return {name: psutil.Process(pid) for name, pid in found.items()}


def of_process(process: psutil.Process) -> dict[str, float]:
    """Memory, descriptors, threads, and the processor time until now."""
    with process.oneshot():
        times = process.cpu_times()
        return {
            "rss_bytes": float(process.memory_info().rss),
            "descriptors": float(process.num_fds()),
            "threads": float(process.num_threads()),
            "cpu_s": times.user + times.system,
        }


def of_metrics(text: str) -> dict[str, float]:
    """The gauges that must not grow, by name; those with a state have it behind the name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if family.name in _GAUGES:
            for sample in family.samples:
                state = sample.labels.get("state", "")
                found[f"{family.name.removeprefix('gateway_')}{'_' + state if state else ''}"] = sample.value
    return found
