"""Who asks? Header → format → checksum → principal; every reason to refuse looks the same from outside.

A guessed key fails at the checksum, before Redis is asked; a key that is in memory has passed it. Refusals leave on a
fixed grid of time, so that how long one took tells nothing about how far it came. Failures are counted per address
block; over the limit further *failures* are told so (429), while a valid key is always served.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from dataplane.errors import AuthenticationError, AuthenticationFailure, GatewayError, TooManyFailuresError
from dataplane.ports import FailureLog, Failures, Keys
from dataplane.values import Credentials, Principal
from shared import apikey
from shared.redaction import Secret

# Refusals leave at multiples of this on the event loop's clock.
GRID_S = 0.01
# Room for the scheme and any key; longer headers are not looked at.
MAX_HEADER_BYTES = 256
# What the audit log calls the failures of a block that has failed too often.
THROTTLED = "throttled"
_SCHEME = b"bearer "


@dataclass(slots=True)
class AuthenticationCounts:
    """What has happened since the worker started, for its metrics."""

    failed: dict[AuthenticationFailure, int] = field(default_factory=dict)
    throttled: int = 0


class Authenticate:
    """The first stage."""

    def __init__(self, *, keys: Keys, failures: Failures, log: FailureLog, pepper: Secret) -> None:
        self._keys = keys
        self._failures = failures
        self._log = log
        self._pepper = pepper.reveal().encode()
        self.counts = AuthenticationCounts()

    async def __call__(self, credentials: Credentials) -> Principal:
        """The principal of a request.

        Raises ``AuthenticationError``, ``TooManyFailuresError`` or, when it cannot be known, ``CannotCheckError``.
        """
        try:
            key = _bearer(credentials)
            if (remembered := self._keys.remembered(key)) is not None:
                return remembered
            self._check(key)
            return await self._keys.principal(key)
        except AuthenticationError as failure:
            refusal = await self.refusal(credentials, failure)
            reason = THROTTLED if isinstance(refusal, TooManyFailuresError) else failure.failure
            self._log.add(credentials.client_ip, reason)
            raise refusal from None

    async def refusal(self, credentials: Credentials, failure: AuthenticationError) -> GatewayError:
        """What to answer to a failure that was found here or by a later stage; counts it and waits for the grid.

        A request without any credential is not counted: it guesses nothing.
        """
        self.counts.failed[failure.failure] = self.counts.failed.get(failure.failure, 0) + 1
        if failure.failure == "missing":
            return failure
        blocked_for_s = await self._failures.record(credentials.client_ip)
        await _until_grid()
        if blocked_for_s is None:
            return failure
        self.counts.throttled += 1
        return TooManyFailuresError(failure.failure, retry_after_s=blocked_for_s)

    def _check(self, key: str) -> None:
        """Raises ``AuthenticationError`` for a key without the right form and checksum."""
        if not apikey.is_valid(self._pepper, key):
            is_formed = len(key) == apikey.KEY_LENGTH and key.startswith("nz_") and key[3:].isalnum()
            raise AuthenticationError("checksum" if is_formed else "malformed")

    def __repr__(self) -> str:
        return f"Authenticate({self._keys!r})"


def _bearer(credentials: Credentials) -> str:
    """What the request carries as its key. Raises ``AuthenticationError``."""
    headers = credentials.authorization
    if not headers:
        raise AuthenticationError("missing")
    if len(headers) > 1 or len(headers[0]) > MAX_HEADER_BYTES:
        raise AuthenticationError("malformed")
    scheme, raw = headers[0][: len(_SCHEME)], headers[0][len(_SCHEME) :]
    if scheme.lower() != _SCHEME or not raw.isascii():
        raise AuthenticationError("malformed")
    return raw.decode("ascii")


async def _until_grid() -> None:
    await asyncio.sleep(GRID_S - asyncio.get_running_loop().time() % GRID_S)
