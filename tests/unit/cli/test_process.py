"""The console script as a process: what it imports, how it asks on a terminal, how it is interrupted."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlplane.cli.local import InstalledCommands

PROGRAM = [sys.executable, "-m", "controlplane.cli"]
DEADLINE_S = 60.0


# In the background of a shell script everybody inherits that interrupts are ignored: this becomes one that hears them.
HEARING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
LISTENING_PROGRAM = [sys.executable, "-c", HEARING, *PROGRAM[1:]]


def interrupted(process: subprocess.Popen[str]) -> str:
    """What it says on stderr when it is interrupted."""
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        # One that meets the client while it is still connecting can get lost in it; people press again.
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE_S)
    return err


def loaded_modules(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_neither_grpc_nor_the_planes():
    modules = loaded_modules(
        "import controlplane.cli, os\n"
        "from controlplane.cli.entry import run\n"
        "from controlplane.cli.descriptors import Catalogue\n"
        "from controlplane.cli.local import InstalledCommands\n"
        "run(['--help'], {}, Catalogue.packaged(), InstalledCommands())"
    )
    heavy = {"grpc", "rich.table", "yaml", "piccolo", "asyncpg", "argon2", "redis", "controlplane.store", "litestar"}

    assert modules & heavy == set()
    assert not any(name.startswith("deploy.local.") for name in modules)


def test_call_imports_neither_the_store_nor_the_embedded_stack(server, environ):
    modules = loaded_modules(
        "from controlplane.cli.entry import run\n"
        "from controlplane.cli.descriptors import Catalogue\n"
        "from controlplane.cli.local import InstalledCommands\n"
        f"assert run(['list-keys', '-o', 'json'], {environ!r}, Catalogue.packaged(), InstalledCommands()) == 0"
    )

    assert "grpc" in modules
    assert modules & {"piccolo", "asyncpg", "argon2", "controlplane.store", "deploy.local.commands"} == set()


def test_script_works_from_any_folder(server, environ, tmp_path):
    program = Path(sys.executable).parent / "neuronetz-gateway"
    done = subprocess.run(
        [program, "create-key", "--tenant", "acme", "--output", "json"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )

    assert json.loads(done.stdout)["api_key"].startswith("nz_")
    assert done.stderr == ""


@pytest.mark.parametrize(("further", "code", "calls"), [((), 2, 0), (("--yes",), 0, 1), (("--dry-run",), 0, 1)])
def test_without_a_terminal_nothing_is_destroyed_unless_it_is_said(server, environ, further, code, calls):
    done = subprocess.run(
        [*PROGRAM, "revoke-key", "--prefix", "nz_a", *further],
        env=os.environ | environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.returncode == code, done.stderr
    assert len(server.keys.requests) == calls
    assert ("say --yes" in done.stderr) == (calls == 0)


def on_terminal(environ: dict[str, str], *arguments: str, answer: bytes) -> tuple[int, str]:
    """Exit code and screen of a run whose stdin, stdout and stderr are one terminal."""
    controller, terminal = pty.openpty()
    try:
        # As wide as a person has it.
        size = {"COLUMNS": "160", "TERM": "xterm-256color"}
        process = subprocess.Popen(
            [*PROGRAM, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | size | environ
        )
        os.close(terminal)
        screen, answered, deadline = b"", False, time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if select.select([controller], [], [], 0.1)[0]:
                try:
                    screen += os.read(controller, 4096)
                except OSError:  # Linux reports the end of a terminal this way
                    break
            if b"[y/N]" in screen and not answered:
                os.write(controller, answer)
                answered = True
        return process.wait(DEADLINE_S), screen.decode()
    finally:
        os.close(controller)


@pytest.mark.parametrize(("answer", "code", "calls"), [(b"y\n", 0, 1), (b"n\n", 1, 0), (b"\n", 1, 0)])
def test_terminal_is_asked_before_something_is_destroyed(server, environ, answer, code, calls):
    exit_code, screen = on_terminal(environ, "revoke-key", "nz_a", answer=answer)

    assert "revoke-key prefix=nz_a: go on? [y/N]" in screen
    assert (exit_code, len(server.keys.requests)) == (code, calls)


@pytest.mark.parametrize("arguments", [("revoke-key", "nz_a", "--yes"), ("revoke-key", "nz_a", "--dry-run")])
def test_terminal_is_not_asked_when_it_has_said_so_or_nothing_happens(server, environ, arguments):
    exit_code, screen = on_terminal(environ, *arguments, answer=b"n\n")

    assert exit_code == 0
    assert "[y/N]" not in screen
    assert len(server.keys.requests) == 1


@pytest.mark.parametrize(("setting", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_tables_and_errors_have_colours_on_a_terminal_only_and_only_if_they_are_wanted(environ, setting, coloured):
    _, table = on_terminal(environ | setting, "create-tenant", "--name", "acme", answer=b"")
    _, error = on_terminal(environ | setting, "get-budgets", "--tenant", "acme", answer=b"")
    piped = subprocess.run([*PROGRAM, "list-tenants"], env=os.environ | environ, capture_output=True, check=True)

    assert "acme" in table
    assert "error" in error
    assert ("\x1b[32m" in table) == coloured  # active is green
    assert ("\x1b[31m" in error) == coloured
    assert b"\x1b" not in piped.stdout


def test_what_is_too_wide_for_a_terminal_is_shown_one_below_the_other(environ):
    narrow, wide = {"COLUMNS": "40", "NO_COLOR": "1"}, {"COLUMNS": "200", "NO_COLOR": "1"}
    _, below = on_terminal(environ | narrow, "list-models", answer=b"")
    _, table = on_terminal(environ | wide, "list-models", answer=b"")

    assert re.search(r"\r\nname +llama3.2:latest\r\nsize_bytes +4000000000\r\n", below)
    assert "llama3.2:latest   4000000000   completion, tools" in table


def test_closed_pipe_ends_quietly(server, environ):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "list-keys", "-o", "json"],
        env=os.environ | environ,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=DEADLINE_S,
        check=False,
    )
    os.close(writer)

    assert done.returncode == 1
    assert done.stderr == b""


def test_interrupt_ends_a_waiting_call():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(DEADLINE_S)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*LISTENING_PROGRAM, "list-keys", "--address", address, "--token", "x"],
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            err = interrupted(process)

    assert process.returncode == 130
    assert err.strip() == "error: ABORTED: nothing more was done"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(offline, shell):
    outcome = offline("completion", shell)

    assert outcome.exit == 0
    assert "_NEURONETZ_GATEWAY_COMPLETE" in outcome.out


def test_shell_is_told_the_commands_and_options():
    def complete(words: str, index: int) -> str:
        environ = {"_NEURONETZ_GATEWAY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(index)}
        program = Path(sys.executable).parent / "neuronetz-gateway"
        done = subprocess.run([program], env=environ, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        return done.stdout

    assert "create-key" in complete("neuronetz-gateway cre", 1)
    assert "--budget-day" in complete("neuronetz-gateway create-key --bud", 2)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("neuronetz-gateway cre", {"create-key", "create-tenant"}),
        ("neuronetz-gateway create-key --bud", {"--budget-day", "--budget-month", "--budget-total"}),
        ("neuronetz-gateway list-keys --output ", {"json", "table", "yaml"}),
        ("neuronetz-gateway get-usage --by mod", {"model"}),
    ],
)
def test_bash_completes_what_is_typed(typed, expected):
    folder = Path(sys.executable).parent
    script = """
        eval "$(neuronetz-gateway completion bash)"
        read -ra COMP_WORDS <<< "$1"
        [[ $1 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        complete=$(complete -p neuronetz-gateway | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $complete neuronetz-gateway "${COMP_WORDS[COMP_CWORD]}" ""
        printf '%s\n' "${COMPREPLY[@]}"
    """
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    done = subprocess.run(
        ["bash", "-c", script, "bash", typed],
        env=environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )

    assert set(done.stdout.split()) == expected, done.stderr


def test_a_question_is_asked_again_and_again_until_interrupted(server, environ):
    process = subprocess.Popen(
        [*LISTENING_PROGRAM, "list-keys", "--watch", "--every", "0.1", "-o", "json"],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    answers = [json.loads(process.stdout.readline()) for _ in range(3)]
    err = interrupted(process)

    assert answers[0] == answers[1] == answers[2]
    assert process.returncode == 130, err
    assert len(server.keys.requests) >= 3


class BrokenPoint:
    name, value, module, attr = "up", "nowhere.commands:up", "nowhere.commands", "up"

    def load(self):
        raise ModuleNotFoundError("No module named 'nowhere'")


class WrongPoint(BrokenPoint):
    def load(self):
        return print


@pytest.mark.parametrize("point", [BrokenPoint(), WrongPoint()])
def test_broken_entry_point_breaks_only_itself(capsys, catalogue, point):
    from controlplane.cli.entry import run

    local = InstalledCommands(lambda: {"up": point})

    assert run(["--help"], {}, catalogue, local) == 0
    assert run(["up", "--replicas", "2", "x"], {}, catalogue, local) == 1
    assert "up cannot be used here" in capsys.readouterr().err


def test_migration_names_every_missing_setting(offline):
    outcome = offline("migrate")

    assert outcome.exit == 64
    assert "DATABASE_URL" in outcome.err
