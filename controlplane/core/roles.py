"""Who may call: the roles, and the tokens and certificates that stand for them."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from shared.redaction import Secret

MIN_TOKEN_LENGTH = 16
MAX_TOKEN_LENGTH = 512
MAX_IDENTITY_LENGTH = 253

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}", re.ASCII)
_TOKEN = re.compile(r"[\x21-\x7e]+")


class Role(StrEnum):
    """What a caller is allowed: ``viewer`` reads, ``operator`` changes, ``admin`` may do everything.

    ``dataplane`` belongs to machines: it verifies keys and watches state, and can do nothing else.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    DATAPLANE = "dataplane"


HUMAN_ROLES = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


class OperatorToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token from the environment: whose, and what it allows."""

    name: str
    role: Role
    token: Secret


class OperatorCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder of a client certificate may do; the certificate itself is verified by TLS.

    ``identity`` is its common name or one of its alternative names, to the letter.
    """

    identity: str
    role: Role


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end of a call, and how that is known: by ``token`` or ``certificate``."""

    name: str
    role: Role
    credential: str = "token"


class Callers:
    """The callers that are known, by the SHA-256 of their tokens; the tokens themselves are not kept.

    Those with a certificate are known by a name in it.
    """

    def __init__(self, tokens: tuple[OperatorToken, ...], certificates: tuple[OperatorCertificate, ...] = ()) -> None:
        self._callers = [(_fingerprint(item.token.reveal()), Caller(name=item.name, role=item.role)) for item in tokens]
        self._certified = {
            item.identity: Caller(name=item.identity, role=item.role, credential="certificate") for item in certificates
        }

    def find(self, token: str) -> Caller | None:
        """The caller of a token. Compares with every known one, so that time tells nothing."""
        fingerprint = _fingerprint(token)
        found: Caller | None = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, fingerprint):
                found = caller
        return found

    @property
    def by_certificate(self) -> bool:
        """Whether a certificate can stand for a caller."""
        return bool(self._certified)

    def certified(self, identities: Iterable[str]) -> Caller | None:
        """The caller of a certificate that TLS has verified, by its names; None when none of them is known."""
        return next((self._certified[name] for name in identities if name in self._certified), None)

    def __repr__(self) -> str:
        return f"Callers({len(self._callers)} tokens, {len(self._certified)} certificates)"


def check_token(token: Secret) -> Secret:
    """The token; raises ``ValueError`` with the rule, without the token."""
    text = token.reveal()
    if not MIN_TOKEN_LENGTH <= len(text) <= MAX_TOKEN_LENGTH or _TOKEN.fullmatch(text) is None:
        raise ValueError(f"must have {MIN_TOKEN_LENGTH} to {MAX_TOKEN_LENGTH} visible ASCII characters")
    return token


def parse_operator_tokens(text: str) -> tuple[OperatorToken, ...]:
    """Reads ``name:role:token,…``; raises ``ValueError`` with the rule, without any token."""
    tokens = []
    for number, item in enumerate((part.strip() for part in text.split(",") if part.strip()), start=1):
        name, _, rest = item.partition(":")
        role, _, token = rest.partition(":")
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"entry {number} must be name:role:token with a name of letters, digits and . _ @ -")
        if role not in HUMAN_ROLES:
            raise ValueError(f"entry {number} must have one of the roles {', '.join(HUMAN_ROLES)}")
        try:
            tokens.append(OperatorToken(name=name, role=Role(role), token=check_token(Secret(token))))
        except ValueError as fault:
            raise ValueError(f"the token of entry {number} {fault}") from None
    return tuple(tokens)


def parse_operator_certificates(text: str) -> tuple[OperatorCertificate, ...]:
    """Reads ``identity:role,…``; raises ``ValueError`` with the rule."""
    certificates: dict[str, OperatorCertificate] = {}
    for number, item in enumerate((part.strip() for part in text.split(",") if part.strip()), start=1):
        # From the right: a name may be a URI.
        identity, _, role = item.rpartition(":")
        if not identity or len(identity) > MAX_IDENTITY_LENGTH or not identity.isprintable():
            raise ValueError(f"entry {number} must be identity:role with a name of the certificate")
        if role not in tuple(Role):
            raise ValueError(f"entry {number} must have one of the roles {', '.join(Role)}")
        if identity in certificates:
            raise ValueError(f"entry {number} names the identity of an entry before")
        certificates[identity] = OperatorCertificate(identity=identity, role=Role(role))
    return tuple(certificates.values())


def _fingerprint(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
