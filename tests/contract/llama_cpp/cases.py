"""What both servers are asked. Requests differ only where a model of random weights needs help to follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.contract.llama_cpp.shapes import Kind
from tests.contract.llama_cpp.tiny import EOS_TOKEN, TOOL_CALL

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"

Fields = dict[str, Any]

_KINDS = {
    CHAT: (Kind.CHAT, Kind.CHAT_CHUNK),
    COMPLETIONS: (Kind.COMPLETION, Kind.COMPLETION_CHUNK),
    EMBEDDINGS: (Kind.EMBEDDINGS, Kind.EMBEDDINGS),
}
_TALKER, _THINKER, _EMBEDDER = "llama3.2", "qwen3:8b", "nomic-embed-text"


@dataclass(frozen=True)
class Case:
    """One request. ``ours`` and ``theirs`` are added to ``body`` for one of the two servers."""

    name: str
    path: str
    body: Fields
    model: str = _TALKER
    ours: Fields = field(default_factory=dict)
    theirs: Fields = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """What the frames of the answer are, unless it is refused."""
        whole, chunk = _KINDS[self.path]
        return chunk if self.streamed else whole

    @property
    def streamed(self) -> bool:
        """Whether the answer comes as a stream."""
        return bool(self.body.get("stream"))


_WEATHER: Fields = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Bonn", "Ulm"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
_PERSON: Fields = {
    "type": "object",
    "properties": {"name": {"type": "string", "enum": ["Ada", "Bob"]}, "adult": {"type": "boolean"}},
    "required": ["name", "adult"],
    "additionalProperties": False,
}
_NO_THINKING: Fields = {"temperature": 0, "chat_template_kwargs": {"enable_thinking": False}}
_THINKING: Fields = {"temperature": 0, "chat_template_kwargs": {"enable_thinking": True}}
# Random weights call no tool by themselves and end no reply: biases start the call and end the reply after it.
_CALLING: Fields = {**_NO_THINKING, "parallel_tool_calls": False, "logit_bias": [[TOOL_CALL, 100], [EOS_TOKEN, 100]]}

_STREAM: Fields = {"stream": True}
_STREAM_WITH_USAGE: Fields = {"stream": True, "stream_options": {"include_usage": True}}


def _chat(name: str, model: str = _TALKER, theirs: Fields = _NO_THINKING, **body: Any) -> Case:
    messages = [{"role": "user", "content": "Tell me of the person, or get_weather of the city"}]
    return Case(name, CHAT, {"messages": messages, "max_tokens": 6, "seed": 1, **body}, model=model, theirs=theirs)


def _completion(name: str, *, ours: Fields | None = None, theirs: Fields | None = None, **body: Any) -> Case:
    asked = {"prompt": "Once upon a time", "max_tokens": 6, "seed": 1, **body}
    return Case(name, COMPLETIONS, asked, ours=ours or {}, theirs={"temperature": 0, **(theirs or {})})


def _embedding(name: str, **body: Any) -> Case:
    return Case(name, EMBEDDINGS, body, model=_EMBEDDER)


_DOCUMENT: Fields = {
    "max_tokens": 400,
    "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": _PERSON}},
}
_CALL: Fields = {"max_tokens": 400, "tools": [_WEATHER], "tool_choice": "required"}

ANSWERED = (
    _chat("chat"),
    _chat("chat streamed", **_STREAM),
    _chat("chat streamed with usage", **_STREAM_WITH_USAGE),
    _chat("chat with logprobs", logprobs=True),
    _chat("chat with top logprobs", logprobs=True, top_logprobs=2),
    _chat("chat with top logprobs streamed", logprobs=True, top_logprobs=2, **_STREAM),
    _chat("chat with a document", **_DOCUMENT),
    _chat("chat with a document streamed", **_DOCUMENT, **_STREAM),
    # Only in a document is it certain that random weights ever write the stop sequence.
    _chat("chat stopped by a sequence", **_DOCUMENT, stop=['"adult"']),
    _chat("chat stopped by a sequence streamed", **_DOCUMENT, stop=['"adult"'], **_STREAM),
    _chat("chat with a tool", theirs=_CALLING, **_CALL),
    _chat("chat with a tool streamed", theirs=_CALLING, **_CALL, **_STREAM),
    _chat("chat with reasoning", model=_THINKER, theirs=_THINKING, reasoning_effort="high"),
    _chat("chat with reasoning streamed", model=_THINKER, theirs=_THINKING, reasoning_effort="high", **_STREAM),
    _completion("completion"),
    _completion("completion streamed", **_STREAM),
    _completion("completion streamed with usage", **_STREAM_WITH_USAGE),
    _completion("completion with logprobs", logprobs=2),
    _completion("completion with logprobs streamed", logprobs=2, **_STREAM),
    _completion(
        "completion stopped by a sequence",
        max_tokens=400,
        ours={"stop": [" "]},
        theirs={"json_schema": _PERSON, "stop": ['"adult"']},
    ),
    _embedding("embedding of one text", input="one"),
    _embedding("embedding of many texts", input=["one", "two"], encoding_format="float"),
    _embedding("embedding in base64", input=["one", "two"], encoding_format="base64"),
)

REFUSED = (
    Case("messages missing", CHAT, {}),
    Case("messages of another type", CHAT, {"messages": "hello"}),
    Case("a message that is no object", CHAT, {"messages": ["hello"]}),
    Case("prompt missing", COMPLETIONS, {}),
    Case("input missing", EMBEDDINGS, {}, model=_EMBEDDER),
    Case("no such path", "/v1/nothing", {}),
)

MODELS = "models"

KINDS: dict[str, Kind] = {
    **{case.name: case.kind for case in ANSWERED},
    **{case.name: Kind.ERROR for case in REFUSED},
    MODELS: Kind.MODELS,
}
