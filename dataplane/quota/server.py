"""What a Redis server must be before anything is decided on it, read from its INFO (source: redis.io, INFO).

It must have our functions as well, which are the control plane's to load.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shared import layout
from shared.quota.library import is_unknown

NOT_LOADED = "its functions are not loaded: is the control plane of this version?"
INFO_SECTIONS = ("server", "replication", "memory", "persistence")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One examination of a server."""

    # With which every valid fence begins. A restart, a failover or another layout changes it.
    incarnation: str
    # Why nothing may be decided on this server, in our own words; empty when all is well.
    fault: str


def refusal_name(error: Exception) -> str:
    """What an error of Redis is called: its class, or, where redis-py has none for it, the code that it begins with.

    Never its text, which may have keys in it.
    """
    if is_unknown(error):
        return "UnknownFunction"
    kind = type(error).__name__
    code = str(error).partition(" ")[0]
    return code if kind == "ResponseError" and code.isascii() and code.isalpha() and code.isupper() else kind


def examine(info: bytes) -> Server:
    """Reads a reply to ``INFO``. What it does not say counts as wrong."""
    facts = _facts(info)
    run_id, replication_id = facts.get("run_id", ""), facts.get("master_replid", "")
    return Server(incarnation=layout.incarnation(run_id, replication_id), fault=_fault(facts, run_id, replication_id))


def fault_of(error: Exception) -> str:
    """Why nothing may be decided on a server that has refused to be examined, in our own words."""
    return NOT_LOADED if is_unknown(error) else f"it refuses to be examined: {refusal_name(error)}"


def _fault(facts: Mapping[str, str], run_id: str, replication_id: str) -> str:
    if not run_id or not replication_id:
        return "it does not say which server it is"
    if facts.get("role") != "master":
        return "it is not a primary"
    if facts.get("loading") != "0":
        return "it is loading its data"
    if facts.get("maxmemory_policy") != "noeviction":
        return "its maxmemory-policy is not noeviction"
    if facts.get("aof_enabled") != "1":
        return "its append-only file is off"
    if facts.get("connected_slaves", "0") != "0" and "min_slaves_good_slaves" not in facts:
        return "it has replicas but no min-replicas-to-write"
    return ""


def _facts(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}
