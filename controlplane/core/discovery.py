"""What discovery knows after a round of polls, from what it knew before. Pure rules.

A backend's bad answer keeps its last good list until the time to live has passed. A model is added by the first good
poll that lists it and removed by the third in a row that does not; a request that meets 404 drops it earlier on the
data plane. Nothing is ever extended by a failure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.records import BackendModelsRecord, DiscoveredRecord, ModelRecord

# Good polls without a model until it is removed.
POLLS_UNTIL_REMOVED = 3
# Models of one backend, those that were missed included.
MAX_MODELS = 1000


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """How one backend answered: its models, or None and the problem."""

    backend: str
    models: tuple[ModelRecord, ...] | None = None
    problem: str = ""


def merged(
    previous: DiscoveredRecord | None, polls: Sequence[Poll], *, now_ms: int, ttl_ms: int
) -> DiscoveredRecord | None:
    """The new record, in the order of ``polls``; backends that were not polled are forgotten.

    None when no backend gave a good answer within ``ttl_ms``: then nothing is known, and nothing may be written.
    The revision follows ``now_ms``, so that it also grows over a loss of all data.
    """
    known = {entry.backend: entry for entry in previous.backends} if previous else {}
    entries = tuple(_entry(known.get(poll.backend), poll, now_ms=now_ms, ttl_ms=ttl_ms) for poll in polls)
    seen_at_ms = max((entry.seen_at_ms for entry in entries), default=0)
    if seen_at_ms + ttl_ms <= now_ms:
        return None
    last_revision = previous.revision if previous else 0
    return DiscoveredRecord(
        revision=max(last_revision + 1, now_ms), expires_at_ms=seen_at_ms + ttl_ms, backends=entries
    )


def _entry(known: BackendModelsRecord | None, poll: Poll, *, now_ms: int, ttl_ms: int) -> BackendModelsRecord:
    if poll.models is not None:
        kept = _missed(known.models if known else (), poll.models)
        return BackendModelsRecord(backend=poll.backend, seen_at_ms=now_ms, models=(poll.models + kept)[:MAX_MODELS])
    if known is None or known.seen_at_ms + ttl_ms <= now_ms:
        return BackendModelsRecord(
            backend=poll.backend, seen_at_ms=known.seen_at_ms if known else 0, problem=poll.problem
        )
    return msgspec.structs.replace(known, problem=poll.problem)


def _missed(before: tuple[ModelRecord, ...], now: tuple[ModelRecord, ...]) -> tuple[ModelRecord, ...]:
    listed = {model.canonical for model in now}
    return tuple(
        msgspec.structs.replace(model, missed_polls=model.missed_polls + 1)
        for model in before
        if model.canonical not in listed and model.missed_polls + 1 < POLLS_UNTIL_REMOVED
    )
