"""The library of scripts as it is sent: its names, and what a server says about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from dataplane.quota import scripts
from dataplane.quota.scripts import ALL, LIBRARY, Library, Script, bulk, command, is_unknown


def test_a_library_and_its_functions_are_named_by_its_content():
    one, same, other = Library("-- 1"), Library("-- 1"), Library("-- 2")
    assert one.name == same.name != other.name
    assert one.name == f"gateway{one.suffix}"
    assert one.source.startswith(f"#!lua name={one.name}\n")
    assert one.load == command("FUNCTION", "LOAD", one.source)
    assert bulk("FCALL", f"acquire{one.suffix}") in Script("acquire", one).call(["k"], [1]).packed
    assert Script("acquire", one).call(["k"], [1]).packed != Script("acquire", other).call(["k"], [1]).packed


def test_a_call_is_packed_with_its_number_of_keys_before_them():
    script = Script("check", Library("--"))
    call = script.call(["a", "b"], [b"\xff", 12])
    assert call.packed == command("FCALL", script.function, 2, "a", "b", b"\xff", 12)
    assert call.library is script.library


def test_every_file_of_the_folder_is_in_the_library_once():
    folder = Path(scripts.__file__).parent
    texts = [file.read_text() for file in folder.glob("*.lua")]
    assert len(texts) > len(ALL)
    assert [LIBRARY.text.count(text) for text in texts] == [1] * len(texts)


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_every_script_is_registered_by_its_name(script: Script):
    assert LIBRARY.text.count(f"\nregister('{script.name}', {script.name})\n") == 1


def test_only_what_says_so_is_an_unknown_function_or_a_library_that_is_there():
    assert is_unknown(ResponseError("Function not found"))
    assert not is_unknown(ResponseError("Function not found in '…'"))
    assert LIBRARY.is_there(ResponseError(f"Library '{LIBRARY.name}' already exists"))
    # Another library has our names: then nothing is known to be right.
    assert not LIBRARY.is_there(ResponseError(f"Function 'acquire{LIBRARY.suffix}' already exists"))
    assert not LIBRARY.is_there(ResponseError("Library 'another' already exists"))
