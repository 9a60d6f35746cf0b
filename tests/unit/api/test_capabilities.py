import pytest

from dataplane.capabilities import doubles_output, unsupported
from shared.modelname import canonical
from shared.records import ModelRecord
from tests.unit.api.endpoints import MESSAGES, parse
from tests.unit.api.test_requests import PNG

TOOLS = [{"type": "function", "function": {"name": "f"}}]


def model(*capabilities: str) -> ModelRecord:
    return ModelRecord(name="m", canonical=canonical("m"), capabilities=capabilities)


@pytest.mark.parametrize(
    ("endpoint", "fields", "needs"),
    [
        ("/api/chat", {}, "completion"),
        ("/api/generate", {}, "completion"),
        ("/api/chat", {"tools": TOOLS}, "tools"),
        ("/v1/chat/completions", {"tools": TOOLS}, "tools"),
        ("/api/chat", {"think": True}, "thinking"),
        ("/api/generate", {"think": "low"}, "thinking"),
        ("/v1/chat/completions", {"reasoning_effort": "high"}, "thinking"),
        ("/api/chat", {"messages": [{**MESSAGES[0], "images": [PNG]}]}, "vision"),
        ("/api/generate", {"images": [PNG]}, "vision"),
        ("/v1/completions", {"suffix": "end"}, "insert"),
    ],
)
def test_a_model_without_the_capability_is_told_apart(endpoint, fields, needs):
    request = parse(endpoint, **fields).request
    every = ("completion", "tools", "thinking", "vision", "insert")
    assert unsupported(request, model(*every)) is None
    message = unsupported(request, model(*(name for name in every if name != needs)))
    assert message is not None
    assert message.startswith("this model does not support ")


def test_nothing_is_refused_on_what_is_not_known():
    assert unsupported(parse("/api/chat", tools=TOOLS, think=True).request, model()) is None


def test_turning_thinking_off_and_embedding_need_no_capability():
    assert unsupported(parse("/api/chat", think=False).request, model("completion")) is None
    assert unsupported(parse("/v1/embeddings").request, model("completion")) is None
    assert unsupported(parse("/api/chat").request, model("embedding")) is not None


def test_output_doubles_only_where_a_model_may_think():
    request = parse("/api/chat", format="json").request
    assert doubles_output(request, model())
    assert doubles_output(request, model("completion", "thinking"))
    assert not doubles_output(request, model("completion"))
    assert not doubles_output(parse("/api/chat").request, model())
