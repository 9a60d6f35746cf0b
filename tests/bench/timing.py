"""Whether time tells apart what may not be told apart: ``python -m tests.bench.timing [--pairs 2000] [--json]``.

Asks one data plane for both of two things in turn, in random order, on one connection each, and compares how long the
answers took: unknown prefix and wrong secret (both with a valid checksum, which only we can make), a revoked key and
an unknown one, what a guesser can send, and a model that is forbidden, unknown or no model at all.

Printed is the AUC with its 95 % interval (Hanley and McNeil 1982): how often an answer of the one kind took longer than
one of the other; 0.5 tells nothing. Ends with status 1 when one is farther from 0.5 than 0.05. Noise of the machine
hides differences: the medians are printed, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import secrets
import statistics
import sys
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared import apikey
from tests.e2e.crowd import Client, chat
from tests.e2e.harness import Gateway, MockOllama, running

MOST = 0.05
WARM_PAIRS = 50
_Z95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Requests of one kind: each has a key and a model of its own where it draws one."""

    name: str
    status: int
    keys: Sequence[str]
    models: Sequence[str] = ("llama3.2",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What time has told of two kinds."""

    left: str
    right: str
    auc: float
    low: float
    high: float
    medians_ms: tuple[float, float]
    pairs: int

    @property
    def holds(self) -> bool:
        """Whether they cannot be told apart."""
        return abs(self.auc - 0.5) <= MOST

    def __str__(self) -> str:
        verdict = "ok" if self.holds else "TOLD APART"
        medians = " / ".join(f"{median:.2f}" for median in self.medians_ms)
        return (
            f"{self.left:24} {self.right:24} AUC {self.auc:.3f} [{self.low:.3f}, {self.high:.3f}]  "
            f"median {medians} ms  {self.pairs} pairs  {verdict}"
        )


def auc(left: Sequence[float], right: Sequence[float]) -> float:
    """How often one of ``left`` is greater than one of ``right``; equal ones count half."""
    ordered = sorted(right)
    greater = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in left)
    return greater / (2 * len(left) * len(right))


def interval(area: float, count: int) -> tuple[float, float]:
    """95 % for the AUC of two samples of this size (Hanley and McNeil, Radiology 143, 1982)."""
    first, second = area / (2 - area), 2 * area * area / (1 + area)
    spread = (count - 1) * (first + second - 2 * area * area)
    error = math.sqrt(max(0.0, area * (1 - area) + spread)) / count
    return max(0.0, area - _Z95 * error), min(1.0, area + _Z95 * error)


async def compare(url: str, left: Kind, right: Kind, *, pairs: int, source: random.Random) -> Comparison:
    """Asks for both in turn. Raises AssertionError for an answer of another status."""
    took: dict[str, list[float]] = {left.name: [], right.name: []}
    for number in range(-WARM_PAIRS, pairs):
        both = [left, right]
        source.shuffle(both)
        for kind in both:
            # The grid of time and the beginning of a request must have nothing to do with each other.
            await asyncio.sleep(source.uniform(0, 0.004))
            client = Client(url, source.choice(kind.keys))
            try:
                answer = await client.ask(chat(model=source.choice(kind.models)))
            finally:
                client.close()
            assert answer.status == kind.status, f"{kind.name} was answered {answer.status}"
            if number >= 0:
                took[kind.name].append(answer.took_s)
    area = auc(took[left.name], took[right.name])
    low, high = interval(area, pairs)
    medians = (1000 * statistics.median(took[left.name]), 1000 * statistics.median(took[right.name]))
    return Comparison(
        left=left.name, right=right.name, auc=area, low=low, high=high, medians_ms=medians, pairs=pairs
    )  # fmt: skip


def kinds(gateway: Gateway) -> list[tuple[Kind, Kind]]:
    """The pairs that are compared, over keys that are made for it."""
    pepper = json.loads((gateway.state / "secrets.json").read_text())["key_pepper"].encode()
    gateway.tenant("timed", models=["llama3.2:latest"])
    good = [gateway.key("timed", f"k{number}") for number in range(8)]
    revoked = [gateway.key("timed", f"r{number}") for number in range(8)]
    gateway.wait_for_models(good[0], "llama3.2:latest")
    for key in revoked:
        gateway.revoke(key)
    unknown = Kind(name="unknown prefix", status=401, keys=[apikey.mint(pepper) for _ in range(400)])
    wrong = Kind(name="wrong secret", status=401, keys=[sibling(pepper, key) for key in good for _ in range(50)])
    ended = Kind(name="revoked key", status=401, keys=revoked)
    guessed = Kind(name="guess at a known prefix", status=401, keys=[key[:-1] + "-" for key in good])
    nonsense = Kind(name="guess at any prefix", status=401, keys=[apikey.mint(b"another pepper!!") for _ in range(400)])
    forbidden = Kind(name="forbidden model", status=403, keys=good, models=["qwen3:8b"])
    absent = Kind(name="unknown model", status=403, keys=good, models=[f"llama{number}" for number in range(100, 400)])
    invalid = Kind(name="invalid name", status=403, keys=good, models=[f"llama/{n}/x/y:z" for n in range(100, 400)])
    return [
        (unknown, wrong),
        (unknown, ended),
        (guessed, nonsense),
        (forbidden, absent),
        (forbidden, invalid),
    ]


def sibling(pepper: bytes, api_key: str) -> str:
    """A key with the same prefix, another secret and a valid checksum."""
    drawn = "".join(secrets.choice(apikey.ALPHABET) for _ in range(apikey.SECRET_LENGTH))
    body = apikey.prefix_of(api_key) + drawn
    return body + apikey._checksum(pepper, body)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000, help="of each comparison (2000)")
    parser.add_argument("--seed", type=int, default=1, help="of their order (1)")
    parser.add_argument("--json", action="store_true", help="a document instead of lines")
    options = parser.parse_args()
    source = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as state, running(MockOllama("timed")) as mock:
        limits = ("--set=ARGON2_TIME_COST=1", "--set=ARGON2_MEMORY_COST_KIB=8192")
        with running(Gateway(Path(state), [mock], *limits)) as gateway:
            found = []
            for left, right in kinds(gateway):
                found.append(asyncio.run(compare(gateway.url, left, right, pairs=options.pairs, source=source)))
                if not options.json:
                    sys.stdout.write(f"{found[-1]}\n")
                    sys.stdout.flush()
    if options.json:
        told: list[dict[str, Any]] = [
            {"left": one.left, "right": one.right, "auc": one.auc, "interval": [one.low, one.high],
             "medians_ms": one.medians_ms, "pairs": one.pairs, "holds": one.holds}
            for one in found
        ]  # fmt: skip
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    return 0 if all(one.holds for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
