"""The way to the control planes: addresses, credential and encryption, the same for everything that is asked of them.

gRPC does not survive a fork: channels are made inside the worker, never before it was started.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio

from shared.redaction import Secret

# Far above any state that people configure; the default of 4 MiB is not.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_CHANNEL_OPTIONS = (
    # Below the servers' least interval between pings, and often enough to notice a peer that has vanished.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A new channel is a new connection, not a share in one that may be dead.
    ("grpc.use_local_subchannel_pool", 1),
    # The control plane is never behind a proxy of the environment.
    ("grpc.enable_http_proxy", 0),
)


class ControlPlanes:
    """Makes channels. ``credentials`` None means plaintext; ``token`` None sends no bearer token."""

    def __init__(
        self, *, addresses: Sequence[str], token: Secret | None, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self.addresses = tuple(addresses)
        self.metadata = () if token is None else (("authorization", f"Bearer {token.reveal()}"),)
        self._credentials = credentials

    def channel(self, address: str) -> grpc.aio.Channel:
        """A channel with a connection of its own."""
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials, options=_CHANNEL_OPTIONS)

    def __repr__(self) -> str:
        encryption = "plaintext" if self._credentials is None else "TLS"
        return f"ControlPlanes({', '.join(self.addresses)}; {encryption})"


def credentials_of(*, ca: str | None, cert: str | None, key: str | None) -> grpc.ChannelCredentials | None:
    """TLS towards the control planes from PEM files, with a certificate of our own if there is one.

    None without a ``ca``. Raises ``OSError`` when a file cannot be read.
    """
    if ca is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=Path(ca).read_bytes(),
        private_key=None if key is None else Path(key).read_bytes(),
        certificate_chain=None if cert is None else Path(cert).read_bytes(),
    )
