"""What Ollama reads of a request, field by field: of what is sent to it, and of a client's body if it came directly.

Only the fields that the gateway decides on, each with the type that Ollama has for it. Schemas of tools and arguments
of calls stay as they were written, so that they can be compared. Fields that Ollama does not know but the gateway reads
(``max_completion_tokens``, ``tool_choice``) are read by the same rules.
Source: ollama ``api/types.go`` and ``openai/openai.go``, August 2026.
"""

from __future__ import annotations

from typing import Any, cast

from deploy.mock_ollama import wire
from deploy.mock_ollama.go_json import GoJSONError, parse
from deploy.mock_ollama.go_types import AnyValue, Bytes, Faults, GoType, Map, Plain, Pointer, RawMessage, Slice, Struct

_STRING, _BOOL, _INT, _ANY, _RAW = Plain("string"), Plain("bool"), Plain("int"), AnyValue(), RawMessage()
_FLOAT = Pointer(Plain("float64"))
_FUNCTION = Struct("ToolFunction", {"name": _STRING, "description": _STRING, "parameters": _RAW})
_TOOLS = Slice(Struct("Tool", {"type": _STRING, "function": _FUNCTION}))
_CALL = Struct(
    "ToolCall",
    {"id": _STRING, "function": Struct("ToolCallFunction", {"index": _INT, "name": _STRING, "arguments": _RAW})},
)
_MESSAGE = Struct(
    "Message",
    {
        "role": _STRING,
        "content": _STRING,
        "thinking": _STRING,
        "images": Slice(Bytes()),
        "tool_calls": Slice(_CALL),
        "tool_name": _STRING,
        "tool_call_id": _STRING,
    },
)
_GENERATING: dict[str, GoType] = {
    "model": _STRING,
    "stream": Pointer(_BOOL),
    "format": _RAW,
    "options": Map(),
    "think": Pointer(_ANY),
    "logprobs": _BOOL,
    "top_logprobs": _INT,
}
_OPENAI_SAMPLED: dict[str, GoType] = {
    "model": _STRING,
    "stream": _BOOL,
    "max_tokens": _ANY,
    "max_completion_tokens": _ANY,
    "seed": Pointer(_INT),
    "stop": _ANY,
    "temperature": _FLOAT,
    "frequency_penalty": _FLOAT,
    "presence_penalty": _FLOAT,
    "top_p": _FLOAT,
}
_OPENAI_CALL = Struct(
    "ToolCall",
    {"id": _STRING, "function": Struct("Function", {"name": _STRING, "arguments": _STRING})},
)
_OPENAI_MESSAGE = Struct(
    "Message",
    {
        "role": _STRING,
        "content": _ANY,
        "reasoning": _STRING,
        "reasoning_content": _STRING,
        "tool_calls": Slice(_OPENAI_CALL),
        "name": _STRING,
        "tool_call_id": _STRING,
    },
)
_FORMAT = Struct("ResponseFormat", {"type": _STRING, "json_schema": Pointer(Struct("JsonSchema", {"schema": _RAW}))})

STRUCTS: dict[str, Struct] = {
    "/api/chat": Struct("ChatRequest", {**_GENERATING, "messages": Slice(_MESSAGE), "tools": _TOOLS}),
    "/api/generate": Struct(
        "GenerateRequest",
        {**_GENERATING, "prompt": _STRING, "suffix": _STRING, "system": _STRING, "images": Slice(Bytes())},
    ),
    "/api/embed": Struct(
        "EmbedRequest", {"model": _STRING, "input": _ANY, "truncate": Pointer(_BOOL), "dimensions": _INT}
    ),
    "/api/embeddings": Struct("EmbeddingRequest", {"model": _STRING, "prompt": _STRING}),
    "/v1/chat/completions": Struct(
        "ChatCompletionRequest",
        {
            **_OPENAI_SAMPLED,
            "messages": Slice(_OPENAI_MESSAGE),
            "response_format": Pointer(_FORMAT),
            "tools": _TOOLS,
            "tool_choice": _ANY,
            "reasoning": Pointer(Struct("Reasoning", {"effort": _STRING})),
            "reasoning_effort": Pointer(_STRING),
            "logprobs": Pointer(_BOOL),
            "top_logprobs": _INT,
        },
    ),
    "/v1/completions": Struct(
        "CompletionRequest",
        {**_OPENAI_SAMPLED, "prompt": _ANY, "suffix": _STRING, "logprobs": Pointer(_INT)},
    ),
    "/v1/embeddings": Struct("EmbedRequest", {"model": _STRING, "input": _ANY, "dimensions": _INT}),
}
_OLLAMA = {"/api/chat": wire.CHAT, "/api/generate": wire.GENERATE, "/api/embed": wire.EMBED}


def read(path: str, body: bytes) -> dict[str, Any] | None:
    """The fields of a body; None when Go refuses it, for what is no JSON or for a type."""
    faults = Faults()
    try:
        stored = STRUCTS[path].store(parse(body), None, faults, ("", ""))
    except GoJSONError:
        return None
    return cast("dict[str, Any]", stored) if faults.first is None and isinstance(stored, dict) else None


def refusal(path: str, body: bytes) -> str | None:
    """Why Ollama would refuse what is sent to it; None when it would not."""
    faults = Faults()
    try:
        _OLLAMA[path].store(parse(body), None, faults, ("", ""))
    except GoJSONError as fault:
        return str(fault)
    return faults.first
