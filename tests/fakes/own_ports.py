"""Ports that no other test process of this run takes.

A port is free from when it is chosen until its server listens, and while that server is down: with all processes
choosing from all ports, one run in some dozens would have two servers with one port.
"""

from __future__ import annotations

import json
from pathlib import Path

from deploy.local import ports

# More than any test has of each.
_PLANES = 4


def keep_to(share: int, shares: int) -> None:
    """This process chooses from one share, from 0, of so many equal ones of all ports."""
    size = len(ports.POOL) // shares
    ports.POOL = ports.POOL[share * size : (share + 1) * size]


def choose_for(state: Path) -> frozenset[int]:
    """The ports of a stack, chosen here if it has none yet: it takes, in its own process, those that its folder names.

    Those of data planes are not among them: they follow the one that the stack is told.
    """
    file = state / "ports.json"
    if file.exists():
        return frozenset(json.loads(file.read_text()).values())
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    book = ports.PortBook(file)
    for name in ("redis", "postgres"):
        book.assign(name)
    for number in range(1, _PLANES + 1):
        for name in (f"controlplane-{number}", f"controlplane-{number}-metrics", f"dataplane-{number}-metrics"):
            book.assign(name)
    return frozenset(json.loads(file.read_text()).values())
