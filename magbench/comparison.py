"""Two runs side by side: what got better, worse, lost or found.

A is the old run, B the new one, and a difference is B minus A, paired by case after the seeds of a case are averaged.
`magbench.compare` is this module's `compare`.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from magbench.comparability import Comparability, common_tracks, comparability, label_of, method_pairs
from magbench.records import RunRecord
from magbench.reports.curves import Entry
from magbench.reports.model import Column, lookup
from magbench.results import Results, read
from magbench.stats import Difference, case_means, holm, paired_difference
from magbench.store import RunStore

__all__ = [
    "LEVEL", "Comparability", "Comparison", "Mark", "MethodComparison", "Row", "Side", "SideState", "TrackComparison",
    "comparability", "compare", "compared",
]  # fmt: skip

LEVEL = 0.05
CLOCK_UNITS = ("s", "ms", "/s")
CLOCK_CHANGE = 0.1
"""Share by which a time or speed must change to be pointed at."""
NO_CLOCK_TEST = "not tested: the cases of a run share what else the machine did"

SideState = Literal["value", "not_applicable", "error", "missing"]
Mark = Literal["+", "-", "≠", "~", "=", "!", "*", "x", ""]
Run = Results | str | os.PathLike[str]
Pair = tuple[str, int]
"""Case id and seed."""


@dataclass(frozen=True)
class Side:
    """One run's number, or why there is none."""

    state: SideState
    """`missing`: this run doesn't measure the metric."""
    value: float | None = None
    """Mean over the cases that enter the difference; over all of this run's cases where there is no difference."""
    samples: int = 0
    """Samples with a value."""
    expected: int = 0
    """Samples there should be."""
    reasons: tuple[str, ...] = ()
    """Why the others have none, most frequent first, each with its count."""


@dataclass(frozen=True)
class Row:
    """One column of one method, in both runs."""

    column: Column
    a: Side
    b: Side
    difference: Difference | None = None
    """B minus A in the column's own unit; `column.direction` says which sign is better."""
    p_adjusted: float | None = None
    """Holm, over the track's primary comparisons; None for an exploratory one, or one that isn't tested."""
    mark: Mark = ""
    """`+` better, `-` worse, `≠` different (no better side), `~` no difference found, `=` the same in every case,
    `!` a value before and none now, `*` a value now and none before, `x` not comparable. Empty: not tested, or no
    value in either."""
    lost: int = 0
    """Cases with a value in A only."""
    gained: int = 0
    """Cases with a value in B only."""
    reason: str = ""
    """Why it isn't comparable or isn't tested."""

    @property
    def p(self) -> float | None:
        """The p-value that the mark follows: Holm-adjusted for a primary endpoint, plain for an exploratory one."""
        return self.p_adjusted if self.p_adjusted is not None else self.difference.p if self.difference else None

    @property
    def shown_mark(self) -> str:
        """The mark, in parentheses where a test was exploratory."""
        return f"({self.mark})" if not self.column.primary and self.mark in ("+", "-", "≠", "~") else self.mark

    @property
    def changed(self) -> bool:
        """Whether something is to be seen: a difference, or values that came, went or can't be compared.

        A time or speed is not tested, and counts from a change of `CLOCK_CHANGE` up.
        """
        if clocked(self.column) and self.difference and self.a.value:
            return abs(self.difference.value) > CLOCK_CHANGE * abs(self.a.value)
        return self.mark in ("+", "-", "≠", "!", "*", "x") or bool(self.lost or self.gained)


@dataclass(frozen=True)
class MethodComparison:
    """A method in both runs."""

    a: str
    """Its label in A."""
    b: str
    lost: int
    """Cases with a finished sample in A only."""
    gained: int
    """Cases with a finished sample in B only."""
    rows: tuple[Row, ...]
    """Primary endpoints first, then the metrics in the suite's order, times and sizes last."""

    @property
    def label(self) -> str:
        """Its name, or both names."""
        return self.a if self.a == self.b else f"{self.a} → {self.b}"


@dataclass(frozen=True)
class TrackComparison:
    """Everything about one track."""

    name: str
    cases: int
    """Comparable cases that both runs have."""
    methods: tuple[MethodComparison, ...]


@dataclass(frozen=True)
class Comparison:
    """Two runs."""

    a: RunRecord
    b: RunRecord
    comparability: Comparability
    tracks: tuple[TrackComparison, ...]
    """In the order in which B declares them; empty when nothing is comparable."""


def compare(a: Run, b: Run) -> Comparison:
    """Compare two runs.

    Args:
        a: The old run: its folder (videos need not be there), or what `magbench.load` gave.
        b: The new run.

    Returns:
        Every column of every method that both runs have, with paired difference, interval, p-value and mark.
        Primary endpoints are Holm-adjusted within their track, over all methods; a pair that is the same number in
        every case is no test and doesn't count there. Everything else is exploratory.

    Raises:
        IncompatibleRunsError: `comparability(a, b)` says that nothing can be compared.
        ConfigError: a path is no run folder.
    """
    old, new = _read(a), _read(b)
    found = comparability(old, new)
    found.require()
    return compared(old, new, found)


def compared(old: Results, new: Results, found: Comparability) -> Comparison:
    """As `compare`, of runs whose comparability is known; without tracks where it blocks everything."""
    pairs = method_pairs(old, new)
    names = () if found.blocking else common_tracks(old, new)
    tracks = tuple(_track(name, old, new, found, pairs) for name in names)
    return Comparison(old.run, new.run, found, tracks)


def clocked(column: Column) -> bool:
    """Whether it is a time or a speed, which depends on the machine and on what else that does."""
    return not column.quality and column.unit in CLOCK_UNITS


def _read(run: Run) -> Results:
    return run if isinstance(run, Results) else read(RunStore.open(Path(run)), videos=False)


@dataclass(frozen=True)
class _Half:
    """One run's samples of a track, comparable cases only."""

    entries: Mapping[str, Mapping[Pair, Entry]]
    """By method."""
    measured: frozenset[str]
    """Metrics that any of its samples has a record of."""
    expected: tuple[Pair, ...]

    def finished(self, label: str) -> set[str]:
        """Cases of a method with a finished sample."""
        return {case for (case, _), entry in self.entries.get(label, {}).items() if entry.sample.status == "ok"}


def _half(results: Results, track: str, cases: frozenset[str]) -> _Half:
    entries: dict[str, dict[Pair, Entry]] = {}
    for sample in results.samples:
        if sample.case.track == track and sample.case.id in cases and sample.method.policy != "reference":
            entry = Entry(sample, {record.name: record for record in results.metrics[sample.key]}, ())
            entries.setdefault(label_of(sample), {})[sample.case.id, sample.seed] = entry
    measured = {name for members in entries.values() for entry in members.values() for name in entry.metrics}
    expected = {pair for members in entries.values() for pair in members}
    return _Half(entries, frozenset(measured), tuple(sorted(expected)))


def _track(name: str, a: Results, b: Results, found: Comparability, pairs: Mapping[str, str]) -> TrackComparison:
    sides = [{s.case.id for s in results.samples if s.case.track == name} for results in (a, b)]
    cases = frozenset(case for case in sides[0] & sides[1] if (name, case) not in found.cases)
    old, new = _half(a, name, cases), _half(b, name, cases)
    columns = _columns(name, a.run, b.run, (old, new))
    methods = []
    for x, y in pairs.items():
        if x in old.entries or y in new.entries:
            before, after = old.finished(x), new.finished(y)
            rows = tuple(_row(column, x, y, old, new, found) for column in columns)
            methods.append(MethodComparison(x, y, len(before - after), len(after - before), rows))
    return TrackComparison(name, len(cases), tuple(_adjust(methods)))


def _columns(track: str, a: RunRecord, b: RunRecord, halves: Iterable[_Half]) -> list[Column]:
    primary = b.primary.get(track, a.primary.get(track, ()))
    found: dict[str, Column] = {}
    for half in halves:
        for entry in (entry for members in half.entries.values() for entry in members.values()):
            for record in entry.metrics.values():
                for r in record.reductions:
                    column = Column(record.name, r.name, r.direction, r.unit)
                    found[column.key] = replace(column, primary=column.key in primary)
    known = {column.metric for column in found.values()}
    for name in sorted({name for half in halves for name in half.measured} - known):
        found[name] = Column(name, "")
    for key in primary:
        metric, _, reduction = key.partition("/")
        found.pop(metric, None)
        found.setdefault(key, Column(metric, reduction, primary=True))
    order = b.resolved.get("metrics", {}).get(track, ())

    def place(column: Column) -> tuple[bool, int, str]:
        return not column.quality, order.index(column.metric) if column.metric in order else len(order), column.metric

    first = [found.pop(key) for key in dict.fromkeys(primary)]
    return first + sorted(found.values(), key=place)


def _row(column: Column, x: str, y: str, old: _Half, new: _Half, found: Comparability) -> Row:
    a, before = _side(column, old, x)
    b, after = _side(column, new, y)
    row = Row(column, a, b, lost=len(before.keys() - after.keys()), gained=len(after.keys() - before.keys()))
    timing = found.timing[0] if found.timing and clocked(column) else ""
    reason = found.metrics.get(column.metric) or timing
    if (before or after) and (reason or not (old.expected and new.expected)):
        return replace(row, mark="x", reason=reason or "no case is the same in both")
    if not before or not after:
        mark: Mark = "!" if before else "*" if after else ""
        return replace(row, mark=mark)
    common = [case for case in before if case in after]
    if not common:
        return replace(row, reason="no case has a value in both")
    d = paired_difference(after, before)
    if clocked(column):
        d = Difference(d.value, d.n, descriptive=True, note=NO_CLOCK_TEST)
    a = replace(a, value=sum(before[case] for case in common) / len(common))
    b = replace(b, value=sum(after[case] for case in common) / len(common))
    same = all(before[case] == after[case] for case in common)
    return replace(row, a=a, b=b, difference=d, mark="=" if same else "", reason="" if same else d.note)


def _side(column: Column, half: _Half, label: str) -> tuple[Side, dict[str, float]]:
    """One run's number, and its value per case."""
    expected = len(half.expected)
    if column.metric not in half.measured:
        return Side("missing", None, 0, expected, ("not measured in this run",)), {}
    lists: dict[str, list[float]] = {}
    reasons: dict[tuple[SideState, str], int] = {}
    entries = half.entries.get(label, {})
    for pair in half.expected:
        state, value, reason = lookup(entries.get(pair), column)
        if value is not None:
            lists.setdefault(pair[0], []).append(value)
        else:
            reasons[state, reason] = reasons.get((state, reason), 0) + 1
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    lines = tuple(f"{state.replace('_', ' ')}: {text} ({n} of {expected} samples)" for (state, text), n in ordered)
    values = case_means(lists)
    have = expected - sum(reasons.values())
    if values:
        return Side("value", sum(values.values()) / len(values), have, expected, lines), values
    failed = any(state == "error" for state, _ in reasons) or not reasons
    return Side("error" if failed else "not_applicable", None, 0, expected, lines), {}


def _adjust(methods: Sequence[MethodComparison]) -> Iterable[MethodComparison]:
    """Holm over the primary comparisons of a track, then the marks of all tests."""
    family = {
        (m.a, row.column.key): row.difference.p
        for m in methods
        for row in m.rows
        if row.column.primary and not row.mark and row.difference and row.difference.p is not None
    }
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    for method in methods:
        rows = [replace(row, p_adjusted=adjusted.get((method.a, row.column.key))) for row in method.rows]
        yield replace(method, rows=tuple(row if row.mark else replace(row, mark=_mark(row)) for row in rows))


def _mark(row: Row) -> Mark:
    if row.p is None or row.difference is None:
        return ""
    if row.p > LEVEL:
        return "~"
    if row.column.direction == "none":
        return "≠"
    return "+" if (row.difference.value > 0) == (row.column.direction == "higher") else "-"
