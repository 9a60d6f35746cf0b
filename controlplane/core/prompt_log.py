"""Keeping prompts: who asks for it, and for how long. Pure rules, the same for tenants and for keys."""

from __future__ import annotations

MAX_RETENTION_DAYS = 3650


def retention_faults(days: int | None) -> list[str]:
    """The rule that a retention breaks, if any."""
    if days is None or 1 <= days <= MAX_RETENTION_DAYS:
        return []
    return [f"prompt_log_retention_days must be from 1 to {MAX_RETENTION_DAYS}"]


def kept_days(*, prompt_log: bool, retention_days: int | None, default_days: int) -> int | None:
    """How many days prompts are kept; None keeps none."""
    return (retention_days or default_days) if prompt_log else None
