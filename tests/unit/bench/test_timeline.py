"""Timelines as text, and the document that holds a run."""

import pytest

from tests.bench import failover_document, timeline


def test_each_second_has_one_bar_as_high_as_its_count():
    moments_s = [-0.5, 0.0, *[1.5] * 4, *[2.999] * 8, *[3.0] * 99]
    assert timeline.bars("x", moments_s, start_s=-1, end_s=4, full=8) == f"{'x':9}▁▁▄██"


def test_what_lies_outside_is_not_drawn_and_nothing_is_blank():
    assert timeline.bars("x", [-9.0, 9.0], start_s=0, end_s=3, full=1) == "x"


def test_the_axis_has_every_tenth_second_in_its_place():
    assert timeline.axis(-5, 20) == f"{'seconds':9}     0         10        20"


def test_a_state_holds_until_the_next_and_a_probe_stays_visible():
    changes = [(-2.0, "·"), (0.5, "█"), (2.1, "◆"), (2.2, "█"), (4.0, "◆"), (4.9, "·")]
    assert timeline.states("b", changes, start_s=-2, end_s=6) == f"{'b':9}··██◆█◆·"


def test_before_the_first_change_nothing_is_claimed():
    assert timeline.states("b", [(1.0, "█")], start_s=0, end_s=2) == f"{'b':9} █"


def test_a_run_replaces_what_stands_between_the_marks():
    document = "before\n<!-- run: by hand -->\nold\n<!-- /run -->\nafter\n"
    assert failover_document.filled(document, "new\n") == document.replace("old", "new")


@pytest.mark.parametrize("document", ["", "<!-- run: -->\n", "<!-- /run -->\n<!-- run: -->\n"])
def test_a_document_without_both_marks_is_refused(document):
    with pytest.raises(ValueError, match="substring not found"):
        failover_document.filled(document, "new")
