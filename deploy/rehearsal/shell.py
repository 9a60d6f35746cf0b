"""A shell that commands are typed into, one after the other: variables, functions and jobs stay."""

from __future__ import annotations

import os
import secrets
import select
import signal
import subprocess  # nosec B404 - a shell is what is rehearsed with
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from deploy.rehearsal.errors import RehearsalError
from shared.redaction import redact

COMMAND_TIMEOUT_S = 120.0


class Shell:
    """A bash of its own; leaving it ends whatever it has started.

    What commands show is cut of secrets, and the folder ``$state`` is called so. A command has ``timeout_s`` to end.
    """

    def __init__(self, environment: Mapping[str, str], *, timeout_s: float = COMMAND_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._folder = environment["state"]
        self._mark = f"end-{secrets.token_hex(8)}"
        typed, self._keyboard = os.pipe()
        self._screen, shown = os.pipe()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=typed,
            stdout=shown,
            stderr=shown,
            env=dict(environment),
            cwd=self._folder,
            start_new_session=True,
        )  # nosec B603 B607 - the shell of whoever rehearses
        os.close(typed)
        os.close(shown)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.killpg(self._bash.pid, signal.SIGTERM)
        os.killpg(self._bash.pid, signal.SIGCONT)
        self._bash.kill()
        self._bash.wait()
        os.close(self._keyboard)
        os.close(self._screen)

    def type(self, command: str) -> str:
        """What a command shows. Raises RehearsalError when it does not end, or ends the shell."""
        # A line of its own for the mark, also after output that does not end with one.
        typed = f"{{ {command}\n}} </dev/null\nprintf '\\n{self._mark} %s\\n' $?\n"
        os.write(self._keyboard, typed.encode())
        shown = self._read_to_mark(command)
        lines = redact(shown).replace(self._folder, "$state").splitlines()
        return "\n".join(line.rstrip() for line in lines).strip("\n")

    def _read_to_mark(self, command: str) -> str:
        deadline_s = time.monotonic() + self._timeout_s
        seen = b""
        while f"\n{self._mark} ".encode() not in seen:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([self._screen], [], [], left_s)[0]:
                raise RehearsalError(f"{command!r} did not end; it showed {seen.decode(errors='replace')[-500:]!r}")
            part = os.read(self._screen, 65_536)
            if not part:
                raise RehearsalError(f"{command!r} ended the shell; it showed {seen.decode(errors='replace')[-500:]!r}")
            seen += part
        return seen.partition(f"\n{self._mark} ".encode())[0].decode(errors="replace")
