"""``KeyVerifier``: the slow way to check a key whose record has lost its digest."""

from __future__ import annotations

import datetime as dt

import grpc

from controlplane.core.ports import Keys
from controlplane.hashing import HashingPool
from controlplane.publish.redis_state import RedisState
from neuronetz.state.v1 import state_pb2 as pb
from neuronetz.state.v1 import state_pb2_grpc
from shared import apikey
from shared.redaction import Secret

type Context = grpc.aio.ServicerContext[object, object]

_MATCH = pb.VerifyResponse(verdict=pb.VerifyResponse.VERDICT_MATCH)
_MISMATCH = pb.VerifyResponse(verdict=pb.VerifyResponse.VERDICT_MISMATCH)


class KeyVerifier(state_pb2_grpc.KeyVerifierServicer):
    """Argon2id against Postgres, then the digest into Redis; an unknown prefix costs as much as a wrong secret."""

    def __init__(self, *, keys: Keys, state: RedisState, hashing: HashingPool, pepper: Secret) -> None:
        self._keys = keys
        self._state = state
        self._hashing = hashing
        self._pepper = pepper.reveal().encode()

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyResponse:
        """As the proto says."""
        api_key = request.api_key
        if not apikey.is_valid(self._pepper, api_key):
            return _MISMATCH
        prefix, digest = apikey.prefix_of(api_key), apikey.digest(self._pepper, api_key)
        known = await self._known_digest(prefix)
        if known is not None:
            # Somebody has verified it in the meantime: one Argon2id per key, however many ask.
            return _MATCH if apikey.digests_equal(known, digest) else _MISMATCH
        found = await self._keys.find_hash(prefix)
        matches = await self._hashing.verify(found[1] if found else None, api_key)
        if found is None or not matches or found[0].has_ended(dt.datetime.now(dt.UTC)):
            return _MISMATCH
        await self._state.write_key(found[0], digest=digest)
        return _MATCH

    async def _known_digest(self, prefix: str) -> str | None:
        record = await self._state.read_key(prefix)
        return None if record is None else record.digest
