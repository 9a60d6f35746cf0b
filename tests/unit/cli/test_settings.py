"""Where the server is, who is asking, and what must never be sent."""

import pytest

from controlplane.cli import settings
from shared.config import ConfigurationError
from shared.redaction import Secret
from tests.fakes.admin_server import TOKEN


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9090", "127.8.0.1:1", "[::1]:9090", "localhost:1", "0.0.0.0:1", "[::]:1"]
)
def test_address_on_this_machine_needs_no_tls(address):
    assert settings.is_this_machine(address)
    assert settings.connection(settings.Settings(address=address, token=Secret("t"))).tls is None


@pytest.mark.parametrize("address", ["10.0.0.1:9090", "controlplane:9090", "localhost.example.com:1", "[fe80::1]:1"])
def test_token_does_not_go_to_another_machine_in_plaintext(address):
    with pytest.raises(ConfigurationError, match="needs TLS"):
        settings.connection(settings.Settings(address=address, token=Secret("t")))

    assert settings.connection(settings.Settings(address=address, token=Secret("t"), tls=True)).tls == settings.TLS()
    assert settings.connection(settings.Settings(address=address, token=Secret("t"), insecure=True)).tls is None


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({}, ["GATEWAY_ADMIN_ADDRESS: is required", "GATEWAY_ADMIN_TOKEN: is required"]),
        ({"address": "http://localhost:1", "token": Secret("t")}, ["must be host:port"]),
        ({"address": "localhost", "token": Secret("t")}, ["must be host:port"]),
        ({"address": "localhost:1", "token": Secret("a b")}, ["printable ASCII"]),
        ({"address": "localhost:1", "tls_cert": "cert.pem"}, ["must be set together"]),
        (
            {"address": "localhost:1", "token": Secret("t"), "tls_ca": "/nowhere/ca.pem"},
            ["GATEWAY_ADMIN_TLS_CA: /nowhere/ca.pem cannot be read"],
        ),
    ],
)
def test_everything_that_is_missing_is_said_at_once(fields, faults):
    with pytest.raises(ConfigurationError) as caught:
        settings.connection(settings.Settings(**fields))

    assert [fault for fault in faults if fault not in str(caught.value)] == []


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_token_is_read_from_a_file(offline, server, tmp_path, how):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    by_flag = ("--token-file", str(path)) if how == "flag" else ()
    environ = {"GATEWAY_ADMIN_TOKEN_FILE": str(path)} if how == "variable" else {"GATEWAY_ADMIN_TOKEN": "wrong"}

    assert offline("list-keys", "--address", server.address, *by_flag, environ=environ).exit == 0


def test_token_given_twice_is_refused(offline, tmp_path):
    path = tmp_path / "token"
    path.write_text("a")

    assert offline("list-keys", "--token", "a", "--token-file", str(path)).exit == 2
    twice = offline("list-keys", environ={"GATEWAY_ADMIN_TOKEN": "a", "GATEWAY_ADMIN_TOKEN_FILE": str(path)})
    assert twice.exit == 64


def test_wrong_settings_of_the_environment_are_refused(offline):
    outcome = offline("list-keys", environ={"GATEWAY_OUTPUT": "xml", "GATEWAY_ADMIN_TIMEOUT_S": "soon"})

    assert outcome.exit == 64
    assert "GATEWAY_OUTPUT" in outcome.err
    assert "GATEWAY_ADMIN_TIMEOUT_S" in outcome.err


def test_options_stand_before_the_command_or_after_it(offline, server):
    where = ("--address", server.address, "--token", TOKEN)

    assert offline(*where, "list-keys").exit == 0
    assert offline("list-keys", *where).exit == 0
    assert offline("--address", "localhost:1", "--token", "wrong", "list-keys", *where).exit == 0
