"""Policies of models, and weights of backends."""

from controlplane.store.scripts import run_script

ID = "2026-11-24T00:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "model policies"


async def forwards() -> None:
    """Runs the script beside this module inside the current transaction."""
    await run_script(__file__)
