"""Series of samples to coherence horizons: a number per sample, a survival curve per row."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from magbench.horizon import FREEZE, STAYS, WINDOW, Duration, Rule, duration, first, parse, survival
from magbench.records import MetricRecord, Reduction, Series, State
from magbench.reports.curves import Curve, Entry, Panel, origin

METRIC, PROFILE = "coherence_horizon", "default"
TOO_SHORT = f"the series is shorter than {WINDOW + STAYS:g} s"


def with_horizons(entries: Sequence[Entry], rules: Sequence[str]) -> list[Entry]:
    """The entries of a track, each with a metric more: for how many seconds it holds by each rule.

    A sample's number is restricted to what was seen of all videos of its case, so that rows compare. Where the cases
    are equally long, its mean over them is the restricted mean survival time, the area under the survival curve.

    Args:
        entries: Of one track.
        rules: As a run records them.
    """
    parsed = [parse(text) for text in rules]
    if not parsed:
        return list(entries)
    found = {rule: durations_of(entries, rule) for rule in parsed}
    return [
        replace(entry, metrics={**entry.metrics, f"{METRIC}@{PROFILE}": _record(i, entries, found)})
        if entry.sample.status == "ok"
        else entry
        for i, entry in enumerate(entries)
    ]


def survival_panels(
    entries: Sequence[Entry], labels: Sequence[str], references: Sequence[str], rules: Sequence[str]
) -> tuple[Panel, ...]:
    """One panel per rule: the share of a row's videos that still hold, over time.

    Args:
        entries: Of one track.
        labels: Rows to draw.
        references: Those of them that are no methods.
        rules: As a run records them.
    """
    panels = []
    for rule in map(parse, rules):
        durations = durations_of(entries, rule)
        curves = []
        for label in labels:
            mine = {i: d for i, d in durations.items() if entries[i].sample.method.label == label}
            if mine:
                cases = len({entries[i].sample.case.id for i in mine})
                curves.append(_steps(label, label in references, list(mine.values()), cases))
        if curves:
            panels.append(Panel(f"{METRIC}@{PROFILE}", str(rule), "share", "time", tuple(curves)))
    return tuple(panels)


def durations_of(entries: Sequence[Entry], rule: Rule) -> dict[int, Duration]:
    """By place in `entries`, of those that have the series for long enough."""
    real = {e.sample.case.id: e for e in entries if e.sample.method.label == "real"}
    found = {}
    for i, entry in enumerate(entries):
        times, values = _series(entry, rule)
        if rule.to_real and len(times):
            truth_times, truth = _series(real.get(entry.sample.case.id), rule)
            times, values = times[times <= max(truth_times, default=-1)], values[times <= max(truth_times, default=-1)]
            values = values - np.interp(times, truth_times, truth) if len(times) else values
        lost = duration(times, values, rule) if len(times) else None
        if lost:
            still = _series(entry, FREEZE)
            found[i] = first(lost, duration(*still, FREEZE) if len(still[0]) else None)
    return found


def _series(entry: Entry | None, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Times since the start of the generation, and values; empty where there are none."""
    record = entry.metrics.get(rule.metric) if entry else None
    none = Series(name=rule.series, times=(), values=())
    series = next((s for s in record.series if s.name == rule.series and s.axis == "time"), none) if record else none
    return np.array(series.times) - (origin(entry.sample) if entry else 0.0), np.array(series.values)


def _record(index: int, entries: Sequence[Entry], found: Mapping[Rule, Mapping[int, Duration]]) -> MetricRecord:
    entry = entries[index]
    case = [i for i, other in enumerate(entries) if other.sample.case.id == entry.sample.case.id]
    reductions = []
    for rule, durations in found.items():
        if index in durations:
            seen = min((durations[i].seconds for i in case if i in durations and not durations[i].event), default=None)
            seconds = durations[index].seconds if seen is None else min(durations[index].seconds, seen)
            reductions.append(Reduction(name=str(rule), state="value", value=seconds, direction="higher", unit="s"))
        else:
            state, reason = _why(entry, rule)
            reductions.append(Reduction(name=str(rule), state=state, reason=reason, direction="higher", unit="s"))
    times, still = _series(entry, FREEZE)
    frozen = duration(times, still, FREEZE) if len(times) else None
    if frozen:
        reductions.append(Reduction(name="frozen", state="value", value=float(frozen.event), direction="lower"))
    else:
        state, reason = _why(entry, FREEZE)
        reductions.append(Reduction(name="frozen", state=state, reason=reason, direction="lower"))
    return MetricRecord(
        metric=METRIC, profile=PROFILE, version=1, state="value", video_sha256="", reductions=tuple(reductions)
    )


def _why(entry: Entry, rule: Rule) -> tuple[State, str]:
    """Why a sample has no number."""
    record = entry.metrics.get(rule.metric)
    if record is None:
        return "not_applicable", f"{rule.metric} was not scored"
    if record.state != "value":
        return record.state, f"{rule.metric}: {record.reason}"
    if not any(series.name == rule.series for series in record.series):
        return "not_applicable", f"{rule.metric} has no series {rule.series!r}"
    return "not_applicable", TOO_SHORT


def _steps(label: str, reference: bool, durations: Sequence[Duration], cases: int) -> Curve:
    times, shares = survival(durations)
    end = max(d.seconds for d in durations)
    at = [0.0, *np.repeat(times, 2).tolist(), end]
    held = np.repeat([1.0, *shares.tolist()], 2).tolist()
    nothing = (None,) * len(at)
    return Curve(label, reference, tuple(at), tuple(held), nothing, nothing, cases)
