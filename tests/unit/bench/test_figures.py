"""From samples to figures, goals and tables."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bench import bars, performance_document, result
from tests.bench.cases import REPLY_NATIVE, STREAM_NATIVE
from tests.bench.figures import Figure, Samples
from tests.bench.goals import Goal, goals
from tests.bench.measure import Sample
from tests.bench.profile import SERVER, Stage, by_stage, stage_of
from tests.bench.result import Result
from tests.bench.targets import DATA_PLANE, DIRECT, NGINX, OURS, REDIS


def sample(target: str, *, us: float, case: str = REPLY_NATIVE, connections: int = 32, **fields: Any) -> Sample:
    values: dict[str, Any] = {
        "requests": 100,
        "requests_per_s": 10.0,
        "cpu_us": {DATA_PLANE: us, REDIS: 50.0} if target == OURS else {target: us},
        "load_us": 10.0,
        "p50_s": 0.001,
        "p99_s": 0.002,
        "first_p50_s": 0.001,
        "first_p99_s": 0.002,
        "rss_bytes": {target: 2**20},
    }
    return Sample(target=target, case=case, connections=connections, **values | fields)


def result_of(*samples: Sample) -> Result:
    found = Samples(samples)
    stages = [Stage(case=REPLY_NATIVE, name="relay", share=0.25)]
    machine = {"cores": "2"}
    return Result(samples=found, stages=stages, goals=goals(found), machine=machine, missing={"x": "why"}, rounds=3)


def goal(found: Result, beginning: str) -> Goal:
    return next(goal for goal in found.goals if goal.name.startswith(beginning))


def test_a_figure_is_the_median_with_lowest_and_highest():
    assert Figure.of([3.0, 1.0, 8.0]) == Figure(median=3.0, low=1.0, high=8.0)
    assert Figure.of([]) is None


def test_ratios_are_formed_within_a_round():
    # The machine was ten times slower in the second round: for both.
    samples = [sample(OURS, us=60), sample(NGINX, us=10), sample(OURS, us=600), sample(NGINX, us=100)]
    ratio = goal(result_of(*samples), "reply, native: CPU")
    assert ratio.figure == Figure(median=6.0, low=6.0, high=6.0)
    assert ratio.holds


def test_a_goal_that_is_missed_is_said_to_be():
    found = result_of(sample(OURS, us=71), sample(NGINX, us=10))
    assert goal(found, "reply, native: CPU").holds is False
    assert "| reply, native: CPU per request ÷ nginx | ≤ 7 × | 7.1 (7.1–7.1) | **missed** |" in (
        performance_document.text_of(found)
    )


def test_a_goal_that_was_not_measured_neither_holds_nor_is_missed():
    assert goal(result_of(sample(OURS, us=71)), "reply, native: CPU").holds is None


def test_more_is_better_where_a_goal_says_at_least():
    assert goal(result_of(sample(OURS, us=71)), "requests/s that one core of Redis").holds
    dear = sample(OURS, us=71, cpu_us={DATA_PLANE: 71.0, REDIS: 67.0})
    assert goal(result_of(dear), "requests/s that one core of Redis").holds is False


def test_added_latency_is_what_direct_does_not_have():
    found = result_of(
        sample(OURS, us=71, connections=1, p50_s=0.0014), sample(DIRECT, us=1, connections=1, p50_s=0.001)
    )
    added = goal(found, "added latency at 1 connection, p50").figure
    assert added is not None
    assert added.median == pytest.approx(0.4)


def test_a_stage_costs_its_share_of_the_request():
    assert f"| {REPLY_NATIVE} | relay | 25% | 17.8 |" in performance_document.text_of(result_of(sample(OURS, us=71)))


def test_a_document_without_the_marks_is_left_as_it_is(tmp_path):
    document = tmp_path / "PERFORMANCE.md"
    document.write_text("nothing")
    with pytest.raises(ValueError, match="not found"):
        performance_document.write(document, result_of(sample(OURS, us=71)))
    assert document.read_text() == "nothing"
    assert list(tmp_path.iterdir()) == [document]


def test_a_document_is_filled_and_has_its_plots_beside_it(tmp_path):
    document = tmp_path / "PERFORMANCE.md"
    document.write_text("before\n<!-- run: x -->\nstale\n<!-- /run -->\nafter\n")
    performance_document.write(document, result_of(sample(OURS, us=71), sample(OURS, us=700, case=STREAM_NATIVE)))
    text = document.read_text()
    assert text.startswith("before\n<!-- run: x -->\n\n| Goal")
    assert "stale" not in text
    for name in (performance_document.COST_PLOT, performance_document.LATENCY_PLOT):
        assert f"]({name})" in text
        assert (tmp_path / name).read_text().startswith("<svg")


def test_every_sample_is_in_the_json():
    assert b'"p99_s": 0.002' in result.to_json(result_of(sample(OURS, us=71)))


def test_a_stack_counts_for_the_innermost_frame_of_ours():
    stacks = (
        "thread (0x7): MainThread;infer (dataplane/pipeline.py:60);ask (dataplane/stages/relay.py:9);x (msgspec:1) 3\n"
        "thread (0x7): MainThread;infer (dataplane/pipeline.py:60) 2\n"
        "thread (0x7): MainThread;run (uvloop/loop.pyx:5) 4\nthread (0x8): Thread-1;run (threading.py:1) 99\n"
    )
    assert by_stage(stacks) == {"relay": 3, "pipeline": 2, SERVER: 4}


def test_a_stack_that_the_profiler_has_misread_is_no_sample():
    misread = "MainThread;infer (/srv/dataplane/pipeline.py:1);(\u3839\u2028 \u0d64\nMainThread;\u6167 1\u0663"
    assert by_stage(f"{misread}\nMainThread;infer (/srv/dataplane/pipeline.py:1) 2\n") == {"pipeline": 2}


def test_what_is_no_stage_is_called_what_the_caller_says():
    assert stage_of(["asyncio/tasks.py"], "libraries") == "libraries"


def test_bars_are_as_long_as_their_values():
    drawn = bars.drawing({"a < b": {"x": 10.0, "y": 5.0}}, title="t", unit="µs")
    assert 'width="530.0"' in drawn
    assert 'width="265.0"' in drawn
    assert "a &lt; b" in drawn


def test_nothing_to_draw_is_still_a_picture():
    assert bars.drawing({}, title="t", unit="µs").endswith("</svg>\n")
