"""What Ollama answers to a request when nothing is scripted: every inference and reading route.

Order and wording of the checks: Ollama source server/routes.go ChatHandler, GenerateHandler, EmbedHandler,
EmbeddingsHandler, ShowHandler, ListHandler.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from deploy.mock_ollama import wire
from deploy.mock_ollama.catalogue import Catalogue, Model, show_answer, tags_entry
from deploy.mock_ollama.documents import SchemaError
from deploy.mock_ollama.embedding import EmbedError, embed, read_input, vector
from deploy.mock_ollama.frames import bare_answer, encode, generation_records, rendered_answer
from deploy.mock_ollama.framing import RawRequest
from deploy.mock_ollama.generation import generate
from deploy.mock_ollama.go_json import EmptyBodyError, GoJSONError
from deploy.mock_ollama.go_types import Struct, decode
from deploy.mock_ollama.inference import Inference, OptionError, read_inference, read_options
from deploy.mock_ollama.loaded import LoadedModels
from deploy.mock_ollama.names import ModelNameError, parse_ref
from deploy.mock_ollama.performance import Performance, stream, whole
from deploy.mock_ollama.settings import Settings

VERSION: Final = "0.33.1"
BODIES: Final[Mapping[str, Struct]] = {
    "/api/chat": wire.CHAT,
    "/api/generate": wire.GENERATE,
    "/api/embed": wire.EMBED,
    "/api/embeddings": wire.EMBEDDINGS,
    "/api/show": wire.SHOW,
}
_WARM_LOAD_NS: Final = 20_000_000
_MAX_CACHED: Final = 512
_MAX_CACHED_BODY_BYTES: Final = 64 * 1024
_NO_VISION: Final = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"


class OllamaError(Exception):
    """An error that Ollama answers with `status` and `{"error": …}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """The state of one Ollama server and its answers."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self.loaded = LoadedModels()
        self._catalogue = catalogue
        self._settings = settings
        self._inferences: dict[tuple[str, bytes], Inference] = {}
        self._records: dict[tuple[str, bytes, int], tuple[bytes, ...]] = {}
        self._routes: dict[str, Callable[[RawRequest], Performance]] = {
            "/api/chat": self._chat,
            "/api/generate": self._generate,
            "/api/embed": self._embed,
            "/api/embeddings": self._embeddings,
            "/api/show": self._show,
            "/api/tags": self._tags,
            "/api/ps": self._ps,
        }

    def __repr__(self) -> str:
        return f"Engine({self._catalogue!r}, {self.loaded!r})"

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def catalogue(self) -> Catalogue:
        """The models on offer."""
        return self._catalogue

    def change(self, *, settings: Settings | None = None, catalogue: Catalogue | None = None) -> None:
        """Put other settings or models in force."""
        self._settings = settings or self._settings
        self._catalogue = catalogue or self._catalogue
        self._inferences.clear()
        self._records.clear()

    def answer(self, request: RawRequest) -> Performance:
        """The honest reply to a request for one of the engine's routes."""
        try:
            return self._routes[request.path](request)
        except OllamaError as error:
            return whole(encode({"error": str(error)}), status=error.status)

    def _chat(self, request: RawRequest) -> Performance:
        return self._infer("chat", request)

    def _generate(self, request: RawRequest) -> Performance:
        return self._infer("generate", request)

    def _infer(self, kind: str, request: RawRequest) -> Performance:
        key = (kind, request.body)
        inference = self._inferences.get(key)
        if inference is None:
            inference = self._read_inference(kind, request)
            _remember(self._inferences, key, inference, request.body)
        if inference.is_empty and inference.keep_alive_s == 0:
            self.loaded.unload(inference.model)
            return whole(bare_answer(inference, "unload"))
        wait_s = self._load(inference.model, inference.options.runner, inference.keep_alive_s, shift=inference.shift)
        if inference.is_empty:
            reply = whole(bare_answer(inference, "load"))
        elif inference.renders_only:
            reply = whole(rendered_answer(inference))
        else:
            reply = self._say(key, inference, _WARM_LOAD_NS + int(wait_s * 1e9))
        return replace(reply, before_head_ms=wait_s * 1000)

    def _say(self, key: tuple[str, bytes], inference: Inference, load_duration_ns: int) -> Performance:
        full_key = (*key, load_duration_ns)
        records = self._records.get(full_key)
        if records is None:
            try:
                generation = generate(inference, self._settings)
            except SchemaError:
                raise OllamaError(500, _invalid_format(inference.format)) from None
            records = generation_records(inference, generation, load_duration_ns)
            _remember(self._records, full_key, records, key[1])
        if not inference.streams:
            return whole(records[0])
        return stream(records, record_delay_ms=self._settings.record_delay_ms)

    def _read_inference(self, kind: str, request: RawRequest) -> Inference:
        body = _decoded(request)
        if not 0 <= body.get("top_logprobs", 0) <= 20:
            raise OllamaError(400, "top_logprobs must be between 0 and 20")
        name = body.get("model", "")
        fallback = (400, "model is required") if kind == "chat" else (404, f"model '{name}' not found")
        model = self._find(name, fallback)
        if model is None:
            raise OllamaError(404, f"model '{name}' not found")
        if kind == "generate" and body.get("raw") and any(body.get(key) for key in ("template", "system", "context")):
            raise OllamaError(400, "raw mode does not support template, system, or context")
        _check_capabilities(kind, body, model)
        try:
            return read_inference(kind, body, model)
        except OptionError as error:
            raise OllamaError(500, str(error)) from None

    def _find(self, name: str, fallback: tuple[int, str]) -> Model | None:
        try:
            return self._catalogue.find(name)
        except ModelNameError as error:
            if error.known:
                raise OllamaError(400, str(error)) from None
            raise OllamaError(*fallback) from None

    def _load(
        self,
        model: Model,
        runner: tuple[tuple[str, object], ...],
        keep_alive_s: float | None,
        *,
        shift: bool = True,
    ) -> float:
        options = {"num_ctx": self._settings.default_num_ctx, "shift": shift, **dict(runner)}
        num_ctx = options["num_ctx"]
        return self.loaded.use(
            model,
            options,
            num_ctx=int(num_ctx) if isinstance(num_ctx, int | float) else 0,
            keep_alive_s=keep_alive_s,
            load_delay_s=self._settings.load_delay_ms / 1000,
            now_s=time.monotonic(),
        )

    def _embed(self, request: RawRequest) -> Performance:
        body = _decoded(request)
        name = body.get("model", "")
        try:
            read_input(body.get("input"))
            model = self._embedder(name, (404, f"model '{name}' not found"))
            wait_s = self._load(model, read_options(body.get("options") or {}).runner, body.get("keep_alive"))
            result = embed(body, model)
        except EmbedError as error:
            raise OllamaError(400, str(error)) from None
        except OptionError as error:
            raise OllamaError(500, str(error)) from None
        answer: dict[str, Any] = {"model": name, "embeddings": result.vectors}
        if result.vectors:
            load_ns = _WARM_LOAD_NS + int(wait_s * 1e9)
            answer |= {"total_duration": load_ns + 10_000_000, "load_duration": load_ns}
        if result.prompt_eval_count:
            answer["prompt_eval_count"] = result.prompt_eval_count
        return replace(whole(encode(answer)), before_head_ms=wait_s * 1000)

    def _embeddings(self, request: RawRequest) -> Performance:
        body = _decoded(request)
        model = self._embedder(body.get("model", ""), (400, "model is required"))
        try:
            wait_s = self._load(model, read_options(body.get("options") or {}).runner, body.get("keep_alive"))
        except OptionError as error:
            raise OllamaError(500, str(error)) from None
        values = vector(model, body["prompt"]) if body.get("prompt") else []
        return replace(whole(encode({"embedding": values})), before_head_ms=wait_s * 1000)

    def _embedder(self, name: str, fallback: tuple[int, str]) -> Model:
        model = self._find(name, fallback)
        if model is None:
            raise OllamaError(404, f'model "{name}" not found, try pulling it first')
        return model

    def _show(self, request: RawRequest) -> Performance:
        body = _decoded(request)
        name = body.get("model") or body.get("name") or ""
        model = self._find(name, (400, "model is required"))
        if model is None:
            raise OllamaError(404, f"model '{name}' not found")
        return whole(encode(show_answer(model)))

    def _tags(self, _request: RawRequest) -> Performance:
        return whole(encode({"models": [tags_entry(model) for model in self._catalogue.models]}))

    def _ps(self, _request: RawRequest) -> Performance:
        return whole(encode(self.loaded.answer(time.monotonic())))


def _remember[K, V](cache: dict[K, V], key: K, value: V, body: bytes) -> None:
    if len(cache) >= _MAX_CACHED:
        cache.clear()
    if len(body) <= _MAX_CACHED_BODY_BYTES:
        cache[key] = value


def _decoded(request: RawRequest) -> dict[str, Any]:
    try:
        return decode(request.body, BODIES[request.path])
    except EmptyBodyError:
        raise OllamaError(400, "missing request body") from None
    except GoJSONError as error:
        raise OllamaError(400, str(error)) from None


def _invalid_format(given: object) -> str:
    """The words for a bad `format` (Ollama source: llm/llama_server.go)."""
    return f'invalid format: {json.dumps(json.dumps(given))}; expected "json" or a valid JSON Schema object'


def _check_capabilities(kind: str, body: Mapping[str, Any], model: Model) -> None:
    """Refuse what the model cannot do (Ollama source: server/images.go CheckCapabilities)."""
    name = body.get("model", "")
    is_unload = not (body.get("messages") or body.get("prompt")) and body.get("keep_alive") == 0
    if is_unload:
        return
    if body.get("think") and not model.can("thinking"):
        raise OllamaError(400, f'"{name}" does not support thinking')
    if not model.can("completion"):
        raise OllamaError(400, f'"{name}" does not support {kind}')
    for field, capability in (("tools", "tools"), ("suffix", "insert")):
        if body.get(field) and not model.can(capability):
            raise OllamaError(400, f"{parse_ref(model.name).full_name} does not support {capability}")
    images = body.get("images") or any(turn.get("images") for turn in body.get("messages") or ())
    if images and not model.can("vision"):
        raise OllamaError(500, _NO_VISION)
