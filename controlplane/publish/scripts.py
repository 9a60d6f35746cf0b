"""The Lua scripts of this folder that include the layout of counters or leases."""

from __future__ import annotations

from pathlib import Path

from shared import layout


def source(name: str, *includes: str) -> bytes:
    """A script of this folder, with what it includes behind its first line, ``#!lua`` with its flags."""
    first, _, rest = (Path(__file__).parent / f"{name}.lua").read_bytes().partition(b"\n")
    return b"\n".join((first, *map(layout.included, includes), rest))
