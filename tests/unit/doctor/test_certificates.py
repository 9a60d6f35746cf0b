"""Certificate files that no server could use, or not for long, are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from controlplane.doctor import Deployment, Finding, Status
from controlplane.doctor.certificates import bears, examined
from shared.clock import SystemClock
from tests.fakes.authority import Authority

YEAR_HOURS = 365 * 24


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


async def found(environ: dict[str, str], cert: str, key: str, **more: str) -> Finding:
    named = {"GATEWAY_ADMIN_TLS_CERT": cert, "GATEWAY_ADMIN_TLS_KEY": key}
    (finding,) = await examined(Deployment.read(environ | named | more), SystemClock())
    return finding


@pytest.mark.parametrize(("hours", "status"), [(YEAR_HOURS, Status.OK), (48, Status.WARNING), (-0.5, Status.FAILED)])
async def test_a_certificate_is_judged_by_when_it_ends(environ, authority, hours, status):
    finding = await found(environ, *authority.issue("server", hours=hours))

    assert finding.status is status
    assert ("expired" in finding.seen) == (status is Status.FAILED)


async def test_a_certificate_of_another_key_is_found(environ, authority):
    cert, _ = authority.issue("server", hours=YEAR_HOURS)
    _, key = authority.issue("other")

    finding = await found(environ, cert, key)

    assert finding.status is Status.FAILED
    assert "GATEWAY_ADMIN_TLS_KEY" in finding.seen


@pytest.mark.parametrize(
    ("address", "status"), [("127.0.0.1:9090", Status.OK), ("gateway.example:9090", Status.FAILED)]
)
async def test_the_name_that_is_dialled_must_be_in_the_certificate(environ, authority, address, status):
    cert, key = authority.issue("server", hours=YEAR_HOURS)

    assert (await found(environ, cert, key, GATEWAY_ADMIN_ADDRESS=address)).status is status


@pytest.fixture(params=["no key", "no PEM"])
def unusable(request, authority: Authority) -> tuple[str, str]:
    cert, key = authority.issue("server", hours=YEAR_HOURS)
    if request.param == "no key":
        Path(key).unlink()
    else:
        Path(cert).write_text("no PEM at all")
    return cert, key


async def test_a_file_that_cannot_be_used_is_found(environ, unusable):
    assert (await found(environ, *unusable)).status is Status.FAILED


async def test_authorities_of_clients_are_looked_at(environ, authority):
    cert, key = authority.issue("server", hours=YEAR_HOURS)
    named = {"GATEWAY_ADMIN_TLS_CERT": cert, "GATEWAY_ADMIN_TLS_KEY": key}
    named["GATEWAY_ADMIN_TLS_CLIENT_CA"] = authority.cert

    server, clients = await examined(Deployment.read(environ | named), SystemClock())

    assert (server.status, clients.status) == (Status.OK, Status.WARNING)


@pytest.mark.parametrize(("bind", "status"), [("127.0.0.1:0", Status.OK), ("0.0.0.0:9090", Status.WARNING)])
async def test_without_certificates_the_admin_api_must_stay_on_loopback(environ, bind, status):
    named = {"GATEWAY_ADMIN_BIND": bind, "GATEWAY_ADMIN_PLAINTEXT": "true"}

    (finding,) = await examined(Deployment.read(environ | named), SystemClock())

    assert finding.status is status


def test_a_certificate_bears_the_address_that_it_names(authority):
    certificate = x509.load_pem_x509_certificate(Path(authority.cert).read_bytes())

    assert bears(certificate, "127.0.0.1")
    assert not bears(certificate, "127.0.0.2")
    assert not bears(certificate, "localhost")
