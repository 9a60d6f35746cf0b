"""How many tokens a request can cost at most, before anything is known of its reply. Pure.

A byte-level tokenizer makes at most one token of a byte, and a backend cuts a prompt to the context of the model: so
``min(bytes + what is put around them, context)`` is a bound and no estimate. Sources: ollama ``server/prompt.go`` and
``llm/server.go``, August 2026.
"""

from __future__ import annotations

from collections.abc import Iterable

from dataplane.capabilities import doubles_output
from dataplane.errors import LimitExceededError
from dataplane.values import Demand, InferenceRequest, Limits, Operation
from shared.records import ModelRecord

# Below this an answer is of no use: rather refuse than grant less (the admission script has the same).
LEAST_OUTPUT = 16
BYTES_PER_TOKEN = 4
# What a template's loop puts around one message: markers, which are single tokens, and line breaks.
TOKENS_PER_MESSAGE = 64
# Where a backend did not say what its template and system prompt are, or how long its context is.
UNKNOWN_TEMPLATE_TOKENS = 16_384
UNKNOWN_IMAGE_TOKENS = 8_192
_MINUTE_S = 60


def demand_of(request: InferenceRequest, models: Iterable[ModelRecord]) -> Demand:
    """What a request asks for, whichever of the backends answers that have one of these models."""
    prompt_bound, output_factor = 0, 1
    for model in models:
        bound = _prompt_bound(request, model)
        if bound > prompt_bound:
            prompt_bound = bound
        if doubles_output(request, model):
            output_factor = 2
    return Demand(
        prompt_bound=prompt_bound,
        prompt_estimate=prompt_estimate(request),
        num_predict=request.num_predict,
        output_factor=output_factor,
    )


def prompt_estimate(request: InferenceRequest) -> int:
    """What a prompt probably is, in tokens."""
    return -(-request.prompt_bytes // BYTES_PER_TOKEN)


def lowered_to_rates(demand: Demand, *scopes: Limits) -> Demand:
    """The demand with an output that tokens/min could ever admit.

    Raises ``LimitExceededError``, exhausted, when the prompt alone is more than a minute allows.
    """
    num_predict = wanted = demand.num_predict
    least = min(wanted, LEAST_OUTPUT)
    for limits in scopes:
        if limits.tpm is None:
            continue
        room = limits.tpm - demand.prompt_estimate
        if room < least:
            raise LimitExceededError("tokens", retry_after_s=_MINUTE_S, exhausted=True)
        if room < num_predict:
            num_predict = room
    if num_predict == wanted:
        return demand
    return Demand(
        prompt_bound=demand.prompt_bound,
        prompt_estimate=demand.prompt_estimate,
        num_predict=num_predict,
        output_factor=demand.output_factor,
    )


def _prompt_bound(request: InferenceRequest, model: ModelRecord) -> int:
    context = request.context_tokens or model.context_length
    if request.operation is Operation.EMBED:
        # Each text is a prompt of its own, without a template.
        bound = request.prompt_bytes + TOKENS_PER_MESSAGE * request.messages
        return min(bound, context * request.messages) if context else bound
    if request.images and context and not request.image_tokens:
        return context
    template = model.template_bytes or (0 if model.capabilities else UNKNOWN_TEMPLATE_TOKENS)
    bound = request.prompt_bytes + template + TOKENS_PER_MESSAGE * request.messages
    bound += (request.image_tokens or UNKNOWN_IMAGE_TOKENS) * request.images
    return context if context and context < bound else bound
