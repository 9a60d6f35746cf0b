"""Between messages and values: tenants, keys, limits, grants, moments and page tokens."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Sequence

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.core.keys import Key, KeyStatus
from controlplane.core.limits import LIMIT_FIELDS, parse_models
from controlplane.core.tenants import Tenant
from controlplane.errors import InvalidRequestError
from neuronetz.admin.v1 import key_pb2, limits_pb2, publication_pb2, tenant_pb2
from shared import modelname
from shared.records import GrantsRecord, LimitsRecord, TenantState

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

type PublicationValue = publication_pb2.Publication.ValueType

UNPUBLISHED = publication_pb2.PUBLICATION_UNSPECIFIED

_KEY_STATUS = {
    KeyStatus.ACTIVE: key_pb2.KEY_STATUS_ACTIVE,
    KeyStatus.SUSPENDED: key_pb2.KEY_STATUS_SUSPENDED,
    KeyStatus.REVOKED: key_pb2.KEY_STATUS_REVOKED,
    KeyStatus.EXPIRED: key_pb2.KEY_STATUS_EXPIRED,
}
_TENANT_STATUS = {
    TenantState.ACTIVE: tenant_pb2.TENANT_STATUS_ACTIVE,
    TenantState.SUSPENDED: tenant_pb2.TENANT_STATUS_SUSPENDED,
}


def publication(*, applied: bool) -> PublicationValue:
    """What a mutation answers about when it takes effect."""
    return publication_pb2.PUBLICATION_APPLIED if applied else publication_pb2.PUBLICATION_PENDING


def read_limits(message: limits_pb2.Limits) -> LimitsRecord:
    """Limits as given; their rules are checked elsewhere."""
    given = {field: getattr(message, field) for field in LIMIT_FIELDS if message.HasField(field)}  # type: ignore[arg-type] # names of optional fields
    return LimitsRecord(**given)


def read_grants(message: limits_pb2.Grants) -> tuple[GrantsRecord, list[str]]:
    """Grants with canonical names, and the faults among the names."""
    models, faults = parse_models(message.allowed_models.names)
    return GrantsRecord(
        allow_all_models=message.allow_all_models if message.HasField("allow_all_models") else None,
        allowed_models=models if message.HasField("allowed_models") else None,
    ), faults


def write_limits(limits: LimitsRecord) -> limits_pb2.Limits:
    """The message of limits."""
    return limits_pb2.Limits(**{field: getattr(limits, field) for field in LIMIT_FIELDS})


def write_grants(grants: GrantsRecord) -> limits_pb2.Grants:
    """The message of grants, names in their short spelling."""
    message = limits_pb2.Grants(allow_all_models=grants.allow_all_models)
    if grants.allowed_models is not None:
        # Also when there are none: an empty list is not an unset one.
        message.allowed_models.SetInParent()
        message.allowed_models.names.extend(modelname.display(name) for name in grants.allowed_models)
    return message


def write_tenant(tenant: Tenant) -> tenant_pb2.Tenant:
    """The message of a tenant."""
    return tenant_pb2.Tenant(
        id=tenant.id,
        name=tenant.name,
        status=_TENANT_STATUS[tenant.state],
        limits=write_limits(tenant.limits),
        grants=write_grants(tenant.grants),
        created_at=write_moment(tenant.created_at),
        suspended_at=write_moment(tenant.suspended_at),
        version=tenant.version,
        prompt_log=tenant.prompt_log,
        prompt_log_retention_days=tenant.prompt_log_retention_days,
    )


def write_key(key: Key, now: dt.datetime) -> key_pb2.Key:
    """The message of a key, with its status at a moment."""
    return key_pb2.Key(
        id=key.id,
        prefix=key.prefix,
        tenant_id=key.tenant_id,
        tenant=key.tenant,
        name=key.name,
        status=_KEY_STATUS[key.status(now)],
        limits=write_limits(key.limits),
        grants=write_grants(key.grants),
        expires_at=write_moment(key.expires_at),
        prompt_log=key.prompt_log,
        prompt_log_retention_days=key.prompt_log_retention_days,
        created_at=write_moment(key.created_at),
        revoked_at=write_moment(key.revoked_at),
        version=key.version,
    )


def write_moment(moment: dt.datetime | None) -> Timestamp | None:
    """The message of a moment."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def read_moment(message: Timestamp) -> dt.datetime:
    """The moment, to the millisecond, as far as Redis knows it. Raises ``ValueError`` with the rule."""
    try:
        moment = message.ToDatetime(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a moment from year 1 to 9999") from None
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def read_duration(message: Duration) -> dt.timedelta:
    """The duration. Raises ``ValueError`` with the rule."""
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError):
        raise ValueError("must be a duration") from None


def read_page_size(size: int) -> int:
    """How many to list. Raises ``InvalidRequestError``."""
    if not 0 <= size <= MAX_PAGE_SIZE:
        raise InvalidRequestError(f"page_size must be from 0 to {MAX_PAGE_SIZE}")
    return size or DEFAULT_PAGE_SIZE


def write_page_token(*position: str) -> str:
    """Where the next page begins, opaque to callers."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode("ascii").rstrip("=")


def read_page_token(token: str, length: int) -> tuple[str, ...] | None:
    """The position in a token, None for the first page. Raises ``InvalidRequestError``."""
    if not token:
        return None
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        position = msgspec.json.decode(raw, type=tuple[str, ...])
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        position = ()
    if len(position) != length:
        raise InvalidRequestError("page_token must be the next_page_token of the page before")
    return position


def page_of[T](items: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """A page of a list that is known whole, and the token of the next one. Raises ``InvalidRequestError``."""
    wanted = read_page_size(size)
    position = read_page_token(token, 1)
    start = _offset(position[0]) if position is not None else 0
    following = write_page_token(str(start + wanted)) if start + wanted < len(items) else ""
    return items[start : start + wanted], following


def _offset(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidRequestError("page_token must be the next_page_token of the page before")
    return int(text)
