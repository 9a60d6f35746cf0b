"""Sockets whose machine seems to be gone from the network: the kernel drops whatever comes for them (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
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
        sockets = [
            stack.enter_context(_borrowed(pid, connection.fd))
            for connection in psutil.Process(pid).net_connections("tcp4")
            if connection.laddr.port == port
        ]
        for one in sockets:
            vanish(one)
        yield
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _borrowed(pid: int, fd: int) -> socket.socket:
    """The same socket in this process. Raises ``OSError`` when the kernel does not let us."""
    process = os.pidfd_open(pid)
    try:
        borrowed = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if borrowed < 0:
        raise OSError(ctypes.get_errno(), "the kernel does not lend this socket")
    return socket.socket(fileno=borrowed)
