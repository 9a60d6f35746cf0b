"""Which models are in memory: what /api/ps shows, when a model must be loaded, and how long that takes.

Rules: Ollama source server/sched.go needsReload (other runner options mean a reload), server/routes.go PsHandler.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from deploy.mock_ollama.catalogue import Model, details

_KEEP_ALIVE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """One loaded model; times are monotonic seconds."""

    model: Model
    options: Mapping[str, object]
    num_ctx: int
    ready_at_s: float
    expires_at_s: float


class LoadedModels:
    """The models in memory, and how many loads there were."""

    def __init__(self) -> None:
        self.loads_total = 0
        self._runners: dict[str, Runner] = {}

    def __repr__(self) -> str:
        return f"LoadedModels({list(self._runners)}, loads_total={self.loads_total})"

    def use(
        self,
        model: Model,
        options: Mapping[str, object],
        *,
        num_ctx: int,
        keep_alive_s: float | None,
        load_delay_s: float,
        now_s: float,
    ) -> float:
        """Load `model` unless it is loaded with the same options; returns the seconds until it can answer."""
        runner = self._runners.get(model.name)
        ready_at_s = runner.ready_at_s if runner else now_s
        if runner is None or runner.expires_at_s <= now_s or runner.options != options:
            self.loads_total += 1
            ready_at_s = now_s + load_delay_s
        keep_s = _KEEP_ALIVE_S if keep_alive_s is None else keep_alive_s
        self._runners[model.name] = Runner(
            model=model,
            options=options,
            num_ctx=num_ctx,
            ready_at_s=ready_at_s,
            expires_at_s=max(now_s, ready_at_s) + keep_s,
        )
        return max(0.0, ready_at_s - now_s)

    def unload(self, model: Model) -> None:
        """Throw `model` out of memory."""
        self._runners.pop(model.name, None)

    def answer(self, now_s: float) -> dict[str, Any]:
        """The answer of /api/ps."""
        self._runners = {name: runner for name, runner in self._runners.items() if runner.expires_at_s > now_s}
        return {"models": [_entry(runner, now_s) for runner in _longest_first(self._runners.values())]}


def _longest_first(runners: Iterable[Runner]) -> list[Runner]:
    return sorted(runners, key=lambda runner: -runner.expires_at_s)


def _entry(runner: Runner, now_s: float) -> dict[str, Any]:
    left_s = runner.expires_at_s - now_s
    expires = datetime(2318, 11, 21, tzinfo=UTC)
    if not math.isinf(left_s) and left_s < 1e9:
        expires = datetime.now(UTC) + timedelta(seconds=left_s)
    return {
        "name": runner.model.name,
        "model": runner.model.name,
        "size": runner.model.size_bytes,
        "digest": runner.model.digest,
        "details": details(runner.model),
        "expires_at": expires.isoformat().replace("+00:00", "Z"),
        "size_vram": runner.model.size_bytes,
        "context_length": runner.num_ctx,
    }
