"""Settings of the control plane: every fault at once, no secret in any of them."""

import base64

import pytest

from controlplane import config
from controlplane.core.roles import Role
from shared.config import ConfigurationError

SECRET = "postgres-password"
GOOD = {
    "DATABASE_URL": f"postgres://gateway:{SECRET}@db.internal/gateway",
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "GATEWAY_KEY_PEPPER": "sixteen bytes or more",
    "GATEWAY_SEALING_KEY": base64.b64encode(bytes(32)).decode(),
    "GATEWAY_ADMIN_TOKEN": "the-first-admin-token",
}


def faults(**changes: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        config.load(GOOD | changes)
    return list(refused.value.faults)


def names(**changes: str) -> set[str]:
    return {fault.split(":")[0] for fault in faults(**changes)}


def test_defaults_are_those_of_the_design():
    settings = config.load(GOOD)
    assert str(settings.admin_bind) == "127.0.0.1:9090"
    assert (settings.database_pool_size, settings.database_overflow) == (10, 20)
    assert (settings.argon2_time_cost, settings.argon2_memory_kib, settings.argon2_parallelism) == (3, 65536, 4)
    assert (settings.discovery_refresh_s, settings.discovery_ttl_s) == (60, 120)
    assert (settings.audit_log_days, settings.prompt_log_days) == (365, 30)
    assert [backend.url for backend in settings.static_backends] == ["http://127.0.0.1:11434"]


def test_all_faults_are_reported_at_once_with_those_between_settings():
    found = names(
        GATEWAY_KEY_PEPPER="short",
        REDIS_URL="http://127.0.0.1",
        DATABASE_POOL_SIZE="0",
        MODEL_DISCOVERY_CACHE_TTL_S="60",
        GATEWAY_ADMIN_BIND="0.0.0.0:9090",
        GATEWAY_ADMIN_TLS_CERT="/nowhere/cert.pem",
    )
    assert found == {
        "GATEWAY_KEY_PEPPER",
        "REDIS_URL",
        "DATABASE_POOL_SIZE",
        "MODEL_DISCOVERY_CACHE_TTL_S",
        "GATEWAY_ADMIN_TLS_CERT, GATEWAY_ADMIN_TLS_KEY",
        "GATEWAY_ADMIN_TLS_CERT",
    }


def test_without_anything_every_required_setting_is_named():
    with pytest.raises(ConfigurationError) as refused:
        config.load({})
    assert {fault.split(":")[0] for fault in refused.value.faults} == set(GOOD)


@pytest.mark.parametrize(
    "changes",
    [
        {"DATABASE_URL": f"mysql://gateway:{SECRET}@db/gateway"},
        {"DATABASE_URL": f"postgres://gateway:{SECRET}@db:port/gateway"},
        {"DATABASE_URL": f"postgres://gateway:{SECRET}@db"},
        {"GATEWAY_ADMIN_TOKEN": f"{SECRET} "[:8]},
        {"GATEWAY_OPERATOR_TOKENS": f"olga:root:{SECRET}"},
        {"GATEWAY_OPERATOR_TOKENS": f"{SECRET}-{SECRET}"},
        {"GATEWAY_SEALING_KEY": SECRET},
        {"OLLAMA_BACKENDS": f'[{{"name": "a", "url": "x", "token": "{SECRET}"}}]'},
        {"OLLAMA_BASE_URL": f"http://user:{SECRET}@host"},
        {"GATEWAY_DATAPLANE_TOKEN": GOOD["GATEWAY_ADMIN_TOKEN"]},
        {"GATEWAY_ADMIN_BIND": "127.0.0.1"},
        {"GATEWAY_ADMIN_BIND": "[::]:9090"},
    ],
)
def test_a_fault_never_shows_the_secret(changes):
    text = "\n".join(faults(**changes))
    assert text
    assert SECRET not in text
    assert GOOD["GATEWAY_ADMIN_TOKEN"] not in text


def test_settings_do_not_show_their_secrets():
    shown = repr(config.load(GOOD | {"GATEWAY_OPERATOR_TOKENS": f"olga:operator:{SECRET}"}))
    assert SECRET not in shown
    assert GOOD["GATEWAY_KEY_PEPPER"] not in shown


def test_operators_have_names_and_roles():
    settings = config.load(
        GOOD | {"GATEWAY_OPERATOR_TOKENS": "olga:operator:token:with:colons, vera:viewer:another-long-token"}
    )
    assert [(item.name, item.role) for item in settings.operator_tokens] == [
        ("olga", Role.OPERATOR),
        ("vera", Role.VIEWER),
    ]
    assert settings.operator_tokens[0].token.reveal() == "token:with:colons"


@pytest.mark.parametrize(
    ("environ", "urls"),
    [
        ({"OLLAMA_BACKENDS": ""}, ["http://127.0.0.1:11434"]),
        ({"OLLAMA_BACKENDS": "[]"}, []),
        ({"OLLAMA_BACKENDS": "[]", "OLLAMA_BASE_URL": "http://gpu:1"}, ["http://gpu:1"]),
        ({"OLLAMA_BASE_URL": "http://gpu:1", "OLLAMA_AUTH_TOKEN": "t"}, ["http://gpu:1"]),
        (
            {"OLLAMA_BACKENDS": '[{"name": "a", "url": "http://a:1"}]', "OLLAMA_BASE_URL": "http://gpu:1"},
            ["http://a:1"],
        ),
    ],
)
def test_backends_come_from_the_list_or_the_single_address(environ, urls):
    assert [backend.url for backend in config.load(GOOD | environ).static_backends] == urls
