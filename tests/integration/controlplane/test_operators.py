"""Who is calling, and who has changed what."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from neuronetz.admin.v1 import key_pb2, operator_pb2, operator_pb2_grpc, tenant_pb2
from tests.integration.controlplane.conftest import OPERATOR_TOKEN, VIEWER_TOKEN, Running

type Listing = operator_pb2.ListOperatorAuditResponse


@pytest.fixture
def operators(gateway: Running) -> operator_pb2_grpc.OperatorServiceAsyncStub:
    return operator_pb2_grpc.OperatorServiceStub(gateway.channel)


async def test_a_caller_is_told_its_name_its_role_and_what_it_may_call(gateway, operators):
    answer = await gateway.call(operators.WhoAmI, operator_pb2.WhoAmIRequest(), token=VIEWER_TOKEN)
    assert (answer.caller, answer.role, answer.credential) == ("vera", "viewer", "token")
    assert "neuronetz.admin.v1.KeyService/ListKeys" in answer.methods
    assert "neuronetz.admin.v1.KeyService/CreateKey" not in answer.methods


async def every(gateway: Running, operators: operator_pb2_grpc.OperatorServiceAsyncStub) -> Listing:
    answer: Listing = await gateway.call(operators.ListOperatorAudit, operator_pb2.ListOperatorAuditRequest())
    return answer


async def test_changes_are_listed_newest_first_in_pages_with_their_outcome(gateway, operators):
    await gateway.call(gateway.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(name="acme"), token=OPERATOR_TOKEN)
    await gateway.call(gateway.keys.CreateKey, key_pb2.CreateKeyRequest(tenant="acme", name="k"))
    with pytest.raises(grpc.aio.AioRpcError):
        await gateway.call(gateway.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(name="acme"))
    dry = tenant_pb2.SuspendTenantRequest(tenant="acme", validate_only=True)
    await gateway.call(gateway.tenants.SuspendTenant, dry)

    # What becomes of a call is noted when its caller has the answer already.
    async with asyncio.timeout(5):
        while "started" in {entry.outcome for entry in (await every(gateway, operators)).entries}:
            await asyncio.sleep(0.01)
    request = operator_pb2.ListOperatorAuditRequest(page_size=2)
    first: Listing = await gateway.call(operators.ListOperatorAudit, request)
    request.page_token = first.next_page_token
    last: Listing = await gateway.call(operators.ListOperatorAudit, request)

    entries = [*first.entries, *last.entries]
    assert [(entry.caller, entry.method, entry.target, entry.outcome) for entry in entries] == [
        ("admin", "CreateTenant", "acme", "ALREADY_EXISTS"),
        ("admin", "CreateKey", "acme", "OK"),
        ("olga", "CreateTenant", "acme", "OK"),
    ]
    assert last.next_page_token == ""
    assert '"name": "acme"' in entries[2].request


@pytest.mark.parametrize(
    ("narrowed", "count"),
    [
        ({"caller": "olga"}, 1),
        ({"method": "SuspendTenant"}, 1),
        ({"target": "acme"}, 2),
        ({"target": "nobody"}, 0),
        ({"since": {"seconds": 4_000_000_000}}, 0),
        ({"until": {"seconds": 1}}, 0),
    ],
)
async def test_a_listing_is_narrowed(gateway, operators, narrowed, count):
    await gateway.call(gateway.tenants.CreateTenant, tenant_pb2.CreateTenantRequest(name="acme"), token=OPERATOR_TOKEN)
    await gateway.call(gateway.tenants.SuspendTenant, tenant_pb2.SuspendTenantRequest(tenant="acme"))
    found = await gateway.call(operators.ListOperatorAudit, operator_pb2.ListOperatorAuditRequest(**narrowed))
    assert len(found.entries) == count


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (operator_pb2.ListOperatorAuditRequest(page_size=-1), "page_size"),
        (operator_pb2.ListOperatorAuditRequest(page_token="x"), "page_token"),
        (operator_pb2.ListOperatorAuditRequest(caller="x" * 301), "caller"),
        (operator_pb2.ListOperatorAuditRequest(since=Timestamp(seconds=-(10**15))), "since"),
    ],
)
async def test_a_faulty_question_names_the_field(gateway, operators, request_, field):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await gateway.call(operators.ListOperatorAudit, request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in str(refused.value.details())
