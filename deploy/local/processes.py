"""Child processes on a leash: started in a session of their own, logging to a private file, ended with their parent."""

import os
import shlex
import signal
import subprocess  # nosec B404 - starting programs is what this module is for; all others start them through it
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

LEASH = Path(__file__).with_name("leash.py")
TAIL_BYTES = 16_384
RUN_TIMEOUT_S = 120.0
CANNOT_START = 127
# The last two are how some interpreters find their own libraries.
PLAIN = ("PATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


type Child = subprocess.Popen[bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunAs:
    """How to start a program that must not run as root: a command in front of it, or another user id, or neither."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None


MYSELF = RunAs()


def leashed(
    command: Sequence[str], *, death_signal: signal.Signals | None = signal.SIGKILL, run_as: RunAs = MYSELF
) -> list[str]:
    """The command line that runs a command on a leash held by this process, or on none where `death_signal` is None.

    The leash belongs to the *thread* that starts the command: start from one that lives as long as the child shall.
    """
    if death_signal is None and run_as.uid is None:
        return [*run_as.prefix, *command]
    parent_pid = os.getpid() if death_signal is not None else 0
    uid = run_as.uid if run_as.uid is not None else -1
    # The prefix comes first: entering a user namespace would take the leash off again.
    python = [sys.executable, "-I", "-S", str(LEASH)]
    return [*run_as.prefix, *python, str(parent_pid), str(int(death_signal or 0)), str(uid), *command]


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    death_signal: signal.Signals = signal.SIGKILL,
    run_as: RunAs = MYSELF,
    cwd: Path | None = None,
) -> Child:
    """Start a command with stdout and stderr appended to `log` (mode 0600).

    It gets a session of its own, so that Ctrl-C reaches only its parent, which then stops everything in order.
    """
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(  # nosec B603 - a list of words, never a shell
            leashed(command, death_signal=death_signal, run_as=run_as),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
    finally:
        os.close(output)


def run(
    command: Sequence[str],
    *,
    standard_input: str = "",
    run_as: RunAs = MYSELF,
    further: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run a command to its end: its exit status and what it said. Status 127 means that it could not be started.

    `further` are variables beyond the few that every child gets.
    """
    try:
        done = subprocess.run(  # nosec B603 - a list of words, never a shell
            leashed(command, run_as=run_as),
            input=standard_input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=plain_environment(os.environ) | dict(further or {}),
            cwd="/",
            start_new_session=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        return CANNOT_START, f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return CANNOT_START, f"{command[0]} did not end within {RUN_TIMEOUT_S:g} s"
    return done.returncode, done.stdout


def end(process: Child, by: signal.Signals, *, timeout_s: float) -> None:
    """Signal a child and wait for its end; after `timeout_s` seconds kill it. Harmless when it has ended already."""
    if process.poll() is None:
        process.send_signal(by)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end_leftover(pid: int, by: signal.Signals, *, is_ours: Callable[[psutil.Process], bool], timeout_s: float) -> bool:
    """End a process that an earlier run left over, if `pid` still is that process; say whether there was one."""
    try:
        process = psutil.Process(pid)
        if not is_ours(process):
            return False
        process.send_signal(by)
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(timeout_s)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return True


def plain_environment(source: Mapping[str, str]) -> dict[str, str]:
    """The few variables of `source` that every child gets; all others stay out."""
    return {name: source[name] for name in PLAIN if name in source}


def tail(log: Path, *, lines: int = 15) -> str:
    """The last lines of a log file, empty if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file that only this user can read, atomically."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def write_command(path: Path, command: Sequence[str]) -> None:
    """Write a command as a small shell script that a person or a test can run to start the same program again."""
    write_private(path, f"#!/bin/sh\nexec {shlex.join(command)}\n", mode=0o700)
