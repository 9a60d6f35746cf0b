"""The playground's page and its policy, as text. What a browser makes of them: tests/e2e/test_playground.py."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from dataplane.api import playground
from dataplane.api.routes import ROUTES, Kind


@pytest.fixture(scope="module")
def page() -> str:
    return playground.page()[0]


@pytest.fixture(scope="module")
def policy() -> dict[str, str]:
    pairs = (directive.partition(" ") for directive in playground.page()[1].split("; "))
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("kind", ["script", "style"])
def test_the_policy_allows_what_stands_in_the_page_and_nothing_else(page, policy, kind):
    [text] = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
    assert len(text) > 1000


def test_everything_that_is_not_named_is_refused(policy):
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in " ".join(policy.values())


def test_the_page_refers_to_nothing_outside(page):
    assert re.findall(r"""(?:src|href|action)=["'](?!#|data:,)""", page) == []
    assert re.findall(r"https?://|@import|url\(", page) == []
    assert re.findall(r"\son[a-z]+=|style=", page.partition("<script>")[0]) == [], "the policy would refuse them"


def test_what_is_read_is_never_put_into_the_page_as_markup(page):
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", page) == []


def test_no_key_is_stored(page):
    assert re.findall(r"localStorage|sessionStorage|indexedDB|document\.cookie|caches\.", page) == []


def test_every_inference_route_has_a_card(page):
    paths = set(re.findall(r'path: "([^"]+)"', page))
    assert {route.name for route in ROUTES.values() if route.kind is Kind.INFER} <= paths
