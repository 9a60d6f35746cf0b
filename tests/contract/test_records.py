"""Bytes that a release has left in Redis are read by every later one, and by the one before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared import records
from shared.modelname import canonical
from shared.records import (
    AnonymousFailures,
    BackendRecord,
    ConfigRecord,
    KeyRecord,
    ModelPolicyRecord,
    TenantRecord,
    UsageEvent,
)

# As written by release 0.1. A sample is never changed; a release that writes something else adds one.
SAMPLES: list[tuple[type[msgspec.Struct], bytes, dict[str, Any]]] = [
    (
        KeyRecord,
        (
            b'{"key_id":"00000000-0000-0000-0000-000000000002","tenant_id":"00000000-0000-0000-0000-000000000001",'
            b'"prefix":"nz_000000001","version":3,"limits":{"rpm":60,"budget_day":1000},"prompt_log_days":30}'
        ),
        {"version": 3, "prompt_log_days": 30, "state": "active", "digest": None},
    ),
    (
        TenantRecord,
        b'{"tenant_id":"00000000-0000-0000-0000-000000000001","name":"acme","version":2,"state":"suspended"}',
        {"name": "acme", "version": 2, "state": "suspended"},
    ),
    (
        ConfigRecord,
        # Before there were policies and weights.
        b'{"revision":7,"backends":[{"name":"one","url":"http://one:11434","priority":1,"sealed_token":"x"}]}',
        {
            "revision": 7,
            "models": (),
            "backends": (BackendRecord(name="one", url="http://one:11434", priority=1, weight=1, sealed_token="x"),),
        },
    ),
    (
        ConfigRecord,
        (
            b'{"revision":8,"backends":[{"name":"one","url":"http://one:11434","weight":3}],"models":['
            b'{"model":"registry.ollama.ai/library/qwen3:8b","num_ctx":8192,"keep_alive":"30m","max_num_predict":512,'
            b'"image_tokens":768,"allowed_options":["seed","from_the_future"],'
            b'"alias":"registry.ollama.ai/library/fast:latest"},'
            b'{"model":"registry.ollama.ai/library/llama3:latest","allowed_options":[]}]}'
        ),
        {
            "backends": (BackendRecord(name="one", url="http://one:11434", weight=3),),
            "models": (
                ModelPolicyRecord(
                    model=canonical("qwen3:8b"),
                    num_ctx=8192,
                    keep_alive="30m",
                    max_num_predict=512,
                    image_tokens=768,
                    allowed_options=("seed", "from_the_future"),
                    alias=canonical("fast"),
                ),
                ModelPolicyRecord(model=canonical("llama3"), allowed_options=()),
            ),
        },
    ),
    (
        UsageEvent,
        (
            b'{"event_id":"a","request_id":"a","tenant_id":"00000000-0000-0000-0000-000000000001",'
            b'"key_id":"00000000-0000-0000-0000-000000000002","day":"20261121","created_at_ms":1795220000000,'
            b'"dialect":"ollama","endpoint":"/api/chat","outcome":"completed","status":200,"prompt_tokens":5}'
        ),
        {"prompt_tokens": 5, "completion_tokens": 0, "occurrences": 1, "provenance": "reported", "reason": ""},
    ),
    (
        AnonymousFailures,
        b'{"at_ms":1795220000000,"block":"2001:db8::/64","reason":"unknown","occurrences":7}',
        {"at_ms": 1_795_220_000_000, "block": "2001:db8::/64", "reason": "unknown", "occurrences": 7},
    ),
]


@pytest.mark.parametrize(("kind", "raw", "fields"), SAMPLES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_stored_record_means_what_it_meant(kind, raw, fields):
    record = records.decode(records.decoder(kind), raw)
    assert {field: getattr(record, field) for field in fields} == fields
    assert records.decode(records.decoder(kind), records.encode(record)) == record


@pytest.mark.parametrize(("kind", "raw", "fields"), SAMPLES, ids=lambda value: getattr(value, "__name__", ""))
def test_fields_of_a_later_release_are_ignored(kind, raw, fields):
    later = msgspec.json.encode(msgspec.json.decode(raw) | {"from_the_future": {"x": [1]}})
    assert records.decode(records.decoder(kind), later) == records.decode(records.decoder(kind), raw)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"at_ms":"now"}', b"\xff"])
def test_anything_else_is_no_record(raw):
    with pytest.raises(records.RecordError):
        records.decode(records.decoder(AnonymousFailures), raw)
