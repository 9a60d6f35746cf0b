"""Who may call: the roles, and the tokens that stand for them."""

from __future__ import annotations

import hashlib
import hmac
import re
from enum import StrEnum

import msgspec

from shared.redaction import Secret

MIN_TOKEN_LENGTH = 16
MAX_TOKEN_LENGTH = 512

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


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end of a call."""

    name: str
    role: Role


class Callers:
    """The callers that are known, by the SHA-256 of their tokens; the tokens themselves are not kept."""

    def __init__(self, tokens: tuple[OperatorToken, ...]) -> None:
        self._callers = [(_fingerprint(item.token.reveal()), Caller(name=item.name, role=item.role)) for item in tokens]

    def find(self, token: str) -> Caller | None:
        """The caller of a token. Compares with every known one, so that time tells nothing."""
        fingerprint = _fingerprint(token)
        found: Caller | None = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, fingerprint):
                found = caller
        return found

    def __repr__(self) -> str:
        return f"Callers({len(self._callers)})"


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


def _fingerprint(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
