"""A9.2: backends that come and go, for the data planes and for discovery alike."""

from __future__ import annotations

import uuid
from itertools import cycle, islice

import pytest

from tests.e2e.accounts import assert_invariants
from tests.e2e.crowd import Traffic
from tests.e2e.harness import eventually
from tests.faults.fleet import MOCKS, Fleet

FLAPS = 6
BETWEEN = 12


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_backends_that_come_and_go_fail_no_request_while_one_is_well(whole: Fleet, fault: str):
    name = f"flap-{uuid.uuid4().hex[:8]}"
    whole.gateway.tenant(name)
    key = whole.gateway.key(name)
    with Traffic(whole.gateway.urls, key, clients=4, rest_s=0.05) as load:
        for away in islice(cycle(MOCKS), FLAPS):
            for link in whole.links_to(away):
                # A backend that hangs is one that cannot be connected to; what is under way is let through.
                setattr(link, fault, True)
                if fault == "refuses":
                    link.reset()
            seen = len(load.answers)
            eventually(lambda count=seen: len(load.answers) >= count + BETWEEN, timeout_s=60, what="traffic")  # type: ignore[misc]
            for link in whole.links_to(away):
                link.heal()
    answers = load.answers
    assert {answer.status for answer in answers} == {200}
    assert_invariants(whole.gateway, whole.mocks, answers, attempts=len(MOCKS))
