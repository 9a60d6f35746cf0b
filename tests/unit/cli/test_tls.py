"""TLS and client certificates against a server that requires them."""

import datetime as dt
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.admin_server import TOKEN, AdminServer


class Authority:
    """A certificate authority for one test, and the files that it has issued."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        certificate = self._build(self._name, self._key, authority=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_file, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate = self._build(subject, key, authority=False)
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate_file, key_file

    def _build(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def mutual(authority: Authority) -> Iterator[AdminServer]:
    certificate, key = authority.issue("server")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], authority.file.read_bytes(), require_client_auth=True
    )
    with AdminServer().running(credentials=credentials) as running:
        yield running


def test_server_that_requires_a_certificate_is_reached_with_one(offline, mutual, authority):
    certificate, key = authority.issue("operator")
    where = ("--address", mutual.address, "--token", TOKEN, "--tls-ca", str(authority.file))

    assert offline("list-keys", *where, "--tls-cert", str(certificate), "--tls-key", str(key)).exit == 0
    assert offline("list-keys", *where).exit == 6
    assert [metadata["authorization"] for _, metadata in mutual.recorder.calls] == [f"Bearer {TOKEN}"]


def test_server_of_an_unknown_authority_gets_no_token(offline, mutual):
    outcome = offline("list-keys", "--address", mutual.address, "--token", TOKEN, "--tls")

    assert outcome.exit == 6
    assert mutual.recorder.calls == []
