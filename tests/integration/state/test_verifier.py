"""Only MATCH and MISMATCH are answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from dataplane.errors import CannotCheckError
from dataplane.state.control import ControlPlanes
from dataplane.state.verifier import ControlPlaneVerifier
from neuronetz.state.v1 import state_pb2, state_pb2_grpc
from shared.redaction import Secret

type Verdict = state_pb2.VerifyResponse.Verdict.ValueType


class ControlPlane(state_pb2_grpc.KeyVerifierServicer):
    """Answers what it is told."""

    def __init__(
        self, verdict: Verdict = state_pb2.VerifyResponse.VERDICT_MATCH, *, code: grpc.StatusCode | None = None
    ) -> None:
        self.verdict = verdict
        self.code = code
        self.hangs = False
        self.asked: list[tuple[str, object]] = []

    async def Verify(self, request, context):  # noqa: N802
        self.asked.append((request.api_key, dict(context.invocation_metadata()).get("authorization")))
        if self.hangs:
            await asyncio.Event().wait()
        if self.code is not None:
            await context.abort(self.code, "no")
        return state_pb2.VerifyResponse(verdict=self.verdict)


@contextlib.asynccontextmanager
async def serving(*planes: ControlPlane) -> AsyncIterator[list[str]]:
    servers, addresses = [], []
    for plane in planes:
        server = grpc.aio.server()
        state_pb2_grpc.add_KeyVerifierServicer_to_server(plane, server)
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        servers.append(server)
    try:
        yield addresses
    finally:
        for server in servers:
            await server.stop(None)


def verifier_of(addresses: list[str], timeout_s: float = 2.0) -> ControlPlaneVerifier:
    planes = ControlPlanes(addresses=addresses, token=Secret("token"))
    return ControlPlaneVerifier(planes, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("verdict", "matches"),
    [(state_pb2.VerifyResponse.VERDICT_MATCH, True), (state_pb2.VerifyResponse.VERDICT_MISMATCH, False)],
    ids=["match", "mismatch"],
)
async def test_verdict_is_passed_on(verdict: Verdict, matches: bool):
    plane = ControlPlane(verdict)
    async with serving(plane) as addresses, verifier_of(addresses) as verifier:
        assert await verifier.matches("nz_key") is matches
    assert plane.asked == [("nz_key", "Bearer token")]


@pytest.mark.parametrize(
    "plane",
    [
        ControlPlane(state_pb2.VerifyResponse.VERDICT_UNSPECIFIED),
        ControlPlane(code=grpc.StatusCode.RESOURCE_EXHAUSTED),
        ControlPlane(code=grpc.StatusCode.UNAUTHENTICATED),
        ControlPlane(code=grpc.StatusCode.NOT_FOUND),
    ],
    ids=["no verdict", "full", "unauthenticated", "not found"],
)
async def test_everything_else_cannot_be_checked(plane: ControlPlane):
    async with serving(plane) as addresses, verifier_of(addresses) as verifier:
        with pytest.raises(CannotCheckError):
            await verifier.matches("nz_key")


async def test_another_control_plane_is_asked_when_one_cannot_answer():
    broken, well = ControlPlane(code=grpc.StatusCode.UNAVAILABLE), ControlPlane()
    async with serving(broken, well) as addresses, verifier_of(addresses) as verifier:
        assert await verifier.matches("nz_key")
        assert await verifier.matches("nz_key")
    assert (len(broken.asked), len(well.asked)) == (1, 2)


async def test_hanging_control_plane_is_given_up_in_time():
    plane = ControlPlane()
    plane.hangs = True
    async with serving(plane) as addresses, verifier_of(addresses, timeout_s=0.2) as verifier:
        with pytest.raises(CannotCheckError):
            await asyncio.wait_for(verifier.matches("nz_key"), 2.5)


async def test_no_control_plane_cannot_check():
    async with verifier_of([]) as none, verifier_of(["127.0.0.1:1"]) as absent:
        for verifier in (none, absent):
            with pytest.raises(CannotCheckError):
                await verifier.matches("nz_key")
