"""Serving metrics to whoever scrapes them: a port of its own, on loopback by default, from a thread of its own."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

# Processes on one machine that were told the same port.
MAX_NEIGHBOURS = 64


@contextlib.contextmanager
def served(registry: CollectorRegistry, *, host: str, port: int) -> Iterator[WSGIServer]:
    """Serves ``/metrics`` inside the block.

    Workers of one replica are told the same port: where it is taken, the next ones are tried. Raises ``OSError`` when
    none of them is free, or when the host is not this machine's.
    """
    server = _started(registry, host, port)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _started(registry: CollectorRegistry, host: str, port: int) -> WSGIServer:
    for neighbour in range(MAX_NEIGHBOURS):
        try:
            server, _thread = start_http_server(port + neighbour, addr=host, registry=registry)
        except OSError as fault:
            if fault.errno != errno.EADDRINUSE:
                raise
        else:
            return server
    raise OSError(errno.EADDRINUSE, "no port for metrics is free")
