"""The users of Redis: each can do what its process does, and nothing that it must not. That they suffice is proven by
the end-to-end suite, whose processes log in as them."""

import os
import subprocess
from pathlib import Path

import pytest
import redis as redis_client

from dataplane.quota.scripts import ANNOUNCE, Argument, Call
from deploy.local.redis import CONTROLPLANE, DATAPLANE, OPERATOR, Redis
from shared import keyspace
from shared.keyspace import KeyId, LeaseId, TenantId
from shared.quota.library import LIBRARY, PROBE
from tests.fakes.counted import state_of
from tests.fakes.published_state import PublishedState
from tests.integration.quota.caller import Caller, run

pytestmark = pytest.mark.redis

SHARD = keyspace.SHARDS[7]
SCOPES = (keyspace.key_scope(KeyId("k")), keyspace.tenant_scope(TenantId("t")))
STATE = (
    keyspace.CONFIG,
    keyspace.MODELS_DISCOVERED,
    keyspace.key_record("nz_abcdefghi"),
    keyspace.tenant_record(TenantId("t")),
    *(name(SHARD) for name in (keyspace.live, keyspace.fence, keyspace.rebuild_token, keyspace.drained, keyspace.deny)),
)
COUNTED = (
    *(keyspace.window(SHARD, scope) for scope in SCOPES),
    *(keyspace.counters(SHARD, scope) for scope in SCOPES),
    *(keyspace.leases(SHARD, scope) for scope in SCOPES),
    keyspace.expiry(SHARD),
    keyspace.lease(SHARD, LeaseId("l")),
    keyspace.usage(SHARD),
    keyspace.announced(SHARD),
    keyspace.auth_failures("192.0.2.0"),
    keyspace.ANONYMOUS,
)
OF_CONTROL = (keyspace.CHANGES, keyspace.REPLICAS, keyspace.job_lock("reap"))
FORBIDDEN = (
    ("CONFIG", "GET", "requirepass"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("KEYS", "*"),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "default", "nopass"),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "NO", "ONE"),
    ("MODULE", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("MONITOR",),
    ("SUBSCRIBE", "x"),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "FLUSH"),
    ("FUNCTION", "DELETE", "gateway"),
    ("FUNCTION", "LIST"),
    ("FUNCTION", "DUMP"),
    ("FUNCTION", "RESTORE", "gateway"),
    ("MIGRATE", "127.0.0.1", "1", "k", "0", "1"),
    ("GET", "another:program"),
)
OF_A_THIEF = """#!lua name=of_a_thief
redis.register_function('reads', function(keys) return redis.call('GET', keys[1]) end)
redis.register_function('writes', function(keys) return redis.call('SET', keys[1], 'mine') end)
redis.register_function('empties', function() return redis.call('FLUSHALL') end)
"""


# Every way to run Lua that no control plane has loaded.
OWN_SCRIPTS = (
    ("FUNCTION", "LOAD", OF_A_THIEF),
    ("FUNCTION", "LOAD", "REPLACE", OF_A_THIEF),
    ("FUNCTION", "LOAD", "REPLACE", LIBRARY.source),
    ("EVAL", "return 1", "0"),
    ("EVAL_RO", "return 1", "0"),
    ("EVALSHA", "0" * 40, "0"),
    ("EVALSHA_RO", "0" * 40, "0"),
    ("SCRIPT", "LOAD", "return 1"),
)


@pytest.fixture
def admin(redis: Redis):
    with redis_client.Redis.from_url(redis.url, decode_responses=True) as client:
        yield client


def may(admin, user: str, *command: str) -> bool:
    return admin.execute_command("ACL", "DRYRUN", f"gateway_{user}", *command) == "OK"


def writes(key: str) -> tuple[tuple[str, ...], ...]:
    return (
        ("SET", key, "x"),
        ("SETRANGE", key, "0", "x"),
        ("INCR", key),
        ("HSET", key, "a", "b"),
        ("ZADD", key, "1", "a"),
        ("XADD", key, "*", "e", "x"),
    )


@pytest.mark.parametrize("user", [DATAPLANE, CONTROLPLANE, OPERATOR])
def test_no_user_may_do_what_belongs_to_whoever_runs_the_server(redis, user):
    with redis_client.Redis.from_url(redis.url_of(user), protocol=2) as client:
        assert client.ping()
        for command in FORBIDDEN:
            with pytest.raises(redis_client.exceptions.NoPermissionError):
                client.execute_command(*command)


@pytest.mark.parametrize("user", [DATAPLANE, OPERATOR])
def test_only_a_control_plane_brings_scripts(redis, user):
    published = PublishedState(redis.url)
    published.load()
    with redis_client.Redis.from_url(redis.url_of(user), protocol=2) as client:
        for command in OWN_SCRIPTS:
            with pytest.raises(redis_client.exceptions.NoPermissionError):
                client.execute_command(*command)
    assert published.client.fcall(LIBRARY.function(PROBE), 0) == 1
    assert "of_a_thief" not in published.libraries()
    published.close()


def test_a_control_plane_loads_the_functions_and_may_not_drop_them(redis, admin):
    admin.function_flush()
    with redis_client.Redis.from_url(redis.url_of(CONTROLPLANE), protocol=2) as client:
        client.function_load(LIBRARY.source)
        assert client.fcall(LIBRARY.function(PROBE), 0) == 1
        for command in (("FUNCTION", "DELETE", LIBRARY.name), ("FUNCTION", "KILL")):
            with pytest.raises(redis_client.exceptions.NoPermissionError):
                client.execute_command(*command)


@pytest.mark.parametrize("key", STATE)
def test_a_data_plane_reads_state_and_cannot_write_it(admin, key):
    assert may(admin, DATAPLANE, "GET", key)
    assert may(admin, DATAPLANE, "HMGET", key, "a")
    for command in (*writes(key), ("DEL", key), ("EXPIRE", key, "1")):
        assert not may(admin, DATAPLANE, *command), command


@pytest.mark.parametrize("key", COUNTED)
def test_a_data_plane_may_not_delete_what_it_counts(admin, key):
    assert any(may(admin, DATAPLANE, *command) for command in writes(key))
    for command in (
        ("DEL", key),
        ("UNLINK", key),
        ("XDEL", key, "1-1"),
        ("XTRIM", key, "MAXLEN", "0"),
        ("RENAME", key, key),
    ):
        assert not may(admin, DATAPLANE, *command), command


@pytest.mark.parametrize("key", OF_CONTROL)
def test_a_data_plane_sees_nothing_of_what_control_planes_keep_among_themselves(admin, key):
    for command in (("GET", key), ("HMGET", key, "a"), ("XLEN", key), ("SET", key, "x")):
        assert not may(admin, DATAPLANE, *command), command


@pytest.mark.parametrize("key", [*STATE, *COUNTED, *OF_CONTROL])
def test_a_control_plane_has_every_key_of_the_gateway_and_an_operator_reads_them(admin, key):
    assert may(admin, CONTROLPLANE, "SET", key, "x")
    assert may(admin, OPERATOR, "GET", key)
    for command in (("SET", key, "x"), ("DEL", key), ("EVAL", "return 1", "1", key), ("XADD", key, "*", "a", "b")):
        assert not may(admin, OPERATOR, *command), command


def test_a_script_of_a_data_plane_can_do_no_more_than_the_data_plane(redis, admin):
    fence, config = keyspace.fence(SHARD), keyspace.CONFIG
    admin.set(fence, "before")
    admin.function_load(OF_A_THIEF)
    with redis_client.Redis.from_url(redis.url_of(DATAPLANE), protocol=2) as client:
        assert client.fcall("reads", 1, fence) == b"before"
        for key in (fence, config):
            with pytest.raises(redis_client.exceptions.ResponseError):
                client.fcall("writes", 1, key)
        with pytest.raises(redis_client.exceptions.ResponseError):
            client.fcall("empties", 0)
    admin.function_delete("of_a_thief")
    assert admin.get(fence) == "before"
    assert admin.get(config) is None


def test_the_users_may_do_what_the_scripts_of_their_planes_do(redis):
    admin, dataplane = PublishedState(redis.url), PublishedState(redis.url_of(DATAPLANE) + "?protocol=2")
    admin.stamp()
    admin.client.acl_log_reset()
    caller = Caller(dataplane, admin.principal(), cap=100)
    assert caller.check() == b"allowed"
    assert [caller.acquire(lease_id)[0] for lease_id in ("one", "two", "dead")] == [b"admitted"] * 3
    assert caller.renew("one", "two", "dead") == [b"renewed"]
    assert (caller.settle("one"), caller.abandon("two")) == (b"settled", b"abandoned")
    assert (caller.append(), caller.abandon("dead", is_known_server=False)) == (b"appended", b"marked")
    assert caller.correct("never", 5) == b"corrected"
    shard = caller.principal.shard
    admin.client.delete(keyspace.fence(shard))
    admin.client.set(keyspace.rebuild_token(shard), "token")
    assert run(dataplane, announcement(caller, "three")) == b"announced"
    assert state_of(admin.client, shard, "three") == "open"
    # Nothing was refused but how the client of these tests introduces itself.
    assert {entry["object"] for entry in admin.client.acl_log()} <= {"client|setinfo"}
    dataplane.close()
    admin.close()


def announcement(caller: Caller, lease_id: str) -> Call:
    """What a worker tells a rebuild of one running request and one event."""
    shard, (own, tenant) = caller.principal.shard, caller.slot_names(caller.principal)
    names = (keyspace.rebuild_token, keyspace.fence, keyspace.usage, keyspace.expiry, keyspace.announced)
    keys = [*(name(shard) for name in names), keyspace.lease(shard, LeaseId("over"))]
    keys += [keyspace.lease(shard, LeaseId(lease_id)), own, tenant]
    arguments: list[Argument] = ["token", caller.incarnation, "worker", 30_000, 1000, 1000, 1, b"{}", 0]
    return ANNOUNCE.call(keys, [*arguments, lease_id, "k:k", "t:t", "20261121", "202611", 150, 100, 50, b"{}"])


def test_a_user_without_its_password_is_refused(redis):
    url = redis.url_of(DATAPLANE).replace("gateway_dataplane:", "gateway_dataplane:x")
    with redis_client.Redis.from_url(url) as client, pytest.raises(redis_client.exceptions.AuthenticationError):
        client.ping()


def test_the_script_for_images_renders_what_the_embedded_stack_uses(redis, root: Path):
    passwords = {
        f"GATEWAY_REDIS_{user.upper()}_PASSWORD": redis.url_of(user).split(":")[2].split("@")[0]
        for user in (DATAPLANE, CONTROLPLANE, OPERATOR)
    }
    script = root / "deploy" / "redis" / "render.sh"
    path = {"PATH": os.environ["PATH"]}
    done = subprocess.run([script], env=path | passwords, capture_output=True, text=True, check=True)
    assert redis.configuration.read_text().endswith(done.stdout)
    refused = subprocess.run([script], env=path, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (64, "")
