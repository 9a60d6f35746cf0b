"""When two names mean the same model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.mock_ollama.names import ModelNameError as MockNameError
from deploy.mock_ollama.names import parse_ref
from shared.modelname import ModelNameError, canonical, display

SAME = [
    "llama3", "llama3:latest", "library/llama3", "registry.ollama.ai/library/llama3:latest",
    "https://registry.ollama.ai/library/llama3", "LLAMA3", " llama3 ", "Library/Llama3:LATEST",
]  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_spellings_of_one_model_are_one(name):
    assert canonical(name) == "registry.ollama.ai/library/llama3:latest"
    assert display(canonical(name)) == "llama3:latest"


@pytest.mark.parametrize("name", ["llama3:8b", "me/llama3", "hf.co/me/llama3", "localhost:5000/me/llama3"])
def test_other_models_stay_apart(name):
    assert canonical(name) != canonical("llama3")
    assert canonical(display(canonical(name))) == canonical(name)


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ":", "a:", ":b", "a/b/c/d", "x@sha256:00", "é", "a b", "a\x00b", "../etc", "-a", ".a", "a" * 201,
        "llama3:cloud", "llama3:CLOUD", "gpt-oss:120b-cloud", "llama3:local", "llama3:latest:local", "a//b",
    ],
)  # fmt: skip
def test_what_is_no_local_model_is_refused(name):
    with pytest.raises(ModelNameError):
        canonical(name)


@given(st.text(alphabet="aZ0._-:/ @\u017f\u212a", max_size=30))
def test_what_is_accepted_means_the_same_to_ollama(name):
    try:
        ours = canonical(name)
    except ModelNameError:
        return
    try:
        reference = parse_ref(name)
    except MockNameError:
        pytest.fail(f"{name!r} is no name to Ollama")
    assert reference.source != "cloud"
    assert canonical(ours) == ours
