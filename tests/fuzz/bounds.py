"""How much may be sent: the caps of a request, held against the bytes that Ollama would get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from dataplane.api.dialect import Caps
from tests.fuzz.shapes import depth

# Least and most of each option; what a backend converts and allocates without harm.
OPTIONS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("top_p", "min_p", "typical_p", "temperature", "repeat_penalty"), (-1000.0, 1000.0)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty"), (-1000.0, 1000.0)),
    **dict.fromkeys(("num_keep", "top_k"), (-1, 1_000_000)),
    "repeat_last_n": (-1, 65_536),
    "seed": (-(2**63), 2**63),
}


def exceeded(document: Any, caps: Caps) -> Iterator[str]:
    """Which bounds a request that is sent exceeds."""
    messages = document.get("messages", ())
    images = [*document.get("images", ()), *(image for message in messages for image in message.get("images", ()))]
    stops = document.get("options", {}).get("stop", ())
    counts = {
        "messages": (len(messages), caps.max_messages),
        "images": (len(images), caps.max_images),
        "inputs": (len(document.get("input", ())), caps.max_inputs),
        "stops": (len(stops), caps.max_stops),
        "bytes of a stop": (max((len(stop.encode()) for stop in stops), default=0), caps.max_stop_bytes),
        "tools": (len(document.get("tools", ())), caps.max_tools),
        "calls": (max((len(message.get("tool_calls", ())) for message in messages), default=0), caps.max_tool_calls),
        "alternatives": (document.get("top_logprobs", 0), caps.max_top_logprobs),
        "dimensions": (document.get("dimensions", 1), caps.max_dimensions),
    }
    form = document.get("format")
    if isinstance(form, dict):
        counts["levels of a schema"] = (depth(form), caps.max_schema_depth)
        counts["bytes of a schema"] = (len(msgspec.json.encode(form)), caps.max_schema_bytes)
    yield from (f"{count} {name}, at most {most}" for name, (count, most) in counts.items() if count > most)
    for name, (least, most) in OPTIONS.items():
        value = document.get("options", {}).get(name)
        if value is not None and not least <= value <= most:
            yield f"{name} is {value}"
