"""TLS: certificates of the settings can be read, are in force, match their keys and bear the name that is dialled."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controlplane.config import Address
from controlplane.doctor.deployment import Deployment
from controlplane.doctor.files import is_for_everybody
from controlplane.doctor.findings import Finding, failed, first_of, ok, warning
from shared.clock import Clock

SOON = dt.timedelta(days=14)
_RENEW = "renew it, then restart what uses it"


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Variables that name a certificate and its key; ``names`` are those by which it is dialled."""

    cert: str
    key: str
    dialled_by: tuple[str, ...] = ()


_PAIRS = (
    Pair(
        cert="GATEWAY_ADMIN_TLS_CERT",
        key="GATEWAY_ADMIN_TLS_KEY",
        dialled_by=("GATEWAY_ADMIN_ADDRESS", "GATEWAY_CONTROL_ADDRESSES"),
    ),
    Pair(cert="GATEWAY_ADMIN_TLS_CLIENT_CERT", key="GATEWAY_ADMIN_TLS_CLIENT_KEY"),
    Pair(cert="GATEWAY_CONTROL_TLS_CERT", key="GATEWAY_CONTROL_TLS_KEY"),
)
_AUTHORITIES = ("GATEWAY_ADMIN_TLS_CLIENT_CA", "GATEWAY_ADMIN_TLS_CA", "GATEWAY_CONTROL_TLS_CA")


async def examined(deployment: Deployment, clock: Clock) -> list[Finding]:
    """Every certificate that the environment names, and whether the admin API has one where it needs one."""
    found = [_pair(pair, deployment.environ, clock) for pair in _PAIRS if deployment.environ.get(pair.cert)]
    found += [
        _authority(variable, deployment.environ[variable], clock)
        for variable in _AUTHORITIES
        if deployment.environ.get(variable)
    ]
    return found or [_without(deployment)]


def _without(deployment: Deployment) -> Finding:
    address: Address | None = deployment.known.get("admin_bind")
    if address is None or address.is_loopback:
        return ok("tls", "no certificates, and the admin API is on loopback")
    advice = "set GATEWAY_ADMIN_TLS_CERT and GATEWAY_ADMIN_TLS_KEY, unless nobody else is on that network"
    return warning("tls", f"tokens travel in plaintext to {address}", advice)


def _pair(pair: Pair, environ: Mapping[str, str], clock: Clock) -> Finding:
    name, key_file = f"tls.{pair.cert}", environ.get(pair.key, "")
    try:
        chain = x509.load_pem_x509_certificates(Path(environ[pair.cert]).read_bytes())
    except (OSError, ValueError) as fault:
        return _unreadable(name, pair.cert, fault)
    try:
        key = serialization.load_pem_private_key(Path(key_file).read_bytes(), password=None)
        is_open = is_for_everybody(Path(key_file))
    except (OSError, ValueError, TypeError) as fault:
        return _unreadable(name, pair.key, fault)
    if key.public_key() != chain[0].public_key():
        return failed(name, f"is not of the key of {pair.key}", "put certificate and key of one pair there")
    if is_open:
        return failed(name, f"everybody can read the file of {pair.key}", "chmod o-rwx it, and renew both")
    dialled = [host for variable in pair.dialled_by for host in _hosts(environ.get(variable, ""))]
    strangers = [host for host in dialled if not bears(chain[0], host)]
    if strangers:
        return failed(name, f"does not bear the name {strangers[0]}", "issue it for the names by which it is dialled")
    return in_force(name, chain, clock)


def _authority(variable: str, path: str, clock: Clock) -> Finding:
    try:
        chain = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except (OSError, ValueError) as fault:
        return _unreadable(f"tls.{variable}", variable, fault)
    return in_force(f"tls.{variable}", chain, clock)


def in_force(name: str, chain: list[x509.Certificate], clock: Clock) -> Finding:
    """Whether every certificate of a chain is in force, and for how long still."""
    now = dt.datetime.fromtimestamp(clock.unix_s(), dt.UTC)
    begins = max(certificate.not_valid_before_utc for certificate in chain)
    ends = min(certificate.not_valid_after_utc for certificate in chain)
    return first_of(
        failed(name, f"expired on {ends:%Y-%m-%d %H:%M} UTC", _RENEW) if ends <= now else None,
        failed(name, f"not before {begins:%Y-%m-%d %H:%M} UTC", "set the clock, or wait") if begins > now else None,
        warning(name, f"expires on {ends:%Y-%m-%d %H:%M} UTC", _RENEW) if ends - now < SOON else None,
        ok(name, f"in force until {ends:%Y-%m-%d}"),
    )


def _unreadable(name: str, variable: str, fault: Exception) -> Finding:
    seen = f"the file of {variable} cannot be used ({type(fault).__name__})"
    return failed(name, seen, "see that it exists, can be read by this user and is PEM without a passphrase")


def _hosts(addresses: str) -> Iterator[str]:
    for address in addresses.split(","):
        host = address.strip().rpartition(":")[0].strip("[]")
        if host:
            yield host


def bears(certificate: x509.Certificate, host: str) -> bool:
    """Whether a certificate is for a host: an address, a name, or a name below a wildcard (RFC 9525, section 6)."""
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in alternatives.get_values_for_type(x509.IPAddress)
    except ValueError:
        named = [name.lower() for name in alternatives.get_values_for_type(x509.DNSName)]
    wanted = host.lower().rstrip(".")
    return wanted in named or f"*.{wanted.partition('.')[2]}" in named
