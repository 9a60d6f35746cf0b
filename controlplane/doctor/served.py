"""TLS as it is served: what a handshake shows now, which may be older than the file that the settings name."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
from cryptography import x509

from controlplane.config import Address
from controlplane.doctor.certificates import in_force
from controlplane.doctor.checks import Check
from controlplane.doctor.deployment import Deployment
from controlplane.doctor.findings import Finding, failed, skipped
from shared.clock import Clock

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - whoever binds every address can be dialled on loopback


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An address that is dialled with TLS, who must have signed its certificate, and the file that it should be of."""

    address: Address
    authority: str | None = None
    cert: str | None = None

    @property
    def name(self) -> str:
        """The name of its finding."""
        return f"tls.served.{self.address}"


def checks(deployment: Deployment, clock: Clock) -> list[Check]:
    """One handshake for each address that the settings lead to with TLS."""
    return [
        Check(name=endpoint.name, look=partial(_look, endpoint, clock)) for endpoint in endpoints(deployment).values()
    ]


def endpoints(deployment: Deployment) -> dict[str, Endpoint]:
    """Who is dialled with TLS, by address: what clients and data planes dial, else what this control plane binds."""
    environ = deployment.environ
    found = {
        str(address): Endpoint(address=address, authority=environ[authority])
        for variable, authority in (
            ("GATEWAY_ADMIN_ADDRESS", "GATEWAY_ADMIN_TLS_CA"),
            ("GATEWAY_CONTROL_ADDRESSES", "GATEWAY_CONTROL_TLS_CA"),
        )
        if environ.get(authority)
        for address in _addresses(environ, variable)
    }
    bind: Address | None = deployment.known.get("admin_bind")
    cert = environ.get("GATEWAY_ADMIN_TLS_CERT")
    if bind is not None and bind.port and cert:
        own = Address(_ANY.get(bind.host, bind.host), bind.port)
        known = found.get(str(own))
        found[str(own)] = Endpoint(address=own, authority=known.authority if known else None, cert=cert)
    return found


def _addresses(environ: Mapping[str, str], variable: str) -> list[Address]:
    found = []
    for text in environ.get(variable, "").split(","):
        host, _, port = text.strip().rpartition(":")
        if host and port.isdecimal():
            found.append(Address(host.strip("[]"), int(port)))
    return found


async def _look(endpoint: Endpoint, clock: Clock) -> list[Finding]:
    name = endpoint.name
    try:
        context = _context(endpoint.authority)
    except OSError as fault:
        return [skipped(name, f"the file of the authority cannot be used ({type(fault).__name__})")]
    try:
        served = x509.load_der_x509_certificate(await _handshake(endpoint.address, context))
    except ssl.SSLCertVerificationError as fault:
        advice = "issue it anew by the authority and for the name that clients use, then restart what serves it"
        return [failed(name, f"is not believed: {fault.verify_message}", advice)]
    except ssl.SSLError as fault:
        seen = f"no handshake ({fault.reason or type(fault).__name__})"
        return [failed(name, seen, "see that TLS is on there, and the file of the authority")]
    except OSError as fault:
        return [failed(name, f"cannot be reached ({type(fault).__name__})", "see that a control plane listens there")]
    if endpoint.cert is not None and not _is_in(Path(endpoint.cert), served):
        return [failed(name, "is another than that of GATEWAY_ADMIN_TLS_CERT", "restart the control plane")]
    return [in_force(name, [served], clock)]


def _context(authority: str | None) -> ssl.SSLContext:
    """Raises ``OSError``, of which ``ssl.SSLError`` is one."""
    if authority is None:
        # There is nothing to believe by: only what is served is looked at, and nothing is sent.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2"])
    return context


async def _handshake(address: Address, context: ssl.SSLContext) -> bytes:
    """The certificate that is served. Raises ``OSError``, of which ``ssl.SSLError`` is one."""
    _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        served: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if served is None:
        raise ssl.SSLError("no certificate was served")
    return served


def _is_in(path: Path, served: x509.Certificate) -> bool:
    try:
        return served == x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        # That the file cannot be read is a finding of its own.
        return True
