"""Where the fault matrix is played: one gateway, a faulty backend for every row of the table, one healthy backend.

A row has a mock of its own, so that rows can be played at the same time: circuit breakers are per backend, and a fault
meets only the requests of its row. Within a row the cells come one after the other, each followed by an honest request
over the same backend and the same client connection: a byte that was left behind somewhere would spoil it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.mock_ollama import MockOllama, Model
from deploy.mock_ollama.faults import Refuse
from tests.e2e import accounts
from tests.e2e.harness import Gateway
from tests.faults.expectations import NUM_PREDICT, OUTPUT_TOKENS, PROMPT_TEXT, TABLE, Error, Row
from tests.faults.rawclient import RawClient, Seen
from tests.faults.replies import PATHS, Dialect

HEALTHY = "backend-ok"
# Those that end with a deadline mostly wait; of the others more at once would only make each other late.
LATE_AT_ONCE, ROWS_AT_ONCE = 16, 6
# Far from what a row takes that shall be in time, also where others use the machine.
FIRST_RECORD_S, IDLE_S, TOTAL_S = 3, 3, 6
# At once: by itself no backend would let go.
RELEASED_WITHIN_S = 5.0
_OPTIONS = (
    f"--set=OLLAMA_READ_TIMEOUT_S={FIRST_RECORD_S}",
    f"--set=OLLAMA_IDLE_TIMEOUT_S={IDLE_S}",
    f"--set=OLLAMA_TOTAL_TIMEOUT_S={TOTAL_S}",
    # Lists are asked for once: a poll in the middle would meet the faults.
    "--set=MODEL_DISCOVERY_REFRESH_S=300",
    "--set=MODEL_DISCOVERY_CACHE_TTL_S=900",
    "--set=ARGON2_TIME_COST=1",
    "--set=ARGON2_MEMORY_COST_KIB=8192",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One request of the matrix. `has_second`: a healthy backend stands behind the faulty one."""

    dialect: Dialect
    stream: bool
    has_second: bool

    def __str__(self) -> str:
        return f"{self.dialect}, {'stream' if self.stream else 'whole'}, {'two' if self.has_second else 'one'}"


CELLS = tuple(
    Cell(dialect=dialect, stream=stream, has_second=has_second)
    for dialect, stream, has_second in itertools.product(PATHS, (True, False), (False, True))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of one cell. `asked` counts how often each backend was asked for it."""

    cell: Cell
    model: str
    seen: Seen
    asked: dict[str, int]
    released_in_time: bool
    honest: Seen


@dataclass(slots=True, kw_only=True)
class Lane:
    """One row of the table while it is played."""

    name: str
    row: Row
    mock: MockOllama
    api_key: str = ""
    key_id: str = ""
    played: list[Played] = field(default_factory=list)
    audit: list[dict[str, Any]] = field(default_factory=list)

    @property
    def honest_model(self) -> str:
        """The model that the honest requests ask for."""
        return f"{self.mock.name}-honest"

    def model(self, cell: Cell) -> str:
        """The model that a cell asks for."""
        name = f"{self.mock.name}-{'two' if cell.has_second else 'one'}"
        return f"{name}-{CELLS.index(cell)}" if self.row.forgets_model else name


def upstream_name(model: str, *, is_healthy: bool) -> str:
    """How a backend spells a model. The healthy one does it otherwise, and so its model says something else."""
    return f"{model.upper() if is_healthy else model}:latest"


def body_of(cell: Cell, model: str) -> dict[str, Any]:
    """The request of a cell."""
    messages = [{"role": "user", "content": PROMPT_TEXT}]
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": cell.stream}
    if cell.dialect == "ollama":
        return {**body, "options": {"num_predict": NUM_PREDICT}}
    usage = {"stream_options": {"include_usage": True}} if cell.stream else {}
    return {**body, "max_completion_tokens": NUM_PREDICT, **usage}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The whole table, played: what the ledger has of it included. `workers`: who served before and after."""

    lanes: dict[str, Lane]
    workers: tuple[int, int]
    # Lines of the data plane's log that are errors.
    errors: list[str]


async def play(state: Path) -> Run:
    """Plays the whole table."""
    async with contextlib.AsyncExitStack() as stack:
        lanes, healthy = await _mocks(stack)
        gateway = await stack.enter_async_context(_gateway(state, [*(lane.mock for lane in lanes), healthy]))
        await asyncio.to_thread(_make_keys, gateway, lanes)
        worker = gateway.worker(0)
        late, room = asyncio.Semaphore(LATE_AT_ONCE), asyncio.Semaphore(ROWS_AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            for lane in lanes:
                its_room = late if lane.row.error is Error.LATE else room
                tasks.create_task(_play_lane(lane, healthy, gateway.url, its_room))
        await asyncio.to_thread(_read_ledger, gateway, lanes)
        return Run(
            lanes={lane.name: lane for lane in lanes},
            workers=(worker, gateway.worker(0)),
            errors=_errors(Path(gateway.description["logs"]["dataplane"])),
        )


async def _mocks(stack: contextlib.AsyncExitStack) -> tuple[list[Lane], MockOllama]:
    lanes = []
    for number, (name, row) in enumerate(TABLE.items()):
        lane = Lane(name=name, row=row, mock=MockOllama(name=f"backend-{number:02}"))
        offered = [lane.honest_model, *(lane.model(cell) for cell in CELLS)]
        await _start(stack, lane.mock, [upstream_name(model, is_healthy=False) for model in offered])
        lanes.append(lane)
    healthy = MockOllama(name=HEALTHY)
    shared = [lane.model(cell) for lane in lanes for cell in CELLS if cell.has_second]
    await _start(stack, healthy, [upstream_name(model, is_healthy=True) for model in shared])
    return lanes, healthy


async def _start(stack: contextlib.AsyncExitStack, mock: MockOllama, models: Sequence[str]) -> None:
    await stack.enter_async_context(mock)
    mock.set_models([Model(name=name) for name in dict.fromkeys(models)])
    mock.set_settings(tokens=OUTPUT_TOKENS)


@contextlib.asynccontextmanager
async def _gateway(state: Path, backends: Sequence[MockOllama]) -> AsyncIterator[Gateway]:
    """Started and stopped in a thread: the mocks answer from this event loop meanwhile."""
    gateway = await asyncio.to_thread(Gateway, state, backends, *_OPTIONS)
    try:
        yield gateway
    finally:
        await asyncio.to_thread(gateway.stop)


def _make_keys(gateway: Gateway, lanes: Sequence[Lane]) -> None:
    gateway.tenant("matrix")
    for lane in lanes:
        lane.api_key = gateway.key("matrix", lane.mock.name)
    ids = {row["prefix"]: str(row["id"]) for row in gateway.rows("SELECT prefix, id FROM gateway.api_keys")}
    for lane in lanes:
        lane.key_id = ids[lane.api_key[:12]]
    wanted = [upstream_name(lane.honest_model, is_healthy=False) for lane in lanes]
    gateway.wait_for_models(gateway.key("matrix", "listing"), *wanted)


async def _play_lane(lane: Lane, healthy: MockOllama, url: str, room: asyncio.Semaphore) -> None:
    client = RawClient(url, lane.api_key)
    async with room:
        for cell in CELLS:
            lane.played.append(await _play(lane, cell, client, healthy))
    client.close()


async def _play(lane: Lane, cell: Cell, client: RawClient, healthy: MockOllama) -> Played:
    mock, model = lane.mock, lane.model(cell)
    await _set_up(lane)
    seen = await client.ask(PATHS[cell.dialect], body_of(cell, model))
    try:
        await mock.until(lambda one: one.stats()["in_flight"] == 0, RELEASED_WITHIN_S)
    except TimeoutError:
        released_in_time = False
    else:
        released_in_time = True
    mock.clear_scripts()
    if isinstance(lane.row.fault, Refuse):
        await _await_port(mock)
    asked = {one.name: _asked(one, seen.request_id) for one in (mock, healthy)}
    honest = await client.ask(PATHS[cell.dialect], body_of(cell, lane.honest_model))
    return Played(cell=cell, model=model, seen=seen, asked=asked, released_in_time=released_in_time, honest=honest)


async def _set_up(lane: Lane) -> None:
    fault = lane.row.fault
    if not isinstance(fault, Refuse):
        lane.mock.script(fault, path="/api/chat")
        return
    if not fault.duration_ms:
        # Refused are connections, so there must be none that a request could use.
        lane.mock.script(Refuse(duration_ms=1))
        await _await_port(lane.mock)
    lane.mock.script(fault, times=None)
    await lane.mock.until(lambda one: one.stats()["connections_open"] == 0)


async def _await_port(mock: MockOllama) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection(*mock.url.removeprefix("http://").split(":"))
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


def _asked(mock: MockOllama, request_id: str) -> int:
    return sum(("x-request-id", request_id) in request.headers for request in mock.requests)


def _read_ledger(gateway: Gateway, lanes: Sequence[Lane]) -> None:
    # Nothing held, nothing reserved, and the counters in Redis are what the ledger says.
    accounts.assert_invariants(gateway, [])
    by_key: dict[str, list[dict[str, Any]]] = {lane.key_id: lane.audit for lane in lanes}
    rows = gateway.rows(
        "SELECT key_id, request_id, dialect, endpoint, model, backend, status, outcome, prompt_tokens,"
        " completion_tokens, total_tokens, provenance, occurrences FROM gateway.audit_log"
    )
    for row in rows:
        audit = by_key.get(str(row["key_id"]))
        if audit is not None:
            audit.append(dict(row))
    used = {account.id: budget.used for account, budget in accounts.budgets(gateway).items() if account.kind == "key"}
    for lane in lanes:
        charged = sum(row["total_tokens"] for row in lane.audit)
        if used.get(lane.key_id, 0) != charged:
            raise AssertionError(f"{lane.name}: {used.get(lane.key_id)} used, {charged} audited")


def _errors(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if '"level":"error"' in line or "Traceback" in line]
