"""What a model can do, from what discovery knows of it: so that the gateway can answer 400 in its own words.

Ollama refuses such requests itself, with texts that name the model and its template; they are never passed on. Where
nothing is known (no capabilities were reported), nothing is refused here. Source of names: ollama
``types/model/capability.go``, August 2026.
"""

from __future__ import annotations

from dataplane.native import UNSET, ChatBody, EmbedBody, GenerateBody
from dataplane.values import InferenceRequest
from shared.records import ModelRecord


def unsupported(request: InferenceRequest, model: ModelRecord) -> str | None:
    """Why the model cannot answer the request, in words for the client; None when it can, or when it is not known.

    ``think`` false is supported by every model; embeddings too, as far as Ollama is concerned.
    """
    known = model.capabilities
    body = request.body
    if not known or type(body) is EmbedBody:
        return None
    missing = "this model does not support "
    if "completion" not in known:
        return missing + "generating text"
    if type(body) is ChatBody and body.tools is not UNSET and "tools" not in known:
        return missing + "tools"
    if type(body) is GenerateBody and body.suffix is not UNSET and "insert" not in known:
        return missing + "a suffix"
    if body.think and "thinking" not in known:
        return missing + "thinking"
    # Audio rides in the same field.
    if request.images and "vision" not in known and "audio" not in known:
        return missing + "images"
    return None


def doubles_output(request: InferenceRequest, model: ModelRecord) -> bool:
    """Whether Ollama generates twice: a format is asked of a model that thinks, or might for all that is known."""
    return request.doubles_output and (not model.capabilities or "thinking" in model.capabilities)
