"""What the watch says, as bytes: each message is made once and sent to every watcher that is told the same."""

from __future__ import annotations

from collections import OrderedDict

from controlplane.core.changes import Change, ChangeKind
from controlplane.watch.snapshots import Snapshot, Snapshots
from neuronetz.state.v1 import state_pb2 as pb

# Enough for watchers that are a little behind each other.
_KEPT = 256


class Messages:
    """Makes responses of ``Watch`` and remembers the last ones."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots
        self._changes: OrderedDict[Change, bytes] = OrderedDict()
        self._snapshot: tuple[Snapshot, bytes] | None = None

    def change(self, change: Change) -> bytes:
        """One change. Backends and models are those of now, so that nothing old is told late."""
        if not change.is_version:
            return _change(self._state_change(change))
        known = self._changes.get(change)
        if known is None:
            known = self._changes[change] = _change(_version_change(change))
            if len(self._changes) > _KEPT:
                self._changes.popitem(last=False)
        return known

    def snapshot(self, snapshot: Snapshot) -> bytes:
        """A whole state."""
        if self._snapshot is None or self._snapshot[0] is not snapshot:
            self._snapshot = (snapshot, pb.WatchResponse(snapshot=message_of(snapshot)).SerializeToString())
        return self._snapshot[1]

    def _state_change(self, change: Change) -> pb.Change:
        if change.kind is ChangeKind.CONFIG:
            return pb.Change(revision=change.revision, config=self._snapshots.config)
        record, valid_ms = self._snapshots.discovered()
        return pb.Change(revision=change.revision, discovered=pb.Discovered(record=record, valid_ms=valid_ms))

    def __repr__(self) -> str:
        return f"Messages({len(self._changes)})"


def message_of(snapshot: Snapshot) -> pb.Snapshot:
    """The message of a snapshot."""
    return pb.Snapshot(
        revision=snapshot.revision,
        config=snapshot.config,
        discovered=snapshot.discovered,
        discovered_valid_ms=snapshot.discovered_valid_ms,
    )


def heartbeat(revision: int) -> bytes:
    """That the server is there, and how far it is."""
    return pb.WatchResponse(heartbeat=pb.Heartbeat(revision=revision)).SerializeToString()


def resync(reason: str) -> bytes:
    """That the stream must begin anew."""
    return pb.WatchResponse(resync=pb.Resync(reason=reason)).SerializeToString()


def _version_change(change: Change) -> pb.Change:
    version = pb.VersionChange(id=change.id, version=abs(change.version), refused=change.version < 0)
    if change.kind is ChangeKind.KEY:
        return pb.Change(revision=change.revision, key=version)
    return pb.Change(revision=change.revision, tenant=version)


def _change(message: pb.Change) -> bytes:
    return pb.WatchResponse(change=message).SerializeToString()
