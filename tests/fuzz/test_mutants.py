"""The fuzz can fail: each of these changes of the gateway is found, most of them within a few hundred bodies."""

import json
from typing import Any

import msgspec
import pytest

from dataplane.api import ollama, rules, strict_json
from dataplane.api.dialect import Caps, Parsed
from dataplane.api.openai import messages
from dataplane.errors import RequestError
from dataplane.upstream import client
from shared.modelname import CanonicalName
from tests.fuzz import campaign, judging
from tests.fuzz.vocabulary import DANGEROUS

# Which bodies a seed gives changes with the corpus; all of these were found within 4 000 when it was last looked at.
BODIES = 20_000


def scanner(**hooks: Any) -> Any:
    usual = {
        "object_pairs_hook": strict_json._object,
        "parse_int": strict_json._integer,
        "parse_float": strict_json._float,
        "parse_constant": strict_json._constant,
    }
    return json.JSONDecoder(**{**usual, **hooks}).scan_once  # type: ignore[attr-defined]  # not in typeshed


def quadratic(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if any(keys.count(key) > 1 for key in keys):
        raise RequestError("the body repeats a key")
    return dict(pairs)


def unclamped(value: Any, field: str, maximum: int) -> tuple[int, bool]:
    return (value, False) if type(value) is int and value > 0 else (maximum, False)


def truncated(value: Any, field: str, maximum: int) -> tuple[int, bool]:
    whole = int(value) if isinstance(value, float) and value >= 1 else value
    return OUTPUT_CAP(whole, field, maximum)


OUTPUT_CAP = rules.output_cap


def with_fields_of_the_client(body: bytes, caps: Caps) -> Parsed:
    """Passes on what the client wrote beside the fields that are read."""
    parsed = ollama.requests.chat(body, caps)
    native = msgspec.structs.asdict(parsed.request.body)
    more = {name: value for name, value in json.loads(body).items() if name in DANGEROUS}
    fields = {**native, **more}
    passed_on: Any = msgspec.defstruct("PassedOn", list(fields), kw_only=True)(**fields)
    return Parsed(msgspec.structs.replace(parsed.request, body=passed_on), parsed.rendering)


def lenient_inputs(value: list[str] | str | None, field: str, caps: Caps) -> list[str]:
    return [value] if isinstance(value, str) else value or []


def lenient_resolve(name: str) -> CanonicalName:
    return RESOLVE(name.removesuffix(":cloud").removesuffix(":local"))


RESOLVE = rules.resolve


def echoing(self: strict_json.Closed, keys: Any, value: Any, dropped: strict_json.Dropped) -> None:
    raise RequestError(f"unknown field {min(keys)}")


MUTANTS: dict[str, tuple[Any, str, Any, set[str]]] = {
    "keys are not folded": (strict_json, "fold", lambda key: key, {"accepted", "differs"}),
    "the long s is not folded": (strict_json, "fold", str.lower, {"accepted", "differs"}),
    "keys may repeat": (strict_json, "_scan_once", scanner(object_pairs_hook=dict), {"accepted", "differs"}),
    "keys are compared one with another": (strict_json, "_scan_once", scanner(object_pairs_hook=quadratic), {"slow"}),
    "numbers may overflow": (strict_json, "_scan_once", scanner(parse_float=float), {"accepted", "sent", "bound"}),
    "NaN is a number": (strict_json, "_scan_once", scanner(parse_constant=float), {"accepted", "sent"}),
    "depth is not limited": (strict_json, "MAX_DEPTH", 100_000, {"accepted", "exception"}),
    "surrogates may be alone": (strict_json, "_check_surrogates", lambda value: None, {"exception", "accepted"}),
    "refusals quote keys": (strict_json.Closed, "_drop", echoing, {"echo"}),
    "arguments are read leniently": (
        messages,
        "parse_object",
        lambda text, field: json.loads(text),
        {"accepted", "sent"},
    ),
    "the output is not capped": (rules, "output_cap", unclamped, {"sent", "accepted", "differs"}),
    "fractions are cut": (rules, "output_cap", truncated, {"accepted"}),
    "counts are not capped": (rules, "count_within", lambda count, maximum, field: None, {"sent"}),
    "images are sent as they came": (rules, "image", lambda value, field: value, {"sent"}),
    "structs inside are open": (ollama.requests._OPTIONS, "_folded", {}, {"accepted"}),
    "names of other places are local": (rules, "resolve", lenient_resolve, {"differs"}),
    "empty inputs are sent": (rules, "inputs", lenient_inputs, {"accepted"}),
    "the client's spelling is sent": (
        client,
        "_upstream_body",
        lambda body, model: msgspec.structs.replace(body, model="llama3"),
        {"sent"},
    ),
    "unknown fields are passed on": (
        judging,
        "ENDPOINTS",
        {
            **judging.ENDPOINTS,
            "/api/chat": msgspec.structs.replace(judging.ENDPOINTS["/api/chat"], parse=with_fields_of_the_client),
        },
        {"sent"},
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_mutant_of_the_gateway_is_found(mutant, monkeypatch, record_property):
    place, name, value, kinds = MUTANTS[mutant]
    monkeypatch.setattr(place, name, value)
    result = await campaign.run(BODIES, seed=1, max_failures=1, reduces=False)
    (failure,) = result.failures
    assert failure.kind in kinds, failure.text
    record_property("bodies", result.bodies)
