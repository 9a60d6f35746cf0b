"""What is printed, for programs and for people."""

import json

import pytest
import yaml

from tests.fakes.admin_server import API_KEY


def test_new_key_is_at_the_top_of_the_json_document(cli):
    outcome = cli("create-key", "--tenant", "acme", "--name", "prod", "--rpm", "5", "--output", "json")

    answer = json.loads(outcome.out)
    assert answer["api_key"] == API_KEY
    assert answer["prefix"] == API_KEY[:12]
    assert answer["publication"] == "PUBLICATION_APPLIED"
    assert answer["key"]["tenant_id"]
    assert answer["key"]["limits"] == {"rpm": 5}
    assert answer["key"]["version"] == 7
    assert answer["key"]["prompt_log"] is False
    assert "expires_at" not in answer["key"]
    assert outcome.err == ""


@pytest.mark.parametrize("where", ["before", "after", "environment"])
def test_output_is_chosen_before_the_command_after_it_or_by_the_environment(cli, where):
    outcome = {
        "before": lambda: cli("--output", "json", "list-keys"),
        "after": lambda: cli("list-keys", "--output=json"),
        "environment": lambda: cli("list-keys", GATEWAY_OUTPUT="json"),
    }[where]()

    assert json.loads(outcome.out)["keys"][0]["prefix"] == API_KEY[:12]


def test_flag_wins_over_the_environment(cli):
    assert not cli("list-keys", "-o", "table", GATEWAY_OUTPUT="json").out.startswith("{")


def test_yaml_says_the_same_as_json(cli):
    as_json, as_yaml = cli("list-models", "-o", "json").out, cli("list-models", "-o", "yaml").out

    assert yaml.safe_load(as_yaml) == json.loads(as_json)
    assert json.loads(as_json)["backends"][0]["models"][0]["size_bytes"] == 4_000_000_000


def test_lists_without_rows_are_lists_in_json_and_said_in_tables(cli):
    assert json.loads(cli("list-backends", "-o", "json").out) == {"backends": [], "next_page_token": ""}
    assert cli("list-backends").out == "no backends\n"


def test_table_has_a_column_per_field_that_somebody_filled(cli):
    header, row = cli("list-keys").out.splitlines()

    assert header.split() == ["PREFIX", "TENANT", "NAME", "STATUS", "LIMITS", "PROMPT_LOG"]
    assert row.split() == [API_KEY[:12], "acme", "prod-server-1", "active", "rpm", "120", "no"]


def test_new_key_is_shown_whole_on_one_line_with_a_warning(cli):
    outcome = cli("create-key", "--tenant", "acme")

    assert outcome.out.splitlines()[0].split() == ["api_key", API_KEY]
    assert "cannot be had again" in outcome.err
    assert "applied (Written to Redis" in outcome.out


def test_dry_run_of_a_new_key_warns_of_nothing(cli):
    outcome = cli("create-key", "--tenant", "acme", "--dry-run")

    assert "api_key" not in outcome.out
    assert outcome.err == ""


def test_models_are_grouped_by_backend_with_the_union(cli):
    lines = cli("list-models").out.splitlines()

    assert lines[0] == "backend gpu-1"
    models = lines[: lines.index("policies")]
    assert [line.split()[0] for line in models if ":" in line] == ["llama3.2:latest", "qwen3:8b", "qwen3:8b"]
    assert [line.split() for line in models if "_count" in line] == [["union_count", "2"], ["cached_count", "2"]]
    shown = [line.split() for line in lines[lines.index("policies") + 1 :] if line.strip("- ")]
    assert shown == [["MODEL", "NUM_CTX", "KEEP_ALIVE"], ["qwen3:8b", "8192", "30m"]]


def test_a_policy_is_typed_in_options_and_shown_with_what_it_leaves_to_nobody(cli, server):
    outcome = cli("set-model-policy", "qwen3:8b", "--num-ctx", "8192", "--allowed-options", "", "--alias", "fast")

    assert "allowed_options" in outcome.out
    assert "none" in outcome.out
    cli("set-model-policy", "qwen3:8b", "--allowed-options", "seed,stop", "--clear", "alias", "--dry-run")
    first, second = server.models.requests
    assert (first.model, first.num_ctx, first.alias, first.validate_only) == ("qwen3:8b", 8192, "fast", False)
    assert first.HasField("allowed_options")
    assert list(first.allowed_options.names) == []
    assert not first.HasField("keep_alive")
    assert list(second.allowed_options.names) == ["seed", "stop"]
    assert (list(second.clear), second.validate_only) == (["alias"], True)


def test_texts_of_the_server_cannot_steer_the_terminal(cli):
    out = cli("probe-backends").out

    assert "refused\N{REPLACEMENT CHARACTER}[31m the connection" in out
    assert "\x1b" not in out


def test_pending_publication_is_explained(cli):
    cli("create-tenant", "acme")

    assert (
        "pending (Committed, but Redis could not be reached yet"
        in cli("suspend-tenant", "--tenant", "acme", "--yes").out
    )
