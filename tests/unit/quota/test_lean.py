"""What is left out of a script before it is sent."""

from __future__ import annotations

import pytest

from dataplane.quota.scripts import ALL, Script, lean

SOURCE = """-- A comment about USED and used(1).
local USED, TEXT = 12, 'ab'
local TABLE = { 1 }

local function unused(a)
  return called_by_unused(a)
end

local function used(a)
  if a then
    return USED + a
  end
end

return used(1), TEXT, TABLE, 'MGET', NOT_MINE"""


def test_constants_are_written_out_and_functions_that_nothing_uses_are_gone():
    made = lean(SOURCE)
    assert "local USED" not in made
    assert "unused" not in made
    assert "return 12 + a\n  end\nend" in made
    assert made.endswith("return used(1), 'ab', TABLE, 'MGET', NOT_MINE")
    assert "local TABLE = { 1 }" in made


def test_a_function_that_only_an_unused_one_uses_is_gone_as_well():
    made = lean("local function a()\n  return 1\nend\n\nlocal function b()\n  return a()\nend\n\nreturn 2")
    assert made.strip() == "return 2"


def test_a_value_is_not_taken_for_a_name():
    assert "return 'USED'" not in lean("local USED = 'x'\nreturn USED")
    assert lean("local MOST, MOST_OF = 1, 2\nreturn MOST_OF + MOST").strip() == "return 2 + 1"


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_every_script_begins_with_its_engine(script: Script):
    assert script.source.startswith(b"#!lua\n")
