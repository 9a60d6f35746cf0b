"""The higher of two versions decides."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.quota.refused import RefusedVersions
from dataplane.values import Principal
from shared import keyspace
from shared.keyspace import KeyId
from tests.unit.stages.principals import PRINCIPAL

KEY = keyspace.key_scope(PRINCIPAL.key_id)
TENANT = keyspace.tenant_scope(PRINCIPAL.tenant_id)


def at(key: int = 1, tenant: int = 1) -> Principal:
    return msgspec.structs.replace(PRINCIPAL, key_version=key, tenant_version=tenant)


def failure(refused: RefusedVersions, principal: Principal) -> str | None:
    refusal = refused.refusal_of(principal)
    return None if refusal is None else refusal.failure


def test_nothing_is_known_against_anybody_at_first():
    assert failure(RefusedVersions(), PRINCIPAL) is None


@pytest.mark.parametrize(("version", "expected"), [(4, "revoked"), (5, "revoked"), (6, None)])
def test_key_is_refused_up_to_the_pushed_version(version: int, expected: str | None):
    refused = RefusedVersions()
    refused.refuse(KEY, 5)
    assert failure(refused, at(key=version)) == expected
    assert failure(refused, msgspec.structs.replace(at(key=1), key_id=KeyId("other"))) is None


@pytest.mark.parametrize(("version", "expected"), [(4, "suspended"), (5, "suspended"), (6, None)])
def test_tenant_is_refused_with_all_its_keys(version: int, expected: str | None):
    refused = RefusedVersions()
    refused.refuse(TENANT, 5)
    assert failure(refused, at(key=9, tenant=version)) == expected


def test_resumed_tenant_is_served_at_once():
    refused = RefusedVersions()
    refused.refuse(TENANT, 5)
    refused.allow(TENANT, 6)
    assert failure(refused, at(tenant=4)) is None


def test_old_word_changes_nothing():
    refused = RefusedVersions()
    refused.refuse(KEY, 5)
    refused.refuse(KEY, 3)
    refused.allow(KEY, 4)
    assert failure(refused, at(key=5)) == "revoked"


def test_oldest_refusals_are_forgotten_when_there_are_too_many():
    refused = RefusedVersions(capacity=2)
    for name in ("one", "two", "one", "three"):
        refused.refuse(keyspace.key_scope(KeyId(name)), 5 if name != "one" else 6)
    known = [
        name
        for name in ("one", "two", "three")
        if failure(refused, msgspec.structs.replace(PRINCIPAL, key_id=KeyId(name))) is not None
    ]
    assert known == ["two", "three"]
    assert repr(refused) == "RefusedVersions(2)"


@given(st.lists(st.tuples(st.integers(1, 8), st.booleans())), st.integers(1, 8))
def test_no_order_of_words_serves_what_the_newest_refuses(words: list[tuple[int, bool]], version: int):
    refused = RefusedVersions()
    # One version is either refused or live, whoever speaks of it.
    is_refused = dict(words)
    for number, _ in words:
        (refused.refuse if is_refused[number] else refused.allow)(KEY, number)
    newest = max(is_refused, default=0)
    if newest >= version and is_refused[newest]:
        assert failure(refused, at(key=version)) == "revoked"
    if all(number < version for number in is_refused):
        assert failure(refused, at(key=version)) is None
