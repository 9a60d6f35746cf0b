"""Limits and model grants: their rules, and how a change applies to what is set. ``None`` always means *inherit*."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from shared import modelname
from shared.modelname import CanonicalName
from shared.records import GrantsRecord, LimitsRecord

# Beyond this the scripts in Redis could not count exactly: a Lua number is a double.
MAX_LIMIT = 1_000_000_000_000
MAX_MODELS = 1000

RATE_FIELDS = ("rpm", "tpm", "concurrent")
BUDGET_FIELDS = ("budget_day", "budget_month", "budget_total")
LIMIT_FIELDS = RATE_FIELDS + BUDGET_FIELDS
GRANT_FIELDS = ("allow_all_models", "allowed_models")


def limits_faults(limits: LimitsRecord) -> list[str]:
    """One sentence for every limit outside its range."""
    faults = []
    for field in LIMIT_FIELDS:
        minimum = 1 if field in RATE_FIELDS else 0
        value = getattr(limits, field)
        if value is not None and not minimum <= value <= MAX_LIMIT:
            faults.append(f"{field} must be from {minimum} to {MAX_LIMIT}")
    return faults


def parse_models(names: Iterable[str]) -> tuple[tuple[CanonicalName, ...], list[str]]:
    """Model names in canonical form, each once, sorted; and one sentence for every text that is no name."""
    given = list(names)
    if len(given) > MAX_MODELS:
        return (), [f"allowed_models must have at most {MAX_MODELS} names"]
    models: set[CanonicalName] = set()
    faults = []
    for position, name in enumerate(given, start=1):
        try:
            models.add(modelname.canonical(name))
        except modelname.ModelNameError:
            faults.append(
                f"allowed_models: name {position} must be the name of a local model, such as llama3.2 or qwen3:8b"
            )
    return tuple(sorted(models)), faults


def clear_faults(clear: Sequence[str], allowed: Sequence[str], given: Iterable[str]) -> list[str]:
    """One sentence for every name in ``clear`` that cannot be unset or that the same request also sets."""
    unknown = sorted(set(clear) - set(allowed))
    both = sorted(set(clear) & set(given))
    faults = [f"clear: {name[:64]!r} must be one of {', '.join(allowed)}" for name in unknown]
    return faults + [f"clear: {name} must not be set in the same request" for name in both]


def given_fields(*records: LimitsRecord | GrantsRecord) -> list[str]:
    """Names of the fields that are set."""
    return [field for record in records for field in record.__struct_fields__ if getattr(record, field) is not None]


def merged[T: (LimitsRecord, GrantsRecord)](current: T, change: T, clear: Sequence[str]) -> T:
    """What is set after a change: its values win, names in ``clear`` are unset, all else stays."""
    values = {field: getattr(change, field) for field in given_fields(change)}
    values |= {field: None for field in current.__struct_fields__ if field in clear}
    return msgspec.structs.replace(current, **values)
