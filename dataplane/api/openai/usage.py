"""Usage as the OpenAI dialect writes it, and what else its replies have in common."""

from __future__ import annotations

import msgspec

from dataplane.api import answers
from dataplane.native import EmbedReply, Record

SYSTEM_FINGERPRINT = "fp_ollama"


class Usage(msgspec.Struct, frozen=True):
    """Tokens of a completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class EmbeddingUsage(msgspec.Struct, frozen=True):
    """Tokens of an embedding request."""

    prompt_tokens: int
    total_tokens: int


def usage_of(record: Record) -> Usage:
    """What the final record reports; 0 for what is missing or no count. What is charged is the meter's concern."""
    prompt, completion = answers.count(record.prompt_eval_count), answers.count(record.eval_count)
    return Usage(prompt, completion, prompt + completion)


def embedding_usage_of(reply: EmbedReply) -> EmbeddingUsage:
    """What the reply reports, as above."""
    prompt = answers.count(reply.prompt_eval_count)
    return EmbeddingUsage(prompt, prompt)
