"""What a run of ``tests.bench.growth`` has found, for people and as part of a document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.backlog import Drained
from tests.bench.crowded import Cost
from tests.bench.failover_document import filled
from tests.bench.streams import Open

MARK = "growth"
MAX_BYTES_PER_STREAM, MIN_EVENTS_PER_S = 40_000, 10_000
# What a cost may be above that with one of each and still count as flat.
FLAT = 1.15


def text_of(costs: Sequence[Cost], streams: Sequence[Open], drained: Drained | None) -> str:
    """Everything that was looked at, in Markdown."""
    lines: list[str] = []
    if costs:
        lines += ["", "| Deployment | Data plane µs/request | Redis µs/request | ÷ the first |", "|---|---|---|---|"]
        lines += [
            f"| {cost.name} | {cost.data_plane_us:.0f} | {cost.redis_us:.0f} | {cost.ratio:.2f} |" for cost in costs
        ]
    if streams:
        lines += [
            "",
            "| Open streams | Worker MB | KB by stream | Worker, % of a core | Redis, % of a core |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {one.streams} | {one.rss_bytes / 1e6:.0f} | {one.bytes_per_stream / 1e3:.1f} "
            f"| {one.worker_share:.1%} | {one.redis_share:.1%} |"
            for one in streams
        ]
    if drained is not None:
        roles = ", ".join(f"{role} {us:.0f}" for role, us in drained.cpu_us.items())
        lines.append(
            f"\nA backlog of {drained.events} usage events was in Postgres after {drained.seconds:.0f} s: "
            f"{drained.events_per_s:.0f} events/s (goal: ≥ {MIN_EVENTS_PER_S}). CPU µs per event: {roles}."
        )
    return "\n".join([*lines, ""])


def all_hold(costs: Sequence[Cost], streams: Sequence[Open], drained: Drained | None) -> bool:
    """Whether the goals hold, of what was looked at. A refused request is cheaper, and is not compared."""
    return (
        all(cost.ratio <= FLAT for cost in costs)
        and all(one.bytes_per_stream <= MAX_BYTES_PER_STREAM for one in streams)
        and (drained is None or drained.events_per_s >= MIN_EVENTS_PER_S)
    )


def write(document: Path, costs: Sequence[Cost], streams: Sequence[Open], drained: Drained | None) -> None:
    """Fills the document's part. Raises ``ValueError`` when it has none."""
    document.write_text(filled(document.read_text(), text_of(costs, streams, drained), mark=MARK))
