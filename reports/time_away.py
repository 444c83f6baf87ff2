"""Retention against time away: how much is left, the longer a place was out of sight.

Procedural cases say in their stratum how long they stay away. In a palindromic clip every frame has its own time: what
frame t shows was last seen at frame `mirror - t`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from statistics import fmean

from magbench.records import CaseRecord, Direction
from magbench.reports.curves import Entry
from magbench.reports.model import Row, TrackReport, lookup
from magbench.reports.sweep import shown
from magbench.stats import Estimate, case_means, mean_estimate

MOST_BINS = 8
"""Bins of seconds along the axis."""
METRIC, SERIES = "retention@default", "aligned_psnr"
"""What is followed through a clip."""
_STRATUM = re.compile(r"away (\d+(?:\.\d+)?) (\w+)")


@dataclass(frozen=True)
class AwayPoint:
    """One row at one time away."""

    away: float
    name: str
    """The time in words, without the unit."""
    estimate: Estimate


@dataclass(frozen=True)
class AwayLine:
    """One row."""

    label: str
    reference: bool
    points: tuple[AwayPoint, ...]
    """By time away."""


@dataclass(frozen=True)
class AwayPanel:
    """One endpoint."""

    title: str
    value_unit: str
    direction: Direction
    unit: str
    """Of the time away."""
    lines: tuple[AwayLine, ...]


Values = dict[tuple[float, str], dict[str, list[float]]]
"""Time away and its name -> case -> a value per seed."""


def time_away(track: TrackReport) -> Mapping[str, tuple[AwayPanel, ...]]:
    """The endpoints against time away, by its unit; nothing where all cases are away for the same time."""
    entries: dict[str, list[Entry]] = {row.label: [] for row in shown(track)}
    for entry in track.entries:
        if entry.sample.method.label in entries:
            entries[entry.sample.method.label].append(entry)
    found: dict[str, list[AwayPanel]] = {}
    for unit in dict.fromkeys(away[1] for e in track.entries if (away := _stratum(e.sample.case))):
        for column in (column for column in track.columns if column.primary and column.quality):
            values: dict[str, Values] = {label: {} for label in entries}
            for label, entry in ((label, entry) for label, mine in entries.items() for entry in mine):
                away, value = _stratum(entry.sample.case), lookup(entry, column)[1]
                if away and away[1] == unit and value is not None:
                    cases = values[label].setdefault((away[0], f"{away[0]:g}"), {})
                    cases.setdefault(entry.sample.case.id, []).append(value)
            lines = _lines(shown(track), values)
            if lines:
                found.setdefault(unit, []).append(AwayPanel(column.key, column.unit, column.direction, unit, lines))
    lines = _lines(shown(track), _through_clips(entries))
    if lines:
        found.setdefault("seconds", []).append(AwayPanel(f"{METRIC} · {SERIES}", "dB", "higher", "seconds", lines))
    return {unit: tuple(panels) for unit, panels in found.items() if len(_times(panels)) > 1}


def _times(panels: Iterable[AwayPanel]) -> set[float]:
    return {point.away for panel in panels for line in panel.lines for point in line.points}


def _stratum(case: CaseRecord) -> tuple[float, str] | None:
    match = _STRATUM.fullmatch(case.stratum)
    return (float(match[1]), match[2]) if match else None


def _lines(rows: Iterable[Row], values: Mapping[str, Values]) -> tuple[AwayLine, ...]:
    found = []
    for row in rows:
        points = [
            AwayPoint(away, name, mean_estimate(list(case_means(cases).values())))
            for (away, name), cases in sorted(values[row.label].items())
        ]
        if points:
            found.append(AwayLine(row.label, row.reference, tuple(points)))
    return tuple(found)


def _through_clips(entries: Mapping[str, Iterable[Entry]]) -> dict[str, Values]:
    """Per row, the series' mean in each bin of seconds since the place was last seen."""
    seen = {label: [(e, _since(e)) for e in mine] for label, mine in entries.items()}
    times = [time for mine in seen.values() for _, frames in mine for time, _ in frames]
    if not times:
        return {label: {} for label in entries}
    width = next(width for width in _widths() if max(times) // width - min(times) // width < MOST_BINS)
    found: dict[str, Values] = {}
    for label, mine in seen.items():
        bins: Values = {}
        for entry, frames in mine:
            by_bin: dict[float, list[float]] = {}
            for time, value in frames:
                by_bin.setdefault(time // width * width, []).append(value)
            for start, members in by_bin.items():
                cases = bins.setdefault((start + width / 2, f"{start:g}–{start + width:g}"), {})
                cases.setdefault(entry.sample.case.id, []).append(fmean(members))
        found[label] = bins
    return found


def _widths() -> Iterable[float]:
    return (step * 10.0**power for power in count() for step in (1, 2, 5))


def _since(entry: Entry) -> list[tuple[float, float]]:
    """Seconds since the place was last seen, and the value, of each frame of a palindromic clip."""
    mirror, video, record = entry.sample.case.mirror, entry.sample.video, entry.metrics.get(METRIC)
    if mirror is None or video is None or record is None:
        return []
    return [
        (2 * time - mirror / video.fps, value)
        for series in record.series
        if series.name == SERIES
        for time, value in zip(series.times, series.values, strict=True)
    ]
