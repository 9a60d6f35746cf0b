"""What a client is told of its limits per minute, with every reply. May import nothing of ours."""

from __future__ import annotations

import msgspec


class RateLimit(msgspec.Struct, frozen=True):
    """A limit per minute as it stands: of key and tenant the one with less left."""

    limit: int
    remaining: int
    # Seconds until all of it is there again, if nothing more is asked.
    reset_s: int


class Rates(msgspec.Struct, frozen=True):
    """The limits per minute of a request; ``None`` where there is none."""

    requests: RateLimit | None = None
    tokens: RateLimit | None = None
