"""Backends of an environment file: added, replaced, removed and listed without a gateway."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

TOKEN = "tok-123-of-a-backend"
KNOWN = '[{"name":"a","url":"http://a:1"},{"name":"b","url":"http://b:1","token":"old","weight":3}]'
BEFORE = f"# mine\nREDIS_URL=redis://r\nOLLAMA_BACKENDS={KNOWN}\nLAST=1\n"


class Ollama:
    """Answers /api/tags, and keeps what it was asked with."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.status = 200
        asked = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.headers.append(dict(self.headers))
                body = json.dumps({"models": []}).encode()
                self.send_response(asked.status if self.path == "/api/tags" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Ollama"]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    with Ollama().running() as running:
        yield running


@pytest.fixture
def file(tmp_path):
    path = tmp_path / ".env"
    path.write_text(BEFORE)
    return path


def backends_of(path) -> list[dict[str, Any]]:
    line = next(line for line in path.read_text().splitlines() if line.startswith("OLLAMA_BACKENDS="))
    found: list[dict[str, Any]] = json.loads(line.partition("=")[2])
    return found


def test_a_backend_is_probed_with_the_headers_of_run_time_and_added_at_the_end(offline, file, ollama):
    done = offline(
        "add-backend", "c", ollama.url, "--token", TOKEN, "--header", "X-Api-Key", "--scheme", "none",
        "--write-env", str(file),
    )  # fmt: skip

    assert done.exit == 0, done.err
    assert [headers["X-Api-Key"] for headers in ollama.headers] == [TOKEN]
    assert [backend["name"] for backend in backends_of(file)] == ["a", "b", "c"]
    assert backends_of(file)[2]["token"] == TOKEN
    others = [line for line in BEFORE.splitlines() if not line.startswith("OLLAMA_BACKENDS=")]
    assert [line for line in file.read_text().splitlines() if not line.startswith("OLLAMA_BACKENDS=")] == others
    assert done.out.startswith('OLLAMA_BACKENDS=[{"name":"a"')
    assert TOKEN not in done.out + done.err
    assert '"token":"***"' in done.out


def test_a_dry_run_prints_the_redacted_line_and_nothing_else(offline, file, ollama):
    done = offline("add-backend", "c", ollama.url, "--token", TOKEN, "--dry-run", "--write-env", str(file))

    assert done.exit == 0
    assert done.out.count("\n") == 1
    assert done.out.startswith("OLLAMA_BACKENDS=")
    assert (done.err, file.read_text()) == ("", BEFORE)
    assert ollama.headers[0]["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in done.out


def test_a_name_that_is_taken_is_refused_unless_it_is_to_be_replaced_in_its_place(offline, file, ollama):
    taken = ("add-backend", "a", ollama.url, "--write-env", str(file))
    refused = offline(*taken)
    assert refused.exit == 4
    assert "--replace" in refused.err
    assert file.read_text() == BEFORE

    assert offline(*taken, "--replace", "--weight", "2").exit == 0
    assert backends_of(file)[0] == {"name": "a", "url": ollama.url, "weight": 2}
    assert [backend["name"] for backend in backends_of(file)] == ["a", "b"]

    # What was decided about its share stays; its token is that of the command.
    assert offline("add-backend", "b", ollama.url, "--replace", "--write-env", str(file)).exit == 0
    assert backends_of(file)[1] == {"name": "b", "url": ollama.url, "weight": 3}


def test_a_server_that_fails_its_probe_is_not_written_unless_nobody_asks(offline, file, ollama):
    ollama.status = 401
    typed = ("add-backend", "c", ollama.url, "--token", TOKEN, "--write-env", str(file))
    refused = offline(*typed)
    assert refused.exit == 4
    assert "--no-validate" in refused.err
    assert TOKEN not in refused.err
    assert file.read_text() == BEFORE

    assert offline(*typed, "--no-validate").exit == 0
    assert len(backends_of(file)) == 3


def test_a_backend_is_removed_when_it_is_said(offline, file):
    typed = ("remove-backend", "a", "--write-env", str(file))
    assert offline(*typed).exit == 2
    assert file.read_text() == BEFORE
    dry = offline(*typed, "--dry-run")
    assert (dry.exit, file.read_text()) == (0, BEFORE)
    assert dry.out == 'OLLAMA_BACKENDS=[{"name":"b","url":"http://b:1","token":"***","weight":3}]\n'
    done = offline(*typed, "--yes", "-o", "json")
    assert json.loads(done.out)["written"] == str(file)
    assert [backend["name"] for backend in backends_of(file)] == ["b"]
    assert offline(*typed, "--yes").exit == 3


def test_backends_are_listed_without_their_tokens(offline, file):
    assert offline("list-backends", "--env-file", str(file)).out.count("***") == 1
    listed = json.loads(offline("list-backends", "--env-file", str(file), "-o", "json").out)["backends"]
    assert [backend.get("token") for backend in listed] == [None, "***"]


def test_a_file_with_a_single_server_begins_with_it(offline, tmp_path, ollama):
    file = tmp_path / "single.env"
    file.write_text("OLLAMA_BASE_URL=http://only:11434\nOLLAMA_AUTH_TOKEN='s3cret'\n")
    assert offline("add-backend", "c", ollama.url, "--write-env", str(file)).exit == 0
    first, second = backends_of(file)
    assert (first["name"], first["url"], first["token"]) == ("default", "http://only:11434", "s3cret")
    assert second["name"] == "c"
    assert file.read_text().startswith("OLLAMA_BASE_URL=http://only:11434\nOLLAMA_AUTH_TOKEN='s3cret'\n")


def test_a_file_that_is_not_there_is_made(offline, tmp_path, ollama):
    file = tmp_path / "new.env"
    assert offline("add-backend", "c", ollama.url, "--write-env", str(file)).exit == 0
    assert backends_of(file) == [{"name": "c", "url": ollama.url}]


@pytest.mark.parametrize(
    ("content", "typed", "code"),
    [
        ("OLLAMA_BACKENDS=[\n", ("c", "http://c:1"), 2),
        ('OLLAMA_BACKENDS=[{"name":"a","url":"ftp://a","token":"s3cret"}]\n', ("c", "http://c:1"), 2),
        ("", ("Not A Name", "http://c:1"), 2),
        ("", ("c", "http://c:1/path"), 2),
        ("OLLAMA_BACKENDS='[\n]'\n", ("c", "http://c:1"), 1),
        ("OLLAMA_BASE_URL=nonsense\n", ("c", "http://c:1"), 2),
    ],
)
def test_what_breaks_a_rule_is_said_without_secrets_and_nothing_is_written(offline, tmp_path, content, typed, code):
    file = tmp_path / ".env"
    file.write_text(content)
    done = offline("add-backend", *typed, "--no-validate", "--write-env", str(file))
    assert done.exit == code
    assert done.err.count("\n") == 1
    assert "s3cret" not in done.err
    assert file.read_text() == content


def test_what_a_gateway_answers_to_a_dry_run_is_one_line(cli, server):
    done = cli("add-backend", "c", "http://c:1", "--dry-run")
    assert done.out == "OLLAMA_BACKENDS=[]\n"
    assert cli("add-backend", "c", "http://c:1", "--dry-run", "-o", "json").out.count("\n") > 1
    assert "BACKEND" not in done.out.removeprefix("OLLAMA_BACKENDS")
    assert len(server.backends.requests) == 2
