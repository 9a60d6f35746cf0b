"""The first schema: tenants, keys, ledger, logs, the revocations outbox, and what is the control plane's own."""

from controlplane.store.scripts import run_script

ID = "2026-11-21T00:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "first schema"


async def forwards() -> None:
    """Runs the script beside this module inside the current transaction."""
    await run_script(__file__)
