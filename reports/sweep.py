"""Several budgets in one run: quality against budget, and which rows stand for the others elsewhere."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from magbench.reports.model import Column, Row, TrackReport
from magbench.stats import Estimate

MOST_ROWS, MOST_BUDGETS = 8, 4
"""More methods, or more budgets of one of them, can't be told apart in one plot."""


@dataclass(frozen=True)
class Point:
    """One method at one budget."""

    past_frames: float
    """The most that a pass saw, as measured."""
    estimate: Estimate
    own: bool
    """Whether it is the budget that the method has when none is given."""


@dataclass(frozen=True)
class Line:
    """One method."""

    family: str
    matched: bool
    points: tuple[Point, ...]
    """By past frames."""


@dataclass(frozen=True)
class Endpoint:
    """One primary endpoint at all budgets."""

    column: Column
    lines: tuple[Line, ...]
    references: Mapping[str, float]
    """Means of the reference rows."""


def families(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The methods among the rows by family, in the order given, each by budget."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if not row.reference:
            found.setdefault(row.family, []).append(row)
    return {family: sorted(members, key=lambda row: row.block) for family, members in found.items()}


def is_sweep(track: TrackReport) -> bool:
    """Whether a method has several budgets."""
    return any(len(rows) > 1 for rows in families(track.rows).values())


def crowded(rows: Iterable[Row]) -> bool:
    """Whether plots over time and players can't hold all the rows."""
    counts = [len(members) for members in families(row for row in rows if row.applies).values()]
    return max(counts, default=0) > 1 and (sum(counts) > MOST_ROWS or max(counts) > MOST_BUDGETS)


def shown(track: TrackReport) -> tuple[Row, ...]:
    """The rows in plots over time and in players: all, or of each method one budget where they are too many.

    That is `common_budget`; of methods that have no videos there, their own, or the smallest.
    """
    if not crowded(track.rows):
        return track.rows
    common, chosen = common_budget(track), []
    for rows in families(track.rows).values():
        made = [row for row in rows if row.cost] or rows
        chosen.append(min(made, key=lambda row: (row.method.budget_frames != common, not row.own_budget)).label)
    return tuple(row for row in track.rows if row.reference or row.label in chosen)


def common_budget(track: TrackReport) -> float | None:
    """Of the baseline's budgets the one at which most methods have videos; of several, its own, else the smallest."""
    base = next((row for row in track.methods if row.label == track.baseline), track.methods[0])
    made = [row.method.budget_frames for row in track.methods if row.cost and row.method.matched]
    mine = families(track.methods)[base.family]
    return max(mine, key=lambda row: (made.count(row.method.budget_frames), row.own_budget)).method.budget_frames


def endpoints(track: TrackReport) -> tuple[Endpoint, ...]:
    """Each primary endpoint at all budgets; none without a sweep."""
    columns = [column for column in track.columns if column.primary] if is_sweep(track) else []
    found = []
    for column in columns:
        lines = [_line(rows, column) for rows in families(track.rows).values()]
        means = {row.label: row.cells[column.key].estimate for row in track.references}
        lines = [line for line in lines if line.points]
        if lines:
            found.append(Endpoint(column, tuple(lines), {label: e.value for label, e in means.items() if e}))
    return tuple(found)


def absent(track: TrackReport) -> tuple[str, ...]:
    """Methods at budgets that have no point, with the reason, in words."""
    primary = [column.key for column in track.columns if column.primary]
    found = []
    for row in track.methods:
        cells = [row.cells[key] for key in primary]
        if not row.applies or not any(cell.estimate for cell in cells):
            reasons = dict.fromkeys(reason for cell in cells for reason in cell.reasons)
            found.append(f"{row.label}: {row.method.reason if not row.applies else '; '.join(reasons)}")
    return tuple(found)


def _line(rows: Iterable[Row], column: Column) -> Line:
    members = list(rows)
    points = [
        Point(row.cost.past_frames.peak, estimate, row.own_budget)
        for row in members
        if row.cost and (estimate := row.cells[column.key].estimate)
    ]
    return Line(
        members[0].family, members[0].method.matched, tuple(sorted(points, key=lambda point: point.past_frames))
    )
