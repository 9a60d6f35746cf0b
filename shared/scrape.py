"""Serving metrics to whoever scrapes them: a port of its own, on loopback by default, from a thread of its own."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

# Processes on one machine that were told the same port.
MAX_NEIGHBOURS = 64
_BACKLOG = 16


def bound(*, host: str, port: int) -> socket.socket:
    """A socket that listens for scrapes.

    Processes of one machine may be told the same port: where it is taken, the next ones are tried. Raises ``OSError``
    when none of them is free, or when the host is not this machine's.
    """
    for neighbour in range(MAX_NEIGHBOURS):
        family, *_, address = socket.getaddrinfo(host, port + neighbour, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as fault:
            listener.close()
            if fault.errno != errno.EADDRINUSE:
                raise
        else:
            return listener
    raise OSError(errno.EADDRINUSE, "no port for metrics is free")


@contextlib.contextmanager
def served(registry: CollectorRegistry, listener: socket.socket) -> Iterator[int]:
    """Serves ``/metrics`` on a socket inside the block, and closes it; gives its port."""
    server = _Server(listener)
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    """A scrape that hangs keeps nobody else waiting, and no process from ending."""

    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Scrapes are not worth a line."""
