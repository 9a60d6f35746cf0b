"""Running a stack in the foreground of a terminal or of a test harness: from the lock to the last process stopped."""

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deploy.local import demo
from deploy.local.errors import BusyError, StackError, StopRequestedError
from deploy.local.options import Options
from deploy.local.ports import PortBook
from deploy.local.processes import write_private
from deploy.local.programs import CONTROL, DATA
from deploy.local.stack import Stack
from deploy.local.state import StateFolder
from deploy.local.terminal import Progress, complain, say
from deploy.local.waiting import Pause, Signals, wait_until

DOWN_TIMEOUT_S = 90.0

type Present = Callable[[Stack, Pause], None]


def run(options: Options, *, present: Present) -> int:
    """Start a stack, present it, keep it running until a signal, stop it. Returns the exit status."""
    progress = Progress()
    try:
        with StateFolder(options.state) as state, Signals() as signals:
            stack = Stack(
                options, state=state, report=progress.step, pause=signals.pause, impatient=lambda: signals.impatient
            )
            try:
                progress.begin("Starting the gateway …")
                stack.start()
                present(stack, signals.pause)
                progress.end()
                stack.supervise()
            finally:
                signals.stopping()
                progress.begin("Stopping …")
                stack.stop()
                progress.end()
    except StopRequestedError:
        progress.step("stopped")
        return 0
    except BusyError as error:
        complain(f"{error}{_where(options)}")
        return error.exit_status
    except StackError as error:
        complain(str(error))
        return error.exit_status


def bring_down(path: Path) -> int:
    """Stop the stack of a state folder, whoever runs it, and delete the folder. Returns the exit status."""
    folder = StateFolder(path)
    if not folder.is_state:
        say(f"Nothing to remove: {folder.path} is no state of a gateway.")
        return 0
    try:
        with _locked(folder):
            Stack(Options(state=path), state=folder).remove()
    except StackError as error:
        complain(str(error))
        return error.exit_status
    say(f"Stopped, and removed {folder.path}.")
    return 0


def present_json(stack: Stack, pause: Pause) -> None:  # noqa: ARG001 - a Present
    """Print the description as one line."""
    say(json.dumps(stack.describe()))


def present_up(stack: Stack, pause: Pause) -> None:  # noqa: ARG001 - a Present
    """Say where everything is and how to administer it."""
    control = stack.programs(CONTROL)[0]
    environment = stack.state.path / "admin.env"
    token = control.environment["GATEWAY_ADMIN_TOKEN"]
    write_private(environment, f"GATEWAY_ADMIN_ADDRESS={control.address}\nGATEWAY_ADMIN_TOKEN={token}\n")
    program = shlex.quote(str(Path(sys.executable).with_name("neuronetz-gateway")))
    say()
    _say_addresses(stack)
    say(f"Admin API   {control.address}")
    say(f"State       {stack.state.path}")
    say()
    say("In another terminal, a tenant and a key:")
    say(f"  set -a; . {shlex.quote(str(environment))}; set +a")
    say(f"  {program} create-tenant --name my-team --allow-all-models")
    say(f"  {program} create-key --tenant my-team --name first")
    say()
    say("Ctrl-C stops it; the state is kept.")


def present_demo(stack: Stack, pause: Pause) -> None:
    """Print the key, the playground and five commands to paste."""
    key, commands = _prepare_demo(stack, pause)
    say()
    _say_addresses(stack)
    say(f"Key         {key}")
    say()
    for title, command in commands.items():
        say(f"# {title}")
        say(command)
        say()
    say("Ctrl-C stops the demo and keeps its state; ./deploy/demo.sh --down removes it.")


def present_demo_json(stack: Stack, pause: Pause) -> None:
    """Print the description with the key and the commands as one line."""
    key, commands = _prepare_demo(stack, pause)
    say(json.dumps({**stack.describe(), "api_key": key, "curls": list(commands.values())}))


def _prepare_demo(stack: Stack, pause: Pause) -> tuple[str, dict[str, str]]:
    data = stack.programs(DATA)[0]
    key = demo.mint_key(stack.programs(CONTROL)[0])
    return key, demo.curls(data.url, key=key, model=demo.first_model(data, key, pause=pause))


def _say_addresses(stack: Stack) -> None:
    description = stack.describe()
    for data in stack.programs(DATA):
        say(f"Gateway     {data.url}")
    if description["playground_url"]:
        say(f"Playground  {description['playground_url']}")


def _where(options: Options) -> str:
    """How to find the gateway that is running already."""
    port = PortBook(options.state / "ports.json").known(f"{DATA}-1")
    return f"\nIt listens on http://127.0.0.1:{port}; stop it where it runs, or with SIGTERM." if port else ""


def _locked(folder: StateFolder) -> StateFolder:
    """The folder, once its present user has been asked to stop and has stopped."""
    try:
        with folder:
            return folder
    except BusyError as error:
        if error.holder_pid is None:
            raise
        say(f"Stopping the gateway of process {error.holder_pid} …")
        os.kill(error.holder_pid, signal.SIGTERM)
    wait_until(
        lambda: _is_unlocked(folder), timeout_s=DOWN_TIMEOUT_S, what=f"the lock of {folder.path}", pause=time.sleep
    )
    return folder


def _is_unlocked(folder: StateFolder) -> bool:
    try:
        with folder:
            return True
    except BusyError:
        return False
