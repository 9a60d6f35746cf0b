"""What becomes of each field of a request: the words of ``fields``. Bounds come from ``Caps`` and ``rules``."""

from __future__ import annotations

from typing import NamedTuple

from dataplane.api import rules
from dataplane.api.dialect import Caps
from dataplane.api.openai.messages import IMAGE_TYPES

_CAPS = Caps(max_num_predict=4096)


class Words(NamedTuple):
    """``takes`` is empty where the field's type says it all."""

    becomes: str
    takes: str = ""


_SENT = Words("Sent")
_REQUIRED_MODEL = Words(
    "**Required.** Any spelling of a granted model, or its alias. The reply echoes it, a backend gets its own"
)
_LOGPROBS = Words("Sent; the reply has the log probabilities of its tokens")
_TOP = Words("Sent", f"whole number, 0 to {_CAPS.max_top_logprobs}")
_STOP = Words("Sent", f"text or list of up to {_CAPS.max_stops} texts, each of 1 to {_CAPS.max_stop_bytes} bytes")
_OUTPUT = Words(
    "The most tokens to produce; more than the cap is lowered to it. Absent, null, `-1` and `-2` ask for as much as is "
    "allowed. Always sent",
    "whole number from 1, or `-1`, `-2`",
)
_IMAGES = f"list of base64, at most {_CAPS.max_images} in a request; line breaks are taken out"
_SCHEMA = f"at most {_CAPS.max_schema_depth} levels and {_CAPS.max_schema_bytes // 1024} KiB, `$ref` only into itself"
_TOOLS = {
    "tools": Words(f"At most {_CAPS.max_tools}. Rebuilt"),
    "tools[].type": Words("`function`, which is sent also when it is absent"),
    "tools[].function.name": Words(f"**Required**, 1 to {rules.MAX_TOOL_NAME_CHARACTERS} printable characters"),
    "tools[].function.description": _SENT,
    "tools[].function.parameters": Words("Sent, written anew; no key twice"),
}
_INPUTS = f"non-empty text, or list of up to {_CAPS.max_inputs} of them"
_DIMENSIONS = Words("Sent", f"whole number, 1 to {_CAPS.max_dimensions}")

_COMMON = {"model": _REQUIRED_MODEL, "dimensions": _DIMENSIONS, "suffix": _SENT, "top_logprobs": _TOP} | _TOOLS

_OLLAMA = {
    "messages": Words(f"**Required**, 1 to {_CAPS.max_messages}"),
    "messages[].role": Words(
        "**Required.** Sent in lower case", "`system`, `user`, `assistant`, `tool`, or a role of the model's own"
    ),
    "messages[].content": Words("Sent; null and absent are empty"),
    "messages[].thinking": _SENT,
    "messages[].images": Words("Sent", _IMAGES),
    "messages[].tool_calls": Words(f"At most {_CAPS.max_tool_calls} in a message. Rebuilt"),
    "messages[].tool_calls[].function.name": Words(
        f"**Required**, 1 to {rules.MAX_TOOL_NAME_CHARACTERS} printable characters"
    ),
    "messages[].tool_calls[].function.arguments": Words("Sent, written anew; no key twice"),
    "messages[].tool_calls[].function.index": _SENT,
    "messages[].tool_calls[].id": _SENT,
    "messages[].tool_calls[].type": Words("Read and not sent: there is only `function`"),
    "messages[].tool_name": _SENT,
    "messages[].tool_call_id": _SENT,
    "stream": Words("Default true. Decides the form of the reply; a backend is always asked to stream"),
    "format": Words("Sent, written anew", f"`json`, or a JSON schema: {_SCHEMA}"),
    "think": Words("Sent", f"true, false, {', '.join(f'`{level}`' for level in rules.THINK_LEVELS)}"),
    "options.num_predict": _OUTPUT,
    "options.stop": _STOP,
    "logprobs": _LOGPROBS,
    "prompt": Words("**Required**, not empty: an empty one would load or unload the model"),
    "system": _SENT,
    "images": Words("Sent", _IMAGES),
    "truncate": _SENT,
    "input": Words("**Required.** Each text counts as a prompt of its own", _INPUTS),
}
_OPENAI = {
    "messages": Words(f"**Required**, 1 to {_CAPS.max_messages}"),
    "messages[].role": Words(
        "**Required.** `developer` becomes `system`", "`system`, `developer`, `user`, `assistant`, `tool`"
    ),
    "messages[].content": Words("Texts are joined by line breaks. Required of system and user messages"),
    "messages[].content[].type": Words("Others are refused", "`text`, `image_url`, `refusal`"),
    "messages[].content[].text": _SENT,
    "messages[].content[].refusal": Words("Sent as text"),
    "messages[].content[].image_url": Words("As `image_url.url`"),
    "messages[].content[].image_url.url": Words(
        f"Sent as an image; at most {_CAPS.max_images} in a request. Nothing is ever fetched",
        f"data URI with base64 of {', '.join(IMAGE_TYPES)}",
    ),
    "messages[].content[].image_url.detail": Words("Read and not sent"),
    "messages[].name": Words("Of a tool's answer: the tool, where the call's id does not tell; else not sent"),
    "messages[].reasoning": Words("Of an assistant: sent as its thinking"),
    "messages[].reasoning_content": Words("The same, as other servers call it"),
    "messages[].tool_calls": Words(f"Of an assistant: at most {_CAPS.max_tool_calls}. Rebuilt"),
    "messages[].tool_calls[].id": _SENT,
    "messages[].tool_calls[].type": Words("Read and not sent: there is only `function`"),
    "messages[].tool_calls[].index": Words("Read and not sent"),
    "messages[].tool_calls[].function.name": Words(
        f"**Required**, 1 to {rules.MAX_TOOL_NAME_CHARACTERS} printable characters"
    ),
    "messages[].tool_calls[].function.arguments": Words(
        "Parsed, and sent as an object", "text that holds a JSON object"
    ),
    "messages[].tool_call_id": Words("Of a tool's answer: sent, and the tool's name with it"),
    "stream": Words("Default false. Decides the form of the reply; a backend is always asked to stream"),
    "stream_options.include_usage": Words("A chunk with `usage` before `[DONE]`"),
    "max_tokens": _OUTPUT,
    "max_completion_tokens": Words(
        "The same setting; of two values the smaller holds", "whole number from 1, or `-1`, `-2`"
    ),
    "temperature": Words("Sent; 1 when absent, as OpenAI has it"),
    "top_p": Words("Sent; 1 when absent, as OpenAI has it"),
    "frequency_penalty": _SENT,
    "presence_penalty": _SENT,
    "seed": _SENT,
    "stop": _STOP,
    "response_format.type": Words("Sent as `format`", "`text`, `json_object`, `json_schema`"),
    "response_format.json_schema.name": Words("Read and not sent"),
    "response_format.json_schema.description": Words("Read and not sent"),
    "response_format.json_schema.strict": Words("Read and not sent: the schema always holds"),
    "response_format.json_schema.schema": Words("Sent as `format`, written anew", f"object: {_SCHEMA}"),
    "tool_choice": Words("`none` drops the tools, `auto` is what happens anyway; others are dropped and named"),
    "reasoning_effort": Words(
        "Sent as `think`: none → false, minimal → low, xhigh and ultra → max",
        "`none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `ultra`, `max`",
    ),
    "reasoning.effort": Words("The same; it wins over `reasoning_effort`", "as `reasoning_effort`"),
    "logprobs": _LOGPROBS,
    "prompt": Words("**Required.** Token ids are refused", "non-empty text, or a list with one"),
    "input": Words("**Required.** Each text counts as a prompt of its own; token ids are refused", _INPUTS),
    "encoding_format": Words("Made here; `float` when absent", "`float`, `base64`"),
}
_OWN = {
    ("/api/embeddings", "prompt"): Words("**Required**, not empty. Sent to `/api/embed`, which reports usage"),
    ("/api/show", "model"): Words("**Required.** The model"),
    ("/api/show", "name"): Words("The older name of `model`"),
    ("/v1/chat/completions", "top_logprobs"): Words(
        "Sent; needs `logprobs`", f"whole number, 0 to {_CAPS.max_top_logprobs}"
    ),
    ("/v1/completions", "logprobs"): Words(
        "Sent: how many alternatives to report", f"whole number, 0 to {_CAPS.max_top_logprobs}"
    ),
}

# Paths whose setting Ollama, and with it a model's policy, calls something else.
NATIVE = {
    "response_format.type": "format",
    "response_format.json_schema.schema": "format",
    "reasoning_effort": "think",
    "reasoning.effort": "think",
    "messages[].images": "images",
    "messages[].content[].image_url": "images",
    "messages[].content[].image_url.url": "images",
}


def of(endpoint: str, path: str) -> Words:
    """What is said of a field. Raises ``KeyError`` for one of which nothing is said."""
    dialect = _OPENAI if endpoint.startswith("/v1/") else _OLLAMA
    own = _OWN.get((endpoint, path))
    if own is not None:
        return own
    if path in dialect:
        return dialect[path]
    # Options of sampling have a type with bounds, and no more to be said.
    return _SENT if path.startswith("options.") else _COMMON[path]


def stale(known: set[tuple[str, str]]) -> set[str]:
    """Words for fields that no endpoint reads; ``known`` has every endpoint with every path."""
    paths = {path for _, path in known}
    said = {*_COMMON, *_OLLAMA, *_OPENAI} - paths
    return said | {f"{endpoint} {path}" for endpoint, path in _OWN if (endpoint, path) not in known}
