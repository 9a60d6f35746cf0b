"""What is read of the bodies of the OpenAI dialect, and which fields are known and ignored.

Null counts as absent. Source: OpenAI's API reference, as the types of its Python package state it (3.52, November
2026), and what ollama ``openai/openai.go`` reads beside it (``reasoning``, ``reasoning_effort``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from dataplane.api import rules
from dataplane.api.strict_json import Closed

# Means nothing to Ollama, or is not for clients to decide. Ollama drops these without a word.
IGNORED_EVERYWHERE = (
    "n", "user", "logit_bias", "metadata", "keep_alive", "num_ctx", "options", "store", "service_tier",
    "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "moderation", "safety_identifier",
    "_debug_render_only",
)  # fmt: skip
IGNORED_CHAT = (
    *IGNORED_EVERYWHERE, "parallel_tool_calls", "functions", "function_call", "modalities", "audio",
    "prediction", "verbosity", "web_search_options",
)  # fmt: skip
IGNORED_COMPLETIONS = (*IGNORED_EVERYWHERE, "best_of", "echo")
IGNORED_MESSAGE = ("refusal", "annotations", "audio", "function_call")


class ImageURL(msgspec.Struct, frozen=True):
    """``image_url`` of a content part."""

    url: str | None = None
    detail: str | None = None


class Part(msgspec.Struct, frozen=True):
    """A part of a message's content."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: ImageURL | str | None = None


class Function(msgspec.Struct, frozen=True):
    """The function of a tool call; arguments are a text that holds JSON."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call of an earlier answer."""

    id: str | None = None
    type: str | None = None
    index: int | None = None
    function: Function | None = None


class Message(msgspec.Struct, frozen=True):
    """A message. ``reasoning`` (or ``reasoning_content``, as other servers call it) is a model's earlier thinking."""

    role: str | None = None
    content: list[Part] | str | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Schema(msgspec.Struct, frozen=True):
    """``json_schema`` of a response format."""

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    schema: dict[str, Any] | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """``response_format``."""

    type: str | None = None
    json_schema: Schema | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    """``stream_options``."""

    include_usage: bool | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """``reasoning``."""

    effort: str | None = None


class Chat(msgspec.Struct, frozen=True):
    """``POST /v1/chat/completions``."""

    model: str | None = None
    messages: list[Message] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    temperature: rules.Real | None = None
    top_p: rules.Real | None = None
    frequency_penalty: rules.Real | None = None
    presence_penalty: rules.Real | None = None
    seed: rules.Seed | None = None
    stop: list[str] | str | None = None
    response_format: ResponseFormat | None = None
    tools: list[rules.Tool] | None = None
    # Only "none" can be honoured: without tools nothing is called.
    tool_choice: dict[str, Any] | str | None = None
    reasoning_effort: str | None = None
    reasoning: Reasoning | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class Completions(msgspec.Struct, frozen=True):
    """``POST /v1/completions``."""

    model: str | None = None
    prompt: Any = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    temperature: rules.Real | None = None
    top_p: rules.Real | None = None
    frequency_penalty: rules.Real | None = None
    presence_penalty: rules.Real | None = None
    seed: rules.Seed | None = None
    stop: list[str] | str | None = None
    logprobs: int | None = None


class Embeddings(msgspec.Struct, frozen=True):
    """``POST /v1/embeddings``."""

    model: str | None = None
    input: Any = None
    dimensions: int | None = None
    encoding_format: str | None = None


_TOOL_CALL = Closed(ToolCall, members={"function": Closed(Function)})
_PART = Closed(Part, members={"image_url": Closed(ImageURL)})
_MESSAGE = Closed(Message, ignored=IGNORED_MESSAGE, members={"content": _PART, "tool_calls": _TOOL_CALL})
_STREAM_OPTIONS = Closed(StreamOptions, ignored=("include_obfuscation",))

CHAT = Closed(
    Chat,
    ignored=IGNORED_CHAT,
    members={
        "messages": _MESSAGE,
        "tools": rules.TOOL,
        "response_format": Closed(ResponseFormat, members={"json_schema": Closed(Schema)}),
        "stream_options": _STREAM_OPTIONS,
        "reasoning": Closed(Reasoning, ignored=("summary", "generate_summary")),
    },
)
COMPLETIONS = Closed(Completions, ignored=IGNORED_COMPLETIONS, members={"stream_options": _STREAM_OPTIONS})
EMBEDDINGS = Closed(Embeddings, ignored=IGNORED_EVERYWHERE)
