"""The real ollama client is content with the mock."""

import ollama
import pytest


@pytest.fixture
def sdk(mock):
    return ollama.AsyncClient(host=mock.url)


@pytest.fixture(autouse=True)
async def _closed(sdk):
    yield
    await sdk._client.aclose()


async def test_chat_streams_and_ends_with_counts(sdk):
    messages = [{"role": "user", "content": "hi"}]
    parts = [part async for part in await sdk.chat("llama3.2", messages, stream=True)]
    assert parts[-1].done
    assert parts[-1].eval_count == len(parts) - 1
    whole = await sdk.chat("llama3.2", messages)
    assert whole.message.content == "".join(part.message.content for part in parts)
    assert whole.done_reason == "stop"


async def test_chat_with_thinking_tools_and_format(sdk):
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    messages = [{"role": "user", "content": "add 1 and 2"}]
    answer = await sdk.chat("qwen3:8b", messages, tools=[add], think=True)
    call = answer.message.tool_calls[0]
    assert call.function.name == "add"
    assert set(call.function.arguments) == {"a", "b"}
    assert answer.message.thinking
    assert (await sdk.chat("llama3.2", messages, format="json")).message.content.startswith("{")


async def test_generate_embed_and_embeddings(sdk):
    assert (await sdk.generate("llama3.2", "hi")).response
    parts = [part async for part in await sdk.generate("llama3.2", "hi", stream=True, logprobs=True, top_logprobs=2)]
    assert len(parts[0].logprobs[0].top_logprobs) == 2
    assert parts[-1].context
    assert len((await sdk.embed("nomic-embed-text", ["a", "b"])).embeddings) == 2
    assert len((await sdk.embeddings("nomic-embed-text", "a")).embedding) == 768


async def test_show_list_and_ps(sdk):
    listed = await sdk.list()
    assert [model.model for model in listed.models][:2] == ["llama3.2:latest", "qwen3:8b"]
    shown = await sdk.show("gemma3:4b")
    assert shown.capabilities == ["completion", "vision"]
    assert shown.modelinfo["general.architecture"] == "gemma3"
    await sdk.generate("gemma3:4b", "")
    loaded = (await sdk.ps()).models[0]
    assert (loaded.name, loaded.context_length) == ("gemma3:4b", 4096)
    assert loaded.expires_at is not None


async def test_errors_carry_status_and_text(sdk):
    with pytest.raises(ollama.ResponseError) as caught:
        await sdk.chat("nope", [{"role": "user", "content": "hi"}])
    assert (caught.value.status_code, caught.value.error) == (404, "model 'nope' not found")
