"""The library of functions as it is loaded: its names, and what a server says about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from shared.quota import library
from shared.quota.library import LIBRARY, NAMES, PROBE, Library, is_unknown


def test_a_library_and_its_functions_are_named_by_its_content():
    one, same, other = Library("-- 1"), Library("-- 1"), Library("-- 2")
    assert one.name == same.name != other.name
    assert one.source.startswith(f"#!lua name={one.name}\n")
    assert one.function("acquire") == same.function("acquire") != other.function("acquire")
    assert one.function("acquire").removeprefix("acquire") == one.name.removeprefix("gateway")


def test_every_file_of_the_folder_is_in_the_library_once():
    texts = [file.read_text() for file in Path(library.__file__).parent.glob("*.lua")]
    assert len(texts) > len(NAMES)
    assert [LIBRARY.text.count(text) for text in texts] == [1] * len(texts)


@pytest.mark.parametrize("name", [*NAMES, PROBE])
def test_every_function_is_registered_by_its_name(name: str):
    assert LIBRARY.text.count(f"\nregister('{name}', {name}") == 1


def test_only_what_says_so_is_an_unknown_function_or_a_library_that_is_there():
    assert is_unknown(ResponseError("Function not found"))
    assert not is_unknown(ResponseError("Function not found in '…'"))
    assert LIBRARY.is_there(ResponseError(f"Library '{LIBRARY.name}' already exists"))
    # Another library has our names: then nothing is known to be right.
    assert not LIBRARY.is_there(ResponseError(f"Function '{LIBRARY.function('acquire')}' already exists"))
    assert not LIBRARY.is_there(ResponseError("Library 'another' already exists"))
