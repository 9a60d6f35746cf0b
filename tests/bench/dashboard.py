"""The picture of the dashboard in the documents: its own queries over a real run, asked of a real Prometheus.

    python -m tests.bench.dashboard [--write docs/dashboard.svg]

Needs ``prometheus`` on the PATH (Debian: package ``prometheus``). Three minutes of three tenants: one asks more than it
may, keys are wrong now and then, for half a minute the first backend answers every request with an error, and near the
end Redis stands still for two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from deploy.local.ports import free_port
from tests.bench.panels import Panel, drawing
from tests.e2e.harness import Gateway, MockOllama, bearer, eventually, running

DASHBOARD = Path(__file__).parents[2] / "deploy" / "observability" / "dashboard.json"
SECONDS, STEP_S, RATE_INTERVAL = 180, 3, "12s"
CLIENTS = 8
FAULT_AT_S, FAULT_FOR_S = 50, 30
REDIS_AT_S, REDIS_FOR_S = 140, 2
PACE = {"tokens": 40, "tokens_per_record": 1, "record_delay_ms": 12, "load_delay_ms": 0}


@contextlib.contextmanager
def prometheus(urls: list[str]) -> Iterator[str]:
    """A Prometheus that scrapes these every second; gives its address."""
    program = shutil.which("prometheus")
    if program is None:
        raise SystemExit("prometheus is not on the PATH")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        targets = [str(urlsplit(url).netloc) for url in urls]
        jobs = [{"job_name": "gateway", "static_configs": [{"targets": targets}]}]
        config = Path(folder) / "prometheus.yml"
        config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def ask(gateway: Gateway, keys: list[str], over: threading.Event, seed: int) -> None:
    """One client that goes on asking for this and that."""
    made = random.Random(seed)
    with httpx.Client(base_url=gateway.url, timeout=30, trust_env=False) as http:
        while not over.wait(made.expovariate(6)):
            key = made.choice(keys) if made.random() > 0.02 else keys[0][:-1] + "0"
            model = made.choice(("llama3.2", "llama3.2", "qwen3:8b"))
            chat: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            with contextlib.suppress(httpx.HTTPError):
                match made.randrange(5):
                    case 0:
                        http.post("/api/chat", json=chat | {"stream": False}, headers=bearer(key))
                    case 1:
                        http.post("/v1/chat/completions", json=chat | {"stream": True}, headers=bearer(key))
                    case 2:
                        http.post("/api/embed", json={"model": "nomic-embed-text", "input": "hi"}, headers=bearer(key))
                    case _:
                        http.post("/api/chat", json=chat, headers=bearer(key))


def play(gateway: Gateway, mocks: list[MockOllama]) -> None:
    """What happens meanwhile."""
    began_s = time.monotonic()

    def until(at_s: float) -> None:
        time.sleep(max(0.0, began_s + at_s - time.monotonic()))

    until(FAULT_AT_S)
    for path in ("/api/chat", "/api/embed"):
        mocks[0].script({"fault": {"kind": "status", "status": 500}, "match": {"path": path}, "times": 1_000_000})
    until(FAULT_AT_S + FAULT_FOR_S)
    mocks[0].reset()
    mocks[0].settings(**PACE)
    until(REDIS_AT_S)
    gateway.signal_server("redis", signal.SIGSTOP)
    until(REDIS_AT_S + REDIS_FOR_S)
    gateway.signal_server("redis", signal.SIGCONT)
    until(SECONDS)


def rows(address: str, began_s: float) -> dict[str, list[Panel]]:
    """The panels of the dashboard with what Prometheus answers to their queries."""
    found: dict[str, list[Panel]] = {}
    row = ""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        series: dict[str, list[tuple[float, float]]] = {}
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
            asked = {"query": expression, "start": began_s, "end": began_s + SECONDS, "step": STEP_S}
            reply = httpx.get(f"{address}/api/v1/query_range", params=asked, trust_env=False, timeout=20)
            reply.raise_for_status()
            for result in reply.json()["data"]["result"]:
                legend = target["legendFormat"]
                for name, value in result["metric"].items():
                    legend = legend.replace("{{" + name + "}}", value)
                points = [(float(at) - began_s, float(value)) for at, value in result["values"]]
                series[legend] = [(at, value) for at, value in points if math.isfinite(value)]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        found.setdefault(row, []).append(Panel(title=panel["title"], unit=unit, series=series))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, default=Path("docs/dashboard.svg"))
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        mocks = [stack.enter_context(running(MockOllama(name))) for name in ("first", "second")]
        for mock in mocks:
            mock.settings(**PACE)
        state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        told = (f"--port={free_port()}", "--set=GATEWAY_WORKERS=2")
        gateway = stack.enter_context(running(Gateway(state, mocks, *told)))
        gateway.tenant("acme")
        gateway.tenant("globex")
        gateway.tenant("initech", rpm=60)
        keys = [gateway.key(name) for name in ("acme", "globex", "initech")]
        gateway.wait_for_models(keys[0], "llama3.2:latest")
        address = stack.enter_context(prometheus(gateway.description["metrics_urls"]))
        eventually(lambda: _answers(address), timeout_s=30, what="Prometheus")
        over, began_s = threading.Event(), time.time()
        clients = [threading.Thread(target=ask, args=(gateway, keys, over, seed)) for seed in range(CLIENTS)]
        for client in clients:
            client.start()
        play(gateway, mocks)
        over.set()
        for client in clients:
            client.join()
        title = "neuronetz-gateway: deploy/observability/dashboard.json over a run of three minutes"
        options.write.write_text(drawing(rows(address, began_s), seconds=SECONDS, title=title))
    sys.stdout.write(f"{options.write}: {options.write.stat().st_size} bytes\n")


def _answers(address: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{address}/-/ready", trust_env=False, timeout=2).status_code == 200
    return False


if __name__ == "__main__":
    main()
