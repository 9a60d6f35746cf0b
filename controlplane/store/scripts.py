"""Runs the SQL scripts of migrations inside the transaction that the migration runner has opened."""

from __future__ import annotations

from pathlib import Path

from controlplane.store.engine import DB


async def run_script(module_file: str) -> None:
    """Executes the ``.sql`` file beside a migration module, several statements at once."""
    script = Path(module_file).with_suffix(".sql").read_text()
    async with DB.transaction() as current:
        await current.connection.execute(script)
