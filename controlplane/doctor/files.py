"""Who may read a file."""

from __future__ import annotations

import stat
from pathlib import Path

# Where containers find their secrets: nobody but the container's own process sees this folder.
_OF_A_CONTAINER = Path("/run/secrets")


def is_for_everybody(path: Path) -> bool:
    """Whether any user of the machine can read a file: its mode and every folder above it let them.

    Raises ``OSError``.
    """
    if path.absolute().is_relative_to(_OF_A_CONTAINER):
        return False
    actual = path.resolve(strict=True)
    if not actual.stat().st_mode & stat.S_IROTH:
        return False
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in actual.parents)
