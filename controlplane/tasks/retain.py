"""Keeps the logs as long as they are to be kept: audit rows by day, prompts by the days that their key asks for.

Partitions at the start and when a new day (UTC) begins; prompts whose time is over every half minute, because some come
late and are over when they come. What fails is tried again within the minute.
"""

from __future__ import annotations

import asyncio
import datetime as dt

from controlplane.errors import StoreUnavailableError
from controlplane.store import retention
from shared import logs

CHECK_EVERY_S = 30.0
PARTITION_DAYS_AHEAD = 7

_log = logs.get("controlplane.tasks.retain")


class Retention:
    """Makes partitions ahead and removes what is too old. Any number of replicas may: all of it may be repeated."""

    def __init__(self, *, audit_log_days: int, check_every_s: float = CHECK_EVERY_S) -> None:
        self._audit_log_days = audit_log_days
        self._check_every_s = check_every_s

    async def run(self) -> None:
        """Looks for a new day until cancelled."""
        done_for: dt.date | None = None
        while True:
            try:
                today = await retention.today()
                if today != done_for:
                    await self.retain(today)
                    done_for = today
                else:
                    await retention.delete_prompts(on=today)
            except StoreUnavailableError as fault:
                _log.warning("retention_delayed", fault=str(fault))
            await asyncio.sleep(self._check_every_s)

    async def retain(self, today: dt.date) -> None:
        """Does what a day asks for. Raises ``StoreUnavailableError``."""
        await retention.make_partitions(days_ahead=PARTITION_DAYS_AHEAD)
        prompts = await retention.delete_prompts(on=today)
        audit_days = await retention.drop_audit_partitions(before=today - dt.timedelta(days=self._audit_log_days))
        # Not yesterday's: events that were late may still come.
        prompt_days = await retention.drop_prompt_partitions(before=today - dt.timedelta(days=1))
        _log.info("logs_retained", audit_days_dropped=audit_days, prompt_days_dropped=prompt_days, prompts=prompts)

    def __repr__(self) -> str:
        return f"Retention(audit_log_days={self._audit_log_days})"
