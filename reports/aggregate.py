"""Records to the report: aggregate samples, compare with the baseline, rank."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean

from magbench.errors import ConfigError
from magbench.records import MetricRecord, RunRecord, SampleRecord, State, TraceRecord
from magbench.reports.curves import Entry, panels, timeline
from magbench.reports.horizons import METRIC as HORIZON
from magbench.reports.horizons import survival_panels, with_horizons
from magbench.reports.model import (
    EFFICIENCY,
    Cell,
    Column,
    Cost,
    Failure,
    Missing,
    Report,
    Row,
    TrackReport,
    Use,
    lookup,
)
from magbench.stats import Difference, case_means, holm, mean_estimate, paired_difference, rank_intervals
from magbench.traces import generated

LEVEL = 0.05
MOTION, FREEZING = "motion@default/magnitude", "motion@default/freeze_share"
FROZEN = 0.5
"""Share of still pairs from which a row counts as frozen."""
KEY_METRICS = (
    "landmark_recall",
    "retention",
    "self_retention",
    "subject_consistency",
    "appearance_drift",
    HORIZON,
    "subject_identity",
    "motion",
    "ssim_consecutive",
    "lpips_consecutive",
)
"""Candidates for the headline table after the primary endpoints, in this order; then all others but efficiency."""
HEADLINE_COLUMNS = 5
REFERENCES = ("real", "static", "shuffled")


def build_report(
    run: RunRecord,
    entries: Iterable[tuple[SampleRecord, Sequence[MetricRecord], Sequence[TraceRecord]]],
    baseline: str | None = None,
) -> Report:
    """Aggregate a run.

    Args:
        run: Its record; `methods` gives the order of methods, `primary` the endpoints.
        entries: Every sample with its metrics and its trace.
        baseline: Label of the method to compare with; None takes the first.

    Raises:
        ConfigError: no sample's method has the label `baseline`.
    """
    found = [Entry(sample, {m.name: m for m in metrics}, tuple(trace)) for sample, metrics, trace in entries]
    found.sort(key=lambda e: (e.sample.case.id, e.sample.seed, e.sample.key))
    present = {e.sample.method.label for e in found if e.sample.method.policy != "reference"}
    labels = [label for label in run.methods if label in present]
    labels += sorted(present - set(labels))
    if baseline is not None and baseline not in labels:
        raise ConfigError(f"no method {baseline!r} in this run", f"it has: {', '.join(labels) or 'none'}")
    tracks = dict.fromkeys([*run.primary, *(e.sample.case.track for e in found)])
    reports = [
        _track(name, tuple(run.primary.get(track, ())), run.horizons.get(track, ()), members, labels, baseline)
        for track in tracks
        for name, members in by_length(track, [e for e in found if e.sample.case.track == track]).items()
    ]
    return Report(run, tuple(reports), tuple(labels))


def by_length(track: str, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Long-horizon samples by the length of their cases, shortest first: drift at a minute is not drift at an hour.

    Returns:
        Name of a section -> its samples. A track with cases of one length, or another track, is one section.
    """
    lengths: dict[int, list[Entry]] = {}
    for entry in entries:
        lengths.setdefault(entry.sample.case.frames if track == "long-horizon" else 0, []).append(entry)
    if len(lengths) < 2:
        return {track: list(entries)} if entries else {}
    seconds = {frames: _seconds(members) for frames, members in lengths.items()}
    clear = None not in seconds.values() and len(set(seconds.values())) == len(seconds)
    return {f"{track}-{f'{seconds[n]}s' if clear else f'{n}-latents'}": lengths[n] for n in sorted(lengths)}


def _seconds(entries: Iterable[Entry]) -> int | None:
    """The length of videos of one case length in whole seconds; None where there is no video."""
    found = [round(video.frames / video.fps) for entry in entries if (video := entry.sample.video)]
    return found[0] if found else None


def _track(
    name: str,
    primary: tuple[str, ...],
    horizons: tuple[str, ...],
    entries: list[Entry],
    order: Sequence[str],
    baseline: str | None,
) -> TrackReport:
    entries = with_horizons(entries, horizons)
    by_label: dict[str, dict[tuple[str, int], Entry]] = {}
    for entry in entries:
        by_label.setdefault(entry.sample.method.label, {})[entry.sample.case.id, entry.sample.seed] = entry
    methods = [label for label in order if label in by_label]
    references = sorted((label for label in by_label if label not in methods), key=_reference_order)
    expected = sorted({pair for found in by_label.values() for pair in found})
    own = {entry.sample.method.label for entry in entries if entry.sample.method.policy == "file"}
    base = baseline if baseline in methods else methods[0] if methods else ""
    if all(label == base or by_label[label].keys().isdisjoint(by_label[base]) for label in methods):
        base = ""
    columns = _columns(entries, primary)
    rows = [
        _row(by_label[label], columns, sorted(by_label[label]) if label in own else expected)
        for label in methods + references
    ]
    columns = _headlines(columns, rows)
    values = {row.label: {c.key: _case_values(by_label[row.label], c) for c in columns} for row in rows}
    rows = _compare(_pair(rows, base), columns, values)
    rows = [replace(row, unranked="; ".join(filter(None, _unranked(row, columns, values)))) for row in rows]
    rows = _rank(rows, columns, values)
    place = {row.label: index for index, row in enumerate(rows)}
    entries = sorted(entries, key=lambda e: (e.sample.case.id, e.sample.seed, place[e.sample.method.label]))
    drawn = [row.label for row in rows if not (own and row.reference)]
    return TrackReport(
        name=name,
        baseline=base,
        columns=columns,
        rows=tuple(rows),
        panels=panels(entries, drawn, references) + survival_panels(entries, drawn, references, horizons),
        timeline=timeline(entries, methods),
        cases=len({case for case, _ in expected}),
        failures=tuple(_failures(entries)),
        missing=tuple(_missing(entries)),
        entries=tuple(entries),
    )


def _reference_order(label: str) -> tuple[int, str]:
    return (REFERENCES.index(label) if label in REFERENCES else len(REFERENCES), label)


def _columns(entries: Iterable[Entry], primary: Sequence[str]) -> tuple[Column, ...]:
    found: dict[str, Column] = {}
    metrics: dict[str, None] = {}
    for entry in entries:
        for name, record in entry.metrics.items():
            metrics[name] = None
            for r in record.reductions:
                column = Column(name, r.name, r.direction, r.unit)
                found.setdefault(column.key, replace(column, primary=column.key in primary))
    known = {column.metric for column in found.values()}
    for name in metrics:
        if name not in known:
            found[name] = Column(name, "")
    for key in primary:
        metric, _, reduction = key.partition("/")
        if metric not in known:
            found.pop(metric, None)
        if key not in found:
            found[key] = Column(metric, reduction, primary=True)
    first = [found.pop(key) for key in dict.fromkeys(primary)]
    return tuple(first + sorted(found.values(), key=lambda c: _metric_order(c.metric)))


def _metric_order(name: str) -> tuple[int, str]:
    metric = name.partition("@")[0]
    return (KEY_METRICS.index(metric) if metric in KEY_METRICS else len(KEY_METRICS) + (metric == EFFICIENCY), name)


def _headlines(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[Column, ...]:
    """Mark the primary endpoints, then one column of each key metric that has values.

    That is its headline; of consecutive-frame metrics the first with a direction, as a frozen video has the best level.
    """
    chosen = {column.key for column in columns if column.primary}
    shown = {column.metric.partition("@")[0] for column in columns if column.primary}
    valued = [c for c in columns if any(r.cells[c.key].state == "value" for r in rows if not r.reference)]
    names = (c.metric.partition("@")[0] for c in valued if c.quality)
    for metric in dict.fromkeys((*KEY_METRICS, *names)):
        mine = [c for c in valued if c.metric.partition("@")[0] == metric]
        if mine and metric not in shown and len(chosen) < HEADLINE_COLUMNS:
            directed = [c for c in mine if c.direction != "none"] if metric.endswith("_consecutive") else []
            chosen.add((directed or mine)[0].key)
    return tuple(replace(column, headline=column.key in chosen) for column in columns)


def _row(
    entries: Mapping[tuple[str, int], Entry], columns: Sequence[Column], expected: Sequence[tuple[str, int]]
) -> Row:
    cells = {column.key: _cell(entries, column, expected) for column in columns}
    samples = [entry.sample for entry in entries.values()]
    extended = sum(sample.extended and sample.status == "ok" for sample in samples)
    return Row(samples[0].method, cells, _cost(entries.values()), extended=extended)


def _cost(entries: Iterable[Entry]) -> Cost | None:
    cases: dict[str, list[list[TraceRecord]]] = {}
    for entry in entries:
        if chunks := generated(entry.trace):
            cases.setdefault(entry.sample.case.id, []).append(chunks)
    if not cases:
        return None

    def use(name: str) -> Use:
        means = {case: [fmean(getattr(c, name) for c in chunks) for chunks in seeds] for case, seeds in cases.items()}
        peak = max(getattr(c, name) for seeds in cases.values() for chunks in seeds for c in chunks)
        return Use(peak, fmean(case_means(means).values()))

    return Cost(
        past_frames=use("past_frames"),
        keys_passes=use("keys_passes"),
        cache_bytes=use("cache_bytes"),
        state_bytes=use("state_bytes"),
        network_bytes=int(use("network_bytes").peak),
    )


def _cell(entries: Mapping[tuple[str, int], Entry], column: Column, expected: Sequence[tuple[str, int]]) -> Cell:
    reasons: dict[tuple[State, str], int] = {}
    for pair in expected:
        state, _, reason = lookup(entries.get(pair), column)
        if state != "value":
            reasons[state, reason] = reasons.get((state, reason), 0) + 1
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    lines = tuple(f"{_words(state)}: {text} ({k} of {len(expected)} samples)" for (state, text), k in ordered)
    have = len(expected) - sum(reasons.values())
    if have:
        means = list(case_means(_case_lists(entries, column)).values())
        return Cell("value", mean_estimate(means), have, len(expected), lines)
    state = "error" if any(state == "error" for state, _ in reasons) else "not_applicable"
    return Cell(state, None, 0, len(expected), lines)


def _words(state: State) -> str:
    return state.replace("_", " ")


def _case_lists(entries: Mapping[tuple[str, int], Entry], column: Column) -> dict[str, list[float]]:
    lists: dict[str, list[float]] = {}
    for (case, _), entry in entries.items():
        value = lookup(entry, column)[1]
        if value is not None:
            lists.setdefault(case, []).append(value)
    return lists


def _case_values(entries: Mapping[tuple[str, int], Entry], column: Column) -> dict[str, float]:
    return case_means(_case_lists(entries, column))


Values = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Row label -> column key -> case -> mean over its seeds."""


def _pair(rows: Sequence[Row], base: str) -> list[Row]:
    """Find what each method is compared with: the baseline at the same budget, else the baseline itself."""
    family = next((row.family for row in rows if row.label == base), None)
    same = {row.block: row.label for row in rows if row.family == family and row.applies}

    def partner(row: Row) -> str:
        twin = same.get(row.block, base)
        return "" if row.reference or row.label == base else base if twin == row.label else twin

    return [replace(row, against=partner(row)) for row in rows]


def _compare(rows: Sequence[Row], columns: Sequence[Column], values: Values) -> list[Row]:
    """Add the paired differences to what each row is compared with, and their marks."""
    differences: dict[tuple[str, str], Difference] = {}
    for row in rows:
        for column in columns:
            mine, other = values[row.label][column.key], values.get(row.against, {}).get(column.key, {})
            if any(case in other for case in mine):
                differences[row.label, column.key] = paired_difference(mine, other)
    primary = {column.key for column in columns if column.primary}
    family = [at for at, d in differences.items() if at[1] in primary and d.p is not None]
    adjusted = dict(zip(family, holm([differences[at].p or 0.0 for at in family]), strict=True))
    compared = []
    for row in rows:
        cells = {}
        for column in columns:
            at = (row.label, column.key)
            cell, d = row.cells[column.key], differences.get(at)
            if d is not None:
                mark = _mark(d, adjusted.get(at), column)
                cell = replace(cell, difference=d, p_adjusted=adjusted.get(at), mark=mark)
            cells[column.key] = cell
        compared.append(replace(row, cells=cells))
    return compared


def _mark(d: Difference, adjusted: float | None, column: Column) -> str:
    p = adjusted if adjusted is not None else d.p
    if p is None:
        return ""
    if p > LEVEL:
        return "~" if column.primary else ""
    sign = "≠" if column.direction == "none" else "+" if (d.value > 0) == (column.direction == "higher") else "-"
    return sign if column.primary else f"({sign})"


def _unranked(row: Row, columns: Sequence[Column], values: Values) -> Iterator[str]:
    """Why a method is not ranked: its budget can't be chosen, or it has less than half the motion of the real row.

    A frozen video wins many metrics.
    """
    if not row.method.matched:
        budget = row.method.budget_frames
        seen = "all past frames" if budget is None else f"{budget:g} past frames"
        yield f"unmatched: sees {seen} whatever the budget"
    if row.reference or not {MOTION, FREEZING} <= {column.key for column in columns}:
        return
    frozen = row.cells[FREEZING].estimate
    if frozen and frozen.value >= FROZEN:
        yield f"unranked: frozen for {100 * frozen.value:.0f} % of the time"
        return
    mine, real = values[row.label][MOTION], values.get("real", {}).get(MOTION, {})
    common = [case for case in mine if case in real]
    moved, reference = sum(mine[case] for case in common), sum(real[case] for case in common)
    if reference > 0 and moved < reference / 2:
        yield f"unranked: its motion is {100 * moved / reference:.0f} % of the real row's, below half"


def _rank(rows: Sequence[Row], columns: Sequence[Column], values: Values) -> list[Row]:
    """Sort the methods of each block by the first primary endpoint and give each the ranks that the data allow."""
    blocks = groupby(sorted(rows, key=lambda row: row.block), key=lambda row: row.block)
    if not columns or not columns[0].primary or columns[0].direction == "none":
        return [row for _, members in blocks for row in members]
    first, found = columns[0], []
    sign = 1.0 if first.direction == "higher" else -1.0
    for _, members in blocks:
        block = list(members)
        ranked = [row for row in block if not row.reference and not row.unranked and row.cells[first.key].estimate]
        ranked.sort(key=lambda row: -sign * _level(row, first))
        oriented = {row.label: {k: sign * v for k, v in values[row.label][first.key].items()} for row in ranked}
        ranks = rank_intervals(oriented, 1 - LEVEL) if len(ranked) > 1 else {}
        found += [replace(row, rank=ranks.get(row.label)) for row in ranked]
        found += [row for row in block if row.label not in oriented]
    return found


def _level(row: Row, column: Column) -> float:
    estimate = row.cells[column.key].estimate
    return estimate.value if estimate else 0.0


def _failures(entries: Iterable[Entry]) -> Iterable[Failure]:
    for s in (entry.sample for entry in entries):
        if s.status != "ok":
            yield Failure(s.method.label, s.case.id, s.seed, s.status, s.reason or "no reason recorded", s.hint)


def _missing(entries: Iterable[Entry]) -> Iterable[Missing]:
    records = [record for entry in entries for record in entry.metrics.values() if record.hint]
    return dict.fromkeys(Missing(record.name, record.reason, record.hint) for record in records)
