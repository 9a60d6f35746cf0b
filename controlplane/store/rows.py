"""What the aggregates share: limits and grants as columns, references, and the ids of the driver as ours."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg

from controlplane.core.limits import LIMIT_FIELDS
from shared.modelname import CanonicalName
from shared.records import GrantsRecord, LimitsRecord

LIMIT_COLUMNS = (*LIMIT_FIELDS, "allow_all_models", "allowed_models")


def limit_values(limits: LimitsRecord, grants: GrantsRecord) -> dict[str, Any]:
    """Limits and grants by column."""
    models = grants.allowed_models
    return {
        **{field: getattr(limits, field) for field in LIMIT_FIELDS},
        "allow_all_models": grants.allow_all_models,
        "allowed_models": None if models is None else list(models),
    }


def limits_of(row: asyncpg.Record) -> tuple[LimitsRecord, GrantsRecord]:
    """Limits and grants of a row."""
    models = row["allowed_models"]
    grants = GrantsRecord(
        allow_all_models=row["allow_all_models"],
        allowed_models=None if models is None else tuple(CanonicalName(name) for name in models),
    )
    return LimitsRecord(**{field: row[field] for field in LIMIT_FIELDS}), grants


def is_text(reference: str) -> bool:
    """Whether Postgres can hold it: it knows no NUL."""
    return "\x00" not in reference


def as_uuid(reference: str) -> uuid.UUID | None:
    """The id in a reference, None when it is none (it is a name or prefix then)."""
    try:
        return uuid.UUID(reference)
    except ValueError:
        return None
