"""What a worker that was away is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.changes import Change, ChangeKind
from controlplane.watch.history import MAX_DELTAS, History


def version(revision: int) -> Change:
    return Change(kind=ChangeKind.KEY, id=f"k{revision}", version=1, revision=revision)


def state(kind: ChangeKind, revision: int) -> Change:
    return Change(kind=kind, revision=revision)


def test_nothing_has_happened_since_the_newest_revision():
    history = History()
    history.add(version(5))
    assert history.since(5) == []


def test_versions_come_one_by_one_and_states_once():
    history = History()
    for change in (
        version(1),
        state(ChangeKind.CONFIG, 2),
        version(3),
        state(ChangeKind.CONFIG, 4),
        state(ChangeKind.DISCOVERED, 5),
    ):
        history.add(change)
    assert [change.revision for change in history.since(1) or ()] == [3, 4, 5]


def test_what_is_before_the_beginning_is_not_known():
    history = History()
    history.begin(10)
    history.add(version(11))
    assert history.since(9) is None
    assert history.since(10) is not None


def test_more_than_is_worth_telling_is_not_told():
    history = History()
    for revision in range(1, MAX_DELTAS + 2):
        history.add(version(revision))
    assert history.since(0) is None
    assert history.since(1) is not None


@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 60))
def test_what_is_told_is_complete_or_nothing(capacity, count, since):
    history = History(capacity=capacity)
    revisions = [2 * number for number in range(1, count + 1)]
    for revision in revisions:
        history.add(version(revision))
    deltas = history.since(since)
    missed = [revision for revision in revisions if revision > since]
    if deltas is None:
        assert len(missed) > capacity
    else:
        assert [change.revision for change in deltas] == missed
