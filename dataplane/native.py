"""Ollama's native API as closed structs: what is sent upstream and what is believed of the answers.

Requests of every dialect become one of the three bodies; nothing else of a request travels upstream. Answers are read
into ``Record`` and ``EmbedReply``; fields that are not here (``remote_host``, ``context``, ``_debug_info``, …) are
dropped. Source of names and types: ollama ``api/types.go``, August 2026.

May import ``shared`` and msgspec only.
"""

from __future__ import annotations

from typing import Any, Literal, final

import msgspec

UNSET = msgspec.UNSET
Unset = msgspec.UnsetType
Raw = msgspec.Raw
Think = bool | Literal["low", "medium", "high", "max"]


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Sampling options. Runner options come from the model's policy, never from a client."""

    num_predict: int | Unset = UNSET
    num_ctx: int | Unset = UNSET
    num_keep: int | Unset = UNSET
    seed: int | Unset = UNSET
    top_k: int | Unset = UNSET
    top_p: float | Unset = UNSET
    min_p: float | Unset = UNSET
    typical_p: float | Unset = UNSET
    repeat_last_n: int | Unset = UNSET
    temperature: float | Unset = UNSET
    repeat_penalty: float | Unset = UNSET
    presence_penalty: float | Unset = UNSET
    frequency_penalty: float | Unset = UNSET
    stop: list[str] | Unset = UNSET


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A tool call's function; arguments are a JSON object, kept as bytes."""

    name: str
    arguments: Raw
    index: int | Unset = UNSET


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A tool call, in requests and in answers."""

    function: FunctionCall
    id: str | Unset = UNSET


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A chat message, in requests and in answers."""

    role: str
    # Written always: Ollama's own frames carry an empty content.
    content: str | Unset = UNSET
    thinking: str | Unset = UNSET
    images: list[str] | Unset = UNSET
    tool_calls: list[ToolCall] | Unset = UNSET
    tool_name: str | Unset = UNSET
    tool_call_id: str | Unset = UNSET


@final
class ChatBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``POST /api/chat``."""

    messages: list[Message]
    options: Options
    model: str = ""
    stream: Literal[True] | Unset = UNSET
    format: Raw | Unset = UNSET
    tools: Raw | Unset = UNSET
    think: Think | Unset = UNSET
    keep_alive: str | Unset = UNSET
    logprobs: bool | Unset = UNSET
    top_logprobs: int | Unset = UNSET


@final
class GenerateBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``POST /api/generate``."""

    prompt: str
    options: Options
    model: str = ""
    suffix: str | Unset = UNSET
    system: str | Unset = UNSET
    images: list[str] | Unset = UNSET
    stream: Literal[True] | Unset = UNSET
    format: Raw | Unset = UNSET
    think: Think | Unset = UNSET
    keep_alive: str | Unset = UNSET
    logprobs: bool | Unset = UNSET
    top_logprobs: int | Unset = UNSET


@final
class EmbedBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``POST /api/embed``; ``/api/embeddings`` and ``/v1/embeddings`` become this too."""

    input: list[str]
    model: str = ""
    truncate: bool | Unset = UNSET
    dimensions: int | Unset = UNSET
    options: Options | Unset = UNSET
    keep_alive: str | Unset = UNSET


Body = ChatBody | GenerateBody | EmbedBody


@final
class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One line of a chat or generate stream. Counts are whatever the backend wrote: the meter judges them."""

    created_at: str = ""
    message: Message | Unset = UNSET
    response: str | Unset = UNSET
    thinking: str | Unset = UNSET
    tool_calls: list[ToolCall] | Unset = UNSET
    logprobs: Raw | Unset = UNSET
    done: bool = False
    done_reason: str | Unset = UNSET
    total_duration: Any = UNSET
    load_duration: Any = UNSET
    prompt_eval_count: Any = UNSET
    prompt_eval_duration: Any = UNSET
    eval_count: Any = UNSET
    eval_duration: Any = UNSET
    # Present and of any type: the backend failed; its text never reaches a client.
    error: Any = UNSET


@final
class EmbedReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The answer of ``/api/embed``."""

    embeddings: list[list[float]]
    total_duration: Any = UNSET
    load_duration: Any = UNSET
    prompt_eval_count: Any = UNSET
