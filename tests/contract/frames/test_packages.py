"""The real ``openai`` and ``ollama`` packages against the dialects, without a socket: a transport parses the body that
the package wrote and answers what the rendering says."""

import json
from typing import Any

import httpx
import httpx2
import ollama
import openai
import pytest

from dataplane.api import problems
from dataplane.errors import GatewayError, LimitExceededError, StreamBrokenError
from dataplane.native import Record
from dataplane.values import Dialect, Operation
from tests.contract.frames.samples import LOGPROBS, chat, embedded, generated, tool_call
from tests.unit.api.endpoints import CAPS, ENDPOINTS
from tests.unit.api.test_requests import PNG, native

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "tells", "parameters": SCHEMA}}


class Exchange:
    """Answers requests by the dialects; ``fault`` breaks a stream or refuses a request."""

    def __init__(self, *records: Record, fault: GatewayError | None = None) -> None:
        self.records = list(records)
        self.fault = fault
        self.parsed: Any = None

    def answer(self, request: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        endpoint = ENDPOINTS[request.url.path]
        try:
            self.parsed = endpoint.parse(request.content, CAPS)
            if isinstance(self.fault, LimitExceededError):
                raise self.fault
        except GatewayError as error:
            problem = problems.render(error, endpoint.dialect, "r1")
            return problem.status, problem.headers, problem.body
        reply = self.parsed.rendering("r1", 1_700_000_000)
        if self.parsed.request.operation is Operation.EMBED:
            body = reply.whole(embedded([0.5, -1.0], [0.25, 2.0]))
        elif reply.stream:
            body = reply.batch(self.records) + (b"" if self.fault is None else reply.broken(self.fault))
        else:
            body = reply.whole(self.records)
        return 200, [(b"content-type", reply.content_type)], body

    @property
    def sent(self) -> Any:
        return native(self.parsed)

    def openai(self) -> Any:
        def handle(request: httpx2.Request) -> httpx2.Response:
            status, headers, body = self.answer(request)
            return httpx2.Response(status, headers=headers, content=body)

        client = httpx2.Client(transport=httpx2.MockTransport(handle))
        return openai.OpenAI(base_url="http://gateway/v1", api_key="nz_x", http_client=client, max_retries=0)

    def ollama(self) -> Any:
        def handle(request: httpx.Request) -> httpx.Response:
            status, headers, body = self.answer(request)
            return httpx.Response(status, headers=headers, content=body)

        return ollama.Client(host="http://gateway", transport=httpx.MockTransport(handle))


def test_openai_chat_whole_with_everything():
    exchange = Exchange(
        chat(thinking="hm"), chat("Hé", logprobs=LOGPROBS), chat(tool_calls=[tool_call()]), chat(final=True)
    )
    with exchange.openai() as client:
        completion = client.chat.completions.create(
            model="llama3",
            messages=[
                {"role": "developer", "content": "s"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "see"},
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    ],
                },
            ],
            tools=[TOOL],
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}},
            reasoning_effort="low",
            logprobs=True,
            top_logprobs=1,
            max_completion_tokens=10,
            stop=["x"],
            seed=3,
            temperature=0.1,
        )
    assert exchange.sent["options"] == {"num_predict": 10, "seed": 3, "stop": ["x"], "temperature": 0.1, "top_p": 1.0}
    assert exchange.sent["tools"] == [TOOL]
    assert exchange.sent["format"] == SCHEMA
    assert exchange.parsed.request.unknown_fields == 0
    choice = completion.choices[0]
    assert choice.message.content == "Hé"
    assert choice.message.model_extra == {"reasoning": "hm"}
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Zürich"}
    assert choice.finish_reason == "tool_calls"
    assert choice.logprobs.content[0].top_logprobs[0].bytes == [72, 101]
    assert completion.usage.total_tokens == 308


def test_openai_answers_may_be_sent_back():
    exchange = Exchange(chat(tool_calls=[tool_call()]), chat(final=True))
    with exchange.openai() as client:
        message = (
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}]).choices[0].message
        )
        call = message.tool_calls[0]
        client.chat.completions.create(
            model="m", messages=[message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
        )
    assert exchange.sent["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": call.id, "function": {"name": "weather", "arguments": {"city": "Zürich"}}}],
        },
        {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": call.id},
    ]


def test_openai_chat_stream_with_usage():
    exchange = Exchange(chat("a"), chat("b"), chat(final=True))
    with exchange.openai() as client:
        chunks = list(
            client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "x"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "ab"
    assert chunks[-1].usage.completion_tokens == 282


def test_openai_stream_helper_accumulates_tool_calls():
    exchange = Exchange(chat("a"), chat(tool_calls=[tool_call("weather"), tool_call("time", {})]), chat(final=True))
    with (
        exchange.openai() as client,
        client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "x"}]) as stream,
    ):
        message = stream.get_final_completion().choices[0].message
    assert message.content == "a"
    assert [call.function.arguments for call in message.tool_calls] == ['{"city":"Zürich"}', "{}"]


def test_openai_sees_a_broken_stream_as_an_error():
    exchange = Exchange(chat("a"), fault=StreamBrokenError("canary"))
    with exchange.openai() as client, pytest.raises(openai.APIError, match="upstream interrupted"):
        list(client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True))


def test_openai_legacy_completions():
    exchange = Exchange(generated("a", logprobs=LOGPROBS), generated("b", final=True))
    with exchange.openai() as client:
        whole = client.completions.create(model="m", prompt="x", logprobs=1)
        chunks = list(client.completions.create(model="m", prompt=["x"], stream=True))
    assert whole.choices[0].text == "ab"
    assert whole.choices[0].logprobs.tokens == ["Hé", "!"]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "ab"


def test_openai_embeddings_in_both_encodings():
    exchange = Exchange()
    with exchange.openai() as client:
        for fields in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            reply = client.embeddings.create(model="m", input=["a", "b"], dimensions=2, **fields)
            if fields.get("encoding_format") != "base64":
                assert [item.embedding for item in reply.data] == [[0.5, -1.0], [0.25, 2.0]]
            assert reply.usage.total_tokens == 8
    assert exchange.sent == {"input": ["a", "b"], "dimensions": 2}


@pytest.mark.parametrize(
    ("model", "fault", "kind"),
    [
        ("m:cloud", None, openai.PermissionDeniedError),
        ("", None, openai.BadRequestError),
        ("m", LimitExceededError("budget_day", retry_after_s=9, exhausted=True), openai.RateLimitError),
    ],
)
def test_openai_raises_its_own_errors(model, fault, kind):
    with Exchange(fault=fault).openai() as client, pytest.raises(kind) as raised:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
    if fault is not None:
        assert raised.value.code == raised.value.type == "insufficient_quota"


def test_ollama_chat_whole_and_streamed():
    exchange = Exchange(
        chat(thinking="hm"), chat("Hé", logprobs=LOGPROBS), chat(tool_calls=[tool_call()]), chat(final=True)
    )

    def weather(city: str) -> str:
        """Tells the weather.

        Args:
            city: where
        """
        return city

    client = exchange.ollama()
    fields = {
        "model": "llama3",
        "messages": [{"role": "user", "content": "x", "images": [PNG]}],
        "tools": [weather],
        "think": "high",
        "format": SCHEMA,
        "options": ollama.Options(num_predict=5, temperature=0.5, stop=["a"], num_ctx=9),
        "keep_alive": "1h",
        "logprobs": True,
        "top_logprobs": 1,
    }
    whole = client.chat(**fields)
    assert whole.message.content == "Hé"
    assert whole.message.thinking == "hm"
    assert whole.message.tool_calls[0].function.arguments == {"city": "Zürich"}
    assert whole.logprobs[0].token == "Hé"
    assert whole.eval_count == 282
    assert exchange.sent["options"] == {"num_predict": 5, "temperature": 0.5, "stop": ["a"]}
    assert exchange.sent["tools"][0]["function"]["parameters"]["properties"]["city"]["type"] == "string"
    assert exchange.parsed.request.ignored == ("keep_alive", "num_ctx")
    assert exchange.parsed.request.unknown_fields == 0
    parts = list(client.chat(**fields, stream=True))
    assert [part.done for part in parts] == [False, False, False, True]
    client.chat(
        model="llama3", messages=[parts[2].message, {"role": "tool", "content": "rain", "tool_name": "weather"}]
    )
    assert exchange.sent["messages"][0]["tool_calls"][0]["function"]["name"] == "weather"


def test_ollama_generate_embed_and_embeddings():
    exchange = Exchange(generated("a"), generated("b", final=True))
    client = exchange.ollama()
    assert client.generate(model="m", prompt="x", suffix="y", system="s").response == "ab"
    assert "".join(part.response for part in client.generate(model="m", prompt="x", stream=True)) == "ab"
    assert client.embed(model="m", input=["a", "b"]).embeddings == [[0.5, -1.0], [0.25, 2.0]]
    assert client.embeddings(model="m", prompt="a").embedding == [0.5, -1.0]


def test_ollama_raises_its_own_errors():
    with pytest.raises(ollama.ResponseError, match="not permitted") as raised:
        Exchange().ollama().chat(model="m:cloud", messages=[{"role": "user", "content": "x"}])
    assert raised.value.status_code == 403
    broken = Exchange(chat("a"), fault=StreamBrokenError("canary")).ollama()
    with pytest.raises(ollama.ResponseError, match="upstream interrupted"):
        list(broken.chat(model="m", messages=[{"role": "user", "content": "x"}], stream=True))


def test_every_endpoint_speaks_the_dialect_of_its_path():
    for name, endpoint in ENDPOINTS.items():
        assert endpoint.dialect is (Dialect.OPENAI if name.startswith("/v1/") else Dialect.OLLAMA)
