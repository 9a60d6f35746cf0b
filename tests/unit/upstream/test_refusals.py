"""What statuses other than 200 mean."""

import pytest

from dataplane.ports import AttemptError
from dataplane.upstream.faults import Blame, ReplyError
from dataplane.upstream.refusals import judge


def body(text: str) -> bytes:
    return b'{"error":"%s"}' % text.encode()


@pytest.mark.parametrize("text", ["model 'x' not found", "model 'x:7b' not found, try pulling it first"])
def test_a_missing_model_is_recognised(text):
    verdict = judge(404, body(text))
    assert isinstance(verdict, AttemptError)
    assert verdict.model_missing
    assert verdict.status is None


@pytest.mark.parametrize("raw", [b"404 page not found", b"", b'{"error":"gone"}', b'{"error":{"model":"not found"}}'])
def test_another_404_is_the_backends_fault_and_tells_nothing_of_its_health(raw):
    verdict = judge(404, raw)
    assert isinstance(verdict, ReplyError)
    assert verdict.blame is Blame.NONE


@pytest.mark.parametrize(
    ("text", "unsupported"),
    [
        ("registry.ollama.ai/library/x:latest does not support tools", "tools"),
        ('\\"x\\" does not support thinking', "thinking"),
        ("x does not support chat", "chat"),
        ("x does not support generate", "generate"),
        ("x does not support insert", "suffix"),
        ("this model does not support embeddings", "embeddings"),
        ("this model is missing data required for image input", "images"),
        ("the input length exceeds the context length", "context"),
        ("something else", None),
    ],
)
def test_what_a_model_cannot_do_is_recognised(text, unsupported):
    verdict = judge(400, body(text))
    assert isinstance(verdict, AttemptError)
    assert (verdict.status, verdict.unsupported) == (400, unsupported)
    assert text not in str(verdict)


@pytest.mark.parametrize("status", [401, 403, 407, 408, 429, 499])
def test_client_errors_about_the_backend_may_be_tried_elsewhere(status):
    verdict = judge(status, body("secret"))
    assert isinstance(verdict, ReplyError)
    assert verdict.blame is Blame.NONE
    assert "secret" not in str(verdict)


@pytest.mark.parametrize("status", [201, 204, 301, 307, 500, 502, 503, 999])
def test_everything_else_is_a_bad_reply(status):
    verdict = judge(status, b"<html>")
    assert isinstance(verdict, ReplyError)
    assert verdict.blame is Blame.BAD_REPLY


@pytest.mark.parametrize("raw", [b"\xff", b"[" * 100_000, b'{"error":"\xff"}', b"null", b"7"])
def test_bodies_that_cannot_be_read_are_no_text(raw):
    assert isinstance(judge(400, raw), AttemptError)
