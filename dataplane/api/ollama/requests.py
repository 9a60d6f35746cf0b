"""Bodies of the Ollama dialect. Source of fields and defaults: ollama ``api/types.go``, August 2026.

A field that is null counts as absent, as in Go. ``stream`` defaults to true.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from dataplane.api import rules
from dataplane.api.dialect import Caps, Parsed
from dataplane.api.ollama.replies import EmbedRendering, FrameRendering, chat_frame, generate_frame
from dataplane.api.strict_json import Closed, encoded, read_body
from dataplane.errors import RequestError
from dataplane.native import (
    UNSET,
    ChatBody,
    EmbedBody,
    FunctionCall,
    GenerateBody,
    Message,
    Options,
    Raw,
    ToolCall,
    Unset,
)
from dataplane.values import InferenceRequest, Operation

# Set by the model's policy, or dangerous for other tenants (eviction, reloads, prompts that bypass the template).
_IGNORED = ("keep_alive", "shift", "truncate", "_debug_render_only")
_IGNORED_GENERATE = (*_IGNORED, "raw", "template", "context", "width", "height", "steps")
_IGNORED_OPTIONS = (
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict",
    # Gone from Ollama, but clients still know them.
    "numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mlock", "embedding_only", "tfs_z", "mirostat",
    "mirostat_tau", "mirostat_eta", "penalize_newline",
)  # fmt: skip


class OptionsFields(msgspec.Struct, frozen=True):
    """``options`` of a request that generates. ``num_predict`` and ``stop`` have rules of their own."""

    num_predict: Any = None
    num_keep: rules.Count | None = None
    seed: rules.Seed | None = None
    top_k: rules.Count | None = None
    top_p: rules.Real | None = None
    min_p: rules.Real | None = None
    typical_p: rules.Real | None = None
    repeat_last_n: rules.Window | None = None
    temperature: rules.Real | None = None
    repeat_penalty: rules.Real | None = None
    presence_penalty: rules.Real | None = None
    frequency_penalty: rules.Real | None = None
    stop: list[str] | str | None = None


class FunctionFields(msgspec.Struct, frozen=True):
    """The function of a tool call."""

    name: str | None = None
    arguments: dict[str, Any] | None = None
    index: rules.Count | None = None


class ToolCallFields(msgspec.Struct, frozen=True):
    """A tool call of an earlier answer."""

    function: FunctionFields | None = None
    id: str | None = None
    type: str | None = None


class MessageFields(msgspec.Struct, frozen=True):
    """A message."""

    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCallFields] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class ChatFields(msgspec.Struct, frozen=True):
    """``POST /api/chat``."""

    model: str | None = None
    messages: list[MessageFields] | None = None
    stream: bool | None = None
    format: Any = None
    tools: list[rules.Tool] | None = None
    think: Any = None
    options: OptionsFields | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class GenerateFields(msgspec.Struct, frozen=True):
    """``POST /api/generate``."""

    model: str | None = None
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    images: list[str] | None = None
    stream: bool | None = None
    format: Any = None
    think: Any = None
    options: OptionsFields | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class EmbedFields(msgspec.Struct, frozen=True):
    """``POST /api/embed``. Options of sampling mean nothing here, those of the runner are the policy's."""

    model: str | None = None
    input: list[str] | str | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class EmbeddingsFields(msgspec.Struct, frozen=True):
    """``POST /api/embeddings``, the legacy form."""

    model: str | None = None
    prompt: str | None = None


_OPTIONS = Closed(OptionsFields, ignored=_IGNORED_OPTIONS)
_MESSAGE = Closed(
    MessageFields, members={"tool_calls": Closed(ToolCallFields, members={"function": Closed(FunctionFields)})}
)
CHAT = Closed(ChatFields, ignored=_IGNORED, members={"messages": _MESSAGE, "options": _OPTIONS, "tools": rules.TOOL})
GENERATE = Closed(GenerateFields, ignored=_IGNORED_GENERATE, members={"options": _OPTIONS})
EMBED = Closed(EmbedFields, ignored=("keep_alive", "options"))
EMBEDDINGS = Closed(EmbeddingsFields, ignored=("keep_alive", "options"))

_SAMPLING = tuple(name for name in OptionsFields.__struct_fields__ if name not in ("num_predict", "stop"))


def chat(body: bytes, caps: Caps) -> Parsed:
    """``/api/chat``. Raises ``RequestError``, then ``ForbiddenError`` (see ``Endpoint``)."""
    fields, dropped = read_body(body, CHAT, ChatFields)
    name = rules.model_name(fields.model)
    if not fields.messages:
        raise RequestError("messages must hold at least one message", param="messages")
    rules.count_within(len(fields.messages), caps.max_messages, "messages")
    messages = [_message(message, index, caps) for index, message in enumerate(fields.messages)]
    images = rules.images_of(messages, caps)
    tools, tool_bytes = rules.tools(fields.tools, "tools", caps) if fields.tools else (UNSET, 0)
    options, num_predict, clamped = _options(fields.options, caps)
    native = ChatBody(
        messages=messages,
        options=options,
        format=_format(fields.format, caps),
        tools=tools,
        think=rules.think(fields.think, "think"),
        logprobs=True if fields.logprobs else UNSET,
        top_logprobs=rules.top_logprobs(fields.top_logprobs, "top_logprobs", caps),
    )
    request = InferenceRequest(
        operation=Operation.CHAT,
        model=name,
        canonical=rules.resolve(name),
        body=native,
        stream=fields.stream is not False,
        num_predict=num_predict,
        prompt_bytes=tool_bytes + sum(map(rules.message_bytes, messages)),
        messages=len(messages),
        images=images,
        doubles_output=native.format is not UNSET and native.think is not False,
        clamped=clamped,
        ignored=dropped.names,
        unknown_fields=dropped.unknown,
    )
    return Parsed(request, partial(FrameRendering, chat_frame, name, request.stream))


def generate(body: bytes, caps: Caps) -> Parsed:
    """``/api/generate``. Raises as ``chat`` does; an empty prompt would load or unload the model and is refused."""
    fields, dropped = read_body(body, GENERATE, GenerateFields)
    name = rules.model_name(fields.model)
    if not fields.prompt:
        raise RequestError("prompt must not be empty", param="prompt")
    images = rules.images(fields.images, "images") if fields.images else []
    rules.count_within(len(images), caps.max_images, "images")
    options, num_predict, clamped = _options(fields.options, caps)
    native = GenerateBody(
        prompt=fields.prompt,
        options=options,
        suffix=fields.suffix or UNSET,
        system=fields.system or UNSET,
        images=images or UNSET,
        format=_format(fields.format, caps),
        think=rules.think(fields.think, "think"),
        logprobs=True if fields.logprobs else UNSET,
        top_logprobs=rules.top_logprobs(fields.top_logprobs, "top_logprobs", caps),
    )
    request = InferenceRequest(
        operation=Operation.GENERATE,
        model=name,
        canonical=rules.resolve(name),
        body=native,
        stream=fields.stream is not False,
        num_predict=num_predict,
        prompt_bytes=sum(map(rules.utf8_bytes, (fields.prompt, fields.suffix, fields.system))),
        images=len(images),
        doubles_output=native.format is not UNSET and native.think is not False,
        clamped=clamped,
        ignored=dropped.names,
        unknown_fields=dropped.unknown,
    )
    return Parsed(request, partial(FrameRendering, generate_frame, name, request.stream))


def embed(body: bytes, caps: Caps) -> Parsed:
    """``/api/embed``. Raises as ``chat`` does."""
    fields, dropped = read_body(body, EMBED, EmbedFields)
    name = rules.model_name(fields.model)
    texts = rules.inputs(fields.input, "input", caps)
    native = EmbedBody(
        input=texts,
        truncate=UNSET if fields.truncate is None else fields.truncate,
        dimensions=rules.dimensions(fields.dimensions, caps),
    )
    return Parsed(rules.embedding_request(name, native, dropped), partial(EmbedRendering, name, False))  # noqa: FBT003


def embeddings(body: bytes, caps: Caps) -> Parsed:
    """``/api/embeddings``: sent as ``/api/embed``, because Ollama reports no usage for it. Raises as ``chat`` does."""
    fields, dropped = read_body(body, EMBEDDINGS, EmbeddingsFields)
    name = rules.model_name(fields.model)
    native = EmbedBody(input=rules.inputs(fields.prompt, "prompt", caps))
    return Parsed(rules.embedding_request(name, native, dropped), partial(EmbedRendering, name, True))  # noqa: FBT003


def _options(fields: OptionsFields | None, caps: Caps) -> tuple[Options, int, bool]:
    if fields is None:
        return Options(num_predict=caps.max_num_predict), caps.max_num_predict, False
    num_predict, clamped = rules.output_cap(fields.num_predict, "options.num_predict", caps.max_num_predict)
    sampling = {name: value for name in _SAMPLING if (value := getattr(fields, name)) is not None}
    stop = rules.stops(fields.stop, "options.stop", caps)
    return Options(num_predict=num_predict, stop=stop, **sampling), num_predict, clamped


def _format(value: Any, caps: Caps) -> Raw | Unset:
    if value is None or value == "":
        return UNSET
    if isinstance(value, str):
        if value != "json":
            raise RequestError("format must be json or a JSON schema object", param="format")
        return rules.ANY_JSON
    return rules.schema(value, "format", caps)


def _message(fields: MessageFields, index: int, caps: Caps) -> Message:
    field = f"messages[{index}]"
    if fields.role in rules.COMMON_ROLES and not (fields.images or fields.tool_calls or fields.tool_name):
        # Most messages; what the other fields cost is not spent on them.
        return Message(
            role=fields.role,
            content=fields.content or "",
            thinking=fields.thinking or UNSET,
            tool_call_id=fields.tool_call_id or UNSET,
        )
    calls = fields.tool_calls or []
    rules.count_within(len(calls), caps.max_tool_calls, f"{field}.tool_calls")
    return Message(
        role=rules.role(fields.role, f"{field}.role"),
        content=fields.content or "",
        thinking=fields.thinking or UNSET,
        images=rules.images(fields.images, f"{field}.images") if fields.images else UNSET,
        tool_calls=[_tool_call(call, f"{field}.tool_calls[{number}]") for number, call in enumerate(calls)] or UNSET,
        tool_name=fields.tool_name or UNSET,
        tool_call_id=fields.tool_call_id or UNSET,
    )


def _tool_call(fields: ToolCallFields, field: str) -> ToolCall:
    function = fields.function or FunctionFields()
    return ToolCall(
        function=FunctionCall(
            name=rules.tool_name(function.name, f"{field}.function.name"),
            arguments=Raw(encoded(function.arguments or {})),
            index=UNSET if function.index is None else function.index,
        ),
        id=fields.id or UNSET,
    )
