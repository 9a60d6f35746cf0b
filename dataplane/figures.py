"""Counting at the cost of an addition, and adding up over the workers of a replica.

A worker counts in plain dictionaries that belong to its event loop. ``figure`` of an instrument is a value that can
leave the process; ``merged`` adds the figures of several workers, ``families`` is what a scrape shows of them. How many
series an instrument may have is bounded, whatever its labels are told: what comes later is counted as ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

MAX_SERIES = 10_000
OTHER = "other"

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "min", "max"]
Labels = tuple[str, ...]

_MERGES: Mapping[Merge, Callable[[float, float], float]] = {"sum": lambda a, b: a + b, "min": min, "max": max}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one instrument.

    A series has one number; that of a histogram has one for each bucket, one for what lies above them, and the sum.
    """

    name: str
    help: str
    kind: Kind
    labels: Labels = ()
    bounds: tuple[float, ...] = ()
    # What several workers make of their gauges; all else is added up.
    merge: Merge = "sum"
    series: list[tuple[Labels, list[float]]] = []


class Counter:
    """A number per label set that only grows."""

    __slots__ = ("_help", "_labels", "_name", "_series")

    def __init__(self, name: str, help_text: str, labels: Labels = ()) -> None:
        self._name = name
        self._help = help_text
        self._labels = labels
        self._series: dict[Labels, float] = {}

    def add(self, labels: Labels = (), amount: float = 1) -> None:
        """Adds to one series."""
        series = self._series
        try:
            series[labels] += amount
        except KeyError:
            labels = _admitted(series, labels)
            series[labels] = series.get(labels, 0) + amount

    def figure(self) -> Figure:
        """The numbers as they are now."""
        series = [(labels, [value]) for labels, value in self._series.items()]
        return Figure(name=self._name, help=self._help, kind="counter", labels=self._labels, series=series)

    def __repr__(self) -> str:
        return f"Counter({self._name}, series={len(self._series)})"


class Histogram:
    """How often a value fell into which bucket, per label set; ``bounds`` are the buckets' upper ends."""

    __slots__ = ("_bounds", "_help", "_labels", "_name", "_series")

    def __init__(self, name: str, help_text: str, labels: Labels = (), *, bounds: tuple[float, ...]) -> None:
        self._name = name
        self._help = help_text
        self._labels = labels
        self._bounds = bounds
        self._series: dict[Labels, list[float]] = {}

    def observe(self, value: float, labels: Labels = ()) -> None:
        """Counts one value."""
        row = self._series.get(labels)
        if row is None:
            labels = _admitted(self._series, labels)
            row = self._series.setdefault(labels, [0] * (len(self._bounds) + 2))
        row[bisect_left(self._bounds, value)] += 1
        row[-1] += value

    def figure(self) -> Figure:
        """The numbers as they are now."""
        series = [(labels, [*row]) for labels, row in self._series.items()]
        return Figure(
            name=self._name, help=self._help, kind="histogram", labels=self._labels, bounds=self._bounds, series=series
        )

    def __repr__(self) -> str:
        return f"Histogram({self._name}, series={len(self._series)})"


class Reading:
    """Numbers that somebody keeps anyway, read when somebody looks."""

    __slots__ = ("_help", "_kind", "_labels", "_merge", "_name", "_read")

    def __init__(
        self,
        name: str,
        help_text: str,
        read: Callable[[], float | Mapping[Labels, float]],
        *,
        labels: Labels = (),
        kind: Kind = "gauge",
        merge: Merge = "sum",
    ) -> None:
        self._name = name
        self._help = help_text
        self._read = read
        self._labels = labels
        self._kind = kind
        self._merge = merge

    def figure(self) -> Figure:
        """The numbers as they are now."""
        read = self._read()
        values = read if isinstance(read, Mapping) else {(): read}
        series = [(labels, [float(value)]) for labels, value in values.items()]
        return Figure(
            name=self._name, help=self._help, kind=self._kind, labels=self._labels, merge=self._merge, series=series
        )

    def __repr__(self) -> str:
        return f"Reading({self._name})"


def merged(workers: Iterable[Iterable[Figure]]) -> list[Figure]:
    """The figures of all workers as one of each name."""
    by_name: dict[str, Figure] = {}
    for figures in workers:
        for figure in figures:
            before = by_name.get(figure.name)
            by_name[figure.name] = figure if before is None else _added(before, figure)
    return list(by_name.values())


def families(figures: Iterable[Figure]) -> Iterator[Metric]:
    """The same in the form that ``prometheus_client`` renders."""
    for figure in figures:
        if figure.kind == "histogram":
            yield _histogram(figure)
            continue
        kind = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
        family = kind(figure.name, figure.help, labels=figure.labels)
        for labels, (value,) in figure.series:
            family.add_metric(labels, value)
        yield family


def _histogram(figure: Figure) -> HistogramMetricFamily:
    family = HistogramMetricFamily(figure.name, figure.help, labels=figure.labels)
    ends = [*(str(float(bound)) for bound in figure.bounds), "+Inf"]
    for labels, row in figure.series:
        buckets, count = [], 0.0
        for end, value in zip(ends, row[:-1], strict=True):
            count += value
            buckets.append((end, count))
        family.add_metric(labels, buckets, sum_value=row[-1])
    return family


def _added(one: Figure, other: Figure) -> Figure:
    merge = _MERGES[one.merge]
    series = dict(one.series)
    for labels, row in other.series:
        before = series.get(labels)
        series[labels] = row if before is None else [merge(a, b) for a, b in zip(before, row, strict=True)]
    return msgspec.structs.replace(one, series=list(series.items()))


def _admitted(series: Mapping[Labels, object], labels: Labels) -> Labels:
    return labels if len(series) < MAX_SERIES else (OTHER,) * len(labels)
