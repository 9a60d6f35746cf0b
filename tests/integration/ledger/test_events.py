"""Reading usage events: any bytes give a row that fits its columns, or a reason."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.usage import MAX_RAW_LENGTH, UsageEventError, dead_letter, row_of, storable
from shared.records import UsageEvent
from tests.integration.ledger.events import SHARD, event, raw

_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**31, 2**53, 2**63, -(2**70), 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.sampled_from(["", "\0", "20261121", "00000000", "20260230", "correction", "refused", "x" * 300])
    | st.lists(st.integers(), max_size=2)
)
_FIELDS = [field.name for field in msgspec.structs.fields(UsageEvent)]


@given(st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=4))
def test_an_event_with_odd_fields_is_a_row_or_a_reason(odd):
    given_raw = json.dumps(json.loads(raw(1, prompt="p")) | odd).encode()
    try:
        row = row_of(given_raw)
    except UsageEventError:
        return
    assert abs(row.event.prompt_tokens) <= 2**53
    assert 1 <= row.event.occurrences < 2**31
    assert "\0" not in row.event.event_id
    assert row.expires_on is None or row.expires_on > row.day


@given(st.binary(max_size=200))
def test_any_bytes_are_a_row_or_a_reason_and_can_be_kept(data):
    with pytest.raises(UsageEventError) as caught:
        row_of(data)
    letter = dead_letter(SHARD, "1-0", data, str(caught.value))
    assert "\0" not in letter.raw


def test_what_is_kept_of_a_bad_entry_is_bounded():
    assert len(dead_letter(SHARD, "1-0", b"\xff" * 10**6, "x").raw) <= MAX_RAW_LENGTH
    assert dead_letter(SHARD, "1-0", None, "x").raw == ""
    assert storable("a\0b") == "a\N{REPLACEMENT CHARACTER}b"


def test_fields_of_a_later_release_are_ignored():
    later = json.dumps(json.loads(raw(1)) | {"not_yet_known": {"a": 1}}).encode()
    assert row_of(later).event == event(1)
