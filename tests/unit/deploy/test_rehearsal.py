"""The shell that runbooks are typed into."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from deploy.rehearsal.errors import RehearsalError
from deploy.rehearsal.shell import Shell

KEY = "nz_" + "a" * 60


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "state": str(tmp_path)}


def test_what_one_command_leaves_the_next_one_finds(environment):
    with Shell(environment) as shell:
        assert shell.type("greet() {\n  echo hello $1\n}") == ""
        assert shell.type("who=world; cd /") == ""
        assert shell.type("greet $who; pwd >&2; false") == "hello world\n/"


def test_secrets_are_cut_and_the_folder_has_its_name(environment):
    with Shell(environment) as shell:
        assert shell.type(f"echo {KEY}; echo $state/logs") == f"{KEY[:12]}***\n$state/logs"


def test_a_command_reads_nothing_of_what_is_typed_next(environment):
    with Shell(environment) as shell:
        assert shell.type("cat") == ""
        assert shell.type("cat <<END\none\nEND") == "one"


@pytest.mark.parametrize(("command", "says"), [("sleep 60", "did not end"), ("exit 3", "ended the shell")])
def test_a_command_that_does_not_end_or_ends_the_shell_is_said_so(environment, command, says):
    with Shell(environment, timeout_s=0.3) as shell, pytest.raises(RehearsalError, match=says):
        shell.type(f"echo before; {command}")


def test_what_a_shell_has_started_ends_with_it(environment):
    with Shell(environment) as shell:
        pid = int(shell.type("sleep 60 > /dev/null & echo $!"))
        assert psutil.pid_exists(pid)
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
