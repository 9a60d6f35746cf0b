"""Exit codes by cause, one line on stderr, nothing on stdout."""

import json
import socket

import grpc
import pytest

from controlplane.cli.errors import MEANINGS, Exit, exit_for_status

EXITS = {
    grpc.StatusCode.INVALID_ARGUMENT: 2,
    grpc.StatusCode.NOT_FOUND: 3,
    grpc.StatusCode.ALREADY_EXISTS: 4,
    grpc.StatusCode.FAILED_PRECONDITION: 4,
    grpc.StatusCode.UNAUTHENTICATED: 5,
    grpc.StatusCode.PERMISSION_DENIED: 5,
    grpc.StatusCode.UNAVAILABLE: 6,
    grpc.StatusCode.DEADLINE_EXCEEDED: 6,
    grpc.StatusCode.INTERNAL: 1,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 1,
    grpc.StatusCode.UNIMPLEMENTED: 1,
}


@pytest.mark.parametrize(("status", "expected"), EXITS.items())
def test_status_becomes_an_exit_code_and_one_line(cli, server, status, expected):
    server.keys.refusal = (status, "for this\nreason")

    outcome = cli("revoke-key", "--prefix", "nz_a", "--yes")

    assert outcome.exit == expected
    assert outcome.out == ""
    assert outcome.err.startswith(f"error: {status.name}: ")
    assert outcome.err.count("\n") == 1


def test_error_is_json_when_json_was_asked_for(cli, server):
    server.keys.refusal = (grpc.StatusCode.NOT_FOUND, "no key nz_a")

    outcome = cli("revoke-key", "--prefix", "nz_a", "-o", "json", "--yes")

    assert json.loads(outcome.err) == {"error": {"code": "NOT_FOUND", "message": "no key nz_a", "exit_code": 3}}


@pytest.mark.parametrize("arguments", [("--frob", "--output", "json"), ("-ojson", "--frob"), ("--output=json", "x")])
def test_wrong_usage_is_json_when_json_was_asked_for(cli, arguments):
    outcome = cli("list-keys", *arguments)

    assert json.loads(outcome.err)["error"]["code"] == "USAGE"
    assert outcome.exit == 2


def test_wrong_token_is_told_from_a_missing_one(cli, offline, server):
    assert cli("list-keys", "--token", "wrong").exit == 5
    assert cli("--token", "wrong", "list-keys").exit == 5

    missing = offline("list-keys", "--address", server.address)

    assert missing.exit == 64
    assert "GATEWAY_ADMIN_TOKEN" in missing.err


def test_server_that_is_away_is_named(offline):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    outcome = offline("list-keys", "--address", address, "--token", "x")

    assert outcome.exit == 6
    assert f"cannot reach {address}" in outcome.err


def test_server_that_does_not_answer_is_given_up_after_the_timeout(offline):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        outcome = offline("list-keys", "--address", address, "--token", "x", "--timeout", "0.2")

    assert outcome.exit == 6
    assert outcome.err.startswith("error: DEADLINE_EXCEEDED")


def test_unknown_command_brings_the_closest_ones(offline):
    outcome = offline("crate-key")

    assert outcome.exit == 2
    assert "create-key" in outcome.err


def test_every_status_is_mapped_and_every_exit_code_explained(offline):
    page = offline("--help").out

    assert {exit_for_status(status.name) for status in grpc.StatusCode} >= {1, 2, 3, 4, 5, 6}
    assert set(MEANINGS) == set(Exit)
    assert all(meaning in page for meaning in MEANINGS.values())


def test_nothing_typed_shows_help_and_is_wrong_usage(offline):
    outcome = offline()

    assert outcome.exit == 2
    assert "create-key" in outcome.err
