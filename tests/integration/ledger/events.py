"""Usage events as workers append them."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec

from shared import keyspace, records
from shared.keyspace import KeyId, TenantId
from shared.records import UsageEvent

TENANT = TenantId(str(uuid.UUID(int=1)))
KEY = KeyId(str(uuid.UUID(int=2)))
CREATED_MS = 1_795_220_000_000
DAY = "20261121"


def event(number: int = 1, **fields: Any) -> UsageEvent:
    values: dict[str, Any] = {
        "event_id": f"event-{number}",
        "request_id": f"request-{number}",
        "tenant_id": TENANT,
        "key_id": KEY,
        "day": DAY,
        "created_at_ms": CREATED_MS,
        "dialect": "ollama",
        "endpoint": "/api/chat",
        "outcome": "completed",
        "status": 200,
        "model": "llama3:latest",
        "prompt_tokens": number,
        "completion_tokens": 10,
    }
    return UsageEvent(**values | fields)


def raw(number: int = 1, **fields: Any) -> bytes:
    return records.encode(event(number, **fields))


def changed(event: UsageEvent, **fields: Any) -> bytes:
    """The bytes of an event with fields that the struct itself might not allow."""
    return msgspec.json.encode(msgspec.json.decode(records.encode(event)) | fields)


SHARD = keyspace.shard_of(TENANT)
STREAM = keyspace.usage(SHARD)


async def append(client: Any, *raws: bytes) -> list[str]:
    return [(await client.xadd(STREAM, {"e": raw})).decode() for raw in raws]
