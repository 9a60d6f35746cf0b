"""What a handshake shows is judged: who signed it, when it ends, and whether it is that of the file."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.doctor import Deployment, Finding, Status, served
from shared.clock import SystemClock
from tests.fakes.authority import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@contextlib.asynccontextmanager
async def serving(cert: str, key: str) -> AsyncIterator[str]:
    """The address of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def found(environ: dict[str, str], **named: str) -> Finding:
    (check,) = served.checks(Deployment.read(environ | named), SystemClock())
    (finding,) = await check.look()
    assert finding.name == check.name
    return finding


@pytest.mark.parametrize(("hours", "status"), [(365 * 24, Status.OK), (48, Status.WARNING), (-0.5, Status.FAILED)])
async def test_what_is_served_is_judged_by_when_it_ends(environ, authority, hours, status):
    async with serving(*authority.issue("server", hours=hours)) as address:
        finding = await found(environ, GATEWAY_ADMIN_ADDRESS=address, GATEWAY_ADMIN_TLS_CA=authority.cert)

    assert finding.status is status
    assert ("expired" in finding.seen) == (status is Status.FAILED)


async def test_what_another_authority_signed_is_not_believed(environ, authority, tmp_path):
    other = Authority(tmp_path, "other")
    async with serving(*authority.issue("server", hours=365 * 24)) as address:
        finding = await found(environ, GATEWAY_CONTROL_ADDRESSES=address, GATEWAY_CONTROL_TLS_CA=other.cert)

    assert finding.status is Status.FAILED
    assert "not believed" in finding.seen


async def test_a_renewed_file_that_is_not_served_yet_is_found(environ, authority):
    async with serving(*authority.issue("server", hours=365 * 24)) as address:
        named = {"GATEWAY_ADMIN_BIND": address}
        cert, key = authority.issue("renewed", hours=365 * 24)
        stale = await found(environ, **named, GATEWAY_ADMIN_TLS_CERT=cert, GATEWAY_ADMIN_TLS_KEY=key)
        current = await found(environ, **named, GATEWAY_ADMIN_TLS_CERT=str(Path(cert).with_name("server.pem")))

    assert (stale.status, current.status) == (Status.FAILED, Status.OK)
    assert "restart" in stale.advice


async def test_whoever_binds_every_address_is_dialled_on_loopback(environ, authority):
    cert, key = authority.issue("server", hours=365 * 24)
    async with serving(cert, key) as address:
        port = address.rpartition(":")[2]
        finding = await found(environ, GATEWAY_ADMIN_BIND=f"0.0.0.0:{port}", GATEWAY_ADMIN_TLS_CERT=cert)

    assert finding.status is Status.OK


async def test_plaintext_where_tls_is_expected_is_found(environ, authority):
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finding = await found(environ, GATEWAY_ADMIN_ADDRESS=address, GATEWAY_ADMIN_TLS_CA=authority.cert)

    assert finding.status is Status.FAILED


async def test_nobody_at_the_address_is_found(environ, authority):
    finding = await found(environ, GATEWAY_ADMIN_ADDRESS="127.0.0.1:1", GATEWAY_ADMIN_TLS_CA=authority.cert)

    assert (finding.status, "cannot be reached" in finding.seen) == (Status.FAILED, True)


async def test_without_its_authority_nothing_is_said_of_a_server(environ, tmp_path):
    finding = await found(environ, GATEWAY_ADMIN_ADDRESS="127.0.0.1:1", GATEWAY_ADMIN_TLS_CA=str(tmp_path / "none.pem"))

    assert finding.status is Status.SKIPPED


def test_nobody_is_dialled_without_tls(environ):
    named = {"GATEWAY_ADMIN_ADDRESS": "127.0.0.1:9090", "GATEWAY_CONTROL_ADDRESSES": "127.0.0.1:9090,127.0.0.1:9091"}

    assert served.checks(Deployment.read(environ | named), SystemClock()) == []
