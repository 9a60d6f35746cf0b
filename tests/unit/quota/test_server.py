"""What a Redis must be before anything is decided on it."""

from __future__ import annotations

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from dataplane.quota.server import NOT_LOADED, examine, fault_of, refusal_name

FIT = {
    "run_id": "r" * 40,
    "role": "master",
    "master_replid": "p" * 40,
    "connected_slaves": "0",
    "maxmemory_policy": "noeviction",
    "loading": "0",
    "aof_enabled": "1",
}


def info(**changes: str | None) -> bytes:
    facts = {name: value for name, value in (FIT | changes).items() if value is not None}
    return "\r\n".join(("# Server", *(f"{name}:{value}" for name, value in facts.items()))).encode()


def test_fit_server_is_known_by_its_run_and_its_data():
    server = examine(info())
    assert (server.fault, server.incarnation) == ("", f"3:{'r' * 40}:{'p' * 40}:")


@pytest.mark.parametrize("name", [name for name in FIT if name != "connected_slaves"])
def test_what_the_server_does_not_say_counts_as_wrong(name: str):
    assert examine(info(**{name: None})).fault


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "slave"},
        {"loading": "1"},
        {"maxmemory_policy": "allkeys-lru"},
        {"aof_enabled": "0"},
        {"connected_slaves": "1"},
    ],
    ids=str,
)
def test_server_that_may_lose_data_is_unfit(wrong: dict[str, str]):
    assert examine(info(**wrong)).fault


def test_primary_that_waits_for_its_replicas_is_fit():
    assert examine(info(connected_slaves="1", min_slaves_good_slaves="1")).fault == ""


def test_noise_is_unfit():
    assert examine(b"\xff\x00 not an INFO").fault


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "OutOfMemoryError"),
        (ResponseError("MISCONF Errors writing to the AOF file: No space left on device"), "MISCONF"),
        (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), "WRONGTYPE"),
        (ResponseError("unknown command"), "ResponseError"),
        (ResponseError("Function not found"), "UnknownFunction"),
        (ResponseError("gateway:key:nz_abcdefghi is wrong"), "ResponseError"),
        (ResponseError(""), "ResponseError"),
    ],
)
def test_a_refusal_is_called_by_its_class_or_its_code_and_never_by_its_text(error, name):
    assert refusal_name(error) == name


def test_a_server_without_our_functions_is_unfit_and_so_is_one_that_refuses_to_be_examined():
    assert fault_of(ResponseError("Function not found")) == NOT_LOADED
    assert fault_of(OutOfMemoryError("…")) == "it refuses to be examined: OutOfMemoryError"
