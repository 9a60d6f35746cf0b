"""``TenantService``: tenants as operators change them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable

import grpc
import msgspec

from controlplane.core import tenants
from controlplane.core.ports import Publisher, Tenants
from controlplane.core.tenants import Tenant, TenantChange
from controlplane.errors import AlreadyExistsError, InvalidRequestError, NotFoundError
from controlplane.rpc import convert
from neuronetz.admin.v1 import tenant_pb2 as pb
from neuronetz.admin.v1 import tenant_pb2_grpc
from shared.keyspace import TenantId

type Context = grpc.aio.ServicerContext[object, object]


class TenantService(tenant_pb2_grpc.TenantServiceServicer):
    """Commit, publish, answer; errors of ``controlplane.errors`` become statuses in front of it."""

    def __init__(self, *, tenants: Tenants, publisher: Publisher) -> None:
        self._tenants = tenants
        self._publisher = publisher

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
        tenant, applied = await self._change(
            request.tenant,
            lambda tenant, _: tenants.updated(tenant, change),
            validate_only=request.validate_only,
        )
        return pb.UpdateTenantResponse(tenant=tenant, publication=applied)

    async def SuspendTenant(self, request: pb.SuspendTenantRequest, context: Context) -> pb.SuspendTenantResponse:
        """As the proto says."""
        tenant, applied = await self._change(request.tenant, tenants.suspended, validate_only=request.validate_only)
        return pb.SuspendTenantResponse(tenant=tenant, publication=applied)

    async def ResumeTenant(self, request: pb.ResumeTenantRequest, context: Context) -> pb.ResumeTenantResponse:
        """As the proto says."""
        tenant, applied = await self._change(
            request.tenant, lambda tenant, _: tenants.resumed(tenant), validate_only=request.validate_only
        )
        return pb.ResumeTenantResponse(tenant=tenant, publication=applied)

    async def _change(
        self, reference: str, change: Callable[[Tenant, dt.datetime], Tenant], *, validate_only: bool
    ) -> tuple[pb.Tenant, convert.PublicationValue]:
        if validate_only:
            draft = change(await self._tenants.get(reference), dt.datetime.now(dt.UTC))
            return convert.write_tenant(draft), convert.UNPUBLISHED
        changed = await self._tenants.change(reference, change)
        # Also when nothing has changed: the answer says whether what is so holds everywhere.
        announced = await self._publisher.publish_tenant(changed.id)
        return convert.write_tenant(changed), convert.publication(applied=announced.applied)

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
