"""How many bytes JSON can take in a prompt. Ollama decodes tools and the arguments of calls and writes them anew.

Go's encoding/json spells some texts and numbers longer than we do, and a model's own template lays them out: as compact
JSON, with a space behind each colon and comma, indented by four spaces, or as XML and type declarations. What is
reserved for a prompt must be at least the longest of these. Source: Go ``encoding/json`` (encode.go); ollama
``model/renderers``, August 2026.
"""

from __future__ import annotations

import re

from dataplane.api import strict_json

# Around one key, where a template writes XML or type declarations.
KEY_MARKUP_BYTES = 48
_INDENT_BYTES = 4
# ``1e20``, of four characters, is written with all of its 21 digits; no other number grows by more.
_EXPONENT_BYTES = 17
# Of so many the depth is not worth being measured.
_MANY_CONTAINERS = 1024

_LONG_INTEGER = re.compile(rb"\d{16}")


def most_bytes(raw: bytes) -> int:
    """The most bytes of a prompt that a compact JSON value of ours becomes, whichever the template."""
    bare = strict_json.without_strings(raw)
    keys = bare.count(b":")
    members = keys + bare.count(b",")
    containers = bare.count(b"{") + bare.count(b"[")
    depth = strict_json.nesting(bare) if containers < _MANY_CONTAINERS else strict_json.MAX_DEPTH
    line = 1 + _INDENT_BYTES * depth
    # Every member and element on a line of its own, and every closing bracket.
    indented = keys + line * (bare.count(b",") + 2 * containers)
    return _go_bytes(raw, bare) + max(members, indented, KEY_MARKUP_BYTES * keys)


def _go_bytes(raw: bytes, bare: bytes) -> int:
    """The length as Go writes it: ``<``, ``>``, ``&``, U+2028 and U+2029 take six characters, and numbers grow."""
    markup = raw.count(b"<") + raw.count(b">") + raw.count(b"&")
    separators = raw.count("\u2028".encode()) + raw.count("\u2029".encode())
    exponents = bare.count(b"e") - bare.count(b"true") - bare.count(b"false")
    # Beyond 2**53 a float64 may round up to one more digit.
    rounded = len(_LONG_INTEGER.findall(bare))
    return len(raw) + 5 * markup + 3 * separators + _EXPONENT_BYTES * exponents + rounded
