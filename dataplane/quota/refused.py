"""Refusals that were pushed by the control plane and that Redis may not know of yet.

Redis decides; but while the control plane cannot write to it (``PENDING``), a revocation comes over the watch alone.
A worker refuses on the higher of the two versions: what is remembered here is compared with the version that a
principal was read at, and a principal that Redis knows at a higher one is none of our business any more.
"""

from __future__ import annotations

from dataplane.errors import AuthenticationError
from dataplane.values import Principal
from shared import keyspace
from shared.keyspace import Scope

# Beyond it the oldest are forgotten; Redis has long had them by then.
CAPACITY = 65_536


class RefusedVersions:
    """Keys and tenants that are refused since a version. Never does any I/O."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._since: dict[Scope, int] = {}

    def refuse(self, scope: Scope, version: int) -> None:
        """The key or tenant is refused since this version; an older word than the known one changes nothing."""
        if version <= self._since.get(scope, 0):
            return
        self._since.pop(scope, None)
        if len(self._since) >= self._capacity:
            del self._since[next(iter(self._since))]
        self._since[scope] = version

    def allow(self, scope: Scope, version: int) -> None:
        """The key or tenant is live at this version: earlier refusals are over."""
        if self._since.get(scope, version) < version:
            del self._since[scope]

    def refusal_of(self, principal: Principal) -> AuthenticationError | None:
        """Why the principal must not be served; None when nothing is known against it."""
        if not self._since:
            return None
        if self._since.get(keyspace.key_scope(principal.key_id), 0) >= principal.key_version:
            return AuthenticationError("revoked")
        if self._since.get(keyspace.tenant_scope(principal.tenant_id), 0) >= principal.tenant_version:
            return AuthenticationError("suspended")
        return None

    def __repr__(self) -> str:
        return f"RefusedVersions({len(self._since)})"
