"""The state folder: its lock, and the secrets that are made once and kept in it."""

import base64
import fcntl
import json
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.errors import BusyError, StackError
from deploy.local.processes import write_private

SECRET_BYTES = 32


class Secrets:
    """Named random secrets in one private file, each made when it is first asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"Secrets({self._path})"

    def get(self, name: str) -> str:
        """The secret of this name: 32 random bytes in padded URL-safe base64."""
        known: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}
        if name not in known:
            known[name] = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
            write_private(self._path, json.dumps(known, indent=1))
        return known[name]


class StateFolder:
    """A private folder that at most one stack uses at a time; a context manager that holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.secrets = Secrets(self.path / "secrets.json")
        self._lock_path = self.path / "lock"
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"StateFolder({self.path}, {'locked' if self._lock is not None else 'not locked'})"

    def __enter__(self) -> Self:
        """Make the folder if need be and take the lock.

        Raises BusyError when another process has it, StackError when the folder cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StackError(f"cannot use {self.path}: {error.strerror} (choose another folder with --state)") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            pid = self.holder()
            raise BusyError(
                f"another gateway is using {self.path} (process {pid or 'unknown'})", holder_pid=pid
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def is_state(self) -> bool:
        """Whether the folder looks like one of ours, so that removing it is safe."""
        return self._lock_path.is_file() and (self.path / "secrets.json").is_file()

    def holder(self) -> int | None:
        """The process id that the present or last holder of the lock wrote down."""
        try:
            return int(self._lock_path.read_text())
        except (OSError, ValueError):
            return None

    def remove(self) -> None:
        """Delete the folder and all in it; call with the lock held."""
        shutil.rmtree(self.path)
