"""Bodies of the OpenAI dialect, translated to Ollama's native API.

The mapping is that of Ollama's own ``/v1`` layer (ollama ``openai/openai.go``, August 2026), so that a client may be
pointed from one to the other, with these differences:

- ``max_tokens`` and ``max_completion_tokens`` are one setting; of two values the smaller holds, because each is a limit
  that the client does not want exceeded. Ollama ignores the second.
- the parts of a message stay one message: texts joined by line breaks, images beside them.
- ``developer`` is ``system``; a tool's answer names its tool, found by the id of the call.
- ``tool_choice`` none drops the tools.

``temperature`` and ``top_p`` default to 1.0 as OpenAI documents and Ollama's layer sends, not to the model's own
defaults: an absent value means the same through the gateway as without it. Efforts beyond ``high`` are ``max``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from dataplane.api import rules
from dataplane.api.dialect import Caps, Parsed
from dataplane.api.openai import fields, messages
from dataplane.api.openai.chat import ChatRendering
from dataplane.api.openai.completions import CompletionRendering
from dataplane.api.openai.embeddings import EmbeddingRendering
from dataplane.api.strict_json import read_body
from dataplane.errors import RequestError
from dataplane.native import UNSET, ChatBody, EmbedBody, GenerateBody, Options, Raw, Think, Unset
from dataplane.values import InferenceRequest, Operation

DEFAULT_TEMPERATURE = 1.0
DEFAULT_TOP_P = 1.0

_EFFORTS: dict[str, Think] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "ultra": "max",
    "max": "max",
}


def chat(body: bytes, caps: Caps) -> Parsed:
    """``/v1/chat/completions``. Raises ``RequestError``, then ``ForbiddenError`` (see ``Endpoint``)."""
    read, dropped = read_body(body, fields.CHAT, fields.Chat)
    name = rules.model_name(read.model)
    if not read.messages:
        raise RequestError("messages must hold at least one message", param="messages")
    rules.count_within(len(read.messages), caps.max_messages, "messages")
    translated = messages.translated(read.messages, caps)
    images = rules.images_of(translated, caps)
    tools, tool_bytes = rules.tools(read.tools, "tools", caps) if read.tools else (UNSET, 0)
    if read.tool_choice == "none":
        tools, tool_bytes = UNSET, 0
    elif read.tool_choice not in (None, "auto"):
        dropped.add("tool_choice")
    if read.top_logprobs and not read.logprobs:
        raise RequestError("top_logprobs needs logprobs", param="top_logprobs")
    options, num_predict, clamped = _options(read, caps)
    native = ChatBody(
        messages=translated,
        options=options,
        format=_format(read.response_format, caps),
        tools=tools,
        think=_think(read),
        logprobs=True if read.logprobs else UNSET,
        top_logprobs=rules.top_logprobs(read.top_logprobs, "top_logprobs", caps),
    )
    request = InferenceRequest(
        operation=Operation.CHAT,
        model=name,
        canonical=rules.resolve(name),
        body=native,
        stream=read.stream is True,
        num_predict=num_predict,
        prompt_bytes=tool_bytes + sum(map(rules.message_bytes, translated)),
        messages=len(translated),
        images=images,
        doubles_output=native.format is not UNSET and native.think is not False,
        clamped=clamped,
        ignored=dropped.names,
        unknown_fields=dropped.unknown,
        assumed=_assumed(read),
    )
    return Parsed(request, partial(ChatRendering, name, request.stream, _wants_usage(read)))


def completions(body: bytes, caps: Caps) -> Parsed:
    """``/v1/completions``. Raises as ``chat`` does; prompts of token ids are refused, Ollama cannot take them."""
    read, dropped = read_body(body, fields.COMPLETIONS, fields.Completions)
    name = rules.model_name(read.model)
    prompt = _prompt(read.prompt)
    options, num_predict, clamped = _options(read, caps)
    native = GenerateBody(
        prompt=prompt,
        options=options,
        suffix=read.suffix or UNSET,
        logprobs=True if read.logprobs is not None else UNSET,
        top_logprobs=rules.top_logprobs(read.logprobs, "logprobs", caps),
    )
    request = InferenceRequest(
        operation=Operation.GENERATE,
        model=name,
        canonical=rules.resolve(name),
        body=native,
        stream=read.stream is True,
        num_predict=num_predict,
        prompt_bytes=rules.utf8_bytes(prompt) + rules.utf8_bytes(read.suffix),
        clamped=clamped,
        ignored=dropped.names,
        unknown_fields=dropped.unknown,
        assumed=_assumed(read),
    )
    return Parsed(request, partial(CompletionRendering, name, request.stream, _wants_usage(read)))


def embeddings(body: bytes, caps: Caps) -> Parsed:
    """``/v1/embeddings``. Raises as ``chat`` does; inputs of token ids are refused."""
    read, dropped = read_body(body, fields.EMBEDDINGS, fields.Embeddings)
    name = rules.model_name(read.model)
    if read.encoding_format not in (None, "float", "base64"):
        raise RequestError("encoding_format must be float or base64", param="encoding_format")
    native = EmbedBody(
        input=rules.inputs(_texts(read.input, "input"), "input", caps),
        dimensions=rules.dimensions(read.dimensions, caps),
    )
    request = rules.embedding_request(name, native, dropped)
    return Parsed(request, partial(EmbeddingRendering, name, read.encoding_format == "base64"))


def _options(read: fields.Chat | fields.Completions, caps: Caps) -> tuple[Options, int, bool]:
    older = rules.output_cap(read.max_tokens, "max_tokens", caps.max_num_predict)
    newer = rules.output_cap(read.max_completion_tokens, "max_completion_tokens", caps.max_num_predict)
    num_predict = min(older[0], newer[0])
    options = Options(
        num_predict=num_predict,
        temperature=DEFAULT_TEMPERATURE if read.temperature is None else read.temperature,
        top_p=DEFAULT_TOP_P if read.top_p is None else read.top_p,
        frequency_penalty=_given(read.frequency_penalty),
        presence_penalty=_given(read.presence_penalty),
        seed=_given(read.seed),
        stop=rules.stops(read.stop, "stop", caps),
    )
    # Clamped only when the cap is what holds, not when the other of the two fields asked for less.
    return options, num_predict, num_predict == caps.max_num_predict and (older[1] or newer[1])


def _assumed(read: fields.Chat | fields.Completions) -> tuple[str, ...]:
    if read.top_p is None:
        return ("temperature", "top_p") if read.temperature is None else ("top_p",)
    return ("temperature",) if read.temperature is None else ()


def _given[T](value: T | None) -> T | Unset:
    return UNSET if value is None else value


def _wants_usage(read: fields.Chat | fields.Completions) -> bool:
    return read.stream_options is not None and read.stream_options.include_usage is True


def _format(value: fields.ResponseFormat | None, caps: Caps) -> Raw | Unset:
    if value is None or value.type == "text":
        return UNSET
    if value.type == "json_object":
        return rules.ANY_JSON
    if value.type != "json_schema":
        raise RequestError("response_format.type must be text, json_object or json_schema", param="response_format")
    schema = value.json_schema.schema if value.json_schema is not None else None
    return rules.schema(schema, "response_format.json_schema.schema", caps)


def _think(read: fields.Chat) -> Think | Unset:
    effort = read.reasoning.effort if read.reasoning is not None else None
    if effort is None:
        effort = read.reasoning_effort
    if effort is None:
        return UNSET
    think = _EFFORTS.get(effort)
    if think is None:
        raise RequestError(f"reasoning_effort must be one of {', '.join(_EFFORTS)}", param="reasoning_effort")
    return think


def _prompt(value: Any) -> str:
    texts = _texts(value, "prompt")
    if texts is None or len(texts) != 1 or not texts[0]:
        raise RequestError("prompt must be one non-empty text", param="prompt")
    return texts[0]


def _texts(value: Any, field: str) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise RequestError(f"{field} must be a text or a list of texts; token ids are not supported", param=field)
