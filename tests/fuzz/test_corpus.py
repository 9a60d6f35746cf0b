"""Every body that is kept gets the verdict that it is kept under, and what is sent for it is judged."""

import pytest

from tests.fuzz import corpus, judging
from tests.fuzz.sending import Sender

KEPT = corpus.kept()
MAX_CORPUS_BYTES = 300_000


def test_the_corpus_is_small_and_has_bodies_of_every_endpoint_accepted_and_refused():
    assert sum(len(body.raw) for body in KEPT) < MAX_CORPUS_BYTES
    for accepted in (True, False):
        assert {body.path for body in KEPT if (body.status == judging.ACCEPTED) is accepted} == set(judging.ENDPOINTS)


@pytest.mark.parametrize("path", judging.ENDPOINTS)
async def test_every_kept_body_gets_its_verdict_and_what_is_sent_is_in_order(path):
    sender = Sender()
    wrong = []
    for body in (body for body in KEPT if body.path == path):
        try:
            outcome = await judging.judge(path, body.raw, sender)
        except judging.Finding as finding:
            wrong.append(f"{body.name}: {finding}")
        else:
            if outcome.status != body.status:
                wrong.append(f"{body.name}: {outcome.status} instead of {body.status}")
    assert wrong == []


@pytest.mark.parametrize("path", judging.ENDPOINTS)
@pytest.mark.parametrize("origin", [body for body in KEPT if body.name == "full"], ids=lambda body: body.path)
async def test_a_body_of_another_endpoint_is_judged_like_any(path, origin):
    await judging.judge(path, origin.raw, Sender())
