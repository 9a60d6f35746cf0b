"""Sockets whose machine seems to be gone from the network: the kernel drops whatever comes for them (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator

import psutil

# From linux/filter.h, asm-generic/socket.h and asm-generic/unistd.h.
_BPF_RETURN = 0x06
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_PIDFD_GETFD = 438


def vanish(connected: socket.socket) -> None:
    """Drops what comes from now on: nothing is acknowledged, nobody is told."""
    accept_nothing = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0), 8)
    program = struct.pack("HL", 1, ctypes.addressof(accept_nothing))
    connected.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


@contextlib.contextmanager
def vanished_process(pid: int, port: int) -> Iterator[None]:
    """A child process of ours whose port, and every connection to it, is gone from the network for the block."""
    with contextlib.ExitStack() as stack:
        sockets = []
        # The listener first, or else a connection could come in the meantime.
        connections = psutil.Process(pid).net_connections("tcp4")
        for connection in sorted(connections, key=lambda one: one.status != psutil.CONN_LISTEN):
            if connection.laddr.port == port and (one := _borrowed(pid, connection.fd)) is not None:
                sockets.append(stack.enter_context(one))
                vanish(one)
        yield
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _borrowed(pid: int, fd: int) -> socket.socket | None:
    """The same socket in this process, None when it has been closed. Raises ``OSError`` when we may not have it."""
    process = os.pidfd_open(pid)
    try:
        borrowed = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if borrowed >= 0:
        return socket.socket(fileno=borrowed)
    if ctypes.get_errno() == errno.EBADF:
        return None
    raise OSError(ctypes.get_errno(), "the kernel does not lend this socket")
