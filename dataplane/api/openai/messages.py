"""Messages of the OpenAI dialect as native ones."""

from __future__ import annotations

from collections.abc import Sequence

from dataplane.api import rules
from dataplane.api.dialect import Caps
from dataplane.api.openai import fields
from dataplane.api.strict_json import encoded, parse_object
from dataplane.errors import RequestError
from dataplane.native import UNSET, FunctionCall, Message, Raw, ToolCall, Unset

# What Ollama decodes. Its own layer refuses other types and every URL that is not a data URI; nothing is ever fetched.
IMAGE_TYPES = ("jpeg", "jpg", "png", "webp")

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_DATA_URI_HEADS = tuple(f"data:image/{kind};base64," for kind in IMAGE_TYPES)


def translated(values: Sequence[fields.Message], caps: Caps) -> list[Message]:
    """The messages in Ollama's terms; raises ``RequestError``."""
    tool_names: dict[str, str] = {}
    return [_message(value, f"messages[{index}]", tool_names, caps) for index, value in enumerate(values)]


def _message(value: fields.Message, field: str, tool_names: dict[str, str], caps: Caps) -> Message:
    role = _ROLES.get(value.role or "")
    if role is None:
        raise RequestError(f"{field}.role must be one of {', '.join(_ROLES)}", param=f"{field}.role")
    if value.content is None and role in ("system", "user"):
        raise RequestError(f"{field}.content is required", param=f"{field}.content")
    content, images = _content(value.content, f"{field}.content")
    if role == "assistant":
        return Message(
            role=role,
            content=content,
            thinking=value.reasoning or value.reasoning_content or UNSET,
            images=images,
            tool_calls=_tool_calls(value, field, tool_names, caps),
        )
    if role == "tool":
        call_id = value.tool_call_id or ""
        return Message(
            role=role,
            content=content,
            images=images,
            tool_name=tool_names.get(call_id) or value.name or UNSET,
            tool_call_id=call_id or UNSET,
        )
    return Message(role=role, content=content, images=images)


def _content(value: list[fields.Part] | str | None, field: str) -> tuple[str, list[str] | Unset]:
    if value is None or isinstance(value, str):
        return value or "", UNSET
    texts: list[str] = []
    images: list[str] = []
    for index, part in enumerate(value):
        if part.type == "text":
            texts.append(part.text or "")
        elif part.type == "refusal":
            texts.append(part.refusal or "")
        elif part.type == "image_url":
            images.append(_image(part.image_url, f"{field}[{index}].image_url"))
        else:
            raise RequestError(f"{field}[{index}].type must be text or image_url", param=f"{field}[{index}].type")
    return "\n".join(texts), images or UNSET


def _image(value: fields.ImageURL | str | None, field: str) -> str:
    url = value if isinstance(value, str) else (value.url if value is not None else None) or ""
    for head in _DATA_URI_HEADS:
        if url[: len(head)].lower() == head:
            return rules.image(url[len(head) :], field)
    raise RequestError(f"{field} must be a base64 data URI of type {', '.join(IMAGE_TYPES)}", param=field)


def _tool_calls(value: fields.Message, field: str, tool_names: dict[str, str], caps: Caps) -> list[ToolCall] | Unset:
    calls = value.tool_calls or []
    rules.count_within(len(calls), caps.max_tool_calls, f"{field}.tool_calls")
    native: list[ToolCall] = []
    for index, call in enumerate(calls):
        where = f"{field}.tool_calls[{index}].function"
        function = call.function or fields.Function()
        name = rules.tool_name(function.name, f"{where}.name")
        # Some clients write no arguments as an empty text.
        arguments = parse_object(function.arguments or "{}", f"{where}.arguments")
        if call.id:
            tool_names[call.id] = name
        native.append(
            ToolCall(
                function=FunctionCall(name=name, arguments=Raw(encoded(arguments))),
                id=call.id or UNSET,
            )
        )
    return native or UNSET
