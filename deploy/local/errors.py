"""What can go wrong in the embedded stack, as messages for the person at the terminal.

StackError
├── BusyError          another process uses the state folder
├── ConfigurationError a plane refused its configuration; the exit status is 64
└── StopRequestedError a signal asked to stop while something was awaited; not a failure
"""

EXIT_FAILURE = 1
EXIT_CONFIGURATION = 64


class StackError(Exception):
    """The stack cannot go on; the message says why and, where there is one, the way out."""

    exit_status = EXIT_FAILURE


class BusyError(StackError):
    """Another process holds the state folder's lock."""

    def __init__(self, message: str, *, holder_pid: int | None) -> None:
        super().__init__(message)
        self.holder_pid = holder_pid


class ConfigurationError(StackError):
    """A plane ended with status 64: restarting it cannot help."""

    exit_status = EXIT_CONFIGURATION


class StopRequestedError(StackError):
    """SIGINT, SIGTERM or SIGHUP arrived."""

    exit_status = 0
