"""gRPC with TLS, and with client certificates where they are asked for."""

import contextlib
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from controlplane.core.roles import Callers, OperatorCertificate, OperatorToken, Role
from controlplane.doctor import Deployment, Status, served
from controlplane.rpc.bounds import CallBounds
from controlplane.rpc.server import AdminServer, TLSFiles
from shared.clock import SystemClock
from shared.redaction import Secret
from tests.fakes.authority import Authority

TOKEN = "a-token-for-this-test"


def credentials_of(authority: str, cert: str | None, key: str | None) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        Path(authority).read_bytes(),
        private_key=Path(key).read_bytes() if key else None,
        certificate_chain=Path(cert).read_bytes() if cert else None,
    )


@pytest.mark.parametrize("with_client_certificate", [True, False])
async def test_client_certificates_are_required_where_an_authority_is_named(tmp_path, with_client_certificate):
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("server")
    callers = Callers((OperatorToken(name="a", role=Role.ADMIN, token=Secret(TOKEN)),))
    server = AdminServer(
        address="127.0.0.1:0",
        callers=callers,
        bounds=CallBounds(clock=SystemClock(), calls_per_s=100),
        services=(),
        tls=TLSFiles(cert=cert, key=key, client_ca=authority.cert),
    )
    port = await server.start()
    client_cert, client_key = authority.issue("client") if with_client_certificate else (None, None)
    credentials = credentials_of(authority.cert, client_cert, client_key)
    try:
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            metadata = (("authorization", f"Bearer {TOKEN}"),)
            if with_client_certificate:
                assert await check(b"", metadata=metadata, timeout=5)
                # A certificate opens the connection; it does not replace the token.
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await check(b"", timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            else:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await check(b"", metadata=metadata, timeout=5)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.stop(grace_s=0)


@pytest.mark.parametrize(
    ("identity", "token", "expected"),
    [
        ("vera", None, "OK"),
        ("nobody", None, "UNAUTHENTICATED"),
        # A plane's certificate opens what planes may call, and reflection is not for them.
        ("plane-1", None, "PERMISSION_DENIED"),
        # Whoever shows a token is judged by it alone.
        ("vera", "a-wrong-token-for-this-test", "UNAUTHENTICATED"),
        ("nobody", TOKEN, "OK"),
    ],
)
async def test_a_client_certificate_stands_for_its_holder(tmp_path, identity, token, expected):
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("server")
    callers = Callers(
        (OperatorToken(name="a", role=Role.ADMIN, token=Secret(TOKEN)),),
        (
            OperatorCertificate(identity="vera", role=Role.VIEWER),
            OperatorCertificate(identity="plane-1", role=Role.DATAPLANE),
        ),
    )
    server = AdminServer(
        address="127.0.0.1:0",
        callers=callers,
        bounds=CallBounds(clock=SystemClock(), calls_per_s=100),
        services=(),
        tls=TLSFiles(cert=cert, key=key, client_ca=authority.cert),
    )
    port = await server.start()
    metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
    statuses = set()
    try:
        credentials = credentials_of(authority.cert, *authority.issue(identity))
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            for version in ("v1", "v1alpha"):
                listing = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
                method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
                reflect: Any = channel.stream_stream(method)
                call = reflect(iter([listing]), metadata=metadata, timeout=5)
                with contextlib.suppress(grpc.aio.AioRpcError):
                    _ = [answer async for answer in call]
                statuses.add((await call.code()).name)
            unknown: Any = channel.unary_unary("/neuronetz.admin.v1.TenantService/DropTenant")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await unknown(b"", metadata=metadata, timeout=5)
            assert refused.value.code().name in ("PERMISSION_DENIED", "UNAUTHENTICATED")
    finally:
        await server.stop(grace_s=0)
    assert statuses == {expected}


async def test_the_doctor_sees_the_certificate_of_a_server_that_asks_for_one(tmp_path):
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("server", hours=365 * 24)
    server = AdminServer(
        address="127.0.0.1:0",
        callers=Callers((OperatorToken(name="a", role=Role.ADMIN, token=Secret(TOKEN)),)),
        bounds=CallBounds(clock=SystemClock(), calls_per_s=100),
        services=(),
        tls=TLSFiles(cert=cert, key=key, client_ca=authority.cert),
    )
    address = f"127.0.0.1:{await server.start()}"
    try:
        named = {"GATEWAY_ADMIN_ADDRESS": address, "GATEWAY_ADMIN_TLS_CA": authority.cert}
        deployment = Deployment.read(named, is_known=True)
        (check,) = served.checks(deployment, SystemClock())
        (finding,) = await check.look()
    finally:
        await server.stop(grace_s=0)

    assert finding.status is Status.OK
