"""Records a session of the command line against a running gateway, for ``docs/CLI.md``.

    python -m deploy.record_session docs/CLI.md

starts the whole gateway in front of a mock Ollama in a folder of its own, types the commands below into a terminal of
132 columns, and puts what was to be seen between the two marks of the page. Secrets are cut; nothing else is edited.
"""

import contextlib
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess  # nosec B404 - a terminal must be its own
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx

from deploy.local.options import Options
from deploy.local.stack import Stack
from deploy.local.state import StateFolder
from shared.redaction import redact

BEGIN, END = "<!-- session: python -m deploy.record_session docs/CLI.md -->", "<!-- end of session -->"
COLUMNS, ROWS = 132, 40
PROGRAM = "neuronetz-gateway"
MODEL = "llama3.2"
DEADLINE_S = 20.0

# What is typed, each with the sentence before it. {prefix} is that of the key that create-key minted.
STEPS: tuple[tuple[str, str], ...] = (
    ("What is there?", "list-backends"),
    ("", "list-models"),
    ("A customer, first as a trial run, then really:", "create-tenant acme --rpm 120 --allow-all-models --dry-run"),
    ("", "create-tenant acme --rpm 120 --budget-month 5000000 --allow-all-models"),
    ("A key; this is the only time that it is shown:", "create-key --tenant acme --name prod-server-1"),
    ("", "list-keys --tenant acme"),
    ("The customer sends a request (here with curl). What it has used:", "get-usage --tenant acme --by model"),
    ("And that request in the ledger:", "query-audit --tenant acme --page-size 5"),
    ("A limit changes, at once and everywhere:", "update-key {prefix} --rpm 30"),
    ("A wrong value is refused with the field and the rule:", "update-key {prefix} --rpm 0"),
    (
        "Another backend, only to see the line for the environment file:",
        "add-backend gpu-2 {mock} --token s3cret --dry-run",
    ),
    ("The same into a file; no gateway is asked:", "add-backend gpu-2 {mock} --token s3cret --write-env .env"),
    ("The key is revoked; a person is asked first:", "revoke-key {prefix} --reason 'left in a repository'"),
    ("Every worker has acknowledged it. Who did what:", "list-operator-audit --page-size 3"),
)


def main(page: Path) -> None:
    """Records a session and puts it into the page."""
    with _gateway() as stack:
        blocks = list(_session(stack))
    text = page.read_text()
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n\n" + "\n\n".join(blocks) + f"\n\n{END}{tail}")


@contextlib.contextmanager
def _gateway() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory() as place, StateFolder(Path(place) / "state") as state:
        stack = Stack(Options(state=state.path, mock=True, refresh_s=1), state=state)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def _session(stack: Stack) -> Iterator[str]:
    described = stack.describe()
    words = {"mock": described["mock_ollama_urls"][0]}
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(stack.state.path),
        "TERM": "xterm",
        "NO_COLOR": "1",
        "GATEWAY_ADMIN_ADDRESS": described["admin_address"],
        "GATEWAY_ADMIN_TOKEN": described["admin_token"],
    }
    typed = partial(_screen, environment=environment, folder=stack.state.path)
    _until(lambda: MODEL in typed(f"{PROGRAM} list-models"))
    for said, step in STEPS:
        command = f"{PROGRAM} {step.format(**words)}"
        if step.startswith("get-usage"):
            _request(described["gateway_urls"][0], words["key"])
            _until(partial(_shows, typed, command, MODEL))
        screen = typed(command)
        minted = re.search(r"nz_[0-9A-Za-z]{60}", screen)
        if minted is not None:
            words |= {"key": minted[0], "prefix": minted[0][:12]}
        block = f"```console\n$ {command}\n{_cut(screen)}\n```"
        yield f"{said}\n\n{block}" if said else block


def _shows(typed: Callable[[str], str], command: str, word: str) -> bool:
    return word in typed(command)


def _cut(screen: str) -> str:
    """The screen without secrets and trailing space."""
    lines = (line.rstrip() for line in redact(screen).splitlines())
    return "\n".join(lines).strip("\n")


def _request(url: str, key: str) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": False}
    headers = {"Authorization": f"Bearer {key}"}
    _until(lambda: httpx.post(f"{url}/api/chat", json=body, headers=headers, trust_env=False).status_code == 200)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("what the session waits for did not come true")
        time.sleep(0.1)


def _screen(command: str, environment: Mapping[str, str], folder: Path) -> str:
    """What a terminal shows of a command; every question is answered with y."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(  # nosec B603 - the words of the commands above, never a shell
        shlex.split(command), stdin=theirs, stdout=theirs, stderr=theirs, env=dict(environment), cwd=folder
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux reports the end of a terminal
        while part := os.read(ours, 65_536):
            shown += part
            if part.rstrip().endswith(b"[y/N]:"):
                os.write(ours, b"y\n")
    process.wait()
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
