"""Values that tests of the stages share."""

from __future__ import annotations

from dataplane.native import ChatBody, Message, Options
from dataplane.values import (
    Arrival,
    Dialect,
    Grant,
    InferenceRequest,
    Lease,
    Limits,
    Operation,
    Principal,
    RequestId,
)
from shared.keyspace import KeyId, LeaseId, Shard, TenantId
from shared.modelname import canonical

LIMITS = Limits(rpm=60, tpm=100_000, concurrent=8)
PRINCIPAL = Principal(
    key_id=KeyId("key"),
    key_prefix="nz_000000000",
    tenant_id=TenantId("tenant"),
    tenant_name="acme",
    shard=Shard("s03"),
    key_version=1,
    tenant_version=1,
    expires_at_ms=0,
    key_limits=LIMITS,
    tenant_limits=LIMITS,
    grant=Grant(all_models=False, models=frozenset({canonical("llama3")})),
    prompt_log_days=None,
)
ARRIVAL = Arrival(
    request_id=RequestId("r" * 32),
    dialect=Dialect.OLLAMA,
    endpoint="/api/chat",
    client_ip="198.51.100.7",
    created_at_ms=1_795_219_200_123,  # 2026-11-21
    started_s=1000.0,
)
LEASE = Lease(
    lease_id=LeaseId("r" * 32),
    shard=Shard("s03"),
    day="20261120",
    month="202611",
    prompt_bound=4096,
    num_predict=16,
    taken_s=1000.0,
)
INFERENCE = InferenceRequest(
    operation=Operation.CHAT,
    model="LLAMA3",
    canonical=canonical("llama3"),
    body=ChatBody(messages=[Message(role="user", content="hi")], options=Options(num_predict=16)),
    stream=True,
    num_predict=16,
    prompt_bytes=2,
)
