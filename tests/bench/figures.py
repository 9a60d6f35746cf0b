"""What many samples say: medians with their spread, ratios within one round, and differences to ``direct``."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.bench.measure import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A median of rounds, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure | None:
        """The figure of some rounds; None without any."""
        seen = sorted(values)
        return cls(median=statistics.median(seen), low=seen[0], high=seen[-1]) if seen else None


class Samples:
    """The samples of a run, looked up by target, case and connections; each in the order of the rounds."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.all = tuple(samples)
        self._by_cell: dict[tuple[str, str, int], list[Sample]] = defaultdict(list)
        for sample in samples:
            self._by_cell[sample.target, sample.case, sample.connections].append(sample)

    def cell(self, target: str, case: str, connections: int) -> Sequence[Sample]:
        """All rounds of one cell."""
        return self._by_cell.get((target, case, connections), ())

    def figure(
        self, target: str, case: str, connections: int, value: Callable[[Sample], float | None]
    ) -> Figure | None:
        """A value of each round."""
        values = (value(sample) for sample in self.cell(target, case, connections))
        return Figure.of(one for one in values if one is not None)

    def paired(
        self,
        targets: tuple[str, str],
        case: str,
        connections: int,
        value: Callable[[Sample, Sample], float],
    ) -> Figure | None:
        """A value of two targets in the same round: a ratio, a difference."""
        first, second = (self.cell(target, case, connections) for target in targets)
        return Figure.of(value(one, other) for one, other in zip(first, second, strict=False))

    def cells(self) -> Sequence[tuple[str, str, int]]:
        """Every cell that was measured, in the order in which it was first."""
        return tuple(self._by_cell)

    def __repr__(self) -> str:
        return f"Samples({len(self.all)} of {len(self._by_cell)} cells)"
