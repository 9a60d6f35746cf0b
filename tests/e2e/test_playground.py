"""The playground in a real browser, in front of a running gateway."""

from __future__ import annotations

import itertools
import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import BrowserContext

from dataplane.api.routes import ROUTES, Kind
from tests.e2e.browser import Playground, driver, started
from tests.e2e.harness import Gateway, bearer, body_of, eventually

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

CHAT = "/v1/chat/completions"
WITHOUT_A_CARD = {"/"}


@pytest.fixture(scope="module")
def context(gateway: Gateway) -> Iterator[BrowserContext]:
    with driver() as playwright, started(playwright) as context:
        yield context


@pytest.fixture
def playground(context: BrowserContext, gateway: Gateway) -> Iterator[Playground]:
    """A fresh page. Whatever a test does, the page has no error and breaks no rule of its policy."""
    playground = Playground(context, gateway.url)
    yield playground
    assert playground.faults == []
    assert playground.violations() == []
    origins = {"/".join(request.url.split("/")[:3]) for request in playground.requests}
    assert origins <= {gateway.url, "data:,"}
    playground.page.close()


def test_every_endpoint_has_a_card(playground):
    served = {route.name for route in ROUTES.values() if route.kind is not Kind.BLOCKED} - WITHOUT_A_CARD
    assert set(playground.paths()) == served | {"/v1/models/{model}", "/api/pull"}


def test_nothing_runs_until_a_key_is_entered(playground, shared_key):
    page = playground.page
    assert page.is_disabled("#run")
    assert page.is_disabled("#refresh")
    assert page.is_disabled("#stop")
    page.keyboard.press("Control+Enter")
    assert [request.method for request in playground.requests] == ["GET"]
    playground.enter(shared_key)
    assert page.is_enabled("#run")
    page.fill("#key", "")
    assert page.is_disabled("#run")
    assert page.input_value("#model") == ""


def test_each_card_runs_as_it_stands(playground, shared_key, mock):
    playground.enter(shared_key)
    for path in playground.paths():
        playground.choose(path)
        status = playground.run()
        assert status.startswith("403" if "pull" in path else "200"), (path, status)
        assert playground.page.inner_text("#text"), path
        assert "x-request-id" in playground.page.text_content("#headers"), path


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_tokens_appear_while_the_model_still_speaks(playground, shared_key, mock, mocks, path):
    for each in mocks:
        each.settings(tokens=30, record_delay_ms=40)
    playground.enter(shared_key)
    playground.choose(path)
    page = playground.page
    page.click("#run")
    lengths = []
    while page.locator("#status.busy").count():
        lengths.append(len(page.text_content("#text") or ""))
    assert len(set(lengths)) > 5, "text grew in steps"
    assert page.inner_text("#status").startswith("200 done")
    assert page.inner_text("#completion") == "30"
    assert int(page.inner_text("#prompt")) > 0
    assert page.inner_text("#first").endswith(("ms", "s"))
    # A busy machine is slower, but not by the thousand of another unit.
    assert 2 < float(page.inner_text("#speed")) < 40, "40 ms between records is 25 a second"


def test_stop_cancels_the_request_at_the_backend(playground, shared_key, mock, mocks):
    for each in mocks:
        each.settings(tokens=2000, record_delay_ms=20)
    playground.enter(shared_key)
    page = playground.page
    playground.speaking()
    page.keyboard.press("Escape")
    playground.until("document.getElementById('status').textContent.startsWith('stopped')")

    def closed() -> bool:
        return any(request["closed_by_peer_at_s"] for each in mocks for request in each.requests("/api/chat"))

    eventually(closed, timeout_s=15, what="the backend seeing the disconnect")
    assert sum(each.stats()["in_flight"] for each in mocks) == 0
    assert page.is_enabled("#run")


def test_leaving_a_card_cancels_what_runs_there(playground, shared_key, mock, mocks):
    for each in mocks:
        each.settings(tokens=2000, record_delay_ms=20)
    playground.enter(shared_key)
    playground.speaking()
    playground.choose("/api/tags")
    eventually(lambda: sum(each.stats()["in_flight"] for each in mocks) == 0, what="an idle backend")
    assert playground.page.inner_text("#status") == ""
    assert playground.run().startswith("200")


def test_a_wrong_key_is_told_by_the_page(playground, gateway):
    playground.enter("nz_" + "a" * 60)
    assert playground.page.inner_text("#access").startswith("401")
    assert playground.run().startswith("401 failed")
    assert playground.page.locator("#text .fault").inner_text()


def test_a_refusal_shows_its_limits_and_when_to_come_back(playground, gateway, tenant):
    playground.enter(gateway.limited_key(tenant, rpm=2))
    playground.choose("/api/chat")
    assert [playground.run()[:3] for _ in range(3)] == ["200", "200", "429"]
    page = playground.page
    assert "Retry after" in page.inner_text("#limits")
    assert "0 / 2" in page.inner_text("#limits")
    assert page.locator("#text .fault").inner_text()


def test_a_model_that_is_not_granted_is_refused(playground, gateway):
    gateway.tenant("playground-narrow", models=["llama3.2"])
    key = gateway.key("playground-narrow")
    gateway.wait_for_models(key, "llama3.2:latest")
    playground.enter(key)
    assert playground.page.inner_text("#access").startswith("1 model ")
    playground.page.fill("#body", json.dumps({"model": "qwen3:8b", "messages": [{"role": "user", "content": "Hi"}]}))
    assert playground.run().startswith("403")


@pytest.mark.parametrize("path", [CHAT, "/api/generate", "/v1/models/{model}", "/api/tags"])
def test_the_copied_curl_is_what_run_sends(playground, shared_key, mock, mocks, path):
    playground.enter(shared_key)
    playground.choose(path)
    if playground.page.is_enabled("#body"):
        body = json.loads(playground.page.input_value("#body"))
        text = '@it\'s \\n "quoted" $HOME `x` ü 🦙'
        body |= {"prompt": text} if "prompt" in body else {"messages": [{"role": "user", "content": text}]}
        playground.page.fill("#body", json.dumps(body, ensure_ascii=False, indent=1))
    assert playground.run().startswith("200")
    sent = playground.sent()
    copied = playground.copied()

    words = shlex.split(copied)
    assert words[:3] == ["curl", "-sSN", sent.url]
    headers = dict(word.split(": ", 1) for flag, word in itertools.pairwise(words) if flag == "-H")
    browser_headers = sent.all_headers()
    assert {name: browser_headers[name.lower()] for name in headers} == headers
    assert headers["Authorization"] == f"Bearer {shared_key}"
    assert (words[-1] if "--data-raw" in words else None) == sent.post_data

    pasted = subprocess.run(["bash", "-c", copied], capture_output=True, text=True, timeout=30, check=True)
    assert pasted.stdout
    inferred = [request for each in mocks for request in each.requests()]
    if playground.page.is_enabled("#body"):
        assert len(inferred) == 2
        assert body_of(inferred[0]) == body_of(inferred[1])
        arrived = body_of(inferred[0])
        assert text == (arrived.get("prompt") or arrived["messages"][0]["content"])


def test_the_key_is_hidden_on_the_page_until_it_is_asked_for(playground, shared_key):
    playground.enter(shared_key)
    page = playground.page
    assert shared_key not in page.inner_text("body")
    assert shared_key[:12] in page.inner_text("#curl")
    page.click("#reveal")
    assert shared_key in page.inner_text("#curl")


def test_the_key_is_kept_nowhere_and_gone_after_a_reload(playground, context, shared_key):
    playground.enter(shared_key)
    playground.run()
    page = playground.page
    kept = (
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state, name])"
    )
    assert shared_key not in page.evaluate(kept)
    assert page.evaluate("indexedDB.databases().then(all => all.length)") == 0
    assert page.evaluate("caches.keys().then(all => all.length)") == 0
    assert context.cookies() == []
    page.reload()
    assert page.input_value("#key") == ""
    assert page.is_disabled("#run")
    page.goto("about:blank")
    page.go_back()
    assert page.input_value("#key") == ""


def test_the_base_url_stays_that_of_the_page(playground, gateway, shared_key):
    page = playground.page
    playground.enter(shared_key)
    page.evaluate("base.removeAttribute('readonly'); base.value = 'https://elsewhere.example'")
    assert playground.run().startswith("200")
    assert playground.sent().url == f"{gateway.url}{CHAT}"
    page.locator("#base").dispatch_event("input")
    assert page.input_value("#base") == gateway.url


def test_the_page_works_with_the_keyboard_alone(playground, shared_key, mock):
    page = playground.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "key"
    page.keyboard.insert_text(shared_key)
    page.wait_for_selector("#access.ok")
    order = []
    while (focused := page.evaluate("document.activeElement.id || document.activeElement.role")) != "copy":
        order.append(focused)
        page.keyboard.press("Tab")
        assert len(order) < 40
    wanted = ["key", "reveal", "base", "model", "refresh", "tab", "body", "run", "reset", "text", "copy"]
    assert [one for one in [*order, "copy"] if one in wanted] == wanted
    page.locator("[role=tab][aria-selected=true]").focus()
    page.keyboard.press("End")
    assert page.inner_text("#path") == "/api/pull"
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#path") == CHAT
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#status.ok")


def test_every_control_has_a_name(playground):
    nameless = playground.page.evaluate("""
        [...document.querySelectorAll("button, input, select, textarea, [tabindex]")].filter(one => {
          const by = one.getAttribute("aria-labelledby");
          return !(one.getAttribute("aria-label") || (by && document.getElementById(by)) || (one.labels || []).length
            || one.textContent.trim());
        }).map(one => one.outerHTML)""")
    assert nameless == []
    assert playground.page.get_attribute("#status", "aria-live") == "polite"


@pytest.mark.parametrize("width", [360, 390, 768, 1360])
def test_nothing_is_wider_than_the_screen(playground, shared_key, width):
    page = playground.page
    page.set_viewport_size({"width": width, "height": 844})
    playground.enter(shared_key)
    playground.run()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    small = page.evaluate("[...document.querySelectorAll('button')].filter(one => one.clientHeight < 26).length")
    assert small == 0


def test_the_policy_allows_no_foreign_script_and_no_inline_one(playground, gateway):
    reply = httpx.get(f"{gateway.url}/playground", trust_env=False)
    policy = reply.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    assert "http" not in policy
    assert "://" not in reply.text.replace("http://www.w3.org", "")
    page = playground.page
    for attempt in (
        "document.body.append(Object.assign(document.createElement('style'), {textContent: 'body {color: red}'}))",
        "fetch('https://elsewhere.example').catch(() => 0)",
        "document.body.append(Object.assign(document.createElement('img'), {src: '/logo.png'}))",
    ):
        page.evaluate(attempt)
    playground.until("violations.length >= 3")
    assert {text.split(":")[0] for text in playground.violations()} == {"style-src-elem", "connect-src", "img-src"}
    page.evaluate("violations.length = 0")
    playground.requests.clear()


def test_without_a_key_the_page_asks_the_gateway_nothing(playground, gateway):
    assert [request.url for request in playground.requests] == [f"{gateway.url}/playground"]


def test_a_data_plane_serves_no_playground_unless_it_is_told_to(gateway, shared_key):
    environment = gateway.dataplane_environment()
    del environment["PLAYGROUND_ENABLED"]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment |= {"GATEWAY_BIND_PORT": str(port)}
    plane = subprocess.Popen([sys.executable, "-P", "-m", "dataplane"], env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            eventually(lambda: is_alive(http), timeout_s=20, what="the data plane")
            eventually(lambda: http.get("/readyz").status_code == 200, timeout_s=20, what="a data plane that is ready")
            assert http.get("/playground", headers=bearer(shared_key)).status_code == 404
            assert "<html" not in http.get("/playground").text
    finally:
        plane.terminate()
        plane.wait(timeout=30)


def is_alive(http: httpx.Client) -> bool:
    try:
        return http.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False
