"""Tables in words, without a format; `magbench.reports.tables` writes them down."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby

from magbench.horizon import STAYS, WINDOW
from magbench.records import Direction
from magbench.reports.horizons import METRIC as HORIZON
from magbench.reports.model import MIB, Cell, Column, Cost, Row, TrackReport, Use, lookup
from magbench.reports.sweep import shown
from magbench.reports.time_away import AwayPanel
from magbench.stats import MIN_CASES_INTERVAL, MIN_CASES_TEST, TOO_FEW_TO_TEST

ARROWS: dict[Direction, str] = {"higher": "↑", "lower": "↓", "none": ""}
ALWAYS = 3
"""Columns of cost that stay however narrow the terminal: past frames, keys × passes, keys and values."""
SHORT = {"training-free transfer": "transfer", "not applicable": "", "external": ""}
"""Applicability in a table; the legend has the whole word."""
NULLS = (
    "start_end, slope, variability, worst_window: read them beside the reference rows, where no method drifts; "
    "without any drift the absolute difference of start and end is 0.5 to 1 standard deviation of the series"
)


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
    sizes = _sizes(track)
    header += sizes
    speed = next((c for c in track.columns if c.key == "efficiency@default/fps"), None)
    if speed:
        header.append(("speed", "frames/s"))

    def line(row: Row) -> tuple[Item, ...]:
        items = [_label(row, notes), *(_item(row, column, notes) for column in track.headline)]
        items += [tell(row.cost) if row.cost else Item("–") for tell in sizes.values()]
        if speed:
            items.append(Item("–") if row.reference else replace(_item(row, speed, notes), detail="", mark=""))
        return tuple(items)

    groups = tuple(tuple(map(line, rows)) for _, rows in groupby(track.rows, lambda row: row.block))
    less = [index for index, column in enumerate(track.headline, 1) if not column.primary]
    spare = [*range(1 + len(track.headline) + min(len(sizes), ALWAYS), len(header)), *less]
    return Grid(_title(track), tuple(header), groups, tuple(notes.texts), _legend(track), tuple(reversed(spare)))


def levels(track: TrackReport) -> Grid:
    """Every number: columns of the model down, methods and references across."""
    notes = Notes()
    header = (("metric",), *((row.label,) for row in track.rows))
    groups = tuple(
        tuple((_endpoint(column), *(_item(row, column, notes) for row in track.rows)) for column in columns)
        for columns in (
            [c for c in track.columns if c.primary],
            [c for c in track.columns if not c.primary and c.quality],
            [c for c in track.columns if not c.primary and not c.quality],
        )
        if columns
    )
    legend = (*_legend(track), NULLS) if any("start_end@" in c.reduction for c in track.columns) else _legend(track)
    return Grid(f"{_title(track)}: all metrics", header, groups, tuple(notes.texts), legend)


def differences(track: TrackReport) -> Grid:
    """Paired differences to what each method is compared with: columns of the model down, methods across."""
    notes = Notes()
    rows = [row for row in track.methods if any(cell.difference for cell in row.cells.values())]
    shown = [c for c in track.columns if any(row.cells[c.key].difference for row in rows)]
    header = (("metric",), *((f"{row.label} − {row.against}",) for row in rows))

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
    return Grid(f"{_title(track)}: differences to {against(track)}", header, groups, tuple(notes.texts), legend)


def away_grid(track: TrackReport, panels: Iterable[AwayPanel]) -> Grid:
    """Endpoints by time away: times down, methods and references across."""
    shown_panels = tuple(panels)
    labels = tuple(dict.fromkeys(line.label for panel in shown_panels for line in panel.lines))
    unit = shown_panels[0].unit
    notes, groups = Notes(), []
    for panel in shown_panels:
        points = {(line.label, point.away): point for line in panel.lines for point in line.points}
        names = {point.away: point.name for point in points.values()}
        what = " ".join(filter(None, (panel.title, panel.value_unit and f"[{panel.value_unit}]")))
        lines = []
        for away, name in sorted(names.items()):
            cells = [Item(f"{what} {ARROWS[panel.direction]}, away {name}")]
            for label in labels:
                e = points[label, away].estimate if (label, away) in points else None
                cases = f"{e.n} case{'s' if e.n != 1 else ''}" if e else ""
                few = (
                    [f"no interval from {cases}, fewer than {MIN_CASES_INTERVAL}"]
                    if e and e.n < MIN_CASES_INTERVAL
                    else []
                )
                numbers = notes.number(few if e else ["no value at this time away"])
                cells.append(
                    Item(number(e.value), interval(e.low, e.high), "", numbers) if e else Item("n/a", notes=numbers)
                )
            lines.append(tuple(cells))
        groups.append(tuple(lines))
    legend = ("[low, high] 95 % interval of the mean over cases; a falling line is what forgetting looks like",)
    header = ((f"time away, {unit}",), *((label,) for label in labels))
    return Grid(f"{_title(track)}: by time away", header, tuple(groups), tuple(notes.texts), legend)


def case_grid(track: TrackReport, case: str, seed: int) -> Grid:
    """One case and seed: rows down, headline columns across. Of a large sweep, the rows that have players."""
    notes, labels = Notes(), {row.label for row in shown(track)}
    lines = []
    for entry in track.entries:
        if (entry.sample.case.id, entry.sample.seed) != (case, seed) or entry.sample.method.label not in labels:
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


def _label(row: Row, notes: Notes) -> Item:
    what = "" if row.reference else SHORT.get(row.method.applicability, row.method.applicability)
    rank = ""
    if row.rank:
        low, high = row.rank
        rank = f"rank {low}" if low == high else f"rank {low}–{high}"
    elif row.unranked:
        rank = row.unranked.partition(":")[0]
    extended = (
        f"extended: positions beyond the release's table of {row.method.released_frames} latent frames, where the "
        f"release is not applicable ({row.extended} samples)"
    )
    numbers = notes.number([row.unranked, row.method.reason, extended if row.extended else ""])
    return Item(row.label, ", ".join(filter(None, (rank, what, "extended" * bool(row.extended)))), "", numbers)


def _sizes(track: TrackReport) -> dict[tuple[str, ...], Callable[[Cost], Item]]:
    """What rows cost, column by column: `ALWAYS`, then state and second networks where a row has any."""
    costs = [row.cost for row in track.rows if row.cost]
    found: dict[tuple[str, ...], Callable[[Cost], Item]] = {}
    if costs:
        found["past", "frames"] = lambda cost: _use(cost.past_frames, 4)
        found["keys ×", "passes"] = lambda cost: _use(cost.keys_passes, 4)
        found["K/V", "MiB"] = lambda cost: _use(cost.cache_bytes, 3, MIB)
    if any(cost.state_bytes.peak for cost in costs):
        found["state", "MiB"] = lambda cost: _use(cost.state_bytes, 2, MIB)
    if any(cost.network_bytes for cost in costs):
        found["network", "MiB"] = lambda cost: Item(f"{cost.network_bytes / MIB:.3g}")
    return found


def _use(use: Use, digits: int, unit: float = 1) -> Item:
    return Item(f"{use.peak / unit:.{digits}g}", f"({use.mean / unit:.{digits}g})" if use.peak else "")


def _column_lines(column: Column) -> tuple[str, ...]:
    metric, _, profile = column.metric.partition("@")
    last = " ".join(
        filter(None, (column.reduction, f"[{column.unit}]" if column.unit else "", ARROWS[column.direction]))
    )
    return tuple(filter(None, (f"{metric}{' *' if column.primary else ''}", f"@{profile}", last)))


def _endpoint(column: Column) -> Item:
    unit = f"[{column.unit}]" if column.unit else ""
    return Item(" ".join(filter(None, (column.key, unit, ARROWS[column.direction], "*" if column.primary else ""))))


def _item(row: Row, column: Column, notes: Notes) -> Item:
    cell = row.cells[column.key]
    numbers = notes.number(cell.reasons if row.applies else [])
    if cell.estimate is None:
        return Item("error" if cell.state == "error" else "n/a", notes=numbers)
    return Item(number(cell.estimate.value), interval(cell.estimate.low, cell.estimate.high), cell.mark, numbers)


def interval(low: float | None, high: float | None) -> str:
    """`[low, high]`, or nothing where there is none."""
    return "" if low is None or high is None else f"[{number(low)}, {number(high)}]"


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
    if any(column.metric.partition("@")[0] == HORIZON for column in track.columns):
        lines.append(
            f"{HORIZON}: mean seconds until a {WINDOW:g} s mean is beyond the threshold for {STAYS:g} s or the picture "
            f"freezes for as long; at most the video's length less {STAYS:g} s"
        )
    if track.baseline:
        tested = any(cell.mark for row in track.rows for cell in row.cells.values())
        lines.append(
            f"against {against(track)}, paired by case: + better, - worse, ≠ different, ~ no difference found, "
            "( ) exploratory and not adjusted"
            if tested
            else f"against {against(track)}: no mark where {TOO_FEW_TO_TEST} (below {MIN_CASES_TEST})"
        )
    if any(row.rank for row in track.rows):
        among = ", among methods of the same budget" if len({row.block for row in track.methods}) > 1 else ""
        left = "ranks that paired tests on the first primary endpoint leave open"
        lines.append(f"rank a–b: {left}{among}, 95 % together")
    if any(row.method.applicability == "training-free transfer" for row in track.rows):
        lines.append("transfer: training-free transfer, the model was not trained with this cache policy")
    costs = [row.cost for row in track.rows if row.cost]
    if costs:
        lines.append("past frames that a pass sees, keys × passes of a chunk (its own keys, too), K/V: most (mean)")
    if any(cost.state_bytes.peak for cost in costs):
        lines.append("state: what a policy keeps beside keys and values")
    if any(cost.network_bytes for cost in costs):
        lines.append("network: weights of a second network, which writes the cache; once for all samples")
    return tuple(lines)


def against(track: TrackReport) -> str:
    """What the methods are compared with, in words."""
    base = next(row for row in track.rows if row.label == track.baseline)
    if all(row.against in ("", track.baseline) for row in track.rows):
        return track.baseline
    return f"{base.family} at the same budget (where there is none, and {base.family} itself: {track.baseline})"
