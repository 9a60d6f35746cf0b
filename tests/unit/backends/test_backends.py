from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core import backends
from controlplane.core.backends import (
    AddedBackend,
    BackendName,
    BackendsError,
    StaticBackend,
    parse_backends,
    ranks,
    redacted_line,
    serialize,
    single_backend,
)
from controlplane.errors import InvalidRequestError
from controlplane.rpc.convert import page_of
from shared.backends import credential_header
from shared.redaction import REDACTED, Secret

TOKEN = "s3cr3t-t0ken"


@pytest.mark.parametrize("name", ["a", "gpu-1", "0", "a" * 63, "a--b"])
def test_a_name_of_lower_case_letters_digits_and_inner_hyphens_is_one(name):
    assert backends.check_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a" * 64, "a_b", "a.b", "ä", "a\n", " a", None, 7])
def test_any_other_name_is_refused(name):
    with pytest.raises(ValueError, match="lower-case"):
        backends.check_name(name)


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("http://ollama:11434", "http://ollama:11434"),
        ("http://ollama:11434/", "http://ollama:11434"),
        ("HTTPS://Ollama.Example", "https://ollama.example"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://[::1]:99/", "http://[::1]:99"),
        ("http://host.docker.internal:11434", "http://host.docker.internal:11434"),
        ("http://my_host", "http://my_host"),
    ],
)
def test_an_address_is_kept_without_its_trailing_slash(given_url, url):
    assert backends.check_url(given_url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ollama:11434",
        "//ollama",
        "ftp://ollama",
        "http://",
        "http:///path",
        "http://user:secret@ollama",
        "http://@ollama",
        "http://ollama/api",
        "http://ollama?",
        "http://ollama?x=1",
        "http://ollama#",
        "http://ollama:0",
        "http://ollama:65536",
        "http://ollama:",
        "http://ollama:x",
        "http://[::1",
        "http://[fe80::1%25eth0]",
        "http://a..b",
        "http://-a",
        "http://" + "a" * 64,
        "http://" + ".".join(["a" * 60] * 5),
        "http://ollama\n",
        "http://ol lama",
        "http://ollama\\evil",
        "http://%6f",
        "http://öllama",
        None,
        5,
    ],
)
def test_any_other_address_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="must be http:// or https://") as caught:
        backends.check_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("header", ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "TE", "X-Request-ID"])
def test_a_header_that_frames_or_names_the_message_cannot_carry_a_credential(header):
    with pytest.raises(ValueError, match="must not be"):
        backends.check_header(header)


@pytest.mark.parametrize("header", ["", "X Key", "X-Key:", "X-Key\r\nHost", "Schlüssel", "x" * 65, None])
def test_what_is_no_header_name_is_refused(header):
    with pytest.raises(ValueError, match="name of an HTTP header"):
        backends.check_header(header)


@pytest.mark.parametrize("token", ["a b", "a\nb", "tökén", "x" * 4097, 5, "***"])
def test_a_token_that_cannot_stand_in_a_header_is_refused_without_repeating_it(token):
    with pytest.raises(ValueError, match=r"must have at most|redacted") as caught:
        backends.check_token(token)
    assert str(token) not in str(caught.value).replace("4096", "")


@pytest.mark.parametrize("scheme", ["two words", "Bearer:x y", "\r\n", 5])
def test_a_scheme_is_one_word(scheme):
    with pytest.raises(ValueError, match="one word"):
        backends.check_scheme(scheme)


@pytest.mark.parametrize("priority", [-1, 1.5, True, "1", 100_001, None])
def test_a_priority_is_a_small_whole_number(priority):
    with pytest.raises(ValueError, match="whole number"):
        backends.check_priority(priority)


def test_backends_come_in_order_of_the_list_unless_priorities_say_otherwise():
    text = json.dumps(
        [
            {"name": "a", "url": "http://a", "priority": 7},
            {"name": "b", "url": "http://b", "token": TOKEN, "header": "X-Api-Key", "scheme": "None"},
            {"name": "c", "url": "http://c", "weight": 3},
        ]
    )
    found = parse_backends(text)
    assert [backend.name for backend in found] == ["b", "c", "a"]
    assert [backend.weight for backend in found] == [1, 3, 1]
    assert found[0] == StaticBackend(
        name=BackendName("b"), url="http://b", token=Secret(TOKEN), header="X-Api-Key", scheme="", priority=1
    )


def test_all_faults_are_named_at_once_by_index_and_field_and_without_tokens():
    text = json.dumps(
        [
            {"name": "A", "url": "http://u:p4ssw0rd@h", "token": f"{TOKEN} x", "header": "Host", "scheme": "a b"},
            {"url": "http://b", "priority": -1, "weight": 0, "tokken": TOKEN},
            "c",
            {"name": "d", "url": "http://d"},
            {"name": "d", "url": "http://e"},
        ]
    )
    with pytest.raises(BackendsError) as caught:
        parse_backends(text)
    starts = [fault.split(" ")[0] for fault in caught.value.faults]
    assert starts == [
        *("[0].name", "[0].url", "[0].token", "[0].header", "[0].scheme"),
        *("[1].name", "[1]", "[1].priority", "[1].weight", "[2]", "[4].name"),
    ]
    assert TOKEN not in str(caught.value)
    assert "p4ssw0rd" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        "[",
        f'[{{"token": "{TOKEN}"',
        f'[{{"name": "a", "token": "{TOKEN}", "token": "x"}}]',
        "[" * 200_000,
        json.dumps([{"name": f"b{n}", "url": "http://b"} for n in range(257)]),
    ],
)
def test_what_is_no_list_of_backends_is_refused_without_quoting_it(text):
    with pytest.raises(BackendsError) as caught:
        parse_backends(text)
    assert TOKEN not in str(caught.value)


_NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).map(BackendName)
_TOKENS = st.none() | st.from_regex(r"[!-~]{1,80}", fullmatch=True).filter(lambda text: text != "***").map(Secret)
_WORDS = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True)
_BACKENDS = st.lists(
    st.builds(
        StaticBackend,
        name=_NAMES,
        url=st.sampled_from(["http://a", "https://b:1", "http://[::1]:2"]),
        token=_TOKENS,
        header=_WORDS.filter(lambda word: word.lower() not in backends._RESERVED_HEADERS),
        scheme=st.just("") | _WORDS.filter(lambda word: word.lower() != "none"),
        priority=st.integers(0, 9),
        weight=st.integers(1, 1000),
    ),
    max_size=6,
    unique_by=lambda backend: backend.name,
).map(lambda found: tuple(sorted(found, key=lambda backend: backend.priority)))


@given(_BACKENDS)
def test_what_is_written_is_read_again_and_redacted_it_shows_no_token(found):
    line = serialize(found, redacted=False)
    assert "\n" not in line
    assert parse_backends(line) == found
    redacted = json.loads(serialize(found, redacted=True))
    assert [item.get("token") for item in redacted] == ["***" if backend.token else None for backend in found]


def test_a_redacted_line_cannot_be_used_by_mistake():
    line = serialize((StaticBackend(name=BackendName("a"), url="http://a", token=Secret(TOKEN)),), redacted=True)
    with pytest.raises(BackendsError, match=r"\[0\]\.token is the redacted form"):
        parse_backends(line)


def test_a_single_backend_is_called_default():
    backend = single_backend("http://127.0.0.1:11434/", Secret(TOKEN))
    assert (backend.name, backend.url, backend.token) == ("default", "http://127.0.0.1:11434", Secret(TOKEN))
    assert TOKEN not in repr(backend)
    assert single_backend("http://a", None).token is None


@pytest.mark.parametrize(("url", "token"), [("ollama", None), ("http://a", Secret("a b"))])
def test_a_single_backend_obeys_the_same_rules(url, token):
    with pytest.raises(BackendsError):
        single_backend(url, token)


def test_a_credential_becomes_the_header_that_requests_carry():
    assert credential_header(header="Authorization", scheme="Bearer", token=Secret("t")) == (
        "Authorization",
        "Bearer t",
    )
    assert credential_header(header="X-Api-Key", scheme="", token=Secret("t")) == ("X-Api-Key", "t")
    assert credential_header(header="Authorization", scheme="Bearer", token=None) is None
    assert credential_header(header="Authorization", scheme="Bearer", token=Secret("")) is None


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), max_size=10).map(sorted))
def test_published_priorities_keep_the_order_and_equality_of_the_configured_ones(keys):
    found = ranks(keys)
    assert found == sorted(found)
    for left in range(len(keys)):
        for right in range(len(keys)):
            assert (keys[left] == keys[right]) == (found[left] == found[right])


@pytest.mark.parametrize("weight", [0, -1, 1001, 1.5, True, "3", None])
def test_a_weight_outside_its_range_is_refused(weight):
    with pytest.raises(ValueError, match="whole number from 1 to 1000"):
        backends.check_weight(weight)


def test_the_line_of_all_backends_reads_again_in_routing_order_without_a_token():
    known: list[StaticBackend | AddedBackend] = [
        StaticBackend(name=BackendName("late"), url="http://l:1", priority=500),
        StaticBackend(name=BackendName("b"), url="http://b:1", token=Secret("s3cret"), priority=1),
        AddedBackend(name=BackendName("added"), url="http://c:1", sealed_token="sealed-text", priority=7, weight=3),
        AddedBackend(name=BackendName("twin"), url="http://d:1", header="X-Key", scheme="", priority=7),
    ]
    line = redacted_line(known)
    assert line.startswith("OLLAMA_BACKENDS=[")
    assert line.count(REDACTED) == 2
    assert "s3cret" not in line
    assert "sealed-text" not in line
    read = parse_backends(line.partition("=")[2].replace(REDACTED, "t"))
    assert [backend.name for backend in read] == ["b", "late", "added", "twin"]
    assert [backend.priority for backend in read] == [0, 1, 2, 2]
    assert (read[2].weight, read[3].scheme) == (3, "")


@pytest.mark.parametrize("token", ["x", "WyJ4Il0", "WyItMSJd"])
def test_a_page_of_a_whole_list_needs_the_token_of_the_page_before(token):
    first, following = page_of([1, 2, 3], 2, "")
    assert (first, page_of([1, 2, 3], 2, following)) == ([1, 2], ([3], ""))
    with pytest.raises(InvalidRequestError, match="page_token"):
        page_of([1], 1, token)
