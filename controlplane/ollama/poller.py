"""One poll of one backend: its models, each with what ``/api/show`` says of it, asked once per digest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from controlplane.core.discovery import Poll
from controlplane.errors import UpstreamProbeError
from controlplane.ollama.answers import Details
from controlplane.ollama.client import OllamaClient, Target
from shared import logs
from shared.records import BackendModelsRecord, ModelRecord

# Questions about models at one backend at once, and the time for all of them in one poll.
SHOWS_AT_ONCE = 4
SHOW_BUDGET_S = 3.0

_log = logs.get("controlplane.ollama.poller")


class Poller:
    """Polls backends and remembers, per backend and digest, what was said about a model."""

    def __init__(self, client: OllamaClient, *, show_budget_s: float = SHOW_BUDGET_S) -> None:
        self._client = client
        self._show_budget_s = show_budget_s
        self._known: dict[str, dict[str, Details]] = {}

    async def poll(self, target: Target, before: BackendModelsRecord | None) -> tuple[Poll, bool]:
        """The outcome, and whether it is complete: False when time ran out with models still to be asked about.

        ``before`` is what is published of this backend: its details need not be asked again.
        """
        try:
            listing = await self._client.tags(target)
        except UpstreamProbeError as fault:
            return Poll(backend=target.name, problem=str(fault)), True
        if listing.skipped:
            _log.debug("models_skipped", backend=target.name, count=listing.skipped)
        known = _published(before) | self._known.get(target.name, {})
        missing = [model for model in listing.models if _identity(model) not in known]
        found, complete = await self._ask(target, missing)
        known |= found
        # Only what is listed now is remembered, so that a backend cannot make this grow.
        self._known[target.name] = {
            identity: known[identity] for model in listing.models if (identity := _identity(model)) in known
        }
        models = tuple(_described(model, known) for model in listing.models)
        return Poll(backend=target.name, models=models), complete or not found

    def forget(self, names: frozenset[str]) -> None:
        """Drops what is remembered of backends that are not among ``names``."""
        self._known = {name: details for name, details in self._known.items() if name in names}

    async def _ask(self, target: Target, models: list[ModelRecord]) -> tuple[dict[str, Details], bool]:
        found: dict[str, Details] = {}
        waiting = models[::-1]

        async def work() -> None:
            while waiting:
                model = waiting.pop()
                try:
                    found[_identity(model)] = await self._client.show(target, model.name)
                except UpstreamProbeError as fault:
                    # The model is listed without details; the next poll asks again.
                    _log.debug("model_not_described", backend=target.name, fault=str(fault))

        try:
            async with asyncio.timeout(self._show_budget_s), asyncio.TaskGroup() as tasks:
                for _ in range(min(SHOWS_AT_ONCE, len(models))):
                    tasks.create_task(work())
        except TimeoutError:
            return found, False
        return found, True

    def __repr__(self) -> str:
        return f"Poller(backends={len(self._known)})"


def _identity(model: ModelRecord) -> str:
    """What a description belongs to: the digest, or the best that a backend without digests says."""
    return model.digest or f"{model.name} {model.modified_at} {model.size_bytes}"


def _published(before: BackendModelsRecord | None) -> dict[str, Details]:
    """Details that some replica has asked for already; a model without any may never have been asked about."""
    return {
        _identity(model): Details(
            capabilities=model.capabilities,
            context_length=model.context_length,
            embedding_length=model.embedding_length,
            template_bytes=model.template_bytes,
        )
        for model in (before.models if before else ())
        if model.capabilities or model.context_length
    }


def _described(model: ModelRecord, known: Mapping[str, Details]) -> ModelRecord:
    details = known.get(_identity(model))
    return model if details is None else msgspec.structs.replace(model, **msgspec.structs.asdict(details))
