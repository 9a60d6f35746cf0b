"""A9.2: a backend that comes and goes, for the data planes and for discovery alike, beside one that is well."""

from __future__ import annotations

import uuid

import pytest

from tests.e2e.accounts import assert_invariants
from tests.e2e.crowd import Traffic
from tests.e2e.harness import eventually
from tests.faults.fleet import MOCKS, Fleet

FLAPS = 4
BETWEEN = 12


@pytest.mark.parametrize("fault", ["refused", "reset"])
def test_backends_that_come_and_go_fail_no_request_while_one_is_well(whole: Fleet, fault: str):
    name = f"flap-{uuid.uuid4().hex[:8]}"
    whole.gateway.tenant(name)
    links = whole.links_to(MOCKS[0])
    with Traffic(whole.gateway.urls, whole.gateway.key(name), clients=4, rest_s=0.05) as load:
        for is_away in [True, False] * FLAPS:
            for link in links:
                link.refuses = is_away and fault == "refused"
                if is_away:
                    link.reset()
            seen = len(load.answers)
            eventually(lambda count=seen: len(load.answers) >= count + BETWEEN, timeout_s=60, what="traffic")  # type: ignore[misc]
    assert {answer.status for answer in load.answers} == {200}
    assert_invariants(whole.gateway, whole.mocks, load.answers, attempts=len(MOCKS))
