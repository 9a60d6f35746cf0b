"""Backend credentials at rest: sealed with AES-256-GCM under the deployment's sealing key.

The sealed text is what Postgres and Redis hold; the name of the backend is bound to it as associated data, so that a
sealed credential cannot be moved to another backend.
"""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.redaction import Secret

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = b"\x01"


class SealError(ValueError):
    """A sealed text that this key and name cannot open, or a sealing key of the wrong form."""


class Sealer:
    """Seals and opens credentials with one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SealError(f"the sealing key must have {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = AESGCM(key)

    def seal(self, name: str, secret: Secret) -> str:
        """The credential of the backend ``name`` as printable ASCII."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.reveal().encode(), name.encode())
        return base64.urlsafe_b64encode(_VERSION + nonce + sealed).decode("ascii")

    def open(self, name: str, sealed: str) -> Secret:
        """The credential again; raises ``SealError`` when key, name or text do not belong together."""
        try:
            raw = base64.urlsafe_b64decode(sealed.encode("ascii"))
            if raw[:1] != _VERSION:
                raise SealError("the sealed credential has an unknown version")
            nonce, body = raw[1 : 1 + _NONCE_BYTES], raw[1 + _NONCE_BYTES :]
            return Secret(self._cipher.decrypt(nonce, body, name.encode()).decode())
        except (binascii.Error, InvalidTag, ValueError) as fault:
            raise SealError(f"the sealed credential of backend {name!r} cannot be opened with this key") from fault

    def __repr__(self) -> str:
        return "Sealer(***)"


def decode_key(text: str) -> bytes:
    """The 32 bytes of a sealing key given as base64 (either alphabet); raises ``SealError``."""
    try:
        key = base64.b64decode(text.strip().replace("-", "+").replace("_", "/") + "==", validate=False)
    except binascii.Error as fault:
        raise SealError("the sealing key must be base64") from fault
    if len(key) != KEY_BYTES:
        raise SealError(f"the sealing key must be {KEY_BYTES} bytes as base64, not {len(key)}")
    return key
