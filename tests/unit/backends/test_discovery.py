from __future__ import annotations

from controlplane.core.discovery import POLLS_UNTIL_REMOVED, Poll, merged
from shared.modelname import canonical
from shared.records import DiscoveredRecord, ModelRecord

TTL_MS = 120_000


def model(name: str, digest: str = "") -> ModelRecord:
    return ModelRecord(name=name, canonical=canonical(name), digest=digest)


def good(backend: str, *names: str) -> Poll:
    return Poll(backend=backend, models=tuple(model(name) for name in names))


def bad(backend: str) -> Poll:
    return Poll(backend=backend, problem="timeout")


def known(previous: DiscoveredRecord | None, polls: list[Poll], now_ms: int) -> DiscoveredRecord:
    record = merged(previous, polls, now_ms=now_ms, ttl_ms=TTL_MS)
    assert record is not None
    return record


def after(*rounds: tuple[int, list[Poll]]) -> DiscoveredRecord:
    record: DiscoveredRecord | None = None
    for now_ms, polls in rounds:
        record = known(record, polls, now_ms)
    assert record is not None
    return record


def names(record: DiscoveredRecord, backend: int = 0) -> list[str]:
    return [entry.name for entry in record.backends[backend].models]


def test_a_model_is_there_after_the_first_good_poll():
    record = after((1000, [good("a", "one")]), (2000, [good("a", "one", "two")]))
    assert names(record) == ["one", "two"]


def test_a_model_goes_with_the_third_good_poll_in_a_row_without_it():
    rounds = [(1000, [good("a", "one", "two")])]
    for number in range(1, POLLS_UNTIL_REMOVED):
        rounds.append((1000 + number, [good("a", "one")]))
        record = after(*rounds)
        assert names(record) == ["one", "two"]
        assert record.backends[0].models[1].missed_polls == number
    assert names(after(*rounds, (5000, [good("a", "one")]))) == ["one"]


def test_a_bad_poll_neither_counts_against_a_model_nor_for_it():
    rounds = [
        (1000, [good("a", "one")]),
        (1001, [good("a")]),
        (1002, [bad("a")]),
        (1003, [bad("a")]),
        (1004, [good("a")]),
    ]
    assert names(after(*rounds)) == ["one"]
    assert names(after(*rounds, (1005, [good("a")]))) == []


def test_a_model_that_returns_begins_anew():
    record = after(
        (1, [good("a", "one")]), (2, [good("a")]), (3, [good("a", "one")]), (4, [good("a")]), (5, [good("a")])
    )
    assert names(record) == ["one"]


def test_another_spelling_or_digest_replaces_the_old_entry_at_once():
    record = known(after((1, [good("a", "llama3")])), [good("a", "LLAMA3:latest")], 2)
    assert names(record) == ["LLAMA3:latest"]


def test_a_bad_answer_keeps_the_last_good_list_until_its_time_is_over():
    rounds = [(0, [good("a", "one"), good("b", "two")])]
    kept = after(*rounds, (TTL_MS - 1, [good("a", "one"), bad("b")]))
    assert names(kept, 1) == ["two"]
    assert kept.backends[1].problem == "timeout"
    gone = known(kept, [good("a", "one"), bad("b")], TTL_MS)
    assert names(gone, 1) == []
    assert gone.backends[1].seen_at_ms == 0


def test_failures_never_extend_what_is_known():
    first = after((1000, [good("a", "one")]))
    second = known(first, [bad("a")], 60_000)
    assert second.expires_at_ms == first.expires_at_ms == 1000 + TTL_MS
    assert merged(second, [bad("a")], now_ms=1000 + TTL_MS, ttl_ms=TTL_MS) is None


def test_nothing_is_known_without_any_good_answer():
    assert merged(None, [bad("a"), bad("b")], now_ms=10**12, ttl_ms=TTL_MS) is None
    assert merged(None, [], now_ms=10**12, ttl_ms=TTL_MS) is None


def test_an_empty_list_is_an_answer():
    record = known(None, [good("a")], 10**12)
    assert record.backends[0].models == ()


def test_backends_come_in_the_order_of_the_polls_and_those_not_polled_are_forgotten():
    record = after((1, [good("a", "x"), good("b", "x"), good("c", "x")]), (2, [good("c", "x"), good("a", "x")]))
    assert [entry.backend for entry in record.backends] == ["c", "a"]


def test_the_revision_grows_even_when_the_clock_does_not():
    first = known(None, [good("a")], 10**12)
    second = known(first, [good("a")], 10**12)
    third = known(second, [good("a")], 10**12 - 50_000)
    assert first.revision < second.revision < third.revision


def test_a_backend_that_invents_names_cannot_make_the_record_grow_without_end():
    rounds = [(number, [good("a", *(f"m{number}-{n}" for n in range(1000)))]) for number in range(4)]
    record = after(*rounds)
    assert len(record.backends[0].models) == 1000
