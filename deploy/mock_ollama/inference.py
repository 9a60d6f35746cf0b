"""One chat or generate request as values: what the mock model is asked to do.

Rules of validation: Ollama source server/routes.go ChatHandler, GenerateHandler; api/types.go Options.FromMap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from deploy.mock_ollama.catalogue import Model

_INTEGERS: Final = (
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict",
    "num_keep", "seed", "num_predict", "top_k", "repeat_last_n",
)  # fmt: skip
_FLOATS: Final = (
    "top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip
_RUNNER: Final = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict")


class OptionError(ValueError):
    """An option of the wrong type; Ollama answers it with 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options that change what the mock answers; `runner` are those that a loaded model cannot change."""

    num_predict: int
    num_ctx: int
    seed: int
    stop: tuple[str, ...]
    runner: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of the conversation."""

    role: str
    content: str
    image_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """A chat or generate request for a known model."""

    kind: str
    requested_model: str
    model: Model
    messages: tuple[Message, ...]
    is_empty: bool
    streams: bool
    format: object
    think: bool | str
    tools: tuple[dict[str, Any], ...]
    options: Options
    keep_alive_s: float | None
    raw: bool
    shift: bool
    renders_only: bool
    top_logprobs: int | None

    @property
    def image_count(self) -> int:
        """Images of all turns."""
        return sum(message.image_count for message in self.messages)

    @property
    def rendered(self) -> str:
        """The prompt after a simple chat template."""
        tools = "".join(str(tool) for tool in self.tools)
        if self.raw:
            return self.messages[-1].content
        return (
            tools + "".join(f"<|{message.role}|>\n{message.content}\n" for message in self.messages) + "<|assistant|>"
        )


def read_options(options: Mapping[str, object]) -> Options:
    """Options with Ollama's defaults; unknown keys are ignored; raises OptionError for a wrong type."""
    for key in _INTEGERS:
        if not _is_number(options.get(key, 0)):
            raise OptionError(f'option "{key}" must be of type integer')
    for key in _FLOATS:
        if not _is_number(options.get(key, 0.0)):
            raise OptionError(f'option "{key}" must be of type float32')
    if not isinstance(options.get("use_mmap"), bool | None):
        raise OptionError('option "use_mmap" must be of type boolean')
    stop = options.get("stop")
    if not isinstance(stop, list | None):
        raise OptionError('option "stop" must be of type array')
    if not all(isinstance(item, str) for item in stop or ()):
        raise OptionError('option "stop" must be of an array of strings')
    return Options(
        num_predict=_integer(options, "num_predict", -1),
        num_ctx=_integer(options, "num_ctx", 0),
        seed=_integer(options, "seed", 0),
        stop=tuple(stop or ()),
        runner=tuple((key, options[key]) for key in _RUNNER if options.get(key) is not None),
    )


def read_inference(kind: str, body: Mapping[str, Any], model: Model) -> Inference:
    """Build the values of a decoded `/api/chat` (kind "chat") or `/api/generate` body; raises OptionError."""
    messages = _chat_messages(body, model) if kind == "chat" else _generate_messages(body, model)
    think = body.get("think")
    return Inference(
        kind=kind,
        requested_model=body.get("model", ""),
        model=model,
        messages=messages,
        is_empty=not body.get("messages") if kind == "chat" else not body.get("prompt"),
        streams=body.get("stream", True),
        format=None if body.get("format") == "" else body.get("format"),
        think=model.can("thinking") if think is None else cast("bool | str", think),
        tools=tuple(body.get("tools") or ()),
        options=read_options(body.get("options") or {}),
        keep_alive_s=body.get("keep_alive"),
        raw=body.get("raw", False),
        shift=body.get("shift", True),
        renders_only=body.get("_debug_render_only", False),
        top_logprobs=body.get("top_logprobs", 0) if body.get("logprobs") else None,
    )


def _chat_messages(body: Mapping[str, Any], model: Model) -> tuple[Message, ...]:
    turns = [
        Message(role=turn.get("role", ""), content=turn.get("content", ""), image_count=len(turn.get("images") or ()))
        for turn in body.get("messages") or ()
    ]
    if turns and turns[0].role != "system" and model.system:
        turns.insert(0, Message(role="system", content=model.system))
    return tuple(turns)


def _generate_messages(body: Mapping[str, Any], model: Model) -> tuple[Message, ...]:
    user = Message(
        role="user",
        content=body.get("prompt", "") + body.get("suffix", ""),
        image_count=len(body.get("images") or ()),
    )
    system = body.get("system") or model.system
    if body.get("raw") or not system:
        return (user,)
    return Message(role="system", content=system), user


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _integer(options: Mapping[str, object], key: str, default: int) -> int:
    value = options.get(key)
    return int(value) if isinstance(value, int | float) else default
