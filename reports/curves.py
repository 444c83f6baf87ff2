"""Series of samples to mean curves of methods, and when things happened on the way."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from magbench.records import MetricRecord, SampleRecord, Series, TraceRecord
from magbench.stats import mean_bands

Floats = NDArray[np.float64]
MARKED = 5
"""Most methods whose cache events are drawn below a curve."""
TICKS = 400
"""Most marks along a time axis; more of them make a bar."""
DRAWN_POINTS = 800
"""Most points of a curve in a plot; of a longer one, means of neighbours are drawn."""
BAND_RESAMPLES = 1000
"""Fewer than for the numbers of a table: there are hundreds of points, and they are only drawn."""


@dataclass(frozen=True)
class Entry:
    """A sample with all that is known of it."""

    sample: SampleRecord
    metrics: Mapping[str, MetricRecord]
    """By `metric@profile`."""
    trace: tuple[TraceRecord, ...]


@dataclass(frozen=True)
class Curve:
    """Mean over cases, at the times that all of them reach."""

    label: str
    reference: bool
    times: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float | None, ...]
    """Pointwise 95 % interval of the mean; None where there is none."""
    high: tuple[float | None, ...]
    cases: int

    def binned(self, size: int) -> "Curve":
        """The curve with the mean of each `size` points in their place."""
        if size < 2:
            return self

        def means(values: Sequence[float | None]) -> Floats:
            """A bin is empty where any of its values is."""
            numbers = np.array([np.nan if value is None else value for value in values])
            return np.array([numbers[i : i + size].mean() for i in range(0, len(numbers), size)])

        times, mean = tuple(means(self.times).tolist()), tuple(means(self.mean).tolist())
        return replace(self, times=times, mean=mean, low=_optional(means(self.low)), high=_optional(means(self.high)))


@dataclass(frozen=True)
class Panel:
    """One metric series, all rows."""

    metric: str
    """`metric@profile`."""
    series: str
    unit: str
    axis: Literal["time", "lag"]
    curves: tuple[Curve, ...]
    bin: int = 1
    """How many points of the series each point is the mean of."""

    @property
    def title(self) -> str:
        """`metric@profile · series`."""
        return f"{self.metric} · {self.series}" + (f", means of {self.bin}" if self.bin > 1 else "")

    def drawable(self) -> "Panel":
        """The panel with no more than `DRAWN_POINTS` points to a curve."""
        size = -(-max(len(curve.times) for curve in self.curves) // DRAWN_POINTS)
        return replace(self, bin=size, curves=tuple(curve.binned(size) for curve in self.curves))

    def only(self, labels: Container[str]) -> "Panel":
        """The panel with these rows alone."""
        return replace(self, curves=tuple(curve for curve in self.curves if curve.label in labels))


@dataclass(frozen=True)
class Timeline:
    """When things happened, in seconds; from the switch where there is one."""

    switch: bool
    """True when a given history comes before time zero."""
    chunk_borders: tuple[float, ...]
    events: Mapping[str, tuple[float, ...]]
    """Method -> when its cache evicted, absorbed, compressed or re-arranged something, in any case."""

    @property
    def ticks(self) -> tuple[float, ...]:
        """The chunk borders; none where they are too many to tell apart."""
        return self.chunk_borders if len(self.chunk_borders) <= TICKS else ()

    @property
    def marked(self) -> Mapping[str, tuple[float, ...]]:
        """The events of those that have any; none for more methods, or more events, than have room below a curve."""
        rows = {label: times for label, times in self.events.items() if times}
        return rows if len(rows) <= MARKED and all(len(times) <= TICKS for times in rows.values()) else {}

    def only(self, labels: Container[str]) -> "Timeline":
        """The timeline of these methods alone."""
        return replace(self, events={label: at for label, at in self.events.items() if label in labels})


def origin(sample: SampleRecord) -> float:
    """Seconds from the start of the video to time zero of the plots: the end of the given history."""
    return sample.history_frames / sample.video.fps if sample.video and sample.history_frames else 0.0


def timeline(entries: Iterable[Entry], methods: Sequence[str]) -> Timeline:
    """Collect chunk borders and cache events of all methods' samples."""
    borders: set[float] = set()
    events: dict[str, set[float]] = {label: set() for label in methods}
    switch = False
    for entry in entries:
        sample = entry.sample
        if sample.video is None or sample.method.label not in events:
            continue
        zero, fps = origin(sample), sample.video.fps
        switch = switch or zero > 0
        borders |= {round(border / fps - zero, 4) for border in sample.timing.chunk_borders}
        starts = (sample.history_frames, *sample.timing.chunk_borders)
        chunks = (chunk for chunk in entry.trace if chunk.kind == "generate")
        events[sample.method.label] |= {
            round(start / fps - zero, 4) for chunk, start in zip(chunks, starts, strict=False) if chunk.events
        }
    return Timeline(switch, tuple(sorted(borders)), {label: tuple(sorted(at)) for label, at in events.items()})


def panels(entries: Sequence[Entry], labels: Sequence[str], references: Sequence[str]) -> tuple[Panel, ...]:
    """One panel for each series that any sample has, with a curve for each row that has it."""
    names: dict[tuple[str, str], Series] = {}
    for entry in entries:
        for record in entry.metrics.values():
            for series in record.series:
                names.setdefault((record.name, series.name), series)
    found = []
    for (metric, name), example in names.items():
        curves = [
            curve
            for label in labels
            if (
                curve := _curve(
                    [e for e in entries if e.sample.method.label == label], metric, name, label in references
                )
            )
        ]
        if curves:
            found.append(Panel(metric, name, example.unit, example.axis, tuple(curves)))
    return tuple(found)


def _curve(entries: Sequence[Entry], metric: str, name: str, reference: bool) -> Curve | None:
    lines: list[tuple[str, Floats, Floats]] = []
    for entry in entries:
        record = entry.metrics.get(metric)
        series = next((s for s in record.series if s.name == name), None) if record else None
        if series and series.times:
            shift = origin(entry.sample) if series.axis == "time" else 0.0
            lines.append((entry.sample.case.id, np.asarray(series.times) - shift, np.asarray(series.values)))
    if not lines:
        return None
    grid = _grid([times for _, times, _ in lines])
    by_case: dict[str, list[Floats]] = {}
    for case, times, values in lines:
        by_case.setdefault(case, []).append(np.interp(grid, times, values))
    if not len(grid):
        return None
    mean, low, high = mean_bands(
        np.array([np.mean(seeds, axis=0) for seeds in by_case.values()]), resamples=BAND_RESAMPLES
    )
    label = entries[0].sample.method.label
    return Curve(
        label, reference, tuple(grid.tolist()), tuple(mean.tolist()), _optional(low), _optional(high), len(by_case)
    )


def _grid(all_times: Sequence[Floats]) -> Floats:
    """The times of the coarsest series, as far as every series reaches."""
    start, end = max(t[0] for t in all_times), min(t[-1] for t in all_times)
    coarsest = max(all_times, key=lambda t: float(np.median(np.diff(t))) if len(t) > 1 else 0.0)
    grid: Floats = coarsest[(coarsest >= start - 1e-6) & (coarsest <= end + 1e-6)]
    return grid


def _optional(values: Floats) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)
