"""Policies of models: their rules, and how a change applies to what is set. ``None`` decides nothing.

An alias is a name beside the model's own. It is no other model's name and no other alias, and no policy is kept under
it: a name is resolved in one step, so that there are no chains.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec

from controlplane.core.limits import clear_faults
from controlplane.errors import AlreadyExistsError, InvalidRequestError, StateConflictError
from shared import clientoptions, modelname
from shared.modelname import CanonicalName
from shared.records import ModelPolicyRecord

MAX_POLICIES = 1000
FIELDS = ("num_ctx", "keep_alive", "max_num_predict", "image_tokens", "allowed_options", "alias")
ALIAS_HIDDEN = "alias does not hold: a backend has a model of this name"
FOREVER = "-1s"
MAX_KEEP_ALIVE_S = 8760 * 3600

# Below so many tokens a template alone may fill the context.
_RANGES = {
    "num_ctx": (256, 10_000_000),
    "max_num_predict": (1, 1_000_000),
    "image_tokens": (1, 1_000_000),
}
# Go's time.ParseDuration reads more than this; a number without a unit, other than 0, is none for it.
_DURATION = re.compile(r"(?=\d)(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?", re.ASCII)


class PolicyChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a change sets and unsets, as it was given."""

    num_ctx: int | None = None
    keep_alive: str | None = None
    max_num_predict: int | None = None
    image_tokens: int | None = None
    allowed_options: tuple[str, ...] | None = None
    alias: str | None = None
    clear: tuple[str, ...] = ()


def parse_model(name: str) -> CanonicalName:
    """The model of a request. Raises ``InvalidRequestError``."""
    try:
        return modelname.canonical(name)
    except modelname.ModelNameError:
        raise InvalidRequestError("model must be the name of a local model, such as llama3.2 or qwen3:8b") from None


def parse_keep_alive(text: str) -> str:
    """The duration as Ollama reads it: ``30m``, ``1h30m``, ``0s``, ``-1s`` for ever.

    Raises ``ValueError`` with the rule.
    """
    if text in ("-1", FOREVER):
        return FOREVER
    if text == "0":
        return "0s"
    found = _DURATION.fullmatch(text)
    parts = [int(part or 0) for part in found.groups()] if found else []
    if not parts or parts[0] * 3600 + parts[1] * 60 + parts[2] > MAX_KEEP_ALIVE_S:
        raise ValueError("must be a duration such as 90s, 30m or 1h30m, at most 8760h, or 0, or -1 for ever")
    return text


def changed(
    model: CanonicalName,
    change: PolicyChange,
    *,
    known: Sequence[ModelPolicyRecord],
    discovered: AbstractSet[CanonicalName],
) -> ModelPolicyRecord:
    """The model's policy after a change, among the policies that are ``known`` and the models that are ``discovered``.

    Raises ``InvalidRequestError`` with every fault, ``AlreadyExistsError`` for an alias that is taken and
    ``StateConflictError`` for a model that is an alias, or one policy too many.
    """
    values, faults = _read(model, change)
    if faults:
        raise InvalidRequestError(*faults)
    policies = {policy.model: policy for policy in known}
    for policy in known:
        if policy.alias == model:
            raise StateConflictError(
                f"{modelname.display(model)} is an alias of {modelname.display(policy.model)}; set the policy of that"
            )
    if model not in policies and len(policies) >= MAX_POLICIES:
        raise StateConflictError(f"there are {MAX_POLICIES} policies already")
    current = policies.get(model, ModelPolicyRecord(model=model))
    result = msgspec.structs.replace(current, **dict.fromkeys(change.clear) | values)
    if result.alias is not None and result.alias != current.alias:
        _check_free(result.alias, policies.values(), discovered)
    return result


def is_empty(policy: ModelPolicyRecord) -> bool:
    """Whether it decides nothing."""
    return all(getattr(policy, field) is None for field in FIELDS)


def problem_of(policy: ModelPolicyRecord, discovered: AbstractSet[CanonicalName]) -> str:
    """What of a policy does not hold beside the models that are discovered; empty when all does."""
    return ALIAS_HIDDEN if policy.alias in discovered else ""


def _read(model: CanonicalName, change: PolicyChange) -> tuple[dict[str, Any], list[str]]:
    given: dict[str, Any] = {field: value for field in FIELDS if (value := getattr(change, field)) is not None}
    faults = clear_faults(change.clear, FIELDS, given)
    if not given and not change.clear:
        faults.append(f"at least one of {', '.join(FIELDS)}, clear must be given")
    for field, (least, most) in _RANGES.items():
        if field in given and not least <= given[field] <= most:
            faults.append(f"{field} must be from {least} to {most}")
    if change.keep_alive is not None:
        try:
            given["keep_alive"] = parse_keep_alive(change.keep_alive)
        except ValueError as fault:
            faults.append(f"keep_alive {fault}")
    if change.allowed_options is not None:
        given["allowed_options"] = tuple(name for name in clientoptions.ALL if name in change.allowed_options)
        unknown = sorted(set(change.allowed_options) - set(clientoptions.ALL))
        faults += [f"allowed_options: {name[:64]!r} must be one of {', '.join(clientoptions.ALL)}" for name in unknown]
    if change.alias is not None:
        try:
            given["alias"] = modelname.canonical(change.alias)
        except modelname.ModelNameError:
            faults.append("alias must be a model name, such as fast or acme/chat:1")
        if given["alias"] == model:
            faults.append("alias must not be the model's own name")
    return given, faults


def _check_free(
    alias: CanonicalName, policies: Iterable[ModelPolicyRecord], discovered: AbstractSet[CanonicalName]
) -> None:
    name = modelname.display(alias)
    if alias in discovered:
        raise AlreadyExistsError(f"alias {name} is the name of a model that a backend has")
    for policy in policies:
        if policy.model == alias:
            raise AlreadyExistsError(f"alias {name} is the name of a model that has a policy")
        if policy.alias == alias:
            raise AlreadyExistsError(f"alias {name} is taken by {modelname.display(policy.model)}")
