"""``KeyService``: API keys as operators mint and change them."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Awaitable, Callable, Sequence

import grpc
import msgspec

from controlplane.core import keys, reasons
from controlplane.core.keys import Key, KeyChange
from controlplane.core.ports import Keys, Publisher, Tenants
from controlplane.errors import AlreadyExistsError, InvalidRequestError
from controlplane.hashing import HashingPool
from controlplane.rpc import convert
from controlplane.rpc.receipts import Receipts
from neuronetz.admin.v1 import key_pb2 as pb
from neuronetz.admin.v1 import key_pb2_grpc, receipt_pb2
from shared import apikey
from shared.apikey import Digest, KeyPrefix
from shared.keyspace import KeyId
from shared.redaction import Secret

type Context = grpc.aio.ServicerContext[object, object]
# Two of 62⁹ prefixes are the same once in a blue moon; more than that is a broken random source.
MINT_ATTEMPTS = 3


type _Changing = pb.UpdateKeyRequest | pb.SuspendKeyRequest | pb.ResumeKeyRequest | pb.RevokeKeyRequest


class _Changed(msgspec.Struct, frozen=True, kw_only=True):
    """What a change has led to, as its answer says it."""

    key: pb.Key
    publication: convert.PublicationValue
    receipts: Sequence[receipt_pb2.Receipt] = ()


class Minted(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, not committed yet: the whole key leaves through exactly one answer."""

    api_key: Secret
    prefix: KeyPrefix
    digest: Digest
    hashed: str


class KeyService(key_pb2_grpc.KeyServiceServicer):
    """Commit, publish, answer; errors of ``controlplane.errors`` become statuses in front of it."""

    def __init__(
        self,
        *,
        keys: Keys,
        tenants: Tenants,
        publisher: Publisher,
        receipts: Receipts,
        hashing: HashingPool,
        pepper: Secret,
    ) -> None:
        self._keys = keys
        self._tenants = tenants
        self._publisher = publisher
        self._receipts = receipts
        self._hashing = hashing
        self._pepper = pepper.reveal().encode()

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        """As the proto says."""
        now = dt.datetime.now(dt.UTC)
        change = _change_of(request)
        faults = [*keys.name_faults(request.name), *keys.change_faults(change, now)]
        if not request.tenant:
            faults.insert(0, "tenant is required")
        if faults:
            raise InvalidRequestError(*faults)
        tenant = await self._tenants.get(request.tenant)
        draft = keys.updated(
            Key(
                id=KeyId(str(uuid.uuid4())),
                tenant_id=tenant.id,
                tenant=tenant.name,
                prefix="",
                name=request.name,
                created_at=now,
            ),
            change,
            now,
        )
        if request.validate_only:
            return pb.CreateKeyResponse(key=convert.write_key(draft, now))
        minted, created = await self._minting(
            lambda minted: self._keys.create(msgspec.structs.replace(draft, prefix=minted.prefix), minted.hashed)
        )
        announced = await self._publisher.publish_key(created.id, digest=minted.digest)
        return pb.CreateKeyResponse(
            api_key=minted.api_key.reveal(),
            prefix=created.prefix,
            key=convert.write_key(created, now),
            publication=convert.publication(applied=announced.applied),
        )

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        """As the proto says."""
        key = await self._keys.get(request.prefix)
        return pb.GetKeyResponse(key=convert.write_key(key, dt.datetime.now(dt.UTC)))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        """As the proto says."""
        size = convert.read_page_size(request.page_size)
        position = convert.read_page_token(request.page_token, 2)
        tenant_id = (await self._tenants.get(request.tenant)).id if request.tenant else None
        found = await self._keys.page(
            tenant_id=tenant_id,
            include_ended=request.include_ended,
            after=_read_position(position) if position else None,
            size=size + 1,
        )
        now = dt.datetime.now(dt.UTC)
        more = len(found) > size
        return pb.ListKeysResponse(
            keys=[convert.write_key(key, now) for key in found[:size]],
            next_page_token=_write_position(found[size - 1]) if more else "",
        )

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Context) -> pb.UpdateKeyResponse:
        """As the proto says."""
        change = _change_of(request)
        changed = await self._change(request, lambda key, now: keys.updated(key, change, now))
        return pb.UpdateKeyResponse(key=changed.key, publication=changed.publication, receipts=changed.receipts)

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Context) -> pb.RotateKeyResponse:
        """As the proto says."""
        overlap, timeout_s = _overlap_of(request), self._receipt_timeout_s(request)
        now = dt.datetime.now(dt.UTC)
        current = await self._keys.get(request.prefix)
        if request.validate_only:
            draft = keys.successor(current, key_id=KeyId(str(uuid.uuid4())), prefix="", now=now)
            replaced = keys.replaced(current, overlap, now)
            return pb.RotateKeyResponse(key=convert.write_key(draft, now), replaced=convert.write_key(replaced, now))
        # Before the hash is made, which is expensive; decided again under the lock.
        keys.successor(current, key_id=current.id, prefix="", now=now)

        async def commit(minted: Minted) -> tuple[Key, Key]:
            key_id = KeyId(str(uuid.uuid4()))
            return await self._keys.rotate(
                request.prefix,
                minted.hashed,
                lambda key, at: (
                    keys.successor(key, key_id=key_id, prefix=minted.prefix, now=at),
                    keys.replaced(key, overlap, at),
                ),
            )

        minted, (successor, replaced) = await self._minting(commit)
        since_s = self._receipts.now_s()
        # The new key first: its client may use it as soon as the old one is refused.
        minting = await self._publisher.publish_key(successor.id, digest=minted.digest)
        ending = await self._publisher.publish_key(replaced.id)
        receipts = await self._receipts.of(ending, since_s=since_s, timeout_s=timeout_s)
        now = dt.datetime.now(dt.UTC)
        return pb.RotateKeyResponse(
            api_key=minted.api_key.reveal(),
            prefix=successor.prefix,
            key=convert.write_key(successor, now),
            replaced=convert.write_key(replaced, now),
            publication=convert.publication(applied=minting.applied and ending.applied),
            receipts=receipts,
        )

    async def SuspendKey(self, request: pb.SuspendKeyRequest, context: Context) -> pb.SuspendKeyResponse:
        """As the proto says."""
        changed = await self._change(request, keys.suspended)
        return pb.SuspendKeyResponse(key=changed.key, publication=changed.publication, receipts=changed.receipts)

    async def ResumeKey(self, request: pb.ResumeKeyRequest, context: Context) -> pb.ResumeKeyResponse:
        """As the proto says."""
        changed = await self._change(request, lambda key, _: keys.resumed(key))
        return pb.ResumeKeyResponse(key=changed.key, publication=changed.publication)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        """As the proto says."""
        changed = await self._change(request, keys.revoked)
        return pb.RevokeKeyResponse(key=changed.key, publication=changed.publication, receipts=changed.receipts)

    async def _change(self, request: _Changing, change: Callable[[Key, dt.datetime], Key]) -> _Changed:
        now = dt.datetime.now(dt.UTC)
        timeout_s = self._receipt_timeout_s(request)
        reasons.check(getattr(request, "reason", ""))
        if request.validate_only:
            draft = change(await self._keys.get(request.prefix), now)
            return _Changed(key=convert.write_key(draft, now), publication=convert.UNPUBLISHED)
        changed = await self._keys.change(request.prefix, change)
        since_s = self._receipts.now_s()
        # Also when nothing has changed: the answer says whether what is so holds everywhere.
        announced = await self._publisher.publish_key(changed.id)
        receipts = await self._receipts.of(announced, since_s=since_s, timeout_s=timeout_s)
        return _Changed(
            key=convert.write_key(changed, dt.datetime.now(dt.UTC)),
            publication=convert.publication(applied=announced.applied),
            receipts=receipts,
        )

    def _receipt_timeout_s(self, request: _Changing | pb.RotateKeyRequest) -> float:
        if isinstance(request, pb.ResumeKeyRequest):
            # Its streams run on; nobody needs to wait for it.
            return 0.0
        return self._receipts.timeout_s(request.receipt_timeout if request.HasField("receipt_timeout") else None)

    async def _minting[T](self, commit: Callable[[Minted], Awaitable[T]]) -> tuple[Minted, T]:
        for attempt in range(1, MINT_ATTEMPTS + 1):
            api_key = apikey.mint(self._pepper)
            minted = Minted(
                api_key=Secret(api_key),
                prefix=apikey.prefix_of(api_key),
                digest=apikey.digest(self._pepper, api_key),
                hashed=await self._hashing.hash(api_key),
            )
            try:
                return minted, await commit(minted)
            except AlreadyExistsError:
                if attempt == MINT_ATTEMPTS:
                    raise
        raise AssertionError("unreachable")


def _change_of(request: pb.CreateKeyRequest | pb.UpdateKeyRequest) -> KeyChange:
    limits = convert.read_limits(request.limits)
    grants, faults = convert.read_grants(request.grants)
    expires_at: dt.datetime | None = None
    if request.HasField("expires_at"):
        try:
            expires_at = convert.read_moment(request.expires_at)
        except ValueError as fault:
            faults.append(f"expires_at {fault}")
    prompt_log: bool | None = request.prompt_log
    clear: tuple[str, ...] = ()
    if isinstance(request, pb.UpdateKeyRequest):
        prompt_log = request.prompt_log if request.HasField("prompt_log") else None
        clear = tuple(request.clear)
    days_given = request.HasField("prompt_log_retention_days")
    return KeyChange(
        limits=limits,
        grants=grants,
        expires_at=expires_at,
        prompt_log=prompt_log,
        prompt_log_retention_days=request.prompt_log_retention_days if days_given else None,
        clear=clear,
        faults=tuple(faults),
    )


def _overlap_of(request: pb.RotateKeyRequest) -> dt.timedelta:
    try:
        overlap = convert.read_duration(request.overlap)
    except ValueError as fault:
        raise InvalidRequestError(f"overlap {fault}") from None
    faults = keys.overlap_faults(overlap)
    if faults:
        raise InvalidRequestError(*faults)
    return overlap


def _write_position(key: Key) -> str:
    return convert.write_page_token(key.created_at.isoformat(), key.id)


def _read_position(position: tuple[str, ...]) -> tuple[dt.datetime, KeyId]:
    try:
        created_at = dt.datetime.fromisoformat(position[0])
        key_id = KeyId(str(uuid.UUID(position[1])))
    except ValueError:
        raise InvalidRequestError("page_token must be the next_page_token of the page before") from None
    if created_at.tzinfo is None:
        raise InvalidRequestError("page_token must be the next_page_token of the page before")
    return created_at, key_id
