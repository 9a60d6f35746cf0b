"""What a command ends with when it fails, and the exit code of each cause.

    CLIError
    ├── CallError            the server answered with a status, or could not be reached
    ├── UnreadyError         what a local command needs (Postgres) is not there; trying again may help
    └── UnusableCommandError a command of another package is installed but cannot be loaded

Besides these, ``click.ClickException`` is wrong usage and ``shared.config.ConfigurationError`` a wrong setting.
"""

from enum import IntEnum

from shared.config import EXIT_CONFIGURATION


class Exit(IntEnum):
    """Exit codes by cause; part of the interface for scripts."""

    OK = 0
    OTHER = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    DENIED = 5
    UNAVAILABLE = 6
    WARNED = 7
    UNSOUND = 8
    CONFIGURATION = EXIT_CONFIGURATION
    INTERRUPTED = 130


MEANINGS = {
    Exit.OK: "done",
    Exit.OTHER: "anything not named here",
    Exit.USAGE: "wrong usage, or INVALID_ARGUMENT",
    Exit.NOT_FOUND: "NOT_FOUND",
    Exit.CONFLICT: "ALREADY_EXISTS or FAILED_PRECONDITION",
    Exit.DENIED: "UNAUTHENTICATED or PERMISSION_DENIED",
    Exit.UNAVAILABLE: "UNAVAILABLE or DEADLINE_EXCEEDED: try again",
    Exit.WARNED: "doctor found something that will not do for long",
    Exit.UNSOUND: "doctor found something that does not work or is not safe",
    Exit.CONFIGURATION: "a setting is missing or wrong; nothing was sent",
    Exit.INTERRUPTED: "interrupted from the keyboard",
}

_BY_STATUS = {
    "INVALID_ARGUMENT": Exit.USAGE,
    "NOT_FOUND": Exit.NOT_FOUND,
    "ALREADY_EXISTS": Exit.CONFLICT,
    "FAILED_PRECONDITION": Exit.CONFLICT,
    "UNAUTHENTICATED": Exit.DENIED,
    "PERMISSION_DENIED": Exit.DENIED,
    "UNAVAILABLE": Exit.UNAVAILABLE,
    "DEADLINE_EXCEEDED": Exit.UNAVAILABLE,
}


def exit_for_status(status: str) -> Exit:
    """The exit code for a gRPC status by its name; ``Exit.OTHER`` for one that has no code of its own."""
    return _BY_STATUS.get(status, Exit.OTHER)


class CLIError(Exception):
    """A failure with a name for programs, one line for people and an exit code."""

    code = "ERROR"
    exit = Exit.OTHER

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CallError(CLIError):
    """The call failed; ``code`` is the name of the gRPC status."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message or "the server gave no reason")
        self.code = status
        self.exit = exit_for_status(status)


class UnreadyError(CLIError):
    """A machine that a local command needs does not answer."""

    code = "UNAVAILABLE"
    exit = Exit.UNAVAILABLE


class UnusableCommandError(CLIError):
    """A command that another package brings cannot be loaded here."""

    code = "UNUSABLE_COMMAND"
