"""A thousand clients on four data planes against one budget that is nearly spent, and against a concurrency limit."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.e2e.accounts import assert_invariants, budget_of, scope_ids
from tests.e2e.crowd import Answer, Client, ask_all, chat
from tests.e2e.harness import Gateway, MockOllama, eventually

CLIENTS = 1000
NUM_PREDICT = 200
# Below this a grant is not worth its prompt: the floor of design.
SMALLEST_GRANT = 16
# What the final record of a model is made to say of its tokens.
HOSTILE: dict[str, dict[str, Any]] = {
    "llama3.2:latest": {"set": {"eval_count": -5, "prompt_eval_count": -1_000_000}},
    "qwen3:8b": {"set": {"eval_count": 10**15, "prompt_eval_count": 10**15}},
    "gemma3:4b": {"set": {"eval_count": "17", "prompt_eval_count": 1.5}},
    "plain:1b": {"remove": ["eval_count", "prompt_eval_count"]},
}


class Purse:
    """A tenant with one budget, its keys, and what a request of ``body`` costs and reserves."""

    def __init__(self, fleet: Gateway, mock: MockOllama, body: dict[str, Any], *, keys: int) -> None:
        self._fleet = fleet
        self.tenant = f"race-{uuid.uuid4().hex[:8]}"
        fleet.tenant(self.tenant, budget_total=1_000_000_000)
        self.keys = [fleet.key(self.tenant) for _ in range(keys)]
        self.id = scope_ids(fleet, self.tenant, self.keys[0])["tenant"]
        mock.settings(tokens=NUM_PREDICT, tokens_per_record=20, record_delay_ms=60)
        with ThreadPoolExecutor(1) as pool:
            probe = pool.submit(ask_all, fleet.urls, self.keys[0], [body])
            self.bound = eventually(lambda: self.budget().reserved, what="a reservation")
            [answer] = probe.result()
        assert answer.status == 200
        self.cost = answer.tokens
        eventually(lambda: self.budget() == (self.cost, 0), what="the settlement")

    def budget(self) -> Any:
        return budget_of(self._fleet, "tenant", self.id)

    def leave(self, room: int) -> int:
        """Lowers the budget to what is used already and ``room`` tokens more; returns it."""
        limit: int = self.budget().used + room
        self._fleet.update_tenant(self.tenant, budget_total=limit)
        return limit


async def spend(url: str, key: str, body: dict[str, Any]) -> list[Answer]:
    """Asks until served or told not to try again, each time when it was told to."""
    client, answers = Client(url, key), []
    try:
        while True:
            answers.append(await client.ask(body))
            # On a machine that is too busy to check in time the answer is 503, and that too may be tried again.
            if answers[-1].status not in (429, 503) or answers[-1].headers.get("x-should-retry") == "false":
                return answers
            await asyncio.sleep(answers[-1].retry_after_s)
    finally:
        client.close()


def spend_all(
    urls: Sequence[str], keys: Sequence[str], body: Callable[[int], dict[str, Any]], clients: int
) -> list[list[Answer]]:
    async def all_of_them() -> list[list[Answer]]:
        each = range(clients)
        return await asyncio.gather(*(spend(urls[n % len(urls)], keys[n // 4 % len(keys)], body(n)) for n in each))

    return asyncio.run(all_of_them())


def last(histories: list[list[Answer]], status: int) -> list[Answer]:
    return [answers[-1] for answers in histories if answers[-1].status == status]


def test_a_thousand_clients_cannot_overspend_one_budget_and_what_fits_is_served(fleet, fleet_mock):
    fleet_mock.reset()
    numbered = [chat(text=f"number-{number:04}", num_predict=NUM_PREDICT) for number in range(CLIENTS)]
    purse = Purse(fleet, fleet_mock, numbered[0], keys=4)
    room = 60 * purse.bound + purse.cost // 3
    limit = purse.leave(room)
    histories = spend_all(fleet.urls, purse.keys, lambda number: numbered[number], CLIENTS)

    served, refused = last(histories, 200), last(histories, 429)
    assert len(served) + len(refused) == CLIENTS
    assert {answer.code for answer in refused} == {"insufficient_quota"}
    waited = [answer for answers in histories for answer in answers[:-1]]
    assert {answer.code for answer in waited} <= {"budget_total_limit_exceeded"}
    eventually(lambda: not purse.budget().reserved, what="that nothing is reserved")
    used = purse.budget().used
    assert used <= limit
    assert used == purse.cost + sum(answer.tokens for answer in served)
    assert len(served) >= (room - purse.bound) // purse.cost
    # Not even the smallest grant would have fitted any more.
    assert limit - used < purse.bound - NUM_PREDICT + SMALLEST_GRANT
    assert_invariants(fleet, [fleet_mock], [answer for answers in histories for answer in answers])


def test_hostile_counts_can_neither_overspend_a_budget_nor_refill_it(fleet, fleet_mock):
    fleet_mock.reset()
    models = list(HOSTILE)
    purse = Purse(fleet, fleet_mock, chat(text="number-0000", num_predict=NUM_PREDICT), keys=4)
    for model, counts in HOSTILE.items():
        fault = {"match": {"model": model}, "times": None, "fault": {"kind": "counts", **counts}}
        fleet_mock.script(fault)
    # What is charged is what was seen, a twentieth of what the counts should have said.
    limit = purse.leave(8 * purse.bound)
    histories = spend_all(
        fleet.urls,
        purse.keys,
        lambda number: chat(text=f"number-{number:04}", num_predict=NUM_PREDICT, model=models[number % len(models)]),
        400,
    )
    served, refused = last(histories, 200), last(histories, 429)
    assert len(served) + len(refused) == 400
    assert served
    assert refused
    assert all(0 <= answer.json.get("eval_count", 0) <= NUM_PREDICT for answer in served)
    eventually(lambda: not purse.budget().reserved, what="that nothing is reserved")
    assert purse.budget().used <= limit
    # A record is a token at least: ten of them were seen of every reply.
    assert purse.budget().used >= purse.cost + 10 * len(served)
    assert_invariants(fleet, [fleet_mock], [answer for answers in histories for answer in answers])
    query = (
        "SELECT min(prompt_tokens) AS prompt, min(completion_tokens) AS completion, max(total_tokens) AS most "
        "FROM gateway.audit_log WHERE tenant_id = $1 AND outcome = 'completed'"
    )
    [row] = fleet.rows(query, uuid.UUID(purse.id))
    assert row["prompt"] >= 0
    assert row["completion"] >= 0
    assert row["most"] <= limit


def test_concurrency_is_never_above_its_limit_on_four_replicas(fleet, fleet_mock):
    fleet_mock.reset()
    fleet_mock.settings(tokens=10, record_delay_ms=10)
    tenant = f"few-{uuid.uuid4().hex[:8]}"
    fleet.tenant(tenant, concurrent=7)
    keys = [fleet.limited_key(tenant, concurrent=5), fleet.limited_key(tenant, concurrent=5)]

    def crowd(key: str) -> list[Answer]:
        return ask_all(fleet.urls, key, [chat(number) for number in range(200)])

    with ThreadPoolExecutor(2) as pool:
        answers = [answer for answers in pool.map(crowd, keys) for answer in answers]
    assert {answer.status for answer in answers} == {200, 429}
    assert {answer.code for answer in answers if answer.status == 429} == {"concurrency_limit_exceeded"}
    assert fleet_mock.stats()["max_in_flight"] <= 7
    assert_invariants(fleet, [fleet_mock], answers)

    fleet_mock.reset()
    fleet_mock.settings(tokens=10, record_delay_ms=10)
    alone = crowd(keys[0])
    assert fleet_mock.stats()["max_in_flight"] == 5
    assert_invariants(fleet, [fleet_mock], alone)
