"""Which backends are tried, and in which order."""

from collections.abc import Sequence

import pytest

from dataplane.errors import ForbiddenError, UpstreamError
from dataplane.stages.route import Route
from dataplane.values import Candidate
from tests.unit.relay.upstreams import LLAMA, FakeModels, FakeUpstreams, candidate


def names(candidates: Sequence[Candidate]) -> list[str]:
    return [one.backend.name for one in candidates]


def routed(*candidates: Candidate, upstreams: FakeUpstreams | None = None) -> list[str]:
    return names(Route(models=FakeModels(candidates), upstreams=upstreams or FakeUpstreams({}))(LLAMA))


def test_candidates_come_in_order_of_priority():
    assert routed(candidate("c", 2), candidate("a", 0), candidate("b", 1)) == ["a", "b", "c"]


def test_among_equals_the_least_busy_backend_comes_first():
    upstreams = FakeUpstreams({}, in_flight={"a": 3, "b": 1, "c": 9})
    assert routed(candidate("a", 1), candidate("b", 1), candidate("c", 0), upstreams=upstreams) == ["c", "b", "a"]


def test_backends_whose_breaker_is_open_are_skipped():
    upstreams = FakeUpstreams({}, shut={"a"})
    assert routed(candidate("a"), candidate("b"), upstreams=upstreams) == ["b"]


@pytest.mark.parametrize("backends", [["a"], ["a", "b"]])
def test_with_every_breaker_open_the_answer_says_when_to_try_again(backends):
    upstreams = FakeUpstreams({}, shut={"a", "b"}, retry_after_s={"a": 20, "b": 7})
    with pytest.raises(UpstreamError) as caught:
        routed(*map(candidate, backends), upstreams=upstreams)
    assert caught.value.retry_after_s == (20 if backends == ["a"] else 7)


def test_a_model_that_vanished_is_forbidden():
    with pytest.raises(ForbiddenError) as caught:
        routed()
    assert caught.value.reason == "model_not_allowed"


def test_weights_share_the_load_among_equals():
    busy = {"a": 0, "b": 0}
    upstreams = FakeUpstreams({}, in_flight=busy)
    for _ in range(40):
        busy[routed(candidate("a", weight=1), candidate("b", weight=3), upstreams=upstreams)[0]] += 1
        assert abs(busy["b"] - 3 * busy["a"]) <= 3
    assert busy == {"a": 10, "b": 30}


def test_a_weight_does_not_change_the_order_of_priorities():
    assert routed(candidate("a", 0, weight=1), candidate("b", 1, weight=1000)) == ["a", "b"]
