"""What a message of the watch does to this worker: the snapshot, the cached keys, and the requests in flight."""

from __future__ import annotations

from dataplane.quota.refused import RefusedVersions
from dataplane.quota.renewal import Renewal
from dataplane.state.keys import RedisKeys
from dataplane.state.store import StateRejectedError, StateStore
from neuronetz.state.v1 import state_pb2
from shared import keyspace
from shared.keyspace import KeyId, Scope, TenantId


class Changes:
    """Applies messages; both methods raise ``StateRejectedError`` and then have changed nothing."""

    def __init__(self, *, store: StateStore, keys: RedisKeys, refused: RefusedVersions, renewal: Renewal) -> None:
        self._store = store
        self._keys = keys
        self._refused = refused
        self._renewal = renewal

    def reset(self, message: state_pb2.Snapshot) -> None:
        """Takes a whole state.

        It says nothing of keys. Admission compares their versions anyway; for requests in flight that somebody was to
        cut while we did not listen, the leases are asked about at once.
        """
        self._store.take(
            config=message.config, discovered=message.discovered, valid_for_s=message.discovered_valid_ms / 1000
        )
        self._renewal.hasten()

    def apply(self, message: state_pb2.Change) -> int:
        """Takes one change; gives how many requests in flight were cut."""
        match message.WhichOneof("kind"):
            case "config":
                self._store.take(config=message.config)
            case "discovered":
                discovered = message.discovered
                self._store.take(discovered=discovered.record, valid_for_s=discovered.valid_ms / 1000)
            case "key":
                key_id = KeyId(message.key.id)
                self._require_sense(message.key)
                self._keys.forget_key(key_id)
                return self._judge(keyspace.key_scope(key_id), message.key)
            case "tenant":
                tenant_id = TenantId(message.tenant.id)
                self._require_sense(message.tenant)
                self._keys.forget_tenant(tenant_id)
                return self._judge(keyspace.tenant_scope(tenant_id), message.tenant)
            case None:
                # Of a kind that this release does not know.
                pass
        return 0

    def _judge(self, scope: Scope, change: state_pb2.VersionChange) -> int:
        if not change.refused:
            self._refused.allow(scope, change.version)
            return 0
        self._refused.refuse(scope, change.version)
        return self._renewal.cut(scope, change.version)

    def _require_sense(self, change: state_pb2.VersionChange) -> None:
        if not change.id or change.version <= 0:
            raise StateRejectedError("a change of a version without an id or a version")

    def __repr__(self) -> str:
        return f"Changes({self._store!r})"
