"""Backends: each reachable with its credential, with models, closed to other networks, running nothing elsewhere."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

import msgspec

from controlplane.doctor.checks import Check
from controlplane.doctor.findings import Finding, failed, names, ok, skipped, warning
from controlplane.errors import UpstreamProbeError
from controlplane.ollama.client import OllamaClient, Target

_LOCK = "let its firewall or network admit the planes alone, or put a proxy with a token in front"
# An address for documentation (RFC 5737): nothing is sent there, the system only says from where it would.
_SOMEWHERE = ("192.0.2.1", 9)


def checks(client: OllamaClient, targets: Sequence[Target]) -> list[Check]:
    """Three for each backend."""
    looks = {"models": models, "exposure": exposure, "cloud": cloud}
    return [
        Check(name=f"backends.{target.name}.{what}", look=partial(look, client, target))
        for target in targets
        for what, look in looks.items()
    ]


async def models(client: OllamaClient, target: Target) -> list[Finding]:
    """Whether it answers with its credential, and what it has."""
    name = f"backends.{target.name}.models"
    try:
        listing = await client.tags(target)
    except UpstreamProbeError as fault:
        advice = "correct its token" if str(fault) == "unauthorized" else "start it, or correct its address"
        return [failed(name, str(fault), advice)]
    skipped_entries = f"; {listing.skipped} unusable or run elsewhere" if listing.skipped else ""
    if not listing.models:
        return [warning(name, f"no model{skipped_entries}", "pull one: ollama pull")]
    return [ok(name, f"{len(listing.models)} models{skipped_entries}")]


async def exposure(client: OllamaClient, target: Target) -> list[Finding]:
    """Whether others than the planes might use it, as far as it can be seen from here."""
    name = f"backends.{target.name}.exposure"
    parts = urlsplit(target.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        addresses = await _resolved(parts.hostname or "", port)
    except OSError:
        return [skipped(name, "unknown host")]
    public = [address for address in addresses if address.is_global]
    if target.credential is not None and await _answers(client, target, target.url):
        return [failed(name, "answers without its credential", "make the proxy in front of it require the token")]
    if public and target.credential is None:
        return [failed(name, f"on a public address ({names(map(str, public))}) without a credential", _LOCK)]
    if public and parts.scheme == "http":
        return [failed(name, f"its credential travels in plaintext to {names(map(str, public))}", "use https")]
    if any(address.is_loopback for address in addresses) and parts.scheme == "http":
        own = _own_address()
        if own is not None and await _answers(client, target, f"http://{own}:{port}"):
            return [warning(name, f"not only on loopback, also on {own}", "set OLLAMA_HOST=127.0.0.1 for it")]
        return [ok(name, "on loopback alone")]
    return [ok(name, "on a private address" if not public else "on a public address, with TLS and a credential")]


async def cloud(client: OllamaClient, target: Target) -> list[Finding]:
    """Whether it may send prompts to Ollama's cloud."""
    name = f"backends.{target.name}.cloud"
    try:
        is_disabled = await client.is_cloud_disabled(target)
    except UpstreamProbeError as fault:
        return [skipped(name, f"cannot be seen ({fault})", "set OLLAMA_NO_CLOUD=1 for it")]
    if is_disabled:
        return [ok(name, "switched off")]
    return [warning(name, "switched on", "set OLLAMA_NO_CLOUD=1 for it: prompts to such models leave the building")]


async def _answers(client: OllamaClient, target: Target, url: str) -> bool:
    try:
        await client.tags(msgspec.structs.replace(target, url=url, credential=None))
    except UpstreamProbeError:
        return False
    return True


async def _resolved(host: str, port: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _own_address() -> str | None:
    """The address by which other machines reach this one, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOMEWHERE)
        except OSError:
            return None
        own: str = probe.getsockname()[0]
    return None if ipaddress.ip_address(own).is_loopback else own
