"""What happened, one JSON object a line. Moments are of CLOCK_MONOTONIC, in seconds, the same for all processes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

type Event = dict[str, Any]


class History:
    """A file that is appended to, from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def add(self, event: str, **fields: Any) -> None:
        """One more event, now unless ``at_s`` says when."""
        line = json.dumps({"event": event, "at_s": time.monotonic(), **fields}, ensure_ascii=False)
        with self._lock:
            self._file.write(f"{line}\n")

    def close(self) -> None:
        """Everything is in the file."""
        self._file.close()


def read(path: Path) -> list[Event]:
    """All events, in the order in which they were written."""
    return list(_lines(path))


def _lines(path: Path) -> Iterator[Event]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
