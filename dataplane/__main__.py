"""Starts one replica of the data plane: ``python -m dataplane``.

Reads the settings, refuses to start on any fault (exit 64, before a port is bound), then lets granian supervise the
workers. A worker that dies takes the replica down: whoever started it starts it anew.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import resource
import socket
import sys
import tempfile
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from dataplane import config
from dataplane.api.server import EXPECTED_MESSAGES
from dataplane.config import Settings
from dataplane.figures import families
from dataplane.gathering import Workers
from shared import logs, scrape, telemetry
from shared.config import EXIT_CONFIGURATION, ConfigurationError
from shared.otlp_metrics import MetricsPush

# Idle connections count against it, so it has to be far above the number of requests in flight.
MAX_CONNECTIONS_PER_WORKER = 20_000
# Descriptors that clients must leave to Redis, the backends and the control planes: this many, or a share.
RESERVED_DESCRIPTORS = 512
RESERVED_SHARE = 8
# Where the system names no limit, as macOS does, it still has one.
_ENOUGH_DESCRIPTORS = 65_536
LISTEN_BACKLOG = 4096
HEADER_TIMEOUT_MS = 5_000
HEADER_BUFFER_BYTES = 16_384
# Beyond the drain time: long enough for settlements to leave, then the worker is killed.
KILL_GRACE_S = 15

_log = logs.get(__name__)


def main() -> None:
    """Runs until SIGINT or SIGTERM."""
    try:
        settings = config.load(os.environ)
        listener = _metrics_listener(settings)
    except ConfigurationError as error:
        for fault in error.faults:
            print(f"configuration: {fault}", file=sys.stderr)  # noqa: T201 - before there is a log
        sys.exit(EXIT_CONFIGURATION)
    logs.configure(level=settings.log_level, style=settings.log_format, plane="dataplane")
    connections = connections_within(_raise_descriptor_limit())
    with tempfile.TemporaryDirectory(prefix="neuronetz-gateway-") as temporary:
        # Workers read their settings anew and have to find the same folder.
        folder = os.environ["GATEWAY_RUNTIME_DIR"] = settings.runtime_dir or temporary
        _replica(settings, folder, connections, listener).serve()


class Replica(MPServer):
    """The supervisor of the workers; it also answers for all of them when somebody asks for metrics."""

    def __init__(
        self,
        *arguments: Any,
        listener: socket.socket,
        workers_seen: Workers,
        target: telemetry.Target | None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._target = target
        self._listener = listener
        self._workers_seen = workers_seen
        self._serving = contextlib.ExitStack()

    def startup(self, spawn_target: Any, target_loader: Any) -> None:
        """Starts the workers, then the thread that is asked for metrics: no process may be forked after that."""
        super().startup(spawn_target, target_loader)  # type: ignore[no-untyped-call] # granian types it not
        port = self._serving.enter_context(scrape.served(self._workers_seen.registry(), self._listener))
        if self._target is not None:
            push = MetricsPush(self._target, lambda: families(self._workers_seen.figures()))
            self._serving.enter_context(push)
        _log.info("metrics_served", port=port)

    def shutdown(self, exit_code: int = 0) -> None:
        """Stops the workers and then answering for them."""
        try:
            super().shutdown(exit_code)  # type: ignore[no-untyped-call] # as above
        finally:
            self._serving.close()


def _metrics_listener(settings: Settings) -> socket.socket:
    host, _, port = settings.metrics_bind.rpartition(":")
    try:
        return scrape.bound(host=host.strip("[]"), port=int(port))
    except (OSError, OverflowError) as fault:
        raise ConfigurationError([f"GATEWAY_METRICS_BIND: cannot be listened on: {fault}"]) from None


def _replica(settings: Settings, folder: str, connections: int, listener: socket.socket) -> Replica:
    return Replica(
        "dataplane.app:create",
        factory=True,
        address=settings.bind_host,
        port=settings.bind_port,
        interface=Interfaces.ASGI,
        workers=settings.workers,
        loop=Loops.uvloop,
        runtime_mode=RuntimeModes.st,
        http=HTTPModes.http1,
        websockets=False,
        backlog=LISTEN_BACKLOG,
        backpressure=connections,
        http1_settings=HTTP1Settings(
            header_read_timeout=HEADER_TIMEOUT_MS, keep_alive=True, max_buffer_size=HEADER_BUFFER_BYTES
        ),
        log_dictconfig=logs.logging_config(
            level=settings.log_level, style=settings.log_format, expected=EXPECTED_MESSAGES, plane="dataplane"
        ),
        workers_kill_timeout=int(settings.drain_timeout_s) + KILL_GRACE_S,
        listener=listener,
        workers_seen=Workers(folder),
        target=_target(settings),
    )


def _target(settings: Settings) -> telemetry.Target | None:
    return telemetry.target_of(
        settings,
        plane="dataplane",
        instance=f"{socket.gethostname()}:{settings.bind_port}",
        version=importlib.metadata.version("neuronetz-gateway"),
    )


def connections_within(descriptors: int) -> int:
    """Connections that one worker accepts before new ones have to wait for the kernel's backlog.

    More than the process has descriptors for would leave none to ask Redis with, and every client would be refused.
    """
    reserved = min(max(RESERVED_DESCRIPTORS, descriptors // RESERVED_SHARE), descriptors // 2)
    return min(MAX_CONNECTIONS_PER_WORKER, descriptors - reserved)


def _raise_descriptor_limit() -> int:
    """The limit of open descriptors, as high as this process may have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _ENOUGH_DESCRIPTORS
    wanted = _ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


if __name__ == "__main__":
    main()
