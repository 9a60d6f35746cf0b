"""The scripts on a clock that a test sets: the server's time is what stands in two keys."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from dataplane.quota.scripts import Script, bulk

# The scripts ask for the time in these words.
_TIME = b"redis.call('TIME')"
_KEY = "clock of the test"
_READ = b"{ redis.call('GET', '%b'), redis.call('GET', '%b:us') }" % (_KEY.encode(), _KEY.encode())


def on_test_clock(source: bytes) -> bytes:
    """The same source, asking the test for the time."""
    return source.replace(_TIME, _READ)


def clocked(script: Script) -> Script:
    """The same script, on the test's clock."""
    made = copy.copy(script)
    made.source = on_test_clock(script.source)
    made._by_digest = bulk("EVALSHA", hashlib.sha1(made.source, usedforsecurity=False).hexdigest())
    made._by_source = bulk("EVAL", made.source)
    made._heads = {}
    return made


def set_clock(client: Any, now_ms: int) -> None:
    """Says what time it is, in ms of Unix time."""
    seconds, milliseconds = divmod(now_ms, 1000)
    client.mset({_KEY: seconds, f"{_KEY}:us": 1000 * milliseconds})
