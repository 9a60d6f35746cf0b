"""Keys in Redis: every name that ``shared.keyspace`` can make, with who writes and who reads it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

from deploy.references.sections import code, one_line, table
from shared import keyspace

_PLACEHOLDERS = {
    "shard": "sNN",
    "scope": "<scope>",
    "lease_id": "<lease id>",
    "prefix": "<prefix>",
    "tenant_id": "<tenant id>",
    "block": "<address block>",
    "job": "<job>",
}


class Words(NamedTuple):
    """Who writes a key and who reads it; of a constant also what it holds."""

    written_by: str
    read_by: str
    holds: str = ""


_PLANE, _CONTROL = "data plane", "control plane"
WORDS = {
    "key_record": Words(_CONTROL, "data plane: authenticate"),
    "tenant_record": Words(_CONTROL, "data plane: authenticate"),
    "live": Words(f"{_CONTROL}, by compare-and-set to a higher version", "data plane: acquire, check, renew"),
    "fence": Words(_CONTROL, "data plane: every script"),
    "rebuild_token": Words(_CONTROL, "both, during a rebuild"),
    "announced": Words("data plane, during a rebuild", _CONTROL),
    "window": Words("acquire, settle", "acquire"),
    "counters": Words("acquire, settle, reap, corrections, rebuild", "acquire, `get-budgets`"),
    "leases": Words("acquire, renew, settle, reap", "acquire"),
    "expiry": Words("acquire, renew, settle, reap", "control plane: reap"),
    "lease": Words("acquire, renew, settle, reap", "settle, renew, reap"),
    "usage": Words("settle, reap, corrections", "control plane: drain"),
    "drained": Words("control plane: drain", _PLANE),
    "deny": Words(_CONTROL, "acquire"),
    "auth_failures": Words(_PLANE, _PLANE),
    "job_lock": Words(_CONTROL, _CONTROL),
    "CONFIG": Words(
        _CONTROL, _PLANE, "Backends with sealed credentials, and policies of models (string, `records.ConfigRecord`)"
    ),
    "MODELS_DISCOVERED": Words(
        _CONTROL,
        _PLANE,
        "What each backend offers (string with TTL `MODEL_DISCOVERY_CACHE_TTL_S`, `records.DiscoveredRecord`)",
    ),
    "CHANGES": Words(
        _CONTROL, _CONTROL, "Changes in the order of their revisions, for control planes among themselves (stream)"
    ),
    "REPLICAS": Words(_CONTROL, _CONTROL, "Live workers and what they have acknowledged (hash: worker id → JSON)"),
    "ANONYMOUS": Words(
        _PLANE, "control plane: drain", "Counted authentication failures that wait for the audit log (stream)"
    ),
}


def keys() -> str:
    """The table of keys."""
    rows = []
    for name, made in _made().items():
        words = WORDS[name]
        rows.append((code(made), words.holds or _documented(name), words.written_by, words.read_by))
    return table(("Key", "Holds", "Written by", "Read by"), rows)


def _made() -> dict[str, str]:
    """By the name in ``keyspace``, each key with placeholders."""
    made: dict[str, str] = {}
    for name, value in vars(keyspace).items():
        if isinstance(value, str) and value.startswith("gateway:"):
            made[name] = value
        # Parts of keys (scopes, shards) have types of their own.
        elif inspect.isfunction(value) and inspect.signature(value).return_annotation == "str":
            made[name] = _called(value)
    return made


def _called(make: Callable[..., str]) -> str:
    return make(*(_PLACEHOLDERS[name] for name in inspect.signature(make).parameters))


def _documented(name: str) -> str:
    return one_line(inspect.getdoc(getattr(keyspace, name)) or "")
