"""Tables in words, without a format; `magbench.reports.tables` writes them down."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from magbench.records import Direction
from magbench.reports.model import MIB, Cell, Column, Cost, Row, TrackReport, lookup
from magbench.stats import MIN_CASES_INTERVAL, MIN_CASES_TEST, TOO_FEW_TO_TEST

ARROWS: dict[Direction, str] = {"higher": "↑", "lower": "↓", "none": ""}
SHORT = {"training-free transfer": "transfer", "not applicable": "", "external": ""}
"""Applicability in a table; the legend has the whole word."""


@dataclass(frozen=True)
class Item:
    """What stands in one cell."""

    text: str
    detail: str = ""
    """The interval."""
    mark: str = ""
    notes: tuple[int, ...] = ()
    """Numbers of the footnotes, from 1."""


@dataclass(frozen=True)
class Grid:
    """A table without a format."""

    title: str
    header: tuple[tuple[str, ...], ...]
    """Per column, its lines."""
    groups: tuple[tuple[tuple[Item, ...], ...], ...]
    """Blocks of rows, ruled off from each other."""
    notes: tuple[str, ...]
    """Numbered footnotes."""
    legend: tuple[str, ...]
    """What holds for the whole table."""
    optional: tuple[int, ...] = ()
    """Columns to leave out, in this order, where the table is too wide."""


@dataclass
class Notes:
    """Footnotes, each text once."""

    texts: dict[str, int] = field(default_factory=dict)

    def number(self, texts: Iterable[str]) -> tuple[int, ...]:
        """The number of each text that isn't empty."""
        return tuple(self.texts.setdefault(text, len(self.texts) + 1) for text in texts if text)


def number(value: float) -> str:
    """Three significant decimals or so: enough to compare, short enough to read."""
    size = abs(value)
    if size < 1e-12:
        return "0"
    if size < 0.0005 or size >= 1e6:
        return f"{value:.1e}"
    return f"{value:.{3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0}f}"


def signed(value: float) -> str:
    """As `number`, with a plus sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def headline(track: TrackReport) -> Grid:
    """The short table: methods and references down, primary endpoints and key columns across."""
    notes = Notes()
    header = [("method",), *(_column_lines(column) for column in track.headline)]
    costed = any(row.cost for row in track.rows)
    if costed:
        header += [("past", "frames", "peak"), ("K/V", "MiB", "peak")]
    speed = next((c for c in track.columns if c.key == "efficiency@default/fps"), None)
    if speed:
        header.append(("speed", "frames/s"))

    def line(row: Row) -> tuple[Item, ...]:
        items = [_label(row, track, notes), *(_item(row.cells[c.key], notes) for c in track.headline)]
        if costed:
            items += [Item(_cost(row.cost, "past")), Item(_cost(row.cost, "cache"))]
        if speed:
            items.append(Item("–") if row.reference else _plain(row.cells[speed.key], notes))
        return tuple(items)

    groups = tuple(tuple(line(row) for row in rows) for rows in (track.methods, track.references) if rows)
    spare = [1 + index for index, column in enumerate(track.headline) if not column.primary]
    return Grid(_title(track), tuple(header), groups, tuple(notes.texts), _legend(track), tuple(reversed(spare)))


def levels(track: TrackReport) -> Grid:
    """Every number: columns of the model down, methods and references across."""
    notes = Notes()
    header = (("metric",), *((row.label,) for row in track.rows))
    groups = tuple(
        tuple((_endpoint(column), *(_item(row.cells[column.key], notes) for row in track.rows)) for column in columns)
        for columns in (
            [c for c in track.columns if c.primary],
            [c for c in track.columns if not c.primary and c.quality],
            [c for c in track.columns if not c.primary and not c.quality],
        )
        if columns
    )
    return Grid(f"{_title(track)}: all metrics", header, groups, tuple(notes.texts), _legend(track))


def differences(track: TrackReport) -> Grid:
    """Paired differences to the baseline: columns of the model down, methods across."""
    notes = Notes()
    rows = [row for row in track.methods if row.label != track.baseline]
    shown = [c for c in track.columns if any(row.cells[c.key].difference for row in rows)]
    header = (("metric",), *((f"{row.label} − {track.baseline}",) for row in rows))

    def item(cell: Cell) -> Item:
        d = cell.difference
        if d is None:
            return Item("–", notes=notes.number(["no case in common"]))
        parts = [interval(d.low, d.high)]
        if d.p is not None:
            p = cell.p_adjusted if cell.p_adjusted is not None else d.p
            parts.append(f"p{'ₐ' if cell.p_adjusted is not None else ''}={p:.2g}")
        if d.detectable is not None:
            parts.append(f"MDE {number(d.detectable)}")
        note = f"{TOO_FEW_TO_TEST} ({d.n}, fewer than {MIN_CASES_TEST})" if d.note else ""
        return Item(signed(d.value), " ".join(filter(None, parts)), cell.mark, notes.number([note]))

    groups = tuple(
        tuple((_endpoint(column), *(item(row.cells[column.key]) for row in rows)) for column in columns)
        for columns in ([c for c in shown if c.primary], [c for c in shown if not c.primary])
        if columns
    )
    legend = (
        "paired by case, seeds averaged first; [low, high] 95 % interval, the wider of bootstrap-t and sign-flip test; "
        "pₐ: Holm-adjusted over the track's primary comparisons; p: exploratory, not adjusted; "
        "MDE: smallest difference found with power 0.8",
    )
    return Grid(f"{_title(track)}: differences to {track.baseline}", header, groups, tuple(notes.texts), legend)


def case_grid(track: TrackReport, case: str, seed: int) -> Grid:
    """One case and seed: rows down, headline columns across."""
    notes = Notes()
    lines = []
    for entry in track.entries:
        if (entry.sample.case.id, entry.sample.seed) != (case, seed):
            continue
        items = [Item(entry.sample.method.label)]
        for column in track.headline:
            state, value, reason = lookup(entry, column)
            missing = "error" if state == "error" else "n/a"
            note = notes.number([f"{state.replace('_', ' ')}: {reason}"] if value is None else [])
            items.append(Item(missing, notes=note) if value is None else Item(number(value)))
        lines.append(tuple(items))
    header = (("method",), *(_column_lines(column) for column in track.headline))
    return Grid(case, header, (tuple(lines),), tuple(notes.texts), ())


def _title(track: TrackReport) -> str:
    return f"{track.name} ({track.cases} case{'s' if track.cases != 1 else ''})"


def _label(row: Row, track: TrackReport, notes: Notes) -> Item:
    what = "" if row.reference else SHORT.get(row.applicability, row.applicability)
    texts = [row.unranked, f"{row.label}: {row.reason}" if row.reason else ""]
    rank = ""
    if row.rank:
        low, high = row.rank
        rank = f"rank {low}" if low == high else f"rank {low}–{high}"
    elif row.unranked:
        rank = "unranked"
    return Item(row.label, ", ".join(filter(None, (rank, what))), "", notes.number(texts))


def _column_lines(column: Column) -> tuple[str, ...]:
    metric, _, profile = column.metric.partition("@")
    last = " ".join(
        filter(None, (column.reduction, f"[{column.unit}]" if column.unit else "", ARROWS[column.direction]))
    )
    return tuple(filter(None, (f"{metric}{' *' if column.primary else ''}", f"@{profile}", last)))


def _endpoint(column: Column) -> Item:
    unit = f"[{column.unit}]" if column.unit else ""
    return Item(" ".join(filter(None, (column.key, unit, ARROWS[column.direction], "*" if column.primary else ""))))


def _item(cell: Cell, notes: Notes) -> Item:
    numbers = notes.number(cell.reasons)
    if cell.estimate is None:
        return Item("error" if cell.state == "error" else "n/a", notes=numbers)
    return Item(number(cell.estimate.value), interval(cell.estimate.low, cell.estimate.high), cell.mark, numbers)


def _plain(cell: Cell, notes: Notes) -> Item:
    item = _item(cell, notes)
    return Item(item.text, notes=item.notes)


def interval(low: float | None, high: float | None) -> str:
    """`[low, high]`, or nothing where there is none."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


def _cost(cost: Cost | None, what: str) -> str:
    if cost is None:
        return "–"
    if what == "past":
        return f"{cost.past_peak:.4g}"
    extra = f" +{cost.state_peak / MIB:.2g}" if cost.state_peak else ""
    return f"{cost.cache_peak / MIB:.3g}{extra}"


def _legend(track: TrackReport) -> tuple[str, ...]:
    lines = []
    if any(column.primary for column in track.columns):
        lines.append("* primary endpoint; everything else is exploratory")
    estimates = [cell.estimate for row in track.rows for cell in row.cells.values() if cell.estimate]
    if any(e.low is not None for e in estimates):
        few = f", descriptive only below {MIN_CASES_TEST} cases" if any(e.descriptive for e in estimates) else ""
        lines.append(f"[low, high] 95 % interval of the mean over cases, the wider of bootstrap-t and Student's{few}")
        if any(e.low is None and e.n >= MIN_CASES_INTERVAL for e in estimates):
            lines.append("no [low, high] where all cases have the same value")
    if track.baseline:
        tested = any(cell.mark for row in track.rows for cell in row.cells.values())
        lines.append(
            f"against {track.baseline}, paired by case: + better, - worse, ≠ different, ~ no difference found, "
            "( ) exploratory and not adjusted"
            if tested
            else f"against {track.baseline}: no mark where {TOO_FEW_TO_TEST} (below {MIN_CASES_TEST})"
        )
    if any(row.rank for row in track.rows):
        lines.append("rank a–b: ranks that paired tests on the first primary endpoint leave open, 95 % together")
    if any(row.applicability == "training-free transfer" for row in track.rows):
        lines.append("transfer: training-free transfer, the model was not trained with this cache policy")
    if any(row.cost for row in track.rows):
        lines.append("past frames, K/V: measured; the chunk itself excluded; +: other state of the policy")
    return tuple(lines)
