"""The load of the soak: a fixed rate whatever the answers, both dialects, clients that leave, backends that fail.

Each request has a connection of its own, and is asked when it is due however long others take. Faults are told to the
mocks as often as the share says; each is met by the next request that arrives there.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from tests.e2e.crowd import Answer
from tests.e2e.harness import Gateway, MockOllama
from tests.faults.nemesis.conversation import Heard, body_of, converse

MODELS = ("llama3.2", "qwen3:8b")
LEAVES_SHARE, FAULT_SHARE, STREAM_SHARE = 0.10, 0.05, 0.6
LEAVES_WITHIN_S = 0.9
# A reply takes a bit more than half a second.
PACE = {"tokens": 32, "tokens_per_record": 2, "record_delay_ms": 40, "load_delay_ms": 0, "echoes": False}
ROTATED_EVERY_S = 20.0
_LOOKS_AGAIN_S = 0.1
# Of the faults most are met by the backend that is asked first, some by the one that helps out.
_HELPER_SHARE = 0.1
BEFORE_RECORD: tuple[dict[str, Any], ...] = (
    {"kind": "reset_before_headers"},
    {"kind": "close_before_headers"},
    {"kind": "reset_after_headers"},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 503},
    {"kind": "empty_200"},
    {"kind": "half_record", "records": 0},
    {"kind": "refuse", "duration_ms": 150},
)
MID_STREAM: tuple[dict[str, Any], ...] = (
    {"kind": "reset_after_records", "records": 3},
    {"kind": "close_after_records", "records": 5},
    {"kind": "cut_after_records", "records": 2},
    {"kind": "error_line_after_records", "records": 3, "text": "CUDA error"},
    {"kind": "half_record", "records": 4, "then": "reset"},
    {"kind": "invalid_json", "record": 4, "text": "{oops"},
    {"kind": "hang", "where": "after_records", "records": 2},
)

type Refusal = Literal["wrong key", "forbidden model", "malformed body"]


@dataclass(slots=True, kw_only=True)
class Tenant:
    """Who asks: with its limits, its keys, and how often it is among those who ask."""

    name: str
    weight: int
    keys: list[str]


# What each tenant may, how many keys it has, and its weight; the last two run into their limits all the time.
TENANTS: dict[str, tuple[dict[str, Any], int, int]] = {
    "acme": ({}, 3, 10),
    "globex": ({"prompt_log_days": 1}, 2, 8),
    "initech": ({"concurrent": 8}, 2, 6),
    "rotating": ({}, 1, 4),
    "hurried": ({"rpm": 30}, 1, 1),
    "poor": ({"budget_total": 3000}, 1, 1),
}
REFUSALS: tuple[tuple[Refusal, int], ...] = (("wrong key", 1), ("forbidden model", 1), ("malformed body", 1))


def crowd(gateway: Gateway) -> list[Tenant]:
    """Makes the tenants of ``TENANTS`` with their keys."""
    found = []
    for name, (limits, keys, weight) in TENANTS.items():
        gateway.tenant(name, models=None if name != "initech" else ["llama3.2:latest", "qwen3:8b"], **limits)
        found.append(Tenant(name=name, weight=weight, keys=[gateway.key(name, f"k{each}") for each in range(keys)]))
    return found


class Load:
    """Asks from ``start`` to ``stop``, in a thread of its own, at ``rate`` requests a second."""

    def __init__(self, gateway: Gateway, mocks: Sequence[MockOllama], tenants: Sequence[Tenant], *, seed: int) -> None:
        self._gateway = gateway
        self._mocks = mocks
        self._tenants = tenants
        self._source = random.Random(seed)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._urls = itertools.cycle(gateway.urls)
        self.rate = 0.0
        self.makes_trouble = False
        self.answers: list[Answer] = []
        self.statuses: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.late_s = 0.0
        self.told_a_key = 0
        self._ended: set[str] = set()

    def __enter__(self) -> Self:
        self._threads = [
            threading.Thread(target=lambda: asyncio.run(self._ask_on())),
            threading.Thread(target=self._fail_on),
            threading.Thread(target=self._rotate_on),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    @property
    def asked(self) -> int:
        """How many requests have ended until now."""
        return sum(self.statuses.values())

    @property
    def rotated(self) -> int:
        """How many keys were replaced."""
        return len(self._ended)

    async def _ask_on(self) -> None:
        due_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            while not self._stopping.is_set():
                if not self.rate:
                    await asyncio.sleep(_LOOKS_AGAIN_S)
                    continue
                # What is late by more than a second is never caught up with.
                due_s = max(due_s + 1 / self.rate, time.monotonic() - 1)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                self.late_s = max(self.late_s, time.monotonic() - due_s)
                tasks.create_task(self._ask())

    async def _ask(self) -> None:
        source = self._source
        tenant = source.choices(self._tenants, [each.weight for each in self._tenants])[0]
        api_key, dialect = source.choice(tenant.keys), source.choice(("ollama", "openai"))
        body = body_of(
            dialect, f"tell me {source.random()}", model=source.choice(MODELS), stream=source.random() < STREAM_SHARE,
            num_predict=source.choice((16, 64)),
        )  # fmt: skip
        if self.makes_trouble and source.random() < sum(weight for _, weight in REFUSALS) / 100:
            body, api_key = self._refused(body, api_key)
        leaves = source.uniform(0.0, LEAVES_WITHIN_S) if self.makes_trouble and source.random() < LEAVES_SHARE else None
        asked_at_s = time.monotonic()
        heard = await converse(next(self._urls), api_key, dialect, body, leaves_after_s=leaves)
        is_over = api_key in self._ended
        self._note(heard, asked_at_s, is_judged=not (is_over and heard.status == 401))

    def _refused(self, body: dict[str, Any], api_key: str) -> tuple[dict[str, Any], str]:
        kinds, weights = zip(*REFUSALS, strict=True)
        match self._source.choices(kinds, weights)[0]:
            case "wrong key":
                return body, api_key[:-1] + ("0" if api_key[-1] != "0" else "1")
            case "forbidden model":
                return {**body, "model": f"m{self._source.randrange(10_000)}"}, api_key
            case _:
                return {**body, "messages": "none"}, api_key

    def _note(self, heard: Heard, asked_at_s: float, *, is_judged: bool) -> None:
        self.statuses["left" if heard.end == "left" else str(heard.status)] += 1
        is_served = heard.status == 200
        self.ends[("done" if heard.is_done else heard.end) if is_served else "refused"] += 1
        self.told_a_key += any(key.encode() in heard.body for key in self._gateway.minted)
        if heard.request_id and is_judged:
            headers = {"x-request-id": heard.request_id}
            self.answers.append(
                Answer(
                    status=heard.status, headers=headers, body=b"",
                    asked_at_s=asked_at_s, answered_at_s=time.monotonic(),
                )
            )  # fmt: skip

    def _fail_on(self) -> None:
        """Tells a mock of a fault now and then, for as long as there is trouble."""
        source = random.Random(self._source.random())
        while not self._stopping.wait(source.expovariate((self.rate or 1) * FAULT_SHARE)):
            if not self.makes_trouble:
                continue
            fault = source.choice(source.choice((BEFORE_RECORD, MID_STREAM)))
            mock = self._mocks[source.random() < _HELPER_SHARE]
            mock.script({"fault": fault, "match": {"path": "/api/chat"}, "times": 1})
            self.faults[fault["kind"]] += 1

    def _rotate_on(self) -> None:
        """The key of one tenant is made anew again and again, and the old one ends."""
        tenant = next(each for each in self._tenants if each.name == "rotating")
        while not self._stopping.wait(ROTATED_EVERY_S):
            if self.makes_trouble:
                old, tenant.keys = tenant.keys[0], [self._gateway.key("rotating", "next")]
                # Who waits for a whole reply meanwhile is told 401, though the request went upstream.
                self._ended.add(old)
                self._gateway.revoke(old)
