"""The scripts on a clock that a test sets: the server's time is what stands in two keys."""

from __future__ import annotations

from typing import Any

from dataplane.quota.scripts import Script
from shared.quota.library import LIBRARY, Library

# The scripts ask for the time in these words.
_TIME = "redis.call('TIME')"
_KEY = "clock of the test"
_READ = f"{{ redis.call('GET', '{_KEY}'), redis.call('GET', '{_KEY}:us') }}"


def on_test_clock(source: str) -> str:
    """The same source, asking the test for the time."""
    return source.replace(_TIME, _READ)


CLOCKED = Library(on_test_clock(LIBRARY.text))


def clocked(script: Script) -> Script:
    """The same script, on the test's clock."""
    return Script(script.name, CLOCKED)


def set_clock(client: Any, now_ms: int) -> None:
    """Says what time it is, in ms of Unix time."""
    seconds, milliseconds = divmod(now_ms, 1000)
    client.mset({_KEY: seconds, f"{_KEY}:us": 1000 * milliseconds})
