"""What consumers of a stream's group share: the server's ways of saying that a group is not there, or there already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from redis.exceptions import ResponseError

from controlplane.publish.connection import translated


class NoGroupError(Exception):
    """The stream or its group is not there."""


class GroupExistsError(Exception):
    """Somebody else was faster."""


@contextlib.contextmanager
def group_translated() -> Iterator[None]:
    """Raises ``NoGroupError``, ``GroupExistsError``, and ``RedisUnavailableError`` for everything else."""
    with translated():
        try:
            yield
        except ResponseError as fault:
            text = str(fault)
            if "NOGROUP" in text or "no such key" in text:
                raise NoGroupError from fault
            if "BUSYGROUP" in text:
                raise GroupExistsError from fault
            raise


def text_of(value: bytes | str) -> str:
    """A name or id that the server said."""
    return value.decode() if isinstance(value, bytes) else value
