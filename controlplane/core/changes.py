"""What the watch tells: that something has a new state, never the state of a moment that may have passed."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from controlplane.core.keys import Key
from controlplane.core.tenants import Tenant


class ChangeKind(StrEnum):
    """What has changed."""

    KEY = "key"
    TENANT = "tenant"
    CONFIG = "config"
    DISCOVERED = "discovered"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change. ``revision`` is 0 until it has been announced.

    ``id`` and ``version`` are a key's or tenant's; the version is negative while the key or tenant is refused.
    """

    kind: ChangeKind
    id: str = ""
    version: int = 0
    revision: int = 0

    @property
    def is_version(self) -> bool:
        """Whether it speaks of a key or a tenant."""
        return self.kind in (ChangeKind.KEY, ChangeKind.TENANT)


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a publication.

    ``applied`` is False when Redis could not be written: it goes out later, and meanwhile over the watch alone.
    ``revision`` is what workers acknowledge; 0 when not even a revision could be had.
    """

    applied: bool
    revision: int = 0


def of_key(key: Key, *, has_ended: bool) -> Change:
    """A key's new version; ``has_ended`` says that it has expired or was revoked."""
    version = key.live_version
    return Change(kind=ChangeKind.KEY, id=key.id, version=-abs(version) if has_ended else version)


def of_tenant(tenant: Tenant) -> Change:
    """A tenant's new version."""
    return Change(kind=ChangeKind.TENANT, id=tenant.id, version=tenant.live_version)
