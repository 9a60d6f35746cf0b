"""``TenantService``: tenants as operators change them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Sequence

import grpc
import msgspec

from controlplane.core import reasons, tenants
from controlplane.core.ports import Publisher, Tenants
from controlplane.core.tenants import Tenant, TenantChange
from controlplane.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from controlplane.rpc import convert
from controlplane.rpc.receipts import Receipts
from neuronetz.admin.v1 import receipt_pb2, tenant_pb2_grpc
from neuronetz.admin.v1 import tenant_pb2 as pb
from shared.keyspace import TenantId

type Context = grpc.aio.ServicerContext[object, object]


type _Changing = pb.UpdateTenantRequest | pb.SuspendTenantRequest | pb.ResumeTenantRequest


class _Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a change has led to, as its answer says it."""

    tenant: pb.Tenant
    publication: convert.PublicationValue
    receipts: Sequence[receipt_pb2.Receipt] = ()


class TenantService(tenant_pb2_grpc.TenantServiceServicer):
    """Commit, publish, answer; errors of ``controlplane.errors`` become statuses in front of it."""

    def __init__(self, *, tenants: Tenants, publisher: Publisher, receipts: Receipts) -> None:
        self._tenants = tenants
        self._publisher = publisher
        self._receipts = receipts

    async def CreateTenant(self, request: pb.CreateTenantRequest, context: Context) -> pb.CreateTenantResponse:
        """As the proto says."""
        change = _change_of(request, prompt_log=request.prompt_log)
        faults = [*tenants.name_faults(request.name), *tenants.change_faults(change)]
        if faults:
            raise InvalidRequestError(*faults)
        tenant = Tenant(
            id=TenantId(str(uuid.uuid4())),
            name=request.name,
            created_at=dt.datetime.now(dt.UTC),
            limits=change.limits,
            grants=change.grants,
            prompt_log=request.prompt_log,
            prompt_log_retention_days=change.prompt_log_retention_days,
        )
        if request.validate_only:
            await self._check_free(request.name)
            return pb.CreateTenantResponse(tenant=convert.write_tenant(tenant))
        created = await self._tenants.create(tenant)
        announced = await self._publisher.publish_tenant(created.id)
        return pb.CreateTenantResponse(
            tenant=convert.write_tenant(created), publication=convert.publication(applied=announced.applied)
        )

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> pb.GetTenantResponse:
        """As the proto says."""
        return pb.GetTenantResponse(tenant=convert.write_tenant(await self._tenants.get(request.tenant)))

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        """As the proto says."""
        size = convert.read_page_size(request.page_size)
        position = convert.read_page_token(request.page_token, 1)
        found = await self._tenants.page(after=position[0] if position else "", size=size + 1)
        return pb.ListTenantsResponse(
            tenants=[convert.write_tenant(tenant) for tenant in found[:size]],
            next_page_token=convert.write_page_token(found[size - 1].name) if len(found) > size else "",
        )

    async def UpdateTenant(self, request: pb.UpdateTenantRequest, context: Context) -> pb.UpdateTenantResponse:
        """As the proto says."""
        prompt_log = request.prompt_log if request.HasField("prompt_log") else None
        change = msgspec.structs.replace(_change_of(request, prompt_log=prompt_log), clear=tuple(request.clear))
        changed = await self._change(request, lambda tenant, _: tenants.updated(tenant, change))
        return pb.UpdateTenantResponse(
            tenant=changed.tenant, publication=changed.publication, receipts=changed.receipts
        )

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, context: Context) -> pb.SuspendTenantResponse:
        """As the proto says."""
        changed = await self._change(request, tenants.suspended)
        return pb.SuspendTenantResponse(
            tenant=changed.tenant, publication=changed.publication, receipts=changed.receipts
        )

    async def ResumeTenant(self, request: pb.ResumeTenantRequest, context: Context) -> pb.ResumeTenantResponse:
        """As the proto says."""
        changed = await self._change(request, lambda tenant, _: tenants.resumed(tenant))
        return pb.ResumeTenantResponse(tenant=changed.tenant, publication=changed.publication)

    async def _change(self, request: _Changing, change: Callable[[Tenant, dt.datetime], Tenant]) -> _Changed:
        timeout_s = self._receipt_timeout_s(request)
        reasons.check(getattr(request, "reason", ""))
        if request.validate_only:
            draft = change(await self._tenants.get(request.tenant), dt.datetime.now(dt.UTC))
            return _Changed(tenant=convert.write_tenant(draft), publication=convert.UNPUBLISHED)
        changed = await self._tenants.change(request.tenant, change)
        since_s = self._receipts.now_s()
        # Also when nothing has changed: the answer says whether what is so holds everywhere.
        announced = await self._publisher.publish_tenant(changed.id)
        receipts = await self._receipts.of(announced, since_s=since_s, timeout_s=timeout_s)
        return _Changed(
            tenant=convert.write_tenant(changed),
            publication=convert.publication(applied=announced.applied),
            receipts=receipts,
        )

    def _receipt_timeout_s(self, request: _Changing) -> float:
        if isinstance(request, pb.ResumeTenantRequest):
            # Its streams run on; nobody needs to wait for it.
            return 0.0
        return self._receipts.timeout_s(request.receipt_timeout if request.HasField("receipt_timeout") else None)

    async def _check_free(self, name: str) -> None:
        try:
            await self._tenants.get(name)
        except NotFoundError:
            return
        raise AlreadyExistsError(f"tenant {name} exists already")


def _change_of(request: pb.CreateTenantRequest | pb.UpdateTenantRequest, *, prompt_log: bool | None) -> TenantChange:
    """What the fields that both requests have say."""
    grants, faults = convert.read_grants(request.grants)
    given = request.HasField("prompt_log_retention_days")
    return TenantChange(
        limits=convert.read_limits(request.limits),
        grants=grants,
        prompt_log=prompt_log,
        prompt_log_retention_days=request.prompt_log_retention_days if given else None,
        faults=tuple(faults),
    )
