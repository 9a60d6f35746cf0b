"""What a rehearsal can end with."""


class RehearsalError(Exception):
    """The stage was not set, or a command did not end."""
