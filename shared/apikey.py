"""API keys: their format, their checksum and their digest.

A key is ``nz_`` + 9 public base62 characters + 43 base62 characters of secret (256 bits) + 8 base62 characters of
checksum, 63 ASCII characters in all. The first 12 are the *key prefix*, which is public and identifies the key. The
checksum is a truncated HMAC-SHA-256 of everything before it under the deployment's pepper, so that a guessed key is
refused without a look-up. The *digest* is the whole HMAC-SHA-256 of the whole key: it is what the hot path compares.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import NewType

KeyPrefix = NewType("KeyPrefix", str)
Digest = NewType("Digest", str)

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX_LENGTH = 12
SECRET_LENGTH = 43
CHECKSUM_LENGTH = 8
KEY_LENGTH = PREFIX_LENGTH + SECRET_LENGTH + CHECKSUM_LENGTH
MIN_PEPPER_BYTES = 16

_FORMAT = re.compile(r"nz_[0-9A-Za-z]{60}", re.ASCII)
_PREFIX_FORMAT = re.compile(r"nz_[0-9A-Za-z]{9}", re.ASCII)
_CHECKSUM_SPACE = len(ALPHABET) ** CHECKSUM_LENGTH


def mint(pepper: bytes) -> str:
    """A new key from the operating system's random source."""
    body = "nz_" + "".join(secrets.choice(ALPHABET) for _ in range(PREFIX_LENGTH - 3 + SECRET_LENGTH))
    return body + _checksum(pepper, body)


def is_valid(pepper: bytes, key: str) -> bool:
    """Whether format and checksum are right; says nothing about whether such a key exists.

    The checksum is compared in constant time.
    """
    if len(key) != KEY_LENGTH or _FORMAT.fullmatch(key) is None:
        return False
    return hmac.compare_digest(_checksum(pepper, key[:-CHECKSUM_LENGTH]), key[-CHECKSUM_LENGTH:])


def prefix_of(key: str) -> KeyPrefix:
    """The public first 12 characters of a key whose format is known to be right."""
    return KeyPrefix(key[:PREFIX_LENGTH])


def is_prefix(text: str) -> bool:
    """Whether a text has the form of a key prefix."""
    return _PREFIX_FORMAT.fullmatch(text) is not None


def digest(pepper: bytes, key: str) -> Digest:
    """HMAC-SHA-256 of the whole key under the pepper, 64 lower-case hexadecimal characters."""
    return Digest(hmac.digest(pepper, key.encode("ascii"), "sha256").hex())


def digests_equal(left: str, right: str) -> bool:
    """Compares two digests in constant time."""
    return hmac.compare_digest(left, right)


def _checksum(pepper: bytes, body: str) -> str:
    number = int.from_bytes(hmac.digest(pepper, body.encode("ascii"), "sha256")) % _CHECKSUM_SPACE
    characters = []
    for _ in range(CHECKSUM_LENGTH):
        number, index = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[index])
    return "".join(characters)
