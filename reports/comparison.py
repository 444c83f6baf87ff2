"""A comparison of two runs as tables, Markdown and JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from magbench.comparison import LEVEL, Comparison, MethodComparison, Row, Side, TrackComparison, clocked
from magbench.records import SCHEMA_VERSION, RunRecord
from magbench.reports.grids import ARROWS, Grid, Item, Notes, interval, number, signed
from magbench.reports.tables import escape, markdown
from magbench.stats import MIN_CASES_TEST, TOO_FEW_TO_TEST

MARKS = {
    "+": "better",
    "-": "worse",
    "≠": "different (no better side)",
    "!": "a value in A only",
    "*": "a value in B only",
    "x": "not comparable",
    "~": "no difference found",
    "=": "the same in every case",
}
"""What each mark means, in the order in which they are counted."""


def grids(comparison: Comparison, everything: bool = False) -> list[Grid]:
    """One table per track and method, primary endpoints first.

    Args:
        comparison: The two runs.
        everything: Also the rows for which `worth_showing` is false. A method without a row has no table.
    """
    found = []
    for track in comparison.tracks:
        for method in track.methods:
            rows = [row for row in method.rows if everything or worth_showing(row, method)]
            if rows:
                found.append(_grid(track, method, rows))
    return found


def worth_showing(row: Row, method: MethodComparison) -> bool:
    """Whether the short table has this row.

    A primary endpoint is there unless it is the same in every case, or nowhere. Of the rest, what changed; not what is
    incomparable or incomplete for a reason that holds for the whole metric or sample, which is said elsewhere.
    """
    if row.column.primary:
        return row.changed or (row.difference is not None and row.mark != "=")
    if row.mark == "x":
        return False
    if row.mark in ("~", "=", ""):
        return row.lost > method.lost or row.gained > method.gained or (clocked(row.column) and row.changed)
    return True


def legend(comparison: Comparison, everything: bool = False) -> list[str]:
    """What the signs in the tables mean, as far as they occur."""
    shown = [
        row
        for track in comparison.tracks
        for method in track.methods
        for row in method.rows
        if everything or worth_showing(row, method)
    ]
    lines = []
    if any(row.column.primary for row in shown):
        lines.append("* primary endpoint, p Holm-adjusted within the track; ( ) exploratory, not adjusted")
    used = {row.mark for row in shown}
    if used & MARKS.keys():
        lines.append(", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.items() if mark in used))
    if any(row.difference and row.difference.low is not None and row.mark != "=" for row in shown):
        lines.append("[low, high] 95 % interval, paired by case, the wider of bootstrap-t and sign-flip test")
    return lines


def describe(run: RunRecord) -> str:
    """A run in a few words."""
    suite = f"suite {run.suite} version {run.suite_version}, model {run.model}, " if run.suite else ""
    return f"{suite}started {run.started[:10] or 'at an unknown time'}"


def notices(comparison: Comparison) -> list[str]:
    """What differs between the runs, one sentence each; first what blocks the comparison."""
    found = comparison.comparability
    lines = [f"not comparable: {text}" for text in found.blocking]
    lines += found.differing
    if found.timing:
        lines.append(f"times and speeds are not compared: {'; '.join(found.timing)}")
    return lines


def summary(comparison: Comparison) -> list[str]:
    """Per track, how many rows have which mark; primary endpoints and the rest apart."""
    lines = []
    for track in comparison.tracks:
        rows = [row for method in track.methods for row in method.rows]
        parts = [_count([r for r in rows if r.column.primary], "primary")]
        parts.append(_count([r for r in rows if not r.column.primary], "exploratory"))
        lines.append(f"{track.name}: {'; '.join(filter(None, parts))}")
    return lines


def as_markdown(comparison: Comparison, names: tuple[str, str] = ("A", "B")) -> str:
    """GitHub Markdown: notices, counts, the rows that changed, and all rows folded away.

    Args:
        comparison: The two runs.
        names: What to call them, e.g. their folders.
    """
    runs = (comparison.a, comparison.b)
    head = [f"{k}: {escape(name)} ({escape(describe(run))})  " for k, name, run in zip("AB", names, runs, strict=True)]
    parts = ["## magbench compare", "", *head, "", *(f"- {escape(text)}" for text in notices(comparison)), ""]
    if comparison.comparability.blocking:
        return "\n".join(parts)
    parts += [f"**{escape(text)}**  " for text in summary(comparison)]
    parts += ["", *(markdown(grid) for grid in grids(comparison))]
    parts += ["<details><summary>All rows</summary>", "", *(markdown(grid) for grid in grids(comparison, True))]
    parts += ["</details>", "", *(f"{escape(text)}  " for text in legend(comparison, True)), ""]
    return "\n".join(parts)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Strict JSON: every row with states and reasons, no NaN, and nothing left out."""
    found = comparison.comparability
    return {
        "schema_version": SCHEMA_VERSION,
        "comparable": not found.blocking,
        "a": _run(comparison.a),
        "b": _run(comparison.b),
        "blocking": list(found.blocking),
        "differing": list(found.differing),
        "timing": list(found.timing),
        "metrics": dict(found.metrics),
        "cases": [{"track": track, "case": case, "reason": text} for (track, case), text in found.cases.items()],
        "level": LEVEL,
        "tracks": {
            track.name: {
                "cases": track.cases,
                "methods": [
                    {"a": method.a, "b": method.b, "rows": [_row(row) for row in method.rows]}
                    for method in track.methods
                ],
            }
            for track in comparison.tracks
        },
    }


def _run(run: RunRecord) -> dict[str, Any]:
    shown = ("kind", "suite", "suite_version", "model", "methods", "status", "started", "versions", "hardware", "git")
    return run.model_dump(mode="json", include=set(shown))


def _row(row: Row) -> dict[str, Any]:
    return {
        **asdict(row.column),
        "key": row.column.key,
        "a": asdict(row.a),
        "b": asdict(row.b),
        "difference": row.difference and asdict(row.difference),
        "p_holm": row.p_adjusted,
        "mark": row.mark,
        "lost": row.lost,
        "gained": row.gained,
        "reason": row.reason,
    }


def _count(rows: Sequence[Row], what: str) -> str:
    counts = {mark: sum(row.mark == mark for row in rows) for mark in MARKS}
    parts = [f"{count} {MARKS[mark].partition(' (')[0]}" for mark, count in counts.items() if count]
    untested = sum(row.difference is not None and not row.mark for row in rows)
    parts += [f"{untested} not tested"] if untested else []
    return f"{what}: {', '.join(parts)}" if parts else ""


def _grid(track: TrackComparison, method: MethodComparison, rows: Sequence[Row]) -> Grid:
    notes = Notes()

    def line(row: Row) -> tuple[Item, ...]:
        numbers = notes.number(_remarks(row, track.cases))
        return _name(row, numbers), _level(row.a), _level(row.b), _delta(row), Item(_p(row))

    groups = tuple(
        tuple(line(row) for row in part)
        for part in ([r for r in rows if r.column.primary], [r for r in rows if not r.column.primary])
        if part
    )
    cases = f"{track.cases} case{'s' if track.cases != 1 else ''}"
    return Grid(
        f"{track.name} · {method.label} ({cases})",
        (("metric",), ("A",), ("B",), ("B − A",), ("p",)),
        groups,
        tuple(notes.texts),
        (),
    )


def _name(row: Row, notes: tuple[int, ...]) -> Item:
    column = row.column
    unit = f"[{column.unit}]" if column.unit else ""
    words = (column.reduction or column.metric, ARROWS[column.direction], "*" if column.primary else "")
    metric = column.metric if column.reduction else ""
    return Item(" ".join(filter(None, words)), " ".join(filter(None, (metric, unit))), "", notes)


def _level(side: Side) -> Item:
    if side.value is not None:
        return Item(number(side.value))
    return Item({"error": "error", "missing": "–"}.get(side.state, "n/a"))


def _delta(row: Row) -> Item:
    d = row.difference
    if d is None:
        return Item("", mark=row.mark)
    return Item(signed(d.value), "" if row.mark == "=" else interval(d.low, d.high), row.shown_mark)


def _p(row: Row) -> str:
    if row.p is None or row.mark == "=":
        return ""
    text = "<0.001" if row.p < 0.001 else f"{row.p:.2g}"
    return text if row.column.primary else f"({text})"


def _remarks(row: Row, cases: int) -> Iterable[str]:
    if row.reason == TOO_FEW_TO_TEST and row.difference:
        yield f"{TOO_FEW_TO_TEST} ({row.difference.n}, fewer than {MIN_CASES_TEST})"
    elif row.reason:
        yield row.reason
    if row.difference and row.difference.n < cases:
        yield f"{row.difference.n} of {cases} cases have a value in both"
    for name, side, fewer in (("A", row.a, row.gained), ("B", row.b, row.lost)):
        if side.value is None or (fewer and row.mark != "x"):
            yield from (f"{name}: {text}" for text in side.reasons)
