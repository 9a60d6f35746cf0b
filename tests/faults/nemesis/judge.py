"""Reads a history and says what in it must not be; nothing else is needed, so it can be judged again at any time."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.nemesis.history import Event

# An answer that is none of these is a fault of ours: faults make it unavailable or break it off, nothing else.
STATUSES = frozenset({0, 200, 401, 429, 502, 503, 504})
# A link with one of these faults carries nothing that an admission could be decided on.
_AWAY_ON_LINK = frozenset({"hold", "hold requests", "hold replies", "refuse", "hang"})
_AWAY = frozenset({"stop", "kill"})
MEMORY_GROWTH_BYTES = 96 * 2**20
WARM_SHARE = 0.25


@dataclass(slots=True)
class Request:
    """Everything that the history says of one request."""

    nonce: str
    asked: Event
    answered: Event = field(default_factory=dict)
    upstream: list[Event] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.nonce} ({self.asked['tenant']}, {self.asked['plane']})"


def judge(events: Sequence[Event]) -> list[str]:
    """All that is wrong, in words; empty when nothing is."""
    requests = _requests(events)
    rows = [event for event in events if event["event"] == "row"]
    # Books that never agreed are not in the history; that is told by whoever waited for them.
    has_books = any(event["event"] == "agrees" for event in events)
    checks = (
        _unchecked(events, requests),
        _after_revocation(events, requests),
        _overspent(events, rows),
        _rows(requests, rows) if has_books else iter(()),
        _mixed_up(events, requests),
        _told_wrongly(events, requests),
        _memory(events),
        _slots(events),
    )
    return [wrong for check in checks for wrong in check]


def _requests(events: Sequence[Event]) -> dict[str, Request]:
    requests = {event["nonce"]: Request(event["nonce"], event) for event in events if event["event"] == "asked"}
    for event in events:
        if event["event"] == "answered":
            requests[event["nonce"]].answered = event
        elif event["event"] == "upstream" and event["nonce"] in requests:
            requests[event["nonce"]].upstream.append(event)
    return requests


def away(events: Sequence[Event]) -> list[tuple[str, float, float]]:
    """When Redis was away for certain: for which data plane ("" for all), from when, until when."""
    healed = {event["number"]: event["at_s"] for event in events if event["event"] == "healed"}
    found = []
    for event in events:
        if event["event"] != "struck":
            continue
        plane, _, server = event["where"].rpartition(">")
        is_away = event["kind"] in (_AWAY_ON_LINK if plane else _AWAY)
        if server == "redis" and is_away and not plane.startswith("controlplane"):
            found.append((plane, event["at_s"], healed.get(event["number"], float("inf"))))
    return found


def _unchecked(events: Sequence[Event], requests: dict[str, Request]) -> Iterator[str]:
    """What was asked while Redis was away could not be admitted before it was back."""
    for plane, began_s, ended_s in away(events):
        for one in requests.values():
            if plane not in ("", one.asked["plane"]) or not began_s < one.asked["at_s"] < ended_s:
                continue
            if any(event["arrived_at_s"] < ended_s for event in one.upstream):
                yield f"unchecked: {one} went upstream while Redis was away"


def _after_revocation(events: Sequence[Event], requests: dict[str, Request]) -> Iterator[str]:
    revoked = {
        event["key"]: event["at_s"] for event in events if event["event"] == "revoked" and not event["is_pending"]
    }
    for one in requests.values():
        if one.asked["at_s"] > revoked.get(one.asked["key"], float("inf")):
            if one.upstream:
                yield f"revoked: {one} went upstream after the answer that its key is revoked"
            if one.answered.get("status") == 200:
                yield f"revoked: {one} was served after the answer that its key is revoked"


def _overspent(events: Sequence[Event], rows: Sequence[Event]) -> Iterator[str]:
    spent: Counter[str] = Counter()
    for row in rows:
        spent[row["tenant"]] += row["total_tokens"]
    for event in events:
        if event["event"] == "tenant" and spent[event["tenant"]] > event.get("budget_total", float("inf")):
            yield f"overspent: {event['tenant']} was charged {spent[event['tenant']]} of {event['budget_total']} tokens"


def _rows(requests: dict[str, Request], rows: Sequence[Event]) -> Iterator[str]:
    outcomes: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["outcome"] not in ("refused", "correction"):
            outcomes[row["request_id"]].append(row["outcome"])
    for request_id, found in outcomes.items():
        if len(found) > 1:
            yield f"rows: {request_id} has {found}"
    for one in requests.values():
        ids = {event["request_id"] for event in one.upstream}
        if one.answered.get("status") == 200:
            ids.add(one.answered["request_id"])
        for request_id in ids:
            if len(outcomes[request_id]) != 1:
                yield f"rows: {one} was admitted and has {outcomes[request_id]}"


def _mixed_up(events: Sequence[Event], requests: dict[str, Request]) -> Iterator[str]:
    """Each client reads its own nonce, and that of nobody else."""
    marker = next((event["marker"] for event in events if event["event"] == "began"), "")
    pattern = re.compile(re.escape(marker) + r"-\d{6}")
    owners: dict[str, str] = {}
    for one in requests.values():
        answered: dict[str, Any] = one.answered
        heard = set(pattern.findall(answered.get("said", "")))
        if heard - {one.nonce}:
            yield f"mixed up: {one} was told {sorted(heard)}"
        if answered.get("status") == 200 and answered["end"] == "whole" and answered["is_done"] and not heard:
            yield f"mixed up: {one} was told nothing of its own"
        for event in (*one.upstream, answered):
            request_id = event.get("request_id", "")
            if request_id and owners.setdefault(request_id, one.nonce) != one.nonce:
                yield f"mixed up: {request_id} is both {owners[request_id]} and {one.nonce}"


def _told_wrongly(events: Sequence[Event], requests: dict[str, Request]) -> Iterator[str]:
    """Statuses that faults do not explain, and streams with a wrong end."""
    ended = {event["key"]: event["at_s"] for event in reversed(events) if event["event"] == "revoking"}
    late = {event["key"] for event in events if event["event"] == "minted" and event["is_pending"]}
    for one in requests.values():
        answered = one.answered
        if not answered:
            yield f"status: {one} was never answered"
            continue
        status, key = answered["status"], one.asked["key"]
        if status not in STATUSES:
            yield f"status: {one} was answered {status}"
        if status == 401 and answered["at_s"] < ended.get(key, float("inf")) and key not in late:
            yield f"status: {one} was answered 401, and its key was good"
        if status == 200 and answered["end"] == "whole" and (not answered["is_done"] or answered["errors"]):
            yield f"end: {one} came to a proper end without being complete"
        if status == 200 and answered["end"] == "broken" and answered["is_done"] and answered["errors"]:
            yield f"end: {one} was told both that it is complete and that it is not"


def _memory(events: Sequence[Event]) -> Iterator[str]:
    seen: dict[tuple[str, int], list[int]] = defaultdict(list)
    for event in events:
        if event["event"] == "memory":
            seen[event["plane"], event["pid"]].append(event["rss_bytes"])
    for (plane, _), values in seen.items():
        warm = max(values[: max(1, int(len(values) * WARM_SHARE))])
        if max(values) > warm + MEMORY_GROWTH_BYTES:
            yield f"memory: {plane} grew from {warm >> 20} to {max(values) >> 20} MiB"


def _slots(events: Sequence[Event]) -> Iterator[str]:
    limits = {
        event["tenant"]: event["concurrent"] for event in events if event["event"] == "tenant" and "concurrent" in event
    }
    for event in events:
        if event["event"] == "slots" and event["held"] > limits[event["tenant"]]:
            yield f"slots: {event['tenant']} held {event['held']} of {limits[event['tenant']]}"
