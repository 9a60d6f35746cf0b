"""Who may call which RPC: one table, and everything that is not in it is denied."""

from __future__ import annotations

from contextvars import ContextVar

import msgspec

from controlplane.core.roles import Caller, Callers, Role

# Who calls, within the call.
CALLER: ContextVar[Caller] = ContextVar("caller")

_BEARER = "bearer "


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Roles that may call, and whether the call changes something (and is therefore audited)."""

    roles: frozenset[Role]
    mutates: bool = False


_READ = Rule(roles=frozenset({Role.VIEWER, Role.OPERATOR, Role.ADMIN}))
_CHANGE = Rule(roles=frozenset({Role.OPERATOR, Role.ADMIN}), mutates=True)
_OPERATE = Rule(roles=frozenset({Role.OPERATOR, Role.ADMIN}))
_ADMINISTER = Rule(roles=frozenset({Role.ADMIN}))
_PLANE = Rule(roles=frozenset({Role.DATAPLANE, Role.ADMIN}))
# What workers are told, sealed credentials of backends among it, is for nobody else.
_WATCH = Rule(roles=frozenset({Role.DATAPLANE}))
_ANY = Rule(roles=frozenset(Role))

_TENANTS = "/neuronetz.admin.v1.TenantService"
_KEYS = "/neuronetz.admin.v1.KeyService"
_BACKENDS = "/neuronetz.admin.v1.BackendService"
_MODELS = "/neuronetz.admin.v1.ModelService"
_USAGE = "/neuronetz.admin.v1.UsageService"
_FLEET = "/neuronetz.admin.v1.FleetService"
_OPERATORS = "/neuronetz.admin.v1.OperatorService"

RULES: dict[str, Rule] = {
    f"{_TENANTS}/CreateTenant": _CHANGE,
    f"{_TENANTS}/GetTenant": _READ,
    f"{_TENANTS}/ListTenants": _READ,
    f"{_TENANTS}/UpdateTenant": _CHANGE,
    f"{_TENANTS}/SuspendTenant": _CHANGE,
    f"{_TENANTS}/ResumeTenant": _CHANGE,
    f"{_KEYS}/CreateKey": _CHANGE,
    f"{_KEYS}/GetKey": _READ,
    f"{_KEYS}/ListKeys": _READ,
    f"{_KEYS}/UpdateKey": _CHANGE,
    f"{_KEYS}/RotateKey": _CHANGE,
    f"{_KEYS}/SuspendKey": _CHANGE,
    f"{_KEYS}/ResumeKey": _CHANGE,
    f"{_KEYS}/RevokeKey": _CHANGE,
    f"{_BACKENDS}/AddBackend": _CHANGE,
    f"{_BACKENDS}/RemoveBackend": _CHANGE,
    f"{_BACKENDS}/ListBackends": _READ,
    # Makes the gateway send requests, so it is more than reading.
    f"{_BACKENDS}/ProbeBackends": _OPERATE,
    f"{_MODELS}/ListModels": _READ,
    f"{_MODELS}/GetModel": _READ,
    f"{_MODELS}/SetModelPolicy": _CHANGE,
    f"{_MODELS}/ClearModelPolicy": _CHANGE,
    f"{_FLEET}/ListReplicas": _READ,
    f"{_FLEET}/WatchFleet": _READ,
    f"{_USAGE}/GetUsage": _READ,
    f"{_USAGE}/GetBudgets": _READ,
    f"{_USAGE}/QueryAudit": _READ,
    f"{_USAGE}/TailAudit": _READ,
    f"{_USAGE}/AdjustBudget": _CHANGE,
    f"{_OPERATORS}/WhoAmI": _READ,
    # Says what others have asked for.
    f"{_OPERATORS}/ListOperatorAudit": _ADMINISTER,
    "/neuronetz.state.v1.StateService/Watch": _WATCH,
    "/neuronetz.state.v1.StateService/GetSnapshot": _WATCH,
    "/neuronetz.state.v1.KeyVerifier/Verify": _PLANE,
    "/grpc.health.v1.Health/Check": _ANY,
    "/grpc.health.v1.Health/List": _ANY,
    "/grpc.health.v1.Health/Watch": _ANY,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _READ,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _READ,
}


def authenticated(callers: Callers, headers: list[str]) -> Caller | None:
    """The caller of exactly one ``authorization: Bearer …`` header, None for anything else."""
    if len(headers) != 1 or headers[0][: len(_BEARER)].lower() != _BEARER:
        return None
    return callers.find(headers[0][len(_BEARER) :].strip())


def allowed(caller: Caller, method: str) -> Rule | None:
    """The rule under which the caller may call the method, None when it may not."""
    rule = RULES.get(method)
    return rule if rule is not None and caller.role in rule.roles else None
