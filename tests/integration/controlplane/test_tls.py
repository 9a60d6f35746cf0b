"""gRPC with TLS, and with client certificates where they are asked for."""

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.core.roles import Callers, OperatorToken, Role
from controlplane.rpc.server import AdminServer, TLSFiles
from shared.redaction import Secret

TOKEN = "a-token-for-this-test"


class Authority:
    """Signs certificates for this test."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.cert = self._write(f"{name}.pem", self._signed(self._name, self._key, is_authority=True))

    def issue(self, name: str) -> tuple[str, str]:
        """Certificate and key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._write(f"{name}.pem", self._signed(subject, key, is_authority=False)), self._write(
            f"{name}.key", pem
        )

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> bytes:
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> str:
        path = self._folder / name
        path.write_bytes(content)
        return str(path)


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
