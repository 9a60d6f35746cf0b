"""What the gateway has to make of a body that it accepts, said a second time.

``decided`` turns what Go reads of a client's body into what may be sent; ``found`` turns what Go reads of the sent body
into the same terms, so that the two can be compared. Empty values count as absent, as they do to Ollama.
Raises ``Refusable`` for a body that should not have been accepted at all.
"""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from deploy.mock_ollama.go_json import GoJSONError, WideInteger, parse
from tests.fuzz.shapes import SAMPLING, repeated

MAX_NUM_PREDICT = 4096

type Fields = dict[str, Any]

_ROLES = {"developer": "system"}
_EFFORTS = {"none": False, "minimal": "low", "xhigh": "max", "ultra": "max"}
_NO_PARAMETERS = {"type": "object", "properties": {}}


class Refusable(Exception):  # noqa: N818 - says what a body is
    """The body breaks a rule and was accepted."""


def found(path: str, fields: Fields) -> Fields:
    """What is sent, in the terms of ``decided``."""
    return _compact(
        {
            **{name: fields.get(name) for name in ("prompt", "suffix", "system", "input", "dimensions", "truncate")},
            **{name: fields.get(name) for name in ("format", "think", "logprobs", "top_logprobs")},
            "messages": [_message(message) for message in fields.get("messages") or ()],
            "images": fields.get("images"),
            "tools": [_tool(tool) for tool in fields.get("tools") or ()],
            "options": {name: _number(value) for name, value in (fields.get("options") or {}).items()},
        }
    )


def decided(path: str, fields: Fields) -> Fields:
    """What may be sent for a body of this endpoint."""
    if not fields.get("model"):
        raise Refusable("no model")
    match path:
        case "/api/chat" | "/v1/chat/completions":
            if not fields.get("messages"):
                raise Refusable("no messages")
            made = _ollama(fields) if path == "/api/chat" else _openai_chat(fields)
        case "/api/generate":
            made = _ollama(fields)
        case "/v1/completions":
            made = _openai_completion(fields)
        case _:
            texts = fields.get("prompt") if path == "/api/embeddings" else fields.get("input")
            made = {
                "input": [texts] if isinstance(texts, str) else texts,
                "dimensions": fields.get("dimensions"),
                "truncate": fields.get("truncate"),
            }
            if not made["input"] or not all(isinstance(item, str) and item for item in made["input"]):
                raise Refusable("no input")
    if path in ("/api/generate", "/v1/completions") and not made.get("prompt"):
        raise Refusable("no prompt")
    return _compact(made)


def num_predict(*wishes: Any) -> int:
    """The output that is granted: the smallest of the wishes, within the cap."""
    granted = MAX_NUM_PREDICT
    for wish in wishes:
        value = wish.exact if isinstance(wish, WideInteger) else wish
        if value is None:
            continue
        if type(value) is not int or (value < 1 and value not in (-1, -2)):
            raise Refusable("an output limit that is no count")
        if value > 0:
            granted = min(granted, value)
    return granted


def _ollama(fields: Fields) -> Fields:
    options = fields.get("options") or {}
    sampled = {name: _number(options.get(name)) for name in SAMPLING}
    return {
        **{name: fields.get(name) for name in ("prompt", "suffix", "system", "think", "logprobs", "top_logprobs")},
        "format": fields.get("format"),
        "messages": [_message(message) for message in fields.get("messages") or ()],
        "images": fields.get("images"),
        "tools": [_tool(tool) for tool in fields.get("tools") or ()],
        "options": {**sampled, "stop": _stop(options), "num_predict": num_predict(options.get("num_predict"))},
    }


def _openai_options(fields: Fields) -> Fields:
    return {
        "temperature": 1.0 if fields.get("temperature") is None else fields["temperature"],
        "top_p": 1.0 if fields.get("top_p") is None else fields["top_p"],
        "frequency_penalty": fields.get("frequency_penalty"),
        "presence_penalty": fields.get("presence_penalty"),
        "seed": _number(fields.get("seed")),
        "stop": _stop(fields),
        "num_predict": num_predict(fields.get("max_tokens"), fields.get("max_completion_tokens")),
    }


def _openai_chat(fields: Fields) -> Fields:
    form = fields.get("response_format") or {}
    effort = (fields.get("reasoning") or {}).get("effort") or fields.get("reasoning_effort")
    schema: Any = None
    if form.get("type") == "json_object":
        schema = "json"
    elif form.get("type") == "json_schema":
        schema = (form.get("json_schema") or {}).get("schema")
    names: dict[str, str] = {}
    return {
        "messages": [_openai_message(message, names) for message in fields["messages"]],
        "options": _openai_options(fields),
        "format": schema,
        "tools": [] if fields.get("tool_choice") == "none" else [_tool(tool) for tool in fields.get("tools") or ()],
        "think": _EFFORTS.get(effort, effort) if effort else None,
        "logprobs": fields.get("logprobs"),
        "top_logprobs": fields.get("top_logprobs"),
    }


def _openai_completion(fields: Fields) -> Fields:
    prompt = fields.get("prompt")
    if isinstance(prompt, list):
        prompt = prompt[0] if len(prompt) == 1 else None
    if not isinstance(prompt, str):
        raise Refusable("no prompt")
    return {
        "prompt": prompt,
        "suffix": fields.get("suffix"),
        "options": _openai_options(fields),
        "logprobs": fields.get("logprobs") is not None,
        "top_logprobs": fields.get("logprobs"),
    }


def _openai_message(fields: Fields, names: dict[str, str]) -> Fields:
    role = _ROLES.get(fields.get("role", ""), fields.get("role"))
    content = fields.get("content")
    made: Fields = {"role": role}
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        made["content"] = "\n".join(
            (part.get("text") if part.get("type") == "text" else part.get("refusal")) or ""
            for part in parts
            if part.get("type") != "image_url"
        )
        made["images"] = [_image(part) for part in parts if part.get("type") == "image_url"]
    else:
        made["content"] = content
    call_id = fields.get("tool_call_id", "")
    if role == "assistant":
        made["thinking"] = fields.get("reasoning") or fields.get("reasoning_content")
        made["tool_calls"] = [_openai_call(call, names) for call in fields.get("tool_calls") or ()]
    elif role == "tool":
        made["tool_call_id"] = call_id
        made["tool_name"] = names.get(call_id) or fields.get("name")
    return _compact(made)


def _openai_call(fields: Fields, names: dict[str, str]) -> Fields:
    function = fields.get("function") or {}
    if fields.get("id"):
        names[fields["id"]] = function.get("name", "")
    text = (function.get("arguments") or "{}").encode()
    try:
        msgspec.json.decode(text)
        arguments = parse(text)
    except (msgspec.DecodeError, GoJSONError) as fault:
        raise Refusable("arguments that are no JSON") from fault
    if repeated(arguments):
        raise Refusable("arguments that repeat a key")
    return _compact({"id": fields.get("id"), "name": function.get("name"), "arguments": arguments})


def _image(part: Fields) -> bytes:
    url = part.get("image_url")
    if isinstance(url, dict):
        url = url.get("url")
    if not isinstance(url, str) or ";base64," not in url:
        raise Refusable("an image that is no data URI")
    return base64.b64decode(url.partition(";base64,")[2])


def _message(fields: Fields) -> Fields:
    return _compact(
        {
            **fields,
            "role": fields.get("role", "").lower(),
            "tool_calls": [_call(call) for call in fields.get("tool_calls") or ()],
        }
    )


def _call(fields: Fields) -> Fields:
    function = fields.get("function") or {}
    return _compact({"id": fields.get("id"), **function})


def _tool(fields: Fields) -> Fields:
    function = fields.get("function") or {}
    return _compact(
        {
            "type": fields.get("type") or "function",
            "name": function.get("name"),
            "description": function.get("description"),
            "parameters": function.get("parameters") or _NO_PARAMETERS,
        }
    )


def _stop(fields: Fields) -> list[Any] | None:
    stop = fields.get("stop")
    return [stop] if isinstance(stop, str) else stop


def _number(value: Any) -> Any:
    # Ollama holds options as float64; 1 and 1.0 are the same to it.
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _compact(fields: Fields) -> Fields:
    options = fields.get("options")
    if isinstance(options, dict):
        fields = {**fields, "options": {name: value for name, value in options.items() if value not in (None, [])}}
    kept = {name: value for name, value in fields.items() if not (value is None or value in ("", [], {}, 0, False))}
    # Thinking may be switched off, and truncation: false is a value there.
    return {**kept, **{name: False for name in ("think", "truncate") if fields.get(name) is False}}
