"""The control plane's ``KeyVerifier``: the slow check of a key whose record has no digest.

Only MATCH and MISMATCH are answers. A full pool, a deadline, a missing control plane: everything else means that the
key cannot be checked.
"""

from __future__ import annotations

import asyncio
from typing import Self

import grpc.aio

from dataplane.errors import CannotCheckError
from dataplane.state.control import ControlPlanes
from neuronetz.state.v1 import state_pb2, state_pb2_grpc
from shared import logs, telemetry

TIMEOUT_S = 3.0
MAX_CONCURRENT = 16

log = logs.get(__name__)


class ControlPlaneVerifier:
    """Asks the control planes in turn. Make it inside the worker, after it was forked."""

    def __init__(self, planes: ControlPlanes, *, timeout_s: float = TIMEOUT_S) -> None:
        self._channels = [planes.channel(address) for address in planes.addresses]
        self._stubs = [state_pb2_grpc.KeyVerifierStub(channel) for channel in self._channels]
        self._metadata = planes.metadata
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(MAX_CONCURRENT)
        self._next = 0

    async def matches(self, api_key: str) -> bool:
        """Whether the key matches its hash. Raises ``CannotCheckError``."""
        try:
            async with asyncio.timeout(self._timeout_s), self._free:
                for _ in self._stubs:
                    verdict = await self._ask(api_key)
                    if verdict is not None:
                        return verdict
        except TimeoutError:
            raise CannotCheckError("no control plane verified the key in time", reason="control_plane") from None
        raise CannotCheckError("no control plane verified the key", reason="control_plane")

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close()

    async def _ask(self, api_key: str) -> bool | None:
        stub = self._stubs[self._next % len(self._stubs)]
        try:
            reply = await stub.Verify(
                state_pb2.VerifyRequest(api_key=api_key),
                metadata=(*self._metadata, *telemetry.metadata()),
                timeout=self._timeout_s,
            )
        except grpc.aio.AioRpcError as fault:
            # The next one may be well: begin with it from now on.
            self._next += 1
            log.warning("key_verification_failed", code=fault.code().name)
            return None
        match reply.verdict:
            case state_pb2.VerifyResponse.VERDICT_MATCH:
                return True
            case state_pb2.VerifyResponse.VERDICT_MISMATCH:
                return False
            case _:
                log.warning("key_verification_failed", code="verdict unknown")
                return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"ControlPlaneVerifier({len(self._channels)} control planes)"
