"""The goals of the hot path, each with what was measured beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.cases import PACED_NATIVE, REPLY_NATIVE, REPLY_OPENAI, REPLY_QUIET, STREAM_NATIVE, STREAM_OPENAI
from tests.bench.fast_replies import RECORDS
from tests.bench.figures import Figure, Samples
from tests.bench.measure import Sample
from tests.bench.quota_capacity import Carried
from tests.bench.targets import DIRECT, LITELLM, NGINX, OURS, OURS_TWO, REDIS

_MS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One line: what is measured, the bound in ``unit``, and the figure; None where nothing was measured."""

    name: str
    bound: float
    unit: str
    figure: Figure | None
    is_at_least: bool = False
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the median is within the bound; None where nothing was measured."""
        if self.figure is None:
            return None
        return self.figure.median >= self.bound if self.is_at_least else self.figure.median <= self.bound


def cost(sample: Sample) -> float:
    """CPU per request of the target itself, in µs."""
    return next(iter(sample.cpu_us.values()))


def per_core(sample: Sample) -> float:
    """Requests that one core of the target itself carries in a second."""
    return 1e6 / cost(sample)


def goals(samples: Samples, full_redis: Sequence[Carried] = ()) -> Sequence[Goal]:
    """All goals that a comparison can judge. Medians at 32 connections with one worker, where nothing else is said."""
    pair = (OURS, NGINX)
    against_direct = (OURS, DIRECT)

    def ratio(case: str) -> Figure | None:
        return samples.paired(pair, case, 32, lambda our, other: cost(our) / cost(other))

    def added_ms(case: str, connections: int, value: str, targets: tuple[str, str]) -> Figure | None:
        return samples.paired(
            targets, case, connections, lambda our, other: (getattr(our, value) - getattr(other, value)) * _MS
        )

    return (
        Goal(name="reply, native: CPU per request ÷ nginx", bound=7, unit="×", figure=ratio(REPLY_NATIVE)),
        Goal(name="reply, OpenAI: CPU per request ÷ nginx", bound=7, unit="×", figure=ratio(REPLY_OPENAI)),
        Goal(name="64-record stream, native: CPU ÷ nginx", bound=2, unit="×", figure=ratio(STREAM_NATIVE)),
        Goal(name="64-record stream, OpenAI: CPU ÷ nginx", bound=3.5, unit="×", figure=ratio(STREAM_OPENAI)),
        Goal(
            name="CPU per record of a native stream",
            bound=12,
            unit="µs",
            figure=samples.figure(OURS, STREAM_NATIVE, 32, lambda one: cost(one) / RECORDS),
        ),
        Goal(
            name="CPU per record of an OpenAI stream",
            bound=12,
            unit="µs",
            figure=samples.figure(OURS, STREAM_OPENAI, 32, lambda one: cost(one) / RECORDS),
        ),
        Goal(
            name="added latency at 1 connection, p50",
            bound=0.5,
            unit="ms",
            figure=added_ms(REPLY_NATIVE, 1, "p50_s", against_direct),
        ),
        Goal(
            name="added latency at 1 connection, p99",
            bound=1.0,
            unit="ms",
            figure=added_ms(REPLY_NATIVE, 1, "p99_s", against_direct),
        ),
        Goal(
            name="the same p50 where cores are kept awake",
            bound=0.5,
            unit="ms",
            figure=added_ms(REPLY_QUIET, 1, "p50_s", against_direct),
            note="a core that sleeps between two events takes longer to wake than they take; and what the target waits "
            "for goes before the control plane and Postgres, which share its core here",
        ),
        Goal(
            name="the same p99 where cores are kept awake",
            bound=1.0,
            unit="ms",
            figure=added_ms(REPLY_QUIET, 1, "p99_s", against_direct),
        ),
        Goal(
            name="added time to first token, 128 paced streams, p50, against nginx",
            bound=5,
            unit="ms",
            figure=added_ms(PACED_NATIVE, 128, "first_p50_s", pair),
        ),
        Goal(
            name="requests/s per core ÷ LiteLLM proxy",
            bound=30,
            unit="×",
            figure=samples.paired(
                (OURS, LITELLM), REPLY_OPENAI, 32, lambda our, other: per_core(our) / per_core(other)
            ),
            is_at_least=True,
        ),
        Goal(
            name="2 workers ÷ 1, by CPU per request",
            bound=1.8,
            unit="×",
            figure=samples.paired((OURS, OURS_TWO), REPLY_NATIVE, 32, lambda one, two: 2 * cost(one) / cost(two)),
            is_at_least=True,
            note="twice the cost of a request with one worker ÷ that with two: what two cores of their own would give",
        ),
        Goal(
            name="admission + settlement in Redis, time in the server",
            bound=60,
            unit="µs",
            figure=Figure.of(one.scripts_us for one in full_redis),
            note="with a core of its own and hundreds in flight, as many workers have them "
            "(`python -m tests.bench.quota --capacity`)",
        ),
        Goal(
            name="the same beside load and mock on one core",
            bound=60,
            unit="µs",
            figure=samples.figure(OURS, REPLY_NATIVE, 32, lambda one: one.script_us),
            note="Redis counts by the clock on the wall, so also what others do who interrupt a script",
        ),
        Goal(
            name="requests/s that one core of Redis carries",
            bound=15_000,
            unit="/s",
            figure=samples.figure(OURS, REPLY_NATIVE, 32, lambda one: 1e6 / one.cpu_us[REDIS]),
            is_at_least=True,
            note="by its CPU of a request beside one worker, where it wakes up for one command or two, drain included",
        ),
        Goal(
            name="the same when the core is full",
            bound=15_000,
            unit="/s",
            figure=Figure.of(1e6 / one.cpu_us for one in full_redis),
            is_at_least=True,
            note="by its CPU of an admission and a settlement with hundreds in flight",
        ),
    )
