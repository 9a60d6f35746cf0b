"""Who changed what: a row before each mutation, completed by how it ended.

The row is written first, so that no change can happen without one; a row that still says ``started`` belongs to a call
whose end is not known (the process or Postgres went away in the middle).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from controlplane.store import engine

STARTED = "started"


async def begin(*, caller: str, role: str, method: str, target: str, detail: Mapping[str, Any]) -> int:
    """Writes the row and gives its id. ``detail`` holds no secret. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        row_id: int = await connection.fetchval(
            "INSERT INTO control.operator_audit (caller, role, method, target, detail, outcome)"
            " VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            caller,
            role,
            method,
            target,
            msgspec.json.encode(detail).decode(),
            STARTED,
        )
        return row_id


async def finish(row_id: int, outcome: str) -> None:
    """Completes the row with the status that the caller got. Raises ``StoreUnavailableError``."""
    async with engine.connection() as connection:
        await connection.execute("UPDATE control.operator_audit SET outcome = $2 WHERE id = $1", row_id, outcome)
