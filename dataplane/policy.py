"""What a model's policy makes of a request. Pure.

The operator's word stands over the client's: runner options are written in, the output is lowered, and what clients
may not set is dropped and named. ``prompt_bytes`` still counts what was dropped; a bound stays one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dataplane.native import UNSET, Body, ChatBody, EmbedBody, Message, Options
from dataplane.values import InferenceRequest
from shared import clientoptions
from shared.records import ModelPolicyRecord

_replace = msgspec.structs.replace


def applied(request: InferenceRequest, policy: ModelPolicyRecord) -> InferenceRequest:
    """The request as the policy has it, by the model's own name."""
    dropped = _dropped(request, policy)
    body, num_predict = request.body, request.num_predict
    options: dict[str, Any] = {name: UNSET for name in dropped if name in clientoptions.SAMPLING}
    fields: dict[str, Any] = {name: UNSET for name in dropped if name in body.__struct_fields__}
    if policy.num_ctx is not None:
        options["num_ctx"] = policy.num_ctx
    if policy.max_num_predict is not None and num_predict > policy.max_num_predict:
        options["num_predict"] = num_predict = policy.max_num_predict
    if policy.keep_alive is not None:
        fields["keep_alive"] = policy.keep_alive
    if options:
        fields["options"] = _replace(Options() if body.options is UNSET else body.options, **options)
    if type(body) is ChatBody and "images" in dropped:
        fields["messages"] = [_without_images(message) for message in body.messages]
    body = _replace(body, **fields) if fields else body
    return _replace(
        request,
        canonical=policy.model,
        body=body,
        num_predict=num_predict,
        clamped=request.clamped or num_predict < request.num_predict,
        images=0 if "images" in dropped else request.images,
        doubles_output=_doubles_output(body) if "format" in dropped or "think" in dropped else request.doubles_output,
        context_tokens=policy.num_ctx or 0,
        image_tokens=policy.image_tokens or 0,
        ignored=request.ignored + tuple(name for name in dropped if name not in request.assumed),
    )


def _dropped(request: InferenceRequest, policy: ModelPolicyRecord) -> tuple[str, ...]:
    """What is set and may not be, in the order of the list."""
    allowed = policy.allowed_options
    if allowed is None:
        return ()
    body = request.body
    return tuple(
        [
            name
            for name in clientoptions.SAMPLING
            if name not in allowed and getattr(body.options, name, UNSET) is not UNSET
        ]
        + [
            name
            for name in clientoptions.FIELDS
            if name not in allowed
            and (request.images > 0 if name == "images" else getattr(body, name, UNSET) is not UNSET)
        ]
    )


def _without_images(message: Message) -> Message:
    return message if message.images is UNSET else _replace(message, images=UNSET)


def _doubles_output(body: Body) -> bool:
    # A model that thinks and has to follow a format generates twice.
    return type(body) is not EmbedBody and body.format is not UNSET and body.think is not False
