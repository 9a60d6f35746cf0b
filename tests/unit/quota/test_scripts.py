"""Calls as they are sent."""

from __future__ import annotations

from dataplane.quota.scripts import Script, bulk, command
from shared.quota.library import Library


def test_a_call_names_the_function_of_its_library():
    one, other = Library("-- 1"), Library("-- 2")
    call = Script("acquire", one).call(["k"], [1])
    assert bulk("FCALL", one.function("acquire")) in call.packed
    assert call.packed != Script("acquire", other).call(["k"], [1]).packed
    assert repr(call) == "Call(acquire)"


def test_a_call_is_packed_with_its_number_of_keys_before_them():
    script = Script("check", Library("--"))
    assert script.call(["a", "b"], [b"\xff", 12]).packed == command("FCALL", script.function, 2, "a", "b", b"\xff", 12)
    assert script.call((), ()).packed == command("FCALL", script.function, 0)
