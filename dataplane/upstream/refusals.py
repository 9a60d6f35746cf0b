"""What a status other than 200 means for the attempt: whose fault it is, and whether another backend may do better.

The backend's text is read to recognise a missing model or a capability that the model lacks; it goes no further. The
phrases are those of ollama ``server/routes.go``, August 2026.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dataplane.ports import AttemptError, Unsupported
from dataplane.upstream.faults import Blame, ReplyError

MAX_ERROR_BYTES = 64 * 1024

_NOT_FOUND = 404
_SERVER_ERRORS = 500
# What our own request caused and every other backend would say too. 401, 403, 408, 429, … are about the backend: its
# credential, its proxy, its load.
_OUR_REQUEST = frozenset({400, 413, 422})

_UNSUPPORTED: tuple[tuple[str, Unsupported], ...] = (
    ("does not support tools", "tools"),
    ("does not support thinking", "thinking"),
    ("does not support chat", "chat"),
    ("does not support generate", "generate"),
    ("does not support insert", "suffix"),
    ("does not support completion", "generate"),
    ("does not support embed", "embeddings"),
    ("does not support vision", "images"),
    ("does not support image", "images"),
    ("missing data required for image input", "images"),
    ("exceeds the context length", "context"),
    ("exceeds maximum context length", "context"),
)


class _ErrorBody(msgspec.Struct, frozen=True):
    error: Any = None


_decode = msgspec.json.Decoder(_ErrorBody).decode


def error_text(body: bytes) -> str:
    """The text of an error reply, lower case; empty when it is not Ollama's form."""
    try:
        error = _decode(body).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return error.lower() if isinstance(error, str) else ""


def judge(status: int, body: bytes) -> AttemptError | ReplyError:
    """The meaning of a refusal: an ``AttemptError`` when the backend is well, else a fault."""
    text = error_text(body)
    if status == _NOT_FOUND and "model" in text and ("not found" in text or "try pulling" in text):
        return AttemptError("the backend does not have the model", model_missing=True)
    if status in _OUR_REQUEST:
        unsupported = next((word for phrase, word in _UNSUPPORTED if phrase in text), None)
        return AttemptError(f"status {status}", status=status, unsupported=unsupported)
    return ReplyError(f"status {status}", blame=_blame(status))


def _blame(status: int) -> Blame:
    is_client_error = 400 <= status < _SERVER_ERRORS
    return Blame.NONE if is_client_error else Blame.BAD_REPLY
