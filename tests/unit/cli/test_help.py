"""Help is complete, and its examples work."""

import shlex

import click
import pytest

from controlplane.cli.commands import Gateway
from controlplane.cli.descriptors import Catalogue, first_sentence, kebab
from controlplane.cli.helptext import examples, option_names, paragraphs
from controlplane.cli.local import InstalledCommands
from controlplane.cli.rpccommand import RPCCommand

CATALOGUE = Catalogue.packaged()
GATEWAY = Gateway(CATALOGUE, InstalledCommands())
NAMES = GATEWAY.list_commands(click.Context(GATEWAY))
EXAMPLES = [example for rpc in CATALOGUE.rpcs for example in examples(rpc.comment)]


def test_names_that_operators_type_are_there():
    typed = (
        "create-tenant create-key list-keys revoke-key suspend-tenant add-backend remove-backend list-backends "
        "probe-backends probe-ollama list-models get-tenant get-key update-tenant update-key rotate-key migrate up demo"
    )
    assert set(typed.split()) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_every_option_has_help(name):
    command = GATEWAY.get_command(click.Context(GATEWAY), name)

    assert command is not None
    assert command.help
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_summed_up_in_the_list(offline, name):
    page = offline("--help").out

    line = next(line for line in page.splitlines() if line.startswith("  ") and name in line.split("  ")[1])
    assert len(line.split(maxsplit=2)) > 1


@pytest.mark.parametrize("rpc", CATALOGUE.rpcs, ids=lambda rpc: rpc.name)
def test_every_command_of_an_rpc_can_answer_json(rpc):
    options = {name for option in RPCCommand(rpc, CATALOGUE).params for name in option.opts}

    assert {"--output", "-o", "--address", "--token-file", "--timeout"} <= options


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_a_comment_parses(example):
    program, name, *arguments = shlex.split(example)
    command = GATEWAY.get_command(click.Context(GATEWAY), name)

    assert program == "neuronetz-gateway"
    assert command is not None
    command.make_context(name, arguments)


@pytest.mark.parametrize("rpc", CATALOGUE.rpcs, ids=lambda rpc: rpc.name)
def test_every_command_of_an_rpc_has_an_example(rpc):
    assert any(example.split()[1] in (rpc.name, *rpc.aliases) for example in examples(rpc.comment))


@pytest.mark.parametrize("rpc", CATALOGUE.rpcs, ids=lambda rpc: rpc.name)
def test_what_changes_something_can_be_tried_and_what_lists_has_pages(rpc):
    from controlplane.rpc.authz import RULES

    fields = set(rpc.request.fields_by_name)
    assert ("validate_only" in fields) == RULES[rpc.method].mutates
    if rpc.verb == "list":
        assert {"page_size", "page_token"} <= fields
        assert "next_page_token" in rpc.response.fields_by_name


def test_examples_are_shown_unwrapped(offline):
    assert (
        "\n    neuronetz-gateway create-key --tenant acme --name prod-server-1\n" in offline("create-key", "--help").out
    )


def test_help_works_without_any_setting(offline):
    assert offline("-h").exit == offline("revoke-key", "-h").exit == 0
    assert "--yes" in offline("revoke-key", "-h").out
    assert "--yes" not in offline("list-keys", "-h").out
    assert "[NAME] [URL]" in offline("add-backend", "-h").out
    assert "can only" in offline("add-backend", "-h").out  # its --token is the backend's


def test_first_sentence_ends_where_the_sentence_does():
    assert first_sentence("Probes /api/tags of v1.2\nnow. Then more.") == "Probes /api/tags of v1.2 now."
    assert first_sentence("No end\n\nNext") == "No end"
    assert first_sentence("") == ""


def test_comment_becomes_help():
    assert option_names("see `validate_only` and `other`", {"validate_only": "dry-run"}) == "see --dry-run and `other`"
    assert paragraphs("Text.\n\n  a\n  b") == "Text.\n\n\b\n  a\n  b"
    assert examples("Text.\n\n  a\n  b") == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "expected"), [("CreateKey", "create-key"), ("ListAPIKeys", "list-api-keys"), ("page_size", "page-size")]
)
def test_names_are_written_with_hyphens(name, expected):
    assert kebab(name) == expected
