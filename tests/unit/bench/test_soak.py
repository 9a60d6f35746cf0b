"""What a soak is judged by: synthetic runs that held and that did not."""

import math

import pytest

from tests.bench.soak_samples import Reading, Series, of_metrics
from tests.bench.soak_verdict import Change, Phases, Soak, changes, page, picture, wrong
from tests.bench.timing import auc, interval

PHASES = Phases(load_s=100, calm_s=3700, end_s=3820)
MIB = 2**20


def series(**values) -> Series:
    """Each value as a function of seconds."""
    return Series(
        readings=[
            Reading(at_s=at_s, values={name: value(at_s) for name, value in values.items()})
            for at_s in range(0, 3830, 10)
        ]
    )


def load(idle, busy):
    """So much before and after the load, and so much during it."""
    return lambda at_s: busy if PHASES.load_s < at_s < PHASES.calm_s else idle


def run_of(**subjects) -> list[Change]:
    return changes(subjects, PHASES)


def test_the_windows_of_an_hour_are_those_that_are_promised():
    assert [*PHASES.warm, *PHASES.last] == [100 + 600, 100 + 900, 3700 - 300, 3700]


@pytest.mark.parametrize(("per_hour", "holds"), [(0, True), (8, True), (20, False)])
def test_memory_may_grow_by_a_tenth(per_hour, holds):
    found = run_of(worker=series(rss_bytes=lambda at_s: (100 + per_hour * at_s / 3600) * MIB))
    assert [change.holds for change in found] == [holds]
    assert bool(wrong(found)) is not holds


def test_memory_that_is_taken_at_the_beginning_and_kept_is_no_growth():
    found = run_of(worker=series(rss_bytes=lambda at_s: (60 if at_s < 200 else 100) * MIB))
    assert wrong(found) == []


@pytest.mark.parametrize(("left", "holds"), [(-5, True), (2, True), (3, False)])
def test_what_is_left_over_is_at_most_two(left, holds):
    found = run_of(worker=series(descriptors=lambda at_s: 40 + (left if at_s > PHASES.calm_s else 0)))
    assert [change.holds for change in found] == [holds]


def test_connections_that_are_kept_and_those_in_use_count_together():
    idle_after = lambda at_s: 9 if at_s > PHASES.calm_s else 1  # noqa: E731
    found = run_of(plane=series(upstream_connections_idle=idle_after, upstream_connections_busy=load(0, 20)))
    assert wrong(found) == ["plane: connections went from 1 to 9"]


def test_servers_of_others_are_shown_and_not_judged():
    grows = series(used_bytes=lambda at_s: at_s, rss_bytes=lambda at_s: at_s * MIB, descriptors=lambda at_s: at_s)
    assert run_of(redis=grows, postgres=grows) == []


def test_the_page_and_the_picture_tell_what_was_measured():
    one = series(
        rss_bytes=lambda _: 100 * MIB, descriptors=load(40, 90), tasks=load(20, 60), cpu_s=lambda at_s: at_s / 4
    )
    servers = series(used_bytes=lambda _: 3 * MIB, keys=load(10, 500), waiting=load(0, 2), rows=lambda at_s: at_s)
    figures = {"asked": 9, "left": 1, "faults": 2, "rotated": 3, "kinds": "status × 2", "statuses": {"200": 8}}
    soak = Soak(
        began_at="today", minutes=60, rate=25, phases=PHASES, figures=figures, wrong=["a thing"],
        series={"dataplane-1 worker 1": one, "redis": servers, "postgres": servers},
    )  # fmt: skip
    assert "| dataplane-1 worker 1 | 100.0 MiB | 100.0 MiB | +0.0% |" in page(soak)
    assert "| dataplane-1 worker 1 | descriptors | 40 | 40 |" in page(soak)
    assert "What did not hold: a thing" in page(soak)
    assert picture(soak).startswith("<svg ")
    assert picture(soak).count("</g>") == 8


def test_gauges_are_read_by_name_and_state():
    text = (
        "# TYPE gateway_tasks gauge\ngateway_tasks 7.0\n# TYPE gateway_upstream_connections gauge\n"
        'gateway_upstream_connections{state="idle"} 3.0\n# TYPE gateway_other gauge\ngateway_other 1.0\n'
    )
    assert of_metrics(text) == {"tasks": 7.0, "upstream_connections_idle": 3.0}


@pytest.mark.parametrize(
    ("left", "right", "area"),
    [([1, 2, 3], [1, 2, 3], 0.5), ([4, 5], [1, 2], 1.0), ([1], [2], 0.0), ([1, 3], [2, 2], 0.5)],
)
def test_the_area_is_how_often_one_is_greater(left, right, area):
    assert auc(left, right) == area


def test_the_interval_shrinks_with_the_number_of_pairs():
    low, high = interval(0.5, 2000)
    assert math.isclose(high - low, 0.0358, abs_tol=0.001)
    assert interval(1.0, 10) == (1.0, 1.0)
