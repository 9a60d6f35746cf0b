"""An answer in the OpenAI dialect, whole or streamed, taken apart strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

EVENT_STREAM = "text/event-stream"
DONE = "[DONE]"

Frame = dict[str, Any]


class FramingError(ValueError):
    """Bytes that are no answer in the OpenAI dialect."""


@dataclass(frozen=True)
class Reply:
    """``frames`` is the one document of a whole answer, or what each event of a stream carries, without ``[DONE]``."""

    status: int
    media_type: str
    frames: tuple[Frame, ...]
    done: bool = False

    @property
    def streamed(self) -> bool:
        """Whether the answer came as server-sent events."""
        return self.media_type == EVENT_STREAM


def read_reply(status: int, content_type: str, body: bytes) -> Reply:
    """Takes a body apart. Raises FramingError for anything but one JSON object, or events of one ``data:`` line."""
    media_type = content_type.partition(";")[0].strip()
    if media_type != EVENT_STREAM:
        return Reply(status=status, media_type=media_type, frames=(_object(body.decode()),))
    *events, rest = body.decode().split("\n\n")
    if rest:
        raise FramingError(f"an event without its end: {rest!r}")
    data = [_data(event) for event in events]
    done = data[-1:] == [DONE]
    return Reply(status, media_type, tuple(_object(text) for text in (data[:-1] if done else data)), done=done)


def _data(event: str) -> str:
    if not event.startswith("data: ") or "\n" in event:
        raise FramingError(f"not one line of data: {event!r}")
    return event.removeprefix("data: ")


def _object(text: str) -> Frame:
    try:
        value = json.loads(text)
    except ValueError as fault:
        raise FramingError(f"not JSON: {text!r}") from fault
    if not isinstance(value, dict):
        raise FramingError(f"not an object: {text!r}")
    return value


def story(reply: Reply) -> list[str]:
    """What a stream tells, in order: ``role``, ``reasoning``, ``content``, ``tool_calls``, ``finish``, ``usage``.

    Repetitions count once, and what one event carries is listed in the order above: how an answer is cut into events
    is the business of each server, the order of what it says is not.
    """
    told: list[str] = []
    for frame in reply.frames:
        for word in _words(frame):
            if told[-1:] != [word]:
                told.append(word)
    return told + [DONE] * reply.done


def _words(frame: Frame) -> list[str]:
    words = []
    for choice in frame["choices"]:
        delta = choice.get("delta", {"content": choice.get("text")})
        carried = {
            "role": delta.get("role"),
            "reasoning": delta.get("reasoning") or delta.get("reasoning_content"),
            "content": delta.get("content"),
            "tool_calls": delta.get("tool_calls"),
            "finish": choice["finish_reason"],
        }
        words += [word for word, value in carried.items() if value]
    # An event of usage alone, as OpenAI sends it, is told apart from usage beside something else.
    if frame.get("usage"):
        words.append("usage" if not frame["choices"] else "usage beside a choice")
    return words
