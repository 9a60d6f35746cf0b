"""What a reply cost: counted while it passes, and what the backend reports, as far as it can be true.

Pure and cheap per record. Sources of the facts: ollama ``server/routes.go``, August 2026. Counts are on the final
record only, and left out when zero or unknown. A record carries at least one token. A thinking model with a format
generates twice and reports the second pass only: its thinking is missing from ``eval_count``.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dataplane.bounds import prompt_estimate
from dataplane.native import UNSET, EmbedReply, Record
from dataplane.values import InferenceRequest, Lease, Usage
from shared.clock import Clock

# Counts above this are no counts, whatever the model.
MAX_SANE_COUNT = 10_000_000
MAX_REPLY_TEXT_CHARACTERS = 64 * 1024


class ReplyMeter:
    """Watches the reply to an admitted request; its usage is never more than the lease has reserved.

    ``on_anomaly`` hears of counts that cannot be: ``prompt_count``, ``output_count``.
    """

    __slots__ = (
        "_clock", "_complete", "_inference", "_keeps_text", "_lease", "_on_anomaly", "_output_count", "_prompt_count",
        "_started_s", "_text", "_text_characters", "_thinking_seen", "_tokens_seen", "_ttft_ms", "backend",
    )  # fmt: skip

    def __init__(
        self,
        inference: InferenceRequest,
        lease: Lease,
        *,
        clock: Clock,
        keep_text: bool = False,
        on_anomaly: Callable[[str], None] | None = None,
    ) -> None:
        self._inference = inference
        self._lease = lease
        self._clock = clock
        self._started_s = clock.monotonic()
        self._keeps_text = keep_text
        self._on_anomaly = on_anomaly
        self.begin("")

    def begin(self, backend: str) -> None:
        """Starts anew with the reply of this backend, the empty name until there is one."""
        self.backend = backend
        self._complete = False
        self._ttft_ms: int | None = None
        self._tokens_seen = 0
        self._thinking_seen = 0
        self._prompt_count: int | None = None
        self._output_count: int | None = None
        self._text: list[str] = []
        self._text_characters = 0

    def see(self, record: Record | EmbedReply) -> None:
        """Takes a record into account."""
        if self._ttft_ms is None:
            self._ttft_ms = round((self._clock.monotonic() - self._started_s) * 1000)
        if type(record) is EmbedReply:
            self._complete = True
            self._prompt_count = self._sane(record.prompt_eval_count, self._prompt_believed(), "prompt_count")
            self._output_count = 0
            return
        message = record.message
        said: object
        thought: object
        if message is UNSET:
            said, thought, calls = record.response, record.thinking, record.tool_calls
        else:
            said, thought, calls = message.content, message.thinking, message.tool_calls
        if said or calls:
            self._tokens_seen += 1
        elif thought:
            self._tokens_seen += 1
            self._thinking_seen += 1
        if self._keeps_text and isinstance(said, str):
            self._keep(said)
        if record.done:
            self._complete = True
            self._prompt_count = self._sane(record.prompt_eval_count, self._prompt_believed(), "prompt_count")
            self._output_count = self._output(record)

    def believable[T: Record | EmbedReply](self, final: T) -> T:
        """The final record with the counts that are charged in place of such that cannot be."""
        changed: dict[str, int] = {}
        if _is_beyond(final.prompt_eval_count, self._prompt_believed()):
            changed["prompt_eval_count"] = self.usage().prompt_tokens
        if isinstance(final, Record) and _is_beyond(final.eval_count, self._output_bound()):
            changed["eval_count"] = self.usage().completion_tokens
        return msgspec.structs.replace(final, **changed) if changed else final

    def usage(self) -> Usage:
        """Tokens so far. ``reported`` when the backend's own counts could be used, else ``counted``.

        Never less than what was seen, never more than the request may cost.
        """
        bound = self._output_bound()
        is_reported = self._prompt_count is not None and self._output_count is not None
        output = self._tokens_seen
        if self._output_count is not None and self._output_count > output:
            output = self._output_count
        return Usage(
            prompt_tokens=self._prompt_tokens(),
            completion_tokens=min(output, bound),
            provenance="reported" if is_reported else "counted",
        )

    @property
    def complete(self) -> bool:
        """Whether the final record has been seen."""
        return self._complete

    @property
    def ttft_ms(self) -> int | None:
        """Milliseconds until the first record."""
        return self._ttft_ms

    @property
    def reply_text(self) -> str | None:
        """What was answered, without thinking, up to 64 Ki characters; None when it is not kept."""
        return "".join(self._text) if self._keeps_text else None

    def _keep(self, text: str) -> None:
        room = MAX_REPLY_TEXT_CHARACTERS - self._text_characters
        if room > 0:
            self._text.append(text[:room])
            self._text_characters += len(text)

    def _output(self, record: Record) -> int | None:
        bound = self._output_bound()
        if record.eval_count is UNSET and self._tokens_seen == 0:
            return 0
        count = self._sane(record.eval_count, MAX_SANE_COUNT, "output_count")
        if count is None:
            return None
        has_said = self._tokens_seen > self._thinking_seen
        if self._lease.output_factor > 1 and has_said:
            # The pass that thought is not in the count.
            count += self._thinking_seen
        if count > bound or self._tokens_seen > bound:
            self._anomaly("output_count")
        return min(count, bound)

    def _output_bound(self) -> int:
        return self._lease.num_predict * self._lease.output_factor

    def _prompt_tokens(self) -> int:
        count = prompt_estimate(self._inference) if self._prompt_count is None else self._prompt_count
        return min(count, self._lease.prompt_bound)

    def _prompt_believed(self) -> int:
        """The most that a backend can truly report: the second pass of two reads the thinking of the first."""
        repeated = self._lease.num_predict if self._lease.output_factor > 1 else 0
        return self._lease.prompt_bound + repeated

    def _sane(self, count: object, bound: int, name: str) -> int | None:
        """The count if it is one, at most ``bound``; None when there is none or it is absurd."""
        if count is UNSET:
            return None
        if type(count) is not int or count < 0 or count > MAX_SANE_COUNT:
            self._anomaly(name)
            return None
        if count > bound:
            self._anomaly(name)
            return bound
        # Some versions report 0 for a prompt that was in the cache.
        if count == 0 and self._inference.prompt_bytes and name == "prompt_count":
            return None
        return count

    def _anomaly(self, name: str) -> None:
        if self._on_anomaly is not None:
            self._on_anomaly(name)

    def __repr__(self) -> str:
        return f"ReplyMeter(seen={self._tokens_seen}, complete={self._complete})"


def _is_beyond(count: object, bound: int) -> bool:
    """Whether a count is there and cannot be."""
    return count is not UNSET and (type(count) is not int or not 0 <= count <= bound)


def meters(
    clock: Clock, on_anomaly: Callable[[str], None] | None = None
) -> Callable[[InferenceRequest, Lease, bool], ReplyMeter]:
    """Makes meters: a call takes the request, its lease and whether to keep the text of the reply."""

    def meter(inference: InferenceRequest, lease: Lease, keep_text: bool) -> ReplyMeter:  # noqa: FBT001 - a factory
        return ReplyMeter(inference, lease, clock=clock, keep_text=keep_text, on_anomaly=on_anomaly)

    return meter
