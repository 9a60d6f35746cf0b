"""Rules that hold for a field whichever dialect it comes in. Each raises ``RequestError`` naming field and rule."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from dataplane.api import prompt_json, strict_json
from dataplane.api.dialect import Caps
from dataplane.errors import ForbiddenError, RequestError
from dataplane.native import UNSET, EmbedBody, Message, Raw, Think, Unset
from dataplane.values import InferenceRequest, Operation
from shared.modelname import CanonicalName, ModelNameError, canonical

# Bounds of options: far beyond sense, within what a backend converts and allocates without harm.
Real = Annotated[float, msgspec.Meta(ge=-1000.0, le=1000.0)]
Count = Annotated[int, msgspec.Meta(ge=-1, le=1_000_000)]
# The runner allocates a ring of this many tokens.
Window = Annotated[int, msgspec.Meta(ge=-1, le=65_536)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

THINK_LEVELS = ("low", "medium", "high", "max")
AS_MUCH_AS_ALLOWED = (-1, -2)
COMMON_ROLES = frozenset({"system", "user", "assistant", "tool"})
# The format that asks for any JSON value.
ANY_JSON = Raw(b'"json"')
MAX_TOOL_NAME_CHARACTERS = 256

# What a template puts around a tool and around a call, beside what it makes of their JSON.
_TOOL_MARKUP_BYTES = 128
_CALL_MARKUP_BYTES = 64
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9 ._-]{0,63}", re.ASCII)


def model_name(value: str | None) -> str:
    """The model as the client spells it; its grammar is the business of ``resolve``, after all other rules."""
    if not value:
        raise RequestError("model is required", param="model")
    return value


def resolve(name: str) -> CanonicalName:
    """The canonical name. Raises ``ForbiddenError``: what can be no model of ours is answered like a forbidden one."""
    try:
        return canonical(name)
    except ModelNameError as fault:
        raise ForbiddenError("model_not_allowed") from fault


def output_cap(value: Any, field: str, maximum: int) -> tuple[int, bool]:
    """``num_predict`` between 1 and ``maximum``, and whether it was lowered.

    Absent, null, -1 and -2 mean as much as allowed. Anything but an integer is refused, ``5.0`` too: Go would cut
    ``4096.9`` to 4096, and what a client meant by it is not ours to guess.
    """
    if value is None:
        return maximum, False
    if type(value) is not int or (value < 1 and value not in AS_MUCH_AS_ALLOWED):
        raise RequestError(f"{field} must be a whole number of at least 1, or -1 for as much as allowed", param=field)
    if value < 1:
        return maximum, False
    return min(value, maximum), value > maximum


def utf8_bytes(text: str | Unset | None) -> int:
    """The length of a text in UTF-8; 0 without one."""
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode())


def message_bytes(message: Message) -> int:
    """The most bytes that a message adds to a prompt, apart from the markup around it."""
    size = len(message.role) + utf8_bytes(message.content) + utf8_bytes(message.thinking)
    if message.tool_calls is not UNSET:
        for call in message.tool_calls:
            size += _CALL_MARKUP_BYTES + utf8_bytes(call.id) + utf8_bytes(call.function.name)
            size += prompt_json.most_bytes(bytes(call.function.arguments))
    return size + utf8_bytes(message.tool_name) + utf8_bytes(message.tool_call_id)


def role(value: str | None, field: str) -> str:
    """A role in lower case, as Ollama reads it. Some models have roles of their own (``control``, ``document 1``)."""
    if value in COMMON_ROLES:
        return value
    if value is None or _ROLE.fullmatch(value) is None:
        raise RequestError(f"{field} must be the name of a role", param=field)
    return value.lower()


def images(values: Sequence[str], field: str) -> list[str]:
    """Images as base64 in one spelling: padded, without line breaks."""
    return [image(value, f"{field}[{index}]") for index, value in enumerate(values)]


def image(value: str, field: str) -> str:
    """One image as base64."""
    text = value if value.isalnum() else value.replace("\n", "").replace("\r", "")
    try:
        # Strict, but not about padding behind what is complete without it.
        if len(text) % 4 or text.endswith("==="):
            raise binascii.Error("padding")
        empty = not binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as fault:
        raise RequestError(f"{field} must be base64", param=field) from fault
    if empty:
        raise RequestError(f"{field} must not be empty", param=field)
    return text


def images_of(messages: Sequence[Message], caps: Caps) -> int:
    """How many images the messages hold, within the cap."""
    count = sum(len(message.images) for message in messages if message.images is not UNSET)
    if count > caps.max_images:
        raise RequestError(f"messages may hold at most {caps.max_images} images", param="messages")
    return count


def count_within(count: int, maximum: int, field: str) -> None:
    """Refuses more of something than its cap."""
    if count > maximum:
        raise RequestError(f"{field} may have at most {maximum} elements", param=field)


def stops(value: list[str] | str | None, field: str, caps: Caps) -> list[str] | Unset:
    """Stop sequences; a single text counts as a list of one."""
    if value is None or value == []:
        return UNSET
    texts = [value] if isinstance(value, str) else value
    count_within(len(texts), caps.max_stops, field)
    for text in texts:
        if not text or utf8_bytes(text) > caps.max_stop_bytes:
            raise RequestError(f"{field} may hold texts of 1 to {caps.max_stop_bytes} bytes", param=field)
    return texts


def top_logprobs(value: int | None, field: str, caps: Caps) -> int | Unset:
    """How many alternatives to report per token."""
    if value is None:
        return UNSET
    if not 0 <= value <= caps.max_top_logprobs:
        raise RequestError(f"{field} must be between 0 and {caps.max_top_logprobs}", param=field)
    return value


def think(value: Any, field: str) -> Think | Unset:
    """Whether, or how much, to think."""
    if value is None:
        return UNSET
    if isinstance(value, bool):
        return value
    for level in THINK_LEVELS:
        if value == level:
            return level  # type: ignore[return-value]  # the loop runs over the literals of Think
    raise RequestError(f"{field} must be true, false, {', '.join(THINK_LEVELS)}", param=field)


def schema(value: Any, field: str, caps: Caps) -> Raw:
    """A JSON schema, re-encoded: bounded in depth and bytes, and without references that leave it."""
    if not isinstance(value, dict):
        raise RequestError(f"{field} must be a JSON schema object", param=field)
    _check_schema(value, field, caps)
    raw = strict_json.encoded(value)
    if len(raw) > caps.max_schema_bytes:
        raise RequestError(f"{field} may have at most {caps.max_schema_bytes} bytes", param=field)
    return Raw(raw)


def tools(values: Sequence[Tool], field: str, caps: Caps) -> tuple[Raw, int]:
    """Tool definitions, rebuilt, and the most bytes that they add to a prompt."""
    count_within(len(values), caps.max_tools, field)
    rebuilt = [_tool(value, f"{field}[{index}]") for index, value in enumerate(values)]
    raw = strict_json.encoded(rebuilt)
    return Raw(raw), prompt_json.most_bytes(raw) + _TOOL_MARKUP_BYTES * len(rebuilt)


def inputs(value: list[str] | str | None, field: str, caps: Caps) -> list[str]:
    """The texts of an embedding request: at least one, none empty (Ollama would load the model, or fail)."""
    texts = [value] if isinstance(value, str) else value
    if not texts or not all(texts):
        raise RequestError(f"{field} must be a non-empty text or a list of non-empty texts", param=field)
    count_within(len(texts), caps.max_inputs, field)
    return texts


def dimensions(value: int | None, caps: Caps) -> int | Unset:
    """The length of the embeddings, where a model can choose."""
    if value is None:
        return UNSET
    if not 1 <= value <= caps.max_dimensions:
        raise RequestError(f"dimensions must be between 1 and {caps.max_dimensions}", param="dimensions")
    return value


def embedding_request(name: str, body: EmbedBody, dropped: strict_json.Dropped) -> InferenceRequest:
    """An embedding request; each of its texts counts as a message, for the tokens that a model puts around it."""
    return InferenceRequest(
        operation=Operation.EMBED,
        model=name,
        canonical=resolve(name),
        body=body,
        stream=False,
        num_predict=0,
        prompt_bytes=sum(map(utf8_bytes, body.input)),
        messages=len(body.input),
        ignored=dropped.names,
        unknown_fields=dropped.unknown,
    )


class ToolFunction(msgspec.Struct, frozen=True):
    """What a tool does, as both dialects write it."""

    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool definition, as both dialects write it."""

    type: str | None = None
    function: ToolFunction | None = None


TOOL = strict_json.Closed(Tool, members={"function": strict_json.Closed(ToolFunction, ignored=("strict",))})


def _tool(value: Tool, field: str) -> dict[str, Any]:
    if value.type not in (None, "function"):
        raise RequestError(f"{field}.type must be function", param=f"{field}.type")
    if value.function is None:
        raise RequestError(f"{field}.function is required", param=f"{field}.function")
    function: dict[str, Any] = {"name": tool_name(value.function.name, f"{field}.function.name")}
    if value.function.description:
        function["description"] = value.function.description
    function["parameters"] = value.function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def tool_name(value: str | None, field: str) -> str:
    """The name of a tool: 1 to 256 printable characters."""
    if not value or len(value) > MAX_TOOL_NAME_CHARACTERS or not value.isprintable():
        raise RequestError(f"{field} must have 1 to {MAX_TOOL_NAME_CHARACTERS} printable characters", param=field)
    return value


def _check_schema(root: Any, field: str, caps: Caps) -> None:
    level = [root]
    for _ in range(caps.max_schema_depth):
        below: list[Any] = []
        for node in level:
            if type(node) is dict:
                _check_reference(node.get("$ref"), field)
                below += [child for child in node.values() if type(child) is dict or type(child) is list]
            else:
                below += [child for child in node if type(child) is dict or type(child) is list]
        if not below:
            return
        level = below
    raise RequestError(f"{field} may be nested at most {caps.max_schema_depth} levels deep", param=field)


def _check_reference(reference: Any, field: str) -> None:
    # A property may itself be called $ref; then its value is a schema and not a text.
    if isinstance(reference, str) and not reference.startswith("#"):
        raise RequestError(f"{field} may only refer to itself ($ref must start with #)", param=field)
