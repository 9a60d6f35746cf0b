"""Become another program that the kernel ends when this process's parent ends.

Run as a script, never imported: `python -I -S leash.py PARENT_PID SIGNAL UID COMMAND…`. PARENT_PID 0 means no leash,
UID -1 means no change of user. The order matters: changing the user clears the request to the kernel, so it comes
first. Only Linux has such a request; elsewhere the program simply starts, and the next start of the stack ends what
was left over.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
EXIT_ORPHAN = 125
EXIT_CANNOT_START = 127


def main(arguments: list[str]) -> int:
    """Replace this process by the command; return an exit status only if that was impossible."""
    parent_pid, death_signal, uid = (int(argument) for argument in arguments[:3])
    command = arguments[3:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    if parent_pid and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent_pid:  # it ended before the kernel knew
            return EXIT_ORPHAN
    try:
        os.execvp(command[0], command)  # noqa: S606 # nosec B606 - a shell is what this avoids
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    return EXIT_CANNOT_START


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
