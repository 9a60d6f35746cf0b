"""API keys: what one is, and what may happen to it. Expiry is a moment, not a state: everybody decides it by time."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum

import msgspec

from controlplane.core import prompt_log
from controlplane.core.limits import GRANT_FIELDS, LIMIT_FIELDS, clear_faults, given_fields, limits_faults, merged
from controlplane.errors import InvalidRequestError, StateConflictError
from shared.keyspace import KeyId, TenantId
from shared.records import GrantsRecord, KeyRecord, KeyState, LimitsRecord

MAX_NAME_LENGTH = 100
MAX_OVERLAP = dt.timedelta(days=365)
MAX_EXPIRY = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)
CLEARABLE = (*LIMIT_FIELDS, *GRANT_FIELDS, "expires_at", "prompt_log_retention_days")


class KeyStatus(StrEnum):
    """What a key is now, its expiry included."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    EXPIRED = "expired"


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret. ``version`` grows with each change; before the first commit it is 0."""

    id: KeyId
    tenant_id: TenantId
    tenant: str
    prefix: str
    name: str
    state: KeyState = KeyState.ACTIVE
    version: int = 0
    created_at: dt.datetime
    expires_at: dt.datetime | None = None
    suspended_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None
    prompt_log: bool = False
    prompt_log_retention_days: int | None = None
    rotated_from: KeyId | None = None
    limits: LimitsRecord = LimitsRecord()
    grants: GrantsRecord = GrantsRecord()

    def status(self, now: dt.datetime) -> KeyStatus:
        """Revoked before expired before suspended: what is final is said first."""
        if self.state is not KeyState.REVOKED and self.expires_at is not None and self.expires_at <= now:
            return KeyStatus.EXPIRED
        return KeyStatus(self.state)

    def has_ended(self, now: dt.datetime) -> bool:
        """Whether it will never be served again."""
        return self.status(now) in (KeyStatus.REVOKED, KeyStatus.EXPIRED)

    def record(self, prompt_log_days: int, digest: str | None = None) -> KeyRecord:
        """What the data plane needs of it; ``prompt_log_days`` is the deployment's default retention."""
        return KeyRecord(
            key_id=self.id,
            tenant_id=self.tenant_id,
            prefix=self.prefix,
            version=self.version,
            state=self.state,
            digest=digest,
            expires_at_ms=None if self.expires_at is None else round(self.expires_at.timestamp() * 1000),
            limits=self.limits,
            grants=self.grants,
            prompt_log_days=prompt_log.kept_days(
                prompt_log=self.prompt_log,
                retention_days=self.prompt_log_retention_days,
                default_days=prompt_log_days,
            ),
        )

    @property
    def live_version(self) -> int:
        """Its entry in ``live``: negative while it is refused."""
        return self.version if self.state is KeyState.ACTIVE else -self.version


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What an update sets and unsets; ``faults`` were found while it was read."""

    limits: LimitsRecord = LimitsRecord()
    grants: GrantsRecord = GrantsRecord()
    expires_at: dt.datetime | None = None
    prompt_log: bool | None = None
    prompt_log_retention_days: int | None = None
    clear: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def name_faults(name: str) -> list[str]:
    """The rule that a key's name breaks, if any."""
    if 1 <= len(name) <= MAX_NAME_LENGTH and name.isprintable() and name == name.strip():
        return []
    return [f"name must have 1 to {MAX_NAME_LENGTH} printable characters, no space at either end"]


def change_faults(change: KeyChange, now: dt.datetime) -> list[str]:
    """Every rule that the values of a change break."""
    faults = [*change.faults, *limits_faults(change.limits)]
    if change.expires_at is not None and not now < change.expires_at < MAX_EXPIRY:
        faults.append("expires_at must be in the future")
    faults += prompt_log.retention_faults(change.prompt_log_retention_days)
    given = [field for field in ("expires_at", "prompt_log_retention_days") if getattr(change, field) is not None]
    return faults + clear_faults(change.clear, CLEARABLE, [*given, *given_fields(change.limits, change.grants)])


def updated(key: Key, change: KeyChange, now: dt.datetime) -> Key:
    """The changed key. Raises ``InvalidRequestError`` with every fault, ``StateConflictError`` for a revoked key."""
    faults = change_faults(change, now)
    if faults:
        raise InvalidRequestError(*faults)
    if key.state is KeyState.REVOKED:
        raise StateConflictError("the key is revoked")
    values = {
        field: getattr(change, field)
        for field in ("expires_at", "prompt_log", "prompt_log_retention_days")
        if getattr(change, field) is not None
    }
    values |= {field: None for field in ("expires_at", "prompt_log_retention_days") if field in change.clear}
    return msgspec.structs.replace(
        key,
        limits=merged(key.limits, change.limits, change.clear),
        grants=merged(key.grants, change.grants, change.clear),
        **values,
    )


def suspended(key: Key, now: dt.datetime) -> Key:
    """The key, refused until resumed; unchanged when it already is. Raises ``StateConflictError`` when revoked."""
    if key.state is KeyState.REVOKED:
        raise StateConflictError("the key is revoked")
    if key.state is KeyState.SUSPENDED:
        return key
    return msgspec.structs.replace(key, state=KeyState.SUSPENDED, suspended_at=now)


def resumed(key: Key) -> Key:
    """The key, served again; unchanged when it already is. Raises ``StateConflictError`` when revoked."""
    if key.state is KeyState.REVOKED:
        raise StateConflictError("the key is revoked")
    if key.state is KeyState.ACTIVE:
        return key
    return msgspec.structs.replace(key, state=KeyState.ACTIVE, suspended_at=None)


def revoked(key: Key, now: dt.datetime) -> Key:
    """The key, refused for good; unchanged when it already is."""
    if key.state is KeyState.REVOKED:
        return key
    return msgspec.structs.replace(key, state=KeyState.REVOKED, revoked_at=now)


def overlap_faults(overlap: dt.timedelta) -> list[str]:
    """The rule that an overlap breaks, if any."""
    if dt.timedelta(0) <= overlap <= MAX_OVERLAP:
        return []
    return [f"overlap must be from 0 to {MAX_OVERLAP.days} days"]


def successor(key: Key, *, key_id: KeyId, prefix: str, now: dt.datetime) -> Key:
    """The key that takes over: same tenant, name, limits, grants, expiry and prompt log.

    Raises ``StateConflictError`` unless the key is active: a rotation must not bring back what was ended.
    """
    status = key.status(now)
    if status is not KeyStatus.ACTIVE:
        raise StateConflictError(f"the key is {status}")
    return msgspec.structs.replace(
        key, id=key_id, prefix=prefix, version=0, created_at=now, rotated_from=key.id, suspended_at=None
    )


def replaced(key: Key, overlap: dt.timedelta, now: dt.datetime) -> Key:
    """The old key of a rotation: revoked now, or expiring after the overlap, never later than it would have."""
    if overlap <= dt.timedelta(0):
        return revoked(key, now)
    ends_at = now + overlap
    if key.expires_at is not None and key.expires_at <= ends_at:
        return key
    return msgspec.structs.replace(key, expires_at=ends_at)
