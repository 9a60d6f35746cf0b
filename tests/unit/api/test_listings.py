import json
from typing import Any

import pytest
from ollama import ListResponse, ShowResponse
from openai.types import Model

from dataplane.api import listings
from dataplane.errors import ForbiddenError, RequestError
from shared.modelname import canonical
from shared.records import ModelRecord


def record(name: str, **fields: Any) -> ModelRecord:
    return ModelRecord(name=name, canonical=canonical(name), **fields)


LLAMA = record(
    "Llama3.2:3b",
    digest="a" * 64,
    size_bytes=2_019_393_189,
    modified_at="2024-08-06T15:04:05.123456789-07:00",
    family="llama",
    families=("llama",),
    format="gguf",
    parameter_size="3.2B",
    quantization="Q4_K_M",
    capabilities=("completion", "tools"),
    context_length=131_072,
    embedding_length=3072,
    template_bytes=1429,
)
BARE = record("team/bare:latest")


def test_tags_show_the_backends_spelling_and_what_clients_compare():
    listed = json.loads(listings.tags((LLAMA, BARE)))
    assert list(listed["models"][0]) == ["name", "model", "modified_at", "size", "digest", "details"]
    parsed = ListResponse.model_validate_json(listings.tags((LLAMA, BARE)))
    first, second = parsed.models
    assert first.model == "Llama3.2:3b"
    assert first.size == 2_019_393_189
    assert first.digest == "a" * 64
    assert first.modified_at is not None
    assert first.details is not None
    assert first.details.quantization_level == "Q4_K_M"
    assert second.model == "team/bare:latest"


def test_nothing_listed_is_an_empty_list_and_never_null():
    assert json.loads(listings.tags(())) == {"models": []}
    assert json.loads(listings.openai_models(())) == {"object": "list", "data": []}


def test_version_is_one_text():
    assert json.loads(listings.version("0.33.0")) == {"version": "0.33.0"}


def test_show_is_reduced_to_what_a_client_needs():
    shown = json.loads(listings.show(LLAMA))
    assert set(shown) == {"details", "model_info", "capabilities", "modified_at"}
    assert shown["model_info"] == {
        "general.architecture": "llama",
        "llama.context_length": 131_072,
        "llama.embedding_length": 3072,
    }
    parsed = ShowResponse.model_validate_json(listings.show(LLAMA))
    assert parsed.capabilities == ["completion", "tools"]
    assert parsed.template is None
    assert ShowResponse.model_validate_json(listings.show(BARE)).modelinfo == {}


@pytest.mark.parametrize(
    "body", [b'{"model":"llama3"}', b'{"name":"llama3"}', b'{"model":"LLAMA3","name":"x","verbose":true}']
)
def test_show_is_asked_by_model_or_legacy_name(body):
    assert listings.parse_show(body) == "registry.ollama.ai/library/llama3:latest"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"model":5}', b'{"Model":"llama3"}', b'{"model":"a","model":"b"}', b'{"name":""}']
)
def test_show_refuses_bodies_like_every_endpoint(body):
    with pytest.raises(RequestError):
        listings.parse_show(body)


def test_show_of_what_is_no_model_here_is_forbidden():
    with pytest.raises(ForbiddenError):
        listings.parse_show(b'{"model":"llama3:cloud"}')


def test_models_of_the_openai_dialect_parse_as_its_package_has_them():
    first, second = (Model.model_validate(item) for item in json.loads(listings.openai_models((LLAMA, BARE)))["data"])
    assert (first.id, first.owned_by, first.created) == ("Llama3.2:3b", "library", 1_722_981_845)
    assert (second.id, second.owned_by, second.created) == ("team/bare:latest", "team", 0)
    assert json.loads(listings.openai_model(LLAMA)) == first.model_dump(exclude_unset=True)


@pytest.mark.parametrize(
    "tail", [b"llama3", b"llama3:latest", b"library/llama3", b"library%2Fllama3%3Alatest", b"LLAMA3"]
)
def test_a_model_id_is_the_rest_of_the_path_decoded_once(tail):
    assert listings.parse_model_id(tail) == "registry.ollama.ai/library/llama3:latest"


@pytest.mark.parametrize("tail", [b"", b"%ff", b"llama3%253Alatest", b"../tags", b"llama3:cloud", b"a/b/c/d"])
def test_any_other_path_is_forbidden(tail):
    with pytest.raises(ForbiddenError):
        listings.parse_model_id(tail)


@pytest.mark.parametrize("moment", ["", "yesterday", "2024-02-31T00:00:00Z", "2024-01-01", '"}<script>'])
def test_a_moment_that_is_none_is_the_unknown_one(moment):
    model = record("m", modified_at=moment)
    assert json.loads(listings.tags((model,)))["models"][0]["modified_at"] == listings.UNKNOWN_TIME
    assert json.loads(listings.openai_model(model))["created"] == 0
