"""The page about the command line says what the command line does."""

import re
import shlex
from pathlib import Path

import click
import pytest

from controlplane.cli.commands import Gateway
from controlplane.cli.descriptors import Catalogue
from controlplane.cli.errors import MEANINGS
from controlplane.cli.local import InstalledCommands
from controlplane.cli.settings import Settings, common_options
from shared.config import declared

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "CLI.md").read_text()
GATEWAY = Gateway(Catalogue.packaged(), InstalledCommands())
SESSION = PAGE.split("<!-- session")[1].split("<!-- end of session -->")[0]
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
TYPED = [line.removeprefix("$ ") for block in BLOCKS for line in block.splitlines() if line.startswith("$ neuronetz")]


@pytest.mark.parametrize("line", TYPED)
def test_every_command_of_the_page_is_one(line):
    program, name, *arguments = shlex.split(line)
    command = GATEWAY.get_command(click.Context(GATEWAY), name)
    assert program == "neuronetz-gateway"
    assert command is not None
    command.make_context(name, arguments)


def test_the_session_shows_what_was_seen_and_no_secret():
    steps = [block for block in BLOCKS if block in SESSION]
    assert len(steps) >= 10
    assert [block for block in steps if len(block.splitlines()) < 2] == []
    assert "\x1b" not in PAGE
    assert re.search(r"nz_[0-9A-Za-z]{9}[0-9A-Za-z]", PAGE) is None
    shown = "".join(line for block in steps for line in block.splitlines(keepends=True) if not line.startswith("$ "))
    assert "s3cret" not in shown
    assert '"token": "***"' in shown


def test_exit_codes_are_those_of_the_program():
    rows = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", PAGE, re.MULTILINE))
    assert rows == {str(int(code)): meaning for code, meaning in MEANINGS.items()}


def test_every_setting_and_every_common_option_is_named():
    names = [item.setting.name for item in declared(Settings)]
    flags = [flag for option in common_options() for flag in option.opts if flag.startswith("--")]
    assert [name for name in [*names, *flags] if f"`{name}" not in PAGE and f" {name}" not in PAGE] == []
