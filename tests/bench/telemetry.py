"""What watching costs a worker: CPU per request with everything off, with the request log, and with traces.

    python -m tests.bench.telemetry [--rounds N] [--requests N]

Gateways that differ in their telemetry alone are asked in turn, in one run, and only ratios are worth comparing. With
traces off nothing of ``dataplane.tracing`` is in the way of a request: the stages speak to the same objects as if it
did not exist.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from deploy.local.ports import free_port
from tests.e2e.harness import Gateway, MockOllama, running
from tests.fakes.collector import collecting

CLIENTS = 4
# A busy machine may be slow without anything being refused.
COMMON = ("--set=REDIS_TIMEOUT_S=5",)
BODY = json.dumps({"model": "llama3.2", "messages": [{"role": "user", "content": "hi"}], "stream": False}).encode()


def variants(endpoint: str) -> dict[str, tuple[str, ...]]:
    """What each gateway is told; the first is what the others are compared with."""
    otlp = (f"--set=OTEL_EXPORTER_OTLP_ENDPOINT={endpoint}", "--set=OTEL_METRIC_EXPORT_INTERVAL=1000")
    return {
        "traces and request log off": ("--set=GATEWAY_LOG_LEVEL=warning",),
        "request log": (),
        "request log, OTLP metrics, 1 % traced": (*otlp, "--set=OTEL_TRACES_SAMPLER_ARG=0.01"),
        "request log, OTLP metrics, 10 % traced": (*otlp, "--set=OTEL_TRACES_SAMPLER_ARG=0.1"),
        "request log, OTLP metrics, all traced": (*otlp, "--set=OTEL_TRACES_SAMPLER_ARG=1"),
    }


def ask(gateway: Gateway, key: str, count: int) -> None:
    """So many requests, one after the other, over one connection."""
    connection = http.client.HTTPConnection(str(urlsplit(gateway.url).netloc), timeout=30)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for _ in range(count):
        connection.request("POST", "/api/chat", BODY, headers)
        reply = connection.getresponse()
        body = reply.read()
        assert reply.status == 200, body
    connection.close()


def cpu_us_per_request(gateway: Gateway, key: str, requests: int) -> float:
    """CPU time of the worker, by request, in µs."""
    worker = psutil.Process(gateway.description["pids"]["dataplane"][0])
    before = worker.cpu_times()
    with ThreadPoolExecutor(CLIENTS) as clients:
        for done in [clients.submit(ask, gateway, key, requests // CLIENTS) for _ in range(CLIENTS)]:
            done.result()
    after = worker.cpu_times()
    return (after.user + after.system - before.user - before.system) / requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=1600)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collecting())
        mock = stack.enter_context(running(MockOllama("first")))
        gateways: dict[str, tuple[Gateway, str]] = {}
        for name, told in variants(collector.endpoint).items():
            state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            gateway = stack.enter_context(running(Gateway(state, [mock], *COMMON, f"--port={free_port()}", *told)))
            gateway.tenant("bench")
            gateways[name] = (gateway, gateway.key("bench"))
            gateway.wait_for_models(gateways[name][1], "llama3.2:latest")
        measured: dict[str, list[float]] = {name: [] for name in gateways}
        for number in range(options.rounds + 1):
            for name, (gateway, key) in gateways.items():
                cost = cpu_us_per_request(gateway, key, options.requests)
                # The first round warms up.
                if number:
                    measured[name].append(cost)
    first = next(iter(measured.values()))
    for name, costs in measured.items():
        ratios = [cost / base for cost, base in zip(costs, first, strict=True)]
        sys.stdout.write(
            f"{name:42} {statistics.median(costs):7.0f} µs/request   × {statistics.median(ratios):.3f}"
            f"  ({min(ratios):.3f}–{max(ratios):.3f})\n"
        )


if __name__ == "__main__":
    main()
