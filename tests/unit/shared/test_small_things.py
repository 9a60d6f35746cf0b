"""Redaction, sealing, backoff, readiness, shards, logs."""

import io
import json
import logging
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import apikey, keyspace, logs, sealing
from shared.backends import credential_header
from shared.backoff import Backoff
from shared.lifecycle import Readiness
from shared.redaction import Secret, redact
from shared.sealing import Sealer, SealError

PEPPER = b"a pepper of sixteen bytes or more"


def test_redaction_keeps_the_prefix_of_a_key_and_nothing_else():
    key = apikey.mint(PEPPER)
    text = redact(f"refused {key}, Authorization: Bearer abc.def, redis://:pass@host/0 and postgres://me:word@host/db")
    assert key[:12] in text
    assert key[12:] not in text
    for secret in ("abc.def", "pass@", "word@"):
        assert secret not in text
    assert redact("nothing to see") == "nothing to see"


def test_what_is_sealed_opens_again_and_nothing_else_does():
    sealer = Sealer(bytes(32))
    sealed = sealer.seal("gpu", Secret("token"))
    assert "token" not in sealed
    assert sealer.open("gpu", sealed).reveal() == "token"
    for wrong in (
        lambda: sealer.open("other", sealed),
        lambda: Sealer(b"1" * 32).open("gpu", sealed),
        lambda: sealer.open("gpu", sealed[:-4] + "AAAA"),
        lambda: sealer.open("gpu", "rubbish"),
        lambda: Sealer(b"short"),
        lambda: sealing.decode_key("c2hvcnQ="),
    ):
        with pytest.raises(SealError):
            wrong()


@given(st.binary(min_size=32, max_size=32))
def test_a_sealing_key_is_read_in_both_alphabets(key):
    import base64

    assert sealing.decode_key(base64.b64encode(key).decode()) == key
    assert sealing.decode_key(base64.urlsafe_b64encode(key).decode()) == key


def test_backoff_grows_within_its_bounds_and_starts_anew():
    backoff = Backoff(first_s=0.1, last_s=5.0, source=random.Random(1))
    delays = [backoff.next_s() for _ in range(50)]
    assert all(0.01 <= delay <= 5.0 for delay in delays)
    assert max(delays[:3]) <= 0.4
    assert max(delays[10:]) > 1.0
    backoff.reset()
    assert backoff.next_s() <= 0.1


async def test_readiness_needs_every_check_and_ends_with_draining():
    readiness = Readiness(("redis", "models"))
    assert list(readiness.failing) == ["redis", "models"]
    readiness.report("redis", holds=True)
    readiness.report("models", holds=True)
    assert readiness.ready
    readiness.start_draining()
    await readiness.drain_started()
    assert list(readiness.failing) == ["draining"]
    with pytest.raises(KeyError):
        readiness.report("unknown", holds=True)


@given(st.uuids())
def test_all_keys_of_a_tenant_share_its_shard(tenant):
    shard = keyspace.shard_of(keyspace.TenantId(str(tenant)))
    assert shard in keyspace.SHARDS
    scope = keyspace.tenant_scope(keyspace.TenantId(str(tenant)))
    tag = f"{{{shard}}}"
    for key in (
        keyspace.live(shard), keyspace.fence(shard), keyspace.window(shard, scope), keyspace.leases(shard, scope),
        keyspace.counters(shard, scope), keyspace.expiry(shard), keyspace.usage(shard),
        keyspace.lease(shard, keyspace.LeaseId("l")), keyspace.drained(shard),
    ):  # fmt: skip
        assert key.startswith(f"gateway:{tag}:")


def test_credentials_become_one_header():
    assert credential_header(header="Authorization", scheme="Bearer", token=Secret("t")) == (
        "Authorization",
        "Bearer t",
    )
    assert credential_header(header="X-API-Key", scheme="", token=Secret("t")) == ("X-API-Key", "t")
    assert credential_header(header="Authorization", scheme="Bearer", token=None) is None


@pytest.fixture
def restored_logging():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


def test_log_lines_are_json_that_nobody_can_forge(monkeypatch, restored_logging):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    logs.configure(level="info", style="json", expected=("as planned",), plane="test")
    key = apikey.mint(PEPPER)
    log = logs.get("gateway")
    log.info("client_refused", name='a"\n{"level":"forged"}\x1b[31m', key=key)
    logging.getLogger("library").warning("failed with %s", key)
    logging.getLogger("library").error("all as planned")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["client_refused", f"failed with {key[:12]}***"]
    assert lines[0]["plane"] == "test"
    assert key[12:] not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()
