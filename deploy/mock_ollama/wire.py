"""The request structs of Ollama's API as Go reads them (Ollama source: api/types.go)."""

import math
import re
from typing import Final

from deploy.mock_ollama.go_json import GoJSONError, GoObject
from deploy.mock_ollama.go_types import (
    AnyValue,
    Bytes,
    Map,
    Plain,
    Pointer,
    RawMessage,
    Slice,
    Struct,
    Unmarshaler,
    store_fresh,
)

STRING: Final = Plain("string")
BOOL: Final = Plain("bool")
INT: Final = Plain("int")
ANY: Final = AnyValue()

_DURATION: Final = re.compile(r"([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)")
_DURATION_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_THINK_LEVELS: Final = ("high", "medium", "low", "max")
_THINK_WORDS: Final = '("high", "medium", "low", "max", true, or false)'


def _think(value: object) -> object:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise GoJSONError(f"think must be a boolean or string {_THINK_WORDS}")
    if value not in _THINK_LEVELS:
        raise GoJSONError(f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)')
    return value


def _keep_alive_s(value: object) -> float:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise GoJSONError(f'time: invalid duration "{value}"')
        seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(value))
        return math.inf if match.group(1) == "-" and seconds else seconds
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.inf if value < 0 else float(value)
    raise GoJSONError(f"Unsupported type: '{type(value).__name__}'")


def _arguments(value: object) -> object:
    if value is None:
        return {}
    if not isinstance(value, GoObject):
        raise GoJSONError("json: cannot unmarshal tool call arguments that are not an object")
    return {key: store_fresh(ANY, item) for key, item in value.pairs}


def _properties(value: object) -> object:
    if not isinstance(value, GoObject):
        raise GoJSONError("json: cannot unmarshal tool properties that are not an object")
    return {key: _property(item) for key, item in value.pairs}


def _property(value: object) -> object:
    """What Go reads of a property; beside it the keywords that Go drops and the mock fills in arguments by."""
    property_ = dict(value) if isinstance(value, GoObject) else {}
    stored = store_fresh(_PROPERTY, value)
    return {**property_, **stored} if isinstance(stored, dict) else property_


def _property_type(value: object) -> object:
    if value is None or isinstance(value, str):
        return [value or ""]
    return store_fresh(Slice(STRING), value)


def _message(value: object) -> object:
    stored = store_fresh(_MESSAGE_ALIAS, value)
    if not isinstance(stored, dict):
        return {}
    return {**stored, "role": str(stored["role"]).lower()} if "role" in stored else stored


_TOOL_CALL: Final = Struct(
    "ToolCall",
    {
        "id": STRING,
        "function": Struct(
            "ToolCallFunction",
            {"index": INT, "name": STRING, "arguments": Unmarshaler("api.ToolCallFunctionArguments", _arguments)},
        ),
    },
)
_MESSAGE_ALIAS: Final = Struct(
    "Alias",
    {
        "role": STRING,
        "content": STRING,
        "thinking": STRING,
        "images": Slice(Bytes()),
        "tool_calls": Slice(_TOOL_CALL),
        "tool_name": STRING,
        "tool_call_id": STRING,
    },
)
_PROPERTIES: Final = Pointer(Unmarshaler("api.ToolPropertiesMap", _properties))
_PROPERTY: Final = Struct(
    "ToolProperty",
    {
        "anyOf": Slice(Unmarshaler("api.ToolProperty", _property)),
        "type": Unmarshaler("api.PropertyType", _property_type),
        "items": ANY,
        "description": STRING,
        "enum": Slice(ANY),
        "properties": _PROPERTIES,
        "required": Slice(STRING),
    },
)
_TOOL: Final = Struct(
    "Tool",
    {
        "type": STRING,
        "items": ANY,
        "function": Struct(
            "ToolFunction",
            {
                "name": STRING,
                "description": STRING,
                "parameters": Struct(
                    "ToolFunctionParameters",
                    {"type": STRING, "$defs": ANY, "items": ANY, "required": Slice(STRING), "properties": _PROPERTIES},
                ),
            },
        ),
    },
)
_THINK: Final = Pointer(Unmarshaler("api.ThinkValue", _think))
_KEEP_ALIVE: Final = Pointer(Unmarshaler("api.Duration", _keep_alive_s))
_COMMON: Final = {
    "model": STRING,
    "stream": Pointer(BOOL),
    "format": RawMessage(),
    "keep_alive": _KEEP_ALIVE,
    "options": Map(),
    "think": _THINK,
    "truncate": Pointer(BOOL),
    "shift": Pointer(BOOL),
    "_debug_render_only": BOOL,
    "logprobs": BOOL,
    "top_logprobs": INT,
}

GENERATE: Final = Struct(
    "GenerateRequest",
    {
        **_COMMON,
        "prompt": STRING,
        "suffix": STRING,
        "system": STRING,
        "template": STRING,
        "context": Slice(INT),
        "raw": BOOL,
        "images": Slice(Bytes()),
    },
)
CHAT: Final = Struct(
    "ChatRequest",
    {**_COMMON, "messages": Slice(Unmarshaler("api.Message", _message)), "tools": Slice(_TOOL)},
)
EMBED: Final = Struct(
    "EmbedRequest",
    {
        "model": STRING,
        "input": ANY,
        "keep_alive": _KEEP_ALIVE,
        "truncate": Pointer(BOOL),
        "dimensions": INT,
        "options": Map(),
    },
)
EMBEDDINGS: Final = Struct(
    "EmbeddingRequest", {"model": STRING, "prompt": STRING, "keep_alive": _KEEP_ALIVE, "options": Map()}
)
SHOW: Final = Struct(
    "ShowRequest",
    {
        "model": STRING,
        "system": STRING,
        "template": STRING,
        "verbose": BOOL,
        "options": Map(),
        "name": STRING,
    },
)
