"""Every fault that a backend can show, in every way that a client can meet it: exact bytes, one row, one charge.

The table is `tests.faults.expectations`; it is played once, and each test looks at one row of it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import pytest

from deploy.mock_ollama.scripts import FAULT_KINDS
from tests.faults.expectations import CANARY, OUTPUT_TOKENS, PROMPT_ESTIMATE, PROMPT_TOKENS, TABLE, Error, Records
from tests.faults.rawclient import Seen
from tests.faults.replies import Reply, Told, records_of
from tests.faults.stage import HEALTHY, Cell, Lane, Played, Run, play, upstream_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_CREATED = re.compile(rb'"created":(\d{10}),')
_RATES = {f"x-ratelimit-{figure}-{of}" for figure in ("limit", "remaining", "reset") for of in ("requests", "tokens")}
_HEADERS = {"content-type", "x-request-id", "server", "date"}
_OK_HEADERS = _HEADERS | _RATES | {"cache-control"}
_NOTHING = Told(prompt=0, output=0)
_WHOLE = Told(prompt=PROMPT_TOKENS, output=OUTPUT_TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the table says of one cell. `error` with `records`: these, and then the error as an event."""

    backend: str
    records: Records = ()
    error: Error | None = None
    told: Told = _WHOLE
    charged: Told = _WHOLE
    provenance: str = "reported"
    is_asked_second: bool = False


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """The table, played."""
    return asyncio.run(play(tmp_path_factory.mktemp("matrix")))


@pytest.fixture(scope="module")
def lanes(run) -> dict[str, Lane]:
    """Its rows."""
    lanes: dict[str, Lane] = run.lanes
    return lanes


def test_every_fault_of_the_mock_has_a_row():
    assert {str(row.fault.__struct_config__.tag) for row in TABLE.values()} == FAULT_KINDS.keys()


@pytest.mark.parametrize("name", TABLE)
def test_a_client_reads_exactly_these_bytes_whatever_a_backend_does(name, lanes):
    lane = lanes[name]
    assert len(lane.played) == 8
    for played in lane.played:
        wanted = expected(lane, played)
        reply = _reply(played.cell, played.model, played.seen)
        is_stream = played.cell.stream and bool(wanted.records)
        body = _body(reply, wanted)
        assert (str(played.cell), played.seen.body) == (str(played.cell), body)
        assert played.seen.status == (wanted.error.value[0] if wanted.error and not is_stream else 200)
        # A stream that broke off is cut; everything else comes to its proper end.
        assert played.seen.was_ended == (not (is_stream and wanted.error))
        assert _header_names(played.seen) == (
            _OK_HEADERS if is_stream or not wanted.error else _error_headers(wanted.error)
        )
        in_place = wanted.error is not None and not is_stream
        assert played.seen.header("content-type") == (reply.error_content_type if in_place else reply.content_type)


@pytest.mark.parametrize("name", TABLE)
def test_each_request_has_one_row_and_one_charge_with_its_provenance(name, lanes):
    lane = lanes[name]
    for played in lane.played:
        wanted = expected(lane, played)
        [row] = [row for row in lane.audit if row["request_id"] == played.seen.request_id]
        outcome = "upstream_failed" if wanted.error else "completed"
        status = wanted.error.value[0] if wanted.error else 200
        assert (row["outcome"], row["status"], row["backend"]) == (outcome, status, wanted.backend), played.cell
        charged = (row["prompt_tokens"], row["completion_tokens"], row["provenance"])
        assert charged[0] == wanted.charged.prompt, played.cell
        assert charged[2] == wanted.provenance, played.cell
        if wanted.charged.output is not None:
            assert charged[1] == wanted.charged.output, played.cell
        else:
            assert OUTPUT_TOKENS < charged[1] < 64
        assert row["total_tokens"] == charged[0] + charged[1]
        assert (row["occurrences"], row["dialect"], row["model"]) == (1, played.cell.dialect, f"{played.model}:latest")
    # One row for each request, the honest ones included, and none for anything else.
    assert len(lane.audit) == 2 * len(lane.played)


@pytest.mark.parametrize("name", TABLE)
def test_only_what_nobody_has_seen_is_asked_for_again_and_nothing_of_a_backend_is_told(name, lanes):
    lane = lanes[name]
    is_reached = not name.startswith("refuse")
    for played in lane.played:
        wanted = expected(lane, played)
        assert played.asked == {lane.mock.name: int(is_reached), HEALTHY: int(wanted.is_asked_second)}, played.cell
        assert played.released_in_time, played.cell
        for secret in (CANARY, HEALTHY, "127.0.0.1", "localhost", ":" + lane.mock.url.rpartition(":")[2], "Traceback"):
            assert secret.encode() not in played.seen.wire, (played.cell, secret)


@pytest.mark.parametrize("name", TABLE)
def test_the_next_reply_of_the_same_backend_on_the_same_connection_is_untouched(name, lanes):
    lane = lanes[name]
    said = records_of(upstream_name(lane.honest_model, is_healthy=False))
    for played in lane.played:
        reply = _reply(played.cell, lane.honest_model, played.honest)
        assert played.honest.body == reply.completed(said, _WHOLE, _WHOLE), played.cell
        assert (played.honest.status, played.honest.was_ended) == (200, True)
        assert _header_names(played.honest) == _OK_HEADERS


def test_the_worker_survives_all_of_it_without_an_error_of_its_own(run):
    assert run.workers[0] == run.workers[1]
    assert run.errors == []


def expected(lane: Lane, played: Played) -> Expected:
    """The table's word on one cell."""
    row, cell = lane.row, played.cell
    here = records_of(upstream_name(played.model, is_healthy=False))
    if row.error is None:
        charged = Told(prompt=row.prompt, output=row.output)
        told = charged if row.told is None else Told(prompt=row.told[0], output=row.told[1])
        return Expected(
            backend=lane.mock.name,
            records=list(_valid(lane, played, here)),
            told=told,
            charged=charged,
            provenance=row.provenance,
        )
    if cell.has_second and row.is_mended and not (cell.stream and row.records):
        there = records_of(upstream_name(played.model, is_healthy=True))
        return Expected(backend=HEALTHY, records=there, is_asked_second=True)
    if row.records == 0:
        return Expected(backend="", error=row.error, charged=_NOTHING, provenance="counted")
    seen = list(_valid(lane, played, here))
    charged = Told(prompt=PROMPT_ESTIMATE, output=len(seen) if row.records or cell.stream else None)
    return Expected(
        backend=lane.mock.name,
        records=seen if cell.stream else (),
        error=row.error,
        charged=charged,
        provenance="counted",
    )


def _valid(lane: Lane, played: Played, said: Records) -> Iterator[tuple[str, str]]:
    """The valid records before the fault: of an endless reply as many as the client saw."""
    row = lane.row
    if row.valid is not None:
        return iter(row.valid(said))
    if row.error is None:
        return iter(said)
    if row.records is not None:
        return iter(said[: row.records])
    count = len(re.findall(rb'"content":', played.seen.body))
    assert not played.cell.stream or count > OUTPUT_TOKENS
    return islice(cycle(said), count)


def _body(reply: Reply, wanted: Expected) -> bytes:
    if wanted.error is None:
        return reply.completed(wanted.records, wanted.told, _WHOLE)
    if not wanted.records:
        return reply.error(wanted.error)
    return reply.records(wanted.records) + reply.event(wanted.error)


def _reply(cell: Cell, model: str, seen: Seen) -> Reply:
    """What the gateway chose is taken from its reply, and must be all the same there."""
    created = {int(found) for found in _CREATED.findall(seen.body)}
    assert len(created) <= 1
    created_s = created.pop() if created else int(time.time())
    assert abs(created_s - time.time()) < 240
    assert re.fullmatch("[0-9a-f]{32}", seen.request_id)
    return Reply(dialect=cell.dialect, stream=cell.stream, model=model, request_id=seen.request_id, created_s=created_s)


def _header_names(seen: Seen) -> set[str]:
    names: Sequence[str] = [name.lower() for name, _ in seen.headers]
    assert len(names) == len(set(names))
    framing = {"content-length", "transfer-encoding"} & set(names)
    assert len(framing) == 1
    return set(names) - framing


def _error_headers(error: Error) -> set[str]:
    return _HEADERS | ({"retry-after"} if error.value[0] >= 500 else set())
