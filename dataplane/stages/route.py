"""Choosing backends: the candidates for a model in the order in which they are to be tried. Pure, nothing is sent."""

from __future__ import annotations

from dataplane.errors import ForbiddenError, UpstreamError
from dataplane.ports import Models, Upstreams
from dataplane.values import Candidate
from shared.modelname import CanonicalName


class Route:
    """The third stage. Priority first; among equals the backend with the fewest requests in flight for its weight."""

    def __init__(self, *, models: Models, upstreams: Upstreams) -> None:
        self._models = models
        self._upstreams = upstreams

    def __call__(self, model: CanonicalName) -> tuple[Candidate, ...]:
        """The candidates, at least one.

        Raises ``ForbiddenError`` when no backend has the model (any more), ``UpstreamError`` when circuit breakers
        reject it everywhere, and ``NotReadyError`` when nothing valid is known.
        """
        having = self._models.candidates(model)
        if not having:
            raise ForbiddenError("model_not_allowed")
        if len(having) == 1 and self._upstreams.available(having[0]):
            return having
        passing = [candidate for candidate in having if self._upstreams.available(candidate)]
        if not passing:
            raise UpstreamError(
                "the circuit breaker of every backend is open",
                retry_after_s=min(self._upstreams.retry_after_s(candidate) for candidate in having),
            )
        return tuple(sorted(passing, key=self._order))

    def _order(self, candidate: Candidate) -> tuple[int, float]:
        backend = candidate.backend
        # With this request in flight too: of idle backends, the heaviest goes first.
        return backend.priority, (self._upstreams.in_flight(backend.name) + 1) / backend.weight

    def __repr__(self) -> str:
        return "Route()"
