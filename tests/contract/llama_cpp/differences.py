"""What is known to differ between llama.cpp and us, and why that is right. Whatever is not listed here is a fault.

An entry that nothing needs any more is a fault too: the tests name it, and it goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.contract.llama_cpp.shapes import Difference, Kind, What

CHAT, CHAT_CHUNK, COMPLETION, COMPLETION_CHUNK = (
    Kind.CHAT, Kind.CHAT_CHUNK, Kind.COMPLETION, Kind.COMPLETION_CHUNK,
)  # fmt: skip
MISSING, ONLY_THEIRS, ONLY_OURS = What.MISSING, What.ONLY_THEIRS, What.ONLY_OURS
_TOKEN = "choices[].logprobs.content[]"

_TIMINGS = "speeds of the machine, llama.cpp's own; they would tell tenants about each other"
_CACHED = "OpenAI's, optional: Ollama does not say how much of a prompt was cached, and other tenants' prompts are"
_TOKEN_ID = "numbers of the model's vocabulary; Ollama does not tell them"
_REASONING = "OpenAI shows no reasoning: two names are in use, and ours is Ollama's, so that its clients find it"
_USAGE_UNASKED = "a stream of OpenAI's carries usage only when asked, in an event of its own; llama.cpp always adds it"
_LEGACY_LOGPROBS = "llama.cpp answers in the shape of chat; OpenAI's package knows the older one, which is ours"
_LISTING = "llama.cpp's own description of a model; `models` repeats the list as an Ollama client expects it"


@dataclass(frozen=True)
class Reason:
    """Why a difference is right, and where: only in these cases, or with none named in any."""

    text: str
    cases: tuple[str, ...] = ()


KNOWN: dict[Difference, Reason] = {
    **{Difference(kind, "timings", ONLY_THEIRS): Reason(_TIMINGS) for kind in (CHAT, CHAT_CHUNK, COMPLETION)},
    Difference(COMPLETION_CHUNK, "timings", ONLY_THEIRS): Reason(_TIMINGS),
    **{
        Difference(kind, "usage.prompt_tokens_details", MISSING): Reason(_CACHED)
        for kind in (CHAT, CHAT_CHUNK, COMPLETION, COMPLETION_CHUNK)
    },
    **{Difference(kind, f"{_TOKEN}.id", ONLY_THEIRS): Reason(_TOKEN_ID) for kind in (CHAT, CHAT_CHUNK)},
    **{Difference(kind, f"{_TOKEN}.top_logprobs[].id", ONLY_THEIRS): Reason(_TOKEN_ID) for kind in (CHAT, CHAT_CHUNK)},
    Difference(CHAT, f"{_TOKEN}.top_logprobs[]", MISSING): Reason(
        "llama.cpp lists alternatives unasked; OpenAI sends an empty list", cases=("chat with logprobs",)
    ),
    Difference(CHAT, "choices[].message.reasoning_content", ONLY_THEIRS): Reason(_REASONING),
    Difference(CHAT, "choices[].message.reasoning", ONLY_OURS): Reason(_REASONING),
    Difference(CHAT_CHUNK, "choices[].delta.reasoning_content", ONLY_THEIRS): Reason(_REASONING),
    Difference(CHAT_CHUNK, "choices[].delta.reasoning", ONLY_OURS): Reason(_REASONING),
    Difference(CHAT, "choices[].message.content", What.ONLY_NULL): Reason(
        "beside tool calls without a text OpenAI has null; llama.cpp has an empty text", cases=("chat with a tool",)
    ),
    Difference(COMPLETION, "choices[].logprobs.content", ONLY_THEIRS): Reason(_LEGACY_LOGPROBS),
    Difference(COMPLETION_CHUNK, "choices[].logprobs.content", ONLY_THEIRS): Reason(_LEGACY_LOGPROBS),
    Difference(COMPLETION_CHUNK, "usage", MISSING): Reason(
        _USAGE_UNASKED, cases=("completion streamed", "completion with logprobs streamed")
    ),
    Difference(Kind.EMBEDDINGS, "data[].encoding_format", ONLY_THEIRS): Reason(
        "the client knows what it asked for; OpenAI does not repeat it", cases=("embedding in base64",)
    ),
    **{
        Difference(Kind.MODELS, path, ONLY_THEIRS): Reason(_LISTING)
        for path in ("models", "data[].aliases", "data[].architecture", "data[].meta", "data[].tags")
    },
    Difference(Kind.ERROR, "error.code", What.OTHER_TYPE): Reason(
        "llama.cpp repeats the HTTP status; OpenAI has a word for programs, or null"
    ),
}


def undeclared(case: str, found: set[Difference]) -> set[Difference]:
    """What a case shows that is not known, or not known of this case."""
    return {each for each in found if each not in KNOWN or (KNOWN[each].cases and case not in KNOWN[each].cases)}


def unneeded(found: Mapping[str, set[Difference]]) -> set[tuple[Difference, str]]:
    """Entries of the table that no case shows, each with the case for which it is listed ('' for any)."""
    return {
        (known, case)
        for known, reason in KNOWN.items()
        for case in reason.cases or ("",)
        if not any(known in shown for name, shown in found.items() if case in ("", name))
    }


@dataclass(frozen=True)
class OtherStory:
    """Two streams that tell different things, and why that is right."""

    ours: list[str]
    theirs: list[str]
    reason: str


_THEIR_COMPLETION = ["content", "finish", "usage beside a choice", "[DONE]"]

# By the name of the case.
STORIES: dict[str, OtherStory] = {
    "completion streamed": OtherStory(["content", "finish", "[DONE]"], _THEIR_COMPLETION, _USAGE_UNASKED),
    "completion with logprobs streamed": OtherStory(["content", "finish", "[DONE]"], _THEIR_COMPLETION, _USAGE_UNASKED),
    "completion streamed with usage": OtherStory(
        ["content", "finish", "usage", "[DONE]"], _THEIR_COMPLETION, _USAGE_UNASKED
    ),
}

# Where OpenAI's package declares less than OpenAI's API: llama.cpp must break the same rule, or the entry is wrong.
SDK_GAPS: dict[tuple[Kind, str], str] = {
    (COMPLETION_CHUNK, "choices[].finish_reason"): "null until the last event; the package has one type for both",
    (Kind.EMBEDDINGS, "data[].embedding"): "a text in base64, which the package decodes before anybody sees it",
}
