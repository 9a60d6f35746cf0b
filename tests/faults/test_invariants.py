"""The function that judges every test of faults sees what it is there to see."""

from __future__ import annotations

import os
import signal

from tests.e2e.accounts import blemishes, disagreements
from tests.e2e.crowd import ask_all, chat
from tests.e2e.harness import eventually
from tests.faults.fleet import Fleet


def test_a_secret_in_an_output_is_found_and_named_without_being_told(whole: Fleet):
    gateway = whole.gateway
    key = gateway.key("fleet")
    log = gateway.state / "logs" / "dataplane-1.log"
    assert blemishes(gateway, []) == []
    with log.open("a") as file:
        file.write(f"oops {key}\n")
    [found] = blemishes(gateway, [])
    assert found.startswith("I5")
    assert key[12:] not in found
    # Taken out in its place: the plane writes on behind it.
    with log.open("rb+") as file:
        at = file.read().index(key.encode())
        file.seek(at)
        file.write(b"x" * len(key))
    assert blemishes(gateway, []) == []
    gateway.redis.set("somewhere", "a prompt that nobody may keep")
    eventually(lambda: any("canary" in one for one in blemishes(gateway, [], canaries=["prompt that nobody"])))
    gateway.redis.delete("somewhere")


def test_a_plane_that_was_started_again_is_seen_unless_that_was_meant(whole: Fleet):
    gateway = whole.gateway
    for is_meant in (False, True):
        if is_meant:
            gateway.may_restart("controlplane-2")
        os.kill(whole.pids("controlplane-2")[0], signal.SIGKILL)
        eventually(lambda: "I6 controlplane-2 does not listen" in disagreements(gateway, whole.mocks, []))
        eventually(lambda: not gateway.deaf(), timeout_s=30, what="somebody who listens")
        eventually(lambda: len(gateway.serving()) == len(whole.planes), timeout_s=30, what="its successor")
        found = [one for one in blemishes(gateway, []) if "controlplane-2" in one]
        assert found == ([] if is_meant else ["I6 controlplane-2 was started again"])


def test_a_row_a_token_or_a_slot_that_does_not_add_up_is_seen(whole: Fleet):
    gateway = whole.gateway
    answers = ask_all(gateway.urls, gateway.key("fleet"), [chat()])
    eventually(lambda: not disagreements(gateway, whole.mocks, answers), timeout_s=30, what="agreement")
    gateway.rows("UPDATE gateway.audit_log SET total_tokens = total_tokens + 1 WHERE request_id = $1", _id(answers))
    assert {one[:2] for one in disagreements(gateway, whole.mocks, answers)} == {"I4"}
    gateway.rows("UPDATE gateway.audit_log SET total_tokens = total_tokens - 1 WHERE request_id = $1", _id(answers))
    assert disagreements(gateway, whole.mocks, answers) == []
    for mock in whole.mocks:
        mock.forget()
    assert {one[:2] for one in disagreements(gateway, whole.mocks, answers)} == {"I1"}


def test_an_answer_that_must_not_be_is_seen(whole: Fleet):
    [answer] = ask_all(["http://127.0.0.1:1"], "nz_none", [chat()])
    assert blemishes(whole.gateway, [answer]) == ["I7 a request was answered 0"]
    assert blemishes(whole.gateway, [answer], may_fail={0}) == []


def _id(answers) -> str:
    return answers[0].request_id
