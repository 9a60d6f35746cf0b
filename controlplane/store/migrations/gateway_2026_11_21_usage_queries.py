"""What usage queries need of the audit log: an order of arrival, who corrected what and why, and its indexes."""

from controlplane.store.scripts import run_script

ID = "2026-11-21T12:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "usage queries"


async def forwards() -> None:
    """Runs the script beside this module inside the current transaction."""
    await run_script(__file__)
