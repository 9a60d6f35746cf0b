"""What is typed arrives as the request that was meant: against a server that keeps what it was asked."""

import pytest

from neuronetz.admin.v1 import backend_pb2, key_pb2, limits_pb2, tenant_pb2
from tests.fakes.admin_server import TOKEN

Limits, Grants, Names = limits_pb2.Limits, limits_pb2.Grants, limits_pb2.ModelNames


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        pytest.param(
            "create-tenant --name acme --rpm 120 --tpm 200000 --concurrent 8 --budget-day 1 --budget-month 2 "
            "--budget-total 0 --allow-all-models",
            tenant_pb2.CreateTenantRequest(
                name="acme",
                limits=Limits(rpm=120, tpm=200_000, concurrent=8, budget_day=1, budget_month=2, budget_total=0),
                grants=Grants(allow_all_models=True),
            ),
            id="all limits, a zero included",
        ),
        pytest.param("create-tenant --name acme", tenant_pb2.CreateTenantRequest(name="acme"), id="unset stays unset"),
        pytest.param("create-tenant acme", tenant_pb2.CreateTenantRequest(name="acme"), id="name by position"),
        pytest.param(
            "create-tenant acme --no-allow-all-models --allowed-models a,b --allowed-models c",
            tenant_pb2.CreateTenantRequest(
                name="acme",
                grants=Grants(allow_all_models=False, allowed_models=Names(names=["a", "b", "c"])),
            ),
            id="models take commas and repeats",
        ),
        pytest.param(
            ["create-tenant", "acme", "--allowed-models", ""],
            tenant_pb2.CreateTenantRequest(name="acme", grants=Grants(allowed_models=Names())),
            id="an empty list of models is not an unset one",
        ),
        pytest.param("create-tenant acme --dry-run", tenant_pb2.CreateTenantRequest(name="acme", validate_only=True)),
    ],
)
def test_tenant_options_become_the_request(cli, server, typed, expected):
    outcome = cli(*(typed.split() if isinstance(typed, str) else typed))

    assert outcome.exit == 0, outcome.err
    assert server.tenants.requests == [expected]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("create-key --tenant acme --name prod", key_pb2.CreateKeyRequest(tenant="acme", name="prod")),
        ("list-keys", key_pb2.ListKeysRequest()),
        ("list-keys --tenant acme --include-ended", key_pb2.ListKeysRequest(tenant="acme", include_ended=True)),
        ("revoke-key --prefix nz_abcdefghi --yes", key_pb2.RevokeKeyRequest(prefix="nz_abcdefghi")),
        ("revoke-key nz_abcdefghi --yes", key_pb2.RevokeKeyRequest(prefix="nz_abcdefghi")),
        (
            "update-key nz_a --no-prompt-log --prompt-log-retention-days 0 --clear rpm,tpm --clear expires_at",
            key_pb2.UpdateKeyRequest(
                prefix="nz_a", prompt_log=False, prompt_log_retention_days=0, clear=["rpm", "tpm", "expires_at"]
            ),
        ),
    ],
)
def test_key_options_become_the_request(cli, server, typed, expected):
    outcome = cli(*typed.split())

    assert outcome.exit == 0, outcome.err
    assert server.keys.requests == [expected]


def test_moments_and_spans_become_timestamps_and_durations(cli, server):
    assert cli("create-key", "--expires-at", "2027-01-31T12:00:00+01:00", "--prompt-log").exit == 0
    assert cli("rotate-key", "nz_a", "--overlap", "1h30m").exit == 0

    create, rotate = server.keys.requests
    assert create.expires_at.ToJsonString() == "2027-01-31T11:00:00Z"
    assert create.prompt_log
    assert rotate.overlap.ToJsonString() == "5400s"


@pytest.mark.parametrize(
    "typed",
    [
        "add-backend gpu http://gpu:11434",
        "add-backend --name gpu --url http://gpu:11434",
        "add-backend gpu --url http://gpu:11434",
    ],
)
def test_backend_is_named_by_position_or_by_option_and_keeps_its_own_token(cli, server, typed):
    others = "--token ABC --header X-Api-Key --scheme none --replace --no-validate"
    outcome = cli(*typed.split(), *others.split())

    assert outcome.exit == 0, outcome.err
    assert server.backends.requests == [
        backend_pb2.AddBackendRequest(
            name="gpu",
            url="http://gpu:11434",
            token="ABC",
            header="X-Api-Key",
            scheme="none",
            replace=True,
            no_validate=True,
        )
    ]
    assert server.recorder.calls[0][1]["authorization"] == f"Bearer {TOKEN}"


def test_alias_calls_the_same_rpc(cli, server):
    assert cli("probe-ollama", "gpu").exit == 0

    assert server.backends.requests == [backend_pb2.ProbeBackendsRequest(name="gpu")]


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("create-tenant --rpm many", "must be a whole number"),
        ("create-tenant --rpm 9223372036854775808", "must be between"),
        ("create-key --expires-at soon", "must be a moment"),
        ("rotate-key nz_a --overlap 3600", "with units"),
        ("add-backend gpu --name gpu", "given twice"),
        ("create-tenant a b", "unexpected extra argument"),
        ("create-tenant --frob", "--frob"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_sent(cli, server, typed, reason):
    outcome = cli(*typed.split())

    assert outcome.exit == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert server.recorder.calls == []


def test_lists_are_followed_to_their_last_page(cli, server):
    for name in "abcde":
        cli("create-tenant", name)
    server.tenants.requests.clear()

    everything, one = cli("list-tenants", "-o", "json"), cli("list-tenants", "-o", "json", "--page-size", "3")

    assert [request.page_token for request in server.tenants.requests] == ["", "2", "4", ""]
    assert everything.out.count('"name"') == 5
    assert '"next_page_token": ""' in everything.out
    assert one.out.count('"name"') == 3
    assert '"next_page_token": "3"' in one.out
