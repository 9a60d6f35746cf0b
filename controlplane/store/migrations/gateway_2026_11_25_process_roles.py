"""Roles of processes: control planes need not own the schema."""

from controlplane.store.scripts import run_script

ID = "2026-11-25T00:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "process roles"


async def forwards() -> None:
    """Runs the script beside this module inside the current transaction."""
    await run_script(__file__)
