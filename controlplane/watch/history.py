"""The changes of the recent past, so that a worker that was away for a moment is told what it has missed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from controlplane.core.changes import Change, ChangeKind

CAPACITY = 10_000
# With more than this to tell, a snapshot is less work for both sides.
MAX_DELTAS = 500


class History:
    """Changes in the order in which they came, complete above ``floor``."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._versions: deque[Change] = deque()
        self._newest: dict[ChangeKind, Change] = {}
        self.floor = 0

    def add(self, change: Change) -> None:
        """Remembers a change; the oldest is forgotten when there are too many."""
        if not change.is_version:
            self._newest[change.kind] = change
            return
        self._versions.append(change)
        if len(self._versions) > self._capacity:
            self.floor = max(self.floor, self._versions.popleft().revision)

    def begin(self, floor: int) -> None:
        """Forgets everything: what was before this revision is not known."""
        self._versions.clear()
        self._newest.clear()
        self.floor = floor

    def since(self, revision: int) -> Sequence[Change] | None:
        """What has happened since: versions one by one, of everything else the newest change, in order of revisions.

        None when that is not known, or more than is worth telling.
        """
        if revision < self.floor:
            return None
        changes = [change for change in (*self._versions, *self._newest.values()) if change.revision > revision]
        return None if len(changes) > MAX_DELTAS else sorted(changes, key=lambda change: change.revision)

    def __repr__(self) -> str:
        return f"History({len(self._versions)}, floor={self.floor})"
