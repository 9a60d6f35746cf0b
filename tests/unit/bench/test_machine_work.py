"""What is read of a profile of machine instructions."""

from __future__ import annotations

from tests.bench.machine_work import by_library

# Two libraries; the second line of a call has what the callee took, and is nobody's own.
PROFILE = """\
# callgrind format
version: 1
positions: line
events: Ir
summary: 4242

ob=(1) /usr/lib/libone.so
fl=(1) one.c
fn=(1) first
12 100
+3 20
cob=(2) /usr/lib/libtwo.so
cfn=(2) second
calls=2 40
* 4000
- 3

ob=(2)
fn=(2)
40 4000

ob=(1)
fn=(3) third
7 2
totals: 4125
"""


def test_own_instructions_are_added_up_by_library_and_those_of_callees_are_not():
    assert by_library(PROFILE) == {"libone.so": 125, "libtwo.so": 4000}


def test_a_profile_without_functions_is_empty():
    assert by_library("version: 1\nevents: Ir\n") == {}
