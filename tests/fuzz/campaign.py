"""Many bodies, one after the other: which body comes of which seed, and what is counted.

Body ``index`` of seed ``seed`` is the same on every machine and in every run, for a given corpus: it depends on nothing
before it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from tests.fuzz import corpus, judging, mutations
from tests.fuzz.reducing import reduced
from tests.fuzz.sending import Sender

# More say nothing that these do not say.
MAX_FAILURES = 20
_PROGRESS_EVERY = 5000
_ACCEPTED_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Failure:
    """A body that was found to be treated wrongly; ``least`` is what is left of it after reduction."""

    path: str
    seed: int
    index: int
    kind: str
    text: str
    body: bytes
    least: bytes


@dataclass(slots=True)
class Result:
    """What a campaign came to."""

    seed: int
    bodies: int = 0
    # Accepted bodies whose meaning was compared with Go's.
    compared: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    endpoints: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    longest_body: int = 0
    slowest_parse_s: float = 0.0
    slowest_body_bytes: int = 0
    duration_s: float = 0.0


def body_of(seed: int, index: int, kept: Sequence[corpus.Kept]) -> tuple[str, bytes]:
    """The endpoint and the bytes of one body."""
    random = Random(f"{seed}:{index}")
    # Of those that are refused most mutations are refused too, so that they say less.
    accepted = [body for body in kept if body.status == judging.ACCEPTED]
    origin = random.choice(accepted if random.random() < _ACCEPTED_SHARE else kept)
    # Now and then a body meant for another endpoint.
    path = origin.path if random.random() < 0.95 else random.choice(kept).path
    others = [random.choice(kept).raw for _ in range(3)]
    return path, mutations.mutated(origin.raw, others, random)


async def run(
    count: int,
    seed: int,
    *,
    max_failures: int = MAX_FAILURES,
    reduces: bool = True,
    report: Callable[[Result], None] | None = None,
) -> Result:
    """Judges ``count`` bodies, or fewer if too many fail; ``report`` is called now and then with what there is."""
    kept = corpus.kept()
    sender = Sender()
    result = Result(seed=seed)
    started_s = time.monotonic()
    for index in range(count):
        path, body = body_of(seed, index, kept)
        result.bodies += 1
        result.endpoints[path] += 1
        result.longest_body = max(result.longest_body, len(body))
        try:
            outcome = await judging.judge(path, body, sender)
        except judging.Finding as finding:
            least = await reduced(path, body, finding.kind, sender) if reduces else body
            result.failures.append(Failure(path, seed, index, finding.kind, str(finding), body, least))
            if len(result.failures) >= max_failures:
                break
        else:
            result.statuses[outcome.status] += 1
            result.compared += outcome.compared
            if outcome.parse_s > result.slowest_parse_s:
                result.slowest_parse_s, result.slowest_body_bytes = outcome.parse_s, len(body)
        result.duration_s = time.monotonic() - started_s
        if report is not None and result.bodies % _PROGRESS_EVERY == 0:
            report(result)
    return result
