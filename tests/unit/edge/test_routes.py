"""Which request goes where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.api import routes
from dataplane.api.routes import ROUTES, Kind, match
from dataplane.values import Dialect


@pytest.mark.parametrize(("method", "path"), list(ROUTES))
def test_a_listed_route_is_matched_exactly(method, path):
    assert match(method, path) is ROUTES[method, path]
    if path != b"/":
        for other in (path + b"/", path.upper(), b"/" + path, path.replace(b"/", b"/%2e/", 1), path + b";x"):
            assert match(method, other).kind in (Kind.UNKNOWN, Kind.BLOCKED)


def test_a_wrong_method_is_unknown():
    assert match("GET", b"/api/chat").kind is Kind.UNKNOWN
    assert match("POST", b"/api/tags").kind is Kind.UNKNOWN


def test_a_model_id_is_a_tail_and_an_empty_one_is_not():
    assert match("GET", b"/v1/models/a%2Fb:c").kind is Kind.MODEL
    assert routes.tail(b"/v1/models/a%2Fb:c") == b"a%2Fb:c"
    assert match("GET", b"/v1/models/").kind is Kind.UNKNOWN


def test_refusals_speak_the_dialect_of_the_path():
    assert match("POST", b"/v1/responses").dialect is Dialect.OPENAI
    assert match("POST", b"/api/pull").dialect is Dialect.OLLAMA


MANGLERS = st.lists(
    st.sampled_from(
        [
            lambda path: path.replace(b"pull", b"%70ull"),
            lambda path: path.replace(b"pull", b"PuLL"),
            lambda path: path.replace(b"/", b"//", 1),
            lambda path: path.replace(b"/pull", b"/./pull"),
            lambda path: path.replace(b"/pull", b"/x/../pull"),
            lambda path: path.replace(b"%", b"%25"),
            lambda path: path + b"/",
            lambda path: path + b";v=1",
            lambda path: path.replace(b"/api", b"\\api"),
        ]
    ),
    max_size=3,
)


@given(MANGLERS)
def test_a_management_route_is_blocked_in_any_spelling(manglers):
    path = b"/api/pull"
    for mangle in manglers:
        path = mangle(path)
    assert match("POST", path).kind is Kind.BLOCKED


@given(st.binary(max_size=60))
def test_no_path_fails_or_reaches_a_route_by_accident(raw):
    path = b"/" + raw
    route = match("POST", path)
    assert ("POST", path) in ROUTES or route.kind in (Kind.UNKNOWN, Kind.BLOCKED)
