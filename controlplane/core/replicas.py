"""A worker of the data plane as the control plane that it watches knows it: an entry of ``gateway:replicas``."""

from __future__ import annotations

import msgspec

# Acknowledged revisions whose cut streams are remembered.
MAX_REVISIONS = 64


class ReplicaRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One worker process. Whoever stores it stamps ``seen_at_ms`` with the time of Redis."""

    # Unique per worker process and start.
    worker_id: str
    # host:port where it serves clients.
    address: str = ""
    version: str = ""
    pid: int = 0
    # The newest revision that it has applied.
    revision: int = 0
    # Why it has rejected a revision; empty when the last one was applied.
    rejected: str = ""
    in_flight: int = 0
    ready: bool = False
    # The control plane that it watches.
    control_plane: str = ""
    # Streams cut by revision, of the last 64 revisions that it has acknowledged.
    streams_cut: dict[int, int] = {}
    # Milliseconds since 1970 by the clock of Redis.
    seen_at_ms: int = 0
