"""What requests have to know of the tiny model; apart from ``model``, so that the tests load no array library."""

from __future__ import annotations

MODEL = "tiny"
# Starts a tool call; one token, so that one bias is enough.
TOOL_CALL = "<tool_call>"
# The id of the token that ends a reply.
EOS_TOKEN = 2
